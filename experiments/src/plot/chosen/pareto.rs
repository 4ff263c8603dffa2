//! Two measures at the end of runs against one another: who is beaten in neither is on the front, which
//! is joined by stairs, as nothing between its points was reached; the others are pale.
//!
//! A point is the mean over seeds of runs that are the same but for them. One point beats another when
//! it is at least as good in both measures and better in one (Pareto; Deb 2001, "Multi-Objective
//! Optimization using Evolutionary Algorithms", definition 2.5).

use std::collections::BTreeSet;

use crate::analysis::{Analysis, Group, Statistics};
use crate::config::plot::{Measure, PlotTable};

use super::super::axis::dashes;
use super::super::font::Anchor;
use super::super::scene::Scene;
use super::super::sheet::{Name, Sample, Sheet, Span, Words, shortened};
use super::super::style::{AXIS, INK, TICK_SIZE, lighter, marker, series as look, shape};
use super::measure::{Drawn, drawn, in_words, last, target_text};
use super::points::whisker;
use super::series::{around, grouped, is_cell, value, written};
use super::{Counted, PlotFault, all, measured, subtitle, title};

/// Points of a front that are explained below the panel.
const EXPLAINED: usize = 12;
const ROW: f64 = 15.0;

/// A group of runs.
#[derive(Clone, Debug)]
struct Spot<'a> {
    group: &'a Group,
    /// Which series it is of.
    index: usize,
    x: f64,
    y: f64,
    x_around: Option<(f64, f64)>,
    y_around: Option<(f64, f64)>,
}

/// The figure.
pub(super) fn draw(analysis: &Analysis, table: &PlotTable) -> Result<Scene, PlotFault> {
    let x = measured(&table.x, Measure::Bytes);
    let y = measured(&table.y, Measure::Accuracy);
    let runs = all(analysis);
    let every = grouped(analysis, table.group.as_ref(), &[]);
    let mut counted = Counted { runs: 1 };
    let mut spots: Vec<Spot<'_>> = Vec::new();
    for group in &analysis.groups {
        let values = |measure| -> Vec<f64> {
            let runs = analysis.runs_of(group);
            runs.filter_map(|run| last(run, measure, table.target))
                .collect()
        };
        let (Some(across), Some(upright)) =
            (Statistics::of(&values(x)), Statistics::of(&values(y)))
        else {
            continue;
        };
        let of = |series: &super::series::Series<'_>| {
            let mut runs = analysis.runs_of(group);
            runs.any(|run| series.runs.iter().any(|other| core::ptr::eq(*other, run)))
        };
        let Some(index) = every.series.iter().position(of) else {
            continue;
        };
        counted.runs = counted.runs.max(upright.count);
        spots.push(Spot {
            group,
            index,
            x: across.mean,
            y: upright.mean,
            x_around: around(table.band, &across),
            y_around: around(table.band, &upright),
        });
    }
    if spots.is_empty() {
        let nobody = |measure| {
            runs.iter()
                .all(|run| last(run, measure, table.target).is_none())
        };
        return Err(PlotFault::without(if nobody(x) { x } else { y }, table));
    }
    let most = |pick: fn(&Spot<'_>) -> f64| {
        let values = spots.iter().map(pick).filter(|value| value.is_finite());
        values.fold(0.0, f64::max)
    };
    let (across, upright) = (
        drawn(x, most(|spot| spot.x), &runs),
        drawn(y, most(|spot| spot.y), &runs),
    );
    let scaled =
        |ends: Option<(f64, f64)>, factor: f64| ends.map(|(a, b)| (a * factor, b * factor));
    for spot in &mut spots {
        spot.x *= across.factor;
        spot.y *= upright.factor;
        spot.x_around = scaled(spot.x_around, across.factor);
        spot.y_around = scaled(spot.y_around, upright.factor);
    }
    let places: Vec<(f64, f64)> = spots.iter().map(|spot| (spot.x, spot.y)).collect();
    let front = front(&places, (x.more_is_better(), y.more_is_better()));
    let explained = explained(analysis, &spots, &front, (&across, &upright));
    let axes = axes(table, &spots, (&across, &upright));
    let one_each = every.series.len() == spots.len();
    // A name for each point says no more than the front's list does.
    let names: Vec<Name> = match one_each {
        true => Vec::new(),
        false => {
            let name = |(index, series): (usize, &super::series::Series<'_>)| Name {
                label: series.label.clone(),
                index,
                end: None,
            };
            every.series.iter().enumerate().map(name).collect()
        }
    };
    let text = |title: &str| title.split(" (").next().unwrap_or(title).to_owned();
    let target = target_text(x, table.target, &runs).or(target_text(y, table.target, &runs));
    let own = super::series::Grouped {
        series: Vec::new(),
        pooled: Vec::new(),
    };
    let words = Words {
        title: title(
            table,
            format!("{} and {}", text(&upright.title), in_words(&across.title)),
        ),
        subtitle: subtitle(analysis, table, &own, &counted, target.as_slice()),
        x: across.title.clone(),
        y: upright.title.clone(),
    };
    let mut sheet = Sheet::new(table, &words, axes, names, Sample::Marker);
    paint(&mut sheet, &spots, &front, one_each);
    let panel = (sheet.panel.left, f64::from(sheet.scene.width));
    let mut scene = sheet.finish();
    explain(&mut scene, &explained, panel);
    Ok(scene)
}

/// The places of those that nobody beats, best first in the first coordinate; of equals all.
/// `more` says for each coordinate whether more of it is better.
fn front(points: &[(f64, f64)], more: (bool, bool)) -> Vec<usize> {
    // From here on less is better.
    let sign = |more: bool, value: f64| if more { -value } else { value };
    let costs: Vec<(f64, f64)> = points
        .iter()
        .map(|&(x, y)| (sign(more.0, x), sign(more.1, y)))
        .collect();
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|&a, &b| {
        let (a_cost, b_cost) = (costs[a], costs[b]);
        let first = a_cost.0.total_cmp(&b_cost.0);
        first.then(a_cost.1.total_cmp(&b_cost.1)).then(a.cmp(&b))
    });
    let mut front: Vec<usize> = Vec::new();
    for place in order {
        let beaten = front.last().is_some_and(|&last| {
            let equal = costs[last].0.total_cmp(&costs[place].0).is_eq()
                && costs[last].1.total_cmp(&costs[place].1).is_eq();
            costs[place].1 >= costs[last].1 && !equal
        });
        if !beaten {
            front.push(place);
        }
    }
    front
}

fn axes(
    table: &PlotTable,
    spots: &[Spot<'_>],
    (across, upright): (&Drawn, &Drawn),
) -> (super::super::axis::Axis, super::super::axis::Axis) {
    let wanted = (table.width.pixels() / 95.0).clamp(3.0, 7.0) as usize;
    let ends = |around: Option<(f64, f64)>, mean: f64| {
        let (low, high) = around.unwrap_or((mean, mean));
        [low, mean, high]
    };
    let xs = || spots.iter().flat_map(|spot| ends(spot.x_around, spot.x));
    let ys = || spots.iter().flat_map(|spot| ends(spot.y_around, spot.y));
    let axis = |span: Span, drawn: &Drawn, limits, log, wanted, infinite: bool| {
        let span = Span {
            percent: drawn.percent,
            ..span
        };
        let axis = span.axis(limits, log, wanted);
        match infinite {
            true => axis.with_infinity(),
            false => axis,
        }
    };
    let infinite = |mut values: Box<dyn Iterator<Item = f64> + '_>| values.any(f64::is_infinite);
    (
        axis(
            Span::of(xs()),
            across,
            table.x_limits,
            table.log_x,
            wanted,
            infinite(Box::new(xs())),
        ),
        axis(
            Span::of(ys()),
            upright,
            table.y_limits,
            table.log_y,
            5,
            infinite(Box::new(ys())),
        ),
    )
}

fn paint(sheet: &mut Sheet, spots: &[Spot<'_>], front: &[usize], one_each: bool) {
    let panel = sheet.panel.clone();
    let at = |place: usize| panel.at(spots[place].x, spots[place].y);
    // From each point across to where the next is, then to it: no step passes where it would be better
    // than both.
    let mut stairs: Vec<(f64, f64)> = Vec::new();
    for &place in front {
        let (x, y) = at(place);
        if let Some(&(_, before)) = stairs.last() {
            stairs.push((x, before));
        }
        stairs.push((x, y));
    }
    if stairs.len() > 1 {
        for dash in dashes(&stairs, &[5.0, 3.0]) {
            sheet.scene.line(dash, 1.1, AXIS);
        }
    }
    let on_front = |place: &usize| front.contains(place);
    let mut order: Vec<usize> = (0..spots.len()).filter(|place| !on_front(place)).collect();
    order.extend(front.iter().rev());
    for place in order {
        let spot = &spots[place];
        if !panel.holds(spot.x, spot.y) {
            continue;
        }
        let index = if one_each { 0 } else { spot.index };
        let (color, _) = look(index);
        let color = if on_front(&place) {
            color
        } else {
            lighter(color)
        };
        let (x, y) = at(place);
        for (ends, upright) in [(spot.x_around, false), (spot.y_around, true)] {
            let Some((low, high)) = ends.filter(|(low, high)| high > low && on_front(&place))
            else {
                continue;
            };
            let (from, to) = match upright {
                true => (panel.at(spot.x, low), panel.at(spot.x, high)),
                false => (panel.at(low, spot.y), panel.at(high, spot.y)),
            };
            whisker(&mut sheet.scene, from, to, color);
        }
        marker(&mut sheet.scene, shape(index), (x, y), 4.0, color);
    }
    for (letter, &place) in letters().zip(front.iter().take(EXPLAINED)) {
        let (x, y) = at(place);
        let at = (x + 6.0, y - 5.0);
        sheet
            .scene
            .text(at, letter.to_string(), TICK_SIZE, INK, Anchor::Start);
    }
}

fn letters() -> impl Iterator<Item = char> {
    'a'..='z'
}

/// A line for each point of the front: what it is, and its two values.
fn explained(
    analysis: &Analysis,
    spots: &[Spot<'_>],
    front: &[usize],
    (across, upright): (&Drawn, &Drawn),
) -> Vec<String> {
    let told = |spot: &Spot<'_>| {
        let run = analysis.runs_of(spot.group).next()?;
        let differing = analysis.axes.iter().filter(|axis| axis.values.len() > 1);
        let parts: Vec<String> = differing
            .filter_map(|axis| written(&axis.key, &value(analysis, run, &axis.key)))
            .collect();
        let names: BTreeSet<&str> = analysis
            .runs
            .iter()
            .map(|run| run.results.manifest.name.as_str())
            .collect();
        // Variants have names that say more than their keys.
        Some(
            match names.len() == analysis.groups.len() && !is_cell(run) {
                true => run.results.manifest.name.clone(),
                false => parts.join(" · "),
            },
        )
    };
    front
        .iter()
        .take(EXPLAINED)
        .filter_map(|&place| {
            let spot = &spots[place];
            Some(format!(
                "{}: {}, {}",
                told(spot)?,
                upright.text(spot.y),
                axis_text(across, spot.x)
            ))
        })
        .collect()
}

/// A value with what it is, where it has no unit.
fn axis_text(drawn: &Drawn, value: f64) -> String {
    match drawn.unit {
        "" if drawn.title.starts_with('ε') => format!("ε = {}", drawn.digits(value)),
        "" => format!("{} {}", drawn.digits(value), drawn.title.to_lowercase()),
        _ => drawn.text(value),
    }
}

/// Writes the list of the front below the panel.
fn explain(scene: &mut Scene, lines: &[String], (left, width): (f64, f64)) {
    let top = f64::from(scene.height);
    for (row, (letter, line)) in letters().zip(lines).enumerate() {
        let base = top + 6.0 + ROW * (row as f64 + 0.5);
        scene.text(
            (left, base),
            letter.to_string(),
            TICK_SIZE,
            INK,
            Anchor::Start,
        );
        let room = width - left - 8.0 - 16.0;
        let line = shortened(line, TICK_SIZE, room);
        scene.text((left + 16.0, base), line, TICK_SIZE, INK, Anchor::Start);
    }
    if !lines.is_empty() {
        scene.height = (top + 8.0 + ROW * lines.len() as f64).ceil() as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word by word.
    fn brute_force(points: &[(f64, f64)], more: (bool, bool)) -> Vec<usize> {
        let better = |more: bool, a: f64, b: f64| if more { a > b } else { a < b };
        let beats = |a: (f64, f64), b: (f64, f64)| {
            let no_worse = !better(more.0, b.0, a.0) && !better(more.1, b.1, a.1);
            no_worse && (better(more.0, a.0, b.0) || better(more.1, a.1, b.1))
        };
        (0..points.len())
            .filter(|&place| !points.iter().any(|&other| beats(other, points[place])))
            .collect()
    }

    #[test]
    fn the_front_is_that_of_the_definition() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            // Knuth's MMIX generator; small numbers, so that many are equal.
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for case in 0..2000 {
            let count = next(12) as usize;
            let mut points: Vec<(f64, f64)> = (0..count)
                .map(|_| (next(7) as f64, next(7) as f64))
                .collect();
            if case % 5 == 0 && count > 0 {
                points[0].0 = f64::INFINITY;
            }
            for more in [(false, true), (true, true), (true, false), (false, false)] {
                let mut found = front(&points, more);
                found.sort_unstable();
                assert_eq!(found, brute_force(&points, more), "{points:?} {more:?}");
            }
        }
    }

    #[test]
    fn a_front_worked_by_hand() {
        // Bytes, less is better, and accuracy, more is better.
        let points = [
            (1.0, 50.0),
            (2.0, 70.0),
            (3.0, 60.0),
            (4.0, 80.0),
            (4.0, 75.0),
        ];
        assert_eq!(front(&points, (false, true)), [0, 1, 3]);
        // Best first in the first coordinate.
        assert_eq!(front(&points, (true, true)), [3]);
        assert!(front(&[], (true, false)).is_empty());
    }
}
