//! What a plan guarantees, with the assumptions beside the numbers (after Ponomareva et al. 2023,
//! arXiv:2303.00654, section 5.3.3).

use core::fmt;

use serde::{Deserialize, Serialize};

use super::Extrapolation;
use crate::accountant::{AccountantKind, Bounds};
use crate::relation::{NeighboringRelation, PrivacyUnit};
use crate::sampling::Sampler;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// Who is trusted with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustModel {
    /// The server sees what it sums, and adds the noise. It is trusted; those who see the released
    /// models are not.
    Central,
}

/// What was spent, for two observers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// For whoever sees the released models and not who took part: amplified by sampling.
    pub epsilon: Bounds<Epsilon>,
    /// For whoever also sees who took part in each round, such as those who run the server and
    /// read its logs: sampling amplifies nothing.
    pub unamplified: Epsilon,
}

/// A guarantee and what it rests on. [`Display`](fmt::Display) writes it for people, one line per
/// fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrivacyStatement {
    /// Who is protected.
    pub unit: PrivacyUnit,
    /// Which data sets are hard to tell apart.
    pub relation: NeighboringRelation,
    /// How the cohorts that are accounted were drawn.
    pub sampling: Sampler,
    /// Who is trusted.
    pub trust: TrustModel,
    /// Rounds that it covers.
    pub rounds: u64,
    /// Noise over sensitivity, per round.
    pub noise_multiplier: NoiseMultiplier,
    /// The released models' guarantee, and how far from the truth it can be.
    pub epsilon: Bounds<Epsilon>,
    /// The same for whoever sees who takes part.
    pub unamplified: Epsilon,
    /// The `delta` of both.
    pub delta: Delta,
    /// Whether it is above one over the population to the power of 1.1.
    pub delta_is_lax: bool,
    /// What may be spent at most.
    pub budget: Option<Epsilon>,
    /// Who counted.
    pub accountant: AccountantKind,
    /// Set where the guarantee is that of a larger deployment and not of what was simulated.
    pub extrapolation: Option<Extrapolation>,
    /// How the simulated cohorts were drawn.
    pub simulated: Sampler,
}

impl PrivacyStatement {
    /// Whether the guarantee is of a hypothetical deployment.
    #[must_use]
    pub fn is_hypothetical(&self) -> bool {
        self.extrapolation.is_some()
    }

    /// What the guarantee does not cover.
    #[must_use]
    pub fn excluded(&self) -> &'static [&'static str] {
        &[
            "counts, norms, losses and accuracies that are recorded without noise for diagnosis",
            "choosing among several runs by their results",
            "what the server itself sees before it adds noise",
            "attacks on the low bits of floating-point noise; simulated noise is not for production",
        ]
    }
}

impl fmt::Display for PrivacyStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unit,
            relation,
            rounds,
            noise_multiplier,
            epsilon,
            unamplified,
            delta,
            accountant,
            ..
        } = self;
        let delta = delta.get();
        if epsilon.upper == Epsilon::INFINITY {
            return write!(
                f,
                "NO differential privacy: updates are clipped and no noise is added"
            );
        }
        writeln!(
            f,
            "({:.4}, {delta:e})-differential privacy per {unit} ({relation}) after {rounds} rounds of \
             Gaussian noise with multiplier {noise_multiplier:.4}; {accountant} accountant, \
             provably not below {:.4}",
            epsilon.upper, epsilon.lower
        )?;
        if let Some(Extrapolation { population, cohort }) = self.extrapolation {
            writeln!(
                f,
                "HYPOTHETICAL: holds for a deployment with {population} {unit}s and cohorts of \
                 {cohort}, whose noise was simulated; not for the {} {unit}s of this run",
                self.simulated.population()
            )?;
        }
        writeln!(
            f,
            "sampling {}, expected {} of {} {unit}s a round; for whoever sees who takes part: \
             epsilon {unamplified:.4}",
            self.sampling.name(),
            self.sampling.expected_size(),
            self.sampling.population()
        )?;
        if self.delta_is_lax {
            writeln!(
                f,
                "delta is large for {} {unit}s; many ask for less than {:.1e}",
                self.sampling.population(),
                libm::pow(self.sampling.population() as f64, -1.1)
            )?;
        }
        write!(
            f,
            "trust: the server sees the updates and adds the noise; not covered: {}",
            self.excluded().join("; ")
        )
    }
}
