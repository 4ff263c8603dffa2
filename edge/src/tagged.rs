//! Reading a table whose key `kind` says which type the other keys belong to.
//!
//! `#[serde(tag = "kind")]` first copies the whole table and so loses the place of an error.
//! Here only the keys that stand before `kind` are copied; the others are read in place, and an
//! error keeps its line.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};

/// A type chosen by `kind`.
pub(crate) trait FromKind<'de>: Sized {
    /// What is expected, for messages.
    const EXPECTING: &'static str;
    /// A key that stands for a kind when it comes without `kind`: `(key, kind)`.
    const IMPLIED: Option<(&'static str, &'static str)> = None;

    /// Reads the keys beside `kind`.
    fn from_kind<D: Deserializer<'de>>(kind: &str, rest: D) -> Result<Self, D::Error>;
}

/// Reads a table with `kind` at any place.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromKind<'de>,
    D: Deserializer<'de>,
{
    struct Table<T>(PhantomData<T>);
    impl<'de, T: FromKind<'de>> Visitor<'de> for Table<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::EXPECTING)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut before = Vec::new();
            let (kind, pending) = loop {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(de::Error::missing_field("kind"));
                };
                if key == "kind" {
                    break (map.next_value::<String>()?, None);
                }
                match T::IMPLIED {
                    Some((implied, kind)) if implied == key => {
                        break (kind.to_owned(), Some(implied));
                    }
                    _ => before.push((key, map.next_value::<Copied>()?)),
                }
            };
            let rest = Rest {
                before: before.into_iter(),
                value: None,
                pending,
                map,
            };
            T::from_kind(&kind, MapAccessDeserializer::new(rest))
        }
    }
    deserializer.deserialize_map(Table(PhantomData))
}

/// The keys before `kind`, then the others.
struct Rest<A> {
    before: alloc::vec::IntoIter<(String, Copied)>,
    value: Option<Copied>,
    pending: Option<&'static str>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        if let Some((key, value)) = self.before.next() {
            self.value = Some(value);
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        match self.pending.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(CopiedDeserializer(value, PhantomData)),
            None => self.map.next_value_seed(seed),
        }
    }
}

/// A value of any type that TOML or JSON has.
enum Copied {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Copied>),
    Table(Vec<(String, Copied)>),
}

impl<'de> de::Deserialize<'de> for Copied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Copied;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean, number, string, list or table")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Copied, E> {
                Ok(Copied::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Copied, E> {
                Ok(Copied::Integer(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Copied, E> {
                i64::try_from(value)
                    .map(Copied::Integer)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Copied, E> {
                Ok(Copied::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Copied, E> {
                Ok(Copied::Text(value.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Copied, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Copied::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Copied, A::Error> {
                let mut table = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    table.push(entry);
                }
                Ok(Copied::Table(table))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Gives a [`Copied`] value back.
struct CopiedDeserializer<E>(Copied, PhantomData<E>);

impl<'de, E: de::Error> IntoDeserializer<'de, E> for Copied {
    type Deserializer = CopiedDeserializer<E>;

    fn into_deserializer(self) -> CopiedDeserializer<E> {
        CopiedDeserializer(self, PhantomData)
    }
}

impl<'de, E: de::Error> Deserializer<'de> for CopiedDeserializer<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Copied::Bool(value) => visitor.visit_bool(value),
            Copied::Integer(value) => visitor.visit_i64(value),
            Copied::Float(value) => visitor.visit_f64(value),
            Copied::Text(value) => visitor.visit_string(value),
            Copied::List(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter())),
            Copied::Table(table) => visitor.visit_map(MapDeserializer::new(table.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        match self.0 {
            Copied::Text(value) => visitor.visit_enum(value.into_deserializer()),
            _ => Err(E::custom("expected a string")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
