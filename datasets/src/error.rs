//! Why a data set could not be had.

use std::path::PathBuf;

use crate::index::ClientIndexError;
use crate::partition::PartitionError;

/// Why a data set could not be read, fetched, divided or generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// No data set has this name.
    #[error("no data set is called `{name}`; {hint}known names: {known}")]
    UnknownName {
        /// The name given.
        name: String,
        /// `did you mean ...? ` or nothing.
        hint: String,
        /// Every known name.
        known: String,
    },
    /// A key that the data set does not read.
    #[error("data set `{name}` has no key `{key}`; it reads {keys}")]
    UnusedKey {
        /// The data set.
        name: String,
        /// The key given.
        key: &'static str,
        /// The keys that it reads.
        keys: String,
    },
    /// A key that the data set needs.
    #[error("data set `{name}` needs `{key}`: {meaning}")]
    MissingKey {
        /// The data set.
        name: String,
        /// The key.
        key: &'static str,
        /// What the key means.
        meaning: &'static str,
    },
    /// A key's value is outside its range.
    #[error("`{key}` is {value}; {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value given.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A file of the catalogue is not in the data folder.
    #[error(
        "{} of data set `{name}` is not there; {remedy}", path.display()
    )]
    MissingFile {
        /// The data set.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// How to get it.
        remedy: String,
    },
    /// Neither `FLEDGLING_DATA_DIR` nor the user's home is known.
    #[error("no folder for data sets is known; set FLEDGLING_DATA_DIR to one")]
    NoDataFolder,
    /// The operating system refused.
    #[error("{action} {}: {source}; check the path, its permissions and the space left", path.display())]
    Io {
        /// What was being done, e.g. `reading`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's contents are not what the catalogue records.
    #[error(
        "{} has SHA-256 {found} ({found_bytes} bytes) where {expected} ({expected_bytes} bytes) is expected; delete it and fetch or import it again", path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Recorded SHA-256, hexadecimal.
        expected: String,
        /// Recorded size.
        expected_bytes: u64,
        /// SHA-256 of the file, hexadecimal.
        found: String,
        /// Size of the file.
        found_bytes: u64,
    },
    /// A file breaks its format.
    #[error("{file}, {place}: found {found}, expected {expected}; {remedy}")]
    Malformed {
        /// The file.
        file: String,
        /// Byte, line, row or field.
        place: String,
        /// What is there.
        found: String,
        /// What the format asks for.
        expected: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Two files that belong together do not fit.
    #[error(
        "{first} holds {first_count} {noun} and {second} holds {second_count}; both must hold the same number, so use files of one release"
    )]
    CountMismatch {
        /// What is counted.
        noun: &'static str,
        /// One file.
        first: String,
        /// Its count.
        first_count: u64,
        /// The other file.
        second: String,
        /// Its count.
        second_count: u64,
    },
    /// The data have no natural clients.
    #[error("data set `{name}` names no natural clients; {instead}")]
    NoNaturalClients {
        /// The data set.
        name: String,
        /// What to choose instead.
        instead: &'static str,
    },
    /// The data are empty where they must not be.
    #[error("{what} holds no {noun}; {remedy}")]
    Empty {
        /// The file, folder or data set.
        what: String,
        /// What is missing.
        noun: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// More than this crate can address.
    #[error("{what} holds {found} {noun}, more than the {limit} that are supported; {remedy}")]
    TooLarge {
        /// The file or data set.
        what: String,
        /// What is counted.
        noun: &'static str,
        /// How many there are.
        found: u64,
        /// How many are supported.
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// A download that did not come through.
    #[error(
        "{url}, at byte {at}: {reason}; run the command again and it goes on from there, or import files at hand"
    )]
    Transfer {
        /// The address.
        url: String,
        /// Bytes that had arrived.
        at: u64,
        /// What the transport said.
        reason: String,
    },
    /// Files that cannot be downloaded automatically.
    #[error(
        "`{file}` of data set `{name}` can only be imported: {reason}; get it by hand and use `data import {name} PATH`"
    )]
    ImportOnly {
        /// The data set.
        name: String,
        /// The file.
        file: String,
        /// Why.
        reason: &'static str,
    },
    /// The program was built without a reader.
    #[error(
        "this program was built without the feature `{feature}`, which reads {what}; build it with that feature"
    )]
    MissingFeature {
        /// The cargo feature.
        feature: &'static str,
        /// What it reads.
        what: &'static str,
    },
    /// The requested partition is impossible.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A partitioner broke its promise, or an index was built by hand.
    #[error(transparent)]
    Index(#[from] ClientIndexError),
}
