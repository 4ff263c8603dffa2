//! The memory of a [`BufferedServer`] as a value that can be stored.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{BufferedRecord, BufferedServer, BufferedSetup, Refusals};
use crate::round::{Phase, RoundError};
use crate::strategy::{RoundInfo, Strategy};
use crate::sum::Aggregator;
use crate::units::{ClientId, RoundId, VirtualTime, Weight};
use crate::update::Report;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Training {
        version: RoundId,
        since: VirtualTime,
    },
    Waiting {
        version: RoundId,
    },
    Accepted {
        report: Report,
        weight: Weight,
    },
    Summed {
        version: RoundId,
    },
}

impl Status {
    /// The version that the client was given.
    pub(super) fn version(&self) -> RoundId {
        match *self {
            Self::Training { version, .. }
            | Self::Waiting { version }
            | Self::Summed { version } => version,
            Self::Accepted { report, .. } => report.round,
        }
    }
}

/// All that a [`BufferedServer`] remembers beside the strategy's state. Reading one back checks
/// nothing; [`BufferedServer::restore`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    version: RoundId,
    now: VirtualTime,
    phase: Phase,
    draws: u64,
    clients: BTreeMap<ClientId, Status>,
    waiting: VecDeque<Report>,
    given: BTreeSet<ClientId>,
    record: BufferedRecord,
    refused: Refusals,
}

impl Snapshot {
    /// The newest version when it was taken.
    #[must_use]
    pub fn version(&self) -> RoundId {
        self.version
    }

    /// The versions whose models must be there to go on, ascending: the newest, and those that a
    /// driver which trains lazily needs.
    #[must_use]
    pub fn versions(&self) -> BTreeSet<RoundId> {
        let in_flight = self.clients.values().map(Status::version);
        in_flight.chain([self.version]).collect()
    }
}

impl Snapshot {
    fn check<S: Strategy>(&self, strategy: &S, setup: &BufferedSetup) -> Result<(), SnapshotError> {
        let info = RoundInfo {
            round: self.version,
            population: setup.population,
        };
        let mut waiting: BTreeSet<ClientId> = BTreeSet::new();
        for report in &self.waiting {
            let client = report.client;
            let version = report.round;
            if self.clients.get(&client) != Some(&Status::Waiting { version })
                || !waiting.insert(client)
            {
                return Err(SnapshotError::Disagrees { client });
            }
        }
        let (mut training, mut accepted) = (0, 0);
        for (&client, status) in &self.clients {
            if status.version() > self.version {
                return Err(SnapshotError::Future { client });
            }
            let staleness = self.version.0 - status.version().0;
            if let Some(most) = setup
                .settings
                .max_staleness
                .filter(|most| staleness > *most)
            {
                return Err(SnapshotError::Stale {
                    client,
                    staleness,
                    most,
                });
            }
            match *status {
                Status::Training { since, .. } if since > self.now => {
                    return Err(SnapshotError::Future { client });
                }
                Status::Training { .. } => training += 1,
                Status::Waiting { .. } if !waiting.contains(&client) => {
                    return Err(SnapshotError::Disagrees { client });
                }
                Status::Waiting { .. } => {}
                Status::Accepted { report, .. } if report.client != client => {
                    return Err(SnapshotError::Disagrees { client });
                }
                Status::Accepted { report, weight } => {
                    let expected = strategy.weight(&report, &info);
                    if weight != expected {
                        return Err(SnapshotError::Weight {
                            client,
                            stored: weight,
                            expected,
                        });
                    }
                    accepted += 1;
                }
                Status::Summed { .. } => return Err(SnapshotError::Summed { client }),
            }
        }
        let most = setup.settings.concurrency();
        if training > most {
            return Err(SnapshotError::Concurrency { training, most });
        }
        let buffer = setup.settings.buffer();
        let fits = match self.phase {
            Phase::Idle => self.clients.is_empty(),
            Phase::Training => accepted < buffer && self.waiting.is_empty(),
            Phase::Aggregating => (1..=buffer).contains(&accepted),
            Phase::Selecting => false,
        };
        if !fits {
            return Err(SnapshotError::Buffer {
                accepted,
                buffer,
                phase: self.phase,
            });
        }
        Ok(())
    }
}

/// Why a snapshot is not one of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// More clients train than may.
    #[error(
        "the snapshot has {training} clients in training where at most {most} may be; resume with the \
         settings that wrote it"
    )]
    Concurrency {
        /// Clients in training.
        training: u64,
        /// The setting.
        most: u64,
    },
    /// The buffer does not fit the setting or the phase.
    #[error(
        "the snapshot has {accepted} reports in a buffer of {buffer} in phase {phase:?}; resume with \
         the settings that wrote it"
    )]
    Buffer {
        /// Reports in the buffer.
        accepted: u64,
        /// The setting.
        buffer: u64,
        /// The phase.
        phase: Phase,
    },
    /// A client trains from a version that there is not, or since a time that has not come.
    #[error("the snapshot has client {client} in the future; it is damaged")]
    Future {
        /// The client.
        client: ClientId,
    },
    /// A client's version is older than is allowed.
    #[error(
        "the snapshot has client {client} at a version {staleness} steps old where {most} are allowed; \
         resume with the settings that wrote it"
    )]
    Stale {
        /// The client.
        client: ClientId,
        /// How old its version is.
        staleness: u64,
        /// The setting.
        most: u64,
    },
    /// A report has another weight than the strategy gives it.
    #[error(
        "the snapshot has a report of client {client} at weight {stored}, and the strategy gives it \
         {expected}; resume with the strategy that wrote it"
    )]
    Weight {
        /// The client.
        client: ClientId,
        /// In the snapshot.
        stored: Weight,
        /// By the strategy.
        expected: Weight,
    },
    /// A report is not its client's, or reports and those that wait are not the same clients.
    #[error("the snapshot's reports and clients disagree about client {client}; it is damaged")]
    Disagrees {
        /// The client.
        client: ClientId,
    },
    /// The aggregator is not empty.
    #[error("the sum for the next step already holds {0} clients; resume with an empty one")]
    NotEmpty(u64),
    /// A client has been summed, and the sum is not in the snapshot.
    #[error("the snapshot has client {client} in a sum, which no snapshot holds; it is damaged")]
    Summed {
        /// The client.
        client: ClientId,
    },
}

impl<S: Strategy, A: Aggregator + Clone> BufferedServer<S, A> {
    /// All that the machine remembers beside the strategy's [state](Self::state).
    ///
    /// # Errors
    /// [`RoundError::PartlySummed`] when partial sums were handed over and the step is not made;
    /// [`RoundError::Unpolled`] when messages or news were not fetched.
    pub fn snapshot(&self) -> Result<Snapshot, RoundError> {
        let seen = self.sum.tally().seen();
        if seen > 0 {
            return Err(RoundError::PartlySummed(seen));
        }
        let unpolled = self.outbox.len() + self.notices.len();
        if unpolled > 0 {
            return Err(RoundError::Unpolled(unpolled));
        }
        Ok(Snapshot {
            version: self.version,
            now: self.now,
            phase: self.phase,
            draws: self.draws,
            clients: self.clients.clone(),
            waiting: self.waiting.clone(),
            given: self.given.clone(),
            record: self.record,
            refused: self.refused,
        })
    }

    /// A server that goes on from a snapshot; `state` is the strategy's, `empty` an empty aggregator.
    ///
    /// # Errors
    /// [`SnapshotError`] when it was not taken in this run.
    pub fn restore(
        strategy: S,
        state: S::State,
        setup: BufferedSetup,
        empty: A,
        snapshot: Snapshot,
    ) -> Result<Self, SnapshotError> {
        if empty.tally().seen() != 0 {
            return Err(SnapshotError::NotEmpty(empty.tally().seen()));
        }
        snapshot.check(&strategy, &setup)?;
        let mut server = Self::at(strategy, state, snapshot.version, setup, empty);
        for (&client, &status) in &snapshot.clients {
            server.place(client, status.version(), status);
            match status {
                Status::Training { since, .. } => {
                    server.since.insert((since, client));
                }
                Status::Accepted { .. } => {
                    server.buffered.insert(client);
                    server.outstanding += 1;
                }
                Status::Waiting { .. } | Status::Summed { .. } => {}
            }
        }
        server.now = snapshot.now;
        server.phase = snapshot.phase;
        server.draws = snapshot.draws;
        server.waiting = snapshot.waiting;
        server.given = snapshot.given;
        server.record = snapshot.record;
        server.refused = snapshot.refused;
        Ok(server)
    }
}
