//! Temperature and throttling: one thermal resistance, one capacity, and steps at which the device
//! slows down. Modelled; the state is carried by the caller and time is virtual.
//!
//! With power `P`, resistance `R`, capacity `C` and ambient temperature `A` the temperature obeys
//! `C dT/dt = P - (T - A) / R`, so it approaches `A + P R` with the time constant `R C`. Between two
//! steps the solution is an exponential, so a session of any length is computed piece by piece
//! without a time grid. Where full speed heats the device across a step and the speed above it
//! cools it back, the device stays at the step's temperature and alternates: its mean power is what
//! the case carries off there, and its speed is the mean of both.

use serde::{Deserialize, Serialize};

use super::profile::{DeviceProfile, Thermal};

/// The temperature of a device in degrees Celsius.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    /// Degrees Celsius.
    pub celsius: f64,
}

/// What a session of work on a device comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Session {
    /// Seconds that it takes.
    pub seconds: f64,
    /// Joules, the idle device's included.
    pub joules: f64,
    /// The temperature afterwards.
    pub after: Heat,
}

impl Session {
    /// How many times slower than on a cool device.
    #[must_use]
    pub fn slowdown(&self, cool_seconds: f64) -> f64 {
        match cool_seconds > 0.0 {
            true => self.seconds / cool_seconds,
            false => 1.0,
        }
    }
}

impl Heat {
    /// A device that was idle for long.
    #[must_use]
    pub fn rested(profile: &DeviceProfile) -> Self {
        let thermal = &profile.thermal;
        Self {
            celsius: thermal.ambient.value + thermal.idle.value * thermal.resistance.value,
        }
    }

    /// The temperature after `seconds` without work.
    #[must_use]
    pub fn rest(self, profile: &DeviceProfile, seconds: f64) -> Self {
        let thermal = &profile.thermal;
        let target = settled(thermal, thermal.idle.value);
        let celsius = approach(thermal, self.celsius, target, seconds.max(0.0));
        Self { celsius }
    }

    /// Works for what takes `cool_seconds` on a cool device at `watts` beyond the idle power.
    #[must_use]
    pub fn work(self, profile: &DeviceProfile, cool_seconds: f64, watts: f64) -> Session {
        let thermal = &profile.thermal;
        let idle = thermal.idle.value;
        let (mut celsius, mut left) = (self.celsius, cool_seconds.max(0.0));
        let (mut seconds, mut joules) = (0.0, 0.0);
        // Each turn ends at a step, at rest between two, or at the end of the work; steps are
        // crossed in one direction only, up or down.
        for _ in 0..2 * thermal.steps.len() + 2 {
            if left <= 0.0 {
                break;
            }
            let level = level(thermal, celsius);
            let (speed, share) = rate(thermal, level);
            let power = idle + watts * share;
            let target = settled(thermal, power);
            // The next temperature at which the speed changes.
            let border = match target > celsius {
                true => thermal.steps.get(level).map(|step| step.above),
                false => level.checked_sub(1).map(|below| thermal.steps[below].above),
            };
            let Some(border) = border.filter(|&border| crosses(celsius, target, border)) else {
                // It settles before any step.
                let time = left / speed;
                celsius = approach(thermal, celsius, target, time);
                seconds += time;
                joules += time * power;
                left = 0.0;
                continue;
            };
            let until = time_to(thermal, celsius, target, border);
            let time = until.min(left / speed);
            seconds += time;
            joules += time * power;
            left -= time * speed;
            if time < until {
                celsius = approach(thermal, celsius, target, time);
                break;
            }
            celsius = border;
            // On the border: does it go on, or hover there?
            let (below, above) = match target > border {
                true => (level, level + 1),
                false => (level - 1, level),
            };
            let (fast, full) = rate(thermal, below);
            let (slow, less) = rate(thermal, above);
            let hot = settled(thermal, idle + watts * full);
            let cool = settled(thermal, idle + watts * less);
            if hot > border && cool <= border {
                let carried = (border - thermal.ambient.value) / thermal.resistance.value;
                let mix =
                    ((carried - idle - watts * less) / (watts * (full - less))).clamp(0.0, 1.0);
                let time = left / (slow + mix * (fast - slow));
                seconds += time;
                joules += time * carried;
                left = 0.0;
            } else if target < border {
                // Cooling through it: the speed below applies from here on.
                celsius = below_border(border);
            }
        }
        let after = Heat { celsius };
        Session {
            seconds,
            joules,
            after,
        }
    }
}

/// Just below a step, where its throttling has ended.
fn below_border(border: f64) -> f64 {
    border - 1e-9 * border.abs().max(1.0)
}

/// How many steps a temperature has reached.
fn level(thermal: &Thermal, celsius: f64) -> usize {
    thermal
        .steps
        .iter()
        .filter(|step| celsius >= step.above)
        .count()
}

/// Shares of speed and power after so many steps.
fn rate(thermal: &Thermal, level: usize) -> (f64, f64) {
    match level.checked_sub(1) {
        None => (1.0, 1.0),
        Some(step) => (thermal.steps[step].speed, thermal.steps[step].power),
    }
}

fn settled(thermal: &Thermal, power: f64) -> f64 {
    thermal.ambient.value + power * thermal.resistance.value
}

fn crosses(from: f64, target: f64, border: f64) -> bool {
    (from < border && border < target) || (target < border && border <= from)
}

fn approach(thermal: &Thermal, from: f64, target: f64, seconds: f64) -> f64 {
    let tau = thermal.resistance.value * thermal.capacity.value;
    target + (from - target) * libm::exp(-seconds / tau)
}

fn time_to(thermal: &Thermal, from: f64, target: f64, border: f64) -> f64 {
    let tau = thermal.resistance.value * thermal.capacity.value;
    tau * libm::log((from - target) / (border - target))
}
