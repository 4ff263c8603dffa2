//! `[strategy]`: the federated algorithm, from the registry of `fl-core` or from a plug-in.

use fl_core::registry::{KindError, KindInfo};
use fl_core::strategy::{AnyStrategy, StrategyConfig};

use super::check::Check;
use super::de::{decode_registered, split_kind};
use super::diagnostic::Diagnostics;
use super::node::Node;
use super::resolved;
use crate::plugins;

const PATH: &str = "strategy";

/// All kinds that this process knows.
pub(crate) fn kinds() -> Vec<KindInfo> {
    let outside = plugins::strategies().iter().map(|plugin| plugin.info);
    StrategyConfig::KINDS
        .iter()
        .copied()
        .chain(outside)
        .collect()
}

/// Reads and checks the table.
pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<StrategyConfig> {
    let kinds = kinds();
    let names: Vec<_> = kinds.iter().map(|info| info.kind).collect();
    let (kind, rest) = split_kind(node, "kind", PATH, &names, errors)?;
    let mut outside = plugins::strategies().iter();
    let read = match outside.find(|plugin| plugin.info.kind == kind) {
        Some(plugin) => decode_registered(&rest, PATH, errors, &kinds, kind, |decoder| {
            plugin.read(decoder).map_err(KindError::Keys)
        })?,
        None => {
            let config = decode_registered(&rest, PATH, errors, &kinds, kind, |decoder| {
                StrategyConfig::from_kind(kind, decoder)
            })?;
            AnyStrategy::from_config(config.clone()).map(|_| config)
        }
    };
    match read {
        Ok(config) => Some(config),
        Err(error) => {
            Check::new(node, PATH, errors).refused(&error);
            None
        }
    }
}

/// The table with all defaults written out.
pub(crate) fn to_toml(config: &StrategyConfig) -> Option<toml::Value> {
    let StrategyConfig::Outside(outside) = config else {
        return resolved::to_toml(config);
    };
    let keys: serde_json::Value = serde_json::from_str(outside.config()).ok()?;
    let mut table = toml::Table::new();
    table.insert("kind".to_owned(), outside.kind().into());
    if let Some(toml::Value::Table(keys)) = resolved::to_toml(&keys) {
        table.extend(keys);
    }
    Some(toml::Value::Table(table))
}
