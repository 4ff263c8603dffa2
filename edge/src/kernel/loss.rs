//! Losses with their gradients.

use super::math;
use super::simd::{MAX_WIDTH, Simd, map, vectorized};
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// The sum, from front to back.
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

    fn softened_divergence(
        v,
        rows: usize,
        classes: usize,
        logits: &[f32],
        teacher: &[f32],
        temperature: f32,
        share: f32,
        scale: f32,
        losses: &mut [f32],
        gradient: &mut [f32],
    ) {
        let (mut own, mut other) = ([0.0f32; 256], [0.0f32; 256]);
        let by = v.splat(1.0 / temperature);
        let largest = |z: &[f32]| {
            let mut max = z[0];
            for &z in &z[1..] {
                if z > max {
                    max = z;
                }
            }
            max
        };
        for row in 0..rows {
            let z = &logits[row * classes..][..classes];
            let t = &teacher[row * classes..][..classes];
            let g = &mut gradient[row * classes..][..classes];
            let m = v.splat(largest(z));
            let n = v.splat(largest(t));
            let (mut sum, mut sum_t) = (0.0f32, 0.0f32);
            for (z, t) in z.chunks(own.len()).zip(t.chunks(own.len())) {
                let (e, f) = (&mut own[..z.len()], &mut other[..z.len()]);
                map!(v, z.len(); a = z; {} e => math::exp(v, v.mul(v.sub(a, m), by)));
                map!(v, z.len(); a = t; {} f => math::exp(v, v.mul(v.sub(a, n), by)));
                for (&e, &f) in e.iter().zip(&*f) {
                    sum += e;
                    sum_t += f;
                }
            }
            let log = scalar(v, math::ln, sum);
            let log_t = scalar(v, math::ln, sum_t);
            let constant = v.splat(log - log_t);
            let inverse = v.splat(1.0 / sum);
            let inverse_t = v.splat(1.0 / sum_t);
            let factor = v.splat(share * temperature * scale);
            let mut divergence = 0.0f32;
            let parts = z.chunks(own.len()).zip(t.chunks(own.len()));
            for ((z, t), g) in parts.zip(g.chunks_mut(own.len())) {
                let (e, f) = (&mut own[..z.len()], &mut other[..z.len()]);
                if classes > 256 {
                    map!(v, z.len(); a = z; {} e => math::exp(v, v.mul(v.sub(a, m), by)));
                    map!(v, z.len(); a = t; {} f => math::exp(v, v.mul(v.sub(a, n), by)));
                }
                map!(v, z.len(); a = e, b = f, c = g; {
                    let p = v.mul(a, inverse);
                    let q = v.mul(b, inverse_t);
                } g => v.fma(v.sub(p, q), factor, c));
                map!(v, z.len(); a = z, b = t, c = f; {
                    let own = v.mul(v.sub(a, m), by);
                    let taught = v.mul(v.sub(b, n), by);
                    let logs = v.add(v.sub(taught, own), constant);
                } f => v.mul(v.mul(c, inverse_t), logs));
                divergence += sum_in_order(f);
            }
            losses[row] += share * (temperature * temperature) * divergence;
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

#[cfg(test)]
mod tests {
    use super::super::Kernels;

    const Z: [f32; 6] = [1.5, -2.0, 0.25, 30.0, -30.0, 0.0];

    fn close(got: f32, exact: f64) {
        let error = (f64::from(got) - exact).abs();
        assert!(error < 2e-6 * exact.abs().max(1.0), "{got} for {exact}");
    }

    #[test]
    fn softmax_against_f64() {
        let (mut losses, mut gradient) = ([0.0; 2], [0.0; 6]);
        let labels = [2, 1];
        Kernels::best().softmax_cross_entropy(
            2,
            3,
            &Z,
            &labels,
            0.5,
            &mut losses,
            Some(&mut gradient),
        );
        for row in 0..2 {
            let z: Vec<f64> = Z[3 * row..][..3].iter().map(|&z| f64::from(z)).collect();
            let sum: f64 = z.iter().map(|z| libm::exp(*z)).sum();
            let label = labels[row] as usize;
            close(losses[row], libm::log(sum) - z[label]);
            for class in 0..3 {
                let hit = f64::from(u8::from(class == label));
                let exact = 0.5 * (libm::exp(z[class]) / sum - hit);
                close(gradient[3 * row + class], exact);
            }
        }
    }

    /// The formula of the paper, for few classes and for more than a block of them.
    #[test]
    fn softened_divergence_against_f64() {
        for (classes, temperature, share, scale) in [
            (3usize, 1.0f32, 1.0f32, 1.0f32),
            (3, 4.0, 0.9, 0.5),
            (300, 2.5, 0.3, 0.25),
        ] {
            let rows = 2;
            let number = |i: usize, by: u32| ((i as u32 * by) % 97) as f32 / 13.0 - 3.5;
            let z: Vec<f32> = (0..rows * classes).map(|i| number(i, 37)).collect();
            let t: Vec<f32> = (0..rows * classes).map(|i| 2.0 * number(i, 53)).collect();
            let (mut losses, mut gradient) = (vec![0.5; rows], vec![0.25; rows * classes]);
            Kernels::best().softened_divergence(
                rows,
                classes,
                &z,
                &t,
                temperature,
                share,
                scale,
                &mut losses,
                &mut gradient,
            );
            let temperature = f64::from(temperature);
            let softmax = |x: &[f32]| -> Vec<f64> {
                let e: Vec<f64> = x
                    .iter()
                    .map(|&x| libm::exp(f64::from(x) / temperature))
                    .collect();
                let sum: f64 = e.iter().sum();
                e.into_iter().map(|e| e / sum).collect()
            };
            let (share, scale) = (f64::from(share), f64::from(scale));
            for (row, loss) in losses.into_iter().enumerate() {
                let at = row * classes..(row + 1) * classes;
                let (p, q) = (softmax(&z[at.clone()]), softmax(&t[at.clone()]));
                let divergence: f64 = p
                    .iter()
                    .zip(&q)
                    .map(|(p, q)| q * (libm::log(*q) - libm::log(*p)))
                    .sum();
                close(loss, 0.5 + share * temperature * temperature * divergence);
                for ((found, p), q) in gradient[at].iter().zip(&p).zip(&q) {
                    close(*found, 0.25 + share * temperature * scale * (p - q));
                }
            }
        }
    }

    /// A student who answers as the teacher does has nothing left to learn, however far the logits
    /// are from zero.
    #[test]
    fn the_divergence_of_equals_is_zero() {
        let z = [500.0, -500.0, 20.0];
        let shifted = z.map(|z| z + 300.0);
        let (mut losses, mut gradient) = ([0.0], [0.0; 3]);
        let k = Kernels::best();
        k.softened_divergence(
            1,
            3,
            &z,
            &shifted,
            2.0,
            1.0,
            1.0,
            &mut losses,
            &mut gradient,
        );
        assert_eq!((losses, gradient), ([0.0], [0.0; 3]));
    }

    /// A logit that is not a number is seen in the loss, whichever class it belongs to.
    #[test]
    fn softmax_of_nan_is_nan() {
        for place in 0..3 {
            let mut z = [0.5, 1.0, -1.0];
            z[place] = f32::NAN;
            for with_gradient in [false, true] {
                let (mut losses, mut gradient) = ([0.0], [0.0; 3]);
                let gradient = with_gradient.then_some(&mut gradient[..]);
                Kernels::best().softmax_cross_entropy(1, 3, &z, &[0], 1.0, &mut losses, gradient);
                assert!(losses[0].is_nan(), "{place}: {}", losses[0]);
            }
        }
    }

    #[test]
    fn regression_losses_against_f64() {
        let t = [1.0f32, 0.0, 1.0, 1.0, 0.0, 0.5];
        let (mut losses, mut gradient) = ([0.0; 2], [0.0; 6]);
        let pairs =
            |row: usize| (3 * row..3 * row + 3).map(move |i| (f64::from(Z[i]), f64::from(t[i]), i));
        let k = Kernels::best();
        k.mean_squared_error(2, 3, &Z, &t, 0.5, &mut losses, Some(&mut gradient));
        for (row, loss) in losses.into_iter().enumerate() {
            let sum: f64 = pairs(row).map(|(z, t, _)| (z - t) * (z - t)).sum();
            close(loss, sum / 3.0);
            pairs(row).for_each(|(z, t, i)| close(gradient[i], (z - t) / 3.0));
        }
        k.binary_cross_entropy(2, 3, &Z, &t, 0.5, &mut losses, Some(&mut gradient));
        for (row, loss) in losses.into_iter().enumerate() {
            let p = |z: f64| 1.0 / (1.0 + libm::exp(-z));
            let sum: f64 = pairs(row)
                .map(|(z, t, _)| -t * libm::log(p(z)) - (1.0 - t) * libm::log(p(-z)))
                .sum();
            close(loss, sum / 3.0);
            pairs(row).for_each(|(z, t, i)| close(gradient[i], 0.5 * (p(z) - t) / 3.0));
        }
    }

    #[test]
    fn the_first_largest_wins() {
        let x = [1.0, 3.0, 3.0, f32::NAN, 1.0, 0.0, -1.0, -2.0, -1.0];
        let mut best = [9; 3];
        Kernels::best().argmax(3, 3, &x, &mut best);
        assert_eq!(best, [1, 0, 0]);
    }
}
