//! A configuration with all defaults written out, as TOML.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The value as TOML. Keys without a value are left out, and an `f32` keeps its short form
/// (0.1, not 0.10000000149011612).
pub(crate) fn to_toml<T: Serialize>(value: &T) -> Option<toml::Value> {
    let text = serde_json::to_string(value).ok()?;
    serde_json::from_str::<Plain>(&text).ok()?.0
}

/// JSON without its nulls.
struct Plain(Option<toml::Value>);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value that TOML has")
            }

            fn visit_unit<E>(self) -> Result<Plain, E> {
                Ok(Plain(None))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(Some(toml::Value::Boolean(value))))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(Some(toml::Value::Integer(value))))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
                let value = i64::try_from(value).map_err(E::custom)?;
                self.visit_i64(value)
            }

            fn visit_f64<E>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain(Some(toml::Value::Float(value))))
            }

            fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
                Ok(Plain(Some(toml::Value::String(value.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
                let mut list = Vec::new();
                while let Some(Plain(item)) = items.next_element()? {
                    list.extend(item);
                }
                Ok(Plain(Some(toml::Value::Array(list))))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Plain, A::Error> {
                let mut table = toml::Table::new();
                while let Some((key, Plain(value))) = entries.next_entry::<String, Plain>()? {
                    if let Some(value) = value {
                        table.insert(key, value);
                    }
                }
                Ok(Plain(Some(toml::Value::Table(table))))
            }
        }
        deserializer.deserialize_any(Read)
    }
}
