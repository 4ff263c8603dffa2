//! Filters of one channel each, in eight bits.
//!
//! Beside weights of four bits ([`FourBits`](super::FourBits)) the filters of a depthwise convolution
//! have eight: a filter has so few terms (nine in a window of 3x3) that no group of them averages its
//! rounding away, and such layers are known to be the sensitive ones. `docs/quantization.md` has what
//! four bits cost them instead.
//!
//! A filter has a scale, `max abs(w) / 127` rounded to a 16-bit float, and a weight is a code from
//! -127 to 127 times it, which is exact in `f32`.
//!
//! # Source
//! A scale per channel: Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.

use alloc::borrow::ToOwned as _;
use alloc::vec;
use alloc::vec::Vec;

use super::error::QuantError;
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;
use crate::kernel::{f16_to_f32, f32_to_f16};

/// A weight in codes of eight bits with a scale for each column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight8 {
    /// `[terms, columns]`
    codes: Vec<i8>,
    /// `[columns]`, bits of binary16.
    scales: Vec<u16>,
}

impl Weight8 {
    /// A weight `[terms, columns]` with codes rounded to the nearest, half to even.
    ///
    /// # Errors
    /// [`QuantError::GroupScale`] when a scale is beyond 16-bit floats; `name` is for its message.
    ///
    /// # Panics
    /// When `weight` is not of `columns` whole columns.
    pub fn nearest(name: &str, columns: usize, weight: &[f32]) -> Result<Self, QuantError> {
        assert!(columns > 0 && weight.len().is_multiple_of(columns));
        let mut made = Self {
            codes: vec![0; weight.len()],
            scales: vec![0; columns],
        };
        for column in 0..columns {
            let terms = weight.iter().skip(column).step_by(columns);
            let largest = terms.clone().fold(0f32, |most, w| most.max(w.abs()));
            let wide = largest / 127.0;
            let half = f32_to_f16(wide);
            let scale = f16_to_f32(half);
            if !scale.is_finite() {
                return Err(QuantError::GroupScale {
                    tensor: name.to_owned(),
                    value: wide,
                });
            }
            made.scales[column] = half;
            if scale > 0.0 {
                let codes = made.codes.iter_mut().skip(column).step_by(columns);
                for (code, w) in codes.zip(terms) {
                    *code = (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
                }
            }
        }
        Ok(made)
    }

    /// The codes, `[terms, columns]`, from -127 to 127.
    #[must_use]
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The scales of the columns, as the bits of 16-bit floats.
    #[must_use]
    pub fn scales(&self) -> &[u16] {
        &self.scales
    }

    /// The weight that the codes stand for, `[terms, columns]`.
    #[must_use]
    pub fn dequantized(&self) -> Vec<f32> {
        let scales = self.scales.iter().cycle();
        let pairs = self.codes.iter().zip(scales);
        pairs
            .map(|(&code, &scale)| f32::from(code) * f16_to_f32(scale))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Worked by hand: scales of 2 and of a quarter, a tie that goes to the even code.
    #[test]
    fn codes_by_hand() {
        let weight = [254.0, -31.75, 3.0, 0.375, -5.0, 0.0, 127.0, 31.75];
        let made = Weight8::nearest("w", 2, &weight).expect("small");
        assert_eq!(made.codes(), [127, -127, 2, 2, -2, 0, 64, 127]);
        assert_eq!(made.scales(), [0x4000, 0x3400]);
        let back = [254.0, -31.75, 4.0, 0.5, -4.0, 0.0, 128.0, 31.75];
        assert_eq!(made.dequantized().as_slice(), back);
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_too_large_is_refused() {
        let made = Weight8::nearest("w", 1, &[0.0, -1e-20, 0.0]).expect("small");
        assert_eq!(made.dequantized().as_slice(), [0.0; 3]);
        let error = Weight8::nearest("far.weight", 1, &[1e7]).expect_err("no 16-bit float");
        assert!(error.to_string().contains("far.weight"), "{error}");
    }

    proptest! {
        /// Half a step from the weight, and what rounding the scale took away from 127 of them.
        #[test]
        fn weights_are_within_half_a_step(
            weight in proptest::collection::vec(-3.0f32..3.0, 45),
            columns in prop_oneof![Just(1usize), Just(5), Just(9)],
        ) {
            let made = Weight8::nearest("w", columns, &weight).expect("small");
            for (at, (w, b)) in weight.iter().zip(made.dequantized()).enumerate() {
                let scale = f16_to_f32(made.scales()[at % columns]);
                prop_assert!((w - b).abs() <= scale * (0.5 + 127.0 / 2048.0), "{} for {}", b, w);
            }
        }
    }
}
