//! ONNX against the `onnx` package and onnxruntime: the interpreter on the package's node tests,
//! export and import on trained models.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::peers::edge;
use crate::process::{self, root, run};
use crate::python;

/// Needed node tests that must pass, of the 830 that the pinned version has.
const LEAST: &str = "826";

/// Exports the tests of the pinned version and runs them.
pub(crate) fn nodes() -> Result<()> {
    let python = python::with("onnx/tests/python/requirements.txt", "onnx-nodes")?;
    let script = root().join("onnx/tests/python/export_node_tests.py");
    let file = python::target().join("onnx-nodes.bin");
    run(Command::new(python).arg(script).arg(&file))?;
    let program = process::build()?
        .join("examples")
        .join(format!("node_tests{}", std::env::consts::EXE_SUFFIX));
    run(Command::new(program).arg(file).arg(LEAST))
}

/// What of the round trip to make.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct RoundTrip {
    /// Only the models whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// A Python that has the packages of `xtask/python/requirements.txt`; without it an
    /// environment is made in `target/`.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// Every model of the zoo, trained, to ONNX and back, and models of other tools, each compared
/// with onnxruntime (`xtask/python/round_trip.py`).
pub(crate) fn round_trip(options: &RoundTrip) -> Result<()> {
    let program = edge()?;
    let python = python::peers(options.python.as_deref())?;
    run(Command::new(python)
        .current_dir(root())
        .arg("xtask/python/round_trip.py")
        .arg("--program")
        .arg(program)
        .args(["--only", &options.only]))
}
