//! The release server, as a machine without input or output: events come in, offers, notices and the
//! next time to be woken go out. It keeps nothing of a device.
//!
//! A release is a number, counted from 1, and a version. Where a device stands in it is a
//! function of the seed, the release's number and the device alone, a number from 0 to 1: stages are
//! the devices below growing shares, so that the 1 % is a part of the 10 %, and the control group is
//! at the other end. Each release shuffles the fleet anew, so that nobody is always first.
//!
//! While a version is a candidate, devices of its stages get it and the control group keeps the one
//! before. Both report once in each stage how good the version is that they run; [`Guard`] says what
//! follows. When the last stage is passed, the version is current, and the control group gets it,
//! too.

use std::collections::VecDeque;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

use super::guard::{Guard, Tally, Verdict};
use super::out_of_range;
use super::registry::{Registry, VersionId, VersionState};
use crate::error::SimError;

/// Stages, control group and guard of all releases.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Shares of the fleet that get a candidate, growing and up to 1; 16 at most.
    pub stages: Vec<f64>,
    /// Share of the fleet that keeps the version before until the last stage is passed. With 0 there is
    /// no guard, and one stage: a release goes to everybody at once.
    pub control: f64,
    /// When a version is withdrawn, and when a stage is passed.
    pub guard: Guard,
    /// Of fewer devices or reports nothing is told, and nothing concluded; at least 2.
    pub min_group: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            stages: vec![0.01, 0.1, 0.5, 1.0],
            control: 0.01,
            guard: Guard::default(),
            min_group: 100,
        }
    }
}

impl ServerConfig {
    /// Most stages.
    const MOST: usize = 16;

    /// Whether all values are in their ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] names the first that is not.
    pub fn check(&self) -> Result<(), SimError> {
        let stages = &self.stages;
        let grow = stages.windows(2).all(|pair| pair[0] < pair[1]);
        let first = stages.first().copied().unwrap_or(0.0);
        // The last stage is all but the control group; a stage that is as large is not one.
        let apart = |share: &f64| *share <= 1.0 - self.control;
        let shares = first > 0.0
            && stages.last() == Some(&1.0)
            && grow
            && stages.len() <= Self::MOST
            && stages.iter().rev().skip(1).all(apart);
        let checks: [(&'static str, bool, &dyn core::fmt::Display, &'static str); 3] = [
            (
                "rollout.stages",
                shares,
                &format!("{stages:?}"),
                "growing shares above 0 that end with 1, 16 at most, and leave room for the control group before the last",
            ),
            (
                "rollout.control",
                (0.0..0.5).contains(&self.control) && (self.control > 0.0 || stages.len() == 1),
                &self.control,
                "a share above 0 and below 0.5; or 0 with stages = [1.0], for releases without a guard",
            ),
            (
                "rollout.min_group",
                self.min_group >= 2,
                &self.min_group,
                "at least 2",
            ),
        ];
        for (key, holds, value, range) in checks {
            if !holds {
                return Err(out_of_range(key, value, range));
            }
        }
        self.guard.check()
    }

    /// Whether releases are guarded.
    fn is_guarded(&self) -> bool {
        self.control > 0.0
    }

    /// Shares of the fleet in the groups, in order.
    pub(super) fn shares(&self) -> Vec<f64> {
        let mut before = 0.0;
        let ends = self
            .stages
            .iter()
            .map(|share| share.min(1.0 - self.control));
        let mut shares: Vec<f64> = ends
            .map(|end| end - core::mem::replace(&mut before, end))
            .collect();
        shares.push(self.control);
        shares
    }
}

/// The group of a release in which a device is: the first stage that holds it, or the control group
/// behind the last stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(pub u8);

/// What a device that checks in is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// To go on with what it has.
    Keep,
    /// To load a whole file and install it.
    Full {
        /// What is loaded.
        version: VersionId,
        /// Bytes of it.
        bytes: u64,
    },
    /// To load a patch of what it has and install what comes out.
    Patch {
        /// What it has.
        from: VersionId,
        /// What comes out.
        to: VersionId,
        /// Bytes of the patch.
        bytes: u64,
    },
    /// To go back from a version that was withdrawn: from the device's own cache, or, where that does
    /// not hold it, by loading the whole file.
    Back {
        /// The version to go back to.
        to: VersionId,
        /// Bytes of its file.
        bytes: u64,
    },
}

/// What devices tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many devices that check in report how good the version is that they run.
    Metric {
        /// Which release they were asked about.
        release: u64,
        /// The stage that was open.
        stage: usize,
        /// Their group.
        group: Group,
        /// The version that they run.
        version: VersionId,
        /// What they report.
        reports: Tally,
    },
    /// So many devices have installed a version.
    Installed {
        /// The version.
        version: VersionId,
        /// The devices.
        devices: u64,
    },
    /// On so many devices a version could not be installed.
    Failed {
        /// The version.
        version: VersionId,
        /// The devices.
        devices: u64,
    },
}

/// Why a version was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its metric is worse than that of the control group.
    Worse,
    /// The longest time of a stage went by, and that it is not worse could not be shown.
    Undecided,
}

/// What happened to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A stage began.
    Began {
        /// The version.
        version: VersionId,
        /// The stage, from 0.
        stage: usize,
    },
    /// The last stage was passed: everybody gets the version.
    Completed {
        /// The version.
        version: VersionId,
    },
    /// The version is withdrawn, and whoever has it goes back.
    Withdrawn {
        /// The version.
        version: VersionId,
        /// The stage in which that was decided, from 0.
        stage: usize,
        /// Why.
        reason: Reason,
    },
}

/// A release under way.
#[derive(Clone, Copy, Debug)]
struct Rolling {
    candidate: VersionId,
    stage: usize,
    /// When the stage began, and when it is looked at next, in hours.
    since: u64,
    next_look: u64,
    /// Looks at the release so far.
    looks: u64,
    new: Tally,
    old: Tally,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    config: ServerConfig,
    seed: Seed,
    current: VersionId,
    /// Number of the newest release, from 1.
    release: u64,
    rolling: Option<Rolling>,
    waiting: VecDeque<VersionId>,
    notices: VecDeque<Notice>,
    installed: Vec<u64>,
    failed: Vec<u64>,
}

impl Server {
    /// A server for which the registry's first version is current.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] when a value of the configuration is, or the registry is empty.
    pub fn new(mut registry: Registry, config: ServerConfig, seed: Seed) -> Result<Self, SimError> {
        config.check()?;
        if registry.is_empty() {
            let none: &dyn core::fmt::Display = &0;
            return Err(out_of_range("rollout.versions", none, "at least 1"));
        }
        let current = VersionId(0);
        registry.mark(current, VersionState::Current);
        let versions = registry.len();
        Ok(Self {
            registry,
            config,
            seed,
            current,
            release: 0,
            rolling: None,
            waiting: VecDeque::new(),
            notices: VecDeque::new(),
            installed: vec![0; versions],
            failed: vec![0; versions],
        })
    }

    /// Releases a version, now, or when the releases before it are over.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] when it is not in the registry or was released before.
    pub fn release(&mut self, now: u64, version: VersionId) -> Result<(), SimError> {
        let known = usize::from(version.0) < self.registry.len();
        let fresh = self.registry.state(version) == VersionState::Waiting
            && !self.waiting.contains(&version);
        if !(known && fresh) {
            let range = "a version of the registry that was not released before";
            return Err(out_of_range("the version to release", &version.0, range));
        }
        self.waiting.push_back(version);
        self.begin(now);
        Ok(())
    }

    /// Begins the next release unless one is under way.
    fn begin(&mut self, now: u64) {
        while self.rolling.is_none()
            && let Some(candidate) = self.waiting.pop_front()
        {
            self.release += 1;
            self.registry.mark(candidate, VersionState::Candidate);
            let notice = Notice::Began {
                version: candidate,
                stage: 0,
            };
            self.notices.push_back(notice);
            self.rolling = Some(Rolling {
                candidate,
                stage: 0,
                since: now,
                next_look: now.saturating_add(self.config.guard.look_hours),
                looks: 0,
                new: Tally::default(),
                old: Tally::default(),
            });
            if !self.config.is_guarded() {
                self.complete(candidate);
            }
        }
    }

    /// The group of `device` in the newest release; drawn from (seed, release, device) alone.
    #[must_use]
    pub fn group(&self, device: ClientId) -> Group {
        let round = RoundId(self.release);
        let place = Stream::at(Purpose::Rollout, self.seed, round, device).uniform();
        let stages = &self.config.stages;
        let held = place >= 1.0 - self.config.control;
        let group = match held {
            true => stages.len(),
            false => stages.iter().position(|&share| place < share).unwrap_or(0),
        };
        Group(group as u8)
    }

    /// Whether a group is in a stage that gets the candidate.
    fn admits(&self, rolling: &Rolling, group: Group) -> bool {
        let group = usize::from(group.0);
        group <= rolling.stage && group < self.config.stages.len()
    }

    /// What a device that checks in is told; it may have nothing yet, and then keeps nothing.
    #[must_use]
    pub fn check_in(&self, device: ClientId, has: Option<VersionId>) -> Offer {
        match has {
            Some(has) => self.offer(self.group(device), has),
            None => self.full(self.target(self.group(device))),
        }
    }

    /// The version that a group is to have.
    fn target(&self, group: Group) -> VersionId {
        match &self.rolling {
            Some(rolling) if self.admits(rolling, group) => rolling.candidate,
            _ => self.current,
        }
    }

    fn full(&self, version: VersionId) -> Offer {
        Offer::Full {
            version,
            bytes: self.registry.file_bytes(version),
        }
    }

    /// What every device of a group is told that has this version.
    #[must_use]
    pub fn offer(&self, group: Group, has: VersionId) -> Offer {
        if self.registry.state(has) == VersionState::Withdrawn {
            return Offer::Back {
                to: self.current,
                bytes: self.registry.file_bytes(self.current),
            };
        }
        let to = self.target(group);
        if has == to {
            return Offer::Keep;
        }
        match self.registry.patch_bytes(has, to) {
            Some(bytes) => Offer::Patch {
                from: has,
                to,
                bytes,
            },
            None => self.full(to),
        }
    }

    /// Release and stage for which a device of this group that runs `has` is asked how good it is,
    /// once; none where nobody asks.
    #[must_use]
    pub fn asks(&self, group: Group, has: VersionId) -> Option<(u64, usize)> {
        let rolling = self.rolling.as_ref()?;
        let control = usize::from(group.0) == self.config.stages.len();
        let asked = match control {
            true => has == self.current,
            false => self.admits(rolling, group) && has == rolling.candidate,
        };
        asked.then_some((self.release, rolling.stage))
    }

    /// Takes in what devices tell. A metric of an earlier stage comes too late and is not counted;
    /// one of a version that was not asked about is not, either.
    pub fn handle(&mut self, event: Event) {
        let count = |counts: &mut Vec<u64>, version: VersionId, devices| {
            if let Some(count) = counts.get_mut(usize::from(version.0)) {
                *count += devices;
            }
        };
        match event {
            Event::Metric {
                release,
                stage,
                group,
                version,
                reports,
            } => {
                let asked = self.asks(group, version) == Some((release, stage));
                if let Some(rolling) = self.rolling.as_mut().filter(|_| asked) {
                    match version == rolling.candidate {
                        true => rolling.new.add(&reports),
                        false => rolling.old.add(&reports),
                    }
                }
            }
            Event::Installed { version, devices } => count(&mut self.installed, version, devices),
            Event::Failed { version, devices } => count(&mut self.failed, version, devices),
        }
    }

    /// The hour of the next look; none while nothing is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        Some(self.rolling.as_ref()?.next_look)
    }

    /// Looks at the release, where it is time.
    pub fn handle_timeout(&mut self, now: u64) {
        let guard = self.config.guard;
        let Some(mut rolling) = self.rolling.filter(|rolling| now >= rolling.next_look) else {
            return;
        };
        let lasted = now - rolling.since;
        while rolling.next_look <= now {
            rolling.next_look = rolling.next_look.saturating_add(guard.look_hours);
        }
        let reports = rolling.new.count.min(rolling.old.count);
        let mut verdict = Verdict::Open;
        // Smaller groups are not looked at, so that no look is spent on them.
        if reports >= self.config.min_group {
            rolling.looks += 1;
            verdict = guard.look(rolling.looks, &rolling.new, &rolling.old);
        }
        self.rolling = Some(rolling);
        let whole = lasted >= guard.min_hours && reports >= guard.min_reports;
        match verdict {
            Verdict::Worse => self.withdraw(now, Reason::Worse),
            Verdict::Good if whole => self.pass(now),
            Verdict::Good | Verdict::Open if lasted >= guard.max_hours => {
                self.withdraw(now, Reason::Undecided);
            }
            Verdict::Good | Verdict::Open => {}
        }
    }

    /// The stage is passed.
    fn pass(&mut self, now: u64) {
        let Some(rolling) = &mut self.rolling else {
            return;
        };
        let version = rolling.candidate;
        if rolling.stage + 1 < self.config.stages.len() {
            rolling.stage += 1;
            rolling.since = now;
            rolling.next_look = now.saturating_add(self.config.guard.look_hours);
            (rolling.new, rolling.old) = (Tally::default(), Tally::default());
            let stage = rolling.stage;
            self.notices.push_back(Notice::Began { version, stage });
        } else {
            self.complete(version);
            self.begin(now);
        }
    }

    fn complete(&mut self, version: VersionId) {
        self.registry.mark(self.current, VersionState::Replaced);
        self.registry.mark(version, VersionState::Current);
        self.current = version;
        self.rolling = None;
        self.notices.push_back(Notice::Completed { version });
    }

    fn withdraw(&mut self, now: u64, reason: Reason) {
        let Some(rolling) = self.rolling.take() else {
            return;
        };
        let (version, stage) = (rolling.candidate, rolling.stage);
        self.registry.mark(version, VersionState::Withdrawn);
        self.notices.push_back(Notice::Withdrawn {
            version,
            stage,
            reason,
        });
        self.begin(now);
    }

    /// The next thing that happened to a release.
    pub fn poll(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The versions.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The version that everybody is to have who is in no stage.
    #[must_use]
    pub fn current(&self) -> VersionId {
        self.current
    }

    /// Number of the newest release, from 1; 0 before the first.
    #[must_use]
    pub fn newest_release(&self) -> u64 {
        self.release
    }

    /// The stage of the release under way, from 0, and its share of the fleet; none between releases.
    #[must_use]
    pub fn stage(&self) -> Option<(usize, f64)> {
        let stage = self.rolling.as_ref()?.stage;
        Some((stage, self.config.stages.get(stage).copied()?))
    }

    /// How often a version was installed, and how often that failed; nothing of fewer devices than a
    /// group must have.
    #[must_use]
    pub fn installations(&self, version: VersionId) -> (Option<u64>, Option<u64>) {
        let of = |counts: &[u64]| {
            let count = counts.get(usize::from(version.0)).copied()?;
            (count >= self.config.min_group).then_some(count)
        };
        (of(&self.installed), of(&self.failed))
    }
}

#[cfg(test)]
mod tests;
