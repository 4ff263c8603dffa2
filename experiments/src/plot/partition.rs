//! The partition: which classes a sample of the clients holds, and how many examples.

use std::collections::{BTreeMap, BTreeSet};

use crate::results::PartitionRow;

use super::axis::{Axis, Panel, number};
use super::curves::heading;
use super::font::{self, Anchor};
use super::scene::{Mark, Rgb, Scene};
use super::style::{AXIS, GRID, INK, SOFT, TICK_SIZE};

const BLUE: Rgb = (0, 114, 178);

/// The figure; none when there are no rows.
pub(crate) fn draw(subtitle: &str, rows: &[PartitionRow]) -> Option<Scene> {
    let clients: Vec<u64> = distinct(rows.iter().map(|row| row.client));
    let names: BTreeMap<u64, &str> = rows
        .iter()
        .map(|row| (row.class, row.class_name.as_str()))
        .collect();
    let classes: Vec<u64> = names.keys().copied().collect();
    if clients.is_empty() {
        return None;
    }
    let largest = rows
        .iter()
        .map(|row| row.examples)
        .max()
        .unwrap_or(1)
        .max(1);
    let totals: Vec<u64> = clients
        .iter()
        .map(|&client| {
            rows.iter()
                .filter(|row| row.client == client)
                .map(|row| row.examples)
                .sum()
        })
        .collect();

    // Rows shrink when there are many classes; then not every one is named.
    let row = (330.0 / classes.len() as f64).clamp(7.0, 24.0);
    let name_every = (14.0 / row).ceil() as usize;
    let column = (620.0 / clients.len() as f64).clamp(9.0, 24.0);
    let name_room = names
        .values()
        .map(|name| font::width(&shortened(name), TICK_SIZE))
        .fold(0.0, f64::max);

    let sizes = Axis::linear(0.0, totals.iter().copied().max().unwrap_or(1) as f64, 2);
    let left = (name_room + 40.0).max(Panel::left_room(&sizes) + 6.0);
    let width = column * clients.len() as f64;
    let bars = Panel {
        left,
        top: 74.0,
        width,
        height: 64.0,
        x: Axis::exact(0.0, clients.len() as f64, 1),
        y: sizes,
    };
    let (top, height) = (bars.bottom() + 14.0, row * classes.len() as f64);
    let bottom = top + height;
    let mut scene = Scene::new(
        "Examples by client and class",
        (left + width + 24.0).max(430.0),
        bottom + 92.0,
    );
    heading(&mut scene, "Examples by client and class", subtitle);

    draw_bars(&mut scene, &bars, &totals, column);
    for line in 0..classes.len() {
        let y = top + row * (line as f64 + 0.5);
        scene.line(vec![(left, y), (left + width, y)], 0.7, GRID);
    }
    for (line, class) in classes.iter().enumerate() {
        if line % name_every == 0 {
            scene.text(
                (
                    left - 8.0,
                    top + row * (line as f64 + 0.5) + 0.36 * TICK_SIZE,
                ),
                shortened(names[class]),
                TICK_SIZE,
                INK,
                Anchor::End,
            );
        }
    }
    // The largest disc nearly fills its cell.
    let full = row.min(column) * 0.46;
    for entry in rows.iter().filter(|entry| entry.examples > 0) {
        let (Ok(x), Ok(y)) = (
            clients.binary_search(&entry.client),
            classes.binary_search(&entry.class),
        ) else {
            continue;
        };
        scene.marks.push(Mark::Disc {
            center: (
                left + column * (x as f64 + 0.5),
                top + row * (y as f64 + 0.5),
            ),
            radius: (full * (entry.examples as f64 / largest as f64).sqrt()).max(0.5),
            color: BLUE,
            alpha: 1.0,
        });
    }
    scene.line(vec![(left, bottom), (left + width, bottom)], 0.9, AXIS);
    name_clients(&mut scene, &clients, (left, bottom), column);
    scene.text(
        (left + width / 2.0, bottom + 40.0),
        "Client",
        super::style::LABEL_SIZE,
        INK,
        Anchor::Middle,
    );
    size_legend(&mut scene, (left, bottom + 68.0), largest, full);
    Some(scene)
}

fn distinct(values: impl Iterator<Item = u64>) -> Vec<u64> {
    values.collect::<BTreeSet<_>>().into_iter().collect()
}

/// At most 22 letters.
fn shortened(name: &str) -> String {
    if name.chars().count() <= 22 {
        return name.to_owned();
    }
    let start: String = name.chars().take(21).collect();
    format!("{}…", start.trim_end())
}

/// Bars of the clients' sizes above the discs.
fn draw_bars(scene: &mut Scene, panel: &Panel, totals: &[u64], column: f64) {
    for &tick in &panel.y.ticks {
        let (_, y) = panel.at(0.0, tick);
        scene.line(vec![(panel.left, y), (panel.right(), y)], 0.7, GRID);
        scene.text(
            (panel.left - 8.0, y + 0.36 * TICK_SIZE),
            panel.y.label(tick),
            TICK_SIZE,
            INK,
            Anchor::End,
        );
    }
    for (index, &total) in totals.iter().enumerate() {
        let (x, y) = panel.at(index as f64, total as f64);
        scene.marks.push(Mark::Rect {
            corner: (x + column * 0.17, y),
            size: (column * 0.66, panel.bottom() - y),
            color: (140, 140, 140),
            alpha: 1.0,
        });
    }
    scene.line(
        vec![
            (panel.left, panel.bottom()),
            (panel.right(), panel.bottom()),
        ],
        0.9,
        AXIS,
    );
    scene.text(
        (panel.left, panel.top - 8.0),
        "Examples of a client",
        TICK_SIZE,
        SOFT,
        Anchor::Start,
    );
}

/// Writes the clients' numbers under their columns, as many as fit.
fn name_clients(scene: &mut Scene, clients: &[u64], (left, bottom): (f64, f64), column: f64) {
    let widest = clients
        .iter()
        .map(|&client| font::width(&number(client as f64, 1.0), TICK_SIZE))
        .fold(0.0, f64::max);
    let every = ((widest + 8.0) / column).ceil() as usize;
    for (index, &client) in clients.iter().enumerate().step_by(every.max(1)) {
        let x = left + column * (index as f64 + 0.5);
        scene.line(vec![(x, bottom), (x, bottom + 4.0)], 0.9, AXIS);
        scene.text(
            (x, bottom + 7.0 + TICK_SIZE),
            number(client as f64, 1.0),
            TICK_SIZE,
            INK,
            Anchor::Middle,
        );
    }
}

/// What the area of a disc means.
fn size_legend(scene: &mut Scene, (left, middle): (f64, f64), largest: u64, full: f64) {
    let label = "Area of a disc: examples of the class";
    scene.text(
        (left, middle + 0.36 * TICK_SIZE),
        label,
        TICK_SIZE,
        SOFT,
        Anchor::Start,
    );
    let mut x = left + font::width(label, TICK_SIZE) + 20.0;
    for size in distinct([largest.div_ceil(16), largest.div_ceil(4), largest].into_iter()) {
        let radius = (full * (size as f64 / largest as f64).sqrt()).max(0.5);
        scene.marks.push(Mark::Disc {
            center: (x, middle),
            radius,
            color: BLUE,
            alpha: 1.0,
        });
        let text = number(size as f64, 1.0);
        scene.text(
            (x + full + 5.0, middle + 0.36 * TICK_SIZE),
            text.as_str(),
            TICK_SIZE,
            INK,
            Anchor::Start,
        );
        x += full * 2.0 + font::width(&text, TICK_SIZE) + 18.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_partition_can_be_drawn() {
        assert!(draw("", &[]).is_none());
        for (clients, classes) in [(1, 1), (3, 2), (40, 10), (40, 62)] {
            let rows: Vec<PartitionRow> = (0..clients)
                .flat_map(|client| {
                    (0..classes).map(move |class| PartitionRow {
                        client: client * 1000,
                        class,
                        class_name: format!("a class with a long name, {class}"),
                        examples: client * class,
                    })
                })
                .collect();
            let scene = draw("", &rows).unwrap();
            assert!(scene.svg().is_ok());
            assert!(
                scene.width < 1200 && scene.height < 800,
                "{clients} {classes}"
            );
        }
    }
}
