//! `[schedule]`: when rounds begin and end on the virtual clock.

use fl_sim::{Mode, RegionsConfig, ScheduleConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;
use super::span::Span;

/// When rounds begin and end on the virtual clock, which runs where the fleet has `devices`. Spans of
/// time are strings such as "10 min" or "90 s".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleTable {
    /// "synchronous": in rounds, in which clients wait for one another; "asynchronous": the selection's
    /// cohort is how many train at a time, each from the model of the moment when it began, and the
    /// model moves whenever `buffer` updates have come: meant for the strategies "fedbuff" and
    /// "fedasync".
    pub mode: ModeName,
    /// A client that has not reported after so long is no longer waited for. With a strategy that keeps
    /// partial work, it does as many epochs as it can send in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// The share of the reports wanted without which a round fails, above 0 and at most 1. One report
    /// is enough when left out. Not in asynchronous mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_share: Option<f64>,
    /// The share that is enough when more than half of the clients dropped out; below `minimum_share`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowered_share: Option<f64>,
    /// A round begins no sooner than so long after the one before it began. At once when left out. Not in
    /// asynchronous mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// How long the server waits after a round that failed, or that too few clients were there for,
    /// before it calls others. "10 min" when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
    /// Of "asynchronous": updates by which the model moves, at least 1. 10 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub buffer: Option<u64>,
    /// Of "asynchronous": updates that are staler, in versions of the model, are refused. None is when
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_staleness: Option<u64>,
    /// Of "synchronous": aggregators between the clients and the server, such as
    /// { count = 8, outage = 0.05 }. Each sums the updates of its own clients, in a session of its own
    /// where there is secure aggregation, and hands the sum up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionsTable>,
}

/// Aggregators between the clients and the server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegionsTable {
    /// Regions, from 1 to 1000; a client is always in the same one, drawn from the seed.
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
    /// The probability that a region fails in a round, at a random moment of it, with all of its
    /// clients, in [0, 1]. It is back in the next round. 0 when left out.
    #[serde(default)]
    pub outage: f64,
}

/// Whether clients wait for one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// They do.
    #[default]
    Synchronous,
    /// They do not.
    Asynchronous,
}

/// Updates by which an asynchronous run's model moves: FedBuff's own choice (Nguyen et al. 2022,
/// section 5).
const BUFFER: u64 = 10;

impl ScheduleTable {
    /// Reads and checks the table; `timed` says whether there are devices.
    pub(crate) fn read(node: &Node, timed: bool, errors: &Diagnostics) -> Option<Self> {
        let mut table = decode::<Self>(node, "schedule", errors)?;
        let check = Check::new(node, "schedule", errors);
        match table.mode {
            ModeName::Asynchronous => {
                table.buffer.get_or_insert(BUFFER);
            }
            ModeName::Synchronous => {
                let given = [
                    ("buffer", table.buffer.is_some()),
                    ("max_staleness", table.max_staleness.is_some()),
                ];
                for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                    check.fault(
                        key,
                        "is used by mode = \"asynchronous\" alone; write that, or remove it",
                    );
                }
            }
        }
        if let Err(fl_sim::SimError::OutOfRange { key, value, range }) =
            table.config().validate(timed)
        {
            let key = key.strip_prefix("schedule.").unwrap_or(key);
            let message = match timed || !table.takes_time() {
                true => format!("found {value}, expected {range}"),
                false => "takes devices, without which no time passes; add for example devices = \"phones-2025\" to [fleet], or remove it".to_owned(),
            };
            check.fault(key, message);
        }
        Some(table)
    }

    /// Whether something is asked for that takes time, in ranges that hold.
    fn takes_time(&self) -> bool {
        self.config().validate(true).is_ok()
    }

    /// Whether all is as without the table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> ScheduleConfig {
        let default = ScheduleConfig::default();
        ScheduleConfig {
            mode: match self.mode {
                ModeName::Synchronous => Mode::Synchronous,
                ModeName::Asynchronous => Mode::Asynchronous {
                    buffer: self.buffer.unwrap_or(BUFFER),
                    max_staleness: self.max_staleness,
                },
            },
            deadline: self.deadline.map(|span| span.seconds),
            minimum_share: self.minimum_share,
            lowered_share: self.lowered_share,
            every: self.every.map(|span| span.seconds),
            retry_after: self
                .retry_after
                .map_or(default.retry_after, |span| span.seconds),
            regions: self.regions.map(|regions| RegionsConfig {
                count: regions.count,
                outage: regions.outage,
            }),
        }
    }
}
