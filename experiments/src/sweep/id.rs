//! What a cell is called: a hash of what decides its result.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of an id: 48 bits. Among 100,000 cells two are the same by chance with a
/// probability of 2e-5; such a sweep is refused.
const DIGITS: usize = 12;

/// A cell's id: the first 12 hexadecimal digits of the SHA-256 of its resolved configuration, without
/// the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellId(String);

/// A text that is no id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no id of a cell: {DIGITS} hexadecimal digits")]
pub struct NoCellId(String);

impl CellId {
    /// The id of a resolved configuration.
    #[must_use]
    pub fn of(config: &toml::Table) -> Self {
        let mut config = config.clone();
        config.remove("name");
        let hash = Sha256::digest(config.to_string().as_bytes());
        let mut text = crate::results::hex(&hash);
        text.truncate(DIGITS);
        Self(text)
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CellId {
    type Err = NoCellId;

    fn from_str(text: &str) -> Result<Self, NoCellId> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for CellId {
    type Error = NoCellId;

    fn try_from(text: String) -> Result<Self, NoCellId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == DIGITS && text.bytes().all(digit) {
            Ok(Self(text))
        } else {
            Err(NoCellId(text))
        }
    }
}

impl From<CellId> for String {
    fn from(id: CellId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_does_not_enter() {
        let table = |text: &str| -> toml::Table { toml::from_str(text).unwrap() };
        let first = CellId::of(&table("name = 'a'\nseed = 1\n"));
        assert_eq!(first, CellId::of(&table("name = 'b'\nseed = 1\n")));
        assert_ne!(first, CellId::of(&table("name = 'a'\nseed = 2\n")));
        // sha256sum of "seed = 1\n".
        assert_eq!(first.as_str(), "46545c629053");
    }

    #[test]
    fn an_id_is_checked() {
        assert!("0123456789ab".parse::<CellId>().is_ok());
        for text in [
            "",
            "0123456789a",
            "0123456789abc",
            "0123456789AB",
            "../../../../",
            "x123456789ab",
        ] {
            assert!(text.parse::<CellId>().is_err(), "{text}");
        }
    }
}
