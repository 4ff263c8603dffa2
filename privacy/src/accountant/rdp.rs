//! The Rényi accountant.
//!
//! # Source
//! Mironov, "Rényi Differential Privacy", 2017 (arXiv:1702.07476); sampling: Mironov, Talwar and
//! Zhang 2019 (arXiv:1908.10530), Zhu and Wang 2019, Wang, Balle and Kasiviswanathan 2019
//! (arXiv:1808.00087); conversion: Canonne, Kamath and Steinke 2020 (arXiv:2004.00010),
//! Proposition 12; selection: Papernot and Steinke 2021 (arXiv:2110.03620).
//!
//! Deviations: orders are searched over the reals instead of taken from a list, and the curve of
//! the sampled Gaussian is integrated as a sum of positive terms ([`quadrature`]), so that no order
//! is ever left out because a series did not converge. Bounds that the papers prove for whole
//! orders only are interpolated, which convexity allows.

use super::{Accountant, AccountantKind, Bounds};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon};

pub(super) mod convert;
pub(super) mod curve;
mod quadrature;

use curve::{Curve, Described};

/// Rényi differential privacy: looser than the `pld` accountant, but composes anything, in any
/// order, also when later parameters depend on earlier outputs
/// ([`PrivacyFilter::renyi`](crate::budget::PrivacyFilter::renyi)).
#[derive(Clone, Debug)]
pub struct RdpAccountant {
    relation: NeighboringRelation,
    ledger: Ledger,
    parts: Vec<(Described, f64)>,
}

impl RdpAccountant {
    /// Nothing composed.
    #[must_use]
    pub fn new(relation: NeighboringRelation) -> Self {
        Self {
            relation,
            ledger: Ledger::default(),
            parts: Vec::new(),
        }
    }

    /// The Rényi divergence of order `alpha > 1` of all that was composed, rounded upwards; events
    /// that may fail outright count without their failure.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `alpha` is finite and above 1.
    pub fn divergence(&self, alpha: f64) -> Result<f64, PrivacyError> {
        PrivacyError::unless(
            alpha > 1.0 && alpha < f64::INFINITY,
            "the order alpha",
            alpha,
            "a finite number above 1",
        )?;
        Ok(self.cgf(alpha) / (alpha - 1.0) * (1.0 + f64::EPSILON))
    }

    /// Whether an event may fail outright.
    pub(crate) fn may_fail(&self) -> bool {
        self.parts.iter().any(|(part, _)| part.failure > 0.0)
    }

    fn cgf(&self, alpha: f64) -> f64 {
        self.sum(|part| part.curve.cgf(alpha))
    }

    fn pure_epsilon(&self) -> f64 {
        self.sum(|part| part.curve.pure_epsilon())
    }

    fn failure(&self) -> f64 {
        self.sum(|part| part.failure)
    }

    /// Over all events, rounded upwards.
    fn sum(&self, value: impl Fn(&Described) -> f64) -> f64 {
        let parts = self.parts.iter();
        parts.map(|(part, count)| count * value(part)).sum::<f64>()
            * (1.0 + f64::EPSILON * (self.parts.len() as f64 + 2.0))
    }
}

impl Accountant for RdpAccountant {
    fn kind(&self) -> AccountantKind {
        AccountantKind::Rdp
    }

    fn relation(&self) -> NeighboringRelation {
        self.relation
    }

    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        // An event like the one before has its curve already.
        let last = self.ledger.entries().last();
        if last.is_some_and(|entry| entry.event == *event)
            && let Some(part) = self.parts.last_mut()
        {
            part.1 += count as f64;
        } else {
            let described = Curve::of(event, self.relation, AccountantKind::Rdp)?;
            if count > 0 {
                self.parts.push((described, count as f64));
            }
        }
        self.ledger.record(event, count);
        Ok(())
    }

    fn epsilon(&self, delta: Delta) -> Result<Bounds<Epsilon>, PrivacyError> {
        let upper = epsilon_of(delta.get(), self.failure(), self.pure_epsilon(), |alpha| {
            self.cgf(alpha)
        });
        Ok(Bounds {
            upper: Epsilon::new(upper)?,
            lower: Epsilon::ZERO,
        })
    }

    fn delta(&self, epsilon: Epsilon) -> Result<Bounds<Delta>, PrivacyError> {
        let upper = delta_of(
            epsilon.get(),
            self.failure(),
            self.pure_epsilon(),
            |alpha| self.cgf(alpha),
        );
        Ok(Bounds {
            upper: Delta::new(upper)?,
            lower: Delta::ZERO,
        })
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn boxed_clone(&self) -> Box<dyn Accountant> {
        Box::new(self.clone())
    }
}

/// `epsilon` at `delta` of a mechanism with this divergence at one order; may be negative.
pub(crate) fn renyi_epsilon(order: f64, divergence: f64, delta: f64) -> f64 {
    let cgf = (order - 1.0) * divergence;
    convert::epsilon_at(order, cgf, libm::log(delta))
}

/// `epsilon` at `delta` of a mechanism that fails outright with probability `failure`, is
/// `pure`-differentially private otherwise, and has this curve.
pub(super) fn epsilon_of(delta: f64, failure: f64, pure: f64, cgf: impl Fn(f64) -> f64) -> f64 {
    let rest = (delta - failure) * (1.0 - 1e-15);
    if delta >= 1.0 {
        0.0
    } else if rest < 0.0 {
        f64::INFINITY
    } else if rest <= 0.0 || pure <= 0.0 {
        pure
    } else {
        convert::epsilon(rest, cgf).min(pure)
    }
}

/// `delta` at `epsilon`, of the same.
pub(super) fn delta_of(epsilon: f64, failure: f64, pure: f64, cgf: impl Fn(f64) -> f64) -> f64 {
    let rest = if pure <= epsilon && pure < f64::INFINITY {
        0.0
    } else {
        convert::delta(epsilon, cgf)
    };
    ((rest + failure) * (1.0 + 1e-15)).min(1.0)
}

#[cfg(test)]
mod tests;
