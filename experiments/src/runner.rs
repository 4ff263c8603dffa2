//! From a resolved [`Variant`] to a running simulation: the data, the model, and what shows only
//! when they are at hand.

use std::sync::Arc;

use fl_core::{
    ClientId, ExampleOrder, Parameters, Precision, Purpose, RingError, RingPlan, RoundId, Seed,
    Stream,
};
use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
use fl_edge::distill::Teacher;
use fl_edge::file::{Mapped, ModelFile};
use fl_edge::{EdgeError, Model};
use fl_privacy::PrivacyError;
use fl_sim::checkpoint::ServedFile;
use fl_sim::rollout::{self, Registry};
use fl_sim::{CheckpointConfig, Privacy, PrivacyPlan, SecAggPlan, SimError, SimulationConfig};

use crate::config::{
    FaultsTable, PrivacyTable, PruningTable, QatTable, SecAggTable, Variant, distillation_key,
    privacy_key, secagg_key,
};
use crate::error::Error;
use crate::results::{DatasetFacts, PartitionRow, RolloutRow, VariantFacts, VariantKey};

pub use workload::Workload;

mod workload;

/// Clients of which the classes are recorded, for the picture of the partition.
const PICTURED_CLIENTS: u64 = 30;

/// How a run is made. Nothing in it decides a result.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Worker threads; 0 for one per core.
    pub threads: usize,
    /// Where checkpoints are kept; none for a run that cannot be resumed.
    pub checkpoint: Option<CheckpointConfig>,
}

/// Data that the variants of an experiment share, loaded once.
#[derive(Debug, Default)]
pub struct DataCache {
    last: Option<(DatasetConfig, Seed, FederatedDataset)>,
}

impl DataCache {
    /// The data of a variant.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Data`] at the key at fault.
    pub fn load(&mut self, variant: &Variant) -> Result<FederatedDataset, Error> {
        if let Some((config, seed, data)) = &self.last
            && *config == variant.dataset
            && *seed == variant.seed
        {
            return Ok(data.clone());
        }
        // Two data sets need not fit into memory at once.
        self.last = None;
        let located = |error: fl_datasets::DatasetError| variant.data_fault(&error);
        let root = DataRoot::from_env().map_err(located)?;
        let data = fl_datasets::load(&variant.dataset, &root, variant.seed).map_err(located)?;
        self.last = Some((variant.dataset.clone(), variant.seed, data.clone()));
        Ok(data)
    }
}

/// A variant with its data and its model, ready to run.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What runs.
    pub variant: Variant,
    /// The population.
    pub data: FederatedDataset,
    /// The model, fitted to the data.
    pub model: Arc<Model>,
    /// Whether the teacher is yet to be trained, by an earlier variant. Until then one of the same
    /// model stands for it, so that everything can be checked.
    waits: bool,
    /// Differential privacy, for the simulator.
    privacy: Option<Privacy>,
}

/// Who teaches a variant.
struct Teaches {
    teacher: Teacher,
    waits: bool,
}

impl Teaches {
    /// None without a teacher.
    fn of(variant: &Variant, data: &FederatedDataset) -> Result<Option<Self>, Error> {
        if variant.local.distillation.is_none() {
            return Ok(None);
        }
        let at = "local.distillation.teacher";
        if let Some(path) = &variant.teacher {
            let help = "give the path of a model file (`model.safetensors` among the results of a run), or { variant = \"NAME\" } for an earlier variant of this experiment";
            let refused =
                |error: String| variant.fault(at, format!("{}: {error}; {help}", path.display()));
            let map = Mapped::open(path).map_err(|error| refused(error.to_string()))?;
            let file = ModelFile::open(Arc::new(map));
            let file = file.map_err(|error| refused(error.to_string()))?;
            let teacher = Teacher::of_file(&file).map_err(|error| refused(error.to_string()))?;
            let waits = false;
            return Ok(Some(Self { teacher, waits }));
        }
        let Some(by) = &variant.taught_by else {
            return Err(variant.fault(
                at,
                "the results of the teacher's variant are not at hand; run the whole experiment from its file",
            ));
        };
        let fault = |error: String| {
            let message = format!("variant {:?} has no such model: {error}", by.name);
            variant.fault(at, message)
        };
        let model = Model::new(&by.model, data.input(), data.target());
        let model = Arc::new(model.map_err(|error| fault(error.to_string()))?);
        let mut stream = Stream::at(Purpose::ModelInit, by.seed, RoundId(0), ClientId(0));
        let parameters = model.init(&mut stream);
        let teacher = Teacher::new(&model, parameters.values());
        let teacher = teacher.map_err(|error| fault(error.to_string()))?;
        Ok(Some(Self {
            teacher,
            waits: true,
        }))
    }
}

impl Prepared {
    /// Loads the data, builds the model, and checks that everything goes together.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Data`] at the key at fault.
    pub fn new(variant: &Variant, cache: &mut DataCache) -> Result<Self, Error> {
        let data = cache.load(variant)?;
        let mut model = Model::new(&variant.model, data.input(), data.target())
            .map_err(|error| variant.fault(&model_key(&error), error.to_string()))?;
        let teacher = Teaches::of(variant, &data)?;
        if let (Some(table), Some(teacher)) = (&variant.local.distillation, &teacher) {
            model = model
                .with_teacher(teacher.teacher.clone(), table.options())
                .map_err(|error| variant.fault(&distillation_key(&error), error.to_string()))?;
        }
        if variant.local.plan().precision == Precision::QatInt8 {
            let options = variant.local.qat.as_ref().map(QatTable::options);
            model = model
                .with_ranges(options.unwrap_or_default())
                .map_err(|error| variant.fault("local.precision", error.to_string()))?;
        }
        let clients = data.clients();
        if let Some((key, message)) = variant.selection.refusal(clients) {
            return Err(variant.fault(key, message));
        }
        let refused = |error: PrivacyError| variant.fault(privacy_key(&error), error.to_string());
        let privacy = variant.privacy.as_ref().map(PrivacyTable::config);
        let prepared = Self {
            variant: variant.clone(),
            data,
            model: Arc::new(model),
            waits: teacher.is_some_and(|teacher| teacher.waits),
            privacy: privacy.transpose().map_err(refused)?,
        };
        prepared.check_examples()?;
        prepared.ring_plan()?;
        let privacy = prepared.privacy_plan()?;
        prepared.secagg_plan(privacy.as_ref())?;
        Ok(prepared)
    }

    /// Whether the gradients of single examples can be had, where they are to be protected.
    fn check_examples(&self) -> Result<(), Error> {
        if !matches!(self.privacy, Some(Privacy::Example(_))) {
            return Ok(());
        }
        if self.variant.local.plan().precision != Precision::F32 {
            return Err(self.variant.fault(
                "local.precision",
                "privacy.kind = \"example\" trains in \"f32\" alone: the ranges that \"qat-int8\" observes would be released without noise; choose \"f32\", or privacy.kind = \"central\"",
            ));
        }
        if self.variant.local.plan().order != ExampleOrder::Shuffled {
            return Err(self.variant.fault(
                "local.order",
                "privacy.kind = \"example\" draws every batch at random, so that its examples have no order; remove local.order",
            ));
        }
        if let Some(table) = &self.variant.local.distillation {
            let key = match (table.features.is_empty(), &table.relation) {
                (false, _) => Some("features"),
                (true, Some(_)) => Some("relation"),
                (true, None) => None,
            };
            if let Some(key) = key {
                return Err(self.variant.fault(
                    &format!("local.distillation.{key}"),
                    "privacy.kind = \"example\" learns the teacher's response alone: a relation is the whole batch's, so that no example has a gradient of it, and projections of features are not clipped example by example; remove features and relation, or choose privacy.kind = \"central\"",
                ));
            }
        }
        if !self.model.has_single_examples() {
            return Err(self.variant.fault(
                "model.kind",
                "privacy.kind = \"example\" needs gradients of single examples, and batch normalisation has none; choose a model with group normalisation, such as \"resnet8-gn\"",
            ));
        }
        Ok(())
    }

    /// The ring in which updates are added, where clients' own noise needs no other.
    ///
    /// # Errors
    /// [`Error::Config`] at the key at fault when there is none.
    pub fn ring_plan(&self) -> Result<RingPlan, Error> {
        let config = self.simulation(&RunOptions::default());
        let examples = |client| self.data.train_len(client);
        match fl_sim::aggregation::forecast(&config, self.data.clients(), &examples) {
            Ok(ring) => Ok(ring),
            Err(SimError::Aggregation(error)) => {
                Err(self.variant.fault(error.key(), error.to_string()))
            }
            Err(SimError::Ring(error)) => {
                let key = match error {
                    RingError::TooFewBits { .. } => "aggregation.bits",
                    RingError::Weights(_) => "strategy.weighting",
                    _ => "aggregation.range",
                };
                Err(self.variant.fault(key, error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The privacy plan before the first round; none without privacy.
    ///
    /// # Errors
    /// [`Error::Config`] at the key at fault when there is no such privacy.
    pub fn privacy_plan(&self) -> Result<Option<PrivacyPlan>, Error> {
        let config = self.simulation(&RunOptions::default());
        let clients = self.data.clients();
        let examples = |client| self.data.train_len(client);
        match fl_sim::privacy::forecast(&config, clients, &examples, self.model.layout()) {
            Ok(plan) => Ok(plan),
            Err(SimError::Privacy(error)) => {
                let key = privacy_key(&error);
                Err(self.variant.fault(key, error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The plan of secure aggregation before the first round; none without it.
    ///
    /// # Errors
    /// [`Error::Config`] at the key at fault when there is none.
    pub fn secagg_plan(&self, privacy: Option<&PrivacyPlan>) -> Result<Option<SecAggPlan>, Error> {
        let config = self.simulation(&RunOptions::default());
        let clients = self.data.clients();
        let examples = |client| self.data.train_len(client);
        let layout = self.model.layout();
        match fl_sim::secagg::forecast(&config, privacy, clients, &examples, layout) {
            Ok(plan) => Ok(plan),
            Err(SimError::SecAgg(error)) => {
                let key = secagg_key(&error);
                Err(self.variant.fault(key, error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the variant can be run: its teacher, where there is one, is at hand.
    ///
    /// # Errors
    /// [`Error::Config`] at the teacher that is yet to be trained.
    pub fn ready(&self) -> Result<(), Error> {
        match &self.variant.taught_by {
            Some(by) if self.waits => Err(self.variant.fault(
                "local.distillation.teacher",
                format!(
                    "variant {:?} has not been run to its end with this configuration, and its final model is the teacher; run it first, with --variant {}, or leave --variant out",
                    by.name, by.name
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What is left of a model of this run when its lessons are over, without the projections of
    /// a distillation; none where nothing was taught.
    ///
    /// # Errors
    /// [`Error::Config`] when the parameters are another model's.
    pub fn student(&self, parameters: &Parameters) -> Result<Option<(Model, Parameters)>, Error> {
        if self.model.teacher().is_none() {
            return Ok(None);
        }
        let student = self.model.student(parameters);
        let student = student.map_err(|error| self.variant.fault("model", error.to_string()));
        student.map(Some)
    }

    /// SHA-256 of the teacher, hexadecimal; none without one that is at hand.
    #[must_use]
    pub fn teacher_digest(&self) -> Option<String> {
        let (teacher, _) = self.model.teacher().filter(|_| !self.waits)?;
        Some(
            teacher
                .digest()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// The simulation's configuration.
    #[must_use]
    pub fn simulation(&self, options: &RunOptions) -> SimulationConfig {
        let variant = &self.variant;
        SimulationConfig {
            seed: variant.seed,
            rounds: variant.rounds,
            selection: variant.selection.config(self.data.clients()),
            local: variant.local.plan(),
            strategy: variant.strategy.clone(),
            fleet: variant.fleet.config(),
            devices: variant.devices(),
            schedule: variant.schedule.config(),
            telemetry: variant.telemetry.config(),
            evaluation: variant.evaluation.config(),
            threads: options.threads,
            checkpoint: options.checkpoint.clone(),
            privacy: self.privacy.clone(),
            aggregation: variant
                .aggregation
                .config(variant.secagg.as_ref().and_then(SecAggTable::robust)),
            secagg: variant.secagg.as_ref().and_then(SecAggTable::config),
            pruning: variant.pruning.as_ref().map(PruningTable::config),
            faults: variant.faults.as_ref().map(FaultsTable::config),
            stop_at_accuracy: variant.stop_at_accuracy,
        }
    }

    /// Plays the rollout of the models that the run left; nothing without one.
    ///
    /// # Errors
    /// [`Error::Simulation`] when a model cannot be rolled out, [`Error::Config`] when fewer than two are left.
    pub fn rollout(&self, files: &[ServedFile]) -> Result<Vec<RolloutRow>, Error> {
        let Some(table) = &self.variant.rollout else {
            return Ok(Vec::new());
        };
        let files = table.choose(files)?;
        if files.len() < 2 {
            return Err(self.variant.fault(
                "rollout.versions",
                "fewer than two different int8 models are left of the run: every evaluation gave the same file, or none that can be served; train for longer, or run without --resume",
            ));
        }
        let seed = self.variant.seed;
        let depth = usize::try_from(table.patches_from).unwrap_or(usize::MAX);
        let registry = Registry::new(depth, table.file_bytes);
        let (registry, metric) =
            rollout::prepare(registry, files, &self.data, table.clients, seed)?;
        let plan = table.plan();
        let days = rollout::play(&plan, seed, registry, &metric)?;
        Ok(RolloutRow::of(&plan, &days))
    }

    /// What is recorded before the first round.
    #[must_use]
    pub fn facts(&self) -> VariantFacts {
        VariantFacts {
            key: self.variant.key(),
            seed: self.variant.seed.0,
            parameters: self.model.student_parameters() as u64,
            teacher: self.teacher_digest(),
            dataset: self.dataset_facts(),
            partition: self.partition_sample(),
        }
    }

    fn dataset_facts(&self) -> DatasetFacts {
        DatasetFacts {
            name: self.data.name().to_owned(),
            clients: self.data.clients(),
            classes: match self.data.target() {
                fl_core::TargetSpec::Class { classes }
                | fl_core::TargetSpec::Sequence { classes, .. } => Some(classes as u64),
                fl_core::TargetSpec::Real { .. } => None,
            },
            digest: self
                .data
                .digest()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }

    /// The classes of up to [`PICTURED_CLIENTS`] clients, evenly spread over the population.
    fn partition_sample(&self) -> Vec<PartitionRow> {
        let clients = self.data.clients();
        let sampled = clients.min(PICTURED_CLIENTS);
        let mut rows = Vec::new();
        for index in 0..sampled {
            let client = index * clients / sampled;
            let Some(counts) = self.data.label_counts(ClientId(client)) else {
                return Vec::new();
            };
            for (class, examples) in counts.into_iter().enumerate() {
                let named = self.data.class_names().and_then(|names| names.get(class));
                rows.push(PartitionRow {
                    client,
                    class: class as u64,
                    class_name: named.cloned().unwrap_or_else(|| class.to_string()),
                    examples,
                });
            }
        }
        rows
    }
}

impl Variant {
    /// What decides the variant's result.
    #[must_use]
    pub fn key(&self) -> VariantKey {
        VariantKey {
            name: self.name.clone(),
            config: self.config.clone(),
        }
    }
}

/// The key that causes an error of the model.
fn model_key(error: &EdgeError) -> String {
    match error {
        EdgeError::Layer { index, .. } => format!("model.layer.{}", index.saturating_sub(1)),
        EdgeError::Loss { .. } => "model.loss".to_owned(),
        EdgeError::NoLayers
        | EdgeError::NoParameters
        | EdgeError::Output { .. }
        | EdgeError::OutputSequence { .. } => "model.layer".to_owned(),
        _ => "model.kind".to_owned(),
    }
}
