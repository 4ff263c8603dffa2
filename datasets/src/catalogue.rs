//! The catalogue: known data sets with their files, canonical addresses, sizes and checksums.
//!
//! A file lies at `ROOT/NAME/FILE`. It is used only when its SHA-256 is the recorded one.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::DatasetError;
use crate::read;
use crate::root::DataRoot;

/// How a file comes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Downloaded as it is, from the first address that answers.
    Urls(&'static [&'static str]),
    /// One member of a `.tar.gz`.
    Archive {
        /// Address of the archive.
        url: &'static str,
        /// Size of the archive.
        bytes: u64,
        /// SHA-256 of the archive, hexadecimal.
        sha256: &'static str,
        /// Path of the file inside.
        member: &'static str,
    },
    /// Cannot be downloaded; the reason.
    ImportOnly(&'static str),
}

/// One file of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CatalogueFile {
    /// Name in the set's folder.
    pub name: &'static str,
    /// Size.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: &'static str,
    /// Where it comes from.
    pub origin: Origin,
}

/// One data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The name in an experiment's `[dataset]`; also the folder.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Training and test examples, shape, classes, natural clients.
    pub shape: &'static str,
    /// The licence, as stated by its source.
    pub licence: &'static str,
    /// The paper or page to cite.
    pub citation: &'static str,
    /// The page it comes from.
    pub source: &'static str,
    /// Whether it is part of the program, so that no file is needed.
    pub embedded: bool,
    /// Its files; none for embedded sets.
    pub files: &'static [CatalogueFile],
}

/// The state of a data set's files here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Part of the program.
    Embedded,
    /// Every file is there, of the recorded size.
    Present,
    /// So many of the files are missing or of another size.
    Missing(usize),
}

/// Every entry, in the order in which lists show them.
#[must_use]
pub fn all() -> Vec<&'static Entry> {
    (crate::sets::SETS.iter())
        .filter_map(|set| set.entry.as_ref())
        .collect()
}

/// The entry called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    all().into_iter().find(|entry| entry.name == name)
}

/// The entry called `name`.
///
/// # Errors
/// [`DatasetError::UnknownName`] with the nearest name.
pub fn get(name: &str) -> Result<&'static Entry, DatasetError> {
    find(name).ok_or_else(|| unknown(name, all().iter().map(|entry| entry.name)))
}

/// The error for a name that is none of `known`.
pub(crate) fn unknown(name: &str, known: impl Iterator<Item = &'static str>) -> DatasetError {
    let known: Vec<&str> = known.collect();
    let nearest = (known.iter())
        .map(|candidate| (distance(name, candidate), *candidate))
        .min()
        .filter(|(distance, _)| *distance <= 2.max(name.chars().count() / 3));
    DatasetError::UnknownName {
        name: name.to_owned(),
        hint: nearest.map_or_else(String::new, |(_, name)| format!("did you mean `{name}`? ")),
        known: known.join(", "),
    }
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, a) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, &b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

impl Entry {
    /// Where `file` lies.
    #[must_use]
    pub fn path(&self, root: &DataRoot, file: &CatalogueFile) -> PathBuf {
        root.path().join(self.name).join(file.name)
    }

    /// Whether the files are here, judged by their sizes.
    #[must_use]
    pub fn presence(&self, root: &DataRoot) -> Presence {
        if self.embedded {
            return Presence::Embedded;
        }
        let missing = (self.files.iter())
            .filter(|file| {
                let size = std::fs::metadata(self.path(root, file)).map(|data| data.len());
                size.ok() != Some(file.bytes)
            })
            .count();
        match missing {
            0 => Presence::Present,
            missing => Presence::Missing(missing),
        }
    }

    /// The verified bytes of the file called `name`.
    ///
    /// # Errors
    /// [`DatasetError::MissingFile`], [`DatasetError::Checksum`] or [`DatasetError::Io`].
    ///
    /// # Panics
    /// When the entry has no such file.
    pub fn read(&self, root: &DataRoot, name: &str) -> Result<Vec<u8>, DatasetError> {
        let file = self.files.iter().find(|file| file.name == name);
        let file = file.expect("a file that the entry lists");
        let path = self.path(root, file);
        if !path.exists() {
            return Err(self.missing(file, path));
        }
        let bytes = read::file(&path)?;
        file.verify(&path, &bytes)?;
        Ok(bytes)
    }

    fn missing(&self, file: &CatalogueFile, path: PathBuf) -> DatasetError {
        let name = self.name;
        let remedy = match file.origin {
            Origin::ImportOnly(_) => format!(
                "get it by hand and run `fledgling data import {name} FOLDER`, or let FLEDGLING_DATA_DIR name the folder that holds {name}/{}",
                file.name
            ),
            Origin::Urls(_) | Origin::Archive { .. } => format!(
                "run `fledgling data fetch {name}`, or let FLEDGLING_DATA_DIR name the folder that holds {name}/{}",
                file.name
            ),
        };
        DatasetError::MissingFile {
            name: name.to_owned(),
            path,
            remedy,
        }
    }
}

impl CatalogueFile {
    /// Checks size and SHA-256; `path` is for the message.
    ///
    /// # Errors
    /// [`DatasetError::Checksum`].
    pub fn verify(&self, path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
        let found = sha256(bytes);
        if found == self.sha256 && bytes.len() as u64 == self.bytes {
            return Ok(());
        }
        Err(DatasetError::Checksum {
            path: path.to_owned(),
            expected: self.sha256.to_owned(),
            expected_bytes: self.bytes,
            found,
            found_bytes: bytes.len() as u64,
        })
    }
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use core::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sound() {
        for entry in all() {
            assert!(entry.embedded == entry.files.is_empty(), "{}", entry.name);
            for file in entry.files {
                assert_eq!(file.sha256.len(), 64, "{}", file.name);
                assert!(
                    file.sha256
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                );
                assert!(file.bytes > 0);
                if let Origin::Urls(urls) = file.origin {
                    assert!(!urls.is_empty());
                    assert!(urls.iter().all(|url| url.starts_with("http")));
                }
            }
        }
    }

    #[test]
    fn names_are_suggested() {
        assert_eq!(distance("mnsit", "mnist"), 2);
        assert_eq!(distance("", "abc"), 3);
        let message = get("fashon-mnist").unwrap_err().to_string();
        assert!(
            message.starts_with(
                "no data set is called `fashon-mnist`; did you mean `fashion-mnist`? known names: "
            ),
            "{message}"
        );
        let message = get("zzzzzzzz").unwrap_err().to_string();
        assert!(!message.contains("did you mean"), "{message}");
    }
}
