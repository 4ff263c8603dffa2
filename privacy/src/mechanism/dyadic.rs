//! Parameters of exact samplers: fractions whose denominator is a power of two.

use crate::error::PrivacyError;

/// `numerator / 2^shift`, with a numerator of at most 41 bits and `shift <= 24`, so that the
/// products in the samplers fit into 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dyadic {
    pub(super) numerator: u64,
    pub(super) shift: u32,
}

/// The smallest and the largest value.
pub(super) const SMALLEST: f64 = 1.0 / 4096.0;
pub(super) const LARGEST: f64 = (1u64 << 40) as f64;

impl Dyadic {
    /// The least such fraction that is at least `value`: relatively at most `2^-36` above it
    /// when `value >= 2^12`, at most `2^-24` absolutely below that.
    pub(super) fn at_least(what: &'static str, value: f64) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            (SMALLEST..=LARGEST).contains(&value),
            what,
            value,
            "a number between 2^-12 and 2^40",
        )?;
        let (_, exponent) = libm::frexp(value);
        let shift = (37 - exponent).clamp(0, 24).unsigned_abs();
        let numerator = libm::ceil(value * (1u64 << shift) as f64) as u64;
        Ok(Self { numerator, shift })
    }

    pub(super) fn value(self) -> f64 {
        self.numerator as f64 / (1u64 << self.shift) as f64
    }

    pub(super) fn denominator(self) -> u64 {
        1 << self.shift
    }

    /// `floor(sqrt(self))`.
    pub(super) fn floor_sqrt(self) -> u64 {
        (self.numerator >> self.shift).isqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_just_above_their_value() {
        for value in [
            SMALLEST,
            0.1,
            1.0 / 3.0,
            1.0,
            2.0,
            5.5,
            1e4 / 7.0,
            1e9 / 7.0,
            LARGEST,
        ] {
            let fraction = Dyadic::at_least("x", value).unwrap();
            let above = fraction.value() - value;
            assert!(above >= 0.0, "{value}");
            assert!(
                above <= f64::max(1.0 / (1 << 24) as f64, value / (1u64 << 36) as f64),
                "{value}"
            );
            assert!(fraction.numerator < 1 << 41);
            assert_eq!(fraction.floor_sqrt(), libm::sqrt(fraction.value()) as u64);
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e13, 1e-5] {
            assert!(Dyadic::at_least("x", bad).is_err(), "{bad}");
        }
    }
}
