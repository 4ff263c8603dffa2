//! Faults that are done to a run on purpose, to see that it survives them: by chance, or in a round
//! that is named.
//!
//! Each client of a round has one stream of [`Purpose::Fault`] at (seed, round, client), of which every
//! draw is always made, so that changing one chance leaves the other faults where they are; so has each
//! round, for what happens to its aggregator. Without devices a client leaves before or after its work,
//! and nothing is slow.
//!
//! | fault | what happens |
//! |---|---|
//! | leaves before, during, after training | the client is gone: while it downloads, trains, sends |
//! | slow network | its transfers take [`slow_factor`](FaultsConfig::slow_factor) times as long |
//! | lost report | its connection breaks when its report should have come: the server waits no longer |
//! | duplicated report | its report comes twice: the second is refused |
//! | corrupted update | one bit of its message is turned: the checksum of [`fl_core::wire`] refuses it |
//! | update that is not finite | one of its values is: the sum refuses it |
//! | missing delegate | its NPU is not there: the work is done on what else it has, or not at all |
//! | restart | the aggregator restarts from what a checkpoint holds: a synchronous round is given up, an asynchronous run goes on with those under way |
//! | region outage | a [region](crate::regions) fails |

use std::collections::BTreeMap;

use fl_core::wire::{decode_update, encode_update};
use fl_core::{
    ClientId, ClientUpdate, LocalResult, Payload, Purpose, Report, RoundId, Seed, Stream,
};
use serde::{Deserialize, Serialize};

use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::schedule::Mode;

mod rounds;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A client leaves before it trains.
    LeaveBefore,
    /// A client leaves while it trains.
    LeaveDuring,
    /// A client leaves when it has trained.
    LeaveAfter,
    /// A client's network is slow.
    SlowNetwork,
    /// A client's report never comes.
    LostReport,
    /// A client's report comes twice.
    DuplicateReport,
    /// A client's update is damaged on the way.
    CorruptUpdate,
    /// A client's update is not finite.
    NanUpdate,
    /// A client's NPU is not there.
    MissingDelegate,
    /// The aggregator restarts.
    Restart,
    /// A region fails.
    RegionOutage,
}

impl Fault {
    /// Every one, in the order in which they are drawn.
    pub const ALL: [Self; 11] = [
        Self::LeaveBefore,
        Self::LeaveDuring,
        Self::LeaveAfter,
        Self::SlowNetwork,
        Self::LostReport,
        Self::DuplicateReport,
        Self::CorruptUpdate,
        Self::NanUpdate,
        Self::MissingDelegate,
        Self::Restart,
        Self::RegionOutage,
    ];
}

/// The faults of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultsConfig {
    /// The probability of each, in `[0, 1]`: for a client in a round, for a round
    /// ([`Restart`](Fault::Restart)), for a region in a round. Zero for what is not there.
    pub chances: BTreeMap<Fault, f64>,
    /// How many times as long the transfers of a slow network take, from 1 to 10 000.
    pub slow_factor: f64,
    /// Faults of single rounds.
    pub at: Vec<FaultAt>,
}

/// A fault of one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAt {
    /// The round, counted from zero.
    pub round: u64,
    /// The fault.
    pub fault: Fault,
    /// Its probability in that round, where it is larger than otherwise; in `[0, 1]`.
    #[serde(default = "certain")]
    pub chance: f64,
}

fn certain() -> f64 {
    1.0
}

impl Default for FaultsConfig {
    fn default() -> Self {
        Self {
            chances: BTreeMap::new(),
            slow_factor: 10.0,
            at: Vec::new(),
        }
    }
}

impl FaultsConfig {
    /// How probable a fault is in a round.
    #[must_use]
    pub fn chance(&self, fault: Fault, round: RoundId) -> f64 {
        let always = self.chances.get(&fault).copied().unwrap_or(0.0);
        let own = self
            .at
            .iter()
            .filter(|at| at.round == round.0 && at.fault == fault);
        own.map(|at| at.chance).fold(always, f64::max)
    }

    fn uses(&self, fault: Fault) -> bool {
        self.chances.contains_key(&fault) || self.at.iter().any(|at| at.fault == fault)
    }

    /// What befalls a client in a round.
    pub(crate) fn of_client(&self, seed: Seed, round: RoundId, client: ClientId) -> ClientFaults {
        let mut stream = Stream::at(Purpose::Fault, seed, round, client);
        let drawn = Fault::ALL.map(|fault| stream.uniform() < self.chance(fault, round));
        let [
            before,
            during,
            after,
            slow,
            lost,
            twice,
            corrupt,
            nan,
            no_npu,
            ..,
        ] = drawn;
        let moment = stream.uniform();
        ClientFaults {
            leaves: match (before, during, after) {
                (true, _, _) => Some(Part::Downloading),
                (false, true, _) => Some(Part::Training),
                (false, false, true) => Some(Part::Sending),
                (false, false, false) => None,
            },
            moment,
            slow: if slow { self.slow_factor } else { 1.0 },
            lost,
            duplicated: twice,
            corrupted: corrupt.then(|| stream.below(u64::MAX)),
            not_finite: nan,
            no_delegate: no_npu,
        }
    }

    /// At which part of a round its aggregator restarts, in `[0, 1)`, if it does.
    pub(crate) fn restart(&self, seed: Seed, round: RoundId) -> Option<f64> {
        // No client has this id.
        let mut stream = Stream::at(Purpose::Fault, seed, round, ClientId(u64::MAX));
        let (restarts, moment) = (stream.uniform(), stream.uniform());
        (restarts < self.chance(Fault::Restart, round)).then_some(moment)
    }
}

/// Whether faults go together with the rest of the configuration.
///
/// # Errors
/// [`SimError::OutOfRange`] naming what does not.
pub(crate) fn check(config: &SimulationConfig) -> Result<(), SimError> {
    let Some(faults) = &config.faults else {
        return Ok(());
    };
    let refuse = |key, value: String, range| Err(SimError::OutOfRange { key, value, range });
    let all = faults.chances.values().copied();
    for chance in all.chain(faults.at.iter().map(|at| at.chance)) {
        if !(0.0..=1.0).contains(&chance) {
            return refuse(
                "faults.chances",
                chance.to_string(),
                "probabilities from 0 to 1",
            );
        }
    }
    if !(1.0..=10_000.0).contains(&faults.slow_factor) {
        let range = "a number from 1 to 10000";
        return refuse("faults.slow_factor", faults.slow_factor.to_string(), range);
    }
    let timed = [Fault::SlowNetwork, Fault::MissingDelegate];
    if config.devices.is_none() && timed.iter().any(|&fault| faults.uses(fault)) {
        let range = "neither slow-network nor missing-delegate where the fleet has no devices";
        return refuse("faults.chances", "given".to_owned(), range);
    }
    if config.schedule.regions.is_none() && faults.uses(Fault::RegionOutage) {
        let range = "no region-outage without schedule.regions";
        return refuse("faults.chances", "given".to_owned(), range);
    }
    if config.privacy.is_some() && faults.uses(Fault::Restart) {
        let range = "no restart of a private run, whose ledger cannot be given back what was spent";
        return refuse("faults.chances", "given".to_owned(), range);
    }
    if config.schedule.mode != Mode::Synchronous && config.schedule.regions.is_some() {
        return refuse(
            "schedule.regions",
            "given".to_owned(),
            "none in asynchronous mode",
        );
    }
    Ok(())
}

/// A part of a client's way through a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Downloading,
    Training,
    Sending,
}

/// What befalls a client in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClientFaults {
    /// In which part it leaves.
    pub(crate) leaves: Option<Part>,
    /// After which part of that, in `[0, 1)`.
    pub(crate) moment: f64,
    /// How many times as long transfers take.
    pub(crate) slow: f64,
    pub(crate) lost: bool,
    pub(crate) duplicated: bool,
    /// Where its message is damaged.
    pub(crate) corrupted: Option<u64>,
    pub(crate) not_finite: bool,
    pub(crate) no_delegate: bool,
}

impl ClientFaults {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        leaves: None,
        moment: 0.0,
        slow: 1.0,
        lost: false,
        duplicated: false,
        corrupted: None,
        not_finite: false,
        no_delegate: false,
    };

    /// Whether the message of `report` is refused because it was damaged on the way. The values of
    /// the update are not known before it is counted on, and `values` stand for them.
    pub(crate) fn spoils(&self, report: &Report, values: &[f32]) -> bool {
        let Some(place) = self.corrupted else {
            return false;
        };
        let mut message = encode_update(&ClientUpdate {
            report: *report,
            payload: Payload::Dense(values.to_vec()),
            metrics: LocalResult::default(),
        });
        let bits = 8 * message.len() as u64;
        let bit = place % bits.max(1);
        // Below the length.
        if let Some(byte) = message.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
        decode_update(&message, values.len(), None).is_err()
    }
}

/// How many faults there were in a round; of clients that were told to train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultsRecord {
    /// Clients that left before they trained.
    pub left_before: u64,
    /// Clients that left while they trained.
    pub left_during: u64,
    /// Clients that left when they had trained.
    pub left_after: u64,
    /// Clients whose network was slow.
    pub slowed: u64,
    /// Reports that never came.
    pub lost: u64,
    /// Reports that came a second time and were refused.
    pub duplicated: u64,
    /// Updates that were damaged on the way and refused.
    pub corrupted: u64,
    /// Updates that were not finite, of accepted clients.
    pub not_finite: u64,
    /// Clients whose NPU was not there.
    pub no_delegate: u64,
    /// 1 when the aggregator restarted.
    pub restarts: u64,
}

impl FaultsRecord {
    /// A client was told to train, to which this happens on its way.
    pub(crate) fn count_called(&mut self, faults: &ClientFaults) {
        self.slowed += u64::from(faults.slow > 1.0);
        self.no_delegate += u64::from(faults.no_delegate);
    }

    /// A client is gone that may be so by one of these faults.
    pub(crate) fn count_gone(&mut self, faults: &ClientFaults) {
        match faults.leaves {
            None => {}
            Some(Part::Downloading) => self.left_before += 1,
            Some(Part::Training) => self.left_during += 1,
            Some(Part::Sending) => self.left_after += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fl_core::{Cost, ExampleCount, WorkDone};

    fn all(chance: f64) -> FaultsConfig {
        FaultsConfig {
            chances: Fault::ALL.map(|fault| (fault, chance)).into(),
            ..FaultsConfig::default()
        }
    }

    #[test]
    fn one_chance_leaves_the_other_faults_where_they_are() {
        let (mut few, all) = (all(0.3), all(0.3));
        few.chances.remove(&Fault::LeaveBefore);
        few.chances.insert(Fault::LostReport, 0.9);
        let mut lost = [0u32; 2];
        for client in 0..1000 {
            let of =
                |config: &FaultsConfig| config.of_client(Seed(1), RoundId(2), ClientId(client));
            let (a, b) = (of(&all), of(&few));
            assert_eq!((a.duplicated, a.moment), (b.duplicated, b.moment));
            assert_eq!(a.not_finite, b.not_finite);
            assert!(!a.lost || b.lost);
            lost[0] += u32::from(a.lost);
            lost[1] += u32::from(b.lost);
        }
        // 300 and 900 of a thousand, with deviations of 14 and 9.
        assert!(
            lost[0].abs_diff(300) < 75 && lost[1].abs_diff(900) < 50,
            "{lost:?}"
        );
    }

    #[test]
    fn a_round_that_is_named_has_its_own_chance() {
        let mut config = all(0.25);
        config.at.push(FaultAt {
            round: 3,
            fault: Fault::Restart,
            chance: 1.0,
        });
        config.at.push(FaultAt {
            round: 4,
            fault: Fault::Restart,
            chance: 0.1,
        });
        for (round, chance) in [(2, 0.25), (3, 1.0), (4, 0.25)] {
            let found = |fault| config.chance(fault, RoundId(round)).to_bits();
            assert_eq!(found(Fault::Restart), f64::to_bits(chance));
            assert_eq!(found(Fault::LostReport), 0.25f64.to_bits());
        }
        assert!(config.restart(Seed(5), RoundId(3)).is_some());
    }

    #[test]
    fn any_bit_that_is_turned_spoils_a_message() {
        let report = Report {
            client: ClientId(7),
            round: RoundId(1),
            examples: ExampleCount(9),
            steps: 4,
            work: WorkDone::Full,
            cost: Cost::default(),
        };
        let values = [0.5, -1.0, 3.0];
        let bits = 8 * fl_core::wire::update_bytes(3, None);
        for place in 0..bits {
            let faults = ClientFaults {
                corrupted: Some(place),
                ..ClientFaults::NONE
            };
            assert!(faults.spoils(&report, &values), "{place}");
        }
        assert!(!ClientFaults::NONE.spoils(&report, &values));
    }
}
