//! Makes the plan of a model.

mod backward;

use alloc::vec;
use alloc::vec::Vec;

use super::place::Kept;
use super::{Backward, Bytes, Forward, Memory, Mode, NormStep, Running, Slot, Walk};
use crate::distill::{self, Lesson};
use crate::graph::{Function, Node, Op, ValueId};
use crate::kernel::{Activation, BatchNorm, Fused};
use crate::model::Model;

/// Walks the graph forward, then backward, and notes who touches which buffer when.
pub(super) struct Planner<'a> {
    walk: Walk<'a, Backward>,
    mode: Mode,
    /// Of each root value: its activation's buffer, whether a value that others read lies there
    /// too.
    activation: Vec<Slot>,
    shared: Vec<bool>,
    /// Of each node: padded input or statistics, argmax or mask.
    saved: Vec<Option<Slot>>,
    /// What else a recurrent layer keeps.
    saved_second: Vec<Option<Slot>>,
    saved_bytes: Vec<Option<Bytes>>,
    forward: Vec<Forward>,
    norms: Vec<NormStep>,
    weighted: Vec<Backward>,
    /// Of each root value: whether it is compared with one of a teacher.
    tapped: Vec<bool>,
}

/// Stands for "no buffer yet".
const NONE: Slot = usize::MAX;

impl<'a> Planner<'a> {
    pub(super) fn new(model: &'a Model, rows: usize, mode: Mode) -> Self {
        let graph = &model.graph;
        let values = graph.values.len();
        Self {
            walk: Walk::new(model, rows),
            mode,
            activation: vec![NONE; values],
            shared: vec![false; values],
            saved: vec![None; graph.nodes.len()],
            saved_second: vec![None; graph.nodes.len()],
            saved_bytes: vec![None; graph.nodes.len()],
            forward: Vec::new(),
            norms: Vec::new(),
            weighted: Vec::new(),
            tapped: tapped(model, mode),
        }
    }

    pub(super) fn run(mut self) -> Memory {
        let tokens = matches!(self.walk.graph.input, fl_core::InputSpec::Tokens { .. });
        let input_len = if tokens { 0 } else { self.walk.len(0) };
        let input = self.walk.buffer(input_len, 0);
        self.activation[0] = input;
        for index in 0..self.walk.graph.nodes.len() {
            self.walk.time += 1;
            self.forward(index);
            let root = self.walk.root(self.walk.graph.nodes[index].output);
            if self.tapped[root] {
                self.keep(self.activation[root], Kept::Values);
            }
        }
        self.walk.time += 1;
        let root = self.walk.root(self.walk.graph.output);
        let output = self.use_activation(root);
        let output_gradient = self.walk.buffer(self.walk.len(root), 0);
        let mut lesson = None;
        if self.mode != Mode::Evaluation && self.walk.needs_gradient[root] {
            self.walk.gradient[root] = Some(output_gradient);
            lesson = self.lesson();
            for index in (0..self.walk.graph.nodes.len()).rev() {
                self.walk.time += 1;
                self.backward(index);
            }
            if self.mode == Mode::PerExample {
                self.weighted();
            }
        }
        self.walk.end();
        Memory {
            forward: self.forward,
            norms: self.norms,
            weighted: self.weighted,
            lesson,
            ..Memory::of_walk(self.walk, [input, output, output_gradient], |it| it)
        }
    }

    /// What is learned from a teacher's layers, at the time of the loss.
    fn lesson(&mut self) -> Option<Lesson> {
        let model = self.walk.model;
        let distillation = model
            .distillation()
            .filter(|_| self.mode == Mode::Training)?;
        let taps = distillation.taps();
        let slots: Vec<Slot> = taps
            .map(|value| self.use_activation(self.walk.root(value)))
            .collect();
        Some(distill::plan(&mut self.walk, distillation, &slots))
    }

    fn use_activation(&mut self, root: ValueId) -> Slot {
        self.walk.touch(self.activation[root])
    }

    fn keep(&mut self, slot: Slot, kept: Kept) {
        if self.mode != Mode::Evaluation && self.walk.buffers[slot].kept != Kept::Values {
            self.walk.buffers[slot].kept = kept;
        }
    }

    /// Whether a value has one reader, and its memory no other.
    fn read_once(&self, root: ValueId) -> bool {
        root != 0 && !self.shared[root] && self.walk.graph.readers(root) == 1
    }

    /// Whether the only reader of a value may overwrite it.
    fn may_overwrite(&self, root: ValueId, signs_stay: bool) -> bool {
        self.read_once(root)
            && match self.walk.buffers[self.activation[root]].kept {
                Kept::No => true,
                Kept::Sign => signs_stay,
                Kept::Values => false,
            }
    }

    /// Whether the relu in the node's product is undone by the pooling that alone reads it: a
    /// maximum is above zero exactly where the input that it came from is.
    fn relu_left_to_pool(&self, index: usize) -> bool {
        let root = self.walk.root(self.walk.graph.nodes[index].output);
        !self.tapped[root]
            && self.walk.graph.readers(root) == 1
            && self
                .walk
                .graph
                .nodes
                .iter()
                .any(|node| matches!(node.op, Op::MaxPool(_)) && self.walk.root(node.input) == root)
    }

    /// What the node that gives this value left to the pooling that reads it.
    fn left_to_pool(&self, value: ValueId) -> Fused {
        let root = self.walk.root(value);
        if self.tapped[root] || self.walk.graph.readers(root) != 1 {
            return Fused::None;
        }
        let giver = self
            .walk
            .graph
            .nodes
            .iter()
            .find(|node| self.walk.root(node.output) == root);
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
        let Node { op, input, output } = self.walk.graph.nodes[index].clone();
        let (source, target) = (self.walk.root(input), self.walk.root(output));
        let x = match op {
            Op::Embedding { .. } => NONE,
            _ => self.use_activation(source),
        };
        let out_len = self.walk.len(output);
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
                    weight: self.walk.tensor(weight),
                    bias: bias.map(|bias| self.walk.tensor(bias)),
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
                    .then(|| self.walk.buffer(geometry.padded_len(), 0));
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
                    weight: self.walk.tensor(weight),
                    bias: bias.map(|bias| self.walk.tensor(bias)),
                    fused,
                });
            }
            Op::MaxPool(geometry) => {
                let y = self.output(target, out_len);
                self.keep_fused(self.left_to_pool(input), y);
                let argmax = self.walk.byte_buffer(out_len);
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
                let stats = self.walk.buffer(geometry.stats_len(), 0);
                self.saved[index] = Some(stats);
                let scratch = self.walk.buffer(0, geometry.scratch_len());
                let y = self.output(target, out_len);
                self.forward.push(Forward::Norm {
                    geometry,
                    x,
                    y,
                    stats,
                    scratch,
                    gamma: self.walk.tensor(scale),
                    beta: self.walk.tensor(shift),
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
                let (gamma, beta) = (self.walk.tensor(scale), self.walk.tensor(shift));
                let (mean, variance) = (self.walk.tensor(mean), self.walk.tensor(variance));
                if self.mode == Mode::Evaluation {
                    let r = self.walk.buffer(0, channels);
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
                let stats = self.walk.buffer(0, geometry.stats_len());
                self.saved[index] = Some(stats);
                self.walk.running.push(Running {
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
                    table: self.walk.tensor(table),
                    y,
                });
            }
            Op::Add { other } => {
                let other = self.use_activation(self.walk.root(other));
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
            Op::Recurrent {
                geometry,
                weight,
                bias,
            } => {
                let gates = self.own(x, source);
                self.saved[index] = Some(gates);
                let kept = self.walk.buffer(geometry.states_len(), 0);
                self.saved_second[index] = Some(kept);
                let scratch = self.walk.buffer(geometry.forward_scratch_len(), 0);
                let y = self.output(target, out_len);
                self.keep(gates, Kept::Values);
                self.keep(y, Kept::Values);
                self.forward.push(Forward::Recurrent {
                    geometry,
                    gates,
                    y,
                    kept,
                    scratch,
                    weight: self.walk.tensor(weight),
                    bias: bias.map(|bias| self.walk.tensor(bias)),
                });
            }
            Op::Attention(geometry) => {
                self.keep(x, Kept::Values);
                let probabilities = self.walk.buffer(geometry.probabilities_len(), 0);
                self.saved[index] = Some(probabilities);
                let scratch = self.walk.buffer(0, geometry.forward_scratch_len());
                let y = self.output(target, out_len);
                self.forward.push(Forward::Attention {
                    geometry,
                    x,
                    y,
                    probabilities,
                    scratch,
                });
            }
            Op::Last {
                positions,
                channels,
            } => {
                let y = self.output(target, out_len);
                self.forward.push(Forward::Last {
                    positions,
                    channels,
                    x,
                    y,
                });
            }
            Op::Position { table } => {
                let y = self.own(x, source);
                self.activation[target] = y;
                self.forward.push(Forward::Position {
                    table: self.walk.tensor(table),
                    y,
                });
            }
        }
    }

    /// The buffer of a value that is overwritten: itself, or a copy where others read it.
    fn own(&mut self, x: Slot, source: ValueId) -> Slot {
        if self.may_overwrite(source, false) {
            return x;
        }
        let y = self.walk.buffer(self.walk.len(source), 0);
        self.forward.push(Forward::Copy { x, y });
        y
    }

    fn output(&mut self, root: ValueId, len: usize) -> Slot {
        let slot = self.walk.buffer(len, 0);
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
        let len = self.walk.len(source);
        let keep = self.walk.mask(len, rate);
        self.saved_bytes[index] = Some(keep);
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
}

/// Of each root value: whether training compares it with one of a teacher.
fn tapped(model: &Model, mode: Mode) -> Vec<bool> {
    let graph = &model.graph;
    let mut tapped = vec![false; graph.values.len()];
    if let Some(distillation) = model.distillation().filter(|_| mode == Mode::Training) {
        for value in distillation.taps() {
            tapped[graph.values[value].root] = true;
        }
    }
    tapped
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
