//! Writes a native model as ONNX.
//!
//! The file is a plain NCHW graph as other tools write it: images enter as
//! `[batch, channels, height, width]`, rows as `[batch, features]`, sequences as
//! `[batch, length, features]`, tokens as `[batch, length]` of `int64`. The native graph is NHWC;
//! the only numbers that change places are convolution weights (HWIO becomes OIHW) and the rows
//! of a dense weight behind a flattened image (height, width, channel becomes channel, height,
//! width). Tensors and nodes keep the names of the layers.
//!
//! In `int8` the file has the QDQ form: every value that the runtime carries as `u8` goes through
//! `QuantizeLinear` and `DequantizeLinear`, weights are `i8` constants with a scale per tensor or
//! channel, biases `i32` constants at the accumulator's scale. A runtime that fuses the form (as
//! onnxruntime does) computes the integers that ours computes.
//!
//! Layers of sequences are written in `f32`: `LSTM`, `GRU` (each with the product of its inputs),
//! attention as the nodes that exporters write (which runtimes fuse), `MatMul` and `Add` at every
//! position. A target at every position leaves as one row, `[batch, length * classes]`. Such files
//! are not read again.
//!
//! In four bits a weight is a matrix of codes, `INT4` or `UINT4`, in the native order, that
//! `DequantizeLinear` with blocks makes `f32`; the weight of a convolution is then brought into
//! ONNX's order by `Reshape` and `Transpose`, and a dense layer behind an image reads the image in
//! the native order. Scales are stored in `f16`.

mod builder;
mod layers;
mod operators;
mod products;
mod sequences;
mod values;

use fl_edge::graph::Graph;
use fl_edge::quant::{Code4, QuantError, Quantization, Weights4};
use fl_edge::{EdgeError, Model};
use prost::Message as _;

use crate::proto::ModelProto;
use layers::Exporter;

/// The oldest operator set that is written and read.
pub const OLDEST_OPSET: i64 = 13;
/// The newest operator set that is written and read.
pub const NEWEST_OPSET: i64 = 21;

/// The oldest operator set in which weights of four bits are written: that of `DequantizeLinear` with
/// blocks.
pub const FOUR_BIT_OPSET: i64 = 21;

/// The numbers of the file.
#[derive(Clone, Copy, Debug, Default)]
pub enum Numbers<'a> {
    /// `f32` throughout.
    #[default]
    F32,
    /// `f16` weights and values between an `f32` input and an `f32` output.
    F16,
    /// Integers where the runtime computes in integers, the QDQ form.
    Int8(&'a Quantization),
    /// Weights of four bits where the runtime has them, and of sixteen where it has those. Weights
    /// that are not among the given ones are rounded to the nearest. From [`FOUR_BIT_OPSET`] on; not
    /// in [`Code4::Nf4`], for which ONNX has no type.
    Int4(&'a Weights4),
}

/// How a model is written.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions<'a> {
    /// The operator set, [`OLDEST_OPSET`] to [`NEWEST_OPSET`].
    pub opset: i64,
    /// The numbers.
    pub numbers: Numbers<'a>,
    /// Whether batch normalisations are folded into the product before them, where they can be.
    /// In `int8` and in four bits they always are.
    pub fold_batch_norm: bool,
}

impl Default for ExportOptions<'_> {
    fn default() -> Self {
        Self {
            opset: 17,
            numbers: Numbers::F32,
            fold_batch_norm: false,
        }
    }
}

/// Why a model could not be written.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The operator set is not written.
    #[error("opset {0} is not written; choose one from {OLDEST_OPSET} to {NEWEST_OPSET}")]
    Opset(i64),
    /// The parameters are not the model's.
    #[error("{found} parameters were given to a model of {expected}")]
    Parameters {
        /// Parameters of the model.
        expected: usize,
        /// Parameters that were given.
        found: usize,
    },
    /// A shape of an example that has no usual ONNX form.
    #[error(
        "the value `{value}` has shape {shape}; rows, sequences and images are written, that is \
         one to three sizes"
    )]
    Shape {
        /// The value.
        value: String,
        /// Its shape, printed.
        shape: String,
    },
    /// A layer of sequences that is written in one precision.
    #[error(
        "the layer `{layer}` ({kind}) is written as ONNX in f32 alone; export in f32, or write a \
         model file"
    )]
    Layer {
        /// The layer.
        layer: String,
        /// What it is.
        kind: &'static str,
    },
    /// A type that ONNX does not have.
    #[error(
        "ONNX has no type for weights in `{0}`; choose `int4` or `uint4`, or write a model file"
    )]
    Code(&'static str),
    /// An operator set without weights of four bits.
    #[error("opset {0} has no weights of four bits; choose {FOUR_BIT_OPSET} or later")]
    FourBitOpset(i64),
    /// The weights in four bits are not the model's.
    #[error(transparent)]
    Quantization(#[from] QuantError),
    /// A value that carries integers has no scale.
    #[error("the quantization has no scale for the value `{0}`; calibrate it for this very model")]
    NoPoint(String),
    /// The model itself does not fit the quantization.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// The model as an ONNX message; [`export`] gives the bytes of the file.
///
/// # Errors
/// [`ExportError`]
pub fn export_model(
    model: &Model,
    parameters: &[f32],
    options: &ExportOptions<'_>,
) -> Result<ModelProto, ExportError> {
    if !(OLDEST_OPSET..=NEWEST_OPSET).contains(&options.opset) {
        return Err(ExportError::Opset(options.opset));
    }
    if parameters.len() != model.parameters() {
        return Err(ExportError::Parameters {
            expected: model.parameters(),
            found: parameters.len(),
        });
    }
    if let Numbers::Int4(weights) = options.numbers {
        if weights.format.code == Code4::Nf4 {
            return Err(ExportError::Code(Code4::Nf4.name()));
        }
        if options.opset < FOUR_BIT_OPSET {
            return Err(ExportError::FourBitOpset(options.opset));
        }
    }
    let graph: &Graph = model.graph();
    let single = matches!(options.numbers, Numbers::F32);
    for node in graph.nodes.iter().filter(|_| !single) {
        if let Some(kind) = graph.sequence_kind(node) {
            let layer = graph.values[node.output].name.clone();
            return Err(ExportError::Layer { layer, kind });
        }
    }
    Exporter::new(model, graph, parameters, options).run()
}

/// The model as the bytes of an ONNX file.
///
/// ```
/// use fl_core::{InputSpec, TargetSpec};
/// use fl_edge::{Model, ModelDef};
/// use fl_onnx::{ExportOptions, export};
///
/// let def = ModelDef::named("cnn-fedavg").expect("a model of the zoo");
/// let input = InputSpec::Real(vec![28, 28, 1]);
/// let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 })?;
/// let parameters = vec![0.0; model.parameters()];
/// let bytes = export(&model, &parameters, &ExportOptions::default())?;
/// assert!(bytes.len() > 4 * model.parameters());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ExportError`]
pub fn export(
    model: &Model,
    parameters: &[f32],
    options: &ExportOptions<'_>,
) -> Result<Vec<u8>, ExportError> {
    Ok(export_model(model, parameters, options)?.encode_to_vec())
}
