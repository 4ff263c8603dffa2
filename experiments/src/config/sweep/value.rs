//! Values of axes: as they are written, shown and compared.

use crate::analysis::AxisValue;
use crate::config::node::{Key, Node, Table, Value};

/// A value as a table of results keeps it: a scalar as it is, anything else as TOML writes it.
pub(super) fn kept(node: &Node) -> toml::Value {
    match to_toml(node) {
        value @ (toml::Value::Array(_) | toml::Value::Table(_)) => {
            toml::Value::String(value.to_string())
        }
        value => value,
    }
}

fn to_toml(node: &Node) -> toml::Value {
    match &node.value {
        Value::String(text) | Value::Datetime(text) => toml::Value::String(text.clone()),
        Value::Integer(value) => toml::Value::Integer(*value),
        Value::Float(value) => toml::Value::Float(*value),
        Value::Boolean(value) => toml::Value::Boolean(*value),
        Value::Array(items) => toml::Value::Array(items.iter().map(to_toml).collect()),
        Value::Table(table) => toml::Value::Table(
            table
                .entries
                .iter()
                .map(|(key, node)| (key.name.clone(), to_toml(node)))
                .collect(),
        ),
    }
}

/// For people: a word without its quotes.
pub(super) fn shown(value: &toml::Value) -> String {
    AxisValue::of(value).to_string()
}

/// The dotted keys of a table whose nested tables are keys, too, unless `is_leaf` says that one is a
/// value: `a.b = 1`, `"a.b" = 1` and `a = { b = 1 }` are the same.
pub(super) fn leaves<'a>(
    node: &'a Node,
    is_leaf: &dyn Fn(&Table) -> bool,
) -> Vec<(String, &'a Key, &'a Node)> {
    let mut found = Vec::new();
    if let Some(table) = node.table() {
        gather("", table, is_leaf, &mut found);
    }
    found
}

fn gather<'a>(
    path: &str,
    table: &'a Table,
    is_leaf: &dyn Fn(&Table) -> bool,
    found: &mut Vec<(String, &'a Key, &'a Node)>,
) {
    for (key, node) in &table.entries {
        let path = match path {
            "" => key.name.clone(),
            path => format!("{path}.{}", key.name),
        };
        match node.table() {
            Some(inner) if !is_leaf(inner) => gather(&path, inner, is_leaf, found),
            _ => found.push((path, key, node)),
        }
    }
}

/// `value` at a dotted path, each key of which was written at the place of `key`.
pub(super) fn nested(path: &str, key: &Key, value: Node) -> Node {
    path.rsplit('.').fold(value, |node, name| Node {
        place: key.place.clone(),
        value: Value::Table(Table {
            entries: vec![(
                Key {
                    name: name.to_owned(),
                    place: key.place.clone(),
                },
                node,
            )],
        }),
    })
}

/// Takes what is at a dotted path away.
pub(super) fn remove(tree: &mut Node, path: &str) {
    let mut node = tree;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let Some(table) = node.table_mut() else {
            return;
        };
        if names.peek().is_none() {
            table.remove(name);
            return;
        }
        match table.entries.iter_mut().find(|(key, _)| key.name == name) {
            Some((_, inner)) => node = inner,
            None => return,
        }
    }
}

/// Whether `path` is `above` or lies in it.
pub(super) fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Rounds to so many significant digits: the shortest decimal there is, as a person would write it.
pub(super) fn rounded(value: f64, digits: usize) -> f64 {
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    text.parse().unwrap_or(value)
}
