//! What masking costs beside the bare cipher: `cargo bench -p fl-secagg --bench masks`.
//!
//! A mask of a million words, expanded and added to a vector, against the same number of bytes of
//! AES-128 in counter mode written to a buffer of 4 KiB that stays in the cache, and to one of the
//! mask's size; interleaved, minima of all repetitions, one thread.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on its standard output"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::hint::black_box;
use std::time::Instant;

use aes::Aes128Enc;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr64LE;
use fl_secagg::{Suite, bench};

const ELEMENTS: usize = 1_000_000;
const MASKS: usize = 32;
const PART: usize = ELEMENTS / MASKS;
const REPETITIONS: usize = 60;

fn seconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Writes `bytes` bytes of a key stream through a buffer.
fn stream(mut cipher: impl StreamCipher, buffer: &mut [u8], bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        let now = left.min(buffer.len());
        cipher.write_keystream(&mut buffer[..now]);
        black_box(&buffer[..now]);
        left -= now;
    }
}

fn keystream(suite: Suite, buffer: &mut [u8], bytes: usize) {
    match suite {
        Suite::Aes128 => stream(
            Ctr64LE::<Aes128Enc>::new(&[1; 16].into(), &[0; 16].into()),
            buffer,
            bytes,
        ),
        Suite::ChaCha20 => stream(
            ChaCha20::new(&[1; 32].into(), &[0; 12].into()),
            buffer,
            bytes,
        ),
    }
}

fn main() {
    let mut words = vec![0u32; ELEMENTS];
    let mut wide = vec![0u64; ELEMENTS];
    let mut small = vec![0u8; 4096];
    let mut large = vec![0u8; 4 * ELEMENTS];
    println!("{ELEMENTS} elements of 32 bits, per mask, minimum of {REPETITIONS}:");
    for suite in [Suite::Aes128, Suite::ChaCha20] {
        let masks = bench::masks(MASKS);
        let one = bench::masks(1);
        let mut best = [f64::INFINITY; 5];
        for _ in 0..REPETITIONS {
            // Of many masks, a part of the vector that takes as long as one mask of all of it: a
            // machine's other work spoils long measurements more than short ones.
            let times = [
                seconds(|| keystream(suite, &mut small, 4 * ELEMENTS)),
                seconds(|| keystream(suite, &mut large, 4 * ELEMENTS)),
                seconds(|| bench::apply_narrow(suite, &masks, black_box(&mut words[..PART]))),
                seconds(|| bench::apply_narrow(suite, &one, black_box(&mut words))),
                seconds(|| bench::apply_wide(suite, &masks, black_box(&mut wide[..PART]))),
            ];
            for (best, time) in best.iter_mut().zip(times) {
                *best = best.min(time);
            }
        }
        let [cached, streamed, many, single, double] = best;
        println!("{suite:?}");
        for (name, time, word) in [
            ("key stream alone, 4 KiB buffer", cached, 4),
            ("key stream alone, 4 MB buffer", streamed, 4),
            ("expand and add, of 32 masks", many, 4),
            ("expand and add, one mask", single, 4),
            ("expand and add, 64-bit words", double, 8),
        ] {
            let bytes = word * ELEMENTS;
            println!(
                "  {name:32} {:8.3} ms {:6.2} GB/s {:5.2} times the key stream",
                1e3 * time,
                bytes as f64 / time / 1e9,
                time / (cached * word as f64 / 4.0),
            );
        }
    }
}
