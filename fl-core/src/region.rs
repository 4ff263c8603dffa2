//! A regional aggregator, for rounds in two levels: clients report to their region, the region sums
//! what was accepted, and the global [`RoundServer`](crate::RoundServer) gets one sum per region.
//!
//! # Who decides
//! The global server stays the one that selects, accepts and weighs: its goal counts reports of all
//! regions, weights are the strategy's, and each client is in one place. A region holds two things
//! only, the list of its clients and their sum, and has two rules of its own, a goal and a deadline,
//! which apply before a report goes up. That is the least there can be: [`Event::Summed`] is exactly
//! "a partial sum and the list of those inside", checked against what was accepted, so a region is a
//! worker that can fail. As sums are exact, who is in which region changes no bit of the result; a
//! region that fails costs its own clients and nothing else.
//!
//! How a region gets its sum is the driver's matter: update by update, from workers, or out of a
//! session of secure aggregation among its clients.
//!
//! # Driving it
//! [`begin`](Region::begin), [`join`](Region::join), [`report`](Region::report),
//! [`answered`](Region::answered), [`leave`](Region::leave),
//! [`handle_timeout`](Region::handle_timeout), [`fail`](Region::fail) and
//! [`come_back`](Region::come_back) take things in. After each of them
//! [`poll_upward`](Region::poll_upward) until `None`, and tell the global server; then
//! [`poll_stop`](Region::poll_stop) until `None`, and tell those clients to stop. Sums go in by
//! [`absorb`](Region::absorb) and [`merge`](Region::merge) and up by [`hand_up`](Region::hand_up).
//!
//! ```text
//! begin --join--> training --report--> reported --answered--> accepted --absorb--> summed --hand_up-->
//! ```
//!
//! [`Event::Summed`]: crate::round::Event::Summed

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::registry::ConfigError;
use crate::round::{Refusal, RoundError};
use crate::sum::{Absorbed, Aggregator};
use crate::units::{ClientId, RoundId, VirtualDuration, VirtualTime, Weight};
use crate::update::Report;

/// When a region goes on without those of its clients that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionSettings {
    goal: Option<u64>,
    deadline: Option<VirtualDuration>,
}

impl RegionSettings {
    /// So many reports complete the region's part, and from the beginning of the round its clients have
    /// so long to report; by default both are the global round's matter.
    ///
    /// # Errors
    /// [`ConfigError`] for a goal or a span of zero.
    pub fn new(goal: Option<u64>, deadline: Option<VirtualDuration>) -> Result<Self, ConfigError> {
        let some = goal.is_none_or(|goal| goal > 0);
        ConfigError::unless(some, "goal", 0, "a whole number of at least 1")?;
        let some = deadline.is_none_or(|span| span.0 > 0);
        ConfigError::unless(some, "deadline", 0, "a span of time above 0")?;
        Ok(Self { goal, deadline })
    }
}

/// What a region tells the global server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upward {
    /// A client reports: [`Event::Reported`](crate::round::Event::Reported), whose answer goes back to
    /// [`Region::answered`].
    Report(Report),
    /// A client is gone, or its update: [`Event::Dropped`](crate::round::Event::Dropped).
    Lost(ClientId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Training,
    Reported,
    Accepted(Weight),
    Summed,
}

/// Whether a region works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Idle,
    Open,
    /// No more reports; accepted updates are still to be summed.
    Closed(Refusal),
    Down,
}

/// A regional aggregator, see the [module](self).
#[derive(Debug)]
pub struct Region<A: Aggregator + Clone> {
    settings: RegionSettings,
    empty: A,
    sum: A,
    condition: Condition,
    round: RoundId,
    now: VirtualTime,
    timeout: Option<VirtualTime>,
    members: BTreeMap<ClientId, Status>,
    /// Reports of this round that were not refused above or lost.
    reported: u64,
    /// Those of them that were accepted.
    accepted: u64,
    upward: VecDeque<Upward>,
    stops: VecDeque<ClientId>,
}

impl<A: Aggregator + Clone> Region<A> {
    /// A region that works and has no clients. `empty` is an empty aggregator.
    ///
    /// # Errors
    /// [`RoundError::NotEmpty`].
    pub fn new(settings: RegionSettings, empty: A) -> Result<Self, RoundError> {
        if empty.tally().seen() != 0 {
            return Err(RoundError::NotEmpty(empty.tally().seen()));
        }
        Ok(Self {
            settings,
            sum: empty.clone(),
            empty,
            condition: Condition::Idle,
            round: RoundId(0),
            now: VirtualTime::default(),
            timeout: None,
            members: BTreeMap::new(),
            reported: 0,
            accepted: 0,
            upward: VecDeque::new(),
            stops: VecDeque::new(),
        })
    }

    /// The global server has begun `round`. Whatever is left of the last one is forgotten; a region
    /// that is [down](Self::fail) stays so.
    ///
    /// # Errors
    /// [`RoundError::TimeBackwards`].
    pub fn begin(&mut self, now: VirtualTime, round: RoundId) -> Result<(), RoundError> {
        self.advance(now)?;
        self.round = round;
        self.members.clear();
        self.upward.clear();
        self.stops.clear();
        self.reported = 0;
        self.accepted = 0;
        self.sum = self.empty.clone();
        self.timeout = self.settings.deadline.map(|span| now + span);
        if self.condition != Condition::Down {
            self.condition = Condition::Open;
        }
        Ok(())
    }

    /// A client of this region is asked to train. Where the region is down or closed it is
    /// [lost](Upward::Lost) at once.
    pub fn join(&mut self, client: ClientId) {
        if self.condition == Condition::Open {
            self.members.entry(client).or_insert(Status::Training);
        } else {
            self.upward.push_back(Upward::Lost(client));
        }
    }

    /// A client reports. It goes up, unless the region refuses it by its own rules.
    ///
    /// # Errors
    /// [`RoundError::TimeBackwards`]; what a client does wrong is a [`Refusal`] within.
    pub fn report(
        &mut self,
        now: VirtualTime,
        report: &Report,
    ) -> Result<Result<(), Refusal>, RoundError> {
        self.handle_timeout(now)?;
        if report.round != self.round || self.condition == Condition::Idle {
            return Ok(Err(Refusal::OtherRound));
        }
        let refusal = match (self.members.get(&report.client), self.condition) {
            (_, Condition::Down) => Refusal::NotTraining,
            // As many are on their way up as are wanted: those may still be refused there.
            (Some(Status::Training), _) if self.has_goal(self.reported) => Refusal::Surplus,
            (Some(Status::Training), _) => {
                self.members.insert(report.client, Status::Reported);
                self.reported += 1;
                self.upward.push_back(Upward::Report(*report));
                return Ok(Ok(()));
            }
            (Some(_), _) => Refusal::Duplicate,
            (None, Condition::Closed(refusal)) => refusal,
            (None, _) => Refusal::Unknown,
        };
        Ok(Err(refusal))
    }

    /// What the global server answered to a report: the weight at which it was accepted, or `None` when
    /// it was refused. A refused report leaves its place in the region's goal free; the one that fills
    /// it ends the region's part, and those who still train are lost.
    pub fn answered(&mut self, client: ClientId, weight: Option<Weight>) {
        if self.members.get(&client) != Some(&Status::Reported) {
            return;
        }
        if let Some(weight) = weight {
            self.members.insert(client, Status::Accepted(weight));
            self.accepted += 1;
        } else {
            self.members.remove(&client);
            self.reported -= 1;
        }
        if self.has_goal(self.accepted) {
            self.close(Refusal::Surplus);
        }
    }

    /// A client of the region is gone; its update, if it is not in the region's sum yet, with it.
    pub fn leave(&mut self, client: ClientId) {
        match self.members.get(&client) {
            None | Some(Status::Summed) => {}
            Some(_) => self.lose(client),
        }
    }

    /// The time is now `now`: at the region's deadline its clients that still train are lost.
    ///
    /// # Errors
    /// [`RoundError::TimeBackwards`].
    pub fn handle_timeout(&mut self, now: VirtualTime) -> Result<(), RoundError> {
        self.advance(now)?;
        if self.timeout.is_some_and(|timeout| timeout <= now) {
            self.close(Refusal::Late);
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<VirtualTime> {
        self.timeout
    }

    /// The next message for the global server.
    #[must_use]
    pub fn poll_upward(&mut self) -> Option<Upward> {
        self.upward.pop_front()
    }

    /// The next client that is to be told to stop.
    #[must_use]
    pub fn poll_stop(&mut self) -> Option<ClientId> {
        self.stops.pop_front()
    }

    /// Adds the update of an accepted client at its weight.
    ///
    /// # Errors
    /// [`RoundError::WrongMember`] unless the client is accepted and not summed;
    /// [`RoundError::Sum`].
    pub fn absorb(&mut self, client: ClientId, update: &[f32]) -> Result<Absorbed, RoundError> {
        let Some(Status::Accepted(weight)) = self.members.get(&client).copied() else {
            return Err(RoundError::WrongMember(client));
        };
        let absorbed = self.sum.absorb(update, weight)?;
        self.members.insert(client, Status::Summed);
        Ok(absorbed)
    }

    /// Adds the sum of accepted clients that somebody else made, a worker or a session of secure
    /// aggregation, and leaves it empty; each client is in it once, summed or rejected, at its weight.
    ///
    /// # Errors
    /// [`RoundError::WrongMember`], [`RoundError::WrongContent`], [`RoundError::Sum`]; then nothing has
    /// changed.
    pub fn merge(&mut self, sum: &mut A, clients: &[ClientId]) -> Result<(), RoundError> {
        let mut expected = Weight(0);
        let mut listed = BTreeSet::new();
        for &client in clients {
            match self.members.get(&client) {
                Some(Status::Accepted(weight)) if listed.insert(client) => {
                    expected.0 = expected.0.saturating_add(weight.0);
                }
                _ => return Err(RoundError::WrongMember(client)),
            }
        }
        RoundError::unless_content(sum.tally(), clients.len() as u64, expected)?;
        self.sum.merge(sum)?;
        for client in listed {
            self.members.insert(client, Status::Summed);
        }
        Ok(())
    }

    /// Accepted clients whose updates are not in the sum yet, and their weights; ascending.
    pub fn outstanding(&self) -> impl Iterator<Item = (ClientId, Weight)> {
        self.members
            .iter()
            .filter_map(|(&client, status)| match status {
                Status::Accepted(weight) => Some((client, *weight)),
                _ => None,
            })
    }

    /// The sum and the clients inside, for the global server's
    /// [`Event::Summed`](crate::round::Event::Summed); from then on they are its own. `None` when the
    /// region has nothing (more) to hand up. More can follow.
    pub fn hand_up(&mut self) -> Option<(A, Vec<ClientId>)> {
        let members = self.members.iter();
        let inside: Vec<ClientId> = members
            .filter(|(_, status)| **status == Status::Summed)
            .map(|(&client, _)| client)
            .collect();
        if inside.is_empty() {
            return None;
        }
        for client in &inside {
            self.members.remove(client);
        }
        let sum = core::mem::replace(&mut self.sum, self.empty.clone());
        Some((sum, inside))
    }

    /// The region fails: its clients are lost, in training or accepted, and so is its sum. What it has
    /// handed up stays.
    pub fn fail(&mut self) {
        self.upward.clear();
        self.stops.clear();
        for client in core::mem::take(&mut self.members).into_keys() {
            self.upward.push_back(Upward::Lost(client));
        }
        self.sum = self.empty.clone();
        self.timeout = None;
        self.condition = Condition::Down;
    }

    /// The region works again; it takes part from the next [`begin`](Self::begin) on.
    pub fn come_back(&mut self) {
        if self.condition == Condition::Down {
            self.condition = Condition::Idle;
        }
    }

    /// Whether the region has [failed](Self::fail) and not [come back](Self::come_back).
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.condition == Condition::Down
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

    /// The global server shall not wait for a client any more.
    fn lose(&mut self, client: ClientId) {
        match self.members.remove(&client) {
            Some(Status::Reported) => self.reported -= 1,
            Some(Status::Accepted(_)) => {
                self.reported -= 1;
                self.accepted -= 1;
            }
            _ => {}
        }
        // A report that has not gone up is not sent any more.
        let own = |up: &Upward| matches!(up, Upward::Report(report) if report.client == client);
        self.upward.retain(|up| !own(up));
        self.upward.push_back(Upward::Lost(client));
    }

    fn has_goal(&self, reports: u64) -> bool {
        self.settings.goal.is_some_and(|goal| reports >= goal)
    }

    /// No more reports: whoever still trains is told to stop, and lost to the global server.
    fn close(&mut self, refusal: Refusal) {
        self.timeout = None;
        if self.condition != Condition::Open {
            return;
        }
        self.condition = Condition::Closed(refusal);
        let members = self.members.iter();
        let training: Vec<ClientId> = members
            .filter(|(_, status)| **status == Status::Training)
            .map(|(&client, _)| client)
            .collect();
        for client in training {
            self.lose(client);
            self.stops.push_back(client);
        }
    }
}

#[cfg(test)]
mod tests;
