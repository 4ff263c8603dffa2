//! `[telemetry]`: what results may say of devices.

use fl_sim::TelemetryConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// What results may say of the fleet's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryTable {
    /// Times, energies and temperatures are told of so many devices together, and of no fewer; at
    /// least 1.
    #[schemars(range(min = 1))]
    pub minimum_group: u64,
    /// Whether every client's part in every round is told, too, in `timeline.parquet`, from which the
    /// figure of a round's course is drawn. Not private.
    pub per_client: bool,
}

impl Default for TelemetryTable {
    fn default() -> Self {
        let TelemetryConfig {
            minimum_group,
            per_client,
        } = TelemetryConfig::default();
        Self {
            minimum_group,
            per_client,
        }
    }
}

impl TelemetryTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, "telemetry", errors)?;
        let least = table.minimum_group;
        let check = Check::new(node, "telemetry", errors);
        let expected = "a whole number of at least 1";
        check.demand("minimum_group", least >= 1, &least, expected);
        Some(table)
    }

    /// Whether all is as without the table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> TelemetryConfig {
        TelemetryConfig {
            minimum_group: self.minimum_group,
            per_client: self.per_client,
        }
    }
}
