//! Parts of a cohort that are summed each by itself: groups, or regions.

use std::sync::{Mutex, PoisonError};

use fl_core::sum::{Absorbed, Aggregator as _, ExactSum, SumError};
use fl_core::{ClientId, Weight};

use crate::executor::Job;

/// The parts of a cohort, and the sum of each.
pub(crate) struct Parts {
    /// Ascending, each with its part.
    clients: Vec<(ClientId, u32)>,
    /// Of each job.
    of_job: Vec<u32>,
    /// Of each part; made with its first update, where the workers add.
    sums: Vec<Mutex<Option<ExactSum>>>,
    empty: ExactSum,
}

impl Parts {
    /// Of the clients of each part; `empty` is an empty sum.
    pub(crate) fn new<'a>(parts: impl Iterator<Item = &'a [ClientId]>, empty: ExactSum) -> Self {
        let mut clients = Vec::new();
        let mut count = 0u32;
        for (part, members) in (0u32..).zip(parts) {
            clients.extend(members.iter().map(|&client| (client, part)));
            count = part + 1;
        }
        clients.sort_unstable();
        Self {
            clients,
            of_job: Vec::new(),
            sums: (0..count).map(|_| Mutex::new(None)).collect(),
            empty,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.sums.len() as u64
    }

    /// The part of a client.
    pub(crate) fn of(&self, client: ClientId) -> Option<usize> {
        let place = self.clients.binary_search_by_key(&client, |(id, _)| *id);
        place.ok().map(|place| self.clients[place].1 as usize)
    }

    /// Finds the parts of the clients that train.
    pub(crate) fn seat(&mut self, jobs: &[Job]) {
        let of = |job: &Job| self.of(job.client).unwrap_or(0) as u32;
        let found: Vec<u32> = jobs.iter().map(of).collect();
        self.of_job = found;
    }

    /// The part of a job.
    pub(crate) fn of_job(&self, job: u32) -> usize {
        self.of_job.get(job as usize).copied().unwrap_or(0) as usize
    }

    /// Parts with a client that is to train.
    pub(crate) fn with_jobs(&self) -> usize {
        let mut found = self.of_job.clone();
        found.sort_unstable();
        found.dedup();
        found.len()
    }

    /// Adds the update of a job to the sum of its part.
    pub(crate) fn absorb(
        &self,
        job: u32,
        update: &[f32],
        weight: Weight,
    ) -> Result<Absorbed, SumError> {
        let mut sum = self.sums[self.of_job(job)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sum.get_or_insert_with(|| self.empty.clone())
            .absorb(update, weight)
    }

    /// What the workers added up for each part; none where they did not. Leaves nothing.
    pub(crate) fn take(&mut self) -> Vec<Option<ExactSum>> {
        let take = |sum: &mut Mutex<Option<ExactSum>>| {
            sum.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        };
        self.sums.iter_mut().map(take).collect()
    }
}
