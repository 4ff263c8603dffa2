//! What a guarantee means for whoever guesses: the trade-off curve of hypothesis testing.
//!
//! # Source
//! Wasserman and Zhou 2010 (arXiv:0811.2501), Theorem 2.4; Dong, Roth and Su 2019
//! (arXiv:1905.02383), Proposition 3 and section 2.3: whoever tells "the member took part" from
//! "it did not" and is wrong in the second case with probability `a` (false alarms) is wrong in
//! the first with probability at least
//! `max(0, 1 - delta - e^epsilon a, e^-epsilon (1 - delta - a))`, for every pair on the curve
//! `delta(epsilon)`.

use crate::accountant::Accountant;
use crate::error::PrivacyError;
use crate::units::{Delta, Epsilon};

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TradeOff {
    /// Probability of a false alarm, `a`.
    pub false_positive: f64,
    /// Least probability of a miss, rounded downwards.
    pub false_negative: f64,
}

impl TradeOff {
    /// The most that an attack's true positives can be: one less the misses.
    #[must_use]
    pub fn true_positive(&self) -> f64 {
        1.0 - self.false_negative
    }
}

/// The lower bound of the misses at each false-alarm rate, from all that the accountant composed.
///
/// Every `epsilon` of the curve gives a bound of its own; `resolution` of them, evenly from 0 to
/// that at `delta = 1e-12`, are taken, and more of them make the bound tighter.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for a rate that is no probability,
/// [`PrivacyError::CountOutOfRange`] for a resolution outside 2 to 100,000, and those of the
/// accountant.
pub fn trade_off(
    accountant: &dyn Accountant,
    false_positives: &[f64],
    resolution: u32,
) -> Result<Vec<TradeOff>, PrivacyError> {
    PrivacyError::unless_count(
        (2..=100_000).contains(&resolution),
        "resolution",
        u64::from(resolution),
        "from 2 to 100,000 points",
    )?;
    for &rate in false_positives {
        PrivacyError::unless(
            (0.0..=1.0).contains(&rate),
            "the false-positive rate",
            rate,
            "a probability, from 0 to 1",
        )?;
    }
    let widest = accountant.epsilon(Delta::new(1e-12)?)?.upper.get();
    // Beyond this e^epsilon is out of range, and nothing is hidden long before.
    let widest = widest.min(700.0);
    let mut curve = Vec::new();
    for index in 0..resolution {
        let epsilon = widest * f64::from(index) / f64::from(resolution - 1);
        let delta = accountant.delta(Epsilon::new(epsilon)?)?.upper.get();
        curve.push((epsilon, delta));
    }
    Ok(false_positives
        .iter()
        .map(|&rate| {
            let misses = curve.iter().map(|&(epsilon, delta)| {
                let near = 1.0 - delta - libm::exp(epsilon) * rate;
                let far = libm::exp(-epsilon) * (1.0 - delta - rate);
                near.max(far)
            });
            TradeOff {
                false_positive: rate,
                false_negative: (misses.fold(0.0, f64::max) - 4.0 * f64::EPSILON).max(0.0),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accountant::{AccountantKind, accountant};
    use crate::event::DpEvent;
    use crate::relation::NeighboringRelation;
    use crate::units::NoiseMultiplier;

    fn gaussian(sigma: f64) -> Box<dyn Accountant> {
        let mut sum = accountant(
            AccountantKind::Gaussian,
            NeighboringRelation::AddOrRemoveOne,
        );
        let noise = NoiseMultiplier::new(sigma).unwrap();
        sum.compose(&DpEvent::gaussian(noise), 1).unwrap();
        sum
    }

    /// The optimal test of N(0, 1) against N(mu, 1) with threshold t is wrong with probabilities
    /// Phi(-t) and Phi(t - mu) (Neyman and Pearson).
    #[test]
    fn the_gaussian_curve_is_that_of_its_optimal_test() {
        let cdf = |x: f64| 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2);
        for mu in [0.3, 1.0, 2.5] {
            let sum = gaussian(1.0 / mu);
            for t in [-1.0, 0.0, 0.7, 1.5, 3.0] {
                let (alarm, miss) = (cdf(-t), cdf(t - mu));
                let found = trade_off(sum.as_ref(), &[alarm], 400).unwrap()[0];
                let below = miss - found.false_negative;
                assert!(below > -1e-12 && below < 1e-3, "{mu} {t}: {found:?} {miss}");
                assert!(found.true_positive() >= 1.0 - miss - 1e-12);
            }
        }
    }

    #[test]
    fn the_ends_of_the_curve() {
        let nothing = accountant(AccountantKind::Rdp, NeighboringRelation::AddOrRemoveOne);
        for point in trade_off(nothing.as_ref(), &[0.0, 0.25, 1.0], 2).unwrap() {
            // Without any release the best is to toss a coin.
            let coin = 1.0 - point.false_positive;
            assert!((point.false_negative - coin).abs() < 1e-12, "{point:?}");
        }
        let bare = gaussian(0.0);
        for point in trade_off(bare.as_ref(), &[0.0, 0.5], 10).unwrap() {
            assert!(point.false_negative <= 0.0, "{point:?}");
        }
        assert!(trade_off(bare.as_ref(), &[1.5], 10).is_err());
        assert!(trade_off(bare.as_ref(), &[0.5], 1).is_err());
    }
}
