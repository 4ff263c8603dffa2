//! Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1).
//!
//! Sums over the batch and all positions are taken in blocks of rows, a number that follows from
//! the channels alone: rows ascending within a block, then blocks ascending. Means and squared
//! distances of blocks are joined by the formula of Chan, Golub & LeVeque 1979 ("Updating
//! Formulae and a Pairwise Algorithm for Computing Sample Variances", equation 1.5), so one pass over memory is
//! as exact as two. The backward pass computes the output again to see where its rectifier let
//! values through.
//!
//! The mean that is kept is rounded, so the normalised inputs have a mean too, if a tiny one. Where
//! values lie close together far from zero, formulas that take it for zero lose most digits of what
//! cancels; the backward pass measures it and takes it off.

use super::elementwise::{apply_activation_grad, apply_fused};
use super::geometry::BatchNorm;
use super::simd::{Simd, vectorized};
use super::types::Fused;

/// Numbers of a block: 32 KiB.
const BLOCK: usize = 8192;

/// Rows of a block.
fn block_rows(channels: usize) -> usize {
    (BLOCK / channels).clamp(8, 256)
}

/// Calls `f(first row, rows, first channel, channels)` for every block and vector.
#[inline(always)]
fn tiles<V: Simd>(
    _v: V,
    rows: usize,
    channels: usize,
    mut f: impl FnMut(usize, usize, usize, usize),
) {
    let block = block_rows(channels);
    for first in (0..rows).step_by(block) {
        let len = block.min(rows - first);
        for at in (0..channels).step_by(V::N) {
            f(first, len, at, V::N.min(channels - at));
        }
    }
}

/// What the output was made of, for one vector of channels.
#[derive(Clone, Copy)]
struct Channel<F> {
    mean: F,
    r: F,
    a: F,
    beta: F,
}

/// # Safety
/// All slices hold `at + n` numbers.
#[inline(always)]
unsafe fn channel<V: Simd>(
    v: V,
    mean: &[f32],
    r: &[f32],
    gamma: &[f32],
    beta: &[f32],
    at: usize,
    n: usize,
) -> Channel<V::F> {
    // SAFETY: the caller's promise.
    unsafe {
        let r = v.load_first(r.as_ptr().add(at), n);
        Channel {
            mean: v.load_first(mean.as_ptr().add(at), n),
            r,
            a: v.mul(v.load_first(gamma.as_ptr().add(at), n), r),
            beta: v.load_first(beta.as_ptr().add(at), n),
        }
    }
}

/// `dy` where the rectifier let the value through, and the normalised input.
#[inline(always)]
fn through<V: Simd>(v: V, c: &Channel<V::F>, fused: Fused, x: V::F, dy: V::F) -> (V::F, V::F) {
    let centred = v.sub(x, c.mean);
    let dy = match fused.activation() {
        None => dy,
        Some(f) => {
            let y = apply_fused(v, fused, v.fma(centred, c.a, c.beta));
            apply_activation_grad(v, f, y, dy)
        }
    };
    (dy, v.mul(centred, c.r))
}

vectorized! {
    /// `stats` is `[mean, r, variance, unused]`, each of all channels.
    fn statistics(v, b: &BatchNorm, rows: usize, x: &[f32], stats: &mut [f32]) {
        let (rows, channels) = (rows * b.positions, b.channels);
        assert!(x.len() >= rows * channels && stats.len() >= 3 * channels);
        let (means, rest) = stats.split_at_mut(channels);
        let (factors, squares) = rest.split_at_mut(channels);
        tiles(v, rows, channels, |first, len, at, n| {
            let joined = (first + len) as f64;
            let inverse = v.splat((1.0 / len as f64) as f32);
            // SAFETY: all rows lie in `x`, `at + n` channels in the statistics.
            unsafe {
                let from = x.as_ptr().add(first * channels + at);
                let mut sum = v.splat(0.0);
                for row in 0..len {
                    sum = v.add(sum, v.load_first(from.add(row * channels), n));
                }
                let mut mean = v.mul(sum, inverse);
                let mut square = v.splat(0.0);
                for row in 0..len {
                    let d = v.sub(v.load_first(from.add(row * channels), n), mean);
                    square = v.fma(d, d, square);
                }
                if first > 0 {
                    let before = v.load_first(means.as_ptr().add(at), n);
                    let apart = v.sub(mean, before);
                    let share = v.splat((len as f64 / joined) as f32);
                    mean = v.fma(apart, share, before);
                    let weight = v.splat((first as f64 * len as f64 / joined) as f32);
                    let between = v.mul(v.mul(apart, apart), weight);
                    let before = v.load_first(squares.as_ptr().add(at), n);
                    square = v.add(before, v.add(square, between));
                }
                v.store_first(means.as_mut_ptr().add(at), n, mean);
                v.store_first(squares.as_mut_ptr().add(at), n, square);
            }
        });
        let count = v.splat(rows as f32);
        for at in (0..channels).step_by(V::N) {
            let n = V::N.min(channels - at);
            // SAFETY: `at + n` channels lie in the statistics.
            unsafe {
                let variance = v.div(v.load_first(squares.as_ptr().add(at), n), count);
                let root = v.sqrt(v.add(variance, v.splat(b.epsilon)));
                v.store_first(factors.as_mut_ptr().add(at), n, v.div(v.splat(1.0), root));
                v.store_first(squares.as_mut_ptr().add(at), n, variance);
            }
        }
    }

    fn factor(v, epsilon: f32, variance: &[f32], r: &mut [f32]) {
        let zero = v.splat(0.0);
        super::simd::map!(v, variance.len(); s = variance; {
            let root = v.sqrt(v.add(v.max(s, zero), v.splat(epsilon)));
        } r => v.div(v.splat(1.0), root));
    }

    fn normalise(
        v,
        b: &BatchNorm,
        rows: usize,
        x: &[f32],
        mean: &[f32],
        r: &[f32],
        gamma: &[f32],
        beta: &[f32],
        fused: Fused,
        y: &mut [f32],
    ) {
        let (rows, channels) = (rows * b.positions, b.channels);
        assert!(x.len() >= rows * channels && y.len() >= rows * channels);
        assert!([mean, r, gamma, beta].iter().all(|s| s.len() >= channels));
        tiles(v, rows, channels, |first, len, at, n| {
            // SAFETY: all rows lie in `x` and `y`, `at + n` channels in the other slices.
            unsafe {
                let c = channel(v, mean, r, gamma, beta, at, n);
                let from = x.as_ptr().add(first * channels + at);
                let to = y.as_mut_ptr().add(first * channels + at);
                for row in 0..len {
                    let x = v.load_first(from.add(row * channels), n);
                    let value = v.fma(v.sub(x, c.mean), c.a, c.beta);
                    v.store_first(to.add(row * channels), n, apply_fused(v, fused, value));
                }
            }
        });
    }

    fn dparameters(
        v,
        b: &BatchNorm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        stats: &mut [f32],
        fused: Fused,
        dy: &[f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) {
        // With h = (x - mean) r: dbeta = sum(dy), dgamma = sum(dy (h - mean(h))).
        let (rows, channels) = (rows * b.positions, b.channels);
        assert!(x.len() >= rows * channels && dy.len() >= rows * channels);
        assert!(stats.len() >= 4 * channels && dgamma.len() >= channels && dbeta.len() >= channels);
        assert!(gamma.len() >= channels && beta.len() >= channels);
        let (stats, offsets) = stats.split_at_mut(3 * channels);
        let (mean, r) = stats.split_at(channels);
        tiles(v, rows, channels, |first, len, at, n| {
            // SAFETY: all rows lie in `x` and `dy`, `at + n` channels in the other slices.
            unsafe {
                let c = channel(v, mean, r, gamma, beta, at, n);
                let from = x.as_ptr().add(first * channels + at);
                let back = dy.as_ptr().add(first * channels + at);
                let (mut plain, mut along) = (v.splat(0.0), v.splat(0.0));
                let mut offset = v.splat(0.0);
                for row in 0..len {
                    let x = v.load_first(from.add(row * channels), n);
                    let dy = v.load_first(back.add(row * channels), n);
                    let (dy, h) = through(v, &c, fused, x, dy);
                    plain = v.add(plain, dy);
                    along = v.fma(dy, h, along);
                    offset = v.add(offset, h);
                }
                if first > 0 {
                    plain = v.add(v.load_first(dbeta.as_ptr().add(at), n), plain);
                    along = v.add(v.load_first(dgamma.as_ptr().add(at), n), along);
                    offset = v.add(v.load_first(offsets.as_ptr().add(at), n), offset);
                }
                if first + len == rows {
                    offset = v.mul(offset, v.splat((1.0 / rows as f64) as f32));
                    along = v.sub(along, v.mul(offset, plain));
                }
                v.store_first(dbeta.as_mut_ptr().add(at), n, plain);
                v.store_first(dgamma.as_mut_ptr().add(at), n, along);
                v.store_first(offsets.as_mut_ptr().add(at), n, offset);
            }
        });
    }

    fn dx(
        v,
        b: &BatchNorm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        stats: &[f32],
        fused: Fused,
        dgamma: &[f32],
        dbeta: &[f32],
        dy: &mut [f32],
    ) {
        // With h = (x - mean) r: dx = gamma r (dy - mean(dy) - (h - mean(h)) dgamma / rows).
        let (rows, channels) = (rows * b.positions, b.channels);
        assert!(x.len() >= rows * channels && dy.len() >= rows * channels);
        assert!(stats.len() >= 4 * channels && dgamma.len() >= channels && dbeta.len() >= channels);
        assert!(gamma.len() >= channels && beta.len() >= channels);
        let (stats, offsets) = stats.split_at(3 * channels);
        let (mean, r) = stats.split_at(channels);
        let inverse = v.splat((-1.0 / rows as f64) as f32);
        tiles(v, rows, channels, |first, len, at, n| {
            // SAFETY: all rows lie in `x` and `dy`, `at + n` channels in the other slices.
            unsafe {
                let c = channel(v, mean, r, gamma, beta, at, n);
                let plain = v.mul(v.load_first(dbeta.as_ptr().add(at), n), inverse);
                let along = v.mul(v.load_first(dgamma.as_ptr().add(at), n), inverse);
                let offset = v.load_first(offsets.as_ptr().add(at), n);
                let plain = v.sub(plain, v.mul(offset, along));
                let from = x.as_ptr().add(first * channels + at);
                let back = dy.as_mut_ptr().add(first * channels + at);
                for row in 0..len {
                    let x = v.load_first(from.add(row * channels), n);
                    let dy = v.load_first(back.add(row * channels), n);
                    let (dy, h) = through(v, &c, fused, x, dy);
                    let rest = v.fma(h, along, v.add(dy, plain));
                    v.store_first(back.add(row * channels), n, v.mul(c.a, rest));
                }
            }
        });
    }

    fn running(v, momentum: f32, scale: f32, batch: &[f32], running: &mut [f32]) {
        let (keep, share) = (v.splat(1.0 - momentum), v.splat(momentum * scale));
        super::simd::map!(v, running.len(); b = batch, w = running; {}
            running => v.fma(share, b, v.mul(keep, w)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchNorm, Fused, Kernels};

    /// Forward and backward against the formulas in f64, over more than one block.
    #[test]
    fn normalisation_against_f64() {
        let (rows, positions, channels) = (7, 90, 3);
        let b = BatchNorm::new(positions, channels, 1e-3).expect("a valid shape");
        let count = rows * positions;
        let x: Vec<f32> = (0..count * channels)
            .map(|i| ((i * 17) % 23) as f32 * 0.3 - 2.0 + 40.0 * (i % channels) as f32)
            .collect();
        let dy: Vec<f32> = (0..x.len())
            .map(|i| ((i * 29) % 31) as f32 - 14.5)
            .collect();
        let (gamma, beta) = ([1.0, 0.5, -2.0], [0.0, 1.0, -1.0]);
        let k = Kernels::best();
        for (fused, most) in [
            (Fused::None, f64::INFINITY),
            (Fused::Relu, f64::INFINITY),
            (Fused::Relu6, 6.0),
        ] {
            let least = if fused == Fused::None {
                -f64::INFINITY
            } else {
                0.0
            };
            let mut stats = vec![0.0; b.stats_len()];
            let (mut y, mut dx) = (vec![0.0; x.len()], dy.clone());
            let (mut dgamma, mut dbeta) = ([0.0; 3], [0.0; 3]);
            k.batch_norm_statistics(&b, rows, &x, &mut stats);
            let (mean, r) = stats.split_at(channels);
            k.batch_norm(&b, rows, &x, mean, r, &gamma, &beta, fused, &mut y);
            k.batch_norm_dparameters(
                &b,
                rows,
                &x,
                &gamma,
                &beta,
                &mut stats,
                fused,
                &dy,
                &mut dgamma,
                &mut dbeta,
            );
            k.batch_norm_dx(
                &b, rows, &x, &gamma, &beta, &stats, fused, &dgamma, &dbeta, &mut dx,
            );
            for channel in 0..channels {
                let places = || (0..count).map(|i| i * channels + channel);
                let n = count as f64;
                let mean = places().map(|i| f64::from(x[i])).sum::<f64>() / n;
                let square = |i: usize| (f64::from(x[i]) - mean) * (f64::from(x[i]) - mean);
                let variance = places().map(square).sum::<f64>() / n;
                assert!((f64::from(stats[channel]) - mean).abs() < 1e-4);
                assert!((f64::from(stats[2 * channels + channel]) - variance).abs() < 1e-4);
                let r = 1.0 / libm::sqrt(variance + f64::from(1e-3f32));
                let (g, shift) = (f64::from(gamma[channel]), f64::from(beta[channel]));
                let h = |i: usize| (f64::from(x[i]) - mean) * r;
                let raw = |i: usize| h(i) * g + shift;
                let back = |i: usize| {
                    let lets = fused == Fused::None || (raw(i) > least && raw(i) < most);
                    f64::from(dy[i]) * f64::from(u8::from(lets))
                };
                let plain = places().map(back).sum::<f64>();
                let along = places().map(|i| back(i) * h(i)).sum::<f64>();
                assert!((f64::from(dbeta[channel]) - plain).abs() < 1e-2);
                assert!((f64::from(dgamma[channel]) - along).abs() < 1e-2);
                for i in places() {
                    let exact = raw(i).clamp(least, most);
                    assert!(
                        (f64::from(y[i]) - exact).abs() < 1e-4,
                        "{} for {exact}",
                        y[i]
                    );
                    let exact = g * r * (back(i) - plain / n - h(i) * along / n);
                    assert!(
                        (f64::from(dx[i]) - exact).abs() < 1e-3,
                        "{} for {exact}",
                        dx[i]
                    );
                }
            }
        }
    }

    /// Values that lie close together far from zero: their mean is off by its rounding, which is
    /// much beside their deviation, and yet shifting all of them at once changes nothing.
    #[test]
    fn the_rounded_mean_takes_no_digits_from_the_gradient() {
        let (rows, channels) = (3, 2);
        let b = BatchNorm::new(1, channels, 1e-5).expect("a valid shape");
        let x = [1.04f32, -1.03, 1.039_999_6, -1.029_999_7, 1.039_2, -1.029_3];
        let dy = [0.31f32, 0.12, -0.23, 0.27, -0.11, -0.35];
        let (gamma, beta) = ([1.01, 0.99], [0.0, 0.0]);
        let k = Kernels::best();
        let mut stats = vec![0.0; b.stats_len()];
        let (mut dx, mut dgamma, mut dbeta) = (dy, [0.0; 2], [0.0; 2]);
        let none = Fused::None;
        k.batch_norm_statistics(&b, rows, &x, &mut stats);
        k.batch_norm_dparameters(
            &b,
            rows,
            &x,
            &gamma,
            &beta,
            &mut stats,
            none,
            &dy,
            &mut dgamma,
            &mut dbeta,
        );
        k.batch_norm_dx(
            &b, rows, &x, &gamma, &beta, &stats, none, &dgamma, &dbeta, &mut dx,
        );
        for channel in 0..channels {
            let of = |values: [f32; 6]| [0, 1, 2].map(|row| f64::from(values[2 * row + channel]));
            let (x, dy, dx) = (of(x), of(dy), of(dx));
            let mean = x.iter().sum::<f64>() / 3.0;
            let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 3.0;
            let r = 1.0 / libm::sqrt(variance + f64::from(1e-5f32));
            let h = x.map(|x| (x - mean) * r);
            let along = (0..3).map(|i| dy[i] * h[i]).sum::<f64>();
            assert!(
                (f64::from(dgamma[channel]) - along).abs() < 1e-8,
                "{channel}"
            );
            let size = dx.iter().map(|dx| dx.abs()).sum::<f64>();
            let shift = dx.iter().sum::<f64>();
            assert!(shift.abs() < 2e-7 * size, "{shift} of {size}");
        }
    }
}
