//! Federated data sets: readers, partitioners, the catalogue with checksums, small embedded data.
//!
//! A [`FederatedDataset`] is a population of clients over data that are stored once, in their
//! compact type, or generated when a client is opened; a client is a view that fills batches.
//! Nothing here knows models, opens a socket, reads a clock or starts a thread. Files are read
//! strictly: magic, lengths against the real size, ranges of labels, checksums; no length found
//! in a file is ever trusted for an allocation.
//!
//! ```
//! use fl_core::{ClientId, Examples as _};
//! use fl_datasets::partition::PartitionConfig;
//! use fl_datasets::{ClientScratch, DataRoot, DatasetConfig};
//!
//! let rest = serde_json::json!({ "alpha": 0.3, "clients": 500 });
//! let partition = PartitionConfig::from_kind("dirichlet", rest)?;
//! let config = DatasetConfig::new("fashion-mini").with_partition(partition);
//! // The data are in the program, so the folder is not looked at.
//! let data = fl_datasets::load(&config, &DataRoot::new("/nowhere"), 1.into())?;
//! assert_eq!(data.clients(), 500);
//! let mut scratch = ClientScratch::default();
//! let examples = data.train(ClientId(7), &mut scratch);
//! assert_eq!(examples.len() as u64, data.train_len(ClientId(7)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod config;
pub mod dataset;
pub mod embedded;
pub mod error;
pub mod fetch;
pub mod generator;
pub mod heterogeneity;
pub mod index;
mod normal;
pub mod partition;
pub mod read;
pub mod root;
pub mod sets;
pub mod store;
pub mod synthetic;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use config::DatasetConfig;
pub use dataset::{ClientExamples, DatasetSummary, FederatedDataset};
pub use error::DatasetError;
pub use generator::{ClientScratch, GeneratedView, Generator};
pub use heterogeneity::Heterogeneity;
pub use index::{ClientIndex, ClientIndexError, Groups, Rows};
pub use partition::{PartitionConfig, Partitioner};
pub use root::DataRoot;
pub use sets::load;
pub use store::Normalise;
