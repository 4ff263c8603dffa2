//! What `epsilon` or `delta` follows from the laws of many steps: a first look on a coarse lattice,
//! then one that is as fine as wanted, where the answer lies.
//!
//! Laws that [`super::contour`] takes need no lattice. For the others [`super::tilt`] chooses tilt
//! and window, and [`super::composite`] composes.

use super::composite::Composite;
use super::contour;
use super::lattice::{Rules, Sketch};
use super::law::Law;
use super::tilt::Plan;
use crate::accountant::Fineness;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// `delta` for this `epsilon`, finite.
    Delta(f64),
    /// `epsilon` for this `delta`, above 0 and below 1.
    Epsilon(f64),
}

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
    let rules = Rules::get();
    let (epsilon, ln_least) = match question {
        Question::Epsilon(delta) => (known, libm::log(delta)),
        Question::Delta(epsilon) => (epsilon, libm::log(known)),
    };
    if known > 0.0 && is_below(laws, rules, epsilon, ln_least) {
        return (0.0, 0.0);
    }
    if let Some(exact) = contour::answer(laws, question, rules, contour::QUICK, f64::INFINITY) {
        return exact;
    }
    let (lower, upper) = on_lattice(laws, question, fineness, rules);
    // Where a law is concentrated and has a long tail, no tilt shows `delta` well.
    let gap = match question {
        Question::Epsilon(_) => 1e-4 * upper + 10.0 * fineness.absolute,
        Question::Delta(_) => 1e-2 * upper,
    };
    if upper - lower <= gap {
        return (lower, upper);
    }
    match contour::answer(laws, question, rules, contour::THOROUGH, upper) {
        Some((least, most)) => (lower.max(least), upper.min(most)),
        None => (lower, upper),
    }
}

/// The same by the lattice alone.
fn on_lattice(
    laws: &[(Law, u64)],
    question: Question,
    fineness: Fineness,
    rules: &Rules,
) -> (f64, f64) {
    // Mass that is cut off counts as infinite loss: it must be small beside `delta`, which for a
    // question about `delta` is itself estimated first.
    let steps: f64 = laws.iter().map(|(_, count)| *count as f64).sum();
    let ln_steps = libm::log(steps.max(1.0));
    let mut ln_delta = match question {
        Question::Epsilon(delta) => libm::log(delta),
        Question::Delta(_) => -60.0,
    };
    let mut plan = Plan::new(laws, rules, ln_delta - ln_steps - 34.0, question);
    if let Question::Delta(_) = question {
        for _ in 0..4 {
            if plan.ln_delta > ln_delta - 1.0 {
                break;
            }
            ln_delta = plan.ln_delta.max(-690.0);
            plan = Plan::new(laws, rules, ln_delta - ln_steps - 34.0, question);
        }
    }
    let look = |plan: &Plan, fineness| {
        let composite = Composite::new(laws, plan, rules, fineness);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pld::law::{NormalPair, Smooth};

    /// The integral along a line and the lattice share only the law itself.
    #[test]
    fn both_ways_bracket_the_same_answer() {
        let rules = Rules::get();
        let mut seen = 0;
        for (rate, mean, count) in [
            (0.001, 2.0, 1000),
            (0.01, 1.0, 100),
            (0.1, 1.5, 30),
            (0.3, 0.2, 200),
            (0.05, 3.0, 50),
        ] {
            for swapped in [false, true] {
                for both in [false, true] {
                    let parts =
                        |mean: f64| vec![(libm::log1p(-rate), 0.0), (libm::log(rate), mean)];
                    let pair = NormalPair {
                        upper: parts(mean),
                        lower: if both { parts(-mean) } else { vec![(0.0, 0.0)] },
                        swapped,
                    };
                    let law = Law {
                        atoms: Vec::new(),
                        infinite: 0.0,
                        smooth: vec![(1.0, Smooth::Normal(pair))],
                    };
                    let laws = [(law, count)];
                    for question in [Question::Epsilon(1e-6), Question::Delta(0.5)] {
                        let Some((low, high)) = crate::pld::contour::answer(
                            &laws,
                            question,
                            rules,
                            contour::QUICK,
                            f64::INFINITY,
                        ) else {
                            continue;
                        };
                        seen += 1;
                        let (least, most) = on_lattice(&laws, question, COARSE, rules);
                        let name = format!(
                            "{rate} {mean} {count} {swapped} {both} {question:?}: {low} {high} \
                             {least} {most}"
                        );
                        assert!(low <= high && low <= most && least <= high, "{name}");
                        assert!(high - low <= 1e-3 * high, "{name}");
                    }
                }
            }
        }
        assert!(seen >= 28, "{seen}");
    }
}
