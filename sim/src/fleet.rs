//! The fleet: which clients of a cohort vanish, which are slow, and how much work they manage.
//!
//! Every fact is a pure function of (seed, round, cohort) or of (seed, round, client), drawn from
//! [`Purpose::Fleet`] streams, so nothing is stored per client of the population and nothing
//! depends on the order in which clients are trained.
//!
//! **Stragglers** follow the experiments of Li et al. 2020 (FedProx, arXiv:1812.06127,
//! section 5.2): of a cohort of K, `K - round((1 - share) K)` clients chosen uniformly at random
//! are slow, and a slow client completes `x` of the `E` local epochs, `x` uniform in `1..=E` as in
//! the paper's text (the authors' code draws from `1..E`, the end excluded). Whether a straggler's
//! partial work is used or dropped is the strategy's policy, not the fleet's. For plans that count
//! steps, `x` counts steps.
//!
//! **Dropout**: each client vanishes on its own with the given probability; it never reports. Where
//! updates are aggregated securely, it does so before its keys, after them, or after its shares, each
//! a third of the time; and a client that has sent its masked input vanishes with the same probability
//! before it helps to unmask the sum, in which its input then stays.
//!
//! **Devices** are the other half: who a client is as hardware, when it may train, how long that takes
//! and what it costs. [`Fleet`] answers for any client of a population of any size from its seed
//! alone; [`FleetState`] keeps what lasts, for those that took part.
//!
//! | module | does |
//! |---|---|
//! | [`mix`] | shares of device classes, batteries, links and time zones, each number with its source |
//! | [`device`] | the device of a client |
//! | [`cost`] | seconds and joules of training the real graph on it, and whether it fits |
//! | [`network`] | rates and the time of a transfer |
//! | [`availability`] | charging, WiFi and idle over the day, or as recorded |
//! | [`trace`] | recordings: FedScale's and FLASH's formats |
//! | [`eligibility`] | who may train now, until when, or why not |
//! | [`state`] | temperature, battery and participations |

pub mod availability;
pub mod cost;
pub mod device;
pub mod eligibility;
pub mod error;
pub mod mix;
pub mod network;
pub mod state;
pub mod trace;

pub use availability::{Availability, Signal, Signals};
pub use cost::{Costs, Session, Unfit};
pub use device::{Device, DeviceConfig, Fleet, Job};
pub use eligibility::{Ineligible, Reason, Requirements};
pub use error::FleetError;
pub use mix::{Mix, MixConfig};
pub use network::{Direction, Link};
pub use state::{Condition, FleetState, Participation};

use core::num::NonZeroU32;

use fl_core::{ClientId, LocalWork, Purpose, RoundId, Seed, Stream, WorkLimit};

use crate::error::SimError;

/// The address used for draws about a whole cohort. No client has this id.
const COHORT: ClientId = ClientId(u64::MAX);

/// How unreliable the fleet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// Share of each cohort that is slow, in `[0, 1]`.
    pub stragglers: f64,
    /// Probability that a client of a cohort vanishes before it reports, in `[0, 1]`.
    pub dropout: f64,
}

impl FleetConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] naming the key.
    pub fn validate(&self) -> Result<(), SimError> {
        for (key, value) in [
            ("fleet.stragglers", self.stragglers),
            ("fleet.dropout", self.dropout),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(SimError::OutOfRange {
                    key,
                    value: value.to_string(),
                    range: "a share between 0 and 1",
                });
            }
        }
        Ok(())
    }
}

/// When a client that vanishes does so, within a session of secure aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vanishes {
    /// Before it has sent anything.
    BeforeKeys,
    /// When it has advertised its keys.
    AfterKeys,
    /// When it has shared their secrets.
    AfterShares,
}

/// What happens to one client of a cohort in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientFate {
    /// The client vanishes and never reports.
    pub dropped: bool,
    /// The client is slow. It may still complete all of its work.
    pub straggler: bool,
    /// How much of the local work the client completes.
    pub limit: WorkLimit,
    /// When it vanishes, if it does.
    pub vanishes: Vanishes,
    /// If it does not: whether it vanishes when its masked input is sent. Only a session of secure
    /// aggregation notices.
    pub leaves_late: bool,
    /// At which part of its way through the round it vanishes, if it does, in `[0, 1)`; of use where
    /// devices take time.
    pub moment: f64,
}

/// Draws the fate of every client of `cohort`, in the cohort's order, into `fates` (cleared first).
///
/// Cost: O(cohort) time; no memory beyond `fates` once it has grown.
pub fn draw_fates(
    config: &FleetConfig,
    seed: Seed,
    round: RoundId,
    work: LocalWork,
    cohort: &[ClientId],
    fates: &mut Vec<ClientFate>,
) {
    fates.clear();
    fates.resize(
        cohort.len(),
        ClientFate {
            dropped: false,
            straggler: false,
            limit: WorkLimit::Full,
            vanishes: Vanishes::BeforeKeys,
            leaves_late: false,
            moment: 0.0,
        },
    );
    mark_stragglers(config.stragglers, seed, round, fates);
    let (LocalWork::Epochs(full) | LocalWork::Steps(full)) = work;
    for (&client, fate) in cohort.iter().zip(fates.iter_mut()) {
        if !fate.straggler && config.dropout <= 0.0 {
            continue;
        }
        // Every draw is always made, so that changing one share leaves the other's draws alone.
        let mut stream = Stream::at(Purpose::Fleet, seed, round, client);
        let vanishes = stream.uniform();
        let _arrival = stream.uniform();
        let done = 1 + stream.below(u64::from(full.get()));
        fate.dropped = vanishes < config.dropout;
        fate.vanishes = match stream.below(3) {
            0 => Vanishes::BeforeKeys,
            1 => Vanishes::AfterKeys,
            _ => Vanishes::AfterShares,
        };
        fate.leaves_late = stream.uniform() < config.dropout;
        fate.moment = stream.uniform();
        if fate.straggler {
            // `done` is in `1 ..= full`, a `u32`.
            let done = NonZeroU32::new(done as u32).unwrap_or(full);
            fate.limit = WorkLimit::AtMost(done);
        }
    }
}

/// The order in which the clients of a cohort report, as indices into it: those that are not slow
/// before those that are, and at random within each. For over-selection, where only the first
/// reports count; there is no device model and so no time behind it yet.
#[must_use]
pub fn arrival_order(
    seed: Seed,
    round: RoundId,
    cohort: &[ClientId],
    fates: &[ClientFate],
) -> Vec<u32> {
    let mut keyed: Vec<(bool, u64, u32)> = cohort
        .iter()
        .zip(fates)
        .zip(0..)
        .map(|((&client, fate), index)| {
            let mut stream = Stream::at(Purpose::Fleet, seed, round, client);
            let _vanishes = stream.uniform();
            (fate.straggler, stream.uniform().to_bits(), index)
        })
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, _, index)| index).collect()
}

/// Number of stragglers in a cohort of `cohort` clients.
#[must_use]
pub fn straggler_count(share: f64, cohort: usize) -> usize {
    let prompt = libm::rint((1.0 - share) * cohort as f64);
    cohort - (prompt.max(0.0) as usize).min(cohort)
}

/// Marks exactly [`straggler_count`] of `fates`, every subset of that size equally likely
/// (selection sampling: Knuth, The Art of Computer Programming 2, section 3.4.2, algorithm S).
fn mark_stragglers(share: f64, seed: Seed, round: RoundId, fates: &mut [ClientFate]) {
    let mut wanted = straggler_count(share, fates.len()) as u64;
    if wanted == 0 {
        return;
    }
    let mut stream = Stream::at(Purpose::Fleet, seed, round, COHORT);
    let mut left = fates.len() as u64;
    for fate in fates {
        if stream.below(left) < wanted {
            fate.straggler = true;
            wanted -= 1;
        }
        left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(n: u32) -> LocalWork {
        LocalWork::Epochs(NonZeroU32::new(n).unwrap())
    }

    fn draw(
        config: FleetConfig,
        round: u64,
        work: LocalWork,
        cohort: &[ClientId],
    ) -> Vec<ClientFate> {
        let mut fates = Vec::new();
        draw_fates(&config, Seed(3), RoundId(round), work, cohort, &mut fates);
        fates
    }

    fn cohort(n: u64) -> Vec<ClientId> {
        (0..n).map(|i| ClientId(i * 7 + 1)).collect()
    }

    #[test]
    fn the_number_of_stragglers_is_that_of_the_papers_code() {
        // Python: K - round(K * (1 - share))
        for (share, clients, expected) in [
            (0.0, 10, 0),
            (0.5, 10, 5),
            (0.9, 10, 9),
            (1.0, 10, 10),
            (0.9, 1, 1),
            (0.5, 1, 1),
            (0.5, 3, 1),
            (0.25, 10, 2),
            (0.3, 7, 2),
            (0.9, 0, 0),
        ] {
            assert_eq!(
                straggler_count(share, clients),
                expected,
                "{share} of {clients}"
            );
            let config = FleetConfig {
                stragglers: share,
                dropout: 0.0,
            };
            for round in 0..20 {
                let fates = draw(config, round, epochs(20), &cohort(clients as u64));
                assert_eq!(fates.iter().filter(|f| f.straggler).count(), expected);
            }
        }
    }

    #[test]
    fn stragglers_are_uniform_over_the_cohort_and_their_work_over_the_epochs() {
        let config = FleetConfig {
            stragglers: 0.3,
            dropout: 0.0,
        };
        let clients = cohort(10);
        let rounds = 20_000;
        let mut slow = [0u32; 10];
        let mut done = [0u32; 5];
        for round in 0..rounds {
            for (i, fate) in draw(config, round, epochs(5), &clients).iter().enumerate() {
                match fate.limit {
                    WorkLimit::Full => assert!(!fate.straggler),
                    WorkLimit::AtMost(x) => {
                        assert!(fate.straggler);
                        slow[i] += 1;
                        done[x.get() as usize - 1] += 1;
                    }
                }
            }
        }
        let chi2 = |counts: &[u32]| {
            let total: u32 = counts.iter().sum();
            let expected = f64::from(total) / counts.len() as f64;
            counts
                .iter()
                .map(|&c| (f64::from(c) - expected).powi(2) / expected)
                .sum::<f64>()
        };
        // 99.9 % quantiles of chi-square with 9 and 4 degrees of freedom.
        assert!(chi2(&slow) < 27.88, "{slow:?}");
        assert!(chi2(&done) < 18.47, "{done:?}");
    }

    #[test]
    fn a_clients_dropout_and_work_do_not_depend_on_the_rest_of_the_cohort() {
        let config = FleetConfig {
            stragglers: 1.0,
            dropout: 0.4,
        };
        let clients = cohort(200);
        let all = draw(config, 5, epochs(9), &clients);
        let dropped = all.iter().filter(|f| f.dropped).count();
        assert!((50..110).contains(&dropped), "{dropped} of 200 at 0.4");
        for (client, fate) in clients.iter().zip(&all) {
            assert_eq!(draw(config, 5, epochs(9), &[*client]), [*fate]);
        }
    }

    #[test]
    fn clients_vanish_at_every_stage_alike_and_late_as_often_as_before() {
        let config = FleetConfig {
            stragglers: 0.0,
            dropout: 0.3,
        };
        let (mut stages, mut late, mut stay) = ([0u32; 3], 0u32, 0u32);
        let clients = cohort(30);
        for round in 0..1000 {
            for fate in draw(config, round, epochs(2), &clients) {
                if fate.dropped {
                    stages[fate.vanishes as usize] += 1;
                } else {
                    stay += 1;
                    late += u32::from(fate.leaves_late);
                }
            }
        }
        // 3000 each, standard deviation 52; 6300 of 21000, standard deviation 66.
        assert!(
            stages.iter().all(|&n| (2740..3260).contains(&n)),
            "{stages:?}"
        );
        let share = f64::from(late) / f64::from(stay);
        assert!((share - 0.3).abs() < 0.016, "{share}");
        assert!(
            draw(FleetConfig::default(), 0, epochs(2), &clients)
                .iter()
                .all(|fate| !fate.dropped && !fate.leaves_late)
        );
    }

    #[test]
    fn slow_clients_arrive_last_and_every_client_arrives_once() {
        let config = FleetConfig {
            stragglers: 0.4,
            dropout: 0.0,
        };
        let clients = cohort(50);
        let mut first = [0u32; 50];
        for round in 0..2000 {
            let fates = draw(config, round, epochs(3), &clients);
            let order = arrival_order(Seed(3), RoundId(round), &clients, &fates);
            assert!(order.iter().take(30).all(|&i| !fates[i as usize].straggler));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(
                sorted
                    .iter()
                    .enumerate()
                    .all(|(i, &index)| i == index as usize)
            );
            first[order[0] as usize] += 1;
        }
        // Mean 40, standard deviation 6.3.
        assert!(
            first.iter().all(|&count| (10..75).contains(&count)),
            "{first:?}"
        );
    }

    #[test]
    fn changing_one_share_leaves_the_draws_of_the_other_alone() {
        let clients = cohort(100);
        let base = draw(
            FleetConfig {
                stragglers: 0.5,
                dropout: 0.0,
            },
            1,
            epochs(20),
            &clients,
        );
        let with_dropout = draw(
            FleetConfig {
                stragglers: 0.5,
                dropout: 0.3,
            },
            1,
            epochs(20),
            &clients,
        );
        for (a, b) in base.iter().zip(&with_dropout) {
            assert_eq!((a.straggler, a.limit), (b.straggler, b.limit));
        }
    }

    #[test]
    fn shares_outside_zero_to_one_are_refused_by_name() {
        for (stragglers, dropout, message) in [
            (
                1.5,
                0.0,
                "fleet.stragglers is 1.5, which is out of range; give a share between 0 and 1",
            ),
            (
                0.0,
                -0.1,
                "fleet.dropout is -0.1, which is out of range; give a share between 0 and 1",
            ),
            (
                f64::NAN,
                0.0,
                "fleet.stragglers is NaN, which is out of range; give a share between 0 and 1",
            ),
        ] {
            let config = FleetConfig {
                stragglers,
                dropout,
            };
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
