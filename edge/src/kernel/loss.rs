//! Losses with their gradients.

use super::math;
use super::simd::{MAX_WIDTH, Simd, map, vectorized};

/// The softmax of one row and its loss, in place of scratch: `z` becomes the gradient.
#[inline(always)]
fn sum_in_order(x: &[f32]) -> f32 {
    let mut sum = 0.0f32;
    for &x in x {
        sum += x;
    }
    sum
}

#[inline(always)]
fn scalar<V: Simd>(v: V, f: impl Fn(V, V::F) -> V::F, x: f32) -> f32 {
    let mut out = [0.0f32; MAX_WIDTH];
    // SAFETY: `out` holds a vector.
    unsafe { v.store(out.as_mut_ptr(), f(v, v.splat(x))) };
    out[0]
}

vectorized! {
    fn softmax_cross_entropy(
        v,
        rows: usize,
        classes: usize,
        logits: &[f32],
        labels: &[u32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        let mut block = [0.0f32; 256];
        let mut gradient = gradient;
        for row in 0..rows {
            let z = &logits[row * classes..][..classes];
            let label = labels[row] as usize;
            let mut max = z[0];
            for &z in &z[1..] {
                if z > max {
                    max = z;
                }
            }
            let m = v.splat(max);
            // Exponentials go into the gradient when there is one, else through a block.
            let mut sum = 0.0f32;
            if let Some(gradient) = gradient.as_deref_mut() {
                let e = &mut gradient[row * classes..][..classes];
                map!(v, classes; a = z; {} e => math::exp(v, v.sub(a, m)));
                sum = sum_in_order(e);
                let inverse = v.splat(1.0 / sum);
                let factor = v.splat(scale);
                let at_label = (e[label] * (1.0 / sum) - 1.0) * scale;
                map!(v, classes; a = e; {} e => v.mul(v.mul(a, inverse), factor));
                e[label] = at_label;
            } else {
                for z in z.chunks(block.len()) {
                    let e = &mut block[..z.len()];
                    map!(v, z.len(); a = z; {} e => math::exp(v, v.sub(a, m)));
                    for &e in &*e {
                        sum += e;
                    }
                }
            }
            losses[row] = scalar(v, math::ln, sum) - (z[label] - max);
        }
    }

    fn mean_squared_error(
        v,
        rows: usize,
        width: usize,
        outputs: &[f32],
        targets: &[f32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        for row in 0..rows {
            let mut sum = 0.0f32;
            for (&z, &t) in outputs[row * width..][..width].iter().zip(&targets[row * width..]) {
                let d = z - t;
                sum = d.mul_add(d, sum);
            }
            losses[row] = sum / width as f32;
        }
        if let Some(gradient) = gradient {
            let factor = v.splat(2.0 * scale / width as f32);
            map!(v, rows * width; z = outputs, t = targets; {}
                gradient => v.mul(v.sub(z, t), factor));
        }
    }

    fn binary_cross_entropy(
        v,
        rows: usize,
        width: usize,
        logits: &[f32],
        targets: &[f32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        let mut block = [0.0f32; 256];
        let zero = v.splat(0.0);
        let one = v.splat(1.0);
        for row in 0..rows {
            let mut sum = 0.0f32;
            let z = &logits[row * width..][..width];
            let t = &targets[row * width..][..width];
            for (z, t) in z.chunks(block.len()).zip(t.chunks(block.len())) {
                let terms = &mut block[..z.len()];
                map!(v, z.len(); a = z, b = t; {
                    let e = math::exp(v, v.sub(zero, math::abs(v, a)));
                    let log = math::ln(v, v.add(one, e));
                    let linear = v.sub(v.max(a, zero), v.mul(a, b));
                } terms => v.add(linear, log));
                for &term in &*terms {
                    sum += term;
                }
            }
            losses[row] = sum / width as f32;
        }
        if let Some(gradient) = gradient {
            let factor = v.splat(scale / width as f32);
            map!(v, rows * width; z = logits, t = targets; {}
                gradient => v.mul(v.sub(math::sigmoid(v, z), t), factor));
        }
    }
}

/// The first largest column of each row.
pub(super) fn argmax(rows: usize, columns: usize, x: &[f32], best: &mut [u32]) {
    for (row, best) in best[..rows].iter_mut().enumerate() {
        let x = &x[row * columns..][..columns];
        let mut at = 0;
        for (column, &value) in x.iter().enumerate() {
            if value > x[at] {
                at = column;
            }
        }
        *best = at as u32;
    }
}
