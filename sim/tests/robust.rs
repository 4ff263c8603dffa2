//! Robust means of group means: what they are, the same whoever adds, groups that are left out, what
//! a poisoned client can do, what is refused; and sums of fewer bits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::private::{poisson, private, updates};
use common::{
    Journal, Tiny, TinyEngine, config, play, play_config, population, simulation, uniform,
};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_core::{ClientId, GroupMean, Purpose, RoundId, Stream};
use fl_privacy::plan::{ClientNoise, RingNoise};
use fl_privacy::{Delta, Epsilon};
use fl_sim::secagg::SecAggStage;
use fl_sim::{
    AggregationConfig, CentralPrivacy, CheckpointConfig, ClientPrivacy, FleetConfig, LocalDisk,
    Population as _, Privacy, RobustMean, RoundRecord, SecAggConfig, SecAggMode, SimulationConfig,
};

use SecAggMode::{Ideal, Real, Sampled};

const MEDIAN: GroupMean = GroupMean::Median;
const TRIMMED: GroupMean = GroupMean::TrimmedMean { trim: 0.2 };

fn robust(config: SimulationConfig, groups: u32, mean: GroupMean) -> SimulationConfig {
    SimulationConfig {
        aggregation: AggregationConfig {
            robust: Some(RobustMean { groups, mean }),
            ..config.aggregation.clone()
        },
        ..config
    }
}

/// With the groups as sessions.
fn secure(config: &SimulationConfig, secagg: SecAggConfig) -> SimulationConfig {
    let groups = config.aggregation.robust.map(|robust| robust.groups);
    SimulationConfig {
        secagg: Some(SecAggConfig { groups, ..secagg }),
        ..config.clone()
    }
}

/// The records without what secure aggregation adds, and its mode changes.
fn bare(journal: &Journal) -> Vec<RoundRecord> {
    let mut rounds = journal.rounds.clone();
    for record in &mut rounds {
        record.secagg = None;
        (record.bytes_down, record.bytes_up) = (0, 0);
    }
    rounds
}

fn reliable() -> SimulationConfig {
    SimulationConfig {
        selection: uniform(60, 1.0),
        fleet: FleetConfig::default(),
        ..config()
    }
}

/// The groups of the first round: clients with examples, shuffled from the address of the round and
/// cut into parts of nearly equal size.
fn groups_of_the_first_round(config: &SimulationConfig, most: usize) -> Vec<Vec<ClientId>> {
    let population = population();
    let mut clients: Vec<ClientId> = (0..population.clients())
        .map(ClientId)
        .filter(|&client| population.train_len(client) > 0)
        .collect();
    let everybody = ClientId(u64::MAX);
    Stream::at(Purpose::Sessions, config.seed, RoundId(0), everybody).shuffle(&mut clients);
    let count = clients.len().div_ceil(most);
    let mut groups = Vec::new();
    for group in 0..count {
        let longer = clients.len() % count;
        let size = clients.len() / count + usize::from(group < longer);
        let start = group * (clients.len() / count) + group.min(longer);
        groups.push(clients[start..start + size].to_vec());
    }
    groups
}

/// One round, computed from the clients' updates with plain loops in `f64`.
#[test]
fn a_round_is_that_of_the_definition() {
    for (most, mean, loose) in [
        (20, MEDIAN, 1),
        (16, MEDIAN, 1),
        (9, MEDIAN, 3),
        (9, TRIMMED, 1),
        (5, TRIMMED, 2),
    ] {
        let config = SimulationConfig {
            rounds: 1,
            ..robust(reliable(), most, mean)
        };
        let mut simulation = simulation(config.clone());
        let global = simulation.parameters().values().to_vec();
        let journal = play(&mut simulation);
        let updates = updates(&config, &global);
        let groups = groups_of_the_first_round(&config, most as usize);
        let means: Vec<Vec<f64>> = groups
            .iter()
            .map(|group| {
                let (mut sum, mut weight) = (vec![0.0; global.len()], 0.0);
                for (client, update) in updates.iter().filter(|(id, _)| group.contains(id)) {
                    let own = population().train_len(*client) as f64;
                    weight += own;
                    for (sum, value) in sum.iter_mut().zip(update) {
                        *sum += own * f64::from(*value);
                    }
                }
                sum.iter().map(|sum| sum / weight).collect()
            })
            .collect();
        let kept = match mean {
            GroupMean::Median => 2 - groups.len() % 2,
            GroupMean::TrimmedMean { .. } => groups.len() - 2 * loose,
        };
        let cut = (groups.len() - kept) / 2;
        for (place, (before, after)) in global
            .iter()
            .zip(simulation.parameters().values())
            .enumerate()
        {
            let mut values: Vec<f64> = means.iter().map(|mean| mean[place]).collect();
            values.sort_by(f64::total_cmp);
            let expected = values[cut..cut + kept].iter().sum::<f64>() / kept as f64;
            let found = f64::from(*after) - f64::from(*before);
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let record = journal.rounds[0].groups.unwrap();
        assert_eq!(record.formed, groups.len() as u64);
        assert_eq!(record.combined, record.formed);
        assert_eq!(record.trimmed, 2 * cut as u64);
        assert!(record.distance > 0.0 && record.distance < 1.0);
        assert_eq!(journal.rounds[0].reported, updates.len() as u64);
    }
}

/// Off, ideal, sampled, real; one thread and three.
#[test]
fn the_model_does_not_depend_on_who_adds_the_updates() {
    let momentum = SimulationConfig {
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            server_momentum: 0.9,
            ..FedAvgConfig::default()
        }),
        selection: uniform(40, 1.2),
        ..config()
    };
    let steady = SimulationConfig {
        fleet: FleetConfig {
            stragglers: 0.25,
            dropout: 0.0,
        },
        ..config()
    };
    for (name, base) in [
        ("median", robust(reliable(), 12, MEDIAN)),
        ("trimmed", robust(reliable(), 7, TRIMMED)),
        ("momentum, over-selected", robust(momentum, 13, MEDIAN)),
        (
            "drawn by a coin",
            robust(
                SimulationConfig {
                    selection: poisson(0.8),
                    ..steady
                },
                10,
                TRIMMED,
            ),
        ),
    ] {
        let (digest, off) = play_config(base.clone());
        let plain = SimulationConfig {
            aggregation: AggregationConfig::default(),
            ..base.clone()
        };
        assert_ne!(play_config(plain).0, digest, "{name}");
        let combined = |record: &RoundRecord| record.groups.unwrap().combined;
        assert!(off.rounds.iter().all(|record| combined(record) >= 3));
        let parallel = SimulationConfig {
            threads: 3,
            ..base.clone()
        };
        assert_eq!(play_config(parallel), (digest, off.clone()), "{name}");
        for (mode, threads) in [(Ideal, 2), (Sampled, 1), (Real, 1), (Real, 3)] {
            let secagg = SecAggConfig {
                sample: 6,
                corrupt: 0.05,
                ..SecAggConfig::new(mode)
            };
            let (found, journal) = play_config(SimulationConfig {
                threads,
                ..secure(&base, secagg)
            });
            let failed = |record: &RoundRecord| record.secagg.as_ref().unwrap().failed;
            let lost: u64 = journal.rounds.iter().map(failed).sum();
            assert_eq!(lost, 0, "{name} {mode:?}");
            assert_eq!(found, digest, "{name} {mode:?} {threads}");
            let off: Vec<RoundRecord> = bare(&off);
            assert_eq!(bare(&journal), off, "{name} {mode:?} {threads}");
            for record in &journal.rounds {
                let secagg = record.secagg.as_ref().unwrap();
                assert_eq!(secagg.sessions, record.groups.unwrap().formed);
                assert!(mode != Real || secagg.masked == record.reported);
            }
        }
    }
}

#[test]
fn a_run_that_is_interrupted_anywhere_is_the_uninterrupted_run() {
    let base = robust(reliable(), 12, MEDIAN);
    for base in [secure(&base, SecAggConfig::new(Real)), base] {
        let (digest, straight) = play_config(base.clone());
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

/// Sessions that fail in every stage; real and ideal lose the same, and the others go on.
#[test]
fn a_session_that_fails_is_left_out_and_too_few_end_the_round() {
    let (mut stages, mut left_out, mut given_up) = (Vec::new(), 0, 0);
    for (dropout, least) in [(0.3, None), (0.45, None), (0.35, Some(6))] {
        let base = SimulationConfig {
            rounds: 12,
            fleet: FleetConfig {
                stragglers: 0.0,
                dropout,
            },
            ..robust(reliable(), 12, MEDIAN)
        };
        let secagg = |mode| SecAggConfig {
            dropout: Some(0.2),
            min_survivors: least,
            corrupt: 0.3,
            ..SecAggConfig::new(mode)
        };
        let (digest, ideal) = play_config(secure(&base, secagg(Ideal)));
        for threads in [1, 3] {
            let (found, real) = play_config(SimulationConfig {
                threads,
                ..secure(&base, secagg(Real))
            });
            assert_eq!(found, digest);
            assert_eq!(bare(&real), bare(&ideal));
            for (real, ideal) in real.rounds.iter().zip(&ideal.rounds) {
                let (real, ideal) = (real.secagg.as_ref(), ideal.secagg.as_ref());
                let (real, ideal) = (real.unwrap(), ideal.unwrap());
                assert_eq!(
                    (real.failed, real.left, real.inputs),
                    (ideal.failed, ideal.left, ideal.inputs)
                );
                assert_eq!(real.bytes, ideal.bytes);
            }
        }
        for record in &ideal.rounds {
            let (groups, secagg) = (record.groups.unwrap(), record.secagg.as_ref().unwrap());
            let all = record.reported + record.dropped + record.surplus + record.rejected;
            assert_eq!(all, record.cohort);
            stages.extend(secagg.failed_stage);
            if groups.combined == 0 {
                assert!(groups.formed - secagg.failed < 3, "{groups:?} {secagg:?}");
                assert_eq!((record.reported, record.update_norm), (0, 0.0));
                given_up += 1;
            } else {
                assert_eq!(groups.combined + secagg.failed, groups.formed);
                assert!(record.reported > 0 && record.update_norm > 0.0);
                assert!(record.examples > 0 && record.train_loss.is_some());
                left_out += secagg.failed;
            }
        }
    }
    stages.sort_unstable();
    stages.dedup();
    assert!(stages.contains(&SecAggStage::ShareKeys) && stages.contains(&SecAggStage::MaskedInput));
    assert!(left_out > 0 && given_up > 0, "{left_out} {given_up}");
}

/// Without sessions a group without an update has no mean.
#[test]
fn rounds_with_too_few_groups_leave_the_model() {
    let base = SimulationConfig {
        rounds: 20,
        fleet: FleetConfig {
            stragglers: 0.0,
            dropout: 0.8,
        },
        selection: uniform(9, 1.0),
        ..robust(config(), 2, MEDIAN)
    };
    let (_, journal) = play_config(base);
    let combined = |record: &&RoundRecord| record.groups.unwrap().combined > 0;
    let (on, off): (Vec<_>, Vec<_>) = journal.rounds.iter().partition(combined);
    assert!(on.len() > 1 && off.len() > 1, "{} {}", on.len(), off.len());
    for record in on {
        assert!(record.groups.unwrap().combined >= 3 && record.reported >= 3);
    }
    for record in off {
        assert_eq!((record.reported, record.update_norm), (0, 0.0));
        assert_eq!(record.cohort, record.dropped + record.surplus);
    }
}

/// A client whose update is at the end of the range in every coordinate.
#[test]
fn a_poisoned_client_moves_the_mean_far_and_robust_means_little() {
    let run = |config: SimulationConfig, loud| {
        let mut population = population();
        population.loud = loud;
        let disk = Arc::new(LocalDisk);
        let mut simulation = Tiny::with_parts(config, population, TinyEngine::new(), disk).unwrap();
        let journal = play(&mut simulation);
        let accuracy = journal.evaluations.last().unwrap().test_accuracy.unwrap();
        (simulation.parameters().values().to_vec(), accuracy, journal)
    };
    let distance = |a: &[f32], b: &[f32]| {
        let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
        squares.sum::<f32>().sqrt()
    };
    let plain = reliable();
    let (honest, good, _) = run(plain.clone(), None);
    let (spoiled, bad, journal) = run(plain.clone(), Some(ClientId(5)));
    // Saturated: no client gets further.
    assert!(journal.rounds[0].saturated > 0);
    let far = distance(&honest, &spoiled);
    assert!(far > 1.0 && bad < good - 0.2, "{far} {bad} {good}");
    for mean in [MEDIAN, TRIMMED] {
        let robust = robust(plain.clone(), 10, mean);
        let (calm, better, journal) = run(robust.clone(), Some(ClientId(5)));
        assert!(distance(&honest, &calm) < 0.2, "{mean:?}");
        assert!(better > good - 0.02, "{mean:?} {better} {good}");
        // The record says that a group is unlike the others.
        let (_, _, quiet) = run(robust, None);
        let far = |journal: &Journal| journal.rounds[0].groups.unwrap().distance;
        assert!(far(&journal) > 20.0 * far(&quiet), "{mean:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_before_the_run_with_the_reason() {
    let refused = |config: SimulationConfig| {
        let made = Tiny::with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk));
        made.map(drop).unwrap_err().to_string()
    };
    let central = CentralPrivacy::new(0.4, Epsilon::new(8.0).unwrap(), Delta::new(1e-3).unwrap());
    let ring = ClientNoise::Distributed(RingNoise::default());
    let clients = ClientPrivacy::new(
        ring,
        0.3,
        Epsilon::new(8.0).unwrap(),
        Delta::new(1e-3).unwrap(),
    );
    let of_clients = "aggregation: a robust mean of groups cannot be had with differential privacy of clients: every group's sum is seen, and one client moves the mean of its group further than the mean of all that the noise is made for; leave robust out, or use privacy.kind = \"example\", whose updates are private by themselves";
    let trim = |trim| GroupMean::TrimmedMean { trim };
    let bits = |range, bits| SimulationConfig {
        aggregation: AggregationConfig {
            range,
            bits,
            robust: None,
        },
        ..config()
    };
    for (config, message) in [
        (
            robust(config(), 6, MEDIAN),
            "aggregation: a round of 12 clients makes 2 groups of up to 6, and a robust mean needs at least 3; lower groups or select more clients",
        ),
        (
            SimulationConfig {
                selection: poisson(0.4),
                ..robust(config(), 8, MEDIAN)
            },
            "aggregation: a round of 12 clients (three deviations below the mean) makes 2 groups of up to 8, and a robust mean needs at least 3; lower groups or select more clients",
        ),
        (
            robust(config(), 1, MEDIAN),
            "secagg.groups is 1, which is out of range; give a whole number of at least 2",
        ),
        (
            robust(config(), 4, trim(0.5)),
            "secagg.trim is 0.5, which is out of range; give a share above 0 and below 0.5",
        ),
        (
            SimulationConfig {
                secagg: Some(SecAggConfig::new(Ideal)),
                ..robust(config(), 4, MEDIAN)
            },
            "secagg.groups is not given, which is out of range; give that of the groups whose means are combined",
        ),
        (
            robust(
                private(uniform(14, 1.0), Privacy::Central(central)),
                4,
                MEDIAN,
            ),
            of_clients,
        ),
        (
            robust(
                private(uniform(14, 1.0), Privacy::Clients(clients.clone())),
                4,
                MEDIAN,
            ),
            of_clients,
        ),
        (
            bits(None, Some(1)),
            "aggregation.bits is 1, which is out of range; give a whole number from 2 to 64",
        ),
        (
            bits(Some(0.0), None),
            "aggregation.range is 0, which is out of range; give a number above 0",
        ),
        (
            bits(None, Some(12)),
            "planning the sum: sums of updates of range 64 with weights up to 480 do not fit into 12 bits, of which they need at least 16; lower the range or the weights, or give more bits",
        ),
        (
            SimulationConfig {
                privacy: Some(Privacy::Clients(clients)),
                ..bits(None, Some(20))
            },
            "aggregation: a range or bits of the sum cannot be had with noise that clients add: the ring has to hold that noise, and the privacy plan says how wide it is; leave them out; with privacy.kind = \"distributed\" choose privacy.bits",
        ),
    ] {
        assert_eq!(refused(config), message);
    }
}

/// Fewer bits: the same in every mode, close to the default, half the masks' bytes.
#[test]
fn sums_of_fewer_bits_round_alike_everywhere() {
    let base = SimulationConfig {
        selection: uniform(40, 1.3),
        fleet: FleetConfig::default(),
        ..config()
    };
    let coarse = SimulationConfig {
        aggregation: AggregationConfig {
            range: Some(4.0),
            bits: Some(24),
            robust: None,
        },
        ..base.clone()
    };
    let exact = simulation(base.clone());
    let rounded = simulation(coarse.clone());
    // 52 clients of weight up to 40: 12 bits; a sign, 2 for the range, and 9 are left.
    assert_eq!((exact.ring().bits(), rounded.ring().bits()), (50, 24));
    assert_eq!(
        (rounded.ring().range(), rounded.ring().fraction_bits()),
        (4.0, 9)
    );
    let (digest, journal) = play_config(coarse.clone());
    let (other, _) = play_config(base.clone());
    assert_ne!(digest, other);
    assert!(journal.rounds.iter().all(|record| record.saturated == 0));
    for mode in [Ideal, Real, Sampled] {
        let (found, secure) = play_config(SimulationConfig {
            secagg: Some(SecAggConfig::new(mode)),
            ..coarse.clone()
        });
        assert_eq!(found, digest, "{mode:?}");
        for record in &secure.rounds {
            let secagg = record.secagg.as_ref().unwrap();
            assert!(secagg.ring_bits <= 24 && secagg.failed == 0, "{secagg:?}");
        }
    }
    // One round: no value of the mean is off by more than the bound.
    let one = |config: SimulationConfig| {
        let mut simulation = simulation(SimulationConfig {
            rounds: 1,
            ..config
        });
        let journal = play(&mut simulation);
        let clients = journal.rounds[0].reported;
        let weight = fl_core::Weight(journal.rounds[0].examples);
        let bound = simulation.ring().mean_error(clients, weight);
        (simulation.parameters().values().to_vec(), bound)
    };
    let ((exact, fine), (rounded, bound)) = (one(base), one(coarse));
    assert!(fine < 1e-9 && bound < 1e-4, "{fine} {bound}");
    let mut largest = 0.0f64;
    for (exact, rounded) in exact.iter().zip(&rounded) {
        largest = largest.max(f64::from(exact - rounded).abs());
    }
    assert!(
        largest > 0.0 && largest <= bound + 1e-7,
        "{largest} {bound}"
    );
}
