//! The white-box attack on canaries: exact likelihood ratios of every release.
//!
//! Let `g` be the length of a canary's clipped update, `s` the standard deviation of the noise on
//! the sum as it is measured where no canary has a value (so that the attack is the best one also
//! when the noise is not what it should be), and `x` the product of the released sum with the canary's direction. The canary
//! contributes `g` when it is in and takes part, which has probability `q`; so the likelihood of
//! `x`, over that of noise alone, is `1 - q + q exp((x g - g^2 / 2) / s^2)`. "Out" is 1, or the
//! same with `-g`. Rounds have noise of their own, so logarithms add up (Neyman and Pearson). Where
//! noise is correlated over the rounds they add up all the same: what the attack finds is a bound,
//! but not what the best attack would find.

use std::collections::BTreeMap;

use fl_core::{ClientId, Layout};
use fl_privacy::NeighboringRelation;
use fl_privacy::clip::{Clipper, l2_norm};

use super::cast::{Act, Roles, Update};
use super::{CanaryScore, Others};

/// Values of a canary's update: far beyond every clipping norm.
const SPIKE: f32 = 1e25;

/// What an attacker knows of who takes part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Knowledge {
    /// Only the probability in each round.
    Secret(f64),
    /// Who was selected, each of whom takes part with this probability.
    Cohort(f64),
}

/// A client made up for the audit.
#[derive(Clone, Debug)]
pub(super) struct Canary {
    client: ClientId,
    included: bool,
    /// Its place in each tensor that has one.
    places: Vec<usize>,
    score: f64,
}

/// Fewest places without canaries at which noise is measured, and most.
const MEASURED: core::ops::RangeInclusive<usize> = 50..=20_000;

/// The attack on one run.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    canaries: Vec<Canary>,
    relation: NeighboringRelation,
    knowledge: Knowledge,
    knows_others: bool,
    /// Places that no canary uses.
    free: Vec<usize>,
    /// The round's clipped update at a canary's places: a unit direction and its length.
    direction: Vec<f64>,
    length: f64,
}

impl Attack {
    pub(super) fn new(
        drawn: Vec<(ClientId, bool)>,
        layout: &Layout,
        relation: NeighboringRelation,
        knowledge: Knowledge,
        knows_others: bool,
    ) -> Self {
        let count = drawn.len();
        let places = |index: usize| {
            let tensors = layout.tensors().iter().map(|tensor| tensor.range());
            tensors
                .filter(|range| range.len() >= count)
                .map(|range| {
                    range.start + (index as u128 * range.len() as u128 / count as u128) as usize
                })
                .collect()
        };
        let canaries = drawn
            .into_iter()
            .enumerate()
            .map(|(index, (client, included))| Canary {
                client,
                included,
                places: places(index),
                score: 0.0,
            });
        let canaries: Vec<Canary> = canaries.collect();
        let mut used: Vec<usize> = canaries
            .iter()
            .flat_map(|canary| canary.places.iter().copied())
            .collect();
        used.sort_unstable();
        let unused = |place: &usize| used.binary_search(place).is_err();
        // Evenly over the model.
        let stride = layout.len().div_ceil(*MEASURED.end()).max(1);
        let free = (0..layout.len()).step_by(stride).filter(unused).collect();
        Self {
            canaries,
            relation,
            knowledge,
            knows_others,
            free,
            direction: Vec::new(),
            length: 0.0,
        }
    }

    /// Who does what in the run.
    pub(super) fn roles(&self, others: Others) -> Roles {
        let sent = |canary: &Canary, value: f32| {
            Act::Send(Update::Spikes(
                canary.places.iter().map(|&place| (place, value)).collect(),
            ))
        };
        let act = |canary: &Canary| match (canary.included, self.relation) {
            (true, _) => sent(canary, SPIKE),
            (false, NeighboringRelation::ReplaceOne) => sent(canary, -SPIKE),
            (false, _) => Act::Absent,
        };
        Roles {
            acts: self
                .canaries
                .iter()
                .map(|canary| (canary.client, act(canary)))
                .collect::<BTreeMap<_, _>>(),
            others: match others {
                Others::Absent => Act::Absent,
                Others::Train => Act::Train,
            },
        }
    }

    /// Works out what the round's clipper leaves of a canary.
    pub(super) fn meet(&mut self, clipper: &dyn Clipper, values: usize) {
        let Some(first) = self.canaries.first() else {
            return;
        };
        let mut update = vec![0.0; values];
        for &place in &first.places {
            update[place] = SPIKE;
        }
        clipper.clip(&mut update);
        self.length = l2_norm(&update);
        let length = self.length;
        let part = |&place: &usize| f64::from(update[place]) / length;
        self.direction = first.places.iter().map(part).collect();
    }

    /// Hears a released mean. `sum` is what it was before the noise: a share of it is told where
    /// the attacker knows the others.
    pub(super) fn hear(
        &mut self,
        mean: &[f64],
        denominator: f64,
        noise_std: f64,
        sum: &[f64],
        invited: impl Fn(ClientId) -> bool,
        took_part: impl Fn(ClientId) -> bool,
    ) {
        let length = self.length;
        let noise_std = self.measure(mean, denominator, sum).unwrap_or(noise_std);
        let precision = 1.0 / (noise_std * noise_std).max(1e-20 * length * length);
        let direction = &self.direction;
        let product = |values: &[f64], canary: &Canary| -> f64 {
            let places = canary.places.iter().zip(direction);
            places.map(|(&place, part)| values[place] * part).sum()
        };
        for canary in &mut self.canaries {
            let probability = match self.knowledge {
                Knowledge::Secret(probability) => probability,
                Knowledge::Cohort(probability) if invited(canary.client) => probability,
                Knowledge::Cohort(_) => continue,
            };
            let mut heard = product(mean, canary) * denominator;
            if self.knows_others {
                let own = match (took_part(canary.client), canary.included, self.relation) {
                    (true, true, _) => length,
                    (true, false, NeighboringRelation::ReplaceOne) => -length,
                    _ => 0.0,
                };
                heard -= product(sum, canary) - own;
            }
            let ratio = |heard: f64| {
                let exponent = (heard * length - 0.5 * length * length) * precision;
                mixed(probability, exponent)
            };
            canary.score += match self.relation {
                NeighboringRelation::ReplaceOne => ratio(heard) - ratio(-heard),
                _ => ratio(heard),
            };
        }
    }

    /// The noise that was really added, together with what others contribute unknown to the
    /// attacker; none where canaries leave too few places.
    fn measure(&self, mean: &[f64], denominator: f64, sum: &[f64]) -> Option<f64> {
        if self.free.len() < *MEASURED.start() {
            return None;
        }
        let known = if self.knows_others { 1.0 } else { 0.0 };
        let squares = self.free.iter().map(|&place| {
            let noise = mean[place] * denominator - known * sum[place];
            noise * noise
        });
        Some(libm::sqrt(squares.sum::<f64>() / self.free.len() as f64))
    }

    pub(super) fn scores(&self) -> Vec<CanaryScore> {
        let score = |canary: &Canary| CanaryScore {
            included: canary.included,
            score: canary.score,
        };
        self.canaries.iter().map(score).collect()
    }
}

/// `ln(1 - q + q e^x)`, without overflow.
fn mixed(q: f64, x: f64) -> f64 {
    if x > 0.0 {
        x + libm::log(q + (1.0 - q) * libm::exp(-x))
    } else {
        libm::log1p(q * libm::expm1(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixtures_neither_overflow_nor_cancel() {
        for (q, x, expected) in [
            // mpmath 1.3 with 50 digits.
            (0.1, 0.0, 0.0),
            (0.1, 1.0, 0.158_565_078_740_429_1),
            (1e-6, 1.0, 1.718_280_352_214_515_3e-6),
            (0.25, 800.0, 798.613_705_638_880_1),
            (0.25, -800.0, -0.287_682_072_451_780_9),
            (1.0, -3.5, -3.5),
        ] {
            let found = mixed(q, x);
            assert!(
                (found - expected).abs() <= 1e-14 * (1.0 + expected.abs()),
                "{q} {x}: {found}"
            );
        }
    }
}
