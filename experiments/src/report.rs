//! One HTML page of any number of runs, in one file that needs no network: a table of all variants,
//! plots that zoom and toggle series, comparison with a baseline, and of each run its configuration,
//! privacy, costs, digests and environment.
//!
//! [`collect()`] reads folders of results, or of sweeps, and refuses what is not what was written;
//! [`page()`] makes the text of the page. The page is a function of the results and the title: the same
//! results give the same bytes. It holds no clock, and its Content-Security-Policy allows the one
//! script and the one style within it, by their SHA-256, and nothing else.
//!
//! What is drawn is thinned, so that the page stays small: see [`POINTS`].

mod collect;
mod columns;
mod configuration;
mod figures;
mod histogram;
mod html;
mod labels;
mod privacy;
mod series;
mod spent;
#[cfg(test)]
mod tests;
mod thin;
mod tradeoff;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compare::flat;
use crate::results::{Results, ResultsError, VariantResults};

pub use collect::{Collected, collect};
pub use thin::POINTS;

use columns::Column;
use configuration::Listing;
use figures::Figure;

/// What a page is made of, beside the results.
#[derive(Clone, Debug, Default)]
pub struct PageOptions {
    /// The page's title; without one it is made of the experiments' names.
    pub title: Option<String>,
}

/// One variant of one of the results.
struct Run<'a> {
    /// What tells it from all others.
    label: String,
    /// Its place among the results.
    folder: usize,
    variant: &'a VariantResults,
    /// Every key of its configuration, with the value as TOML.
    keys: BTreeMap<String, String>,
}

impl<'a> Run<'a> {
    fn all(results: &'a [Results]) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for (folder, one) in results.iter().enumerate() {
            runs.extend(one.variants.iter().map(|variant| Self {
                label: String::new(),
                folder,
                variant,
                keys: flat(&variant.manifest.config),
            }));
        }
        let labels = labels::of(results, &runs);
        for (run, label) in runs.iter_mut().zip(labels) {
            run.label = label;
        }
        runs
    }

    /// The configuration without keys that only name or repeat it.
    fn key_without(&self, dropped: &[&str]) -> BTreeMap<&str, &str> {
        let keys = self.keys.iter();
        keys.filter(|(key, _)| !dropped.contains(&key.as_str()))
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }
}

/// Data of the page's script.
#[derive(Serialize)]
struct Data<'a> {
    columns: Vec<&'a Column>,
    runs: Vec<RunData<'a>>,
    figures: Vec<Figure>,
    /// Runs that differ in the seed alone, by the label without it.
    groups: Vec<String>,
    /// Runs that differ in nothing but how much privacy is asked for, the seed and the name.
    lines: Vec<tradeoff::Line>,
    /// Keys whose values are not the same in all runs.
    differing: Vec<&'a str>,
}

/// A run, for the page's script.
#[derive(Serialize)]
struct RunData<'a> {
    label: &'a str,
    seed: u64,
    status: &'static str,
    /// Its place in [`Data::groups`].
    group: usize,
    /// A value for each column, in the column's unit.
    values: Vec<columns::Value>,
    config: Vec<(&'a str, &'a str)>,
    tables: BTreeMap<&'static str, series::Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<histogram::Histogram>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tradeoff: Option<tradeoff::Point>,
}

/// The page of all variants of `results`, as HTML.
///
/// # Errors
/// [`ResultsError::Encode`] when the template or the data cannot be written, which is a bug.
pub fn page(results: &[Results], options: &PageOptions) -> Result<String, ResultsError> {
    let runs = Run::all(results);
    let differing = configuration::differing(&runs);
    let columns = columns::Table::of(&runs);
    let (groups, group_of) = labels::groups(&runs);
    let (lines, points) = tradeoff::of(&runs);
    let limit = thin::limit(runs.len());
    let mut data = Data {
        columns: columns.columns.iter().collect(),
        runs: Vec::new(),
        figures: figures::with_data(&runs),
        groups,
        lines,
        differing: differing.iter().map(String::as_str).collect(),
    };
    for (index, (run, point)) in runs.iter().zip(points).enumerate() {
        data.runs.push(RunData {
            label: &run.label,
            seed: run.variant.manifest.seed,
            status: status(run.variant),
            group: group_of.get(index).copied().unwrap_or_default(),
            values: columns.rows.get(index).cloned().unwrap_or_default(),
            config: (run.keys.iter())
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            tables: series::of(run.variant, &data.figures, limit),
            clients: histogram::of(run.variant),
            tradeoff: point,
        });
    }
    let title = match &options.title {
        Some(title) => title.clone(),
        None => labels::title(results),
    };
    html::page(&title, results, &runs, &differing, &columns, &data)
}

/// How far a run came, for people.
fn status(variant: &VariantResults) -> &'static str {
    match variant.manifest.status {
        crate::results::Status::Finished => "finished",
        crate::results::Status::Stopped => "stopped",
    }
}

/// The lines of a run's configuration, marked where a key differs between the runs.
fn listing(run: &Run<'_>, differing: &[String]) -> Vec<Listing> {
    configuration::listing(&run.variant.manifest.config, differing)
}
