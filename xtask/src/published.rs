//! The published results, verified.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{build, root, run};

/// Options of `results`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only the first N rounds of each result again; 0 checks the files alone
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
    let program = build()?.join(format!("fledgling{}", std::env::consts::EXE_SUFFIX));
    let mut verify = Command::new(program);
    verify
        .current_dir(root())
        .args(["verify", "results/published"]);
    if let Some(rounds) = rounds {
        verify.args(["--rounds", &rounds.to_string()]);
    }
    run(&mut verify)
}
