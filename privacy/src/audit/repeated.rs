//! What the guesses of several independent runs tell, many canaries in each.
//!
//! Of a run that keeps a trade-off curve, the *expected* share of right guesses is at most
//! `(1 + v) / 2`, with `v = delta(0)` the largest advantage (the total variation) that the curve
//! allows; that holds for every canary alone, so it needs no independence within a run. Runs are
//! independent, so a gambler who bets on shares above that loses on average, and is seldom rich:
//! with capital 1, staking at every run, the probability of ever owning `1 / p` is at most `p`
//! (Ville's inequality; Waudby-Smith and Ramdas 2024, arXiv:2010.09686, section 4).
//!
//! As the share of right guesses hardly varies from run to run when canaries are many, some hundred
//! runs tell nearly all that there is to tell.

use super::{bisect, confident};
use crate::error::PrivacyError;
use crate::fdp::TradeOffCurve;
use crate::units::{Delta, Epsilon};

/// Parts of the largest stake, `1 / mean`, that gamblers put at risk, and the capital they begin
/// with: together 1. The first is the best when shares do not vary, the others when they do.
const GAMBLERS: [(f64, f64); 8] = [
    (1.0, 0.5),
    (0.75, 0.1),
    (0.5, 0.1),
    (0.35, 0.1),
    (0.25, 0.05),
    (0.15, 0.05),
    (0.1, 0.05),
    (0.05, 0.05),
];

/// The share of right guesses of each of several independent runs, in the order of the runs. All
/// canaries are guessed, and each was in by a fair coin.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeated {
    shares: Vec<f64>,
}

impl Repeated {
    /// These shares.
    ///
    /// # Errors
    /// [`PrivacyError`] without any, or for one that is not from 0 to 1.
    pub fn new(shares: Vec<f64>) -> Result<Self, PrivacyError> {
        PrivacyError::unless_count(
            !shares.is_empty(),
            "the number of audited runs",
            0,
            "at least 1",
        )?;
        for &share in &shares {
            PrivacyError::unless(
                (0.0..=1.0).contains(&share),
                "a share of right guesses",
                share,
                "from 0 to 1",
            )?;
        }
        Ok(Self { shares })
    }

    /// The shares.
    #[must_use]
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Their mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.shares.iter().sum::<f64>() / self.shares.len() as f64
    }

    /// How likely such shares are, at any time while runs are added, when every canary is guessed
    /// right with probability at most `expected`; an upper bound.
    #[must_use]
    pub fn p_value(&self, expected: f64) -> f64 {
        if expected >= 1.0 || expected.is_nan() {
            return 1.0;
        }
        let expected = expected.max(f64::MIN_POSITIVE);
        let mut wealth = GAMBLERS.map(|(_, capital)| libm::log(capital));
        let mut best = 0.0_f64;
        for share in &self.shares {
            for (wealth, (stake, _)) in wealth.iter_mut().zip(GAMBLERS) {
                *wealth += libm::log1p(stake * (share / expected - 1.0));
            }
            let most = wealth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if most > f64::NEG_INFINITY {
                let sum: f64 = wealth.iter().map(|wealth| libm::exp(wealth - most)).sum();
                best = best.max(most + libm::log(sum));
            }
        }
        libm::exp(-best)
    }

    /// [`Self::p_value`] of runs that keep `curve`.
    #[must_use]
    pub fn curve_p_value(&self, curve: &TradeOffCurve) -> f64 {
        self.p_value(0.5 * (1.0 + curve.advantage()))
    }

    /// The largest `epsilon` for which `(epsilon, delta)` is refuted at this confidence, whatever
    /// the mechanism is; 0 if none. Weak, because most mechanisms stay far below their `epsilon`
    /// most of the time.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a confidence outside 0 to 1.
    pub fn epsilon(&self, delta: Delta, confidence: f64) -> Result<Epsilon, PrivacyError> {
        let mean = self.refuted_mean(confidence)?;
        // A guess is right with probability at most (e^epsilon + delta) / (1 + e^epsilon).
        let odds = (mean - delta.get()) / (1.0 - mean);
        Epsilon::new(if odds > 1.0 { libm::log(odds) } else { 0.0 })
    }

    /// The largest expected share of right guesses that is refuted, 1/2 if none.
    fn refuted_mean(&self, confidence: f64) -> Result<f64, PrivacyError> {
        confident(confidence)?;
        let refuted = |mean: f64| self.p_value(mean) < 1.0 - confidence;
        Ok(match refuted(0.5) {
            true => bisect(0.5, 1.0, refuted).0,
            false => 0.5,
        })
    }
}

#[cfg(test)]
mod tests {
    use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

    use super::*;

    #[test]
    fn gamblers_begin_with_one() {
        let sum: f64 = GAMBLERS.iter().map(|(_, capital)| capital).sum();
        assert!((sum - 1.0).abs() < 1e-15, "{sum}");
        assert!(
            GAMBLERS
                .iter()
                .all(|(stake, _)| (0.0..=1.0).contains(stake))
        );
    }

    /// One run with the share `x` is `sum_k c_k (1 + s_k (x / m - 1))`, by hand.
    #[test]
    fn capital_is_what_the_bets_make_of_it() {
        let one = Repeated::new(vec![0.9]).unwrap();
        // Stakes weighted by capital: 0.725.
        let weighted: f64 = GAMBLERS.iter().map(|(s, c)| s * c).sum();
        assert!((one.p_value(0.6) - 1.0 / (1.0 + 0.5 * weighted)).abs() < 1e-14);
        // Losing first and winning later counts only what was won in all.
        let ruined = Repeated::new(vec![0.0, 1.0]).unwrap();
        let kept: f64 = GAMBLERS
            .iter()
            .map(|(s, c)| c * (1.0 - s) * (1.0 + s))
            .sum();
        assert!(kept < 1.0 && (ruined.p_value(0.5) - 1.0).abs() < 1e-15);
        assert!(one.p_value(1.0) >= 1.0);
        for wrong in [vec![], vec![0.5, 1.5], vec![f64::NAN], vec![-0.1]] {
            assert!(Repeated::new(wrong).is_err());
        }
    }

    /// Runs at the very mean are refuted no more often than they should be, also when all canaries
    /// of a run stand or fall together; a higher mean is found.
    #[test]
    fn false_alarms_are_as_rare_as_stated() {
        let mut stream = Stream::at(Purpose::Testing, Seed(3), RoundId(0), ClientId(0));
        let mean = 0.6;
        for canaries in [1, 20] {
            let mut alarms = 0;
            for _ in 0..400 {
                let mut share = || {
                    let right = (0..canaries).filter(|_| stream.uniform() < mean).count();
                    right as f64 / f64::from(canaries)
                };
                let runs = Repeated::new((0..100).map(|_| share()).collect()).unwrap();
                alarms += u32::from(runs.p_value(mean) < 0.05);
            }
            // Binomial(400, 0.05) is above 36 less than once in 1,000.
            assert!(alarms <= 36, "{canaries} canaries: {alarms}");
        }
        // 300 runs of 200 canaries with mean 0.6.
        let shares = (0..300).map(|_| {
            let right = (0..200).filter(|_| stream.uniform() < mean).count();
            right as f64 / 200.0
        });
        let runs = Repeated::new(shares.collect()).unwrap();
        assert!(runs.p_value(0.58) < 1e-3);
        let found = runs.epsilon(Delta::ZERO, 0.95).unwrap().get();
        let truth = libm::log(0.6 / 0.4);
        assert!(found < truth && found > 0.85 * truth, "{found} {truth}");
    }
}
