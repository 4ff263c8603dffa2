#![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

use fl_core::testing::stream;
use proptest::prelude::*;
use rand_core::{Infallible, TryRng};

use super::dyadic::Dyadic;
use super::table::Table;
use super::*;
use crate::event::DpEvent;
use crate::statistics::{chi_square, kolmogorov_smirnov, normal_cdf};
use crate::units::NoiseMultiplier;

/// A generator that counts its bytes, all of one kind.
struct Counting {
    byte: u8,
    bytes: u64,
}

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.bytes += 4;
        Ok(u32::from_le_bytes([self.byte; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.bytes += 8;
        Ok(u64::from_le_bytes([self.byte; 8]))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.bytes += bytes.len() as u64;
        bytes.fill(self.byte);
        Ok(())
    }
}

#[test]
fn gaussian_numbers_are_gaussian() {
    let n = 2_000_000;
    for (seed, std) in [(1, 1.0), (2, 0.37)] {
        let mut numbers = vec![0.0f32; n];
        gaussian::fill(&mut stream(seed, 0), std, &mut numbers);
        let scaled: Vec<f64> = numbers.iter().map(|&x| f64::from(x) / std).collect();
        kolmogorov_smirnov(&scaled, normal_cdf);
        // Places of a block are alike, and the two numbers of a pair are independent: products
        // have variance 1, and those of squares, less 1, variance 4.
        let half = uniform::HALF;
        let (mut product, mut squares) = (0.0, 0.0);
        for block in scaled.chunks_exact(2 * half) {
            for (x, y) in block[..half].iter().zip(&block[half..]) {
                product += x * y;
                squares += (x * x - 1.0) * (y * y - 1.0);
            }
        }
        let pairs = libm::sqrt(n as f64 / 2.0);
        assert!(product.abs() < 5.0 * pairs, "{product}");
        assert!(squares.abs() < 5.0 * 2.0 * pairs, "{squares}");
        // The tails, in cells of half a standard deviation.
        let cell = |x: f64| (libm::floor(x.abs() * 2.0) as usize).min(9);
        let mut counts = [0u64; 10];
        scaled.iter().for_each(|&x| counts[cell(x)] += 1);
        let beyond = |x: f64| libm::erfc(x / core::f64::consts::SQRT_2);
        let expected: Vec<f64> = (0..10)
            .map(|i| {
                let above = if i == 9 {
                    0.0
                } else {
                    beyond(0.5 * (i + 1) as f64)
                };
                (beyond(0.5 * i as f64) - above) * n as f64
            })
            .collect();
        chi_square(&counts, &expected);
    }
}

#[test]
fn the_value_at_a_place_depends_on_the_place_only() {
    let mut long = vec![0.0f32; 1000];
    gaussian::fill(&mut stream(3, 0), 2.0, &mut long);
    for len in [0, 1, 100, 255, 256, 257, 999] {
        let mut short = vec![0.0; len];
        gaussian::fill(&mut stream(3, 0), 2.0, &mut short);
        assert_eq!(short, long[..len]);
        let mut added = vec![0.0; len];
        gaussian::add(&mut stream(3, 0), 2.0, &mut added);
        assert_eq!(added, long[..len]);
    }
    let mechanism = Gaussian::new(NoiseMultiplier::new(4.0).unwrap(), 0.5).unwrap();
    assert_eq!(
        mechanism.event(),
        DpEvent::gaussian(NoiseMultiplier::new(4.0).unwrap())
    );
    let mut mean = vec![1.0f64; 1000];
    mechanism.add_f64(&mut stream(3, 0), &mut mean);
    let same = mean
        .iter()
        .zip(&long)
        .all(|(mean, &z)| *mean == 1.0 + f64::from(z));
    assert!(same);
    // The bits are part of the contract: these were drawn by the first version.
    let bits: Vec<u32> = [0, 1, 128, 999]
        .map(|place: usize| long[place].to_bits())
        .to_vec();
    assert_eq!(bits, GOLDEN_NORMALS);
}

/// Also a check that other machines give the same bits.
const GOLDEN_NORMALS: [u32; 4] = [1_074_089_753, 1_056_148_214, 3_222_867_064, 1_084_666_478];

/// The extremes of the words, and the finer draw in the tail.
#[test]
fn tails_do_not_end_with_a_word() {
    for (byte, smallest, largest) in [(0u8, 9.0, 11.0), (0xff, 0.0, 1e-3)] {
        let mut values = vec![0.0f32; 300];
        gaussian::fill(&mut Counting { byte, bytes: 0 }, 1.0, &mut values);
        let radius = f64::from(values[0]).hypot(f64::from(values[128]));
        assert!((smallest..largest).contains(&radius), "{byte}: {radius}");
        assert!(values.iter().all(|value| value.is_finite()));
        laplace::fill(&mut Counting { byte, bytes: 0 }, 1.0, &mut values);
        let magnitude = f64::from(values[0].abs());
        assert!((smallest..60.0).contains(&magnitude), "{byte}: {magnitude}");
    }
    // `-ln` and points of the circle, against `libm`.
    for i in 0..200_000u32 {
        let word = i.wrapping_mul(0x9e37_79b9);
        let u = uniform::open(word);
        let expected = -libm::log(f64::from(u));
        let off = (f64::from(uniform::negative_log(u)) - expected).abs();
        assert!(off <= 2e-7 * expected.max(0.05), "-ln {u}: off by {off}");
        let (x, y) = gaussian::turn(word);
        let angle =
            f64::from((word << 2).cast_signed()) * core::f64::consts::FRAC_PI_4 / 2f64.powi(31);
        let side = if word >> 31 == 1 {
            -libm::cos(angle)
        } else {
            libm::cos(angle)
        };
        let (first, second) = if word >> 30 & 1 == 1 {
            (libm::sin(angle), side)
        } else {
            (side, libm::sin(angle))
        };
        assert!((f64::from(x) - first).abs() < 1.5e-7, "{word}: {x} {first}");
        assert!(
            (f64::from(y) - second).abs() < 1.5e-7,
            "{word}: {y} {second}"
        );
    }
}

#[test]
fn laplace_numbers_are_laplace() {
    let mechanism = Laplace::new(NoiseMultiplier::new(0.5).unwrap(), 4.0).unwrap();
    let mut numbers = vec![0.0f32; 1_000_000];
    mechanism.add(&mut stream(4, 0), &mut numbers);
    let scaled: Vec<f64> = numbers.iter().map(|&x| f64::from(x) / 2.0).collect();
    kolmogorov_smirnov(&scaled, |x| {
        let tail = 0.5 * libm::exp(-x.abs());
        if x < 0.0 { tail } else { 1.0 - tail }
    });
    let variance = scaled.iter().map(|x| x * x).sum::<f64>() / 1e6;
    // The variance of x^2 is 24 - 4.
    assert!(
        (variance - 2.0).abs() < 5.0 * libm::sqrt(20.0 / 1e6),
        "{variance}"
    );
}

/// `P(k)` of the discrete Gaussian, in `f64`.
fn gaussian_pmf(sigma: f64) -> impl Fn(i64) -> f64 {
    let weight = move |k: i64| libm::exp(-0.5 * (k as f64 / sigma) * (k as f64 / sigma));
    let reach = (40.0 * sigma) as i64 + 2;
    let total: f64 = (-reach..=reach).map(weight).sum();
    move |k| weight(k) / total
}

/// `P(k)` of Skellam noise by the power series of the Bessel function,
/// `e^-v sum_m (v/2)^(2m+k) / (m! (m+k)!)`.
fn skellam_pmf(variance: f64) -> impl Fn(i64) -> f64 {
    move |k| {
        let k = k.unsigned_abs() as f64;
        let half = libm::log(variance / 2.0);
        (0..3000)
            .map(|m| {
                let m = f64::from(m);
                let factorials = libm::lgamma(m + 1.0) + libm::lgamma(m + k + 1.0);
                libm::exp((2.0 * m + k) * half - factorials - variance)
            })
            .sum()
    }
}

fn laplace_pmf(scale: f64) -> impl Fn(i64) -> f64 {
    let ratio = libm::exp(-1.0 / scale);
    move |k| (1.0 - ratio) / (1.0 + ratio) * libm::exp(-(k.unsigned_abs() as f64) / scale)
}

/// Draws and compares with the exact law: one cell for each of up to 41 middle values (of equal
/// width), two for the tails.
fn assert_drawn_from(noise: &dyn IntegerNoise, pmf: impl Fn(i64) -> f64, seed: u64, n: usize) {
    let mut drawn = vec![0i64; n];
    noise.add(&mut stream(seed, 1), &mut drawn);
    let std = libm::sqrt(noise.variance());
    let width = (std / 6.0).ceil().max(1.0) as i64;
    let reach = (3.0 * std / width as f64).ceil() as i64;
    let cell = |k: i64| {
        ((k + width / 2)
            .div_euclid(width)
            .clamp(-reach - 1, reach + 1)
            + reach
            + 1) as usize
    };
    let mut counts = vec![0u64; 2 * reach as usize + 3];
    drawn.iter().for_each(|&k| counts[cell(k)] += 1);
    let mut expected = vec![0.0; counts.len()];
    let far = (12.0 * std) as i64 + 40;
    (-far..=far).for_each(|k| expected[cell(k)] += pmf(k) * n as f64);
    chi_square(&counts, &expected);
}

#[test]
fn integer_noise_has_its_exact_pmf() {
    for (seed, sigma) in [0.3, 0.6, 1.0, 2.5, 17.3, 800.0].into_iter().enumerate() {
        let seed = seed as u64;
        let exact = ExactDiscreteGaussian::new(sigma).unwrap();
        let table = DiscreteGaussian::new(sigma).unwrap();
        assert!((table.sigma() / exact.sigma() - 1.0).abs() < 1e-15);
        let pmf = gaussian_pmf(exact.sigma());
        assert_drawn_from(&exact, &pmf, seed, 200_000);
        assert_drawn_from(&table, &pmf, seed + 50, 500_000);
        let laplace = ExactDiscreteLaplace::new(sigma).unwrap();
        assert_drawn_from(&laplace, laplace_pmf(laplace.scale()), seed + 100, 200_000);
    }
    for (seed, variance) in [0.01, 0.3, 1.0, 9.0, 400.0].into_iter().enumerate() {
        let skellam = Skellam::new(variance).unwrap();
        assert_drawn_from(
            &skellam,
            skellam_pmf(skellam.variance()),
            seed as u64,
            500_000,
        );
    }
}

/// The tables themselves, in `f64`; the fixture has more digits.
#[test]
fn tables_are_the_pmf() {
    for sigma in [0.02, 0.3, 1.0, 6.1, 93.0, 1024.0] {
        let square = Dyadic::at_least("x", sigma * sigma).unwrap();
        let table = Table::gaussian(square);
        let pmf = gaussian_pmf(libm::sqrt(square.value()));
        assert_masses(&table, pmf, (14.0 * sigma) as usize + 2);
        assert!(table.distance() < 1e-33, "{sigma}: {:e}", table.distance());
    }
    for variance in [0.01, 1.0, 30.0, 700.0] {
        let square = Dyadic::at_least("x", variance).unwrap();
        assert_masses(&Table::skellam(square), skellam_pmf(square.value()), 60);
    }
}

fn assert_masses(table: &Table, pmf: impl Fn(i64) -> f64, reach: usize) {
    let mut total = 0;
    for magnitude in 0..reach {
        let mass = table.mass(magnitude);
        let drawn = mass as f64 / 2f64.powi(127);
        let exact = pmf(magnitude as i64) * if magnitude == 0 { 1.0 } else { 2.0 };
        assert!(
            (drawn - exact).abs() <= 1e-11 * exact + 1e-37,
            "{magnitude}: {drawn:e} {exact:e}"
        );
        total += mass;
    }
    assert!(total <= 1 << 127);
}

/// Every threshold to the last of its 127 bits, and the reported distance by its definition, against
/// `noise_tables.csv`.
#[test]
fn tables_are_those_of_mpmath() {
    let mut rows = 0;
    for line in include_str!("../../tests/fixtures/noise_tables.csv")
        .lines()
        .skip(1)
    {
        let [law, parameter, magnitude, expected] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (numerator, denominator) = parameter.split_once('/').unwrap();
        let denominator: u64 = denominator.parse().unwrap();
        let square = Dyadic {
            numerator: numerator.parse().unwrap(),
            shift: denominator.trailing_zeros(),
        };
        let table = match law {
            "gaussian" => Table::gaussian(square),
            _ => Table::skellam(square),
        };
        rows += 1;
        if magnitude == "distance" {
            let exact: f64 = expected.parse().unwrap();
            let stated = table.distance();
            assert!(stated >= exact * (1.0 - 1e-11), "{line}: {stated:e}");
            assert!(stated <= exact * (1.0 + 1e-6), "{line}: {stated:e}");
            continue;
        }
        let magnitude: usize = magnitude.parse().unwrap();
        let threshold: u128 = (0..=magnitude).map(|k| table.mass(k)).sum();
        let expected: u128 = expected.parse().unwrap();
        // The last magnitude also has what lies beyond it.
        let last = threshold == 1 << 127 && expected == (1 << 127) - 1;
        assert!(threshold == expected || last, "{line}: {threshold}");
    }
    assert_eq!(rows, 42);
}

/// The law of `X + k Y`, summed up in `f64` where `Y` is one table, is the discrete Gaussian; and
/// draws of any size are normal up to the steps of the integers.
#[test]
fn several_tables_make_one_discrete_gaussian() {
    for sigma in [
        1025.0,
        3000.5,
        70_000.0,
        262_000.0,
        3e6,
        1e9,
        DiscreteGaussian::LARGEST_SIGMA,
    ] {
        let noise = DiscreteGaussian::new(sigma).unwrap();
        let (parts, numerator, shift) = noise.parts();
        let squares: u128 = parts
            .iter()
            .map(|(factor, square)| {
                let factor = u128::from(factor.unsigned_abs());
                (factor * factor * u128::from(square.numerator)) << (shift - square.shift)
            })
            .sum();
        assert_eq!(squares, numerator, "the squares add up exactly");
        assert!(noise.sigma() >= sigma * (1.0 - 1e-15) && noise.sigma() < sigma * (1.0 + 1e-9));
        assert!(noise.distance() < 1e-32, "{:e}", noise.distance());
        assert!(
            parts
                .iter()
                .all(|(_, square)| square.value() <= (1 << 20) as f64)
        );
        if let [(1, fine), (factor, coarse)] = parts[..] {
            // sum_y exp(-(z - k y)^2 / 2 fine - y^2 / 2 coarse) over exp(-z^2 / 2 whole) is
            // constant.
            let (fine, coarse) = (fine.value(), coarse.value());
            let whole = fine + (factor * factor) as f64 * coarse;
            let ratio = |z: i64| -> f64 {
                let centre = (z as f64 * coarse * factor as f64 / whole) as i64;
                (centre - 14_000..centre + 14_000)
                    .map(|y| {
                        let (rest, y) = ((z - factor * y) as f64, y as f64);
                        let z = z as f64;
                        libm::exp(
                            z * z / (2.0 * whole)
                                - rest * rest / (2.0 * fine)
                                - y * y / (2.0 * coarse),
                        )
                    })
                    .sum()
            };
            let at_zero = ratio(0);
            for z in [1, 2, factor / 2, factor, sigma as i64, (4.0 * sigma) as i64] {
                let off = ratio(z) / at_zero - 1.0;
                assert!(off.abs() < 1e-10, "{sigma} {z}: {off}");
            }
        }
        let mut drawn = vec![0i64; 400_000];
        noise.add(&mut stream(7, 0), &mut drawn);
        let scaled: Vec<f64> = drawn.iter().map(|&x| x as f64 / noise.sigma()).collect();
        kolmogorov_smirnov(&scaled, normal_cdf);
        let variance = scaled.iter().map(|x| x * x).sum::<f64>() / 4e5;
        assert!(
            (variance - 1.0).abs() < 5.0 * libm::sqrt(2.0 / 4e5),
            "{sigma}: {variance}"
        );
        // All residues occur: the low bits are noise, too.
        let mut residues = [0u64; 16];
        drawn
            .iter()
            .for_each(|x| residues[x.rem_euclid(16) as usize] += 1);
        chi_square(&residues, &[25_000.0; 16]);
    }
    assert_eq!(
        DiscreteGaussian::new(DiscreteGaussian::LARGEST_SIGMA)
            .unwrap()
            .parts()
            .0
            .len(),
        5
    );
}

#[test]
fn large_skellam_noise_is_a_sum() {
    for variance in [1e6, 3e6, Skellam::LARGEST_VARIANCE] {
        let noise = Skellam::new(variance).unwrap();
        assert!(noise.variance() >= variance && noise.variance() < variance * (1.0 + 1e-9));
        let mut drawn = vec![0i64; 100_000];
        noise.add(&mut stream(8, 0), &mut drawn);
        let std = libm::sqrt(noise.variance());
        let scaled: Vec<f64> = drawn.iter().map(|&x| x as f64 / std).collect();
        // Skellam of such a variance is normal up to 1e-4 at every point.
        kolmogorov_smirnov(&scaled, normal_cdf);
        assert!(noise.distance() < 1e-31, "{:e}", noise.distance());
    }
}

/// Each draw costs the same random bytes and the same table steps, whatever it gives.
#[test]
fn draws_take_a_constant_number_of_steps() {
    let cases: [(&dyn IntegerNoise, u64); 3] = [
        (&DiscreteGaussian::new(3.0).unwrap(), 16),
        (&DiscreteGaussian::new(5000.0).unwrap(), 32),
        (&Skellam::new(9.0).unwrap(), 16),
    ];
    for (noise, bytes) in cases {
        for byte in [0, 1, 0x7f, 0x80, 0xfe, 0xff] {
            let mut counting = Counting { byte, bytes: 0 };
            noise.add(&mut counting, &mut [0; 64]);
            assert_eq!(counting.bytes, 64 * bytes, "{noise:?}");
        }
    }
    assert_eq!(DiscreteGaussian::new(3.0).unwrap().steps(), 6);
    assert_eq!(DiscreteGaussian::new(5000.0).unwrap().steps(), 28);
    assert_eq!(Skellam::new(9.0).unwrap().steps(), 6);
}

#[test]
fn the_distance_goes_into_delta() {
    let noise = DiscreteGaussian::new(100.0).unwrap();
    let draws = 1_000_000 * 10_000;
    let delta = noise.delta_for(Epsilon::new(8.0).unwrap(), draws);
    let expected = (1.0 + libm::exp(8.0)) * noise.distance() * draws as f64;
    assert!((delta / expected - 1.0).abs() < 1e-9);
    assert!(delta < 1e-20, "{delta:e}");
    let exact = ExactDiscreteGaussian::new(100.0).unwrap();
    assert_eq!(exact.delta_for(Epsilon::INFINITY, draws), 0.0);
    assert_eq!(noise.delta_for(Epsilon::INFINITY, draws), f64::INFINITY);
}

#[test]
fn parameters_out_of_range_are_refused() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-4, 2e12] {
        assert!(DiscreteGaussian::new(bad).is_err(), "{bad}");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-5, 1e9] {
        assert!(Skellam::new(bad).is_err(), "{bad}");
    }
    let error = DiscreteGaussian::new(1e13).unwrap_err().to_string();
    assert_eq!(
        error,
        "sigma of a discrete Gaussian is 10000000000000; expected a number between 2^-6 and 2^40; \
         scale the integers"
    );
    let multiplier = NoiseMultiplier::new(1.0).unwrap();
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e31] {
        assert!(Gaussian::new(multiplier, bad).is_err());
        assert!(Laplace::new(multiplier, bad).is_err());
    }
}

proptest! {
    /// Any parameter gives a table whose masses sum to one and fall.
    #[test]
    fn tables_are_laws(exponent in -12.0f64..13.0) {
        let square = Dyadic::at_least("x", libm::exp2(exponent)).unwrap();
        for table in [Table::gaussian(square), Table::skellam(square)] {
            let masses: Vec<u128> = (0..table.len()).map(|k| table.mass(k)).collect();
            prop_assert_eq!(masses.iter().sum::<u128>(), 1 << 127);
            // Up to the rounding of two thresholds.
            prop_assert!(masses.windows(2).skip(1).all(|pair| pair[0] + 2 >= pair[1]));
            prop_assert!(table.distance() < 1e-34, "{:e}", table.distance());
        }
    }
}
