//! The [`ExamplePlan`]: clients that protect their single examples while they train.
//!
//! Each client runs differentially private SGD (Abadi et al. 2016, arXiv:1607.00133) on its own
//! examples: every step draws a batch by Poisson sampling, clips each example's gradient and adds
//! Gaussian noise, as [`fl_core::ExamplePrivacy`] describes. All that leaves the device follows from
//! noised gradients, so the server has no other guarantee than everybody, and may weigh, drop and
//! add updates as it likes.
//!
//! # What is accounted
//! - The relation is [`NeighboringRelation::ReplaceSpecial`]: one example of one client is there or
//!   contributes nothing. The number of a client's examples is public, and with it the expected
//!   batch that the sum is divided by, and the weight of the update.
//! - A client that takes part `k` times, in `T` steps each, has made `k T` events of Gaussian noise
//!   on a Poisson sample. Which rounds it takes part in is public and earns nothing: no
//!   amplification by the sampling of clients. So it must not depend on what the examples hold.
//! - An example is one client's. The others' training, which builds on this client's updates, is
//!   post-processing; so the epsilon of a run is that of the client that it cost most (parallel
//!   composition).
//! - Which client that is need not be guessed: of any two (sampling rate, steps) the larger of both
//!   bounds both, so groups of clients are bounded by their largest rate and their most steps, and
//!   the worst group is split until it is one client.
//!
//! # A round
//! Before a client trains, [`ExamplePlan::affords`] says whether its budget allows it to; one that
//! has spent its budget takes no part, whatever the others do. [`ExamplePlan::authorise`] refuses
//! or permits the training of a round before any of it begins, and [`ExamplePlan::record`] writes
//! the permit into the ledger when the updates are out.

mod config;

use std::collections::BTreeMap;

use fl_core::ExamplePrivacy;
use serde::{Deserialize, Serialize};

pub use config::{ExamplePlanConfig, ExampleSchedule};
use config::{MOST_NOISE, RELATION};

use super::statement::{LocalSteps, PrivacyStatement, Spent, TrustModel};
use crate::accountant::{Bounds, accountant};
use crate::budget::PrivacyBudget;
use crate::calibrate::Target;
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::relation::PrivacyUnit;
use crate::sampling::Sampler;
use crate::units::{Epsilon, NoiseMultiplier};

/// Leave to train the clients of one round, made by [`ExamplePlan::authorise`] and used up by
/// [`ExamplePlan::record`].
#[derive(Debug)]
#[must_use = "clients that train without it are not in the ledger"]
pub struct ExamplePermit {
    round: u64,
    /// Client and the place of its schedule.
    clients: Vec<(u64, usize)>,
}

/// What a client has taken part in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    client: u64,
    /// Place of its schedule in the sorted list.
    schedule: usize,
    participations: u64,
}

/// The protection of clients' examples.
///
/// ```
/// use fl_core::ExampleClipping;
/// use fl_privacy::plan::{ExamplePlan, ExamplePlanConfig, ExampleSchedule};
/// use fl_privacy::{AccountantKind, Delta, Epsilon};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let schedule = ExampleSchedule { sampling_rate: 0.01, steps: 100 };
/// let mut plan = ExamplePlan::new(ExamplePlanConfig {
///     schedules: vec![schedule],
///     clients: 10,
///     examples: 60_000,
///     rounds: 20,
///     participations: None,
///     clipping: ExampleClipping::Flat,
///     max_norm: 1.0,
///     noise_multiplier: None,
///     epsilon: Some(Epsilon::new(2.0)?),
///     delta: Delta::new(1e-5)?,
///     accountant: AccountantKind::Pld,
/// })?;
/// let permit = plan.authorise(0, &[(3, schedule), (7, schedule)])?;
/// // The two clients train as `plan.privacy()` says.
/// plan.record(permit);
/// assert!(plan.spent()?.epsilon.upper.get() < 2.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ExamplePlan {
    /// With sorted schedules.
    config: ExamplePlanConfig,
    noise_multiplier: NoiseMultiplier,
    budget: PrivacyBudget,
    /// By schedule: participations that the budget allows, once that was asked.
    allowed: Vec<Option<u64>>,
    /// By client: the place of its schedule, and its participations.
    taken: BTreeMap<u64, (usize, u64)>,
    /// By schedule: the most participations of a client.
    most: Vec<u64>,
    /// Clients that may take part no more.
    exhausted: u64,
    rounds: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config: ExamplePlanConfig,
    rounds: u64,
    taken: Vec<Taken>,
}

impl ExamplePlan {
    /// A plan before its first round.
    ///
    /// # Errors
    /// [`PrivacyError`]: a value out of its range, a `delta` of one over all examples or more,
    /// neither noise nor `epsilon`, an `epsilon` that no noise reaches, an accountant that cannot
    /// count sampled batches, or a budget that does not allow a client to take part even once.
    pub fn new(mut config: ExamplePlanConfig) -> Result<Self, PrivacyError> {
        config.check()?;
        config.schedules.sort_by_key(ExampleSchedule::key);
        config.schedules.dedup();
        let budget = PrivacyBudget::new(
            config.epsilon.unwrap_or(Epsilon::INFINITY),
            config.delta,
            RELATION,
            PrivacyUnit::Example,
            config.examples,
        )?;
        let most = config.most();
        let times = |count: u64| {
            config
                .schedules
                .iter()
                .map(move |schedule| (*schedule, count))
        };
        let noise_multiplier = match (config.noise_multiplier, config.epsilon) {
            (Some(noise), _) => noise,
            (None, Some(_)) => {
                let cost = |noise: f64| {
                    let noise = NoiseMultiplier::new(noise)?;
                    Ok(worst(&config.target(), noise, times(most))?.0)
                };
                let range = (1e-3, 1.0, MOST_NOISE);
                let found = config.target().search("noise_multiplier", range, cost)?;
                NoiseMultiplier::new(found.value)?
            }
            (None, None) => return Err(PrivacyError::NoTarget),
        };
        let mut allowed = vec![None; config.schedules.len()];
        if let Some(limit) = config.epsilon {
            let fits = |count| -> Result<_, PrivacyError> {
                let (cost, dearest) = worst(&config.target(), noise_multiplier, times(count))?;
                Ok((cost.upper <= limit, cost.upper, dearest))
            };
            if fits(most)?.0 {
                allowed.fill(Some(most));
            } else {
                let (once, needed, dearest) = fits(1)?;
                if !once {
                    return Err(PrivacyError::OverBudget {
                        position: 1,
                        event: event(&dearest, noise_multiplier, 1)?.path(),
                        spent: 0.0,
                        needed: needed.get(),
                        limit: limit.get(),
                        delta: config.delta.get(),
                    });
                }
            }
        } else {
            allowed.fill(Some(most));
            // An accountant that cannot count is found before anything is trained.
            worst(&config.target(), noise_multiplier, times(1))?;
        }
        Ok(Self {
            noise_multiplier,
            budget,
            most: vec![0; config.schedules.len()],
            allowed,
            taken: BTreeMap::new(),
            exhausted: 0,
            rounds: 0,
            config,
        })
    }

    /// Takes up what [`Self::save`] wrote after `round` rounds.
    ///
    /// # Errors
    /// As [`Self::new`]; [`PrivacyError::Malformed`] for what is no saved plan, its ledger included;
    /// [`PrivacyError::OtherPlan`] when it is of another plan, or its ledger of other rounds.
    pub fn resume(config: ExamplePlanConfig, round: u64, text: &str) -> Result<Self, PrivacyError> {
        let mut plan = Self::new(config)?;
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
        own(saved.rounds == round, "number of rounds")?;
        for Taken {
            client,
            schedule,
            participations,
        } in saved.taken
        {
            let fits = schedule < plan.most.len()
                && (1..=round).contains(&participations)
                && participations <= plan.allowed_of(schedule)?
                && !plan.taken.contains_key(&client);
            own(fits, "ledger")?;
            plan.note(client, schedule, participations);
        }
        plan.rounds = round;
        Ok(plan)
    }

    /// The state between two rounds, its ledger included, as JSON for [`Self::resume`].
    #[must_use]
    pub fn save(&self) -> String {
        let taken = self.taken.iter();
        let saved = Saved {
            config: self.config.clone(),
            rounds: self.rounds,
            taken: taken
                .map(|(&client, &(schedule, participations))| Taken {
                    client,
                    schedule,
                    participations,
                })
                .collect(),
        };
        serde_json::to_string(&saved)
            .expect("a plan holds only numbers and texts, which JSON can write")
    }

    /// What was decided, its schedules sorted.
    #[must_use]
    pub fn config(&self) -> &ExamplePlanConfig {
        &self.config
    }

    /// What clients are to do.
    #[must_use]
    pub fn privacy(&self) -> ExamplePrivacy {
        ExamplePrivacy {
            clipping: self.config.clipping,
            max_norm: self.config.max_norm,
            noise_multiplier: self.noise_multiplier.get(),
        }
    }

    /// Standard deviation of the noise on a sum of gradients over the clipping norm.
    #[must_use]
    pub fn noise_multiplier(&self) -> NoiseMultiplier {
        self.noise_multiplier
    }

    /// Rounds in the ledger.
    #[must_use]
    pub fn rounds_done(&self) -> u64 {
        self.rounds
    }

    /// Rounds of the ledger that `client` has taken part in.
    #[must_use]
    pub fn participations(&self, client: u64) -> u64 {
        self.taken.get(&client).map_or(0, |&(_, count)| count)
    }

    /// Whether a client of this schedule may take part once more.
    ///
    /// # Errors
    /// [`PrivacyError::OffSchedule`] for a schedule that was not declared; those of the accountant.
    pub fn affords(
        &mut self,
        client: u64,
        schedule: &ExampleSchedule,
    ) -> Result<bool, PrivacyError> {
        let place = self.place(client, schedule)?;
        Ok(self.participations(client) < self.allowed_of(place)?)
    }

    /// Most participations of a client of this schedule.
    ///
    /// # Errors
    /// As [`Self::affords`].
    pub fn most_participations(&mut self, schedule: &ExampleSchedule) -> Result<u64, PrivacyError> {
        let place = self.place(0, schedule)?;
        self.allowed_of(place)
    }

    fn place(&self, client: u64, schedule: &ExampleSchedule) -> Result<usize, PrivacyError> {
        let schedules = &self.config.schedules;
        let found = schedules.binary_search_by_key(&schedule.key(), ExampleSchedule::key);
        let known = self.taken.get(&client).map(|&(place, _)| place);
        match (found, known) {
            (Ok(place), None) => Ok(place),
            (Ok(place), Some(before)) if place == before => Ok(place),
            _ => Err(PrivacyError::OffSchedule {
                position: self.participations(client) + 1,
                given: format!("{schedule:?}"),
                declared: match known {
                    Some(place) => format!("{:?}", schedules[place]),
                    None => format!("{} other schedules", schedules.len()),
                },
            }),
        }
    }

    fn allowed_of(&mut self, place: usize) -> Result<u64, PrivacyError> {
        if let Some(allowed) = self.allowed[place] {
            return Ok(allowed);
        }
        let schedule = self.config.schedules[place];
        let one = sampled(&schedule, self.noise_multiplier)?;
        let most = self.config.most();
        let steps = schedule.steps.saturating_mul(most);
        let fitting = self.config.target().steps(&one, steps)?.value;
        let allowed = (fitting / schedule.steps).min(most);
        self.allowed[place] = Some(allowed);
        Ok(allowed)
    }

    /// Permits these clients, each with its schedule, to train in round `round`, from 0.
    ///
    /// # Errors
    /// [`PrivacyError::WrongRound`] when it is not the next round, [`PrivacyError::OverBudget`] when
    /// a client's budget does not allow it, [`PrivacyError::OffSchedule`] for a schedule that was not
    /// declared. Nothing has changed then.
    pub fn authorise(
        &mut self,
        round: u64,
        clients: &[(u64, ExampleSchedule)],
    ) -> Result<ExamplePermit, PrivacyError> {
        if round != self.rounds {
            return Err(PrivacyError::WrongRound {
                given: round,
                next: self.rounds,
            });
        }
        let mut permitted = Vec::with_capacity(clients.len());
        for (client, schedule) in clients {
            if !self.affords(*client, schedule)? {
                return Err(self.refuse(*client, schedule)?);
            }
            permitted.push((*client, self.place(*client, schedule)?));
        }
        Ok(ExamplePermit {
            round,
            clients: permitted,
        })
    }

    fn refuse(
        &self,
        client: u64,
        schedule: &ExampleSchedule,
    ) -> Result<PrivacyError, PrivacyError> {
        let count = self.participations(client);
        let cost = |count: u64| -> Result<f64, PrivacyError> {
            let times = std::iter::once((*schedule, count));
            Ok(worst(&self.config.target(), self.noise_multiplier, times)?
                .0
                .upper
                .get())
        };
        Ok(PrivacyError::OverBudget {
            position: count + 1,
            event: event(schedule, self.noise_multiplier, 1)?.path(),
            spent: cost(count)?,
            needed: cost(count + 1)?,
            limit: self.budget.epsilon().get(),
            delta: self.budget.delta().get(),
        })
    }

    /// Writes a round into the ledger, once its updates are out.
    pub fn record(&mut self, permit: ExamplePermit) {
        let ExamplePermit { round, clients } = permit;
        for (client, place) in clients {
            let count = self.participations(client) + 1;
            self.note(client, place, count);
        }
        self.rounds = round + 1;
    }

    fn note(&mut self, client: u64, place: usize, count: u64) {
        self.taken.insert(client, (place, count));
        self.most[place] = self.most[place].max(count);
        if self.allowed[place].is_some_and(|allowed| count >= allowed) {
            self.exhausted += 1;
        }
    }

    /// Whether there is a client left whose budget allows it to take part.
    #[must_use]
    pub fn has_budget(&self) -> bool {
        self.exhausted < self.config.clients
    }

    /// Why no client takes part any more; none while one may.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn refusal(&self) -> Result<Option<PrivacyError>, PrivacyError> {
        let Some((&client, &(place, _))) = self.taken.iter().next() else {
            return Ok(None);
        };
        if self.has_budget() {
            return Ok(None);
        }
        self.refuse(client, &self.config.schedules[place]).map(Some)
    }

    /// What was spent so far, by the client that it cost most.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn spent(&self) -> Result<Spent, PrivacyError> {
        Ok(self.spent_on(self.so_far())?.0)
    }

    fn so_far(&self) -> impl Iterator<Item = (ExampleSchedule, u64)> {
        let schedules = self.config.schedules.iter().zip(&self.most);
        schedules.map(|(schedule, &count)| (*schedule, count))
    }

    /// What is spent at most after so many rounds, by a client that takes part whenever it may.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn spent_after(&self, rounds: u64) -> Result<Spent, PrivacyError> {
        Ok(self.spent_on(self.dearest_after(rounds))?.0)
    }

    fn dearest_after(&self, rounds: u64) -> impl Iterator<Item = (ExampleSchedule, u64)> {
        let count = rounds.min(self.config.most());
        let schedules = self.config.schedules.iter().zip(&self.allowed);
        schedules.map(move |(schedule, allowed)| {
            let count = allowed.map_or(count, |allowed| allowed.min(count));
            (*schedule, count)
        })
    }

    fn spent_on(
        &self,
        times: impl Iterator<Item = (ExampleSchedule, u64)>,
    ) -> Result<(Spent, ExampleSchedule), PrivacyError> {
        let (mut epsilon, dearest) = worst(&self.config.target(), self.noise_multiplier, times)?;
        // Whoever would spend more than the budget does not take part.
        if self.allowed.contains(&None) {
            let limit = self.budget.epsilon();
            if epsilon.upper > limit {
                epsilon.upper = limit;
            }
            if epsilon.lower > limit {
                epsilon.lower = limit;
            }
        }
        let spent = Spent {
            epsilon,
            unamplified: epsilon.upper,
        };
        Ok((spent, dearest))
    }

    /// The guarantee after so many of the declared rounds, in words and numbers: of the rounds in
    /// the ledger as they went, of others with clients that take part whenever they may.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn statement(&self, rounds: u64) -> Result<PrivacyStatement, PrivacyError> {
        let config = &self.config;
        let as_they_went = rounds > 0 && rounds == self.rounds;
        let (spent, dearest) = match as_they_went {
            true => self.spent_on(self.so_far())?,
            false => self.spent_on(self.dearest_after(rounds))?,
        };
        let participations = match as_they_went {
            true => self.most.iter().copied().max().unwrap_or(0),
            false => rounds.min(config.most()),
        };
        let examples = Sampler::poisson(config.examples, dearest.sampling_rate)?;
        Ok(PrivacyStatement {
            unit: PrivacyUnit::Example,
            relation: RELATION,
            sampling: examples.clone(),
            trust: TrustModel::Device,
            rounds,
            correlation: None,
            noise_multiplier: self.noise_multiplier,
            epsilon: spent.epsilon,
            unamplified: spent.unamplified,
            delta: config.delta,
            delta_is_lax: self.budget.delta_is_lax(),
            budget: config.epsilon,
            accountant: config.accountant,
            extrapolation: None,
            simulated: examples,
            clients: None,
            steps: Some(LocalSteps {
                participations,
                steps: dearest.steps,
                sampling_rate: dearest.sampling_rate,
            }),
        })
    }
}

fn sampled(schedule: &ExampleSchedule, noise: NoiseMultiplier) -> Result<DpEvent, PrivacyError> {
    DpEvent::poisson_sampled(schedule.sampling_rate, DpEvent::gaussian(noise))
}

/// `count` participations as an event.
fn event(
    schedule: &ExampleSchedule,
    noise: NoiseMultiplier,
    count: u64,
) -> Result<DpEvent, PrivacyError> {
    let steps = schedule.steps.saturating_mul(count);
    DpEvent::self_composed(sampled(schedule, noise)?, steps)
}

/// The largest epsilon of clients that have taken part so often, and the schedule of that client.
fn worst(
    target: &Target,
    noise: NoiseMultiplier,
    clients: impl Iterator<Item = (ExampleSchedule, u64)>,
) -> Result<(Bounds<Epsilon>, ExampleSchedule), PrivacyError> {
    /// Rate and steps in all, and the schedule that they are of.
    type Point = (f64, u64, ExampleSchedule);
    let mut points: Vec<Point> = clients
        .map(|(schedule, count)| {
            let steps = schedule.steps.saturating_mul(count);
            (schedule.sampling_rate, steps, schedule)
        })
        .collect();
    // Highest rate first; of those after it only what has more steps can cost more.
    points.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    let mut steps = None;
    points.retain(|point| {
        let more = steps.is_none_or(|steps| point.1 > steps);
        if more {
            steps = Some(point.1);
        }
        more
    });
    let cost = |part: core::ops::Range<usize>| -> Result<Bounds<Epsilon>, PrivacyError> {
        let (rate, steps) = (points[part.start].0, points[part.end - 1].1);
        let mut sum = accountant(target.accountant, target.relation);
        let event = DpEvent::poisson_sampled(rate, DpEvent::gaussian(noise))?;
        if steps > 0 && noise.get() <= 0.0 {
            return Ok(Bounds {
                upper: Epsilon::INFINITY,
                lower: Epsilon::ZERO,
            });
        }
        sum.compose(&event, steps)?;
        sum.epsilon(target.delta)
    };
    // Parts with bounds of what any of their points costs; the dearest is split until it is one.
    let mut parts = vec![(cost(0..points.len())?, 0..points.len())];
    loop {
        let dearest = (0..parts.len())
            .max_by(|&a, &b| parts[a].0.upper.get().total_cmp(&parts[b].0.upper.get()))
            .unwrap_or(0);
        let (bounds, part) = parts.swap_remove(dearest);
        if part.len() <= 1 {
            return Ok((bounds, points[part.start].2));
        }
        let middle = part.start + part.len() / 2;
        for half in [part.start..middle, middle..part.end] {
            parts.push((cost(half.clone())?, half));
        }
    }
}

#[cfg(test)]
mod tests;
