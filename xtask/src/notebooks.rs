//! The notebooks, executed on small results that the real program makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, root};
use crate::python;

/// What the notebooks read: the experiment, what makes it small, and the results' folder.
const RESULTS: &[(&str, &[&str], &str)] = &[
    ("epsilon-accuracy", &["rounds=10", "seed=1"], "epsilon-1"),
    ("epsilon-accuracy", &["rounds=10", "seed=2"], "epsilon-2"),
    ("phones-sync", &["rounds=6"], "phones-sync"),
    ("quickstart", &["rounds=3"], "quickstart"),
];

/// Makes the results and executes every notebook.
pub(crate) fn execute() -> Result<()> {
    let program = process::build()?.join(format!("fledgling{}", std::env::consts::EXE_SUFFIX));
    let python = python::with("notebooks/requirements.txt", "notebooks")?;
    let out = tempfile::tempdir()?;
    for (name, sets, folder) in RESULTS {
        let mut command = Command::new(&program);
        command.current_dir(root()).arg("run");
        command.arg(format!("experiments/{name}.toml"));
        command.args(["--no-plots", "--json", "--out"]);
        command.arg(out.path().join(folder));
        for set in *sets {
            command.args(["--set", set]);
        }
        process::output(&mut command)?;
    }
    let notebooks = all(&root().join("notebooks"))?;
    let mut command = Command::new(python);
    command.current_dir(root()).arg("notebooks/execute.py");
    command.args(&notebooks);
    // Nothing is to be shown, and nothing to be read from who runs it.
    command.env("MPLBACKEND", "module://matplotlib_inline.backend_inline");
    command.env("FLEDGLING_RESULTS", out.path());
    process::run(&mut command)
}

/// The notebooks of a folder, in the order of their names.
fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).context("reading notebooks/")?;
    let mut notebooks: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    notebooks.retain(|path| path.extension().is_some_and(|end| end == "ipynb"));
    notebooks.sort();
    match notebooks.is_empty() {
        true => bail!("`notebooks/` holds no notebook"),
        false => Ok(notebooks),
    }
}
