//! Why a version could not be kept or loaded.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Version;
use crate::patch::PatchError;

/// Why a version could not be fetched, installed or loaded. The current version is the one that it
/// was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} `{}`: {source}; free space, or choose a folder that can be written", path.display())]
    Disk {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// Both slots are damaged.
    #[error(
        "`{}` is damaged and no other slot is whole, so nobody knows which version was current; \
         remove the store's folder and install a version", path.display()
    )]
    Slots {
        /// A slot.
        path: PathBuf,
    },
    /// There is no version yet.
    #[error("no version is installed; install one first")]
    Empty,
    /// There is nothing to go back to.
    #[error("no version was installed before the current one; install one")]
    NothingBefore,
    /// The version is longer than the store takes.
    #[error("the version has {bytes} bytes and at most {most} are kept; choose a smaller model")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The longest that is taken.
        most: u64,
    },
    /// More bytes than were announced.
    #[error("more bytes came than version {version} has; fetch it again")]
    Trailing {
        /// What was to be fetched.
        version: Version,
    },
    /// Fewer bytes than were announced.
    #[error("{received} bytes came of version {version}; go on fetching it")]
    Incomplete {
        /// What was to be fetched.
        version: Version,
        /// What came.
        received: u64,
    },
    /// What came is something else.
    #[error("fetched {found} where {expected} was announced; fetch it again")]
    Download {
        /// What was to be fetched.
        expected: Version,
        /// What came.
        found: Version,
    },
    /// What is on the disk is not what was written.
    #[error(
        "`{}` is {found} where {expected} was written; the disk has changed it: fetch it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was written.
        expected: Version,
        /// What is there.
        found: Version,
    },
    /// The caller refused the version.
    #[error("version {version} is refused: {source}")]
    Refused {
        /// Which.
        version: Version,
        /// Why.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
    /// A patch leads from a version that is not kept.
    #[error(
        "the patch leads from version {needed}, which is not kept{}; fetch a patch of that one, or \
         the whole new version",
        current.map_or_else(String::new, |current| format!(" (the current one is {current})"))
    )]
    NoOld {
        /// The version that it leads from.
        needed: Version,
        /// The current one.
        current: Option<Version>,
    },
    /// The patch was refused.
    #[error("the patch cannot be applied: {0}")]
    Patch(#[from] PatchError),
}

impl StoreError {
    pub(super) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            action,
            path,
            source,
        }
    }
}
