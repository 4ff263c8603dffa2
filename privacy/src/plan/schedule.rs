//! The events of a plan's rounds.
//!
//! | noise | event of a round | source |
//! |---|---|---|
//! | independent | the sampler's, of one Gaussian release | |
//! | correlated | what the round adds to the squared sensitivity of the run so far | below |
//! | banded, over a random part of groups that take turns at least as many rounds apart as there are bands | the sampler's, of one Gaussian release on a column of `C` | Choquette-Choo et al. 2023, arXiv:2306.08153 |
//!
//! A run that stops after `t` rounds has released one Gaussian mechanism on the first `t` rows and
//! columns of `C` (which is lower triangular), of sensitivity `s_t` over its participations. Such a
//! mechanism is as private as the composition of Gaussian mechanisms with squared sensitivities
//! `s_1^2, s_2^2 - s_1^2, ..` (Dong, Roth and Su 2019, arXiv:1905.02383, Corollary 3.3), so these
//! increments are the rounds' events: their prefixes have exactly the loss of the run so far, and
//! the budget can end it anywhere.

use super::{Correlation, DpPlanConfig, Spent};
use crate::accountant::{Accountant, AccountantKind, accountant};
use crate::calibrate::Target;
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::matrix::Factorization;
use crate::relation::NeighboringRelation;
use crate::sampling::Sampler;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// The most entries that correlated noise has in a ledger. In longer runs some rounds are charged
/// in advance for those that follow, so that a ledger stays small.
const MOST_CHARGES: usize = 1024;

/// A factor that outweighs the rounding of a few operations.
const ROUND_UP: f64 = 1.0 + 8.0 * f64::EPSILON;

/// What each round is, once the noise is known.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    sampler: Sampler,
    relation: NeighboringRelation,
    accountant: AccountantKind,
    delta: Delta,
    rounds: u64,
    correlation: Option<Correlation>,
    law: Law,
}

#[derive(Clone, Debug)]
enum Law {
    /// Each round is released by itself.
    Rounds,
    /// Each participation is a release with this sensitivity.
    Columns { norm: f64 },
    /// The squared sensitivity of the run up to and including each round.
    Run { squares: Vec<f64> },
}

impl Schedule {
    pub(super) fn new(
        config: &DpPlanConfig,
        accounted: &Sampler,
        correlation: Option<Correlation>,
    ) -> Result<Self, PrivacyError> {
        accounted.fits(config.relation)?;
        let law = match &correlation {
            None => Law::Rounds,
            Some(correlation) => match (accounted, &correlation.factorization) {
                (
                    Sampler::CyclicPoisson {
                        period,
                        sampling_rate,
                        ..
                    },
                    Factorization::Banded(matrix),
                ) if *sampling_rate < 1.0 && matrix.coefficients().len() as u64 <= *period => {
                    let squares: f64 = matrix.coefficients().iter().map(|c| c * c).sum();
                    let rounding = 1.0 + matrix.coefficients().len() as f64 * f64::EPSILON;
                    Law::Columns {
                        norm: libm::sqrt(squares) * rounding,
                    }
                }
                (_, factorization) => {
                    let mut squares =
                        factorization.squared_sensitivities(&correlation.participation);
                    let block = squares.len().div_ceil(MOST_CHARGES);
                    for charged in squares.chunks_mut(block.max(1)) {
                        let last = charged.last().copied().unwrap_or(0.0);
                        charged.fill(last);
                    }
                    Law::Run { squares }
                }
            },
        };
        Ok(Self {
            sampler: accounted.clone(),
            relation: config.relation,
            accountant: config.accountant,
            delta: config.delta,
            rounds: config.rounds,
            correlation,
            law,
        })
    }

    pub(super) fn correlation(&self) -> Option<&Correlation> {
        self.correlation.as_ref()
    }

    /// A participation as it is released.
    fn release(&self, noise: NoiseMultiplier) -> Result<DpEvent, PrivacyError> {
        let noise = match self.law {
            Law::Columns { norm } => NoiseMultiplier::new(noise.get() / norm / ROUND_UP)?,
            Law::Rounds | Law::Run { .. } => noise,
        };
        Ok(DpEvent::gaussian(noise))
    }

    /// The event of a round.
    pub(super) fn event(
        &self,
        round: u64,
        noise: NoiseMultiplier,
    ) -> Result<DpEvent, PrivacyError> {
        let Law::Run { squares } = &self.law else {
            let release = self.release(noise)?;
            return self.sampler.round_event(round, &release, self.relation);
        };
        // Rounds beyond the last are not on the schedule, whatever they are.
        let until = |rounds: usize| match rounds {
            0 => 0.0,
            _ => squares.get(rounds - 1).copied().unwrap_or(f64::MAX),
        };
        let round = usize::try_from(round).unwrap_or(usize::MAX - 1);
        let grown = until(round + 1) - until(round);
        if grown > 0.0 {
            DpEvent::matrix_factorization(noise, libm::sqrt(grown) * ROUND_UP)
        } else {
            Ok(DpEvent::NoOp)
        }
    }

    /// All rounds.
    pub(super) fn ledger(&self, noise: NoiseMultiplier) -> Result<Ledger, PrivacyError> {
        let mut ledger = Ledger::default();
        for round in 0..self.rounds {
            ledger.record(&self.event(round, noise)?, 1);
        }
        Ok(ledger)
    }

    /// An accountant of the first `rounds` of these events; of correlated noise, of the one event
    /// that is as private.
    fn composed(
        &self,
        kind: AccountantKind,
        rounds: u64,
        noise: NoiseMultiplier,
        event: impl Fn(u64, &DpEvent) -> Result<DpEvent, PrivacyError>,
    ) -> Result<Box<dyn Accountant>, PrivacyError> {
        let mut ledger = Ledger::default();
        if let Law::Run { squares } = &self.law {
            let rounds = squares
                .len()
                .min(usize::try_from(rounds).unwrap_or(usize::MAX));
            if let Some(last) = rounds.checked_sub(1) {
                let sensitivity = libm::sqrt(squares[last]) * ROUND_UP;
                ledger.record(&DpEvent::matrix_factorization(noise, sensitivity)?, 1);
            }
        } else {
            let release = self.release(noise)?;
            for round in 0..rounds {
                ledger.record(&event(round, &release)?, 1);
            }
        }
        let mut sum = accountant(kind, self.relation);
        for entry in ledger.entries() {
            sum.compose(&entry.event, entry.count)?;
        }
        Ok(sum)
    }

    /// What the released models tell after so many rounds.
    pub(super) fn released(
        &self,
        kind: AccountantKind,
        rounds: u64,
        noise: NoiseMultiplier,
    ) -> Result<Box<dyn Accountant>, PrivacyError> {
        self.composed(kind, rounds, noise, |round, release| {
            self.sampler.round_event(round, release, self.relation)
        })
    }

    /// What is spent after so many rounds with noise above 0.
    pub(super) fn spent(&self, rounds: u64, noise: NoiseMultiplier) -> Result<Spent, PrivacyError> {
        let released = self.released(self.accountant, rounds, noise)?;
        let seen = self.composed(AccountantKind::Gaussian, rounds, noise, |round, release| {
            self.sampler
                .unamplified_event(round, release, self.relation)
        })?;
        Ok(Spent {
            epsilon: released.epsilon(self.delta)?,
            unamplified: seen.epsilon(self.delta)?.upper,
        })
    }

    /// The least noise with which the declared rounds together spend at most `epsilon`.
    pub(super) fn calibrate(&self, epsilon: Epsilon) -> Result<NoiseMultiplier, PrivacyError> {
        let target = Target {
            epsilon,
            delta: self.delta,
            accountant: self.accountant,
            relation: self.relation,
        };
        if let Law::Run { squares } = &self.law {
            // The increments' rounding must not cost the last round.
            let all = libm::sqrt(squares.last().copied().unwrap_or(0.0)) * (1.0 + 1e-9);
            let event = |noise| DpEvent::matrix_factorization(noise, all);
            return Ok(target.noise_multiplier(1, event)?.value);
        }
        // Where a member takes part in some rounds only, the others are no events.
        let one = DpEvent::gaussian(NoiseMultiplier::new(1.0)?);
        let mut participations = 0;
        for round in 0..self.rounds {
            let event = self.sampler.round_event(round, &one, self.relation)?;
            participations += u64::from(event != DpEvent::NoOp);
        }
        let event = |noise| {
            self.sampler
                .round_event(0, &self.release(noise)?, self.relation)
        };
        Ok(target.noise_multiplier(participations, event)?.value)
    }
}
