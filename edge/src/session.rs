//! Running a plan: forward, backward and the parameters' step, without allocating.

use core::num::NonZeroUsize;
use core::ops::Range;
use std::sync::Arc;

use fl_core::{Examples, InputSpec, InputsMut, Optimizer, Stream, TargetSpec, TargetsMut};
use rand_core::Rng as _;

use crate::arena::{Aligned, pick, reserve};
use crate::graph::target_width;
use crate::kernel::{AdamStep, Fused, Gradient, Kernels, Momentum, SgdStep, Write};
use crate::model::Model;
use crate::plan::{Backward, Forward, Memory, Mode, Tensor};
use crate::zoo::Loss;

/// Bytes of activations and gradients that a training step may take before its batch is worked
/// through in parts.
const TRAINING_BYTES: usize = 64 << 20;
/// The same for evaluation.
const EVALUATION_BYTES: usize = 8 << 20;
/// Examples in a part at most.
const MAX_ROWS: usize = 1024;
/// Examples evaluated at once at most.
const MAX_EVALUATION_ROWS: usize = 256;

/// A label or token outside the model's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadExample {
    /// A class label.
    Label {
        /// The example.
        row: u32,
        /// Its label.
        label: u32,
    },
    /// A token.
    Token {
        /// The example.
        row: u32,
        /// The token.
        token: u32,
    },
}

/// What one training step does with the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// How the gradient moves the parameters.
    pub optimizer: Optimizer,
    /// The learning rate of this step.
    pub rate: f32,
    /// Number of the step since [`Session::start`], from zero.
    pub number: u64,
    /// Largest L2 norm of the gradient.
    pub max_norm: Option<f32>,
    /// FedProx's `mu`.
    pub proximal_mu: f32,
    /// The global parameters, for the proximal term.
    pub anchor: &'a [f32],
}

/// The buffers of a batch.
#[derive(Debug, Default)]
struct Batch {
    arena: Aligned,
    bytes: Vec<u8>,
    tokens: Vec<u32>,
    labels: Vec<u32>,
    targets: Vec<f32>,
    losses: Vec<f32>,
    best: Vec<u32>,
}

/// Where gradients go in a backward pass.
#[derive(Clone, Copy)]
enum Update<'a> {
    Store,
    Accumulate,
    Step { step: SgdStep, anchor: &'a [f32] },
}

/// A model at work: one arena, one set of working parameters, reused for every client.
///
/// Nothing is allocated by a step, nor by a client once a larger one was trained.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    kernels: &'static Kernels,
    training: Memory,
    evaluation: Memory,
    batch: Batch,
    weights: Aligned,
    gradient: Aligned,
    /// Velocity, or the first moment.
    first: Aligned,
    second: Aligned,
    /// Examples worked on at once, in training and in evaluation.
    training_rows: usize,
    evaluation_rows: usize,
    input_len: usize,
    target_width: usize,
}

impl Session {
    /// A session of `model`. Memory grows on demand.
    #[must_use]
    pub fn new(model: Arc<Model>, kernels: &'static Kernels) -> Self {
        let training = Memory::new(&model, 1, Mode::Training);
        let evaluation = Memory::new(&model, 1, Mode::Evaluation);
        let rows = |memory: &Memory, bytes: usize, most: usize| {
            (bytes / (4 * memory.len() + memory.bytes()).max(1)).clamp(1, most)
        };
        let mut session = Self {
            training_rows: rows(&training, TRAINING_BYTES, MAX_ROWS),
            evaluation_rows: rows(&evaluation, EVALUATION_BYTES, MAX_EVALUATION_ROWS),
            input_len: model.input().len(),
            target_width: target_width(model.target()),
            model,
            kernels,
            training,
            evaluation,
            batch: Batch::default(),
            weights: Aligned::default(),
            gradient: Aligned::default(),
            first: Aligned::default(),
            second: Aligned::default(),
        };
        session.weights.reserve(session.model.parameters());
        session
    }

    /// The same session working on at most so many examples at once, for a device with little
    /// memory: larger batches are worked through in parts whose gradients are summed. Changes no
    /// bit of a result.
    #[must_use]
    pub fn with_most_rows(mut self, rows: NonZeroUsize) -> Self {
        self.training_rows = self.training_rows.min(rows.get());
        self.evaluation_rows = self.evaluation_rows.min(rows.get());
        self
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The working parameters.
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        self.weights.values()
    }

    /// Starts a client: its parameters are `global`, the optimizer's state is fresh, and there is
    /// room for batches of `batch` examples. The only place where memory grows.
    ///
    /// # Panics
    /// When `global` is not one value per parameter.
    pub fn start(&mut self, global: &[f32], optimizer: &Optimizer, batch: usize) {
        self.weights.values_mut().copy_from_slice(global);
        let rows = batch.clamp(1, self.training_rows);
        if self.training.rows() < rows {
            self.training = Memory::new(&self.model, rows, Mode::Training);
        }
        self.batch.reserve(
            &self.training,
            self.input_len,
            self.target_width,
            &self.model,
        );
        let parameters = self.model.parameters();
        let (first, second) = match optimizer {
            Optimizer::Sgd { momentum, .. } => (*momentum > 0.0, false),
            Optimizer::Adam { .. } => (true, true),
        };
        if first {
            self.first.reserve(parameters);
            self.first.values_mut().fill(0.0);
        }
        if second {
            self.second.reserve(parameters);
            self.second.values_mut().fill(0.0);
        }
    }

    /// One step on the examples at `rows`; the sum of their losses, added in their order.
    ///
    /// The gradient is that of the mean loss. Dropout masks are drawn from `stream`: example by
    /// example, layer by layer, 32 bits a value.
    ///
    /// # Errors
    /// [`BadExample`] when a label or token is outside the model's range; the parameters are then
    /// unusable until the next [`Session::start`].
    pub fn step(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        step: &Step<'_>,
        stream: &mut Stream,
    ) -> Result<f64, BadExample> {
        if rows.is_empty() {
            return Ok(0.0);
        }
        let plain = match step.optimizer {
            Optimizer::Sgd {
                momentum,
                weight_decay,
                ..
            } => (momentum == 0.0).then_some(weight_decay),
            Optimizer::Adam { .. } => None,
        };
        if let (Some(weight_decay), None) = (plain, step.max_norm)
            && rows.len() <= self.training.rows()
        {
            let sgd = SgdStep {
                rate: step.rate,
                weight_decay,
                proximal_mu: step.proximal_mu,
            };
            if self.training.stores_gradients {
                self.gradient.reserve(self.model.parameters());
            }
            let update = Update::Step {
                step: sgd,
                anchor: step.anchor,
            };
            return self.pass(data, rows, rows.len(), update, stream);
        }
        let loss = self.gradient(data, rows, stream)?;
        self.apply(step);
        Ok(loss)
    }

    /// The gradient of the mean loss over the examples at `rows`, kept for
    /// [`Session::gradients`]; the sum of their losses.
    ///
    /// # Errors
    /// [`BadExample`]
    pub fn gradient(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        stream: &mut Stream,
    ) -> Result<f64, BadExample> {
        self.gradient.reserve(self.model.parameters());
        let mut loss = 0.0;
        let mut update = Update::Store;
        for part in rows.chunks(self.training.rows()) {
            loss = self.pass_from(loss, data, part, rows.len(), update, stream)?;
            update = Update::Accumulate;
        }
        Ok(loss)
    }

    /// The last gradient.
    #[must_use]
    pub fn gradients(&self) -> &[f32] {
        self.gradient.values()
    }

    /// Moves the parameters along the last gradient.
    fn apply(&mut self, step: &Step<'_>) {
        let (kernels, weights) = (self.kernels, self.weights.values_mut());
        let gradient = self.gradient.values_mut();
        if let Some(most) = step.max_norm {
            let norm = libm::sqrt(kernels.sum_of_squares(gradient));
            if norm > f64::from(most) {
                kernels.scale((f64::from(most) / norm) as f32, gradient);
            }
        }
        match step.optimizer {
            Optimizer::Sgd {
                momentum,
                nesterov,
                weight_decay,
            } => {
                let sgd = SgdStep {
                    rate: step.rate,
                    weight_decay,
                    proximal_mu: step.proximal_mu,
                };
                if momentum == 0.0 {
                    kernels.sgd(sgd, gradient, step.anchor, weights);
                } else {
                    let momentum = Momentum { momentum, nesterov };
                    let velocity = self.first.values_mut();
                    kernels.sgd_momentum(sgd, momentum, gradient, step.anchor, velocity, weights);
                }
            }
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
                decoupled,
            } => {
                let sgd = SgdStep {
                    rate: step.rate,
                    weight_decay,
                    proximal_mu: step.proximal_mu,
                };
                let t = step.number + 1;
                let adam = AdamStep::new(sgd, beta1, beta2, epsilon, decoupled, t);
                let (first, second) = (self.first.values_mut(), self.second.values_mut());
                kernels.adam(&adam, gradient, step.anchor, first, second, weights);
            }
        }
    }

    fn pass(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        batch: usize,
        update: Update<'_>,
        stream: &mut Stream,
    ) -> Result<f64, BadExample> {
        self.pass_from(0.0, data, rows, batch, update, stream)
    }

    /// Forward and backward over a part of a batch; the losses are added to `loss`.
    fn pass_from(
        &mut self,
        mut loss: f64,
        data: &dyn Examples,
        rows: &[u32],
        batch: usize,
        update: Update<'_>,
        stream: &mut Stream,
    ) -> Result<f64, BadExample> {
        let memory = &self.training;
        let buffers = &mut self.batch;
        buffers.fill(
            memory,
            &self.model,
            data,
            rows,
            self.input_len,
            self.target_width,
        )?;
        for row in 0..rows.len() {
            for mask in &memory.masks {
                draw_mask(
                    stream,
                    mask.threshold,
                    &mut buffers.bytes[mask.keep.example(row)],
                );
            }
        }
        forward(
            self.kernels,
            memory,
            buffers,
            self.weights.values(),
            rows.len(),
        );
        buffers.loss(
            self.kernels,
            memory,
            &self.model,
            rows.len(),
            self.target_width,
            Some(1.0 / batch as f32),
        );
        for value in &buffers.losses[..rows.len()] {
            loss += f64::from(*value);
        }
        let (weights, gradient) = (self.weights.values_mut(), self.gradient.values_mut());
        backward(
            self.kernels,
            memory,
            buffers,
            weights,
            gradient,
            update,
            rows.len(),
        );
        Ok(loss)
    }

    /// Losses and correct answers of `weights` on the examples at `rows`, added in their order.
    ///
    /// # Errors
    /// [`BadExample`]
    ///
    /// # Panics
    /// When `weights` is not one value per parameter.
    pub fn evaluate(
        &mut self,
        weights: &[f32],
        data: &dyn Examples,
        rows: Range<u32>,
    ) -> Result<(f64, u64), BadExample> {
        let most = self.evaluation_rows.min(rows.len()).max(1);
        if self.evaluation.rows() < most {
            self.evaluation = Memory::new(&self.model, most, Mode::Evaluation);
        }
        let memory = &self.evaluation;
        let buffers = &mut self.batch;
        buffers.reserve(memory, self.input_len, self.target_width, &self.model);
        let (mut loss, mut correct) = (0.0, 0);
        let mut part = [0u32; MAX_EVALUATION_ROWS];
        let mut next = rows.start;
        while next < rows.end {
            let count = most.min((rows.end - next) as usize);
            for (slot, row) in part[..count].iter_mut().zip(next..) {
                *slot = row;
            }
            next += count as u32;
            let part = &part[..count];
            buffers.fill(
                memory,
                &self.model,
                data,
                part,
                self.input_len,
                self.target_width,
            )?;
            forward(self.kernels, memory, buffers, weights, count);
            buffers.loss(
                self.kernels,
                memory,
                &self.model,
                count,
                self.target_width,
                None,
            );
            for value in &buffers.losses[..count] {
                loss += f64::from(*value);
            }
            if let TargetSpec::Class { classes } = self.model.target() {
                let output = &buffers.arena.values()[memory.at(memory.output, count)];
                let best = &mut buffers.best[..count];
                self.kernels.argmax(count, classes, output, best);
                let hits = best.iter().zip(&buffers.labels).filter(|(a, b)| a == b);
                correct += hits.count() as u64;
            }
        }
        Ok((loss, correct))
    }

    /// The outputs (logits) of the working parameters for the examples at `rows`,
    /// `[rows, classes]`; at most as many rows as are evaluated at once.
    ///
    /// # Errors
    /// [`BadExample`]
    pub fn outputs(&mut self, data: &dyn Examples, rows: &[u32]) -> Result<Vec<f32>, BadExample> {
        let mut outputs = Vec::with_capacity(rows.len() * self.target_width);
        for part in rows.chunks(self.evaluation_rows) {
            if self.evaluation.rows() < part.len() {
                self.evaluation = Memory::new(&self.model, part.len(), Mode::Evaluation);
            }
            let memory = &self.evaluation;
            let buffers = &mut self.batch;
            buffers.reserve(memory, self.input_len, self.target_width, &self.model);
            buffers.fill(
                memory,
                &self.model,
                data,
                part,
                self.input_len,
                self.target_width,
            )?;
            forward(
                self.kernels,
                memory,
                buffers,
                self.weights.values(),
                part.len(),
            );
            outputs
                .extend_from_slice(&buffers.arena.values()[memory.at(memory.output, part.len())]);
        }
        Ok(outputs)
    }
}

/// `keep` is 0 where the value is dropped and 1 elsewhere.
fn draw_mask(stream: &mut Stream, threshold: u32, keep: &mut [u8]) {
    let mut words = [0u8; 1024];
    for part in keep.chunks_mut(words.len() / 4) {
        let bytes = &mut words[..4 * part.len()];
        stream.fill_bytes(bytes);
        for (keep, word) in part.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *keep = u8::from(u32::from_le_bytes(*word) >= threshold);
        }
    }
}

impl Batch {
    fn reserve(&mut self, memory: &Memory, input_len: usize, width: usize, model: &Model) {
        self.arena.reserve(memory.len());
        reserve(&mut self.bytes, memory.bytes());
        let rows = memory.rows();
        if matches!(model.input(), InputSpec::Tokens { .. }) {
            reserve(&mut self.tokens, rows * input_len);
        }
        match model.target() {
            TargetSpec::Class { .. } => reserve(&mut self.labels, rows),
            TargetSpec::Real { .. } => reserve(&mut self.targets, rows * width),
        }
        reserve(&mut self.losses, rows);
        reserve(&mut self.best, rows);
    }

    /// Reads the examples at `rows`.
    #[inline]
    fn fill(
        &mut self,
        memory: &Memory,
        model: &Model,
        data: &dyn Examples,
        rows: &[u32],
        input_len: usize,
        width: usize,
    ) -> Result<(), BadExample> {
        let count = rows.len();
        let target = model.target();
        let targets = match target {
            TargetSpec::Class { .. } => TargetsMut::Classes(&mut self.labels[..count]),
            TargetSpec::Real { .. } => TargetsMut::Real(&mut self.targets[..count * width]),
        };
        match model.input() {
            InputSpec::Real(_) => {
                let inputs = &mut self.arena.values_mut()[memory.at(memory.input, count)];
                data.fill(rows, InputsMut::Real(inputs), targets);
            }
            InputSpec::Tokens { vocabulary, .. } => {
                let tokens = &mut self.tokens[..count * input_len];
                data.fill(rows, InputsMut::Tokens(tokens), targets);
                let bad = tokens
                    .iter()
                    .position(|&token| token as usize >= *vocabulary);
                if let Some(at) = bad {
                    return Err(BadExample::Token {
                        row: rows[at / input_len],
                        token: tokens[at],
                    });
                }
            }
        }
        if let TargetSpec::Class { classes } = target {
            let labels = &self.labels[..count];
            if let Some(at) = labels.iter().position(|&label| label as usize >= classes) {
                return Err(BadExample::Label {
                    row: rows[at],
                    label: labels[at],
                });
            }
        }
        Ok(())
    }

    /// Each example's loss and, when `scale` is given, the outputs' gradient times `scale`.
    #[inline]
    fn loss(
        &mut self,
        kernels: &Kernels,
        memory: &Memory,
        model: &Model,
        rows: usize,
        width: usize,
        scale: Option<f32>,
    ) {
        let places = [
            memory.at(memory.output, rows),
            memory.at(memory.output_gradient, rows),
        ];
        let [outputs, gradient] = pick(self.arena.values_mut(), places);
        let gradient = scale.is_some().then_some(gradient);
        let scale = scale.unwrap_or(1.0);
        let losses = &mut self.losses[..rows];
        match model.loss() {
            Loss::SoftmaxCrossEntropy => {
                let labels = &self.labels[..rows];
                kernels
                    .softmax_cross_entropy(rows, width, outputs, labels, scale, losses, gradient);
            }
            Loss::Mse => {
                let targets = &self.targets[..rows * width];
                kernels.mean_squared_error(rows, width, outputs, targets, scale, losses, gradient);
            }
            Loss::Bce => {
                let targets = &self.targets[..rows * width];
                kernels
                    .binary_cross_entropy(rows, width, outputs, targets, scale, losses, gradient);
            }
        }
    }
}

fn fused(relu: bool) -> Fused {
    match relu {
        true => Fused::Relu,
        false => Fused::None,
    }
}

/// Runs the forward pass.
fn forward(k: &Kernels, memory: &Memory, batch: &mut Batch, weights: &[f32], rows: usize) {
    let arena = batch.arena.values_mut();
    let at = |slot| memory.at(slot, rows);
    for step in &memory.forward {
        match step {
            Forward::Dense {
                geometry,
                x,
                y,
                weight,
                bias,
                relu,
            } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                let bias = bias.clone().map(|bias| &weights[bias]);
                k.dense(
                    geometry,
                    rows,
                    x,
                    &weights[weight.clone()],
                    bias,
                    fused(*relu),
                    y,
                );
            }
            Forward::Conv {
                geometry,
                x,
                padded,
                y,
                weight,
                bias,
                relu,
            } => {
                let input = match padded {
                    Some(padded) => {
                        let [x, to] = pick(arena, [at(*x), at(*padded)]);
                        k.pad(geometry, rows, x, to);
                        *padded
                    }
                    None => *x,
                };
                let [x, y] = pick(arena, [at(input), at(*y)]);
                let bias = bias.clone().map(|bias| &weights[bias]);
                k.conv(
                    geometry,
                    rows,
                    x,
                    &weights[weight.clone()],
                    bias,
                    fused(*relu),
                    y,
                );
            }
            Forward::MaxPool {
                geometry,
                x,
                y,
                argmax,
            } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                k.max_pool(geometry, rows, x, y, &mut batch.bytes[argmax.range(rows)]);
            }
            Forward::AvgPool { geometry, x, y } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                k.avg_pool(geometry, rows, x, y);
            }
            Forward::GlobalAvgPool {
                positions,
                channels,
                x,
                y,
            } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                k.global_avg_pool(rows, *positions, *channels, x, y);
            }
            Forward::Activate { f, x, y } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                k.activate(*f, x, y);
            }
            Forward::ActivateInPlace { f, y } => k.activate_in_place(*f, &mut arena[at(*y)]),
            Forward::Copy { x, y } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                y.copy_from_slice(x);
            }
            Forward::Dropout { keep, scale, y } => {
                k.dropout(&batch.bytes[keep.range(rows)], *scale, &mut arena[at(*y)]);
            }
            Forward::Norm {
                geometry,
                x,
                y,
                stats,
                scratch,
                gamma,
                beta,
            } => {
                let places = [at(*x), at(*y), at(*stats), at(*scratch)];
                let [x, y, stats, scratch] = pick(arena, places);
                let (gamma, beta) = (&weights[gamma.clone()], &weights[beta.clone()]);
                k.norm(geometry, rows, x, gamma, beta, y, stats, scratch);
            }
            Forward::Embedding { size, table, y } => {
                let y = &mut arena[at(*y)];
                let tokens = &batch.tokens[..y.len() / size];
                k.embedding(tokens, *size, &weights[table.clone()], y);
            }
            Forward::Add { x, y } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                k.add(x, y);
            }
        }
    }
}

/// Where the gradient of one tensor goes.
fn gradient_of<'a>(
    update: Update<'a>,
    tensor: &Tensor,
    weights: &'a mut [f32],
    gradient: &'a mut [f32],
) -> Gradient<'a> {
    match update {
        Update::Store => Gradient::Store(&mut gradient[tensor.clone()]),
        Update::Accumulate => Gradient::Accumulate(&mut gradient[tensor.clone()]),
        Update::Step { step, anchor } => Gradient::Step {
            weights: &mut weights[tensor.clone()],
            anchor: anchor_of(step, anchor, tensor),
            step,
        },
    }
}

fn anchor_of<'a>(step: SgdStep, anchor: &'a [f32], tensor: &Tensor) -> &'a [f32] {
    if step.proximal_mu > 0.0 {
        &anchor[tensor.clone()]
    } else {
        &[]
    }
}

/// A stored gradient's own step, where the others are fused.
fn step_stored(
    k: &Kernels,
    update: Update<'_>,
    tensor: &Tensor,
    weights: &mut [f32],
    gradient: &[f32],
) {
    if let Update::Step { step, anchor } = update {
        let anchor = anchor_of(step, anchor, tensor);
        let weights = &mut weights[tensor.clone()];
        k.sgd(step, &gradient[tensor.clone()], anchor, weights);
    }
}

/// Runs the backward pass from the outputs' gradient.
fn backward(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    weights: &mut [f32],
    gradient: &mut [f32],
    update: Update<'_>,
    rows: usize,
) {
    let arena = batch.arena.values_mut();
    let at = |slot| memory.at(slot, rows);
    for step in &memory.backward {
        match step {
            Backward::Dense {
                geometry,
                x,
                dy,
                dx,
                scratch,
                weight,
                bias,
            } => {
                if let Some((dx, write)) = dx {
                    let [dy, dx, scratch] = pick(arena, [at(*dy), at(*dx), at(*scratch)]);
                    let weight = &weights[weight.clone()];
                    k.dense_dx(geometry, rows, dy, weight, dx, *write, scratch);
                }
                let [x, dy] = pick(arena, [at(*x), at(*dy)]);
                if let Some(bias) = bias {
                    let to = gradient_of(update, bias, weights, gradient);
                    k.column_sums(rows, geometry.outputs, dy, to);
                }
                let to = gradient_of(update, weight, weights, gradient);
                k.dense_dw(geometry, rows, x, dy, to);
            }
            Backward::Conv {
                geometry,
                x,
                dy,
                dx,
                dx_scratch,
                dw_scratch,
                weight,
                bias,
            } => {
                if let Some((dx, write)) = dx {
                    let [dy, dx, scratch] = pick(arena, [at(*dy), at(*dx), at(*dx_scratch)]);
                    let weight = &weights[weight.clone()];
                    k.conv_dx(geometry, rows, dy, weight, dx, *write, scratch);
                }
                let [x, dy, scratch] = pick(arena, [at(*x), at(*dy), at(*dw_scratch)]);
                if let Some(bias) = bias {
                    let positions = rows * geometry.out_height() * geometry.out_width();
                    let to = gradient_of(update, bias, weights, gradient);
                    k.column_sums(positions, geometry.shape().filters, dy, to);
                }
                let to = gradient_of(update, weight, weights, gradient);
                k.conv_dw(geometry, rows, x, dy, to, scratch);
            }
            Backward::MaxPool {
                geometry,
                argmax,
                dy,
                dx,
            } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.max_pool_dx(geometry, rows, dy, &batch.bytes[argmax.range(rows)], dx);
            }
            Backward::AvgPool { geometry, dy, dx } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.avg_pool_dx(geometry, rows, dy, dx);
            }
            Backward::GlobalAvgPool {
                positions,
                channels,
                dy,
                dx,
            } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.global_avg_pool_dx(rows, *positions, *channels, dy, dx);
            }
            Backward::Activate { f, kept, dy } => {
                let [kept, dy] = pick(arena, [at(*kept), at(*dy)]);
                k.activate_grad(*f, kept, dy);
            }
            Backward::Dropout { keep, scale, dy } => {
                k.dropout(&batch.bytes[keep.range(rows)], *scale, &mut arena[at(*dy)]);
            }
            Backward::Norm {
                geometry,
                x,
                stats,
                dy,
                dx,
                scratch,
                gamma,
                beta,
            } => {
                if let Some(dx) = dx {
                    let places = [at(*x), at(*stats), at(*dy), at(*dx), at(*scratch)];
                    let [x, stats, dy, dx, scratch] = pick(arena, places);
                    let gamma = &weights[gamma.clone()];
                    k.norm_dx(geometry, rows, x, gamma, stats, dy, dx, scratch);
                }
                let [x, stats, dy] = pick(arena, [at(*x), at(*stats), at(*dy)]);
                let write = match update {
                    Update::Accumulate => Write::Add,
                    Update::Store | Update::Step { .. } => Write::Store,
                };
                let [dgamma, dbeta] = pick(gradient, [gamma.clone(), beta.clone()]);
                k.norm_dparameters(geometry, rows, x, stats, dy, dgamma, dbeta, write);
                step_stored(k, update, gamma, weights, gradient);
                step_stored(k, update, beta, weights, gradient);
            }
            Backward::Embedding { size, table, dy } => {
                let dy = &arena[at(*dy)];
                let tokens = &batch.tokens[..dy.len() / size];
                let to = &mut gradient[table.clone()];
                if !matches!(update, Update::Accumulate) {
                    to.fill(0.0);
                }
                k.embedding_dw(tokens, *size, dy, to);
                step_stored(k, update, table, weights, gradient);
            }
            Backward::Copy { from, to } => {
                let [from, to] = pick(arena, [at(*from), at(*to)]);
                to.copy_from_slice(from);
            }
            Backward::Add { from, to } => {
                let [from, to] = pick(arena, [at(*from), at(*to)]);
                k.add(from, to);
            }
            Backward::Double { dy } => k.scale(2.0, &mut arena[at(*dy)]),
        }
    }
}
