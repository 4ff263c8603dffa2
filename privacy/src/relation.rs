//! Which data sets are neighbours, and what one of their members is.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::PrivacyError;

/// Which pairs of data sets must be hard to tell apart.
///
/// The sensitivity of a clipped sum depends on it: with clipping norm `C` it is `C` for
/// [`Self::AddOrRemoveOne`] and [`Self::ReplaceSpecial`], and `2C` for [`Self::ReplaceOne`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighboringRelation {
    /// One has one member more than the other.
    AddOrRemoveOne,
    /// One member differs; both have the same size.
    ReplaceOne,
    /// One member is replaced by a special one that contributes nothing; both have the same size.
    ReplaceSpecial,
}

impl NeighboringRelation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AddOrRemoveOne, Self::ReplaceOne, Self::ReplaceSpecial];

    /// Its name, as serialised.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AddOrRemoveOne => "add-or-remove-one",
            Self::ReplaceOne => "replace-one",
            Self::ReplaceSpecial => "replace-special",
        }
    }
}

impl fmt::Display for NeighboringRelation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for NeighboringRelation {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        Self::ALL
            .into_iter()
            .find(|relation| relation.name() == text)
            .ok_or_else(|| PrivacyError::UnknownName {
                what: "neighbouring relation",
                given: text.to_owned(),
                known: "`add-or-remove-one`, `replace-one`, `replace-special`",
            })
    }
}

/// Whose presence is protected: what one member of a data set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrivacyUnit {
    /// One training example.
    Example,
    /// One client with all of its examples.
    Client,
}

impl PrivacyUnit {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Example, Self::Client];

    /// Its name, as serialised.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Example => "example",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for PrivacyUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PrivacyUnit {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.name() == text)
            .ok_or_else(|| PrivacyError::UnknownName {
                what: "privacy unit",
                given: text.to_owned(),
                known: "`example`, `client`",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_serialisation() {
        for relation in NeighboringRelation::ALL {
            let json = serde_json::to_string(&relation).unwrap();
            assert_eq!(json, format!("\"{relation}\""));
            assert_eq!(relation.name().parse::<NeighboringRelation>(), Ok(relation));
        }
        for unit in PrivacyUnit::ALL {
            assert_eq!(serde_json::to_string(&unit).unwrap(), format!("\"{unit}\""));
            assert_eq!(unit.name().parse::<PrivacyUnit>(), Ok(unit));
        }
        assert!("replace".parse::<NeighboringRelation>().is_err());
    }
}
