//! The auditor of differencing: two released sums whose clients are almost the same give away, by
//! their difference, what the few others sent, however well either sum was protected.
//!
//! A warning, not a proof: updates of different rounds differ anyway. It says that the cohorts were
//! chosen so that secure aggregation hid a client among fewer others than a session's minimum.

use std::collections::VecDeque;

use fl_core::ClientId;
use serde::{Deserialize, Serialize};

/// Rounds that are compared with.
const ROUNDS: usize = 8;

/// Two released sums whose sets of survivors are not the same and differ by fewer clients than the
/// minimum of survivors of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosePair {
    /// The later round.
    pub round: u64,
    /// The earlier round.
    pub other: u64,
    /// Clients that are in one of the sums only.
    pub differ: u64,
    /// The minimum of survivors.
    pub least: u64,
}

/// The sums of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Released {
    round: u64,
    /// The survivors of each session, ascending.
    sums: Vec<Vec<ClientId>>,
}

/// What was released lately. A part of a run's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Differencing {
    recent: VecDeque<Released>,
}

impl Differencing {
    /// Notes the sums of a round, each with its ascending survivors, and says which are close to an
    /// earlier one. Cost: of sums whose sizes differ by less than `least`, until as many clients
    /// differ.
    pub(crate) fn release(
        &mut self,
        round: u64,
        sums: Vec<Vec<ClientId>>,
        least: u64,
    ) -> Vec<ClosePair> {
        let mut close = Vec::new();
        for other in &self.recent {
            for (sum, earlier) in sums
                .iter()
                .flat_map(|sum| other.sums.iter().map(move |earlier| (sum, earlier)))
            {
                if let Some(differ) = difference(sum, earlier, least)
                    && differ > 0
                {
                    close.push(ClosePair {
                        round,
                        other: other.round,
                        differ,
                        least,
                    });
                }
            }
        }
        if self.recent.len() == ROUNDS {
            self.recent.pop_front();
        }
        self.recent.push_back(Released { round, sums });
        close
    }
}

/// How many clients are in one of two ascending sets only; none from `least` on.
fn difference(a: &[ClientId], b: &[ClientId], least: u64) -> Option<u64> {
    if a.len().abs_diff(b.len()) as u64 >= least {
        return None;
    }
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut differ = 0;
    while differ < least {
        match (a.peek(), b.peek()) {
            (None, None) => return Some(differ),
            (Some(x), Some(y)) if x == y => {
                a.next();
                b.next();
                continue;
            }
            (Some(x), Some(y)) if x < y => a.next(),
            (Some(_), None) => a.next(),
            (_, Some(_)) => b.next(),
        };
        differ += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(clients: &[u64]) -> Vec<ClientId> {
        clients.iter().copied().map(ClientId).collect()
    }

    #[test]
    fn differences_are_those_of_sets() {
        for (a, b, least, differ) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], 2, Some(0)),
            (&[1, 2, 3], &[1, 2], 2, Some(1)),
            (&[1, 2, 3], &[1, 2, 4], 3, Some(2)),
            (&[1, 2, 3], &[1, 2, 4], 2, None),
            (&[1, 2, 3, 4, 5], &[1], 4, None),
            (&[], &[], 1, Some(0)),
            (&[1], &[], 2, Some(1)),
            (&[2, 4, 6], &[1, 3, 5], 7, Some(6)),
        ] {
            assert_eq!(difference(&set(a), &set(b), least), differ, "{a:?} {b:?}");
            assert_eq!(difference(&set(b), &set(a), least), differ, "{b:?} {a:?}");
        }
    }

    #[test]
    fn one_client_more_is_flagged_and_the_same_or_other_clients_are_not() {
        let mut auditor = Differencing::default();
        assert_eq!(auditor.release(0, vec![set(&[1, 2, 3, 4])], 3), []);
        assert_eq!(auditor.release(1, vec![set(&[1, 2, 3, 4])], 3), []);
        let close = auditor.release(2, vec![set(&[11, 12, 13]), set(&[1, 2, 3, 4, 5])], 3);
        let pair = |other| ClosePair {
            round: 2,
            other,
            differ: 1,
            least: 3,
        };
        assert_eq!(close, [pair(0), pair(1)]);
        // Long ago is forgotten.
        for round in 3..11 {
            let far: Vec<u64> = (100 * round..100 * round + 9).collect();
            assert_eq!(auditor.release(round, vec![set(&far)], 3), []);
        }
        assert_eq!(auditor.release(11, vec![set(&[1, 2, 3])], 3), []);
    }
}
