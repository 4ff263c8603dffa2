//! Which runs are one series, and what it is called.

use std::collections::BTreeSet;

use crate::analysis::{Analysis, AxisValue, EPSILON, Run, Statistics};
use crate::config::plot::{Band, Group, Quantity};

/// Runs that a figure takes together, and what they are called.
#[derive(Clone, Debug)]
pub(super) struct Series<'a> {
    pub(super) label: String,
    /// The values that tell it from the others, in the order of the keys.
    values: Vec<AxisValue>,
    pub(super) runs: Vec<&'a Run>,
}

/// The series of a figure.
#[derive(Clone, Debug)]
pub(super) struct Grouped<'a> {
    pub(super) series: Vec<Series<'a>>,
    /// Keys, other than the seed, in which runs of one series differ.
    pub(super) pooled: Vec<String>,
}

/// The value of a key for a run: of an axis, or of its configuration.
pub(super) fn value(analysis: &Analysis, run: &Run, key: &str) -> AxisValue {
    if let Some(place) = analysis.axes.iter().position(|axis| axis.key == key)
        && let Some(value) = run.values.get(place)
    {
        return value.clone();
    }
    if key == "variant" {
        return AxisValue::Text(run.results.manifest.name.clone());
    }
    let mut table = &run.results.manifest.config;
    let mut names = key.split('.').peekable();
    while let Some(name) = names.next() {
        match table.get(name) {
            Some(toml::Value::Table(inner)) if names.peek().is_some() => table = inner,
            Some(value) if names.peek().is_none() => return AxisValue::of(value),
            _ => break,
        }
    }
    match key {
        EPSILON => AxisValue::Number(f64::INFINITY),
        _ => AxisValue::Absent,
    }
}

/// Puts runs into series: by the keys of the table, or by everything in which they differ but the seed
/// and what is on an axis of the figure.
pub(super) fn grouped<'a>(
    analysis: &'a Analysis,
    group: Option<&Group>,
    across: &[&Option<Quantity>],
) -> Grouped<'a> {
    let on_axis = |key: &str| {
        let mut axes = across.iter().filter_map(|quantity| quantity.as_ref());
        axes.any(|quantity| quantity.name() == key)
    };
    let keys: Vec<&str> = match group {
        Some(group) => group.0.iter().map(String::as_str).collect(),
        None => {
            let keys = analysis.axes.iter().map(|axis| axis.key.as_str());
            keys.filter(|key| !on_axis(key)).collect()
        }
    };
    let mut series: Vec<Series<'_>> = Vec::new();
    for run in &analysis.runs {
        let values: Vec<AxisValue> = keys.iter().map(|key| value(analysis, run, key)).collect();
        match series.iter_mut().find(|one| one.values == values) {
            Some(one) => one.runs.push(run),
            None => series.push(Series {
                label: String::new(),
                values,
                runs: vec![run],
            }),
        }
    }
    let pooled = analysis.axes.iter().map(|axis| axis.key.as_str());
    let pooled = pooled
        .filter(|key| !on_axis(key) && !keys.contains(key))
        .filter(|key| {
            series.iter().any(|one| {
                let values: BTreeSet<AxisValue> = one
                    .runs
                    .iter()
                    .map(|run| value(analysis, run, key))
                    .collect();
                values.len() > 1
            })
        })
        .map(str::to_owned)
        .collect();
    label(&keys, &mut series, group.is_none());
    Grouped { series, pooled }
}

/// Names series by their variants where these tell them apart, else by the fewest keys that do.
fn label(keys: &[&str], series: &mut [Series<'_>], by_variant: bool) {
    let variant = |one: &Series<'_>| {
        let names: BTreeSet<&str> = one
            .runs
            .iter()
            .map(|run| run.results.manifest.name.as_str())
            .collect();
        // The cells of a sweep are named by their ids, which tell nobody anything.
        let is_cell = one.runs.iter().any(|run| is_cell(run));
        match (names.len(), names.first()) {
            (1, Some(name)) if !is_cell => Some((*name).to_owned()),
            _ => None,
        }
    };
    let names: Vec<Option<String>> = series.iter().map(variant).collect();
    let distinct: BTreeSet<&Option<String>> = names.iter().collect();
    if by_variant && distinct.len() == series.len() && names.iter().all(Option::is_some) {
        for (one, name) in series.iter_mut().zip(names) {
            one.label = name.unwrap_or_default();
        }
        return;
    }
    // By their values, and not by the order in which the runs were found.
    series.sort_by(|a, b| a.values.cmp(&b.values));
    let chosen = telling(series);
    for one in series {
        let parts = chosen.iter().filter_map(|&place| {
            let value = one.values.get(place)?;
            written(keys.get(place)?, value)
        });
        one.label = parts.collect::<Vec<_>>().join(" · ");
        if one.label.is_empty() {
            one.label = "other".to_owned();
        }
    }
}

/// Whether a run is a cell of a sweep, and so named by its id.
pub(super) fn is_cell(run: &Run) -> bool {
    run.id == run.results.manifest.name
}

/// The places of the fewest values that tell all series apart, found one by one: each time the one
/// that tells most apart, words before numbers.
fn telling(series: &[Series<'_>]) -> Vec<usize> {
    let places = series.first().map_or(0, |one| one.values.len());
    let classes = |chosen: &[usize]| {
        let classes: BTreeSet<Vec<&AxisValue>> = series
            .iter()
            .map(|one| chosen.iter().filter_map(|&at| one.values.get(at)).collect())
            .collect();
        classes.len()
    };
    let words = |place: usize| {
        let mut values = series.iter().filter_map(|one| one.values.get(place));
        values.all(|value| matches!(value, AxisValue::Text(_)))
    };
    let mut chosen: Vec<usize> = Vec::new();
    while classes(&chosen) < series.len() {
        let with = |place: usize| [chosen.as_slice(), &[place]].concat();
        let best = (0..places)
            .filter(|place| !chosen.contains(place))
            .max_by_key(|&place| (classes(&with(place)), words(place), places - place));
        match best {
            Some(place) if classes(&with(place)) > classes(&chosen) => chosen.push(place),
            _ => break,
        }
    }
    chosen.sort_unstable();
    chosen
}

/// A value with as much of its key as is needed to understand it.
pub(super) fn written(key: &str, value: &AxisValue) -> Option<String> {
    let name = match key.rsplit('.').next().unwrap_or(key) {
        "epsilon" => "ε",
        "alpha" => "α",
        "delta" => "δ",
        "mu" => "µ",
        name => name,
    };
    match value {
        AxisValue::Absent => None,
        AxisValue::Text(text) if text == "true" || text == "false" => {
            Some(format!("{} = {text}", name.replace('_', " ")))
        }
        AxisValue::Text(text) => Some(text.clone()),
        AxisValue::Number(number) => {
            Some(format!("{} = {}", name.replace('_', " "), tick(*number)))
        }
    }
}

/// A number as a tick: short, infinity as its sign.
pub(super) fn tick(number: f64) -> String {
    if number.is_infinite() {
        return "∞".to_owned();
    }
    let size = number.abs();
    if size >= 1e6 || (size > 0.0 && size < 1e-3) {
        return format!("{number:e}").replace('-', "−");
    }
    format!("{number}").replace('-', "−")
}

/// A key on an axis: its last name in words.
pub(super) fn key_title(key: &str) -> String {
    match key {
        "privacy.epsilon" => "ε asked for".to_owned(),
        "dataset.partition.alpha" => "Dirichlet α of the partition".to_owned(),
        key => {
            // `strategy.kind` is the strategy.
            let table = key.strip_suffix(".kind").or(key.strip_suffix(".name"));
            let path = table.unwrap_or(key);
            let name = path.rsplit('.').next().unwrap_or(path).replace('_', " ");
            let mut letters = name.chars();
            match letters.next() {
                Some(first) => format!("{}{}", first.to_uppercase(), letters.as_str()),
                None => name,
            }
        }
    }
}

/// Ends of what is drawn around a mean; none where nothing is, or of a single run.
pub(super) fn around(band: Band, statistics: &Statistics) -> Option<(f64, f64)> {
    match band {
        Band::None => None,
        _ if statistics.count < 2 => None,
        Band::Deviation => {
            let deviation = statistics.deviation?;
            Some((statistics.mean - deviation, statistics.mean + deviation))
        }
        Band::Interval => {
            let interval = statistics.interval?;
            Some((interval.low, interval.high))
        }
        Band::Range => Some((statistics.min, statistics.max)),
    }
}

/// What is around the means of so many seeds (or runs of other kinds), in words; empty where there is
/// one run each.
pub(super) fn band_text(band: Band, runs: usize, whose: &str) -> String {
    let over = format!("over {runs} {whose}");
    match band {
        _ if runs < 2 => String::new(),
        Band::Deviation => format!("mean ± standard deviation {over}"),
        Band::Interval => format!("mean and 95 % bootstrap interval {over}"),
        Band::Range => format!("mean and range {over}"),
        Band::None => format!("mean {over}"),
    }
}
