//! The folder of a sweep's results.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CELLS, CellId, CellStatus, Plan, PlannedAxis, PlannedCell, tables};
use crate::analysis::{Analysis, AnalysisError};
use crate::config::{SweepCell, SweepExperiment};
use crate::results::{self, Frozen, Lock, Manifest, Results, ResultsError, Status, VariantResults};

/// The folder of a sweep's results. Several processes may work on it at once: each cell has a lock,
/// and so has what is written of them all.
#[derive(Clone, Debug)]
pub struct SweepFolder {
    path: PathBuf,
}

/// What there is of a cell.
#[derive(Debug)]
pub enum Kept {
    /// Nothing, or what another configuration left; perhaps a checkpoint.
    Nothing,
    /// Results up to a round from which it can go on.
    Stopped {
        /// Rounds done.
        rounds: u64,
    },
    /// Whole: every file is what its manifest says.
    Finished,
    /// Results of which a file is missing or is not what was written. The cell is run again.
    Damaged(ResultsError),
}

impl SweepFolder {
    /// A folder, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a cell.
    #[must_use]
    pub fn cell(&self, id: &CellId) -> PathBuf {
        self.path.join(CELLS).join(id.as_str())
    }

    /// What there is of a cell. Every file is read and compared with its manifest.
    #[must_use]
    pub fn kept(&self, cell: &SweepCell) -> Kept {
        let folder = self.cell(&cell.id);
        let manifest = match results::read_manifest::<Manifest>(&folder.join(results::MANIFEST)) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Kept::Nothing,
            Err(error) => return Kept::Damaged(error),
        };
        let same = |found: &&results::VariantManifest| found.config == cell.variant.config;
        let Some(found) = manifest.variants.iter().find(same) else {
            return Kept::Nothing;
        };
        match results::damage(&folder) {
            Err(error) => return Kept::Damaged(error),
            Ok(damage) => {
                if let Some(error) = damage.into_iter().next() {
                    return Kept::Damaged(error);
                }
            }
        }
        match found.status {
            Status::Finished => Kept::Finished,
            Status::Stopped => Kept::Stopped {
                rounds: found.rounds_done,
            },
        }
    }

    /// What was recorded of a cell.
    ///
    /// # Errors
    /// [`ResultsError`] when there are no results, or a file is damaged.
    pub fn results(&self, id: &CellId) -> Result<VariantResults, ResultsError> {
        let path = self.cell(id);
        let mut results = Results::load(&path)?;
        match results.variants.pop() {
            Some(variant) => Ok(variant),
            None => Err(ResultsError::damaged(
                &path.join(results::MANIFEST),
                "it has no variant",
            )),
        }
    }

    /// Takes a cell's manifest away, so that what is left of it are no results.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn forget(&self, id: &CellId) -> Result<(), ResultsError> {
        let path = self.cell(id).join(results::MANIFEST);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ResultsError::write(&path, error))
            }
            _ => Ok(()),
        }
    }

    /// Takes the checkpoint of a cell away that is not gone on with, unless another process has it.
    pub(crate) fn tidy(&self, id: &CellId) {
        // Nothing depends on it.
        if let Ok(folder) = results::ResultsFolder::open(&self.cell(id)) {
            folder.leave();
        }
    }

    /// Takes over cells that are finished in another sweep's folder and not in this one; returns how
    /// many.
    ///
    /// # Errors
    /// [`ResultsError`] when a file cannot be read or written.
    pub fn merge(&self, other: &Path, cells: &[SweepCell]) -> Result<usize, ResultsError> {
        let other = Self::new(other);
        if !other.path.join(CELLS).is_dir() {
            return Err(ResultsError::read(
                &other.path.join(CELLS),
                std::io::ErrorKind::NotFound.into(),
            ));
        }
        let mut taken = 0;
        for cell in cells {
            if matches!(self.kept(cell), Kept::Finished) {
                continue;
            }
            match other.kept(cell) {
                Kept::Finished => {}
                Kept::Damaged(error) => return Err(error),
                Kept::Nothing | Kept::Stopped { .. } => continue,
            }
            let target = self.cell(&cell.id);
            // Nobody runs it meanwhile.
            let lock = results::ResultsFolder::open(&target)?;
            copy_folder(&other.cell(&cell.id), &target)?;
            lock.leave();
            taken += 1;
        }
        Ok(taken)
    }

    /// Writes the plan with what has become of each cell, and the tables; returns the statistics,
    /// unless no cell has any results.
    ///
    /// `dropped` says which cells successive halving ended.
    ///
    /// # Errors
    /// [`AnalysisError`] when a cell cannot be read or a file cannot be written.
    pub fn publish(
        &self,
        experiment: &SweepExperiment,
        dropped: &dyn Fn(&CellId) -> bool,
    ) -> Result<(Plan, Option<Analysis>), AnalysisError> {
        Frozen::refuse(&self.path)?;
        let lock = Lock::take(&self.path.join(LOCK))?;
        let plan = self.plan(experiment, dropped);
        plan.write(&self.path)?;
        let analysis = self.analysis()?;
        tables::write(&self.path, &plan, analysis.as_ref())?;
        lock.remove();
        Ok((plan, analysis))
    }

    /// The statistics of the cells that have been run; nothing where none has.
    ///
    /// Another process may be publishing a cell just now, file by file: what looks damaged is looked at
    /// again.
    fn analysis(&self) -> Result<Option<Analysis>, AnalysisError> {
        let mut looks = 0;
        loop {
            match Analysis::load(std::slice::from_ref(&self.path)) {
                Ok(analysis) => return Ok(Some(analysis)),
                Err(AnalysisError::NothingRun { .. }) => return Ok(None),
                Err(AnalysisError::Results(_)) if looks < LOOKS => looks += 1,
                Err(error) => return Err(error),
            }
            std::thread::sleep(PATIENCE);
        }
    }

    /// The plan as it stands.
    fn plan(&self, experiment: &SweepExperiment, dropped: &dyn Fn(&CellId) -> bool) -> Plan {
        let status = |cell: &SweepCell| match self.kept(cell) {
            Kept::Finished => CellStatus::Finished,
            Kept::Stopped { .. } if dropped(&cell.id) => CellStatus::Dropped,
            Kept::Stopped { .. } => CellStatus::Stopped,
            Kept::Nothing | Kept::Damaged(_) => CellStatus::Pending,
        };
        let axes = experiment.axes.iter();
        Plan {
            format: results::FORMAT,
            name: experiment.name.clone(),
            program: results::PROGRAM.to_owned(),
            axes: axes.map(|key| PlannedAxis { key: key.clone() }).collect(),
            cells: experiment
                .cells
                .iter()
                .map(|cell| PlannedCell {
                    id: cell.id.clone(),
                    status: status(cell),
                    seed: cell.variant.seed.0,
                    values: cell.values.clone(),
                })
                .collect(),
        }
    }
}

/// How often damaged results are looked at again, and after what time.
const LOOKS: u32 = 5;
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);

/// Who writes the plan and the tables holds it.
const LOCK: &str = ".lock";

/// Copies results, the manifest last: until it is there, they are none.
fn copy_folder(from: &Path, to: &Path) -> Result<(), ResultsError> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        let folder = from.join(&inner);
        let entries = fs::read_dir(&folder).map_err(|error| ResultsError::read(&folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| ResultsError::read(&folder, error))?;
            let name = inner.join(entry.file_name());
            let kind = entry
                .file_type()
                .map_err(|error| ResultsError::read(&folder, error))?;
            if kind.is_dir() {
                open.push(name);
            } else {
                files.push(name);
            }
        }
    }
    files.sort_by_key(|name| (name == Path::new(results::MANIFEST), name.clone()));
    for name in files {
        let source = from.join(&name);
        let bytes = fs::read(&source).map_err(|error| ResultsError::read(&source, error))?;
        results::write_file(&to.join(&name), &bytes)?;
    }
    Ok(())
}
