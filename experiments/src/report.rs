//! One HTML page of any number of runs, in one file that needs no network: a table of all variants,
//! plots that zoom and toggle series, comparison with a baseline, and of each run its configuration,
//! privacy, costs, digests and environment.
//!
//! [`collect()`] reads folders of results, or of sweeps, and refuses what is not what was written;
//! [`page()`] makes the text of the page. The page is a function of the results, of the plans of their
//! sweeps and of the title: the same results give the same bytes. It holds no clock, and its Content-Security-Policy allows the one
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
use std::path::Path;

use serde::Serialize;

use crate::analysis::AxisValue;
use crate::compare::flat;
use crate::results::{ResultsError, VariantResults};
use crate::sweep::{Plan, PlannedCell};

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
    /// The experiment's name; of a cell, its sweep's.
    experiment: &'a str,
    /// The folder of the results; of a cell, its sweep's.
    home: &'a Path,
    /// What it is in a sweep.
    cell: Option<Cell<'a>>,
    variant: &'a VariantResults,
    /// Every key of its configuration, with the value as TOML.
    keys: BTreeMap<String, String>,
}

/// A cell of a sweep.
struct Cell<'a> {
    /// Its id, and the name of its folder.
    id: &'a str,
    /// The plan that has it; none where there is no plan, or it is no longer part of it.
    planned: Option<(&'a Plan, &'a PlannedCell)>,
}

impl<'a> Run<'a> {
    fn all(collected: &'a Collected) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for (folder, one) in collected.results.iter().enumerate() {
            let sweep = collect::sweep_of(&one.path).filter(|(_, id)| *id == one.manifest.name);
            let plan = sweep.and_then(|(home, _)| collected.sweeps.get(home));
            let named = plan.map(|plan| plan.name.as_str());
            let folder_named = || sweep?.0.file_name()?.to_str();
            let experiment = named.or_else(folder_named).unwrap_or(&one.manifest.name);
            runs.extend(one.variants.iter().map(|variant| Self {
                label: String::new(),
                folder,
                experiment,
                home: sweep.map_or(one.path.as_path(), |(home, _)| home),
                cell: sweep.map(|(_, id)| Cell {
                    id,
                    planned: plan.and_then(|plan| {
                        let cell = plan.cells.iter().find(|cell| cell.id.as_str() == id)?;
                        Some((plan, cell))
                    }),
                }),
                variant,
                keys: flat(&variant.manifest.config),
            }));
        }
        let labels = labels::of(&runs);
        for (run, label) in runs.iter_mut().zip(labels) {
            run.label = label;
        }
        runs
    }

    fn planned(&self) -> Option<(&'a Plan, &'a PlannedCell)> {
        self.cell.as_ref()?.planned
    }

    /// The axes of its sweep, in their order.
    fn axes(&self) -> impl Iterator<Item = &'a str> {
        let plan = self.planned().into_iter();
        plan.flat_map(|(plan, _)| plan.axes.iter().map(|axis| axis.key.as_str()))
    }

    /// Its value on an axis of its sweep; none where that has no such axis.
    fn axis(&self, key: &str) -> Option<AxisValue> {
        let (plan, cell) = self.planned()?;
        plan.axes.iter().find(|axis| axis.key == key)?;
        Some((cell.values.get(key)).map_or(AxisValue::Absent, AxisValue::of))
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

/// The page of all variants of all results, as HTML.
///
/// # Errors
/// [`ResultsError::Encode`] when the template or the data cannot be written, which is a bug.
pub fn page(collected: &Collected, options: &PageOptions) -> Result<String, ResultsError> {
    let runs = Run::all(collected);
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
        None => labels::title(&runs),
    };
    html::page(
        &title,
        &collected.results,
        &runs,
        &differing,
        &columns,
        &data,
    )
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
