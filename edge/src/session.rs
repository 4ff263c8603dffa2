//! Running a plan: forward, backward and the parameters' step, without allocating.

mod batch;
mod example;
#[cfg(feature = "std")]
mod noise;
mod private;
mod run;
mod teaching;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroUsize;
use core::ops::Range;

use fl_core::{Evaluation, Examples, Mask, Optimizer, Stream};

use crate::arena::Aligned;
use crate::distill::Teaching;
use crate::graph::target_width;
use crate::kernel::{AdamStep, Kernels, Momentum, SgdStep};
use crate::model::Model;
use crate::plan::{Memory, Mode};
use crate::qat::{Qat, QatForward};
use batch::{Batch, judge};
use example::Norms;
use run::{backward, forward, move_statistics};
use teaching::Lesson;

#[cfg(feature = "std")]
pub(crate) use batch::{bad_label, cross_entropy, judge as judge_part};
pub use example::{Clipped, PerExampleError};
#[cfg(feature = "std")]
pub use noise::GaussianNoise;
pub use private::{Clipping, DpSgd, DpSgdError};
pub(crate) use run::{Update, gradient_of, step_stored};

/// Bytes of activations and gradients that a training step may take before its batch is worked
/// through in parts.
const TRAINING_BYTES: usize = 64 << 20;
/// The same for evaluation.
const EVALUATION_BYTES: usize = 8 << 20;
/// Examples in a part at most.
const MAX_ROWS: usize = 1024;
/// Examples evaluated at once at most.
const MAX_EVALUATION_ROWS: usize = 256;

/// Examples worked on at once at most, given the memory of one.
pub(crate) fn most_rows(one: &Memory, mode: Mode) -> usize {
    if mode == Mode::Training && one.whole_batch() {
        return u32::MAX as usize;
    }
    let (bytes, most) = match mode {
        Mode::Training | Mode::PerExample => (TRAINING_BYTES, MAX_ROWS),
        Mode::Evaluation => (EVALUATION_BYTES, MAX_EVALUATION_ROWS),
    };
    (bytes / (4 * one.len() + one.bytes()).max(1)).clamp(1, most)
}

/// A label or token outside the model's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadExample {
    /// A class label.
    #[error("example {row} has label {label}, and the model has no such class; check the data")]
    Label {
        /// The example.
        row: u32,
        /// Its label.
        label: u32,
    },
    /// A token.
    #[error("example {row} holds token {token}, outside the vocabulary; check the data")]
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

impl Step<'_> {
    /// The step, where it needs neither the optimizer's state nor the whole gradient.
    fn plain_sgd(&self) -> Option<SgdStep> {
        match (self.optimizer, self.max_norm) {
            (
                Optimizer::Sgd {
                    momentum: 0.0,
                    weight_decay,
                    ..
                },
                None,
            ) => Some(SgdStep {
                rate: self.rate,
                weight_decay,
                proximal_mu: self.proximal_mu,
            }),
            _ => None,
        }
    }
}

/// A model at work: one arena, one set of working parameters, reused for every client.
///
/// Nothing is allocated by a step, nor by a client once a client with the same plan and at least
/// the same batch was trained.
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
    /// The same with norms of each example's gradient, once they were asked for.
    example_rows: Option<usize>,
    norms: Norms,
    input_len: usize,
    target_width: usize,
    /// Quantization-aware training, where that is what it does.
    qat: Option<Box<Qat>>,
    /// The teacher at work, where the model has one and was trained.
    teaching: Option<Box<Teaching>>,
    /// Weights that training keeps at zero.
    held: Option<Arc<Mask>>,
}

impl Session {
    /// A session of `model`. Memory grows on demand.
    #[must_use]
    pub fn new(model: Arc<Model>, kernels: &'static Kernels) -> Self {
        let training = Memory::new(&model, 1, Mode::Training);
        let evaluation = Memory::new(&model, 1, Mode::Evaluation);
        let mut session = Self {
            training_rows: most_rows(&training, Mode::Training),
            evaluation_rows: most_rows(&evaluation, Mode::Evaluation),
            input_len: model.input().len(),
            target_width: target_width(model.target()),
            model,
            kernels,
            training,
            evaluation,
            batch: Batch::default(),
            example_rows: None,
            norms: Norms::default(),
            weights: Aligned::default(),
            gradient: Aligned::default(),
            first: Aligned::default(),
            second: Aligned::default(),
            qat: None,
            teaching: None,
            held: None,
        };
        session.weights.reserve(session.model.parameters());
        session
    }

    /// A session for quantization-aware training of a model [with
    /// ranges](Model::with_ranges): steps and evaluations run on quantized weights and
    /// activations. None when the model is without.
    #[must_use]
    pub fn quantization_aware(
        model: Arc<Model>,
        kernels: &'static Kernels,
        forward: QatForward,
    ) -> Option<Self> {
        let options = *model.qat_options()?;
        let (qat, [training, evaluation]) = Qat::new(&model, options, forward);
        let mut session = Self::new(model, kernels);
        session.training_rows = most_rows(&training, Mode::Training);
        session.evaluation_rows = most_rows(&evaluation, Mode::Evaluation);
        session.training = training;
        session.evaluation = evaluation;
        session.qat = Some(Box::new(qat));
        Some(session)
    }

    /// Tells quantization-aware training which round the next client trains in: ranges and
    /// statistics may be [frozen](crate::qat::QatOptions) from a round on.
    pub fn begin_round(&mut self, round: u64) {
        if let Some(qat) = &mut self.qat
            && qat.begin(round)
        {
            let one = qat.plan(&self.model, 1, Mode::Training);
            self.training_rows = most_rows(&one, Mode::Training);
            self.training = one;
        }
    }

    /// The plan for batches of `rows`.
    fn plan(&mut self, rows: usize, mode: Mode) -> Memory {
        match &mut self.qat {
            Some(qat) => qat.plan(&self.model, rows, mode),
            None => Memory::new(&self.model, rows, mode),
        }
    }

    /// The same session working on at most so many examples at once, for a device with little
    /// memory: larger batches are worked through in parts whose gradients are summed. Changes no
    /// bit of a result, but for quantization-aware training, which observes ranges part by part. Batch normalisation needs the whole batch: a model that has one trains on
    /// all examples of a batch at once whatever the limit.
    #[must_use]
    pub fn with_most_rows(mut self, rows: NonZeroUsize) -> Self {
        if !self.training.whole_batch() {
            self.training_rows = self.training_rows.min(rows.get());
        }
        self.evaluation_rows = self.evaluation_rows.min(rows.get());
        self
    }

    /// From the next [`start`](Self::start) on, trains with what `pruned` holds at zero; with none,
    /// all moves again. Gradients that are stored are zero there too, before their norm is clipped
    /// and before an optimizer sees them; [clipped gradients](Self::clipped_gradient) of single
    /// examples are clipped with them.
    ///
    /// # Panics
    /// When the mask is not of this model's parameters.
    pub fn hold(&mut self, pruned: Option<Arc<Mask>>) {
        if let Some(mask) = &pruned {
            let expected = self.model.parameters();
            assert_eq!(mask.parameters(), expected, "a mask of this model");
        }
        self.held = pruned.filter(|mask| !mask.is_empty());
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
    /// room for batches of `batch` examples. Memory grows here, and once when the first gradient
    /// has to be stored.
    ///
    /// # Panics
    /// When `global` is not one value per parameter.
    pub fn start(&mut self, global: &[f32], optimizer: &Optimizer, batch: usize) {
        self.make_room(batch.clamp(1, self.training_rows));
        self.start_at(global, optimizer);
    }

    /// Parameters and a fresh optimizer.
    fn start_at(&mut self, global: &[f32], optimizer: &Optimizer) {
        self.keep_answers(0);
        self.weights.values_mut().copy_from_slice(global);
        self.keep_held();
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

    /// Puts what is held back to zero.
    fn keep_held(&mut self) {
        if let Some(mask) = &self.held {
            mask.apply(self.weights.values_mut());
        }
    }

    /// Memory for parts of `rows` examples.
    fn make_room(&mut self, rows: usize) {
        if self.training.rows() < rows {
            self.training = self.plan(rows, Mode::Training);
        }
        self.batch.reserve(
            &self.training,
            self.input_len,
            self.target_width,
            &self.model,
        );
        self.make_room_for_teacher(rows);
    }

    /// One step on the examples at `rows`; the sum of their losses, added in their order.
    ///
    /// The gradient is that of the mean loss. Running statistics move by the batch's. Dropout masks are drawn from `stream`: example by
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
        if self.training.whole_batch() {
            self.make_room(rows.len());
        }
        if let Some(sgd) = step.plain_sgd()
            && rows.len() <= self.training.rows()
        {
            if self.training.stores_gradients {
                self.gradient.reserve(self.model.parameters());
            }
            let update = Update::Step {
                step: sgd,
                anchor: step.anchor,
            };
            let loss = self.pass(data, rows, rows.len(), update, stream)?;
            self.keep_held();
            self.move_statistics(rows.len());
            return Ok(loss);
        }
        let loss = self.gradient(data, rows, stream)?;
        self.apply(step);
        self.move_statistics(rows.len());
        Ok(loss)
    }

    /// Moves the running statistics by those of a batch of `rows`, where the model has any.
    fn move_statistics(&mut self, rows: usize) {
        let weights = self.weights.values_mut();
        move_statistics(self.kernels, &self.training, &self.batch, weights, rows);
    }

    /// The gradient of the mean loss over the examples at `rows`, kept for
    /// [`Session::gradients`]; the sum of their losses. Running statistics have gradient zero and
    /// stay as they are.
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
        if self.training.whole_batch() {
            self.make_room(rows.len());
        }
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

    /// Moves the parameters along the last gradient; running statistics stay.
    fn apply(&mut self, step: &Step<'_>) {
        let kernels = self.kernels;
        let model = Arc::clone(&self.model);
        if let Some(mask) = &self.held {
            mask.apply(self.gradient.values_mut());
        }
        if let Some(most) = step.max_norm {
            let gradient = self.gradient.values_mut();
            let squares = model.trained().iter();
            let squares = squares.map(|part| kernels.sum_of_squares(&gradient[part.clone()]));
            let norm = libm::sqrt(squares.sum());
            if norm > f64::from(most) {
                kernels.scale((f64::from(most) / norm) as f32, gradient);
            }
        }
        for part in model.trained() {
            self.apply_to(step, part.clone());
        }
        // The proximal term may pull there.
        self.keep_held();
    }

    /// Moves some of the parameters.
    fn apply_to(&mut self, step: &Step<'_>, part: Range<usize>) {
        let kernels = self.kernels;
        let weights = &mut self.weights.values_mut()[part.clone()];
        let gradient = &self.gradient.values()[part.clone()];
        let anchor = match step.proximal_mu > 0.0 {
            true => &step.anchor[part.clone()],
            false => &[],
        };
        let mut sgd = SgdStep {
            rate: step.rate,
            weight_decay: 0.0,
            proximal_mu: step.proximal_mu,
        };
        match step.optimizer {
            Optimizer::Sgd {
                momentum,
                nesterov,
                weight_decay,
            } => {
                sgd.weight_decay = weight_decay;
                if momentum == 0.0 {
                    kernels.sgd(sgd, gradient, anchor, weights);
                } else {
                    let momentum = Momentum { momentum, nesterov };
                    let velocity = &mut self.first.values_mut()[part];
                    kernels.sgd_momentum(sgd, momentum, gradient, anchor, velocity, weights);
                }
            }
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
                decoupled,
            } => {
                sgd.weight_decay = weight_decay;
                let t = step.number + 1;
                let adam = AdamStep::new(sgd, beta1, beta2, epsilon, decoupled, t);
                let first = &mut self.first.values_mut()[part.clone()];
                let second = &mut self.second.values_mut()[part];
                kernels.adam(&adam, gradient, anchor, first, second, weights);
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
        teaching::ask(&mut self.teaching, buffers, memory, &self.model, rows);
        buffers.draw_masks(memory, rows.len(), stream);
        match &mut self.qat {
            Some(qat) => {
                let weights = self.weights.values_mut();
                qat.forward_training(self.kernels, memory, buffers.parts(rows.len()), weights);
            }
            None => forward(
                self.kernels,
                memory,
                buffers,
                self.weights.values(),
                rows.len(),
            ),
        }
        buffers.loss(
            self.kernels,
            memory,
            &self.model,
            rows.len(),
            self.target_width,
            Some(1.0 / batch as f32),
        );
        let lesson = Lesson {
            memory,
            model: &self.model,
            weights: self.weights.values_mut(),
            gradient: self.gradient.values_mut(),
            update,
            rows: rows.len(),
            scale: 1.0 / batch as f32,
        };
        teaching::teach(self.kernels, &mut self.teaching, buffers, lesson);
        for value in &buffers.losses[..rows.len()] {
            loss += f64::from(*value);
        }
        let (weights, gradient) = (self.weights.values_mut(), self.gradient.values_mut());
        match &mut self.qat {
            Some(qat) => qat.backward(
                self.kernels,
                memory,
                buffers.parts(rows.len()),
                weights,
                gradient,
                update,
            ),
            None => backward(
                self.kernels,
                memory,
                buffers,
                weights,
                gradient,
                update,
                rows.len(),
            ),
        }
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
        let found = self.judge(weights, data, rows)?;
        Ok((found.loss_sum, found.correct))
    }

    /// [`Self::evaluate`] with the number of predictions: examples, or positions where each has a
    /// target. The loss of such an example counts as often as it has positions with a target.
    ///
    /// # Errors
    /// [`BadExample`]
    ///
    /// # Panics
    /// When `weights` is not one value per parameter.
    pub fn judge(
        &mut self,
        weights: &[f32],
        data: &dyn Examples,
        rows: Range<u32>,
    ) -> Result<Evaluation, BadExample> {
        let most = self.evaluation_rows.min(rows.len()).max(1);
        if self.evaluation.rows() < most {
            self.evaluation = self.plan(most, Mode::Evaluation);
        }
        let memory = &self.evaluation;
        let buffers = &mut self.batch;
        buffers.reserve(memory, self.input_len, self.target_width, &self.model);
        if let Some(qat) = &mut self.qat {
            qat.lower(self.kernels, memory, buffers.parts(0), weights);
        }
        let mut evaluation = Evaluation::default();
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
            match &mut self.qat {
                Some(qat) => {
                    qat.forward_evaluation(self.kernels, memory, buffers.parts(count), weights);
                }
                None => forward(self.kernels, memory, buffers, weights, count),
            }
            buffers.loss(
                self.kernels,
                memory,
                &self.model,
                count,
                self.target_width,
                None,
            );
            let target = self.model.target();
            judge(
                self.kernels,
                target,
                &buffers.arena.values()[memory.at(memory.output, count)],
                &buffers.labels[..count * target.labels()],
                &buffers.losses[..count],
                &mut buffers.best,
                &mut evaluation,
            );
        }
        Ok(evaluation)
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
                self.evaluation = self.plan(part.len(), Mode::Evaluation);
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
            let weights = self.weights.values();
            match &mut self.qat {
                Some(qat) => {
                    qat.lower(self.kernels, memory, buffers.parts(0), weights);
                    let parts = buffers.parts(part.len());
                    qat.forward_evaluation(self.kernels, memory, parts, weights);
                }
                None => forward(self.kernels, memory, buffers, weights, part.len()),
            }
            outputs
                .extend_from_slice(&buffers.arena.values()[memory.at(memory.output, part.len())]);
        }
        Ok(outputs)
    }
}
