//! Dominating pairs of Gaussian noise on samples: pairs of normal mixtures.

use super::binomial::binomial_at_least;
use super::dominate::{Pair, Step};
use super::law::{Atom, CutPair, Law, NormalPair, Smooth};
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

/// A member that joins a sample of fixed size pushes another out of it. All that an outcome can be
/// moved by, from any of the three members to any other, is one sensitivity.
///
/// Take out of a sample the member, if it is there, or else any one of those drawn. What remains, `R`, is
/// in both cases one of the sets of that size without the member, each with the same probability. So
/// given `R` the member is still drawn with probability `q`, or else one of those who are neither it
/// nor in `R` (the coupling of Balle, Barthe and Gaboardi 2018, arXiv 1807.01647). Being told `R` only
/// helps to tell the data sets apart; given it, these give `P = (1 - q) Y + q X` and
/// `Q = (1 - q) Y + q X'`, with `X` and `X'` normal laws and `Y` a mixture of normal laws, of which any
/// two have means at most `mean` apart.
///
/// Let `H_a(P || Q)` be the hockey-stick divergence `sup_A P(A) - a Q(A)`, which is convex in `P` and
/// `Q` together, and for `alpha` at least 1 let `alpha' = 1 + q (alpha - 1)` and
/// `beta = alpha' / alpha`, at most 1. As `(1 - q) (1 - alpha') = -q alpha (1 - beta)` and
/// `q alpha' = q alpha beta`,
///
/// `P(A) - alpha' Q(A) = q (X(A) - alpha ((1 - beta) Y(A) + beta X'(A)))`
///
/// for every set `A` of outcomes, and so
///
/// `H_alpha'(P || Q) = q H_alpha(X || (1 - beta) Y + beta X') <= q H_alpha(N(mean, 1) || N(0, 1))`.
///
/// That is the divergence of a Poisson sample's *remove* pair. For `alpha'` below 1 that of its *add*
/// pair is a bound: the relation is symmetric, and `H_a(P || Q) = 1 - a + a H_(1/a)(Q || P)`, as the
/// positive part of a number is that number and the positive part of its opposite.
///
/// Both halves are convex in the order and meet at 1. There, with `S` the probability that a normal
/// law exceeds half of `mean`, the slope is `-1 + q (1 - 2 S) + S` before and `-S` after, which is more
/// by `(1 - q) (1 - 2 S)`, so that together they are convex, too. Hence they are the divergences of a
/// pair of laws, which then dominates: its losses above 0 are those of the *remove* pair, those below 0
/// those of the *add* pair, and the rest of the mass, just that difference of slopes, is at 0. It is
/// the same law in both directions.
///
/// No smaller pair dominates: with every other member at one end, the member and the one that
/// replaces it at both, the divergences for `alpha'` above 1 are these. Over several steps it need
/// not be reached (Lebeda, Regehr, Kamath and Steinke 2024, arXiv 2405.20769): there that one pair of
/// data sets, the [attack](Pair::attack), is the lower bound.
pub(super) fn pushing_out(rate: f64, mean: f64) -> Law {
    let pair = |swapped| NormalPair {
        upper: with_rate(rate, mean),
        lower: vec![(0.0, 0.0)],
        swapped,
    };
    let half = 0.5 * mean;
    let gains = CutPair {
        pair: pair(false),
        low: half,
        high: f64::INFINITY,
    };
    let losses = CutPair {
        pair: pair(true),
        low: f64::NEG_INFINITY,
        high: -half,
    };
    let rest = (1.0 - rate) * libm::erf(half * core::f64::consts::FRAC_1_SQRT_2);
    let atom = (rest > 0.0).then(|| Atom {
        loss: 0.0,
        ln_mass: libm::log(rest) + 1e-15,
    });
    Law {
        atoms: atom.into_iter().collect(),
        infinite: 0.0,
        smooth: vec![(1.0, Smooth::Cut(gains)), (1.0, Smooth::Cut(losses))],
    }
}

/// A sample of fixed size under `replace-one`: see [`pushing_out`].
pub(super) fn fixed_size(rate: f64, mean: f64) -> Step {
    let sampled = |swapped| normal(with_rate(rate, mean), vec![(0.0, 0.0)], swapped);
    Step::Pair(Pair {
        remove: pushing_out(rate, mean),
        add: None,
        loose: true,
        attack: Some(Box::new([sampled(false), sampled(true)])),
        // At high rates no sampling at all is the better bound.
        plain: Some(mean * mean * (1.0 + 4.0 * f64::EPSILON)),
    })
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
/// (that the others who are drawn reach the limit) a member that is kept pushes out another, else it
/// joins as in a Poisson sample. Whether they do is told, which only helps to tell apart.
///
/// Where a member pushes another out, its mean and the other's are at most two norms apart. When
/// members are added or removed it is a Poisson sample's pair at that distance: without the member,
/// the other is always there. When they are replaced it is [`pushing_out`]. (`dp_accounting` 0.6
/// takes, for every relation, the pair in which the replaced and the replacing member lie on opposite
/// sides of the other, each two norms away.)
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
    // Both directions of a Poisson sample.
    let joining = |rate: f64| match relation {
        NeighboringRelation::ReplaceOne => {
            let law = normal(with_rate(rate, mean), with_rate(rate, -mean), false);
            [law.clone(), law]
        }
        _ => [false, true].map(|swapped| normal(with_rate(rate, mean), vec![(0.0, 0.0)], swapped)),
    };
    // Rounded up: the case in which another is pushed out is the worse one.
    let up = 1.0 + 1e-11;
    let binding = (binomial_at_least(population - 1, limit, rate) * up).min(1.0);
    if binding <= 0.0 {
        let [remove, add] = joining(rate);
        return Step::Pair(Pair::tight(remove, Some(add)));
    }
    // The probability to be kept, given that the limit binds.
    let more = binomial_at_least(population, limit.saturating_add(1), rate);
    let kept = more * limit as f64 / binding / population as f64 * up;
    let kept = kept.clamp(1e-300, 1.0);
    let pushing = match relation {
        NeighboringRelation::AddOrRemoveOne => [false, true]
            .map(|swapped| normal(with_rate(kept, 2.0 * mean), vec![(0.0, 0.0)], swapped)),
        _ => [pushing_out(kept, 2.0 * mean), pushing_out(kept, 2.0 * mean)],
    };
    let [remove, add] = [0, 1].map(|which| {
        let mut law = joining(rate)[which].clone();
        for (weight, _) in &mut law.smooth {
            *weight *= 1.0 - binding;
        }
        law.smooth.retain(|(weight, _)| *weight > 0.0);
        let pushed = pushing[which].clone();
        for (weight, smooth) in pushed.smooth {
            law.smooth.push((weight * binding, smooth));
        }
        for atom in pushed.atoms {
            law.atoms.push(Atom {
                ln_mass: atom.ln_mass + libm::log(binding),
                ..atom
            });
        }
        law
    });
    // What it is to be kept, limit or not, rounded down: where the others contribute nothing, that
    // is all there is.
    let any = (rate * (1.0 - binding) + kept * binding) * (1.0 - 1e-9);
    Step::Pair(Pair {
        remove,
        add: Some(add),
        loose: true,
        attack: (any > 0.0).then(|| Box::new(joining(any))),
        // Sampled or not, one member at most moves the sum by two norms.
        plain: Some(4.0 * mean * mean * (1.0 + 4.0 * f64::EPSILON)),
    })
}
