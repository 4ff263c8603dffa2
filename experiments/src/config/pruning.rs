//! `[pruning]`: weights that are set to zero on the way, and stay so.

use fl_edge::prune::{GradualSchedule, Scope};
use fl_sim::PruningConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// Weights that are set to zero on the way, and stay so: before a round the server prunes the global
/// model, and clients train with those weights held at zero. Rounds count from zero. The bytes of a
/// round stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruningTable {
    /// Which weights: "magnitude", the smallest ones, or "two-of-four", the two smaller of each four
    /// along the inputs. Required.
    pub kind: PruningKind,
    /// Of "magnitude": the share of the weights that is zero in the end, at least 0 and below 1.
    /// Required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// Of "magnitude" with `end`: the share at the first pruning, at most `sparsity`. 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<f64>,
    /// The round before which weights are pruned first.
    #[serde(default)]
    pub start: u64,
    /// Of "magnitude": the round before which weights are pruned last, `start` and a multiple of
    /// `every`; the share grows by the cubic schedule of Zhu & Gupta 2017. By default `start`: all at
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// Of "magnitude" with `end`: rounds from one pruning to the next, at least 1. 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub every: Option<u64>,
    /// Of "magnitude": among which weights the smallest are looked for: "global", all, or "layer",
    /// those of each layer, which then all lose the same share. "global" by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,
}

/// Which weights are pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PruningKind {
    /// The smallest ones.
    Magnitude,
    /// The two smaller of each four.
    TwoOfFour,
}

/// Among which weights the smallest are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeName {
    /// All.
    #[default]
    Global,
    /// Those of each layer.
    Layer,
}

impl PruningTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, "pruning", errors)?;
        let check = Check::new(node, "pruning", errors);
        match table.kind {
            PruningKind::Magnitude => table.check_magnitude(&check),
            PruningKind::TwoOfFour => {
                let given = [
                    ("sparsity", table.sparsity.is_some()),
                    ("initial", table.initial.is_some()),
                    ("end", table.end.is_some()),
                    ("every", table.every.is_some()),
                    ("scope", table.scope.is_some()),
                ];
                for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                    check.fault(
                        key,
                        "is not used by kind = \"two-of-four\", which prunes two of each four weights at once, before round `start`; remove it, or write kind = \"magnitude\"",
                    );
                }
            }
        }
        Some(table)
    }

    fn check_magnitude(&self, check: &Check<'_>) {
        let share = "a share of at least 0 and below 1";
        let Some(sparsity) = self.sparsity else {
            check.fault(
                "",
                "sparsity is missing, and kind = \"magnitude\" needs it; add for example sparsity = 0.8",
            );
            return;
        };
        let holds = (0.0..1.0).contains(&sparsity);
        check.demand("sparsity", holds, &sparsity, share);
        let Some(end) = self.end else {
            for (key, given) in [
                ("initial", self.initial.is_some()),
                ("every", self.every.is_some()),
            ] {
                if given {
                    check.fault(
                        key,
                        "is used where weights are pruned little by little, and without `end` they are pruned at once; add for example end = 20, or remove it",
                    );
                }
            }
            return;
        };
        if let Some(initial) = self.initial {
            check.demand("initial", (0.0..1.0).contains(&initial), &initial, share);
            if initial > sparsity {
                check.fault(
                    "initial",
                    format!(
                        "{initial} is above sparsity = {sparsity}, and pruned weights do not come back; lower it"
                    ),
                );
            }
        }
        let every = self.every.unwrap_or(1);
        check.demand("every", every >= 1, &every, "a whole number of at least 1");
        let start = self.start;
        if end <= start {
            check.fault(
                "end",
                format!("found {end}, and the first pruning is before round {start}; raise it, or remove it to prune at once"),
            );
        } else if every >= 1 && !(end - start).is_multiple_of(every) {
            check.fault(
                "end",
                format!(
                    "found {end}, and from round {start} on, every {every} rounds, no pruning is before it; write {}",
                    end - (end - start) % every
                ),
            );
        }
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> PruningConfig {
        let start = self.start;
        match self.kind {
            PruningKind::TwoOfFour => PruningConfig::TwoOfFour { start },
            PruningKind::Magnitude => {
                let sparsity = self.sparsity.unwrap_or_default();
                let every = self.every.unwrap_or(1).max(1);
                PruningConfig::Magnitude {
                    scope: match self.scope.unwrap_or_default() {
                        ScopeName::Global => Scope::Global,
                        ScopeName::Layer => Scope::Layer,
                    },
                    schedule: match self.end {
                        None => GradualSchedule::one_shot(sparsity, start),
                        Some(end) => GradualSchedule {
                            initial: self.initial.unwrap_or_default(),
                            sparsity,
                            start,
                            every,
                            steps: end.saturating_sub(start) / every,
                        },
                    },
                }
            }
        }
    }
}
