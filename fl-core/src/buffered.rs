//! Asynchronous training as a state machine without input or output, twin of
//! [`RoundServer`](crate::RoundServer): clients train at their own pace, each from the version of the
//! model that it was given, and every `K` reports make a new version.
//!
//! # Source
//! FedBuff: Nguyen et al. 2022, arXiv:2106.06639, algorithm 1: up to `M_c` clients train at a time
//! ([`concurrency`](BufferedSettings::new)); an update that arrives is added with a weight by its
//! staleness; at `K` of them ([`buffer`](BufferedSettings::new)) the server makes a step, and `K = 1`
//! is FedAsync (Xie et al. 2019, arXiv:1903.03934, algorithm 1). Weight and step are the strategy's,
//! see [`fedbuff`](crate::strategy::fedbuff); any strategy works, the others do not know staleness.
//!
//! # Driving it
//! [`start`](BufferedServer::start), [`offer`](BufferedServer::offer),
//! [`handle`](BufferedServer::handle), [`handle_timeout`](BufferedServer::handle_timeout),
//! [`flush`](BufferedServer::flush) and [`abort`](BufferedServer::abort) take things in. After each of
//! them, in this order: [`poll_transmit`](BufferedServer::poll_transmit) until `None` and send what it
//! gives, then [`poll`](BufferedServer::poll) until `None`, then offer candidates if places are
//! [free](BufferedServer::free_places), then [`poll_timeout`](BufferedServer::poll_timeout) and set
//! the alarm. Time never runs backwards; what happens at the very moment of a timeout comes after it.
//!
//! ```text
//! Idle --start--> Training --K reports, or flush--> Aggregating
//!                    ^                                   |
//!                    +------- all summed: a step --------+
//! ```
//!
//! A client is in one place at most: it trains, its report waits, or its report is in the buffer; only
//! then can it be chosen again. Nobody is given the same version twice. Where all have been, or are
//! busy, nobody can be chosen: then [`flush`](BufferedServer::flush) makes a version of what is there.
//!
//! # Acceptance comes before the sum
//! As in a round: a [`Report`] holds all that acceptance and weight depend on, the weight is decided
//! when it is accepted, and its staleness is counted then. Whoever trains may do it lazily:
//! the [buffer](BufferedServer::buffer) says which clients were accepted from which version at what
//! weight, and partial sums are handed over with the list of the clients inside
//! ([`Event::Summed`]). The machine compares the list with what it accepted, so no update is lost or
//! counted twice. While it waits for sums, further reports wait, too ([`Answer::Waiting`]); after the
//! step they are taken in their order, with the new version's staleness, and
//! [news](Notice::Taken) say what became of them.
//!
//! # Old versions
//! The machine holds the newest version only. Whoever trains lazily keeps those that
//! [`versions_in_flight`](BufferedServer::versions_in_flight) names, and drops the others. With a
//! largest staleness there are never more of them than that and one: a client whose version falls
//! behind it could not be accepted any more and is told to stop.
//!
//! # Stopping and going on
//! [`snapshot`](BufferedServer::snapshot) is all that the machine remembers beside the strategy's
//! state: who trains from which version since when, the reports in the buffer, those that wait.
//! [`restore`](BufferedServer::restore) checks it and goes on as if nothing had happened.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::round::{Outcome, Phase, RoundError};
use crate::select::{Candidates, Screened};
use crate::strategy::{ModelState, RoundInfo, Stragglers, Strategy, StrategyError};
use crate::stream::{Purpose, Stream};
use crate::sum::{Aggregator, Tally};
use crate::units::{ClientId, RoundId, VirtualTime, Weight};
use crate::update::{Report, WorkDone};

mod messages;
mod settings;
mod snapshot;

pub use messages::{
    Accepted, Answer, BufferedRecord, Command, Event, Notice, Refusal, Refusals, Transmit,
};
pub use settings::{BufferedSettings, BufferedSetup};
pub use snapshot::{Snapshot, SnapshotError};

use snapshot::Status;

/// The server's side of an asynchronous run, see the [module](self).
#[derive(Debug)]
pub struct BufferedServer<S: Strategy, A: Aggregator + Clone> {
    strategy: S,
    state: S::State,
    setup: BufferedSetup,
    /// To begin each sum with.
    empty: A,
    sum: A,
    phase: Phase,
    version: RoundId,
    now: VirtualTime,
    /// Everyone who trains, waits or is in the buffer.
    clients: BTreeMap<ClientId, Status>,
    /// Those that train, by when they began.
    since: BTreeSet<(VirtualTime, ClientId)>,
    /// How many of `clients` belong to each version.
    versions: BTreeMap<RoundId, u64>,
    /// Who was given the newest version.
    given: BTreeSet<ClientId>,
    /// Selections from the newest version.
    draws: u64,
    waiting: VecDeque<Report>,
    /// Those whose reports are accepted, summed or not.
    buffered: BTreeSet<ClientId>,
    /// Those of them that are not summed yet.
    outstanding: u64,
    record: BufferedRecord,
    refused: Refusals,
    outbox: VecDeque<Transmit>,
    notices: VecDeque<Notice>,
}

impl<S: Strategy, A: Aggregator + Clone> BufferedServer<S, A> {
    /// A server that has `version` and starts no one yet: version zero with `strategy.init(model)`.
    /// `empty` is an empty aggregator.
    ///
    /// # Errors
    /// [`RoundError::NotEmpty`].
    pub fn new(
        strategy: S,
        state: S::State,
        version: RoundId,
        setup: BufferedSetup,
        empty: A,
    ) -> Result<Self, RoundError> {
        if empty.tally().seen() != 0 {
            return Err(RoundError::NotEmpty(empty.tally().seen()));
        }
        Ok(Self::at(strategy, state, version, setup, empty))
    }

    fn at(strategy: S, state: S::State, version: RoundId, setup: BufferedSetup, empty: A) -> Self {
        Self {
            strategy,
            state,
            setup,
            sum: empty.clone(),
            empty,
            phase: Phase::Idle,
            version,
            now: VirtualTime::default(),
            clients: BTreeMap::new(),
            since: BTreeSet::new(),
            versions: BTreeMap::new(),
            given: BTreeSet::new(),
            draws: 0,
            waiting: VecDeque::new(),
            buffered: BTreeSet::new(),
            outstanding: 0,
            record: BufferedRecord::new(version, VirtualTime::default()),
            refused: Refusals::default(),
            outbox: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Begins: from now on there are free places.
    ///
    /// # Errors
    /// [`RoundError::NotIdle`], [`RoundError::TimeBackwards`].
    pub fn start(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.advance(now)?;
        if self.phase != Phase::Idle {
            return Err(RoundError::NotIdle(self.version));
        }
        self.record = BufferedRecord::new(self.version, now);
        self.enter(Phase::Training);
        Ok(())
    }

    /// Clients that are wanted now: places of those that do not train. None while sums are awaited,
    /// so that whoever comes next is given the new version.
    #[must_use]
    pub fn free_places(&self) -> u64 {
        if self.phase != Phase::Training {
            return 0;
        }
        let training = self.since.len() as u64;
        self.setup.settings.concurrency().saturating_sub(training)
    }

    /// Gives the free places to clients among `candidates` that are not busy and were not given this
    /// version before; to fewer where there are not so many. Nothing happens when no place is free.
    /// Says what was asked of the candidates' predicate.
    ///
    /// # Errors
    /// [`RoundError::Select`], [`RoundError::TimeBackwards`]; then nobody was chosen.
    pub fn offer(
        &mut self,
        now: VirtualTime,
        candidates: &Candidates<'_>,
    ) -> Result<Screened, RoundError> {
        self.handle_timeout(now)?;
        let wanted = self.free_places();
        if wanted == 0 {
            return Ok(Screened::default());
        }
        // The number of the draw stands where a client would.
        let (seed, draw) = (self.setup.seed, ClientId(self.draws));
        let mut stream = Stream::at(Purpose::Replacement, seed, self.version, draw);
        let (clients, given) = (&self.clients, &self.given);
        let barred = |client| clients.contains_key(&client) || given.contains(&client);
        let selector = &self.setup.selector;
        let selection =
            candidates.without(&barred, |free| selector.choose(wanted, free, &mut stream))?;
        self.draws += 1;
        let version = self.version;
        for &client in &selection.clients {
            self.place(
                client,
                version,
                Status::Training {
                    version,
                    since: now,
                },
            );
            self.since.insert((now, client));
            self.given.insert(client);
            self.record.given += 1;
            self.outbox.push_back(Transmit {
                client,
                command: Command::Train(version),
            });
        }
        Ok(selection.screened)
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`RoundError`] when the run must stop; what a client does wrong is an [`Answer`].
    pub fn handle(&mut self, now: VirtualTime, event: Event<'_, A>) -> Result<Answer, RoundError> {
        self.handle_timeout(now)?;
        let answer = match event {
            Event::Dropped(client) => self.leave(client, |record| &mut record.dropped),
            Event::Failed(client) => self.leave(client, |record| &mut record.failed),
            Event::Reported(report) => self.report(&report),
            Event::Summed { sum, clients } => self.summed(sum, clients)?,
        };
        if let Answer::Refused(refusal) = answer {
            self.refused.count(refusal);
        }
        self.go_on()?;
        Ok(answer)
    }

    /// The time is now `now`: whoever has run out of time is given up.
    ///
    /// # Errors
    /// [`RoundError::TimeBackwards`].
    pub fn handle_timeout(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.advance(now)?;
        while self.poll_timeout().is_some_and(|timeout| timeout <= now)
            && let Some((_, client)) = self.since.first().copied()
        {
            self.stop(client);
            self.record.timed_out += 1;
        }
        Ok(())
    }

    /// Makes a version of what is in the buffer, if anything is: for a driver that sees that no more
    /// will come.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub fn flush(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.handle_timeout(now)?;
        if self.phase == Phase::Training && !self.buffered.is_empty() {
            self.enter(Phase::Aggregating);
            self.go_on()?;
        }
        Ok(())
    }

    /// Ends the run: everyone is told to stop, and what is in the buffer is lost.
    ///
    /// # Errors
    /// [`RoundError::TimeBackwards`].
    pub fn abort(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.advance(now)?;
        if self.phase == Phase::Idle {
            return Ok(());
        }
        while let Some((_, client)) = self.since.first().copied() {
            self.stop(client);
            self.record.stopped += 1;
        }
        self.record.lost += self.outstanding + self.waiting.len() as u64;
        self.record.tally = *self.sum.tally();
        self.waiting.clear();
        self.clients.clear();
        self.versions.clear();
        self.conclude(Outcome::Aborted);
        self.enter(Phase::Idle);
        Ok(())
    }

    /// The next message to be sent.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    /// The next piece of news.
    #[must_use]
    pub fn poll(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<VirtualTime> {
        let &(since, _) = self.since.first()?;
        Some(since + self.setup.settings.timeout?)
    }

    /// The newest version; the number of the step that comes next.
    #[must_use]
    pub fn version(&self) -> RoundId {
        self.version
    }

    /// Whether reports are taken, or sums are awaited.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The clients whose reports were accepted for the next step and are not summed yet, ascending.
    pub fn buffer(&self) -> impl Iterator<Item = Accepted> {
        let statuses = self
            .buffered
            .iter()
            .filter_map(|client| self.clients.get(client));
        statuses.filter_map(|status| match *status {
            Status::Accepted { report, weight } => Some(Accepted { report, weight }),
            _ => None,
        })
    }

    /// The clients that train, with the version that each was given and since when, ascending.
    pub fn training(&self) -> impl Iterator<Item = (ClientId, RoundId, VirtualTime)> {
        let clients = self.clients.iter();
        clients.filter_map(|(&client, status)| match *status {
            Status::Training { version, since } => Some((client, version, since)),
            _ => None,
        })
    }

    /// The versions that somebody trains from, or was trained from by a report that waits or is in the
    /// buffer; ascending.
    pub fn versions_in_flight(&self) -> impl Iterator<Item = RoundId> {
        self.versions.keys().copied()
    }

    /// The oldest of the [versions in flight](Self::versions_in_flight).
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<RoundId> {
        self.versions_in_flight().next()
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> &S {
        &self.strategy
    }

    /// The strategy's state: with [`snapshot`](Self::snapshot), all that a checkpoint needs.
    #[must_use]
    pub fn state(&self) -> &S::State {
        &self.state
    }

    /// The newest version's model.
    #[must_use]
    pub fn global(&self) -> &Parameters {
        self.state.global()
    }

    /// Sets what `mask` prunes to zero in the model and in the strategy's memory of its motion; see
    /// [`RoundServer::prune`](crate::RoundServer::prune).
    ///
    /// # Panics
    /// When the mask is not of this model's parameters.
    pub fn prune(&mut self, mask: &Mask) {
        self.state.prune(mask);
    }

    /// What the strategy is told of the next step.
    #[must_use]
    pub fn info(&self) -> RoundInfo {
        RoundInfo {
            round: self.version,
            population: self.setup.population,
        }
    }

    /// What clients that are given the newest version are asked to do.
    ///
    /// # Errors
    /// [`StrategyError::WrongState`].
    pub fn plan(&self) -> Result<LocalPlan, StrategyError> {
        self.strategy
            .plan(&self.state, &self.info(), &self.setup.local)
    }

    fn advance(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        if now < self.now {
            return Err(RoundError::TimeBackwards {
                from: self.now,
                to: now,
            });
        }
        self.now = now;
        Ok(())
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.notices.push_back(Notice::Phase(phase));
    }

    /// Puts a client that is nowhere.
    fn place(&mut self, client: ClientId, version: RoundId, status: Status) {
        self.clients.insert(client, status);
        *self.versions.entry(version).or_default() += 1;
    }

    /// Takes a client from wherever it is.
    fn remove(&mut self, client: ClientId) -> Option<Status> {
        let status = self.clients.remove(&client)?;
        if let Status::Training { since, .. } = status {
            self.since.remove(&(since, client));
        }
        let version = status.version();
        if let Some(count) = self.versions.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                self.versions.remove(&version);
            }
        }
        Some(status)
    }

    /// Gives up a client that trains.
    fn stop(&mut self, client: ClientId) {
        self.remove(client);
        self.outbox.push_back(Transmit {
            client,
            command: Command::Stop,
        });
    }

    fn leave(&mut self, client: ClientId, counter: fn(&mut BufferedRecord) -> &mut u64) -> Answer {
        match self.clients.get(&client) {
            None => return Answer::Refused(Refusal::NotTraining),
            Some(Status::Summed { .. }) => return Answer::Refused(Refusal::Duplicate),
            Some(Status::Training { .. }) => *counter(&mut self.record) += 1,
            Some(Status::Waiting { .. }) => {
                self.waiting.retain(|report| report.client != client);
                self.record.lost += 1;
            }
            Some(Status::Accepted { .. }) => {
                self.buffered.remove(&client);
                self.outstanding -= 1;
                self.record.lost += 1;
            }
        }
        self.remove(client);
        Answer::Noted
    }

    fn staleness(&self, version: RoundId) -> u64 {
        self.version.0.saturating_sub(version.0)
    }

    fn too_stale(&self, version: RoundId) -> bool {
        let most = self.setup.settings.max_staleness;
        most.is_some_and(|most| self.staleness(version) > most)
    }

    fn report(&mut self, report: &Report) -> Answer {
        let client = report.client;
        let version = report.round;
        match self.clients.get(&client) {
            Some(Status::Training { version: given, .. }) if *given != version => {
                Answer::Refused(Refusal::OtherVersion)
            }
            Some(Status::Training { .. }) if self.phase == Phase::Aggregating => {
                self.remove(client);
                self.place(client, version, Status::Waiting { version });
                self.waiting.push_back(*report);
                Answer::Waiting
            }
            Some(Status::Training { .. }) => self.take(report),
            Some(_) => Answer::Refused(Refusal::Duplicate),
            None if self.phase != Phase::Idle && self.too_stale(version) => {
                Answer::Refused(Refusal::TooStale)
            }
            None => Answer::Refused(Refusal::NotTraining),
        }
    }

    /// Decides on the report of a client that trains or waits: it goes into the buffer or is gone.
    fn take(&mut self, report: &Report) -> Answer {
        let client = report.client;
        self.remove(client);
        if (report.work, self.strategy.stragglers()) == (WorkDone::Partial, Stragglers::Drop) {
            self.record.stragglers += 1;
            return Answer::Refused(Refusal::PartialWork);
        }
        let weight = self.strategy.weight(report, &self.info());
        let status = Status::Accepted {
            report: *report,
            weight,
        };
        self.place(client, report.round, status);
        self.buffered.insert(client);
        self.outstanding += 1;
        let staleness = self.staleness(report.round);
        self.record.accept(report, staleness);
        Answer::Accepted { weight }
    }

    fn summed(&mut self, sum: &mut A, clients: &[ClientId]) -> Result<Answer, RoundError> {
        if self.phase == Phase::Idle {
            return Err(RoundError::NoRound);
        }
        let mut expected = Weight(0);
        let mut listed = BTreeSet::new();
        for &client in clients {
            match self.clients.get(&client) {
                Some(Status::Accepted { weight, .. }) if listed.insert(client) => {
                    expected.0 = expected.0.saturating_add(weight.0);
                }
                _ => return Err(RoundError::WrongMember(client)),
            }
        }
        RoundError::unless_content(sum.tally(), clients.len() as u64, expected)?;
        self.sum.merge(sum)?;
        self.outstanding -= clients.len() as u64;
        for client in clients {
            if let Some(status) = self.clients.get_mut(client) {
                let version = status.version();
                *status = Status::Summed { version };
            }
        }
        Ok(Answer::Noted)
    }

    fn is_full(&self) -> bool {
        self.buffered.len() as u64 >= self.setup.settings.buffer()
    }

    /// Makes steps as far as what has happened allows.
    fn go_on(&mut self) -> Result<(), RoundError> {
        loop {
            if self.phase == Phase::Training && self.is_full() {
                self.enter(Phase::Aggregating);
            }
            if self.phase != Phase::Aggregating || self.outstanding > 0 {
                return Ok(());
            }
            self.step()?;
            while self.phase == Phase::Training
                && !self.is_full()
                && let Some(report) = self.waiting.pop_front()
            {
                let answer = self.take(&report);
                if let Answer::Refused(refusal) = answer {
                    self.refused.count(refusal);
                }
                let client = report.client;
                self.notices.push_back(Notice::Taken { client, answer });
            }
        }
    }

    /// All of the buffer is summed: the model moves, if any update is in the sum, and there is a new
    /// version. On an error there is none, and the state is as before.
    fn step(&mut self) -> Result<(), RoundError> {
        let tally = *self.sum.tally();
        let outcome = if tally.clients == 0 {
            Outcome::TooFewUpdates
        } else {
            let mut mean = self.sum.clone().finish()?;
            self.setup.chain.undo(mean.mean_mut(), self.version);
            self.state = self
                .strategy
                .apply(self.state.clone(), &mean, &self.info())?;
            Outcome::Applied
        };
        self.record.tally = tally;
        for client in core::mem::take(&mut self.buffered) {
            self.remove(client);
        }
        self.conclude(outcome);
        self.stop_the_stale();
        self.enter(Phase::Training);
        Ok(())
    }

    /// Stops those whose report could not be accepted any more, and refuses those that waited too long.
    /// Nothing is in the buffer.
    fn stop_the_stale(&mut self) {
        if !self.oldest_in_flight().is_some_and(|v| self.too_stale(v)) {
            return;
        }
        let clients = self.clients.iter();
        let stale: Vec<(ClientId, bool)> = clients
            .filter(|(_, status)| self.too_stale(status.version()))
            .map(|(&client, status)| (client, matches!(status, Status::Waiting { .. })))
            .collect();
        for (client, waits) in stale {
            self.record.too_stale += 1;
            if waits {
                self.remove(client);
                self.waiting.retain(|report| report.client != client);
                self.refused.count(Refusal::TooStale);
                let answer = Answer::Refused(Refusal::TooStale);
                self.notices.push_back(Notice::Taken { client, answer });
            } else {
                self.stop(client);
            }
        }
    }

    /// Ends the record of a version and begins the next one's.
    fn conclude(&mut self, outcome: Outcome) {
        self.version.0 += 1;
        let next = BufferedRecord::new(self.version, self.now);
        let record = BufferedRecord {
            ended: self.now,
            outcome,
            training: self.since.len() as u64,
            refused: core::mem::take(&mut self.refused),
            ..core::mem::replace(&mut self.record, next)
        };
        self.notices.push_back(Notice::Ended(Box::new(record)));
        self.given.clear();
        self.draws = 0;
        self.buffered.clear();
        self.outstanding = 0;
        self.sum = self.empty.clone();
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
