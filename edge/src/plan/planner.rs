//! Makes the plan of a model.

use super::place::{Buffer, Kept, place};
use super::{Backward, Bytes, Forward, Mask, Memory, Mode, NormStep, Running, Slot, Tensor};
use crate::graph::{Function, Graph, Node, Op, ValueId};
use crate::kernel::{Activation, BatchNorm, Conv, Dense, Fused, Write};
use crate::model::Model;

/// Walks the graph forward, then backward, and notes who touches which buffer when.
pub(super) struct Planner<'a> {
    model: &'a Model,
    graph: &'a Graph,
    rows: usize,
    mode: Mode,
    time: usize,
    buffers: Vec<Buffer>,
    bytes: usize,
    /// Of each root value: its activation's buffer, whether a value that others read lies there
    /// too, its gradient's buffer, whether it needs one.
    activation: Vec<Slot>,
    shared: Vec<bool>,
    gradient: Vec<Option<Slot>>,
    needs_gradient: Vec<bool>,
    /// Of each node: padded input or statistics, argmax or mask.
    saved: Vec<Option<Slot>>,
    saved_bytes: Vec<Option<Bytes>>,
    forward: Vec<Forward>,
    backward: Vec<Backward>,
    masks: Vec<Mask>,
    running: Vec<Running>,
    norms: Vec<NormStep>,
    weighted: Vec<Backward>,
    stores_gradients: bool,
}

/// Stands for "no buffer yet".
const NONE: Slot = usize::MAX;

impl<'a> Planner<'a> {
    pub(super) fn new(model: &'a Model, rows: usize, mode: Mode) -> Self {
        let graph = &model.graph;
        let values = graph.values.len();
        let mut needs_gradient = vec![false; values];
        for node in &graph.nodes {
            let own = matches!(
                node.op,
                Op::Dense { .. }
                    | Op::Conv { .. }
                    | Op::Norm { .. }
                    | Op::BatchNorm { .. }
                    | Op::Embedding { .. }
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
            shared: vec![false; values],
            gradient: vec![None; values],
            needs_gradient,
            saved: vec![None; graph.nodes.len()],
            saved_bytes: vec![None; graph.nodes.len()],
            forward: Vec::new(),
            backward: Vec::new(),
            masks: Vec::new(),
            running: Vec::new(),
            norms: Vec::new(),
            weighted: Vec::new(),
            stores_gradients: false,
        }
    }

    pub(super) fn run(mut self) -> Memory {
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
        if self.mode != Mode::Evaluation && self.needs_gradient[root] {
            self.gradient[root] = Some(output_gradient);
            for index in (0..self.graph.nodes.len()).rev() {
                self.time += 1;
                self.backward(index);
            }
            if self.mode == Mode::PerExample {
                self.weighted();
            }
        }
        // After the backward pass the statistics of the batch are read once more.
        self.time += 1;
        for index in 0..self.running.len() {
            self.touch(self.running[index].stats);
        }
        let (places, len) = place(&self.buffers, self.rows);
        Memory {
            rows: self.rows,
            places,
            lives: self
                .buffers
                .iter()
                .map(|buffer| buffer.first..=buffer.last)
                .collect(),
            len,
            bytes: self.bytes,
            forward: self.forward,
            backward: self.backward,
            input,
            output,
            output_gradient,
            masks: self.masks,
            running: self.running,
            norms: self.norms,
            weighted: self.weighted,
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
        if self.mode != Mode::Evaluation && self.buffers[slot].kept != Kept::Values {
            self.buffers[slot].kept = kept;
        }
    }

    /// Whether a value has one reader, and its memory no other.
    fn read_once(&self, root: ValueId) -> bool {
        root != 0 && !self.shared[root] && self.graph.readers(root) == 1
    }

    /// Whether the only reader of a value may overwrite it.
    fn may_overwrite(&self, root: ValueId, signs_stay: bool) -> bool {
        self.read_once(root)
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

    /// What the node that gives this value left to the pooling that reads it.
    fn left_to_pool(&self, value: ValueId) -> Fused {
        let root = self.root(value);
        if self.graph.readers(root) != 1 {
            return Fused::None;
        }
        let giver = self
            .graph
            .nodes
            .iter()
            .find(|node| self.root(node.output) == root);
        match giver.map(|node| &node.op) {
            Some(Op::Dense { fused, .. } | Op::Conv { fused, .. }) => *fused,
            _ => Fused::None,
        }
    }

    /// Keeps what the backward pass of a rectifier needs of its output.
    fn keep_fused(&mut self, fused: Fused, y: Slot) {
        match fused {
            Fused::None => {}
            Fused::Relu => self.keep(y, Kept::Sign),
            Fused::Relu6 => self.keep(y, Kept::Values),
        }
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
                fused,
            } => {
                self.keep(x, Kept::Values);
                let y = self.output(target, out_len);
                self.keep_fused(fused, y);
                self.forward.push(Forward::Dense {
                    geometry,
                    x,
                    y,
                    weight: self.tensor(weight),
                    bias: bias.map(|bias| self.tensor(bias)),
                    fused,
                });
            }
            Op::Conv {
                geometry,
                weight,
                bias,
                fused,
            } => {
                let padded = geometry
                    .is_padded()
                    .then(|| self.buffer(geometry.padded_len(), 0));
                match padded {
                    Some(_) => self.saved[index] = padded,
                    None => self.keep(x, Kept::Values),
                }
                let y = self.output(target, out_len);
                if !self.relu_left_to_pool(index) {
                    self.keep_fused(fused, y);
                }
                self.forward.push(Forward::Conv {
                    geometry,
                    x,
                    padded,
                    y,
                    weight: self.tensor(weight),
                    bias: bias.map(|bias| self.tensor(bias)),
                    fused,
                });
            }
            Op::MaxPool(geometry) => {
                let y = self.output(target, out_len);
                self.keep_fused(self.left_to_pool(input), y);
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
            Op::BatchNorm {
                channels,
                positions,
                scale,
                shift,
                mean,
                variance,
                epsilon,
                momentum,
                fused,
            } => {
                let geometry = batch_norm(positions, channels, epsilon);
                let (gamma, beta) = (self.tensor(scale), self.tensor(shift));
                let (mean, variance) = (self.tensor(mean), self.tensor(variance));
                if self.mode == Mode::Evaluation {
                    let r = self.buffer(0, channels);
                    let y = self.output(target, out_len);
                    self.forward.push(Forward::RunningNorm {
                        geometry,
                        epsilon,
                        x,
                        y,
                        r,
                        gamma,
                        beta,
                        mean,
                        variance,
                        fused,
                    });
                    return;
                }
                self.keep(x, Kept::Values);
                let stats = self.buffer(0, geometry.stats_len());
                self.saved[index] = Some(stats);
                self.running.push(Running {
                    stats,
                    mean,
                    variance,
                    momentum,
                    positions,
                });
                let y = self.output(target, out_len);
                self.forward.push(Forward::BatchNorm {
                    geometry,
                    x,
                    y,
                    stats,
                    gamma,
                    beta,
                    fused,
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
        if self.mode == Mode::Evaluation || rate == 0.0 {
            // The identity: the output lies where the input does, which may have other readers.
            self.activation[target] = x;
            self.shared[target] = !self.read_once(source);
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

    /// Notes the memory that the last operator of the backward pass needs for the norms of each
    /// example's gradients of these tensors.
    fn norms(&mut self, weight: usize, bias: Option<usize>, ghost: bool, scratch: usize) {
        if self.mode == Mode::PerExample {
            let scratch = self.buffer(0, scratch);
            self.norms.push(NormStep {
                step: self.backward.len() - 1,
                weight,
                bias,
                ghost,
                scratch,
            });
        }
    }

    /// The second time that parameters' gradients are computed, weighted by example: what they
    /// are made of lives on.
    fn weighted(&mut self) {
        for index in 0..self.norms.len() {
            self.time += 1;
            let mut step = self.backward[self.norms[index].step].clone();
            match &mut step {
                Backward::Dense { x, dy, .. } => {
                    self.touch(*x);
                    self.touch(*dy);
                }
                Backward::Conv {
                    geometry,
                    x,
                    dy,
                    dw_scratch,
                    ..
                } => {
                    self.touch(*x);
                    self.touch(*dy);
                    *dw_scratch = self.buffer(0, geometry.dw_scratch_len());
                }
                Backward::Norm { x, stats, dy, .. } => {
                    self.touch(*x);
                    self.touch(*stats);
                    self.touch(*dy);
                }
                Backward::Embedding { dy, .. } => {
                    self.touch(*dy);
                }
                _ => unreachable!("only operators with parameters have norms"),
            }
            self.weighted.push(step);
        }
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
                fused,
            } => {
                if let Some(f) = fused.activation() {
                    self.undo_relu(f, target, dy);
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
                self.norms(weight, bias, true, 0);
            }
            Op::Conv {
                geometry,
                weight,
                bias,
                fused,
            } => {
                if let Some(f) = fused.activation()
                    && !self.relu_left_to_pool(index)
                {
                    self.undo_relu(f, target, dy);
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
                let (ghost, scratch) = (is_ghost(&geometry), norm_scratch_len(&geometry));
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
                self.norms(weight, bias, ghost, scratch);
            }
            Op::MaxPool(geometry) => {
                if let Some(f) = self.left_to_pool(input).activation() {
                    self.undo_relu(f, target, dy);
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
                let sums = self.tensor(scale).len() + self.tensor(shift).len();
                self.norms(scale, Some(shift), false, sums);
                if let Some(dx) = dx {
                    self.pass_on(dx, source);
                }
            }
            Op::BatchNorm {
                channels,
                positions,
                scale,
                shift,
                epsilon,
                fused,
                ..
            } => {
                self.stores_gradients = true;
                let x = self.use_activation(source);
                let stats = self.saved[index].unwrap_or(NONE);
                self.touch(stats);
                self.backward.push(Backward::BatchNorm {
                    geometry: batch_norm(positions, channels, epsilon),
                    x,
                    stats,
                    dy,
                    dx: self.needs_gradient[source],
                    gamma: self.tensor(scale),
                    beta: self.tensor(shift),
                    fused,
                });
                self.pass_on(dy, source);
            }
            Op::Embedding { table, size, .. } => {
                self.stores_gradients = true;
                self.backward.push(Backward::Embedding {
                    size,
                    table: self.tensor(table),
                    dy,
                });
                self.norms(table, None, false, size);
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
        Function::Relu6 => Activation::Relu6,
        Function::LeakyRelu { slope } => Activation::Leaky { slope },
        Function::Gelu => Activation::Gelu,
        Function::Tanh => Activation::Tanh,
        Function::Sigmoid => Activation::Sigmoid,
    }
}

/// The geometry of a batch normalisation, whose sizes the graph has checked.
pub(crate) fn batch_norm(positions: usize, channels: usize, epsilon: f32) -> BatchNorm {
    match BatchNorm::new(positions, channels, epsilon) {
        Ok(geometry) => geometry,
        Err(_) => unreachable!("a graph's values hold at least one number"),
    }
}

/// Whether the norms of a convolution's examples are computed without their gradients: where two
/// Gram matrices of its positions are smaller than the weight (Bu et al. 2022, arXiv:2205.10683,
/// §4.1, equation 4.1).
fn is_ghost(c: &Conv) -> bool {
    let positions = c.out_height() * c.out_width();
    c.shape().groups == 1 && 2 * positions * positions < c.weight_len()
}

/// Numbers of scratch for the norms of a convolution's examples.
fn norm_scratch_len(c: &Conv) -> usize {
    let filters = c.shape().filters;
    if !is_ghost(c) {
        return c.weight_len() + c.dw_scratch_len().max(filters);
    }
    // Two Gram matrices, the windows in rows, and what their products need.
    let positions = c.out_height() * c.out_width();
    let terms = c.weight_len() / filters;
    let product = Dense {
        inputs: positions,
        outputs: terms.max(filters),
    };
    2 * positions * positions + (positions * terms).max(filters) + product.dx_scratch_len()
}
