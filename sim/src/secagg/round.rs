//! The sessions of one round: who is in which, when each leaves, and how it ends.

use std::sync::Arc;

use fl_core::sum::{ExactSum, SumError, Tally};
use fl_core::{ClientId, ModularError, ModularSum, Purpose, RingPlan, Stream};
use fl_secagg::{Aggregate, CostModel, Counts, Params, StageSeconds, Workers};

use super::live::{Context, Live};
use super::stages::{Leaves, Present, modelled as modelled_bytes};
use super::{
    SecAggBytes, SecAggError, SecAggMode, SecAggPlan, SecAggRecord, SecAggSeconds, SecAggStage,
    StageTime,
};
use crate::executor::Job;

/// One session as numbers.
#[derive(Debug)]
struct Group {
    /// None where no session of so few clients is safe.
    params: Option<Arc<Params>>,
    /// Ascending.
    clients: Vec<ClientId>,
    leaves: Vec<Leaves>,
    /// Where the real session failed by itself.
    broken: Option<SecAggStage>,
}

impl Group {
    fn present(&self) -> Present {
        Present::of(self.leaves.iter().copied())
    }

    fn failure(&self, last: SecAggStage) -> Option<SecAggStage> {
        let Some(params) = &self.params else {
            return Some(SecAggStage::AdvertiseKeys);
        };
        let broken = self.broken.filter(|stage| *stage <= last);
        let expected = self.present().failure(params, last);
        match (broken, expected) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// The sessions of a round.
pub(crate) struct Sessions {
    mode: SecAggMode,
    groups: Vec<Group>,
    /// Those that are really run: all groups, or that of the sample.
    live: Option<Live>,
    /// Clients whose masked inputs came to a sum that was unmasked.
    masked: u64,
    /// How far the round went.
    reached: SecAggStage,
    /// Whether the round goes on without a session that failed.
    apart: bool,
}

impl Sessions {
    /// Begins a session of each of `places`, which are those of its clients in `clients`, ascending,
    /// and runs those that are real up to where inputs are masked. `clients` says when each leaves;
    /// `apart`, that the round goes on without a session that fails.
    pub(crate) fn open(
        plan: &mut SecAggPlan,
        clients: &[(ClientId, Leaves)],
        places: Vec<Vec<usize>>,
        apart: bool,
        context: &Context,
        workers: &impl Workers,
    ) -> Result<Self, SecAggError> {
        let (seed, round) = (context.seed, context.round);
        let groups = places.into_iter().map(|members| Group {
            params: plan.params_of(members.len()),
            clients: members.iter().map(|&index| clients[index].0).collect(),
            leaves: members.iter().map(|&index| clients[index].1).collect(),
            broken: None,
        });
        let groups = groups.collect();
        let mode = plan.config().mode;
        let mut sessions = Self {
            mode,
            groups,
            live: None,
            masked: 0,
            reached: SecAggStage::ShareKeys,
            apart,
        };
        let mut live = Live::new(mode == SecAggMode::Real, plan.counts_clips(), round);
        match mode {
            SecAggMode::Ideal => return Ok(sessions),
            SecAggMode::Real => {
                for group in &mut sessions.groups {
                    let Some(params) = &group.params else {
                        live.skip();
                        continue;
                    };
                    group.broken =
                        live.open(params, &group.clients, &group.leaves, context, workers)?;
                }
            }
            SecAggMode::Sampled => {
                let mut sample: Vec<usize> = (0..clients.len()).collect();
                Stream::at(Purpose::Sessions, seed, round, ClientId(0)).shuffle(&mut sample);
                sample.truncate(plan.config().sample as usize);
                sample.sort_unstable();
                if let Some(params) = plan.params_of_sample(sample.len()) {
                    let ids: Vec<ClientId> = sample.iter().map(|&index| clients[index].0).collect();
                    let leaves: Vec<Leaves> =
                        sample.iter().map(|&index| clients[index].1).collect();
                    // A sample that is too small for who leaves is no fault of the round.
                    live.open(&params, &ids, &leaves, context, workers)?;
                }
            }
        }
        sessions.live = Some(live);
        Ok(sessions)
    }

    /// Finds the seats of the clients that train.
    pub(crate) fn seat(&mut self, jobs: &[Job]) {
        if let Some(live) = &mut self.live {
            live.seat(jobs);
        }
    }

    /// Whether a session has failed before its inputs.
    pub(crate) fn failed_early(&self) -> bool {
        (0..self.groups.len()).any(|index| self.has_failed_early(index))
    }

    /// Whether that session has failed before its inputs.
    pub(crate) fn has_failed_early(&self, index: usize) -> bool {
        let failed = |group: &Group| group.failure(SecAggStage::ShareKeys).is_some();
        self.groups.get(index).is_none_or(failed)
    }

    /// The clients of each session, ascending.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &[ClientId]> {
        self.groups.iter().map(|group| group.clients.as_slice())
    }

    /// The real sessions, for the workers.
    pub(crate) fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// After training: `refused` clients, ascending, had nothing to send. Unmasks the sums of the
    /// real sessions. Whether every session has a sum.
    pub(crate) fn close(
        &mut self,
        refused: &[ClientId],
        workers: &impl Workers,
    ) -> Result<bool, SecAggError> {
        self.reached = SecAggStage::Unmask;
        for group in &mut self.groups {
            for (client, leaves) in group.clients.iter().zip(&mut group.leaves) {
                if refused.binary_search(client).is_ok() {
                    *leaves = (*leaves).min(Leaves::AfterShares);
                }
            }
        }
        let Some(live) = &mut self.live else {
            return Ok(self.whole());
        };
        if self.mode == SecAggMode::Sampled {
            if live.finish(0, None, workers)?.1 {
                self.masked = live.inputs(0);
            }
            return Ok(self.whole());
        }
        for (index, group) in self.groups.iter_mut().enumerate() {
            let expected = group.failure(SecAggStage::Unmask);
            let (broken, whole) = live.finish(index, expected, workers)?;
            group.broken = group.broken.or(broken);
            if whole {
                self.masked += live.inputs(index);
            }
        }
        Ok(self.whole())
    }

    fn whole(&self) -> bool {
        (0..self.groups.len()).all(|index| self.is_whole(index))
    }

    /// Whether that session has a sum, after the end.
    pub(crate) fn is_whole(&self, index: usize) -> bool {
        let whole = |group: &Group| group.failure(SecAggStage::Unmask).is_none();
        self.groups.get(index).is_some_and(whole)
    }

    /// What one session gave, in the real mode: the sum of updates, of which `tally` says what is in
    /// it.
    pub(crate) fn sum_of(
        &self,
        index: usize,
        ring: RingPlan,
        length: usize,
        tally: Tally,
    ) -> Result<Option<ExactSum>, SumError> {
        let live = self.live.as_ref().filter(|live| live.replaces());
        let Some(aggregate) = live.and_then(|live| live.aggregate(index)) else {
            return Ok(None);
        };
        let values = aggregate.integers().take(length).collect();
        ExactSum::added_up(ring, values, tally).map(Some)
    }

    /// What the sessions gave, in the real mode: the sum of updates, of which `tally` says what is in
    /// it.
    pub(crate) fn sum(
        &self,
        ring: RingPlan,
        length: usize,
        tally: Tally,
    ) -> Result<Option<ExactSum>, SumError> {
        let Some(aggregates) = self.aggregates() else {
            return Ok(None);
        };
        let mut values = vec![0i64; length];
        for aggregate in aggregates {
            for (value, integer) in values.iter_mut().zip(aggregate.integers()) {
                *value = value.wrapping_add(integer);
            }
        }
        ExactSum::added_up(ring, values, tally).map(Some)
    }

    /// The same of vectors in `Z_2^b`.
    pub(crate) fn modular(
        &self,
        bits: u32,
        length: usize,
    ) -> Result<Option<ModularSum>, ModularError> {
        let Some(aggregates) = self.aggregates() else {
            return Ok(None);
        };
        let mut elements = vec![0u64; length];
        let mut vectors = 0;
        let largest = u64::MAX >> (64 - bits);
        for aggregate in aggregates {
            vectors += aggregate.survivors().len() as u64;
            for (sum, element) in elements.iter_mut().zip(aggregate.elements()) {
                *sum = sum.wrapping_add(*element) & largest;
            }
        }
        ModularSum::added_up(bits, &elements, vectors).map(Some)
    }

    fn aggregates(&self) -> Option<impl Iterator<Item = &Aggregate>> {
        let real = self.mode == SecAggMode::Real;
        self.live.as_ref().filter(|_| real).map(Live::aggregates)
    }

    /// What the coordinate at `place`, behind those of the parameters, adds up to in the real mode:
    /// updates within the clipping norm less the others. None where it is not counted.
    pub(crate) fn counted_clips(&self, place: usize) -> Option<i64> {
        if !self.live.as_ref().is_some_and(Live::counts_clips) {
            return None;
        }
        let last = |aggregate: &Aggregate| aggregate.integers().nth(place).unwrap_or(0);
        Some(self.aggregates()?.map(last).sum())
    }

    /// The survivors of each session that has a sum, and the minimum of the largest session.
    pub(crate) fn survivors(&self) -> (Vec<Vec<ClientId>>, u64) {
        let whole = |(index, _): &(usize, &Group)| self.is_whole(*index);
        let of = |(_, group): (usize, &Group)| {
            let all = group.clients.iter().zip(&group.leaves);
            all.filter(|(_, leaves)| **leaves > Leaves::AfterShares)
                .map(|(client, _)| *client)
                .collect()
        };
        let largest = self.largest();
        let least = largest.map_or(0, |params| params.min_survivors());
        let groups = self.groups.iter().enumerate();
        (groups.filter(whole).map(of).collect(), least.into())
    }

    /// The parameters of the largest session.
    fn largest(&self) -> Option<&Params> {
        let larger = |a: &'_ &Group, b: &'_ &Group| a.clients.len().cmp(&b.clients.len());
        let largest = self.groups.iter().rev().max_by(larger)?;
        largest.params.as_deref()
    }

    /// What is recorded of the round.
    pub(crate) fn record(&self, close_pairs: u64) -> SecAggRecord {
        let largest = self.largest();
        let of = |get: fn(&Params) -> u32| largest.map_or(0, |params| get(params).into());
        let ended = self.reached < SecAggStage::MaskedInput;
        let mut record = SecAggRecord {
            mode: self.mode,
            sessions: self.groups.len() as u64,
            clients: 0,
            neighbours: of(Params::degree),
            threshold: of(Params::threshold),
            min_survivors: of(Params::min_survivors),
            ring_bits: of(|params| params.ring().bits()),
            left: [0; 4],
            inputs: 0,
            masked: self.masked,
            failed: 0,
            failed_stage: None,
            bytes: SecAggBytes::default(),
            close_pairs,
            modelled: None,
            measured: self.live.as_ref().and_then(Live::seconds),
        };
        let mut modelled = Modelled::default();
        for (index, group) in self.groups.iter().enumerate() {
            let early = ended
                || match self.apart {
                    true => self.has_failed_early(index),
                    false => self.failed_early(),
                };
            let last = if early {
                SecAggStage::ShareKeys
            } else {
                SecAggStage::Unmask
            };
            let failure = group.failure(last);
            let mut present = group.present();
            let mut left = [
                present.clients - present.keys,
                present.keys - present.shares,
                present.shares - present.inputs,
                present.inputs - present.answers,
            ];
            if early {
                left[2..].fill(0);
            }
            record.clients += u64::from(present.clients);
            for (sum, left) in record.left.iter_mut().zip(left) {
                *sum += u64::from(left);
            }
            record.failed += u64::from(failure.is_some());
            record.failed_stage = match (record.failed_stage, failure) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if early {
                (present.inputs, present.answers) = (0, 0);
            }
            record.inputs += u64::from(present.inputs);
            let counted = match self.mode {
                SecAggMode::Real => self.live.as_ref().and_then(|live| live.bytes(index)),
                SecAggMode::Sampled | SecAggMode::Ideal => None,
            };
            let weighed = group
                .params
                .as_ref()
                .map(|params| modelled_bytes(params, &present, failure));
            record.bytes += counted.or(weighed).unwrap_or_default();
            if let (Some(params), None, false) = (&group.params, failure, early) {
                modelled.add(params, &present);
            }
        }
        record.modelled = modelled.seconds();
        record
    }
}

/// Seconds by the library's cost model, over sessions.
#[derive(Default)]
struct Modelled {
    times: [StageTime; 5],
    clients: f64,
}

impl Modelled {
    fn add(&mut self, params: &Params, present: &Present) {
        let counts = Counts {
            present: present.keys,
            sharing: present.shares,
            survivors: present.inputs,
            signing: present.answers,
            revealing: present.answers,
        };
        let model = CostModel::reference();
        let client = by_stage(&model.client(params, &counts));
        let server = by_stage(&model.server(params, &counts));
        let clients = f64::from(present.answers);
        self.clients += clients;
        for ((time, client), server) in self.times.iter_mut().zip(client).zip(server) {
            time.client_mean += clients * client;
            time.client_max = time.client_max.max(client);
            time.server += server;
        }
    }

    /// None without a session that came to its end.
    fn seconds(self) -> Option<SecAggSeconds> {
        let clients = self.clients;
        (clients > 0.0).then(|| {
            SecAggSeconds::from_stages(self.times.map(|time| StageTime {
                client_mean: time.client_mean / clients,
                ..time
            }))
        })
    }
}

fn by_stage(seconds: &StageSeconds) -> [f64; 5] {
    [
        seconds.advertise,
        seconds.share,
        seconds.mask,
        seconds.consistency,
        seconds.unmask,
    ]
}
