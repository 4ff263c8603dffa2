//! Runs with secure aggregation: the same model whoever adds, who vanishes when, what fails, what it
//! weighs, what is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::private::{assert_same_however_played, poisson, private};
use common::{
    Journal, Tiny, TinyEngine, config, play, play_config, population, simulation, uniform,
};
use fl_core::ClientId;
use fl_core::strategy::{FedAvgConfig, FedProxConfig, StrategyConfig};
use fl_privacy::plan::{ClientNoise, Clipping, RingNoise};
use fl_privacy::{Delta, Epsilon, NeighboringRelation, NoiseMultiplier};
use fl_sim::secagg::{ClosePair, SecAggStage};
use fl_sim::{
    CentralPrivacy, CheckpointConfig, ClientPrivacy, FleetConfig, LocalDisk, Observer, Privacy,
    RoundRecord, SecAggConfig, SecAggError, SecAggGraph, SecAggMode, SecAggSuite, SecAggThreat,
    SimError, SimulationConfig,
};

use SecAggMode::{Ideal, Real, Sampled};

fn secure(config: &SimulationConfig, secagg: SecAggConfig) -> SimulationConfig {
    SimulationConfig {
        secagg: Some(secagg),
        ..config.clone()
    }
}

/// The records without what a mode may change.
fn records(journal: &Journal) -> Vec<RoundRecord> {
    let mut records = journal.rounds.clone();
    for record in &mut records {
        if let Some(secagg) = &mut record.secagg {
            secagg.mode = Ideal;
            secagg.masked = 0;
        }
        if let Some(privacy) = &mut record.privacy {
            privacy.wrapped = 0;
        }
    }
    records
}

/// As they would be without secure aggregation.
fn bare(journal: &Journal) -> Vec<RoundRecord> {
    let mut records = records(journal);
    for record in &mut records {
        record.secagg = None;
        (record.bytes_down, record.bytes_up) = (0, 0);
    }
    records
}

fn failures(journal: &Journal) -> Vec<Option<SecAggStage>> {
    let failed = |record: &RoundRecord| record.secagg.as_ref().unwrap().failed_stage;
    journal.rounds.iter().map(failed).collect()
}

fn central(clipping: Clipping) -> Privacy {
    Privacy::Central(CentralPrivacy {
        clipping,
        noise_multiplier: Some(NoiseMultiplier::new(0.5).unwrap()),
        epsilon: None,
        relation: None,
        ..CentralPrivacy::new(0.4, Epsilon::ZERO, Delta::new(1e-3).unwrap())
    })
}

fn clients(noise: ClientNoise) -> Privacy {
    Privacy::Clients(ClientPrivacy {
        noise_multiplier: Some(NoiseMultiplier::new(0.5).unwrap()),
        epsilon: None,
        relation: Some(NeighboringRelation::ReplaceSpecial),
        least_survivors: 0.4,
        ..ClientPrivacy::new(noise, 0.3, Epsilon::ZERO, Delta::new(1e-3).unwrap())
    })
}

fn distributed() -> Privacy {
    clients(ClientNoise::Distributed(RingNoise {
        bits: Some(24),
        ..RingNoise::default()
    }))
}

fn adaptive() -> Privacy {
    central(Clipping::Adaptive {
        initial_norm: 0.3,
        quantile: 0.5,
        learning_rate: 0.2,
        count_noise: Some(4.0),
    })
}

/// Experiments of every kind whose updates are summed.
fn experiments() -> Vec<(&'static str, SimulationConfig)> {
    let prox = StrategyConfig::FedProx(FedProxConfig::new(0.1));
    let slow = FleetConfig {
        stragglers: 0.5,
        dropout: 0.1,
    };
    vec![
        ("weighted", config()),
        (
            "momentum, over-selected",
            SimulationConfig {
                strategy: StrategyConfig::FedAvg(FedAvgConfig {
                    server_momentum: 0.9,
                    ..FedAvgConfig::default()
                }),
                selection: uniform(10, 1.4),
                ..config()
            },
        ),
        (
            "partial work",
            SimulationConfig {
                strategy: prox,
                fleet: slow,
                ..config()
            },
        ),
        (
            "central noise",
            private(poisson(0.3), central(Clipping::Flat { max_norm: 0.4 })),
        ),
        ("adaptive clipping", private(poisson(0.3), adaptive())),
        (
            "local noise",
            private(uniform(14, 1.0), clients(ClientNoise::Local)),
        ),
        (
            "distributed noise",
            private(uniform(14, 1.0), distributed()),
        ),
    ]
}

#[test]
fn the_model_does_not_depend_on_who_adds_the_updates() {
    for (name, base) in experiments() {
        let (digest, off) = play_config(base.clone());
        let secagg = |mode| SecAggConfig {
            sample: 5,
            ..SecAggConfig::new(mode)
        };
        let (ideal_digest, ideal) = play_config(secure(&base, secagg(Ideal)));
        let whole = failures(&ideal).iter().all(Option::is_none);
        assert!(whole, "{name}: {:?}", failures(&ideal));
        assert_eq!(ideal_digest, digest, "{name}");
        let expected: Vec<RoundRecord> = off
            .rounds
            .iter()
            .map(|record| RoundRecord {
                bytes_down: 0,
                bytes_up: 0,
                ..record.clone()
            })
            .collect();
        let expected = records(&Journal {
            rounds: expected,
            ..Journal::default()
        });
        assert_eq!(bare(&ideal), expected, "{name}");
        for threads in [1, 3] {
            for mode in [Real, Sampled] {
                let (found, journal) = play_config(SimulationConfig {
                    threads,
                    ..secure(&base, secagg(mode))
                });
                assert_eq!(found, digest, "{name} {mode:?} {threads}");
                assert_eq!(
                    records(&journal),
                    records(&ideal),
                    "{name} {mode:?} {threads}"
                );
                let masked = |record: &RoundRecord| record.secagg.as_ref().unwrap().masked;
                let all: u64 = journal.rounds.iter().map(masked).sum();
                let inputs: u64 = off.rounds.iter().map(|record| record.reported).sum();
                match mode {
                    Real => assert_eq!(all, inputs, "{name}"),
                    _ => assert!(all > 0 && all < inputs, "{name}: {all}"),
                }
            }
        }
    }
}

/// Fleet and assumptions under which about half of the rounds fail, in every stage.
#[test]
fn real_and_ideal_sessions_fail_in_the_same_rounds_and_the_model_stays() {
    let mut stages = BTreeSet::new();
    for (threat, graph, cohort, vanish, expected, least) in [
        (
            SecAggThreat::SemiHonest,
            SecAggGraph::Complete,
            12,
            0.6,
            0.2,
            None,
        ),
        (
            SecAggThreat::SemiHonest,
            SecAggGraph::Complete,
            12,
            0.5,
            0.2,
            Some(7),
        ),
        (
            SecAggThreat::SemiMalicious,
            SecAggGraph::Complete,
            16,
            0.2,
            0.2,
            None,
        ),
        (
            SecAggThreat::Active,
            SecAggGraph::Complete,
            16,
            0.12,
            0.1,
            None,
        ),
        (
            SecAggThreat::SemiHonest,
            SecAggGraph::Harary,
            40,
            0.1,
            0.2,
            None,
        ),
    ] {
        let base = SimulationConfig {
            selection: uniform(cohort, 1.0),
            rounds: 14,
            fleet: FleetConfig {
                stragglers: 0.0,
                dropout: vanish,
            },
            ..config()
        };
        let secagg = |mode| SecAggConfig {
            threat,
            graph: Some(graph),
            dropout: Some(expected),
            min_survivors: least,
            ..SecAggConfig::new(mode)
        };
        let (ideal_digest, ideal) = play_config(secure(&base, secagg(Ideal)));
        let (real_digest, real) = play_config(secure(&base, secagg(Real)));
        assert_eq!(ideal_digest, real_digest);
        let failed = failures(&ideal);
        assert_eq!(failures(&real), failed, "{threat:?} {graph:?}");
        if graph == SecAggGraph::Complete {
            assert_eq!(records(&real), records(&ideal), "{threat:?}");
        }
        let count = failed.iter().flatten().count();
        assert!(count > 1 && count < 13, "{threat:?} {graph:?}: {failed:?}");
        stages.extend(failed.into_iter().flatten());
        for record in &real.rounds {
            let secagg = record.secagg.as_ref().unwrap();
            assert_eq!(
                record.cohort,
                record.reported + record.dropped + record.surplus
            );
            assert_eq!(record.update_norm == 0.0, secagg.failed > 0);
            assert_eq!(record.reported > 0, secagg.failed == 0);
            if secagg.failed == 0 {
                assert_eq!(secagg.inputs, record.reported);
                let before: u64 = secagg.left[..3].iter().sum();
                assert_eq!(before + secagg.inputs, secagg.clients);
                assert_eq!(secagg.masked, secagg.inputs);
                assert_eq!(record.bytes_up, secagg.bytes.up());
            }
        }
    }
    assert!(stages.len() >= 4, "{stages:?}");
}

/// The rest of the model's rounds is what they would be without the failed ones' updates.
#[test]
fn a_round_that_failed_is_no_round_for_the_model_and_stays_in_the_ledger() {
    let base = |privacy| SimulationConfig {
        fleet: FleetConfig {
            stragglers: 0.0,
            dropout: 0.35,
        },
        ..private(uniform(14, 1.0), privacy)
    };
    for privacy in [
        central(Clipping::Flat { max_norm: 0.4 }),
        adaptive(),
        clients(ClientNoise::Local),
        distributed(),
    ] {
        let base = base(privacy);
        let secagg = |mode| SecAggConfig {
            threat: SecAggThreat::SemiMalicious,
            dropout: Some(0.3),
            ..SecAggConfig::new(mode)
        };
        let config = secure(&base, secagg(Real));
        let (digest, journal) = play_config(config.clone());
        let failed = failures(&journal);
        assert!(failed.iter().any(Option::is_some), "{failed:?}");
        assert!(failed.iter().any(Option::is_none), "{failed:?}");
        for (record, failed) in journal.rounds.iter().zip(&failed) {
            let private = record.privacy.as_ref().unwrap();
            assert!(private.released != failed.is_some() || !private.released);
            assert!(failed.is_none() || record.update_norm == 0.0);
        }
        assert_eq!(play_config(secure(&config, secagg(Ideal))).0, digest);
        assert_same_however_played(&config);
    }
}

#[test]
fn bytes_are_those_of_the_messages_and_every_suite_and_threat_works() {
    for (threat, graph, suite, cohort) in [
        (
            SecAggThreat::SemiHonest,
            SecAggGraph::Complete,
            SecAggSuite::ChaCha20,
            12,
        ),
        (
            SecAggThreat::SemiMalicious,
            SecAggGraph::Complete,
            SecAggSuite::Aes128,
            12,
        ),
        (
            SecAggThreat::Active,
            SecAggGraph::Complete,
            SecAggSuite::Aes128,
            12,
        ),
        (
            SecAggThreat::SemiHonest,
            SecAggGraph::Harary,
            SecAggSuite::Aes128,
            45,
        ),
        (
            SecAggThreat::Active,
            SecAggGraph::Harary,
            SecAggSuite::ChaCha20,
            45,
        ),
    ] {
        // Stragglers leave after their shares, so that the graph is whole until then.
        let base = SimulationConfig {
            rounds: 2,
            selection: uniform(cohort, 1.0),
            fleet: FleetConfig {
                stragglers: 0.2,
                dropout: 0.0,
            },
            ..config()
        };
        let secagg = |mode| SecAggConfig {
            threat,
            graph: Some(graph),
            suite,
            corrupt: 0.05,
            dropout: Some(0.25),
            ..SecAggConfig::new(mode)
        };
        let (digest, _) = play_config(base.clone());
        let (ideal_digest, ideal) = play_config(secure(&base, secagg(Ideal)));
        let (real_digest, real) = play_config(secure(&base, secagg(Real)));
        assert_eq!((digest, digest), (ideal_digest, real_digest), "{threat:?}");
        assert_eq!(records(&ideal), records(&real), "{threat:?} {graph:?}");
        let secagg = real.rounds[0].secagg.as_ref().unwrap();
        assert!(secagg.bytes.masked_input > 0 && secagg.bytes.unmasking_shares > 0);
        assert_eq!(secagg.bytes.unmask > 0, threat == SecAggThreat::Active);
        assert!(secagg.modelled.unwrap().server() > 0.0);
    }
}

#[test]
fn groups_have_sessions_of_their_own_whose_sums_are_added() {
    let base = SimulationConfig {
        selection: uniform(43, 1.0),
        ..config()
    };
    let (digest, _) = play_config(base.clone());
    for mode in [Ideal, Real, Sampled] {
        let (found, journal) = play_config(secure(
            &base,
            SecAggConfig {
                groups: Some(11),
                ..SecAggConfig::new(mode)
            },
        ));
        assert_eq!(found, digest, "{mode:?}");
        let secagg = journal.rounds[0].secagg.as_ref().unwrap();
        // Two clients without examples do not come.
        assert!((3..=4).contains(&secagg.sessions), "{}", secagg.sessions);
        assert!(secagg.neighbours <= 10);
    }
}

#[test]
fn a_client_whose_update_is_not_finite_leaves_its_session() {
    let config = |mode| {
        secure(
            &SimulationConfig {
                selection: uniform(60, 1.0),
                fleet: FleetConfig::default(),
                ..config()
            },
            SecAggConfig::new(mode),
        )
    };
    let run = |config| {
        let mut population = population();
        population.diverging = Some(ClientId(3));
        let (engine, disk) = (TinyEngine::new(), Arc::new(LocalDisk));
        let mut simulation = Tiny::with_parts(config, population, engine, disk).unwrap();
        let journal = play(&mut simulation);
        (simulation.parameters().digest(), journal)
    };
    let (digest, off) = run(SimulationConfig {
        secagg: None,
        ..config(Real)
    });
    for mode in [Real, Ideal, Sampled] {
        let (found, journal) = run(config(mode));
        assert_eq!(found, digest, "{mode:?}");
        for (record, off) in journal.rounds.iter().zip(&off.rounds) {
            assert_eq!((record.rejected, record.reported), (1, off.reported));
            let secagg = record.secagg.as_ref().unwrap();
            assert_eq!((secagg.left, secagg.inputs), ([0, 0, 1, 0], off.reported));
        }
    }
}

#[test]
fn a_run_that_is_interrupted_anywhere_is_the_uninterrupted_run() {
    for mode in [Real, Ideal] {
        let base = secure(
            &SimulationConfig {
                selection: uniform(60, 1.0),
                fleet: FleetConfig {
                    stragglers: 0.0,
                    dropout: 0.02,
                },
                ..config()
            },
            SecAggConfig::new(mode),
        );
        let (digest, straight) = play_config(base.clone());
        // Almost everybody, every round.
        let close = |record: &RoundRecord| record.secagg.as_ref().unwrap().close_pairs;
        assert!(straight.rounds.iter().map(close).sum::<u64>() > 0);
        let dir = tempfile::tempdir().unwrap();
        let config = SimulationConfig {
            checkpoint: Some(CheckpointConfig {
                dir: dir.path().to_owned(),
                every: 1,
            }),
            threads: 2,
            ..base
        };
        let mut journal = Journal::default();
        for part in 0..40 {
            let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
            let engine = TinyEngine {
                interrupt: Some((70, stop)),
                ..TinyEngine::new()
            };
            let disk = Arc::new(LocalDisk);
            let mut simulation = if part == 0 {
                Tiny::with_parts(config.clone(), population(), engine, disk).unwrap()
            } else {
                let resumed = Tiny::resume_with_parts(config.clone(), population(), engine, disk);
                resumed.unwrap().unwrap()
            };
            simulation.run(&mut journal, stop).unwrap();
            if simulation.round() == 6 {
                assert_eq!(simulation.parameters().digest(), digest);
                break;
            }
            assert!(part < 39, "it never ends");
        }
        assert_eq!(journal.rounds, straight.rounds);
    }
}

/// Sums that differ by few clients are told, with the right rounds and numbers.
#[test]
fn nearly_equal_cohorts_are_noticed() {
    #[derive(Default)]
    struct Pairs(Vec<ClosePair>, Vec<u64>);
    impl Observer for Pairs {
        fn round(&mut self, record: &RoundRecord) {
            self.1.push(record.secagg.as_ref().unwrap().close_pairs);
        }
        fn close_pair(&mut self, pair: &ClosePair) {
            self.0.push(*pair);
        }
    }
    let run = |cohort, dropout| {
        let mut simulation = simulation(secure(
            &SimulationConfig {
                selection: uniform(cohort, 1.0),
                fleet: FleetConfig {
                    stragglers: 0.0,
                    dropout,
                },
                ..config()
            },
            SecAggConfig::new(Ideal),
        ));
        let mut pairs = Pairs::default();
        simulation.run(&mut pairs, &AtomicBool::new(false)).unwrap();
        let total: u64 = pairs.1.iter().sum();
        assert_eq!(total, pairs.0.len() as u64);
        for pair in &pairs.0 {
            assert!(pair.other < pair.round && pair.differ > 0 && pair.differ < pair.least);
        }
        pairs.0
    };
    // Everybody, and now and then a client is missing; everybody always; a third.
    assert!(!run(60, 0.01).is_empty());
    assert_eq!(run(60, 0.0), []);
    assert_eq!(run(20, 0.0), []);
}

#[test]
fn what_cannot_be_is_refused_before_the_run_with_the_reason() {
    let refused = |config: &SimulationConfig, secagg: SecAggConfig| {
        let config = secure(config, secagg);
        let made = Tiny::with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk));
        made.map(drop).unwrap_err()
    };
    let new = || SecAggConfig::new(Real);
    let plain = config();
    let mut colluding = private(uniform(14, 1.0), distributed());
    if let Some(Privacy::Clients(privacy)) = &mut colluding.privacy {
        privacy.colluding_share = 0.2;
    }
    for (config, secagg, message) in [
        (
            &plain,
            SecAggConfig {
                corrupt: 1.0,
                ..new()
            },
            "secagg.corrupt is 1, which is out of range; give a share from 0 to below 1",
        ),
        (
            &plain,
            SecAggConfig {
                groups: Some(1),
                ..new()
            },
            "secagg.groups is 1, which is out of range; give a whole number of at least 2",
        ),
        (
            &plain,
            SecAggConfig {
                threat: SecAggThreat::Active,
                dropout: Some(0.5),
                ..new()
            },
            "secagg: sessions of 12 clients: no threshold is both safe and reachable for 12 clients with 1 corrupt and 6 dropping out under the active threat in a complete graph; lower the shares or take more clients",
        ),
        (
            &plain,
            SecAggConfig {
                min_survivors: Some(13),
                ..new()
            },
            "secagg: sessions of 12 clients: at least 13 survivors are asked for; expected 3 to 12",
        ),
        (
            &private(uniform(14, 1.0), distributed()),
            SecAggConfig {
                groups: Some(7),
                ..new()
            },
            "secagg: groups with sessions of their own cannot be had with privacy.kind = \"distributed\": the server sees the sum of each group, with the noise of that group alone, and the guarantee is about the sum of all; leave groups out, or use privacy.kind = \"local\"",
        ),
        (
            &colluding,
            new(),
            "secagg: a share of corrupt clients below privacy.colluding_share cannot be had with privacy.kind = \"distributed\": both speak of the clients that work for the server, and noise that is made against more of them than the masks are is no promise; raise secagg.corrupt to it, or leave secagg.corrupt out",
        ),
    ] {
        assert_eq!(refused(config, secagg).to_string(), message);
    }
    assert!(matches!(
        refused(
            &plain,
            SecAggConfig {
                corrupt: 0.9,
                ..new()
            }
        ),
        SimError::SecAgg(SecAggError::Params { clients: 12, .. })
    ));
}
