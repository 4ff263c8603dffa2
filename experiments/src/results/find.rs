//! Results below a folder.

use std::path::{Path, PathBuf};

use super::error::ResultsError;
use super::manifest::MANIFEST;

/// Folders this deep below the one named are looked into: `results/SWEEP/cells/ID`.
const DEPTH: u32 = 4;

/// The results that `path` names: the path itself where it holds results or is a variant of some,
/// else every folder of results below it, in the order of their names.
///
/// # Errors
/// [`ResultsError::NoResults`] when there are none, [`ResultsError::Read`] when a folder cannot be
/// listed.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, ResultsError> {
    let holds = |folder: &Path| folder.join(MANIFEST).exists();
    if holds(path) || path.parent().is_some_and(holds) {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    if path.is_dir() {
        walk(path, DEPTH, &mut found)?;
    }
    match found.is_empty() {
        true => Err(ResultsError::NoResults {
            path: path.to_owned(),
        }),
        false => Ok(found),
    }
}

fn walk(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) -> Result<(), ResultsError> {
    let failed = |error| ResultsError::read(folder, error);
    let mut inner = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            inner.push(entry.path());
        }
    }
    inner.sort();
    for folder in inner {
        if folder.join(MANIFEST).exists() {
            found.push(folder);
        } else if depth > 1 {
            walk(&folder, depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_results_are_found_in_order() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        for folder in [
            "b",
            "a/cells/2",
            "a/cells/1",
            "b/inner",
            "none",
            "1/2/3/4/5",
        ] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["b", "a/cells/2", "a/cells/1", "b/inner", "1/2/3/4/5"] {
            std::fs::write(root.join(folder).join(MANIFEST), "").unwrap();
        }
        let all = ["a/cells/1", "a/cells/2", "b"].map(|name| root.join(name));
        assert_eq!(find(root).unwrap(), all);
        assert_eq!(find(&root.join("b")).unwrap(), [root.join("b")]);
        // A folder within results is one of their variants, and its own loader says when it is not.
        let variant = root.join("b/fedavg");
        assert_eq!(find(&variant).unwrap(), [variant]);
        for nothing in ["none", "nowhere"] {
            let error = find(&root.join(nothing)).unwrap_err();
            assert!(matches!(error, ResultsError::NoResults { .. }));
        }
    }
}
