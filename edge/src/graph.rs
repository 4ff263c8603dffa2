//! A model definition made into operators over values with known shapes.

mod build;
mod unit;

use fl_core::{InputSpec, TargetSpec};

use crate::kernel::{Conv, Dense, Norm, Pool};
use crate::zoo::Loss;

pub(crate) use build::build;
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
        relu: bool,
    },
    Conv {
        geometry: Conv,
        weight: TensorId,
        bias: Option<TensorId>,
        relu: bool,
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

    /// Moves a relu that is the only reader of a dense or convolution into that product.
    fn fuse_relu(&mut self) {
        let mut index = 0;
        while index < self.nodes.len() {
            let Node { op, input, output } = self.nodes[index].clone();
            index += 1;
            if !matches!(op, Op::Function(Function::Relu))
                || self.readers(self.values[input].root) != 1
            {
                continue;
            }
            // The relu must read the product's output itself, not another shape of it.
            let producer = self.nodes.iter_mut().find(|node| node.output == input);
            let Some(Node {
                op: Op::Dense { relu, .. } | Op::Conv { relu, .. },
                output: product,
                ..
            }) = producer
            else {
                continue;
            };
            if *relu {
                continue;
            }
            *relu = true;
            *product = output;
            index -= 1;
            self.nodes.remove(index);
        }
    }
}
