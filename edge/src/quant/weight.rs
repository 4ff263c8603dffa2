//! Weights, biases and multipliers as integers.
//!
//! A weight is row-major with its output channel as the last axis: `[inputs, outputs]` of a dense
//! layer, HWIO of a convolution. Scales come as one number for the tensor or as one for each
//! output; every function takes both.
//!
//! # Panics
//! The lengths of slices are checked and a wrong one panics: the model that owns the tensors
//! makes them fit.

#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;
use serde::{Deserialize, Serialize};

use super::params::QParams;
use crate::kernel::Kernels;

/// How many scales a weight has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// One for the whole tensor.
    Tensor,
    /// One for each output channel.
    #[default]
    Channel,
}

impl Granularity {
    /// Scales of a weight with so many output channels.
    #[must_use]
    pub fn scales(self, outputs: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Channel => outputs,
        }
    }
}

/// `max |w| / 127` from the largest magnitude: 1 where that is (almost) 0.
fn scale_of(largest: f32) -> f32 {
    let scale = f64::from(largest.min(f32::MAX)) / 127.0;
    if scale < f64::from(f32::MIN_POSITIVE) {
        1.0
    } else {
        scale as f32
    }
}

/// Scales of a weight: `max |w| / 127`, over the whole tensor if `scales` holds one number and
/// over each output channel if it holds as many as there are; 1 where all weights are 0. What is
/// not a number is passed over.
///
/// # Source
/// onnxruntime 1.31.1, `quantization.quant_utils.compute_scale_zp` for symmetric `int8`.
pub fn weight_scales(weight: &[f32], scales: &mut [f32]) {
    weight_scales_by(Kernels::best(), weight, scales);
}

/// [`weight_scales`] by other kernels.
pub(super) fn weight_scales_by(k: &Kernels, weight: &[f32], scales: &mut [f32]) {
    k.int8_largest(weight, scales);
    for scale in scales {
        *scale = scale_of(*scale);
    }
}

/// Raises each scale at which a bias would not fit into an `i32`, as after the folding of a batch
/// normalisation into a channel of tiny weights: to `1.0001 |b| / (2^31 - 1) / s_x`.
///
/// # Source
/// onnxruntime 1.31.1, `quantization.qdq_quantizer`, `_adjust_weight_scale_for_int32_bias`.
pub fn fit_weight_scales(bias: &[f32], x: QParams, scales: &mut [f32]) {
    let x = f64::from(x.scale());
    let fit = |scale: &mut f32, largest: f32| {
        let fine = x * f64::from(*scale);
        let least = 1.0001 * (2.0 * f64::from(largest.min(f32::MAX))) / 4_294_967_294.0;
        if fine < least {
            let raised = f64::from(*scale) * (least / fine);
            *scale = raised.min(f64::from(f32::MAX)) as f32;
        }
    };
    match scales {
        [scale] => fit(scale, bias.iter().fold(0f32, |most, b| most.max(b.abs()))),
        _ => {
            assert_eq!(bias.len(), scales.len(), "one bias for each scale");
            for (scale, b) in scales.iter_mut().zip(bias) {
                fit(scale, b.abs());
            }
        }
    }
}

/// `clamp(round(w / s), -127, 127)`, half to even, in `f32`.
///
/// # Source
/// onnxruntime 1.31.1, `quantization.quant_utils.quantize_nparray`.
pub fn quantize_weights(weight: &[f32], scales: &[f32], quantized: &mut [i8]) {
    Kernels::best().int8_quantize_weights(weight, scales, quantized);
}

/// `clamp(round(b / (s_x s_w)))` as an `i32`: the product of the scales in `f32`, the quotient in
/// `f64`, half to even.
///
/// # Source
/// onnxruntime 1.31.1, `quantization.base_quantizer`, `quantize_bias_static_impl`.
pub fn quantize_bias(bias: &[f32], x: QParams, scales: &[f32], quantized: &mut [i32]) {
    assert_eq!(bias.len(), quantized.len(), "one integer for each bias");
    for (index, (q, &b)) in quantized.iter_mut().zip(bias).enumerate() {
        let scale = x.scale() * one_or_each(scales, index);
        // A cast saturates.
        *q = (f64::from(b) / f64::from(scale)).round_ties_even() as i32;
    }
}

/// What an accumulator is multiplied by to become an output: `(s_x s_w) / s_y` in `f32`, in this
/// order; as many as there are scales.
///
/// # Source
/// onnxruntime 1.31.1, kernels `QLinearConv` and `QLinearMatMul`.
pub fn multipliers(x: QParams, scales: &[f32], y: QParams, multipliers: &mut [f32]) {
    assert_eq!(scales.len(), multipliers.len(), "one multiplier per scale");
    for (multiplier, &scale) in multipliers.iter_mut().zip(scales) {
        *multiplier = x.scale() * scale / y.scale();
    }
}

fn one_or_each(scales: &[f32], index: usize) -> f32 {
    match scales {
        &[scale] => scale,
        _ => scales[index],
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same bits are meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scales_and_integers_by_hand() {
        let weight = [12.7, -0.5, 6.35, 0.25, 0.15, -0.125];
        let mut scales = [0.0; 2];
        weight_scales(&weight, &mut scales);
        assert_eq!(scales, [12.7 / 127.0, 0.5 / 127.0]);
        let mut quantized = [0; 6];
        quantize_weights(&weight, &scales, &mut quantized);
        // 63.5 and 1.5 steps go to the even side, as does -31.75 to its nearest.
        assert_eq!(quantized, [127, -127, 64, 64, 2, -32]);

        let mut one = [0.0];
        weight_scales(&weight, &mut one);
        assert_eq!(one, [12.7 / 127.0]);
        quantize_weights(&weight, &one, &mut quantized);
        assert_eq!(quantized, [127, -5, 64, 2, 2, -1]);
    }

    #[test]
    fn zeros_have_scale_one() {
        let mut scales = [0.0; 3];
        weight_scales(&[0.0, 1e-40, f32::NAN, -0.0, 0.0, 2.54], &mut scales);
        assert_eq!(scales, [1.0, 1.0, 0.02]);
        weight_scales(&[], &mut scales[..1]);
        assert_eq!(scales[0], 1.0);
    }

    /// A bias of 1 over a weight scale of 1e-12 would need 40 bits.
    #[test]
    fn tiny_scales_are_raised_until_the_bias_fits() {
        let x = QParams::new(0.5, 3).unwrap();
        let bias = [1.0, 1.0, 0.0, -4.0];
        let mut scales = [1e-12, 0.25, 1e-12, 1e-12];
        fit_weight_scales(&bias, x, &mut scales);
        assert_eq!((scales[1], scales[2]), (0.25, 1e-12));
        let mut quantized = [0; 4];
        quantize_bias(&bias, x, &scales, &mut quantized);
        assert_eq!((quantized[1], quantized[2]), (8, 0));
        // 1.0001 leaves a ten-thousandth of the range unused.
        for (index, sign) in [(0, 1.0), (3, -1.0)] {
            let used = sign * f64::from(quantized[index]) / f64::from(i32::MAX);
            assert!((used - 1.0 / 1.0001).abs() < 1e-6, "{index}: {used}");
        }
        let mut one = [1e-12];
        fit_weight_scales(&bias, x, &mut one);
        assert_eq!(one[0], scales[3]);
    }

    proptest! {
        /// `|w - s q| <= s / 2`, and the largest weight of a channel becomes ±127.
        #[test]
        fn weights_are_within_half_a_step(
            weight in proptest::collection::vec(-10.0f32..10.0, 12),
            outputs in prop_oneof![Just(1usize), Just(3), Just(4), Just(12)],
        ) {
            let mut scales = vec![0.0; outputs];
            weight_scales(&weight, &mut scales);
            let mut quantized = vec![0; weight.len()];
            quantize_weights(&weight, &scales, &mut quantized);
            for (index, (&w, &q)) in weight.iter().zip(&quantized).enumerate() {
                let scale = f64::from(scales[index % outputs]);
                let off = (f64::from(w) - scale * f64::from(q)).abs();
                prop_assert!(off <= scale * 0.500_01, "{} is {}", w, q);
                prop_assert!(q != i8::MIN);
            }
            for channel in 0..outputs {
                let of = quantized.iter().skip(channel).step_by(outputs);
                prop_assert_eq!(of.map(|q| q.unsigned_abs()).max(), Some(127));
            }
        }
    }
}
