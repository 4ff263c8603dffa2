//! The pathological split of McMahan et al. 2017.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::assign::ByClass;
use super::{PartitionError, Partitioner, Promise, assign};
use crate::index::{ClientIndex, Rows};

/// Rows sorted by label, cut into `clients * shards_per_client` equal shards, each client dealt
/// `shards_per_client` of them (McMahan et al. 2017, arXiv:1602.05629, section 3, "Non-IID":
/// 200 shards of 300 for 100 clients). Where the rows do not divide, shard sizes differ by one.
/// The order of rows within a class, which the paper leaves open, is random.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shards {
    /// Number of clients.
    pub clients: u64,
    /// Shards that each client gets; 2 in the paper.
    #[serde(default = "two")]
    pub shards_per_client: u64,
}

fn two() -> u64 {
    2
}

const KIND: &str = "shards";

impl Shards {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        ConfigError::unless(
            self.shards_per_client > 0,
            "shards_per_client",
            self.shards_per_client,
            "a whole number of at least 1",
        )
    }
}

impl Registered for Shards {
    type Config = Self;
    const SUMMARY: &'static str =
        "Sorted by label, cut into shards, a few for each client (McMahan et al. 2017).";
    const KEYS: &'static [KeyInfo] = &[
        assign::CLIENTS,
        KeyInfo {
            key: "shards_per_client",
            expects: "whole number, at least 1",
            default: Some("2"),
            summary: "Shards that each client gets.",
        },
    ];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![
            Self {
                clients: 10,
                shards_per_client: 2,
            },
            Self {
                clients: 7,
                shards_per_client: 3,
            },
        ]
    }
}

impl Partitioner for Shards {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.shards_per_client)
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, 1)?;
        let shards = self.clients.saturating_mul(self.shards_per_client);
        if shards > rows.len as u64 {
            return Err(PartitionError::TooManyShards {
                clients: self.clients,
                shards_per_client: self.shards_per_client,
                rows: rows.len as u64,
            });
        }
        let mut stream = assign::stream(seed);
        let by_class = ByClass::shuffled(rows, KIND, &mut stream)?;
        let mut deck: Vec<usize> = (0..shards as usize).collect();
        stream.shuffle(&mut deck);
        // The product is below 2^64: both factors are below 2^32.
        let start = |shard: usize| (shard as u64 * rows.len as u64 / shards) as usize;
        let mut owner = vec![0u32; rows.len];
        for (place, &shard) in deck.iter().enumerate() {
            let client = (place / self.shards_per_client as usize) as u32;
            for &row in &by_class.sorted()[start(shard)..start(shard + 1)] {
                owner[row as usize] = client;
            }
        }
        assign::index(&owner, clients)
    }
}
