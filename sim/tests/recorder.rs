//! What mechanisms are given on neighbouring populations, round by round: the assumptions of the
//! proofs, checked on whole runs, and found broken where they are broken on purpose.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{FEATURES, TinyEngine, config, population, uniform};
use fl_core::ClientId;
use fl_core::select::{CyclicConfig, PoissonConfig, SelectorConfig, SeparatedConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig, Weighting};
use fl_privacy::plan::Clipping;
use fl_privacy::{Delta, Epsilon, NeighboringRelation, NoiseMultiplier};
use fl_sim::audit::recorder::{Mechanism, Recording, Violation, record};
use fl_sim::audit::{Act, Fault, Update};
use fl_sim::{CentralPrivacy, FleetConfig, Privacy, SimulationConfig};
use proptest::prelude::*;

fn private(
    selection: SelectorConfig,
    clipping: Clipping,
    relation: NeighboringRelation,
) -> SimulationConfig {
    SimulationConfig {
        rounds: 6,
        selection,
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            weighting: Weighting::Uniform,
            ..FedAvgConfig::default()
        }),
        privacy: Some(Privacy::Central(CentralPrivacy {
            clipping,
            noise_multiplier: Some(NoiseMultiplier::new(0.6).unwrap()),
            epsilon: None,
            relation: Some(relation),
            ..CentralPrivacy::new(1.0, Epsilon::ZERO, Delta::new(1e-3).unwrap())
        })),
        fleet: FleetConfig::default(),
        ..config()
    }
}

fn poisson(rate: f64) -> SelectorConfig {
    SelectorConfig::Poisson(PoissonConfig { rate })
}

fn clippings() -> [Clipping; 4] {
    [
        Clipping::Flat { max_norm: 0.3 },
        Clipping::PerLayer { max_norm: 0.4 },
        Clipping::Automatic {
            max_norm: 0.5,
            stability: 0.01,
        },
        Clipping::Adaptive {
            initial_norm: 0.2,
            quantile: 0.5,
            learning_rate: 0.3,
            count_noise: None,
        },
    ]
}

/// Who is changed: it has examples.
const CHANGED: ClientId = ClientId(17);

fn pair(
    config: &SimulationConfig,
    (one, other): (Act, Act),
    fault: Option<Fault>,
) -> (Recording, Recording) {
    let (population, engine) = (population(), TinyEngine::new());
    let play = |act: Act, former: Option<Recording>| {
        let acts = BTreeMap::from([(CHANGED, act)]);
        record(config, &population, &engine, acts, fault, former).unwrap()
    };
    let first = play(one, None);
    let second = play(other, Some(first.clone()));
    (first, second)
}

fn send(update: Update) -> Act {
    Act::Send(update)
}

/// Everything that a client may do, sensible or not.
fn acts() -> Vec<Act> {
    vec![
        Act::Train,
        send(Update::Constant(f32::NAN)),
        send(Update::Constant(f32::INFINITY)),
        send(Update::Constant(3e38)),
        send(Update::Constant(-3e38)),
        send(Update::Constant(f32::MIN_POSITIVE)),
        send(Update::Spikes(Vec::new())),
        send(Update::Spikes(vec![
            (0, -1e20),
            (FEATURES, f32::NEG_INFINITY),
        ])),
        send(Update::Spikes(vec![(FEATURES, 1e-3)])),
    ]
}

fn selections() -> [(SelectorConfig, Vec<NeighboringRelation>); 5] {
    use NeighboringRelation::{AddOrRemoveOne, ReplaceOne, ReplaceSpecial};
    [
        (
            poisson(0.5),
            vec![AddOrRemoveOne, ReplaceOne, ReplaceSpecial],
        ),
        (poisson(1.0), vec![AddOrRemoveOne]),
        (uniform(50, 1.0), vec![ReplaceOne]),
        (
            SelectorConfig::Cyclic(CyclicConfig {
                period: 2,
                rate: 1.0,
            }),
            vec![AddOrRemoveOne],
        ),
        (
            SelectorConfig::Separated(SeparatedConfig {
                cohort: 28,
                separation: 2,
            }),
            vec![ReplaceSpecial, ReplaceOne],
        ),
    ]
}

/// Every clipper, way of sampling and relation, with every neighbour, on one and on three threads.
#[test]
fn one_client_changes_no_more_than_was_declared() {
    for (selection, relations) in selections() {
        for relation in relations {
            for (index, clipping) in clippings().into_iter().enumerate() {
                let config = SimulationConfig {
                    threads: if index % 2 == 0 { 1 } else { 3 },
                    ..private(selection.clone(), clipping, relation)
                };
                let mut closest = 0.0_f64;
                for act in acts() {
                    let others = match relation {
                        NeighboringRelation::ReplaceOne => acts(),
                        _ => vec![Act::Absent],
                    };
                    for other in others {
                        let (one, two) = pair(&config, (act.clone(), other.clone()), None);
                        let compared = one.compare(&two);
                        assert_eq!(
                            compared,
                            Ok(()),
                            "{selection:?} {relation} {clipping:?} {act:?} {other:?}"
                        );
                        assert_eq!(two.compare(&one), Ok(()));
                        closest = closest.max(one.closeness(&two));
                    }
                }
                // The neighbours are as far apart as can be, or the test has not tried.
                assert!(
                    closest > 0.99 && closest <= 1.0,
                    "{selection:?} {relation} {clipping:?}: {closest}"
                );
            }
        }
    }
}

/// Recordings are the run's own: of a run alone and played back they are the same.
#[test]
fn a_recording_of_the_same_is_the_same() {
    for clipping in clippings() {
        let relation = NeighboringRelation::AddOrRemoveOne;
        let config = private(poisson(0.5), clipping, relation);
        let (one, two) = pair(&config, (Act::Train, Act::Train), None);
        assert!(one.calls().eq(two.calls()));
        let threads = SimulationConfig {
            threads: 3,
            ..config.clone()
        };
        let (three, _) = pair(&threads, (Act::Train, Act::Train), None);
        assert!(one.calls().eq(three.calls()));
        assert!(one.closeness(&two) <= 0.0);
        let counts = one
            .calls()
            .filter(|call| call.mechanism == Mechanism::Count);
        let adaptive = matches!(clipping, Clipping::Adaptive { .. });
        assert_eq!(counts.count(), if adaptive { 6 } else { 0 });
    }
}

/// Mutation tests: what is broken is found, and by its name.
#[test]
fn faults_are_found() {
    let relation = NeighboringRelation::AddOrRemoveOne;
    let huge = || send(Update::Constant(1e30));
    for clipping in clippings() {
        let config = private(poisson(1.0), clipping, relation);
        let acts = (huge(), Act::Absent);
        let (one, two) = pair(&config, acts.clone(), Some(Fault::ClipScale(1.5)));
        let found = one.compare(&two).unwrap_err();
        let Violation::Sensitivity {
            mechanism: Mechanism::Sum,
            distance,
            sensitivity,
            ..
        } = found
        else {
            panic!("{clipping:?}: {found}");
        };
        assert!((distance / sensitivity - 1.5).abs() < 0.01, "{found}");
        let (one, two) = pair(&config, acts, Some(Fault::RealisedDenominator));
        let found = one.compare(&two).unwrap_err();
        let Violation::Declared {
            what: "the denominator",
            here,
            there,
            ..
        } = found
        else {
            panic!("{clipping:?}: {found}");
        };
        assert!((here - there - 1.0).abs() < 1e-12, "{found}");
    }
    // Only the one client is ever selected: without it nothing would be released.
    let alone = private(poisson(0.01), Clipping::Flat { max_norm: 0.3 }, relation);
    let (one, two) = pair(&alone, (huge(), Act::Absent), None);
    assert_eq!(one.compare(&two), Ok(()));
    let mut found = None;
    for seed in 0..200 {
        let config = SimulationConfig {
            seed: fl_core::Seed(seed),
            ..alone.clone()
        };
        let fault = Some(Fault::QuietWhenEmpty);
        let (one, two) = pair(&config, (huge(), Act::Absent), fault);
        if let Err(violation) = one.compare(&two) {
            found = Some(violation);
            break;
        }
    }
    let Some(Violation::ControlFlow { what, .. }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(what, "the number of mechanism calls");
}

/// A run without privacy calls no mechanism.
#[test]
fn there_is_nothing_to_record_without_privacy() {
    let error = record(
        &config(),
        &population(),
        &TinyEngine::new(),
        BTreeMap::new(),
        None,
        None,
    );
    assert!(error.unwrap_err().to_string().starts_with("audit: "));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any update of any client of any seed.
    #[test]
    fn any_client_changes_no_more_than_was_declared(
        seed in any::<u64>(),
        values in proptest::collection::vec((0..=FEATURES, any::<f32>()), 0..8),
        choice in 0..4usize,
        rate in 0.2..1.0f64,
    ) {
        let relation = NeighboringRelation::AddOrRemoveOne;
        let config = SimulationConfig {
            seed: fl_core::Seed(seed),
            ..private(poisson(rate), clippings()[choice], relation)
        };
        let sent = send(Update::Spikes(values));
        let (one, two) = pair(&config, (sent, Act::Absent), None);
        prop_assert_eq!(one.compare(&two), Ok(()));
    }
}
