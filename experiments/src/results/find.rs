//! Results below a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ResultsError;
use super::manifest::{self, MANIFEST, Manifest};

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

/// The same folders, those of one place in such an order that results of the same data follow each
/// other: the data need to be loaded once for them.
pub(crate) fn by_data(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let data = |folder: &Path| -> Option<(String, String)> {
        // What cannot be read is told when it is its turn.
        let manifest = manifest::read::<Manifest>(&folder.join(MANIFEST)).ok()??;
        let config = &manifest.variants.first()?.config;
        let key = |key: &str| config.get(key).map(toml::Value::to_string);
        Some((key("dataset")?, key("seed")?))
    };
    let mut places = BTreeMap::new();
    let mut placed: Vec<(usize, PathBuf)> = Vec::new();
    for folder in folders {
        let kind = (folder.parent().map(Path::to_owned), data(&folder));
        let next = places.len();
        placed.push((*places.entry(kind).or_insert(next), folder));
    }
    placed.sort_by_key(|&(place, _)| place);
    placed.into_iter().map(|(_, folder)| folder).collect()
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

    #[test]
    fn results_of_the_same_data_follow_each_other() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let mut manifest = manifest::tests::sample();
        for (folder, seed) in [("a/1", 7), ("a/2", 8), ("a/3", 7), ("b/1", 7), ("b/2", 8)] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).unwrap();
            let config = &mut manifest.variants[0].config;
            config.insert("seed".to_owned(), seed.into());
            let staged = manifest::stage(&path.join(MANIFEST), &manifest).unwrap();
            staged.publish().unwrap();
        }
        // One that cannot be read keeps its turn.
        std::fs::create_dir_all(root.join("a/0")).unwrap();
        std::fs::write(root.join("a/0").join(MANIFEST), "damaged").unwrap();
        let expected = ["a/0", "a/1", "a/3", "a/2", "b/1", "b/2"].map(|name| root.join(name));
        assert_eq!(by_data(find(root).unwrap()), expected);
    }
}
