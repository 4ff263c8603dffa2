//! Random words in blocks and the logarithm, shared by the continuous mechanisms.

use rand_core::Rng;

/// Numbers made at a time; a kilobyte of random bytes.
pub(super) const BLOCK: usize = 256;
pub(super) const HALF: usize = BLOCK / 2;

/// Words whose upper 31 bits are below this are drawn again with more bits.
const RARE: u32 = 128;

#[inline]
pub(super) fn words<R: Rng + ?Sized>(rng: &mut R) -> [u32; BLOCK] {
    let mut bytes = [0; 4 * BLOCK];
    rng.fill_bytes(&mut bytes);
    let mut words = [0; BLOCK];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// A number of `(0, 1]`, from the upper 31 bits; uniform up to rounding to `f32`.
#[inline(always)]
pub(super) fn open(word: u32) -> f32 {
    ((word >> 1).cast_signed() as f32 + 0.5) * (1.0 / (1u32 << 31) as f32)
}

/// The places whose [`open`] is too coarse: one word in `2^24`.
#[inline]
pub(super) fn rare(words: &[u32]) -> impl Iterator<Item = usize> {
    // A whole block is looked through without a branch per word.
    let any = words
        .iter()
        .fold(false, |any, &word| any | (word >> 1 < RARE));
    let searched = if any { words } else { &[] };
    searched
        .iter()
        .enumerate()
        .filter(|(_, word)| **word >> 1 < RARE)
        .map(|(place, _)| place)
}

/// The number of `(0, 1)` whose leading bits are those of `word`, with 53 more.
pub(super) fn refined(word: u32, more: u64) -> f64 {
    let rest = ((more >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64);
    (f64::from(word >> 1) + rest) * (1.0 / (1u64 << 31) as f64)
}

/// `-ln(u)` for a normal positive `u <= 1`: `u = 2^e m` with `m` between the roots of 1/2 and 2,
/// and `ln m = 2 artanh((m - 1) / (m + 1))` by its series to the ninth power, whose error is
/// below `2^-29` of the result.
#[inline(always)]
pub(super) fn negative_log(u: f32) -> f32 {
    /// The bits of `sqrt(1/2)`.
    const ROOT: u32 = 0x3f35_04f3;
    let exponent = u.to_bits().wrapping_sub(ROOT).cast_signed() >> 23;
    let mantissa = f32::from_bits(u.to_bits().wrapping_sub((exponent << 23).cast_unsigned()));
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = 2.0
        + square * (2.0 / 3.0 + square * (2.0 / 5.0 + square * (2.0 / 7.0 + square * (2.0 / 9.0))));
    -(exponent as f32 * core::f32::consts::LN_2 + ratio * series)
}
