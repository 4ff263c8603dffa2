//! Running a program.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use bytemuck::{cast_slice, cast_slice_mut};

use super::stretch::PART_BYTES;
use super::{Inputs, Program};
use crate::arena::AlignedBytes;
use crate::kernel::Kernels;
use crate::runtime::{Context, INPUT, Schedule};

/// Who is shown values with their names.
type Observer<'a> = dyn FnMut(&str, &[f32]) + 'a;

/// A program at work: one arena for batches of so many examples. A run allocates nothing.
pub struct Runner {
    program: Arc<Program>,
    kernels: &'static Kernels,
    rows: usize,
    schedule: Schedule,
    /// Of each stretch: the first example of its part at hand.
    starts: Vec<usize>,
    arena: AlignedBytes,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("rows", &self.rows)
            .field("arena", &self.arena.len())
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// A runner of batches of up to `rows` examples at once (at least one) with the fastest
    /// kernels of this machine; larger ones are worked through in parts, and so is a batch in
    /// layers whose values would not stay in the cache. The number changes no bit of an output.
    #[must_use]
    pub fn new(program: Arc<Program>, rows: usize) -> Self {
        Self::with_kernels(program, rows, Kernels::best())
    }

    /// A runner for batches of `batch` examples, which works on as many at once as
    /// [`Program::rows_for`] advises.
    #[must_use]
    pub fn for_batch(program: Arc<Program>, batch: usize) -> Self {
        let rows = program.rows_for(batch);
        Self::new(program, rows)
    }

    /// A runner with the given kernels. All kernels give the same bits.
    #[must_use]
    pub fn with_kernels(program: Arc<Program>, rows: usize, kernels: &'static Kernels) -> Self {
        Self::for_cache(program, rows, kernels, PART_BYTES)
    }

    /// The same for a processor whose second cache has about `cache` bytes: where the values of
    /// more examples would not fit, a batch passes a layer in parts. The number changes no bit.
    #[must_use]
    pub fn for_cache(
        program: Arc<Program>,
        rows: usize,
        kernels: &'static Kernels,
        cache: usize,
    ) -> Self {
        let rows = rows.max(1);
        let (schedule, _) = Schedule::new(&program, rows, cache);
        Self {
            program,
            kernels,
            rows,
            starts: vec![0; schedule.stretches.len()],
            arena: AlignedBytes::new(schedule.arena),
            schedule,
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Examples worked on at once.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Computes the outputs (logits) of examples, `[rows, width]`. The number of rows follows
    /// from the outputs' length.
    ///
    /// # Panics
    /// When inputs and outputs are not of one number of whole examples, when the inputs are of the
    /// other kind than the model's, or when a token is outside the vocabulary.
    pub fn run(&mut self, inputs: Inputs<'_>, outputs: &mut [f32]) {
        self.batches(inputs, outputs, None);
    }

    /// The same, and shows every complete value of `f32` with its name, part by part of the
    /// batch: the outputs of all layers that are not computed inside another step.
    ///
    /// # Panics
    /// As [`Runner::run`].
    pub fn run_observed(
        &mut self,
        inputs: Inputs<'_>,
        outputs: &mut [f32],
        observe: &mut dyn FnMut(&str, &[f32]),
    ) {
        self.batches(inputs, outputs, Some(observe));
    }

    fn batches(
        &mut self,
        inputs: Inputs<'_>,
        outputs: &mut [f32],
        mut observe: Option<&mut Observer<'_>>,
    ) {
        let program = &*self.program;
        let (input_len, width) = (program.input_len(), program.output_len());
        assert!(
            outputs.len().is_multiple_of(width),
            "{} outputs are no rows of {width}",
            outputs.len()
        );
        let count = outputs.len() / width;
        assert_eq!(inputs.len(), count * input_len, "the inputs' length");
        assert_eq!(
            matches!(inputs, Inputs::Tokens(_)),
            program.takes_tokens(),
            "the kind of inputs"
        );
        for (part, outputs) in outputs.chunks_mut(self.rows * width).enumerate() {
            let rows = outputs.len() / width;
            let start = part * self.rows * input_len;
            let mut context = Context {
                kernels: self.kernels,
                constants: program.constants.numbers(),
                schedule: &self.schedule,
                starts: &mut self.starts,
                all: rows,
                start: 0,
                rows,
                inputs: inputs.part(start, rows * input_len),
                output_slot: program.output,
                output: cast_slice_mut(outputs),
                arena: self.arena.as_mut(),
            };
            if let (Some(observe), Inputs::Real(values)) = (&mut observe, context.inputs) {
                observe(program.value_name(0), values);
            }
            let last = self.schedule.stretches.len() - 1;
            context.stretch(program, last, 0, rows, &mut observe);
            if program.output == INPUT
                && let Inputs::Real(values) = context.inputs
            {
                context.output.copy_from_slice(cast_slice(values));
            }
        }
    }
}

impl Context<'_> {
    /// All steps up to a stretch's end, for `rows` examples from `start`: the stretches before it
    /// in parts of their own sizes, then its own steps.
    fn stretch(
        &mut self,
        program: &Program,
        index: usize,
        start: usize,
        rows: usize,
        observe: &mut Option<&mut Observer<'_>>,
    ) {
        self.starts[index] = start;
        let schedule = self.schedule;
        if let Some(before) = index.checked_sub(1) {
            let part = schedule.stretches[before].rows;
            for at in (0..rows).step_by(part) {
                self.stretch(program, before, start + at, part.min(rows - at), observe);
            }
        }
        (self.start, self.rows) = (start, rows);
        for time in schedule.stretches[index].steps.clone() {
            self.step(&program.steps[time]);
            if let (Some(observe), Some((value, slot))) = (&mut *observe, program.complete[time]) {
                let ([values], []) = self.pick([slot], []);
                observe(program.value_name(value), cast_slice(values));
            }
        }
    }
}
