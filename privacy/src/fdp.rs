//! What a guarantee means for whoever guesses: the trade-off curve of hypothesis testing.
//!
//! # Source
//! Wasserman and Zhou 2010 (arXiv:0811.2501), Theorem 2.4; Dong, Roth and Su 2019
//! (arXiv:1905.02383), Proposition 3 and section 2.3: whoever tells "the member took part" from
//! "it did not" and is wrong in the second case with probability `a` (false alarms) is wrong in
//! the first with probability at least
//! `max(0, 1 - delta - e^epsilon a, e^-epsilon (1 - delta - a))`, for every pair on the curve
//! `delta(epsilon)`.

use crate::accountant::{Accountant, AccountantKind, accountant};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

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

/// A lower bound of what whoever guesses gets wrong, of the false alarms and the misses alike.
///
/// Every `(epsilon, delta)` that a mechanism keeps, in both directions, bounds it by two lines; the
/// curve is the largest of all. It is convex and its own inverse.
#[derive(Clone, Debug, PartialEq)]
pub struct TradeOffCurve {
    /// `e^epsilon`, `e^-epsilon` and `delta` of each pair.
    lines: Vec<(f64, f64, f64)>,
}

impl TradeOffCurve {
    /// The curve of all that the accountant composed. `resolution` values of `epsilon`, evenly
    /// from 0 to that at `delta = 1e-12`, are taken; more of them make the bound tighter.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] for a resolution outside 2 to 100,000, and those of the
    /// accountant.
    pub fn of(accountant: &dyn Accountant, resolution: u32) -> Result<Self, PrivacyError> {
        PrivacyError::unless_count(
            (2..=100_000).contains(&resolution),
            "resolution",
            u64::from(resolution),
            "from 2 to 100,000 points",
        )?;
        let widest = accountant.epsilon(Delta::new(1e-12)?)?.upper.get();
        // Beyond this e^epsilon is out of range, and nothing is hidden long before.
        let widest = widest.min(700.0);
        let mut pairs = Vec::new();
        for index in 0..resolution {
            let epsilon = widest * f64::from(index) / f64::from(resolution - 1);
            let epsilon = Epsilon::new(epsilon)?;
            pairs.push((epsilon, accountant.delta(epsilon)?.upper));
        }
        Ok(Self::of_pairs(pairs))
    }

    /// The curve of what keeps all these pairs; without any, nothing is kept.
    #[must_use]
    pub fn of_pairs(pairs: impl IntoIterator<Item = (Epsilon, Delta)>) -> Self {
        let line = |(epsilon, delta): (Epsilon, Delta)| {
            let epsilon = epsilon.get();
            (libm::exp(epsilon), libm::exp(-epsilon), delta.get())
        };
        Self {
            lines: pairs.into_iter().map(line).collect(),
        }
    }

    /// The curve of a Gaussian mechanism whose sensitivity is `mu` times the standard deviation.
    ///
    /// # Errors
    /// [`PrivacyError`] for a `mu` that is not finite and above 0, and as [`Self::of`].
    pub fn gaussian(mu: f64, resolution: u32) -> Result<Self, PrivacyError> {
        let mut sum = accountant(
            AccountantKind::Gaussian,
            NeighboringRelation::AddOrRemoveOne,
        );
        let noise = NoiseMultiplier::new(1.0 / mu)?;
        sum.compose(&DpEvent::gaussian(noise), 1)?;
        Self::of(sum.as_ref(), resolution)
    }

    /// Least probability of a miss at this probability of a false alarm, `f(a)`.
    #[must_use]
    pub fn false_negative(&self, false_positive: f64) -> f64 {
        self.largest(|up, down, delta| {
            let near = 1.0 - delta - up * false_positive;
            near.max(down * (1.0 - delta - false_positive))
        })
    }

    /// Least probability of a false alarm at which members are recognised with probability
    /// `power`: `f(1 - power)`, without its loss of digits where `power` is small.
    #[must_use]
    pub fn least_alarm(&self, power: f64) -> f64 {
        self.largest(|up, down, delta| {
            let near = 1.0 - delta - up * (1.0 - power);
            near.max(down * (power - delta))
        })
    }

    /// The most by which recognised members can exceed false alarms: `delta` at `epsilon = 0`, the
    /// largest total variation between neighbours, as far as the pairs bound it.
    #[must_use]
    pub fn advantage(&self) -> f64 {
        // (1 - e^-epsilon) + 2 e^-epsilon delta over 1 + e^-epsilon bounds it for every pair.
        self.lines
            .iter()
            .fold(1.0, |least: f64, &(_, down, delta)| {
                least.min((1.0 - down + 2.0 * down * delta) / (1.0 + down))
            })
    }

    fn largest(&self, line: impl Fn(f64, f64, f64) -> f64) -> f64 {
        self.lines
            .iter()
            .fold(0.0, |most: f64, &(up, down, delta)| {
                most.max(line(up, down, delta))
            })
    }
}

/// The lower bound of the misses at each false-alarm rate, from all that the accountant composed.
///
/// `resolution` is that of [`TradeOffCurve::of`].
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for a rate that is no probability, and those of
/// [`TradeOffCurve::of`].
pub fn trade_off(
    accountant: &dyn Accountant,
    false_positives: &[f64],
    resolution: u32,
) -> Result<Vec<TradeOff>, PrivacyError> {
    for &rate in false_positives {
        PrivacyError::unless(
            (0.0..=1.0).contains(&rate),
            "the false-positive rate",
            rate,
            "a probability, from 0 to 1",
        )?;
    }
    let curve = TradeOffCurve::of(accountant, resolution)?;
    Ok(false_positives
        .iter()
        .map(|&rate| TradeOff {
            false_positive: rate,
            false_negative: (curve.false_negative(rate) - 4.0 * f64::EPSILON).max(0.0),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
                // Its own inverse: the alarm that a power of one less the misses costs.
                let curve = TradeOffCurve::gaussian(mu, 400).unwrap();
                let least = curve.least_alarm(cdf(mu - t));
                assert!(
                    least < alarm + 1e-12 && least > alarm - 1e-3,
                    "{mu} {t}: {least}"
                );
            }
            // The largest difference of Phi(t) and Phi(t - mu).
            let advantage = TradeOffCurve::gaussian(mu, 2).unwrap().advantage();
            let exact = 2.0 * cdf(0.5 * mu) - 1.0;
            assert!(
                advantage >= exact && advantage < exact + 1e-12,
                "{mu}: {advantage}"
            );
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
