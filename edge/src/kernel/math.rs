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

/// `ln x` for normal `x > 0`, within 2 ulp (absolute error below 1e-7 near 1).
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
    v.fma(e, v.splat(0.693_359_4), y)
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
