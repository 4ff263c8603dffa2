#![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

use fl_core::testing::{normals, stream};
use proptest::prelude::*;

use super::rounding::NormBound;
use super::*;
use crate::accountant::{Accountant as _, RdpAccountant};
use crate::clip::{ClipOutcome, l2_norm};
use crate::statistics::{kolmogorov_smirnov, normal_cdf};
use crate::units::Delta;

fn config(noise: DistributedNoise) -> DistributedConfig {
    DistributedConfig {
        dimension: 1000,
        max_norm: 2.0,
        noise_multiplier: NoiseMultiplier::new(0.8).unwrap(),
        noise,
        bits: 14,
        clients: 30,
        threshold: 20,
        rounding_bias: DistributedConfig::DEFAULT_ROUNDING_BIAS,
        wrap_limit: DistributedConfig::DEFAULT_WRAP_LIMIT,
    }
}

const BOTH: [DistributedNoise; 2] = [
    DistributedNoise::DiscreteGaussian,
    DistributedNoise::Skellam,
];

fn norm(values: &[f64]) -> f64 {
    libm::sqrt(values.iter().map(|value| value * value).sum())
}

proptest! {
    /// Orthonormal: norms and inner products stay, and the inverse undoes it.
    #[test]
    fn rotations_are_orthonormal(
        seed in any::<u64>(),
        log_len in 0u32..13,
        picks in proptest::collection::vec(-9.0f64..9.0, 1..40),
    ) {
        let len = 1usize << log_len;
        let rotation = Rotation::new(&mut stream(seed, 0), len);
        prop_assert_eq!(rotation.len(), len);
        let vector = |offset: usize| -> Vec<f64> {
            (0..len).map(|i| picks[(i * 7 + offset) % picks.len()]).collect()
        };
        let (x, y) = (vector(0), vector(3));
        let (mut rotated_x, mut rotated_y) = (x.clone(), y.clone());
        rotation.forward(&mut rotated_x);
        rotation.forward(&mut rotated_y);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let tolerance = 1e-12 * (1.0 + norm(&x) * norm(&y) + norm(&x) * norm(&x));
        prop_assert!((dot(&rotated_x, &rotated_y) - dot(&x, &y)).abs() <= tolerance);
        prop_assert!((dot(&rotated_x, &rotated_x) - dot(&x, &x)).abs() <= tolerance);
        rotation.inverse(&mut rotated_x);
        for (back, x) in rotated_x.iter().zip(&x) {
            prop_assert!((back - x).abs() < 1e-12 * (1.0 + norm(&[*x])) * 10.0);
        }
    }

    /// No input, however large, is rounded to something beyond the bound.
    #[test]
    fn rounding_never_exceeds_the_bound(
        seed in any::<u64>(),
        log_len in 0u32..9,
        exponent in -6.0f64..12.0,
        beta in prop_oneof![Just(0.0), 0.001f64..0.99],
        excess in prop_oneof![3 => Just(1.0), 1 => 1.0f64..30.0],
    ) {
        let len = 1usize << log_len;
        let allowed = libm::exp2(exponent);
        let bound = NormBound::new(allowed, beta, len);
        let mut values: Vec<f64> = normals(&mut stream(seed, 1), len, 1.0).iter().map(|&v| f64::from(v)).collect();
        let factor = allowed * excess / norm(&values).max(1e-9);
        values.iter_mut().for_each(|value| *value *= factor);
        let mut integers = vec![0; len];
        let attempts = bound.round(&values, &mut stream(seed, 2), &mut integers);
        let rounded: Vec<f64> = integers.iter().map(|&integer| integer as f64).collect();
        prop_assert!(norm(&rounded) <= bound.l2());
        let l1: f64 = rounded.iter().map(|value| value.abs()).sum();
        prop_assert!(l1 <= bound.l1());
        // Inputs that keep the promise are accepted with probability at least 1 - beta.
        if excess == 1.0 && beta < 0.9 {
            prop_assert!(attempts < 400, "{} tries", attempts);
            prop_assert!(beta > 0.0 || attempts == 1);
            for (integer, value) in integers.iter().zip(&values) {
                prop_assert!((*integer as f64 - value).abs() < 1.0);
            }
        }
    }
}

/// The matrix by its definition.
#[test]
fn the_transform_is_the_hadamard_matrix() {
    for log_len in 0..6 {
        let len = 1usize << log_len;
        let rotation = Rotation::new(&mut stream(9, 0), len);
        for column in 0..len {
            let mut unit = vec![0.0; len];
            unit[column] = 1.0;
            rotation.forward(&mut unit);
            // Signs flip whole columns.
            let sign = unit[0].signum();
            for (row, value) in unit.iter().enumerate() {
                let entry = if (row & column).count_ones() % 2 == 0 {
                    1.0
                } else {
                    -1.0
                };
                let expected = sign * entry / libm::sqrt(len as f64);
                assert!((value - expected).abs() < 1e-15, "{len} {row} {column}");
            }
        }
        let mut wrong = vec![1.0; len + 1];
        rotation.forward(&mut wrong);
        assert_eq!(wrong, vec![1.0; len + 1], "other lengths are left alone");
    }
    // Each column has a random bit of its own: those of the generator, in order.
    let rotation = Rotation::new(&mut stream(9, 1), 256);
    let mut words = stream(9, 1);
    for start in (0..256).step_by(64) {
        let word = words.next_u64();
        for bit in 0..64 {
            let mut unit = vec![0.0; 256];
            unit[start + bit] = 1.0;
            rotation.forward(&mut unit);
            assert_eq!(unit[0] < 0.0, word >> bit & 1 == 1, "{start} {bit}");
        }
    }
}

/// Without a condition rounding is unbiased; with one it is off by at most the stated bias, at an
/// input where the condition bites.
#[test]
fn the_bias_of_rounding_is_bounded() {
    let len = 64;
    let trials = 40_000;
    let values: Vec<f64> = (0..len)
        .map(|i| 0.5 * f64::from(i % 3) + 0.013 * f64::from(i))
        .collect();
    for beta in [0.0, 0.1, default_bias()] {
        let bound = NormBound::new(norm(&values), beta, 64);
        let mut rng = stream(3, 0);
        let mut sums = [0.0; 64];
        let mut integers = [0; 64];
        let mut attempts = 0;
        for _ in 0..trials {
            attempts += bound.round(&values, &mut rng, &mut integers);
            sums.iter_mut()
                .zip(integers)
                .for_each(|(sum, integer)| *sum += integer as f64);
        }
        let off: Vec<f64> = sums
            .iter()
            .zip(&values)
            .map(|(sum, v)| sum / f64::from(trials) - v)
            .collect();
        // Sampling: 64 coordinates of variance at most 1/4.
        let sampling = 2.0 * libm::sqrt(64.0 * 0.25 / f64::from(trials));
        assert!(
            norm(&off) <= bound.bias() + sampling,
            "{beta}: {}",
            norm(&off)
        );
        let accepted = f64::from(trials) / f64::from(attempts);
        assert!(accepted >= 1.0 - beta - 0.01, "{beta}: {accepted}");
    }
}

/// Sensitivities, tau and Rényi divergences against `distributed.csv`.
#[test]
fn accounting_is_that_of_the_papers() {
    let mut rows = 0;
    for line in include_str!("../../tests/fixtures/distributed.csv")
        .lines()
        .skip(1)
    {
        let numbers: Vec<f64> = line
            .split(',')
            .map(|number| number.parse().unwrap())
            .collect();
        let [
            scaled,
            beta,
            dimension,
            sigma,
            n,
            l1,
            l2,
            tau,
            gaussian,
            skellam,
        ] = numbers[..]
        else {
            panic!("{line}");
        };
        let bound = NormBound::new(scaled, beta, dimension as usize);
        // Integers have integer squares of norms: up to 1 less than the formula.
        assert!(bound.l2() <= l2 * (1.0 + 1e-12), "{line}");
        assert!(
            bound.l2() * bound.l2() > l2 * l2 - 1.0 - 1e-9 * l2 * l2,
            "{line}"
        );
        let most = l1 * (1.0 + 1e-12);
        assert!(
            bound.l1() <= most && bound.l1() >= l1 * (1.0 - 2.0 / l2) - 1.0,
            "{line}"
        );
        let inflation = sum_inflation(sigma * sigma, n as u64);
        assert!(
            (inflation - tau).abs() <= 1e-11 * tau,
            "{line}: {inflation}"
        );
        let variance = n * sigma * sigma;
        let (rho, xi) = concentrated(l1, l2, variance, inflation, dimension);
        let rdp = 10.0 * rho + xi;
        assert!((rdp / gaussian - 1.0).abs() < 1e-10, "{line}: {rdp}");
        // The events, as the accountant reads them.
        let tell = |event: DpEvent| {
            let mut accountant = RdpAccountant::new(NeighboringRelation::ReplaceSpecial);
            accountant.compose(&event, 1).unwrap();
            accountant.divergence(10.0).unwrap()
        };
        let told = tell(DpEvent::zcdp(rho, xi).unwrap());
        assert!((told / gaussian - 1.0).abs() < 1e-10, "{line}: {told}");
        // An L1 norm below the L2 norm is no event; the papers' formula has it for norms below 1.
        let told = tell(DpEvent::skellam(variance, l1.max(l2), l2).unwrap());
        assert!(
            l1 < l2 || (told / skellam - 1.0).abs() < 1e-10,
            "{line}: {told}"
        );
        rows += 1;
    }
    assert_eq!(rows, 324);
}

/// Fewer survivors cost more, more cost less; the plan's promise is met at the threshold.
#[test]
fn survivors_are_accounted() {
    for noise in BOTH {
        let plan = DistributedDp::new(config(noise)).unwrap();
        let relation = NeighboringRelation::ReplaceSpecial;
        let variance = |honest| plan.noise().variance() * honest as f64;
        // At the threshold the sum has the noise that was asked for, in integers.
        let promised = 0.8 * 2.0 * plan.scale();
        assert!(variance(20) >= promised * promised * (1.0 - 1e-9));
        assert!(variance(20) <= promised * promised * (1.0 + 1e-3));
        let (_, l2) = plan.norms();
        let mut last = f64::INFINITY;
        for honest in [1, 10, 19, 20, 30] {
            let cost = match plan.event(honest, relation).unwrap() {
                DpEvent::Skellam {
                    variance,
                    l2_sensitivity,
                    ..
                } => {
                    assert_eq!(l2_sensitivity, l2);
                    l2 * l2 / (2.0 * variance)
                }
                DpEvent::ZCdp { rho, xi, .. } => rho + xi / 10.0,
                other => panic!("{other:?}"),
            };
            let expected = l2 * l2 / (2.0 * variance(honest));
            assert!(
                (cost / expected - 1.0).abs() < 1e-6,
                "{honest}: {cost} {expected}"
            );
            assert!(cost < last);
            last = cost;
        }
        // Replacing one moves twice as much.
        let twice = plan.event(20, NeighboringRelation::ReplaceOne).unwrap();
        match (twice, plan.event(20, relation).unwrap()) {
            (
                DpEvent::Skellam {
                    l2_sensitivity: a, ..
                },
                DpEvent::Skellam {
                    l2_sensitivity: b, ..
                },
            ) => {
                assert_eq!(a, 2.0 * b);
            }
            (DpEvent::ZCdp { rho: a, .. }, DpEvent::ZCdp { rho: b, .. }) => {
                assert!((a / b - 4.0).abs() < 1e-9);
            }
            other => panic!("{other:?}"),
        }
        assert!(plan.event(0, relation).is_err());
        let error = plan
            .event(20, NeighboringRelation::AddOrRemoveOne)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("use the relation `replace-special`"),
            "{error}"
        );
        let delta = plan.delta_for(Epsilon::new(8.0).unwrap(), 20, 1000);
        assert!(delta > 0.0 && delta < 1e-20, "{delta:e}");
    }
}

/// With room in the ring, distributed noise costs hardly more than central Gaussian noise of the
/// same multiplier: over a hundred rounds, within 2 % of its epsilon, and never less.
#[test]
fn distributed_noise_costs_little_more_than_central() {
    let delta = Delta::new(1e-6).unwrap();
    let epsilon = |event: &DpEvent| {
        let mut accountant = RdpAccountant::new(NeighboringRelation::ReplaceSpecial);
        accountant.compose(event, 100).unwrap();
        accountant.epsilon(delta).unwrap().upper.get()
    };
    let multiplier = NoiseMultiplier::new(6.0).unwrap();
    let central = epsilon(&DpEvent::gaussian(multiplier));
    for noise in BOTH {
        for (bits, most) in [(12, 1.3), (16, 1.02), (32, 1.02)] {
            let plan = DistributedDp::new(DistributedConfig {
                bits,
                noise_multiplier: multiplier,
                ..config(noise)
            })
            .unwrap();
            let event = plan.event(20, NeighboringRelation::ReplaceSpecial).unwrap();
            let ratio = epsilon(&event) / central;
            assert!(ratio > 1.0 && ratio < most, "{noise:?} {bits}: {ratio}");
        }
    }
}

/// A whole round: the decoded sum is the sum of the clipped updates plus noise of the planned
/// size, normal to a test with 16,000 numbers; the integers never leave the ring.
#[test]
fn a_round_gives_the_sum_with_its_noise() {
    for noise in BOTH {
        let plan = DistributedDp::new(config(noise)).unwrap();
        assert_eq!(plan.padded(), 1024);
        assert!(plan.wrap_probability() <= 1e-6 && plan.wrap_probability() > 1e-7);
        let mut errors = Vec::new();
        for round in 0..16 {
            let rotation = Rotation::new(&mut stream(round, 100), 1000);
            let mut sum = vec![0u64; plan.padded()];
            let mut expected = vec![0.0; 1000];
            let mut sent = Vec::new();
            for client in 0..30 {
                // Some are clipped, some not, one is broken.
                let scale = if client % 2 == 0 { 0.2 } else { 0.02 };
                let mut update = normals(&mut stream(round, client), 1000, scale);
                if client == 7 {
                    update[500] = f32::NAN;
                }
                let mut rounding = stream(round, 1000 + client);
                let mut local = stream(round, 2000 + client);
                let encoded = plan
                    .encode(&mut update, &rotation, &mut rounding, &mut local, &mut sent)
                    .unwrap();
                assert_eq!(encoded.clipped.outcome == ClipOutcome::Zeroed, client == 7);
                assert!(l2_norm(&update) <= 2.0);
                assert!(encoded.attempts < 30);
                assert!(sent.iter().all(|element| element >> 14 == 0));
                expected
                    .iter_mut()
                    .zip(&update)
                    .for_each(|(sum, value)| *sum += f64::from(*value));
                plan.add(&mut sum, &sent).unwrap();
            }
            let decoded = plan.decode(&sum, &rotation).unwrap();
            errors.extend(
                decoded
                    .iter()
                    .zip(&expected)
                    .map(|(decoded, expected)| decoded - expected),
            );
        }
        // Thirty of twenty shares, plus rounding: below 1/4 of an integer squared per client.
        let variance =
            30.0 * (plan.noise().variance() + 0.25 / 2.0) / (plan.scale() * plan.scale());
        let asked = 0.8 * 0.8 * 2.0 * 2.0 * 30.0 / 20.0;
        assert!((variance / asked - 1.0).abs() < 0.05, "{variance} {asked}");
        let std = libm::sqrt(variance);
        let scaled: Vec<f64> = errors.iter().map(|error| error / std).collect();
        kolmogorov_smirnov(&scaled, normal_cdf);
        // What happened to the update: nothing else is accepted.
        let rotation = Rotation::new(&mut stream(0, 0), 1000);
        let mut out = Vec::new();
        let mut short = vec![0.0; 999];
        let (mut a, mut b) = (stream(0, 1), stream(0, 2));
        let error = plan
            .encode(&mut short, &rotation, &mut a, &mut b, &mut out)
            .unwrap_err();
        assert_eq!(error.to_string(), "an update has 999 values; expected 1000");
        assert!(plan.decode(&[0; 1000], &rotation).is_err());
        let other = Rotation::new(&mut stream(0, 0), 5000);
        assert!(plan.decode(&[0; 1024], &other).is_err());
        assert!(plan.add(&mut [0; 1024], &[0; 1023]).is_err());
    }
}

/// Simulated sums in rings that are too small: they wrap at most as often as the bound says, and
/// the bound is not absurd. The worst signal is all clients sending one and the same long vector.
#[test]
fn wraps_are_as_rare_as_promised() {
    for noise in BOTH {
        for (clients, limit) in [(4, 1e-3), (16, 1e-3)] {
            let plan = DistributedDp::new(DistributedConfig {
                dimension: 512,
                bits: 12,
                clients,
                threshold: clients,
                wrap_limit: limit,
                ..config(noise)
            })
            .unwrap();
            let half = 1i64 << 11;
            let (mut wrapped, mut near, mut all) = (0u64, 0u64, 0u64);
            for round in 0..400 {
                let rotation = Rotation::new(&mut stream(round, 50), 512);
                // What the plan's clients would send, before it is reduced.
                let mut values = vec![0.0; 512];
                let mut direction = normals(&mut stream(round, 51), 512, 1.0);
                plan.clip.clip(&mut direction);
                values
                    .iter_mut()
                    .zip(&direction)
                    .for_each(|(value, x)| *value = f64::from(*x) * plan.scale());
                rotation.forward(&mut values);
                let mut sum = vec![0i64; 512];
                for client in 0..clients {
                    let mut integers = vec![0; 512];
                    plan.bound
                        .round(&values, &mut stream(round, 100 + client), &mut integers);
                    plan.noise()
                        .add(&mut stream(round, 200 + client), &mut integers);
                    sum.iter_mut()
                        .zip(&integers)
                        .for_each(|(sum, integer)| *sum += integer);
                }
                wrapped += sum
                    .iter()
                    .filter(|&&sum| sum < -half || sum >= half)
                    .count() as u64;
                near += sum.iter().filter(|&&sum| sum.abs() >= half / 2).count() as u64;
                all += 512;
            }
            let (wrapped, near) = (wrapped as f64 / all as f64, near as f64 / all as f64);
            assert!(
                wrapped <= plan.wrap_probability(),
                "{wrapped} {}",
                plan.wrap_probability()
            );
            // The ring is used: half of it would not do.
            assert!(near > limit, "{near}");
            let half_scale = wrap_of(&plan, plan.scale() * 1.01);
            assert!(
                half_scale > limit,
                "a larger scale would fit, too: {half_scale}"
            );
        }
    }
}

fn wrap_of(plan: &DistributedDp, scale: f64) -> f64 {
    let config = plan.config();
    wrap::Sum {
        clients: config.clients as f64,
        signal: config.clients as f64 * config.max_norm / libm::sqrt(plan.padded() as f64),
        local: local_std(config),
        noise: config.noise,
        bias: config.rounding_bias,
        half: (1u64 << (config.bits - 1)) as f64,
    }
    .probability(scale)
}

#[test]
fn plans_that_cannot_work_are_refused() {
    let good = config(DistributedNoise::Skellam);
    let multiplier = |z| NoiseMultiplier::new(z).unwrap();
    let bad = [
        DistributedConfig {
            dimension: 0,
            ..good
        },
        DistributedConfig {
            max_norm: 0.0,
            ..good
        },
        DistributedConfig {
            noise_multiplier: multiplier(0.0),
            ..good
        },
        DistributedConfig { bits: 3, ..good },
        DistributedConfig { bits: 63, ..good },
        DistributedConfig { clients: 0, ..good },
        DistributedConfig {
            threshold: 0,
            ..good
        },
        DistributedConfig {
            threshold: 31,
            ..good
        },
        DistributedConfig {
            rounding_bias: 1.0,
            ..good
        },
        DistributedConfig {
            rounding_bias: f64::NAN,
            ..good
        },
        DistributedConfig {
            wrap_limit: 0.0,
            ..good
        },
        DistributedConfig {
            wrap_limit: 0.1,
            ..good
        },
    ];
    for config in bad {
        assert!(DistributedDp::new(config).is_err(), "{config:?}");
    }
    let error = DistributedDp::new(DistributedConfig { bits: 6, ..good }).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("a ring of 6 bits leaves each of 30 clients noise of 0."),
        "{error}"
    );
    // Many bits: the scale ends where the tables do.
    for noise in BOTH {
        let plan = DistributedDp::new(DistributedConfig {
            bits: 60,
            ..config(noise)
        })
        .unwrap();
        assert!(plan.wrap_probability() < 1e-100);
        let text = serde_json::to_string(plan.config()).unwrap();
        assert_eq!(
            serde_json::from_str::<DistributedConfig>(&text).unwrap(),
            *plan.config()
        );
        let name = serde_json::to_string(&noise).unwrap();
        assert_eq!(
            name.trim_matches('"').parse::<DistributedNoise>(),
            Ok(noise)
        );
    }
    assert!("gaussian".parse::<DistributedNoise>().is_err());
}

/// Without the noise, the decoded sum is the sum of the clipped updates up to rounding: below one
/// integer per coordinate and client before the rotation is undone, and on average over many
/// roundings off by no more than the stated bias of conditional rounding.
#[test]
fn without_noise_the_sum_is_the_quantised_sum() {
    let plan = DistributedDp::new(DistributedConfig {
        bits: 20,
        ..config(DistributedNoise::Skellam)
    })
    .unwrap();
    let rotation = Rotation::new(&mut stream(0, 100), 1000);
    let mut repeated = vec![0.0; 1000];
    let mut expected = vec![0.0; 1000];
    const REPEATS: u64 = 40;
    for repeat in 0..REPEATS {
        let mut sum = vec![0u64; plan.padded()];
        expected.fill(0.0);
        for client in 0..30 {
            let mut update = normals(&mut stream(0, client), 1000, 0.2);
            plan.clip.clip(&mut update);
            let mut values = vec![0.0; plan.padded()];
            for ((value, sum), x) in values.iter_mut().zip(&mut expected).zip(&update) {
                *value = f64::from(*x) * plan.scale();
                *sum += f64::from(*x);
            }
            rotation.forward(&mut values);
            let mut integers = vec![0; plan.padded()];
            let mut rounding = stream(repeat, 1000 + client);
            plan.bound.round(&values, &mut rounding, &mut integers);
            let elements: Vec<u64> = integers
                .iter()
                .map(|&integer| plan.reduce(integer.cast_unsigned()))
                .collect();
            plan.add(&mut sum, &elements).unwrap();
        }
        let decoded = plan.decode(&sum, &rotation).unwrap();
        let off: f64 = decoded
            .iter()
            .zip(&expected)
            .map(|(decoded, expected)| (decoded - expected) * (decoded - expected))
            .sum();
        // Each of 30 clients is below 1 in each of 1024 coordinates; the L2 norm is kept.
        assert!(off.sqrt() * plan.scale() < 30.0 * 32.0);
        for (sum, decoded) in repeated.iter_mut().zip(&decoded) {
            *sum += decoded / REPEATS as f64;
        }
    }
    let bias: f64 = repeated
        .iter()
        .zip(&expected)
        .map(|(mean, expected)| (mean - expected) * (mean - expected))
        .sum();
    // The bias of thirty clients, and what is left of 1/4 per coordinate after 40 repetitions.
    let chance = (30.0 * 1024.0 * 0.25 / REPEATS as f64).sqrt();
    let bias = bias.sqrt() * plan.scale();
    assert!(bias <= 30.0 * plan.bound.bias() + 1.5 * chance, "{bias}");
    // In truth hardly more than chance: conditioning is symmetric but for the norm.
    assert!(bias < 1.5 * chance, "{bias} {chance}");
}
