//! Elementary functions, written once over [`Simd`] so that every width gives the same bits.
//!
//! Range reduction and polynomials follow the Cephes library (Moshier 1989) in structure; the
//! error function's are Chebyshev fits of our own. Errors are tested against `libm` in f64.

use super::simd::Simd;

/// `1.5 * 2^23`: adding it rounds a number below `2^22` to an integer, held in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x`, within 2 ulp; overflows to infinity, underflows through the subnormals to zero, NaN
/// stays NaN.
#[inline(always)]
pub(crate) fn exp<V: Simd>(v: V, x: V::F) -> V::F {
    let high = v.splat(89.0);
    let low = v.splat(-104.0);
    // Comparisons are false for NaN, so NaN passes through both.
    let clamped = v.select(v.greater(x, high), high, x);
    let clamped = v.select(v.greater(low, clamped), low, clamped);
    let shifted = v.fma(clamped, v.splat(core::f32::consts::LOG2_E), v.splat(ROUND));
    let n = v.sub(shifted, v.splat(ROUND));
    // ln 2 in two parts, the first with 9 trailing zero bits.
    let r = v.fma(n, v.splat(-0.693_359_4), clamped);
    let r = v.fma(n, v.splat(2.121_944_4e-4), r);
    let mut p = v.splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5.0e-1,
    ] {
        p = v.fma(p, r, v.splat(c));
    }
    let y = v.fma(p, v.mul(r, r), r);
    let y = v.add(y, v.splat(1.0));
    // 2^n as 2^h * 2^(n - h): both exponents are normal, the product may be subnormal.
    let half = v.fma(n, v.splat(0.5), v.splat(ROUND));
    let h = v.sub(half, v.splat(ROUND));
    let rest = v.add(v.sub(n, h), v.splat(ROUND));
    // The low bits of `half` hold ROUND's mantissa plus h; the shift drops all but 9 bits.
    let bias = 127u32.wrapping_sub(ROUND.to_bits());
    let first = v.to_exponent(v.add_bits(half, bias));
    let second = v.to_exponent(v.add_bits(rest, bias));
    v.mul(v.mul(y, first), second)
}

/// `ln x` for normal `x > 0`, within 2 ulp (absolute error below 1e-7 near 1); NaN stays NaN.
#[inline(always)]
pub(crate) fn ln<V: Simd>(v: V, x: V::F) -> V::F {
    let exponent = v.sub(v.biased_exponent(x), v.splat(126.0));
    // Mantissa in [1/2, 1).
    let mantissa = v.or(v.and_bits(x, 0x007f_ffff), v.splat(0.5));
    let small = v.greater(v.splat(core::f32::consts::FRAC_1_SQRT_2), mantissa);
    let e = v.select(small, v.sub(exponent, v.splat(1.0)), exponent);
    let f = v.sub(
        v.select(small, v.add(mantissa, mantissa), mantissa),
        v.splat(1.0),
    );
    let z = v.mul(f, f);
    let mut p = v.splat(7.037_683_6e-2);
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = v.fma(p, f, v.splat(c));
    }
    let y = v.mul(v.mul(p, f), z);
    let y = v.fma(e, v.splat(-2.121_944_4e-4), y);
    let y = v.fma(z, v.splat(-0.5), y);
    let y = v.add(f, y);
    let y = v.fma(e, v.splat(0.693_359_4), y);
    // Zero for a number, NaN for NaN, whose bits would pass for a large number's above.
    v.add(y, v.sub(x, x))
}

/// `|x|`
#[inline(always)]
pub(crate) fn abs<V: Simd>(v: V, x: V::F) -> V::F {
    v.and_bits(x, 0x7fff_ffff)
}

/// `magnitude >= 0` with the sign of `x`.
#[inline(always)]
fn with_sign<V: Simd>(v: V, magnitude: V::F, x: V::F) -> V::F {
    v.or(magnitude, v.and_bits(x, 0x8000_0000))
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<V: Simd>(v: V, x: V::F) -> V::F {
    let e = exp(v, v.sub(v.splat(0.0), abs(v, x)));
    let one = v.splat(1.0);
    let numerator = v.select(v.greater(v.splat(0.0), x), e, one);
    v.div(numerator, v.add(one, e))
}

/// `tanh x`, within 3 ulp.
#[inline(always)]
pub(crate) fn tanh<V: Simd>(v: V, x: V::F) -> V::F {
    let magnitude = abs(v, x);
    let z = v.mul(x, x);
    let mut p = v.splat(-5.704_988_7e-3);
    for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = v.fma(p, z, v.splat(c));
    }
    let near = v.fma(v.mul(p, z), x, x);
    let one = v.splat(1.0);
    let e = exp(v, v.add(magnitude, magnitude));
    let far = v.sub(one, v.div(v.splat(2.0), v.add(e, one)));
    let far = with_sign(v, far, x);
    v.select(v.greater(magnitude, v.splat(0.625)), far, near)
}

/// The error function, absolute error below 2e-7.
#[inline(always)]
pub(crate) fn erf<V: Simd>(v: V, x: V::F) -> V::F {
    let magnitude = abs(v, x);
    let z = v.mul(x, x);
    let mut near = v.splat(ERF_NEAR[7]);
    for k in (0..7).rev() {
        near = v.fma(near, z, v.splat(ERF_NEAR[k]));
    }
    let near = v.mul(near, x);
    let four = v.splat(4.0);
    let capped = v.select(v.greater(magnitude, four), four, magnitude);
    let u = v.sub(capped, v.splat(2.5));
    let mut far = v.splat(ERFC_FAR[8]);
    for k in (0..8).rev() {
        far = v.fma(far, u, v.splat(ERFC_FAR[k]));
    }
    let far = exp(v, v.sub(v.splat(0.0), far));
    let far = with_sign(v, v.sub(v.splat(1.0), far), x);
    v.select(v.greater(magnitude, v.splat(1.0)), far, near)
}

/// `erf(x) / x` over `x^2` in `[0, 1]`: Chebyshev fit of degree 7.
const ERF_NEAR: [f32; 8] = [
    core::f32::consts::FRAC_2_SQRT_PI,
    -3.761_263_8e-1,
    1.128_378_3e-1,
    -2.686_543_8e-2,
    5.221_053_5e-3,
    -8.484_396_4e-4,
    1.126_825_4e-4,
    -9.673_591e-6,
];

/// `-ln(erfc(u + 2.5))` over `u` in `[-1.5, 1.5]`: Chebyshev fit of degree 8.
const ERFC_FAR: [f32; 9] = [
    7.806_815,
    5.352_680_7,
    9.438_936e-1,
    1.085_851_7e-2,
    -2.165_160_4e-3,
    4.201_445_6e-4,
    -7.739_443e-5,
    1.330_939e-5,
    -1.614_061_6e-6,
];

#[cfg(test)]
mod tests {
    use super::super::simd::Scalar;
    use super::*;

    /// Distance in units of the last place of the true value's f32.
    fn ulp(got: f32, exact: f64) -> f64 {
        let near = exact as f32;
        let next = f32::from_bits(near.abs().to_bits() + 1) - near.abs();
        (f64::from(got) - exact).abs() / f64::from(next)
    }

    /// The largest error over `[low, high]`.
    fn worst(low: f32, high: f32, error: impl Fn(f32) -> f64) -> f64 {
        let steps = 200_000;
        (0..=steps)
            .map(|i| error(low + (high - low) * (i as f32 / steps as f32)))
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        let v = Scalar;
        let e = |x: f32| ulp(exp(v, x), libm::exp(f64::from(x)));
        assert!(worst(-87.0, 88.7, e) < 2.0);
        assert!(worst(-0.4, 0.4, e) < 2.0);
        // Subnormal results are within two of the smallest steps.
        assert!(worst(-104.0, -87.0, e) < 2.0);
        let l = |x: f32| ulp(ln(v, x), libm::log(f64::from(x)));
        assert!(worst(1.5, 1000.0, l) < 2.0);
        assert!(worst(1e-30, 0.6, l) < 2.0);
        let near_one = |x: f32| (f64::from(ln(v, x)) - libm::log(f64::from(x))).abs();
        assert!(worst(0.5, 2.0, near_one) < 1e-7);
        let t = |x: f32| ulp(tanh(v, x), libm::tanh(f64::from(x)));
        assert!(worst(-9.0, 9.0, t) < 3.0);
        let s = |x: f32| ulp(sigmoid(v, x), 1.0 / (1.0 + libm::exp(-f64::from(x))));
        assert!(worst(-80.0, 30.0, s) < 4.0);
        let f = |x: f32| (f64::from(erf(v, x)) - libm::erf(f64::from(x))).abs();
        assert!(worst(-5.0, 5.0, f) < 2e-7);
    }

    #[test]
    fn ends_and_special_values() {
        let v = Scalar;
        for (x, expected) in [
            (0.0, 1.0),
            (-0.0, 1.0),
            (89.0, f32::INFINITY),
            (1e30, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
            (-104.0, 0.0),
            (f32::NEG_INFINITY, 0.0),
            (-103.0, 1.0e-45),
        ] {
            assert_eq!(exp(v, x).to_bits(), f32::to_bits(expected), "exp {x}");
        }
        assert!(exp(v, f32::NAN).is_nan());
        assert_eq!(ln(v, 1.0).to_bits(), 0.0f32.to_bits());
        assert!(ln(v, f32::NAN).is_nan());
        for x in [0.0f32, 40.0, -40.0] {
            let limit = x.signum() * f32::from(u8::from(x != 0.0));
            assert_eq!(tanh(v, x).to_bits(), limit.to_bits(), "tanh {x}");
            assert_eq!(erf(v, x).to_bits(), limit.to_bits(), "erf {x}");
        }
        assert!(tanh(v, f32::NAN).is_nan() && sigmoid(v, f32::NAN).is_nan());
        assert_eq!(sigmoid(v, f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(sigmoid(v, f32::INFINITY).to_bits(), 1.0f32.to_bits());
    }
}
