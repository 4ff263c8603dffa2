//! Writing model files.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
#[cfg(feature = "std")]
use std::io::Write;

use fl_core::Parameters;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::header::{ALIGNMENT, Dtype, Header, TensorInfo};
use super::program::{Compiled, JOINED_TENSOR, PADDING, dtype_of};
use super::{
    Described, FORMAT, JOINED_FORMAT, KEY_FORMAT, KEY_HEADER, KEY_KIND, KEY_MODEL, KEY_PROGRAM,
    KEY_SHA256, Kind, PROGRAM_FORMAT, hex, meaning, parse_described, sha256,
};
use crate::model::Model;
use crate::program::{Program, Section};
use crate::runtime::{KEY_STEPS, arrange, base64, encode};

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
        Kind::Program if metadata.contains_key(KEY_STEPS) => PROGRAM_FORMAT,
        Kind::Program => JOINED_FORMAT,
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
    let sections = program.constants().sections();
    let mut ranges: Vec<_> = sections.iter().map(|it| 0..it.range.len()).collect();
    let sizes: Vec<usize> = sections.iter().map(|it| it.dtype.bytes()).collect();
    let end = arrange(&mut ranges, &sizes).ok_or(FileError::Decimals)?;
    let parts = in_order(program, &ranges);
    let packings = parts
        .iter()
        .filter_map(|&(index, _)| Some(sections[index?].packing));
    let compiled = Compiled::new(program, packings);
    let text = json("program", &compiled)?;
    let back: Compiled = serde_json::from_str(&text).map_err(|source| FileError::Json {
        part: "program",
        source,
    })?;
    if back.numerics != compiled.numerics {
        return Err(FileError::Decimals);
    }
    let mut metadata = BTreeMap::from([(KEY_PROGRAM.to_owned(), text)]);
    let mut steps = encode(&program.block(ranges, end));
    let tensors = match program.is_joined() {
        true => {
            let length = steps.len() as u32;
            steps.extend_from_slice(&length.to_le_bytes());
            let len = end + steps.len();
            vec![bytes_of(JOINED_TENSOR.to_owned(), 0..len)]
        }
        false => {
            metadata.insert(KEY_STEPS.to_owned(), base64::encode(&steps));
            steps.clear();
            separate(sections, &parts)
        }
    };
    let mut hash = Sha256::new();
    for (_, part) in &parts {
        hash.update(part);
    }
    hash.update(&steps);
    let (model, digest) = (program.model(), hex(&hash.finalize()));
    let header = finished(Kind::Program, model, tensors, digest, metadata)?;
    writer.write_all(&header.encode()?)?;
    for (_, part) in parts {
        writer.write_all(part)?;
    }
    writer.write_all(&steps)?;
    Ok(())
}

/// What is written, in the order of its bytes: sections by their number, and zeros between them.
#[cfg(feature = "std")]
fn in_order<'a>(program: &'a Program, ranges: &[Range<usize>]) -> Vec<(Option<usize>, &'a [u8])> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    // Empty sections keep their order.
    order.sort_by_key(|&index| (ranges[index].start, ranges[index].end));
    let (mut parts, mut end) = (Vec::new(), 0);
    for index in order {
        let gap = ranges[index].start - end;
        if gap > 0 {
            parts.push((None, &[0; ALIGNMENT][..gap]));
        }
        parts.push((Some(index), program.constants().bytes(index)));
        end = ranges[index].end;
    }
    parts
}

/// A tensor for each of these parts.
#[cfg(feature = "std")]
fn separate(sections: &[Section], parts: &[(Option<usize>, &[u8])]) -> Vec<TensorInfo> {
    let mut tensors = Vec::<TensorInfo>::new();
    let mut end = 0;
    for &(index, part) in parts {
        let range = end..end + part.len();
        end = range.end;
        tensors.push(match index.map(|index| &sections[index]) {
            None => bytes_of(format!("{PADDING}{}", tensors.len()), range),
            Some(section) => TensorInfo {
                name: section.name.clone(),
                dtype: dtype_of(section.dtype),
                shape: section.shape.clone(),
                range,
            },
        });
    }
    tensors
}

/// A tensor of bytes.
#[cfg(feature = "std")]
fn bytes_of(name: String, range: Range<usize>) -> TensorInfo {
    TensorInfo {
        name,
        dtype: Dtype::U8,
        shape: vec![range.len()],
        range,
    }
}

/// The bytes of `values` into `buffer`, whose old content is lost.
fn little_endian(values: &[f32], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
