//! Sums of vectors in `Z_2^b`, as secure aggregation gives them: nothing is known of a single vector,
//! and the sum is known modulo `2^b`.
//!
//! Addition is exact, so order and grouping change nothing. A [`ModularSum`] keeps each coordinate
//! as an `i64`, the sum modulo `2^64` of the vectors' elements as signed numbers; `2^b` divides
//! `2^64`, so that what it is modulo `2^b` can be read off at any time. Where vectors are not masked
//! (a simulation), it also shows how many coordinates left the ring ([`ModularSum::wrapped`]).

use alloc::vec;
use alloc::vec::Vec;

use crate::ring::sign_extended;

/// Why vectors were not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModularError {
    /// Not one element per coordinate.
    #[error("a vector has {given} elements for a sum of {expected}")]
    Length {
        /// Coordinates of the sum.
        expected: usize,
        /// Elements of the vector.
        given: usize,
    },
    /// An element that is none of the ring.
    #[error("element {index} is {element}, which does not fit into {bits} bits")]
    NotReduced {
        /// Its place.
        index: usize,
        /// The element.
        element: u64,
        /// The bits of the ring.
        bits: u32,
    },
    /// Two sums of different rings.
    #[error("a sum in a ring of {other} bits cannot be merged into one of {own} bits")]
    Ring {
        /// The bits of the one.
        own: u32,
        /// The bits of the other.
        other: u32,
    },
    /// No such ring.
    #[error("a ring has {0} bits; expected 2 to 64")]
    Bits(u32),
}

/// Vectors of `Z_2^b`, added up.
///
/// ```
/// use fl_core::modular::ModularSum;
///
/// let mut sum = ModularSum::new(8, 2)?;
/// sum.add(&[250, 1])?; // -6 and 1
/// sum.add(&[3, 127])?;
/// assert_eq!(sum.integers().collect::<Vec<i64>>(), [-3, -128]); // 128 is -128 in 8 bits
/// assert_eq!(sum.elements().collect::<Vec<u64>>(), [253, 128]);
/// assert_eq!((sum.vectors(), sum.wrapped()), (2, 1));
/// # Ok::<(), fl_core::modular::ModularError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModularSum {
    bits: u32,
    values: Vec<i64>,
    vectors: u64,
}

impl ModularSum {
    /// An empty sum of vectors of `len` elements of `bits` bits.
    ///
    /// # Errors
    /// [`ModularError::Bits`] unless the bits are from 2 to 64.
    pub fn new(bits: u32, len: usize) -> Result<Self, ModularError> {
        if !(2..=64).contains(&bits) {
            return Err(ModularError::Bits(bits));
        }
        Ok(Self {
            bits,
            values: vec![0; len],
            vectors: 0,
        })
    }

    /// A sum of `vectors` vectors that somebody else added up, as secure aggregation does: what it is
    /// modulo `2^b` is all that is known, so [`wrapped`](Self::wrapped) is 0.
    ///
    /// # Errors
    /// [`ModularError::Bits`] and [`ModularError::NotReduced`].
    pub fn added_up(bits: u32, elements: &[u64], vectors: u64) -> Result<Self, ModularError> {
        let mut sum = Self::new(bits, elements.len())?;
        sum.add(elements)?;
        sum.vectors = vectors;
        Ok(sum)
    }

    /// The bits `b` of the ring.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
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

    /// Vectors in the sum.
    #[must_use]
    pub fn vectors(&self) -> u64 {
        self.vectors
    }

    /// Adds a vector.
    ///
    /// # Errors
    /// [`ModularError::Length`] and [`ModularError::NotReduced`]; then nothing was added.
    pub fn add(&mut self, vector: &[u64]) -> Result<(), ModularError> {
        if vector.len() != self.values.len() {
            return Err(ModularError::Length {
                expected: self.values.len(),
                given: vector.len(),
            });
        }
        let largest = u64::MAX >> (64 - self.bits);
        // Every bit that any element has.
        let used = vector.iter().fold(0, |used, element| used | element);
        if used > largest
            && let Some(index) = vector.iter().position(|&element| element > largest)
        {
            return Err(ModularError::NotReduced {
                index,
                element: vector[index],
                bits: self.bits,
            });
        }
        for (value, &element) in self.values.iter_mut().zip(vector) {
            *value = value.wrapping_add(sign_extended(element, self.bits));
        }
        self.vectors += 1;
        Ok(())
    }

    /// Moves all of `other` into `self` and leaves `other` empty, ready to be used again.
    ///
    /// # Errors
    /// [`ModularError::Ring`] and [`ModularError::Length`]; then neither has changed.
    pub fn merge(&mut self, other: &mut Self) -> Result<(), ModularError> {
        if self.bits != other.bits {
            return Err(ModularError::Ring {
                own: self.bits,
                other: other.bits,
            });
        }
        if self.values.len() != other.values.len() {
            return Err(ModularError::Length {
                expected: self.values.len(),
                given: other.values.len(),
            });
        }
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value = value.wrapping_add(*other);
        }
        self.vectors += other.vectors;
        other.reset();
        Ok(())
    }

    /// Empties the sum and keeps its memory.
    pub fn reset(&mut self) {
        self.values.fill(0);
        self.vectors = 0;
    }

    /// The sum as integers of `[-2^(b-1), 2^(b-1))`.
    pub fn integers(&self) -> impl Iterator<Item = i64> + '_ {
        self.elements()
            .map(|element| sign_extended(element, self.bits))
    }

    /// The sum as elements of `[0, 2^b)`: what secure aggregation would give.
    pub fn elements(&self) -> impl Iterator<Item = u64> + '_ {
        let largest = u64::MAX >> (64 - self.bits);
        self.values
            .iter()
            .map(move |value| value.cast_unsigned() & largest)
    }

    /// Coordinates whose sum of signed elements is not what it is modulo `2^b`. Of masked vectors
    /// it means nothing; of a simulation's it is a diagnosis that no server could make.
    #[must_use]
    pub fn wrapped(&self) -> u64 {
        let left = |(value, integer): (&i64, i64)| *value != integer;
        self.values
            .iter()
            .zip(self.integers())
            .map(|pair| u64::from(left(pair)))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sum_from_elsewhere_is_the_sum_of_its_vectors() {
        let mut own = ModularSum::new(8, 3).unwrap();
        own.add(&[250, 100, 7]).unwrap();
        own.add(&[3, 100, 0]).unwrap();
        let elements: Vec<u64> = own.elements().collect();
        let other = ModularSum::added_up(8, &elements, 2).unwrap();
        assert!(own.integers().eq(other.integers()));
        assert_eq!((other.vectors(), own.wrapped(), other.wrapped()), (2, 1, 0));
        assert!(matches!(
            ModularSum::added_up(8, &[256], 1),
            Err(ModularError::NotReduced { element: 256, .. })
        ));
    }

    proptest! {
        /// The sum modulo `2^b` in wide integers, whatever the order and the grouping.
        #[test]
        fn sums_are_those_of_wide_integers(
            bits in 2u32..=64,
            vectors in prop::collection::vec(prop::collection::vec(any::<u64>(), 3), 1..8),
            cut in 0usize..8,
        ) {
            let largest = u64::MAX >> (64 - bits);
            let mut one = ModularSum::new(bits, 3).unwrap();
            let mut other = one.clone();
            let mut expected = [0u128; 3];
            for (index, vector) in vectors.iter().enumerate() {
                let vector: Vec<u64> = vector.iter().map(|element| element & largest).collect();
                for (sum, &element) in expected.iter_mut().zip(&vector) {
                    *sum += u128::from(element);
                }
                let part = if index < cut { &mut one } else { &mut other };
                part.add(&vector).unwrap();
            }
            one.merge(&mut other).unwrap();
            prop_assert_eq!(other.vectors(), 0);
            prop_assert_eq!(one.vectors(), vectors.len() as u64);
            prop_assert!(other.integers().all(|integer| integer == 0));
            let modulus = 1u128 << bits;
            for ((element, integer), sum) in one.elements().zip(one.integers()).zip(expected) {
                prop_assert_eq!(u128::from(element), sum % modulus);
                let signed = i128::from(integer).rem_euclid(modulus.cast_signed());
                prop_assert_eq!(signed.cast_unsigned(), sum % modulus);
                prop_assert!(i128::from(integer) < (modulus / 2).cast_signed());
                prop_assert!(i128::from(integer) >= -(modulus / 2).cast_signed());
            }
        }
    }

    #[test]
    fn what_is_no_vector_of_the_ring_is_refused() {
        let mut sum = ModularSum::new(4, 2).unwrap();
        sum.add(&[7, 8]).unwrap();
        let before = sum.clone();
        let cases = [
            (vec![1], "a vector has 1 elements for a sum of 2"),
            (
                vec![15, 16],
                "element 1 is 16, which does not fit into 4 bits",
            ),
        ];
        for (vector, message) in cases {
            assert_eq!(sum.add(&vector).unwrap_err().to_string(), message);
            assert_eq!(sum, before);
        }
        let mut wide = ModularSum::new(5, 2).unwrap();
        assert_eq!(
            sum.merge(&mut wide).unwrap_err().to_string(),
            "a sum in a ring of 5 bits cannot be merged into one of 4 bits"
        );
        let mut long = ModularSum::new(4, 3).unwrap();
        assert!(sum.merge(&mut long).is_err());
        for bits in [0, 1, 65] {
            let error = ModularSum::new(bits, 1).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a ring has {bits} bits; expected 2 to 64")
            );
        }
        // 7 + 1 leaves four bits, -8 does not.
        sum.add(&[1, 0]).unwrap();
        assert_eq!(sum.integers().collect::<Vec<_>>(), [-8, -8]);
        assert_eq!(sum.wrapped(), 1);
        sum.reset();
        assert_eq!((sum.wrapped(), sum.vectors(), sum.len()), (0, 0, 2));
        assert!(!sum.is_empty() && sum.bits() == 4);
    }
}
