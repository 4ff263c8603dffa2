//! `sweep.toml`: which cells there are, and how far they came.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CellId;
use crate::results::{self, ResultsError};

/// The plan's file name.
const FILE: &str = "sweep.toml";

/// What a sweep consists of. When all cells are done it is a function of the experiment alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format of the file.
    pub format: u64,
    /// The experiment.
    pub name: String,
    /// The program and its version.
    pub program: String,
    /// What the cells differ in, apart from the seed.
    #[serde(rename = "axis", default, skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<PlannedAxis>,
    /// The cells, in their order.
    #[serde(rename = "cell", default)]
    pub cells: Vec<PlannedCell>,
}

/// An axis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedAxis {
    /// The dotted key, or `variant`.
    pub key: String,
}

/// How far a cell came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellStatus {
    /// Not begun, or not to the first point from which there are results.
    Pending,
    /// Interrupted; the same command goes on.
    Stopped,
    /// Ended early by successive halving.
    Dropped,
    /// To its end.
    Finished,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedCell {
    /// Hash of its configuration; also its folder.
    pub id: CellId,
    /// How far it came.
    pub status: CellStatus,
    /// Seed of everything random.
    pub seed: u64,
    /// Its value on each axis; of those that do not matter for it, none.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub values: toml::Table,
}

impl Plan {
    /// The plan in a folder; nothing where there is none.
    ///
    /// # Errors
    /// [`ResultsError::Read`], [`ResultsError::Damaged`] or [`ResultsError::Format`].
    pub fn read(folder: &Path) -> Result<Option<Self>, ResultsError> {
        results::read_manifest(&folder.join(FILE))
    }

    /// Writes the plan into a folder, whole or not at all.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub fn write(&self, folder: &Path) -> Result<(), ResultsError> {
        results::stage_manifest(&folder.join(FILE), self)?.publish()?;
        Ok(())
    }
}
