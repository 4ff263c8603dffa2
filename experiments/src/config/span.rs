//! Spans of virtual time, as people write them: `"90 s"`, `"10 min"`, `"1.5 h"`, `"2 d"`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Seconds, finite.
    pub seconds: f64,
}

/// Units and their seconds, the longest first.
const UNITS: [(&str, f64); 5] = [
    ("d", 86_400.0),
    ("h", 3600.0),
    ("min", 60.0),
    ("s", 1.0),
    ("ms", 1e-3),
];

const EXPECTED: &str =
    "a span of time: a number and d, h, min, s or ms, such as \"10 min\" or \"90 s\"";

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unit = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E')?;
        let (number, unit) = text.split_at(unit);
        let number: f64 = number.trim().parse().ok()?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let seconds = number * seconds;
        seconds.is_finite().then_some(Self { seconds })
    }
}

impl fmt::Display for Span {
    /// In the longest unit of which it is a whole number, else in seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |seconds: f64| {
            let amount = self.seconds / seconds;
            let back = amount * seconds;
            amount >= 1.0 && amount.fract() == 0.0 && back.to_bits() == self.seconds.to_bits()
        };
        let unit = UNITS
            .into_iter()
            .take(4)
            .find(|&(_, seconds)| whole(seconds));
        let (name, seconds) = unit.unwrap_or(("s", 1.0));
        write!(f, "{} {name}", self.seconds / seconds)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text)
                    .ok_or_else(|| E::custom(format_args!("found {text:?}, expected {EXPECTED}")))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^\\s*[0-9.eE+-]+\\s*(d|h|min|s|ms)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let cases = [
            ("90 s", 90.0, "90 s"),
            ("10 min", 600.0, "10 min"),
            ("1.5h", 5400.0, "90 min"),
            (" 2 d", 172_800.0, "2 d"),
            ("250 ms", 0.25, "0.25 s"),
            ("0 s", 0.0, "0 s"),
            ("-1 s", -1.0, "-1 s"),
            ("61 min", 3660.0, "61 min"),
        ];
        for (text, seconds, written) in cases {
            let span = Span::parse(text).unwrap();
            assert!((span.seconds - seconds).abs() < 1e-12, "{text}");
            assert_eq!(span.to_string(), written);
            assert_eq!(Span::parse(written), Some(span));
        }
        for text in ["", "10", "min", "10 minutes", "ten s", "1e999 s", "10 m"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
