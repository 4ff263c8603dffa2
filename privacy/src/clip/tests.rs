#![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

use std::sync::Arc;

use fl_core::testing::{normals, stream};
use fl_core::{ExampleCount, RingPlan, Weight, WeightBounds, Weighting};
use proptest::prelude::*;

use super::*;
use crate::units::NoiseMultiplier;

fn layout() -> Arc<Layout> {
    let tensors = [("a", vec![3, 4]), ("b", vec![5]), ("c", vec![])];
    let tensors = tensors.map(|(name, shape)| (name.to_owned(), shape));
    Arc::new(Layout::new(tensors).unwrap())
}

fn clippers(norm: f64) -> Vec<Box<dyn Clipper>> {
    vec![
        Box::new(FlatClip::new(norm).unwrap()),
        Box::new(PerLayerClip::uniform(&layout(), norm).unwrap()),
        Box::new(PerLayerClip::new(&layout(), &[norm, 0.1 * norm, 3.0 * norm]).unwrap()),
        Box::new(AutomaticClip::new(norm, AutomaticClip::DEFAULT_STABILITY).unwrap()),
        Box::new(
            AdaptiveClip::new(AdaptiveClipConfig {
                initial_norm: norm,
                ..AdaptiveClipConfig::new(10.0)
            })
            .unwrap()
            .clipper(),
        ),
    ]
}

/// Squares of `f32` are exact in `f64`; their sum is rounded, by far less than the margin.
fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    let squares: f64 = values.into_iter().map(|value| value * value).sum();
    libm::sqrt(squares)
}

fn wide(update: &[f32]) -> Vec<f64> {
    update.iter().map(|&value| f64::from(value)).collect()
}

fn any_update() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -3.0f32..3.0,
        2 => any::<f32>(),
        1 => Just(0.0f32),
        1 => Just(f32::NAN),
        1 => (-150f32..120.0).prop_map(f32::exp2),
    ];
    let finite = prop_oneof![-3.0f32..3.0, (-150f32..120.0).prop_map(f32::exp2)];
    prop_oneof![
        proptest::collection::vec(value, 18),
        proptest::collection::vec(finite, 18),
    ]
}

proptest! {
    /// Brute force over neighbours: whatever a member contributes, the sum of clipped updates
    /// moves by at most the sensitivity that the clipper states, for every relation.
    #[test]
    fn sums_over_neighbours_differ_by_at_most_the_sensitivity(
        common in proptest::collection::vec(any_update(), 0..4),
        one in any_update(),
        other in any_update(),
        exponent in -20f64..20.0,
    ) {
        for clipper in clippers(libm::exp2(exponent)) {
            let sum = |updates: &[&Vec<f32>]| {
                let mut sum = vec![0.0f64; 18];
                for update in updates {
                    let mut update = (*update).clone();
                    clipper.clip(&mut update);
                    sum.iter_mut().zip(wide(&update)).for_each(|(sum, value)| *sum += value);
                }
                sum
            };
            let base: Vec<&Vec<f32>> = common.iter().collect();
            let with_one = sum(&[&base[..], &[&one]].concat());
            let with_other = sum(&[&base[..], &[&other]].concat());
            let without = sum(&base);
            let zero = vec![0.0; 18];
            let with_nothing = sum(&[&base[..], &[&zero]].concat());
            let pairs = [
                (NeighboringRelation::AddOrRemoveOne, &with_one, &without),
                (NeighboringRelation::ReplaceOne, &with_one, &with_other),
                (NeighboringRelation::ReplaceSpecial, &with_other, &with_nothing),
            ];
            for (relation, left, right) in pairs {
                let apart = norm(left.iter().zip(right).map(|(a, b)| a - b));
                let stated = clipper.sensitivity(relation);
                // The sums of this test are rounded, too.
                let rounding = 1e-14 * stated * (common.len() + 1) as f64;
                prop_assert!(apart <= stated + rounding, "{clipper:?} {relation}: {apart} > {stated}");
            }
        }
    }

    /// The same for the integers of the ring, in integer arithmetic: coarse rings, in which
    /// rounding matters, and weights that reach their cap.
    #[test]
    fn integers_of_neighbours_differ_by_at_most_the_sensitivity(
        one in any_update(),
        other in any_update(),
        exponent in -8f64..6.0,
        fraction in 0u32..12,
        examples in 0u64..40,
    ) {
        let weights = WeightBounds::new(Weight(20), 10);
        let ring = RingPlan::new(weights, 64.0, 1.0 / f64::from(1u32 << fraction)).unwrap();
        let mean = MeanPlan::new(DpWeighting::Capped { cap: 20 }, Denominator::Public(100.0)).unwrap();
        let weight = mean.weighting().weight(ExampleCount(examples));
        for clipper in clippers(libm::exp2(exponent)) {
            let encode = |update: &Vec<f32>, weight: Weight| {
                let mut update = update.clone();
                clipper.clip(&mut update);
                let mut integers = vec![0i64; 18];
                if weight.0 > 0 {
                    prop_assert!(ring.encode(&update, weight, &mut integers).is_some());
                }
                Ok(integers)
            };
            let (left, right) = (encode(&one, weight)?, encode(&other, Weight(20))?);
            for (relation, right) in [
                (NeighboringRelation::AddOrRemoveOne, vec![0; 18]),
                (NeighboringRelation::ReplaceSpecial, vec![0; 18]),
                (NeighboringRelation::ReplaceOne, right),
            ] {
                let squares: i64 = left.iter().zip(&right).map(|(a, b)| (a - b) * (a - b)).sum();
                let stated = mean.ring_sensitivity(&*clipper, relation, &ring, 18).unwrap();
                prop_assert!(libm::sqrt(squares as f64) <= stated, "{relation}: {squares} {stated}");
            }
        }
    }

    /// Each clipped update alone, with no allowance.
    #[test]
    fn clipped_updates_are_within_the_norm(update in any_update(), exponent in -40f64..40.0) {
        for clipper in clippers(libm::exp2(exponent)) {
            let mut clipped = update.clone();
            let report = clipper.clip(&mut clipped);
            prop_assert!(norm(wide(&clipped)) <= clipper.max_norm(), "{clipper:?}");
            let finite = update.iter().all(|value| value.is_finite());
            prop_assert_eq!(report.outcome == ClipOutcome::Zeroed, !finite);
            prop_assert_eq!(report.norm.is_finite(), finite);
            if !finite {
                prop_assert!(clipped.iter().all(|&value| value == 0.0));
            }
            if report.outcome == ClipOutcome::Within {
                prop_assert_eq!(&clipped, &update);
            }
            // The direction stays: each layer's values in the old proportions.
            if finite && report.norm < 1e30 {
                for (range, _) in PerLayerClip::uniform(&layout(), 1.0).unwrap().layers {
                    let (before, after) = (wide(&update[range.clone()]), wide(&clipped[range]));
                    let dot: f64 = before.iter().zip(&after).map(|(a, b)| a * b).sum();
                    let lengths = norm(before) * norm(after.clone());
                    if norm(after) > 1e-30 {
                        prop_assert!(dot >= lengths * (1.0 - 1e-6));
                    }
                }
            }
        }
    }
}

/// Worst cases that reach the sensitivity: it is not larger than it must be.
#[test]
fn the_sensitivity_is_reached() {
    let flat = FlatClip::new(2.0).unwrap();
    let mut right = vec![0.0f32; 18];
    right[3] = 1e9;
    let mut left = right.clone();
    left[3] = -1e9;
    flat.clip(&mut right);
    flat.clip(&mut left);
    let apart = norm(wide(&right).iter().zip(wide(&left)).map(|(a, b)| a - b));
    let stated = flat.sensitivity(NeighboringRelation::ReplaceOne);
    assert!((apart / stated - 1.0).abs() < 1e-6, "{apart} {stated}");
    assert!(
        (f64::from(right[3]) / flat.sensitivity(NeighboringRelation::AddOrRemoveOne) - 1.0).abs()
            < 1e-6
    );
    let layers = PerLayerClip::new(&layout(), &[3.0, 4.0, 12.0]).unwrap();
    let mut update = vec![1e9f32; 18];
    assert_eq!(layers.clip(&mut update).outcome, ClipOutcome::Scaled);
    assert!((norm(wide(&update)) / 13.0 - 1.0).abs() < 1e-6);
    assert!((norm(wide(&update[12..17])) / 4.0 - 1.0).abs() < 1e-6);
    // Another length has no layers.
    assert_eq!(layers.clip(&mut [1.0; 17]).outcome, ClipOutcome::Zeroed);
}

#[test]
fn automatic_clipping_is_its_formula() {
    let clip = AutomaticClip::new(0.5, 0.25).unwrap();
    let mut update = vec![3.0f32, 4.0];
    clip.clip(&mut update);
    let factor = 0.5 / 5.25;
    assert!((f64::from(update[0]) / (3.0 * factor) - 1.0).abs() < 1e-6);
    let mut zero = vec![0.0f32; 2];
    clip.clip(&mut zero);
    assert_eq!(zero, [0.0, 0.0]);
}

/// The factors for ghost clipping are those of clipping.
#[test]
fn factors_are_those_of_clipping() {
    let flat = FlatClip::new(1.5).unwrap();
    let automatic = AutomaticClip::new(1.5, 0.01).unwrap();
    for scale in [0.01, 0.3, 1.0, 20.0] {
        let update = normals(&mut stream(1, 0), 50, scale);
        let length = l2_norm_above(&update);
        let share = length / norm(wide(&update));
        assert!((1.0..=1.0 + 2.5e-7).contains(&share), "{share}");
        for (clipper, factor) in [
            (&flat as &dyn Clipper, flat.factor(length)),
            (&automatic, automatic.factor(length)),
        ] {
            let mut clipped = update.clone();
            clipper.clip(&mut clipped);
            for (clipped, value) in clipped.iter().zip(&update) {
                assert_eq!(*clipped, *value * factor as f32);
            }
        }
    }
    assert_eq!(flat.factor(f64::NAN), 0.0);
    assert_eq!(flat.factor(f64::INFINITY), 0.0);
}

/// Algorithm 1 by hand for one round without noise to speak of, then many rounds: the norm finds
/// the quantile of lognormal norms.
#[test]
fn the_norm_finds_the_quantile() {
    let config = AdaptiveClipConfig {
        count_noise: 1e-12,
        ..AdaptiveClipConfig::new(8.0)
    };
    let mut clip = AdaptiveClip::new(config).unwrap();
    // Three of six within, of 8 expected: b = (3 - 3) / 2 / 8 + 1/2.
    let bits = [1, 1, 1, -1, -1, -1].iter().sum();
    clip.step(&mut stream(1, 0), bits, NeighboringRelation::AddOrRemoveOne);
    assert!((clip.norm() - 0.1).abs() < 1e-9);
    clip.step(&mut stream(1, 0), 4, NeighboringRelation::AddOrRemoveOne);
    assert!((clip.norm() - 0.1 * libm::exp(-0.2 * 0.25)).abs() < 1e-9);

    for (quantile, normal_quantile) in [(0.5, 0.0), (0.9, 1.281_551_6), (0.1, -1.281_551_6)] {
        let config = AdaptiveClipConfig {
            quantile,
            ..AdaptiveClipConfig::new(400.0)
        };
        let mut clip = AdaptiveClip::new(config).unwrap();
        let mut norms = stream(2, 0);
        let mut noise = stream(3, 0);
        let mut mean = 0.0;
        for round in 0..300 {
            let bits = (0..400)
                .map(|_| {
                    let mut update = [libm::exp(norms.normal()) as f32];
                    AdaptiveClip::bit(&clip.clipper().clip(&mut update))
                })
                .sum();
            clip.step(&mut noise, bits, NeighboringRelation::AddOrRemoveOne);
            if round >= 100 {
                mean += libm::log(clip.norm()) / 200.0;
            }
        }
        assert!((mean - normal_quantile).abs() < 0.1, "{quantile}: {mean}");
    }
}

/// Bits of neighbours differ by at most what the noise is scaled to, and the two multipliers
/// compose to the total: `z^-2 = z_D^-2 + z_b^-2`.
#[test]
fn the_share_of_the_bits_is_accounted() {
    let within = Clipped {
        norm: 0.1,
        outcome: ClipOutcome::Within,
    };
    let outside = Clipped {
        norm: 9.0,
        outcome: ClipOutcome::Scaled,
    };
    let broken = Clipped {
        norm: f64::NAN,
        outcome: ClipOutcome::Zeroed,
    };
    let bits = [&within, &outside, &broken].map(|clipped| AdaptiveClip::bit(clipped) as f64 / 2.0);
    for relation in NeighboringRelation::ALL {
        let stated = 0.5 * changes(relation);
        for one in bits {
            let others = match relation {
                NeighboringRelation::ReplaceOne => bits.to_vec(),
                _ => vec![0.0],
            };
            for other in others {
                assert!((one - other).abs() <= stated, "{relation}");
            }
        }
    }
    let clip = AdaptiveClip::new(AdaptiveClipConfig::new(100.0)).unwrap();
    for total in [0.0, 0.3, 1.0, 5.0, 9.999] {
        let updates = clip
            .update_noise(NoiseMultiplier::new(total).unwrap())
            .unwrap();
        if total == 0.0 {
            assert_eq!(updates.get(), 0.0);
            continue;
        }
        let joint = 1.0 / libm::sqrt(updates.get().powi(-2) + 10.0f64.powi(-2));
        assert!(joint >= total * (1.0 - 1e-13), "{joint} {total}");
        assert!(joint <= total * (1.0 + 1e-9), "{joint} {total}");
    }
    let error = clip
        .update_noise(NoiseMultiplier::new(10.0).unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the noise multiplier is 10; expected less than twice the noise on the count of clipped \
         updates; raise `count_noise`"
    );
    // The noise really has the stated size.
    let mut squares = 0.0;
    for seed in 0..4000 {
        let mut moved = clip;
        moved.step(&mut stream(seed, 0), 0, NeighboringRelation::ReplaceOne);
        let noise = libm::log(moved.norm() / 0.1) / -0.2 * 100.0;
        squares += noise * noise / 4000.0;
    }
    // sigma_b = 5, doubled for replacing; the variance of the mean of squares is 2 / n.
    assert!(
        (squares / 100.0 - 1.0).abs() < 5.0 * libm::sqrt(2.0 / 4000.0),
        "{squares}"
    );
}

#[test]
fn adaptive_state_survives_and_bad_values_do_not() {
    let mut clip = AdaptiveClip::new(AdaptiveClipConfig::new(20.0)).unwrap();
    clip.step(&mut stream(5, 0), -3, NeighboringRelation::AddOrRemoveOne);
    let text = serde_json::to_string(&clip).unwrap();
    assert_eq!(serde_json::from_str::<AdaptiveClip>(&text).unwrap(), clip);
    let good = AdaptiveClipConfig::new(20.0);
    let bad = [
        AdaptiveClipConfig {
            initial_norm: 0.0,
            ..good
        },
        AdaptiveClipConfig {
            quantile: 1.0,
            ..good
        },
        AdaptiveClipConfig {
            quantile: f64::NAN,
            ..good
        },
        AdaptiveClipConfig {
            learning_rate: 0.0,
            ..good
        },
        AdaptiveClipConfig {
            expected_clients: 0.0,
            ..good
        },
        AdaptiveClipConfig {
            count_noise: 0.0,
            ..good
        },
    ];
    for config in bad {
        assert!(AdaptiveClip::new(config).is_err(), "{config:?}");
        let text = serde_json::to_string(&config).unwrap();
        let text = format!("{{\"config\":{text},\"norm\":1.0}}");
        assert!(
            serde_json::from_str::<AdaptiveClip>(&text).is_err(),
            "{text}"
        );
    }
    // Far out, the norm stays one that can be computed with.
    let config = AdaptiveClipConfig {
        learning_rate: 10.0,
        ..AdaptiveClipConfig::new(1.0)
    };
    let mut clip = AdaptiveClip::new(config).unwrap();
    for _ in 0..100 {
        clip.step(&mut stream(6, 0), 1000, NeighboringRelation::AddOrRemoveOne);
    }
    assert_eq!(clip.norm(), 1e-20);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e21] {
        assert!(FlatClip::new(bad).is_err());
        assert!(AutomaticClip::new(bad, 0.1).is_err());
        assert!(AutomaticClip::new(1.0, bad).is_err());
        assert!(PerLayerClip::uniform(&layout(), bad).is_err());
    }
    assert!(PerLayerClip::new(&layout(), &[1.0, 2.0]).is_err());
}

#[test]
fn means_need_public_weights_and_denominators() {
    let error = DpWeighting::try_from(Weighting::Examples)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "weighting clients by their number of examples is not possible under differential \
         privacy, because one client can count for any number of others; weigh uniformly or cap \
         the weights"
    );
    let error = MeanPlan::new(DpWeighting::Uniform, Denominator::Realised).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("divide by the expected sum of weights"),
        "{error}"
    );
    assert_eq!(
        DpWeighting::try_from(Weighting::Uniform),
        Ok(DpWeighting::Uniform)
    );
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(MeanPlan::new(DpWeighting::Uniform, Denominator::Public(bad)).is_err());
    }
    assert!(MeanPlan::new(DpWeighting::Capped { cap: 0 }, Denominator::Public(1.0)).is_err());
    let capped = DpWeighting::Capped { cap: 50 };
    let plan = MeanPlan::new(capped, Denominator::Public(2000.0)).unwrap();
    let clip = FlatClip::new(0.5).unwrap();
    for (examples, weight) in [(0, 0), (7, 7), (50, 50), (1 << 40, 50)] {
        assert_eq!(capped.weight(ExampleCount(examples)).0, weight);
        // Whatever the examples are, the member moves the sum by at most the sensitivity.
        assert!(
            weight as f64 * 0.5 <= plan.sum_sensitivity(&clip, NeighboringRelation::AddOrRemoveOne)
        );
    }
    assert_eq!(
        plan.sum_sensitivity(&clip, NeighboringRelation::ReplaceOne),
        50.0
    );
    let mean = plan.mean_sensitivity(&clip, NeighboringRelation::ReplaceOne);
    assert!((mean - 0.025).abs() < 1e-15);
}
