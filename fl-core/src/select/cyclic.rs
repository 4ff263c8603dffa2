//! Clients are split into groups that take turns: each client can take part once in a `period`,
//! always the same number of rounds apart (Choquette-Choo et al. 2023, arXiv:2306.08153).
//! That bounds how often and how close together a client takes part, which is what correlated
//! noise is fitted to.
//!
//! Of each `period` consecutive ids, one is in each group: the ids in order from a group that is
//! drawn for the block. So a client's group follows from the seed and its own id alone, whoever
//! else there is; sizes differ by at most one; and time grows with the group, not with the
//! population (with the list, where candidates are listed). Who is not eligible on its turn misses
//! it.

use alloc::vec::Vec;

use rand_core::Rng as _;
use serde::{Deserialize, Serialize};

use super::{Candidates, Ids, SelectError, Selection, Selector, poisson};
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
        [(1, 1.0), (10, 1.0), (4, 0.5), (50, 1.0)]
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
        let address = stream.address();
        let groups = Groups::keyed(address, self.period);
        let turn = address.round.0 % self.period;
        let clients: Vec<ClientId> = match candidates.ids {
            Ids::Everyone(population) => {
                poisson::independent(population.div_ceil(self.period), self.rate, stream)
                    .into_iter()
                    .filter_map(|block| groups.member(block, turn))
                    .filter(|client| client.0 < population)
                    .collect()
            }
            Ids::Listed(listed) => {
                let is_next = |client: &&ClientId| groups.of(**client) == turn;
                let group: Vec<ClientId> = listed.iter().filter(is_next).copied().collect();
                poisson::independent(group.len() as u64, self.rate, stream)
                    .into_iter()
                    .map(|index| group[index as usize])
                    .collect()
            }
        };
        Ok(candidates.admitted(clients))
    }

    fn largest_goal(&self, population: u64) -> u64 {
        population.div_ceil(self.period)
    }
}

/// Who is in which group.
#[derive(Clone, Copy, Debug)]
struct Groups {
    period: u64,
    key: u64,
}

impl Groups {
    /// The same for all rounds of a run: the key is drawn at an address of its own, that of
    /// client 1 in round 0, where no selection draws.
    fn keyed(address: StreamAddress, period: u64) -> Self {
        let mut stream = Stream::new(StreamAddress {
            round: RoundId(0),
            client: ClientId(1),
            ..address
        });
        let key = stream.next_u64();
        Self { period, key }
    }

    /// The group of the first id of a block: a number of `SplitMix64` at place `block` after the
    /// key (Steele, Lea and Flood 2014), scaled to the groups.
    fn first(&self, block: u64) -> u64 {
        let value = self
            .key
            .wrapping_add(block.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let value = value ^ value >> 31;
        ((u128::from(value) * u128::from(self.period)) >> 64) as u64
    }

    fn of(&self, client: ClientId) -> u64 {
        let (block, place) = (client.0 / self.period, client.0 % self.period);
        (self.first(block) + place) % self.period
    }

    /// The one client of a block that is in a group; none beyond the last id.
    fn member(&self, block: u64, group: u64) -> Option<ClientId> {
        let place = (group + self.period - self.first(block)) % self.period;
        let id = block.checked_mul(self.period)?.checked_add(place)?;
        Some(ClientId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::selection_stream;
    use crate::testing::assert_fits;
    use crate::units::Seed;

    fn cyclic(period: u64, rate: f64) -> Cyclic {
        Cyclic::from_config(CyclicConfig { period, rate }).unwrap()
    }

    fn select(selector: &Cyclic, candidates: &Candidates<'_>, seed: u64, round: u64) -> Vec<u64> {
        let mut stream = selection_stream(Seed(seed), RoundId(round));
        let selection = selector.select(candidates, &mut stream).unwrap();
        selection.clients.iter().map(|client| client.0).collect()
    }

    /// In each period everybody comes once, and in the next again in the same order.
    #[test]
    fn groups_take_turns() {
        for (population, period) in [(23u64, 5u64), (20, 5), (3, 5), (1, 1), (1000, 7)] {
            let everyone = Candidates::everyone(population);
            let turns: Vec<_> = (0..3 * period)
                .map(|round| select(&cyclic(period, 1.0), &everyone, 5, round))
                .collect();
            for (round, cohort) in turns.iter().enumerate().skip(period as usize) {
                assert_eq!(*cohort, turns[round - period as usize]);
            }
            let mut seen: Vec<u64> = turns[..period as usize].concat();
            let sizes = turns[..period as usize].iter().map(Vec::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..population));
        }
    }

    /// Whoever else there is, a client's turn is the same.
    #[test]
    fn a_turn_is_a_clients_own() {
        let turns = |ids: &[ClientId]| -> Vec<(u64, u64)> {
            let candidates = Candidates::listed(ids).unwrap();
            (0..6)
                .flat_map(|round| {
                    let cohort = select(&cyclic(6, 1.0), &candidates, 1, round);
                    cohort.into_iter().map(move |client| (client, round))
                })
                .collect()
        };
        let all: Vec<ClientId> = (0..100).map(|id| ClientId(3 * id + 1)).collect();
        let some: Vec<ClientId> = all.iter().copied().step_by(7).collect();
        let of_all = turns(&all);
        assert_eq!(of_all.len(), 100);
        assert!(turns(&some).iter().all(|turn| of_all.contains(turn)));
        let everyone = Candidates::everyone(301);
        for (client, round) in of_all {
            assert!(select(&cyclic(6, 1.0), &everyone, 1, round).contains(&client));
        }
    }

    /// Two clients of different blocks are together as often as chance has it; with a rate each
    /// member of the group comes as often as it says, and nobody else.
    #[test]
    fn groups_are_random_and_rates_are_kept() {
        let mut counts = [0u64; 49];
        for seed in 0..49_000 {
            let address = selection_stream(Seed(seed), RoundId(3)).address();
            let groups = Groups::keyed(address, 7);
            let (a, b) = (groups.of(ClientId(2)), groups.of(ClientId(7 * 11 + 4)));
            counts[(7 * a + b) as usize] += 1;
        }
        assert_fits(&counts, &[1000.0; 49]);

        let everyone = Candidates::everyone(23);
        let groups: Vec<_> = (0..5)
            .map(|round| select(&cyclic(5, 1.0), &everyone, 5, round))
            .collect();
        let mut counts = [0u64; 23];
        for round in 0..20_000 {
            for client in select(&cyclic(5, 0.25), &everyone, 5, round) {
                counts[client as usize] += 1;
                assert!(groups[round as usize % 5].contains(&client));
            }
        }
        assert_fits(&counts, &[1000.0; 23]);
    }

    #[test]
    fn a_group_of_a_huge_population_costs_no_more_than_the_group() {
        let everyone = Candidates::everyone(1 << 50);
        let group = select(&cyclic(1 << 40, 1.0), &everyone, 5, 77);
        assert!((1023..=1024).contains(&group.len()));
        let mut octants = [0u64; 8];
        for client in group {
            octants[((client % (1 << 40)) >> 37) as usize] += 1;
        }
        assert_fits(&octants, &[128.0; 8]);
    }
}
