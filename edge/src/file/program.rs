//! Files of compiled programs.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::error::FileError;
use super::header::{ALIGNMENT, Dtype, TensorInfo};
use super::{Form, Kind, ModelFile};
use crate::program::{Constants, DType, Numerics, Packing, Passes, Program, Section};
use crate::runtime::{LARGE, apart};

/// What the names of padding begin with; no section's name does.
pub(super) const PADDING: &str = "__pad.";

/// The one tensor of format 3.
pub(super) const JOINED_TENSOR: &str = "data";

/// A program as the metadata describe it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compiled {
    pub(super) numerics: Numerics,
    #[serde(default, skip_serializing_if = "are_all")]
    pub(super) passes: Passes,
    /// Letters for the sections' packings, in the order of their bytes. In format 2; in format 3 they
    /// follow from the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) packing: Option<String>,
    /// In the order of the program's table. In format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sections: Option<Vec<Placed>>,
}

impl Compiled {
    /// A program whose sections lie in the order of these packings.
    #[cfg(feature = "std")]
    pub(super) fn new(program: &Program, packings: impl Iterator<Item = Packing>) -> Self {
        Self {
            numerics: program.numerics().clone(),
            passes: program.passes(),
            packing: (!program.is_joined()).then(|| packings.map(letter).collect()),
            sections: None,
        }
    }

    /// How the sections are packed, in the order of their bytes.
    fn packings(&self) -> Vec<Packing> {
        match (&self.packing, &self.sections) {
            (Some(letters), _) => letters.chars().filter_map(packing).collect(),
            (None, Some(sections)) => sections.iter().map(|placed| placed.packing).collect(),
            (None, None) => Vec::new(),
        }
    }
}

fn are_all(passes: &Passes) -> bool {
    *passes == Passes::ALL
}

const PACKINGS: [(char, Packing); 7] = [
    ('p', Packing::Plain),
    ('s', Packing::Panels16),
    ('i', Packing::Panels16x4),
    ('n', Packing::Nibbles16),
    ('t', Packing::NibbleRows),
    ('w', Packing::Widened),
    ('d', Packing::Depthwise64x4),
];

#[cfg(feature = "std")]
fn letter(packing: Packing) -> char {
    let known = PACKINGS.iter().find(|(_, known)| *known == packing);
    known.map_or('?', |(letter, _)| *letter)
}

fn packing(letter: char) -> Option<Packing> {
    let known = PACKINGS.iter().find(|(known, _)| *known == letter);
    known.map(|(_, packing)| *packing)
}

/// The multiple at which a section begins: large ones at a cache line.
pub(super) fn alignment(dtype: Dtype, len: usize) -> usize {
    match len >= LARGE {
        true => ALIGNMENT,
        false => dtype.bytes(),
    }
}

/// What the format itself does not say of a section.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    name: String,
    packing: Packing,
}

/// A section's type as the format has it.
pub(super) fn dtype_of(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::I32 => Dtype::I32,
    }
}

fn section_dtype(dtype: Dtype) -> Option<DType> {
    [DType::F32, DType::F16, DType::U8, DType::I8, DType::I32]
        .into_iter()
        .find(|&known| dtype_of(known) == dtype)
}

impl ModelFile {
    /// That the sections are in the file, aligned, and that there is nothing else.
    pub(super) fn check_program(&self, text: &str) -> Result<Compiled, FileError> {
        let compiled: Compiled = serde_json::from_str(text).map_err(|source| FileError::Json {
            part: "program",
            source,
        })?;
        match (self.form, &compiled.packing, &compiled.sections) {
            (Form::Whole, Some(letters), None) => self.check_letters(letters)?,
            (Form::Each, None, Some(sections)) => self.check_sections(sections)?,
            (Form::Joined, None, None) if compiled.numerics.is_joined() => self.check_joined()?,
            _ => return Err(FileError::Missing { key: "packing" }),
        }
        Ok(compiled)
    }

    /// That all data are one tensor.
    fn check_joined(&self) -> Result<(), FileError> {
        let found = match &self.header.tensors[..] {
            [one] if one.name == JOINED_TENSOR && one.dtype == Dtype::U8 => return Ok(()),
            tensors => format!("one of {}", tensors.len()),
        };
        Err(FileError::Tensor {
            name: JOINED_TENSOR.to_owned(),
            found,
            expected: "its sections and its compiled steps in one of type U8".to_owned(),
        })
    }

    /// That there is a letter for each section, and that each begins where it may.
    fn check_letters(&self, letters: &str) -> Result<(), FileError> {
        let mut letters = letters.chars();
        let tensors = self.header.tensors.iter();
        for tensor in tensors.filter(|tensor| !is_padding(tensor)) {
            let known = letters.next().and_then(packing).is_some();
            let multiple = alignment(tensor.dtype, tensor.range.len());
            let dtype = section_dtype(tensor.dtype);
            if !(known && dtype.is_some() && tensor.range.start.is_multiple_of(multiple)) {
                return Err(FileError::Tensor {
                    name: tensor.name.clone(),
                    found: format!("{:?} from byte {}", tensor.dtype, tensor.range.start),
                    expected: format!("a section that is described, at a multiple of {multiple}"),
                });
            }
        }
        match letters.next() {
            Some(_) => Err(FileError::Tensor {
                name: "the last".to_owned(),
                found: "missing".to_owned(),
                expected: "a section for every letter of its packing".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The same in format 1.
    fn check_sections(&self, sections: &[Placed]) -> Result<(), FileError> {
        let mut tensors = self.header.tensors.iter();
        for placed in sections {
            let wrong = |found: String| FileError::Tensor {
                name: placed.name.clone(),
                found,
                expected: "a section at a multiple of 64 bytes, in this place".to_owned(),
            };
            let tensor = tensors.by_ref().find(|tensor| !is_padding(tensor));
            let tensor = tensor.ok_or_else(|| wrong("missing".to_owned()))?;
            let found = tensor.name == placed.name
                && section_dtype(tensor.dtype).is_some()
                && tensor.range.start.is_multiple_of(ALIGNMENT);
            if !found {
                return Err(wrong(format!(
                    "`{}` {:?} from byte {}",
                    tensor.name, tensor.dtype, tensor.range.start
                )));
            }
        }
        match tensors.next() {
            Some(tensor) => Err(FileError::Tensor {
                name: tensor.name.clone(),
                found: "there".to_owned(),
                expected: "none behind its last section".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The program of the file, its constants where they lie in the file's bytes.
    ///
    /// Only bytes that do not lie at a multiple of [`ALIGNMENT`] are copied; a memory map does.
    /// The data are not verified: do that once, after a file has arrived.
    ///
    /// # Errors
    /// [`FileError::Kind`] in a file of parameters, or [`FileError::Program`] when the sections
    /// are not those of the model.
    pub fn program(&self) -> Result<Program, FileError> {
        let Some(compiled) = &self.compiled else {
            return Err(FileError::Kind {
                found: match self.kind {
                    Kind::Parameters => "file of parameters",
                    Kind::Program => "program without a description",
                },
                needed: "a compiled program",
                advice: "compile it with `Program::compile` or `fledgling model convert`",
            });
        };
        let (numerics, passes) = (&compiled.numerics, compiled.passes);
        if self.form == Form::Joined {
            let (constants, _) = apart(self.data()).ok_or_else(|| FileError::Tensor {
                name: JOINED_TENSOR.to_owned(),
                found: "shorter".to_owned(),
                expected: "as many bytes as its last four say".to_owned(),
            })?;
            let data = self.start..self.start + constants.len();
            let bytes = Arc::clone(&self.bytes);
            let program = Program::from_joined(&self.model, bytes, data, numerics, passes)?;
            return Ok(program);
        }
        let tensors = self
            .header
            .tensors
            .iter()
            .filter(|tensor| !is_padding(tensor));
        let sections = tensors.zip(compiled.packings());
        let sections: Option<Vec<Section>> = sections
            .map(|(tensor, packing)| {
                Some(Section {
                    name: tensor.name.clone(),
                    dtype: section_dtype(tensor.dtype)?,
                    shape: tensor.shape.clone(),
                    packing,
                    range: self.start + tensor.range.start..self.start + tensor.range.end,
                })
            })
            .collect();
        let sections = sections.unwrap_or_default();
        let bytes = (*self.bytes).as_ref();
        let constants = if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            Constants::shared(sections, Arc::clone(&self.bytes))?
        } else {
            Constants::copied(sections, bytes)?
        };
        Ok(Program::from_constants(
            &self.model,
            constants,
            numerics,
            passes,
        )?)
    }
}

/// Whether it is one that [`write_program`](super::write_program) fills gaps with.
pub(super) fn is_padding(tensor: &TensorInfo) -> bool {
    tensor.name.starts_with(PADDING) && tensor.dtype == Dtype::U8 && tensor.range.len() < ALIGNMENT
}
