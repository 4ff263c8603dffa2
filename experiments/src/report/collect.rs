//! Folders of results, and of sweeps, read whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::results::{self, MANIFEST, Results, ResultsError};
use crate::sweep::{CELLS, Plan};

/// What the folders hold.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Results, in the order of the folders; those of a sweep's cells in the order of its plan, and
    /// what is in none by the folders' names.
    pub results: Vec<Results>,
    /// The plans of the sweeps that some of the results are cells of, by the sweeps' folders.
    pub sweeps: BTreeMap<PathBuf, Plan>,
    /// Cells of sweeps that have not got any results yet.
    pub empty: Vec<PathBuf>,
}

/// Reads the results in each of `folders`, which are those of runs, of single variants within them, of
/// sweeps, whose cells are then read, or hold any of these. A folder that is named twice is read once.
///
/// # Errors
/// [`ResultsError`] when a folder has no results, or a file of it is not what its manifest says; plots
/// are not looked at.
pub fn collect(folders: &[PathBuf]) -> Result<Collected, ResultsError> {
    let mut found = Collected::default();
    let mut seen: Vec<&PathBuf> = Vec::new();
    for folder in folders {
        if seen.contains(&folder) {
            continue;
        }
        seen.push(folder);
        let is_sweep = !folder.join(MANIFEST).exists() && folder.join(CELLS).is_dir();
        let parts = match is_sweep {
            true => cells(&folder.join(CELLS))?,
            false => results::find(folder)?,
        };
        let before = found.results.len();
        for part in found.in_order(parts)? {
            match is_sweep && !part.join(MANIFEST).exists() {
                true => found.empty.push(part),
                false => found.results.push(load(&part)?),
            }
        }
        if found.results.len() == before {
            return Err(ResultsError::NoResults {
                path: folder.clone(),
            });
        }
    }
    Ok(found)
}

impl Collected {
    /// Reads the plans of the sweeps of which these folders are cells, and puts the cells of each into
    /// the plan's order.
    fn in_order(&mut self, folders: Vec<PathBuf>) -> Result<Vec<PathBuf>, ResultsError> {
        let mut ordered = Vec::new();
        for siblings in folders.chunk_by(|a, b| a.parent() == b.parent()) {
            let sweep = siblings.first().and_then(|first| sweep_of(first));
            let mut siblings = siblings.to_vec();
            if let Some((sweep, _)) = sweep
                && let Some(plan) = Plan::read(sweep)?
            {
                siblings.sort_by_key(|path| {
                    let id = path.file_name().and_then(|name| name.to_str());
                    let mut cells = plan.cells.iter();
                    let place = cells.position(|cell| Some(cell.id.as_str()) == id);
                    place.unwrap_or(usize::MAX)
                });
                self.sweeps.insert(sweep.to_owned(), plan);
            }
            ordered.extend(siblings);
        }
        Ok(ordered)
    }
}

/// The sweep's folder and the cell's id, of a folder that may be a cell's.
pub(super) fn sweep_of(path: &Path) -> Option<(&Path, &str)> {
    let cells = path.parent().filter(|parent| parent.ends_with(CELLS))?;
    Some((cells.parent()?, path.file_name()?.to_str()?))
}

/// The folders in a folder, by name.
fn cells(folder: &Path) -> Result<Vec<PathBuf>, ResultsError> {
    let listed = std::fs::read_dir(folder).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<std::io::Result<Vec<PathBuf>>>()
    });
    let mut cells = listed.map_err(|error| ResultsError::read(folder, error))?;
    cells.retain(|path| path.is_dir());
    cells.sort();
    Ok(cells)
}

/// Results of which every file is what its manifest says.
fn load(path: &Path) -> Result<Results, ResultsError> {
    let loaded = Results::load(path)?;
    let plots = loaded.path.join(results::PLOTS);
    let is_plot = |error: &ResultsError| match error {
        ResultsError::Damaged { path, .. } | ResultsError::Read { path, .. } => {
            path.starts_with(&plots)
        }
        _ => false,
    };
    // Loading looks at the tables; models are of the page, too, by their digests.
    let damage = results::damage(&loaded.path)?;
    match damage.into_iter().find(|error| !is_plot(error)) {
        Some(error) => Err(error),
        None => Ok(loaded),
    }
}
