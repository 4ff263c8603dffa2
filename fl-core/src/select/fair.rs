//! Those that took part least come first, at random among equals.
//!
//! It is Oort's fairness criterion with all weight on it: there, a client's utility may be mixed with
//! `max usage - own usage` (Lai et al. 2021, arXiv:2010.06081), usage being rounds here. With everyone
//! eligible, participations never differ by more than one; with some of them, nobody who is eligible
//! waits while someone is asked who took part more often.
//!
//! Clients that never took part are drawn as by `uniform`; once all eligible ones have, nothing but
//! looking shows it, and time grows with the population, as does then the history.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::size::{self, Size};
use super::{Candidates, SelectError, Selection, Selector, uniform};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;
use crate::units::ClientId;

/// Keys of `kind = "fair"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FairConfig {
    /// Reports that complete a round, at least 1.
    pub cohort: u64,
    /// So many times the cohort is asked; in `[1, 100]`.
    #[serde(default = "size::one")]
    pub over_select: f64,
}

/// Balanced participation, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fair {
    size: Size,
}

impl Registered for Fair {
    type Config = FairConfig;
    const SUMMARY: &'static str = "Those that took part least, at random among equals.";
    const KEYS: &'static [KeyInfo] = &[size::COHORT, size::OVER_SELECT];

    fn from_config(config: FairConfig) -> Result<Self, ConfigError> {
        let size = Size::new(config.cohort, config.over_select)?;
        Ok(Self { size })
    }

    fn examples() -> Vec<FairConfig> {
        [(1, 1.0), (10, 1.0), (10, 1.3)]
            .map(|(cohort, over_select)| FairConfig {
                cohort,
                over_select,
            })
            .to_vec()
    }
}

impl Selector for Fair {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let asked = self.size.asked(candidates.len());
        let chosen = self.choose(asked, candidates, stream)?;
        Ok(self.size.cohort_of(chosen))
    }

    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let history = candidates.history().ok_or(SelectError::NoHistory)?;
        let mut levels: BTreeMap<u64, Vec<ClientId>> = BTreeMap::new();
        let mut among = 0;
        for (client, past) in history
            .iter()
            .filter(|(client, _)| candidates.holds(*client))
        {
            among += 1;
            levels.entry(past.rounds).or_default().push(client);
        }
        let mut chosen = if among < candidates.len() {
            candidates.without(&|client| history.past(client).is_some(), |new| {
                uniform::draw(wanted, new, stream)
            })
        } else {
            Selection::default()
        };
        let mut screen = candidates.screen();
        for mut level in levels.into_values() {
            let missing = wanted.saturating_sub(chosen.clients.len() as u64);
            if missing == 0 {
                break;
            }
            level.retain(|&client| screen.admits(client));
            let available = level.len() as u64;
            let places = uniform::sample(missing.min(available), available, stream);
            let drawn = places.into_iter().map(|place| level[place as usize]);
            chosen.clients.extend(drawn);
        }
        chosen.clients.sort_unstable();
        Ok(Selection {
            goal: chosen.clients.len() as u64,
            screened: chosen.screened.and(screen.screened()),
            ..chosen
        })
    }

    fn needs_history(&self) -> bool {
        true
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.size.goal(population)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::{History, Participation, selection_stream};
    use crate::testing::assert_fits;
    use crate::units::{RoundId, Seed};

    fn fair(cohort: u64) -> Fair {
        Fair::from_config(FairConfig {
            cohort,
            over_select: 1.0,
        })
        .unwrap()
    }

    fn play(
        history: &mut History,
        candidates: &Candidates<'_>,
        cohort: u64,
        round: u64,
    ) -> Vec<u64> {
        let mut stream = selection_stream(Seed(6), RoundId(round));
        let candidates = candidates.with_history(history);
        let clients = fair(cohort)
            .select(&candidates, &mut stream)
            .unwrap()
            .clients;
        for &client in &clients {
            history.took_part(client, RoundId(round), Participation::default());
        }
        clients.into_iter().map(|client| client.0).collect()
    }

    #[test]
    fn participations_never_differ_by_more_than_one() {
        let mut history = History::default();
        for round in 0..200 {
            play(&mut history, &Candidates::everyone(23), 5, round);
            let rounds = |client| history.past(ClientId(client)).map_or(0, |past| past.rounds);
            let rounds: Vec<u64> = (0..23).map(rounds).collect();
            let (least, most) = (rounds.iter().min().unwrap(), rounds.iter().max().unwrap());
            assert!(most - least <= 1, "{rounds:?}");
        }
    }

    /// Who is not eligible waits, and catches up.
    #[test]
    fn nobody_eligible_waits_for_someone_who_took_part_more_often() {
        let mut history = History::default();
        for round in 0..300u64 {
            let eligible = |client: ClientId| (client.0 * 7 + round) % 5 < 2;
            let before = history.clone();
            let chosen = play(&mut history, &Candidates::eligible(40, &eligible), 6, round);
            let rounds = |client| before.past(ClientId(client)).map_or(0, |past| past.rounds);
            let most = chosen.iter().map(|&client| rounds(client)).max().unwrap();
            for waits in (0..40).filter(|client| !chosen.contains(client)) {
                assert!(!eligible(ClientId(waits)) || rounds(waits) >= most);
            }
        }
    }

    /// One of two equals, with a third that took part once more.
    #[test]
    fn equals_are_as_likely() {
        let mut counts = [0u64; 3];
        for round in 0..6_000 {
            let mut history = History::default();
            for client in [0, 1, 1, 2] {
                history.took_part(ClientId(client), RoundId(0), Participation::default());
            }
            counts[play(&mut history, &Candidates::everyone(3), 1, round)[0] as usize] += 1;
        }
        assert_eq!(counts[1], 0);
        assert_fits(&[counts[0], counts[2]], &[3_000.0; 2]);
    }
}
