//! FedScale's recordings, which are pickles.
//!
//! Availability: `{client: {"duration": .., "inactive": [..], "finish_time": .., "active": [..],
//! "model": ..}}` in seconds. The client is available from `active[i]` to `inactive[i]`, and time is
//! taken modulo `finish_time` (`client_metadata.py`, `is_active`). Pairs that end before they begin make
//! nobody available, as there. An `active` without an `inactive` at the end lasts to the end.
//!
//! Capacity: `{client: {"computation": ms an example, "communication": kbit/s}}`.

use super::pickle::{Pickle, Value};
use super::{Capacity, MOST_SECONDS, SECOND, Trace, TraceError, joined};

/// A client's record and what errors need to say about it.
struct Record<'a> {
    file: &'a str,
    client: String,
    pickle: &'a Pickle<'a>,
    value: Value<'a>,
}

impl<'a> Record<'a> {
    fn fail(&self, what: &'static str, found: &str, expected: &'static str) -> TraceError {
        TraceError::Form {
            file: self.file.to_owned(),
            client: self.client.clone(),
            what,
            found: found.to_owned(),
            expected,
        }
    }

    fn get(&self, key: &'static str, expected: &'static str) -> Result<Value<'a>, TraceError> {
        let pairs = self.pickle.dict(self.value);
        let pairs = pairs.ok_or_else(|| {
            let expected = "a dict from names to values";
            self.fail("the record", self.value.name(), expected)
        })?;
        // The last of equal keys counts, as in Python.
        let found = pairs
            .iter()
            .rev()
            .find(|(name, _)| self.pickle.text(*name) == Some(key));
        match found {
            Some(&(_, value)) => Ok(value),
            None => Err(self.fail(key, "not there", expected)),
        }
    }

    /// A number above 0.
    fn positive(&self, key: &'static str) -> Result<f64, TraceError> {
        let expected = "a number above 0";
        let value = self.get(key, expected)?;
        let number = value.number();
        let number = number.filter(|number| *number > 0.0 && number.is_finite());
        number.ok_or_else(|| self.fail(key, &value.describe(), expected))
    }

    /// Microseconds of times in seconds.
    fn times(&self, key: &'static str) -> Result<Vec<u64>, TraceError> {
        let expected = "a list of times in seconds, from 0 to a hundred years";
        let value = self.get(key, expected)?;
        let items = self.pickle.list(value);
        let items = items.ok_or_else(|| self.fail(key, value.name(), expected))?;
        let microseconds = |value: &Value<'_>| {
            seconds(value.number()).ok_or_else(|| self.fail(key, &value.describe(), expected))
        };
        items.iter().map(microseconds).collect()
    }
}

/// Microseconds of a time in seconds.
fn seconds(number: Option<f64>) -> Option<u64> {
    let number = number.filter(|number| (0.0..=MOST_SECONDS as f64).contains(number))?;
    Some(libm::rint(number * SECOND as f64) as u64)
}

/// Calls `read` with every client's record, in the order of the file.
fn records<T>(
    file: &str,
    bytes: &[u8],
    read: impl Fn(&Record<'_>) -> Result<T, TraceError>,
) -> Result<Vec<T>, TraceError> {
    let pickle = Pickle::parse(bytes).map_err(|source| TraceError::Pickle {
        file: file.to_owned(),
        source,
    })?;
    let root = pickle.root();
    let clients = pickle.dict(root).ok_or_else(|| TraceError::NotADict {
        file: file.to_owned(),
        found: root.name(),
    })?;
    let each = clients.iter().map(|&(key, value)| {
        let client = match pickle.text(key) {
            Some(text) => text.chars().take(80).collect(),
            None => key.describe(),
        };
        read(&Record {
            file,
            client,
            pickle: &pickle,
            value,
        })
    });
    each.collect()
}

pub(super) fn capacities(file: &str, bytes: &[u8]) -> Result<Vec<Capacity>, TraceError> {
    records(file, bytes, |record| {
        Ok(Capacity {
            milliseconds: record.positive("computation")?,
            kilobits: record.positive("communication")?,
        })
    })
}

pub(super) fn traces(file: &str, bytes: &[u8]) -> Result<Vec<Trace>, TraceError> {
    records(file, bytes, |record| {
        let finish = record.positive("finish_time")?;
        let period = seconds(Some(finish)).filter(|period| *period > 0);
        let period = period.ok_or_else(|| {
            let expected = "seconds, above 0 and at most a hundred years";
            record.fail("finish_time", &finish.to_string(), expected)
        })?;
        let (active, mut inactive) = (record.times("active")?, record.times("inactive")?);
        if active.len() == inactive.len() + 1 {
            inactive.push(period);
        }
        if active.len() != inactive.len() {
            let found = format!("{} long", inactive.len());
            return Err(record.fail("inactive", &found, "as long as `active`"));
        }
        let available = joined(active.into_iter().zip(inactive).collect(), period);
        Ok(Trace {
            period,
            lead: 0,
            signals: [available.clone(), available.clone(), available],
        })
    })
}
