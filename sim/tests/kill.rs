//! `kill -9` at any moment: a child process that plays a run is killed again and again, and the
//! run, resumed each time, ends as the uninterrupted one does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Journal, Tiny, TinyEngine, TinyPopulation, plan};
use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_sim::{
    AggregationConfig, CheckpointConfig, EvaluationConfig, FleetConfig, LocalDisk, Observer,
    Outcome, RoundRecord, SimulationConfig,
};

const FOLDER: &str = "FL_SIM_KILL_TEST_FOLDER";
const ROUNDS: u64 = 300;

fn config(dir: &Path, threads: usize) -> SimulationConfig {
    SimulationConfig {
        seed: Seed(8),
        rounds: ROUNDS,
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort: 10,
            over_select: 1.2,
        }),
        local: plan(2, 8),
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            server_momentum: 0.5,
            server_learning_rate: 0.5,
            ..FedAvgConfig::default()
        }),
        fleet: FleetConfig {
            stragglers: 0.2,
            dropout: 0.1,
        },
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        evaluation: EvaluationConfig {
            every: 50,
            ..EvaluationConfig::default()
        },
        threads,
        checkpoint: Some(CheckpointConfig {
            dir: dir.to_owned(),
            every: 1,
        }),
        privacy: None,
        aggregation: AggregationConfig::default(),
        secagg: None,
        pruning: None,
        faults: None,
        stop_at_accuracy: None,
    }
}

/// Plays the run in `dir` from where it stands.
fn play(dir: &Path, threads: usize, observer: &mut dyn Observer) -> String {
    let parts = || (TinyPopulation::new(80, 2), TinyEngine::new());
    let (population, engine) = parts();
    let disk = Arc::new(LocalDisk);
    let resumed =
        Tiny::resume_with_parts(config(dir, threads), population, engine, disk.clone()).unwrap();
    let mut simulation = resumed.unwrap_or_else(|| {
        let (population, engine) = parts();
        Tiny::with_parts(config(dir, threads), population, engine, disk).unwrap()
    });
    let outcome = simulation.run(observer, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    simulation.parameters().digest().to_string()
}

/// Makes a round last long enough to be hit, whatever the machine.
struct Slow;

impl Observer for Slow {
    fn round(&mut self, _: &RoundRecord) {
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Not a test by itself: what the child process does. Without the variable it does nothing.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        let dir = PathBuf::from(dir);
        let digest = play(&dir, 2, &mut Slow);
        // Whole or not at all: this, too, may be killed.
        std::fs::write(dir.with_extension("writing"), digest).unwrap();
        std::fs::rename(dir.with_extension("writing"), dir.with_extension("digest")).unwrap();
    }
}

#[test]
fn a_run_that_is_killed_many_times_ends_as_if_it_never_was() {
    let root = tempfile::tempdir().unwrap();
    let expected = play(&root.path().join("whole"), 1, &mut Journal::default());
    let dir = root.path().join("killed");
    let result = dir.with_extension("digest");
    let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
    let mut kills = 0;
    while !result.exists() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--test-threads=1"])
            .env(FOLDER, &dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Longer and longer, so that the run ends on a slow machine, too.
        let longest = 20_000 + kills * 2_000;
        std::thread::sleep(Duration::from_micros(1_000 + stream.below(longest)));
        // SIGKILL on Unix.
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 1000, "the run does not get on");
    }
    assert!(kills >= 10, "killed {kills} times only");
    assert_eq!(std::fs::read_to_string(&result).unwrap(), expected);
}
