//! Masks: key streams of a cipher, added to or subtracted from a vector.
//!
//! Element `i` of a mask is word `i` of the key stream, of 4 or 8 bytes, little-endian; so any part
//! of a vector can be masked by itself, on any thread. The ciphers are AES-128 in counter mode with
//! a 64-bit little-endian counter from 0 in the block's first half (NIST SP 800-38A) or ChaCha20 (RFC 8439, nonce 0), with a key
//! for this mask alone.
//!
//! Masks are taken by groups and the vector by chunks that stay in the first-level cache, so that
//! what remains is the cipher's own time.

use aes::Aes128Enc;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use ctr::Ctr64LE;
use zeroize::{Zeroize, Zeroizing};

use crate::operation::{Operation, count};
use crate::params::Suite;
use crate::ring::Words;

/// Bytes of key stream made at a time.
const CHUNK_BYTES: usize = 4096;
/// Key streams that are added at a time.
const QUAD: usize = 4;
/// Masks whose ciphers are kept at a time.
const GROUP: usize = 32;

/// Whether a mask is added or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

/// A mask, not yet expanded.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Mask {
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) sign: Sign,
}

enum Keystream {
    Aes(Ctr64LE<Aes128Enc>),
    ChaCha(ChaCha20),
}

impl Keystream {
    /// The stream of `key` from its byte `offset`.
    fn new(suite: Suite, key: &[u8; 32], offset: u64) -> Self {
        match suite {
            Suite::Aes128 => {
                let mut half = Zeroizing::new([0; 16]);
                half.copy_from_slice(&key[..16]);
                let mut cipher = Ctr64LE::<Aes128Enc>::new((&*half).into(), &[0; 16].into());
                cipher.seek(offset);
                Self::Aes(cipher)
            }
            Suite::ChaCha20 => {
                let mut cipher = ChaCha20::new(key.into(), &[0; 12].into());
                cipher.seek(offset);
                Self::ChaCha(cipher)
            }
        }
    }

    fn write(&mut self, bytes: &mut [u8]) {
        match self {
            Self::Aes(cipher) => cipher.write_keystream(bytes),
            Self::ChaCha(cipher) => cipher.write_keystream(bytes),
        }
    }
}

/// A word of a vector.
pub(crate) trait Word: Copy {
    const BYTES: usize;
    /// Adds key streams, or subtracts them.
    fn combine(words: &mut [Self], sign: Sign, streams: &[&[u8]]);
}

macro_rules! word {
    ($type:ty) => {
        impl Word for $type {
            const BYTES: usize = size_of::<$type>();

            fn combine(words: &mut [Self], sign: Sign, streams: &[&[u8]]) {
                fn read(bytes: &[u8; size_of::<$type>()]) -> $type {
                    <$type>::from_le_bytes(*bytes)
                }
                // Four at once: the words are read and written a quarter as often.
                if let [a, b, c, d] = streams {
                    let quads = a.as_chunks().0.iter().zip(b.as_chunks().0);
                    let quads = quads.zip(c.as_chunks().0.iter().zip(d.as_chunks().0));
                    let sums = quads.map(|((a, b), (c, d))| {
                        let first = read(a).wrapping_add(read(b));
                        first.wrapping_add(read(c).wrapping_add(read(d)))
                    });
                    match sign {
                        Sign::Plus => words
                            .iter_mut()
                            .zip(sums)
                            .for_each(|(word, sum)| *word = word.wrapping_add(sum)),
                        Sign::Minus => words
                            .iter_mut()
                            .zip(sums)
                            .for_each(|(word, sum)| *word = word.wrapping_sub(sum)),
                    }
                    return;
                }
                for stream in streams {
                    let values = words.iter_mut().zip(stream.as_chunks().0);
                    match sign {
                        Sign::Plus => {
                            values.for_each(|(word, bytes)| *word = word.wrapping_add(read(bytes)))
                        }
                        Sign::Minus => {
                            values.for_each(|(word, bytes)| *word = word.wrapping_sub(read(bytes)))
                        }
                    }
                }
            }
        }
    };
}

word!(u32);
word!(u64);

/// Applies masks to the elements of a vector from index `first` on.
pub(crate) fn apply<W: Word>(suite: Suite, masks: &[Mask], first: usize, words: &mut [W]) {
    count(Operation::Mask, masks.len() * words.len());
    let mut buffers = [[0; CHUNK_BYTES]; QUAD];
    let offset = (first * W::BYTES) as u64;
    for group in masks.chunks(GROUP) {
        let streams = |sign: Sign| -> Vec<Keystream> {
            let same = group.iter().filter(|mask| mask.sign == sign);
            same.map(|mask| Keystream::new(suite, &mask.key, offset))
                .collect()
        };
        let mut signed = [
            (Sign::Plus, streams(Sign::Plus)),
            (Sign::Minus, streams(Sign::Minus)),
        ];
        for chunk in words.chunks_mut(CHUNK_BYTES / W::BYTES) {
            let bytes = chunk.len() * W::BYTES;
            for (sign, streams) in &mut signed {
                for quad in streams.chunks_mut(QUAD) {
                    for (stream, buffer) in quad.iter_mut().zip(&mut buffers) {
                        stream.write(&mut buffer[..bytes]);
                    }
                    let made = buffers.each_ref().map(|buffer| &buffer[..bytes]);
                    W::combine(chunk, *sign, &made[..quad.len()]);
                }
            }
        }
    }
    buffers.zeroize();
}

/// Applies masks to a whole vector.
pub(crate) fn apply_all(suite: Suite, masks: &[Mask], words: &mut Words) {
    match words {
        Words::Narrow(words) => apply(suite, masks, 0, words),
        Words::Wide(words) => apply(suite, masks, 0, words),
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    use proptest::prelude::*;

    use super::*;

    fn mask(key: u8, sign: Sign) -> Mask {
        Mask {
            key: Zeroizing::new([key; 32]),
            sign,
        }
    }

    /// Against single blocks of AES, whose counter is written out here, and against the first block of
    /// ChaCha20 of RFC 8439, appendix A.1, test vector 1 (key, nonce and counter 0).
    #[test]
    fn streams_are_those_of_the_ciphers() {
        let mut words = vec![0u32; 1000];
        apply(Suite::Aes128, &[mask(7, Sign::Plus)], 0, &mut words);
        let cipher = Aes128Enc::new(&[7; 16].into());
        for (counter, block) in words.chunks(4).enumerate() {
            let mut bytes = [0u8; 16];
            bytes[..8].copy_from_slice(&(counter as u64).to_le_bytes());
            let mut bytes = bytes.into();
            cipher.encrypt_block(&mut bytes);
            let expected: Vec<u32> = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| u32::from_le_bytes(*word))
                .collect();
            assert_eq!(block, expected, "block {counter}");
        }
        let mut words = vec![0u32; 4];
        apply(Suite::ChaCha20, &[mask(0, Sign::Plus)], 0, &mut words);
        assert_eq!(words, [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40, 0x28bd_8653]);
    }

    proptest! {
        /// Masks of any suite and width: any part is the part of the whole; adding and subtracting
        /// cancel, in any order.
        #[test]
        fn masks_are_seekable_and_cancel(
            first in 0usize..5000,
            length in 1usize..6000,
            keys in prop::collection::vec(any::<u8>(), 1..40),
            chacha in any::<bool>(),
        ) {
            let suite = if chacha { Suite::ChaCha20 } else { Suite::Aes128 };
            let signs = |odd: Sign, even: Sign| {
                keys.iter().map(move |&key| mask(key, if key % 2 == 1 { odd } else { even }))
            };
            let plus: Vec<Mask> = signs(Sign::Plus, Sign::Minus).collect();
            let minus: Vec<Mask> = signs(Sign::Minus, Sign::Plus).rev().collect();
            let mut narrow = vec![0u32; first + length];
            let mut wide = vec![0u64; first + length];
            apply(suite, &plus, 0, &mut narrow);
            apply(suite, &plus, 0, &mut wide);
            let (mut narrow_part, mut wide_part) = (vec![0u32; length], vec![0u64; length]);
            apply(suite, &plus, first, &mut narrow_part);
            apply(suite, &plus, first, &mut wide_part);
            prop_assert_eq!(&narrow_part[..], &narrow[first..]);
            prop_assert_eq!(&wide_part[..], &wide[first..]);
            apply(suite, &minus, 0, &mut narrow);
            apply(suite, &minus, first, &mut wide[first..]);
            prop_assert!(narrow.iter().all(|&word| word == 0));
            prop_assert!(wide[first..].iter().all(|&word| word == 0));
        }
    }

    /// A vector with a mask is uniform: chi-square over bytes, 255 degrees of freedom, of which 400
    /// is beyond 6 deviations; whatever the vector is.
    #[test]
    fn a_masked_vector_is_uniform() {
        for suite in [Suite::Aes128, Suite::ChaCha20] {
            for value in [0u32, 1, u32::MAX] {
                let mut words = vec![value; 100_000];
                apply(suite, &[mask(9, Sign::Minus)], 0, &mut words);
                let mut counts = [0f64; 256];
                for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
                    counts[usize::from(byte)] += 1.0;
                }
                let expected = 400_000.0 / 256.0;
                let chi: f64 = counts
                    .iter()
                    .map(|c| (c - expected).powi(2) / expected)
                    .sum();
                assert!(chi < 400.0, "{suite:?} {value}: {chi}");
            }
        }
    }
}
