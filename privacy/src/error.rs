//! What can go wrong in this crate.

use crate::relation::NeighboringRelation;

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
