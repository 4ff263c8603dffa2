//! What a figure shows on its axes, and what tells its series apart.

use core::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::TABLES;
use crate::config::diagnostic::suggest;

/// A number that a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Rounds done.
    Rounds,
    /// Virtual time, in the unit that fits.
    Time,
    /// Virtual time in seconds.
    Seconds,
    /// Virtual time in hours.
    Hours,
    /// Bytes of models and updates, in both directions.
    Bytes,
    /// Joules of training on devices, modelled.
    Joules,
    /// The privacy loss spent; infinite without privacy.
    Epsilon,
    /// Test accuracy.
    Accuracy,
    /// The best test accuracy of all evaluations.
    BestAccuracy,
    /// Test accuracy of the model in int8.
    AccuracyInt8,
    /// Bytes of the patch from the int8 model evaluated before, as a share of the whole file.
    Patch,
    /// Test loss.
    Loss,
    /// Accuracy over the clients' training examples.
    TrainAccuracy,
    /// Loss over the clients' training examples; where it was not evaluated, as seen by the cohort.
    TrainLoss,
    /// Jain's index of fairness of the clients' accuracies.
    Jain,
    /// The mean accuracy of the worst tenth of the clients.
    WorstDecile,
    /// Rounds until the target accuracy.
    RoundsToTarget,
    /// Virtual time until the target accuracy.
    TimeToTarget,
    /// Bytes until the target accuracy.
    BytesToTarget,
    /// Joules until the target accuracy.
    JoulesToTarget,
    /// Privacy loss until the target accuracy.
    EpsilonToTarget,
}

impl Measure {
    /// Every measure with its name.
    pub const ALL: [(&'static str, Self); 21] = [
        ("rounds", Self::Rounds),
        ("time", Self::Time),
        ("seconds", Self::Seconds),
        ("hours", Self::Hours),
        ("bytes", Self::Bytes),
        ("joules", Self::Joules),
        ("epsilon", Self::Epsilon),
        ("accuracy", Self::Accuracy),
        ("best-accuracy", Self::BestAccuracy),
        ("accuracy-int8", Self::AccuracyInt8),
        ("patch", Self::Patch),
        ("loss", Self::Loss),
        ("train-accuracy", Self::TrainAccuracy),
        ("train-loss", Self::TrainLoss),
        ("jain", Self::Jain),
        ("worst-decile", Self::WorstDecile),
        ("rounds-to-target", Self::RoundsToTarget),
        ("time-to-target", Self::TimeToTarget),
        ("bytes-to-target", Self::BytesToTarget),
        ("joules-to-target", Self::JoulesToTarget),
        ("epsilon-to-target", Self::EpsilonToTarget),
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, measure)| *measure == self);
        found.map_or("", |(name, _)| name)
    }

    /// Whether it is known after every round or evaluation, and so can be drawn as a course.
    #[must_use]
    pub fn has_course(self) -> bool {
        !matches!(self, Self::BestAccuracy | Self::Jain | Self::WorstDecile) && !self.needs_target()
    }

    /// Whether it may stand on the horizontal axis of a course: what only grows.
    #[must_use]
    pub fn is_spent(self) -> bool {
        matches!(
            self,
            Self::Rounds
                | Self::Time
                | Self::Seconds
                | Self::Hours
                | Self::Bytes
                | Self::Joules
                | Self::Epsilon
        )
    }

    /// Whether it is about reaching a target accuracy.
    #[must_use]
    pub fn needs_target(self) -> bool {
        matches!(
            self,
            Self::RoundsToTarget
                | Self::TimeToTarget
                | Self::BytesToTarget
                | Self::JoulesToTarget
                | Self::EpsilonToTarget
        )
    }

    /// Whether more of it is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::Accuracy
                | Self::BestAccuracy
                | Self::AccuracyInt8
                | Self::TrainAccuracy
                | Self::Jain
                | Self::WorstDecile
        )
    }
}

/// What stands on an axis: a measure, or a key of the configuration by its dotted path, e.g.
/// `privacy.epsilon`; `variant` and `seed` are such keys, too, and so is an axis of named settings of
/// a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A number that a run has.
    Measure(Measure),
    /// A key, e.g. of a sweep.
    Key(String),
}

/// Keys of the configuration that are not in a table.
pub(super) const TOP: [&str; 3] = ["seed", "variant", "stop_at_accuracy"];

impl Quantity {
    /// As it is written.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Measure(measure) => measure.name(),
            Self::Key(key) => key,
        }
    }

    /// # Errors
    /// What is wrong with the text, and the nearest name.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, measure)) = Measure::ALL.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Measure(*measure));
        }
        if let Some((table, _)) = text.split_once('.') {
            return match TABLES.contains(&table) {
                true => Ok(Self::Key(text.to_owned())),
                false => Err(format!(
                    "{text:?} is no key of an experiment; there is no table [{table}]: {}",
                    suggest(table, TABLES.iter().copied())
                )),
            };
        }
        // Without a dot it may be an axis of named settings, which only who knows the runs can tell.
        Ok(Self::Key(text.to_owned()))
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a measure or the dotted path of a key, in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Measure::ALL.iter().map(|(name, _)| *name).collect();
        json_schema!({
            "type": "string",
            "anyOf": [{ "enum": names }, { "pattern": "^[a-z_0-9]+(\\.[a-z_0-9]+)*$" }],
        })
    }
}

/// Keys whose values tell series apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Group(pub Vec<String>);

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        fn key<E: serde::de::Error>(text: &str) -> Result<String, E> {
            match Quantity::parse(text) {
                Ok(Quantity::Key(key)) => Ok(key),
                Ok(Quantity::Measure(Measure::Rounds)) => Ok(text.to_owned()),
                Ok(Quantity::Measure(_)) => Err(E::custom(format_args!(
                    "{text:?} is a measure, expected keys of the configuration, e.g. \"strategy.kind\" or \"variant\""
                ))),
                Err(message) => Err(E::custom(message)),
            }
        }

        impl<'de> Visitor<'de> for Reader {
            type Value = Group;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key such as \"strategy.kind\", or a list of keys")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Group, E> {
                Ok(Group(vec![key(text)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Group, A::Error> {
                let mut keys = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    keys.push(key(&text)?);
                }
                Ok(Group(keys))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Group {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Group".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        })
    }
}
