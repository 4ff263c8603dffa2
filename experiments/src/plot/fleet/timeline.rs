//! The course of the first rounds: a bar for each client, which downloads, trains and sends.
//!
//! Synchronous rounds are blocks below one another, each with its own time from zero, and a line at
//! its end; who reported before waits for it. Of an asynchronous run the first clients are one block,
//! with a line wherever the model moved. Only of runs that tell of single clients
//! (`telemetry.per_client`).

use crate::results::{TimelineRow, VariantResults};

use super::super::axis::{Axis, Panel};
use super::super::curves::heading;
use super::super::font::{self, Anchor};
use super::super::scene::{Mark, Rgb, Scene};
use super::super::style::{AXIS, INK, SOFT, TICK_SIZE, series};
use super::{Run, TIME, unit};

/// Bars of a figure; a first round of more is thinned out.
const MOST_BARS: usize = 48;
/// Room of a bar, its thickness, and the room of a block's heading.
const ROW: f64 = 11.0;
const BAR: f64 = 7.0;
const HEAD: f64 = 24.0;
const WIDTH: f64 = 560.0;
const SMALL: f64 = 9.0;
const WAITING: Rgb = (205, 205, 205);

/// What a client does, and the series whose colour it has.
const PHASES: [(&str, usize); 3] = [("downloading", 5), ("training", 0), ("sending", 2)];
/// How a client's part may end, and what is said of it.
const ENDS: [(&str, &str); 5] = [
    ("counted", "counted"),
    ("left", "left"),
    ("late", "late"),
    ("surplus", "not needed"),
    ("refused", "refused"),
];

/// A figure for each run that tells of single clients.
pub(super) fn draw(runs: &[Run<'_>]) -> Vec<(String, Scene)> {
    let told = runs.iter().filter_map(|run| {
        let blocks = blocks(run.variant);
        (!blocks.is_empty()).then(|| scene(run.label, &blocks))
    });
    told.enumerate()
        .map(|(index, scene)| match index {
            0 => ("timeline".to_owned(), scene),
            _ => (format!("timeline-{}", index + 1), scene),
        })
        .collect()
}

/// A round, or the beginning of an asynchronous run.
#[derive(Debug)]
struct Block<'a> {
    title: String,
    /// The moment that is zero on its axis, in seconds.
    zero: f64,
    bars: Vec<&'a TimelineRow>,
    /// When rounds ended, in seconds of virtual time.
    ends: Vec<f64>,
    /// Until when those that counted wait; they do not in an asynchronous run.
    waits: Option<f64>,
}

impl Block<'_> {
    fn last(&self) -> f64 {
        let bars = self.bars.iter().map(|bar| bar.ended_seconds);
        bars.chain(self.waits).fold(self.zero, f64::max) - self.zero
    }
}

fn blocks(variant: &VariantResults) -> Vec<Block<'_>> {
    if is_asynchronous(variant) {
        return stream(variant).into_iter().collect();
    }
    let mut blocks = Vec::new();
    let mut drawn = 0;
    for row in &variant.fleet {
        let parts = variant.timeline.iter();
        let mut bars: Vec<&TimelineRow> = parts.filter(|part| part.round == row.round).collect();
        if bars.is_empty() {
            continue;
        }
        if !blocks.is_empty() && drawn + bars.len() > MOST_BARS {
            break;
        }
        bars.sort_by(|a, b| {
            let times = a.ended_seconds.total_cmp(&b.ended_seconds);
            times.then(a.client.cmp(&b.client))
        });
        let all = bars.len();
        let bars = thinned(bars);
        drawn += bars.len();
        let shown = match bars.len() < all {
            true => format!(", {} of {all} clients", bars.len()),
            false => String::new(),
        };
        blocks.push(Block {
            title: format!("round {}: {}{shown}", row.round + 1, row.end),
            zero: row.started_seconds,
            bars,
            ends: vec![row.ended_seconds],
            waits: Some(row.ended_seconds),
        });
    }
    blocks
}

/// The first clients of an asynchronous run, in the order in which they were called.
fn stream(variant: &VariantResults) -> Option<Block<'_>> {
    let mut bars: Vec<&TimelineRow> = variant.timeline.iter().collect();
    bars.sort_by(|a, b| {
        let calls = a.started_seconds.total_cmp(&b.started_seconds);
        let ends = a.ended_seconds.total_cmp(&b.ended_seconds);
        calls.then(ends).then(a.client.cmp(&b.client))
    });
    bars.truncate(MOST_BARS);
    let zero = bars.first()?.started_seconds;
    let last = bars
        .iter()
        .map(|bar| bar.ended_seconds)
        .fold(zero, f64::max);
    let ends = variant.fleet.iter().map(|row| row.ended_seconds);
    Some(Block {
        title: format!(
            "the first {} clients; a line wherever the model moved",
            bars.len()
        ),
        zero,
        bars,
        ends: ends.filter(|&end| end <= last).collect(),
        waits: None,
    })
}

fn is_asynchronous(variant: &VariantResults) -> bool {
    let schedule = variant.manifest.config.get("schedule");
    let mode = schedule.and_then(|schedule| schedule.get("mode"));
    mode.and_then(toml::Value::as_str) == Some("asynchronous")
}

/// As many as fit, evenly spread, the first and the last among them.
fn thinned(bars: Vec<&TimelineRow>) -> Vec<&TimelineRow> {
    if bars.len() <= MOST_BARS {
        return bars;
    }
    let last = bars.len() - 1;
    (0..MOST_BARS)
        .filter_map(|index| bars.get(index * last / (MOST_BARS - 1)).copied())
        .collect()
}

fn scene(label: &str, blocks: &[Block<'_>]) -> Scene {
    let names = blocks.iter().flat_map(|block| &block.bars);
    let left = names
        .map(|bar| font::width(&name(bar), SMALL))
        .fold(0.0, f64::max)
        + 24.0;
    let last = blocks.iter().map(Block::last).fold(0.0, f64::max);
    let (unit, size) = unit(TIME, last);
    let top = 52.0;
    let height: f64 = blocks
        .iter()
        .map(|block| HEAD + ROW * block.bars.len() as f64)
        .sum();
    let panel = Panel {
        left,
        top,
        width: WIDTH,
        height,
        x: Axis::exact(0.0, (last / size).max(f64::MIN_POSITIVE) * 1.02, 6),
        y: Axis::exact(0.0, 1.0, 1),
    };
    let mut scene = Scene::new(
        "Who did what in a round",
        panel.right() + 24.0,
        panel.bottom() + 74.0,
    );
    heading(&mut scene, "Who did what in a round", label);
    super::across_axis(&mut scene, &panel, &format!("Virtual time ({unit})"));
    let mut y = top;
    for block in blocks {
        draw_block(&mut scene, &panel, block, y, size);
        y += HEAD + ROW * block.bars.len() as f64;
    }
    legend(&mut scene, (20.0, panel.bottom() + 60.0), blocks);
    scene
}

fn name(bar: &TimelineRow) -> String {
    format!("{} · {}", bar.device, bar.client)
}

/// Draws a block whose upper edge is at `top`; `size` is the unit of the axis in seconds.
fn draw_block(scene: &mut Scene, panel: &Panel, block: &Block<'_>, top: f64, size: f64) {
    let x = |seconds: f64| panel.at((seconds - block.zero) / size, 0.0).0;
    let first = top + HEAD;
    let bottom = first + ROW * block.bars.len() as f64;
    let title = (panel.left, first - 6.0);
    scene.text(title, &*block.title, TICK_SIZE, SOFT, Anchor::Start);
    let width = if block.ends.len() > 1 { 0.8 } else { 1.4 };
    for &end in &block.ends {
        scene.line(vec![(x(end), first - 2.0), (x(end), bottom)], width, AXIS);
    }
    for (row, bar) in block.bars.iter().enumerate() {
        let middle = first + ROW * (row as f64 + 0.5);
        let at = (panel.left - 8.0, middle + 0.36 * SMALL);
        scene.text(at, name(bar), SMALL, INK, Anchor::End);
        let mut piece = |from: f64, to: f64, color: Rgb, thickness: f64| {
            if to > from {
                scene.marks.push(Mark::Rect {
                    corner: (x(from), middle - thickness / 2.0),
                    size: (x(to) - x(from), thickness),
                    color,
                    alpha: 1.0,
                });
            }
        };
        for ((from, to), (_, color)) in pieces(bar).into_iter().zip(PHASES) {
            piece(from, to, series(color).0, BAR);
        }
        if let Some(end) = block.waits.filter(|_| bar.end == "counted") {
            piece(bar.ended_seconds, end, WAITING, 2.0);
        }
        mark(scene, (x(bar.ended_seconds), middle), &bar.end);
    }
}

/// From when to when a client downloaded, trained and sent. A part that was over before has no length.
fn pieces(bar: &TimelineRow) -> [(f64, f64); 3] {
    let over = bar.ended_seconds;
    let downloaded = bar.downloaded_seconds.min(over);
    let trained = bar.trained_seconds.clamp(downloaded, over.max(downloaded));
    [
        (bar.started_seconds, downloaded),
        (downloaded, trained),
        (trained, over),
    ]
}

/// Marks how a part ended, by form and colour.
fn mark(scene: &mut Scene, (x, y): (f64, f64), end: &str) {
    let mut disc = |radius: f64, color: Rgb| {
        scene.marks.push(Mark::Disc {
            center: (x, y),
            radius,
            color,
            alpha: 1.0,
        });
    };
    let red = series(1).0;
    let cross = |color: Rgb| {
        let arm = 3.2;
        [
            (vec![(x - arm, y - arm), (x + arm, y + arm)], color),
            (vec![(x - arm, y + arm), (x + arm, y - arm)], color),
        ]
    };
    match end {
        "counted" => disc(2.6, INK),
        "surplus" => {
            disc(3.6, AXIS);
            disc(2.3, (255, 255, 255));
        }
        "late" => {
            disc(3.6, red);
            disc(2.3, (255, 255, 255));
        }
        other => {
            let color = if other == "left" { red } else { INK };
            for (line, color) in cross(color) {
                scene.line(line, 1.6, color);
            }
        }
    }
}

/// The phases, and those ends that occur.
fn legend(scene: &mut Scene, (left, base): (f64, f64), blocks: &[Block<'_>]) {
    let mut x = left;
    let mut say = |scene: &mut Scene, text: &str, sample: f64| {
        let at = (x + sample, base);
        scene.text(at, text, TICK_SIZE, INK, Anchor::Start);
        let from = x;
        x += sample + font::width(text, TICK_SIZE) + 16.0;
        from
    };
    let waits = blocks.iter().any(|block| block.waits.is_some());
    let waiting = waits.then_some(("waiting", WAITING, 2.0));
    let phases = PHASES.map(|(name, color)| (name, series(color).0, BAR));
    for (name, color, thickness) in phases.into_iter().chain(waiting) {
        let from = say(scene, name, 19.0);
        scene.marks.push(Mark::Rect {
            corner: (from, base - 4.0 - thickness / 2.0),
            size: (14.0, thickness),
            color,
            alpha: 1.0,
        });
    }
    for (end, name) in ENDS {
        let mut bars = blocks.iter().flat_map(|block| &block.bars);
        if bars.any(|bar| bar.end == end) {
            let from = say(scene, name, 12.0);
            mark(scene, (from + 4.0, base - 4.0), end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fleet_row, part, variant};
    use super::*;

    #[test]
    fn pieces_are_cut_where_a_part_is_over() {
        // Times of a client that would have its task at 2, be done at 5 and have sent at 6.
        for (over, expected) in [
            (6.0, [(1.0, 2.0), (2.0, 5.0), (5.0, 6.0)]),
            (5.0, [(1.0, 2.0), (2.0, 5.0), (5.0, 5.0)]),
            (3.0, [(1.0, 2.0), (2.0, 3.0), (3.0, 3.0)]),
            (1.5, [(1.0, 1.5), (1.5, 1.5), (1.5, 1.5)]),
        ] {
            let mut bar = part(0, 7, "left", 1.0, over);
            (bar.downloaded_seconds, bar.trained_seconds) = (2.0, 5.0);
            assert_eq!(pieces(&bar), expected);
        }
    }

    #[test]
    fn rounds_are_drawn_while_they_fit() {
        let rows = |rounds: u64, clients: u64| {
            let mut variant = variant("");
            for round in 0..rounds {
                let began = 10.0 * round as f64;
                variant.fleet.push(fleet_row(round, began, began + 9.0));
                for client in 0..clients {
                    let over = began + 9.0 - client as f64 / clients as f64;
                    let part = part(round, client, "counted", began, over);
                    variant.timeline.push(part);
                }
            }
            variant
        };
        for (rounds, clients, expected) in [
            (5, 20, vec![20, 20]),
            (2, 48, vec![48]),
            (3, 16, vec![16, 16, 16]),
            (1, 200, vec![48]),
        ] {
            let variant = rows(rounds, clients);
            let blocks = blocks(&variant);
            let bars: Vec<usize> = blocks.iter().map(|block| block.bars.len()).collect();
            assert_eq!(bars, expected);
            for block in &blocks {
                let ends = |bar: &&TimelineRow| bar.ended_seconds;
                assert!(block.bars.iter().map(ends).is_sorted());
                assert!((block.last() - 9.0).abs() < 1e-9);
            }
            // The slowest is there however many were left out.
            let last = blocks[0].bars.last().map(|bar| bar.client);
            assert_eq!(last, Some(0));
            assert!(scene("a", &blocks).svg().is_ok());
        }
    }

    #[test]
    fn asynchronous_clients_are_one_block() {
        let mut variant = variant("schedule.mode = \"asynchronous\"");
        for step in 0..3 {
            let end = 2.0 * step as f64 + 1.0;
            variant.fleet.push(fleet_row(step, end - 2.0, end));
            variant
                .timeline
                .push(part(step, step, "counted", end - 1.0, end));
        }
        let blocks = blocks(&variant);
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].ends, [1.0, 3.0, 5.0]);
        assert_eq!(blocks[0].waits, None);
    }
}
