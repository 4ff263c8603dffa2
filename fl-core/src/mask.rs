//! Which parameters are pruned, that is zero and stay so: one bit each.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use serde::{Deserialize, Serialize};

/// The pruned places of a flat vector of parameters: a set of indices below its length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mask {
    len: usize,
    /// Bit `i % 64` of word `i / 64` is set where parameter `i` is pruned; no bit beyond `len` is.
    words: Vec<u64>,
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            len: usize,
            words: Vec<u64>,
        }
        let Raw { len, words } = Raw::deserialize(deserializer)?;
        let spare = len % 64;
        let beyond = match words.last() {
            Some(&last) if spare > 0 => last >> spare,
            _ => 0,
        };
        match words.len() == len.div_ceil(64) && beyond == 0 {
            true => Ok(Self { len, words }),
            false => Err(serde::de::Error::custom(format!(
                "a mask of {len} parameters has {} words or bits beyond its end",
                words.len()
            ))),
        }
    }
}

impl Mask {
    /// Nothing pruned, of `len` parameters.
    #[must_use]
    pub fn none(len: usize) -> Self {
        Self {
            len,
            words: vec![0; len.div_ceil(64)],
        }
    }

    /// Parameters, pruned or not.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.len
    }

    /// Whether nothing is pruned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Whether parameter `index` is pruned; no parameter beyond the end is.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        let word = self.words.get(index / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Prunes parameter `index`; nothing beyond the end.
    pub fn insert(&mut self, index: usize) {
        if index < self.len {
            self.words[index / 64] |= 1 << (index % 64);
        }
    }

    /// How many parameters are pruned.
    #[must_use]
    pub fn pruned(&self) -> usize {
        (self.words.iter().map(|word| word.count_ones() as usize)).sum()
    }

    /// How many of the parameters in `range` are pruned.
    #[must_use]
    pub fn pruned_in(&self, range: Range<usize>) -> usize {
        range.filter(|&index| self.contains(index)).count()
    }

    /// Sets every pruned value to (positive) zero.
    ///
    /// # Panics
    /// When `values` is not one value for each parameter.
    pub fn apply(&self, values: &mut [f32]) {
        assert_eq!(values.len(), self.len, "one value for each parameter");
        for (values, &word) in values.chunks_mut(64).zip(&self.words) {
            match word {
                0 => {}
                u64::MAX => values.fill(0.0),
                _ => {
                    for (bit, value) in values.iter_mut().enumerate() {
                        // All ones where it stays.
                        let stays = ((word >> bit) as u32 & 1).wrapping_sub(1);
                        *value = f32::from_bits(value.to_bits() & stays);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Mask;

    proptest! {
        /// Against a vector of booleans.
        #[test]
        fn is_a_set_of_indices(pruned in proptest::collection::vec(any::<bool>(), 0..300)) {
            let mut mask = Mask::none(pruned.len());
            let indices = pruned.iter().enumerate().filter(|(_, pruned)| **pruned);
            for (index, _) in indices {
                mask.insert(index);
            }
            mask.insert(pruned.len());
            prop_assert_eq!(mask.parameters(), pruned.len());
            prop_assert_eq!(mask.is_empty(), !pruned.contains(&true));
            prop_assert_eq!(mask.pruned(), pruned.iter().filter(|pruned| **pruned).count());
            let (from, to) = (pruned.len() / 3, pruned.len() / 2);
            let within = pruned[from..to].iter().filter(|pruned| **pruned).count();
            prop_assert_eq!(mask.pruned_in(from..to), within);
            let value = |index: usize| match index % 3 {
                0 => f32::NAN,
                1 => -1.5,
                _ => f32::INFINITY,
            };
            let mut values: Vec<f32> = (0..pruned.len()).map(value).collect();
            mask.apply(&mut values);
            for (index, (found, pruned)) in values.iter().zip(&pruned).enumerate() {
                prop_assert_eq!(mask.contains(index), *pruned);
                let expected = if *pruned { 0.0 } else { value(index) };
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
            let text = serde_json::to_string(&mask).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Mask>(&text).expect("reads"), mask);
        }
    }

    #[test]
    fn a_mask_that_cannot_be_is_not_read() {
        for text in [
            r#"{"len":64,"words":[]}"#,
            r#"{"len":3,"words":[8]}"#,
            r#"{"len":0,"words":[0]}"#,
        ] {
            let error = serde_json::from_str::<Mask>(text)
                .expect_err(text)
                .to_string();
            assert!(error.contains("bits beyond its end"), "{error}");
        }
        let good = serde_json::from_str::<Mask>(r#"{"len":3,"words":[7]}"#).expect("reads");
        assert_eq!(good.pruned(), 3);
    }
}
