//! Calibration: the value of one parameter with which a plan meets its `(epsilon, delta)`.
//!
//! The answer is always on the safe side: with the returned value the accountant's *upper bound*
//! has been computed and is at most the target; and with a value that is closer by the tolerance (for
//! whole numbers: the next) it has been computed, too, and is not.
//!
//! The search takes secants of `ln epsilon` over the logarithm of the parameter, which is nearly
//! straight, with halving where secants do not help. Where an answer of the accountant takes long,
//! quick guesses, which bound nothing, and then coarser lattices say where to begin, so that the
//! accountant as it is has little more to say than that one value is within the target and the next
//! is not.

use crate::accountant::{
    Accountant as _, AccountantKind, Bounds, Care, Fineness, PldAccountant, accountant,
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
/// Most events that are tried.
const MOST: u32 = 200;

/// Most that are tried to come near to the target.
const FEW: u32 = 7;

/// How `epsilon` is found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Look {
    /// [`PldAccountant::guess`].
    Guess(Care),
    /// A coarse lattice: from above, but not closely.
    Lattice(Fineness),
    /// By the accountant as it is.
    Whole,
}

/// What is tried one after the other, each until `ln epsilon` is as close to the target as that.
const LOOKS: [(Look, f64); 4] = [
    (Look::Guess(Care::Little), 0.05),
    (Look::Guess(Care::Some), 0.015),
    (
        Look::Lattice(Fineness {
            absolute: 1e-4,
            relative: 1e-3,
            points: 1 << 12,
        }),
        4e-3,
    ),
    // Near enough to end after two answers of the accountant.
    (
        Look::Lattice(Fineness {
            absolute: 1e-6,
            relative: 1e-6,
            points: 1 << 15,
        }),
        2e-3,
    ),
];
/// A coarse lattice that is no further from the truth has nothing to gain from a finer one.
const TIGHT: f64 = 1e-6;

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

    /// [`Self::cost`], or something near it in less time.
    fn look(
        &self,
        look: Look,
        event: &DpEvent,
        count: u64,
    ) -> Result<Bounds<Epsilon>, PrivacyError> {
        let fineness = match look {
            Look::Whole => return self.cost(event, count),
            Look::Lattice(fineness) => fineness,
            Look::Guess(_) => Fineness::default(),
        };
        let mut accountant = PldAccountant::new(self.relation).with_fineness(fineness);
        accountant.compose(event, count)?;
        let Look::Guess(care) = look else {
            return accountant.epsilon(self.delta);
        };
        let guess = Epsilon::new(accountant.guess(self.delta.get(), care).max(0.0))?;
        Ok(Bounds {
            upper: guess,
            lower: Epsilon::ZERO,
        })
    }

    /// What is worth trying before the accountant itself.
    fn looks(&self) -> &'static [(Look, f64)] {
        let inside = self.delta.get() > 0.0 && self.delta.get() < 1.0;
        if self.accountant == AccountantKind::Pld && inside && self.epsilon > Epsilon::ZERO {
            &LOOKS
        } else {
            &[]
        }
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
            self.looks(),
            |look, noise| self.look(look, &made(noise)?, count),
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
        // In terms of the inverse, which is better the larger it is.
        let made = |inverse: f64| event((1.0 / inverse).min(1.0));
        let found = self.search_from(
            "sampling_rate",
            (1.0, 100.0, 1e9),
            self.looks(),
            |look, inverse| self.look(look, &made(inverse)?, count),
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
        self.largest("steps", most, |look, count| self.look(look, event, count))
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
        self.largest("cohort", most, |look, cohort| {
            self.look(look, &event(cohort)?, count)
        })
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
        cost: impl Fn(Look, u64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Calibrated<u64>, PrivacyError> {
        // With no more to choose from, the last look says no more than the others.
        const ALL: f64 = 30.0;
        let most = most.max(1);
        let whole = |inverse: f64| (libm::round(1.0 / inverse) as u64).clamp(1, most);
        // In terms of the inverse, whose logarithm is at most 0.
        let range = (-libm::log(most as f64), 0.0);
        let start = (-libm::log(100.0_f64.min(most as f64)), -0.7);
        // Values that round to one number need it only once.
        let mut known: Vec<(Look, u64, Bounds<Epsilon>)> = Vec::new();
        let way = self.approach(
            range,
            start,
            self.looks(),
            |at| at > -libm::log(ALL),
            |look, inverse| {
                let value = whole(inverse);
                let same = known.iter().find(|(by, of, _)| (*by, *of) == (look, value));
                if let Some((_, _, there)) = same {
                    return Ok(*there);
                }
                let there = cost(look, value)?;
                known.push((look, value, there));
                Ok(there)
            },
        )?;
        // What lies just within the target there, or just beyond.
        let mut next = (libm::exp(-way.guess) as u64).clamp(1, most);
        let slope = |slope: f64| slope.clamp(-4.0, -0.05);
        let mut fall = slope(way.slope);
        let mut before: Option<(u64, f64)> = None;
        let cost = |value: u64| cost(Look::Whole, value);
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
            if let Some((other, value)) = before {
                let new = (miss - value) / (libm::log(other as f64) - libm::log(next as f64));
                if new.is_finite() {
                    fall = slope(new);
                }
            }
            before = Some((next, miss));
            let guess = next as f64 * libm::exp((miss / fall).clamp(-1.5, 1.5));
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
        self.search_from(parameter, range, &[], |_, value| cost(value))
    }

    /// The same after looks that are quicker.
    fn search_from(
        &self,
        parameter: &'static str,
        (least, start, most): (f64, f64, f64),
        looks: &[(Look, f64)],
        cost: impl Fn(Look, f64) -> Result<Bounds<Epsilon>, PrivacyError>,
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
        let start = (libm::log(start), -1.3);
        let way = self.approach(
            range,
            start,
            looks,
            |_| false,
            |look, value| cost(look, within(value)),
        )?;
        let found = self.solve(range, way, Until::Within(TOLERANCE), |value| {
            cost(Look::Whole, within(value))
        })?;
        match found.good {
            Some((at, epsilon)) => Ok(Calibrated {
                value: within(libm::exp(at)),
                epsilon,
            }),
            None => Err(self.unreachable(parameter, most, cost(Look::Whole, most)?)),
        }
    }

    /// From look to look, each from where the one before ends; the last one is left out where that is
    /// to be skipped.
    fn approach(
        &self,
        range: (f64, f64),
        (start, slope): (f64, f64),
        looks: &[(Look, f64)],
        skip: impl Fn(f64) -> bool,
        mut cost: impl FnMut(Look, f64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Way, PrivacyError> {
        // A guess that the next one finds as far from the truth was of no use.
        const USELESS: f64 = 0.5;
        let begin = |guess| Way {
            good: None,
            guess,
            slope,
            gap: f64::INFINITY,
            seen: Vec::new(),
        };
        let mut way = begin(start);
        for (k, (look, near)) in looks.iter().enumerate() {
            let last = k + 1 == looks.len();
            if way.is_tight() || (last && skip(way.guess)) {
                continue;
            }
            let mut first = None;
            if k == 1 {
                let place = libm::exp(way.guess.clamp(range.0, range.1));
                let there = cost(*look, place)?;
                if self.miss(there).abs() <= USELESS {
                    first = Some((place.to_bits(), there));
                } else {
                    way = begin(start);
                }
            }
            way = self.solve(range, way, Until::Near(*near), |value| match first {
                Some((place, there)) if place == value.to_bits() => Ok(there),
                _ => cost(*look, value),
            })?;
        }
        Ok(way)
    }

    /// Where the cost, which falls, meets the target, as a logarithm, from what is known of it.
    fn solve(
        &self,
        (least, most): (f64, f64),
        from: Way,
        until: Until,
        mut cost: impl FnMut(f64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Way, PrivacyError> {
        let (tolerance, near, turns) = match until {
            Until::Within(tolerance) => (tolerance, 0.0, MOST),
            Until::Near(near) => (near, near, FEW),
        };
        // How far from the predicted crossing to look: twice that is within the tolerance.
        let aside = match until {
            Until::Within(_) => 0.45 * tolerance,
            Until::Near(_) => 0.0,
        };
        let mut way = Way { good: None, ..from };
        if !way.is_tight() {
            way.seen.clear();
        }
        let mut bad: Option<f64> = None;
        // Better just within than just beyond.
        let mut at = (way.guess + aside).clamp(least, most);
        for turn in 0..turns {
            let there = cost(libm::exp(at))?;
            let miss = self.miss(there);
            way.gap = 1.0 - there.lower.get() / there.upper.get();
            if self.meets(there) {
                way.good = Some((at, there));
            } else {
                bad = Some(at);
            }
            let predicted = way.predict(at, miss, 0.1 * tolerance);
            let good = way.good.map(|(good, _)| good);
            way.guess = predicted.clamp(bad.unwrap_or(least).max(least), good.unwrap_or(most));
            let ended = match (good, bad) {
                (Some(good), Some(bad)) => good - bad <= tolerance,
                (Some(good), None) => good <= least,
                (None, Some(bad)) => bad >= most,
                (None, None) => true,
            };
            if ended || miss.abs() < near {
                return Ok(way);
            }
            // On the other side of the crossing, and so close that it is the last, where that is far
            // enough from it.
            let enough = 0.1 * aside;
            at = match (good, bad) {
                (Some(good), None) => {
                    let last = good - 0.98 * tolerance;
                    if aside > 0.0 && (predicted - aside..predicted - enough).contains(&last) {
                        last
                    } else {
                        predicted.min(good) - aside
                    }
                }
                (None, Some(bad)) => {
                    let last = bad + 0.98 * tolerance;
                    if aside > 0.0 && (predicted + enough..predicted + aside).contains(&last) {
                        last
                    } else {
                        predicted.max(bad) + aside
                    }
                }
                (Some(good), Some(bad)) => {
                    let inside = predicted > bad && predicted < good;
                    let side = if !inside || (turn > 6 && turn % 3 == 0) {
                        0.5 * (bad + good)
                    } else if good - predicted > predicted - bad {
                        predicted + aside
                    } else {
                        predicted - aside
                    };
                    let enough = enough.max(0.05 * tolerance).min(0.5 * (good - bad));
                    side.clamp(bad + enough, good - enough)
                }
                (None, None) => predicted,
            }
            .clamp(least, most);
        }
        Ok(way)
    }
}

/// When [`Target::solve`] has done enough.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// What meets the target and what does not are so close, as logarithms.
    Within(f64),
    /// The cost is so close to the target, as logarithms.
    Near(f64),
}

/// What [`Target::solve`] knows and found, all as logarithms.
struct Way {
    /// The least that meets the target, with its cost.
    good: Option<(f64, Bounds<Epsilon>)>,
    /// Where the crossing is.
    guess: f64,
    /// The slope there, of `ln epsilon`.
    slope: f64,
    /// How far apart the last bounds are, relative to the upper one.
    gap: f64,
    /// The last places, and how far from the target the cost is there.
    seen: Vec<(f64, f64)>,
}

impl Way {
    /// Whether the accountant as it is would not say much else.
    fn is_tight(&self) -> bool {
        self.gap < TIGHT
    }

    /// Where the cost meets the target, given that it misses it here by so much. Places that are
    /// closer together than `apart` say nothing of the slope.
    fn predict(&mut self, at: f64, miss: f64, apart: f64) -> f64 {
        /// Longest stride.
        const STRIDE: f64 = 2.1;
        if !miss.is_finite() {
            return at + STRIDE.copysign(miss);
        }
        if let Some((other, value)) = self.seen.last() {
            let new = (miss - value) / (at - other);
            if new.is_finite() && (at - other).abs() > apart && new < -1e-3 {
                self.slope = new;
            }
        }
        let line = at - (miss / self.slope).clamp(-STRIDE, STRIDE);
        let before = self.seen.len().checked_sub(2).map(|k| &self.seen[k..]);
        let curve = match before {
            Some(&[(a, miss_a), (b, miss_b)]) => {
                // The parabola through three places, as a function of what they miss the target by.
                let share = |x: f64, y: f64, z: f64| y * z / ((x - y) * (x - z));
                let far = [(at - a), (at - b), (a - b)];
                let place = at * share(miss, miss_a, miss_b)
                    + a * share(miss_a, miss, miss_b)
                    + b * share(miss_b, miss, miss_a);
                let close = (place - line).abs() <= 0.3 * (line - at).abs();
                (close && far.iter().all(|far| far.abs() > 10.0 * apart)).then_some(place)
            }
            _ => None,
        };
        self.seen.push((at, miss));
        curve.unwrap_or(line)
    }
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

    /// Where guesses are poor: few steps at small rates, whose loss is that of a member that is
    /// rarely drawn, and samples of fixed size.
    #[test]
    fn poor_guesses_do_no_harm() {
        for (epsilon, rate, steps) in [
            (8.0, 1e-3, 100),
            (0.5, 1e-3, 10),
            (0.5, 1e-2, 1),
            (2.0, 1e-4, 1000),
            (20.0, 1e-2, 2),
        ] {
            let target = target(epsilon, 1e-5, AccountantKind::Pld);
            let found = target
                .noise_multiplier(steps, |noise| sampled(rate, noise))
                .unwrap();
            let name = format!("{epsilon} {rate} {steps}: {found:?}");
            let cost = |value: f64| {
                let noise = NoiseMultiplier::new(value).unwrap();
                target.cost(&sampled(rate, noise).unwrap(), steps).unwrap()
            };
            // What is returned is what the accountant itself says.
            assert_eq!(cost(found.value.get()), found.epsilon, "{name}");
            assert!(found.epsilon.upper <= target.epsilon, "{name}");
            let less = cost(found.value.get() * (1.0 - 2.0 * TOLERANCE));
            assert!(less.upper > target.epsilon, "{name}");
        }
        let target = Target {
            relation: NeighboringRelation::ReplaceOne,
            ..target(1.0, 1e-5, AccountantKind::Pld)
        };
        let event = |cohort| {
            let noise = NoiseMultiplier::new(1.0)?;
            DpEvent::sampled_without_replacement(1000, cohort, DpEvent::gaussian(noise))
        };
        let found = target.cohort(20, 1000, event).unwrap();
        assert!(found.epsilon.upper <= target.epsilon);
        let more = target.cost(&event(found.value + 1).unwrap(), 20).unwrap();
        assert!(more.upper > target.epsilon, "{found:?}");
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
