//! What a plan guarantees, with the assumptions beside the numbers (after Ponomareva et al. 2023,
//! arXiv:2303.00654, section 5.3.3).

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{Correlation, Extrapolation};
use crate::accountant::{AccountantKind, Bounds};
use crate::distributed::DistributedNoise;
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
    /// The server sees every update as its client sent it, with the client's own noise. It is not
    /// trusted with more.
    Local,
    /// The server sees the sum of a round, with noise that the clients added, and who took part.
    /// That it sees no single update is **assumed**: it is what secure aggregation is for.
    Distributed,
    /// Every client adds the noise to its own training and trusts nobody. Its update is private
    /// already, to the server as to everybody.
    Device,
}

impl TrustModel {
    /// What it means, in words.
    #[must_use]
    pub fn assumption(self) -> &'static str {
        match self {
            Self::Central => "the server sees the updates and adds the noise",
            Self::Local => "the server sees each noised update and who sent it",
            Self::Distributed => {
                "the server follows the protocol and sees only the sum, which ASSUMES secure \
                 aggregation: a run that does not mask updates adds them in the clear"
            }
            Self::Device => {
                "each client adds the noise itself while it trains, so the server knows no more \
                 than everybody, and who takes part is public"
            }
        }
    }

    /// What a guarantee under it does not cover.
    #[must_use]
    pub fn excluded(self) -> &'static [&'static str] {
        match self {
            Self::Device => &[
                "losses and counts that are recorded without noise for diagnosis",
                "how many examples a client has, and when it takes part, which count as public",
                "choosing among several runs by their results",
                "somebody with several examples, who is not protected as a whole",
                "attacks on simulated noise, which is drawn from the seed and not for production",
            ],
            Self::Local | Self::Distributed => &[
                "counts, norms, losses and accuracies that are recorded without noise for diagnosis",
                "choosing among several runs by their results",
                "whether a client has any examples, and that it took part",
                "attacks on simulated noise, which is drawn from the seed and not for production",
            ],
            Self::Central => &[
                "counts, norms, losses and accuracies that are recorded without noise for diagnosis",
                "choosing among several runs by their results",
                "what the server itself sees before it adds noise",
                "attacks on the low bits of floating-point noise; simulated noise is not for production",
            ],
        }
    }
}

/// What a client does, where it protects its examples while it trains.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LocalSteps {
    /// Rounds that a client takes part in, at most.
    pub participations: u64,
    /// Steps of one of them.
    pub steps: u64,
    /// Probability of each of its examples in each step.
    pub sampling_rate: f64,
}

/// What a guarantee rests on where clients add the noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClientSide {
    /// Whose guarantee the budget and the noise are about.
    pub observer: Observer,
    /// Fewest reports of a round; one with fewer is given up.
    pub least_survivors: u64,
    /// Most clients of a round whose noise does not count, because they tell it to the server.
    pub colluders: u64,
    /// Most rounds in which one client reports.
    pub participations: u64,
    /// Whether the released models' epsilon is amplified by sampling.
    pub amplified: bool,
    /// Standard deviation of a client's noise on each value of its update.
    pub local_std: f64,
    /// The clipping norm of an update.
    pub max_norm: f64,
    /// The ring of the sum, where there is one.
    pub ring: Option<RingFacts>,
}

/// The ring in which noised updates are added.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RingFacts {
    /// The law of the noise.
    pub mechanism: DistributedNoise,
    /// The bits of a coordinate.
    pub bits: u32,
    /// Coordinates of a vector that a client sends.
    pub length: u64,
    /// Bytes of that vector.
    pub bytes: u64,
    /// Integers per unit of an update.
    pub scale: f64,
    /// Bound of the probability that a coordinate of a sum wraps.
    pub wrap_probability: f64,
    /// The largest share of the error's variance that is of rounding.
    pub rounding_share: f64,
}

/// From whom something is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observer {
    /// Those who run the server: they know who takes part, and what colluding clients tell them.
    #[default]
    Server,
    /// Whoever sees the released models alone.
    Released,
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
    /// How the rounds' noise is related; none where it is independent.
    pub correlation: Option<Correlation>,
    /// Noise that is drawn for a round over the sensitivity of its sum.
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
    /// Set where clients add the noise.
    pub clients: Option<ClientSide>,
    /// Set where clients protect their examples while they train: what the client does that it
    /// costs most. The sampling is then that of its examples, of which all clients together have
    /// the sampler's population.
    pub steps: Option<LocalSteps>,
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
        self.trust.excluded()
    }
}

impl PrivacyStatement {
    fn write_steps(&self, local: LocalSteps, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LocalSteps {
            participations,
            steps,
            sampling_rate,
        } = local;
        writeln!(
            f,
            "({:.4}, {:e})-differential privacy per {} ({}) after {} rounds, in which a client takes \
             part at most {participations} times; {} accountant, provably not below {:.4}",
            self.epsilon.upper,
            self.delta.get(),
            self.unit,
            self.relation,
            self.rounds,
            self.accountant,
            self.epsilon.lower
        )?;
        writeln!(
            f,
            "a time is {steps} steps of Gaussian noise with multiplier {:.4}, each on a batch that \
             every example of the client is in with probability {sampling_rate:.3e} (of all \
             clients, the one that it costs most)",
            self.noise_multiplier,
        )?;
        if self.delta_is_lax {
            writeln!(
                f,
                "delta is large for {} {}s; many ask for less than {:.1e}",
                self.sampling.population(),
                self.unit,
                libm::pow(self.sampling.population() as f64, -1.1)
            )?;
        }
        write!(
            f,
            "trust: {}; not covered: {}",
            self.trust.assumption(),
            self.excluded().join("; ")
        )
    }

    fn write_client_side(&self, clients: &ClientSide, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unit,
            relation,
            rounds,
            noise_multiplier,
            epsilon,
            unamplified,
            accountant,
            ..
        } = self;
        let delta = self.delta.get();
        let most = clients.participations;
        writeln!(
            f,
            "against the server: ({unamplified:.4}, {delta:e})-differential privacy per {unit} \
             ({relation}) in at most {most} of {rounds} rounds each; {accountant} accountant",
        )?;
        writeln!(
            f,
            "released models: epsilon {:.4}{}, {}",
            epsilon.upper,
            match epsilon.lower > Epsilon::ZERO {
                true => format!(" (provably not below {:.4})", epsilon.lower),
                false => String::new(),
            },
            match clients.amplified {
                true =>
                    "amplified by the secrecy of samples of fixed size, if dropping out depends \
                         on nothing that clients hold or are",
                false => "not amplified by sampling",
            }
        )?;
        writeln!(
            f,
            "sampling {}, expected {} of {} {unit}s a round; rounds with fewer than {} reports are \
             given up{}",
            self.sampling.name(),
            self.sampling.expected_size(),
            self.sampling.population(),
            clients.least_survivors,
            match clients.colluders {
                0 => String::new(),
                colluders => format!(", and {colluders} of them may tell the server their noise"),
            }
        )?;
        if let Some(ring) = &clients.ring {
            writeln!(
                f,
                "each {unit} adds {} noise of {:.3e} to its update of norm {}, {:.1} integers in a \
                 ring of {} bits: {} numbers, {} bytes; noise multiplier of the sum {:.4}",
                match ring.mechanism {
                    DistributedNoise::Skellam => "Skellam",
                    DistributedNoise::DiscreteGaussian => "discrete Gaussian",
                },
                clients.local_std,
                clients.max_norm,
                clients.local_std * ring.scale,
                ring.bits,
                ring.length,
                ring.bytes,
                noise_multiplier
            )?;
            writeln!(
                f,
                "a coordinate of a sum wraps with probability at most {:.1e}; rounding is at most \
                 {:.2} % of the error",
                ring.wrap_probability,
                100.0 * ring.rounding_share
            )?;
        } else {
            writeln!(
                f,
                "each {unit} adds Gaussian noise of {:.3e} to its update of norm {}; noise \
                 multiplier {:.4}",
                clients.local_std, clients.max_norm, noise_multiplier
            )?;
        }
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
            "trust: {}; not covered: {}",
            self.trust.assumption(),
            self.excluded().join("; ")
        )
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
                "{}",
                match self.clients {
                    Some(_) =>
                        "NO differential privacy that can be stated: the noise is too small for it",
                    None if self.steps.is_some() =>
                        "NO differential privacy: gradients are clipped and no noise is added",
                    None => "NO differential privacy: updates are clipped and no noise is added",
                }
            );
        }
        if let Some(clients) = &self.clients {
            return self.write_client_side(clients, f);
        }
        if let Some(steps) = self.steps {
            return self.write_steps(steps, f);
        }
        writeln!(
            f,
            "({:.4}, {delta:e})-differential privacy per {unit} ({relation}) after {rounds} rounds of \
             Gaussian noise with multiplier {noise_multiplier:.4}; {accountant} accountant, \
             provably not below {:.4}",
            epsilon.upper, epsilon.lower
        )?;
        if let Some(correlation) = &self.correlation {
            writeln!(f, "noise correlated over the rounds by {correlation}")?;
        }
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
            "trust: {}; not covered: {}",
            self.trust.assumption(),
            self.excluded().join("; ")
        )
    }
}
