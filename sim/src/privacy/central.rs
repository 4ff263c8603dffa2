//! Central differential privacy for clients: what a run asks for, and how a round is released.
//!
//! A client's update is clipped before it is encoded, the sum is the exact one of the ring, and the
//! server's noise and public denominator are those of one [`DpPlan`], which keeps the ledger. The
//! strategy sees what was released and nothing else. Who is selected is drawn by `fl-core`'s
//! selectors, whose laws are those of [`Sampler`]; a selector without one is refused.
//!
//! In a simulation noise is drawn from streams addressed by the seed, so a run can be repeated to
//! the bit. That is for experiments: whoever knows the seed knows the noise.

use fl_core::select::SelectorConfig;
use fl_core::strategy::{AnyStrategy, Strategy as _, Weighting};
use fl_core::{
    Aggregate, ClientId, ExampleCount, Layout, Purpose, RingPlan, RoundId, Seed, Stream, Weight,
};
use fl_privacy::clip::DpWeighting;
use fl_privacy::plan::{
    ClipCount, Clipping, Extrapolation, NoiseCorrelation, Observer, natural_relation,
};
use fl_privacy::{
    AccountantKind, Delta, DpPlan, DpPlanConfig, Epsilon, NeighboringRelation, NoiseMultiplier,
    PrivacyError, PrivacyUnit, Sampler,
};
use serde::{Deserialize, Serialize};

use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::executor::Report;
use crate::population::{Engine, Population};
use crate::simulation::Simulation;

use super::{PrivacyPlan, PrivacyRecord};

/// Central differential privacy of clients. How the cohort is drawn is the selection's matter, and
/// the denominator is its expected size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentralPrivacy {
    /// How updates are bounded.
    pub clipping: Clipping,
    /// How the noise of different rounds is related; other than independent, it needs cyclic or
    /// separated selection.
    #[serde(default)]
    pub correlation: NoiseCorrelation,
    /// Noise over sensitivity; when not given, the least that keeps `epsilon` over all rounds.
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Most that may be spent: the run ends with the last round that it allows.
    pub epsilon: Option<Epsilon>,
    /// The `delta` of all statements; below one over the number of clients.
    pub delta: Delta,
    /// Who counts.
    pub accountant: AccountantKind,
    /// Which data sets must be hard to tell apart; that which fits the selection when not given.
    pub relation: Option<NeighboringRelation>,
    /// A larger deployment than the simulated one, whose guarantee is stated.
    pub extrapolation: Option<Extrapolation>,
}

impl CentralPrivacy {
    /// Clipping to one norm and `epsilon` at `delta`, by the default accountant.
    #[must_use]
    pub fn new(max_norm: f64, epsilon: Epsilon, delta: Delta) -> Self {
        Self {
            clipping: Clipping::Flat { max_norm },
            correlation: NoiseCorrelation::Independent,
            noise_multiplier: None,
            epsilon: Some(epsilon),
            delta,
            accountant: AccountantKind::Pld,
            relation: None,
            extrapolation: None,
        }
    }
}

/// What the clipper did in a round; private.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClipTally {
    count: ClipCount,
    pub(super) clipped: u64,
    pub(super) zeroed: u64,
    examples: u64,
}

impl ClipTally {
    /// Updates within the norm less the others.
    pub(crate) fn half_bits(&self) -> i64 {
        self.count.half_bits()
    }

    pub(crate) fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        use fl_privacy::clip::ClipOutcome::{Scaled, Within, Zeroed};
        let mut tally = Self::default();
        for report in reports {
            tally.examples += report.result.examples_clipped;
            let Some(clipped) = &report.clipped else {
                continue;
            };
            tally.count.count(clipped);
            match clipped.outcome {
                Within => {}
                Scaled => tally.clipped += 1,
                Zeroed => tally.zeroed += 1,
            }
        }
        tally
    }

    /// Gradients of single examples that were clipped.
    pub(super) fn examples(&self) -> u64 {
        self.examples
    }
}

/// The plan of a run.
pub(super) fn plan(
    config: &SimulationConfig,
    privacy: &CentralPrivacy,
    strategy: &AnyStrategy,
    clients: u64,
    layout: &Layout,
    ring: &RingPlan,
) -> Result<DpPlan, PrivacyError> {
    // A strategy with weights other than 1 weighs by something that clients hold.
    if strategy.largest_weight(ExampleCount(u64::MAX / 2)) > Weight(1) {
        DpWeighting::try_from(Weighting::Examples)?;
    }
    let sampler = sampler(&config.selection, clients)?;
    let plan = DpPlanConfig {
        relation: privacy
            .relation
            .unwrap_or_else(|| natural_relation(&sampler)),
        sampler,
        unit: PrivacyUnit::Client,
        clipping: privacy.clipping,
        weighting: DpWeighting::Uniform,
        mean_weight: 1.0,
        correlation: privacy.correlation,
        noise_multiplier: privacy.noise_multiplier,
        epsilon: privacy.epsilon,
        delta: privacy.delta,
        accountant: privacy.accountant,
        rounds: config.rounds,
        extrapolation: privacy.extrapolation,
    };
    DpPlan::new(plan, layout, ring)
}

/// The stream of the noise on a round's sum.
pub(super) fn noise_stream(seed: Seed, round: RoundId) -> Stream {
    Stream::at(Purpose::CentralNoise, seed, round, ClientId(0))
}

/// The law by which a selector draws.
pub(super) fn sampler(selection: &SelectorConfig, clients: u64) -> Result<Sampler, PrivacyError> {
    match selection {
        SelectorConfig::Poisson(keys) => Sampler::poisson(clients, keys.rate),
        SelectorConfig::Uniform(keys) if keys.over_select > 1.0 => {
            Err(PrivacyError::PrivateAggregation {
                what: "asking more clients than are counted",
                reason: "whether a client is counted then depends on how fast the others are",
                instead: "leave over_select at 1",
            })
        }
        SelectorConfig::Uniform(keys) => Sampler::fixed_size(clients, keys.cohort.min(clients)),
        SelectorConfig::Weighted(_) => Err(PrivacyError::PrivateAggregation {
            what: "selecting clients by their number of examples",
            reason: "who takes part then depends on what clients hold",
            instead: "use kind = \"poisson\" or \"uniform\"",
        }),
        SelectorConfig::Oort(_) | SelectorConfig::PowerOfChoice(_) | SelectorConfig::Fair(_) => {
            Err(PrivacyError::PrivateAggregation {
                what: "selecting clients by what is known of them",
                reason: "who takes part then depends on what clients reported before",
                instead: "use kind = \"poisson\" or \"uniform\"",
            })
        }
        SelectorConfig::Cyclic(keys) => Sampler::cyclic_poisson(clients, keys.period, keys.rate),
        SelectorConfig::Separated(keys) => {
            Sampler::separated(clients, keys.cohort, keys.separation)
        }
    }
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Releases the sum of the round at hand, noise and all, and lets the strategy apply it.
    pub(super) fn release_central(
        &mut self,
        round: RoundId,
        clips: ClipTally,
    ) -> Result<Option<PrivacyRecord>, SimError> {
        let Some(PrivacyPlan::Central(plan)) = &mut self.privacy else {
            return Ok(None);
        };
        let failed = |source| SimError::Round { round, source };
        let sum = self
            .server
            .awaiting_release()
            .ok_or_else(|| failed(fl_core::round::RoundError::NotAwaiting(round)))?;
        let ring = *sum.plan();
        let decode = |&value: &i64| ring.decode_mean(value, Weight(1));
        let mut mean: Vec<f64> = sum.values().iter().map(decode).collect();
        let seed = self.config.seed;
        if let Some(tap) = &mut self.tap {
            tap.before(plan, &mean, clips.count)?;
        }
        let permit = plan.authorise(round.0)?;
        let (noise_std, max_norm) = (permit.std(), plan.clipper().max_norm());
        plan.release(
            permit,
            &mut noise_stream(seed, round),
            &mut Stream::at(Purpose::ClipNoise, seed, round, ClientId(0)),
            clips.count,
            &mut mean,
        );
        let mut replayed = None;
        if let Some(tap) = &mut self.tap {
            let (cohort, jobs) = (&self.buffers.cohort, &self.buffers.jobs);
            replayed = tap.after(round, plan, cohort, jobs, &mut mean);
        }
        self.server
            .release(self.clock, Aggregate::released(mean))
            .map_err(failed)?;
        if self.tap.is_some() {
            // An audit reads the ledger at its end.
            if let Some(state) = replayed {
                self.resume_privacy(RoundId(round.0 + 1), &state)?;
            }
            return Ok(None);
        }
        Ok(Some(record(plan, noise_std, max_norm, clips)?))
    }

    /// A round without a sum: it is in the ledger, and its noise, which that of other rounds may be
    /// correlated with, is drawn and thrown away. An adaptive norm follows its noise alone.
    pub(super) fn waste_central(
        &mut self,
        round: RoundId,
    ) -> Result<Option<PrivacyRecord>, SimError> {
        let Some(PrivacyPlan::Central(plan)) = &mut self.privacy else {
            return Ok(None);
        };
        let seed = self.config.seed;
        let permit = plan.authorise(round.0)?;
        let (noise_std, max_norm) = (permit.std(), plan.clipper().max_norm());
        let mut nothing = vec![0.0; self.engine.layout().len()];
        plan.release(
            permit,
            &mut noise_stream(seed, round),
            &mut Stream::at(Purpose::ClipNoise, seed, round, ClientId(0)),
            ClipCount::default(),
            &mut nothing,
        );
        let clips = ClipTally::default();
        Ok(Some(record(plan, noise_std, max_norm, clips)?))
    }
}

fn record(
    plan: &DpPlan,
    noise_std: f64,
    max_norm: f64,
    clips: ClipTally,
) -> Result<PrivacyRecord, PrivacyError> {
    let spent = plan.spent()?;
    Ok(PrivacyRecord {
        epsilon: spent.epsilon.upper.get(),
        epsilon_lower: spent.epsilon.lower.get(),
        epsilon_unamplified: spent.unamplified.get(),
        delta: plan.config().delta.get(),
        noise_std,
        max_norm,
        hypothetical: plan.config().extrapolation.is_some(),
        observer: Observer::Released,
        released: true,
        clipped: clips.clipped,
        zeroed: clips.zeroed,
        wrapped: 0,
    })
}
