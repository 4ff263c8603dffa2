//! The figures of a run, and its way there: what had been spent by each evaluation, and what was
//! reached.

use serde::Serialize;

use crate::results::{EvaluationRow, PrivacyRow, VariantResults};

/// The figures that sum up a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Rounds done.
    pub rounds: u64,
    /// Accuracy at the last evaluation: on the test set, or where there is none on training data.
    pub final_accuracy: Option<f64>,
    /// The highest accuracy at any evaluation.
    pub best_accuracy: Option<f64>,
    /// Loss at the last evaluation: on the test set, or where there is none on training data.
    pub final_loss: Option<f64>,
    /// The lowest loss at any evaluation.
    pub best_loss: Option<f64>,
    /// Accuracy at the last evaluation of the model served in int8, where it was measured.
    pub final_accuracy_int8: Option<f64>,
    /// Upper bound of epsilon, of a private run.
    pub epsilon: Option<f64>,
    /// Its delta.
    pub delta: Option<f64>,
    /// Bytes sent to clients and received from them.
    pub bytes: u64,
    /// Seconds of the virtual clock; of a run on devices.
    pub virtual_seconds: Option<f64>,
    /// Joules of training; of a run on devices all of whose rounds told of them.
    pub joules: Option<f64>,
    /// Digest of the final model; when finished.
    pub model_digest: Option<String>,
    /// Digest of the data.
    pub data_digest: String,
}

/// One of the [`Figures`] that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// [`Figures::final_accuracy`].
    FinalAccuracy,
    /// [`Figures::best_accuracy`].
    BestAccuracy,
    /// [`Figures::final_loss`].
    FinalLoss,
    /// [`Figures::best_loss`].
    BestLoss,
    /// [`Figures::final_accuracy_int8`].
    FinalAccuracyInt8,
    /// [`Figures::epsilon`].
    Epsilon,
    /// [`Figures::rounds`].
    Rounds,
    /// [`Figures::bytes`].
    Bytes,
    /// [`Figures::virtual_seconds`].
    VirtualSeconds,
    /// [`Figures::joules`].
    Joules,
}

impl Figure {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::FinalAccuracy,
        Self::BestAccuracy,
        Self::FinalLoss,
        Self::BestLoss,
        Self::FinalAccuracyInt8,
        Self::Epsilon,
        Self::Rounds,
        Self::Bytes,
        Self::VirtualSeconds,
        Self::Joules,
    ];

    /// Its name in tables and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FinalAccuracy => "final_accuracy",
            Self::BestAccuracy => "best_accuracy",
            Self::FinalLoss => "final_loss",
            Self::BestLoss => "best_loss",
            Self::FinalAccuracyInt8 => "final_accuracy_int8",
            Self::Epsilon => "epsilon",
            Self::Rounds => "rounds",
            Self::Bytes => "bytes",
            Self::VirtualSeconds => "virtual_seconds",
            Self::Joules => "joules",
        }
    }

    /// Whether less of it is better.
    #[must_use]
    pub fn is_less_better(self) -> bool {
        !matches!(
            self,
            Self::FinalAccuracy | Self::BestAccuracy | Self::FinalAccuracyInt8
        )
    }
}

impl Figures {
    /// The figures of a run.
    #[must_use]
    pub fn of(results: &VariantResults) -> Self {
        let summary = results.summary();
        let accuracies = results.evaluations.iter().filter_map(accuracy);
        let losses = results.evaluations.iter().filter_map(loss);
        let last = trajectory_end(results);
        Self {
            rounds: summary.rounds,
            final_accuracy: summary.final_accuracy,
            best_accuracy: accuracies.max_by(f64::total_cmp),
            final_loss: summary.final_loss,
            best_loss: losses.min_by(f64::total_cmp),
            final_accuracy_int8: summary.final_accuracy_int8,
            epsilon: summary.epsilon,
            delta: summary.delta,
            bytes: last.bytes,
            virtual_seconds: last.virtual_seconds,
            joules: last.joules,
            model_digest: summary.model_digest,
            data_digest: results.manifest.dataset.digest.clone(),
        }
    }

    /// One of them; nothing where it was not measured, or means nothing for this run.
    #[must_use]
    pub fn get(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::FinalAccuracy => self.final_accuracy,
            Figure::BestAccuracy => self.best_accuracy,
            Figure::FinalLoss => self.final_loss,
            Figure::BestLoss => self.best_loss,
            Figure::FinalAccuracyInt8 => self.final_accuracy_int8,
            Figure::Epsilon => self.epsilon,
            Figure::Rounds => Some(self.rounds as f64),
            Figure::Bytes => Some(self.bytes as f64),
            Figure::VirtualSeconds => self.virtual_seconds,
            Figure::Joules => self.joules,
        }
    }
}

/// A run at one evaluation: what had been spent, and what was reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Rounds done.
    pub round: u64,
    /// Bytes sent to clients and received from them so far.
    pub bytes: u64,
    /// Seconds of the virtual clock; of a run on devices.
    pub virtual_seconds: Option<f64>,
    /// Joules of training so far, of a run on devices; none from the first round on that had too few
    /// devices to be told of.
    pub joules: Option<f64>,
    /// Upper bound of epsilon so far, of a private run; 0 before its first round.
    pub epsilon: Option<f64>,
    /// Accuracy on the test set, or where there is none on training data.
    pub accuracy: Option<f64>,
    /// Accuracy of the model served in int8, where it was measured.
    pub accuracy_int8: Option<f64>,
    /// Loss on the test set, or where there is none on training data.
    pub loss: Option<f64>,
    /// Accuracy on the clients' training examples, where it was measured.
    pub train_accuracy: Option<f64>,
    /// Loss on the clients' training examples, where it was measured.
    pub train_loss: Option<f64>,
}

/// What of a [`Point`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// [`Point::round`].
    Rounds,
    /// [`Point::bytes`].
    Bytes,
    /// [`Point::virtual_seconds`].
    VirtualSeconds,
    /// [`Point::joules`].
    Joules,
    /// [`Point::epsilon`].
    Epsilon,
    /// [`Point::accuracy`].
    Accuracy,
    /// [`Point::accuracy_int8`].
    AccuracyInt8,
    /// [`Point::loss`].
    Loss,
    /// [`Point::train_accuracy`].
    TrainAccuracy,
    /// [`Point::train_loss`].
    TrainLoss,
}

impl Point {
    /// One of its quantities.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        match quantity {
            Quantity::Rounds => Some(self.round as f64),
            Quantity::Bytes => Some(self.bytes as f64),
            Quantity::VirtualSeconds => self.virtual_seconds,
            Quantity::Joules => self.joules,
            Quantity::Epsilon => self.epsilon,
            Quantity::Accuracy => self.accuracy,
            Quantity::AccuracyInt8 => self.accuracy_int8,
            Quantity::Loss => self.loss,
            Quantity::TrainAccuracy => self.train_accuracy,
            Quantity::TrainLoss => self.train_loss,
        }
    }
}

/// The test accuracy, or without a test set that on training data.
fn accuracy(row: &EvaluationRow) -> Option<f64> {
    row.test_accuracy.or(row.train_accuracy)
}

fn loss(row: &EvaluationRow) -> Option<f64> {
    row.test_loss.or(row.train_loss)
}

/// A run's evaluations, in order, each with what had been spent by then.
#[must_use]
pub fn trajectory(results: &VariantResults) -> Vec<Point> {
    let mut spent = Spent::new(results);
    results
        .evaluations
        .iter()
        .map(|row| {
            spent.advance(row.round);
            Point {
                round: row.round,
                accuracy: accuracy(row),
                accuracy_int8: row.test_accuracy_int8,
                loss: loss(row),
                train_accuracy: row.train_accuracy,
                train_loss: row.train_loss,
                ..spent.point.clone()
            }
        })
        .collect()
}

/// What had been spent after the last round.
fn trajectory_end(results: &VariantResults) -> Point {
    let mut spent = Spent::new(results);
    spent.advance(u64::MAX);
    spent.point
}

/// Adds up what a run spent, round by round.
struct Spent<'a> {
    results: &'a VariantResults,
    /// Rounds, rows of privacy and rows of the fleet that are counted.
    counted: [usize; 3],
    point: Point,
}

impl<'a> Spent<'a> {
    fn new(results: &'a VariantResults) -> Self {
        let on_devices = !results.fleet.is_empty();
        Self {
            results,
            counted: [0; 3],
            point: Point {
                virtual_seconds: on_devices.then_some(0.0),
                joules: on_devices.then_some(0.0),
                epsilon: (!results.privacy.is_empty()).then_some(0.0),
                ..Point::default()
            },
        }
    }

    /// Counts the rounds below `done`.
    fn advance(&mut self, done: u64) {
        let [rounds, privacy, fleet] = &mut self.counted;
        for row in self.results.rounds.iter().skip(*rounds) {
            if row.round >= done {
                break;
            }
            let bytes = row.bytes_down.saturating_add(row.bytes_up);
            self.point.bytes = self.point.bytes.saturating_add(bytes);
            *rounds += 1;
        }
        for row in self.results.privacy.iter().skip(*privacy) {
            if row.round >= done {
                break;
            }
            self.point.epsilon = Some(PrivacyRow::budgeted(row));
            *privacy += 1;
        }
        for row in self.results.fleet.iter().skip(*fleet) {
            if row.round >= done {
                break;
            }
            self.point.virtual_seconds = Some(row.ended_seconds);
            let told = self.point.joules.zip(row.spent_joules());
            self.point.joules = told.map(|(sum, joules)| sum + joules);
            *fleet += 1;
        }
    }
}
