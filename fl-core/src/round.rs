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
//! # Shares
//! Beside a fixed minimum a round may require a [share](RoundSettings::with_share) of the reports that
//! it wanted, and a lowered one when more than half of those selected dropped out, as when a network
//! fails: Bonawitz et al. 2019 (arXiv:1902.01046, section 2.2) abandon a round below a minimum share
//! of its goal. A round that fails is tried again by starting the next one.
//!
//! # Private rounds
//! Under central differential privacy the strategy may see nothing but what a privacy plan releases.
//! With [`RoundSettings::released`] the machine waits in its last phase until the driver has taken
//! the [sum](RoundServer::awaiting_release), of any number of updates and of none, and gives back
//! the [released mean](RoundServer::release). A [combined](RoundSettings::combined) mean of groups
//! enters by the same door.
//!
//! [`handle_timeout`]: RoundServer::handle_timeout

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::select::{Candidates, Screened, Selector, selection_stream};
use crate::strategy::{ModelState, RoundInfo, Stragglers, Strategy, StrategyError};
use crate::sum::{Absorbed, Aggregate, Aggregator, Tally};
use crate::transform::TransformChain;
use crate::units::{ClientId, RoundId, Seed, VirtualTime, Weight};
use crate::update::{ClientUpdate, Cost, Payload, Report, WorkDone};

mod messages;
mod settings;

pub use messages::{
    Answer, Event, Message, Notice, Outcome, Phase, Refusal, Refusals, RoundError, RoundRecord,
    Transmit,
};
pub use settings::RoundSettings;

use settings::Mean;

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
    /// Reports that the selection wanted; the record's goal is lower when fewer are ready.
    wanted: u64,
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
    screened: Screened,
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
            screened: Screened::default(),
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
        self.screened = selection.screened;
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
            wanted: selection.goal,
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

    /// The sum of a round that waits for the driver's mean; none at any other time.
    #[must_use]
    pub fn awaiting_release(&self) -> Option<&A> {
        let running = self.running.as_ref()?;
        let whole = running.phase == Phase::Aggregating && running.outstanding == 0;
        (whole && self.setup.settings.mean != Mean::Own).then_some(&running.sum)
    }

    /// Ends a round that [waits for its mean](Self::awaiting_release): the strategy applies `mean`.
    ///
    /// # Errors
    /// [`RoundError::NotAwaiting`] when no round waits; [`RoundError::OtherMean`] when a mean that is
    /// [combined](RoundSettings::combined) is not of the updates in the sum; else as
    /// [`handle`](Self::handle).
    pub fn release(&mut self, now: VirtualTime, mut mean: Aggregate) -> Result<(), RoundError> {
        self.advance(now)?;
        let Some(sum) = self.awaiting_release() else {
            return Err(RoundError::NotAwaiting(self.round));
        };
        if self.setup.settings.mean == Mean::Combined && mean.tally() != sum.tally() {
            return Err(RoundError::OtherMean {
                clients: mean.tally().clients,
                weight: mean.tally().weight,
                summed: sum.tally().clients,
                total: sum.tally().weight,
            });
        }
        self.setup.chain.undo(mean.mean_mut(), self.round);
        self.state = self
            .strategy
            .apply(self.state.clone(), &mean, &self.info())?;
        if let Some(mut running) = self.running.take() {
            running.record.tally = *running.sum.tally();
            let outcome = self.outcome_of(&running);
            self.conclude(running.record, outcome);
        }
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

    /// What the last selection asked of the candidates' predicate.
    #[must_use]
    pub fn screened(&self) -> Screened {
        self.screened
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

    /// Sets what `mask` prunes to zero in the model and in the strategy's memory of its motion.
    /// Between rounds; the round machine does not know masks, so after a round it is to be done
    /// again.
    ///
    /// # Panics
    /// When the mask is not of this model's parameters.
    pub fn prune(&mut self, mask: &Mask) {
        self.state.prune(mask);
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
        running.record.cost.add(&report.cost);
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
                    // A weight comes from a client's report, however absurd; no sum reaches the end.
                    expected.0 = expected.0.saturating_add(weight.0);
                }
                _ => return Err(RoundError::WrongMember(client)),
            }
        }
        places.sort_unstable();
        if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RoundError::WrongMember(running.members[pair[0]]));
        }
        let listed = clients.len() as u64;
        RoundError::unless_content(sum.tally(), listed, expected)?;
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
            let few = self.outcome_of(running) == Outcome::TooFewUpdates;
            match self.setup.settings.mean {
                Mean::Own => self.decide_round()?,
                Mean::Combined if few => self.decide_round()?,
                Mean::Combined | Mean::Released => {}
            }
        }
        Ok(())
    }

    /// Selecting is over: those that are ready train.
    fn begin_training(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.record.ready < self.setup.settings.fewest(running.wanted) {
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
        let outcome = self.outcome_of(&running);
        if outcome == Outcome::TooFewUpdates {
            self.conclude(running.record, outcome);
            return Ok(());
        }
        let mut mean = running.sum.finish()?;
        self.setup.chain.undo(mean.mean_mut(), self.round);
        // The state before the round stays whole if the strategy cannot go on.
        self.state = self
            .strategy
            .apply(self.state.clone(), &mean, &self.info())?;
        self.conclude(running.record, outcome);
        Ok(())
    }

    /// How a round ends whose sum is whole.
    fn outcome_of(&self, running: &Running<A>) -> Outcome {
        let settings = &self.setup.settings;
        settings.outcome(&running.record, running.sum.tally().clients, running.wanted)
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
pub(crate) mod twin;
