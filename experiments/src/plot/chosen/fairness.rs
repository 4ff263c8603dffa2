//! How accuracy falls apart over clients: a histogram for each series below one another, with Jain's
//! index and the mean of the worst tenth. Clients of all seeds of a series are counted together; the
//! numbers are means over seeds.

use crate::analysis::{Analysis, Statistics};
use crate::config::plot::{Measure, PlotTable};

use super::super::axis::{Axis, Panel, dashes};
use super::super::clients::Bins;
use super::super::font::{self, Anchor};
use super::super::scene::{Mark, Scene};
use super::super::sheet::{Words, heading, shortened};
use super::super::style::{
    AXIS, GRID, INK, LABEL_SIZE, SOFT, TICK_SIZE, darker, lighter, series as look,
};
use super::measure::{accuracies, jain, worst_decile};
use super::series::grouped;
use super::{Counted, PlotFault, subtitle, title};

/// One histogram.
struct Row {
    label: String,
    index: usize,
    /// Per cent of the clients in each bin.
    shares: Vec<f64>,
    /// Means over seeds, in per cent.
    mean: f64,
    worst: f64,
    jain: f64,
}

/// The figure.
pub(super) fn draw(analysis: &Analysis, table: &PlotTable) -> Result<Scene, PlotFault> {
    let grouped = grouped(analysis, table.group.as_ref(), &[]);
    let percent =
        |values: Vec<f64>| -> Vec<f64> { values.into_iter().map(|share| share * 100.0).collect() };
    let clients: Vec<Vec<Vec<f64>>> = grouped
        .series
        .iter()
        .map(|series| {
            let runs = series.runs.iter().map(|run| percent(accuracies(run)));
            runs.filter(|values| !values.is_empty()).collect()
        })
        .collect();
    let all = || clients.iter().flatten().flatten().copied();
    let Some(lowest) = Statistics::of(&all().collect::<Vec<f64>>()).map(|all| all.min) else {
        return Err(PlotFault::without(Measure::Jain, table));
    };
    let bins = Bins::over(lowest);
    let mut counted = Counted { runs: 1 };
    let mut numbers: Vec<usize> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for (index, (series, seeds)) in grouped.series.iter().zip(&clients).enumerate() {
        let over = |number: fn(&[f64]) -> Option<f64>| {
            let values: Vec<f64> = seeds.iter().filter_map(|values| number(values)).collect();
            Statistics::of(&values).map(|statistics| statistics.mean)
        };
        let mean = |values: &[f64]| Statistics::of(values).map(|statistics| statistics.mean);
        let (Some(mean), Some(worst), Some(jain)) = (over(mean), over(worst_decile), over(jain))
        else {
            continue;
        };
        counted.runs = counted.runs.max(seeds.len());
        numbers.extend(seeds.iter().map(Vec::len));
        let together: Vec<f64> = seeds.iter().flatten().copied().collect();
        rows.push(Row {
            label: series.label.clone(),
            index,
            shares: bins.shares(&together),
            mean,
            worst,
            jain,
        });
    }
    let mut table = table.clone();
    table.band = crate::config::plot::Band::None;
    numbers.sort_unstable();
    numbers.dedup();
    let population = |run: &crate::analysis::Run| run.results.manifest.dataset.clients;
    let counts = match numbers.as_slice() {
        [one]
            if analysis
                .runs
                .iter()
                .all(|run| population(run) == *one as u64) =>
        {
            String::new()
        }
        [one] => format!("{} evaluated", super::super::plural(*one as u64, "client")),
        _ => String::new(),
    };
    let words = Words {
        title: title(&table, "Accuracy over clients".to_owned()),
        subtitle: subtitle(analysis, &table, &grouped, &counted, &[counts]),
        x: "Accuracy of a client (%)".to_owned(),
        y: "Clients (%)".to_owned(),
    };
    Ok(scene(&table, &words, &rows, &bins))
}

fn scene(table: &PlotTable, words: &Words, rows: &[Row], bins: &Bins) -> Scene {
    let width = table.width.pixels();
    let highest = rows
        .iter()
        .flat_map(|row| &row.shares)
        .copied()
        .fold(0.0, f64::max);
    let y = Axis::linear(0.0, highest, 2);
    let left = 8.0 + Panel::left_room(&y);
    let inner = width - left - 20.0;
    let each = match table.height {
        Some(height) => height / rows.len() as f64,
        None => 76.0,
    };
    // A row's numbers stand above its histogram.
    let head = 26.0;
    let mut scene = Scene::new(&words.title, width, 0.0);
    let top = heading(&mut scene, table, words, width) - 10.0;
    let wanted = (inner / 70.0).clamp(3.0, 8.0) as usize;
    let x = Axis::exact(bins.low(), 100.0, wanted).fitted(inner);
    let mut bottom = top;
    for (place, row) in rows.iter().enumerate() {
        let panel = Panel {
            left,
            top: top + place as f64 * (each + head) + head,
            width: inner,
            height: each,
            x: x.clone(),
            y: y.clone(),
        };
        paint(&mut scene, &panel, row, bins, rows.len() > 1);
        bottom = panel.bottom();
    }
    for &tick in &x.ticks {
        let at = left + x.share(tick) * inner;
        scene.line(vec![(at, bottom), (at, bottom + 4.0)], 0.9, AXIS);
        let place = (at, bottom + 7.0 + TICK_SIZE);
        scene.text(place, x.label(tick), TICK_SIZE, INK, Anchor::Middle);
    }
    let base = bottom + 14.0 + TICK_SIZE + LABEL_SIZE;
    let middle = left + inner / 2.0;
    scene.text(
        (middle, base),
        words.x.as_str(),
        LABEL_SIZE,
        INK,
        Anchor::Middle,
    );
    scene.marks.push(Mark::Text {
        at: (8.0 + LABEL_SIZE, f64::midpoint(top + head, bottom)),
        text: words.y.clone(),
        size: LABEL_SIZE,
        color: INK,
        anchor: Anchor::Middle,
        upwards: true,
    });
    scene.height = (base + 9.0).ceil() as u32;
    scene
}

fn paint(scene: &mut Scene, panel: &Panel, row: &Row, bins: &Bins, named: bool) {
    let (color, _) = look(row.index);
    for &tick in &panel.y.ticks {
        let (_, y) = panel.at(panel.x.low, tick);
        scene.line(vec![(panel.left, y), (panel.right(), y)], 0.7, GRID);
        let at = (panel.left - 7.0, y + 0.36 * TICK_SIZE);
        scene.text(at, panel.y.label(tick), TICK_SIZE, INK, Anchor::End);
    }
    let mut outline = vec![panel.at(bins.edges(0).0, 0.0)];
    for (bin, &share) in row.shares.iter().enumerate() {
        let (from, to) = bins.edges(bin);
        let (corner, end) = (panel.at(from, share), panel.at(to, 0.0));
        if share > 0.0 {
            scene.rect(corner, (end.0 - corner.0, end.1 - corner.1), lighter(color));
        }
        outline.push(corner);
        outline.push((end.0, corner.1));
    }
    scene.line(outline, 1.2, color);
    scene.line(
        vec![
            (panel.left, panel.bottom()),
            (panel.right(), panel.bottom()),
        ],
        0.9,
        AXIS,
    );
    // The mean, and dotted that of the worst tenth.
    for (value, pattern) in [(row.mean, [].as_slice()), (row.worst, &[2.0, 3.0])] {
        let ends = [panel.at(value, 0.0), panel.at(value, panel.y.high)];
        for dash in dashes(&ends, pattern) {
            scene.line(dash, 1.4, INK);
        }
    }
    let numbers = format!(
        "mean {:.1} % · worst tenth {:.1} % · Jain {:.3}",
        row.mean, row.worst, row.jain
    );
    let base = panel.top - 6.0;
    let room = panel.width - font::width(&numbers, TICK_SIZE) - 12.0;
    if named {
        let label = shortened(&row.label, LABEL_SIZE, room);
        scene.text(
            (panel.left, base),
            label,
            LABEL_SIZE,
            darker(color),
            Anchor::Start,
        );
    }
    scene.text((panel.right(), base), numbers, TICK_SIZE, SOFT, Anchor::End);
}
