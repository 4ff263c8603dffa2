//! Every experiment that ships, run at reduced size through the real program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, output, root};

/// What makes a run small whatever its model and data are.
const REDUCED: &[&str] = &["rounds=2", "local.epochs=1", "evaluation.every=1"];

/// Runs each `experiments/*.toml` for two rounds, then re-derives one of the results.
///
/// A file whose data are not embedded needs `FLEDGLING_DATA_DIR`; without it the file is passed
/// over with a message, but never where `CI` is set.
fn run_all(program: &Path, out: &Path) -> Result<()> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let (data, ci) = (set("FLEDGLING_DATA_DIR"), set("CI"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("experiments"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|path| {
        path.extension().is_some_and(|end| end == "toml")
            && path.file_name().is_some_and(|name| name != "Cargo.toml")
    });
    files.sort();
    if files.is_empty() {
        bail!("`experiments/` holds no experiment");
    }
    for file in &files {
        let name = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("an experiment's file name is not text")?;
        if !data && !is_self_contained(file)? {
            if ci {
                bail!("`{name}` needs data: set FLEDGLING_DATA_DIR in CI");
            }
            println!("skipped {name}: set FLEDGLING_DATA_DIR to the folder of its data");
            continue;
        }
        let mut command = Command::new(program);
        command.current_dir(root()).arg("run").arg(file);
        command.arg("--out").arg(out.join(name)).arg("--json");
        for set in REDUCED {
            command.args(["--set", set]);
        }
        println!("+ {command:?}");
        let lines = output(&mut command)?;
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line)
                .with_context(|| format!("`{name}` printed a line that is not JSON: {line}"))?;
            for key in [
                "name",
                "rounds",
                "final_loss",
                "final_accuracy",
                "model_digest",
            ] {
                if line.get(key).is_none() {
                    bail!("`{name}`: the line of `run --json` lacks `{key}`: {line}");
                }
            }
            println!(
                "  {} {} rounds, accuracy {}, {}",
                line["name"], line["rounds"], line["final_accuracy"], line["model_digest"]
            );
        }
        if lines.lines().count() == 0 {
            bail!("`{name}` printed no result");
        }
    }
    process::run(
        Command::new(program)
            .current_dir(root())
            .arg("verify")
            .arg(out.join("quickstart")),
    )
}

/// Builds the program and runs every experiment into a temporary folder.
pub(crate) fn run() -> Result<()> {
    let program = process::build()?.join(format!("fledgling{}", std::env::consts::EXE_SUFFIX));
    let out = tempfile::tempdir()?;
    run_all(&program, out.path())
}

/// Whether the experiment's data are embedded in the program or generated.
fn is_self_contained(file: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(file)?;
    Ok(["digits", "adult", "fashion-mini", "synthetic"]
        .iter()
        .any(|name| text.contains(&format!("name = \"{name}\""))))
}
