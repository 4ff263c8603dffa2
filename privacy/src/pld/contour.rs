//! Compositions without any lattice: Laplace inversion along a line.
//!
//! With `s = theta + i t` and `M(s) = prod E[exp(s L)]^n` the moment generating function of the
//! summed loss,
//! `delta(epsilon) = (1 / 2 pi) int M(s) exp(-s epsilon) / (s (s + 1)) dt` for any `theta > 0`
//! (Zhu, Dong and Wang 2022, arXiv 2106.08567, Section 4, on the line of Alghamdi et al. 2022). Both
//! this integral and that for `M` are integrals of analytic functions by the trapezoidal rule, whose
//! error falls exponentially. Every part of it has an explicit bound:
//!
//! - **in the outcome**: `2 I / (exp(2 pi d / step) - 1)` with `I` the integral of the magnitude of
//!   the integrand along the lines at distance `d` from that of the nodes (Trefethen and Weideman
//!   2014, Theorem 5.1), in whose strip the mixtures have no zero. The nodes may lie above the axis:
//!   there the loss has an imaginary part of at least 0, so that `exp(i t L)` falls with the
//!   frequency instead of turning ever faster, and the spacing need not go with the frequency;
//! - **in the frequency**: the sum over all frequencies is, by Poisson's formula, that of
//!   `exp(theta k P) delta(epsilon + k P)` over all integers `k` with `P = 2 pi / step`: only too
//!   large, and by an amount that Chernoff's bound limits;
//! - **beyond the last frequency**: either the integral of the magnitude along a line above the axis,
//!   which falls with the frequency; or van der Corput's lemma: where the slope of the loss is above a
//!   threshold, the oscillating integral is at most the total variation of density over slope,
//!   divided by the frequency; elsewhere at most the mass;
//! - **rounding** of losses, phases, sums and powers.
//!
//! Normal mixtures are integrated so. Point masses are sums of a finite number of terms as they are.
//! Laplace noise is integrated in panels of eight Gauss-Legendre nodes, so short that the remainder
//! is below rounding. Neither dies down with the frequency, so that one law of normal mixtures alone
//! must do it: the largest magnitude of any other, relative to its mass, is 1.
//!
//! A probability `p` of infinite loss is taken apart: `delta(epsilon)` is `p` and what the finite
//! losses, whose law has the mass `1 - p`, give.
//!
//! It is refused, for the lattice, where nothing dies down, or only at very high frequencies: few
//! steps at small rates, whose loss mostly stays close to its least, that of not being sampled.

use core::f64::consts::PI;

use super::compose::Question;
use super::lattice::{Rules, Sketch};
use super::law::{Law, Smooth};
use super::nodes::{FRESH, LN_BEYOND, LN_NEGLECT, Nodes, Profile};
use super::single::single;
use super::spectrum::power;
use super::tilt::Plan;

/// How much may be done.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Most products of nodes and frequencies.
    work: f64,
    /// Most frequencies.
    frequencies: f64,
}

/// Beyond, the lattice is quicker.
pub(super) const QUICK: Effort = Effort {
    work: 1e7,
    frequencies: 1e5,
};
/// Where the lattice is no good.
pub(super) const THOROUGH: Effort = Effort {
    work: 1e8,
    frequencies: 1e6,
};

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
    fn new(
        laws: &[(Law, u64)],
        rules: &Rules,
        theta: f64,
        extra: f64,
        period: f64,
        effort: Effort,
    ) -> Option<Self> {
        let profiles = laws
            .iter()
            .map(|(law, count)| Profile::new(law, *count as f64, theta))
            .collect::<Option<Vec<_>>>()?;
        // One law that has died down is enough.
        let end = profiles
            .iter()
            .map(|profile| profile.last_frequency(extra))
            .fold(f64::INFINITY, f64::min);
        let step = 2.0 * PI / period;
        if (end / step).is_nan() || end / step >= effort.frequencies {
            return None;
        }
        let last = libm::ceil(end / step) as usize + 1;
        let most = effort.work / last as f64;
        let nodes = profiles
            .iter()
            .zip(laws)
            .map(|(profile, (_, count))| {
                Nodes::new(profile, *count, last as f64 * step, rules, most)
            })
            .collect::<Option<Vec<_>>>()?;
        let work: usize = nodes.iter().map(|nodes| nodes.weights.len() * last).sum();
        if work as f64 >= effort.work {
            return None;
        }
        let mut values = vec![(1.0, 0.0); last + 1];
        let mut errors = vec![0.0; last + 1];
        let (mut cumulant, mut blur, mut shift) = (0.0, 0.0, 0.0);
        let mut most = 0.0_f64;
        for nodes in &nodes {
            let many = nodes.many;
            let floor = libm::pow(1e-3, (many - 1.0).min(5.0));
            nodes.transform(step, last, |j, re, im, error| {
                most = most.max(many * error);
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
        // Errors that are not small against 1 do not just add up.
        if most.is_nan() || most >= 0.1 {
            return None;
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

/// Lower and upper bound of the answer, or `None` where this way is not the quicker one. `hint` is
/// an `epsilon` that is surely enough.
pub(super) fn answer(
    laws: &[(Law, u64)],
    question: Question,
    rules: &Rules,
    effort: Effort,
    hint: f64,
) -> Option<(f64, f64)> {
    if let [(law, 1)] = laws {
        return single(law, question, rules);
    }
    // Without normal mixtures nothing dies down; very wide Laplace noise takes too many nodes.
    const WIDEST: f64 = 300.0;
    let parts = || laws.iter().flat_map(|(law, _)| &law.smooth);
    if !parts().any(|(_, smooth)| matches!(smooth, Smooth::Normal(_)))
        || parts().any(|(_, smooth)| match smooth {
            Smooth::Laplace(pair) => pair.width > WIDEST,
            // Its corners do not die down.
            Smooth::Cut(_) => true,
            Smooth::Normal(_) => false,
        })
    {
        return None;
    }
    let infinite = infinite(laws);
    let (least, most) = (infinite / (1.0 + 1e-11), infinite * (1.0 + 1e-11));
    match question {
        Question::Delta(epsilon) => {
            let (lower, upper) = finite(laws, rules, question, (epsilon, epsilon), effort, hint)?;
            Some(((lower + least).min(1.0), (upper + most).min(1.0)))
        }
        Question::Epsilon(delta) => {
            let (rest, lower_rest) = (delta - most, delta - least);
            if rest <= delta * 1e-6 {
                // Too near for the rest to be worked out with.
                return if infinite <= 0.0 {
                    None
                } else if lower_rest < 0.0 {
                    Some((f64::INFINITY, f64::INFINITY))
                } else {
                    Some((0.0, f64::INFINITY))
                };
            }
            // Upwards, so that the sum with what was taken off is not above `delta`.
            let rest = rest * (1.0 - 1e-15);
            finite(
                laws,
                rules,
                Question::Epsilon(rest),
                (rest, lower_rest),
                effort,
                hint,
            )
        }
    }
}

/// The probability that some loss is infinite.
fn infinite(laws: &[(Law, u64)]) -> f64 {
    let none: f64 = laws
        .iter()
        .map(|(law, count)| *count as f64 * libm::log1p(-law.infinite.min(1.0)))
        .sum();
    -libm::expm1(none)
}

/// The answer for the finite losses, whose law may have a mass below 1: `targets` are what the
/// upper and the lower bound must reach.
fn finite(
    laws: &[(Law, u64)],
    rules: &Rules,
    question: Question,
    targets: (f64, f64),
    effort: Effort,
    hint: f64,
) -> Option<(f64, f64)> {
    let mut plan = Plan::with(
        laws.iter()
            .map(|(law, _)| Sketch::wide(law, rules))
            .collect(),
        laws.iter().map(|(_, count)| *count).collect(),
        0.0,
        laws.iter()
            .map(|(law, _)| Sketch::most_tilt(law))
            .fold(f64::INFINITY, f64::min),
        question,
    );
    let (mut epsilon, mut ln_delta) = match question {
        Question::Epsilon(delta) => (plan.epsilon.max(0.0).min(hint), libm::log(delta)),
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
        let line = Line::new(laws, rules, theta, extra, period, effort)?;
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
                let (mut steepness, mut size) = (theta, 1.0_f64);
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
                        (steepness, size) = (slope / value, value);
                        newton
                    } else {
                        0.5 * (low + high)
                    };
                    let step = (next - at).abs();
                    at = next;
                    if step <= 1e-14 * at + 1e-16 + 1e-13 / steepness {
                        break;
                    }
                }
                // Then outwards until the bounds hold.
                let outwards = |sign: f64, holds: &dyn Fn(f64) -> bool| {
                    // What the slack asks for, roughly.
                    let slack = 0.8 * (line.slack / size).min(1.0);
                    let mut step = 1e-14 * at.abs() + (1e-15 + slack) / steepness;
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
                let upper = outwards(1.0, &|end| line.upper(end) <= targets.0).max(0.0);
                let lower = outwards(-1.0, &|end| line.lower(end, beyond(end)) > targets.1);
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
