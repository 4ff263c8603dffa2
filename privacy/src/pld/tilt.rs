//! The choice of the exponential tilt, and of the window that goes with it.
//!
//! Works on [`Sketch`]es: a poor choice costs time or tightness, it does not make a bound wrong.

use super::compose::Question;
use super::lattice::{Rules, Sketch};
use super::law::Law;
use crate::accountant::Fineness;

/// Logarithm of what may be lost at either end of the window, relative to `delta`.
pub(super) const LN_WINDOW: f64 = -37.0;
/// Logarithm of the smallest `delta`, relative to the mass that is tilted to around the answer, at
/// which rounding does no harm.
const LN_SIGNAL: f64 = -9.0;

/// Where a law is cut; see [`super::lattice::Layout`].
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whether the cut at `high` changes nothing.
    pub(super) exact: bool,
}

impl Cut {
    const NONE: Self = Self {
        low: f64::MIN,
        high: f64::MAX,
        exact: true,
    };
}

/// The choice of tilt.
pub(super) struct Plan {
    pub(super) sketches: Vec<Sketch>,
    counts: Vec<u64>,
    /// Where each law is cut.
    pub(super) cuts: Vec<Cut>,
    /// Largest tilt that the sketches hold.
    most_tilt: f64,
    pub(super) ln_tail: f64,
    pub(super) theta: f64,
    /// Slope of `-ln delta` at the answer, roughly: how much of an error of the loss's law shows.
    pub(super) slope: f64,
    /// Rough answers at this tilt.
    pub(super) ln_delta: f64,
    pub(super) epsilon: f64,
    /// The window holds all from the first to the second.
    pub(super) around: (f64, f64),
    /// Standard deviation of the tilted sum.
    deviation: f64,
}

impl Plan {
    pub(super) fn new(
        laws: &[(Law, u64)],
        rules: &Rules,
        ln_tail: f64,
        question: Question,
    ) -> Self {
        let sketches: Vec<Sketch> = laws
            .iter()
            .map(|(law, _)| Sketch::new(law, rules, ln_tail))
            .collect();
        let counts = laws.iter().map(|(_, count)| *count).collect();
        Self::with(sketches, counts, ln_tail, 1e6, question)
    }

    /// From sketches of the laws, with this largest tilt.
    pub(super) fn with(
        sketches: Vec<Sketch>,
        counts: Vec<u64>,
        ln_tail: f64,
        most_tilt: f64,
        question: Question,
    ) -> Self {
        let mut plan = Self {
            cuts: vec![Cut::NONE; sketches.len()],
            sketches,
            counts,
            most_tilt,
            ln_tail,
            theta: 0.0,
            slope: 0.0,
            ln_delta: 0.0,
            epsilon: 0.0,
            around: (f64::INFINITY, f64::NEG_INFINITY),
            deviation: 0.0,
        };
        // Both rough answers are monotone in the tilt.
        let (mut low, mut high) = (libm::log(1e-5), libm::log(plan.most_tilt));
        for _ in 0..22 {
            let middle = 0.5 * (low + high);
            plan.retilt(libm::exp(middle));
            let more = match question {
                Question::Epsilon(delta) => plan.ln_delta > libm::log(delta),
                Question::Delta(epsilon) => plan.epsilon < epsilon,
            };
            if more {
                low = middle;
            } else {
                high = middle;
            }
        }
        plan.slope = plan.theta;
        plan
    }

    pub(super) fn retilt(&mut self, theta: f64) {
        let [value, mean, variance] = self.cumulant(theta);
        self.theta = theta;
        self.epsilon = mean;
        self.deviation = libm::sqrt(variance.max(0.0));
        // The expectation under a normal law of this width around `epsilon`, at most 1.
        let spread = 2.5 * self.deviation * theta * (1.0 + theta);
        self.ln_delta = value - theta * mean - libm::log(spread.max(1.0));
    }

    /// Takes the tilt under which the mean is `epsilon`.
    pub(super) fn aim(&mut self, epsilon: f64) {
        let (mut low, mut high) = (libm::log(1e-5), libm::log(self.most_tilt));
        for _ in 0..30 {
            let middle = 0.5 * (low + high);
            if self.cumulant(libm::exp(middle))[1] < epsilon {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.retilt(libm::exp(high));
    }

    /// Takes the tilt, of those around the present one, with the shortest [`Self::period`].
    pub(super) fn shorten(&mut self, epsilon: f64, ln_delta: f64) {
        const LN_MOST: f64 = 12.0;
        let start = self.theta;
        let mut best = (self.period(epsilon, ln_delta).0, start);
        for factor in [1.6, 1.25, 0.85, 0.7, 0.55, 0.45, 0.35, 0.28, 0.2] {
            if start * factor > self.most_tilt {
                continue;
            }
            self.retilt(start * factor);
            let [value, ..] = self.cumulant(self.theta);
            if value - self.theta * epsilon - ln_delta < LN_MOST {
                let period = self.period(epsilon, ln_delta).0;
                if period < 0.9 * best.0 {
                    best = (period, self.theta);
                }
            }
        }
        self.retilt(best.1);
    }

    /// A distance that what is shifted by it counts for little beside `exp(ln_delta)` at
    /// `epsilon`, on either side of it: with the exponent that shows it upwards.
    pub(super) fn period(&self, epsilon: f64, ln_delta: f64) -> (f64, f64) {
        const LN_LITTLE: f64 = 21.0;
        let bound = |lambda: f64| {
            let [raised, ..] = self.cumulant(self.theta + lambda);
            (raised - (self.theta + lambda) * epsilon - ln_delta + LN_LITTLE) / lambda
        };
        // The sketches hold no larger tilts.
        let most = 1.9 * self.most_tilt - self.theta;
        let start = (8.0 / self.deviation.max(1e-9)).min(most);
        let (mut best, mut at) = (f64::INFINITY, start);
        for k in -6..=4 {
            let lambda = start * libm::exp(0.6 * f64::from(k));
            let value = bound(lambda);
            if value < best && lambda <= most {
                (best, at) = (value, lambda);
            }
        }
        (best.max((LN_LITTLE - ln_delta) / self.theta), at)
    }

    /// Cuts every law where, for values of `epsilon` between these two, it makes no difference, or
    /// next to none beside `exp(ln_delta)`.
    pub(super) fn cut(&mut self, laws: &[(Law, u64)], around: (f64, f64), ln_delta: f64) {
        let ends: Vec<(f64, f64)> = laws.iter().map(|(law, _)| law.ends()).collect();
        let mut falls = None;
        self.around = around;
        for which in 0..laws.len() {
            // What the other steps can add at least and at most.
            let (mut least, mut most) = (0.0, 0.0);
            for (other, ((low, high), count)) in ends.iter().zip(&self.counts).enumerate() {
                let count = *count - u64::from(other == which);
                if count > 0 {
                    least += low * count as f64;
                    most += high * count as f64;
                }
            }
            let low = around.0 - most - 1e-9 * (1.0 + most.abs());
            let high = around.1 - least + 1e-9 * (1.0 + least.abs());
            let mut cut = Cut {
                low: low.max(f64::MIN),
                high: high.min(f64::MAX),
                exact: true,
            };
            if least.is_nan() || -least > 0.2 * around.1 {
                let falls = falls.get_or_insert_with(|| self.falls());
                let likely = self.likely(falls, which, around.1, ln_delta);
                if 2.0 * likely < cut.high {
                    cut.high = likely;
                    cut.exact = false;
                }
            }
            // What was cut already stays so.
            let before = self.cuts[which];
            if before.high < cut.high {
                (cut.high, cut.exact) = (before.high, before.exact);
            }
            cut.low = cut.low.max(before.low).min(cut.high);
            self.cuts[which] = cut;
            self.sketches[which].cut(cut.low, cut.high);
        }
    }

    /// Exponents and, for each law, the cumulants at minus them.
    fn falls(&self) -> Vec<(f64, Vec<f64>)> {
        (-7..=15)
            .map(|k| {
                let lambda = libm::exp(f64::from(k));
                let cumulant = |sketch: &Sketch| sketch.cumulant(-lambda)[0];
                (lambda, self.sketches.iter().map(cumulant).collect())
            })
            .collect()
    }

    /// A loss from `epsilon` on that a step of this law hardly ever exceeds while the others, by
    /// Chernoff's bound, draw the sum below `epsilon`: with a probability that is small beside
    /// `exp(ln_delta)`. A poor value makes the bounds less tight, not wrong.
    fn likely(&self, falls: &[(f64, Vec<f64>)], which: usize, epsilon: f64, ln_delta: f64) -> f64 {
        const LN_LITTLE: f64 = -14.0;
        let sums: Vec<(f64, f64)> = falls
            .iter()
            .map(|(lambda, cumulants)| {
                let count = |other: usize| self.counts[other] - u64::from(other == which);
                let parts = cumulants.iter().enumerate();
                (
                    *lambda,
                    parts
                        .map(|(other, value)| value * count(other) as f64)
                        .sum(),
                )
            })
            .collect();
        let ln_count = libm::log(self.counts[which] as f64);
        let mut over = 1e-3 * (epsilon + 1e-6);
        while over < 1e6 {
            let ln_drawn = sums
                .iter()
                .map(|(lambda, sum)| sum - lambda * over)
                .filter(|bound| !bound.is_nan())
                .fold(0.0, f64::min);
            let ln_above = self.sketches[which].ln_above(epsilon + over);
            if ln_drawn + ln_above + ln_count < ln_delta + LN_LITTLE {
                break;
            }
            over *= 1.3;
        }
        epsilon + over
    }

    /// Raises, under the present tilt, what is lost in rounding anyway: losses of which all steps
    /// together have a share of the tilted mass that is nothing beside [`LN_SIGNAL`].
    fn raise(&mut self) {
        const LN_NOTHING: f64 = -40.0;
        let ln_steps = libm::log(self.steps().max(1.0));
        for (sketch, cut) in self.sketches.iter_mut().zip(&mut self.cuts) {
            let [value, ..] = sketch.cumulant(self.theta);
            let low = (value - ln_steps + LN_NOTHING) / self.theta;
            if low > cut.low {
                cut.low = low.min(cut.high);
                sketch.cut(cut.low, cut.high);
            }
        }
    }

    /// How far the laws are cut, and the tilt.
    pub(super) fn shape(&self) -> Vec<f64> {
        let highs = self.cuts.iter().map(|cut| cut.high);
        highs.chain([self.theta]).collect()
    }

    /// Takes the tilt with the shortest transform among those, up to the present one, at which
    /// `delta` is large enough beside the tilted mass. (Where few steps matter, the present one
    /// may move most of the mass far beyond `epsilon`.)
    pub(super) fn cheapen(&mut self, epsilon: f64, ln_delta: f64, fineness: Fineness) {
        // Laws that were cut may need a larger one.
        let before = self.theta;
        self.aim(epsilon);
        let start = self.theta.max(before);
        let mut best = (f64::INFINITY, start);
        for factor in [
            1.0, 0.8, 0.6, 0.45, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03,
        ] {
            let theta = start * factor;
            self.retilt(theta);
            let [value, ..] = self.cumulant(theta);
            if ln_delta - (value - theta * epsilon) < LN_SIGNAL && factor < 1.0 {
                break;
            }
            let window = self.reach(1.0).0 + self.reach(-1.0).0;
            let cost = window / self.step(epsilon, fineness);
            if cost < best.0 {
                best = (cost, theta);
            } else if cost > 1.5 * best.0 {
                break;
            }
        }
        self.retilt(best.1);
        self.raise();
        self.epsilon = epsilon;
    }

    /// The distance of lattice points for the wanted error.
    pub(super) fn step(&self, epsilon: f64, fineness: Fineness) -> f64 {
        // Connect-the-dots raises the variance by a sixth of the squared step and the mean by half
        // of that.
        let wanted = fineness.absolute + fineness.relative * epsilon.max(0.0);
        libm::sqrt(12.0 * wanted / (self.steps() * (1.0 + self.slope)))
    }

    pub(super) fn steps(&self) -> f64 {
        self.counts.iter().map(|count| *count as f64).sum()
    }

    pub(super) fn cumulant(&self, theta: f64) -> [f64; 3] {
        let mut sum = [0.0; 3];
        for (sketch, count) in self.sketches.iter().zip(&self.counts) {
            for (sum, part) in sum.iter_mut().zip(sketch.cumulant(theta)) {
                *sum += *count as f64 * part;
            }
        }
        sum
    }

    /// The distance from the mean beyond which the tilted sum lies with probability at most
    /// `exp(LN_WINDOW)`, roughly, and the exponent that Chernoff's bound shows it with; upwards for
    /// `sign` 1.
    pub(super) fn reach(&self, sign: f64) -> (f64, f64) {
        let [value, mean, _] = self.cumulant(self.theta);
        let bound = |ln_lambda: f64| {
            let lambda = libm::exp(ln_lambda);
            let [shifted, _, _] = self.cumulant(self.theta + sign * lambda);
            (shifted - value - LN_WINDOW) / lambda - sign * mean
        };
        // Normal laws have their best exponent here; golden sections from there.
        let start = libm::log(libm::sqrt(-2.0 * LN_WINDOW) / self.deviation.max(1e-12));
        let (mut low, mut high) = (start - 5.0, start + 3.0);
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let (mut a, mut b) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        let (mut at_a, mut at_b) = (bound(a), bound(b));
        for _ in 0..7 {
            // A value that is no number is no bound.
            if at_a <= at_b || at_b.is_nan() {
                (high, b, at_b) = (b, a, at_a);
                a = high - GOLDEN * (high - low);
                at_a = bound(a);
            } else {
                (low, a, at_a) = (a, b, at_b);
                b = low + GOLDEN * (high - low);
                at_b = bound(b);
            }
        }
        let (mut best, at) = if at_a <= at_b { (a, at_a) } else { (b, at_b) };
        // A law that ends somewhere is bounded by any large exponent; the smallest that does nearly
        // as well does not rest on the sketch's ends.
        let enough = at + 0.01 * (at + sign * mean).abs().min(at.abs());
        for _ in 0..12 {
            let smaller = best - 0.7;
            if bound(smaller) > enough {
                break;
            }
            best = smaller;
        }
        (bound(best).max(0.0), libm::exp(best))
    }
}
