//! A trained model as devices serve it in integers.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use fl_core::{Evaluation, Examples, ServedModel, TrainError};

use crate::model::Model;
use crate::program::{Numerics, Passes, Program, ProgramError, Served};
use crate::quant::federated::Histograms;
use crate::quant::{Calibration, Granularity, QuantError, Quantization, Samples};

/// Where the ranges of a model's activations are read, unless they were trained with it.
#[derive(Clone, Copy)]
pub enum Observed<'a> {
    /// On these examples, all of them; their targets are not used.
    Examples(&'a dyn Examples),
    /// In the summed counts of a federation's clients. Where they are empty, no client saw a
    /// finite value, so the model has diverged.
    Histograms(&'a Histograms),
    /// Nowhere: the model does not [need it](needs_calibration).
    Nothing,
}

impl core::fmt::Debug for Observed<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Examples(data) => f.debug_tuple("Examples").field(&data.len()).finish(),
            Self::Histograms(counts) => f.debug_tuple("Histograms").field(counts.bins()).finish(),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// Whether the ranges of the model's activations are not among these parameters, so that it is to
/// be calibrated before it is served in integers. A model whose parameters are not finite has no
/// use for ranges.
#[must_use]
pub fn needs_calibration(model: &Model, parameters: &[f32]) -> bool {
    parameters.len() == model.parameters()
        && parameters.iter().all(|value| value.is_finite())
        && model.quantization(parameters).is_none()
}

/// The model of `parameters` in integers: by the [ranges](crate::qat) among the parameters where
/// they were trained, else by those that `calibration` reads from what was observed. A model that
/// was to be trained for quantization keeps the granularity of its training.
///
/// A model that has diverged, with parameters that are not finite or on whose activations nothing
/// finite was observed, has no integers; it answers nothing right, with a loss of NaN.
///
/// # Errors
/// [`TrainError::Unsupported`] when the model cannot be served in integers,
/// [`TrainError::ParameterMismatch`] or [`TrainError::DataMismatch`] when parameters or examples
/// are another model's.
pub fn serve_int8(
    model: &Arc<Model>,
    parameters: &[f32],
    observed: Observed<'_>,
    calibration: Calibration,
    granularity: Granularity,
) -> Result<Box<dyn ServedModel>, TrainError> {
    if parameters.len() != model.parameters() {
        return Err(TrainError::ParameterMismatch {
            expected: model.parameters(),
            found: parameters.len(),
        });
    }
    if let Observed::Examples(data) = observed
        && data.input() != model.input()
    {
        return Err(TrainError::DataMismatch {
            expected: format!("inputs {:?}", model.input()),
            found: format!("inputs {:?}", data.input()),
        });
    }
    let nothing_finite = matches!(observed, Observed::Histograms(counts) if counts.is_empty());
    if !parameters.iter().all(|value| value.is_finite())
        || nothing_finite && needs_calibration(model, parameters)
    {
        return Ok(Box::new(Diverged));
    }
    let granularity = match model.qat_options() {
        Some(options) => options.granularity,
        None => granularity,
    };
    let calibrate = || -> Result<Quantization, ProgramError> {
        Ok(match observed {
            Observed::Examples(data) => {
                let samples = Samples::all(model, data)?;
                samples.calibrate(model, parameters, calibration, granularity)?
            }
            Observed::Histograms(counts) => counts.quantization(&calibration, granularity)?,
            Observed::Nothing => return Err(QuantError::NoSamples.into()),
        })
    };
    let served = || -> Result<Served, ProgramError> {
        let quantization = match model.quantization(parameters) {
            Some(quantization) => quantization,
            None => calibrate()?,
        };
        let numerics = Numerics::Int8(quantization);
        let program = Program::compile(model, parameters, &numerics, Passes::ALL)?;
        Ok(Served::new(Arc::new(program)))
    };
    match served() {
        Ok(served) => Ok(Box::new(served)),
        Err(ProgramError::Quantization(QuantError::NonFinite { .. })) => Ok(Box::new(Diverged)),
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
