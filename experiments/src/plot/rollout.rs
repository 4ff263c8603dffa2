//! A rollout: which share of the devices runs which version, with the stages; and what is loaded on a
//! day, whole files beside patches.
//!
//! A variant is a panel. Days on which the group of a version is too small to be told are gaps.

use std::collections::BTreeMap;

use crate::results::{RolloutRow, VariantResults, rollout_events};

use super::axis::{Axis, Panel};
use super::curves::heading;
use super::font::{self, Anchor};
use super::scene::{Mark, Rgb, Scene};
use super::style::{GRID, INK, LABEL_SIZE, SOFT, TICK_SIZE, darker, series};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 170.0;
/// Room from one panel to the next: its title, the ticks and the axis' title.
const GAP: f64 = 86.0;
const TOP: f64 = 92.0;
/// Room for the legends at the right.
const RIGHT: f64 = 170.0;

/// Colours of whole files and of patches.
const FULL: usize = 1;
const PATCH: usize = 2;

/// A variant and what it is called.
pub(crate) struct Rollout<'a> {
    pub(crate) label: &'a str,
    pub(crate) variant: &'a VariantResults,
}

impl Rollout<'_> {
    fn rows(&self) -> &[RolloutRow] {
        &self.variant.rollout
    }

    fn days(&self) -> f64 {
        self.rows().iter().map(|row| row.day).max().unwrap_or(1) as f64
    }
}

fn played<'a, 'b>(all: &'a [Rollout<'b>]) -> Vec<&'a Rollout<'b>> {
    all.iter().filter(|one| !one.rows().is_empty()).collect()
}

/// Panels one below the other.
fn panels(count: usize, left: f64, axes: impl Fn(usize) -> (Axis, Axis)) -> Vec<Panel> {
    (0..count)
        .map(|index| {
            let (x, y) = axes(index);
            Panel {
                left,
                top: TOP + index as f64 * (HEIGHT + GAP),
                width: WIDTH,
                height: HEIGHT,
                x,
                y,
            }
        })
        .collect()
}

/// Share of the devices by version; none without a rollout.
pub(crate) fn draw_shares(subtitle: &str, all: &[Rollout<'_>]) -> Option<Scene> {
    let all = played(all);
    let panels = panels(all.len(), 62.0, |index| {
        (
            Axis::exact(0.0, all[index].days(), 8),
            Axis::exact(0.0, 100.0, 4),
        )
    });
    let title = "Devices by model version";
    let bottom = panels.last()?.bottom();
    let mut scene = Scene::new(title, 62.0 + WIDTH + RIGHT, bottom + 56.0);
    heading(&mut scene, title, subtitle);
    for (one, panel) in all.iter().zip(&panels) {
        panel.frame(&mut scene, "Day", "Devices (%)");
        let above = (12.0, panel.top - 32.0);
        scene.text(above, one.label, LABEL_SIZE, INK, Anchor::Start);
        stages(&mut scene, panel, one.rows());
        let versions: BTreeMap<u64, u64> = one
            .rows()
            .iter()
            .map(|row| (row.version, row.round))
            .collect();
        let mut labels = Vec::new();
        for (index, (&version, &round)) in versions.iter().enumerate() {
            let (color, _) = series(index);
            let pieces = shares(one.rows(), version);
            for piece in &pieces {
                let points = piece.iter().map(|&(day, share)| panel.at(day, share));
                let points: Vec<(f64, f64)> = points.collect();
                if let [point] = points.as_slice() {
                    scene.marks.push(Mark::Disc {
                        center: *point,
                        radius: 1.8,
                        color,
                        alpha: 1.0,
                    });
                }
                scene.line(points, 1.8, color);
            }
            let own = || one.rows().iter().filter(|row| row.version == version);
            let mark = match own().any(|row| row.state == "withdrawn") {
                true => ", withdrawn",
                false => "",
            };
            labels.push((format!("round {round}{mark}"), color));
        }
        legend(&mut scene, panel, &labels);
    }
    Some(scene)
}

/// The share of the devices that run a version, in per cent, in pieces of days on which it is told.
/// Everybody begins with version 0.
fn shares(rows: &[RolloutRow], version: u64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    if version == 0 {
        piece.push((0.0, 100.0));
    }
    for row in rows.iter().filter(|row| row.version == version) {
        match row.devices {
            Some(devices) => {
                if piece.is_empty() && row.day >= 1 && pieces.is_empty() {
                    // It was nobody's before it was released.
                    piece.push((row.day as f64 - 1.0, 0.0));
                }
                piece.push((row.day as f64, 100.0 * devices / row.fleet.max(1) as f64));
            }
            None => pieces.push(core::mem::take(&mut piece)),
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// A line at each hour in which something happened to a release, and what: two rows of words, so that
/// those of neighbours do not touch.
fn stages(scene: &mut Scene, panel: &Panel, rows: &[RolloutRow]) {
    let mut ends = [f64::NEG_INFINITY; 2];
    for (hour, text) in marks(rows) {
        let (x, _) = panel.at(hour as f64 / 24.0, 0.0);
        scene.line(vec![(x, panel.top), (x, panel.bottom())], 1.0, GRID);
        let half = font::width(&text, TICK_SIZE) / 2.0;
        let x = x.max(panel.left + half);
        let Some(row) = ends.iter().position(|&end| x - half > end) else {
            continue;
        };
        ends[row] = x + half + 5.0;
        let at = (x, panel.top - 4.0 - row as f64 * (TICK_SIZE + 2.0));
        scene.text(at, text, TICK_SIZE, SOFT, Anchor::Middle);
    }
}

/// Hours and what happened in them, in short; of one hour the last.
fn marks(rows: &[RolloutRow]) -> BTreeMap<u64, String> {
    let mut marks = BTreeMap::new();
    for (hour, what) in rows.iter().flat_map(|row| rollout_events(&row.events)) {
        let short = match what.split_once(" began") {
            Some((share, _)) => share,
            None if what.starts_with("withdrawn") => "rolled back",
            None => "all",
        };
        marks.insert(hour, short.to_owned());
    }
    marks
}

fn legend(scene: &mut Scene, panel: &Panel, labels: &[(String, Rgb)]) {
    // The newest ones, where there are too many.
    let most = 11;
    let left = panel.right() + 14.0;
    let skipped = labels.len().saturating_sub(most);
    for (row, (label, color)) in labels.iter().skip(skipped).enumerate() {
        let y = panel.top + 8.0 + 15.5 * row as f64;
        scene.line(vec![(left, y), (left + 14.0, y)], 1.8, *color);
        let at = (left + 19.0, y + 0.36 * TICK_SIZE);
        scene.text(at, label.as_str(), TICK_SIZE, darker(*color), Anchor::Start);
    }
}

/// Bytes loaded on each day; none without a rollout.
pub(crate) fn draw_traffic(subtitle: &str, all: &[Rollout<'_>]) -> Option<Scene> {
    let all = played(all);
    let days: Vec<Vec<[f64; 2]>> = all.iter().map(|one| traffic(one.rows())).collect();
    let most: Vec<f64> = days
        .iter()
        .map(|days| {
            days.iter()
                .map(|[full, patch]| full + patch)
                .fold(0.0, f64::max)
        })
        .collect();
    let panels = panels(all.len(), 62.0, |index| {
        let (scale, _) = unit(most[index]);
        let y = Axis::linear(0.0, (most[index] / scale).max(1e-3), 4);
        (Axis::exact(0.0, all[index].days(), 8), y)
    });
    let title = "Downloads of a day";
    let bottom = panels.last()?.bottom();
    let mut scene = Scene::new(title, 62.0 + WIDTH + RIGHT, bottom + 56.0);
    heading(&mut scene, title, subtitle);
    for (index, (one, panel)) in all.iter().zip(&panels).enumerate() {
        let (scale, name) = unit(most[index]);
        panel.frame(&mut scene, "Day", name);
        let above = (12.0, panel.top - 32.0);
        scene.text(above, one.label, LABEL_SIZE, INK, Anchor::Start);
        let mut sums = [0.0; 2];
        for (day, bytes) in days[index].iter().enumerate() {
            let mut low = 0.0;
            for (kind, color) in [(0, FULL), (1, PATCH)] {
                let high = low + bytes[kind] / scale;
                let (left, top) = panel.at(day as f64 + 0.1, high);
                let (right, bottom) = panel.at(day as f64 + 0.9, low);
                if high > low {
                    scene.marks.push(Mark::Rect {
                        corner: (left, top),
                        size: (right - left, bottom - top),
                        color: series(color).0,
                        alpha: 1.0,
                    });
                }
                low = high;
                sums[kind] += bytes[kind];
            }
        }
        let labels = [("whole files", FULL, sums[0]), ("patches", PATCH, sums[1])].map(
            |(what, color, sum)| {
                let (scale, name) = unit(sum);
                let short = name.split(' ').next_back().unwrap_or_default();
                let short = short.trim_matches(['(', ')']);
                let text = match sum > 0.0 {
                    true => format!("{what}  {:.3} {short}", sum / scale),
                    false => format!("{what}  0"),
                };
                (text, series(color).0)
            },
        );
        legend(&mut scene, panel, &labels);
    }
    Some(scene)
}

/// Bytes of whole files and of patches, by day.
fn traffic(rows: &[RolloutRow]) -> Vec<[f64; 2]> {
    let mut days = Vec::new();
    for row in rows {
        let index = row.day.saturating_sub(1) as usize;
        // Rows are in the order of days.
        while days.len() <= index {
            days.push([0.0; 2]);
        }
        days[index][0] += row.bytes_full as f64;
        days[index][1] += row.bytes_patch as f64;
    }
    days
}

/// The largest unit of which there is at least one, and the axis' title with it.
fn unit(bytes: f64) -> (f64, &'static str) {
    let units = [
        (1e15, "Loaded (PB)"),
        (1e12, "Loaded (TB)"),
        (1e9, "Loaded (GB)"),
        (1e6, "Loaded (MB)"),
        (1e3, "Loaded (kB)"),
    ];
    let fits = units.into_iter().find(|(size, _)| bytes >= *size * 0.9);
    fits.unwrap_or((1.0, "Loaded (B)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Cell, ColumnKind, Row as _};

    fn row(day: u64, version: u64, devices: Option<f64>, bytes: (u64, u64)) -> RolloutRow {
        let cell = |&(name, kind): &(&str, ColumnKind)| match (name, kind) {
            ("day", _) => Cell::Count(day),
            ("version", _) => Cell::Count(version),
            ("fleet", _) => Cell::Count(1000),
            ("devices", _) => Cell::Real(devices),
            ("bytes_full", _) => Cell::Count(bytes.0),
            ("bytes_patch", _) => Cell::Count(bytes.1),
            (_, ColumnKind::Count) => Cell::Count(0),
            (_, ColumnKind::Real) => Cell::Real(Some(0.0)),
            (_, ColumnKind::OptionalReal) => Cell::Real(None),
            (_, ColumnKind::Text) => Cell::Text(String::new()),
        };
        let cells: Vec<Cell> = RolloutRow::COLUMNS.iter().map(cell).collect();
        RolloutRow::from_cells(&cells).unwrap()
    }

    #[test]
    fn what_is_not_told_is_a_gap() {
        let rows = [
            row(1, 0, Some(1000.0), (0, 0)),
            row(1, 1, None, (0, 0)),
            row(2, 0, None, (0, 0)),
            row(2, 1, Some(100.0), (0, 0)),
            row(3, 0, Some(250.0), (0, 0)),
            row(3, 1, Some(750.0), (0, 0)),
        ];
        assert_eq!(
            shares(&rows, 0),
            [vec![(0.0, 100.0), (1.0, 100.0)], vec![(3.0, 25.0)]]
        );
        assert_eq!(shares(&rows, 1), [vec![(2.0, 10.0), (3.0, 75.0)]]);
        // From nothing, where the first day is told.
        assert_eq!(shares(&rows[3..4], 1), [vec![(1.0, 0.0), (2.0, 10.0)]]);
        assert!(shares(&rows, 2).is_empty());
    }

    #[test]
    fn stages_stand_at_their_hours() {
        let mut rows = [row(1, 0, None, (0, 0)), row(1, 1, None, (0, 0))];
        rows[1].events = "hour 0: 1 % began; hour 48: withdrawn at 1 % (worse)".to_owned();
        rows[0].events = "hour 48: 100 % began; hour 48: completed".to_owned();
        let found: Vec<(u64, String)> = marks(&rows).into_iter().collect();
        let expected =
            [(0, "1 %"), (48, "rolled back")].map(|(hour, what)| (hour, what.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn traffic_is_added_over_versions() {
        let rows = [
            row(1, 0, None, (1, 10)),
            row(1, 1, None, (2, 20)),
            row(3, 1, None, (4, 40)),
        ];
        assert_eq!(traffic(&rows), [[3.0, 30.0], [0.0, 0.0], [4.0, 40.0]]);
        for (bytes, scale) in [(0.0, 1.0), (999.0, 1e3), (1e15, 1e15), (3.2e13, 1e12)] {
            assert!((unit(bytes).0 - scale).abs() < 1e-9, "{bytes}");
        }
    }

    #[test]
    fn without_a_rollout_there_is_no_figure() {
        assert!(draw_shares("", &[]).is_none());
        assert!(draw_traffic("", &[]).is_none());
    }
}
