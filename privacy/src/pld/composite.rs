//! The law of the summed loss of many steps on a lattice, from above and from below.
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
use super::lattice::{Lattice, Layout, Rules};
use super::law::Law;
use super::spectrum::Spectrum;
use super::tilt::{LN_WINDOW, Plan};
use crate::accountant::Fineness;

/// A running power is computed anew after so many products.
const FRESH: usize = 256;

/// The composed law in a window of the lattice.
pub(super) struct Composite {
    /// Distance of lattice points.
    step: f64,
    /// The lattice point of index 0.
    offset: f64,
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
    /// Mass that is counted as infinite loss though it is none.
    infinite: f64,
}

impl Composite {
    pub(super) fn new(
        laws: &[(Law, u64)],
        plan: &mut Plan,
        rules: &Rules,
        fineness: Fineness,
    ) -> Self {
        let (mut step, mut whole, mut reaches) = spacing(laws, plan, fineness);
        // What differs by less than a lattice step, no tilt tells apart.
        if plan.theta * step > STEEPEST {
            plan.retilt(STEEPEST / step);
            (step, whole, reaches) = spacing(laws, plan, fineness);
        }
        let theta = plan.theta;
        let [(_, lambda_up), (_, lambda_down)] = reaches;
        // A sharper exponent sees single lattice points.
        let (lambda_up, lambda_down) = (lambda_up.min(1.0 / step), lambda_down.min(1.0 / step));

        let mut sides = [Totals::default(), Totals::default()];
        let mut origin = 0_i128;
        let mut shift = 0.0;
        let mut blur = 0.0;
        let mut offset = 0.0;
        // Logarithm of the probability that no loss is infinite.
        let mut none = 0.0;
        let mut lattices = Vec::with_capacity(laws.len());
        for (((law, count), sketch), cut) in laws.iter().zip(&plan.sketches).zip(&plan.cuts) {
            let [kappa, mean, _] = sketch.cumulant(theta);
            let base = if whole {
                0.0
            } else {
                sketch.offset(theta, step)
            };
            offset += *count as f64 * base;
            let layout = Layout {
                step,
                offset: base,
                theta,
                kappa,
                ln_tail: plan.ln_tail,
                // Outwards to the lattice.
                low: libm::floor((cut.low - base) / step) * step + base,
                high: libm::ceil((cut.high - base) / step) * step + base,
                exact: cut.exact,
            };
            let lattice = Lattice::new(law, sketch, rules, layout);
            let centre = libm::round((mean - base) / step) as i64;
            let many = *count as f64;
            for (total, masses) in sides.iter_mut().zip([&lattice.above, &lattice.below]) {
                let sum: f64 = masses.iter().sum();
                total.scale.push(1.0 / sum);
                total.kappa += many * (kappa + libm::log(sum));
                for (exponent, lambda) in total.exponents.iter_mut().zip([lambda_up, -lambda_down])
                {
                    let ln_moment = ln_moment(masses, lambda * step, centre - lattice.first);
                    *exponent += many * (ln_moment - libm::log(sum));
                }
            }
            // Logarithms of the probability that no finite loss counts as infinite.
            let up = 1.0 + 1e-11;
            let finite = 1.0 - law.infinite.min(1.0 - f64::EPSILON);
            sides[0].infinite += many * libm::log1p(-(lattice.lost_above / finite * up).min(1.0));
            sides[1].infinite += many * libm::log1p(-(lattice.lost_below / up).min(1.0));
            none += many * libm::log1p(-law.infinite.min(1.0));
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
        let start = start.min((plan.epsilon - offset) / step) - 4.0;
        let end = origin as f64 + reach(0, lambda_up);
        let end = end.max((plan.epsilon - offset) / step) + 4.0;
        // As much of what may be asked for as there is room for.
        let [below, above] = [
            start - (plan.around.0 - offset) / step,
            (plan.around.1 - offset) / step - end,
        ]
        .map(|missing| if missing > 0.0 { missing + 4.0 } else { 0.0 });
        let room = (fineness.points as f64 - 8.0 - (end - start)).max(0.0);
        let share = (room / (below + above)).min(1.0);
        let (start, end) = if share > 0.0 {
            (start - share * below, end + share * above)
        } else {
            (start, end)
        };
        let points = ((end - start + 8.0).min(4.0 * fineness.points as f64) as usize)
            .next_power_of_two()
            .max(64);
        let first = libm::floor(start) as i64;

        let fft = Fft::of(points);
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
                let mass = (sums[which][(start + j) & (points - 1)] + noise).max(0.0);
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
                infinite: -libm::expm1(totals.infinite) * libm::exp(none) * (1.0 + sign * 1e-11),
            }
        });
        // The sum of offsets is rounded, too.
        shift += 4.0 * f64::EPSILON * offset;
        Self {
            step,
            offset,
            theta,
            first,
            above,
            below,
            shift,
        }
    }

    /// How many numbers it holds, roughly.
    pub(super) fn size(&self) -> usize {
        4 * self.above.tail.len()
    }

    /// The upper bound of `delta` at `distance` (up to one step) below a lattice point.
    fn upper(&self, place: usize, distance: f64) -> f64 {
        let side = &self.above;
        let loss = self.loss(place);
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
        let loss = self.loss(place);
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
        let place = libm::ceil((epsilon - self.offset) / self.step) - self.first as f64;
        if place >= last as f64 {
            return (last, 0.0);
        }
        let place = place.max(0.0) as usize;
        let distance = self.loss(place) - epsilon;
        // Below the window, the bound is that of its first point: see the caller.
        (place, distance.clamp(0.0, self.step))
    }

    /// The upper bound of what finite losses add to `delta`: it falls with `epsilon`.
    pub(super) fn upper_delta(&self, epsilon: f64) -> f64 {
        let start = self.loss(0);
        let value = if epsilon - self.shift < start {
            1.0
        } else {
            let (place, distance) = self.place(epsilon - self.shift);
            self.upper(place, distance)
        };
        if value < 1.0 { value } else { 1.0 }
    }

    /// The lower bound of what finite losses add to `delta`.
    pub(super) fn lower_delta(&self, epsilon: f64) -> f64 {
        let start = self.loss(0);
        let end = self.loss(self.below.tail.len() - 2);
        let lower = if epsilon + self.shift > end {
            self.below.infinite
        } else {
            let (place, distance) = self.place((epsilon + self.shift).max(start));
            self.lower(place, distance)
        };
        if lower > 0.0 { lower.min(1.0) } else { 0.0 }
    }

    fn loss(&self, place: usize) -> f64 {
        self.offset + (self.first + place as i64) as f64 * self.step
    }

    /// The first point at which the upper bound is at most `delta`; infinite where that is outside
    /// the window.
    pub(super) fn upper_epsilon(&self, delta: f64) -> f64 {
        let points = self.above.tail.len();
        // Up: the first place whose bound is small enough; bounds fall with the place.
        let (mut low, mut high) = (0, points);
        while low < high {
            let middle = (low + high) / 2;
            if self.upper(middle, 0.0) <= delta {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let upper = if low == points {
            f64::INFINITY
        } else if low == 0 {
            self.loss(0)
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
            self.loss(low) - near
        };
        // Rounded upwards, so that the way back finds a point that is no lower.
        let upper = upper + 4.0 * f64::EPSILON * upper.abs();
        (upper + self.shift).max(0.0)
    }

    /// A point up to which the lower bound is above `delta`.
    pub(super) fn lower_epsilon(&self, delta: f64) -> f64 {
        let points = self.below.tail.len();
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
            self.loss(points - 1)
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
            self.loss(low) - far
        };
        (lower - self.shift).max(0.0)
    }
}

/// With a larger product of tilt and lattice step the tilt is lowered.
const STEEPEST: f64 = 20.0;

/// The lattice step for a plan, whether every loss is a multiple of it, and what [`Plan::reach`]
/// says upwards and downwards.
fn spacing(laws: &[(Law, u64)], plan: &Plan, fineness: Fineness) -> (f64, bool, [(f64, f64); 2]) {
    let reaches = [plan.reach(1.0), plan.reach(-1.0)];
    let window = reaches[0].0 + reaches[1].0;
    // What a step holds must fit into memory, too.
    let widest = plan
        .sketches
        .iter()
        .map(|sketch| {
            let (low, high) = sketch.span();
            if low <= high { high - low } else { 0.0 }
        })
        .fold(0.0, f64::max);
    let least = (window / (fineness.points - 64) as f64)
        .max(widest / (4 * fineness.points) as f64)
        .max(1e-12 * (plan.epsilon.abs() + window + widest));
    match common(laws) {
        // On this lattice nothing is rounded.
        Some(unit) if unit >= least => (unit, true, reaches),
        _ => (plan.step(plan.epsilon, fineness).max(least), false, reaches),
    }
}

/// The largest number that every loss is a multiple of, to rounding, where all are point masses.
fn common(laws: &[(Law, u64)]) -> Option<f64> {
    if laws.iter().any(|(law, _)| !law.smooth.is_empty()) {
        return None;
    }
    let losses = || {
        laws.iter()
            .flat_map(|(law, _)| &law.atoms)
            .map(|atom| atom.loss.abs())
    };
    let most = losses().fold(0.0, f64::max);
    let nothing = 1e-9 * most;
    // Euclid's algorithm; a divisor this small would be of no use.
    let useful = most / f64::from(1 << 17);
    let mut unit = most;
    for loss in losses() {
        let (mut large, mut small) = (unit, loss);
        while small > nothing {
            let rest = large % small;
            (large, small) = (small, rest.min(small - rest));
        }
        unit = large;
        if unit < useful {
            return None;
        }
    }
    // Free of the errors that the divisions have piled up.
    let unit = most / libm::round(most / unit);
    let close = |loss: f64| {
        let whole = libm::round(loss / unit) * unit;
        (whole - loss).abs() <= 8.0 * f64::EPSILON * most
    };
    (unit > 0.0 && losses().all(close)).then_some(unit)
}

/// `ln E exp(lambda (S - centre))` in units of the lattice, rounded upwards.
///
/// Summed relative to the end where the exponential is largest, so that nothing overflows; what
/// underflows is covered by a tiny share of the whole.
fn ln_moment(masses: &[f64], lambda: f64, centre: i64) -> f64 {
    let Some(first) = masses.iter().position(|mass| *mass > 0.0) else {
        return f64::NEG_INFINITY;
    };
    let last = masses.iter().rposition(|mass| *mass > 0.0).unwrap_or(first);
    let held = &masses[first..=last];
    let rate = lambda.abs();
    let fall = libm::exp(-rate);
    let sum = |masses: &mut dyn Iterator<Item = &f64>| {
        let (mut sum, mut all, mut power) = (0.0, 0.0, 1.0);
        for (k, &mass) in masses.enumerate() {
            if k.is_multiple_of(FRESH) {
                power = libm::exp(-rate * k as f64);
            }
            sum += mass * power;
            all += mass;
            power *= fall;
        }
        // The running power is off by a rounding per entry, the sum by as many.
        sum * (1.0 + 4.0 * f64::EPSILON * (FRESH + held.len()) as f64) + all * 1e-290
    };
    let (sum, place) = if lambda >= 0.0 {
        (sum(&mut held.iter().rev()), last)
    } else {
        (sum(&mut held.iter()), first)
    };
    libm::log(sum) + lambda * (place as i64 - centre) as f64
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
