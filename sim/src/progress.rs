//! How far the work at hand is, for whoever draws a progress bar on another thread.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a simulation is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Neither of the others.
    #[default]
    Between,
    /// Training the clients of a round.
    Training,
    /// Evaluating the global model.
    Evaluating,
}

/// How far the work at hand is. Read it at leisure from any thread; nothing depends on it.
#[derive(Debug, Default)]
pub struct Progress {
    activity: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// What is being done, how many of its parts are done, and how many there are: clients when
    /// training; clients or chunks of the test set when evaluating.
    #[must_use]
    pub fn read(&self) -> (Activity, u64, u64) {
        let activity = match self.activity.load(Ordering::Relaxed) {
            1 => Activity::Training,
            2 => Activity::Evaluating,
            _ => Activity::Between,
        };
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed).min(total);
        (activity, done, total)
    }

    pub(crate) fn begin(&self, activity: Activity, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, parts: usize) {
        self.done.fetch_add(parts as u64, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.begin(Activity::Between, 0);
    }
}
