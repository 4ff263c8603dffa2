//! When a round goes on, and how it ends.

use super::{Outcome, RoundRecord};
use crate::registry::ConfigError;
use crate::units::VirtualDuration;

/// When a round goes on without those who are missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundSettings {
    minimum: u64,
    shares: Option<Shares>,
    pub(super) invitation: Option<VirtualDuration>,
    pub(super) deadline: Option<VirtualDuration>,
    pub(super) mean: Mean,
}

/// Which share of the wanted reports must be in the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    share: f64,
    /// When more than half dropped out.
    lowered: Option<f64>,
}

/// The fewest reports that are `share` of `wanted`.
pub(super) fn least(share: f64, wanted: u64) -> u64 {
    // A product that is a little above a whole number for being rounded is that number.
    libm::ceil(share * wanted as f64 * (1.0 - 4.0 * f64::EPSILON)) as u64
}

/// Who makes the mean of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mean {
    /// The machine.
    Own,
    /// The driver, out of what nobody else may see.
    Released,
    /// The driver, of the sums of groups.
    Combined,
}

impl Default for RoundSettings {
    /// At least one update; everyone is waited for.
    fn default() -> Self {
        Self {
            minimum: 1,
            shares: None,
            invitation: None,
            deadline: None,
            mean: Mean::Own,
        }
    }
}

impl RoundSettings {
    /// `minimum` updates must be in the sum; clients have `invitation` to answer and, from the
    /// start of training, `deadline` to report.
    ///
    /// # Errors
    /// [`ConfigError`] for a minimum of zero or a span of zero.
    pub fn new(
        minimum: u64,
        invitation: Option<VirtualDuration>,
        deadline: Option<VirtualDuration>,
    ) -> Result<Self, ConfigError> {
        ConfigError::unless(
            minimum > 0,
            "minimum",
            minimum,
            "a whole number of at least 1",
        )?;
        for (key, span) in [("invitation", invitation), ("deadline", deadline)] {
            let some = span.is_none_or(|span| span.0 > 0);
            ConfigError::unless(some, key, 0, "a span of time above 0")?;
        }
        Ok(Self {
            minimum,
            shares: None,
            invitation,
            deadline,
            mean: Mean::Own,
        })
    }

    /// The same, and at least `share` of the reports that the selection wanted must be in the sum;
    /// exactly that many are enough. When more than half of those selected dropped out (declined,
    /// left, failed, were late, did partial work that is not kept, or never handed over what was
    /// accepted), the `lowered` share is enough, and the round ends as [`Outcome::AppliedLowered`].
    ///
    /// # Errors
    /// [`ConfigError`] unless `0 < lowered < share <= 1`, and `share <= 0.5` where there is a lowered
    /// one: fewer reports never do better than more.
    pub fn with_share(self, share: f64, lowered: Option<f64>) -> Result<Self, ConfigError> {
        ConfigError::unless(
            share > 0.0 && share <= 1.0,
            "minimum_share",
            share,
            "a number above 0 and at most 1",
        )?;
        if let Some(lowered) = lowered {
            ConfigError::unless(
                share <= 0.5,
                "minimum_share",
                share,
                "at most 0.5 beside a lowered share, which is for rounds of which more than half \
                 dropped out",
            )?;
            ConfigError::unless(
                lowered > 0.0 && lowered < share,
                "lowered_share",
                lowered,
                "a number above 0 and below the minimum share",
            )?;
        }
        Ok(Self {
            shares: Some(Shares { share, lowered }),
            ..self
        })
    }

    /// The fewest ready clients with whom a round of `wanted` reports can still succeed.
    pub(super) fn fewest(&self, wanted: u64) -> u64 {
        let of_share = self.shares.map_or(0, |shares| {
            least(shares.lowered.unwrap_or(shares.share), wanted)
        });
        self.minimum.max(of_share)
    }

    /// How a round ends with `summed` updates of `wanted`.
    pub(super) fn outcome(&self, record: &RoundRecord, summed: u64, wanted: u64) -> Outcome {
        if summed < self.minimum {
            return Outcome::TooFewUpdates;
        }
        let Some(Shares { share, lowered }) = self.shares else {
            return Outcome::Applied;
        };
        if summed >= least(share, wanted) {
            return Outcome::Applied;
        }
        let dropped = record.unready
            + record.dropped
            + record.failed
            + record.stragglers
            + record.timed_out
            + record.lost;
        let many = 2 * dropped > record.selected;
        if many && lowered.is_some_and(|lowered| summed >= least(lowered, wanted)) {
            Outcome::AppliedLowered
        } else {
            Outcome::TooFewUpdates
        }
    }

    /// The same times, for rounds whose mean the driver [releases](super::RoundServer::release): how many
    /// updates are in the sum decides nothing, not even whether the model moves.
    #[must_use]
    pub fn released(self) -> Self {
        Self {
            minimum: 0,
            shares: None,
            mean: Mean::Released,
            ..self
        }
    }

    /// The same, for rounds whose mean the driver [makes](super::RoundServer::release) of the sums of groups
    /// of clients, see [`crate::robust`]. A round with fewer updates than required ends by itself.
    #[must_use]
    pub fn combined(self) -> Self {
        Self {
            mean: Mean::Combined,
            ..self
        }
    }
}
