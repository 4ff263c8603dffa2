//! Batch normalisation folded into the product before it: one recipe, wherever a model is served
//! or quantized.

use alloc::vec;
use alloc::vec::Vec;

#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;
use crate::kernel::Kernels;

/// The weight and bias of a product that gives what the product and a batch normalisation by
/// running statistics give one after the other (Jacob et al. 2018, arXiv:1712.05877, §3.2,
/// equation 14).
///
/// `weight` is row-major with the outputs (filters) last, `[.., outputs]`; the other slices hold
/// one number per output, and `bias` may be missing. The recipe, in f32:
/// ```text
/// factor  = gamma / sqrt(max(variance, 0) + epsilon)
/// weight' = weight * factor
/// bias'   = fma(bias - mean, factor, beta)
/// ```
///
/// # Panics
/// When `weight` is not whole rows of outputs, or a slice does not hold one number per output.
#[must_use]
pub fn fold_batch_norm(
    weight: &[f32],
    bias: Option<&[f32]>,
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let outputs = gamma.len();
    let mut factors = vec![0.0; outputs];
    let (mut folded, mut shifts) = (vec![0.0; weight.len()], vec![0.0; outputs]);
    fold_batch_norm_into(
        weight,
        bias,
        gamma,
        beta,
        mean,
        variance,
        epsilon,
        &mut factors,
        &mut folded,
        &mut shifts,
    );
    (folded, shifts)
}

/// [`fold_batch_norm`] into memory of the caller's; `factors` receives one number per output.
#[expect(
    clippy::too_many_arguments,
    reason = "one slice for each operand of the formula"
)]
pub(crate) fn fold_batch_norm_into(
    weight: &[f32],
    bias: Option<&[f32]>,
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
    factors: &mut [f32],
    folded: &mut [f32],
    shifts: &mut [f32],
) {
    let outputs = gamma.len();
    assert!(
        weight.len().is_multiple_of(outputs.max(1)),
        "the weight holds {} numbers, not rows of {outputs}",
        weight.len()
    );
    for slice in [beta, mean, variance].into_iter().chain(bias) {
        assert_eq!(slice.len(), outputs, "one number per output");
    }
    fold_factors(gamma, variance, epsilon, factors);
    Kernels::best().int8_scale_columns(weight, factors, folded);
    for (i, (to, factor)) in shifts.iter_mut().zip(&*factors).enumerate() {
        let bias = bias.map_or(0.0, |bias| bias[i]);
        *to = (bias - mean[i]).mul_add(*factor, beta[i]);
    }
}

/// The factors of [`fold_batch_norm`].
pub(crate) fn fold_factors(gamma: &[f32], variance: &[f32], epsilon: f32, factors: &mut [f32]) {
    for ((factor, gamma), variance) in factors.iter_mut().zip(gamma).zip(variance) {
        *factor = gamma / libm::sqrtf(variance.max(0.0) + epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{BatchNorm, Dense, Fused};

    #[test]
    fn a_folded_product_is_the_product_and_the_normalisation() {
        let (rows, inputs, outputs) = (5, 7, 4);
        let number = |i: usize| ((i * 37) % 19) as f32 * 0.2 - 1.7;
        let numbers = |from: usize, len: usize| (from..from + len).map(number).collect::<Vec<_>>();
        let (x, weight) = (numbers(0, rows * inputs), numbers(3, inputs * outputs));
        let bias = numbers(11, outputs);
        let (gamma, beta, mean) = (
            numbers(5, outputs),
            numbers(6, outputs),
            numbers(8, outputs),
        );
        // One variance below zero counts as zero.
        let variance = [0.3, 2.0, -0.5, 1.0];
        let (k, d) = (Kernels::best(), Dense { inputs, outputs });
        for bias in [None, Some(&bias[..])] {
            let mut y = vec![0.0; rows * outputs];
            k.dense(&d, rows, &x, &weight, bias, Fused::None, &mut y);
            let b = BatchNorm::new(1, outputs, 1e-3).expect("a shape");
            let (mut r, mut expected) = (vec![0.0; outputs], vec![0.0; y.len()]);
            k.batch_norm_factor(1e-3, &variance, &mut r);
            k.batch_norm(
                &b,
                rows,
                &y,
                &mean,
                &r,
                &gamma,
                &beta,
                Fused::Relu6,
                &mut expected,
            );
            let (weight, bias) =
                fold_batch_norm(&weight, bias, &gamma, &beta, &mean, &variance, 1e-3);
            k.dense(&d, rows, &x, &weight, Some(&bias), Fused::Relu6, &mut y);
            for (got, expected) in y.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-4, "{got} for {expected}");
            }
            assert!(expected.iter().any(|y| *y > 0.0 && *y < 6.0));
        }
    }
}
