//! What a simulation is asked to do.

use std::path::PathBuf;

use fl_core::registry::ConfigError;
use fl_core::select::SelectorConfig;
use fl_core::strategy::StrategyConfig;
use fl_core::{LocalPlan, Seed};
use fl_edge::quant::federated::Bins;
use fl_edge::quant::{CALIBRATION_SAMPLES, Calibration, Granularity, QuantError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::aggregation::AggregationConfig;
use crate::devices::TelemetryConfig;
use crate::error::SimError;
use crate::faults::FaultsConfig;
use crate::fleet::{DeviceConfig, FleetConfig};
use crate::privacy::Privacy;
use crate::pruning::PruningConfig;
use crate::schedule::ScheduleConfig;
use crate::secagg::SecAggConfig;

/// Everything about a run but its data and its model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SimulationConfig {
    /// Addresses every random stream of the run.
    pub seed: Seed,
    /// Rounds to be done in all; at least 1.
    pub rounds: u64,
    /// Who takes part in a round.
    pub selection: SelectorConfig,
    /// What a client does in a round.
    pub local: LocalPlan,
    /// What becomes of the clients' updates.
    pub strategy: StrategyConfig,
    /// Who is slow and who vanishes.
    pub fleet: FleetConfig,
    /// On what clients train, and when they can; no time passes without.
    pub devices: Option<DeviceConfig>,
    /// When rounds begin and end.
    pub schedule: ScheduleConfig,
    /// What is told of devices.
    pub telemetry: TelemetryConfig,
    /// How the global model is judged.
    pub evaluation: EvaluationConfig,
    /// Differential privacy; none without.
    pub privacy: Option<Privacy>,
    /// How updates are added.
    pub aggregation: AggregationConfig,
    /// Secure aggregation; none without.
    pub secagg: Option<SecAggConfig>,
    /// Weights that are pruned on the way; none without.
    pub pruning: Option<PruningConfig>,
    /// Faults that are done to it on purpose; none without.
    pub faults: Option<FaultsConfig>,
    /// Worker threads; 0 for one per core. Changes no bit of any result.
    pub threads: usize,
    /// Where checkpoints are kept; none for a run that cannot be resumed.
    pub checkpoint: Option<CheckpointConfig>,
    /// Ends the run at the first evaluation whose test accuracy is at least this, in `[0, 1]`.
    pub stop_at_accuracy: Option<f64>,
}

/// How the global model is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Rounds between evaluations, at least 1. The last round is always evaluated.
    pub every: u64,
    /// Whether the initial model is evaluated, too.
    pub initial: bool,
    /// Whether the loss over the clients' training examples is taken.
    pub train: bool,
    /// When the model is judged on single clients.
    pub per_client: PerClient,
    /// Of a larger population, a sample of so many clients, drawn once for the whole run, stands
    /// for all of them in `train` and `per_client`; at least 1.
    pub max_clients: u64,
    /// Of a larger central test set, a sample of so many examples, drawn once for the whole run,
    /// stands for all; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_examples: Option<u64>,
    /// Whether the model is also judged as a device serves it in 8-bit integers.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub int8: bool,
    /// Whether the file of that model is weighed, and the patch that leads to it from the one
    /// evaluated before; needs `int8`.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub patches: bool,
    /// How the ranges of a model served in 8-bit integers are found; without a meaning where they
    /// were trained.
    #[serde(skip_serializing_if = "CalibrationConfig::is_default")]
    pub calibration: CalibrationConfig,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            every: 1,
            initial: true,
            train: false,
            per_client: PerClient::Last,
            max_clients: 10_000,
            max_examples: None,
            int8: false,
            patches: false,
            calibration: CalibrationConfig::default(),
        }
    }
}

/// How the ranges of a model's activations are found before it is judged in 8-bit integers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationConfig {
    /// On whose examples, and where.
    pub source: CalibrationSource,
    /// How a range follows from the values seen.
    pub calibrator: Calibration,
    /// Scales of a weight.
    pub granularity: Granularity,
}

/// Most examples in one place, or of one client, and most clients that calibrate.
const MOST_CALIBRATING: u64 = 1_000_000;

impl CalibrationConfig {
    /// Checks the ranges of its keys.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] or [`SimError::Calibrator`] naming the key.
    pub fn validate(&self) -> Result<(), SimError> {
        self.calibrator.check()?;
        let (samples, clients) = match self.source {
            CalibrationSource::Central { samples } => (samples, None),
            CalibrationSource::Federated {
                clients, samples, ..
            } => (samples, Some(clients)),
        };
        if clients.is_some() && matches!(self.calibrator, Calibration::MovingAverage { .. }) {
            return Err(QuantError::NotPooled.into());
        }
        for (key, value) in [
            ("evaluation.calibration.samples", Some(samples)),
            ("evaluation.calibration.clients", clients),
        ] {
            if let Some(value) = value.filter(|value| !(1..=MOST_CALIBRATING).contains(value)) {
                return Err(SimError::OutOfRange {
                    key,
                    value: value.to_string(),
                    range: "a whole number from 1 to 1000000",
                });
            }
        }
        Ok(())
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// On whose examples a model is calibrated, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CalibrationSource {
    /// In one place, on training examples drawn once for the whole run: for each a client,
    /// uniformly over the population, and one of its examples. They stand for the unlabelled
    /// examples that an operator has.
    Central {
        /// Examples, at least 1.
        samples: u64,
    },
    /// By clients, drawn anew for each evaluation, that send histograms of their activations
    /// through the exact sum of integers that updates go through.
    Federated {
        /// Clients that are asked; all of a smaller population. At least 1.
        clients: u64,
        /// Examples that a client runs at most, evenly spread over its training examples; at
        /// least 1.
        samples: u64,
        /// The histograms' bins.
        bins: Bins,
    },
}

impl Default for CalibrationSource {
    fn default() -> Self {
        Self::Central {
            samples: CALIBRATION_SAMPLES as u64,
        }
    }
}

/// When the model is judged on single clients: on their held-out examples or, for a client
/// without those, on its training examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PerClient {
    /// Never.
    Never,
    /// When the run ends.
    #[default]
    Last,
    /// At every evaluation.
    Each,
}

/// Where and how often checkpoints are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointConfig {
    /// The folder; created where it does not exist. It belongs to one run.
    pub dir: PathBuf,
    /// Rounds between checkpoints, at least 1. One is also written when the run ends or stops.
    pub every: u64,
}

impl SimulationConfig {
    /// Checks the ranges of the simulator's own keys.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] naming the key.
    pub fn validate(&self) -> Result<(), SimError> {
        self.fleet.validate()?;
        self.schedule.validate(self.devices.is_some())?;
        let counts = [
            ("rounds", Some(self.rounds)),
            (
                "telemetry.minimum_group",
                Some(self.telemetry.minimum_group),
            ),
            ("evaluation.every", Some(self.evaluation.every)),
            ("evaluation.max_clients", Some(self.evaluation.max_clients)),
            ("evaluation.max_examples", self.evaluation.max_examples),
            (
                "checkpoint.every",
                self.checkpoint.as_ref().map(|c| c.every),
            ),
        ];
        for (key, value) in counts {
            if value == Some(0) {
                return Err(SimError::OutOfRange {
                    key,
                    value: "0".to_owned(),
                    range: "a whole number of at least 1",
                });
            }
        }
        if self.evaluation.patches && !self.evaluation.int8 {
            return Err(SimError::OutOfRange {
                key: "evaluation.patches",
                value: "true".to_owned(),
                range: "false, or evaluate the model in int8, too",
            });
        }
        self.evaluation.calibration.validate()?;
        self.aggregation.validate()?;
        if let Some(pruning) = &self.pruning {
            pruning.validate()?;
        }
        if let Some(secagg) = &self.secagg {
            secagg.validate()?;
            if let Some(robust) = &self.aggregation.robust
                && secagg.groups != Some(robust.groups)
            {
                return Err(SimError::OutOfRange {
                    key: "secagg.groups",
                    value: match secagg.groups {
                        Some(groups) => groups.to_string(),
                        None => "not given".to_owned(),
                    },
                    range: "that of the groups whose means are combined",
                });
            }
        }
        if self.local.privacy.is_some() {
            return Err(SimError::OutOfRange {
                key: "local.privacy",
                value: "given".to_owned(),
                range: "none there; noise without a ledger is no privacy, so set privacy instead",
            });
        }
        if let Some(accuracy) = self.stop_at_accuracy
            && !(0.0..=1.0).contains(&accuracy)
        {
            return Err(SimError::OutOfRange {
                key: "stop_at_accuracy",
                value: accuracy.to_string(),
                range: "a share between 0 and 1",
            });
        }
        if self.threads > 4096 {
            return Err(SimError::OutOfRange {
                key: "threads",
                value: self.threads.to_string(),
                range: "at most 4096, or 0 for one per core",
            });
        }
        Ok(())
    }

    /// SHA-256 of all that changes the model or what is recorded of it: everything but `rounds`,
    /// `threads`, `checkpoint` and `stop_at_accuracy`. A run may be resumed with more rounds, unless
    /// it is private: then the rounds were declared, and belong to it.
    ///
    /// # Errors
    /// [`SimError::Encode`] when the configuration cannot be written down.
    pub fn digest(&self) -> Result<[u8; 32], SimError> {
        let Self {
            seed,
            rounds,
            selection,
            local,
            strategy,
            fleet,
            devices,
            schedule,
            telemetry,
            evaluation,
            privacy,
            aggregation,
            secagg,
            pruning,
            faults,
            threads: _,
            checkpoint: _,
            stop_at_accuracy: _,
        } = self;
        let encode = |error: serde_json::Error| SimError::Encode {
            what: "configuration",
            reason: error.to_string(),
        };
        let public = (seed, selection, local, strategy, fleet, evaluation);
        let mut text = serde_json::to_vec(&public).map_err(encode)?;
        if let Some(privacy) = privacy {
            text.extend(serde_json::to_vec(&(privacy, rounds)).map_err(encode)?);
        }
        if let Some(secagg) = secagg {
            text.extend(serde_json::to_vec(&("secagg", secagg)).map_err(encode)?);
        }
        if let Some(pruning) = pruning {
            text.extend(serde_json::to_vec(&("pruning", pruning)).map_err(encode)?);
        }
        if let Some(faults) = faults {
            text.extend(serde_json::to_vec(&("faults", faults)).map_err(encode)?);
        }
        if devices.is_some() {
            let timed = ("devices", devices, schedule, telemetry);
            text.extend(serde_json::to_vec(&timed).map_err(encode)?);
        } else if !schedule.is_default() {
            text.extend(serde_json::to_vec(&("schedule", schedule)).map_err(encode)?);
        }
        if !aggregation.is_default() {
            text.extend(serde_json::to_vec(&("aggregation", aggregation)).map_err(encode)?);
        }
        Ok(Sha256::digest(text).into())
    }
}

/// A value that a registry refused, with the table that it stands in.
pub(crate) fn refused(table: &'static str, source: ConfigError) -> SimError {
    SimError::Refused { table, source }
}
