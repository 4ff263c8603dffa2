//! The backward pass: straight-through gradients, in real numbers.
//!
//! Every rounding counts as the identity where its mask is 1 and as a constant elsewhere. So the
//! gradient of a product is that of the product of the numbers that its integers stand for, and
//! the gradient of a rounded weight goes to the master weight as it is: a symmetric scale from the
//! largest weight never cuts one off.

use super::forward::affine;
use super::lowered::Lowered;
use super::plan::Plan;
use super::step::{Backward, Codes, Folded, Geometry, Marks, Product};
use crate::arena::pick;
use crate::kernel::{Fused, Gradient, Kernels, Write};
use crate::plan::{Memory, Slot, Tensor};
use crate::quant::QParams;
use crate::session::{Update, gradient_of, step_stored};

/// The buffers of a backward pass.
pub(super) struct Way<'a> {
    pub(super) k: &'static Kernels,
    pub(super) memory: &'a Memory,
    pub(super) plan: &'a Plan,
    pub(super) rows: usize,
    pub(super) arena: &'a mut [f32],
    pub(super) bytes: &'a [u8],
    pub(super) tokens: &'a [u32],
    pub(super) params: &'a [QParams],
    pub(super) lowered: &'a [Lowered],
    pub(super) weights: &'a mut [f32],
    pub(super) gradient: &'a mut [f32],
}

/// The operands of a product's backward pass.
struct ProductWay {
    x: Codes,
    open: Slot,
    padded: Option<Slot>,
    dy: Slot,
    dx: Option<(Slot, Write)>,
    dx_scratch: Slot,
    dw_scratch: Slot,
    fold: Option<Slot>,
}

impl Way<'_> {
    /// Runs the backward pass from the outputs' gradient.
    pub(super) fn backward(&mut self, update: Update<'_>) {
        let plan = self.plan;
        for step in &plan.backward {
            self.step(step, update);
        }
    }

    fn at(&self, slot: Slot) -> core::ops::Range<usize> {
        self.memory.at(slot, self.rows)
    }

    fn open(&mut self, x: Codes, to: Slot) {
        let to = self.at(to);
        let from = affine(self.params[x.scale]);
        let bytes = &self.bytes[x.bytes.range(self.rows)];
        self.k.int8_dequantize(from, bytes, &mut self.arena[to]);
    }

    fn step(&mut self, step: &Backward, update: Update<'_>) {
        let (k, rows) = (self.k, self.rows);
        match *step {
            Backward::Mask {
                marks: Marks { mask, scale },
                dy,
            } => {
                if let Some((point, slot)) = scale {
                    self.learn_scale(point, slot, dy, update);
                }
                let dy = self.at(dy);
                k.dropout(&self.bytes[mask.range(rows)], 1.0, &mut self.arena[dy]);
            }
            Backward::Product {
                product,
                x,
                open,
                padded,
                dy,
                dx,
                dx_scratch,
                dw_scratch,
                fold,
            } => {
                let way = ProductWay {
                    x,
                    open,
                    padded,
                    dy,
                    dx,
                    dx_scratch,
                    dw_scratch,
                    fold,
                };
                self.product(product, &way, update);
            }
            Backward::BatchNorm {
                product,
                x,
                stats,
                dy,
            } => {
                let plan = self.plan;
                let Some(norm) = &plan.products[product].norm else {
                    return;
                };
                let places = [self.at(x), self.at(stats), self.at(dy)];
                let [x, stats, dy] = pick(self.arena, places);
                let (g, geometry) = (&norm.gamma, &norm.geometry);
                let [dgamma, dbeta] = pick(self.gradient, [g.clone(), norm.beta.clone()]);
                let (gamma, beta) = (&self.weights[g.clone()], &self.weights[norm.beta.clone()]);
                let none = Fused::None;
                k.batch_norm_dparameters(
                    geometry, rows, x, gamma, beta, stats, none, dy, dgamma, dbeta,
                );
                k.batch_norm_dx(
                    geometry, rows, x, gamma, beta, stats, none, dgamma, dbeta, dy,
                );
                for tensor in [&norm.gamma, &norm.beta] {
                    step_stored(k, update, tensor, self.weights, self.gradient);
                }
            }
            Backward::Function { f, x, kept, dy } => {
                self.open(x, kept);
                let [kept, dy] = pick(
                    self.arena,
                    [self.memory.at(kept, rows), self.memory.at(dy, rows)],
                );
                if !f.keeps_input() {
                    k.activate_in_place(f, kept);
                }
                k.activate_grad(f, kept, dy);
            }
            Backward::Norm {
                geometry,
                x,
                open,
                stats,
                dy,
                dx,
                scratch,
                ref gamma,
                ref beta,
            } => {
                self.open(x, open);
                if let Some(dx) = dx {
                    let places =
                        [open, stats, dy, dx, scratch].map(|slot| self.memory.at(slot, rows));
                    let [x, stats, dy, dx, scratch] = pick(self.arena, places);
                    let gamma = &self.weights[gamma.clone()];
                    k.norm_dx(&geometry, rows, x, gamma, stats, dy, dx, scratch);
                }
                let places = [open, stats, dy].map(|slot| self.memory.at(slot, rows));
                let [x, stats, dy] = pick(self.arena, places);
                let write = match update {
                    Update::Accumulate => Write::Add,
                    Update::Store | Update::Step { .. } => Write::Store,
                };
                let [dgamma, dbeta] = pick(self.gradient, [gamma.clone(), beta.clone()]);
                k.norm_dparameters(&geometry, rows, x, stats, dy, dgamma, dbeta, write);
                for tensor in [gamma, beta] {
                    step_stored(k, update, tensor, self.weights, self.gradient);
                }
            }
            Backward::Embedding {
                size,
                ref table,
                dy,
            } => {
                let dy = &self.arena[self.memory.at(dy, rows)];
                let tokens = &self.tokens[..dy.len() / size];
                let to = &mut self.gradient[table.clone()];
                if !matches!(update, Update::Accumulate) {
                    to.fill(0.0);
                }
                k.embedding_dw(tokens, size, dy, to);
                step_stored(k, update, table, self.weights, self.gradient);
            }
            Backward::Route(ref route) => {
                route.run(k, self.memory, self.arena, self.bytes, rows);
            }
        }
    }

    /// The gradient of a point's scale, as one of its range: `s` grows by `d` when the ends, with
    /// the zero point `z` as it is, move by `-z d` and `(255 - z) d`. It is scaled by
    /// `1 / sqrt(255 n)` for `n` numbers of an example.
    ///
    /// # Source
    /// Esser et al. 2020 (LSQ), arXiv:1902.08153, section 2.2.
    fn learn_scale(&mut self, point: usize, slot: Slot, dy: Slot, update: Update<'_>) {
        let point = &self.plan.points[point];
        let places = [self.at(slot), self.at(dy)];
        let [derivative, dy] = pick(self.arena, places);
        let terms = derivative.iter().zip(&*dy);
        let sum = terms
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>();
        let numbers = (dy.len() / self.rows) as f64;
        let gradient = sum / libm::sqrt(255.0 * numbers);
        let zero_point = f64::from(self.params[point.scale].zero_point());
        let ends = [-zero_point * gradient, (255.0 - zero_point) * gradient];
        for (to, end) in self.gradient[point.range.clone()].iter_mut().zip(ends) {
            match update {
                Update::Accumulate => *to += end as f32,
                Update::Store | Update::Step { .. } => *to = end as f32,
            }
        }
        step_stored(self.k, update, &point.range, self.weights, self.gradient);
    }

    fn product(&mut self, index: usize, way: &ProductWay, update: Update<'_>) {
        let (k, rows, plan) = (self.k, self.rows, self.plan);
        let product = &plan.products[index];
        let lowered = &self.lowered[index];
        if let Some((dx, write)) = way.dx {
            let places = [way.dy, dx, way.dx_scratch].map(|slot| self.memory.at(slot, rows));
            let [dy, dx, scratch] = pick(self.arena, places);
            let weight = &lowered.weight;
            match &product.geometry {
                Geometry::Dense(d) => k.dense_dx(d, rows, dy, weight, dx, write, scratch),
                Geometry::Conv(c) => k.conv_dx(c, rows, dy, weight, dx, write, scratch),
            }
        }
        self.open(way.x, way.open);
        if let (Some(padded), Geometry::Conv(conv)) = (way.padded, &product.geometry) {
            let places = [way.open, padded].map(|slot| self.memory.at(slot, rows));
            let [x, to] = pick(self.arena, places);
            k.pad(conv, rows, x, to);
        }
        let x = way.padded.unwrap_or(way.open);
        let columns = product.geometry.columns();
        let positions = rows * product.geometry.output_len() / columns;
        if let (Some(fold), Some(norm)) = (way.fold, &product.norm) {
            let places = [x, way.dy, way.dw_scratch, fold].map(|slot| self.memory.at(slot, rows));
            let [x, dy, scratch, fold] = pick(self.arena, places);
            let (dw, rest) = fold.split_at_mut(product.geometry.weight_len());
            let (db, sums) = rest.split_at_mut(columns);
            k.column_sums(positions, columns, dy, Gradient::Store(db));
            let to = Gradient::Store(dw);
            match &product.geometry {
                Geometry::Dense(d) => k.dense_dw(d, rows, x, dy, to),
                Geometry::Conv(c) => k.conv_dw(c, rows, x, dy, to, scratch),
            }
            let parts = [dw, db, sums];
            unfold_gradient(
                product,
                norm,
                lowered,
                parts,
                self.weights,
                self.gradient,
                update,
            );
            let tensors = [Some(&product.weight), product.bias.as_ref()];
            let tensors = tensors
                .into_iter()
                .flatten()
                .chain([&norm.gamma, &norm.beta]);
            for tensor in tensors {
                step_stored(k, update, tensor, self.weights, self.gradient);
            }
            return;
        }
        let places = [x, way.dy, way.dw_scratch].map(|slot| self.memory.at(slot, rows));
        let [x, dy, scratch] = pick(self.arena, places);
        if let Some(bias) = &product.bias {
            let to = gradient_of(update, bias, self.weights, self.gradient);
            k.column_sums(positions, columns, dy, to);
        }
        let to = gradient_of(update, &product.weight, self.weights, self.gradient);
        match &product.geometry {
            Geometry::Dense(d) => k.dense_dw(d, rows, x, dy, to),
            Geometry::Conv(c) => k.conv_dw(c, rows, x, dy, to, scratch),
        }
    }
}

/// From the gradients of a folded weight and bias to those of weight, bias, gamma and beta, the
/// running statistics being constants. With `w' = w f`, `b' = (b - mean) f + beta`, `f = gamma r`:
/// ```text
/// dw = f dw'      db = f db'      dbeta = db'
/// dgamma = r (sum(dw' w) + db' (b - mean))
/// ```
fn unfold_gradient(
    product: &Product,
    norm: &Folded,
    lowered: &Lowered,
    [dw, db, sums]: [&mut [f32]; 3],
    weights: &[f32],
    gradient: &mut [f32],
    update: Update<'_>,
) {
    let columns = db.len();
    let write = |to: &mut f32, value: f32| match update {
        Update::Accumulate => *to += value,
        Update::Store | Update::Step { .. } => *to = value,
    };
    let tensor = |tensor: &Tensor| &weights[tensor.clone()];
    let mean = tensor(&norm.mean);
    let bias = product.bias.as_ref().map(tensor);
    let dgamma = &mut gradient[norm.gamma.clone()];
    sums.fill(0.0);
    for (dw, w) in dw
        .chunks_exact(columns)
        .zip(tensor(&product.weight).chunks_exact(columns))
    {
        for ((sum, dw), w) in sums.iter_mut().zip(dw).zip(w) {
            *sum += dw * w;
        }
    }
    for (c, (sum, db)) in sums.iter().zip(&*db).enumerate() {
        let shift = db * (bias.map_or(0.0, |bias| bias[c]) - mean[c]);
        write(&mut dgamma[c], (sum + shift) * lowered.scales[c]);
    }
    for (to, db) in gradient[norm.beta.clone()].iter_mut().zip(&*db) {
        write(to, *db);
    }
    let factors = &lowered.factors;
    if let Some(bias) = &product.bias {
        for ((to, db), factor) in gradient[bias.clone()].iter_mut().zip(&*db).zip(factors) {
            write(to, db * factor);
        }
    }
    let rows = gradient[product.weight.clone()].chunks_exact_mut(columns);
    for (to, dw) in rows.zip(dw.chunks_exact(columns)) {
        for ((to, dw), factor) in to.iter_mut().zip(dw).zip(factors) {
            write(to, dw * factor);
        }
    }
}
