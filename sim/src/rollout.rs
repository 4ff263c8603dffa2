//! Model versions reach a fleet: a registry, staged releases under a guard, and devices that check
//! in, download, install, report and, when a version is bad, go back.
//!
//! ```text
//! [registry] versions, patches ─▶ [server] stages, control group ─▶ [fleet] devices check in
//!                                      ▲ [guard] one-sided looks          │ metric of the version
//!                                      └──────────────────────────────────┘ that they run
//! ```
//!
//! [`play`] plays a [`Plan`] in virtual hours: every device starts with the first version of the
//! registry, and the others are released one after the other. A release goes to growing shares of
//! the fleet (1, 10, 50 and 100 % by default). While it does, a control group keeps the version
//! before it, and the [guard] compares what both report. A version that is found worse is
//! withdrawn: whoever has it is offered the one before, which a device still has in its cache, so
//! that the way back needs no download. A device that is offline goes on with what it has: it
//! always has a whole version.
//!
//! The fleet is played in one of two [forms](Form): device by device, or as counts of devices in the
//! same state, whose memory does not grow with the fleet. Both follow the same law, step by step:
//! within a step nothing that a device does changes what another is offered. All that is random has
//! its address, all that is added is an integer, so the same plan gives the same record on any
//! machine.

mod counts;
mod device;
pub mod fault;
pub mod guard;
pub mod metric;
mod played;
mod record;
pub mod registry;
mod sampling;
pub mod server;

use fl_core::Seed;

use counts::Counts;
use device::Habits;
pub use guard::{Guard, Tally};
pub use metric::{Metric, prepare};
use played::Played;
use record::Meter;
pub use record::{Day, Told, VersionDay};
pub use registry::{Registry, RegistryError, VersionId, VersionState};
pub use server::{Event, Notice, Offer, Reason, Server, ServerConfig};

use crate::error::SimError;

/// Devices that are played one by one at most, unless that is asked for.
const PLAYED_AT_MOST: u64 = 100_000;

/// Devices that can be played one by one.
const PLAYED_LIMIT: u64 = 10_000_000;

/// Devices of the largest fleet: sums of squares of their reports stay exact.
const LARGEST_FLEET: u64 = 1_000_000_000_000;

/// How the fleet is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Device by device up to 100,000 devices, as counts above.
    #[default]
    Auto,
    /// Device by device: time and memory grow with the fleet, of 10 million devices at most.
    Devices,
    /// As counts of devices in the same state: neither grows.
    Counts,
}

/// What is played.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Devices of the fleet, from 1 to 10^12.
    pub devices: u64,
    /// Virtual days, at least 1.
    pub days: u64,
    /// Virtual hours of a step: a divisor of 24, or 24. In a step a device checks in once at most.
    pub step_hours: u64,
    /// Check-ins of a device that is online in a day, in the mean; above 0, and at most one for each
    /// step. The time between two is geometric.
    pub check_ins_per_day: f64,
    /// Share of devices that are offline, at any time; from 0 to below 1.
    pub offline: f64,
    /// Hours that a device is offline in the mean, at least a step; geometric.
    pub offline_hours: f64,
    /// Share of downloads that break off; the next check-in takes them up where they stopped. From 0
    /// to below 1.
    pub interrupted: f64,
    /// Share of whole downloads that cannot be installed, and are loaded anew; from 0 to below 1.
    pub failed: f64,
    /// Hours from one release to the next, at least a step. One that is due while another is under way
    /// waits for its end.
    pub release_hours: u64,
    /// Stages, control group and guard.
    pub server: ServerConfig,
    /// How the fleet is played.
    pub form: Form,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            devices: 100_000,
            days: 30,
            step_hours: 1,
            check_ins_per_day: 1.0,
            offline: 0.0,
            offline_hours: 24.0,
            interrupted: 0.0,
            failed: 0.0,
            release_hours: 24,
            server: ServerConfig::default(),
            form: Form::default(),
        }
    }
}

impl Plan {
    /// Whether all values are in their ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] names the first that is not.
    pub fn check(&self) -> Result<(), SimError> {
        let step = self.step_hours;
        let steps_per_day = 24.0 / step.max(1) as f64;
        let share = |value: f64| (0.0..1.0).contains(&value);
        let known = 1.0 - self.offline;
        let most = match self.form {
            Form::Devices => PLAYED_LIMIT,
            Form::Auto | Form::Counts => LARGEST_FLEET,
        };
        let checks: [(&'static str, bool, &dyn core::fmt::Display, &'static str); 9] = [
            (
                "rollout.devices",
                (1..=most).contains(&self.devices),
                &self.devices,
                "1 to 10^12; with form = \"devices\" 10 million at most",
            ),
            (
                "rollout.days",
                (1..=36_500).contains(&self.days),
                &self.days,
                "1 to 36500",
            ),
            (
                "rollout.step_hours",
                step >= 1 && 24u64.is_multiple_of(step),
                &step,
                "a divisor of 24",
            ),
            (
                "rollout.check_ins_per_day",
                self.check_ins_per_day > 0.0 && self.check_ins_per_day <= steps_per_day,
                &self.check_ins_per_day,
                "above 0, and at most one for each step of rollout.step_hours",
            ),
            (
                "rollout.offline",
                share(self.offline),
                &self.offline,
                "a share of at least 0 and below 1",
            ),
            (
                "rollout.offline_hours",
                // So that going offline has a probability: offline / (1 - offline) * step / hours.
                self.offline_hours >= step as f64
                    && self.offline * step as f64 <= known * self.offline_hours
                    && self.offline_hours.is_finite(),
                &self.offline_hours,
                "at least a step, and at least step_hours * offline / (1 - offline)",
            ),
            (
                "rollout.interrupted",
                share(self.interrupted),
                &self.interrupted,
                "a share of at least 0 and below 1",
            ),
            (
                "rollout.failed",
                share(self.failed),
                &self.failed,
                "a share of at least 0 and below 1",
            ),
            (
                "rollout.release_hours",
                self.release_hours >= step.max(1),
                &self.release_hours,
                "at least one step",
            ),
        ];
        for (key, holds, value, range) in checks {
            if !holds {
                return Err(out_of_range(key, value, range));
            }
        }
        self.server.check()
    }

    fn habits(&self) -> Habits {
        let step = self.step_hours as f64;
        let back = step / self.offline_hours;
        Habits {
            check_in: self.check_ins_per_day * step / 24.0,
            leave: back * self.offline / (1.0 - self.offline),
            back,
            offline: self.offline,
            interrupted: self.interrupted,
            failed: self.failed,
        }
    }
}

fn out_of_range(
    key: &'static str,
    value: &dyn core::fmt::Display,
    range: &'static str,
) -> SimError {
    SimError::OutOfRange {
        key,
        value: value.to_string(),
        range,
    }
}

/// The devices, in one of their forms.
enum Fleet {
    Played(Played),
    Counts(Counts),
}

/// Plays `plan`: everybody starts with the first version of `registry`, and the others are released in
/// their order. `metric` says what devices report of each version, and has one entry for each.
/// Returns one record a day.
///
/// # Errors
/// [`SimError`] when the plan or the metric does not fit.
pub fn play(
    plan: &Plan,
    seed: Seed,
    registry: Registry,
    metric: &Metric,
) -> Result<Vec<Day>, SimError> {
    plan.check()?;
    metric.check(&registry)?;
    let habits = plan.habits();
    let versions = registry.len();
    let mut server = Server::new(registry, plan.server.clone(), seed)?;
    let mut meter = Meter::new(versions, plan.server.min_group);
    let as_counts = match plan.form {
        Form::Auto => plan.devices > PLAYED_AT_MOST,
        Form::Devices => false,
        Form::Counts => true,
    };
    let mut fleet = match as_counts {
        true => Fleet::Counts(Counts::new(plan.devices, seed, habits)),
        false => Fleet::Played(Played::new(plan.devices, seed, habits)),
    };
    let mut waiting = server.registry().ids().skip(1);
    let mut days = Vec::new();
    let steps = plan.days * 24 / plan.step_hours;
    for step in 0..steps {
        let now = step * plan.step_hours;
        server.handle_timeout(now);
        if now.is_multiple_of(plan.release_hours)
            && let Some(version) = waiting.next()
        {
            server.release(now, version)?;
        }
        while let Some(notice) = server.poll() {
            meter.notice(now, notice);
        }
        match &mut fleet {
            Fleet::Played(fleet) => fleet.step(step, &mut server, metric, &mut meter),
            Fleet::Counts(fleet) => fleet.step(step, &mut server, metric, &mut meter),
        }
        let end = now + plan.step_hours;
        if end.is_multiple_of(24) {
            let census = match &fleet {
                Fleet::Played(fleet) => fleet.census(versions),
                Fleet::Counts(fleet) => fleet.census(versions),
            };
            days.push(meter.close(end / 24, &server, &census));
        }
    }
    Ok(days)
}
