//! A product of the graph with all of its integers.

use alloc::vec;
use alloc::vec::Vec;

use super::params::QParams;
use super::weight::{Granularity, fit_weight_scales, multipliers, quantize_bias, weight_scales_by};
use crate::kernel::Kernels;

/// A dense layer or convolution in integers:
/// `y = clamp(round((bias + Σ (x - z_x) w) * multiplier) + z_y)`, the accumulator exact in `i32`,
/// then converted to `f32`, multiplied, rounded half to even.
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredProduct {
    /// The weight in the order of the `f32` one: `[inputs, outputs]` or HWIO; within ±127.
    pub weight: Vec<i8>,
    /// Scales of the weight: one, or one for each output.
    pub weight_scales: Vec<f32>,
    /// One for each output, at scale `s_x s_w`; zeros for a product without bias.
    pub bias: Vec<i32>,
    /// What one step of the accumulator is worth, `s_x s_w`; as many as weight scales.
    pub accumulator_scales: Vec<f32>,
    /// `(s_x s_w) / s_y`; as many as weight scales.
    pub multipliers: Vec<f32>,
}

/// The integers of a product of `outputs` output channels between two points.
///
/// `weight` is row-major with the outputs as last axis. `y` is the point of the product's output:
/// after a fused relu, before a fused addition. Where the output stays in `f32`, it may be any
/// and only `multipliers` depends on it.
///
/// # Panics
/// When the weight is not made of rows of `outputs`, or the bias is not one for each.
#[must_use]
pub fn lower_product(
    weight: &[f32],
    bias: Option<&[f32]>,
    outputs: usize,
    x: QParams,
    y: QParams,
    granularity: Granularity,
) -> LoweredProduct {
    let scales = granularity.scales(outputs);
    let mut lowered = LoweredProduct {
        weight: vec![0; weight.len()],
        weight_scales: vec![0.0; scales],
        bias: vec![0; outputs],
        accumulator_scales: vec![0.0; scales],
        multipliers: vec![0.0; scales],
    };
    lowered.update(weight, bias, x, y);
    lowered
}

impl LoweredProduct {
    /// The same product with other numbers, as after a training step; allocates nothing.
    ///
    /// # Panics
    /// When the weight or the bias has not the length of the old one.
    pub fn update(&mut self, weight: &[f32], bias: Option<&[f32]>, x: QParams, y: QParams) {
        self.update_by(Kernels::best(), weight, bias, [x, y]);
    }

    /// [`Self::update`] by other kernels.
    pub(crate) fn update_by(
        &mut self,
        k: &Kernels,
        weight: &[f32],
        bias: Option<&[f32]>,
        [x, y]: [QParams; 2],
    ) {
        weight_scales_by(k, weight, &mut self.weight_scales);
        if let Some(bias) = bias {
            fit_weight_scales(bias, x, &mut self.weight_scales);
            quantize_bias(bias, x, &self.weight_scales, &mut self.bias);
        }
        k.int8_quantize_weights(weight, &self.weight_scales, &mut self.weight);
        for (accumulator, &scale) in self.accumulator_scales.iter_mut().zip(&self.weight_scales) {
            *accumulator = x.scale() * scale;
        }
        multipliers(x, &self.weight_scales, y, &mut self.multipliers);
    }

    /// The weight that the integers stand for, `s_w w`, in the order of the `f32` one.
    ///
    /// # Panics
    /// When `dequantized` has not the weight's length.
    pub fn dequantize_weight(&self, dequantized: &mut [f32]) {
        let scales = &self.weight_scales;
        Kernels::best().int8_dequantize_weights(&self.weight, scales, None, dequantized);
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same bits are meant")]
mod tests {
    use super::*;

    /// A product of two inputs and two outputs, computed by hand.
    #[test]
    fn a_small_product() {
        let weight = [1.27, -0.0635, 0.635, 0.127];
        let x = QParams::new(0.5, 10).unwrap();
        let y = QParams::new(0.25, 0).unwrap();
        let channel = lower_product(&weight, Some(&[0.1, -1.0]), 2, x, y, Granularity::Channel);
        assert_eq!(channel.weight, [127, -64, 64, 127]);
        assert_eq!(channel.weight_scales, [0.01, 0.001]);
        assert_eq!(channel.bias, [20, -2000]);
        assert_eq!(channel.accumulator_scales, [0.005, 0.0005]);
        assert_eq!(channel.multipliers, [0.02, 0.002]);
        let mut back = [0.0; 4];
        channel.dequantize_weight(&mut back);
        assert_eq!(back, [1.27, -0.064, 0.64, 0.127]);

        let mut tensor = lower_product(&weight, None, 2, x, y, Granularity::Tensor);
        assert_eq!(tensor.weight, [127, -6, 64, 13]);
        assert_eq!(tensor.bias, [0, 0]);
        assert_eq!(tensor.multipliers, [0.02]);
        tensor.dequantize_weight(&mut back);
        assert_eq!(back, [1.27, -0.06, 0.64, 0.13]);

        let again = tensor.clone();
        tensor.update(&[1.0; 4], Some(&[1.0, 2.0]), y, x);
        assert_ne!(tensor, again);
        tensor.update(&weight, Some(&[0.0; 2]), x, y);
        assert_eq!(tensor, again);
    }
}
