//! Robust means of group means: what a server that sees one sum per group of clients can put in the
//! place of their weighted mean, so that a few groups with poisoned updates move it little.
//!
//! A round's clients are divided into groups, and each group is summed by itself, as secure
//! aggregation in groups does. A group's mean `m_g` is its sum over its weight `W_g`; [`GroupMean`]
//! combines them coordinate by coordinate. Over the clients of a group this is a plain weighted mean,
//! over groups it is the median of means or the trimmed mean of means (Yin, Chen, Ramchandran and
//! Bartlett 2018, definitions 1 and 2, arXiv:1803.01498, with groups for machines).
//!
//! * **Groups count equally.** Their weights come from what clients say of themselves, and a client
//!   that may weigh its group up could move a weighted median at will.
//! * **What it withstands.** A client that lies spoils its group, so `q` of them spoil at most `q`
//!   groups: the median stays between means of honest groups while fewer than half of the groups are
//!   spoiled, the trimmed mean while no more are than it takes away at each end.
//! * **What it costs.** A median of few means is noisier than the mean of all (by up to a factor
//!   `sqrt(pi / 2)` in standard deviation), and where clients differ it is biased towards what most
//!   groups have in common: an update that few clients hold is taken for an outlier. Smaller groups
//!   withstand more and are biased more.
//!
//! The result is a function of the groups' integer sums alone, so it has the same bits whoever adds
//! them up.

use serde::{Deserialize, Serialize};

use crate::registry::ConfigError;
use crate::sum::{Aggregate, ExactSum, SumError};

/// The fewest groups: of two, no mean is more believable than the other.
pub const LEAST_GROUPS: usize = 3;

/// How the means of groups become one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GroupMean {
    /// The middle one of each coordinate; of an even number, the mean of the middle two.
    Median,
    /// The mean of what is left of each coordinate without its largest and its smallest values.
    TrimmedMean {
        /// The share of the groups that is taken away at each end, above 0 and below 1/2; rounded
        /// down, but at least one group.
        trim: f64,
    },
}

impl GroupMean {
    /// Checks the range of the key.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Median => Ok(()),
            Self::TrimmedMean { trim } => ConfigError::unless(
                *trim > 0.0 && *trim < 0.5,
                "trim",
                trim,
                "a share above 0 and below 0.5",
            ),
        }
    }

    /// Values of so many that are taken away at each end; of a median all but one or two.
    #[must_use]
    pub fn trimmed(&self, groups: usize) -> usize {
        let most = groups.saturating_sub(1) / 2;
        match self {
            Self::Median => most,
            // A share such as 0.29 of 100 is not to be rounded down to 28.
            Self::TrimmedMean { trim } => {
                let taken = libm::floor(trim * groups as f64 * (1.0 + 4.0 * f64::EPSILON));
                (taken as usize).clamp(1, most.max(1))
            }
        }
    }

    /// Combines the means of `groups`, each of at least one client. The aggregate's tally is that of
    /// all of them.
    ///
    /// # Errors
    /// [`SumError::Groups`] for fewer than [`LEAST_GROUPS`], [`SumError::Empty`] for a group without
    /// clients, [`SumError::Mismatch`] for groups of different rings or lengths.
    pub fn combine(&self, groups: &[ExactSum]) -> Result<Aggregate, SumError> {
        let trimmed = self.trimmed(groups.len());
        Aggregate::combined(groups, |values| middle(values, trimmed))
    }
}

/// The mean of `values` without the `trimmed` largest and smallest; it adds in ascending order.
fn middle(values: &mut [f64], trimmed: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let kept = values
        .get(trimmed..values.len().saturating_sub(trimmed))
        .unwrap_or_default();
    kept.iter().sum::<f64>() / kept.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::{RingPlan, WeightBounds};
    use crate::sum::Aggregator as _;
    use crate::units::Weight;

    const MEDIAN: GroupMean = GroupMean::Median;

    fn trimmed(trim: f64) -> GroupMean {
        GroupMean::TrimmedMean { trim }
    }

    fn sum(updates: &[(&[f32], u64)]) -> ExactSum {
        let plan = RingPlan::for_weights(WeightBounds::new(Weight(100), 100)).unwrap();
        let length = updates.first().map_or(1, |(update, _)| update.len());
        let mut sum = ExactSum::new(plan, length);
        for (update, weight) in updates {
            sum.absorb(update, Weight(*weight)).unwrap();
        }
        sum
    }

    #[test]
    fn as_many_groups_are_taken_away_as_asked() {
        for (mean, groups, taken) in [
            (MEDIAN, 3, 1),
            (MEDIAN, 4, 1),
            (MEDIAN, 5, 2),
            (MEDIAN, 100, 49),
            (trimmed(0.1), 3, 1),
            (trimmed(0.1), 10, 1),
            (trimmed(0.1), 29, 2),
            (trimmed(0.1), 30, 3),
            (trimmed(0.29), 100, 29),
            (trimmed(0.49), 3, 1),
            (trimmed(0.49), 4, 1),
            (trimmed(0.49), 100, 49),
            (trimmed(0.499_999), 10, 4),
        ] {
            assert_eq!(mean.trimmed(groups), taken, "{mean:?} {groups}");
        }
    }

    #[test]
    fn groups_are_combined_as_by_hand() {
        // Means 1, 2, 9 and, of weights 1 and 3, (8 - 2 * 3) / 4 = 0.5.
        let groups = [
            sum(&[(&[1.0, -1.0], 5)]),
            sum(&[(&[2.0, -2.0], 1), (&[2.0, -2.0], 100)]),
            sum(&[(&[9.0, 0.0], 7)]),
            sum(&[(&[8.0, 4.0], 1), (&[-2.0, 0.0], 3)]),
        ];
        for (mean, count, expected) in [
            (MEDIAN, 3, [2.0, -1.0]),
            (MEDIAN, 4, [1.5, -0.5]),
            (trimmed(0.2), 3, [2.0, -1.0]),
            (trimmed(0.25), 4, [1.5, -0.5]),
        ] {
            let found = mean.combine(&groups[..count]).unwrap();
            assert_eq!(found.mean(), expected, "{mean:?} {count}");
        }
        let all = MEDIAN.combine(&groups).unwrap();
        assert_eq!(all.tally().clients, 6);
        assert_eq!(all.tally().weight, Weight(117));
        // Of the group with one client of weight 5, 1 and 7: the worst is that of weight 4 / 2.
        let worst = groups[0].plan().mean_error(2, Weight(4));
        assert_eq!(all.mean_error().to_bits(), worst.to_bits());
    }

    #[test]
    fn too_few_and_unlike_groups_are_refused() {
        let group = || sum(&[(&[1.0], 1)]);
        assert_eq!(
            MEDIAN.combine(&[group(), group()]),
            Err(SumError::Groups {
                groups: 2,
                least: 3
            })
        );
        assert_eq!(
            MEDIAN.combine(&[group(), group(), sum(&[])]),
            Err(SumError::Empty)
        );
        assert!(matches!(
            MEDIAN.combine(&[group(), group(), sum(&[(&[1.0, 2.0], 1)])]),
            Err(SumError::Mismatch { .. })
        ));
        for trim in [0.0, 0.5, -0.1, f64::NAN, 1.0] {
            assert_eq!(trimmed(trim).validate().unwrap_err().key, "trim");
        }
        assert!(trimmed(0.499).validate().is_ok() && MEDIAN.validate().is_ok());
    }

    proptest! {
        /// Against the definitions, written down in another way: by ranks.
        #[test]
        fn means_are_those_of_the_definitions(
            values in prop::collection::vec(-60.0f32..60.0, 3..20),
            trim in 0.01f64..0.49,
        ) {
            let groups: Vec<ExactSum> = values.iter().map(|value| sum(&[(&[*value], 3)])).collect();
            let exact: Vec<f64> = groups.iter().map(|group| {
                group.values()[0] as f64 * group.plan().resolution() / 3.0
            }).collect();
            // How many are smaller, ties by place.
            let rank = |place: usize| {
                let before = |other: usize| (exact[other], other) < (exact[place], place);
                (0..exact.len()).filter(|&other| before(other)).count()
            };
            let ranked = |range: core::ops::Range<usize>| -> f64 {
                let kept: Vec<f64> = (0..exact.len())
                    .filter(|&place| range.contains(&rank(place)))
                    .map(|place| exact[place])
                    .collect();
                kept.iter().sum::<f64>() / kept.len() as f64
            };
            let count = exact.len();
            let median = MEDIAN.combine(&groups).unwrap().mean()[0];
            let middle = ranked((count - 1) / 2..count / 2 + 1);
            prop_assert!((median - middle).abs() < 1e-12);
            let taken = ((trim * count as f64).floor() as usize).max(1);
            let found = trimmed(trim).combine(&groups).unwrap().mean()[0];
            let expected = ranked(taken..count - taken);
            prop_assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }

        /// Fewer than half spoiled, whatever they say: the median is within the honest ones. No more
        /// than trimmed: so is the trimmed mean.
        #[test]
        fn spoiled_groups_move_the_mean_no_further_than_honest_ones(
            honest in prop::collection::vec(-1.0f32..1.0, 4..12),
            spoiled in prop::collection::vec(prop::sample::select(vec![-64.0f32, 64.0]), 0..4),
            weight in 1u64..100,
        ) {
            let low = honest.iter().copied().fold(f32::INFINITY, f32::min);
            let high = honest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut groups: Vec<ExactSum> = honest.iter().map(|v| sum(&[(&[*v], 1)])).collect();
            groups.extend(spoiled.iter().map(|v| sum(&[(&[*v], weight)])));
            let count = groups.len();
            let share = (spoiled.len() as f64 / count as f64).max(0.01) + 1e-9;
            for mean in [MEDIAN, trimmed(share.min(0.499))] {
                if spoiled.len() <= mean.trimmed(count) {
                    let found = mean.combine(&groups).unwrap().mean()[0] as f32;
                    prop_assert!(found >= low - 1e-6 && found <= high + 1e-6, "{mean:?} {found}");
                }
            }
        }
    }
}
