//! What is decided about the protection of examples before the first round.

use fl_core::ExampleClipping;
use serde::{Deserialize, Serialize};

use crate::accountant::AccountantKind;
use crate::calibrate::Target;
use crate::error::PrivacyError;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// The relation of the guarantee, see the [module](super).
pub(super) const RELATION: NeighboringRelation = NeighboringRelation::ReplaceSpecial;

/// What one participation of a client is: public, as it follows from its number of examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleSchedule {
    /// The probability of each example in each step, above 0 and at most 1.
    pub sampling_rate: f64,
    /// Steps, at least 1.
    pub steps: u64,
}

impl ExampleSchedule {
    /// Orders by rate, then by steps. The bits of numbers above zero are in their order.
    pub(super) fn key(&self) -> (u64, u64) {
        (self.sampling_rate.to_bits(), self.steps)
    }
}

/// Everything about the protection of examples that is decided before the first round. All of it
/// is public.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExamplePlanConfig {
    /// What clients do in a round: every schedule that a client of the population has.
    pub schedules: Vec<ExampleSchedule>,
    /// Clients in all.
    pub clients: u64,
    /// Examples of all clients.
    pub examples: u64,
    /// Rounds that are declared.
    pub rounds: u64,
    /// Rounds that a client takes part in at most; all of them when not given.
    pub participations: Option<u64>,
    /// How gradients are clipped.
    pub clipping: ExampleClipping,
    /// The norm to which an example's gradient is clipped.
    pub max_norm: f64,
    /// Standard deviation of the noise on a sum of gradients over `max_norm`; when not given, the
    /// least that keeps `epsilon` for every client that takes part as often as it may.
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Most that an example may lose; a client stops taking part before.
    pub epsilon: Option<Epsilon>,
    /// The `delta` of all statements; below one over all examples.
    pub delta: Delta,
    /// Who counts.
    pub accountant: AccountantKind,
}

impl ExamplePlanConfig {
    pub(super) fn check(&self) -> Result<(), PrivacyError> {
        let count = PrivacyError::unless_count;
        count(
            self.rounds > 0,
            "the number of declared rounds",
            self.rounds,
            "at least 1",
        )?;
        if let Some(most) = self.participations {
            count(
                most > 0,
                "the most participations of a client",
                most,
                "at least 1",
            )?;
        }
        count(
            !self.schedules.is_empty(),
            "the number of schedules of clients",
            0,
            "at least 1",
        )?;
        for schedule in &self.schedules {
            PrivacyError::unless(
                schedule.sampling_rate > 0.0 && schedule.sampling_rate <= 1.0,
                "the sampling rate of examples",
                schedule.sampling_rate,
                "above 0 and at most 1",
            )?;
            count(
                (1..=1 << 32).contains(&schedule.steps),
                "the number of private steps of a round",
                schedule.steps,
                "from 1 to 4294967296",
            )?;
        }
        PrivacyError::unless(
            (1e-20..=1e20).contains(&self.max_norm),
            "max_norm",
            self.max_norm,
            "from 1e-20 to 1e20",
        )?;
        if let ExampleClipping::Automatic { stability } = self.clipping {
            PrivacyError::unless(
                (1e-12..=1e12).contains(&stability),
                "the stability of automatic clipping",
                stability,
                "from 1e-12 to 1e12",
            )?;
        }
        if let Some(noise) = self.noise_multiplier {
            PrivacyError::unless(
                noise.get() <= MOST_NOISE,
                "the noise multiplier",
                noise.get(),
                "from 0 to 1e6",
            )?;
        }
        Ok(())
    }

    /// Rounds that a client takes part in at most, budget aside.
    pub(super) fn most(&self) -> u64 {
        self.participations.unwrap_or(u64::MAX).min(self.rounds)
    }

    pub(super) fn target(&self) -> Target {
        Target {
            epsilon: self.epsilon.unwrap_or(Epsilon::INFINITY),
            delta: self.delta,
            accountant: self.accountant,
            relation: RELATION,
        }
    }
}

/// The largest noise multiplier that training takes.
pub(super) const MOST_NOISE: f64 = 1e6;
