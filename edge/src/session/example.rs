//! Norms of each example's gradient out of one backward pass, and sums of clipped gradients.
//!
//! A dense layer sees one row `x` of an example, so the norm of its weight's gradient is that of
//! `x` times that of the output's gradient (Goodfellow 2015, arXiv:1510.01799, §4). A convolution
//! sees many. Where its weight is small beside what its gradient is made of, each example's
//! gradient is formed once and kept, and the clipped sum is a sum of vectors; where it is large,
//! the squared norm is the sum of products of two Gram matrices (Rochette et al. 2019,
//! arXiv:1912.06015; the "ghost norm"), layer by layer as Bu et al. 2022 (arXiv:2205.10683, §4.1)
//! choose. Where nothing was kept, the output gradients, kept until now, are scaled by each
//! example's factor and the gradient is computed once for the whole batch (Bu et al. 2023,
//! arXiv:2210.00038, "book-keeping"). The backward pass through the inputs runs only once.

use alloc::vec::Vec;

use fl_core::{Examples, Stream};

use super::batch::Batch;
use super::private::Clip;
use super::run::{Update, backward_inputs, backward_parameters, forward, step_stored};
use super::teaching::{self, Lesson};
use super::{BadExample, Session, most_rows};
use crate::arena::{pick, reserve};
use crate::kernel::{Conv, Dense, Gradient, Kernels, Write};
use crate::plan::{Backward, Memory, Mode, NormStep, Tensor};

/// Why per-example gradients cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PerExampleError {
    /// Batch normalisation makes every example's loss depend on the others.
    #[error(
        "examples have no gradients of their own under batch normalisation; use group-norm layers \
         (norm = \"group\") instead"
    )]
    BatchNorm,
    /// The session trains for quantization.
    #[error(
        "gradients of single examples are not made in quantization-aware training; use a session \
         of `Session::new`"
    )]
    QuantizationAware,
    /// Layers of a teacher are matched.
    #[error(
        "a teacher's layers or relations have no gradients of single examples here: a relation is \
         the batch's, and a projection is trained beside the model; learn the teacher's response \
         alone, without `features` and `relation`"
    )]
    Distillation,
    /// A label or token is outside the model's range.
    #[error("{0}")]
    BadExample(BadExample),
}

impl From<BadExample> for PerExampleError {
    fn from(bad: BadExample) -> Self {
        Self::BadExample(bad)
    }
}

/// What a clipped gradient was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// The sum of the examples' losses, added in their order.
    pub loss: f64,
    /// Examples whose gradient was scaled down or left out.
    pub clipped: usize,
}

/// Memory for norms.
#[derive(Debug, Default)]
pub(super) struct Norms {
    memory: Option<Memory>,
    /// `[tensor][example]`, squared.
    squares: Vec<f64>,
    totals: Vec<f64>,
    /// Of the part that is worked on: what each example is multiplied by.
    factors: Vec<f32>,
    /// Examples of the last call.
    rows: usize,
}

impl Norms {
    /// Examples worked on at once.
    pub(super) fn part(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::rows)
    }

    /// Operators with parameters.
    pub(super) fn layers(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.norms.len())
    }
}

/// What the clipped sum is made of, and where it goes.
pub(super) struct Weighting<'a> {
    pub(super) clip: Clip,
    /// The sum is multiplied by this.
    pub(super) scale: f64,
    /// [`Update::Step`] needs all examples in one part.
    pub(super) update: Update<'a>,
}

/// The squared norms of a part of the examples.
struct Squares<'a> {
    squares: &'a mut [f64],
    /// Examples of all parts, and the first of this one.
    stride: usize,
    first: usize,
}

impl Squares<'_> {
    fn set(&mut self, tensor: usize, row: usize, square: f64) {
        self.squares[tensor * self.stride + self.first + row] = square;
    }

    fn get(&self, tensor: usize, row: usize) -> f64 {
        self.squares[tensor * self.stride + self.first + row]
    }

    /// Those of a tensor.
    fn of_tensor(&mut self, tensor: usize, rows: usize) -> &mut [f64] {
        &mut self.squares[tensor * self.stride + self.first..][..rows]
    }

    /// Those of the part alone.
    fn of(&self, rows: usize) -> PartSquares<'_> {
        PartSquares {
            squares: self.squares,
            stride: self.stride,
            first: self.first,
            rows,
        }
    }
}

/// The squared norms of a part of the examples, to be read.
pub(super) struct PartSquares<'a> {
    squares: &'a [f64],
    stride: usize,
    first: usize,
    pub(super) rows: usize,
}

impl PartSquares<'_> {
    /// The norm of an example's gradient of one operator's parameters.
    pub(super) fn layer(&self, norm: &NormStep, row: usize) -> f64 {
        let of = |tensor: usize| self.squares[tensor * self.stride + self.first + row];
        libm::sqrt(of(norm.weight) + norm.bias.map_or(0.0, of))
    }
}

impl Session {
    /// The L2 norm of the gradient of each example's own loss (not of a mean) over all
    /// parameters, for the examples at `rows` and the working parameters, in the order of `rows`.
    /// Dropout masks are drawn as [`Session::step`] does. No parameter moves.
    ///
    /// Memory grows with the batch and is kept; a call with no more examples than an earlier one
    /// allocates nothing. Batches that are too large are worked through in parts, which changes no
    /// bit.
    ///
    /// # Errors
    /// [`PerExampleError`]
    pub fn per_example_norms(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        stream: &mut Stream,
    ) -> Result<&[f64], PerExampleError> {
        self.example_passes(data, rows, None, stream)?;
        Ok(&self.norms.totals[..rows.len()])
    }

    /// Of the last [`Session::per_example_norms`] or [`Session::clipped_gradient`]: the L2 norm of
    /// one example's gradient of one tensor (its place in the layout), for clipping layer by
    /// layer.
    ///
    /// # Panics
    /// When there is no such tensor, or the call had not so many examples.
    #[must_use]
    pub fn example_norm_of(&self, tensor: usize, example: usize) -> f64 {
        assert!(
            example < self.norms.rows,
            "example {example} of {}",
            self.norms.rows
        );
        libm::sqrt(self.norms.squares[tensor * self.norms.rows + example])
    }

    /// The norms of the last [`Session::per_example_norms`] or [`Session::clipped_gradient`],
    /// before clipping.
    #[must_use]
    pub fn example_norms(&self) -> &[f64] {
        &self.norms.totals[..self.norms.rows]
    }

    /// The sum over the examples at `rows` of `g * min(1, max_norm / |g|)`, where `g` is the
    /// gradient of the example's own loss: flat clipping (Abadi et al. 2016, arXiv:1607.00133,
    /// algorithm 1), without noise. It is kept for [`Session::gradients`]. No parameter moves.
    ///
    /// An example whose norm is not a finite number counts as zero. The norm of what is left of an
    /// example exceeds `max_norm` by rounding at most, about one part in 1e5.
    ///
    /// # Errors
    /// [`PerExampleError`]
    pub fn clipped_gradient(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        max_norm: f32,
        stream: &mut Stream,
    ) -> Result<Clipped, PerExampleError> {
        self.gradient.reserve(self.model.parameters());
        if rows.is_empty() {
            self.gradient.values_mut().fill(0.0);
        }
        let weighting = Weighting {
            clip: Clip::flat(f64::from(max_norm)),
            scale: 1.0,
            update: Update::Store,
        };
        self.example_passes(data, rows, Some(weighting), stream)
    }

    /// Whether examples have gradients of their own.
    pub(super) fn check_examples(&self) -> Result<(), PerExampleError> {
        let taught = self.model.distillation();
        if taught.is_some_and(|taught| !taught.is_response_alone()) {
            return Err(PerExampleError::Distillation);
        }
        if self.training.whole_batch() {
            return Err(PerExampleError::BatchNorm);
        }
        if self.qat.is_some() {
            return Err(PerExampleError::QuantizationAware);
        }
        Ok(())
    }

    pub(super) fn example_passes(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        weighting: Option<Weighting<'_>>,
        stream: &mut Stream,
    ) -> Result<Clipped, PerExampleError> {
        self.check_examples()?;
        self.make_room_for_norms(rows.len());
        let Self {
            norms,
            batch,
            model,
            kernels,
            weights,
            gradient,
            teaching,
            ..
        } = self;
        let Norms {
            memory: Some(memory),
            squares,
            totals,
            factors,
            ..
        } = norms
        else {
            unreachable!("room was made");
        };
        let stride = rows.len();
        let (weights, gradient) = (weights.values_mut(), gradient.values_mut());
        let mut found = Clipped {
            loss: 0.0,
            clipped: 0,
        };
        let mut update = weighting.as_ref().map_or(Update::Store, |it| it.update);
        for (number, part) in rows.chunks(memory.rows()).enumerate() {
            let mut squares = Squares {
                squares,
                stride,
                first: number * memory.rows(),
            };
            let totals = &mut totals[squares.first..][..part.len()];
            batch.fill(memory, model, data, part, self.input_len, self.target_width)?;
            teaching::ask(teaching, batch, memory, model, part);
            batch.draw_masks(memory, part.len(), stream);
            forward(kernels, memory, batch, weights, part.len());
            batch.loss(
                kernels,
                memory,
                model,
                part.len(),
                self.target_width,
                Some(1.0),
            );
            let lesson = Lesson {
                memory,
                model,
                weights,
                gradient,
                update: Update::Store,
                rows: part.len(),
                scale: 1.0,
            };
            teaching::teach(kernels, teaching, batch, lesson);
            for loss in &batch.losses[..part.len()] {
                found.loss += f64::from(*loss);
            }
            let mut norm_steps = memory.norms.iter();
            let mut next = norm_steps.next();
            for (index, step) in memory.backward.iter().enumerate() {
                backward_inputs(kernels, memory, batch, weights, step, part.len());
                if let Some(norm) = next.filter(|norm| norm.step == index) {
                    parameter_norms(kernels, memory, batch, step, norm, &mut squares, part.len());
                    next = norm_steps.next();
                }
            }
            totals.fill(0.0);
            for tensor in squares.squares.chunks_exact(stride) {
                for (total, square) in totals.iter_mut().zip(&tensor[squares.first..]) {
                    *total += square;
                }
            }
            for total in &mut *totals {
                *total = libm::sqrt(*total);
            }
            let Some(Weighting { clip, scale, .. }) = &weighting else {
                continue;
            };
            let factors = &mut factors[..part.len()];
            found.clipped += clip.count(&memory.norms, &squares.of(part.len()), totals);
            if !clip.by_layer() {
                clip.factors(totals, |row| totals[row], *scale, factors);
            }
            for (step, norm) in memory.weighted.iter().zip(&memory.norms) {
                if clip.by_layer() {
                    let of = squares.of(part.len());
                    clip.factors(totals, |row| of.layer(norm, row), *scale, factors);
                }
                if let Some(own) = norm.own {
                    let own = &batch.arena.values()[memory.at(own, part.len())];
                    add_kept(kernels, step, own, factors, weights, gradient, update);
                    continue;
                }
                weigh(kernels, memory, batch, step, totals, factors);
                backward_parameters(
                    kernels,
                    memory,
                    batch,
                    weights,
                    gradient,
                    update,
                    step,
                    part.len(),
                );
            }
            update = Update::Accumulate;
        }
        Ok(found)
    }

    /// Memory for the norms of `rows` examples.
    pub(super) fn make_room_for_norms(&mut self, rows: usize) {
        let Norms {
            memory,
            squares,
            totals,
            factors,
            ..
        } = &mut self.norms;
        let most = self.example_rows.get_or_insert_with(|| {
            most_rows(
                &Memory::new(&self.model, 1, Mode::PerExample),
                Mode::PerExample,
            )
        });
        let most = (*most).min(self.training_rows);
        let wanted = rows.clamp(1, most);
        if memory.as_ref().is_none_or(|memory| memory.rows() < wanted) {
            *memory = Some(Memory::new(&self.model, wanted, Mode::PerExample));
        }
        if let Some(memory) = memory {
            self.batch
                .reserve(memory, self.input_len, self.target_width, &self.model);
        }
        let tensors = self.model.layout().tensors().len();
        squares.clear();
        squares.resize(tensors * rows, 0.0);
        reserve(totals, rows);
        reserve(factors, wanted);
        self.norms.rows = rows;
        self.make_room_for_teacher(self.norms.part());
    }
}

/// Scales each example's part of the operator's output gradient as clipping asks. All that an
/// example without a finite norm would give its part of is zeroed.
fn weigh(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    step: &Backward,
    norms: &[f64],
    factors: &[f32],
) {
    let (dy, x) = match step {
        Backward::Dense { x, dy, .. } | Backward::Conv { x, dy, .. } => (*dy, Some(*x)),
        Backward::Embedding { dy, .. } => (*dy, None),
        _ => unreachable!("the gradients of all others are kept"),
    };
    let arena = batch.arena.values_mut();
    let place = |slot| {
        let range = memory.at(slot, norms.len());
        let width = range.len() / norms.len();
        move |row: usize| range.start + row * width..range.start + (row + 1) * width
    };
    let all = memory.at(dy, norms.len());
    k.scale_rows(all.len() / norms.len(), factors, &mut arena[all]);
    for (row, _) in norms.iter().enumerate().filter(|(_, it)| !it.is_finite()) {
        for slot in [Some(dy), x].into_iter().flatten() {
            arena[place(slot)(row)].fill(0.0);
        }
    }
}

/// The weighted sum of examples' gradients that were kept, in their order.
fn add_kept(
    k: &Kernels,
    step: &Backward,
    own: &[f32],
    factors: &[f32],
    weights: &mut [f32],
    gradient: &mut [f32],
    update: Update<'_>,
) {
    let tensors: [Option<&Tensor>; 2] = match step {
        Backward::Conv { weight, bias, .. } => [Some(weight), bias.as_ref()],
        Backward::Norm { gamma, beta, .. } => [Some(gamma), Some(beta)],
        Backward::Recurrent { weight, bias, .. } => [Some(weight), bias.as_ref()],
        Backward::Position { table, .. } => [Some(table), None],
        _ => unreachable!("the gradients of all others are not kept"),
    };
    let mut first = 0;
    let width = own.len() / factors.len();
    for tensor in tensors.into_iter().flatten() {
        let to = &mut gradient[tensor.clone()];
        if !matches!(update, Update::Accumulate) {
            to.fill(0.0);
        }
        for (own, &factor) in own.chunks_exact(width).zip(factors) {
            // Nothing of an example without a finite norm.
            if factor > 0.0 {
                k.axpy(factor, &own[first..first + tensor.len()], to);
            }
        }
        step_stored(k, update, tensor, weights, gradient);
        first += tensor.len();
    }
}

/// The squared norms of every example's gradients of an operator's parameters.
fn parameter_norms(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    step: &Backward,
    norm: &NormStep,
    squares: &mut Squares<'_>,
    rows: usize,
) {
    let arena = batch.arena.values_mut();
    let at = |slot| memory.at(slot, rows);
    match step {
        Backward::Dense {
            geometry, x, dy, ..
        } => {
            let [x, dy] = pick(arena, [at(*x), at(*dy)]);
            let back = squares.of_tensor(norm.bias.unwrap_or(norm.weight), rows);
            k.row_squares(geometry.outputs, dy, back);
            let Some(bias) = norm.bias else {
                for (square, x) in back.iter_mut().zip(x.chunks_exact(geometry.inputs)) {
                    *square *= k.sum_of_squares(x);
                }
                return;
            };
            k.row_squares(geometry.inputs, x, squares.of_tensor(norm.weight, rows));
            for row in 0..rows {
                let square = squares.get(norm.weight, row) * squares.get(bias, row);
                squares.set(norm.weight, row, square);
            }
        }
        Backward::Conv {
            geometry, x, dy, ..
        } => {
            let filters = geometry.shape().filters;
            let Some(own) = norm.own else {
                let [x, dy, scratch] = pick(arena, [at(*x), at(*dy), at(norm.scratch)]);
                ghost_norms(k, geometry, x, dy, scratch, norm, squares);
                return;
            };
            let places = [at(*x), at(*dy), at(own), at(norm.scratch)];
            let [x, dy, own, scratch] = pick(arena, places);
            let examples = x
                .chunks_exact(geometry.padded_len())
                .zip(dy.chunks_exact(geometry.output_len()));
            let own = own.chunks_exact_mut(own.len() / rows);
            for (row, ((x, dy), own)) in examples.zip(own).enumerate() {
                let (weight, sums) = own.split_at_mut(geometry.weight_len());
                k.conv_dw(geometry, 1, x, dy, Gradient::Store(weight), scratch);
                squares.set(norm.weight, row, k.sum_of_squares(weight));
                if let Some(bias) = norm.bias {
                    let positions = geometry.out_height() * geometry.out_width();
                    k.column_sums(positions, filters, dy, Gradient::Store(sums));
                    squares.set(bias, row, k.sum_of_squares(sums));
                }
            }
        }
        Backward::Norm {
            geometry,
            x,
            stats,
            dy,
            ..
        } => {
            let Some(own) = norm.own else {
                unreachable!("these gradients are small");
            };
            let [x, stats, dy, own] = pick(arena, [at(*x), at(*stats), at(*dy), at(own)]);
            let width = geometry.example_len();
            let examples = x.chunks_exact(width).zip(dy.chunks_exact(width));
            let own = own.chunks_exact_mut(own.len() / rows);
            for (row, ((x, dy), own)) in examples.zip(own).enumerate() {
                let (dgamma, dbeta) = own.split_at_mut(own.len() / 2);
                let stats = &stats[row * geometry.stats_len()..];
                k.norm_dparameters(geometry, 1, x, stats, dy, dgamma, dbeta, Write::Store);
                squares.set(norm.weight, row, k.sum_of_squares(dgamma));
                if let Some(shift) = norm.bias {
                    squares.set(shift, row, k.sum_of_squares(dbeta));
                }
            }
        }
        Backward::Embedding { size, dy, .. } => {
            let [dy, sum] = pick(arena, [at(*dy), at(norm.scratch)]);
            let length = dy.len() / size / rows;
            let tokens = batch.tokens.chunks_exact(length);
            for (row, (tokens, dy)) in tokens.zip(dy.chunks_exact(length * size)).enumerate() {
                // The gradient of a token's row is the sum over its places.
                let mut square = 0.0;
                for (place, token) in tokens.iter().enumerate() {
                    if tokens[..place].contains(token) {
                        continue;
                    }
                    sum.fill(0.0);
                    for (other, dy) in tokens.iter().zip(dy.chunks_exact(*size)).skip(place) {
                        if other == token {
                            k.add(dy, sum);
                        }
                    }
                    square += k.sum_of_squares(sum);
                }
                squares.set(norm.weight, row, square);
            }
        }
        Backward::Recurrent {
            geometry,
            gates,
            kept,
            previous,
            ..
        } => {
            let Some(own) = norm.own else {
                unreachable!("these gradients are kept");
            };
            let places = [at(*gates), at(*kept), at(*previous), at(own)];
            let [gates, kept, previous, own] = pick(arena, places);
            let (width, states) = (geometry.gates_len(), geometry.states_len());
            let own = own.chunks_exact_mut(own.len() / rows);
            for (row, own) in own.enumerate() {
                let gates = &gates[row * width..][..width];
                let kept = &kept[row * states..][..states];
                let previous = &previous[row * states..][..states];
                let (weight, sums) = own.split_at_mut(geometry.transposed_len());
                let to = Gradient::Store(weight);
                k.recurrent_dw(geometry, 1, previous, gates, kept, to);
                squares.set(norm.weight, row, k.sum_of_squares(weight));
                if let Some(bias) = norm.bias {
                    k.recurrent_db(geometry, 1, kept, Gradient::Store(sums));
                    squares.set(bias, row, k.sum_of_squares(sums));
                }
            }
        }
        Backward::Position { table, dy } => {
            let Some(own) = norm.own else {
                unreachable!("these gradients are kept");
            };
            // The gradient of an example is its part of the output's.
            let [dy, own] = pick(arena, [at(*dy), at(own)]);
            own.copy_from_slice(&dy[..own.len()]);
            k.row_squares(table.len(), own, squares.of_tensor(norm.weight, rows));
        }
        _ => unreachable!("only operators with parameters have norms"),
    }
}

/// The squared norms of a convolution's gradients, without the gradients.
fn ghost_norms(
    k: &Kernels,
    geometry: &Conv,
    x: &[f32],
    dy: &[f32],
    scratch: &mut [f32],
    norm: &NormStep,
    squares: &mut Squares<'_>,
) {
    let positions = geometry.out_height() * geometry.out_width();
    let filters = geometry.shape().filters;
    let terms = geometry.weight_len() / filters;
    let examples = x
        .chunks_exact(geometry.padded_len())
        .zip(dy.chunks_exact(geometry.output_len()));
    for (row, (x, dy)) in examples.enumerate() {
        if let Some(bias) = norm.bias {
            let sums = &mut scratch[..filters];
            k.column_sums(positions, filters, dy, Gradient::Store(sums));
            squares.set(bias, row, k.sum_of_squares(sums));
        }
        let (grams, rest) = scratch.split_at_mut(2 * positions * positions);
        let (left, right) = grams.split_at_mut(positions * positions);
        let (windows, rest) = rest.split_at_mut((positions * terms).max(filters));
        k.unroll(geometry, x, windows);
        gram(k, positions, terms, windows, left, rest);
        gram(k, positions, filters, dy, right, rest);
        // Rounding may take a norm of zero below it.
        squares.set(norm.weight, row, k.inner_product(left, right).max(0.0));
    }
}

/// `gram[n, n] = x[n, width] x^T`
fn gram(k: &Kernels, n: usize, width: usize, x: &[f32], gram: &mut [f32], scratch: &mut [f32]) {
    let product = Dense {
        inputs: n,
        outputs: width,
    };
    k.dense_dx(&product, n, x, x, gram, Write::Store, scratch);
}
