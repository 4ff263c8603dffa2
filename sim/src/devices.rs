//! The devices of a run: who may be called, how long each takes, and what that did to it.
//!
//! What a client's part in a round costs follows from its device, the plan and its number of
//! examples, and not from what it learns. So a round is played on the virtual clock first, and then
//! those clients whose update counts are trained, on all cores: virtual time decides the results, and
//! real time decides nothing.
//!
//! A device that has to be on a charger, on WiFi and idle goes when it no longer is, wherever it is
//! in its work. One that drops out by [chance](crate::FleetConfig::dropout) goes at a moment of its
//! journey that is uniformly distributed.

mod forecast;
mod journey;
mod record;
mod rounds;

use core::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use fl_core::{
    ClientId, Purpose, RingPlan, RoundId, Seed, Stream, VirtualDuration, VirtualTime, WorkLimit,
    wire,
};
use serde::{Deserialize, Serialize};

use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::faults::{ClientFaults, Part};
use crate::fleet::cost::duration;
use crate::fleet::{ClientFate, Costs, Direction, Fleet, FleetState, Ineligible, Reason, Session};
use crate::population::Engine;
use crate::privacy::PrivacyPlan;
use crate::schedule::seconds;

pub use forecast::{DeviceForecast, forecast};
pub(crate) use journey::Journey;
pub use journey::{ClientPart, End};
pub(crate) use record::Tallied;
pub use record::{FleetRecord, RoundEnd};

/// Rounds between two forgettings of devices that are at rest. Of the round's number alone, so that
/// nothing depends on where a run was interrupted.
const SETTLE_EVERY: u64 = 16;

/// What results may say of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Times, energies and temperatures are told of so many devices together, and of no fewer; at
    /// least 1.
    pub minimum_group: u64,
    /// Whether every client's part in every round is told, too. That is **not private**.
    pub per_client: bool,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            minimum_group: 10,
            per_client: false,
        }
    }
}

/// What a client is called to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) seed: Seed,
    pub(crate) round: RoundId,
    /// Now.
    pub(crate) start: VirtualTime,
    /// When it is no longer waited for.
    pub(crate) deadline: Option<VirtualTime>,
    /// Whether a part of the work is of use.
    pub(crate) partial: bool,
}

/// The devices of a run.
#[derive(Debug)]
pub(crate) struct Devices {
    fleet: Fleet,
    costs: Costs,
    state: FleetState,
    /// Bytes of a task and of an update.
    task: u64,
    update: u64,
}

/// Counts who was asked and refused, from a predicate that may not change anything.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    asked: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Refused {
    fn count(&self, reason: Option<Reason>) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let count = reason.and_then(|reason| self.refused.get(reason as usize));
        count.map(|count| count.fetch_add(1, Ordering::Relaxed));
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> Ineligible {
        let count = |index: usize| {
            let count = self.refused.get(index);
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        };
        Ineligible::of_counts(core::array::from_fn(count))
    }
}

impl Devices {
    /// The devices of a run; none without such a table. `masked` is the ring of masked updates.
    pub(crate) fn of<E: Engine>(
        config: &SimulationConfig,
        engine: &E,
        privacy: Option<&PrivacyPlan>,
        masked: Option<&RingPlan>,
        most_examples: u64,
    ) -> Result<Option<Self>, SimError> {
        let Some(devices) = &config.devices else {
            return Ok(None);
        };
        let fleet = Fleet::new(devices, config.seed)?;
        let plan = privacy.map_or(config.local, |privacy| privacy.local(config.local));
        let costs = engine.costs(&fleet, &plan, most_examples)?;
        let costs = costs.ok_or(SimError::NoCosts)?;
        let encoded = postcard::to_stdvec(&plan).map_err(|error| SimError::Encode {
            what: "local plan",
            reason: error.to_string(),
        })?;
        let parameters = engine.layout().len() as u64;
        let in_ring = privacy.and_then(PrivacyPlan::clients);
        let update = match in_ring.and_then(|plan| plan.ring()) {
            Some(ring) => ring.bytes(),
            None => wire::update_bytes(parameters, masked),
        };
        Ok(Some(Self {
            task: wire::task_bytes(parameters, encoded.len() as u64),
            update,
            fleet,
            costs,
            state: FleetState::default(),
        }))
    }

    /// Whether a client with so many examples may be called now; counted in `refused` when not.
    pub(crate) fn may_come(
        &self,
        client: ClientId,
        examples: u64,
        now: VirtualTime,
        refused: &Refused,
    ) -> bool {
        let until = self
            .fleet
            .eligible(client, now, examples, &self.costs, &self.state);
        refused.count(until.err());
        until.is_ok()
    }

    /// The way of a client with so many examples through its part; `fate` is what befalls it.
    pub(crate) fn journey(
        &self,
        call: &Call,
        client: ClientId,
        examples: u64,
        fate: &ClientFate,
        faults: &ClientFaults,
    ) -> Journey {
        let device = self.fleet.device(client);
        let mut transfers = Stream::at(Purpose::Transfer, call.seed, call.round, client);
        let mut transfer = |direction, bytes| {
            device
                .link
                .transfer_seconds(direction, bytes, &mut transfers)
        };
        let download = faults.slow * transfer(Direction::Down, self.task);
        let upload = faults.slow * transfer(Direction::Up, self.update);
        let downloaded = call.start + duration(download);
        let heat = self
            .state
            .condition(&self.fleet, &device, downloaded)
            .heat();
        let mut steps = Stream::at(Purpose::DeviceSession, call.seed, call.round, client);
        let mut worker = device.clone();
        worker.npu &= !faults.no_delegate;
        let session = self
            .costs
            .session(&worker, heat, examples, fate.limit, &mut steps);
        let unfit = session.is_err();
        // Of a device that cannot hold the training: it is not called, unless it lacks its delegate.
        let session = session.unwrap_or_else(|_| Session::idle(heat));
        let (mut limit, mut cut, mut training) = (fate.limit, false, session.seconds);
        if let Some(deadline) = call.deadline.filter(|_| call.partial) {
            // What comes at the very moment is late.
            let left = seconds(deadline - downloaded) - upload - 2e-6;
            if training > left
                && let Some(done) = NonZeroU32::new(session.done_by(left))
                && let Some(end) = session.end_of(done.get())
            {
                (limit, cut, training) = (WorkLimit::AtMost(done), true, end);
            }
        }
        let trained = downloaded + duration(training);
        let reported = trained + duration(upload);
        let by_chance = fate.dropped.then(|| {
            let whole = reported - call.start;
            call.start + VirtualDuration((fate.moment * whole.0 as f64) as u64)
        });
        let within = |from: VirtualTime, to: VirtualTime| {
            let span = to - from;
            from + VirtualDuration((faults.moment * span.0 as f64) as u64)
        };
        let by_fault = faults.leaves.map(|part| match part {
            Part::Downloading => within(call.start, downloaded),
            Part::Training => within(downloaded, trained),
            Part::Sending => within(trained, reported),
        });
        let goes = self.fleet.holds_until(client, call.start).ok();
        let leaves = [
            by_chance,
            by_fault,
            goes.filter(|&until| until <= reported),
            unfit.then_some(downloaded),
        ];
        let session = session.until(training);
        Journey {
            client,
            round: call.round,
            started: call.start,
            downloaded,
            trained,
            reported,
            leaves: leaves.into_iter().flatten().min(),
            limit,
            cut,
            down: self.task,
            up: self.update,
            session,
            device,
        }
    }

    /// Writes down what a journey that is over did to its device.
    pub(crate) fn end(&mut self, round: RoundId, journey: &Journey, over: VirtualTime) {
        if over > journey.downloaded {
            let session = journey.session_until(over);
            let start = journey.downloaded;
            self.state
                .record(&self.fleet, &journey.device, round, start, &session);
        }
    }

    /// What a journey that is over was, for the record.
    pub(crate) fn part(
        &self,
        round: RoundId,
        journey: &Journey,
        end: End,
        over: VirtualTime,
    ) -> ClientPart {
        let session = journey.session_until(over);
        let since = |moment: VirtualTime| seconds(moment - VirtualTime(0));
        ClientPart {
            round: round.0,
            client: journey.client.0,
            device: self.fleet.profile(&journey.device).name.clone(),
            npu: journey.device.npu,
            started: since(journey.started),
            downloaded: since(journey.downloaded),
            trained: since(journey.trained),
            ended: since(over),
            end,
            joules: session.joules.cpu + session.joules.gpu + session.joules.npu,
            celsius: session.after.celsius,
        }
    }

    /// After some rounds, forgets the devices that are at rest.
    pub(crate) fn settle_in(&mut self, round: RoundId, now: VirtualTime) {
        if round.0.is_multiple_of(SETTLE_EVERY) {
            self.state.settle(&self.fleet, now);
        }
    }

    /// What lasts, with the virtual clock: for a checkpoint.
    pub(crate) fn lasting(&self, clock: VirtualTime) -> (VirtualTime, &FleetState) {
        (clock, &self.state)
    }

    /// Takes up what lasted; the clock.
    pub(crate) fn restore(&mut self, (clock, state): (VirtualTime, FleetState)) -> VirtualTime {
        self.state = state;
        clock
    }
}
