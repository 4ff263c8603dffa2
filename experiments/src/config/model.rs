//! `[model]`: a model of the zoo by its `kind`, or `[[model.layer]]` tables.

use fl_edge::ModelDef;

use super::de::{decode, join, split_kind};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::node::{Key, Node, Table, Value};

/// Reads the table. Whether the model fits the data shows when both are at hand.
pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<ModelDef> {
    let path = "model";
    if let Value::String(_) = node.value {
        // The short form `model = "logreg"`.
        split_kind(node, "kind", path, ModelDef::KINDS, errors)?;
        let mut table = Table::default();
        table.set(
            Key {
                name: "kind".to_owned(),
                place: node.place.clone(),
            },
            node.clone(),
        );
        let node = Node {
            place: node.place.clone(),
            value: Value::Table(table),
        };
        return decode::<ModelDef>(&node, path, errors);
    }
    if let Some(table) = node.table()
        && table.get("layer").is_none()
    {
        if table.get("kind").is_none() {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                join(path, "kind"),
                format!(
                    "missing; add for example kind = \"logreg\" (one of {}), or [[model.layer]] tables",
                    ModelDef::KINDS.join(", ")
                ),
            ));
            return None;
        }
        split_kind(node, "kind", path, ModelDef::KINDS, errors)?;
    }
    decode::<ModelDef>(node, path, errors)
}
