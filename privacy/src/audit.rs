//! Lower bounds of `epsilon` from attacks that were really run: if they exceed the reported
//! `epsilon`, the report or the program is wrong.
//!
//! An attack guesses which canaries (members made up for the audit, each in or out by a fair coin)
//! took part. What its guesses tell depends on how they were gathered:
//!
//! | guesses | bound | of | tight |
//! |---|---|---|---|
//! | one canary in each of many runs | [`ManyRuns`]: Clopper-Pearson intervals (Jagielski, Ullman and Oprea 2020, arXiv:2006.07709; Nasr et al. 2021, arXiv:2101.04535) | `(epsilon, delta)` | for an `epsilon` far below the logarithm of the number of runs |
//! | many canaries in one run | [`OneRun::epsilon`] (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, theorem 5.2) | `(epsilon, delta)` | for randomized response |
//! | many canaries in one run | [`OneRun::curve_p_value`] (Mahloujifar, Melis and Chaudhuri 2024, arXiv:2410.22235) | a whole [trade-off curve](crate::fdp::TradeOffCurve) | for very many canaries, of which few are guessed |
//! | many canaries in each of some runs | [`Repeated`]: a bet on the mean share of right guesses (Waudby-Smith and Ramdas 2024, arXiv:2010.09686) | a whole trade-off curve | with some hundred runs |
//!
//! A single run cannot do better: however many its canaries are, a mechanism that is as private as
//! it claims may betray all of them together, now and then. Independent runs cannot.
//!
//! A curve has no single `epsilon`. [`refuted_epsilon`] looks through a family of them, the same
//! schedule with other noise, for the most private one that the guesses refute.
//!
//! A lower bound holds with the stated confidence, not surely: with confidence 0.95 one audit in
//! twenty of a correct program may exceed.

mod binomial;
mod family;
mod one_run;
mod repeated;

pub use binomial::clopper_pearson;
pub use family::refuted_epsilon;
pub use one_run::OneRun;
pub use repeated::Repeated;

use crate::error::PrivacyError;
use crate::units::{Delta, Epsilon};

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

#[cfg(test)]
mod tests {
    use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

    use super::*;

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
