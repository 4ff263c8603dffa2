//! The seam between a round and the device that trains: `update = local - global`.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::examples::Examples;
use crate::mask::Mask;
use crate::params::{Layout, Parameters};
use crate::plan::{LocalPlan, WorkLimit};
use crate::stream::Stream;
use crate::units::{ClientId, ExampleCount, RoundId};

/// One client's training, to be done by a [`Trainer`].
pub struct FitTask<'a> {
    /// Who trains.
    pub client: ClientId,
    /// The round, for learning-rate schedules.
    pub round: RoundId,
    /// The client's training examples; at least one.
    pub data: &'a dyn Examples,
    /// What to do.
    pub plan: &'a LocalPlan,
    /// How much of it.
    pub limit: WorkLimit,
    /// The client's own randomness in this round.
    pub stream: Stream,
    /// Receives `local - global`, one value per parameter.
    pub update: &'a mut [f32],
}

/// What a client reports beside its update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalResult {
    /// The client's training examples (not multiplied by epochs).
    pub examples: ExampleCount,
    /// Examples processed, all epochs together.
    pub examples_processed: u64,
    /// Mini-batch steps taken.
    pub steps: u64,
    /// Mean loss over the examples processed, as seen during training; 0 when there were none, as
    /// batches that are drawn at random may be empty.
    pub mean_loss: f64,
    /// Examples processed whose gradient was clipped, where examples are protected
    /// ([`LocalPlan::privacy`](crate::LocalPlan::privacy)). Like the other counts it is **not
    /// private**: a diagnosis.
    pub examples_clipped: u64,
}

/// Loss and accuracy of a model on some examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Examples seen; where every position of an example [has a target](crate::TargetSpec::Sequence),
    /// those positions.
    pub examples: u64,
    /// Sum of their losses.
    pub loss_sum: f64,
    /// How many were classified correctly; zero for regression.
    pub correct: u64,
}

impl Evaluation {
    /// Mean loss; NaN without examples.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.examples as f64
    }

    /// Share of examples classified correctly; NaN without examples.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.examples as f64
    }
}

/// Why a trainer could not train. A diverging client is *not* an error: its non-finite update is
/// data, and the aggregator refuses and counts it.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum TrainError {
    /// The data do not fit the model.
    #[error(
        "the model expects {expected} and the data hold {found}; choose a model for this data set"
    )]
    DataMismatch {
        /// What the model takes.
        expected: String,
        /// What the data are.
        found: String,
    },
    /// A client without examples cannot train.
    #[error("client {0} has no examples; give every client at least one, or leave it out")]
    NoExamples(ClientId),
    /// The parameters are not the model's.
    #[error("{found} parameters were given to a model of {expected}")]
    ParameterMismatch {
        /// Parameters of the model.
        expected: usize,
        /// Parameters that were given.
        found: usize,
    },
    /// A class label or token outside the model's range.
    #[error(
        "example {row} of client {client} has label {label} where the model has {classes} classes"
    )]
    LabelOutOfRange {
        /// The client.
        client: ClientId,
        /// The example.
        row: usize,
        /// Its label.
        label: u32,
        /// The model's classes.
        classes: usize,
    },
    /// The plan asks for something that this trainer does not do.
    #[error("this trainer cannot do {what}; {instead}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// What to choose instead.
        instead: String,
    },
}

/// Something that trains clients: the edge runtime, or any other engine.
///
/// LAW: a task's update and result depend on the task and `global` alone, not on the other tasks
/// of the call, nor on the tasks of earlier calls.
pub trait Trainer: Send {
    /// The model's parameters.
    fn layout(&self) -> &Arc<Layout>;

    /// How many tasks one call of [`fit`](Self::fit) trains together at best.
    fn lanes(&self) -> usize {
        1
    }

    /// Trains each task from `global` and writes its update; `results[i]` belongs to `tasks[i]`.
    ///
    /// # Errors
    /// [`TrainError`] when a task cannot be trained at all; the run must stop.
    fn fit(
        &mut self,
        global: &Parameters,
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), TrainError>;

    /// From now on trains with what `pruned` holds at zero, whatever its gradient; with none, all
    /// moves again. Trainers that cannot do so refuse.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] by default, [`TrainError::ParameterMismatch`] for a mask of
    /// another model.
    fn hold(&mut self, pruned: Option<&Arc<Mask>>) -> Result<(), TrainError> {
        match pruned {
            None => Ok(()),
            Some(_) => Err(TrainError::Unsupported {
                what: "training with pruned weights".to_owned(),
                instead: "train without `pruning`".to_owned(),
            }),
        }
    }

    /// Loss and accuracy of `parameters` on `rows` of `data`, in inference mode (no dropout).
    /// Losses are added in row order.
    ///
    /// # Errors
    /// [`TrainError`] when the data do not fit the model.
    fn evaluate(
        &mut self,
        parameters: &[f32],
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError>;
}

/// A model as a device serves it, with parameters and arithmetic of its own: quantized, folded,
/// packed. Made once, then shared by the threads that evaluate it.
pub trait ServedModel: Send + Sync {
    /// Loss and accuracy on `rows` of `data`; losses are added in row order.
    ///
    /// # Errors
    /// [`TrainError`] when the data do not fit the model.
    fn evaluate(
        &self,
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError>;

    /// The file that a device downloads to serve it; none of a model that cannot be served, or of an
    /// engine without a file format.
    fn file(&self) -> Option<Vec<u8>> {
        None
    }
}
