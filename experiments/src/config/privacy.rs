//! `[privacy]`: what the released models, or a server, may learn about a client or about a single
//! example.

mod clients;
mod example;
mod mechanism;

use fl_privacy::plan::{Clipping, Extrapolation};
use fl_privacy::{AccountantKind, Delta, Epsilon, NeighboringRelation, NoiseMultiplier};
use fl_sim::{CentralPrivacy, Privacy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

pub use clients::ObserverName;
pub use mechanism::{EstimatorName, MechanismName};

/// Differential privacy. Without this table, or with kind = "none", there is none.
///
/// Keys that stand for a number of one `clipping` or one `kind` are refused with another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyTable {
    /// "central": clients clip their updates and a trusted server adds Gaussian noise to the sum;
    /// "distributed": clients add integer noise, each a share of what the sum needs, within secure
    /// aggregation, which is assumed; "local": clients add Gaussian noise that protects each update
    /// alone; "example": clients train by differentially private SGD, which clips the gradients of
    /// single examples and adds noise in every step, on batches drawn at random of the expected size
    /// `local.batch`, and trust nobody; or "none".
    pub kind: PrivacyKind,
    /// Who is protected: "client", with all of its examples; or, with kind = "example", "example",
    /// a single one. Follows from `kind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// How updates are bounded: "flat", the whole update to `max_norm`; "per-layer", each tensor to
    /// an equal share of it; "automatic", every update scaled to about `max_norm`; or "adaptive", to
    /// a norm that follows a quantile of the updates' norms, from `max_norm` on. Clients that add
    /// noise themselves clip flat.
    #[serde(default)]
    pub clipping: ClippingName,
    /// The L2 norm that an update, or with "example" an example's gradient, is clipped to; from 1e-20
    /// to 1e20; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// The law of the noise. Of "central", how that of different rounds is related: "gaussian" (the
    /// default), each round's its own; or correlated, so that less of it stays in the model
    /// (DP-FTRL): by "tree" aggregation, by a "banded-toeplitz" matrix or by a "blt". Those three
    /// earn nothing from secret sampling; they need to know how often and how close together a
    /// client takes part, so selection is "cyclic" or "separated". Of "distributed": "skellam" (the
    /// default) or "discrete-gaussian".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<MechanismName>,
    /// Of "tree": rounds after which a new tree begins, from 1 to 2^20; by default the power of two
    /// that leaves the least noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub restart_every: Option<u64>,
    /// Of "tree": how a sum is made of the tree's nodes: "honaker", from all nodes below it, or
    /// "node", from its own; "honaker" by default, which leaves less noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimator: Option<EstimatorName>,
    /// Of "banded-toeplitz": bands of the matrix, from 1 to the rounds and at most 4096, each a model
    /// in memory; by default as many as the rounds that a client rests, at most 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub bands: Option<u64>,
    /// Of "blt": buffers, from 1 to 16, each a model in memory; 4 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub buffers: Option<u64>,
    /// The most that may be spent, above 0. The run ends with the last round that it allows, and
    /// with "example" a client declines rounds that it does not allow; without `noise_multiplier`, the
    /// noise is the least that allows all rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Standard deviation of the noise over the sensitivity, at least 0: of the noise that is drawn
    /// for a round's sum ("central"), on the sum of the fewest reports less the colluding ones
    /// ("distributed"), of a client ("local"), or on a step's sum of gradients ("example").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_multiplier: Option<f64>,
    /// The probability at which epsilon is meant: above 0, below one over the number of clients, or
    /// with "example" of all examples, and better far below; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Who adds epsilon up: "pld" (tight), "rdp", "zcdp", "gaussian" or "naive". The last three
    /// credit no sampling, or only simple cases, and refuse what they cannot count. By default "pld";
    /// for "distributed" it is "rdp", which counts vectors of integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accountant: Option<AccountantName>,
    /// Which data sets must be hard to tell apart: "add-or-remove-one", "replace-one" or
    /// "replace-special". By default that which fits the selection: "replace-one" for cohorts of
    /// fixed size, whose sum changes by twice `max_norm`, else "add-or-remove-one". Where clients
    /// add noise it is "replace-one", or "replace-special".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation: Option<RelationName>,
    /// Of "automatic": small updates stay smaller the larger it is; 0.01 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stability: Option<f64>,
    /// Of "adaptive": the share of updates that is to be within the norm, between 0 and 1; 0.5 by
    /// default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// Of "adaptive": the step of the logarithm of the norm, above 0 and at most 10; 0.2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_learning_rate: Option<f64>,
    /// Of "adaptive": standard deviation of the noise on the count of clipped updates, above 0; a
    /// twentieth of the expected cohort by default, but at least twice the noise multiplier. It takes
    /// its share of the privacy: with less, more noise is added to updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_noise: Option<f64>,
    /// With `extrapolated_cohort`: clients of a larger deployment. The noise on the mean, and
    /// epsilon, are then those of that deployment and **not of this run**; every table and figure
    /// says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub extrapolated_population: Option<u64>,
    /// With `extrapolated_population`: the expected cohort of that deployment, at least that of the
    /// run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub extrapolated_cohort: Option<u64>,
    /// Of "local" and "distributed": whose epsilon is limited, "server" (the default: it knows who
    /// takes part, and what colluding clients tell it) or "released" (whoever sees the released
    /// models alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observer: Option<ObserverName>,
    /// Of "local" and "distributed": the share of the expected cohort that must report, above 0 and
    /// at most 1; 0.8 by default. A round with fewer reports is given up. Of "distributed", every
    /// client's share of the noise is made for so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_survivors: Option<f64>,
    /// Of "local", "distributed" and "example": most rounds in which one client reports, at least 1.
    /// By default so many that clients almost never reach it, or with "example" as many as the
    /// selection can ask it to. Fewer need less noise against the server, and let nothing be credited
    /// to sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub most_participations: Option<u64>,
    /// Of "distributed": the share of the expected cohort that may tell the server its noise, from 0
    /// to below 1; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colluding_share: Option<f64>,
    /// Of "distributed": the bits of each number of the ring, 4 to 62. By default the fewest with
    /// which rounding adds at most 1 % to the square of the sensitivity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 62))]
    pub bits: Option<u32>,
    /// Of "distributed": how readily a rounding that lengthens the update is drawn again, from 0
    /// (never) to below 1; exp(-1/2) by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounding_bias: Option<f64>,
    /// Of "distributed": the largest probability for a coordinate of a sum to leave the ring, above 0
    /// and at most 1e-3; 1e-6 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap_limit: Option<f64>,
}

/// Where noise is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrivacyKind {
    /// Nowhere.
    None,
    /// By the server, to the sum.
    Central,
    /// By every client, to its update.
    Local,
    /// By all clients together, within secure aggregation.
    Distributed,
    /// By every client, to the gradients of single examples.
    Example,
}

/// Who is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnitName {
    /// A client with all of its examples.
    Client,
    /// A single example.
    Example,
}

/// How updates are bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClippingName {
    /// The whole update to one norm.
    #[default]
    Flat,
    /// Each tensor to an equal share.
    PerLayer,
    /// Every update to about the norm.
    Automatic,
    /// To a norm that follows a quantile.
    Adaptive,
}

impl PrivacyKind {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Central => "central",
            Self::Local => "local",
            Self::Distributed => "distributed",
            Self::Example => "example",
        }
    }
}

impl ClippingName {
    fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::PerLayer => "per-layer",
            Self::Automatic => "automatic",
            Self::Adaptive => "adaptive",
        }
    }
}

/// Who adds epsilon up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccountantName {
    /// Privacy loss distributions.
    #[default]
    Pld,
    /// Rényi differential privacy.
    Rdp,
    /// Zero-concentrated differential privacy.
    Zcdp,
    /// Exact, for Gaussian noise on everybody.
    Gaussian,
    /// The sum of each round's own guarantee.
    Naive,
}

/// Which data sets must be hard to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelationName {
    /// One client more or less.
    AddOrRemoveOne,
    /// One client for another.
    ReplaceOne,
    /// One client for one that contributes nothing.
    ReplaceSpecial,
}

impl PrivacyTable {
    /// Reads and checks the table; nothing for kind = "none", so that a variant can switch privacy
    /// off with that key alone.
    ///
    /// The outer option is empty for a faulty table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Option<Self>> {
        let mut table = decode::<Self>(node, "privacy", errors)?;
        let check = Check::new(node, "privacy", errors);
        if table.kind == PrivacyKind::None {
            return Some(None);
        }
        let before = errors.len();
        table.finish(&check);
        (errors.len() == before).then_some(Some(table))
    }

    fn finish(&mut self, check: &Check<'_>) {
        let example = self.kind == PrivacyKind::Example;
        let missing = [
            (
                "max_norm",
                self.max_norm.is_none(),
                match example {
                    true => {
                        "missing; give the norm that an example's gradient is clipped to, such as max_norm = 1.0"
                    }
                    false => {
                        "missing; give the norm that updates are clipped to, such as max_norm = 1.0"
                    }
                },
            ),
            (
                "delta",
                self.delta.is_none(),
                match example {
                    true => {
                        "missing; give a probability far below one over the number of all examples, such as delta = 1e-6"
                    }
                    false => {
                        "missing; give a probability far below one over the number of clients, such as delta = 1e-5"
                    }
                },
            ),
            (
                "epsilon",
                self.epsilon.is_none() && self.noise_multiplier.is_none(),
                "missing; give the most that may be spent, such as epsilon = 8.0, or noise_multiplier, or both",
            ),
        ];
        for (key, missing, message) in missing {
            if missing {
                check.fault(key, message);
            }
        }
        type Number = (&'static str, Option<f64>, fn(f64) -> bool, &'static str);
        let numbers: [Number; 8] = [
            (
                "max_norm",
                self.max_norm,
                |norm| (1e-20..=1e20).contains(&norm),
                "a number from 1e-20 to 1e20",
            ),
            (
                "epsilon",
                self.epsilon,
                |epsilon| epsilon > 0.0 && epsilon.is_finite(),
                "a number above 0",
            ),
            (
                "noise_multiplier",
                self.noise_multiplier,
                |noise| noise >= 0.0 && noise.is_finite(),
                "a number of at least 0",
            ),
            (
                "delta",
                self.delta,
                |delta| delta > 0.0 && delta < 1.0,
                "a number above 0 and below 1",
            ),
            (
                "stability",
                self.stability,
                |value| (1e-20..=1e20).contains(&value),
                "a number from 1e-20 to 1e20",
            ),
            (
                "quantile",
                self.quantile,
                |share| share > 0.0 && share < 1.0,
                "a number above 0 and below 1",
            ),
            (
                "norm_learning_rate",
                self.norm_learning_rate,
                |rate| rate > 0.0 && rate <= 10.0,
                "a number above 0 and at most 10",
            ),
            (
                "count_noise",
                self.count_noise,
                |noise| noise > 0.0 && noise.is_finite(),
                "a number above 0",
            ),
        ];
        for (key, value, fits, expected) in numbers {
            if let Some(value) = value {
                check.demand(key, fits(value), &value, expected);
            }
        }
        self.refuse_unused(check);
        self.check_clients(check);
        self.check_mechanism(check);
        self.check_example(check);
        match (self.extrapolated_population, self.extrapolated_cohort) {
            (Some(_), None) => check.fault(
                "extrapolated_population",
                "is used together with extrapolated_cohort; give both or neither",
            ),
            (None, Some(_)) => check.fault(
                "extrapolated_cohort",
                "is used together with extrapolated_population; give both or neither",
            ),
            _ => {}
        }
        self.fill();
    }

    fn refuse_unused(&self, check: &Check<'_>) {
        use ClippingName::{Adaptive, Automatic};
        let keys = [
            ("stability", self.stability.is_some(), Automatic),
            ("quantile", self.quantile.is_some(), Adaptive),
            (
                "norm_learning_rate",
                self.norm_learning_rate.is_some(),
                Adaptive,
            ),
            ("count_noise", self.count_noise.is_some(), Adaptive),
        ];
        for (key, given, user) in keys {
            if given && self.clipping != user {
                check.fault(
                    key,
                    format!(
                        "is used with clipping = {:?} alone, and clipping is {:?}; remove it, or choose that clipping",
                        user.name(),
                        self.clipping.name()
                    ),
                );
            }
        }
    }

    /// Writes out the defaults of the keys that are used.
    fn fill(&mut self) {
        self.unit = Some(match self.kind {
            PrivacyKind::Example => UnitName::Example,
            _ => UnitName::Client,
        });
        self.accountant.get_or_insert(match self.kind {
            PrivacyKind::Distributed => AccountantName::Rdp,
            _ => AccountantName::Pld,
        });
        if matches!(self.kind, PrivacyKind::Local | PrivacyKind::Distributed) {
            self.fill_clients();
        }
        self.fill_mechanism();
        match self.clipping {
            ClippingName::Automatic => {
                let default = fl_privacy::clip::AutomaticClip::DEFAULT_STABILITY;
                self.stability.get_or_insert(default);
            }
            ClippingName::Adaptive => {
                self.quantile.get_or_insert(0.5);
                self.norm_learning_rate.get_or_insert(0.2);
            }
            ClippingName::Flat | ClippingName::PerLayer => {}
        }
    }

    /// For the simulator. A table that was read holds nothing that the units refuse.
    ///
    /// # Errors
    /// [`PrivacyError`](fl_privacy::PrivacyError) for a table with values out of their ranges.
    pub fn config(&self) -> Result<Privacy, fl_privacy::PrivacyError> {
        let accountant = self.accountant.map(|accountant| match accountant {
            AccountantName::Pld => AccountantKind::Pld,
            AccountantName::Rdp => AccountantKind::Rdp,
            AccountantName::Zcdp => AccountantKind::Zcdp,
            AccountantName::Gaussian => AccountantKind::Gaussian,
            AccountantName::Naive => AccountantKind::Naive,
        });
        let relation = self.relation.map(|relation| match relation {
            RelationName::AddOrRemoveOne => NeighboringRelation::AddOrRemoveOne,
            RelationName::ReplaceOne => NeighboringRelation::ReplaceOne,
            RelationName::ReplaceSpecial => NeighboringRelation::ReplaceSpecial,
        });
        if matches!(self.kind, PrivacyKind::Local | PrivacyKind::Distributed) {
            return self.clients(accountant, relation);
        }
        if self.kind == PrivacyKind::Example {
            return self.example(accountant);
        }
        let max_norm = self.max_norm.unwrap_or(1.0);
        let clipping = match self.clipping {
            ClippingName::Flat => Clipping::Flat { max_norm },
            ClippingName::PerLayer => Clipping::PerLayer { max_norm },
            ClippingName::Automatic => Clipping::Automatic {
                max_norm,
                stability: self.stability.unwrap_or(0.01),
            },
            ClippingName::Adaptive => Clipping::Adaptive {
                initial_norm: max_norm,
                quantile: self.quantile.unwrap_or(0.5),
                learning_rate: self.norm_learning_rate.unwrap_or(0.2),
                count_noise: self.count_noise,
            },
        };
        let extrapolation = self
            .extrapolated_population
            .zip(self.extrapolated_cohort)
            .map(|(population, cohort)| Extrapolation { population, cohort });
        Ok(Privacy::Central(CentralPrivacy {
            clipping,
            correlation: self.correlation(),
            noise_multiplier: self
                .noise_multiplier
                .map(NoiseMultiplier::new)
                .transpose()?,
            epsilon: self.epsilon.map(Epsilon::new).transpose()?,
            delta: Delta::new(self.delta.unwrap_or(0.0))?,
            accountant: accountant.unwrap_or(AccountantKind::Pld),
            relation,
            extrapolation,
        }))
    }
}

/// The key that a refusal of the whole plan is about.
pub(crate) fn key(error: &fl_privacy::PrivacyError) -> &'static str {
    use fl_privacy::PrivacyError as E;
    match error {
        E::DeltaTooLarge { .. } => "privacy.delta",
        E::Unreachable { .. } => "privacy.epsilon",
        E::OverBudget { .. } => "privacy.noise_multiplier",
        E::SamplerRelation { .. } => "privacy.relation",
        E::Unsupported { .. } => "privacy.accountant",
        E::PrivateAggregation { what, .. } => match *what {
            what if what.starts_with("weighting") => "strategy.weighting",
            what if what.starts_with("asking") => "selection.over_select",
            what if what.starts_with("selecting") => "selection.kind",
            what if what.starts_with("an adaptive") => "privacy.clipping",
            what if what.starts_with("a strategy that") => "strategy.kind",
            what if what.starts_with("adding or removing") => "privacy.relation",
            what if what.starts_with("clients' noise") => "selection.kind",
            what if what.starts_with("crediting") => "dataset.partition",
            what if what.starts_with("correlated noise") => "selection.kind",
            what if what.starts_with("extrapolating") => "privacy.extrapolated_population",
            _ => "privacy",
        },
        E::CountOutOfRange { what, .. } if what.starts_with("the cohort of the extra") => {
            "privacy.extrapolated_cohort"
        }
        E::CountOutOfRange { what, .. } if what.starts_with("the extrapolated") => {
            "privacy.extrapolated_population"
        }
        E::CountOutOfRange { what, .. } if what.starts_with("the number of private steps") => {
            "local.epochs"
        }
        E::BitsTooFew { .. } | E::RingTooSmall { .. } => "privacy.bits",
        E::CountOutOfRange { what, .. } if what.starts_with("the number of colluding") => {
            "privacy.colluding_share"
        }
        E::CountOutOfRange { what, .. } if *what == "the number of bands" => "privacy.bands",
        E::OutOfRange { what, .. } if *what == "the noise multiplier" => "privacy.noise_multiplier",
        _ => "privacy",
    }
}
