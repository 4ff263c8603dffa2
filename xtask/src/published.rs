//! The published results, verified.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{build, root, run};

/// Where the results are, in the repository.
const FOLDER: &str = "results/published";
/// Results of which one of the first rounds is enough: it takes as long as the rounds of all others.
const DEAR: [&str; 1] = ["mnist-cnn"];

/// Options of `results`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only the first N rounds of each result again, of the dearest only one; 0 checks the files
    /// alone
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "whole")]
    rounds: u64,
    /// Run every round of every result again: a matter of hours
    #[arg(long)]
    whole: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 2,
            whole: false,
        }
    }
}

/// Verifies every result below `results/published/`; without the data sets, their files alone.
pub(crate) fn verify(options: &Options) -> Result<()> {
    let mut rounds = (!options.whole).then_some(options.rounds);
    if std::env::var_os("FLEDGLING_DATA_DIR").is_none() && rounds != Some(0) {
        if std::env::var_os("CI").is_some() {
            bail!(
                "FLEDGLING_DATA_DIR is not set: the results cannot be run again without their data"
            );
        }
        println!("FLEDGLING_DATA_DIR is not set: only the files are checked");
        rounds = Some(0);
    }
    let (dear, others): (Vec<PathBuf>, Vec<PathBuf>) = folders()?
        .into_iter()
        .partition(|folder| DEAR.iter().any(|name| folder.ends_with(name)));
    let program = build()?.join(format!("fledgling{}", std::env::consts::EXE_SUFFIX));
    verify_some(&program, &others, rounds)?;
    verify_some(&program, &dear, rounds.map(|rounds| rounds.min(1)))
}

fn verify_some(program: &Path, folders: &[PathBuf], rounds: Option<u64>) -> Result<()> {
    let mut verify = Command::new(program);
    verify.current_dir(root()).arg("verify").args(folders);
    if let Some(rounds) = rounds {
        verify.args(["--rounds", &rounds.to_string()]);
    }
    run(&mut verify)
}

/// The folders of results, in the order of their names, as they are from the repository's root.
fn folders() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(FOLDER))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(PathBuf::from(FOLDER).join(entry.file_name()));
        }
    }
    found.sort();
    Ok(found)
}
