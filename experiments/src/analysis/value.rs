//! A value on an axis.

use std::fmt;

use serde::{Serialize, Serializer};

/// A value on an axis, as it is compared, ordered and shown.
#[derive(Clone, Debug)]
pub enum AxisValue {
    /// The key does not matter there: it is not set, or sets nothing.
    Absent,
    /// A number; infinite where privacy is without bound.
    Number(f64),
    /// A word, or a list or table as TOML writes it.
    Text(String),
}

impl AxisValue {
    /// A value of a configuration.
    #[must_use]
    pub fn of(value: &toml::Value) -> Self {
        match value {
            toml::Value::Integer(value) => Self::Number(*value as f64),
            toml::Value::Float(value) => Self::Number(*value),
            toml::Value::String(text) => Self::word(text),
            value => Self::Text(value.to_string()),
        }
    }

    /// A word; one that is a number (`inf`, too) is that number.
    #[must_use]
    pub fn word(text: &str) -> Self {
        match text.parse::<f64>() {
            Ok(number) if !number.is_nan() => Self::Number(number),
            _ => Self::Text(text.to_owned()),
        }
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        }
    }
}

/// Numbers are equal when [`f64::total_cmp`] says so.
impl PartialEq for AxisValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for AxisValue {}

impl PartialOrd for AxisValue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Absent, then numbers, then words.
impl Ord for AxisValue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl fmt::Display for AxisValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("-"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A finite number as a number, anything else as text; absent is null.
impl Serialize for AxisValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::Number(value) if value.is_finite() => serializer.serialize_f64(*value),
            other => serializer.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_an_order_and_a_text() {
        let values = [
            (AxisValue::Absent, "-", "null"),
            (AxisValue::Number(-1.0), "-1", "-1.0"),
            (AxisValue::word("0.5"), "0.5", "0.5"),
            (AxisValue::of(&toml::Value::Integer(4)), "4", "4.0"),
            (AxisValue::word("inf"), "inf", "\"inf\""),
            (
                AxisValue::of(&toml::Value::Boolean(true)),
                "true",
                "\"true\"",
            ),
            (AxisValue::word("fedavg"), "fedavg", "\"fedavg\""),
        ];
        for pair in values.windows(2) {
            assert!(pair[0].0 < pair[1].0 || pair[0].1 == "true", "{pair:?}");
        }
        for (value, text, json) in values {
            assert_eq!(value.to_string(), text);
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(value, value.clone());
        }
        // A word that is no number, though it begins like one.
        assert_eq!(AxisValue::word("nan"), AxisValue::Text("nan".to_owned()));
    }
}
