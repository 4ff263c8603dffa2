//! Tests of plans whose noise is correlated over the rounds.

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream, Weight, WeightBounds};

use super::*;
use crate::accountant::{AccountantKind, accountant};
use crate::matrix::{BandedToeplitz, Factorization, TreeEstimator};
use crate::relation::NeighboringRelation;
use crate::units::Delta;

const N: u64 = 120;

fn delta() -> Delta {
    Delta::new(1e-5).unwrap()
}

fn cyclic(period: u64, rate: f64) -> Sampler {
    Sampler::cyclic_poisson(N, period, rate).unwrap()
}

fn separated() -> Sampler {
    Sampler::separated(N, 20, 5).unwrap()
}

fn tree(restart: Option<u64>) -> NoiseCorrelation {
    NoiseCorrelation::Tree {
        restart,
        estimator: TreeEstimator::Honaker,
    }
}

fn banded(bands: Option<u64>) -> NoiseCorrelation {
    NoiseCorrelation::BandedToeplitz { bands }
}

const BLT: NoiseCorrelation = NoiseCorrelation::Blt { buffers: 3 };

fn every_kind() -> [NoiseCorrelation; 5] {
    [
        tree(None),
        tree(Some(4)),
        banded(None),
        banded(Some(9)),
        BLT,
    ]
}

fn config(sampler: Sampler, correlation: NoiseCorrelation, rounds: u64) -> DpPlanConfig {
    DpPlanConfig {
        correlation,
        noise_multiplier: Some(NoiseMultiplier::new(2.0).unwrap()),
        ..DpPlanConfig::new(sampler, 0.5, delta(), rounds)
    }
}

fn plan_of(config: DpPlanConfig, values: usize) -> Result<DpPlan, PrivacyError> {
    let layout = Layout::new([("weight".to_owned(), vec![values])]).unwrap();
    let ring = RingPlan::for_weights(WeightBounds::new(Weight(1), N)).unwrap();
    DpPlan::new(config, &layout, &ring)
}

fn plan(config: DpPlanConfig) -> DpPlan {
    plan_of(config, 6).unwrap()
}

fn noise(round: u64) -> Stream {
    Stream::at(Purpose::CentralNoise, Seed(3), RoundId(round), ClientId(0))
}

/// What a round of nobody releases.
fn silence(plan: &mut DpPlan, round: u64, values: usize) -> Vec<f64> {
    let permit = plan.authorise(round).unwrap();
    let mut bits = Stream::at(Purpose::ClipNoise, Seed(3), RoundId(round), ClientId(0));
    let mut sum = vec![0.0; values];
    plan.release(
        permit,
        &mut noise(round),
        &mut bits,
        ClipCount::default(),
        &mut sum,
    );
    sum
}

/// But for the rounding of two accountants.
fn same(a: Epsilon, b: Epsilon) -> bool {
    (a.get() / b.get() - 1.0).abs() < 1e-12
}

fn factorization(plan: &DpPlan) -> &Factorization {
    &plan.schedule.correlation().unwrap().factorization
}

/// The coefficients of a Toeplitz matrix.
fn column(factorization: &Factorization, rounds: usize) -> Option<Vec<f64>> {
    let mut column = match factorization {
        Factorization::Tree(_) => return None,
        Factorization::Banded(matrix) => matrix.coefficients().to_vec(),
        Factorization::Blt(matrix) => matrix.coefficients(rounds),
    };
    column.resize(rounds, 0.0);
    Some(column)
}

/// The released noise has the covariance `std^2 B B^T` over the rounds, with `B = A C^-1` inverted
/// here entry by entry: 20,000 values, within five standard deviations of a sample covariance.
#[test]
fn released_noise_has_the_matrix_covariance() {
    let (rounds, values) = (9usize, 20_000);
    for correlation in every_kind() {
        let config = config(cyclic(4, 1.0), correlation, rounds as u64);
        let mut plan = plan_of(config, values).unwrap();
        let std = plan.noise_std().unwrap() / plan.mean().denominator();
        let mut prefixes: Vec<Vec<f64>> = Vec::new();
        for round in 0..rounds {
            let mut prefix = silence(&mut plan, round as u64, values);
            if let Some(last) = prefixes.last() {
                prefix
                    .iter_mut()
                    .zip(last)
                    .for_each(|(sum, before)| *sum += before);
            }
            prefixes.push(prefix);
        }
        let covariance = |a: usize, b: usize| {
            let products = prefixes[a].iter().zip(&prefixes[b]);
            products.map(|(x, y)| x * y).sum::<f64>() / values as f64 / (std * std)
        };
        let errors = factorization(&plan).errors(rounds as u64);
        for (t, error) in errors.iter().enumerate() {
            let expected = error * error;
            let spread = 5.0 * expected * (2.0 / values as f64).sqrt();
            assert!(
                (covariance(t, t) - expected).abs() < spread,
                "{correlation:?} {t}"
            );
            let on_model = plan.noise_on_model(t as u64 + 1).unwrap();
            assert!((on_model / (std * error) - 1.0).abs() < 1e-12);
        }
        let Some(column) = column(factorization(&plan), rounds) else {
            continue;
        };
        let mut inverse: Vec<f64> = Vec::new();
        for t in 0..rounds {
            let known: f64 = (1..=t).map(|k| column[k] * inverse[t - k]).sum();
            inverse.push(f64::from(u8::from(t == 0)) - known);
        }
        // B is Toeplitz, too: prefix sums of the inverse.
        let b: Vec<f64> = (0..rounds).map(|t| inverse[..=t].iter().sum()).collect();
        for t in 0..rounds {
            for s in 0..=t {
                let expected: f64 = (0..=s).map(|i| b[t - i] * b[s - i]).sum();
                let spread = 5.0 * errors[t] * errors[s] * (2.0 / values as f64).sqrt();
                let found = covariance(t, s);
                assert!(
                    (found - expected).abs() < spread,
                    "{correlation:?} {t} {s}: {found} {expected}"
                );
            }
        }
    }
}

/// The loss of every prefix is that of one Gaussian mechanism whose sensitivity is the largest over
/// all patterns of participation, written down here; and the ledger's events compose to it.
#[test]
fn every_prefix_costs_its_worst_participation() {
    let rounds = 12;
    for sampler in [cyclic(4, 1.0), separated(), Sampler::everyone(N).unwrap()] {
        let apart = sampler.participation(rounds).unwrap().min_separation() as usize;
        for correlation in every_kind() {
            let mut plan = plan(config(sampler.clone(), correlation, rounds));
            let column = column(factorization(&plan), rounds as usize);
            for t in 1..=rounds as usize {
                silence(&mut plan, t as u64 - 1, 6);
                let spent = plan.spent().unwrap();
                let mut composed = accountant(AccountantKind::Gaussian, plan.config().relation);
                for entry in plan.ledger().entries() {
                    composed.compose(&entry.event, entry.count).unwrap();
                }
                let composed = composed.epsilon(delta()).unwrap().upper.get();
                let upper = spent.epsilon.upper.get();
                assert!((composed / upper - 1.0).abs() < 1e-9, "{composed} {upper}");
                assert!(same(spent.unamplified, spent.epsilon.upper));
                let Some(column) = &column else { continue };
                let mut worst = 0.0f64;
                for pattern in 0u32..1 << t {
                    let at: Vec<usize> = (0..t).filter(|i| pattern >> i & 1 == 1).collect();
                    if at.windows(2).any(|pair| pair[1] - pair[0] < apart) {
                        continue;
                    }
                    let row = |t: usize| -> f64 {
                        at.iter().filter(|&&i| i <= t).map(|&i| column[t - i]).sum()
                    };
                    worst = worst.max((0..t).map(|t| row(t) * row(t)).sum());
                }
                let noise = NoiseMultiplier::new(2.0 / worst.sqrt()).unwrap();
                let mut one = accountant(AccountantKind::Gaussian, plan.config().relation);
                one.compose(&DpEvent::gaussian(noise), 1).unwrap();
                let expected = one.epsilon(delta()).unwrap().upper.get();
                assert!(
                    (upper / expected - 1.0).abs() < 1e-9,
                    "{correlation:?} {t}: {upper} {expected}"
                );
            }
        }
    }
}

/// For one epsilon, what a final model has of the noise: correlated is less than independent, and
/// all rounds are affordable at the calibrated noise. One round less than is asked for is not.
#[test]
fn noise_is_calibrated_and_less_of_it_stays() {
    let rounds = 40;
    let calibrated = |correlation| {
        let config = DpPlanConfig {
            noise_multiplier: None,
            epsilon: Some(Epsilon::new(4.0).unwrap()),
            ..config(cyclic(10, 1.0), correlation, rounds)
        };
        let plan = plan(config.clone());
        assert_eq!(plan.last_round(), rounds, "{correlation:?}");
        let spent = plan.spent_after(rounds).unwrap().epsilon.upper.get();
        assert!(spent <= 4.0 && spent > 3.99, "{correlation:?}: {spent}");
        let less = DpPlanConfig {
            noise_multiplier: Some(
                NoiseMultiplier::new(plan.noise_multiplier().get() * 0.99).unwrap(),
            ),
            ..config
        };
        let less = self::plan(less);
        assert!(less.last_round() < rounds, "{correlation:?}");
        assert!(less.refusal().is_some());
        plan.noise_on_model(rounds).unwrap()
    };
    let independent = calibrated(NoiseCorrelation::Independent);
    let tree = calibrated(tree(None));
    let banded = calibrated(banded(None));
    let blt = calibrated(BLT);
    assert!(tree < independent, "{tree} {independent}");
    assert!(
        banded < 0.75 * independent && banded < tree,
        "{banded} {independent} {tree}"
    );
    assert!(
        blt < 0.75 * independent && blt < tree,
        "{blt} {independent} {tree}"
    );
}

/// Interrupted anywhere, a plan goes on with the same bits once its noise was drawn again, and not
/// before.
#[test]
fn a_resumed_plan_draws_its_noise_again() {
    for correlation in every_kind() {
        let config = config(separated(), correlation, 10);
        let layout = Layout::new([("weight".to_owned(), vec![6])]).unwrap();
        let ring = RingPlan::for_weights(WeightBounds::new(Weight(1), N)).unwrap();
        let mut straight = plan(config.clone());
        for round in 0..10 {
            let text = straight.save();
            let resumed = DpPlan::resume(config.clone(), &layout, &ring, round, &text);
            let mut resumed = resumed.unwrap();
            if round > 0 {
                let before = resumed.save();
                let error = resumed.authorise(round).unwrap_err();
                assert_eq!(error, PrivacyError::NoiseBehind { round, drawn: 0 });
                assert_eq!(resumed.save(), before);
            }
            resumed.redraw(noise);
            assert_eq!(
                silence(&mut resumed, round, 6),
                silence(&mut straight, round, 6)
            );
            assert_eq!(resumed.save(), straight.save());
        }
    }
}

/// Few bands over groups that take turns: each participation is a sampled release on a column. One
/// band is the plan of independent noise.
#[test]
fn sampling_within_groups_amplifies_few_bands() {
    let with = |correlation, rate| plan(config(cyclic(5, rate), correlation, 12));
    let few = with(banded(Some(4)), 0.5);
    let Factorization::Banded(matrix) = factorization(&few) else {
        panic!("a banded matrix was asked for");
    };
    let norm = matrix
        .coefficients()
        .iter()
        .map(|c| c * c)
        .sum::<f64>()
        .sqrt();
    for round in 0..12 {
        match few.event(round).unwrap() {
            DpEvent::NoOp => assert!(!round.is_multiple_of(5)),
            DpEvent::PoissonSampled {
                sampling_rate,
                inner,
                ..
            } => {
                assert!(round.is_multiple_of(5));
                assert!((sampling_rate - 0.5).abs() < 1e-15);
                match *inner {
                    DpEvent::Gaussian {
                        noise_multiplier, ..
                    } => {
                        let ratio = noise_multiplier.get() * norm / 2.0;
                        assert!(ratio <= 1.0 && ratio > 1.0 - 1e-12);
                    }
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let spent = few.spent_after(12).unwrap();
    assert!(spent.epsilon.upper.get() < 0.8 * spent.unamplified.get());
    // Without sampling, and with bands that reach the next turn, nothing is amplified.
    for other in [with(banded(Some(4)), 1.0), with(banded(Some(6)), 0.5)] {
        let spent = other.spent_after(12).unwrap();
        assert!(same(spent.epsilon.upper, spent.unamplified));
    }
    let one = with(banded(Some(1)), 0.5).spent_after(12).unwrap();
    let independent = with(NoiseCorrelation::Independent, 0.5)
        .spent_after(12)
        .unwrap();
    let (one, independent) = (one.epsilon.upper.get(), independent.epsilon.upper.get());
    assert!(
        (one / independent - 1.0).abs() < 1e-9,
        "{one} {independent}"
    );
}

/// Long runs are charged in steps, in advance.
#[test]
fn a_long_ledger_stays_small() {
    let long = plan(config(cyclic(50, 1.0), BLT, 5000));
    let entries = long.schedule.ledger(long.noise_multiplier()).unwrap();
    assert!(entries.entries().len() <= 2 * 1024);
    let last = long.spent_after(5000).unwrap().epsilon.upper.get();
    let correlation = long.schedule.correlation().unwrap();
    let sensitivity = correlation
        .factorization
        .sensitivity(&correlation.participation);
    let noise = NoiseMultiplier::new(2.0 / sensitivity).unwrap();
    let mut one = accountant(AccountantKind::Gaussian, long.config().relation);
    one.compose(&DpEvent::gaussian(noise), 1).unwrap();
    let expected = one.epsilon(delta()).unwrap().upper.get();
    assert!((last / expected - 1.0).abs() < 1e-9, "{last} {expected}");
    for round in [1u64, 7, 100, 4999] {
        let exact = correlation
            .factorization
            .squared_sensitivities(&correlation.participation);
        let charged: f64 = (0..round)
            .map(|round| long.event(round).unwrap().gaussian_precision().unwrap())
            .sum();
        assert!(charged * 4.0 >= exact[round as usize - 1] * (1.0 - 1e-12));
    }
}

#[test]
fn what_is_not_bounded_is_refused() {
    let adaptive = Clipping::Adaptive {
        initial_norm: 0.1,
        quantile: 0.5,
        learning_rate: 0.2,
        count_noise: None,
    };
    let cases = [
        (
            config(Sampler::poisson(N, 0.1).unwrap(), BLT, 12),
            "correlated noise with participants that are drawn anew in every round is not possible",
        ),
        (
            config(Sampler::fixed_size(N, 20).unwrap(), tree(None), 12),
            "correlated noise with participants that are drawn anew",
        ),
        (
            DpPlanConfig {
                clipping: adaptive,
                ..config(separated(), BLT, 12)
            },
            "an adaptive clipping norm with correlated noise is not possible",
        ),
        (
            DpPlanConfig {
                relation: NeighboringRelation::AddOrRemoveOne,
                ..config(separated(), BLT, 12)
            },
            "separated sampling cannot be accounted for",
        ),
        (
            DpPlanConfig {
                extrapolation: Some(Extrapolation {
                    population: 1000,
                    cohort: 100,
                }),
                ..config(separated(), BLT, 12)
            },
            "extrapolating this way of sampling",
        ),
        (
            config(separated(), banded(Some(13)), 12),
            "the number of bands is 13; expected from 1 to the number of rounds",
        ),
        (
            config(separated(), banded(Some(0)), 12),
            "the number of bands is 0",
        ),
        (
            config(separated(), NoiseCorrelation::Blt { buffers: 17 }, 12),
            "the number of buffers is 17; expected 1 to 16",
        ),
        (
            config(separated(), tree(Some(0)), 12),
            "the rounds between two restarts is 0",
        ),
    ];
    for (config, expected) in cases {
        let error = plan_of(config, 6).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn statements_say_how_noise_is_correlated() {
    let statement = plan(config(cyclic(4, 1.0), banded(Some(3)), 12))
        .statement(12)
        .unwrap();
    let text = statement.to_string();
    let line = "noise correlated over the rounds by a Toeplitz matrix of 3 bands, for at most 3 \
                participations that are 4 rounds or more apart\n";
    assert!(text.contains(line), "{text}");
    // Without noise there is nothing to correlate, and no guarantee.
    let none = DpPlanConfig {
        noise_multiplier: Some(NoiseMultiplier::new(0.0).unwrap()),
        ..config(cyclic(4, 1.0), BLT, 12)
    };
    let mut none = plan(none);
    assert!(
        silence(&mut none, 0, 6)
            .iter()
            .all(|value| value.abs() <= 0.0)
    );
    assert!(
        none.statement(1)
            .unwrap()
            .to_string()
            .starts_with("NO differential privacy")
    );
    // The square root's bands are not worse than the optimum by construction.
    let root = BandedToeplitz::square_root(3).unwrap();
    let participation = cyclic(4, 1.0).participation(12).unwrap();
    let best = statement
        .correlation
        .unwrap()
        .factorization
        .loss(&participation);
    assert!(best <= Factorization::Banded(root).loss(&participation));
}
