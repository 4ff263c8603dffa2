//! One TOML file, read into one [`Experiment`] in which nothing can be invalid any more.
//!
//! Reading has two steps. The text becomes a tree that knows where each key and value was written;
//! a variant's overrides and `--set` arguments are laid over it, each keeping its own place. Then
//! every table is read by its own module into its own struct, and all faults of all tables are
//! reported at once, each with file, line, column, key, what was found, what was expected, and
//! what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fl_core::Seed;
use fl_core::strategy::StrategyConfig;
use fl_datasets::{DatasetConfig, DatasetError};
use fl_edge::ModelDef;
use fl_sim::DeviceConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;

pub use aggregation::AggregationTable;
pub use calibration::CalibrationTable;
pub(crate) use diagnostic::suggest;
pub use diagnostic::{ConfigErrors, Diagnostic};
pub(crate) use distillation::key as distillation_key;
pub use distillation::{DistillationTable, TeacherSource, TeacherVariant};
pub use evaluation::EvaluationTable;
pub use faults::FaultsTable;
pub use fleet::FleetTable;
pub use local::LocalTable;
pub use plot::PlotTable;
pub use privacy::PrivacyTable;
pub(crate) use privacy::key as privacy_key;
pub use pruning::PruningTable;
pub use qat::QatTable;
pub use recording::{RecordingTable, Recordings};
pub use rollout::RolloutTable;
pub use schedule::ScheduleTable;
pub use secagg::SecAggTable;
pub(crate) use secagg::key as secagg_key;
pub use selection::Selection;
pub use span::Span;
pub use sweep::{HalvingMetric, HalvingTable, SweepCell, SweepExperiment};
pub use telemetry::TelemetryTable;

use check::Check;
pub(crate) use de::{Decoder, Fault};
use de::{decode, unknown_key};
use diagnostic::Diagnostics;
use node::{Node, Place, Source, Table, Value};

pub mod aggregation;
pub mod calibration;
mod check;
mod dataset;
mod de;
mod diagnostic;
pub mod distillation;
pub mod evaluation;
pub mod faults;
pub mod fleet;
pub mod local;
mod merge;
mod model;
mod node;
pub mod plot;
pub mod privacy;
pub mod pruning;
pub mod qat;
pub mod recording;
mod resolved;
pub mod rollout;
pub mod schedule;
pub mod schema;
pub mod secagg;
pub mod selection;
pub mod span;
mod strategy;
pub mod sweep;
pub mod telemetry;

/// An experiment: one or more variants of one run.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The experiment's name; also the name of its results folder. Letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The file that it was read from, where there is one.
    pub path: Option<PathBuf>,
    /// At least one; a file without `[[variant]]` tables has one, named as the experiment.
    pub variants: Vec<Variant>,
    /// Whether the file has a `[sweep]`, too, of which nothing is in the variants: its cells are a
    /// [`SweepExperiment`].
    pub swept: bool,
    /// The figures that are drawn in place of the standard ones; none without `[[plot]]` tables.
    pub plots: Vec<PlotTable>,
}

/// One fully resolved run.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Unique within the experiment; letters, digits, `-`, `_`, `.`: fit for a folder's name.
    pub name: String,
    /// Seed of everything random.
    pub seed: Seed,
    /// Number of rounds, at least 1.
    pub rounds: u64,
    /// Ends the run at the first evaluation with at least this test accuracy.
    pub stop_at_accuracy: Option<f64>,
    /// The data and how they fall apart into clients.
    pub dataset: DatasetConfig,
    /// The model.
    pub model: ModelDef,
    /// What a client does in a round.
    pub local: LocalTable,
    /// The federated algorithm.
    pub strategy: StrategyConfig,
    /// Who takes part in a round.
    pub selection: Selection,
    /// How unreliable the clients are, and what devices they have.
    pub fleet: FleetTable,
    /// When rounds begin and end.
    pub schedule: ScheduleTable,
    /// What is told of devices.
    pub telemetry: TelemetryTable,
    /// How the model is measured.
    pub evaluation: EvaluationTable,
    /// Differential privacy; none without.
    pub privacy: Option<PrivacyTable>,
    /// The integers in which updates are added.
    pub aggregation: AggregationTable,
    /// Secure aggregation; none without.
    pub secagg: Option<SecAggTable>,
    /// Weights that are pruned on the way; none without.
    pub pruning: Option<PruningTable>,
    /// Faults that are done to the run on purpose; none without.
    pub faults: Option<FaultsTable>,
    /// The run's models reach a fleet; none without.
    pub rollout: Option<RolloutTable>,
    /// Everything that decides the result, as TOML with all defaults written out and without
    /// `[[variant]]` tables. Reading it again with [`Experiment::from_table`] gives this variant.
    pub config: toml::Table,
    /// Where the teacher's model file lies, where there is a teacher and that is known: the
    /// final model of another variant has to be made first.
    pub teacher: Option<PathBuf>,
    /// Recordings of real devices, where the fleet has them.
    pub recordings: Recordings,
    /// The variant whose final model teaches.
    pub taught_by: Option<Arc<Variant>>,
    tree: Node,
}

/// The tables of an experiment.
const TABLES: &[&str] = &[
    "dataset",
    "model",
    "local",
    "strategy",
    "selection",
    "fleet",
    "schedule",
    "telemetry",
    "evaluation",
    "privacy",
    "aggregation",
    "secagg",
    "pruning",
    "faults",
    "rollout",
];

/// The keys at the top of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    name: String,
    #[serde(default = "one")]
    seed: u64,
    rounds: u64,
    stop_at_accuracy: Option<f64>,
    #[serde(rename = "dataset")]
    _dataset: Option<IgnoredAny>,
    #[serde(rename = "model")]
    _model: Option<IgnoredAny>,
    #[serde(rename = "local")]
    _local: Option<IgnoredAny>,
    #[serde(rename = "strategy")]
    _strategy: Option<IgnoredAny>,
    #[serde(rename = "selection")]
    _selection: Option<IgnoredAny>,
    #[serde(rename = "fleet")]
    _fleet: Option<IgnoredAny>,
    #[serde(rename = "schedule")]
    _schedule: Option<IgnoredAny>,
    #[serde(rename = "telemetry")]
    _telemetry: Option<IgnoredAny>,
    #[serde(rename = "evaluation")]
    _evaluation: Option<IgnoredAny>,
    #[serde(rename = "privacy")]
    _privacy: Option<IgnoredAny>,
    #[serde(rename = "aggregation")]
    _aggregation: Option<IgnoredAny>,
    #[serde(rename = "secagg")]
    _secagg: Option<IgnoredAny>,
    #[serde(rename = "pruning")]
    _pruning: Option<IgnoredAny>,
    #[serde(rename = "faults")]
    _faults: Option<IgnoredAny>,
    #[serde(rename = "rollout")]
    _rollout: Option<IgnoredAny>,
    #[serde(rename = "variant")]
    _variant: Option<IgnoredAny>,
    /// Taken out before; here for the nearest name of a misspelt key.
    #[serde(rename = "plot")]
    _plot: Option<IgnoredAny>,
}

/// Tables of the file that `--set` cannot reach, and what to do instead.
const NOT_SET: &[(&str, &str)] = &[
    (
        "variant",
        "variants cannot be set one by one; use --variant NAME to run one of them, and --set with the key itself",
    ),
    (
        "sweep",
        "only `fledgling sweep` runs the cells of a sweep; give this to it, or set the key itself",
    ),
    (
        "plot",
        "figures cannot be set; change the file, or draw others with `fledgling plot DIR --kind KIND`",
    ),
];

fn one() -> u64 {
    1
}

impl Experiment {
    /// Reads a file and lays the `--set` arguments (`key.path=value`) over every variant.
    ///
    /// # Errors
    /// [`Error::Config`] with all faults of the file, [`Error::NoExperiment`] or [`Error::NotText`].
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, Error> {
        let text = text_of(path)?;
        let mut experiment = Self::from_text(&path.display().to_string(), &text, sets)?;
        experiment.path = Some(path.to_owned());
        let folder = path.parent().unwrap_or(Path::new(""));
        for variant in &mut experiment.variants {
            variant.move_paths(folder);
        }
        experiment.read_recordings()?;
        Ok(experiment)
    }

    /// Reads a text; `source` is its name in error messages.
    ///
    /// # Errors
    /// All faults of the text.
    pub fn from_text(source: &str, text: &str, sets: &[String]) -> Result<Self, ConfigErrors> {
        read_source(source, text, sets, read)
    }

    /// Reads one resolved configuration, as a manifest keeps it.
    ///
    /// # Errors
    /// All faults of the table; lines count in the table written as text.
    pub fn from_table(source: &str, table: &toml::Table) -> Result<Variant, ConfigErrors> {
        let mut experiment = Self::from_text(source, &table.to_string(), &[])?;
        experiment.read_recordings()?;
        Ok(experiment.variants.remove(0))
    }

    /// Reads the files of recordings, each once.
    fn read_recordings(&mut self) -> Result<(), ConfigErrors> {
        let mut files = recording::Files::default();
        for variant in &mut self.variants {
            variant.read_recordings(&mut files)?;
        }
        Ok(())
    }
}

/// The text of an experiment's file.
fn text_of(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::NoExperiment {
        path: path.to_owned(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|error| Error::NotText {
        path: path.to_owned(),
        byte: error.utf8_error().valid_up_to(),
    })
}

/// Parses a text and the `--set` arguments, and reads what they hold.
fn read_source<T>(
    source: &str,
    text: &str,
    sets: &[String],
    read: impl FnOnce(Node, &[Node], &Diagnostics) -> Option<T>,
) -> Result<T, ConfigErrors> {
    let errors = Diagnostics::default();
    let source = Arc::new(Source {
        name: source.to_owned(),
        text: text.into(),
        is_file: true,
    });
    let tree = node::parse(&source, &errors);
    let overrides: Vec<Node> = sets
        .iter()
        .filter_map(|argument| node::parse_set(argument, &errors))
        .collect();
    if let Some(errors) = errors.finish() {
        return Err(errors);
    }
    let errors = Diagnostics::default();
    let found = read(tree, &overrides, &errors);
    match (found, errors.finish()) {
        (Some(found), None) => Ok(found),
        (_, Some(errors)) => Err(errors),
        (None, None) => Err(ConfigErrors(vec![Diagnostic::new(
            None,
            "",
            format!("{} could not be read", source.name),
        )])),
    }
}

impl Variant {
    /// A fault that shows only with the data or the model at hand, at the key that causes it; where
    /// that key was not given, at the table that should hold it.
    #[must_use]
    pub fn fault(&self, key: &str, message: impl Into<String>) -> Error {
        Error::Config(self.located(key, message.into()))
    }

    /// An error of the data, at the key that causes it.
    pub(crate) fn data_fault(&self, error: &DatasetError) -> Error {
        let (mut key, message) = dataset::explain(error);
        if key == "dataset.path" && self.dataset.path.is_none() {
            // The files of a data set of the catalogue.
            key = "dataset.name".to_owned();
        }
        let located = self.located(&key, message);
        match dataset::is_configuration(error) {
            true => Error::Config(located),
            false => Error::Data(located),
        }
    }

    fn located(&self, key: &str, message: String) -> ConfigErrors {
        let mut node = &self.tree;
        let mut known: Vec<&str> = Vec::new();
        for name in key.split('.') {
            let Some(inner) = node.at(name) else { break };
            known.push(name);
            node = inner;
        }
        let key = if known.is_empty() {
            key.to_owned()
        } else {
            known.join(".")
        };
        ConfigErrors(vec![Diagnostic::new(
            Some(node.place.clone()),
            key,
            message,
        )])
    }

    /// The devices of the fleet, for the simulator; none without.
    #[must_use]
    pub fn devices(&self) -> Option<DeviceConfig> {
        let recordings = self.recordings.clone();
        Some(DeviceConfig {
            traces: recordings.traces,
            capacities: recordings.capacities,
            ..self.fleet.devices()?
        })
    }

    fn read_recordings(&mut self, files: &mut recording::Files) -> Result<(), ConfigErrors> {
        let traces = self.fleet.traced().map(|table| table.traces(files));
        let traces = traces.transpose();
        let traces = traces.map_err(|why| self.located("fleet.availability", why))?;
        let capacities = self.fleet.capacities.as_mut();
        let capacities = capacities.map(|table| table.capacities(files)).transpose();
        let capacities = capacities.map_err(|why| self.located("fleet.capacities", why))?;
        self.recordings = Recordings { traces, capacities };
        if let Some(fleet) = resolved::to_toml(&self.fleet) {
            self.config.insert("fleet".to_owned(), fleet);
        }
        if let Some(teacher) = self.taught_by.as_mut().map(Arc::make_mut) {
            teacher.read_recordings(files)?;
        }
        Ok(())
    }

    /// Paths in an experiment are relative to its file; from here on to the working directory.
    fn move_paths(&mut self, folder: &Path) {
        if let Some(table) = &mut self.local.distillation
            && let TeacherSource::File(path) = &mut table.teacher
            && path.is_relative()
            && !folder.as_os_str().is_empty()
        {
            *path = folder.join(&*path);
            self.teacher = Some(path.clone());
            if let Some(local) = resolved::to_toml(&self.local) {
                self.config.insert("local".to_owned(), local);
            }
        }
        if let Some(recording) = self.fleet.traced() {
            recording.move_path(folder);
        }
        if let Some(recording) = &mut self.fleet.capacities {
            recording.move_path(folder);
        }
        if let Some(teacher) = self.taught_by.as_mut().map(Arc::make_mut) {
            teacher.move_paths(folder);
        }
        let paths = [
            ("path", &mut self.dataset.path),
            ("test_path", &mut self.dataset.test_path),
        ];
        for (key, path) in paths {
            if let Some(path) = path
                && path.is_relative()
                && !folder.as_os_str().is_empty()
            {
                *path = folder.join(&*path);
                let text = path.display().to_string();
                if let Some(toml::Value::Table(dataset)) = self.config.get_mut("dataset") {
                    dataset.insert(key.to_owned(), toml::Value::String(text));
                }
            }
        }
    }
}

fn read(tree: Node, sets: &[Node], errors: &Diagnostics) -> Option<Experiment> {
    let mut base = tree;
    let variants = base.table_mut().and_then(|table| table.remove("variant"));
    let swept = base.table_mut().and_then(|table| table.remove("sweep"));
    let figures = base.table_mut().and_then(|table| table.remove("plot"));
    for set in sets {
        for (name, instead) in NOT_SET {
            if let Some((key, _)) = set.table().and_then(|table| table.entry(name)) {
                errors.add(Diagnostic::new(
                    Some(key.place.clone()),
                    *name,
                    (*instead).to_owned(),
                ));
                return None;
            }
        }
    }
    let variants = match &variants {
        Some((_, node)) => read_overrides(node, errors)?,
        None => Vec::new(),
    };
    let runs: Vec<(Option<String>, Node)> = if variants.is_empty() {
        vec![(None, base)]
    } else {
        variants
            .into_iter()
            .map(|(name, over)| {
                let mut tree = base.clone();
                merge::overlay(&mut tree, &over);
                (Some(name), tree)
            })
            .collect()
    };
    let total = runs.len();
    let read: Vec<Option<Variant>> = runs
        .into_iter()
        .map(|(name, mut tree)| {
            for set in sets {
                merge::overlay(&mut tree, set);
            }
            errors.within_variant(name.as_deref());
            let mut variant = read_variant(tree, errors)?;
            if let Some(name) = name {
                variant.name = name;
            }
            Some(variant)
        })
        .collect();
    errors.forget_variant_of_what_all_share(total);
    errors.within_variant(None);
    let Some(mut variants) = read.into_iter().collect::<Option<Vec<_>>>() else {
        // Their faults are told together with the others.
        if let Some((_, node)) = &figures {
            plot::read(node, None, &[], errors);
        }
        return None;
    };
    link_teachers(&mut variants, errors);
    let name = variants.first()?.config.get("name")?.as_str()?.to_owned();
    let plots = match &figures {
        Some((_, node)) => {
            let known: Vec<&toml::Table> = variants.iter().map(|one| &one.config).collect();
            let axes = swept.as_ref().map(|(_, node)| sweep::axes_of(node));
            plot::read(node, Some(&known), &axes.unwrap_or_default(), errors)
        }
        None => Vec::new(),
    };
    Some(Experiment {
        name,
        path: None,
        variants,
        swept: swept.is_some(),
        plots,
    })
}

/// Finds the variants whose final models teach others.
fn link_teachers(variants: &mut [Variant], errors: &Diagnostics) {
    for index in 0..variants.len() {
        let (before, rest) = variants.split_at_mut(index);
        let Some(variant) = rest.first_mut() else {
            return;
        };
        let distillation = variant.local.distillation.as_mut();
        let Some(TeacherSource::Variant(source)) = distillation.map(|table| &mut table.teacher)
        else {
            continue;
        };
        let name = source.variant.clone();
        // A configuration that was resolved stands by itself: its teacher is found by its results.
        if source.configuration.is_some() {
            continue;
        }
        let Some(teacher) = before.iter().find(|other| other.name == name) else {
            let names: Vec<&str> = before.iter().map(|other| other.name.as_str()).collect();
            let message = match names.as_slice() {
                [] => format!(
                    "{name:?} is no earlier variant, and there is none before this one; put the variant that trains the teacher first, or give the path of a model file"
                ),
                names => format!(
                    "{name:?} is no earlier variant; {}",
                    suggest(&name, names.iter().copied())
                ),
            };
            errors.within_variant((!before.is_empty()).then_some(variant.name.as_str()));
            for fault in variant
                .located("local.distillation.teacher.variant", message)
                .0
            {
                errors.add(fault);
            }
            errors.within_variant(None);
            continue;
        };
        source.configuration = Some(teacher.key().hexadecimal());
        variant.taught_by = Some(Arc::new(teacher.clone()));
        if let Some(local) = resolved::to_toml(&variant.local) {
            variant.config.insert("local".to_owned(), local);
        }
    }
}

/// The names and overrides of the `[[variant]]` tables.
fn read_overrides(node: &Node, errors: &Diagnostics) -> Option<Vec<(String, Node)>> {
    let Value::Array(items) = &node.value else {
        errors.add(Diagnostic::new(
            Some(node.place.clone()),
            "variant",
            format!(
                "found {}, expected [[variant]] tables with double brackets",
                node.describe()
            ),
        ));
        return None;
    };
    let mut variants: Vec<(String, Node)> = Vec::new();
    let before = errors.len();
    for item in items {
        let Value::Table(table) = &item.value else {
            errors.add(Diagnostic::new(
                Some(item.place.clone()),
                "variant",
                format!("found {}, expected a table", item.describe()),
            ));
            continue;
        };
        let mut over = item.clone();
        let name = over.table_mut().and_then(|table| table.remove("name"));
        let Some((_, name)) = name else {
            errors.add(Diagnostic::new(
                Some(item.place.clone()),
                "variant.name",
                "missing; add a name that tells this variant from the others".to_owned(),
            ));
            continue;
        };
        let mut allowed = TABLES.to_vec();
        allowed.extend(["seed", "rounds", "stop_at_accuracy"]);
        for (key, _) in &table.entries {
            if key.name != "name" && !allowed.contains(&key.name.as_str()) {
                unknown_key(key, "variant", allowed.iter().copied(), errors);
            }
        }
        match name.str() {
            Some(text) if is_name(text) => {
                if variants.iter().any(|(other, _)| other == text) {
                    errors.add(Diagnostic::new(
                        Some(name.place.clone()),
                        "variant.name",
                        format!("another variant is named {text:?}; give each its own name"),
                    ));
                }
                variants.push((text.to_owned(), over));
            }
            _ => errors.add(Diagnostic::new(
                Some(name.place.clone()),
                "variant.name",
                format!("found {}, expected {NAME}", name.describe()),
            )),
        }
    }
    (errors.len() == before).then_some(variants)
}

const NAME: &str =
    "a name of 1 to 100 letters, digits, `-`, `_` or `.` that begins with a letter or digit";

/// Whether `text` may name an experiment or a variant, and so a folder.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 100
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}

fn read_variant(tree: Node, errors: &Diagnostics) -> Option<Variant> {
    let top = decode::<Top>(&tree, "", errors);
    if let Some(top) = &top {
        let check = Check::new(&tree, "", errors);
        check.demand("name", is_name(&top.name), &format!("{:?}", top.name), NAME);
        check.demand(
            "rounds",
            top.rounds >= 1,
            &top.rounds,
            "a whole number of at least 1",
        );
        if let Some(accuracy) = top.stop_at_accuracy {
            check.share("stop_at_accuracy", accuracy);
        }
    }
    let empty = Node {
        place: Place {
            source: Arc::clone(&tree.place.source),
            span: 0..0,
        },
        value: Value::Table(Table::default()),
    };
    let root = tree.table()?;
    let table = |name: &str| root.get(name).unwrap_or(&empty);
    let required = |name: &str, example: &str| match root.get(name) {
        Some(node) => Some(node),
        None => {
            errors.add(Diagnostic::new(
                Some(empty.place.clone()),
                name,
                format!("the table [{name}] is missing; add for example {example}"),
            ));
            None
        }
    };
    let dataset = required("dataset", "[dataset] with name = \"digits\"")
        .and_then(|node| dataset::read(node, errors));
    let model = required("model", "[model] with kind = \"logreg\"")
        .and_then(|node| model::read(node, errors));
    let local = required(
        "local",
        "[local] with epochs = 1, batch = 10 and learning_rate = 0.1",
    )
    .and_then(|node| LocalTable::read(node, errors));
    let strategy = match root.get("strategy") {
        Some(node) => strategy::read(node, errors),
        None => strategy::read(
            &Node {
                place: empty.place.clone(),
                value: Value::String("fedavg".to_owned()),
            },
            errors,
        ),
    };
    let selection = required("selection", "[selection] with cohort = 10")
        .and_then(|node| Selection::read(node, errors));
    let fleet = FleetTable::read(table("fleet"), errors);
    let timed = fleet.as_ref().is_none_or(|fleet| fleet.devices.is_some());
    let schedule = ScheduleTable::read(table("schedule"), timed, errors);
    let telemetry = TelemetryTable::read(table("telemetry"), errors);
    let evaluation = EvaluationTable::read(table("evaluation"), errors);
    let privacy = match root.get("privacy") {
        Some(node) => PrivacyTable::read(node, errors),
        None => Some(None),
    };
    let aggregation = AggregationTable::read(table("aggregation"), errors);
    let secagg = match root.get("secagg") {
        Some(node) => SecAggTable::read(node, errors),
        None => Some(None),
    };
    let faults = match root.get("faults") {
        Some(node) => FaultsTable::read(node, errors).map(Some),
        None => Some(None),
    };
    let pruning = match root.get("pruning") {
        Some(node) => PruningTable::read(node, errors).map(Some),
        None => Some(None),
    };
    let rounds = top.as_ref().map_or(u64::MAX, |top| top.rounds);
    let rollout = match root.get("rollout") {
        Some(node) => RolloutTable::read(node, rounds, evaluation.as_ref(), errors).map(Some),
        None => Some(None),
    };

    let top = top?;
    let local = local?;
    let local_teacher = match local.distillation.as_ref().map(|table| &table.teacher) {
        Some(TeacherSource::File(path)) => Some(path.clone()),
        Some(TeacherSource::Variant(_)) | None => None,
    };
    let mut variant = Variant {
        name: top.name.clone(),
        seed: Seed(top.seed),
        rounds: top.rounds,
        stop_at_accuracy: top.stop_at_accuracy,
        dataset: dataset?,
        model: model?,
        local,
        strategy: strategy?,
        selection: selection?,
        fleet: fleet?,
        schedule: schedule?,
        telemetry: telemetry?,
        evaluation: evaluation?,
        privacy: privacy?,
        aggregation: aggregation?,
        secagg: secagg?,
        pruning: pruning?,
        faults: faults?,
        rollout: rollout?,
        config: toml::Table::new(),
        teacher: local_teacher,
        recordings: Recordings::default(),
        taught_by: None,
        tree: tree.clone(),
    };
    let colluding = variant.privacy.as_ref().and_then(PrivacyTable::colluding);
    if let Some(secagg) = &mut variant.secagg {
        secagg.fill(colluding);
    }
    variant.config = resolve(&top.name, &variant)?;
    Some(variant)
}

/// The variant as TOML, with all defaults.
fn resolve(name: &str, variant: &Variant) -> Option<toml::Table> {
    let mut table = toml::Table::new();
    table.insert("name".to_owned(), name.into());
    table.insert("seed".to_owned(), resolved::to_toml(&variant.seed)?);
    table.insert("rounds".to_owned(), resolved::to_toml(&variant.rounds)?);
    if let Some(accuracy) = variant.stop_at_accuracy {
        table.insert("stop_at_accuracy".to_owned(), accuracy.into());
    }
    table.insert("dataset".to_owned(), resolved::to_toml(&variant.dataset)?);
    table.insert("model".to_owned(), resolved::to_toml(&variant.model)?);
    table.insert("local".to_owned(), resolved::to_toml(&variant.local)?);
    table.insert("strategy".to_owned(), strategy::to_toml(&variant.strategy)?);
    table.insert("selection".to_owned(), variant.selection.to_toml()?);
    table.insert("fleet".to_owned(), resolved::to_toml(&variant.fleet)?);
    if !variant.schedule.is_empty() {
        let schedule = resolved::to_toml(&variant.schedule)?;
        table.insert("schedule".to_owned(), schedule);
    }
    if !variant.telemetry.is_empty() {
        let telemetry = resolved::to_toml(&variant.telemetry)?;
        table.insert("telemetry".to_owned(), telemetry);
    }
    table.insert(
        "evaluation".to_owned(),
        resolved::to_toml(&variant.evaluation)?,
    );
    if let Some(privacy) = &variant.privacy {
        table.insert("privacy".to_owned(), resolved::to_toml(privacy)?);
    }
    if !variant.aggregation.is_empty() {
        let aggregation = resolved::to_toml(&variant.aggregation)?;
        table.insert("aggregation".to_owned(), aggregation);
    }
    if let Some(secagg) = &variant.secagg {
        table.insert("secagg".to_owned(), resolved::to_toml(secagg)?);
    }
    if let Some(faults) = &variant.faults {
        table.insert("faults".to_owned(), resolved::to_toml(faults)?);
    }
    if let Some(pruning) = &variant.pruning {
        table.insert("pruning".to_owned(), resolved::to_toml(pruning)?);
    }
    if let Some(rollout) = &variant.rollout {
        table.insert("rollout".to_owned(), resolved::to_toml(rollout)?);
    }
    Some(table)
}

#[cfg(test)]
mod tests;
