//! The exact accountant of Gaussian mechanisms.
//!
//! # Source
//! Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018 (arXiv
//! 1805.06530), Theorem 8: with `mu` the sensitivity over the standard deviation,
//! `delta(epsilon) = Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu)`. A composition
//! of Gaussian mechanisms, also one chosen adaptively, is one with `mu^2` the sum of the squares
//! (Dong, Roth and Su 2019, arXiv 1905.02383, Corollary 3.3).
//!
//! Both bounds enclose the rounding errors of the evaluation, so they are equal to about 13
//! digits and never on the wrong side.

use core::f64::consts::FRAC_1_SQRT_2;
use std::sync::OnceLock;

use super::{Accountant, AccountantKind, Bounds};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::relation::NeighboringRelation;
use crate::special::{erfcx, first_that, gauss_legendre};
use crate::units::{Delta, Epsilon};

/// Exact for compositions of Gaussian mechanisms on all members (also trees and correlated noise),
/// under any relation: the noise multiplier is relative to the sensitivity under that relation.
/// Anything else is refused.
#[derive(Clone, Debug)]
pub struct GaussianAccountant {
    relation: NeighboringRelation,
    ledger: Ledger,
    /// The sum of `mu^2`.
    precision: f64,
}

impl GaussianAccountant {
    /// Nothing composed.
    #[must_use]
    pub fn new(relation: NeighboringRelation) -> Self {
        Self {
            relation,
            ledger: Ledger::default(),
            precision: 0.0,
        }
    }
}

impl Accountant for GaussianAccountant {
    fn kind(&self) -> AccountantKind {
        AccountantKind::Gaussian
    }

    fn relation(&self) -> NeighboringRelation {
        self.relation
    }

    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        let each = if *event == DpEvent::NonPrivate {
            f64::INFINITY
        } else {
            event
                .gaussian_precision()
                .ok_or_else(|| PrivacyError::Unsupported {
                    accountant: "gaussian",
                    event: event.path(),
                    relation: self.relation,
                    instead: "it composes only Gaussian noise on all members; use the `pld` \
                              accountant",
                })?
        };
        if count > 0 {
            self.precision = (self.precision + each * count as f64) * (1.0 + 4.0 * f64::EPSILON);
            self.ledger.record(event, count);
        }
        Ok(())
    }

    fn epsilon(&self, delta: Delta) -> Result<Bounds<Epsilon>, PrivacyError> {
        let (lower, upper) = gaussian_epsilon(libm::sqrt(self.precision), delta.get());
        Ok(Bounds {
            upper: Epsilon::new(upper)?,
            lower: Epsilon::new(lower)?,
        })
    }

    fn delta(&self, epsilon: Epsilon) -> Result<Bounds<Delta>, PrivacyError> {
        let (lower, upper) = gaussian_delta(libm::sqrt(self.precision), epsilon.get());
        Ok(Bounds {
            upper: Delta::new(upper)?,
            lower: Delta::new(lower)?,
        })
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn boxed_clone(&self) -> Box<dyn Accountant> {
        Box::new(self.clone())
    }
}

/// Above this `mu` the squares overflow; there is no privacy long before.
const NO_PRIVACY: f64 = 1e150;
/// Below this `mu` the closed form cancels, and a sum of positive terms takes its place.
const SMALL: f64 = 0.05;

/// Lower and upper bound of `delta(epsilon)` for sensitivity over standard deviation `mu`.
pub(crate) fn gaussian_delta(mu: f64, epsilon: f64) -> (f64, f64) {
    if mu <= 0.0 || epsilon == f64::INFINITY {
        // With infinite loss nothing is left to bound, except where there is no noise at all.
        let none = if mu == f64::INFINITY { 1.0 } else { 0.0 };
        return (none, none);
    }
    if mu > NO_PRIVACY {
        return (if mu == f64::INFINITY { 1.0 } else { 0.0 }, 1.0);
    }
    let ratio = epsilon / mu;
    let (low, high) = (ratio - 0.5 * mu, ratio + 0.5 * mu);
    if low > 40.0 {
        // Below the smallest number.
        return (0.0, f64::from_bits(1));
    }
    // `exp(-low^2 / 2)`, whose exponent is rounded like `low` itself.
    let decay = libm::exp(-0.5 * low * low);
    let relative = 8.0 * f64::EPSILON * (2.0 + (low.abs() + 1.0) * (ratio + mu));
    let (value, error) = if mu < SMALL {
        let value = decay * small(mu, low);
        (value, value * relative)
    } else {
        let whole = if low < 0.0 {
            libm::erfc(low * FRAC_1_SQRT_2)
        } else {
            decay * erfcx(low * FRAC_1_SQRT_2)
        };
        let part = decay * erfcx(high * FRAC_1_SQRT_2);
        (0.5 * (whole - part), 0.5 * (whole + part) * relative)
    };
    // What underflows is counted as the smallest normal number.
    (
        (value - error).clamp(0.0, 1.0),
        (value + error + f64::MIN_POSITIVE).clamp(0.0, 1.0),
    )
}

/// `exp(low^2/2)` times the integral of `phi(low + t) (1 - exp(-mu t))` over `t > 0`.
fn small(mu: f64, low: f64) -> f64 {
    const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
    static RULE: OnceLock<([f64; 16], [f64; 16])> = OnceLock::new();
    let (nodes, weights) = RULE.get_or_init(gauss_legendre::<16>);
    // The integrand decays on this scale; after 42 of them nothing is left.
    let scale = 1.0 / low.max(1.0);
    let mut sum = 0.0;
    for panel in 0..21 {
        for (node, weight) in nodes.iter().zip(weights) {
            let t = (f64::from(2 * panel + 1) + node) * scale;
            sum += weight * libm::exp(-t * (low + 0.5 * t)) * -libm::expm1(-mu * t);
        }
    }
    sum * scale * INV_SQRT_2PI
}

/// Lower and upper bound of the smallest `epsilon` for `delta`.
pub(crate) fn gaussian_epsilon(mu: f64, delta: f64) -> (f64, f64) {
    if mu <= 0.0 || delta >= 1.0 {
        return (0.0, 0.0);
    }
    if delta <= 0.0 || mu == f64::INFINITY {
        return (f64::INFINITY, f64::INFINITY);
    }
    if mu > NO_PRIVACY {
        return (0.0, f64::INFINITY);
    }
    // At `low = 40` even the smallest number is not reached.
    let high = mu * (41.0 + 0.5 * mu);
    let upper = first_that(0.0, high, |epsilon| gaussian_delta(mu, epsilon).1 <= delta);
    // The lower one is close below.
    let near = upper * (1.0 - 1e-9);
    let near = if gaussian_delta(mu, near).0 > delta {
        near
    } else {
        0.0
    };
    let lower = first_that(near, upper, |epsilon| {
        gaussian_delta(mu, epsilon).0 <= delta
    });
    (lower.min(upper), upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::NoiseMultiplier;

    /// Values of mpmath 1.3 with 60 digits, from the formula at the head.
    #[test]
    fn both_directions_agree_with_mpmath() {
        for (sigma, epsilon, expected) in [
            (1.0, 0.0, 0.3829249225480262),
            (1.0, 1.0, 0.12693673750664394),
            (2.0, 0.5, 0.05244032328766966),
            (0.5, 10.0, 9.940202816118153e-6),
            (100.0, 0.0, 0.003989406181481645),
            (100.0, 0.05, 5.481440200746869e-10),
            (1e6, 0.0, 3.9894228040141607e-7),
            (1e4, 1e-3, 7.478298460019527e-29),
            (1.0, 12.0, 5.208442068950465e-32),
            (1.0, 30.0, 4.709326318097522e-193),
            (0.01, 4000.0, 1.0),
        ] {
            let (lower, upper) = gaussian_delta(1.0 / sigma, epsilon);
            let close = 1e-9 * expected;
            assert!(
                lower <= expected * (1.0 + 1e-15) && upper >= expected * (1.0 - 1e-15),
                "sigma {sigma}, epsilon {epsilon}: {lower} {upper} {expected}"
            );
            assert!(
                upper - lower < close,
                "sigma {sigma}, epsilon {epsilon}: {lower} {upper}"
            );
        }
        for (sigma, count, delta, expected) in [
            (1.0, 1, 1e-5, 4.3771780956812245),
            (1.0, 100, 1e-5, 91.81728962466374),
            (10.0, 1000, 1e-8, 22.17343424676717),
            (100.0, 10000, 1e-6, 4.886554117462212),
            (4.0, 1, 1e-30, 2.8130709836862495),
            (0.05, 1, 1e-5, 284.39184949774244),
        ] {
            let mut accountant = GaussianAccountant::new(NeighboringRelation::AddOrRemoveOne);
            let event = DpEvent::gaussian(NoiseMultiplier::new(sigma).unwrap());
            accountant.compose(&event, count).unwrap();
            let found = accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
            let (lower, upper) = (found.lower.get(), found.upper.get());
            assert!(
                lower <= expected && expected <= upper,
                "{lower} {upper} {expected}"
            );
            assert!(
                upper - lower < 1e-11 * expected,
                "{lower} {upper} {expected}"
            );
        }
    }

    #[test]
    fn extremes_stay_numbers() {
        for mu in [
            0.0,
            5e-324,
            1e-300,
            1e-8,
            1.0,
            1e8,
            1e149,
            1e151,
            f64::INFINITY,
        ] {
            for epsilon in [0.0, 5e-324, 1e-8, 1.0, 1e8, 1e300, f64::INFINITY] {
                let (lower, upper) = gaussian_delta(mu, epsilon);
                assert!(
                    0.0 <= lower && lower <= upper && upper <= 1.0,
                    "{mu} {epsilon}"
                );
            }
            for delta in [0.0, 5e-324, 1e-30, 1e-5, 0.5, 1.0] {
                let (lower, upper) = gaussian_epsilon(mu, delta);
                assert!(
                    0.0 <= lower && lower <= upper,
                    "{mu} {delta}: {lower} {upper}"
                );
            }
        }
    }

    #[test]
    fn the_two_forms_meet() {
        for epsilon in [0.0, 0.01, 0.1, 0.3] {
            let (lower, _) = gaussian_delta(SMALL * (1.0 - 1e-12), epsilon);
            let (_, upper) = gaussian_delta(SMALL * (1.0 + 1e-12), epsilon);
            assert!(
                (upper / lower - 1.0).abs() < 1e-9,
                "{epsilon}: {lower} {upper}"
            );
        }
    }

    #[test]
    fn sampling_is_refused_and_nothing_changes() {
        let mut accountant = GaussianAccountant::new(NeighboringRelation::AddOrRemoveOne);
        let gaussian = DpEvent::gaussian(NoiseMultiplier::new(1.0).unwrap());
        let sampled = DpEvent::poisson_sampled(0.1, gaussian).unwrap();
        let error = accountant.compose(&sampled, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the gaussian accountant has no proven bound for the event `poisson-sampled of \
             gaussian` under the relation `add-or-remove-one`; it composes only Gaussian noise on \
             all members; use the `pld` accountant"
        );
        assert!(accountant.ledger().is_empty());
        assert_eq!(
            accountant.epsilon(Delta::ZERO).unwrap().upper,
            Epsilon::ZERO
        );
    }
}
