//! The accountants beside dp_accounting, Opacus and prv_accountant, in one interleaved run.
//!
//! The comparison itself is `xtask/python/privacy_peers.py`; this makes what it needs: our side
//! (`privacy/examples/privacy_peer.rs`) and a Python environment in `target/` with the peers' pinned
//! versions.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{cargo, root, run};
use crate::python;

/// Peers that name far more packages than their accountants use.
const ALONE: &[&str] = &["opacus==1.6.0", "prv-accountant==0.2.0"];

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The delta.
    #[arg(long, default_value_t = 1e-5)]
    delta: f64,
    /// Repetitions; the table has the median.
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Seconds that a peer may take for each configuration before it is asked no more.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Leave out configurations with more steps.
    #[arg(long, default_value_t = 10_000)]
    most_steps: u64,
    /// A finer grid of dp_accounting's to be timed as well; 0 is none.
    #[arg(long, default_value_t = 0.0)]
    fine: f64,
    /// Also prv_accountant, which may need many gigabytes.
    #[arg(long)]
    prv: bool,
    /// Only the table of calibrations, without any peer.
    #[arg(long)]
    calibration: bool,
    /// Also write the rows to this JSON file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A Python that has the packages; without it an environment is made in `target/`.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// A Python with the peers, made on first use.
fn environment() -> Result<PathBuf> {
    let python = python::with("xtask/python/privacy-requirements.txt", "privacy-peers")?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(ALONE))?;
    Ok(python)
}

pub(crate) fn compare(options: &Options) -> Result<()> {
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "fl-privacy",
        "--example",
        "privacy_peer",
    ]))?;
    let peers = match &options.python {
        Some(python) => python.clone(),
        None => environment()?,
    };
    let program = python::target().join("release").join("examples");
    let program = program.join(format!("privacy_peer{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(peers);
    command
        .current_dir(root())
        .env("OMP_NUM_THREADS", "1")
        .env("OPENBLAS_NUM_THREADS", "1")
        .arg("xtask/python/privacy_peers.py")
        .arg("--program")
        .arg(program)
        .args(["--delta", &options.delta.to_string()])
        .args(["--repeat", &options.repeat.to_string()])
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--most-steps", &options.most_steps.to_string()])
        .args(["--fine", &options.fine.to_string()]);
    if options.prv {
        command.arg("--prv");
    }
    if options.calibration {
        command.arg("--calibration");
    }
    if let Some(json) = &options.json {
        command.arg("--json").arg(json);
    }
    run(&mut command)
}
