//! Heat maps: a measure at the end over two keys of the configuration, the mean over seeds written in
//! each cell; one beside the other for each series.

use crate::analysis::{Analysis, AxisValue, Statistics};
use crate::config::plot::{Measure, PlotTable, Quantity};

use super::super::font::{self, Anchor};
use super::super::scene::{Mark, Rgb, Scene};
use super::super::sheet::{Words, heading, shortened};
use super::super::style::{AXIS, INK, LABEL_SIZE, SOFT, TICK_SIZE, ink_on, shade};
use super::measure::{Drawn, drawn, last, target_text};
use super::points::place_text;
use super::series::{grouped, key_title, value};
use super::{Counted, PlotFault, all, measured, subtitle, title};

/// Cells of which no run is known.
const MISSING: Rgb = (236, 236, 236);
/// The colour bar.
const BAR: f64 = 12.0;

/// One heat map.
struct Map {
    label: String,
    /// By row, then column, in the axis' unit.
    cells: Vec<Vec<Option<Statistics>>>,
}

/// The figure.
pub(super) fn draw(analysis: &Analysis, table: &PlotTable) -> Result<Scene, PlotFault> {
    let measure = measured(&table.value, Measure::Accuracy);
    let key = |quantity: &Option<Quantity>| {
        let name = quantity.as_ref().map_or("", Quantity::name);
        name.to_owned()
    };
    let (x, y) = (key(&table.x), key(&table.y));
    let values = |key: &str| {
        let runs = analysis.runs.iter();
        let mut values: Vec<AxisValue> = runs.map(|run| value(analysis, run, key)).collect();
        values.sort();
        values.dedup();
        values
    };
    let (columns, rows) = (values(&x), values(&y));
    let grouped = grouped(analysis, table.group.as_ref(), &[&table.x, &table.y]);
    let mut counted = Counted { runs: 1 };
    let mut maps: Vec<Map> = Vec::new();
    for series in &grouped.series {
        let cell = |row: &AxisValue, column: &AxisValue| {
            let there = series.runs.iter().filter(|run| {
                value(analysis, run, &y) == *row && value(analysis, run, &x) == *column
            });
            let found: Vec<f64> = there
                .filter_map(|run| last(run, measure, table.target))
                .filter(|value| value.is_finite())
                .collect();
            Statistics::of(&found)
        };
        let cells: Vec<Vec<Option<Statistics>>> = rows
            .iter()
            .map(|row| columns.iter().map(|column| cell(row, column)).collect())
            .collect();
        let known = cells.iter().flatten().flatten();
        if let Some(most) = known.map(|cell| cell.count).max() {
            counted.runs = counted.runs.max(most);
            maps.push(Map {
                label: series.label.clone(),
                cells,
            });
        }
    }
    if maps.is_empty() {
        return Err(PlotFault::without(measure, table));
    }
    let runs = all(analysis);
    let means = || {
        let cells = maps.iter().flat_map(|map| map.cells.iter().flatten());
        cells.flatten().map(|cell| cell.mean)
    };
    let drawn = drawn(measure, means().fold(0.0, f64::max), &runs);
    let low = means().fold(f64::INFINITY, f64::min) * drawn.factor;
    let high = means().fold(f64::NEG_INFINITY, f64::max) * drawn.factor;
    let mut table = table.clone();
    // Cells hold the mean alone.
    table.band = crate::config::plot::Band::None;
    let target = target_text(measure, table.target, &runs);
    let words = Words {
        // The cells hold the numbers, so their unit belongs here.
        title: title(&table, drawn.title.clone()),
        subtitle: subtitle(analysis, &table, &grouped, &counted, target.as_slice()),
        x: key_title(&x),
        y: key_title(&y),
    };
    let names = |values: &[AxisValue]| values.iter().map(place_text).collect();
    let grid = Grid {
        columns: names(&columns),
        rows: names(&rows),
        low,
        high,
        drawn,
    };
    Ok(scene(&table, &words, &grid, &maps))
}

/// What all maps of a figure share.
struct Grid {
    columns: Vec<String>,
    rows: Vec<String>,
    low: f64,
    high: f64,
    drawn: Drawn,
}

impl Grid {
    /// Where a value is between the lowest and the highest.
    fn share(&self, value: f64) -> f64 {
        match self.high > self.low {
            true => (value - self.low) / (self.high - self.low),
            false => 0.5,
        }
    }
}

fn scene(table: &PlotTable, words: &Words, grid: &Grid, maps: &[Map]) -> Scene {
    let width = table.width.pixels();
    let widest = |names: &[String]| {
        let widths = names.iter().map(|name| font::width(name, TICK_SIZE));
        widths.fold(0.0, f64::max)
    };
    let row_names = widest(&grid.rows).min(width * 0.25);
    let left = 8.0 + LABEL_SIZE + 8.0 + row_names + 7.0;
    let bar_room = 14.0
        + BAR
        + 6.0
        + widest(&[grid.drawn.digits(grid.low), grid.drawn.digits(grid.high)])
        + 8.0;
    let inner = width - left - bar_room;
    let count = grid.columns.len() as f64;
    // As many maps in a line as leave room for numbers in the cells.
    let gap = 16.0;
    let cell_room = font::width(&grid.drawn.digits(grid.high), TICK_SIZE).max(26.0) + 6.0;
    let fit = ((inner + gap) / (count * cell_room + gap)).floor().max(1.0) as usize;
    let beside = fit.min(maps.len());
    let map_width = (inner + gap) / beside as f64 - gap;
    let column = (map_width / count).min(90.0);
    let row = match table.height {
        Some(height) => height / grid.rows.len() as f64,
        None => (column * 0.62).clamp(20.0, 44.0),
    };
    let mut scene = Scene::new(&words.title, width, 0.0);
    let top = heading(&mut scene, table, words, width);
    let named = maps.len() > 1;
    let head = if named { LABEL_SIZE + 8.0 } else { 2.0 };
    let foot = 7.0 + TICK_SIZE + 6.0;
    let map_height = row * grid.rows.len() as f64;
    let lines = maps.len().div_ceil(beside);
    for (index, map) in maps.iter().enumerate() {
        let (line, place) = (index / beside, index % beside);
        let corner = (
            left + place as f64 * (column * count + gap),
            top + head + line as f64 * (head + map_height + foot),
        );
        if named {
            let at = (corner.0, corner.1 - 6.0);
            let label = shortened(&map.label, LABEL_SIZE, column * count + gap - 4.0);
            scene.text(at, label, LABEL_SIZE, INK, Anchor::Start);
        }
        paint(&mut scene, grid, map, corner, (column, row));
        let base = corner.1 + map_height + 7.0 + TICK_SIZE;
        let widest = widest(&grid.columns);
        let every = ((widest + 6.0) / column).ceil().max(1.0) as usize;
        for (place, name) in grid.columns.iter().enumerate().step_by(every) {
            let x = corner.0 + (place as f64 + 0.5) * column;
            let name = shortened(name, TICK_SIZE, column * every as f64);
            scene.text((x, base), name, TICK_SIZE, INK, Anchor::Middle);
        }
        if place == 0 {
            for (place, name) in grid.rows.iter().enumerate() {
                let y = corner.1 + map_height - (place as f64 + 0.5) * row;
                let at = (left - 7.0, y + 0.36 * TICK_SIZE);
                let name = shortened(name, TICK_SIZE, row_names);
                scene.text(at, name, TICK_SIZE, INK, Anchor::End);
            }
        }
    }
    let right = left + beside as f64 * (column * count + gap) - gap;
    let bottom = top + lines as f64 * (head + map_height + foot);
    let x_title = (f64::midpoint(left, right), bottom + LABEL_SIZE);
    scene.text(x_title, words.x.as_str(), LABEL_SIZE, INK, Anchor::Middle);
    let middle = top + head + (bottom - foot - top - head) / 2.0;
    scene.marks.push(Mark::Text {
        at: (8.0 + LABEL_SIZE, middle),
        text: words.y.clone(),
        size: LABEL_SIZE,
        color: INK,
        anchor: Anchor::Middle,
        upwards: true,
    });
    bar(
        &mut scene,
        grid,
        (right + 14.0, top + head),
        map_height.min(180.0),
    );
    scene.height = (bottom + LABEL_SIZE + 10.0).ceil() as u32;
    scene
}

fn paint(scene: &mut Scene, grid: &Grid, map: &Map, corner: (f64, f64), (column, row): (f64, f64)) {
    let lines = map.cells.len() as f64;
    for (line, cells) in map.cells.iter().enumerate() {
        for (place, cell) in cells.iter().enumerate() {
            // The smallest value of the vertical axis is at the bottom, as on any axis.
            let y = corner.1 + (lines - 1.0 - line as f64) * row;
            let x = corner.0 + place as f64 * column;
            let value = cell.as_ref().map(|cell| cell.mean * grid.drawn.factor);
            let color = value.map_or(MISSING, |value| shade(grid.share(value)));
            scene.rect((x, y), (column - 1.0, row - 1.0), color);
            let (text, ink) = match value {
                Some(value) => (grid.drawn.digits(value), ink_on(color)),
                None => ("–".to_owned(), SOFT),
            };
            if font::width(&text, TICK_SIZE) <= column - 3.0 {
                let at = (
                    x + column / 2.0 - 0.5,
                    y + row / 2.0 + 0.36 * TICK_SIZE - 0.5,
                );
                scene.text(at, text, TICK_SIZE, ink, Anchor::Middle);
            }
        }
    }
}

/// The colours and their values.
fn bar(scene: &mut Scene, grid: &Grid, (left, top): (f64, f64), height: f64) {
    let steps = 48;
    for step in 0..steps {
        let share = (f64::from(step) + 0.5) / f64::from(steps);
        let y = top + height * (1.0 - f64::from(step + 1) / f64::from(steps));
        // A little over the next, so that no seam shows.
        let size = (
            BAR,
            height / f64::from(steps) + if step > 0 { 0.4 } else { 0.0 },
        );
        scene.rect((left, y), size, shade(share));
    }
    for (value, y) in [
        (grid.high, top + 0.72 * TICK_SIZE),
        (grid.low, top + height),
    ] {
        let at = (left + BAR + 6.0, y);
        scene.text(at, grid.drawn.digits(value), TICK_SIZE, INK, Anchor::Start);
    }
    let edge = [
        (left, top),
        (left + BAR, top),
        (left + BAR, top + height),
        (left, top + height),
        (left, top),
    ];
    scene.line(edge.to_vec(), 0.5, AXIS);
}
