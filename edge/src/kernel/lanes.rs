//! Kernels for sixteen clients at once: every array is `[index][LANES]`, lane = client.
//!
//! Each lane follows the recipe of its kernel's namesake for one client, so that its bits do not
//! depend on its neighbours. A lane may take part with fewer rows than the others: sums over rows
//! then leave the rows beyond its own out by selection, never by adding zeros.

use alloc::vec::Vec;

use super::elementwise::{full_gradient, relu6};
use super::geometry::Dense;
use super::math;
use super::simd::{Simd, vectorized};
use super::types::{Fused, SgdStep};

/// Clients in a group.
pub const LANES: usize = 16;

/// How many rows each lane takes part with.
#[derive(Clone, Debug, Default)]
pub struct LaneRows {
    /// The most rows of any lane.
    pub most: usize,
    /// Rows that every lane with a client takes part with; they need no selection.
    pub full: usize,
    /// For each row and lane 1 where the lane takes part, else 0: `[most][LANES]`.
    pub active: Vec<f32>,
}

/// A plain SGD step in every lane; the recipe of [`SgdStep`].
#[derive(Clone, Copy, Debug)]
pub struct LaneStep<'a> {
    /// Each lane's learning rate, negated.
    pub negative_rates: &'a [f32; LANES],
    /// L2 coefficient, the same in all lanes.
    pub weight_decay: f32,
    /// FedProx's `mu`, the same in all lanes.
    pub proximal_mu: f32,
    /// The global parameters, one number (not one per lane) each; read when `proximal_mu > 0`.
    pub anchor: &'a [f32],
}

/// `out[row][column] = start + sum over k of p[row, k] * q[column, k]`, in every lane. Strides
/// count numbers of one lane.
#[derive(Clone, Copy, Debug)]
struct Product {
    rows: usize,
    columns: usize,
    terms: usize,
    p: *const f32,
    p_row: usize,
    p_term: usize,
    q: *const f32,
    q_column: usize,
    q_term: usize,
    out: *mut f32,
    bias: *const f32,
    end: End,
    /// Terms that need no selection, and where each term's lanes take part.
    full_terms: usize,
    active: *const f32,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Store,
    Relu,
    Relu6,
    Step {
        negative_rates: *const f32,
        weight_decay: f32,
        proximal_mu: f32,
        anchor: *const f32,
    },
}

/// A tile of `A` rows and `B` columns in the lanes from `lane` on.
///
/// # Safety
/// The product's pointers must be valid for all elements that it describes.
#[inline(always)]
unsafe fn tile<V: Simd, const A: usize, const B: usize>(
    v: V,
    t: &Product,
    row: usize,
    column: usize,
    lane: usize,
) {
    // SAFETY: the caller's promise; rows, columns and terms are inside the product.
    unsafe {
        let mut acc = [[v.splat(0.0); B]; A];
        if !t.bias.is_null() {
            for b in 0..B {
                let bias = v.load(t.bias.add((column + b) * LANES + lane));
                for acc in &mut acc {
                    acc[b] = bias;
                }
            }
        }
        let mut p = t.p.add(row * t.p_row * LANES + lane);
        let mut q = t.q.add(column * t.q_column * LANES + lane);
        for _ in 0..t.full_terms {
            let mut right = [v.splat(0.0); B];
            for (b, right) in right.iter_mut().enumerate() {
                *right = v.load(q.add(b * t.q_column * LANES));
            }
            for (a, acc) in acc.iter_mut().enumerate() {
                let left = v.load(p.add(a * t.p_row * LANES));
                for b in 0..B {
                    acc[b] = v.fma(left, right[b], acc[b]);
                }
            }
            p = p.wrapping_add(t.p_term * LANES);
            q = q.wrapping_add(t.q_term * LANES);
        }
        for term in t.full_terms..t.terms {
            let active = v.load(t.active.add(term * LANES + lane));
            let active = v.greater(active, v.splat(0.0));
            for (a, acc) in acc.iter_mut().enumerate() {
                let left = v.load(p.add(a * t.p_row * LANES));
                for (b, acc) in acc.iter_mut().enumerate() {
                    let right = v.load(q.add(b * t.q_column * LANES));
                    *acc = v.select(active, v.fma(left, right, *acc), *acc);
                }
            }
            p = p.wrapping_add(t.p_term * LANES);
            q = q.wrapping_add(t.q_term * LANES);
        }
        for (a, acc) in acc.iter().enumerate() {
            for (b, &acc) in acc.iter().enumerate() {
                let index = (row + a) * t.columns + column + b;
                let out = t.out.add(index * LANES + lane);
                let value = match t.end {
                    End::Store => acc,
                    End::Relu => v.max(acc, v.splat(0.0)),
                    End::Relu6 => relu6(v, acc),
                    End::Step {
                        negative_rates,
                        weight_decay,
                        proximal_mu,
                        anchor,
                    } => {
                        let anchor = match proximal_mu > 0.0 {
                            true => *anchor.add(index),
                            false => 0.0,
                        };
                        let step = SgdStep {
                            rate: 0.0,
                            weight_decay,
                            proximal_mu,
                        };
                        let old = v.load(out);
                        let g = full_gradient(v, step, acc, old, v.splat(anchor));
                        v.fma(v.load(negative_rates.add(lane)), g, old)
                    }
                };
                v.store(out, value);
            }
        }
    }
}

/// Covers a product with tiles.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn product<V: Simd>(v: V, t: &Product) {
    for lane in (0..LANES).step_by(V::N) {
        let mut row = 0;
        while row < t.rows {
            let rows = match t.rows - row {
                4.. if V::N == LANES => 4,
                2.. => 2,
                _ => 1,
            };
            let mut column = 0;
            while column < t.columns {
                let columns = match t.columns - column {
                    5.. => 5,
                    2.. => 2,
                    _ => 1,
                };
                // SAFETY: the caller's promise; the tile lies inside the product.
                unsafe {
                    match (rows, columns) {
                        (4, 5) => tile::<V, 4, 5>(v, t, row, column, lane),
                        (4, 2) => tile::<V, 4, 2>(v, t, row, column, lane),
                        (4, _) => tile::<V, 4, 1>(v, t, row, column, lane),
                        (2, 5) => tile::<V, 2, 5>(v, t, row, column, lane),
                        (2, 2) => tile::<V, 2, 2>(v, t, row, column, lane),
                        (2, _) => tile::<V, 2, 1>(v, t, row, column, lane),
                        (_, 5) => tile::<V, 1, 5>(v, t, row, column, lane),
                        (_, 2) => tile::<V, 1, 2>(v, t, row, column, lane),
                        _ => tile::<V, 1, 1>(v, t, row, column, lane),
                    }
                }
                column += columns;
            }
            row += rows;
        }
    }
}

fn need(what: &str, found: usize, len: usize) {
    assert!(found >= len, "{what} holds {found} numbers of {len}");
}

vectorized! {
    fn dense(
        v,
        d: &Dense,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        fused: Fused,
        y: &mut [f32],
    ) {
        need("x", x.len(), rows * d.inputs * LANES);
        need("the weight", weight.len(), d.inputs * d.outputs * LANES);
        bias.inspect(|bias| need("the bias", bias.len(), d.outputs * LANES));
        need("y", y.len(), rows * d.outputs * LANES);
        let t = Product {
            rows,
            columns: d.outputs,
            terms: d.inputs,
            p: x.as_ptr(),
            p_row: d.inputs,
            p_term: 1,
            q: weight.as_ptr(),
            q_column: 1,
            q_term: d.outputs,
            out: y.as_mut_ptr(),
            bias: bias.map_or(core::ptr::null(), <[f32]>::as_ptr),
            end: match fused {
                Fused::None => End::Store,
                Fused::Relu => End::Relu,
                Fused::Relu6 => End::Relu6,
            },
            full_terms: d.inputs,
            active: core::ptr::null(),
        };
        // SAFETY: all lengths were checked.
        unsafe { product(v, &t) };
    }

    fn dense_dx(v, d: &Dense, rows: usize, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
        need("dy", dy.len(), rows * d.outputs * LANES);
        need("the weight", weight.len(), d.inputs * d.outputs * LANES);
        need("dx", dx.len(), rows * d.inputs * LANES);
        let t = Product {
            rows,
            columns: d.inputs,
            terms: d.outputs,
            p: dy.as_ptr(),
            p_row: d.outputs,
            p_term: 1,
            q: weight.as_ptr(),
            q_column: d.outputs,
            q_term: 1,
            out: dx.as_mut_ptr(),
            bias: core::ptr::null(),
            end: End::Store,
            full_terms: d.outputs,
            active: core::ptr::null(),
        };
        // SAFETY: all lengths were checked.
        unsafe { product(v, &t) };
    }

    fn dense_step(
        v,
        d: &Dense,
        rows: &LaneRows,
        x: &[f32],
        dy: &[f32],
        weight: &mut [f32],
        step: &LaneStep<'_>,
    ) {
        need("x", x.len(), rows.most * d.inputs * LANES);
        need("dy", dy.len(), rows.most * d.outputs * LANES);
        need("the weight", weight.len(), d.inputs * d.outputs * LANES);
        need("active", rows.active.len(), rows.most * LANES);
        if step.proximal_mu > 0.0 {
            need("the anchor", step.anchor.len(), d.inputs * d.outputs);
        }
        let t = Product {
            rows: d.inputs,
            columns: d.outputs,
            terms: rows.most,
            p: x.as_ptr(),
            p_row: 1,
            p_term: d.inputs,
            q: dy.as_ptr(),
            q_column: 1,
            q_term: d.outputs,
            out: weight.as_mut_ptr(),
            bias: core::ptr::null(),
            end: End::Step {
                negative_rates: step.negative_rates.as_ptr(),
                weight_decay: step.weight_decay,
                proximal_mu: step.proximal_mu,
                anchor: step.anchor.as_ptr(),
            },
            full_terms: rows.full.min(rows.most),
            active: rows.active.as_ptr(),
        };
        // SAFETY: all lengths were checked.
        unsafe { product(v, &t) };
    }

    fn bias_step(
        v,
        columns: usize,
        rows: &LaneRows,
        dy: &[f32],
        bias: &mut [f32],
        step: &LaneStep<'_>,
    ) {
        need("dy", dy.len(), rows.most * columns * LANES);
        need("the bias", bias.len(), columns * LANES);
        need("active", rows.active.len(), rows.most * LANES);
        if step.proximal_mu > 0.0 {
            need("the anchor", step.anchor.len(), columns);
        }
        let sgd = SgdStep {
            rate: 0.0,
            weight_decay: step.weight_decay,
            proximal_mu: step.proximal_mu,
        };
        for lane in (0..LANES).step_by(V::N) {
            for column in 0..columns {
                // SAFETY: all lengths were checked.
                unsafe {
                    let mut sum = v.splat(0.0);
                    for row in 0..rows.most {
                        let dy = v.load(dy.as_ptr().add((row * columns + column) * LANES + lane));
                        let next = v.add(sum, dy);
                        sum = if row < rows.full {
                            next
                        } else {
                            let active = v.load(rows.active.as_ptr().add(row * LANES + lane));
                            v.select(v.greater(active, v.splat(0.0)), next, sum)
                        };
                    }
                    let to = bias.as_mut_ptr().add(column * LANES + lane);
                    let old = v.load(to);
                    let anchor = match step.proximal_mu > 0.0 {
                        true => step.anchor[column],
                        false => 0.0,
                    };
                    let g = full_gradient(v, sgd, sum, old, v.splat(anchor));
                    let rate = v.load(step.negative_rates.as_ptr().add(lane));
                    v.store(to, v.fma(rate, g, old));
                }
            }
        }
    }

    /// `labels` are numbers, `[rows][LANES]`; `scales` one per lane.
    fn softmax_cross_entropy(
        v,
        rows: usize,
        classes: usize,
        logits: &[f32],
        labels: &[f32],
        scales: &[f32; LANES],
        losses: &mut [f32],
        gradient: &mut [f32],
    ) {
        need("the logits", logits.len(), rows * classes * LANES);
        need("the labels", labels.len(), rows * LANES);
        need("the losses", losses.len(), rows * LANES);
        need("the gradient", gradient.len(), rows * classes * LANES);
        for row in 0..rows {
            for lane in (0..LANES).step_by(V::N) {
                let first = row * classes * LANES + lane;
                // SAFETY: all lengths were checked.
                unsafe {
                    let z = logits.as_ptr().add(first);
                    let g = gradient.as_mut_ptr().add(first);
                    let label = v.load(labels.as_ptr().add(row * LANES + lane));
                    let mut max = v.load(z);
                    for class in 1..classes {
                        max = v.max(v.load(z.add(class * LANES)), max);
                    }
                    let mut sum = v.splat(0.0);
                    let mut chosen = v.splat(0.0);
                    for class in 0..classes {
                        let value = v.load(z.add(class * LANES));
                        let e = math::exp(v, v.sub(value, max));
                        v.store(g.add(class * LANES), e);
                        sum = v.add(sum, e);
                        let class = v.splat(class as f32);
                        let other = v.select(v.greater(label, class), chosen, value);
                        chosen = v.select(v.greater(class, label), chosen, other);
                    }
                    let loss = v.sub(math::ln(v, sum), v.sub(chosen, max));
                    v.store(losses.as_mut_ptr().add(row * LANES + lane), loss);
                    let inverse = v.div(v.splat(1.0), sum);
                    let scale = v.load(scales.as_ptr().add(lane));
                    for class in 0..classes {
                        let at = g.add(class * LANES);
                        let p = v.mul(v.load(at), inverse);
                        let class = v.splat(class as f32);
                        let hit = v.sub(p, v.splat(1.0));
                        let p = {
                            let other = v.select(v.greater(label, class), p, hit);
                            v.select(v.greater(class, label), p, other)
                        };
                        v.store(at, v.mul(p, scale));
                    }
                }
            }
        }
    }
}
