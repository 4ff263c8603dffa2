//! What a run reports: records and the observer that receives them.

use fl_core::{Parameters, RoundId};
use serde::{Deserialize, Serialize};

use crate::aggregation::GroupsRecord;
use crate::checkpoint::{CheckpointWarning, ServedFile};
use crate::devices::{ClientPart, FleetRecord};
use crate::error::ObserverError;
use crate::faults::FaultsRecord;
use crate::privacy::PrivacyRecord;
use crate::pruning::PruningRecord;
use crate::regions::RegionsRecord;
use crate::secagg::{ClosePair, SecAggRecord};

/// One round, as it went: `cohort = reported + dropped + surplus + rejected`. Everything but
/// [`seconds`](Self::seconds) and [`training_seconds`](Self::training_seconds) is a function of the configuration and the data alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The round, counted from zero: it made model version `round + 1`.
    pub round: u64,
    /// Clients selected.
    pub cohort: u64,
    /// Clients whose update is in the sum.
    pub reported: u64,
    /// Clients that vanished, had no examples, or were stragglers that the strategy dropped; and
    /// those whose update was lost with a region, a session of secure aggregation, or too few groups.
    pub dropped: u64,
    /// Clients that were not waited for because the round had enough reports.
    pub surplus: u64,
    /// Slow clients of the cohort, whatever became of them.
    pub stragglers: u64,
    /// Clients whose update was refused as a whole, because a value of it was not finite.
    pub rejected: u64,
    /// Values of updates that were cut to the encoding's range.
    pub saturated: u64,
    /// Training examples of the clients in the sum.
    pub examples: u64,
    /// Examples processed by all clients that trained, all epochs together.
    pub examples_processed: u64,
    /// Mini-batch steps taken by all clients that trained.
    pub steps: u64,
    /// Mean loss seen during training by the clients in the sum, each weighted by the examples
    /// that it processed; none when no client is in the sum.
    pub train_loss: Option<f64>,
    /// L2 norm of the change of the global parameters.
    pub update_norm: f64,
    /// The plan's learning rate at the first local step.
    pub learning_rate: f64,
    /// Bytes sent to the cohort: parameters, uncompressed, and the messages of secure aggregation.
    pub bytes_down: u64,
    /// Bytes of updates received, uncompressed, or of the messages of secure aggregation, which
    /// hold them.
    pub bytes_up: u64,
    /// What was spent and added; none without privacy. All other figures of a private round are
    /// recorded without noise, for diagnosis, and are not covered by its guarantee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyRecord>,
    /// The groups whose means were combined; none without a robust mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupsRecord>,
    /// The regional aggregators; none without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionsRecord>,
    /// What its secure aggregation did and cost; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secagg: Option<SecAggRecord>,
    /// The weights that are pruned; none without pruning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruning: Option<PruningRecord>,
    /// Faults that were done to it on purpose; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultsRecord>,
    /// What it was on the devices; none where the fleet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetRecord>,
    /// Wall-clock time of the round without evaluation and checkpoint.
    pub seconds: f64,
    /// Wall-clock time of it in which clients were trained and their updates summed.
    pub training_seconds: f64,
}

/// The global model's quality after a number of rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Rounds done; zero for the initial model.
    pub round: u64,
    /// Mean loss on the central test set, or over all clients' held-out examples where there is
    /// no central one.
    pub test_loss: Option<f64>,
    /// Accuracy on the same examples.
    pub test_accuracy: Option<f64>,
    /// The test loss of the model served in 8-bit integers, where asked for.
    pub test_loss_int8: Option<f64>,
    /// The test accuracy of the model served in 8-bit integers, where asked for.
    pub test_accuracy_int8: Option<f64>,
    /// Mean loss over the clients' training examples.
    pub train_loss: Option<f64>,
    /// Accuracy over the clients' training examples.
    pub train_accuracy: Option<f64>,
    /// Clients over which the training loss was taken: the population, or the sample.
    pub train_clients: u64,
    /// What a device downloads that has the int8 model evaluated before; none for the first, of a
    /// model that cannot be served, or where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchRecord>,
    /// Wall-clock time of the evaluation.
    pub seconds: f64,
}

/// What leads from one version of the int8 model to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchRecord {
    /// Rounds that the older model had seen.
    pub from_round: u64,
    /// Bytes of the newer model's file.
    pub file_bytes: u64,
    /// Bytes of the patch, which was applied and gave that file.
    pub patch_bytes: u64,
}

/// Which of a client's examples were evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientSplit {
    /// Its held-out examples.
    Test,
    /// Its training examples, because it has no held-out ones.
    Train,
}

/// The global model's quality on one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientEvaluation {
    /// Rounds done.
    pub round: u64,
    /// The client.
    pub client: u64,
    /// On which of its examples.
    pub split: ClientSplit,
    /// How many they are.
    pub examples: u64,
    /// Their mean loss.
    pub loss: f64,
    /// Their accuracy.
    pub accuracy: f64,
}

/// Where a recorder stands; stored in the checkpoint and given back on resume. Its meaning is the
/// recorder's (a length of its journal, a row count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderPosition(pub u64);

/// Receives what a run reports, on the thread that called `run`, in the order of the run.
///
/// Per round: [`round`](Self::round) and every [`took_part`](Self::took_part) of it; when it is evaluated, every
/// [`client_evaluated`](Self::client_evaluated) in client order and then
/// [`evaluated`](Self::evaluated); when a checkpoint is due, [`flush`](Self::flush), the write,
/// and [`checkpointed`](Self::checkpointed).
pub trait Observer {
    /// A round was completed.
    fn round(&mut self, record: &RoundRecord) {
        let _ = record;
    }

    /// The global model after a round, before [`Self::round`] tells of it.
    fn moved(&mut self, round: u64, model: &Parameters) {
        let _ = (round, model);
    }

    /// What a client did in the round that was completed; only where
    /// [asked for](crate::TelemetryConfig::per_client).
    fn took_part(&mut self, part: &ClientPart) {
        let _ = part;
    }

    /// The global model was evaluated.
    fn evaluated(&mut self, record: &EvaluationRecord) {
        let _ = record;
    }

    /// The global model was evaluated on one client.
    fn client_evaluated(&mut self, record: &ClientEvaluation) {
        let _ = record;
    }

    /// A checkpoint after `round` rounds is about to be written: make everything received so far
    /// durable and say where the recording stands.
    ///
    /// # Errors
    /// Whatever kept the records from becoming durable; the run stops.
    fn flush(&mut self, round: RoundId) -> Result<RecorderPosition, ObserverError> {
        let _ = round;
        Ok(RecorderPosition::default())
    }

    /// The checkpoint after `round` rounds is on disk.
    ///
    /// # Errors
    /// Whatever the observer cannot go on after; the run stops.
    fn checkpointed(&mut self, round: RoundId) -> Result<(), ObserverError> {
        let _ = round;
        Ok(())
    }

    /// The file of the int8 model that was evaluated, where patches are weighed.
    fn served(&mut self, file: &ServedFile) {
        let _ = file;
    }

    /// Two sums were released whose clients are almost the same.
    fn close_pair(&mut self, pair: &ClosePair) {
        let _ = pair;
    }

    /// Something that does not stop the run but that a person should know.
    fn warning(&mut self, warning: &CheckpointWarning) {
        let _ = warning;
    }
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
