//! Changes of an input, by a stream: what libFuzzer does, without its guidance.

use fl_core::Stream;

/// Numbers at which decoders err.
const NUMBERS: [&[u8]; 8] = [
    &[0; 8],
    &[0xff; 8],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0x80],
    b"-1",
    b"1e999",
    b"18446744073709551615",
    b"\"",
];

/// One to eight changes of `bytes`, parts of `other` among them.
#[must_use]
pub fn mutate(bytes: &[u8], other: &[u8], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let below = |stream: &mut Stream, n: usize| stream.below(n.max(1) as u64) as usize;
    for _ in 0..=below(stream, 8) {
        let at = below(stream, bytes.len());
        let some = |stream: &mut Stream, len: usize| below(stream, len.min(64)) + 1;
        match below(stream, 7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(stream, 8),
            1 if !bytes.is_empty() => bytes[at] = below(stream, 256) as u8,
            2 => bytes.truncate(at),
            3 if !bytes.is_empty() => {
                let end = (at + some(stream, bytes.len())).min(bytes.len());
                bytes.drain(at..end);
            }
            4 if !bytes.is_empty() => {
                let end = (at + some(stream, bytes.len())).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = below(stream, bytes.len());
                bytes.splice(to..to, part);
            }
            5 if !other.is_empty() => {
                let from = below(stream, other.len());
                let end = (from + some(stream, other.len())).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                let number = NUMBERS[below(stream, NUMBERS.len())];
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at..end, number.iter().copied());
            }
        }
    }
    bytes
}
