//! Why a simulation could not go on.

use fl_core::buffered::SnapshotError;
use fl_core::registry::ConfigError;
use fl_core::ring::RingError;
use fl_core::round::RoundError;
use fl_core::{ClientId, ModularError, RoundId, TrainError};
use fl_edge::prune::PruneError;
use fl_edge::quant::QuantError;
use fl_privacy::PrivacyError;
use fl_versions::PatchError;

use crate::aggregation::AggregationError;
use crate::audit::AuditError;
use crate::checkpoint::CheckpointError;
use crate::fleet::FleetError;
use crate::secagg::SecAggError;

/// What an observer could not do; its own error, passed through.
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// Why a simulation could not be set up or could not go on.
///
/// A client that diverges, vanishes or is slow is never an error: it is counted in the round's
/// record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A key of the configuration has a value out of its range.
    #[error("{key} is {value}, which is out of range; give {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// A strategy or selector refused a value.
    #[error("{table}.{source}")]
    Refused {
        /// The table.
        table: &'static str,
        /// Key, value and what is allowed.
        source: ConfigError,
    },
    /// There is no such fleet.
    #[error("fleet: {0}")]
    Fleet(#[from] FleetError),
    /// The engine does not know what training costs on a device.
    #[error("this engine does not know what training costs on a device; leave devices out")]
    NoCosts,
    /// The clients under way are not those of this run.
    #[error("round {round}: {source}")]
    Flow {
        /// The round.
        round: RoundId,
        /// What does not fit.
        source: SnapshotError,
    },
    /// No client can be called, however long the server waits.
    #[error(
        "round {round}: nobody was at work, and no client could be called in {calls} tries, which are \
         schedule.retry_after apart; lower what fleet asks of devices, or choose others"
    )]
    NobodyComes {
        /// The round.
        round: RoundId,
        /// How often the server tried.
        calls: u32,
    },
    /// Something could not be written down for its digest or the checkpoint.
    #[error("the {what} cannot be encoded: {reason}; use finite numbers only")]
    Encode {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The population is empty.
    #[error("the data set has no clients; choose a partition with at least one client")]
    NoClients,
    /// The worker threads could not be started.
    #[error("cannot start {threads} worker threads: {source}; lower threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The operating system's answer.
        source: rayon::ThreadPoolBuildError,
    },
    /// A client could not be trained at all.
    #[error("round {round}, client {client}: {source}")]
    Train {
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// Why.
        source: TrainError,
    },
    /// The ring in which updates are summed could not be planned.
    #[error("planning the sum: {0}")]
    Ring(#[from] RingError),
    /// The round machine or the strategy could not go on.
    #[error("after {round} rounds: {source}")]
    Round {
        /// Rounds done.
        round: RoundId,
        /// Why.
        source: RoundError,
    },
    /// A client's examples could not be evaluated.
    #[error("evaluation after {round} rounds, client {client}: {source}")]
    EvaluateClient {
        /// Rounds done.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// Why.
        source: TrainError,
    },
    /// The test set could not be evaluated.
    #[error("evaluation after {round} rounds, test set: {source}")]
    EvaluateTest {
        /// Rounds done.
        round: RoundId,
        /// Why.
        source: TrainError,
    },
    /// The global model could not be quantized.
    #[error("evaluation after {round} rounds, int8: {source}")]
    Quantize {
        /// Rounds done.
        round: RoundId,
        /// Why.
        source: TrainError,
    },
    /// The weights to be pruned cannot be so many, or then.
    #[error("pruning: {0}")]
    Pruning(#[from] PruneError),
    /// The global model could not be pruned.
    #[error("pruning before round {round}: {source}")]
    Prune {
        /// The round.
        round: RoundId,
        /// Why.
        source: TrainError,
    },
    /// The method of calibration cannot be.
    #[error("evaluation.calibration: {0}")]
    Calibrator(#[from] QuantError),
    /// A client could not calibrate the global model.
    #[error("calibration after {round} rounds, client {client}: {source}")]
    Calibrate {
        /// Rounds done.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// Why.
        source: QuantError,
    },
    /// There is nothing to calibrate a quantized model on.
    #[error(
        "evaluation in int8 is calibrated on training examples, and none of the clients that were \
         drawn has any; leave \"int8\" out of evaluation.precisions"
    )]
    NoCalibration,
    /// A version cannot be published for a rollout.
    #[error(transparent)]
    Registry(#[from] crate::rollout::RegistryError),
    /// The file of a version cannot be served.
    #[error("the int8 model after round {round} cannot be rolled out: {reason}")]
    RolloutFile {
        /// Rounds that it has seen.
        round: u64,
        /// Why.
        reason: String,
    },
    /// No example is held out, and devices would have nothing to report.
    #[error(
        "a rollout is guarded by what devices measure, and the data set has no held-out examples; choose one with a test set, or set dataset.holdout"
    )]
    NothingHeldOut,
    /// No patch leads from one served model to the next.
    #[error("evaluation after {round} rounds, the patch from the model before: {source}")]
    Patch {
        /// Rounds done.
        round: RoundId,
        /// Why.
        source: PatchError,
    },
    /// The observer could not record.
    #[error("recording after {round} rounds: {source}")]
    Observer {
        /// Rounds done.
        round: RoundId,
        /// The observer's error.
        source: ObserverError,
    },
    /// Vectors of a ring could not be added.
    #[error("after {round} rounds, adding in the ring: {source}")]
    Modular {
        /// Rounds done.
        round: RoundId,
        /// Why.
        source: ModularError,
    },
    /// There is no such privacy, or no more of it.
    #[error("privacy: {0}")]
    Privacy(#[from] PrivacyError),
    /// Updates cannot be added so.
    #[error("aggregation: {0}")]
    Aggregation(#[from] AggregationError),
    /// There is no such secure aggregation, or it went wrong.
    #[error("secagg: {0}")]
    SecAgg(#[from] SecAggError),
    /// A run that cannot be audited.
    #[error("audit: {0}")]
    Audit(#[from] AuditError),
    /// A checkpoint could not be written or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
