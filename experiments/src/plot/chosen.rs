//! Figures that `[[plot]]` tables or options at the prompt ask for.
//!
//! Runs that differ in the seed alone are taken together: their mean, and around it what the table
//! says. The statistics are those of [`crate::analysis`].

mod bands;
mod bars;
mod fairness;
mod heat;
mod measure;
mod pareto;
mod points;
mod series;

use crate::analysis::{Analysis, Run};
use crate::config::plot::{Measure, PlotKind, PlotTable, Quantity, keys, nearest};

use super::scene::Scene;
use series::Grouped;

/// Why a figure is not drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlotFault {
    /// No run has a key that the figure is about.
    #[error("no run has the key `{key}`; {hint}")]
    NoKey {
        /// The key.
        key: String,
        /// The nearest.
        hint: String,
    },
    /// No run has a value for it.
    #[error("no run has {what}; {help}")]
    Nothing {
        /// What is missing.
        what: String,
        /// What to do.
        help: &'static str,
    },
}

impl PlotFault {
    /// No run has the measure.
    fn without(measure: Measure, table: &PlotTable) -> Self {
        let needs = match measure {
            Measure::Time | Measure::Seconds | Measure::Hours | Measure::Joules => {
                "it takes runs on devices (`fleet.devices`)"
            }
            Measure::Epsilon => "it takes private runs",
            Measure::AccuracyInt8 => "it takes runs with `evaluation.int8`",
            Measure::Patch => "it takes runs with `evaluation.patches`",
            Measure::TrainAccuracy | Measure::TrainLoss => {
                "it takes runs with `evaluation.train` or without a test set"
            }
            Measure::Jain | Measure::WorstDecile => {
                "it takes runs with an evaluation on clients (`evaluation.per_client`)"
            }
            _ if measure.needs_target() && table.target.is_none() => {
                "give a target, or runs with `stop_at_accuracy`"
            }
            _ if measure.needs_target() => "no run reached the target, or it is not counted there",
            _ => "look at other runs, or at another measure",
        };
        Self::Nothing {
            what: format!("a value for `{}`", measure.name()),
            help: needs,
        }
    }
}

/// A series as its pictures need it.
struct Counted {
    /// The most runs behind a mean.
    runs: usize,
}

/// The figures of a table: one, but for kinds that draw a picture for each series.
pub(super) fn draw(
    analysis: &Analysis,
    table: &PlotTable,
) -> Result<Vec<(String, Scene)>, PlotFault> {
    check_keys(analysis, table)?;
    let scenes = match table.kind {
        PlotKind::Curves => vec![bands::draw(analysis, table)?],
        PlotKind::Points => vec![points::draw(analysis, table)?],
        PlotKind::HeatMap => vec![heat::draw(analysis, table)?],
        PlotKind::Pareto => vec![pareto::draw(analysis, table)?],
        PlotKind::Bars | PlotKind::Dots => vec![bars::draw(analysis, table)?],
        PlotKind::Fairness => vec![fairness::draw(analysis, table)?],
        PlotKind::Partition | PlotKind::Timeline | PlotKind::Standard => {
            return standard(analysis, table);
        }
    };
    let name = name(table);
    Ok(scenes
        .into_iter()
        .map(|scene| (name.clone(), scene))
        .collect())
}

/// What the files of a figure are called.
fn name(table: &PlotTable) -> String {
    table
        .name
        .clone()
        .unwrap_or_else(|| table.kind.name().to_owned())
}

/// Figures that are drawn without tables, too: all, or those of one kind.
fn standard(analysis: &Analysis, table: &PlotTable) -> Result<Vec<(String, Scene)>, PlotFault> {
    let series: Vec<super::Series<'_>> = analysis
        .runs
        .iter()
        .map(|run| super::Series {
            label: run.results.manifest.name.clone(),
            variant: &run.results,
        })
        .collect();
    let (stem, help) = match table.kind {
        PlotKind::Partition => ("partition", "the partition of their data has no classes"),
        PlotKind::Timeline => (
            "timeline",
            "it takes runs on devices with `telemetry.per_client = true`",
        ),
        _ => ("", "run the experiment first"),
    };
    let own = table.name.as_deref().unwrap_or(stem);
    let mut figures = super::standard(&series);
    figures.retain(|(name, _)| name.starts_with(stem));
    for (name, scene) in &mut figures {
        if let (false, Some(rest)) = (stem.is_empty(), name.strip_prefix(stem)) {
            *name = format!("{own}{rest}");
        }
        if let (false, Some(title)) = (stem.is_empty(), &table.title) {
            scene.retitle(title);
        }
    }
    match figures.is_empty() {
        true => Err(PlotFault::Nothing {
            what: format!("what a figure of kind \"{}\" shows", table.kind.name()),
            help,
        }),
        false => Ok(figures),
    }
}

fn check_keys(analysis: &Analysis, table: &PlotTable) -> Result<(), PlotFault> {
    let configs: Vec<&toml::Table> = analysis
        .runs
        .iter()
        .map(|run| &run.results.manifest.config)
        .collect();
    let mut known = keys(&configs);
    known.extend(analysis.axes.iter().map(|axis| axis.key.clone()));
    for (_, key) in table.needs() {
        if !known.iter().any(|other| other == key) {
            return Err(PlotFault::NoKey {
                key: key.to_owned(),
                hint: nearest(key, known.iter().map(String::as_str)),
            });
        }
    }
    Ok(())
}

/// The measure of an axis, or the one that stands there by default.
fn measured(quantity: &Option<Quantity>, default: Measure) -> Measure {
    match quantity {
        Some(Quantity::Measure(measure)) => *measure,
        Some(Quantity::Key(_)) | None => default,
    }
}

fn all(analysis: &Analysis) -> Vec<&Run> {
    analysis.runs.iter().collect()
}

/// What all runs have in common and how they were taken together: data, clients, seeds, what was
/// pooled.
fn subtitle(
    analysis: &Analysis,
    table: &PlotTable,
    grouped: &Grouped<'_>,
    counted: &Counted,
    more: &[String],
) -> String {
    let series: Vec<super::Series<'_>> = analysis
        .runs
        .iter()
        .map(|run| super::Series {
            label: String::new(),
            variant: &run.results,
        })
        .collect();
    let pooled = match grouped.pooled.as_slice() {
        [] => String::new(),
        keys => format!("pooled over {}", keys.join(", ")),
    };
    let whose = match grouped.pooled.is_empty() {
        true => "seeds",
        false => "runs",
    };
    let around = series::band_text(table.band, counted.runs, whose);
    let smoothed = match table.smoothing {
        0 => String::new(),
        reach => format!("smoothed over {} evaluations", 2 * reach + 1),
    };
    let mut parts = vec![super::subtitle(&series), around, pooled, smoothed];
    parts.extend(more.iter().cloned());
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

/// The title of the table; where there is none, or nothing is to be written, the default.
fn title(table: &PlotTable, default: String) -> String {
    let given = table.title.clone().filter(|title| !title.is_empty());
    given.unwrap_or(default)
}

#[cfg(test)]
mod tests;
