//! Scale and zero point of an activation.

#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;
use serde::{Deserialize, Serialize};

use super::error::QuantError;

/// What values were seen, or are to be representable: `min..=max`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

impl Range {
    /// This range, cut where it is beyond `other`.
    #[must_use]
    pub(super) fn within(self, other: Self) -> Self {
        Self {
            min: self.min.max(other.min),
            max: self.max.min(other.max),
        }
    }
}

/// Scale `s` and zero point `z` of an activation: `x = s (q - z)` with `q` in `0..=255`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct QParams {
    scale: f32,
    zero_point: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    scale: f32,
    zero_point: u8,
}

impl TryFrom<Stored> for QParams {
    type Error = QuantError;

    fn try_from(stored: Stored) -> Result<Self, QuantError> {
        Self::new(stored.scale, stored.zero_point)
    }
}

impl From<QParams> for Stored {
    fn from(params: QParams) -> Self {
        Self {
            scale: params.scale,
            zero_point: params.zero_point,
        }
    }
}

/// `1.5 * 2^23`: added to a number within `±2^22`, it rounds that to an integer, half to even, and
/// leaves the integer in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// `value`, within `±2^22`, rounded to an integer, half to even. Unlike `round_ties_even` it needs
/// no instruction beyond an addition, so loops over it become vector code on every machine.
#[inline(always)]
pub(super) fn round(value: f32) -> i32 {
    (value + ROUNDER)
        .to_bits()
        .wrapping_sub(ROUNDER.to_bits())
        .cast_signed()
}

/// `value` clamped; `low` where it is not a number.
#[inline(always)]
pub(super) fn bound(value: f32, low: f32, high: f32) -> f32 {
    value.max(low).min(high)
}

impl QParams {
    /// These two.
    ///
    /// # Errors
    /// [`QuantError::Scale`] unless the scale is a positive normal number.
    pub fn new(scale: f32, zero_point: u8) -> Result<Self, QuantError> {
        if !(scale.is_normal() && scale > 0.0) {
            return Err(QuantError::Scale(scale));
        }
        Ok(Self { scale, zero_point })
    }

    /// The parameters whose integers cover a range, widened to hold 0:
    /// `s = (max - min) / 255`, `z = round(-min / s)`, both from `f64` before `s` is rounded to
    /// `f32`. A range of 0 alone has scale 1 and zero point 0. Of an infinite end the largest
    /// finite number is taken, of one that is not a number 0.
    ///
    /// # Source
    /// onnxruntime 1.31.1, `quantization.quant_utils.compute_scale_zp` for `uint8`.
    #[must_use]
    pub fn from_range(range: Range) -> Self {
        // `min` and `max` pass over a NaN.
        let min = f64::from(bound(range.min.min(0.0), f32::MIN, 0.0));
        let max = f64::from(bound(range.max.max(0.0), 0.0, f32::MAX));
        let scale = (max - min) / 255.0;
        if scale < f64::from(f32::MIN_POSITIVE) {
            return Self {
                scale: 1.0,
                zero_point: 0,
            };
        }
        Self {
            scale: scale as f32,
            zero_point: (-min / scale).round_ties_even() as u8,
        }
    }

    /// The scale `s`, positive and normal.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The zero point `z`: the integer of 0.
    #[must_use]
    pub fn zero_point(&self) -> u8 {
        self.zero_point
    }

    /// `clamp(round(x / s) + z, 0, 255)`, half to even. What is not a number becomes 0, the lowest
    /// integer.
    ///
    /// # Source
    /// ONNX, operator `QuantizeLinear`.
    #[must_use]
    #[inline]
    pub fn quantize(&self, x: f32) -> u8 {
        let zero_point = f32::from(self.zero_point);
        // Clamping first changes nothing, as the bounds are integers.
        let steps = bound(x / self.scale, -zero_point, 255.0 - zero_point);
        (round(steps) + i32::from(self.zero_point)) as u8
    }

    /// `s (q - z)`.
    #[must_use]
    #[inline]
    pub fn dequantize(&self, q: u8) -> f32 {
        (i32::from(q) - i32::from(self.zero_point)) as f32 * self.scale
    }

    /// The real numbers of the integers 0 and 255.
    #[must_use]
    pub fn range(&self) -> Range {
        Range {
            min: self.dequantize(0),
            max: self.dequantize(u8::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `(min, max) -> (scale, zero point)`, by onnxruntime 1.31.1's `compute_scale_zp`:
    /// `f = np.float32; q = np.uint8; compute_scale_zp(f(min), f(max), q(0), q(255))`.
    #[test]
    fn ranges_give_the_scales_of_onnxruntime() {
        let cases = [
            (0.0, 0.0, 1.0, 0),
            (-1.0, 1.0, 0.007_843_138, 128),
            (0.0, 1.0, 0.003_921_569, 0),
            (0.1, 1.0, 0.003_921_569, 0),
            (-1.0, -0.1, 0.003_921_569, 255),
            (-0.3, 2.7, 0.011_764_706, 26),
            (-2.118, 2.64, 0.018_658_824, 114),
            (-1e-38, 1e-38, 1.0, 0),
            (-1.0, 0.007_905_139, 0.003_952_569_3, 253),
            (f32::MIN, f32::MAX, 2.668_881e36, 128),
        ];
        for (min, max, scale, zero_point) in cases {
            let params = QParams::from_range(Range { min, max });
            let expected = QParams::new(scale, zero_point).unwrap();
            assert_eq!(params, expected, "{min}..{max}");
        }
    }

    #[test]
    fn odd_ranges_still_give_usable_numbers() {
        let whole = QParams::from_range(Range {
            min: f32::NEG_INFINITY,
            max: f32::INFINITY,
        });
        assert!(whole.scale().is_finite());
        let nothing = QParams::from_range(Range {
            min: f32::NAN,
            max: f32::NAN,
        });
        assert_eq!(nothing, QParams::new(1.0, 0).unwrap());
        let upside_down = QParams::from_range(Range {
            min: 3.0,
            max: -3.0,
        });
        assert_eq!(upside_down, QParams::new(1.0, 0).unwrap());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
            assert!(QParams::new(scale, 3).is_err(), "{scale}");
        }
        let params = QParams::new(0.5, 10).unwrap();
        let odd = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -5.25, -4.75];
        assert_eq!(odd.map(|x| params.quantize(x)), [0, 0, 255, 0, 0]);
        // Half to even: 0.5 and 1.5 steps.
        assert_eq!([0.25, 0.75].map(|x| params.quantize(x)), [10, 12]);
    }

    #[test]
    fn parameters_are_checked_when_read() {
        let read = |text: &str| toml::from_str::<QParams>(text).map_err(|e| e.to_string());
        let params = QParams::new(0.1, 7).unwrap();
        assert_eq!(read("scale = 0.1\nzero_point = 7"), Ok(params));
        assert_eq!(read(&toml::to_string(&params).unwrap()), Ok(params));
        for bad in ["scale = 0.0\nzero_point = 7", "scale = nan\nzero_point = 7"] {
            assert!(read(bad).unwrap_err().contains("positive normal"), "{bad}");
        }
        assert!(read("scale = 0.1\nzero_point = 256").is_err());
    }

    fn any_range() -> impl Strategy<Value = Range> {
        (-1e3f32..1e3, -1e3f32..1e3, -20i32..20).prop_map(|(a, b, exponent)| {
            let unit = (exponent as f32).exp2();
            Range {
                min: a.min(b) * unit,
                max: a.max(b) * unit,
            }
        })
    }

    proptest! {
        /// Zero is exact, every value of the range is within half a step, and the integers round
        /// trip.
        #[test]
        fn integers_cover_the_range(range in any_range(), share in 0.0f32..=1.0) {
            let params = QParams::from_range(range);
            prop_assert_eq!(params.quantize(0.0), params.zero_point());
            for q in 0..=u8::MAX {
                prop_assert_eq!(params.quantize(params.dequantize(q)), q);
            }
            let x = range.min + share * (range.max - range.min);
            let steps = f64::from(params.dequantize(params.quantize(x)) - x) / f64::from(params.scale());
            // The ends may be cut by the rounding of the zero point.
            prop_assert!(steps.abs() <= 0.5 + 0.501, "{} steps", steps);
            let inside = x > params.range().min && x < params.range().max;
            prop_assert!(!inside || steps.abs() <= 0.501, "{} steps", steps);
        }

        #[test]
        fn rounding_is_half_to_even(halves in -(1i32 << 23)..1 << 23, value in -4e6f32..4e6) {
            for value in [halves as f32 / 2.0, value] {
                prop_assert_eq!(round(value), value.round_ties_even() as i32);
            }
        }
    }
}
