//! The scores of an audit's canaries: a histogram of those that were in and of those that were out.

use super::axis::{Axis, Panel, dashes, swatch};
use super::curves::heading;
use super::font::Anchor;
use super::scene::{Mark, Scene};
use super::style::{AXIS, INK, LABEL_SIZE, SOFT, TICK_SIZE, darker, series};

const BINS: usize = 48;

/// What an audit's figure shows.
#[derive(Clone, Debug)]
pub(crate) struct Scores {
    /// The attack's scores of canaries that were in.
    pub(crate) included: Vec<f64>,
    /// And of those that were out.
    pub(crate) excluded: Vec<f64>,
    /// What was found, a line each.
    pub(crate) found: Vec<String>,
}

/// The figure; none without canaries of both sorts.
pub(crate) fn draw(subtitle: &str, scores: &Scores) -> Option<Scene> {
    if scores.included.is_empty() || scores.excluded.is_empty() {
        return None;
    }
    let mut all: Vec<f64> = scores
        .included
        .iter()
        .chain(&scores.excluded)
        .copied()
        .collect();
    all.retain(|score| score.is_finite());
    all.sort_by(f64::total_cmp);
    let (&first, &last) = (all.first()?, all.last()?);
    // All but a few in a thousand, which count in the outermost bins, and always the threshold.
    let rare = all.len() / 500;
    let low = all.get(rare).copied().unwrap_or(first).min(0.0);
    let high = all
        .get(all.len() - 1 - rare)
        .copied()
        .unwrap_or(last)
        .max(0.0);
    let x = Axis::linear(low, if high > low { high } else { low + 1.0 }, 7);
    let sorts = [(&scores.included, "in"), (&scores.excluded, "out")];
    let shares = sorts.map(|(values, _)| shares(values, &x));
    let highest = shares.iter().flatten().copied().fold(0.0, f64::max);
    let y = Axis::linear(0.0, highest, 5);
    let panel = Panel {
        left: Panel::left_room(&y) + 6.0,
        top: 56.0,
        width: 520.0,
        height: 270.0,
        x,
        y,
    };
    let legend = panel.bottom() + 62.0;
    let mut scene = Scene::new(
        "Scores of canaries",
        panel.right() + 24.0,
        legend + 18.0 * (1.0 + scores.found.len() as f64) + 6.0,
    );
    heading(&mut scene, "Scores of canaries", subtitle);
    let outside = all.first().is_some_and(|&first| first < panel.x.low)
        || all.last().is_some_and(|&last| last > panel.x.high);
    let what = "Log-likelihood ratio of \u{201c}in\u{201d} to \u{201c}out\u{201d}";
    let label = if outside {
        format!("{what} (the outermost bars hold all beyond)")
    } else {
        what.to_owned()
    };
    panel.frame(&mut scene, &label, "Canaries (%)");
    for (index, shares) in shares.iter().enumerate().rev() {
        let (color, pattern) = series(index);
        let edge = |bin: usize| {
            panel.x.low + (panel.x.high - panel.x.low) * bin as f64 / shares.len() as f64
        };
        let mut outline = vec![panel.at(edge(0), 0.0)];
        for (bin, &height) in shares.iter().enumerate() {
            let (corner, end) = (panel.at(edge(bin), height), panel.at(edge(bin + 1), 0.0));
            if height > 0.0 {
                scene.marks.push(Mark::Rect {
                    corner,
                    size: (end.0 - corner.0, end.1 - corner.1),
                    color,
                    alpha: 0.15,
                });
            }
            outline.push(corner);
            outline.push((end.0, corner.1));
        }
        outline.push(panel.at(panel.x.high, 0.0));
        for dash in dashes(&outline, pattern) {
            scene.line(dash, 1.5, color);
        }
    }
    // Right of it a canary is taken for in.
    let threshold = [panel.at(0.0, 0.0), panel.at(0.0, panel.y.high)];
    for dash in dashes(&threshold, &[4.0, 3.0]) {
        scene.line(dash, 1.0, AXIS);
    }
    let top = (threshold[1].0, panel.top - 5.0);
    scene.text(
        top,
        "guessed out | guessed in",
        TICK_SIZE,
        SOFT,
        Anchor::Middle,
    );
    let mut left = panel.left;
    for (index, (values, name)) in sorts.iter().enumerate() {
        let (color, pattern) = series(index);
        swatch(&mut scene, (left, legend - 4.0), color, pattern);
        let count = super::axis::number(values.len() as f64, 1.0);
        let text = format!("{name}: {count} canaries");
        scene.text(
            (left + 30.0, legend),
            text,
            LABEL_SIZE,
            darker(color),
            Anchor::Start,
        );
        left += 220.0;
    }
    for (row, text) in scores.found.iter().enumerate() {
        let base = legend + 18.0 * (row as f64 + 1.0);
        scene.text(
            (panel.left, base),
            text.as_str(),
            LABEL_SIZE,
            INK,
            Anchor::Start,
        );
    }
    Some(scene)
}

/// Per cent of the values in each bin of the axis; what is beyond an end is in the last bin there.
fn shares(values: &[f64], x: &Axis) -> Vec<f64> {
    let mut shares = vec![0.0; BINS];
    let each = 100.0 / values.len() as f64;
    for &value in values {
        let place = (value - x.low) / (x.high - x.low) * BINS as f64;
        shares[(place.max(0.0) as usize).min(BINS - 1)] += each;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canary_is_in_a_bin() {
        let scores = Scores {
            included: vec![-1.0, 0.5, 2.0, 1e9, f64::INFINITY],
            excluded: vec![-3.0, -0.5, -1e9, f64::NEG_INFINITY],
            found: vec!["epsilon".to_owned()],
        };
        let svg = draw("about", &scores).unwrap().svg().unwrap();
        for text in ["in: 5 canaries", "out: 4 canaries", "epsilon", "about"] {
            assert!(svg.contains(text), "{text}");
        }
        let x = Axis::linear(-1.0, 1.0, 5);
        let total: f64 = shares(&scores.included, &x).iter().sum();
        assert!((total - 100.0).abs() < 1e-9);
        let none = Scores {
            included: Vec::new(),
            ..scores
        };
        assert!(draw("", &none).is_none());
    }
}
