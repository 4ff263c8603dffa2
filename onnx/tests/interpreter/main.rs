//! The interpreter against reference outputs and against hostile files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod hardness;
mod nodes;
