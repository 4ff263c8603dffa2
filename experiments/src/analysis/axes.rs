//! What runs differ in, found in their resolved configurations.

use std::collections::{BTreeMap, BTreeSet};

use super::{Axis, AxisValue};

/// Keys that say who a run is, not what it does.
const IDENTITY: [&str; 2] = ["name", "seed"];

/// The key whose absence means that privacy is without bound.
pub(crate) const EPSILON: &str = "privacy.epsilon";

/// A configuration as dotted keys and values.
type Flat = BTreeMap<String, AxisValue>;

/// The keys in which configurations differ, and for each configuration its value for each of them.
pub(super) fn of(configs: &[&toml::Table]) -> (Vec<Axis>, Vec<Vec<AxisValue>>) {
    let flat: Vec<Flat> = configs.iter().map(|config| flatten(config)).collect();
    let keys: BTreeSet<&String> = flat.iter().flat_map(Flat::keys).collect();
    let differing: Vec<&str> = keys
        .into_iter()
        .map(String::as_str)
        .filter(|key| !IDENTITY.contains(key))
        .filter(|key| {
            let mut values = flat.iter().map(|config| config.get(*key));
            let first = values.next();
            values.any(|value| Some(value) != first)
        })
        .collect();
    let kept = without_echoes(&differing, &flat);
    let values: Vec<Vec<AxisValue>> = flat
        .iter()
        .map(|config| kept.iter().map(|key| value(config, key)).collect())
        .collect();
    let axes = kept
        .iter()
        .enumerate()
        .map(|(place, key)| Axis {
            key: (*key).to_owned(),
            values: in_order(values.iter().filter_map(|values| values.get(place))),
        })
        .collect();
    (axes, values)
}

fn value(config: &Flat, key: &str) -> AxisValue {
    match config.get(key) {
        Some(value) => value.clone(),
        None if key == EPSILON => AxisValue::Number(f64::INFINITY),
        None => AxisValue::Absent,
    }
}

/// Distinct values: numbers and words each ascending.
pub(super) fn in_order<'a>(values: impl Iterator<Item = &'a AxisValue>) -> Vec<AxisValue> {
    let distinct: BTreeSet<&AxisValue> = values.collect();
    distinct.into_iter().cloned().collect()
}

/// A table that only some runs have differs in all of its keys, most of which say no more than that
/// it is there. Of those (one value where there is one) only the first of `kind` and the others is
/// kept, and none where another key of the table tells as much.
fn without_echoes<'a>(keys: &[&'a str], flat: &[Flat]) -> Vec<&'a str> {
    let table = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
    let says_presence = |key: &str| {
        let present: BTreeSet<&AxisValue> =
            flat.iter().filter_map(|config| config.get(key)).collect();
        present.len() == 1
    };
    let mut kept: Vec<&str> = Vec::new();
    for &key in keys {
        if !says_presence(key) {
            kept.push(key);
            continue;
        }
        let there: Vec<bool> = flat.iter().map(|config| config.contains_key(key)).collect();
        let told = keys.iter().any(|&other| {
            let same = || {
                flat.iter()
                    .zip(&there)
                    .all(|(config, &there)| !there || config.contains_key(other))
            };
            let distinguishes = || {
                let absent: BTreeSet<_> = flat
                    .iter()
                    .zip(&there)
                    .filter(|(_, there)| !**there)
                    .map(|(config, _)| config.get(other))
                    .collect();
                let present: BTreeSet<_> = flat
                    .iter()
                    .zip(&there)
                    .filter(|(_, there)| **there)
                    .map(|(config, _)| config.get(other))
                    .collect();
                absent.is_disjoint(&present)
            };
            let first = |key: &str| (!key.ends_with(".kind"), key.to_owned());
            other != key
                && table(other) == table(key)
                && same()
                && distinguishes()
                && (!says_presence(other) || first(other) < first(key))
        });
        if !told {
            kept.push(key);
        }
    }
    kept
}

fn flatten(config: &toml::Table) -> Flat {
    let mut flat = Flat::new();
    add("", config, &mut flat);
    flat
}

fn add(path: &str, table: &toml::Table, flat: &mut Flat) {
    for (key, value) in table {
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        match value {
            toml::Value::Table(inner) => add(&path, inner, flat),
            value => {
                flat.insert(path, AxisValue::of(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(texts: &[&str]) -> Vec<(String, Vec<String>)> {
        let configs: Vec<toml::Table> = texts
            .iter()
            .map(|text| toml::from_str(text).unwrap())
            .collect();
        let (axes, values) = of(&configs.iter().collect::<Vec<_>>());
        axes.iter()
            .enumerate()
            .map(|(place, axis)| {
                let values = values.iter().map(|row| row[place].to_string()).collect();
                (axis.key.clone(), values)
            })
            .collect()
    }

    fn axis(key: &str, values: &[&str]) -> (String, Vec<String>) {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        (key.to_owned(), values)
    }

    #[test]
    fn runs_differ_in_what_was_chosen() {
        // Names and seeds tell nothing.
        assert_eq!(
            axes(&[
                "name = 'a'\nseed = 1\nrounds = 3",
                "name = 'b'\nseed = 2\nrounds = 3"
            ]),
            []
        );
        // A value, and one that only some have.
        assert_eq!(
            axes(&[
                "local = { learning_rate = 0.1, epochs = 2 }",
                "local = { learning_rate = 0.2, steps = 5 }",
                "local = { learning_rate = 0.1, steps = 7 }",
            ]),
            [
                axis("local.epochs", &["2", "-", "-"]),
                axis("local.learning_rate", &["0.1", "0.2", "0.1"]),
                axis("local.steps", &["-", "5", "7"]),
            ]
        );
        // The kind says that there is a mu.
        assert_eq!(
            axes(&[
                "strategy = { kind = 'fedavg' }",
                "strategy = { kind = 'fedprox', mu = 0.1 }",
            ]),
            [axis("strategy.kind", &["fedavg", "fedprox"])]
        );
        // But not which.
        assert_eq!(
            axes(&[
                "strategy = { kind = 'fedavg' }",
                "strategy = { kind = 'fedprox', mu = 0.1 }",
                "strategy = { kind = 'fedprox', mu = 0.2 }",
            ]),
            [
                axis("strategy.kind", &["fedavg", "fedprox", "fedprox"]),
                axis("strategy.mu", &["-", "0.1", "0.2"]),
            ]
        );
        // A table that some have: epsilon tells, and its absence is infinity.
        let private = "privacy = { kind = 'central', delta = 1e-5, max_norm = 1.5, epsilon =";
        assert_eq!(
            axes(&[
                "",
                &format!("{private} 1.0 }}"),
                &format!("{private} 8.0 }}")
            ]),
            [axis("privacy.epsilon", &["inf", "1", "8"])]
        );
        assert_eq!(
            axes(&["", "pruning = { kind = 'magnitude', every = 5 }"]),
            [axis("pruning.kind", &["-", "magnitude"])]
        );
    }
}
