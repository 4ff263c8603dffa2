//! How far the whole sweep is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fl_sim::EvaluationRecord;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output;
use crate::cli::progress::Shown;
use crate::sweep::CellId;

/// The work of all cells: counted in multiply-adds, shown in cells, with the time that is left.
pub(super) struct Whole {
    bar: ProgressBar,
    quiet: bool,
    /// Multiply-adds of all cells ...
    total: AtomicU64,
    /// ... of those that are done, by whomever and whenever ...
    done: AtomicU64,
    /// ... and of those that this process did, from which the rate is told.
    here: AtomicU64,
    /// What of each cell is counted.
    counted: Mutex<BTreeMap<CellId, u64>>,
    cells: AtomicUsize,
    cells_done: AtomicUsize,
    start: Instant,
}

/// Who did some work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    /// This process: it tells how fast it is.
    Here,
    /// Another, or this command before it was interrupted.
    Before,
}

#[expect(
    clippy::disallowed_methods,
    reason = "tells a person how much time is left; decides nothing"
)]
fn now() -> Instant {
    Instant::now()
}

impl Whole {
    /// Of so many cells that cost `total` together.
    pub(super) fn new(total: u64, cells: usize, quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(4)
        };
        let bar = ProgressBar::with_draw_target(Some(1000), target).with_prefix("sweep");
        let style = ProgressStyle::with_template("{prefix:<8} {bar:28} {msg}");
        bar.set_style(
            style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━━─"),
        );
        bar.enable_steady_tick(Duration::from_millis(250));
        let whole = Self {
            bar,
            quiet,
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            here: AtomicU64::new(0),
            counted: Mutex::new(BTreeMap::new()),
            cells: AtomicUsize::new(cells),
            cells_done: AtomicUsize::new(0),
            start: now(),
        };
        whole.show();
        whole
    }

    /// Takes a cell out that will not be run to its end.
    pub(super) fn without(&self, id: &CellId, cost: u64) {
        let counted = self.lock().remove(id).unwrap_or(0);
        self.total.fetch_sub(cost, Ordering::Relaxed);
        self.done.fetch_sub(counted, Ordering::Relaxed);
        self.cells.fetch_sub(1, Ordering::Relaxed);
        self.show();
    }

    /// So many multiply-adds of a cell are done in all.
    pub(super) fn advance(&self, id: &CellId, to: u64, by: Worker) {
        let new = {
            let mut counted = self.lock();
            let counted = counted.entry(id.clone()).or_insert(0);
            let new = to.saturating_sub(*counted);
            *counted += new;
            new
        };
        self.done.fetch_add(new, Ordering::Relaxed);
        if by == Worker::Here {
            self.here.fetch_add(new, Ordering::Relaxed);
        }
        self.show();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<CellId, u64>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cell is done; `told` is said of one that was run here.
    pub(super) fn cell_done(&self, told: Option<&str>) {
        let done = self.cells_done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(told) = told.filter(|_| !self.quiet) {
            let cells = self.cells.load(Ordering::Relaxed);
            let left = self.left().map_or(String::new(), |left| {
                format!("  ({} left)", output::seconds(left))
            });
            self.tell(&format!("{done}/{cells}  {told}{left}"));
        }
        self.show();
    }

    /// Estimated seconds to the end, at the rate of this process so far.
    fn left(&self) -> Option<f64> {
        let here = self.here.load(Ordering::Relaxed);
        let total = self.total.load(Ordering::Relaxed);
        let left = total.saturating_sub(self.done.load(Ordering::Relaxed));
        let seconds = self.start.elapsed().as_secs_f64();
        (here > 0 && seconds > 1.0).then(|| seconds * left as f64 / here as f64)
    }

    fn show(&self) {
        let total = self.total.load(Ordering::Relaxed).max(1);
        let share = self.done.load(Ordering::Relaxed) as f64 / total as f64;
        self.bar.set_position((1000.0 * share) as u64);
        let rate = self.here.load(Ordering::Relaxed) as f64 / self.start.elapsed().as_secs_f64();
        let left = self.left().map_or_else(
            || "time left unknown".to_owned(),
            |left| format!("{} left", output::seconds(left)),
        );
        self.bar.set_message(format!(
            "{}/{} cells  {:.1} G multiply-adds/s  {left}",
            self.cells_done.load(Ordering::Relaxed),
            self.cells.load(Ordering::Relaxed),
            rate / 1e9,
        ));
    }

    /// Says something beside the bar.
    pub(super) fn tell(&self, text: &str) {
        self.bar.suspend(|| output::tell(text));
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// One cell's part of the whole.
pub(super) struct CellShown<'a> {
    pub(super) whole: &'a Whole,
    pub(super) id: &'a CellId,
    /// Multiply-adds of a round.
    pub(super) per_round: u64,
    /// Called with the rounds done, and whether the model was evaluated there.
    pub(super) reached: &'a (dyn Fn(u64, bool) + Sync),
}

impl Shown for CellShown<'_> {
    fn round(&self, done: u64) {
        let to = done.saturating_mul(self.per_round);
        self.whole.advance(self.id, to, Worker::Here);
        (self.reached)(done, false);
    }

    fn evaluated(&self, record: &EvaluationRecord) {
        (self.reached)(record.round, true);
    }

    fn tell(&self, text: &str) {
        self.whole.tell(text);
    }

    fn end(&self) {}
}
