//! GGUF, the file format of llama.cpp and its relatives: named values and tensors in `f32`, `f16` and
//! blocks of 8 or 4 bits.
//!
//! Written against the format's own description (<https://github.com/ggml-org/ggml>, `docs/gguf.md`,
//! version 3) and checked byte for byte against the Python package `gguf`. [`Gguf`] reads any file of
//! these four kinds of tensors, whatever model it is of; [`Writer`] writes one. [`write_model`] and
//! [`read_model`] put a [`Model`](crate::Model) into a file and take it out again.
//!
//! # The format
//! All numbers are little-endian. A text is its length in bytes (`u64`) and UTF-8.
//!
//! | part | holds |
//! |---|---|
//! | head | `GGUF`, version (`u32`), number of tensors (`u64`), number of values (`u64`) |
//! | each value | key (text), kind (`u32`), the value; an array is a kind, a length (`u64`) and its elements |
//! | each tensor | name (text), number of dimensions (`u32`), the dimensions with the contiguous one first (`u64`), kind (`u32`), place within the data (`u64`) |
//! | data | at a multiple of `general.alignment` (32 where it is not given), as is every tensor in it; between them zeros |
//!
//! # Blocks
//! Rows of quantized tensors are cut into blocks of [`BLOCK`] numbers, each with its own binary16
//! scale ([`TensorKind::Q8_0`], [`TensorKind::Q4_0`]).
//!
//! # Trust
//! [`Gguf::parse`] believes no length: a damaged or forged file is an error, never a panic, and costs
//! no more memory than a small multiple of its bytes. The format has no checksum; the files of
//! [`write_model`] carry one of their own, which [`read_model`] checks.
//!
//! ```
//! use fl_edge::gguf::{Gguf, TensorKind, Value, Writer};
//!
//! let mut writer = Writer::new();
//! writer.value("general.architecture", Value::Text("example".to_owned()))?;
//! writer.tensor("weight", &[2, 32], TensorKind::Q8_0, &[0.5; 64])?;
//! let bytes = writer.finish()?;
//!
//! let file = Gguf::parse(&bytes)?;
//! let tensor = file.tensor("weight").expect("it was written");
//! assert_eq!(tensor.shape, [2, 32]);
//! assert!(file.values(tensor).iter().all(|value| (value - 0.5).abs() < 1e-4));
//! # Ok::<(), fl_edge::gguf::GgufError>(())
//! ```

mod block;
mod error;
mod model;
mod value;

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::ops::Range;

pub use block::{BLOCK, TensorKind};
pub use error::GgufError;
pub use model::{read_model, write_four, write_model};
pub use value::{Array, Value};

use value::{Cursor, put_text};

/// The first bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written. Version 2 is laid out alike.
const VERSION: u32 = 3;
/// Where tensors may begin when a file does not say.
const DEFAULT_ALIGNMENT: usize = 32;
/// The value that says where tensors may begin.
const KEY_ALIGNMENT: &str = "general.alignment";
/// Dimensions of a tensor at most, as in ggml.
const MOST_DIMENSIONS: usize = 4;
/// Bytes of the longest key or name, as the format has it for keys.
const MOST_NAME: usize = 65_535;
/// The largest alignment that is read.
const MOST_ALIGNMENT: usize = 1 << 20;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Row-major dimensions: the last one is contiguous. At most four.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: TensorKind,
    /// Its bytes within the data.
    pub range: Range<usize>,
}

impl Tensor {
    /// Its numbers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file that was read. Tensors lie where they lay.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf<'a> {
    values: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
    data: &'a [u8],
}

impl<'a> Gguf<'a> {
    /// Reads what stands before the data of a whole file and checks where the tensors lie.
    ///
    /// # Errors
    /// [`GgufError`] says what is wrong, and where.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array("the first four bytes")?;
        if magic != MAGIC {
            return Err(GgufError::Magic { found: magic });
        }
        let version = u32::from_le_bytes(cursor.array("the version")?);
        if !(2..=VERSION).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        // The shortest tensor: a name of one byte, no dimension. The shortest value: one byte.
        let tensors = cursor.count("tensors", 8 + 1 + 4 + 4 + 8)?;
        let values = cursor.count("values", 8 + 1 + 4 + 1)?;
        let values = read_values(&mut cursor, values)?;
        let alignment = alignment_of(&values)?;
        let described = read_tensors(&mut cursor, tensors)?;
        let start = cursor.at().next_multiple_of(alignment);
        let Some(data) = bytes.get(start..) else {
            return Err(GgufError::Cut {
                part: "the data",
                at: cursor.at(),
                needed: (start - cursor.at()) as u64,
                found: bytes.len() - cursor.at(),
            });
        };
        if bytes[cursor.at()..start].iter().any(|&byte| byte != 0) {
            return Err(GgufError::Padding { before: None });
        }
        Ok(Self {
            tensors: placed(described, data, alignment)?,
            values,
            data,
        })
    }

    /// Named values, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[(String, Value)] {
        &self.values
    }

    /// The value of `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        let found = self.values.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    /// Its tensors, in the order of their bytes.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// A tensor as it is stored; empty for one of another file.
    #[must_use]
    pub fn bytes(&self, tensor: &Tensor) -> &'a [u8] {
        self.data.get(tensor.range.clone()).unwrap_or_default()
    }

    /// A tensor's numbers, row-major, as ggml widens them; none for one of another file.
    #[must_use]
    pub fn values(&self, tensor: &Tensor) -> Vec<f32> {
        tensor.kind.widen(self.bytes(tensor))
    }

    /// A writer of the same values and tensors. A file of version 3 comes out as it was, to the byte,
    /// but for what may be missing behind its last tensor.
    ///
    /// # Errors
    /// None that [`Gguf::parse`] would not have had.
    pub fn to_writer(&self) -> Result<Writer, GgufError> {
        let mut writer = Writer::new();
        for (key, value) in &self.values {
            writer.value(key, value.clone())?;
        }
        for tensor in &self.tensors {
            let bytes = self.bytes(tensor).to_vec();
            writer.raw(&tensor.name, &tensor.shape, tensor.kind, bytes)?;
        }
        Ok(writer)
    }
}

/// Collects what a file is to hold, in the order in which it will stand there.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    values: Vec<(String, Value)>,
    tensors: Vec<(Tensor, Vec<u8>)>,
    names: BTreeSet<String>,
    keys: BTreeSet<String>,
}

impl Writer {
    /// A file without values and tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a named value. By the format's custom `general.architecture` comes first.
    ///
    /// # Errors
    /// [`GgufError::Name`] and [`GgufError::Twice`] for a key that cannot be, and
    /// [`GgufError::Alignment`] for a bad `general.alignment`.
    pub fn value(&mut self, key: &str, value: Value) -> Result<(), GgufError> {
        named(key, &mut self.keys)?;
        if key == KEY_ALIGNMENT {
            alignment(&value)?;
        }
        self.values.push((key.to_owned(), value));
        Ok(())
    }

    /// Adds a tensor of row-major `values`, narrowed to `kind`.
    ///
    /// # Errors
    /// As [`Writer::raw`], and [`GgufError::NotFinite`] for a number that `kind` cannot hold.
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        kind: TensorKind,
        values: &[f32],
    ) -> Result<(), GgufError> {
        // Before narrowing, so that rows are whole blocks.
        check_shape(name, shape, kind)?;
        let bytes = kind.narrow(values).map_err(|index| GgufError::NotFinite {
            name: name.to_owned(),
            index,
            kind,
        })?;
        self.raw(name, shape, kind, bytes)
    }

    /// Adds a tensor as it is stored.
    ///
    /// # Errors
    /// [`GgufError::Name`], [`GgufError::Twice`], [`GgufError::Shape`] and [`GgufError::Bytes`].
    pub fn raw(
        &mut self,
        name: &str,
        shape: &[usize],
        kind: TensorKind,
        bytes: Vec<u8>,
    ) -> Result<(), GgufError> {
        let expected = check_shape(name, shape, kind)?;
        if bytes.len() != expected {
            return Err(GgufError::Bytes {
                name: name.to_owned(),
                found: bytes.len(),
                expected,
            });
        }
        named(name, &mut self.names)?;
        let tensor = Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
            range: 0..expected,
        };
        self.tensors.push((tensor, bytes));
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    /// [`GgufError::Alignment`] as [`Writer::value`] has it.
    pub fn finish(&self) -> Result<Vec<u8>, GgufError> {
        let alignment = alignment_of(&self.values)?;
        let mut file = MAGIC.to_vec();
        file.extend(VERSION.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            put_text(key, &mut file);
            value.write(&mut file);
        }
        let mut place = 0;
        for (tensor, bytes) in &self.tensors {
            put_text(&tensor.name, &mut file);
            file.extend((tensor.shape.len() as u32).to_le_bytes());
            for &size in tensor.shape.iter().rev() {
                file.extend((size as u64).to_le_bytes());
            }
            file.extend(tensor.kind.code().to_le_bytes());
            file.extend((place as u64).to_le_bytes());
            place += bytes.len().next_multiple_of(alignment);
        }
        file.resize(file.len().next_multiple_of(alignment), 0);
        for (_, bytes) in &self.tensors {
            file.extend(bytes);
            file.resize(file.len().next_multiple_of(alignment), 0);
        }
        Ok(file)
    }
}

/// Checks a key or name and that it is the first of its kind.
fn named(name: &str, known: &mut BTreeSet<String>) -> Result<(), GgufError> {
    if name.is_empty() || name.len() > MOST_NAME {
        return Err(GgufError::Name { bytes: name.len() });
    }
    match known.insert(name.to_owned()) {
        true => Ok(()),
        false => Err(GgufError::Twice {
            name: name.to_owned(),
        }),
    }
}

/// The bytes of a tensor of `shape`.
fn check_shape(name: &str, shape: &[usize], kind: TensorKind) -> Result<usize, GgufError> {
    let refuse = |reason| GgufError::Shape {
        name: name.to_owned(),
        shape: shape.to_vec(),
        reason,
    };
    if shape.len() > MOST_DIMENSIONS {
        return Err(refuse("there are at most four dimensions"));
    }
    let numbers = shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(kind.block_len()) {
        return Err(refuse("its rows are no whole blocks of 32 numbers"));
    }
    numbers
        .and_then(|numbers| (numbers / kind.block_len()).checked_mul(kind.block_bytes()))
        .ok_or_else(|| refuse("it needs more bytes than can be counted"))
}

fn read_values(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<(String, Value)>, GgufError> {
    let mut keys = BTreeSet::new();
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let key = cursor.text("a key")?;
        named(&key, &mut keys)?;
        let value = Value::read(cursor, &key)?;
        values.push((key, value));
    }
    Ok(values)
}

/// Tensors with their claimed places; ranges hold lengths only.
fn read_tensors(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<(Tensor, u64)>, GgufError> {
    let mut names = BTreeSet::new();
    let mut tensors = Vec::with_capacity(count);
    for _ in 0..count {
        let name = cursor.text("the name of a tensor")?;
        named(&name, &mut names)?;
        let dimensions = u32::from_le_bytes(cursor.array("a number of dimensions")?);
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            if shape.len() == MOST_DIMENSIONS {
                return Err(GgufError::Shape {
                    name,
                    shape,
                    reason: "there are at most four dimensions",
                });
            }
            let size = u64::from_le_bytes(cursor.array("a dimension")?);
            shape.push(usize::try_from(size).unwrap_or(usize::MAX));
        }
        shape.reverse();
        let code = u32::from_le_bytes(cursor.array("the kind of a tensor")?);
        let Some(kind) = TensorKind::from_code(code) else {
            return Err(GgufError::TensorKind { name, found: code });
        };
        let bytes = check_shape(&name, &shape, kind)?;
        let place = u64::from_le_bytes(cursor.array("the place of a tensor")?);
        let tensor = Tensor {
            name,
            shape,
            kind,
            range: 0..bytes,
        };
        tensors.push((tensor, place));
    }
    Ok(tensors)
}

/// Checks that tensors lie one behind the other, at multiples of `alignment`, between zeros, and that
/// nothing else is there.
fn placed(
    described: Vec<(Tensor, u64)>,
    data: &[u8],
    alignment: usize,
) -> Result<Vec<Tensor>, GgufError> {
    let mut end = 0usize;
    let mut tensors = Vec::with_capacity(described.len());
    for (mut tensor, claimed) in described {
        let start = end.next_multiple_of(alignment);
        if claimed != start as u64 {
            return Err(GgufError::Place {
                name: tensor.name,
                found: claimed,
                expected: start,
            });
        }
        let needed = tensor.range.end;
        if data
            .len()
            .checked_sub(start)
            .is_none_or(|left| left < needed)
        {
            return Err(GgufError::Short {
                name: tensor.name,
                needed,
                found: data.len().saturating_sub(start),
            });
        }
        if data[end..start].iter().any(|&byte| byte != 0) {
            return Err(GgufError::Padding {
                before: Some(tensor.name),
            });
        }
        tensor.range = start..start + needed;
        end = tensor.range.end;
        tensors.push(tensor);
    }
    // Some writers fill up the last tensor, too.
    let rest = &data[end..];
    if rest.len() > end.next_multiple_of(alignment) - end {
        return Err(GgufError::Trailing { bytes: rest.len() });
    }
    match rest.iter().all(|&byte| byte == 0) {
        true => Ok(tensors),
        false => Err(GgufError::Padding { before: None }),
    }
}

fn alignment_of(values: &[(String, Value)]) -> Result<usize, GgufError> {
    match values.iter().find(|(key, _)| key == KEY_ALIGNMENT) {
        Some((_, value)) => alignment(value),
        None => Ok(DEFAULT_ALIGNMENT),
    }
}

/// A multiple of eight, as the format asks for.
fn alignment(value: &Value) -> Result<usize, GgufError> {
    if let Value::U32(alignment) = value
        && let Ok(alignment) = usize::try_from(*alignment)
        && (8..=MOST_ALIGNMENT).contains(&alignment)
        && alignment.is_multiple_of(8)
    {
        return Ok(alignment);
    }
    Err(GgufError::Alignment {
        found: value.to_string(),
    })
}

#[cfg(test)]
mod tests;
