//! Dominating pairs of Gaussian noise on samples: pairs of normal mixtures.

use super::binomial::binomial_at_least;
use super::dominate::{Pair, Step};
use super::law::{Law, NormalPair, Smooth};
use crate::relation::NeighboringRelation;

/// With less noise than this inverse, sampling is not credited: there is hardly any privacy, and
/// loss as a function of the outcome becomes too steep to integrate quickly.
pub(super) const STEEPEST: f64 = 200.0;

fn normal(upper: Vec<(f64, f64)>, lower: Vec<(f64, f64)>, swapped: bool) -> Law {
    Law {
        atoms: Vec::new(),
        infinite: 0.0,
        smooth: vec![(
            1.0,
            Smooth::Normal(NormalPair {
                upper,
                lower,
                swapped,
            }),
        )],
    }
}

/// Both directions of two normal mixtures.
fn directions(upper: Vec<(f64, f64)>, lower: Vec<(f64, f64)>) -> Step {
    Step::Pair(Pair::tight(
        normal(upper.clone(), lower.clone(), false),
        Some(normal(upper, lower, true)),
    ))
}

fn with_rate(rate: f64, mean: f64) -> Vec<(f64, f64)> {
    if rate >= 1.0 {
        vec![(0.0, mean)]
    } else {
        vec![(libm::log1p(-rate), 0.0), (libm::log(rate), mean)]
    }
}

/// A Poisson sample of Gaussian noise: `((1 - q) N(0, 1) + q N(mean, 1), N(0, 1))`.
pub(super) fn sampled_normal(rate: f64, mean: f64) -> Step {
    directions(with_rate(rate, mean), vec![(0.0, 0.0)])
}

/// Two members that are replaced by each other push a sampled sum to opposite sides. The two
/// directions mirror each other.
pub(super) fn replaced_normal(rate: f64, mean: f64) -> Step {
    let law = normal(with_rate(rate, mean), with_rate(rate, -mean), false);
    Step::Pair(Pair::tight(law, None))
}

/// A member of random contribution. Choquette-Choo, Ganesh, Steinke and Thakurta 2023, arXiv
/// 2310.15526, Section 4.
pub(super) fn mixture(rate: f64, noise: f64, sensitivities: &[f64], probabilities: &[f64]) -> Step {
    if sensitivities.iter().all(|amount| *amount <= 0.0) {
        return Step::Nothing;
    }
    if noise <= 0.0 {
        return Step::Everything;
    }
    let most = sensitivities.iter().copied().fold(0.0, f64::max) / noise;
    if !(most * most).is_finite() {
        return Step::Everything;
    }
    if most > STEEPEST {
        return Step::AtMostGaussian(most * most * (1.0 + 4.0 * f64::EPSILON));
    }
    let total: f64 = probabilities.iter().sum();
    let mut parts: Vec<(f64, f64)> = sensitivities
        .iter()
        .zip(probabilities)
        .map(|(amount, probability)| (amount / noise, rate * probability / total))
        .collect();
    if rate < 1.0 {
        parts.push((0.0, 1.0 - rate));
    }
    parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    parts.dedup_by(|next, kept| {
        let same = next.0 <= kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    let upper = parts
        .into_iter()
        .map(|(mean, weight)| (libm::log(weight), mean))
        .collect();
    directions(upper, vec![(0.0, 0.0)])
}

/// A Poisson sample that is cut to a limit. Ganesh 2025, arXiv 2508.15089: with probability `t`
/// (that the limit binds for a member that was drawn) the member pushes out another, else it joins
/// as in a Poisson sample; the bound with replacement covers the first case.
pub(super) fn truncated(
    population: u64,
    rate: f64,
    limit: u64,
    noise: f64,
    relation: NeighboringRelation,
) -> Step {
    if rate <= 0.0 {
        return Step::Nothing;
    }
    if noise <= 0.0 {
        return Step::Everything;
    }
    let mean = 1.0 / noise;
    if !(mean * mean).is_finite() {
        return Step::Everything;
    }
    if mean > 0.5 * STEEPEST {
        return Step::AtMostGaussian(4.0 * mean * mean * (1.0 + 4.0 * f64::EPSILON));
    }
    // Rounded up: the case with replacement is the worse one.
    let up = 1.0 + 1e-11;
    let binding = (binomial_at_least(population - 1, limit, rate) * up).min(1.0);
    let (plain_remove, plain_add) = match relation {
        NeighboringRelation::ReplaceOne => {
            let law = normal(with_rate(rate, mean), with_rate(rate, -mean), false);
            (law.clone(), law)
        }
        _ => (
            normal(with_rate(rate, mean), vec![(0.0, 0.0)], false),
            normal(with_rate(rate, mean), vec![(0.0, 0.0)], true),
        ),
    };
    let join = |mut plain: Law| {
        if binding > 0.0 {
            // The probability to be kept, given that the limit binds.
            let more = binomial_at_least(population, limit.saturating_add(1), rate);
            let kept = more * limit as f64 / binding / population as f64 * up;
            let kept = kept.clamp(1e-300, 1.0);
            let pushed = normal(
                with_rate(kept, 2.0 * mean),
                with_rate(kept, -2.0 * mean),
                false,
            );
            for (weight, _) in &mut plain.smooth {
                *weight *= 1.0 - binding;
            }
            plain.smooth.retain(|(weight, _)| *weight > 0.0);
            for (weight, smooth) in pushed.smooth {
                plain.smooth.push((weight * binding, smooth));
            }
        }
        plain
    };
    Step::Pair(Pair {
        remove: join(plain_remove),
        add: Some(join(plain_add)),
        // The case with replacement is a bound, not a pair of the mechanism's.
        loose: true,
        // Sampled or not, one member at most moves the sum by two sensitivities.
        plain: Some(4.0 * mean * mean * (1.0 + 4.0 * f64::EPSILON)),
    })
}
