//! The ONNX interpreter against the node tests of the `onnx` package.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, root, run};

/// Needed node tests that must pass, of the 767 that the pinned version has.
const LEAST: &str = "763";

/// Exports the tests of the pinned version and runs them.
pub(crate) fn nodes() -> Result<()> {
    let python = python()?;
    let script = root().join("onnx/tests/python/export_node_tests.py");
    let file = root().join("target").join("onnx-nodes.bin");
    run(Command::new(python).arg(script).arg(&file))?;
    run(cargo()
        .args([
            "run",
            "--release",
            "-p",
            "fl-onnx",
            "--example",
            "node_tests",
        ])
        .arg("--")
        .arg(file)
        .arg(LEAST))
}

/// A Python with the packages that the scripts in `onnx/tests/python` need, made on first use and
/// whenever their list changes.
pub(crate) fn python() -> Result<PathBuf> {
    let list = root().join("onnx/tests/python/requirements.txt");
    let home = root().join("target").join("onnx-python");
    let python = home.join("bin").join("python");
    let wanted = fs::read(&list).with_context(|| format!("reading {}", list.display()))?;
    let done = home.join("installed.txt");
    if fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(&list))?;
    fs::write(&done, wanted).with_context(|| format!("writing {}", done.display()))?;
    Ok(python)
}
