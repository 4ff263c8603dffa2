//! The list of the plots in a folder, with their checksums.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic;
use super::error::ResultsError;
use super::manifest::{self, FORMAT, FileDigest};
use crate::config::PlotTable;

/// The list's file name.
pub(crate) const LIST: &str = "plots.toml";

/// `plots/plots.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drawn {
    pub(crate) format: u64,
    pub(crate) files: BTreeMap<String, FileDigest>,
    /// The tables that asked for them, so that the same can be drawn again; none for the standard
    /// figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) plot: Vec<PlotTable>,
}

/// What becomes of plots of an earlier list that are not drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Removed,
    Kept,
}

/// The tables of the list in `folder`; none where there is no list, or a damaged one.
pub(crate) fn tables(folder: &Path) -> Vec<PlotTable> {
    let list: Option<Drawn> = manifest::read(&folder.join(LIST)).unwrap_or_default();
    list.map(|list| list.plot).unwrap_or_default()
}

/// Writes drawn files, given by name and content, and their list into `folder`.
///
/// # Errors
/// [`ResultsError::Write`].
pub(crate) fn write(
    folder: &Path,
    drawn: &[(String, Vec<u8>)],
    tables: &[PlotTable],
    earlier: Earlier,
) -> Result<Vec<PathBuf>, ResultsError> {
    let list = folder.join(LIST);
    // A damaged list is replaced like a missing one.
    let before: Option<Drawn> = manifest::read(&list).unwrap_or_default();
    let (mut files, plot) = match (earlier, &before) {
        (Earlier::Kept, Some(before)) => (before.files.clone(), before.plot.clone()),
        _ => (BTreeMap::new(), tables.to_vec()),
    };
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
            plot,
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
        let draw = |names: &[&str], earlier: Earlier| {
            let drawn: Vec<_> = names
                .iter()
                .map(|name| ((*name).to_owned(), name.as_bytes().to_vec()))
                .collect();
            write(folder.path(), &drawn, &[], earlier).unwrap()
        };
        assert_eq!(draw(&["a.svg", "b.svg"], Earlier::Removed).len(), 2);
        std::fs::write(folder.path().join("mine.txt"), "kept").unwrap();
        draw(&["b.svg"], Earlier::Removed);
        // Beside what is there.
        draw(&["c.svg"], Earlier::Kept);
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["b.svg", "c.svg", "mine.txt", LIST]);
    }

    #[test]
    fn tables_are_kept_with_the_plots() {
        use crate::config::plot::PlotKind;
        let folder = tempfile::tempdir().unwrap();
        let mut table = PlotTable::of(PlotKind::Curves);
        table.y_limits = Some([0.0, 50.0]);
        table.title = Some("a".to_owned());
        let own = [table];
        write(folder.path(), &[], &own, Earlier::Removed).unwrap();
        assert_eq!(tables(folder.path()), own);
        write(folder.path(), &[], &[], Earlier::Kept).unwrap();
        assert_eq!(tables(folder.path()), own);
        write(folder.path(), &[], &[], Earlier::Removed).unwrap();
        assert!(tables(folder.path()).is_empty());
        // The list of standard figures is as it was before there were tables.
        let text = std::fs::read_to_string(folder.path().join(LIST)).unwrap();
        assert!(!text.contains("plot"), "{text}");
    }
}
