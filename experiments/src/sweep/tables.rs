//! `cells.parquet` and `groups.parquet`.

use std::path::Path;

use polars_core::prelude::{Column, DataFrame, PolarsError};

use super::{CellStatus, Plan};
use crate::analysis::{Analysis, AnalysisError, AxisValue, Figure, Statistics};
use crate::results::stage_frame;

/// The table of the cells.
const CELLS: &str = "cells.parquet";
/// The table of the settings.
const GROUPS: &str = "groups.parquet";

/// Writes both tables into the sweep's folder; `analysis` is of the cells that have been run, and
/// nothing where none has.
///
/// # Errors
/// [`AnalysisError::Results`] when a file cannot be written, [`AnalysisError::Table`].
pub(super) fn write(
    folder: &Path,
    plan: &Plan,
    analysis: Option<&Analysis>,
) -> Result<(), AnalysisError> {
    let mut cells = cells(plan, analysis).map_err(|error| refused(CELLS, &error))?;
    let cells = stage_frame(&folder.join(CELLS), &mut cells)?;
    let groups = match analysis {
        Some(analysis) => {
            let mut groups = groups(analysis).map_err(|error| refused(GROUPS, &error))?;
            Some(stage_frame(&folder.join(GROUPS), &mut groups)?)
        }
        None => None,
    };
    cells.publish()?;
    if let Some(groups) = groups {
        groups.publish()?;
    }
    Ok(())
}

fn refused(table: &'static str, error: &PolarsError) -> AnalysisError {
    AnalysisError::Table {
        table,
        why: error.to_string(),
    }
}

/// A figure's column. A key of the configuration is called `rounds`, too.
fn column_of(figure: Figure) -> &'static str {
    match figure {
        Figure::Rounds => "rounds_done",
        figure => figure.name(),
    }
}

/// A column of an axis: of numbers where all values are numbers, else of words; nothing where the key
/// does not matter.
fn axis_column<'a>(key: &str, values: impl Iterator<Item = &'a AxisValue>) -> Column {
    let values: Vec<&AxisValue> = values.collect();
    let is_number = |value: &&AxisValue| !matches!(value, AxisValue::Text(_));
    if values.iter().all(is_number) {
        let numbers: Vec<Option<f64>> = values.iter().map(|value| value.number()).collect();
        return Column::new(key.into(), numbers);
    }
    let words: Vec<Option<String>> = values
        .iter()
        .map(|value| match value {
            AxisValue::Absent => None,
            value => Some(value.to_string()),
        })
        .collect();
    Column::new(key.into(), words)
}

/// One row per cell of the plan; without figures where it has not been run.
fn cells(plan: &Plan, analysis: Option<&Analysis>) -> Result<DataFrame, PolarsError> {
    let runs: Vec<Option<&crate::analysis::Run>> = plan
        .cells
        .iter()
        .map(|cell| {
            let runs = analysis.into_iter().flat_map(|analysis| &analysis.runs);
            runs.into_iter().find(|run| run.id == cell.id.as_str())
        })
        .collect();
    let ids: Vec<&str> = plan.cells.iter().map(|cell| cell.id.as_str()).collect();
    let statuses: Vec<&str> = plan
        .cells
        .iter()
        .map(|cell| match cell.status {
            CellStatus::Pending => "pending",
            CellStatus::Stopped => "stopped",
            CellStatus::Dropped => "dropped",
            CellStatus::Finished => "finished",
        })
        .collect();
    let mut columns = vec![
        Column::new("cell".into(), ids),
        Column::new("status".into(), statuses),
    ];
    for axis in &plan.axes {
        let values: Vec<AxisValue> = plan
            .cells
            .iter()
            .map(|cell| match cell.values.get(&axis.key) {
                Some(value) => AxisValue::of(value),
                None => AxisValue::Absent,
            })
            .collect();
        columns.push(axis_column(&axis.key, values.iter()));
    }
    let seeds: Vec<u64> = plan.cells.iter().map(|cell| cell.seed).collect();
    columns.push(Column::new("seed".into(), seeds));
    for figure in Figure::ALL {
        let values: Vec<Option<f64>> = runs
            .iter()
            .map(|run| run.and_then(|run| run.figures.get(figure)))
            .collect();
        let name = column_of(figure).into();
        columns.push(match figure {
            // Counts, whole as long as a double holds them.
            Figure::Rounds | Figure::Bytes => {
                let counts: Vec<Option<u64>> = runs
                    .iter()
                    .map(|run| {
                        run.map(|run| match figure {
                            Figure::Rounds => run.figures.rounds,
                            _ => run.figures.bytes,
                        })
                    })
                    .collect();
                Column::new(name, counts)
            }
            _ => Column::new(name, values),
        });
    }
    let deltas: Vec<Option<f64>> = runs
        .iter()
        .map(|run| run.and_then(|run| run.figures.delta))
        .collect();
    columns.push(Column::new("delta".into(), deltas));
    let models: Vec<Option<&str>> = runs
        .iter()
        .map(|run| run.and_then(|run| run.figures.model_digest.as_deref()))
        .collect();
    columns.push(Column::new("model_digest".into(), models));
    let data: Vec<Option<&str>> = runs
        .iter()
        .map(|run| run.map(|run| run.figures.data_digest.as_str()))
        .collect();
    columns.push(Column::new("data_digest".into(), data));
    DataFrame::new(plan.cells.len(), columns)
}

/// One row per group, with statistics over its runs.
fn groups(analysis: &Analysis) -> Result<DataFrame, PolarsError> {
    let groups = &analysis.groups;
    let mut columns = Vec::new();
    for (place, axis) in analysis.axes.iter().enumerate() {
        let values = groups.iter().filter_map(|group| group.values.get(place));
        columns.push(axis_column(&axis.key, values));
    }
    let runs: Vec<u64> = groups.iter().map(|group| group.runs.len() as u64).collect();
    columns.push(Column::new("runs".into(), runs));
    let finished: Vec<u64> = groups
        .iter()
        .map(|group| {
            let finished = analysis.runs_of(group).filter(|run| run.is_finished());
            finished.count() as u64
        })
        .collect();
    columns.push(Column::new("finished".into(), finished));
    type Part = (&'static str, fn(&Statistics) -> Option<f64>);
    let parts: [Part; 7] = [
        ("mean", |it| Some(it.mean)),
        ("sd", |it| it.deviation),
        ("min", |it| Some(it.min)),
        ("max", |it| Some(it.max)),
        ("median", |it| Some(it.median)),
        ("low", |it| it.interval.map(|interval| interval.low)),
        ("high", |it| it.interval.map(|interval| interval.high)),
    ];
    for figure in Figure::ALL {
        let statistics: Vec<Option<Statistics>> = groups
            .iter()
            .map(|group| analysis.statistics(group, figure))
            .collect();
        let counts: Vec<u64> = statistics
            .iter()
            .map(|it| it.as_ref().map_or(0, |it| it.count as u64))
            .collect();
        let name = column_of(figure);
        columns.push(Column::new(format!("{name}_count").into(), counts));
        for (part, get) in parts {
            let values: Vec<Option<f64>> = statistics
                .iter()
                .map(|it| it.as_ref().and_then(get))
                .collect();
            columns.push(Column::new(format!("{name}_{part}").into(), values));
        }
    }
    DataFrame::new(groups.len(), columns)
}
