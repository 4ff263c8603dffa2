//! The registry: a strategy, selector, partitioner or model is one new file plus one line.
//!
//! [`registry!`](crate::registry!) takes the list of a family's entries and writes the enum of
//! their configurations (read and written by `kind`), the enum of their values, the table of kinds
//! and keys for error messages and documents, and a test per entry that runs the family's
//! conformance suite on it.
//!
//! A file describes its entry by implementing [`Registered`]: a plain configuration struct
//! (`Deserialize`, `deny_unknown_fields`), a table of its keys (checked against serde's field list
//! by the generated test) and a constructor that refuses values out of range.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{Debug, Display, Write as _};

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};

/// One key of a configuration table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key as it is written in TOML.
    pub key: &'static str,
    /// Type and range in words, e.g. `number, at least 0`.
    pub expects: &'static str,
    /// The value when the key is absent; `None` when it must be given.
    pub default: Option<&'static str>,
    /// What it does, one line.
    pub summary: &'static str,
}

/// One entry of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindInfo {
    /// The value of `kind` in TOML.
    pub kind: &'static str,
    /// What it is, one line.
    pub summary: &'static str,
    /// Its keys beside `kind`.
    pub keys: &'static [KeyInfo],
}

/// A value that no entry takes. The caller adds file and line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}; expected {expected}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// The value as written.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl ConfigError {
    /// A refusal of `value`.
    pub fn new(key: &'static str, value: impl Display, expected: &'static str) -> Self {
        Self {
            key,
            value: value.to_string(),
            expected,
        }
    }

    /// `Ok` when `fits`.
    ///
    /// # Errors
    /// A refusal of `value` otherwise.
    pub fn unless(
        fits: bool,
        key: &'static str,
        value: impl Display,
        expected: &'static str,
    ) -> Result<(), Self> {
        if fits {
            Ok(())
        } else {
            Err(Self::new(key, value, expected))
        }
    }
}

/// Why a table of a family was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KindError<E: Debug + Display> {
    /// No entry has this name.
    #[error("unknown {family} `{given}`; known are {}", list(.known))]
    Unknown {
        /// The family, e.g. `strategy`.
        family: &'static str,
        /// What was given.
        given: String,
        /// The family's entries.
        known: &'static [KindInfo],
    },
    /// The keys are not the entry's.
    #[error("{0}")]
    Keys(E),
}

fn list(kinds: &[KindInfo]) -> String {
    let names: Vec<_> = kinds
        .iter()
        .map(|kind| format!("`{}`", kind.kind))
        .collect();
    names.join(", ")
}

/// An entry of a family.
pub trait Registered: Sized {
    /// Its keys: a struct that derives `Deserialize` with `deny_unknown_fields`.
    type Config: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// What it is, one line.
    const SUMMARY: &'static str;
    /// Its keys, in the order of the struct's fields.
    const KEYS: &'static [KeyInfo];

    /// The value.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of range.
    fn from_config(config: Self::Config) -> Result<Self, ConfigError>;

    /// Valid configurations, the default among them; the conformance suite runs on each.
    fn examples() -> Vec<Self::Config>;
}

/// The names of the fields that a struct deserialises from, as serde knows them; empty for what
/// is not a struct.
#[must_use]
pub fn fields_of<T: DeserializeOwned>() -> Vec<&'static str> {
    struct Spy<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Spy<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend_from_slice(fields);
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut fields = Vec::new();
    // Always an error: only the list is wanted.
    let _ = T::deserialize(Spy(&mut fields));
    fields
}

/// The family's page for a document, in Markdown: a row per kind and key.
#[must_use]
pub fn markdown(kinds: &[KindInfo]) -> String {
    let mut page = String::new();
    for kind in kinds {
        // Writing to a string cannot be refused.
        let _ = writeln!(page, "### `{}`\n{}\n", kind.kind, kind.summary);
        if kind.keys.is_empty() {
            continue;
        }
        let _ = writeln!(
            page,
            "| key | value | default | meaning |\n|---|---|---|---|"
        );
        for key in kind.keys {
            let default = key
                .default
                .map_or("required".into(), |value| format!("`{value}`"));
            let _ = writeln!(
                page,
                "| `{}` | {} | {default} | {} |",
                key.key, key.expects, key.summary
            );
        }
        page.push('\n');
    }
    page
}

/// Writes a family's enums from the list of its entries. See the [module](mod@crate::registry).
///
/// Each entry is a type in scope that implements [`Registered`] (and `Clone`, `Debug`,
/// `PartialEq`); the calling crate needs `serde` with `derive`. With
/// `dispatch NAME;`, a macro `NAME!(value, inner => expression)` is written that evaluates an
/// expression on whichever entry `value` is. With `conformance PATH;`, a test per entry and
/// example calls `PATH(&|| value)`. With `outside TYPE;`, both enums have one variant more, which
/// holds a value of that type: `Clone`, `Debug`, `PartialEq`, `Serialize`, with a method `kind`.
///
/// ```
/// use fl_core::registry::{ConfigError, KeyInfo, Registered};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Square { side: f64 }
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct SquareConfig { side: f64 }
///
/// impl Registered for Square {
///     type Config = SquareConfig;
///     const SUMMARY: &'static str = "Four equal sides.";
///     const KEYS: &'static [KeyInfo] = &[KeyInfo {
///         key: "side", expects: "number, at least 0", default: None, summary: "Length of a side.",
///     }];
///     fn from_config(config: SquareConfig) -> Result<Self, ConfigError> {
///         let SquareConfig { side } = config;
///         ConfigError::unless(side >= 0.0, "side", side, "a number of at least 0")?;
///         Ok(Self { side })
///     }
///     fn examples() -> Vec<SquareConfig> { vec![SquareConfig { side: 1.0 }] }
/// }
///
/// fl_core::registry! {
///     family "shape";
///     /// Any shape.
///     value AnyShape;
///     /// The keys of any shape.
///     config ShapeConfig;
///     dispatch with_shape;
///     entries {
///         Square = "square",
///     }
/// }
///
/// // First `kind`, then the rest of the table; here the rest is JSON.
/// let rest = serde_json::json!({ "side": 3.0 });
/// let config = ShapeConfig::from_kind("square", rest)?;
/// let shape = AnyShape::from_config(config)?;
/// assert_eq!(with_shape!(&shape, it => it.side * it.side), 9.0);
/// let unknown = ShapeConfig::from_kind("circle", serde_json::json!({})).unwrap_err();
/// assert_eq!(unknown.to_string(), "unknown shape `circle`; known are `square`");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! registry {
    (
        family $family:literal;
        $(#[$value_doc:meta])*
        value $Value:ident;
        $(#[$config_doc:meta])*
        config $Config:ident;
        $(dispatch $dispatch:ident;)?
        $(conformance $suite:path;)?
        $(outside $Outside:ident;)?
        entries { $($Entry:ident = $kind:literal),+ $(,)? }
    ) => {
        $(#[$config_doc])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(tag = "kind")]
        pub enum $Config {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`")]
                #[serde(rename = $kind)]
                $Entry(<$Entry as $crate::registry::Registered>::Config),
            )+
            $(
                /// One from outside the registry.
                #[serde(untagged, skip_deserializing)]
                $Outside($Outside),
            )?
        }

        impl $Config {
            /// The family's entries and their keys.
            pub const KINDS: &'static [$crate::registry::KindInfo] = &[
                $($crate::registry::KindInfo {
                    kind: $kind,
                    summary: <$Entry as $crate::registry::Registered>::SUMMARY,
                    keys: <$Entry as $crate::registry::Registered>::KEYS,
                },)+
            ];

            /// Reads a table in two steps: `kind` is taken out by the caller, `rest` holds the
            /// other keys.
            ///
            /// # Errors
            /// An unknown kind, or what the deserializer says of the keys.
            pub fn from_kind<'de, D>(
                kind: &str,
                rest: D,
            ) -> ::core::result::Result<Self, $crate::registry::KindError<D::Error>>
            where
                D: ::serde::Deserializer<'de>,
            {
                match kind {
                    $(
                        $kind => ::serde::Deserialize::deserialize(rest)
                            .map(Self::$Entry)
                            .map_err($crate::registry::KindError::Keys),
                    )+
                    _ => ::core::result::Result::Err($crate::registry::KindError::Unknown {
                        family: $family,
                        given: kind.into(),
                        known: Self::KINDS,
                    }),
                }
            }

            /// The entry's `kind`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$Entry(_) => $kind,)+
                    $(Self::$Outside(outside) => $Outside::kind(outside),)?
                }
            }
        }

        $(#[$value_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $Value {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`")]
                $Entry($Entry),
            )+
            $(
                /// One from outside the registry.
                $Outside($Outside),
            )?
        }

        impl $Value {
            /// The value that `config` describes.
            ///
            /// # Errors
            /// A value out of range.
            pub fn from_config(
                config: $Config,
            ) -> ::core::result::Result<Self, $crate::registry::ConfigError> {
                match config {
                    $(
                        $Config::$Entry(config) =>
                            <$Entry as $crate::registry::Registered>::from_config(config)
                                .map(Self::$Entry),
                    )+
                    $($Config::$Outside(outside) => {
                        ::core::result::Result::Ok(Self::$Outside($Outside::clone(&outside)))
                    })?
                }
            }

            /// The entry's `kind`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$Entry(_) => $kind,)+
                    $(Self::$Outside(outside) => $Outside::kind(outside),)?
                }
            }
        }

        $(
            impl ::core::convert::From<$Entry> for $Value {
                fn from(entry: $Entry) -> Self {
                    Self::$Entry(entry)
                }
            }
        )+

        $crate::__registry_dispatch!(($) $Value [$($dispatch)?] $($Entry)+ $($Outside)?);
        $crate::__registry_test!($Config [$($suite)?] $($Entry = $kind,)+);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __registry_dispatch {
    (($d:tt) $Value:ident [] $($Entry:ident)+) => {};
    (($d:tt) $Value:ident [$dispatch:ident] $($Entry:ident)+) => {
        macro_rules! $dispatch {
            ($d value:expr, $d inner:ident => $d body:expr) => {
                match $d value {
                    $($Value::$Entry($d inner) => $d body,)+
                }
            };
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __registry_test {
    ($Config:ident [$($suite:path)?] $($Entry:ident = $kind:literal,)+) => {
        #[cfg(test)]
        mod registry_entries {
            use super::*;

            #[test]
            fn every_entry_is_described_and_reads_back() {
                $($crate::registry::check_entry::<$Entry>($kind);)+
                $(
                    for config in <$Entry as $crate::registry::Registered>::examples() {
                        let config = $Config::$Entry(config);
                        assert_eq!(config.kind(), $kind);
                    }
                )+
            }

            $crate::__registry_suite!([$($suite)?] $($Entry)+);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __registry_suite {
    ([] $($Entry:ident)+) => {};
    ([$suite:path] $($Entry:ident)+) => {
        $(
            #[test]
            #[expect(non_snake_case, reason = "the test is named after the entry's type")]
            fn $Entry() {
                for config in <$Entry as $crate::registry::Registered>::examples() {
                    $suite(&|| {
                        <$Entry as $crate::registry::Registered>::from_config(config.clone())
                            .expect("an example is valid")
                    });
                }
            }
        )+
    };
}

/// Checks an entry's description: the keys are those that serde reads, the examples are valid.
/// Called by the tests that [`registry!`](crate::registry!) writes.
///
/// # Panics
/// When the description is wrong.
pub fn check_entry<T: Registered>(kind: &str) {
    let documented: Vec<_> = T::KEYS.iter().map(|key| key.key).collect();
    let read = fields_of::<T::Config>();
    assert_eq!(
        documented, read,
        "the keys of `{kind}` as documented and as read"
    );
    assert!(
        kind.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
        "`{kind}` is not in kebab case"
    );
    assert!(!T::SUMMARY.is_empty(), "`{kind}` has no summary");
    let examples = T::examples();
    assert!(!examples.is_empty(), "`{kind}` has no example");
    for example in examples {
        if let Err(error) = T::from_config(example.clone()) {
            panic!("example {example:?} of `{kind}` is refused: {error}");
        }
    }
}
