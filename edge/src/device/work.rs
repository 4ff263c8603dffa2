//! What a graph does: multiply-accumulates, values, parameters, operator by operator.
//!
//! Counts are exact and for one example. A multiply-accumulate of a convolution counts at every
//! position of its window, zeros of the padding too, as publications do (Sandler et al. 2018,
//! arXiv:1801.04381, table 4: 300 M for MobileNetV2 at 224). Serving counts *units*
//! ([`units`]): what is computed in one pass reads and writes once. Training counts
//! every node forward, its two backward products, and the step of the optimizer.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::graph::{Function, Graph, Node, Op, ValueId, units};
use crate::kernel::{Cell, Conv};

/// What kind of arithmetic an operator is, which decides its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A 3x3 convolution of stride 1 in one group, which Winograd's algorithm can compute.
    Winograd,
    /// Any other convolution that mixes channels.
    Conv,
    /// A convolution with one filter for each channel.
    Depthwise,
    /// A fully connected layer.
    Dense,
    /// Everything else: bound by the bytes that it moves.
    Elementwise,
}

/// What an operator computes, as delegates know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// A convolution.
    Conv,
    /// A depthwise convolution.
    Depthwise,
    /// A fully connected layer.
    Dense,
    /// The largest value of every window.
    MaxPool,
    /// The mean of every window.
    AvgPool,
    /// The mean of every channel.
    GlobalAvgPool,
    /// `max(x, 0)` that no product takes in.
    Relu,
    /// `min(max(x, 0), 6)` that no product takes in.
    Relu6,
    /// The relu with a slope.
    LeakyRelu,
    /// `x Φ(x)`
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Sigmoid,
    /// Dropout; when served it is the identity and costs nothing.
    Dropout,
    /// Group or layer normalisation.
    Norm,
    /// Batch normalisation that no product takes in.
    BatchNorm,
    /// A row of a table for each token.
    Embedding,
    /// The sum of two values.
    Add,
    /// A long short-term memory, its input product apart.
    Lstm,
    /// A gated recurrent unit, its input product apart.
    Gru,
    /// Scaled dot-product attention, its projections apart.
    Attention,
    /// The last position of a sequence.
    Last,
    /// A table added to every position.
    Position,
}

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The outputs.
    Forward,
    /// The gradient of the inputs.
    BackwardInput,
    /// The gradient of the parameters.
    BackwardWeight,
    /// The step of the optimizer (plain SGD), once a batch.
    Update,
}

/// One operator's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OpWork {
    /// Its node in the graph.
    pub node: usize,
    /// What it computes.
    pub operator: Operator,
    /// The kind of arithmetic.
    pub kind: Kind,
    /// The part of the step.
    pub phase: Phase,
    /// Multiply-accumulates for one example; for [`Phase::Update`] once a batch.
    pub macs: u64,
    /// Channels that a product gives; 0 for all else, and behind the forward pass.
    pub columns: u64,
    /// Numbers that it gives for one example; 0 for a depthwise one, too.
    pub outputs: u64,
    /// Numbers that it gathers for them, from windows larger than one position; 0 for a depthwise
    /// one, too.
    pub gathered: u64,
    /// Values that it reads and writes for one example; for [`Phase::Update`] none.
    pub values: u64,
    /// Parameters that it reads once a batch, and, in [`Phase::Update`], also writes.
    pub parameters: u64,
    /// Numbers as large as parameters that are read or written beside them: gradients.
    pub gradients: u64,
}

/// A value that one operator gives and another takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The operator that gives it; none for the graph's input.
    pub from: Option<usize>,
    /// The operator that takes it; none for the graph's output.
    pub to: Option<usize>,
    /// Values for one example.
    pub values: u64,
}

/// What a graph does for one example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The operators, in the order of computation.
    pub ops: Vec<OpWork>,
    /// The values between them; none in training.
    pub edges: Vec<Edge>,
    /// Whether it is a training step.
    pub training: bool,
}

impl Operator {
    fn of(op: &Op) -> Self {
        match op {
            Op::Dense { .. } => Self::Dense,
            Op::Conv { geometry, .. } if geometry.is_depthwise() => Self::Depthwise,
            Op::Conv { .. } => Self::Conv,
            Op::MaxPool(_) => Self::MaxPool,
            Op::AvgPool(_) => Self::AvgPool,
            Op::GlobalAvgPool { .. } => Self::GlobalAvgPool,
            Op::Function(Function::Relu) => Self::Relu,
            Op::Function(Function::Relu6) => Self::Relu6,
            Op::Function(Function::LeakyRelu { .. }) => Self::LeakyRelu,
            Op::Function(Function::Gelu) => Self::Gelu,
            Op::Function(Function::Tanh) => Self::Tanh,
            Op::Function(Function::Sigmoid) => Self::Sigmoid,
            Op::Dropout { .. } => Self::Dropout,
            Op::Norm { .. } => Self::Norm,
            Op::BatchNorm { .. } => Self::BatchNorm,
            Op::Embedding { .. } => Self::Embedding,
            Op::Add { .. } => Self::Add,
            Op::Recurrent { geometry, .. } => match geometry.cell() {
                Cell::Lstm => Self::Lstm,
                Cell::Gru => Self::Gru,
            },
            Op::Attention(_) => Self::Attention,
            Op::Last { .. } => Self::Last,
            Op::Position { .. } => Self::Position,
        }
    }
}

impl Kind {
    fn of(op: &Op) -> Self {
        match op {
            Op::Dense { .. } => Self::Dense,
            Op::Conv { geometry, .. } if geometry.is_depthwise() => Self::Depthwise,
            Op::Conv { geometry, .. } if is_winograd(geometry) => Self::Winograd,
            Op::Conv { .. } | Op::Attention(_) => Self::Conv,
            // A product with a matrix for every position.
            Op::Recurrent { .. } => Self::Dense,
            _ => Self::Elementwise,
        }
    }
}

/// Whether Winograd's algorithm computes it (Lavin & Gray 2016, arXiv:1509.09308).
fn is_winograd(conv: &Conv) -> bool {
    let shape = conv.shape();
    shape.kernel == [3, 3] && shape.stride == [1, 1] && shape.groups == 1
}

/// The shape of a product, as far as its cost depends on it.
#[derive(Clone, Copy, Default)]
struct Shape {
    columns: u64,
    outputs: u64,
    gathered: u64,
}

fn product(graph: &Graph, node: &Node) -> Shape {
    let outputs = graph.values[node.output].len() as u64;
    match &node.op {
        Op::Dense { geometry, .. } => Shape {
            columns: geometry.outputs as u64,
            outputs,
            gathered: 0,
        },
        Op::Conv { geometry, .. } => {
            let shape = geometry.shape();
            let filters = shape.filters as u64;
            match (geometry.is_depthwise(), shape.kernel) {
                (true, _) => Shape {
                    columns: filters,
                    ..Shape::default()
                },
                (false, [1, 1]) => Shape {
                    columns: filters,
                    outputs,
                    gathered: 0,
                },
                (false, _) => Shape {
                    columns: filters,
                    outputs,
                    gathered: node.macs() / filters.max(1) * shape.groups as u64,
                },
            }
        }
        _ => Shape::default(),
    }
}

/// Parameters of a node, from its shape.
fn parameters(graph: &Graph, node: &Node) -> u64 {
    let count = match &node.op {
        Op::Position { .. } => graph.values[node.output].len(),
        Op::Dense { geometry, bias, .. } => {
            geometry.inputs * geometry.outputs + bias.map_or(0, |_| geometry.outputs)
        }
        Op::Conv { geometry, bias, .. } => {
            geometry.weight_len() + bias.map_or(0, |_| geometry.shape().filters)
        }
        Op::Norm { geometry, .. } => 2 * geometry.channels(),
        // Scale, shift and the running statistics.
        Op::BatchNorm { channels, .. } => 4 * channels,
        Op::Recurrent { geometry, bias, .. } => {
            geometry.transposed_len() + bias.map_or(0, |_| geometry.units())
        }
        _ => 0,
    };
    count as u64
}

/// Parameters of a node that an optimizer moves.
fn trained(graph: &Graph, node: &Node, vocabulary: usize) -> u64 {
    match &node.op {
        Op::BatchNorm { channels, .. } => 2 * *channels as u64,
        Op::Embedding { size, .. } => (size * vocabulary) as u64,
        _ => parameters(graph, node),
    }
}

impl Work {
    /// What serving the graph does.
    #[must_use]
    pub fn inference(graph: &Graph) -> Self {
        let len = |value: ValueId| graph.values[value].len() as u64;
        let mut giver = vec![None; graph.values.len()];
        let (mut ops, mut edges) = (Vec::new(), Vec::new());
        for unit in units(graph) {
            let node = &graph.nodes[unit.node];
            let mut inputs: Vec<ValueId> = node.inputs().collect();
            inputs.extend(unit.residual.as_ref().map(|residual| residual.other));
            if matches!(node.op, Op::Dropout { .. }) {
                giver[graph.values[unit.output].root] = giver[graph.values[node.input].root];
                continue;
            }
            let index = ops.len();
            for &input in &inputs {
                let (from, values) = (giver[graph.values[input].root], len(input));
                edges.push(Edge {
                    from,
                    to: Some(index),
                    values,
                });
            }
            // An embedding reads the rows of its tokens, not the table.
            let read = match node.op {
                Op::Embedding { .. } => len(node.input) + len(node.output),
                _ => inputs.iter().map(|&input| len(input)).sum(),
            };
            let shape = product(graph, node);
            ops.push(OpWork {
                node: unit.node,
                operator: Operator::of(&node.op),
                kind: Kind::of(&node.op),
                phase: Phase::Forward,
                macs: node.macs(),
                columns: shape.columns,
                outputs: shape.outputs,
                gathered: shape.gathered,
                values: read + len(unit.output),
                parameters: parameters(graph, node),
                gradients: 0,
            });
            giver[graph.values[unit.output].root] = Some(index);
        }
        let output = graph.output;
        let (from, values) = (giver[graph.values[output].root], len(output));
        edges.push(Edge {
            from,
            to: None,
            values,
        });
        Self {
            ops,
            edges,
            training: false,
        }
    }

    /// What a step of training with plain SGD does: forward, backward, update. The gradient of a
    /// value is computed only where parameters lie before it, as the runtime does it.
    #[must_use]
    pub fn training(graph: &Graph) -> Self {
        let len = |value: ValueId| graph.values[value].len() as u64;
        let vocabulary = match graph.input {
            fl_core::InputSpec::Tokens { vocabulary, .. } => vocabulary,
            fl_core::InputSpec::Real(_) => 0,
        };
        // Whether parameters lie before a value.
        let mut learns = vec![false; graph.values.len()];
        for node in &graph.nodes {
            let before = node.inputs().any(|input| learns[graph.values[input].root]);
            learns[graph.values[node.output].root] = before || trained(graph, node, vocabulary) > 0;
        }
        let base = |index: usize, node: &Node| OpWork {
            node: index,
            operator: Operator::of(&node.op),
            kind: Kind::of(&node.op),
            phase: Phase::Forward,
            macs: node.macs(),
            columns: product(graph, node).columns,
            outputs: product(graph, node).outputs,
            gathered: product(graph, node).gathered,
            values: node.inputs().map(len).sum::<u64>() + len(node.output),
            parameters: parameters(graph, node),
            gradients: 0,
        };
        let mut ops = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            ops.push(base(index, node));
        }
        let mut moved = 0;
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            let forward = base(index, node);
            // Its products are taken as matrix products.
            let forward = OpWork {
                kind: match forward.kind {
                    Kind::Winograd => Kind::Conv,
                    kind => kind,
                },
                columns: 0,
                outputs: 0,
                gathered: 0,
                ..forward
            };
            let own = trained(graph, node, vocabulary);
            moved += own;
            if own > 0 {
                // Reads the input and the output's gradient, writes the parameters' gradient.
                let gradients = match node.op {
                    Op::Embedding { .. } => 0,
                    _ => own,
                };
                ops.push(OpWork {
                    phase: Phase::BackwardWeight,
                    parameters: 0,
                    gradients,
                    ..forward
                });
            }
            if node.inputs().any(|input| learns[graph.values[input].root]) {
                // An attention has four products backward and two forward.
                let macs = match node.op {
                    Op::Attention(_) => 2 * forward.macs,
                    _ => forward.macs,
                };
                ops.push(OpWork {
                    phase: Phase::BackwardInput,
                    macs,
                    ..forward
                });
            }
        }
        if moved > 0 {
            ops.push(OpWork {
                node: graph.nodes.len().saturating_sub(1),
                operator: Operator::Add,
                kind: Kind::Elementwise,
                phase: Phase::Update,
                macs: moved,
                columns: 0,
                outputs: 0,
                gathered: 0,
                values: 0,
                // Read and written.
                parameters: 2 * moved,
                gradients: moved,
            });
        }
        Self {
            ops,
            edges: Vec::new(),
            training: true,
        }
    }

    /// Multiply-accumulates for one example; with the update's, in training.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.ops.iter().map(|op| op.macs).sum()
    }

    /// Multiply-accumulates of a phase.
    #[must_use]
    pub fn macs_of(&self, phase: Phase) -> u64 {
        let ops = self.ops.iter().filter(|op| op.phase == phase);
        ops.map(|op| op.macs).sum()
    }

    /// Parameters that the forward pass reads.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let ops = self.ops.iter().filter(|op| op.phase == Phase::Forward);
        ops.map(|op| op.parameters).sum()
    }
}
