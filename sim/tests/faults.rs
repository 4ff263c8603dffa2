//! Runs to which faults are done on purpose: what each of them does, and a thousand random mixtures in
//! all modes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::{Journal, Tiny, TinyEngine, TinyPopulation, config, play, uniform};
use fl_core::strategy::{FedAsyncConfig, FedBuffConfig, FedProxConfig, StrategyConfig};
use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_sim::devices::End;
use fl_sim::fleet::mix::DefaultRhythm;
use fl_sim::{
    CheckpointConfig, DeviceConfig, Fault, FaultAt, FaultsConfig, FaultsRecord, FleetConfig,
    LocalDisk, Mode, Outcome, Population as _, RegionsConfig, RoundEnd, ScheduleConfig,
    SecAggConfig, SecAggMode, SimError, SimulationConfig, TelemetryConfig,
};

/// Devices that are always there, and nothing that goes wrong by itself.
fn lab() -> SimulationConfig {
    SimulationConfig {
        rounds: 3,
        selection: uniform(40, 1.0),
        devices: Some(DeviceConfig {
            rhythm: Some(DefaultRhythm::AlwaysOn),
            ..DeviceConfig::default()
        }),
        fleet: FleetConfig::default(),
        telemetry: TelemetryConfig {
            minimum_group: 1,
            per_client: true,
        },
        ..config()
    }
}

fn asynchronous(buffer: u64, strategy: StrategyConfig) -> SimulationConfig {
    SimulationConfig {
        rounds: 10,
        selection: uniform(8, 1.0),
        strategy,
        schedule: ScheduleConfig {
            mode: Mode::Asynchronous {
                buffer,
                max_staleness: (buffer > 1).then_some(3),
            },
            ..ScheduleConfig::default()
        },
        ..lab()
    }
}

fn fedbuff() -> SimulationConfig {
    asynchronous(3, StrategyConfig::FedBuff(FedBuffConfig::default()))
}

fn fedasync() -> SimulationConfig {
    asynchronous(1, StrategyConfig::FedAsync(FedAsyncConfig::default()))
}

fn with(fault: Fault, chance: f64, config: SimulationConfig) -> SimulationConfig {
    SimulationConfig {
        faults: Some(FaultsConfig {
            chances: [(fault, chance)].into(),
            ..FaultsConfig::default()
        }),
        ..config
    }
}

fn population() -> TinyPopulation {
    TinyPopulation::new(200, 5)
}

fn simulation(config: SimulationConfig) -> Tiny {
    let disk = Arc::new(LocalDisk);
    Tiny::with_parts(config, population(), TinyEngine::new(), disk).unwrap()
}

fn records(journal: &Journal) -> Vec<FaultsRecord> {
    let rounds = journal.rounds.iter();
    rounds.map(|record| record.faults.unwrap()).collect()
}

#[test]
fn without_a_chance_all_is_as_without_faults() {
    for config in [lab(), fedbuff(), fedasync()] {
        let mut plain = simulation(config.clone());
        let expected = play(&mut plain);
        let mut faulty = simulation(with(Fault::NanUpdate, 0.0, config));
        let mut journal = play(&mut faulty);
        for record in &mut journal.rounds {
            assert_eq!(record.faults.take(), Some(FaultsRecord::default()));
        }
        assert!(journal == expected);
        assert_eq!(faulty.parameters().digest(), plain.parameters().digest());
    }
}

/// What a fault of all clients does to a synchronous round, and to the devices.
#[test]
fn a_fault_of_everybody_is_counted_for_everybody() {
    type Count = fn(&FaultsRecord) -> u64;
    let cases: [(Fault, Count, End); 6] = [
        (Fault::LeaveBefore, |it| it.left_before, End::Left),
        (Fault::LeaveDuring, |it| it.left_during, End::Left),
        (Fault::LeaveAfter, |it| it.left_after, End::Left),
        (Fault::LostReport, |it| it.lost, End::Lost),
        (Fault::CorruptUpdate, |it| it.corrupted, End::Refused),
        (Fault::NanUpdate, |it| it.not_finite, End::Counted),
    ];
    for (fault, count, end) in cases {
        for config in [
            lab(),
            SimulationConfig {
                devices: None,
                ..lab()
            },
        ] {
            let timed = config.devices.is_some();
            let journal = play(&mut simulation(with(fault, 1.0, config)));
            for record in &journal.rounds {
                let trained = record.cohort - if timed { 0 } else { record.surplus };
                let suffered = count(&record.faults.unwrap());
                assert_eq!((record.reported, record.update_norm), (0, 0.0), "{fault:?}");
                // Without devices clients without examples are in the cohort, too.
                assert!(suffered > 30 && suffered <= trained, "{fault:?} {record:?}");
                let rejected = if fault == Fault::NanUpdate {
                    suffered
                } else {
                    0
                };
                assert_eq!(record.rejected, rejected);
                assert_eq!(record.cohort, record.rejected + record.dropped);
                let fleet = record.fleet.as_ref().map(|fleet| fleet.end);
                assert_eq!(fleet, timed.then_some(RoundEnd::TooFewUpdates), "{fault:?}");
            }
            let ends = journal.parts.iter().filter(|part| part.end == end);
            assert_eq!(ends.count(), journal.parts.len(), "{fault:?}");
        }
    }
}

#[test]
fn clients_leave_in_the_part_of_their_way_that_is_said() {
    for (fault, part) in [
        (Fault::LeaveBefore, 0),
        (Fault::LeaveDuring, 1),
        (Fault::LeaveAfter, 2),
    ] {
        let journal = play(&mut simulation(with(fault, 1.0, lab())));
        for record in &journal.rounds {
            let fleet = record.fleet.as_ref().unwrap();
            let left = [
                fleet.left_downloading,
                fleet.left_training,
                fleet.left_uploading,
            ];
            // At the first moment of a part no byte of it is there.
            assert!(left[part] + 6 >= record.cohort, "{fault:?}: {left:?}");
        }
    }
}

#[test]
fn a_report_that_comes_twice_counts_once() {
    for config in [lab(), fedbuff(), fedasync()] {
        let mut plain = simulation(config.clone());
        let expected = play(&mut plain);
        let mut twice = simulation(with(Fault::DuplicateReport, 1.0, config));
        let mut journal = play(&mut twice);
        let duplicated: u64 = records(&journal).iter().map(|it| it.duplicated).sum();
        let reported: u64 = journal.rounds.iter().map(|record| record.reported).sum();
        assert!(duplicated >= reported && reported > 0);
        for record in &mut journal.rounds {
            record.faults = None;
        }
        assert!(journal == expected);
        assert_eq!(twice.parameters().digest(), plain.parameters().digest());
    }
}

#[test]
fn slow_networks_and_missing_delegates_take_time() {
    let seconds = |config| -> (f64, f64) {
        let journal = play(&mut simulation(config));
        let fleets = journal.rounds.iter().map(|it| it.fleet.clone().unwrap());
        fleets.fold((0.0, 0.0), |(up, train), fleet| {
            let (sent, trained) = (fleet.upload_seconds, fleet.training_seconds);
            (up + sent.unwrap(), train + trained.unwrap())
        })
    };
    let (up, train) = seconds(lab());
    let (slow, same) = seconds(with(Fault::SlowNetwork, 1.0, lab()));
    // To the microsecond of each.
    assert!((slow / up - 10.0).abs() < 0.01, "{slow} {up}");
    // Later on the day devices are warmer or cooler.
    assert!((same / train - 1.0).abs() < 0.05);
    let everybody = SimulationConfig {
        devices: Some(DeviceConfig {
            npu_share: 1.0,
            ..lab().devices.unwrap()
        }),
        ..lab()
    };
    let nobody = SimulationConfig {
        devices: Some(DeviceConfig {
            npu_share: 0.0,
            ..lab().devices.unwrap()
        }),
        ..lab()
    };
    let lost = seconds(with(Fault::MissingDelegate, 1.0, everybody));
    let (_, without) = seconds(nobody);
    assert!((lost.1 / without - 1.0).abs() < 1e-9, "{lost:?} {without}");
}

#[test]
fn an_aggregator_that_restarts_loses_a_round_or_nothing() {
    // A synchronous round is given up, and the next one is as if it had failed.
    let at = |round| FaultAt {
        round,
        fault: Fault::Restart,
        chance: 1.0,
    };
    let restarts = |config| SimulationConfig {
        faults: Some(FaultsConfig {
            at: vec![at(1)],
            ..FaultsConfig::default()
        }),
        ..config
    };
    let journal = play(&mut simulation(restarts(lab())));
    let ends = journal
        .rounds
        .iter()
        .map(|it| it.fleet.as_ref().unwrap().end);
    let ends: Vec<RoundEnd> = ends.collect();
    assert_eq!(
        ends,
        [RoundEnd::Applied, RoundEnd::Aborted, RoundEnd::Applied]
    );
    assert_eq!(
        (journal.rounds[1].reported, journal.rounds[1].update_norm),
        (0, 0.0)
    );
    // An asynchronous run goes on as if nothing had happened.
    for config in [fedbuff(), fedasync()] {
        let mut plain = simulation(config.clone());
        let expected = play(&mut plain);
        let mut restarted = simulation(with(Fault::Restart, 1.0, config));
        let mut journal = play(&mut restarted);
        let count: u64 = records(&journal).iter().map(|it| it.restarts).sum();
        assert!(count > 3, "{count}");
        for record in &mut journal.rounds {
            record.faults = None;
        }
        assert!(journal == expected);
        assert_eq!(restarted.parameters().digest(), plain.parameters().digest());
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let cases = [
        (
            with(Fault::LostReport, 1.5, lab()),
            "faults.chances is 1.5, which is out of range; give probabilities from 0 to 1",
        ),
        (
            SimulationConfig {
                devices: None,
                ..with(Fault::SlowNetwork, 0.1, lab())
            },
            "faults.chances is given, which is out of range; give neither slow-network nor missing-delegate where the fleet has no devices",
        ),
        (
            with(Fault::RegionOutage, 0.1, lab()),
            "faults.chances is given, which is out of range; give no region-outage without schedule.regions",
        ),
    ];
    for (config, message) in cases {
        let disk = Arc::new(LocalDisk);
        let run = Tiny::with_parts(config, population(), TinyEngine::new(), disk);
        assert_eq!(run.err().unwrap().to_string(), message);
    }
}

/// A random run with random faults.
fn random(seed: u64) -> SimulationConfig {
    let mut stream = Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0));
    let regions = Some(RegionsConfig {
        count: 1 + stream.below(4) as u32,
        outage: 0.3 * stream.uniform(),
    });
    let regional = |config: SimulationConfig| SimulationConfig {
        schedule: ScheduleConfig {
            regions,
            ..config.schedule
        },
        ..config
    };
    let secure = |mode, config: SimulationConfig| SimulationConfig {
        secagg: Some(SecAggConfig::new(mode)),
        ..config
    };
    let timeless = |config| SimulationConfig {
        devices: None,
        ..config
    };
    let hurried = SimulationConfig {
        strategy: StrategyConfig::FedProx(FedProxConfig::new(0.1)),
        schedule: ScheduleConfig {
            deadline: Some(0.2 + stream.uniform()),
            minimum_share: Some(0.4),
            lowered_share: Some(0.2),
            ..ScheduleConfig::default()
        },
        ..lab()
    };
    let base = match stream.below(12) {
        0 => lab(),
        1 => timeless(lab()),
        2 => hurried,
        3 => regional(hurried),
        4 => regional(lab()),
        5 => regional(timeless(lab())),
        6 => secure(SecAggMode::Ideal, lab()),
        7 => secure(SecAggMode::Real, timeless(lab())),
        8 => regional(secure(SecAggMode::Ideal, lab())),
        9 => regional(secure(SecAggMode::Real, lab())),
        10 => fedbuff(),
        _ => fedasync(),
    };
    let synchronous = base.schedule.mode == Mode::Synchronous;
    let over_select = 1.0 + stream.below(2) as f64 * 0.5;
    let possible = |fault: &Fault| match fault {
        Fault::SlowNetwork | Fault::MissingDelegate => base.devices.is_some(),
        Fault::RegionOutage => base.schedule.regions.is_some(),
        _ => true,
    };
    let mut faults = FaultsConfig {
        slow_factor: 1.0 + stream.below(50) as f64,
        ..FaultsConfig::default()
    };
    let all: Vec<Fault> = Fault::ALL.into_iter().filter(possible).collect();
    for &fault in &all {
        let (there, chance) = (stream.below(2) == 0, stream.uniform());
        if there {
            faults.chances.insert(fault, chance * chance);
        }
    }
    for _ in 0..stream.below(3) {
        faults.at.push(FaultAt {
            round: stream.below(4),
            fault: all[stream.below(all.len() as u64) as usize],
            chance: stream.uniform(),
        });
    }
    // Sessions need some clients to be safe.
    let least = if base.secagg.is_some() { 16 } else { 3 };
    let cohort = least + stream.below(12);
    SimulationConfig {
        seed: Seed(seed),
        rounds: 4,
        selection: uniform(cohort, if synchronous { over_select } else { 1.0 }),
        faults: Some(faults),
        fleet: FleetConfig {
            stragglers: if synchronous { 0.2 } else { 0.0 },
            dropout: 0.1 * stream.uniform(),
        },
        ..base
    }
}

/// Plays it; every update that was trained is in a sum once, or was lost with its session.
fn survives(config: &SimulationConfig) -> (Journal, bool) {
    let engine = TinyEngine::new();
    let trained = Arc::clone(&engine.trained);
    let (people, disk) = (population(), Arc::new(LocalDisk));
    let examples = |client: u64| population().train_len(ClientId(client));
    let mut run = Tiny::with_parts(config.clone(), people, engine, disk).unwrap();
    let mut journal = Journal::default();
    let synchronous = config.schedule.mode == Mode::Synchronous;
    let finished = match run.run(&mut journal, &AtomicBool::new(false)) {
        Ok(outcome) => outcome == Outcome::Finished,
        // Everybody was given a version, and nobody came back with an update.
        Err(SimError::NobodyComes { .. }) if !synchronous => false,
        Err(error) => panic!("{error}"),
    };
    assert!(run.parameters().values().iter().all(|it| it.is_finite()));
    let mut counted: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for part in journal.parts.iter().filter(|part| part.end == End::Counted) {
        // A part of an asynchronous run has the round in which its client was called.
        let new = counted.entry(part.round).or_default().insert(part.client);
        assert!(new, "client {} counts twice", part.client);
    }
    let mut summed = 0;
    for record in &journal.rounds {
        let ends = record.reported + record.rejected + record.dropped + record.surplus;
        assert_eq!(record.cohort, ends, "{record:?}");
        summed += record.reported + record.rejected;
        if config.devices.is_some() && synchronous && record.reported > 0 {
            let clients = counted.get(&record.round).cloned().unwrap_or_default();
            assert!(clients.len() as u64 >= record.reported);
            if record.rejected == 0 {
                assert_eq!(clients.len() as u64, record.reported);
                let sum: u64 = clients.iter().map(|&client| examples(client)).sum();
                assert_eq!(record.examples, sum, "the examples of its clients, once");
            }
        }
        if let Some(regions) = record.regions {
            assert!(regions.failed + regions.summed <= regions.formed);
        }
    }
    let trained = trained.load(Ordering::SeqCst) as u64;
    match config.secagg {
        None => assert_eq!(trained, summed, "each update is in one sum"),
        // Sessions fail with updates in them.
        Some(_) => assert!(trained >= summed),
    }
    (journal, finished)
}

/// Whether the run came to its end.
fn case(seed: u64) -> bool {
    let config = random(seed);
    let (journal, finished) = survives(&config);
    if finished && seed.is_multiple_of(10) {
        let three = survives(&SimulationConfig {
            threads: 3,
            ..config.clone()
        });
        assert!(three == (journal.clone(), true), "threads");
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
        let resumed = Tiny::resume_with_parts(saved(4), parts.0, parts.1, disk).unwrap();
        let rest = play(&mut resumed.unwrap());
        assert_eq!(rest.rounds, journal.rounds[2..], "resumed");
    }
    finished
}

/// Played again alone with the seed that failed in this variable.
const REPLAY: &str = "FLEDGLING_FAULTS_SEED";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a case that hangs is noticed from another thread"
)]
fn a_thousand_random_schedules_of_faults_are_survived() {
    let seeds = match std::env::var(REPLAY) {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..=seed
        }
        Err(_) => 0..=999,
    };
    let (tell, hear) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let mut unfinished = 0;
        for seed in seeds {
            tell.send(seed).unwrap();
            match std::panic::catch_unwind(AssertUnwindSafe(|| case(seed))) {
                Ok(finished) => unfinished += u32::from(!finished),
                Err(_) => panic!("seed {seed} fails; replay it with {REPLAY}={seed}"),
            }
        }
        unfinished
    });
    let mut last = 0;
    loop {
        match hear.recv_timeout(Duration::from_secs(120)) {
            Ok(seed) => last = seed,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("seed {last} hangs; replay it with {REPLAY}={last}")
            }
        }
    }
    let ended = worker.join();
    assert!(
        ended.is_ok(),
        "seed {last} fails; replay it with {REPLAY}={last}"
    );
    // Of a thousand; those that nobody comes to any more.
    assert!(ended.is_ok_and(|unfinished| unfinished <= 20));
}
