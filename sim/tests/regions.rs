//! Rounds in regions: the same model as without, unless a region fails, and then without its clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{FEATURES, Journal, Tiny, TinyEngine, TinyPopulation, config, play, uniform};
use fl_core::select::SelectorConfig;
use fl_core::strategy::{FedAsyncConfig, StrategyConfig};
use fl_core::{
    ClientId, FitTask, ModelDigest, Parameters, Purpose, RoundId, Seed, Stream, WorkLimit,
};
use fl_privacy::{Delta, Epsilon};
use fl_sim::devices::End;
use fl_sim::fleet::mix::DefaultRhythm;
use fl_sim::{
    AggregationConfig, CentralPrivacy, CheckpointConfig, DeviceConfig, Engine as _, FleetConfig,
    LocalDisk, Mode, Population as _, Privacy, RegionsConfig, RobustMean, RoundEnd, RoundRecord,
    ScheduleConfig, SecAggConfig, SecAggMode, SimError, SimulationConfig, TelemetryConfig,
};

/// A hundred clients a round, with the fates of `common::config`.
fn flat() -> SimulationConfig {
    SimulationConfig {
        rounds: 4,
        selection: uniform(100, 1.0),
        ..config()
    }
}

/// The same on devices that are always there.
fn lab() -> SimulationConfig {
    SimulationConfig {
        devices: Some(DeviceConfig {
            rhythm: Some(DefaultRhythm::AlwaysOn),
            ..DeviceConfig::default()
        }),
        fleet: FleetConfig::default(),
        telemetry: TelemetryConfig {
            minimum_group: 1,
            per_client: true,
        },
        ..flat()
    }
}

fn phones() -> SimulationConfig {
    SimulationConfig {
        selection: uniform(60, 1.3),
        devices: Some(DeviceConfig::default()),
        ..lab()
    }
}

fn secure(mode: SecAggMode, config: SimulationConfig) -> SimulationConfig {
    SimulationConfig {
        secagg: Some(SecAggConfig::new(mode)),
        ..config
    }
}

fn regional(count: u32, outage: f64, config: SimulationConfig) -> SimulationConfig {
    SimulationConfig {
        schedule: ScheduleConfig {
            regions: Some(RegionsConfig { count, outage }),
            ..config.schedule
        },
        ..config
    }
}

fn population() -> TinyPopulation {
    TinyPopulation::new(500, 5)
}

fn simulation(config: SimulationConfig) -> Tiny {
    let disk = Arc::new(LocalDisk);
    Tiny::with_parts(config, population(), TinyEngine::new(), disk).unwrap()
}

fn play_config(config: SimulationConfig) -> (ModelDigest, Journal) {
    let mut simulation = simulation(config);
    let journal = play(&mut simulation);
    (simulation.parameters().digest(), journal)
}

/// The records without what regions and sessions may change.
fn bare(journal: &Journal) -> Vec<RoundRecord> {
    let mut records = journal.rounds.clone();
    for record in &mut records {
        if record.secagg.take().is_some() {
            (record.bytes_down, record.bytes_up) = (0, 0);
        }
        record.regions = None;
    }
    records
}

fn kinds() -> Vec<(&'static str, SimulationConfig)> {
    vec![
        ("plain", flat()),
        ("lab", lab()),
        ("phones", phones()),
        ("ideal", secure(SecAggMode::Ideal, flat())),
        ("real", secure(SecAggMode::Real, flat())),
        ("real on devices", secure(SecAggMode::Real, lab())),
    ]
}

#[test]
fn regions_change_no_bit_while_none_fails() {
    for (name, config) in kinds() {
        let (digest, expected) = play_config(config.clone());
        for (count, threads) in [(1, 1), (4, 1), (4, 3)] {
            let regional = regional(count, 0.0, config.clone());
            let (found, journal) = play_config(SimulationConfig {
                threads,
                ..regional
            });
            let case = format!("{name}, {count} regions, {threads} threads");
            assert_eq!(found, digest, "{case}");
            assert_eq!(bare(&journal), bare(&expected), "{case}");
            assert_eq!(journal.evaluations, expected.evaluations, "{case}");
            assert_eq!(journal.parts, expected.parts, "{case}");
            for record in &journal.rounds {
                let regions = record.regions.unwrap();
                let all = u64::from(count);
                assert_eq!((regions.formed, regions.summed), (all, all), "{case}");
                assert_eq!((regions.failed, regions.lost), (0, 0), "{case}");
                if let Some(secagg) = &record.secagg {
                    assert_eq!((secagg.sessions, secagg.failed), (all, 0), "{case}");
                }
            }
        }
    }
}

#[test]
fn runs_with_outages_are_the_same_at_any_number_of_threads_and_when_resumed() {
    for (name, config) in kinds() {
        let config = regional(4, 0.3, config);
        let (digest, expected) = play_config(config.clone());
        let three = play_config(SimulationConfig {
            threads: 3,
            ..config.clone()
        });
        assert!(three == (digest, expected.clone()), "{name}");
        let dir = tempfile::tempdir().unwrap();
        let saved = |rounds| SimulationConfig {
            rounds,
            checkpoint: Some(CheckpointConfig {
                dir: dir.path().join("checkpoint"),
                every: 1,
            }),
            ..config.clone()
        };
        play(&mut simulation(saved(2)));
        let parts = (population(), TinyEngine::new());
        let disk = Arc::new(LocalDisk);
        let mut second = Tiny::resume_with_parts(saved(4), parts.0, parts.1, disk)
            .unwrap()
            .unwrap();
        let rest = play(&mut second);
        assert_eq!(second.parameters().digest(), digest, "{name}");
        assert_eq!(rest.rounds, expected.rounds[2..], "{name}");
    }
}

/// The mean of the updates of `clients` in the first round, weighted by examples, in floating point:
/// McMahan et al. 2017, algorithm 1.
fn mean_of(clients: &BTreeSet<u64>, config: &SimulationConfig) -> Vec<f64> {
    let (population, engine) = (population(), TinyEngine::new());
    let mut init = Stream::at(Purpose::ModelInit, config.seed, RoundId(0), ClientId(0));
    let global: Parameters = engine.init(&mut init);
    let mut sum = [0.0; FEATURES + 1];
    let mut weight = 0.0;
    for &client in clients {
        let client = ClientId(client);
        let mut scratch = common::TinyExamples::default();
        let data = population.train(client, &mut scratch);
        let mut update = vec![0.0; FEATURES + 1];
        let stream = Stream::at(Purpose::LocalTraining, config.seed, RoundId(0), client);
        let mut task = FitTask {
            client,
            round: RoundId(0),
            data: &data,
            plan: &config.local,
            limit: WorkLimit::Full,
            stream,
            update: &mut update,
        };
        common::fit_one(global.values(), &mut task).unwrap();
        let examples = population.train_len(client) as f64;
        weight += examples;
        for (sum, value) in sum.iter_mut().zip(&update) {
            *sum += examples * f64::from(*value);
        }
    }
    let global = global.values().iter().map(|&value| f64::from(value));
    sum.iter()
        .zip(global)
        .map(|(sum, global)| global + sum / weight)
        .collect()
}

/// Several seeds, so that rounds with one, some and no outages are among them.
#[test]
fn a_region_that_fails_costs_its_own_clients_and_nobody_else() {
    let mut outages = BTreeMap::new();
    for seed in 0..30 {
        let flat = SimulationConfig {
            seed: Seed(seed),
            rounds: 1,
            ..lab()
        };
        let (_, whole) = play_config(flat.clone());
        let mut run = simulation(regional(4, 0.3, flat.clone()));
        let journal = play(&mut run);
        let regions = RegionsConfig {
            count: 4,
            outage: 0.3,
        };
        let ends = |journal: &Journal, end| -> BTreeSet<u64> {
            let parts = journal.parts.iter().filter(|part| part.end == end);
            parts.map(|part| part.client).collect()
        };
        let (counted, lost) = (ends(&journal, End::Counted), ends(&journal, End::Lost));
        let of = |clients: &BTreeSet<u64>| -> BTreeSet<u32> {
            let region = |&client: &u64| regions.region(Seed(seed), ClientId(client));
            clients.iter().map(region).collect()
        };
        let record = journal.rounds[0].regions.unwrap();
        assert!(of(&counted).is_disjoint(&of(&lost)), "seed {seed}");
        assert_eq!(of(&lost).len() as u64, record.failed, "seed {seed}");
        assert_eq!((lost.len() as u64, record.formed), (record.lost, 4));
        let all: BTreeSet<u64> = counted.union(&lost).copied().collect();
        assert_eq!(all, ends(&whole, End::Counted), "seed {seed}");
        let round = &journal.rounds[0];
        assert_eq!(round.reported, counted.len() as u64);
        let ended = round.reported + round.rejected + round.dropped + round.surplus;
        assert_eq!(round.cohort, ended);
        *outages.entry(record.failed).or_insert(0) += 1;
        if !counted.is_empty() {
            let expected = mean_of(&counted, &flat);
            for (found, expected) in run.parameters().values().iter().zip(expected) {
                let difference = (f64::from(*found) - expected).abs();
                assert!(difference < 1e-6, "seed {seed}: {found} {expected}");
            }
        }
    }
    // Of four at 0.3 none fails with probability 0.24, and one with 0.41.
    assert!(outages.len() >= 3, "{outages:?}");
}

/// With sessions the clients of a region that fails are in a session that fails, and the others' sums
/// are added.
#[test]
fn a_region_that_fails_takes_its_session_with_it() {
    let plain = play_config(regional(4, 0.3, lab()));
    for mode in [SecAggMode::Ideal, SecAggMode::Real] {
        let (digest, journal) = play_config(regional(4, 0.3, secure(mode, lab())));
        assert_eq!(digest, plain.0, "{mode:?}");
        let mut failed = 0;
        for (record, plain) in journal.rounds.iter().zip(&plain.1.rounds) {
            let (regions, secagg) = (record.regions.unwrap(), record.secagg.as_ref().unwrap());
            assert_eq!(Some(regions), plain.regions);
            assert_eq!(record.reported, plain.reported);
            assert_eq!((secagg.sessions, secagg.failed), (4, regions.failed));
            failed += secagg.failed;
        }
        assert!(failed > 0);
    }
}

#[test]
fn a_round_whose_only_region_fails_moves_nothing() {
    for config in [lab(), flat(), secure(SecAggMode::Ideal, lab())] {
        let timed = config.devices.is_some();
        let (_, journal) = play_config(regional(1, 1.0, config));
        for record in &journal.rounds {
            let regions = record.regions.unwrap();
            assert_eq!((regions.formed, regions.failed), (1, 1));
            assert_eq!((record.reported, regions.summed), (0, 0));
            assert!(record.update_norm <= 0.0);
            let end = record.fleet.as_ref().map(|fleet| fleet.end);
            assert_eq!(end, timed.then_some(RoundEnd::TooFewUpdates));
        }
    }
}

#[test]
fn a_session_of_too_few_clients_costs_its_region_only() {
    // Some regions of forty have one client of forty.
    let config = SimulationConfig {
        selection: uniform(40, 1.0),
        fleet: FleetConfig::default(),
        ..flat()
    };
    let (_, journal) = play_config(regional(20, 0.0, secure(SecAggMode::Real, config)));
    let mut failed = 0;
    for record in &journal.rounds {
        let (regions, secagg) = (record.regions.unwrap(), record.secagg.as_ref().unwrap());
        assert_eq!(regions.summed + secagg.failed, regions.formed);
        assert_eq!(secagg.inputs, record.reported);
        assert_eq!(record.cohort, record.reported + record.dropped);
        assert!(record.reported > 0);
        failed += secagg.failed;
    }
    assert!(failed > 0);
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let error = |config: SimulationConfig| -> SimError {
        let disk = Arc::new(LocalDisk);
        let run = Tiny::with_parts(config, population(), TinyEngine::new(), disk);
        run.err().unwrap()
    };
    let robust = SimulationConfig {
        aggregation: AggregationConfig {
            robust: Some(RobustMean {
                groups: 10,
                mean: fl_core::GroupMean::Median,
            }),
            ..AggregationConfig::default()
        },
        ..flat()
    };
    let grouped = SimulationConfig {
        secagg: Some(SecAggConfig {
            groups: Some(20),
            ..SecAggConfig::new(SecAggMode::Ideal)
        }),
        ..flat()
    };
    let private = SimulationConfig {
        privacy: Some(Privacy::Central(CentralPrivacy::new(
            0.4,
            Epsilon::new(8.0).unwrap(),
            Delta::new(1e-3).unwrap(),
        ))),
        selection: SelectorConfig::Poisson(fl_core::select::PoissonConfig { rate: 0.2 }),
        fleet: FleetConfig::default(),
        ..flat()
    };
    let asynchronous = SimulationConfig {
        strategy: StrategyConfig::FedAsync(FedAsyncConfig::default()),
        schedule: ScheduleConfig {
            mode: Mode::Asynchronous {
                buffer: 1,
                max_staleness: None,
            },
            ..ScheduleConfig::default()
        },
        ..lab()
    };
    let cases = [
        (robust, "aggregation.robust is given"),
        (grouped, "secagg.groups is given"),
        (private, "privacy is given"),
        (asynchronous, "schedule.regions is given"),
    ];
    for (config, message) in cases {
        let error = error(regional(4, 0.0, config)).to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn a_round_that_is_interrupted_leaves_no_trace() {
    let config = regional(4, 0.3, secure(SecAggMode::Real, lab()));
    let (digest, expected) = play_config(config.clone());
    for trained in [1, 70, 150] {
        let flag: &'static AtomicBool = Box::leak(Box::default());
        let mut engine = TinyEngine::new();
        engine.interrupt = Some((trained, flag));
        let disk = Arc::new(LocalDisk);
        let mut run = Tiny::with_parts(config.clone(), population(), engine, disk).unwrap();
        let mut journal = Journal::default();
        run.run(&mut journal, flag).unwrap();
        flag.store(false, std::sync::atomic::Ordering::SeqCst);
        run.run(&mut journal, &AtomicBool::new(false)).unwrap();
        assert_eq!(run.parameters().digest(), digest, "after {trained}");
        assert!(journal == expected, "after {trained}");
    }
}
