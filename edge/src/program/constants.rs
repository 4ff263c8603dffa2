//! The constants of a program: one block of bytes with a table.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use bytemuck::NoUninit;
use serde::{Deserialize, Serialize};

use super::ProgramError;
use crate::arena::AlignedBytes;
use crate::runtime::{Numbers, SharedBytes, arrange};

/// Multiple at which sections start that are made in memory; those of a file may start at any
/// multiple of their numbers' size.
pub const SECTION_ALIGNMENT: usize = 64;

/// Type of a section's numbers, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float (IEEE 754 binary16), as its bits.
    F16,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Signed 32-bit integer.
    I32,
}

impl DType {
    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::U8 | Self::I8 => 1,
        }
    }
}

/// How a section's numbers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Packing {
    /// Row-major, in the order of the layout's tensors: `[inputs, outputs]`, HWIO.
    Plain,
    /// Panels of sixteen columns, for each group `[panel][term][column]`
    /// ([`Kernels::pack_dense`](crate::kernel::Kernels::pack_dense)).
    Panels16,
    /// Panels of sixteen columns and four terms, integers
    /// ([`int8::pack`](crate::kernel::int8::pack)).
    Panels16x4,
    /// Codes of four bits, two in a byte, in panels of sixteen columns
    /// ([`Kernels::pack_dense_four`](crate::kernel::Kernels::pack_dense_four)).
    Nibbles16,
    /// Rows of a table in codes of four bits, two in a byte
    /// ([`Kernels::pack_table_four`](crate::kernel::Kernels::pack_table_four)).
    NibbleRows,
    /// As `Plain`, 16-bit floats that are written out in `f32` when the program is made: biases and
    /// normalisations.
    Widened,
    /// Blocks of sixty-four channels and four rows, integers, one filter per channel
    /// ([`int8::pack`](crate::kernel::int8::pack)).
    Depthwise64x4,
}

/// One named constant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// A name that no other section has: that of the tensor that it is made of, or that and a
    /// suffix.
    pub name: String,
    /// Type of the numbers.
    pub dtype: DType,
    /// Shape as it lies in memory, packing included.
    pub shape: Vec<usize>,
    /// How the numbers lie.
    pub packing: Packing,
    /// Its bytes in the block.
    pub range: Range<usize>,
}

impl Section {
    /// Bytes that its shape needs; `None` when that overflows.
    fn needs(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(self.dtype.bytes(), |bytes, &size| bytes.checked_mul(size))
    }

    /// Name, type and shape, for messages.
    fn described(&self) -> String {
        format!(
            "`{}` {:?} {:?} {:?}",
            self.name, self.dtype, self.shape, self.packing
        )
    }
}

/// The constants of a program: packed weights, biases, tables.
///
/// A clone shares the bytes. Kernels read them where they lie: nothing is copied out of a memory
/// map. Numbers are little-endian, as are all machines that this crate is built for.
#[derive(Clone)]
pub struct Constants {
    sections: Arc<[Section]>,
    numbers: Numbers,
}

impl fmt::Debug for Constants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constants")
            .field("sections", &self.sections)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Constants {
    /// Constants that lie in bytes of someone else, at the ranges of their table.
    ///
    /// # Errors
    /// [`ProgramError::Outside`], [`ProgramError::Length`], [`ProgramError::Alignment`].
    pub fn shared(sections: Vec<Section>, bytes: SharedBytes) -> Result<Self, ProgramError> {
        let all = (*bytes).as_ref();
        for section in &sections {
            let range = section.range.clone();
            let part = all.get(range.clone()).ok_or(ProgramError::Outside {
                name: section.name.clone(),
                start: range.start,
                end: range.end,
                len: all.len(),
            })?;
            if section.needs() != Some(part.len()) {
                return Err(ProgramError::Length {
                    name: section.name.clone(),
                    expected: section.needs().unwrap_or(usize::MAX),
                    found: part.len(),
                });
            }
            let multiple = section.dtype.bytes();
            let offset = part.as_ptr().addr() % multiple;
            if offset != 0 && !part.is_empty() {
                return Err(ProgramError::Alignment {
                    name: section.name.clone(),
                    offset,
                    multiple,
                });
            }
        }
        Ok(Self::over(sections, bytes))
    }

    /// Constants that lie one behind the other as [`arrange`] says, at these bytes.
    ///
    /// # Errors
    /// [`ProgramError::Data`] when they are not as long.
    pub(super) fn arranged_in(
        mut sections: Vec<Section>,
        bytes: SharedBytes,
        data: Range<usize>,
    ) -> Result<Self, ProgramError> {
        let mut ranges = Vec::with_capacity(sections.len());
        for section in &sections {
            ranges.push(0..section.needs().unwrap_or(usize::MAX));
        }
        let sizes: Vec<usize> = sections
            .iter()
            .map(|section| section.dtype.bytes())
            .collect();
        let expected = arrange(&mut ranges, &sizes);
        if expected != Some(data.len()) {
            return Err(ProgramError::Data {
                expected: expected.unwrap_or(usize::MAX),
                found: data.len(),
            });
        }
        for (section, range) in sections.iter_mut().zip(ranges) {
            section.range = data.start + range.start..data.start + range.end;
        }
        let all = (*bytes).as_ref();
        match all.as_ptr().addr().is_multiple_of(SECTION_ALIGNMENT) {
            true => Self::shared(sections, bytes),
            false => Self::copied(sections, all),
        }
    }

    /// A copy of constants that lie anywhere.
    ///
    /// # Errors
    /// [`ProgramError::Outside`], [`ProgramError::Length`].
    pub fn copied(sections: Vec<Section>, bytes: &[u8]) -> Result<Self, ProgramError> {
        let mut parts = Vec::with_capacity(sections.len());
        for section in &sections {
            let range = section.range.clone();
            parts.push(bytes.get(range.clone()).ok_or(ProgramError::Outside {
                name: section.name.clone(),
                start: range.start,
                end: range.end,
                len: bytes.len(),
            })?);
        }
        Self::joined(sections, &parts)
    }

    /// Constants out of the bytes of each section; the ranges of the table are made here.
    pub(super) fn joined<B: AsRef<[u8]>>(
        mut sections: Vec<Section>,
        parts: &[B],
    ) -> Result<Self, ProgramError> {
        let mut len = 0usize;
        for (section, part) in sections.iter_mut().zip(parts) {
            let start = len.next_multiple_of(SECTION_ALIGNMENT);
            len = start + part.as_ref().len();
            section.range = start..len;
        }
        let mut block = AlignedBytes::new(len.next_multiple_of(SECTION_ALIGNMENT));
        for (section, part) in sections.iter().zip(parts) {
            block.as_mut()[section.range.clone()].copy_from_slice(part.as_ref());
        }
        Self::shared(sections, Arc::new(block))
    }

    /// The table alone, for plans of memory.
    pub(super) fn planned(mut sections: Vec<Section>) -> Self {
        let mut len = 0usize;
        for section in &mut sections {
            let start = len.next_multiple_of(SECTION_ALIGNMENT);
            len = start.saturating_add(section.needs().unwrap_or(usize::MAX));
            section.range = start..len;
        }
        Self::over(sections, Arc::new([0u8; 0]))
    }

    fn over(sections: Vec<Section>, bytes: SharedBytes) -> Self {
        let ranges = sections.iter().map(|section| section.range.clone());
        Self {
            numbers: Numbers::new(ranges.collect(), bytes),
            sections: sections.into(),
        }
    }

    /// The sections that are written out in `f32`, ascending.
    pub(super) fn widened(&self) -> Vec<usize> {
        let sections = self.sections.iter().enumerate();
        let widened = sections.filter(|(_, section)| section.packing == Packing::Widened);
        widened.map(|(index, _)| index).collect()
    }

    /// Bytes of a number of each section.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let sections = self.sections.iter();
        sections.map(|section| section.dtype.bytes()).collect()
    }

    /// Bytes of the numbers that are written out.
    pub(super) fn widened_len(&self) -> usize {
        let sections = self
            .widened()
            .into_iter()
            .map(|index| &self.sections[index]);
        sections.map(|section| 2 * section.range.len()).sum()
    }

    /// The same with those sections written out, for a program that runs.
    pub(super) fn written_out(mut self) -> Self {
        let (widened, len) = (self.widened(), self.widened_len());
        if len > 0 {
            self.numbers = self.numbers.widened(&widened, AlignedBytes::new(len));
        }
        self
    }

    /// The bytes alone, as steps read them.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The table.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Bytes of all sections, without what lies between them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sections
            .iter()
            .map(|section| section.range.len())
            .sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the section at `index` of the table.
    ///
    /// # Panics
    /// When there is no such section.
    #[must_use]
    pub fn bytes(&self, index: usize) -> &[u8] {
        self.numbers.bytes(index)
    }

    /// These constants in the order in which a program needs them, wherever they lie.
    pub(super) fn arranged(&self, needed: &[Section]) -> Result<Self, ProgramError> {
        if needed.len() != self.sections.len() {
            return Err(ProgramError::Sections {
                expected: needed.len(),
                found: self.sections.len(),
            });
        }
        let places = self.sections.iter().enumerate();
        let places: BTreeMap<&str, usize> = places
            .map(|(at, section)| (section.name.as_str(), at))
            .collect();
        let mut sections = Vec::with_capacity(needed.len());
        for (index, needed) in needed.iter().enumerate() {
            let at = places.get(needed.name.as_str()).copied().unwrap_or(index);
            let found = &self.sections[at];
            let same = needed.name == found.name
                && needed.dtype == found.dtype
                && needed.shape == found.shape
                && needed.packing == found.packing;
            if !same {
                return Err(ProgramError::Section {
                    index,
                    expected: needed.described(),
                    found: found.described(),
                });
            }
            sections.push(found.clone());
        }
        Ok(Self::over(sections, self.numbers.shared()))
    }
}

/// The bytes of numbers.
pub(super) fn bytes_of<T: NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, shape: &[usize], range: Range<usize>) -> Section {
        Section {
            name: name.to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            packing: Packing::Plain,
            range,
        }
    }

    #[test]
    fn shared_bytes_are_used_where_they_lie() {
        let mut block = AlignedBytes::new(256);
        block.as_mut()[64..68].copy_from_slice(&1.5f32.to_le_bytes());
        let bytes: SharedBytes = Arc::new(block);
        let start = (*bytes).as_ref().as_ptr().addr();
        let table = vec![section("a", &[2], 64..72), section("b", &[3, 1], 128..140)];
        let constants = Constants::shared(table.clone(), Arc::clone(&bytes))
            .expect("sections that lie in the bytes");
        assert_eq!(constants.numbers().values::<f32>(0), [1.5, 0.0]);
        assert_eq!(constants.bytes(1).as_ptr().addr(), start + 128);
        assert_eq!(constants.len(), 20);
        assert!(constants.arranged(&table).is_ok());
        let turned: Vec<Section> = table.iter().rev().cloned().collect();
        let turned = constants.arranged(&turned).expect("the same sections");
        assert_eq!(turned.numbers().values::<f32>(1), [1.5, 0.0]);
        let copied =
            Constants::copied(table, (*bytes).as_ref()).expect("sections that lie in the bytes");
        assert_eq!(copied.numbers().values::<f32>(0), [1.5, 0.0]);
        assert!(
            copied
                .bytes(0)
                .as_ptr()
                .addr()
                .is_multiple_of(SECTION_ALIGNMENT)
        );
    }

    #[test]
    fn a_wrong_table_is_refused() {
        let bytes: SharedBytes = Arc::new(AlignedBytes::new(256));
        let refused = |section: Section| {
            Constants::shared(vec![section], Arc::clone(&bytes)).expect_err("refused")
        };
        for (section, part) in [
            (section("a", &[2], 256..264), "256 to 264 of 256"),
            (section("a", &[2], Range { start: 64, end: 60 }), "64 to 60"),
            (section("a", &[2], 0..12), "12 bytes"),
            (section("a", &[usize::MAX, 2], 0..8), "8 bytes"),
            (section("a", &[2], 6..14), "2 bytes after a multiple of 4"),
        ] {
            let text = refused(section).to_string();
            assert!(text.contains("`a`") && text.contains(part), "{text}");
        }
        let table = [section("a", &[2], 0..8)];
        let constants = Constants::shared(table.to_vec(), Arc::clone(&bytes))
            .expect("sections that lie in the bytes");
        let other = section("a", &[1, 2], 0..8);
        let error = constants.arranged(&[other]).expect_err("refused");
        assert!(
            matches!(error, ProgramError::Section { index: 0, .. }),
            "{error}"
        );
        let error = constants.arranged(&[]).expect_err("refused");
        assert!(matches!(error, ProgramError::Sections { .. }), "{error}");
    }
}
