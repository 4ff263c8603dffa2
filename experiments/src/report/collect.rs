//! Folders of results, and of sweeps, read whole.

use std::path::{Path, PathBuf};

use crate::results::{self, MANIFEST, Results, ResultsError};
use crate::sweep::CELLS;

/// What the folders hold.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Results, in the order of the folders; those of a sweep's cells by their names.
    pub results: Vec<Results>,
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
        if folder.join(MANIFEST).exists() || !folder.join(CELLS).is_dir() {
            for part in results::find(folder)? {
                found.results.push(load(&part)?);
            }
            continue;
        }
        let cells = cells(&folder.join(CELLS))?;
        let before = found.results.len();
        for cell in cells {
            match cell.join(MANIFEST).exists() {
                true => found.results.push(load(&cell)?),
                false => found.empty.push(cell),
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
