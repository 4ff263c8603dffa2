//! Ranges as they are seen, and rounding of real numbers with the mask of the straight-through
//! gradient.

use crate::kernel::Fused;
use crate::quant::{QParams, Range};

/// Moves the range `[min, max]` towards what was seen. An end that was passed goes there at once:
/// nothing of a training batch is cut off, and no gradient is lost. One that was not reached
/// follows by `range + momentum (seen - range)`. A range that is still `[0, 0]` has never been
/// observed and is set. What is not finite is not seen.
///
/// # Source
/// Jacob et al. 2018, arXiv:1712.05877, section 3.1, for what shrinks (exponential moving averages
/// of ranges). Their averages also follow what grows, and lag behind it; max pooling then picks
/// the very values that were cut off, whose gradient is zero.
pub(super) fn watch(range: &mut [f32], seen: Range, momentum: f32) {
    if !(seen.min.is_finite() && seen.max.is_finite()) {
        return;
    }
    let first = range[0] == 0.0 && range[1] == 0.0;
    let passed = [seen.min < range[0], seen.max > range[1]];
    for ((end, seen), passed) in range.iter_mut().zip([seen.min, seen.max]).zip(passed) {
        *end = match first || passed {
            true => seen,
            false => *end + momentum * (seen - *end),
        };
    }
}

/// Applies a clamp to an end of a range.
fn clamped(value: f32, clamp: Fused) -> f32 {
    match clamp {
        Fused::None => value,
        Fused::Relu => value.max(0.0),
        Fused::Relu6 => value.clamp(0.0, 6.0),
    }
}

/// A range after a clamp.
pub(super) fn clamped_range(range: Range, clamp: Fused) -> Range {
    Range {
        min: clamped(range.min, clamp),
        max: clamped(range.max, clamp),
    }
}

/// A clamp passes gradients on strictly between these.
pub(super) fn open_ends(clamp: Fused) -> [f32; 2] {
    match clamp {
        Fused::None => [f32::NEG_INFINITY, f32::INFINITY],
        Fused::Relu => [0.0, f32::INFINITY],
        Fused::Relu6 => [0.0, 6.0],
    }
}

/// The range of real numbers after a clamp; of none, `[0, 0]`.
pub(super) fn real_range(real: &[f32], clamp: Fused) -> Range {
    const LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (chunks, rest) = real.as_chunks::<LANES>();
    for chunk in chunks {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(chunk) {
            // A NaN compares false and is passed over.
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
    }
    for &value in rest {
        low[0] = if value < low[0] { value } else { low[0] };
        high[0] = if value > high[0] { value } else { high[0] };
    }
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    let high = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if low > high {
        return Range { min: 0.0, max: 0.0 };
    }
    let range = Range {
        min: low,
        max: high,
    };
    clamped_range(range, clamp)
}

/// The range of the real numbers that integer sums `[.., columns]` stand for, after a clamp.
/// `scales` is what one step of the sum is worth: one number, or one for each column. The last
/// operand is room for each column's smallest and largest sum.
pub(super) fn sums_range(
    sums: &[i32],
    scales: &[f32],
    clamp: Fused,
    [low, high]: [&mut [i32]; 2],
) -> Range {
    low.fill(i32::MAX);
    high.fill(i32::MIN);
    for row in sums.chunks_exact(low.len().max(1)) {
        for ((low, high), &sum) in low.iter_mut().zip(&mut *high).zip(row) {
            *low = sum.min(*low);
            *high = sum.max(*high);
        }
    }
    let mut range = Range {
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
    };
    for ((low, high), &scale) in low.iter().zip(&*high).zip(scales.iter().cycle()) {
        range.min = range.min.min(*low as f32 * scale);
        range.max = range.max.max(*high as f32 * scale);
    }
    clamped_range(range, clamp)
}

/// `1.5 * 2^23`: added to a number within `±2^22`, it rounds that to an integer, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// Rounds real numbers to a point after a clamp.
///
/// The straight-through gradient of `dequantize(quantize(clamp(v)))` is 1 where the rounded value
/// lies in `0 ..= 255` before it is cut to that, and the clamp passes `v` on; else 0.
///
/// # Source
/// Krishnamoorthi 2018, arXiv:1806.08342, section 2.4, equations 9 and 10, with the mask of
/// PyTorch's `fake_quantize_per_tensor_affine`: on the rounded value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounder {
    params: QParams,
    clamp: Fused,
}

impl Rounder {
    pub(super) fn new(params: QParams, clamp: Fused) -> Self {
        Self { params, clamp }
    }

    pub(super) fn round(self, real: &[f32], y: &mut [u8]) {
        let [low, high] = open_ends(self.clamp);
        for (y, &value) in y.iter_mut().zip(real) {
            *y = self.params.quantize(value.max(low).min(high));
        }
    }

    /// The derivative of each rounded number by its scale, the zero point and the rounding
    /// itself being constants: `round(v / s) - v / s` inside the range, its end in steps outside;
    /// 0 where a relu cut it off.
    ///
    /// # Source
    /// Esser et al. 2020 (LSQ), arXiv:1902.08153, equation 3.
    pub(super) fn derivative(self, real: &[f32], derivative: &mut [f32]) {
        derivative.copy_from_slice(real);
        self.derivative_in_place(derivative);
    }

    /// The same, over the real numbers.
    #[expect(
        clippy::manual_clamp,
        reason = "what is not a number becomes the least"
    )]
    pub(super) fn derivative_in_place(self, numbers: &mut [f32]) {
        let zero_point = f32::from(self.params.zero_point());
        let (low, high) = (-zero_point, 255.0 - zero_point);
        let [above, below] = open_ends(self.clamp);
        let scale = self.params.scale();
        for number in numbers {
            let steps = (number.max(above).min(below) / scale).max(-1e6).min(1e6);
            let rounded = (steps + ROUNDER) - ROUNDER;
            *number = if rounded < low {
                low
            } else if rounded > high {
                high
            } else {
                rounded - steps
            };
        }
    }

    #[expect(
        clippy::manual_clamp,
        reason = "what is not a number becomes the least"
    )]
    pub(super) fn mask(self, real: &[f32], mask: &mut [u8]) {
        let zero_point = f32::from(self.params.zero_point());
        let (low, high) = (-zero_point, 255.0 - zero_point);
        let [above, below] = open_ends(self.clamp);
        let scale = self.params.scale();
        for (mask, &value) in mask.iter_mut().zip(real) {
            let steps = (value / scale).max(-1e6).min(1e6);
            let rounded = (steps + ROUNDER) - ROUNDER;
            let inside = (rounded >= low) & (rounded <= high);
            *mask = u8::from(inside & (value > above) & (value < below));
        }
    }
}

/// The codes after a clamp that is no other operator's, and where it passes gradients on.
pub(super) fn clamp_codes(
    low: u8,
    high: u8,
    zero_point: u8,
    clamp: Fused,
    x: &[u8],
    y: &mut [u8],
    mask: Option<&mut [u8]>,
) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x.max(low).min(high);
    }
    let Some(mask) = mask else { return };
    let below = match clamp {
        Fused::Relu6 => high,
        Fused::None | Fused::Relu => u8::MAX,
    };
    let open = !matches!(clamp, Fused::Relu6) || high == u8::MAX;
    for (mask, &x) in mask.iter_mut().zip(x) {
        *mask = u8::from((x > zero_point) & (open | (x < below)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: f32, max: f32) -> Range {
        Range { min, max }
    }

    #[test]
    fn ranges_follow_what_is_seen() {
        let mut ends = [0.0, 0.0];
        watch(&mut ends, range(-1.0, 3.0), 0.25);
        assert_eq!(ends.map(f32::to_bits), [-1.0f32, 3.0f32].map(f32::to_bits));
        watch(&mut ends, range(-2.0, 1.0), 0.25);
        assert_eq!(ends.map(f32::to_bits), [-2.0f32, 2.5f32].map(f32::to_bits));
        watch(&mut ends, range(-1.0, 4.0), 0.25);
        assert_eq!(ends.map(f32::to_bits), [-1.75f32, 4.0f32].map(f32::to_bits));
        watch(&mut ends, range(f32::NAN, 1.0), 0.25);
        watch(&mut ends, range(0.0, f32::INFINITY), 0.25);
        assert_eq!(ends.map(f32::to_bits), [-1.75f32, 4.0f32].map(f32::to_bits));
    }

    #[test]
    fn the_range_of_numbers_is_their_smallest_and_largest() {
        let mut numbers = (0..37)
            .map(|i| (i * 7 % 37) as f32 - 18.0)
            .collect::<Vec<_>>();
        numbers.push(f32::NAN);
        assert_eq!(real_range(&numbers, Fused::None), range(-18.0, 18.0));
        assert_eq!(real_range(&numbers, Fused::Relu), range(0.0, 18.0));
        assert_eq!(real_range(&numbers, Fused::Relu6), range(0.0, 6.0));
        assert_eq!(real_range(&[], Fused::None), range(0.0, 0.0));
        assert_eq!(real_range(&[-3.0], Fused::None), range(-3.0, -3.0));
        let (mut low, mut high) = ([0; 2], [0; 2]);
        let sums = [1, -10, 5, 20, -3, 0];
        let found = sums_range(&sums, &[0.5, 0.1], Fused::None, [&mut low, &mut high]);
        assert_eq!(found, range(-1.5, 2.5));
        let found = sums_range(&sums, &[0.5], Fused::Relu, [&mut low, &mut high]);
        assert_eq!(found, range(0.0, 10.0));
    }

    /// `(value, quantized, gradient)` at scale 0.1 and zero point 100, as
    /// `torch.fake_quantize_per_tensor_affine(value, 0.1, 100, 0, 255)` defines them:
    /// `q = round(value / scale) + zero_point`, the gradient 1 where `0 <= q <= 255`; by the
    /// script `tests/fixtures/fake_quantize.py`.
    #[test]
    fn rounding_and_its_gradient() {
        let params = QParams::new(0.1, 100).expect("a scale");
        let cases = [
            (0.0, 100, 1),
            (0.04, 100, 1),
            (-0.06, 99, 1),
            (-10.0, 0, 1),
            (-10.04, 0, 1),
            (-10.06, 0, 0),
            (-1e30, 0, 0),
            (15.5, 255, 1),
            (15.54, 255, 1),
            (15.56, 255, 0),
            (f32::INFINITY, 255, 0),
            (7.3, 173, 1),
        ];
        for (value, quantized, gradient) in cases {
            let rounder = Rounder::new(params, Fused::None);
            let (mut y, mut mask) = ([9], [9]);
            rounder.round(&[value], &mut y);
            rounder.mask(&[value], &mut mask);
            assert_eq!((y, mask), ([quantized], [gradient]), "{value}");
        }
        let clamped = [
            (Fused::Relu, -0.2, 100, 0),
            (Fused::Relu, 0.04, 100, 1),
            (Fused::Relu, 15.56, 255, 0),
            (Fused::Relu6, 5.9, 159, 1),
            (Fused::Relu6, 6.1, 160, 0),
        ];
        for (clamp, value, quantized, gradient) in clamped {
            let rounder = Rounder::new(params, clamp);
            let (mut y, mut mask) = ([9], [9]);
            rounder.round(&[value], &mut y);
            rounder.mask(&[value], &mut mask);
            assert_eq!((y, mask), ([quantized], [gradient]), "{clamp:?} {value}");
        }
    }

    #[test]
    fn a_clamp_of_bytes() {
        let x = [0, 9, 10, 11, 200, 255];
        let (mut y, mut mask) = ([0; 6], [9; 6]);
        clamp_codes(10, 255, 10, Fused::Relu, &x, &mut y, Some(&mut mask));
        assert_eq!(y, [10, 10, 10, 11, 200, 255]);
        assert_eq!(mask, [0, 0, 0, 1, 1, 1]);
        clamp_codes(10, 200, 10, Fused::Relu6, &x, &mut y, Some(&mut mask));
        assert_eq!(y, [10, 10, 10, 11, 200, 200]);
        assert_eq!(mask, [0, 0, 0, 1, 0, 0]);
    }
}
