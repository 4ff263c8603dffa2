//! How much an update counts that was trained from an older version of the model.
//!
//! With `t` the version that the server has and `tau` the one that the client was given, the
//! staleness is `t - tau`, and an update counts `s(t - tau)` times: a constant, a power or a hinge
//! (Xie, Koyejo, Gupta 2019, arXiv:1903.03934, section 5). So that sums stay exact, weights are
//! integers: `round(SCALE s)`, [`SCALE`] being 2^16, and at least 1. That moves a weight by at most
//! 2^-17 and makes what is staler than any weight can tell apart equal.
//!
//! In a synchronous round every staleness is zero and every weight [`SCALE`].

use serde::{Deserialize, Serialize};

use super::{RoundInfo, StrategyError, step};
use crate::params::Parameters;
use crate::registry::ConfigError;
use crate::sum::Aggregate;
use crate::units::{RoundId, Weight};
use crate::update::Report;

/// The weight of an update that is not stale.
pub const SCALE: u64 = 1 << 16;

/// The function `s` of staleness; `s(0) = 1`, it never rises and is never below zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Staleness {
    /// `s = 1`.
    Constant {},
    /// `s = (staleness + 1)^-exponent`.
    Polynomial {
        /// The paper's `a`, at least 0.
        exponent: f64,
    },
    /// `s = 1` up to `grace`, then `1 / (slope (staleness - grace) + 1)`.
    Hinge {
        /// The paper's `a`, at least 0.
        slope: f64,
        /// The paper's `b`, in versions.
        grace: u64,
    },
}

impl Staleness {
    /// `1 / sqrt(staleness + 1)`, that of FedBuff (Nguyen et al. 2022, arXiv:2106.06639).
    pub const SQUARE_ROOT: Self = Self::Polynomial { exponent: 0.5 };

    /// # Errors
    /// [`ConfigError`] for an exponent or a slope that is negative or not finite.
    pub(super) fn check(self) -> Result<Self, ConfigError> {
        let (key, value) = match self {
            Self::Constant {} => return Ok(self),
            Self::Polynomial { exponent } => ("staleness.exponent", exponent),
            Self::Hinge { slope, .. } => ("staleness.slope", slope),
        };
        let expected = "a finite number of at least 0";
        ConfigError::unless(value.is_finite() && value >= 0.0, key, value, expected)?;
        Ok(self)
    }

    /// `s(staleness)`.
    #[must_use]
    pub fn factor(self, staleness: u64) -> f64 {
        match self {
            Self::Constant {} => 1.0,
            Self::Polynomial { exponent } => libm::pow(staleness as f64 + 1.0, -exponent),
            Self::Hinge { grace, .. } if staleness <= grace => 1.0,
            Self::Hinge { slope, grace } => 1.0 / (slope * (staleness - grace) as f64 + 1.0),
        }
    }

    /// The integer weight of an update of this report, in `1 ..= SCALE`.
    #[must_use]
    pub fn weight(self, report: &Report, info: &RoundInfo) -> Weight {
        let staleness = info.round.0.saturating_sub(report.round.0);
        let scaled = libm::rint(SCALE as f64 * self.factor(staleness));
        Weight((scaled as u64).max(1))
    }
}

/// `global += rate/K sum_i s_i update_i` over the `K` updates of a mean that was weighted by
/// [`Staleness::weight`]: the weights are divided by [`SCALE`], not by their sum. A mean that somebody
/// [released](Aggregate::released) is over a denominator of its own and is taken as it is.
pub(super) fn step_by_count(
    global: &mut Parameters,
    mean: &Aggregate,
    rate: f64,
    round: RoundId,
) -> Result<(), StrategyError> {
    let tally = mean.tally();
    let share = match tally.clients {
        0 => 1.0,
        clients => tally.weight.0 as f64 / (SCALE as f64 * clients as f64),
    };
    step(global, mean.mean().iter().copied(), rate * share, round)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::report_from;

    /// `(function, [(staleness, s)])`, by the formulas.
    #[test]
    fn the_functions_are_those_of_the_paper() {
        let half = Staleness::SQUARE_ROOT;
        let cube = Staleness::Polynomial { exponent: 3.0 };
        let hinge = Staleness::Hinge {
            slope: 10.0,
            grace: 4,
        };
        type Case<'a> = (Staleness, &'a [(u64, f64)]);
        let cases: [Case<'_>; 4] = [
            (Staleness::Constant {}, &[(0, 1.0), (1000, 1.0)]),
            (half, &[(0, 1.0), (3, 0.5), (15, 0.25), (99, 0.1)]),
            (cube, &[(0, 1.0), (1, 0.125), (9, 0.001)]),
            (
                hinge,
                &[(0, 1.0), (4, 1.0), (5, 1.0 / 11.0), (14, 1.0 / 101.0)],
            ),
        ];
        for (function, values) in cases {
            for &(staleness, expected) in values {
                let found = function.factor(staleness);
                assert!(
                    (found - expected).abs() < 1e-15,
                    "{function:?} of {staleness} is {found}"
                );
            }
        }
    }

    #[test]
    fn weights_are_integers_that_never_vanish() {
        let weight = |function: Staleness, given, now| {
            let info = RoundInfo {
                round: RoundId(now),
                population: 1,
            };
            function.weight(&report_from(0, RoundId(given)), &info).0
        };
        let half = Staleness::SQUARE_ROOT;
        // 65536, 65536/2, 65536/sqrt(2) = 46340.95.
        assert_eq!([weight(half, 7, 7), weight(half, 4, 7)], [65536, 32768]);
        assert_eq!(weight(half, 6, 7), 46341);
        // A version of the future is no staleness.
        assert_eq!(weight(half, 9, 7), SCALE);
        let steep = Staleness::Polynomial { exponent: 1e300 };
        assert_eq!(weight(steep, 0, 1), 1);
        assert_eq!(weight(half, 0, u64::MAX), 1);
        let mut last = SCALE;
        for now in 0..2000 {
            let next = weight(half, 0, now);
            assert!(next <= last);
            last = next;
        }
    }
}
