//! Inference beside onnxruntime, on one thread, in one interleaved run.
//!
//! The comparison itself is `xtask/python/peers.py`; this makes what it needs: the edge runtime's
//! side (`onnx/examples/peer.rs`) and a Python environment in `target/` with the peer's pinned
//! version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{cargo, root, run};

/// The peer, and what reads its arrays.
const PACKAGES: &[&str] = &["onnxruntime==1.31.1", "numpy==2.4.6"];

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Precisions, separated by commas: f32, int8.
    #[arg(long, default_value = "f32")]
    precisions: String,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds for each model and batch, both sides together.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Also write the rows to this JSON file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A Python that has the packages; without it an environment is made in `target/`.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// A Python with the packages, installed on first use.
fn python(target: &Path) -> Result<PathBuf> {
    let home = target.join("tools").join("peers");
    let scripts = if cfg!(windows) { "Scripts" } else { "bin" };
    let python = home.join(scripts).join("python");
    // Written when everything is installed, so that a broken environment is made again.
    let done = home.join("packages");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(PACKAGES))?;
    std::fs::write(done, wanted)?;
    Ok(python)
}

pub(crate) fn compare(options: &Options) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = root().join(target);
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "fl-onnx",
        "--example",
        "peer",
    ]))?;
    let python = match &options.python {
        Some(python) => python.clone(),
        None => python(&target)?,
    };
    let program = target.join("release").join("examples");
    let program = program.join(format!("peer{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(python);
    command
        .current_dir(root())
        .arg("xtask/python/peers.py")
        .arg("--program")
        .arg(program)
        .args(["--precisions", &options.precisions])
        .args(["--only", &options.only])
        .args(["--seconds", &options.seconds.to_string()]);
    if let Some(json) = &options.json {
        command.arg("--json").arg(json);
    }
    run(&mut command)
}
