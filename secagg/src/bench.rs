//! What the benchmark of masks measures. Not for other use, and not stable.

use zeroize::Zeroizing;

use crate::mask::{Mask, Sign, apply};
use crate::params::Suite;

/// Some masks.
pub struct Masks(Vec<Mask>);

impl core::fmt::Debug for Masks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Masks { .. }")
    }
}

/// As many masks of different keys, both signs in turn.
#[must_use]
pub fn masks(count: usize) -> Masks {
    let mask = |index: usize| Mask {
        key: Zeroizing::new([index as u8; 32]),
        sign: if index.is_multiple_of(2) {
            Sign::Plus
        } else {
            Sign::Minus
        },
    };
    Masks((0..count).map(mask).collect())
}

/// Applies them to words of 32 bits.
pub fn apply_narrow(suite: Suite, masks: &Masks, words: &mut [u32]) {
    apply(suite, &masks.0, 0, words);
}

/// Applies them to words of 64 bits.
pub fn apply_wide(suite: Suite, masks: &Masks, words: &mut [u64]) {
    apply(suite, &masks.0, 0, words);
}
