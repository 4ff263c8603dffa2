//! What is recorded of a day: aggregates over the fleet, by version. Nothing is told of a group that is
//! smaller than the smallest allowed, but bytes: these are on the network's own meter.

use fl_core::ClientId;

use super::device::{Load, PARTS};
use super::guard::Tally;
use super::registry::{VersionId, VersionState};
use super::server::{Event, Group, Notice, Server};

/// A count of devices or reports that may be told: zero, or at least the smallest group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told(pub Option<u64>);

impl Told {
    fn of(count: u64, least: u64) -> Self {
        Self((count == 0 || count >= least).then_some(count))
    }
}

/// A day of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    /// Days since the beginning, from 1.
    pub day: u64,
    /// Number of the newest release at the end of the day, from 1; 0 before the first.
    pub release: u64,
    /// Share of the fleet in the stage that is open then; none between releases.
    pub stage: Option<f64>,
    /// What happened to releases on this day, with the hour.
    pub notices: Vec<(u64, Notice)>,
    /// Every version that was released so far, in order.
    pub versions: Vec<VersionDay>,
}

/// A version on a day.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionDay {
    /// Which.
    pub version: VersionId,
    /// Rounds that its model has seen.
    pub round: u64,
    /// What became of it, at the end of the day.
    pub state: VersionState,
    /// Devices that run it at the end of the day, offline ones included.
    pub devices: Told,
    /// Those of them that are offline.
    pub offline: Told,
    /// Check-ins of devices that ran it.
    pub check_ins: Told,
    /// Bytes of its file that were loaded.
    pub bytes_full: u64,
    /// Bytes of patches to it that were loaded.
    pub bytes_patch: u64,
    /// Times it was installed after a download.
    pub installed: Told,
    /// Downloads of it that broke off.
    pub interrupted: Told,
    /// Times it could not be installed.
    pub failed: Told,
    /// Times a device came back to it from its cache.
    pub restored: Told,
    /// Reports on it.
    pub reports: Told,
    /// Their mean accuracy; none where there are too few.
    pub metric: Option<f64>,
}

/// Devices by version at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) devices: Vec<u64>,
    pub(super) offline: Vec<u64>,
}

impl Census {
    pub(super) fn new(versions: usize) -> Self {
        Self {
            devices: vec![0; versions],
            offline: vec![0; versions],
        }
    }

    pub(super) fn add(&mut self, version: VersionId, online: bool, devices: u64) {
        let index = usize::from(version.0);
        if let (Some(all), Some(offline)) =
            (self.devices.get_mut(index), self.offline.get_mut(index))
        {
            *all += devices;
            *offline += if online { 0 } else { devices };
        }
    }
}

/// What is counted of a version in a day.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    check_ins: u64,
    bytes_full: u64,
    bytes_patch: u64,
    installed: u64,
    interrupted: u64,
    failed: u64,
    restored: u64,
    reports: Tally,
}

/// Counts what devices do, and tells the server what it is to know.
#[derive(Debug)]
pub(super) struct Meter {
    counted: Vec<Counted>,
    notices: Vec<(u64, Notice)>,
    least: u64,
}

/// Who reports in the count form: nobody of the fleet has this id.
pub(super) const NOBODY: ClientId = ClientId(u64::MAX);

impl Meter {
    pub(super) fn new(versions: usize, least: u64) -> Self {
        Self {
            counted: vec![Counted::default(); versions],
            notices: Vec::new(),
            least,
        }
    }

    fn of(&mut self, version: VersionId, count: impl FnOnce(&mut Counted)) {
        if let Some(counted) = self.counted.get_mut(usize::from(version.0)) {
            count(counted);
        }
    }

    pub(super) fn notice(&mut self, now: u64, notice: Notice) {
        self.notices.push((now, notice));
    }

    /// Devices that run `has` check in.
    pub(super) fn check_in(&mut self, has: VersionId, devices: u64) {
        self.of(has, |counted| counted.check_ins += devices);
    }

    /// Devices of a group report on what they run.
    pub(super) fn report(
        &mut self,
        server: &mut Server,
        (release, stage): (u64, usize),
        group: Group,
        version: VersionId,
        reports: Tally,
    ) {
        self.of(version, |counted| counted.reports.add(&reports));
        server.handle(Event::Metric {
            release,
            stage,
            group,
            version,
            reports,
        });
    }

    /// Devices load something up to a part.
    fn load(&mut self, load: &Load, end: u8, devices: u64) {
        // Beyond 18 exabytes in a day the meter stands still.
        let bytes = load.bytes_to(end).saturating_mul(devices);
        self.of(load.to, |counted| {
            let loaded = match load.is_patch() {
                true => &mut counted.bytes_patch,
                false => &mut counted.bytes_full,
            };
            *loaded = loaded.saturating_add(bytes);
        });
    }

    /// A download broke off with so many parts.
    pub(super) fn broken(&mut self, load: &Load, parts: u8, devices: u64) {
        self.load(load, parts, devices);
        self.of(load.to, |counted| counted.interrupted += devices);
    }

    /// A download came to its end, and could not be installed.
    pub(super) fn failed(&mut self, server: &mut Server, load: &Load, devices: u64) {
        self.load(load, PARTS, devices);
        self.of(load.to, |counted| counted.failed += devices);
        let version = load.to;
        server.handle(Event::Failed { version, devices });
    }

    /// A download came to its end and was installed.
    pub(super) fn installed(&mut self, server: &mut Server, load: &Load, devices: u64) {
        self.load(load, PARTS, devices);
        self.of(load.to, |counted| counted.installed += devices);
        let version = load.to;
        server.handle(Event::Installed { version, devices });
    }

    /// Devices took the version before out of their caches.
    pub(super) fn restored(&mut self, server: &mut Server, version: VersionId, devices: u64) {
        self.of(version, |counted| counted.restored += devices);
        server.handle(Event::Installed { version, devices });
    }

    /// Closes a day.
    pub(super) fn close(&mut self, day: u64, server: &Server, census: &Census) -> Day {
        let least = self.least;
        let told = |count| Told::of(count, least);
        let registry = server.registry();
        let at = |counts: &[u64], index: usize| counts.get(index).copied().unwrap_or(0);
        let mut versions = Vec::new();
        for (index, version) in registry.ids().enumerate() {
            let state = registry.state(version);
            if state == VersionState::Waiting {
                continue;
            }
            let counted = self.counted.get(index).copied().unwrap_or_default();
            let reports = counted.reports;
            versions.push(VersionDay {
                version,
                round: registry.round(version),
                state,
                devices: told(at(&census.devices, index)),
                offline: told(at(&census.offline, index)),
                check_ins: told(counted.check_ins),
                bytes_full: counted.bytes_full,
                bytes_patch: counted.bytes_patch,
                installed: told(counted.installed),
                interrupted: told(counted.interrupted),
                failed: told(counted.failed),
                restored: told(counted.restored),
                reports: told(reports.count),
                metric: reports.mean().filter(|_| reports.count >= least),
            });
        }
        self.counted.fill(Counted::default());
        Day {
            day,
            release: server.newest_release(),
            stage: server.stage().map(|(_, share)| share),
            notices: core::mem::take(&mut self.notices),
            versions,
        }
    }
}
