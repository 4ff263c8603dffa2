//! Runs that are stopped, interrupted, resumed and extended.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    Journal, Tiny, TinyEngine, TinyPopulation, config, play, play_config, population, resume,
    simulation,
};
use fl_core::strategy::{FedAvg, FedAvgConfig, Outside, StrategyConfig};
use fl_core::{Registered as _, RoundId, Seed};
use fl_sim::{
    CheckpointConfig, LocalDisk, Observer, Outcome, RecorderPosition, RoundRecord, SimulationConfig,
};

/// Raises the flag once so many rounds were seen.
struct StopAfter<'a> {
    rounds: u64,
    flag: &'a AtomicBool,
    journal: Journal,
}

impl Observer for StopAfter<'_> {
    fn round(&mut self, record: &RoundRecord) {
        self.journal.round(record);
        if record.round + 1 >= self.rounds {
            self.flag.store(true, Ordering::SeqCst);
        }
    }
    fn evaluated(&mut self, record: &fl_sim::EvaluationRecord) {
        self.journal.evaluated(record);
    }
    fn client_evaluated(&mut self, record: &fl_sim::ClientEvaluation) {
        self.journal.client_evaluated(record);
    }
    fn flush(&mut self, round: RoundId) -> Result<RecorderPosition, fl_sim::ObserverError> {
        self.journal.flush(round)
    }
    fn checkpointed(&mut self, round: RoundId) -> Result<(), fl_sim::ObserverError> {
        self.journal.checkpointed(round)
    }
}

fn checkpointed(dir: &std::path::Path, every: u64) -> SimulationConfig {
    SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.join("checkpoint"),
            every,
        }),
        ..config()
    }
}

#[test]
fn a_run_that_is_stopped_after_any_round_and_resumed_is_the_uninterrupted_run() {
    let momentum = FedAvgConfig {
        server_momentum: 0.9,
        server_learning_rate: 0.1,
        ..FedAvgConfig::default()
    };
    // One from outside that does the same gives the same model.
    let outside = FedAvg::from_config(momentum).unwrap();
    let outside = StrategyConfig::Outside(Outside::new("outside", outside, ""));
    let momentum = StrategyConfig::FedAvg(momentum);
    let digest = |strategy: &StrategyConfig| {
        let strategy = strategy.clone();
        play_config(SimulationConfig {
            strategy,
            ..config()
        })
        .0
    };
    assert_eq!(digest(&outside), digest(&momentum));
    for strategy in [config().strategy, momentum, outside] {
        let (digest, expected) = play_config(SimulationConfig {
            strategy: strategy.clone(),
            ..config()
        });
        for rounds in 1..=6 {
            for every in [1, 4, 100] {
                let dir = tempfile::tempdir().unwrap();
                let config = SimulationConfig {
                    strategy: strategy.clone(),
                    ..checkpointed(dir.path(), every)
                };
                let flag = AtomicBool::new(false);
                let mut observer = StopAfter {
                    rounds,
                    flag: &flag,
                    journal: Journal::default(),
                };
                let mut first = simulation(config.clone());
                let outcome = first.run(&mut observer, &flag).unwrap();
                let mut journal = observer.journal;
                // Also after the last round: its evaluation is still to come.
                assert_eq!(outcome, Outcome::Stopped { round: rounds });
                assert_eq!(journal.checkpoints.last(), Some(&rounds));
                drop(first);
                let mut second = resume(SimulationConfig {
                    threads: 2,
                    ..config.clone()
                })
                .unwrap();
                assert_eq!(second.round(), rounds);
                journal.truncate(second.position());
                let outcome = second.run(&mut journal, &AtomicBool::new(false)).unwrap();
                assert_eq!(outcome, Outcome::Finished);
                assert_eq!(second.parameters().digest(), digest);
                assert_eq!(journal.outcome(), expected.outcome());
                // All that was reported is in the checkpoint, so nothing is reported again.
                let mut third = resume(config).unwrap();
                assert_eq!(play(&mut third), Journal::default());
            }
        }
    }
}

#[test]
fn a_round_that_is_interrupted_leaves_no_trace() {
    static FLAG: AtomicBool = AtomicBool::new(false);
    let (digest, expected) = play_config(config());
    for clients in [1, 5, 13, 30] {
        FLAG.store(false, Ordering::SeqCst);
        let dir = tempfile::tempdir().unwrap();
        let config = checkpointed(dir.path(), 100);
        let engine = TinyEngine {
            interrupt: Some((clients, &FLAG)),
            lanes: 1,
            ..TinyEngine::new()
        };
        let mut first =
            Tiny::with_parts(config.clone(), population(), engine, Arc::new(LocalDisk)).unwrap();
        let mut journal = Journal::default();
        let outcome = first.run(&mut journal, &FLAG).unwrap();
        let Outcome::Stopped { round } = outcome else {
            panic!("{outcome:?} after {clients} clients");
        };
        assert_eq!(journal.rounds.len() as u64, round);
        // On the spot, with the flag lowered from outside of the engine...
        let mut resumed = resume(config).unwrap();
        assert_eq!(resumed.round(), round);
        assert_eq!(resumed.parameters(), first.parameters());
        let mut second = journal.clone();
        second.truncate(resumed.position());
        resumed.run(&mut second, &AtomicBool::new(false)).unwrap();
        assert_eq!(resumed.parameters().digest(), digest);
        assert_eq!(second.outcome(), expected.outcome());
        // ... and by the same value, which goes on where it was.
        first.run(&mut journal, &AtomicBool::new(false)).unwrap();
        assert_eq!(first.parameters().digest(), digest);
        assert_eq!(journal.outcome(), expected.outcome());
    }
}

#[test]
fn an_evaluation_that_is_interrupted_leaves_no_trace() {
    static FLAG: AtomicBool = AtomicBool::new(false);
    let (digest, expected) = play_config(config());
    // An evaluation is 3 chunks of the test set and 60 clients' training examples; the last
    // one has 60 clients' held-out examples beside.
    for (calls, rounds, evaluations) in
        [(1, 0, 0), (40, 0, 0), (64, 2, 1), (130, 4, 2), (250, 6, 3)]
    {
        FLAG.store(false, Ordering::SeqCst);
        let dir = tempfile::tempdir().unwrap();
        let config = checkpointed(dir.path(), 100);
        let engine = TinyEngine {
            interrupt_evaluation: Some((calls, &FLAG)),
            ..TinyEngine::new()
        };
        let mut first =
            Tiny::with_parts(config.clone(), population(), engine, Arc::new(LocalDisk)).unwrap();
        let mut journal = Journal::default();
        let outcome = first.run(&mut journal, &FLAG).unwrap();
        assert_eq!(outcome, Outcome::Stopped { round: rounds });
        assert_eq!(journal.rounds.len() as u64, rounds);
        assert_eq!(journal.evaluations.len(), evaluations);
        let mut second = journal.clone();
        let mut resumed = resume(config).unwrap();
        second.truncate(resumed.position());
        resumed.run(&mut second, &AtomicBool::new(false)).unwrap();
        assert_eq!(resumed.parameters().digest(), digest);
        assert_eq!(second.outcome(), expected.outcome());
        first.run(&mut journal, &AtomicBool::new(false)).unwrap();
        assert_eq!(first.parameters().digest(), digest);
        assert_eq!(journal.outcome(), expected.outcome());
    }
}

#[test]
fn resuming_a_finished_run_does_nothing_and_more_rounds_extend_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = checkpointed(dir.path(), 2);
    assert!(resume(config.clone()).is_none());
    let mut first = simulation(config.clone());
    let mut journal = play(&mut first);
    let mut again = resume(config.clone()).unwrap();
    assert_eq!(again.position(), RecorderPosition(6));
    let silence = play(&mut again);
    assert_eq!(silence, Journal::default());
    assert_eq!(again.parameters(), first.parameters());
    assert_eq!(play(&mut first), Journal::default());

    let more = SimulationConfig {
        rounds: 8,
        ..config.clone()
    };
    let mut extended = resume(more.clone()).unwrap();
    extended.run(&mut journal, &AtomicBool::new(false)).unwrap();
    let fresh = play_config(SimulationConfig {
        checkpoint: None,
        ..more
    });
    assert_eq!(extended.parameters().digest(), fresh.0);
    assert_eq!(journal.rounds, fresh.1.rounds);

    let fewer = SimulationConfig {
        rounds: 3,
        ..config
    };
    let error =
        Tiny::resume_with_parts(fewer, population(), TinyEngine::new(), Arc::new(LocalDisk))
            .err()
            .unwrap()
            .to_string();
    assert!(
        error.ends_with(
            "has done 8 rounds and the run asks for 3; set rounds to at least 8, or remove the \
             folder to start afresh"
        ),
        "{error}"
    );
}

#[test]
fn a_new_run_removes_the_checkpoints_of_the_former_one() {
    let dir = tempfile::tempdir().unwrap();
    play(&mut simulation(checkpointed(dir.path(), 1)));
    let flag = AtomicBool::new(true);
    let mut journal = Journal::default();
    let outcome = simulation(checkpointed(dir.path(), 1))
        .run(&mut journal, &flag)
        .unwrap();
    assert_eq!(outcome, Outcome::Stopped { round: 0 });
    assert_eq!(journal.checkpoints, [0]);
    assert_eq!(resume(checkpointed(dir.path(), 1)).unwrap().round(), 0);
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = checkpointed(dir.path(), 1);
    play(&mut simulation(config.clone()));
    let refusal = |config: SimulationConfig, population: TinyPopulation, engine: TinyEngine| {
        Tiny::resume_with_parts(config, population, engine, Arc::new(LocalDisk))
            .err()
            .unwrap()
            .to_string()
    };
    let path = dir.path().join("checkpoint/round-000000000006.checkpoint");
    let path = path.display();
    let seed = SimulationConfig {
        seed: Seed(12),
        ..config.clone()
    };
    assert_eq!(
        refusal(seed, population(), TinyEngine::new()),
        format!(
            "checkpoint `{path}` is of another configuration; resume with the configuration that \
             it was written with, or remove the folder to start afresh"
        )
    );
    assert_eq!(
        refusal(
            config.clone(),
            TinyPopulation::new(60, 6),
            TinyEngine::new()
        ),
        format!(
            "checkpoint `{path}` is of another data set; resume with the data set that it was \
             written with, or remove the folder to start afresh"
        )
    );
    let engine = TinyEngine {
        kernel: "other".to_owned(),
        ..TinyEngine::new()
    };
    assert_eq!(
        refusal(config, population(), engine),
        format!(
            "checkpoint `{path}` was computed with the `tiny` kernels and this process uses \
             `other`; resume on a machine with `tiny`, or remove the folder to start afresh"
        )
    );
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_with_a_warning() {
    struct Warned(Vec<String>, Journal);
    impl Observer for Warned {
        fn warning(&mut self, warning: &fl_sim::CheckpointWarning) {
            self.0.push(warning.to_string());
        }
        fn round(&mut self, record: &RoundRecord) {
            self.1.round(record);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let config = checkpointed(dir.path(), 1);
    let mut whole = simulation(config.clone());
    play(&mut whole);
    let newest = dir.path().join("checkpoint/round-000000000006.checkpoint");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() - 10]).unwrap();
    let mut resumed = resume(config.clone()).unwrap();
    assert_eq!(resumed.round(), 5);
    assert_eq!(resumed.warnings().len(), 1);
    let mut warned = Warned(Vec::new(), Journal::default());
    resumed.run(&mut warned, &AtomicBool::new(false)).unwrap();
    assert_eq!(
        warned.0,
        [format!(
            "checkpoint `{}` is damaged: its checksum does not match its contents; an older one \
             was used",
            newest.display()
        )]
    );
    assert_eq!(warned.1.rounds.len(), 1);
    assert_eq!(resumed.parameters(), whole.parameters());
    assert_eq!(std::fs::read(&newest).unwrap().len(), bytes.len());
    // And when both are damaged, the run says so in place of starting afresh.
    for entry in std::fs::read_dir(dir.path().join("checkpoint")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"").unwrap();
    }
    let error =
        Tiny::resume_with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk))
            .err()
            .unwrap()
            .to_string();
    assert!(error.contains("no checkpoint in"), "{error}");
}

#[test]
fn the_run_ends_when_the_accuracy_is_reached_also_after_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let config = SimulationConfig {
        rounds: 500,
        secagg: None,
        stop_at_accuracy: Some(0.9),
        ..checkpointed(dir.path(), 1000)
    };
    let mut first = simulation(config.clone());
    let mut journal = Journal::default();
    let outcome = first.run(&mut journal, &AtomicBool::new(false)).unwrap();
    let Outcome::TargetReached { round } = outcome else {
        panic!("{outcome:?}");
    };
    assert!((2..200).contains(&round), "{round}");
    let last = journal.evaluations.last().unwrap();
    assert!(last.round == round && last.test_accuracy >= Some(0.9));
    assert_eq!(journal.clients.len(), 60);
    assert_eq!(journal.checkpoints, [round]);
    let mut second = resume(config).unwrap();
    let mut silence = Journal::default();
    assert_eq!(
        second.run(&mut silence, &AtomicBool::new(false)).unwrap(),
        outcome
    );
    assert_eq!(silence, Journal::default());
}
