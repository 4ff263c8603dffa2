//! `[[plot]]`: which figures are drawn of an experiment, and how they look.
//!
//! Without such tables every figure is drawn for which there are data. The tables decide no result:
//! they are not part of a variant's configuration, and another figure makes no other run.

use core::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TABLES;
use super::check::Check;
use super::de::decode;
use super::diagnostic::{Diagnostic, Diagnostics, suggest};
use super::node::{Node, Value};

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

/// A number that a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Rounds done.
    Rounds,
    /// Virtual time, in the unit that fits.
    Time,
    /// Virtual time in seconds.
    Seconds,
    /// Virtual time in hours.
    Hours,
    /// Bytes of models and updates, in both directions.
    Bytes,
    /// Joules of training on devices, modelled.
    Joules,
    /// The privacy loss spent; infinite without privacy.
    Epsilon,
    /// Test accuracy.
    Accuracy,
    /// The best test accuracy of all evaluations.
    BestAccuracy,
    /// Test accuracy of the model in int8.
    AccuracyInt8,
    /// Test loss.
    Loss,
    /// Accuracy over the clients' training examples.
    TrainAccuracy,
    /// Loss over the clients' training examples; where it was not evaluated, as seen by the cohort.
    TrainLoss,
    /// Jain's index of fairness of the clients' accuracies.
    Jain,
    /// The mean accuracy of the worst tenth of the clients.
    WorstDecile,
    /// Rounds until the target accuracy.
    RoundsToTarget,
    /// Virtual time until the target accuracy.
    TimeToTarget,
    /// Bytes until the target accuracy.
    BytesToTarget,
    /// Joules until the target accuracy.
    JoulesToTarget,
    /// Privacy loss until the target accuracy.
    EpsilonToTarget,
}

impl Measure {
    /// Every measure with its name.
    pub const ALL: [(&'static str, Self); 20] = [
        ("rounds", Self::Rounds),
        ("time", Self::Time),
        ("seconds", Self::Seconds),
        ("hours", Self::Hours),
        ("bytes", Self::Bytes),
        ("joules", Self::Joules),
        ("epsilon", Self::Epsilon),
        ("accuracy", Self::Accuracy),
        ("best-accuracy", Self::BestAccuracy),
        ("accuracy-int8", Self::AccuracyInt8),
        ("loss", Self::Loss),
        ("train-accuracy", Self::TrainAccuracy),
        ("train-loss", Self::TrainLoss),
        ("jain", Self::Jain),
        ("worst-decile", Self::WorstDecile),
        ("rounds-to-target", Self::RoundsToTarget),
        ("time-to-target", Self::TimeToTarget),
        ("bytes-to-target", Self::BytesToTarget),
        ("joules-to-target", Self::JoulesToTarget),
        ("epsilon-to-target", Self::EpsilonToTarget),
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, measure)| *measure == self);
        found.map_or("", |(name, _)| name)
    }

    /// Whether it is known after every round or evaluation, and so can be drawn as a course.
    #[must_use]
    pub fn has_course(self) -> bool {
        !matches!(self, Self::BestAccuracy | Self::Jain | Self::WorstDecile) && !self.needs_target()
    }

    /// Whether it may stand on the horizontal axis of a course: what only grows.
    #[must_use]
    pub fn is_spent(self) -> bool {
        matches!(
            self,
            Self::Rounds
                | Self::Time
                | Self::Seconds
                | Self::Hours
                | Self::Bytes
                | Self::Joules
                | Self::Epsilon
        )
    }

    /// Whether it is about reaching a target accuracy.
    #[must_use]
    pub fn needs_target(self) -> bool {
        matches!(
            self,
            Self::RoundsToTarget
                | Self::TimeToTarget
                | Self::BytesToTarget
                | Self::JoulesToTarget
                | Self::EpsilonToTarget
        )
    }

    /// Whether more of it is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::Accuracy
                | Self::BestAccuracy
                | Self::AccuracyInt8
                | Self::TrainAccuracy
                | Self::Jain
                | Self::WorstDecile
        )
    }
}

/// What stands on an axis: a measure, or a key of the configuration by its dotted path, e.g.
/// `privacy.epsilon`; `variant` and `seed` are such keys, too, and so is an axis of named settings of
/// a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A number that a run has.
    Measure(Measure),
    /// A key, e.g. of a sweep.
    Key(String),
}

/// Keys of the configuration that are not in a table.
const TOP: [&str; 3] = ["seed", "variant", "stop_at_accuracy"];

impl Quantity {
    /// As it is written.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Measure(measure) => measure.name(),
            Self::Key(key) => key,
        }
    }

    /// # Errors
    /// What is wrong with the text, and the nearest name.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, measure)) = Measure::ALL.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Measure(*measure));
        }
        if let Some((table, _)) = text.split_once('.') {
            return match TABLES.contains(&table) {
                true => Ok(Self::Key(text.to_owned())),
                false => Err(format!(
                    "{text:?} is no key of an experiment; there is no table [{table}]: {}",
                    suggest(table, TABLES.iter().copied())
                )),
            };
        }
        // Without a dot it may be an axis of named settings, which only who knows the runs can tell.
        Ok(Self::Key(text.to_owned()))
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a measure or the dotted path of a key, in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Measure::ALL.iter().map(|(name, _)| *name).collect();
        json_schema!({
            "type": "string",
            "anyOf": [{ "enum": names }, { "pattern": "^[a-z_0-9]+(\\.[a-z_0-9]+)*$" }],
        })
    }
}

/// Keys whose values tell series apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Group(pub Vec<String>);

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        fn key<E: serde::de::Error>(text: &str) -> Result<String, E> {
            match Quantity::parse(text) {
                Ok(Quantity::Key(key)) => Ok(key),
                Ok(Quantity::Measure(Measure::Rounds)) => Ok(text.to_owned()),
                Ok(Quantity::Measure(_)) => Err(E::custom(format_args!(
                    "{text:?} is a measure, expected keys of the configuration, e.g. \"strategy.kind\" or \"variant\""
                ))),
                Err(message) => Err(E::custom(message)),
            }
        }

        impl<'de> Visitor<'de> for Reader {
            type Value = Group;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key such as \"strategy.kind\", or a list of keys")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Group, E> {
                Ok(Group(vec![key(text)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Group, A::Error> {
                let mut keys = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    keys.push(key(&text)?);
                }
                Ok(Group(keys))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Group {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Group".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        })
    }
}

/// What is drawn around a mean over seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Band {
    /// One standard deviation of the sample to either side.
    #[default]
    Deviation,
    /// The 95 % bootstrap percentile interval of the mean.
    Interval,
    /// From the lowest run to the highest.
    Range,
    /// Nothing.
    None,
}

/// Where series are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Legend {
    /// Beside the panel; a curve at its end.
    Right,
    /// In rows below the panel.
    Below,
    /// Nowhere.
    None,
}

/// How wide a figure is, in pixels of 1/96 inch, legend and all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Width {
    /// A column of a paper in two columns: 3.5 inches.
    Column,
    /// The text of a page: 7.16 inches.
    #[default]
    Page,
    /// So many pixels.
    Pixels(f64),
}

/// The narrowest and the widest figure, in pixels.
const WIDTHS: core::ops::RangeInclusive<f64> = 240.0..=2000.0;
/// The lowest and the highest panel, in pixels.
const HEIGHTS: core::ops::RangeInclusive<f64> = 100.0..=2000.0;
const WIDTH: &str = "\"column\" (3.5 inches), \"page\" (7.16 inches) or pixels from 240 to 2000";

impl Width {
    /// In pixels. The two names are the widths of the IEEE's template for papers in two columns.
    #[must_use]
    pub fn pixels(self) -> f64 {
        match self {
            Self::Column => 336.0,
            Self::Page => 687.0,
            Self::Pixels(pixels) => pixels,
        }
    }
}

impl Serialize for Width {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Column => serializer.serialize_str("column"),
            Self::Page => serializer.serialize_str("page"),
            Self::Pixels(pixels) => serializer.serialize_f64(*pixels),
        }
    }
}

impl<'de> Deserialize<'de> for Width {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Width;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WIDTH)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Width, E> {
                match text {
                    "column" => Ok(Width::Column),
                    "page" => Ok(Width::Page),
                    _ => Err(E::custom(format_args!("found {text:?}, expected {WIDTH}"))),
                }
            }

            fn visit_f64<E: serde::de::Error>(self, pixels: f64) -> Result<Width, E> {
                match WIDTHS.contains(&pixels) {
                    true => Ok(Width::Pixels(pixels)),
                    false => Err(E::custom(format_args!("found {pixels}, expected {WIDTH}"))),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, pixels: i64) -> Result<Width, E> {
                self.visit_f64(pixels as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, pixels: u64) -> Result<Width, E> {
                self.visit_f64(pixels as f64)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Width {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Width".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "enum": ["column", "page"] },
                { "type": "number", "minimum": WIDTHS.start(), "maximum": WIDTHS.end() },
            ],
        })
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
/// the keys that figures name can be looked up, and `axes` those of the sweep; without them any word
/// may be one.
pub(crate) fn read(
    node: &Node,
    known: Option<&[&toml::Table]>,
    axes: Option<&[String]>,
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
            all.extend(axes.unwrap_or_default().iter().cloned());
            for (at, key) in table.needs() {
                let word = !key.contains('.');
                if all.iter().any(|known| known == key) || (word && axes.is_none()) {
                    continue;
                }
                let hint = nearest(key, all.iter().map(String::as_str));
                let what = match word {
                    true => format!("{key:?} is not known"),
                    false => format!("no variant has the key {key:?}"),
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
