//! Why the program stops, and with which exit code.

use std::path::PathBuf;

use crate::config::ConfigErrors;

/// Everything that ends a command early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The experiment is not valid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A file or folder could not be read or written.
    #[error("{path}: {source}; {help}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },
    /// A file that should be text is not.
    #[error("{path}: byte {byte} is not UTF-8; save the file as UTF-8 text", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is not UTF-8.
        byte: usize,
    },
}

impl Error {
    /// The process's exit code: 2 where the fault is in what was typed, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::NotText { .. } => 2,
            Self::Io { .. } => 1,
        }
    }
}
