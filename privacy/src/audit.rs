//! Lower bounds of `epsilon` from attacks that were really run: if they exceed the reported
//! `epsilon`, the report or the program is wrong.
//!
//! - [`ManyRuns`]: a membership attack on many runs with and without a member, by Clopper-Pearson
//!   intervals (Jagielski, Ullman and Oprea 2020, arXiv:2006.07709; Nasr et al. 2021,
//!   arXiv:2101.04535).
//! - [`OneRun`]: guesses about many canaries in a single run (Steinke, Nasr and Jagielski 2023,
//!   arXiv:2305.08846, Theorem 5.2).
//!
//! A lower bound holds with the stated confidence, not surely: with confidence 0.95 one audit in
//! twenty of a correct program may exceed.

use crate::error::PrivacyError;
use crate::units::{Delta, Epsilon};

/// Two-sided Clopper-Pearson interval of a probability (Clopper and Pearson 1934).
///
/// # Errors
/// [`PrivacyError`] for more successes than trials, no trial, or a confidence outside 0 to 1.
pub fn clopper_pearson(
    successes: u64,
    trials: u64,
    confidence: f64,
) -> Result<(f64, f64), PrivacyError> {
    confident(confidence)?;
    PrivacyError::unless_count(trials > 0, "trials", trials, "at least 1")?;
    PrivacyError::unless_count(
        successes <= trials,
        "successes",
        successes,
        "at most the trials",
    )?;
    let side = 0.5 * (1.0 - confidence);
    let low = if successes == 0 {
        0.0
    } else {
        // Below it so many successes are too unlikely.
        bisect(0.0, 1.0, |p| at_least(successes, trials, p) <= side).0
    };
    let high = if successes == trials {
        1.0
    } else {
        bisect(0.0, 1.0, |p| {
            at_least(successes + 1, trials, p) <= 1.0 - side
        })
        .1
    };
    Ok((low, high))
}

/// What a membership attack got right over many runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManyRuns {
    /// Runs with the member that were recognised.
    pub true_positives: u64,
    /// Runs with the member.
    pub with: u64,
    /// Runs without the member that were taken for runs with it.
    pub false_positives: u64,
    /// Runs without the member.
    pub without: u64,
}

impl ManyRuns {
    /// The largest `epsilon` that is refuted at this confidence, 0 if none: both directions of
    /// `TPR <= e^epsilon FPR + delta`, each rate at its own side of an interval.
    ///
    /// # Errors
    /// As for [`clopper_pearson`].
    pub fn epsilon(&self, delta: Delta, confidence: f64) -> Result<Epsilon, PrivacyError> {
        // The two intervals share what the confidence leaves.
        confident(confidence)?;
        let each = 0.5 * (1.0 + confidence);
        let (tpr_low, tpr_high) = clopper_pearson(self.true_positives, self.with, each)?;
        let (fpr_low, fpr_high) = clopper_pearson(self.false_positives, self.without, each)?;
        let ratio = |hit: f64, alarm: f64| {
            let rest = hit - delta.get();
            if rest > 0.0 && alarm > 0.0 {
                libm::log(rest / alarm)
            } else {
                0.0
            }
        };
        let there = ratio(tpr_low, fpr_high);
        let back = ratio(1.0 - fpr_high, 1.0 - tpr_low);
        // The other sides say when the attack is worse than chance, which refutes as well.
        let inverted = ratio(fpr_low, tpr_high).max(ratio(1.0 - tpr_high, 1.0 - fpr_low));
        Epsilon::new(there.max(back).max(inverted).max(0.0))
    }
}

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

fn confident(confidence: f64) -> Result<(), PrivacyError> {
    PrivacyError::unless(
        confidence > 0.0 && confidence < 1.0,
        "confidence",
        confidence,
        "above 0 and below 1",
    )
}

/// The ends of the last bracket: `holds` is true at `low` and below, false at `high`.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> (f64, f64) {
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low, high)
}

/// `P[Binomial(n, p) = k]`.
fn mass(k: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return f64::from(u8::from(k == 0));
    }
    if p >= 1.0 {
        return f64::from(u8::from(k == n));
    }
    let ln_factorial = |n: u64| libm::lgamma(n as f64 + 1.0);
    let ln_ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let ln = ln_ways + k as f64 * libm::log(p) + (n - k) as f64 * libm::log1p(-p);
    libm::exp(ln)
}

/// `P[Binomial(n, p) >= k]`.
fn at_least(k: u64, n: u64, p: f64) -> f64 {
    // Towards the mode the terms grow, so each side is summed from its tail inwards.
    if k as f64 > n as f64 * p {
        (k..=n).rev().map(|k| mass(k, n, p)).sum()
    } else {
        1.0 - (0..k).map(|k| mass(k, n, p)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

    use super::*;

    /// `scipy.stats.beta.ppf` of scipy 1.17.1.
    #[test]
    fn intervals_agree_with_scipy() {
        for (successes, trials, confidence, low, high) in [
            (0, 10, 0.95, 0.0, 0.3084971078187607),
            (3, 10, 0.95, 0.0667395111777345, 0.6524528500599973),
            (10, 10, 0.95, 0.6915028921812392, 1.0),
            (480, 1000, 0.99, 0.4389815435235915, 0.5212114960007409),
            (9999, 10000, 0.999, 0.9990005820001047, 0.9999999499874971),
        ] {
            let found = clopper_pearson(successes, trials, confidence).unwrap();
            assert!(
                (found.0 - low).abs() < 1e-10,
                "{successes} of {trials}: {found:?}"
            );
            assert!(
                (found.1 - high).abs() < 1e-10,
                "{successes} of {trials}: {found:?}"
            );
        }
        for (successes, trials, confidence) in [(1, 0, 0.9), (2, 1, 0.9), (1, 2, 1.0), (1, 2, 0.0)]
        {
            assert!(clopper_pearson(successes, trials, confidence).is_err());
        }
    }

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

    /// Randomized response at a known epsilon: the audits stay below it about as often as they
    /// say, come near it, and catch a program whose noise is half of what it claims.
    #[test]
    fn audits_of_a_known_mechanism() {
        let mut stream = Stream::at(Purpose::Testing, Seed(11), RoundId(0), ClientId(0));
        for claimed in [1.0, 4.0] {
            let mut audit = |true_epsilon: f64| {
                let right = 1.0 / (1.0 + (-true_epsilon).exp());
                let count = 4000;
                let correct = (0..count).filter(|_| stream.uniform() < right).count() as u64;
                OneRun {
                    canaries: count,
                    guesses: count,
                    correct,
                }
            };
            let mut above = 0;
            for _ in 0..40 {
                let found = audit(claimed).epsilon(Delta::ZERO, 0.95).unwrap().get();
                above += u32::from(found > claimed);
                assert!(found > 0.8 * claimed, "{claimed}: {found}");
            }
            // Binomial(40, 0.05) is above 8 less than once in 1,000.
            assert!(above <= 8, "{claimed}: {above}");
            let halved = audit(2.0 * claimed)
                .epsilon(Delta::ZERO, 0.95)
                .unwrap()
                .get();
            assert!(halved > claimed, "{claimed}: {halved}");

            let right = 1.0 / (1.0 + (-claimed).exp());
            let runs = 20_000;
            let mut hits = |p: f64| (0..runs).filter(|_| stream.uniform() < p).count() as u64;
            let many = ManyRuns {
                true_positives: hits(right),
                with: runs,
                false_positives: hits(1.0 - right),
                without: runs,
            };
            let found = many.epsilon(Delta::ZERO, 0.9999).unwrap().get();
            assert!(
                found < claimed && found > 0.8 * claimed,
                "{claimed}: {found}"
            );
            // An attack that is always wrong tells as much as one that is always right.
            let inverted = ManyRuns {
                true_positives: many.false_positives,
                false_positives: many.true_positives,
                ..many
            };
            assert_eq!(
                inverted
                    .epsilon(Delta::ZERO, 0.9999)
                    .unwrap()
                    .get()
                    .to_bits(),
                found.to_bits()
            );
        }
    }
}
