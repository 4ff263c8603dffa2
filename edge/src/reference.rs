//! What the reference says of models and layers: their own doc comments, so that the two cannot
//! disagree.

/// A key of a table, for the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// As it is written in TOML.
    pub key: &'static str,
    /// What it is, a line of the doc comment each.
    pub lines: &'static [&'static str],
}

/// A kind of model or layer, for the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindDoc {
    /// The `kind` in TOML.
    pub kind: &'static str,
    /// What it is, a line of the doc comment each.
    pub lines: &'static [&'static str],
    /// Its keys beside `kind`.
    pub keys: &'static [KeyDoc],
}

/// What TOML may say of a model beside its kind.
pub trait Options {
    /// Its keys.
    const KEYS: &'static [KeyDoc];
}

/// A model's options: a struct that TOML gives, every key with a default, and its documents.
macro_rules! options {
    (
        $(#[doc = $doc:literal])*
        $(#[derive($derive:ident)])?
        pub struct $name:ident { $(
            $(#[doc = $line:literal])*
            $(#[serde($($serde:tt)*)])?
            pub $field:ident: $type:ty,
        )* }
    ) => {
        $(#[doc = $doc])*
        $(#[derive($derive)])?
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct $name { $(
            $(#[doc = $line])*
            $(#[serde($($serde)*)])?
            pub $field: $type,
        )* }

        impl crate::reference::Options for $name {
            const KEYS: &'static [crate::reference::KeyDoc] = &[$(
                crate::reference::KeyDoc {
                    key: stringify!($field),
                    lines: &[$($line),*],
                },
            )*];
        }
    };
}

pub(crate) use options;
