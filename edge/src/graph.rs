//! A model definition made into operators over values with known shapes: what is trained,
//! quantized, served and exported. [`Model::graph`](crate::Model::graph) lends it to be read.

mod build;
mod fold;
mod unit;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use fl_core::{InputSpec, TargetSpec};

use crate::kernel::{Attention, Cell, Conv, Dense, Fused, Norm, Pool, Recurrent};
use crate::zoo::Loss;

pub(crate) use build::build;
pub use fold::fold_batch_norm;
pub(crate) use fold::{fold_batch_norm_into, fold_factors};
pub(crate) use unit::clamp_of;
pub use unit::{Residual, Unit, units};

/// Index of a [`Value`] in its graph.
pub type ValueId = usize;
/// Index of a tensor in the layout.
pub type TensorId = usize;

/// Something computed for every example.
#[derive(Clone, Debug)]
pub struct Value {
    /// The name of the layer whose output it is; `input` for the input. What a product gives
    /// before the layer's activation is called `LAYER.linear`. No two values have one name.
    pub name: String,
    /// Shape for one example.
    pub shape: Vec<usize>,
    /// The value whose memory this one is: itself, unless it is only another shape.
    pub root: ValueId,
}

#[expect(clippy::len_without_is_empty, reason = "a value is never empty")]
impl Value {
    /// Numbers for one example, at least 1.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` where positive, `slope x` elsewhere.
    LeakyRelu {
        /// In `[0, 1)`.
        slope: f32,
    },
    /// `x Φ(x)`
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}

/// What a node computes.
#[derive(Clone, Debug)]
pub enum Op {
    /// A product with a weight `[inputs, outputs]`.
    Dense {
        /// Its shape.
        geometry: Dense,
        /// The weight.
        weight: TensorId,
        /// The bias.
        bias: Option<TensorId>,
        /// What is applied to the product before it is stored.
        fused: Fused,
    },
    /// A convolution with a weight HWIO.
    Conv {
        /// Its shape.
        geometry: Conv,
        /// The weight.
        weight: TensorId,
        /// The bias.
        bias: Option<TensorId>,
        /// What is applied to the product before it is stored.
        fused: Fused,
    },
    /// The largest value of every window.
    MaxPool(Pool),
    /// The mean of every window, padding not counted.
    AvgPool(Pool),
    /// The mean of every channel.
    GlobalAvgPool {
        /// Positions of the image or sequence.
        positions: usize,
        /// Channels or features.
        channels: usize,
    },
    /// An elementwise function.
    Function(Function),
    /// Dropout in training, else the identity.
    Dropout {
        /// In `[0, 1)`.
        rate: f32,
    },
    /// Group or layer normalisation.
    Norm {
        /// Its shape and epsilon.
        geometry: Norm,
        /// A factor for each channel.
        scale: TensorId,
        /// A term for each channel.
        shift: TensorId,
    },
    /// Normalisation over the batch in training, by the running statistics in evaluation.
    BatchNorm {
        /// Channels or features.
        channels: usize,
        /// Positions of the image or sequence; 1 for a row.
        positions: usize,
        /// A factor for each channel.
        scale: TensorId,
        /// A term for each channel.
        shift: TensorId,
        /// The running mean, of which a training step writes a new value.
        mean: TensorId,
        /// The running variance, likewise.
        variance: TensorId,
        /// Added to the variance.
        epsilon: f32,
        /// Share of a batch in the running statistics.
        momentum: f32,
        /// What is applied to the output before it is stored.
        fused: Fused,
    },
    /// A row of a table for each token.
    Embedding {
        /// The table, `[vocabulary, size]`.
        table: TensorId,
        /// Numbers per token.
        size: usize,
    },
    /// The sum of two values of one shape.
    Add {
        /// The second value.
        other: ValueId,
    },
    /// A recurrent layer over its gates `[steps, gates * units]`, which the product before (a
    /// convolution of one window per position) gives to it alone.
    Recurrent {
        /// Its shape and cell.
        geometry: Recurrent,
        /// The recurrent weight, `[units, gates * units]`.
        weight: TensorId,
        /// A GRU's recurrent bias, `[units]`.
        bias: Option<TensorId>,
    },
    /// Attention over queries, keys and values side by side.
    Attention(Attention),
    /// The last position of a sequence.
    Last {
        /// Positions.
        positions: usize,
        /// Features.
        channels: usize,
    },
    /// A row of a table added to every position: `[positions, features]` as the value itself.
    Position {
        /// The table.
        table: TensorId,
    },
}

/// One operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The (first) value that it reads.
    pub input: ValueId,
    /// The value that it gives.
    pub output: ValueId,
}

/// How one tensor starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Constant(f32),
    Uniform(f64),
    Normal(f64),
    /// Zero, but one for the third of four parts: the forget gate of an LSTM.
    ForgetGate,
}

/// One tensor of the model.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: Start,
}

/// One layer of a model, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerSummary {
    /// The layer's name.
    pub name: String,
    /// Its `kind`.
    pub kind: &'static str,
    /// Shape of its output for one example.
    pub output_shape: Vec<usize>,
    /// Its parameters.
    pub parameters: usize,
    /// Multiply-accumulate operations of its products for one example, forward.
    pub macs: u64,
}

/// Operators in the order of computation.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Value 0 is the input.
    pub values: Vec<Value>,
    /// The operators.
    pub nodes: Vec<Node>,
    /// The value that the loss takes.
    pub output: ValueId,
    /// What the training minimises.
    pub loss: Loss,
    /// What an example's input is.
    pub input: InputSpec,
    /// What an example's target is.
    pub target: TargetSpec,
}

/// Numbers that the last layer must give, at every position where each has a target.
pub(crate) fn target_width(target: TargetSpec) -> usize {
    match target {
        TargetSpec::Class { classes } | TargetSpec::Sequence { classes, .. } => classes,
        TargetSpec::Real { width } => width,
    }
}

impl Graph {
    /// Of each root value: whether parameters come before it, so that it has a gradient to hand on.
    pub(crate) fn learning(&self) -> Vec<bool> {
        let mut learning = vec![false; self.values.len()];
        for node in &self.nodes {
            let own = matches!(
                node.op,
                Op::Dense { .. }
                    | Op::Conv { .. }
                    | Op::Norm { .. }
                    | Op::BatchNorm { .. }
                    | Op::Embedding { .. }
                    | Op::Recurrent { .. }
                    | Op::Position { .. }
            );
            let learns = own || node.inputs().any(|value| learning[self.values[value].root]);
            learning[self.values[node.output].root] = learns;
        }
        learning
    }

    /// Whether parameters come before a value.
    pub(crate) fn depends_on_parameters(&self, value: ValueId) -> bool {
        self.learning()[self.values[value].root]
    }
}

impl Node {
    /// Multiply-accumulate operations of its product for one example.
    pub(crate) fn macs(&self) -> u64 {
        match &self.op {
            Op::Dense { geometry, .. } => geometry.inputs as u64 * geometry.outputs as u64,
            Op::Conv { geometry, .. } => {
                let shape = geometry.shape();
                let window = shape.kernel[0] * shape.kernel[1] * (shape.channels / shape.groups);
                geometry.output_len() as u64 * window as u64
            }
            // The state before the first position is zero.
            Op::Recurrent { geometry, .. } => {
                (geometry.steps() as u64 - 1) * geometry.transposed_len() as u64
            }
            Op::Attention(geometry) => geometry.macs(),
            _ => 0,
        }
    }

    /// The values that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = ValueId> {
        let other = match self.op {
            Op::Add { other } => Some(other),
            _ => None,
        };
        core::iter::once(self.input).chain(other)
    }
}

impl Graph {
    /// How many nodes read the memory of `root`.
    #[must_use]
    pub fn readers(&self, root: ValueId) -> usize {
        let reads = self.nodes.iter().flat_map(Node::inputs);
        let reads = reads
            .filter(|&value| self.values[value].root == root)
            .count();
        reads + usize::from(self.values[self.output].root == root)
    }

    /// What a node is called where only operators on rows and images are known; none for those.
    #[must_use]
    pub fn sequence_kind(&self, node: &Node) -> Option<&'static str> {
        match &node.op {
            Op::Recurrent { geometry, .. } => Some(match geometry.cell() {
                Cell::Lstm => "lstm",
                Cell::Gru => "gru",
            }),
            Op::Attention(_) => Some("attention"),
            Op::Last { .. } => Some("last"),
            Op::Position { .. } => Some("position"),
            Op::Conv { .. } if self.values[node.input].shape.len() == 2 => {
                Some("dense on a sequence")
            }
            Op::Norm { geometry, .. } if geometry.repeats() > 1 => Some("layer-norm on a sequence"),
            _ => None,
        }
    }

    /// Whether a tensor is a running statistic, which no optimizer moves.
    #[must_use]
    pub fn is_statistic(&self, tensor: TensorId) -> bool {
        self.nodes.iter().any(|node| match node.op {
            Op::BatchNorm { mean, variance, .. } => tensor == mean || tensor == variance,
            _ => false,
        })
    }

    /// The last node from which no way leads to the output.
    fn unused(&self) -> Option<usize> {
        let mut used = vec![false; self.values.len()];
        used[self.values[self.output].root] = true;
        let mut unused = None;
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if used[node.output] {
                for value in node.inputs() {
                    used[self.values[value].root] = true;
                }
            } else if unused.is_none() {
                unused = Some(index);
            }
        }
        unused
    }

    /// Moves a relu or relu6 that is the only reader of a product or a batch normalisation into
    /// it.
    fn fuse_relu(&mut self) {
        let mut index = 0;
        while index < self.nodes.len() {
            let Node { op, input, output } = self.nodes[index].clone();
            index += 1;
            let after = match op {
                Op::Function(Function::Relu) => Fused::Relu,
                Op::Function(Function::Relu6) => Fused::Relu6,
                _ => continue,
            };
            if self.readers(self.values[input].root) != 1 {
                continue;
            }
            // It must read the product's output itself, not another shape of it.
            let producer = self.nodes.iter_mut().find(|node| node.output == input);
            let Some(Node {
                op: Op::Dense { fused, .. } | Op::Conv { fused, .. } | Op::BatchNorm { fused, .. },
                output: product,
                ..
            }) = producer
            else {
                continue;
            };
            if *fused != Fused::None {
                continue;
            }
            *fused = after;
            *product = output;
            index -= 1;
            self.nodes.remove(index);
        }
    }
}
