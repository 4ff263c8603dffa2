//! Why data could not be divided as asked.

/// Why a partition is impossible.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum PartitionError {
    /// More clients than rows.
    #[error("{clients} clients cannot share {rows} examples; ask for at most {rows} clients")]
    TooManyClients {
        /// Clients asked for.
        clients: u64,
        /// Rows of the data.
        rows: u64,
    },
}
