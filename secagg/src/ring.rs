//! The ring `Z_2^b` of the coordinates: how many bits, what an input is, bits packed on the wire.
//!
//! Vectors are kept in words of 32 bits where `b` is at most 32 and of 64 bits otherwise; sums are
//! taken modulo the word, which `2^b` divides, and reduced when they leave.
//!
//! Behind an input's coordinates stand three more: the client's weight, how many of its coordinates
//! were clipped, and 1. Their sums come out with the sum of the inputs.

use zeroize::Zeroize;

use crate::error::{InputError, ParamsError};
use crate::operation::{Operation, count};

/// Coordinates that the protocol adds.
pub(crate) const EXTRA: usize = 3;

/// A ring `Z_2^b`, and what may be put into it so that no sum leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    bits: u32,
    clients: u32,
    max_weight: u64,
    /// Bits of a value before it is weighted; 0 when values are any elements of the ring.
    value_bits: u32,
}

impl Ring {
    /// The smallest ring in which weighted sums of integers are exact: `clients` clients, weights up to
    /// `max_weight`, and values, before they are multiplied by the weight, from `-2^(q-1)` to
    /// `2^(q-1)` with `q = value_bits` from 1 to 63.
    ///
    /// # Errors
    /// [`ParamsError::RingBits`] when it would need more than 64 bits, and when a number is 0.
    pub fn bounded(clients: u32, max_weight: u64, value_bits: u32) -> Result<Self, ParamsError> {
        let refuse = ParamsError::RingBits {
            clients,
            max_weight,
            value_bits,
        };
        if clients == 0 || max_weight == 0 || !(1..64).contains(&value_bits) {
            return Err(refuse);
        }
        let weights = u128::from(clients) * u128::from(max_weight);
        let largest = weights
            .checked_mul(1 << (value_bits - 1))
            .ok_or(refuse.clone())?;
        // A bit for the sign; the sum of weights, which has none, is then inside as well.
        let bits = (128 - largest.leading_zeros() + 1).max(2);
        if bits > 64 {
            return Err(refuse);
        }
        Ok(Self {
            bits,
            clients,
            max_weight,
            value_bits,
        })
    }

    /// A ring of `bits` bits (2 to 64) for inputs that are already elements of it and whose sums may
    /// wrap, as in distributed differential privacy.
    ///
    /// # Errors
    /// [`ParamsError::RingBits`] unless the sum of the weights fits.
    pub fn modular(clients: u32, max_weight: u64, bits: u32) -> Result<Self, ParamsError> {
        let weights = u128::from(clients) * u128::from(max_weight);
        if weights == 0 || !(2..=64).contains(&bits) || weights >> bits != 0 {
            return Err(ParamsError::RingBits {
                clients,
                max_weight,
                value_bits: bits,
            });
        }
        Ok(Self {
            bits,
            clients,
            max_weight,
            value_bits: 0,
        })
    }

    /// The bits `b`.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The most clients of a sum.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// The largest weight of a client.
    #[must_use]
    pub fn max_weight(&self) -> u64 {
        self.max_weight
    }

    /// Bits of a value before it is weighted; 0 when any element of the ring is one.
    #[must_use]
    pub fn value_bits(&self) -> u32 {
        self.value_bits
    }

    /// The largest element, `2^b - 1`.
    #[must_use]
    pub fn largest(&self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// What a client's count of clipped coordinates saturates at, so that the sum fits.
    #[must_use]
    pub fn max_clipped(&self) -> u64 {
        self.largest() / u64::from(self.clients)
    }

    /// Bytes of `length` packed elements.
    #[must_use]
    pub fn packed_bytes(&self, length: usize) -> usize {
        (length as u128 * u128::from(self.bits)).div_ceil(8) as usize
    }

    pub(crate) fn zeros(self, length: usize) -> Words {
        if self.bits <= 32 {
            Words::Narrow(vec![0; length])
        } else {
            Words::Wide(vec![0; length])
        }
    }
}

/// A client's input to the sum. Wiped when it is dropped.
pub struct Input {
    ring: Ring,
    values: Vec<u64>,
    weight: u64,
    clipped: u64,
}

impl core::fmt::Debug for Input {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Input { .. }")
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.values.zeroize();
        self.weight.zeroize();
        self.clipped.zeroize();
    }
}

impl Input {
    /// Integers already multiplied by `weight`, at most `weight * 2^(q-1)` in magnitude, for a ring
    /// made by [`Ring::bounded`]. `clipped` says how many were clipped to that.
    ///
    /// # Errors
    /// [`InputError`] for a value or weight outside its range, and for a modular ring.
    pub fn weighted(
        ring: Ring,
        values: &[i64],
        weight: u64,
        clipped: u64,
    ) -> Result<Self, InputError> {
        check_weight(ring, weight)?;
        if ring.value_bits == 0 {
            return Err(InputError::Kind);
        }
        // At most 2^63, because the ring has room for it and its sign.
        let largest = weight << (ring.value_bits - 1);
        if let Some((index, &value)) = values
            .iter()
            .enumerate()
            .find(|(_, value)| value.unsigned_abs() > largest)
        {
            return Err(InputError::Value {
                index,
                value,
                largest,
            });
        }
        Ok(Self {
            ring,
            values: values
                .iter()
                .map(|value| value.cast_unsigned() & ring.largest())
                .collect(),
            weight,
            clipped: clipped.min(ring.max_clipped()),
        })
    }

    /// Elements of a ring made by [`Ring::modular`].
    ///
    /// # Errors
    /// [`InputError`] for an element that is not reduced, a weight outside its range, and a bounded
    /// ring.
    pub fn modular(
        ring: Ring,
        elements: &[u64],
        weight: u64,
        clipped: u64,
    ) -> Result<Self, InputError> {
        check_weight(ring, weight)?;
        if ring.value_bits != 0 {
            return Err(InputError::Kind);
        }
        let largest = ring.largest();
        if let Some((index, &element)) = elements
            .iter()
            .enumerate()
            .find(|(_, element)| **element > largest)
        {
            return Err(InputError::NotReduced {
                index,
                element,
                bits: ring.bits,
            });
        }
        Ok(Self {
            ring,
            values: elements.to_vec(),
            weight,
            clipped: clipped.min(ring.max_clipped()),
        })
    }

    /// Coordinates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no coordinates.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether it was made for this ring.
    pub(crate) fn is_for(&self, ring: Ring) -> bool {
        self.ring == ring
    }

    /// The vector to be masked, with the extra coordinates.
    pub(crate) fn words(&self, ring: Ring) -> Words {
        count(Operation::Convert, self.values.len() + EXTRA);
        let mut words = ring.zeros(self.values.len() + EXTRA);
        let all = self
            .values
            .iter()
            .copied()
            .chain([self.weight, self.clipped, 1]);
        match &mut words {
            Words::Narrow(words) => {
                for (word, value) in words.iter_mut().zip(all) {
                    *word = value as u32;
                }
            }
            Words::Wide(words) => {
                for (word, value) in words.iter_mut().zip(all) {
                    *word = value;
                }
            }
        }
        words
    }
}

fn check_weight(ring: Ring, weight: u64) -> Result<(), InputError> {
    if weight == 0 || weight > ring.max_weight {
        return Err(InputError::Weight {
            weight,
            most: ring.max_weight,
        });
    }
    Ok(())
}

/// A vector in words; only the low `b` bits of each mean something.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Words {
    /// Up to 32 bits.
    Narrow(Vec<u32>),
    /// 33 to 64 bits.
    Wide(Vec<u64>),
}

impl Zeroize for Words {
    fn zeroize(&mut self) {
        match self {
            Self::Narrow(words) => words.zeroize(),
            Self::Wide(words) => words.zeroize(),
        }
    }
}

impl Words {
    fn len(&self) -> usize {
        match self {
            Self::Narrow(words) => words.len(),
            Self::Wide(words) => words.len(),
        }
    }

    /// Adds another vector of the same ring and length.
    pub(crate) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Narrow(words), Self::Narrow(others)) => {
                for (word, other) in words.iter_mut().zip(others) {
                    *word = word.wrapping_add(*other);
                }
            }
            (Self::Wide(words), Self::Wide(others)) => {
                for (word, other) in words.iter_mut().zip(others) {
                    *word = word.wrapping_add(*other);
                }
            }
            // The ring decides the width.
            _ => debug_assert!(false, "words of two widths"),
        }
    }

    /// Elements, reduced.
    pub(crate) fn elements(&self, ring: Ring) -> Vec<u64> {
        count(Operation::Convert, self.len());
        let largest = ring.largest();
        match self {
            Self::Narrow(words) => words.iter().map(|&w| u64::from(w) & largest).collect(),
            Self::Wide(words) => words.iter().map(|&w| w & largest).collect(),
        }
    }

    /// The elements, `b` bits each, the first in the lowest bits of the first byte; the last byte's
    /// unused bits are 0.
    pub(crate) fn pack(&self, ring: Ring, out: &mut Vec<u8>) {
        count(Operation::Pack, self.len());
        match self {
            Self::Narrow(words) => pack(ring.bits, words.iter().map(|&w| u64::from(w)), out),
            Self::Wide(words) => pack(ring.bits, words.iter().copied(), out),
        }
    }

    /// Adds packed elements. `bytes` must be as long as [`Ring::packed_bytes`] says for this vector;
    /// false, and nothing is added, when it is not, or when an unused bit of the last byte is set.
    pub(crate) fn add_packed(&mut self, ring: Ring, bytes: &[u8]) -> bool {
        let length = self.len();
        if bytes.len() != ring.packed_bytes(length) {
            return false;
        }
        let used = ((length as u128 * u128::from(ring.bits)) % 8) as u32;
        if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
            return false;
        }
        count(Operation::Unpack, length);
        match self {
            Self::Narrow(words) => unpack(ring.bits, bytes, words.iter_mut(), |word, element| {
                *word = word.wrapping_add(element as u32);
            }),
            Self::Wide(words) => unpack(ring.bits, bytes, words.iter_mut(), |word, element| {
                *word = word.wrapping_add(element);
            }),
        }
        true
    }
}

fn pack(bits: u32, elements: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let largest = u64::MAX >> (64 - bits);
    let mut buffer = 0u128;
    let mut filled = 0;
    for element in elements {
        buffer |= u128::from(element & largest) << filled;
        filled += bits;
        if filled >= 64 {
            out.extend_from_slice(&(buffer as u64).to_le_bytes());
            buffer >>= 64;
            filled -= 64;
        }
    }
    out.extend_from_slice(&(buffer as u64).to_le_bytes()[..filled.div_ceil(8) as usize]);
}

fn unpack<'w, W: 'w>(
    bits: u32,
    bytes: &[u8],
    words: impl Iterator<Item = &'w mut W>,
    mut add: impl FnMut(&mut W, u64),
) {
    let largest = u64::MAX >> (64 - bits);
    let (whole, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut blocks = whole
        .iter()
        .chain([&last])
        .map(|block| u64::from_le_bytes(*block));
    let mut buffer = 0u128;
    let mut filled = 0;
    for word in words {
        if filled < bits {
            buffer |= u128::from(blocks.next().unwrap_or(0)) << filled;
            filled += 64;
        }
        add(word, buffer as u64 & largest);
        buffer >>= bits;
        filled -= bits;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_are_the_fewest_that_cannot_overflow() {
        for (clients, weight, value_bits, bits) in [
            (1000, 1, 16, 26),
            (1, 1, 1, 2),
            (2, 1, 1, 3),
            (1024, 1, 16, 27),
            (1023, 1, 16, 26),
            (1000, 600, 20, 40),
            (1, 1, 63, 64),
        ] {
            let ring = Ring::bounded(clients, weight, value_bits).unwrap();
            assert_eq!(ring.bits(), bits, "{clients} {weight} {value_bits}");
            let extreme = (i128::from(clients) * i128::from(weight)) << (value_bits - 1);
            assert!(extreme < 1 << (bits - 1));
            assert!(bits == 2 || extreme >= 1 << (bits - 2));
        }
        for (clients, weight, value_bits) in [
            (0, 1, 8),
            (1, 0, 8),
            (1, 1, 0),
            (1, 1, 64),
            (2, 1, 63),
            (u32::MAX, u64::MAX, 63),
        ] {
            assert!(Ring::bounded(clients, weight, value_bits).is_err());
        }
        assert!(Ring::modular(1000, 1, 9).is_err());
        assert!(Ring::modular(1000, 1, 10).is_ok());
        assert!(Ring::modular(1000, 1, 65).is_err());
        assert!(Ring::modular(0, 1, 8).is_err());
    }

    /// Every client at the extreme, with the largest weight: the sum is still exact.
    #[test]
    fn the_extremes_do_not_overflow() {
        for (clients, weight, value_bits) in [(7u32, 5u64, 9u32), (1023, 1, 16), (3, 1000, 45)] {
            let ring = Ring::bounded(clients, weight, value_bits).unwrap();
            let extreme = (weight << (value_bits - 1)).cast_signed();
            for value in [extreme, -extreme] {
                let mut sum = ring.zeros(1 + EXTRA);
                for _ in 0..clients {
                    let input = Input::weighted(ring, &[value], weight, u64::MAX).unwrap();
                    let mut bytes = Vec::new();
                    input.words(ring).pack(ring, &mut bytes);
                    assert!(sum.add_packed(ring, &bytes));
                }
                let elements = sum.elements(ring);
                let shift = 64 - ring.bits();
                let signed = (elements[0] << shift).cast_signed() >> shift;
                assert_eq!(signed, value * i64::from(clients));
                assert_eq!(elements[1], weight * u64::from(clients));
                assert_eq!(elements[2], ring.max_clipped() * u64::from(clients));
                assert_eq!(elements[3], u64::from(clients));
            }
            assert!(matches!(
                Input::weighted(ring, &[0, extreme + 1], weight, 0),
                Err(InputError::Value { index: 1, .. })
            ));
        }
    }

    #[test]
    fn what_is_no_input_is_refused() {
        let bounded = Ring::bounded(10, 3, 8).unwrap();
        let modular = Ring::modular(10, 3, 8).unwrap();
        for (result, message) in [
            (
                Input::weighted(bounded, &[129], 1, 0),
                "value 0 is 129, which is more than the weight allows; expected at most 128 in \
                 magnitude: clip before weighting",
            ),
            (
                Input::weighted(bounded, &[0], 0, 0),
                "the weight is 0; expected 1 to 3",
            ),
            (
                Input::weighted(bounded, &[0], 4, 0),
                "the weight is 4; expected 1 to 3",
            ),
            (
                Input::modular(modular, &[0, 256], 1, 0),
                "element 1 is 256, which does not fit into 8 bits",
            ),
            (
                Input::modular(bounded, &[0], 1, 0),
                "this input is of the other kind than its ring; use weighted integers with a \
                 bounded ring and reduced elements with a modular ring",
            ),
        ] {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
        assert!(Input::weighted(modular, &[0], 1, 0).is_err());
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(bits in 2u32..=64, values in prop::collection::vec(any::<u64>(), 1..40)) {
            let ring = Ring::modular(1, 1, bits).unwrap();
            let mut words = ring.zeros(values.len());
            match &mut words {
                Words::Narrow(words) => words.iter_mut().zip(&values).for_each(|(w, v)| *w = *v as u32),
                Words::Wide(words) => words.copy_from_slice(&values),
            }
            let mut bytes = Vec::new();
            words.pack(ring, &mut bytes);
            prop_assert_eq!(bytes.len(), ring.packed_bytes(values.len()));
            let expected: Vec<u64> = values.iter().map(|v| v & ring.largest()).collect();
            // Bit by bit.
            for (index, element) in expected.iter().enumerate() {
                for bit in 0..bits as usize {
                    let place = index * bits as usize + bit;
                    prop_assert_eq!(u64::from(bytes[place / 8] >> (place % 8)) & 1, element >> bit & 1);
                }
            }
            let mut back = ring.zeros(values.len());
            prop_assert!(back.add_packed(ring, &bytes));
            prop_assert_eq!(back.elements(ring), expected);
            // Unused bits, and any other length.
            let used = values.len() * bits as usize % 8;
            if used != 0 {
                let mut set = bytes.clone();
                *set.last_mut().unwrap() |= 1 << used;
                prop_assert!(!back.add_packed(ring, &set));
            }
            bytes.push(0);
            prop_assert!(!back.add_packed(ring, &bytes));
            bytes.truncate(bytes.len() - 2);
            prop_assert!(!back.add_packed(ring, &bytes));
        }
    }
}
