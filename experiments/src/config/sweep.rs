//! `[sweep]`: many cells from one file.
//!
//! The table names axes: `grid` (every combination), `zip` (keys that move together), `random`
//! (drawn settings), `seeds`, and the file's `[[variant]]` tables. Their product, less what
//! `condition` leaves out, are the cells. Each is read as a file of its own would be: all faults of
//! all cells are reported at once, each once, at the axis or the table that causes it.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::{decode, unknown_key};
use super::diagnostic::{ConfigErrors, Diagnostic, Diagnostics};
use super::node::{Node, Table, Value};
use super::{PlotTable, Variant, merge, plot, read_overrides, read_source, read_variant};
use crate::error::Error;
use crate::sweep::CellId;

use condition::Condition;
use dimension::Dimension;
use expand::Combination;

mod condition;
mod dimension;
mod expand;
mod random;
mod value;

/// Most combinations of a sweep: more would take longer to plan than anybody waits.
const MOST: usize = 100_000;

/// The keys of `[sweep]`, and what they say.
pub(crate) const KEYS: [(&str, &str); 6] = [
    (
        "seeds",
        "Seeds of everything random, `[1, 2, 3]`, or how many: `3` begins at the experiment's `seed`.",
    ),
    (
        "grid",
        "A list of values for each dotted key; every combination is a cell. A value may also be a table \
         `{ name = \"...\", set = { \"dotted.key\" = value }, remove = [\"privacy\"] }`, and the list a range \
         `{ log = [0.001, 1.0], points = 4 }`, `{ linear = [0.0, 1.0], points = 5 }` or \
         `{ integer = [1, 10], step = 3 }`. `\"privacy.epsilon\" = [1.0, inf]`: infinity leaves `[privacy]` out.",
    ),
    (
        "zip",
        "`[[sweep.zip]]`: lists of one length for keys that move together.",
    ),
    (
        "random",
        "`samples` settings, drawn from `seed` (1 by default), with `digits` (4 by default) that count: for \
         each dotted key `{ uniform = [a, b] }`, `{ log = [a, b] }`, `{ integer = [a, b] }`, \
         `{ log_integer = [a, b] }` or `{ choice = [...] }`.",
    ),
    (
        "condition",
        "`[[sweep.condition]]`: of the cells for which the axes are as `when` says (all without it), `only` \
         keeps those with these values, `except` leaves them out, and `without` leaves keys out of them.",
    ),
    ("halving", "Successive halving: see below."),
];

/// Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): all settings train for `first`
/// rounds, the best share goes on for `factor` times as many, and so on to the end.
///
/// Settings are compared by the mean over their seeds at the last evaluation by then; of equals the
/// smaller id goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalvingTable {
    /// Rounds before the first settings are dropped, at least 1.
    pub first: u64,
    /// One in so many goes on, for so many times the rounds; at least 2.
    #[serde(default = "three")]
    pub factor: u64,
    /// What is compared: "accuracy" (higher is better) or "loss", on the test set where there is one.
    #[serde(default)]
    pub metric: HalvingMetric,
}

/// What successive halving compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HalvingMetric {
    /// Higher is better.
    #[default]
    Accuracy,
    /// Lower is better.
    Loss,
}

fn three() -> u64 {
    3
}

impl HalvingTable {
    fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, "sweep.halving", errors)?;
        let check = Check::new(node, "sweep.halving", errors);
        let before = errors.len();
        check.demand(
            "first",
            table.first >= 1,
            &table.first,
            "a whole number of at least 1",
        );
        check.demand(
            "factor",
            table.factor >= 2,
            &table.factor,
            "a whole number of at least 2",
        );
        (errors.len() == before).then_some(table)
    }
}

/// An experiment with its cells.
#[derive(Clone, Debug)]
pub struct SweepExperiment {
    /// The experiment's name; also the name of its results folder.
    pub name: String,
    /// The dotted keys that the cells differ in, or `variant`; without the seed.
    pub axes: Vec<String>,
    /// At least one, in the order of the axes: the first changes slowest, seeds fastest.
    pub cells: Vec<SweepCell>,
    /// Combinations that are the same run as an earlier one and are done with it.
    pub merged: usize,
    /// Successive halving, where asked for.
    pub halving: Option<HalvingTable>,
    /// The figures that are drawn of all cells together; none without `[[plot]]` tables.
    pub plots: Vec<PlotTable>,
}

/// One cell: a run with its place on the axes.
#[derive(Clone, Debug)]
pub struct SweepCell {
    /// Hash of the resolved configuration without its name. Also the variant's name.
    pub id: CellId,
    /// The value on each axis, as it was written; none where the key does not matter.
    pub values: toml::Table,
    /// The run.
    pub variant: Variant,
}

impl SweepCell {
    /// Its values and seed in a line.
    #[must_use]
    pub fn label(&self) -> String {
        let mut parts: Vec<String> = self
            .values
            .iter()
            .map(|(key, value)| format!("{key}={}", value::shown(value)))
            .collect();
        parts.push(format!("seed={}", self.variant.seed.0));
        parts.join(", ")
    }

    /// The place of its settings among those of a sweep, whatever the seed: cells of equal settings
    /// differ in the seed alone.
    #[must_use]
    pub fn settings(&self) -> String {
        self.values.to_string()
    }
}

impl SweepExperiment {
    /// Reads a file with a `[sweep]` and lays the `--set` arguments over it. Arguments that set a key
    /// of an axis are refused; `--set sweep.seeds=5` changes the sweep itself.
    ///
    /// # Errors
    /// [`Error::Config`] with all faults of the file and of all cells, [`Error::NoExperiment`] or
    /// [`Error::NotText`].
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, Error> {
        let text = super::text_of(path)?;
        Self::from_text(&path.display().to_string(), &text, sets)?.at(path)
    }

    /// The cells of a file that is read as an experiment, too, if it has a `[sweep]`: arguments may
    /// set a key of an axis, which changes no cell.
    ///
    /// # Errors
    /// As of [`from_file`](Self::from_file).
    pub(crate) fn beside_experiment(path: &Path, sets: &[String]) -> Result<Option<Self>, Error> {
        let text = super::text_of(path)?;
        let source = path.display().to_string();
        let found = read_source(&source, &text, sets, |tree, sets, errors| {
            match tree.at("sweep") {
                Some(_) => read(tree, sets, OnAxis::Ignore, errors).map(Some),
                None => Some(None),
            }
        })?;
        found.map(|found| found.at(path)).transpose()
    }

    /// With paths as they are from here, and recordings read.
    fn at(mut self, path: &Path) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut recordings = super::recording::Files::default();
        for cell in &mut self.cells {
            cell.variant.move_paths(folder);
            cell.variant.read_recordings(&mut recordings)?;
            // Paths count as they are found from here.
            cell.name_itself();
        }
        Ok(self)
    }

    /// Reads a text; `source` is its name in error messages.
    ///
    /// # Errors
    /// All faults of the text and of all cells.
    pub fn from_text(source: &str, text: &str, sets: &[String]) -> Result<Self, ConfigErrors> {
        read_source(source, text, sets, |tree, sets, errors| {
            read(tree, sets, OnAxis::Refuse, errors)
        })
    }
}

impl SweepCell {
    /// Gives the run its id for a name, so that all that it leaves is a function of its settings.
    fn name_itself(&mut self) {
        self.id = CellId::of(&self.variant.config);
        self.variant.name = self.id.to_string();
        let name = toml::Value::String(self.id.to_string());
        self.variant.config.insert("name".to_owned(), name);
    }
}

/// What an argument that sets a key of an axis is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnAxis {
    Refuse,
    Ignore,
}

fn read(
    tree: Node,
    sets: &[Node],
    on_axis: OnAxis,
    errors: &Diagnostics,
) -> Option<SweepExperiment> {
    let mut base = tree;
    let mut others: Vec<&Node> = Vec::new();
    for set in sets {
        let of_sweep = set.table().is_some_and(|set| set.get("sweep").is_some());
        if of_sweep {
            merge::overlay(&mut base, set);
        } else {
            others.push(set);
        }
    }
    let base_place = base.place.clone();
    let table = base.table_mut()?;
    let variants = table.remove("variant");
    let figures = table.remove("plot");
    let Some((_, sweep)) = table.remove("sweep") else {
        errors.add(Diagnostic::new(
            Some(base_place),
            "sweep",
            "there is no [sweep] in it; add one, for example [sweep] with seeds = [1, 2, 3], or run the file with `fledgling run`".to_owned(),
        ));
        return None;
    };
    let variants = match &variants {
        Some((_, node)) => read_overrides(node, errors)?,
        None => Vec::new(),
    };
    let first_seed = match base.at("seed").map(|node| &node.value) {
        Some(Value::Integer(seed)) => *seed,
        _ => 1,
    };
    let parsed = SweepTable::read(&sweep, variants, first_seed, errors)?;
    if on_axis == OnAxis::Refuse {
        parsed.refuse_sets(&others, errors)?;
    }
    let combinations = expand::combinations(&parsed, &sweep, errors)?;
    let total = combinations.len();
    let mut read: Vec<(Combination, Variant)> = Vec::new();
    let mut whole = true;
    for combination in combinations {
        let mut tree = base.clone();
        combination.apply(&parsed, &mut tree, &others);
        errors.within_cell(&combination.label(&parsed));
        match read_variant(tree, errors) {
            Some(variant) => read.push((combination, variant)),
            None => whole = false,
        }
    }
    errors.forget_variant_of_what_all_share(total);
    errors.within_variant(None);
    let plots = match &figures {
        Some((_, node)) => {
            let known: Vec<&toml::Table> = read.iter().map(|(_, one)| &one.config).collect();
            let known = whole.then_some(known.as_slice());
            plot::read(node, known, &parsed.axes(), errors)
        }
        None => Vec::new(),
    };
    if !whole || errors.len() > 0 {
        return None;
    }
    for (_, variant) in &read {
        refuse_teacher(variant, errors);
    }
    let name = read.first()?.1.config.get("name")?.as_str()?.to_owned();
    let cells = merge_equal(&parsed, read, &sweep, errors);
    Some(SweepExperiment {
        name,
        axes: parsed.axes(),
        merged: total - cells.len(),
        cells,
        halving: parsed.halving,
        plots,
    })
}

/// Cells run apart, so that no cell can wait for another's model.
fn refuse_teacher(variant: &Variant, errors: &Diagnostics) {
    use super::distillation::TeacherSource;
    let teacher = variant
        .local
        .distillation
        .as_ref()
        .map(|table| &table.teacher);
    if let Some(TeacherSource::Variant(_)) = teacher {
        let message = "the cells of a sweep run apart, so that none can wait for another's model; give the path of a model file, such as results/NAME/VARIANT/model.safetensors of an earlier run";
        for fault in variant
            .located("local.distillation.teacher", message.to_owned())
            .0
        {
            errors.add(fault);
        }
    }
}

/// Combinations that are one run (of a key that means nothing beside the others) become one cell,
/// which has no value for the keys in which they differ.
fn merge_equal(
    table: &SweepTable,
    read: Vec<(Combination, Variant)>,
    node: &Node,
    errors: &Diagnostics,
) -> Vec<SweepCell> {
    let mut cells: Vec<SweepCell> = Vec::new();
    let mut places: BTreeMap<CellId, usize> = BTreeMap::new();
    for (combination, variant) in read {
        let mut cell = SweepCell {
            id: CellId::of(&variant.config),
            values: combination.values(table),
            variant,
        };
        cell.name_itself();
        match places.get(&cell.id).and_then(|&place| cells.get_mut(place)) {
            Some(first) if first.variant.config != cell.variant.config => {
                errors.add(Diagnostic::new(
                    Some(node.place.clone()),
                    "sweep",
                    format!(
                        "two cells have the id {} by chance: {} and {}; change a value of one of them, such as its seed",
                        cell.id,
                        first.label(),
                        cell.label()
                    ),
                ));
            }
            Some(first) => {
                first
                    .values
                    .retain(|key, value| cell.values.get(key) == Some(value));
            }
            None => {
                places.insert(cell.id.clone(), cells.len());
                cells.push(cell);
            }
        }
    }
    cells
}

/// `[sweep]`, read.
struct SweepTable {
    /// The axes, in order; seeds last.
    dimensions: Vec<Dimension>,
    conditions: Vec<Condition>,
    halving: Option<HalvingTable>,
}

impl SweepTable {
    fn read(
        node: &Node,
        variants: Vec<(String, Node)>,
        first_seed: i64,
        errors: &Diagnostics,
    ) -> Option<Self> {
        let Some(table) = node.table() else {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                "sweep",
                format!("found {}, expected a table", node.describe()),
            ));
            return None;
        };
        let before = errors.len();
        for (key, _) in &table.entries {
            if !KEYS.iter().any(|(known, _)| *known == key.name) {
                unknown_key(key, "sweep", KEYS.map(|(known, _)| known), errors);
            }
        }
        let mut dimensions = Vec::new();
        dimensions.extend(Dimension::of_variants(variants));
        if let Some(grid) = table.get("grid") {
            dimensions.extend(dimension::grid(grid, errors));
        }
        for zip in tables_of(table, "zip", errors) {
            dimensions.extend(dimension::zip(zip, errors));
        }
        if let Some(node) = table.get("random") {
            dimensions.extend(random::read(node, errors));
        }
        dimension::refuse_twice(&dimensions, errors);
        dimensions.push(dimension::seeds(table.get("seeds"), first_seed, errors)?);
        let conditions = tables_of(table, "condition", errors)
            .into_iter()
            .filter_map(|node| Condition::read(node, &dimensions, errors))
            .collect();
        let halving = match table.get("halving") {
            Some(node) => HalvingTable::read(node, errors).map(Some),
            None => Some(None),
        };
        (errors.len() == before).then_some(Self {
            dimensions,
            conditions,
            halving: halving?,
        })
    }

    /// The keys of the axes, without the seed.
    fn axes(&self) -> Vec<String> {
        let keys = self.dimensions.iter().flat_map(|it| &it.keys);
        keys.map(|key| key.name.clone())
            .filter(|name| name != dimension::SEED)
            .collect()
    }

    /// A key cannot both be an axis and be set from the prompt.
    fn refuse_sets(&self, sets: &[&Node], errors: &Diagnostics) -> Option<()> {
        let before = errors.len();
        for set in sets {
            for (path, key, _) in value::leaves(set, &|_| false) {
                let within = |axis: &str| {
                    path == axis
                        || path
                            .strip_prefix(axis)
                            .is_some_and(|rest| rest.starts_with('.'))
                };
                let named = self.axes().into_iter().find(|axis| within(axis));
                let seeded = self
                    .dimensions
                    .last()
                    .is_some_and(|it| it.choices.len() > 1);
                let (axis, change) = match named {
                    Some(axis) => {
                        let change = format!("--set 'sweep.grid.{axis}=[...]'");
                        (axis, change)
                    }
                    None if path == dimension::SEED && seeded => {
                        (path.clone(), "--set 'sweep.seeds=[...]'".to_owned())
                    }
                    None => continue,
                };
                errors.add(Diagnostic::new(
                    Some(key.place.clone()),
                    path,
                    format!("`{axis}` is an axis of the sweep, so that this would change nothing; change the axis in the file or with {change}"),
                ));
            }
        }
        (errors.len() == before).then_some(())
    }
}

/// The keys that a `[sweep]` gives values to, unjudged: for who reads its file as one experiment.
pub(super) fn axes_of(sweep: &Node) -> Vec<String> {
    let zips = match sweep.at("zip").map(|node| &node.value) {
        Some(Value::Array(items)) => items.as_slice(),
        _ => &[],
    };
    let tables = ["grid", "random"].iter().filter_map(|name| sweep.at(name));
    let is_value = |table: &Table| dimension::is_range(table) || random::is_law(table);
    tables
        .chain(zips)
        .flat_map(|node| value::leaves(node, &is_value))
        .map(|(path, ..)| path)
        .collect()
}

/// The tables of `[[sweep.NAME]]`; one may be written with single brackets.
fn tables_of<'a>(table: &'a Table, name: &str, errors: &Diagnostics) -> Vec<&'a Node> {
    let Some(node) = table.get(name) else {
        return Vec::new();
    };
    match &node.value {
        Value::Array(items) => items.iter().collect(),
        Value::Table(_) => vec![node],
        _ => {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                format!("sweep.{name}"),
                format!(
                    "found {}, expected [[sweep.{name}]] tables with double brackets",
                    node.describe()
                ),
            ));
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
