//! The forward pass: integers, and what the backward pass needs of them.

mod norm;
mod product;

use super::lowered::Lowered;
use super::observe::{clamp_codes, clamped_range, open_ends, watch};
use super::plan::Plan;
use super::step::{Codes, Forward, Marks};
use crate::arena::pick;
use crate::kernel::int8::{Add, Affine, Moments, Rescale, Through};
use crate::kernel::{Activation, Fused, Kernels};
use crate::plan::{Bytes, Memory, Tensor};
use crate::quant::{QParams, Range};

/// The parameters: to be read, or with ranges that are moved.
pub(super) enum Weights<'a> {
    Read(&'a [f32]),
    Write(&'a mut [f32]),
}

impl Weights<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Self::Read(values) => values,
            Self::Write(values) => values,
        }
    }

    fn tensor(&self, tensor: &Tensor) -> &[f32] {
        &self.values()[tensor.clone()]
    }
}

/// What a forward pass may change and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watching {
    /// Share of an observation in a range; none when ranges stay.
    pub(super) momentum: Option<f32>,
    /// Whether weights may have changed since the step before, and a backward pass follows.
    pub(super) training: bool,
}

/// The buffers of a pass.
pub(super) struct Tape<'a> {
    pub(super) k: &'static Kernels,
    pub(super) memory: &'a Memory,
    pub(super) plan: &'a Plan,
    pub(super) rows: usize,
    pub(super) arena: &'a mut [f32],
    pub(super) bytes: &'a mut [u8],
    pub(super) tokens: &'a [u32],
    pub(super) params: &'a mut [QParams],
    pub(super) lowered: &'a mut [Lowered],
    pub(super) sums: &'a mut [i32],
    /// The smallest and the largest sum of each column.
    pub(super) ends: [&'a mut [i32]; 2],
    /// Of the groups of a normalisation.
    pub(super) moments: &'a mut [Moments],
    pub(super) scratch: &'a mut [u8],
}

pub(super) fn affine(params: QParams) -> Affine {
    Affine {
        scale: params.scale(),
        zero_point: params.zero_point(),
    }
}

/// The bounds of a clamp among the bytes of a point.
pub(super) fn bounds(clamp: Fused, params: QParams) -> (u8, u8) {
    match clamp {
        Fused::None => (0, u8::MAX),
        Fused::Relu => (params.zero_point(), u8::MAX),
        Fused::Relu6 => (params.zero_point(), params.quantize(6.0)),
    }
}

impl Tape<'_> {
    /// Reads every point's scale from the ranges.
    pub(super) fn read_scales(&mut self, weights: &[f32]) {
        for point in &self.plan.points {
            self.params[point.scale] = QParams::from_range(range_at(weights, &point.range));
        }
    }

    /// Runs the forward pass; observed ranges go into `weights`.
    pub(super) fn forward(&mut self, weights: &mut Weights<'_>, watching: Watching) {
        let plan = self.plan;
        for step in &plan.forward {
            self.step(step, weights, watching);
        }
    }

    /// Makes every product's integers, where ranges stay.
    pub(super) fn lower_all(&mut self, weights: &[f32]) {
        self.read_scales(weights);
        for index in 0..self.plan.products.len() {
            self.lower(index, weights, false);
        }
    }

    fn at(&self, slot: usize) -> core::ops::Range<usize> {
        self.memory.at(slot, self.rows)
    }

    /// Moves a point's range towards what was seen, and its scale with it.
    fn observe(&mut self, point: usize, seen: Range, weights: &mut Weights<'_>, momentum: f32) {
        let point = &self.plan.points[point];
        if let Weights::Write(weights) = weights {
            watch(&mut weights[point.range.clone()], seen, momentum);
        }
        self.params[point.scale] = QParams::from_range(range_at(weights.values(), &point.range));
    }

    /// Rounds real numbers to a point, whose range they may move. Operators without weights round
    /// again, by their integer kernels.
    fn seal(
        &mut self,
        real: core::ops::Range<usize>,
        clamp: Fused,
        point: usize,
        (y, marks): (Bytes, Option<Marks>),
        weights: &mut Weights<'_>,
        watching: Watching,
    ) {
        let k = self.k;
        if let Some(momentum) = momentum_of(point, self.plan, weights.values(), watching) {
            let [min, max] = k.int8_range(&self.arena[real.clone()]);
            let seen = clamped_range(Range { min, max }, clamp);
            self.observe(point, seen, weights, momentum);
        }
        let params = self.params_of(point);
        let (low, high) = bounds(clamp, params);
        let y = y.range(self.rows);
        let Some(Marks { mask, scale }) = marks else {
            let y = &mut self.bytes[y];
            k.int8_quantize(affine(params), &self.arena[real], y);
            if clamp != Fused::None {
                for y in y {
                    *y = (*y).clamp(low, high);
                }
            }
            return;
        };
        let [y, mask] = pick(self.bytes, [y, mask.range(self.rows)]);
        let (real, derivative) = match scale {
            None => (&self.arena[real], None),
            Some((_, slot)) => {
                let places = [real, self.memory.at(slot, self.rows)];
                let [real, derivative] = pick(self.arena, places);
                (&*real, Some(derivative))
            }
        };
        let [above, below] = open_ends(clamp);
        let out = Through {
            above,
            below,
            mask,
            derivative,
        };
        k.int8_quantize_through(affine(params), Rescale { low, high }, real, y, out);
    }

    fn open(&mut self, x: Codes, to: usize) {
        let to = self.at(to);
        let from = affine(self.params[x.scale]);
        self.k.int8_dequantize(
            from,
            &self.bytes[x.bytes.range(self.rows)],
            &mut self.arena[to],
        );
    }

    /// Scale and zero point of a point.
    fn params_of(&self, point: usize) -> QParams {
        self.params[self.plan.points[point].scale]
    }

    /// Whether bytes come from integer kernels.
    fn integers(&self) -> bool {
        self.plan.forward_by == super::QatForward::Integer
    }

    fn step(&mut self, step: &Forward, weights: &mut Weights<'_>, watching: Watching) {
        let (k, rows) = (self.k, self.rows);
        match *step {
            Forward::Seal {
                real,
                clamp,
                point,
                y,
                marks,
            } => self.seal(self.at(real), clamp, point, (y, marks), weights, watching),
            Forward::Open { x, to } => self.open(x, to),
            Forward::Product {
                product,
                x,
                y,
                marks,
            } => self.product(product, x, (y, marks), weights, watching),
            Forward::RealProduct { product, x, real } => {
                self.lower(product, weights.values(), true);
                self.real_product(product, x, real);
            }
            Forward::Fake {
                product,
                x,
                open,
                padded,
                real,
            } => self.fake(
                product,
                x,
                [open, padded.unwrap_or(open), real],
                weights,
                watching,
            ),
            Forward::BatchNorm {
                product,
                x,
                y,
                stats,
            } => {
                let plan = self.plan;
                let Some(norm) = &plan.products[product].norm else {
                    return;
                };
                let channels = norm.gamma.len();
                let places = [self.at(x), self.at(y), self.at(stats)];
                let [x, y, stats] = pick(self.arena, places);
                k.batch_norm_statistics(&norm.geometry, rows, x, stats);
                k.batch_norm(
                    &norm.geometry,
                    rows,
                    x,
                    &stats[..channels],
                    &stats[channels..2 * channels],
                    &weights.values()[norm.gamma.clone()],
                    &weights.values()[norm.beta.clone()],
                    Fused::None,
                    y,
                );
            }
            Forward::MaxPool {
                geometry,
                x,
                real,
                y,
            } => {
                if let Some(([open, largest], argmax)) = real {
                    self.open(x, open);
                    let places = [self.at(open), self.at(largest)];
                    let [open, largest] = pick(self.arena, places);
                    let argmax = &mut self.bytes[argmax.range(rows)];
                    k.max_pool(&geometry, rows, open, largest, argmax);
                }
                let [x, y] = pick(self.bytes, [x.bytes.range(rows), y.range(rows)]);
                k.int8_max_pool(&geometry, rows, x, y);
            }
            Forward::AvgPool {
                geometry,
                x,
                real,
                point,
                y,
                marks,
            } => {
                if let Some([open, mean]) = real {
                    self.open(x, open);
                    let places = [self.at(open), self.at(mean)];
                    let [open, to] = pick(self.arena, places);
                    k.avg_pool(&geometry, rows, open, to);
                    self.seal(
                        self.at(mean),
                        Fused::None,
                        point,
                        (y, marks),
                        weights,
                        watching,
                    );
                }
                if self.integers() {
                    let (from, to) = (self.params[x.scale], self.params_of(point));
                    let [x, y] = pick(self.bytes, [x.bytes.range(rows), y.range(rows)]);
                    k.int8_avg_pool(&geometry, rows, x, affine(from), affine(to), y);
                }
            }
            Forward::GlobalAvgPool {
                positions,
                channels,
                x,
                real,
                point,
                y,
                marks,
            } => {
                if let Some([open, mean]) = real {
                    self.open(x, open);
                    let places = [self.at(open), self.at(mean)];
                    let [open, to] = pick(self.arena, places);
                    k.global_avg_pool(rows, positions, channels, open, to);
                    self.seal(
                        self.at(mean),
                        Fused::None,
                        point,
                        (y, marks),
                        weights,
                        watching,
                    );
                }
                if self.integers() {
                    let (from, to) = (affine(self.params[x.scale]), affine(self.params_of(point)));
                    let [x, y] = pick(self.bytes, [x.bytes.range(rows), y.range(rows)]);
                    k.int8_global_avg_pool(rows, positions, channels, x, from, to, y);
                }
            }
            Forward::Function {
                f,
                x,
                real,
                point,
                y,
                marks,
            } => {
                if let Some(real) = real {
                    self.open(x, real);
                    let at = self.at(real);
                    k.activate_in_place(f, &mut self.arena[at]);
                    self.seal(
                        self.at(real),
                        Fused::None,
                        point,
                        (y, marks),
                        weights,
                        watching,
                    );
                }
                if self.integers() {
                    let (from, to) = (affine(self.params[x.scale]), affine(self.params_of(point)));
                    let table = function_table(k, f, from, to);
                    let [x, y] = pick(self.bytes, [x.bytes.range(rows), y.range(rows)]);
                    k.int8_lut(&table, x, y);
                }
            }
            Forward::Clamp { clamp, x, y, marks } => {
                let params = self.params[x.scale];
                let (low, high) = bounds(clamp, params);
                let zero = params.zero_point();
                let (x, y) = (x.bytes.range(rows), y.range(rows));
                match marks {
                    Some(marks) => {
                        let [x, y, mask] = pick(self.bytes, [x, y, marks.mask.range(rows)]);
                        clamp_codes(low, high, zero, clamp, x, y, Some(mask));
                    }
                    None => {
                        let [x, y] = pick(self.bytes, [x, y]);
                        clamp_codes(low, high, zero, clamp, x, y, None);
                    }
                }
            }
            Forward::Add {
                first,
                second,
                clamp,
                real,
                point,
                y,
                marks,
            } => {
                if let Some([sum, other]) = real {
                    self.open(first, sum);
                    self.open(second, other);
                    let places = [self.at(other), self.at(sum)];
                    let [from, to] = pick(self.arena, places);
                    k.add(from, to);
                    self.seal(self.at(sum), clamp, point, (y, marks), weights, watching);
                }
                if self.integers() {
                    let to = self.params_of(point);
                    let scales = [self.params[first.scale], self.params[second.scale]];
                    let (low, high) = bounds(clamp, to);
                    let add = Add {
                        low,
                        high,
                        ..Add::new(affine(scales[0]), affine(scales[1]), affine(to))
                    };
                    let (one, two) = (first.bytes.range(rows), second.bytes.range(rows));
                    if one == two {
                        let [x, y] = pick(self.bytes, [one, y.range(rows)]);
                        k.int8_add(&add, x, x, y);
                    } else {
                        let [one, two, y] = pick(self.bytes, [one, two, y.range(rows)]);
                        k.int8_add(&add, one, two, y);
                    }
                }
            }
            Forward::Dropout { keep, x, y, factor } => {
                let from = self.params[x.scale];
                let zero = from.zero_point();
                // Kept values grow by a larger scale, at the same bytes.
                let scaled = QParams::new(from.scale() * factor, zero);
                self.params[y.scale] = scaled.unwrap_or(from);
                let places = [keep.range(rows), x.bytes.range(rows), y.bytes.range(rows)];
                let [keep, x, y] = pick(self.bytes, places);
                for ((y, &x), &keep) in y.iter_mut().zip(&*x).zip(&*keep) {
                    *y = if keep == 0 { zero } else { x };
                }
            }
            Forward::Norm(ref norm) => self.normalise(norm, weights, watching),
            Forward::Embedding { size, ref table, y } => {
                let y = self.at(y);
                let y = &mut self.arena[y];
                let tokens = &self.tokens[..y.len() / size];
                k.embedding(tokens, size, &weights.values()[table.clone()], y);
            }
        }
    }
}

pub(super) fn range_at(weights: &[f32], range: &core::ops::Range<usize>) -> Range {
    Range {
        min: weights[range.start],
        max: weights[range.start + 1],
    }
}

/// The share of an observation: none where the range stays. A range that was never observed is
/// always set.
fn momentum_of(point: usize, plan: &Plan, weights: &[f32], watching: Watching) -> Option<f32> {
    let range = range_at(weights, &plan.points[point].range);
    let unseen = range.min == 0.0 && range.max == 0.0;
    match (watching.momentum, unseen) {
        (momentum, false) => momentum,
        (_, true) => watching.training.then_some(1.0),
    }
}

/// The table of a function between two points, from the kernel of the function.
fn function_table(k: &Kernels, f: Activation, from: Affine, to: Affine) -> [u8; 256] {
    let mut values = core::array::from_fn::<f32, 256, _>(|q| from.dequantize(q as u8));
    k.activate_in_place(f, &mut values);
    values.map(|value| to.quantize(value))
}
