//! What runs are called beside one another.

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use crate::analysis::AxisValue;

/// Keys that say nothing of what a run is.
const NAMES: [&str; 1] = ["name"];

/// The axis of a sweep's `[[variant]]` tables.
const VARIANT: &str = "variant";

/// Most keys that stand in a label, beside the axes of a sweep.
const MOST_KEYS: usize = 4;

/// The title of a page without one: the experiments' names.
pub(super) fn title(runs: &[Run<'_>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.experiment) {
            names.push(run.experiment);
        }
    }
    match names.as_slice() {
        [] => "Results".to_owned(),
        [first, second, third, _, ..] => {
            let rest = names.len() - 3;
            format!("{first}, {second}, {third} and {rest} more")
        }
        few => few.join(", "),
    }
}

/// A label for each run, no two the same: by experiment and variant; where these are the same, by the
/// axes of their sweep and by the keys that tell the runs apart; and where there are none, by folder,
/// by the cell's id and by number.
pub(super) fn of(runs: &[Run<'_>]) -> Vec<String> {
    let several = runs
        .windows(2)
        .any(|pair| pair[0].experiment != pair[1].experiment);
    let bases: Vec<String> = runs.iter().map(|run| base(run, several)).collect();
    let alone = bases.iter().collect::<BTreeSet<_>>().len() == 1;
    let mut labels = bases.clone();
    for name in bases.iter().collect::<BTreeSet<_>>() {
        let same: Vec<usize> = (0..runs.len()).filter(|&run| bases[run] == *name).collect();
        if same.len() < 2 {
            continue;
        }
        let keys = telling(&same.iter().map(|&run| &runs[run]).collect::<Vec<_>>());
        for &run in &same {
            let words = keys.iter().filter_map(|key| word(key, &keys, &runs[run]));
            let mut words: Vec<String> = words.collect();
            // Where the name is everybody's it tells nothing.
            if !alone || words.is_empty() {
                words.insert(0, name.clone());
            }
            labels[run] = words.join(" · ");
        }
    }
    let folder = |run: &Run<'_>| Some(run.home.file_name()?.to_str()?.to_owned());
    let path = |run: &Run<'_>| Some(run.home.display().to_string());
    let id = |run: &Run<'_>| Some(run.cell.as_ref()?.id.to_owned());
    for beside in [&folder as &dyn Fn(&Run<'_>) -> Option<String>, &path, &id] {
        beside_same(&mut labels, &runs.iter().map(beside).collect::<Vec<_>>());
    }
    numbered(labels)
}

/// Experiment and variant, as far as they say something.
fn base(run: &Run<'_>, several: bool) -> String {
    let variant = match (&run.cell, run.axis(VARIANT)) {
        (None, _) => run.variant.manifest.name.clone(),
        // A cell is named by its id.
        (Some(_), None | Some(AxisValue::Absent)) => return run.experiment.to_owned(),
        (Some(_), Some(variant)) => variant.to_string(),
    };
    match several && variant != run.experiment {
        true => format!("{} · {variant}", run.experiment),
        false => variant,
    }
}

/// As few keys as tell these runs apart, as far as few keys can: the axes of their sweeps, in their
/// order, that part them, and then in each step that key which parts them into the most groups.
fn telling<'a>(runs: &[&'a Run<'_>]) -> Vec<&'a str> {
    let keys: BTreeSet<&str> = runs
        .iter()
        .flat_map(|run| run.keys.keys())
        .map(String::as_str)
        .filter(|key| !NAMES.contains(key))
        .collect();
    let parts = |chosen: &[&str]| {
        let values = runs.iter().map(|run| {
            let of = chosen.iter().map(|key| value(key, run));
            of.collect::<Vec<_>>()
        });
        values.collect::<BTreeSet<_>>().len()
    };
    let with = |chosen: &[&str], key: &str| parts(&[chosen, &[key]].concat());
    let mut axes: Vec<&str> = Vec::new();
    for key in runs.iter().flat_map(|run| run.axes()) {
        if !axes.contains(&key) && with(&axes, key) > parts(&axes) {
            axes.push(key);
        }
    }
    let mut chosen: Vec<&str> = Vec::new();
    while chosen.len() < MOST_KEYS {
        let all = [axes.as_slice(), &chosen].concat();
        let now = parts(&all);
        if now == runs.len() {
            break;
        }
        // Of equals the shorter, then the first by name.
        let rank = |key: &&str| (with(&all, key), usize::MAX - key.len());
        match keys.iter().copied().rev().max_by_key(rank) {
            Some(best) if with(&all, best) > now => chosen.push(best),
            _ => break,
        }
    }
    chosen.sort_by_key(|key| (*key == "seed", *key));
    [axes, chosen].concat()
}

/// The value of an axis of the run's sweep, or of a key of its configuration.
fn value(key: &str, run: &Run<'_>) -> AxisValue {
    run.axis(key).unwrap_or_else(|| match run.keys.get(key) {
        Some(value) => AxisValue::word(value.trim_matches('"')),
        None => AxisValue::Absent,
    })
}

/// `epsilon 2`, `fedprox`, `seed 1`, `no epsilon`; nothing for an axis of the run's sweep that means
/// nothing for it. `keys` are all those of the label.
fn word(key: &str, keys: &[&str], run: &Run<'_>) -> Option<String> {
    let short = short(key, keys);
    // `strategy`, an axis of named settings, may be `strategy.kind`.
    let is_kind = short == "kind" || run.keys.contains_key(&format!("{key}.kind"));
    Some(match value(key, run) {
        AxisValue::Absent if run.axis(key).is_some() => return None,
        AxisValue::Absent if is_kind => format!("no {}", key.split('.').next().unwrap_or(key)),
        AxisValue::Absent => format!("no {short}"),
        value if is_kind => value.to_string(),
        value => format!("{short} {value}"),
    })
}

/// The last name of a dotted key, with as many before it as tell it from the others.
fn short<'a>(key: &'a str, keys: &[&str]) -> &'a str {
    let ends = key.rmatch_indices('.').map(|(dot, _)| &key[dot + 1..]);
    let shared = |end: &str| {
        let mut others = keys.iter().filter(|other| **other != key);
        others.any(|other| {
            other
                .strip_suffix(end)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    let mut ends = ends.filter(|end| *end == "kind" || !shared(end));
    ends.next().unwrap_or(key)
}

/// Adds what is beside runs to labels that are the same, where it differs between them.
fn beside_same(labels: &mut [String], beside: &[Option<String>]) {
    let mut found: BTreeMap<String, BTreeSet<&Option<String>>> = BTreeMap::new();
    for (label, beside) in labels.iter().zip(beside) {
        found.entry(label.clone()).or_default().insert(beside);
    }
    for (label, beside) in labels.iter_mut().zip(beside) {
        let parts = found.get(label).is_some_and(|found| found.len() > 1);
        if let Some(beside) = beside.as_ref().filter(|_| parts) {
            *label = format!("{label} ({beside})");
        }
    }
}

/// Labels that are still the same get numbers.
fn numbered(mut labels: Vec<String>) -> Vec<String> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for label in &mut labels {
        let plain = label.clone();
        let mut number = 1_u64;
        while !taken.insert(label.clone()) {
            number += 1;
            *label = format!("{plain} ({number})");
        }
    }
    labels
}

/// Groups of runs that differ in the seed and the name of the experiment alone, in the order of their
/// first: their labels, and the group of each run.
pub(super) fn groups(runs: &[Run<'_>]) -> (Vec<String>, Vec<usize>) {
    let mut known: Vec<BTreeMap<&str, &str>> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut of = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let keys = run.key_without(&["seed", "name"]);
        let group = match known.iter().position(|other| *other == keys) {
            Some(group) => group,
            None => {
                known.push(keys);
                members.push(Vec::new());
                known.len() - 1
            }
        };
        members[group].push(index);
        of.push(group);
    }
    let labels = members
        .iter()
        .map(|runs_of| {
            let label = |run: &usize| runs.get(*run).map_or("", |run| run.label.as_str());
            let first = runs_of.first().map_or("", label);
            match runs_of.len() {
                0 | 1 => first.to_owned(),
                _ => without_seed(first),
            }
        })
        .collect();
    (numbered(labels), of)
}

/// A label without what it says of the seed.
pub(super) fn without_seed(label: &str) -> String {
    let text = without(label, &["seed"]);
    match text.is_empty() {
        true => "all".to_owned(),
        false => text,
    }
}

/// A label without what it says of these keys.
pub(super) fn without(label: &str, keys: &[&str]) -> String {
    let about = |word: &str| {
        let word = word.strip_prefix("no ").unwrap_or(word);
        let key = word.split(' ').next().unwrap_or(word);
        keys.iter().any(|other| short(other, &[]) == key)
    };
    let words = label.split(" · ").filter(|word| !about(word));
    words.collect::<Vec<_>>().join(" · ")
}
