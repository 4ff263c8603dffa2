//! The forward and the backward pass over a plan.

use super::batch::Batch;
use crate::arena::pick;
use crate::kernel::{Gradient, Kernels, SgdStep, Write};
use crate::plan::{Backward, Forward, Memory, Tensor};

/// Where gradients go in a backward pass.
#[derive(Clone, Copy)]
pub(crate) enum Update<'a> {
    Store,
    Accumulate,
    Step { step: SgdStep, anchor: &'a [f32] },
}

/// Runs the forward pass.
pub(super) fn forward(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    weights: &[f32],
    rows: usize,
) {
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
                fused,
            } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                let bias = bias.clone().map(|bias| &weights[bias]);
                k.dense(geometry, rows, x, &weights[weight.clone()], bias, *fused, y);
            }
            Forward::Conv {
                geometry,
                x,
                padded,
                y,
                weight,
                bias,
                fused,
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
                k.conv(geometry, rows, x, &weights[weight.clone()], bias, *fused, y);
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
            Forward::BatchNorm {
                geometry,
                x,
                y,
                stats,
                gamma,
                beta,
                fused,
            } => {
                let [x, y, stats] = pick(arena, [at(*x), at(*y), at(*stats)]);
                k.batch_norm_statistics(geometry, rows, x, stats);
                let (mean, r) = stats.split_at(gamma.len());
                let (gamma, beta) = (&weights[gamma.clone()], &weights[beta.clone()]);
                k.batch_norm(geometry, rows, x, mean, r, gamma, beta, *fused, y);
            }
            Forward::RunningNorm {
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
            } => {
                let [x, y, r] = pick(arena, [at(*x), at(*y), at(*r)]);
                k.batch_norm_factor(*epsilon, &weights[variance.clone()], r);
                let mean = &weights[mean.clone()];
                let (gamma, beta) = (&weights[gamma.clone()], &weights[beta.clone()]);
                k.batch_norm(geometry, rows, x, mean, r, gamma, beta, *fused, y);
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
            Forward::Recurrent {
                geometry,
                gates,
                y,
                kept,
                scratch,
                weight,
                bias,
            } => {
                let places = [at(*gates), at(*y), at(*kept), at(*scratch)];
                let [gates, y, kept, scratch] = pick(arena, places);
                let bias = bias.clone().map_or(&[][..], |bias| &weights[bias]);
                let weight = &weights[weight.clone()];
                k.recurrent(geometry, rows, gates, weight, bias, y, kept, scratch);
            }
            Forward::Attention {
                geometry,
                x,
                y,
                probabilities,
                scratch,
            } => {
                let places = [at(*x), at(*y), at(*probabilities), at(*scratch)];
                let [x, y, probabilities, scratch] = pick(arena, places);
                k.attention(geometry, rows, x, y, probabilities, scratch);
            }
            Forward::Last {
                positions,
                channels,
                x,
                y,
            } => {
                let [x, y] = pick(arena, [at(*x), at(*y)]);
                k.last(rows, *positions, *channels, x, y);
            }
            Forward::Position { table, y } => {
                k.add_to_rows(rows, &weights[table.clone()], &mut arena[at(*y)]);
            }
        }
    }
}

/// Where the gradient of one tensor goes.
pub(crate) fn gradient_of<'a>(
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
pub(crate) fn step_stored(
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
pub(super) fn backward(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    weights: &mut [f32],
    gradient: &mut [f32],
    update: Update<'_>,
    rows: usize,
) {
    for step in &memory.backward {
        backward_inputs(k, memory, batch, weights, step, rows);
        backward_parameters(k, memory, batch, weights, gradient, update, step, rows);
    }
}

/// The gradients of an operator's inputs, which only read the parameters.
pub(super) fn backward_inputs(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    weights: &[f32],
    step: &Backward,
    rows: usize,
) {
    let arena = batch.arena.values_mut();
    let at = |slot| memory.at(slot, rows);
    match step {
        Backward::Dense {
            geometry,
            dy,
            dx: Some((dx, write)),
            scratch,
            weight,
            ..
        } => {
            let [dy, dx, scratch] = pick(arena, [at(*dy), at(*dx), at(*scratch)]);
            let weight = &weights[weight.clone()];
            k.dense_dx(geometry, rows, dy, weight, dx, *write, scratch);
        }
        Backward::Conv {
            geometry,
            dy,
            dx: Some((dx, write)),
            dx_scratch,
            weight,
            ..
        } => {
            let [dy, dx, scratch] = pick(arena, [at(*dy), at(*dx), at(*dx_scratch)]);
            let weight = &weights[weight.clone()];
            k.conv_dx(geometry, rows, dy, weight, dx, *write, scratch);
        }
        Backward::Norm {
            geometry,
            x,
            stats,
            dy,
            dx: Some(dx),
            scratch,
            gamma,
            ..
        } => {
            let places = [at(*x), at(*stats), at(*dy), at(*dx), at(*scratch)];
            let [x, stats, dy, dx, scratch] = pick(arena, places);
            let gamma = &weights[gamma.clone()];
            k.norm_dx(geometry, rows, x, gamma, stats, dy, dx, scratch);
        }
        // Batch normalisation needs its parameters' gradients first.
        Backward::Dense { dx: None, .. }
        | Backward::Conv { dx: None, .. }
        | Backward::Norm { dx: None, .. }
        | Backward::BatchNorm { .. }
        | Backward::Embedding { .. }
        | Backward::Position { .. } => {}
        Backward::Recurrent {
            geometry,
            gates,
            y,
            kept,
            previous,
            dy,
            scratch,
            weight,
            ..
        } => {
            let places = [*gates, *y, *kept, *previous, *dy, *scratch].map(at);
            let [gates, y, kept, previous, dy, scratch] = pick(arena, places);
            let weight = &weights[weight.clone()];
            k.recurrent_dx(
                geometry, rows, y, dy, weight, gates, kept, previous, scratch,
            );
        }
        Backward::Attention {
            geometry,
            x,
            probabilities,
            dy,
            dx,
            scratch,
        } => {
            let places = [*x, *probabilities, *dy, *dx, *scratch].map(at);
            let [x, probabilities, dy, dx, scratch] = pick(arena, places);
            k.attention_dx(geometry, rows, x, probabilities, dy, dx, scratch);
        }
        Backward::Activate { f, kept, dy } => {
            let [kept, dy] = pick(arena, [at(*kept), at(*dy)]);
            k.activate_grad(*f, kept, dy);
        }
        Backward::Route(route) => route.run(k, memory, arena, &batch.bytes, rows),
    }
}

/// The gradients of an operator's parameters, where it has any.
#[expect(
    clippy::too_many_arguments,
    reason = "the operands of a pass, and one operator of it"
)]
pub(super) fn backward_parameters(
    k: &Kernels,
    memory: &Memory,
    batch: &mut Batch,
    weights: &mut [f32],
    gradient: &mut [f32],
    update: Update<'_>,
    step: &Backward,
    rows: usize,
) {
    let arena = batch.arena.values_mut();
    let at = |slot| memory.at(slot, rows);
    match step {
        Backward::Dense {
            geometry,
            x,
            dy,
            weight,
            bias,
            ..
        } => {
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
            dw_scratch,
            weight,
            bias,
            ..
        } => {
            let [x, dy, scratch] = pick(arena, [at(*x), at(*dy), at(*dw_scratch)]);
            if let Some(bias) = bias {
                let positions = rows * geometry.out_height() * geometry.out_width();
                let to = gradient_of(update, bias, weights, gradient);
                k.column_sums(positions, geometry.shape().filters, dy, to);
            }
            let to = gradient_of(update, weight, weights, gradient);
            k.conv_dw(geometry, rows, x, dy, to, scratch);
        }
        Backward::Norm {
            geometry,
            x,
            stats,
            dy,
            gamma,
            beta,
            ..
        } => {
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
        Backward::BatchNorm {
            geometry,
            x,
            stats,
            dy,
            dx,
            gamma,
            beta,
            fused,
        } => {
            let [x, stats, dy] = pick(arena, [at(*x), at(*stats), at(*dy)]);
            let [dgamma, dbeta] = pick(gradient, [gamma.clone(), beta.clone()]);
            let (g, b) = (&weights[gamma.clone()], &weights[beta.clone()]);
            k.batch_norm_dparameters(geometry, rows, x, g, b, stats, *fused, dy, dgamma, dbeta);
            if *dx {
                k.batch_norm_dx(geometry, rows, x, g, b, stats, *fused, dgamma, dbeta, dy);
            }
            step_stored(k, update, gamma, weights, gradient);
            step_stored(k, update, beta, weights, gradient);
        }
        Backward::Recurrent {
            geometry,
            gates,
            kept,
            previous,
            weight,
            bias,
            ..
        } => {
            let places = [at(*gates), at(*kept), at(*previous)];
            let [gates, kept, previous] = pick(arena, places);
            if let Some(bias) = bias {
                let to = gradient_of(update, bias, weights, gradient);
                k.recurrent_db(geometry, rows, kept, to);
            }
            let to = gradient_of(update, weight, weights, gradient);
            k.recurrent_dw(geometry, rows, previous, gates, kept, to);
        }
        Backward::Position { table, dy } => {
            let to = gradient_of(update, table, weights, gradient);
            k.column_sums(rows, table.len(), &arena[at(*dy)], to);
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
        _ => {}
    }
}

/// Moves the running statistics by those of the batch that was just worked through.
pub(super) fn move_statistics(
    k: &Kernels,
    memory: &Memory,
    batch: &Batch,
    weights: &mut [f32],
    rows: usize,
) {
    for running in &memory.running {
        // The unbiased variance of one value does not exist: nothing moves.
        let count = rows * running.positions;
        if count > 1 {
            let stats = &batch.arena.values()[memory.at(running.stats, rows)];
            let channels = running.mean.len();
            let mean = &mut weights[running.mean.clone()];
            k.batch_norm_running(running.momentum, 1.0, stats, mean);
            let unbiased = (count as f64 / (count - 1) as f64) as f32;
            let variance = &mut weights[running.variance.clone()];
            k.batch_norm_running(running.momentum, unbiased, &stats[2 * channels..], variance);
        }
    }
}
