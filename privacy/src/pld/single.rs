//! One step alone, without lattice or transform.

use super::lattice::Rules;
use super::law::{CutPair, Law, Range, Smooth};

/// One step alone: `delta(epsilon)` of the finite losses is the sum, and for parts with a density the
/// integral, of `(1 - exp(epsilon - L))` over the outcomes with `L > epsilon`, all terms positive.
pub(crate) struct Single<'a> {
    law: &'a Law,
    rules: &'a Rules,
    parts: Vec<(f64, &'a Smooth, Range)>,
    /// The largest loss that is looked at.
    most: f64,
    /// The largest exponent of a point mass.
    size: f64,
}

impl<'a> Single<'a> {
    /// `None` for parts that are too wide to be integrated quickly.
    pub(crate) fn new(law: &'a Law, rules: &'a Rules) -> Option<Self> {
        const WIDEST: f64 = 3000.0;
        const LN_TAIL: f64 = -745.0;
        let (mut most, mut size) = (0.0_f64, 0.0_f64);
        let mut parts = Vec::with_capacity(law.smooth.len());
        for (weight, smooth) in &law.smooth {
            let range = smooth.range(LN_TAIL);
            if range.high - range.low > WIDEST {
                return None;
            }
            most = most.max(smooth.loss(range.high));
            parts.push((*weight, smooth, range));
        }
        for atom in &law.atoms {
            most = most.max(atom.loss);
            size = size.max(atom.loss.abs()).max(atom.ln_mass.abs());
        }
        Some(Self {
            law,
            rules,
            parts,
            most,
            size,
        })
    }

    /// Where the integral of a part ends, of which it begins here.
    fn end(part: &(f64, &Smooth, Range), from: f64) -> f64 {
        match part.1 {
            // Beyond lies less than a share of exp(-70).
            Smooth::Normal(pair) | Smooth::Cut(CutPair { pair, .. }) => {
                (from.max(pair.extent().high) + 12.0).min(part.2.high)
            }
            Smooth::Laplace(_) => part.2.high,
        }
    }

    /// Exponents are rounded by as much, relative to 1; so is the point where the loss reaches
    /// `epsilon`.
    fn rounding(&self, epsilon: f64) -> f64 {
        let size = self.parts.iter().fold(self.size, |size, part| {
            let from = part.1.inverse(epsilon, part.2.low, part.2.high);
            let end = Self::end(part, from);
            size.max(from * from).max(end * end)
        });
        16.0 * f64::EPSILON * (1.0 + size)
    }

    /// The integral, and what it leaves out, which counts as infinite loss.
    fn value(&self, epsilon: f64) -> (f64, f64) {
        let (mut sum, mut rest) = (0.0, 0.0);
        for part in &self.parts {
            let (weight, smooth, range) = part;
            let from = smooth.inverse(epsilon, range.low, range.high);
            let end = Self::end(part, from);
            match smooth {
                Smooth::Normal(pair) => {
                    rest += weight * libm::exp(pair.ln_tail(end, true)) * (1.0 + 1e-10);
                }
                Smooth::Cut(cut) if end < cut.high => {
                    rest += weight * libm::exp(cut.pair.ln_tail(end, true)) * (1.0 + 1e-10);
                }
                Smooth::Cut(_) | Smooth::Laplace(_) => {}
            }
            let mut part = 0.0;
            self.rules.nodes(smooth, from, end, |x, node| {
                let (loss, ln_density) = smooth.both(x);
                part += node * libm::exp(ln_density) * -libm::expm1((epsilon - loss).min(0.0));
            });
            sum += weight * part;
        }
        for atom in &self.law.atoms {
            if atom.loss > epsilon {
                sum += libm::exp(atom.ln_mass) * -libm::expm1(epsilon - atom.loss);
            }
        }
        (sum, rest)
    }

    pub(crate) fn upper(&self, epsilon: f64) -> f64 {
        let rounding = self.rounding(epsilon);
        let (sum, rest) = self.value((epsilon - rounding).max(0.0));
        (sum * (1.0 + rounding + 1e-12) + rest).min(1.0)
    }

    pub(crate) fn lower(&self, epsilon: f64) -> f64 {
        let rounding = self.rounding(epsilon);
        let (sum, _) = self.value(epsilon + rounding);
        (sum * (1.0 - rounding - 1e-12)).clamp(0.0, 1.0)
    }

    /// The first point, closely, from which on the upper bound is at most `delta`.
    pub(crate) fn upper_epsilon(&self, delta: f64) -> f64 {
        self.reach(delta, |epsilon| self.upper(epsilon)).1
    }

    /// A point up to which the lower bound is above `delta`.
    pub(crate) fn lower_epsilon(&self, delta: f64) -> f64 {
        self.reach(delta, |epsilon| self.lower(epsilon)).0
    }

    /// Neighbouring points of which the falling `bound` is above `delta` at the first (unless that is
    /// 0), and not above it at the second.
    fn reach(&self, delta: f64, bound: impl Fn(f64) -> f64) -> (f64, f64) {
        let first = bound(0.0);
        if first <= delta {
            return (0.0, 0.0);
        }
        // Where less than `delta` lies above, or else the end of the range.
        let likely = self
            .parts
            .iter()
            .map(|(_, smooth, range)| {
                let end = smooth.range(libm::log(delta).max(-740.0)).high;
                smooth.loss(end.min(range.high))
            })
            .chain(self.law.atoms.iter().map(|atom| atom.loss))
            .fold(0.0, f64::max);
        let (mut low, mut high) = (0.0, likely);
        let mut at_high = bound(high);
        if at_high > delta {
            (low, high) = (high, self.most + 1.0);
            at_high = bound(high);
            if at_high > delta {
                return (high, f64::INFINITY);
            }
        }
        // Regula falsi on the logarithm after Anderson and Björck 1973: an end that stays counts
        // for less and less.
        let target = libm::log(delta);
        let miss = |bound: f64| libm::log(bound.max(1e-320)) - target;
        let mut above = miss(if low > 0.0 { bound(low) } else { first });
        let mut below = miss(at_high);
        let mut last = 0.0;
        for step in 0..100 {
            if high - low <= 2e-15 * high {
                break;
            }
            let secant = low + above / (above - below) * (high - low);
            let inside = secant > low && secant < high && step % 8 != 7;
            let middle = if inside { secant } else { 0.5 * (low + high) };
            if middle <= low || middle >= high {
                break;
            }
            let there = bound(middle);
            let value = miss(there);
            if there > delta {
                if last > 0.0 {
                    below *= factor(value, above);
                }
                (low, above, last) = (middle, value, 1.0);
            } else {
                if last < 0.0 {
                    above *= factor(value, below);
                }
                (high, below, last) = (middle, value, -1.0);
            }
        }
        (low, high)
    }
}

/// What the value of an end that stays is multiplied by.
fn factor(new: f64, old: f64) -> f64 {
    let factor = 1.0 - new / old;
    if factor > 0.0 { factor } else { 0.5 }
}

/// The upper bound of `epsilon` for one step, its infinite losses included; infinite where
/// [`Single`] has none.
pub(crate) fn epsilon_of(law: &Law, delta: f64, rules: &Rules) -> f64 {
    let rest = (delta - law.infinite * (1.0 + 1e-14)) * (1.0 - 1e-15);
    match Single::new(law, rules) {
        Some(one) if rest > 0.0 => one.upper_epsilon(rest),
        _ => f64::INFINITY,
    }
}
