//! Normal numbers in bulk, addressed by key and place, **for simulation**.
//!
//! Random words are ChaCha8's (Bernstein 2008) with a 64-bit block counter, sixteen blocks at a
//! time, so that a word of sixteen blocks is a vector. A word makes two numbers: one from the word,
//! the other from the word with its halves exchanged and the half that is now the lower one
//! inverted. The upper halves, which are independent, say where a number lies among 65,536 places
//! of equal probability; the lower ones place it within, so that each number alone has 32 random
//! bits, and two of one word are without correlation.
//!
//! A number is the normal quantile of its bits: the sign, and 31 bits that are the tail's
//! probability. The quantile is a polynomial on each half of each octave of that probability,
//! interpolated at Chebyshev's points, within 2.5e-5 standard deviations of the exact one. Beyond
//! the last octave (one number in 32,768) it is solved for in `f64`. Numbers end at 6.3 standard
//! deviations.
//!
//! Of the first double round only what the counter has reached is computed for every block: the
//! rest depends on the key alone.
//!
//! Numbers in `f32` are not private against someone who reads their low bits (Mironov 2012).

use std::sync::OnceLock;

use super::simd::{Isa, MAX_WIDTH, Scalar, Simd, vectorized};

/// Numbers made at a time.
pub const NORMAL_GROUP: usize = 2 * WORDS * LANES;

/// Words in a block of ChaCha.
const WORDS: usize = 16;
/// Blocks worked on at once.
const LANES: usize = 16;
/// Coefficients of a polynomial.
const TERMS: usize = 4;
/// Tail probabilities below this, of `2^32`, are solved for.
const RARE: u32 = 1 << 16;
/// Bits of the number of a half octave that are both set from `2 RARE` on and nowhere below.
const NOT_RARE: u32 = 0x120;
/// `RARE`'s exponent, as `f32` holds it, and two halves of each octave.
const FIRST_HALF_OCTAVE: usize = (127 + 16) * 2;

/// The coefficients of every half octave, at its number modulo 32: ascending powers of the tail's
/// probability times `2^32`.
type Table = [[f32; 32]; TERMS];

/// The upper tail of the standard normal distribution.
fn tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * core::f64::consts::FRAC_1_SQRT_2)
}

/// The `z` beyond which lies the probability `p`, from `2^-33` to 1/2, by Newton's method. The tail
/// is convex, so it climbs from any `start` from zero up to `z`, and comes back from close above.
fn quantile(p: f64, start: f64) -> f64 {
    /// `sqrt(2 pi)`
    const ROOT: f64 = 2.506_628_274_631_000_7;
    let mut z = start;
    for _ in 0..100 {
        let step = (tail(z) - p) * ROOT * libm::exp(0.5 * z * z);
        z += step;
        // The error after a step is about its square.
        if step.abs() < 1e-8 {
            break;
        }
    }
    z
}

/// The polynomials through the quantile at Chebyshev's points.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = [[0.0; 32]; TERMS];
        // The last octave is one half alone, whose quantile is zero.
        for half in 0..30 {
            // The places of an octave are from 1 to 2.
            let octave = 16.0 + (half / 2) as f64;
            let middle = 1.25 + 0.5 * (half % 2) as f64;
            let points: [f64; TERMS] = core::array::from_fn(|k| {
                let angle = core::f64::consts::PI * (2 * k + 1) as f64 / (2 * TERMS) as f64;
                middle + 0.25 * libm::cos(angle)
            });
            // Newton's divided differences, then powers.
            let mut differences = points.map(|x| quantile(x * libm::exp2(octave - 32.0), 0.0));
            for order in 1..TERMS {
                for k in (order..TERMS).rev() {
                    differences[k] =
                        (differences[k] - differences[k - 1]) / (points[k] - points[k - order]);
                }
            }
            let mut powers = [0.0; TERMS];
            for k in (0..TERMS).rev() {
                for power in (1..TERMS).rev() {
                    powers[power] = powers[power - 1] - points[k] * powers[power];
                }
                powers[0] = differences[k] - points[k] * powers[0];
            }
            for (order, (terms, power)) in table.iter_mut().zip(powers).enumerate() {
                let unit = libm::exp2(-octave * order as f64);
                terms[(FIRST_HALF_OCTAVE + half) % 32] = (power * unit) as f32;
            }
        }
        table
    })
}

/// The number that `bits` make, unless they are rare, and that of their half octave.
#[inline(always)]
fn normal<V: Simd>(v: V, table: &Table, bits: V::F) -> (V::F, V::F) {
    let p = v.integer_to_float(v.and_bits(bits, 0x7fff_ffff));
    let half = v.shift_right::<22>(p);
    let mut z = v.lookup(&table[TERMS - 1], half);
    for terms in table[..TERMS - 1].iter().rev() {
        z = v.fma(z, p, v.lookup(terms, half));
    }
    (v.xor(z, v.and_bits(bits, 0x8000_0000)), half)
}

/// The number that rare bits make.
fn rare(bits: u32) -> f32 {
    let p = (f64::from(bits & 0x7fff_ffff) + 0.5) * libm::exp2(-32.0);
    // The tail is about `exp(-z^2 / 2) / sqrt(2 pi z^2)`; the last `z^2`, of from 17 to 40, is what
    // is left of `y` when five are taken from it.
    let y = -2.0 * libm::log(p);
    let square = y - libm::log(2.0 * core::f64::consts::PI * (y - 5.0));
    let z = quantile(p, libm::sqrt(square)) as f32;
    if bits >> 31 == 0 { z } else { -z }
}

/// The bits of the second number of a word.
fn second(word: u32) -> u32 {
    word.rotate_left(16) ^ 0xffff
}

macro_rules! quarter {
    ($v:ident, $s:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
        $s[$a] = $v.add_integers($s[$a], $s[$b]);
        quarter!(@added $v, $s, $a, $b, $c, $d);
    };
    // Without the first sum.
    (@added $v:ident, $s:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
        $s[$d] = $v.rotate_left::<16>($v.xor($s[$d], $s[$a]));
        quarter!(@turned $v, $s, $a, $b, $c, $d);
    };
    // Without the first rotation, too.
    (@turned $v:ident, $s:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
        $s[$c] = $v.add_integers($s[$c], $s[$d]);
        $s[$b] = $v.rotate_left::<12>($v.xor($s[$b], $s[$c]));
        $s[$a] = $v.add_integers($s[$a], $s[$b]);
        $s[$d] = $v.rotate_left::<8>($v.xor($s[$d], $s[$a]));
        $s[$c] = $v.add_integers($s[$c], $s[$d]);
        $s[$b] = $v.rotate_left::<7>($v.xor($s[$b], $s[$c]));
    };
}

/// The values of a group, in whole cache lines.
#[repr(align(64))]
struct Group([f32; NORMAL_GROUP]);

/// What the blocks of a key have in common, whose counters share their upper half.
#[derive(Clone, Copy)]
struct Start {
    /// The state before the first round; the counter's place is not read.
    state: [f32; WORDS],
    /// The state in the first double round, as far as the counter has not been mixed in.
    mixed: [f32; WORDS],
}

impl Start {
    #[inline(never)]
    fn new(key: &[u32; 8], upper: u32) -> Self {
        /// `expand 32-byte k`
        const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
        let mut words = [0; WORDS];
        words[..4].copy_from_slice(&CONSTANTS);
        words[4..12].copy_from_slice(key);
        words[13] = upper;
        let state = words.map(f32::from_bits);
        let (v, mut mixed) = (Scalar, state);
        mixed[0] = v.add_integers(mixed[0], mixed[4]);
        quarter!(v, mixed, 1, 5, 9, 13);
        quarter!(v, mixed, 2, 6, 10, 14);
        quarter!(v, mixed, 3, 7, 11, 15);
        mixed[1] = v.add_integers(mixed[1], mixed[6]);
        mixed[2] = v.add_integers(mixed[2], mixed[7]);
        mixed[13] = v.rotate_left::<16>(v.xor(mixed[13], mixed[2]));
        Self { state, mixed }
    }

    /// That of a group's blocks.
    fn of_group(key: &[u32; 8], group: u64) -> Self {
        Self::new(key, (first_block(group) >> 32) as u32)
    }
}

/// The counter of a group's first block. It is a multiple of sixteen: within a group nothing is
/// carried into the upper half.
#[inline(always)]
fn first_block(group: u64) -> u64 {
    group.wrapping_mul(LANES as u64)
}

/// The words of the blocks of a group from its `lane`th on, a block to a lane.
#[inline(always)]
fn words<V: Simd>(v: V, start: &Start, group: u64, lane: usize) -> [V::F; WORDS] {
    /// The numbers of lanes.
    static LANE: [u32; MAX_WIDTH] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let first = (first_block(group) as u32).wrapping_add(lane as u32);
    // SAFETY: the numbers are as many as the widest vector holds; any bits are an `f32`.
    let lanes = unsafe { v.load(LANE.as_ptr().cast()) };
    let counter = v.add_integers(v.splat(f32::from_bits(first)), lanes);
    let mut s = [counter; WORDS];
    for (to, word) in s.iter_mut().zip(start.mixed) {
        *to = v.splat(word);
    }
    s[12] = counter;
    quarter!(@added v, s, 0, 4, 8, 12);
    quarter!(v, s, 0, 5, 10, 15);
    quarter!(@added v, s, 1, 6, 11, 12);
    quarter!(@turned v, s, 2, 7, 8, 13);
    quarter!(v, s, 3, 4, 9, 14);
    for _ in 1..4 {
        quarter!(v, s, 0, 4, 8, 12);
        quarter!(v, s, 1, 5, 9, 13);
        quarter!(v, s, 2, 6, 10, 14);
        quarter!(v, s, 3, 7, 11, 15);
        quarter!(v, s, 0, 5, 10, 15);
        quarter!(v, s, 1, 6, 11, 12);
        quarter!(v, s, 2, 7, 8, 13);
        quarter!(v, s, 3, 4, 9, 14);
    }
    let mut at = 0;
    while at < WORDS {
        let own = if at == 12 {
            counter
        } else {
            v.splat(start.state[at])
        };
        s[at] = v.add_integers(s[at], own);
        at += 1;
    }
    s
}

/// Adds the numbers of one group.
#[inline(always)]
fn add_group<V: Simd>(
    v: V,
    table: &Table,
    start: &Start,
    group: u64,
    std: f32,
    before: &mut [f32; NORMAL_GROUP],
    to: &mut [f32; NORMAL_GROUP],
) {
    let scale = v.splat(std);
    let mut lane = 0;
    while lane < LANES {
        let words = words(v, start, group, lane);
        let mut common = v.splat(f32::from_bits(NOT_RARE));
        for (number, &bits) in words.iter().enumerate() {
            let other = v.xor(v.rotate_left::<16>(bits), v.splat(f32::from_bits(0xffff)));
            for (half, bits) in [bits, other].into_iter().enumerate() {
                let (z, octave) = normal(v, table, bits);
                common = v.and(common, octave);
                let at = (2 * number + half) * LANES + lane;
                // SAFETY: `at + N` is at most `NORMAL_GROUP`.
                unsafe {
                    let to = to.as_mut_ptr().add(at);
                    let own = v.load(to);
                    v.store(before.as_mut_ptr().add(at), own);
                    v.store(to, v.fma(scale, z, own));
                }
            }
        }
        let mut all = [f32::from_bits(NOT_RARE); MAX_WIDTH];
        // SAFETY: the array is as long as the widest vector.
        unsafe { v.store(all.as_mut_ptr(), common) };
        if all.iter().any(|own| own.to_bits() != NOT_RARE) {
            let mut drawn = [[0; MAX_WIDTH]; WORDS];
            for (to, word) in drawn.iter_mut().zip(words) {
                // SAFETY: as above; an `f32` has the bits of a `u32`.
                unsafe { v.store(to.as_mut_ptr().cast(), word) };
            }
            add_rare(&drawn, &all, lane, std, before, to);
        }
        lane += V::N;
    }
}

/// Once more the values of a group to which rare numbers are added: `drawn[word]` are the words of
/// the blocks from `lane` on, and `common` shows the blocks that may have any.
#[cold]
#[inline(never)]
fn add_rare(
    drawn: &[[u32; MAX_WIDTH]; WORDS],
    common: &[f32; MAX_WIDTH],
    lane: usize,
    std: f32,
    before: &[f32; NORMAL_GROUP],
    to: &mut [f32; NORMAL_GROUP],
) {
    for own in (0..MAX_WIDTH).filter(|own| common[*own].to_bits() != NOT_RARE) {
        for (number, words) in drawn.iter().enumerate() {
            for (half, bits) in [words[own], second(words[own])].into_iter().enumerate() {
                if bits & 0x7fff_ffff < RARE {
                    let at = (2 * number + half) * LANES + lane + own;
                    to[at] = std.mul_add(rare(bits), before[at]);
                }
            }
        }
    }
}

vectorized! {
    fn add_groups(
        v,
        table: &Table,
        key: &[u32; 8],
        first: u64,
        std: f32,
        values: &mut [f32],
    ) {
        let (groups, rest) = values.as_chunks_mut::<NORMAL_GROUP>();
        let mut group = first;
        let mut start = Start::of_group(key, group);
        let mut before = Group([0.0; NORMAL_GROUP]);
        for to in groups {
            add_group(v, table, &start, group, std, &mut before.0, to);
            group = group.wrapping_add(1);
            if first_block(group) as u32 == 0 {
                start = Start::of_group(key, group);
            }
        }
        if !rest.is_empty() {
            let mut own = Group([0.0; NORMAL_GROUP]);
            own.0[..rest.len()].copy_from_slice(rest);
            add_group(v, table, &start, group, std, &mut before.0, &mut own.0);
            rest.copy_from_slice(&own.0[..rest.len()]);
        }
    }
}

/// See [`super::Kernels::add_normals`].
pub(super) fn add(isa: Isa, key: &[u32; 8], first: u64, std: f32, values: &mut [f32]) {
    add_groups(isa, table(), key, first, std, values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernels;
    use fl_core::{ClientId, Purpose, RoundId, Seed, Stream, StreamAddress};
    use rand_core::Rng as _;

    fn address(seed: u64) -> StreamAddress {
        StreamAddress {
            purpose: Purpose::Testing,
            seed: Seed(seed),
            round: RoundId(0),
            client: ClientId(7),
        }
    }

    fn key(seed: u64) -> [u32; 8] {
        let bytes = address(seed).key();
        core::array::from_fn(|k| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[4 * k + byte])))
    }

    #[test]
    fn words_are_those_of_chacha8() {
        let mut stream = Stream::new(address(3));
        for group in 0..3 {
            for lane in 0..LANES {
                let expected: [u32; WORDS] = core::array::from_fn(|_| stream.next_u32());
                let found =
                    words(Scalar, &Start::of_group(&key(3), group), group, lane).map(f32::to_bits);
                assert_eq!(found, expected, "group {group}, block {lane}");
            }
        }
    }

    /// Exact values: Python's `statistics.NormalDist().inv_cdf`.
    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (bits, exact) in [
            (0u32, 6.337_958),
            (1 << 31, -6.337_958),
            (65_535, 4.169_571),
            (65_536, 4.169_569_3),
            (1 << 20, 3.487_104_1),
            (1_610_612_736, 0.318_639_36),
            (1_610_612_736 | 1 << 31, -0.318_639_36),
            (0x7fff_ffff, 0.0),
        ] {
            let found = if bits & 0x7fff_ffff < RARE {
                rare(bits)
            } else {
                normal(Scalar, table(), f32::from_bits(bits)).0
            };
            assert!(
                (found - exact).abs() < 2.5e-5,
                "{bits}: {found} for {exact}"
            );
        }
        let mut random = Stream::new(address(4));
        for _ in 0..100_000 {
            let bits = random.next_u32() >> (random.below(15) + 1);
            if bits < RARE {
                continue;
            }
            let found = normal(Scalar, table(), f32::from_bits(bits)).0;
            let p = tail(f64::from(found)) * libm::exp2(32.0);
            // Back to the probability: as close as 2.5e-5 standard deviations ask.
            let allowed = 2.5e-5 * (f64::from(found) + 1.0) * f64::from(bits) * 1.5;
            assert!((p - f64::from(bits)).abs() < allowed, "{bits}: {found}");
        }
    }

    #[test]
    fn every_instruction_set_adds_the_same_numbers_wherever_a_call_starts() {
        let all = Kernels::all_available();
        for len in [1, 15, 512, 513, 5000] {
            let run = |kernels: &Kernels, first: u64| {
                let mut values = (0..len).map(|k| k as f32).collect::<Vec<_>>();
                kernels.add_normals(&key(5), first, 0.5, &mut values);
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            // A counter that leaves 32 bits.
            for first in [0, (1 << 28) - 1] {
                let expected = run(&all[0], first);
                for kernels in all {
                    assert!(run(kernels, first) == expected, "{}", kernels.name());
                }
            }
        }
        let mut whole = vec![0.0; 4 * NORMAL_GROUP];
        all[0].add_normals(&key(6), 9, 1.0, &mut whole);
        let mut part = vec![0.0; NORMAL_GROUP];
        all[0].add_normals(&key(6), 11, 1.0, &mut part);
        assert_eq!(part, whole[2 * NORMAL_GROUP..3 * NORMAL_GROUP]);
        // The counter's upper half changes within a call as it does between calls.
        whole.fill(0.0);
        all[0].add_normals(&key(6), (1 << 28) - 2, 1.0, &mut whole);
        part.fill(0.0);
        all[0].add_normals(&key(6), 1 << 28, 1.0, &mut part);
        assert_eq!(part, whole[2 * NORMAL_GROUP..3 * NORMAL_GROUP]);
    }

    /// Moments within five deviations; Kolmogorov-Smirnov at an error rate of 1e-6; no two places
    /// that are near one another correlate.
    #[test]
    fn numbers_are_normal() {
        let n = 1 << 21;
        let mut numbers = vec![0.0f32; n];
        Kernels::best().add_normals(&key(8), 0, 1.0, &mut numbers);
        let count = n as f64;
        for (power, (expected, variance)) in [(0.0, 1.0), (1.0, 2.0), (0.0, 15.0), (3.0, 96.0)]
            .into_iter()
            .enumerate()
        {
            let sum: f64 = numbers
                .iter()
                .map(|z| (0..=power).map(|_| f64::from(*z)).product::<f64>())
                .sum();
            let off = (sum / count - expected).abs();
            assert!(off < 5.0 * libm::sqrt(variance / count), "{power}: {off}");
        }
        // The numbers of one word lie sixteen places apart.
        for apart in [1, 16, 32, NORMAL_GROUP / 2, NORMAL_GROUP] {
            let pairs = numbers.iter().zip(&numbers[apart..]);
            let [mut plain, mut squared] = [0.0; 2];
            for (a, b) in pairs {
                let (a, b) = (f64::from(*a), f64::from(*b));
                plain += a * b;
                squared += (a * a - 1.0) * (b * b - 1.0);
            }
            let deviation = libm::sqrt(count);
            assert!(plain.abs() < 5.0 * deviation, "{apart}: {plain}");
            assert!(squared.abs() < 10.0 * deviation, "{apart}: {squared}");
        }
        numbers.sort_by(f32::total_cmp);
        let mut distance = 0.0f64;
        for (place, z) in numbers.iter().enumerate() {
            let below = 1.0 - tail(f64::from(*z));
            let at = place as f64 / count;
            distance = distance
                .max((below - at).abs())
                .max((at + 1.0 / count - below).abs());
        }
        // 2 exp(-2 x^2) = 1e-6
        assert!(distance * libm::sqrt(count) < 2.7, "{distance}");
    }
}
