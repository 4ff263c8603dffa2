//! A round as a state machine without input or output: a simulator drives it with a virtual clock,
//! a server with sockets.
//!
//! # Driving it
//! [`RoundServer::start`], [`handle`](RoundServer::handle), [`handle_timeout`] and
//! [`abort`](RoundServer::abort) take things in. After each of them, in this order:
//! [`poll_transmit`](RoundServer::poll_transmit) until `None` and send what it gives, then
//! [`poll`](RoundServer::poll) until `None`, then [`poll_timeout`](RoundServer::poll_timeout) and
//! set the alarm. Time never runs backwards; what happens at the very moment of a timeout comes
//! after it.
//!
//! # Phases
//! ```text
//! Idle --start--> Selecting --all answered, or time is up--> Training
//!   ^                 |  too few                                |  goal reached, nobody left,
//!   |                 v                                         v  or deadline
//!   +------------- failed <--too few-- (decide) <--all summed-- Aggregating
//!   +------------- applied <-------------+
//! ```
//! A client is `invited`, `ready`, `training`, `accepted`, `summed`, or gone with a reason.
//!
//! # Acceptance comes before the sum
//! A [`Report`] holds all that acceptance and weight depend on. Once a client is
//! [accepted](Answer::Accepted), its update must be summed with exactly that weight, by whoever
//! does it: the machine itself ([`Event::Update`] does both at once), or workers with an
//! aggregator each, whose partial sum is handed over with the list of the clients inside
//! ([`Event::Summed`]). The machine compares the list with what it accepted, so no update is lost
//! or counted twice. An update that the aggregator [rejects](crate::sum::Rejection) keeps its
//! client's place in the round and is counted; that does not depend on the order of arrival.
//! A place that an accepted client [loses](Event::Dropped) while others still train is free again.
//!
//! A round that fails changes nothing but the round's number, so the next one draws a new cohort.
//!
//! [`handle_timeout`]: RoundServer::handle_timeout

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::registry::ConfigError;
use crate::select::{Candidates, SelectError, Selector, selection_stream};
use crate::strategy::{ModelState, RoundInfo, Stragglers, Strategy, StrategyError};
use crate::sum::{Absorbed, Aggregator, Rejection, SumError, Tally};
use crate::transform::TransformChain;
use crate::units::{ClientId, RoundId, Seed, VirtualDuration, VirtualTime, Weight};
use crate::update::{ClientUpdate, Cost, Payload, Report, WorkDone};

/// When a round goes on without those who are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundSettings {
    minimum: u64,
    invitation: Option<VirtualDuration>,
    deadline: Option<VirtualDuration>,
}

impl Default for RoundSettings {
    /// At least one update; everyone is waited for.
    fn default() -> Self {
        Self {
            minimum: 1,
            invitation: None,
            deadline: None,
        }
    }
}

impl RoundSettings {
    /// `minimum` updates must be in the sum; clients have `invitation` to answer and, from the
    /// start of training, `deadline` to report.
    ///
    /// # Errors
    /// [`ConfigError`] for a minimum of zero or a span of zero.
    pub fn new(
        minimum: u64,
        invitation: Option<VirtualDuration>,
        deadline: Option<VirtualDuration>,
    ) -> Result<Self, ConfigError> {
        ConfigError::unless(
            minimum > 0,
            "minimum",
            minimum,
            "a whole number of at least 1",
        )?;
        for (key, span) in [("invitation", invitation), ("deadline", deadline)] {
            let some = span.is_none_or(|span| span.0 > 0);
            ConfigError::unless(some, key, 0, "a span of time above 0")?;
        }
        Ok(Self {
            minimum,
            invitation,
            deadline,
        })
    }
}

/// What stays the same over all rounds of a run.
#[derive(Debug)]
pub struct RunSetup {
    /// Chooses cohorts.
    pub selector: Box<dyn Selector>,
    /// What clients are asked to do, before the strategy has its say.
    pub local: LocalPlan,
    /// When a round goes on without those who are missing.
    pub settings: RoundSettings,
    /// What clients do to their updates, to be undone.
    pub chain: TransformChain,
    /// The experiment's seed.
    pub seed: Seed,
    /// Clients in all.
    pub population: u64,
}

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
    fn count(&mut self, refusal: Refusal) {
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
    /// Train [`RoundServer::plan`] from [`RoundServer::global`] and report.
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
    /// It did not: fewer clients were ready than must report.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Invited,
    Ready,
    Training,
    Accepted(Weight),
    Summed,
    Gone(Reason),
}

/// Why a client is no longer waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Left,
    Straggler,
    TimedOut,
    Stopped,
}

#[derive(Debug)]
struct Running<A> {
    phase: Phase,
    sum: A,
    /// Ascending.
    members: Vec<ClientId>,
    status: Vec<Status>,
    /// Members in this state.
    invited: u64,
    /// Members in this state.
    training: u64,
    /// Accepted and not yet summed.
    outstanding: u64,
    /// Accepted, and not lost.
    accepted: u64,
    timeout: Option<VirtualTime>,
    record: RoundRecord,
}

/// The server's side of the rounds of a run, see the [module](self).
#[derive(Debug)]
pub struct RoundServer<S: Strategy, A: Aggregator> {
    strategy: S,
    state: S::State,
    setup: RunSetup,
    round: RoundId,
    now: VirtualTime,
    running: Option<Running<A>>,
    refused: Refusals,
    outbox: VecDeque<Transmit>,
    notices: VecDeque<Notice>,
}

impl<S: Strategy, A: Aggregator> RoundServer<S, A> {
    /// A server that will play `round` next: zero with `strategy.init(model)`, or what a
    /// checkpoint holds.
    #[must_use]
    pub fn new(strategy: S, state: S::State, round: RoundId, setup: RunSetup) -> Self {
        Self {
            strategy,
            state,
            setup,
            round,
            now: VirtualTime::default(),
            running: None,
            refused: Refusals::default(),
            outbox: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Begins a round: selects among `candidates` and invites. `sum` is an empty aggregator.
    ///
    /// # Errors
    /// [`RoundError`]; then no round has begun.
    pub fn start(
        &mut self,
        now: VirtualTime,
        candidates: &Candidates<'_>,
        sum: A,
    ) -> Result<(), RoundError> {
        self.advance(now)?;
        if self.running.is_some() {
            return Err(RoundError::NotIdle(self.round));
        }
        if sum.tally().seen() != 0 {
            return Err(RoundError::NotEmpty(sum.tally().seen()));
        }
        let mut stream = selection_stream(self.setup.seed, self.round);
        let selection = self.setup.selector.select(candidates, &mut stream)?;
        let members = selection.clients;
        let selected = members.len() as u64;
        self.outbox.extend(members.iter().map(|&client| Transmit {
            client,
            message: Message::Invite,
        }));
        self.notices.push_back(Notice::Phase(Phase::Selecting));
        self.running = Some(Running {
            phase: Phase::Selecting,
            sum,
            status: vec![Status::Invited; members.len()],
            members,
            invited: selected,
            training: 0,
            outstanding: 0,
            accepted: 0,
            timeout: self.setup.settings.invitation.map(|span| now + span),
            record: RoundRecord {
                round: self.round,
                started: now,
                ended: now,
                outcome: Outcome::Aborted,
                selected,
                unready: 0,
                ready: 0,
                goal: selection.goal,
                dropped: 0,
                failed: 0,
                stragglers: 0,
                timed_out: 0,
                stopped: 0,
                lost: 0,
                tally: Tally::default(),
                refused: Refusals::default(),
                cost: Cost::default(),
            },
        });
        self.go_on()
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`RoundError`] when the run must stop; what a client does wrong is an [`Answer`].
    pub fn handle(&mut self, now: VirtualTime, event: Event<'_, A>) -> Result<Answer, RoundError> {
        self.handle_timeout(now)?;
        let answer = match event {
            Event::Ready(client) => self.ready(client),
            Event::Dropped(client) => self.leave(client, |record| &mut record.dropped),
            Event::Failed(client) => self.leave(client, |record| &mut record.failed),
            Event::Reported(report) => self.report(&report),
            Event::Update(update) => self.update(update)?,
            Event::Summed { sum, clients } => self.summed(sum, clients)?,
        };
        if let Answer::Refused(refusal) = answer {
            self.refused.count(refusal);
        }
        self.go_on()?;
        Ok(answer)
    }

    /// The time is now `now`: whatever has run out, has.
    ///
    /// # Errors
    /// [`RoundError`] when the run must stop.
    pub fn handle_timeout(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.advance(now)?;
        while let Some(running) = &mut self.running
            && running.timeout.is_some_and(|timeout| timeout <= now)
        {
            running.timeout = None;
            match running.phase {
                Phase::Selecting => self.begin_training(),
                Phase::Training => self.close(Reason::TimedOut),
                Phase::Idle | Phase::Aggregating => {}
            }
            self.go_on()?;
        }
        Ok(())
    }

    /// Gives the round up, if one is on.
    ///
    /// # Errors
    /// [`RoundError::TimeBackwards`].
    pub fn abort(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.advance(now)?;
        self.end(Outcome::Aborted);
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
        self.running.as_ref()?.timeout
    }

    /// The round that is on, or comes next.
    #[must_use]
    pub fn round(&self) -> RoundId {
        self.round
    }

    /// Where the round is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.running
            .as_ref()
            .map_or(Phase::Idle, |running| running.phase)
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> &S {
        &self.strategy
    }

    /// The strategy's state: with [`round`](Self::round), all that a checkpoint needs.
    #[must_use]
    pub fn state(&self) -> &S::State {
        &self.state
    }

    /// The global model.
    #[must_use]
    pub fn global(&self) -> &Parameters {
        self.state.global()
    }

    /// What the strategy is told of the round.
    #[must_use]
    pub fn info(&self) -> RoundInfo {
        RoundInfo {
            round: self.round,
            population: self.setup.population,
        }
    }

    /// What clients are asked to do in this round.
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

    /// The running round and the place of `client` in it.
    fn find(&mut self, client: ClientId) -> Result<(&mut Running<A>, usize), Refusal> {
        let running = self.running.as_mut().ok_or(Refusal::OtherRound)?;
        let place = running
            .members
            .binary_search(&client)
            .map_err(|_| Refusal::Unknown)?;
        Ok((running, place))
    }

    fn ready(&mut self, client: ClientId) -> Answer {
        let (running, place) = match self.find(client) {
            Ok(found) => found,
            Err(refusal) => return Answer::Refused(refusal),
        };
        match running.status[place] {
            Status::Invited => {
                running.status[place] = Status::Ready;
                running.invited -= 1;
                running.record.ready += 1;
                Answer::Noted
            }
            Status::Gone(Reason::TimedOut) => Answer::Refused(Refusal::Late),
            _ => Answer::Refused(Refusal::Duplicate),
        }
    }

    fn leave(&mut self, client: ClientId, counter: fn(&mut RoundRecord) -> &mut u64) -> Answer {
        let (running, place) = match self.find(client) {
            Ok(found) => found,
            Err(refusal) => return Answer::Refused(refusal),
        };
        match running.status[place] {
            Status::Invited => {
                running.invited -= 1;
                running.record.unready += 1;
            }
            Status::Ready => {
                running.record.ready -= 1;
                running.record.unready += 1;
            }
            Status::Training => {
                running.training -= 1;
                *counter(&mut running.record) += 1;
            }
            Status::Accepted(_) => {
                running.outstanding -= 1;
                running.accepted -= 1;
                running.record.lost += 1;
            }
            Status::Summed => return Answer::Refused(Refusal::Duplicate),
            Status::Gone(_) => return Answer::Refused(Refusal::NotTraining),
        }
        running.status[place] = Status::Gone(Reason::Left);
        Answer::Noted
    }

    /// Whether a report counts, and with what weight. A straggler that is dropped is gone.
    fn decide(&mut self, report: &Report) -> Result<Weight, Refusal> {
        if self.running.is_some() && report.round != self.round {
            return Err(Refusal::OtherRound);
        }
        let weight = self.strategy.weight(report, &self.info());
        let stragglers = self.strategy.stragglers();
        let (running, place) = self.find(report.client)?;
        match running.status[place] {
            Status::Training => {}
            Status::Accepted(_) | Status::Summed => return Err(Refusal::Duplicate),
            Status::Gone(Reason::TimedOut) => return Err(Refusal::Late),
            Status::Gone(Reason::Stopped) => return Err(Refusal::Surplus),
            Status::Invited | Status::Ready | Status::Gone(Reason::Left | Reason::Straggler) => {
                return Err(Refusal::NotTraining);
            }
        }
        if (report.work, stragglers) == (WorkDone::Partial, Stragglers::Drop) {
            running.status[place] = Status::Gone(Reason::Straggler);
            running.training -= 1;
            running.record.stragglers += 1;
            return Err(Refusal::PartialWork);
        }
        Ok(weight)
    }

    fn accept(&mut self, report: &Report, status: Status) {
        let Ok((running, place)) = self.find(report.client) else {
            return;
        };
        running.status[place] = status;
        running.training -= 1;
        running.accepted += 1;
        running.outstanding += u64::from(status != Status::Summed);
        let cost = &mut running.record.cost;
        cost.download.0 = cost.download.0.saturating_add(report.cost.download.0);
        cost.upload.0 = cost.upload.0.saturating_add(report.cost.upload.0);
        cost.time.0 = cost.time.0.saturating_add(report.cost.time.0);
    }

    fn report(&mut self, report: &Report) -> Answer {
        match self.decide(report) {
            Ok(weight) => {
                self.accept(report, Status::Accepted(weight));
                Answer::Accepted { weight }
            }
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn update(&mut self, update: &ClientUpdate) -> Result<Answer, RoundError> {
        let weight = match self.decide(&update.report) {
            Ok(weight) => weight,
            Err(refusal) => return Ok(Answer::Refused(refusal)),
        };
        let Some(running) = &mut self.running else {
            return Ok(Answer::Refused(Refusal::OtherRound));
        };
        let absorbed = match &update.payload {
            Payload::Dense(values) => running.sum.absorb(values, weight)?,
            Payload::Ring(vector) => running.sum.absorb_encoded(vector, weight)?,
        };
        self.accept(&update.report, Status::Summed);
        Ok(match absorbed {
            Absorbed::Summed { .. } => Answer::Accepted { weight },
            Absorbed::Rejected(rejection) => Answer::Rejected(rejection),
        })
    }

    fn summed(&mut self, sum: &mut A, clients: &[ClientId]) -> Result<Answer, RoundError> {
        let running = self.running.as_mut().ok_or(RoundError::NoRound)?;
        let mut expected = Weight(0);
        let mut places = Vec::with_capacity(clients.len());
        for &client in clients {
            let place = running.members.binary_search(&client);
            match place.map(|place| (place, running.status[place])) {
                Ok((place, Status::Accepted(weight))) => {
                    places.push(place);
                    expected.0 += weight.0;
                }
                _ => return Err(RoundError::WrongMember(client)),
            }
        }
        places.sort_unstable();
        if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RoundError::WrongMember(running.members[pair[0]]));
        }
        let tally = *sum.tally();
        let listed = clients.len() as u64;
        let all_summed = tally.rejected.total() == 0;
        if tally.seen() != listed
            || tally.weight > expected
            || (all_summed && tally.weight != expected)
        {
            return Err(RoundError::WrongContent {
                seen: tally.seen(),
                listed,
                weight: tally.weight,
                expected,
            });
        }
        running.sum.merge(sum)?;
        running.outstanding -= listed;
        for place in places {
            running.status[place] = Status::Summed;
        }
        Ok(Answer::Noted)
    }

    /// Goes through the phases as far as what has happened allows.
    fn go_on(&mut self) -> Result<(), RoundError> {
        if let Some(running) = &self.running
            && running.phase == Phase::Selecting
            && running.invited == 0
        {
            self.begin_training();
        }
        if let Some(running) = &self.running
            && running.phase == Phase::Training
            && (running.training == 0 || running.accepted == running.record.goal)
        {
            self.close(Reason::Stopped);
        }
        if let Some(running) = &self.running
            && running.phase == Phase::Aggregating
            && running.outstanding == 0
        {
            self.decide_round()?;
        }
        Ok(())
    }

    /// Selecting is over: those that are ready train.
    fn begin_training(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.record.ready < self.setup.settings.minimum {
            self.end(Outcome::TooFewReady);
            return;
        }
        running.record.unready += core::mem::take(&mut running.invited);
        for (status, &client) in running.status.iter_mut().zip(&running.members) {
            let message = match status {
                Status::Invited => {
                    *status = Status::Gone(Reason::TimedOut);
                    Message::Stop
                }
                Status::Ready => {
                    *status = Status::Training;
                    Message::Train
                }
                _ => continue,
            };
            self.outbox.push_back(Transmit { client, message });
        }
        running.training = running.record.ready;
        running.record.goal = running.record.goal.min(running.record.ready);
        running.phase = Phase::Training;
        running.timeout = self.setup.settings.deadline.map(|span| self.now + span);
        self.notices.push_back(Notice::Phase(Phase::Training));
    }

    /// No more reports: whoever still trains is told to stop.
    fn close(&mut self, reason: Reason) {
        let Some(running) = &mut self.running else {
            return;
        };
        for (status, &client) in running.status.iter_mut().zip(&running.members) {
            if *status == Status::Training {
                *status = Status::Gone(reason);
                let message = Message::Stop;
                self.outbox.push_back(Transmit { client, message });
            }
        }
        let gone = core::mem::take(&mut running.training);
        match reason {
            Reason::TimedOut => running.record.timed_out += gone,
            _ => running.record.stopped += gone,
        }
        running.phase = Phase::Aggregating;
        running.timeout = None;
        self.notices.push_back(Notice::Phase(Phase::Aggregating));
    }

    /// Every accepted update is in the sum: the model moves, or the round has failed.
    fn decide_round(&mut self) -> Result<(), RoundError> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        running.record.tally = *running.sum.tally();
        if running.record.tally.clients < self.setup.settings.minimum {
            self.conclude(running.record, Outcome::TooFewUpdates);
            return Ok(());
        }
        let mut mean = running.sum.finish()?;
        self.setup.chain.undo(mean.mean_mut(), self.round);
        // The state before the round stays whole if the strategy cannot go on.
        self.state = self
            .strategy
            .apply(self.state.clone(), &mean, &self.info())?;
        self.conclude(running.record, Outcome::Applied);
        Ok(())
    }

    /// Ends the round early: nothing moves.
    fn end(&mut self, outcome: Outcome) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let record = &mut running.record;
        for (status, &client) in running.status.iter().zip(&running.members) {
            match status {
                Status::Invited => record.unready += 1,
                Status::Ready | Status::Training => record.stopped += 1,
                Status::Accepted(_) => {
                    record.lost += 1;
                    continue;
                }
                Status::Summed | Status::Gone(_) => continue,
            }
            let message = Message::Stop;
            self.outbox.push_back(Transmit { client, message });
        }
        record.tally = *running.sum.tally();
        self.conclude(running.record, outcome);
    }

    fn conclude(&mut self, mut record: RoundRecord, outcome: Outcome) {
        record.outcome = outcome;
        record.ended = self.now;
        record.refused = core::mem::take(&mut self.refused);
        self.round.0 += 1;
        self.notices.push_back(Notice::Ended(Box::new(record)));
        self.notices.push_back(Notice::Phase(Phase::Idle));
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
