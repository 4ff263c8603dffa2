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

mod plan;

pub use plan::{CellStatus, Plan, PlannedAxis, PlannedCell};

/// The folder of the cells, within the results of a sweep.
pub(crate) const CELLS: &str = "cells";
