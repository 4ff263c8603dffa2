//! The fleet as counts of devices in the same state. A step costs a few random numbers for each state
//! that occurs, whatever the number of devices, and follows the same law as device by device.

use std::collections::BTreeMap;

use fl_core::{Purpose, RoundId, Seed, Stream};

use super::device::{Disk, Habits, Load, PARTS, Task};
use super::metric::Metric;
use super::record::{Census, Meter, NOBODY};
use super::registry::VersionId;
use super::sampling::{binomial, multinomial, spread};
use super::server::{Group, Server};

/// All that decides what may happen to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    group: Group,
    online: bool,
    disk: Disk,
    /// Whether it reported in the stage that is open.
    reported: bool,
}

/// Devices by state; none has no device.
type Cells = BTreeMap<State, u64>;

fn put(cells: &mut Cells, state: State, devices: u64) {
    if devices > 0 {
        *cells.entry(state).or_insert(0) += devices;
    }
}

/// Devices as counts.
#[derive(Debug)]
pub(super) struct Counts {
    seed: Seed,
    habits: Habits,
    cells: Cells,
    /// The release by which the groups were drawn, and the stage for which reports are counted.
    grouped: u64,
    asked: Option<(u64, usize)>,
}

/// What a step draws from, and whom it tells.
struct Step<'a> {
    stream: Stream,
    /// Whose examples the devices that report have.
    judges: Stream,
    habits: Habits,
    server: &'a mut Server,
    metric: &'a Metric,
    meter: &'a mut Meter,
    /// Devices after the step.
    after: Cells,
}

impl Counts {
    /// All devices with the first version.
    pub(super) fn new(devices: u64, seed: Seed, habits: Habits) -> Self {
        let mut stream = Stream::at(Purpose::Rollout, seed, RoundId(0), NOBODY);
        let offline = binomial(&mut stream, devices, habits.offline);
        let mut cells = Cells::new();
        for (online, devices) in [(false, offline), (true, devices - offline)] {
            let state = State {
                group: Group(0),
                online,
                disk: Disk::new(VersionId(0)),
                reported: false,
            };
            put(&mut cells, state, devices);
        }
        Self {
            seed,
            habits,
            cells,
            grouped: 0,
            asked: None,
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
        // Step n draws from the streams of nobody at round n + 1: devices have none there.
        let round = RoundId(step + 1);
        let mut stream = Stream::at(Purpose::Rollout, self.seed, round, NOBODY);
        self.regroup(&mut stream, server);
        self.toggle(&mut stream);
        let mut playing = Step {
            stream,
            judges: Stream::at(Purpose::RolloutGuard, self.seed, round, NOBODY),
            habits: self.habits,
            server,
            metric,
            meter,
            after: Cells::new(),
        };
        for (&state, &devices) in &self.cells {
            playing.check_in(state, devices);
        }
        self.cells = playing.after;
    }

    /// Divides the fleet anew for a new release, and forgets who reported in the stage before.
    fn regroup(&mut self, stream: &mut Stream, server: &Server) {
        let release = server.newest_release();
        let asked = server.stage().map(|(stage, _)| (release, stage));
        if self.asked != asked || self.grouped != release {
            let mut cells = Cells::new();
            for (&state, &devices) in &self.cells {
                let fresh = State {
                    reported: false,
                    ..state
                };
                put(&mut cells, fresh, devices);
            }
            self.cells = cells;
            self.asked = asked;
        }
        if self.grouped != release {
            let mut together = Cells::new();
            for (&state, &devices) in &self.cells {
                let group = Group(0);
                put(&mut together, State { group, ..state }, devices);
            }
            let shares = server.config().shares();
            let mut cells = Cells::new();
            for (&state, &devices) in &together {
                multinomial(stream, devices, &shares, |group, devices| {
                    let group = Group(group as u8);
                    put(&mut cells, State { group, ..state }, devices);
                });
            }
            self.cells = cells;
            self.grouped = release;
        }
    }

    /// Some go offline, and some come back.
    fn toggle(&mut self, stream: &mut Stream) {
        if self.habits.leave <= 0.0 {
            return;
        }
        let mut cells = Cells::new();
        for (&state, &devices) in &self.cells {
            let turns = match state.online {
                true => self.habits.leave,
                false => self.habits.back,
            };
            let turned = binomial(stream, devices, turns);
            let other = State {
                online: !state.online,
                ..state
            };
            put(&mut cells, other, turned);
            put(&mut cells, state, devices - turned);
        }
        self.cells = cells;
    }

    pub(super) fn census(&self, versions: usize) -> Census {
        let mut census = Census::new(versions);
        for (state, &devices) in &self.cells {
            census.add(state.disk.has, state.online, devices);
        }
        census
    }
}

impl Step<'_> {
    /// Devices of one state: some of them check in.
    fn check_in(&mut self, mut state: State, devices: u64) {
        let here = match state.online {
            true => binomial(&mut self.stream, devices, self.habits.check_in),
            false => 0,
        };
        put(&mut self.after, state, devices - here);
        if here == 0 {
            return;
        }
        let (group, has) = (state.group, state.disk.has);
        self.meter.check_in(has, here);
        if let Some(asked) = self.server.asks(group, has).filter(|_| !state.reported) {
            state.reported = true;
            let metric = self.metric;
            let mut reports = super::Tally::default();
            spread(&mut self.judges, here, metric.clients(), |client, count| {
                reports.add(&super::Tally::of(metric.value(has, client), count));
            });
            self.meter.report(self.server, asked, group, has, reports);
        }
        match state.disk.task(self.server.offer(group, has)) {
            Task::Rest => {
                let disk = state.disk.rested();
                put(&mut self.after, State { disk, ..state }, here);
            }
            Task::Swap(to) => {
                let disk = state.disk.swapped(to);
                self.meter.restored(self.server, to, here);
                put(&mut self.after, State { disk, ..state }, here);
            }
            Task::Load(load) => self.load(state, &load, here),
        }
    }

    fn load(&mut self, state: State, load: &Load, devices: u64) {
        let Habits {
            interrupted,
            failed,
            ..
        } = self.habits;
        let broken = binomial(&mut self.stream, devices, interrupted);
        let rest = u64::from(PARTS - load.start);
        let (after, meter) = (&mut self.after, &mut *self.meter);
        spread(&mut self.stream, broken, rest, |more, devices| {
            let parts = load.start + more as u8;
            meter.broken(load, parts, devices);
            let disk = load.broken(state.disk, parts);
            put(after, State { disk, ..state }, devices);
        });
        let useless = binomial(&mut self.stream, devices - broken, failed);
        if useless > 0 {
            self.meter.failed(self.server, load, useless);
            let disk = state.disk.rested();
            put(&mut self.after, State { disk, ..state }, useless);
        }
        let installed = devices - broken - useless;
        if installed > 0 {
            self.meter.installed(self.server, load, installed);
            let disk = load.installed(state.disk);
            put(&mut self.after, State { disk, ..state }, installed);
        }
    }
}

#[cfg(test)]
mod tests {
    use fl_versions::{Digest, Version};

    use super::super::{Plan, Registry, ServerConfig};
    use super::*;

    /// The states that occur do not depend on how many devices there are, once there are enough for
    /// each of them.
    #[test]
    fn memory_does_not_grow_with_the_fleet() {
        let most = |devices: u64| {
            let plan = Plan {
                check_ins_per_day: 4.0,
                offline: 0.3,
                interrupted: 0.3,
                failed: 0.1,
                ..Plan::default()
            };
            let mut registry = Registry::new(1, None);
            for n in 0..3 {
                let version = Version {
                    digest: Digest([n; 32]),
                    bytes: 1000,
                };
                registry.publish_sizes(version, 0, &[]).unwrap();
            }
            let config = ServerConfig::default();
            let mut server = Server::new(registry, config, Seed(1)).unwrap();
            let metric = Metric::known(&[vec![9], vec![9], vec![9]]).unwrap();
            let mut meter = Meter::new(3, 100);
            let mut fleet = Counts::new(devices, Seed(1), plan.habits());
            let mut most = 0;
            for step in 0..24 * 20 {
                server.handle_timeout(step);
                if let (0, Ok(version)) = (step % 24, u16::try_from(step / 24 + 1)) {
                    let _ = server.release(step, VersionId(version));
                }
                fleet.step(step, &mut server, &metric, &mut meter);
                most = most.max(fleet.cells.len());
                assert_eq!(fleet.cells.values().sum::<u64>(), devices);
            }
            most
        };
        let (many, more) = (most(10_000_000_000), most(1_000_000_000_000));
        assert!(more <= many + many / 10 && more < 1000, "{many}, {more}");
    }
}
