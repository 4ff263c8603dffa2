//! Reads an ONNX graph as a native model, which can be trained, quantized and served.
//!
//! The nodes are walked once, in the file's order. What depends on constants alone is computed by
//! the [`Interpreter`](crate::Interpreter); shapes too, so that the arithmetic with which
//! exporters write a dynamic batch folds away. Every other node becomes a native layer, a part of
//! one (a bias, one step of a decomposed normalisation or gelu), or nothing (transpositions
//! between NCHW and NHWC, casts between float formats, dropout's mask). What cannot is an
//! [`ImportError`] that names the node; such a file still runs in the interpreter.
//!
//! # Layout
//! The native graph is NHWC. Convolution weights OIHW become HWIO, and the rows of a dense weight
//! behind a flattened NCHW image change places, so the imported model gives the file's outputs on
//! images that are laid out `[height, width, channels]`.
//!
//! # Integers
//! In a QDQ file the scales of `QuantizeLinear` become the points of a
//! [`Quantization`], and weights are the numbers that the stored integers stand for.

mod fold;
mod lower;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use fl_core::{InputSpec, TargetSpec};
use fl_edge::graph::{Op, units};
use fl_edge::layer::LayerDef;
use fl_edge::quant::{Float, Granularity, QParams, Quantization};
use fl_edge::{EdgeError, LayersDef, Model, ModelDef};

use crate::error::{ModelError, OnnxError};
use crate::export::{NEWEST_OPSET, OLDEST_OPSET};
use crate::model::{Limits, decode};
use crate::proto::{DimensionValue, GraphProto, ModelProto, TypeValue, ValueInfoProto, data_type};
use crate::tensor::Tensor;
use value::{Active, Form, Value};

/// A native model made from an ONNX file.
#[derive(Debug)]
pub struct Imported {
    /// The layers.
    pub def: ModelDef,
    /// The model, built.
    pub model: Model,
    /// Its parameters, in the layout's order.
    pub parameters: Vec<f32>,
    /// Scales of the values that carry integers, of a QDQ file.
    pub quantization: Option<Quantization>,
    /// What was left out because it changes no class, for people.
    pub notices: Vec<String>,
}

/// The operators that have a native form where an example goes through them; of constants every
/// operator of the [`Interpreter`](crate::Interpreter) is computed. Some stand only in a place (a
/// final Softmax, a Gather from a constant table, Erf inside a gelu, Pow and Sqrt inside a
/// normalisation).
pub const NATIVE_OPERATORS: &str = "Add, AveragePool, BatchNormalization, Cast, Clip, Conv, \
    DequantizeLinear, Div, Dropout, Erf, Flatten, Gather, Gelu, Gemm, GlobalAveragePool, \
    GlobalMaxPool, GroupNormalization, Identity, InstanceNormalization, LayerNormalization, \
    LeakyRelu, LogSoftmax, MatMul, MaxPool, Mul, Pow, QuantizeLinear, ReduceMax, ReduceMean, \
    Relu, Reshape, Shape, Sigmoid, Softmax, Sqrt, Squeeze, Sub, Tanh, Transpose, Unsqueeze";

/// Why a file has no native form.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file itself is wrong.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A node has no native form.
    #[error("node `{node}` ({op}): {problem}; the file still runs in the interpreter")]
    Node {
        /// The node's name, or its first output's.
        node: String,
        /// Its operator.
        op: String,
        /// What stands in the way.
        problem: Problem,
    },
    /// The graph's input or output has no native form.
    #[error("{what} `{name}` {problem}")]
    Border {
        /// `the input` or `the output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What stands in the way.
        problem: BorderProblem,
    },
    /// The number of inputs or outputs.
    #[error("the graph has {inputs} inputs and {outputs} outputs; a native model has one of each")]
    Borders {
        /// Inputs that are no constants.
        inputs: usize,
        /// Outputs.
        outputs: usize,
    },
    /// The layers make no model.
    #[error("the layers that were read make no model: {0}")]
    Edge(#[from] EdgeError),
}

/// What stands in the way of a node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The operator.
    #[error(
        "there is no native layer for this operator on such inputs, only for {NATIVE_OPERATORS}"
    )]
    Operator,
    /// An attribute.
    #[error("the attribute `{name}` is {found} and a native layer needs {expected}")]
    Attribute {
        /// The attribute.
        name: &'static str,
        /// Its value, printed.
        found: String,
        /// What fits.
        expected: &'static str,
    },
    /// An input that must be a constant is none.
    #[error("its input {0} is computed and a native layer needs a constant there")]
    NotConstant(usize),
    /// An input that must be computed is missing or constant.
    #[error("its input {0} is missing or constant where a native layer computes")]
    NotActive(usize),
    /// A constant of a wrong shape.
    #[error("its constant has shape {found} and a native layer needs {expected}")]
    Constant {
        /// The shape found, printed.
        found: String,
        /// The shape that fits, printed.
        expected: String,
    },
    /// A value of a shape that the layer does not take.
    #[error("it reads a value of shape {found} and a native layer needs {expected}")]
    Shape {
        /// The shape without the batch, printed.
        found: String,
        /// What fits.
        expected: &'static str,
    },
    /// A flattened image whose order matters.
    #[error(
        "it reads a flattened image, whose numbers lie in another order natively; let a \
             dense layer read it first"
    )]
    Order,
    /// A value that only stands inside a pattern.
    #[error("it reads a value that is only a part of {0}, which is not native by itself")]
    Partial(&'static str),
}

/// What is wrong with the graph's input or output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BorderProblem {
    /// Its type.
    #[error("is no tensor of f32, f16 or i64")]
    Type,
    /// Its sizes.
    #[error(
        "has shape {0}; a batch of rows, sequences or images with known sizes is needed, only the \
         batch may be free"
    )]
    Shape(String),
    /// The output is no row that a native model gives.
    #[error("is not computed by a layer that gives one row for each example")]
    NotARow,
    /// Nobody reads the tokens.
    #[error("holds whole numbers that no `Gather` looks up in a constant table")]
    Tokens,
}

/// The native form of an ONNX file.
///
/// # Errors
/// [`ImportError`]
pub fn import(bytes: &[u8], limits: &Limits) -> Result<Imported, ImportError> {
    import_model(&decode(bytes, limits)?, limits)
}

/// The native form of an ONNX message. What is computed of constants stays within the limits, all
/// of it together within [`Limits::live_bytes`].
///
/// # Errors
/// [`ImportError`]
pub fn import_model(proto: &ModelProto, limits: &Limits) -> Result<Imported, ImportError> {
    let opset = proto
        .opset_import
        .iter()
        .find(|set| set.domain.is_empty() || set.domain == "ai.onnx")
        .map_or(0, |set| set.version);
    if !(OLDEST_OPSET..=NEWEST_OPSET).contains(&opset) {
        return Err(OnnxError::from(ModelError::Opset {
            domain: "ai.onnx".to_owned(),
            found: opset,
            least: OLDEST_OPSET,
            most: NEWEST_OPSET,
        })
        .into());
    }
    let graph = proto
        .graph
        .as_ref()
        .ok_or(OnnxError::from(ModelError::NoGraph))?;
    let mut importer = Importer::new(graph, opset, limits)?;
    for node in &graph.node {
        importer.node(node)?;
    }
    importer.finish()
}

/// Stands for the size of a free batch: a prime that no real size is likely to be.
const ANY_BATCH: i64 = 1_000_003;

/// The walk through the nodes.
struct Importer<'a> {
    graph: &'a GraphProto,
    opset: i64,
    limits: Limits,
    /// Bytes of the constants that were computed.
    held: usize,
    batch: i64,
    input: InputSpec,
    values: BTreeMap<String, Value>,
    /// How often each value is read, the output included.
    readers: BTreeMap<&'a str, usize>,
    layers: Vec<LayerDef>,
    names: BTreeSet<String>,
    /// Numbers of each tensor by its native name.
    tensors: BTreeMap<String, Vec<f32>>,
    points: BTreeMap<String, QParams>,
    /// Of layers that hold an earlier layer's numbers, for where those are computed in floats.
    passed: BTreeMap<String, QParams>,
    granularity: Granularity,
    notices: Vec<String>,
}

impl<'a> Importer<'a> {
    fn new(graph: &'a GraphProto, opset: i64, limits: &Limits) -> Result<Self, ImportError> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse
                .values
                .as_ref()
                .map_or("", |values| values.name.as_str());
            return Err(OnnxError::from(ModelError::Sparse(name.to_owned())).into());
        }
        let mut values = BTreeMap::new();
        for tensor in &graph.initializer {
            let value = Tensor::from_proto(tensor).map_err(|problem| OnnxError::Tensor {
                name: tensor.name.clone(),
                problem,
            })?;
            values.insert(tensor.name.clone(), Value::Constant(value));
        }
        let inputs = graph
            .input
            .iter()
            .filter(|input| !values.contains_key(&input.name));
        let inputs = inputs.collect::<Vec<_>>();
        let (&[input], [_]) = (&inputs[..], &graph.output[..]) else {
            return Err(ImportError::Borders {
                inputs: inputs.len(),
                outputs: graph.output.len(),
            });
        };
        let mut readers = BTreeMap::new();
        let read = graph.node.iter().flat_map(|node| &node.input);
        for name in read.chain(graph.output.iter().map(|output| &output.name)) {
            *readers.entry(name.as_str()).or_default() += 1;
        }
        let (batch, form) = border(graph, input)?;
        let spec = match form {
            Form::Image {
                size: [height, width, channels],
                ..
            } => InputSpec::Real(vec![height, width, channels]),
            Form::Row { features, .. } => InputSpec::Real(vec![features]),
            Form::Sequence {
                length, features, ..
            } => InputSpec::Real(vec![length, features]),
            // The vocabulary comes with the table that is looked up.
            Form::Tokens { length } => InputSpec::Tokens {
                length,
                vocabulary: 0,
            },
        };
        let active = Active {
            layer: "input".to_owned(),
            form,
        };
        values.insert(input.name.clone(), Value::Active(active));
        Ok(Self {
            graph,
            opset,
            limits: *limits,
            held: 0,
            batch,
            input: spec,
            values,
            readers,
            layers: Vec::new(),
            names: BTreeSet::from(["input".to_owned()]),
            tensors: BTreeMap::new(),
            points: BTreeMap::new(),
            passed: BTreeMap::new(),
            granularity: Granularity::Tensor,
            notices: Vec::new(),
        })
    }

    fn finish(self) -> Result<Imported, ImportError> {
        let output = &self.graph.output[0];
        let wrong = |what, name: &str, problem| ImportError::Border {
            what,
            name: name.to_owned(),
            problem,
        };
        let Some(Value::Active(Active {
            layer,
            form:
                Form::Row {
                    features,
                    order: None,
                    ..
                },
        })) = self.values.get(&output.name)
        else {
            return Err(wrong("the output", &output.name, BorderProblem::NotARow));
        };
        if matches!(self.input, InputSpec::Tokens { vocabulary: 0, .. }) {
            return Err(wrong(
                "the input",
                &self.graph.input[0].name,
                BorderProblem::Tokens,
            ));
        }
        let mut layers = self.layers;
        // The model's output is its last layer's; others only stand behind it when unused.
        if let Some(last) = layers.iter().position(|def| def.name() == Some(layer)) {
            layers.truncate(last + 1);
        }
        let def = ModelDef::Layers(LayersDef {
            layer: layers,
            loss: None,
        });
        let target = TargetSpec::Class { classes: *features };
        let model = Model::new(&def, &self.input, target)?;
        let mut parameters = vec![0.0; model.parameters()];
        for tensor in model.layout().tensors() {
            if let Some(values) = self.tensors.get(&tensor.name) {
                parameters[tensor.range()].copy_from_slice(values);
            }
        }
        let quantization = (!self.points.is_empty()).then(|| {
            let mut quantization = Quantization {
                points: self.points,
                granularity: self.granularity,
                ..Quantization::default()
            };
            leave_out(&model, &mut quantization, &self.passed);
            quantization
        });
        Ok(Imported {
            def,
            model,
            parameters,
            quantization,
            notices: self.notices,
        })
    }
}

/// Leaves units whose values have no scales out of the integers. Behind such a unit the largest of
/// a window has a scale of its own, if the file rounds it.
fn leave_out(model: &Model, quantization: &mut Quantization, passed: &BTreeMap<String, QParams>) {
    let graph = model.graph();
    let name = |value: usize| &graph.values[value].name;
    // Values that have a scale, or hold the numbers of one that has; and those of integers.
    let mut pointed = vec![false; graph.values.len()];
    for (index, value) in graph.values.iter().enumerate() {
        pointed[index] = quantization.points.contains_key(&value.name);
    }
    let mut integer = vec![false; graph.values.len()];
    integer[0] = pointed[0];
    let root = |value: usize| graph.values[value].root;
    for unit in units(graph) {
        let inputs = graph.nodes[unit.node].inputs();
        let ready = inputs.map(root).all(|value| pointed[value]);
        if unit.passes_on(graph) {
            integer[unit.output] = integer[root(graph.nodes[unit.node].input)];
            let own = passed.get(name(unit.output));
            if let Some(&own) = own.filter(|_| !integer[unit.output]) {
                quantization.points.insert(name(unit.output).clone(), own);
                pointed[unit.output] = true;
            }
            pointed[unit.output] |= ready && integer[unit.output];
            // The input alone is rounded for whoever reads it first.
            if !pointed[0] && root(graph.nodes[unit.node].input) == 0 {
                let name = name(unit.output).clone();
                quantization.float_units.insert(name, Float::F32);
            }
            continue;
        }
        let others = (unit.residual.as_ref()).is_none_or(|residual| pointed[root(residual.other)]);
        // Tokens are no numbers that could be rounded.
        let ready = ready || matches!(graph.nodes[unit.node].op, Op::Embedding { .. });
        integer[unit.output] = ready && others && pointed[unit.own] && pointed[unit.output];
        integer[unit.own] = integer[unit.output];
        if !integer[unit.output] {
            let name = name(unit.output).clone();
            quantization.float_units.insert(name, Float::F32);
        }
    }
}

/// The batch's size and the form of the graph's input.
fn border(graph: &GraphProto, input: &ValueInfoProto) -> Result<(i64, Form), ImportError> {
    let wrong = |problem| ImportError::Border {
        what: "the input",
        name: input.name.clone(),
        problem,
    };
    let kind = input.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let Some(TypeValue::Tensor(tensor)) = kind else {
        return Err(wrong(BorderProblem::Type));
    };
    let shape = tensor.shape.as_ref();
    let sizes = shape.map_or(&[][..], |shape| &shape.dim[..]);
    let known = sizes
        .iter()
        .map(|size| match size.value {
            Some(DimensionValue::Value(size)) if size > 0 => Some(size),
            _ => None,
        })
        .collect::<Vec<_>>();
    let printed = || {
        let sizes = known
            .iter()
            .map(|size| size.map_or("?".to_owned(), |size| size.to_string()));
        format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
    };
    let Some((&batch, rest)) = known.split_first() else {
        return Err(wrong(BorderProblem::Shape(printed())));
    };
    let rest = rest
        .iter()
        .map(|size| size.and_then(|size| usize::try_from(size).ok()))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| wrong(BorderProblem::Shape(printed())))?;
    let floats = [data_type::FLOAT, data_type::FLOAT16].contains(&tensor.elem_type);
    let form = match (floats, &rest[..]) {
        (true, &[a, b, c]) => {
            // An input that is at once turned from NHWC to NCHW is NHWC.
            let mut readers = graph
                .node
                .iter()
                .filter(|node| node.input.contains(&input.name));
            let turned = readers.all(|node| {
                node.op_type == "Transpose"
                    && node
                        .attribute
                        .iter()
                        .any(|a| a.name == "perm" && a.ints == [0, 3, 1, 2])
            });
            match turned {
                true => Form::Image {
                    size: [a, b, c],
                    last: true,
                },
                false => Form::Image {
                    size: [b, c, a],
                    last: false,
                },
            }
        }
        (true, &[length, features]) => Form::Sequence {
            length,
            features,
            turned: false,
        },
        (true, &[features]) => Form::row(features),
        (false, &[length]) if tensor.elem_type == data_type::INT64 => Form::Tokens { length },
        (false, _) => return Err(wrong(BorderProblem::Type)),
        _ => return Err(wrong(BorderProblem::Shape(printed()))),
    };
    Ok((batch.unwrap_or(ANY_BATCH), form))
}
