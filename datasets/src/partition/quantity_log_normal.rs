//! Quantity skew: log-normal sizes, classes alike.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::{PartitionError, Partitioner, Promise, assign, one};
use crate::index::{ClientIndex, Rows};

/// Shares of the data in proportion to `LogNormal(0, sigma)`, rows at random. Every client has
/// `min_examples` first; the rest is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityLogNormal {
    /// Number of clients.
    pub clients: u64,
    /// Standard deviation of the logarithm of a size, from 0 (equal sizes) to 100.
    pub sigma: f64,
    /// Examples that every client has at least.
    #[serde(default = "one")]
    pub min_examples: u64,
}

impl QuantityLogNormal {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        assign::check_sigma(self.sigma)
    }
}

impl Registered for QuantityLogNormal {
    type Config = Self;
    const SUMMARY: &'static str = "Log-normal sizes, classes alike.";
    const KEYS: &'static [KeyInfo] = &[
        assign::CLIENTS,
        KeyInfo {
            key: "sigma",
            expects: "number, 0 to 100",
            default: None,
            summary: "Standard deviation of the logarithm of a size.",
        },
        assign::MIN_EXAMPLES,
    ];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![
            Self {
                clients: 10,
                sigma: 1.0,
                min_examples: 1,
            },
            Self {
                clients: 7,
                sigma: 100.0,
                min_examples: 4,
            },
        ]
    }
}

impl Partitioner for QuantityLogNormal {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.min_examples)
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, self.min_examples)?;
        let mut stream = assign::stream(seed);
        let weights = (0..clients).map(|_| self.sigma * stream.normal()).collect();
        let sizes = assign::skewed_sizes(rows.len, weights, self.min_examples as usize);
        assign::deal(&sizes, &mut stream)
    }
}
