//! A quantity per round, or over what was spent, one curve per series, each labelled at its end.

use super::axis::{Axis, Panel, dashes, number, swatch};
use super::font::{self, Anchor};
use super::scene::{Mark, Rgb, Scene};
use super::style::{INK, LABEL_SIZE, SOFT, TITLE_SIZE, darker, series};

/// One curve.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) label: String,
    /// Which of the series it is; decides the colour, so that a series has one colour in all
    /// figures.
    pub(crate) index: usize,
    /// Rounds done, or what was spent until then, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Quantity {
    pub(crate) title: String,
    pub(crate) y_title: String,
    /// How the last value is written behind a curve's label.
    pub(crate) kind: Kind,
}

/// What kind of numbers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Per cent: within 0 and 100, more is better.
    Percent,
    /// A loss: less is better.
    Loss,
    /// A privacy loss, over the steps of training.
    Epsilon,
    /// Numbers from zero, of which the last is not the result.
    FromZero,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room of a line's sample before its label.
const SAMPLE: f64 = 28.0;
/// Rows of labels must be this far apart.
const ROW: f64 = 15.5;

/// The horizontal axis.
#[derive(Clone, Debug)]
pub(crate) struct Across {
    pub(crate) title: String,
    pub(crate) axis: Axis,
}

/// The figure over rounds; none when no curve has a point.
pub(crate) fn draw(quantity: &Quantity, subtitle: &str, curves: &[Curve]) -> Option<Scene> {
    let title = match quantity.kind {
        Kind::Epsilon => "Steps",
        Kind::Percent | Kind::Loss | Kind::FromZero => "Communication round",
    };
    let across = Across {
        title: title.to_owned(),
        axis: Axis::exact(0.0, farthest(curves).max(1.0), 6),
    };
    draw_across(quantity, subtitle, &across, curves)
}

/// How far the curves that have a value go.
pub(crate) fn farthest(curves: &[Curve]) -> f64 {
    curves
        .iter()
        .filter(|curve| curve.points.iter().any(|point| point.1.is_finite()))
        .flat_map(|curve| &curve.points)
        .map(|point| point.0)
        .fold(0.0, f64::max)
}

/// The figure over something else than rounds.
pub(crate) fn draw_across(
    quantity: &Quantity,
    subtitle: &str,
    across: &Across,
    curves: &[Curve],
) -> Option<Scene> {
    let curves: Vec<&Curve> = curves
        .iter()
        .filter(|curve| curve.points.iter().any(|point| point.1.is_finite()))
        .collect();
    if curves.is_empty() {
        return None;
    }
    let x = across.axis.clone();
    let y = range(quantity.kind, &curves, x.high);
    let labels: Vec<String> = curves
        .iter()
        .map(|curve| label(curve, quantity.kind))
        .collect();
    let label_width = labels
        .iter()
        .map(|label| font::width(label, LABEL_SIZE))
        .fold(0.0, f64::max);

    let left = Panel::left_room(&y) + 6.0;
    let top = 56.0;
    // With many series the figure grows, so that their labels fit.
    let height = (HEIGHT - top - 56.0).max(curves.len() as f64 * ROW);
    let panel = Panel {
        left,
        top,
        width: (WIDTH - left - 150.0).max(300.0),
        height,
        x,
        y,
    };
    let mut scene = Scene::new(
        &quantity.title,
        panel.right() + 26.0 + SAMPLE + label_width + 4.0,
        panel.bottom() + 56.0,
    );
    heading(&mut scene, &quantity.title, subtitle);
    panel.frame(&mut scene, &across.title, &quantity.y_title);

    // Corners of a staircase are no measurements.
    let is_staircase =
        |curve: &&Curve| (curve.points.windows(2)).any(|pair| pair[1].0 <= pair[0].0);
    let marks = curves.len() <= 7
        && curves.iter().all(|curve| curve.points.len() <= 45)
        && !curves.iter().any(is_staircase);
    let longest = curves.iter().map(|curve| curve.points.len()).max();
    let width = if curves.len() > 4 || longest > Some(150) {
        1.3
    } else {
        1.8
    };
    for curve in curves.iter().rev() {
        let (color, pattern) = series(curve.index);
        for piece in panel.clip(&curve.points) {
            for dash in dashes(&piece, pattern) {
                scene.line(dash, width, color);
            }
        }
        if marks {
            for &(round, value) in &curve.points {
                let center = panel.at(round, value);
                if value.is_finite() && center.1 >= top - 0.1 && center.1 <= panel.bottom() + 0.1 {
                    scene.marks.push(Mark::Disc {
                        center,
                        radius: 2.3,
                        color,
                        alpha: 1.0,
                    });
                }
            }
        }
    }
    end_labels(&mut scene, &panel, &curves, &labels);
    Some(scene)
}

/// Title and subtitle at the upper left.
pub(crate) fn heading(scene: &mut Scene, title: &str, subtitle: &str) {
    scene.text((12.0, 22.0), title, TITLE_SIZE, INK, Anchor::Start);
    scene.text(
        (12.0, 39.0),
        subtitle,
        LABEL_SIZE - 1.0,
        SOFT,
        Anchor::Start,
    );
}

fn last(curve: &Curve) -> Option<(f64, f64)> {
    curve
        .points
        .iter()
        .rev()
        .find(|point| point.1.is_finite())
        .copied()
}

fn label(curve: &Curve, kind: Kind) -> String {
    match (last(curve), kind) {
        (Some((_, value)), Kind::Percent) => format!("{}  {value:.1} %", curve.label),
        (Some((_, value)), Kind::Loss | Kind::Epsilon) => {
            format!("{}  {}", curve.label, short(value))
        }
        (Some(_), Kind::FromZero) | (None, _) => curve.label.clone(),
    }
}

/// Three significant digits.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    if (0..=6).contains(&digits) {
        format!("{value:.*}", digits as usize)
    } else {
        number(value, 1.0)
    }
}

/// The range of the vertical axis. A steep start would press the rest of the curves together: it
/// is cut off where that more than doubles the height of the rest.
pub(super) fn range(kind: Kind, curves: &[&Curve], last_round: f64) -> Axis {
    let late = last_round * 0.1;
    let mut all: Vec<f64> = Vec::new();
    let mut rest: Vec<f64> = Vec::new();
    for &(round, value) in curves.iter().flat_map(|curve| &curve.points) {
        if value.is_finite() {
            all.push(value);
            if round >= late {
                rest.push(value);
            }
        }
    }
    if rest.is_empty() {
        rest.clone_from(&all);
    }
    let low_of = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let high_of = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = (low_of(&all), high_of(&all));
    let (rest_low, rest_high) = (low_of(&rest), high_of(&rest));
    match kind {
        Kind::Percent => {
            let low = if high - low > 2.0 * (high - rest_low) {
                rest_low - 0.25 * (high - rest_low)
            } else {
                low
            };
            // At least a span of two points, so that noise does not look like a trend.
            let middle = f64::midpoint(low, high);
            let (low, high) = (low.min(middle - 1.0), high.max(middle + 1.0));
            let axis = Axis::linear(low.max(0.0), high.min(100.0), 5);
            Axis::exact(axis.low.max(0.0), axis.high.min(100.0), 5)
        }
        // Nothing is cut off: the first steps cost the most.
        Kind::Epsilon if low > 0.0 && high > 30.0 * low => Axis::logarithmic(low, high),
        Kind::Epsilon | Kind::FromZero => Axis::linear(0.0, high.max(0.1), 5),
        Kind::Loss => {
            if low > 0.0 && rest_high > 30.0 * rest_low {
                return Axis::logarithmic(rest_low, rest_high);
            }
            let high = if high - low > 2.0 * (rest_high - low) {
                rest_high + 0.25 * (rest_high - low)
            } else {
                high
            };
            Axis::linear(low, high, 5)
        }
    }
}

/// Writes every label at the right of the panel, as near to the end of its curve as the others
/// allow, and joins the two where they are apart.
pub(crate) fn end_labels(scene: &mut Scene, panel: &Panel, curves: &[&Curve], labels: &[String]) {
    let mut rows: Vec<(f64, usize)> = curves
        .iter()
        .enumerate()
        .map(|(index, curve)| {
            let end = last(curve).map_or(panel.bottom(), |(round, value)| panel.at(round, value).1);
            (end.clamp(panel.top, panel.bottom()), index)
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let ends: Vec<f64> = rows.iter().map(|row| row.0).collect();
    let spread = spread(&ends, ROW, panel.top - 4.0, panel.bottom() + 4.0);
    // Where a colour stands for several series, a sample of the line says which is meant.
    let samples = curves.iter().any(|curve| !series(curve.index).1.is_empty());
    let text_left = panel.right() + 26.0 + if samples { SAMPLE } else { 0.0 };
    for ((end, index), row) in rows.into_iter().zip(spread) {
        let (color, pattern) = series(curves[index].index);
        let from = last(curves[index]).map_or(panel.right(), |(round, _)| panel.at(round, 0.0).0);
        let light: Rgb = {
            let mix = |value: u8| ((u16::from(value) + 2 * 255) / 3) as u8;
            (mix(color.0), mix(color.1), mix(color.2))
        };
        scene.line(
            vec![
                (from + 4.0, end),
                (panel.right() + 8.0, end),
                (panel.right() + 18.0, row),
                (panel.right() + 22.0, row),
            ],
            0.9,
            light,
        );
        if samples {
            swatch(scene, (panel.right() + 26.0, row), color, pattern);
        }
        scene.text(
            (text_left, row + 0.36 * LABEL_SIZE),
            labels[index].as_str(),
            LABEL_SIZE,
            darker(color),
            Anchor::Start,
        );
    }
}

/// Moves sorted positions apart until they are `gap` from one another, within `low ..= high` where
/// that is possible; groups that touch stay centred on what they label.
pub(crate) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    // Groups of (sum of wanted centres, members).
    let mut groups: Vec<(f64, usize)> = Vec::new();
    let top = |&(sum, members): &(f64, usize)| {
        let half = (members as f64 - 1.0) * gap / 2.0;
        let center = (sum / members as f64).min(high - half).max(low + half);
        center - half
    };
    for &position in wanted {
        groups.push((position, 1));
        while let [.., before, last] = groups.as_slice() {
            if top(last) - (top(before) + (before.1 as f64 - 1.0) * gap) >= gap {
                break;
            }
            let merged = (before.0 + last.0, before.1 + last.1);
            groups.truncate(groups.len() - 2);
            groups.push(merged);
        }
    }
    groups
        .iter()
        .flat_map(|group| {
            let top = top(group);
            (0..group.1).map(move |member| top + member as f64 * gap)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        let cases: &[(&[f64], &[f64])] = &[
            (&[10.0, 50.0], &[10.0, 50.0]),
            (&[50.0, 50.0], &[45.0, 55.0]),
            (&[0.0, 1.0, 2.0], &[0.0, 10.0, 20.0]),
            (&[99.0, 100.0], &[90.0, 100.0]),
            (&[40.0, 41.0, 70.0], &[35.5, 45.5, 70.0]),
        ];
        for (wanted, expected) in cases {
            assert_eq!(&spread(wanted, 10.0, 0.0, 100.0), expected);
        }
    }

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve {
            label: "a".to_owned(),
            index: 0,
            points: points.to_vec(),
        }
    }

    #[test]
    fn a_steep_start_is_cut_off() {
        let points: Vec<_> = (0..=100)
            .map(|round| {
                (
                    f64::from(round),
                    95.0 - 85.0 * (-f64::from(round) / 3.0).exp(),
                )
            })
            .collect();
        let axis = range(Kind::Percent, &[&curve(&points)], 100.0);
        assert!(axis.low > 80.0 && axis.high >= 95.0, "{axis:?}");
        let flat: Vec<_> = (0..=10).map(|round| (f64::from(round), 50.0)).collect();
        let axis = range(Kind::Percent, &[&curve(&flat)], 10.0);
        assert!(axis.high - axis.low >= 2.0);
        let full: Vec<_> = (0..=10)
            .map(|round| (f64::from(round), f64::from(round) * 10.0))
            .collect();
        let axis = range(Kind::Percent, &[&curve(&full)], 10.0);
        assert_eq!((axis.low, axis.high), (0.0, 100.0));
    }

    #[test]
    fn nothing_to_draw_is_no_figure() {
        let quantity = Quantity {
            title: "t".to_owned(),
            y_title: "y".to_owned(),
            kind: Kind::Loss,
        };
        assert!(draw(&quantity, "", &[]).is_none());
        assert!(draw(&quantity, "", &[curve(&[(0.0, f64::NAN)])]).is_none());
        for points in [
            vec![(0.0, 1.0)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            vec![(0.0, -1.0), (1.0, f64::INFINITY), (2.0, 5.0)],
            vec![(0.0, 1e-9), (50.0, 1e300), (60.0, 1e-300)],
        ] {
            let scene = draw(&quantity, "", &[curve(&points)]).unwrap();
            assert!(scene.svg().is_ok());
        }
    }

    #[test]
    fn three_digits_are_enough() {
        for (value, text) in [
            (0.123_45, "0.123"),
            (12.345, "12.3"),
            (1234.5, "1234"),
            (0.0, "0"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
