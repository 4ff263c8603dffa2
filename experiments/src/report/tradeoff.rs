//! Final accuracy against epsilon: which runs are one line.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Run, labels};
use crate::results::{PrivacyRow, VariantResults};

/// Keys that vary along a line.
const ALONG: [&str; 4] = [
    "privacy.epsilon",
    "privacy.noise_multiplier",
    "seed",
    "name",
];

/// Runs that differ in nothing but how much privacy is asked for, the seed and the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    label: String,
    /// Without privacy it is drawn level.
    private: bool,
    /// Whether epsilon is that of a larger deployment.
    hypothetical: bool,
}

/// A run's place on a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// Its place among the lines.
    line: usize,
    /// What the budget is about; none without privacy.
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    /// What was asked for: runs that ask for the same are one point.
    asked: String,
    /// The last test accuracy.
    accuracy: f64,
}

/// Whether a run has an epsilon that can be drawn.
pub(super) fn is_private(variant: &VariantResults) -> bool {
    let spent = variant.privacy.last().map(PrivacyRow::budgeted);
    spent.is_some_and(|epsilon| epsilon.is_finite() && epsilon > 0.0)
}

/// The lines, and the point of each run that has one.
pub(super) fn of(runs: &[Run<'_>]) -> (Vec<Line>, Vec<Option<Point>>) {
    let mut known: Vec<(BTreeMap<&str, &str>, Line)> = Vec::new();
    let mut told: Vec<BTreeSet<String>> = Vec::new();
    let mut points = Vec::new();
    for run in runs {
        let last = run.variant.evaluations.last();
        let accuracy = last.and_then(|row| row.test_accuracy);
        let private = is_private(run.variant);
        // Clipped and not noised: no level of privacy, and no run without privacy either.
        let drawn = private || run.variant.privacy.is_empty();
        let Some(accuracy) = accuracy.filter(|share| share.is_finite() && drawn) else {
            points.push(None);
            continue;
        };
        let keys = run.key_without(&ALONG);
        let line = match known
            .iter()
            .position(|(other, line)| *other == keys && line.private == private)
        {
            Some(line) => line,
            None => {
                let line = Line {
                    label: labels::without_seed(&run.label),
                    private,
                    hypothetical: false,
                };
                known.push((keys, line));
                told.push(BTreeSet::new());
                known.len() - 1
            }
        };
        told[line].insert(labels::without(&run.label, &ALONG));
        let spent = run.variant.privacy.last();
        known[line].1.hypothetical |= spent.is_some_and(PrivacyRow::is_hypothetical);
        let asked = ALONG.iter().take(2).filter_map(|key| run.keys.get(*key));
        points.push(Some(Point {
            line,
            epsilon: spent.filter(|_| private).map(PrivacyRow::budgeted),
            asked: asked.cloned().collect::<Vec<_>>().join(" "),
            accuracy,
        }));
    }
    let names = names(&known, &told);
    let lines = known.into_iter().zip(names);
    let lines = lines.map(|((_, line), label)| Line { label, ..line });
    (lines.collect(), points)
}

/// Private lines by what the labels of their runs, `told`, have in common beside how much privacy is
/// asked for, where that tells them apart; else by the values of the first keys that do. Others by
/// their first run.
fn names(lines: &[(BTreeMap<&str, &str>, Line)], told: &[BTreeSet<String>]) -> Vec<String> {
    let told: Vec<Option<&String>> = (lines.iter().zip(told))
        .filter(|((_, line), _)| line.private)
        .map(|(_, told)| {
            told.first()
                .filter(|told_first| told.len() == 1 && !told_first.is_empty())
        })
        .collect();
    let tells = told.iter().collect::<BTreeSet<_>>().len() == told.len();
    if tells && told.iter().all(Option::is_some) {
        let mut told = told.into_iter().flatten();
        let names = lines.iter().map(|(_, line)| match line.private {
            true => told.next().cloned().unwrap_or_default(),
            false => line.label.clone(),
        });
        return names.collect();
    }
    let private: Vec<&BTreeMap<&str, &str>> = lines
        .iter()
        .filter(|(_, line)| line.private)
        .map(|(keys, _)| keys)
        .collect();
    let keys: BTreeSet<&str> = private
        .iter()
        .flat_map(|keys| keys.keys().copied())
        .collect();
    let parts = |chosen: &[&str]| {
        let values = private.iter().map(|line| {
            let of = chosen.iter().map(|key| line.get(key));
            of.collect::<Vec<_>>()
        });
        values.collect::<BTreeSet<_>>().len()
    };
    let mut chosen: Vec<&str> = Vec::new();
    // A mechanism's or a strategy's kind brings keys of its own with it; its name says enough.
    for key in keys.iter().filter(|key| key.ends_with("kind")).chain(&keys) {
        let with = [chosen.as_slice(), &[key]].concat();
        if parts(&with) > parts(&chosen) {
            chosen = with;
        }
    }
    lines
        .iter()
        .map(|(keys, line)| {
            let values = chosen.iter().filter_map(|key| keys.get(key));
            let values: Vec<&str> = values.map(|value| value.trim_matches('"')).collect();
            match (line.private, values.is_empty()) {
                (true, true) => "private".to_owned(),
                (true, false) => values.join(" · "),
                (false, _) => line.label.clone(),
            }
        })
        .collect()
}
