//! What an experiment may hold, for editors (JSON schema) and for readers (Markdown).
//!
//! Both are made from the structs and registries that read the file, so they cannot disagree with
//! it.

use std::fmt::Write as _;

use fl_core::registry::{self, KeyInfo, KindInfo};
use fl_core::select::SelectorConfig;
use fl_datasets::partition::PartitionConfig;
use fl_edge::ModelDef;
use fl_edge::reference::KindDoc;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::distillation::{DistillationTable, FeatureTable, RelationTable};
use super::faults::FaultAtTable;
use super::rollout::GuardTable;
use super::schedule::RegionsTable;
use super::sweep::HalvingTable;
use super::{
    AggregationTable, CalibrationTable, EvaluationTable, FaultsTable, FleetTable, LocalTable,
    PlotTable, PrivacyTable, PruningTable, QatTable, RolloutTable, ScheduleTable, SecAggTable,
    TelemetryTable,
};

/// The JSON schema (draft 2020-12) of an experiment.
#[must_use]
pub fn json_schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let mut tables = Map::new();
    tables.insert("dataset".to_owned(), dataset());
    tables.insert("model".to_owned(), model());
    tables.insert("local".to_owned(), table::<LocalTable>(&mut generator));
    tables.insert(
        "strategy".to_owned(),
        kinds(&super::strategy::kinds(), None, "The federated algorithm."),
    );
    tables.insert(
        "selection".to_owned(),
        kinds(
            SelectorConfig::KINDS,
            Some("uniform"),
            "Who takes part in a round.",
        ),
    );
    tables.insert("fleet".to_owned(), table::<FleetTable>(&mut generator));
    tables.insert(
        "schedule".to_owned(),
        table::<ScheduleTable>(&mut generator),
    );
    tables.insert(
        "telemetry".to_owned(),
        table::<TelemetryTable>(&mut generator),
    );
    tables.insert(
        "evaluation".to_owned(),
        table::<EvaluationTable>(&mut generator),
    );
    tables.insert("privacy".to_owned(), table::<PrivacyTable>(&mut generator));
    tables.insert(
        "aggregation".to_owned(),
        table::<AggregationTable>(&mut generator),
    );
    tables.insert("secagg".to_owned(), table::<SecAggTable>(&mut generator));
    tables.insert("faults".to_owned(), table::<FaultsTable>(&mut generator));
    tables.insert("pruning".to_owned(), table::<PruningTable>(&mut generator));
    tables.insert("rollout".to_owned(), table::<RolloutTable>(&mut generator));
    let name = json!({
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
    });
    let mut top = Map::new();
    top.insert(
        "name".to_owned(),
        described(&name, "Name of the experiment and of its results."),
    );
    for (key, meaning, schema) in top_keys() {
        top.insert(key.to_owned(), described(&schema, meaning));
    }
    let mut over = top.clone();
    over.insert(
        "name".to_owned(),
        described(&name, "Name of the variant, unique."),
    );
    for key in tables.keys() {
        // Overrides hold any part of a table.
        over.insert(key.clone(), json!({ "type": ["object", "string"] }));
    }
    top.extend(tables);
    top.insert(
        "variant".to_owned(),
        json!({
            "type": "array",
            "description": "Runs of the same experiment, each with some keys overridden.",
            "items": {
                "type": "object",
                "properties": over,
                "required": ["name"],
                "additionalProperties": false,
            },
        }),
    );
    top.insert("sweep".to_owned(), sweep(&mut generator));
    top.insert(
        "plot".to_owned(),
        json!({
            "type": "array",
            "description": "The figures that are drawn in place of the standard ones.",
            "items": table::<PlotTable>(&mut generator),
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Fledgling experiment",
        "type": "object",
        "properties": top,
        "required": ["name"],
        "additionalProperties": false,
        "$defs": generator.take_definitions(true),
    })
}

/// The reference of all keys, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from("# The keys of an experiment\n\n");
    page.push_str("Written by `fledgling schema --markdown`.\n\n## At the top\n");
    page.push_str("| key | value | meaning |\n|---|---|---|\n");
    page.push_str("| `name` | name, required | Name of the experiment and of its results. |\n");
    for (key, meaning, schema) in top_keys() {
        let _ = writeln!(page, "| `{key}` | {} | {meaning} |", words(&schema));
    }
    page.push_str(
        "| `[[variant]]` | tables | Runs of the same experiment: `name`, and any of the keys below, overridden. |\n| `[[plot]]` | tables | The figures that are drawn; see the end of this page. |\n",
    );
    page.push_str(
        "\n## `[dataset]`\n`name` chooses the data set; the other keys depend on it.\n\n",
    );
    page.push_str("| name | keys |\n|---|---|\n");
    for name in fl_datasets::sets::names() {
        let keys: Vec<String> = fl_datasets::config::keys(name)
            .unwrap_or_default()
            .iter()
            .map(|key| format!("`{}`: {}", key.name, key.meaning))
            .collect();
        let _ = writeln!(page, "| `{name}` | {} |", keys.join("<br>"));
    }
    page.push_str("\n### Kinds of `partition`\n\n");
    page.push_str(&registry::markdown(PartitionConfig::KINDS));
    page.push_str(
        "## `[model]`\n`kind` is one of these, or there are `[[model.layer]]` tables.\n\n",
    );
    page.push_str("| kind | model | keys |\n|---|---|---|\n");
    for model in fl_edge::MODEL_DOCS {
        let _ = writeln!(page, "{}", documented(model));
    }
    page.push_str(
        "\n### `[[model.layer]]`\nLayers from the input to the output, each a table with `kind`. \
         All may have a `name`, the first part of its tensors' names, and an `input`: the earlier \
         layer that feeds it (or `\"input\"`), the one before when left out. `[model]` itself \
         may have a `loss`: `\"softmax-cross-entropy\"` (classes) or `\"mse\"` (numbers), each \
         where the target asks for it, or `\"bce\"` (shares).\n\n\
         | kind | layer | keys |\n|---|---|---|\n",
    );
    for layer in fl_edge::LayerDef::DOCS {
        let _ = writeln!(page, "{}", documented(layer));
    }
    let mut generator = SchemaGenerator::default();
    let _ = writeln!(
        page,
        "\n## `[local]`\n{}",
        properties::<LocalTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "### `[local.qat]`\n{}",
        properties::<QatTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "### `[local.distillation]`\n{}",
        properties::<DistillationTable>(&mut generator)
    );
    for (key, properties) in [
        ("features", properties::<FeatureTable>(&mut generator)),
        ("relation", properties::<RelationTable>(&mut generator)),
    ] {
        let _ = writeln!(page, "### `local.distillation.{key}`\n{properties}");
    }
    page.push_str("## `[strategy]`\nWithout the table: `fedavg`.\n\n");
    page.push_str(&registry::markdown(&super::strategy::kinds()));
    page.push_str(
        "## `[selection]`\nWithout `kind`: `uniform`. A `cohort` with a decimal point is a share of the clients.\n\n",
    );
    page.push_str(&registry::markdown(SelectorConfig::KINDS));
    let _ = writeln!(
        page,
        "## `[fleet]`\n{}",
        properties::<FleetTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[schedule]`\n{}",
        properties::<ScheduleTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[telemetry]`\n{}",
        properties::<TelemetryTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[evaluation]`\n{}",
        properties::<EvaluationTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "### `[evaluation.calibration]`\n{}",
        properties::<CalibrationTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[privacy]`\n{}",
        properties::<PrivacyTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[aggregation]`\n{}",
        properties::<AggregationTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[secagg]`\n{}",
        properties::<SecAggTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[faults]`\n{}",
        properties::<FaultsTable>(&mut generator)
    );
    for (key, properties) in [
        (
            "schedule.regions",
            properties::<RegionsTable>(&mut generator),
        ),
        ("faults.at", properties::<FaultAtTable>(&mut generator)),
    ] {
        let _ = writeln!(page, "### `{key}`\n{properties}");
    }
    let _ = writeln!(
        page,
        "## `[pruning]`\n{}",
        properties::<PruningTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[rollout]`\n{}",
        properties::<RolloutTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "### `[rollout.guard]`\n{}",
        properties::<GuardTable>(&mut generator)
    );
    page.push_str("## `[sweep]`\nMany cells from one file: `fledgling sweep`; docs/sweeps.md.\n\n");
    page.push_str("| key | meaning |\n|---|---|\n");
    for (key, meaning) in super::sweep::KEYS {
        let _ = writeln!(page, "| `{key}` | {meaning} |");
    }
    let _ = writeln!(
        page,
        "\n### `[sweep.halving]`\n{}",
        properties::<HalvingTable>(&mut generator)
    );
    let _ = writeln!(
        page,
        "## `[[plot]]`\nThe figures that are drawn in place of the standard ones. They decide no result.\n\n{}",
        properties::<PlotTable>(&mut generator)
    );
    page
}

/// `[sweep]`: its axes have the keys of the whole experiment.
fn sweep(generator: &mut SchemaGenerator) -> Value {
    let mut properties = Map::new();
    for (key, meaning) in super::sweep::KEYS {
        let schema = match key {
            "seeds" => json!({
                "anyOf": [
                    { "type": "integer", "minimum": 1 },
                    { "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1 },
                ],
            }),
            "zip" | "condition" => json!({ "type": "array", "items": { "type": "object" } }),
            "random" => json!({ "type": "object", "required": ["samples"] }),
            "halving" => table::<HalvingTable>(generator),
            _ => json!({ "type": "object" }),
        };
        properties.insert(key.to_owned(), described(&schema, meaning));
    }
    let mut schema = object(properties, Vec::new());
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), "Many cells from one file.".into());
    }
    schema
}

fn top_keys() -> [(&'static str, &'static str, Value); 3] {
    [
        (
            "seed",
            "Seed of everything random; 1 by default.",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        (
            "rounds",
            "Number of rounds.",
            json!({ "type": "integer", "minimum": 1 }),
        ),
        (
            "stop_at_accuracy",
            "Ends the run at the first evaluation with at least this test accuracy.",
            json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        ),
    ]
}

/// A row of a table of kinds: the kind, its doc comment's first paragraph, its keys.
fn documented(kind: &KindDoc) -> String {
    let paragraph = |lines: &[&str]| {
        let lines: Vec<&str> = (lines.iter().map(|line| line.trim()))
            .take_while(|line| !line.is_empty())
            .collect();
        lines.join(" ")
    };
    let keys: Vec<String> = (kind.keys.iter())
        .map(|key| format!("`{}`: {}", key.key.replace('_', "-"), paragraph(key.lines)))
        .collect();
    format!(
        "| `{}` | {} | {} |",
        kind.kind,
        paragraph(kind.lines),
        keys.join("<br>")
    )
}

fn described(schema: &Value, meaning: &str) -> Value {
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), meaning.into());
    }
    schema
}

fn table<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    T::json_schema(generator).to_value()
}

fn dataset() -> Value {
    let mut choices = Vec::new();
    for name in fl_datasets::sets::names() {
        let mut properties = Map::new();
        properties.insert("name".to_owned(), json!({ "const": name }));
        for key in fl_datasets::config::keys(name).unwrap_or_default() {
            let schema = match key.name {
                "partition" => kinds(PartitionConfig::KINDS, None, key.meaning),
                _ => json!({ "description": key.meaning }),
            };
            properties.insert(key.name.to_owned(), schema);
        }
        choices.push(object(properties, vec!["name".into()]));
    }
    json!({ "description": "The data and how they fall apart into clients.", "oneOf": choices })
}

fn model() -> Value {
    json!({
        "description": "The model: a kind, or [[model.layer]] tables.",
        "oneOf": [
            { "enum": ModelDef::KINDS },
            {
                "type": "object",
                "properties": {
                    "kind": { "enum": ModelDef::KINDS },
                    "layer": { "type": "array", "items": { "type": "object", "required": ["kind"] } },
                },
                "anyOf": [{ "required": ["kind"] }, { "required": ["layer"] }],
            },
        ],
    })
}

/// A table with `kind`, from a registry.
fn kinds(kinds: &[KindInfo], default: Option<&str>, meaning: &str) -> Value {
    let mut choices = Vec::new();
    let mut names = Vec::new();
    for kind in kinds {
        let mut properties = Map::new();
        properties.insert(
            "kind".to_owned(),
            json!({ "const": kind.kind, "description": kind.summary }),
        );
        let mut required = Vec::new();
        if default != Some(kind.kind) {
            required.push(Value::from("kind"));
        }
        for key in kind.keys {
            properties.insert(key.key.to_owned(), key_schema(key));
            if key.default.is_none() {
                required.push(key.key.into());
            }
        }
        choices.push(object(properties, required));
        if kind.keys.iter().all(|key| key.default.is_some()) {
            names.push(kind.kind);
        }
    }
    if !names.is_empty() {
        choices.push(json!({ "enum": names }));
    }
    json!({ "description": meaning, "oneOf": choices })
}

fn object(properties: Map<String, Value>, required: Vec<Value>) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// A key from its description in words.
fn key_schema(key: &KeyInfo) -> Value {
    let mut schema = match key.expects {
        // The share of the clients is this program's, not the registry's.
        _ if key.key == "cohort" => json!({ "type": "number", "exclusiveMinimum": 0 }),
        text if text.starts_with("whole number") => json!({ "type": "integer" }),
        text if text.starts_with("number") => json!({ "type": "number" }),
        text if text.starts_with('"') => {
            let names: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
            json!({ "enum": names })
        }
        text if text.starts_with("true") || text.starts_with("bool") => {
            json!({ "type": "boolean" })
        }
        _ => json!({}),
    };
    if let Some(schema) = schema.as_object_mut() {
        let meaning = format!("{} ({})", key.summary, key.expects);
        schema.insert("description".to_owned(), meaning.into());
        if let Some(default) = key.default {
            let default = serde_json::from_str(default).unwrap_or_else(|_| default.into());
            schema.insert("default".to_owned(), default);
        }
    }
    schema
}

/// The keys of one of this crate's own tables.
fn properties<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    let schema = table::<T>(generator);
    let mut page = String::from("| key | meaning |\n|---|---|\n");
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let meaning = schema["description"].as_str().unwrap_or_default();
        let default = match &schema["default"] {
            Value::Null => String::new(),
            Value::Object(table) => match table.get("kind") {
                Some(kind) => format!(" Default {kind}."),
                None => String::new(),
            },
            value => format!(" Default {value}."),
        };
        let meaning = meaning.replace('\n', " ");
        let _ = writeln!(page, "| `{key}` | {meaning}{default} |");
    }
    page
}

/// A schema of one number, in words.
fn words(schema: &Value) -> String {
    let kind = match schema["type"].as_str() {
        Some("integer") => "whole number",
        _ => "number",
    };
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(low), Some(high)) => format!("{kind} from {low} to {high}"),
        (Some(low), None) => format!("{kind}, at least {low}"),
        _ => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_and_kind_is_there() {
        let schema = json_schema();
        let properties = schema["properties"].as_object().unwrap();
        for table in super::super::TABLES {
            assert!(properties.contains_key(*table), "{table}");
        }
        let kinds: Vec<&str> = properties["strategy"]["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|choice| choice["properties"]["kind"]["const"].as_str())
            .collect();
        assert_eq!(kinds, ["fedavg", "fedprox", "fedbuff", "fedasync"]);
        assert_eq!(properties["local"]["properties"]["epochs"]["minimum"], 1);
        let page = markdown();
        for word in [
            "`over_select`",
            "`max_gradient_norm`",
            "`alpha`",
            "`mlp-2nn`",
            "| `mobilenet-v2` |",
            "`stem-stride`",
            "| `conv2d` | Cross-correlation",
            "`stride`: Steps between windows; 1 when left out.",
        ] {
            assert!(page.contains(word), "{word}");
        }
    }
}
