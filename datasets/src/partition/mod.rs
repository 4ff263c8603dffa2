//! How rows fall apart into clients.
//!
//! A partitioner is one file with its keys, its algorithm and a [`Registered`] description, and
//! one line in the registry below, which gives it its `kind` in TOML, its place in the documents
//! and the conformance suite (`testing::conformance`, with the feature `testing`).
//!
//! ```
//! use fl_datasets::partition::{AnyPartitioner, PartitionConfig, Partitioner};
//! use fl_datasets::Rows;
//!
//! let rest = serde_json::json!({ "clients": 3, "alpha": 0.5 });
//! let config = PartitionConfig::from_kind("dirichlet", rest)?;
//! let labels: Vec<u32> = (0..60).map(|row| row % 4).collect();
//! let rows = Rows { len: 60, labels: Some(&labels), classes: 4, groups: None };
//! let index = AnyPartitioner::from_config(config)?.assign(&rows, 1.into())?;
//! assert_eq!(index.rows_of(0).len(), 20);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Registered`]: fl_core::registry::Registered

use fl_core::Seed;

use crate::index::{ClientIndex, Rows};

mod assign;
mod dirichlet;
mod error;
mod feature_noise;
mod iid;
mod labels_per_client;
mod natural;
mod quantity_dirichlet;
mod quantity_log_normal;
mod quantity_power_law;
mod sample;
mod shards;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use dirichlet::{Dirichlet, DirichletSizes};
pub use error::PartitionError;
pub use feature_noise::FeatureNoise;
pub use iid::Iid;
pub use labels_per_client::LabelsPerClient;
pub use natural::Natural;
pub use quantity_dirichlet::QuantityDirichlet;
pub use quantity_log_normal::QuantityLogNormal;
pub use quantity_power_law::QuantityPowerLaw;
pub use shards::Shards;

/// A rule by which rows fall apart into clients.
///
/// LAW: the result depends on the partitioner, the rows and the seed alone; no row has two
/// clients; the [promise](Partitioner::promise) is kept. `testing::conformance` checks it.
pub trait Partitioner: core::fmt::Debug + Send + Sync {
    /// What every result of [`assign`](Self::assign) keeps.
    fn promise(&self) -> Promise;

    /// Divides `rows`.
    ///
    /// # Errors
    /// [`PartitionError`] when the data cannot be divided so; it says what to change.
    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError>;
}

/// What a [`Partitioner`] keeps whatever the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Number of clients, where it does not depend on the rows.
    pub clients: Option<u64>,
    /// Whether every row has a client.
    pub covering: bool,
    /// Whether another seed gives another partition (where rows are many).
    pub seeded: bool,
    /// Rows that every client has at least.
    pub min_examples: u64,
}

impl Promise {
    /// Of a random partition of all rows.
    #[must_use]
    pub const fn covering(clients: u64, min_examples: u64) -> Self {
        Self {
            clients: Some(clients),
            covering: true,
            seeded: true,
            min_examples,
        }
    }
}

/// The default of `min_examples`.
fn one() -> u64 {
    1
}

fl_core::registry! {
    family "partition";
    /// Any partitioner of this crate.
    value AnyPartitioner;
    /// The keys of any partitioner.
    config PartitionConfig;
    dispatch with_partitioner;
    conformance crate::partition::testing::conformance;
    entries {
        Iid = "iid",
        Dirichlet = "dirichlet",
        Shards = "shards",
        LabelsPerClient = "labels-per-client",
        QuantityDirichlet = "quantity-dirichlet",
        QuantityLogNormal = "quantity-log-normal",
        QuantityPowerLaw = "quantity-power-law",
        Natural = "natural",
    }
}

impl Partitioner for AnyPartitioner {
    fn promise(&self) -> Promise {
        with_partitioner!(self, partitioner => partitioner.promise())
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        with_partitioner!(self, partitioner => partitioner.assign(rows, seed))
    }
}

#[cfg(test)]
mod tests;
