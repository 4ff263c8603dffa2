//! What can go wrong in this crate.

use crate::relation::{NeighboringRelation, PrivacyUnit};

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivacyError {
    /// A number outside its range.
    #[error("{what} is {value}; expected {expected}")]
    OutOfRange {
        /// The quantity.
        what: &'static str,
        /// The value as given.
        value: f64,
        /// Its range, in words.
        expected: &'static str,
    },
    /// A count outside its range.
    #[error("{what} is {value}; expected {expected}")]
    CountOutOfRange {
        /// The quantity.
        what: &'static str,
        /// The value as given.
        value: u64,
        /// Its range, in words.
        expected: &'static str,
    },
    /// A name that nothing here has.
    #[error("unknown {what} `{given}`; known are {known}")]
    UnknownName {
        /// What is named.
        what: &'static str,
        /// The name as given.
        given: String,
        /// The names that there are.
        known: &'static str,
    },
    /// An accountant has no valid bound for this event under this relation.
    #[error(
        "the {accountant} accountant has no proven bound for the event `{event}` under the \
         relation `{relation}`; {instead}"
    )]
    Unsupported {
        /// The accountant.
        accountant: &'static str,
        /// The kind of the event.
        event: String,
        /// The neighbouring relation.
        relation: NeighboringRelation,
        /// What to do.
        instead: &'static str,
    },
    /// A way of aggregating that has no bounded sensitivity, or none that is public.
    #[error("{what} is not possible under differential privacy, because {reason}; {instead}")]
    PrivateAggregation {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        reason: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// No scale of distributed noise is both fine enough to be private and small enough to fit.
    #[error(
        "a ring of {bits} bits leaves each of {clients} clients noise of {noise:.3} integers; \
         expected at least 0.5; raise the bits, or lower the clients of a sum or the noise \
         multiplier"
    )]
    RingTooSmall {
        /// The bits of the ring.
        bits: u32,
        /// The most clients of a sum.
        clients: u64,
        /// The standard deviation of a client's noise, in integers.
        noise: f64,
    },
    /// No noise within the ring reaches the target, and more bits would do.
    #[error(
        "a ring of {bits} bits has no room for the sum of {clients} clients and the noise that \
         epsilon {target} needs; give it at least {enough} bits"
    )]
    BitsTooFew {
        /// The bits of the ring.
        bits: u32,
        /// The most clients of a sum.
        clients: u64,
        /// The loss that was asked for; infinite where a noise multiplier was.
        target: f64,
        /// The fewest bits with which there is a plan.
        enough: u32,
    },
    /// Too few clients reported for their noise to protect them. Nothing was released.
    #[error(
        "round {round} has {survivors} reports and needs {least} for the noise that was promised; \
         it is given up and nothing of it is released"
    )]
    TooFewSurvivors {
        /// The round, from 0.
        round: u64,
        /// Reports.
        survivors: u64,
        /// The threshold.
        least: u64,
    },
    /// A client reported more often than its noise was made for.
    #[error(
        "client {client} has reported in {limit} rounds, which is all that its noise was made for; \
         leave it out of this one"
    )]
    SpentClient {
        /// The client.
        client: u64,
        /// The most rounds of a client.
        limit: u64,
    },
    /// A vector of another length.
    #[error("{what} has {len} values; expected {expected}")]
    WrongLength {
        /// What has a length.
        what: &'static str,
        /// The length.
        len: usize,
        /// The length that it must have.
        expected: usize,
    },
    /// `delta` is so large that it would allow the data of one unit to be published.
    #[error(
        "delta is {delta}, which is not below one over the {population} protected {unit}s; choose \
         a delta well below {limit}"
    )]
    DeltaTooLarge {
        /// As given.
        delta: f64,
        /// Protected units in all.
        population: u64,
        /// What is protected.
        unit: PrivacyUnit,
        /// One over the population.
        limit: f64,
    },
    /// One more event would spend more than the budget. Nothing was recorded; no noise may be
    /// drawn for it.
    #[error(
        "event {position} (`{event}`) would overspend the privacy budget: spent epsilon {spent}, \
         with it {needed}, limit {limit} at delta {delta}; stop here, or start again with fewer \
         rounds or a higher noise multiplier",
        spent = rounded_up(*spent),
        needed = rounded_up(*needed)
    )]
    OverBudget {
        /// Number of the event, from 1.
        position: u64,
        /// Its kind.
        event: String,
        /// `epsilon` of what was admitted before.
        spent: f64,
        /// `epsilon` with it; infinite where the filter's rule has no number for it.
        needed: f64,
        /// The budget's `epsilon`.
        limit: f64,
        /// The budget's `delta`.
        delta: f64,
    },
    /// An event is not the one that was declared for this place.
    #[error(
        "event {position} is `{given}` but the declared schedule has `{declared}` there; declare \
         what is run, or use a filter for parameters that adapt"
    )]
    OffSchedule {
        /// Number of the event, from 1.
        position: u64,
        /// What was asked for.
        given: String,
        /// What the schedule has.
        declared: String,
    },
    /// A saved state does not belong to this plan.
    #[error(
        "the saved privacy state has another {what} than this plan; resume with the plan that \
         wrote it, or start again"
    )]
    OtherPlan {
        /// What differs.
        what: &'static str,
    },
    /// A round was not the next one of its plan.
    #[error(
        "round {given} was asked for and the privacy ledger is at round {next}; play each round \
         once and in order"
    )]
    WrongRound {
        /// The round asked for, from 0.
        given: u64,
        /// The round that comes next.
        next: u64,
    },
    /// Correlated noise was not brought to where the ledger is.
    #[error(
        "the ledger is at round {round} and its correlated noise at round {drawn}; draw the noise \
         of the rounds before again with `DpPlan::redraw` after resuming"
    )]
    NoiseBehind {
        /// The round that was asked for, from 0.
        round: u64,
        /// Rounds whose noise the source knows.
        drawn: u64,
    },
    /// Neither noise nor a target was given.
    #[error("neither epsilon nor a noise multiplier is given; give at least one of them")]
    NoTarget,
    /// A sampler gives no guarantee under this relation.
    #[error(
        "{sampler} sampling cannot be accounted for under the relation `{relation}`; {instead}"
    )]
    SamplerRelation {
        /// The sampler.
        sampler: &'static str,
        /// The relation.
        relation: NeighboringRelation,
        /// What to do.
        instead: &'static str,
    },
    /// Calibration found no value within the target.
    #[error(
        "no value of {parameter} meets epsilon {target} at delta {delta}: at {value} it is \
         {epsilon}; raise epsilon or delta, or change another parameter"
    )]
    Unreachable {
        /// What was calibrated.
        parameter: &'static str,
        /// Its value on the most private side.
        value: f64,
        /// The loss there.
        epsilon: f64,
        /// The loss that was asked for.
        target: f64,
        /// The probability that was asked for.
        delta: f64,
    },
    /// The text is not a ledger or an event.
    #[error("line {line}, column {column} is not a valid {what}: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The reader's reason.
        reason: String,
    },
}

impl PrivacyError {
    /// `Ok` when `fits`, else [`PrivacyError::OutOfRange`].
    pub(crate) fn unless(
        fits: bool,
        what: &'static str,
        value: f64,
        expected: &'static str,
    ) -> Result<(), Self> {
        if fits {
            Ok(())
        } else {
            Err(Self::OutOfRange {
                what,
                value,
                expected,
            })
        }
    }

    /// `Ok` when `fits`, else [`PrivacyError::CountOutOfRange`].
    pub(crate) fn unless_count(
        fits: bool,
        what: &'static str,
        value: u64,
        expected: &'static str,
    ) -> Result<(), Self> {
        if fits {
            Ok(())
        } else {
            Err(Self::CountOutOfRange {
                what,
                value,
                expected,
            })
        }
    }
}

/// Four digits after the point, never less than the value: for messages about what is spent.
fn rounded_up(epsilon: f64) -> f64 {
    let digits = epsilon * 1e4;
    if digits < 1e15 {
        digits.ceil() / 1e4
    } else {
        epsilon
    }
}
