//! Power-of-choice: Cho, Wang, Joshi 2020, "Client Selection in Federated Learning: Convergence
//! Analysis and Power-of-Choice Selection Strategies", arXiv:2010.01243, section 4.
//!
//! `d` candidates are drawn without replacement in proportion to their examples; of them the `m` with
//! the highest local loss take part. This is the form `rpow-d`, which costs nothing more: the loss is
//! the one that a client reported when it last took part, and infinite before that. Equals are in
//! random order.
//!
//! Time grows with the number of candidates, memory with `d`, as for `weighted`.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::size::{self, Size};
use super::{Candidates, SelectError, Selection, Selector, weighted};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;

/// Keys of `kind = "power-of-choice"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerOfChoiceConfig {
    /// Reports that complete a round, at least 1.
    pub cohort: u64,
    /// The paper's `d`: so many are drawn, at least as many as are asked.
    pub candidates: u64,
    /// So many times the cohort is asked; in `[1, 100]`.
    #[serde(default = "size::one")]
    pub over_select: f64,
}

/// The highest losses of a draw, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerOfChoice {
    candidates: u64,
    size: Size,
}

impl Registered for PowerOfChoice {
    type Config = PowerOfChoiceConfig;
    const SUMMARY: &'static str =
        "Those with the highest last loss among some that are drawn (Cho et al. 2020, rpow-d).";
    const KEYS: &'static [KeyInfo] = &[
        size::COHORT,
        KeyInfo {
            key: "candidates",
            expects: "whole number, at least as many as are asked",
            default: None,
            summary: "So many are drawn in proportion to their examples; the paper's d.",
        },
        size::OVER_SELECT,
    ];

    fn from_config(config: PowerOfChoiceConfig) -> Result<Self, ConfigError> {
        let size = Size::new(config.cohort, config.over_select)?;
        ConfigError::unless(
            (size.asked(u64::MAX)..=1 << 40).contains(&config.candidates),
            "candidates",
            config.candidates,
            "a whole number of at least as many clients as are asked, and at most 2^40",
        )?;
        Ok(Self {
            candidates: config.candidates,
            size,
        })
    }

    fn examples() -> Vec<PowerOfChoiceConfig> {
        [(1, 3, 1.0), (10, 20, 1.0), (10, 30, 1.3)]
            .map(|(cohort, candidates, over_select)| PowerOfChoiceConfig {
                cohort,
                candidates,
                over_select,
            })
            .to_vec()
    }
}

impl Selector for PowerOfChoice {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let asked = self.size.asked(u64::MAX);
        let chosen = highest(asked, self.candidates, candidates, stream)?;
        Ok(self.size.cohort_of(chosen))
    }

    /// Draws `d/m` times as many as are wanted.
    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let asked = u128::from(self.size.asked(u64::MAX));
        let drawn = (u128::from(wanted) * u128::from(self.candidates)).div_ceil(asked);
        let drawn = u64::try_from(drawn).unwrap_or(u64::MAX);
        highest(wanted, drawn, candidates, stream)
    }

    fn needs_history(&self) -> bool {
        true
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.size.goal(population)
    }
}

/// The `wanted` with the highest last loss of `drawn` that are drawn.
fn highest(
    wanted: u64,
    drawn: u64,
    candidates: &Candidates<'_>,
    stream: &mut Stream,
) -> Result<Selection, SelectError> {
    let history = candidates.history().ok_or(SelectError::NoHistory)?;
    let Selection {
        mut clients,
        screened,
        ..
    } = weighted::draw(drawn, candidates, stream)?;
    stream.shuffle(&mut clients);
    let loss = |client| {
        let loss = history.past(client).and_then(|past| past.last.loss);
        loss.filter(|loss| loss.is_finite())
            .unwrap_or(f64::INFINITY)
    };
    let mut ranked: Vec<_> = clients
        .into_iter()
        .map(|client| (loss(client), client))
        .collect();
    // Stable: equals stay in the order of the shuffle.
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    let mut clients: Vec<_> = ranked.into_iter().map(|(_, client)| client).collect();
    clients.sort_unstable();
    Ok(Selection {
        goal: clients.len() as u64,
        clients,
        screened,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::{History, Participation, selection_stream};
    use crate::testing::assert_fits;
    use crate::units::{ClientId, ExampleCount, RoundId, Seed};

    fn selector(cohort: u64, candidates: u64) -> PowerOfChoice {
        let config = PowerOfChoiceConfig {
            cohort,
            candidates,
            over_select: 1.0,
        };
        PowerOfChoice::from_config(config).unwrap()
    }

    fn history(losses: &[(u64, f64)]) -> History {
        let mut history = History::default();
        for &(client, loss) in losses {
            let part = Participation {
                loss: Some(loss),
                ..Participation::default()
            };
            history.took_part(ClientId(client), RoundId(0), part);
        }
        history
    }

    fn chosen(
        selector: &PowerOfChoice,
        history: &History,
        population: u64,
        round: u64,
    ) -> Vec<u64> {
        let examples = |client: ClientId| ExampleCount(1 + client.0);
        let candidates = Candidates::everyone(population)
            .with_examples(&examples)
            .with_history(history);
        let mut stream = selection_stream(Seed(2), RoundId(round));
        let selection = selector.select(&candidates, &mut stream).unwrap();
        selection
            .clients
            .into_iter()
            .map(|client| client.0)
            .collect()
    }

    /// With all drawn, the highest losses; who never took part comes first.
    #[test]
    fn the_highest_losses_are_chosen() {
        let known = history(&[(0, 0.5), (1, 3.0), (2, 1.0), (3, 2.0), (4, f64::NAN)]);
        for round in 0..20 {
            assert_eq!(chosen(&selector(2, 4), &known, 4, round), [1, 3]);
            assert_eq!(chosen(&selector(2, 6), &known, 6, round), [4, 5]);
            assert_eq!(chosen(&selector(4, 6), &known, 6, round), [1, 3, 4, 5]);
            assert_eq!(chosen(&selector(9, 9), &known, 3, round), [0, 1, 2]);
        }
    }

    /// One of two drawn of three, in proportion to examples 1, 2, 3, with losses 2, 1, 0: the pairs
    /// {0,1}, {0,2}, {1,2} come with probability 1/6*2/5 + 2/6*1/4 = 3/20, 1/6*3/5 + 3/6*1/3 = 4/15 and
    /// 2/6*3/4 + 3/6*2/3 = 7/12; 0 wins the first two, 1 the last.
    #[test]
    fn the_draw_is_in_proportion_to_examples() {
        let known = history(&[(0, 2.0), (1, 1.0), (2, 0.0)]);
        let mut counts = [0u64; 3];
        for round in 0..12_000 {
            counts[chosen(&selector(1, 2), &known, 3, round)[0] as usize] += 1;
        }
        assert_eq!(counts[2], 0);
        assert_fits(&counts[..2], &[5_000.0, 7_000.0]);
    }

    /// Who never took part ties at infinity: all are as likely, whatever their ids.
    #[test]
    fn equals_are_in_random_order() {
        let nobody = History::default();
        let mut counts = [0u64; 3];
        for round in 0..9_000 {
            counts[chosen(&selector(1, 3), &nobody, 3, round)[0] as usize] += 1;
        }
        assert_fits(&counts, &[3_000.0; 3]);
    }

    #[test]
    fn fewer_candidates_than_are_asked_are_refused() {
        let config = PowerOfChoiceConfig {
            cohort: 10,
            candidates: 12,
            over_select: 1.3,
        };
        assert_eq!(
            PowerOfChoice::from_config(config).unwrap_err().to_string(),
            "`candidates` is 12; expected a whole number of at least as many clients as are asked, and \
             at most 2^40"
        );
        let mut stream = selection_stream(Seed(1), RoundId(0));
        let refused = selector(1, 1).select(&Candidates::everyone(3), &mut stream);
        assert_eq!(refused, Err(SelectError::NoHistory));
    }
}
