//! The memory plan: every operator's buffers at fixed places in one arena.
//!
//! A buffer lives from the first to the last operator that touches it, backward pass included.
//! Buffers are placed largest first, each at the lowest place where it overlaps no buffer that is
//! alive at the same time (greedy by size: Pisarchyk & Lee 2020, arXiv:2001.03288, §5.1). Nothing
//! is allocated or looked up by name afterwards.

use core::ops::Range;

use crate::graph::{Function, Graph, Node, Op, ValueId};
use crate::kernel::{Activation, Conv, Dense, Norm, Pool, Write};
use crate::model::Model;

/// Numbers between the starts of buffers: 64 bytes.
const ALIGNMENT: usize = 16;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forward and backward.
    Training,
    /// Forward alone, without dropout.
    Evaluation,
}

/// Index of a buffer in the arena of numbers.
pub(crate) type Slot = usize;

/// A buffer's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    /// Numbers for each example.
    row: usize,
    /// Numbers whatever the batch.
    fixed: usize,
}

/// A buffer of bytes: so many for each example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    offset: usize,
    pub(crate) row: usize,
}

impl Bytes {
    pub(crate) fn range(self, rows: usize) -> Range<usize> {
        self.offset..self.offset + rows * self.row
    }

    /// The part of one example.
    pub(crate) fn example(self, row: usize) -> Range<usize> {
        self.offset + row * self.row..self.offset + (row + 1) * self.row
    }
}

/// A dropout mask to be drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) keep: Bytes,
    /// A value is dropped when its 32 random bits are below this.
    pub(crate) threshold: u32,
}

/// A tensor's elements in the flat vector.
pub(crate) type Tensor = Range<usize>;

/// One operator of the forward pass.
#[derive(Debug)]
pub(crate) enum Forward {
    Dense {
        geometry: Dense,
        x: Slot,
        y: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
        relu: bool,
    },
    Conv {
        geometry: Conv,
        x: Slot,
        /// Where the padded input goes, if it must be padded.
        padded: Option<Slot>,
        y: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
        relu: bool,
    },
    MaxPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
        argmax: Bytes,
    },
    AvgPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
    },
    GlobalAvgPool {
        positions: usize,
        channels: usize,
        x: Slot,
        y: Slot,
    },
    Activate {
        f: Activation,
        x: Slot,
        y: Slot,
    },
    ActivateInPlace {
        f: Activation,
        y: Slot,
    },
    Copy {
        x: Slot,
        y: Slot,
    },
    Dropout {
        keep: Bytes,
        scale: f32,
        y: Slot,
    },
    Norm {
        geometry: Norm,
        x: Slot,
        y: Slot,
        stats: Slot,
        scratch: Slot,
        gamma: Tensor,
        beta: Tensor,
    },
    Embedding {
        size: usize,
        table: Tensor,
        y: Slot,
    },
    Add {
        x: Slot,
        y: Slot,
    },
}

/// One operator of the backward pass.
#[derive(Debug)]
pub(crate) enum Backward {
    Dense {
        geometry: Dense,
        x: Slot,
        dy: Slot,
        dx: Option<(Slot, Write)>,
        scratch: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Conv {
        geometry: Conv,
        x: Slot,
        dy: Slot,
        dx: Option<(Slot, Write)>,
        dx_scratch: Slot,
        dw_scratch: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    MaxPool {
        geometry: Pool,
        argmax: Bytes,
        dy: Slot,
        dx: Slot,
    },
    AvgPool {
        geometry: Pool,
        dy: Slot,
        dx: Slot,
    },
    GlobalAvgPool {
        positions: usize,
        channels: usize,
        dy: Slot,
        dx: Slot,
    },
    /// `dy *= f'` in place.
    Activate {
        f: Activation,
        kept: Slot,
        dy: Slot,
    },
    Dropout {
        keep: Bytes,
        scale: f32,
        dy: Slot,
    },
    Norm {
        geometry: Norm,
        x: Slot,
        stats: Slot,
        dy: Slot,
        dx: Option<Slot>,
        scratch: Slot,
        gamma: Tensor,
        beta: Tensor,
    },
    Embedding {
        size: usize,
        table: Tensor,
        dy: Slot,
    },
    Copy {
        from: Slot,
        to: Slot,
    },
    Add {
        from: Slot,
        to: Slot,
    },
    Double {
        dy: Slot,
    },
}

/// The plan for batches of up to `rows` examples.
#[derive(Debug)]
pub(crate) struct Memory {
    rows: usize,
    places: Vec<Place>,
    len: usize,
    bytes: usize,
    pub(crate) forward: Vec<Forward>,
    pub(crate) backward: Vec<Backward>,
    /// Where the inputs go, unless they are tokens.
    pub(crate) input: Slot,
    pub(crate) output: Slot,
    pub(crate) output_gradient: Slot,
    pub(crate) masks: Vec<Mask>,
    /// Whether some gradients are stored even when the others go straight into the parameters.
    pub(crate) stores_gradients: bool,
}

impl Memory {
    /// The plan of a model.
    pub(crate) fn new(model: &Model, rows: usize, mode: Mode) -> Self {
        Planner::new(model, rows, mode).run()
    }

    /// Examples in the largest batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in the arena.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes in the arena of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A buffer at a batch of `rows`.
    #[inline]
    pub(crate) fn at(&self, slot: Slot, rows: usize) -> Range<usize> {
        let Place { offset, row, fixed } = self.places[slot];
        offset..offset + rows * row + fixed
    }
}

/// What the backward pass needs of a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Nothing.
    No,
    /// Where it is above zero.
    Sign,
    /// Its values.
    Values,
}

struct Buffer {
    row: usize,
    fixed: usize,
    first: usize,
    last: usize,
    kept: Kept,
}

struct Planner<'a> {
    model: &'a Model,
    graph: &'a Graph,
    rows: usize,
    mode: Mode,
    time: usize,
    buffers: Vec<Buffer>,
    bytes: usize,
    /// Of each root value: its activation's buffer, its gradient's, whether it needs one.
    activation: Vec<Slot>,
    gradient: Vec<Option<Slot>>,
    needs_gradient: Vec<bool>,
    /// Of each node: padded input or statistics, argmax or mask.
    saved: Vec<Option<Slot>>,
    saved_bytes: Vec<Option<Bytes>>,
    forward: Vec<Forward>,
    backward: Vec<Backward>,
    masks: Vec<Mask>,
    stores_gradients: bool,
}

/// Stands for "no buffer yet".
const NONE: Slot = usize::MAX;

impl<'a> Planner<'a> {
    fn new(model: &'a Model, rows: usize, mode: Mode) -> Self {
        let graph = &model.graph;
        let values = graph.values.len();
        let mut needs_gradient = vec![false; values];
        for node in &graph.nodes {
            let own = matches!(
                node.op,
                Op::Dense { .. } | Op::Conv { .. } | Op::Norm { .. } | Op::Embedding { .. }
            );
            let needs = own
                || node
                    .inputs()
                    .any(|value| needs_gradient[graph.values[value].root]);
            needs_gradient[graph.values[node.output].root] = needs;
        }
        Self {
            model,
            graph,
            rows,
            mode,
            time: 0,
            buffers: Vec::new(),
            bytes: 0,
            activation: vec![NONE; values],
            gradient: vec![None; values],
            needs_gradient,
            saved: vec![None; graph.nodes.len()],
            saved_bytes: vec![None; graph.nodes.len()],
            forward: Vec::new(),
            backward: Vec::new(),
            masks: Vec::new(),
            stores_gradients: false,
        }
    }

    fn run(mut self) -> Memory {
        let tokens = matches!(self.graph.input, fl_core::InputSpec::Tokens { .. });
        let input_len = if tokens { 0 } else { self.len(0) };
        let input = self.buffer(input_len, 0);
        self.activation[0] = input;
        for index in 0..self.graph.nodes.len() {
            self.time += 1;
            self.forward(index);
        }
        self.time += 1;
        let root = self.root(self.graph.output);
        let output = self.use_activation(root);
        let output_gradient = self.buffer(self.len(root), 0);
        if self.mode == Mode::Training && self.needs_gradient[root] {
            self.gradient[root] = Some(output_gradient);
            for index in (0..self.graph.nodes.len()).rev() {
                self.time += 1;
                self.backward(index);
            }
        }
        let (places, len) = place(&self.buffers, self.rows);
        Memory {
            rows: self.rows,
            places,
            len,
            bytes: self.bytes,
            forward: self.forward,
            backward: self.backward,
            input,
            output,
            output_gradient,
            masks: self.masks,
            stores_gradients: self.stores_gradients,
        }
    }

    fn root(&self, value: ValueId) -> ValueId {
        self.graph.values[value].root
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value].len()
    }

    fn tensor(&self, tensor: usize) -> Tensor {
        self.model.layout().tensors()[tensor].range()
    }

    fn buffer(&mut self, row: usize, fixed: usize) -> Slot {
        self.buffers.push(Buffer {
            row,
            fixed,
            first: self.time,
            last: self.time,
            kept: Kept::No,
        });
        self.buffers.len() - 1
    }

    fn byte_buffer(&mut self, row: usize) -> Bytes {
        let offset = self.bytes;
        self.bytes += (self.rows * row).next_multiple_of(64);
        Bytes { offset, row }
    }

    fn touch(&mut self, slot: Slot) -> Slot {
        self.buffers[slot].last = self.time;
        slot
    }

    fn use_activation(&mut self, root: ValueId) -> Slot {
        self.touch(self.activation[root])
    }

    fn keep(&mut self, slot: Slot, kept: Kept) {
        if self.mode == Mode::Training && self.buffers[slot].kept != Kept::Values {
            self.buffers[slot].kept = kept;
        }
    }

    /// Whether the only reader of a value may overwrite it.
    fn may_overwrite(&self, root: ValueId, signs_stay: bool) -> bool {
        root != 0
            && self.graph.readers(root) == 1
            && match self.buffers[self.activation[root]].kept {
                Kept::No => true,
                Kept::Sign => signs_stay,
                Kept::Values => false,
            }
    }

    /// Whether the relu in the node's product is undone by the pooling that alone reads it: a
    /// maximum is above zero exactly where the input that it came from is.
    fn relu_left_to_pool(&self, index: usize) -> bool {
        let root = self.root(self.graph.nodes[index].output);
        self.graph.readers(root) == 1
            && self
                .graph
                .nodes
                .iter()
                .any(|node| matches!(node.op, Op::MaxPool(_)) && self.root(node.input) == root)
    }

    /// Whether the node that gives this value left its relu to the pooling that reads it.
    fn pool_undoes_relu(&self, value: ValueId) -> bool {
        let root = self.root(value);
        self.graph.readers(root) == 1
            && self.graph.nodes.iter().any(|node| {
                self.root(node.output) == root
                    && matches!(
                        node.op,
                        Op::Dense { relu: true, .. } | Op::Conv { relu: true, .. }
                    )
            })
    }

    fn forward(&mut self, index: usize) {
        let Node { op, input, output } = self.graph.nodes[index].clone();
        let (source, target) = (self.root(input), self.root(output));
        let x = match op {
            Op::Embedding { .. } => NONE,
            _ => self.use_activation(source),
        };
        let out_len = self.len(output);
        match op {
            Op::Dense {
                geometry,
                weight,
                bias,
                relu,
            } => {
                self.keep(x, Kept::Values);
                let y = self.output(target, out_len);
                if relu {
                    self.keep(y, Kept::Sign);
                }
                self.forward.push(Forward::Dense {
                    geometry,
                    x,
                    y,
                    weight: self.tensor(weight),
                    bias: bias.map(|bias| self.tensor(bias)),
                    relu,
                });
            }
            Op::Conv {
                geometry,
                weight,
                bias,
                relu,
            } => {
                let padded = geometry
                    .is_padded()
                    .then(|| self.buffer(geometry.padded_len(), 0));
                match padded {
                    Some(_) => self.saved[index] = padded,
                    None => self.keep(x, Kept::Values),
                }
                let y = self.output(target, out_len);
                if relu && !self.relu_left_to_pool(index) {
                    self.keep(y, Kept::Sign);
                }
                self.forward.push(Forward::Conv {
                    geometry,
                    x,
                    padded,
                    y,
                    weight: self.tensor(weight),
                    bias: bias.map(|bias| self.tensor(bias)),
                    relu,
                });
            }
            Op::MaxPool(geometry) => {
                let y = self.output(target, out_len);
                if self.pool_undoes_relu(input) {
                    self.keep(y, Kept::Sign);
                }
                let argmax = self.byte_buffer(out_len);
                self.saved_bytes[index] = Some(argmax);
                self.forward.push(Forward::MaxPool {
                    geometry,
                    x,
                    y,
                    argmax,
                });
            }
            Op::AvgPool(geometry) => {
                let y = self.output(target, out_len);
                self.forward.push(Forward::AvgPool { geometry, x, y });
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => {
                let y = self.output(target, out_len);
                self.forward.push(Forward::GlobalAvgPool {
                    positions,
                    channels,
                    x,
                    y,
                });
            }
            Op::Function(function) => {
                let f = kernel_function(function);
                let y = if !f.keeps_input() && self.may_overwrite(source, false) {
                    self.activation[target] = x;
                    self.forward.push(Forward::ActivateInPlace { f, y: x });
                    x
                } else {
                    let y = self.output(target, out_len);
                    self.forward.push(Forward::Activate { f, x, y });
                    y
                };
                let kept = if f.keeps_input() { x } else { y };
                self.keep(kept, Kept::Values);
            }
            Op::Dropout { rate } => self.dropout(index, rate, x, source, target),
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                self.keep(x, Kept::Values);
                let stats = self.buffer(geometry.stats_len(), 0);
                self.saved[index] = Some(stats);
                let scratch = self.buffer(0, geometry.scratch_len());
                let y = self.output(target, out_len);
                self.forward.push(Forward::Norm {
                    geometry,
                    x,
                    y,
                    stats,
                    scratch,
                    gamma: self.tensor(scale),
                    beta: self.tensor(shift),
                });
            }
            Op::Embedding { table, size, .. } => {
                let y = self.output(target, out_len);
                self.forward.push(Forward::Embedding {
                    size,
                    table: self.tensor(table),
                    y,
                });
            }
            Op::Add { other } => {
                let other = self.use_activation(self.root(other));
                let y = if self.may_overwrite(source, false) {
                    self.activation[target] = x;
                    x
                } else {
                    let y = self.output(target, out_len);
                    self.forward.push(Forward::Copy { x, y });
                    y
                };
                self.forward.push(Forward::Add { x: other, y });
            }
        }
    }

    fn output(&mut self, root: ValueId, len: usize) -> Slot {
        let slot = self.buffer(len, 0);
        self.activation[root] = slot;
        slot
    }

    fn dropout(&mut self, index: usize, rate: f32, x: Slot, source: ValueId, target: ValueId) {
        if self.mode == Mode::Evaluation {
            self.activation[target] = x;
            return;
        }
        let len = self.len(source);
        let keep = self.byte_buffer(len);
        self.saved_bytes[index] = Some(keep);
        // Exact for any rate: a product of an f32 below 1 and 2^32 fits an f64.
        let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
        self.masks.push(Mask { keep, threshold });
        // A dropped value has no gradient, so whether it was above zero does not matter.
        let y = if self.may_overwrite(source, true) {
            self.activation[target] = x;
            x
        } else {
            let y = self.output(target, len);
            self.forward.push(Forward::Copy { x, y });
            y
        };
        let scale = 1.0 / (1.0 - rate);
        self.forward.push(Forward::Dropout { keep, scale, y });
    }

    /// The gradient buffer of `root` and whether to add to it.
    fn gradient_of(&mut self, root: ValueId) -> Option<(Slot, Write)> {
        if !self.needs_gradient[root] {
            return None;
        }
        match self.gradient[root] {
            Some(slot) => Some((self.touch(slot), Write::Add)),
            None => {
                let slot = self.buffer(self.len(root), 0);
                self.gradient[root] = Some(slot);
                Some((slot, Write::Store))
            }
        }
    }

    /// Hands the gradient in `dy` to `root`: the buffer itself when it is the first.
    fn pass_on(&mut self, dy: Slot, root: ValueId) {
        if !self.needs_gradient[root] {
            return;
        }
        match self.gradient[root] {
            None => self.gradient[root] = Some(dy),
            Some(to) => {
                self.touch(to);
                self.backward.push(Backward::Add { from: dy, to });
            }
        }
    }

    /// A buffer for an operator that can only overwrite, then [`Self::pass_on`].
    fn overwrite(&mut self, root: ValueId, step: impl FnOnce(Slot) -> Backward) {
        if self.needs_gradient[root] {
            let dx = self.buffer(self.len(root), 0);
            self.backward.push(step(dx));
            self.pass_on(dx, root);
        }
    }

    fn undo_relu(&mut self, f: Activation, root: ValueId, dy: Slot) {
        let kept = self.use_activation(root);
        self.backward.push(Backward::Activate { f, kept, dy });
    }

    fn backward(&mut self, index: usize) {
        let Node { op, input, output } = self.graph.nodes[index].clone();
        let (source, target) = (self.root(input), self.root(output));
        if !self.needs_gradient[target] {
            return;
        }
        let Some(dy) = self.gradient[target] else {
            return;
        };
        self.touch(dy);
        match op {
            Op::Dense {
                geometry,
                weight,
                bias,
                relu,
            } => {
                if relu {
                    self.undo_relu(Activation::Relu, target, dy);
                }
                let x = self.use_activation(source);
                let dx = self.gradient_of(source);
                let scratch = self.buffer(0, geometry.dx_scratch_len());
                self.backward.push(Backward::Dense {
                    geometry,
                    x,
                    dy,
                    dx,
                    scratch,
                    weight: self.tensor(weight),
                    bias: bias.map(|bias| self.tensor(bias)),
                });
            }
            Op::Conv {
                geometry,
                weight,
                bias,
                relu,
            } => {
                if relu && !self.relu_left_to_pool(index) {
                    self.undo_relu(Activation::Relu, target, dy);
                }
                let x = match self.saved[index] {
                    Some(padded) => self.touch(padded),
                    None => self.use_activation(source),
                };
                let dx = self.gradient_of(source);
                let dx_len = match dx {
                    Some(_) => geometry.dx_scratch_len(self.rows),
                    None => 0,
                };
                let dx_scratch = self.buffer(0, dx_len);
                let dw_scratch = self.buffer(0, geometry.dw_scratch_len());
                self.backward.push(Backward::Conv {
                    geometry,
                    x,
                    dy,
                    dx,
                    dx_scratch,
                    dw_scratch,
                    weight: self.tensor(weight),
                    bias: bias.map(|bias| self.tensor(bias)),
                });
            }
            Op::MaxPool(geometry) => {
                if self.pool_undoes_relu(input) {
                    self.undo_relu(Activation::Relu, target, dy);
                }
                if let Some(argmax) = self.saved_bytes[index] {
                    self.overwrite(source, |dx| Backward::MaxPool {
                        geometry,
                        argmax,
                        dy,
                        dx,
                    });
                }
            }
            Op::AvgPool(geometry) => {
                self.overwrite(source, |dx| Backward::AvgPool { geometry, dy, dx });
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => self.overwrite(source, |dx| Backward::GlobalAvgPool {
                positions,
                channels,
                dy,
                dx,
            }),
            Op::Function(function) => {
                let f = kernel_function(function);
                let kept = if f.keeps_input() { source } else { target };
                self.undo_relu(f, kept, dy);
                self.pass_on(dy, source);
            }
            Op::Dropout { rate } => {
                if let Some(keep) = self.saved_bytes[index] {
                    let scale = 1.0 / (1.0 - rate);
                    self.backward.push(Backward::Dropout { keep, scale, dy });
                }
                self.pass_on(dy, source);
            }
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                self.stores_gradients = true;
                let x = self.use_activation(source);
                let stats = self.saved[index].unwrap_or(NONE);
                self.touch(stats);
                let scratch = self.buffer(0, geometry.scratch_len());
                let dx = match self.needs_gradient[source] {
                    true => Some(self.buffer(self.len(source), 0)),
                    false => None,
                };
                self.backward.push(Backward::Norm {
                    geometry,
                    x,
                    stats,
                    dy,
                    dx,
                    scratch,
                    gamma: self.tensor(scale),
                    beta: self.tensor(shift),
                });
                if let Some(dx) = dx {
                    self.pass_on(dx, source);
                }
            }
            Op::Embedding { table, size, .. } => {
                self.stores_gradients = true;
                self.backward.push(Backward::Embedding {
                    size,
                    table: self.tensor(table),
                    dy,
                });
            }
            Op::Add { other } => {
                let other = self.root(other);
                if other == source {
                    self.backward.push(Backward::Double { dy });
                } else if self.needs_gradient[other] {
                    match self.gradient[other] {
                        Some(to) => {
                            self.touch(to);
                            self.backward.push(Backward::Add { from: dy, to });
                        }
                        None if self.needs_gradient[source] => {
                            let to = self.buffer(self.len(other), 0);
                            self.gradient[other] = Some(to);
                            self.backward.push(Backward::Copy { from: dy, to });
                        }
                        None => self.gradient[other] = Some(dy),
                    }
                }
                self.pass_on(dy, source);
            }
        }
    }
}

pub(crate) fn kernel_function(function: Function) -> Activation {
    match function {
        Function::Relu => Activation::Relu,
        Function::LeakyRelu { slope } => Activation::Leaky { slope },
        Function::Gelu => Activation::Gelu,
        Function::Tanh => Activation::Tanh,
        Function::Sigmoid => Activation::Sigmoid,
    }
}

/// Places the buffers; the places and the length of the arena.
fn place(buffers: &[Buffer], rows: usize) -> (Vec<Place>, usize) {
    let size = |buffer: &Buffer| (rows * buffer.row + buffer.fixed).next_multiple_of(ALIGNMENT);
    let mut order = (0..buffers.len()).collect::<Vec<_>>();
    order.sort_by_key(|&index| (core::cmp::Reverse(size(&buffers[index])), index));
    let mut places = buffers
        .iter()
        .map(|buffer| Place {
            offset: 0,
            row: buffer.row,
            fixed: buffer.fixed,
        })
        .collect::<Vec<_>>();
    let mut placed = Vec::<(Range<usize>, usize)>::new();
    let mut len = 0;
    for index in order {
        let buffer = &buffers[index];
        let mut offset = 0;
        // `placed` is in the order of offsets.
        for (range, other) in &placed {
            let other = &buffers[*other];
            let together = other.first <= buffer.last && buffer.first <= other.last;
            if together && range.start < offset + size(buffer) && offset < range.end {
                offset = range.end;
            }
        }
        places[index].offset = offset;
        let range = offset..offset + size(buffer);
        len = len.max(range.end);
        let at = placed.partition_point(|(other, _)| other.start <= range.start);
        placed.insert(at, (range, index));
    }
    (places, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Buffers alive at the same time do not overlap; the arena holds all, aligned, and is
        /// no longer than their sum.
        #[test]
        fn buffers_alive_together_are_apart(
            sizes in proptest::collection::vec((0usize..50, 0usize..50, 0usize..20, 0usize..8), 1..40),
            rows in 1usize..5,
        ) {
            let buffers = sizes
                .iter()
                .map(|&(row, fixed, first, length)| Buffer {
                    row,
                    fixed,
                    first,
                    last: first + length,
                    kept: Kept::No,
                })
                .collect::<Vec<_>>();
            let (places, len) = place(&buffers, rows);
            let end = |index: usize| {
                places[index].offset + rows * places[index].row + places[index].fixed
            };
            let mut sum = 0;
            for (a, one) in buffers.iter().enumerate() {
                prop_assert_eq!(places[a].offset % ALIGNMENT, 0);
                prop_assert!(end(a) <= len);
                sum += (end(a) - places[a].offset).next_multiple_of(ALIGNMENT);
                for (b, other) in buffers.iter().enumerate().skip(a + 1) {
                    let together = one.first <= other.last && other.first <= one.last;
                    let apart = end(a) <= places[b].offset || end(b) <= places[a].offset;
                    prop_assert!(!together || apart, "{} and {}", a, b);
                }
            }
            prop_assert!(len <= sum);
        }
    }
}
