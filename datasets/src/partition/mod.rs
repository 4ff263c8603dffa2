//! How rows fall apart into clients.

mod error;

pub use error::PartitionError;
