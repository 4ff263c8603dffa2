//! Random streams that are addressed, never shared.
//!
//! A [`Stream`] is a ChaCha8 generator (Bernstein 2008) whose 32-byte key *is* its
//! [address](StreamAddress): version, purpose, seed, round and client. Two streams are therefore
//! the same exactly when their addresses are, and no draw depends on what was drawn elsewhere
//! or on the order in which clients are scheduled.
//!
//! These streams are for simulated decisions. Secrets and production noise come from the
//! operating system through another type.

use chacha20::ChaCha8Rng;
use core::convert::Infallible;
use rand_core::{Rng, SeedableRng, TryRng};

use crate::units::{ClientId, RoundId, Seed};

/// The version of the address format; raising it changes every stream.
const ADDRESS_VERSION: u16 = 1;

/// What a stream is for. Append only: a number once given is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Purpose {
    /// The initial global parameters.
    ModelInit = 1,
    /// Which clients take part in a round.
    Selection = 2,
    /// A client's order of examples and its dropout masks in a round.
    LocalTraining = 3,
    /// How a data set falls apart into clients.
    Partition = 4,
    /// Generated data shared by all clients.
    DataGlobal = 5,
    /// Generated data of one client.
    DataClient = 6,
    /// A client's split into training and test examples.
    TrainTestSplit = 7,
    /// Who is slow, who drops out, how much work is done.
    Fleet = 8,
    /// Feature shift added to a client's examples.
    FeatureShift = 9,
    /// Which examples or clients are evaluated.
    Evaluation = 10,
    /// Tests and examples; never in an experiment.
    Testing = 11,
    /// Stochastic rounding and other randomness of an update codec.
    UpdateCodec = 12,
    /// Which examples calibrate a quantized model.
    Calibration = 13,
    /// A server's differentially private noise on a sum.
    CentralNoise = 14,
    /// A client's differentially private noise on its update.
    LocalNoise = 15,
    /// The signs of a randomised Hadamard rotation, shared by a cohort.
    Rotation = 16,
    /// A server's noise on the count of clipped updates.
    ClipNoise = 17,
    /// Which examples are in a step's sampled batch.
    ExampleSampling = 18,
    /// Which clients are canaries of a privacy audit, and which of them take part.
    Audit = 19,
    /// A simulated client's entropy in a session of secure aggregation.
    SecureAggregation = 20,
    /// A simulated client's long-term signing key.
    SigningKey = 21,
    /// Who is in which session of secure aggregation.
    Sessions = 22,
    /// What device a client has.
    Device = 23,
    /// When a client's device charges, has WiFi and is idle on one virtual day.
    DeviceDay = 24,
    /// How fast a client's transfers of a round are.
    Transfer = 25,
    /// How a client's training of a round is disturbed.
    DeviceSession = 26,
    /// Who takes a free place in an asynchronous run.
    Replacement = 27,
    /// Which devices are in which stage of a rollout, and when they check in.
    Rollout = 30,
    /// Whose examples a device judges a model version on.
    RolloutGuard = 31,
    /// Which region a client belongs to, and which regions fail.
    Region = 32,
    /// Faults that are done to a run on purpose.
    Fault = 33,
    /// Settings of a sweep that are drawn, in rounds from 1; in round 0, samples of its runs for an
    /// interval of their mean.
    Sweep = 34,
}

/// Where a stream lives. Unused fields are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamAddress {
    /// What the stream is for.
    pub purpose: Purpose,
    /// The experiment's seed.
    pub seed: Seed,
    /// The round, or zero where rounds have no meaning.
    pub round: RoundId,
    /// The client, or zero for the server.
    pub client: ClientId,
}

impl StreamAddress {
    /// The ChaCha8 key: `version:u16 purpose:u16 zero:u32 seed:u64 round:u64 client:u64`,
    /// little-endian.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key[0..2].copy_from_slice(&ADDRESS_VERSION.to_le_bytes());
        key[2..4].copy_from_slice(&(self.purpose as u16).to_le_bytes());
        key[8..16].copy_from_slice(&self.seed.0.to_le_bytes());
        key[16..24].copy_from_slice(&self.round.0.to_le_bytes());
        key[24..32].copy_from_slice(&self.client.0.to_le_bytes());
        key
    }
}

/// A deterministic generator at one [address](StreamAddress). Implements [`rand_core::Rng`].
#[derive(Debug)]
pub struct Stream {
    address: StreamAddress,
    rng: ChaCha8Rng,
    /// The second value of the last polar pair.
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream at `address`, from its start.
    #[must_use]
    pub fn new(address: StreamAddress) -> Self {
        Self {
            address,
            rng: ChaCha8Rng::from_seed(address.key()),
            spare_normal: None,
        }
    }

    /// Shorthand for [`Stream::new`].
    #[must_use]
    pub fn at(purpose: Purpose, seed: Seed, round: RoundId, client: ClientId) -> Self {
        Self::new(StreamAddress {
            purpose,
            seed,
            round,
            client,
        })
    }

    /// Where it lives.
    #[must_use]
    pub fn address(&self) -> StreamAddress {
        self.address
    }

    /// The stream of another purpose at the same seed, round and client, from its start.
    #[must_use]
    pub fn beside(&self, purpose: Purpose) -> Self {
        Self::new(StreamAddress {
            purpose,
            ..self.address
        })
    }

    /// A number in `0 .. bound`, without bias (Lemire 2019, arXiv:1805.10941, algorithm 5).
    /// Zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut wide = u128::from(self.rng.next_u64()) * u128::from(bound);
        let mut low = wide as u64;
        if low < bound {
            let threshold = bound.wrapping_neg() % bound;
            while low < threshold {
                wide = u128::from(self.rng.next_u64()) * u128::from(bound);
                low = wide as u64;
            }
        }
        (wide >> 64) as u64
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal number by Marsaglia's polar method (Marsaglia & Bray 1964). The
    /// elementary functions are `libm`'s, so the bits are the same on every platform.
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        loop {
            let u = 2.0 * self.uniform() - 1.0;
            let v = 2.0 * self.uniform() - 1.0;
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let factor = libm::sqrt(-2.0 * libm::log(s) / s);
                self.spare_normal = Some(v * factor);
                return u * factor;
            }
        }
    }

    /// Poisson sampling: each of `0 .. len` by itself with probability `rate`, in `[0, 1]`; calls
    /// `take` with those that are in, ascending.
    ///
    /// The gaps between them are geometric and are drawn directly (Devroye 1986, "Non-Uniform Random
    /// Variate Generation", chapter X.2), so time grows with their number and not with `len`.
    pub fn sample(&mut self, len: u64, rate: f64, mut take: impl FnMut(u64)) {
        // log(1 - rate); minus infinity when the rate is 1, and then every gap is zero.
        let log_miss = libm::log1p(-rate.clamp(0.0, 1.0));
        let mut next = 0u64;
        while next < len {
            let gap = libm::floor(libm::log(1.0 - self.uniform()) / log_miss);
            // A gap beyond all saturates; one without a value (at rate 0) is none.
            next = next.saturating_add(if gap.is_nan() { u64::MAX } else { gap as u64 });
            if next < len {
                take(next);
            }
            next = next.saturating_add(1);
        }
    }

    /// Shuffles `items` in place (Fisher-Yates, Durstenfeld 1964).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.rng.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng.fill_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_fits;

    fn testing(seed: u64) -> Stream {
        Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
    }

    /// Words 0, 1 and 9 of streams, from a ChaCha8 written in Python after the reference
    /// specification (which gives 3e00ef2f895f40d6.. for the zero key), with the address as key,
    /// a 64-bit block counter from zero and a zero nonce. These must never change.
    #[test]
    fn first_words_are_frozen() {
        type Case = (Purpose, u64, u64, u64, [u64; 3]);
        let cases: [Case; 6] = [
            (
                Purpose::Testing,
                0,
                0,
                0,
                [0x50adbfd86feb76cd, 0xe16c1d0278334be7, 0x591c86e04526b2],
            ),
            (
                Purpose::ModelInit,
                1,
                0,
                0,
                [0xd733a043d70bccf9, 0xaff46cb6670d49d1, 0xff7783c552528c41],
            ),
            (
                Purpose::Selection,
                1,
                7,
                0,
                [0xdb575555c09ab6d4, 0x943264c23dbb6413, 0x21bfb89061bc947a],
            ),
            (
                Purpose::LocalTraining,
                1,
                7,
                42,
                [0x1379b2544c48dc11, 0xa05d23cb0ba671b0, 0x1e8451c1e0670af8],
            ),
            (
                Purpose::LocalTraining,
                1,
                7,
                43,
                [0x77bf81afed304d65, 0x99857cce324b6ca7, 0x5dc149d302a5739e],
            ),
            (
                Purpose::UpdateCodec,
                u64::MAX,
                u64::MAX,
                u64::MAX,
                [0x5a2491a7cc9a11c3, 0xbb60c66fbffb0e01, 0xa5aa0b728a83c597],
            ),
        ];
        for (purpose, seed, round, client, expected) in cases {
            let mut stream = Stream::at(purpose, Seed(seed), RoundId(round), ClientId(client));
            let words: Vec<u64> = (0..10).map(|_| stream.next_u64()).collect();
            assert_eq!([words[0], words[1], words[9]], expected, "{purpose:?}");
        }
    }

    #[test]
    fn every_part_of_the_address_is_in_the_key() {
        let base = StreamAddress {
            purpose: Purpose::Testing,
            seed: Seed(1),
            round: RoundId(2),
            client: ClientId(3),
        };
        let others = [
            StreamAddress {
                purpose: Purpose::Fleet,
                ..base
            },
            StreamAddress {
                seed: Seed(2),
                ..base
            },
            StreamAddress {
                round: RoundId(3),
                ..base
            },
            StreamAddress {
                client: ClientId(2),
                ..base
            },
        ];
        for other in others {
            assert_ne!(base.key(), other.key(), "{other:?}");
        }
    }

    #[test]
    fn below_is_unbiased_and_in_range() {
        assert_eq!(testing(0).below(0), 0);
        assert_eq!(testing(0).below(1), 0);
        for bound in [2u64, 3, 7, 10, 100] {
            let mut stream = testing(bound);
            let mut counts = vec![0u64; bound as usize];
            for _ in 0..200_000 {
                counts[stream.below(bound) as usize] += 1;
            }
            assert_fits(&counts, &vec![200_000.0 / bound as f64; bound as usize]);
        }
        // Four words for every three numbers: without rejection one of three is drawn twice as
        // often.
        let bound = 3 << 62;
        let mut stream = testing(5);
        let mut counts = [0u64; 3];
        for _ in 0..90_000 {
            counts[(stream.below(bound) % 3) as usize] += 1;
        }
        assert_fits(&counts, &[30_000.0; 3]);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let n = 400_000;
        let moments = |draw: &mut dyn FnMut() -> f64| {
            let mut sums = [0.0; 4];
            for _ in 0..n {
                let x = draw();
                let mut power = 1.0;
                for sum in &mut sums {
                    power *= x;
                    *sum += power;
                }
            }
            sums.map(|sum| sum / f64::from(n))
        };
        let mut stream = testing(1);
        let uniform = moments(&mut || {
            let u = stream.uniform();
            assert!((0.0..1.0).contains(&u));
            u
        });
        // E[u^k] = 1/(k+1); the deviation of the mean of n is below 0.3/sqrt(n).
        for (k, moment) in uniform.into_iter().enumerate() {
            assert!((moment - 1.0 / (k + 2) as f64).abs() < 0.002, "{uniform:?}");
        }
        let normal = moments(&mut || stream.normal());
        // Moments 0, 1, 0, 3 with variances 1, 2, 15, 96 over n.
        for ((moment, expected), variance) in normal
            .into_iter()
            .zip([0.0, 1.0, 0.0, 3.0])
            .zip([1.0f64, 2.0, 15.0, 96.0])
        {
            let deviation = libm::sqrt(variance / f64::from(n));
            assert!((moment - expected).abs() < 5.0 * deviation, "{normal:?}");
        }
    }

    #[test]
    fn samples_are_independent_draws() {
        // Every subset of four, against rate^in (1 - rate)^out.
        for (seed, rate) in [(0, 0.1), (1, 0.5), (2, 0.93)] {
            let mut stream = testing(seed);
            let mut counts = [0u64; 16];
            for _ in 0..40_000 {
                let mut set = 0;
                stream.sample(4, rate, |index| set |= 1 << index);
                counts[set] += 1;
            }
            let expected = |set: u32| {
                let taken = set.count_ones() as i32;
                40_000.0
                    * libm::pow(rate, f64::from(taken))
                    * libm::pow(1.0 - rate, f64::from(4 - taken))
            };
            let expected: Vec<f64> = (0..16).map(expected).collect();
            // Sets that hardly ever happen are counted together.
            let (mut few, mut rare) = (0, 0.0);
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            for (&count, &expected) in counts.iter().zip(&expected) {
                if expected < 20.0 {
                    few += count;
                    rare += expected;
                } else {
                    found.push(count);
                    wanted.push(expected);
                }
            }
            if rare >= 20.0 {
                found.push(few);
                wanted.push(rare);
            }
            assert_fits(&found, &wanted);
        }
        let all = |rate| {
            let mut taken = Vec::new();
            testing(3).sample(5, rate, |index| taken.push(index));
            taken
        };
        assert_eq!(all(1.0), [0, 1, 2, 3, 4]);
        assert!(all(0.0).is_empty());
        let mut stream = testing(4);
        stream.sample(u64::MAX, 1e-17, |index| assert!(index < u64::MAX));
    }

    #[test]
    fn streams_beside_have_their_own_address() {
        let (seed, round, client) = (Seed(3), RoundId(5), ClientId(7));
        let mut here = Stream::at(Purpose::LocalTraining, seed, round, client);
        let _ = here.next_u64();
        let mut there = Stream::at(Purpose::LocalNoise, seed, round, client);
        assert_eq!(
            here.beside(Purpose::LocalNoise).next_u64(),
            there.next_u64()
        );
    }

    #[test]
    fn every_permutation_is_equally_likely() {
        let mut stream = testing(2);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            stream.shuffle(&mut items);
            *counts.entry(items).or_insert(0u64) += 1;
        }
        let counts: Vec<u64> = counts.into_values().collect();
        assert_fits(&counts, &[1000.0; 24]);
        stream.shuffle::<u8>(&mut []);
    }
}
