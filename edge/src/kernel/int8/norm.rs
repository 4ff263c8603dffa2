//! Normalisations between u8 tensors, without going through a tensor of floats.

use super::super::Kernels;
use super::super::geometry::Norm;
use super::level::tiered;
use super::need;
use super::portable::{bound, round_even};
use super::seal::by_scale;
use super::tile::Tier;
use super::types::Affine;

/// Where the integers of an affine map per channel go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// Smallest output.
    pub low: u8,
    /// Largest output, at least `low`.
    pub high: u8,
}

/// What normalises a group of integers at scale `s`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// The mean of the integers.
    pub mean: f64,
    /// `s / sqrt(s² variance + epsilon)`: what a step away from the mean is worth, normalised.
    pub factor: f64,
}

impl Moments {
    /// Mean and reciprocal deviation of the real numbers, as [`Kernels::norm_dx`] wants them.
    #[must_use]
    pub fn stats(self, from: Affine) -> [f32; 2] {
        let scale = f64::from(from.scale);
        let mean = (self.mean - f64::from(from.zero_point)) * scale;
        [mean as f32, (self.factor / scale) as f32]
    }
}

/// What the backward pass of a rounding needs, filled by [`Kernels::int8_norm_through`] and
/// [`Kernels::int8_quantize_through`].
#[derive(Debug)]
pub struct Through<'a> {
    /// Outputs whose real number is at the lower end or below pass no gradient on: 0 after a relu;
    /// minus infinity without a clamp.
    pub above: f32,
    /// The same at the upper end: 6 after a relu6; infinity without.
    pub below: f32,
    /// Receives 1 where an output passes its gradient on, else 0: where the rounded number was in
    /// `0 ..= 255` before it was cut to that, and the clamp passes it.
    pub mask: &'a mut [u8],
    /// Receives the derivative of every dequantized output by its scale.
    ///
    /// # Source
    /// Esser et al. 2020 (LSQ), arXiv:1902.08153, equation 3.
    pub derivative: Option<&'a mut [f32]>,
}

/// Channels whose sums are held at once.
const CHUNK: usize = 64;
/// Positions whose sums of squares fit into a u32: `2^16 * 255^2 < 2^32`.
const POSITIONS: usize = 1 << 16;

/// Sums and sums of squares of up to [`CHUNK`] channels from `first` on, over all positions of
/// `x[positions, channels]`; exact.
#[inline(always)]
fn channel_sums(x: &[u8], channels: usize, first: usize, len: usize) -> [[u64; CHUNK]; 2] {
    let mut totals = [[0u64; CHUNK]; 2];
    for part in x.chunks(POSITIONS * channels) {
        let mut sums = [[0u32; CHUNK]; 2];
        let [plain, squares] = &mut sums;
        for position in part.chunks_exact(channels) {
            let x = &position[first..first + len];
            let each = x.iter().zip(&mut *plain).zip(&mut *squares);
            for ((x, plain), squares) in each {
                let x = u32::from(*x);
                *plain += x;
                *squares += x * x;
            }
        }
        for (totals, sums) in totals.iter_mut().zip(&sums) {
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total += u64::from(*sum);
            }
        }
    }
    totals
}

/// Gives the moments of each group of one example, in order.
#[inline(always)]
fn each_group(n: &Norm, x: &[u8], scale: f64, mut give: impl FnMut(usize, Moments)) {
    let width = n.channels / n.groups;
    let count = (n.positions * width) as f64;
    let (mut sum, mut squares) = (0u64, 0u64);
    for first in (0..n.channels).step_by(CHUNK) {
        let len = CHUNK.min(n.channels - first);
        let totals = channel_sums(x, n.channels, first, len);
        for (channel, (s, q)) in (first..first + len).zip(totals[0].iter().zip(&totals[1])) {
            sum += s;
            squares += q;
            if !(channel + 1).is_multiple_of(width) {
                continue;
            }
            // Exact: whole numbers below 2^90 in u128.
            let spread = u128::from(squares) * (n.positions * width) as u128
                - u128::from(sum) * u128::from(sum);
            let variance = spread as f64 / (count * count);
            let root = libm::sqrt(scale * scale * variance + f64::from(n.epsilon));
            let moments = Moments {
                mean: sum as f64 / count,
                factor: scale / root,
            };
            give(channel / width, moments);
            (sum, squares) = (0, 0);
        }
    }
}

/// The affine map of a group's channels: from integers to steps of the output.
pub(super) struct Maps<'a> {
    gamma: &'a [f32],
    beta: &'a [f32],
    affine: Affine,
    a: &'a mut [f32],
    b: &'a mut [f32],
}

impl Maps<'_> {
    #[inline(always)]
    fn set(&mut self, group: usize, width: usize, moments: Moments) {
        let out = f64::from(self.affine.scale);
        for channel in group * width..(group + 1) * width {
            let factor = f64::from(self.gamma[channel]) * moments.factor / out;
            let shift = f64::from(self.beta[channel]) / out - moments.mean * factor;
            self.a[channel] = factor as f32;
            self.b[channel] = (shift + f64::from(self.affine.zero_point)) as f32;
        }
    }
}

/// `y = clamp(rne(x * a + b), low, high)` of one row of channels; product and sum rounded once
/// each.
#[inline(always)]
fn rescale_row<T: Tier>(t: T, x: &[u8], a: &[f32], b: &[f32], to: Rescale, y: &mut [u8]) {
    let (low, high) = (t.splat_f(f32::from(to.low)), t.splat_f(f32::from(to.high)));
    let one = t.splat_f(1.0);
    let maps = a.chunks(16).zip(b.chunks(16));
    for ((x, y), (a, b)) in x.chunks(16).zip(y.chunks_mut(16)).zip(maps) {
        let n = y.len().min(x.len()).min(a.len()).min(b.len());
        // SAFETY: every chunk holds `n` elements.
        unsafe {
            let x = t.to_f(t.load_u8(x.as_ptr(), n));
            let product = t.mul_f(x, t.load_f(a.as_ptr(), n));
            // A fused product with 1 is a sum rounded once.
            let steps = t.fma_f(product, one, t.load_f(b.as_ptr(), n));
            // The maximum first: it turns NaN into its second operand.
            let steps = t.min_f(t.max_f(steps, low), high);
            t.store_u8(y.as_mut_ptr(), n, t.round(steps));
        }
    }
}

tiered! {
    fn rescale(t, x: &[u8], a: &[f32], b: &[f32], to: Rescale, y: &mut [u8]) {
        let channels = a.len().max(1);
        for (x, y) in x.chunks(channels).zip(y.chunks_mut(channels)) {
            rescale_row(t, x, a, b, to, y);
        }
    }

    fn norm(
        t, n: &Norm, rows: usize, x: &[u8], from: Affine, maps: Maps<'_>, to: Rescale,
        y: &mut [u8],
    ) {
        let (len, mut maps) = (n.example_len(), maps);
        let width = n.channels / n.groups;
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)).take(rows) {
            each_group(n, x, f64::from(from.scale), |group, moments| {
                maps.set(group, width, moments);
            });
            for (x, y) in x.chunks_exact(n.channels).zip(y.chunks_exact_mut(n.channels)) {
                rescale_row(t, x, maps.a, maps.b, to, y);
            }
        }
    }

    fn moments(t, n: &Norm, rows: usize, x: &[u8], from: Affine, moments: &mut [Moments]) {
        let _ = t;
        let len = n.example_len();
        let of = x.chunks_exact(len).zip(moments.chunks_exact_mut(n.groups));
        for (x, moments) in of.take(rows) {
            each_group(n, x, f64::from(from.scale), |group, found| moments[group] = found);
        }
    }

    fn ends(
        t, n: &Norm, rows: usize, x: &[u8], moments: &[Moments], gamma: &[f32], beta: &[f32],
        ends: &mut [f32; 2],
    ) {
        let _ = t;
        let (len, width) = (n.example_len(), n.channels / n.groups);
        let [least, most] = ends;
        let of = x.chunks_exact(len).zip(moments.chunks_exact(n.groups));
        for (x, moments) in of.take(rows) {
            for first in (0..n.channels).step_by(CHUNK) {
                let count = CHUNK.min(n.channels - first);
                let (mut low, mut high) = ([u8::MAX; CHUNK], [0u8; CHUNK]);
                for position in x.chunks_exact(n.channels) {
                    let x = &position[first..first + count];
                    for ((x, low), high) in x.iter().zip(&mut low).zip(&mut high) {
                        *low = (*low).min(*x);
                        *high = (*high).max(*x);
                    }
                }
                let bytes = low.into_iter().zip(high);
                for (channel, (low, high)) in (first..first + count).zip(bytes) {
                    let of = moments[channel / width];
                    let factor = f64::from(gamma[channel]) * of.factor;
                    for x in [low, high] {
                        let away = f64::from(x) - of.mean;
                        let y = (away * factor + f64::from(beta[channel])) as f32;
                        // A NaN compares false and is passed over.
                        *least = if y < *least { y } else { *least };
                        *most = if y > *most { y } else { *most };
                    }
                }
            }
        }
    }

    fn through(
        t, n: &Norm, rows: usize, x: &[u8], moments: &[Moments], maps: Maps<'_>, to: Rescale,
        y: &mut [u8], out: Through<'_>,
    ) {
        let _ = t;
        let (len, mut maps) = (n.example_len(), maps);
        let width = n.channels / n.groups;
        let zero = f32::from(maps.affine.zero_point);
        let (above, below) = (out.above / maps.affine.scale, out.below / maps.affine.scale);
        let (low, high) = (i32::from(to.low), i32::from(to.high));
        let (mask, mut derivative) = (out.mask, out.derivative);
        for row in 0..rows {
            let here = row * len..(row + 1) * len;
            let (x, y, mask) = (&x[here.clone()], &mut y[here.clone()], &mut mask[here.clone()]);
            for (group, moments) in moments[row * n.groups..][..n.groups].iter().enumerate() {
                maps.set(group, width, *moments);
            }
            let places = y.chunks_exact_mut(n.channels).zip(mask.chunks_exact_mut(n.channels));
            for (x, (y, mask)) in x.chunks_exact(n.channels).zip(places) {
                let numbers = x.iter().zip(&*maps.a).zip(&*maps.b);
                for ((y, mask), ((x, a), b)) in y.iter_mut().zip(mask).zip(numbers) {
                    let steps = f32::from(*x) * a + b;
                    let rounded = round_even(bound(steps, -1e6, 1e6));
                    *y = rounded.max(low).min(high) as u8;
                    let inside = (0..=255).contains(&rounded);
                    let steps = steps - zero;
                    *mask = u8::from(inside & (steps > above) & (steps < below));
                }
            }
            let Some(derivative) = &mut derivative else { continue };
            let derivative = derivative[here].chunks_exact_mut(n.channels);
            for (x, derivative) in x.chunks_exact(n.channels).zip(derivative) {
                let numbers = x.iter().zip(&*maps.a).zip(&*maps.b);
                for (to, ((x, a), b)) in derivative.iter_mut().zip(numbers) {
                    let steps = f32::from(*x) * a + b - zero;
                    *to = by_scale(bound(steps, above, below), zero);
                }
            }
        }
    }
}

impl Kernels {
    /// An affine map per channel of `x[rows * positions, channels]`:
    /// `clamp(rne(x * a + b), low, high)`, product and sum rounded once each: a batch
    /// normalisation by running statistics.
    pub fn int8_rescale(&self, x: &[u8], a: &[f32], b: &[f32], to: Rescale, y: &mut [u8]) {
        need("y", y, x.len());
        rescale(self.integers, x, a, b, to, y);
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
        let len = rows.saturating_mul(n.example_len());
        need("x", x, len);
        need("y", y, len);
        let maps = maps(n, gamma, beta, affine, scratch);
        let (n, rows) = n.parts(rows);
        norm(self.integers, &n, rows, x, from, maps, to, y);
    }

    /// The moments of [`Kernels::int8_norm`]: `moments[rows, groups]`.
    pub fn int8_norm_moments(
        &self,
        n: &Norm,
        rows: usize,
        x: &[u8],
        from: Affine,
        to: &mut [Moments],
    ) {
        need("x", x, rows.saturating_mul(n.example_len()));
        need("the moments", to, rows.saturating_mul(n.repeats * n.groups));
        let (n, rows) = n.parts(rows);
        moments(self.integers, &n, rows, x, from, to);
    }

    /// The smallest and the largest real number that [`Kernels::int8_norm`] rounds, before a
    /// clamp, given its moments; `[0, 0]` where none is a number.
    #[must_use]
    pub fn int8_norm_range(
        &self,
        n: &Norm,
        rows: usize,
        x: &[u8],
        moments: &[Moments],
        gamma: &[f32],
        beta: &[f32],
    ) -> [f32; 2] {
        need("x", x, rows.saturating_mul(n.example_len()));
        need(
            "the moments",
            moments,
            rows.saturating_mul(n.repeats * n.groups),
        );
        need("gamma", gamma, n.channels);
        need("beta", beta, n.channels);
        let mut found = [f32::INFINITY, f32::NEG_INFINITY];
        let (n, rows) = n.parts(rows);
        ends(self.integers, &n, rows, x, moments, gamma, beta, &mut found);
        if found[0] > found[1] { [0.0; 2] } else { found }
    }

    /// [`Kernels::int8_norm`] by its moments, with what its backward pass needs.
    #[expect(
        clippy::too_many_arguments,
        reason = "one slice for each operand of a formula"
    )]
    pub fn int8_norm_through(
        &self,
        n: &Norm,
        rows: usize,
        x: &[u8],
        moments: &[Moments],
        gamma: &[f32],
        beta: &[f32],
        affine: Affine,
        to: Rescale,
        y: &mut [u8],
        out: Through<'_>,
        scratch: &mut [f32],
    ) {
        let len = rows.saturating_mul(n.example_len());
        need("x", x, len);
        need("y", y, len);
        need(
            "the moments",
            moments,
            rows.saturating_mul(n.repeats * n.groups),
        );
        need("the mask", out.mask, len);
        if let Some(derivative) = &out.derivative {
            need("the derivative", derivative, len);
        }
        let maps = maps(n, gamma, beta, affine, scratch);
        let (n, rows) = n.parts(rows);
        through(self.integers, &n, rows, x, moments, maps, to, y, out);
    }
}

fn maps<'a>(
    n: &Norm,
    gamma: &'a [f32],
    beta: &'a [f32],
    affine: Affine,
    scratch: &'a mut [f32],
) -> Maps<'a> {
    need("gamma", gamma, n.channels);
    need("beta", beta, n.channels);
    need("the scratch", scratch, 2 * n.channels);
    let (a, b) = scratch[..2 * n.channels].split_at_mut(n.channels);
    Maps {
        gamma,
        beta,
        affine,
        a,
        b,
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

    /// The integers of the formula in the documentation of `int8_norm`, by plain loops in f64.
    fn by_definition(
        n: &Norm,
        x: &[u8],
        from: Affine,
        [gamma, beta]: [&[f32]; 2],
        to: Affine,
    ) -> Vec<f64> {
        let width = n.channels / n.groups;
        let mut steps = vec![0.0; x.len()];
        for row in 0..x.len() / n.example_len() {
            for channel in 0..n.channels {
                let group = channel / width;
                let at = |position: usize, channel: usize| {
                    (row * n.positions + position) * n.channels + channel
                };
                let channels = || group * width..(group + 1) * width;
                let all = (0..n.positions).flat_map(|p| channels().map(move |c| (p, c)));
                let all = all.map(|(p, c)| u64::from(x[at(p, c)])).collect::<Vec<_>>();
                let count = all.len() as u64;
                let sum = all.iter().sum::<u64>();
                let spread = count * all.iter().map(|q| q * q).sum::<u64>() - sum * sum;
                let (count, scale) = (count as f64, f64::from(from.scale));
                let variance = spread as f64 / (count * count);
                let r = scale / (scale * scale * variance + f64::from(n.epsilon)).sqrt();
                let a = f64::from(gamma[channel]) * r / f64::from(to.scale);
                let b = f64::from(beta[channel]) / f64::from(to.scale) - sum as f64 / count * a;
                let (a, b) = (a as f32, (b + f64::from(to.zero_point)) as f32);
                for position in 0..n.positions {
                    let at = at(position, channel);
                    steps[at] = f64::from(f32::from(x[at]) * a + b);
                }
            }
        }
        steps
    }

    /// Every tier against the definition: codes, the range, mask and derivative, in groups narrower
    /// and wider than what is summed at once.
    #[test]
    fn every_tier_normalises_by_the_definition() {
        for (positions, channels, groups) in [(9, 6, 2), (1, 200, 1), (5, 150, 3), (16, 16, 8)] {
            let n = Norm::new(positions, channels, groups, 1e-5).expect("a shape");
            let rows = 3;
            let len = rows * n.example_len();
            let x = (0..len)
                .map(|i| ((i * 73 + i / 7 * 31) % 251) as u8)
                .collect::<Vec<_>>();
            let gamma = (0..channels)
                .map(|c| (c % 7) as f32 * 0.4 - 0.9)
                .collect::<Vec<_>>();
            let beta = (0..channels)
                .map(|c| (c % 5) as f32 * 0.3 - 0.5)
                .collect::<Vec<_>>();
            let from = Affine {
                scale: 0.02,
                zero_point: 117,
            };
            let to = Affine {
                scale: 0.011,
                zero_point: 90,
            };
            let steps = by_definition(&n, &x, from, [&gamma, &beta], to);
            let real = |steps: f64| (steps - 90.0) * f64::from(to.scale);
            let clamps = [
                (f32::NEG_INFINITY, f32::INFINITY, 0, 255),
                (0.0, f32::INFINITY, 90, 255),
                (0.0, 1.1, 90, 190),
            ];
            for kernels in Kernels::all_available() {
                let mut moments = vec![Moments::default(); rows * groups];
                kernels.int8_norm_moments(&n, rows, &x, from, &mut moments);
                let [least, most] = kernels.int8_norm_range(&n, rows, &x, &moments, &gamma, &beta);
                let ends = steps
                    .iter()
                    .fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], s| {
                        [a.min(real(*s)), b.max(real(*s))]
                    });
                for (found, expected) in [least, most].into_iter().zip(ends) {
                    assert!((f64::from(found) - expected).abs() < 1e-5 * expected.abs());
                }
                for (above, below, low, high) in clamps {
                    let bounds = Rescale { low, high };
                    let mut scratch = vec![0.0; n.scratch_len()];
                    let (mut y, mut again) = (vec![0; len], vec![0; len]);
                    let (mut mask, mut derivative) = (vec![9; len], vec![9.0; len]);
                    kernels.int8_norm(
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
                    let out = Through {
                        above,
                        below,
                        mask: &mut mask,
                        derivative: Some(&mut derivative),
                    };
                    kernels.int8_norm_through(
                        &n,
                        rows,
                        &x,
                        &moments,
                        &gamma,
                        &beta,
                        to,
                        bounds,
                        &mut again,
                        out,
                        &mut scratch,
                    );
                    assert_eq!(y, again);
                    let (mut open, mut shut) = (0, 0);
                    for (at, steps) in steps.iter().enumerate() {
                        let rounded = steps.round_ties_even();
                        assert_eq!(
                            i64::from(y[at]),
                            rounded.clamp(f64::from(low), f64::from(high)) as i64
                        );
                        let v = real(*steps);
                        let passes = (0.0..=255.0).contains(&rounded)
                            && v > f64::from(above)
                            && v < f64::from(below);
                        assert_eq!(mask[at], u8::from(passes), "{steps}");
                        open += usize::from(passes);
                        shut += usize::from(!passes);
                        let scale = f64::from(to.scale);
                        let v = v.clamp(f64::from(above), f64::from(below)) / scale;
                        let expected = match v.round_ties_even() {
                            under if under < -90.0 => -90.0,
                            over if over > 165.0 => 165.0,
                            inside => inside - v,
                        };
                        assert!((f64::from(derivative[at]) - expected).abs() < 1e-4);
                    }
                    assert!(open > 0 && shut > 0, "{above} {below}: {open} {shut}");
                }
            }
        }
    }

    /// The moments as the float kernels keep them.
    #[test]
    fn moments_are_the_float_statistics() {
        let n = Norm::new(4, 3, 1, 1e-5).expect("a shape");
        let x = [3u8, 9, 200, 4, 77, 12, 255, 0, 31, 8, 64, 5];
        let from = Affine {
            scale: 0.05,
            zero_point: 40,
        };
        let k = Kernels::best();
        let mut moments = [Moments::default()];
        k.int8_norm_moments(&n, 1, &x, from, &mut moments);
        let mut real = [0.0; 12];
        k.int8_dequantize(from, &x, &mut real);
        let (mut y, mut stats, mut scratch) = ([0.0; 12], [0.0; 2], [0.0; 12]);
        let (gamma, beta) = ([1.0; 3], [0.0; 3]);
        k.norm(
            &n,
            1,
            &real,
            &gamma,
            &beta,
            &mut y,
            &mut stats,
            &mut scratch,
        );
        let found = moments[0].stats(from);
        for (found, expected) in found.into_iter().zip(stats) {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs(),
                "{found} {expected}"
            );
        }
    }
}
