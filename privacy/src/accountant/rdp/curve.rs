//! The Rényi curve of one event: an upper bound of `(alpha - 1) D_alpha` at every real order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::convert;
use super::quadrature::{
    LnSum, even_moment, excess_of_exp, ln_excess, ln_one_plus_exp, mixture, sampled_gaussian,
};
use crate::accountant::AccountantKind;
use crate::accountant::walk::{Costs, Draw};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::relation::NeighboringRelation;

/// Above this order the bounds for sampling that are sums over all whole orders below are left
/// for those that need no sum.
const MOST_TERMS: u32 = 512;

/// Highest moment, over 2, that the bound for samples of fixed size uses.
const MOST_MOMENTS: u32 = 64;

/// Widest shift of a discrete Laplace law that is summed term by term.
const MOST_SHIFT: u64 = 256;

/// Outweighs the rounding of a closed form.
const UP: f64 = 1.0 + 1e-13;

/// `ln(e^x + e^y)`.
fn ln_add(x: f64, y: f64) -> f64 {
    let mut sum = LnSum::new();
    sum.add(x);
    sum.add(y);
    sum.ln()
}

/// `ln(n! / (k! (n - k)!))`.
fn ln_binomial(n: u32, k: u32) -> f64 {
    let ln_factorial = |n: u32| libm::lgamma(f64::from(n) + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// The curve of a mechanism. `cgf(alpha)` is `(alpha - 1) D_alpha`, 0 at order 1.
#[derive(Clone, Debug)]
pub(in crate::accountant) enum Curve {
    /// `D_alpha <= xi + rho alpha`.
    Linear { rho: f64, xi: f64 },
    /// Laplace noise of scale `1 / epsilon`.
    Laplace { epsilon: f64 },
    /// Two outcomes (or `k`) whose likelihood ratio is `e^epsilon`, `1` or `e^-epsilon`; `least`
    /// is the probability of the outcome that the other input makes likelier.
    Response { epsilon: f64, least: f64 },
    /// A known ratio of probabilities on finitely many outcomes: pairs of the probability under
    /// `Q` and the logarithm of `P/Q`. Both directions count.
    Finite { outcomes: Vec<(f64, f64)> },
    /// Skellam noise.
    Skellam { variance: f64, l1: f64, l2: f64 },
    /// Gaussian noise on a Poisson sample, under add-or-remove-one.
    SampledGaussian { rate: f64, sigma: f64 },
    /// Gaussian noise on a sum with random change: probabilities and amounts.
    Mixture { parts: Vec<(f64, f64)>, sigma: f64 },
    /// Gaussian noise on a subset of fixed size, under replace-one. `moments[j]` is that of order
    /// `2 j`; empty where they never help.
    FixedSizeGaussian {
        rate: f64,
        precision: f64,
        moments: Vec<f64>,
    },
    /// Any mechanism on a Poisson sample, under add-or-remove-one.
    /// `whole[l]` is the inner `cgf` at order `l + 2`.
    Poisson {
        rate: f64,
        inner: Box<Curve>,
        whole: Vec<f64>,
    },
    /// Any mechanism on a subset of fixed size, under replace-one. `whole[l]` is the inner `cgf` at
    /// order `l + 2`.
    FixedSize {
        rate: f64,
        inner: Box<Curve>,
        whole: Vec<f64>,
    },
    /// Any mechanism on a random sample, of which nothing is known but that a member is in it with
    /// this probability.
    Sampled { rate: f64, inner: Box<Curve> },
    /// One after the other.
    Sum { parts: Vec<(Curve, f64)> },
    /// The best of a random number of repetitions.
    Select(Select),
    /// One that takes long, with what it was asked for.
    Remembered { inner: Box<Curve>, seen: Seen },
    /// Orders, ascending, and values there. Between them a chord, which a convex curve lies below.
    Tabulated {
        orders: Vec<f64>,
        values: Vec<f64>,
        pure: f64,
    },
}

/// Values of a curve by the bits of the order. Its copies share them, as a curve does not change:
/// searches for the best order ask for the same orders again and again.
#[derive(Clone, Debug, Default)]
pub(in crate::accountant) struct Seen(Arc<Mutex<BTreeMap<u64, f64>>>);

impl Seen {
    fn at(&self, alpha: f64, value: impl FnOnce() -> f64) -> f64 {
        // More are not held.
        const MOST: usize = 1 << 13;
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&alpha.to_bits()) {
            return *found;
        }
        let found = value();
        let mut seen = lock();
        if seen.len() < MOST {
            seen.insert(alpha.to_bits(), found);
        }
        found
    }
}

/// Papernot and Steinke (2021, arXiv:2110.03620).
#[derive(Clone, Debug)]
pub(in crate::accountant) struct Select {
    inner: Box<Curve>,
    ln_mean: f64,
    /// Theorem 2: the constant; Theorem 6 (Poisson): the mean.
    law: SelectLaw,
    /// The divergence of infinite order.
    pure: f64,
    /// Orders, descending, and the least bound of the divergence at this or a higher one.
    least_above: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
enum SelectLaw {
    NegativeBinomial { constant: f64 },
    Poisson { mean: f64 },
}

/// A curve, and the probability that the mechanism fails outright.
#[derive(Clone, Debug)]
pub(in crate::accountant) struct Described {
    pub(in crate::accountant) curve: Curve,
    pub(in crate::accountant) failure: f64,
}

impl Curve {
    pub(super) const NOTHING: Self = Self::Linear { rho: 0.0, xi: 0.0 };
    const NO_PRIVACY: Self = Self::Linear {
        rho: f64::INFINITY,
        xi: 0.0,
    };

    /// The Gaussian mechanism with this squared inverse noise multiplier.
    fn gaussian(precision: f64) -> Self {
        Self::Linear {
            rho: 0.5 * precision,
            xi: 0.0,
        }
    }

    /// Any `(epsilon, 0)`-DP mechanism.
    fn pure(epsilon: f64) -> Self {
        if epsilon < f64::INFINITY {
            let least = 1.0 / (1.0 + libm::exp(epsilon));
            Self::Response { epsilon, least }
        } else {
            Self::NO_PRIVACY
        }
    }

    /// `(alpha - 1) D_alpha` at an order above 1, rounded upwards.
    pub(in crate::accountant) fn cgf(&self, alpha: f64) -> f64 {
        let c = alpha - 1.0;
        match self {
            Self::Linear { rho, xi } => {
                if *rho <= 0.0 && *xi <= 0.0 {
                    0.0
                } else {
                    c * (xi + rho * alpha) * UP
                }
            }
            Self::Laplace { epsilon } => laplace(*epsilon, alpha),
            Self::Response { epsilon, least } => {
                // least (e^(alpha eps) - 1) (1 - e^(-c eps)) is the moment less 1.
                let grown = alpha * epsilon;
                let ln_grown = if grown > 30.0 {
                    grown + libm::log1p(-libm::exp(-grown))
                } else {
                    libm::log(libm::expm1(grown))
                };
                let rest = libm::log(-libm::expm1(-c * epsilon));
                let ln_least = if *least > 0.0 {
                    libm::log(*least)
                } else {
                    -epsilon
                };
                let ln = ln_least + ln_grown + rest;
                (ln_one_plus_exp(ln) * UP).min(c * epsilon * UP)
            }
            Self::Finite { outcomes } => {
                let direction = |order: f64| {
                    let mut sum = LnSum::new();
                    for &(probability, v) in outcomes {
                        sum.add(libm::log(probability) + ln_excess(v, order));
                    }
                    ln_one_plus_exp(sum.ln())
                };
                direction(alpha).max(direction(1.0 - alpha)) * UP
            }
            Self::Skellam { variance, l1, l2 } => {
                interpolated(alpha, |order| skellam(*variance, *l1, *l2, order))
            }
            Self::SampledGaussian { rate, sigma } => sampled_gaussian(*rate, *sigma, alpha),
            Self::Mixture { parts, sigma } => mixture(parts, *sigma, alpha),
            Self::FixedSizeGaussian {
                rate,
                precision,
                moments,
            } => {
                let unsampled = Self::gaussian(*precision);
                if alpha > f64::from(MOST_TERMS) {
                    return sampled(*rate, unsampled.cgf(alpha));
                }
                interpolated(alpha, |order| {
                    fixed_size_gaussian(*rate, *precision, moments, order)
                })
                .min(sampled(*rate, unsampled.cgf(alpha)))
            }
            Self::Poisson { rate, inner, whole } => {
                let simple = sampled(*rate, inner.cgf(alpha));
                if alpha > f64::from(MOST_TERMS) {
                    return simple;
                }
                interpolated(alpha, |order| poisson(*rate, whole, order)).min(simple)
            }
            Self::FixedSize { rate, inner, whole } => {
                let simple = sampled(*rate, inner.cgf(alpha));
                if alpha > f64::from(MOST_TERMS) {
                    return simple;
                }
                interpolated(alpha, |order| fixed_size(*rate, whole, order)).min(simple)
            }
            Self::Sampled { rate, inner } => sampled(*rate, inner.cgf(alpha)),
            Self::Sum { parts } => {
                parts
                    .iter()
                    .map(|(curve, count)| count * curve.cgf(alpha))
                    .sum::<f64>()
                    * UP
            }
            Self::Select(select) => select.cgf(alpha),
            Self::Remembered { inner, seen } => seen.at(alpha, || inner.cgf(alpha)),
            Self::Tabulated { orders, values, .. } => {
                let above = orders.partition_point(|order| *order < alpha);
                let Some((order, value)) = orders.get(above).zip(values.get(above)) else {
                    return f64::INFINITY;
                };
                let (below, low) = match above {
                    0 => (1.0, 0.0),
                    _ => (orders[above - 1], values[above - 1]),
                };
                let share = (alpha - below) / (order - below);
                if share >= 1.0 {
                    return *value;
                }
                ((1.0 - share) * low + share * value) * UP
            }
        }
    }

    /// At every whole order from 2 to the last that sums over orders take.
    fn whole(&self) -> Vec<f64> {
        (2..=MOST_TERMS)
            .map(|order| self.cgf(f64::from(order)))
            .collect()
    }

    /// How long `cgf` takes, roughly, in evaluations of a closed form.
    fn work(&self) -> f64 {
        match self {
            Self::Linear { .. }
            | Self::Laplace { .. }
            | Self::Response { .. }
            | Self::Skellam { .. }
            | Self::Tabulated { .. } => 1.0,
            Self::Finite { outcomes } => outcomes.len() as f64,
            Self::SampledGaussian { .. } => 100.0,
            Self::Mixture { parts, .. } => 1000.0 * parts.len() as f64,
            Self::FixedSizeGaussian { .. } => 500.0,
            Self::Poisson { inner, .. } | Self::FixedSize { inner, .. } => 500.0 + inner.work(),
            Self::Sampled { inner, .. } | Self::Remembered { inner, .. } => inner.work(),
            Self::Sum { parts } => parts.iter().map(|(curve, _)| curve.work()).sum(),
            Self::Select(select) => {
                let times = match select.law {
                    SelectLaw::NegativeBinomial { .. } => 1.0,
                    SelectLaw::Poisson { .. } => 100.0,
                };
                times * select.inner.work()
            }
        }
    }

    /// The same curve, remembering its values where they take long.
    fn remembered(self) -> Self {
        const LEAST_WORK: f64 = 100.0;
        if self.work() < LEAST_WORK {
            return self;
        }
        Self::Remembered {
            inner: Box::new(self),
            seen: Seen::default(),
        }
    }

    /// The same curve, as a table where it takes long and will be asked for often.
    pub(in crate::accountant) fn often(self) -> Self {
        const MOST_WORK: f64 = 400.0;
        if self.work() <= MOST_WORK {
            return self;
        }
        // Ten times as fine as the search of orders where the best ones are.
        let mut places: Vec<f64> = (0..240).map(|k| -2.0 + 0.05 * f64::from(k)).collect();
        places.extend((0..14).map(|k| -9.0 + 0.5 * f64::from(k)));
        places.extend((0..=22).map(|k| 10.0 + 0.5 * f64::from(k)));
        places.sort_by(f64::total_cmp);
        let orders: Vec<f64> = places.iter().map(|x| 1.0 + libm::exp(*x)).collect();
        Self::Tabulated {
            values: orders.iter().map(|order| self.cgf(*order)).collect(),
            pure: self.pure_epsilon(),
            orders,
        }
    }

    /// The divergence of infinite order: `epsilon` at `delta = 0`.
    pub(in crate::accountant) fn pure_epsilon(&self) -> f64 {
        match self {
            Self::Linear { rho, xi } if *rho <= 0.0 => *xi,
            Self::Laplace { epsilon } | Self::Response { epsilon, .. } => *epsilon,
            Self::Finite { outcomes } => outcomes
                .iter()
                .map(|outcome| libm::fabs(outcome.1))
                .fold(0.0, f64::max),
            Self::Poisson { rate, inner, .. }
            | Self::FixedSize { rate, inner, .. }
            | Self::Sampled { rate, inner } => sampled(*rate, inner.pure_epsilon()),
            Self::Sum { parts } => {
                parts
                    .iter()
                    .map(|(curve, count)| count * curve.pure_epsilon())
                    .sum::<f64>()
                    * UP
            }
            Self::Skellam { l2, .. } if *l2 <= 0.0 => 0.0,
            Self::Tabulated { pure, .. } => *pure,
            Self::Remembered { inner, .. } => inner.pure_epsilon(),
            Self::Select(select) => select.pure,
            _ => f64::INFINITY,
        }
    }

    /// The curve of an event.
    ///
    /// # Errors
    /// [`PrivacyError::Unsupported`] where there is no proven bound.
    pub(in crate::accountant) fn of(
        event: &DpEvent,
        relation: NeighboringRelation,
        asker: AccountantKind,
    ) -> Result<Described, PrivacyError> {
        Curves { relation, asker }.cost(event)
    }

    fn always(self) -> Described {
        Described {
            curve: self,
            failure: 0.0,
        }
    }
}

/// The curves of events, for an accountant.
struct Curves {
    relation: NeighboringRelation,
    asker: AccountantKind,
}

impl Curves {
    fn unsupported(&self, event: &DpEvent, instead: &'static str) -> PrivacyError {
        PrivacyError::Unsupported {
            accountant: self.asker.name(),
            event: event.path(),
            relation: self.relation,
            instead,
        }
    }
}

impl Costs for Curves {
    type Cost = Described;

    fn whole(&self, event: &DpEvent) -> Option<Described> {
        let precision = event.gaussian_precision()?;
        Some(Curve::gaussian(precision).always())
    }

    fn repeated(&self, one: Described, count: u64) -> Described {
        let count = count as f64;
        Described {
            curve: Curve::Sum {
                parts: vec![(one.curve, count)],
            },
            failure: times(one.failure, count),
        }
    }

    fn composed(&self, parts: Vec<Described>) -> Described {
        let failure: f64 = parts.iter().map(|part| part.failure).sum();
        let parts = parts.into_iter().map(|part| (part.curve, 1.0)).collect();
        Described {
            curve: Curve::Sum { parts },
            failure: failure * UP,
        }
    }

    fn sampled(
        &self,
        event: &DpEvent,
        draw: Draw,
        inner: &DpEvent,
    ) -> Result<Described, PrivacyError> {
        let rate = match draw {
            Draw::Poisson(rate) => rate,
            Draw::FixedSize { .. } if self.relation == NeighboringRelation::ReplaceOne => {
                (draw.rate() * UP).min(1.0)
            }
            Draw::FixedSize { .. } => {
                return Err(self.unsupported(
                    event,
                    "a sample of fixed size keeps its size: use replace-one",
                ));
            }
        };
        let precision = inner.gaussian_precision();
        Ok(sample(
            rate,
            self.cost(inner)?,
            precision,
            self.relation,
            draw,
        ))
    }

    fn single(&self, event: &DpEvent) -> Result<Described, PrivacyError> {
        let relation = self.relation;
        let unsupported = |instead| self.unsupported(event, instead);
        Ok(match event {
            DpEvent::NonPrivate => Curve::NO_PRIVACY.always(),
            DpEvent::Laplace { noise_multiplier } => {
                let epsilon = UP / noise_multiplier.get();
                if epsilon < f64::INFINITY {
                    Curve::Laplace { epsilon }.always()
                } else {
                    Curve::NO_PRIVACY.always()
                }
            }
            // Canonne, Kamath and Steinke (2020, arXiv:2004.00010), Proposition 5.
            DpEvent::DiscreteGaussian {
                sigma, sensitivity, ..
            } => match *sensitivity {
                0 => Curve::NOTHING.always(),
                shift => {
                    let ratio = shift as f64 / sigma;
                    Curve::gaussian(ratio * ratio * UP).always()
                }
            },
            DpEvent::DiscreteLaplace {
                noise_parameter,
                sensitivity,
                ..
            } => discrete_laplace(*noise_parameter, *sensitivity).always(),
            DpEvent::Skellam {
                variance,
                l1_sensitivity,
                l2_sensitivity,
                ..
            } => Curve::Skellam {
                variance: *variance,
                l1: *l1_sensitivity,
                l2: *l2_sensitivity,
            }
            .always(),
            DpEvent::RandomizedResponse {
                noise_parameter,
                buckets,
                ..
            } => match relation {
                NeighboringRelation::AddOrRemoveOne => {
                    return Err(unsupported(
                        "a response exists for members only: use replace-one or replace-special",
                    ));
                }
                _ => response(*noise_parameter, *buckets, relation).always(),
            },
            DpEvent::EpsilonDelta { epsilon, delta, .. } => Described {
                curve: Curve::pure(epsilon.get()),
                failure: delta.get(),
            },
            DpEvent::ZCdp { rho, xi, .. } => Curve::Linear { rho: *rho, xi: *xi }.always(),
            DpEvent::MixtureOfGaussians {
                noise_multiplier,
                sensitivities,
                probabilities,
                ..
            } => {
                if relation == NeighboringRelation::ReplaceOne {
                    return Err(unsupported(
                        "use add-or-remove-one or replace-special for a random contribution",
                    ));
                }
                let sigma = noise_multiplier.get();
                let total: f64 = probabilities.iter().sum();
                let weights = probabilities.iter().map(|p| p / total);
                let parts: Vec<(f64, f64)> = weights.zip(sensitivities.iter().copied()).collect();
                if parts.iter().all(|part| part.1 <= 0.0) {
                    Curve::NOTHING.always()
                } else if sigma > 0.0 {
                    Curve::Mixture { parts, sigma }.remembered().always()
                } else {
                    Curve::NO_PRIVACY.always()
                }
            }
            DpEvent::RepeatAndSelect {
                inner, mean, shape, ..
            } => {
                let one = self.cost(inner)?;
                if one.failure > 0.0 {
                    return Err(unsupported(
                        "what is repeated must have no outright failure probability",
                    ));
                }
                Curve::Select(Select::new(one.curve, *mean, *shape))
                    .remembered()
                    .always()
            }
            _ => return Err(unsupported("use the pld accountant")),
        })
    }
}

fn times(failure: f64, count: f64) -> f64 {
    if failure > 0.0 {
        failure * count * UP
    } else {
        0.0
    }
}

/// The curve of a mechanism on a random sample.
fn sample(
    rate: f64,
    described: Described,
    precision: Option<f64>,
    relation: NeighboringRelation,
    draw: Draw,
) -> Described {
    if rate >= 1.0 {
        return described;
    }
    if rate <= 0.0 {
        return Curve::NOTHING.always();
    }
    let failure = described.failure * rate * UP;
    let curve = match (precision, relation, draw) {
        (Some(precision), _, _) if precision <= 0.0 => Curve::NOTHING,
        // Replace-special: the special member contributes nothing, as if it were removed.
        (
            Some(precision),
            NeighboringRelation::AddOrRemoveOne | NeighboringRelation::ReplaceSpecial,
            Draw::Poisson(_),
        ) if precision < f64::INFINITY => Curve::SampledGaussian {
            rate,
            sigma: 1.0 / precision.sqrt(),
        },
        (Some(precision), NeighboringRelation::ReplaceOne, Draw::FixedSize { .. })
            if precision < f64::INFINITY =>
        {
            let sigma = 1.0 / precision.sqrt();
            let useful = if sigma > 0.3 { MOST_MOMENTS } else { 0 };
            Curve::FixedSizeGaussian {
                rate,
                precision,
                moments: (0..=useful)
                    .map(|half| even_moment(sigma, 2 * half))
                    .collect(),
            }
        }
        (_, NeighboringRelation::AddOrRemoveOne, Draw::Poisson(_)) => {
            let inner = described.curve.often();
            Curve::Poisson {
                rate,
                whole: inner.whole(),
                inner: Box::new(inner),
            }
        }
        (_, NeighboringRelation::ReplaceOne, Draw::FixedSize { .. }) => {
            let inner = described.curve.often();
            Curve::FixedSize {
                rate,
                whole: inner.whole(),
                inner: Box::new(inner),
            }
        }
        _ => Curve::Sampled {
            rate,
            inner: Box::new(described.curve),
        },
    };
    Described {
        curve: curve.remembered(),
        failure,
    }
}

/// `ln(1 - q + q e^cgf)`: `P^alpha Q^(1 - alpha)` is jointly convex, so a member that is in the
/// sample with probability `q` adds at most this, however the sample is drawn.
fn sampled(rate: f64, cgf: f64) -> f64 {
    if cgf < 1.0 {
        libm::log1p(rate * libm::expm1(cgf)) * UP
    } else {
        ln_one_plus_exp(libm::log(rate) + cgf + libm::log1p(-libm::exp(-cgf))) * UP
    }
}

/// A bound at whole orders, carried to all orders: the true curve is convex in the order and 0 at
/// order 1 (Wang, Balle and Kasiviswanathan 2019, Corollary 10).
fn interpolated(alpha: f64, whole: impl Fn(u32) -> f64) -> f64 {
    let below = libm::floor(alpha);
    let share = alpha - below;
    let lower = below as u32;
    let low = if lower < 2 { 0.0 } else { whole(lower) };
    if share <= 0.0 {
        return low;
    }
    ((1.0 - share) * low + share * whole(lower + 1)) * UP
}

/// Mironov (2017, arXiv:1702.07476), Proposition 6, as a sum of terms that are never negative.
fn laplace(epsilon: f64, alpha: f64) -> f64 {
    let c = alpha - 1.0;
    let wide = 2.0 * alpha - 1.0;
    if c * epsilon > 30.0 {
        let main = libm::log(alpha / wide) + c * epsilon;
        let rest = libm::log(c / wide) - alpha * epsilon;
        return ln_add(main, rest) * UP;
    }
    let g = excess_of_exp;
    libm::log1p((alpha * g(c * epsilon) + c * g(-alpha * epsilon)) / wide) * UP
}

/// The law `P(x) ~ e^(-a |x|)` against its shift by `shift`.
fn discrete_laplace(a: f64, shift: u64) -> Curve {
    let all = a * shift as f64;
    if shift == 0 {
        return Curve::NOTHING;
    }
    if shift > MOST_SHIFT || all > 600.0 {
        return Curve::pure(all * UP);
    }
    let below = 1.0 / (1.0 + libm::exp(-a));
    let at_zero = libm::tanh(0.5 * a);
    let mut outcomes = vec![(below, -all), (below * libm::exp(-all), all)];
    for x in 1..shift {
        let x = x as f64;
        outcomes.push((at_zero * libm::exp(-a * x), a * (2.0 * x - shift as f64)));
    }
    Curve::Finite { outcomes }
}

/// A category among `k`, replaced with probability `p` by a uniform one.
fn response(p: f64, k: u64, relation: NeighboringRelation) -> Curve {
    if p >= 1.0 {
        return Curve::NOTHING;
    }
    if p <= 0.0 {
        return Curve::NO_PRIVACY;
    }
    let buckets = k as f64;
    match relation {
        NeighboringRelation::ReplaceOne => Curve::Response {
            epsilon: libm::log1p(buckets * (1.0 - p) / p) * UP,
            least: p / buckets,
        },
        _ => Curve::Finite {
            // The special category answers uniformly.
            outcomes: vec![
                (1.0 / buckets, libm::log1p((buckets - 1.0) * (1.0 - p))),
                (1.0 - 1.0 / buckets, libm::log(p)),
            ],
        },
    }
}

/// Agarwal, Kairouz and Liu (2021, arXiv:2110.04995), Theorem 3.5, for whole orders.
fn skellam(variance: f64, l1: f64, l2: f64, order: u32) -> f64 {
    if l2 <= 0.0 {
        return 0.0;
    }
    let alpha = f64::from(order);
    let square = l2 * l2;
    let fine = ((2.0 * alpha - 1.0) * square + 6.0 * l1) / (4.0 * variance * variance);
    let coarse = 3.0 * l1 / (2.0 * variance);
    (alpha - 1.0) * (alpha * square / (2.0 * variance) + fine.min(coarse)) * UP
}

/// Wang, Balle and Kasiviswanathan (2019), Theorem 27, for whole orders. The forward differences
/// of the moments there are even moments of `P/Q - 1`.
fn fixed_size_gaussian(rate: f64, precision: f64, moments: &[f64], order: u32) -> f64 {
    const LN_2: f64 = core::f64::consts::LN_2;
    const LN_4: f64 = 2.0 * core::f64::consts::LN_2;
    let ln_rate = libm::log(rate);
    let mut sum = LnSum::new();
    for i in 2..=order {
        let k = f64::from(i);
        let plain = LN_2 + 0.5 * k * (k - 1.0) * precision;
        let (low, high) = ((i / 2) as usize, i.div_ceil(2) as usize);
        let fine = if i == 2 {
            // 4 (e^(1/sigma^2) - 1), and e^(1/sigma^2) min(2, ..) for order 2.
            LN_4 + libm::log(libm::expm1(precision))
        } else if let (Some(low), Some(high)) = (moments.get(low), moments.get(high)) {
            LN_4 + 0.5 * (low + high)
        } else {
            plain
        };
        sum.add(k * ln_rate + ln_binomial(order, i) + plain.min(fine) + 1e-12);
    }
    ln_one_plus_exp(sum.ln()) * UP
}

/// Wang, Balle and Kasiviswanathan (2019), Theorem 9, for whole orders and any mechanism without a
/// pure bound.
fn fixed_size(rate: f64, whole: &[f64], order: u32) -> f64 {
    const LN_2: f64 = core::f64::consts::LN_2;
    let ln_rate = libm::log(rate);
    let mut sum = LnSum::new();
    for (i, cgf) in (2..=order).zip(whole) {
        let plain = LN_2 + cgf;
        let ln = if i == 2 && *cgf < 30.0 {
            plain.min(2.0 * LN_2 + libm::log(libm::expm1(*cgf)))
        } else {
            plain
        };
        sum.add(f64::from(i) * ln_rate + ln_binomial(order, i) + ln + 1e-12);
    }
    ln_one_plus_exp(sum.ln()) * UP
}

/// Zhu and Wang (2019), "Poisson subsampled Rényi differential privacy", Theorem 5, for whole
/// orders.
fn poisson(rate: f64, whole: &[f64], order: u32) -> f64 {
    const LN_3: f64 = 1.098_612_288_668_109_8;
    let (ln_in, ln_out) = (libm::log(rate), libm::log1p(-rate));
    let mut sum = LnSum::new();
    for (l, cgf) in (2..=order).zip(whole) {
        // e^cgf - 1 at l = 2, and 3 e^cgf - 1 above: the weights themselves sum to 1.
        let factor = if l == 2 { 0.0 } else { LN_3 };
        let grown = factor + cgf;
        let ln = if grown > 30.0 {
            grown
        } else {
            libm::log(libm::expm1(grown))
        };
        let weight = f64::from(l) * ln_in + f64::from(order - l) * ln_out;
        sum.add(ln_binomial(order, l) + weight + ln + 1e-12);
    }
    ln_one_plus_exp(sum.ln()) * UP
}

impl Select {
    fn new(inner: Curve, mean: f64, shape: f64) -> Self {
        let inner = inner.often();
        let law = if shape < f64::INFINITY {
            let ln_gamma = libm::log(truncation(mean, shape));
            // Theorem 2's second order is free: the best of those on the grid.
            let constant = convert::orders()
                .map(|alpha| (1.0 + shape) * (inner.cgf(alpha) - ln_gamma) / alpha)
                .fold(f64::INFINITY, f64::min);
            SelectLaw::NegativeBinomial { constant }
        } else {
            SelectLaw::Poisson { mean }
        };
        let added = match law {
            SelectLaw::NegativeBinomial { constant } => constant,
            SelectLaw::Poisson { mean } => mean * convert::delta(0.0, |order| inner.cgf(order)),
        };
        // The theorems' bounds in the limit of infinite order.
        let pure = (inner.pure_epsilon() + added) * UP;
        let mut select = Self {
            inner: Box::new(inner),
            ln_mean: libm::log(mean),
            law,
            pure,
            least_above: Vec::new(),
        };
        let mut least = pure;
        let mut orders: Vec<f64> = convert::orders().collect();
        while let Some(order) = orders.pop() {
            least = least.min(select.divergence(order));
            select.least_above.push((order, least));
        }
        select
    }

    fn cgf(&self, alpha: f64) -> f64 {
        // The divergence grows with the order, which the theorems' bounds need not.
        let above = self
            .least_above
            .iter()
            .rev()
            .find(|(order, _)| *order >= alpha);
        let least = above.map_or(self.pure, |(_, least)| *least);
        (alpha - 1.0) * self.divergence(alpha).min(least) * UP
    }

    fn divergence(&self, alpha: f64) -> f64 {
        let c = alpha - 1.0;
        let added = match self.law {
            SelectLaw::NegativeBinomial { constant } => constant,
            SelectLaw::Poisson { mean } => {
                let epsilon = libm::log1p(1.0 / c);
                mean * convert::delta(epsilon, |order| self.inner.cgf(order))
            }
        };
        ((self.inner.cgf(alpha) + self.ln_mean) / c + added) * UP
    }
}

/// `gamma` of the truncated negative binomial law of this mean (Papernot and Steinke 2021,
/// Definition 1), rounded downwards.
fn truncation(mean: f64, shape: f64) -> f64 {
    let mean_at = |gamma: f64| {
        let odds = (1.0 - gamma) / gamma;
        let ln = libm::log(gamma);
        if libm::fabs(shape) < 1e-9 {
            -odds / ln
        } else {
            shape * odds / -libm::expm1(shape * ln)
        }
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if mean_at(middle) < mean {
            high = middle;
        } else {
            low = middle;
        }
    }
    low
}
