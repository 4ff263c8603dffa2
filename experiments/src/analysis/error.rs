//! Why results could not be analysed.

use std::path::PathBuf;

use crate::results::ResultsError;

/// Why results could not be analysed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// A folder holds no results, or a file in it is damaged.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A sweep of which nothing has been run.
    #[error(
        "{} is a sweep of which no cell has been run; run it with `fledgling sweep`",
        .path.display()
    )]
    NothingRun {
        /// The sweep's folder.
        path: PathBuf,
    },
    /// No axis has that key.
    #[error("the runs do not differ in `{key}`; {hint}")]
    NoAxis {
        /// What was asked for.
        key: String,
        /// The nearest, or all.
        hint: String,
    },
    /// A table could not be made.
    #[error("{table} could not be made: {why}; report this as a bug of the program")]
    Table {
        /// The table.
        table: &'static str,
        /// Why not.
        why: String,
    },
}
