//! The backward half of a plan.

use super::super::step::{Backward, Geometry};
use super::{Planner, Saved};
use crate::graph::{Node, Op, Unit, ValueId, clamp_of};
use crate::kernel::{Fused, Write};
use crate::plan::{Slot, kernel_function};

impl Planner<'_> {
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

    fn apply_mask(&mut self, node: usize, dy: Slot) {
        if let Some(marks) = self.saved[node].marks {
            if let Some((_, slot)) = marks.scale {
                self.touch(slot);
                self.stores_gradients = true;
            }
            self.backward.push(Backward::Mask { marks, dy });
        }
    }

    pub(super) fn backward(&mut self, unit: &Unit) {
        if let Some(residual) = &unit.residual {
            let node = residual.node;
            let root = self.root(unit.output);
            let Some(dy) = self.gradient[root].filter(|_| self.needs_gradient[root]) else {
                return;
            };
            self.touch(dy);
            self.apply_mask(node, dy);
            self.add_backward(dy, self.root(unit.own), self.root(residual.other));
            self.time += 1;
        }
        let index = unit.node;
        let Node { op, input, .. } = self.graph.nodes[index].clone();
        let (source, target) = (self.root(input), self.root(unit.own));
        let Some(dy) = self.gradient[target].filter(|_| self.needs_gradient[target]) else {
            return;
        };
        self.touch(dy);
        self.apply_mask(index, dy);
        match op {
            Op::Dense { geometry, .. } => {
                let scratch = geometry.dx_scratch_len();
                self.product_backward(index, input, Geometry::Dense(geometry), [scratch, 0], dy);
            }
            Op::Conv { geometry, .. } => {
                let dx = match self.needs_gradient[source] {
                    true => geometry.dx_scratch_len(self.rows),
                    false => 0,
                };
                let scratch = [dx, geometry.dw_scratch_len()];
                self.product_backward(index, input, Geometry::Conv(geometry), scratch, dy);
            }
            Op::MaxPool(geometry) => {
                if let Some(argmax) = self.saved[index].bytes {
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
                if clamp_of(function) == Fused::None {
                    let kept = self.buffer(self.len(input), 0);
                    let x = self.codes_of(input);
                    self.backward.push(Backward::Function {
                        f: kernel_function(function),
                        x,
                        kept,
                        dy,
                    });
                }
                self.pass_on(dy, source);
            }
            Op::Dropout { rate } => {
                if let Some(keep) = self.saved[index].bytes {
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
                let Some(stats) = self.saved[index].stats else {
                    return;
                };
                self.stores_gradients = true;
                self.touch(stats);
                let x = self.codes_of(input);
                let open = self.buffer(self.len(input), 0);
                let scratch = self.buffer(0, geometry.scratch_len());
                let dx = match self.needs_gradient[source] {
                    true => Some(self.buffer(self.len(source), 0)),
                    false => None,
                };
                self.backward.push(Backward::Norm {
                    geometry,
                    x,
                    open,
                    stats,
                    dy,
                    dx,
                    scratch,
                    gamma: self.tensor(scale),
                    beta: self.tensor(shift),
                });
                if let Some(dx) = dx {
                    self.pass_on(dx, source);
                }
            }
            Op::Embedding { table, size } => {
                self.stores_gradients = true;
                self.backward.push(Backward::Embedding {
                    size,
                    table: self.tensor(table),
                    dy,
                });
            }
            Op::Add { other } => self.add_backward(dy, source, self.root(other)),
            Op::BatchNorm { .. } => {}
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
        self.stores_gradients |= self.products[product].norm.is_some();
        let fold = self.products[product].norm.is_some() && stats.is_none();
        if let (Some(x), Some(stats)) = (real, stats) {
            self.touch(x);
            self.touch(stats);
            self.backward.push(Backward::BatchNorm {
                product,
                x,
                stats,
                dy,
            });
            self.time += 1;
            self.touch(dy);
        }
        let (open, padded) = self.opened(input, &geometry);
        let dx = self.gradient_of(self.root(input));
        let dx_scratch = self.buffer(0, dx_scratch);
        let dw_scratch = self.buffer(0, dw_scratch);
        let fold = fold.then(|| self.buffer(0, geometry.weight_len() + 2 * geometry.columns()));
        let x = self.codes_of(input);
        self.backward.push(Backward::Product {
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

    /// Hands the gradient of a sum to both sides.
    fn add_backward(&mut self, dy: Slot, source: ValueId, other: ValueId) {
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
