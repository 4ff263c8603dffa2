//! Overrides: a variant's tables and `--set` arguments laid over the experiment's.
//!
//! A table is laid over key by key. Choosing another `kind` (for `[dataset]` another `name`)
//! starts its table afresh, because the old keys belong to the old kind; so does giving
//! `[[model.layer]]` tables. `epochs` and `steps` replace each other.

use super::node::{Node, Table, Value};

/// Lays `over` over `base`.
pub(crate) fn overlay(base: &mut Node, over: &Node) {
    if let (Value::Table(base), Value::Table(over)) = (&mut base.value, &over.value) {
        overlay_table(base, over, "");
    }
}

fn overlay_table(base: &mut Table, over: &Table, path: &str) {
    for (key, node) in &over.entries {
        let name = key.name.as_str();
        if path == "local" {
            match name {
                "epochs" => drop(base.remove("steps")),
                "steps" => drop(base.remove("epochs")),
                _ => {}
            }
        }
        let inner = base.entries.iter_mut().find(|(old, _)| old.name == name);
        match (inner.map(|(_, node)| &mut node.value), &node.value) {
            (Some(Value::Table(old)), Value::Table(new)) if !starts_afresh(old, new, name) => {
                overlay_table(old, new, name);
            }
            (Some(Value::String(_)), Value::Table(new))
                if KINDED.contains(&name) && new.get("kind").is_none() =>
            {
                // The short form `optimizer = "sgd"`, given keys.
                let mut table = new.clone();
                if let Some((_, old)) = base.remove(name) {
                    let kind = Value::String(kind_of(old.value));
                    table.entries.insert(
                        0,
                        (
                            super::node::Key {
                                name: "kind".to_owned(),
                                place: old.place.clone(),
                            },
                            Node {
                                place: old.place,
                                value: kind,
                            },
                        ),
                    );
                }
                base.set(
                    key.clone(),
                    Node {
                        place: node.place.clone(),
                        value: Value::Table(table),
                    },
                );
            }
            _ => base.set(key.clone(), node.clone()),
        }
    }
}

/// Tables that may be written as only their kind.
const KINDED: &[&str] = &["strategy", "partition", "optimizer", "schedule", "model"];

fn kind_of(value: Value) -> String {
    match value {
        Value::String(kind) => kind,
        _ => String::new(),
    }
}

fn starts_afresh(old: &Table, new: &Table, name: &str) -> bool {
    let tag = if name == "dataset" { "name" } else { "kind" };
    let chosen = |table: &Table| table.get(tag).and_then(Node::str).map(str::to_owned);
    let other = chosen(new).is_some() && chosen(new) != chosen(old);
    other || (name == "model" && new.get("layer").is_some())
}
