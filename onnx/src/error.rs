//! What can be wrong with an ONNX file or a run of it.

use crate::DType;

/// Why a model was refused, or a run ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The bytes are no Protocol Buffers message of this kind.
    #[error("the bytes are no {what}: {source}; give a complete ONNX file")]
    Decode {
        /// The message that was expected.
        what: &'static str,
        /// What the decoder met.
        source: prost::DecodeError,
    },
    /// The model lacks something that every model has, or has it twice.
    #[error("the model {0}")]
    Model(#[from] ModelError),
    /// A tensor in the file cannot be read.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// The tensor's name; empty where it has none.
        name: String,
        /// What is wrong with it.
        problem: TensorError,
    },
    /// No such operator is known in this version of its domain.
    #[error(
        "node `{node}`: the operator `{op}` of domain `{domain}`, opset {opset}, is not \
         supported; export the model with other operators"
    )]
    UnsupportedOperator {
        /// The operator.
        op: String,
        /// Its domain; `ai.onnx` for the standard one.
        domain: String,
        /// The version that the model asks for.
        opset: i64,
        /// The node's name, or its place in the graph.
        node: String,
    },
    /// A node cannot be computed.
    #[error("node `{node}` ({op}): {problem}")]
    Node {
        /// The node's name, or its place in the graph.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        problem: NodeError,
    },
    /// An input of the run is missing or does not fit.
    #[error("input `{name}` {problem}")]
    Input {
        /// The input's name.
        name: String,
        /// What is wrong.
        problem: InputError,
    },
}

/// What is wrong with a model as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// There is no graph.
    #[error("has no graph")]
    NoGraph,
    /// The operator set is missing or outside what is known.
    #[error("asks for opset {found} of domain `{domain}` where {least} to {most} are known")]
    Opset {
        /// The domain; `ai.onnx` for the standard one.
        domain: String,
        /// The version asked for; 0 where it is missing.
        found: i64,
        /// The oldest known version.
        least: i64,
        /// The newest known version.
        most: i64,
    },
    /// A value is assigned twice.
    #[error("assigns the value `{0}` twice; every value has one source")]
    AssignedTwice(String),
    /// A value is used before or without being assigned.
    #[error("uses the value `{value}` in `{user}` before anything assigns it")]
    Unassigned {
        /// The value.
        value: String,
        /// The node, or `the outputs`.
        user: String,
    },
    /// A sparse tensor.
    #[error("holds the sparse tensor `{0}`; store it densely")]
    Sparse(String),
    /// An input or output that is no dense tensor.
    #[error("has `{0}`, which is no dense tensor; sequences, maps and optionals are not supported")]
    NotATensor(String),
    /// Functions that use each other, or too deep graphs.
    #[error("nests graphs and functions deeper than {0}; are there functions that use themselves")]
    Depth(usize),
    /// More nodes than the limit.
    #[error("has more than {0} nodes when its functions are expanded; raise the limit on nodes")]
    Nodes(usize),
    /// The file is larger than the limit.
    #[error("has {found} bytes where {most} are allowed; raise the limit on the file")]
    FileBytes {
        /// Bytes of the file.
        found: usize,
        /// The limit.
        most: usize,
    },
}

/// What is wrong with a tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// An element type that is not supported.
    #[error(
        "its element type {0} is not supported; use a float, double, float16, bool or whole-number \
         type of 8 to 64 bits"
    )]
    Type(i32),
    /// A negative or too large size.
    #[error("its shape {0:?} holds a negative size or too many elements")]
    Shape(Vec<i64>),
    /// The wrong amount of data.
    #[error("it holds {found} {unit} where its shape needs {expected}")]
    Length {
        /// What is stored.
        found: usize,
        /// What the shape needs.
        expected: usize,
        /// `bytes` or `elements`.
        unit: &'static str,
    },
    /// Data in more than one field, or in the field of another type.
    #[error("its data are in the field `{0}`, which does not belong to its type alone")]
    Field(&'static str),
    /// A stored number that its type cannot hold.
    #[error("it holds {value}, which is outside {dtype}")]
    Value {
        /// The number.
        value: i64,
        /// The type.
        dtype: DType,
    },
    /// Data in another file.
    #[error("its data are in another file; save the model with the data inside")]
    External,
    /// A part of a larger tensor.
    #[error("it is a segment of a larger tensor; save it whole")]
    Segment,
}

/// What is wrong with an input of a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// It was not given.
    #[error("is missing; give a tensor of that name")]
    Missing,
    /// The model has no such input.
    #[error("is no input of the model; its inputs are {0}")]
    Unknown(String),
    /// Another element type.
    #[error("has elements of {found} where the model takes {expected}")]
    Type {
        /// The type given.
        found: DType,
        /// The type that the model declares.
        expected: DType,
    },
    /// Larger than the limit.
    #[error("needs more than {0} bytes, the limit of one tensor; raise the limit")]
    TooLarge(usize),
    /// Another shape.
    #[error("has shape {found:?} where the model takes {expected}")]
    Shape {
        /// The shape given.
        found: Vec<usize>,
        /// The shape declared, `?` for free sizes.
        expected: String,
    },
}

/// Why a node cannot be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// An input that the operator needs is not there.
    #[error("input {0} is missing")]
    MissingInput(usize),
    /// An element type that the operator does not take, or that is not supported for it.
    #[error("input {input} has elements of {found} where {expected} is expected")]
    Type {
        /// The input, counted from 0.
        input: usize,
        /// Its type.
        found: DType,
        /// What the operator takes.
        expected: &'static str,
    },
    /// Inputs that must have one type have two.
    #[error("inputs have elements of {0} and {1} where one type is expected")]
    MixedTypes(DType, DType),
    /// An input has a shape that the operator does not take.
    #[error("input {input} has shape {found:?} where {expected} is expected")]
    Shape {
        /// The input, counted from 0.
        input: usize,
        /// Its shape.
        found: Vec<usize>,
        /// What the operator takes.
        expected: &'static str,
    },
    /// Shapes that do not broadcast.
    #[error("shapes {0:?} and {1:?} do not broadcast")]
    Broadcast(Vec<usize>, Vec<usize>),
    /// An axis outside the rank.
    #[error("axis {axis} is outside a tensor of rank {rank}")]
    Axis {
        /// The axis.
        axis: i64,
        /// The rank.
        rank: usize,
    },
    /// An index outside its axis.
    #[error("index {index} is outside an axis of size {size}")]
    Index {
        /// The index.
        index: i64,
        /// The size of the axis.
        size: usize,
    },
    /// A number of an input or attribute is outside its range.
    #[error("{what} is {found} where {expected} is expected")]
    Value {
        /// The number's name.
        what: &'static str,
        /// The number.
        found: i64,
        /// The range.
        expected: &'static str,
    },
    /// An attribute is missing or of another kind.
    #[error("attribute `{name}` is missing or is no {expected}")]
    Attribute {
        /// The attribute.
        name: String,
        /// Its kind.
        expected: &'static str,
    },
    /// A text attribute has a value that is not known.
    #[error("attribute `{name}` is `{found}`, which is not supported")]
    Choice {
        /// The attribute.
        name: String,
        /// Its value.
        found: String,
    },
    /// A form of the operator that is not supported.
    #[error("{0}, which is not supported")]
    Unsupported(&'static str),
    /// A whole-number division by zero.
    #[error("a whole number is divided by zero")]
    DivisionByZero,
    /// A tensor larger than the limit.
    #[error("a tensor of {bytes} bytes is asked for where {most} are allowed; raise the limit")]
    TensorBytes {
        /// Bytes asked for; the largest `usize` where they cannot be counted.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// All tensors together are larger than the limit.
    #[error("the run would hold {bytes} bytes where {most} are allowed; raise the limit")]
    LiveBytes {
        /// Bytes that would be held.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// More nodes were computed than the limit.
    #[error("the run has computed {0} nodes, the limit; does a loop end")]
    Steps(usize),
    /// A tensor in an attribute cannot be read.
    #[error("the tensor of an attribute: {0}")]
    Tensor(#[from] TensorError),
}

impl NodeError {
    /// Whether the node is well-formed as far as was seen and only this implementation lacks it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_) | Self::Choice { .. })
    }
}

impl OnnxError {
    /// Whether the model uses something that this implementation lacks, as opposed to being
    /// faulty.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::UnsupportedOperator { .. } => true,
            Self::Node { problem, .. } => problem.is_unsupported(),
            Self::Model(ModelError::Opset { .. } | ModelError::NotATensor(_)) => true,
            Self::Tensor { problem, .. } => matches!(problem, TensorError::Type(_)),
            _ => false,
        }
    }
}
