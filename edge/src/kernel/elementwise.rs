//! Kernels that treat every element alone, column sums and sums of squares.

use super::math;
use super::simd::{Simd, map, vectorized};
use super::types::{Activation, AdamStep, Fused, Gradient, Momentum, SgdStep};

/// `g2` of [`SgdStep`].
#[inline(always)]
pub(super) fn full_gradient<V: Simd>(v: V, step: SgdStep, g: V::F, w: V::F, anchor: V::F) -> V::F {
    let mut g = g;
    if step.weight_decay > 0.0 {
        g = v.fma(v.splat(step.weight_decay), w, g);
    }
    if step.proximal_mu > 0.0 {
        g = v.fma(v.splat(step.proximal_mu), v.sub(w, anchor), g);
    }
    g
}

/// The weight after a plain SGD step: the recipe of [`SgdStep`].
#[inline(always)]
pub(crate) fn apply_gradient<V: Simd>(v: V, step: SgdStep, g: V::F, w: V::F, anchor: V::F) -> V::F {
    v.fma(v.splat(-step.rate), full_gradient(v, step, g, w, anchor), w)
}

/// `min(max(x, 0), 6)`, and zero for NaN.
#[inline(always)]
pub(super) fn relu6<V: Simd>(v: V, x: V::F) -> V::F {
    v.min(v.max(x, v.splat(0.0)), v.splat(6.0))
}

/// `x` as a product's end leaves it.
#[inline(always)]
pub(super) fn apply_fused<V: Simd>(v: V, fused: Fused, x: V::F) -> V::F {
    match fused {
        Fused::None => x,
        Fused::Relu => v.max(x, v.splat(0.0)),
        Fused::Relu6 => relu6(v, x),
    }
}

/// `f(x)`
#[inline(always)]
pub(crate) fn apply_activation<V: Simd>(v: V, f: Activation, x: V::F) -> V::F {
    let zero = v.splat(0.0);
    match f {
        Activation::Relu => v.max(x, zero),
        Activation::Relu6 => relu6(v, x),
        Activation::Leaky { slope } => v.select(v.greater(x, zero), x, v.mul(v.splat(slope), x)),
        Activation::Gelu => {
            let half = v.mul(v.splat(0.5), x);
            let erf = math::erf(v, v.mul(x, v.splat(core::f32::consts::FRAC_1_SQRT_2)));
            v.fma(half, erf, half)
        }
        Activation::Tanh => math::tanh(v, x),
        Activation::Sigmoid => math::sigmoid(v, x),
    }
}

/// `dy * f'`, from the kept input or output.
#[inline(always)]
pub(crate) fn apply_activation_grad<V: Simd>(v: V, f: Activation, kept: V::F, dy: V::F) -> V::F {
    let zero = v.splat(0.0);
    let one = v.splat(1.0);
    match f {
        Activation::Relu => v.select(v.greater(kept, zero), dy, zero),
        Activation::Relu6 => {
            let below_six = v.select(v.greater(v.splat(6.0), kept), dy, zero);
            v.select(v.greater(kept, zero), below_six, zero)
        }
        Activation::Leaky { slope } => {
            v.select(v.greater(kept, zero), dy, v.mul(v.splat(slope), dy))
        }
        Activation::Gelu => {
            let erf = math::erf(v, v.mul(kept, v.splat(core::f32::consts::FRAC_1_SQRT_2)));
            let cdf = v.fma(v.splat(0.5), erf, v.splat(0.5));
            let e = math::exp(v, v.mul(v.mul(kept, v.splat(-0.5)), kept));
            let density = v.mul(e, v.splat(FRAC_1_SQRT_2PI));
            v.mul(dy, v.fma(kept, density, cdf))
        }
        Activation::Tanh => v.mul(dy, v.sub(one, v.mul(kept, kept))),
        Activation::Sigmoid => v.mul(dy, v.mul(kept, v.sub(one, kept))),
    }
}

/// Gives finished sums, which begin at element `first` of the gradient, to where they go.
#[inline(always)]
pub(super) fn finish_gradient<V: Simd>(
    v: V,
    sums: &[f32],
    gradient: &mut Gradient<'_>,
    first: usize,
) {
    let len = sums.len();
    match gradient {
        Gradient::Store(to) | Gradient::Accumulate(to) => {
            to[first..first + len].copy_from_slice(sums);
        }
        Gradient::Step {
            weights,
            anchor,
            step,
        } => {
            let step = *step;
            let weights = &mut weights[first..first + len];
            if step.proximal_mu > 0.0 {
                let anchor = &anchor[first..first + len];
                map!(v, len; g = sums, a = anchor, w = weights; {}
                    weights => apply_gradient(v, step, g, w, a));
            } else {
                map!(v, len; g = sums, w = weights; {}
                    weights => apply_gradient(v, step, g, w, w));
            }
        }
    }
}

/// `1 / sqrt(2 pi)`
const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;

/// Numbers in one f32 block of [`sum_of_squares`].
const SQUARES_BLOCK: usize = 1024;

/// The sums of the squares of `R` slices of one length: sixteen sums in `f32` for each block, which
/// are added in `f64`. Several at a time are faster, since each sum waits for its last term.
#[inline(always)]
fn squares<V: Simd, const R: usize>(v: V, x: [&[f32]; R]) -> [f64; R] {
    let len = x[0].len();
    assert!(x.iter().all(|x| x.len() == len));
    let mut totals = [0.0f64; R];
    let mut start = 0;
    while start < len {
        let end = len.min(start + SQUARES_BLOCK);
        let whole = start + (end - start) / 16 * 16;
        // Vectors have eight numbers or more.
        let mut sums = [[v.splat(0.0); 2]; R];
        let mut at = start;
        while at < whole {
            for (x, sums) in x.iter().zip(&mut sums) {
                for (part, sum) in sums.iter_mut().enumerate().take(16 / V::N) {
                    // SAFETY: `at + 16` is at most the length.
                    let a = unsafe { v.load(x.as_ptr().add(at + part * V::N)) };
                    *sum = v.fma(a, a, *sum);
                }
            }
            at += 16;
        }
        for ((x, sums), total) in x.iter().zip(&mut sums).zip(&mut totals) {
            let mut partial = [0.0f32; 16];
            for (part, sum) in sums.iter_mut().enumerate().take(16 / V::N) {
                let first = (whole + part * V::N).min(end);
                let n = (end - first).min(V::N);
                // SAFETY: `first + n` is at most the length, and the array holds sixteen.
                unsafe {
                    let a = v.load_first(x.as_ptr().add(first), n);
                    v.store(partial.as_mut_ptr().add(part * V::N), v.fma(a, a, *sum));
                }
            }
            for partial in partial {
                *total += f64::from(partial);
            }
        }
        start = end;
    }
    totals
}

vectorized! {
    fn activate(v, f: Activation, x: &[f32], y: &mut [f32]) {
        macro_rules! with {
            ($f:expr) => { map!(v, x.len(); a = x; {} y => apply_activation(v, $f, a)) };
        }
        // One loop for each function, so that the choice is outside.
        match f {
            Activation::Relu => with!(Activation::Relu),
            Activation::Relu6 => with!(Activation::Relu6),
            Activation::Leaky { slope } => with!(Activation::Leaky { slope }),
            Activation::Gelu => with!(Activation::Gelu),
            Activation::Tanh => with!(Activation::Tanh),
            Activation::Sigmoid => with!(Activation::Sigmoid),
        }
    }

    fn activate_in_place(v, f: Activation, y: &mut [f32]) {
        macro_rules! with {
            ($f:expr) => { map!(v, y.len(); a = y; {} y => apply_activation(v, $f, a)) };
        }
        match f {
            Activation::Relu => with!(Activation::Relu),
            Activation::Relu6 => with!(Activation::Relu6),
            Activation::Leaky { slope } => with!(Activation::Leaky { slope }),
            Activation::Gelu => with!(Activation::Gelu),
            Activation::Tanh => with!(Activation::Tanh),
            Activation::Sigmoid => with!(Activation::Sigmoid),
        }
    }

    fn activate_grad(v, f: Activation, kept: &[f32], dy: &mut [f32]) {
        macro_rules! with {
            ($f:expr) => {
                map!(v, dy.len(); k = kept, d = dy; {}
                    dy => apply_activation_grad(v, $f, k, d))
            };
        }
        match f {
            Activation::Relu => with!(Activation::Relu),
            Activation::Relu6 => with!(Activation::Relu6),
            Activation::Leaky { slope } => with!(Activation::Leaky { slope }),
            Activation::Gelu => with!(Activation::Gelu),
            Activation::Tanh => with!(Activation::Tanh),
            Activation::Sigmoid => with!(Activation::Sigmoid),
        }
    }

    fn axpy(v, a: f32, x: &[f32], y: &mut [f32]) {
        let a = v.splat(a);
        map!(v, x.len(); p = x, q = y; {} y => v.fma(a, p, q));
    }

    fn scale(v, a: f32, y: &mut [f32]) {
        let a = v.splat(a);
        map!(v, y.len(); q = y; {} y => v.mul(a, q));
    }

    fn scale_rows(v, width: usize, factors: &[f32], y: &mut [f32]) {
        for (factor, row) in factors.iter().zip(y.chunks_exact_mut(width)) {
            let a = v.splat(*factor);
            map!(v, width; q = row; {} row => v.mul(a, q));
        }
    }

    fn add(v, x: &[f32], y: &mut [f32]) {
        map!(v, x.len(); p = x, q = y; {} y => v.add(q, p));
    }

    fn difference(v, x: &[f32], y: &[f32], z: &mut [f32]) {
        map!(v, x.len(); p = x, q = y; {} z => v.sub(p, q));
    }

    fn sgd(v, step: SgdStep, gradient: &[f32], anchor: &[f32], weights: &mut [f32]) {
        if step.proximal_mu > 0.0 {
            map!(v, gradient.len(); g = gradient, a = anchor, w = weights; {}
                weights => apply_gradient(v, step, g, w, a));
        } else {
            map!(v, gradient.len(); g = gradient, w = weights; {}
                weights => apply_gradient(v, step, g, w, w));
        }
    }

    fn sgd_momentum(
        v,
        step: SgdStep,
        momentum: Momentum,
        gradient: &[f32],
        anchor: &[f32],
        velocity: &mut [f32],
        weights: &mut [f32],
    ) {
        // Without a proximal term the anchor is not read; the gradient stands in for it.
        let anchor = if step.proximal_mu > 0.0 { anchor } else { gradient };
        let (m, rate) = (v.splat(momentum.momentum), v.splat(-step.rate));
        if momentum.nesterov {
            map!(v, gradient.len(); g = gradient, a = anchor, u = velocity, w = weights; {
                let g2 = full_gradient(v, step, g, w, a);
                let u = v.fma(m, u, g2);
                let d = v.fma(m, u, g2);
            } velocity => u, weights => v.fma(rate, d, w));
        } else {
            map!(v, gradient.len(); g = gradient, a = anchor, u = velocity, w = weights; {
                let g2 = full_gradient(v, step, g, w, a);
                let u = v.fma(m, u, g2);
            } velocity => u, weights => v.fma(rate, u, w));
        }
    }

    fn adam(
        v,
        step: &AdamStep,
        gradient: &[f32],
        anchor: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        weights: &mut [f32],
    ) {
        let anchor = if step.step.proximal_mu > 0.0 { anchor } else { gradient };
        let shrink = if step.decoupled { -step.step.rate * step.step.weight_decay } else { 0.0 };
        let plain = SgdStep {
            weight_decay: if step.decoupled { 0.0 } else { step.step.weight_decay },
            ..step.step
        };
        let (beta1, beta2) = (v.splat(step.beta1), v.splat(step.beta2));
        let (rest1, rest2) = (v.splat(1.0 - step.beta1), v.splat(1.0 - step.beta2));
        let correction = v.splat(step.inverse_root_correction2);
        let epsilon = v.splat(step.epsilon);
        let rate = v.splat(-step.corrected_rate);
        map!(v, gradient.len(); g = gradient, a = anchor, m = first, s = second, w = weights; {
            let g2 = full_gradient(v, plain, g, w, a);
            let w1 = if shrink == 0.0 { w } else { v.fma(v.splat(shrink), w, w) };
            let m = v.fma(beta1, m, v.mul(rest1, g2));
            let s = v.fma(beta2, s, v.mul(v.mul(rest2, g2), g2));
            let d = v.fma(v.sqrt(s), correction, epsilon);
        } first => m, second => s, weights => v.fma(rate, v.div(m, d), w1));
    }

    fn dropout(v, keep: &[u8], scale: f32, y: &mut [f32]) {
        let mut factors = [0.0f32; 64];
        let zero = v.splat(0.0);
        for (keep, y) in keep.chunks(64).zip(y.chunks_mut(64)) {
            for (factor, &keep) in factors.iter_mut().zip(keep) {
                *factor = f32::from(keep);
            }
            let scale = v.splat(scale);
            map!(v, y.len(); k = factors, a = y; {}
                y => v.select(v.greater(k, zero), v.mul(a, scale), zero));
        }
    }

    fn column_sums(v, rows: usize, columns: usize, dy: &[f32], gradient: Gradient<'_>) {
        assert!(dy.len() >= rows * columns);
        let mut gradient = gradient;
        let mut sums = [0.0f32; 64];
        let mut first = 0;
        while first < columns {
            let width = (columns - first).min(sums.len());
            let sums = &mut sums[..width];
            match &gradient {
                Gradient::Accumulate(to) => sums.copy_from_slice(&to[first..first + width]),
                Gradient::Store(_) | Gradient::Step { .. } => sums.fill(0.0),
            }
            let mut at = 0;
            while at < width {
                let n = (width - at).min(V::N);
                // SAFETY: rows of `columns` numbers, of which `first + at + n` are in each.
                unsafe {
                    let mut sum = v.load_first(sums.as_ptr().add(at), n);
                    let mut from = dy.as_ptr().add(first + at);
                    for row in 0..rows {
                        sum = v.add(sum, v.load_first(from, n));
                        if row + 1 < rows {
                            from = from.add(columns);
                        }
                    }
                    v.store_first(sums.as_mut_ptr().add(at), n, sum);
                }
                at += n;
            }
            finish_gradient(v, sums, &mut gradient, first);
            first += width;
        }
    }

    fn prefetch_rows(v, x: &[f32], width: usize, rows: &[u32]) {
        for &row in rows {
            let start = row as usize * width;
            if let Some(row) = x.get(start..start + width) {
                for line in row.chunks(16) {
                    v.prefetch(line.as_ptr());
                }
            }
        }
    }

    fn inner_product(v, x: &[f32], y: &[f32]) -> f64 {
        let mut total = 0.0f64;
        for (x, y) in x.chunks(SQUARES_BLOCK).zip(y.chunks(SQUARES_BLOCK)) {
            let mut partial = [0.0f32; 16];
            for (x, y) in x.chunks(16).zip(y.chunks(16)) {
                map!(v, x.len(); a = x, b = y, p = partial; {} partial => v.fma(a, b, p));
            }
            for partial in partial {
                total += f64::from(partial);
            }
        }
        total
    }

    fn sum_of_squares(v, x: &[f32]) -> f64 {
        let [total] = squares(v, [x]);
        total
    }

    fn row_squares(v, width: usize, x: &[f32], sums: &mut [f64]) {
        let row = |at: usize| &x[at * width..][..width];
        let mut at = 0;
        // As many at a time as there are registers for.
        if V::N == 16 {
            while at + 8 <= sums.len() {
                let eight = [
                    row(at),
                    row(at + 1),
                    row(at + 2),
                    row(at + 3),
                    row(at + 4),
                    row(at + 5),
                    row(at + 6),
                    row(at + 7),
                ];
                sums[at..at + 8].copy_from_slice(&squares(v, eight));
                at += 8;
            }
        }
        while at + 4 <= sums.len() {
            let four = [row(at), row(at + 1), row(at + 2), row(at + 3)];
            sums[at..at + 4].copy_from_slice(&squares(v, four));
            at += 4;
        }
        while at < sums.len() {
            [sums[at]] = squares(v, [row(at)]);
            at += 1;
        }
    }
}
