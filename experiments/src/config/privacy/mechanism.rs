//! The law of the noise, and its keys.

use fl_privacy::matrix::TreeEstimator;
use fl_privacy::plan::NoiseCorrelation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PrivacyKind, PrivacyTable};
use crate::config::check::Check;

/// The law of the noise, and how that of different rounds is related.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MechanismName {
    /// By a server: every round's its own.
    Gaussian,
    /// By a server: correlated by binary trees.
    Tree,
    /// By a server: correlated by a Toeplitz matrix with few bands.
    BandedToeplitz,
    /// By a server: correlated by a Toeplitz matrix of few geometric series.
    Blt,
    /// By clients together, integers: sums of it are Skellam noise.
    Skellam,
    /// By clients together, integers: sums of it nearly are discrete Gaussian noise.
    DiscreteGaussian,
}

impl MechanismName {
    fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Tree => "tree",
            Self::BandedToeplitz => "banded-toeplitz",
            Self::Blt => "blt",
            Self::Skellam => "skellam",
            Self::DiscreteGaussian => "discrete-gaussian",
        }
    }
}

/// How a sum is made of a tree's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EstimatorName {
    /// From its own node.
    Node,
    /// From its own and all below it.
    #[default]
    Honaker,
}

impl PrivacyTable {
    /// Checks that the mechanism is one of its kind, and that no key of another is given.
    pub(super) fn check_mechanism(&self, check: &Check<'_>) {
        use MechanismName::{BandedToeplitz, Blt, DiscreteGaussian, Gaussian, Skellam, Tree};
        let known: &[MechanismName] = match self.kind {
            PrivacyKind::Distributed => &[Skellam, DiscreteGaussian],
            PrivacyKind::Central => &[Gaussian, Tree, BandedToeplitz, Blt],
            _ => &[Gaussian],
        };
        let mechanism = self.mechanism.unwrap_or(known[0]);
        if !known.contains(&mechanism) {
            let names: Vec<String> = known
                .iter()
                .map(|known| format!("{:?}", known.name()))
                .collect();
            check.fault(
                "mechanism",
                format!(
                    "found {:?}, which is not a mechanism of kind = {:?}; choose {}",
                    mechanism.name(),
                    self.kind.name(),
                    names.join(" or ")
                ),
            );
        }
        let counts = [
            ("restart_every", self.restart_every, 1 << 20, "2^20"),
            ("bands", self.bands, 4096, "4096"),
            ("buffers", self.buffers, 16, "16"),
        ];
        for (key, value, most, shown) in counts {
            if let Some(value) = value {
                let expected = format!("a whole number from 1 to {shown}");
                check.demand(key, (1..=most).contains(&value), &value, &expected);
            }
        }
        let keys = [
            ("restart_every", self.restart_every.is_some(), Tree),
            ("estimator", self.estimator.is_some(), Tree),
            ("bands", self.bands.is_some(), BandedToeplitz),
            ("buffers", self.buffers.is_some(), Blt),
        ];
        for (key, given, user) in keys {
            if given && mechanism != user {
                check.fault(
                    key,
                    format!(
                        "is used with mechanism = {:?} alone, and mechanism is {:?}; remove it, or choose that mechanism",
                        user.name(),
                        mechanism.name()
                    ),
                );
            }
        }
    }

    /// Writes out the defaults of the keys that are used.
    pub(super) fn fill_mechanism(&mut self) {
        let default = match self.kind {
            PrivacyKind::Distributed => MechanismName::Skellam,
            _ => MechanismName::Gaussian,
        };
        match *self.mechanism.get_or_insert(default) {
            MechanismName::Tree => {
                self.estimator.get_or_insert_default();
            }
            MechanismName::Blt => {
                let default = NoiseCorrelation::DEFAULT_BUFFERS;
                self.buffers.get_or_insert(default);
            }
            _ => {}
        }
    }

    /// How the noise of a server is related over the rounds.
    pub(super) fn correlation(&self) -> NoiseCorrelation {
        match self.mechanism {
            Some(MechanismName::Tree) => NoiseCorrelation::Tree {
                restart: self.restart_every,
                estimator: match self.estimator.unwrap_or_default() {
                    EstimatorName::Node => TreeEstimator::Node,
                    EstimatorName::Honaker => TreeEstimator::Honaker,
                },
            },
            Some(MechanismName::BandedToeplitz) => {
                NoiseCorrelation::BandedToeplitz { bands: self.bands }
            }
            Some(MechanismName::Blt) => NoiseCorrelation::Blt {
                buffers: self.buffers.unwrap_or(NoiseCorrelation::DEFAULT_BUFFERS),
            },
            _ => NoiseCorrelation::Independent,
        }
    }
}
