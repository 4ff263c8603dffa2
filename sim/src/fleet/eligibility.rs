//! Who may train now, until when, or why not.
//!
//! A device is asked for the cheapest first, and the first thing that is missing is the reason. Bonawitz et
//! al. 2019 (arXiv:1902.01046, section 3) ask for idle, charging and an unmetered network, which is
//! the default.

use fl_core::{ClientId, VirtualTime};
use serde::{Deserialize, Serialize};

use super::availability::{Signal, Signals};
use super::cost::Costs;
use super::device::Fleet;
use super::error::FleetError;
use super::state::FleetState;

/// What a client must have before it is given work. Memory for the training is always asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirements {
    /// Be on a charger.
    pub charging: bool,
    /// Have a network that is not metered.
    pub wifi: bool,
    /// Not be in use.
    pub idle: bool,
    /// A battery at least so full, in `[0, 1]`; a device on the mains is.
    pub min_battery: f64,
    /// Training examples, at least.
    pub min_examples: u64,
    /// Rounds in which it may take part at most; any number when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_participations: Option<u32>,
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            charging: true,
            wifi: true,
            idle: true,
            min_battery: 0.0,
            min_examples: 1,
            max_participations: None,
        }
    }
}

impl Requirements {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`FleetError::Range`] naming the key.
    pub fn validate(&self) -> Result<(), FleetError> {
        if !(0.0..=1.0).contains(&self.min_battery) {
            let (key, range) = ("requirements.min_battery", "a share between 0 and 1");
            return Err(FleetError::range(key, self.min_battery, range));
        }
        if self.max_participations == Some(0) {
            let (key, range) = ("requirements.max_participations", "at least 1, or left out");
            return Err(FleetError::range(key, 0, range));
        }
        Ok(())
    }

    /// The signals that are asked for.
    #[must_use]
    pub fn signals(&self) -> Signals {
        Signals {
            charging: self.charging,
            wifi: self.wifi,
            idle: self.idle,
        }
    }
}

/// Why a client may not train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It has too few examples.
    Examples,
    /// It took part as often as it may.
    Participations,
    /// The training does not fit into its memory.
    Memory,
    /// Its battery is too empty.
    Battery,
    /// It is not on a charger.
    Charging,
    /// It has no network that is not metered.
    Wifi,
    /// It is in use.
    Idle,
}

impl Reason {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 7] = [
        Self::Examples,
        Self::Participations,
        Self::Memory,
        Self::Battery,
        Self::Charging,
        Self::Wifi,
        Self::Idle,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Examples => "examples",
            Self::Participations => "participations",
            Self::Memory => "memory",
            Self::Battery => "battery",
            Self::Charging => "charging",
            Self::Wifi => "wifi",
            Self::Idle => "idle",
        }
    }
}

impl From<Signal> for Reason {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Charging => Self::Charging,
            Signal::Wifi => Self::Wifi,
            Signal::Idle => Self::Idle,
        }
    }
}

/// How many clients were asked and refused, by the first reason of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ineligible([u64; Reason::ALL.len()]);

impl Ineligible {
    /// Counts one.
    pub fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// So many for each reason, in the order of [`Reason::ALL`].
    #[must_use]
    pub fn of_counts(counts: [u64; Reason::ALL.len()]) -> Self {
        Self(counts)
    }

    /// How many were refused for a reason.
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were refused.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Every reason with its count, in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0)
    }
}

impl Fleet {
    /// Whether a client that holds `examples` may train at a moment, and until when without a break
    /// (see [`Availability::until`](super::Availability::until)).
    ///
    /// Cost: about a microsecond, and nothing is allocated; a few more for a client whose device is
    /// kept in `state` when a least battery is asked for.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn eligible(
        &self,
        client: ClientId,
        at: VirtualTime,
        examples: u64,
        costs: &Costs,
        state: &FleetState,
    ) -> Result<VirtualTime, Reason> {
        let asked = self.requirements();
        if examples < asked.min_examples {
            return Err(Reason::Examples);
        }
        if let Some(most) = asked.max_participations
            && state.participation(client).rounds >= most
        {
            return Err(Reason::Participations);
        }
        let sketch = self.sketch(client);
        costs.fits(sketch.member).map_err(|_| Reason::Memory)?;
        if asked.min_battery > 0.0 && state.is_kept(client) {
            let device = self.device(client);
            let condition = state.condition(self, &device, at);
            if condition.level(&device) < asked.min_battery {
                return Err(Reason::Battery);
            }
        }
        let until = self.availability().until(&sketch.life, at, asked.signals());
        until.map_err(Reason::from)
    }
}
