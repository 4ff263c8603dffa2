//! Named values: reading, writing, printing.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::error::GgufError;

/// Arrays in arrays at most.
const MOST_DEPTH: usize = 4;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
/// Elements of an array that are printed.
const SHOWN: usize = 8;

/// What is left of a file, and how far it was read.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, needed: u64, part: &'static str) -> Result<&'a [u8], GgufError> {
        let (at, found) = (self.at, self.left());
        match usize::try_from(needed) {
            Ok(needed) if needed <= found => {
                self.at += needed;
                Ok(&self.bytes[at..self.at])
            }
            _ => Err(GgufError::Cut {
                part,
                at,
                needed,
                found,
            }),
        }
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        part: &'static str,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, part)?);
        Ok(array)
    }

    /// A number of things that have `least` bytes each.
    pub(super) fn count(&mut self, things: &'static str, least: usize) -> Result<usize, GgufError> {
        let claimed = u64::from_le_bytes(self.array("a number of elements")?);
        match usize::try_from(claimed) {
            Ok(count) if count <= self.left() / least => Ok(count),
            _ => Err(GgufError::Count {
                things,
                claimed,
                left: self.left(),
            }),
        }
    }

    pub(super) fn text(&mut self, part: &'static str) -> Result<String, GgufError> {
        let at = self.at;
        let length = u64::from_le_bytes(self.array(part)?);
        let bytes = self.take(length, part)?;
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(GgufError::Text { part, at }),
        }
    }

    fn boolean(&mut self) -> Result<bool, GgufError> {
        let at = self.at;
        match self.array::<1>("a boolean")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [found] => Err(GgufError::Bool { at, found }),
        }
    }
}

pub(super) fn put_text(text: &str, file: &mut Vec<u8>) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

macro_rules! values {
    ($($name:ident = $code:literal: $number:ty, $doc:literal;)*) => {
        /// A named value of a file.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $(#[doc = $doc] $name($number),)*
            /// True or false.
            Bool(bool),
            /// UTF-8.
            Text(String),
            /// Many values of one kind.
            Array(Array),
        }

        /// Many values of one kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array {
            $(#[doc = $doc] $name(Vec<$number>),)*
            /// True or false.
            Bool(Vec<bool>),
            /// UTF-8.
            Text(Vec<String>),
            /// Arrays, not deeper than four.
            Array(Vec<Array>),
        }

        impl Value {
            pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, GgufError> {
                let kind = u32::from_le_bytes(cursor.array("the kind of a value")?);
                Ok(match kind {
                    $($code => Self::$name(<$number>::from_le_bytes(cursor.array("a number")?)),)*
                    BOOL => Self::Bool(cursor.boolean()?),
                    TEXT => Self::Text(cursor.text("a text")?),
                    ARRAY => Self::Array(Array::read(cursor, key, 1)?),
                    found => return Err(GgufError::ValueKind { key: key.to_owned(), found }),
                })
            }

            pub(super) fn write(&self, file: &mut Vec<u8>) {
                match self {
                    $(Self::$name(number) => {
                        file.extend(u32::to_le_bytes($code));
                        file.extend(number.to_le_bytes());
                    })*
                    Self::Bool(value) => {
                        file.extend(BOOL.to_le_bytes());
                        file.push(u8::from(*value));
                    }
                    Self::Text(text) => {
                        file.extend(TEXT.to_le_bytes());
                        put_text(text, file);
                    }
                    Self::Array(array) => {
                        file.extend(ARRAY.to_le_bytes());
                        array.write(file);
                    }
                }
            }
        }

        impl Array {
            /// Number of elements.
            #[must_use]
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$name(numbers) => numbers.len(),)*
                    Self::Bool(values) => values.len(),
                    Self::Text(texts) => texts.len(),
                    Self::Array(arrays) => arrays.len(),
                }
            }

            fn read(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Self, GgufError> {
                if depth > MOST_DEPTH {
                    return Err(GgufError::Depth { key: key.to_owned() });
                }
                let kind = u32::from_le_bytes(cursor.array("the kind of an array")?);
                Ok(match kind {
                    $($code => {
                        const BYTES: usize = size_of::<$number>();
                        let count = cursor.count("numbers", BYTES)?;
                        let bytes = cursor.take((count * BYTES) as u64, "an array")?;
                        let numbers = bytes.as_chunks::<BYTES>().0.iter();
                        Self::$name(numbers.map(|number| <$number>::from_le_bytes(*number)).collect())
                    })*
                    BOOL => {
                        let count = cursor.count("booleans", 1)?;
                        Self::Bool((0..count).map(|_| cursor.boolean()).collect::<Result<_, _>>()?)
                    }
                    TEXT => {
                        let count = cursor.count("texts", 8)?;
                        let text = |_| cursor.text("a text of an array");
                        Self::Text((0..count).map(text).collect::<Result<_, _>>()?)
                    }
                    ARRAY => {
                        let count = cursor.count("arrays", 4 + 8)?;
                        let array = |_| Self::read(cursor, key, depth + 1);
                        Self::Array((0..count).map(array).collect::<Result<_, _>>()?)
                    }
                    found => return Err(GgufError::ValueKind { key: key.to_owned(), found }),
                })
            }

            fn write(&self, file: &mut Vec<u8>) {
                let head = |kind: u32, file: &mut Vec<u8>| {
                    file.extend(kind.to_le_bytes());
                    file.extend((self.len() as u64).to_le_bytes());
                };
                match self {
                    $(Self::$name(numbers) => {
                        head($code, file);
                        file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                    })*
                    Self::Bool(values) => {
                        head(BOOL, file);
                        file.extend(values.iter().map(|value| u8::from(*value)));
                    }
                    Self::Text(texts) => {
                        head(TEXT, file);
                        texts.iter().for_each(|text| put_text(text, file));
                    }
                    Self::Array(arrays) => {
                        head(ARRAY, file);
                        arrays.iter().for_each(|array| array.write(file));
                    }
                }
            }
        }

        impl fmt::Display for Value {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(number) => write!(f, "{number}"),)*
                    Self::Bool(value) => write!(f, "{value}"),
                    Self::Text(text) => write!(f, "{text:?}"),
                    Self::Array(array) => write!(f, "{array}"),
                }
            }
        }

        impl fmt::Display for Array {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(numbers) => list(f, numbers, ToString::to_string),)*
                    Self::Bool(values) => list(f, values, ToString::to_string),
                    Self::Text(texts) => list(f, texts, |text| format!("{text:?}")),
                    Self::Array(arrays) => list(f, arrays, ToString::to_string),
                }
            }
        }
    };
}

values! {
    U8 = 0: u8, "Unsigned, 8 bits.";
    I8 = 1: i8, "Signed, 8 bits.";
    U16 = 2: u16, "Unsigned, 16 bits.";
    I16 = 3: i16, "Signed, 16 bits.";
    U32 = 4: u32, "Unsigned, 32 bits.";
    I32 = 5: i32, "Signed, 32 bits.";
    F32 = 6: f32, "IEEE 754 binary32.";
    U64 = 10: u64, "Unsigned, 64 bits.";
    I64 = 11: i64, "Signed, 64 bits.";
    F64 = 12: f64, "IEEE 754 binary64.";
}

/// The first elements, printed.
fn list<T>(f: &mut fmt::Formatter<'_>, all: &[T], print: impl Fn(&T) -> String) -> fmt::Result {
    let shown: Vec<String> = all.iter().take(SHOWN).map(print).collect();
    let rest = match all.len() > SHOWN {
        true => ", ...",
        false => "",
    };
    write!(f, "[{}{rest}]", shown.join(", "))
}

impl Array {
    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// The text, of a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}
