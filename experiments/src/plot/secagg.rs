//! What secure aggregation costs: bytes and seconds of a client, and seconds of the server, by stage.
//!
//! A variant is a row, a stage a colour. Full discs were counted or measured, in sessions that were
//! really run for everybody; rings follow from the messages' sizes and the library's cost model. Where
//! both are there, a disc inside its ring says that they agree.

use crate::results::{SecAggRow, TimingRow, VariantResults};

use super::axis::{Axis, Panel};
use super::curves::heading;
use super::font::{self, Anchor};
use super::scene::{Mark, Rgb, Scene};
use super::style::{AXIS, GRID, INK, LABEL_SIZE, SOFT, TICK_SIZE, series};

/// Names of the stages, as in the results and in the figure.
const STAGES: [(&str, &str); 5] = [
    ("advertise-keys", "keys"),
    ("share-keys", "shares"),
    ("masked-input", "masked inputs"),
    ("consistency", "consistency"),
    ("unmask", "unmasking"),
];

/// Titles of the panels.
const TITLES: [&str; 3] = [
    "Bytes of a client",
    "Seconds of a client",
    "Seconds of the server",
];

/// Room of a row, and of a stage in it.
const ROW: f64 = 40.0;
const STEP: f64 = 6.5;

/// A variant and what it is called.
pub(crate) struct Costs<'a> {
    pub(crate) label: &'a str,
    pub(crate) variant: &'a VariantResults,
}

/// The mean over the rounds, by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    /// Counted or measured.
    seen: Option<f64>,
    modelled: Option<f64>,
}

impl Point {
    fn values(self) -> impl Iterator<Item = f64> {
        [self.seen, self.modelled].into_iter().flatten()
    }
}

/// By panel and stage.
type Points = [[Point; 5]; 3];

/// The figure; none without secure aggregation.
pub(crate) fn draw(subtitle: &str, variants: &[Costs<'_>]) -> Option<Scene> {
    let rows: Vec<(&str, Points)> = variants
        .iter()
        .filter(|one| !one.variant.secagg.is_empty())
        .map(|one| (one.label, points(&one.variant.secagg, &one.variant.timing)))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let names = rows
        .iter()
        .map(|(label, _)| font::width(label, LABEL_SIZE))
        .fold(0.0, f64::max);
    let (top, height) = (78.0, ROW * rows.len() as f64);
    let mut left = names + 28.0;
    let mut panels = Vec::new();
    for panel in 0..TITLES.len() {
        let values = || rows.iter().flat_map(move |(_, all)| all[panel]);
        let low = values()
            .flat_map(Point::values)
            .fold(f64::INFINITY, f64::min);
        let high = values().flat_map(Point::values).fold(0.0, f64::max);
        let x = match low < high {
            true => Axis::logarithmic(low, high),
            // No value, or one.
            false if high > 0.0 => Axis::logarithmic(high / 2.0, high * 2.0),
            false => Axis::logarithmic(0.1, 1.0),
        };
        panels.push(Panel {
            left,
            top,
            width: 230.0,
            height,
            x,
            y: Axis::exact(0.0, rows.len() as f64, 1),
        });
        left += 230.0 + 34.0;
    }
    let title = "Cost of secure aggregation in a round";
    let bottom = top + height;
    let legend_width = 560.0;
    let width = (left - 6.0).max(legend_width);
    let mut scene = Scene::new(title, width, bottom + 66.0);
    heading(&mut scene, title, subtitle);
    for (index, panel) in panels.iter().enumerate() {
        frame(&mut scene, panel, TITLES[index], rows.len());
        for (row, (_, points)) in rows.iter().enumerate() {
            let middle = top + ROW * (row as f64 + 0.5);
            for (stage, point) in points[index].iter().enumerate() {
                let y = middle + STEP * (stage as f64 - 2.0);
                let at = |value: f64| (panel.at(value, 0.0).0, y);
                let (color, _) = series(stage);
                if let Some(value) = point.modelled {
                    ring(&mut scene, at(value), color);
                }
                if let Some(value) = point.seen {
                    disc(&mut scene, at(value), 2.6, color);
                }
            }
        }
    }
    for (row, (label, _)) in rows.iter().enumerate() {
        let y = top + ROW * (row as f64 + 0.5) + 0.36 * LABEL_SIZE;
        let end = (panels[0].left - 12.0, y);
        scene.text(end, *label, LABEL_SIZE, INK, Anchor::End);
    }
    legend(&mut scene, (20.0, bottom + 50.0));
    Some(scene)
}

/// Means over the rounds.
fn points(rows: &[SecAggRow], timing: &[TimingRow]) -> Points {
    let mut points = Points::default();
    let clients: u64 = rows.iter().map(|row| row.clients).sum();
    let real = rows.iter().all(|row| row.mode == "real");
    let positive = |value: f64| (value > 0.0).then_some(value);
    for (stage, (name, _)) in STAGES.iter().enumerate() {
        let bytes: u64 = rows.iter().map(|row| bytes(row)[stage]).sum();
        let each = positive(bytes as f64 / clients.max(1) as f64);
        match real {
            true => points[0][stage].seen = each,
            false => points[0][stage].modelled = each,
        }
        let modelled = |pick: fn(&SecAggRow) -> [Option<f64>; 5]| {
            mean(rows.iter().filter_map(|row| pick(row)[stage])).and_then(positive)
        };
        points[1][stage].modelled = modelled(client_seconds);
        points[2][stage].modelled = modelled(server_seconds);
        if real {
            let measured = |whose: &str| {
                let what = format!("secagg-{name}-{whose}");
                let own = timing.iter().filter(|row| row.what == what);
                mean(own.map(|row| row.seconds)).and_then(positive)
            };
            points[1][stage].seen = measured("client-mean");
            points[2][stage].seen = measured("server");
        }
    }
    points
}

/// Of all messages, by the stage in which they are sent or answered.
fn bytes(row: &SecAggRow) -> [u64; 5] {
    // Who survived is signed under the active threat alone.
    let (signing, unmasking) = match row.bytes_signed_survivors {
        0 => (0, row.bytes_survivors),
        signed => (row.bytes_survivors + signed, row.bytes_unmask),
    };
    [
        row.bytes_advertise_keys,
        row.bytes_roster + row.bytes_share_keys,
        row.bytes_forwarded_shares + row.bytes_masked_input,
        signing,
        unmasking + row.bytes_unmasking_shares,
    ]
}

fn client_seconds(row: &SecAggRow) -> [Option<f64>; 5] {
    [
        row.modelled_client_advertise_keys_seconds,
        row.modelled_client_share_keys_seconds,
        row.modelled_client_masked_input_seconds,
        row.modelled_client_consistency_seconds,
        row.modelled_client_unmask_seconds,
    ]
}

fn server_seconds(row: &SecAggRow) -> [Option<f64>; 5] {
    [
        row.modelled_server_advertise_keys_seconds,
        row.modelled_server_share_keys_seconds,
        row.modelled_server_masked_input_seconds,
        row.modelled_server_consistency_seconds,
        row.modelled_server_unmask_seconds,
    ]
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    (count > 0.0).then(|| sum / count)
}

fn disc(scene: &mut Scene, center: (f64, f64), radius: f64, color: Rgb) {
    scene.marks.push(Mark::Disc {
        center,
        radius,
        color,
        alpha: 1.0,
    });
}

fn ring(scene: &mut Scene, center: (f64, f64), color: Rgb) {
    disc(scene, center, 4.6, color);
    disc(scene, center, 3.4, (255, 255, 255));
}

fn frame(scene: &mut Scene, panel: &Panel, title: &str, rows: usize) {
    let (left, right) = (panel.left, panel.right());
    let (top, bottom) = (panel.top, panel.bottom());
    scene.text((left, top - 10.0), title, LABEL_SIZE, SOFT, Anchor::Start);
    let mut free = f64::NEG_INFINITY;
    // Over two powers of ten and more these are enough.
    let is_power = |tick: f64| (tick.log10() - tick.log10().round()).abs() < 1e-9;
    let powers = panel.x.ticks.iter().filter(|&&tick| is_power(tick)).count();
    for &tick in &panel.x.ticks {
        let (x, _) = panel.at(tick, 0.0);
        scene.line(vec![(x, top), (x, bottom)], 0.7, GRID);
        if powers > 1 && !is_power(tick) {
            continue;
        }
        let label = panel.x.label(tick);
        let half = font::width(&label, TICK_SIZE) / 2.0;
        if x - half > free {
            free = x + half + 8.0;
            let at = (x, bottom + 7.0 + TICK_SIZE);
            scene.text(at, label, TICK_SIZE, INK, Anchor::Middle);
        }
    }
    for row in 0..=rows {
        let y = top + ROW * row as f64;
        let color = if row == rows { AXIS } else { GRID };
        scene.line(vec![(left, y), (right, y)], 0.9, color);
    }
}

/// The stages, and what discs and rings say.
fn legend(scene: &mut Scene, (left, base): (f64, f64)) {
    let mut x = left;
    for (stage, (_, name)) in STAGES.iter().enumerate() {
        disc(scene, (x + 4.0, base - 4.0), 4.0, series(stage).0);
        scene.text((x + 13.0, base), *name, TICK_SIZE, INK, Anchor::Start);
        x += 13.0 + font::width(name, TICK_SIZE) + 16.0;
    }
    for (seen, name) in [(true, "counted, measured"), (false, "modelled")] {
        match seen {
            true => disc(scene, (x + 4.0, base - 4.0), 2.6, AXIS),
            false => ring(scene, (x + 4.0, base - 4.0), AXIS),
        }
        scene.text((x + 13.0, base), name, TICK_SIZE, SOFT, Anchor::Start);
        x += 13.0 + font::width(name, TICK_SIZE) + 16.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Cell, ColumnKind, Row as _};

    /// A row in which everything but the cells given is zero or nothing.
    fn row(mode: &str, given: &[(&str, Cell)]) -> SecAggRow {
        let cell = |&(name, kind): &(&str, ColumnKind)| {
            let own = given.iter().find(|(column, _)| *column == name);
            own.map(|(_, cell)| cell.clone())
                .unwrap_or_else(|| match kind {
                    ColumnKind::Count => Cell::Count(0),
                    ColumnKind::Real => Cell::Real(Some(0.0)),
                    ColumnKind::OptionalReal => Cell::Real(None),
                    ColumnKind::Text if name == "mode" => Cell::Text(mode.to_owned()),
                    ColumnKind::Text => Cell::Text(String::new()),
                })
        };
        let cells: Vec<Cell> = SecAggRow::COLUMNS.iter().map(cell).collect();
        SecAggRow::from_cells(&cells).unwrap()
    }

    #[test]
    fn points_are_means_over_the_rounds() {
        let seconds = |value| Cell::Real(Some(value));
        let rows = |mode: &str| {
            [
                row(
                    mode,
                    &[
                        ("clients", Cell::Count(4)),
                        ("bytes_masked_input", Cell::Count(300)),
                        ("bytes_forwarded_shares", Cell::Count(100)),
                        ("bytes_survivors", Cell::Count(50)),
                        ("modelled_client_unmask_seconds", seconds(0.5)),
                    ],
                ),
                row(
                    mode,
                    &[
                        ("clients", Cell::Count(6)),
                        ("bytes_masked_input", Cell::Count(600)),
                        ("bytes_survivors", Cell::Count(50)),
                        ("modelled_client_unmask_seconds", seconds(1.5)),
                    ],
                ),
            ]
        };
        let timing = [("client-mean", 2.0), ("client-mean", 4.0), ("server", 9.0)].map(
            |(whose, seconds)| TimingRow {
                what: format!("secagg-masked-input-{whose}"),
                round: 0,
                seconds,
            },
        );
        let seen = |value| Point {
            seen: Some(value),
            modelled: None,
        };
        let modelled = |value| Point {
            seen: None,
            modelled: Some(value),
        };
        let none = Point::default();
        let real = points(&rows("real"), &timing);
        assert_eq!(real[0], [none, none, seen(100.0), none, seen(10.0)]);
        assert_eq!(real[1], [none, none, seen(3.0), none, modelled(1.0)]);
        assert_eq!(real[2], [none, none, seen(9.0), none, none]);
        let ideal = points(&rows("ideal"), &timing);
        assert_eq!(
            ideal[0],
            [none, none, modelled(100.0), none, modelled(10.0)]
        );
        assert_eq!(ideal[1], [none, none, none, none, modelled(1.0)]);
        assert_eq!(ideal[2], [none; 5]);
        // Under the active threat survivors are signed before anything is unmasked.
        let signed = row(
            "real",
            &[
                ("bytes_survivors", Cell::Count(3)),
                ("bytes_signed_survivors", Cell::Count(4)),
                ("bytes_unmask", Cell::Count(5)),
                ("bytes_unmasking_shares", Cell::Count(6)),
            ],
        );
        assert_eq!(bytes(&signed), [0, 0, 0, 7, 11]);
    }
}
