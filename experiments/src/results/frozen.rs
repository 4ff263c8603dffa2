//! `lock.toml`: a list of everything in a folder of results, after which nothing in it may change.
//!
//! The manifest vouches for the tables and models, and `host.toml` and `plots.toml` for theirs; all
//! three are written again by whoever runs the experiment again. The lock holds for the folder as it
//! is: every file, no other, and no run or plot writes into it until it is released.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::atomic;
use super::error::ResultsError;
use super::folder::WORK;
use super::manifest::{self, FORMAT, FileDigest};

/// The lock's file name.
pub(crate) const LOCK: &str = "lock.toml";

/// Everything in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// Format of the file.
    pub format: u64,
    /// SHA-256 over names, sizes and checksums of all files, hexadecimal: what to cite.
    pub digest: String,
    /// Every file, by its path within the folder, with `/` between its parts.
    pub files: BTreeMap<String, FileDigest>,
}

impl Frozen {
    /// The folder as it is now, without the lock itself and what is not finished.
    ///
    /// # Errors
    /// [`ResultsError::Read`].
    pub fn of(folder: &Path) -> Result<Self, ResultsError> {
        let mut files = BTreeMap::new();
        collect(folder, "", &mut files)?;
        let mut hash = Sha256::new();
        for (name, file) in &files {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(file.bytes.to_le_bytes());
            hash.update(file.sha256.as_bytes());
        }
        Ok(Self {
            format: FORMAT,
            digest: atomic::hex(&hash.finalize()),
            files,
        })
    }

    /// The lock of a folder; none where it is not locked.
    ///
    /// # Errors
    /// [`ResultsError::Read`], [`ResultsError::Damaged`] or [`ResultsError::Format`].
    pub fn read(folder: &Path) -> Result<Option<Self>, ResultsError> {
        manifest::read(&folder.join(LOCK))
    }

    /// Puts it into the folder.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub fn write(&self, folder: &Path) -> Result<(), ResultsError> {
        manifest::stage(&folder.join(LOCK), self)?.publish()?;
        Ok(())
    }

    /// Takes the lock off a folder; false where there was none.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub fn release(folder: &Path) -> Result<bool, ResultsError> {
        let path = folder.join(LOCK);
        match std::fs::remove_file(&path) {
            Ok(()) => atomic::sync_folder(folder).map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ResultsError::write(&path, error)),
        }
    }

    /// Refuses a folder that is locked, or lies within one that is, such as the plots of results.
    ///
    /// # Errors
    /// [`ResultsError::Locked`].
    pub fn refuse(folder: &Path) -> Result<(), ResultsError> {
        let locked = |folder: &&Path| folder.join(LOCK).exists();
        match folder.ancestors().take(DEPTH).find(locked) {
            Some(folder) => Err(ResultsError::Locked {
                path: folder.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// What in the folder is not as it was locked.
    ///
    /// # Errors
    /// [`ResultsError::Read`].
    pub(crate) fn differences(&self, folder: &Path) -> Result<Vec<ResultsError>, ResultsError> {
        let now = Self::of(folder)?;
        let place = |name: &str| -> PathBuf { folder.join(name) };
        let mut found = Vec::new();
        for (name, file) in &self.files {
            let what = match now.files.get(name) {
                Some(there) if there == file => continue,
                Some(_) => "it is not the file that was locked",
                None => "it was locked, and is missing",
            };
            let path = place(name);
            found.push(ResultsError::Changed { path, what });
        }
        let added = now
            .files
            .keys()
            .filter(|name| !self.files.contains_key(*name));
        found.extend(added.map(|name| ResultsError::Changed {
            path: place(name),
            what: "it was not there when the folder was locked",
        }));
        Ok(found)
    }
}

/// A locked folder may hold folders this deep, counted with itself.
const DEPTH: usize = 5;

/// The files of `folder`, whose path from the outermost one is `prefix`.
fn collect(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, FileDigest>,
) -> Result<(), ResultsError> {
    let failed = |error| ResultsError::read(folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == LOCK || name == WORK {
            continue;
        }
        let within = format!("{prefix}{name}");
        match entry.file_type().map_err(failed)?.is_dir() {
            true => collect(&entry.path(), &format!("{within}/"), files)?,
            false => {
                files.insert(within, atomic::digest_of(&entry.path())?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_in_a_locked_folder_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let put = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("manifest.toml", "m");
        put("plots/a.svg", "a");
        put("checkpoint/lock", "");
        let lock = Frozen::of(root).unwrap();
        assert_eq!(
            lock.files.keys().collect::<Vec<_>>(),
            ["manifest.toml", "plots/a.svg"]
        );
        Frozen::refuse(root).unwrap();
        lock.write(root).unwrap();
        assert_eq!(Frozen::read(root).unwrap().as_ref(), Some(&lock));
        assert_eq!(Frozen::of(root).unwrap(), lock);
        let refused = Frozen::refuse(&root.join("plots")).unwrap_err().to_string();
        assert!(refused.contains("is locked"), "{refused}");

        let told = || -> Vec<String> {
            let all = lock.differences(root).unwrap();
            all.iter().map(ToString::to_string).collect()
        };
        assert_eq!(told(), [""; 0]);
        put("plots/a.svg", "b");
        put("more", "");
        std::fs::remove_file(root.join("manifest.toml")).unwrap();
        let all = told();
        assert_eq!(all.len(), 3);
        for (line, (name, what)) in all.iter().zip([
            ("manifest.toml", "missing"),
            ("a.svg", "not the file that was locked"),
            ("more", "not there when"),
        ]) {
            assert!(line.contains(name) && line.contains(what), "{line}");
        }
        assert!(Frozen::release(root).unwrap());
        assert!(!Frozen::release(root).unwrap());
        Frozen::refuse(root).unwrap();
    }

    /// The digest is over length, name, size and checksum of each file in order.
    #[test]
    fn the_digest_is_of_everything() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join("a"), "abc").unwrap();
        // python3 -c 'import hashlib; s = hashlib.sha256(b"abc").hexdigest(); print(hashlib.sha256(
        //   (1).to_bytes(8, "little") + b"a" + (3).to_bytes(8, "little") + s.encode()).hexdigest())'
        let expected = "b26d341d2131e038167d401802147bb9d5c262919b833c9acb17920d0c5fc7b8";
        assert_eq!(Frozen::of(temporary.path()).unwrap().digest, expected);
    }
}
