//! What was released about the data, as a value: a [`DpEvent`].
//!
//! An event states noise and sampling *relative to a sensitivity* that whoever emits it has
//! bounded, under the neighbouring relation of the accountant that it is given to. Vocabulary of
//! the `dp_accounting` library; the serialised form is that of the [ledger](crate::ledger).

mod check;
mod construct;
#[cfg(test)]
mod tests;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// A release of noisy information about private data.
///
/// Made by the constructors, which refuse numbers out of range; deserialisation goes through the
/// same checks. Variants are `#[non_exhaustive]`: match them with `..`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    tag = "event",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
#[non_exhaustive]
pub enum DpEvent {
    /// Nothing is released.
    NoOp,
    /// The data are released without protection.
    NonPrivate,
    /// Gaussian noise; any dimension, sensitivity in the Euclidean norm.
    #[non_exhaustive]
    Gaussian {
        /// Standard deviation over sensitivity.
        noise_multiplier: NoiseMultiplier,
    },
    /// Laplace noise on a number.
    #[non_exhaustive]
    Laplace {
        /// Scale `b` over sensitivity.
        noise_multiplier: NoiseMultiplier,
    },
    /// Discrete Gaussian noise on an integer: `P(x)` proportional to `exp(-x^2 / (2 sigma^2))`.
    ///
    /// One coordinate. Integer vectors with a bound in the Euclidean norm are concentrated
    /// differential privacy: [`DpEvent::ZCdp`] (Canonne, Kamath and Steinke 2020, Theorem 4).
    #[non_exhaustive]
    DiscreteGaussian {
        /// The parameter `sigma`, in units of the integer.
        sigma: f64,
        /// Largest change of the integer.
        sensitivity: u64,
    },
    /// Discrete Laplace (two-sided geometric) noise on an integer: `P(x)` proportional to
    /// `exp(-a |x|)`.
    #[non_exhaustive]
    DiscreteLaplace {
        /// The parameter `a`, per unit of the integer.
        noise_parameter: f64,
        /// Largest change of the integer.
        sensitivity: u64,
    },
    /// Symmetric Skellam noise (the difference of two Poisson variables) on each coordinate of an
    /// integer vector. Agarwal, Kairouz and Liu 2021.
    #[non_exhaustive]
    Skellam {
        /// Variance of the noise of a coordinate, in squared units of the integers.
        variance: f64,
        /// Largest change in the 1-norm.
        l1_sensitivity: f64,
        /// Largest change in the Euclidean norm.
        l2_sensitivity: f64,
    },
    /// A category is replaced, with probability `noise_parameter`, by one drawn uniformly from all
    /// (the true one included).
    #[non_exhaustive]
    RandomizedResponse {
        /// The probability of a uniform draw.
        noise_parameter: f64,
        /// The number of categories.
        buckets: u64,
    },
    /// Any mechanism that is `(epsilon, delta)`-differentially private.
    #[non_exhaustive]
    EpsilonDelta {
        /// Its `epsilon`.
        epsilon: Epsilon,
        /// Its `delta`.
        delta: Delta,
    },
    /// Any mechanism that is `(xi, rho)`-zero-concentrated differentially private: its Rényi
    /// divergence of order `alpha` is at most `xi + rho alpha`. Bun and Steinke 2016.
    #[non_exhaustive]
    ZCdp {
        /// The slope.
        rho: f64,
        /// The intercept.
        xi: f64,
    },
    /// Gaussian noise on a sum that the member changes by a random amount. Choquette-Choo et al.
    /// 2023.
    #[non_exhaustive]
    MixtureOfGaussians {
        /// Standard deviation, in the units of the sensitivities.
        noise_multiplier: NoiseMultiplier,
        /// The amounts, at least 0.
        sensitivities: Vec<f64>,
        /// Their probabilities, with sum 1.
        probabilities: Vec<f64>,
    },
    /// Each member takes part independently with the same probability, secretly.
    #[non_exhaustive]
    PoissonSampled {
        /// The probability.
        sampling_rate: f64,
        /// What is released about the sample.
        inner: Box<DpEvent>,
    },
    /// Gaussian noise on a Poisson sample of which, when it is larger than `sample_limit`, a
    /// uniformly drawn subset of that size is kept.
    #[non_exhaustive]
    TruncatedPoisson {
        /// Members in all.
        population: u64,
        /// The probability to be sampled.
        sampling_rate: f64,
        /// Most members that are kept.
        sample_limit: u64,
        /// Standard deviation over the largest norm of one member's contribution, under every
        /// relation: where the limit binds, a member pushes another out.
        noise_multiplier: NoiseMultiplier,
    },
    /// A secret uniformly drawn subset of fixed size takes part.
    #[non_exhaustive]
    SampledWithoutReplacement {
        /// Members in all.
        population: u64,
        /// Members drawn.
        sample: u64,
        /// What is released about the sample.
        inner: Box<DpEvent>,
    },
    /// The same event, independently, so many times.
    #[non_exhaustive]
    SelfComposed {
        /// What is repeated.
        inner: Box<DpEvent>,
        /// How often.
        count: u64,
    },
    /// Several events, one after the other.
    #[non_exhaustive]
    Composed {
        /// The events.
        events: Vec<DpEvent>,
    },
    /// Binary-tree aggregation with Gaussian noise on every node, where each member contributes to
    /// one leaf. Kairouz et al. 2021.
    #[non_exhaustive]
    TreeAggregation {
        /// Standard deviation of a node's noise over the sensitivity of a leaf.
        noise_multiplier: NoiseMultiplier,
        /// Leaves of each tree: the steps between two restarts.
        step_counts: Vec<u64>,
    },
    /// Gaussian noise that is correlated over the steps by a matrix factorization `A = B C`.
    /// Denisov et al. 2022; Choquette-Choo et al. 2023.
    #[non_exhaustive]
    MatrixFactorization {
        /// Standard deviation of the independent noise over the sensitivity of one step.
        noise_multiplier: NoiseMultiplier,
        /// Sensitivity of `C` to one member's whole participation, per sensitivity of one step.
        sensitivity: f64,
    },
    /// An event is repeated a random number of times (truncated negative binomial) and the best
    /// outcome is released. Papernot and Steinke 2021.
    #[non_exhaustive]
    RepeatAndSelect {
        /// What is repeated.
        inner: Box<DpEvent>,
        /// Mean number of repetitions, at least 1.
        mean: f64,
        /// The shape `eta`, above -1: 1 is geometric, 0 logarithmic; infinity, written `inf`, is
        /// Poisson.
        #[serde(with = "shape")]
        shape: f64,
    },
}

impl DpEvent {
    /// The kind, as serialised.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoOp => "no-op",
            Self::NonPrivate => "non-private",
            Self::Gaussian { .. } => "gaussian",
            Self::Laplace { .. } => "laplace",
            Self::DiscreteGaussian { .. } => "discrete-gaussian",
            Self::DiscreteLaplace { .. } => "discrete-laplace",
            Self::Skellam { .. } => "skellam",
            Self::RandomizedResponse { .. } => "randomized-response",
            Self::EpsilonDelta { .. } => "epsilon-delta",
            Self::ZCdp { .. } => "z-cdp",
            Self::MixtureOfGaussians { .. } => "mixture-of-gaussians",
            Self::PoissonSampled { .. } => "poisson-sampled",
            Self::TruncatedPoisson { .. } => "truncated-poisson",
            Self::SampledWithoutReplacement { .. } => "sampled-without-replacement",
            Self::SelfComposed { .. } => "self-composed",
            Self::Composed { .. } => "composed",
            Self::TreeAggregation { .. } => "tree-aggregation",
            Self::MatrixFactorization { .. } => "matrix-factorization",
            Self::RepeatAndSelect { .. } => "repeat-and-select",
        }
    }

    /// The kinds from the outside in, e.g. `poisson-sampled of gaussian`: what error messages say.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::PoissonSampled { inner, .. }
            | Self::SampledWithoutReplacement { inner, .. }
            | Self::SelfComposed { inner, .. }
            | Self::RepeatAndSelect { inner, .. } => format!("{} of {}", self.kind(), inner.path()),
            _ => self.kind().to_owned(),
        }
    }

    /// The sum of `1 / noise_multiplier^2` where the event is a composition of Gaussian mechanisms
    /// on all members, else `None`.
    ///
    /// Such a composition is exactly one Gaussian mechanism with that squared inverse noise
    /// (Dong, Roth and Su 2019, Corollary 3.3); infinity is no noise. Rounded upwards by a few
    /// units in the last place per term.
    #[must_use]
    pub fn gaussian_precision(&self) -> Option<f64> {
        match self {
            Self::NoOp => Some(0.0),
            Self::Gaussian { noise_multiplier } => Some(precision(1.0, *noise_multiplier)),
            Self::PoissonSampled {
                sampling_rate,
                inner,
            } => {
                if *sampling_rate <= 0.0 {
                    Some(0.0)
                } else if *sampling_rate >= 1.0 {
                    inner.gaussian_precision()
                } else {
                    None
                }
            }
            Self::SampledWithoutReplacement {
                population,
                sample,
                inner,
            } => {
                if *sample == 0 {
                    Some(0.0)
                } else if sample == population {
                    inner.gaussian_precision()
                } else {
                    None
                }
            }
            Self::SelfComposed { inner, count } => {
                if *count == 0 {
                    return Some(0.0);
                }
                inner
                    .gaussian_precision()
                    .map(|each| each * *count as f64 * ROUND_UP)
            }
            Self::Composed { events } => events
                .iter()
                .try_fold(0.0, |sum, event| Some(sum + event.gaussian_precision()?))
                .map(|sum| sum * (1.0 + events.len() as f64 * f64::EPSILON)),
            Self::TreeAggregation {
                noise_multiplier,
                step_counts,
            } => {
                // A leaf and its ancestors: one node of each level.
                let levels = step_counts
                    .iter()
                    .map(|&leaves| u64::BITS - (leaves - 1).leading_zeros() + 1)
                    .max()
                    .unwrap_or(0);
                Some(precision(f64::from(levels), *noise_multiplier))
            }
            Self::MatrixFactorization {
                noise_multiplier,
                sensitivity,
            } => Some(precision(
                sensitivity * sensitivity * ROUND_UP,
                *noise_multiplier,
            )),
            _ => None,
        }
    }
}

/// A factor that outweighs the rounding of a few operations.
const ROUND_UP: f64 = 1.0 + 4.0 * f64::EPSILON;

/// `squared_sensitivity / noise_multiplier^2`, rounded upwards; no noise on nothing is nothing.
fn precision(squared_sensitivity: f64, noise_multiplier: NoiseMultiplier) -> f64 {
    if squared_sensitivity <= 0.0 {
        return 0.0;
    }
    let noise = noise_multiplier.get();
    squared_sensitivity / noise / noise * ROUND_UP
}

impl Serialize for DpEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for DpEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)?
            .checked()
            .map_err(de::Error::custom)
    }
}

/// A number that may be infinite, through [`Epsilon`]'s form; it may also be negative.
mod shape {
    use serde::de::{self, Deserializer};
    use serde::{Deserialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else {
            serializer.serialize_str("inf")
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(value) => Ok(value),
            Either::Text(text) if text == "inf" => Ok(f64::INFINITY),
            Either::Text(text) => Err(de::Error::invalid_value(
                de::Unexpected::Str(&text),
                &"a number or the text `inf`",
            )),
        }
    }
}
