//! Why results could not be written, read or trusted.

use std::io;
use std::path::{Path, PathBuf};

/// Why results could not be written, read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The system refused to write a file or folder.
    #[error("{} could not be written: {source}; {help}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        help: &'static str,
    },
    /// The system refused to read a file or folder.
    #[error("{} could not be read: {source}; {help}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        help: &'static str,
    },
    /// A file is not what was written.
    #[error("{} is damaged: {what}; {help}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// The folder holds no results.
    #[error(
        "{} holds no results: there is no manifest.toml in it; name a folder that `fledgling run` wrote, e.g. results/quickstart",
        .path.display()
    )]
    NoResults {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds results, but not of that variant.
    #[error(
        "{} has no variant `{variant}`; it has {}",
        .path.display(),
        list(.known)
    )]
    NoVariant {
        /// The folder.
        path: PathBuf,
        /// The variant that was asked for.
        variant: String,
        /// The variants that it has.
        known: Vec<String>,
    },
    /// Another program is writing into the folder.
    #[error(
        "{} is in use by another run; wait for it to end, or choose another folder with --out",
        .path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is frozen.
    #[error(
        "{} is locked: its results are to stay as they are; choose another folder with --out, or take the lock off with `fledgling lock --release {}`",
        .path.display(), .path.display()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file of a frozen folder is another, is missing, or is new.
    #[error(
        "{}: {what}; bring the folder back as it was, or take the lock off with `fledgling lock --release`",
        .path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Results that are to be frozen are not whole.
    #[error(
        "{}: variant `{variant}` was stopped before its end; finish it with --resume, and lock it then",
        .path.display()
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// The variant.
        variant: String,
    },
    /// The journal belongs to another configuration.
    #[error(
        "{} was written with another configuration; run without --resume to start afresh, or choose another folder with --out",
        .path.display()
    )]
    OtherConfiguration {
        /// The journal.
        path: PathBuf,
    },
    /// The journal is shorter than the checkpoint says.
    #[error(
        "{} holds {found} bytes of whole records and the checkpoint needs {needed}; run without --resume to start afresh",
        .path.display()
    )]
    JournalTooShort {
        /// The journal.
        path: PathBuf,
        /// Bytes of whole records.
        found: u64,
        /// The position in the checkpoint.
        needed: u64,
    },
    /// A format that this program does not know.
    #[error(
        "{} has format {found}, and this program reads format {expected}; use the program that wrote it",
        .path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format that is known.
        expected: u64,
    },
    /// A value that its format cannot hold.
    #[error("{what} cannot be written to {}: {why}; report this as a bug of the program", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What was being written.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

impl ResultsError {
    /// A refused write, with advice that fits the reason.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let help = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space or choose a folder on another disk with --out; what was there before is unchanged"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "choose a folder that you may write to with --out"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "a file stands where a folder is needed; move it away or choose another folder with --out"
            }
            io::ErrorKind::IsADirectory => {
                "a folder stands where a file is needed; move it away or choose another folder with --out"
            }
            io::ErrorKind::FileTooLarge => {
                "the limit on the size of files is too low; raise it, e.g. with `ulimit -f unlimited`"
            }
            _ => "check the disk or choose another folder with --out",
        };
        Self::Write {
            path: path.to_owned(),
            source,
            help,
        }
    }

    /// A refused read, with advice that fits the reason.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let help = match source.kind() {
            io::ErrorKind::NotFound => "the results are not complete; run the experiment again",
            io::ErrorKind::PermissionDenied => "make it readable for you",
            _ => "check the disk",
        };
        Self::Read {
            path: path.to_owned(),
            source,
            help,
        }
    }

    /// A file that is not what was written.
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
            help: "restore it from a copy, or run the experiment again",
        }
    }
}

fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
