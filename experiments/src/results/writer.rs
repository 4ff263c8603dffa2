//! The observer that records a running variant.

use std::path::PathBuf;
use std::sync::Arc;

use fl_core::{Parameters, RoundId};
use fl_edge::Model;
use fl_privacy::plan::Observer as Observed;
use fl_sim::checkpoint::ServedFile;
use fl_sim::fleet::Reason;
use fl_sim::{
    ClientEvaluation, ClientPart, ClientSplit, EvaluationRecord, Observer, ObserverError,
    RecorderPosition, RoundRecord, SecAggMode,
};
use sha2::{Digest as _, Sha256};

use super::atomic;
use super::error::ResultsError;
use super::journal::{Entry, Journal};
use super::model;
use super::row::{
    ClientRow, EvaluationRow, FaultsRow, FleetRow, GroupsRow, PatchRow, PrivacyRow, PruningRow,
    RegionsRow, RolloutRow, RoundRow, SecAggRow, TensorRow, TimelineRow, TimingRow,
};

impl From<&RoundRecord> for RoundRow {
    fn from(record: &RoundRecord) -> Self {
        Self {
            round: record.round,
            cohort: record.cohort,
            reported: record.reported,
            dropped: record.dropped,
            stragglers: record.stragglers,
            rejected: record.rejected,
            surplus: record.surplus,
            saturated: record.saturated,
            examples: record.examples,
            examples_processed: record.examples_processed,
            steps: record.steps,
            train_loss: record.train_loss,
            update_norm: record.update_norm,
            learning_rate: record.learning_rate,
            bytes_down: record.bytes_down,
            bytes_up: record.bytes_up,
        }
    }
}

impl PrivacyRow {
    /// What a round's record says of its privacy; none without.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let privacy = record.privacy.as_ref()?;
        Some(Self {
            round: record.round,
            guarantee: match privacy.hypothetical {
                true => HYPOTHETICAL,
                false => "simulated",
            }
            .to_owned(),
            observer: match privacy.observer {
                Observed::Server => SERVER,
                Observed::Released => "released",
            }
            .to_owned(),
            epsilon: privacy.epsilon,
            epsilon_lower: privacy.epsilon_lower,
            epsilon_unamplified: privacy.epsilon_unamplified,
            delta: privacy.delta,
            noise_std: privacy.noise_std,
            max_norm: privacy.max_norm,
            released: privacy.released.into(),
            nonprivate_clipped: privacy.clipped,
            nonprivate_zeroed: privacy.zeroed,
            nonprivate_wrapped: privacy.wrapped,
        })
    }

    /// Whether the budget is about what the server sees.
    #[must_use]
    pub fn is_servers(&self) -> bool {
        self.observer == SERVER
    }

    /// The epsilon that the budget is about.
    #[must_use]
    pub fn budgeted(&self) -> f64 {
        match self.is_servers() {
            true => self.epsilon_unamplified,
            false => self.epsilon,
        }
    }

    /// Whether the guarantee is that of a larger deployment.
    #[must_use]
    pub fn is_hypothetical(&self) -> bool {
        self.guarantee == HYPOTHETICAL
    }
}

impl GroupsRow {
    /// What a round's record says of its groups; none without.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let groups = record.groups?;
        Some(Self {
            round: record.round,
            formed: groups.formed,
            combined: groups.combined,
            trimmed: groups.trimmed,
            distance: groups.distance,
        })
    }
}

impl RegionsRow {
    /// What a round's record says of its regions; none without.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let regions = record.regions?;
        Some(Self {
            round: record.round,
            formed: regions.formed,
            failed: regions.failed,
            lost: regions.lost,
            summed: regions.summed,
        })
    }
}

impl FaultsRow {
    /// What a round's record says of faults; none without.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let faults = record.faults?;
        Some(Self {
            round: record.round,
            left_before: faults.left_before,
            left_during: faults.left_during,
            left_after: faults.left_after,
            slowed: faults.slowed,
            lost: faults.lost,
            duplicated: faults.duplicated,
            corrupted: faults.corrupted,
            not_finite: faults.not_finite,
            no_delegate: faults.no_delegate,
            restarts: faults.restarts,
        })
    }
}

impl PatchRow {
    /// What an evaluation's record says of the patch to its model; none without.
    pub(crate) fn of(record: &EvaluationRecord) -> Option<Self> {
        let patch = record.patch?;
        Some(Self {
            round: record.round,
            from_round: patch.from_round,
            file_bytes: patch.file_bytes,
            patch_bytes: patch.patch_bytes,
        })
    }

    /// The patch's share of the whole file.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.patch_bytes as f64 / self.file_bytes.max(1) as f64
    }
}

impl PruningRow {
    /// What a round's record says of what is pruned; none without pruning.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let pruning = record.pruning?;
        Some(Self {
            round: record.round,
            weights: pruning.weights,
            pruned: pruning.pruned,
            sparsity: pruning.sparsity(),
        })
    }
}

impl FleetRow {
    /// Joules that were spent in the round; none where they are not told, because too few devices
    /// trained in it. Sums over rounds are unknown from there on.
    pub(crate) fn spent_joules(&self) -> Option<f64> {
        let nobody = self.called == 0 && self.in_flight == 0;
        self.joules.or(nobody.then_some(0.0))
    }

    /// What a round's record says of its devices; none without.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let fleet = record.fleet.as_ref()?;
        let no = |reason| fleet.ineligible.of(reason);
        Some(Self {
            round: record.round,
            started_seconds: fleet.started,
            ended_seconds: fleet.ended,
            end: fleet.end.name().to_owned(),
            asked: fleet.asked,
            eligible: fleet.eligible,
            no_examples: no(Reason::Examples),
            no_participations: no(Reason::Participations),
            no_memory: no(Reason::Memory),
            no_battery: no(Reason::Battery),
            no_charging: no(Reason::Charging),
            no_wifi: no(Reason::Wifi),
            no_idle: no(Reason::Idle),
            called: fleet.called,
            left_downloading: fleet.left_downloading,
            left_training: fleet.left_training,
            left_uploading: fleet.left_uploading,
            late: fleet.late,
            surplus: fleet.surplus,
            lost: fleet.lost,
            partial: fleet.partial,
            seconds_mean: fleet.seconds_mean,
            seconds_median: fleet.seconds_median,
            seconds_p90: fleet.seconds_p90,
            download_seconds: fleet.download_seconds,
            training_seconds: fleet.training_seconds,
            upload_seconds: fleet.upload_seconds,
            waiting_seconds: fleet.waiting_seconds,
            joules: fleet.joules,
            joules_wasted: fleet.joules_wasted,
            joules_cpu: fleet.joules_cpu,
            joules_gpu: fleet.joules_gpu,
            joules_npu: fleet.joules_npu,
            throttled: fleet.throttled,
            celsius_mean: fleet.celsius_mean,
            bytes_wasted: fleet.bytes_wasted,
            staleness_mean: fleet.staleness_mean,
            staleness_max: fleet.staleness_max,
            in_flight: fleet.in_flight,
        })
    }
}

impl From<&ClientPart> for TimelineRow {
    fn from(part: &ClientPart) -> Self {
        Self {
            round: part.round,
            client: part.client,
            device: part.device.clone(),
            npu: part.npu.into(),
            started_seconds: part.started,
            downloaded_seconds: part.downloaded,
            trained_seconds: part.trained,
            ended_seconds: part.ended,
            end: part.end.name().to_owned(),
            joules: part.joules,
            celsius: part.celsius,
        }
    }
}

impl SecAggRow {
    /// What a round's record says of its secure aggregation; none without.
    pub(crate) fn of(record: &RoundRecord) -> Option<Self> {
        let secagg = record.secagg.as_ref()?;
        let bytes = &secagg.bytes;
        let [before_keys, after_keys, after_shares, after_input] = secagg.left;
        Some(Self {
            round: record.round,
            mode: match secagg.mode {
                SecAggMode::Real => "real",
                SecAggMode::Sampled => "sampled",
                SecAggMode::Ideal => "ideal",
            }
            .to_owned(),
            sessions: secagg.sessions,
            clients: secagg.clients,
            neighbours: secagg.neighbours,
            threshold: secagg.threshold,
            min_survivors: secagg.min_survivors,
            ring_bits: secagg.ring_bits,
            left_before_keys: before_keys,
            left_after_keys: after_keys,
            left_after_shares: after_shares,
            left_after_input: after_input,
            inputs: secagg.inputs,
            masked: secagg.masked,
            failed: secagg.failed,
            failed_stage: secagg
                .failed_stage
                .map_or_else(String::new, |stage| stage.name().to_owned()),
            close_pairs: secagg.close_pairs,
            bytes_advertise_keys: bytes.advertise_keys,
            bytes_roster: bytes.roster,
            bytes_share_keys: bytes.share_keys,
            bytes_forwarded_shares: bytes.forwarded_shares,
            bytes_masked_input: bytes.masked_input,
            bytes_survivors: bytes.survivors,
            bytes_signed_survivors: bytes.signed_survivors,
            bytes_unmask: bytes.unmask,
            bytes_unmasking_shares: bytes.unmasking_shares,
            modelled_client_seconds: secagg.modelled.map(|seconds| seconds.client()),
            modelled_server_seconds: secagg.modelled.map(|seconds| seconds.server()),
            modelled_client_advertise_keys_seconds: secagg
                .modelled
                .map(|all| all.advertise_keys.client_mean),
            modelled_client_share_keys_seconds: secagg
                .modelled
                .map(|all| all.share_keys.client_mean),
            modelled_client_masked_input_seconds: secagg
                .modelled
                .map(|all| all.masked_input.client_mean),
            modelled_client_consistency_seconds: secagg
                .modelled
                .map(|all| all.consistency.client_mean),
            modelled_client_unmask_seconds: secagg.modelled.map(|all| all.unmask.client_mean),
            modelled_server_advertise_keys_seconds: secagg
                .modelled
                .map(|all| all.advertise_keys.server),
            modelled_server_share_keys_seconds: secagg.modelled.map(|all| all.share_keys.server),
            modelled_server_masked_input_seconds: secagg
                .modelled
                .map(|all| all.masked_input.server),
            modelled_server_consistency_seconds: secagg.modelled.map(|all| all.consistency.server),
            modelled_server_unmask_seconds: secagg.modelled.map(|all| all.unmask.server),
        })
    }
}

impl TensorRow {
    /// The fingerprints of a model's tensors after a round, in the model's order.
    pub(crate) fn all_of(round: u64, model: &Parameters) -> impl Iterator<Item = Self> {
        model.layout().tensors().iter().map(move |tensor| {
            let mut hash = Sha256::new();
            let mut chunk = [0u8; 4096];
            for values in model.values()[tensor.range()].chunks(chunk.len() / 4) {
                for (bytes, value) in chunk.chunks_exact_mut(4).zip(values) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                hash.update(&chunk[..values.len() * 4]);
            }
            Self {
                round,
                tensor: tensor.name.clone(),
                digest: atomic::hex(&hash.finalize()[..8]),
            }
        })
    }
}

/// The folder of the served models.
const SERVED: &str = "served";
const SERVER: &str = "server";
const HYPOTHETICAL: &str = "hypothetical";

impl From<&EvaluationRecord> for EvaluationRow {
    fn from(record: &EvaluationRecord) -> Self {
        Self {
            round: record.round,
            test_loss: record.test_loss,
            test_accuracy: record.test_accuracy,
            test_loss_int8: record.test_loss_int8,
            test_accuracy_int8: record.test_accuracy_int8,
            train_loss: record.train_loss,
            train_accuracy: record.train_accuracy,
            train_clients: record.train_clients,
        }
    }
}

impl From<&ClientEvaluation> for ClientRow {
    fn from(record: &ClientEvaluation) -> Self {
        Self {
            round: record.round,
            client: record.client,
            split: match record.split {
                ClientSplit::Test => "test",
                ClientSplit::Train => "train",
            }
            .to_owned(),
            examples: record.examples,
            loss: record.loss,
            accuracy: record.accuracy,
        }
    }
}

/// Records a running variant in its journal.
///
/// A record that cannot be written is remembered and stops the run at the next checkpoint, or at
/// the latest in [`finish`](Self::finish).
#[derive(Debug)]
pub struct RunWriter {
    journal: Journal,
    model: PathBuf,
    /// Where files of served models are kept, where they are.
    served: Option<PathBuf>,
    refused: Option<ResultsError>,
}

impl RunWriter {
    pub(crate) fn new(journal: Journal, model: PathBuf) -> Self {
        Self {
            journal,
            model,
            served: None,
            refused: None,
        }
    }

    /// The same, which keeps the file of every served model beside the journal, for a rollout.
    #[must_use]
    pub fn keeping_served(self) -> Self {
        let served = self.model.with_file_name(SERVED);
        Self {
            served: Some(served),
            ..self
        }
    }

    /// The files of the served models, by rounds; none unless they are kept.
    ///
    /// # Errors
    /// [`ResultsError::Read`].
    pub fn served_files(&self) -> Result<Vec<ServedFile>, ResultsError> {
        let Some(folder) = self.served.as_ref().filter(|folder| folder.is_dir()) else {
            return Ok(Vec::new());
        };
        let failed = |error| ResultsError::read(folder, error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            // What a write that was cut short left is no version.
            let whole = path.extension().is_some_and(|end| end == "safetensors");
            let Some(round) = stem.filter(|_| whole).and_then(|stem| stem.parse().ok()) else {
                continue;
            };
            let bytes = std::fs::read(&path).map_err(|error| ResultsError::read(&path, error))?;
            files.push(ServedFile {
                round,
                bytes: Arc::new(bytes),
            });
        }
        files.sort_unstable_by_key(|file| file.round);
        Ok(files)
    }

    /// Records a rollout.
    pub fn rollout(&mut self, rows: Vec<RolloutRow>) {
        for row in rows {
            self.append(&Entry::Rollout(Box::new(row)));
        }
    }

    fn append(&mut self, entry: &Entry) {
        if self.refused.is_none() {
            self.refused = self.journal.append(entry).err();
        }
    }

    fn time(&mut self, what: &str, round: u64, seconds: f64) {
        self.append(&Entry::Timing(TimingRow {
            what: what.to_owned(),
            round,
            seconds,
        }));
    }

    fn sync(&mut self) -> Result<u64, ResultsError> {
        match self.refused.take() {
            Some(error) => Err(error),
            None => self.journal.sync(),
        }
    }

    /// The run has come to its end: writes the model and closes the record.
    ///
    /// # Errors
    /// [`ResultsError`] when anything of the record could not be written.
    pub fn finish(mut self, model: &Model, parameters: &Parameters) -> Result<(), ResultsError> {
        self.sync()?;
        model::stage(&self.model, model, parameters)?.publish()?;
        let digest = parameters.digest().to_string();
        self.append(&Entry::Finished(digest));
        self.sync().map(drop)
    }

    /// The run was interrupted: makes what is recorded durable.
    ///
    /// # Errors
    /// [`ResultsError`] when anything of the record could not be written.
    pub fn stop(mut self) -> Result<(), ResultsError> {
        self.sync().map(drop)
    }
}

impl Observer for RunWriter {
    fn round(&mut self, record: &RoundRecord) {
        self.append(&Entry::Round(record.into()));
        if let Some(row) = PrivacyRow::of(record) {
            self.append(&Entry::Privacy(row));
        }
        if let Some(row) = GroupsRow::of(record) {
            self.append(&Entry::Groups(row));
        }
        if let Some(row) = PruningRow::of(record) {
            self.append(&Entry::Pruning(row));
        }
        if let Some(row) = FleetRow::of(record) {
            self.append(&Entry::Fleet(Box::new(row)));
        }
        if let Some(row) = RegionsRow::of(record) {
            self.append(&Entry::Regions(row));
        }
        if let Some(row) = FaultsRow::of(record) {
            self.append(&Entry::Faults(row));
        }
        if let Some(row) = SecAggRow::of(record) {
            self.append(&Entry::SecAgg(Box::new(row)));
        }
        self.time("round", record.round, record.seconds);
        self.time("training", record.round, record.training_seconds);
        if let Some(measured) = record.secagg.as_ref().and_then(|secagg| secagg.measured) {
            for (stage, time) in measured.stages() {
                let what = |whose| format!("secagg-{}-{whose}", stage.name());
                self.time(&what("client-mean"), record.round, time.client_mean);
                self.time(&what("client-max"), record.round, time.client_max);
                self.time(&what("server"), record.round, time.server);
            }
        }
    }

    fn moved(&mut self, round: u64, model: &Parameters) {
        for row in TensorRow::all_of(round, model) {
            self.append(&Entry::Tensor(row));
        }
    }

    fn took_part(&mut self, part: &ClientPart) {
        self.append(&Entry::Timeline(Box::new(part.into())));
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        self.append(&Entry::Evaluation(record.into()));
        if let Some(row) = PatchRow::of(record) {
            self.append(&Entry::Patch(row));
        }
        self.time("evaluation", record.round, record.seconds);
    }

    fn served(&mut self, file: &ServedFile) {
        let Some(folder) = &self.served else { return };
        let write = || {
            let made = std::fs::create_dir_all(folder);
            made.map_err(|error| ResultsError::write(folder, error))?;
            let path = folder.join(format!("{}.safetensors", file.round));
            atomic::write(&path, &file.bytes).map(drop)
        };
        if self.refused.is_none() {
            self.refused = write().err();
        }
    }

    fn client_evaluated(&mut self, record: &ClientEvaluation) {
        self.append(&Entry::Client(record.into()));
    }

    fn flush(&mut self, _round: RoundId) -> Result<RecorderPosition, ObserverError> {
        self.sync()
            .map(RecorderPosition)
            .map_err(|error| ObserverError::from(Box::new(error)))
    }
}
