//! Synchronous and asynchronous runs on the devices of a fleet, on the virtual clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{
    Journal, Tiny, TinyEngine, TinyPopulation, config, play, play_config, resume, simulation,
    uniform,
};
use fl_core::select::{FairConfig, OortConfig, PowerOfChoiceConfig, SelectorConfig};
use fl_core::strategy::{
    FedAsyncConfig, FedAvgConfig, FedBuffConfig, FedProxConfig, StrategyConfig,
};
use fl_core::{ClientId, Seed, VirtualTime, wire};
use fl_sim::devices::End;
use fl_sim::fleet::mix::DefaultRhythm;
use fl_sim::fleet::{Fleet, Reason, Requirements};
use fl_sim::{
    CheckpointConfig, DeviceConfig, FleetConfig, FleetRecord, LocalDisk, MixConfig, Mode, Observer,
    Outcome, RoundEnd, RoundRecord, ScheduleConfig, SimulationConfig, TelemetryConfig,
};

/// Phones that must be on the charger, on WiFi and idle.
fn phones() -> SimulationConfig {
    SimulationConfig {
        rounds: 12,
        selection: uniform(6, 1.5),
        fleet: FleetConfig::default(),
        devices: Some(DeviceConfig::default()),
        telemetry: TelemetryConfig {
            minimum_group: 1,
            per_client: true,
        },
        ..config()
    }
}

/// Devices that are always there.
fn lab() -> SimulationConfig {
    let rhythm = Some(DefaultRhythm::AlwaysOn);
    SimulationConfig {
        devices: Some(DeviceConfig {
            rhythm,
            ..DeviceConfig::default()
        }),
        ..phones()
    }
}

fn buffered(strategy: StrategyConfig) -> SimulationConfig {
    SimulationConfig {
        rounds: 25,
        selection: uniform(8, 1.0),
        strategy,
        schedule: ScheduleConfig {
            mode: Mode::Asynchronous {
                buffer: 3,
                max_staleness: Some(4),
            },
            ..ScheduleConfig::default()
        },
        fleet: FleetConfig {
            stragglers: 0.0,
            dropout: 0.1,
        },
        ..phones()
    }
}

fn fedbuff() -> SimulationConfig {
    buffered(StrategyConfig::FedBuff(FedBuffConfig::default()))
}

fn fedasync() -> SimulationConfig {
    let one = buffered(StrategyConfig::FedAsync(FedAsyncConfig::default()));
    SimulationConfig {
        schedule: ScheduleConfig {
            mode: Mode::Asynchronous {
                buffer: 1,
                max_staleness: None,
            },
            ..one.schedule
        },
        ..one
    }
}

/// Seconds in which a half of the devices are done.
const DEADLINE: f64 = 0.9;

/// Slow and hurried: a deadline that not all meet, and partial work.
fn semi_synchronous() -> SimulationConfig {
    SimulationConfig {
        strategy: StrategyConfig::FedProx(FedProxConfig::new(0.1)),
        local: common::plan(100, 4),
        schedule: ScheduleConfig {
            deadline: Some(DEADLINE),
            ..ScheduleConfig::default()
        },
        ..lab()
    }
}

/// Selectors that learn from who took part, in rounds and without.
fn learning() -> Vec<(&'static str, SimulationConfig)> {
    let (cohort, over_select) = (5, 1.0);
    let oort = SelectorConfig::Oort(OortConfig::new(cohort));
    let power = SelectorConfig::PowerOfChoice(PowerOfChoiceConfig {
        cohort,
        candidates: 12,
        over_select,
    });
    let fair = SelectorConfig::Fair(FairConfig {
        cohort,
        over_select,
    });
    let with = |selection: &SelectorConfig, base| SimulationConfig {
        selection: selection.clone(),
        ..base
    };
    vec![
        ("oort", with(&oort, phones())),
        ("asynchronous oort", with(&oort, fedbuff())),
        ("power of choice", with(&power, lab())),
        ("fair", with(&fair, lab())),
    ]
}

fn modes() -> Vec<(&'static str, SimulationConfig)> {
    vec![
        ("synchronous", phones()),
        ("semi-synchronous", semi_synchronous()),
        ("fedbuff", fedbuff()),
        ("fedasync", fedasync()),
    ]
    .into_iter()
    .chain(learning())
    .collect()
}

fn fleets(journal: &Journal) -> impl Iterator<Item = (&RoundRecord, &FleetRecord)> {
    let rounds = journal.rounds.iter();
    rounds.map(|record| (record, record.fleet.as_ref().unwrap()))
}

#[test]
fn threads_change_nothing() {
    for (name, config) in modes() {
        let one = play_config(config.clone());
        let three = play_config(SimulationConfig {
            threads: 3,
            ..config
        });
        assert!(one == three, "{name}");
        let ends: Vec<f64> = fleets(&one.1).map(|(_, fleet)| fleet.ended).collect();
        assert!(ends.is_sorted(), "{name}: {ends:?}");
        assert!(ends.last() > Some(&0.0), "{name}: time passes");
        assert!(!one.1.parts.is_empty(), "{name}");
    }
}

/// Stops after every round in turn.
struct StopAfter<'a>(Journal, u64, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn round(&mut self, record: &RoundRecord) {
        self.0.round(record);
        if record.round + 1 == self.1 {
            self.2.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    fn took_part(&mut self, part: &fl_sim::ClientPart) {
        self.0.took_part(part);
    }
    fn evaluated(&mut self, record: &fl_sim::EvaluationRecord) {
        self.0.evaluated(record);
    }
    fn client_evaluated(&mut self, record: &fl_sim::ClientEvaluation) {
        self.0.client_evaluated(record);
    }
    fn flush(
        &mut self,
        round: fl_core::RoundId,
    ) -> Result<fl_sim::RecorderPosition, fl_sim::ObserverError> {
        self.0.flush(round)
    }
}

#[test]
fn a_run_that_is_stopped_anywhere_and_resumed_is_the_uninterrupted_run() {
    for (name, config) in modes() {
        let (digest, expected) = play_config(config.clone());
        for stopped in 1..config.rounds {
            let dir = tempfile::tempdir().unwrap();
            let config = SimulationConfig {
                checkpoint: Some(CheckpointConfig {
                    dir: dir.path().join("checkpoint"),
                    every: 100,
                }),
                ..config.clone()
            };
            let flag = AtomicBool::new(false);
            let mut observer = StopAfter(Journal::default(), stopped, &flag);
            simulation(config.clone())
                .run(&mut observer, &flag)
                .unwrap();
            let mut journal = observer.0;
            let mut second = resume(SimulationConfig {
                threads: 2,
                ..config
            })
            .unwrap();
            journal.truncate(second.position());
            second.run(&mut journal, &AtomicBool::new(false)).unwrap();
            assert_eq!(
                second.parameters().digest(),
                digest,
                "{name} after {stopped}"
            );
            assert!(
                journal.outcome() == expected.outcome(),
                "{name} after {stopped}"
            );
        }
    }
}

#[test]
fn a_round_that_is_interrupted_leaves_no_trace() {
    for (name, config) in modes() {
        let (digest, expected) = play_config(config.clone());
        for trained in [1, 7, 20] {
            let flag: &'static AtomicBool = Box::leak(Box::default());
            let mut engine = TinyEngine::new();
            engine.interrupt = Some((trained, flag));
            let parts = (config.clone(), common::population());
            let mut run = Tiny::with_parts(parts.0, parts.1, engine, Arc::new(LocalDisk)).unwrap();
            let mut journal = Journal::default();
            let outcome = run.run(&mut journal, flag).unwrap();
            assert!(
                matches!(outcome, Outcome::Stopped { .. }),
                "{name}: {outcome:?}"
            );
            flag.store(false, std::sync::atomic::Ordering::SeqCst);
            run.run(&mut journal, &AtomicBool::new(false)).unwrap();
            assert_eq!(run.parameters().digest(), digest, "{name} after {trained}");
            assert!(journal == expected, "{name} after {trained}");
        }
    }
}

#[test]
fn nobody_is_called_who_may_not_come_and_nobody_twice_at_a_time() {
    for (name, config) in modes() {
        let devices = config.devices.clone().unwrap();
        let fleet = Fleet::new(&devices, config.seed).unwrap();
        let (_, journal) = play_config(config);
        let micros = |seconds: f64| VirtualTime((seconds * 1e6).round() as u64);
        let mut busy: BTreeMap<u64, f64> = BTreeMap::new();
        let mut parts = journal.parts.clone();
        parts.sort_by(|a, b| a.started.total_cmp(&b.started));
        for part in &parts {
            let client = ClientId(part.client);
            let until = fleet.holds_until(client, micros(part.started));
            let until = until.unwrap_or_else(|signal| panic!("{name}: {signal:?}"));
            // Whoever is not stopped goes when it must.
            assert!(micros(part.ended) <= until, "{name}");
            let before = busy.insert(part.client, part.ended);
            assert!(before.is_none_or(|ended| ended <= part.started), "{name}");
            assert!(part.client * 7 % 41 > 0, "{name}: has examples");
        }
    }
}

#[test]
fn rounds_are_accounted_for() {
    for (name, config) in modes() {
        let (_, journal) = play_config(config);
        for (record, fleet) in fleets(&journal) {
            let ends = record.reported + record.rejected + record.dropped + record.surplus;
            assert_eq!(record.cohort, ends, "{name}: {record:?}");
            let left = fleet.left_downloading + fleet.left_training + fleet.left_uploading;
            assert!(fleet.called >= record.reported + left + fleet.late + fleet.surplus);
            assert_eq!(fleet.asked, fleet.eligible + fleet.ineligible.total());
        }
        let counted = journal.parts.iter().filter(|part| part.end == End::Counted);
        let reported: u64 = journal.rounds.iter().map(|record| record.reported).sum();
        assert_eq!(counted.count() as u64, reported, "{name}");
    }
}

#[test]
fn bytes_are_those_of_the_messages() {
    let (_, journal) = play_config(SimulationConfig {
        selection: uniform(10, 1.0),
        ..lab()
    });
    let parameters = common::FEATURES as u64 + 1;
    let update = wire::update_bytes(parameters, None);
    let plan = postcard::to_stdvec(&lab().local).unwrap().len() as u64;
    let task = wire::task_bytes(parameters, plan);
    for (record, _) in fleets(&journal) {
        assert_eq!((record.cohort, record.reported), (10, 10));
        assert_eq!(record.bytes_up, 10 * update);
        assert_eq!(record.bytes_down, 10 * task);
    }
}

#[test]
fn only_the_first_reports_count_and_the_others_stop_then() {
    let (_, journal) = play_config(SimulationConfig {
        selection: uniform(6, 2.0),
        ..lab()
    });
    for (record, fleet) in fleets(&journal) {
        assert_eq!((record.reported, record.surplus), (6, 6));
        let parts: Vec<_> = (journal.parts.iter())
            .filter(|part| part.round == record.round)
            .collect();
        let last = (parts.iter())
            .filter(|part| part.end == End::Counted)
            .map(|part| part.ended)
            .fold(0.0, f64::max);
        assert!((last - fleet.ended).abs() < 1e-9);
        for part in parts.iter().filter(|part| part.end == End::Surplus) {
            assert!((part.ended - fleet.ended).abs() < 1e-9);
        }
    }
}

#[test]
fn a_deadline_cuts_the_work_of_who_can_send_a_part_and_the_others_are_late() {
    let (_, partial) = play_config(semi_synchronous());
    let cut: u64 = fleets(&partial).map(|(_, fleet)| fleet.partial).sum();
    let times: Vec<_> = fleets(&partial)
        .map(|(_, fleet)| fleet.training_seconds)
        .collect();
    assert!(cut > 0, "{times:?}");
    let (_, whole) = play_config(SimulationConfig {
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        ..semi_synchronous()
    });
    let late: u64 = fleets(&whole).map(|(_, fleet)| fleet.late).sum();
    assert!(late > 0);
    assert!(fleets(&whole).all(|(_, fleet)| fleet.partial == 0));
    for (_, fleet) in fleets(&whole).chain(fleets(&partial)) {
        assert!(fleet.ended - fleet.started <= DEADLINE + 1e-6, "{fleet:?}");
    }
}

/// Of a thousand clients, each of whom drops out with some probability: completes, completes, with
/// the lowered threshold, fails.
#[test]
fn rounds_that_too_many_drop_out_of_fail_and_are_tried_again() {
    let play = |dropout, lowered_share| {
        let config = SimulationConfig {
            rounds: 3,
            selection: uniform(1000, 1.0),
            fleet: FleetConfig {
                stragglers: 0.0,
                dropout,
            },
            schedule: ScheduleConfig {
                minimum_share: Some(0.5),
                lowered_share,
                ..ScheduleConfig::default()
            },
            ..lab()
        };
        let population = TinyPopulation::new(3000, 5);
        let disk = Arc::new(LocalDisk);
        let mut run = Tiny::with_parts(config, population, TinyEngine::new(), disk).unwrap();
        play(&mut run)
    };
    let ends = |journal: &Journal| -> Vec<RoundEnd> {
        fleets(journal).map(|(_, fleet)| fleet.end).collect()
    };
    assert_eq!(ends(&play(0.3, None)), [RoundEnd::Applied; 3]);
    assert_eq!(ends(&play(0.6, None)), [RoundEnd::TooFewUpdates; 3]);
    assert_eq!(ends(&play(0.6, Some(0.3))), [RoundEnd::Lowered; 3]);
    let failed = play(0.75, Some(0.3));
    assert_eq!(ends(&failed), [RoundEnd::TooFewUpdates; 3]);
    // The model stays, and the next cohort is called ten minutes later.
    for pair in failed.rounds.windows(2) {
        let [before, after] = [&pair[0], &pair[1]].map(|record| record.fleet.as_ref().unwrap());
        assert!((after.started - before.ended - 600.0).abs() < 1e-6);
    }
    assert!(failed.rounds.iter().all(|record| record.update_norm == 0.0));
}

#[test]
fn asynchronous_updates_are_stale_but_never_too_stale() {
    let (_, journal) = play_config(fedbuff());
    let stalest = fleets(&journal).map(|(_, fleet)| fleet.staleness_max).max();
    assert!((1..=4).contains(&stalest.unwrap()), "{stalest:?}");
    for (record, fleet) in fleets(&journal) {
        assert!((1..=3).contains(&record.reported) && fleet.in_flight <= 8);
    }
    // Fewer than the buffer only where nobody else could be called.
    let full = |record: &&RoundRecord| record.reported == 3;
    assert!(journal.rounds.iter().filter(full).count() > 15);
    let (_, one) = play_config(fedasync());
    assert!(one.rounds.iter().all(|record| record.reported == 1));
}

#[test]
fn clients_come_as_often_as_they_may_and_no_more() {
    let most = |most| {
        let devices = DeviceConfig {
            rhythm: Some(DefaultRhythm::AlwaysOn),
            requirements: Requirements {
                max_participations: Some(most),
                ..Requirements::default()
            },
            ..DeviceConfig::default()
        };
        let (_, journal) = play_config(SimulationConfig {
            rounds: 15,
            selection: uniform(10, 1.0),
            devices: Some(devices),
            ..phones()
        });
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for part in &journal.parts {
            *times.entry(part.client).or_default() += 1;
        }
        let refused: u64 = fleets(&journal)
            .map(|(_, fleet)| fleet.ineligible.of(Reason::Participations))
            .sum();
        (times.values().copied().max().unwrap(), refused > 0)
    };
    assert_eq!(most(1), (1, true));
    assert_eq!(most(2), (2, true));
}

/// The selector without memory lets some come thrice before others came once.
#[test]
fn the_fair_selector_lets_everybody_come_before_anybody_comes_again() {
    let played = |selection| {
        let (_, journal) = play_config(SimulationConfig {
            rounds: 16,
            selection,
            ..lab()
        });
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for part in journal.parts.iter().filter(|part| part.end == End::Counted) {
            *times.entry(part.client).or_default() += 1;
        }
        times
    };
    // 80 places for the 58 clients with examples.
    let fair = played(SelectorConfig::Fair(FairConfig {
        cohort: 5,
        over_select: 1.0,
    }));
    assert_eq!(fair.len(), 58);
    assert!(fair.values().all(|times| (1..=2).contains(times)));
    assert!(played(uniform(5, 1.0)).len() < 58);
}

#[test]
fn few_devices_are_not_told_of() {
    let (_, journal) = play_config(SimulationConfig {
        telemetry: TelemetryConfig {
            minimum_group: 7,
            per_client: false,
        },
        ..lab()
    });
    assert!(journal.parts.is_empty());
    for (_, fleet) in fleets(&journal) {
        assert_eq!((fleet.seconds_mean, fleet.seconds_p90), (None, None));
        // Nine were called and began to train, or not all.
        assert_eq!(fleet.called, 9);
    }
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let error = |config: SimulationConfig| {
        let disk = Arc::new(LocalDisk);
        let parts = (common::population(), TinyEngine::new());
        let run = Tiny::with_parts(config, parts.0, parts.1, disk);
        run.err().unwrap().to_string()
    };
    let cases = [
        (
            SimulationConfig {
                devices: None,
                ..fedbuff()
            },
            "schedule.mode is asynchronous, which is out of range; give devices to the fleet, too: without them no time passes",
        ),
        (
            SimulationConfig {
                fleet: FleetConfig {
                    stragglers: 0.5,
                    dropout: 0.0,
                },
                ..fedbuff()
            },
            "fleet.stragglers is given, which is out of range; give 0 with schedule.mode = \"asynchronous\": there the devices say who is slow",
        ),
        (
            SimulationConfig {
                devices: Some(DeviceConfig {
                    mix: MixConfig::Named("phones-2052".to_owned()),
                    ..DeviceConfig::default()
                }),
                ..phones()
            },
            "fleet: there is no mix and no device class called `phones-2052`; did you mean `phones-2025`?",
        ),
        (
            SimulationConfig {
                telemetry: TelemetryConfig {
                    minimum_group: 0,
                    per_client: false,
                },
                ..phones()
            },
            "telemetry.minimum_group is 0, which is out of range; give a whole number of at least 1",
        ),
    ];
    for (config, message) in cases {
        assert_eq!(error(config), message);
    }
}

/// In rounds each of them fails; without rounds the run ends with an error and does not hang.
#[test]
fn where_nobody_can_come_a_run_ends() {
    let nobody = |config: SimulationConfig| SimulationConfig {
        devices: Some(DeviceConfig {
            requirements: Requirements {
                min_examples: 1000,
                ..Requirements::default()
            },
            ..DeviceConfig::default()
        }),
        ..config
    };
    let (_, journal) = play_config(nobody(phones()));
    for (record, fleet) in fleets(&journal) {
        assert_eq!((record.cohort, fleet.end), (0, RoundEnd::TooFewReady));
        assert_eq!(fleet.ineligible.of(Reason::Examples), 60);
    }
    let mut run = simulation(nobody(fedbuff()));
    let error = run.run(&mut Journal::default(), &AtomicBool::new(false));
    assert_eq!(
        error.unwrap_err().to_string(),
        "round 0: nobody was at work, and no client could be called in 1008 tries, which are \
         schedule.retry_after apart; lower what fleet asks of devices, or choose others"
    );
}

#[test]
fn another_seed_is_another_fleet() {
    let (digest, journal) = play_config(phones());
    let (other_digest, other) = play_config(SimulationConfig {
        seed: Seed(12),
        ..phones()
    });
    assert_ne!(digest, other_digest);
    assert_ne!(journal.rounds[0].fleet, other.rounds[0].fleet);
    // The same run again is the same.
    let mut again = simulation(phones());
    assert!(play(&mut again) == journal);
}
