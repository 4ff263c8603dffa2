//! The list of the plots in a folder, with their checksums.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic;
use super::error::ResultsError;
use super::frozen::Frozen;
use super::manifest::{self, FORMAT, FileDigest};

/// The list's file name.
pub(crate) const LIST: &str = "plots.toml";

/// `plots/plots.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drawn {
    pub(crate) format: u64,
    pub(crate) files: BTreeMap<String, FileDigest>,
}

/// Writes drawn files, given by name and content, and their list into `folder`; plots of an
/// earlier list that were not drawn again are removed.
///
/// # Errors
/// [`ResultsError::Write`] or [`ResultsError::Locked`].
pub(crate) fn write(
    folder: &Path,
    drawn: &[(String, Vec<u8>)],
) -> Result<Vec<PathBuf>, ResultsError> {
    Frozen::refuse(folder)?;
    let list = folder.join(LIST);
    // A damaged list is replaced like a missing one.
    let before: Option<Drawn> = manifest::read(&list).unwrap_or_default();
    let mut files = BTreeMap::new();
    let mut paths = Vec::new();
    for (name, content) in drawn {
        let path = folder.join(name);
        files.insert(name.clone(), atomic::write(&path, content)?);
        paths.push(path);
    }
    for stale in before.map(|before| before.files).unwrap_or_default().keys() {
        let plain = Path::new(stale).file_name() == Some(stale.as_ref());
        if plain && !files.contains_key(stale) {
            // It may be gone already.
            let _ = std::fs::remove_file(folder.join(stale));
        }
    }
    manifest::stage(
        &list,
        &Drawn {
            format: FORMAT,
            files,
        },
    )?
    .publish()?;
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_that_is_not_drawn_again_goes() {
        let folder = tempfile::tempdir().unwrap();
        let draw = |names: &[&str]| {
            let drawn: Vec<_> = names
                .iter()
                .map(|name| ((*name).to_owned(), name.as_bytes().to_vec()))
                .collect();
            write(folder.path(), &drawn).unwrap()
        };
        assert_eq!(draw(&["a.svg", "b.svg"]).len(), 2);
        std::fs::write(folder.path().join("mine.txt"), "kept").unwrap();
        draw(&["b.svg"]);
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["b.svg", "mine.txt", LIST]);
    }
}
