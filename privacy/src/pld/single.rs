//! One step alone, without lattice or transform.

use super::compose::Question;
use super::lattice::Rules;
use super::law::{CutPair, Law, Smooth};

/// One step alone: `delta(epsilon)` is the sum, and for parts with a density the integral, of
/// `(1 - exp(epsilon - L))` over the outcomes with `L > epsilon`, all terms positive. `None` for parts
/// that are too wide to be integrated quickly.
pub(crate) fn single(law: &Law, question: Question, rules: &Rules) -> Option<(f64, f64)> {
    const WIDEST: f64 = 3000.0;
    // What is cut off counts as infinite loss; it is small beside any `delta` that is a number.
    let ln_tail = match question {
        Question::Epsilon(delta) => libm::log(delta) - 34.0,
        Question::Delta(epsilon) => law
            .smooth
            .iter()
            .map(|(_, smooth)| match smooth {
                Smooth::Normal(pair) | Smooth::Cut(CutPair { pair, .. }) => {
                    let extent = pair.extent();
                    let from = smooth.inverse(epsilon, extent.low - 40.0, extent.high + 40.0);
                    let past = (from - extent.low).max(0.0);
                    (-0.5 * (past + 1.0) * (past + 1.0) - 40.0).max(-745.0)
                }
                Smooth::Laplace(_) => 0.0,
            })
            .fold(0.0, f64::min),
    };
    let (mut tail, mut most) = (law.infinite, 0.0_f64);
    // Exponents of this size are rounded; so is the point where the loss reaches `epsilon`.
    let mut size = 0.0_f64;
    let mut parts = Vec::with_capacity(law.smooth.len());
    for (weight, smooth) in &law.smooth {
        let range = smooth.range(ln_tail);
        if range.high - range.low > WIDEST {
            return None;
        }
        tail += weight * libm::exp(range.ln_above);
        most = most.max(smooth.loss(range.high));
        size = size.max(range.low * range.low).max(range.high * range.high);
        parts.push((weight, smooth, range));
    }
    for atom in &law.atoms {
        most = most.max(atom.loss);
        size = size.max(atom.loss.abs()).max(atom.ln_mass.abs());
    }
    let value = |epsilon: f64| {
        let mut sum = 0.0;
        for (weight, smooth, range) in &parts {
            let from = smooth.inverse(epsilon, range.low, range.high);
            let mut part = 0.0;
            rules.nodes(smooth, from, range.high, |x, node| {
                let (loss, ln_density) = smooth.both(x);
                part += node * libm::exp(ln_density) * -libm::expm1((epsilon - loss).min(0.0));
            });
            sum += *weight * part;
        }
        for atom in &law.atoms {
            if atom.loss > epsilon {
                sum += libm::exp(atom.ln_mass) * -libm::expm1(epsilon - atom.loss);
            }
        }
        sum
    };
    let rounding = 16.0 * f64::EPSILON * (1.0 + size);
    let upper = |epsilon: f64| {
        let value = value((epsilon - rounding).max(0.0));
        (value * (1.0 + rounding + 1e-12) + tail * (1.0 + 1e-14)).min(1.0)
    };
    let lower = |epsilon: f64| {
        value(epsilon + rounding) * (1.0 - rounding - 1e-12) + law.infinite * (1.0 - 1e-14)
    };
    let delta = match question {
        Question::Delta(epsilon) => return Some((lower(epsilon).clamp(0.0, 1.0), upper(epsilon))),
        Question::Epsilon(delta) => delta,
    };
    if upper(0.0) <= delta {
        return Some((0.0, 0.0));
    }
    if tail >= delta {
        let lower = if law.infinite * (1.0 - 1e-14) > delta {
            f64::INFINITY
        } else {
            0.0
        };
        return Some((lower, f64::INFINITY));
    }
    // The loss at the end of the range is more than enough.
    let (mut low, mut high) = (0.0, most + 1.0);
    let (mut at_low, mut at_high) = (value(0.0), 0.0_f64);
    // Secants on the logarithm, with halving where they do not help.
    let goal = delta - tail;
    let target = libm::log(goal);
    for step in 0..80 {
        let slope = libm::log(at_low) - libm::log(at_high.max(1e-300));
        let secant = low + (libm::log(at_low) - target) / slope * (high - low);
        let inside = secant > low && secant < high && step % 3 != 2;
        let middle = if inside { secant } else { 0.5 * (low + high) };
        if middle <= low || middle >= high {
            break;
        }
        let there = value(middle);
        if there > goal {
            (low, at_low) = (middle, there);
        } else {
            (high, at_high) = (middle, there);
        }
        if high - low <= 1e-13 * high {
            break;
        }
    }
    let widen = |sign: f64, holds: &dyn Fn(f64) -> bool| {
        let start = if sign > 0.0 { high } else { low };
        let mut step = 1e-14 * high + rounding;
        for _ in 0..200 {
            let end = start + sign * step;
            if end <= 0.0 || holds(end) {
                return end.max(0.0);
            }
            step *= 1.6;
        }
        if sign > 0.0 { f64::INFINITY } else { 0.0 }
    };
    Some((
        widen(-1.0, &|end| lower(end) > delta),
        widen(1.0, &|end| upper(end) <= delta),
    ))
}
