//! One writer at a time, among processes.
//!
//! The system frees a lock when its process ends, however it ends, so that nothing is ever stale.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::ResultsError;

/// A lock file that is held.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock unless another process has it.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, ResultsError> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(ResultsError::write(path, error)),
            }
            if is_at(&file, path)? {
                return Ok(Some(Self::held(path, file)));
            }
        }
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn take(path: &Path) -> Result<Self, ResultsError> {
        loop {
            let file = open(path)?;
            file.lock()
                .map_err(|error| ResultsError::write(path, error))?;
            if is_at(&file, path)? {
                return Ok(Self::held(path, file));
            }
        }
    }

    fn held(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            _file: file,
        }
    }

    /// Frees the lock and removes its file. Who waits for it finds that it is gone, and makes a new
    /// one.
    pub(crate) fn remove(self) {
        // A file that stays does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File, ResultsError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| ResultsError::write(folder, error))?;
    }
    File::create(path).map_err(|error| ResultsError::write(path, error))
}

/// Whether the file is still the one at the path: the last holder may have removed it between our
/// opening and our locking it.
fn is_at(file: &File, path: &Path) -> Result<bool, ResultsError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let ours = file
            .metadata()
            .map_err(|error| ResultsError::write(path, error))?;
        match fs::metadata(path) {
            Ok(there) => Ok(ours.dev() == there.dev() && ours.ino() == there.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ResultsError::write(path, error)),
        }
    }
    #[cfg(not(unix))]
    {
        // A file that is open cannot be removed there.
        let _ = (file, path);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_survives_its_removal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/lock");
        let first = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        // A file that was opened before the holder removed it locks nothing.
        let stale = File::create(&path).unwrap();
        first.remove();
        assert!(!path.exists());
        let second = Lock::take(&path).unwrap();
        stale.lock().unwrap();
        assert!(!is_at(&stale, &path).unwrap());
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(second);
        assert!(Lock::try_take(&path).unwrap().is_some());
    }
}
