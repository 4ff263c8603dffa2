//! Each client takes part with probability `rate`, independently of all others
//! ([`Stream::sample`]); time grows with the number of clients selected.
//!
//! A predicate of who is eligible is asked about those that are drawn: each eligible client takes
//! part with that probability. The cohort's size varies from round to round and may be zero; all
//! reports are waited for.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Candidates, SelectError, Selection, Selector};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;

/// Keys of `kind = "poisson"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoissonConfig {
    /// Probability of each client in each round, in `(0, 1]`.
    pub rate: f64,
}

/// Independent selection, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poisson {
    rate: f64,
}

impl Registered for Poisson {
    type Config = PoissonConfig;
    const SUMMARY: &'static str = "Each client with the same probability, independently.";
    const KEYS: &'static [KeyInfo] = &[KeyInfo {
        key: "rate",
        expects: "number above 0, at most 1",
        default: None,
        summary: "Probability of each client in each round.",
    }];

    fn from_config(config: PoissonConfig) -> Result<Self, ConfigError> {
        let PoissonConfig { rate } = config;
        ConfigError::unless(
            rate > 0.0 && rate <= 1.0,
            "rate",
            rate,
            "a number above 0 and at most 1",
        )?;
        Ok(Self { rate })
    }

    fn examples() -> Vec<PoissonConfig> {
        [0.01, 0.3, 1.0].map(|rate| PoissonConfig { rate }).to_vec()
    }
}

impl Selector for Poisson {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let indices = independent(candidates.len(), self.rate, stream);
        Ok(candidates.admitted(candidates.at(indices)))
    }

    /// All of them: however unlikely, it can happen.
    fn largest_goal(&self, population: u64) -> u64 {
        population
    }
}

/// The numbers below `available`, each with probability `rate`; ascending.
pub(super) fn independent(available: u64, rate: f64, stream: &mut Stream) -> Vec<u64> {
    let mut indices = Vec::new();
    stream.sample(available, rate, |index| indices.push(index));
    indices
}
