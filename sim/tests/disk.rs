//! Checkpoints on a disk that breaks: at every single step, whatever is left must let the run go
//! on to the same end, and what went wrong must be said.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Journal, Tiny, TinyEngine, TinyPopulation, plan};
use fl_core::Seed;
use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_sim::checkpoint::DiskFile;
use fl_sim::{
    AggregationConfig, CheckpointConfig, Disk, EvaluationConfig, FleetConfig, LocalDisk, Outcome,
    SimError, SimulationConfig,
};

/// How the disk breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The step fails and changes nothing; the disk works again afterwards.
    Refused,
    /// A write puts half of its bytes on disk, then the disk is full for good.
    Full,
    /// The machine dies: the step and all after it do nothing, writes half-way.
    Death,
    /// The machine dies, and what was not synced is lost.
    LossyDeath,
}

/// Passes everything to the local disk until step number `breaks`.
struct Breaking {
    steps: Arc<AtomicU64>,
    breaks: u64,
    fault: Fault,
}

fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
}

impl Breaking {
    /// Counts a step; an error when it is to fail.
    fn step(&self) -> io::Result<()> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        if step < self.breaks || (step > self.breaks && self.fault == Fault::Refused) {
            Ok(())
        } else {
            Err(no_space())
        }
    }
}

struct BreakingFile {
    file: Box<dyn DiskFile>,
    path: std::path::PathBuf,
    disk: Breaking,
}

impl Write for BreakingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.disk.step() {
            if self.disk.fault != Fault::Refused {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DiskFile for BreakingFile {
    fn sync(&mut self) -> io::Result<()> {
        if let Err(error) = self.disk.step() {
            if self.disk.fault == Fault::LossyDeath {
                std::fs::write(&self.path, b"")?;
            }
            return Err(error);
        }
        // The process lives on, so that nothing is lost that was not synced; and it is quick.
        Ok(())
    }
}

impl Disk for Breaking {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.create_dir_all(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step()?;
        Ok(Box::new(BreakingFile {
            file: LocalDisk.create(path)?,
            path: path.to_owned(),
            disk: Self {
                steps: Arc::clone(&self.steps),
                ..*self
            },
        }))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        unreachable!("a checkpoint is written anew: {}", path.display())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        assert!(dir.is_dir());
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.step()?;
        LocalDisk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<(u64, Box<dyn Read>)> {
        self.step()?;
        LocalDisk.open(path)
    }
}

/// A disk on which nothing fails.
fn sound() -> Arc<dyn Disk> {
    Arc::new(Breaking {
        steps: Arc::default(),
        breaks: u64::MAX,
        fault: Fault::Refused,
    })
}

fn config(dir: &Path) -> SimulationConfig {
    SimulationConfig {
        seed: Seed(4),
        rounds: 4,
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort: 6,
            over_select: 1.0,
        }),
        local: plan(1, 8),
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            server_momentum: 0.5,
            ..FedAvgConfig::default()
        }),
        fleet: FleetConfig::default(),
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        evaluation: EvaluationConfig::default(),
        threads: 1,
        checkpoint: Some(CheckpointConfig {
            dir: dir.join("checkpoint"),
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

fn tiny(dir: &Path, disk: Arc<dyn Disk>) -> Result<Tiny, SimError> {
    Tiny::with_parts(
        config(dir),
        TinyPopulation::new(30, 1),
        TinyEngine::new(),
        disk,
    )
}

fn resumed_or_new(dir: &Path, disk: Arc<dyn Disk>) -> Result<Tiny, SimError> {
    let population = TinyPopulation::new(30, 1);
    let resumed = Tiny::resume_with_parts(
        config(dir),
        population,
        TinyEngine::new(),
        Arc::clone(&disk),
    )?;
    resumed.map_or_else(|| tiny(dir, disk), Ok)
}

fn run(simulation: &mut Tiny) -> Result<Outcome, SimError> {
    simulation.run(&mut Journal::default(), &AtomicBool::new(false))
}

#[test]
fn a_disk_that_breaks_at_any_step_leaves_a_run_that_can_be_resumed() {
    let expected = {
        let dir = tempfile::tempdir().unwrap();
        let mut whole = tiny(dir.path(), sound()).unwrap();
        run(&mut whole).unwrap();
        whole.parameters().digest()
    };
    let mut messages = std::collections::BTreeSet::new();
    for fault in [Fault::Refused, Fault::Full, Fault::Death, Fault::LossyDeath] {
        for breaks in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let steps = Arc::new(AtomicU64::new(0));
            let disk = Breaking {
                steps: Arc::clone(&steps),
                breaks,
                fault,
            };
            let ended = tiny(dir.path(), Arc::new(disk)).and_then(|mut first| run(&mut first));
            if steps.load(Ordering::SeqCst) <= breaks {
                // The whole run took fewer steps: all of them have been tried.
                ended.unwrap();
                assert!(breaks > 30, "{breaks} steps are too few to be true");
                break;
            }
            let message = ended.unwrap_err().to_string();
            let dir_name = dir.path().display().to_string();
            messages.insert(message.replace(&dir_name, "DIR"));
            let mut second = resumed_or_new(dir.path(), sound())
                .unwrap_or_else(|error| panic!("{fault:?} at {breaks}: {error}"));
            assert!(second.warnings().is_empty(), "{fault:?} at {breaks}");
            run(&mut second).unwrap();
            assert_eq!(
                second.parameters().digest(),
                expected,
                "{fault:?} at {breaks}"
            );
        }
    }
    let full = "no space left on device";
    let advice = "free space, or choose a folder that can be written";
    let temporary = "DIR/checkpoint/writing.tmp";
    for expected in [
        format!(
            "cannot create checkpoint folder `DIR/checkpoint`: {full}; choose a folder that can \
             be written"
        ),
        format!("cannot create checkpoint file `{temporary}`: {full}; {advice}"),
        format!("cannot write checkpoint file `{temporary}`: {full}; {advice}"),
        format!("cannot sync checkpoint file `{temporary}`: {full}; {advice}"),
        format!("cannot sync checkpoint folder `DIR/checkpoint`: {full}; {advice}"),
    ] {
        assert!(
            messages.contains(&expected),
            "{expected}\nnot in\n{messages:#?}"
        );
    }
}

#[test]
fn two_deaths_in_a_row_are_survived_too() {
    let expected = {
        let dir = tempfile::tempdir().unwrap();
        let mut whole = tiny(dir.path(), sound()).unwrap();
        run(&mut whole).unwrap();
        whole.parameters().digest()
    };
    for first in (3..45).step_by(3) {
        for second in 0..14 {
            let dir = tempfile::tempdir().unwrap();
            for breaks in [first, second] {
                let disk = Arc::new(Breaking {
                    steps: Arc::default(),
                    breaks,
                    fault: Fault::LossyDeath,
                });
                let _ = resumed_or_new(dir.path(), disk).and_then(|mut run_| run(&mut run_));
            }
            let mut last = resumed_or_new(dir.path(), sound()).unwrap();
            run(&mut last).unwrap();
            assert_eq!(last.parameters().digest(), expected, "{first} and {second}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_is_refused_before_the_first_round() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("checkpoint"), b"a file in the way").unwrap();
    let error = tiny(dir.path(), Arc::new(LocalDisk))
        .err()
        .unwrap()
        .to_string();
    let start = format!(
        "cannot create checkpoint folder `{}`: ",
        dir.path().join("checkpoint").display()
    );
    assert!(error.starts_with(&start), "{error}");
    assert!(
        error.ends_with("; choose a folder that can be written"),
        "{error}"
    );
}
