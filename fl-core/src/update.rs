//! What a client sends back.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ring::RingPlan;
use crate::trainer::LocalResult;
use crate::units::{Bytes, ClientId, ExampleCount, RoundId, VirtualDuration, Weight};

/// Whether a client did all of the work that the plan asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkDone {
    /// All of it.
    Full,
    /// At least one step, but not all: the client is a straggler.
    Partial,
}

/// What a client's part in a round cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Received by the client.
    pub download: Bytes,
    /// Sent by the client.
    pub upload: Bytes,
    /// From the start of training to the report.
    pub time: VirtualDuration,
}

impl Cost {
    /// Adds another client's part; saturates.
    pub(crate) fn add(&mut self, other: &Self) {
        self.download.0 = self.download.0.saturating_add(other.download.0);
        self.upload.0 = self.upload.0.saturating_add(other.upload.0);
        self.time.0 = self.time.0.saturating_add(other.time.0);
    }
}

/// What the server must know of an update to accept and to weigh it, before it is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub client: ClientId,
    /// The round that the client was asked to train in.
    pub round: RoundId,
    /// Its training examples (not multiplied by epochs).
    pub examples: ExampleCount,
    /// Mini-batch steps that it took.
    pub steps: u64,
    /// Whether that was all the plan asked for.
    pub work: WorkDone,
    /// What it cost.
    pub cost: Cost,
}

/// A client's update: the report, what it learned, and how training went.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientUpdate {
    /// Decides on acceptance and weight.
    pub report: Report,
    /// `local - global` after the transforms.
    pub payload: Payload,
    /// How training went; for the record, never for the sum.
    pub metrics: LocalResult,
}

/// The form in which an update reaches the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Real values, one per parameter; the server encodes them.
    Dense(Vec<f32>),
    /// Integers of the ring, encoded by the client.
    Ring(RingVector),
}

/// A weighted update as integers of the ring, see [`crate::ring`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingVector {
    plan: RingPlan,
    weight: Weight,
    values: Vec<i64>,
    saturated: u64,
}

impl RingVector {
    /// Encodes `update`; `None` when a value is not finite or the weight is not in
    /// `1 ..= plan.weights().client`.
    #[must_use]
    pub fn encode(plan: RingPlan, update: &[f32], weight: Weight) -> Option<Self> {
        if weight.0 == 0 || weight > plan.weights().client {
            return None;
        }
        let mut values = vec![0; update.len()];
        let saturated = plan.encode(update, weight, &mut values)?;
        Some(Self {
            plan,
            weight,
            values,
            saturated,
        })
    }

    /// Integers that are what they are, such as counts: nothing is multiplied or rounded. `None`
    /// when the weight is not in `1 ..= plan.weights().client`, or an integer is larger than
    /// [`RingPlan::largest`] of the weight.
    #[must_use]
    pub fn from_integers(plan: RingPlan, values: Vec<i64>, weight: Weight) -> Option<Self> {
        if weight.0 == 0 || weight > plan.weights().client {
            return None;
        }
        let limit = plan.largest(weight);
        let fits = values.iter().all(|value| value.unsigned_abs() <= limit);
        fits.then_some(Self {
            plan,
            weight,
            values,
            saturated: 0,
        })
    }

    /// A vector that came with a message; `None` where [`from_integers`](Self::from_integers) has none,
    /// or when more values are said to be clamped than there are.
    pub(crate) fn received(
        plan: RingPlan,
        values: Vec<i64>,
        weight: Weight,
        saturated: u64,
    ) -> Option<Self> {
        let possible = saturated <= values.len() as u64;
        let vector = Self::from_integers(plan, values, weight).filter(|_| possible)?;
        Some(Self {
            saturated,
            ..vector
        })
    }

    /// The ring.
    #[must_use]
    pub fn plan(&self) -> &RingPlan {
        &self.plan
    }

    /// The weight that is multiplied in.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// One integer per parameter.
    #[must_use]
    pub fn values(&self) -> &[i64] {
        &self.values
    }

    /// Values that were clamped to the range.
    #[must_use]
    pub fn saturated(&self) -> u64 {
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::WeightBounds;

    #[test]
    fn integers_must_fit_the_plan() {
        let plan = RingPlan::new(WeightBounds::new(Weight(2), 3), 8.0, 1.0).unwrap();
        let made =
            |values: &[i64], weight| RingVector::from_integers(plan, values.to_vec(), weight);
        let vector = made(&[8, -8, 0], Weight(1)).unwrap();
        assert_eq!((vector.values(), vector.saturated()), (&[8, -8, 0][..], 0));
        assert!(made(&[16], Weight(2)).is_some());
        for (values, weight) in [([9], 1), ([i64::MIN], 1), ([17], 2), ([0], 0), ([0], 3)] {
            assert!(
                made(&values, Weight(weight)).is_none(),
                "{values:?} {weight}"
            );
        }
    }
}
