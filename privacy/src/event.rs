//! What was released about the data, as a value: a [`DpEvent`].
//!
//! An event states noise and sampling *relative to a sensitivity* that whoever emits it has
//! bounded, under the neighbouring relation of the accountant that it is given to. Vocabulary of
//! the `dp_accounting` library; the serialised form is that of the [ledger](crate::ledger).

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::PrivacyError;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// Deepest nesting of events in events.
const MAX_DEPTH: u32 = 32;

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
        /// Standard deviation over the clipping norm.
        noise_multiplier: NoiseMultiplier,
        /// Sensitivity of `C` to one member's whole participation, per clipping norm.
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
    /// Gaussian noise: standard deviation over sensitivity.
    #[must_use]
    pub fn gaussian(noise_multiplier: NoiseMultiplier) -> Self {
        Self::Gaussian { noise_multiplier }
    }

    /// Laplace noise: scale over sensitivity.
    #[must_use]
    pub fn laplace(noise_multiplier: NoiseMultiplier) -> Self {
        Self::Laplace { noise_multiplier }
    }

    /// Discrete Gaussian noise with parameter `sigma` on an integer of this sensitivity.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `sigma` is finite and at least 0.
    pub fn discrete_gaussian(sigma: f64, sensitivity: u64) -> Result<Self, PrivacyError> {
        Self::DiscreteGaussian { sigma, sensitivity }.checked()
    }

    /// Discrete Laplace noise with parameter `a` on integers of this sensitivity.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `noise_parameter` is finite and above 0.
    pub fn discrete_laplace(noise_parameter: f64, sensitivity: u64) -> Result<Self, PrivacyError> {
        Self::DiscreteLaplace {
            noise_parameter,
            sensitivity,
        }
        .checked()
    }

    /// Skellam noise of this variance on integers of these sensitivities.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless all are finite and at least 0, and the Euclidean
    /// sensitivity is at most that in the 1-norm.
    pub fn skellam(
        variance: f64,
        l1_sensitivity: f64,
        l2_sensitivity: f64,
    ) -> Result<Self, PrivacyError> {
        Self::Skellam {
            variance,
            l1_sensitivity,
            l2_sensitivity,
        }
        .checked()
    }

    /// Randomized response over `buckets` categories.
    ///
    /// # Errors
    /// [`PrivacyError`] unless the probability is from 0 to 1 and there are at least 2 categories.
    pub fn randomized_response(noise_parameter: f64, buckets: u64) -> Result<Self, PrivacyError> {
        Self::RandomizedResponse {
            noise_parameter,
            buckets,
        }
        .checked()
    }

    /// Any mechanism with this guarantee.
    #[must_use]
    pub fn epsilon_delta(epsilon: Epsilon, delta: Delta) -> Self {
        Self::EpsilonDelta { epsilon, delta }
    }

    /// Any mechanism with this concentrated guarantee.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless both are finite and at least 0.
    pub fn zcdp(rho: f64, xi: f64) -> Result<Self, PrivacyError> {
        Self::ZCdp { rho, xi }.checked()
    }

    /// Gaussian noise on a random contribution: its amounts and their probabilities.
    ///
    /// # Errors
    /// [`PrivacyError`] unless there are as many amounts as probabilities, at least one, the
    /// amounts are finite and at least 0, and the probabilities are above 0 with sum 1 (to 1e-9).
    pub fn mixture_of_gaussians(
        noise_multiplier: NoiseMultiplier,
        sensitivities: Vec<f64>,
        probabilities: Vec<f64>,
    ) -> Result<Self, PrivacyError> {
        Self::MixtureOfGaussians {
            noise_multiplier,
            sensitivities,
            probabilities,
        }
        .checked()
    }

    /// The event on a Poisson sample.
    ///
    /// # Errors
    /// [`PrivacyError`] unless the rate is from 0 to 1, and for events nested too deeply.
    pub fn poisson_sampled(sampling_rate: f64, inner: Self) -> Result<Self, PrivacyError> {
        Self::PoissonSampled {
            sampling_rate,
            inner: Box::new(inner),
        }
        .checked()
    }

    /// Gaussian noise on a Poisson sample that is cut to `sample_limit` members.
    ///
    /// # Errors
    /// [`PrivacyError`] unless the rate is from 0 to 1, and the population and the limit at least
    /// 1.
    pub fn truncated_poisson(
        population: u64,
        sampling_rate: f64,
        sample_limit: u64,
        noise_multiplier: NoiseMultiplier,
    ) -> Result<Self, PrivacyError> {
        Self::TruncatedPoisson {
            population,
            sampling_rate,
            sample_limit,
            noise_multiplier,
        }
        .checked()
    }

    /// The event on a subset of fixed size.
    ///
    /// # Errors
    /// [`PrivacyError`] unless the population is at least 1 and the sample at most the population,
    /// and for events nested too deeply.
    pub fn sampled_without_replacement(
        population: u64,
        sample: u64,
        inner: Self,
    ) -> Result<Self, PrivacyError> {
        Self::SampledWithoutReplacement {
            population,
            sample,
            inner: Box::new(inner),
        }
        .checked()
    }

    /// The event, `count` times.
    ///
    /// # Errors
    /// [`PrivacyError`] for events nested too deeply.
    pub fn self_composed(inner: Self, count: u64) -> Result<Self, PrivacyError> {
        Self::SelfComposed {
            inner: Box::new(inner),
            count,
        }
        .checked()
    }

    /// The events, one after the other.
    ///
    /// # Errors
    /// [`PrivacyError`] for events nested too deeply.
    pub fn composed(events: Vec<Self>) -> Result<Self, PrivacyError> {
        Self::Composed { events }.checked()
    }

    /// Trees with these numbers of leaves; each member contributes to one leaf of one tree.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] for a tree without leaves.
    pub fn tree_aggregation(
        noise_multiplier: NoiseMultiplier,
        step_counts: Vec<u64>,
    ) -> Result<Self, PrivacyError> {
        Self::TreeAggregation {
            noise_multiplier,
            step_counts,
        }
        .checked()
    }

    /// Correlated Gaussian noise whose strategy matrix has this sensitivity.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivity is finite and at least 0.
    pub fn matrix_factorization(
        noise_multiplier: NoiseMultiplier,
        sensitivity: f64,
    ) -> Result<Self, PrivacyError> {
        Self::MatrixFactorization {
            noise_multiplier,
            sensitivity,
        }
        .checked()
    }

    /// The best of a random number of repetitions.
    ///
    /// # Errors
    /// [`PrivacyError`] unless the mean is finite and at least 1 and the shape above -1, and for
    /// events nested too deeply.
    pub fn repeat_and_select(inner: Self, mean: f64, shape: f64) -> Result<Self, PrivacyError> {
        Self::RepeatAndSelect {
            inner: Box::new(inner),
            mean,
            shape,
        }
        .checked()
    }

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

    /// The event itself when its numbers, and those of all events in it, are in range.
    fn checked(self) -> Result<Self, PrivacyError> {
        self.check(0)?;
        Ok(self)
    }

    fn check(&self, depth: u32) -> Result<(), PrivacyError> {
        PrivacyError::unless_count(
            depth <= MAX_DEPTH,
            "the depth of events within events",
            u64::from(depth),
            "at most 32; flatten the composition",
        )?;
        let positive = |what, value: f64| {
            PrivacyError::unless(
                value > 0.0 && value.is_finite(),
                what,
                value,
                "a finite number above 0",
            )
        };
        let not_negative = |what, value: f64| {
            PrivacyError::unless(
                value >= 0.0 && value.is_finite(),
                what,
                value,
                "a finite number that is at least 0",
            )
        };
        let probability = |what, value: f64| {
            PrivacyError::unless(
                (0.0..=1.0).contains(&value),
                what,
                value,
                "a probability, from 0 to 1",
            )
        };
        let some = |what, value: u64| {
            PrivacyError::unless_count(value > 0, what, value, "a count of at least 1")
        };
        match self {
            Self::NoOp
            | Self::NonPrivate
            | Self::Gaussian { .. }
            | Self::Laplace { .. }
            | Self::EpsilonDelta { .. } => Ok(()),
            Self::DiscreteGaussian { sigma, .. } => not_negative("sigma", *sigma),
            Self::DiscreteLaplace {
                noise_parameter, ..
            } => positive("noise_parameter", *noise_parameter),
            Self::Skellam {
                variance,
                l1_sensitivity,
                l2_sensitivity,
            } => {
                not_negative("variance", *variance)?;
                not_negative("l1_sensitivity", *l1_sensitivity)?;
                not_negative("l2_sensitivity", *l2_sensitivity)?;
                PrivacyError::unless(
                    l2_sensitivity <= l1_sensitivity,
                    "l2_sensitivity",
                    *l2_sensitivity,
                    "at most l1_sensitivity",
                )
            }
            Self::RandomizedResponse {
                noise_parameter,
                buckets,
            } => {
                probability("noise_parameter", *noise_parameter)?;
                PrivacyError::unless_count(
                    *buckets > 1,
                    "buckets",
                    *buckets,
                    "at least 2 categories",
                )
            }
            Self::ZCdp { rho, xi } => {
                not_negative("rho", *rho)?;
                not_negative("xi", *xi)
            }
            Self::MixtureOfGaussians {
                sensitivities,
                probabilities,
                ..
            } => {
                some("the number of sensitivities", sensitivities.len() as u64)?;
                PrivacyError::unless_count(
                    probabilities.len() == sensitivities.len(),
                    "the number of probabilities",
                    probabilities.len() as u64,
                    "as many as there are sensitivities",
                )?;
                for &sensitivity in sensitivities {
                    not_negative("a sensitivity", sensitivity)?;
                }
                for &value in probabilities {
                    positive("a probability of a sensitivity", value)?;
                }
                let sum: f64 = probabilities.iter().sum();
                PrivacyError::unless(
                    (sum - 1.0).abs() <= 1e-9,
                    "the sum of the probabilities",
                    sum,
                    "1",
                )
            }
            Self::PoissonSampled {
                sampling_rate,
                inner,
            } => {
                probability("sampling_rate", *sampling_rate)?;
                inner.check(depth + 1)
            }
            Self::TruncatedPoisson {
                population,
                sampling_rate,
                sample_limit,
                ..
            } => {
                some("population", *population)?;
                some("sample_limit", *sample_limit)?;
                probability("sampling_rate", *sampling_rate)
            }
            Self::SampledWithoutReplacement {
                population,
                sample,
                inner,
            } => {
                some("population", *population)?;
                PrivacyError::unless_count(
                    sample <= population,
                    "sample",
                    *sample,
                    "at most the population",
                )?;
                inner.check(depth + 1)
            }
            Self::SelfComposed { inner, .. } => inner.check(depth + 1),
            Self::Composed { events } => events.iter().try_for_each(|event| event.check(depth + 1)),
            Self::TreeAggregation { step_counts, .. } => step_counts
                .iter()
                .try_for_each(|&leaves| some("the number of leaves of a tree", leaves)),
            Self::MatrixFactorization { sensitivity, .. } => {
                not_negative("sensitivity", *sensitivity)
            }
            Self::RepeatAndSelect { inner, mean, shape } => {
                PrivacyError::unless(
                    *mean >= 1.0 && mean.is_finite(),
                    "mean",
                    *mean,
                    "a finite number of repetitions, at least 1",
                )?;
                PrivacyError::unless(*shape > -1.0, "shape", *shape, "above -1, or infinity")?;
                inner.check(depth + 1)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(value: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(value).unwrap()
    }

    fn every_kind() -> Vec<DpEvent> {
        let gaussian = DpEvent::gaussian(noise(1.1));
        let epsilon = Epsilon::new(0.5).unwrap();
        let unbounded = DpEvent::epsilon_delta(Epsilon::INFINITY, Delta::ONE);
        vec![
            DpEvent::NoOp,
            DpEvent::NonPrivate,
            gaussian.clone(),
            DpEvent::laplace(noise(2.0)),
            DpEvent::discrete_gaussian(3.5, 2).unwrap(),
            DpEvent::discrete_laplace(0.25, 1).unwrap(),
            DpEvent::skellam(100.0, 3.0, 2.0).unwrap(),
            DpEvent::randomized_response(0.3, 4).unwrap(),
            DpEvent::epsilon_delta(epsilon, Delta::new(1e-7).unwrap()),
            unbounded,
            DpEvent::zcdp(0.1, 0.0).unwrap(),
            DpEvent::mixture_of_gaussians(noise(1.0), vec![0.0, 1.0], vec![0.9, 0.1]).unwrap(),
            DpEvent::poisson_sampled(0.01, gaussian.clone()).unwrap(),
            DpEvent::truncated_poisson(1000, 0.01, 20, noise(1.0)).unwrap(),
            DpEvent::sampled_without_replacement(1000, 10, gaussian.clone()).unwrap(),
            DpEvent::self_composed(gaussian.clone(), 7).unwrap(),
            DpEvent::composed(vec![gaussian.clone(), DpEvent::NoOp]).unwrap(),
            DpEvent::tree_aggregation(noise(1.0), vec![8, 5]).unwrap(),
            DpEvent::matrix_factorization(noise(1.0), 1.5).unwrap(),
            DpEvent::repeat_and_select(gaussian.clone(), 10.0, -0.5).unwrap(),
            DpEvent::repeat_and_select(gaussian, 10.0, f64::INFINITY).unwrap(),
        ]
    }

    #[test]
    fn every_kind_returns_from_its_text() {
        for event in every_kind() {
            let text = serde_json::to_string(&event).unwrap();
            assert!(
                text.starts_with(&format!("{{\"event\":\"{}\"", event.kind())),
                "{text}"
            );
            assert_eq!(serde_json::from_str::<DpEvent>(&text).unwrap(), event);
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_at_both_doors() {
        let gaussian = || DpEvent::gaussian(noise(1.0));
        for result in [
            DpEvent::discrete_gaussian(f64::NAN, 1),
            DpEvent::discrete_laplace(0.0, 1),
            DpEvent::skellam(1.0, 1.0, 2.0),
            DpEvent::randomized_response(1.1, 2),
            DpEvent::randomized_response(0.1, 1),
            DpEvent::zcdp(-1.0, 0.0),
            DpEvent::mixture_of_gaussians(noise(1.0), vec![], vec![]),
            DpEvent::mixture_of_gaussians(noise(1.0), vec![1.0], vec![0.9]),
            DpEvent::mixture_of_gaussians(noise(1.0), vec![1.0, 2.0], vec![1.0]),
            DpEvent::poisson_sampled(-0.1, gaussian()),
            DpEvent::poisson_sampled(f64::NAN, gaussian()),
            DpEvent::truncated_poisson(0, 0.1, 1, noise(1.0)),
            DpEvent::sampled_without_replacement(10, 11, gaussian()),
            DpEvent::tree_aggregation(noise(1.0), vec![0]),
            DpEvent::repeat_and_select(gaussian(), 0.5, 1.0),
            DpEvent::repeat_and_select(gaussian(), 2.0, -1.0),
        ] {
            assert!(result.is_err(), "{result:?}");
        }
        for text in [
            r#"{"event":"poisson-sampled","sampling_rate":2,"inner":{"event":"no-op"}}"#,
            r#"{"event":"composed","events":[{"event":"z-cdp","rho":-1,"xi":0}]}"#,
            r#"{"event":"gaussian"}"#,
            r#"{"event":"gaussian","noise_multiplier":1,"extra":1}"#,
            r#"{"noise_multiplier":1}"#,
        ] {
            assert!(serde_json::from_str::<DpEvent>(text).is_err(), "{text}");
        }
        let error = DpEvent::poisson_sampled(2.0, DpEvent::NoOp).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sampling_rate is 2; expected a probability, from 0 to 1"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let mut event = DpEvent::NoOp;
        for _ in 0..MAX_DEPTH {
            event = DpEvent::self_composed(event, 1).unwrap();
        }
        assert!(DpEvent::self_composed(event, 1).is_err());
    }

    #[test]
    fn gaussian_compositions_are_one_gaussian() {
        let gaussian = || DpEvent::gaussian(noise(2.0));
        let cases = [
            (gaussian(), Some(0.25)),
            (DpEvent::self_composed(gaussian(), 8).unwrap(), Some(2.0)),
            (
                DpEvent::composed(vec![gaussian(), DpEvent::NoOp, gaussian()]).unwrap(),
                Some(0.5),
            ),
            (
                DpEvent::poisson_sampled(1.0, gaussian()).unwrap(),
                Some(0.25),
            ),
            (
                DpEvent::poisson_sampled(0.0, gaussian()).unwrap(),
                Some(0.0),
            ),
            (DpEvent::poisson_sampled(0.5, gaussian()).unwrap(), None),
            // A tree of 8 leaves has 4 levels; one of 9 leaves has 5; one leaf alone has 1.
            (
                DpEvent::tree_aggregation(noise(2.0), vec![8]).unwrap(),
                Some(1.0),
            ),
            (
                DpEvent::tree_aggregation(noise(2.0), vec![1, 9]).unwrap(),
                Some(1.25),
            ),
            (
                DpEvent::tree_aggregation(noise(2.0), vec![1]).unwrap(),
                Some(0.25),
            ),
            (
                DpEvent::matrix_factorization(noise(2.0), 2.0).unwrap(),
                Some(1.0),
            ),
            (DpEvent::gaussian(noise(0.0)), Some(f64::INFINITY)),
            (DpEvent::laplace(noise(1.0)), None),
        ];
        for (event, expected) in cases {
            let found = event.gaussian_precision();
            match (found, expected) {
                (Some(found), Some(expected)) if expected < f64::INFINITY => {
                    assert!(
                        found >= expected && found <= expected * (1.0 + 1e-13),
                        "{event:?}"
                    );
                }
                _ => assert_eq!(found, expected, "{event:?}"),
            }
        }
    }
}
