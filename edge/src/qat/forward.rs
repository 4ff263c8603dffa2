//! The forward pass: integers, and what the backward pass needs of them.

use super::lowered::Lowered;
use super::observe::{
    clamp_codes, clamped_range, derivative_by_scale, open_ends, sums_range, watch,
};
use super::plan::Plan;
use super::step::{Codes, Forward, Geometry, Marks, Normalise, Product};
use crate::arena::pick;
use crate::kernel::int8::{
    Add, Affine, End, INSIDE, Moments, POSITIVE, Requantize, Rescale, Through,
};
use crate::kernel::{Activation, Fused, Kernels};
use crate::plan::{Bytes, Memory, Tensor};
use crate::quant::{QParams, Range, multipliers};

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

    /// Makes the integers of a product.
    fn lower(&mut self, index: usize, weights: &[f32], batch: bool) {
        let product = &self.plan.products[index];
        let x = self.params[product.x];
        let y = self.params[self.plan.points[product.point].scale];
        self.lowered[index].lower(self.k, product, weights, [x, y], batch);
    }

    fn run_product(&mut self, index: usize, x: Codes, end: ProductEnd) {
        let rows = self.rows;
        let product = &self.plan.products[index];
        let lowered = &self.lowered[index];
        let params = self.params[product.x];
        let point = self.params[self.plan.points[product.point].scale];
        let len = rows * product.geometry.output_len();
        let (low, high) = bounds(product.clamp, point);
        let requantize = Requantize {
            multipliers: &lowered.product.multipliers,
            zero_point: point.zero_point(),
            low,
            high,
        };
        let x = x.bytes.range(rows);
        let (x, end) = match end {
            ProductEnd::Sums => (&self.bytes[x], End::Raw(&mut self.sums[..len])),
            ProductEnd::Real(slot) => {
                let y = &mut self.arena[self.memory.at(slot, rows)];
                let scales = &lowered.scales;
                (&self.bytes[x], End::Dequantize { scales, y })
            }
            ProductEnd::Codes { y, marks: None } => {
                let [x, y] = pick(self.bytes, [x, y.range(rows)]);
                (&*x, End::Requantize { requantize, y })
            }
            ProductEnd::Codes {
                y,
                marks: Some(marks),
            } => {
                let places = [x, y.range(rows), marks.mask.range(rows)];
                let [x, y, mask] = pick(self.bytes, places);
                let end = End::RequantizeWithMask {
                    requantize,
                    y,
                    mask,
                };
                (&*x, end)
            }
        };
        let (packed, folded) = (&lowered.packed, &lowered.folded);
        match &product.geometry {
            Geometry::Dense(dense) => self.k.int8_dense(dense, rows, x, packed, folded, end),
            Geometry::Conv(conv) => {
                let zero_point = params.zero_point();
                let scratch = &mut *self.scratch;
                self.k
                    .int8_conv(conv, rows, x, zero_point, packed, folded, end, scratch);
            }
        }
    }

    /// A product of the real numbers that its integers stand for.
    fn fake(
        &mut self,
        index: usize,
        x: Codes,
        [open, padded, real]: [usize; 3],
        weights: &Weights<'_>,
        watching: Watching,
    ) {
        let (k, rows, plan) = (self.k, self.rows, self.plan);
        let product = &plan.products[index];
        let batch = product.batch;
        if watching.training {
            self.lower(index, weights.values(), batch);
        }
        self.open(x, open);
        let lowered = &mut self.lowered[index];
        let integers = &lowered.product;
        let scales = match batch {
            true => lowered.scales.iter(),
            false => integers.accumulator_scales.iter(),
        };
        let numbers = lowered.bias.iter_mut().zip(&integers.bias);
        for ((to, &bias), scale) in numbers.zip(scales.cycle()) {
            *to = bias as f32 * scale;
        }
        let (weight, bias) = (&lowered.weight, Some(&lowered.bias[..]));
        match &product.geometry {
            Geometry::Dense(dense) => {
                let places = [open, real].map(|slot| self.memory.at(slot, rows));
                let [x, y] = pick(self.arena, places);
                k.dense(dense, rows, x, weight, bias, Fused::None, y);
            }
            Geometry::Conv(conv) => {
                if padded != open {
                    let places = [open, padded].map(|slot| self.memory.at(slot, rows));
                    let [x, to] = pick(self.arena, places);
                    k.pad(conv, rows, x, to);
                }
                let places = [padded, real].map(|slot| self.memory.at(slot, rows));
                let [x, y] = pick(self.arena, places);
                k.conv(conv, rows, x, weight, bias, Fused::None, y);
            }
        }
    }

    /// Moves the range of a product's point towards what its sums stand for, and the scale of the
    /// product with it.
    fn observe_sums(&mut self, index: usize, weights: &mut Weights<'_>, momentum: f32) {
        let product = &self.plan.products[index];
        let geometry = &product.geometry;
        let columns = geometry.columns();
        let [low, high] = &mut self.ends;
        let (low, high) = (&mut low[..columns], &mut high[..columns]);
        let sums = &self.sums[..self.rows * geometry.output_len()];
        self.k.int8_column_ends(sums, low, high);
        let scales = &self.lowered[index].product.accumulator_scales;
        let seen = clamped_range(sums_range(scales, low, high), product.clamp);
        self.observe(product.point, seen, weights, momentum);
        let lowered = &mut self.lowered[index].product;
        multipliers(
            self.params[product.x],
            &lowered.weight_scales,
            self.params[self.plan.points[product.point].scale],
            &mut lowered.multipliers,
        );
    }

    /// The derivative of a product's rounded numbers by their scale.
    fn derivative_of_sums(&mut self, index: usize, slot: usize) {
        let product = &self.plan.products[index];
        let columns = product.geometry.columns();
        let params = self.params[self.plan.points[product.point].scale];
        let [above, below] = open_ends(product.clamp);
        let to = self.at(slot);
        let scales = &self.lowered[index].product.accumulator_scales;
        let rows = self.arena[to].chunks_exact_mut(columns);
        for (to, sums) in rows.zip(self.sums.chunks_exact(columns)) {
            for ((to, &sum), &scale) in to.iter_mut().zip(sums).zip(scales.iter().cycle()) {
                *to = sum as f32 * scale;
            }
            derivative_by_scale(params, [above, below], to);
        }
    }

    /// From the sums of a product to its point.
    fn end_product(&mut self, index: usize, y: Bytes, marks: Option<Marks>) {
        let product = &self.plan.products[index];
        let columns = product.geometry.columns();
        let len = self.rows * product.geometry.output_len();
        let lowered = &self.lowered[index];
        let point = self.params[self.plan.points[product.point].scale];
        let (low, high) = bounds(product.clamp, point);
        let requantize = Requantize {
            multipliers: &lowered.product.multipliers,
            zero_point: point.zero_point(),
            low,
            high,
        };
        let sums = &self.sums[..len];
        let y = y.range(self.rows);
        match marks {
            Some(marks) => {
                let [y, mask] = pick(self.bytes, [y, marks.mask.range(self.rows)]);
                let end = End::RequantizeWithMask {
                    requantize,
                    y,
                    mask,
                };
                self.k.int8_end(columns, sums, end);
            }
            None => {
                let y = &mut self.bytes[y];
                self.k
                    .int8_end(columns, sums, End::Requantize { requantize, y });
            }
        }
    }

    /// Turns the bits of a product's mask into 0 and 1.
    fn settle_mask(&mut self, clamp: Fused, marks: Option<Marks>) {
        let needed = match clamp {
            Fused::None => INSIDE,
            Fused::Relu | Fused::Relu6 => INSIDE | POSITIVE,
        };
        if let Some(Marks { mask, .. }) = marks {
            for bits in &mut self.bytes[mask.range(self.rows)] {
                *bits = u8::from(*bits & needed == needed);
            }
        }
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

    /// A group normalisation: by the integer kernel that is served, but for the twin.
    fn normalise(&mut self, norm: &Normalise, weights: &mut Weights<'_>, watching: Watching) {
        let (k, rows, n) = (self.k, self.rows, &norm.geometry);
        if let Some([open, real]) = norm.real {
            self.open(norm.x, open);
            let places = [open, real, norm.stats, norm.scratch].map(|slot| self.at(slot));
            let [x, y, stats, scratch] = pick(self.arena, places);
            let (gamma, beta) = (weights.tensor(&norm.gamma), weights.tensor(&norm.beta));
            k.norm(n, rows, x, gamma, beta, y, stats, scratch);
            let out = (norm.y, norm.marks);
            self.seal(
                self.at(real),
                norm.clamp,
                norm.point,
                out,
                weights,
                watching,
            );
            return;
        }
        let from = affine(self.params[norm.x.scale]);
        let x = norm.x.bytes.range(rows);
        let moments = &mut self.moments[..rows * n.groups()];
        if watching.training {
            k.int8_norm_moments(n, rows, &self.bytes[x.clone()], from, moments);
            let stats = &mut self.arena[self.memory.at(norm.stats, rows)];
            for (to, moments) in stats.chunks_exact_mut(2).zip(&*moments) {
                to.copy_from_slice(&moments.stats(from));
            }
        }
        let (x, moments) = (&self.bytes[x], &*moments);
        if let Some(momentum) = momentum_of(norm.point, self.plan, weights.values(), watching) {
            let (gamma, beta) = (weights.tensor(&norm.gamma), weights.tensor(&norm.beta));
            let [min, max] = k.int8_norm_range(n, rows, x, moments, gamma, beta);
            let seen = clamped_range(Range { min, max }, norm.clamp);
            self.observe(norm.point, seen, weights, momentum);
        }
        let point = self.params_of(norm.point);
        let (low, high) = bounds(norm.clamp, point);
        let (to, bounds) = (affine(point), Rescale { low, high });
        let (gamma, beta) = (weights.tensor(&norm.gamma), weights.tensor(&norm.beta));
        let places = [norm.x.bytes.range(rows), norm.y.range(rows)];
        match norm.marks {
            None => {
                let [x, y] = pick(self.bytes, places);
                let scratch = &mut self.arena[self.memory.at(norm.scratch, rows)];
                k.int8_norm(n, rows, x, from, gamma, beta, to, bounds, y, scratch);
            }
            Some(Marks { mask, scale }) => {
                let [x, y] = places;
                let [x, y, mask] = pick(self.bytes, [x, y, mask.range(rows)]);
                let scratch = self.memory.at(norm.scratch, rows);
                let (scratch, derivative) = match scale {
                    None => (&mut self.arena[scratch], None),
                    Some((_, slot)) => {
                        let places = [scratch, self.memory.at(slot, rows)];
                        let [scratch, derivative] = pick(self.arena, places);
                        (scratch, Some(derivative))
                    }
                };
                let [above, below] = open_ends(norm.clamp);
                let out = Through {
                    above,
                    below,
                    mask,
                    derivative,
                };
                let moments = &self.moments[..rows * n.groups()];
                k.int8_norm_through(
                    n, rows, x, moments, gamma, beta, to, bounds, y, out, scratch,
                );
            }
        }
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
            } => {
                let Product { clamp, point, .. } = self.plan.products[product];
                // Where ranges stay and weights do, they were lowered before.
                if watching.training {
                    self.lower(product, weights.values(), false);
                }
                let momentum = momentum_of(point, self.plan, weights.values(), watching);
                let learned = marks.and_then(|marks| marks.scale);
                if momentum.is_none() && learned.is_none() {
                    self.run_product(product, x, ProductEnd::Codes { y, marks });
                } else {
                    self.run_product(product, x, ProductEnd::Sums);
                    if let Some(momentum) = momentum {
                        self.observe_sums(product, weights, momentum);
                    }
                    self.end_product(product, y, marks);
                    if let Some((_, slot)) = learned {
                        self.derivative_of_sums(product, slot);
                    }
                }
                self.settle_mask(clamp, marks);
            }
            Forward::RealProduct { product, x, real } => {
                self.lower(product, weights.values(), true);
                self.run_product(product, x, ProductEnd::Real(real));
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

/// What becomes of a product's sums.
#[derive(Clone, Copy)]
enum ProductEnd {
    Sums,
    Real(usize),
    Codes { y: Bytes, marks: Option<Marks> },
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
