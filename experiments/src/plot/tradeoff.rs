//! What privacy costs: final accuracy against epsilon.
//!
//! Runs that differ in nothing but how much privacy was asked for, the seed and the name are one
//! line; those that ask for the same are one point of it, drawn at their median with the range over
//! the seeds. Runs without privacy are level lines.

use std::collections::BTreeMap;

use crate::results::{PrivacyRow, VariantResults};

use super::axis::{Axis, Panel, dashes};
use super::curves::{Curve, end_labels, heading};
use super::font;
use super::scene::{Mark, Scene};
use super::style::{LABEL_SIZE, series};

/// A finished variant of any results.
pub(crate) struct Run<'a> {
    pub(crate) label: &'a str,
    pub(crate) variant: &'a VariantResults,
}

/// Values of runs that ask for the same.
#[derive(Clone, Debug, Default)]
struct Point {
    epsilons: Vec<f64>,
    accuracies: Vec<f64>,
}

impl Point {
    fn add(&mut self, epsilon: f64, accuracy: f64) {
        self.epsilons.push(epsilon);
        self.accuracies.push(accuracy);
    }

    fn range(&self) -> (f64, f64) {
        let low = self
            .accuracies
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min);
        let high = self
            .accuracies
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        (low, high)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => f64::NAN,
        values if values.len() % 2 == 1 => values[middle],
        values => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// One line of the figure.
#[derive(Debug)]
struct Line {
    /// The keys of its configuration with their values, but for those that vary along it.
    keys: BTreeMap<String, String>,
    /// The first of its runs.
    label: String,
    private: bool,
    hypothetical: bool,
    /// By what was asked for.
    points: BTreeMap<String, Point>,
    delta: f64,
}

/// The figure; none when no line has two levels of privacy.
pub(crate) fn draw(subtitle: &str, runs: &[Run<'_>]) -> Option<Scene> {
    let lines = lines(runs);
    let tells = |line: &Line| line.private && line.points.len() > 1;
    if !lines.iter().any(tells) {
        return None;
    }
    let lines: Vec<Line> = lines
        .into_iter()
        .filter(|line| !line.private || tells(line))
        .collect();
    let labels = labels(&lines);
    let private = || lines.iter().filter(|line| line.private);
    let epsilons: Vec<f64> = private()
        .flat_map(|line| line.points.values())
        .map(|point| median(&point.epsilons))
        .collect();
    let low = epsilons.iter().copied().fold(f64::INFINITY, f64::min);
    let high = epsilons.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let x = if high > 3.0 * low {
        Axis::logarithmic(low, high)
    } else {
        Axis::linear(low, high, 5)
    };
    let seeds = lines
        .iter()
        .flat_map(|line| line.points.values())
        .map(|point| point.accuracies.len())
        .max()
        .unwrap_or(1);
    let subtitle = match seeds {
        1 => subtitle.to_owned(),
        seeds => format!("{subtitle} · median and range of {seeds} seeds"),
    };
    let mut deltas = private().map(|line| line.delta);
    let delta = deltas.next().unwrap_or(0.0);
    let x_title = match deltas.all(|other| other.total_cmp(&delta).is_eq()) {
        true => format!("ε of the released models at δ = {delta:e}"),
        false => "ε of the released models".to_owned(),
    };

    let curves: Vec<Curve> = lines
        .iter()
        .zip(labels)
        .enumerate()
        .map(|(index, (line, label))| {
            let mut points: Vec<(f64, f64)> = line
                .points
                .values()
                .map(|point| (median(&point.epsilons), median(&point.accuracies)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if let (false, Some(&(_, level))) = (line.private, points.first()) {
                points = vec![(x.low, level), (x.high, level)];
            }
            let label = match line.hypothetical {
                true => format!("{label}, hypothetical"),
                false => label,
            };
            Curve {
                label,
                index,
                points,
            }
        })
        .collect();
    Some(scene(&subtitle, &x_title, x, &lines, &curves))
}

fn scene(subtitle: &str, x_title: &str, x: Axis, lines: &[Line], curves: &[Curve]) -> Scene {
    let ranges: Vec<(f64, f64)> = lines
        .iter()
        .flat_map(|line| line.points.values().map(Point::range))
        .collect();
    let low = ranges.iter().map(|range| range.0).fold(100.0, f64::min);
    let high = ranges.iter().map(|range| range.1).fold(0.0, f64::max);
    let y = Axis::linear(low.max(0.0), high.min(100.0), 5);
    let y = Axis::exact(y.low.max(0.0), y.high.min(100.0), 5);
    let curves: Vec<&Curve> = curves.iter().collect();
    let labels: Vec<String> = curves
        .iter()
        .map(|curve| {
            let (_, last) = curve.points.last().copied().unwrap_or((0.0, f64::NAN));
            format!("{}  {last:.1} %", curve.label)
        })
        .collect();
    let widest = labels
        .iter()
        .map(|label| font::width(label, LABEL_SIZE))
        .fold(0.0, f64::max);
    let title = "Test accuracy against ε";
    let left = Panel::left_room(&y) + 6.0;
    let panel = Panel {
        left,
        top: 56.0,
        width: (570.0 - left).max(300.0),
        height: 308.0,
        x,
        y,
    };
    let mut scene = Scene::new(
        title,
        panel.right() + 54.0 + widest + 4.0,
        panel.bottom() + 56.0,
    );
    heading(&mut scene, title, subtitle);
    panel.frame(&mut scene, x_title, "Test accuracy (%)");
    for (line, curve) in lines.iter().zip(&curves) {
        let (color, pattern) = series(curve.index);
        let pattern = match line.private {
            true => pattern,
            false => &[5.0, 4.0],
        };
        for piece in panel.clip(&curve.points) {
            for dash in dashes(&piece, pattern) {
                scene.line(dash, 1.6, color);
            }
        }
        if !line.private {
            continue;
        }
        for point in line.points.values() {
            let (low, high) = point.range();
            let at = median(&point.epsilons);
            let (from, to) = (panel.at(at, low), panel.at(at, high));
            if high > low {
                scene.line(vec![from, to], 1.2, color);
                for (x, y) in [from, to] {
                    scene.line(vec![(x - 3.5, y), (x + 3.5, y)], 1.2, color);
                }
            }
            scene.marks.push(Mark::Disc {
                center: panel.at(at, median(&point.accuracies)),
                radius: 2.8,
                color,
                alpha: 1.0,
            });
        }
    }
    end_labels(&mut scene, &panel, &curves, &labels);
    scene
}

fn lines(runs: &[Run<'_>]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for run in runs {
        let config = &run.variant.manifest.config;
        let accuracy = run
            .variant
            .evaluations
            .last()
            .and_then(|row| row.test_accuracy);
        let Some(accuracy) = accuracy.filter(|share| share.is_finite()) else {
            continue;
        };
        let spent = run.variant.privacy.last();
        // Infinite without noise: no level of privacy, and no run without privacy either.
        if spent.is_some_and(|row| !row.epsilon.is_finite() || row.epsilon <= 0.0) {
            continue;
        }
        let mut keys = BTreeMap::new();
        flatten("", config, &mut keys);
        let mut asked = String::new();
        keys.retain(|key, value| {
            let varies = ["privacy.epsilon", "privacy.noise_multiplier"].contains(&key.as_str());
            if varies {
                asked.push_str(value);
                asked.push(' ');
            }
            !varies && key != "seed" && key != "name"
        });
        let place = lines.iter().position(|line| line.keys == keys);
        let line = match place {
            Some(place) => &mut lines[place],
            None => {
                lines.push(Line {
                    keys,
                    label: run.label.to_owned(),
                    private: spent.is_some(),
                    hypothetical: false,
                    points: BTreeMap::new(),
                    delta: spent.map_or(0.0, |row| row.delta),
                });
                let last = lines.len() - 1;
                &mut lines[last]
            }
        };
        line.hypothetical |= spent.is_some_and(PrivacyRow::is_hypothetical);
        let point = line.points.entry(asked).or_default();
        point.add(spent.map_or(0.0, |row| row.epsilon), accuracy * 100.0);
    }
    lines
}

/// The values of the keys in which private lines differ; without any, or for what is not private,
/// plain words.
fn labels(lines: &[Line]) -> Vec<String> {
    let private: Vec<&Line> = lines.iter().filter(|line| line.private).collect();
    let mut differing: Vec<&String> = private
        .iter()
        .flat_map(|line| line.keys.keys())
        .filter(|key| {
            let first = private[0].keys.get(*key);
            private.iter().any(|line| line.keys.get(*key) != first)
        })
        .collect();
    differing.sort();
    differing.dedup();
    // A mechanism brings keys of its own with it; its name says enough.
    if let Some(kind) = differing
        .iter()
        .find(|key| key.as_str() == "privacy.mechanism")
    {
        let kind = *kind;
        let names: std::collections::BTreeSet<&String> = private
            .iter()
            .filter_map(|line| line.keys.get(kind))
            .collect();
        if names.len() == private.len() {
            differing = vec![kind];
        }
    }
    let levels = lines.iter().filter(|line| !line.private).count();
    lines
        .iter()
        .map(|line| {
            if !line.private {
                return match levels {
                    1 => "no privacy".to_owned(),
                    _ => line.label.clone(),
                };
            }
            let values: Vec<&str> = differing
                .iter()
                .filter_map(|key| Some(line.keys.get(*key)?.trim_matches('"')))
                .collect();
            match values.is_empty() {
                true => "private".to_owned(),
                false => values.join(" · "),
            }
        })
        .collect()
}

/// All keys of a table by their path, with their values as text.
fn flatten(path: &str, table: &toml::Table, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, into),
            value => {
                into.insert(path, value.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(private: bool, keys: &[(&str, &str)]) -> Line {
        Line {
            keys: keys
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            label: "own".to_owned(),
            private,
            hypothetical: false,
            points: BTreeMap::new(),
            delta: 1e-5,
        }
    }

    #[test]
    fn lines_are_called_what_tells_them_apart() {
        let lines = [
            line(
                true,
                &[
                    ("privacy.mechanism", "\"tree\""),
                    ("privacy.estimator", "\"node\""),
                ],
            ),
            line(
                true,
                &[("privacy.mechanism", "\"blt\""), ("privacy.buffers", "4")],
            ),
            line(false, &[]),
        ];
        assert_eq!(labels(&lines), ["tree", "blt", "no privacy"]);
        let lines = [
            line(true, &[("rounds", "10"), ("selection.kind", "\"poisson\"")]),
            line(true, &[("rounds", "20"), ("selection.kind", "\"uniform\"")]),
            line(false, &[("rounds", "10")]),
            line(false, &[("rounds", "20")]),
        ];
        assert_eq!(
            labels(&lines),
            ["10 · poisson", "20 · uniform", "own", "own"]
        );
        assert_eq!(labels(&[line(true, &[("rounds", "10")])]), ["private"]);
    }

    #[test]
    fn keys_are_paths() {
        let table = toml::toml! {
            rounds = 3
            privacy = { epsilon = 2.0, kind = "central" }
        };
        let mut keys = BTreeMap::new();
        flatten("", &table, &mut keys);
        let expected = [
            ("privacy.epsilon", "2.0"),
            ("privacy.kind", "\"central\""),
            ("rounds", "3"),
        ];
        let found: Vec<(&str, &str)> = keys
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn medians_are_in_the_middle() {
        for (values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5)] {
            assert!((median(&values) - expected).abs() < 1e-12);
        }
        assert!(median(&[]).is_nan());
    }
}
