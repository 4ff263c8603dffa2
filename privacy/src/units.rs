//! The numbers of a privacy statement as types that are checked once.

use core::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::PrivacyError;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, |$value:ident| $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
        pub struct $name(f64);

        impl $name {
            /// The value, checked.
            ///
            /// # Errors
            #[doc = concat!("[`PrivacyError::OutOfRange`] unless it is ", $expected, ".")]
            pub fn new($value: f64) -> Result<Self, PrivacyError> {
                PrivacyError::unless($fits, $what, $value, $expected)?;
                // `+ 0.0` turns a negative zero into zero, so that equal values print alike.
                Ok(Self($value + 0.0))
            }

            /// The number.
            #[must_use]
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl TryFrom<f64> for $name {
            type Error = PrivacyError;

            fn try_from(value: f64) -> Result<Self, PrivacyError> {
                Self::new(value)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // JSON has no infinity.
                if self.0.is_finite() {
                    serializer.serialize_f64(self.0)
                } else {
                    serializer.serialize_str("inf")
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = deserializer.deserialize_any(Number)?;
                Self::new(value).map_err(de::Error::custom)
            }
        }
    };
}

unit! {
    /// The privacy loss `epsilon`: at least 0; infinite where there is no privacy.
    ///
    /// Serialised as a number, or as the text `inf`.
    Epsilon, "epsilon", "a number that is at least 0, or infinity", |value| value >= 0.0
}

unit! {
    /// The probability `delta`: from 0 to 1.
    ///
    /// A meaningful one is well below one over the number of protected units.
    Delta, "delta", "a number from 0 to 1", |value| (0.0..=1.0).contains(&value)
}

unit! {
    /// Standard deviation (of Laplace noise: scale) of the noise, divided by the sensitivity of
    /// what it is added to; finite and at least 0, where 0 is no noise.
    NoiseMultiplier, "noise_multiplier", "a finite number that is at least 0",
    |value| value >= 0.0 && value.is_finite()
}

impl Epsilon {
    /// No privacy loss.
    pub const ZERO: Self = Self(0.0);
    /// No privacy.
    pub const INFINITY: Self = Self(f64::INFINITY);
}

impl Delta {
    /// Never.
    pub const ZERO: Self = Self(0.0);
    /// Always.
    pub const ONE: Self = Self(1.0);
}

struct Number;

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or the text `inf`")
    }

    fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<f64, E> {
        if value == "inf" {
            Ok(f64::INFINITY)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(value), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_by_both_doors() {
        for (text, fits) in [
            ("0", true),
            ("1.5", true),
            ("\"inf\"", true),
            ("-1e-300", false),
            ("\"1\"", false),
            ("null", false),
        ] {
            assert_eq!(
                serde_json::from_str::<Epsilon>(text).is_ok(),
                fits,
                "{text}"
            );
        }
        for (value, fits) in [(0.0, true), (1.0, true), (1.1, false), (f64::NAN, false)] {
            assert_eq!(Delta::new(value).is_ok(), fits, "{value}");
        }
        for (value, fits) in [(0.0, true), (f64::INFINITY, false), (f64::NAN, false)] {
            assert_eq!(NoiseMultiplier::new(value).is_ok(), fits, "{value}");
        }
    }

    #[test]
    fn serialisation_returns() {
        for value in [0.0, 0.1, 1e-300, 1.0 / 3.0, f64::INFINITY] {
            let epsilon = Epsilon::new(value).unwrap();
            let text = serde_json::to_string(&epsilon).unwrap();
            assert_eq!(serde_json::from_str::<Epsilon>(&text).unwrap(), epsilon);
        }
    }

    #[test]
    fn a_refusal_says_what_is_expected() {
        assert_eq!(
            Delta::new(2.0).unwrap_err().to_string(),
            "delta is 2; expected a number from 0 to 1"
        );
    }
}
