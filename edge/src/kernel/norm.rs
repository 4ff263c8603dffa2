//! Group and layer normalisation.
//!
//! Sums over a group are taken channel by channel over ascending positions, then over ascending
//! channels: a fixed tree that does not depend on the vector width. The variance is the mean
//! squared distance from the mean (two passes).

use super::geometry::Norm;
use super::simd::{Simd, map, vectorized};
use super::{Kernels, need};

/// Adds `channels` per-channel sums of one group in order.
#[inline(always)]
fn group_sum(sums: &[f32]) -> f32 {
    let mut total = 0.0f32;
    for &sum in sums {
        total += sum;
    }
    total
}

/// Replaces each channel's number by its group's, spread over the channels.
#[inline(always)]
fn spread(n: &Norm, per_channel: &mut [f32], mut value: impl FnMut(usize, &[f32]) -> f32) {
    let width = n.channels / n.groups;
    for (group, sums) in per_channel[..n.channels]
        .chunks_exact_mut(width)
        .enumerate()
    {
        let shared = value(group, sums);
        sums.fill(shared);
    }
}

/// Each group's mean and factor, spread over its channels.
#[inline(always)]
fn spread_stats(n: &Norm, stats: &[f32], means: &mut [f32], factors: &mut [f32]) {
    let width = n.channels / n.groups;
    let groups = means
        .chunks_exact_mut(width)
        .zip(factors.chunks_exact_mut(width));
    for ((means, factors), stats) in groups.zip(stats.chunks_exact(2)) {
        means.fill(stats[0]);
        factors.fill(stats[1]);
    }
}

/// Mean and factor of every group of one example, spread over its channels; `stats` receives them
/// as they are.
#[inline(always)]
fn statistics<V: Simd>(
    v: V,
    n: &Norm,
    x: &[f32],
    means: &mut [f32],
    factors: &mut [f32],
    stats: &mut [f32],
) {
    let channels = n.channels;
    let inverse = 1.0 / (n.positions * channels / n.groups) as f32;
    means.fill(0.0);
    for x in x.chunks_exact(channels) {
        map!(v, channels; a = x, s = means; {} means => v.add(s, a));
    }
    spread(n, means, |group, sums| {
        stats[2 * group] = group_sum(sums) * inverse;
        stats[2 * group]
    });
    factors.fill(0.0);
    for x in x.chunks_exact(channels) {
        map!(v, channels; a = x, m = means, s = factors; {
            let d = v.sub(a, m);
        } factors => v.fma(d, d, s));
    }
    spread(n, factors, |group, sums| {
        let variance = group_sum(sums) * inverse;
        stats[2 * group + 1] = 1.0 / libm::sqrtf(variance + n.epsilon);
        stats[2 * group + 1]
    });
}

vectorized! {
    fn norm(
        v,
        n: &Norm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        y: &mut [f32],
        stats: &mut [f32],
        scratch: &mut [f32],
    ) {
        let channels = n.channels;
        let (means, factors) = scratch[..2 * channels].split_at_mut(channels);
        for row in 0..rows {
            let x = &x[row * n.example_len()..][..n.example_len()];
            let y = &mut y[row * n.example_len()..][..n.example_len()];
            let stats = &mut stats[row * n.stats_len()..][..n.stats_len()];
            statistics(v, n, x, means, factors, stats);
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                map!(v, channels; a = x, m = means, r = factors, g = gamma, b = beta; {}
                    y => v.fma(v.mul(v.sub(a, m), r), g, b));
            }
        }
    }

    /// Of what lies in `y`.
    fn norm_in_place(
        v,
        n: &Norm,
        rows: usize,
        gamma: &[f32],
        beta: &[f32],
        y: &mut [f32],
        stats: &mut [f32],
        scratch: &mut [f32],
    ) {
        let channels = n.channels;
        let (means, factors) = scratch[..2 * channels].split_at_mut(channels);
        for row in 0..rows {
            let y = &mut y[row * n.example_len()..][..n.example_len()];
            let stats = &mut stats[row * n.stats_len()..][..n.stats_len()];
            statistics(v, n, y, means, factors, stats);
            for y in y.chunks_exact_mut(channels) {
                map!(v, channels; a = y, m = means, r = factors, g = gamma, b = beta; {}
                    y => v.fma(v.mul(v.sub(a, m), r), g, b));
            }
        }
    }

    fn norm_dx(
        v,
        n: &Norm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        stats: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        scratch: &mut [f32],
    ) {
        // With h = (x - mean) r and u = dy gamma:
        // dx = r (u - mean(u) - h mean(u h)), means over the group.
        let channels = n.channels;
        let inverse = 1.0 / (n.positions * channels / n.groups) as f32;
        let (sums, stats_of) = scratch[..4 * channels].split_at_mut(2 * channels);
        let (plain, along) = sums.split_at_mut(channels);
        let (means, factors) = stats_of.split_at_mut(channels);
        for row in 0..rows {
            let x = &x[row * n.example_len()..][..n.example_len()];
            let dy = &dy[row * n.example_len()..][..n.example_len()];
            let dx = &mut dx[row * n.example_len()..][..n.example_len()];
            spread_stats(n, &stats[row * n.stats_len()..], means, factors);
            plain.fill(0.0);
            along.fill(0.0);
            for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                map!(v, channels; a = x, d = dy, g = gamma, m = means, r = factors, p = plain, q = along; {
                    let u = v.mul(d, g);
                    let h = v.mul(v.sub(a, m), r);
                } plain => v.add(p, u), along => v.fma(u, h, q));
            }
            spread(n, plain, |_, sums| group_sum(sums) * inverse);
            spread(n, along, |_, sums| group_sum(sums) * inverse);
            for ((x, dy), dx) in x
                .chunks_exact(channels)
                .zip(dy.chunks_exact(channels))
                .zip(dx.chunks_exact_mut(channels))
            {
                map!(v, channels; a = x, d = dy, g = gamma, m = means, r = factors, p = plain, q = along; {
                    let u = v.mul(d, g);
                    let h = v.mul(v.sub(a, m), r);
                    let t = v.sub(v.sub(u, p), v.mul(h, q));
                } dx => v.mul(r, t));
            }
        }
    }

    fn norm_dparameters(
        v,
        n: &Norm,
        rows: usize,
        x: &[f32],
        stats: &[f32],
        dy: &[f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
        write: super::Write,
    ) {
        let channels = n.channels;
        let width = channels / n.groups;
        if write == super::Write::Store {
            dgamma[..channels].fill(0.0);
            dbeta[..channels].fill(0.0);
        }
        let (mut means, mut factors) = ([0.0f32; 64], [0.0f32; 64]);
        for first in (0..channels).step_by(means.len()) {
            let len = means.len().min(channels - first);
            let dgamma = &mut dgamma[first..first + len];
            let dbeta = &mut dbeta[first..first + len];
            for row in 0..rows {
                let x = &x[row * n.example_len()..][..n.example_len()];
                let dy = &dy[row * n.example_len()..][..n.example_len()];
                let stats = &stats[row * n.stats_len()..][..n.stats_len()];
                let places = means.iter_mut().zip(&mut factors).take(len);
                for (channel, (mean, factor)) in (first..).zip(places) {
                    let group = channel / width;
                    (*mean, *factor) = (stats[2 * group], stats[2 * group + 1]);
                }
                for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                    let (x, dy) = (&x[first..first + len], &dy[first..first + len]);
                    map!(v, len; a = x, d = dy, m = means, r = factors, p = dgamma, q = dbeta; {
                        let h = v.mul(v.sub(a, m), r);
                    } dgamma => v.fma(d, h, p), dbeta => v.add(q, d));
                }
            }
        }
    }
}

impl Kernels {
    /// [`Kernels::norm`] of what lies in `y`, which becomes the output, to the same bits.
    pub fn norm_in_place(
        &self,
        n: &Norm,
        rows: usize,
        gamma: &[f32],
        beta: &[f32],
        y: &mut [f32],
        stats: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("gamma", gamma, n.channels);
        need("beta", beta, n.channels);
        need("y", y, rows.saturating_mul(n.example_len()));
        need("stats", stats, rows.saturating_mul(n.stats_len()));
        need("the scratch", scratch, 2 * n.channels);
        let (n, rows) = n.parts(rows);
        norm_in_place(self.isa, &n, rows, gamma, beta, y, stats, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kernels, Norm};

    #[test]
    fn normalisation_against_f64() {
        let (positions, channels, groups) = (7, 6, 3);
        let n = Norm::new(positions, channels, groups, 1e-3).expect("a valid shape");
        let x: Vec<f32> = (0..42)
            .map(|i| ((i * 17) % 23) as f32 * 0.3 - 2.0)
            .collect();
        let gamma = [1.0, 0.5, 2.0, -1.0, 0.0, 3.0];
        let beta = [0.0, 1.0, -1.0, 0.5, 2.0, 0.0];
        let (mut y, mut stats) = (vec![0.0; 42], vec![0.0; n.stats_len()]);
        let mut scratch = vec![0.0; n.scratch_len()];
        Kernels::best().norm(&n, 1, &x, &gamma, &beta, &mut y, &mut stats, &mut scratch);
        for group in 0..groups {
            let of_group = |i: &usize| i % channels / 2 == group;
            let values: Vec<f64> = (0..42).filter(of_group).map(|i| f64::from(x[i])).collect();
            let mean = values.iter().sum::<f64>() / 14.0;
            let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 14.0;
            let r = 1.0 / libm::sqrt(variance + f64::from(1e-3f32));
            for i in (0..42).filter(of_group) {
                let channel = i % channels;
                let exact = (f64::from(x[i]) - mean) * r * f64::from(gamma[channel])
                    + f64::from(beta[channel]);
                assert!(
                    (f64::from(y[i]) - exact).abs() < 1e-5,
                    "{} for {exact}",
                    y[i]
                );
            }
        }
    }
}
