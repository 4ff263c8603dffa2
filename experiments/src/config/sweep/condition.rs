//! `[[sweep.condition]]`: which combinations are no cells, and which keys do not matter in some.

use crate::analysis::AxisValue;
use crate::config::de::unknown_key;
use crate::config::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::config::node::{Key, Node, Value};

use super::dimension::Dimension;
use super::value::{kept, leaves};

const PATH: &str = "sweep.condition";

/// What holds of the combinations to which it applies.
pub(super) struct Condition {
    /// Empty: it applies to all.
    when: Match,
    rule: Rule,
}

enum Rule {
    Only(Match),
    Except(Match),
    /// Keys that are not set.
    Without(Vec<String>),
}

/// Values that axes are to have: for each key one of a list.
#[derive(Default)]
struct Match(Vec<(String, Vec<AxisValue>)>);

/// What becomes of a combination.
pub(super) enum Verdict {
    Dropped,
    /// Keys that it is without.
    Kept(Vec<String>),
}

impl Condition {
    pub(super) fn read(
        node: &Node,
        dimensions: &[Dimension],
        errors: &Diagnostics,
    ) -> Option<Self> {
        let before = errors.len();
        let known = ["when", "only", "except", "without"];
        let Some(table) = node.table() else {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                PATH,
                format!("found {}, expected a table", node.describe()),
            ));
            return None;
        };
        for (key, _) in &table.entries {
            if !known.contains(&key.name.as_str()) {
                unknown_key(key, PATH, known, errors);
            }
        }
        let when = match table.get("when") {
            Some(node) => Match::read(node, "when", dimensions, errors),
            None => Some(Match::default()),
        };
        let rules: Vec<Option<Rule>> = ["only", "except", "without"]
            .into_iter()
            .filter_map(|name| {
                let node = table.get(name)?;
                Some(match name {
                    "only" => Match::read(node, name, dimensions, errors).map(Rule::Only),
                    "except" => Match::read(node, name, dimensions, errors).map(Rule::Except),
                    _ => keys(node, dimensions, errors).map(Rule::Without),
                })
            })
            .collect();
        if rules.len() != 1 && errors.len() == before {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                PATH,
                "a condition has one of only = { key = value }, except = { key = value } and without = [\"key\"], and may have when = { key = value }".to_owned(),
            ));
        }
        let rule = rules.into_iter().next()??;
        (errors.len() == before).then_some(Self { when: when?, rule })
    }

    /// What the conditions make of a combination with these values.
    pub(super) fn judge(conditions: &[Self], value: &dyn Fn(&str) -> Option<AxisValue>) -> Verdict {
        let mut without = Vec::new();
        for condition in conditions.iter().filter(|it| it.when.holds(value)) {
            match &condition.rule {
                Rule::Only(wanted) if !wanted.holds(value) => return Verdict::Dropped,
                Rule::Except(unwanted) if unwanted.holds(value) => return Verdict::Dropped,
                Rule::Without(keys) => without.extend(keys.iter().cloned()),
                Rule::Only(_) | Rule::Except(_) => {}
            }
        }
        Verdict::Kept(without)
    }
}

impl Match {
    fn read(
        node: &Node,
        name: &str,
        dimensions: &[Dimension],
        errors: &Diagnostics,
    ) -> Option<Self> {
        if node.table().is_none() {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                format!("{PATH}.{name}"),
                format!(
                    "found {}, expected axes and their values, such as {{ \"strategy.kind\" = \"fedprox\" }}",
                    node.describe()
                ),
            ));
            return None;
        }
        let before = errors.len();
        let mut wanted = Vec::new();
        for (path, key, node) in leaves(node, &|_| false) {
            let Some((dimension, place)) = axis(&path, key, name, dimensions, errors) else {
                continue;
            };
            let nodes = match &node.value {
                Value::Array(items) => items.iter().collect(),
                _ => vec![node],
            };
            let mut values = Vec::new();
            for node in nodes {
                let value = AxisValue::of(&kept(node));
                let there: Vec<AxisValue> = dimension
                    .choices
                    .iter()
                    .filter_map(|choice| choice.values.get(place).map(AxisValue::of))
                    .collect();
                if !dimension.is_drawn && !there.contains(&value) {
                    let there: Vec<String> = there.iter().map(AxisValue::to_string).collect();
                    errors.add(Diagnostic::new(
                        Some(node.place.clone()),
                        format!("{PATH}.{name}.{path}"),
                        format!(
                            "{value} is no value of that axis, which has {}",
                            there.join(", ")
                        ),
                    ));
                }
                values.push(value);
            }
            wanted.push((path, values));
        }
        (errors.len() == before).then_some(Self(wanted))
    }

    fn holds(&self, value: &dyn Fn(&str) -> Option<AxisValue>) -> bool {
        self.0
            .iter()
            .all(|(key, wanted)| value(key).is_some_and(|found| wanted.contains(&found)))
    }
}

/// The list of `without`.
fn keys(node: &Node, dimensions: &[Dimension], errors: &Diagnostics) -> Option<Vec<String>> {
    let items = match &node.value {
        Value::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let before = errors.len();
    let mut found = Vec::new();
    for item in items {
        let Some(text) = item.str() else {
            errors.add(Diagnostic::new(
                Some(item.place.clone()),
                format!("{PATH}.without"),
                format!(
                    "found {}, expected a list of axes in quotes, such as [\"strategy.mu\"]",
                    item.describe()
                ),
            ));
            continue;
        };
        let key = Key {
            name: text.to_owned(),
            place: item.place.clone(),
        };
        if axis(text, &key, "without", dimensions, errors).is_some() {
            found.push(text.to_owned());
        }
    }
    (errors.len() == before).then_some(found)
}

/// The axis of a key, and the key's place on it.
fn axis<'a>(
    path: &str,
    key: &Key,
    name: &str,
    dimensions: &'a [Dimension],
    errors: &Diagnostics,
) -> Option<(&'a Dimension, usize)> {
    let found = dimensions.iter().find_map(|dimension| {
        let place = dimension.keys.iter().position(|key| key.name == path)?;
        Some((dimension, place))
    });
    if found.is_none() {
        let names = dimensions.iter().flat_map(|it| &it.keys);
        errors.add(Diagnostic::new(
            Some(key.place.clone()),
            format!("{PATH}.{name}.{path}"),
            format!(
                "no axis has this key; {}",
                suggest(path, names.map(|key| key.name.as_str()))
            ),
        ));
    }
    found
}
