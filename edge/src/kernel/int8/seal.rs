//! From real numbers to u8 as quantization-aware training needs it: with the range that is seen
//! and the mask of the straight-through gradient.

use super::super::Kernels;
use super::level::tiered;
use super::portable::{bound, round_even};
use super::types::Affine;
use super::{Rescale, Through, need};

/// Numbers whose smallest and largest are held at once.
const LANES: usize = 32;

/// `1.5 * 2^23`: added to a number within `±2^22`, it rounds that to an integer, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// The derivative of a rounded number by its scale, zero point and rounding being constants:
/// `rounded - steps` in range, its end in steps outside. `steps` are above the zero point, after a
/// clamp.
#[inline(always)]
pub(super) fn by_scale(steps: f32, zero: f32) -> f32 {
    let steps = bound(steps, -1e6, 1e6);
    let rounded = (steps + ROUNDER) - ROUNDER;
    if rounded < -zero {
        -zero
    } else if rounded > 255.0 - zero {
        255.0 - zero
    } else {
        rounded - steps
    }
}

tiered! {
    fn range(t, x: &[f32], ends: &mut [f32; 2]) {
        let _ = t;
        let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(chunk) {
                // A NaN compares false and is passed over.
                *low = if value < *low { value } else { *low };
                *high = if value > *high { value } else { *high };
            }
        }
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(rest) {
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
        *ends = [
            low.into_iter().fold(f32::INFINITY, f32::min),
            high.into_iter().fold(f32::NEG_INFINITY, f32::max),
        ];
    }

    fn column_ends(t, sums: &[i32], low: &mut [i32], high: &mut [i32]) {
        let _ = t;
        for row in sums.chunks_exact(low.len().max(1)) {
            for ((low, high), &sum) in low.iter_mut().zip(&mut *high).zip(row) {
                *low = sum.min(*low);
                *high = sum.max(*high);
            }
        }
    }

    fn through(t, to: Affine, bounds: Rescale, x: &[f32], y: &mut [u8], out: Through<'_>) {
        let _ = t;
        let (zero, scale) = (i32::from(to.zero_point), to.scale);
        let (low, high) = (i32::from(bounds.low), i32::from(bounds.high));
        let Through { above, below, mask, derivative } = out;
        for ((y, mask), &x) in y.iter_mut().zip(mask).zip(x) {
            let rounded = round_even(bound(x / scale, -1e6, 1e6)) + zero;
            *y = rounded.max(low).min(high) as u8;
            let inside = (0..=255).contains(&rounded);
            *mask = u8::from(inside & (x > above) & (x < below));
        }
        let Some(derivative) = derivative else { return };
        let zero = f32::from(to.zero_point);
        for (derivative, &x) in derivative.iter_mut().zip(x) {
            *derivative = by_scale(bound(x, above, below) / scale, zero);
        }
    }

    fn derivative(t, to: Affine, above: f32, below: f32, numbers: &mut [f32]) {
        let _ = t;
        let zero = f32::from(to.zero_point);
        for number in numbers {
            *number = by_scale(bound(*number, above, below) / to.scale, zero);
        }
    }
}

impl Kernels {
    /// The smallest and the largest of some real numbers; `[0, 0]` where none is a number.
    #[must_use]
    pub fn int8_range(&self, x: &[f32]) -> [f32; 2] {
        let mut ends = [0.0; 2];
        range(self.integers, x, &mut ends);
        if ends[0] > ends[1] { [0.0; 2] } else { ends }
    }

    /// The smallest and the largest of each column of sums `[rows, columns]`: one number of `low`
    /// and of `high` for each; `i32::MAX` and `i32::MIN` of no rows.
    pub fn int8_column_ends(&self, sums: &[i32], low: &mut [i32], high: &mut [i32]) {
        assert_eq!(low.len(), high.len(), "one of each for each column");
        low.fill(i32::MAX);
        high.fill(i32::MIN);
        column_ends(self.integers, sums, low, high);
    }

    /// The derivative by the scale of numbers that are rounded after a clamp, in the numbers' place:
    /// what [`Through::derivative`] receives.
    pub fn int8_derivative_by_scale(&self, to: Affine, ends: [f32; 2], numbers: &mut [f32]) {
        derivative(self.integers, to, ends[0], ends[1], numbers);
    }

    /// [`Kernels::int8_quantize`] after a clamp, whose bounds are also given as integers, with
    /// what the backward pass needs.
    ///
    /// # Source
    /// Krishnamoorthi 2018, arXiv:1806.08342, section 2.4, equations 9 and 10, with the mask of
    /// PyTorch's `fake_quantize_per_tensor_affine`: on the rounded value.
    pub fn int8_quantize_through(
        &self,
        to: Affine,
        bounds: Rescale,
        x: &[f32],
        y: &mut [u8],
        out: Through<'_>,
    ) {
        need("y", y, x.len());
        need("the mask", out.mask, x.len());
        if let Some(derivative) = &out.derivative {
            need("the derivative", derivative, x.len());
        }
        through(self.integers, to, bounds, x, y, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];
    const RELU: [f32; 2] = [0.0, f32::INFINITY];
    const RELU6: [f32; 2] = [0.0, 6.0];

    /// `(value, quantized, gradient)` at scale 0.1 and zero point 100, as
    /// `torch.fake_quantize_per_tensor_affine(value, 0.1, 100, 0, 255)` defines them:
    /// `q = round(value / scale) + zero_point`, the gradient 1 where `0 <= q <= 255`; by the
    /// script `tests/fixtures/fake_quantize.py`.
    #[test]
    fn rounding_and_its_gradient() {
        let to = Affine {
            scale: 0.1,
            zero_point: 100,
        };
        let cases = [
            (NONE, 0.0, 100, 1),
            (NONE, 0.04, 100, 1),
            (NONE, -0.06, 99, 1),
            (NONE, -10.0, 0, 1),
            (NONE, -10.04, 0, 1),
            (NONE, -10.06, 0, 0),
            (NONE, -1e30, 0, 0),
            (NONE, 15.5, 255, 1),
            (NONE, 15.54, 255, 1),
            (NONE, 15.56, 255, 0),
            (NONE, f32::INFINITY, 255, 0),
            (NONE, f32::NAN, 0, 0),
            (NONE, 7.3, 173, 1),
            (RELU, -0.2, 100, 0),
            (RELU, 0.04, 100, 1),
            (RELU, 15.56, 255, 0),
            (RELU, f32::NAN, 100, 0),
            (RELU6, 5.9, 159, 1),
            (RELU6, 6.1, 160, 0),
        ];
        for kernels in Kernels::all_available() {
            for ([above, below], value, quantized, gradient) in cases {
                // Among others, in a vector and in the rest of one.
                let x = [value; 37];
                let (mut y, mut mask) = ([9; 37], [9; 37]);
                let bounds = Rescale {
                    low: if above < 0.0 { 0 } else { 100 },
                    high: if below > 6.0 { 255 } else { 160 },
                };
                let out = Through {
                    above,
                    below,
                    mask: &mut mask,
                    derivative: None,
                };
                kernels.int8_quantize_through(to, bounds, &x, &mut y, out);
                let expected = ([quantized; 37], [gradient; 37]);
                assert_eq!((y, mask), expected, "{above} {below} {value}");
            }
        }
    }

    /// Against central differences of `s clamp(round(v / s + c))`, where `c` holds the rounding:
    /// `s (q - z)` with `q - z = steps + (round(v / s0) - v / s0)` inside.
    #[test]
    fn the_derivative_by_the_scale() {
        let (scale, zero) = (0.1f64, 100.0);
        let to = Affine {
            scale: 0.1,
            zero_point: 100,
        };
        let values = [0.23f32, -3.18, 7.77, 15.9, -12.0, -0.01];
        for [above, below] in [NONE, RELU, RELU6] {
            let (mut y, mut mask, mut derivative) = ([0; 6], [0; 6], [9.0; 6]);
            let out = Through {
                above,
                below,
                mask: &mut mask,
                derivative: Some(&mut derivative),
            };
            let bounds = Rescale { low: 0, high: 255 };
            Kernels::best().int8_quantize_through(to, bounds, &values, &mut y, out);
            let mut again = values;
            Kernels::best().int8_derivative_by_scale(to, [above, below], &mut again);
            assert_eq!(derivative.map(f32::to_bits), again.map(f32::to_bits));
            for (value, found) in values.into_iter().zip(derivative) {
                let v = f64::from(value.max(above).min(below));
                let offset = (v / scale).round_ties_even() - v / scale;
                let number = |s: f64| s * (v / s + offset).clamp(-zero, 255.0 - zero);
                let expected = (number(scale + 1e-6) - number(scale - 1e-6)) / 2e-6;
                assert!(
                    (f64::from(found) - expected).abs() < 1e-4,
                    "{value}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn ranges_are_the_smallest_and_the_largest() {
        let mut numbers = (0..75)
            .map(|i| (i * 7 % 75) as f32 - 36.0)
            .collect::<Vec<_>>();
        numbers.push(f32::NAN);
        for kernels in Kernels::all_available() {
            let range = |x: &[f32]| kernels.int8_range(x).map(f32::to_bits);
            let bits = |range: [f32; 2]| range.map(f32::to_bits);
            assert_eq!(range(&numbers), bits([-36.0, 38.0]));
            assert_eq!(range(&numbers[..1]), bits([-36.0; 2]));
            assert_eq!(range(&[]), bits([0.0; 2]));
            assert_eq!(range(&[f32::NAN]), bits([0.0; 2]));
            let sums = (0..3 * 70).map(|i| i * 37 % 211 - 100).collect::<Vec<_>>();
            for columns in [1, 10, 35, 70] {
                let (mut low, mut high) = (vec![0; columns], vec![0; columns]);
                kernels.int8_column_ends(&sums, &mut low, &mut high);
                for (column, (low, high)) in low.iter().zip(&high).enumerate() {
                    let of = || sums.iter().skip(column).step_by(columns);
                    assert_eq!((Some(low), Some(high)), (of().min(), of().max()));
                }
            }
        }
    }
}
