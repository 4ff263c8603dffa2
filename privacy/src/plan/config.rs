//! What is decided about a private aggregation before its first round.

use serde::{Deserialize, Serialize};

use super::NoiseCorrelation;
use crate::accountant::AccountantKind;
use crate::clip::DpWeighting;
use crate::error::PrivacyError;
use crate::relation::{NeighboringRelation, PrivacyUnit};
use crate::sampling::Sampler;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// How updates are clipped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Clipping {
    /// The whole update to one L2 norm, [`FlatClip`](crate::clip::FlatClip).
    Flat {
        /// The norm.
        max_norm: f64,
    },
    /// Each tensor to an equal share, together at most this norm, [`PerLayerClip::uniform`](crate::clip::PerLayerClip::uniform).
    PerLayer {
        /// The norm.
        max_norm: f64,
    },
    /// Every update to about the same norm, [`AutomaticClip`](crate::clip::AutomaticClip).
    Automatic {
        /// The norm.
        max_norm: f64,
        /// Small updates stay smaller the larger it is.
        stability: f64,
    },
    /// The norm follows a quantile of the updates' norms, [`AdaptiveClip`](crate::clip::AdaptiveClip).
    Adaptive {
        /// The first norm.
        initial_norm: f64,
        /// The share of updates that is to be within the norm.
        quantile: f64,
        /// The step of the logarithm of the norm.
        learning_rate: f64,
        /// Standard deviation of the noise on the sum of bits that count ±1/2; when not given,
        /// [`AdaptiveClipConfig::default_count_noise`](crate::clip::AdaptiveClipConfig::default_count_noise).
        count_noise: Option<f64>,
    },
}

/// A population that is larger than the simulated one.
///
/// Noise matters less the larger the cohort is, and a simulation cannot train cohorts of tens of
/// thousands. As pfl-research does (Granqvist et al. 2024, arXiv:2404.06430, section 4.2), the
/// noise on the mean can be that of a larger cohort than the one that is trained. The guarantee is
/// then that of the larger deployment and **not of what was simulated**; every statement says so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extrapolation {
    /// Clients in all of the deployment.
    pub population: u64,
    /// Expected clients of one of its rounds; at least those of the simulated one.
    pub cohort: u64,
}

/// Everything about a private aggregation that is decided before the first round. All of it is
/// public.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpPlanConfig {
    /// How the cohort is drawn.
    pub sampler: Sampler,
    /// Which data sets must be hard to tell apart.
    pub relation: NeighboringRelation,
    /// Who is protected.
    pub unit: PrivacyUnit,
    /// How updates are bounded.
    pub clipping: Clipping,
    /// What an update counts.
    pub weighting: DpWeighting,
    /// The expected weight of a participant, from public knowledge; 1 for uniform weights. The sum
    /// is divided by it times the expected cohort.
    pub mean_weight: f64,
    /// How the noise of different rounds is related.
    #[serde(default)]
    pub correlation: NoiseCorrelation,
    /// Standard deviation of the noise that is drawn for a round over the sensitivity of its sum,
    /// for updates and clipping bits together; when not given, the least that keeps `epsilon` over
    /// all rounds.
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Most that may be spent; nothing is refused when not given.
    pub epsilon: Option<Epsilon>,
    /// The `delta` of all statements; below one over the population.
    pub delta: Delta,
    /// Who counts.
    pub accountant: AccountantKind,
    /// Rounds that are declared.
    pub rounds: u64,
    /// A larger deployment than the simulated one.
    pub extrapolation: Option<Extrapolation>,
}

impl DpPlanConfig {
    /// Flat clipping of a client's update, uniform weights, the default accountant, and the
    /// relation that fits the sampler: replacing one for samples of fixed size, else adding or
    /// removing one.
    #[must_use]
    pub fn new(sampler: Sampler, max_norm: f64, delta: Delta, rounds: u64) -> Self {
        Self {
            relation: natural_relation(&sampler),
            sampler,
            unit: PrivacyUnit::Client,
            clipping: Clipping::Flat { max_norm },
            weighting: DpWeighting::Uniform,
            mean_weight: 1.0,
            correlation: NoiseCorrelation::Independent,
            noise_multiplier: None,
            epsilon: None,
            delta,
            accountant: AccountantKind::Pld,
            rounds,
            extrapolation: None,
        }
    }

    /// The sampler that is accounted: that of the deployment, where there is a larger one.
    pub(super) fn accounted(&self) -> Result<Sampler, PrivacyError> {
        let Some(Extrapolation { population, cohort }) = self.extrapolation else {
            return Ok(self.sampler.clone());
        };
        let simulated = self.sampler.expected_size();
        PrivacyError::unless_count(
            cohort as f64 >= simulated && cohort <= population,
            "the cohort of the extrapolated population",
            cohort,
            "at least the expected cohort that is simulated and at most the population",
        )?;
        PrivacyError::unless_count(
            population >= self.sampler.population(),
            "the extrapolated population",
            population,
            "at least the clients that are simulated",
        )?;
        match self.sampler {
            Sampler::Everyone { .. } => Sampler::everyone(population),
            Sampler::Poisson { .. } => {
                Sampler::poisson(population, cohort as f64 / population as f64)
            }
            Sampler::FixedSize { .. } => Sampler::fixed_size(population, cohort),
            _ => Err(PrivacyError::PrivateAggregation {
                what: "extrapolating this way of sampling",
                reason: "what it would be in a larger population is not defined",
                instead: "use Poisson sampling or samples of fixed size",
            }),
        }
    }
}

/// The relation that a sampler has a guarantee under: replacing one where its draws have a fixed
/// size, else adding or removing one.
#[must_use]
pub fn natural_relation(sampler: &Sampler) -> NeighboringRelation {
    match sampler {
        Sampler::FixedSize { .. } | Sampler::Separated { .. } | Sampler::Shuffled { .. } => {
            NeighboringRelation::ReplaceOne
        }
        _ => NeighboringRelation::AddOrRemoveOne,
    }
}
