//! A synchronous round in regions.

use fl_core::round::{Phase, RoundError};
use fl_core::sum::ExactSum;
use fl_core::{ClientId, RoundId, VirtualTime};

use super::Regions;
use crate::aggregation::Parts;
use crate::error::SimError;
use crate::executor::Trained;
use crate::faults::Fault;
use crate::population::{Engine, Population};
use crate::secagg::Sessions;
use crate::simulation::Simulation;

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Puts those who are told to train into their regions; none without regions.
    pub(crate) fn open_regions(&self, round: RoundId) -> Result<Option<Regions>, RoundError> {
        let Some(mut config) = self.config.schedule.regions else {
            return Ok(None);
        };
        if let Some(faults) = &self.config.faults {
            let outage = faults.chance(Fault::RegionOutage, round);
            config.outage = config.outage.max(outage);
        }
        let empty = ExactSum::new(self.ring, self.server.global().values().len());
        let clients = &self.buffers.training;
        Regions::open(
            &config,
            self.config.seed,
            round,
            self.clock,
            clients,
            &empty,
        )
        .map(Some)
    }

    /// Foresees which regions fail before which of the words at `times`, ascending.
    pub(crate) fn foresee_outages(&self, regions: &mut Regions, times: &[VirtualTime]) {
        let last = times.last().copied().unwrap_or(self.clock);
        let end = match self.server.poll_timeout() {
            Some(timeout) => timeout.min(last),
            None => last,
        };
        regions.foresee(times, self.clock, end.max(self.clock));
    }

    /// Lets those regions fail that do so before that word, while the round takes reports.
    pub(crate) fn fail_regions(
        &mut self,
        regions: &mut Regions,
        word: usize,
    ) -> Result<(), RoundError> {
        while let Some(time) = regions.next_outage(word) {
            if !self.wait_until(time)? {
                break;
            }
            let lost = regions.fail(&mut self.server)?;
            let is_lost = |client: &ClientId| lost.binary_search(client).is_ok();
            self.buffers.jobs.retain(|job| !is_lost(&job.client));
        }
        Ok(())
    }

    /// Lets time go on to a moment of a round that takes reports; false when it no longer does.
    pub(crate) fn wait_until(&mut self, time: VirtualTime) -> Result<bool, RoundError> {
        if let Some(timeout) = self.server.poll_timeout()
            && timeout <= time
        {
            self.server.handle_timeout(timeout)?;
            self.clock = timeout;
        }
        let on = self.server.phase() == Phase::Training;
        if on {
            self.clock = time;
        }
        Ok(on)
    }

    /// The sums of the regions to be, in the order of the regions. Clients of a session that has
    /// failed already are lost.
    pub(crate) fn part_regions(
        &mut self,
        regions: &mut Regions,
        sessions: Option<&Sessions>,
    ) -> Result<Parts, RoundError> {
        let empty = ExactSum::new(self.ring, self.server.global().values().len());
        let members = regions.members();
        let mut parts = Parts::new(members.iter().map(Vec::as_slice), empty);
        let (clock, server) = (self.clock, &mut self.server);
        let fails = |client: ClientId| {
            let part = parts.of(client);
            sessions.is_some_and(|all| part.is_none_or(|part| all.has_failed_early(part)))
        };
        let jobs = self.buffers.jobs.iter().map(|job| job.client);
        let lost: Vec<ClientId> = jobs.filter(|&client| fails(client)).collect();
        regions.lose(server, clock, &lost)?;
        self.buffers.jobs.retain(|job| !fails(job.client));
        self.buffers.training.retain(|&client| !fails(client));
        parts.seat(&self.buffers.jobs);
        Ok(parts)
    }

    /// Lets the regions hand up their sums. The jobs, ascending, whose region had none.
    pub(crate) fn hand_up(
        &mut self,
        round: RoundId,
        sessions: Option<&mut Sessions>,
        (regions, parts): (&mut Regions, &mut Parts),
        trained: &Trained,
    ) -> Result<Vec<u32>, SimError> {
        let failed = |source: RoundError| SimError::Round { round, source };
        let sums = self.sums_of(round, sessions, parts, trained)?;
        let mut clients = vec![Vec::new(); sums.len()];
        let mut left_out = Vec::new();
        for (index, job) in (0u32..).zip(&self.buffers.jobs) {
            let part = parts.of_job(index);
            clients[part].push(job.client);
            if sums[part].is_none() {
                left_out.push(index);
            }
        }
        for (place, (sum, clients)) in sums.into_iter().zip(&clients).enumerate() {
            if clients.is_empty() {
                continue;
            }
            regions
                .hand_up(&mut self.server, self.clock, place, sum, clients)
                .map_err(failed)?;
        }
        Ok(left_out)
    }
}
