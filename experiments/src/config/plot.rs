//! `[[plot]]`: which figures are drawn of an experiment, and how they look.
//!
//! Without such tables every figure is drawn for which there are data. The tables decide no result:
//! they are not part of a variant's configuration, and another figure makes no other run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::{Diagnostic, Diagnostics, suggest};
use super::node::{Node, Value};

mod look;
mod quantity;

pub use look::{Band, Legend, Width};
pub use quantity::{Group, Measure, Quantity};

use quantity::TOP;

/// The lowest and the highest panel, in pixels.
const HEIGHTS: core::ops::RangeInclusive<f64> = 100.0..=2000.0;

/// What a figure shows.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PlotKind {
    /// A measure over rounds, or over what was spent, as a curve for each series: the mean over seeds
    /// and a band around it.
    Curves,
    /// A measure at the end against a key of the configuration or against what was spent, with error
    /// bars over seeds.
    Points,
    /// A measure at the end over two keys of the configuration.
    HeatMap,
    /// Two measures at the end against one another, and who is beaten in neither.
    Pareto,
    /// A measure at the end, a bar for each series.
    Bars,
    /// A measure at the end, a dot for each series and small ones for its runs.
    Dots,
    /// How accuracy falls apart over clients.
    Fairness,
    /// Which classes a sample of the clients holds.
    Partition,
    /// The course of the first rounds.
    Timeline,
    /// All that is drawn without any table.
    Standard,
}

impl PlotKind {
    /// Every kind with its name.
    pub const ALL: [(&'static str, Self); 10] = [
        ("curves", Self::Curves),
        ("points", Self::Points),
        ("heat-map", Self::HeatMap),
        ("pareto", Self::Pareto),
        ("bars", Self::Bars),
        ("dots", Self::Dots),
        ("fairness", Self::Fairness),
        ("partition", Self::Partition),
        ("timeline", Self::Timeline),
        ("standard", Self::Standard),
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind)| *kind == self);
        found.map_or("", |(name, _)| name)
    }

    /// The keys that this kind takes beside those of every kind.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Curves => &[
                "x",
                "y",
                "group",
                "band",
                "log_x",
                "log_y",
                "x_limits",
                "y_limits",
                "legend",
                "smoothing",
                "target",
            ],
            Self::Points => &[
                "x", "y", "group", "band", "log_x", "log_y", "x_limits", "y_limits", "legend",
                "target",
            ],
            Self::HeatMap => &["x", "y", "value", "target", "group"],
            Self::Pareto => &[
                "x", "y", "group", "band", "log_x", "log_y", "x_limits", "y_limits", "legend",
                "target",
            ],
            Self::Bars | Self::Dots => &["y", "group", "band", "log_y", "y_limits", "target"],
            Self::Fairness => &["group"],
            Self::Partition | Self::Timeline | Self::Standard => &[],
        }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlotTable {
    /// What the figure shows.
    pub kind: PlotKind,
    /// Name of its files; the kind, and a number where that is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is across. `curves`: `rounds` (default), `time`, `seconds`, `hours`, `bytes`, `joules` or
    /// `epsilon`. `points`: a key, or a measure; `privacy.epsilon` by default. `heat-map`: a key.
    /// `pareto`: a measure, `bytes` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<Quantity>,
    /// What is upright: a measure, `accuracy` by default; a key in a `heat-map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<Quantity>,
    /// The measure in the cells of a `heat-map`; `accuracy` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Quantity>,
    /// The key, or keys, whose values tell series apart, and heat maps beside one another; by default
    /// all that differ but the seed and what is on an axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// What is drawn around a mean over seeds: `deviation` (default), `interval`, `range` or `none`.
    #[serde(default)]
    pub band: Band,
    /// The test accuracy of measures `...-to-target`, a share; `stop_at_accuracy` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// The title; by default what is drawn. Empty for none, as where a caption says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Width of the figure: `column`, `page` (default) or pixels of 1/96 inch.
    #[serde(default)]
    pub width: Width,
    /// Height of the panel in pixels; by default what fits the width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<f64>,
    /// Whether the horizontal axis is logarithmic; by default where the values ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_x: Option<bool>,
    /// Whether the vertical axis is logarithmic; by default where the values ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_y: Option<bool>,
    /// Ends of the horizontal axis, in the units written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_limits: Option<[f64; 2]>,
    /// Ends of the vertical axis, in the units written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y_limits: Option<[f64; 2]>,
    /// Where series are named: `right`, `below` or `none`; by default right where there is room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legend: Option<Legend>,
    /// Every value becomes the mean of itself and so many before and after it; 0, the default, for
    /// none. The figure says so.
    #[serde(default)]
    pub smoothing: u64,
}

/// The keys of a table whose meaning depends on the kind.
const BY_KIND: [&str; 12] = [
    "x",
    "y",
    "value",
    "group",
    "band",
    "target",
    "log_x",
    "log_y",
    "x_limits",
    "y_limits",
    "legend",
    "smoothing",
];
/// The most evaluations to one side over which a curve is smoothed.
const MOST_SMOOTHING: u64 = 1000;

impl PlotTable {
    /// A figure of this kind with all defaults.
    #[must_use]
    pub fn of(kind: PlotKind) -> Self {
        Self {
            kind,
            name: None,
            x: None,
            y: None,
            value: None,
            group: None,
            band: Band::default(),
            target: None,
            title: None,
            width: Width::default(),
            height: None,
            log_x: None,
            log_y: None,
            x_limits: None,
            y_limits: None,
            legend: None,
            smoothing: 0,
        }
    }

    /// The keys of the configuration that the figure needs, each with the table's key that names it.
    pub(crate) fn needs(&self) -> Vec<(&'static str, &str)> {
        let mut keys = Vec::new();
        // Where a kind takes measures alone, a key is a fault by itself.
        let places = match self.kind {
            PlotKind::HeatMap => [("x", &self.x), ("y", &self.y)].to_vec(),
            PlotKind::Curves | PlotKind::Pareto => Vec::new(),
            _ => vec![("x", &self.x)],
        };
        for (at, quantity) in places {
            if let Some(Quantity::Key(key)) = quantity {
                keys.push((at, key.as_str()));
            }
        }
        let group = self.group.iter().flat_map(|group| &group.0);
        keys.extend(group.map(|key| ("group", key.as_str())));
        keys
    }

    /// Reads and checks one table.
    fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let table = decode::<Self>(node, PATH, errors)?;
        let check = Check::new(node, PATH, errors);
        if let Some(given) = node.table() {
            let known = table.kind.keys();
            for (key, at) in &given.entries {
                if BY_KIND.contains(&key.name.as_str()) && !known.contains(&key.name.as_str()) {
                    let takes = match known {
                        [] => "none of these".to_owned(),
                        known => known.join(", "),
                    };
                    check.fault(
                        &key.name,
                        format!(
                            "kind = \"{}\" takes no `{}` (found {}); remove it (it takes {takes})",
                            table.kind.name(),
                            key.name,
                            at.describe(),
                        ),
                    );
                }
            }
        }
        if let Some(name) = &table.name {
            let expected = super::NAME;
            check.demand("name", super::is_name(name), &format!("{name:?}"), expected);
        }
        if let Some(target) = table.target {
            check.share("target", target);
        }
        if let Some(height) = table.height {
            let expected = "pixels from 100 to 2000";
            check.demand("height", HEIGHTS.contains(&height), &height, expected);
        }
        for (key, limits, log) in [
            ("x_limits", table.x_limits, table.log_x),
            ("y_limits", table.y_limits, table.log_y),
        ] {
            let Some([low, high]) = limits else { continue };
            let found = format!("[{low}, {high}]");
            let ordered = low.is_finite() && high.is_finite() && low < high;
            check.demand(key, ordered, &found, "[LOW, HIGH] with LOW below HIGH");
            if log == Some(true) {
                let expected = "limits above 0, as the axis is logarithmic";
                check.demand(key, low > 0.0, &found, expected);
            }
        }
        let most = "a whole number from 0 to 1000";
        let smoothing = table.smoothing;
        check.demand("smoothing", smoothing <= MOST_SMOOTHING, &smoothing, most);
        table.check_axes(&check);
        Some(table)
    }

    /// Which quantities a kind can have where.
    fn check_axes(&self, check: &Check<'_>) {
        let measure = |key: &str, quantity: &Option<Quantity>| match quantity {
            Some(Quantity::Key(path)) => {
                let names = Measure::ALL.iter().map(|(name, _)| *name);
                let hint = suggest(path, names);
                let found = match path.contains('.') || TOP.contains(&path.as_str()) {
                    true => format!("found the key {path:?}"),
                    false => format!("found {path:?}"),
                };
                check.fault(key, format!("{found}, expected a measure; {hint}"));
                None
            }
            Some(Quantity::Measure(measure)) => Some(*measure),
            None => None,
        };
        let course = |key: &str, found: Option<Measure>, fits: fn(Measure) -> bool| {
            let Some(found) = found.filter(|&found| !fits(found)) else {
                return;
            };
            let fitting = Measure::ALL.iter().filter(|(_, measure)| fits(*measure));
            let names: Vec<&str> = fitting.map(|(name, _)| *name).collect();
            check.fault(
                key,
                format!(
                    "found \"{}\", expected one of {}",
                    found.name(),
                    names.join(", ")
                ),
            );
        };
        match self.kind {
            PlotKind::Curves => {
                course("x", measure("x", &self.x), Measure::is_spent);
                course("y", measure("y", &self.y), Measure::has_course);
            }
            PlotKind::Points | PlotKind::Bars | PlotKind::Dots => {
                measure("y", &self.y);
            }
            PlotKind::Pareto => {
                measure("x", &self.x);
                measure("y", &self.y);
            }
            PlotKind::HeatMap => {
                measure("value", &self.value);
                for (key, quantity) in [("x", &self.x), ("y", &self.y)] {
                    let example = "a key of the configuration, e.g. \"local.learning_rate\"";
                    match quantity {
                        None => check.fault(key, format!("missing; add {example}")),
                        Some(Quantity::Measure(measure)) => check.fault(
                            key,
                            format!(
                                "found the measure \"{}\", expected {example}",
                                measure.name()
                            ),
                        ),
                        Some(Quantity::Key(_)) => {}
                    }
                }
            }
            PlotKind::Fairness | PlotKind::Partition | PlotKind::Timeline | PlotKind::Standard => {}
        }
    }
}

const PATH: &str = "plot";

/// Reads the `[[plot]]` tables of an experiment; `known` are the configurations of its variants, where
/// the keys that figures name can be looked up, and `axes` those of the sweep, if there is one.
pub(crate) fn read(
    node: &Node,
    known: Option<&[&toml::Table]>,
    axes: &[String],
    errors: &Diagnostics,
) -> Vec<PlotTable> {
    let Value::Array(items) = &node.value else {
        errors.add(Diagnostic::new(
            Some(node.place.clone()),
            PATH,
            format!(
                "found {}, expected [[plot]] tables with double brackets",
                node.describe()
            ),
        ));
        return Vec::new();
    };
    let mut tables: Vec<PlotTable> = Vec::new();
    for item in items {
        let Some(table) = PlotTable::read(item, errors) else {
            continue;
        };
        let check = Check::new(item, PATH, errors);
        if let Some(known) = known {
            let mut all = keys(known);
            all.extend(axes.iter().cloned());
            for (at, key) in table.needs() {
                if all.iter().any(|known| known == key) {
                    continue;
                }
                let hint = nearest(key, all.iter().map(String::as_str));
                let what = match key.contains('.') {
                    true => format!("no variant has the key {key:?}"),
                    false => format!("{key:?} is not known"),
                };
                check.fault(at, format!("{what}; {hint}"));
            }
        }
        let taken = |other: &PlotTable| other.name.is_some() && other.name == table.name;
        if tables.iter().any(taken) {
            let name = table.name.as_deref().unwrap_or_default();
            let message = format!("another figure is named {name:?}; give each its own name");
            check.fault("name", message);
        }
        tables.push(table);
    }
    tables
}

/// All keys of the configurations by their dotted paths, and `variant`.
pub(crate) fn keys(configurations: &[&toml::Table]) -> Vec<String> {
    fn walk(path: &str, table: &toml::Table, into: &mut Vec<String>) {
        for (key, value) in table {
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            match value {
                toml::Value::Table(inner) => walk(&path, inner, into),
                _ => into.push(path),
            }
        }
    }
    let mut all = vec!["variant".to_owned()];
    for table in configurations {
        walk("", table, &mut all);
    }
    all.sort();
    all.dedup();
    all
}

/// The nearest key, or those of the same table: all keys of an experiment are too many to list. For a
/// word without a dot, the nearest measure or key that is such a word.
pub(crate) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if !key.contains('.') {
        let measures = Measure::ALL.iter().map(|(name, _)| *name).chain(TOP);
        let words = known.filter(|other| !other.contains('.') && !TOP.contains(other));
        return format!(
            "{} (or the dotted path of a key, e.g. \"local.learning_rate\")",
            suggest(key, measures.chain(words))
        );
    }
    let table = key.split_once('.').map_or("", |(table, _)| table);
    let prefix = format!("{table}.");
    let beside: Vec<&str> = known
        .clone()
        .filter(|other| other.starts_with(&prefix))
        .collect();
    match beside.as_slice() {
        [] => suggest(key, known),
        beside => suggest(key, beside.iter().copied()),
    }
}

/// The table that options at the prompt describe; each pair is an option without its dashes and its
/// value as it was typed.
///
/// # Errors
/// All faults, each with the option at fault.
pub fn from_options(options: &[(String, String)]) -> Result<PlotTable, super::ConfigErrors> {
    let errors = Diagnostics::default();
    let mut whole: Option<Node> = None;
    for (option, value) in options {
        let key = option.replace('-', "_");
        let node = super::node::parse_option(option, &key, value, &errors);
        match &mut whole {
            Some(whole) => super::merge::overlay(whole, &node),
            None => whole = Some(node),
        }
    }
    let table = whole.and_then(|node| PlotTable::read(&node, &errors));
    match (table, errors.finish()) {
        (Some(table), None) => Ok(table),
        (_, Some(errors)) => Err(errors),
        (None, None) => Err(super::ConfigErrors(vec![Diagnostic::new(
            None,
            "",
            "no option says what to draw; give --kind".to_owned(),
        )])),
    }
}
