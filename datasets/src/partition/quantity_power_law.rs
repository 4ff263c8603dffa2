//! Quantity skew: power-law sizes, classes alike.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::{PartitionError, Partitioner, Promise, assign, one};
use crate::index::{ClientIndex, Rows};

/// The client of rank `r` (ranks `1 .. clients` are dealt at random) has a share in proportion to
/// `r^-exponent` (Zipf's law), rows at random. Every client has `min_examples` first; the rest is
/// shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityPowerLaw {
    /// Number of clients.
    pub clients: u64,
    /// Exponent, from 0 (equal sizes) to 20.
    pub exponent: f64,
    /// Examples that every client has at least.
    #[serde(default = "one")]
    pub min_examples: u64,
}

impl QuantityPowerLaw {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        ConfigError::unless(
            (0.0..=20.0).contains(&self.exponent),
            "exponent",
            self.exponent,
            "a number from 0 to 20",
        )
    }
}

impl Registered for QuantityPowerLaw {
    type Config = Self;
    const SUMMARY: &'static str = "Sizes by rank to a negative power (Zipf), classes alike.";
    const KEYS: &'static [KeyInfo] = &[
        assign::CLIENTS,
        KeyInfo {
            key: "exponent",
            expects: "number, 0 to 20",
            default: None,
            summary: "Size of rank `r` is in proportion to `r^-exponent`.",
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
                exponent: 1.2,
                min_examples: 1,
            },
            Self {
                clients: 7,
                exponent: 20.0,
                min_examples: 4,
            },
        ]
    }
}

impl Partitioner for QuantityPowerLaw {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.min_examples)
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, self.min_examples)?;
        let mut stream = assign::stream(seed);
        let weights = (1..=clients)
            .map(|rank| -self.exponent * libm::log(rank as f64))
            .collect();
        let mut sizes = assign::skewed_sizes(rows.len, weights, self.min_examples as usize);
        stream.shuffle(&mut sizes);
        assign::deal(&sizes, &mut stream)
    }
}
