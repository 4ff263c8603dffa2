//! `lock.toml`: a list of everything in a folder of results, after which nothing in it may change.
//!
//! The manifest vouches for the tables and models, and `host.toml` and `plots.toml` for theirs; all
//! three are written again by whoever runs the experiment again. The lock holds for the folder as it
//! is: every file, no other, and no run or plot writes into it until it is released. Models may be
//! left out of it, so that results can be kept where megabytes are dear: the lock and the manifest
//! still say what they were, and running again derives them.

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
    /// SHA-256 over names, sizes and checksums of all files, those that were left out among them,
    /// hexadecimal: what to cite.
    pub digest: String,
    /// Every file, by its path within the folder, with `/` between its parts.
    pub files: BTreeMap<String, FileDigest>,
    /// Files that were taken out when the folder was locked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, FileDigest>,
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
            left_out: BTreeMap::new(),
        })
    }

    /// Marks a file of the folder that is locked as left out; see [`Self::remove_left_out`].
    pub(crate) fn leave_out(&mut self, folder: &Path, file: &Path) {
        let name = name_within(folder, file);
        if let Some(file) = self.files.remove(&name) {
            self.left_out.insert(name, file);
        }
    }

    /// Whether a file of the folder that is locked was left out and is not there now.
    pub(crate) fn lacks(&self, folder: &Path, file: &Path, digest: &FileDigest) -> bool {
        let left_out = self.left_out.get(&name_within(folder, file));
        left_out == Some(digest) && !file.exists()
    }

    /// Removes what is left out, and folders that are empty without it, from the folder that this
    /// lock was written to.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn remove_left_out(&self, folder: &Path) -> Result<(), ResultsError> {
        for name in self.left_out.keys() {
            let path = folder.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(ResultsError::write(&path, error)),
            }
            // Fails where something else is in it.
            let _ = path.parent().map(std::fs::remove_dir);
        }
        Ok(())
    }

    /// The lock that holds for a folder, its own or that of the results that it belongs to, and
    /// the folder of that lock.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn over(folder: &Path) -> Result<Option<(PathBuf, Self)>, ResultsError> {
        match Self::place(folder) {
            Some(place) => Ok(Self::read(place)?.map(|lock| (place.to_owned(), lock))),
            None => Ok(None),
        }
    }

    /// Where the lock of a folder lies.
    fn place(folder: &Path) -> Option<&Path> {
        let locked = |folder: &&Path| folder.join(LOCK).exists();
        folder.ancestors().take(DEPTH).find(locked)
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
        match Self::place(folder) {
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
        for (name, file) in self.files.iter().chain(&self.left_out) {
            let what = match now.files.get(name) {
                Some(there) if there == file => continue,
                Some(_) => "it is not the file that was locked",
                None if self.left_out.contains_key(name) => continue,
                None => "it was locked, and is missing",
            };
            let path = place(name);
            found.push(ResultsError::Changed { path, what });
        }
        let added = now
            .files
            .keys()
            .filter(|name| !self.files.contains_key(*name) && !self.left_out.contains_key(*name));
        found.extend(added.map(|name| ResultsError::Changed {
            path: place(name),
            what: "it was not there when the folder was locked",
        }));
        Ok(found)
    }
}

/// A locked folder may hold folders this deep, counted with itself.
const DEPTH: usize = 5;

/// The path of a file within a folder, as a lock has it.
fn name_within(folder: &Path, file: &Path) -> String {
    let within = file.strip_prefix(folder).unwrap_or(file);
    let parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

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

    #[test]
    fn files_that_were_left_out_may_be_missing_and_no_others() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        std::fs::create_dir_all(root.join("cells/a/v")).unwrap();
        std::fs::write(root.join("cells/a/v/model"), "weights").unwrap();
        std::fs::write(root.join("cells/a/table"), "rows").unwrap();
        let whole = Frozen::of(root).unwrap();
        let mut lock = whole.clone();
        lock.leave_out(root, &root.join("cells/a/v/model"));
        lock.leave_out(root, &root.join("nothing"));
        assert_eq!((lock.files.len(), lock.left_out.len()), (1, 1));
        assert_eq!(lock.digest, whole.digest, "what is cited stays the same");
        lock.write(root).unwrap();
        assert_eq!(lock.differences(root).unwrap().len(), 0);
        let model = root.join("cells/a/v/model");
        let digest = whole.files["cells/a/v/model"].clone();
        assert!(!lock.lacks(root, &model, &digest), "it is still there");
        lock.remove_left_out(root).unwrap();
        assert!(lock.lacks(root, &model, &digest));
        assert!(!lock.lacks(root, &model, &whole.files["cells/a/table"]));
        assert!(!root.join("cells/a/v").exists() && root.join("cells/a/table").exists());
        lock.remove_left_out(root).unwrap();
        assert_eq!(Frozen::read(root).unwrap().as_ref(), Some(&lock));
        assert_eq!(lock.differences(root).unwrap().len(), 0);
        let (place, over) = Frozen::over(&root.join("cells/a")).unwrap().unwrap();
        assert_eq!((place.as_path(), over), (root, lock.clone()));

        std::fs::create_dir(root.join("cells/a/v")).unwrap();
        std::fs::write(root.join("cells/a/v/model"), "others").unwrap();
        std::fs::remove_file(root.join("cells/a/table")).unwrap();
        let told = lock.differences(root).unwrap();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("table") && told[0].contains("is missing"),
            "{}",
            told[0]
        );
        assert!(
            told[1].contains("model") && told[1].contains("not the file"),
            "{}",
            told[1]
        );
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
