//! How accuracy is distributed over the clients: a histogram and the empirical distribution.

use crate::analysis::quantile;

use super::axis::{Axis, Panel, dashes, swatch};
use super::curves::heading;
use super::font::{self, Anchor};
use super::scene::{Mark, Scene};
use super::style::{INK, LABEL_SIZE, SOFT, TICK_SIZE, darker, series};

/// The clients of one series.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    pub(crate) label: String,
    /// Decides the colour.
    pub(crate) index: usize,
    /// Accuracy of every client, in per cent.
    pub(crate) values: Vec<f64>,
}

/// The figure; none when there is no client.
pub(crate) fn draw(subtitle: &str, distributions: &[Distribution]) -> Option<Scene> {
    let drawn: Vec<Distribution> = distributions
        .iter()
        .filter(|distribution| !distribution.values.is_empty())
        .cloned()
        .map(|mut distribution| {
            distribution.values.sort_by(f64::total_cmp);
            distribution
        })
        .collect();
    let lowest = drawn
        .iter()
        .filter_map(|distribution| distribution.values.first())
        .fold(f64::INFINITY, |low, &value| low.min(value));
    if drawn.is_empty() {
        return None;
    }
    let bins = Bins::over(lowest);
    let x = Axis::exact(bins.low, 100.0, 5);
    let shares: Vec<Vec<f64>> = drawn
        .iter()
        .map(|distribution| bins.shares(&distribution.values))
        .collect();
    let highest = shares.iter().flatten().copied().fold(0.0, f64::max);

    let count = Axis::linear(0.0, highest, 5);
    let share = Axis::exact(0.0, 100.0, 5);
    let (top, height, width) = (56.0, 270.0, 292.0);
    let left = Panel {
        left: Panel::left_room(&count) + 6.0,
        top,
        width,
        height,
        x: x.clone(),
        y: count,
    };
    let right = Panel {
        left: left.right() + 34.0 + Panel::left_room(&share),
        top,
        width,
        height,
        x,
        y: share,
    };
    let columns = legend_columns(&drawn);
    let legend_top = left.bottom() + 62.0;
    let mut scene = Scene::new(
        "Accuracy over clients",
        right.right() + 24.0,
        legend_top + 18.0 * (drawn.len() as f64 + 1.0) + 6.0,
    );
    heading(&mut scene, "Accuracy over clients", subtitle);
    left.frame(&mut scene, "Accuracy of a client (%)", "Clients (%)");
    right.frame(
        &mut scene,
        "Accuracy of a client (%)",
        "Clients at or below (%)",
    );
    for (distribution, shares) in drawn.iter().zip(&shares).rev() {
        let (color, pattern) = series(distribution.index);
        // From the first client to the last; beyond, the line would only hide the axis.
        let filled = |height: &f64| *height > 0.0;
        let first = shares.iter().position(filled).unwrap_or(0);
        let last = shares.iter().rposition(filled).unwrap_or(0);
        let mut outline = vec![left.at(bins.edges(first).0, 0.0)];
        for (bin, &height) in shares.iter().enumerate().take(last + 1).skip(first) {
            let (from, to) = bins.edges(bin);
            let (x0, y) = left.at(from, height);
            let (x1, floor) = left.at(to, 0.0);
            if drawn.len() <= 3 && height > 0.0 {
                scene.marks.push(Mark::Rect {
                    corner: (x0, y),
                    size: (x1 - x0, floor - y),
                    color,
                    alpha: 0.13,
                });
            }
            outline.push((x0, y));
            outline.push((x1, y));
        }
        outline.push(left.at(bins.edges(last).1, 0.0));
        for dash in dashes(&outline, pattern) {
            scene.line(dash, 1.5, color);
        }
        for dash in dashes(&steps(&right, &distribution.values), pattern) {
            scene.line(dash, 1.8, color);
        }
    }
    legend(&mut scene, &drawn, (left.left, legend_top), columns);
    Some(scene)
}

/// The empirical distribution function, as a staircase in the panel.
fn steps(panel: &Panel, sorted: &[f64]) -> Vec<(f64, f64)> {
    let mut stairs = Vec::new();
    let mut below = 0.0;
    for (index, &value) in sorted.iter().enumerate() {
        if sorted.get(index + 1).is_some_and(|&next| next <= value) {
            continue;
        }
        stairs.push(panel.at(value, below));
        below = 100.0 * (index + 1) as f64 / sorted.len() as f64;
        stairs.push(panel.at(value, below));
    }
    stairs
}

/// Equal bins up to 100.
pub(super) struct Bins {
    low: f64,
    width: f64,
    count: usize,
}

impl Bins {
    pub(super) fn over(lowest: f64) -> Self {
        let width = if lowest >= 80.0 {
            1.0
        } else if lowest >= 60.0 {
            2.0
        } else {
            5.0
        };
        let low = ((lowest / (5.0 * width)).floor() * 5.0 * width).clamp(0.0, 100.0 - 5.0 * width);
        Self {
            low,
            width,
            count: ((100.0 - low) / width).round() as usize,
        }
    }

    /// Where the first begins.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    pub(super) fn edges(&self, bin: usize) -> (f64, f64) {
        let low = self.low + bin as f64 * self.width;
        (low, low + self.width)
    }

    /// Per cent of the values in each bin; a value on an edge belongs to the bin above, 100 to
    /// the last.
    pub(super) fn shares(&self, values: &[f64]) -> Vec<f64> {
        let mut shares = vec![0.0; self.count];
        let each = 100.0 / values.len() as f64;
        for value in values {
            // Accuracies are quotients of counts: an edge may be missed by one rounding.
            let bin = ((value - self.low) / self.width + 1e-9).floor() as usize;
            shares[bin.min(self.count - 1)] += each;
        }
        shares
    }
}

const HEADINGS: [&str; 4] = ["clients", "mean", "median", "lowest tenth below"];

fn columns(distribution: &Distribution) -> [String; 4] {
    let values = &distribution.values;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    [
        super::axis::number(values.len() as f64, 1.0),
        format!("{mean:.1} %"),
        format!("{:.1} %", quantile(values, 0.5)),
        format!("{:.1} %", quantile(values, 0.1)),
    ]
}

/// Where the columns of the legend end, from its left.
fn legend_columns(drawn: &[Distribution]) -> Vec<f64> {
    let name = drawn
        .iter()
        .map(|distribution| font::width(&distribution.label, LABEL_SIZE))
        .fold(0.0, f64::max);
    let mut end = 30.0 + name;
    HEADINGS
        .iter()
        .map(|heading| {
            end += 26.0 + font::width(heading, TICK_SIZE).max(44.0);
            end
        })
        .collect()
}

fn legend(scene: &mut Scene, drawn: &[Distribution], (left, top): (f64, f64), ends: Vec<f64>) {
    for (heading, end) in HEADINGS.iter().zip(&ends) {
        scene.text((left + end, top), *heading, TICK_SIZE, SOFT, Anchor::End);
    }
    for (row, distribution) in drawn.iter().enumerate() {
        let base = top + 18.0 * (row as f64 + 1.0);
        let (color, pattern) = series(distribution.index);
        swatch(scene, (left, base - 4.0), color, pattern);
        scene.text(
            (left + 30.0, base),
            distribution.label.as_str(),
            LABEL_SIZE,
            darker(color),
            Anchor::Start,
        );
        for (text, end) in columns(distribution).into_iter().zip(&ends) {
            scene.text((left + end, base), text, LABEL_SIZE, INK, Anchor::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_every_client_once() {
        for lowest in [0.0, 12.5, 59.9, 60.0, 83.0, 100.0] {
            let bins = Bins::over(lowest);
            assert!(bins.low <= lowest);
            assert!((bins.edges(bins.count - 1).1 - 100.0).abs() < 1e-9);
            let values: Vec<f64> = (0..=20)
                .map(|step| lowest + (100.0 - lowest) * f64::from(step) / 20.0)
                .collect();
            let total: f64 = bins.shares(&values).iter().sum();
            assert!((total - 100.0).abs() < 1e-9);
        }
        let edges = Bins::over(0.0).shares(&[5.0, 4.999_999, 100.0, 95.0]);
        assert_eq!((edges[0], edges[1], edges[19]), (25.0, 25.0, 50.0));
    }

    #[test]
    fn one_client_is_enough() {
        let one = Distribution {
            label: "a".to_owned(),
            index: 0,
            values: vec![100.0],
        };
        assert!(draw("", &[one]).unwrap().svg().is_ok());
        assert!(draw("", &[]).is_none());
    }
}
