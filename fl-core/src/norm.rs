//! L2 norms of updates, and scaling: the arithmetic of everything that clips a whole update.
//!
//! Both are to be a small share of a round even of a small model, so they are done in `f32`, of which
//! a vector holds twice as many. The error is bounded, and the order of operations does not depend on
//! the machine.

/// Sums that squares are added to in turn.
const LANES: usize = 16;
/// Values whose squares are added up in `f32`.
const BLOCK: usize = 8 * LANES;

/// The L2 norm, right to one part in `2^21`. Neither overflows nor underflows for finite values; not
/// finite when a value is not.
#[must_use]
pub fn l2_norm(values: &[f32]) -> f64 {
    libm::sqrt(sum_of_squares(values))
}

/// The square of [`l2_norm`], right to one part in `2^20`, for norms of several parts together.
///
/// The squares of every 128 values are added in 16 interleaved sums in `f32`, so that each rounds
/// nine times at most; these are added in `f64`. Where that could lose squares that are too large or too
/// small for `f32`, all of it is done in `f64`, in the same order.
#[must_use]
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for block in values.chunks(BLOCK) {
        let mut sums = [0.0f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += value * value;
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            *sum += value * value;
        }
        for (lane, sum) in lanes.iter_mut().zip(sums) {
            *lane += f64::from(sum);
        }
    }
    let total: f64 = lanes.iter().sum();
    // Each square may have lost 2^-149.
    let enough = values.len() as f64 * 1e-36;
    if total.is_finite() && total > enough {
        total
    } else {
        wide_sum_of_squares(values)
    }
}

/// The squares in `f64`, which holds them all.
#[cold]
fn wide_sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    lanes.iter().sum()
}

/// Multiplies every value by `factor`, in `f32`: the norm of what comes out is at most `factor`
/// times the norm before, up to one part in `2^23` (the rounding of the factor and of the products)
/// and `2^-150` a value where products underflow. Factors that are far from what `f32` holds are
/// multiplied in `f64`.
pub fn scale(values: &mut [f32], factor: f64) {
    const NEAR: core::ops::RangeInclusive<f64> = 1e-30..=1e30;
    if NEAR.contains(&factor) {
        let factor = factor as f32;
        for value in values {
            *value *= factor;
        }
    } else {
        for value in values {
            *value = (f64::from(*value) * factor) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by plain sums, whose rounding is far below what is allowed.
    fn plain(values: impl IntoIterator<Item = f64>) -> f64 {
        libm::sqrt(values.into_iter().map(|value| value * value).sum())
    }

    proptest! {
        #[test]
        fn norms_and_scaled_norms_are_right(
            values in prop::collection::vec(
                prop_oneof![-3.0f32..3.0, (-149f32..127.0).prop_map(f32::exp2)],
                0..600,
            ),
            exponent in -140f64..60.0,
        ) {
            let wide = |values: &[f32]| plain(values.iter().map(|&value| f64::from(value)));
            let before = wide(&values);
            prop_assert!((l2_norm(&values) - before).abs() <= libm::exp2(-21.0) * before);
            let factor = libm::exp2(exponent);
            let mut scaled = values.clone();
            scale(&mut scaled, factor);
            let exact = plain(values.iter().map(|&value| f64::from(value) * factor));
            // Products beyond `f32` are infinite; others are off by rounding alone.
            if exact < 1e38 {
                let allowed = exact * libm::exp2(-23.0) + 25.0 * libm::exp2(-150.0);
                prop_assert!((wide(&scaled) - exact).abs() <= allowed, "{scaled:?}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_has_no_norm_and_small_parts_are_not_lost() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0f32; 40];
            values[33] = bad;
            assert!(!l2_norm(&values).is_finite());
        }
        // What `f32` cannot hold is as exact as the rest.
        assert!((l2_norm(&[f32::MAX; 4]) / f64::from(f32::MAX) - 2.0).abs() < 1e-12);
        let least = f32::from_bits(1);
        assert!((l2_norm(&[least; 16]) / f64::from(least) - 4.0).abs() < 1e-12);
        // Rounding to one side adds up to what is stated, and no more.
        let all_down = vec![1.000_122_1f32; 4096];
        let exact = plain(all_down.iter().map(|&value| f64::from(value)));
        assert!((l2_norm(&all_down) / exact - 1.0).abs() < libm::exp2(-21.0));
        let mut values = [least, -2.0 * least];
        scale(&mut values, libm::exp2(140.0));
        assert!(
            (values[0] - libm::exp2f(-9.0)).abs() < 1e-9
                && (values[1] + libm::exp2f(-8.0)).abs() < 1e-9
        );
    }
}
