//! Curves: a measure over rounds, or over what was spent, the mean over seeds with a band around it.
//!
//! A mean is drawn only as far as all runs of its series go: beyond, it would be that of those that
//! happened to go on. Where the runs were not at the same places (virtual time, energy), their values
//! are interpolated linearly at evenly spaced ones.

use crate::analysis::{Analysis, Run, Statistics};
use crate::config::plot::{Band, Measure, PlotTable};

use super::super::axis::{Axis, dashes};
use super::super::curves::{Curve, Kind, range};
use super::super::scene::Scene;
use super::super::sheet::{Name, Sample, Sheet, Span, Words};
use super::super::style::{marker, series as look, shape};
use super::measure::{course, drawn, in_words};
use super::series::{around, grouped};
use super::{Counted, PlotFault, all, measured, subtitle, title};

/// Places at which runs are interpolated.
const PLACES: usize = 200;
/// Markers of a curve.
const MARKERS: usize = 9;

/// A place of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    x: f64,
    mean: f64,
    around: Option<(f64, f64)>,
}

/// The figure.
pub(super) fn draw(analysis: &Analysis, table: &PlotTable) -> Result<Scene, PlotFault> {
    let x = measured(&table.x, Measure::Rounds);
    let y = measured(&table.y, Measure::Accuracy);
    let grouped = grouped(analysis, table.group.as_ref(), &[]);
    let mut counted = Counted { runs: 1 };
    let mut curves: Vec<(usize, Vec<Place>)> = Vec::new();
    for (index, series) in grouped.series.iter().enumerate() {
        let runs: Vec<Vec<(f64, f64)>> = series
            .runs
            .iter()
            .map(|run| smoothed(&against(run, x, y), table.smoothing))
            .filter(|points| points.len() > 1)
            .collect();
        let places = places(&runs, table.band);
        if places.len() > 1 {
            counted.runs = counted.runs.max(runs.len());
            curves.push((index, places));
        }
    }
    let farthest = |curves: &[(usize, Vec<Place>)]| {
        let last = curves.iter().filter_map(|(_, places)| places.last());
        last.map(|place| place.x).fold(0.0, f64::max)
    };
    let runs = all(analysis);
    if curves.is_empty() {
        let nobody = |measure| runs.iter().all(|run| course(run, measure).len() < 2);
        let missing = if nobody(x) { x } else { y };
        return Err(PlotFault::without(missing, table));
    }
    let across = drawn(x, farthest(&curves), &runs);
    let values = curves.iter().flat_map(|(_, places)| places);
    let upright = drawn(y, values.map(|place| place.mean).fold(0.0, f64::max), &runs);
    for place in curves.iter_mut().flat_map(|(_, places)| places) {
        place.x *= across.factor;
        place.mean *= upright.factor;
        place.around = place
            .around
            .map(|(low, high)| (low * upright.factor, high * upright.factor));
    }
    let most = farthest(&curves);
    let wanted = (table.width.pixels() / 95.0).clamp(3.0, 7.0) as usize;
    let axis = match (table.x_limits, table.log_x) {
        (None, None | Some(false)) => Axis::exact(0.0, most, wanted),
        (limits, log) => {
            let places = curves.iter().flat_map(|(_, places)| places);
            let span = Span::of(places.map(|place| place.x).filter(|&x| x > 0.0));
            let span = Span {
                rounded: false,
                ..span
            };
            span.axis(limits, log, wanted)
        }
    };
    let vertical = vertical(table, y, &curves, axis.high);
    for (_, places) in &mut curves {
        places.retain(|place| axis.knows(place.x) && vertical.knows(place.mean));
    }
    let names: Vec<Name> = curves
        .iter()
        .map(|(index, places)| {
            let last = places.last();
            let label = &grouped.series[*index].label;
            let result = last.map(|place| match place.around {
                Some((low, high)) if table.band == Band::Deviation => {
                    upright.spread(place.mean, (high - low) / 2.0)
                }
                _ => upright.text(place.mean),
            });
            let result = result.unwrap_or_default();
            Name {
                label: format!("{label}  {result}"),
                index: *index,
                end: last.map(|place| (place.x.min(axis.high), place.mean)),
            }
        })
        .collect();
    let text = |title: &str| title.split(" (").next().unwrap_or(title).to_owned();
    let default = match x {
        Measure::Rounds => text(&upright.title),
        Measure::Epsilon => format!("{} against ε spent", text(&upright.title)),
        _ => format!(
            "{} against {}",
            text(&upright.title),
            in_words(&across.title)
        ),
    };
    let words = Words {
        title: title(table, default),
        subtitle: subtitle(analysis, table, &grouped, &counted, &[]),
        x: across.title.clone(),
        y: upright.title.clone(),
    };
    let mut sheet = Sheet::new(table, &words, (axis, vertical), names, Sample::Marked);
    paint(&mut sheet, &curves);
    Ok(sheet.finish())
}

fn paint(sheet: &mut Sheet, curves: &[(usize, Vec<Place>)]) {
    // Many bands on one another would hide the curves.
    let alpha = if curves.len() > 3 { 0.11 } else { 0.18 };
    for (index, places) in curves.iter().rev() {
        let (color, _) = look(*index);
        for piece in places.split(|place| place.around.is_none()) {
            let (panel, low) = (&sheet.panel, sheet.panel.y.low);
            let edge = |pick: fn((f64, f64)) -> f64| {
                // The band may reach below what a logarithmic axis knows.
                let known = move |value: f64| if panel.y.knows(value) { value } else { low };
                move |place: &Place| (place.x, known(place.around.map_or(place.mean, pick)))
            };
            let mut area: Vec<(f64, f64)> = piece.iter().map(edge(|around| around.1)).collect();
            area.extend(piece.iter().rev().map(edge(|around| around.0)));
            let inside = sheet.panel.area(&area);
            if inside.len() > 2 {
                sheet.scene.polygon(inside, color, alpha);
            }
        }
    }
    let width = if curves.len() > 4 { 1.4 } else { 1.8 };
    for (index, places) in curves.iter().rev() {
        let (color, pattern) = look(*index);
        let line: Vec<(f64, f64)> = places.iter().map(|place| (place.x, place.mean)).collect();
        for piece in sheet.panel.cut(&line) {
            for dash in dashes(&piece, pattern) {
                sheet.scene.line(dash, width, color);
            }
        }
        // Each series has its markers elsewhere, so that they do not hide one another.
        let every = places.len().div_ceil(MARKERS);
        let first = match every {
            0 | 1 => 0,
            every => (index * every.div_ceil(3)) % every,
        };
        for place in places.iter().skip(first).step_by(every.max(1)) {
            if sheet.panel.holds(place.x, place.mean) {
                let at = sheet.panel.at(place.x, place.mean);
                marker(&mut sheet.scene, shape(*index), at, 3.0, color);
            }
        }
    }
}

/// The vertical axis: as the table says, else as for curves without bands, with room for the bands.
fn vertical(
    table: &PlotTable,
    measure: Measure,
    curves: &[(usize, Vec<Place>)],
    last: f64,
) -> Axis {
    let wanted = 5;
    if table.y_limits.is_some() || table.log_y.is_some() {
        let places = curves.iter().flat_map(|(_, places)| places);
        let ends = places.flat_map(|place| {
            let (low, high) = place.around.unwrap_or((place.mean, place.mean));
            [low, place.mean, high]
        });
        let log = table.log_y == Some(true);
        let span = Span::of(ends.filter(|&value| !log || value > 0.0));
        return span.axis(table.y_limits, table.log_y, wanted);
    }
    let kind = match measure {
        Measure::Accuracy | Measure::AccuracyInt8 | Measure::TrainAccuracy => Kind::Percent,
        Measure::Loss | Measure::TrainLoss => Kind::Loss,
        _ => Kind::FromZero,
    };
    let edge = |pick: fn(&Place) -> f64| {
        curves.iter().map(move |(index, places)| Curve {
            label: String::new(),
            index: *index,
            points: places.iter().map(|place| (place.x, pick(place))).collect(),
        })
    };
    let low = |place: &Place| place.around.map_or(place.mean, |around| around.0);
    let high = |place: &Place| place.around.map_or(place.mean, |around| around.1);
    let edges: Vec<Curve> = edge(low).chain(edge(high)).collect();
    let edges: Vec<&Curve> = edges.iter().collect();
    range(kind, &edges, last)
}

/// The evaluations of a run as places on both axes.
fn against(run: &Run, x: Measure, y: Measure) -> Vec<(f64, f64)> {
    let across = course(run, x);
    course(run, y)
        .into_iter()
        .filter_map(|(round, value)| {
            let at = across.binary_search_by_key(&round, |point| point.0).ok()?;
            Some((across[at].1, value))
        })
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect()
}

/// Each value as the mean of itself and up to `reach` before and as many after it.
fn smoothed(points: &[(f64, f64)], reach: u64) -> Vec<(f64, f64)> {
    let reach = reach as usize;
    (0..points.len())
        .map(|at| {
            // As many on one side as on the other, so that ends are not drawn to the middle.
            let reach = reach.min(at).min(points.len() - 1 - at);
            let near = &points[at - reach..=at + reach];
            let sum: f64 = near.iter().map(|point| point.1).sum();
            (points[at].0, sum / near.len() as f64)
        })
        .collect()
}

/// The first or the last place of a run.
type End = fn(&Vec<(f64, f64)>) -> Option<&(f64, f64)>;

/// Means over runs with what is around them.
fn places(runs: &[Vec<(f64, f64)>], band: Band) -> Vec<Place> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    let shortest = runs.iter().map(Vec::len).min().unwrap_or(0);
    let same = |at: usize| {
        let mut xs = runs.iter().map(|points| points[at].0);
        xs.all(|x| x.total_cmp(&first[at].0).is_eq())
    };
    let columns: Vec<(f64, Vec<f64>)> = if (0..shortest).all(same) {
        (0..shortest)
            .map(|at| {
                let values = runs.iter().map(|points| points[at].1).collect();
                (first[at].0, values)
            })
            .collect()
    } else {
        let ends = |pick: End| runs.iter().filter_map(pick).map(|point| point.0);
        let from = ends(|points| points.first()).fold(f64::NEG_INFINITY, f64::max);
        let to = ends(|points| points.last()).fold(f64::INFINITY, f64::min);
        if from >= to {
            return Vec::new();
        }
        let count = shortest.clamp(2, PLACES);
        (0..count)
            .map(|at| {
                let x = from + (to - from) * at as f64 / (count - 1) as f64;
                (
                    x,
                    runs.iter().map(|points| interpolated(points, x)).collect(),
                )
            })
            .collect()
    };
    columns
        .into_iter()
        .filter_map(|(x, values)| {
            let statistics = Statistics::of(&values)?;
            Some(Place {
                x,
                mean: statistics.mean,
                around: around(band, &statistics),
            })
        })
        .collect()
}

/// The value of a polyline at `x`, whose ends are around it. Where it rises upright, that after it.
fn interpolated(points: &[(f64, f64)], x: f64) -> f64 {
    let after = points.partition_point(|point| point.0 <= x);
    match (points.get(after.wrapping_sub(1)), points.get(after)) {
        (Some(&(x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (Some(&(_, y)), None) | (None, Some(&(_, y))) => y,
        (None, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_those_of_the_runs() {
        let runs = [
            vec![(0.0, 10.0), (1.0, 20.0), (2.0, 30.0)],
            vec![(0.0, 14.0), (1.0, 26.0)],
        ];
        // Means 12 and 23; deviations of two values are their distance over the square root of 2.
        let found = places(&runs, Band::Deviation);
        assert_eq!(found.len(), 2);
        let root = 2.0_f64.sqrt();
        for (place, (x, mean, apart)) in found.iter().zip([(0.0, 12.0, 4.0), (1.0, 23.0, 6.0)]) {
            let (low, high) = place.around.unwrap();
            assert_eq!((place.x, place.mean), (x, mean));
            assert!((high - mean - apart / root).abs() < 1e-12);
            assert!((mean - low - apart / root).abs() < 1e-12);
        }
        assert_eq!(places(&runs, Band::Range)[1].around, Some((20.0, 26.0)));
        assert_eq!(places(&runs, Band::None)[0].around, None);
        assert_eq!(places(&runs[..1], Band::Deviation)[0].around, None);
        // Of two values the bootstrap's means are both, and that in the middle twice.
        assert_eq!(places(&runs, Band::Interval)[0].around, Some((10.0, 14.0)));
        assert!(places(&[], Band::Range).is_empty());
    }

    #[test]
    fn runs_at_other_places_are_interpolated() {
        let runs = [
            vec![(0.0, 0.0), (2.0, 20.0), (4.0, 40.0)],
            vec![(1.0, 10.0), (5.0, 50.0), (6.0, 60.0)],
        ];
        // Both are the line y = 10 x; they share 1 to 4.
        let found = places(&runs, Band::Range);
        let xs: Vec<f64> = found.iter().map(|place| place.x).collect();
        assert_eq!(xs, [1.0, 2.5, 4.0]);
        for place in found {
            assert!((place.mean - 10.0 * place.x).abs() < 1e-12);
        }
        let apart = [vec![(0.0, 0.0), (1.0, 1.0)], vec![(2.0, 0.0), (3.0, 1.0)]];
        assert!(places(&apart, Band::Range).is_empty());
    }

    #[test]
    fn smoothing_keeps_lines_and_ends() {
        let line: Vec<(f64, f64)> = (0..5).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        assert_eq!(smoothed(&line, 2), line);
        assert_eq!(smoothed(&line, 0), line);
        let peak = [(0.0, 0.0), (1.0, 3.0), (2.0, 0.0)];
        assert_eq!(smoothed(&peak, 5), [(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]);
    }
}
