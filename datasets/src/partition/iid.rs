//! Independent and identically distributed clients: every row goes to a random client.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::{PartitionError, Partitioner, Promise, assign};
use crate::index::{ClientIndex, Rows};

/// All rows in random order, cut into equal runs (McMahan et al. 2017, arXiv:1602.05629,
/// section 3, "IID"). Sizes differ by at most one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Iid {
    /// Number of clients.
    pub clients: u64,
}

impl Iid {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)
    }
}

impl Registered for Iid {
    type Config = Self;
    const SUMMARY: &'static str = "Every example to a random client; sizes are equal.";
    const KEYS: &'static [KeyInfo] = &[assign::CLIENTS];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![Self { clients: 10 }]
    }
}

impl Partitioner for Iid {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, 1)
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, 1)?;
        assign::deal(
            &assign::equal_sizes(rows.len, clients),
            &mut assign::stream(seed),
        )
    }
}
