//! Clients that protect their single examples while they train: what a run asks for, and how a
//! round is accounted.
//!
//! The noise is drawn by the trainer, step by step, as the local plan says
//! ([`fl_core::ExamplePrivacy`]); the ledger and the budgets of all clients are in one
//! [`ExamplePlan`]. A client that its budget allows no more declines its invitation, as it would on
//! its own device, and is counted among the dropped. Every client that is told to train is in the
//! ledger with all its steps, whether its update is in the sum or not: whatever it sent, the server
//! has seen.

use fl_core::select::SelectorConfig;
use fl_core::{ClientId, ExampleClipping, LocalPlan, RoundId, WorkLimit};
use fl_privacy::plan::{ExamplePlan, ExamplePlanConfig, ExampleSchedule, Observer};
use fl_privacy::{AccountantKind, Delta, Epsilon, NoiseMultiplier, PrivacyError};
use serde::{Deserialize, Serialize};

use super::{ClipTally, PrivacyPlan, PrivacyRecord};
use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::population::{Engine, Population};
use crate::simulation::Simulation;

/// Differential privacy of single examples, by the clients themselves. The expected batch and the
/// number of steps are the local plan's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleLevelPrivacy {
    /// How an example's gradient is bounded.
    pub clipping: ExampleClipping,
    /// The norm to which it is bounded.
    pub max_norm: f64,
    /// Standard deviation of the noise on a sum of gradients over `max_norm`; when not given, the
    /// least that keeps `epsilon` for every client that takes part as often as it may.
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Most that an example may lose: its client takes part no more before.
    pub epsilon: Option<Epsilon>,
    /// The `delta` of all statements; below one over the number of all examples.
    pub delta: Delta,
    /// Who counts.
    pub accountant: AccountantKind,
    /// Rounds that a client takes part in at most; when not given, as many as the selection can ask
    /// it to.
    pub participations: Option<u64>,
}

impl ExampleLevelPrivacy {
    /// Clipping to one norm and `epsilon` at `delta`, by the default accountant.
    #[must_use]
    pub fn new(max_norm: f64, epsilon: Epsilon, delta: Delta) -> Self {
        Self {
            clipping: ExampleClipping::Flat,
            max_norm,
            noise_multiplier: None,
            epsilon: Some(epsilon),
            delta,
            accountant: AccountantKind::Pld,
            participations: None,
        }
    }
}

/// The local plan with the protection that decides how many steps a client takes; what noise it
/// has does not matter for that.
fn private(plan: &LocalPlan) -> LocalPlan {
    LocalPlan {
        privacy: Some(fl_core::ExamplePrivacy::flat(1.0, 0.0)),
        ..*plan
    }
}

/// What a client of so many examples does in a round.
pub(crate) fn schedule(plan: &LocalPlan, examples: u64) -> ExampleSchedule {
    ExampleSchedule {
        sampling_rate: plan.batch.sampling_rate(examples),
        steps: private(plan).steps(examples, WorkLimit::Full),
    }
}

/// The plan of a run.
pub(super) fn plan(
    config: &SimulationConfig,
    privacy: &ExampleLevelPrivacy,
    clients: u64,
    examples: &dyn Fn(ClientId) -> u64,
) -> Result<ExamplePlan, PrivacyError> {
    let sizes = (0..clients).map(|client| examples(ClientId(client)));
    let (mut with_examples, mut all) = (0, 0);
    let mut distinct = std::collections::BTreeSet::new();
    for size in sizes.filter(|size| *size > 0) {
        with_examples += 1;
        all += size;
        distinct.insert(size);
    }
    let schedules = distinct.iter().map(|&size| schedule(&config.local, size));
    ExamplePlan::new(ExamplePlanConfig {
        schedules: schedules.collect(),
        clients: with_examples,
        examples: all,
        rounds: config.rounds,
        participations: match (
            privacy.participations,
            turns(&config.selection, config.rounds),
        ) {
            (Some(given), Some(turns)) => Some(given.min(turns)),
            (given, turns) => given.or(turns),
        },
        clipping: privacy.clipping,
        max_norm: privacy.max_norm,
        noise_multiplier: privacy.noise_multiplier,
        epsilon: privacy.epsilon,
        delta: privacy.delta,
        accountant: privacy.accountant,
    })
}

/// How often a selector asks one client at most, where that is less than in every round.
fn turns(selection: &SelectorConfig, rounds: u64) -> Option<u64> {
    match selection {
        SelectorConfig::Cyclic(keys) => Some(rounds.div_ceil(keys.period.max(1))),
        SelectorConfig::Separated(keys) => Some(rounds.div_ceil(keys.separation.max(1))),
        _ => None,
    }
}

impl PrivacyPlan {
    /// The plan of clients that protect their examples.
    #[must_use]
    pub fn example(&self) -> Option<&ExamplePlan> {
        match self {
            Self::Example(plan) => Some(plan),
            _ => None,
        }
    }

    /// What clients are asked to do, where the noise is theirs to add.
    pub(crate) fn local(&self, local: LocalPlan) -> LocalPlan {
        LocalPlan {
            privacy: self.example().map(ExamplePlan::privacy),
            ..local
        }
    }

    /// Refuses a plan under which clients would not do what is accounted.
    pub(crate) fn check_local(
        &self,
        declared: &LocalPlan,
        plan: &LocalPlan,
    ) -> Result<(), PrivacyError> {
        let Self::Example(own) = self else {
            return Ok(());
        };
        let same = plan.privacy == Some(own.privacy())
            && plan.batch == declared.batch
            && plan.work == declared.work;
        if same {
            return Ok(());
        }
        Err(PrivacyError::PrivateAggregation {
            what: "a strategy that changes the batch, the work or the noise of clients",
            reason: "what they do then is not what is accounted",
            instead: "use a strategy that leaves the local plan as it is",
        })
    }
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Whether the client's budget allows it to take part in the round at hand.
    pub(crate) fn affords(&mut self, client: ClientId) -> Result<bool, PrivacyError> {
        let Some(PrivacyPlan::Example(plan)) = &mut self.privacy else {
            return Ok(true);
        };
        let examples = self.population.train_len(client);
        plan.affords(client.0, &schedule(&self.config.local, examples))
    }

    /// Permits the clients of the round at hand to train, before any of them does.
    pub(crate) fn authorise(&mut self, round: RoundId) -> Result<(), PrivacyError> {
        let Some(PrivacyPlan::Example(plan)) = &mut self.privacy else {
            return Ok(());
        };
        let training = self.buffers.training.iter();
        let clients: Vec<(u64, ExampleSchedule)> = training
            .map(|&client| {
                let examples = self.population.train_len(client);
                (client.0, schedule(&self.config.local, examples))
            })
            .collect();
        self.buffers.permit = Some(plan.authorise(round.0, &clients)?);
        Ok(())
    }

    /// Writes the round into the ledger.
    pub(super) fn release_example(
        &mut self,
        round: RoundId,
        clips: ClipTally,
    ) -> Result<Option<PrivacyRecord>, SimError> {
        let permit = self.buffers.permit.take();
        let Some(PrivacyPlan::Example(plan)) = &mut self.privacy else {
            return Ok(None);
        };
        let Some(permit) = permit else {
            let next = plan.rounds_done();
            return Err(PrivacyError::WrongRound {
                given: round.0,
                next,
            }
            .into());
        };
        plan.record(permit);
        let spent = plan.spent()?;
        let max_norm = plan.config().max_norm;
        Ok(Some(PrivacyRecord {
            epsilon: spent.epsilon.upper.get(),
            epsilon_lower: spent.epsilon.lower.get(),
            epsilon_unamplified: spent.unamplified.get(),
            delta: plan.config().delta.get(),
            noise_std: plan.noise_multiplier().get() * max_norm,
            max_norm,
            hypothetical: false,
            // It sees what everybody sees.
            observer: Observer::Server,
            released: true,
            wrapped: 0,
            clipped: clips.examples(),
            zeroed: 0,
        }))
    }
}
