//! A measure at the end of runs, a row for each series: a bar from zero, or a dot with small ones for
//! its runs; both with error bars over seeds.

use std::collections::BTreeSet;

use crate::analysis::{Analysis, Statistics};
use crate::config::plot::{Measure, PlotKind, PlotTable};

use super::super::axis::{Axis, Panel};
use super::super::font::{self, Anchor};
use super::super::scene::{Mark, Scene};
use super::super::sheet::{Span, Words, heading, shortened};
use super::super::style::{
    AXIS, GRID, INK, LABEL_SIZE, SOFT, TICK_SIZE, WHITE, darker, lighter, marker, series as look,
    shape,
};
use super::measure::{Drawn, drawn, last, target_text};
use super::points::whisker;
use super::series::{around, grouped};
use super::{Counted, PlotFault, all, measured, subtitle, title};

/// A row.
struct Row {
    label: String,
    /// Colour and shape.
    index: usize,
    /// In the axis' unit; none where no run has the measure.
    statistics: Option<Statistics>,
    around: Option<(f64, f64)>,
    values: Vec<f64>,
    /// Runs, those that do not have the measure too.
    runs: usize,
}

/// The most of the figure's width that names take beside the panel, and the least that they and the
/// results leave for it.
const MOST_NAMES: f64 = 0.5;
const LEAST_PANEL: f64 = 0.2;
/// Room at the edges, and between the panel and what is beside it.
const MARGIN: f64 = 8.0;
const GAP: f64 = 12.0;
/// The height of a row, and of a name above it.
const ROW: f64 = 24.0;
const ABOVE: f64 = 16.0;
/// From the panel's left edge to names within it.
const INDENT: f64 = 4.0;

/// The figure.
pub(super) fn draw(analysis: &Analysis, table: &PlotTable) -> Result<Scene, PlotFault> {
    let measure = measured(&table.y, Measure::Accuracy);
    let grouped = grouped(analysis, table.group.as_ref(), &[]);
    let runs = all(analysis);
    let values = |series: &super::series::Series<'_>| -> Vec<f64> {
        let runs = series.runs.iter();
        runs.filter_map(|run| last(run, measure, table.target))
            .filter(|value| value.is_finite())
            .collect()
    };
    let most = grouped.series.iter().flat_map(values).fold(0.0, f64::max);
    let drawn = drawn(measure, most, &runs);
    let rows: Vec<Row> = grouped
        .series
        .iter()
        .enumerate()
        .map(|(index, series)| {
            let values: Vec<f64> = values(series)
                .iter()
                .map(|value| value * drawn.factor)
                .collect();
            let statistics = Statistics::of(&values);
            Row {
                label: series.label.clone(),
                index,
                around: statistics
                    .as_ref()
                    .and_then(|statistics| around(table.band, statistics)),
                statistics,
                values,
                runs: series.runs.len(),
            }
        })
        .collect();
    if rows.iter().all(|row| row.statistics.is_none()) {
        return Err(PlotFault::without(measure, table));
    }
    let counted = Counted {
        runs: rows.iter().map(|row| row.values.len()).max().unwrap_or(1),
    };
    let target = target_text(measure, table.target, &runs);
    let text = drawn
        .title
        .split(" (")
        .next()
        .unwrap_or_default()
        .to_owned();
    let words = Words {
        title: title(table, text),
        subtitle: subtitle(analysis, table, &grouped, &counted, target.as_slice()),
        x: drawn.title.clone(),
        y: String::new(),
    };
    Ok(scene(table, &words, &rows, &drawn))
}

/// What is written behind a row.
fn result(row: &Row, drawn: &Drawn) -> String {
    let Some(statistics) = &row.statistics else {
        return match row.runs {
            1 => "not reached".to_owned(),
            runs => format!("0 of {runs}"),
        };
    };
    let text = match statistics.deviation {
        Some(deviation) => drawn.spread(statistics.mean, deviation),
        None => drawn.text(statistics.mean),
    };
    match statistics.count < row.runs {
        true => format!("{text} ({} of {})", statistics.count, row.runs),
        false => text,
    }
}

/// Names of rows as they are written.
struct Names {
    texts: Vec<String>,
    /// Room for them beside the panel; none where each stands above its row.
    beside: Option<f64>,
}

impl Names {
    /// Beside the panel within `room`, shortened where that is too little, or, where too little would
    /// be left to tell them apart, above their rows in a figure of this `width`.
    fn of(rows: &[Row], room: f64, width: f64) -> Self {
        let within = |room: f64| -> Vec<String> {
            let names = rows.iter();
            let names = names.map(|row| shortened(&row.label, LABEL_SIZE, room));
            names.collect()
        };
        let distinct = |texts: &[String]| texts.iter().collect::<BTreeSet<_>>().len();
        let beside = within(room);
        let labels: Vec<String> = rows.iter().map(|row| row.label.clone()).collect();
        let tell = distinct(&beside) == distinct(&labels) && !beside.contains(&String::new());
        match tell {
            true => Self {
                beside: Some(widest(&beside)),
                texts: beside,
            },
            false => Self {
                texts: within(width - 2.0 * MARGIN - GAP - INDENT),
                beside: None,
            },
        }
    }
}

fn widest(texts: &[String]) -> f64 {
    let widths = texts.iter().map(|text| font::width(text, LABEL_SIZE));
    widths.fold(0.0, f64::max)
}

fn scene(table: &PlotTable, words: &Words, rows: &[Row], drawn: &Drawn) -> Scene {
    let width = table.width.pixels();
    let bars = table.kind == PlotKind::Bars;
    let texts: Vec<String> = rows.iter().map(|row| result(row, drawn)).collect();
    let around = widest(&texts) + 2.0 * (MARGIN + GAP);
    let room = (width * (1.0 - LEAST_PANEL) - around).min(width * MOST_NAMES);
    let names = Names::of(rows, room, width);
    let (left, above) = match names.beside {
        Some(beside) => (MARGIN + beside + GAP, 0.0),
        // Half of the first tick's label stands before the panel.
        None => (MARGIN + GAP, ABOVE),
    };
    let inner = (width - left - (around - MARGIN - GAP)).max(width * LEAST_PANEL);
    let ends = rows.iter().flat_map(|row| {
        let (low, high) = row.around.unwrap_or((f64::NAN, f64::NAN));
        row.values.iter().copied().chain([low, high])
    });
    let span = Span {
        percent: drawn.percent && !bars,
        from_zero: bars,
        ..Span::of(ends)
    };
    // A bar's length says nothing on a logarithmic axis.
    let log = if bars { Some(false) } else { table.log_y };
    let wanted = (inner / 62.0).clamp(2.0, 6.0) as usize;
    let axis = span.axis(table.y_limits, log, wanted).fitted(inner);
    let mut scene = Scene::new(&words.title, width, 0.0);
    let top = heading(&mut scene, table, words, width);
    let row_height = match table.height {
        Some(height) => height / rows.len() as f64,
        None => ROW + above,
    };
    let panel = Panel {
        left,
        top,
        width: inner,
        height: row_height * rows.len() as f64,
        x: axis,
        y: Axis::exact(0.0, 1.0, 1),
    };
    super::super::fleet::across_axis(&mut scene, &panel, &words.x);
    let written = rows.iter().zip(&names.texts).zip(&texts);
    for (place, ((row, name), text)) in written.enumerate() {
        let y = top + row_height * (place as f64 + 0.5) + above / 2.0;
        let base = y + 0.36 * LABEL_SIZE;
        let (color, _) = look(row.index);
        let color = darker(color);
        match names.beside {
            Some(_) => scene.text((left - GAP, base), name, LABEL_SIZE, color, Anchor::End),
            None => {
                let at = (left + INDENT, base - ABOVE);
                // No line of the grid strikes it through.
                let size = (font::width(name, LABEL_SIZE) + 4.0, LABEL_SIZE + 3.0);
                scene.rect((at.0 - 2.0, at.1 - LABEL_SIZE), size, WHITE);
                scene.text(at, name, LABEL_SIZE, color, Anchor::Start);
            }
        }
        let ink = if row.statistics.is_some() { INK } else { SOFT };
        let at = (panel.right() + GAP, base);
        scene.text(at, text.as_str(), LABEL_SIZE, ink, Anchor::Start);
        paint(
            &mut scene,
            &panel,
            row,
            y,
            ((row_height - above).max(row_height / 3.0), bars),
        );
    }
    let zero = (bars && panel.x.low <= 0.0).then(|| panel.at(0.0, 0.0).0);
    if let Some(x) = zero {
        scene.line(vec![(x, top), (x, panel.bottom())], 0.9, AXIS);
    }
    scene.height = (panel.bottom() + 14.0 + TICK_SIZE + LABEL_SIZE + 9.0).ceil() as u32;
    scene
}

fn paint(scene: &mut Scene, panel: &Panel, row: &Row, y: f64, (height, bar): (f64, bool)) {
    let Some(statistics) = &row.statistics else {
        return;
    };
    let (color, _) = look(row.index);
    let x = |value: f64| panel.at(value, 0.0).0.clamp(panel.left, panel.right());
    let mean = x(statistics.mean);
    let ends = row.around.map(|(low, high)| (x(low), x(high)));
    if bar {
        let zero = x(0.0);
        let thick = (height * 0.6).min(18.0);
        scene.marks.push(Mark::Rect {
            corner: (zero.min(mean), y - thick / 2.0),
            size: ((mean - zero).abs(), thick),
            color,
            alpha: 0.75,
        });
        if let Some((low, high)) = ends {
            whisker(scene, (low, y), (high, y), INK);
        }
        return;
    }
    scene.line(vec![(panel.left, y), (panel.right(), y)], 0.7, GRID);
    for &value in row.values.iter().filter(|_| row.values.len() > 1) {
        scene.disc((x(value), y), 2.6, lighter(color));
    }
    if let Some((low, high)) = ends {
        whisker(scene, (low, y), (high, y), color);
    }
    marker(scene, shape(row.index), (mean, y), 4.0, color);
}
