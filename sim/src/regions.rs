//! Rounds in two levels: clients report to the aggregator of their region, and the global server gets
//! one sum per region.
//!
//! Each region is a [`fl_core::region::Region`] with a sum of its own and, with secure aggregation, a
//! session of its own among its clients, so that nobody sees more than the sum of a region. The global
//! server selects, accepts and weighs as it does without regions, and sums are exact: as long as
//! nothing fails, regions change no bit of the model. (A session needs enough clients; a small region
//! has none that is safe, and then its clients are dropped.) Hierarchies of aggregators are those of
//! Bonawitz et al. 2019 (arXiv:1902.01046, section 4) and of Liu et al. 2020 (arXiv:1905.06641); of the
//! latter the clouds' several rounds between two global ones are not done here.
//!
//! A client's region is drawn once, uniformly, from the seed and its id, as if regions were data
//! centres and not time zones: where availability follows the time of day, every region has clients.
//!
//! A region fails in a round with the given probability, at a moment uniformly distributed over the
//! time that the clients called would need, or up to the deadline; without devices no time passes, and
//! the moment lies among their reports. Its clients are lost with it, those too whose report had come,
//! and nobody else's. A round that has enough reports before that has its sum. In the next round the
//! region works again.

use std::collections::VecDeque;

use fl_core::region::{Region, RegionSettings, Upward};
use fl_core::round::{Answer, Event, RoundError, RoundServer};
use fl_core::strategy::Strategy;
use fl_core::sum::ExactSum;
use fl_core::{ClientId, Purpose, Report, RoundId, Seed, Stream, VirtualDuration, VirtualTime};
use serde::{Deserialize, Serialize};

use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::privacy::Privacy;

mod rounds;

/// The most regions: each has a sum of its own.
const MOST: u32 = 1000;

/// Aggregators between the clients and the server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionsConfig {
    /// Regions, from 1 to 1000.
    pub count: u32,
    /// The probability that a region fails in a round, in `[0, 1]`.
    #[serde(default)]
    pub outage: f64,
}

/// The regional aggregators of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionsRecord {
    /// Regions with a client that was told to train.
    pub formed: u64,
    /// Regions that failed in the round.
    pub failed: u64,
    /// Clients that were lost with them.
    pub lost: u64,
    /// Regions that had a sum to hand up.
    pub summed: u64,
}

impl RegionsConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] naming the key.
    pub fn validate(&self) -> Result<(), SimError> {
        let refuse = |key, value: String, range| Err(SimError::OutOfRange { key, value, range });
        if !(1..=MOST).contains(&self.count) {
            let range = "a whole number from 1 to 1000";
            return refuse("schedule.regions.count", self.count.to_string(), range);
        }
        if !(0.0..=1.0).contains(&self.outage) {
            let range = "a probability from 0 to 1";
            return refuse("schedule.regions.outage", self.outage.to_string(), range);
        }
        Ok(())
    }

    /// The region of a client: the same in every round.
    #[must_use]
    pub fn region(&self, seed: Seed, client: ClientId) -> u32 {
        let mut stream = Stream::at(Purpose::Region, seed, RoundId(0), client);
        // Below a `u32`.
        stream.below(self.count.into()) as u32
    }

    /// Whether a region fails in a round, and after which part of it, in `[0, 1)`.
    fn outage(&self, seed: Seed, round: RoundId, region: u32) -> Option<f64> {
        // No client has such an id.
        let address = ClientId(u64::MAX - u64::from(region));
        let mut stream = Stream::at(Purpose::Region, seed, round, address);
        let (fails, moment) = (stream.uniform(), stream.uniform());
        (fails < self.outage).then_some(moment)
    }

    /// Clients of a region in the mean, of so many that are asked.
    pub(crate) fn expected(&self, asked: u64) -> u32 {
        let clients = asked.div_ceil(self.count.max(1).into()).max(2);
        u32::try_from(clients).unwrap_or(u32::MAX)
    }
}

/// Whether regions go together with the rest of the configuration.
///
/// # Errors
/// [`SimError::OutOfRange`] naming what does not.
pub(crate) fn check(config: &SimulationConfig) -> Result<(), SimError> {
    if config.schedule.regions.is_none() {
        return Ok(());
    }
    let sessions = config.secagg.as_ref().and_then(|secagg| secagg.groups);
    let private = matches!(
        config.privacy,
        Some(Privacy::Central(_) | Privacy::Clients(_))
    );
    let apart = [
        (
            "aggregation.robust",
            config.aggregation.robust.is_some(),
            "none with schedule.regions: groups are made of the whole cohort",
        ),
        (
            "secagg.groups",
            sessions.is_some(),
            "none with schedule.regions: each region is a session",
        ),
        (
            "privacy",
            private,
            "none of clients with schedule.regions: every region's sum is seen, and the noise is made \
             for the sum of all",
        ),
    ];
    match apart.into_iter().find(|(_, given, _)| *given) {
        None => Ok(()),
        Some((key, _, range)) => Err(SimError::OutOfRange {
            key,
            value: "given".to_owned(),
            range,
        }),
    }
}

/// A region that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outage {
    /// Before which of the clients' words.
    before: usize,
    time: VirtualTime,
    /// Its place among the regions of the round.
    place: usize,
}

/// The regions of a round that have clients in it.
pub(crate) struct Regions {
    parts: Vec<Part>,
    /// Ascending, each with the place of its region.
    clients: Vec<(ClientId, u32)>,
    outages: VecDeque<Outage>,
    /// Clients whose update was lost with their region or its session.
    lost: Vec<ClientId>,
    record: RegionsRecord,
}

struct Part {
    region: Region<ExactSum>,
    /// After which part of the round it fails.
    fails: Option<f64>,
}

impl Regions {
    /// The regions of `clients`, who are told to train now; `empty` is an empty sum.
    pub(crate) fn open(
        config: &RegionsConfig,
        seed: Seed,
        round: RoundId,
        now: VirtualTime,
        clients: &[ClientId],
        empty: &ExactSum,
    ) -> Result<Self, RoundError> {
        let mut numbered: Vec<(u32, ClientId)> = clients
            .iter()
            .map(|&client| (config.region(seed, client), client))
            .collect();
        numbered.sort_unstable();
        let mut regions = Self {
            parts: Vec::new(),
            clients: Vec::with_capacity(clients.len()),
            outages: VecDeque::new(),
            lost: Vec::new(),
            record: RegionsRecord::default(),
        };
        for (place, members) in (0u32..).zip(numbered.chunk_by(|a, b| a.0 == b.0)) {
            let mut region = Region::new(RegionSettings::default(), empty.clone())?;
            region.begin(now, round)?;
            for &(_, client) in members {
                region.join(client);
                regions.clients.push((client, place));
            }
            let fails = members
                .first()
                .and_then(|&(number, _)| config.outage(seed, round, number));
            regions.parts.push(Part { region, fails });
        }
        regions.clients.sort_unstable();
        regions.record.formed = regions.parts.len() as u64;
        Ok(regions)
    }

    /// The clients of each region, ascending.
    pub(crate) fn members(&self) -> Vec<Vec<ClientId>> {
        let mut members = vec![Vec::new(); self.parts.len()];
        for &(client, place) in &self.clients {
            members[place as usize].push(client);
        }
        members
    }

    fn place(&self, client: ClientId) -> Option<usize> {
        let found = self.clients.binary_search_by_key(&client, |(id, _)| *id);
        found.ok().map(|index| self.clients[index].1 as usize)
    }

    /// Finds the moments at which regions fail in a round that begins at `start`, of which the last
    /// word would come at `end`, or of words at `times`, ascending, when no time passes.
    pub(crate) fn foresee(&mut self, times: &[VirtualTime], start: VirtualTime, end: VirtualTime) {
        let span = end - start;
        let mut outages: Vec<Outage> = (self.parts.iter().enumerate())
            .filter_map(|(place, part)| {
                let moment = part.fails?;
                let time = start + VirtualDuration((moment * span.0 as f64) as u64);
                let before = match span.0 {
                    0 => (moment * times.len() as f64) as usize,
                    // At the same moment it fails before anybody says something.
                    _ => times.partition_point(|&word| word < time),
                };
                Some(Outage {
                    before,
                    time,
                    place,
                })
            })
            .collect();
        outages.sort_unstable_by_key(|outage| (outage.before, outage.time, outage.place));
        self.outages = outages.into();
    }

    /// When the next region fails that does so before that word.
    pub(crate) fn next_outage(&self, word: usize) -> Option<VirtualTime> {
        let next = self.outages.front()?;
        (next.before <= word).then_some(next.time)
    }

    /// The next region fails. Its clients, ascending.
    pub(crate) fn fail<S: Strategy>(
        &mut self,
        server: &mut RoundServer<S, ExactSum>,
    ) -> Result<Vec<ClientId>, RoundError> {
        let mut lost = Vec::new();
        let Some(outage) = self.outages.pop_front() else {
            return Ok(lost);
        };
        let region = &mut self.parts[outage.place].region;
        region.fail();
        while let Some(up) = region.poll_upward() {
            if let Upward::Lost(client) = up {
                server.handle(outage.time, Event::Dropped(client))?;
                lost.push(client);
            }
        }
        self.record.failed += 1;
        self.record.lost += lost.len() as u64;
        self.lost.extend_from_slice(&lost);
        self.lost.sort_unstable();
        Ok(lost)
    }

    /// A client reports to its region, and that to the server.
    pub(crate) fn report<S: Strategy>(
        &mut self,
        server: &mut RoundServer<S, ExactSum>,
        now: VirtualTime,
        report: &Report,
    ) -> Result<Answer, RoundError> {
        let Some(place) = self.place(report.client) else {
            return server.handle(now, Event::Reported(*report));
        };
        let region = &mut self.parts[place].region;
        if let Err(refusal) = region.report(now, report)? {
            return Ok(Answer::Refused(refusal));
        }
        send_up(region, server, now)
    }

    /// A client is gone, or its update.
    pub(crate) fn leave<S: Strategy>(
        &mut self,
        server: &mut RoundServer<S, ExactSum>,
        now: VirtualTime,
        client: ClientId,
    ) -> Result<(), RoundError> {
        let Some(place) = self.place(client) else {
            return server.handle(now, Event::Dropped(client)).map(drop);
        };
        let region = &mut self.parts[place].region;
        region.leave(client);
        send_up(region, server, now).map(drop)
    }

    /// The region at that place sums the updates of `clients` up and hands its sum to the server;
    /// without a sum they are lost.
    pub(crate) fn hand_up<S: Strategy>(
        &mut self,
        server: &mut RoundServer<S, ExactSum>,
        now: VirtualTime,
        place: usize,
        sum: Option<ExactSum>,
        clients: &[ClientId],
    ) -> Result<(), RoundError> {
        let Some(mut sum) = sum else {
            return self.lose(server, now, clients);
        };
        let region = &mut self.parts[place].region;
        region.merge(&mut sum, clients)?;
        if let Some((mut sum, clients)) = region.hand_up() {
            self.record.summed += 1;
            let (sum, clients) = (&mut sum, clients.as_slice());
            server.handle(now, Event::Summed { sum, clients })?;
        }
        Ok(())
    }

    /// The updates of `clients` are lost though their regions work: with a session.
    pub(crate) fn lose<S: Strategy>(
        &mut self,
        server: &mut RoundServer<S, ExactSum>,
        now: VirtualTime,
        clients: &[ClientId],
    ) -> Result<(), RoundError> {
        for &client in clients {
            self.leave(server, now, client)?;
        }
        self.lost.extend_from_slice(clients);
        self.lost.sort_unstable();
        Ok(())
    }

    /// Clients whose update was lost with their region or its session, ascending.
    pub(crate) fn lost(&self) -> &[ClientId] {
        &self.lost
    }

    pub(crate) fn record(&self) -> RegionsRecord {
        self.record
    }
}

/// Tells the server what a region has to say; its answer to a report.
fn send_up<S: Strategy>(
    region: &mut Region<ExactSum>,
    server: &mut RoundServer<S, ExactSum>,
    now: VirtualTime,
) -> Result<Answer, RoundError> {
    let mut answer = Answer::Noted;
    while let Some(up) = region.poll_upward() {
        match up {
            Upward::Report(report) => {
                answer = server.handle(now, Event::Reported(report))?;
                let weight = match answer {
                    Answer::Accepted { weight } => Some(weight),
                    _ => None,
                };
                region.answered(report.client, weight);
            }
            Upward::Lost(client) => {
                server.handle(now, Event::Dropped(client))?;
            }
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
