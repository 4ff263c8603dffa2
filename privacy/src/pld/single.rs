//! One step of normal mixtures alone, without lattice or transform.

use super::compose::Question;
use super::lattice::Rules;
use super::law::{NormalPair, Smooth};

/// One step alone: `delta(epsilon)` is the integral of `(1 - exp(epsilon - L))` over the outcomes
/// with `L > epsilon`, all terms positive.
pub(super) fn single(pair: &NormalPair, question: Question) -> (f64, f64) {
    let rules = Rules::new();
    // What is cut off counts as infinite loss; it is small beside any `delta` that is a number.
    let ln_tail = match question {
        Question::Epsilon(delta) => libm::log(delta) - 34.0,
        Question::Delta(epsilon) => {
            let loss = Smooth::Normal(pair.clone());
            let extent = pair.extent();
            let from = loss.inverse(epsilon, extent.low - 40.0, extent.high + 40.0);
            let past = (from - extent.low).max(0.0);
            (-0.5 * (past + 1.0) * (past + 1.0) - 40.0).max(-745.0)
        }
    };
    let smooth = Smooth::Normal(pair.clone());
    let range = smooth.range(ln_tail);
    let tail = libm::exp(range.ln_above);
    let value = |epsilon: f64| {
        let from = smooth.inverse(epsilon, range.low, range.high);
        let mut sum = 0.0;
        rules.nodes(&smooth, from, range.high, |x, weight| {
            let (loss, ln_density) = smooth.both(x);
            sum += weight * libm::exp(ln_density) * -libm::expm1((epsilon - loss).min(0.0));
        });
        sum
    };
    // Exponents of this size are rounded; so is the point where the loss reaches `epsilon`.
    let size = (range.low * range.low).max(range.high * range.high);
    let rounding = 16.0 * f64::EPSILON * (1.0 + size);
    let upper = |epsilon: f64| {
        let value = value((epsilon - rounding).max(0.0));
        (value * (1.0 + rounding + 1e-12) + tail).min(1.0)
    };
    let lower = |epsilon: f64| value(epsilon + rounding) * (1.0 - rounding - 1e-12);
    match question {
        Question::Delta(epsilon) => (lower(epsilon), upper(epsilon)),
        Question::Epsilon(delta) => {
            if upper(0.0) <= delta {
                return (0.0, 0.0);
            }
            // The loss at the end of the range is more than enough.
            let (mut low, mut high) = (0.0, smooth.loss(range.high).max(0.0) + 1.0);
            let (mut at_low, mut at_high) = (value(0.0), 0.0_f64);
            // Secants on the logarithm, with halving where they do not help.
            let target = libm::log(delta);
            for step in 0..80 {
                let slope = libm::log(at_low) - libm::log(at_high.max(1e-300));
                let secant = low + (libm::log(at_low) - target) / slope * (high - low);
                let inside = secant > low && secant < high && step % 3 != 2;
                let middle = if inside { secant } else { 0.5 * (low + high) };
                if middle <= low || middle >= high {
                    break;
                }
                let there = value(middle);
                if there > delta {
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
            (
                widen(-1.0, &|end| lower(end) > delta),
                widen(1.0, &|end| upper(end) <= delta),
            )
        }
    }
}
