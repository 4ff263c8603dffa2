//! Writing model files.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
#[cfg(feature = "std")]
use std::io::Write;

use fl_core::Parameters;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::header::{ALIGNMENT, Dtype, Header, TensorInfo};
use super::program::{Compiled, PADDING, alignment, dtype_of};
use super::{
    Described, FORMAT, KEY_FORMAT, KEY_HEADER, KEY_KIND, KEY_MODEL, KEY_PROGRAM, KEY_SHA256, Kind,
    PROGRAM_FORMAT, hex, meaning, parse_described, sha256,
};
use crate::model::Model;
use crate::program::{Program, Section};
use crate::runtime::{KEY_STEPS, encode};

/// Writes a model with its parameters.
///
/// The same model and parameters give the same bytes, on any machine.
///
/// # Errors
/// [`FileError::OtherModel`], or [`FileError::Write`] with what the writer said.
#[cfg(feature = "std")]
pub fn write_parameters(
    model: &Model,
    parameters: &Parameters,
    writer: &mut dyn Write,
) -> Result<(), FileError> {
    if parameters.layout() != model.layout() {
        return Err(FileError::OtherModel);
    }
    let mut tensors = Vec::new();
    let mut checksums = BTreeMap::new();
    let mut buffer = Vec::new();
    for spec in model.layout().tensors() {
        let range = spec.range();
        little_endian(&parameters.values()[range.clone()], &mut buffer);
        checksums.insert(spec.name.clone(), sha256(&buffer));
        tensors.push(TensorInfo {
            name: spec.name.clone(),
            dtype: Dtype::F32,
            shape: spec.shape.clone(),
            range: range.start * 4..range.end * 4,
        });
    }
    let header = finished(
        Kind::Parameters,
        model,
        tensors,
        json("list of checksums", &checksums)?,
        BTreeMap::new(),
    )?;
    writer.write_all(&header.encode()?)?;
    for values in parameters.values().chunks(1 << 14) {
        little_endian(values, &mut buffer);
        writer.write_all(&buffer)?;
    }
    Ok(())
}

/// The model's definition, input and target as JSON.
pub(crate) fn description(model: &Model) -> Result<String, FileError> {
    let described = Described {
        definition: model.definition().clone(),
        input: model.input().clone(),
        target: model.target(),
        qat: model.qat_options().copied(),
    };
    let text = json("model", &described)?;
    // Decimals are shortest ones, which read back as the same bits but for a chance of about one
    // in a hundred million.
    let back = parse_described(&text)?;
    if back.definition != described.definition || back.qat != described.qat {
        return Err(FileError::Decimals);
    }
    Ok(text)
}

/// A header with its metadata and its checksum.
fn finished(
    kind: Kind,
    model: &Model,
    tensors: Vec<TensorInfo>,
    checksums: String,
    mut metadata: BTreeMap<String, String>,
) -> Result<Header, FileError> {
    let text = description(model)?;
    let format = match kind {
        Kind::Parameters => FORMAT,
        Kind::Program => PROGRAM_FORMAT,
    };
    for (key, text) in [
        (KEY_FORMAT, format.to_owned()),
        (KEY_KIND, kind.name().to_owned()),
        (KEY_MODEL, text),
        (KEY_SHA256, checksums),
    ] {
        metadata.insert(key.to_owned(), text);
    }
    let mut header = Header { metadata, tensors };
    let digest = meaning(&header);
    header.metadata.insert(KEY_HEADER.to_owned(), digest);
    Ok(header)
}

fn json(part: &'static str, value: &impl Serialize) -> Result<String, FileError> {
    serde_json::to_string(value).map_err(|source| FileError::Json { part, source })
}

/// Writes a compiled model.
///
/// The same program gives the same bytes.
///
/// # Errors
/// [`FileError::Decimals`], or [`FileError::Write`] with what the writer said.
#[cfg(feature = "std")]
pub fn write_program(program: &Program, writer: &mut dyn Write) -> Result<(), FileError> {
    let constants = program.constants();
    let sections = constants.sections();
    // Large sections first, then large numbers: so little is left between them.
    let multiple = |index: usize| {
        let section: &Section = &sections[index];
        alignment(dtype_of(section.dtype), constants.bytes(index).len())
    };
    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|&index| Reverse(multiple(index)));
    let mut tensors = Vec::<TensorInfo>::new();
    let mut ranges = vec![0..0; sections.len()];
    let mut hash = Sha256::new();
    // What is written: a section, or so many zeros.
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut end = 0usize;
    for &index in &order {
        let (section, bytes) = (&sections[index], constants.bytes(index));
        let gap = end.next_multiple_of(multiple(index)) - end;
        if gap > 0 {
            tensors.push(TensorInfo {
                name: format!("{PADDING}{}", tensors.len()),
                dtype: Dtype::U8,
                shape: vec![gap],
                range: end..end + gap,
            });
            parts.push(&[0; ALIGNMENT][..gap]);
            end += gap;
        }
        ranges[index] = end..end + bytes.len();
        tensors.push(TensorInfo {
            name: section.name.clone(),
            dtype: dtype_of(section.dtype),
            shape: section.shape.clone(),
            range: ranges[index].clone(),
        });
        parts.push(bytes);
        end += bytes.len();
    }
    for part in &parts {
        hash.update(part);
    }
    let packings = order.iter().map(|&index| sections[index].packing);
    let compiled = Compiled::new(program, packings);
    let text = json("program", &compiled)?;
    let back: Compiled = serde_json::from_str(&text).map_err(|source| FileError::Json {
        part: "program",
        source,
    })?;
    if back.numerics != compiled.numerics {
        return Err(FileError::Decimals);
    }
    let steps = encode(&program.block(ranges, end));
    let metadata = [
        (KEY_PROGRAM.to_owned(), text),
        (KEY_STEPS.to_owned(), steps),
    ]
    .into();
    let (model, digest) = (program.model(), hex(&hash.finalize()));
    let header = finished(Kind::Program, model, tensors, digest, metadata)?;
    writer.write_all(&header.encode()?)?;
    for part in parts {
        writer.write_all(part)?;
    }
    Ok(())
}

/// The bytes of `values` into `buffer`, whose old content is lost.
fn little_endian(values: &[f32], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
