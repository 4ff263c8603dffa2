//! Federated data sets: readers, partitioners, the catalogue with checksums, small embedded data.
//!
//! A [`FederatedDataset`] is a population of clients over data that are stored once, in their
//! compact type, or generated when a client is opened; a client is a view that fills batches.
//! Nothing here knows models, opens a socket, reads a clock or starts a thread. Files are read
//! strictly: magic, lengths against the real size, ranges of labels, checksums; no length found
//! in a file is ever trusted for an allocation.
#![forbid(unsafe_code)]

pub mod error;
pub mod generator;
pub mod heterogeneity;
pub mod index;
mod normal;
pub mod partition;
pub mod synthetic;

pub use error::DatasetError;
pub use generator::{ClientScratch, GeneratedView, Generator};
pub use heterogeneity::Heterogeneity;
pub use index::{ClientIndex, ClientIndexError, Groups, Rows};
