//! The range of every number of an event.

use super::DpEvent;
use crate::error::PrivacyError;

/// Deepest nesting of events in events.
pub(super) const MAX_DEPTH: u32 = 32;

impl DpEvent {
    /// The event itself when its numbers, and those of all events in it, are in range.
    pub(super) fn checked(self) -> Result<Self, PrivacyError> {
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
