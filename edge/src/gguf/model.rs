//! Our own models in GGUF files.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use fl_core::Parameters;
use sha2::{Digest as _, Sha256};

use super::{BLOCK, Gguf, GgufError, TensorKind, Value, Writer};
use crate::file::{self, FileError};
use crate::graph::{Graph, Op, TensorId, units};
use crate::model::Model;
use crate::quant::{Code4, FourBits, Weight4, Weights4};

const ARCHITECTURE: &str = "fledgling";
const KEY_ARCHITECTURE: &str = "general.architecture";
/// By ggml's enumeration of file types: what most of the tensors are.
const KEY_FILE_TYPE: &str = "general.file_type";
/// The version of ggml's blocks.
const KEY_QUANTIZATION: &str = "general.quantization_version";
const QUANTIZATION_VERSION: u32 = 2;
const KEY_MODEL: &str = "fledgling.model";
const KEY_DIGEST: &str = "fledgling.sha256";

/// A model with its parameters as a GGUF file.
///
/// Weights of dense layers and convolutions are stored as ggml does, a row for each output, so that a
/// block holds weights of one output. Those, and embeddings, are narrowed to `kind`, their rows filled
/// with zeros to whole blocks; rows so short that blocks would save nothing over binary16 are in
/// binary16. All else stays in `f32`. The model's
/// definition stands in `fledgling.model` as JSON, and a SHA-256 of all the rest in
/// `fledgling.sha256`.
///
/// # Errors
/// [`GgufError::NotFinite`] names a weight that `kind` cannot hold; [`GgufError::File`] when the
/// parameters are of another model.
pub fn write_model(
    model: &Model,
    parameters: &Parameters,
    kind: TensorKind,
) -> Result<Vec<u8>, GgufError> {
    written(model, parameters, kind, None)
}

/// The same in [`TensorKind::Q4_0`], with the codes of weights that were brought into four bits
/// before (by [`quant::gptq`](crate::quant::gptq) for instance) as they are. Other weights are
/// rounded as ggml does.
///
/// # Errors
/// [`GgufError::FourBits`] unless the weights are `int4` in groups of 32, of the model's shapes and
/// without batch normalisations folded in; and as [`write_model`].
pub fn write_four(
    model: &Model,
    parameters: &Parameters,
    weights: &Weights4,
) -> Result<Vec<u8>, GgufError> {
    let FourBits { code, group, .. } = weights.format;
    if (code, group) != (Code4::Int4, BLOCK) {
        return Err(GgufError::FourBits {
            found: format!("{} in groups of {group}", code.name()),
        });
    }
    let mut folded = units(model.graph()).into_iter().filter(|unit| {
        let (Op::Dense { weight, .. } | Op::Conv { weight, .. }) =
            model.graph().nodes[unit.node].op
        else {
            return false;
        };
        let name = &model.layout().tensors()[weight].name;
        unit.norm.is_some() && weights.tensors.contains_key(name)
    });
    if let Some(unit) = folded.next() {
        let name = &model.graph().values[unit.output].name;
        return Err(GgufError::FourBits {
            found: format!("`{name}` has its batch normalisation folded in"),
        });
    }
    written(model, parameters, TensorKind::Q4_0, Some(weights))
}

/// Blocks of a weight, a row of whole ones for each column.
fn blocks(made: &Weight4) -> Vec<u8> {
    let [terms, columns] = made.shape();
    let mut bytes = Vec::with_capacity(made.groups() * columns * TensorKind::Q4_0.block_bytes());
    for column in 0..columns {
        for group in 0..made.groups() {
            bytes.extend(made.scales()[group * columns + column].to_le_bytes());
            let code = |index: usize| match group * BLOCK + index {
                term if term < terms => made.codes()[term * columns + column],
                // Zeros fill the last block.
                _ => 8,
            };
            bytes.extend((0..BLOCK / 2).map(|low| code(low) | code(low + BLOCK / 2) << 4));
        }
    }
    bytes
}

fn written(
    model: &Model,
    parameters: &Parameters,
    kind: TensorKind,
    weights: Option<&Weights4>,
) -> Result<Vec<u8>, GgufError> {
    if parameters.layout() != model.layout() {
        return Err(FileError::OtherModel.into());
    }
    let mut writer = Writer::new();
    let text = |text: &str| Value::Text(text.to_owned());
    writer.value(KEY_ARCHITECTURE, text(ARCHITECTURE))?;
    let file_type = match kind {
        TensorKind::F32 => 0,
        TensorKind::F16 => 1,
        TensorKind::Q4_0 => 2,
        TensorKind::Q8_0 => 7,
    };
    writer.value(KEY_FILE_TYPE, Value::U32(file_type))?;
    writer.value(KEY_QUANTIZATION, Value::U32(QUANTIZATION_VERSION))?;
    writer.value(KEY_MODEL, text(&file::description(model)?))?;
    let graph = model.graph();
    for (id, spec) in model.layout().tensors().iter().enumerate() {
        let values = &parameters.values()[spec.range()];
        let role = Role::of(graph, id);
        let shape = role.stored_shape(&spec.shape);
        let row = shape.last().copied().unwrap_or(1);
        let given = weights.is_some_and(|weights| weights.tensors.contains_key(&spec.name));
        let kind = match role {
            Role::Product if given => TensorKind::Q4_0,
            Role::Other => TensorKind::F32,
            Role::Product | Role::Table => {
                let bytes = |kind| kind_bytes(kind, row);
                match bytes(kind) < bytes(TensorKind::F16) {
                    true => kind,
                    false if kind == TensorKind::F32 => kind,
                    false => TensorKind::F16,
                }
            }
        };
        let values = match role {
            Role::Product => transposed(values, &spec.shape),
            Role::Table | Role::Other => values.to_vec(),
        };
        let stored = [row, shape.first().copied().unwrap_or(1)];
        let (shape, values) = filled(shape, values, kind);
        match weights.and_then(|weights| weights.tensors.get(&spec.name)) {
            Some(made) if role == Role::Product && made.shape() == stored => {
                writer.raw(&spec.name, &shape, TensorKind::Q4_0, blocks(made))?;
            }
            Some(made) => {
                return Err(GgufError::FourBits {
                    found: format!("`{}` is of {:?}", spec.name, made.shape()),
                });
            }
            None => writer.tensor(&spec.name, &shape, kind, &values)?,
        }
    }
    let digest = digest(&writer)?;
    writer.value(KEY_DIGEST, Value::Text(digest))?;
    writer.finish()
}

/// The model of a file of [`write_model`], with its parameters widened.
///
/// # Errors
/// [`GgufError`] when the file is damaged, or another program's.
pub fn read_model(bytes: &[u8]) -> Result<(Arc<Model>, Parameters), GgufError> {
    let file = Gguf::parse(bytes)?;
    let text = |key: &'static str| {
        let found = file.value(key).and_then(Value::text);
        found.ok_or_else(|| GgufError::Missing {
            key,
            architecture: file
                .value(KEY_ARCHITECTURE)
                .map_or_else(|| "not named".to_owned(), ToString::to_string),
        })
    };
    let (described, claimed) = (text(KEY_MODEL)?, text(KEY_DIGEST)?);
    let mut writer = file.to_writer()?;
    // The digest is of all but itself, which stands last.
    writer.values.retain(|(key, _)| key != KEY_DIGEST);
    if digest(&writer)? != claimed {
        return Err(GgufError::Digest);
    }
    let model = Arc::new(file::described(described)?);
    let layout = model.layout();
    let expected = layout.tensors().len();
    if file.tensors().len() != expected {
        return Err(GgufError::Model {
            name: "behind the last".to_owned(),
            found: format!("one of {}", file.tensors().len()),
            expected: format!("{expected} tensors"),
        });
    }
    let mut values = Vec::with_capacity(layout.len());
    for (id, (spec, tensor)) in layout.tensors().iter().zip(file.tensors()).enumerate() {
        let role = Role::of(model.graph(), id);
        let plain = role.stored_shape(&spec.shape);
        let (shape, _) = filled(plain.clone(), Vec::new(), tensor.kind);
        if tensor.name != spec.name || tensor.shape != shape {
            return Err(GgufError::Model {
                name: tensor.name.clone(),
                found: format!("{:?}", tensor.shape),
                expected: format!("`{}` {shape:?}", spec.name),
            });
        }
        let mut stored = file.values(tensor);
        if shape != plain {
            let (filled, row) = (shape.last(), plain.last());
            let (filled, row) = (filled.map_or(1, |n| *n), row.map_or(1, |n| *n));
            stored = cut(&stored, filled, row);
        }
        match role {
            // Transposing back: a row for each input again.
            Role::Product => values.extend(transposed(&stored, &plain)),
            Role::Table | Role::Other => values.extend(stored),
        }
    }
    let parameters = Parameters::new(Arc::clone(layout), values).map_err(FileError::from)?;
    Ok((model, parameters))
}

impl Gguf<'_> {
    /// Whether it says that it holds one of this program's models.
    #[must_use]
    pub fn is_model(&self) -> bool {
        self.value(KEY_MODEL).is_some()
    }
}

/// What a tensor is to the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A weight of a product, whose last dimension is the outputs.
    Product,
    /// An embedding, a row for each token.
    Table,
    /// A bias, or of a normalisation.
    Other,
}

impl Role {
    fn of(graph: &Graph, id: TensorId) -> Self {
        let role = |op: &Op| match op {
            Op::Dense { weight, .. } | Op::Conv { weight, .. } if *weight == id => {
                Some(Self::Product)
            }
            Op::Embedding { table, .. } if *table == id => Some(Self::Table),
            _ => None,
        };
        let mut roles = graph.nodes.iter().filter_map(|node| role(&node.op));
        roles.next().unwrap_or(Self::Other)
    }

    /// The shape in a file: of a product's weight, a row for each output.
    fn stored_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape.split_last()) {
            (Self::Product, Some((&outputs, inputs))) => vec![outputs, inputs.iter().product()],
            _ => shape.to_vec(),
        }
    }
}

/// Bytes of a row, filled to whole blocks.
fn kind_bytes(kind: TensorKind, row: usize) -> usize {
    row.div_ceil(kind.block_len()) * kind.block_bytes()
}

/// Rows filled with zeros to whole blocks.
fn filled(mut shape: Vec<usize>, values: Vec<f32>, kind: TensorKind) -> (Vec<usize>, Vec<f32>) {
    let Some(row) = shape.last_mut() else {
        return (shape, values);
    };
    let plain = *row;
    *row = plain.next_multiple_of(kind.block_len());
    if *row == plain {
        return (shape, values);
    }
    let mut rows = Vec::with_capacity(values.len() / plain.max(1) * *row);
    for row_values in values.chunks_exact(plain.max(1)) {
        rows.extend(row_values);
        rows.resize(rows.len() + *row - plain, 0.0);
    }
    (shape, rows)
}

/// The first `row` numbers of every `filled`.
fn cut(values: &[f32], filled: usize, row: usize) -> Vec<f32> {
    let rows = values.chunks_exact(filled.max(1));
    rows.flat_map(|values| &values[..row]).copied().collect()
}

/// `[.., columns]` as `[columns, ..]`.
fn transposed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let mut turned = Vec::with_capacity(values.len());
    for column in 0..columns {
        turned.extend(values.iter().skip(column).step_by(columns));
    }
    turned
}

/// SHA-256 of a file, in hexadecimal digits.
fn digest(writer: &Writer) -> Result<String, GgufError> {
    Ok(file::hex(&Sha256::digest(writer.finish()?)))
}
