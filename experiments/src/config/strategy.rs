//! `[strategy]`: the federated algorithm, from the registry of `fl-core`.

use fl_core::strategy::{AnyStrategy, StrategyConfig};

use super::check::Check;
use super::de::{decode_registered, split_kind};
use super::diagnostic::Diagnostics;
use super::node::Node;

/// Reads and checks the table.
pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<StrategyConfig> {
    let path = "strategy";
    let kinds: Vec<_> = StrategyConfig::KINDS.iter().map(|info| info.kind).collect();
    let (kind, rest) = split_kind(node, "kind", path, &kinds, errors)?;
    let config = decode_registered(
        &rest,
        path,
        errors,
        StrategyConfig::KINDS,
        kind,
        |decoder| StrategyConfig::from_kind(kind, decoder),
    )?;
    match AnyStrategy::from_config(config.clone()) {
        Ok(_) => Some(config),
        Err(error) => {
            Check::new(node, path, errors).refused(&error);
            None
        }
    }
}
