//! `analyze`: statistics over seeds, of a sweep or of any results.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Exit, output};
use crate::analysis::{Analysis, AxisValue, Best, Figure, Group, Statistics, Targets};
use crate::error::Error;

/// Arguments of `analyze`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of a sweep's results, of an experiment's, or of single variants
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// What it took to reach this test accuracy, a share from 0 to 1
    #[arg(long, value_name = "ACCURACY", value_parser = share)]
    target: Option<f64>,
    /// The best settings for each value of this axis, e.g. --by strategy.kind; may be repeated
    #[arg(long, value_name = "KEY")]
    by: Vec<String>,
    /// The best settings of all
    #[arg(long, conflicts_with = "by")]
    best: bool,
    /// What the best settings are chosen by
    #[arg(long, value_enum, default_value_t = Metric::Accuracy)]
    metric: Metric,
    /// Print a line of JSON per group
    #[arg(long)]
    json: bool,
}

/// What settings are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Metric {
    /// Accuracy at the last evaluation
    Accuracy,
    /// The highest accuracy at any evaluation
    BestAccuracy,
    /// Loss at the last evaluation
    Loss,
}

impl Metric {
    fn figure(self) -> Figure {
        match self {
            Self::Accuracy => Figure::FinalAccuracy,
            Self::BestAccuracy => Figure::BestAccuracy,
            Self::Loss => Figure::FinalLoss,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(format!(
            "{text:?} is no share; write a number from 0 to 1, such as 0.8"
        )),
    }
}

/// A line of `analyze --json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    group: BTreeMap<&'a str, &'a AxisValue>,
    runs: usize,
    finished: usize,
    seeds: Vec<u64>,
    statistics: BTreeMap<&'static str, Statistics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Targets>,
}

/// A line of `analyze --json` about a choice.
#[derive(Debug, Serialize)]
struct Chosen<'a> {
    best: BTreeMap<&'a str, &'a AxisValue>,
    #[serde(flatten)]
    choice: &'a Best,
}

/// Analyses results.
///
/// # Errors
/// [`Error::Analysis`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    let analysis = Analysis::load(&args.results)?;
    let best = match args.best || !args.by.is_empty() {
        true => Some(analysis.best(&args.by, args.metric.figure())?),
        false => None,
    };
    if args.json {
        print_json(&analysis, args.target)?;
        for choice in best.iter().flatten() {
            let group = analysis.groups.get(choice.group);
            output::json(&Chosen {
                best: group.map_or_else(BTreeMap::new, |group| values(&analysis, group)),
                choice,
            })?;
        }
        return Ok(Exit::Done);
    }
    output::line(&table(&analysis))?;
    if let Some(target) = args.target {
        output::line("")?;
        output::line(&targets(&analysis, target))?;
        output::line(
            "over the runs that reached it; an evaluation may be later than the round that did",
        )?;
    }
    if let Some(best) = best {
        output::line("")?;
        print_best(&analysis, &args.by, &best)?;
    }
    Ok(Exit::Done)
}

fn values<'a>(analysis: &'a Analysis, group: &'a Group) -> BTreeMap<&'a str, &'a AxisValue> {
    let keys = analysis.axes.iter().map(|axis| axis.key.as_str());
    keys.zip(&group.values).collect()
}

/// A line of JSON per group; with a target what it took to reach it.
pub(super) fn print_json(analysis: &Analysis, target: Option<f64>) -> Result<(), Error> {
    for group in &analysis.groups {
        let statistics = Figure::ALL.into_iter().filter_map(|figure| {
            let statistics = analysis.statistics(group, figure)?;
            Some((figure.name(), statistics))
        });
        output::json(&Line {
            group: values(analysis, group),
            runs: group.runs.len(),
            finished: analysis
                .runs_of(group)
                .filter(|run| run.is_finished())
                .count(),
            seeds: analysis.runs_of(group).map(|run| run.seed).collect(),
            statistics: statistics.collect(),
            target: target.map(|target| analysis.to_target(group, target)),
        })?;
    }
    Ok(())
}

/// The axes along which groups differ: places and keys.
fn axes(analysis: &Analysis) -> Vec<(usize, &str)> {
    let axes = analysis.axes.iter().enumerate();
    axes.filter(|(_, axis)| axis.values.len() > 1)
        .map(|(place, axis)| (place, axis.key.as_str()))
        .collect()
}

/// The first columns of a group's line: its values, or where all groups are alike a name.
fn settings(analysis: &Analysis, group: &Group) -> Vec<String> {
    let cells: Vec<String> = axes(analysis)
        .into_iter()
        .filter_map(|(place, _)| group.values.get(place).map(AxisValue::to_string))
        .collect();
    match cells.is_empty() {
        true => vec![analysis.label(group)],
        false => cells,
    }
}

fn heads(analysis: &Analysis) -> Vec<&str> {
    let keys: Vec<&str> = axes(analysis).into_iter().map(|(_, key)| key).collect();
    match keys.is_empty() {
        true => vec!["settings"],
        false => keys,
    }
}

/// Mean and sample standard deviation.
fn spread(statistics: Option<Statistics>, show: impl Fn(f64) -> String) -> String {
    match statistics {
        None => "-".to_owned(),
        Some(found) => match found.deviation.filter(|&deviation| deviation > 0.0) {
            Some(deviation) => format!("{} ± {}", show(found.mean), show(deviation)),
            None => show(found.mean),
        },
    }
}

/// A table of the groups: mean ± sample standard deviation over their runs.
pub(super) fn table(analysis: &Analysis) -> String {
    type Show = fn(f64) -> String;
    let columns: [(Figure, &str, Show); 8] = [
        (Figure::FinalAccuracy, "accuracy, %", |it| {
            format!("{:.2}", 100.0 * it)
        }),
        (Figure::BestAccuracy, "best, %", |it| {
            format!("{:.2}", 100.0 * it)
        }),
        (Figure::FinalAccuracyInt8, "in int8, %", |it| {
            format!("{:.2}", 100.0 * it)
        }),
        (Figure::FinalLoss, "loss", |it| format!("{it:.4}")),
        (Figure::Epsilon, "epsilon spent", |it| format!("{it:.3}")),
        (Figure::Bytes, "bytes", |it| output::bytes(it as u64)),
        (Figure::VirtualSeconds, "virtual time", output::seconds),
        (Figure::Joules, "joules", |it| format!("{it:.0}")),
    ];
    let shown: Vec<_> = columns
        .into_iter()
        .filter(|(figure, ..)| {
            let mut groups = analysis.groups.iter();
            groups.any(|group| analysis.statistics(group, *figure).is_some())
        })
        .collect();
    let mut header = heads(analysis);
    header.push("runs");
    header.extend(shown.iter().map(|(_, head, _)| *head));
    let rows: Vec<Vec<String>> = analysis
        .groups
        .iter()
        .map(|group| {
            let mut row = settings(analysis, group);
            let finished = analysis.runs_of(group).filter(|run| run.is_finished());
            let (finished, all) = (finished.count(), group.runs.len());
            row.push(match finished == all {
                true => all.to_string(),
                false => format!("{all} ({finished} finished)"),
            });
            row.extend(
                shown
                    .iter()
                    .map(|(figure, _, show)| spread(analysis.statistics(group, *figure), show)),
            );
            row
        })
        .collect();
    output::table(&header, &rows)
}

/// A table of what it took to reach an accuracy.
fn targets(analysis: &Analysis, target: f64) -> String {
    let found: Vec<Targets> = analysis
        .groups
        .iter()
        .map(|group| analysis.to_target(group, target))
        .collect();
    let reached = format!("reached {:.1} %", 100.0 * target);
    let mut header = heads(analysis);
    header.extend([reached.as_str(), "rounds", "bytes"]);
    let timed = found.iter().any(|it| it.by.virtual_seconds.is_some());
    let private = found.iter().any(|it| it.by.epsilon.is_some());
    if timed {
        header.extend(["virtual time", "joules"]);
    }
    if private {
        header.push("epsilon");
    }
    let rows: Vec<Vec<String>> = analysis
        .groups
        .iter()
        .zip(found)
        .map(|(group, found)| {
            let mut row = settings(analysis, group);
            row.push(format!("{} of {}", found.reached, found.of));
            row.push(spread(found.by.rounds, |it| format!("{it:.0}")));
            row.push(spread(found.by.bytes, |it| output::bytes(it as u64)));
            if timed {
                row.push(spread(found.by.virtual_seconds, output::seconds));
                row.push(spread(found.by.joules, |it| format!("{it:.0}")));
            }
            if private {
                row.push(spread(found.by.epsilon, |it| format!("{it:.3}")));
            }
            row
        })
        .collect();
    output::table(&header, &rows)
}

fn print_best(analysis: &Analysis, by: &[String], best: &[Best]) -> Result<(), Error> {
    let mut header: Vec<String> = by.to_vec();
    header.extend(["best settings", "score", "settings tried", "runs"].map(str::to_owned));
    let rows: Vec<Vec<String>> = best
        .iter()
        .map(|best| {
            let mut row: Vec<String> = best.by.iter().map(AxisValue::to_string).collect();
            let group = analysis.groups.get(best.group);
            row.push(group.map_or_else(String::new, |group| analysis.label(group)));
            row.push(spread(Some(best.score.clone()), |it| format!("{it:.4}")));
            row.push(best.tried.to_string());
            row.push(best.runs.to_string());
            row
        })
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    output::line(&output::table(&header, &rows))?;
    let mut on: Vec<&str> = best.iter().map(|best| best.selected_on.words()).collect();
    on.dedup();
    let figure = best.first().map_or("", |best| best.figure.name());
    output::line(&format!("by the mean of {figure}, {}", on.join(" and ")))?;
    if best
        .iter()
        .any(|best| best.selected_on == crate::analysis::SelectedOn::TestSet)
    {
        output::line(
            "what was chosen on the test set is no estimate of how it does on other data",
        )?;
    }
    Ok(())
}
