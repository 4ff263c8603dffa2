//! The backward half of a plan.

use super::super::step::{Backward, Geometry};
use super::{Planner, Saved};
use crate::graph::{Node, Op, Unit, ValueId, clamp_of};
use crate::kernel::Fused;
use crate::plan::{Route, Slot, kernel_function};

impl Planner<'_> {
    fn apply_mask(&mut self, node: usize, dy: Slot) {
        if let Some(marks) = self.saved[node].marks {
            if let Some((_, slot)) = marks.scale {
                self.walk.touch(slot);
                self.walk.stores_gradients = true;
            }
            self.walk.backward.push(Backward::Mask { marks, dy });
        }
    }

    pub(super) fn backward(&mut self, unit: &Unit) {
        if let Some(residual) = &unit.residual {
            let node = residual.node;
            let root = self.walk.root(unit.output);
            let Some(dy) = self.walk.gradient[root].filter(|_| self.walk.needs_gradient[root])
            else {
                return;
            };
            self.walk.touch(dy);
            self.apply_mask(node, dy);
            self.walk
                .pass_to_both(dy, self.walk.root(unit.own), self.walk.root(residual.other));
            self.walk.time += 1;
        }
        let index = unit.node;
        let Node { op, input, .. } = self.walk.graph.nodes[index].clone();
        let (source, target) = (self.walk.root(input), self.walk.root(unit.own));
        let Some(dy) = self.walk.gradient[target].filter(|_| self.walk.needs_gradient[target])
        else {
            return;
        };
        self.walk.touch(dy);
        self.apply_mask(index, dy);
        match op {
            Op::Dense { geometry, .. } => {
                let scratch = geometry.dx_scratch_len();
                self.product_backward(index, input, Geometry::Dense(geometry), [scratch, 0], dy);
            }
            Op::Conv { geometry, .. } => {
                let dx = match self.walk.needs_gradient[source] {
                    true => geometry.dx_scratch_len(self.walk.rows),
                    false => 0,
                };
                let scratch = [dx, geometry.dw_scratch_len()];
                self.product_backward(index, input, Geometry::Conv(geometry), scratch, dy);
            }
            Op::MaxPool(geometry) => {
                if let Some(argmax) = self.saved[index].bytes {
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
                if clamp_of(function) == Fused::None {
                    let kept = self.walk.buffer(self.walk.len(input), 0);
                    let x = self.codes_of(input);
                    self.walk.backward.push(Backward::Function {
                        f: kernel_function(function),
                        x,
                        kept,
                        dy,
                    });
                }
                self.walk.pass_on(dy, source);
            }
            Op::Dropout { rate } => {
                if let Some(keep) = self.saved[index].bytes {
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
                let Some(stats) = self.saved[index].stats else {
                    return;
                };
                self.walk.stores_gradients = true;
                self.walk.touch(stats);
                let x = self.codes_of(input);
                let open = self.walk.buffer(self.walk.len(input), 0);
                let scratch = self.walk.buffer(0, geometry.scratch_len());
                let dx = match self.walk.needs_gradient[source] {
                    true => Some(self.walk.buffer(self.walk.len(source), 0)),
                    false => None,
                };
                self.walk.backward.push(Backward::Norm {
                    geometry,
                    x,
                    open,
                    stats,
                    dy,
                    dx,
                    scratch,
                    gamma: self.walk.tensor(scale),
                    beta: self.walk.tensor(shift),
                });
                if let Some(dx) = dx {
                    self.walk.pass_on(dx, source);
                }
            }
            Op::Embedding { table, size } => {
                self.walk.stores_gradients = true;
                self.walk.backward.push(Backward::Embedding {
                    size,
                    table: self.walk.tensor(table),
                    dy,
                });
            }
            Op::Add { other } => self.walk.pass_to_both(dy, source, self.walk.root(other)),
            // Without a place of their own, or refused by `Model::with_ranges`.
            Op::BatchNorm { .. }
            | Op::Recurrent { .. }
            | Op::Attention(_)
            | Op::Last { .. }
            | Op::Position { .. } => {}
        }
    }

    fn product_backward(
        &mut self,
        index: usize,
        input: ValueId,
        geometry: Geometry,
        [dx_scratch, dw_scratch]: [usize; 2],
        dy: Slot,
    ) {
        let Saved {
            real,
            stats,
            product,
            ..
        } = self.saved[index];
        let Some(product) = product else { return };
        self.walk.stores_gradients |= self.products[product].norm.is_some();
        let fold = self.products[product].norm.is_some() && stats.is_none();
        if let (Some(x), Some(stats)) = (real, stats) {
            self.walk.touch(x);
            self.walk.touch(stats);
            self.walk.backward.push(Backward::BatchNorm {
                product,
                x,
                stats,
                dy,
            });
            self.walk.time += 1;
            self.walk.touch(dy);
        }
        let (open, padded) = self.opened(input, &geometry);
        let dx = self.walk.gradient_of(self.walk.root(input));
        let dx_scratch = self.walk.buffer(0, dx_scratch);
        let dw_scratch = self.walk.buffer(0, dw_scratch);
        let fold = fold.then(|| {
            self.walk
                .buffer(0, geometry.weight_len() + 2 * geometry.columns())
        });
        let x = self.codes_of(input);
        self.walk.backward.push(Backward::Product {
            product,
            x,
            open,
            padded,
            dy,
            dx,
            dx_scratch,
            dw_scratch,
            fold,
        });
    }
}
