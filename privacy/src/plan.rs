//! The [`DpPlan`]: the only thing that may add noise to an aggregate.
//!
//! Sampler, clipper, mechanism, neighbouring relation, unit, weights, denominator, schedule, budget
//! and ledger are one value, so they cannot disagree: the sampler that draws the cohort emits the
//! event, the clipper that bounds an update gives the sensitivity, and the ledger is written before
//! the noise is drawn.
//!
//! # A round
//! 1. The cohort is drawn as [`DpPlanConfig::sampler`] says; each client's update goes through
//!    [`DpPlan::clipper`] and into a ring sum whose rounding the sensitivity includes.
//! 2. [`DpPlan::authorise`] writes the event into the ledger, or refuses. What it gives, a
//!    [`Permit`], exists in no other way.
//! 3. [`DpPlan::release`] consumes the permit, adds the noise, divides by the public denominator and
//!    lets an adaptive clipping norm move on.
//!
//! An empty cohort is a sum of zeros, and an update that is not finite becomes zero in the clipper:
//! neither changes what is done. Privacy holds for the schedule that was declared, so a plan plays
//! its rounds once, in order, and a saved plan is only taken up together with its ledger.
//!
//! # Noise over the rounds
//! With [`DpPlanConfig::correlation`] the noise of a round takes back part of what earlier rounds
//! drew, which is DP-FTRL: clients then have to be kept apart rather than drawn in secret. A round's
//! event is what it adds to the sensitivity of the run so far.
//!
//! Which of its parts are public: everything in [`DpPlanConfig`], the clipping norm of a round and
//! the released means. Everything else about a round (who took part, norms, losses, accuracies on
//! training data) is not covered by the guarantee; [`PrivacyStatement::excluded`] says so.

use fl_core::{Layout, RingPlan};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

mod client;
mod config;
#[cfg(test)]
mod correlated;
mod correlation;
mod example;
mod schedule;
mod statement;
#[cfg(test)]
mod tests;

pub use client::{ClientNoise, ClientPermit, ClientPlan, ClientPlanConfig, RingNoise};
pub use config::{Clipping, DpPlanConfig, Extrapolation, natural_relation};
pub use correlation::{Correlation, NoiseCorrelation};
pub use example::{ExamplePermit, ExamplePlan, ExamplePlanConfig, ExampleSchedule};
pub use statement::{
    ClientSide, LocalSteps, Observer, PrivacyStatement, RingFacts, Spent, TrustModel,
};

use self::schedule::Schedule;
use crate::accountant::{Accountant, AccountantKind, Bounds};
use crate::budget::{PrivacyBudget, PrivacyFilter};
use crate::clip::{
    AdaptiveClip, AdaptiveClipConfig, AutomaticClip, Clipped, Clipper, Denominator, DpWeighting,
    FlatClip, MeanPlan, PerLayerClip, changes,
};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::matrix::CorrelatedNoise;
use crate::mechanism::Gaussian;
use crate::relation::PrivacyUnit;
use crate::sampling::Sampler;
use crate::units::{Epsilon, NoiseMultiplier};

#[derive(Debug)]
enum Clip {
    Fixed(Box<dyn Clipper>),
    Adaptive { state: AdaptiveClip, now: FlatClip },
}

/// Leave to add the noise of one round; made by [`DpPlan::authorise`] once the round is in the
/// ledger, used up by [`DpPlan::release`].
#[derive(Debug)]
#[must_use = "the round is in the ledger; release its sum"]
pub struct Permit {
    round: u64,
    noise: Gaussian,
}

impl Permit {
    /// The round.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The standard deviation of the noise on each value of the sum.
    #[must_use]
    pub fn std(&self) -> f64 {
        self.noise.std()
    }
}

/// A private aggregation; see the [module](self).
///
/// ```
/// use fl_core::{ClientId, Layout, Purpose, RingPlan, RoundId, Seed, Stream, Weight, WeightBounds};
/// use fl_privacy::plan::{ClipCount, DpPlan, DpPlanConfig};
/// use fl_privacy::{Delta, Epsilon, Sampler};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layout = Layout::new([("weight".to_owned(), vec![4])])?;
/// let ring = RingPlan::for_weights(WeightBounds::new(Weight(1), 1000))?;
/// let config = DpPlanConfig {
///     epsilon: Some(Epsilon::new(2.0)?),
///     ..DpPlanConfig::new(Sampler::poisson(1000, 0.05)?, 1.0, Delta::new(1e-5)?, 30)
/// };
/// let mut plan = DpPlan::new(config, &layout, &ring)?;
/// let permit = plan.authorise(0)?;
/// let stream = |purpose| Stream::at(purpose, Seed(1), RoundId(0), ClientId(0));
/// let (mut noise, mut bits) = (stream(Purpose::CentralNoise), stream(Purpose::ClipNoise));
/// let mut mean = vec![0.0; 4]; // the sum of an empty cohort
/// plan.release(permit, &mut noise, &mut bits, ClipCount::default(), &mut mean);
/// assert!(plan.spent()?.epsilon.upper.get() < 2.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DpPlan {
    config: DpPlanConfig,
    accounted: Sampler,
    mean: MeanPlan,
    clip: Clip,
    /// Of updates and clipping bits together.
    noise_multiplier: NoiseMultiplier,
    schedule: Schedule,
    /// The noise that is correlated, with what it remembers of earlier rounds.
    source: Option<CorrelatedNoise>,
    ring: RingPlan,
    dimension: usize,
    /// The noise that is simulated over that of the deployment that is accounted; at most 1.
    noise_scale: f64,
    filter: PrivacyFilter,
}

/// How many updates were within the clipping norm: the sum of [`AdaptiveClip::bit`]s. It is
/// private, and of use to [`DpPlan::release`] alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClipCount {
    half_bits: i64,
}

impl ClipCount {
    /// Counts an update.
    pub fn count(&mut self, clipped: &Clipped) {
        self.half_bits += AdaptiveClip::bit(clipped);
    }

    /// Those within the norm less the others; private.
    #[must_use]
    pub fn half_bits(&self) -> i64 {
        self.half_bits
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: Self) {
        self.half_bits += other.half_bits;
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config: DpPlanConfig,
    filter: PrivacyFilter,
    adaptive: Option<AdaptiveClip>,
}

impl DpPlan {
    /// A plan before its first round, for updates of `layout` that are summed in `ring`.
    ///
    /// # Errors
    /// [`PrivacyError`]: a value out of its range, a `delta` of one over the population or more,
    /// weights or a denominator without a bounded public sensitivity, a sampler without a guarantee
    /// under the relation, neither noise nor `epsilon`, an `epsilon` that no noise reaches, or a
    /// budget that does not allow even the first round.
    pub fn new(
        config: DpPlanConfig,
        layout: &Layout,
        ring: &RingPlan,
    ) -> Result<Self, PrivacyError> {
        let accounted = config.accounted()?;
        let expected = config.sampler.expected_size();
        PrivacyError::unless_count(
            config.rounds > 0,
            "the number of declared rounds",
            config.rounds,
            "at least 1",
        )?;
        if config.unit == PrivacyUnit::Example {
            return Err(PrivacyError::PrivateAggregation {
                what: "protecting single examples by clipping clients' updates",
                reason: "an update is bounded as a whole, whichever examples made it",
                instead: "protect clients, or clip per example during training",
            });
        }
        if config.weighting == DpWeighting::Uniform && config.mean_weight.total_cmp(&1.0).is_ne() {
            return Err(PrivacyError::OutOfRange {
                what: "the mean weight of uniformly weighted clients",
                value: config.mean_weight,
                expected: "1",
            });
        }
        let mean = MeanPlan::new(
            config.weighting,
            Denominator::Public(expected * config.mean_weight),
        )?;
        // What is wrong with the clipping is said before anything is calibrated.
        clip(&config, layout, expected, NoiseMultiplier::new(0.0)?)?;
        let budget = PrivacyBudget::new(
            config.epsilon.unwrap_or(Epsilon::INFINITY),
            config.delta,
            config.relation,
            config.unit,
            accounted.population(),
        )?;
        let correlation = config.correlation.fitted(&accounted, config.rounds)?;
        let schedule = Schedule::new(&config, &accounted, correlation)?;
        let noise_multiplier = match (config.noise_multiplier, config.epsilon) {
            (Some(noise), _) => noise,
            (None, Some(epsilon)) => schedule.calibrate(epsilon)?,
            (None, None) => return Err(PrivacyError::NoTarget),
        };
        let clip = clip(&config, layout, expected, noise_multiplier)?;
        if let Clip::Adaptive { state, .. } = &clip {
            state.update_noise(noise_multiplier)?;
        }
        let filter = PrivacyFilter::declared(
            budget,
            config.accountant,
            schedule.ledger(noise_multiplier)?,
        )?;
        let mut plan = Self {
            noise_scale: expected / accounted.expected_size(),
            accounted,
            mean,
            clip,
            noise_multiplier,
            schedule,
            source: None,
            ring: *ring,
            dimension: layout.len(),
            filter,
            config,
        };
        // A plan whose first round is refused can do nothing.
        plan.filter.clone().admit(&plan.event(0)?)?;
        let std = plan.noise()?.std();
        if let Some(correlation) = plan.schedule.correlation() {
            let factorization = correlation.factorization.clone();
            plan.source = Some(CorrelatedNoise::new(factorization, std, plan.dimension)?);
        }
        Ok(plan)
    }

    /// Takes up what [`Self::save`] wrote after `round` rounds. Noise that is correlated is not
    /// saved: [`Self::redraw`] brings it to where it was.
    ///
    /// # Errors
    /// As [`Self::new`]; [`PrivacyError::Malformed`] for what is no saved plan, its ledger included;
    /// [`PrivacyError::OtherPlan`] when it is of another plan, or its ledger of other rounds.
    pub fn resume(
        config: DpPlanConfig,
        layout: &Layout,
        ring: &RingPlan,
        round: u64,
        text: &str,
    ) -> Result<Self, PrivacyError> {
        let mut plan = Self::new(config, layout, ring)?;
        let saved: Saved = serde_json::from_str(text).map_err(|error| PrivacyError::Malformed {
            what: "privacy plan",
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        })?;
        let own = |same: bool, what| match same {
            true => Ok(()),
            false => Err(PrivacyError::OtherPlan { what }),
        };
        own(saved.config == plan.config, "configuration")?;
        own(saved.filter.budget() == plan.filter.budget(), "budget")?;
        own(saved.filter.rule() == plan.filter.rule(), "schedule")?;
        own(saved.filter.admitted() == round, "number of rounds")?;
        match (&mut plan.clip, saved.adaptive) {
            (Clip::Adaptive { state, now }, Some(found)) => {
                *now = found.clipper();
                *state = found;
            }
            (Clip::Fixed(_), None) => {}
            _ => return Err(PrivacyError::OtherPlan { what: "clipper" }),
        }
        plan.filter = saved.filter;
        Ok(plan)
    }

    /// Draws the noise of the rounds in the ledger again, so that the next round's is correlated
    /// with it: after [`Self::resume`], with the same generators that the rounds were released
    /// with. As much work as the noise of those rounds was; nothing to do where rounds are
    /// independent.
    pub fn redraw<R: Rng>(&mut self, noise: impl Fn(u64) -> R) {
        let Some(source) = &mut self.source else {
            return;
        };
        let mut forgotten = vec![0.0; self.dimension];
        while source.step() < self.filter.admitted() {
            source.advance(&mut noise(source.step()), &mut forgotten);
        }
    }

    /// The state between two rounds, its ledger included, as JSON for [`Self::resume`].
    #[must_use]
    pub fn save(&self) -> String {
        let saved = Saved {
            config: self.config.clone(),
            filter: self.filter.clone(),
            adaptive: match &self.clip {
                Clip::Adaptive { state, .. } => Some(*state),
                Clip::Fixed(_) => None,
            },
        };
        serde_json::to_string(&saved)
            .expect("a plan holds only numbers and texts, which JSON can write")
    }

    /// What was decided.
    #[must_use]
    pub fn config(&self) -> &DpPlanConfig {
        &self.config
    }

    /// The clipper of the round at hand; the same for every client.
    #[must_use]
    pub fn clipper(&self) -> &dyn Clipper {
        match &self.clip {
            Clip::Fixed(clipper) => clipper.as_ref(),
            Clip::Adaptive { now, .. } => now,
        }
    }

    /// Weights and public denominator.
    #[must_use]
    pub fn mean(&self) -> &MeanPlan {
        &self.mean
    }

    /// The noise multiplier of updates and clipping bits together: what the accountant is told.
    #[must_use]
    pub fn noise_multiplier(&self) -> NoiseMultiplier {
        self.noise_multiplier
    }

    /// What was released so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.filter.ledger()
    }

    /// Rounds in the ledger.
    #[must_use]
    pub fn rounds_done(&self) -> u64 {
        self.filter.admitted()
    }

    /// Rounds that the budget allows in all; at most the declared ones.
    #[must_use]
    pub fn last_round(&self) -> u64 {
        self.filter.admitted() + self.filter.affordable().unwrap_or(0)
    }

    /// Why there is no round after the last: the refusal that [`Self::authorise`] would give, or
    /// nothing when every declared round is allowed.
    #[must_use]
    pub fn refusal(&self) -> Option<PrivacyError> {
        let last = self.last_round();
        if last >= self.config.rounds {
            return None;
        }
        let mut filter = self.filter.clone();
        for round in filter.admitted()..=last {
            let admitted = self.event(round).and_then(|event| filter.admit(&event));
            if let Err(error) = admitted {
                return Some(error);
            }
        }
        None
    }

    /// The L2 sensitivity of the decoded sum of a round, for the clipping norm of that round.
    ///
    /// It includes what the ring does: each contribution that differs between neighbours is off by
    /// at most half a unit per value ([`MeanPlan::ring_sensitivity`]; cutting values to the ring's
    /// range only shortens updates), and decoding rounds sums beyond `2^53` units to an `f64`.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] for a ring of smaller weights.
    pub fn sensitivity(&self) -> Result<f64, PrivacyError> {
        let integers = self.mean.ring_sensitivity(
            self.clipper(),
            self.config.relation,
            &self.ring,
            self.dimension,
        )?;
        let largest = self.ring.largest(self.ring.weights().total);
        // Two sums, each rounded by at most half of the last of 53 bits.
        let decoding = if largest > 1 << 53 {
            largest as f64 * f64::EPSILON * libm::sqrt(self.dimension as f64)
        } else {
            0.0
        };
        Ok((integers + decoding) * self.ring.resolution() * (1.0 + 4.0 * f64::EPSILON))
    }

    /// The standard deviation of the noise that is drawn for the round at hand, on each value of
    /// its sum. Of correlated noise, part of what earlier rounds drew is taken back besides.
    ///
    /// # Errors
    /// As [`Self::sensitivity`].
    pub fn noise_std(&self) -> Result<f64, PrivacyError> {
        Ok(self.noise()?.std())
    }

    /// The standard deviation of the noise on each value of the sum of the first `rounds` released
    /// means: what a model has of it that moves by each mean once. An adaptive clipping norm is
    /// taken to stay as it is.
    ///
    /// # Errors
    /// As [`Self::sensitivity`].
    pub fn noise_on_model(&self, rounds: u64) -> Result<f64, PrivacyError> {
        let drawn = self.noise()?.std() / self.mean.denominator();
        let times = match self.schedule.correlation() {
            None => libm::sqrt(rounds as f64),
            Some(correlation) => {
                let errors = correlation.factorization.errors(rounds);
                errors.last().copied().unwrap_or(0.0)
            }
        };
        Ok(drawn * times)
    }

    fn noise(&self) -> Result<Gaussian, PrivacyError> {
        let multiplier = match &self.clip {
            Clip::Fixed(_) => self.noise_multiplier,
            Clip::Adaptive { state, .. } => state.update_noise(self.noise_multiplier)?,
        };
        Gaussian::new(multiplier, self.sensitivity()? * self.noise_scale)
    }

    fn event(&self, round: u64) -> Result<DpEvent, PrivacyError> {
        self.schedule.event(round, self.noise_multiplier)
    }

    /// Writes round `round`, from 0, into the ledger. Only its permit lets noise be added.
    ///
    /// # Errors
    /// [`PrivacyError::OverBudget`] or [`PrivacyError::OffSchedule`] when the round is not allowed,
    /// [`PrivacyError::WrongRound`] when it is not the next, [`PrivacyError::NoiseBehind`] after
    /// [`Self::resume`] without [`Self::redraw`]. After an error nothing has changed.
    pub fn authorise(&mut self, round: u64) -> Result<Permit, PrivacyError> {
        let next = self.filter.admitted();
        if round != next {
            return Err(PrivacyError::WrongRound { given: round, next });
        }
        if let Some(source) = self.source.as_ref().filter(|source| source.step() != round) {
            let drawn = source.step();
            return Err(PrivacyError::NoiseBehind { round, drawn });
        }
        let noise = self.noise()?;
        self.filter.admit(&self.event(round)?)?;
        Ok(Permit { round, noise })
    }

    /// Adds the round's noise to the decoded sum, divides by the public denominator and moves an
    /// adaptive clipping norm on. `sum` leaves as what may be published.
    ///
    /// In a simulation `noise` and `bits` are the streams of
    /// [`Purpose::CentralNoise`](fl_core::Purpose::CentralNoise) and
    /// [`Purpose::ClipNoise`](fl_core::Purpose::ClipNoise) of the round.
    pub fn release<R: Rng + ?Sized>(
        &mut self,
        permit: Permit,
        noise: &mut R,
        bits: &mut R,
        clips: ClipCount,
        sum: &mut [f64],
    ) {
        match &mut self.source {
            None => permit.noise.add_f64(noise, sum),
            Some(source) => {
                let mut correlated = vec![0.0; self.dimension];
                source.advance(noise, &mut correlated);
                for (value, noise) in sum.iter_mut().zip(correlated) {
                    *value += f64::from(noise);
                }
            }
        }
        let denominator = self.mean.denominator();
        for value in sum {
            *value /= denominator;
        }
        if let Clip::Adaptive { state, now } = &mut self.clip {
            state.step(bits, clips.half_bits, self.config.relation);
            *now = state.clipper();
        }
    }

    /// What was spent so far.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn spent(&self) -> Result<Spent, PrivacyError> {
        self.spent_after(self.filter.admitted())
    }

    /// What is spent after so many of the declared rounds.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn spent_after(&self, rounds: u64) -> Result<Spent, PrivacyError> {
        if rounds > 0 && self.noise_multiplier.get() <= 0.0 {
            // Nothing is to be computed.
            let epsilon = Bounds {
                upper: Epsilon::INFINITY,
                lower: Epsilon::ZERO,
            };
            return Ok(Spent {
                epsilon,
                unamplified: Epsilon::INFINITY,
            });
        }
        self.schedule.spent(rounds, self.noise_multiplier)
    }

    /// What so many of the declared rounds would spend with `scale` times their noise, by the
    /// default accountant: for audits, which ask how much noise fits to what they saw.
    ///
    /// # Errors
    /// [`PrivacyError`] for a scale that is not finite and above 0, and those of the accountant.
    pub fn rescaled(&self, scale: f64, rounds: u64) -> Result<Box<dyn Accountant>, PrivacyError> {
        let noise = NoiseMultiplier::new(self.noise_multiplier.get() * scale)?;
        self.schedule.released(AccountantKind::Pld, rounds, noise)
    }

    /// The standard deviation of the noise on half the sum of an adaptive clipping norm's bits,
    /// whose sensitivity is half of what [`changes`] says; none for a fixed norm.
    #[must_use]
    pub fn count_noise_std(&self) -> Option<f64> {
        match &self.clip {
            Clip::Adaptive { state, .. } => {
                Some(state.count_noise() * changes(self.config.relation))
            }
            Clip::Fixed(_) => None,
        }
    }

    /// The guarantee after so many of the declared rounds, in words and numbers.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn statement(&self, rounds: u64) -> Result<PrivacyStatement, PrivacyError> {
        let config = &self.config;
        let spent = self.spent_after(rounds)?;
        Ok(PrivacyStatement {
            unit: config.unit,
            relation: config.relation,
            sampling: self.accounted.clone(),
            trust: TrustModel::Central,
            rounds,
            correlation: self.schedule.correlation().cloned(),
            noise_multiplier: self.noise_multiplier,
            epsilon: spent.epsilon,
            unamplified: spent.unamplified,
            delta: config.delta,
            delta_is_lax: self.filter.budget().delta_is_lax(),
            budget: config.epsilon,
            accountant: config.accountant,
            extrapolation: config.extrapolation,
            simulated: config.sampler.clone(),
            clients: None,
            steps: None,
        })
    }
}

/// The clipping of a plan with this noise multiplier.
fn clip(
    config: &DpPlanConfig,
    layout: &Layout,
    expected: f64,
    noise: NoiseMultiplier,
) -> Result<Clip, PrivacyError> {
    Ok(match config.clipping {
        Clipping::Flat { max_norm } => Clip::Fixed(Box::new(FlatClip::new(max_norm)?)),
        Clipping::PerLayer { max_norm } => {
            Clip::Fixed(Box::new(PerLayerClip::uniform(layout, max_norm)?))
        }
        Clipping::Automatic {
            max_norm,
            stability,
        } => Clip::Fixed(Box::new(AutomaticClip::new(max_norm, stability)?)),
        Clipping::Adaptive {
            initial_norm,
            quantile,
            learning_rate,
            count_noise,
        } => {
            if config.correlation != NoiseCorrelation::Independent {
                return Err(PrivacyError::PrivateAggregation {
                    what: "an adaptive clipping norm with correlated noise",
                    reason: "noise that is taken back later must have been of the same norm",
                    instead: "clip to a fixed norm",
                });
            }
            if config.extrapolation.is_some() {
                return Err(PrivacyError::PrivateAggregation {
                    what: "an adaptive clipping norm in an extrapolated population",
                    reason: "its noise is that of the clients that are simulated",
                    instead: "clip to a fixed norm",
                });
            }
            let state = AdaptiveClip::new(AdaptiveClipConfig {
                initial_norm,
                quantile,
                learning_rate,
                expected_clients: expected,
                count_noise: count_noise
                    .unwrap_or_else(|| AdaptiveClipConfig::default_count_noise(expected, noise)),
            })?;
            Clip::Adaptive {
                now: state.clipper(),
                state,
            }
        }
    })
}
