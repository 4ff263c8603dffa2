//! `[aggregation]`: the integers in which updates are added.

use fl_sim::{AggregationConfig, RobustMean};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// The integers in which updates are added, with secure aggregation and without. `fledgling check`
/// says how far the mean may be off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AggregationTable {
    /// The largest absolute value of an update, raised to a power of two; larger values are cut off
    /// and counted in `rounds.saturated`. 64 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<f64>,
    /// The most bits of a sum, from 2 to 64; values get the finest resolution for that. A client sends
    /// as many bits for each value with secure aggregation, and up to 32 of them need half the mask.
    /// By default as many as a resolution of 2^-32 takes (below that of 32-bit floats from 1e-3 on):
    /// 50 and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 64))]
    pub bits: Option<u32>,
}

impl AggregationTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, "aggregation", errors)?;
        let check = Check::new(node, "aggregation", errors);
        if let Some(range) = table.range {
            let expected = "a number from 1e-12 to 1e12";
            check.demand("range", (1e-12..=1e12).contains(&range), &range, expected);
        }
        if let Some(bits) = table.bits {
            let expected = "a whole number from 2 to 64";
            check.demand("bits", (2..=64).contains(&bits), &bits, expected);
        }
        Some(table)
    }

    /// Whether nothing is given.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For the simulator, with the robust mean of groups, where there is one.
    #[must_use]
    pub fn config(&self, robust: Option<RobustMean>) -> AggregationConfig {
        AggregationConfig {
            range: self.range,
            bits: self.bits,
            robust,
        }
    }
}
