//! A model definition made into operators over values with known shapes.

mod build;
mod fold;
mod unit;

use fl_core::{InputSpec, TargetSpec};

use crate::kernel::{Conv, Dense, Fused, Norm, Pool};
use crate::zoo::Loss;

pub(crate) use build::build;
pub use fold::fold_batch_norm;
#[expect(
    unused_imports,
    reason = "for the program, the quantizer and its training"
)]
pub(crate) use unit::{Residual, Unit, clamp_of, units};

/// Index of a [`Value`] in its graph.
pub(crate) type ValueId = usize;
/// Index of a tensor in the layout.
pub(crate) type TensorId = usize;

/// Something computed for every example.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// The name of the layer whose output it is; `input` for the input. What a product gives
    /// before the layer's activation is called `LAYER.linear`. No two values have one name.
    pub(crate) name: String,
    /// Shape for one example.
    pub(crate) shape: Vec<usize>,
    /// The value whose memory this one is: itself, unless it is only another shape.
    pub(crate) root: ValueId,
}

impl Value {
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Relu,
    Relu6,
    LeakyRelu { slope: f32 },
    Gelu,
    Tanh,
    Sigmoid,
}

/// What a node computes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Dense {
        geometry: Dense,
        weight: TensorId,
        bias: Option<TensorId>,
        /// What is applied to the product before it is stored.
        fused: Fused,
    },
    Conv {
        geometry: Conv,
        weight: TensorId,
        bias: Option<TensorId>,
        /// What is applied to the product before it is stored.
        fused: Fused,
    },
    MaxPool(Pool),
    AvgPool(Pool),
    GlobalAvgPool {
        positions: usize,
        channels: usize,
    },
    Function(Function),
    Dropout {
        rate: f32,
    },
    Norm {
        geometry: Norm,
        scale: TensorId,
        shift: TensorId,
    },
    /// Normalisation over the batch in training, by the running statistics in evaluation.
    BatchNorm {
        channels: usize,
        positions: usize,
        scale: TensorId,
        shift: TensorId,
        /// Running mean and variance, of which a training step writes new values.
        mean: TensorId,
        variance: TensorId,
        epsilon: f32,
        momentum: f32,
        /// What is applied to the output before it is stored.
        fused: Fused,
    },
    Embedding {
        table: TensorId,
        size: usize,
    },
    Add {
        other: ValueId,
    },
}

/// One operator.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) input: ValueId,
    pub(crate) output: ValueId,
}

/// How one tensor starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Constant(f32),
    Uniform(f64),
    Normal(f64),
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
pub(crate) struct Graph {
    /// Value 0 is the input.
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) output: ValueId,
    pub(crate) loss: Loss,
    pub(crate) input: InputSpec,
    pub(crate) target: TargetSpec,
}

/// Numbers that the last layer must give.
pub(crate) fn target_width(target: TargetSpec) -> usize {
    match target {
        TargetSpec::Class { classes } => classes,
        TargetSpec::Real { width } => width,
    }
}

impl Node {
    /// Multiply-accumulate operations of its product for one example.
    fn macs(&self) -> u64 {
        match &self.op {
            Op::Dense { geometry, .. } => geometry.inputs as u64 * geometry.outputs as u64,
            Op::Conv { geometry, .. } => {
                let shape = geometry.shape();
                let window = shape.kernel[0] * shape.kernel[1] * (shape.channels / shape.groups);
                geometry.output_len() as u64 * window as u64
            }
            _ => 0,
        }
    }

    /// The values that it reads.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = ValueId> {
        let other = match self.op {
            Op::Add { other } => Some(other),
            _ => None,
        };
        core::iter::once(self.input).chain(other)
    }
}

impl Graph {
    /// How many nodes read the memory of `root`.
    pub(crate) fn readers(&self, root: ValueId) -> usize {
        let reads = self.nodes.iter().flat_map(Node::inputs);
        let reads = reads
            .filter(|&value| self.values[value].root == root)
            .count();
        reads + usize::from(self.values[self.output].root == root)
    }

    /// Whether a tensor is a running statistic, which no optimizer moves.
    pub(crate) fn is_statistic(&self, tensor: TensorId) -> bool {
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
