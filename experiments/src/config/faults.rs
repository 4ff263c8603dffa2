//! `[faults]`: what is done to a run on purpose.

use fl_sim::{Fault, FaultAt, FaultsConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// Faults that are done to the run on purpose, to see that it survives them. All are probabilities in
/// [0, 1], 0 when left out: for a client in a round, unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FaultsTable {
    /// It leaves before it trains.
    pub leave_before: f64,
    /// It leaves while it trains.
    pub leave_during: f64,
    /// It leaves when it has trained, before its update has come.
    pub leave_after: f64,
    /// Its transfers take `slow_factor` times as long. Needs `fleet.devices`.
    pub slow_network: f64,
    /// How many times as long, from 1 to 10000. 10 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_factor: Option<f64>,
    /// Its connection breaks when its report should have come.
    pub lost_report: f64,
    /// Its report comes twice; the second is refused.
    pub duplicate_report: f64,
    /// Its update is damaged on the way, which the message's checksum shows.
    pub corrupt_update: f64,
    /// Its update is not finite, which the sum refuses.
    pub nan_update: f64,
    /// Its NPU is not there. Needs `fleet.devices`.
    pub missing_delegate: f64,
    /// Of a round: the aggregator restarts, from what a checkpoint holds. A synchronous round is given
    /// up; an asynchronous run goes on. Not of a private run.
    pub restart: f64,
    /// Of a region in a round: it fails. Needs `schedule.regions`, whose `outage` it raises.
    pub region_outage: f64,
    /// Faults of single rounds, such as { round = 3, fault = "restart" }.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<FaultAtTable>,
}

/// A fault of one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultAtTable {
    /// The round, counted from zero.
    pub round: u64,
    /// The fault: a key of this table, with hyphens.
    pub fault: FaultName,
    /// Its probability in that round, where it is more than otherwise. 1 when left out.
    #[serde(default = "certain")]
    pub chance: f64,
}

fn certain() -> f64 {
    1.0
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultName {
    /// A client leaves before it trains.
    LeaveBefore,
    /// It leaves while it trains.
    LeaveDuring,
    /// It leaves when it has trained.
    LeaveAfter,
    /// Its network is slow.
    SlowNetwork,
    /// Its report never comes.
    LostReport,
    /// Its report comes twice.
    DuplicateReport,
    /// Its update is damaged.
    CorruptUpdate,
    /// Its update is not finite.
    NanUpdate,
    /// Its NPU is not there.
    MissingDelegate,
    /// The aggregator restarts.
    Restart,
    /// A region fails.
    RegionOutage,
}

impl From<FaultName> for Fault {
    fn from(name: FaultName) -> Self {
        match name {
            FaultName::LeaveBefore => Self::LeaveBefore,
            FaultName::LeaveDuring => Self::LeaveDuring,
            FaultName::LeaveAfter => Self::LeaveAfter,
            FaultName::SlowNetwork => Self::SlowNetwork,
            FaultName::LostReport => Self::LostReport,
            FaultName::DuplicateReport => Self::DuplicateReport,
            FaultName::CorruptUpdate => Self::CorruptUpdate,
            FaultName::NanUpdate => Self::NanUpdate,
            FaultName::MissingDelegate => Self::MissingDelegate,
            FaultName::Restart => Self::Restart,
            FaultName::RegionOutage => Self::RegionOutage,
        }
    }
}

impl FaultsTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, "faults", errors)?;
        let check = Check::new(node, "faults", errors);
        for (key, _, chance) in table.chances() {
            check.share(key, chance);
        }
        for at in &table.at {
            check.share("at", at.chance);
        }
        if let Some(factor) = table.slow_factor {
            let allowed = (1.0..=10_000.0).contains(&factor);
            check.demand("slow_factor", allowed, &factor, "a number from 1 to 10000");
        }
        Some(table)
    }

    fn chances(&self) -> [(&'static str, Fault, f64); 11] {
        [
            ("leave_before", Fault::LeaveBefore, self.leave_before),
            ("leave_during", Fault::LeaveDuring, self.leave_during),
            ("leave_after", Fault::LeaveAfter, self.leave_after),
            ("slow_network", Fault::SlowNetwork, self.slow_network),
            ("lost_report", Fault::LostReport, self.lost_report),
            (
                "duplicate_report",
                Fault::DuplicateReport,
                self.duplicate_report,
            ),
            ("corrupt_update", Fault::CorruptUpdate, self.corrupt_update),
            ("nan_update", Fault::NanUpdate, self.nan_update),
            (
                "missing_delegate",
                Fault::MissingDelegate,
                self.missing_delegate,
            ),
            ("restart", Fault::Restart, self.restart),
            ("region_outage", Fault::RegionOutage, self.region_outage),
        ]
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> FaultsConfig {
        let default = FaultsConfig::default();
        let given = self
            .chances()
            .into_iter()
            .filter(|(.., chance)| *chance > 0.0);
        FaultsConfig {
            chances: given.map(|(_, fault, chance)| (fault, chance)).collect(),
            slow_factor: self.slow_factor.unwrap_or(default.slow_factor),
            at: (self.at.iter())
                .map(|at| FaultAt {
                    round: at.round,
                    fault: at.fault.into(),
                    chance: at.chance,
                })
                .collect(),
        }
    }
}
