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
    /// example's gradients of these tensors: `own` numbers for each example's gradients, where
    /// they are kept, and scratch.
    fn norms(&mut self, weight: usize, bias: Option<usize>, own: usize, scratch: usize) {
        if self.mode == Mode::PerExample {
            let own = (own > 0).then(|| self.walk.buffer(own, 0));
            let scratch = self.walk.buffer(0, scratch);
            self.norms.push(NormStep {
                step: self.walk.backward.len() - 1,
                weight,
                bias,
                own,
                scratch,
            });
        }
    }

    /// The second time that parameters' gradients are computed, weighted by example: what they
    /// are made of lives on, be it the examples' gradients themselves.
    pub(super) fn weighted(&mut self) {
        for index in 0..self.norms.len() {
            self.walk.time += 1;
            let norm = self.norms[index];
            let mut step = self.walk.backward[norm.step].clone();
            if let Some(own) = norm.own {
                self.walk.touch(own);
                self.weighted.push(step);
                continue;
            }
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
                self.norms(weight, bias, 0, 0);
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
                let own = own_len(&geometry, bias.is_some());
                let scratch = norm_scratch_len(&geometry, own);
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
                self.norms(weight, bias, own, scratch);
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
                self.norms(scale, Some(shift), sums, 0);
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
                self.norms(table, None, 0, size);
            }
            Op::Recurrent {
                geometry,
                weight,
                bias,
            } => {
                let y = self.use_activation(target);
                let gates = self.saved[index].unwrap_or(NONE);
                let kept = self.saved_second[index].unwrap_or(NONE);
                self.walk.touch(gates);
                self.walk.touch(kept);
                let previous = self.walk.buffer(geometry.states_len(), 0);
                let scratch = self
                    .walk
                    .buffer(geometry.backward_scratch_len(), geometry.transposed_len());
                self.walk.backward.push(Backward::Recurrent {
                    geometry,
                    gates,
                    y,
                    kept,
                    previous,
                    dy,
                    scratch,
                    weight: self.walk.tensor(weight),
                    bias: bias.map(|bias| self.walk.tensor(bias)),
                });
                let own = geometry.transposed_len() + bias.map_or(0, |_| geometry.units());
                self.norms(weight, bias, own, 0);
                self.walk.pass_on(gates, source);
            }
            Op::Attention(geometry) => {
                let x = self.use_activation(source);
                let probabilities = self.saved[index].unwrap_or(NONE);
                self.walk.touch(probabilities);
                if self.walk.needs_gradient[source] {
                    let scratch = self.walk.buffer(0, geometry.backward_scratch_len());
                    let dx = self.walk.buffer(self.walk.len(source), 0);
                    self.walk.backward.push(Backward::Attention {
                        geometry,
                        x,
                        probabilities,
                        dy,
                        dx,
                        scratch,
                    });
                    self.walk.pass_on(dx, source);
                }
            }
            Op::Last {
                positions,
                channels,
            } => self.walk.overwrite(source, |dx| Route::Last {
                positions,
                channels,
                dy,
                dx,
            }),
            Op::Position { table } => {
                self.walk.backward.push(Backward::Position {
                    table: self.walk.tensor(table),
                    dy,
                });
                let own = self.walk.tensor(table).len();
                self.norms(table, None, own, 0);
                self.walk.pass_on(dy, source);
            }
            Op::Add { other } => {
                self.walk.pass_to_both(dy, source, self.walk.root(other));
            }
        }
    }
}

/// Numbers that each example's gradients of a convolution's parameters take, where they are formed
/// once and kept; 0 where their norms come from Gram matrices, whose products are fewer for large
/// weights (Bu et al. 2022, arXiv:2205.10683, table 1) and take no memory for each example.
fn own_len(c: &Conv, bias: bool) -> usize {
    let filters = c.shape().filters;
    let positions = c.out_height() * c.out_width();
    let terms = c.weight_len() / filters;
    // What would have to be kept for a second time.
    let operands = c.padded_len() + c.output_len();
    let ghost = c.shape().groups == 1
        && c.weight_len() > MOST_OWN * operands
        && positions * (terms + filters) < c.weight_len();
    match ghost {
        true => 0,
        false => c.weight_len() + if bias { filters } else { 0 },
    }
}

/// Gradients of examples that take no more than so many times the memory of what they are made of
/// are kept: a sum of vectors then takes the place of the second product.
const MOST_OWN: usize = 4;

/// Numbers of scratch for the norms of a convolution's examples, whose gradients take `own`.
fn norm_scratch_len(c: &Conv, own: usize) -> usize {
    if own > 0 {
        return c.dw_scratch_len();
    }
    // Two Gram matrices, the windows in rows, and what their products need.
    let filters = c.shape().filters;
    let positions = c.out_height() * c.out_width();
    let terms = c.weight_len() / filters;
    let product = Dense {
        inputs: positions,
        outputs: terms.max(filters),
    };
    2 * positions * positions + (positions * terms).max(filters) + product.dx_scratch_len()
}
