//! What is decided about clients' noise before the first round.

use serde::{Deserialize, Serialize};

use crate::accountant::AccountantKind;
use crate::distributed::{DistributedConfig, DistributedNoise};
use crate::plan::Observer;
use crate::relation::NeighboringRelation;
use crate::sampling::Sampler;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// Where a client's noise is meant to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClientNoise {
    /// In its own update: Gaussian noise in floating point.
    Local,
    /// In the sum of a round alone: integer noise in a ring.
    Distributed(RingNoise),
}

/// How updates and noise become elements of a ring; see [`crate::distributed`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingNoise {
    /// The law of the noise.
    pub mechanism: DistributedNoise,
    /// The bits of the ring, 4 to 62; when not given, the fewest with which rounding adds at most
    /// 1 % to the square of the sensitivity.
    pub bits: Option<u32>,
    /// The bias parameter of conditional rounding.
    pub rounding_bias: f64,
    /// The largest probability for a coordinate of a sum to wrap.
    pub wrap_limit: f64,
}

impl Default for RingNoise {
    fn default() -> Self {
        Self {
            mechanism: DistributedNoise::Skellam,
            bits: None,
            rounding_bias: DistributedConfig::DEFAULT_ROUNDING_BIAS,
            wrap_limit: DistributedConfig::DEFAULT_WRAP_LIMIT,
        }
    }
}

/// Everything about a private aggregation with clients' noise that is decided before the first
/// round. All of it is public.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlanConfig {
    /// How the cohort is drawn: everyone, a fixed size, Poisson, cyclic Poisson or separated.
    pub sampler: Sampler,
    /// What becomes of a client between neighbours: replace-one or replace-special.
    pub relation: NeighboringRelation,
    /// Where the noise is meant to be seen.
    pub noise: ClientNoise,
    /// The L2 norm that an update is clipped to.
    pub max_norm: f64,
    /// Standard deviation of the noise over the sensitivity: of a client's own noise for
    /// [`ClientNoise::Local`]; for [`ClientNoise::Distributed`] of that of as many honest clients as
    /// a round has at least, before rounding adds to the sensitivity. When not given, the least that
    /// keeps `epsilon` over all rounds.
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Most that may be spent on [`Self::observer`]; nothing is refused when not given.
    pub epsilon: Option<Epsilon>,
    /// Whose epsilon the budget and the noise are about.
    pub observer: Observer,
    /// The `delta` of all statements; below one over the population.
    pub delta: Delta,
    /// Who counts. What a server of local noise sees is counted exactly in any case.
    pub accountant: AccountantKind,
    /// Rounds that are declared.
    pub rounds: u64,
    /// The share of the expected cohort that must report, in `(0, 1]`.
    pub least_survivors: f64,
    /// The share of the expected cohort that may collude with the server, in `[0, 1)`.
    pub colluding_share: f64,
    /// Most rounds in which one client reports. When not given, so many that all clients together
    /// reach it with a probability of at most a thousandth of `delta`. Fewer than that leave
    /// nothing for sampling to amplify.
    pub most_participations: Option<u64>,
}

impl ClientPlanConfig {
    /// [`Self::least_survivors`] when nothing else is asked for.
    pub const DEFAULT_LEAST_SURVIVORS: f64 = 0.8;

    /// Replacing one client, protected from the server, by the accountant that has tight bounds for
    /// the noise; four fifths of the cohort must report and none collude.
    #[must_use]
    pub fn new(
        noise: ClientNoise,
        sampler: Sampler,
        max_norm: f64,
        delta: Delta,
        rounds: u64,
    ) -> Self {
        Self {
            sampler,
            relation: NeighboringRelation::ReplaceOne,
            noise,
            max_norm,
            noise_multiplier: None,
            epsilon: None,
            observer: Observer::Server,
            delta,
            accountant: noise.natural_accountant(),
            rounds,
            least_survivors: Self::DEFAULT_LEAST_SURVIVORS,
            colluding_share: 0.0,
            most_participations: None,
        }
    }
}

impl ClientNoise {
    /// The accountant with the tightest bounds for this noise: privacy loss distributions for
    /// Gaussian noise, Rényi divergences for vectors of integers.
    #[must_use]
    pub fn natural_accountant(&self) -> AccountantKind {
        match self {
            Self::Local => AccountantKind::Pld,
            Self::Distributed(_) => AccountantKind::Rdp,
        }
    }
}
