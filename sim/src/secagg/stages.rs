//! The stages of a session as numbers: who is there in each, whether they are enough, and what their
//! messages weigh.

use fl_secagg::{Params, Threat, Topology, Traffic};
use serde::{Deserialize, Serialize};

/// A stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecAggStage {
    /// Clients advertise keys.
    AdvertiseKeys,
    /// They share their secrets.
    ShareKeys,
    /// They send their masked inputs.
    MaskedInput,
    /// They sign the set of survivors, under the active threat.
    Consistency,
    /// They reveal shares, and the sum is unmasked.
    Unmask,
}

impl SecAggStage {
    /// As it is written in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AdvertiseKeys => "advertise-keys",
            Self::ShareKeys => "share-keys",
            Self::MaskedInput => "masked-input",
            Self::Consistency => "consistency",
            Self::Unmask => "unmask",
        }
    }
}

/// When a client leaves its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaves {
    BeforeKeys,
    AfterKeys,
    AfterShares,
    /// Its input is in the sum.
    AfterInput,
    Never,
}

/// How many clients take part in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) clients: u32,
    pub(crate) keys: u32,
    pub(crate) shares: u32,
    pub(crate) inputs: u32,
    /// To the end.
    pub(crate) answers: u32,
}

impl Present {
    pub(crate) fn of(leaves: impl IntoIterator<Item = Leaves>) -> Self {
        let mut present = Self::default();
        for leaves in leaves {
            present.clients += 1;
            present.keys += u32::from(leaves > Leaves::BeforeKeys);
            present.shares += u32::from(leaves > Leaves::AfterKeys);
            present.inputs += u32::from(leaves > Leaves::AfterShares);
            present.answers += u32::from(leaves > Leaves::AfterInput);
        }
        present
    }

    /// The first stage, up to and with `last`, in which they are too few.
    pub(crate) fn failure(&self, params: &Params, last: SecAggStage) -> Option<SecAggStage> {
        let fewest = params.min_survivors().max(params.threshold());
        let stages = [
            (SecAggStage::AdvertiseKeys, self.keys, fewest),
            (SecAggStage::ShareKeys, self.shares, fewest),
            (SecAggStage::MaskedInput, self.inputs, fewest),
            (
                SecAggStage::Consistency,
                self.answers,
                match params.threat() {
                    Threat::Active => params.quorum(),
                    Threat::SemiHonest | Threat::SemiMalicious => 0,
                },
            ),
            (
                SecAggStage::Unmask,
                self.answers,
                match params.topology() {
                    Topology::Complete => params.threshold(),
                    Topology::Harary => params
                        .threshold()
                        .max(params.clients() - params.cohort().dropouts()),
                },
            ),
        ];
        stages
            .into_iter()
            .take_while(|(stage, ..)| *stage <= last)
            .find_map(|(stage, present, least)| (present < least).then_some(stage))
    }
}

/// What the messages of a session weigh that ends in the stage `ended`; whole when not given.
pub(crate) fn modelled(params: &Params, present: &Present, ended: Option<SecAggStage>) -> Traffic {
    let Present {
        clients,
        keys,
        shares,
        inputs,
        answers,
    } = *present;
    let one = |neighbours, sharing| Traffic::new(params, keys, neighbours, sharing, answers);
    // Over `senders` clients whose neighbours are `others` of all.
    let over = |senders: u32, others: u32, bytes: &dyn Fn(u32) -> u64| {
        let others = u64::from(others.saturating_sub(1));
        let pairs = u64::from(senders)
            * match params.topology() {
                Topology::Complete => others,
                Topology::Harary => {
                    let all = u64::from(clients.saturating_sub(1)).max(1);
                    return {
                        let wide = u64::from(senders) * u64::from(params.degree()) * others;
                        spread(senders, (wide + all / 2) / all, bytes)
                    };
                }
            };
        spread(senders, pairs, bytes)
    };
    let whole = one(0, 0);
    let begun = |stage| ended.is_none_or(|ended| ended >= stage);
    let from = |stage, bytes: u64| if begun(stage) { bytes } else { 0 };
    Traffic {
        advertise_keys: u64::from(keys) * whole.advertise_keys,
        roster: from(SecAggStage::ShareKeys, u64::from(keys) * whole.roster),
        share_keys: from(
            SecAggStage::ShareKeys,
            over(shares, keys, &|neighbours| one(neighbours, 0).share_keys),
        ),
        forwarded_shares: from(
            SecAggStage::MaskedInput,
            over(shares, shares, &|sharing| one(0, sharing).forwarded_shares),
        ),
        masked_input: from(
            SecAggStage::MaskedInput,
            u64::from(inputs) * whole.masked_input,
        ),
        survivors: from(
            SecAggStage::Consistency,
            u64::from(inputs) * whole.survivors,
        ),
        signed_survivors: from(
            SecAggStage::Consistency,
            u64::from(answers) * whole.signed_survivors,
        ),
        unmask: from(SecAggStage::Unmask, u64::from(answers) * whole.unmask),
        unmasking_shares: from(
            SecAggStage::Unmask,
            over(answers, shares, &|sharing| one(0, sharing).unmasking_shares),
        ),
    }
}

/// Bytes of the messages of `senders` clients with `entries` entries in all, as evenly as can be.
fn spread(senders: u32, entries: u64, bytes: &dyn Fn(u32) -> u64) -> u64 {
    let Some(each) = entries.checked_div(senders.into()) else {
        return 0;
    };
    let more = entries - each * u64::from(senders);
    let each = u32::try_from(each).unwrap_or(u32::MAX - 1);
    let (low, high) = (bytes(each), bytes(each + 1));
    u64::from(senders) * low + more * (high - low)
}

#[cfg(test)]
mod tests {
    use fl_secagg::{Cohort, Ring, Suite};

    use super::*;

    fn params(clients: u32, threat: Threat, topology: Topology) -> Params {
        let cohort = Cohort::new(clients, 0.1, 0.2).unwrap();
        let ring = Ring::bounded(clients, 1, 16).unwrap();
        Params::new(cohort, threat, topology, Suite::Aes128, ring, 5).unwrap()
    }

    #[test]
    fn too_few_are_noticed_in_the_first_stage_that_has_too_few() {
        use Leaves::{AfterInput, AfterKeys, AfterShares, BeforeKeys, Never};
        // 20 clients: 2 corrupt, 4 expected to leave; threshold 3 and at least 4 survivors.
        let complete = params(20, Threat::SemiHonest, Topology::Complete);
        assert_eq!((complete.threshold(), complete.min_survivors()), (3, 4));
        let present = |leaves: [usize; 4]| {
            let kinds = [BeforeKeys, AfterKeys, AfterShares, AfterInput];
            let stay = 20 - leaves.iter().sum::<usize>();
            Present::of(
                kinds
                    .into_iter()
                    .zip(leaves)
                    .chain([(Never, stay)])
                    .flat_map(|(kind, count)| core::iter::repeat_n(kind, count)),
            )
        };
        for (leaves, failed) in [
            ([0, 0, 0, 0], None),
            ([16, 0, 0, 0], None),
            ([17, 0, 0, 0], Some(SecAggStage::AdvertiseKeys)),
            ([10, 7, 0, 0], Some(SecAggStage::ShareKeys)),
            ([5, 5, 7, 0], Some(SecAggStage::MaskedInput)),
            ([5, 5, 6, 1], None),
            ([5, 5, 6, 2], Some(SecAggStage::Unmask)),
        ] {
            let found = present(leaves).failure(&complete, SecAggStage::Unmask);
            assert_eq!(found, failed, "{leaves:?}");
        }
        let early = present([5, 5, 7, 0]).failure(&complete, SecAggStage::ShareKeys);
        assert_eq!(early, None);
        // At least 16 to the end.
        let harary = params(20, Threat::SemiHonest, Topology::Harary);
        assert_eq!(harary.min_survivors(), 16);
        for (leaves, failed) in [
            ([1, 1, 1, 1], None),
            ([0, 0, 5, 0], Some(SecAggStage::MaskedInput)),
            ([0, 0, 4, 1], Some(SecAggStage::Unmask)),
        ] {
            let found = present(leaves).failure(&harary, SecAggStage::Unmask);
            assert_eq!(found, failed, "{leaves:?}");
        }
        let active = params(20, Threat::Active, Topology::Complete);
        assert_eq!(active.quorum(), 14);
        let found = present([0, 0, 0, 7]).failure(&active, SecAggStage::Unmask);
        assert_eq!(found, Some(SecAggStage::Consistency));
    }
}
