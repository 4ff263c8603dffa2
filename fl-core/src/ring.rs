//! Updates as integers of a ring, so that sums are exact.
//!
//! A client's update value `u` (an `f32`) with integer weight `w` becomes the integer
//! `e = round(w * clamp(u, -R, R) * 2^f)`, rounded half to even. Integer addition is associative,
//! so a sum of such integers does not depend on order, threads or grouping, and a plain sum, a
//! securely aggregated one (modulo `2^b`) and a hierarchical one are the same number.
//!
//! A [`RingPlan`] fixes `R = 2^k`, `f` and `b` before any update is seen, from what a server knows
//! in advance: the largest weight of a client, the largest sum of weights, the range and the
//! resolution wanted. Overflow is impossible: `|sum e| <= W * 2^(k+f) < 2^(b-1)` and `b <= 64`.
//!
//! # Error of the encoding
//! Values beyond the range are clamped and counted ("saturated"). For all others, `w * u * 2^f` is
//! computed without rounding (24 bits times at most 29 fit into the 53 of an `f64`), so each
//! integer is off by at most 1/2, and the weighted mean of `n` clients with total weight `W` by at
//! most `n * 2^-(f+1) / W`, see [`RingPlan::mean_error`].

use serde::{Deserialize, Serialize};

use crate::units::Weight;

/// The range of an update value when nothing else is asked for: `|update| <= 64`. Parameters of
/// trained networks are of the order of 1; a round that moves one of them by 64 has diverged.
pub const DEFAULT_RANGE: f64 = 64.0;

/// The resolution of one unit of weight when nothing else is asked for and the weights leave
/// room for it: `2^-32`, 1/16 of the last bit of an `f32` parameter of size 0.02.
pub const DEFAULT_RESOLUTION: f64 = 1.0 / (1u64 << 32) as f64;

/// The largest weight of a single client, `2^29`: up to it, weight times value is exact.
pub const LARGEST_CLIENT_WEIGHT: Weight = Weight(1 << 29);

/// One client's integers stay within `±2^51`, where adding `1.5 * 2^52` rounds to an integer.
const CLIENT_BITS: i32 = 51;
/// Sums stay within `i64`.
const SUM_BITS: i32 = 63;
const RANGE_EXPONENTS: core::ops::RangeInclusive<i32> = -40..=40;
/// `1.5 * 2^52`: added to a number within `±2^51`, it rounds that to an integer, half to even
/// (IEEE 754 default rounding), and leaves the integer in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
const ROUNDER_BITS: i64 = ROUNDER.to_bits() as i64;

/// What a server knows in advance of the weights of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightBounds {
    /// The largest weight of a client.
    pub client: Weight,
    /// The largest sum of the weights of a cohort.
    pub total: Weight,
}

impl WeightBounds {
    /// Bounds for `clients` clients of weight at most `client` each.
    #[must_use]
    pub fn new(client: Weight, clients: u64) -> Self {
        Self {
            client,
            total: Weight(client.0.saturating_mul(clients)),
        }
    }
}

/// Why no ring was planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// A range that is no range.
    #[error("the range of an update is {0}; expected a number between 2^-40 and 2^40")]
    Range(f64),
    /// A resolution that is no resolution.
    #[error("the resolution of an update is {0}; expected a number between 2^-60 and 1")]
    Resolution(f64),
    /// Weights outside of what can be encoded.
    #[error(
        "the largest weight of a client is {} and the largest sum {}; expected 1 <= client <= 2^29 \
         and client <= sum; lower the weights, e.g. by weighting clients uniformly", .0.client, .0.total
    )]
    Weights(WeightBounds),
    /// Range, resolution and weights together do not fit into 64 bits.
    #[error(
        "updates of range {range} at resolution {resolution} with weights up to {} and sums up to \
         {} do not fit into 64 bits; lower the range or the weights, or raise the resolution to \
         {finest}", weights.client, weights.total
    )]
    TooFine {
        /// The range asked for, as the power of two that it was raised to.
        range: f64,
        /// The resolution asked for, as the power of two that it was lowered to.
        resolution: f64,
        /// The weights.
        weights: WeightBounds,
        /// The finest resolution that fits.
        finest: f64,
    },
}

/// How update values become integers of `Z_2^b`. See the [module](self) for the law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredPlan", into = "StoredPlan")]
pub struct RingPlan {
    weights: WeightBounds,
    range_exponent: i32,
    fraction_bits: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPlan {
    weights: WeightBounds,
    range: f64,
    resolution: f64,
}

impl TryFrom<StoredPlan> for RingPlan {
    type Error = RingError;

    fn try_from(stored: StoredPlan) -> Result<Self, RingError> {
        Self::new(stored.weights, stored.range, stored.resolution)
    }
}

impl From<RingPlan> for StoredPlan {
    fn from(plan: RingPlan) -> Self {
        Self {
            weights: plan.weights,
            range: plan.range(),
            resolution: plan.resolution(),
        }
    }
}

impl RingPlan {
    /// A plan for values within `±range`, whose resolution for one unit of weight is at least as
    /// fine as `resolution`. The range is raised, and the resolution lowered, to a power of two.
    ///
    /// # Errors
    /// [`RingError`] when an argument is out of range or all together need more than 64 bits.
    pub fn new(weights: WeightBounds, range: f64, resolution: f64) -> Result<Self, RingError> {
        let range_exponent = power_of_two_above(range)
            .filter(|exponent| RANGE_EXPONENTS.contains(exponent))
            .ok_or(RingError::Range(range))?;
        let fraction_bits = power_of_two_above(1.0 / resolution)
            .filter(|bits| (0..=60).contains(bits))
            .ok_or(RingError::Resolution(resolution))?;
        let finest = finest_fraction(weights, range_exponent)?;
        if fraction_bits > finest {
            return Err(RingError::TooFine {
                range: power_of_two(range_exponent),
                resolution: power_of_two(-fraction_bits),
                weights,
                finest: power_of_two(-finest),
            });
        }
        Ok(Self {
            weights,
            range_exponent,
            fraction_bits,
        })
    }

    /// The plan of every experiment that asks for nothing else: range [`DEFAULT_RANGE`],
    /// resolution [`DEFAULT_RESOLUTION`] or, for weights too large for it, the finest that fits.
    ///
    /// # Errors
    /// [`RingError::Weights`] or, for sums of weights above `2^57`, [`RingError::TooFine`].
    pub fn for_weights(weights: WeightBounds) -> Result<Self, RingError> {
        let range_exponent = power_of_two_above(DEFAULT_RANGE).unwrap_or_default();
        let finest = finest_fraction(weights, range_exponent)?;
        let wanted = power_of_two_above(1.0 / DEFAULT_RESOLUTION).unwrap_or_default();
        Self::new(
            weights,
            DEFAULT_RANGE,
            power_of_two(-wanted.min(finest.max(0))),
        )
    }

    /// The bounds of the weights.
    #[must_use]
    pub fn weights(&self) -> WeightBounds {
        self.weights
    }

    /// `R = 2^k`: larger values are clamped.
    #[must_use]
    pub fn range(&self) -> f64 {
        power_of_two(self.range_exponent)
    }

    /// `2^-f`: the weighted value of one step of the integer.
    #[must_use]
    pub fn resolution(&self) -> f64 {
        power_of_two(-self.fraction_bits)
    }

    /// `f`, bits after the binary point; in `0..=60`.
    #[must_use]
    pub fn fraction_bits(&self) -> u32 {
        self.fraction_bits.unsigned_abs()
    }

    /// `b`, the bits of the ring: the fewest that hold every possible sum; at most 64.
    #[must_use]
    pub fn bits(&self) -> u32 {
        1 + u64::BITS - self.largest(self.weights.total).leading_zeros()
    }

    /// The largest absolute value of the integers of updates with weights of sum `weight`.
    #[must_use]
    pub fn largest(&self, weight: Weight) -> u64 {
        match self.range_exponent + self.fraction_bits {
            shift @ 0.. => weight.0 << shift,
            shift => weight.0 >> -shift,
        }
    }

    /// A bound for the error of a weighted mean that no saturation touched: `n 2^-(f+1) / W`.
    /// (Decoding adds at most one rounding of an `f64`.)
    #[must_use]
    pub fn mean_error(&self, clients: u64, weight: Weight) -> f64 {
        clients as f64 * 0.5 * self.resolution() / weight.0 as f64
    }

    /// Writes the integers of `update` at `weight` and says how many were saturated; `None`,
    /// with `encoded` left in an unspecified state, when a value is not finite.
    ///
    /// The caller gives slices of one length and a weight of at most that of the plan.
    #[must_use]
    pub fn encode(&self, update: &[f32], weight: Weight, encoded: &mut [i64]) -> Option<u64> {
        encoded.fill(0);
        let scan = self.accumulate::<false>(encoded, update, weight);
        (!scan.non_finite).then_some(scan.saturated)
    }

    /// The weighted mean of a sum of integers.
    #[must_use]
    pub fn decode_mean(&self, sum: i64, weight: Weight) -> f64 {
        sum as f64 * self.resolution() / weight.0 as f64
    }

    /// An integer as an element of `Z_2^b`.
    #[must_use]
    pub fn to_ring(&self, integer: i64) -> u64 {
        integer as u64 & (u64::MAX >> (64 - self.bits()))
    }

    /// The integer of `[-2^(b-1), 2^(b-1))` that an element of `Z_2^b` stands for.
    #[must_use]
    pub fn from_ring(&self, element: u64) -> i64 {
        let unused = 64 - self.bits();
        ((element << unused) as i64) >> unused
    }

    /// Adds (or takes away again) the integers of `update`. The one hot loop of aggregation:
    /// branch-free, so that it is vectorised.
    ///
    /// A value that is not finite counts as one at the end of the range, so that adding and
    /// taking away cancel for it, too.
    pub(crate) fn accumulate<const SUBTRACT: bool>(
        &self,
        sum: &mut [i64],
        update: &[f32],
        weight: Weight,
    ) -> Scan {
        const EXPONENT: u32 = 0x7f80_0000;
        let range = self.range() as f32;
        let scale = weight.0 as f64 * power_of_two(self.fraction_bits);
        let mut saturated = 0u64;
        let mut non_finite = 0u32;
        // The counter of a block fits the lanes of the values.
        for (sum, update) in sum.chunks_mut(BLOCK).zip(update.chunks(BLOCK)) {
            let mut clamped_here = 0u32;
            for (sum, &value) in sum.iter_mut().zip(update) {
                // In this form a NaN becomes `range`, and each line is one instruction.
                let below = if value < range { value } else { range };
                let clamped = if below > -range { below } else { -range };
                clamped_here += u32::from(value.to_bits() != clamped.to_bits());
                non_finite |= u32::from(value.to_bits() & EXPONENT == EXPONENT);
                let rounded = f64::from(clamped) * scale + ROUNDER;
                let integer = (rounded.to_bits() as i64).wrapping_sub(ROUNDER_BITS);
                *sum = if SUBTRACT {
                    sum.wrapping_sub(integer)
                } else {
                    sum.wrapping_add(integer)
                };
            }
            saturated += u64::from(clamped_here);
        }
        Scan {
            saturated,
            non_finite: non_finite != 0,
        }
    }
}

const BLOCK: usize = 4096;

/// What [`RingPlan::accumulate`] saw.
pub(crate) struct Scan {
    pub(crate) saturated: u64,
    pub(crate) non_finite: bool,
}

/// The most fraction bits for which nothing can overflow.
fn finest_fraction(weights: WeightBounds, range_exponent: i32) -> Result<i32, RingError> {
    let WeightBounds { client, total } = weights;
    if client.0 == 0 || client > LARGEST_CLIENT_WEIGHT || client > total {
        return Err(RingError::Weights(weights));
    }
    let bits = |number: u64| (u64::BITS - number.leading_zeros()).cast_signed();
    let by_client = CLIENT_BITS - bits(client.0 - 1);
    let by_sum = SUM_BITS - bits(total.0);
    Ok(by_client.min(by_sum) - range_exponent)
}

/// The least `e` with `2^e >= value`; `None` unless `value` is a normal positive number.
fn power_of_two_above(value: f64) -> Option<i32> {
    if !(value.is_normal() && value > 0.0) {
        return None;
    }
    let (fraction, exponent) = libm::frexp(value);
    Some(if fraction > 0.5 {
        exponent
    } else {
        exponent - 1
    })
}

fn power_of_two(exponent: i32) -> f64 {
    libm::ldexp(1.0, exponent)
}
