//! Python environments below `target/`, for the chores that compare with Python packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{root, run};

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    // Cargo runs in the root, so a relative folder starts there.
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A Python with the packages of a list of requirements (relative to the root), made on first use
/// and whenever the list changes.
pub(crate) fn with(requirements: &str, name: &str) -> Result<PathBuf> {
    let list = root().join(requirements);
    let home = target().join("tools").join(name);
    let scripts = if cfg!(windows) { "Scripts" } else { "bin" };
    let python = home.join(scripts).join("python");
    let wanted = fs::read(&list).with_context(|| format!("reading {}", list.display()))?;
    // Written when everything is installed, so that a broken environment is made again.
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

/// The given Python, or one with the packages of `xtask/python`.
pub(crate) fn peers(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(python) => Ok(python.to_path_buf()),
        None => with("xtask/python/requirements.txt", "peers"),
    }
}
