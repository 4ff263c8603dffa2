//! Differential privacy in a run: what it asks for, the plan that keeps its ledger, and what a
//! round records of it.
//!
//! There is a kind of privacy for each place where noise may be added, and a module for each kind.
//! A [`Privacy`] is asked for; the [`PrivacyPlan`] that is made of it holds the ledger and the
//! budget, and says which round is the last that it affords.

mod central;
mod clients;
mod example;

use fl_core::select::{AnySelector, Selector as _};
use fl_core::strategy::AnyStrategy;
use fl_core::{ClientId, Layout, RingError, RingPlan, RoundId, Seed, Weight};
use fl_privacy::clip::Clipper;
use fl_privacy::plan::{ExamplePlan, Observer};
use fl_privacy::{ClientPlan, DpPlan, PrivacyError, PrivacyStatement};
use serde::{Deserialize, Serialize};

pub use central::CentralPrivacy;
pub(crate) use central::ClipTally;
pub use clients::ClientPrivacy;
pub(crate) use clients::{Noising, modular, rotation};
pub use example::ExampleLevelPrivacy;

use crate::aggregation::asked;
use crate::config::{SimulationConfig, refused};
use crate::error::SimError;
use crate::population::{Engine, Population};
use crate::simulation::Simulation;

/// Where noise is added, and how much privacy is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Privacy {
    /// By a trusted server, to the sum.
    Central(CentralPrivacy),
    /// By the clients, to their updates or to a share of a round's sum.
    Clients(ClientPrivacy),
    /// By every client, to the gradients of its single examples while it trains.
    Example(ExampleLevelPrivacy),
}

/// The privacy of a run: its ledger, its budget and what is left of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum PrivacyPlan {
    /// Of [`Privacy::Central`].
    Central(Box<DpPlan>),
    /// Of [`Privacy::Clients`].
    Clients(Box<ClientPlan>),
    /// Of [`Privacy::Example`].
    Example(Box<ExamplePlan>),
}

impl PrivacyPlan {
    /// The plan before the first round; none without privacy.
    pub(crate) fn new(
        config: &SimulationConfig,
        strategy: &AnyStrategy,
        clients: u64,
        examples: &dyn Fn(ClientId) -> u64,
        layout: &Layout,
        ring: &RingPlan,
    ) -> Result<Option<Self>, PrivacyError> {
        match &config.privacy {
            None => Ok(None),
            Some(Privacy::Central(privacy)) => {
                let plan = central::plan(config, privacy, strategy, clients, layout, ring)?;
                Ok(Some(Self::Central(Box::new(plan))))
            }
            Some(Privacy::Clients(privacy)) => {
                let plan = clients::plan(config, privacy, strategy, clients, layout)?;
                Ok(Some(Self::Clients(Box::new(plan))))
            }
            Some(Privacy::Example(privacy)) => {
                let plan = example::plan(config, privacy, clients, examples)?;
                Ok(Some(Self::Example(Box::new(plan))))
            }
        }
    }

    /// The plan as [`Self::save`] left it after `round` rounds.
    pub(crate) fn resumed(
        &self,
        layout: &Layout,
        ring: &RingPlan,
        round: RoundId,
        seed: Seed,
        text: &str,
    ) -> Result<Self, PrivacyError> {
        match self {
            Self::Central(plan) => {
                let mut plan = DpPlan::resume(plan.config().clone(), layout, ring, round.0, text)?;
                plan.redraw(|round| central::noise_stream(seed, RoundId(round)));
                Ok(Self::Central(Box::new(plan)))
            }
            Self::Clients(plan) => {
                let plan = ClientPlan::resume(plan.config().clone(), layout.len(), round.0, text)?;
                Ok(Self::Clients(Box::new(plan)))
            }
            Self::Example(plan) => {
                let plan = ExamplePlan::resume(plan.config().clone(), round.0, text)?;
                Ok(Self::Example(Box::new(plan)))
            }
        }
    }

    /// The state between two rounds, its ledger included.
    pub(crate) fn save(&self) -> String {
        match self {
            Self::Central(plan) => plan.save(),
            Self::Clients(plan) => plan.save(),
            Self::Example(plan) => plan.save(),
        }
    }

    /// Bounds every update before it is encoded, where the kind asks for it.
    pub(crate) fn clipper(&self) -> Option<&dyn Clipper> {
        match self {
            Self::Central(plan) => Some(plan.clipper()),
            Self::Clients(_) | Self::Example(_) => None,
        }
    }

    /// The ring of updates that are summed as they are; clients' noise may need a wider one.
    pub(crate) fn ring(&self, ring: RingPlan) -> Result<RingPlan, RingError> {
        match self {
            Self::Central(_) | Self::Example(_) => Ok(ring),
            Self::Clients(plan) => clients::widened(plan, ring),
        }
    }

    /// Whether a client may report once more.
    pub(crate) fn may_report(&self, client: ClientId) -> bool {
        match self {
            Self::Central(_) | Self::Example(_) => true,
            Self::Clients(plan) => plan.may_report(client),
        }
    }

    /// The plan of clients' own noise.
    #[must_use]
    pub fn clients(&self) -> Option<&ClientPlan> {
        match self {
            Self::Clients(plan) => Some(plan),
            Self::Central(_) | Self::Example(_) => None,
        }
    }

    /// The plan of a central kind.
    #[must_use]
    pub fn central(&self) -> Option<&DpPlan> {
        match self {
            Self::Central(plan) => Some(plan),
            Self::Clients(_) | Self::Example(_) => None,
        }
    }

    /// Rounds that are in the ledger.
    #[must_use]
    pub fn rounds_done(&self) -> u64 {
        match self {
            Self::Central(plan) => plan.rounds_done(),
            Self::Clients(plan) => plan.rounds_done(),
            Self::Example(plan) => plan.rounds_done(),
        }
    }

    /// Rounds that the budget allows, of those that were declared.
    #[must_use]
    pub fn last_round(&self) -> u64 {
        match self {
            Self::Central(plan) => plan.last_round(),
            Self::Clients(plan) => plan.last_round(),
            // Clients stop one by one, and the run with the last of them.
            Self::Example(plan) if plan.has_budget() => plan.config().rounds,
            Self::Example(plan) => plan.rounds_done(),
        }
    }

    /// Why there is no round after [`Self::last_round`]; none when all that were declared are
    /// allowed.
    #[must_use]
    pub fn refusal(&self) -> Option<PrivacyError> {
        match self {
            Self::Central(plan) => plan.refusal(),
            Self::Clients(plan) => plan.refusal(),
            Self::Example(plan) => plan.refusal().unwrap_or_else(Some),
        }
    }

    /// Standard deviation of the noise on each value of the mean update, in the first round; none
    /// where it is added to gradients, and what becomes of it is the optimizer's matter.
    ///
    /// # Errors
    /// [`PrivacyError`] for a sensitivity that is too large for a number.
    pub fn noise_on_mean(&self) -> Result<Option<f64>, PrivacyError> {
        match self {
            Self::Central(plan) => Ok(Some(plan.noise_std()? / plan.mean().denominator())),
            // Of the fewest reports: more noise on a mean than of any others.
            Self::Clients(plan) => Ok(Some(
                plan.local_std() / libm::sqrt(plan.least_survivors() as f64),
            )),
            Self::Example(_) => Ok(None),
        }
    }

    /// Standard deviation of the noise on each value of a model after `rounds` rounds, where the
    /// server moves it by each mean update once.
    ///
    /// # Errors
    /// As [`Self::noise_on_mean`].
    pub fn noise_on_model(&self, rounds: u64) -> Result<Option<f64>, PrivacyError> {
        match self {
            Self::Central(plan) => plan.noise_on_model(rounds).map(Some),
            // Every round's its own.
            Self::Clients(_) | Self::Example(_) => {
                let mean = self.noise_on_mean()?;
                Ok(mean.map(|noise| noise * libm::sqrt(rounds as f64)))
            }
        }
    }

    /// What `rounds` rounds guarantee, and what not.
    ///
    /// # Errors
    /// [`PrivacyError`] when the accountant cannot count them.
    pub fn statement(&self, rounds: u64) -> Result<PrivacyStatement, PrivacyError> {
        match self {
            Self::Central(plan) => plan.statement(rounds),
            Self::Clients(plan) => plan.statement(rounds),
            Self::Example(plan) => plan.statement(rounds),
        }
    }
}

/// A round's privacy, as it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivacyRecord {
    /// Upper bound of what the released models have spent so far, this round included.
    pub epsilon: f64,
    /// No analysis can promise less; 0 where the accountant has no such bound.
    pub epsilon_lower: f64,
    /// Upper bound for whoever also sees who took part in each round; with clients' own noise, for
    /// the server.
    pub epsilon_unamplified: f64,
    /// The `delta` of all of them.
    pub delta: f64,
    /// Standard deviation of the noise that was drawn for the round, on each value of the sum of
    /// updates; correlated noise takes back part of that of earlier rounds besides. Where clients
    /// protect their examples, that on each value of a step's sum of gradients.
    pub noise_std: f64,
    /// The clipping norm of the round.
    pub max_norm: f64,
    /// Whom the budget and the noise are about: [`Observer::Released`] for [`Self::epsilon`],
    /// [`Observer::Server`] for [`Self::epsilon_unamplified`].
    pub observer: Observer,
    /// Whether `epsilon` is that of a larger deployment than the simulated one.
    pub hypothetical: bool,
    /// Whether the round's mean was released; a round with too few reports for its noise is not.
    pub released: bool,
    /// Updates, or gradients of examples, that were clipped. **Not private**: a diagnosis that
    /// `epsilon` does not cover.
    pub clipped: u64,
    /// Updates that were not finite and counted as zero. **Not private**, as [`Self::clipped`].
    pub zeroed: u64,
    /// Coordinates of the sum that left their ring. **Not private**, and nothing that a server with
    /// secure aggregation could know; 0 without a ring, and where that is real.
    pub wrapped: u64,
}

/// The privacy plan that a run of `clients` clients, which have `examples` training examples, and a
/// model of `layout` would begin with; none without privacy. What it will spend can be asked of it
/// before anything is trained.
///
/// # Errors
/// [`SimError::Privacy`] when there is no such plan; [`SimError`] when strategy or selection are
/// refused, or no ring holds their sums.
pub fn forecast(
    config: &SimulationConfig,
    clients: u64,
    examples: &dyn Fn(ClientId) -> u64,
    layout: &Layout,
) -> Result<Option<PrivacyPlan>, SimError> {
    let table = |table| move |source| refused(table, source);
    let strategy = AnyStrategy::from_config(config.strategy.clone()).map_err(table("strategy"))?;
    let selector =
        AnySelector::from_config(config.selection.clone()).map_err(table("selection"))?;
    let goal = selector.largest_goal(clients).max(1);
    let asked = asked(&config.selection, clients);
    let ring = config.aggregation.ring(Weight(1), goal, asked)?;
    let plan = PrivacyPlan::new(config, &strategy, clients, examples, layout, &ring)?;
    Ok(plan)
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Takes up the ledger that was saved after `round` rounds. A private run without one is none.
    pub(crate) fn resume_privacy(
        &mut self,
        round: RoundId,
        text: &str,
    ) -> Result<(), PrivacyError> {
        if let Some(plan) = &self.privacy {
            let resumed = plan.resumed(
                self.engine.layout(),
                &self.ring,
                round,
                self.config.seed,
                text,
            )?;
            self.privacy = Some(resumed);
        }
        Ok(())
    }

    /// Gives the round at hand up, because a session of secure aggregation failed: nothing is released.
    /// What was about to be spent counts as spent, unless nobody saw anything.
    pub(crate) fn fail(
        &mut self,
        round: RoundId,
        clips: ClipTally,
    ) -> Result<Option<PrivacyRecord>, SimError> {
        let record = match self.privacy {
            None => None,
            Some(PrivacyPlan::Clients(_)) => return self.give_up(round),
            Some(PrivacyPlan::Central(_)) => self.waste_central(round)?,
            Some(PrivacyPlan::Example(_)) => self.release_example(round, clips)?,
        };
        self.server
            .abort(self.clock)
            .map_err(|source| SimError::Round { round, source })?;
        Ok(record.map(|record| PrivacyRecord {
            released: false,
            ..record
        }))
    }

    /// Ends the private part of the round at hand; nothing is done without privacy.
    pub(crate) fn release(
        &mut self,
        round: RoundId,
        clips: ClipTally,
    ) -> Result<Option<PrivacyRecord>, SimError> {
        match self.privacy {
            None => Ok(None),
            Some(PrivacyPlan::Central(_)) => self.release_central(round, clips),
            Some(PrivacyPlan::Clients(_)) => self.release_clients(round, clips),
            Some(PrivacyPlan::Example(_)) => self.release_example(round, clips),
        }
    }
}
