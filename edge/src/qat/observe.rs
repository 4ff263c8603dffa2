//! Ranges as they are seen, and rounding of real numbers with the mask of the straight-through
//! gradient.

use crate::kernel::Fused;
use crate::quant::Range;

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

/// The range of the real numbers that integer sums stand for, from the smallest and the largest of
/// each column. `scales` is what one step of the sum is worth: one number, or one for each column.
pub(super) fn sums_range(scales: &[f32], low: &[i32], high: &[i32]) -> Range {
    let mut range = Range {
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
    };
    for ((low, high), &scale) in low.iter().zip(high).zip(scales.iter().cycle()) {
        range.min = range.min.min(*low as f32 * scale);
        range.max = range.max.max(*high as f32 * scale);
    }
    range
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
    fn the_range_of_sums() {
        let (low, high) = ([-3, -10], [1, 20]);
        assert_eq!(sums_range(&[0.5, 0.1], &low, &high), range(-1.5, 2.0));
        assert_eq!(sums_range(&[0.5], &low, &high), range(-5.0, 10.0));
        let wide = range(-1.5, 10.0);
        assert_eq!(clamped_range(wide, Fused::None), wide);
        assert_eq!(clamped_range(wide, Fused::Relu), range(0.0, 10.0));
        assert_eq!(clamped_range(wide, Fused::Relu6), range(0.0, 6.0));
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
