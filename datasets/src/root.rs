//! The folder in which data sets lie.

use std::path::{Path, PathBuf};

use crate::error::DatasetError;

/// The environment variable that names the folder.
pub const VARIABLE: &str = "FLEDGLING_DATA_DIR";

/// The folder in which data sets lie, each in a folder of its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRoot(PathBuf);

impl DataRoot {
    /// The given folder; it need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder that `FLEDGLING_DATA_DIR` names, else `fledgling/datasets` in the user's cache:
    /// `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on Windows `%LOCALAPPDATA%`.
    ///
    /// # Errors
    /// [`DatasetError::NoDataFolder`] when the environment names none of these.
    pub fn from_env() -> Result<Self, DatasetError> {
        Self::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, DatasetError> {
        if let Some(folder) = variable(VARIABLE) {
            return Ok(Self(folder.into()));
        }
        let home = || variable("HOME").map(PathBuf::from);
        let cache = if cfg!(windows) {
            variable("LOCALAPPDATA").map(PathBuf::from)
        } else if cfg!(target_os = "macos") {
            home().map(|home| home.join("Library").join("Caches"))
        } else {
            (variable("XDG_CACHE_HOME").map(PathBuf::from))
                .filter(|path| path.is_absolute())
                .or_else(|| home().map(|home| home.join(".cache")))
        };
        cache
            .map(|cache| Self(cache.join("fledgling").join("datasets")))
            .ok_or(DatasetError::NoDataFolder)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_first() {
        let at = |pairs: &'static [(&str, &str)]| {
            DataRoot::from_variables(move |name| {
                (pairs.iter().find(|(key, _)| *key == name)).map(|(_, value)| value.into())
            })
        };
        let root = at(&[(VARIABLE, "/data"), ("HOME", "/home/a")]).unwrap();
        assert_eq!(root.path(), Path::new("/data"));
        assert!(matches!(at(&[]), Err(DatasetError::NoDataFolder)));
        if cfg!(target_os = "linux") {
            let root = at(&[("HOME", "/home/a")]).unwrap();
            assert_eq!(root.path(), Path::new("/home/a/.cache/fledgling/datasets"));
            let root = at(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]).unwrap();
            assert_eq!(root.path(), Path::new("/c/fledgling/datasets"));
        }
    }
}
