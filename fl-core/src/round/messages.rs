//! What goes into and comes out of a [`RoundServer`](super::RoundServer).

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use crate::select::SelectError;
use crate::strategy::StrategyError;
use crate::sum::{Rejection, SumError, Tally};
use crate::units::{ClientId, RoundId, VirtualTime, Weight};
use crate::update::{ClientUpdate, Cost, Report};

/// Where a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Between rounds.
    Idle,
    /// Invitations are out.
    Selecting,
    /// Clients train; reports are taken.
    Training,
    /// No more reports are taken; accepted updates are still to be summed.
    Aggregating,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a, A> {
    /// An invited client takes part.
    Ready(ClientId),
    /// A client is gone or declines. After its acceptance: its update is lost.
    Dropped(ClientId),
    /// A client says that it cannot do its task. After its acceptance: its update is lost.
    Failed(ClientId),
    /// A client is done, and its update will come within a partial sum.
    Reported(Report),
    /// A client is done and this is its update.
    Update(&'a ClientUpdate),
    /// The updates of accepted clients, summed elsewhere. Leaves `sum` empty.
    Summed {
        /// The partial sum.
        sum: &'a mut A,
        /// The clients that were absorbed into it, summed or rejected, each once, in any order.
        clients: &'a [ClientId],
    },
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is taken note of.
    Noted,
    /// The client's update counts, with this weight.
    Accepted {
        /// The weight that the update must be summed with.
        weight: Weight,
    },
    /// The client was accepted, but its update cannot be summed.
    Rejected(Rejection),
    /// It changes nothing but a counter.
    Refused(Refusal),
}

/// Why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// No round is on, or the report is of another round.
    #[error("the message belongs to a round that is not on")]
    OtherRound,
    /// The client was not selected.
    #[error("the client was not selected in this round")]
    Unknown,
    /// The client has answered or reported before.
    #[error("the client has said so before")]
    Duplicate,
    /// The client was not asked to train (yet), or has left the round.
    #[error("the client is not training")]
    NotTraining,
    /// The time was up.
    #[error("the time for it was up")]
    Late,
    /// The round had enough reports.
    #[error("the round has enough reports")]
    Surplus,
    /// The client did a part of its work, and the strategy drops such clients.
    #[error("the client did only a part of its work")]
    PartialWork,
}

/// Counts of [`Refusal`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusals {
    /// [`Refusal::OtherRound`].
    pub other_round: u64,
    /// [`Refusal::Unknown`].
    pub unknown: u64,
    /// [`Refusal::Duplicate`].
    pub duplicate: u64,
    /// [`Refusal::NotTraining`].
    pub not_training: u64,
    /// [`Refusal::Late`].
    pub late: u64,
    /// [`Refusal::Surplus`].
    pub surplus: u64,
    /// [`Refusal::PartialWork`].
    pub partial_work: u64,
}

impl Refusals {
    pub(super) fn count(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::OtherRound => &mut self.other_round,
            Refusal::Unknown => &mut self.unknown,
            Refusal::Duplicate => &mut self.duplicate,
            Refusal::NotTraining => &mut self.not_training,
            Refusal::Late => &mut self.late,
            Refusal::Surplus => &mut self.surplus,
            Refusal::PartialWork => &mut self.partial_work,
        } += 1;
    }
}

/// Something to send to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub client: ClientId,
    /// What.
    pub message: Message,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Will you take part?
    Invite,
    /// Train [`RoundServer::plan`](super::RoundServer::plan) from [`global`](super::RoundServer::global) and report.
    Train,
    /// Stop: the round goes on without you.
    Stop,
}

/// News for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The round is now in this phase.
    Phase(Phase),
    /// The round is over.
    Ended(Box<RoundRecord>),
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The global model moved.
    Applied,
    /// The global model moved, by fewer reports than the minimum share: more than half of the clients
    /// dropped out, and the lowered share was reached.
    AppliedLowered,
    /// The model did not move: fewer clients were ready than must report.
    TooFewReady,
    /// It did not: fewer updates than required are in the sum.
    TooFewUpdates,
    /// It did not: the driver ended the round.
    Aborted,
}

/// What happened in a round.
///
/// `selected = ready + unready`, and of the ready clients each is counted once in
/// `tally.seen()`, `lost`, `dropped`, `failed`, `stragglers`, `timed_out` or `stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The round.
    pub round: RoundId,
    /// When it began.
    pub started: VirtualTime,
    /// When it ended.
    pub ended: VirtualTime,
    /// How it ended.
    pub outcome: Outcome,
    /// Clients that were invited.
    pub selected: u64,
    /// Clients that declined, or did not answer in time.
    pub unready: u64,
    /// Clients that were ready to train.
    pub ready: u64,
    /// Reports that would complete the round.
    pub goal: u64,
    /// Clients gone while training.
    pub dropped: u64,
    /// Clients that said they could not do their task.
    pub failed: u64,
    /// Clients whose partial work was refused.
    pub stragglers: u64,
    /// Clients still training at the deadline.
    pub timed_out: u64,
    /// Clients still training when the round had enough reports or was given up.
    pub stopped: u64,
    /// Clients that were accepted and whose update never came.
    pub lost: u64,
    /// What went into the sum.
    pub tally: Tally,
    /// Messages that were refused since the last round ended.
    pub refused: Refusals,
    /// Traffic and device time of the accepted clients, added up.
    pub cost: Cost,
}

/// Why the run must stop: the driver or the plan is wrong, not a client. The strategy's state is
/// as it was before the round.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RoundError {
    /// A round is on.
    #[error("round {0} is still on; end it or abort it before starting the next")]
    NotIdle(RoundId),
    /// The clock of the driver is wrong.
    #[error("time ran backwards from {from} to {to} microseconds; deliver events in order")]
    TimeBackwards {
        /// The latest time seen.
        from: VirtualTime,
        /// The event's time.
        to: VirtualTime,
    },
    /// The aggregator for a new round is not empty.
    #[error("the sum for a new round already holds {0} clients; start with an empty one")]
    NotEmpty(u64),
    /// A partial sum names a client that was not accepted, or that is summed already.
    #[error(
        "the partial sum names client {0}, which is not waiting to be summed; list each accepted client once"
    )]
    WrongMember(ClientId),
    /// A partial sum was given when no round is on.
    #[error("a partial sum was given while no round is on")]
    NoRound,
    /// A partial sum does not hold what its list of clients says.
    #[error(
        "the partial sum holds {seen} clients of weight {weight} where its list has {listed} of \
         weight {expected}; absorb each accepted client once, with the weight it was accepted at"
    )]
    WrongContent {
        /// Clients that the sum has seen.
        seen: u64,
        /// Clients listed.
        listed: u64,
        /// Weight of the clients in the sum.
        weight: Weight,
        /// Weight at which the listed clients were accepted.
        expected: Weight,
    },
    /// Updates are summed in part, and a sum cannot be stored.
    #[error(
        "{0} updates of the next step are summed already; take the snapshot before sums are handed \
         over or after the step"
    )]
    PartlySummed(u64),
    /// Messages or news are still to be fetched, and would be lost.
    #[error(
        "{0} messages or notices are not polled; poll until there is none, then take the snapshot"
    )]
    Unpolled(usize),
    /// A mean was released for a round that does not wait for one.
    #[error(
        "round {0} does not wait for a released mean; release once, when `awaiting_release` gives \
         the sum"
    )]
    NotAwaiting(RoundId),
    /// A mean of groups is not that of the updates in the sum.
    #[error(
        "the combined mean is of {clients} clients of weight {weight}, and the sum holds {summed} of \
         weight {total}; hand over the sum of the very groups that are combined"
    )]
    OtherMean {
        /// Clients of the mean.
        clients: u64,
        /// Their weight.
        weight: Weight,
        /// Clients in the sum.
        summed: u64,
        /// Their weight.
        total: Weight,
    },
    /// No selection is possible.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The sum cannot go on.
    #[error(transparent)]
    Sum(#[from] SumError),
    /// The strategy cannot go on.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
}

impl RoundError {
    /// `Ok` when a partial sum with this tally holds `listed` clients that were accepted at weights of
    /// sum `expected`.
    pub(crate) fn unless_content(tally: &Tally, listed: u64, expected: Weight) -> Result<(), Self> {
        let all_summed = tally.rejected.total() == 0;
        if tally.seen() == listed
            && tally.weight <= expected
            && (!all_summed || tally.weight == expected)
        {
            return Ok(());
        }
        Err(Self::WrongContent {
            seen: tally.seen(),
            listed,
            weight: tally.weight,
            expected,
        })
    }
}
