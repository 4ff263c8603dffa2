//! A trained model as devices serve it in integers.

use std::sync::Arc;

use fl_core::{
    Evaluation, Examples, InputSpec, InputsMut, ServedModel, TargetSpec, TargetsMut, TrainError,
};

use crate::model::Model;
use crate::program::{Inputs, Numerics, Passes, Program, ProgramError, Runner, Served};
use crate::quant::{Calibration, Calibrator, Granularity, Quantization};

/// Examples observed at once.
const BATCH: usize = 32;

/// The quantization of a model from what its activations are on `samples`, all of them, whose
/// targets are not used: ranges by `calibration`.
///
/// # Errors
/// [`ProgramError`] when the parameters are of another model or not finite, or the ranges cannot
/// be had.
pub fn calibrate(
    model: &Arc<Model>,
    parameters: &[f32],
    samples: &dyn Examples,
    calibration: Calibration,
    granularity: Granularity,
) -> Result<Quantization, ProgramError> {
    let program = Program::compile(model, parameters, &Numerics::F32, Passes::OBSERVED)?;
    let program = Arc::new(program);
    let (input, width) = (program.input_len(), program.output_len());
    let mut runner = Runner::new(Arc::clone(&program), BATCH);
    let mut calibrator = Calibrator::new(calibration)?;
    let (mut reals, mut tokens) = (Vec::new(), Vec::new());
    let (mut labels, mut targets) = (Vec::new(), Vec::new());
    let mut outputs = vec![0.0; BATCH * width];
    let all = (0..samples.len() as u32).collect::<Vec<_>>();
    loop {
        for rows in all.chunks(BATCH) {
            let count = rows.len();
            let to = match samples.target() {
                TargetSpec::Class { .. } => {
                    labels.resize(count, 0);
                    TargetsMut::Classes(&mut labels)
                }
                TargetSpec::Real { width } => {
                    targets.resize(count * width, 0.0);
                    TargetsMut::Real(&mut targets)
                }
            };
            let inputs = match model.input() {
                InputSpec::Real(_) => {
                    reals.resize(count * input, 0.0);
                    samples.fill(rows, InputsMut::Real(&mut reals), to);
                    Inputs::Real(&reals)
                }
                InputSpec::Tokens { .. } => {
                    tokens.resize(count * input, 0);
                    samples.fill(rows, InputsMut::Tokens(&mut tokens), to);
                    Inputs::Tokens(&tokens)
                }
            };
            let mut seen = Ok(());
            let mut observe = |point: &str, values: &[f32]| {
                if seen.is_ok() {
                    seen = calibrator.observe(point, values);
                }
            };
            runner.run_observed(inputs, &mut outputs[..count * width], &mut observe);
            seen?;
        }
        if !calibrator.next_pass() {
            break;
        }
    }
    let ranges = calibrator.ranges()?;
    let ranges = ranges.iter().map(|(name, range)| (name.as_str(), *range));
    Ok(Quantization::from_ranges(ranges, granularity))
}

/// The model of `parameters` in integers: by the [ranges](crate::qat) among the parameters where
/// they were trained, else calibrated on `samples` by their smallest and largest values, with a
/// scale for each output channel. A model whose parameters are not finite has no integers; it
/// answers nothing right, with a loss of NaN.
///
/// # Errors
/// [`TrainError::Unsupported`] when the model cannot be served in integers,
/// [`TrainError::ParameterMismatch`] or [`TrainError::DataMismatch`] when parameters or samples
/// are another model's.
pub fn serve_int8(
    model: &Arc<Model>,
    parameters: &[f32],
    samples: &dyn Examples,
) -> Result<Box<dyn ServedModel>, TrainError> {
    if parameters.len() != model.parameters() {
        return Err(TrainError::ParameterMismatch {
            expected: model.parameters(),
            found: parameters.len(),
        });
    }
    if samples.input() != model.input() {
        return Err(TrainError::DataMismatch {
            expected: format!("inputs {:?}", model.input()),
            found: format!("inputs {:?}", samples.input()),
        });
    }
    if !parameters.iter().all(|value| value.is_finite()) {
        return Ok(Box::new(Diverged));
    }
    let served = || -> Result<Served, ProgramError> {
        let quantization = match model.quantization(parameters) {
            Some(quantization) => quantization,
            None => {
                let granularity = match model.qat_options() {
                    Some(options) => options.granularity,
                    None => Granularity::default(),
                };
                let method = Calibration::default();
                calibrate(model, parameters, samples, method, granularity)?
            }
        };
        let numerics = Numerics::Int8(quantization);
        let program = Program::compile(model, parameters, &numerics, Passes::ALL)?;
        Ok(Served::new(Arc::new(program)))
    };
    match served() {
        Ok(served) => Ok(Box::new(served)),
        Err(error) => Err(TrainError::Unsupported {
            what: format!("this model in int8: {error}"),
            instead: "leave \"int8\" out of evaluation.precisions".to_owned(),
        }),
    }
}

/// A model whose training diverged.
struct Diverged;

impl ServedModel for Diverged {
    fn evaluate(
        &self,
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        let end = rows.end.min(data.len());
        Ok(Evaluation {
            examples: end.saturating_sub(rows.start) as u64,
            loss_sum: f64::NAN,
            correct: 0,
        })
    }
}
