//! What lasts from round to round: temperature, battery, participations.
//!
//! Kept only for clients that took part, and [settled](FleetState::settle): a device that has cooled
//! and is full is forgotten, so that what is kept grows with who took part lately. How often a client
//! took part is never forgotten. A device that is not kept is at rest: cool, and with a full battery, for
//! what its owner draws from it is not modelled.

use std::collections::BTreeMap;

use fl_core::{ClientId, RoundId, VirtualTime};
use fl_edge::device::Heat;
use serde::{Deserialize, Serialize};

use super::availability::Signal;
use super::cost::{Session, duration};
use super::device::{Device, Fleet};

/// Degrees within which a device counts as cooled.
const COOLED: f64 = 0.01;

/// A device that is not at rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Degrees Celsius.
    pub celsius: f64,
    /// Joules that its battery lacks, at least 0.
    pub missing: f64,
    /// When this was so.
    pub at: VirtualTime,
}

impl Condition {
    /// How full the battery is, in `[0, 1]`; full on the mains.
    #[must_use]
    pub fn level(&self, device: &Device) -> f64 {
        match device.battery {
            Some(battery) => (1.0 - self.missing / battery.joules).clamp(0.0, 1.0),
            None => 1.0,
        }
    }

    /// Its temperature, for a session.
    #[must_use]
    pub fn heat(&self) -> Heat {
        Heat {
            celsius: self.celsius,
        }
    }
}

/// How often a client took part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participation {
    /// Rounds in which it trained.
    pub rounds: u32,
    /// The last of them.
    pub last: RoundId,
}

/// What lasts of a fleet. A checkpoint holds it as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetState {
    conditions: BTreeMap<ClientId, Condition>,
    participations: BTreeMap<ClientId, Participation>,
}

impl FleetState {
    /// Whether a device is kept, because it was not at rest when it was last looked at.
    #[must_use]
    pub fn is_kept(&self, client: ClientId) -> bool {
        self.conditions.contains_key(&client)
    }

    /// Devices that are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.conditions.len()
    }

    /// How often a client took part.
    #[must_use]
    pub fn participation(&self, client: ClientId) -> Participation {
        self.participations
            .get(&client)
            .copied()
            .unwrap_or_default()
    }

    /// Every client that took part, ascending.
    pub fn participations(&self) -> impl Iterator<Item = (ClientId, Participation)> {
        self.participations
            .iter()
            .map(|(&client, &it)| (client, it))
    }

    /// The condition of a device at `now`: since the one that is kept it has cooled, and its battery
    /// was charged whenever it was on a charger.
    #[must_use]
    pub fn condition(&self, fleet: &Fleet, device: &Device, now: VirtualTime) -> Condition {
        let profile = fleet.profile(device);
        let Some(kept) = self.conditions.get(&device.client) else {
            return Condition {
                celsius: Heat::rested(profile).celsius,
                missing: 0.0,
                at: now,
            };
        };
        let seconds = (now - kept.at).0 as f64 * 1e-6;
        Condition {
            celsius: kept.heat().rest(profile, seconds).celsius,
            missing: charged(fleet, device, kept.missing, kept.at, now),
            at: now,
        }
    }

    /// A client trained from `start` on: its device is as warm as the session left it, and what the
    /// charger did not give came from the battery.
    pub fn record(
        &mut self,
        fleet: &Fleet,
        device: &Device,
        round: RoundId,
        start: VirtualTime,
        session: &Session,
    ) {
        let end = start + duration(session.seconds);
        let before = self.condition(fleet, device, start).missing;
        let missing = match device.battery {
            Some(battery) => {
                let drained = before + session.joules.total();
                charged(fleet, device, drained, start, end).min(battery.joules)
            }
            None => 0.0,
        };
        let condition = Condition {
            celsius: session.after.celsius,
            missing,
            at: end,
        };
        self.conditions.insert(device.client, condition);
        let participation = self.participations.entry(device.client).or_default();
        participation.rounds = participation.rounds.saturating_add(1);
        participation.last = round;
    }

    /// Forgets the conditions of devices that are at rest at `now`. What is left is not changed, so
    /// results do not depend on when this is called, beyond a hundredth of a degree.
    pub fn settle(&mut self, fleet: &Fleet, now: VirtualTime) {
        let mut rested = Vec::new();
        for (&client, kept) in &self.conditions {
            // A device that was looked at later than now is not at rest.
            if kept.at > now {
                continue;
            }
            let device = fleet.device(client);
            let rest = Heat::rested(fleet.profile(&device)).celsius;
            let condition = self.condition(fleet, &device, now);
            if (condition.celsius - rest).abs() <= COOLED && condition.missing <= 0.0 {
                rested.push(client);
            }
        }
        for client in rested {
            self.conditions.remove(&client);
        }
    }
}

/// What a battery that lacks `missing` joules at `from` lacks at `to`.
fn charged(
    fleet: &Fleet,
    device: &Device,
    missing: f64,
    from: VirtualTime,
    to: VirtualTime,
) -> f64 {
    let Some(battery) = device.battery else {
        return 0.0;
    };
    let (life, mut missing, mut now) = (device.life(), missing, from);
    while missing > 0.0 && now < to {
        let stretch = fleet.availability().stretch(&life, Signal::Charging, now);
        let until = stretch.until.min(to);
        if stretch.on {
            missing -= battery.charger * (until - now).0 as f64 * 1e-6;
        }
        now = until;
    }
    missing.max(0.0)
}
