//! Examples read into memory, to be shown to a program as often as it takes.

use std::sync::Arc;

use fl_core::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};

use super::calibrate::{Calibration, Calibrator};
use super::error::QuantError;
use super::federated::{Bins, Histograms};
use super::weight::Granularity;
use super::{INPUT, Quantization};
use crate::model::Model;
use crate::program::{Inputs, Numerics, Passes, Program, ProgramError, Runner};

/// Examples that are run at once.
const BATCH: usize = 32;

/// Inputs of examples, and their classes where they have such.
#[derive(Clone, Debug)]
pub struct Samples {
    rows: usize,
    /// Numbers or tokens of one input.
    width: usize,
    reals: Vec<f32>,
    tokens: Vec<u32>,
    tokenized: bool,
    classes: Vec<u32>,
}

impl Samples {
    /// The examples at `rows` of `data`, in that order.
    ///
    /// # Errors
    /// [`QuantError::NoSamples`] without rows, [`QuantError::Input`] when the data are not the
    /// model's, [`QuantError::Token`] for a token outside its vocabulary.
    pub fn read(model: &Model, data: &dyn Examples, rows: &[u32]) -> Result<Self, QuantError> {
        if rows.is_empty() {
            return Err(QuantError::NoSamples);
        }
        if data.input() != model.input() {
            return Err(QuantError::Input {
                expected: format!("{:?}", model.input()),
                given: format!("{:?}", data.input()),
            });
        }
        let width = model.input().len();
        let mut samples = Self {
            rows: rows.len(),
            width,
            reals: Vec::new(),
            tokens: Vec::new(),
            tokenized: false,
            classes: Vec::new(),
        };
        let inputs = match *model.input() {
            InputSpec::Real(_) => {
                samples.reals.resize(rows.len() * width, 0.0);
                InputsMut::Real(&mut samples.reals)
            }
            InputSpec::Tokens { .. } => {
                samples.tokenized = true;
                samples.tokens.resize(rows.len() * width, 0);
                InputsMut::Tokens(&mut samples.tokens)
            }
        };
        let mut unread = Vec::new();
        let targets = match data.target() {
            TargetSpec::Class { .. } => {
                samples.classes.resize(rows.len(), 0);
                TargetsMut::Classes(&mut samples.classes)
            }
            TargetSpec::Real { width } => {
                unread.resize(rows.len() * width, 0.0);
                TargetsMut::Real(&mut unread)
            }
        };
        data.fill(rows, inputs, targets);
        if let InputSpec::Tokens { vocabulary, .. } = *model.input()
            && let Some(&token) = samples.tokens.iter().find(|&&t| t as usize >= vocabulary)
        {
            return Err(QuantError::Token { token, vocabulary });
        }
        Ok(samples)
    }

    /// Examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none; there always are some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The inputs of the examples `start..end`.
    fn inputs(&self, start: usize, end: usize) -> Inputs<'_> {
        let range = start * self.width..end * self.width;
        match self.tokenized {
            true => Inputs::Tokens(&self.tokens[range]),
            false => Inputs::Real(&self.reals[range]),
        }
    }

    /// The outputs (logits) of a program of the model for all examples, `[len, width]`; `observe`
    /// sees every complete value, batch by batch, as [`Runner::run_observed`] shows it.
    fn run(&self, program: Program, observe: &mut dyn FnMut(&str, &[f32])) -> Vec<f32> {
        let width = program.output_len();
        let mut outputs = vec![0.0; self.rows * width];
        let mut runner = Runner::new(Arc::new(program), BATCH);
        runner.run_observed(self.inputs(0, self.rows), &mut outputs, observe);
        outputs
    }

    /// The outputs (logits) of a program of the model for all examples, `[len, width]`.
    ///
    /// # Panics
    /// When the program is of a model with another input.
    #[must_use]
    pub fn outputs(&self, program: Program) -> Vec<f32> {
        self.run(program, &mut |_, _| {})
    }

    /// The share of examples whose largest output is that of their class; `None` where examples
    /// have no class.
    ///
    /// # Panics
    /// When the program is of a model with another input.
    #[must_use]
    pub fn accuracy(&self, program: Program) -> Option<f64> {
        let width = program.output_len();
        let outputs = self.outputs(program);
        let hit = |(outputs, &class): (&[f32], &u32)| {
            let mut best = 0;
            for (index, output) in outputs.iter().enumerate() {
                if *output > outputs[best] {
                    best = index;
                }
            }
            best == class as usize
        };
        let rows = outputs.chunks_exact(width.max(1)).zip(&self.classes);
        let hits = rows.filter(|row| hit(*row)).count();
        (!self.classes.is_empty()).then(|| hits as f64 / self.rows as f64)
    }

    /// Shows every value of the model that can be a point, in `f32`, batch by batch.
    fn observe(
        &self,
        model: &Arc<Model>,
        parameters: &[f32],
        mut see: impl FnMut(&str, &[f32]) -> Result<(), QuantError>,
    ) -> Result<(), ProgramError> {
        let program = observable(model, parameters)?;
        let mut outcome = Ok(());
        self.run(program, &mut |point, values| {
            if outcome.is_ok() {
                outcome = see(point, values);
            }
        });
        Ok(outcome?)
    }

    /// The quantization of a model whose activations have the ranges that they have on these
    /// examples. Post-training quantization needs no more; 256 examples
    /// ([`CALIBRATION_SAMPLES`](super::CALIBRATION_SAMPLES)) are usual.
    ///
    /// # Errors
    /// [`ProgramError`] when the parameters are not the model's, or a value is not finite, or a
    /// number of the method is out of range.
    pub fn calibrate(
        &self,
        model: &Arc<Model>,
        parameters: &[f32],
        method: Calibration,
        granularity: Granularity,
    ) -> Result<Quantization, ProgramError> {
        let mut calibrator = Calibrator::new(method)?;
        loop {
            self.observe(model, parameters, |point, values| {
                calibrator.observe(point, values)
            })?;
            if !calibrator.next_pass() {
                break;
            }
        }
        let ranges = calibrator.ranges()?;
        let ranges = ranges.iter().map(|(point, range)| (point.as_str(), *range));
        Ok(Quantization::from_ranges(ranges, granularity))
    }

    /// A client's part in federated calibration: what its examples add to the histograms.
    ///
    /// # Errors
    /// [`ProgramError`] when the parameters are not the model's, or a value is not finite.
    pub fn count(
        &self,
        model: &Arc<Model>,
        parameters: &[f32],
        histograms: &mut Histograms,
    ) -> Result<(), ProgramError> {
        self.observe(model, parameters, |point, values| {
            histograms.observe(point, values)
        })
    }
}

/// A program in `f32` that completes the value of every point: with the folding and the clamps of
/// the integer one, but with the values of products on their own before a residual addition.
fn observable(model: &Arc<Model>, parameters: &[f32]) -> Result<Program, ProgramError> {
    let passes = Passes {
        fuse_residual: false,
        ..Passes::ALL
    };
    Program::compile(model, parameters, &Numerics::F32, passes)
}

/// Empty histograms of every point of a model, in the order in which the values are computed.
///
/// # Errors
/// [`ProgramError`] when the model cannot be served.
pub fn histograms(model: &Arc<Model>, bins: Bins) -> Result<Histograms, ProgramError> {
    let program = observable(model, &vec![0.0; model.parameters()])?;
    let mut points = Vec::<String>::new();
    let samples = Samples {
        rows: 1,
        width: program.input_len(),
        reals: vec![0.0; program.input_len()],
        tokens: vec![0; program.input_len()],
        tokenized: matches!(model.input(), InputSpec::Tokens { .. }),
        classes: Vec::new(),
    };
    samples.run(program, &mut |point, _| points.push(point.to_owned()));
    debug_assert!(samples.tokenized || points.first().is_some_and(|point| point == INPUT));
    Ok(Histograms::new(points, bins))
}
