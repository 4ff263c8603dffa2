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
//! It is refused, for the lattice, where nothing dies down, or only at very high frequencies: few
//! steps at small rates, whose loss mostly stays close to its least, that of not being sampled.

use core::f64::consts::PI;

use super::compose::Question;
use super::lattice::{Rules, Sketch};
use super::law::{Law, Smooth};
use super::nodes::{FRESH, LN_BEYOND, LN_NEGLECT, Nodes, Profile};
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

/// Frequencies that are turned side by side.
const LANES: usize = 4;

/// Beyond, the lattice is quicker.
pub(super) const QUICK: Effort = Effort {
    work: 1e7,
    frequencies: 1e5,
};
/// Where the lattice is no good.
pub(super) const THOROUGH: Effort = Effort {
    work: 2e7,
    frequencies: 2e5,
};

/// The integrand at equal steps of the frequency: bounds of what the finite losses add to `delta`.
pub(super) struct Line {
    theta: f64,
    step: f64,
    /// `M(theta + i t)`, relative to `exp(cumulant)`, over `s (s + 1)`: the real part, and zeros up
    /// to a multiple of [`LANES`].
    re: Vec<f64>,
    /// The imaginary part.
    im: Vec<f64>,
    cumulant: f64,
    /// Bound of what rounding and truncation add to the integral.
    slack: f64,
    /// The same, for each unit of `epsilon`, of the rounding of the angles.
    turning: f64,
    /// Relative error from that of exponents.
    blur: f64,
    /// Rounding of the summed losses.
    shift: f64,
    /// What [`Self::beyond`] needs.
    alias: Alias,
    /// Where to look first: an `epsilon`, and the logarithm of about the `delta` there, with how
    /// steeply it falls.
    known: (f64, f64, f64),
}

/// Chernoff's bound for arguments that are whole periods away.
struct Alias {
    /// The distance of the arguments that the sum over frequencies adds up.
    period: f64,
    /// An exponent, and the cumulant at the tilt and it.
    lambda: f64,
    raised: f64,
}

/// See [`Line::solve`].
#[derive(Clone, Copy)]
struct Root {
    at: f64,
    /// How steeply the logarithm of the integral falls there.
    steepness: f64,
    /// The integral, without its factor.
    value: f64,
}

impl Line {
    fn new(
        laws: &[(Law, u64)],
        rules: &Rules,
        theta: f64,
        extra: f64,
        alias: Alias,
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
        let step = 2.0 * PI / alias.period;
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
        let mut turning = 0.0;
        for (j, ((re, im), error)) in values.iter_mut().zip(&errors).enumerate() {
            let t = j as f64 * step;
            // s (s + 1)
            let (a, b) = (theta * (theta + 1.0) - t * t, t * (2.0 * theta + 1.0));
            let size = a * a + b * b;
            let (r, i) = (*re, *im);
            (*re, *im) = ((r * a + i * b) / size, (i * a - r * b) / size);
            let share = step / PI * if j == 0 { 0.5 } else { 1.0 };
            let magnitude = libm::sqrt(r * r + i * i);
            let rounding = 64.0 * f64::EPSILON * magnitude;
            slack += share * (error + rounding) / libm::sqrt(size);
            turning += share * 2.0 * f64::EPSILON * t * magnitude / libm::sqrt(size);
            *re *= share;
            *im *= share;
        }
        values.resize(values.len().next_multiple_of(LANES), (0.0, 0.0));
        let (re, im) = values.into_iter().unzip();
        Some(Self {
            theta,
            step,
            re,
            im,
            cumulant,
            slack,
            turning,
            blur,
            shift,
            alias,
            // Chernoff's bound.
            known: (0.0, cumulant, theta),
        })
    }

    /// The integral, and minus its derivative, both without the factor `exp(K - theta epsilon)`.
    fn integral(&self, epsilon: f64) -> (f64, f64) {
        let turn = -self.step * epsilon;
        let power = |k: usize| libm::sincos(k as f64 * turn);
        // Frequencies side by side, each turned by as many at once.
        let (stride_im, stride_re) = power(LANES);
        let ahead: [(f64, f64); LANES] = core::array::from_fn(power);
        let (mut value, mut slope) = ([0.0; LANES], [0.0; LANES]);
        for (block, (re, im)) in self.re.chunks(FRESH).zip(self.im.chunks(FRESH)).enumerate() {
            let start = block * FRESH;
            let (s, c) = power(start);
            let mut cosine: [f64; LANES] =
                core::array::from_fn(|lane| c * ahead[lane].1 - s * ahead[lane].0);
            let mut sine: [f64; LANES] =
                core::array::from_fn(|lane| c * ahead[lane].0 + s * ahead[lane].1);
            let mut t: [f64; LANES] =
                core::array::from_fn(|lane| (start + lane) as f64 * self.step);
            let (re, im) = (re.as_chunks::<LANES>().0, im.as_chunks::<LANES>().0);
            for (re, im) in re.iter().zip(im) {
                for lane in 0..LANES {
                    let (c, s) = (cosine[lane], sine[lane]);
                    let x = re[lane] * c - im[lane] * s;
                    let y = re[lane] * s + im[lane] * c;
                    value[lane] += x;
                    // times theta + i t
                    slope[lane] += x * self.theta - y * t[lane];
                    cosine[lane] = c * stride_re - s * stride_im;
                    sine[lane] = c * stride_im + s * stride_re;
                    t[lane] += LANES as f64 * self.step;
                }
            }
        }
        (value.iter().sum(), slope.iter().sum())
    }

    fn slack(&self, epsilon: f64) -> f64 {
        self.slack + self.turning * epsilon.abs()
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

    /// How many numbers it holds, roughly.
    pub(super) fn size(&self) -> usize {
        2 * self.re.len()
    }

    /// The upper bound: it falls with `epsilon`.
    pub(super) fn upper(&self, epsilon: f64) -> f64 {
        let epsilon = epsilon - self.shift;
        let (value, _) = self.integral(epsilon);
        let value = (value + self.slack(epsilon)).max(0.0)
            * libm::exp(self.ln_scale(epsilon))
            * self.inflation(epsilon);
        if value < 1.0 { value } else { 1.0 }
    }

    /// The lower bound.
    pub(super) fn lower(&self, epsilon: f64) -> f64 {
        let alias = self.beyond(epsilon);
        let epsilon = epsilon + self.shift;
        let (value, _) = self.integral(epsilon);
        let value = (value - self.slack(epsilon)).max(0.0) * libm::exp(self.ln_scale(epsilon))
            / self.inflation(epsilon)
            - alias;
        if value > 0.0 { value.min(1.0) } else { 0.0 }
    }

    /// What the sum over all frequencies is too large by.
    fn beyond(&self, epsilon: f64) -> f64 {
        let (
            theta,
            Alias {
                period,
                lambda,
                raised,
            },
        ) = (self.theta, &self.alias);
        // Larger arguments first, then smaller ones.
        let far = raised * (1.0 + 1e-9) + 1e-9 - (theta + lambda) * epsilon - lambda * period;
        let near = -theta * period;
        let ratio = |exponent: f64, rate: f64| {
            libm::exp(exponent) / -libm::expm1(-(rate * period).max(1e-3))
        };
        ratio(far, *lambda) + ratio(near, theta)
    }

    /// Where the integral itself reaches `delta`.
    fn solve(&self, delta: f64) -> Root {
        // Newton's method on the logarithm, which is nearly straight, inside of what Chernoff's
        // bound leaves.
        let target = libm::log(delta);
        let (mut low, mut high) = (0.0, ((self.cumulant - target) / self.theta).max(0.0));
        if self.upper(0.0) <= delta {
            high = 0.0;
        }
        let (near, ln_near, fall) = self.known;
        let mut at = (near + (ln_near - target) / fall).clamp(low, high);
        let mut steepness = self.theta;
        let mut last = 0.0;
        for _ in 0..80 {
            let (value, slope) = self.integral(at);
            last = value;
            let miss = libm::log(value.max(1e-300)) + self.ln_scale(at) - target;
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
            if step <= 1e-14 * at + 1e-16 + 1e-13 / steepness {
                break;
            }
        }
        Root {
            at,
            steepness,
            value: last,
        }
    }

    /// The end of the points, seen from `at` upwards (for `sign` 1) or downwards, at which `holds`
    /// begins to hold, to a share of 1e-9 of what moves `delta` by a factor; `None` where it is
    /// found nowhere.
    ///
    /// The slack and the inflation say where to look first.
    fn outwards(
        &self,
        Root {
            at,
            steepness,
            value,
        }: Root,
        sign: f64,
        holds: impl Fn(f64) -> bool,
    ) -> Option<f64> {
        let least = 1e-14 * at.abs() + 1e-15 / steepness;
        let enough = (1e-9 / steepness).min(1e-9 * (1.0 + at)).max(least);
        let loose = self.slack(at) / value + self.inflation(at) - 1.0;
        let likely = self.shift + libm::log1p(loose) / steepness;
        let likely = if likely.is_nan() { 0.0 } else { likely };
        let mut inside = at;
        let mut step = 1.05 * likely + 0.5 * enough;
        let mut outside = None;
        for _ in 0..120 {
            let end = (at + sign * step).max(0.0);
            if holds(end) {
                outside = Some(end);
                break;
            }
            if end <= 0.0 && sign < 0.0 {
                break;
            }
            inside = end;
            step *= 2.0;
        }
        let mut outside = outside?;
        while (outside - inside).abs() > enough {
            let middle = 0.5 * (inside + outside);
            if holds(middle) {
                outside = middle;
            } else {
                inside = middle;
            }
        }
        Some(outside)
    }

    /// A point up to which the lower bound is above `below`, and the first, closely, at which the
    /// upper bound is at most `delta`; quicker where these are nearly the same.
    pub(super) fn epsilons(&self, delta: f64, below: f64) -> (f64, f64) {
        let root = self.solve(delta);
        let other = if (below - delta).abs() <= 1e-9 * delta {
            root
        } else {
            self.solve(below)
        };
        let lower = self
            .outwards(other, -1.0, |end| self.lower(end) > below)
            .unwrap_or(0.0);
        (lower, self.upper_from(root, delta))
    }

    /// The first point, closely, at which the upper bound is at most `delta`.
    pub(super) fn upper_epsilon(&self, delta: f64) -> f64 {
        self.upper_from(self.solve(delta), delta)
    }

    fn upper_from(&self, root: Root, delta: f64) -> f64 {
        if self.upper(0.0) <= delta {
            return 0.0;
        }
        self.outwards(root, 1.0, |end| self.upper(end) <= delta)
            .unwrap_or(f64::INFINITY)
    }

    /// Whether the upper bound is at most `delta` somewhere beyond where it is known.
    pub(super) fn shows(&self, delta: f64) -> bool {
        let (epsilon, ln_delta, fall) = self.known;
        let first = epsilon + (ln_delta - libm::log(delta)).max(0.0) / fall;
        (0..12).any(|turn| {
            let far = 0.2 * libm::exp2(f64::from(turn)) / self.theta;
            self.upper(first + far) <= delta
        })
    }

    /// Remembers where the integral has this value.
    fn remember(&mut self, delta: f64) {
        let Root { at, steepness, .. } = self.solve(delta);
        self.known = (at, libm::log(delta), steepness);
    }
}

/// Lines for a `delta` of about this size, of which the last is the best; none where this way is not
/// the quicker one. `hint` is an `epsilon` that is surely enough.
pub(super) fn lines(
    laws: &[(Law, u64)],
    delta: f64,
    rules: &Rules,
    effort: Effort,
    hint: f64,
) -> Vec<Line> {
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
        return Vec::new();
    }
    let mut plan = Plan::with(
        laws.iter()
            .map(|(law, _)| Sketch::wide(law, rules))
            .collect(),
        laws.iter().map(|(_, count)| *count).collect(),
        0.0,
        laws.iter()
            .map(|(law, _)| Sketch::most_tilt(law))
            .fold(f64::INFINITY, f64::min),
        Question::Epsilon(delta),
    );
    let mut epsilon = plan.epsilon.max(0.0).min(hint);
    let ln_delta = libm::log(delta);
    let mut lines: Vec<Line> = Vec::new();
    for attempt in 0..2 {
        plan.shorten(epsilon, ln_delta);
        let theta = plan.theta;
        let [cumulant, ..] = plan.cumulant(theta);
        // How much larger the tilted mass is than what is looked for.
        let extra = (cumulant - theta * epsilon - ln_delta).max(0.0);
        if extra > 25.0 {
            break;
        }
        let (period, lambda) = plan.period(epsilon, ln_delta);
        let [raised, ..] = plan.cumulant(theta + lambda);
        let alias = Alias {
            period,
            lambda,
            raised,
        };
        let Some(mut line) = Line::new(laws, rules, theta, extra, alias, effort) else {
            break;
        };
        line.remember(delta);
        let (lower, upper) = line.epsilons(delta, delta);
        let close = upper - lower <= 1e-7 * upper + 1e-10;
        if upper < f64::INFINITY {
            lines.push(line);
        }
        if close || attempt == 1 || upper == f64::INFINITY {
            break;
        }
        // Once more, now that the answer is known: on the line through its saddle.
        epsilon = upper;
        plan.aim(epsilon);
    }
    lines
}
