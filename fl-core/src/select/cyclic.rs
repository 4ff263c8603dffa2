//! Clients are split into groups that take turns: each client can take part once in a `period`,
//! always the same number of rounds apart (Choquette-Choo et al. 2023, arXiv:2306.08153, section
//! 4). That bounds how often and how close together a client takes part, which is what correlated
//! noise is fitted to.
//!
//! The groups are a pseudo-random permutation of the candidates, keyed by the seed, dealt out in
//! turn: Feistel rounds (Luby and Rackoff 1988) on a domain of a power of four, walked until the
//! value is inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). So the sizes
//! differ by at most one, and time grows with the group, not with the population. The permutation
//! is of places: the candidates must be the same in every round.

use rand_core::Rng as _;
use serde::{Deserialize, Serialize};

use super::{Candidates, SelectError, Selection, Selector, poisson};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::{Stream, StreamAddress};
use crate::units::{ClientId, RoundId};

/// Keys of `kind = "cyclic"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CyclicConfig {
    /// The number of groups, in `[1, 2^40]`; a group's turn comes every so many rounds.
    pub period: u64,
    /// Probability of each client of the group whose turn it is, in `(0, 1]`.
    #[serde(default = "super::size::one")]
    pub rate: f64,
}

/// Groups that take turns, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cyclic {
    period: u64,
    rate: f64,
}

impl Registered for Cyclic {
    type Config = CyclicConfig;
    const SUMMARY: &'static str =
        "Fixed random groups that take turns: each client can take part once in a period.";
    const KEYS: &'static [KeyInfo] = &[
        KeyInfo {
            key: "period",
            expects: "whole number above 0",
            default: None,
            summary: "Number of groups, and rounds from one turn of a group to its next.",
        },
        KeyInfo {
            key: "rate",
            expects: "number above 0, at most 1",
            default: Some("1.0"),
            summary: "Probability of each client of the group, independently.",
        },
    ];

    fn from_config(config: CyclicConfig) -> Result<Self, ConfigError> {
        let CyclicConfig { period, rate } = config;
        ConfigError::unless(
            (1..=1 << 40).contains(&period),
            "period",
            period,
            "a whole number of at least 1 and at most 2^40",
        )?;
        ConfigError::unless(
            rate > 0.0 && rate <= 1.0,
            "rate",
            rate,
            "a number above 0 and at most 1",
        )?;
        Ok(Self { period, rate })
    }

    fn examples() -> Vec<CyclicConfig> {
        [(1, 1.0), (10, 1.0), (4, 0.5), (1000, 1.0)]
            .map(|(period, rate)| CyclicConfig { period, rate })
            .to_vec()
    }
}

impl Selector for Cyclic {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let available = candidates.len();
        let address = stream.address();
        let group = address.round.0 % self.period;
        let size = available.saturating_sub(group).div_ceil(self.period);
        let order = Permutation::keyed(address, available);
        let mut indices: Vec<u64> = poisson::independent(size, self.rate, stream)
            .into_iter()
            .map(|index| order.at(group + index * self.period))
            .collect();
        indices.sort_unstable();
        let goal = indices.len() as u64;
        Ok(Selection {
            clients: candidates.at(indices),
            goal,
        })
    }

    fn largest_goal(&self, population: u64) -> u64 {
        population.div_ceil(self.period)
    }
}

/// Feistel rounds. Four hide a large permutation; on a domain of sixteen, six are still seen by a
/// chi-square test of 42,000 permutations and twelve are not.
const ROUNDS: usize = 12;

/// A permutation of `0 .. size`.
#[derive(Debug)]
struct Permutation {
    size: u64,
    /// Bits of half a value.
    half: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The same for all rounds of a run: its keys are drawn at an address of their own, that of
    /// client 1 in round 0, which is no round's.
    fn keyed(address: StreamAddress, size: u64) -> Self {
        let mut stream = Stream::new(StreamAddress {
            round: RoundId(0),
            client: ClientId(1),
            ..address
        });
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        Self {
            size,
            half: bits.div_ceil(2).max(1),
            keys: core::array::from_fn(|_| stream.next_u64()),
        }
    }

    /// Where `index < size` goes.
    fn at(&self, index: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let mut value = index;
        // The cycle of `index` returns to it, so it meets a value inside; the domain is less than
        // eight times the size, so soon.
        loop {
            let (mut left, mut right) = (value >> self.half, value & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            value = left << self.half | right;
            if value < self.size {
                return value;
            }
        }
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::selection_stream;
    use crate::testing::assert_fits;
    use crate::units::Seed;

    #[test]
    fn permutations_are_permutations_and_look_random() {
        for size in [1u64, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000] {
            let address = selection_stream(Seed(1), RoundId(9)).address();
            let order = Permutation::keyed(address, size);
            let mut all: Vec<u64> = (0..size).map(|index| order.at(index)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..size));
        }
        // Where two places of seven go: each pair equally often.
        let mut counts = [0u64; 42];
        for seed in 0..42_000 {
            let address = selection_stream(Seed(seed), RoundId(0)).address();
            let order = Permutation::keyed(address, 7);
            let (a, b) = (order.at(0), order.at(4));
            counts[(a * 6 + b - u64::from(b > a)) as usize] += 1;
        }
        assert_fits(&counts, &[1000.0; 42]);
        // A huge domain, walked.
        let address = selection_stream(Seed(1), RoundId(0)).address();
        let order = Permutation::keyed(address, (1 << 60) + 1);
        let mut octants = [0u64; 8];
        for index in 0..8000 {
            octants[(order.at(index) * 8 / ((1 << 60) + 1)).min(7) as usize] += 1;
        }
        assert_fits(&octants, &[1000.0; 8]);
    }
}
