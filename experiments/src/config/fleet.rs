//! `[fleet]`: how unreliable the clients are.

use fl_sim::FleetConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// How unreliable the clients are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FleetTable {
    /// Share of each cohort that is slow and completes only a part of its local work, in [0, 1].
    pub stragglers: f64,
    /// Probability that a client of a cohort vanishes before it reports, in [0, 1].
    pub dropout: f64,
}

impl FleetTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, "fleet", errors)?;
        let check = Check::new(node, "fleet", errors);
        check.share("stragglers", table.stragglers);
        check.share("dropout", table.dropout);
        Some(table)
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> FleetConfig {
        FleetConfig {
            stragglers: self.stragglers,
            dropout: self.dropout,
        }
    }
}
