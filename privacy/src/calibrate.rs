//! Calibration: the value of one parameter with which a plan meets its `(epsilon, delta)`.
//!
//! The answer is always on the safe side: with the returned value the accountant's *upper bound*
//! has been computed and is at most the target; and with a value that is closer by the tolerance (for
//! whole numbers: the next) it has been computed, too, and is not.
//!
//! The search takes secants of `ln epsilon` over the logarithm of the parameter, which is nearly
//! straight, first with a coarse lattice and then, from where that leads, with the accountant as it
//! is; with halving where secants do not help.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::accountant::{
    Accountant as _, AccountantKind, Bounds, Fineness, PldAccountant, accountant,
};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon, NoiseMultiplier};

/// What a plan must meet, and who says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// At most this loss.
    pub epsilon: Epsilon,
    /// At this probability.
    pub delta: Delta,
    /// The accountant.
    pub accountant: AccountantKind,
    /// Its relation.
    pub relation: NeighboringRelation,
}

/// A calibrated parameter with what it really costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrated<T> {
    /// The parameter.
    pub value: T,
    /// Bounds of `epsilon` with it: the upper one is at most the target.
    pub epsilon: Bounds<Epsilon>,
}

/// Relative width of the bracket at which a search of a real parameter stops.
const TOLERANCE: f64 = 1e-5;
/// The same for the coarse search.
const ROUGHLY: f64 = 4e-3;
/// Most events that are tried.
const MOST: u32 = 200;
/// For the coarse search.
const ROUGH: Fineness = Fineness {
    absolute: 1e-4,
    relative: 1e-3,
    points: 1 << 12,
};

impl Target {
    /// Bounds of `epsilon` for the event, `count` times.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn cost(&self, event: &DpEvent, count: u64) -> Result<Bounds<Epsilon>, PrivacyError> {
        let mut accountant = accountant(self.accountant, self.relation);
        accountant.compose(event, count)?;
        accountant.epsilon(self.delta)
    }

    /// Roughly the upper bound of [`Self::cost`], from above, in less time.
    fn rough(&self, event: &DpEvent, count: u64) -> Result<Bounds<Epsilon>, PrivacyError> {
        if self.accountant != AccountantKind::Pld {
            return self.cost(event, count);
        }
        let mut accountant = PldAccountant::new(self.relation).with_fineness(ROUGH);
        accountant.compose(event, count)?;
        accountant.epsilon(self.delta)
    }

    /// The smallest noise multiplier for which `count` times the event is within the target, to a
    /// relative 1e-5.
    ///
    /// `event` makes the event from the noise multiplier; more noise must not cost more.
    ///
    /// # Errors
    /// [`PrivacyError::Unreachable`] when no noise up to 1e7 is enough; those of the accountant and
    /// of `event`.
    pub fn noise_multiplier(
        &self,
        count: u64,
        event: impl Fn(NoiseMultiplier) -> Result<DpEvent, PrivacyError>,
    ) -> Result<Calibrated<NoiseMultiplier>, PrivacyError> {
        let made = |noise: f64| event(NoiseMultiplier::new(noise)?);
        let found = self.search_from(
            "noise_multiplier",
            (1e-3, 1.0, 1e7),
            |noise| self.cost(&made(noise)?, count),
            |noise| self.rough(&made(noise)?, count),
        )?;
        Ok(Calibrated {
            value: NoiseMultiplier::new(found.value)?,
            epsilon: found.epsilon,
        })
    }

    /// The largest sampling rate for which `count` times the event is within the target, to a
    /// relative 1e-5.
    ///
    /// `event` makes the event from the rate; a higher rate must not cost less.
    ///
    /// # Errors
    /// [`PrivacyError::Unreachable`] when not even a rate of 1e-9 is within the target; those of
    /// the accountant and of `event`.
    pub fn sampling_rate(
        &self,
        count: u64,
        event: impl Fn(f64) -> Result<DpEvent, PrivacyError>,
    ) -> Result<Calibrated<f64>, PrivacyError> {
        let all = self.cost(&event(1.0)?, count)?;
        if self.meets(all) {
            return Ok(Calibrated {
                value: 1.0,
                epsilon: all,
            });
        }
        // In terms of the inverse, which is better the larger it is.
        let made = |inverse: f64| event((1.0 / inverse).min(1.0));
        let found = self.search_from(
            "sampling_rate",
            (1.0, 100.0, 1e9),
            |inverse| self.cost(&made(inverse)?, count),
            |inverse| self.rough(&made(inverse)?, count),
        )?;
        Ok(Calibrated {
            value: (1.0 / found.value).min(1.0),
            epsilon: found.epsilon,
        })
    }

    /// The largest number of times that the event is within the target, at most `most`.
    ///
    /// # Errors
    /// [`PrivacyError::Unreachable`] when not even once is within the target; those of the
    /// accountant.
    pub fn steps(&self, event: &DpEvent, most: u64) -> Result<Calibrated<u64>, PrivacyError> {
        self.largest(
            "steps",
            most,
            |count| self.cost(event, count),
            |count| self.rough(event, count),
        )
    }

    /// The largest cohort, from 1 to `most`, for which `count` times the event is within the
    /// target.
    ///
    /// `event` makes the event from the cohort; a larger cohort must not cost less. (Where the noise
    /// grows with the cohort it usually costs less: then the cohort is not what limits privacy.)
    ///
    /// # Errors
    /// [`PrivacyError::Unreachable`] when not even a cohort of one is within the target; those of
    /// the accountant and of `event`.
    pub fn cohort(
        &self,
        count: u64,
        most: u64,
        event: impl Fn(u64) -> Result<DpEvent, PrivacyError>,
    ) -> Result<Calibrated<u64>, PrivacyError> {
        self.largest(
            "cohort",
            most,
            |cohort| self.cost(&event(cohort)?, count),
            |cohort| self.rough(&event(cohort)?, count),
        )
    }

    fn meets(&self, cost: Bounds<Epsilon>) -> bool {
        cost.upper <= self.epsilon
    }

    fn unreachable(&self, parameter: &'static str, at: f64, cost: Bounds<Epsilon>) -> PrivacyError {
        PrivacyError::Unreachable {
            parameter,
            value: at,
            epsilon: cost.upper.get(),
            target: self.epsilon.get(),
            delta: self.delta.get(),
        }
    }

    /// The largest integer from 1 to `most` that meets the target, where cost grows.
    fn largest(
        &self,
        parameter: &'static str,
        most: u64,
        cost: impl Fn(u64) -> Result<Bounds<Epsilon>, PrivacyError>,
        rough: impl Fn(u64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Calibrated<u64>, PrivacyError> {
        let most = most.max(1);
        let whole = |inverse: f64| (libm::round(1.0 / inverse) as u64).clamp(1, most);
        // In terms of the inverse, whose logarithm is at most 0.
        let range = (-libm::log(most as f64), 0.0);
        let start = (-libm::log(100.0_f64.min(most as f64)), -0.7);
        // Values that round to one number need it only once.
        let mut known = BTreeMap::new();
        let way = self.solve(range, start, ROUGHLY, |inverse| {
            match known.entry(whole(inverse)) {
                Entry::Occupied(found) => Ok(*found.get()),
                Entry::Vacant(place) => Ok(*place.insert(rough(whole(inverse))?)),
            }
        })?;
        let mut next = whole(libm::exp(way.guess));
        let slope = way.slope.clamp(-4.0, -0.05);
        let (mut good, mut bad): (Option<(u64, Bounds<Epsilon>)>, Option<u64>) = (None, None);
        for turn in 0..MOST {
            let there = cost(next)?;
            if self.meets(there) {
                if next >= most {
                    return Ok(Calibrated {
                        value: next,
                        epsilon: there,
                    });
                }
                good = Some((next, there));
            } else {
                if next <= 1 {
                    return Err(self.unreachable(parameter, next as f64, there));
                }
                bad = Some(next);
            }
            if let (Some((low, epsilon)), Some(high)) = (good, bad)
                && high - low <= 1
            {
                return Ok(Calibrated {
                    value: low,
                    epsilon,
                });
            }
            let low = good.map_or(0, |(low, _)| low);
            let high = bad.unwrap_or(most.saturating_add(1));
            // Where the line through this point meets the target: the last that does.
            let miss = self.miss(there);
            let guess = next as f64 * libm::exp((miss / slope).clamp(-1.0, 1.0));
            let halve = turn >= 4 && turn % 2 == 0;
            next = if guess.is_nan() || halve && good.is_some() && bad.is_some() {
                low + (high - low) / 2
            } else {
                (guess as u64).clamp(low + 1, high - 1)
            };
        }
        Err(self.unreachable(parameter, next as f64, cost(next)?))
    }

    /// Logarithm of the cost over the target.
    fn miss(&self, cost: Bounds<Epsilon>) -> f64 {
        if self.meets(cost) && self.epsilon <= Epsilon::ZERO {
            return f64::NEG_INFINITY;
        }
        libm::log(cost.upper.get()) - libm::log(self.epsilon.get())
    }

    /// The smallest value from `least` to `most` that meets the target, where cost falls.
    pub(crate) fn search(
        &self,
        parameter: &'static str,
        range: (f64, f64, f64),
        cost: impl Fn(f64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Calibrated<f64>, PrivacyError> {
        self.search_from(parameter, range, &cost, &cost)
    }

    /// The same with a cost that is quicker to compute, to begin with.
    fn search_from(
        &self,
        parameter: &'static str,
        (least, start, most): (f64, f64, f64),
        cost: impl Fn(f64) -> Result<Bounds<Epsilon>, PrivacyError>,
        rough: impl Fn(f64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Calibrated<f64>, PrivacyError> {
        let range = (libm::log(least), libm::log(most));
        // The ends themselves, not what their logarithms round to.
        let within = |value: f64| {
            if value <= least * (1.0 + 1e-13) {
                least
            } else {
                value.min(most)
            }
        };
        let way = self.solve(range, (libm::log(start), -1.3), ROUGHLY, |value| {
            rough(within(value))
        })?;
        let found = self.solve(range, (way.guess, way.slope), TOLERANCE, |value| {
            cost(within(value))
        })?;
        match found.good {
            Some((at, epsilon)) => Ok(Calibrated {
                value: within(libm::exp(at)),
                epsilon,
            }),
            None => Err(self.unreachable(parameter, most, cost(most)?)),
        }
    }

    /// Where the cost, which falls, meets the target, as a logarithm: from `start`, with a first
    /// slope of `ln epsilon`, until what meets it and what does not are `tolerance` apart, or for a
    /// rough answer until it is nearly met.
    fn solve(
        &self,
        (least, most): (f64, f64),
        (start, mut slope): (f64, f64),
        tolerance: f64,
        mut cost: impl FnMut(f64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Way, PrivacyError> {
        /// Longest stride while there is no bracket.
        const STRIDE: f64 = 2.1;
        // How far from the predicted crossing to look: twice that is within the tolerance.
        let aside = 0.45 * tolerance;
        let (mut good, mut bad): (Option<(f64, Bounds<Epsilon>)>, Option<f64>) = (None, None);
        let mut at = start.clamp(least, most);
        let mut before: Option<(f64, f64)> = None;
        for turn in 0..MOST {
            let there = cost(libm::exp(at))?;
            let miss = self.miss(there);
            if self.meets(there) {
                good = Some((at, there));
            } else {
                bad = Some(at);
            }
            if let Some((other, value)) = before {
                let new = (miss - value) / (at - other);
                if new.is_finite() && (at - other).abs() > 0.2 * aside && new < -1e-3 {
                    slope = new;
                }
            }
            if miss.is_finite() {
                before = Some((at, miss));
            }
            let predicted = if miss.is_finite() {
                at - (miss / slope).clamp(-STRIDE, STRIDE)
            } else {
                at + STRIDE.copysign(miss)
            };
            let ended = match (good, bad) {
                (Some((good, _)), Some(bad)) => good - bad <= tolerance,
                (Some((good, _)), None) => good <= least,
                (None, Some(bad)) => bad >= most,
                (None, None) => true,
            };
            // A rough answer needs no bracket.
            let close = tolerance >= ROUGHLY && turn > 0 && miss.abs() < 0.5 * tolerance;
            if ended || close {
                return Ok(Way {
                    good,
                    guess: predicted.clamp(
                        bad.unwrap_or(least).max(least),
                        good.map_or(most, |(good, _)| good),
                    ),
                    slope,
                });
            }
            at = match (good, bad) {
                (Some((good, _)), None) => predicted.min(good) - aside,
                (None, Some(bad)) => predicted.max(bad) + aside,
                (Some((good, _)), Some(bad)) => {
                    let inside = predicted > bad && predicted < good;
                    let side = if !inside || (turn > 6 && turn % 3 == 0) {
                        0.5 * (bad + good)
                    } else if good - predicted > predicted - bad {
                        predicted + aside
                    } else {
                        predicted - aside
                    };
                    side.clamp(bad + 0.1 * aside, good - 0.1 * aside)
                }
                (None, None) => predicted,
            }
            .clamp(least, most);
        }
        Ok(Way {
            good,
            guess: at,
            slope,
        })
    }
}

/// What [`Target::solve`] found, all as logarithms.
struct Way {
    /// The least that meets the target, with its cost.
    good: Option<(f64, Bounds<Epsilon>)>,
    /// Where the crossing is.
    guess: f64,
    /// The slope there.
    slope: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(epsilon: f64, delta: f64, accountant: AccountantKind) -> Target {
        Target {
            epsilon: Epsilon::new(epsilon).unwrap(),
            delta: Delta::new(delta).unwrap(),
            accountant,
            relation: NeighboringRelation::AddOrRemoveOne,
        }
    }

    fn sampled(rate: f64, noise: NoiseMultiplier) -> Result<DpEvent, PrivacyError> {
        DpEvent::poisson_sampled(rate, DpEvent::gaussian(noise))
    }

    /// Values that `dp_accounting` 0.6 calibrates to, with its noise multipliers rounded outwards.
    #[test]
    fn noise_at_known_points() {
        for (epsilon, delta, rate, steps, low, high) in [
            (2.0, 1e-6, 0.001, 1500, 0.6160, 0.6162),
            (2.0, 1e-6, 0.001, 3000, 0.6326, 0.6328),
            (2.0, 1e-6, 0.005, 2000, 0.8638, 0.8639),
        ] {
            let target = target(epsilon, delta, AccountantKind::Pld);
            let found = target
                .noise_multiplier(steps, |noise| sampled(rate, noise))
                .unwrap();
            let value = found.value.get();
            assert!(low < value && value <= high, "{rate} {steps}: {found:?}");
            assert!(found.epsilon.upper <= target.epsilon, "{found:?}");
            // Hardly less noise is too little.
            let less = NoiseMultiplier::new(value * (1.0 - 2.0 * TOLERANCE)).unwrap();
            let cost = target.cost(&sampled(rate, less).unwrap(), steps).unwrap();
            assert!(cost.upper > target.epsilon, "{cost:?}");
        }
    }

    #[test]
    fn every_parameter_ends_on_the_safe_side() {
        let target = target(1.0, 1e-6, AccountantKind::Pld);
        let noise = NoiseMultiplier::new(1.0).unwrap();
        let rate = target
            .sampling_rate(500, |rate| sampled(rate, noise))
            .unwrap();
        assert!(rate.epsilon.upper <= target.epsilon);
        let more = target.cost(&sampled(rate.value * 1.00003, noise).unwrap(), 500);
        assert!(more.unwrap().upper > target.epsilon, "{rate:?}");

        let event = sampled(0.01, noise).unwrap();
        let steps = target.steps(&event, 1_000_000).unwrap();
        assert!(steps.epsilon.upper <= target.epsilon);
        assert!(target.cost(&event, steps.value + 1).unwrap().upper > target.epsilon);

        let cohort = target
            .cohort(200, 10_000, |cohort| {
                sampled(cohort as f64 / 10_000.0, noise)
            })
            .unwrap();
        assert!(cohort.epsilon.upper <= target.epsilon);
        let event = sampled((cohort.value + 1) as f64 / 10_000.0, noise).unwrap();
        assert!(target.cost(&event, 200).unwrap().upper > target.epsilon);
    }

    #[test]
    fn the_exact_gaussian_is_inverted() {
        // Balle and Wang 2018: `mu` with delta(1) = 1e-5, from the closed form by bisection in
        // mpmath 1.3.
        let target = target(1.0, 1e-5, AccountantKind::Gaussian);
        let found = target
            .noise_multiplier(1, |noise| Ok(DpEvent::gaussian(noise)))
            .unwrap();
        let value = found.value.get();
        assert!(
            (1.0..1.0 + 1.1e-5).contains(&(value / 3.730631634815942)),
            "{value}"
        );
    }

    #[test]
    fn what_cannot_be_reached_is_said() {
        let target = target(0.1, 1e-6, AccountantKind::Pld);
        let event = DpEvent::gaussian(NoiseMultiplier::new(1.0).unwrap());
        let error = target.steps(&event, 10).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no value of steps meets epsilon 0.1 at delta 0.000001: at 1 it is"),
            "{error}"
        );
        let never = target.noise_multiplier(1, |_| Ok(DpEvent::NonPrivate));
        assert!(never.is_err());
        // Where everything is within the target, the end of the range is the answer.
        let all = target.sampling_rate(1, |_| Ok(DpEvent::NoOp)).unwrap();
        assert_eq!(all.value.to_bits(), 1.0_f64.to_bits());
        assert_eq!(target.steps(&DpEvent::NoOp, 77).unwrap().value, 77);
    }
}
