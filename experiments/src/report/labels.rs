//! What runs are called beside one another.

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use crate::results::Results;

/// Keys that say nothing of what a run is.
const NAMES: [&str; 1] = ["name"];

/// Most keys that stand in a label.
const MOST_KEYS: usize = 4;

/// The title of a page without one: the experiments' names.
pub(super) fn title(results: &[Results]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for one in results {
        if !names.contains(&one.manifest.name.as_str()) {
            names.push(&one.manifest.name);
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
/// keys that tell the runs apart; and where there are none, by folder and number.
pub(super) fn of(results: &[Results], runs: &[Run<'_>]) -> Vec<String> {
    let bases: Vec<String> = runs.iter().map(|run| base(results, run)).collect();
    let alone = bases.iter().collect::<BTreeSet<_>>().len() == 1;
    let mut labels = bases.clone();
    for name in bases.iter().collect::<BTreeSet<_>>() {
        let same: Vec<usize> = (0..runs.len()).filter(|&run| bases[run] == *name).collect();
        if same.len() < 2 {
            continue;
        }
        let keys = telling(&same.iter().map(|&run| &runs[run]).collect::<Vec<_>>());
        for &run in &same {
            let mut words: Vec<String> = keys.iter().map(|key| word(key, &runs[run])).collect();
            // Where the name is everybody's it tells nothing.
            if !alone || words.is_empty() {
                words.insert(0, name.clone());
            }
            labels[run] = words.join(" · ");
        }
    }
    apart(labels, |run| {
        let folder = results.get(runs.get(run)?.folder)?.path.file_name()?;
        folder.to_str().map(str::to_owned)
    })
}

fn base(results: &[Results], run: &Run<'_>) -> String {
    let variant = run.variant.manifest.name.clone();
    let experiment = results.get(run.folder).map(|one| &one.manifest.name);
    let several = results
        .iter()
        .any(|one| Some(&one.manifest.name) != experiment);
    match experiment {
        Some(experiment) if several && *experiment != variant => {
            format!("{experiment} · {variant}")
        }
        _ => variant,
    }
}

/// As few keys as tell these runs apart, as far as few keys can: in each step that which parts them
/// into the most groups.
fn telling<'a>(runs: &[&'a Run<'_>]) -> Vec<&'a str> {
    let keys: BTreeSet<&str> = runs
        .iter()
        .flat_map(|run| run.keys.keys())
        .map(String::as_str)
        .filter(|key| !NAMES.contains(key))
        .collect();
    let parts = |chosen: &[&str]| {
        let values = runs.iter().map(|run| {
            let of = chosen.iter().map(|key| run.keys.get(*key));
            of.collect::<Vec<_>>()
        });
        values.collect::<BTreeSet<_>>().len()
    };
    let mut chosen: Vec<&str> = Vec::new();
    while chosen.len() < MOST_KEYS && parts(&chosen) < runs.len() {
        let with = |key: &str| parts(&[chosen.as_slice(), &[key]].concat());
        // Of equals the shorter, then the first by name.
        let rank = |key: &&str| (with(key), usize::MAX - key.len());
        let best = keys.iter().copied().rev().max_by_key(rank);
        match best {
            Some(best) if with(best) > parts(&chosen) => chosen.push(best),
            _ => break,
        }
    }
    chosen.sort_by_key(|key| (*key == "seed", *key));
    chosen
}

/// `epsilon 2`, `fedprox`, `seed 1`, `no epsilon`.
fn word(key: &str, run: &Run<'_>) -> String {
    let short = key.rsplit('.').next().unwrap_or(key);
    match run.keys.get(key).map(|value| value.trim_matches('"')) {
        Some(value) if short == "kind" => value.to_owned(),
        Some(value) => format!("{short} {value}"),
        None if short == "kind" => format!("no {}", key.split('.').next().unwrap_or(key)),
        None => format!("no {short}"),
    }
}

/// Labels that are still the same get what `beside` says of them, and then numbers.
fn apart(labels: Vec<String>, beside: impl Fn(usize) -> Option<String>) -> Vec<String> {
    let same = |labels: &[String]| {
        let mut count: BTreeMap<String, u64> = BTreeMap::new();
        for label in labels {
            *count.entry(label.clone()).or_default() += 1;
        }
        count
    };
    let count = same(&labels);
    let mut labels: Vec<String> = labels
        .into_iter()
        .enumerate()
        .map(|(run, label)| match beside(run) {
            Some(beside) if count.get(&label).is_some_and(|count| *count > 1) => {
                format!("{label} ({beside})")
            }
            _ => label,
        })
        .collect();
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
    (apart(labels, |_| None), of)
}

/// A label without what it says of the seed.
pub(super) fn without_seed(label: &str) -> String {
    let words = label.split(" · ").filter(|word| !word.starts_with("seed "));
    let text = words.collect::<Vec<_>>().join(" · ");
    match text.is_empty() {
        true => "all".to_owned(),
        false => text,
    }
}
