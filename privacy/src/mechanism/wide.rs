//! Non-negative integers of 512 bits, for tables that are exact beyond the 53 bits of an `f64`.
//! Only what [`table`](super::table) needs; every caller knows that its numbers fit.

use core::cmp::Ordering;

const LIMBS: usize = 8;

/// Least significant limb first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide([u64; LIMBS]);

impl Wide {
    pub(super) const ZERO: Self = Self([0; LIMBS]);

    /// `value * 2^(64 limb)`.
    pub(super) fn at_limb(value: u128, limb: usize) -> Self {
        let mut limbs = [0; LIMBS];
        for (limb, part) in limbs[limb..]
            .iter_mut()
            .zip([value as u64, (value >> 64) as u64])
        {
            *limb = part;
        }
        Self(limbs)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0 == [0; LIMBS]
    }

    /// The position of the highest set bit plus one; 0 for zero.
    pub(super) fn bits(&self) -> u32 {
        let top = self.0.iter().rposition(|&limb| limb != 0);
        top.map_or(0, |top| 64 * (top as u32 + 1) - self.0[top].leading_zeros())
    }

    pub(super) fn low_u128(&self) -> u128 {
        u128::from(self.0[1]) << 64 | u128::from(self.0[0])
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        let mut sum = *self;
        let mut carry = false;
        for (limb, other) in sum.0.iter_mut().zip(other.0) {
            let (first, over) = limb.overflowing_add(other);
            let (second, again) = first.overflowing_add(u64::from(carry));
            *limb = second;
            carry = over | again;
        }
        debug_assert!(!carry, "a sum does not fit into 512 bits");
        sum
    }

    /// `self - other`, for `self >= other`.
    pub(super) fn minus(&self, other: &Self) -> Self {
        let mut difference = *self;
        let mut borrow = false;
        for (limb, other) in difference.0.iter_mut().zip(other.0) {
            let (first, under) = limb.overflowing_sub(other);
            let (second, again) = first.overflowing_sub(u64::from(borrow));
            *limb = second;
            borrow = under | again;
        }
        debug_assert!(!borrow, "a difference is negative");
        difference
    }

    pub(super) fn times_small(&self, factor: u64) -> Self {
        let mut carry = 0u128;
        let limbs = self.0.map(|limb| {
            carry += u128::from(limb) * u128::from(factor);
            let low = carry as u64;
            carry >>= 64;
            low
        });
        debug_assert!(carry == 0, "a product does not fit into 512 bits");
        Self(limbs)
    }

    /// `floor(self / divisor)`.
    pub(super) fn over_small(&self, divisor: u64) -> Self {
        let mut rest = 0u128;
        let mut quotient = [0; LIMBS];
        for (quotient, &limb) in quotient.iter_mut().zip(&self.0).rev() {
            let dividend = rest << 64 | u128::from(limb);
            *quotient = (dividend / u128::from(divisor)) as u64;
            rest = dividend % u128::from(divisor);
        }
        Self(quotient)
    }

    /// `floor(self * other / 2^shift)`, for a result of at most 512 bits.
    pub(super) fn times_shifted(&self, other: &Self, shift: u32) -> Self {
        let mut product = [0u64; 2 * LIMBS + 1];
        for (i, &a) in self.0.iter().enumerate() {
            let mut carry = 0u128;
            for (j, &b) in other.0.iter().enumerate() {
                carry += u128::from(product[i + j]) + u128::from(a) * u128::from(b);
                product[i + j] = carry as u64;
                carry >>= 64;
            }
            product[i + LIMBS] = carry as u64;
        }
        let (limbs, bits) = ((shift / 64) as usize, shift % 64);
        let mut shifted = [0; LIMBS];
        for (i, limb) in shifted.iter_mut().enumerate() {
            let low = product.get(i + limbs).copied().unwrap_or_default();
            let high = product.get(i + limbs + 1).copied().unwrap_or_default();
            *limb = ((u128::from(high) << 64 | u128::from(low)) >> bits) as u64;
        }
        Self(shifted)
    }

    /// `floor(2^shift / self)`, for `self` between 1 and `2^510` and a quotient below `2^512`.
    pub(super) fn reciprocal(&self, shift: u32) -> Self {
        let mut rest = Self::at_limb(1, 0);
        let mut quotient = Self::ZERO;
        for _ in 0..shift {
            rest = rest.plus(&rest);
            quotient = quotient.plus(&quotient);
            if rest >= *self {
                rest = rest.minus(self);
                quotient.0[0] |= 1;
            }
        }
        quotient
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wide {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(value: u128) -> Wide {
        Wide::at_limb(value, 0)
    }

    proptest! {
        /// Against `u128`, at the bottom and shifted up.
        #[test]
        fn arithmetic_is_that_of_integers(
            a in any::<u128>(), b in any::<u128>(), c in 1u64.., limb in 0usize..5, shift in 0u32..128,
        ) {
            let (a, b) = (a >> 1, b >> 1);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert_eq!(Wide::at_limb(a, limb).plus(&Wide::at_limb(b, limb)), Wide::at_limb(a + b, limb));
            prop_assert_eq!(
                Wide::at_limb(high, limb).minus(&Wide::at_limb(low, limb)),
                Wide::at_limb(high - low, limb)
            );
            prop_assert_eq!(Wide::at_limb(a, limb) < Wide::at_limb(b, limb), a < b);
            let small = a >> 64;
            prop_assert_eq!(wide(small).times_small(c), wide(small * u128::from(c)));
            prop_assert_eq!(wide(a).over_small(c), wide(a / u128::from(c)));
            prop_assert_eq!(wide(small).times_shifted(&wide(b >> 64), shift), wide((small * (b >> 64)) >> shift));
            prop_assert_eq!(wide(small + 1).reciprocal(126), wide((1 << 126) / (small + 1)));
            prop_assert_eq!(wide(a).bits(), 128 - a.leading_zeros());
            // (a 2^s)(b 2^s) / 2^(2s) = a b, whose bits a product of halves gives.
            let up = Wide::at_limb(a, limb).times_shifted(&Wide::at_limb(b, limb), 128 * limb as u32);
            let product = wide(a).times_small(b as u64).plus(
                &wide(a).times_small((b >> 64) as u64).times_shifted(&Wide::at_limb(1, 1), 0)
            );
            prop_assert_eq!(up, product);
            // Dividing undoes multiplying.
            prop_assert_eq!(Wide::at_limb(a, limb).times_small(c).over_small(c), Wide::at_limb(a, limb));
        }
    }
}
