//! The guard of a release: whether the new version is worse than the one before it, told from what
//! devices of a stage and of a control group report at the same time.
//!
//! Reports are accuracies, one for each device and stage. Two one-sided tests are made at each look
//! (Welch 1947, "The generalization of 'Student's' problem when several different population variances
//! are involved", Biometrika 34, with the normal distribution for so many reports): that the mean
//! fell by more than `tolerance`, which withdraws the version, and that it fell by less than
//! `max_drop`, without which no stage is passed (Schuirmann 1987, "A comparison of the two one-sided
//! tests procedure and the power approach", on showing that something is *not* worse).
//!
//! A release is looked at many times, and each look may err. Look `i` is made at the level
//! `alpha / (i (i + 1))`; these add up to `alpha`, so that by the union bound a version that is not
//! worse is withdrawn by the test, and one that is worse by `max_drop` passes its first stage, with a
//! probability of `alpha` at most, however long the release lasts. (Lan & DeMets 1983, "Discrete
//! sequential boundaries for clinical trials", Biometrika 70, spend a level over looks whose number
//! need not be known; they use the looks' joint distribution, which gives somewhat more power than
//! the union bound.)

use super::out_of_range;
use crate::error::SimError;

/// A metric's value 1, as it is reported and added: an accuracy counts in millionths.
pub const ONE: u32 = 1_000_000;

/// What a group reported, added up exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reports.
    pub count: u64,
    /// Their sum, in millionths.
    pub sum: u128,
    /// The sum of their squares.
    pub squares: u128,
}

impl Tally {
    /// `count` reports of the same `value` in millionths.
    #[must_use]
    pub fn of(value: u32, count: u64) -> Self {
        let value = u128::from(value.min(ONE));
        Self {
            count,
            sum: value * u128::from(count),
            squares: value * value * u128::from(count),
        }
    }

    /// Adds other reports.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean, from 0 to 1; none of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let one = f64::from(ONE);
        (self.count > 0).then(|| self.sum as f64 / self.count as f64 / one)
    }

    /// The unbiased estimate of the variance of one report, from 0; none of fewer than two.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let count = u128::from(self.count);
        // Exact, so that equal reports have no variance at all.
        let spread = (count * self.squares).saturating_sub(self.sum * self.sum);
        let one = f64::from(ONE);
        Some(spread as f64 / (count * (count - 1)) as f64 / one / one)
    }
}

/// When a version is withdrawn, and when a stage is passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// Most probability of an error over all looks of a release, of either kind; above 0 and below
    /// one half.
    pub alpha: f64,
    /// Fall of the mean accuracy that is still not called worse, from 0 to below `max_drop`.
    pub tolerance: f64,
    /// Fall of the mean accuracy that must be ruled out before a stage is passed; above 0, at most 1.
    pub max_drop: f64,
    /// Reports that each group needs before a stage is passed.
    pub min_reports: u64,
    /// Hours that a stage lasts at least.
    pub min_hours: u64,
    /// Hours after which a stage that could not be decided counts as failed; at least `min_hours`.
    pub max_hours: u64,
    /// Hours from one look to the next, at least 1.
    pub look_hours: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            tolerance: 0.0,
            max_drop: 0.05,
            min_reports: 300,
            min_hours: 24,
            max_hours: 14 * 24,
            look_hours: 24,
        }
    }
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The new version is worse.
    Worse,
    /// That it is worse by `max_drop` can be ruled out.
    Good,
    /// Neither can be said yet.
    Open,
}

impl Guard {
    /// Whether all values are in their ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] names the first that is not.
    pub fn check(&self) -> Result<(), SimError> {
        let hours = self.min_hours;
        let checks: [(&'static str, bool, &dyn core::fmt::Display, &'static str); 5] = [
            (
                "rollout.guard.alpha",
                self.alpha > 0.0 && self.alpha < 0.5,
                &self.alpha,
                "above 0 and below 0.5",
            ),
            (
                "rollout.guard.max_drop",
                self.max_drop > 0.0 && self.max_drop <= 1.0,
                &self.max_drop,
                "above 0 and at most 1",
            ),
            (
                "rollout.guard.tolerance",
                self.tolerance >= 0.0 && self.tolerance < self.max_drop,
                &self.tolerance,
                "at least 0 and below max_drop",
            ),
            (
                "rollout.guard.max_hours",
                self.max_hours >= hours && self.max_hours >= 1,
                &self.max_hours,
                "at least min_hours, and at least 1",
            ),
            (
                "rollout.guard.look_hours",
                self.look_hours >= 1,
                &self.look_hours,
                "at least 1",
            ),
        ];
        for (key, holds, value, range) in checks {
            if !holds {
                return Err(out_of_range(key, value, range));
            }
        }
        Ok(())
    }

    /// What the `look`-th look at a release (from 1) says of the reports on its version (`new`) and of
    /// the control group's on the one before it (`old`).
    #[must_use]
    pub fn look(&self, look: u64, new: &Tally, old: &Tally) -> Verdict {
        let (Some(drop), Some(error)) = (drop(new, old), standard_error(new, old)) else {
            return Verdict::Open;
        };
        let look = look.max(1) as f64;
        let level = self.alpha / (look * (look + 1.0));
        if exceeds(drop - self.tolerance, error, level) {
            Verdict::Worse
        } else if exceeds(self.max_drop - drop, error, level) {
            Verdict::Good
        } else {
            Verdict::Open
        }
    }
}

/// By how much the mean of `new` lies below that of `old`; none where one of them reported nothing.
fn drop(new: &Tally, old: &Tally) -> Option<f64> {
    Some(old.mean()? - new.mean()?)
}

/// Standard error of the difference of two means with variances of their own (Welch 1947).
fn standard_error(new: &Tally, old: &Tally) -> Option<f64> {
    let part = |tally: &Tally| Some(tally.variance()? / tally.count as f64);
    Some(libm::sqrt(part(new)? + part(old)?))
}

/// Whether a difference is above 0 at a one-sided level.
fn exceeds(difference: f64, error: f64, level: f64) -> bool {
    if error > 0.0 {
        let z = difference / error;
        0.5 * libm::erfc(z * core::f64::consts::FRAC_1_SQRT_2) <= level
    } else {
        difference > 0.0
    }
}

#[cfg(test)]
mod tests {
    use fl_core::testing::stream;

    use super::*;

    #[test]
    fn tallies_are_exact() {
        let mut tally = Tally::default();
        for value in [0, 500_000, 1_000_000, 2_000_000] {
            // Values beyond 1 count as 1.
            tally.add(&Tally::of(value, 1));
        }
        assert_eq!(tally.mean(), Some(0.625));
        // (0.625² + 0.125² + 2 · 0.375²) / 3.
        let variance = tally.variance().unwrap();
        assert!((variance - 0.229_166_666_666_666_67).abs() < 1e-15);
        assert_eq!(Tally::default().mean(), None);
        assert_eq!(Tally::of(3, 1).variance(), None);
        assert_eq!(Tally::of(333_333, 1_000_000_000).variance(), Some(0.0));
    }

    /// Worked by hand: means 0.9 and 0.8 of zeros and ones have variances 0.09 and 0.16, times
    /// n / (n - 1); 400 reports each give z = 0.1 / sqrt(0.25 / 399).
    #[test]
    fn a_look_is_welch_s_test_at_its_level() {
        let share = |ones: u64, all: u64| {
            let mut tally = Tally::of(ONE, ones);
            tally.add(&Tally::of(0, all - ones));
            tally
        };
        let (old, new) = (share(360, 400), share(320, 400));
        let error = standard_error(&new, &old).unwrap();
        assert!((error - libm::sqrt(0.25 / 399.0)).abs() < 1e-15);
        // z = 3.995: one-sided p = 3.24e-5 (tables of the normal distribution).
        assert!(exceeds(0.1, error, 3.3e-5) && !exceeds(0.1, error, 3.2e-5));
        let guard = Guard {
            alpha: 0.0066,
            ..Guard::default()
        };
        // Level alpha / (i (i + 1)): 0.0066 / 182 is 3.6e-5 and 0.0066 / 210 is 3.1e-5.
        assert_eq!(guard.look(13, &new, &old), Verdict::Worse);
        assert_eq!(guard.look(14, &new, &old), Verdict::Open);
        assert_eq!(guard.look(1, &old, &new), Verdict::Good);
        assert_eq!(guard.look(1, &old, &old), Verdict::Open);
        let many = share(360_000, 400_000);
        assert_eq!(guard.look(1, &many, &many), Verdict::Good);
        assert_eq!(guard.look(1, &Tally::default(), &many), Verdict::Open);
        // Without any spread the difference itself decides.
        let flat = |value| Tally::of(value, 10);
        assert_eq!(guard.look(9, &flat(1), &flat(2)), Verdict::Worse);
        assert_eq!(guard.look(9, &flat(2), &flat(2)), Verdict::Good);
    }

    /// Over many looks at growing numbers of reports, errors of both kinds stay below alpha.
    #[test]
    fn errors_over_all_looks_are_rarer_than_alpha() {
        let alpha = 0.05;
        let guard = Guard {
            alpha,
            max_drop: 0.1,
            ..Guard::default()
        };
        let mut errors = [0u64; 2];
        let releases = 1500;
        for release in 0..releases {
            // A version that is as good as the one before, and one that is worse by max_drop.
            for (kind, fall) in [(0, 0.0), (1, 0.1)] {
                let mut stream = stream(release, kind as u64);
                let (mut new, mut old) = (Tally::default(), Tally::default());
                for look in 1..=20 {
                    for _ in 0..100 {
                        new.add(&Tally::of(
                            ONE * u32::from(stream.uniform() < 0.8 - fall),
                            1,
                        ));
                        old.add(&Tally::of(ONE * u32::from(stream.uniform() < 0.8), 1));
                    }
                    match (guard.look(look, &new, &old), kind) {
                        (Verdict::Worse, 0) | (Verdict::Good, 1) => {
                            errors[kind] += 1;
                            break;
                        }
                        // A release that was decided rightly is over, too.
                        (Verdict::Worse, 1) => break,
                        _ => {}
                    }
                }
            }
        }
        for errors in errors {
            assert!((errors as f64) < alpha * releases as f64, "{errors}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        assert!(Guard::default().check().is_ok());
        type Case = (&'static str, fn(&mut Guard));
        let cases: [Case; 6] = [
            ("alpha", |guard| guard.alpha = 0.0),
            ("alpha", |guard| guard.alpha = f64::NAN),
            ("max_drop", |guard| guard.max_drop = 1.5),
            ("tolerance", |guard| guard.tolerance = 0.05),
            ("max_hours", |guard| guard.max_hours = 23),
            ("look_hours", |guard| guard.look_hours = 0),
        ];
        for (key, change) in cases {
            let mut guard = Guard::default();
            change(&mut guard);
            let error = guard.check().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("rollout.guard.{key} is")),
                "{error}"
            );
        }
    }
}
