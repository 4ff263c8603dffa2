//! Means whose sensitivity is known.
//!
//! A weighted mean `sum w_k u_k / W` leaks in two ways that noise on the sum does not cover: a
//! client with more examples counts for more than the clipping norm allows, and the sum of the
//! weights is itself private. Hence weights are all the same or capped, and the denominator is a
//! public number (McMahan, Ramage, Talwar and Zhang 2018, arXiv:1710.06963, section 3.1).

use fl_core::{ExampleCount, RingPlan, Weight, Weighting};
use serde::{Deserialize, Serialize};

use super::{Clipper, changes};
use crate::error::PrivacyError;
use crate::relation::NeighboringRelation;

/// Weights under differential privacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum DpWeighting {
    /// Every client counts 1.
    Uniform,
    /// A client counts as many as it has examples, at most `cap`.
    Capped {
        /// The largest weight, public; at least 1.
        cap: u64,
    },
}

impl DpWeighting {
    /// The weight of a client with so many examples.
    #[must_use]
    pub fn weight(self, examples: ExampleCount) -> Weight {
        match self {
            Self::Uniform => Weight(1),
            Self::Capped { cap } => Weight(examples.0.min(cap)),
        }
    }

    /// The largest weight of a client.
    #[must_use]
    pub fn largest(self) -> Weight {
        match self {
            Self::Uniform => Weight(1),
            Self::Capped { cap } => Weight(cap),
        }
    }
}

impl TryFrom<Weighting> for DpWeighting {
    type Error = PrivacyError;

    /// # Errors
    /// [`PrivacyError::PrivateAggregation`] for weights by examples without a cap.
    fn try_from(weighting: Weighting) -> Result<Self, PrivacyError> {
        match weighting {
            Weighting::Uniform => Ok(Self::Uniform),
            Weighting::Examples => Err(PrivacyError::PrivateAggregation {
                what: "weighting clients by their number of examples",
                reason: "one client can count for any number of others",
                instead: "weigh uniformly or cap the weights",
            }),
        }
    }
}

/// What a sum is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denominator {
    /// A public number: the expected sum of weights of a round, e.g. sampling rate times
    /// population times the mean weight from public knowledge.
    Public(f64),
    /// The sum of weights of those who took part.
    Realised,
}

/// A weighted mean of clipped updates, by a public denominator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanPlan {
    weighting: DpWeighting,
    denominator: f64,
}

impl MeanPlan {
    /// A mean with these weights over this denominator.
    ///
    /// # Errors
    /// [`PrivacyError::PrivateAggregation`] for the realised sum of weights, and
    /// [`PrivacyError`] for a cap of 0 or a denominator that is not finite and above 0.
    pub fn new(weighting: DpWeighting, denominator: Denominator) -> Result<Self, PrivacyError> {
        let denominator = match denominator {
            Denominator::Public(number) => number,
            Denominator::Realised => {
                return Err(PrivacyError::PrivateAggregation {
                    what: "dividing by the weights of those who took part",
                    reason: "their sum is private, and with it the sensitivity changes",
                    instead: "divide by the expected sum of weights, which is public",
                });
            }
        };
        PrivacyError::unless(
            denominator.is_finite() && denominator > 0.0,
            "the denominator of a mean",
            denominator,
            "a finite number above 0",
        )?;
        let largest = weighting.largest().0;
        PrivacyError::unless_count(largest > 0, "the cap of weights", largest, "at least 1")?;
        Ok(Self {
            weighting,
            denominator,
        })
    }

    /// The weights.
    #[must_use]
    pub fn weighting(&self) -> DpWeighting {
        self.weighting
    }

    /// The public denominator.
    #[must_use]
    pub fn denominator(&self) -> f64 {
        self.denominator
    }

    /// The L2 sensitivity of the weighted **sum** of updates clipped by `clipper`.
    #[must_use]
    pub fn sum_sensitivity(&self, clipper: &dyn Clipper, relation: NeighboringRelation) -> f64 {
        self.weighting.largest().0 as f64 * clipper.sensitivity(relation)
    }

    /// The L2 sensitivity of the **mean**, rounded upwards.
    #[must_use]
    pub fn mean_sensitivity(&self, clipper: &dyn Clipper, relation: NeighboringRelation) -> f64 {
        self.sum_sensitivity(clipper, relation) / self.denominator * (1.0 + 2.0 * f64::EPSILON)
    }

    /// The L2 sensitivity of the sum of **integers** that [`RingPlan`] makes of clipped updates of
    /// `dimension` values, for noise on the integers themselves: rounding adds at most half a unit
    /// per value, `w C 2^f + sqrt(d) / 2` for each contribution that changes.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] when the plan's ring is for smaller weights than these.
    pub fn ring_sensitivity(
        &self,
        clipper: &dyn Clipper,
        relation: NeighboringRelation,
        plan: &RingPlan,
        dimension: usize,
    ) -> Result<f64, PrivacyError> {
        let largest = self.weighting.largest().0;
        PrivacyError::unless_count(
            largest <= plan.weights().client.0,
            "the largest weight of a client",
            largest,
            "at most that which the ring was planned for",
        )?;
        let exact = self.sum_sensitivity(clipper, relation) / plan.resolution();
        let rounding = changes(relation) * 0.5 * libm::sqrt(dimension as f64);
        Ok((exact + rounding) * (1.0 + 4.0 * f64::EPSILON))
    }
}
