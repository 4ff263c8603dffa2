//! The law of the summed loss of many steps, and what `epsilon` and `delta` follow from it.
//!
//! The laws are tilted exponentially (Esscher 1932; for privacy losses Alghamdi, Gomez, Asoodeh,
//! Calmon, Kosut and Sankar 2022, arXiv 2208.09595) so that the answer lies in the bulk of the
//! sum: then the Fourier transform needs few points, and its rounding errors are relative to
//! `delta` itself. With `S` the sum, `K` the summed logarithm of the moment generating function
//! and `E_theta` under the tilted law,
//! `delta(epsilon) = exp(K - theta epsilon) E_theta[exp(-theta (S - epsilon)) (1 - exp(epsilon - S))_+]`.
//!
//! What is neglected is added (for the upper bound) or taken off (for the lower): mass outside the
//! window, by Chernoff's bound on the laws as they are on the lattice; rounding of the transforms,
//! level by level as in Higham 2002, Section 24.1, on their inputs as they are; rounding of losses and
//! masses, by a shift of `epsilon` and a factor.

use super::fft::Fft;
use super::lattice::{Lattice, Layout, Rules, Sketch};
use super::law::Law;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// `delta` for this `epsilon`, finite.
    Delta(f64),
    /// `epsilon` for this `delta`, above 0 and below 1.
    Epsilon(f64),
}

/// How fine to compute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fineness {
    /// Wanted error of `epsilon`, absolute.
    pub(crate) absolute: f64,
    /// Wanted error of `epsilon`, relative.
    pub(crate) relative: f64,
    /// Most points of the transform, a power of two: with fewer the lattice is coarser.
    pub(crate) points: usize,
}

impl Default for Fineness {
    fn default() -> Self {
        Self {
            absolute: 3e-7,
            relative: 3e-7,
            points: 1 << 18,
        }
    }
}

/// Logarithm of what may be lost at either end of the window, relative to `delta`.
const LN_WINDOW: f64 = -37.0;
/// Logarithm of the smallest `delta`, relative to the mass that is tilted to around the answer, at
/// which rounding does no harm.
const LN_SIGNAL: f64 = -9.0;
/// For a first look.
const COARSE: Fineness = Fineness {
    absolute: 1e-3,
    relative: 3e-3,
    points: 1 << 13,
};

/// Lower and upper bound of the answer for the laws, each so many times; zeros where the answer is
/// surely below `known`.
pub(crate) fn answer(
    laws: &[(Law, u64)],
    question: Question,
    fineness: Fineness,
    known: f64,
) -> (f64, f64) {
    let rules = Rules::new();
    // Mass that is cut off counts as infinite loss: it must be small beside `delta`, which for a
    // question about `delta` is itself estimated first.
    let steps: f64 = laws.iter().map(|(_, count)| *count as f64).sum();
    let ln_steps = libm::log(steps.max(1.0));
    let mut ln_delta = match question {
        Question::Epsilon(delta) => libm::log(delta),
        Question::Delta(_) => -60.0,
    };
    let (epsilon, ln_least) = match question {
        Question::Epsilon(delta) => (known, libm::log(delta)),
        Question::Delta(epsilon) => (epsilon, libm::log(known)),
    };
    if known > 0.0 && is_below(laws, &rules, epsilon, ln_least) {
        return (0.0, 0.0);
    }
    if let Some(exact) = super::contour::answer(laws, question) {
        return exact;
    }
    let mut plan = Plan::new(laws, &rules, ln_delta - ln_steps - 34.0, question);
    if let Question::Delta(_) = question {
        for _ in 0..4 {
            if plan.ln_delta > ln_delta - 1.0 {
                break;
            }
            ln_delta = plan.ln_delta.max(-690.0);
            plan = Plan::new(laws, &rules, ln_delta - ln_steps - 34.0, question);
        }
    }
    let look = |plan: &Plan, fineness| {
        let composite = Composite::new(laws, plan, &rules, fineness);
        match question {
            Question::Delta(epsilon) => {
                let (lower, upper) = composite.delta(epsilon);
                (lower, upper, true)
            }
            Question::Epsilon(delta) => composite.epsilon(delta),
        }
    };
    // A first look says where the answer is; then the tilt can be the cheapest that still shows it.
    let (lower, upper, inside) = look(&plan, COARSE);
    // The lower bound of laws that were cut for smaller `epsilon` says nothing about larger ones.
    let mut largest = f64::INFINITY;
    if inside && upper < f64::INFINITY {
        let (epsilon, ln_delta) = match question {
            Question::Epsilon(delta) => (0.5 * (lower + upper), libm::log(delta)),
            Question::Delta(epsilon) => (epsilon, libm::log(upper.max(f64::MIN_POSITIVE))),
        };
        let margin = 1e-3 * (1.0 + upper);
        let around = match question {
            Question::Epsilon(_) => (lower - margin, upper + margin),
            Question::Delta(epsilon) => (epsilon - margin, epsilon + margin),
        };
        largest = around.1;
        plan.cut(laws, around);
        plan.cheapen(epsilon, ln_delta, fineness);
    }
    let mut best = (lower, upper);
    for _ in 0..3 {
        let (lower, upper, inside) = look(&plan, fineness);
        let lower = match question {
            Question::Epsilon(_) => lower.min(largest),
            Question::Delta(_) => lower,
        };
        best = (best.0.max(lower), best.1.min(upper));
        if inside {
            break;
        }
        // The answer is outside the window: a larger tilt moves it upwards.
        plan.retilt(plan.theta * 1.5);
    }
    best
}

/// Whether Chernoff's bound shows, with much to spare, that `delta(epsilon)` is below
/// `exp(ln_delta)`.
fn is_below(laws: &[(Law, u64)], rules: &Rules, epsilon: f64, ln_delta: f64) -> bool {
    const SPARE: f64 = 1.0;
    let count: f64 = laws.iter().map(|(_, count)| *count as f64).sum();
    let ln_tail = ln_delta - libm::log(count.max(1.0)) - 34.0;
    let infinite: f64 = laws
        .iter()
        .map(|(law, count)| law.infinite * *count as f64)
        .sum();
    if infinite > 0.0 {
        return false;
    }
    let sketches: Vec<(Sketch, f64)> = laws
        .iter()
        .map(|(law, count)| (Sketch::new(law, rules, ln_tail), *count as f64))
        .collect();
    (-16..=32).any(|k| {
        let theta = libm::exp(0.4 * f64::from(k));
        let cumulant: f64 = sketches
            .iter()
            .map(|(sketch, count)| count * sketch.cumulant(theta)[0])
            .sum();
        cumulant - theta * epsilon < ln_delta - SPARE
    })
}

/// The choice of tilt.
pub(super) struct Plan {
    sketches: Vec<Sketch>,
    counts: Vec<u64>,
    /// Where each law is cut; see [`Layout`].
    cuts: Vec<(f64, f64)>,
    /// Largest tilt that the sketches hold.
    most_tilt: f64,
    pub(super) ln_tail: f64,
    pub(super) theta: f64,
    /// Slope of `-ln delta` at the answer, roughly: how much of an error of the loss's law shows.
    slope: f64,
    /// Rough answers at this tilt.
    pub(super) ln_delta: f64,
    pub(super) epsilon: f64,
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
            cuts: vec![(f64::NEG_INFINITY, f64::INFINITY); sketches.len()],
            sketches,
            counts,
            most_tilt,
            ln_tail,
            theta: 0.0,
            slope: 0.0,
            ln_delta: 0.0,
            epsilon: 0.0,
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
        let start = 8.0 / self.deviation.max(1e-9);
        let (mut best, mut at) = (f64::INFINITY, start);
        for k in -6..=4 {
            let lambda = start * libm::exp(0.6 * f64::from(k));
            let value = bound(lambda);
            if value < best && self.theta + lambda <= 1.9 * self.most_tilt {
                (best, at) = (value, lambda);
            }
        }
        (best.max((LN_LITTLE - ln_delta) / self.theta), at)
    }

    /// Cuts every law where, for values of `epsilon` between these two, it makes no difference.
    fn cut(&mut self, laws: &[(Law, u64)], around: (f64, f64)) {
        let ends: Vec<(f64, f64)> = laws.iter().map(|(law, _)| law.ends()).collect();
        for (which, (law, _)) in laws.iter().enumerate() {
            // Point masses stay where they are.
            if !law.atoms.is_empty() {
                continue;
            }
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
            let (low, high) = (low.max(f64::MIN), high.min(f64::MAX));
            self.cuts[which] = (low, high);
            self.sketches[which].cut(low, high);
        }
    }

    /// Takes the tilt with the shortest transform among those, up to the present one, at which
    /// `delta` is large enough beside the tilted mass. (Where few steps matter, the present one
    /// may move most of the mass far beyond `epsilon`.)
    fn cheapen(&mut self, epsilon: f64, ln_delta: f64, fineness: Fineness) {
        let start = self.theta;
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
            }
        }
        self.retilt(best.1);
        self.epsilon = epsilon;
    }

    /// The distance of lattice points for the wanted error.
    fn step(&self, epsilon: f64, fineness: Fineness) -> f64 {
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
    fn reach(&self, sign: f64) -> (f64, f64) {
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
        for _ in 0..10 {
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
        let (best, at) = if at_a <= at_b { (a, at_a) } else { (b, at_b) };
        (at.max(0.0), libm::exp(best))
    }
}

/// The composed law in a window of the lattice.
struct Composite {
    /// Distance of lattice points.
    step: f64,
    theta: f64,
    /// Lattice index of the first entry.
    first: i64,
    above: Side,
    below: Side,
    /// What rounding may have moved `epsilon` by.
    shift: f64,
}

/// One of the two bounds.
struct Side {
    /// The cumulant that masses are relative to.
    kappa: f64,
    /// `E_theta[exp(-theta (S - l_j)); S >= l_j]`.
    tail: Vec<f64>,
    /// The same times `1 - exp(l_j - S)`.
    excess: Vec<f64>,
    /// Added or taken off, times `exp(kappa - theta epsilon)`.
    slack: f64,
    /// Factor, above 1, for the rounding of exponents.
    factor: f64,
    /// Mass at infinity.
    infinite: f64,
}

impl Composite {
    fn new(laws: &[(Law, u64)], plan: &Plan, rules: &Rules, fineness: Fineness) -> Self {
        let theta = plan.theta;
        let (up, lambda_up) = plan.reach(1.0);
        let (down, lambda_down) = plan.reach(-1.0);
        let window = up + down;
        // What a step holds must fit into memory, too.
        let widest = plan
            .sketches
            .iter()
            .map(|sketch| {
                let (low, high) = sketch.span();
                if low <= high { high - low } else { 0.0 }
            })
            .fold(0.0, f64::max);
        let step = plan
            .step(plan.epsilon, fineness)
            .max(window / (fineness.points - 64) as f64)
            .max(widest / (4 * fineness.points) as f64)
            .max(1e-12 * (plan.epsilon.abs() + window + widest));
        // A sharper exponent sees single lattice points.
        let (lambda_up, lambda_down) = (lambda_up.min(1.0 / step), lambda_down.min(1.0 / step));

        let mut sides = [Totals::default(), Totals::default()];
        let mut origin = 0_i128;
        let mut shift = 0.0;
        let mut blur = 0.0;
        let mut lattices = Vec::with_capacity(laws.len());
        for (((law, count), sketch), cut) in laws.iter().zip(&plan.sketches).zip(&plan.cuts) {
            let [kappa, mean, _] = sketch.cumulant(theta);
            let layout = Layout {
                step,
                theta,
                kappa,
                ln_tail: plan.ln_tail,
                // Outwards to the lattice.
                low: libm::floor(cut.0 / step) * step,
                high: libm::ceil(cut.1 / step) * step,
            };
            let lattice = Lattice::new(law, sketch, rules, layout);
            let centre = libm::round(mean / step) as i64;
            let many = *count as f64;
            for (total, masses) in sides.iter_mut().zip([&lattice.above, &lattice.below]) {
                let sum: f64 = masses.iter().sum();
                total.scale.push(1.0 / sum);
                total.kappa += many * (kappa + libm::log(sum));
                for (exponent, lambda) in total.exponents.iter_mut().zip([lambda_up, -lambda_down])
                {
                    let moment = moment(masses, lambda * step, centre - lattice.first);
                    *exponent += many * libm::log(moment / sum);
                }
            }
            // Logarithms of the probability that no loss is infinite.
            let up = 1.0 + 1e-11;
            sides[0].infinite += many * libm::log1p(-(lattice.infinite_above * up).min(1.0));
            sides[1].infinite += many * libm::log1p(-(lattice.infinite_below / up).min(1.0));
            origin += i128::from(centre) * i128::from(*count);
            // Losses and logarithms of densities are sums of a few terms of this size.
            let rounding = 16.0 * f64::EPSILON * sketch.magnitude;
            shift += many * rounding;
            blur += many * (rounding * (2.0 + theta) + 1e-13 + 4.0 * f64::EPSILON * kappa.abs());
            lattices.push((lattice, centre, *count));
        }
        // The window, by Chernoff's bound on the laws as they are.
        let reach = |side: usize, lambda: f64| {
            let exponent = sides[0].exponents[side].max(sides[1].exponents[side]);
            ((exponent - LN_WINDOW) / lambda / step).clamp(8.0, 1e15)
        };
        let start = origin as f64 - reach(1, lambda_down);
        let start = start.min(plan.epsilon / step) - 4.0;
        let end = origin as f64 + reach(0, lambda_up);
        let end = end.max(plan.epsilon / step) + 4.0;
        let points = ((end - start).min(4.0 * fineness.points as f64) as usize + 8)
            .next_power_of_two()
            .max(64);
        let first = libm::floor(start) as i64;

        let fft = Fft::new(points);
        let mut product = Spectrum::one(points);
        for (which, (lattice, centre, count)) in lattices.iter().enumerate() {
            let scale = [sides[0].scale[which], sides[1].scale[which]];
            product.multiply(&fft, lattice, scale, *centre, *count);
        }
        let errors = product.errors;
        let (sums, rounding) = product.finish(&fft);
        let start = (i128::from(first) - origin).rem_euclid(points as i128) as usize;
        let last = first + points as i64 - 1;
        let ends = [
            -lambda_up * step * (i128::from(last) - origin) as f64,
            lambda_down * step * (i128::from(first) - origin) as f64,
        ];
        let [above, below] = [(0, 1.0), (1, -1.0)].map(|(which, sign): (usize, f64)| {
            let totals = &sides[which];
            let outside: f64 = totals
                .exponents
                .iter()
                .zip(ends)
                .map(|(exponent, end)| libm::exp(exponent + end))
                .sum();
            let noise = sign * (rounding + errors);
            let mut tail = vec![0.0; points];
            let mut excess = vec![0.0; points];
            let fall = libm::exp(-theta * step);
            let gap = -libm::expm1(-step);
            let both = libm::exp(-(theta + 1.0) * step);
            // `part` is the expectation with another `exp(l_j - S)`.
            let (mut whole, mut part, mut over) = (0.0, 0.0, 0.0);
            for j in (0..points).rev() {
                let mass = (sums[which][(start + j) % points] + noise).max(0.0);
                over = fall * (over + gap * part);
                whole = mass + fall * whole;
                part = mass + both * part;
                tail[j] = whole;
                excess[j] = over;
            }
            Side {
                kappa: totals.kappa,
                // Beyond the part that the bound above needs: `tail - excess`.
                tail,
                excess,
                // Tilted masses below the smallest number are lost.
                slack: outside + 1e-290 * plan.steps(),
                factor: libm::exp(blur + 16.0 * f64::EPSILON * (totals.kappa.abs() + 1.0)),
                infinite: -libm::expm1(totals.infinite),
            }
        });
        Self {
            step,
            theta,
            first,
            above,
            below,
            shift,
        }
    }

    /// Bounds of `delta` at the lattice point of this place, with slack as at a lower loss.
    fn upper_at(&self, place: usize) -> f64 {
        self.upper(place, 0.0)
    }

    /// The upper bound of `delta` at `distance` (up to one step) below a lattice point.
    fn upper(&self, place: usize, distance: f64) -> f64 {
        let side = &self.above;
        let loss = (self.first + place as i64) as f64 * self.step;
        let part = side.tail[place] - side.excess[place];
        let value = side.excess[place] + part * -libm::expm1(-distance);
        let rounding = 1.0 + 8.0 * f64::EPSILON * (self.theta * loss).abs();
        side.infinite
            + (value + side.slack * libm::exp(self.theta * distance))
                * libm::exp(side.kappa - self.theta * loss)
                * side.factor
                * rounding
    }

    fn lower(&self, place: usize, distance: f64) -> f64 {
        let side = &self.below;
        let loss = (self.first + place as i64) as f64 * self.step;
        let part = side.tail[place] - side.excess[place];
        let value = side.excess[place] + part * -libm::expm1(-distance);
        let rounding = 1.0 + 8.0 * f64::EPSILON * (self.theta * loss).abs();
        let finite = (value - side.slack * libm::exp(self.theta * distance)).max(0.0)
            * libm::exp(side.kappa - self.theta * loss)
            / (side.factor * rounding);
        side.infinite + finite
    }

    /// The first lattice point at or above `epsilon` in the window, and the distance to it.
    fn place(&self, epsilon: f64) -> (usize, f64) {
        let last = self.above.tail.len() - 1;
        let place = libm::ceil(epsilon / self.step) - self.first as f64;
        if place >= last as f64 {
            return (last, 0.0);
        }
        let place = place.max(0.0) as usize;
        let distance = (self.first + place as i64) as f64 * self.step - epsilon;
        // Below the window, the bound is that of its first point: see the caller.
        (place, distance.clamp(0.0, self.step))
    }

    fn delta(&self, epsilon: f64) -> (f64, f64) {
        let start = self.first as f64 * self.step;
        let upper = if epsilon - self.shift < start - self.step {
            1.0
        } else {
            let (place, distance) = self.place(epsilon - self.shift);
            self.upper(place, distance)
        };
        let end = (self.first + self.below.tail.len() as i64 - 2) as f64 * self.step;
        let lower = if epsilon + self.shift > end {
            self.below.infinite
        } else {
            let (place, distance) = self.place((epsilon + self.shift).max(start));
            self.lower(place, distance)
        };
        (lower.clamp(0.0, 1.0), upper.clamp(0.0, 1.0))
    }

    /// Lower and upper bound, and whether the upper lies inside the window.
    fn epsilon(&self, delta: f64) -> (f64, f64, bool) {
        let points = self.above.tail.len();
        let loss = |place: usize| (self.first + place as i64) as f64 * self.step;
        // Up: the first place whose bound is small enough; bounds fall with the place.
        let (mut low, mut high) = (0, points);
        while low < high {
            let middle = (low + high) / 2;
            if self.upper_at(middle) <= delta {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let (upper, inside) = if low == points {
            (f64::INFINITY, self.above.infinite >= delta)
        } else if low == 0 {
            (loss(0), loss(0) <= 0.0)
        } else {
            // Within the step the bound falls, too.
            let (mut near, mut far) = (0.0, self.step);
            for _ in 0..50 {
                let middle = 0.5 * (near + far);
                if self.upper(low, middle) <= delta {
                    near = middle;
                } else {
                    far = middle;
                }
            }
            (loss(low) - near, true)
        };
        let (mut low, mut high) = (0, points);
        while low < high {
            let middle = (low + high) / 2;
            if self.lower(middle, 0.0) > delta {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // At `low - 1` still more than `delta`.
        let lower = if low == 0 {
            0.0
        } else if low == points {
            loss(points - 1)
        } else {
            let (mut near, mut far) = (0.0, self.step);
            for _ in 0..50 {
                let middle = 0.5 * (near + far);
                if self.lower(low, middle) > delta {
                    far = middle;
                } else {
                    near = middle;
                }
            }
            loss(low) - far
        };
        (
            (lower - self.shift).max(0.0),
            (upper + self.shift).max(0.0),
            inside,
        )
    }
}

/// `E exp(lambda (S - centre))` in units of the lattice, rounded upwards.
fn moment(masses: &[f64], lambda: f64, centre: i64) -> f64 {
    let centre = centre.clamp(0, masses.len() as i64 - 1) as usize;
    let (low, high) = masses.split_at(centre);
    let mut sum = 0.0;
    let mut walk = |masses: &mut dyn Iterator<Item = &f64>, lambda: f64, from: usize| {
        let rise = libm::exp(lambda);
        let mut power = libm::exp(lambda * from as f64);
        for (k, &mass) in masses.enumerate() {
            if mass > 0.0 {
                sum += if (1e-280..1e280).contains(&power) {
                    mass * power
                } else {
                    libm::exp(libm::log(mass) + lambda * (from + k) as f64)
                };
            }
            power *= rise;
        }
    };
    walk(&mut high.iter(), lambda, 0);
    walk(&mut low.iter().rev(), -lambda, 1);
    // The running power is off by a rounding per entry.
    sum * (1.0 + 4.0 * f64::EPSILON * masses.len() as f64)
}

#[derive(Default)]
struct Totals {
    kappa: f64,
    /// Logarithm of the probability that no loss is infinite.
    infinite: f64,
    /// Logarithms of the moments for Chernoff's bound, upwards and downwards.
    exponents: [f64; 2],
    /// Per law, what its masses are multiplied by to have the sum 1.
    scale: Vec<f64>,
}

/// The product of the transforms of all laws, for both bounds.
struct Spectrum {
    above: (Vec<f64>, Vec<f64>),
    below: (Vec<f64>, Vec<f64>),
    /// Bound of the error of an entry of the sum's law from the errors of the transforms.
    errors: f64,
}

impl Spectrum {
    fn one(points: usize) -> Self {
        let one = || (vec![1.0; points], vec![0.0; points]);
        Self {
            above: one(),
            below: one(),
            errors: 0.0,
        }
    }

    /// Takes the law `count` times into the product; both its bounds go through one transform, as
    /// real and imaginary part.
    fn multiply(&mut self, fft: &Fft, lattice: &Lattice, scale: [f64; 2], centre: i64, count: u64) {
        let points = self.above.0.len();
        let (mut re, mut im) = (vec![0.0; points], vec![0.0; points]);
        let start = (lattice.first - centre).rem_euclid(points as i64) as usize;
        for (scale, (to, masses)) in scale
            .into_iter()
            .zip([(&mut re, &lattice.above), (&mut im, &lattice.below)])
        {
            let mut place = start;
            for mass in masses {
                to[place] += mass * scale;
                place += 1;
                if place == points {
                    place = 0;
                }
            }
        }
        let total: f64 = re.iter().chain(&im).sum();
        fft.forward(&mut re, &mut im);
        let error = per_entry(points) * total + 8.0 * f64::EPSILON;
        let many = count as f64;
        let floor = libm::pow(1e-3, (many - 1.0).min(5.0));
        let mut sum = 0.0;
        for place in 0..points {
            let partner = Fft::partner(place);
            if partner < place {
                continue;
            }
            let (r0, i0, r1, i1) = (re[place], im[place], re[partner], im[partner]);
            let each = [
                (&mut self.above, 0.5 * (r0 + r1), 0.5 * (i0 - i1)),
                (&mut self.below, 0.5 * (i0 + i1), 0.5 * (r1 - r0)),
            ];
            for (to, r, i) in each {
                let (pr, pi) = power(r, i, count);
                let (br, bi) = (to.0[place], to.1[place]);
                let (nr, ni) = (br * pr - bi * pi, br * pi + bi * pr);
                (to.0[place], to.1[place]) = (nr, ni);
                (to.0[partner], to.1[partner]) = (nr, -ni);
                let size = libm::sqrt(r * r + i * i);
                let slope = if size > 1e-3 {
                    1.1 * libm::sqrt(pr * pr + pi * pi) / size
                } else {
                    floor
                };
                sum += if partner == place { slope } else { 2.0 * slope };
            }
        }
        // Both bounds take the larger error, so the sum over both is generous. Errors that are not
        // small against 1 do not just add up: then nothing is known.
        self.errors += if many * error < 0.1 {
            many * error * sum / points as f64
        } else {
            f64::INFINITY
        };
    }

    /// The law of the sum, and a bound of the backward transform's error of an entry.
    fn finish(self, fft: &Fft) -> ([Vec<f64>; 2], f64) {
        let points = self.above.0.len();
        let mut re: Vec<f64> = self
            .above
            .0
            .iter()
            .zip(&self.below.1)
            .map(|(a, b)| a - b)
            .collect();
        let mut im: Vec<f64> = self
            .above
            .1
            .iter()
            .zip(&self.below.0)
            .map(|(a, b)| a + b)
            .collect();
        let total: f64 = re.iter().chain(&im).map(|x| x.abs()).sum();
        fft.backward(&mut re, &mut im);
        let scale = 1.0 / points as f64;
        for value in re.iter_mut().chain(&mut im) {
            *value *= scale;
        }
        ([re, im], per_entry(points) * total * scale)
    }
}

/// Bound of the error of an entry of a transform, relative to the sum of the magnitudes of the real
/// and imaginary parts of its input. Each entry is a sum over a tree of butterflies; a level adds at
/// most 9 half units in the last place of that sum: two for the twiddle factor, five for the
/// product and two for the sum.
fn per_entry(points: usize) -> f64 {
    4.5 * f64::EPSILON * f64::from(points.trailing_zeros())
}

/// A complex number to a power of at least 1, by squaring.
pub(super) fn power(mut re: f64, mut im: f64, mut exponent: u64) -> (f64, f64) {
    let (mut r, mut i) = (1.0, 0.0);
    while exponent > 1 {
        if exponent & 1 == 1 {
            (r, i) = (r * re - i * im, r * im + i * re);
        }
        (re, im) = (re * re - im * im, 2.0 * re * im);
        exponent >>= 1;
    }
    (r * re - i * im, r * im + i * re)
}
