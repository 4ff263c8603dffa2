//! Quantity skew: sizes from a Dirichlet distribution, classes alike.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::sample::LogGamma;
use super::{PartitionError, Partitioner, Promise, assign, one};
use crate::index::{ClientIndex, Rows};

/// Shares of the data `q ~ Dir(alpha, ..., alpha)`, rows at random ("quantity skew" of Li et al.
/// 2022, NIID-Bench, arXiv:2102.02079). Every client has `min_examples` first; the rest is shared by
/// `q`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityDirichlet {
    /// Number of clients.
    pub clients: u64,
    /// Concentration, from 1e-6 to 1e6; the smaller, the more unequal.
    pub alpha: f64,
    /// Examples that every client has at least.
    #[serde(default = "one")]
    pub min_examples: u64,
}

impl QuantityDirichlet {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        assign::check_positive("alpha", self.alpha)
    }
}

impl Registered for QuantityDirichlet {
    type Config = Self;
    const SUMMARY: &'static str =
        "Sizes from a Dirichlet distribution, classes alike (Li et al. 2022).";
    const KEYS: &'static [KeyInfo] = &[
        assign::CLIENTS,
        KeyInfo {
            key: "alpha",
            expects: "number above 0",
            default: None,
            summary: "Concentration; the smaller, the more unequal the sizes.",
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
                alpha: 0.5,
                min_examples: 1,
            },
            Self {
                clients: 7,
                alpha: 0.01,
                min_examples: 4,
            },
        ]
    }
}

impl Partitioner for QuantityDirichlet {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.min_examples)
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, self.min_examples)?;
        let mut stream = assign::stream(seed);
        let gamma = LogGamma::new(self.alpha);
        let weights = (0..clients).map(|_| gamma.draw(&mut stream)).collect();
        let sizes = assign::skewed_sizes(rows.len, weights, self.min_examples as usize);
        assign::deal(&sizes, &mut stream)
    }
}
