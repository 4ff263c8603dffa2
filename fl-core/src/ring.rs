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
    /// Every value would be rounded to zero or clamped.
    #[error("the resolution {resolution} is coarser than the range {range}; lower the resolution")]
    TooCoarse {
        /// The resolution asked for.
        resolution: f64,
        /// The range asked for.
        range: f64,
    },
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
    /// Not even single units of weight fit into the bits asked for.
    #[error(
        "sums of updates of range {range} with weights up to {} do not fit into {bits} bits, of which \
         they need at least {least}; lower the range or the weights, or give more bits", weights.total
    )]
    TooFewBits {
        /// The bits asked for.
        bits: u32,
        /// The range, as the power of two that it was raised to.
        range: f64,
        /// The weights.
        weights: WeightBounds,
        /// The fewest bits for them, at a resolution of 1.
        least: u32,
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
        let range_exponent = exponent_of(range)?;
        let fraction_bits = power_of_two_above(1.0 / resolution)
            .filter(|bits| (0..=60).contains(bits))
            .ok_or(RingError::Resolution(resolution))?;
        if range_exponent + fraction_bits < 0 {
            return Err(RingError::TooCoarse { resolution, range });
        }
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
    /// [`RingError::Weights`] or, for sums of weights of `2^57` and more, [`RingError::TooFine`].
    pub fn for_weights(weights: WeightBounds) -> Result<Self, RingError> {
        Self::in_range(weights, DEFAULT_RANGE)
    }

    /// A plan for values within `±range` at [`DEFAULT_RESOLUTION`] or, for weights too large for it,
    /// the finest that fits.
    ///
    /// # Errors
    /// [`RingError::Range`], [`RingError::Weights`] or, where not even a resolution of 1 fits,
    /// [`RingError::TooFine`].
    pub fn in_range(weights: WeightBounds, range: f64) -> Result<Self, RingError> {
        let finest = finest_fraction(weights, exponent_of(range)?)?;
        let wanted = power_of_two_above(1.0 / DEFAULT_RESOLUTION).unwrap_or_default();
        Self::new(weights, range, power_of_two(-wanted.min(finest.max(0))))
    }

    /// The finest plan for values within `±range` whose sums have at most `bits` bits, so that what a
    /// masked value weighs and costs is chosen in place of its resolution. Up to 32 bits secure
    /// aggregation computes with words of 32.
    ///
    /// # Errors
    /// [`RingError::Range`], [`RingError::Weights`] or [`RingError::TooFewBits`].
    pub fn with_bits(weights: WeightBounds, range: f64, bits: u32) -> Result<Self, RingError> {
        let exponent = exponent_of(range)?;
        let finest = finest_fraction(weights, exponent)?;
        // `bits` counts the sign; the sum of weights takes its own.
        let of_weights = (u64::BITS - weights.total.0.leading_zeros()).cast_signed();
        let fraction = bits.min(64).cast_signed() - 1 - of_weights - exponent;
        let fraction = fraction.min(finest).min(60);
        if fraction < 0 || fraction + exponent < 0 {
            let least = 1 + of_weights + exponent.max(0);
            return Err(RingError::TooFewBits {
                bits,
                range: power_of_two(exponent),
                weights,
                least: least.cast_unsigned(),
            });
        }
        Self::new(weights, range, power_of_two(-fraction))
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

    /// The largest absolute value of the integers of updates with weights of sum `weight`, at most
    /// the plan's total.
    #[must_use]
    pub fn largest(&self, weight: Weight) -> u64 {
        // A plan has no negative shift, and at most 51.
        weight.0 << (self.range_exponent + self.fraction_bits)
    }

    /// A bound for the error of a weighted mean that no saturation touched: `n 2^-(f+1) / W`.
    /// (Decoding adds the roundings of an `f64` division and, beyond `2^53`, of its operands.)
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
        sign_extended(element, self.bits())
    }

    /// Adds (or takes away again) the integers of `update`: the one hot loop of aggregation.
    ///
    /// A value that is not finite counts as one at the end of the range, so that adding and
    /// taking away cancel for it, too.
    pub(crate) fn accumulate<const SUBTRACT: bool>(
        &self,
        sum: &mut [i64],
        update: &[f32],
        weight: Weight,
    ) -> Scan {
        let range = self.range() as f32;
        let scale = weight.0 as f64 * self.scale();
        let mut scan = Scan {
            saturated: 0,
            non_finite: false,
        };
        let (sums, last_sums) = sum.as_chunks_mut::<LANES>();
        let (updates, last_updates) = update.as_chunks::<LANES>();
        for (sums, updates) in sums.iter_mut().zip(updates) {
            add::<SUBTRACT>(sums, updates, range, scale, &mut scan);
        }
        if !last_updates.is_empty() {
            // Zeros add nothing.
            let mut sums = [0; LANES];
            let mut updates = [0.0; LANES];
            updates[..last_updates.len()].copy_from_slice(last_updates);
            add::<SUBTRACT>(&mut sums, &updates, range, scale, &mut scan);
            for (sum, last) in last_sums.iter_mut().zip(sums) {
                *sum = sum.wrapping_add(last);
            }
        }
        scan
    }

    fn scale(&self) -> f64 {
        power_of_two(self.fraction_bits)
    }
}

const LANES: usize = 16;

/// Adds `round(scale * clamp(update))` to each sum.
#[inline(always)]
fn add<const SUBTRACT: bool>(
    sums: &mut [i64; LANES],
    updates: &[f32; LANES],
    range: f32,
    scale: f64,
    scan: &mut Scan,
) {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut clamped = [0f32; LANES];
    let mut odd = 0u32;
    // One loop per width of number, so that each fills whole registers.
    for (clamped, &value) in clamped.iter_mut().zip(updates) {
        // In this form a NaN becomes `range`, and each line is one instruction.
        let below = if value < range { value } else { range };
        *clamped = if below > -range { below } else { -range };
        odd |= clamped.to_bits() ^ value.to_bits();
    }
    for (sum, clamped) in sums.iter_mut().zip(clamped) {
        let rounded = f64::from(clamped) * scale + ROUNDER;
        let integer = (rounded.to_bits() as i64).wrapping_sub(ROUNDER_BITS);
        *sum = if SUBTRACT {
            sum.wrapping_sub(integer)
        } else {
            sum.wrapping_add(integer)
        };
    }
    if odd != 0 {
        // Rare: something was clamped, infinities and NaN among it.
        for (clamped, value) in clamped.iter().zip(updates) {
            scan.saturated += u64::from(clamped.to_bits() != value.to_bits());
            scan.non_finite |= value.to_bits() & EXPONENT == EXPONENT;
        }
    }
}

/// The integer of `[-2^(b-1), 2^(b-1))` that an element of `Z_2^b` stands for; `b` from 1 to 64.
pub(crate) fn sign_extended(element: u64, bits: u32) -> i64 {
    let unused = 64 - bits;
    (element << unused).cast_signed() >> unused
}

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

/// The exponent of the power of two that a range is raised to.
fn exponent_of(range: f64) -> Result<i32, RingError> {
    power_of_two_above(range)
        .filter(|exponent| RANGE_EXPONENTS.contains(exponent))
        .ok_or(RingError::Range(range))
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

/// `2^exponent`, for the small exponents of plans.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(client: u64, total: u64) -> WeightBounds {
        WeightBounds {
            client: Weight(client),
            total: Weight(total),
        }
    }

    /// `(client, total, range, bits) -> (range, fraction bits, bits)`
    #[test]
    fn plans_of_so_many_bits_are_the_finest() {
        for ((client, total, range, bits), (raised, fraction, taken)) in [
            // 1023 of 1 at 2^0: 10 bits and the sign.
            ((1, 1023, 1.0, 11), (1.0, 0, 11)),
            ((1, 1024, 1.0, 12), (1.0, 0, 12)),
            ((24, 4800, 64.0, 32), (64.0, 12, 32)),
            ((24, 4800, 3.0, 24), (4.0, 8, 24)),
            ((24, 4800, 0.25, 24), (0.25, 12, 24)),
            ((1, 200, 1.0, 20), (1.0, 11, 20)),
            // No more than a client's integers and doubles hold.
            ((1, 3, 1.0, 64), (1.0, 51, 54)),
            ((1, 3, 1.0, 200), (1.0, 51, 54)),
        ] {
            let plan = RingPlan::with_bits(bounds(client, total), range, bits).unwrap();
            let found = (plan.range(), plan.fraction_bits(), plan.bits());
            assert_eq!(
                found,
                (raised, fraction, taken),
                "{client} {total} {range} {bits}"
            );
        }
        for (client, total, range, bits, message) in [
            (
                1,
                1024,
                1.0,
                11,
                "sums of updates of range 1 with weights up to 1024 do not fit into 11 bits, of which they need at least 12; lower the range or the weights, or give more bits",
            ),
            (
                24,
                4800,
                64.0,
                16,
                "sums of updates of range 64 with weights up to 4800 do not fit into 16 bits, of which they need at least 20; lower the range or the weights, or give more bits",
            ),
            (
                1,
                1,
                -1.0,
                16,
                "the range of an update is -1; expected a number between 2^-40 and 2^40",
            ),
        ] {
            let error = RingPlan::with_bits(bounds(client, total), range, bits).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    /// `(client, total, range, resolution) -> (range, fraction bits, bits)`
    #[test]
    fn plans_are_as_computed_by_hand() {
        let cases = [
            // 1 * 1 * 2^0: three values, two bits.
            ((1, 1, 1.0, 1.0), (1.0, 0, 2)),
            ((1, 3, 1.0, 1.0), (1.0, 0, 3)),
            ((1, 4, 1.0, 1.0), (1.0, 0, 4)),
            ((1, 100, 5.0, 0.01), (8.0, 7, 18)),
            (
                (600, 60_000, 64.0, 1.0 / (1u64 << 32) as f64),
                (64.0, 32, 55),
            ),
            // The smaller of 51 - 6 - 20 and 63 - 6 - 30.
            (
                (1 << 20, (1 << 30) - 1, 64.0, 1.0 / (1 << 25) as f64),
                (64.0, 25, 62),
            ),
            ((1, 1 << 56, 64.0, 1.0), (64.0, 0, 64)),
        ];
        for ((client, total, range, resolution), expected) in cases {
            let plan = RingPlan::new(bounds(client, total), range, resolution).unwrap();
            assert_eq!(
                (plan.range(), plan.fraction_bits(), plan.bits()),
                expected,
                "{plan:?}"
            );
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<RingPlan>(&text).unwrap(), plan);
        }
    }

    #[test]
    fn impossible_plans_are_refused() {
        let fine = DEFAULT_RESOLUTION;
        let cases = [
            (bounds(1, 1), 0.0, fine, "the range of an update is 0;"),
            (
                bounds(1, 1),
                f64::NAN,
                fine,
                "the range of an update is NaN;",
            ),
            (
                bounds(1, 1),
                1e30,
                fine,
                "the range of an update is 1000000000000000000000000000000;",
            ),
            (bounds(1, 1), 1.0, 0.0, "the resolution of an update is 0;"),
            (
                bounds(1, 1),
                1.0,
                -1.0,
                "the resolution of an update is -1;",
            ),
            (
                bounds(1, 1),
                1.0,
                1e-30,
                "the resolution of an update is 0.000000000000000000000000000001;",
            ),
            (
                bounds(1, 1),
                0.25,
                0.5,
                "the resolution 0.5 is coarser than the range 0.25;",
            ),
            (
                bounds(0, 1),
                1.0,
                fine,
                "the largest weight of a client is 0 and the largest sum 1;",
            ),
            (
                bounds(2, 1),
                1.0,
                fine,
                "the largest weight of a client is 2 and the largest sum 1;",
            ),
            (
                bounds((1 << 29) + 1, 1 << 40),
                1.0,
                fine,
                "the largest weight of a client is 536870913",
            ),
            (
                bounds(1 << 20, 1 << 30),
                64.0,
                fine,
                "updates of range 64 at resolution 0.00000000023283064365386963 with weights up to \
                 1048576 and sums up to 1073741824 do not fit into 64 bits; lower the range or the \
                 weights, or raise the resolution to 0.000000029802322387695313",
            ),
        ];
        for (weights, range, resolution, message) in cases {
            let error = RingPlan::new(weights, range, resolution)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let text = r#"{"weights":{"client":0,"total":1},"range":1.0,"resolution":1.0}"#;
        assert!(serde_json::from_str::<RingPlan>(text).is_err());
    }

    #[test]
    fn the_default_is_fine_and_gives_way_to_large_weights() {
        let fraction = |client, total| {
            let plan = RingPlan::for_weights(bounds(client, total)).unwrap();
            plan.fraction_bits()
        };
        assert_eq!(fraction(1, 1), 32);
        assert_eq!(fraction(6000, 10_000_000), 32);
        assert_eq!(fraction(1 << 29, 1 << 39), 16);
        assert!(RingPlan::for_weights(bounds(1, 1 << 58)).is_err());
        assert_eq!(
            RingPlan::for_weights(bounds(1, (1 << 57) - 1))
                .unwrap()
                .bits(),
            64
        );
    }

    /// The definition, in integers: `value = mantissa * 2^exponent`.
    fn oracle(value: f32, weight: u64, plan: &RingPlan) -> i64 {
        let clamped = f64::from(value).clamp(-plan.range(), plan.range()) as f32;
        let bits = clamped.to_bits();
        let raw = i128::from(bits & 0x007f_ffff);
        let field = (bits >> 23 & 0xff).cast_signed();
        let (mantissa, exponent) = match field {
            0 => (raw, -149),
            _ => (raw | 1 << 23, field - 150),
        };
        let magnitude = mantissa * i128::from(weight);
        let shift = exponent + plan.fraction_bits().cast_signed();
        let rounded = if shift >= 0 {
            magnitude << shift
        } else if shift < -100 {
            0
        } else {
            let half = 1i128 << (-shift - 1);
            let floor = magnitude >> -shift;
            let rest = magnitude - (floor << -shift);
            floor + i128::from(rest > half || (rest == half && floor & 1 == 1))
        };
        let signed = if bits >> 31 == 1 { -rounded } else { rounded };
        i64::try_from(signed).unwrap()
    }

    fn any_plan() -> impl Strategy<Value = RingPlan> {
        (0u32..=29, 0u64..=1 << 20, -10i32..=10, 0i32..=40).prop_filter_map(
            "does not fit",
            |(client, extra, range, fraction)| {
                let client = 1u64 << client;
                let weights = bounds(client, client + extra);
                RingPlan::new(weights, power_of_two(range), power_of_two(-fraction)).ok()
            },
        )
    }

    fn any_value() -> impl Strategy<Value = f32> {
        prop_oneof![
            any::<f32>().prop_filter("finite", |value| value.is_finite()),
            -2000.0f32..2000.0,
            -1.0f32..1.0,
            // Halves, to be rounded to even.
            (-4096i32..4096).prop_map(|n| n as f32 / 2.0),
            (-4096i32..4096).prop_map(|n| n as f32 / 8192.0),
        ]
    }

    proptest! {
        #[test]
        fn encoding_is_its_definition(
            plan in any_plan(),
            update in proptest::collection::vec(any_value(), 1..60),
            share in 0.0f64..=1.0,
        ) {
            let most = plan.weights().client.0;
            let weight = Weight(((share * most as f64) as u64).clamp(1, most));
            let mut encoded = vec![0; update.len()];
            let saturated = plan.encode(&update, weight, &mut encoded).unwrap();
            let beyond = update.iter().filter(|v| f64::from(v.abs()) > plan.range()).count();
            prop_assert_eq!(saturated, beyond as u64);
            for (&value, &integer) in update.iter().zip(&encoded) {
                prop_assert_eq!(integer, oracle(value, weight.0, &plan), "{}", value);
                prop_assert!(integer.unsigned_abs() <= plan.largest(weight));
                prop_assert_eq!(plan.from_ring(plan.to_ring(integer)), integer);
                if f64::from(value.abs()) <= plan.range() {
                    let off = (plan.decode_mean(integer, weight) - f64::from(value)).abs();
                    let rounding = f64::from(value.abs()) * f64::EPSILON;
                    let error = plan.mean_error(1, weight);
                    prop_assert!(off <= error + rounding, "{} is off by {}", value, off);
                }
            }
            // Adding and taking away again leaves nothing, whatever the values are.
            let mut odd = update;
            odd[0] = f32::NAN;
            let mut sum = encoded.clone();
            prop_assert!(plan.accumulate::<false>(&mut sum, &odd, weight).non_finite);
            plan.accumulate::<true>(&mut sum, &odd, weight);
            prop_assert_eq!(sum, encoded);
        }

        /// No sum within the plan's weights leaves the ring, and the ring is no larger than that
        /// needs.
        #[test]
        fn sums_cannot_overflow(plan in any_plan()) {
            let largest = i128::from(plan.largest(plan.weights().total));
            let half = 1i128 << (plan.bits() - 1);
            prop_assert!(plan.bits() <= 64);
            prop_assert!(largest < half);
            prop_assert!(largest >= half / 2);
            let total = i128::from(plan.weights().total.0);
            let exact = total << plan.fraction_bits();
            let range = plan.range();
            let exact = if range < 1.0 { exact / (1.0 / range) as i128 } else { exact * range as i128 };
            prop_assert_eq!(largest, exact);
        }

        /// Adding in `Z_2^b` and lifting the sum is adding integers.
        #[test]
        fn the_ring_holds_sums(plan in any_plan(), parts in proptest::collection::vec(-1.0f64..=1.0, 1..20)) {
            let largest = plan.largest(plan.weights().total) as f64 / parts.len() as f64;
            let parts: Vec<i64> = parts.iter().map(|part| (part * largest * 0.999) as i64).collect();
            let in_ring = parts.iter().fold(0u64, |sum, &part| sum.wrapping_add(plan.to_ring(part)));
            let masked = plan.to_ring(in_ring.cast_signed());
            prop_assert_eq!(plan.from_ring(masked), parts.iter().sum::<i64>());
        }
    }

    #[test]
    fn values_that_are_not_finite_are_found_anywhere() {
        let plan = RingPlan::for_weights(bounds(5, 10)).unwrap();
        for len in [1, 15, 16, 17, 33] {
            for place in 0..len {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut update = vec![0.5; len];
                    update[place] = bad;
                    let encoded = plan.encode(&update, Weight(5), &mut vec![0; len]);
                    assert_eq!(encoded, None, "{bad} at {place} of {len}");
                }
            }
        }
    }
}
