//! `[dataset]`: the data and how they fall apart into clients.

use super::pending::DatasetConfig;

use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;

/// Reads and checks the table.
pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<DatasetConfig> {
    decode::<DatasetConfig>(node, "dataset", errors)
}
