//! The fleet device by device: an event queue in virtual time, in the order (step, kind, device).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

use super::device::{Disk, Habits, Load, PARTS, Task};
use super::guard::Tally;
use super::metric::Metric;
use super::record::{Census, Meter};
use super::registry::VersionId;
use super::sampling::failures;
use super::server::{Group, Server};

/// What happens to a device. Within a step, who comes or goes does so first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It goes offline, or comes back.
    Toggle,
    /// It checks in.
    CheckIn,
}

#[derive(Debug)]
struct Device {
    disk: Disk,
    online: bool,
    /// The step of its next check-in. An event for another step was given up when it went offline.
    checks_in: u64,
    /// Its group, and in which release.
    group: (u64, Group),
    /// Release and stage that it reported for last.
    reported: Option<(u64, usize)>,
    /// Everything that happens to it by chance.
    life: Stream,
}

/// Devices that are played one by one.
#[derive(Debug)]
pub(super) struct Played {
    seed: Seed,
    habits: Habits,
    devices: Vec<Device>,
    events: BinaryHeap<Reverse<(u64, Kind, u64)>>,
}

impl Played {
    /// All devices with the first version. Their lives are streams of release 0, which there is not.
    pub(super) fn new(devices: u64, seed: Seed, habits: Habits) -> Self {
        let mut fleet = Self {
            seed,
            habits,
            devices: Vec::new(),
            events: BinaryHeap::new(),
        };
        for id in 0..devices {
            let mut life = Stream::at(Purpose::Rollout, seed, RoundId(0), ClientId(id));
            let online = life.uniform() >= habits.offline;
            fleet.devices.push(Device {
                disk: Disk::new(VersionId(0)),
                online,
                checks_in: u64::MAX,
                group: (0, Group(0)),
                reported: None,
                life,
            });
            fleet.turn(id as usize, online, 0, 0);
        }
        fleet
    }

    /// A device is online or offline from `step` on; it may turn again from step `again` on.
    fn turn(&mut self, id: usize, online: bool, step: u64, again: u64) {
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        device.online = online;
        device.checks_in = u64::MAX;
        if online {
            let gap = failures(&mut device.life, self.habits.check_in);
            device.checks_in = step.saturating_add(gap);
            let event = (device.checks_in, Kind::CheckIn, id as u64);
            self.events.push(Reverse(event));
        }
        let turns = match online {
            true => self.habits.leave,
            false => self.habits.back,
        };
        let at = again.saturating_add(failures(&mut device.life, turns));
        if at < u64::MAX {
            self.events.push(Reverse((at, Kind::Toggle, id as u64)));
        }
    }

    /// Plays everything that happens in a step.
    pub(super) fn step(
        &mut self,
        step: u64,
        server: &mut Server,
        metric: &Metric,
        meter: &mut Meter,
    ) {
        while let Some(&Reverse((at, kind, id))) = self.events.peek()
            && at <= step
        {
            self.events.pop();
            let index = id as usize;
            match kind {
                Kind::Toggle => {
                    let online = self.devices.get(index).is_some_and(|device| device.online);
                    self.turn(index, !online, at, at + 1);
                }
                Kind::CheckIn => {
                    let seed = self.seed;
                    let habits = self.habits;
                    let due = self.devices.get_mut(index);
                    if let Some(device) = due.filter(|device| device.checks_in == at) {
                        device.check_in(ClientId(id), seed, &habits, server, metric, meter);
                        let gap = failures(&mut device.life, habits.check_in);
                        device.checks_in = (at + 1).saturating_add(gap);
                        let event = (device.checks_in, Kind::CheckIn, id);
                        self.events.push(Reverse(event));
                    }
                }
            }
        }
    }

    pub(super) fn census(&self, versions: usize) -> Census {
        let mut census = Census::new(versions);
        for device in &self.devices {
            census.add(device.disk.has, device.online, 1);
        }
        census
    }
}

impl Device {
    fn check_in(
        &mut self,
        id: ClientId,
        seed: Seed,
        habits: &Habits,
        server: &mut Server,
        metric: &Metric,
        meter: &mut Meter,
    ) {
        let release = server.newest_release();
        if self.group.0 != release {
            self.group = (release, server.group(id));
        }
        let group = self.group.1;
        let has = self.disk.has;
        meter.check_in(has, 1);
        let asked = server.asks(group, has);
        if let Some(asked) = asked.filter(|_| self.reported != asked) {
            self.reported = Some(asked);
            // Releases and stages have a stream each: fewer than 256 stages.
            let round = RoundId(asked.0 << 8 | asked.1 as u64);
            let mut stream = Stream::at(Purpose::RolloutGuard, seed, round, id);
            let value = metric.value(has, stream.below(metric.clients()));
            meter.report(server, asked, group, has, Tally::of(value, 1));
        }
        match self.disk.task(server.offer(group, has)) {
            Task::Rest => self.disk = self.disk.rested(),
            Task::Swap(to) => {
                self.disk = self.disk.swapped(to);
                meter.restored(server, to, 1);
            }
            Task::Load(load) => self.load(&load, habits, server, meter),
        }
    }

    fn load(&mut self, load: &Load, habits: &Habits, server: &mut Server, meter: &mut Meter) {
        if self.life.uniform() < habits.interrupted {
            let parts = load.start + self.life.below(u64::from(PARTS - load.start)) as u8;
            meter.broken(load, parts, 1);
            self.disk = load.broken(self.disk, parts);
        } else if self.life.uniform() < habits.failed {
            meter.failed(server, load, 1);
            self.disk = self.disk.rested();
        } else {
            meter.installed(server, load, 1);
            self.disk = load.installed(self.disk);
        }
    }
}
