//! Figures, as SVG and PNG, from results.
//!
//! Accuracy and loss per round with the variants as series, accuracy against epsilon, the
//! distribution of accuracy over clients, the cost of secure aggregation, rollouts, the partition, and
//! what the devices of a fleet did: these are drawn where nothing else was asked for. Tables
//! ([`PlotTable`]) ask for others, over seeds and over the axes of a sweep. A figure is a function of
//! the results: the same results give the same bytes.

mod audit;
mod axis;
mod canvas;
mod chosen;
mod clients;
mod curves;
mod fleet;
mod font;
mod partition;
mod rollout;
mod scene;
mod secagg;
mod sheet;
mod style;
mod tradeoff;

use std::path::{Path, PathBuf};

use crate::analysis::{Analysis, AxisValue, EPSILON, Figure};
use crate::config::plot::{Group, Measure, PlotKind, PlotTable, Quantity as Shown};
use crate::results::{
    self, Earlier, EvaluationRow, PrivacyRow, Results, ResultsError, VariantResults,
};

pub(crate) use audit::Scores;
pub use chosen::PlotFault;
use clients::Distribution;
use curves::{Curve, Kind, Quantity};
use scene::Scene;

/// One curve of every figure: a variant and what it is called there.
struct Series<'a> {
    label: String,
    variant: &'a VariantResults,
}

/// Draws every figure for which `results` hold data into `folder`, as SVG and PNG, and returns
/// their paths. Several results are drawn together, each of their variants a series.
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub fn draw(results: &[Results], folder: &Path) -> Result<Vec<PathBuf>, ResultsError> {
    write(figures(results), folder)
}

/// What was drawn.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Figures that were asked for and not drawn, by name, and why.
    pub left_out: Vec<(String, PlotFault)>,
}

/// Draws the figures of one experiment into its own folder `plots`: those of the tables, or the
/// standard ones where there are none.
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub fn draw_own(results: &Results, tables: &[PlotTable]) -> Result<Drawing, ResultsError> {
    let folder = results.path.join(results::PLOTS);
    if tables.is_empty() {
        let files = draw(core::slice::from_ref(results), &folder)?;
        return Ok(Drawing {
            files,
            left_out: Vec::new(),
        });
    }
    draw_tables(&Analysis::of(results), tables, &folder)
}

/// The tables by which the figures in the folder of an experiment or of a sweep were drawn; none for
/// the standard figures.
#[must_use]
pub fn kept_tables(results: &Path) -> Vec<PlotTable> {
    results::drawn_tables(&results.join(results::PLOTS))
}

/// Draws the figures that tables ask for into `folder`, as SVG and PNG, and writes the tables beside
/// them. What was drawn there before is removed.
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub fn draw_tables(
    analysis: &Analysis,
    tables: &[PlotTable],
    folder: &Path,
) -> Result<Drawing, ResultsError> {
    let (scenes, left_out) = asked_for(analysis, tables);
    let files = write_with(scenes, folder, tables, Earlier::Removed)?;
    Ok(Drawing { files, left_out })
}

/// Draws the figures of a sweep into its folder `plots`: those of the tables, or where there are none
/// those of [`tables_of`].
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub fn draw_sweep(
    analysis: &Analysis,
    tables: &[PlotTable],
    sweep: &Path,
) -> Result<Drawing, ResultsError> {
    let (scenes, left_out) = match tables {
        [] => asked_for(analysis, &tables_of(analysis)),
        tables => asked_for(analysis, tables),
    };
    let folder = sweep.join(results::PLOTS);
    let files = write_with(scenes, &folder, tables, Earlier::Removed)?;
    Ok(Drawing { files, left_out })
}

/// Draws one figure into `folder`, beside what is there.
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub fn draw_one(
    analysis: &Analysis,
    table: &PlotTable,
    folder: &Path,
) -> Result<Drawing, ResultsError> {
    let (scenes, left_out) = asked_for(analysis, core::slice::from_ref(table));
    let files = match scenes.is_empty() {
        true => Vec::new(),
        false => write_with(scenes, folder, &[], Earlier::Kept)?,
    };
    Ok(Drawing { files, left_out })
}

type Scenes = Vec<(String, Scene)>;

/// The figures of tables, each under a name of its own, and what was left out.
fn asked_for(analysis: &Analysis, tables: &[PlotTable]) -> (Scenes, Vec<(String, PlotFault)>) {
    let mut scenes: Scenes = Vec::new();
    let mut left_out = Vec::new();
    // A name that was given is kept; others give way.
    let given: Vec<&str> = tables
        .iter()
        .filter_map(|table| table.name.as_deref())
        .collect();
    for table in tables {
        match chosen::draw(analysis, table) {
            Ok(drawn) => {
                for (name, scene) in drawn {
                    let taken = |name: &str| {
                        let own = table.name.as_deref() == Some(name);
                        scenes.iter().any(|(other, _)| other == name)
                            || (!own && given.contains(&name))
                    };
                    let mut candidates = (2..).map(|number: u64| format!("{name}-{number}"));
                    let free = match taken(&name) {
                        true => candidates.find(|name| !taken(name)).unwrap_or(name),
                        false => name,
                    };
                    scenes.push((free, scene));
                }
            }
            Err(fault) => {
                let name = table.name.as_deref().unwrap_or(table.kind.name());
                left_out.push((name.to_owned(), fault));
            }
        }
    }
    (scenes, left_out)
}

/// Most series that are told apart at a glance.
const AT_A_GLANCE: usize = 8;
/// Most rows of a figure that nobody asked for.
const MOST_ROWS: usize = 40;

/// Figures for runs that differ in axes, as those of a sweep, where none are asked for: curves and dots
/// where the series are not too many, accuracy against each axis of numbers, a heat map over the first
/// two axes, and fronts over epsilon, bytes, time and energy where these differ.
#[must_use]
pub fn tables_of(analysis: &Analysis) -> Vec<PlotTable> {
    let named = |kind: PlotKind, name: &str| PlotTable {
        name: Some(name.to_owned()),
        ..PlotTable::of(kind)
    };
    let mut tables = Vec::new();
    if analysis.groups.len() <= AT_A_GLANCE {
        tables.push(named(PlotKind::Curves, "accuracy"));
    }
    if analysis.groups.len() <= MOST_ROWS {
        tables.push(named(PlotKind::Dots, "final-accuracy"));
    }
    let axes: Vec<&str> = analysis
        .axes
        .iter()
        .filter(|axis| axis.values.len() > 1)
        .map(|axis| axis.key.as_str())
        .collect();
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).replace('_', "-");
    for axis in &analysis.axes {
        let is_number = |value: &&AxisValue| value.number().is_some();
        let numbers = axis.values.iter().filter(is_number).count();
        let others = axes.iter().filter(|key| **key != axis.key).count();
        if numbers > 2 && others <= 2 {
            let mut table = named(PlotKind::Points, &format!("accuracy-{}", last(&axis.key)));
            table.x = Some(Shown::Key(axis.key.clone()));
            tables.push(table);
        }
    }
    if let [first, second, rest @ ..] = axes.as_slice() {
        let name = format!("heat-map-{}-{}", last(first), last(second));
        let mut table = named(PlotKind::HeatMap, &name);
        table.x = Some(Shown::Key((*first).to_owned()));
        table.y = Some(Shown::Key((*second).to_owned()));
        let keys = rest.iter().map(|key| (*key).to_owned()).collect();
        table.group = (!rest.is_empty()).then_some(Group(keys));
        tables.push(table);
    }
    for (measure, figure) in [
        (Measure::Epsilon, Figure::Epsilon),
        (Measure::Bytes, Figure::Bytes),
        (Measure::Time, Figure::VirtualSeconds),
        (Measure::Joules, Figure::Joules),
    ] {
        let mut values: Vec<f64> = analysis
            .groups
            .iter()
            .filter_map(|group| Some(analysis.statistics(group, figure)?.mean))
            .collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        // Epsilon that was asked for stands against accuracy already.
        let shown = measure == Measure::Epsilon && axes == [EPSILON];
        if values.len() > 2 && !shown {
            let mut table = named(PlotKind::Pareto, &format!("pareto-{}", measure.name()));
            table.x = Some(Shown::Measure(measure));
            tables.push(table);
        }
    }
    tables
}

/// Draws epsilon over steps, one curve for each label, into `folder` as `privacy-epsilon`.
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub(crate) fn draw_epsilon(
    subtitle: &str,
    curves: Vec<(String, Vec<(f64, f64)>)>,
    folder: &Path,
) -> Result<Vec<PathBuf>, ResultsError> {
    let quantity = Quantity {
        title: "Privacy loss".to_owned(),
        y_title: "Epsilon".to_owned(),
        kind: Kind::Epsilon,
    };
    let curves: Vec<Curve> = curves
        .into_iter()
        .enumerate()
        .map(|(index, (label, points))| Curve {
            label,
            index,
            points,
        })
        .collect();
    let scene = curves::draw(&quantity, subtitle, &curves);
    let named = scene.map(|scene| ("privacy-epsilon".to_owned(), scene));
    write(named, folder)
}

/// Draws the scores of an audit's canaries into `folder` as `privacy-audit-NAME`.
///
/// # Errors
/// [`ResultsError::Write`] when a file cannot be written.
pub(crate) fn draw_audit(
    name: &str,
    subtitle: &str,
    scores: &Scores,
    folder: &Path,
) -> Result<Vec<PathBuf>, ResultsError> {
    let scene = audit::draw(subtitle, scores);
    write(
        scene.map(|scene| (format!("privacy-audit-{name}"), scene)),
        folder,
    )
}

/// Writes scenes as SVG and PNG.
fn write(
    scenes: impl IntoIterator<Item = (String, Scene)>,
    folder: &Path,
) -> Result<Vec<PathBuf>, ResultsError> {
    write_with(scenes, folder, &[], Earlier::Removed)
}

fn write_with(
    scenes: impl IntoIterator<Item = (String, Scene)>,
    folder: &Path,
    tables: &[PlotTable],
    earlier: Earlier,
) -> Result<Vec<PathBuf>, ResultsError> {
    let mut files = Vec::new();
    for (name, scene) in scenes {
        let encode = |why: String| ResultsError::Encode {
            path: folder.join(&name),
            what: "the figure",
            why,
        };
        files.push((
            format!("{name}.svg"),
            scene.svg().map_err(encode)?.into_bytes(),
        ));
        files.push((format!("{name}.png"), scene.png().map_err(encode)?));
    }
    results::write_drawn(folder, &files, tables, earlier)
}

fn figures(results: &[Results]) -> Vec<(String, Scene)> {
    standard(&series(results))
}

/// The figures that are drawn where none were asked for.
fn standard(series: &[Series<'_>]) -> Vec<(String, Scene)> {
    let subtitle = subtitle(series);
    let mut figures = Vec::new();
    let mut add = |name: &str, scene: Option<Scene>| {
        figures.extend(scene.map(|scene| (name.to_owned(), scene)));
    };

    let percent = |title: &str, pick: fn(&EvaluationRow) -> Option<f64>| {
        let quantity = Quantity {
            title: title.to_owned(),
            y_title: format!("{title} (%)"),
            kind: Kind::Percent,
        };
        let curves = evaluated(series, |row| pick(row).map(|share| share * 100.0));
        curves::draw(&quantity, &subtitle, &curves)
    };
    let accuracy = {
        let title = "Test accuracy";
        let quantity = Quantity {
            title: title.to_owned(),
            y_title: format!("{title} (%)"),
            kind: Kind::Percent,
        };
        let percent = |share: f64| share * 100.0;
        let mut curves = evaluated(series, |row| row.test_accuracy.map(percent));
        name_epsilon(series, &mut curves);
        // The same models as devices serve them in int8, in colours of their own.
        let int8 = evaluated(series, |row| row.test_accuracy_int8.map(percent));
        curves.extend(
            int8.into_iter()
                .filter(|curve| !curve.points.is_empty())
                .map(|curve| Curve {
                    label: format!("{}, int8", curve.label),
                    index: series.len() + curve.index,
                    points: curve.points,
                }),
        );
        curves::draw(&quantity, &subtitle, &curves)
    };
    let patches = {
        let quantity = Quantity {
            title: "Patch from the version before".to_owned(),
            y_title: "Patch (% of the int8 file)".to_owned(),
            kind: Kind::Percent,
        };
        let mut curves = curves(series, |variant| {
            let rows = variant.patches.iter();
            rows.map(|row| (row.round as f64, row.share() * 100.0))
                .collect()
        });
        curves.retain(|curve| !curve.points.is_empty());
        curves::draw(&quantity, &subtitle, &curves)
    };
    let spent = curves(series, |variant| {
        let rows = variant.privacy.iter();
        rows.map(|row| (row.round as f64 + 1.0, row.budgeted()))
            .collect()
    });
    add(
        "epsilon",
        spent_figure(
            match series.iter().any(|series| {
                let rows = &series.variant.privacy;
                rows.iter().any(PrivacyRow::is_servers)
            }) {
                true => "Privacy loss ε that the budget is about",
                false => "Privacy loss ε of the released models",
            },
            &subtitle,
            spent,
            series,
        ),
    );
    add(
        "accuracy",
        accuracy.or_else(|| percent("Training accuracy", |row| row.train_accuracy)),
    );
    add("patches", patches);
    let runs: Vec<tradeoff::Run<'_>> = series
        .iter()
        .map(|series| tradeoff::Run {
            label: &series.label,
            variant: series.variant,
        })
        .collect();
    add("accuracy-epsilon", tradeoff::draw(&subtitle, &runs));
    let loss = |title: &str, curves: &[Curve]| {
        let quantity = Quantity {
            title: title.to_owned(),
            y_title: title.to_owned(),
            kind: Kind::Loss,
        };
        curves::draw(&quantity, &subtitle, curves)
    };
    add(
        "loss",
        loss("Test loss", &evaluated(series, |row| row.test_loss)),
    );
    let global = loss(
        "Training loss of the global model",
        &evaluated(series, |row| row.train_loss),
    );
    add(
        "train-loss",
        global.or_else(|| loss("Training loss seen by the cohort", &trained(series))),
    );

    let distributions: Vec<Distribution> = series
        .iter()
        .enumerate()
        .map(|(index, series)| Distribution {
            label: series.label.clone(),
            index,
            values: series
                .variant
                .clients
                .iter()
                .map(|row| row.accuracy * 100.0)
                .filter(|accuracy| accuracy.is_finite())
                .collect(),
        })
        .collect();
    add("clients", clients::draw(&subtitle, &distributions));

    let costs: Vec<secagg::Costs<'_>> = series
        .iter()
        .map(|series| secagg::Costs {
            label: &series.label,
            variant: series.variant,
        })
        .collect();
    add("secagg", secagg::draw(&subtitle, &costs));

    let rollouts: Vec<rollout::Rollout<'_>> = series
        .iter()
        .map(|series| rollout::Rollout {
            label: &series.label,
            variant: series.variant,
        })
        .collect();
    add("rollout", rollout::draw_shares(&subtitle, &rollouts));
    add(
        "rollout-traffic",
        rollout::draw_traffic(&subtitle, &rollouts),
    );

    let runs: Vec<fleet::Run<'_>> = series
        .iter()
        .map(|series| fleet::Run {
            label: &series.label,
            variant: series.variant,
        })
        .collect();
    for (name, scene) in fleet::draw(&subtitle, &runs) {
        add(&name, Some(scene));
    }

    // A picture for every partition that differs from those before.
    let mut seen: Vec<&str> = Vec::new();
    for series in series {
        let digest = series.variant.manifest.dataset.digest.as_str();
        if seen.contains(&digest) || series.variant.partition.is_empty() {
            continue;
        }
        let name = if seen.is_empty() {
            "partition".to_owned()
        } else {
            format!("partition-{}", seen.len() + 1)
        };
        seen.push(digest);
        let shown = series
            .variant
            .partition
            .chunk_by(|a, b| a.client == b.client);
        let mut about = format!(
            "{} · {} of {}",
            data(series.variant),
            shown.count(),
            plural(series.variant.manifest.dataset.clients, "client"),
        );
        if name != "partition" {
            about = format!("{} · {about}", series.label);
        }
        add(&name, partition::draw(&about, &series.variant.partition));
    }
    figures
}

/// Says behind the name of a private series what it has spent, and where that is not of what was
/// simulated.
fn name_epsilon(series: &[Series<'_>], curves: &mut [Curve]) {
    for (series, curve) in series.iter().zip(curves) {
        if let Some(row) = series.variant.privacy.last() {
            let whose = match (row.is_hypothetical(), row.is_servers()) {
                (true, _) => " hypothetical",
                (false, true) => " server",
                (false, false) => "",
            };
            curve.label = format!("{}, ε = {:.2}{whose}", curve.label, row.budgeted());
        }
    }
}

/// Epsilon per round; none without privacy.
fn spent_figure(
    title: &str,
    subtitle: &str,
    mut curves: Vec<Curve>,
    series: &[Series<'_>],
) -> Option<Scene> {
    let deltas: Vec<f64> = series
        .iter()
        .filter_map(|series| Some(series.variant.privacy.last()?.delta))
        .collect();
    let y_title = match deltas.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other.total_cmp(first).is_eq()) => {
            format!("ε at δ = {first:e}")
        }
        _ => "ε".to_owned(),
    };
    for (series, curve) in series.iter().zip(&mut curves) {
        if series
            .variant
            .privacy
            .iter()
            .any(PrivacyRow::is_hypothetical)
        {
            curve.label.push_str(", hypothetical");
        }
        if series.variant.privacy.iter().any(PrivacyRow::is_servers) {
            curve.label.push_str(", server");
        }
    }
    curves.retain(|curve| !curve.points.is_empty());
    let quantity = Quantity {
        title: title.to_owned(),
        y_title,
        kind: Kind::Loss,
    };
    curves::draw(&quantity, subtitle, &curves)
}

/// The variants of all results, with names that tell them apart.
fn series(results: &[Results]) -> Vec<Series<'_>> {
    let names: Vec<(&str, &Path)> = results
        .iter()
        .map(|one| (one.manifest.name.as_str(), one.path.as_path()))
        .collect();
    let names = experiment_names(&names);
    let mut series = Vec::new();
    for (one, experiment) in results.iter().zip(&names) {
        for variant in &one.variants {
            let name = &variant.manifest.name;
            let label = match (results.len(), one.variants.len()) {
                (1, _) => name.clone(),
                (_, 1) if *name == one.manifest.name => experiment.clone(),
                _ => format!("{experiment} · {name}"),
            };
            series.push(Series { label, variant });
        }
    }
    series
}

/// What experiments are called beside one another: by their names; where two of different folders
/// share a name, all by their folders; and where these are the same, too, by their numbers.
fn experiment_names(experiments: &[(&str, &Path)]) -> Vec<String> {
    let clash = experiments.iter().enumerate().any(|(index, one)| {
        let others = &experiments[..index];
        others
            .iter()
            .any(|other| one.0 == other.0 && one.1 != other.1)
    });
    let called = |(name, path): &(&str, &Path)| {
        let folder = path.file_name().and_then(|folder| folder.to_str());
        match folder {
            Some(folder) if clash => folder.to_owned(),
            _ => (*name).to_owned(),
        }
    };
    let names: Vec<String> = experiments.iter().map(called).collect();
    // Paths that share a name, in the order of their first appearance.
    experiments
        .iter()
        .zip(&names)
        .map(|(one, name)| {
            let mut paths: Vec<&Path> = Vec::new();
            for (other, _) in experiments.iter().zip(&names).filter(|(_, n)| *n == name) {
                if !paths.contains(&other.1) {
                    paths.push(other.1);
                }
            }
            match paths.iter().position(|path| *path == one.1) {
                Some(index) if index > 0 => format!("{name} ({})", index + 1),
                _ => name.clone(),
            }
        })
        .collect()
}

fn data(variant: &VariantResults) -> String {
    let mut text = variant.manifest.dataset.name.clone();
    let partition = variant
        .manifest
        .config
        .get("dataset")
        .and_then(|dataset| dataset.get("partition"))
        .and_then(toml::Value::as_table);
    if let Some(partition) = partition {
        let kind = partition.get("kind").and_then(toml::Value::as_str);
        text.push_str(" · ");
        text.push_str(kind.unwrap_or("partition"));
        for (key, short) in [
            ("alpha", "α"),
            ("shards_per_client", "shards"),
            ("labels", "labels"),
        ] {
            if let Some(value) = partition.get(key) {
                text.push_str(&format!(" {short} = {value}"));
            }
        }
    }
    text
}

fn plural(count: u64, what: &str) -> String {
    let text = axis::number(count as f64, 1.0);
    if count == 1 {
        format!("{text} {what}")
    } else {
        format!("{text} {what}s")
    }
}

/// What all series have in common: data and clients.
fn subtitle(series: &[Series<'_>]) -> String {
    let about = |series: &Series<'_>| {
        format!(
            "{} · {}",
            data(series.variant),
            plural(series.variant.manifest.dataset.clients, "client")
        )
    };
    let Some(first) = series.first().map(about) else {
        return String::new();
    };
    if series.iter().all(|other| about(other) == first) {
        return first;
    }
    let mut names: Vec<&str> = series
        .iter()
        .map(|series| series.variant.manifest.dataset.name.as_str())
        .collect();
    names.dedup();
    names.join(", ")
}

/// A value of the evaluations.
fn evaluated(series: &[Series<'_>], value: impl Fn(&EvaluationRow) -> Option<f64>) -> Vec<Curve> {
    curves(series, |variant| {
        let rows = variant.evaluations.iter();
        rows.filter_map(|row| Some((row.round as f64, value(row)?)))
            .collect()
    })
}

/// The loss that the clients saw while training.
fn trained(series: &[Series<'_>]) -> Vec<Curve> {
    curves(series, |variant| {
        let rows = variant.rounds.iter();
        rows.filter_map(|row| Some((row.round as f64 + 1.0, row.train_loss?)))
            .collect()
    })
}

fn curves(
    series: &[Series<'_>],
    points: impl Fn(&VariantResults) -> Vec<(f64, f64)>,
) -> Vec<Curve> {
    series
        .iter()
        .enumerate()
        .map(|(index, series)| Curve {
            label: series.label.clone(),
            index,
            points: points(series.variant),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiments_are_told_apart() {
        type Case = (
            &'static [(&'static str, &'static str)],
            &'static [&'static str],
        );
        let cases: &[Case] = &[
            (&[("x", "results/a"), ("y", "results/b")], &["x", "y"]),
            (&[("x", "results/a"), ("x", "results/b")], &["a", "b"]),
            (&[("x", "results/a"), ("x", "results/a")], &["x", "x"]),
            (
                &[("x", "1/a"), ("x", "2/a"), ("x", "3/a"), ("x", "2/a")],
                &["a", "a (2)", "a (3)", "a (2)"],
            ),
        ];
        for (experiments, expected) in cases {
            let given: Vec<(&str, &Path)> = experiments
                .iter()
                .map(|(name, path)| (*name, Path::new(*path)))
                .collect();
            assert_eq!(experiment_names(&given), *expected);
        }
    }
}
