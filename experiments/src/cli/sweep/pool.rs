//! Cells, several at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use fl_sim::Outcome;

use super::progress::{CellShown, Whole, Worker};
use crate::cli::output;
use crate::cli::run::{How, Played};
use crate::config::SweepCell;
use crate::error::Error;
use crate::results::{HostFacts, ResultsError, ResultsFolder};
use crate::runner::{DataCache, Workload};
use crate::sweep::{Kept, SweepFolder};

/// Runs cells. Which of them run at a time, and in what order, changes no result.
pub(super) struct Pool<'a> {
    pub(super) folder: &'a SweepFolder,
    /// Of each job.
    pub(super) threads: usize,
    pub(super) jobs: usize,
    /// Bytes that the cells at work may take together by estimate.
    pub(super) memory: Option<u64>,
    pub(super) checkpoint_every: Option<u64>,
    pub(super) host: &'a HostFacts,
    /// Raised by Ctrl-C, and when a cell failed.
    pub(super) stop: &'a AtomicBool,
    pub(super) whole: &'a Whole,
}

/// A cell to be run.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) cell: &'a SweepCell,
    pub(super) workload: Workload,
    /// Only so many rounds, for now.
    pub(super) until: Option<u64>,
}

/// How a task ended.
enum End {
    /// It is done, here or before.
    Done,
    /// Another process is at it.
    Busy,
    /// It was stopped.
    Stopped,
}

/// Between two looks at cells that other processes run.
const PATIENCE: Duration = Duration::from_millis(300);

impl Pool<'_> {
    /// Runs all tasks; ends early when `stop` is raised. Cells that another process is running are
    /// waited for.
    ///
    /// # Errors
    /// The first [`Error`]; cells that were running then are stopped at a checkpoint.
    pub(super) fn run(&self, tasks: Vec<Task<'_>>) -> Result<(), Error> {
        let budget = Budget::new(self.memory.unwrap_or(u64::MAX));
        let queue = Mutex::new(VecDeque::from(tasks));
        let busy = Mutex::new(Vec::new());
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let mut waits = false;
        loop {
            let before = lock(&queue).len();
            std::thread::scope(|scope| {
                for _ in 0..self.jobs {
                    scope.spawn(|| self.work(&queue, &busy, &failed, &budget));
                }
            });
            if let Some(error) = lock(&failed).take() {
                return Err(error);
            }
            let again: Vec<Task<'_>> = std::mem::take(&mut lock(&busy));
            if again.is_empty() || self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            if again.len() == before {
                if !waits {
                    self.whole.tell(&format!(
                        "waiting for {} cells that another process runs",
                        output::count(again.len() as u64)
                    ));
                }
                waits = true;
                std::thread::sleep(PATIENCE);
            }
            lock(&queue).extend(again);
        }
    }

    /// One job: takes tasks until there are none.
    fn work<'t>(
        &self,
        queue: &Mutex<VecDeque<Task<'t>>>,
        busy: &Mutex<Vec<Task<'t>>>,
        failed: &Mutex<Option<Error>>,
        budget: &Budget,
    ) {
        let mut cache = DataCache::default();
        while !self.stop.load(Ordering::SeqCst) {
            let Some(task) = lock(queue).pop_front() else {
                return;
            };
            let memory = task.workload.memory(self.threads as u64);
            budget.take(memory);
            let end = self.cell(&task, &mut cache);
            budget.give_back(memory);
            match end {
                Ok(End::Done | End::Stopped) => {}
                Ok(End::Busy) => lock(busy).push(task),
                Err(error) => {
                    lock(failed).get_or_insert(error);
                    self.stop.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    fn cell(&self, task: &Task<'_>, cache: &mut DataCache) -> Result<End, Error> {
        if self.is_done(task) {
            self.count(task, None);
            return Ok(End::Done);
        }
        let path = self.folder.cell(&task.cell.id);
        let folder = match ResultsFolder::open(&path) {
            Ok(folder) => folder,
            Err(ResultsError::InUse { .. }) => return Ok(End::Busy),
            Err(error) => return Err(error.into()),
        };
        // Another process may have finished it while we asked.
        if self.is_done(task) {
            if task.until.is_none() {
                folder.leave();
            }
            self.count(task, None);
            return Ok(End::Done);
        }
        if let Kept::Damaged(error) = self.folder.kept(task.cell) {
            self.whole
                .tell(&format!("cell {} is run again: {error}", task.cell.id));
            self.folder.forget(&task.cell.id)?;
        }
        let key = task.cell.variant.key();
        let Some(mut run) = self.start(task, &folder, cache)? else {
            folder.publish(task.cell.id.as_str(), &[key], self.host)?;
            self.count(task, None);
            return Ok(End::Done);
        };
        let found = run.round();
        let per_round = task.workload.cost() / task.workload.rounds.max(1);
        let before = found.saturating_mul(per_round);
        self.whole.advance(&task.cell.id, before, Worker::Before);
        let outcome = self.play(task, &mut run, per_round)?;
        let whole = run.end(outcome)?;
        let results = folder.publish(task.cell.id.as_str(), &[key], self.host)?;
        let reached = match outcome {
            Outcome::Stopped { round } => task.until.is_some_and(|until| round >= until),
            _ => whole,
        };
        if !reached {
            return Ok(End::Stopped);
        }
        if task.until.is_none() || whole {
            let accuracy = results
                .variants
                .first()
                .and_then(|variant| variant.summary().final_accuracy)
                .map_or(String::new(), |accuracy| {
                    format!("  accuracy {:.2} %", 100.0 * accuracy)
                });
            let told = format!("{}  {}{accuracy}", task.cell.id, task.cell.label());
            self.count(task, Some(&told));
        }
        Ok(End::Done)
    }

    /// Whether there is nothing left to do. A teacher's file may have changed since, so that a cell
    /// with one is looked at more closely.
    fn is_done(&self, task: &Task<'_>) -> bool {
        match self.folder.kept(task.cell) {
            Kept::Finished => task.cell.variant.local.distillation.is_none(),
            Kept::Stopped { rounds } => task.until.is_some_and(|until| rounds >= until),
            Kept::Nothing | Kept::Damaged(_) => false,
        }
    }

    /// Counts a cell as done; `told` is said of one that was run here.
    fn count(&self, task: &Task<'_>, told: Option<&str>) {
        if task.until.is_some() && told.is_none() {
            return;
        }
        let by = match told {
            Some(_) => Worker::Here,
            None => Worker::Before,
        };
        self.whole.advance(&task.cell.id, task.workload.cost(), by);
        self.whole.cell_done(told);
    }

    /// Goes on with the cell, or starts it afresh where what there is cannot be gone on with.
    fn start(
        &self,
        task: &Task<'_>,
        folder: &ResultsFolder,
        cache: &mut DataCache,
    ) -> Result<Option<Played>, Error> {
        let how = |resume| How {
            threads: self.threads,
            checkpoint_every: self.checkpoint_every,
            resume,
        };
        let variant = &task.cell.variant;
        match Played::start(&how(true), variant, folder, cache) {
            Err(
                error @ (Error::Simulation(_)
                | Error::Results(
                    ResultsError::JournalTooShort { .. }
                    | ResultsError::OtherConfiguration { .. }
                    | ResultsError::Damaged { .. }
                    | ResultsError::Format { .. },
                )),
            ) => {
                self.whole.tell(&format!(
                    "cell {} starts afresh, for its checkpoint cannot be used: {error}",
                    task.cell.id
                ));
                Played::start(&how(false), variant, folder, cache)
            }
            other => other,
        }
    }

    /// Plays the cell to its end, to the round where it is to wait, or until it is stopped.
    fn play(&self, task: &Task<'_>, run: &mut Played, per_round: u64) -> Result<Outcome, Error> {
        let shown = |reached| CellShown {
            whole: self.whole,
            id: &task.cell.id,
            per_round,
            reached,
        };
        let nothing = |_: u64, _: bool| {};
        let found = run.round();
        let Some(until) = task.until else {
            return run.play(shown(&nothing), self.stop);
        };
        // The run ends after the evaluation that is due there, which a stop raised before it would
        // leave out.
        let every = task.cell.variant.evaluation.config().every;
        let is_due = until.is_multiple_of(every.max(1));
        let halt = AtomicBool::new(found >= until && (!is_due || run.simulation().is_evaluated()));
        let reached = |done: u64, evaluated: bool| {
            let there = done >= until && evaluated == is_due;
            if there || self.stop.load(Ordering::SeqCst) {
                halt.store(true, Ordering::SeqCst);
            }
        };
        run.play(shown(&reached), &halt)
    }
}

/// Takes a lock; what a panicking holder left is whole, for each is held for a moment only.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that cells share.
struct Budget {
    free: Mutex<u64>,
    returned: Condvar,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        Self {
            free: Mutex::new(bytes),
            returned: Condvar::new(),
        }
    }

    /// Waits for so many bytes; no cell takes more than there are.
    fn take(&self, bytes: u64) {
        let free = lock(&self.free);
        let free = self
            .returned
            .wait_while(free, |free| *free < bytes)
            .map(|mut free| *free -= bytes);
        drop(free);
    }

    fn give_back(&self, bytes: u64) {
        *lock(&self.free) += bytes;
        self.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_never_overspent() {
        let budget = Budget::new(10);
        let (used, most) = (Mutex::new(0u64), Mutex::new(0u64));
        std::thread::scope(|scope| {
            for bytes in [3, 4, 5, 6, 7, 10] {
                let (budget, used, most) = (&budget, &used, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        budget.take(bytes);
                        let now = {
                            let mut used = lock(used);
                            *used += bytes;
                            *used
                        };
                        let mut most = lock(most);
                        *most = now.max(*most);
                        drop(most);
                        *lock(used) -= bytes;
                        budget.give_back(bytes);
                    }
                });
            }
        });
        assert!(*lock(&most) <= 10);
        assert_eq!(*lock(&budget.free), 10);
    }
}
