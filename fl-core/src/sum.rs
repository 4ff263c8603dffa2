//! Exact sums of weighted updates: the same bits for any order and any grouping.
//!
//! A worker keeps one [`ExactSum`] (one `i64` per parameter), absorbs the updates of its clients as
//! they come and is merged with the others at the end; see [`crate::ring`] for the encoding.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::ring::RingPlan;
use crate::units::Weight;
use crate::update::RingVector;

/// Why the update of a client was not summed. It depends on the update, its weight and the plan
/// alone, never on what else is in the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rejection {
    /// A value is infinite or not a number.
    #[error("value {index} of the update is not finite; lower the local learning rate")]
    NonFinite {
        /// The first such value.
        index: usize,
    },
    /// Not one value per parameter.
    #[error("the update has {given} values for a sum of {expected}")]
    WrongLength {
        /// Values of the sum.
        expected: usize,
        /// Values of the update.
        given: usize,
    },
    /// The weight is zero.
    #[error("the update has weight 0 and would count for nothing")]
    Weightless,
    /// The weight is more than was planned for.
    #[error("the update has weight {weight} where the ring was planned for at most {limit}")]
    Overweight {
        /// The update's weight.
        weight: Weight,
        /// The plan's limit.
        limit: Weight,
    },
    /// An encoded update was made for another plan or another weight, or counts more saturated
    /// values than it has.
    #[error(
        "the update was encoded for another ring or another weight than the server's, or miscounts \
         its saturated values"
    )]
    WrongEncoding,
    /// An encoded value is larger than any value in range can be.
    #[error("integer {index} of the encoded update is outside of the planned range")]
    OutOfRange {
        /// The first such integer.
        index: usize,
    },
}

/// How many clients were rejected, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rejections {
    /// [`Rejection::NonFinite`].
    pub non_finite: u64,
    /// [`Rejection::WrongLength`].
    pub wrong_length: u64,
    /// [`Rejection::Weightless`].
    pub weightless: u64,
    /// [`Rejection::Overweight`].
    pub overweight: u64,
    /// [`Rejection::WrongEncoding`].
    pub wrong_encoding: u64,
    /// [`Rejection::OutOfRange`].
    pub out_of_range: u64,
}

impl Rejections {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            non_finite,
            wrong_length,
            weightless,
            overweight,
            wrong_encoding,
            out_of_range,
        } = *self;
        non_finite + wrong_length + weightless + overweight + wrong_encoding + out_of_range
    }

    /// Counts one.
    pub fn count(&mut self, rejection: &Rejection) {
        let counter = match rejection {
            Rejection::NonFinite { .. } => &mut self.non_finite,
            Rejection::WrongLength { .. } => &mut self.wrong_length,
            Rejection::Weightless => &mut self.weightless,
            Rejection::Overweight { .. } => &mut self.overweight,
            Rejection::WrongEncoding => &mut self.wrong_encoding,
            Rejection::OutOfRange { .. } => &mut self.out_of_range,
        };
        *counter += 1;
    }

    fn add(&mut self, other: &Self) {
        self.non_finite += other.non_finite;
        self.wrong_length += other.wrong_length;
        self.weightless += other.weightless;
        self.overweight += other.overweight;
        self.wrong_encoding += other.wrong_encoding;
        self.out_of_range += other.out_of_range;
    }
}

/// What is in a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Clients whose update is in the sum.
    pub clients: u64,
    /// Their weights, added up.
    pub weight: Weight,
    /// Values that were clamped to the ring's range, over all clients.
    pub saturated: u64,
    /// Clients with at least one such value.
    pub saturated_clients: u64,
    /// Clients whose update was refused.
    pub rejected: Rejections,
}

impl Tally {
    /// Clients whose update was absorbed, summed or rejected.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.clients + self.rejected.total()
    }

    fn add(&mut self, other: &Self) {
        self.clients += other.clients;
        self.weight.0 = self.weight.0.saturating_add(other.weight.0);
        self.saturated += other.saturated;
        self.saturated_clients += other.saturated_clients;
        self.rejected.add(&other.rejected);
    }
}

/// What became of one update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// It is in the sum.
    Summed {
        /// Values of it that were clamped to the ring's range.
        saturated: u64,
    },
    /// It is not, and is counted with its reason.
    Rejected(Rejection),
}

/// Why a sum cannot go on. Unlike a [`Rejection`] this is no client's fault: the plan is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SumError {
    /// More weight than the ring holds.
    #[error(
        "the weights of the clients add up to {total} where the ring was planned for {limit}; \
         plan it for the largest cohort"
    )]
    TotalWeight {
        /// The sum of the weights.
        total: u64,
        /// The plan's limit.
        limit: Weight,
    },
    /// Sums of different rings or lengths cannot be merged.
    #[error("a sum of {other} values cannot be merged into one of {own}, or their rings differ")]
    Mismatch {
        /// Length of the one.
        own: usize,
        /// Length of the other.
        other: usize,
    },
    /// No client is in the sum, so it has no mean.
    #[error("no client is in the sum, so it has no mean; require at least one report")]
    Empty,
    /// Too few groups for a robust mean of their means.
    #[error(
        "{groups} groups have a sum, and a robust mean needs at least {least}; make smaller groups or \
         select more clients"
    )]
    Groups {
        /// Groups with a sum.
        groups: usize,
        /// The fewest.
        least: usize,
    },
    /// No sum of that weight has such an integer.
    #[error(
        "integer {index} of the sum is {value}, and weights of sum {weight} give at most {largest}; \
         the sum is of another plan"
    )]
    Impossible {
        /// Its place.
        index: usize,
        /// The integer.
        value: i64,
        /// The sum of the weights.
        weight: Weight,
        /// The largest absolute value.
        largest: u64,
    },
}

/// Something that adds updates.
///
/// LAW: the bits of [`finish`](Self::finish) are a function of the multiset of absorbed
/// `(update, weight)` pairs. Order, grouping into partial aggregators and the order of merging
/// change nothing. Suite: `testing::aggregator` (feature `testing`).
pub trait Aggregator: Debug + Send + Sized {
    /// Adds `weight * update`, or rejects the update as a whole.
    ///
    /// # Errors
    /// [`SumError::TotalWeight`] when the plan's total weight is exceeded.
    fn absorb(&mut self, update: &[f32], weight: Weight) -> Result<Absorbed, SumError>;

    /// Adds an update that its client encoded; `weight` is what the server gives it. The same as
    /// [`absorb`](Self::absorb) of what was encoded.
    ///
    /// # Errors
    /// [`SumError::TotalWeight`] when the plan's total weight is exceeded.
    fn absorb_encoded(&mut self, update: &RingVector, weight: Weight)
    -> Result<Absorbed, SumError>;

    /// Moves all of `other` into `self` and leaves `other` empty, ready to be used again.
    ///
    /// # Errors
    /// [`SumError::TotalWeight`] or [`SumError::Mismatch`]; then neither has changed.
    fn merge(&mut self, other: &mut Self) -> Result<(), SumError>;

    /// What has been absorbed so far.
    fn tally(&self) -> &Tally;

    /// The weighted mean.
    ///
    /// # Errors
    /// [`SumError::Empty`] when no client is in the sum.
    fn finish(self) -> Result<Aggregate, SumError>;
}

/// A sum of integers of a ring, see the [module](self).
///
/// ```
/// use fl_core::ring::{RingPlan, WeightBounds};
/// use fl_core::sum::{Aggregator, ExactSum};
/// use fl_core::units::Weight;
///
/// let plan = RingPlan::for_weights(WeightBounds::new(Weight(30), 2))?;
/// let mut sum = ExactSum::new(plan, 3);
/// sum.absorb(&[1.0, 0.0, -2.0], Weight(10))?;
/// sum.absorb(&[0.0, 4.0, -2.0], Weight(30))?;
/// let aggregate = sum.finish()?;
/// assert_eq!(aggregate.mean(), [0.25, 3.0, -2.0]);
/// assert_eq!(aggregate.tally().clients, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactSum {
    plan: RingPlan,
    values: Vec<i64>,
    tally: Tally,
}

impl ExactSum {
    /// An empty sum of updates of `len` values.
    #[must_use]
    pub fn new(plan: RingPlan, len: usize) -> Self {
        Self {
            plan,
            values: vec![0; len],
            tally: Tally::default(),
        }
    }

    /// A sum that somebody else added up, as secure aggregation does; `tally` says what is in it.
    ///
    /// # Errors
    /// [`SumError::TotalWeight`] and [`SumError::Impossible`] when it is no sum by this plan.
    pub fn added_up(plan: RingPlan, values: Vec<i64>, tally: Tally) -> Result<Self, SumError> {
        let mut sum = Self {
            plan,
            values,
            tally: Tally::default(),
        };
        let weight = sum.total_with(tally.weight)?;
        let largest = plan.largest(weight);
        if let Some(index) = sum.values.iter().position(|v| v.unsigned_abs() > largest) {
            return Err(SumError::Impossible {
                index,
                value: sum.values[index],
                weight,
                largest,
            });
        }
        sum.tally = tally;
        Ok(sum)
    }

    /// The ring.
    #[must_use]
    pub fn plan(&self) -> &RingPlan {
        &self.plan
    }

    /// The integers, added up.
    #[must_use]
    pub fn values(&self) -> &[i64] {
        &self.values
    }

    /// Empties the sum and keeps its memory.
    pub fn reset(&mut self) {
        self.values.fill(0);
        self.tally = Tally::default();
    }

    fn reject(&mut self, rejection: Rejection) -> Absorbed {
        self.tally.rejected.count(&rejection);
        Absorbed::Rejected(rejection)
    }

    /// The checks that need no look at the values.
    fn check(&self, len: usize, weight: Weight) -> Result<(), Rejection> {
        let limit = self.plan.weights().client;
        if len != self.values.len() {
            Err(Rejection::WrongLength {
                expected: self.values.len(),
                given: len,
            })
        } else if weight.0 == 0 {
            Err(Rejection::Weightless)
        } else if weight > limit {
            Err(Rejection::Overweight { weight, limit })
        } else {
            Ok(())
        }
    }

    fn total_with(&self, weight: Weight) -> Result<Weight, SumError> {
        let total = self.tally.weight.0.saturating_add(weight.0);
        let limit = self.plan.weights().total;
        if total > limit.0 {
            return Err(SumError::TotalWeight { total, limit });
        }
        Ok(Weight(total))
    }

    fn count(&mut self, total: Weight, saturated: u64) -> Absorbed {
        self.tally.clients += 1;
        self.tally.weight = total;
        self.tally.saturated += saturated;
        self.tally.saturated_clients += u64::from(saturated > 0);
        Absorbed::Summed { saturated }
    }
}

impl Aggregator for ExactSum {
    fn absorb(&mut self, update: &[f32], weight: Weight) -> Result<Absorbed, SumError> {
        if let Err(rejection) = self.check(update.len(), weight) {
            return Ok(self.reject(rejection));
        }
        let plan = self.plan;
        let scan = plan.accumulate::<false>(&mut self.values, update, weight);
        let refused = if scan.non_finite {
            let index = update.iter().position(|value| !value.is_finite());
            let index = index.unwrap_or_default();
            Ok(Rejection::NonFinite { index })
        } else {
            match self.total_with(weight) {
                Ok(total) => return Ok(self.count(total, scan.saturated)),
                Err(error) => Err(error),
            }
        };
        // Integer addition has an exact inverse, so the good case needs one pass only.
        plan.accumulate::<true>(&mut self.values, update, weight);
        refused.map(|rejection| self.reject(rejection))
    }

    fn absorb_encoded(
        &mut self,
        update: &RingVector,
        weight: Weight,
    ) -> Result<Absorbed, SumError> {
        if let Err(rejection) = self.check(update.values().len(), weight) {
            return Ok(self.reject(rejection));
        }
        let impossible = update.saturated() > update.values().len() as u64;
        if *update.plan() != self.plan || update.weight() != weight || impossible {
            return Ok(self.reject(Rejection::WrongEncoding));
        }
        let limit = self.plan.largest(weight);
        if let Some(index) = update
            .values()
            .iter()
            .position(|integer| integer.unsigned_abs() > limit)
        {
            return Ok(self.reject(Rejection::OutOfRange { index }));
        }
        let total = self.total_with(weight)?;
        for (sum, &integer) in self.values.iter_mut().zip(update.values()) {
            *sum = sum.wrapping_add(integer);
        }
        Ok(self.count(total, update.saturated()))
    }

    fn merge(&mut self, other: &mut Self) -> Result<(), SumError> {
        if self.plan != other.plan || self.values.len() != other.values.len() {
            return Err(SumError::Mismatch {
                own: self.values.len(),
                other: other.values.len(),
            });
        }
        let weight = self.total_with(other.tally.weight)?;
        for (sum, &integer) in self.values.iter_mut().zip(&other.values) {
            *sum = sum.wrapping_add(integer);
        }
        self.tally.add(&other.tally);
        self.tally.weight = weight;
        other.reset();
        Ok(())
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn finish(self) -> Result<Aggregate, SumError> {
        if self.tally.clients == 0 {
            return Err(SumError::Empty);
        }
        let weight = self.tally.weight;
        let mean = self
            .values
            .iter()
            .map(|&sum| self.plan.decode_mean(sum, weight))
            .collect();
        Ok(Aggregate {
            mean,
            error: self.plan.mean_error(self.tally.clients, weight),
            tally: self.tally,
        })
    }
}

/// The mean of a round's updates, in most rounds the weighted one, and what went into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    mean: Vec<f64>,
    tally: Tally,
    /// See [`Self::mean_error`].
    error: f64,
}

impl Aggregate {
    /// What someone else made of a sum, e.g. a private mean with noise over a public denominator.
    /// It says nothing of who is in it: its tally is empty.
    #[must_use]
    pub fn released(mean: Vec<f64>) -> Self {
        Self {
            mean,
            tally: Tally::default(),
            error: f64::INFINITY,
        }
    }

    /// Combines the weighted means of `groups` coordinate by coordinate; `combine` gets one value per
    /// group, in their order. What it gives moves by no more than the value that moves most.
    pub(crate) fn combined(
        groups: &[ExactSum],
        mut combine: impl FnMut(&mut [f64]) -> f64,
    ) -> Result<Self, SumError> {
        let least = crate::robust::LEAST_GROUPS;
        let (Some(first), true) = (groups.first(), groups.len() >= least) else {
            return Err(SumError::Groups {
                groups: groups.len(),
                least,
            });
        };
        let mut tally = Tally::default();
        let mut error = 0.0f64;
        for group in groups {
            if group.plan != first.plan || group.values.len() != first.values.len() {
                return Err(SumError::Mismatch {
                    own: first.values.len(),
                    other: group.values.len(),
                });
            }
            let Tally {
                clients, weight, ..
            } = group.tally;
            if clients == 0 {
                return Err(SumError::Empty);
            }
            tally.add(&group.tally);
            error = error.max(group.plan.mean_error(clients, weight));
        }
        let mut values = vec![0.0; groups.len()];
        let mean = (0..first.values.len()).map(|index| {
            for (value, group) in values.iter_mut().zip(groups) {
                *value = group
                    .plan
                    .decode_mean(group.values[index], group.tally.weight);
            }
            combine(&mut values)
        });
        Ok(Self {
            mean: mean.collect(),
            tally,
            error,
        })
    }

    /// The mean, one value per parameter: the weighted one, unless somebody else made it.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The mean, for the server's side of a transform.
    #[must_use]
    pub fn mean_mut(&mut self) -> &mut [f64] {
        &mut self.mean
    }

    /// The mean of value `index` times the weight of all clients: the weighted sum, where the mean is
    /// the weighted one.
    #[must_use]
    pub fn sum(&self, index: usize) -> Option<f64> {
        Some(self.mean.get(index)? * self.tally.weight.0 as f64)
    }

    /// Clients, weight, saturation and rejections; empty when it was [released](Self::released).
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A bound for what the encoding did to each value of the mean, see
    /// [`RingPlan::mean_error`]; of combined groups, that of the worst. Infinite when it was
    /// [released](Self::released).
    #[must_use]
    pub fn mean_error(&self) -> f64 {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::WeightBounds;

    const BOUNDS: WeightBounds = WeightBounds {
        client: Weight(10),
        total: Weight(40),
    };

    fn empty(len: usize) -> ExactSum {
        ExactSum::new(RingPlan::for_weights(BOUNDS).unwrap(), len)
    }

    #[test]
    fn a_sum_from_elsewhere_is_the_sum_of_its_updates() {
        let plan = RingPlan::for_weights(crate::ring::WeightBounds::new(Weight(4), 3)).unwrap();
        let mut own = ExactSum::new(plan, 2);
        own.absorb(&[1.5, -0.25], Weight(4)).unwrap();
        own.absorb(&[65.0, f32::MIN_POSITIVE], Weight(1)).unwrap();
        own.absorb(&[f32::NAN, 0.0], Weight(2)).unwrap();
        let made = |values: &[i64], tally| ExactSum::added_up(plan, values.to_vec(), tally);
        assert_eq!(made(own.values(), *own.tally()), Ok(own.clone()));
        let heavy = Tally {
            weight: Weight(13),
            ..Tally::default()
        };
        assert!(matches!(
            made(&[], heavy),
            Err(SumError::TotalWeight { total: 13, .. })
        ));
        let light = Tally {
            weight: Weight(1),
            ..Tally::default()
        };
        let largest = plan.largest(Weight(1)).cast_signed();
        assert!(made(&[largest, -largest], light).is_ok());
        assert!(matches!(
            made(&[0, largest + 1], light),
            Err(SumError::Impossible { index: 1, .. })
        ));
    }

    #[test]
    fn exact_sum_obeys_the_law() {
        crate::testing::aggregator(&|len, bounds| {
            ExactSum::new(RingPlan::for_weights(bounds).unwrap(), len)
        });
    }

    #[test]
    fn faulty_updates_are_rejected_with_a_reason() {
        let cases: [(&[f32], u64, Rejection, &str); 5] = [
            (
                &[1.0, f32::NAN],
                1,
                Rejection::NonFinite { index: 1 },
                "value 1 of the update is not finite; lower the local learning rate",
            ),
            (
                &[f32::INFINITY, f32::NAN],
                1,
                Rejection::NonFinite { index: 0 },
                "value 0 of the update is not finite; lower the local learning rate",
            ),
            (
                &[1.0],
                1,
                Rejection::WrongLength {
                    expected: 2,
                    given: 1,
                },
                "the update has 1 values for a sum of 2",
            ),
            (
                &[1.0, 1.0],
                0,
                Rejection::Weightless,
                "the update has weight 0 and would count for nothing",
            ),
            (
                &[1.0, 1.0],
                11,
                Rejection::Overweight {
                    weight: Weight(11),
                    limit: Weight(10),
                },
                "the update has weight 11 where the ring was planned for at most 10",
            ),
        ];
        let mut sum = empty(2);
        sum.absorb(&[0.25, -3.0], Weight(2)).unwrap();
        let values = sum.values().to_vec();
        for (update, weight, rejection, message) in cases {
            let absorbed = sum.absorb(update, Weight(weight)).unwrap();
            assert_eq!(absorbed, Absorbed::Rejected(rejection));
            assert_eq!(rejection.to_string(), message);
            assert_eq!(sum.values(), values, "a rejected update leaves no trace");
        }
        assert_eq!(sum.tally().clients, 1);
        assert_eq!(sum.tally().rejected.total(), 5);
        assert_eq!(sum.tally().rejected.non_finite, 2);
        assert_eq!(sum.tally().weight, Weight(2));
    }

    #[test]
    fn saturation_is_counted() {
        let mut sum = empty(4);
        let absorbed = sum.absorb(&[1e9, -65.0, 64.0, 0.0], Weight(3)).unwrap();
        assert_eq!(absorbed, Absorbed::Summed { saturated: 2 });
        sum.absorb(&[0.0; 4], Weight(1)).unwrap();
        let aggregate = sum.finish().unwrap();
        assert_eq!(aggregate.mean(), [48.0, -48.0, 48.0, 0.0]);
        assert_eq!(aggregate.sum(1), Some(-192.0));
        assert_eq!(aggregate.sum(4), None);
        assert_eq!(
            (
                aggregate.tally().saturated,
                aggregate.tally().saturated_clients
            ),
            (2, 1)
        );
    }

    #[test]
    fn an_encoded_update_is_the_same_update() {
        let updates = [[0.1, -0.7, 3.0], [1e-9, 100.0, -0.0], [0.3, 0.3, 0.3]];
        let (mut plain, mut encoded) = (empty(3), empty(3));
        for (update, weight) in updates.iter().zip([7, 10, 1].map(Weight)) {
            plain.absorb(update, weight).unwrap();
            let vector = RingVector::encode(*encoded.plan(), update, weight).unwrap();
            encoded.absorb_encoded(&vector, weight).unwrap();
        }
        assert_eq!(plain, encoded);

        let vector = RingVector::encode(*encoded.plan(), &updates[0], Weight(7)).unwrap();
        let coarse = RingPlan::new(BOUNDS, 1.0, 0.5).unwrap();
        let other = RingVector::encode(coarse, &updates[0], Weight(7)).unwrap();
        // A client that cheats on the range of its integers.
        let mut text: serde_json::Value = serde_json::to_value(&vector).unwrap();
        text["values"][2] = i64::MAX.into();
        let cheat: RingVector = serde_json::from_value(text).unwrap();
        // One that cheats on the count, which would overflow the tally.
        let mut text: serde_json::Value = serde_json::to_value(&vector).unwrap();
        text["saturated"] = u64::MAX.into();
        let miscount: RingVector = serde_json::from_value(text).unwrap();
        let cases = [
            (&miscount, 7, Rejection::WrongEncoding),
            (&vector, 6, Rejection::WrongEncoding),
            (&other, 7, Rejection::WrongEncoding),
            (&cheat, 7, Rejection::OutOfRange { index: 2 }),
            (&vector, 0, Rejection::Weightless),
        ];
        for (vector, weight, rejection) in cases {
            let absorbed = encoded.absorb_encoded(vector, Weight(weight)).unwrap();
            assert_eq!(absorbed, Absorbed::Rejected(rejection));
        }
        assert_eq!(encoded.values(), plain.values());
        assert!(RingVector::encode(coarse, &[f32::NAN], Weight(1)).is_none());
        assert!(RingVector::encode(coarse, &[0.0], Weight(0)).is_none());
        assert!(RingVector::encode(coarse, &[0.0], Weight(11)).is_none());
    }

    #[test]
    fn sums_of_other_plans_are_not_merged() {
        let mut sum = empty(2);
        let other_plan = RingPlan::new(BOUNDS, 1.0, 0.5).unwrap();
        for mut other in [empty(3), ExactSum::new(other_plan, 2)] {
            assert!(matches!(
                sum.merge(&mut other),
                Err(SumError::Mismatch { .. })
            ));
        }
        let mut one = empty(2);
        one.absorb(&[1.0, 2.0], Weight(1)).unwrap();
        let mut all = one.clone();
        all.merge(&mut one).unwrap();
        assert_eq!(one, empty(2), "a merged sum is empty and can be used again");
        assert_eq!(all.tally().clients, 2);
        all.reset();
        assert_eq!(all, empty(2));
    }
}
