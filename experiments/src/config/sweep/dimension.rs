//! One axis, or several keys that move together.

use std::ops::RangeInclusive;

use crate::config::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::config::node::{Key, Node, Place, Table, Value};

use super::value::{self, is_within, kept, leaves, nested, rounded};

/// The key of the seeds' axis.
pub(super) const SEED: &str = "seed";
/// The key of the axis of the variants.
pub(super) const VARIANT: &str = "variant";

/// Keys that change together, and what they may become.
pub(super) struct Dimension {
    pub(super) keys: Vec<Key>,
    /// At least one.
    pub(super) choices: Vec<Choice>,
    /// Whether the values are drawn, so that nobody can name them beforehand.
    pub(super) is_drawn: bool,
}

/// One setting of a [`Dimension`].
pub(super) struct Choice {
    /// A value for each of the keys, as tables of results keep it.
    pub(super) values: Vec<toml::Value>,
    /// Dotted paths that it takes away.
    pub(super) removes: Vec<String>,
    /// What it lays over the experiment.
    pub(super) sets: Vec<Assignment>,
}

/// A value at a dotted path.
pub(super) struct Assignment {
    /// Empty for a whole table of overrides.
    pub(super) path: String,
    /// From the top of the experiment.
    pub(super) overlay: Node,
}

impl Dimension {
    /// The experiment's variants; none where there are none.
    pub(super) fn of_variants(variants: Vec<(String, Node)>) -> Option<Self> {
        let place = variants.first()?.1.place.clone();
        let choice = |(name, overlay): (String, Node)| Choice {
            values: vec![toml::Value::String(name)],
            removes: Vec::new(),
            sets: vec![Assignment {
                path: String::new(),
                overlay,
            }],
        };
        Some(Self {
            keys: vec![Key {
                name: VARIANT.to_owned(),
                place,
            }],
            choices: variants.into_iter().map(choice).collect(),
            is_drawn: false,
        })
    }
}

/// The axes of `[sweep.grid]`.
pub(super) fn grid(node: &Node, errors: &Diagnostics) -> Vec<Dimension> {
    lists(node, "sweep.grid", errors)
        .into_iter()
        .map(|(key, values)| Dimension {
            choices: values
                .into_iter()
                .filter_map(|value| Choice::of(&key, value, errors))
                .collect(),
            keys: vec![key],
            is_drawn: false,
        })
        .collect()
}

/// The keys of a `[[sweep.zip]]`, as one axis.
pub(super) fn zip(node: &Node, errors: &Diagnostics) -> Option<Dimension> {
    let lists = lists(node, "sweep.zip", errors);
    let length = lists.first()?.1.len();
    if let Some((key, values)) = lists.iter().find(|(_, values)| values.len() != length) {
        let first = &lists.first()?.0.name;
        errors.add(Diagnostic::new(
            Some(key.place.clone()),
            format!("sweep.zip.{}", key.name),
            format!(
                "found {} values, and `{first}` has {length}; keys that move together have as many each",
                values.len()
            ),
        ));
        return None;
    }
    let mut keys = Vec::new();
    let mut choices: Vec<Choice> = (0..length).map(|_| Choice::nothing()).collect();
    for (key, values) in lists {
        for (choice, value) in choices.iter_mut().zip(values) {
            let one = Choice::of(&key, value, errors)?;
            choice.values.extend(one.values);
            choice.removes.extend(one.removes);
            choice.sets.extend(one.sets);
        }
        keys.push(key);
    }
    Some(Dimension {
        keys,
        choices,
        is_drawn: false,
    })
}

/// The seeds; without the key the experiment's own.
pub(super) fn seeds(node: Option<&Node>, first: i64, errors: &Diagnostics) -> Option<Dimension> {
    let expected = "expected a list of whole numbers of at least 0, such as [1, 2, 3], or how many seeds, such as 3";
    let Some(node) = node else {
        return Some(Dimension {
            keys: Vec::new(),
            choices: vec![Choice::nothing()],
            is_drawn: false,
        });
    };
    let refuse = |at: &Node, found: String| {
        let place = Some(at.place.clone());
        errors.add(Diagnostic::new(
            place,
            "sweep.seeds",
            format!("found {found}, {expected}"),
        ));
    };
    let nodes: Vec<Node> = match &node.value {
        Value::Integer(count) if (1..=100_000).contains(count) => (0..*count)
            .filter_map(|index| first.checked_add(index))
            .map(|seed| Node {
                place: node.place.clone(),
                value: Value::Integer(seed),
            })
            .collect(),
        Value::Array(items) if !items.is_empty() => items.clone(),
        Value::Array(_) => {
            refuse(node, "an empty list".to_owned());
            return None;
        }
        _ => {
            refuse(node, node.describe());
            return None;
        }
    };
    let before = errors.len();
    for seed in &nodes {
        if !matches!(seed.value, Value::Integer(seed) if seed >= 0) {
            refuse(seed, seed.describe());
        }
    }
    refuse_equal("sweep.seeds", &nodes, errors);
    let key = Key {
        name: SEED.to_owned(),
        place: node.place.clone(),
    };
    let choices = nodes
        .into_iter()
        .filter_map(|seed| Choice::of(&key, seed, errors))
        .collect();
    (errors.len() == before).then_some(Dimension {
        keys: vec![key],
        choices,
        is_drawn: false,
    })
}

/// A key belongs to one axis.
pub(super) fn refuse_twice(dimensions: &[Dimension], errors: &Diagnostics) {
    let keys: Vec<&Key> = dimensions.iter().flat_map(|it| &it.keys).collect();
    for (index, key) in keys.iter().enumerate() {
        if keys.iter().take(index).any(|other| other.name == key.name) {
            errors.add(Diagnostic::new(
                Some(key.place.clone()),
                format!("sweep.{}", key.name),
                format!("`{}` is an axis already; give it in one place", key.name),
            ));
        }
    }
}

/// Keys that no axis may have, and what to use.
pub(super) fn refuse_key(key: &Key, path: &str, errors: &Diagnostics) -> bool {
    let top = key.name.split('.').next().unwrap_or_default();
    let message = match top {
        SEED => "seeds have a key of their own: seeds = [1, 2, 3] in [sweep]",
        "name" => "the name is the experiment's and says nothing of a run; remove it",
        VARIANT => "the [[variant]] tables are an axis without being named here; remove it",
        "sweep" => "a sweep has no sweeps; remove it",
        _ => return false,
    };
    errors.add(Diagnostic::new(
        Some(key.place.clone()),
        format!("{path}.{}", key.name),
        message.to_owned(),
    ));
    true
}

impl Choice {
    pub(super) fn nothing() -> Self {
        Self {
            values: Vec::new(),
            removes: Vec::new(),
            sets: Vec::new(),
        }
    }

    /// What it means that `key` has `value`: the value itself, no privacy for an infinite epsilon, or
    /// a table of what is set and taken away.
    pub(super) fn of(key: &Key, value: Node, errors: &Diagnostics) -> Option<Self> {
        if let Some(table) = value.table().filter(|table| is_named(table)) {
            return Self::named(key, table, &value.place, errors);
        }
        let endless = matches!(value.value, Value::Float(number) if number == f64::INFINITY);
        if endless && key.name == crate::analysis::EPSILON {
            return Some(Self {
                values: vec![toml::Value::Float(f64::INFINITY)],
                removes: vec!["privacy".to_owned()],
                sets: Vec::new(),
            });
        }
        Some(Self {
            values: vec![kept(&value)],
            removes: Vec::new(),
            sets: vec![Assignment {
                overlay: nested(&key.name, key, value),
                path: key.name.clone(),
            }],
        })
    }

    fn named(key: &Key, table: &Table, place: &Place, errors: &Diagnostics) -> Option<Self> {
        let path = format!("sweep.{}", key.name);
        let fault = |at: &Place, key: &str, message: &str| {
            errors.add(Diagnostic::new(
                Some(at.clone()),
                format!("{path}.{key}"),
                message.to_owned(),
            ));
        };
        let Some(name) = table.get("name") else {
            fault(
                place,
                "name",
                "missing; name the setting, such as name = \"none\": it is the value on the axis",
            );
            return None;
        };
        let values = match &name.value {
            Value::String(_) | Value::Integer(_) | Value::Float(_) => vec![kept(name)],
            _ => {
                fault(&name.place, "name", "expected a word or a number");
                return None;
            }
        };
        let mut removes = Vec::new();
        if let Some(node) = table.get("remove") {
            let Value::Array(items) = &node.value else {
                fault(
                    &node.place,
                    "remove",
                    "expected a list of dotted keys, such as [\"privacy\"]",
                );
                return None;
            };
            for item in items {
                match item.str() {
                    Some(text) => removes.push(text.to_owned()),
                    None => fault(&item.place, "remove", "expected a dotted key in quotes"),
                }
            }
        }
        let mut sets = Vec::new();
        if let Some(node) = table.get("set") {
            if node.table().is_none() {
                fault(
                    &node.place,
                    "set",
                    "expected a table of dotted keys and values, such as { \"local.batch\" = 20 }",
                );
                return None;
            }
            // Values that are tables stay whole: their keys would be laid over one by one anyway.
            for (path, key, value) in leaves(node, &|_| false) {
                if !refuse_key(key, &path, errors) {
                    sets.push(Assignment {
                        overlay: nested(&path, key, value.clone()),
                        path,
                    });
                }
            }
        }
        Some(Self {
            values,
            removes,
            sets,
        })
    }

    /// Whether another choice takes away what is set at `path`.
    pub(super) fn takes_away(&self, path: &str) -> bool {
        self.removes.iter().any(|removed| is_within(path, removed))
    }
}

/// Whether a table is a named setting: no table of an experiment has keys `set` or `remove`.
fn is_named(table: &Table) -> bool {
    table
        .entries
        .iter()
        .all(|(key, _)| ["name", "set", "remove"].contains(&key.name.as_str()))
        && (table.get("set").is_some() || table.get("remove").is_some())
}

/// The keys of a table with their lists of values, ranges written out.
fn lists(node: &Node, path: &str, errors: &Diagnostics) -> Vec<(Key, Vec<Node>)> {
    if node.table().is_none() {
        errors.add(Diagnostic::new(
            Some(node.place.clone()),
            path,
            format!(
                "found {}, expected a table of dotted keys, such as \"local.learning_rate\" = [0.1, 0.2]",
                node.describe()
            ),
        ));
        return Vec::new();
    }
    let mut found: Vec<(Key, Vec<Node>)> = Vec::new();
    for (name, key, list) in leaves(node, &is_range) {
        let key = Key {
            name,
            place: key.place.clone(),
        };
        let at = format!("{path}.{}", key.name);
        if refuse_key(&key, path, errors) {
            continue;
        }
        let values = match &list.value {
            Value::Array(items) if items.is_empty() => {
                errors.add(Diagnostic::new(
                    Some(list.place.clone()),
                    at.as_str(),
                    "the list is empty; give at least one value, or remove the key".to_owned(),
                ));
                continue;
            }
            Value::Array(items) => items.clone(),
            Value::Table(table) => match range(table, list, &at, errors) {
                Some(values) => values,
                None => continue,
            },
            _ => {
                errors.add(Diagnostic::new(
                    Some(list.place.clone()),
                    at.as_str(),
                    format!(
                        "found {}, expected a list of values such as [1, 2], or a range such as {{ log = [0.001, 1.0], points = 4 }}",
                        list.describe()
                    ),
                ));
                continue;
            }
        };
        refuse_equal(&at, &values, errors);
        match found.iter_mut().find(|(other, _)| other.name == key.name) {
            // From the prompt, in place of the file's.
            Some(entry) if !key.place.source.is_file => entry.1 = values,
            Some(_) => errors.add(Diagnostic::new(
                Some(key.place.clone()),
                at,
                "the key is given twice; remove one".to_owned(),
            )),
            None => found.push((key, values)),
        }
    }
    found
}

/// Equal values would be the same cell twice.
fn refuse_equal(path: &str, values: &[Node], errors: &Diagnostics) {
    for (index, node) in values.iter().enumerate() {
        let same = |other: &Node| {
            let [a, b] = [other, node].map(|node| crate::analysis::AxisValue::of(&kept(node)));
            a == b
        };
        let named = node.table().is_some_and(is_named);
        if !named && values.iter().take(index).any(same) {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                path,
                format!("{} is given twice; remove one", value::shown(&kept(node))),
            ));
        }
    }
}

/// Ways to write a range.
const RANGES: [&str; 3] = ["log", "linear", "integer"];

pub(super) fn is_range(table: &Table) -> bool {
    RANGES.iter().any(|name| table.get(name).is_some())
}

/// A whole number that is there or has a default, and lies in `range`; else a fault of the table, which
/// is `node`'s.
pub(super) fn whole(
    (table, node): (&Table, &Node),
    key: &str,
    range: RangeInclusive<i64>,
    default: Option<i64>,
    fault: &dyn Fn(&Node, &str, String),
) -> Option<i64> {
    let at = table.get(key);
    let found = match at.map(|at| &at.value) {
        None => default,
        Some(Value::Integer(value)) => Some(*value).filter(|value| range.contains(value)),
        Some(_) => None,
    };
    if found.is_none() {
        let (least, most) = range.into_inner();
        let message = format!("expected a whole number from {least} to {most}");
        fault(at.unwrap_or(node), key, message);
    }
    found
}

/// The values of a range. Both ends are among them.
fn range(table: &Table, node: &Node, path: &str, errors: &Diagnostics) -> Option<Vec<Node>> {
    let fault = |at: &Node, key: &str, message: String| {
        errors.add(Diagnostic::new(
            Some(at.place.clone()),
            format!("{path}{}{key}", if key.is_empty() { "" } else { "." }),
            message,
        ));
    };
    let known = ["log", "linear", "integer", "points", "step", "digits"];
    for (key, at) in &table.entries {
        if !known.contains(&key.name.as_str()) {
            fault(
                at,
                &key.name,
                format!("unknown key; {}", suggest(&key.name, known)),
            );
            return None;
        }
    }
    let kinds: Vec<&str> = RANGES
        .into_iter()
        .filter(|name| table.get(name).is_some())
        .collect();
    let [kind] = kinds.as_slice() else {
        fault(
            node,
            "",
            "a range is one of log, linear and integer".to_owned(),
        );
        return None;
    };
    let Some([low, high]) = ends(table, kind) else {
        fault(
            table.get(kind).unwrap_or(node),
            kind,
            match *kind {
                "log" => "expected two numbers above 0, the smaller first, such as [0.001, 1.0]",
                "linear" => "expected two numbers, the smaller first, such as [0.0, 1.0]",
                _ => "expected two whole numbers, the smaller first, such as [1, 10]",
            }
            .to_owned(),
        );
        return None;
    };
    let whole = |key: &str, range: RangeInclusive<i64>, default: Option<i64>| {
        whole((table, node), key, range, default, &fault)
    };
    let make = |value: Value| Node {
        place: node.place.clone(),
        value,
    };
    if *kind == "integer" {
        let step = whole("step", 1..=i64::from(u32::MAX), Some(1))?;
        let (low, high) = (low as i64, high as i64);
        if (high - low) / step >= super::MOST as i64 {
            fault(
                node,
                "step",
                format!("the range has more than {} values", super::MOST),
            );
            return None;
        }
        let steps = (0..=(high - low) / step).map(|index| low + index * step);
        return Some(steps.map(|value| make(Value::Integer(value))).collect());
    }
    let points = whole("points", 2..=1000, None)?;
    let digits = whole("digits", 1..=17, Some(4))? as usize;
    let last = points - 1;
    let between = (0..points).map(|index| {
        let share = index as f64 / last as f64;
        let value = match (index, *kind) {
            (0, _) => low,
            (index, _) if index == last => high,
            (_, "log") => rounded(
                libm::exp(libm::log(low) + share * (libm::log(high) - libm::log(low))),
                digits,
            ),
            _ => rounded(low + share * (high - low), digits),
        };
        make(Value::Float(value))
    });
    Some(between.collect())
}

/// Two numbers of which the second is larger, fit for the kind of range or distribution.
pub(super) fn ends(table: &Table, kind: &str) -> Option<[f64; 2]> {
    let Value::Array(items) = &table.get(kind)?.value else {
        return None;
    };
    let [low, high] = items.as_slice() else {
        return None;
    };
    let whole = kind.ends_with("integer");
    let number = |node: &Node| match node.value {
        // Beyond this a double is no longer every whole number.
        Value::Integer(value) if value.unsigned_abs() < 1 << 53 => Some(value as f64),
        Value::Float(value) if !whole && value.is_finite() => Some(value),
        _ => None,
    };
    let (low, high) = (number(low)?, number(high)?);
    let above_zero = !kind.starts_with("log") || low > 0.0;
    (low < high && above_zero).then_some([low, high])
}
