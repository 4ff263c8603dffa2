//! Recordings: when real devices charged, had WiFi and were idle, and how fast they were.
//!
//! | source | gives | reader |
//! |---|---|---|
//! | FedScale (Lai et al. 2022, arXiv:2105.11367), `client_behave_trace` | when a client is available; all three signals at once | [`Traces::fedscale`] |
//! | FedScale, `client_device_capacity` | milliseconds an example and kilobits a second | [`Capacities::fedscale`] |
//! | FLASH (Yang et al. 2021, arXiv:2006.06983), `state_traces.json` | charging, WiFi, screen and lock | [`Traces::flash`] |
//!
//! A client has one of the recordings, drawn when its device is; a recording repeats after its end, as
//! in both programs. A recording's own times of day are kept: virtual time begins at its zero
//! (FedScale) or at midnight before its first message (FLASH), and time zones do not shift it.

mod fedscale;
mod flash;
pub mod pickle;

use std::sync::Arc;

use fl_core::VirtualTime;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::availability::{Signal, Stretch};
pub use pickle::PickleError;

/// Periods over which a stretch is followed.
const MOST_REPEATS: u32 = 8;
/// Microseconds of a second.
const SECOND: u64 = 1_000_000;
/// Longest recording in seconds: a hundred years.
const MOST_SECONDS: u64 = 100 * 366 * 24 * 3600;

/// Why a recording cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// It is no pickle of plain data.
    #[error("{file}: {source}")]
    Pickle {
        /// The file.
        file: String,
        /// What is wrong, and where.
        source: PickleError,
    },
    /// It is no JSON of this form.
    #[error("{file}: {message}; expected an object of clients, each with `model` and `messages`")]
    Json {
        /// The file.
        file: String,
        /// What the reader says.
        message: String,
    },
    /// It is not of the form that it should have.
    #[error("{file}: {what} of client {client} is {found}; expected {expected}")]
    Form {
        /// The file.
        file: String,
        /// The client.
        client: String,
        /// The part.
        what: &'static str,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// It is not of the form that it should have, as a whole.
    #[error("{file}: it holds {found}; expected a dict from clients to what was recorded of them")]
    NotADict {
        /// The file.
        file: String,
        /// What is there.
        found: &'static str,
    },
    /// There is nothing in it.
    #[error("{file}: there is no client in it; give a file with at least one")]
    Empty {
        /// The file.
        file: String,
    },
}

/// One recorded device: for each signal the stretches in which it holds, within one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Microseconds after which it repeats, above 0.
    period: u64,
    /// Microseconds from its beginning to the moment that virtual time begins with.
    lead: u64,
    /// Ascending stretches that do not touch, each with its end, in microseconds.
    signals: [Vec<(u64, u64)>; 3],
}

/// Recorded devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(Vec<Trace>);

/// How fast a recorded device is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Milliseconds for serving an example, above 0.
    pub milliseconds: f64,
    /// Kilobits a second, both ways, above 0.
    pub kilobits: f64,
}

/// Recorded capacities.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacities(Vec<Capacity>);

impl Capacity {
    /// Seconds for serving an example.
    #[must_use]
    pub fn seconds_an_example(&self) -> f64 {
        1e-3 * self.milliseconds
    }

    /// Bytes a second, both ways.
    #[must_use]
    pub fn bytes_a_second(&self) -> f64 {
        125.0 * self.kilobits
    }
}

/// Recordings and the digest of the file that they were read from. A configuration writes the digest
/// alone: it knows its recordings, and does not hold them.
#[derive(Debug)]
pub struct Recorded<T> {
    digest: String,
    items: Arc<T>,
}

impl<T> Recorded<T> {
    /// Reads the bytes of a file with one of the readers, such as [`Traces::flash`]; `file` is what
    /// errors call it.
    ///
    /// # Errors
    /// [`TraceError`] with the client and what is wrong with it.
    pub fn read(
        file: &str,
        bytes: &[u8],
        reader: impl FnOnce(&str, &[u8]) -> Result<T, TraceError>,
    ) -> Result<Self, TraceError> {
        let items = Arc::new(reader(file, bytes)?);
        let digest = Sha256::digest(bytes);
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { digest, items })
    }

    /// SHA-256 of the file, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The recordings.
    #[must_use]
    pub fn items(&self) -> &Arc<T> {
        &self.items
    }
}

impl<T> Clone for Recorded<T> {
    fn clone(&self) -> Self {
        Self {
            digest: self.digest.clone(),
            items: Arc::clone(&self.items),
        }
    }
}

/// Recordings of the same file are the same.
impl<T> PartialEq for Recorded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl<T> Serialize for Recorded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.digest.serialize(serializer)
    }
}

/// The item that a draw in `[0, 1)` falls on.
fn pick<T>(items: &[T], uniform: f64) -> &T {
    let index = (uniform * items.len() as f64) as usize;
    &items[index.min(items.len() - 1)]
}

impl Capacities {
    /// Reads FedScale's capacities: a pickled dict from clients to `computation` and `communication`.
    /// `file` is what errors call it.
    ///
    /// # Errors
    /// [`TraceError`] with the client and what is wrong with it.
    pub fn fedscale(file: &str, bytes: &[u8]) -> Result<Self, TraceError> {
        let list = fedscale::capacities(file, bytes)?;
        match list.is_empty() {
            true => Err(TraceError::Empty {
                file: file.to_owned(),
            }),
            false => Ok(Self(list)),
        }
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Capacity] {
        &self.0
    }

    /// The one that a draw in `[0, 1)` falls on.
    #[must_use]
    pub fn of(&self, uniform: f64) -> &Capacity {
        pick(&self.0, uniform)
    }
}

impl Traces {
    /// Reads FedScale's availability: a pickled dict from clients to `active`, `inactive` and
    /// `finish_time`. `file` is what errors call it.
    ///
    /// # Errors
    /// [`TraceError`] with the client and what is wrong with it.
    pub fn fedscale(file: &str, bytes: &[u8]) -> Result<Self, TraceError> {
        Self::new(file, fedscale::traces(file, bytes)?)
    }

    /// Reads FLASH's states: a JSON object from clients to `messages`. `file` is what errors call it.
    ///
    /// # Errors
    /// [`TraceError`] with the client and what is wrong with it.
    pub fn flash(file: &str, bytes: &[u8]) -> Result<Self, TraceError> {
        Self::new(file, flash::traces(file, bytes)?)
    }

    fn new(file: &str, list: Vec<Trace>) -> Result<Self, TraceError> {
        match list.is_empty() {
            true => Err(TraceError::Empty {
                file: file.to_owned(),
            }),
            false => Ok(Self(list)),
        }
    }

    /// All of them: in the order of the file for FedScale, in that of the clients' names for FLASH.
    #[must_use]
    pub fn all(&self) -> &[Trace] {
        &self.0
    }

    /// The one that a draw in `[0, 1)` falls on.
    #[must_use]
    pub fn of(&self, uniform: f64) -> &Trace {
        pick(&self.0, uniform)
    }
}

/// Stretches in order, those that touch or overlap joined, none beyond `period` and none empty.
fn joined(mut stretches: Vec<(u64, u64)>, period: u64) -> Vec<(u64, u64)> {
    stretches.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (start, end) in stretches {
        let end = end.min(period);
        if start >= end {
            continue;
        }
        match all.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => all.push((start, end)),
        }
    }
    all
}

impl Trace {
    /// Microseconds after which it repeats.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.period
    }

    /// The stretches of a period in which a signal holds, as microseconds from the recording's
    /// beginning; each ends before its second number.
    #[must_use]
    pub fn stretches(&self, signal: Signal) -> &[(u64, u64)] {
        &self.signals[signal as usize]
    }

    /// The stretch that a moment lies in, followed over a few periods at most.
    pub(super) fn stretch(&self, signal: Signal, at: VirtualTime) -> Stretch {
        let all = self.stretches(signal);
        let forever = |on| Stretch {
            on,
            until: VirtualTime(u64::MAX),
        };
        match all {
            [] => return forever(false),
            [(0, end)] if *end == self.period => return forever(true),
            _ => {}
        }
        let position = (u128::from(at.0) + u128::from(self.lead)) % u128::from(self.period);
        let mut position = position as u64;
        let mut until = at;
        let mut on = None;
        for _ in 0..MOST_REPEATS {
            let next = all.partition_point(|&(_, end)| end <= position);
            let (here, end) = match all.get(next) {
                Some(&(start, end)) if start <= position => (true, end),
                Some(&(start, _)) => (false, start),
                None => (false, self.period),
            };
            if on.is_some_and(|on| on != here) {
                break;
            }
            on = Some(here);
            until = VirtualTime(until.0.saturating_add(end - position));
            if end < self.period {
                break;
            }
            position = 0;
        }
        Stretch {
            on: on.unwrap_or(false),
            until,
        }
    }
}
