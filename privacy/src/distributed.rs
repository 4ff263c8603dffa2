//! Distributed differential privacy: clients add a share of the noise themselves, as integers,
//! inside secure aggregation. The server sees nothing but the noised sum modulo `2^b`.
//!
//! Kairouz, Liu and Steinke 2021 (arXiv:2102.06387, algorithms 1 and 2) with discrete Gaussian
//! noise; Agarwal, Kairouz and Liu 2021 (arXiv:2110.04995) with Skellam noise. A client
//! 1. clips its update to L2 norm `c` (an update that is not finite becomes zero);
//! 2. [rotates](Rotation) it by random signs and a Hadamard matrix, so that no coordinate is large;
//! 3. multiplies by the scale `s` and [rounds](rounding) at random to integers, conditioned on the
//!    norm staying below a bound;
//! 4. adds integer noise of variance `(s z c)^2 / t`, where `z` is the noise multiplier and `t`
//!    the least number of honest contributors;
//! 5. reduces modulo `2^b`.
//!
//! The server adds the vectors, rotates back and divides by `s`.
//!
//! ```
//! use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
//! use fl_privacy::distributed::{DistributedConfig, DistributedDp, DistributedNoise, Rotation};
//! use fl_privacy::{NeighboringRelation, NoiseMultiplier};
//!
//! # fn main() -> Result<(), fl_privacy::PrivacyError> {
//! let plan = DistributedDp::new(DistributedConfig {
//!     dimension: 3,
//!     max_norm: 1.0,
//!     noise_multiplier: NoiseMultiplier::new(0.5)?,
//!     noise: DistributedNoise::Skellam,
//!     bits: 16,
//!     clients: 10,
//!     threshold: 7,
//!     rounding_bias: DistributedConfig::DEFAULT_ROUNDING_BIAS,
//!     wrap_limit: DistributedConfig::DEFAULT_WRAP_LIMIT,
//! })?;
//! let at = |purpose, client| Stream::at(purpose, Seed(1), RoundId(0), ClientId(client));
//! let rotation = Rotation::new(&mut at(Purpose::Rotation, 0), plan.padded());
//! let mut sum = vec![0; plan.padded()];
//! let mut vector = Vec::new();
//! for client in 0..8 {
//!     let mut update = [0.1, -0.2, 0.3];
//!     let mut rounding = at(Purpose::UpdateCodec, client);
//!     let mut noise = at(Purpose::LocalNoise, client);
//!     plan.encode(&mut update, &rotation, &mut rounding, &mut noise, &mut vector)?;
//!     plan.add(&mut sum, &vector)?;
//! }
//! let noised_sum = plan.decode(&sum, &rotation)?;
//! // One of the eight may collude: the noise of seven is told to the accountant.
//! let event = plan.event(7, NeighboringRelation::ReplaceSpecial)?;
//! # let _ = (noised_sum, event);
//! # Ok(())
//! # }
//! ```
//!
//! # Who counts
//! Noise counts for the clients that really contributed and did not collude: the event of a round
//! is that of its honest survivors ([`DistributedDp::event`]), and with fewer than `t` it costs
//! more than was planned. The number of contributors is public in secure aggregation and each adds
//! noise, so neighbours differ by what one of them contributes, not by whether it is there:
//! the relation is to replace one, or to replace it by a special one that contributes zero (and
//! noise).
//!
//! # Wrapping
//! A coordinate of the sum that leaves `[-2^(b-1), 2^(b-1))` comes back at the other end: no harm
//! to privacy, much to the model. [`DistributedDp::new`] takes a scale at which a bound of that
//! probability is below a limit, and refuses when there is none.

pub mod rotation;
pub mod rounding;
mod wrap;

#[cfg(test)]
mod tests;

use core::str::FromStr;

use rand_core::Rng;
use serde::{Deserialize, Serialize};

pub use rotation::Rotation;

use crate::clip::{Clipped, Clipper as _, FlatClip, changes};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::mechanism::{DiscreteGaussian, IntegerNoise, Skellam};
use crate::relation::NeighboringRelation;
use crate::units::{Epsilon, NoiseMultiplier};

/// The largest noise of a client that one table gives, in integers; and the largest that there is.
const ONE_TABLE: f64 = 1023.0;
const LARGEST_LOCAL: f64 = 8191.0;
/// The rings that there are.
const FEWEST_BITS: u32 = 4;
const MOST_BITS: u32 = 62;

/// The noise that clients add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistributedNoise {
    /// A sum of discrete Gaussians is nearly one; the difference is accounted.
    DiscreteGaussian,
    /// A sum of Skellam noise is Skellam noise.
    Skellam,
}

impl FromStr for DistributedNoise {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        match text {
            "discrete-gaussian" => Ok(Self::DiscreteGaussian),
            "skellam" => Ok(Self::Skellam),
            _ => Err(PrivacyError::UnknownName {
                what: "distributed noise",
                given: text.to_owned(),
                known: "`discrete-gaussian`, `skellam`",
            }),
        }
    }
}

/// What distributed noise is planned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributedConfig {
    /// The length of an update.
    pub dimension: usize,
    /// The clipping norm `c`.
    pub max_norm: f64,
    /// The noise on each coordinate of the sum, of `threshold` clients, as a multiple of `c`.
    pub noise_multiplier: NoiseMultiplier,
    /// Its law.
    pub noise: DistributedNoise,
    /// The bits `b` of the ring of secure aggregation; 4 to 62.
    pub bits: u32,
    /// The most clients of a sum; their updates and their noise must fit into the ring.
    pub clients: u64,
    /// The fewest honest clients of a sum, `t`: the threshold of secure aggregation less those
    /// that may collude. Each client adds one part in `t` of the noise.
    pub threshold: u64,
    /// The bias parameter of conditional rounding, `beta`; 0 rounds without condition.
    #[serde(default = "default_bias")]
    pub rounding_bias: f64,
    /// The largest probability for a coordinate of a sum to wrap.
    #[serde(default = "default_wrap")]
    pub wrap_limit: f64,
}

impl DistributedConfig {
    /// The [rounding bias](Self::rounding_bias) when nothing else is asked for: `exp(-1/2)`, the
    /// papers' choice.
    pub const DEFAULT_ROUNDING_BIAS: f64 = 0.606_530_659_712_633_4;
    /// The [limit](Self::wrap_limit) when nothing else is asked for.
    pub const DEFAULT_WRAP_LIMIT: f64 = 1e-6;
}

fn default_bias() -> f64 {
    DistributedConfig::DEFAULT_ROUNDING_BIAS
}

fn default_wrap() -> f64 {
    DistributedConfig::DEFAULT_WRAP_LIMIT
}

/// Encoding, noise and accounting of distributed differential privacy: one plan that clients and
/// server share.
#[derive(Debug)]
pub struct DistributedDp {
    config: DistributedConfig,
    clip: FlatClip,
    padded: usize,
    scale: f64,
    bound: rounding::NormBound,
    noise: Box<dyn IntegerNoise>,
    wrap: f64,
}

/// What happened to one client's update. Private: not to be reported without noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoded {
    /// What clipping did.
    pub clipped: Clipped,
    /// How often rounding was tried.
    pub attempts: u32,
}

impl DistributedDp {
    /// A plan with the largest scale for which the ring is large enough, up to that from which on
    /// a finer grid gains nothing.
    ///
    /// # Errors
    /// [`PrivacyError`] for values out of range, and
    /// [`PrivacyError::RingTooSmall`] when no useful scale fits: the noise of a client would be
    /// below half an integer.
    pub fn new(config: DistributedConfig) -> Result<Self, PrivacyError> {
        let fit = Fit::new(&config)?;
        let Fit {
            padded,
            local,
            scale,
            ..
        } = fit;
        let clip = FlatClip::new(config.max_norm)?;
        let noise: Box<dyn IntegerNoise> = match config.noise {
            DistributedNoise::DiscreteGaussian => Box::new(DiscreteGaussian::new(scale * local)?),
            DistributedNoise::Skellam => Box::new(Skellam::new(scale * local * (scale * local))?),
        };
        Ok(Self {
            bound: fit.bound(&config),
            wrap: fit.sum.probability(scale),
            config,
            clip,
            padded,
            scale,
            noise,
        })
    }

    /// The fewest bits that leave room for a [scale](Self::scale) at which rounding adds at most
    /// 1 % to the square of the sensitivity. The configuration's own bits are not looked at.
    ///
    /// # Errors
    /// [`PrivacyError`] for other values out of range, and [`PrivacyError::RingTooSmall`] when no
    /// ring is large enough.
    pub fn fewest_bits(config: &DistributedConfig) -> Result<u32, PrivacyError> {
        let with = |bits| DistributedConfig { bits, ..*config };
        let mut last = Err(PrivacyError::RingTooSmall {
            bits: MOST_BITS,
            clients: config.clients,
            noise: 0.0,
        });
        for bits in FEWEST_BITS..=MOST_BITS {
            match Fit::new(&with(bits)) {
                Ok(fit) if fit.is_roomy() => return Ok(bits),
                Ok(_) => {}
                Err(error @ PrivacyError::RingTooSmall { .. }) => last = Err(error),
                Err(error) => return Err(error),
            }
        }
        last
    }

    /// What [`Self::event`] would be of a plan with this configuration, to a part in a million and
    /// never less noise than it: without making the tables of its noise.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Self::event`].
    pub(crate) fn forecast(
        config: &DistributedConfig,
        honest: u64,
        relation: NeighboringRelation,
    ) -> Result<DpEvent, PrivacyError> {
        let fit = Fit::new(config)?;
        let std = fit.scale * fit.local;
        let bound = fit.bound(config);
        event(
            config.noise,
            &bound,
            fit.padded,
            std * std,
            honest,
            relation,
        )
    }

    /// What it was planned from.
    #[must_use]
    pub fn config(&self) -> &DistributedConfig {
        &self.config
    }

    /// The length of the vectors that are added: the dimension, raised to a power of two.
    #[must_use]
    pub fn padded(&self) -> usize {
        self.padded
    }

    /// Bytes of one of these vectors, with its bits packed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.padded as u64 * u64::from(self.config.bits)).div_ceil(8)
    }

    /// The scale `s`: integers per unit of an update.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The noise of one client, in integers.
    #[must_use]
    pub fn noise(&self) -> &dyn IntegerNoise {
        &*self.noise
    }

    /// The L1 and the L2 norm that no client's integers exceed before the noise.
    #[must_use]
    pub fn norms(&self) -> (f64, f64) {
        (self.bound.l1(), self.bound.l2())
    }

    /// An upper bound of the probability that a given coordinate of a sum of at most
    /// [`clients`](DistributedConfig::clients) wraps.
    #[must_use]
    pub fn wrap_probability(&self) -> f64 {
        self.wrap
    }

    /// What the accountant is told of a round in which `honest` clients contributed that keep
    /// their noise to themselves: survivors less colluders.
    ///
    /// Skellam noise is its own event. Discrete Gaussian noise is concentrated differential
    /// privacy (Kairouz et al. 2021, proposition 14): Rényi divergences of order `alpha` are at
    /// most `min(alpha / 2 r^2 + tau d, alpha / 2 (r^2 + 2 r_1 tau + tau^2 d),
    /// alpha / 2 (r + tau sqrt(d))^2)`, where `r` and `r_1` are the L2 and the L1 sensitivity over
    /// the standard deviation of the sum, and `tau` accounts for a sum of discrete Gaussians not
    /// being one. The event is that of the term that is the smallest at order 10.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] without honest clients, and
    /// [`PrivacyError::PrivateAggregation`] for the relation of adding or removing one.
    pub fn event(
        &self,
        honest: u64,
        relation: NeighboringRelation,
    ) -> Result<DpEvent, PrivacyError> {
        let Self { config, bound, .. } = self;
        let variance = self.noise.variance();
        event(config.noise, bound, self.padded, variance, honest, relation)
    }

    /// The standard deviation of the noise of one client, on each value of its update.
    #[must_use]
    pub fn local_std(&self) -> f64 {
        libm::sqrt(self.noise.variance()) / self.scale
    }

    /// The largest share of the error of a decoded value, as a variance, that is of rounding; the
    /// rest is of noise. (Rounding a number at random to one of its neighbours has a variance of at
    /// most 1/4.)
    #[must_use]
    pub fn rounding_share(&self) -> f64 {
        0.25 / (self.noise.variance() + 0.25)
    }

    /// What the tables' distance to the exact laws adds to delta over so many rounds of `honest`
    /// contributors.
    #[must_use]
    pub fn delta_for(&self, epsilon: Epsilon, honest: u64, rounds: u64) -> f64 {
        let draws = (self.padded as u64)
            .saturating_mul(honest)
            .saturating_mul(rounds);
        self.noise.delta_for(epsilon, draws)
    }

    /// A client's vector in `Z_2^b`, of length [`Self::padded`], written to `out`.
    ///
    /// `rounding` and `noise` are the client's own generators (in a simulation, streams of
    /// [`UpdateCodec`](fl_core::Purpose::UpdateCodec) and
    /// [`LocalNoise`](fl_core::Purpose::LocalNoise)).
    ///
    /// # Errors
    /// [`PrivacyError::WrongLength`] for an update or a rotation of another length.
    pub fn encode(
        &self,
        update: &mut [f32],
        rotation: &Rotation,
        rounding: &mut dyn Rng,
        noise: &mut dyn Rng,
        out: &mut Vec<u64>,
    ) -> Result<Encoded, PrivacyError> {
        self.check_lengths(update.len(), self.config.dimension, rotation)?;
        let clipped = self.clip.clip(update);
        let mut values = vec![0.0f64; self.padded];
        for (value, update) in values.iter_mut().zip(update) {
            *value = f64::from(*update) * self.scale;
        }
        rotation.forward(&mut values);
        let mut integers = vec![0i64; self.padded];
        let attempts = self.bound.round(&values, rounding, &mut integers);
        self.noise.add(noise, &mut integers);
        out.clear();
        out.extend(
            integers
                .iter()
                .map(|&integer| self.reduce(integer.cast_unsigned())),
        );
        Ok(Encoded { clipped, attempts })
    }

    /// Adds a client's vector to a sum, in the ring. Lengths that differ are an error of the
    /// caller's protocol.
    ///
    /// # Errors
    /// [`PrivacyError::WrongLength`] unless both have the [padded](Self::padded) length.
    pub fn add(&self, sum: &mut [u64], vector: &[u64]) -> Result<(), PrivacyError> {
        for len in [sum.len(), vector.len()] {
            wrong_length("a vector of the ring", len, self.padded)?;
        }
        for (sum, value) in sum.iter_mut().zip(vector) {
            *sum = self.reduce(sum.wrapping_add(*value));
        }
        Ok(())
    }

    /// The sum of the clients' updates with its noise, from the sum in the ring.
    ///
    /// # Errors
    /// [`PrivacyError::WrongLength`] for a sum or a rotation of another length.
    pub fn decode(&self, sum: &[u64], rotation: &Rotation) -> Result<Vec<f64>, PrivacyError> {
        self.check_lengths(sum.len(), self.padded, rotation)?;
        let unused = 64 - self.config.bits;
        let mut values: Vec<f64> = sum
            .iter()
            .map(|&element| ((element << unused).cast_signed() >> unused) as f64 / self.scale)
            .collect();
        rotation.inverse(&mut values);
        values.truncate(self.config.dimension);
        Ok(values)
    }

    fn reduce(&self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.config.bits))
    }

    fn check_lengths(
        &self,
        len: usize,
        expected: usize,
        rotation: &Rotation,
    ) -> Result<(), PrivacyError> {
        wrong_length("an update", len, expected)?;
        wrong_length("a rotation", rotation.len(), self.padded)
    }
}

/// A configuration in its ring: the scale that it leaves, before any table of noise is made.
struct Fit {
    padded: usize,
    /// The standard deviation of a client's noise, in units of the update.
    local: f64,
    sum: wrap::Sum,
    scale: f64,
    /// The scale from which on rounding costs at most 1 %, or as fine as tables allow.
    fine: f64,
}

impl Fit {
    fn new(config: &DistributedConfig) -> Result<Self, PrivacyError> {
        check(config)?;
        let padded = config.dimension.next_power_of_two();
        let local = local_std(config);
        let sum = wrap::Sum {
            clients: config.clients as f64,
            signal: config.clients as f64 * config.max_norm / libm::sqrt(padded as f64),
            local,
            noise: config.noise,
            bias: config.rounding_bias,
            half: (1u64 << (config.bits - 1)) as f64,
        };
        // Beyond these a finer grid gains nothing: the noise of a client comes from one table, and
        // rounding adds at most 1 % to the square of the sensitivity (d / 4 to (s c)^2).
        let fine = 5.0 * libm::sqrt(padded as f64) / config.max_norm;
        let enough = fine.max(ONE_TABLE / local).min(LARGEST_LOCAL / local);
        let scale = sum.largest_scale(config.wrap_limit).min(enough);
        // The discrete Gaussian's analysis needs sigma >= 1/2 (Kairouz et al. 2021, theorem 9),
        // and below that Skellam noise is no use either.
        if scale * local < 0.5 {
            return Err(PrivacyError::RingTooSmall {
                bits: config.bits,
                clients: config.clients,
                noise: scale * local,
            });
        }
        Ok(Self {
            padded,
            local,
            sum,
            scale,
            fine: fine.min(enough),
        })
    }

    fn bound(&self, config: &DistributedConfig) -> rounding::NormBound {
        let norm = self.scale * config.max_norm;
        rounding::NormBound::new(norm, config.rounding_bias, self.padded)
    }

    fn is_roomy(&self) -> bool {
        self.scale >= self.fine
    }
}

/// What the accountant is told of `honest` clients' integers within `bound`, each with noise of
/// this variance on every coordinate.
fn event(
    noise: DistributedNoise,
    bound: &rounding::NormBound,
    padded: usize,
    variance: f64,
    honest: u64,
    relation: NeighboringRelation,
) -> Result<DpEvent, PrivacyError> {
    PrivacyError::unless_count(
        honest > 0,
        "the number of honest contributors",
        honest,
        "at least 1; without any there is no noise that counts",
    )?;
    if relation == NeighboringRelation::AddOrRemoveOne {
        return Err(PrivacyError::PrivateAggregation {
            what: "adding or removing a client that brings its own noise",
            reason: "its noise would come and go with it",
            instead: "use the relation `replace-special` or `replace-one`",
        });
    }
    let factor = changes(relation);
    let (l1, l2) = (factor * bound.l1(), factor * bound.l2());
    // Rounded downwards: less noise is less privacy.
    let local = variance * (1.0 - 4.0 * f64::EPSILON);
    let variance = local * honest as f64;
    match noise {
        DistributedNoise::Skellam => DpEvent::skellam(variance, l1, l2),
        DistributedNoise::DiscreteGaussian => {
            let tau = sum_inflation(local, honest);
            let (rho, xi) = concentrated(l1, l2, variance, tau, padded as f64);
            DpEvent::zcdp(rho, xi)
        }
    }
}

/// The standard deviation of a client's noise, in units of the update.
fn local_std(config: &DistributedConfig) -> f64 {
    config.noise_multiplier.get() * config.max_norm / libm::sqrt(config.threshold as f64)
}

/// `tau = 10 sum_(k=1)^(n-1) exp(-2 pi^2 sigma^2 k / (k + 1))` of the discrete Gaussians of `n`
/// clients with `sigma^2 = square` (Kairouz et al. 2021, theorem 1), rounded upwards.
fn sum_inflation(square: f64, clients: u64) -> f64 {
    use core::f64::consts::PI;
    let term = |k: f64| libm::exp(-2.0 * PI * PI * square * k / (k + 1.0));
    let terms = clients.saturating_sub(1);
    // Terms fall, so those beyond the first are at most the last that is added up by itself.
    let alone = terms.min(10_000);
    let sum: f64 = (1..=alone).map(|k| term(k as f64)).sum();
    let rest = (terms - alone) as f64 * term(alone.max(1) as f64);
    10.0 * (sum + rest) * (1.0 + 1e-12)
}

/// `(rho, xi)` of the smallest term of proposition 14 at order 10, rounded upwards.
fn concentrated(l1: f64, l2: f64, variance: f64, tau: f64, dimension: f64) -> (f64, f64) {
    const ORDER: f64 = 10.0;
    let std = libm::sqrt(variance) * (1.0 - f64::EPSILON);
    let (r1, r2) = (l1 / std, l2 / std);
    let joint = r2 + tau * libm::sqrt(dimension);
    let terms = [
        (r2 * r2 / 2.0, tau * dimension),
        (
            (r2 * r2 + 2.0 * r1 * tau + tau * tau * dimension) / 2.0,
            0.0,
        ),
        (joint * joint / 2.0, 0.0),
    ];
    let at = |(rho, xi): (f64, f64)| ORDER * rho + xi;
    let least = terms
        .into_iter()
        .reduce(|least, term| if at(term) < at(least) { term } else { least });
    let (rho, xi) = least.unwrap_or(terms[0]);
    (rho * (1.0 + 1e-14), xi * (1.0 + 1e-14))
}

fn check(config: &DistributedConfig) -> Result<(), PrivacyError> {
    let counts = [
        (
            config.dimension > 0 && config.dimension <= 1 << 40,
            "the dimension",
            config.dimension as u64,
            "1 to 2^40",
        ),
        (
            (FEWEST_BITS..=MOST_BITS).contains(&config.bits),
            "the number of bits of the ring",
            u64::from(config.bits),
            "4 to 62",
        ),
        (
            (1..=1 << 40).contains(&config.clients),
            "the number of clients of a sum",
            config.clients,
            "1 to 2^40",
        ),
        (
            (1..=config.clients).contains(&config.threshold),
            "the threshold of honest clients",
            config.threshold,
            "at least 1 and at most the clients of a sum",
        ),
    ];
    for (fits, what, value, expected) in counts {
        PrivacyError::unless_count(fits, what, value, expected)?;
    }
    let multiplier = config.noise_multiplier.get();
    let numbers = [
        (
            (1e-6..=1e6).contains(&multiplier),
            "the noise multiplier of distributed noise",
            multiplier,
            "a number from 1e-6 to 1e6",
        ),
        (
            (0.0..1.0).contains(&config.rounding_bias),
            "the bias of conditional rounding",
            config.rounding_bias,
            "a number from 0 to below 1",
        ),
        (
            config.wrap_limit > 0.0 && config.wrap_limit <= 1e-3,
            "the limit of the wrap probability",
            config.wrap_limit,
            "a number above 0 and at most 1e-3; more wraps ruin the sum",
        ),
    ];
    for (fits, what, value, expected) in numbers {
        PrivacyError::unless(fits, what, value, expected)?;
    }
    Ok(())
}

fn wrong_length(what: &'static str, len: usize, expected: usize) -> Result<(), PrivacyError> {
    if len == expected {
        Ok(())
    } else {
        Err(PrivacyError::WrongLength {
            what,
            len,
            expected,
        })
    }
}
