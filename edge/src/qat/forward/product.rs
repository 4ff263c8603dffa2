//! Products, and the ranges of their sums.

use super::super::observe::{clamped_range, open_ends, sums_range};
use super::super::step::{Codes, Geometry, Marks, Product};
use super::{Tape, Watching, Weights, affine, bounds, momentum_of};
use crate::arena::pick;
use crate::kernel::Fused;
use crate::kernel::int8::{End, INSIDE, POSITIVE, Requantize};
use crate::plan::Bytes;
use crate::quant::multipliers;

/// What becomes of a product's sums.
#[derive(Clone, Copy)]
enum ProductEnd {
    Sums,
    Real(usize),
    Codes { y: Bytes, marks: Option<Marks> },
}

impl Tape<'_> {
    /// A product, requantized to its point, whose range it may move.
    pub(super) fn product(
        &mut self,
        product: usize,
        x: Codes,
        (y, marks): (Bytes, Option<Marks>),
        weights: &mut Weights<'_>,
        watching: Watching,
    ) {
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

    /// Makes the integers of a product.
    pub(super) fn lower(&mut self, index: usize, weights: &[f32], batch: bool) {
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

    /// A product whose sums become real numbers.
    pub(super) fn real_product(&mut self, index: usize, x: Codes, real: usize) {
        self.run_product(index, x, ProductEnd::Real(real));
    }

    /// A product of the real numbers that its integers stand for.
    pub(super) fn fake(
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
        let ends = open_ends(product.clamp);
        let to = self.at(slot);
        let scales = &self.lowered[index].product.accumulator_scales;
        let rows = self.arena[to].chunks_exact_mut(columns);
        for (to, sums) in rows.zip(self.sums.chunks_exact(columns)) {
            for ((to, &sum), &scale) in to.iter_mut().zip(sums).zip(scales.iter().cycle()) {
                *to = sum as f32 * scale;
            }
            self.k.int8_derivative_by_scale(affine(params), ends, to);
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
}
