//! Calibration: the value of one parameter with which a plan meets its `(epsilon, delta)`.
//!
//! The answer is always on the safe side: with the returned value the accountant's *upper bound*
//! has been computed and is at most the target. The search brackets the target and then takes
//! secants of `ln epsilon` over the logarithm of the parameter, which is nearly straight, with
//! halving where they do not help (regula falsi after Dowell and Jarratt 1971).

use crate::accountant::{AccountantKind, Bounds, accountant};
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
const MOST: u32 = 100;

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
        let cost = |noise: f64| self.cost(&event(NoiseMultiplier::new(noise)?)?, count);
        let found = self.search("noise_multiplier", (1e-3, 1.0, 1e7), cost)?;
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
        let cost = |inverse: f64| self.cost(&event((1.0 / inverse).min(1.0))?, count);
        let found = self.search("sampling_rate", (1.0, 100.0, 1e9), cost)?;
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
        self.largest("steps", 1, most, |count| self.cost(event, count))
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
        self.largest("cohort", 1, most, |cohort| {
            self.cost(&event(cohort)?, count)
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

    /// The largest integer from `least` to `most` that meets the target, where cost grows.
    fn largest(
        &self,
        parameter: &'static str,
        least: u64,
        most: u64,
        cost: impl Fn(u64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Calibrated<u64>, PrivacyError> {
        let first = cost(least)?;
        if !self.meets(first) {
            return Err(self.unreachable(parameter, least as f64, first));
        }
        let (mut low, mut low_cost) = (least, first);
        // Outwards by factors, as the cost of very many may take long to compute.
        let mut high = None;
        while high.is_none() && low < most {
            let next = low.saturating_mul(4).min(most);
            let there = cost(next)?;
            if self.meets(there) {
                (low, low_cost) = (next, there);
            } else {
                high = Some((next, there));
            }
        }
        let Some((mut high, mut high_cost)) = high else {
            return Ok(Calibrated {
                value: low,
                epsilon: low_cost,
            });
        };
        let mut turn = 0;
        while high - low > 1 {
            turn += 1;
            let guess = self.secant(
                (low as f64, low_cost.upper.get()),
                (high as f64, high_cost.upper.get()),
            );
            let middle = match guess {
                Some(guess) if turn % 3 != 0 => (guess as u64).clamp(low + 1, high - 1),
                _ => low + (high - low) / 2,
            };
            let there = cost(middle)?;
            if self.meets(there) {
                (low, low_cost) = (middle, there);
            } else {
                (high, high_cost) = (middle, there);
            }
        }
        Ok(Calibrated {
            value: low,
            epsilon: low_cost,
        })
    }

    /// Where the line through two points, in logarithms, reaches the target.
    fn secant(&self, a: (f64, f64), b: (f64, f64)) -> Option<f64> {
        let target = libm::log(self.epsilon.get());
        let ((ax, ay), (bx, by)) = (
            (libm::log(a.0), libm::log(a.1)),
            (libm::log(b.0), libm::log(b.1)),
        );
        let x = ax + (target - ay) / (by - ay) * (bx - ax);
        // Infinite costs have no line.
        (x.is_finite() && x > ax.min(bx) && x < ax.max(bx)).then(|| libm::exp(x))
    }

    /// The smallest value from `least` to `most` that meets the target, where cost falls.
    pub(crate) fn search(
        &self,
        parameter: &'static str,
        (least, start, most): (f64, f64, f64),
        cost: impl Fn(f64) -> Result<Bounds<Epsilon>, PrivacyError>,
    ) -> Result<Calibrated<f64>, PrivacyError> {
        let first = cost(start)?;
        let (mut bad, mut good);
        if self.meets(first) {
            good = (start, first);
            loop {
                let next = (good.0 * 0.5).max(least);
                let there = cost(next)?;
                if !self.meets(there) {
                    bad = (next, there);
                    break;
                }
                good = (next, there);
                if next <= least {
                    return Ok(Calibrated {
                        value: least,
                        epsilon: there,
                    });
                }
            }
        } else {
            bad = (start, first);
            loop {
                let next = (bad.0 * 2.0).min(most);
                let there = cost(next)?;
                if self.meets(there) {
                    good = (next, there);
                    break;
                }
                if next >= most {
                    return Err(self.unreachable(parameter, next, there));
                }
                bad = (next, there);
            }
        }
        for turn in 1..MOST {
            if good.0 - bad.0 <= TOLERANCE * good.0 {
                break;
            }
            let guess = self
                .secant((bad.0, bad.1.upper.get()), (good.0, good.1.upper.get()))
                .filter(|_| turn % 3 != 0);
            let middle = match guess {
                // A little beyond the crossing, to the side that moves the far end.
                Some(guess) => {
                    let margin = 0.3 * TOLERANCE * good.0;
                    let nudged = if turn % 3 == 1 {
                        guess + margin
                    } else {
                        guess - margin
                    };
                    nudged.clamp(bad.0 + margin, good.0 - margin)
                }
                None => libm::sqrt(bad.0 * good.0),
            };
            let there = cost(middle)?;
            if self.meets(there) {
                good = (middle, there);
            } else {
                bad = (middle, there);
            }
        }
        Ok(Calibrated {
            value: good.0,
            epsilon: good.1,
        })
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
