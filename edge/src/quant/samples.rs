//! Examples on which a model is calibrated and judged, and the one loop that shows them to it.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use fl_core::{Examples, InputSpec, InputsMut, ServedModel, TargetSpec, TargetsMut, TrainError};

use super::Quantization;
use super::calibrate::{Calibration, Calibrator};
use super::error::QuantError;
use super::federated::{Bins, Histograms};
use super::weight::Granularity;
use crate::model::Model;
use crate::program::{
    Batch, ForeignToken, Inputs, Numerics, Passes, Program, ProgramError, Read, Runner, Served,
};

/// Examples that are run at once.
const BATCH: usize = 32;

/// Some examples of a data set: a view, read batch by batch as often as it takes.
#[derive(Clone)]
pub struct Samples<'a> {
    data: &'a dyn Examples,
    rows: Vec<u32>,
}

impl fmt::Debug for Samples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples")
            .field("input", self.data.input())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<'a> Samples<'a> {
    /// The examples at `rows` of `data`, in that order.
    ///
    /// # Errors
    /// [`QuantError::NoSamples`] without rows, [`QuantError::Row`] for one that the data do not
    /// have, [`QuantError::Input`] when the data are not the model's.
    pub fn new(model: &Model, data: &'a dyn Examples, rows: Vec<u32>) -> Result<Self, QuantError> {
        if data.input() != model.input() {
            return Err(QuantError::Input {
                expected: format!("{:?}", model.input()),
                given: format!("{:?}", data.input()),
            });
        }
        let Some(&last) = rows.iter().max() else {
            return Err(QuantError::NoSamples);
        };
        if last as usize >= data.len() {
            return Err(QuantError::Row {
                row: last,
                rows: data.len(),
            });
        }
        Ok(Self { data, rows })
    }

    /// All examples of `data`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn all(model: &Model, data: &'a dyn Examples) -> Result<Self, QuantError> {
        Self::spread(model, data, usize::MAX)
    }

    /// At most so many examples of `data`, evenly spread over it, so that data sorted by class
    /// are represented.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn spread(model: &Model, data: &'a dyn Examples, most: usize) -> Result<Self, QuantError> {
        let len = data.len().min(u32::MAX as usize) as u64;
        let count = len.min(most as u64);
        // Below 2^64: both factors are below 2^32.
        let rows = (0..count).map(|index| (index * len / count) as u32);
        Self::new(model, data, rows.collect())
    }

    /// The examples, by their place in the data.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The outputs (logits) of a program for all examples, `[len, width]`.
    ///
    /// # Errors
    /// [`QuantError::Input`] when the program is of a model with another input,
    /// [`QuantError::Token`] for a token outside its vocabulary.
    pub fn outputs(&self, program: Program) -> Result<Vec<f32>, QuantError> {
        let mut outputs = Vec::with_capacity(self.rows.len() * program.output_len());
        let mut shown = Shown::new(Arc::new(program));
        shown.run(self, &mut |_, _| {}, &mut |part| {
            outputs.extend_from_slice(part);
        })?;
        Ok(outputs)
    }

    /// Shows every complete value of a program for all examples.
    pub(super) fn observe(
        &self,
        program: Program,
        observe: &mut dyn FnMut(&str, &[f32]),
    ) -> Result<(), QuantError> {
        Shown::new(Arc::new(program)).run(self, observe, &mut |_| {})
    }

    /// The share of examples whose largest output is that of their class, as [`Served`] counts
    /// them; `None` where examples have no class.
    ///
    /// # Errors
    /// [`TrainError`] when the program is of a model with another input or other targets.
    pub fn accuracy(&self, program: Program) -> Result<Option<f64>, TrainError> {
        if self.data.target().labels() == 0 {
            return Ok(None);
        }
        let score = Served::new(Arc::new(program)).evaluate(self, 0..self.rows.len())?;
        Ok(Some(score.accuracy()))
    }

    /// The quantization of a model whose activations have the ranges that they have on these
    /// examples: [`Probe::calibrate`] of a new probe. Post-training quantization needs no more;
    /// 256 examples ([`CALIBRATION_SAMPLES`](super::CALIBRATION_SAMPLES)) are usual.
    ///
    /// # Errors
    /// [`ProgramError`] when the parameters are not the model's, and as [`Probe::calibrate`].
    pub fn calibrate(
        &self,
        model: &Arc<Model>,
        parameters: &[f32],
        method: Calibration,
        granularity: Granularity,
    ) -> Result<Quantization, ProgramError> {
        let mut probe = Probe::new(model, parameters)?;
        Ok(probe.calibrate(self, method, granularity)?)
    }
}

impl Examples for Samples<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn input(&self) -> &InputSpec {
        self.data.input()
    }

    fn target(&self) -> TargetSpec {
        self.data.target()
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let rows = rows.iter().map(|&row| self.rows[row as usize]);
        self.data.fill(&rows.collect::<Vec<_>>(), inputs, targets);
    }
}

/// A program that is shown examples.
#[derive(Debug)]
struct Shown {
    runner: Runner,
    batch: Batch,
    outputs: Vec<f32>,
}

impl Shown {
    fn new(program: Arc<Program>) -> Self {
        Self {
            outputs: vec![0.0; BATCH * program.output_len()],
            runner: Runner::new(program, BATCH),
            batch: Batch::default(),
        }
    }

    /// Runs the examples batch by batch; `observe` sees every complete value, as
    /// [`Runner::run_observed`] shows it, and `take` the outputs.
    fn run(
        &mut self,
        samples: &Samples<'_>,
        observe: &mut dyn FnMut(&str, &[f32]),
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<(), QuantError> {
        let (expected, given) = (self.runner.program().model().input(), samples.input());
        if expected != given {
            return Err(QuantError::Input {
                expected: format!("{expected:?}"),
                given: format!("{given:?}"),
            });
        }
        let width = self.runner.program().output_len();
        let foreign = |found: ForeignToken| QuantError::Token {
            token: found.token,
            vocabulary: found.vocabulary,
        };
        for rows in samples.rows.chunks(BATCH) {
            let read = self.batch.read(samples.data, rows);
            let Read { inputs, .. } = read.map_err(foreign)?;
            let outputs = &mut self.outputs[..rows.len() * width];
            self.runner.run_observed(inputs, outputs, observe);
            take(outputs);
        }
        Ok(())
    }
}

/// A model with fixed parameters whose activations are looked at: in `f32`, with the folding and
/// the clamps of the integer program, and every point complete ([`Passes::OBSERVED`]).
///
/// Every calibration is this loop: a client's in a federation ([`count`](Self::count)), or one
/// machine's ([`calibrate`](Self::calibrate)).
#[derive(Debug)]
pub struct Probe {
    shown: Shown,
}

impl Probe {
    /// The model of these parameters.
    ///
    /// # Errors
    /// [`ProgramError`] when the parameters are not the model's or not finite.
    pub fn new(model: &Arc<Model>, parameters: &[f32]) -> Result<Self, ProgramError> {
        let program = Program::compile(model, parameters, &Numerics::F32, Passes::OBSERVED)?;
        Ok(Self {
            shown: Shown::new(Arc::new(program)),
        })
    }

    /// Another probe of the same program, for another thread.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            shown: Shown::new(Arc::clone(self.shown.runner.program())),
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        self.shown.runner.program().model()
    }

    /// Shows every value that can be a point, batch by batch.
    ///
    /// # Errors
    /// What `see` says, [`QuantError::Input`] and [`QuantError::Token`] when the samples are not
    /// the model's.
    pub fn observe(
        &mut self,
        samples: &Samples<'_>,
        mut see: impl FnMut(&str, &[f32]) -> Result<(), QuantError>,
    ) -> Result<(), QuantError> {
        let mut outcome = Ok(());
        let mut observe = |point: &str, values: &[f32]| {
            if outcome.is_ok() {
                outcome = see(point, values);
            }
        };
        self.shown.run(samples, &mut observe, &mut |_| {})?;
        outcome
    }

    /// The quantization with the ranges that the activations have on these examples.
    ///
    /// # Errors
    /// [`QuantError`] when the samples are not the model's, a value is not finite, or a number of
    /// the method is out of range.
    pub fn calibrate(
        &mut self,
        samples: &Samples<'_>,
        method: Calibration,
        granularity: Granularity,
    ) -> Result<Quantization, QuantError> {
        let mut calibrator = Calibrator::new(method)?;
        loop {
            self.observe(samples, |point, values| calibrator.observe(point, values))?;
            if !calibrator.next_pass() {
                break;
            }
        }
        let ranges = calibrator.ranges()?;
        let ranges = ranges.iter().map(|(point, range)| (point.as_str(), *range));
        Ok(Quantization::from_ranges(ranges, granularity))
    }

    /// Empty histograms of every point of the model, in the order in which the values are
    /// computed.
    #[must_use]
    pub fn histograms(&mut self, bins: Bins) -> Histograms {
        let runner = &mut self.shown.runner;
        let len = runner.program().input_len();
        let (reals, tokens) = (vec![0.0; len], vec![0; len]);
        let inputs = match runner.program().model().input() {
            InputSpec::Real(_) => Inputs::Real(&reals),
            InputSpec::Tokens { .. } => Inputs::Tokens(&tokens),
        };
        let mut points = Vec::<String>::new();
        let outputs = &mut self.shown.outputs[..runner.program().output_len()];
        runner.run_observed(inputs, outputs, &mut |point, _| {
            points.push(point.to_owned());
        });
        Histograms::new(points, bins)
    }

    /// A client's part in federated calibration: what its examples add to the histograms.
    ///
    /// # Errors
    /// [`QuantError`] when the samples are not the model's or a value is not finite; the
    /// histograms then hold a part of the counts, and are to be
    /// [cleared](Histograms::clear).
    pub fn count(
        &mut self,
        samples: &Samples<'_>,
        histograms: &mut Histograms,
    ) -> Result<(), QuantError> {
        self.observe(samples, |point, values| histograms.observe(point, values))
    }
}
