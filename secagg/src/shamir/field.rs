//! Prime fields to share secrets in.

use rand_core::CryptoRng;
use subtle::{Choice, ConditionallySelectable};
use zeroize::{DefaultIsZeroes, Zeroize};

/// A prime field.
pub(crate) trait Field: Copy + PartialEq + Zeroize + core::fmt::Debug {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Difference.
    fn sub(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;
    /// The inverse; of 0 it is 0.
    fn invert(self) -> Self;
    /// A uniform element.
    fn random(rng: &mut impl CryptoRng) -> Self;
    /// A place modulo the field's order.
    fn reduce(place: u64) -> u64;
    /// The element at a place.
    fn from_place(place: u64) -> Self;
}

/// The Mersenne prime `2^61 - 1`.
const P: u64 = (1 << 61) - 1;

/// An element of the field of `2^61 - 1` elements, always reduced.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct F61(u64);

impl DefaultIsZeroes for F61 {}

impl core::fmt::Debug for F61 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("F61(..)")
    }
}

impl F61 {
    /// None when `value` is not reduced.
    pub(crate) fn new(value: u64) -> Option<Self> {
        (value < P).then_some(Self(value))
    }

    /// The value, from 0 to `2^61 - 2`.
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

/// Below `2p` to below `p`.
fn reduce_once(value: u64) -> u64 {
    let reduced = value.wrapping_sub(P);
    // The top bit says that it was below p.
    u64::conditional_select(&reduced, &value, Choice::from((reduced >> 63) as u8))
}

impl Field for F61 {
    const ZERO: Self = Self(0);
    const ONE: Self = Self(1);

    fn add(self, other: Self) -> Self {
        Self(reduce_once(self.0 + other.0))
    }

    fn sub(self, other: Self) -> Self {
        Self(reduce_once(self.0 + P - other.0))
    }

    fn mul(self, other: Self) -> Self {
        let wide = u128::from(self.0) * u128::from(other.0);
        // 2^61 is 1, so the high part is added to the low part.
        Self(reduce_once((wide as u64 & P) + (wide >> 61) as u64))
    }

    fn invert(self) -> Self {
        // To the power p - 2 (Fermat), whose bits are all 1 but that of 2.
        let mut power = Self::ONE;
        for bit in (0..61).rev() {
            power = power.mul(power);
            if (P - 2) >> bit & 1 == 1 {
                power = power.mul(self);
            }
        }
        power
    }

    fn random(rng: &mut impl CryptoRng) -> Self {
        loop {
            let value = rng.next_u64() >> 3;
            if value < P {
                return Self(value);
            }
        }
    }

    fn reduce(place: u64) -> u64 {
        place % P
    }

    fn from_place(place: u64) -> Self {
        Self(place % P)
    }
}
