//! From a [`Node`] to a struct, through serde, without losing a place.
//!
//! Serde stops at the first fault. [`decode`] notes it with its place, masks the value at fault and
//! goes on, so all faults of a table are found in one pass over the file.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use fl_core::registry::{KindError, KindInfo};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer as _,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::diagnostic::{Diagnostic, Diagnostics, suggest};
use super::node::{Key, Node, Place, Table, Value};

/// Reads `node`, which lies at the dotted `path`, as a `T`. Faults are added to `errors`; a value
/// that comes in spite of them only serves to find more.
pub(crate) fn decode<T: DeserializeOwned>(
    node: &Node,
    path: &str,
    errors: &Diagnostics,
) -> Option<T> {
    decode_with(node, path, errors, &missing_key, |decoder| {
        T::deserialize(decoder)
    })
}

/// As [`decode`], for a type that is read by a function, which may be called several times;
/// `advice` says what to write for a missing key.
fn decode_with<T>(
    node: &Node,
    path: &str,
    errors: &Diagnostics,
    advice: &dyn Fn(&str) -> String,
    mut read: impl FnMut(Decoder<'_>) -> Result<T, Fault>,
) -> Option<T> {
    let masked = RefCell::new(BTreeSet::new());
    loop {
        let outcome = read(Decoder {
            node,
            path: path.to_owned(),
            masked: &masked,
            errors,
        });
        let fault = match outcome {
            Ok(value) => return Some(value),
            Err(fault) => *fault.0,
        };
        let at = fault.path.unwrap_or_else(|| path.to_owned());
        let missing = fault.missing.as_ref().map(|name| join(&at, name));
        if missing
            .as_ref()
            .is_some_and(|key| masked.borrow().contains(key))
        {
            return None;
        }
        let message = match (&fault.unknown, &missing) {
            (Some(name), _) if !at.ends_with(name.as_str()) => {
                format!("`{name}`: {}", fault.message)
            }
            (_, Some(key)) => advice(key),
            _ => fault.message,
        };
        errors.add(Diagnostic::new(
            fault.place.or_else(|| Some(node.place.clone())),
            missing.clone().unwrap_or_else(|| at.clone()),
            message,
        ));
        // A whole table at fault has nothing left to read.
        if missing.is_some() || at == path || !masked.borrow_mut().insert(at) {
            return None;
        }
    }
}

/// As [`decode`], for the `from_kind` of a registry; the kind is known to exist.
pub(crate) fn decode_registered<T>(
    node: &Node,
    path: &str,
    errors: &Diagnostics,
    kinds: &[KindInfo],
    kind: &str,
    mut read: impl FnMut(Decoder<'_>) -> Result<T, KindError<Fault>>,
) -> Option<T> {
    let keys = kinds.iter().find(|info| info.kind == kind);
    let missing = |key: &str| {
        let name = key.rsplit('.').next().unwrap_or(key);
        match keys.and_then(|info| info.keys.iter().find(|info| info.key == name)) {
            Some(info) if key != "selection.cohort" => {
                format!("missing; add {name} = ... ({})", info.expects)
            }
            _ => missing_key(key),
        }
    };
    decode_with(node, path, errors, &missing, |decoder| {
        read(decoder).map_err(|error| match error {
            KindError::Keys(fault) => fault,
            other => Fault::custom(other),
        })
    })
}

/// What to write for a key that is not there.
pub(crate) fn missing_key(key: &str) -> String {
    let examples = [
        ("name", "name = \"my-experiment\""),
        ("rounds", "rounds = 100"),
        ("dataset.name", "name = \"digits\""),
        ("local.batch", "batch = 10, or batch = \"full\""),
        ("local.learning_rate", "learning_rate = 0.1"),
        (
            "local.distillation.teacher",
            "teacher = { variant = \"teacher\" }, or the path of a model file",
        ),
        ("evaluation.calibration.kind", "kind = \"federated\""),
        ("local.schedule.decay", "decay = 0.99"),
        ("local.schedule.every", "every = 10"),
        ("local.schedule.length", "length = 100"),
        (
            "selection.cohort",
            "cohort = 10, or cohort = 0.1 for a tenth of the clients",
        ),
    ];
    let example = examples.iter().find(|(known, _)| *known == key);
    match example {
        Some((_, example)) => format!("missing; add for example {example}"),
        None => "missing; add it".to_owned(),
    }
}

/// `path.name`, or `name` at the top.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A table without its `kind`, and the `kind`. A plain string stands for a table of only that.
pub(crate) fn split_kind<'a>(
    node: &'a Node,
    tag: &str,
    path: &str,
    kinds: &[&str],
    errors: &Diagnostics,
) -> Option<(&'a str, Node)> {
    let (kind, rest) = match &node.value {
        Value::String(kind) => {
            let rest = Node {
                place: node.place.clone(),
                value: Value::Table(Table::default()),
            };
            (Some((kind.as_str(), node, path.to_owned())), rest)
        }
        Value::Table(table) => {
            let Some(kind) = table.get(tag) else {
                errors.add(Diagnostic::new(
                    Some(node.place.clone()),
                    join(path, tag),
                    format!("missing; add {tag} = one of {}", quoted(kinds)),
                ));
                return None;
            };
            let mut rest = node.clone();
            if let Some(table) = rest.table_mut() {
                table.remove(tag);
            }
            (kind.str().map(|name| (name, kind, join(path, tag))), rest)
        }
        _ => (None, node.clone()),
    };
    let Some((name, place, key)) = kind else {
        let at = node
            .table()
            .and_then(|table| table.get(tag))
            .unwrap_or(node);
        errors.add(Diagnostic::new(
            Some(at.place.clone()),
            if at.table().is_some() {
                path.to_owned()
            } else {
                join(path, tag)
            },
            format!("found {}, expected one of {}", at.describe(), quoted(kinds)),
        ));
        return None;
    };
    if !kinds.contains(&name) {
        errors.add(Diagnostic::new(
            Some(place.place.clone()),
            key,
            format!(
                "{name:?} is not known; {}",
                suggest(name, kinds.iter().copied())
            ),
        ));
        return None;
    }
    Some((name, rest))
}

fn quoted(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Why a value could not be read.
#[derive(Debug)]
pub(crate) struct Fault(Box<FaultParts>);

#[derive(Debug)]
struct FaultParts {
    place: Option<Place>,
    path: Option<String>,
    missing: Option<String>,
    unknown: Option<String>,
    message: String,
}

impl Fault {
    fn new(message: String) -> Self {
        Self(Box::new(FaultParts {
            place: None,
            path: None,
            missing: None,
            unknown: None,
            message,
        }))
    }

    /// Where the fault is, unless a value further inside said so already.
    fn at(mut self, place: &Place, path: &str) -> Self {
        if self.0.place.is_none() {
            self.0.place = Some(place.clone());
            self.0.path = Some(path.to_owned());
        }
        self
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!(
            "found {}, expected {}",
            found_in_words(found),
            expected_in_words(expected)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!(
            "found {length} values, expected {}",
            expected_in_words(expected)
        ))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!(
            "{found:?} is not known; {}",
            suggest(found, expected.iter().copied())
        ))
    }

    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Self {
        let mut fault = Self::new(format!(
            "unknown key; {}",
            suggest(found, expected.iter().copied())
        ));
        fault.0.unknown = Some(found.to_owned());
        fault
    }

    fn missing_field(name: &'static str) -> Self {
        let mut fault = Self::new("missing; add it".to_owned());
        fault.0.missing = Some(name.to_owned());
        fault
    }
}

fn found_in_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        // With its point, which tells 1000.0 from a whole number.
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(text) => format!("the string {text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// Serde's names of Rust types, in the words of somebody who writes TOML.
fn expected_in_words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let words = match text.as_str() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "a nonzero u64" | "a nonzero usize" => "a whole number of at least 1",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "path string" => "a path in quotes",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    words.to_owned()
}

/// Serde's view of a [`Node`].
pub(crate) struct Decoder<'a> {
    node: &'a Node,
    path: String,
    masked: &'a RefCell<BTreeSet<String>>,
    errors: &'a Diagnostics,
}

impl<'a> Decoder<'a> {
    fn inside(&self, node: &'a Node, name: &str) -> Self {
        Self {
            node,
            path: join(&self.path, name),
            masked: self.masked,
            errors: self.errors,
        }
    }

    fn is_masked(&self, name: &str) -> bool {
        self.masked.borrow().contains(&join(&self.path, name))
    }
}

impl<'de> serde::Deserializer<'de> for Decoder<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = &self.node.place;
        let path = self.path.clone();
        let read = match &self.node.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Datetime(text) => Err(Fault::new(format!(
                "found the date {text}, which no key takes; put a text in quotes"
            ))),
            Value::Array(items) => visitor.visit_seq(Items {
                decoder: &self,
                items: items.iter().enumerate(),
            }),
            Value::Table(table) => visitor.visit_map(Entries {
                decoder: &self,
                entries: table.entries.iter(),
                value: None,
                known: None,
            }),
        };
        read.map_err(|fault| fault.at(place, &path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (place, path) = (&self.node.place, self.path.clone());
        visitor
            .visit_newtype_struct(self)
            .map_err(|fault| fault.at(place, &path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Table(table) = &self.node.value else {
            return self.deserialize_any(visitor);
        };
        for (key, _) in &table.entries {
            if !fields.contains(&key.name.as_str()) {
                unknown_key(key, &self.path, fields.iter().copied(), self.errors);
            }
        }
        visitor
            .visit_map(Entries {
                decoder: &self,
                entries: table.entries.iter(),
                value: None,
                known: Some(fields),
            })
            .map_err(|fault| fault.at(&self.node.place, &self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (place, path) = (&self.node.place, self.path.clone());
        let read = match &self.node.value {
            Value::String(text) => {
                let name: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Table(table) if table.entries.len() == 1 => visitor.visit_enum(Tagged {
                decoder: &self,
                entry: &table.entries[0],
            }),
            _ => Err(Fault::new(format!(
                "found {}, expected one of {}",
                self.node.describe(),
                quoted(variants)
            ))),
        };
        read.map_err(|fault| fault.at(place, &path))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        true
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

/// Notes a key that a table does not have.
pub(crate) fn unknown_key<'a>(
    key: &Key,
    path: &str,
    known: impl IntoIterator<Item = &'a str>,
    errors: &Diagnostics,
) {
    errors.add(Diagnostic::new(
        Some(key.place.clone()),
        join(path, &key.name),
        if key.name.contains('.') {
            "unknown key; write the dotted key without quotes".to_owned()
        } else {
            format!("unknown key; {}", suggest(&key.name, known))
        },
    ));
}

struct Items<'a> {
    decoder: &'a Decoder<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        match self.items.next() {
            Some((index, node)) => seed
                .deserialize(self.decoder.inside(node, &index.to_string()))
                .map(Some),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a> {
    decoder: &'a Decoder<'a>,
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
    known: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        for (key, node) in self.entries.by_ref() {
            let unknown = self
                .known
                .is_some_and(|known| !known.contains(&key.name.as_str()));
            if unknown || self.decoder.is_masked(&key.name) {
                continue;
            }
            self.value = Some((key, node));
            let name: StrDeserializer<'_, Fault> = key.name.as_str().into_deserializer();
            return seed
                .deserialize(name)
                .map(Some)
                .map_err(|fault| fault.at(&key.place, &join(&self.decoder.path, &key.name)));
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, node)) = self.value.take() else {
            return Err(Fault::custom("a value was read before its key"));
        };
        let path = join(&self.decoder.path, &key.name);
        seed.deserialize(self.decoder.inside(node, &key.name))
            .map_err(|fault| fault.at(&node.place, &path))
    }
}

struct Tagged<'a> {
    decoder: &'a Decoder<'a>,
    entry: &'a (Key, Node),
}

impl<'de> EnumAccess<'de> for Tagged<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Fault> {
        let name: StrDeserializer<'_, Fault> = self.entry.0.name.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Tagged<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Err(Fault::custom(format!(
            "`{}` takes no value; write \"{}\"",
            self.entry.0.name, self.entry.0.name
        )))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.decoder.inside(&self.entry.1, &self.entry.0.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Fault> {
        serde::Deserializer::deserialize_any(
            self.decoder.inside(&self.entry.1, &self.entry.0.name),
            visitor,
        )
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        serde::Deserializer::deserialize_struct(
            self.decoder.inside(&self.entry.1, &self.entry.0.name),
            "",
            fields,
            visitor,
        )
    }
}
