//! The folder of an experiment's results, while it is being written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::atomic::{self, Staged};
use super::error::ResultsError;
use super::frozen::Frozen;
use super::journal::{self, Entry, Journal};
use super::load::{Results, VariantResults};
use super::lock::Lock;
use super::manifest::{
    self, DatasetFacts, FORMAT, HOST, Host, HostFacts, MANIFEST, Manifest, Status, VariantManifest,
};
use super::model;
use super::row::{
    ClientRow, EvaluationRow, FaultsRow, FleetRow, GroupsRow, PartitionRow, PatchRow, PrivacyRow,
    PruningRow, RegionsRow, RolloutRow, RoundRow, Row, SecAggRow, TensorRow, TimelineRow,
    TimingRow,
};
use super::table;
use super::writer::RunWriter;

/// What decides a variant's result: enough to find its records again.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantKey {
    /// Unique within the experiment; fit for a folder's name.
    pub name: String,
    /// Everything that decides the result, with all defaults written out.
    pub config: toml::Table,
}

/// What is known of a variant before its first round.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantFacts {
    /// Name and configuration.
    pub key: VariantKey,
    /// Seed of everything random.
    pub seed: u64,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// The data.
    pub dataset: DatasetFacts,
    /// SHA-256 of the teacher, hexadecimal; where there is one.
    pub teacher: Option<String>,
    /// Classes of a sample of the clients.
    pub partition: Vec<PartitionRow>,
}

impl VariantKey {
    /// The digest, hexadecimal.
    pub(crate) fn hexadecimal(&self) -> String {
        atomic::hex(&self.digest())
    }

    /// SHA-256 of name and configuration.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((self.name.len() as u64).to_le_bytes());
        hash.update(self.name.as_bytes());
        hash.update(self.config.to_string().as_bytes());
        hash.finalize().into()
    }
}

/// The folder of an experiment's results, locked against a second run.
///
/// While an experiment runs, everything lies in `checkpoint/VARIANT/`: the journal, the
/// simulation's checkpoints and, once the variant is finished, its model.
/// [`publish`](Self::publish) turns that into the result files; they replace older ones only when
/// all of them are safely on disk, the manifest last.
#[derive(Debug)]
pub struct ResultsFolder {
    path: PathBuf,
    /// Holds the lock; the system frees it when the process ends, however it ends.
    _lock: Lock,
}

/// The folder of what is not finished yet.
pub(super) const WORK: &str = "checkpoint";

/// Removes from a folder of finished results what only a run needs.
pub(crate) fn remove_work(folder: &Path) {
    // Nothing depends on it, so what cannot be removed stays.
    let _ = fs::remove_dir_all(folder.join(WORK));
}

impl ResultsFolder {
    /// Opens the folder, which is made where it does not exist.
    ///
    /// # Errors
    /// [`ResultsError::InUse`] when another run writes into it, [`ResultsError::Locked`], or [`ResultsError::Write`].
    pub fn open(path: &Path) -> Result<Self, ResultsError> {
        Frozen::refuse(path)?;
        let work = path.join(WORK);
        fs::create_dir_all(&work).map_err(|error| ResultsError::write(&work, error))?;
        match Lock::try_take(&work.join("lock"))? {
            Some(lock) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            None => Err(ResultsError::InUse {
                path: path.to_owned(),
            }),
        }
    }

    /// Leaves the folder as it is, without what only a run needs.
    pub(crate) fn leave(self) {
        remove_work(&self.path);
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a variant's simulation keeps its checkpoints.
    #[must_use]
    pub fn checkpoint_dir(&self, variant: &str) -> PathBuf {
        self.path.join(WORK).join(variant)
    }

    fn journal_path(&self, variant: &str) -> PathBuf {
        self.checkpoint_dir(variant).join("journal")
    }

    /// Forgets what an earlier run of `variant` left unfinished. Finished results stay until new
    /// ones replace them.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub fn discard(&self, variant: &str) -> Result<(), ResultsError> {
        let folder = self.checkpoint_dir(variant);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ResultsError::write(&folder, error))
            }
            _ => Ok(()),
        }
    }

    /// Whether `key` has been run to its end, here, with this configuration.
    ///
    /// # Errors
    /// [`ResultsError`] when what is there cannot be read.
    pub fn finished(&self, key: &VariantKey) -> Result<bool, ResultsError> {
        Ok(match self.recorded(key)? {
            Some(recorded) => recorded.manifest.status == Status::Finished,
            None => false,
        })
    }

    /// The digest of the teacher of what was run with this configuration; none where nothing was, or
    /// nobody taught.
    ///
    /// # Errors
    /// [`ResultsError`] when what is there cannot be read.
    pub fn taught_by(&self, key: &VariantKey) -> Result<Option<String>, ResultsError> {
        Ok(self
            .recorded(key)?
            .and_then(|recorded| recorded.manifest.teacher))
    }

    /// The model file of a variant that was run to its end, here, with this configuration.
    ///
    /// # Errors
    /// [`ResultsError`] when what is there cannot be read.
    pub fn finished_model(&self, key: &VariantKey) -> Result<Option<PathBuf>, ResultsError> {
        let finished = |found: &VariantResults| found.manifest.status == Status::Finished;
        if self.journalled(key)?.is_some_and(|it| finished(&it)) {
            return Ok(Some(self.work_model(&key.name)));
        }
        let published = self.published(key)?.filter(finished);
        Ok(published.map(|_| self.path.join(&key.name).join(model::FILE)))
    }

    /// Starts the record of a variant from its first round.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub fn start(&self, facts: &VariantFacts) -> Result<RunWriter, ResultsError> {
        let variant = &facts.key.name;
        let mut journal = Journal::create(&self.journal_path(variant), &facts.key.digest())?;
        let unfinished = VariantManifest {
            name: variant.clone(),
            status: Status::Stopped,
            rounds_done: 0,
            seed: facts.seed,
            parameters: facts.parameters,
            model_digest: None,
            dataset: facts.dataset.clone(),
            teacher: facts.teacher.clone(),
            config: facts.key.config.clone(),
        };
        let text = toml::to_string(&unfinished).map_err(|error| ResultsError::Encode {
            path: self.journal_path(variant),
            what: "the configuration",
            why: error.to_string(),
        })?;
        journal.append(&Entry::Facts(text))?;
        for row in &facts.partition {
            journal.append(&Entry::Partition(row.clone()))?;
        }
        journal.sync()?;
        atomic::sync_folder(&self.checkpoint_dir(variant))?;
        Ok(RunWriter::new(journal, self.work_model(variant)))
    }

    /// Continues the record of a variant at the position that the checkpoint gives: what was
    /// recorded after it is dropped.
    ///
    /// # Errors
    /// [`ResultsError::OtherConfiguration`] when configuration or data are not those of the record,
    /// [`ResultsError::JournalTooShort`], or what the system refused.
    pub fn resume(&self, facts: &VariantFacts, position: u64) -> Result<RunWriter, ResultsError> {
        let path = self.journal_path(&facts.key.name);
        let (journal, entries) = Journal::resume(&path, &facts.key.digest(), position)?;
        let recorded = collect(&path, entries)?;
        let manifest = &recorded.manifest;
        if manifest.dataset != facts.dataset || manifest.teacher != facts.teacher {
            return Err(ResultsError::OtherConfiguration { path });
        }
        Ok(RunWriter::new(journal, self.work_model(&facts.key.name)))
    }

    fn work_model(&self, variant: &str) -> PathBuf {
        self.checkpoint_dir(variant).join(model::FILE)
    }

    /// What is recorded of a variant with this configuration: in its journal, else in the
    /// published results.
    fn recorded(&self, key: &VariantKey) -> Result<Option<VariantResults>, ResultsError> {
        Ok(match self.journalled(key)? {
            Some(recorded) => Some(recorded),
            None => self.published(key)?,
        })
    }

    fn journalled(&self, key: &VariantKey) -> Result<Option<VariantResults>, ResultsError> {
        let path = self.journal_path(&key.name);
        if !path.exists() {
            return Ok(None);
        }
        match journal::read(&path, &key.digest(), None) {
            // A journal of another configuration, or one that was cut before its header was
            // whole, records nothing of this variant.
            Err(ResultsError::OtherConfiguration { .. } | ResultsError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(contents) if contents.entries.is_empty() => Ok(None),
            Ok(contents) => collect(&path, contents.entries).map(Some),
        }
    }

    fn published(&self, key: &VariantKey) -> Result<Option<VariantResults>, ResultsError> {
        let Some(manifest) = manifest::read::<Manifest>(&self.path.join(MANIFEST))? else {
            return Ok(None);
        };
        let same =
            |variant: &VariantManifest| variant.name == key.name && variant.config == key.config;
        if !manifest.variants.iter().any(same) {
            return Ok(None);
        }
        let results = Results::load(&self.path)?;
        Ok(results
            .variants
            .into_iter()
            .find(|variant| same(&variant.manifest)))
    }

    /// Writes the result files from everything recorded of `variants` (in that order; those of
    /// which nothing is recorded are left out), replacing older results. When all are finished,
    /// the checkpoints are removed.
    ///
    /// # Errors
    /// [`ResultsError`]; the older results are then still whole, and what was recorded is kept, so
    /// that `--resume` can publish it.
    pub fn publish(
        self,
        name: &str,
        variants: &[VariantKey],
        host: &HostFacts,
    ) -> Result<Results, ResultsError> {
        let old: Option<Manifest> = manifest::read(&self.path.join(MANIFEST)).unwrap_or_default();
        let mut recorded = Vec::new();
        let mut models = Vec::new();
        let mut files = BTreeMap::new();
        for key in variants {
            let journalled = self.journalled(key)?;
            let fresh = journalled.is_some();
            let found = match journalled {
                Some(found) => Some(found),
                // Results that cannot be read are replaced, not merged.
                None => self.published(key).unwrap_or_default(),
            };
            let Some(found) = found else { continue };
            if found.manifest.status == Status::Finished {
                let target = format!("{}/{}", key.name, model::FILE);
                let digest = if fresh {
                    let staged = self.stage_model(&key.name, &found)?;
                    let digest = staged.digest().clone();
                    models.push(staged);
                    Some(digest)
                } else {
                    old.as_ref().and_then(|old| old.files.get(&target).cloned())
                };
                if let Some(digest) = digest {
                    files.insert(target, digest);
                }
            }
            recorded.push(found);
        }

        let mut tables = vec![
            self.stage_table(&recorded, |variant| variant.rounds.as_slice())?,
            self.stage_table(&recorded, |variant| variant.evaluations.as_slice())?,
            self.stage_table(&recorded, |variant| variant.clients.as_slice())?,
            self.stage_table(&recorded, |variant| variant.partition.as_slice())?,
        ];
        if recorded.iter().any(|variant| !variant.privacy.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.privacy.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.groups.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.groups.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.patches.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.patches.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.secagg.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.secagg.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.pruning.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.pruning.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.fleet.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.fleet.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.regions.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.regions.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.faults.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.faults.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.timeline.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.timeline.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.rollout.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.rollout.as_slice())?);
        }
        if recorded.iter().any(|variant| !variant.tensors.is_empty()) {
            tables.push(self.stage_table(&recorded, |variant| variant.tensors.as_slice())?);
        }
        for (name, staged) in &tables {
            files.insert(name.clone(), staged.digest().clone());
        }
        let timing = self.stage_table(&recorded, |variant| variant.timing.as_slice())?;
        let host = Host {
            format: FORMAT,
            host: host.clone(),
            files: [(timing.0.clone(), timing.1.digest().clone())].into(),
        };
        let manifest = Manifest {
            format: FORMAT,
            name: name.to_owned(),
            program: manifest::PROGRAM.to_owned(),
            files,
            variants: recorded
                .iter()
                .map(|variant| variant.manifest.clone())
                .collect(),
        };
        let host_file = manifest::stage(&self.path.join(HOST), &host)?;
        let manifest_file = manifest::stage(&self.path.join(MANIFEST), &manifest)?;

        // Everything is on disk; only renames are left.
        tables.push(timing);
        for (_, staged) in tables {
            staged.publish()?;
        }
        for staged in models {
            staged.publish()?;
        }
        host_file.publish()?;
        manifest_file.publish()?;
        self.tidy(old.as_ref(), &manifest, variants.len());
        Ok(Results {
            path: self.path.clone(),
            manifest,
            host: Some(host.host),
            variants: recorded,
        })
    }

    fn stage_table<R: Row>(
        &self,
        recorded: &[VariantResults],
        rows: impl Fn(&VariantResults) -> &[R],
    ) -> Result<(String, Staged), ResultsError> {
        let tables: Vec<(&str, &[R])> = recorded
            .iter()
            .map(|variant| (variant.manifest.name.as_str(), rows(variant)))
            .collect();
        let staged = table::stage(&self.path, &tables)?;
        Ok((format!("{}.parquet", R::TABLE), staged))
    }

    fn stage_model(&self, variant: &str, found: &VariantResults) -> Result<Staged, ResultsError> {
        let path = self.work_model(variant);
        let parameters = model::read(&path)?;
        if Some(parameters.digest().to_string()) != found.manifest.model_digest {
            return Err(ResultsError::damaged(
                &path,
                "its digest is not the one in the journal",
            ));
        }
        model::stage_copy(&self.path.join(variant).join(model::FILE), &path)
    }

    /// Removes checkpoints that are no longer needed and models of variants that are gone.
    /// Nothing depends on it, so what cannot be removed stays.
    fn tidy(&self, old: Option<&Manifest>, new: &Manifest, wanted: usize) {
        if let Some(old) = old {
            for file in old
                .files
                .keys()
                .filter(|&file| !new.files.contains_key(file))
            {
                if let Some((variant, model::FILE)) = file.rsplit_once('/')
                    && Path::new(variant).file_name() == Some(variant.as_ref())
                {
                    let folder = self.path.join(variant);
                    let _ = fs::remove_file(folder.join(model::FILE));
                    let _ = fs::remove_dir(folder);
                } else if [
                    "privacy.parquet",
                    "secagg.parquet",
                    "groups.parquet",
                    "patches.parquet",
                    "pruning.parquet",
                    "fleet.parquet",
                    "timeline.parquet",
                    "faults.parquet",
                    "regions.parquet",
                    "rollout.parquet",
                ]
                .contains(&file.as_str())
                {
                    let _ = fs::remove_file(self.path.join(file));
                }
            }
        }
        let finished = |variant: &VariantManifest| variant.status == Status::Finished;
        if new.variants.len() == wanted && new.variants.iter().all(finished) {
            remove_work(&self.path);
        }
    }
}

/// The results that a journal's entries add up to.
fn collect(path: &Path, entries: Vec<Entry>) -> Result<VariantResults, ResultsError> {
    let mut facts = None;
    let mut partition: Vec<PartitionRow> = Vec::new();
    let mut rounds: Vec<RoundRow> = Vec::new();
    let mut evaluations: Vec<EvaluationRow> = Vec::new();
    let mut clients: Vec<ClientRow> = Vec::new();
    let mut timing: Vec<TimingRow> = Vec::new();
    let mut privacy: Vec<PrivacyRow> = Vec::new();
    let mut secagg: Vec<SecAggRow> = Vec::new();
    let mut groups: Vec<GroupsRow> = Vec::new();
    let mut patches: Vec<PatchRow> = Vec::new();
    let mut pruning: Vec<PruningRow> = Vec::new();
    let mut fleet: Vec<FleetRow> = Vec::new();
    let mut timeline: Vec<TimelineRow> = Vec::new();
    let mut rollout: Vec<RolloutRow> = Vec::new();
    let mut regions: Vec<RegionsRow> = Vec::new();
    let mut faults: Vec<FaultsRow> = Vec::new();
    let mut tensors: Vec<TensorRow> = Vec::new();
    let mut finished = None;
    for entry in entries {
        match entry {
            Entry::Facts(text) => facts = Some(text),
            Entry::Partition(row) => partition.push(row),
            Entry::Round(row) => rounds.push(row),
            Entry::Evaluation(row) => evaluations.push(row),
            Entry::Client(row) => {
                // Only the last evaluation of the clients is kept.
                if clients
                    .first()
                    .is_some_and(|first| first.round != row.round)
                {
                    clients.clear();
                }
                clients.push(row);
            }
            Entry::Timing(row) => timing.push(row),
            Entry::Privacy(row) => privacy.push(row),
            Entry::SecAgg(row) => secagg.push(*row),
            Entry::Groups(row) => groups.push(row),
            Entry::Patch(row) => patches.push(row),
            Entry::Pruning(row) => pruning.push(row),
            Entry::Fleet(row) => fleet.push(*row),
            Entry::Timeline(row) => timeline.push(*row),
            Entry::Rollout(row) => rollout.push(*row),
            Entry::Regions(row) => regions.push(row),
            Entry::Faults(row) => faults.push(row),
            Entry::Tensor(row) => tensors.push(row),
            Entry::Finished(digest) => finished = Some(digest),
        }
    }
    let facts = facts.ok_or_else(|| ResultsError::damaged(path, "its first record is missing"))?;
    let mut manifest: VariantManifest =
        toml::from_str(&facts).map_err(|error| ResultsError::damaged(path, error.to_string()))?;
    manifest.rounds_done = rounds.len() as u64;
    if finished.is_some() {
        manifest.status = Status::Finished;
        manifest.model_digest = finished;
    }
    Ok(VariantResults {
        manifest,
        rounds,
        evaluations,
        clients,
        partition,
        privacy,
        secagg,
        groups,
        patches,
        pruning,
        fleet,
        timeline,
        rollout,
        regions,
        faults,
        tensors,
        timing,
    })
}

#[cfg(test)]
mod tests {

    use fl_core::{Parameters, RoundId};
    use fl_edge::Model;
    use fl_sim::{EvaluationRecord, Observer as _, RoundRecord};

    use super::*;

    fn key(name: &str) -> VariantKey {
        let text = format!("name = \"{name}\"\nseed = 1\n[dataset]\nname = \"digits\"\n");
        VariantKey {
            name: name.to_owned(),
            config: toml::from_str(&text).unwrap(),
        }
    }

    fn facts(name: &str) -> VariantFacts {
        VariantFacts {
            key: key(name),
            seed: 1,
            parameters: 2,
            dataset: DatasetFacts {
                name: "digits".to_owned(),
                clients: 10,
                classes: Some(10),
                digest: "00".to_owned(),
            },
            teacher: None,
            partition: vec![PartitionRow {
                client: 0,
                class: 1,
                class_name: "one".to_owned(),
                examples: 2,
            }],
        }
    }

    fn play(writer: &mut RunWriter, rounds: core::ops::Range<u64>) -> u64 {
        for round in rounds.clone() {
            writer.round(&RoundRecord {
                round,
                cohort: 10,
                reported: 10,
                dropped: 0,
                stragglers: 0,
                rejected: 0,
                surplus: 0,
                saturated: 0,
                examples: 100,
                examples_processed: 500,
                steps: 50,
                train_loss: Some(1.0 / (round + 1) as f64),
                update_norm: 0.5,
                learning_rate: 0.1,
                bytes_down: 80,
                bytes_up: 80,
                privacy: None,
                groups: None,
                regions: None,
                secagg: None,
                pruning: None,
                faults: None,
                fleet: None,
                training_seconds: 0.0,
                seconds: 0.01,
            });
            writer.evaluated(&EvaluationRecord {
                round: round + 1,
                test_loss: Some(0.5),
                test_accuracy: Some(0.9),
                test_loss_int8: None,
                test_accuracy_int8: None,
                patch: None,
                train_loss: None,
                train_accuracy: None,
                train_clients: 0,
                seconds: 0.02,
            });
        }
        writer.flush(RoundId(rounds.end)).unwrap().0
    }

    /// The example's model, with parameters of which the first is given.
    fn model(value: f32) -> (Model, Parameters) {
        let (model, mut parameters) = model::tests::example();
        parameters.values_mut()[0] = value;
        (model, parameters)
    }

    fn finish(writer: RunWriter) {
        let (model, parameters) = model(1.0);
        writer.finish(&model, &parameters).unwrap();
    }

    fn bytes_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap();
                    let name = name.to_str().unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }

    fn whole(path: &Path, names: &[&str]) -> Results {
        let folder = ResultsFolder::open(path).unwrap();
        for name in names {
            let mut writer = folder.start(&facts(name)).unwrap();
            play(&mut writer, 0..5);
            finish(writer);
        }
        let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
        folder.publish("x", &keys, &HostFacts::default()).unwrap()
    }

    #[test]
    fn published_results_load_as_they_were_recorded() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("deep/x");
        let published = whole(&path, &["b", "a"]);
        let loaded = Results::load(&path).unwrap();
        assert_eq!(loaded.manifest, published.manifest);
        assert_eq!(loaded.names(), ["b", "a"]);
        for (loaded, published) in loaded.variants.iter().zip(&published.variants) {
            assert_eq!(loaded.rounds, published.rounds);
            assert_eq!(loaded.evaluations, published.evaluations);
            assert_eq!(loaded.partition, published.partition);
            assert_eq!(loaded.timing, published.timing);
            let summary = loaded.summary();
            assert_eq!(summary.rounds, 5);
            assert_eq!(summary.seconds_per_round, Some(0.01));
            assert_eq!(summary.final_accuracy, Some(0.9));
            assert_eq!(
                summary.model_digest,
                Some(model(1.0).1.digest().to_string())
            );
        }
        assert!(!path.join(WORK).exists());
        assert_eq!(
            model::read(&loaded.model_path("a")).unwrap().digest(),
            model(1.0).1.digest()
        );
        assert!(super::super::damage(&path).unwrap().is_empty());
        let one = Results::load(&path.join("a")).unwrap();
        assert_eq!(one.names(), ["a"]);
    }

    #[test]
    fn a_resumed_record_publishes_the_same_bytes() {
        let temporary = tempfile::tempdir().unwrap();
        let (once, twice) = (temporary.path().join("1"), temporary.path().join("2"));
        whole(&once, &["a"]);

        let folder = ResultsFolder::open(&twice).unwrap();
        let mut writer = folder.start(&facts("a")).unwrap();
        let position = play(&mut writer, 0..2);
        play(&mut writer, 2..4);
        // Killed: neither stopped nor finished.
        drop(writer);
        drop(folder);
        let folder = ResultsFolder::open(&twice).unwrap();
        assert!(!folder.finished(&key("a")).unwrap());
        let mut writer = folder.resume(&facts("a"), position).unwrap();
        play(&mut writer, 2..5);
        finish(writer);
        assert!(folder.finished(&key("a")).unwrap());
        folder
            .publish("x", &[key("a")], &HostFacts::default())
            .unwrap();
        assert_eq!(bytes_of(&once), bytes_of(&twice));
        assert!(
            ResultsFolder::open(&twice)
                .unwrap()
                .finished(&key("a"))
                .unwrap()
        );
    }

    #[test]
    fn other_data_are_refused_on_resume() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = ResultsFolder::open(temporary.path()).unwrap();
        let mut writer = folder.start(&facts("a")).unwrap();
        let position = play(&mut writer, 0..2);
        drop(writer);
        let mut other = facts("a");
        other.dataset.digest = "11".to_owned();
        assert!(matches!(
            folder.resume(&other, position),
            Err(ResultsError::OtherConfiguration { .. })
        ));
        let mut other = facts("a");
        other.key.config.insert("seed".to_owned(), 2.into());
        assert!(matches!(
            folder.resume(&other, position),
            Err(ResultsError::OtherConfiguration { .. })
        ));
        assert!(!folder.finished(&other.key).unwrap());
    }

    #[test]
    fn variants_run_one_at_a_time_are_merged() {
        let temporary = tempfile::tempdir().unwrap();
        let (once, twice) = (temporary.path().join("1"), temporary.path().join("2"));
        whole(&once, &["a", "b"]);
        for name in ["b", "a"] {
            let folder = ResultsFolder::open(&twice).unwrap();
            let mut writer = folder.start(&facts(name)).unwrap();
            play(&mut writer, 0..5);
            finish(writer);
            folder
                .publish("x", &[key("a"), key("b")], &HostFacts::default())
                .unwrap();
        }
        assert_eq!(bytes_of(&once), bytes_of(&twice));
        // A variant that is gone from the experiment goes from the results.
        whole(&twice, &["b"]);
        let folder = ResultsFolder::open(&once).unwrap();
        folder
            .publish("x", &[key("b")], &HostFacts::default())
            .unwrap();
        assert_eq!(bytes_of(&once), bytes_of(&twice));
    }

    #[test]
    fn old_results_stay_until_new_ones_are_published() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        whole(path, &["a"]);
        let before = bytes_of(path);
        let folder = ResultsFolder::open(path).unwrap();
        folder.discard("a").unwrap();
        let mut writer = folder.start(&facts("a")).unwrap();
        play(&mut writer, 0..3);
        drop(writer);
        let mut now = bytes_of(path);
        now.retain(|name, _| !name.starts_with(WORK));
        assert_eq!(now, before);
        assert!(matches!(
            ResultsFolder::open(path),
            Err(ResultsError::InUse { .. })
        ));
    }

    #[test]
    fn an_interrupted_variant_is_published_as_far_as_it_came() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let folder = ResultsFolder::open(path).unwrap();
        let mut writer = folder.start(&facts("a")).unwrap();
        play(&mut writer, 0..3);
        writer.stop().unwrap();
        let results = folder
            .publish("x", &[key("a"), key("b")], &HostFacts::default())
            .unwrap();
        assert_eq!(results.names(), ["a"]);
        assert_eq!(results.variants[0].manifest.status, Status::Stopped);
        assert_eq!(Results::load(path).unwrap().variants[0].rounds.len(), 3);
        assert!(path.join(WORK).join("a/journal").exists());
    }

    #[test]
    fn every_damaged_file_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        whole(path, &["a"]);
        super::super::write_drawn(
            &path.join("plots"),
            &[("p.svg".to_owned(), vec![1])],
            &[],
            super::super::Earlier::Removed,
        )
        .unwrap();
        for (name, bytes) in bytes_of(path) {
            for damaged in [Vec::new(), bytes[..bytes.len() - 1].to_vec(), {
                let mut flipped = bytes.clone();
                flipped[bytes.len() / 2] ^= 4;
                flipped
            }] {
                fs::write(path.join(&name), &damaged).unwrap();
                let found = super::super::damage(path).unwrap();
                assert_eq!(found.len(), 1, "{name}");
                assert!(found[0].to_string().contains(&name), "{name}: {}", found[0]);
            }
            fs::write(path.join(&name), &bytes).unwrap();
        }
        assert!(super::super::damage(path).unwrap().is_empty());
    }
}
