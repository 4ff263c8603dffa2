//! `cargo xtask secagg-peers`: a session of secure aggregation beside the primitives of Flower's, in
//! one run.
//!
//! The comparison itself is `xtask/python/secagg_peers.py`; this makes what it needs: our program and a
//! Python environment in `target/` with the pinned version of Flower.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{self, root, run};
use crate::python;

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Clients of the session.
    #[arg(long, default_value_t = 100)]
    clients: u32,
    /// Coordinates of a vector.
    #[arg(long, default_value_t = 1_000_000)]
    length: usize,
    /// The share of clients that drop out after they shared their keys.
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    /// Repetitions of each of Flower's functions; the median counts.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Also write the figures to this JSON file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A Python that has Flower; without it an environment is made in `target/`.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

pub(crate) fn compare(options: &Options) -> Result<()> {
    let release = process::build()?;
    let peers = match &options.python {
        Some(python) => python.clone(),
        None => python::with("xtask/python/secagg-requirements.txt", "secagg-peers")?,
    };
    let program = format!("fledgling{}", std::env::consts::EXE_SUFFIX);
    let mut command = Command::new(peers);
    command
        .current_dir(root())
        .env("OMP_NUM_THREADS", "1")
        .env("OPENBLAS_NUM_THREADS", "1")
        .arg("xtask/python/secagg_peers.py")
        .arg("--program")
        .arg(release.join(program))
        .args(["--clients", &options.clients.to_string()])
        .args(["--length", &options.length.to_string()])
        .args(["--dropout", &options.dropout.to_string()])
        .args(["--repeat", &options.repeat.to_string()]);
    if let Some(json) = &options.json {
        command.arg("--json").arg(json);
    }
    run(&mut command)
}
