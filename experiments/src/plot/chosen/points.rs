//! A measure at the end of runs against a key of the configuration, or against what was spent, a line
//! for each series, with error bars over seeds. What is infinite (epsilon without privacy) has a place
//! of its own beyond the axis.

use std::collections::BTreeMap;

use crate::analysis::{Analysis, AxisValue, EPSILON, Run, Statistics};
use crate::config::plot::{Measure, PlotTable, Quantity};

use super::super::axis::{Axis, dashes};
use super::super::scene::{Rgb, Scene};
use super::super::sheet::{Name, Sample, Sheet, Span, Words};
use super::super::style::{marker, series as look, shape};
use super::measure::{drawn, in_words, last, target_text};
use super::series::{around, grouped, key_title, tick, value};
use super::{Counted, PlotFault, all, measured, subtitle, title};

/// A point of a line.
#[derive(Clone, Debug)]
struct Spot {
    /// Where it is across: infinite at infinity.
    x: f64,
    mean: f64,
    around: Option<(f64, f64)>,
    runs: usize,
}

/// How values stand on the horizontal axis.
enum Across {
    Numbers(Axis),
    /// One place for each word, in their order.
    Words(Vec<String>),
}

/// The figure.
pub(super) fn draw(analysis: &Analysis, table: &PlotTable) -> Result<Scene, PlotFault> {
    let x = Some(table.x.clone().unwrap_or(Quantity::Key(EPSILON.to_owned())));
    let y = measured(&table.y, Measure::Accuracy);
    let key = match &x {
        Some(Quantity::Key(key)) => Some(key.clone()),
        _ => None,
    };
    // What was spent follows from what was asked for: epsilon tells no series apart.
    let asked = Some(Quantity::Key(EPSILON.to_owned()));
    let spent = Some(Quantity::Measure(Measure::Epsilon));
    let also = if x == spent { &asked } else { &None };
    let mut grouped = grouped(analysis, table.group.as_ref(), &[&x, also]);
    let runs = all(analysis);
    let words = words(analysis, key.as_deref(), &runs);
    let mut counted = Counted { runs: 1 };
    let mut lines: Vec<(usize, Vec<Spot>)> = Vec::new();
    for (index, series) in grouped.series.iter().enumerate() {
        let spots = spots(analysis, table, &series.runs, x.as_ref(), y, &words);
        if let Some(most) = spots.iter().map(|spot| spot.runs).max() {
            counted.runs = counted.runs.max(most);
            lines.push((index, spots));
        }
    }
    if lines.is_empty() {
        let measure = match x {
            Some(Quantity::Measure(measure))
                if runs
                    .iter()
                    .all(|run| last(run, measure, table.target).is_none()) =>
            {
                measure
            }
            _ => y,
        };
        return Err(PlotFault::without(measure, table));
    }
    let all_spots = || lines.iter().flat_map(|(_, spots)| spots);
    let most = all_spots()
        .map(|spot| spot.mean)
        .filter(|mean| mean.is_finite());
    let upright = drawn(y, most.fold(0.0, f64::max), &runs);
    let across = match &x {
        Some(Quantity::Measure(measure)) => {
            let most = all_spots().map(|spot| spot.x).filter(|x| x.is_finite());
            Some(drawn(*measure, most.fold(0.0, f64::max), &runs))
        }
        _ => None,
    };
    for spot in lines.iter_mut().flat_map(|(_, spots)| spots) {
        spot.x *= across.as_ref().map_or(1.0, |drawn| drawn.factor);
        spot.mean *= upright.factor;
        spot.around = spot
            .around
            .map(|(low, high)| (low * upright.factor, high * upright.factor));
    }
    let wanted = (table.width.pixels() / 95.0).clamp(3.0, 7.0) as usize;
    let axis = axis(table, &lines, &words, wanted);
    let ends = lines.iter().flat_map(|(_, spots)| spots).flat_map(|spot| {
        let (low, high) = spot.around.unwrap_or((spot.mean, spot.mean));
        [low, spot.mean, high]
    });
    let vertical = Span {
        percent: upright.percent,
        ..Span::of(ends)
    };
    let vertical = vertical.axis(table.y_limits, table.log_y, 5);
    let horizontal = match &axis {
        Across::Numbers(axis) => axis.clone(),
        Across::Words(words) => words_axis(words.len()),
    };
    for (_, spots) in &mut lines {
        spots.retain(|spot| horizontal.knows(spot.x) && vertical.knows(spot.mean));
    }
    let x_title = match (&across, &x) {
        (Some(drawn), _) => drawn.title.clone(),
        (None, Some(quantity)) => key_title(quantity.name()),
        (None, None) => String::new(),
    };
    let names = names(&mut grouped.series, &lines, &upright);
    let target = target_text(y, table.target, &runs);
    let text = |title: &str| title.split(" (").next().unwrap_or(title).to_owned();
    let against = match (&x, &across) {
        (Some(Quantity::Key(key)), _) if key == EPSILON => "ε".to_owned(),
        (_, Some(_)) if x == spent => "ε".to_owned(),
        _ => in_words(&x_title),
    };
    let words_around = Words {
        title: title(table, format!("{} against {against}", text(&upright.title))),
        subtitle: subtitle(analysis, table, &grouped, &counted, target.as_slice()),
        x: x_title,
        y: upright.title.clone(),
    };
    let axes = (horizontal, vertical);
    let mut sheet = Sheet::new(table, &words_around, axes, names, Sample::Marked);
    if let Across::Words(words) = &axis {
        name_places(&mut sheet, words);
    }
    paint(&mut sheet, &lines);
    Ok(sheet.finish())
}

/// The words that stand across; none where the axis has numbers.
fn words(analysis: &Analysis, key: Option<&str>, runs: &[&Run]) -> Vec<String> {
    let Some(key) = key else { return Vec::new() };
    let mut values: Vec<AxisValue> = runs.iter().map(|run| value(analysis, run, key)).collect();
    values.sort();
    values.dedup();
    let is_word = |value: &AxisValue| matches!(value, AxisValue::Text(_));
    match values.iter().any(is_word) {
        true => values.iter().map(ToString::to_string).collect(),
        false => Vec::new(),
    }
}

/// The points of a series, from left to right. Runs that have the same value of a key are one; of what
/// was spent, those that are the same but for the seed.
fn spots(
    analysis: &Analysis,
    table: &PlotTable,
    runs: &[&Run],
    x: Option<&Quantity>,
    y: Measure,
    words: &[String],
) -> Vec<Spot> {
    let mut found: BTreeMap<Vec<AxisValue>, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for run in runs {
        let (at, place) = match x {
            Some(Quantity::Measure(measure)) => {
                (run.values.clone(), last(run, *measure, table.target))
            }
            Some(Quantity::Key(key)) => {
                let value = value(analysis, run, key);
                let word = words.iter().position(|word| *word == value.to_string());
                let place = match words {
                    [] => value.number(),
                    _ => word.map(|place| place as f64),
                };
                (vec![value], place)
            }
            None => continue,
        };
        let (Some(place), Some(result)) = (place, last(run, y, table.target)) else {
            continue;
        };
        if result.is_finite() {
            let (places, results) = found.entry(at).or_default();
            places.push(place);
            results.push(result);
        }
    }
    let mut spots: Vec<Spot> = found
        .into_values()
        .filter_map(|(places, results)| {
            let statistics = Statistics::of(&results)?;
            Some(Spot {
                x: Statistics::of(&places)?.mean,
                mean: statistics.mean,
                around: around(table.band, &statistics),
                runs: statistics.count,
            })
        })
        .collect();
    spots.sort_by(|a, b| a.x.total_cmp(&b.x));
    spots
}

fn axis(
    table: &PlotTable,
    lines: &[(usize, Vec<Spot>)],
    words: &[String],
    wanted: usize,
) -> Across {
    if !words.is_empty() {
        return Across::Words(words.to_vec());
    }
    let xs = || lines.iter().flat_map(|(_, spots)| spots).map(|spot| spot.x);
    let span = Span::of(xs());
    // Levels are usually chosen by factors: three of them suggest a logarithm.
    let factors = span.low > 0.0 && span.high > 3.0 * span.low;
    let log = table.log_x.unwrap_or(factors);
    let axis = span.axis(table.x_limits, Some(log), wanted);
    Across::Numbers(match xs().any(f64::is_infinite) {
        true => axis.with_infinity(),
        false => axis,
    })
}

/// Places 0, 1, 2 ... with half a place before and after.
pub(super) fn words_axis(count: usize) -> Axis {
    let mut axis = Axis::exact(-0.5, count as f64 - 0.5, 2);
    axis.ticks.clear();
    axis
}

fn name_places(sheet: &mut Sheet, words: &[String]) {
    let room = sheet.panel.width / words.len() as f64 - 6.0;
    for (place, word) in words.iter().enumerate() {
        let (x, _) = sheet.panel.at(place as f64, sheet.panel.y.low);
        sheet.name_place(x, word, room);
    }
}

fn names(
    series: &mut [super::series::Series<'_>],
    lines: &[(usize, Vec<Spot>)],
    upright: &super::measure::Drawn,
) -> Vec<Name> {
    lines
        .iter()
        .filter_map(|(index, spots)| {
            let last = spots.last()?;
            let label = core::mem::take(&mut series.get_mut(*index)?.label);
            // Of a single point the value says where it is.
            let label = match spots.len() {
                1 => format!("{label}  {}", upright.text(last.mean)),
                _ => label,
            };
            Some(Name {
                label,
                index: *index,
                end: Some((last.x, last.mean)),
            })
        })
        .collect()
}

/// An error bar with its ends.
pub(super) fn whisker(scene: &mut Scene, from: (f64, f64), to: (f64, f64), color: Rgb) {
    let upright = (from.0 - to.0).abs() < (from.1 - to.1).abs();
    scene.line(vec![from, to], 1.2, color);
    for (x, y) in [from, to] {
        let end = match upright {
            true => vec![(x - 3.0, y), (x + 3.0, y)],
            false => vec![(x, y - 3.0), (x, y + 3.0)],
        };
        scene.line(end, 1.2, color);
    }
}

fn paint(sheet: &mut Sheet, lines: &[(usize, Vec<Spot>)]) {
    let panel = sheet.panel.clone();
    // Points at the same place stand a little apart.
    let aside = |place: usize| match lines.len() {
        1 => 0.0,
        count => (place as f64 - (count - 1) as f64 / 2.0) * 3.0_f64.min(14.0 / count as f64),
    };
    for (place, (index, spots)) in lines.iter().enumerate().rev() {
        let (color, pattern) = look(*index);
        let finite: Vec<(f64, f64)> = spots
            .iter()
            .filter(|spot| spot.x.is_finite())
            .map(|spot| (spot.x, spot.mean))
            .collect();
        let shifted = |line: &[(f64, f64)]| -> Vec<(f64, f64)> {
            line.iter().map(|&(x, y)| (x + aside(place), y)).collect()
        };
        for piece in panel.cut(&finite) {
            for dash in dashes(&shifted(&piece), pattern) {
                sheet.scene.line(dash, 1.5, color);
            }
        }
        // To infinity a line is dotted: nothing is between.
        let beyond = spots.iter().find(|spot| spot.x.is_infinite());
        if let (Some(&last), Some(beyond)) = (finite.last(), beyond) {
            for piece in panel.cut(&[last, (beyond.x, beyond.mean)]) {
                for dash in dashes(&shifted(&piece), &[1.2, 4.0]) {
                    sheet.scene.line(dash, 1.2, color);
                }
            }
        }
        for spot in spots {
            if let Some((low, high)) = spot.around {
                let low = if panel.y.knows(low) { low } else { panel.y.low };
                let (from, to) = (panel.at(spot.x, low), panel.at(spot.x, high));
                let cut = |y: f64| y.clamp(panel.top, panel.bottom());
                let x = from.0 + aside(place);
                if high > low && panel.holds(spot.x, spot.mean) {
                    whisker(&mut sheet.scene, (x, cut(from.1)), (x, cut(to.1)), color);
                }
            }
        }
        for spot in spots.iter().filter(|spot| panel.holds(spot.x, spot.mean)) {
            let (x, y) = panel.at(spot.x, spot.mean);
            marker(
                &mut sheet.scene,
                shape(*index),
                (x + aside(place), y),
                3.2,
                color,
            );
        }
    }
}

/// How a value is written as a place.
pub(super) fn place_text(value: &AxisValue) -> String {
    match value {
        AxisValue::Number(number) => tick(*number),
        AxisValue::Absent => "none".to_owned(),
        AxisValue::Text(text) => text.clone(),
    }
}
