//! The [`ClientPlan`]: clients add the noise themselves, so that the server need not be trusted with
//! what they send.
//!
//! # Two places
//! - [`ClientNoise::Local`]: the server sees each noised update. Every client's noise must protect it
//!   alone (local differential privacy; Kasiviswanathan et al. 2011; for updates of a fixed norm
//!   Abadi et al. 2016's Gaussian mechanism at the client).
//! - [`ClientNoise::Distributed`]: the server sees the sum of a round's vectors modulo `2^b` and no
//!   single one, as secure aggregation promises; every client adds a share of the noise that the sum
//!   needs ([`crate::distributed`]; Kairouz, Liu and Steinke 2021, arXiv:2102.06387; Agarwal, Kairouz
//!   and Liu 2021, arXiv:2110.04995). **Secure aggregation is assumed** by the guarantee, whoever
//!   adds the vectors.
//!
//! # Two observers
//! *The server* knows who takes part, so sampling hides nobody from it; but a round costs only those
//! who report. A client reports in at most [`ClientPlan::participations`] rounds (after that it stays
//! out), and that many events bound its loss. Up to [`ClientPlan::colluders`] clients of a round may
//! tell the server their noise, which then does not count.
//!
//! *Those who see the released models* alone gain less. For cohorts of fixed size, and neighbours
//! that differ by one replaced client, sampling without replacement amplifies (Wang, Balle and
//! Kasiviswanathan 2019, arXiv:1808.00087). It is credited when who drops out depends on nothing
//! that clients are or hold: those who report are then a uniform subset of their number, which is
//! smaller than the cohort. For Poisson cohorts nothing is credited: their size decides how much
//! noise there is, which the model shows.
//!
//! Neighbours replace a client; to add or remove one would add or remove noise.
//!
//! # A round
//! A client's noise is a share for the fewest reports that a round may have, the threshold
//! ([`ClientPlanConfig::least_survivors`] of the expected cohort, less those that collude). A round
//! below it is [given up](ClientPlan::give_up): secure aggregation does not open its sum. More
//! reports are more noise. What was declared holds for rounds at the threshold, what was
//! [spent](ClientPlan::spent) for the fewest reports that a round really had.
//!
//! 1. Clients that [may](ClientPlan::may_report) clip, add noise and send
//!    ([`ClientPlan::encode`], [`ClientPlan::protect`]).
//! 2. [`ClientPlan::authorise`] writes the round and its reports into the ledger, or refuses.
//! 3. [`ClientPlan::decode`] or [`ClientPlan::mean`] consumes the permit and divides by the number
//!    of reports, which is public here.

mod config;
mod spending;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fl_core::{ClientId, ModularSum};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

pub use config::{ClientNoise, ClientPlanConfig, RingNoise};
use spending::Terms;

use super::statement::{ClientSide, Observer, PrivacyStatement, RingFacts, Spent, TrustModel};
use crate::budget::PrivacyBudget;
use crate::clip::{Clipped, Clipper as _, FlatClip, changes};
use crate::distributed::{DistributedConfig, DistributedDp, Encoded, Rotation};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::mechanism::gaussian;
use crate::relation::PrivacyUnit;
use crate::units::{Epsilon, NoiseMultiplier};

/// Leave to open the sum of one round; made by [`ClientPlan::authorise`] once the round is in the
/// ledger.
#[derive(Debug)]
#[must_use = "the round is in the ledger; release its sum"]
pub struct ClientPermit {
    round: u64,
    reports: u64,
}

impl ClientPermit {
    /// The round.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Clients in the sum.
    #[must_use]
    pub fn reports(&self) -> u64 {
        self.reports
    }
}

/// A private aggregation whose noise is the clients' own.
///
/// ```
/// use fl_core::{ClientId, ModularSum, Purpose, RoundId, Seed, Stream};
/// use fl_privacy::distributed::Rotation;
/// use fl_privacy::plan::{ClientNoise, ClientPlan, ClientPlanConfig, RingNoise};
/// use fl_privacy::{Delta, Epsilon, Sampler};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let noise = ClientNoise::Distributed(RingNoise::default());
/// let sampler = Sampler::fixed_size(100, 10)?;
/// let config = ClientPlanConfig {
///     epsilon: Some(Epsilon::new(8.0)?),
///     ..ClientPlanConfig::new(noise, sampler, 1.0, Delta::new(1e-4)?, 20)
/// };
/// let mut plan = ClientPlan::new(config, 4)?;
/// let ring = plan.ring().ok_or("a distributed plan has a ring")?;
/// let at = |purpose, client| Stream::at(purpose, Seed(1), RoundId(0), client);
/// let rotation = Rotation::new(&mut at(Purpose::Rotation, ClientId(0)), ring.padded());
/// let mut sum = ModularSum::new(ring.config().bits, ring.padded())?;
/// // Nine of ten report; eight are enough.
/// let clients: Vec<ClientId> = (0..9).map(ClientId).collect();
/// let mut vector = Vec::new();
/// for &client in &clients {
///     let mut update = [0.3, 0.0, -0.1, 0.2];
///     let (mut round, mut noise) = (at(Purpose::UpdateCodec, client), at(Purpose::LocalNoise, client));
///     plan.encode(&mut update, &rotation, &mut round, &mut noise, &mut vector)?;
///     sum.add(&vector)?;
/// }
/// let permit = plan.authorise(0, &clients)?;
/// let mean = plan.decode(permit, &sum, &rotation)?;
/// assert_eq!(mean.len(), 4);
/// assert!(plan.spent()?.unamplified.get() < 8.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ClientPlan {
    terms: Terms,
    noise_multiplier: NoiseMultiplier,
    clip: FlatClip,
    ring: Option<DistributedDp>,
    last_round: u64,
    participations: u64,
    budget: PrivacyBudget,
    state: State,
}

/// What changes from round to round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Rounds that are over, those included that were given up.
    rounds: u64,
    /// Rounds whose sum was released.
    released: u64,
    /// The fewest reports of such a round.
    fewest: Option<u64>,
    /// In how many rounds a client reported.
    reports: BTreeMap<u64, u64>,
    /// The rounds, as those see them who see the released models.
    ledger: Ledger,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config: ClientPlanConfig,
    dimension: usize,
    state: State,
}

impl ClientPlan {
    /// A plan before its first round, for updates of `dimension` values.
    ///
    /// # Errors
    /// [`PrivacyError`]: a value out of its range, a `delta` of one over the population or more, a
    /// relation or a sampler under which clients' noise has no guarantee, neither noise nor
    /// `epsilon`, an `epsilon` that no noise reaches, or a budget that does not allow even the first
    /// round; [`PrivacyError::BitsTooFew`] with the bits that would do when the ring is too small.
    pub fn new(config: ClientPlanConfig, dimension: usize) -> Result<Self, PrivacyError> {
        let clip = FlatClip::new(config.max_norm)?;
        let budget = PrivacyBudget::new(
            config.epsilon.unwrap_or(Epsilon::INFINITY),
            config.delta,
            config.relation,
            PrivacyUnit::Client,
            config.sampler.population(),
        )?;
        let (noise, epsilon) = (config.noise_multiplier, config.epsilon);
        let terms = Terms::new(config, dimension)?;
        let (noise_multiplier, ring) = match (noise, epsilon) {
            (None, None) => return Err(PrivacyError::NoTarget),
            (Some(noise), _) => terms.with_noise(noise)?,
            (None, Some(epsilon)) => terms.calibrate(epsilon)?,
        };
        let mut plan = Self {
            participations: 0,
            last_round: 0,
            terms,
            noise_multiplier,
            clip,
            ring,
            budget,
            state: State::default(),
        };
        plan.last_round = plan.affordable()?;
        plan.participations = plan.terms.participations(plan.last_round.max(1));
        if plan.last_round == 0 {
            return Err(plan.over_budget(0)?);
        }
        Ok(plan)
    }

    /// Takes up what [`Self::save`] wrote after `round` rounds.
    ///
    /// # Errors
    /// As [`Self::new`]; [`PrivacyError::Malformed`] for what is no saved plan, its ledger included;
    /// [`PrivacyError::OtherPlan`] when it is of another plan, or of other rounds.
    pub fn resume(
        config: ClientPlanConfig,
        dimension: usize,
        round: u64,
        text: &str,
    ) -> Result<Self, PrivacyError> {
        let mut plan = Self::new(config, dimension)?;
        let saved: Saved = serde_json::from_str(text).map_err(|error| PrivacyError::Malformed {
            what: "privacy plan",
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        })?;
        let released = saved.state.ledger.entries().iter();
        let released: u64 = released.map(|entry| entry.count).sum();
        for (same, what) in [
            (saved.config == plan.terms.config, "configuration"),
            (saved.dimension == plan.terms.dimension, "model"),
            (saved.state.rounds == round, "number of rounds"),
            (saved.state.released == released, "ledger"),
        ] {
            if !same {
                return Err(PrivacyError::OtherPlan { what });
            }
        }
        plan.state = saved.state;
        Ok(plan)
    }

    /// The state between two rounds, its ledger included, as JSON for [`Self::resume`].
    #[must_use]
    pub fn save(&self) -> String {
        let saved = Saved {
            config: self.terms.config.clone(),
            dimension: self.terms.dimension,
            state: self.state.clone(),
        };
        serde_json::to_string(&saved)
            .expect("a plan holds only numbers and texts, which JSON can write")
    }

    /// What was decided.
    #[must_use]
    pub fn config(&self) -> &ClientPlanConfig {
        &self.terms.config
    }

    /// The noise multiplier: see [`ClientPlanConfig::noise_multiplier`].
    #[must_use]
    pub fn noise_multiplier(&self) -> NoiseMultiplier {
        self.noise_multiplier
    }

    /// How updates become elements of the ring; none for local noise.
    #[must_use]
    pub fn ring(&self) -> Option<&DistributedDp> {
        self.ring.as_ref()
    }

    /// The standard deviation of a client's noise on each value of its update.
    #[must_use]
    pub fn local_std(&self) -> f64 {
        match &self.ring {
            Some(ring) => ring.local_std(),
            None => {
                self.noise_multiplier.get()
                    * changes(self.config().relation)
                    * self.config().max_norm
            }
        }
    }

    /// The standard deviation of the noise on each value of the sum of so many reports.
    #[must_use]
    pub fn sum_std(&self, reports: u64) -> f64 {
        self.local_std() * libm::sqrt(reports as f64)
    }

    /// Fewest reports of a round.
    #[must_use]
    pub fn least_survivors(&self) -> u64 {
        self.terms.least
    }

    /// Most clients of a round whose noise does not count.
    #[must_use]
    pub fn colluders(&self) -> u64 {
        self.terms.colluders
    }

    /// Most rounds in which one client reports.
    #[must_use]
    pub fn participations(&self) -> u64 {
        self.participations
    }

    /// Whether the secrecy of samples is credited to the released models; it rests on who drops out
    /// depending on nothing that clients are or hold.
    #[must_use]
    pub fn is_amplified(&self) -> bool {
        self.terms.is_amplified()
    }

    /// Rounds that are over, those included that were given up.
    #[must_use]
    pub fn rounds_done(&self) -> u64 {
        self.state.rounds
    }

    /// What was released so far, as those see it who see the released models.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// Rounds that the budget allows in all; at most the declared ones.
    #[must_use]
    pub fn last_round(&self) -> u64 {
        self.last_round
    }

    /// Why there is no round after the last; nothing when every declared round is allowed.
    #[must_use]
    pub fn refusal(&self) -> Option<PrivacyError> {
        if self.last_round >= self.config().rounds {
            return None;
        }
        self.over_budget(self.last_round).ok()
    }

    /// Whether a client may report once more.
    #[must_use]
    pub fn may_report(&self, client: ClientId) -> bool {
        let reports = self.state.reports.get(&client.0);
        reports.is_none_or(|&reports| reports < self.participations)
    }

    /// A client's vector for secure aggregation: clipped, rotated, scaled, rounded, noised and
    /// reduced; [`DistributedDp::encode`].
    ///
    /// # Errors
    /// [`PrivacyError::WrongLength`]; [`PrivacyError::PrivateAggregation`] for local noise, which
    /// has no ring.
    pub fn encode(
        &self,
        update: &mut [f32],
        rotation: &Rotation,
        rounding: &mut dyn Rng,
        noise: &mut dyn Rng,
        out: &mut Vec<u64>,
    ) -> Result<Encoded, PrivacyError> {
        self.in_ring()?
            .encode(update, rotation, rounding, noise, out)
    }

    /// Clips an update and adds the client's own Gaussian noise, in place: what a client with local
    /// noise sends.
    ///
    /// # Errors
    /// [`PrivacyError::PrivateAggregation`] for distributed noise, which belongs into the ring.
    pub fn protect<R: Rng + ?Sized>(
        &self,
        update: &mut [f32],
        noise: &mut R,
    ) -> Result<Clipped, PrivacyError> {
        if self.ring.is_some() {
            return Err(PrivacyError::PrivateAggregation {
                what: "sending an update with a share of the noise",
                reason: "the share protects the sum alone",
                instead: "encode it for secure aggregation",
            });
        }
        let clipped = self.clip.clip(update);
        gaussian::add(noise, self.local_std(), update);
        Ok(clipped)
    }

    fn in_ring(&self) -> Result<&DistributedDp, PrivacyError> {
        self.ring.as_ref().ok_or(PrivacyError::PrivateAggregation {
            what: "encoding an update with local noise for a ring",
            reason: "local noise is no integer",
            instead: "use the plan of distributed noise",
        })
    }

    /// Whether a round with so many reports may be released.
    ///
    /// # Errors
    /// [`PrivacyError::TooFewSurvivors`] when it may not.
    pub fn check_reports(&self, round: u64, reports: u64) -> Result<(), PrivacyError> {
        if reports < self.terms.least {
            return Err(PrivacyError::TooFewSurvivors {
                round,
                survivors: reports,
                least: self.terms.least,
            });
        }
        Ok(())
    }

    /// Writes round `round`, from 0, and those who reported in it into the ledger. Only its permit
    /// lets the sum be opened.
    ///
    /// # Errors
    /// [`PrivacyError::WrongRound`] when it is not the next round, [`PrivacyError::OverBudget`] when
    /// the budget does not allow it, [`PrivacyError::TooFewSurvivors`] below the threshold and
    /// [`PrivacyError::SpentClient`] for a client that [may not](Self::may_report). After an error
    /// nothing has changed.
    pub fn authorise(
        &mut self,
        round: u64,
        clients: &[ClientId],
    ) -> Result<ClientPermit, PrivacyError> {
        self.check_next(round)?;
        if round >= self.last_round {
            return Err(self.over_budget(round)?);
        }
        let reports = clients.len() as u64;
        self.check_reports(round, reports)?;
        if let Some(spent) = clients.iter().find(|&&client| !self.may_report(client)) {
            return Err(PrivacyError::SpentClient {
                client: spent.0,
                limit: self.participations,
            });
        }
        let event = self.released_event(reports)?;
        self.state.ledger.record(&event, 1);
        self.state.released += 1;
        let fewest = self
            .state
            .fewest
            .map_or(reports, |least| least.min(reports));
        self.state.fewest = Some(fewest);
        self.count(clients);
        Ok(ClientPermit { round, reports })
    }

    /// Ends a round without releasing anything of it. Of distributed noise nobody saw anything then;
    /// with local noise the server has seen what `clients` sent.
    ///
    /// # Errors
    /// [`PrivacyError::WrongRound`] when it is not the next round.
    pub fn give_up(&mut self, round: u64, clients: &[ClientId]) -> Result<(), PrivacyError> {
        self.check_next(round)?;
        let seen = match self.ring {
            Some(_) => &[],
            None => clients,
        };
        self.count(seen);
        Ok(())
    }

    fn check_next(&self, round: u64) -> Result<(), PrivacyError> {
        let next = self.state.rounds;
        if round != next {
            return Err(PrivacyError::WrongRound { given: round, next });
        }
        Ok(())
    }

    fn count(&mut self, clients: &[ClientId]) {
        for client in clients {
            *self.state.reports.entry(client.0).or_default() += 1;
        }
        self.state.rounds += 1;
    }

    /// The mean of the reports, from their decoded sum: `sum` leaves as what may be published.
    pub fn mean(&self, permit: ClientPermit, sum: &mut [f64]) {
        let reports = permit.reports as f64;
        for value in sum {
            *value /= reports;
        }
    }

    /// The mean of the reports, from their sum in the ring.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] for a sum of other reports than the permit's,
    /// [`PrivacyError::WrongLength`] for one of another length.
    pub fn decode(
        &self,
        permit: ClientPermit,
        sum: &ModularSum,
        rotation: &Rotation,
    ) -> Result<Vec<f64>, PrivacyError> {
        let ring = self.in_ring()?;
        PrivacyError::unless_count(
            sum.vectors() == permit.reports,
            "the number of vectors in the sum",
            sum.vectors(),
            "one for each report that is in the ledger",
        )?;
        let elements: Vec<u64> = sum.elements().collect();
        let mut mean = ring.decode(&elements, rotation)?;
        self.mean(permit, &mut mean);
        Ok(mean)
    }

    /// What a round with so many reports is to those who see the released models.
    fn released_event(&self, reports: u64) -> Result<DpEvent, PrivacyError> {
        let inner = self
            .terms
            .inner(self.noise_multiplier, self.ring.as_ref(), reports)?;
        self.terms.sampled(inner)
    }

    /// What was spent so far, as if every released round had had the fewest reports of one.
    /// [`Spent::epsilon`] is that of the released models, [`Spent::unamplified`] that of the server:
    /// for the client that reported most often.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn spent(&self) -> Result<Spent, PrivacyError> {
        let most = self.state.reports.values().copied().max().unwrap_or(0);
        let fewest = self.state.fewest.unwrap_or(self.terms.least);
        self.spending(self.state.released, most, fewest)
    }

    /// What so many of the declared rounds spend at most: each with the fewest reports that it may
    /// have, for a client that reports as often as it may.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn declared(&self, rounds: u64) -> Result<Spent, PrivacyError> {
        let most = self.terms.participations(rounds);
        self.spending(rounds, most, self.terms.least)
    }

    fn spending(&self, rounds: u64, most: u64, reports: u64) -> Result<Spent, PrivacyError> {
        let noise = self.noise_multiplier;
        self.terms
            .spending(noise, self.ring.as_ref(), rounds, most, reports)
    }

    fn observed(&self, spent: &Spent) -> Epsilon {
        match self.config().observer {
            Observer::Server => spent.unamplified,
            Observer::Released => spent.epsilon.upper,
        }
    }

    /// The most declared rounds within the budget, by bisection: epsilon grows with the rounds.
    fn affordable(&self) -> Result<u64, PrivacyError> {
        let rounds = self.config().rounds;
        let Some(limit) = self.config().epsilon else {
            return Ok(rounds);
        };
        let fits = |rounds| -> Result<bool, PrivacyError> {
            Ok(self.observed(&self.declared(rounds)?) <= limit)
        };
        if fits(rounds)? {
            return Ok(rounds);
        }
        let (mut low, mut high) = (0, rounds);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Why round `round` is refused.
    fn over_budget(&self, round: u64) -> Result<PrivacyError, PrivacyError> {
        let event = self.released_event(self.terms.least)?;
        let at = |rounds| -> Result<f64, PrivacyError> {
            Ok(self.observed(&self.declared(rounds)?).get())
        };
        Ok(PrivacyError::OverBudget {
            position: round + 1,
            event: event.path(),
            spent: at(round)?,
            needed: at(round + 1)?,
            limit: self.budget.epsilon().get(),
            delta: self.budget.delta().get(),
        })
    }

    /// The guarantee in words and numbers: of what really happened when `rounds` are those that are
    /// over, else of what so many rounds may spend.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn statement(&self, rounds: u64) -> Result<PrivacyStatement, PrivacyError> {
        let config = self.config();
        let over = rounds == self.state.rounds && rounds > 0;
        let (spent, participations) = if over {
            let most = self.state.reports.values().copied().max();
            (self.spent()?, most.unwrap_or(0))
        } else {
            (self.declared(rounds)?, self.terms.participations(rounds))
        };
        Ok(PrivacyStatement {
            unit: PrivacyUnit::Client,
            relation: config.relation,
            sampling: config.sampler.clone(),
            trust: match config.noise {
                ClientNoise::Local => TrustModel::Local,
                ClientNoise::Distributed(_) => TrustModel::Distributed,
            },
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
            simulated: config.sampler.clone(),
            steps: None,
            clients: Some(ClientSide {
                observer: config.observer,
                least_survivors: self.terms.least,
                colluders: self.terms.colluders,
                participations,
                amplified: self.terms.is_amplified(),
                local_std: self.local_std(),
                max_norm: config.max_norm,
                ring: self.ring.as_ref().map(|ring| RingFacts {
                    mechanism: ring.config().noise,
                    bits: ring.config().bits,
                    length: ring.padded() as u64,
                    bytes: ring.bytes(),
                    scale: ring.scale(),
                    wrap_probability: ring.wrap_probability(),
                    rounding_share: ring.rounding_share(),
                }),
            }),
        })
    }
}
