//! What a server knows of the clients that took part before, for selectors that learn from it.
//!
//! The driver keeps one [`History`], tells it of each update that counted and stores it with the
//! run's state: then a selection stays a function of (seed, round, candidates). Its size grows with
//! the clients that took part and with the rounds, not with the population.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{ClientId, ExampleCount, RoundId, VirtualDuration};

/// A client's part in a round, as a server that is told losses and times sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Participation {
    /// Training examples.
    pub examples: ExampleCount,
    /// Mean training loss over them, where known.
    pub loss: Option<f64>,
    /// Mean of the examples' squared losses, where known.
    pub loss_square: Option<f64>,
    /// From the start of training to the report.
    pub time: VirtualDuration,
}

impl Participation {
    /// Oort's statistical utility `|B| sqrt(1/|B| sum loss^2)` (Lai et al. 2021, arXiv:2010.06081,
    /// section 4.2). Where only the mean loss is known it stands for the root of the mean square,
    /// which it does not exceed: a client whose losses vary is then valued too low. Zero where nothing
    /// is known.
    #[must_use]
    pub fn utility(&self) -> f64 {
        let root = match (self.loss_square, self.loss) {
            (Some(square), _) if square.is_finite() => libm::sqrt(square.max(0.0)),
            (_, Some(loss)) if loss.is_finite() => libm::fabs(loss),
            _ => 0.0,
        };
        self.examples.0 as f64 * root
    }
}

/// What is known of a client that took part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Rounds in which its update counted, at least 1.
    pub rounds: u64,
    /// The latest of them.
    pub last_round: RoundId,
    /// Its part in that round.
    pub last: Participation,
}

/// Who took part, see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    clients: BTreeMap<ClientId, Past>,
    /// Utilities added up by round, in units of [`UTILITY_UNIT`]: integers, so that the order in
    /// which clients are told of changes nothing.
    utility: BTreeMap<RoundId, u64>,
}

/// 2^-16: fine beside any utility, and 2^48 of them fit.
const UTILITY_UNIT: f64 = 1.0 / 65536.0;

impl History {
    /// Notes that `client`'s update counted in `round` (of an asynchronous run: in the step from that
    /// version). Rounds do not fall; clients of a round may come in any order.
    pub fn took_part(&mut self, client: ClientId, round: RoundId, part: Participation) {
        let past = self.clients.entry(client).or_insert(Past {
            rounds: 0,
            last_round: round,
            last: part,
        });
        past.rounds += 1;
        past.last_round = round;
        past.last = part;
        let utility = self.utility.entry(round).or_default();
        *utility = utility.saturating_add((part.utility() / UTILITY_UNIT) as u64);
    }

    /// What is known of `client`; nothing before its first update.
    #[must_use]
    pub fn past(&self, client: ClientId) -> Option<&Past> {
        self.clients.get(&client)
    }

    /// Those that took part, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, &Past)> {
        self.clients.iter().map(|(&client, past)| (client, past))
    }

    /// How many clients took part so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.clients.len() as u64
    }

    /// Whether nobody took part so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The [utility](Participation::utility) of a round's clients together, rounded down per client
    /// to 2^-16.
    #[must_use]
    pub fn round_utility(&self, round: RoundId) -> f64 {
        self.utility.get(&round).copied().unwrap_or_default() as f64 * UTILITY_UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "sums of multiples of the unit are exact")]
    fn the_last_part_and_the_number_of_rounds_are_kept() {
        let part = |loss| Participation {
            examples: ExampleCount(10),
            loss: Some(loss),
            ..Participation::default()
        };
        let mut history = History::default();
        for (round, client, loss) in [(0, 7, 2.0), (0, 3, 1.0), (4, 7, 0.5)] {
            history.took_part(ClientId(client), RoundId(round), part(loss));
        }
        let known: Vec<_> = history.iter().map(|(client, _)| client.0).collect();
        assert_eq!((known, history.len()), (vec![3, 7], 2));
        let past = history.past(ClientId(7)).unwrap();
        assert_eq!((past.rounds, past.last_round), (2, RoundId(4)));
        assert_eq!(past.last, part(0.5));
        assert_eq!(history.past(ClientId(0)), None);
        let sums = [0, 1, 4].map(|round| history.round_utility(RoundId(round)));
        assert_eq!(sums, [30.0, 0.0, 5.0]);
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    }

    /// `(loss, square, utility of 4 examples)`
    #[test]
    fn utility_is_that_of_the_paper_where_squares_are_known() {
        // Losses 1, 1, 3, 5: 4 * sqrt(36 / 4) = 12, and by their mean 4 * 2.5 = 10.
        let cases = [
            (Some(2.5), Some(9.0), 12.0),
            (Some(2.5), None, 10.0),
            (None, None, 0.0),
            (Some(f64::NAN), Some(f64::INFINITY), 0.0),
            (Some(2.5), Some(f64::NAN), 10.0),
            (Some(-2.5), None, 10.0),
        ];
        for (loss, loss_square, utility) in cases {
            let part = Participation {
                examples: ExampleCount(4),
                loss,
                loss_square,
                time: VirtualDuration(1),
            };
            let found = part.utility();
            assert!(
                (found - utility).abs() < 1e-12,
                "{loss:?} {loss_square:?}: {found}"
            );
        }
    }
}
