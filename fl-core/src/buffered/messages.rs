//! What goes into and comes out of a [`BufferedServer`](super::BufferedServer).

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use super::Tally;
use crate::round::{Outcome, Phase};
use crate::units::{ClientId, RoundId, VirtualTime, Weight};
use crate::update::{Cost, Report};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a, A> {
    /// A client is gone. After its acceptance: its update is lost.
    Dropped(ClientId),
    /// A client says that it cannot do its task. After its acceptance: its update is lost.
    Failed(ClientId),
    /// A client is done; its update will come within a partial sum. The report's round is the version
    /// that it was given.
    Reported(Report),
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
    /// Sums are awaited; after the step there will be [news](Notice::Taken) of this report.
    Waiting,
    /// It changes nothing but a counter.
    Refused(Refusal),
}

/// Why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// The client was not asked to train, or has left, or was given up.
    #[error("the client is not training")]
    NotTraining,
    /// The client was given another version.
    #[error("the report is of another version than the client was given")]
    OtherVersion,
    /// The client has reported before.
    #[error("the client has said so before")]
    Duplicate,
    /// The report's version is too old.
    #[error("the version that the client trained from is too old")]
    TooStale,
    /// The client did a part of its work, and the strategy drops such clients.
    #[error("the client did only a part of its work")]
    PartialWork,
}

/// Counts of [`Refusal`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusals {
    /// [`Refusal::NotTraining`].
    pub not_training: u64,
    /// [`Refusal::OtherVersion`].
    pub other_version: u64,
    /// [`Refusal::Duplicate`].
    pub duplicate: u64,
    /// [`Refusal::TooStale`].
    pub too_stale: u64,
    /// [`Refusal::PartialWork`].
    pub partial_work: u64,
}

impl Refusals {
    pub(super) fn count(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::NotTraining => &mut self.not_training,
            Refusal::OtherVersion => &mut self.other_version,
            Refusal::Duplicate => &mut self.duplicate,
            Refusal::TooStale => &mut self.too_stale,
            Refusal::PartialWork => &mut self.partial_work,
        } += 1;
    }
}

/// A report in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The report; its round is the version that the client was given.
    pub report: Report,
    /// The weight that the update must be summed with.
    pub weight: Weight,
}

/// Something to send to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub client: ClientId,
    /// What.
    pub command: Command,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Train [`BufferedServer::plan`](super::BufferedServer::plan) from this version, the newest one,
    /// and report.
    Train(RoundId),
    /// Stop: the report would not count any more.
    Stop,
}

/// News for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The server is now in this phase.
    Phase(Phase),
    /// What became of a report that [waited](Answer::Waiting).
    Taken {
        /// Who reported.
        client: ClientId,
        /// Accepted or refused.
        answer: Answer,
    },
    /// A step is made, and there is a new version.
    Ended(Box<BufferedRecord>),
}

/// What happened from one version to the next.
///
/// Over all records of a run that has ended, `given` is what `tally.seen()`, `lost`, `dropped`,
/// `failed`, `stragglers`, `timed_out`, `too_stale` and `stopped` add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferedRecord {
    /// The version before the step.
    pub version: RoundId,
    /// When that version began.
    pub started: VirtualTime,
    /// When it ended.
    pub ended: VirtualTime,
    /// [`Outcome::Applied`]; [`Outcome::TooFewUpdates`] when no update of the buffer could be summed:
    /// then the next version is the same model; or [`Outcome::Aborted`].
    pub outcome: Outcome,
    /// Clients that were given this version.
    pub given: u64,
    /// Clients that were still training when it ended.
    pub training: u64,
    /// Clients gone while training.
    pub dropped: u64,
    /// Clients that said they could not do their task.
    pub failed: u64,
    /// Clients whose partial work was refused.
    pub stragglers: u64,
    /// Clients that took too long.
    pub timed_out: u64,
    /// Clients whose version became too old.
    pub too_stale: u64,
    /// Clients still training when the run was given up.
    pub stopped: u64,
    /// Clients that reported and whose update never came.
    pub lost: u64,
    /// The staleness of accepted reports, added up.
    pub staleness: u64,
    /// The largest staleness of an accepted report.
    pub stalest: u64,
    /// What went into the sum.
    pub tally: Tally,
    /// Messages that were refused.
    pub refused: Refusals,
    /// Traffic and device time of the accepted clients, added up.
    pub cost: Cost,
}

impl BufferedRecord {
    pub(super) fn new(version: RoundId, started: VirtualTime) -> Self {
        Self {
            version,
            started,
            ended: started,
            outcome: Outcome::Aborted,
            given: 0,
            training: 0,
            dropped: 0,
            failed: 0,
            stragglers: 0,
            timed_out: 0,
            too_stale: 0,
            stopped: 0,
            lost: 0,
            staleness: 0,
            stalest: 0,
            tally: Tally::default(),
            refused: Refusals::default(),
            cost: Cost::default(),
        }
    }

    pub(super) fn accept(&mut self, report: &Report, staleness: u64) {
        self.staleness = self.staleness.saturating_add(staleness);
        self.stalest = self.stalest.max(staleness);
        self.cost.add(&report.cost);
    }
}
