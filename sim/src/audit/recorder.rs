//! A grey-box audit: what do mechanisms see, when one client changes?
//!
//! A proof of privacy assumes that, whatever the data, the same mechanisms are called with the same
//! parameters, and that their inputs for neighbouring data sets are no further apart than the
//! declared sensitivity. [`record`] plays a run and writes every call down; a second recording, of
//! a neighbouring population and with the same randomness, is given the *outputs* of the first, as
//! composition supposes, so that from there on only the neighbour's own contribution differs.
//! [`Recording::compare`] then checks the assumptions (Cebere, Erb, Desfontaines, Bellet and
//! Fitzsimons 2026, arXiv:2602.17454).
//!
//! Neighbours under [`AddOrRemoveOne`](fl_privacy::NeighboringRelation::AddOrRemoveOne) are a
//! client that is there and the same client being [absent](Act::Absent): ids are public, and so is
//! how many there are. The special member of
//! [`ReplaceSpecial`](fl_privacy::NeighboringRelation::ReplaceSpecial) is an absent client, too; one
//! that sends zeros is no neighbour, since it counts where clipped updates are counted.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use fl_core::{ClientId, RoundId};

use super::cast::{Act, Roles};
use super::tap::{Fault, Log, Tap};
use super::{AuditError, play, quiet};
use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::population::{Engine, Population};
use crate::privacy::Privacy;

/// What a mechanism adds noise to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// The sum of the clipped updates.
    Sum,
    /// Half the sum of an adaptive clipping norm's bits.
    Count,
}

/// One call of a mechanism.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The round, from 0.
    pub round: u64,
    /// Which.
    pub mechanism: Mechanism,
    /// The declared L2 sensitivity of the input.
    pub sensitivity: f64,
    /// The declared standard deviation of the noise on each value.
    pub noise_std: f64,
    /// What the noised input is divided by.
    pub denominator: f64,
    /// What noise is added to; private.
    pub input: Vec<f64>,
}

/// A round, as it was heard.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) cohort: Vec<ClientId>,
    pub(super) calls: Vec<Call>,
    /// What was released.
    pub(super) mean: Vec<f64>,
    /// The plan after the round.
    pub(super) state: String,
}

/// Every call of a run.
#[derive(Clone, Debug)]
pub struct Recording {
    steps: Vec<Step>,
}

/// Writes down, and plays back what another has written.
#[derive(Debug)]
pub(super) struct Recorder {
    steps: Vec<Step>,
    former: Option<Recording>,
}

impl Recorder {
    pub(super) fn hear(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Puts the former recording's output in the place of `mean`; its plan's state.
    pub(super) fn replay(&self, round: RoundId, mean: &mut [f64]) -> Option<String> {
        let former = self.former.as_ref()?;
        let step = former.steps.get(usize::try_from(round.0).ok()?)?;
        mean.copy_from_slice(&step.mean);
        Some(step.state.clone())
    }
}

/// Which assumption of a proof of privacy does not hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The data decide what is done.
    #[error("round {round}: {what} differs between neighbours; it must not depend on the data")]
    ControlFlow {
        /// The round, from 0.
        round: u64,
        /// What.
        what: &'static str,
    },
    /// The data decide a parameter that is taken for public.
    #[error("round {round}: {what} is {here} and, for a neighbour, {there}; it must be public")]
    Declared {
        /// The round, from 0.
        round: u64,
        /// Which parameter.
        what: &'static str,
        /// In this recording.
        here: f64,
        /// In the other.
        there: f64,
    },
    /// One client changes more than was declared.
    #[error(
        "round {round}: the inputs of {mechanism:?} are {distance} apart between neighbours; \
         declared are at most {sensitivity}"
    )]
    Sensitivity {
        /// The round, from 0.
        round: u64,
        /// Whose input.
        mechanism: Mechanism,
        /// The L2 distance.
        distance: f64,
        /// The declared one.
        sensitivity: f64,
    },
}

impl Recording {
    /// The calls, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.steps.iter().flat_map(|step| &step.calls)
    }

    /// The largest distance between the inputs of the same calls, as a share of what is declared;
    /// a test wants it near 1 somewhere, or it has not tried.
    #[must_use]
    pub fn closeness(&self, other: &Self) -> f64 {
        let pairs = self.calls().zip(other.calls());
        pairs.fold(0.0, |most: f64, (here, there)| {
            most.max(distance(&here.input, &there.input) / here.sensitivity)
        })
    }

    /// Checks what a proof of privacy assumes of two neighbours.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn compare(&self, other: &Self) -> Result<(), Violation> {
        let rounds = self.steps.len().min(other.steps.len());
        for (round, (here, there)) in self.steps.iter().zip(&other.steps).enumerate() {
            let round = round as u64;
            let flow = |same: bool, what| match same {
                true => Ok(()),
                false => Err(Violation::ControlFlow { round, what }),
            };
            flow(here.cohort == there.cohort, "who is selected")?;
            flow(
                here.calls.len() == there.calls.len(),
                "the number of mechanism calls",
            )?;
            for (here, there) in here.calls.iter().zip(&there.calls) {
                flow(
                    here.mechanism == there.mechanism,
                    "which mechanism is called",
                )?;
                flow(
                    here.input.len() == there.input.len(),
                    "the length of a mechanism's input",
                )?;
                for (what, a, b) in [
                    ("the sensitivity", here.sensitivity, there.sensitivity),
                    ("the noise", here.noise_std, there.noise_std),
                    ("the denominator", here.denominator, there.denominator),
                ] {
                    if a.to_bits() != b.to_bits() {
                        return Err(Violation::Declared {
                            round,
                            what,
                            here: a,
                            there: b,
                        });
                    }
                }
                let distance = distance(&here.input, &there.input);
                // Not for a distance that is no number.
                let within = distance <= here.sensitivity;
                if !within {
                    return Err(Violation::Sensitivity {
                        round,
                        mechanism: here.mechanism,
                        distance,
                        sensitivity: here.sensitivity,
                    });
                }
            }
        }
        match self.steps.len() == other.steps.len() {
            true => Ok(()),
            false => Err(Violation::ControlFlow {
                round: rounds as u64,
                what: "the number of rounds",
            }),
        }
    }
}

fn distance(here: &[f64], there: &[f64]) -> f64 {
    let squares = here.iter().zip(there).map(|(a, b)| (a - b) * (a - b));
    libm::sqrt(squares.sum())
}

/// Plays the configured run, in which the clients of `acts` do as told, and writes every call
/// down. With `former`, releases what was released there.
///
/// Nothing is evaluated, and a budget ends the run as always.
///
/// # Errors
/// [`SimError::Audit`] for a run without central privacy, and what running it can fail with.
pub fn record<P: Population, E: Engine>(
    config: &SimulationConfig,
    population: &P,
    engine: &E,
    acts: BTreeMap<ClientId, Act>,
    fault: Option<Fault>,
    former: Option<Recording>,
) -> Result<Recording, SimError> {
    if !matches!(config.privacy, Some(Privacy::Central(_))) {
        return Err(AuditError::NoGuarantee.into());
    }
    let roles = Roles {
        acts,
        others: Act::Train,
    };
    let recorder = Recorder {
        steps: Vec::new(),
        former,
    };
    let stop = AtomicBool::new(false);
    let tap = Tap::new(fault, Log::Record(recorder));
    let tap = play(quiet(config), population, engine, roles, tap, &|| (), &stop)?;
    let recorder = tap.and_then(Tap::recorder);
    Ok(Recording {
        steps: recorder.map_or_else(Vec::new, |recorder| recorder.steps),
    })
}
