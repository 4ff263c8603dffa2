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
    rng: ChaCha8Rng,
    /// The second value of the last polar pair.
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream at `address`, from its start.
    #[must_use]
    pub fn new(address: StreamAddress) -> Self {
        Self {
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
