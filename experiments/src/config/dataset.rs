//! `[dataset]`: the data and how they fall apart into clients.
//!
//! Which keys there are depends on the data set, and the keys of `partition` on its `kind`.

use fl_datasets::partition::{AnyPartitioner, PartitionConfig, PartitionError};
use fl_datasets::{DatasetConfig, DatasetError};

use super::check::Check;
use super::de::{decode, decode_registered, join, split_kind, unknown_key};
use super::diagnostic::{Diagnostic, Diagnostics, suggest};
use super::node::{Node, Value};

const PATH: &str = "dataset";

/// Reads and checks the table.
pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<DatasetConfig> {
    let names: Vec<&str> = fl_datasets::sets::names().collect();
    let (name, mut rest) = split_kind(node, "name", PATH, &names, errors)?;
    let keys: Vec<&str> = match fl_datasets::config::keys(name) {
        Ok(keys) => keys.iter().map(|key| key.name).collect(),
        Err(error) => {
            errors.add(Diagnostic::new(
                Some(node.place.clone()),
                join(PATH, "name"),
                error.to_string(),
            ));
            return None;
        }
    };
    let before = errors.len();
    let partition = rest.table_mut().and_then(|table| {
        for (key, _) in &table.entries {
            if !keys.contains(&key.name.as_str()) {
                unknown_key(key, PATH, keys.iter().copied(), errors);
            }
        }
        table
            .entries
            .retain(|(key, _)| keys.contains(&key.name.as_str()));
        table.remove("partition")
    });
    let partition = match &partition {
        Some((_, partition)) => Some(read_partition(partition, errors)?),
        None => None,
    };
    let mut named = rest.clone();
    if let (Some(table), Some(name)) = (named.table_mut(), name_entry(node)) {
        table.entries.insert(0, name);
    }
    let mut config = decode::<DatasetConfig>(&named, PATH, errors)?;
    config.partition = partition;
    if errors.len() == before
        && let Err(error) = config.check()
    {
        let (key, message) = explain(&error);
        Check::new(node, PATH, errors).fault(key.strip_prefix("dataset.").unwrap_or(""), message);
    }
    Some(config)
}

fn name_entry(node: &Node) -> Option<(super::node::Key, Node)> {
    match &node.value {
        Value::Table(table) => table.entry("name").cloned(),
        _ => Some((
            super::node::Key {
                name: "name".to_owned(),
                place: node.place.clone(),
            },
            node.clone(),
        )),
    }
}

fn read_partition(node: &Node, errors: &Diagnostics) -> Option<PartitionConfig> {
    let path = join(PATH, "partition");
    let kinds: Vec<_> = PartitionConfig::KINDS
        .iter()
        .map(|info| info.kind)
        .collect();
    let (kind, rest) = split_kind(node, "kind", &path, &kinds, errors)?;
    let config = decode_registered(
        &rest,
        &path,
        errors,
        PartitionConfig::KINDS,
        kind,
        |decoder| PartitionConfig::from_kind(kind, decoder),
    )?;
    if let Err(error) = AnyPartitioner::from_config(config.clone()) {
        Check::new(node, &path, errors).refused(&error);
    }
    Some(config)
}

/// Whether the fault is in the configuration; else it is in the files.
pub(crate) fn is_configuration(error: &DatasetError) -> bool {
    matches!(
        error,
        DatasetError::UnknownName { .. }
            | DatasetError::UnusedKey { .. }
            | DatasetError::MissingKey { .. }
            | DatasetError::BadValue { .. }
            | DatasetError::Partition(_)
            | DatasetError::NoNaturalClients { .. }
    )
}

/// The key that causes an error of the data, and what to say of it.
pub(crate) fn explain(error: &DatasetError) -> (String, String) {
    let message = error.to_string();
    let at = |key: &str| join(PATH, key);
    match error {
        DatasetError::UnknownName { name, .. } => (
            at("name"),
            format!(
                "{name:?} is not known; {}",
                suggest(name, fl_datasets::sets::names())
            ),
        ),
        DatasetError::UnusedKey { key, .. } | DatasetError::MissingKey { key, .. } => {
            (at(key), message)
        }
        DatasetError::BadValue {
            key,
            value,
            expected,
        } => (at(key), format!("found {value}; {expected}")),
        DatasetError::Partition(error) => (at(&partition_key(error)), error.to_string()),
        DatasetError::NoNaturalClients { .. } => (at("partition"), message),
        _ => (at("path"), message),
    }
}

fn partition_key(error: &PartitionError) -> String {
    let key = match error {
        PartitionError::TooManyClients { .. } | PartitionError::TooManyShards { .. } => "clients",
        PartitionError::MinimumImpossible { .. } | PartitionError::TooFewOwners { .. } => {
            "min_examples"
        }
        PartitionError::TooManyLabels { .. }
        | PartitionError::ClassesUncovered { .. }
        | PartitionError::ClassTooSmall { each: 1, .. } => "labels",
        PartitionError::ClassTooSmall { .. } => "min_examples",
        PartitionError::NoRows => return "name".to_owned(),
        _ => "kind",
    };
    join("partition", key)
}
