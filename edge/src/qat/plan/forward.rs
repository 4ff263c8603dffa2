//! The forward half of a plan.

use super::super::step::{Codes, Folded, Forward, Geometry, Marks, Normalise, Product};
use super::super::{QatForward, Statistics};
use super::Planner;
use crate::graph::{Function, Node, Op, Residual, Unit, ValueId, clamp_of};
use crate::kernel::Fused;
use crate::plan::{Running, Slot, batch_norm, kernel_function};

impl Planner<'_> {
    pub(super) fn forward(&mut self, unit: &Unit) {
        let index = unit.node;
        let Node { op, input, .. } = self.walk.graph.nodes[index].clone();
        let own = unit.own;
        match op {
            Op::Dense {
                geometry,
                weight,
                bias,
                ..
            } => self.product(unit, Geometry::Dense(geometry), weight, bias),
            Op::Conv {
                geometry,
                weight,
                bias,
                ..
            } => self.product(unit, Geometry::Conv(geometry), weight, bias),
            Op::MaxPool(geometry) => {
                let x = self.codes_of(input);
                let needed = self.training() && self.walk.needs_gradient[self.walk.root(own)];
                let real = needed.then(|| {
                    let argmax = self.walk.byte_buffer(self.walk.len(own));
                    let reals = [self.walk.len(input), self.walk.len(own)];
                    (reals.map(|len| self.walk.buffer(len, 0)), argmax)
                });
                self.saved[index].bytes = real.map(|(_, argmax)| argmax);
                let y = self.output(own, x.scale);
                self.forward.push(Forward::MaxPool {
                    geometry,
                    x,
                    real,
                    y,
                });
            }
            Op::AvgPool(geometry) => {
                let x = self.codes_of(input);
                let real = self.two_reals(self.walk.len(input), self.walk.len(own));
                let point = self.point_of(own);
                let marks = self.marks(own);
                self.saved[index].marks = marks;
                let y = self.output(own, point);
                self.forward.push(Forward::AvgPool {
                    geometry,
                    x,
                    real,
                    point,
                    y,
                    marks,
                });
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => {
                let x = self.codes_of(input);
                let real = self.two_reals(self.walk.len(input), self.walk.len(own));
                let point = self.point_of(own);
                let marks = self.marks(own);
                self.saved[index].marks = marks;
                let y = self.output(own, point);
                self.forward.push(Forward::GlobalAvgPool {
                    positions,
                    channels,
                    x,
                    real,
                    point,
                    y,
                    marks,
                });
            }
            Op::Function(function) => self.function(unit, function),
            Op::Dropout { rate } => self.dropout(unit, rate),
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let x = self.codes_of(input);
                let stats = self.walk.buffer(geometry.stats_len(), 0);
                let scratch = self.walk.buffer(0, geometry.scratch_len());
                let real = match self.purpose.arithmetic {
                    QatForward::Integer => None,
                    QatForward::Fake => self.two_reals(self.walk.len(input), self.walk.len(own)),
                };
                self.groups = self.groups.max(geometry.stats_len() / 2);
                let point = self.point_of(own);
                let marks = self.marks(own);
                self.saved[index].stats = Some(stats);
                self.saved[index].marks = marks;
                let y = self.output(own, point);
                self.forward.push(Forward::Norm(Normalise {
                    geometry,
                    clamp: unit.clamp,
                    x,
                    real,
                    point,
                    y,
                    marks,
                    stats,
                    scratch,
                    gamma: self.walk.tensor(scale),
                    beta: self.walk.tensor(shift),
                }));
            }
            Op::Embedding { table, size } => {
                let y = self.walk.buffer(self.walk.len(own), 0);
                self.forward.push(Forward::Embedding {
                    size,
                    table: self.walk.tensor(table),
                    y,
                });
                self.saved[index].marks = self.seal(own, y, unit.clamp, true);
            }
            Op::Add { other } => {
                let (first, second) = (input, other);
                self.saved[index].marks = self.add(own, first, second, unit.clamp);
            }
            Op::BatchNorm { .. }
            | Op::Recurrent { .. }
            | Op::Attention(_)
            | Op::Last { .. }
            | Op::Position { .. } => unreachable!("refused by `Model::with_ranges`"),
        }
        if let Some(Residual { node, other, clamp }) = unit.residual {
            self.walk.time += 1;
            // The sides in the order of the addition, as it is computed alone.
            let (first, second) = match self.walk.graph.nodes[node].input == own {
                true => (own, other),
                false => (other, own),
            };
            self.saved[node].marks = self.add(unit.output, first, second, clamp);
        }
    }

    fn two_reals(&mut self, first: usize, second: usize) -> Option<[Slot; 2]> {
        self.real()
            .then(|| [self.walk.buffer(first, 0), self.walk.buffer(second, 0)])
    }

    fn add(
        &mut self,
        value: ValueId,
        first: ValueId,
        second: ValueId,
        clamp: Fused,
    ) -> Option<Marks> {
        let (first, second) = (self.codes_of(first), self.codes_of(second));
        let real = self.two_reals(self.walk.len(value), self.walk.len(value));
        let point = self.point_of(value);
        let marks = self.marks(value);
        let y = self.output(value, point);
        self.forward.push(Forward::Add {
            first,
            second,
            clamp,
            real,
            point,
            y,
            marks,
        });
        marks
    }

    fn function(&mut self, unit: &Unit, function: Function) {
        let node = &self.walk.graph.nodes[unit.node];
        let (own, x) = (unit.own, self.codes_of(node.input));
        let clamp = clamp_of(function);
        let marks = self.marks(own);
        self.saved[unit.node].marks = marks;
        if clamp != Fused::None {
            let y = self.output(own, x.scale);
            self.forward.push(Forward::Clamp { clamp, x, y, marks });
            return;
        }
        let real = self.real().then(|| self.walk.buffer(self.walk.len(own), 0));
        let point = self.point_of(own);
        let y = self.output(own, point);
        self.forward.push(Forward::Function {
            f: kernel_function(function),
            x,
            real,
            point,
            y,
            marks,
        });
    }

    fn dropout(&mut self, unit: &Unit, rate: f32) {
        let (own, input) = (unit.own, self.walk.graph.nodes[unit.node].input);
        let x = self.codes_of(input);
        if !self.training() || rate == 0.0 {
            let root = self.walk.root(own);
            self.codes[root] = Some(x);
            return;
        }
        let keep = self.walk.mask(self.walk.len(own), rate);
        self.saved[unit.node].bytes = Some(keep);
        let scale = self.scales;
        self.scales += 1;
        let bytes = self.output(own, scale);
        self.forward.push(Forward::Dropout {
            keep,
            x,
            y: Codes { bytes, scale },
            factor: 1.0 / (1.0 - rate),
        });
    }

    fn product(&mut self, unit: &Unit, geometry: Geometry, weight: usize, bias: Option<usize>) {
        let index = unit.node;
        let (own, input) = (unit.own, self.walk.graph.nodes[index].input);
        let x = self.codes_of(input);
        let product = self.products.len();
        let mut momentum = 0.0;
        let norm = unit
            .norm
            .and_then(|node| match self.walk.graph.nodes[node].op {
                Op::BatchNorm {
                    channels,
                    positions,
                    scale,
                    shift,
                    mean,
                    variance,
                    epsilon,
                    momentum: share,
                    ..
                } => {
                    momentum = share;
                    Some((
                        Folded {
                            geometry: batch_norm(positions, channels, epsilon),
                            gamma: self.walk.tensor(scale),
                            beta: self.walk.tensor(shift),
                            mean: self.walk.tensor(mean),
                            variance: self.walk.tensor(variance),
                            epsilon,
                        },
                        positions,
                    ))
                }
                _ => None,
            });
        let point = self.point_of(own);
        let fake = self.purpose.arithmetic == QatForward::Fake;
        let batch =
            norm.is_some() && self.training() && self.purpose.statistics == Statistics::Batch;
        self.products.push(Product {
            geometry: geometry.clone(),
            weight: self.walk.tensor(weight),
            bias: bias.map(|bias| self.walk.tensor(bias)),
            norm: norm.as_ref().map(|(norm, _)| norm.clone()),
            clamp: unit.clamp,
            x: x.scale,
            point,
            batch,
            real: fake || (self.training() && self.walk.needs_gradient[self.walk.root(input)]),
        });
        self.saved[index].product = Some(product);
        self.sums = self.sums.max(geometry.output_len());
        self.columns = self.columns.max(geometry.columns());
        if let Geometry::Conv(conv) = &geometry {
            self.scratch = self.scratch.max(conv.int8_scratch_len());
        }
        if !fake && !batch {
            let marks = self.marks(own);
            let y = self.output(own, point);
            self.saved[index].marks = marks;
            self.forward.push(Forward::Product {
                product,
                x,
                y,
                marks,
            });
            return;
        }
        let real = self.walk.buffer(self.walk.len(own), 0);
        if fake {
            let (open, padded) = self.opened(input, &geometry);
            self.forward.push(Forward::Fake {
                product,
                x,
                open,
                padded,
                real,
            });
        } else {
            self.forward.push(Forward::RealProduct { product, x, real });
        }
        let Some((norm, positions)) = norm.filter(|_| batch) else {
            self.saved[index].marks = self.seal(own, real, unit.clamp, true);
            return;
        };
        let stats = self.walk.buffer(0, norm.geometry.stats_len());
        self.saved[index].real = Some(real);
        self.saved[index].stats = Some(stats);
        self.walk.running.push(Running {
            stats,
            mean: norm.mean,
            variance: norm.variance,
            momentum,
            positions,
        });
        let y = self.walk.buffer(self.walk.len(own), 0);
        self.forward.push(Forward::BatchNorm {
            product,
            x: real,
            y,
            stats,
        });
        self.saved[index].marks = self.seal(own, y, unit.clamp, true);
    }

    /// Room for a product's input as real numbers, and padded where it must be.
    pub(super) fn opened(&mut self, input: ValueId, geometry: &Geometry) -> (Slot, Option<Slot>) {
        let open = self.walk.buffer(self.walk.len(input), 0);
        let padded = match geometry {
            Geometry::Conv(conv) if conv.is_padded() => {
                Some(self.walk.buffer(conv.padded_len(), 0))
            }
            _ => None,
        };
        (open, padded)
    }
}
