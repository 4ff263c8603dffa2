//! FLASH's recordings of states, which are JSON.
//!
//! `{"client": {"model": "..", "messages": "2020-01-29 08:15:00\tscreen_on\n.."}}`: lines of a local
//! time and a state, after which the state lasts until another one of its kind. Kinds are
//! `battery_charged_on`/`_off`; `wifi` and `2g` to `5g` or `unknown`; `screen_on`/`_off`;
//! `screen_lock`/`screen_unlock`; and `N%`, the battery's level, which is not used here, like
//! `battery_low`, `battery_okay`, `phone_on` and `phone_off`. A device is idle while its screen is off
//! or locked (FLASH's `device_util` takes locked alone, with the note that one may choose). Before its
//! first message a signal does not hold. Time is taken modulo the time from the first message to the
//! last, as there.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::availability::Signal;
use super::{MOST_SECONDS, SECOND, Trace, TraceError, joined};

const TIME: &str = "YYYY-MM-DD HH:MM:SS, a tab and a state";
const STATE: &str = "battery_charged_on or _off, wifi, 2g to 5g, unknown, screen_on, _off, _lock or \
                     _unlock, or a level such as 57%";
const DAY_SECONDS: i64 = 24 * 3600;

#[derive(Deserialize)]
struct Record {
    messages: Messages,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Messages {
    Text(String),
    Lines(Vec<String>),
}

/// What a message changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Charging(bool),
    Wifi(bool),
    Off(bool),
    Locked(bool),
    Nothing,
}

/// What holds between two messages.
#[derive(Default)]
struct State {
    charging: bool,
    wifi: bool,
    off: bool,
    locked: bool,
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Charging(on) => self.charging = on,
            Change::Wifi(on) => self.wifi = on,
            Change::Off(on) => self.off = on,
            Change::Locked(on) => self.locked = on,
            Change::Nothing => {}
        }
    }

    fn of(&self, signal: Signal) -> bool {
        match signal {
            Signal::Charging => self.charging,
            Signal::Wifi => self.wifi,
            Signal::Idle => self.off || self.locked,
        }
    }
}

fn change(state: &str) -> Option<Change> {
    Some(match state.to_ascii_lowercase().as_str() {
        "battery_charged_on" => Change::Charging(true),
        "battery_charged_off" => Change::Charging(false),
        "wifi" => Change::Wifi(true),
        "2g" | "3g" | "4g" | "5g" | "unknown" => Change::Wifi(false),
        "screen_on" => Change::Off(false),
        "screen_off" => Change::Off(true),
        "screen_lock" => Change::Locked(true),
        "screen_unlock" => Change::Locked(false),
        "battery_low" | "battery_okay" | "phone_on" | "phone_off" => Change::Nothing,
        other => {
            let level: f64 = other.strip_suffix('%')?.parse().ok()?;
            return (0.0..=100.0).contains(&level).then_some(Change::Nothing);
        }
    })
}

/// Seconds since 1970-01-01 of a time such as `2020-01-29 08:15:00`.
fn moment(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ')?;
    let number = |text: &str, range: core::ops::RangeInclusive<i64>| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = digits.then(|| text.parse().ok())??;
        range.contains(&number).then_some(number)
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 1970..=9999)?;
    let month = number(parts.next()?, 1..=12)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = number(parts.next()?, 1..=days)?;
    let mut clock = time.split(':');
    let hour = number(clock.next()?, 0..=23)?;
    let minute = number(clock.next()?, 0..=59)?;
    let second = number(clock.next()?, 0..=59)?;
    if parts.next().is_some() || clock.next().is_some() {
        return None;
    }
    // Days of the years before, and of the months before in a year that begins with March.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // The first of March of the year 0 is 719,468 days before 1970.
    Some((days - 719_468) * DAY_SECONDS + 3600 * hour + 60 * minute + second)
}

pub(super) fn traces(file: &str, bytes: &[u8]) -> Result<Vec<Trace>, TraceError> {
    let records: BTreeMap<String, Record> =
        serde_json::from_slice(bytes).map_err(|error| TraceError::Json {
            file: file.to_owned(),
            message: error.to_string(),
        })?;
    let records = records.iter();
    records
        .map(|(client, record)| trace(file, client, record))
        .collect()
}

fn trace(file: &str, client: &str, record: &Record) -> Result<Trace, TraceError> {
    let fail = |what, found: &str, expected| TraceError::Form {
        file: file.to_owned(),
        client: client.chars().take(80).collect(),
        what,
        found: format!("{:?}", found.chars().take(80).collect::<String>()),
        expected,
    };
    let mut messages = Vec::new();
    let lines: Vec<&str> = match &record.messages {
        Messages::Text(text) => text.lines().collect(),
        Messages::Lines(lines) => lines.iter().flat_map(|line| line.lines()).collect(),
    };
    for line in lines.into_iter().filter(|line| !line.trim().is_empty()) {
        let (time, state) = line
            .trim()
            .split_once('\t')
            .ok_or_else(|| fail("a message", line, TIME))?;
        let time = moment(time.trim()).ok_or_else(|| fail("the time of a message", time, TIME))?;
        let state = state.trim();
        let change = change(state).ok_or_else(|| fail("a state", state, STATE))?;
        messages.push((time, change));
    }
    // Messages of one second keep their order.
    messages.sort_by_key(|&(time, _)| time);
    let (Some(&(first, _)), Some(&(last, _))) = (messages.first(), messages.last()) else {
        return Err(fail(
            "the list of messages",
            "",
            "at least two messages of different times",
        ));
    };
    let seconds = (last - first).unsigned_abs();
    if seconds == 0 || seconds > MOST_SECONDS {
        let expected = "above 0 and at most a hundred years";
        return Err(fail(
            "the time from the first to the last message",
            &format!("{seconds} s"),
            expected,
        ));
    }
    let period = seconds * SECOND;
    let mut state = State::default();
    let mut signals: [Vec<(u64, u64)>; 3] = Default::default();
    let mut messages = messages.into_iter().peekable();
    while let Some((time, change)) = messages.next() {
        state.apply(change);
        let until = messages.peek().map_or(last, |&(next, _)| next);
        if until > time {
            let at = |time: i64| (time - first).unsigned_abs() * SECOND;
            for signal in Signal::ALL {
                if state.of(signal) {
                    signals[signal as usize].push((at(time), at(until)));
                }
            }
        }
    }
    // Virtual time begins at the midnight before the first message, which is the period's end less the
    // time since.
    let since = (first % DAY_SECONDS).unsigned_abs() * SECOND % period;
    Ok(Trace {
        period,
        lead: (period - since) % period,
        signals: signals.map(|stretches| joined(stretches, period)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        // Python: calendar.timegm(time.strptime(.., "%Y-%m-%d %H:%M:%S"))
        for (text, expected) in [
            ("1970-01-01 00:00:00", 0),
            ("2000-02-29 12:00:00", 951_825_600),
            ("2020-01-29 08:15:00", 1_580_285_700),
            ("2020-03-01 00:00:00", 1_583_020_800),
            ("2100-03-01 00:00:00", 4_107_542_400),
            ("9999-12-31 23:59:59", 253_402_300_799),
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2020-01-29",
            "2020-02-30 00:00:00",
            "2021-02-29 00:00:00",
            "2100-02-29 00:00:00",
            "2020-13-01 00:00:00",
            "2020-01-29 24:00:00",
            "2020-01-29 00:60:00",
            "2020-01-29 0:0:0:0",
            "2020-01-29-1 00:00:00",
            "2020-01-+9 00:00:00",
            "20200-01-29 00:00:00",
            "1969-12-31 00:00:00",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
