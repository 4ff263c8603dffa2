//! Evaluating a model as a device serves it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use fl_core::{ClientId, Evaluation, Examples, ServedModel, TrainError};

use super::batch::{Batch, ForeignToken, Read};
use super::{Program, Runner};
use crate::arena::reserve;
use crate::file::write_program;
use crate::graph::target_width;
use crate::kernel::Kernels;
use crate::session::{bad_label, cross_entropy, judge_part};
use crate::zoo::Loss;

/// Examples in a batch at most.
const MAX_ROWS: usize = 256;

/// A program that is evaluated on examples, by as many threads as ask.
///
/// Losses are computed from the program's outputs as a [`Session`](crate::Session) does, and added
/// in the order of examples in `f64`; neither the number of threads nor the size of batches
/// changes a bit. A call takes a runner that an earlier one left behind, or makes one.
#[derive(Debug)]
pub struct Served {
    program: Arc<Program>,
    kernels: &'static Kernels,
    rows: usize,
    idle: Mutex<Vec<Worker>>,
}

#[derive(Debug)]
struct Worker {
    runner: Runner,
    rows: Vec<u32>,
    batch: Batch,
    outputs: Vec<f32>,
    losses: Vec<f32>,
    best: Vec<u32>,
}

impl Served {
    /// A program with the fastest kernels of this machine.
    #[must_use]
    pub fn new(program: Arc<Program>) -> Self {
        Self::with_kernels(program, Kernels::best())
    }

    /// A program with the given kernels. All kernels give the same bits.
    #[must_use]
    pub fn with_kernels(program: Arc<Program>, kernels: &'static Kernels) -> Self {
        Self {
            rows: program.rows_for(MAX_ROWS),
            program,
            kernels,
            idle: Mutex::default(),
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    fn worker(&self) -> Worker {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.unwrap_or_else(|| {
            let program = Arc::clone(&self.program);
            Worker {
                runner: Runner::with_kernels(program, self.rows, self.kernels),
                rows: Vec::new(),
                batch: Batch::default(),
                outputs: Vec::new(),
                losses: Vec::new(),
                best: Vec::new(),
            }
        })
    }

    fn check(&self, data: &dyn Examples) -> Result<(), TrainError> {
        let model = self.program.model();
        let mismatch =
            |expected: String, found: String| TrainError::DataMismatch { expected, found };
        if data.input() != model.input() {
            let [expected, found] = [model.input(), data.input()].map(|i| format!("inputs {i:?}"));
            return Err(mismatch(expected, found));
        }
        if data.target() != model.target() {
            let [expected, found] = [model.target(), data.target()];
            return Err(mismatch(
                format!("targets {expected:?}"),
                format!("targets {found:?}"),
            ));
        }
        Ok(())
    }
}

impl ServedModel for Served {
    fn evaluate(&self, data: &dyn Examples, rows: Range<usize>) -> Result<Evaluation, TrainError> {
        self.check(data)?;
        let end = rows.end.min(data.len()).min(u32::MAX as usize);
        let mut worker = self.worker();
        let mut evaluation = Evaluation::default();
        let mut start = rows.start;
        while start < end {
            let count = self.rows.min(end - start);
            worker.part(self.kernels, data, start as u32, count, &mut evaluation)?;
            start += count;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(worker);
        Ok(evaluation)
    }

    fn file(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        // Memory takes all that is written to it; what is left is a program that has no file.
        write_program(&self.program, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl Worker {
    /// Adds `count` examples from `start` to an evaluation.
    fn part(
        &mut self,
        kernels: &Kernels,
        data: &dyn Examples,
        start: u32,
        count: usize,
        evaluation: &mut Evaluation,
    ) -> Result<(), TrainError> {
        let program = Arc::clone(self.runner.program());
        let model = program.model();
        let width = program.output_len();
        let target = model.target();
        reserve(&mut self.rows, count);
        for (row, number) in self.rows.iter_mut().zip(start..) {
            *row = number;
        }
        let rows = &self.rows[..count];
        reserve(&mut self.outputs, count * width);
        reserve(&mut self.losses, count);
        let read = self.batch.read(data, rows);
        let foreign = |found: ForeignToken| TrainError::DataMismatch {
            expected: format!("tokens below {}", found.vocabulary),
            found: format!("token {} in example {}", found.token, found.row),
        };
        let Read {
            inputs,
            labels,
            targets,
        } = read.map_err(foreign)?;
        let outputs = &mut self.outputs[..count * width];
        self.runner.run(inputs, outputs);
        let losses = &mut self.losses[..count];
        match model.loss() {
            Loss::SoftmaxCrossEntropy => {
                if let Some(at) = bad_label(target, labels) {
                    return Err(TrainError::LabelOutOfRange {
                        client: ClientId(0),
                        row: rows[at / target.labels()] as usize,
                        label: labels[at],
                        classes: target_width(target),
                    });
                }
                cross_entropy(kernels, target, count, outputs, labels, 1.0, losses, None);
            }
            Loss::Mse => {
                kernels.mean_squared_error(count, width, outputs, targets, 1.0, losses, None);
            }
            Loss::Bce => {
                kernels.binary_cross_entropy(count, width, outputs, targets, 1.0, losses, None);
            }
        }
        reserve(&mut self.best, labels.len());
        let best = &mut self.best;
        judge_part(kernels, target, outputs, labels, losses, best, evaluation);
        Ok(())
    }
}
