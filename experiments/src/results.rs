//! What a run leaves behind.
//!
//! ```text
//! results/NAME/
//!   manifest.toml        configuration as resolved, data digest, model digests, checksums
//!   rounds.parquet       one row per round
//!   evaluation.parquet   one row per evaluation of the global model
//!   clients.parquet      the last evaluation on every client
//!   partition.parquet    classes of a sample of the clients
//!   tensors.parquet      a fingerprint of every tensor of the global model, per round
//!   privacy.parquet      one row per round of private variants, where there are some
//!   secagg.parquet       one row per round of variants with secure aggregation, where there are some
//!   rollout.parquet      one row per day and model version of variants with a rollout, where there are some
//!   VARIANT/model.safetensors
//!   host.toml            command, threads, kernel
//!   timing.parquet       wall-clock times
//!   plots/               drawn from the tables above
//!   lock.toml            a list of every file, where `fledgling lock` has frozen them
//!   checkpoint/          while the experiment is not finished
//! ```
//!
//! Every table has a column `variant`. All files but `host.toml` and `timing.parquet` are a
//! function of the experiment: any run of it, on any number of threads, interrupted or not, leaves
//! the same bytes. Every file is written beside its place, synced and renamed.

mod atomic;
mod difference;
mod error;
mod find;
mod folder;
mod frozen;
mod journal;
mod load;
mod lock;
mod manifest;
mod model;
mod plots;
mod rollout;
mod row;
mod table;
mod writer;

pub use difference::Difference;
pub use error::ResultsError;
pub use find::find;
pub use folder::{ResultsFolder, VariantFacts, VariantKey};
pub use frozen::Frozen;
pub use load::{Results, Summary, VariantResults, damage};
pub use manifest::{DatasetFacts, FileDigest, HostFacts, Manifest, Status, VariantManifest};
pub use model::read as read_model;
pub use row::{
    Cell, ClientRow, ColumnKind, EvaluationRow, FaultsRow, FleetRow, GroupsRow, PartitionRow,
    PatchRow, PrivacyRow, PruningRow, RegionsRow, RolloutRow, RoundRow, Row, SecAggRow, TensorRow,
    TimelineRow, TimingRow,
};
pub use writer::RunWriter;

pub(crate) use atomic::{hex, write as write_file};
pub(crate) use difference::{of_rows, of_tables};
pub(crate) use find::by_data;
pub(crate) use folder::remove_work;
pub(crate) use lock::Lock;
pub(crate) use manifest::{
    FORMAT, MANIFEST, PROGRAM, read as read_manifest, stage as stage_manifest,
};
pub(crate) use model::stage_with as stage_model;
pub(crate) use plots::{Earlier, tables as drawn_tables, write as write_drawn};
pub(crate) use rollout::events as rollout_events;
pub(crate) use table::stage_frame;

/// The folder of the plots, within the results.
pub(crate) const PLOTS: &str = "plots";
