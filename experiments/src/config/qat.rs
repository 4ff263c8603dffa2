//! `[local.qat]`: how quantization-aware training quantizes.

use fl_edge::qat::QatOptions;
use fl_edge::quant::Granularity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// How quantization-aware training quantizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QatTable {
    /// Scales of a weight: "channel", one for each output channel, or "tensor", one for all.
    pub granularity: GranularityName,
    /// Share of a step's observation in an activation range that shrinks, above 0 and at most 1;
    /// one that grows is followed at once.
    pub momentum: f64,
    /// Rounds in 32-bit floating point before quantization starts.
    pub delay: u64,
    /// The round from which activation ranges stay as they are; at least `delay` + 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_ranges: Option<u64>,
    /// The round from which batch normalisation uses its running statistics and leaves them as
    /// they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_statistics: Option<u64>,
    /// Whether scales are learned by gradient, in place of following what is observed.
    pub learn_scales: bool,
}

/// Scales of a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GranularityName {
    /// One for the whole tensor.
    Tensor,
    /// One for each output channel.
    #[default]
    Channel,
}

impl GranularityName {
    /// For the model.
    pub(super) fn granularity(self) -> Granularity {
        match self {
            Self::Tensor => Granularity::Tensor,
            Self::Channel => Granularity::Channel,
        }
    }
}

impl Default for QatTable {
    fn default() -> Self {
        let QatOptions {
            granularity,
            momentum,
            delay,
            freeze_ranges,
            freeze_statistics,
            learn_scales,
        } = QatOptions::default();
        Self {
            granularity: match granularity {
                Granularity::Tensor => GranularityName::Tensor,
                Granularity::Channel => GranularityName::Channel,
            },
            // Not what the single precision makes of it.
            momentum: (f64::from(momentum) * 1e6).round() / 1e6,
            delay,
            freeze_ranges,
            freeze_statistics,
            learn_scales,
        }
    }
}

impl QatTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, path: &str, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, path, errors)?;
        let check = Check::new(node, path, errors);
        let momentum = table.momentum;
        check.demand(
            "momentum",
            momentum as f32 > 0.0 && momentum <= 1.0,
            &momentum,
            "a share above 0 and at most 1",
        );
        let delay = table.delay;
        if let Some(round) = table.freeze_ranges.filter(|&round| round <= delay) {
            check.fault(
                "freeze_ranges",
                format!(
                    "found {round}, and quantization starts after delay = {delay} rounds; ranges must be seen before they can stay: raise it to {} or more",
                    delay.saturating_add(1)
                ),
            );
        }
        Some(table)
    }

    /// For the model.
    #[must_use]
    pub fn options(&self) -> QatOptions {
        QatOptions {
            granularity: self.granularity.granularity(),
            momentum: self.momentum as f32,
            delay: self.delay,
            freeze_ranges: self.freeze_ranges,
            freeze_statistics: self.freeze_statistics,
            learn_scales: self.learn_scales,
        }
    }
}
