//! The backward half of a plan, and the norms of each example's gradient.

use super::super::{Backward, Mode, NormStep, Route, Slot};
use super::{NONE, Planner, batch_norm, kernel_function};
use crate::graph::{Node, Op, ValueId};
use crate::kernel::{Activation, Conv, Dense};

impl Planner<'_> {
    fn undo_relu(&mut self, f: Activation, root: ValueId, dy: Slot) {
        let kept = self.use_activation(root);
        self.walk.backward.push(Backward::Activate { f, kept, dy });
    }

    /// Notes the memory that the last operator of the backward pass needs for the norms of each
    /// example's gradients of these tensors.
    fn norms(&mut self, weight: usize, bias: Option<usize>, ghost: bool, scratch: usize) {
        if self.mode == Mode::PerExample {
            let scratch = self.walk.buffer(0, scratch);
            self.norms.push(NormStep {
                step: self.walk.backward.len() - 1,
                weight,
                bias,
                ghost,
                scratch,
            });
        }
    }

    /// The second time that parameters' gradients are computed, weighted by example: what they
    /// are made of lives on.
    pub(super) fn weighted(&mut self) {
        for index in 0..self.norms.len() {
            self.walk.time += 1;
            let mut step = self.walk.backward[self.norms[index].step].clone();
            match &mut step {
                Backward::Dense { x, dy, .. } => {
                    self.walk.touch(*x);
                    self.walk.touch(*dy);
                }
                Backward::Conv {
                    geometry,
                    x,
                    dy,
                    dw_scratch,
                    ..
                } => {
                    self.walk.touch(*x);
                    self.walk.touch(*dy);
                    *dw_scratch = self.walk.buffer(0, geometry.dw_scratch_len());
                }
                Backward::Norm { x, stats, dy, .. } => {
                    self.walk.touch(*x);
                    self.walk.touch(*stats);
                    self.walk.touch(*dy);
                }
                Backward::Embedding { dy, .. } => {
                    self.walk.touch(*dy);
                }
                _ => unreachable!("only operators with parameters have norms"),
            }
            self.weighted.push(step);
        }
    }

    pub(super) fn backward(&mut self, index: usize) {
        let Node { op, input, output } = self.walk.graph.nodes[index].clone();
        let (source, target) = (self.walk.root(input), self.walk.root(output));
        if !self.walk.needs_gradient[target] {
            return;
        }
        let Some(dy) = self.walk.gradient[target] else {
            return;
        };
        self.walk.touch(dy);
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
                let dx = self.walk.gradient_of(source);
                let scratch = self.walk.buffer(0, geometry.dx_scratch_len());
                self.walk.backward.push(Backward::Dense {
                    geometry,
                    x,
                    dy,
                    dx,
                    scratch,
                    weight: self.walk.tensor(weight),
                    bias: bias.map(|bias| self.walk.tensor(bias)),
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
                    Some(padded) => self.walk.touch(padded),
                    None => self.use_activation(source),
                };
                let dx = self.walk.gradient_of(source);
                let dx_len = match dx {
                    Some(_) => geometry.dx_scratch_len(self.walk.rows),
                    None => 0,
                };
                let dx_scratch = self.walk.buffer(0, dx_len);
                let dw_scratch = self.walk.buffer(0, geometry.dw_scratch_len());
                let (ghost, scratch) = (is_ghost(&geometry), norm_scratch_len(&geometry));
                self.walk.backward.push(Backward::Conv {
                    geometry,
                    x,
                    dy,
                    dx,
                    dx_scratch,
                    dw_scratch,
                    weight: self.walk.tensor(weight),
                    bias: bias.map(|bias| self.walk.tensor(bias)),
                });
                self.norms(weight, bias, ghost, scratch);
            }
            Op::MaxPool(geometry) => {
                if let Some(f) = self.left_to_pool(input).activation() {
                    self.undo_relu(f, target, dy);
                }
                if let Some(argmax) = self.saved_bytes[index] {
                    self.walk.overwrite(source, |dx| Route::MaxPool {
                        geometry,
                        argmax,
                        dy,
                        dx,
                    });
                }
            }
            Op::AvgPool(geometry) => {
                self.walk
                    .overwrite(source, |dx| Route::AvgPool { geometry, dy, dx });
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => self.walk.overwrite(source, |dx| Route::GlobalAvgPool {
                positions,
                channels,
                dy,
                dx,
            }),
            Op::Function(function) => {
                let f = kernel_function(function);
                let kept = if f.keeps_input() { source } else { target };
                self.undo_relu(f, kept, dy);
                self.walk.pass_on(dy, source);
            }
            Op::Dropout { rate } => {
                if let Some(keep) = self.saved_bytes[index] {
                    let scale = 1.0 / (1.0 - rate);
                    self.walk.route(Route::Dropout { keep, scale, dy });
                }
                self.walk.pass_on(dy, source);
            }
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                self.walk.stores_gradients = true;
                let x = self.use_activation(source);
                let stats = self.saved[index].unwrap_or(NONE);
                self.walk.touch(stats);
                let scratch = self.walk.buffer(0, geometry.scratch_len());
                let dx = match self.walk.needs_gradient[source] {
                    true => Some(self.walk.buffer(self.walk.len(source), 0)),
                    false => None,
                };
                self.walk.backward.push(Backward::Norm {
                    geometry,
                    x,
                    stats,
                    dy,
                    dx,
                    scratch,
                    gamma: self.walk.tensor(scale),
                    beta: self.walk.tensor(shift),
                });
                let sums = self.walk.tensor(scale).len() + self.walk.tensor(shift).len();
                self.norms(scale, Some(shift), false, sums);
                if let Some(dx) = dx {
                    self.walk.pass_on(dx, source);
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
                self.walk.stores_gradients = true;
                let x = self.use_activation(source);
                let stats = self.saved[index].unwrap_or(NONE);
                self.walk.touch(stats);
                self.walk.backward.push(Backward::BatchNorm {
                    geometry: batch_norm(positions, channels, epsilon),
                    x,
                    stats,
                    dy,
                    dx: self.walk.needs_gradient[source],
                    gamma: self.walk.tensor(scale),
                    beta: self.walk.tensor(shift),
                    fused,
                });
                self.walk.pass_on(dy, source);
            }
            Op::Embedding { table, size, .. } => {
                self.walk.stores_gradients = true;
                self.walk.backward.push(Backward::Embedding {
                    size,
                    table: self.walk.tensor(table),
                    dy,
                });
                self.norms(table, None, false, size);
            }
            Op::Add { other } => {
                self.walk.pass_to_both(dy, source, self.walk.root(other));
            }
        }
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
