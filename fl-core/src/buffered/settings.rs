//! What stays the same over a run of a [`BufferedServer`](super::BufferedServer).

use alloc::boxed::Box;

use crate::plan::LocalPlan;
use crate::registry::ConfigError;
use crate::select::Selector;
use crate::transform::TransformChain;
use crate::units::{Seed, VirtualDuration};

/// How many train, and when there is a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferedSettings {
    concurrency: u64,
    buffer: u64,
    pub(super) max_staleness: Option<u64>,
    pub(super) timeout: Option<VirtualDuration>,
}

impl BufferedSettings {
    /// Up to `concurrency` clients train at a time, and every `buffer` accepted reports make a
    /// version. Reports of more than `max_staleness` versions are refused; a client that does not
    /// report within `timeout` is given up.
    ///
    /// # Errors
    /// [`ConfigError`] for a concurrency or a buffer of zero or above 2^32, or a timeout of zero.
    pub fn new(
        concurrency: u64,
        buffer: u64,
        max_staleness: Option<u64>,
        timeout: Option<VirtualDuration>,
    ) -> Result<Self, ConfigError> {
        for (key, value) in [("concurrency", concurrency), ("buffer", buffer)] {
            ConfigError::unless(
                (1..=1 << 32).contains(&value),
                key,
                value,
                "a whole number of at least 1 and at most 2^32",
            )?;
        }
        let some = timeout.is_none_or(|span| span.0 > 0);
        ConfigError::unless(some, "timeout", 0, "a span of time above 0")?;
        Ok(Self {
            concurrency,
            buffer,
            max_staleness,
            timeout,
        })
    }

    /// Reports that make a version: the most clients in a sum, for planning a ring.
    #[must_use]
    pub fn buffer(&self) -> u64 {
        self.buffer
    }

    /// Clients that train at a time, at most.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        self.concurrency
    }
}

/// What stays the same over all versions of a run.
#[derive(Debug)]
pub struct BufferedSetup {
    /// Chooses who takes a free place, by [`Selector::choose`].
    pub selector: Box<dyn Selector>,
    /// What clients are asked to do, before the strategy has its say.
    pub local: LocalPlan,
    /// How many train, and when there is a new version.
    pub settings: BufferedSettings,
    /// What clients do to their updates, to be undone.
    pub chain: TransformChain,
    /// The experiment's seed.
    pub seed: Seed,
    /// Clients in all.
    pub population: u64,
}
