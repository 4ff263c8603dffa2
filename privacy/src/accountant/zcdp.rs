//! The accountant of concentrated differential privacy.
//!
//! # Source
//! Bun and Steinke, "Concentrated Differential Privacy", 2016 (arXiv:1605.02065): a Gaussian
//! mechanism is `1/(2 sigma^2)`-zCDP (Proposition 1.6), an `epsilon`-differentially private one
//! `epsilon^2/2`-zCDP (Proposition 1.4), and `rho` adds up (Lemma 1.7). Discrete Gaussian: Canonne,
//! Kamath and Steinke 2020 (arXiv:2004.00010), Proposition 5; the conversion is their Proposition
//! 12 with the order searched over the reals.
//!
//! Concentrated differential privacy knows no amplification by sampling: a sampled event costs
//! what it costs without sampling.

use super::rdp::{delta_of, epsilon_of};
use super::walk::{Costs, Draw};
use super::{Accountant, AccountantKind, Bounds};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon};

const UP: f64 = 1.0 + 1e-15;

/// Zero-concentrated differential privacy: a running sum, without credit for sampling.
#[derive(Clone, Debug)]
pub struct ZcdpAccountant {
    relation: NeighboringRelation,
    ledger: Ledger,
    total: Cost,
}

/// `D_alpha <= xi + rho alpha`, except with probability `failure`.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::accountant) struct Cost {
    rho: f64,
    xi: f64,
    failure: f64,
}

impl Cost {
    fn rho(rho: f64) -> Self {
        Self {
            rho: rho * UP,
            ..Self::default()
        }
    }

    fn plus(self, other: Self, count: f64) -> Self {
        let sum = |own: f64, each: f64| {
            if each > 0.0 {
                (own + each * count) * UP
            } else {
                own
            }
        };
        Self {
            rho: sum(self.rho, other.rho),
            xi: sum(self.xi, other.xi),
            failure: sum(self.failure, other.failure),
        }
    }
}

impl ZcdpAccountant {
    /// Nothing composed.
    #[must_use]
    pub fn new(relation: NeighboringRelation) -> Self {
        Self {
            relation,
            ledger: Ledger::default(),
            total: Cost::default(),
        }
    }

    /// The sum of `rho`, rounded upwards.
    #[must_use]
    pub fn rho(&self) -> f64 {
        self.total.rho
    }

    /// `(alpha - 1) D_alpha`.
    fn cgf(&self, alpha: f64) -> f64 {
        (alpha - 1.0) * (self.total.xi + self.total.rho * alpha) * (1.0 + 1e-14)
    }

    fn pure_epsilon(&self) -> f64 {
        if self.total.rho > 0.0 {
            f64::INFINITY
        } else {
            self.total.xi
        }
    }
}

impl Costs for ZcdpAccountant {
    type Cost = Cost;

    fn whole(&self, event: &DpEvent) -> Option<Cost> {
        let precision = event.gaussian_precision()?;
        Some(Cost::rho(0.5 * precision))
    }

    fn repeated(&self, one: Cost, count: u64) -> Cost {
        Cost::default().plus(one, count as f64)
    }

    fn composed(&self, parts: Vec<Cost>) -> Cost {
        parts
            .into_iter()
            .fold(Cost::default(), |sum, part| sum.plus(part, 1.0))
    }

    /// Of the sampled and the unsampled mechanism the latter costs more, whatever is drawn.
    fn sampled(&self, event: &DpEvent, draw: Draw, inner: &DpEvent) -> Result<Cost, PrivacyError> {
        match draw {
            Draw::FixedSize { .. } if self.relation != NeighboringRelation::ReplaceOne => {
                self.single(event)
            }
            _ => self.cost(inner),
        }
    }

    fn single(&self, event: &DpEvent) -> Result<Cost, PrivacyError> {
        let pure = |epsilon: f64| Cost::rho(0.5 * epsilon * epsilon);
        Ok(match event {
            DpEvent::NonPrivate => Cost::rho(f64::INFINITY),
            DpEvent::Laplace { noise_multiplier } => pure(UP / noise_multiplier.get()),
            DpEvent::DiscreteLaplace {
                noise_parameter,
                sensitivity,
                ..
            } => pure(noise_parameter * *sensitivity as f64 * UP),
            DpEvent::DiscreteGaussian { sensitivity: 0, .. } => Cost::default(),
            DpEvent::DiscreteGaussian {
                sigma, sensitivity, ..
            } => {
                let ratio = *sensitivity as f64 / sigma * UP;
                Cost::rho(0.5 * ratio * ratio)
            }
            DpEvent::EpsilonDelta { epsilon, delta, .. } => Cost {
                failure: delta.get(),
                ..pure(epsilon.get())
            },
            DpEvent::ZCdp { rho, xi, .. } => Cost {
                rho: *rho,
                xi: *xi,
                failure: 0.0,
            },
            DpEvent::RandomizedResponse {
                noise_parameter,
                buckets,
                ..
            } if self.relation != NeighboringRelation::AddOrRemoveOne => {
                let odds = *buckets as f64 * (1.0 - noise_parameter) / noise_parameter;
                pure(libm::log1p(odds) * UP)
            }
            _ => {
                return Err(PrivacyError::Unsupported {
                    accountant: AccountantKind::Zcdp.name(),
                    event: event.path(),
                    relation: self.relation,
                    instead: "use the pld or the rdp accountant",
                });
            }
        })
    }
}

impl Accountant for ZcdpAccountant {
    fn kind(&self) -> AccountantKind {
        AccountantKind::Zcdp
    }

    fn relation(&self) -> NeighboringRelation {
        self.relation
    }

    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        let cost = self.cost(event)?;
        if count > 0 {
            self.total = self.total.plus(cost, count as f64);
            self.ledger.record(event, count);
        }
        Ok(())
    }

    fn epsilon(&self, delta: Delta) -> Result<Bounds<Epsilon>, PrivacyError> {
        let upper = epsilon_of(
            delta.get(),
            self.total.failure,
            self.pure_epsilon(),
            |alpha| self.cgf(alpha),
        );
        Ok(Bounds {
            upper: Epsilon::new(upper)?,
            lower: Epsilon::ZERO,
        })
    }

    fn delta(&self, epsilon: Epsilon) -> Result<Bounds<Delta>, PrivacyError> {
        let upper = delta_of(
            epsilon.get(),
            self.total.failure,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::NoiseMultiplier;

    fn noise(value: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(value).unwrap()
    }

    /// Bun and Steinke's simple conversion, `rho + 2 sqrt(rho ln(1/delta))`, is looser, and the
    /// exact Gaussian is tighter.
    #[test]
    fn the_conversion_lies_between_the_simple_and_the_exact() {
        for (sigma, count, delta) in [(1.0, 1, 1e-5), (5.0, 100, 1e-6), (0.7, 1000, 1e-8)] {
            let mut accountant = ZcdpAccountant::new(NeighboringRelation::AddOrRemoveOne);
            let event = DpEvent::gaussian(noise(sigma));
            accountant.compose(&event, count).unwrap();
            let rho: f64 = count as f64 / (2.0 * sigma * sigma);
            assert!((accountant.rho() / rho - 1.0).abs() < 1e-12);
            let found = accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
            let simple = rho + 2.0 * (rho * -delta.ln()).sqrt();
            let mut exact = super::super::GaussianAccountant::new(accountant.relation());
            exact.compose(&event, count).unwrap();
            let exact = exact.epsilon(Delta::new(delta).unwrap()).unwrap();
            assert!(found.upper.get() < simple, "{found:?} {simple}");
            assert!(found.upper > exact.upper, "{found:?} {exact:?}");
        }
    }

    #[test]
    fn costs_add_up() {
        let relation = NeighboringRelation::ReplaceOne;
        let gaussian = || DpEvent::gaussian(noise(2.0));
        let cases = [
            (DpEvent::zcdp(0.25, 0.0).unwrap(), 0.25),
            (DpEvent::laplace(noise(2.0)), 0.125),
            (DpEvent::discrete_gaussian(6.0, 3).unwrap(), 0.125),
            (DpEvent::discrete_gaussian(0.0, 0).unwrap(), 0.0),
            (DpEvent::discrete_laplace(0.25, 2).unwrap(), 0.125),
            (
                DpEvent::sampled_without_replacement(100, 1, gaussian()).unwrap(),
                0.125,
            ),
            (
                DpEvent::composed(vec![
                    DpEvent::self_composed(gaussian(), 4).unwrap(),
                    DpEvent::laplace(noise(1.0)),
                ])
                .unwrap(),
                1.0,
            ),
        ];
        let mut accountant = ZcdpAccountant::new(relation);
        let mut sum = 0.0;
        for (event, rho) in cases {
            accountant.compose(&event, 2).unwrap();
            sum += 2.0 * rho;
            assert!(
                (accountant.rho() - sum).abs() < 1e-12 * sum.max(1.0),
                "{event:?}"
            );
            assert!(accountant.rho() >= sum);
        }
        let skellam = DpEvent::skellam(10.0, 1.0, 1.0).unwrap();
        assert!(matches!(
            accountant.compose(&skellam, 1),
            Err(PrivacyError::Unsupported {
                accountant: "zcdp",
                ..
            })
        ));
    }
}
