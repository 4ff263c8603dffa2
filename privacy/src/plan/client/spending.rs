//! What clients' noise costs, and how much of it an epsilon needs.

use super::{
    ClientNoise, ClientPlanConfig, DistributedConfig, DistributedDp, Observer, RingNoise, Spent,
};
use crate::accountant::{AccountantKind, Bounds, accountant};
use crate::calibrate::Target;
use crate::clip::changes;
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::pld::binomial::binomial_at_least;
use crate::relation::NeighboringRelation;
use crate::sampling::Sampler;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// The part of delta that is kept for each thing that has a tiny probability of its own: a client
/// that must stay out, and the distance between tables and laws of noise.
const RESERVE: f64 = 1e-3;
/// The probability that a Poisson cohort is larger than the ring is made for.
const LARGE_COHORT: f64 = 1e-9;
/// Every ring that there is has at most so many bits.
const MOST_BITS: u32 = 62;

/// The public facts that spending follows from.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) config: ClientPlanConfig,
    pub(super) dimension: usize,
    /// Fewest reports of a round.
    pub(super) least: u64,
    /// Most colluding clients of a round.
    pub(super) colluders: u64,
    /// Most reports of a round.
    most: u64,
    /// The probability that a client is in the cohort of a round in which it can be.
    rate: f64,
}

impl Terms {
    pub(super) fn new(config: ClientPlanConfig, dimension: usize) -> Result<Self, PrivacyError> {
        check(&config)?;
        let population = config.sampler.population();
        let expected = config.sampler.expected_size();
        let rate = match config.sampler {
            Sampler::CyclicPoisson { sampling_rate, .. } => sampling_rate,
            Sampler::Separated { .. } => 1.0,
            _ => (expected / population as f64).min(1.0),
        };
        // Shares of a cohort are counts that were divided.
        let count = |share: f64| libm::ceil(share * expected * (1.0 - 1e-12)) as u64;
        let least = count(config.least_survivors).max(1);
        let colluders = count(config.colluding_share);
        PrivacyError::unless_count(
            colluders < least,
            "the number of colluding clients of a round",
            colluders,
            "fewer than the reports of a round at least; lower colluding_share or raise \
             least_survivors",
        )?;
        let most = match config.sampler {
            Sampler::Poisson { .. } | Sampler::CyclicPoisson { .. } => {
                // The members of the largest group, of which there is one without turns.
                let group = population.div_ceil(config.sampler.every());
                let fits = |most| binomial_at_least(group, most + 1, rate) <= LARGE_COHORT;
                least_where(libm::floor(expected) as u64, group, fits)
            }
            _ => expected as u64,
        };
        Ok(Self {
            config,
            dimension,
            least,
            colluders,
            most: most.max(least),
            rate,
        })
    }

    /// Most reports of one client in so many rounds.
    pub(super) fn participations(&self, rounds: u64) -> u64 {
        // A client can be in every so manieth cohort.
        let turns = rounds.div_ceil(self.config.sampler.every());
        match self.config.most_participations {
            Some(own) => own.min(turns),
            None => self.rarely_more(turns),
        }
    }

    /// The number of cohorts, of so many in which it can be, that some client of all is in more of
    /// with a probability of at most its part of delta.
    fn rarely_more(&self, turns: u64) -> u64 {
        if self.rate >= 1.0 {
            return turns;
        }
        let limit = RESERVE * self.config.delta.get() / self.config.sampler.population() as f64;
        let fits = |most| binomial_at_least(turns, most + 1, self.rate) * (1.0 + 1e-9) <= limit;
        least_where(0, turns, fits)
    }

    /// Whether sampling amplifies what the released models show. Clients that stay out because they
    /// have reported often enough would make a cohort depend on earlier ones.
    pub(super) fn is_amplified(&self) -> bool {
        let rarely = self.rarely_more(self.config.rounds);
        let free = self
            .config
            .most_participations
            .is_none_or(|own| own >= rarely);
        matches!(self.config.sampler, Sampler::FixedSize { .. })
            && self.config.relation == NeighboringRelation::ReplaceOne
            && self.rate < 1.0
            && free
    }

    /// What the noise of so many clients is to whoever sees their sum, and who was in it.
    pub(super) fn inner(
        &self,
        noise: NoiseMultiplier,
        ring: Option<&DistributedDp>,
        clients: u64,
    ) -> Result<DpEvent, PrivacyError> {
        match (self.config.noise, ring) {
            (ClientNoise::Local, _) => Ok(DpEvent::gaussian(NoiseMultiplier::new(
                noise.get() * libm::sqrt(clients as f64) * (1.0 - f64::EPSILON),
            )?)),
            (ClientNoise::Distributed(_), Some(ring)) => ring.event(clients, self.config.relation),
            (ClientNoise::Distributed(own), None) => {
                let config = self.in_ring(&own, noise, own.bits.unwrap_or(MOST_BITS))?;
                DistributedDp::forecast(&config, clients, self.config.relation)
            }
        }
    }

    /// What a round with so many reports is to the server.
    fn served(
        &self,
        noise: NoiseMultiplier,
        ring: Option<&DistributedDp>,
        reports: u64,
    ) -> Result<DpEvent, PrivacyError> {
        match self.config.noise {
            ClientNoise::Local => Ok(DpEvent::gaussian(noise)),
            ClientNoise::Distributed(_) => {
                self.inner(noise, ring, reports.saturating_sub(self.colluders))
            }
        }
    }

    /// The event of a round whose cohort is secret, where that is credited.
    pub(super) fn sampled(&self, inner: DpEvent) -> Result<DpEvent, PrivacyError> {
        if !self.is_amplified() {
            return Ok(inner);
        }
        let population = self.config.sampler.population();
        let cohort = self.config.sampler.expected_size() as u64;
        DpEvent::sampled_without_replacement(population, cohort, inner)
    }

    /// The server's accountant: exact where there is nothing but Gaussian noise.
    fn plain(&self) -> AccountantKind {
        match self.config.noise {
            ClientNoise::Local => AccountantKind::Gaussian,
            ClientNoise::Distributed(_) => self.config.accountant,
        }
    }

    /// Delta less what is kept for the tables' distance and, when samples are secret, for clients
    /// that must stay out.
    fn accounted(&self, secret: bool) -> Result<Delta, PrivacyError> {
        let tables = matches!(self.config.noise, ClientNoise::Distributed(_));
        let kept = RESERVE * (f64::from(u8::from(tables)) + f64::from(u8::from(secret)));
        Delta::new(self.config.delta.get() * (1.0 - kept))
    }

    /// Released models and server: `rounds` rounds of so many reports each, at most `most` of them
    /// by one client.
    pub(super) fn spending(
        &self,
        noise: NoiseMultiplier,
        ring: Option<&DistributedDp>,
        rounds: u64,
        most: u64,
        reports: u64,
    ) -> Result<Spent, PrivacyError> {
        let nothing = Bounds {
            upper: Epsilon::ZERO,
            lower: Epsilon::ZERO,
        };
        if most == 0 {
            return Ok(Spent {
                epsilon: nothing,
                unamplified: Epsilon::ZERO,
            });
        }
        if noise.get() <= 0.0 {
            return Ok(Spent {
                epsilon: Bounds {
                    upper: Epsilon::INFINITY,
                    ..nothing
                },
                unamplified: Epsilon::INFINITY,
            });
        }
        let relation = self.config.relation;
        let cost = |kind, event: &DpEvent, count, secret| {
            let mut sum = accountant(kind, relation);
            sum.compose(event, count)?;
            let mut bounds = sum.epsilon(self.accounted(secret)?)?;
            let apart = ring.map_or(0.0, |ring| ring.delta_for(bounds.upper, self.most, rounds));
            if apart > RESERVE * self.config.delta.get() {
                bounds.upper = Epsilon::INFINITY;
            }
            Ok::<_, PrivacyError>(bounds)
        };
        let served = self.served(noise, ring, reports)?;
        let server = cost(self.plain(), &served, most, false)?;
        let inner = self.inner(noise, ring, reports)?;
        let mut released = if rounds == 0 {
            nothing
        } else if self.is_amplified() {
            let event = self.sampled(inner)?;
            cost(self.config.accountant, &event, rounds, true)?
        } else {
            cost(self.plain(), &inner, most.min(rounds), false)?
        };
        if server.upper < released.upper {
            // Whoever sees the models sees less than the server.
            released.upper = server.upper;
            released.lower = Epsilon::new(released.lower.get().min(server.upper.get()))?;
        }
        Ok(Spent {
            epsilon: released,
            unamplified: server.upper,
        })
    }

    fn in_ring(
        &self,
        own: &RingNoise,
        noise: NoiseMultiplier,
        bits: u32,
    ) -> Result<DistributedConfig, PrivacyError> {
        let config = &self.config;
        Ok(DistributedConfig {
            dimension: self.dimension,
            max_norm: config.max_norm,
            noise_multiplier: NoiseMultiplier::new(noise.get() * changes(config.relation))?,
            noise: own.mechanism,
            bits,
            clients: self.most,
            threshold: self.least - self.colluders,
            rounding_bias: own.rounding_bias,
            wrap_limit: own.wrap_limit,
        })
    }

    /// The ring for this noise, if there is to be one.
    pub(super) fn with_noise(
        &self,
        noise: NoiseMultiplier,
    ) -> Result<(NoiseMultiplier, Option<DistributedDp>), PrivacyError> {
        let ClientNoise::Distributed(own) = self.config.noise else {
            return Ok((noise, None));
        };
        let bits = match own.bits {
            Some(bits) => bits,
            None => DistributedDp::fewest_bits(&self.in_ring(&own, noise, MOST_BITS)?)?,
        };
        match DistributedDp::new(self.in_ring(&own, noise, bits)?) {
            Ok(ring) => Ok((noise, Some(ring))),
            Err(error @ PrivacyError::RingTooSmall { .. }) => {
                let works = |bits| -> Result<bool, PrivacyError> {
                    let config = self.in_ring(&own, noise, bits)?;
                    Ok(DistributedDp::forecast(&config, self.least, self.config.relation).is_ok())
                };
                self.too_few_bits(bits, f64::INFINITY, error, works)
            }
            Err(error) => Err(error),
        }
    }

    /// The least noise with which the declared rounds spend at most `epsilon` on the observer, and
    /// the ring for it.
    pub(super) fn calibrate(
        &self,
        epsilon: Epsilon,
    ) -> Result<(NoiseMultiplier, Option<DistributedDp>), PrivacyError> {
        let ClientNoise::Distributed(own) = self.config.noise else {
            return self.with_noise(self.search(epsilon)?);
        };
        let with = |bits| {
            let mut terms = self.clone();
            terms.config.noise = ClientNoise::Distributed(RingNoise {
                bits: Some(bits),
                ..own
            });
            terms
        };
        let Some(bits) = own.bits else {
            // In a ring of any size first: it says how many bits the noise needs, and those cost
            // a little noise more.
            let roomy = with(MOST_BITS).search(epsilon)?;
            let bits = DistributedDp::fewest_bits(&self.in_ring(&own, roomy, MOST_BITS)?)?;
            let terms = with(bits);
            return terms.with_noise(terms.search(epsilon)?);
        };
        match self.search(epsilon) {
            Ok(noise) => self.with_noise(noise),
            Err(error @ PrivacyError::Unreachable { .. }) => {
                let works = |bits| match with(bits).search(epsilon) {
                    Ok(_) => Ok(true),
                    Err(PrivacyError::Unreachable { .. }) => Ok(false),
                    Err(error) => Err(error),
                };
                self.too_few_bits(bits, epsilon.get(), error, works)
            }
            Err(error) => Err(error),
        }
    }

    fn search(&self, epsilon: Epsilon) -> Result<NoiseMultiplier, PrivacyError> {
        let secret = self.config.observer == Observer::Released && self.is_amplified();
        let target = Target {
            epsilon,
            delta: self.accounted(secret)?,
            accountant: match secret {
                true => self.config.accountant,
                false => self.plain(),
            },
            relation: self.config.relation,
        };
        let rounds = self.config.rounds;
        let count = match secret {
            true => rounds,
            false => self.participations(rounds),
        };
        let event = |noise: NoiseMultiplier| {
            let event = match self.config.observer {
                Observer::Server => self.served(noise, None, self.least),
                Observer::Released => {
                    let inner = self.inner(noise, None, self.least);
                    inner.and_then(|inner| self.sampled(inner))
                }
            };
            match event {
                // Noise that is too fine for the ring, or beyond what any ring takes, is none.
                Err(PrivacyError::RingTooSmall { .. } | PrivacyError::OutOfRange { .. }) => {
                    Ok(DpEvent::NonPrivate)
                }
                event => event,
            }
        };
        Ok(target.noise_multiplier(count, event)?.value)
    }

    /// The refusal with the fewest bits that `works`; `error` when none do.
    fn too_few_bits<T>(
        &self,
        bits: u32,
        target: f64,
        error: PrivacyError,
        works: impl Fn(u32) -> Result<bool, PrivacyError>,
    ) -> Result<T, PrivacyError> {
        for enough in bits + 1..=MOST_BITS {
            if works(enough)? {
                return Err(PrivacyError::BitsTooFew {
                    bits,
                    clients: self.most,
                    target,
                    enough,
                });
            }
        }
        Err(error)
    }
}

/// The least number from `low` to `high` that `fits`, where larger ones fit, too, and `high` does.
fn least_where(mut low: u64, mut high: u64, fits: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

fn check(config: &ClientPlanConfig) -> Result<(), PrivacyError> {
    PrivacyError::unless_count(
        config.rounds > 0,
        "the number of declared rounds",
        config.rounds,
        "at least 1",
    )?;
    PrivacyError::unless_count(
        config.most_participations != Some(0),
        "the most participations of a client",
        0,
        "at least 1",
    )?;
    PrivacyError::unless(
        config.least_survivors > 0.0 && config.least_survivors <= 1.0,
        "the share of a cohort that must report",
        config.least_survivors,
        "a number above 0 and at most 1",
    )?;
    PrivacyError::unless(
        (0.0..1.0).contains(&config.colluding_share),
        "the share of a cohort that may collude",
        config.colluding_share,
        "a number from 0 to below 1",
    )?;
    if config.relation == NeighboringRelation::AddOrRemoveOne {
        return Err(PrivacyError::PrivateAggregation {
            what: "adding or removing a client that brings its own noise",
            reason: "its noise would come and go with it",
            instead: "use the relation `replace-special` or `replace-one`",
        });
    }
    match config.sampler {
        Sampler::Everyone { .. }
        | Sampler::Poisson { .. }
        | Sampler::FixedSize { .. }
        | Sampler::CyclicPoisson { .. }
        | Sampler::Separated { .. } => Ok(()),
        _ => Err(PrivacyError::PrivateAggregation {
            what: "clients' noise under this way of sampling",
            reason: "how often a client takes part is not bounded for it here",
            instead: "use samples of fixed size, Poisson, cyclic or separated ones",
        }),
    }
}
