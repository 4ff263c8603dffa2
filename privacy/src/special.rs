//! Functions of the normal law with small relative error also far out in the tails, where the
//! smallest values of `delta` live.

/// `1 / sqrt(pi)`.
const FRAC_1_SQRT_PI: f64 = 0.564_189_583_547_756_3;

/// `exp(x^2) erfc(x)`, to a few units in the last place; infinite below about -26.6.
pub(crate) fn erfcx(x: f64) -> f64 {
    if x < 25.0 {
        let square = x * x;
        // `exp` magnifies the rounding of the square by the square.
        let lost = libm::fma(x, x, -square);
        libm::exp(square) * (1.0 + lost) * libm::erfc(x)
    } else {
        // The asymptotic series (Abramowitz and Stegun 7.1.23); at 25 the tenth term is below
        // 1e-20.
        let step = -0.5 / (x * x);
        let mut term = 1.0;
        let mut sum = 1.0;
        for k in 0..9 {
            term *= step * f64::from(2 * k + 1);
            sum += term;
        }
        FRAC_1_SQRT_PI / x * sum
    }
}

/// `ln(erfc(x))` with small relative error, or small absolute error near its zero at 0.
pub(crate) fn ln_erfc(x: f64) -> f64 {
    if x < 1.0 {
        libm::log(libm::erfc(x))
    } else {
        libm::log(erfcx(x)) - x * x
    }
}

/// Nodes in (-1, 1), ascending, and weights of Gauss-Legendre quadrature, by Newton's method on the
/// three-term recurrence (Abramowitz and Stegun 22.7.10, 25.4.29).
pub(crate) fn gauss_legendre<const N: usize>() -> ([f64; N], [f64; N]) {
    let mut nodes = [0.0; N];
    let mut weights = [0.0; N];
    let n = N as f64;
    for i in 0..N {
        let guess = core::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5);
        let mut x = -libm::cos(guess);
        let mut slope = 1.0;
        for _ in 0..6 {
            let (mut before, mut value) = (1.0, x);
            for k in 1..N {
                let k = k as f64;
                (before, value) = (
                    value,
                    ((2.0 * k + 1.0) * x * value - k * before) / (k + 1.0),
                );
            }
            slope = n * (before - x * value) / (1.0 - x * x);
            x -= value / slope;
        }
        nodes[i] = x;
        weights[i] = 2.0 / ((1.0 - x * x) * slope * slope);
    }
    (nodes, weights)
}

/// The smallest of the representable numbers from `low` to `high` (both at least 0) for which the
/// monotone `holds` is true, where it is true at `high`; in at most 64 calls.
pub(crate) fn first_that(low: f64, high: f64, mut holds: impl FnMut(f64) -> bool) -> f64 {
    // Numbers that are at least 0 are ordered like their bits.
    let (mut low, mut high) = (low.to_bits(), high.to_bits());
    if low >= high || holds(f64::from_bits(low)) {
        return f64::from_bits(low);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(f64::from_bits(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    f64::from_bits(high)
}

/// How many exponentials [`exp_in_bulk`] takes at once.
pub(crate) const BULK: usize = 8;

/// `exp(x)` for each `x`, up to 700, to 5e-16 relative: a reduction by multiples of `ln 2` and the
/// Taylor series to the twelfth power, without branches, so that they go side by side. What is below
/// `exp(-700)` becomes that.
#[inline]
pub(crate) fn exp_in_bulk(x: [f64; BULK]) -> [f64; BULK] {
    // One and a half times 2^52: a sum with it has the nearest whole number in its last bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    // `ln 2` in two parts; products of the first with whole numbers up to 2^20 are exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN_2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const FACTORS: [f64; 11] = [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
    ];
    let (mut rest, mut scale) = ([0.0; BULK], [0.0; BULK]);
    for lane in 0..BULK {
        let x = if x[lane] > -700.0 { x[lane] } else { -700.0 };
        let whole = x * core::f64::consts::LOG2_E + WHOLE;
        let count = whole - WHOLE;
        rest[lane] = (x - count * LN_2_HIGH) - count * LN_2_LOW;
        scale[lane] = f64::from_bits(whole.to_bits().wrapping_add(1023) << 52);
    }
    let mut sum = [1.0 / 479_001_600.0; BULK];
    for factor in FACTORS {
        for (sum, rest) in sum.iter_mut().zip(&rest) {
            *sum = *sum * rest + factor;
        }
    }
    core::array::from_fn(|lane| scale[lane] + scale[lane] * (rest[lane] * sum[lane]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_in_bulk_are_those_of_libm() {
        let points: Vec<f64> = (0..80_000)
            .map(|k| 700.0 - 1400.0 * f64::from(k) / 79_999.0)
            .chain([0.0, -0.0, 1e-300, -1e-18, 0.34657, 0.34658, -0.34658, -1e-9])
            .collect();
        for chunk in points.as_chunks::<BULK>().0 {
            for (x, found) in chunk.iter().zip(exp_in_bulk(*chunk)) {
                let expected = libm::exp(*x);
                let error = (found - expected).abs();
                assert!(error <= 5e-16 * expected, "{x}: {found:e}, {expected:e}");
            }
        }
        let ends = [
            -700.1,
            -1e4,
            f64::NEG_INFINITY,
            f64::NAN,
            0.0,
            1.0,
            2.0,
            3.0,
        ];
        let least = libm::exp(-700.0);
        for found in &exp_in_bulk(ends)[..4] {
            assert!((found / least - 1.0).abs() < 1e-15);
        }
    }

    /// Values of mpmath 1.3 with 50 digits.
    #[test]
    fn tails_agree_with_mpmath() {
        for (x, expected) in [
            (-5.0, 144009798674.66104),
            (-1.0, 5.008980080762283),
            (-0.25, 1.358642370104722),
            (0.0, 1.0),
            (0.3, 0.7345993345676551),
            (1.0, 0.427583576155807),
            (2.7, 0.19687412733195578),
            (5.0, 0.11070463773306863),
            (10.1, 0.055590487009239874),
            (17.3, 0.03255790299363966),
            (24.99, 0.022558581482293897),
            (25.0, 0.02254957243264136),
            (30.0, 0.01879588886141675),
            (100.0, 0.005641613782989433),
            (1e8, 5.641895835477562e-9),
        ] {
            let found = erfcx(x);
            assert!(
                (found / expected - 1.0).abs() < 2e-15,
                "{x}: {found} {expected}"
            );
        }
        for (x, expected) in [
            (-5.0, 0.6931471805591766),
            (0.0, 0.0),
            (0.5, -0.7350111298370844),
            (1.5, -3.3844920895515527),
            (9.0, -83.77566987952909),
            (30.0, -903.9741171106439),
        ] {
            let found = ln_erfc(x);
            assert!(
                (found - expected).abs() <= 1e-14 * expected.abs(),
                "{x}: {found} {expected}"
            );
        }
    }

    #[test]
    fn quadrature_is_exact_for_polynomials() {
        let (nodes, weights) = gauss_legendre::<8>();
        for power in 0..16 {
            let sum: f64 = nodes
                .iter()
                .zip(weights)
                .map(|(x, w)| w * x.powi(power))
                .sum();
            let exact = if power % 2 == 0 {
                2.0 / f64::from(power + 1)
            } else {
                0.0
            };
            assert!((sum - exact).abs() < 1e-15, "x^{power}: {sum} {exact}");
        }
        assert!(nodes.is_sorted());
    }

    #[test]
    fn the_first_number_is_found_exactly() {
        for threshold in [0.0, 5e-324, 1e-300, 0.1, 1.0, 7e200] {
            assert_eq!(
                first_that(0.0, 1e300, |x| x >= threshold).to_bits(),
                threshold.to_bits()
            );
        }
    }
}
