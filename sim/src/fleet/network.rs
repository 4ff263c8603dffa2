//! Links: how fast a device's network is, and how long a transfer takes.
//!
//! A device has a mean rate in each direction, drawn from a two-piece normal distribution of its
//! logarithm (Wallis 2014, arXiv:1405.4995), which meets three quantiles exactly: those of FLASH's 19
//! measured users for phones. FLASH's means are 8 and 15 % above the distribution's, which 19 users
//! do not tell from nothing. Each transfer has a rate of its own, from a normal distribution truncated
//! at a twentieth of the mean, as in FLASH (`device.py`), where it is truncated at zero and so has
//! transfers of any length.

use fl_core::Stream;
use serde::{Deserialize, Serialize};

/// The standard normal distribution's 90 % quantile.
const Z90: f64 = 1.281_551_565_544_600_4;
/// Least rate of a transfer, as a share of the mean.
const LEAST: f64 = 0.05;
/// Bytes of a KB here.
const KB: f64 = 1024.0;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the device.
    Down,
    /// From the device.
    Up,
}

/// How mean rates are distributed over devices, in KB/s of 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The 10 % quantile.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// The 90 % quantile.
    pub p90: f64,
    /// Standard deviation of one device's transfers, as a share of its mean.
    pub spread: f64,
}

impl Rate {
    /// A mean rate in bytes a second.
    fn draw(&self, stream: &mut Stream) -> f64 {
        let z = stream.normal();
        let step = match z < 0.0 {
            true => libm::log(self.p50 / self.p10),
            false => libm::log(self.p90 / self.p50),
        };
        KB * self.p50 * libm::exp(z / Z90 * step)
    }
}

/// The networks of a population.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// To the device.
    pub down: Rate,
    /// From the device.
    pub up: Rate,
    /// Seconds before the first byte of a transfer arrives.
    pub latency: f64,
    /// Share of the devices that ever have WiFi.
    pub wifi: f64,
    /// Share of the devices for which everything else is metered.
    pub metered: f64,
}

impl Network {
    /// The link of a device.
    #[must_use]
    pub fn link(&self, stream: &mut Stream) -> Link {
        Link {
            down: self.down.draw(stream),
            up: self.up.draw(stream),
            down_spread: self.down.spread,
            up_spread: self.up.spread,
            latency: self.latency,
        }
    }
}

/// The link of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Mean rate to the device in bytes a second, above 0.
    pub down: f64,
    /// Mean rate from the device in bytes a second, above 0.
    pub up: f64,
    /// Standard deviation of the rate of transfers to the device, as a share of the mean.
    pub down_spread: f64,
    /// The same of those from the device.
    pub up_spread: f64,
    /// Seconds before the first byte arrives.
    pub latency: f64,
}

impl Link {
    /// The link with this rate in both directions, in bytes a second.
    #[must_use]
    pub fn at_rate(self, bytes_a_second: f64) -> Self {
        Self {
            down: bytes_a_second,
            up: bytes_a_second,
            ..self
        }
    }

    /// Seconds of a transfer of `bytes`, its rate drawn from `stream`; zero when there is nothing to
    /// transfer.
    #[must_use]
    pub fn transfer_seconds(&self, direction: Direction, bytes: u64, stream: &mut Stream) -> f64 {
        if bytes == 0 {
            return 0.0;
        }
        self.latency + bytes as f64 / self.rate(direction, stream)
    }

    /// The rate of one transfer in bytes a second, at least a twentieth of the mean.
    #[must_use]
    pub fn rate(&self, direction: Direction, stream: &mut Stream) -> f64 {
        let (mean, spread) = match direction {
            Direction::Down => (self.down, self.down_spread),
            Direction::Up => (self.up, self.up_spread),
        };
        // The mean is inside, so at least half of the draws are taken.
        loop {
            let share = 1.0 + spread * stream.normal();
            if share >= LEAST {
                return mean * share;
            }
        }
    }
}
