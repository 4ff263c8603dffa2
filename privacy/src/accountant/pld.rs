//! The default accountant: privacy loss distributions, from above and from below.
//!
//! # Source
//! Sommer, Meiser and Mohammadi 2019 (privacy loss distributions); Koskela, Jälkö and Honkela 2020,
//! arXiv 1906.03049 (composition by Fourier transforms); Doroshenko et al. 2022, arXiv 2207.04380
//! (connect-the-dots); Zhu, Dong and Wang 2022, arXiv 2106.08567 (dominating pairs). How each step
//! is done and what its errors are: the modules of `pld`.
//!
//! With add-or-remove neighbours the member may be there under either law: both directions are
//! composed separately, and the larger loss counts.
//!
//! Where the pair of laws that dominates a mechanism is not one that two neighbouring data sets
//! give, which is so for samples of fixed size and for truncated ones, the lower bound is what one
//! such pair of data sets gives.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::gaussian::{gaussian_delta, gaussian_epsilon};
use super::{Accountant, AccountantKind, Bounds};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::pld::compose::{Direction, Question, Stations};
use crate::pld::dominate::{Pair, Step, step};
use crate::pld::law::{Law, NormalPair, Smooth};
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon};

/// The error budget of what needs a lattice (compositions without enough Gaussian noise, and few
/// steps at small sampling rates): what the upper bound may be above the tightest one.
///
/// The time goes with the inverse square root of the error. It is a wish: where it would take more
/// than `points`, the lattice is coarser, and the bounds, which stay bounds, are further apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fineness {
    /// Wanted error of `epsilon`, absolute.
    pub absolute: f64,
    /// Wanted error of `epsilon`, relative.
    pub relative: f64,
    /// Most points of a transform.
    pub points: usize,
}

impl Default for Fineness {
    fn default() -> Self {
        Self {
            absolute: 1e-7,
            relative: 5e-8,
            points: 1 << 17,
        }
    }
}

impl Fineness {
    /// Within the range in which a lattice makes sense.
    fn sane(self) -> Self {
        let error = |value: f64| {
            if value.is_nan() {
                1e-3
            } else {
                value.clamp(1e-12, 1.0)
            }
        };
        Self {
            absolute: error(self.absolute),
            relative: error(self.relative),
            points: self.points.clamp(1 << 10, 1 << 22),
        }
    }
}

/// Tight bounds for compositions of any events that have a known dominating pair.
///
/// Steps may follow in any order, without changing a bit of the answer. They must not be chosen
/// by looking at earlier results: for that there are filters.
#[derive(Clone, Debug)]
pub struct PldAccountant {
    relation: NeighboringRelation,
    ledger: Ledger,
    /// Shared by copies, until more is composed.
    sum: Arc<Sum>,
}

/// What was composed, which does not change, and what was worked out of it.
#[derive(Debug)]
struct Sum {
    /// Gaussian mechanisms on all members: bits of the squared inverse noise, and how often.
    gaussian: BTreeMap<u64, u64>,
    /// Other steps by the canonical text of their event.
    pairs: BTreeMap<String, (Pair, u64)>,
    /// Whether something was released as it is.
    everything: bool,
    /// Whether some step is a bound from above only.
    loose: bool,
    fineness: Fineness,
    work: Work,
}

/// Bounds that are used again for the next question: for laws from above, and from below.
#[derive(Default)]
struct Work {
    above: Stations,
    below: Stations,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl Sum {
    fn new(fineness: Fineness) -> Self {
        Self {
            gaussian: BTreeMap::new(),
            pairs: BTreeMap::new(),
            everything: false,
            loose: false,
            fineness,
            work: Work::default(),
        }
    }

    /// The same steps, of which nothing is worked out yet.
    fn afresh(&self) -> Self {
        Self {
            gaussian: self.gaussian.clone(),
            pairs: self.pairs.clone(),
            everything: self.everything,
            loose: self.loose,
            ..Self::new(self.fineness)
        }
    }

    /// Takes one more step into what nothing was worked out of.
    fn add(
        &mut self,
        event: &DpEvent,
        count: u64,
        relation: NeighboringRelation,
    ) -> Result<(), PrivacyError> {
        if count == 0 {
            return Ok(());
        }
        match event {
            DpEvent::Composed { events } => {
                return events
                    .iter()
                    .try_for_each(|event| self.add(event, count, relation));
            }
            DpEvent::SelfComposed {
                inner,
                count: times,
            } => return self.add(inner, count.saturating_mul(*times), relation),
            _ => {}
        }
        let added = step(event, relation)?;
        match added {
            Step::Nothing => {}
            Step::Everything => self.everything = true,
            Step::Gaussian(precision) | Step::AtMostGaussian(precision) => {
                self.loose |= matches!(added, Step::AtMostGaussian(_));
                let total = self.gaussian.entry(precision.to_bits()).or_insert(0);
                *total = total.saturating_add(count);
            }
            Step::Pair(pair) => {
                self.loose |= pair.loose && pair.attack.is_none();
                let text = serde_json::to_string(event)
                    .expect("an event holds only numbers and texts, which JSON can write");
                let (_, total) = self.pairs.entry(text).or_insert((pair, 0));
                *total = total.saturating_add(count);
            }
        }
        Ok(())
    }
}

impl PldAccountant {
    /// Nothing composed.
    #[must_use]
    pub fn new(relation: NeighboringRelation) -> Self {
        Self {
            relation,
            ledger: Ledger::default(),
            sum: Arc::new(Sum::new(Fineness::default())),
        }
    }

    /// The same with another error budget: errors from 1e-12 to 1, points from `2^10` to `2^22`; what
    /// is outside of that is moved to its end.
    #[must_use]
    pub fn with_fineness(self, fineness: Fineness) -> Self {
        Self {
            sum: Arc::new(Sum {
                fineness: fineness.sane(),
                ..self.sum.afresh()
            }),
            ..self
        }
    }

    /// The squared inverse noise of all Gaussian mechanisms together, rounded upwards.
    fn precision(&self) -> f64 {
        let sum: f64 = self
            .sum
            .gaussian
            .iter()
            .map(|(bits, count)| f64::from_bits(*bits) * *count as f64)
            .sum();
        sum * (1.0 + 4.0 * f64::EPSILON * (1 + self.sum.gaussian.len()) as f64)
    }

    /// The inverse noise of the Gaussian mechanism that dominates everything, where there is one.
    fn plain(&self) -> Option<f64> {
        let mut sum = self.precision();
        for (pair, count) in self.sum.pairs.values() {
            sum += pair.plain? * *count as f64;
        }
        Some(libm::sqrt(
            sum * (1.0 + 4.0 * f64::EPSILON * (1 + self.sum.pairs.len()) as f64),
        ))
    }

    /// The laws of each direction that differs, that bound from this side.
    fn directions(&self, side: Side) -> Vec<Vec<(Law, u64)>> {
        let gaussian = || {
            let mean = libm::sqrt(self.precision());
            let law = Law {
                atoms: Vec::new(),
                infinite: 0.0,
                smooth: vec![(
                    1.0,
                    Smooth::Normal(NormalPair {
                        upper: vec![(0.0, mean)],
                        lower: vec![(0.0, 0.0)],
                        swapped: false,
                    }),
                )],
            };
            (mean > 0.0).then_some((law, 1))
        };
        let one_way = |laws: &dyn Fn(&Pair) -> Law| {
            let pairs = self
                .sum
                .pairs
                .values()
                .map(|(pair, count)| (laws(pair), *count));
            gaussian().into_iter().chain(pairs).collect::<Vec<_>>()
        };
        let attack = |pair: &Pair, which: usize| match (side, &pair.attack) {
            (Side::Below, Some(attack)) => Some(attack[which].clone()),
            _ => None,
        };
        let mut directions = vec![one_way(&|pair| {
            attack(pair, 0).unwrap_or_else(|| pair.remove.clone())
        })];
        let differs = |pair: &Pair| pair.add.is_some() || attack(pair, 1).is_some();
        if self.sum.pairs.values().any(|(pair, _)| differs(pair)) {
            directions.push(one_way(&|pair| {
                attack(pair, 1)
                    .or_else(|| pair.add.clone())
                    .unwrap_or_else(|| pair.remove.clone())
            }));
        }
        directions
    }

    /// Bounds over both directions. Where some pair is worse than the mechanism's own, the lower is
    /// that of one pair of neighbouring data sets.
    fn ask(&self, question: Question) -> (f64, f64) {
        let (lower, upper) = self.ask_from(question, Side::Above);
        if self.sum.loose {
            (0.0, upper)
        } else if self
            .sum
            .pairs
            .values()
            .any(|(pair, _)| pair.attack.is_some())
        {
            (self.ask_from(question, Side::Below).0, upper)
        } else {
            (lower, upper)
        }
    }

    fn ask_from(&self, question: Question, side: Side) -> (f64, f64) {
        let mut best = (0.0_f64, 0.0_f64);
        let directions = self.directions(side);
        let mut uppers = Vec::with_capacity(directions.len());
        let stations = match side {
            Side::Above => &self.sum.work.above,
            Side::Below => &self.sum.work.below,
        };
        for (which, laws) in directions.iter().enumerate() {
            let most = most(laws);
            let direction = Direction::new(laws, self.sum.fineness, stations, which);
            let (low, high) = match question {
                // It cannot lose more than the other direction does.
                Question::Epsilon(_) if most <= best.0 => continue,
                Question::Delta(epsilon) if most <= epsilon => continue,
                Question::Epsilon(delta) => {
                    let (low, high) = direction.epsilon(delta, best.0);
                    (low, high.min(most))
                }
                Question::Delta(epsilon) => direction.delta(epsilon, best.0),
            };
            uppers.push(high);
            best = (best.0.max(low), best.1.max(high));
        }
        if let (Question::Epsilon(delta), &[first, second]) = (question, uppers.as_slice()) {
            best.1 = self.alike(delta, &directions, stations, [first, second]);
        }
        (best.0.min(best.1), best.1)
    }

    /// The larger of both directions' bounds, or the smaller where it holds for both.
    ///
    /// The `delta` that one direction has at an `epsilon` may be of another decade than the other's,
    /// for which the bounds of that decade are then asked. They may be looser than those of its own,
    /// on the lattices of laws that are cut, and the answer would not return.
    fn alike(
        &self,
        delta: f64,
        directions: &[Vec<(Law, u64)>],
        stations: &Stations,
        uppers: [f64; 2],
    ) -> f64 {
        const CLOSE: f64 = 1.01;
        let (small, large) = (uppers[0].min(uppers[1]), uppers[0].max(uppers[1]));
        let looser = usize::from(uppers[1] > uppers[0]);
        let cut = || {
            self.sum
                .pairs
                .values()
                .any(|(pair, _)| pair.attack.is_some())
        };
        let holds = || {
            let laws = &directions[looser];
            let direction = Direction::new(laws, self.sum.fineness, stations, looser);
            direction.delta(small, 0.0).1 <= delta
        };
        if small < large && large < CLOSE * small && cut() && holds() {
            small
        } else {
            large
        }
    }

    /// Roughly `epsilon`, for a `delta` above 0 and below 1, in a fraction of the time: where to
    /// look first, and no bound.
    pub(crate) fn guess(&self, delta: f64, care: Care) -> f64 {
        if self.sum.everything {
            return f64::INFINITY;
        }
        let plain = self
            .plain()
            .map_or(f64::INFINITY, |mean| gaussian_epsilon(mean, delta).1);
        if self.sum.pairs.is_empty() {
            return plain;
        }
        let directions = self.directions(Side::Above);
        let each = directions.iter().enumerate().map(|(which, laws)| {
            let direction = Direction::new(laws, self.sum.fineness, &self.sum.work.above, which);
            let guess = match care {
                Care::Little => direction.guess(delta),
                Care::Some => direction.glance(delta),
            };
            guess.min(most(laws))
        });
        each.fold(0.0, f64::max).min(plain)
    }

    /// The sum of the largest losses: a bound without any `delta`.
    fn most(&self) -> f64 {
        if !self.sum.gaussian.is_empty() {
            return f64::INFINITY;
        }
        self.directions(Side::Above)
            .iter()
            .map(|laws| most(laws))
            .fold(0.0, f64::max)
    }
}

/// How much time a guess may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// About half a millisecond.
    Little,
    /// A few.
    Some,
}

/// What a law bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

/// The sum of the largest losses, rounded upwards.
fn most(laws: &[(Law, u64)]) -> f64 {
    laws.iter()
        .map(|(law, count)| law.most() * *count as f64)
        .sum::<f64>()
        * (1.0 + 1e-14)
}

impl Accountant for PldAccountant {
    fn kind(&self) -> AccountantKind {
        AccountantKind::Pld
    }

    fn relation(&self) -> NeighboringRelation {
        self.relation
    }

    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        // An error half-way through a composition changes nothing.
        let mut next = self.sum.afresh();
        next.add(event, count, self.relation)?;
        self.sum = Arc::new(next);
        self.ledger.record(event, count);
        Ok(())
    }

    fn epsilon(&self, delta: Delta) -> Result<Bounds<Epsilon>, PrivacyError> {
        let delta = delta.get();
        let (lower, upper) = if delta >= 1.0 || (!self.sum.everything && self.is_nothing()) {
            (0.0, 0.0)
        } else if self.sum.everything {
            (f64::INFINITY, f64::INFINITY)
        } else if delta <= 0.0 {
            (0.0, self.most())
        } else if self.sum.pairs.is_empty() {
            gaussian_epsilon(libm::sqrt(self.precision()), delta)
        } else {
            let (lower, upper) = self.ask(Question::Epsilon(delta));
            let plain = self
                .plain()
                .map_or(f64::INFINITY, |mean| gaussian_epsilon(mean, delta).1);
            (lower, upper.min(self.most()).min(plain))
        };
        let lower = if self.sum.loose {
            0.0
        } else {
            lower.min(upper)
        };
        Ok(Bounds {
            upper: Epsilon::new(upper)?,
            lower: Epsilon::new(lower)?,
        })
    }

    fn delta(&self, epsilon: Epsilon) -> Result<Bounds<Delta>, PrivacyError> {
        let epsilon = epsilon.get();
        let (lower, upper) = if self.sum.everything {
            (1.0, 1.0)
        } else if self.is_nothing() {
            (0.0, 0.0)
        } else if self.sum.pairs.is_empty() {
            gaussian_delta(libm::sqrt(self.precision()), epsilon)
        } else if epsilon == f64::INFINITY || epsilon >= self.most() {
            (0.0, self.infinite())
        } else {
            let (lower, upper) = self.ask(Question::Delta(epsilon));
            let plain = self
                .plain()
                .map_or(1.0, |mean| gaussian_delta(mean, epsilon).1);
            // What underflows is counted as the smallest normal number.
            (lower, (upper.min(plain) + f64::MIN_POSITIVE).min(1.0))
        };
        let lower = if self.sum.loose {
            0.0
        } else {
            lower.min(upper)
        };
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

impl PldAccountant {
    fn is_nothing(&self) -> bool {
        self.sum.gaussian.is_empty() && self.sum.pairs.is_empty()
    }

    /// The probability of an infinite loss.
    fn infinite(&self) -> f64 {
        let sum = |direction: &Vec<(Law, u64)>| -> f64 {
            direction
                .iter()
                .map(|(law, count)| law.infinite * *count as f64)
                .sum()
        };
        let most = self
            .directions(Side::Above)
            .iter()
            .map(sum)
            .fold(0.0, f64::max);
        (most * (1.0 + 1e-14)).min(1.0)
    }
}
