//! When rounds begin and end on the virtual clock.
//!
//! **Synchronous**: a cohort is chosen, trains, and the round ends when enough have reported, nobody
//! is left, or its deadline is over. With a deadline and a strategy that keeps partial work, a client
//! that would be late does as many epochs as it can send in time: such a round is called
//! semi-synchronous.
//!
//! **Asynchronous**: so many clients train at any time; each begins with the model of the moment, and
//! the model moves whenever a number of updates has come (Nguyen et al. 2022, arXiv:2106.06639; with a
//! buffer of one Xie et al. 2019, arXiv:1903.03934).

use fl_core::registry::ConfigError;
use fl_core::round::RoundSettings;
use fl_core::{VirtualDuration, VirtualTime};
use serde::{Deserialize, Serialize};

use crate::error::SimError;
use crate::regions::RegionsConfig;

/// When rounds begin and end. Spans of time are in seconds of the virtual clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Whether clients wait for one another.
    pub mode: Mode,
    /// A client that has not reported after so long is no longer waited for; above 0. Everyone is
    /// waited for without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<f64>,
    /// The share of the reports wanted without which a round fails, above 0 and at most 1; without it
    /// one report is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_share: Option<f64>,
    /// The share that is enough when more than half of the clients dropped out; below
    /// `minimum_share`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowered_share: Option<f64>,
    /// A round begins no sooner than so long after the one before it began; above 0. At once without
    /// it. Not in asynchronous runs, which have no pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<f64>,
    /// How long the server waits after a round that failed, or that nobody could be found for, before
    /// it tries again with a new cohort; above 0.
    pub retry_after: f64,
    /// Aggregators between the clients and the server; none without, and none in asynchronous mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionsConfig>,
}

/// Whether clients wait for one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mode {
    /// They do: in rounds.
    #[default]
    Synchronous,
    /// They do not; the selection's cohort is how many train at a time.
    Asynchronous {
        /// Updates by which the model moves, at least 1.
        buffer: u64,
        /// Updates that are staler, in versions, are refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_staleness: Option<u64>,
    },
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            deadline: None,
            minimum_share: None,
            lowered_share: None,
            every: None,
            retry_after: 600.0,
            regions: None,
        }
    }
}

impl ScheduleConfig {
    /// Whether everything is as without it.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the ranges. `timed` says whether there are devices, without which no time passes.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] naming the key.
    pub fn validate(&self, timed: bool) -> Result<(), SimError> {
        let refuse = |key, value: String, range| Err(SimError::OutOfRange { key, value, range });
        for (key, value) in [
            ("schedule.deadline", self.deadline),
            ("schedule.every", self.every),
            ("schedule.retry_after", Some(self.retry_after)),
        ] {
            if let Some(value) = value
                && !(1e-3..=LONGEST).contains(&value)
            {
                return refuse(key, value.to_string(), "from a millisecond to ten years");
            }
        }
        for (key, value) in [
            ("schedule.minimum_share", self.minimum_share),
            ("schedule.lowered_share", self.lowered_share),
        ] {
            if let Some(value) = value
                && !(value > 0.0 && value <= 1.0)
            {
                return refuse(key, value.to_string(), "a share above 0 and at most 1");
            }
        }
        if let Some(lowered) = self.lowered_share {
            let Some(minimum) = self.minimum_share.filter(|minimum| lowered < *minimum) else {
                let range = "a share below schedule.minimum_share";
                return refuse("schedule.lowered_share", lowered.to_string(), range);
            };
            if minimum > 0.5 {
                let range = "at most 0.5 beside schedule.lowered_share, which is for rounds that more \
                             than half dropped out of";
                return refuse("schedule.minimum_share", minimum.to_string(), range);
            }
        }
        if let Mode::Asynchronous { buffer, .. } = self.mode {
            if buffer == 0 {
                let range = "a whole number of at least 1";
                return refuse("schedule.buffer", buffer.to_string(), range);
            }
            if self.regions.is_some() {
                let range = "none, for a region sums its part of a round, and there are none";
                return refuse("schedule.regions", "given".to_owned(), range);
            }
            for (key, given) in [
                ("schedule.minimum_share", self.minimum_share.is_some()),
                ("schedule.every", self.every.is_some()),
            ] {
                if given {
                    let range = "none, for the model moves when the buffer is full";
                    return refuse(key, "given".to_owned(), range);
                }
            }
        }
        if let Some(regions) = &self.regions {
            regions.validate()?;
        }
        let timeless = match self {
            Self {
                mode: Mode::Asynchronous { .. },
                ..
            } => Some(("schedule.mode", "asynchronous")),
            Self {
                deadline: Some(_), ..
            } => Some(("schedule.deadline", "given")),
            Self { every: Some(_), .. } => Some(("schedule.every", "given")),
            _ => None,
        };
        if let (Some((key, value)), false) = (timeless, timed) {
            let range = "devices to the fleet, too: without them no time passes";
            return refuse(key, value.to_owned(), range);
        }
        Ok(())
    }

    /// When a synchronous round ends.
    pub(crate) fn rounds(&self) -> Result<RoundSettings, ConfigError> {
        let settings = RoundSettings::new(1, None, self.deadline())?;
        match self.minimum_share {
            Some(share) => settings.with_share(share, self.lowered_share),
            None => Ok(settings),
        }
    }

    pub(crate) fn deadline(&self) -> Option<VirtualDuration> {
        self.deadline.map(span)
    }

    /// The moment at which a round may begin after one that began at `started` and ended at `ended`.
    pub(crate) fn next(&self, started: VirtualTime, ended: VirtualTime) -> VirtualTime {
        let pause = self.every.map_or(VirtualDuration(0), span);
        ended.max(started + pause)
    }

    pub(crate) fn retry_after(&self) -> VirtualDuration {
        span(self.retry_after)
    }
}

/// The longest span of time that is accepted, in seconds.
const LONGEST: f64 = 10.0 * 366.0 * 86_400.0;

/// Seconds as a span of virtual time, to the microsecond; nothing below zero, and the end of time for
/// what is beyond it.
pub(crate) fn span(seconds: f64) -> VirtualDuration {
    VirtualDuration(libm::rint(seconds * 1e6) as u64)
}

/// A span of virtual time in seconds.
pub(crate) fn seconds(span: VirtualDuration) -> f64 {
    span.0 as f64 * 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let base = ScheduleConfig::default();
        assert!(base.validate(false).is_ok() && base.is_default());
        let buffered = |buffer| ScheduleConfig {
            mode: Mode::Asynchronous {
                buffer,
                max_staleness: None,
            },
            ..base
        };
        let cases = [
            (
                ScheduleConfig {
                    deadline: Some(0.0),
                    ..base
                },
                true,
                "schedule.deadline is 0, which is out of range; give from a millisecond to ten years",
            ),
            (
                ScheduleConfig {
                    minimum_share: Some(1.5),
                    ..base
                },
                true,
                "schedule.minimum_share is 1.5, which is out of range; give a share above 0 and at most 1",
            ),
            (
                ScheduleConfig {
                    minimum_share: Some(0.5),
                    lowered_share: Some(0.5),
                    ..base
                },
                true,
                "schedule.lowered_share is 0.5, which is out of range; give a share below schedule.minimum_share",
            ),
            (
                buffered(0),
                true,
                "schedule.buffer is 0, which is out of range; give a whole number of at least 1",
            ),
            (
                buffered(10),
                false,
                "schedule.mode is asynchronous, which is out of range; give devices to the fleet, too: without them no time passes",
            ),
        ];
        for (config, timed, message) in cases {
            assert_eq!(config.validate(timed).unwrap_err().to_string(), message);
        }
        assert!(buffered(10).validate(true).is_ok());
    }

    #[test]
    fn spans_are_whole_microseconds() {
        let cases = [
            (0.0, 0),
            (1.5, 1_500_000),
            (1e-7, 0),
            (-3.0, 0),
            (1e300, u64::MAX),
        ];
        for (seconds, microseconds) in cases {
            assert_eq!(span(seconds).0, microseconds, "{seconds}");
        }
        assert!((super::seconds(VirtualDuration(1_500_000)) - 1.5).abs() < 1e-12);
    }
}
