//! Subcommand `verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::{Exit, interrupt, output};
use crate::error::Error;
use crate::results::{self, Frozen};
use crate::verify::{Report, VariantReport, Verifier, VerifyOptions};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of results, of one variant within them (results/NAME/VARIANT), or of many results
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Run only the first N rounds of each variant again; 0 checks the files alone [default: all]
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Worker threads; the results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    /// Print one line of JSON per folder of results
    #[arg(long)]
    json: bool,
}

/// Runs results again and compares bit for bit.
///
/// # Errors
/// [`Error`] when there are no results, or the experiment can no longer be run.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let mut verifier = Verifier::new(VerifyOptions {
        rounds: args.rounds,
        threads: args.threads.unwrap_or(0).into(),
    });
    let stop = interrupt::catch();
    let bar = ProgressBar::with_draw_target(
        None,
        match args.json {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(8),
        },
    );
    bar.set_style(super::progress::round_style());
    let mut folders = Vec::new();
    let mut identical = true;
    for path in &args.results {
        folders.extend(results::by_data(results::find(path)?));
    }
    for report in changed(&folders)? {
        identical = false;
        match args.json {
            true => output::json(&report)?,
            false => {
                for damaged in &report.damaged {
                    output::line(damaged)?;
                }
            }
        }
    }
    for folder in &folders {
        let Some(report) = verify_shown(folder, &mut verifier, &stop, &bar)? else {
            return Ok(Exit::Interrupted);
        };
        identical &= report.identical;
        match (args.json, folders.len()) {
            (true, _) => output::json(&report)?,
            (false, 1) => explain(&report, "")?,
            (false, _) => explain(&report, &format!("{}: ", folder.display()))?,
        }
    }
    Ok(match identical {
        true => Exit::Done,
        false => Exit::Differs,
    })
}

/// What is not as it was locked where many results are locked as one, such as a sweep. The locks of
/// the results themselves are looked at with them.
fn changed(folders: &[PathBuf]) -> Result<Vec<Report>, Error> {
    let mut locks = BTreeMap::new();
    for folder in folders {
        locks.extend(Frozen::over(folder)?.filter(|(place, _)| place != folder));
    }
    let mut reports = Vec::new();
    for (place, lock) in locks {
        let changes = lock.differences(&place)?;
        if !changes.is_empty() {
            reports.push(Report {
                results: place,
                identical: false,
                damaged: changes.iter().map(ToString::to_string).collect(),
                variants: Vec::new(),
            });
        }
    }
    Ok(reports)
}

/// Verifies one folder, with the bar showing how far it is.
fn verify_shown(
    folder: &Path,
    verifier: &mut Verifier,
    stop: &AtomicBool,
    bar: &ProgressBar,
) -> Result<Option<Report>, Error> {
    let mut shown = String::new();
    let report = verifier.verify(folder, stop, &mut |variant, done, rounds| {
        if shown != variant {
            variant.clone_into(&mut shown);
            bar.set_prefix(shown.clone());
            bar.reset();
        }
        bar.set_length(rounds);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report
}

/// Every line begins with `whose`.
fn explain(report: &Report, whose: &str) -> Result<(), Error> {
    for damaged in &report.damaged {
        output::line(&format!("{whose}{damaged}"))?;
    }
    for variant in &report.variants {
        output::line(&format!("{whose}{}", describe(variant)))?;
    }
    let verdict = match (report.identical, report.variants.is_empty()) {
        (true, true) => "the files are as they were written",
        (true, false) => "identical",
        (false, true) if !report.damaged.is_empty() => {
            "the files are not as they were written; nothing was run"
        }
        (false, _) => "not identical",
    };
    output::line(&format!("{whose}{verdict}"))
}

fn describe(variant: &VariantReport) -> String {
    let name = &variant.name;
    match &variant.difference {
        Some(difference) => {
            let mut place = difference.table.clone();
            if let Some(round) = difference.round {
                place.push_str(&format!(", round {round}"));
            }
            if let Some(client) = difference.client {
                place.push_str(&format!(", client {client}"));
            }
            format!(
                "{name}: {place}, {}: recorded {}, repeated {}",
                difference.column, difference.first, difference.second
            )
        }
        None => {
            let mut text = format!(
                "{name}: {} rounds, {} evaluations",
                output::count(variant.rounds),
                output::count(variant.evaluations)
            );
            if variant.clients > 0 {
                text.push_str(&format!(", {} clients", output::count(variant.clients)));
            }
            if variant.model {
                text.push_str(", the model");
            }
            text.push_str(": every bit the same");
            text
        }
    }
}
