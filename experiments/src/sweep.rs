//! Many runs from one file: the cells of a `[sweep]`.
//!
//! ```text
//! results/NAME/
//!   sweep.toml         the plan: axes, cells with id, values and how far they came
//!   cells/ID/          the results of a cell: an ordinary results folder of one variant
//!   cells.parquet      one row per cell: its values and figures
//!   groups.parquet     one row per settings: statistics over seeds
//! ```
//!
//! A cell's id is a hash of its resolved configuration, in which neither its name nor its place
//! enters: what is in `cells/ID/` is a function of the id. A cell that is there and whole is not run
//! again, whoever ran it.

mod folder;
pub mod halving;
mod id;
mod plan;
mod shard;
mod tables;

pub use folder::{Kept, SweepFolder};
pub use id::{CellId, NoCellId};
pub use plan::{CellStatus, Plan, PlannedAxis, PlannedCell};
pub use shard::{NoShard, Shard};

/// The folder of the cells, within the results of a sweep.
pub(crate) const CELLS: &str = "cells";
