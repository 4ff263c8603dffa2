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

/// No less than [`l2_norm`] and, relative to it, at most `2.5e-7` above: in a third of the time.
///
/// What a clipper needs, whose bound must hold for the norm itself.
#[must_use]
pub fn l2_norm_above(values: &[f32]) -> f64 {
    libm::sqrt(sum_of_squares_above(values))
}

/// The square of [`l2_norm_above`].
///
/// The squares of 64 values are taken in `f32` and added in pairs, in eight lanes, whose sums are
/// added in `f64`: with the square itself four roundings, each of a part in `2^24`. Where that could
/// lose squares too large or too small for `f32`, all of it is done in `f64`.
#[must_use]
pub fn sum_of_squares_above(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    const BLOCK: usize = 8 * LANES;
    // Four parts in `2^24` and, far less, what is said below and the rounding in `f64`.
    const UP: f64 = 1.0 + 2.45e-7;
    let mut lanes = [0.0f64; LANES];
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    for block in blocks {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            let square = |row: usize| block[lane + row * LANES] * block[lane + row * LANES];
            let first = (square(0) + square(1)) + (square(2) + square(3));
            let second = (square(4) + square(5)) + (square(6) + square(7));
            *sum += f64::from(first + second);
        }
    }
    let mut total: f64 = lanes.iter().sum();
    for &value in rest {
        total += f64::from(value) * f64::from(value);
    }
    // A square may have lost `2^-149`: less than a part in `1e9` of this.
    let enough = values.len() as f64 * 1e-35;
    if total.is_finite() && total > enough {
        total * UP
    } else {
        sum_of_squares(values) * (1.0 + 1e-8)
    }
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
            let above = l2_norm_above(&values);
            prop_assert!(before <= above && above <= before * (1.0 + 2.5e-7), "{above} {before}");
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
            for len in [40, 64, 100, 300] {
                let mut values = vec![1.0f32; len];
                values[33] = bad;
                assert!(!l2_norm_above(&values).is_finite());
            }
        }
        assert!((l2_norm(&[f32::MAX; 4]) / f64::from(f32::MAX) - 2.0).abs() < 1e-12);
        let least = f32::from_bits(1);
        assert!((l2_norm(&[least; 16]) / f64::from(least) - 4.0).abs() < 1e-12);
        // Beyond the squares that `f32` holds, and where all roundings are to one side.
        for value in [
            f32::MAX,
            1e19,
            2e19,
            1e-18,
            1e-22,
            1e-30,
            least,
            1.000_122_1,
            0.999_969_6,
        ] {
            for len in [1, 63, 64, 640, 4099] {
                let exact = f64::from(value) * libm::sqrt(len as f64);
                let above = l2_norm_above(&vec![value; len]);
                let name = format!("{value} {len} {above}");
                assert!(exact <= above && above <= exact * (1.0 + 2.5e-7), "{name}");
            }
        }
        assert!(l2_norm_above(&[]) == 0.0 && l2_norm_above(&[0.0; 100]) == 0.0);
        let mut values = [least, -2.0 * least];
        scale(&mut values, libm::exp2(140.0));
        assert!(
            (values[0] - libm::exp2f(-9.0)).abs() < 1e-9
                && (values[1] + libm::exp2f(-8.0)).abs() < 1e-9
        );
    }
}
