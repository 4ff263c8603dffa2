//! The constructors of events, which refuse numbers out of range.

use super::DpEvent;
use crate::error::PrivacyError;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

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
}
