use fl_core::sum::{Aggregator as _, ExactSum};
use fl_core::{ClientId, Purpose, RoundId, Seed, Stream, Weight, WeightBounds};
use proptest::prelude::*;

use super::*;
use crate::clip::ClipOutcome;
use crate::mechanism::gaussian;
use crate::relation::NeighboringRelation;
use crate::units::Delta;

const N: u64 = 200;

fn layout(values: usize) -> Layout {
    Layout::new([
        ("weight".to_owned(), vec![values - 1]),
        ("bias".to_owned(), vec![1]),
    ])
    .unwrap()
}

fn ring() -> RingPlan {
    RingPlan::for_weights(WeightBounds::new(Weight(1), N)).unwrap()
}

fn delta(value: f64) -> Delta {
    Delta::new(value).unwrap()
}

fn noise(value: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(value).unwrap()
}

fn poisson() -> DpPlanConfig {
    DpPlanConfig {
        noise_multiplier: Some(noise(0.8)),
        ..DpPlanConfig::new(Sampler::poisson(N, 0.1).unwrap(), 0.5, delta(1e-4), 20)
    }
}

fn fixed() -> DpPlanConfig {
    DpPlanConfig {
        noise_multiplier: Some(noise(0.8)),
        ..DpPlanConfig::new(Sampler::fixed_size(N, 20).unwrap(), 0.5, delta(1e-4), 20)
    }
}

fn plan(config: DpPlanConfig) -> DpPlan {
    DpPlan::new(config, &layout(6), &ring()).unwrap()
}

fn stream(purpose: Purpose, round: u64) -> Stream {
    Stream::at(purpose, Seed(3), RoundId(round), ClientId(0))
}

fn round(plan: &mut DpPlan, number: u64, clips: ClipCount, sum: &mut [f64]) {
    let permit = plan.authorise(number).unwrap();
    let mut central = stream(Purpose::CentralNoise, number);
    let mut bits = stream(Purpose::ClipNoise, number);
    plan.release(permit, &mut central, &mut bits, clips, sum);
}

/// Through the clipper and the ring, decoded; as the simulator and a server do it.
fn sum_of(plan: &DpPlan, updates: &[Vec<f32>]) -> Vec<f64> {
    let mut sum = ExactSum::new(ring(), 6);
    for update in updates {
        let mut update = update.clone();
        plan.clipper().clip(&mut update);
        sum.absorb(&update, Weight(1)).unwrap();
    }
    let decode = |&value: &i64| ring().decode_mean(value, Weight(1));
    sum.values().iter().map(decode).collect()
}

#[test]
fn a_round_is_clip_sum_noise_and_public_denominator() {
    let updates: Vec<Vec<f32>> = (0..13)
        .map(|client| {
            (0..6)
                .map(|index| ((client * 7 + index * 3) % 11) as f32 * 0.05 - 0.2)
                .collect()
        })
        .collect();
    for (config, sensitivity) in [(poisson(), 0.5), (fixed(), 1.0)] {
        let mut plan = plan(config);
        let mut mean = sum_of(&plan, &updates);
        round(&mut plan, 0, ClipCount::default(), &mut mean);
        // The naive twin: no ring, no crate but for the same normal numbers.
        let mut normals = [0.0f32; 6];
        gaussian::fill(&mut stream(Purpose::CentralNoise, 0), 1.0, &mut normals);
        for (index, found) in mean.iter().enumerate() {
            let clipped = updates.iter().map(|update| {
                let squares: f64 = update.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
                f64::from(update[index]) * (0.5 / squares.sqrt()).min(1.0)
            });
            let noise = f64::from(normals[index]) * 0.8 * sensitivity;
            // Twenty are expected, whoever came.
            let expected = (clipped.sum::<f64>() + noise) / 20.0;
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}

#[test]
fn nobody_and_nonsense_change_nothing_but_the_sum() {
    let mut empty = plan(poisson());
    let mut nonsense = plan(poisson());
    let mut none = vec![0.0; 6];
    let mut broken = sum_of(&nonsense, &[vec![f32::NAN; 6], vec![f32::INFINITY; 6]]);
    assert_eq!(broken, none);
    round(&mut empty, 0, ClipCount::default(), &mut none);
    round(&mut nonsense, 0, ClipCount::default(), &mut broken);
    assert_eq!(none, broken);
    assert!(none.iter().all(|value| value.is_finite() && *value != 0.0));
    assert_eq!(empty.ledger(), nonsense.ledger());
    assert_eq!(empty.rounds_done(), 1);
}

proptest! {
    /// Neighbouring cohorts' decoded sums differ by at most the declared sensitivity, ring and all.
    #[test]
    fn sums_of_neighbours_are_within_the_sensitivity(
        common in prop::collection::vec(prop::collection::vec(-3.0f32..3.0, 6), 0..4),
        one in prop::collection::vec(-1e3f32..1e3, 6),
        other in prop::collection::vec(-1e3f32..1e3, 6),
        kind in 0..3,
    ) {
        let clipping = match kind {
            0 => Clipping::Flat { max_norm: 0.5 },
            1 => Clipping::PerLayer { max_norm: 0.5 },
            _ => Clipping::Automatic { max_norm: 0.5, stability: 0.01 },
        };
        let adds = plan(DpPlanConfig { clipping, ..poisson() });
        let replaces = plan(DpPlanConfig { clipping, ..fixed() });
        let with = |plan: &DpPlan, more: &[f32]| {
            let mut updates = common.clone();
            updates.push(more.to_vec());
            sum_of(plan, &updates)
        };
        let distance = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
        };
        let added = distance(&with(&adds, &one), &sum_of(&adds, &common));
        prop_assert!(added <= adds.sensitivity().unwrap());
        let replaced = distance(&with(&replaces, &one), &with(&replaces, &other));
        prop_assert!(replaced <= replaces.sensitivity().unwrap());
        prop_assert!(adds.sensitivity().unwrap() < 0.5 * (1.0 + 1e-6));
    }
}

#[test]
fn the_budget_refuses_before_noise_and_says_why() {
    for base in [poisson(), fixed()] {
        let epsilon = Epsilon::new(
            plan(base.clone())
                .spent_after(7)
                .unwrap()
                .epsilon
                .upper
                .get(),
        );
        let mut plan = plan(DpPlanConfig {
            epsilon: Some(epsilon.unwrap()),
            ..base
        });
        assert_eq!(plan.last_round(), 7);
        let refusal = plan.refusal().unwrap();
        for number in 0..7 {
            round(&mut plan, number, ClipCount::default(), &mut [0.0; 6]);
            assert_eq!(plan.last_round(), 7);
        }
        let before = plan.save();
        let error = plan.authorise(7).unwrap_err();
        assert!(
            matches!(error, PrivacyError::OverBudget { position: 8, .. }),
            "{error}"
        );
        assert_eq!(error, refusal);
        assert_eq!(plan.save(), before);
        let spent = plan.spent().unwrap();
        assert_eq!(spent.epsilon.upper, plan.config().epsilon.unwrap());
        assert!(spent.epsilon.lower <= spent.epsilon.upper);
        assert!(spent.unamplified > spent.epsilon.upper);
    }
}

#[test]
fn rounds_are_authorised_once_and_in_order() {
    let mut plan = plan(poisson());
    assert_eq!(plan.refusal(), None);
    for (given, next) in [(1, 0), (0, 0), (0, 1), (2, 1), (1, 1)] {
        match plan.authorise(given) {
            Ok(permit) => {
                assert_eq!((permit.round(), given), (next, next));
                assert!((permit.std() / 0.4 - 1.0).abs() < 1e-6);
            }
            Err(error) => assert_eq!(error, PrivacyError::WrongRound { given, next }),
        }
    }
}

/// The known values of the calibrated noise.
#[test]
fn noise_is_calibrated_for_the_declared_rounds() {
    for (rate, rounds, expected) in [(0.001, 1500, 0.61615), (0.005, 2000, 0.8639)] {
        let sampler = Sampler::poisson(100_000, rate).unwrap();
        let config = DpPlanConfig {
            epsilon: Some(Epsilon::new(2.0).unwrap()),
            ..DpPlanConfig::new(sampler, 1.0, delta(1e-6), rounds)
        };
        let plan = plan(config.clone());
        let found = plan.noise_multiplier().get();
        assert!((found - expected).abs() < 6e-5, "{found} {expected}");
        assert_eq!(plan.last_round(), rounds);
        assert_eq!(plan.refusal(), None);
        // A thousandth less would not do.
        let less = DpPlanConfig {
            noise_multiplier: Some(noise(found * 0.999)),
            ..config
        };
        let less = DpPlan::new(less, &layout(6), &ring()).unwrap();
        assert!(less.last_round() < rounds);
    }
}

#[test]
fn a_saved_plan_goes_on_and_no_other_takes_it_up() {
    let adaptive = DpPlanConfig {
        clipping: Clipping::Adaptive {
            initial_norm: 0.1,
            quantile: 0.5,
            learning_rate: 0.2,
            count_noise: None,
        },
        ..poisson()
    };
    for config in [poisson(), fixed(), adaptive.clone()] {
        let mut straight = plan(config.clone());
        let mut stopped = plan(config.clone());
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for number in 0..6 {
            a = vec![0.25; 6];
            round(&mut straight, number, ClipCount::default(), &mut a);
            let text = stopped.save();
            stopped = DpPlan::resume(config.clone(), &layout(6), &ring(), number, &text).unwrap();
            b = vec![0.25; 6];
            round(&mut stopped, number, ClipCount::default(), &mut b);
        }
        assert_eq!(a, b);
        assert_eq!(straight.save(), stopped.save());
        assert_eq!(straight.ledger().digest(), stopped.ledger().digest());
        let text = stopped.save();
        let take_up = |config: DpPlanConfig, round, text: &str| {
            DpPlan::resume(config, &layout(6), &ring(), round, text).unwrap_err()
        };
        let mut other = config.clone();
        other.rounds += 1;
        for (config, round) in [(config.clone(), 5), (config.clone(), 7), (other, 6)] {
            let error = take_up(config, round, &text);
            assert!(matches!(error, PrivacyError::OtherPlan { .. }), "{error}");
        }
        for text in ["", "{}", &text.replace("\"ledger\"", "\"legder\"")] {
            let error = take_up(config.clone(), 6, text);
            assert!(matches!(error, PrivacyError::Malformed { .. }), "{error}");
        }
    }
}

/// The norm moves towards the quantile; updates carry what the bits leave of the noise.
#[test]
fn an_adaptive_norm_shares_the_noise_with_its_bits() {
    let config = DpPlanConfig {
        clipping: Clipping::Adaptive {
            initial_norm: 0.1,
            quantile: 0.5,
            learning_rate: 0.2,
            count_noise: Some(1.0),
        },
        ..poisson()
    };
    let mut plan = plan(config);
    let expected = (0.8f64.powi(-2) - 0.25).powf(-0.5) * 0.1;
    for number in 0..20 {
        let mut clips = ClipCount::default();
        for _ in 0..20 {
            clips.count(&Clipped {
                norm: 3.0,
                outcome: ClipOutcome::Scaled,
            });
        }
        let norm = plan.clipper().max_norm();
        let permit = plan.authorise(number).unwrap();
        assert!((permit.std() / (expected * norm / 0.1) - 1.0).abs() < 1e-6);
        let (mut central, mut bits) = (
            stream(Purpose::CentralNoise, number),
            stream(Purpose::ClipNoise, number),
        );
        plan.release(permit, &mut central, &mut bits, clips, &mut [0.0; 6]);
    }
    // Nobody was within: e^(0.2 * 0.5) a round, up to noise.
    let grown = (plan.clipper().max_norm() / 0.1).ln();
    assert!((grown - 2.0).abs() < 0.3, "{grown}");
    let event = &plan.ledger().entries()[0].event;
    let total = DpEvent::poisson_sampled(0.1, DpEvent::gaussian(noise(0.8))).unwrap();
    assert_eq!((event, plan.ledger().entries().len()), (&total, 1));
}

#[test]
fn an_extrapolated_population_scales_the_noise_and_is_named() {
    let extrapolation = Some(Extrapolation {
        population: 1_000_000,
        cohort: 10_000,
    });
    let small = plan(poisson());
    let mut large = plan(DpPlanConfig {
        extrapolation,
        delta: delta(1e-7),
        ..poisson()
    });
    // Noise of 10,000 on the mean of 20.
    let (mut a, mut b) = (plan(poisson()), vec![0.0; 6]);
    round(&mut large, 0, ClipCount::default(), &mut b);
    let mut c = vec![0.0; 6];
    round(&mut a, 0, ClipCount::default(), &mut c);
    for (b, c) in b.iter().zip(&c) {
        assert!((b * 500.0 / c - 1.0).abs() < 1e-6);
    }
    let statement = large.statement(20).unwrap();
    assert!(statement.is_hypothetical());
    assert!(statement.to_string().contains("HYPOTHETICAL"));
    assert!(
        !small
            .statement(20)
            .unwrap()
            .to_string()
            .contains("HYPOTHETICAL")
    );
    for (population, cohort) in [(1_000_000, 19), (100, 50), (1000, 1001)] {
        let config = DpPlanConfig {
            extrapolation: Some(Extrapolation { population, cohort }),
            ..poisson()
        };
        assert!(DpPlan::new(config, &layout(6), &ring()).is_err());
    }
}

#[test]
fn what_has_no_guarantee_is_refused() {
    let capped = DpWeighting::Capped { cap: 100 };
    let cases: Vec<(DpPlanConfig, &str)> = vec![
        (
            DpPlanConfig {
                delta: delta(0.005),
                ..poisson()
            },
            "delta is 0.005, which is not below one over the 200 protected clients",
        ),
        (
            DpPlanConfig {
                unit: PrivacyUnit::Example,
                ..poisson()
            },
            "protecting single examples",
        ),
        (
            DpPlanConfig {
                noise_multiplier: None,
                ..poisson()
            },
            "neither epsilon nor a noise multiplier",
        ),
        (
            DpPlanConfig {
                relation: NeighboringRelation::AddOrRemoveOne,
                ..fixed()
            },
            "fixed-size sampling cannot be accounted for",
        ),
        (
            DpPlanConfig {
                weighting: capped,
                mean_weight: 50.0,
                ..poisson()
            },
            "the largest weight of a client is 100",
        ),
        (
            DpPlanConfig {
                mean_weight: 2.0,
                ..poisson()
            },
            "the mean weight of uniformly weighted clients is 2",
        ),
        (
            DpPlanConfig {
                rounds: 0,
                ..poisson()
            },
            "the number of declared rounds is 0",
        ),
        (
            DpPlanConfig {
                clipping: Clipping::Flat { max_norm: f64::NAN },
                ..poisson()
            },
            "a clipping norm is NaN",
        ),
        (
            DpPlanConfig {
                epsilon: Some(Epsilon::new(0.01).unwrap()),
                ..poisson()
            },
            "event 1 (`poisson-sampled of gaussian`) would overspend",
        ),
        (
            DpPlanConfig {
                epsilon: Some(Epsilon::ZERO),
                noise_multiplier: None,
                delta: Delta::ZERO,
                ..poisson()
            },
            "epsilon",
        ),
        (
            DpPlanConfig {
                clipping: Clipping::Adaptive {
                    initial_norm: 0.1,
                    quantile: 0.5,
                    learning_rate: 0.2,
                    count_noise: Some(0.4),
                },
                ..poisson()
            },
            "the noise multiplier is 0.8; expected less than twice the noise on the count",
        ),
    ];
    for (config, expected) in cases {
        let error = DpPlan::new(config, &layout(6), &ring()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn without_noise_there_is_no_privacy() {
    let mut plan = plan(DpPlanConfig {
        noise_multiplier: Some(noise(0.0)),
        ..poisson()
    });
    assert_eq!(plan.spent().unwrap().epsilon.upper, Epsilon::ZERO);
    let mut sum = [2.0; 6];
    round(&mut plan, 0, ClipCount::default(), &mut sum);
    assert!(sum.iter().all(|mean| (mean - 0.1).abs() < 1e-15));
    assert_eq!(plan.spent().unwrap().epsilon.upper, Epsilon::INFINITY);
    let statement = plan.statement(1).unwrap().to_string();
    assert!(
        statement.starts_with("NO differential privacy"),
        "{statement}"
    );
}

/// Capped weights: a sum of larger weights has a larger sensitivity and a larger denominator.
#[test]
fn capped_weights_count_in_sensitivity_and_denominator() {
    let ring = RingPlan::for_weights(WeightBounds::new(Weight(100), N)).unwrap();
    let config = DpPlanConfig {
        weighting: DpWeighting::Capped { cap: 100 },
        mean_weight: 50.0,
        ..poisson()
    };
    let plan = DpPlan::new(config, &layout(6), &ring).unwrap();
    assert!((plan.sensitivity().unwrap() / 50.0 - 1.0).abs() < 1e-6);
    assert!((plan.mean().denominator() - 1000.0).abs() < 1e-9);
}

/// The noise that is asked about is the plan's own, times the scale.
#[test]
fn rescaled_noise_is_counted() {
    let ring = RingPlan::for_weights(WeightBounds::new(Weight(1), 1000)).unwrap();
    let layout = Layout::new([("weight".to_owned(), vec![4])]).unwrap();
    let with = |noise: f64, clipping: Clipping| {
        let config = DpPlanConfig {
            noise_multiplier: Some(NoiseMultiplier::new(noise).unwrap()),
            clipping,
            ..DpPlanConfig::new(
                Sampler::poisson(1000, 0.05).unwrap(),
                1.0,
                Delta::new(1e-5).unwrap(),
                30,
            )
        };
        DpPlan::new(config, &layout, &ring).unwrap()
    };
    let flat = Clipping::Flat { max_norm: 1.0 };
    let delta = Delta::new(1e-5).unwrap();
    let (plan, half) = (with(1.0, flat), with(0.5, flat));
    let found = plan.rescaled(0.5, 20).unwrap().epsilon(delta).unwrap();
    assert_eq!(found, half.spent_after(20).unwrap().epsilon);
    assert!(plan.rescaled(-1.0, 20).is_err());
    assert_eq!(plan.count_noise_std(), None);
    let adaptive = Clipping::Adaptive {
        initial_norm: 1.0,
        quantile: 0.5,
        learning_rate: 0.2,
        count_noise: Some(3.0),
    };
    assert_eq!(with(1.0, adaptive).count_noise_std(), Some(3.0));
    // By itself a twentieth of the cohort, but for few clients twice the noise multiplier: with less,
    // there is no noise for the updates that makes up for the bits.
    let by_itself = Clipping::Adaptive {
        initial_norm: 1.0,
        quantile: 0.5,
        learning_rate: 0.2,
        count_noise: None,
    };
    for noise in [0.01, 1.0, 5.0] {
        let plan = with(noise, by_itself);
        let cohort = plan.config().sampler.expected_size();
        let expected = (cohort / 20.0).max(2.0 * noise);
        assert_eq!(plan.count_noise_std(), Some(expected), "{noise}");
        let more = plan.noise_std().unwrap() / noise;
        assert!((1.0..1.033).contains(&more), "{noise}: {more}");
    }
    let mut count = ClipCount::default();
    for norm in [0.5, 2.0, 3.0] {
        count.count(&FlatClip::new(1.0).unwrap().clip(&mut [norm]));
    }
    assert_eq!(count.half_bits(), -1);
}
