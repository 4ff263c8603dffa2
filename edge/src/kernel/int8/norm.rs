//! Normalisations between u8 tensors, without going through a tensor of floats.

use super::super::Kernels;
use super::super::geometry::Norm;
use super::types::Affine;
use super::{need, round_even};

/// Where the integers of an affine map per channel go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// Smallest output.
    pub low: u8,
    /// Largest output, at least `low`.
    pub high: u8,
}

/// `y = clamp(rne(x * a + b), low, high)` of one row of channels; product and sum rounded once
/// each.
fn rescale(x: &[u8], a: &[f32], b: &[f32], to: Rescale, y: &mut [u8]) {
    let (low, high) = (f32::from(to.low), f32::from(to.high));
    for (((y, x), a), b) in y.iter_mut().zip(x).zip(a).zip(b) {
        let steps = (f32::from(*x) * a + b).max(low).min(high);
        *y = round_even(steps) as u8;
    }
}

impl Kernels {
    /// An affine map per channel of `x[rows * positions, channels]`:
    /// `clamp(rne(x * a + b), low, high)`, product and sum rounded once each: a batch
    /// normalisation by running statistics.
    pub fn int8_rescale(&self, x: &[u8], a: &[f32], b: &[f32], to: Rescale, y: &mut [u8]) {
        need("y", y, x.len());
        let channels = a.len().max(1);
        for (x, y) in x.chunks(channels).zip(y.chunks_mut(channels)) {
            rescale(x, a, b, to, y);
        }
    }

    /// Group normalisation of integers. Over a group's `n` integers `q`, with exact sums,
    /// ```text
    /// mean     = Σq / n,   variance = (n Σq² - (Σq)²) / n²
    /// r        = s / sqrt(s² variance + epsilon)
    /// a        = gamma r / s_y
    /// b        = beta / s_y - mean gamma r / s_y + z_y
    /// ```
    /// in f64, `a` and `b` then rounded to f32, and the integers mapped as by
    /// [`Kernels::int8_rescale`]. `scratch` holds two numbers per channel.
    #[expect(
        clippy::too_many_arguments,
        reason = "one slice for each operand of a formula"
    )]
    pub fn int8_norm(
        &self,
        n: &Norm,
        rows: usize,
        x: &[u8],
        from: Affine,
        gamma: &[f32],
        beta: &[f32],
        affine: Affine,
        to: Rescale,
        y: &mut [u8],
        scratch: &mut [f32],
    ) {
        let len = n.example_len();
        need("x", x, rows.saturating_mul(len));
        need("y", y, rows.saturating_mul(len));
        need("gamma", gamma, n.channels);
        need("beta", beta, n.channels);
        need("the scratch", scratch, 2 * n.channels);
        let width = n.channels / n.groups;
        let count = (n.positions * width) as f64;
        let (scale, out) = (f64::from(from.scale), f64::from(affine.scale));
        let (a, b) = scratch[..2 * n.channels].split_at_mut(n.channels);
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)).take(rows) {
            for group in 0..n.groups {
                let first = group * width;
                let (mut sum, mut squares) = (0u64, 0u64);
                for position in x.chunks_exact(n.channels) {
                    for part in position[first..first + width].chunks(1 << 12) {
                        // Below 2^32 for so few.
                        let (mut s, mut q) = (0u32, 0u32);
                        for x in part {
                            let x = u32::from(*x);
                            s += x;
                            q += x * x;
                        }
                        sum += u64::from(s);
                        squares += u64::from(q);
                    }
                }
                // Exact: whole numbers below 2^90 in u128.
                let spread = u128::from(squares) * (n.positions * width) as u128
                    - u128::from(sum) * u128::from(sum);
                let mean = sum as f64 / count;
                let variance = spread as f64 / (count * count);
                let root = libm::sqrt(scale * scale * variance + f64::from(n.epsilon));
                for channel in first..first + width {
                    let factor = f64::from(gamma[channel]) * (scale / root) / out;
                    let shift = f64::from(beta[channel]) / out - mean * factor;
                    a[channel] = factor as f32;
                    b[channel] = (shift + f64::from(affine.zero_point)) as f32;
                }
            }
            for (x, y) in x
                .chunks_exact(n.channels)
                .zip(y.chunks_exact_mut(n.channels))
            {
                rescale(x, a, b, to, y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the float kernel on the numbers that the integers stand for.
    #[test]
    fn norm_is_the_float_norm_within_a_step() {
        let (rows, positions, channels, groups) = (2, 9, 6, 2);
        let n = Norm::new(positions, channels, groups, 1e-5).expect("a shape");
        let len = rows * n.example_len();
        let x = (0..len)
            .map(|i| ((i * 73 + i / 7) % 251) as u8)
            .collect::<Vec<_>>();
        let gamma = [1.0f32, -0.5, 2.0, 0.3, 1.5, 0.7];
        let beta = [0.1f32, 0.0, -1.0, 0.5, 0.2, 3.0];
        let from = Affine {
            scale: 0.02,
            zero_point: 117,
        };
        let to = Affine {
            scale: 0.03,
            zero_point: 100,
        };
        let k = Kernels::best();
        let (mut real, mut expected) = (vec![0.0; len], vec![0.0; len]);
        k.int8_dequantize(from, &x, &mut real);
        let (mut stats, mut scratch) = (vec![0.0; rows * n.stats_len()], vec![0.0; 2 * channels]);
        k.norm(
            &n,
            rows,
            &real,
            &gamma,
            &beta,
            &mut expected,
            &mut stats,
            &mut scratch,
        );
        let mut y = vec![0; len];
        for (low, high) in [(0, 255), (100, 200)] {
            let bounds = Rescale { low, high };
            k.int8_norm(
                &n,
                rows,
                &x,
                from,
                &gamma,
                &beta,
                to,
                bounds,
                &mut y,
                &mut scratch,
            );
            let mut off = 0;
            for (y, expected) in y.iter().zip(&expected) {
                let expected = to.quantize(*expected).clamp(low, high);
                assert!(y.abs_diff(expected) <= 1, "{y} for {expected}");
                off += usize::from(*y != expected);
            }
            assert!(off * 50 <= len, "{off} of {len} on the other side of a tie");
        }
    }
}
