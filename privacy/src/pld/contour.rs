//! Compositions of normal mixtures without any lattice: Laplace inversion along a line.
//!
//! With `s = theta + i t` and `M(s) = prod E[exp(s L)]^n` the moment generating function of the
//! summed loss,
//! `delta(epsilon) = (1 / 2 pi) int M(s) exp(-s epsilon) / (s (s + 1)) dt` for any `theta > 0`
//! (Zhu, Dong and Wang 2022, arXiv 2106.08567, Section 4, on the line of Alghamdi et al. 2022). Both
//! this integral and that for `M` are integrals of analytic functions by the trapezoidal rule, whose
//! error falls exponentially. Every part of it has an explicit bound:
//!
//! - **in the outcome**: `2 I / (exp(2 pi d / step) - 1)` with `I` the integral of the magnitude of
//!   the integrand along the lines at distance `d` from the axis (Trefethen and Weideman 2014,
//!   Theorem 5.1), in whose strip the mixtures have no zero;
//! - **in the frequency**: the sum over all frequencies is, by Poisson's formula, that of
//!   `exp(theta k P) delta(epsilon + k P)` over all integers `k` with `P = 2 pi / step`: only too
//!   large, and by an amount that Chernoff's bound limits;
//! - **beyond the last frequency**: van der Corput's lemma. Where the slope of the loss is above a
//!   threshold, the oscillating integral is at most the total variation of density over slope,
//!   divided by the frequency; elsewhere at most the mass;
//! - **rounding** of phases, sums and powers.

use core::f64::consts::PI;

use super::compose::Question;
use super::lattice::Sketch;
use super::law::{Law, NormalPair, Smooth};
use super::single::single;
use super::spectrum::power;
use super::tilt::Plan;

/// Logarithm of a neglected part, relative to what is kept.
const LN_NEGLECT: f64 = -37.0;
/// The same for frequencies beyond the last, where it is not multiplied by the number of steps.
const LN_BEYOND: f64 = -25.0;
/// Distance from a centre, in standard deviations, beyond which nothing is left.
const REACH: f64 = 9.5;
/// Most products of nodes and frequencies: beyond, the lattice is quicker.
const MOST_WORK: f64 = 6e7;
/// Phases are computed anew after so many turns.
const FRESH: usize = 64;

/// One law's tilted density on a coarse grid.
struct Profile<'a> {
    pair: &'a NormalPair,
    many: f64,
    low: f64,
    high: f64,
    spacing: f64,
    /// Tilted density, not normalised, relative to `exp(top)`.
    density: Vec<f64>,
    slope: Vec<f64>,
    top: f64,
    mass: f64,
}

impl<'a> Profile<'a> {
    fn new(pair: &'a NormalPair, many: f64, theta: f64) -> Option<Self> {
        let extent = pair.extent();
        let low = extent.low - REACH;
        let mut high = extent.high + REACH;
        let steepest = if extent.falling {
            pair.slope(high)
        } else {
            extent.slope
        };
        high += theta * steepest;
        let spacing = 0.12 / (1.0 + 0.5 * extent.spread);
        let count = libm::ceil((high - low) / spacing);
        if count.is_nan() || count >= 20_000.0 {
            return None;
        }
        let smooth = Smooth::Normal(pair.clone());
        let mut exponents = Vec::with_capacity(count as usize + 1);
        let mut slope = Vec::with_capacity(count as usize + 1);
        for k in 0..=count as usize {
            let x = low + spacing * k as f64;
            let (loss, ln_density) = smooth.both(x);
            exponents.push(ln_density + theta * loss);
            slope.push(pair.slope(x));
        }
        let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let density: Vec<f64> = exponents.iter().map(|e| libm::exp(e - top)).collect();
        let mass = density.iter().sum::<f64>() * spacing;
        Some(Self {
            pair,
            many,
            low,
            high,
            spacing,
            density,
            slope,
            top,
            mass,
        })
    }

    /// The frequency from which on the law's transform, to its power, is below
    /// `exp(LN_BEYOND - extra)`.
    fn last_frequency(&self, extra: f64) -> f64 {
        let target = libm::exp((LN_BEYOND - extra) / self.many);
        let most = self.slope.iter().copied().fold(0.0, f64::max);
        let mut best = f64::INFINITY;
        for k in 1..40 {
            let threshold = most * libm::exp(-0.35 * f64::from(k));
            let (mut slow, mut variation, mut before) = (0.0, 0.0, 0.0);
            for (density, slope) in self.density.iter().zip(&self.slope) {
                let value = if *slope >= threshold {
                    density / slope
                } else {
                    slow += density;
                    0.0
                };
                variation += (value - before).abs();
                before = value;
            }
            variation += before;
            // The grid resolves the density to many digits; the factor is for its corners.
            let slow = (slow * self.spacing + 2.0 * self.spacing * 1e-3) / self.mass * 1.01;
            if slow < target {
                best = best.min(1.3 * variation / self.mass / (target - slow));
            }
        }
        best
    }

    /// Spacing of nodes at which the trapezoidal rule neglects `exp(LN_NEGLECT)` of the mass for
    /// frequencies up to `frequency`.
    fn node_spacing(&self, theta: f64, frequency: f64) -> f64 {
        let spread = self.pair.extent().spread;
        let widest = if spread > 0.0 {
            (0.97 * PI / spread).min(8.0)
        } else {
            8.0
        };
        let mut best = 0.0_f64;
        for share in [1.0, 0.75, 0.5, 0.35, 0.22, 0.14, 0.08, 0.04, 0.02, 0.01] {
            let distance = widest * share;
            let mut exponents = Vec::with_capacity(self.density.len() / 2 + 1);
            // Every second point of the grid is enough for a magnitude.
            for k in (0..self.density.len()).step_by(2) {
                let x = self.low + self.spacing * k as f64;
                let (loss, ln_density, turn) = self.pair.continued(x, distance);
                exponents.push(ln_density + theta * loss + frequency * turn.abs());
            }
            let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = exponents.iter().map(|e| libm::exp(e - top)).sum();
            let ln_magnitude =
                top - self.top + libm::log(4.0 * sum * 2.0 * self.spacing / self.mass);
            let spacing = 2.0 * PI * distance / (ln_magnitude.max(0.0) + 1.0 - LN_NEGLECT);
            best = best.max(spacing);
        }
        best
    }
}

/// Nodes of one law: normalised weights and losses.
struct Nodes {
    many: f64,
    count: u64,
    weights: Vec<f64>,
    losses: Vec<f64>,
    /// `ln E exp(theta L)`.
    cumulant: f64,
    magnitude: f64,
}

impl Nodes {
    fn new(profile: &Profile<'_>, count: u64, theta: f64, frequency: f64) -> Self {
        let spacing = profile.node_spacing(theta, frequency);
        let smooth = Smooth::Normal(profile.pair.clone());
        let points = libm::ceil((profile.high - profile.low) / spacing) as usize + 1;
        let (mut weights, mut losses) = (Vec::with_capacity(points), Vec::with_capacity(points));
        let mut magnitude = 1.0_f64;
        for k in 0..points {
            let x = profile.low + spacing * k as f64;
            let (loss, ln_density) = smooth.both(x);
            let weight = libm::exp(ln_density + theta * loss - profile.top);
            // What is below the others' rounding is left out.
            if weight > 1e-24 {
                weights.push(weight);
                losses.push(loss);
                magnitude = magnitude.max(x * x).max(loss.abs());
            }
        }
        let sum: f64 = weights.iter().sum();
        for weight in &mut weights {
            *weight /= sum;
        }
        Self {
            many: profile.many,
            count,
            weights,
            losses,
            cumulant: profile.top + libm::log(sum * spacing),
            magnitude,
        }
    }

    /// Calls `visit(j, re, im)` with the transform at `j step` for `j` up to `last`.
    fn transform(&self, step: f64, last: usize, mut visit: impl FnMut(usize, f64, f64)) {
        let points = self.weights.len().next_multiple_of(4);
        let mut phases = [vec![0.0; points], vec![0.0; points]];
        let mut turns = [vec![1.0; points], vec![0.0; points]];
        for (k, loss) in self.losses.iter().enumerate() {
            let (s, c) = libm::sincos(step * loss);
            turns[0][k] = c;
            turns[1][k] = s;
        }
        let [turn_re, turn_im] = &turns;
        let [re, im] = &mut phases;
        for j in 0..=last {
            if j.is_multiple_of(FRESH) {
                for (k, (weight, loss)) in self.weights.iter().zip(&self.losses).enumerate() {
                    let (s, c) = libm::sincos(j as f64 * step * loss);
                    re[k] = weight * c;
                    im[k] = weight * s;
                }
            }
            let (mut sums_re, mut sums_im) = ([0.0; 4], [0.0; 4]);
            let blocks = re
                .chunks_exact_mut(4)
                .zip(im.chunks_exact_mut(4))
                .zip(turn_re.chunks_exact(4).zip(turn_im.chunks_exact(4)));
            for ((re, im), (c, s)) in blocks {
                for lane in 0..4 {
                    let (x, y) = (re[lane], im[lane]);
                    sums_re[lane] += x;
                    sums_im[lane] += y;
                    re[lane] = x * c[lane] - y * s[lane];
                    im[lane] = x * s[lane] + y * c[lane];
                }
            }
            visit(
                j,
                (sums_re[0] + sums_re[1]) + (sums_re[2] + sums_re[3]),
                (sums_im[0] + sums_im[1]) + (sums_im[2] + sums_im[3]),
            );
        }
    }

    /// Bound of the error of a value of the transform.
    fn error(&self) -> f64 {
        let sum = f64::EPSILON * (self.weights.len() as f64 / 8.0 + 4.0);
        // Argument reduction and turning of the phases; neglected parts.
        sum + 4.0 * f64::EPSILON * FRESH as f64 + 4.0 * libm::exp(LN_NEGLECT)
    }
}

/// The integrand at equal steps of the frequency.
struct Line {
    theta: f64,
    step: f64,
    /// `M(theta + i t)`, relative to `exp(cumulant)`, over `s (s + 1)`.
    values: Vec<(f64, f64)>,
    cumulant: f64,
    /// Bound of what rounding and truncation add to the integral.
    slack: f64,
    /// Relative error from that of exponents.
    blur: f64,
    /// Rounding of the summed losses.
    shift: f64,
}

impl Line {
    fn new(laws: &[(&NormalPair, u64)], theta: f64, extra: f64, period: f64) -> Option<Self> {
        let profiles = laws
            .iter()
            .map(|(pair, count)| Profile::new(pair, *count as f64, theta))
            .collect::<Option<Vec<_>>>()?;
        // One law that has died down is enough.
        let end = profiles
            .iter()
            .map(|profile| profile.last_frequency(extra))
            .fold(f64::INFINITY, f64::min);
        let step = 2.0 * PI / period;
        let work: f64 = profiles
            .iter()
            .map(|profile| {
                // Before the exact spacing is known: a few nodes per turn of the steepest phase.
                let steepest = profile.slope.iter().copied().fold(0.0, f64::max);
                (profile.high - profile.low) * (3.0 + 0.2 * end * steepest) * end / step
            })
            .sum();
        if work.is_nan() || work >= MOST_WORK {
            return None;
        }
        let last = libm::ceil(end / step) as usize + 1;
        let mut values = vec![(1.0, 0.0); last + 1];
        let mut errors = vec![0.0; last + 1];
        let (mut cumulant, mut blur, mut shift) = (0.0, 0.0, 0.0);
        for (profile, (_, count)) in profiles.iter().zip(laws) {
            let nodes = Nodes::new(profile, *count, theta, last as f64 * step);
            if nodes.weights.len() as f64 * last as f64 > 4.0 * MOST_WORK {
                return None;
            }
            let error = nodes.error();
            let many = nodes.many;
            if many * error > 0.1 {
                return None;
            }
            let floor = libm::pow(1e-3, (many - 1.0).min(5.0));
            nodes.transform(step, last, |j, re, im| {
                let (r, i) = power(re, im, nodes.count);
                let (a, b) = values[j];
                values[j] = (a * r - b * i, a * i + b * r);
                let size = libm::sqrt(re * re + im * im);
                errors[j] += many
                    * error
                    * if size > 1e-3 {
                        1.2 * libm::sqrt(r * r + i * i) / size
                    } else {
                        floor
                    };
            });
            cumulant += many * nodes.cumulant;
            let rounding = 16.0 * f64::EPSILON * nodes.magnitude;
            blur += many
                * (rounding * (2.0 + theta)
                    + 4.0 * f64::EPSILON * nodes.cumulant.abs()
                    + 4.0 * libm::exp(LN_NEGLECT));
            shift += many * rounding;
        }
        // Beyond the last frequency: the integral of `1 / t^2`.
        let mut slack = libm::exp(LN_BEYOND - extra) / (PI * end.max(1e-3)) * 2.0;
        for (j, ((re, im), error)) in values.iter_mut().zip(&errors).enumerate() {
            let t = j as f64 * step;
            // s (s + 1)
            let (a, b) = (theta * (theta + 1.0) - t * t, t * (2.0 * theta + 1.0));
            let size = a * a + b * b;
            let (r, i) = (*re, *im);
            (*re, *im) = ((r * a + i * b) / size, (i * a - r * b) / size);
            let share = step / PI * if j == 0 { 0.5 } else { 1.0 };
            let rounding = 64.0 * f64::EPSILON * libm::sqrt(r * r + i * i);
            slack += share * (error + rounding) / libm::sqrt(size);
            *re *= share;
            *im *= share;
        }
        Some(Self {
            theta,
            step,
            values,
            cumulant,
            slack,
            blur,
            shift,
        })
    }

    /// The integral, and minus its derivative, both without the factor `exp(K - theta epsilon)`.
    fn integral(&self, epsilon: f64) -> (f64, f64) {
        let (mut value, mut slope) = (0.0, 0.0);
        let (turn_im, turn_re) = libm::sincos(-self.step * epsilon);
        let (mut c, mut s) = (1.0, 0.0);
        for (j, (re, im)) in self.values.iter().enumerate() {
            if j.is_multiple_of(FRESH) {
                (s, c) = libm::sincos(-(j as f64) * self.step * epsilon);
            }
            let (x, y) = (re * c - im * s, re * s + im * c);
            value += x;
            // times theta + i t
            slope += x * self.theta - y * self.step * j as f64;
            (c, s) = (c * turn_re - s * turn_im, c * turn_im + s * turn_re);
        }
        (value, slope)
    }

    fn ln_scale(&self, epsilon: f64) -> f64 {
        self.cumulant - self.theta * epsilon
    }

    /// Relative error of the scale.
    fn inflation(&self, epsilon: f64) -> f64 {
        libm::exp(
            self.blur
                + 16.0 * f64::EPSILON * (1.0 + self.cumulant.abs() + (self.theta * epsilon).abs()),
        )
    }

    fn upper(&self, epsilon: f64) -> f64 {
        let epsilon = epsilon - self.shift;
        let (value, _) = self.integral(epsilon);
        (value + self.slack).max(0.0) * libm::exp(self.ln_scale(epsilon)) * self.inflation(epsilon)
    }

    fn lower(&self, epsilon: f64, alias: f64) -> f64 {
        let epsilon = epsilon + self.shift;
        let (value, _) = self.integral(epsilon);
        (value - self.slack).max(0.0) * libm::exp(self.ln_scale(epsilon)) / self.inflation(epsilon)
            - alias
    }
}

/// Lower and upper bound of the answer, or `None` where this way is not the quicker one.
pub(crate) fn answer(laws: &[(Law, u64)], question: Question) -> Option<(f64, f64)> {
    let mut pairs = Vec::with_capacity(laws.len());
    for (law, count) in laws {
        match &law.smooth[..] {
            [(weight, Smooth::Normal(pair))]
                if *weight >= 1.0 && law.atoms.is_empty() && law.infinite <= 0.0 =>
            {
                pairs.push((pair, *count));
            }
            _ => return None,
        }
    }
    if let [(pair, 1)] = &pairs[..] {
        return Some(single(pair, question));
    }
    let mut plan = Plan::with(
        pairs.iter().map(|(pair, _)| Sketch::wide(pair)).collect(),
        pairs.iter().map(|(_, count)| *count).collect(),
        0.0,
        pairs
            .iter()
            .map(|(pair, _)| Sketch::most_tilt(pair))
            .fold(f64::INFINITY, f64::min),
        question,
    );
    let (mut epsilon, mut ln_delta) = match question {
        Question::Epsilon(delta) => (plan.epsilon.max(0.0), libm::log(delta)),
        Question::Delta(epsilon) => (epsilon, plan.ln_delta),
    };
    let mut best = None;
    for attempt in 0..2 {
        plan.shorten(epsilon, ln_delta);
        let theta = plan.theta;
        let [cumulant, ..] = plan.cumulant(theta);
        // How much larger the tilted mass is than what is looked for.
        let extra = (cumulant - theta * epsilon - ln_delta).max(0.0);
        if extra > 25.0 {
            return None;
        }
        let (period, lambda) = plan.period(epsilon, ln_delta);
        let line = Line::new(&pairs, theta, extra, period)?;
        // Larger arguments first, then smaller ones.
        let beyond = |epsilon: f64| {
            let [raised, ..] = plan.cumulant(theta + lambda);
            let far = raised * (1.0 + 1e-9) + 1e-9 - (theta + lambda) * epsilon - lambda * period;
            let near = -theta * period;
            let ratio = |exponent: f64, rate: f64| {
                libm::exp(exponent) / -libm::expm1(-(rate * period).max(1e-3))
            };
            ratio(far, lambda) + ratio(near, theta)
        };
        let (lower, upper, found, ln_found) = match question {
            Question::Delta(epsilon) => {
                let upper = line.upper(epsilon).clamp(0.0, 1.0);
                let lower = line.lower(epsilon, beyond(epsilon)).clamp(0.0, upper);
                (lower, upper, epsilon, libm::log(upper.max(1e-300)))
            }
            Question::Epsilon(delta) => {
                // Newton's method on the logarithm, which is nearly straight, inside of what Chernoff's
                // bound leaves.
                let target = libm::log(delta);
                let (mut low, mut high) = (0.0, ((line.cumulant - target) / theta).max(0.0));
                if line.upper(0.0) <= delta {
                    high = 0.0;
                }
                let mut at = epsilon.clamp(low, high);
                let mut steepness = theta;
                for _ in 0..80 {
                    let (value, slope) = line.integral(at);
                    let miss = libm::log(value.max(1e-300)) + line.ln_scale(at) - target;
                    if miss > 0.0 {
                        low = at;
                    } else {
                        high = at;
                    }
                    let newton = at + miss * value / slope;
                    let next = if value > 0.0 && slope > 0.0 && newton > low && newton < high {
                        steepness = slope / value;
                        newton
                    } else {
                        0.5 * (low + high)
                    };
                    let step = (next - at).abs();
                    at = next;
                    if step <= 1e-14 * at + 1e-16 {
                        break;
                    }
                }
                // Then outwards until the bounds hold.
                let outwards = |sign: f64, holds: &dyn Fn(f64) -> bool| {
                    let mut step = 1e-14 * at.abs() + 1e-15 / steepness;
                    for _ in 0..100 {
                        let end = at + sign * step;
                        if end <= 0.0 && sign < 0.0 {
                            return 0.0;
                        }
                        if holds(end) {
                            return end;
                        }
                        step *= 1.5;
                    }
                    if sign > 0.0 { f64::INFINITY } else { 0.0 }
                };
                let upper = outwards(1.0, &|end| line.upper(end) <= delta).max(0.0);
                let lower = outwards(-1.0, &|end| line.lower(end, beyond(end)) > delta);
                (lower.min(upper), upper, at, target)
            }
        };
        let (low, high) = best.unwrap_or((0.0, f64::INFINITY));
        best = Some((lower.max(low), upper.min(high)));
        let close = match question {
            Question::Delta(_) => upper - lower <= 1e-6 * upper,
            Question::Epsilon(_) => upper - lower <= 1e-7 * upper + 1e-10,
        };
        if close || attempt == 1 {
            break;
        }
        // Once more, now that the answer is known: on the line through its saddle.
        epsilon = found.max(0.0);
        ln_delta = ln_found;
        plan.aim(epsilon);
    }
    // Where nothing came of it, there is the lattice.
    best.filter(|(_, upper)| *upper < f64::INFINITY)
}
