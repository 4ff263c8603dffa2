//! Norms of each example's gradient out of one backward pass, and sums of clipped gradients.
//!
//! A dense layer sees one row `x` of an example, so the norm of its weight's gradient is that of
//! `x` times that of the output's gradient (Goodfellow 2015, arXiv:1510.01799, §4). A convolution
//! sees many, and its gradient is either formed for one example after the other, or its squared
//! norm is the sum of products of two Gram matrices (Rochette et al. 2019, arXiv:1912.06015; the
//! "ghost norm"), whichever is smaller, layer by layer (Bu et al. 2022, arXiv:2205.10683, §4.1).
//! Then the output gradients, kept until now, are scaled by each example's factor and every
//! parameter's gradient is computed once for the whole batch (Bu et al. 2023, arXiv:2210.00038,
//! "book-keeping"), so that the backward pass through the inputs runs only once.

use fl_core::{Examples, Stream};

use super::batch::Batch;
use super::run::{Update, backward_inputs, backward_parameters, forward};
use super::{BadExample, Session, most_rows};
use crate::arena::{pick, reserve};
use crate::kernel::{Dense, Gradient, Kernels, Write};
use crate::plan::{Backward, Memory, Mode, NormStep};

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
    /// Examples of the last call.
    rows: usize,
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
        self.example_passes(data, rows, Some(max_norm), stream)
    }

    fn example_passes(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        max_norm: Option<f32>,
        stream: &mut Stream,
    ) -> Result<Clipped, PerExampleError> {
        if self.training.whole_batch() {
            return Err(PerExampleError::BatchNorm);
        }
        if self.qat.is_some() {
            return Err(PerExampleError::QuantizationAware);
        }
        self.make_room_for_norms(rows.len());
        let Self {
            norms,
            batch,
            model,
            kernels,
            weights,
            gradient,
            ..
        } = self;
        let Norms {
            memory: Some(memory),
            squares,
            totals,
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
        let mut update = Update::Store;
        for (number, part) in rows.chunks(memory.rows()).enumerate() {
            let mut squares = Squares {
                squares,
                stride,
                first: number * memory.rows(),
            };
            let totals = &mut totals[squares.first..][..part.len()];
            batch.fill(memory, model, data, part, self.input_len, self.target_width)?;
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
            for (row, total) in totals.iter_mut().enumerate() {
                let at = squares.first + row;
                let all = squares.squares.iter().skip(at).step_by(stride);
                *total = libm::sqrt(all.sum::<f64>());
            }
            let Some(max_norm) = max_norm else {
                continue;
            };
            let most = f64::from(max_norm);
            found.clipped += totals
                .iter()
                .filter(|norm| norm.is_nan() || **norm > most)
                .count();
            for step in &memory.weighted {
                weigh(kernels, memory, batch, step, totals, most);
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
    fn make_room_for_norms(&mut self, rows: usize) {
        let Norms {
            memory,
            squares,
            totals,
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
        self.norms.rows = rows;
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
    most: f64,
) {
    let (dy, others) = match step {
        Backward::Dense { x, dy, .. } | Backward::Conv { x, dy, .. } => (*dy, [Some(*x), None]),
        Backward::Norm { x, stats, dy, .. } => (*dy, [Some(*x), Some(*stats)]),
        Backward::Embedding { dy, .. } => (*dy, [None; 2]),
        _ => unreachable!("only operators with parameters are weighted"),
    };
    let arena = batch.arena.values_mut();
    let place = |slot| {
        let range = memory.at(slot, norms.len());
        let width = range.len() / norms.len();
        move |row: usize| range.start + row * width..range.start + (row + 1) * width
    };
    let of = place(dy);
    for (row, &norm) in norms.iter().enumerate() {
        if !norm.is_finite() {
            arena[of(row)].fill(0.0);
            for other in others.into_iter().flatten() {
                arena[place(other)(row)].fill(0.0);
            }
        } else if norm > most {
            k.scale((most / norm) as f32, &mut arena[of(row)]);
        }
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
            let examples = x
                .chunks_exact(geometry.inputs)
                .zip(dy.chunks_exact(geometry.outputs));
            for (row, (x, dy)) in examples.enumerate() {
                let back = k.sum_of_squares(dy);
                squares.set(norm.weight, row, k.sum_of_squares(x) * back);
                if let Some(bias) = norm.bias {
                    squares.set(bias, row, back);
                }
            }
        }
        Backward::Conv {
            geometry, x, dy, ..
        } => {
            let [x, dy, scratch] = pick(arena, [at(*x), at(*dy), at(norm.scratch)]);
            let positions = geometry.out_height() * geometry.out_width();
            let filters = geometry.shape().filters;
            let examples = x
                .chunks_exact(geometry.padded_len())
                .zip(dy.chunks_exact(geometry.output_len()));
            for (row, (x, dy)) in examples.enumerate() {
                if let Some(bias) = norm.bias {
                    let sums = &mut scratch[..filters];
                    k.column_sums(positions, filters, dy, Gradient::Store(sums));
                    squares.set(bias, row, k.sum_of_squares(sums));
                }
                let square = if norm.ghost {
                    let terms = geometry.weight_len() / filters;
                    let (grams, rest) = scratch.split_at_mut(2 * positions * positions);
                    let (left, right) = grams.split_at_mut(positions * positions);
                    let (windows, rest) = rest.split_at_mut((positions * terms).max(filters));
                    k.unroll(geometry, x, windows);
                    gram(k, positions, terms, windows, left, rest);
                    gram(k, positions, filters, dy, right, rest);
                    // Rounding may take a norm of zero below it.
                    k.inner_product(left, right).max(0.0)
                } else {
                    let (own, rest) = scratch.split_at_mut(geometry.weight_len());
                    k.conv_dw(geometry, 1, x, dy, Gradient::Store(own), rest);
                    k.sum_of_squares(own)
                };
                squares.set(norm.weight, row, square);
            }
        }
        Backward::Norm {
            geometry,
            x,
            stats,
            dy,
            ..
        } => {
            let places = [at(*x), at(*stats), at(*dy), at(norm.scratch)];
            let [x, stats, dy, scratch] = pick(arena, places);
            let (dgamma, dbeta) = scratch.split_at_mut(scratch.len() / 2);
            let width = geometry.example_len();
            let examples = x.chunks_exact(width).zip(dy.chunks_exact(width));
            for (row, (x, dy)) in examples.enumerate() {
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
        _ => unreachable!("only operators with parameters have norms"),
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
