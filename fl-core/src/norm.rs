//! L2 norms of updates, and scaling: the arithmetic of everything that clips a whole update. The
//! order of operations does not depend on the machine.

/// The L2 norm: squares in `f64`, added in 16 interleaved lanes, each in index order. Neither
/// overflows nor underflows for finite values; not finite when a value is not.
///
/// Its relative error is below one part in `2^27` for up to `2^30` values.
#[must_use]
pub fn l2_norm(values: &[f32]) -> f64 {
    libm::sqrt(sum_of_squares(values))
}

/// The square of [`l2_norm`], for norms of several parts together.
#[must_use]
pub fn sum_of_squares(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(value) * f64::from(value);
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
            prop_assert!((l2_norm(&values) - before).abs() <= 1e-14 * before);
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
        assert!((l2_norm(&[f32::MAX; 4]) / f64::from(f32::MAX) - 2.0).abs() < 1e-12);
        let least = f32::from_bits(1);
        assert!((l2_norm(&[least; 16]) / f64::from(least) - 4.0).abs() < 1e-12);
        let mut values = [least, -2.0 * least];
        scale(&mut values, libm::exp2(140.0));
        assert!(
            (values[0] - libm::exp2f(-9.0)).abs() < 1e-9
                && (values[1] + libm::exp2f(-8.0)).abs() < 1e-9
        );
    }
}
