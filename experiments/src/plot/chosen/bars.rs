//! A measure at the end of runs, a row for each series: a bar from zero, or a dot with small ones for
//! its runs; both with error bars over seeds.

use crate::analysis::{Analysis, Statistics};
use crate::config::plot::{Measure, PlotKind, PlotTable};

use super::super::axis::{Axis, Panel};
use super::super::font::{self, Anchor};
use super::super::scene::{Mark, Scene};
use super::super::sheet::{Span, Words, heading, shortened};
use super::super::style::{
    AXIS, GRID, INK, LABEL_SIZE, SOFT, TICK_SIZE, darker, lighter, marker, series as look, shape,
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

fn scene(table: &PlotTable, words: &Words, rows: &[Row], drawn: &Drawn) -> Scene {
    let width = table.width.pixels();
    let bars = table.kind == PlotKind::Bars;
    let texts: Vec<String> = rows.iter().map(|row| result(row, drawn)).collect();
    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        let widths = texts.map(|text| font::width(text, LABEL_SIZE));
        widths.fold(0.0, f64::max)
    };
    let names = widest(&mut rows.iter().map(|row| &row.label)).min(width * 0.36);
    let results = widest(&mut texts.iter());
    let left = 8.0 + names + 12.0;
    let inner = (width - left - results - 12.0 - 8.0).max(width * 0.2);
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
        None => 24.0,
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
    for (place, (row, text)) in rows.iter().zip(&texts).enumerate() {
        let y = top + row_height * (place as f64 + 0.5);
        let base = y + 0.36 * LABEL_SIZE;
        let (color, _) = look(row.index);
        let name = shortened(&row.label, LABEL_SIZE, names);
        scene.text(
            (left - 12.0, base),
            name,
            LABEL_SIZE,
            darker(color),
            Anchor::End,
        );
        let ink = if row.statistics.is_some() { INK } else { SOFT };
        let at = (panel.right() + 12.0, base);
        scene.text(at, text.as_str(), LABEL_SIZE, ink, Anchor::Start);
        paint(&mut scene, &panel, row, y, (row_height, bars));
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
