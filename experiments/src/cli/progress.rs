//! A progress bar over the rounds of a variant, beside the record of its results.

use std::time::Duration;

use fl_core::{Parameters, RoundId};
use fl_sim::checkpoint::{CheckpointWarning, ServedFile};
use fl_sim::secagg::ClosePair;
use fl_sim::{
    ClientEvaluation, ClientPart, EvaluationRecord, Observer, ObserverError, RecorderPosition,
    RoundRecord,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How a bar over rounds looks: done, rate, time left, message.
pub(super) fn round_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:<16} {bar:28} {pos}/{len} rounds  {rate}  {eta} left  {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .with_key(
        "rate",
        |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            // A line that cannot be drawn is left out.
            let _ = write!(to, "{:.1}/s", state.per_sec());
        },
    )
    .progress_chars("━━─")
}

/// Where the progress of a run shows.
pub(crate) trait Shown {
    /// So many rounds are done.
    fn round(&self, done: u64);
    /// The model was evaluated when so many rounds were done.
    fn evaluated(&self, record: &EvaluationRecord);
    /// Something is to be told beside the progress.
    fn tell(&self, text: &str);
    /// The run ended, however.
    fn end(&self);
}

/// A bar over the rounds of one run.
pub(crate) struct RoundBar(ProgressBar);

impl RoundBar {
    /// A bar for `rounds` rounds of which `done` are done. Nothing is drawn when `quiet`, or when
    /// standard error is not a terminal.
    pub(crate) fn new(name: &str, rounds: u64, done: u64, quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(8)
        };
        let bar = ProgressBar::with_draw_target(Some(rounds), target)
            .with_prefix(name.to_owned())
            .with_position(done);
        bar.set_style(round_style());
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }
}

impl Shown for RoundBar {
    fn round(&self, done: u64) {
        self.0.set_position(done);
    }

    fn evaluated(&self, record: &EvaluationRecord) {
        let accuracy = record.test_accuracy.or(record.train_accuracy);
        let loss = record.test_loss.or(record.train_loss);
        self.0.set_message(match (accuracy, loss) {
            (Some(accuracy), _) => format!("accuracy {:.2} %", accuracy * 100.0),
            (None, Some(loss)) => format!("loss {loss:.4}"),
            (None, None) => String::new(),
        });
    }

    fn tell(&self, text: &str) {
        self.0.suspend(|| super::output::tell(text));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Passes everything on to the recorder, and shows how far the run is.
pub(crate) struct Progress<O, S> {
    recorder: O,
    shown: S,
}

impl<O: Observer, S: Shown> Progress<O, S> {
    /// Of the run whose records go to `recorder`.
    pub(crate) fn new(recorder: O, shown: S) -> Self {
        Self { recorder, shown }
    }

    /// Ends what is shown and gives the recorder back.
    pub(crate) fn finish(self) -> O {
        self.shown.end();
        self.recorder
    }
}

impl<O: Observer, S: Shown> Observer for Progress<O, S> {
    fn round(&mut self, record: &RoundRecord) {
        self.recorder.round(record);
        self.shown.round(record.round + 1);
    }

    fn moved(&mut self, round: u64, model: &Parameters) {
        self.recorder.moved(round, model);
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        self.recorder.evaluated(record);
        self.shown.evaluated(record);
    }

    fn served(&mut self, file: &ServedFile) {
        self.recorder.served(file);
    }

    fn client_evaluated(&mut self, record: &ClientEvaluation) {
        self.recorder.client_evaluated(record);
    }

    fn took_part(&mut self, part: &ClientPart) {
        self.recorder.took_part(part);
    }

    fn close_pair(&mut self, pair: &ClosePair) {
        self.recorder.close_pair(pair);
    }

    fn flush(&mut self, round: RoundId) -> Result<RecorderPosition, ObserverError> {
        self.recorder.flush(round)
    }

    fn checkpointed(&mut self, round: RoundId) -> Result<(), ObserverError> {
        self.recorder.checkpointed(round)
    }

    fn warning(&mut self, warning: &CheckpointWarning) {
        self.recorder.warning(warning);
        self.shown.tell(&format!("warning: {warning}"));
    }
}
