//! Basic composition: every event by itself, and the sum of all.
//!
//! # Source
//! Dwork, Kenthapadi, McSherry, Mironov and Naor, EUROCRYPT 2006 (basic composition); Balle,
//! Barthe and Gaboardi 2018 (arXiv:1807.01647), Theorems 8 and 9 (sampling). Every Gaussian event
//! is converted exactly.
//!
//! A valid bound, and a bad one: it is there to be set beside the others.

use super::gaussian::gaussian_epsilon;
use super::rdp::curve::Curve;
use super::rdp::epsilon_of;
use super::walk::{Costs, Draw};
use super::{Accountant, AccountantKind, Bounds};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::pld::dominate::{Step, step};
use crate::pld::lattice::Rules;
use crate::pld::law::Law;
use crate::pld::single;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon};

const UP: f64 = 1.0 + 1e-14;

/// The plain sum of each event's own `(epsilon, delta)`.
#[derive(Clone, Debug)]
pub struct NaiveAccountant {
    relation: NeighboringRelation,
    ledger: Ledger,
    parts: Vec<(Guarantee, f64)>,
}

/// What one event promises by itself.
#[derive(Clone, Debug)]
pub(in crate::accountant) enum Guarantee {
    Gaussian {
        mu: f64,
    },
    Curve {
        curve: Curve,
        failure: f64,
    },
    /// The losses of one step, in each direction.
    Exact {
        laws: Vec<Law>,
    },
    Sampled {
        rate: f64,
        inner: Box<Guarantee>,
    },
    /// A sample that lowers `delta` only.
    Seldom {
        rate: f64,
        inner: Box<Guarantee>,
    },
}

impl Guarantee {
    /// The part of `delta` that it needs whatever its `epsilon`, and whether it profits by more.
    fn needs(&self) -> (f64, bool) {
        match self {
            Self::Gaussian { mu } => (0.0, *mu > 0.0),
            Self::Curve { curve, failure } => (*failure, curve.pure_epsilon() == f64::INFINITY),
            Self::Exact { .. } => (0.0, true),
            Self::Sampled { rate, inner } | Self::Seldom { rate, inner } => {
                let (failure, profits) = inner.needs();
                (failure * rate * UP, profits)
            }
        }
    }

    fn epsilon(&self, delta: f64) -> f64 {
        match self {
            Self::Gaussian { mu } => gaussian_epsilon(*mu, delta).1,
            Self::Curve { curve, failure } => {
                epsilon_of(delta, *failure, curve.pure_epsilon(), |alpha| {
                    curve.cgf(alpha)
                })
            }
            Self::Exact { laws } => {
                let rules = Rules::get();
                laws.iter()
                    .map(|law| {
                        if delta <= 0.0 {
                            return law.most();
                        }
                        single::epsilon_of(law, delta, rules)
                    })
                    .fold(0.0, f64::max)
            }
            Self::Sampled { rate, inner } => {
                let inner = inner.epsilon((delta / rate).min(1.0));
                if inner > 1.0 {
                    // ln(1 + q (e^x - 1)) = x + ln(q + (1 - q) e^-x)
                    (inner + libm::log(rate + (1.0 - rate) * libm::exp(-inner))) * UP
                } else {
                    libm::log1p(rate * libm::expm1(inner)) * UP
                }
            }
            Self::Seldom { rate, inner } => inner.epsilon((delta / rate).min(1.0)),
        }
    }
}

impl NaiveAccountant {
    /// Nothing composed.
    #[must_use]
    pub fn new(relation: NeighboringRelation) -> Self {
        Self {
            relation,
            ledger: Ledger::default(),
            parts: Vec::new(),
        }
    }

    /// From its Rényi curve.
    fn curve(&self, event: &DpEvent) -> Result<Vec<(Guarantee, f64)>, PrivacyError> {
        let described = Curve::of(event, self.relation, AccountantKind::Naive)?;
        let guarantee = Guarantee::Curve {
            // It is asked once for every delta that is tried.
            curve: described.curve.often(),
            failure: described.failure,
        };
        Ok(vec![(guarantee, 1.0)])
    }

    /// The sum, with `delta` shared equally by the events that profit.
    fn sum(&self, delta: f64) -> f64 {
        if delta >= 1.0 {
            return 0.0;
        }
        let (mut reserved, mut sharing) = (0.0, 0.0);
        for (guarantee, count) in &self.parts {
            let (failure, profits) = guarantee.needs();
            reserved += failure * count * UP;
            if profits {
                sharing += count;
            }
        }
        let rest = delta - reserved;
        if rest < 0.0 {
            return f64::INFINITY;
        }
        let share = if sharing > 0.0 {
            rest / sharing * (1.0 - 1e-15)
        } else {
            0.0
        };
        let parts = self.parts.iter();
        parts
            .map(|(guarantee, count)| {
                let (failure, profits) = guarantee.needs();
                count * guarantee.epsilon(if profits { failure + share } else { failure })
            })
            .sum::<f64>()
            * UP
    }
}

impl Costs for NaiveAccountant {
    /// What it falls into, and how often.
    type Cost = Vec<(Guarantee, f64)>;

    /// Nothing is known before it is taken apart: Gaussian mechanisms count one by one, too.
    fn whole(&self, _: &DpEvent) -> Option<Self::Cost> {
        None
    }

    fn repeated(&self, mut one: Self::Cost, count: u64) -> Self::Cost {
        for (_, times) in &mut one {
            *times *= count as f64;
        }
        one
    }

    fn composed(&self, parts: Vec<Self::Cost>) -> Self::Cost {
        parts.concat()
    }

    fn sampled(
        &self,
        event: &DpEvent,
        draw: Draw,
        inner: &DpEvent,
    ) -> Result<Self::Cost, PrivacyError> {
        let one = |guarantee| Ok(vec![(guarantee, 1.0)]);
        if let Some(guarantee) = gaussian(event) {
            return one(guarantee);
        }
        let rate = match draw {
            Draw::Poisson(rate) => rate,
            Draw::FixedSize { .. } if self.relation == NeighboringRelation::ReplaceOne => {
                (draw.rate() * UP).min(1.0)
            }
            Draw::FixedSize { .. } => return self.curve(event),
        };
        // What is drawn is one release, also where it is a composition.
        let mut inside = match inner {
            DpEvent::SelfComposed { .. } | DpEvent::Composed { .. } => match gaussian(inner) {
                Some(guarantee) => vec![(guarantee, 1.0)],
                None => self.curve(inner)?,
            },
            _ => self.cost(inner)?,
        };
        let (Some((inside, _)), true) = (inside.pop(), rate > 0.0) else {
            return one(Guarantee::Gaussian { mu: 0.0 });
        };
        let inner = Box::new(inside);
        // Of two samples with one member replaced, neither need be a neighbour of the sample
        // without it, which the amplification of epsilon rests on.
        let poisson = matches!(draw, Draw::Poisson(_));
        one(
            if poisson && self.relation == NeighboringRelation::ReplaceOne {
                Guarantee::Seldom { rate, inner }
            } else {
                Guarantee::Sampled { rate, inner }
            },
        )
    }

    fn single(&self, event: &DpEvent) -> Result<Self::Cost, PrivacyError> {
        if let Some(guarantee) = gaussian(event) {
            return Ok(vec![(guarantee, 1.0)]);
        }
        if !matches!(
            event,
            DpEvent::MixtureOfGaussians { .. } | DpEvent::TruncatedPoisson { .. }
        ) {
            return self.curve(event);
        }
        let mine = |error| match error {
            PrivacyError::Unsupported {
                event,
                relation,
                instead,
                ..
            } => PrivacyError::Unsupported {
                accountant: AccountantKind::Naive.name(),
                event,
                relation,
                instead,
            },
            other => other,
        };
        let guarantee = match step(event, self.relation).map_err(mine)? {
            Step::Nothing => Guarantee::Gaussian { mu: 0.0 },
            Step::Everything => Guarantee::Gaussian { mu: f64::INFINITY },
            Step::Gaussian(precision) | Step::AtMostGaussian(precision) => {
                let mu = libm::sqrt(precision) * UP;
                Guarantee::Gaussian { mu }
            }
            Step::Pair(pair) => Guarantee::Exact {
                laws: core::iter::once(pair.remove).chain(pair.add).collect(),
            },
        };
        Ok(vec![(guarantee, 1.0)])
    }
}

/// The guarantee of a composition of Gaussian mechanisms.
fn gaussian(event: &DpEvent) -> Option<Guarantee> {
    let mu = libm::sqrt(event.gaussian_precision()?) * UP;
    Some(Guarantee::Gaussian { mu })
}

impl Accountant for NaiveAccountant {
    fn kind(&self) -> AccountantKind {
        AccountantKind::Naive
    }

    fn relation(&self) -> NeighboringRelation {
        self.relation
    }

    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        let parts = self.cost(event)?;
        if count > 0 {
            let parts = self.repeated(parts, count);
            let again = self.ledger.entries().last();
            if again.is_some_and(|entry| entry.event == *event) {
                let first = self.parts.len() - parts.len();
                for (old, new) in self.parts[first..].iter_mut().zip(parts) {
                    old.1 += new.1;
                }
            } else {
                self.parts.extend(parts);
            }
            self.ledger.record(event, count);
        }
        Ok(())
    }

    fn epsilon(&self, delta: Delta) -> Result<Bounds<Epsilon>, PrivacyError> {
        Ok(Bounds {
            upper: Epsilon::new(self.sum(delta.get()))?,
            lower: Epsilon::ZERO,
        })
    }

    fn delta(&self, epsilon: Epsilon) -> Result<Bounds<Delta>, PrivacyError> {
        // The sum falls as delta grows; bisection over its logarithm keeps the safe end.
        let fits = |delta: f64| self.sum(delta) <= epsilon.get();
        let upper = if fits(0.0) {
            0.0
        } else {
            let (mut low, mut high) = (-745.0, 0.0);
            let (mut at_low, mut at_high) = (f64::INFINITY, -epsilon.get());
            // False position (Dowell and Jarratt 1971), with halving where there is no line.
            for turn in 0..120 {
                if high - low <= 1e-10 {
                    break;
                }
                let line = low + at_low / (at_low - at_high) * (high - low);
                let middle = if turn % 4 != 3 && line > low && line < high {
                    line.min(high - 1e-11)
                } else {
                    0.5 * (low + high)
                };
                let there = self.sum(libm::exp(middle)) - epsilon.get();
                if there <= 0.0 {
                    (high, at_high) = (middle, there);
                    at_low *= 0.5;
                } else {
                    (low, at_low) = (middle, there);
                    at_high *= 0.5;
                }
            }
            libm::exp(high)
        };
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

    fn epsilon(events: &[(DpEvent, u64)], delta: f64) -> f64 {
        let mut accountant = NaiveAccountant::new(NeighboringRelation::AddOrRemoveOne);
        for (event, count) in events {
            accountant.compose(event, *count).unwrap();
        }
        let delta = Delta::new(delta).unwrap();
        accountant.epsilon(delta).unwrap().upper.get()
    }

    fn noise(value: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(value).unwrap()
    }

    #[test]
    fn it_is_a_plain_sum() {
        let gaussian = || DpEvent::gaussian(noise(4.0));
        // Each of ten events at a tenth of delta; exact values as in the Gaussian accountant.
        let one = gaussian_epsilon(0.25, 1e-6).1;
        let ten = epsilon(&[(gaussian(), 10)], 1e-5);
        assert!((ten / (10.0 * one) - 1.0).abs() < 1e-9, "{ten} {one}");
        // Pure events cost their epsilon and no delta.
        let pure = epsilon(&[(DpEvent::laplace(noise(2.0)), 3), (gaussian(), 10)], 1e-5);
        assert!((pure - 1.5 - ten).abs() < 1e-9);
        // Sampling: ln(1 + q (e^eps - 1)) at delta / q.
        let sampled = DpEvent::poisson_sampled(0.1, gaussian()).unwrap();
        let inner = gaussian_epsilon(0.25, 1e-5).1;
        let found = epsilon(&[(sampled, 1)], 1e-6);
        assert!(
            (found - (0.1 * inner.exp_m1()).ln_1p()).abs() < 1e-12,
            "{found}"
        );
        // A guarantee with delta keeps that delta for itself.
        let given = DpEvent::epsilon_delta(Epsilon::new(0.5).unwrap(), Delta::new(1e-6).unwrap());
        assert!((epsilon(&[(given.clone(), 2)], 2.1e-6) - 1.0).abs() < 1e-9);
        assert!(epsilon(&[(given, 3)], 2.1e-6).is_infinite());
    }
}
