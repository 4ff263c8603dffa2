//! `[secagg]`: secure aggregation of the clients' updates.

use fl_core::GroupMean;
use fl_secagg::ParamsError;
use fl_sim::{
    RobustMean, SecAggConfig, SecAggError, SecAggGraph, SecAggMode, SecAggSuite, SecAggThreat,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// Secure aggregation. Without this table, or with mode = "off", sums are added in the clear; of the
/// other keys, only those of a robust mean then mean something. The model is the same in every mode,
/// but for rounds in which a session fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecAggTable {
    /// What is really done: "real", the protocol with all of its cryptography; "sampled", that for
    /// some clients of each round, with a check that their sum is exact; "ideal", only its outcome
    /// and its cost; or "off". Required.
    pub mode: ModeName,
    /// Against whom updates are protected, while some clients work for the server: a server that is
    /// "semi-honest" follows the protocol; one that is "semi-malicious" lies about who dropped out;
    /// one that is "active" lies about everything.
    #[serde(default)]
    pub threat: ThreatName,
    /// Who shares masks with whom: "complete", everybody with everybody, or "harary", each with some
    /// neighbours. By default "complete" for up to 100 clients in a session, where it costs little and
    /// survives as many drop-outs as leave the threshold; for more, "harary", whose cost hardly grows
    /// with the clients, but whose sessions fail when more leave than `dropout` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphName>,
    /// The primitives: "aes128" or "chacha20".
    #[serde(default)]
    pub suite: SuiteName,
    /// The share of clients that may work for the server, from 0 to below 1. Neighbours and threshold
    /// follow from it and from `dropout`. 0.1 by default; with privacy.kind = "distributed" at least
    /// `privacy.colluding_share`, against which noise is made: where they differ, updates are hidden
    /// from a server with as many clients as this says, and epsilon is against the fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<f64>,
    /// The share of clients that may leave a session before its end, from 0 to below 1. By default
    /// what follows from `fleet`, selection and strategy, with a margin of three standard deviations
    /// and one client, or the most below that for which there is a safe threshold; at least 0.05.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// The fewest survivors of a session whose sum clients help to reveal, at least 2; by default the
    /// fewest that are safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub min_survivors: Option<u32>,
    /// The most clients of a session, at least 2: a larger cohort is divided at random into groups
    /// with sessions of their own, whose sums the server sees and adds. By default all are in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub groups: Option<u32>,
    /// A robust mean of the groups' means in place of the mean of all, coordinate by coordinate:
    /// "median", or "trimmed-mean", without the largest and the smallest values. A client that lies
    /// spoils its group alone. Needs `groups`, of which at least three must have a sum in a round; a
    /// group whose session fails is left out. With mode = "off" the same groups are formed. The server
    /// sees every group's sum; groups count equally; where clients differ, what few of them learned is
    /// taken for a lie. Not with privacy of clients. By default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub robust: Option<RobustName>,
    /// Of robust = "trimmed-mean": the share of the groups whose values are taken away at each end,
    /// above 0 and below 0.5; at least one group. 0.1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trim: Option<f64>,
    /// Of "sampled": clients of a round that run the protocol, at least 2.
    #[serde(default = "sample")]
    #[schemars(range(min = 2))]
    pub sample: u32,
}

/// The share at each end when none is given.
const DEFAULT_TRIM: f64 = 0.1;

fn sample() -> u32 {
    SecAggConfig::DEFAULT_SAMPLE
}

/// What is really done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// All of the protocol.
    Real,
    /// All of it for some clients.
    Sampled,
    /// Its outcome and its cost.
    Ideal,
    /// Nothing.
    Off,
}

/// Against whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThreatName {
    /// It follows the protocol.
    #[default]
    SemiHonest,
    /// It lies about who dropped out.
    SemiMalicious,
    /// It lies about everything.
    Active,
}

/// Who shares masks with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GraphName {
    /// Everybody with everybody.
    Complete,
    /// Each with some neighbours.
    Harary,
}

/// How group means become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RobustName {
    /// The middle one.
    Median,
    /// The mean without the ends.
    TrimmedMean,
}

/// The primitives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SuiteName {
    /// AES-128 in counter and Galois/counter mode.
    #[default]
    Aes128,
    /// ChaCha20 and ChaCha20-Poly1305.
    ChaCha20,
}

impl SecAggTable {
    /// Reads and checks the table; nothing for mode = "off" without a robust mean, so that a variant or
    /// `--set` can switch it off with that key alone.
    ///
    /// The outer option is empty for a faulty table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Option<Self>> {
        let mut table = decode::<Self>(node, "secagg", errors)?;
        if table.mode == ModeName::Off && table.robust.is_none() {
            return Some(None);
        }
        let check = Check::new(node, "secagg", errors);
        let before = errors.len();
        match (table.robust, table.groups) {
            (Some(_), None) => check.fault(
                "robust",
                "is a mean of groups, and there are none; give secagg.groups, the most clients of one",
            ),
            (Some(RobustName::TrimmedMean), _) => {
                let trim = *table.trim.get_or_insert(DEFAULT_TRIM);
                let fits = trim > 0.0 && trim < 0.5;
                check.demand("trim", fits, &trim, "a share above 0 and below 0.5");
            }
            (None | Some(RobustName::Median), _) if table.trim.is_some() => check.fault(
                "trim",
                "is used with robust = \"trimmed-mean\" alone; remove it, or choose that",
            ),
            _ => {}
        }
        for (key, value) in [("corrupt", table.corrupt), ("dropout", table.dropout)] {
            if let Some(value) = value {
                let share = (0.0..1.0).contains(&value);
                check.demand(key, share, &value, "a share from 0 to below 1");
            }
        }
        for (key, value) in [
            ("min_survivors", table.min_survivors),
            ("groups", table.groups),
            ("sample", Some(table.sample)),
        ] {
            if let Some(value) = value {
                check.demand(key, value >= 2, &value, "a whole number of at least 2");
            }
        }
        (errors.len() == before).then_some(Some(table))
    }

    /// Writes out what follows from the rest of the experiment: `colluding`, the share of clients that
    /// noise is made against, where clients add it together.
    pub(crate) fn fill(&mut self, colluding: Option<f64>) {
        let natural = colluding.unwrap_or(0.0).max(SecAggConfig::DEFAULT_CORRUPT);
        self.corrupt.get_or_insert(natural);
    }

    /// A robust mean of groups, for the simulator.
    #[must_use]
    pub fn robust(&self) -> Option<RobustMean> {
        Some(RobustMean {
            groups: self.groups?,
            mean: match self.robust? {
                RobustName::Median => GroupMean::Median,
                RobustName::TrimmedMean => GroupMean::TrimmedMean {
                    trim: self.trim.unwrap_or(DEFAULT_TRIM),
                },
            },
        })
    }

    /// For the simulator; none for mode = "off".
    #[must_use]
    pub fn config(&self) -> Option<SecAggConfig> {
        Some(SecAggConfig {
            mode: match self.mode {
                ModeName::Real => SecAggMode::Real,
                ModeName::Sampled => SecAggMode::Sampled,
                ModeName::Ideal => SecAggMode::Ideal,
                ModeName::Off => return None,
            },
            threat: match self.threat {
                ThreatName::SemiHonest => SecAggThreat::SemiHonest,
                ThreatName::SemiMalicious => SecAggThreat::SemiMalicious,
                ThreatName::Active => SecAggThreat::Active,
            },
            graph: self.graph.map(|graph| match graph {
                GraphName::Complete => SecAggGraph::Complete,
                GraphName::Harary => SecAggGraph::Harary,
            }),
            suite: match self.suite {
                SuiteName::Aes128 => SecAggSuite::Aes128,
                SuiteName::ChaCha20 => SecAggSuite::ChaCha20,
            },
            corrupt: self.corrupt.unwrap_or(SecAggConfig::DEFAULT_CORRUPT),
            dropout: self.dropout,
            min_survivors: self.min_survivors,
            groups: self.groups,
            sample: self.sample,
        })
    }
}

/// The key that causes an error of secure aggregation.
pub(crate) fn key(error: &SecAggError) -> &'static str {
    match error {
        SecAggError::Refused { key, .. } => key,
        SecAggError::Params { source, .. } => match source {
            ParamsError::Clients { .. } => "selection.cohort",
            ParamsError::Survivors { .. } => "secagg.min_survivors",
            ParamsError::RingBits { .. } => "secagg.mode",
            ParamsError::Infeasible { .. } | ParamsError::Share { .. } => "secagg.dropout",
            _ => "secagg",
        },
        _ => "secagg",
    }
}
