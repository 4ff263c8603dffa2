//! Quantization: which numbers become integers, and with which scales.
//!
//! # The scheme
//! An activation `x` is carried as a `u8` value `q` with a scale `s` and a zero point `z`
//! ([`QParams`]): `x = s (q - z)`. Zero is always exact, so padding and relu cost nothing. A weight
//! is a symmetric `i8` in `-127..=127`, with one scale for the tensor or one for each output
//! channel ([`Granularity`]); a bias is an `i32` at the scale of the accumulator, `s_x s_w`. This
//! is the scheme of Jacob et al. 2018 (arXiv:1712.05877, section 2) with the asymmetric
//! activations and per-channel weights that Krishnamoorthi 2018 (arXiv:1806.08342, section 2)
//! recommends. Every formula is computed in the number formats and the order of onnxruntime's
//! tools (1.31.1), so that a model quantized by both has the same bits.
//!
//! # Points
//! A *point* is a value of the graph that carries `u8`: the input, and what every integer unit
//! gives. Points are called like the layer whose output they are; the input is called `input`. A
//! [`Quantization`] holds the [`QParams`] of every point: beside the `f32` parameters it is all
//! that a model needs to be served in integers.
//!
//! # Where it comes from
//! | source | how |
//! |---|---|
//! | [`Calibrator`] | post-training: ranges observed on samples |
//! | [`federated`] | the same, from histograms that clients send through the exact sum of updates |
//! | training | quantization-aware: ranges learned with the parameters |
//!
//! A [`Probe`] is a model whose activations are looked at, and does the first two for [`Samples`]
//! of any data: the prompt, experiments and clients calibrate through it alone.
//!
//! Weights alone can be stored in four bits ([`FourBits`]) with a scale for each group: rounded to
//! the nearest ([`Weight4::nearest`]), found by [`gptq`], or after [`awq`] has scaled the channels.
//! That needs no points.
//!
//! [`fewest_floats`] finds which units are better left in floats. [`lower_product`] then gives the integers of a dense layer or a convolution.

#[cfg(feature = "std")]
mod awq;
mod calibrate;
mod eight;
mod error;
pub mod federated;
mod four;
#[cfg(feature = "std")]
mod gptq;
#[cfg(feature = "std")]
mod hessian;
mod histogram;
mod lower;
mod params;
#[cfg(feature = "std")]
mod samples;
#[cfg(feature = "std")]
mod sensitivity;
mod weight;

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

pub use crate::kernel::NF4;
#[cfg(feature = "std")]
pub use awq::{Awq, AwqLayer, awq};
pub use calibrate::{CALIBRATION_SAMPLES, Calibration, Calibrator};
pub use eight::Weight8;
pub use error::QuantError;
pub use four::{Code4, FourBits, GROUP, MOST_GROUP, Scope, Weight4, Weights4, four_bit_units};
#[cfg(feature = "std")]
pub use gptq::{Gptq, GptqOptions, LayerLoss, gptq, layer_losses};
pub use lower::{LoweredProduct, lower_product};
pub use params::{QParams, Range};
#[cfg(feature = "std")]
pub use samples::{Probe, Samples};
#[cfg(feature = "std")]
pub use sensitivity::{MixedPrecision, Sensitivity, fewest_floats, integer_units, sensitivities};
pub use weight::{
    Granularity, fit_weight_scales, multipliers, quantize_bias, quantize_weights, weight_scales,
};

/// The name of the point that is the model's input.
pub const INPUT: &str = "input";

/// What a unit that stays out of the integers computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Float {
    /// Weights stored and computed in `f32`.
    F32,
    /// Weights stored in `f16`, computed in `f32`.
    F16,
}

/// What a model needs, beside its `f32` parameters, to be served in `int8`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Scale and zero point of every value that carries `u8`, by the value's name.
    pub points: BTreeMap<String, QParams>,
    /// How many scales a weight has.
    #[serde(default)]
    pub granularity: Granularity,
    /// Units that stay out of the integers, by the name of their output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub float_units: BTreeMap<String, Float>,
}

impl Quantization {
    /// The quantization with these ranges: scale and zero point of each by
    /// [`QParams::from_range`].
    #[must_use]
    pub fn from_ranges<'a>(
        ranges: impl IntoIterator<Item = (&'a str, Range)>,
        granularity: Granularity,
    ) -> Self {
        Self {
            points: ranges
                .into_iter()
                .map(|(point, range)| (point.to_owned(), QParams::from_range(range)))
                .collect(),
            granularity,
            float_units: BTreeMap::new(),
        }
    }

    /// Scale and zero point of a point.
    ///
    /// # Errors
    /// [`QuantError::Point`] when it has none.
    pub fn point(&self, name: &str) -> Result<QParams, QuantError> {
        let found = self.points.get(name).copied();
        found.ok_or_else(|| QuantError::Point {
            name: name.to_owned(),
        })
    }
}
