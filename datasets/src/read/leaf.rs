//! LEAF's JSON: users, and for each user inputs `x` and labels `y`.
//!
//! Inputs are lists of numbers (nested ones are flattened), single numbers, or strings of one
//! length; labels are whole numbers, or single characters where inputs are strings. Characters
//! are those of [`LEAF_CHARACTERS`].
//!
//! # Source
//! Caldas et al. 2018 (arXiv:1812.01097) and the format of its repository: objects with the keys
//! `users`, `num_samples` and `user_data`; other keys are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::error::DatasetError;
use crate::read::text::LEAF_CHARACTERS;
use crate::read::{DAMAGED, malformed, shown};

/// One user's examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeafUser {
    /// Numbers, row-major; empty for text.
    pub numbers: Vec<f32>,
    /// Tokens, row-major; empty for numbers.
    pub tokens: Vec<u8>,
    /// Numbers or tokens in one example.
    pub width: usize,
    /// One label an example: a class, or a token.
    pub labels: Vec<u32>,
}

/// Users and their examples, in the order of the file's `users`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeafData {
    /// Each user's name and examples.
    pub users: Vec<(String, LeafUser)>,
}

#[derive(Deserialize)]
struct RawFile {
    users: Vec<String>,
    num_samples: Option<Vec<u64>>,
    user_data: BTreeMap<String, RawUser>,
}

#[derive(Deserialize)]
struct RawUser {
    x: Vec<RawInput>,
    y: Vec<RawLabel>,
}

enum RawInput {
    Numbers(Vec<f32>),
    Text(String),
}

enum RawLabel {
    Number(f64),
    Text(String),
}

/// Appends numbers, however deeply they are nested.
struct Flat<'a>(&'a mut Vec<f32>);

impl<'de> serde::de::DeserializeSeed<'de> for Flat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let value = value as f32;
        if !value.is_finite() {
            return Err(E::custom("a number too large for 32 bits"));
        }
        self.0.push(value);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Flat(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> Deserialize<'de> for RawInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Input;
        impl<'de> Visitor<'de> for Input {
            type Value = RawInput;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a number, a list of numbers or a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawInput, E> {
                Ok(RawInput::Text(text.to_owned()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<RawInput, E> {
                let mut numbers = Vec::with_capacity(1);
                Flat(&mut numbers).visit_f64(value)?;
                Ok(RawInput::Numbers(numbers))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<RawInput, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<RawInput, E> {
                self.visit_f64(value as f64)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<RawInput, A::Error> {
                let mut numbers = Vec::new();
                Flat(&mut numbers).visit_seq(items)?;
                Ok(RawInput::Numbers(numbers))
            }
        }
        deserializer.deserialize_any(Input)
    }
}

impl<'de> Deserialize<'de> for RawLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Label;
        impl Visitor<'_> for Label {
            type Value = RawLabel;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a whole number or a character")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawLabel, E> {
                Ok(RawLabel::Text(text.to_owned()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<RawLabel, E> {
                Ok(RawLabel::Number(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<RawLabel, E> {
                u32::try_from(value)
                    .map(|value| RawLabel::Number(f64::from(value)))
                    .map_err(|_| E::custom("a label outside 0 .. 2^32"))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<RawLabel, E> {
                u32::try_from(value)
                    .map(|value| RawLabel::Number(f64::from(value)))
                    .map_err(|_| E::custom("a label outside 0 .. 2^32"))
            }
        }
        deserializer.deserialize_any(Label)
    }
}

impl LeafData {
    /// Reads one file.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] when it is no such JSON, `users`, `num_samples` and
    /// `user_data` disagree, or examples differ in width or kind.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, DatasetError> {
        let raw: RawFile = serde_json::from_slice(bytes).map_err(|error| {
            malformed(
                file,
                format!("line {}, column {}", error.line(), error.column()),
                error.to_string(),
                "LEAF's JSON: `users`, `num_samples`, `user_data`",
                DAMAGED,
            )
        })?;
        let RawFile {
            users,
            num_samples,
            mut user_data,
        } = raw;
        if let Some(counts) = &num_samples
            && counts.len() != users.len()
        {
            return Err(malformed(
                file,
                "num_samples",
                format!("{} counts", counts.len()),
                format!("{}, one for each of `users`", users.len()),
                DAMAGED,
            ));
        }
        let mut data = Self::default();
        for (at, name) in users.into_iter().enumerate() {
            let Some(raw) = user_data.remove(&name) else {
                return Err(malformed(
                    file,
                    "user_data",
                    format!("nothing for user {}", shown(&name)),
                    "an entry for each of `users`, once",
                    DAMAGED,
                ));
            };
            let promised = num_samples.as_ref().map(|counts| counts[at]);
            let user = user(file, &name, raw, promised)?;
            data.users.push((name, user));
        }
        if let Some(name) = user_data.keys().next() {
            return Err(malformed(
                file,
                "user_data",
                format!("user {}", shown(name)),
                "only those of `users`",
                DAMAGED,
            ));
        }
        Ok(data)
    }
}

/// One user's examples, checked.
fn user(
    file: &str,
    name: &str,
    raw: RawUser,
    promised: Option<u64>,
) -> Result<LeafUser, DatasetError> {
    let place = |row: usize| format!("user {}, example {row}", shown(name));
    let count = raw.x.len();
    if raw.y.len() != count || promised.is_some_and(|promised| promised != count as u64) {
        return Err(malformed(
            file,
            format!("user {}", shown(name)),
            format!(
                "{count} of `x`, {} of `y`, {} in `num_samples`",
                raw.y.len(),
                promised.unwrap_or(count as u64)
            ),
            "one number of examples",
            DAMAGED,
        ));
    }
    let mut user = LeafUser::default();
    for (row, input) in raw.x.into_iter().enumerate() {
        let width = match input {
            RawInput::Numbers(numbers) if user.tokens.is_empty() => {
                user.numbers.extend_from_slice(&numbers);
                numbers.len()
            }
            RawInput::Text(text) if user.numbers.is_empty() => {
                let before = user.tokens.len();
                for character in text.chars() {
                    user.tokens.push(token(file, &place(row), character)?);
                }
                user.tokens.len() - before
            }
            RawInput::Numbers(_) | RawInput::Text(_) => {
                return Err(malformed(
                    file,
                    place(row),
                    "numbers beside text",
                    "examples of one kind",
                    DAMAGED,
                ));
            }
        };
        if row == 0 {
            user.width = width;
        }
        if width != user.width || width == 0 {
            return Err(malformed(
                file,
                place(row),
                format!("{width} values"),
                format!("{}, as in the first example", user.width.max(1)),
                "every example must have the same size",
            ));
        }
    }
    for (row, label) in raw.y.into_iter().enumerate() {
        let mut characters = match &label {
            RawLabel::Text(text) => text.chars(),
            RawLabel::Number(_) => "".chars(),
        };
        let label = match (&label, characters.next(), characters.next()) {
            (RawLabel::Text(_), Some(character), None) => {
                u32::from(token(file, &place(row), character)?)
            }
            (&RawLabel::Number(value), ..)
                if value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0 =>
            {
                value as u32
            }
            (RawLabel::Number(value), ..) => {
                return Err(malformed(
                    file,
                    place(row),
                    format!("label {value}"),
                    "a whole number from 0 on",
                    DAMAGED,
                ));
            }
            (RawLabel::Text(text), ..) => {
                return Err(malformed(
                    file,
                    place(row),
                    format!("label {}", shown(text)),
                    "one character",
                    DAMAGED,
                ));
            }
        };
        user.labels.push(label);
    }
    Ok(user)
}

fn token(file: &str, place: &str, character: char) -> Result<u8, DatasetError> {
    LEAF_CHARACTERS
        .chars()
        .position(|known| known == character)
        .map(|token| token as u8)
        .ok_or_else(|| {
            malformed(
                file,
                place,
                format!("character {}", shown(&character.to_string())),
                "one of LEAF's 80 characters",
                "convert the text as LEAF does",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_are_read() {
        let json = br#"{"users":["b","a"],"num_samples":[2,1],"hierarchies":["x"],
            "user_data":{"a":{"x":[[1,[2,3.5]]],"y":[4]},"b":{"x":[[0,0,0],[1,1,1]],"y":[0,1.0]}}}"#;
        let data = LeafData::parse("f", json).unwrap();
        assert_eq!(data.users[0].0, "b");
        assert_eq!(data.users[0].1.labels, [0, 1]);
        assert_eq!(data.users[1].1.numbers, [1.0, 2.0, 3.5]);
        let json =
            br#"{"users":["u"],"num_samples":[1],"user_data":{"u":{"x":["a\n"],"y":["b"]}}}"#;
        let user = &LeafData::parse("f", json).unwrap().users[0].1;
        assert_eq!((&user.tokens[..], user.width), (&[53, 0][..], 2));
        assert_eq!(user.labels, [54]);
    }

    #[test]
    fn faults_are_named() {
        let cases = [
            (r#"{"users":["#, "f, line 1, column 10: found EOF"),
            (
                r#"{"users":["a"],"num_samples":[1],"user_data":{}}"#,
                "f, user_data: found nothing for user `a`",
            ),
            (
                r#"{"users":[],"num_samples":[],"user_data":{"a":{"x":[],"y":[]}}}"#,
                "f, user_data: found user `a`, expected only those",
            ),
            (
                r#"{"users":["a"],"num_samples":[2],"user_data":{"a":{"x":[[1]],"y":[0]}}}"#,
                "f, user `a`: found 1 of `x`, 1 of `y`, 2 in `num_samples`",
            ),
            (
                r#"{"users":["a"],"num_samples":[2],"user_data":{"a":{"x":[[1],[1,2]],"y":[0,1]}}}"#,
                "f, user `a`, example 1: found 2 values, expected 1",
            ),
            (
                r#"{"users":["a"],"num_samples":[1],"user_data":{"a":{"x":[[1]],"y":[0.5]}}}"#,
                "f, user `a`, example 0: found label 0.5",
            ),
            (
                r#"{"users":["a"],"num_samples":[1],"user_data":{"a":{"x":["~"],"y":["a"]}}}"#,
                "f, user `a`, example 0: found character `~`",
            ),
            (
                r#"{"users":["a"],"num_samples":[1],"user_data":{"a":{"x":[[1e300]],"y":[0]}}}"#,
                "f, line 1",
            ),
        ];
        for (json, expected) in cases {
            let message = LeafData::parse("f", json.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        let json = br#"{"users":["u"],"num_samples":[1],"user_data":{"u":{"x":[[1,2]],"y":[3]}}}"#;
        for length in 0..json.len() {
            assert!(
                LeafData::parse("f", &json[..length]).is_err(),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let json =
            br#"{"users":["u"],"num_samples":[1],"user_data":{"u":{"x":[[1,2e1]],"y":[3]}}}"#;
        for bit in 0..json.len() * 8 {
            let mut bytes = json.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = LeafData::parse("f", &bytes);
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let json = format!(
            r#"{{"users":["u"],"num_samples":[1],"user_data":{{"u":{{"x":[{}1{}],"y":[3]}}}}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(LeafData::parse("f", json.as_bytes()).is_err());
    }
}
