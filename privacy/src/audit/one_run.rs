//! What the guesses about many canaries of a single run tell.

use super::binomial::{at_least, mass};
use super::{bisect, confident};
use crate::error::PrivacyError;
use crate::fdp::TradeOffCurve;
use crate::units::{Delta, Epsilon};

/// What was guessed right about canaries that were each in or out of one run by a fair coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneRun {
    /// Canaries whose presence was tossed.
    pub canaries: u64,
    /// Guesses; the attack may abstain from the others.
    pub guesses: u64,
    /// Guesses that were right.
    pub correct: u64,
}

impl OneRun {
    /// How likely so many right guesses, or more, are when the run is
    /// `(epsilon, delta)`-differentially private.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless `correct <= guesses <= canaries`.
    pub fn p_value(&self, epsilon: Epsilon, delta: Delta) -> Result<f64, PrivacyError> {
        self.check()?;
        Ok(self.likelihood(epsilon.get(), delta.get()))
    }

    /// The largest `epsilon` that is refuted at this confidence, 0 if none.
    ///
    /// # Errors
    /// As for [`Self::p_value`], and for a confidence outside 0 to 1.
    pub fn epsilon(&self, delta: Delta, confidence: f64) -> Result<Epsilon, PrivacyError> {
        self.check()?;
        confident(confidence)?;
        let refuted = |epsilon: f64| self.likelihood(epsilon, delta.get()) < 1.0 - confidence;
        if !refuted(0.0) {
            return Ok(Epsilon::ZERO);
        }
        let mut high = 1.0;
        while refuted(high) {
            high *= 2.0;
            if high > 1e4 {
                break;
            }
        }
        Epsilon::new(bisect(0.0, high, refuted).0)
    }

    /// How likely so many right guesses, or more, are when the run keeps `curve` for each canary;
    /// an upper bound. The number of guesses has to be fixed beforehand.
    ///
    /// The smallest probability `tau` that the paper's recursion (algorithm 3, with 2 symbols)
    /// refutes. With `p_j` the probability of `j` right guesses, `r_i = sum_(j >= i) j p_j / m` and
    /// `h_i = sum_(j >= i) (c - j) p_j / m`, a canary that is guessed right is a canary guessed
    /// wrong in the neighbouring world, so the curve says `h_i >= f(1 - r_(i+1))`. From
    /// `p_v = tau` downwards the sums become so large that the probabilities exceed one.
    ///
    /// # Errors
    /// As for [`Self::p_value`].
    pub fn curve_p_value(&self, curve: &TradeOffCurve) -> Result<f64, PrivacyError> {
        self.check()?;
        if self.correct == 0 || !self.exceeds(curve, 1.0) {
            return Ok(1.0);
        }
        // Below the first probability that is refuted none is.
        Ok(bisect(0.0, 1.0, |tau| !self.exceeds(curve, tau)).1)
    }

    /// Whether the curve excludes that so many right guesses have probability `tau`.
    fn exceeds(&self, curve: &TradeOffCurve, tau: f64) -> bool {
        let (canaries, guesses) = (self.canaries as f64, self.guesses as f64);
        let correct = self.correct as f64;
        let mut right = tau * correct / canaries;
        let mut wrong = tau * (guesses - correct) / canaries;
        for i in (0..self.correct).rev() {
            let i = i as f64;
            let next = wrong.max(curve.least_alarm(right));
            right += i / (guesses - i) * (next - wrong);
            wrong = next;
            if right + wrong > guesses / canaries {
                return true;
            }
        }
        false
    }

    fn check(&self) -> Result<(), PrivacyError> {
        PrivacyError::unless_count(
            self.guesses <= self.canaries,
            "guesses",
            self.guesses,
            "at most the canaries",
        )?;
        PrivacyError::unless_count(
            self.correct <= self.guesses,
            "correct guesses",
            self.correct,
            "at most the guesses",
        )
    }

    /// Theorem 5.2: `beta + 2 m delta max_i P[v > Binomial >= v - i] / i`.
    fn likelihood(&self, epsilon: f64, delta: f64) -> f64 {
        let right = 1.0 / (1.0 + libm::exp(-epsilon));
        let (r, v) = (self.guesses, self.correct);
        let beta = at_least(v, r, right);
        let (mut sum, mut steepest) = (0.0, 0.0_f64);
        if delta > 0.0 {
            for i in 1..=v {
                sum += mass(v - i, r, right);
                steepest = steepest.max(sum / i as f64);
            }
        }
        (beta + 2.0 * self.canaries as f64 * delta * steepest).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The p-value of the paper's appendix D, evaluated with `scipy.stats.binom` 1.17.1.
    #[test]
    fn one_run_agrees_with_the_paper() {
        for (canaries, guesses, correct, delta, confidence, expected) in [
            (1000, 100, 90, 1e-5, 0.95, 1.6261434806957262),
            (1000, 1000, 700, 0.0, 0.95, 0.7320108623573903),
            (5000, 200, 200, 1e-5, 0.99, 3.3119464592399237),
            (100, 100, 52, 1e-5, 0.95, 0.0),
            (10000, 1500, 1201, 1e-6, 0.95, 1.2826227081668051),
        ] {
            let run = OneRun {
                canaries,
                guesses,
                correct,
            };
            let found = run
                .epsilon(Delta::new(delta).unwrap(), confidence)
                .unwrap()
                .get();
            assert!((found - expected).abs() < 1e-8, "{run:?}: {found}");
        }
        let wrong = OneRun {
            canaries: 10,
            guesses: 11,
            correct: 1,
        };
        assert!(wrong.epsilon(Delta::ZERO, 0.95).is_err());
        assert!(wrong.p_value(Epsilon::ZERO, Delta::ZERO).is_err());
    }

    /// The most likely that the curve's inequalities allow, by linear programming over the
    /// probabilities of every number of right guesses: `tests/fixtures/one_run_curve.py`.
    #[test]
    fn the_recursion_agrees_with_linear_programming() {
        type Case = (&'static [(f64, f64)], u64, u64, u64, f64);
        const THREE: &[(f64, f64)] = &[(0.0, 0.3), (0.5, 0.12), (1.5, 0.01)];
        let cases: [Case; 8] = [
            (&[(1.0, 0.0)], 20, 20, 17, 0.200442431),
            (&[(1.0, 1e-3)], 20, 20, 17, 0.202250331),
            (&[(2.0, 1e-2)], 50, 20, 19, 0.359747115),
            (&[(0.5, 1e-5)], 60, 60, 45, 0.028895669),
            (&[(3.0, 1e-5)], 200, 40, 40, 0.143245555),
            (THREE, 30, 30, 26, 0.143920834),
            (THREE, 30, 12, 12, 0.085108984),
            (THREE, 60, 50, 40, 0.310361811),
        ];
        for (lines, canaries, guesses, correct, expected) in cases {
            let curve = TradeOffCurve::of_pairs(lines.iter().map(|&(epsilon, delta)| {
                (Epsilon::new(epsilon).unwrap(), Delta::new(delta).unwrap())
            }));
            let run = OneRun {
                canaries,
                guesses,
                correct,
            };
            let found = run.curve_p_value(&curve).unwrap();
            assert!((found - expected).abs() < 1e-7, "{run:?}: {found}");
        }
    }

    /// A mechanism that keeps a Gaussian curve for each of many independent canaries: the bound is
    /// never below the probability itself, that of a binomial law.
    #[test]
    fn the_curve_is_never_refuted_by_what_keeps_it() {
        for mu in [0.3, 1.0, 2.5] {
            let curve = TradeOffCurve::gaussian(mu, 80).unwrap();
            let right = 0.5 * libm::erfc(-0.5 * mu * core::f64::consts::FRAC_1_SQRT_2);
            for guesses in [10, 200] {
                let mut last = 1.0;
                for share in [0.5, 0.6, 0.7, 0.8, 0.9, 1.0] {
                    let correct = (guesses as f64 * share) as u64;
                    let run = OneRun {
                        canaries: guesses,
                        guesses,
                        correct,
                    };
                    let bound = run.curve_p_value(&curve).unwrap();
                    let exact = at_least(correct, guesses, right);
                    assert!(bound >= exact, "{mu} {run:?}: {bound} {exact}");
                    assert!(bound <= last, "more right guesses are less likely");
                    last = bound;
                }
            }
        }
        // Without noise everything is told, and nothing is refuted.
        let bare = TradeOffCurve::of_pairs([(Epsilon::ZERO, Delta::ONE)]);
        let all = OneRun {
            canaries: 100,
            guesses: 100,
            correct: 100,
        };
        assert!(all.curve_p_value(&bare).unwrap() >= 1.0);
        // With nothing released, a coin decides.
        let coin = TradeOffCurve::of_pairs([(Epsilon::ZERO, Delta::ZERO)]);
        let found = all.curve_p_value(&coin).unwrap();
        assert!(found < 1e-20, "{found}");
    }
}
