//! A cohort of fixed size, uniformly drawn among those who have not taken part in the last
//! `separation - 1` rounds. So a client rests, but who comes with whom is random each time: what
//! production systems do by timers, and what correlated noise is fitted to (Kairouz et al. 2021,
//! arXiv:2103.00039; Choquette-Choo et al. 2023, arXiv:2306.08153).
//!
//! Who rests follows from the earlier rounds' draws, and those from their addresses, so there is
//! still nothing to checkpoint: a selector that is asked for a round it has not arrived at draws
//! the rounds before. One that plays them in order remembers who rests, `cohort * separation`
//! numbers, and draws each once. Places are remembered, not ids: the candidates must be the same
//! in every round. A predicate may differ: who is drawn and not eligible misses the round, and
//! rests like the others.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::uniform::sample;
use super::{Candidates, SelectError, Selection, Selector};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::{Stream, StreamAddress};
use crate::units::RoundId;

/// Keys of `kind = "separated"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeparatedConfig {
    /// Reports that complete a round, in `[1, 2^40]`; fewer where too many rest.
    pub cohort: u64,
    /// Rounds from one participation of a client to its next, at least; in `[1, 2^20]`.
    pub separation: u64,
}

/// Uniform selection among the rested, see the [module](self).
#[derive(Debug)]
pub struct Separated {
    config: SeparatedConfig,
    /// Of the last selection. What is selected does not depend on it.
    memory: Mutex<Option<Memory>>,
}

/// Who rests before a round.
#[derive(Debug)]
struct Memory {
    /// Of the round that is drawn next.
    address: StreamAddress,
    available: u64,
    resting: BTreeSet<u64>,
    /// The same by rounds, oldest first.
    cohorts: VecDeque<Vec<u64>>,
}

impl Clone for Separated {
    fn clone(&self) -> Self {
        Self::new(self.config)
    }
}

impl PartialEq for Separated {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Separated {
    fn new(config: SeparatedConfig) -> Self {
        Self {
            config,
            memory: Mutex::new(None),
        }
    }
}

impl Registered for Separated {
    type Config = SeparatedConfig;
    const SUMMARY: &'static str =
        "A cohort of fixed size, uniform among the clients that have rested long enough.";
    const KEYS: &'static [KeyInfo] = &[
        super::size::COHORT,
        KeyInfo {
            key: "separation",
            expects: "whole number above 0, at most 2^20",
            default: None,
            summary: "Rounds from one participation of a client to its next, at least.",
        },
    ];

    fn from_config(config: SeparatedConfig) -> Result<Self, ConfigError> {
        ConfigError::unless(
            (1..=1 << 40).contains(&config.cohort),
            "cohort",
            config.cohort,
            "a whole number of at least 1 and at most 2^40",
        )?;
        ConfigError::unless(
            (1..=1 << 20).contains(&config.separation),
            "separation",
            config.separation,
            "a whole number of at least 1 and at most 2^20",
        )?;
        Ok(Self::new(config))
    }

    fn examples() -> Vec<SeparatedConfig> {
        [(1, 1), (10, 1), (10, 5), (100, 4)]
            .map(|(cohort, separation)| SeparatedConfig { cohort, separation })
            .to_vec()
    }
}

impl Selector for Separated {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let address = stream.address();
        let available = candidates.len();
        let at = |round| StreamAddress { round, ..address };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = memory.take().filter(|memory| {
            let next = memory.address.round;
            memory.address == at(next) && memory.available == available && next <= address.round
        });
        let mut state = remembered.unwrap_or_else(|| Memory {
            address: at(RoundId(0)),
            available,
            resting: BTreeSet::new(),
            cohorts: VecDeque::new(),
        });
        while state.address.round < address.round {
            state.draw(&self.config);
        }
        let indices = state.draw(&self.config);
        *memory = Some(state);
        Ok(candidates.admitted(candidates.at(indices)))
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.config.cohort.min(population)
    }
}

impl Memory {
    /// The next round's places, ascending.
    fn draw(&mut self, config: &SeparatedConfig) -> Vec<u64> {
        let awake = self.available - self.resting.len() as u64;
        let mut stream = Stream::new(self.address);
        let mut drawn = sample(config.cohort.min(awake), awake, &mut stream);
        // From numbers among the awake to places: each sleeper at or before one moves it on.
        let mut resting = self.resting.iter().peekable();
        let mut passed = 0;
        for index in &mut drawn {
            while resting
                .next_if(|&&place| place <= *index + passed)
                .is_some()
            {
                passed += 1;
            }
            *index += passed;
        }
        self.resting.extend(&drawn);
        self.cohorts.push_back(drawn.clone());
        if self.cohorts.len() as u64 >= config.separation
            && let Some(rested) = self.cohorts.pop_front()
        {
            for place in rested {
                self.resting.remove(&place);
            }
        }
        self.address.round = RoundId(self.address.round.0 + 1);
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::selection_stream;
    use crate::testing::assert_fits;
    use crate::units::Seed;

    fn separated(cohort: u64, separation: u64) -> Separated {
        Separated::from_config(SeparatedConfig { cohort, separation }).unwrap()
    }

    fn places(selector: &Separated, population: u64, seed: u64, round: u64) -> Vec<u64> {
        let mut stream = selection_stream(Seed(seed), RoundId(round));
        let everyone = Candidates::everyone(population);
        let selection = selector.select(&everyone, &mut stream).unwrap();
        assert_eq!(selection.goal, selection.clients.len() as u64);
        selection.clients.iter().map(|client| client.0).collect()
    }

    /// From the definition: list the awake, take those at uniformly drawn places.
    #[test]
    fn the_rested_are_drawn_as_written_down() {
        for (population, cohort, separation) in [
            (40, 5, 4),
            (9, 1, 9),
            (9, 2, 5),
            (100, 20, 5),
            (7, 3, 1),
            (5, 9, 3),
        ] {
            let selector = separated(cohort, separation);
            let mut last = vec![None; population as usize];
            for round in 0..60u64 {
                let awake: Vec<u64> = (0..population)
                    .filter(|&place| {
                        last[place as usize].is_none_or(|before| round - before >= separation)
                    })
                    .collect();
                let wanted = cohort.min(awake.len() as u64);
                let mut stream = selection_stream(Seed(3), RoundId(round));
                let expected: Vec<u64> = sample(wanted, awake.len() as u64, &mut stream)
                    .into_iter()
                    .map(|index| awake[index as usize])
                    .collect();
                for &place in &expected {
                    last[place as usize] = Some(round);
                }
                assert_eq!(places(&selector, population, 3, round), expected);
            }
        }
    }

    #[test]
    fn any_round_of_any_run_can_be_asked_for() {
        let selector = separated(5, 6);
        let ask = |selector: &Separated, (seed, population, round)| {
            places(selector, population, seed, round)
        };
        for wanted in [
            (1, 50, 9),
            (1, 50, 10),
            (1, 50, 10),
            (1, 50, 3),
            (2, 50, 4),
            (2, 50, 7),
            (2, 51, 8),
            (1, 50, 11),
        ] {
            assert_eq!(ask(&selector, wanted), ask(&selector.clone(), wanted));
        }
    }

    /// One of five with two resting: the three others are equally likely.
    #[test]
    fn the_rested_are_equally_likely() {
        let selector = separated(1, 3);
        let mut counts = [0u64; 3];
        let mut before = (places(&selector, 5, 1, 0)[0], places(&selector, 5, 1, 1)[0]);
        for round in 2..30_002 {
            let now = places(&selector, 5, 1, round)[0];
            let awake = (0..5).filter(|place| ![before.0, before.1].contains(place));
            let rank = awake.into_iter().position(|place| place == now);
            counts[rank.expect("the others rest")] += 1;
            before = (before.1, now);
        }
        assert_fits(&counts, &[10_000.0; 3]);
    }
}
