//! When a device charges, has WiFi and is idle.
//!
//! Under `diurnal` each signal is a two-state semi-Markov process in which time runs at a speed that
//! depends on the hour of the local clock: a stretch has a log-normal length of mean one, and passes
//! at one over the [hour's mean length](Rhythm). A day goes from local noon to local noon and has a
//! stream of its own for each signal, so whether a client is available at a moment, and until when,
//! takes the same time for any moment, and the answers for all moments belong to one path. At noon the
//! process is taken to be in equilibrium: its state is drawn from the share that days end with, and the
//! rest of the stretch from the distribution of what is left of a stretch seen at a random moment (the
//! forward recurrence time of a renewal process; Cox 1962, "Renewal Theory", section 5.2), which for a
//! log-normal length is a uniform part of a length drawn in proportion to itself.
//!
//! So paths restart at noon, when the fewest phones charge; what lasts over noon is a stretch that by
//! chance goes on. Signals of one client are independent given the hour, and days are independent.
//!
//! Under `always-on` all signals hold for ever. [Recordings](super::trace) repeat after their end.

mod rhythm;

use std::sync::Arc;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream, VirtualTime};

pub use rhythm::{CHARGING, IDLE, Rhythm, WIFI};

use super::trace::Traces;

/// Microseconds of an hour.
pub(super) const HOUR: u64 = 3_600_000_000;
/// Microseconds of a day.
const DAY: u64 = 24 * HOUR;
/// Days into which a stretch is followed: one that lasts longer is said to end there, and goes on
/// when asked again.
const MOST_DAYS: u64 = 7;
/// Streams of a day's address: one for each signal, and one to spare.
const STREAMS_OF_A_DAY: u64 = 4;

/// What a device may be asked to have before it trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// It is on a charger.
    Charging,
    /// It has a network that is not metered.
    Wifi,
    /// Nobody uses it: its screen is off or locked.
    Idle,
}

impl Signal {
    /// All of them, in the order in which they are asked: the rarest first.
    pub const ALL: [Self; 3] = [Self::Charging, Self::Wifi, Self::Idle];
}

/// A value for each signal: whether it holds, or whether it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// On a charger.
    pub charging: bool,
    /// On a network that is not metered.
    pub wifi: bool,
    /// Not in use.
    pub idle: bool,
}

impl Signals {
    /// All of them.
    pub const ALL: Self = Self {
        charging: true,
        wifi: true,
        idle: true,
    };

    /// The value for a signal.
    #[must_use]
    pub fn of(self, signal: Signal) -> bool {
        match signal {
            Signal::Charging => self.charging,
            Signal::Wifi => self.wifi,
            Signal::Idle => self.idle,
        }
    }
}

/// What decides the signals of a population.
#[derive(Clone, Debug, Default)]
pub enum Availability {
    /// All signals hold for ever.
    #[default]
    AlwaysOn,
    /// The day of a phone.
    Diurnal(Arc<Diurnal>),
    /// Recordings.
    Traces(Arc<Traces>),
}

/// Whose signals: what of a device decides them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// The client.
    pub client: ClientId,
    /// The offset of its clock from UTC, in minutes.
    pub zone: i32,
    /// Whether it ever has WiFi. Recordings and what is always on do not ask.
    pub wifi: bool,
    /// Which recording is its own, in `[0, 1)`.
    pub pick: f64,
}

/// A stretch of time in which a signal does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Whether the signal holds.
    pub(super) on: bool,
    /// Its end, the first moment that is no part of it.
    pub(super) until: VirtualTime,
}

impl Availability {
    /// The day of a phone by the shipped [rhythms](Rhythm); virtual time begins at `start_hour`
    /// o'clock, UTC, in `[0, 24)`.
    #[must_use]
    pub fn diurnal(seed: Seed, start_hour: f64) -> Self {
        Self::Diurnal(Arc::new(Diurnal::new(
            seed,
            start_hour,
            [&CHARGING, &WIFI, &IDLE],
        )))
    }

    /// Which signals hold for a client at a moment.
    #[must_use]
    pub fn signals(&self, life: &Life, at: VirtualTime) -> Signals {
        let on = |signal| self.stretch(life, signal, at).on;
        Signals {
            charging: on(Signal::Charging),
            wifi: on(Signal::Wifi),
            idle: on(Signal::Idle),
        }
    }

    /// The end of the time from `at` on in which all `required` signals hold without a break: the
    /// first moment that is no part of it. What lasts for ever ends at the end of time, and what is
    /// followed for a week ends there.
    ///
    /// # Errors
    /// The first signal that does not hold at `at`.
    pub fn until(
        &self,
        life: &Life,
        at: VirtualTime,
        required: Signals,
    ) -> Result<VirtualTime, Signal> {
        let mut end = VirtualTime(u64::MAX);
        for signal in Signal::ALL {
            if required.of(signal) {
                let stretch = self.stretch(life, signal, at);
                if !stretch.on {
                    return Err(signal);
                }
                end = end.min(stretch.until);
            }
        }
        Ok(end)
    }

    /// The stretch of a signal that `at` lies in.
    pub(super) fn stretch(&self, life: &Life, signal: Signal, at: VirtualTime) -> Stretch {
        match self {
            Self::AlwaysOn => Stretch {
                on: true,
                until: VirtualTime(u64::MAX),
            },
            Self::Diurnal(days) => days.stretch(life, signal, at),
            Self::Traces(traces) => traces.of(life.pick).stretch(signal, at),
        }
    }
}

/// The days of a population of phones.
#[derive(Clone, Debug, PartialEq)]
pub struct Diurnal {
    seed: Seed,
    /// Microseconds from midnight UTC to the beginning of virtual time.
    start: u64,
    signals: [Paces; 3],
}

/// A rhythm as the walk needs it: the mean lengths by hours from noon on.
#[derive(Clone, Debug, PartialEq)]
struct Paces {
    /// The share at noon.
    noon: f64,
    sigma: f64,
    on: [f64; 24],
    off: [f64; 24],
}

impl Paces {
    fn new(rhythm: &Rhythm) -> Self {
        let from_noon = |hour: usize| (hour + 12) % 24;
        let on = core::array::from_fn(|hour| rhythm.hours[from_noon(hour)]);
        let off = core::array::from_fn(|hour| {
            let share = rhythm.share[from_noon(hour)];
            rhythm.hours[from_noon(hour)] * (1.0 - share) / share
        });
        Self {
            noon: rhythm.noon,
            sigma: rhythm.sigma,
            on,
            off,
        }
    }

    /// The hour since noon at which a stretch of length `length`, in means, ends that is at `hour`
    /// now; at most 24.
    fn end(&self, on: bool, hour: f64, mut length: f64) -> f64 {
        let means = if on { &self.on } else { &self.off };
        let mut now = hour;
        for (index, mean) in means.iter().enumerate().skip(hour as usize) {
            let next = (index + 1) as f64;
            let room = (next - now) / mean;
            if length < room {
                return now + length * mean;
            }
            length -= room;
            now = next;
        }
        24.0
    }
}

/// One signal's day, stretch by stretch from noon on.
struct Walk<'a> {
    paces: &'a Paces,
    stream: Stream,
    on: bool,
    /// Hours since noon at which the stretch ends.
    hour: f64,
}

impl<'a> Walk<'a> {
    /// The stretch at noon: its state, and what is left of it.
    fn new(paces: &'a Paces, mut stream: Stream) -> Self {
        let on = stream.uniform() < paces.noon;
        let sigma = paces.sigma;
        let part = stream.uniform();
        let length = part * libm::exp(sigma * stream.normal() + 0.5 * sigma * sigma);
        let hour = paces.end(on, 0.0, length);
        Self {
            paces,
            stream,
            on,
            hour,
        }
    }

    /// Goes on to the next stretch.
    fn step(&mut self) {
        let sigma = self.paces.sigma;
        let length = libm::exp(sigma * self.stream.normal() - 0.5 * sigma * sigma);
        self.on = !self.on;
        self.hour = self.paces.end(self.on, self.hour, length);
    }

    /// The end of the stretch in microseconds since noon.
    fn end(&self) -> u64 {
        (libm::rint(self.hour * HOUR as f64) as u64).min(DAY)
    }
}

impl Diurnal {
    /// The days of a population by rhythms of charging, WiFi and idleness; virtual time begins at
    /// `start_hour` o'clock, UTC, in `[0, 24)`.
    #[must_use]
    pub fn new(seed: Seed, start_hour: f64, rhythms: [&Rhythm; 3]) -> Self {
        Self {
            seed,
            start: libm::rint(start_hour.clamp(0.0, 24.0) * HOUR as f64) as u64,
            signals: rhythms.map(Paces::new),
        }
    }

    /// The day of a client, counted from one that is before any moment, and the microseconds since
    /// its noon.
    fn day(&self, zone: i32, at: VirtualTime) -> (u64, u64) {
        // Zones are at most 14 hours away, so that two days keep the sum positive; and noon is half
        // a day later than midnight.
        let shift = 2 * DAY as i64 - 12 * HOUR as i64 + i64::from(zone) * (HOUR / 60) as i64;
        let local = u128::from(at.0) + u128::from(self.start) + shift.max(0) as u128;
        (
            (local / u128::from(DAY)) as u64,
            (local % u128::from(DAY)) as u64,
        )
    }

    fn walk(&self, client: ClientId, signal: Signal, day: u64) -> Walk<'_> {
        let index = signal as usize;
        let address = RoundId(STREAMS_OF_A_DAY * day + index as u64);
        let stream = Stream::at(Purpose::DeviceDay, self.seed, address, client);
        Walk::new(&self.signals[index], stream)
    }

    fn stretch(&self, life: &Life, signal: Signal, at: VirtualTime) -> Stretch {
        if signal == Signal::Wifi && !life.wifi {
            return Stretch {
                on: false,
                until: VirtualTime(u64::MAX),
            };
        }
        let (day, since) = self.day(life.zone, at);
        let mut walk = self.walk(life.client, signal, day);
        while walk.end() <= since {
            walk.step();
        }
        let on = walk.on;
        let mut end = walk.end();
        let mut span = end - since;
        for ahead in 1..=MOST_DAYS {
            if end < DAY {
                break;
            }
            let next = self.walk(life.client, signal, day + ahead);
            if next.on != on {
                break;
            }
            end = next.end();
            span += end;
        }
        Stretch {
            on,
            until: VirtualTime(at.0.saturating_add(span)),
        }
    }
}
