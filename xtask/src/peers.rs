//! Inference beside onnxruntime, on one thread, in one interleaved run.
//!
//! The comparison itself is `xtask/python/peers.py`; this makes what it needs: the edge runtime's
//! side (`onnx/examples/peer`) and a Python environment with the peer's pinned version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{self, root, run};
use crate::python;

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Precisions, separated by commas: f32, int8.
    #[arg(long, default_value = "f32")]
    precisions: String,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Repetitions of the whole comparison, one after the other.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
    /// Seconds for each model, batch and repetition, both sides together.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Also write the rows to this JSON file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A Python that has the packages of `xtask/python/requirements.txt`; without it an
    /// environment is made in `target/`.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// Builds the edge runtime's side and gives its place.
pub(crate) fn edge() -> Result<PathBuf> {
    let program = format!("peer{}", std::env::consts::EXE_SUFFIX);
    Ok(process::build()?.join("examples").join(program))
}

pub(crate) fn compare(options: &Options) -> Result<()> {
    let program = edge()?;
    let python = python::peers(options.python.as_deref())?;
    let mut command = Command::new(python);
    command
        .current_dir(root())
        .arg("xtask/python/peers.py")
        .arg("--program")
        .arg(program)
        .args(["--precisions", &options.precisions])
        .args(["--only", &options.only])
        .args(["--repetitions", &options.repetitions.to_string()])
        .args(["--seconds", &options.seconds.to_string()]);
    if let Some(json) = &options.json {
        command.arg("--json").arg(json);
    }
    run(&mut command)
}
