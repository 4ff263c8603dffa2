//! How a round's updates become one: the ring of their integers, and robust means of groups.
//!
//! # Range and bits
//! Updates are added as integers ([`fl_core::ring`]). By default these have a resolution far below
//! that of a float, which costs 50 bits and more. [`AggregationConfig::bits`] says how many a sum may
//! have, [`AggregationConfig::range`] what a value may be: what is masked in secure aggregation
//! shrinks with the bits, and up to 32 of them need half the mask. It belongs to the aggregation and
//! not to secure aggregation: every mode, and none, rounds in the same way.
//!
//! # Groups
//! With a [`RobustMean`] the clients that come to a round are divided at random into groups, anew in
//! each round, each group is summed by itself, and the strategy applies a robust mean of the groups'
//! means ([`fl_core::robust`]). With secure aggregation the groups are its sessions: the server sees
//! the sum of each, and nothing of who in a group sent what. Without it the same groups are formed,
//! so that the model is the same.
//!
//! A group whose session fails, or none of whose clients has an update, is left out: its clients
//! count as dropped, and those of a session that failed before the inputs are not told to train. With
//! fewer than [`LEAST_GROUPS`] left the round is given up and the model stays.
//!
//! Differential privacy of clients is refused: the noise of a round is made for the mean of all
//! clients, and a group's mean moves further with one of them. Privacy of examples composes, because
//! what a client sends is private by itself.

mod parts;

use fl_core::robust::LEAST_GROUPS;
use fl_core::select::{AnySelector, Selector as _, SelectorConfig};
use fl_core::strategy::{AnyStrategy, Strategy as _};
use fl_core::sum::{Aggregator as _, ExactSum, SumError};
use fl_core::{
    Aggregate, ClientId, ExampleCount, GroupMean, Purpose, RingError, RingPlan, RoundId, Seed,
    Stream, Weight, WeightBounds,
};
use serde::{Deserialize, Serialize};

use crate::config::{SimulationConfig, refused};
use crate::error::SimError;
use crate::privacy::Privacy;
use crate::schedule::Mode;

pub(crate) use parts::Parts;

/// How updates are added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregationConfig {
    /// The largest absolute value of an update, raised to a power of two: larger ones are cut, and
    /// counted. [`fl_core::ring::DEFAULT_RANGE`] when not given.
    pub range: Option<f64>,
    /// The most bits of a sum over the largest cohort, at most 64: the resolution is the finest for
    /// them. When not given, [`fl_core::ring::DEFAULT_RESOLUTION`] decides.
    pub bits: Option<u32>,
    /// A robust mean of groups in place of the weighted mean of all.
    pub robust: Option<RobustMean>,
}

/// Groups, and how their means become one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustMean {
    /// The most clients of a group, at least 2; with secure aggregation that of its sessions.
    pub groups: u32,
    /// How their means become one.
    pub mean: GroupMean,
}

/// Why updates cannot be added so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AggregationError {
    /// A setting that does not go together with the rest of the run.
    #[error("{what} cannot be had with {with}: {reason}; {instead}")]
    Refused {
        /// The key that asks for it.
        key: &'static str,
        /// What is asked for.
        what: &'static str,
        /// What it does not go together with.
        with: &'static str,
        /// Why.
        reason: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// Too few clients for groups of that size.
    #[error(
        "a round of {clients} clients{at_worst} makes {groups} groups of up to {size}, and a robust \
         mean needs at least {LEAST_GROUPS}; lower groups or select more clients"
    )]
    Groups {
        /// Clients of a round: where their number is drawn, three deviations below the mean.
        clients: u64,
        /// Says so in that case.
        at_worst: &'static str,
        /// Groups that they make.
        groups: usize,
        /// The most clients of a group.
        size: u32,
    },
}

impl AggregationError {
    /// The key that causes it.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Refused { key, .. } => key,
            Self::Groups { .. } => "secagg.groups",
        }
    }
}

impl AggregationConfig {
    /// Whether everything is as without it.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] naming the key.
    pub fn validate(&self) -> Result<(), SimError> {
        let refuse = |key, value: String, range| Err(SimError::OutOfRange { key, value, range });
        if let Some(range) = self.range
            && !(range > 0.0 && range.is_finite())
        {
            let allowed = "a number above 0";
            return refuse("aggregation.range", range.to_string(), allowed);
        }
        if let Some(bits) = self.bits
            && !(2..=64).contains(&bits)
        {
            let allowed = "a whole number from 2 to 64";
            return refuse("aggregation.bits", bits.to_string(), allowed);
        }
        if let Some(robust) = &self.robust {
            if robust.groups < 2 {
                let allowed = "a whole number of at least 2";
                return refuse("secagg.groups", robust.groups.to_string(), allowed);
            }
            if let Err(error) = robust.mean.validate() {
                return refuse("secagg.trim", error.value, error.expected);
            }
        }
        Ok(())
    }

    /// Whether the rest of a run goes together with it.
    ///
    /// # Errors
    /// [`AggregationError`].
    pub(crate) fn check(
        &self,
        config: &SimulationConfig,
        clients: u64,
    ) -> Result<(), AggregationError> {
        if let Some(Privacy::Clients(_)) = &config.privacy
            && (self.bits.is_some() || self.range.is_some())
        {
            return Err(AggregationError::Refused {
                key: match self.bits {
                    Some(_) => "aggregation.bits",
                    None => "aggregation.range",
                },
                what: "a range or bits of the sum",
                with: "noise that clients add",
                reason: "the ring has to hold that noise, and the privacy plan says how wide it is",
                instead: "leave them out; with privacy.kind = \"distributed\" choose privacy.bits",
            });
        }
        let Some(robust) = &self.robust else {
            return Ok(());
        };
        if let Some(Privacy::Central(_) | Privacy::Clients(_)) = &config.privacy {
            return Err(AggregationError::Refused {
                key: "secagg.robust",
                what: "a robust mean of groups",
                with: "differential privacy of clients",
                reason: "every group's sum is seen, and one client moves the mean of its group further \
                         than the mean of all that the noise is made for",
                instead: "leave robust out, or use privacy.kind = \"example\", whose updates are \
                          private by themselves",
            });
        }
        let (clients, at_worst) = fewest(&config.selection, clients);
        let groups = sizes(
            usize::try_from(clients).unwrap_or(usize::MAX),
            Some(robust.groups),
        );
        if groups.len() < LEAST_GROUPS {
            return Err(AggregationError::Groups {
                clients,
                at_worst,
                groups: groups.len(),
                size: robust.groups,
            });
        }
        Ok(())
    }

    /// The ring for weights up to `client` of `goal` clients, of `asked` who may come.
    pub(crate) fn ring(
        &self,
        client: Weight,
        goal: u64,
        asked: u64,
    ) -> Result<RingPlan, RingError> {
        let range = self.range.unwrap_or(fl_core::ring::DEFAULT_RANGE);
        match self.bits {
            None => RingPlan::in_range(WeightBounds::new(client, goal), range),
            // A session of secure aggregation has room for everybody in it.
            Some(bits) => {
                RingPlan::with_bits(WeightBounds::new(client, goal.max(asked)), range, bits)
            }
        }
    }
}

/// The ring of a run, planned once, before any update is seen; `largest` is the most examples of a
/// client.
pub(crate) fn plan_ring(
    config: &SimulationConfig,
    strategy: &AnyStrategy,
    selector: &AnySelector,
    clients: u64,
    largest: u64,
) -> Result<RingPlan, SimError> {
    let aggregation = &config.aggregation;
    aggregation.check(config, clients)?;
    let weight = strategy
        .largest_weight(ExampleCount(largest))
        .max(Weight(1));
    let goal = match config.schedule.mode {
        Mode::Synchronous => selector.largest_goal(clients).max(1),
        Mode::Asynchronous { buffer, .. } => buffer.max(1),
    };
    let asked = asked(&config.selection, clients);
    Ok(aggregation.ring(weight, goal, asked)?)
}

/// The ring in which a run of `clients` clients, which have `examples` training examples, would add
/// its updates, where clients' own noise needs no other.
///
/// # Errors
/// [`SimError`] when there is no such run.
pub fn forecast(
    config: &SimulationConfig,
    clients: u64,
    examples: &dyn Fn(ClientId) -> u64,
) -> Result<RingPlan, SimError> {
    config.validate()?;
    let table = |table| move |source| refused(table, source);
    let strategy = AnyStrategy::from_config(config.strategy.clone()).map_err(table("strategy"))?;
    let selector =
        AnySelector::from_config(config.selection.clone()).map_err(table("selection"))?;
    let largest = (0..clients).map(|client| examples(ClientId(client))).max();
    plan_ring(config, &strategy, &selector, clients, largest.unwrap_or(0))
}

/// Groups of a round of the expected size; none without a robust mean.
#[must_use]
pub fn expected_groups(config: &SimulationConfig, clients: u64) -> Option<usize> {
    let robust = config.aggregation.robust?;
    let asked = asked(&config.selection, clients);
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    Some(sizes(asked, Some(robust.groups)).len())
}

/// Clients that a selector asks, or in the mean where that is not a fixed number.
pub(crate) fn asked(selection: &SelectorConfig, clients: u64) -> u64 {
    let whole = |number: f64| libm::ceil(number * (1.0 - 4.0 * f64::EPSILON)) as u64;
    let asked = match selection {
        SelectorConfig::Uniform(keys) => whole(keys.cohort as f64 * keys.over_select),
        SelectorConfig::Weighted(keys) => whole(keys.cohort as f64 * keys.over_select),
        SelectorConfig::Oort(keys) => whole(keys.cohort as f64 * keys.over_select),
        SelectorConfig::PowerOfChoice(keys) => whole(keys.cohort as f64 * keys.over_select),
        SelectorConfig::Fair(keys) => whole(keys.cohort as f64 * keys.over_select),
        SelectorConfig::Separated(keys) => keys.cohort,
        SelectorConfig::Poisson(keys) => libm::rint(keys.rate * clients as f64) as u64,
        SelectorConfig::Cyclic(keys) => {
            libm::rint(keys.rate * clients as f64 / keys.period as f64) as u64
        }
    };
    asked.min(clients)
}

/// The fewest clients that come to a round, but for three deviations; and words for that.
fn fewest(selection: &SelectorConfig, clients: u64) -> (u64, &'static str) {
    let (rate, of) = match selection {
        SelectorConfig::Poisson(keys) => (keys.rate, clients as f64),
        SelectorConfig::Cyclic(keys) => (keys.rate, clients as f64 / keys.period as f64),
        _ => return (asked(selection, clients), ""),
    };
    let deviation = libm::sqrt(rate * (1.0 - rate) * of);
    let least = libm::floor((rate * of - 3.0 * deviation).max(0.0));
    (least as u64, " (three deviations below the mean)")
}

/// Sizes of the groups of `clients` clients, each of at most `most`, the largest first.
pub(crate) fn sizes(clients: usize, most: Option<u32>) -> Vec<usize> {
    let groups = clients.div_ceil(most.map_or(usize::MAX, |most| most as usize));
    (0..groups)
        .map(|group| clients / groups + usize::from(group < clients % groups))
        .collect()
}

/// The address of draws about a whole cohort. No client has this id.
const COHORT: ClientId = ClientId(u64::MAX);

/// Divides `clients` clients at random into groups of at most `most`: their places, ascending in each
/// group.
pub(crate) fn divide(
    clients: usize,
    most: Option<u32>,
    seed: Seed,
    round: RoundId,
) -> Vec<Vec<usize>> {
    let sizes = sizes(clients, most);
    let mut order: Vec<usize> = (0..clients).collect();
    if sizes.len() > 1 {
        Stream::at(Purpose::Sessions, seed, round, COHORT).shuffle(&mut order);
    }
    let mut rest = order.as_slice();
    let mut groups = Vec::with_capacity(sizes.len());
    for size in sizes {
        let (members, others) = rest.split_at(size);
        rest = others;
        let mut members = members.to_vec();
        members.sort_unstable();
        groups.push(members);
    }
    groups
}

/// The groups of a round, as it went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupsRecord {
    /// Groups that were formed.
    pub formed: u64,
    /// Groups whose means were combined; 0 when the round was given up.
    pub combined: u64,
    /// Of each coordinate, group means that were left out as the largest and the smallest: of a
    /// median all but one or two.
    pub trimmed: u64,
    /// L2 distance of the combined mean from the weighted mean of the same clients: large where a
    /// group is unlike the others.
    pub distance: f64,
}

/// The groups of a round whose means are combined.
pub(crate) struct Groups {
    mean: GroupMean,
    pub(crate) parts: Parts,
}

impl Groups {
    /// Of the clients of each group; `empty` is an empty sum.
    pub(crate) fn new<'a>(
        mean: GroupMean,
        groups: impl Iterator<Item = &'a [ClientId]>,
        empty: ExactSum,
    ) -> Self {
        Self {
            mean,
            parts: Parts::new(groups, empty),
        }
    }

    /// Whether enough groups have a client that is to train.
    pub(crate) fn are_enough(&self) -> bool {
        self.parts.with_jobs() >= LEAST_GROUPS
    }

    /// Combines the sums of groups, and says how; none when they are too few. The first is then the
    /// sum of all.
    pub(crate) fn combine(
        &self,
        sums: &mut [ExactSum],
    ) -> Result<Option<(Aggregate, GroupsRecord)>, SumError> {
        if sums.len() < LEAST_GROUPS {
            return Ok(None);
        }
        let mean = self.mean.combine(sums)?;
        let combined = sums.len();
        let Some((all, others)) = sums.split_first_mut() else {
            return Ok(None);
        };
        for other in others {
            all.merge(other)?;
        }
        let weight = all.tally().weight;
        let distance: f64 = mean
            .mean()
            .iter()
            .zip(all.values())
            .map(|(mean, &sum)| mean - all.plan().decode_mean(sum, weight))
            .map(|difference| difference * difference)
            .sum();
        let record = GroupsRecord {
            formed: self.parts.count(),
            combined: combined as u64,
            trimmed: 2 * self.mean.trimmed(combined) as u64,
            distance: libm::sqrt(distance),
        };
        Ok(Some((mean, record)))
    }

    /// What is recorded of a round that was given up.
    pub(crate) fn given_up(&self) -> GroupsRecord {
        GroupsRecord {
            formed: self.parts.count(),
            combined: 0,
            trimmed: 0,
            distance: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use fl_core::select::{CyclicConfig, PoissonConfig, UniformConfig};

    use super::*;

    #[test]
    fn as_many_clients_are_expected_as_selectors_ask() {
        let uniform = |cohort, over_select| {
            SelectorConfig::Uniform(UniformConfig {
                cohort,
                over_select,
            })
        };
        let poisson = SelectorConfig::Poisson(PoissonConfig { rate: 0.25 });
        let cyclic = SelectorConfig::Cyclic(CyclicConfig {
            period: 2,
            rate: 0.5,
        });
        for (selection, clients, expected, least) in [
            (uniform(10, 1.0), 100, 10, 10),
            (uniform(10, 1.3), 100, 13, 13),
            (uniform(10, 1.3), 12, 12, 12),
            (uniform(10, 1.01), 100, 11, 11),
            // 22.5 with a deviation of 4.1; 25 of 100 with 4.3; 100 of 200 with 7.1.
            (poisson.clone(), 90, 22, 10),
            (poisson, 100, 25, 12),
            (cyclic, 400, 100, 78),
        ] {
            assert_eq!(asked(&selection, clients), expected, "{selection:?}");
            assert_eq!(fewest(&selection, clients).0, least, "{selection:?}");
        }
    }

    #[test]
    fn everybody_is_in_one_group_of_nearly_equal_ones() {
        for (clients, most, expected) in [
            (0, Some(3), vec![]),
            (7, None, vec![7]),
            (7, Some(3), vec![3, 2, 2]),
            (9, Some(3), vec![3, 3, 3]),
            (10, Some(100), vec![10]),
        ] {
            let groups = divide(clients, most, Seed(1), RoundId(2));
            let found: Vec<usize> = groups.iter().map(Vec::len).collect();
            assert_eq!((&found, &sizes(clients, most)), (&expected, &expected));
            let mut all: Vec<usize> = groups.concat();
            all.sort_unstable();
            assert_eq!(all, (0..clients).collect::<Vec<_>>());
            assert!(groups.iter().all(|group| group.is_sorted()));
        }
        let other = |round| divide(20, Some(5), Seed(1), RoundId(round));
        assert_ne!(other(0), other(1));
        assert_eq!(other(1), other(1));
    }
}
