//! Noise that clients add themselves, to their own updates or to a share of a round's sum: what a run
//! asks for, what a client sends, and how a round is released or given up.
//!
//! The guarantee of distributed noise assumes secure aggregation. Unless a run really does that
//! ([`crate::secagg`]), the simulator adds the vectors of the ring in the clear, modulo `2^b`, to the
//! same sum. As it then sees what no server could, it counts the coordinates that wrapped, for
//! diagnosis.

use fl_core::ring::{RingError, RingPlan};
use fl_core::round::RoundError;
use fl_core::strategy::{AnyStrategy, Strategy as _, Weighting};
use fl_core::{
    Aggregate, ClientId, ExampleCount, Layout, ModularError, ModularSum, Purpose, RoundId, Seed,
    Stream, Weight,
};
use fl_privacy::clip::{Clipped, DpWeighting};
use fl_privacy::distributed::Rotation;
use fl_privacy::plan::{ClientNoise, ClientPlan, ClientPlanConfig, Observer};
use fl_privacy::{
    AccountantKind, Delta, Epsilon, NeighboringRelation, NoiseMultiplier, PrivacyError,
};
use serde::{Deserialize, Serialize};

use super::central::sampler;
use super::{ClipTally, PrivacyPlan, PrivacyRecord};
use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::population::{Engine, Population};
use crate::simulation::Simulation;

/// How far beyond the clipping norm a value of an update with local noise may be before the sum cuts
/// it off, in standard deviations.
const REACH: f64 = 12.0;

/// Differential privacy by clients' own noise. How the cohort is drawn is the selection's matter.
/// Keys that are not given are those of [`ClientPlanConfig::new`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPrivacy {
    /// Where the noise is meant to be seen.
    pub noise: ClientNoise,
    /// The L2 norm that an update is clipped to.
    pub max_norm: f64,
    /// See [`ClientPlanConfig::noise_multiplier`].
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Most that may be spent on the observer: the run ends with the last round that it allows.
    pub epsilon: Option<Epsilon>,
    /// Whose epsilon the budget and the noise are about.
    pub observer: Observer,
    /// The `delta` of all statements; below one over the number of clients.
    pub delta: Delta,
    /// Who counts; the accountant that fits the noise when not given.
    pub accountant: Option<AccountantKind>,
    /// What becomes of a client between neighbours; replace-one when not given.
    pub relation: Option<NeighboringRelation>,
    /// The share of the expected cohort that must report.
    pub least_survivors: f64,
    /// The share of the expected cohort that may collude with the server.
    pub colluding_share: f64,
    /// Most rounds in which one client reports.
    pub most_participations: Option<u64>,
}

impl ClientPrivacy {
    /// Clipping to one norm and `epsilon` at `delta` for the server, with defaults for the rest.
    #[must_use]
    pub fn new(noise: ClientNoise, max_norm: f64, epsilon: Epsilon, delta: Delta) -> Self {
        Self {
            noise,
            max_norm,
            noise_multiplier: None,
            epsilon: Some(epsilon),
            observer: Observer::Server,
            delta,
            accountant: None,
            relation: None,
            least_survivors: ClientPlanConfig::DEFAULT_LEAST_SURVIVORS,
            colluding_share: 0.0,
            most_participations: None,
        }
    }
}

/// The plan of a run.
pub(super) fn plan(
    config: &SimulationConfig,
    privacy: &ClientPrivacy,
    strategy: &AnyStrategy,
    clients: u64,
    layout: &Layout,
) -> Result<ClientPlan, PrivacyError> {
    // A strategy with weights other than 1 weighs by something that clients hold.
    if strategy.largest_weight(ExampleCount(u64::MAX / 2)) > Weight(1) {
        DpWeighting::try_from(Weighting::Examples)?;
    }
    let sampler = sampler(&config.selection, clients)?;
    let ClientPrivacy {
        noise,
        max_norm,
        noise_multiplier,
        epsilon,
        observer,
        delta,
        accountant,
        relation,
        least_survivors,
        colluding_share,
        most_participations,
    } = *privacy;
    let natural = ClientPlanConfig::new(noise, sampler, max_norm, delta, config.rounds);
    let plan = ClientPlanConfig {
        noise_multiplier,
        epsilon,
        observer,
        accountant: accountant.unwrap_or(natural.accountant),
        relation: relation.unwrap_or(natural.relation),
        least_survivors,
        colluding_share,
        most_participations,
        ..natural
    };
    ClientPlan::new(plan, layout.len())
}

/// An empty sum of what clients send into a ring; none where they send updates.
pub(crate) fn modular(plan: &ClientPlan) -> Result<Option<ModularSum>, ModularError> {
    let empty = |ring: &fl_privacy::distributed::DistributedDp| {
        ModularSum::new(ring.config().bits, ring.padded())
    };
    plan.ring().map(empty).transpose()
}

/// A plan of updates with local noise: its range holds the noise, too.
pub(crate) fn widened(plan: &ClientPlan, ring: RingPlan) -> Result<RingPlan, RingError> {
    let reach = plan.config().max_norm + REACH * plan.local_std();
    if plan.ring().is_some() || reach <= ring.range() {
        return Ok(ring);
    }
    match RingPlan::new(ring.weights(), reach, ring.resolution()) {
        Err(RingError::TooFine { finest, .. }) => RingPlan::new(ring.weights(), reach, finest),
        widened => widened,
    }
}

/// What the clients of a round do to their updates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noising<'a> {
    pub(crate) plan: &'a ClientPlan,
    /// Of the round; used in a ring.
    pub(crate) rotation: Option<&'a Rotation>,
    pub(crate) seed: Seed,
    pub(crate) round: RoundId,
}

impl Noising<'_> {
    /// A client's part: its update leaves clipped and noised, or is encoded for the ring into
    /// `vector`.
    pub(crate) fn protect(
        &self,
        client: ClientId,
        update: &mut [f32],
        vector: &mut Vec<u64>,
    ) -> Result<Clipped, SimError> {
        let stream = |purpose| Stream::at(purpose, self.seed, self.round, client);
        let mut noise = stream(Purpose::LocalNoise);
        let Some(rotation) = self.rotation else {
            return Ok(self.plan.protect(update, &mut noise)?);
        };
        let mut rounding = stream(Purpose::UpdateCodec);
        let encoded = self
            .plan
            .encode(update, rotation, &mut rounding, &mut noise, vector)?;
        Ok(encoded.clipped)
    }

    /// Adds a vector to a sum in the ring.
    pub(crate) fn add(&self, sum: &mut ModularSum, vector: &[u64]) -> Result<(), SimError> {
        sum.add(vector).map_err(|source| SimError::Modular {
            round: self.round,
            source,
        })
    }
}

/// The rotation that a round's clients and its server share; none without a ring.
pub(crate) fn rotation(plan: &ClientPlan, seed: Seed, round: RoundId) -> Option<Rotation> {
    let mut stream = Stream::at(Purpose::Rotation, seed, round, ClientId(0));
    plan.ring()
        .map(|ring| Rotation::new(&mut stream, ring.padded()))
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Refuses to credit sampling where clients without examples can be drawn: they never report, so
    /// those who do are not a uniform subset of all.
    pub(crate) fn check_amplification(&self) -> Result<(), PrivacyError> {
        let Some(PrivacyPlan::Clients(plan)) = &self.privacy else {
            return Ok(());
        };
        let population = &self.population;
        if plan.is_amplified()
            && (0..population.clients()).any(|client| population.train_len(ClientId(client)) == 0)
        {
            return Err(PrivacyError::PrivateAggregation {
                what: "crediting the secrecy of samples in which clients have no examples",
                reason: "those never report, and who does is then no uniform sample of all",
                instead: "give every client examples, or use the relation `replace-special`, under \
                          which sampling is not credited",
            });
        }
        Ok(())
    }

    /// Whether the round at hand has too few reports for its noise.
    pub(crate) fn must_give_up(&self, round: RoundId) -> bool {
        let reports = self.buffers.jobs.len() as u64;
        match &self.privacy {
            Some(PrivacyPlan::Clients(plan)) => plan.check_reports(round.0, reports).is_err(),
            _ => false,
        }
    }

    /// Ends a round with too few reports: the model stays as it is.
    pub(crate) fn give_up(&mut self, round: RoundId) -> Result<Option<PrivacyRecord>, SimError> {
        let Some(PrivacyPlan::Clients(plan)) = &mut self.privacy else {
            return Ok(None);
        };
        let clients: Vec<ClientId> = self.buffers.jobs.iter().map(|job| job.client).collect();
        plan.give_up(round.0, &clients)?;
        let failed = |source: RoundError| SimError::Round { round, source };
        self.server.abort(self.clock).map_err(failed)?;
        Ok(Some(record(plan, clients.len() as u64, false)?))
    }

    /// Releases the sum of the round at hand with its clients' noise, and lets the strategy apply the
    /// mean.
    pub(super) fn release_clients(
        &mut self,
        round: RoundId,
        clips: ClipTally,
    ) -> Result<Option<PrivacyRecord>, SimError> {
        let Some(PrivacyPlan::Clients(plan)) = &mut self.privacy else {
            return Ok(None);
        };
        let failed = |source| SimError::Round { round, source };
        let sum = self
            .server
            .awaiting_release()
            .ok_or_else(|| failed(RoundError::NotAwaiting(round)))?;
        let ring = *sum.plan();
        let clients: Vec<ClientId> = self.buffers.jobs.iter().map(|job| job.client).collect();
        let permit = plan.authorise(round.0, &clients)?;
        let mut wrapped = 0;
        let mean = match rotation(plan, self.config.seed, round) {
            None => {
                let decode = |&value: &i64| ring.decode_mean(value, Weight(1));
                let mut mean: Vec<f64> = sum.values().iter().map(decode).collect();
                plan.mean(permit, &mut mean);
                mean
            }
            Some(rotation) => {
                let modular = self.executor.take_modular();
                let modular = modular.map_err(|source| SimError::Modular { round, source })?;
                match modular {
                    Some(modular) => {
                        wrapped = modular.wrapped();
                        plan.decode(permit, &modular, &rotation)?
                    }
                    None => return Err(failed(RoundError::NotAwaiting(round))),
                }
            }
        };
        self.server
            .release(self.clock, Aggregate::released(mean))
            .map_err(failed)?;
        Ok(Some(PrivacyRecord {
            clipped: clips.clipped,
            zeroed: clips.zeroed,
            wrapped,
            ..record(plan, clients.len() as u64, true)?
        }))
    }
}

/// What a round of so many reports has spent, and without diagnoses.
fn record(plan: &ClientPlan, reports: u64, released: bool) -> Result<PrivacyRecord, PrivacyError> {
    let spent = plan.spent()?;
    Ok(PrivacyRecord {
        epsilon: spent.epsilon.upper.get(),
        epsilon_lower: spent.epsilon.lower.get(),
        epsilon_unamplified: spent.unamplified.get(),
        delta: plan.config().delta.get(),
        noise_std: plan.sum_std(reports),
        max_norm: plan.config().max_norm,
        observer: plan.config().observer,
        hypothetical: false,
        released,
        clipped: 0,
        zeroed: 0,
        wrapped: 0,
    })
}
