//! The SafeTensors container: eight bytes of header length, a JSON header, the tensors' bytes.
//!
//! Written against the format's own description (<https://github.com/huggingface/safetensors>,
//! section "Format"). Stricter than it in one point: no name stands twice, also in metadata.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use super::error::FileError;

/// Multiple at which the data begin, in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;
/// Bytes of the longest header that is read. A header of 60,000 tensors fits.
const MOST_HEADER: usize = 16 << 20;
/// Tensors that are read at most.
const MOST_TENSORS: usize = 1 << 16;
/// Dimensions of a tensor at most.
const MOST_DIMENSIONS: usize = 8;
/// The name that the format reserves for metadata.
const METADATA: &str = "__metadata__";

/// Type of a tensor's numbers, named as the format does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 16 bits.
    U16,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 64 bits.
    U64,
}

impl Dtype {
    /// Its name in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::I64 => "I64",
            Self::U64 => "U64",
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Row-major dimensions.
    pub shape: Vec<usize>,
    /// Its bytes within the data.
    pub range: Range<usize>,
}

/// What stands before the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Free text by key.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The tensors in the order of their bytes.
    pub(crate) tensors: Vec<TensorInfo>,
}

impl Header {
    /// Reads the header of a whole file; the second result is where the data begin.
    ///
    /// Every length is checked against the file before it is used. Memory is at most a small
    /// multiple of the header that is really there.
    pub(crate) fn parse(file: &[u8]) -> Result<(Self, usize), FileError> {
        let cut = |needed| FileError::Cut {
            found: file.len(),
            needed,
        };
        let (length, rest) = file.split_first_chunk::<8>().ok_or(cut(8))?;
        let claimed = u64::from_le_bytes(*length);
        let length = match usize::try_from(claimed) {
            Ok(length) if length <= MOST_HEADER => length,
            _ => {
                return Err(FileError::HeaderSize {
                    found: claimed,
                    most: MOST_HEADER,
                });
            }
        };
        let (text, data) = rest
            .split_at_checked(length)
            .ok_or(cut(claimed.saturating_add(8)))?;
        match text.first() {
            Some(b'{') => {}
            Some(&found) => return Err(FileError::NoObject { found }),
            None => return Err(FileError::NoHeader),
        }
        let raw: Raw = serde_json::from_slice(text).map_err(|source| FileError::Json {
            part: "header",
            source,
        })?;
        let tensors = placed(raw.tensors, data.len())?;
        let header = Self {
            metadata: raw.metadata,
            tensors,
        };
        Ok((header, 8 + length))
    }

    /// The bytes that stand before the data: filled with spaces, so that the data are aligned.
    ///
    /// The tensors must lie one behind the other.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FileError> {
        let json = serde_json::to_vec(self).map_err(|source| FileError::Json {
            part: "header",
            source,
        })?;
        let mut text = vec![0; 8];
        text.extend_from_slice(&json);
        text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
        let length = text.len() - 8;
        if length > MOST_HEADER {
            return Err(FileError::HeaderTooLong {
                found: length,
                most: MOST_HEADER,
            });
        }
        text[..8].copy_from_slice(&(length as u64).to_le_bytes());
        Ok(text)
    }

    /// The tensor called `name`.
    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'a> {
            dtype: Dtype,
            shape: &'a [usize],
            data_offsets: [usize; 2],
        }
        let mut map = serializer.serialize_map(Some(self.tensors.len() + 1))?;
        map.serialize_entry(METADATA, &self.metadata)?;
        for tensor in &self.tensors {
            let entry = Entry {
                dtype: tensor.dtype,
                shape: &tensor.shape,
                data_offsets: [tensor.range.start, tensor.range.end],
            };
            map.serialize_entry(&tensor.name, &entry)?;
        }
        map.end()
    }
}

/// Checks that the tensors cover `len` bytes of data, without holes and overlaps.
fn placed(raw: BTreeMap<String, RawTensor>, len: usize) -> Result<Vec<TensorInfo>, FileError> {
    if raw.len() > MOST_TENSORS {
        return Err(FileError::TooMany {
            found: raw.len(),
            most: MOST_TENSORS,
        });
    }
    let mut raw: Vec<(String, RawTensor)> = raw.into_iter().collect();
    // Empty tensors keep the order of their names.
    raw.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut tensors = Vec::with_capacity(raw.len());
    let mut next = 0;
    for (name, tensor) in raw {
        let [start, end] = tensor.data_offsets;
        let place = |expected| FileError::Place {
            name: name.clone(),
            start,
            end,
            expected,
        };
        let dimension = |size: &u64| usize::try_from(*size).ok();
        let shape: Option<Vec<usize>> = tensor.shape.0.iter().map(dimension).collect();
        let bytes = shape.as_ref().and_then(|shape| {
            let bytes = tensor.dtype.bytes();
            shape
                .iter()
                .try_fold(bytes, |product, &size| product.checked_mul(size))
        });
        let (Some(shape), Some(bytes)) = (shape, bytes) else {
            return Err(place(
                "its shape needs more bytes than can be counted".to_owned(),
            ));
        };
        if bytes > len - next {
            return Err(place(format!(
                "{bytes} bytes from {next} on are needed and the data end at {len}"
            )));
        }
        let range = next..next + bytes;
        if [start, end] != [range.start as u64, range.end as u64] {
            return Err(place(format!("{next} to {} are expected", range.end)));
        }
        next = range.end;
        tensors.push(TensorInfo {
            name,
            dtype: tensor.dtype,
            shape,
            range,
        });
    }
    if next != len {
        return Err(FileError::Length {
            expected: next as u64,
            found: len as u64,
        });
    }
    Ok(tensors)
}

/// The header as it is written.
struct Raw {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Dtype,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// Dimensions, not more than there can be.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut metadata = None;
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == METADATA {
                        metadata.replace(map.next_value::<Texts>()?).is_some()
                    } else {
                        let tensor = map.next_value::<RawTensor>()?;
                        tensors.insert(name, tensor).is_some()
                    };
                    if twice {
                        return Err(de::Error::custom("a name stands twice"));
                    }
                }
                let metadata = metadata.map(|Texts(texts)| texts).unwrap_or_default();
                Ok(Raw { metadata, tensors })
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// Texts by key, none twice.
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((key, text)) = map.next_entry::<String, String>()? {
                    if texts.insert(key, text).is_some() {
                        return Err(de::Error::custom("a key stands twice"));
                    }
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST_DIMENSIONS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if shape.len() == MOST_DIMENSIONS {
                        return Err(de::Error::invalid_length(shape.len() + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.resize(file.len() + data, 7);
        file
    }

    #[test]
    fn a_header_reads_back() {
        let tensor = |name: &str, dtype, shape: &[usize], range| TensorInfo {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            range,
        };
        let header = Header {
            metadata: [("b", "\"quoted\" ☃"), ("a", "")]
                .map(|(key, text)| (key.to_owned(), text.to_owned()))
                .into(),
            tensors: vec![
                tensor("z", Dtype::F32, &[2, 3], 0..24),
                tensor("empty", Dtype::F16, &[0, 4], 24..24),
                tensor("a", Dtype::U8, &[40], 24..64),
                tensor("scalar", Dtype::I64, &[], 64..72),
            ],
        };
        let mut bytes = header.encode().unwrap();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let start = bytes.len();
        bytes.resize(start + 72, 0);
        assert_eq!(Header::parse(&bytes).unwrap(), (header, start));
    }

    #[test]
    fn every_dtype_has_the_name_and_size_of_the_format() {
        let table = [
            (Dtype::Bool, "BOOL", 1),
            (Dtype::U8, "U8", 1),
            (Dtype::I8, "I8", 1),
            (Dtype::I16, "I16", 2),
            (Dtype::U16, "U16", 2),
            (Dtype::F16, "F16", 2),
            (Dtype::BF16, "BF16", 2),
            (Dtype::I32, "I32", 4),
            (Dtype::U32, "U32", 4),
            (Dtype::F32, "F32", 4),
            (Dtype::F64, "F64", 8),
            (Dtype::I64, "I64", 8),
            (Dtype::U64, "U64", 8),
        ];
        for (dtype, name, bytes) in table {
            assert_eq!(dtype.name(), name);
            assert_eq!(
                serde_json::to_string(&dtype).unwrap(),
                format!("\"{name}\"")
            );
            assert_eq!(dtype.bytes(), bytes);
        }
    }

    #[test]
    fn impossible_headers_are_refused() {
        let one = |shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let cases = [
            (
                file("", 9),
                "its header has 0 bytes; expected at least the two of `{}`",
            ),
            (
                vec![0; 4096],
                "its header has 0 bytes; expected at least the two of `{}`",
            ),
            (file("{", 0), "its header cannot be read: EOF while parsing"),
            (file(" {}", 0), "begins with byte 0x20"),
            (
                file("{} x", 0),
                "its header cannot be read: trailing characters",
            ),
            (file("{}", 1), "need 0 bytes of data and it holds 1"),
            (
                file(&one("[2]", "[0,2]"), 1),
                "2 bytes from 0 on are needed and the data end at 1",
            ),
            (
                file(&one("[2]", "[0,2]"), 3),
                "need 2 bytes of data and it holds 3",
            ),
            (
                file(&one("[2]", "[1,3]"), 3),
                "lies at bytes 1 to 3 of the data where 0 to 2 are",
            ),
            (
                file(&one("[2]", "[0,1]"), 2),
                "lies at bytes 0 to 1 of the data where 0 to 2 are",
            ),
            (file(&one("[2]", "[0]"), 2), "invalid length 1"),
            (file(&one("[-1]", "[0,1]"), 1), "expected u64"),
            (file(&one("[1.0]", "[0,1]"), 1), "expected u64"),
            (
                file(&one("[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1),
                "at most 8 dimensions",
            ),
            (
                file(&one("[18446744073709551615,3]", "[0,1]"), 1),
                "where its shape needs more bytes than can be counted",
            ),
            (
                file(
                    r#"{"a":{"dtype":"F31","shape":[],"data_offsets":[0,4]}}"#,
                    4,
                ),
                "unknown variant",
            ),
            (
                file(
                    r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":1}}"#,
                    1,
                ),
                "unknown field `x`",
            ),
            (
                file(
                    r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#,
                    1,
                ),
                "a name stands twice",
            ),
            (
                file(r#"{"__metadata__":{"k":"1","k":"1"}}"#, 0),
                "a key stands twice",
            ),
            (file(r#"{"__metadata__":{"k":1}}"#, 0), "expected a string"),
            (
                vec![0xff; 40],
                "claims 18446744073709551615 bytes and at most 16777216",
            ),
            (
                vec![0x10, 0, 0, 0, 0, 0, 0, 0, b'{'],
                "it has 9 bytes and its header alone needs 24",
            ),
            (vec![1, 2, 3], "it has 3 bytes"),
            // Nested deeper than any header: the reader's limit, not the stack's.
            (
                file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0),
                "its header cannot be read",
            ),
        ];
        for (bytes, message) in cases {
            let error = Header::parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error:?} has no {message:?}");
        }
    }

    #[test]
    fn overlaps_and_holes_are_refused() {
        let two = |a: &str, b: &str| {
            file(
                &format!(
                    r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
                ),
                8,
            )
        };
        assert!(Header::parse(&two("[0,4]", "[4,8]")).is_ok());
        assert!(Header::parse(&two("[4,8]", "[0,4]")).is_ok());
        for (a, b) in [
            ("[0,4]", "[0,4]"),
            ("[0,4]", "[3,7]"),
            ("[0,4]", "[5,9]"),
            ("[1,5]", "[5,9]"),
        ] {
            assert!(Header::parse(&two(a, b)).is_err(), "{a} {b}");
        }
    }
}
