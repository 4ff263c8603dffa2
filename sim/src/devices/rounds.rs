//! A synchronous round on the devices of the fleet.

use fl_core::VirtualTime;
use fl_core::round::{Outcome, RoundRecord as Protocol};
use fl_core::strategy::{Stragglers, Strategy as _};

use super::{Call, End, FleetRecord, RoundEnd, Tallied};
use crate::faults::ClientFaults;
use crate::population::{Engine, Population};
use crate::record::RoundRecord;
use crate::schedule::seconds;
use crate::simulation::Simulation;

impl From<Outcome> for RoundEnd {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::AppliedLowered => Self::Lowered,
            Outcome::TooFewReady => Self::TooFewReady,
            Outcome::TooFewUpdates => Self::TooFewUpdates,
            Outcome::Aborted => Self::Aborted,
        }
    }
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Plans the ways of the clients that were told to train through the round, and puts what
    /// befalls them there into their fates.
    pub(crate) fn start_journeys(&mut self) {
        let journeys = &mut self.buffers.journeys;
        journeys.clear();
        let Some(devices) = &self.devices else {
            return;
        };
        let schedule = &self.config.schedule;
        let call = Call {
            seed: self.config.seed,
            round: self.server.round(),
            start: self.clock,
            deadline: schedule.deadline().map(|span| self.clock + span),
            partial: self.server.strategy().stragglers() == Stragglers::Partial,
        };
        for &client in &self.buffers.training {
            let Ok(place) = self.buffers.cohort.binary_search(&client) else {
                continue;
            };
            let fate = &mut self.buffers.fates[place];
            let examples = self.population.train_len(client);
            let faults = self
                .buffers
                .faults
                .get(place)
                .unwrap_or(&ClientFaults::NONE);
            let journey = devices.journey(&call, client, examples, fate, faults);
            fate.dropped = journey.leaves.is_some();
            fate.limit = journey.limit;
            fate.straggler |= journey.cut;
            journeys.push(journey);
        }
    }

    /// Writes down what the round was on the devices, and lets the clock go on to the next one.
    /// Nobody trained later than `until`; `lost`, that all updates were.
    pub(crate) fn end_journeys(
        &mut self,
        ended: &Protocol,
        until: VirtualTime,
        lost: bool,
        record: &mut RoundRecord,
    ) {
        let Some(devices) = &mut self.devices else {
            return;
        };
        let round = ended.round;
        let asked = self.buffers.refused.asked();
        let ineligible = self.buffers.refused.counts();
        let mut fleet = FleetRecord {
            started: seconds(ended.started - VirtualTime(0)),
            ended: seconds(self.clock - VirtualTime(0)),
            end: ended.outcome.into(),
            asked,
            eligible: asked - ineligible.total(),
            ineligible,
            ..FleetRecord::default()
        };
        let (jobs, gone) = (&self.buffers.jobs, &self.buffers.gone);
        let mut tallied = Tallied::default();
        self.buffers.parts.clear();
        for journey in &self.buffers.journeys {
            let client = journey.client;
            let accepted = jobs.binary_search_by_key(&client, |job| job.client).is_ok();
            let end = match journey.leaves {
                _ if accepted && lost => End::Refused,
                _ if accepted && gone.binary_search(&client).is_err() => End::Counted,
                Some(leaves) if leaves <= until => End::Left,
                _ if gone.binary_search(&client).is_ok() => End::Lost,
                None if journey.reported <= until => End::Refused,
                _ if ended.timed_out > 0 => End::Late,
                _ => End::Surplus,
            };
            tallied.count(journey, end, until, &mut fleet);
            let over = end.moment(journey, until);
            if self.config.telemetry.per_client {
                let part = devices.part(round, journey, end, over);
                self.buffers.parts.push(part);
            }
            devices.end(round, journey, over);
        }
        devices.settle_in(round, until);
        record.bytes_down = tallied.bytes_down;
        record.bytes_up = tallied.bytes_up;
        tallied.finish(self.config.telemetry.minimum_group, &mut fleet);
        if !matches!(fleet.end, RoundEnd::Applied | RoundEnd::Lowered) {
            self.clock = self.clock + self.config.schedule.retry_after();
        }
        self.clock = self.config.schedule.next(ended.started, self.clock);
        record.fleet = Some(fleet);
    }
}
