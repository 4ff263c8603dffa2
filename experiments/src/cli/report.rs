//! Subcommand `report`.

use std::path::PathBuf;

use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;
use crate::report::{self, PageOptions};
use crate::results::{self, Status};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of results, of single variants within them (results/NAME/VARIANT), of sweeps, or of many
    /// of these
    #[arg(required = true, value_name = "DIR")]
    results: Vec<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// The page's title [default: the experiments' names]
    #[arg(long)]
    title: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    report: PathBuf,
    bytes: u64,
    sha256: String,
    runs: usize,
    /// Of them, those that were interrupted.
    stopped: usize,
    /// Cells of sweeps without results.
    empty: Vec<PathBuf>,
}

/// Writes one page of all results.
///
/// # Errors
/// [`Error::Results`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    let collected = report::collect(&args.results)?;
    let options = PageOptions {
        title: args.title.clone(),
    };
    let page = report::page(&collected, &options)?;
    let written = results::write_file(&args.out, page.as_bytes())?;
    let runs = || collected.results.iter().flat_map(|one| &one.variants);
    let stopped = runs().filter(|run| run.manifest.status == Status::Stopped);
    let line = Line {
        report: args.out.clone(),
        bytes: written.bytes,
        sha256: written.sha256,
        runs: runs().count(),
        stopped: stopped.count(),
        empty: collected.empty,
    };
    if args.json {
        output::json(&line)?;
    } else {
        output::line(&format!(
            "report   {} ({}; runs: {})",
            line.report.display(),
            output::bytes(line.bytes),
            output::count(line.runs as u64),
        ))?;
        if line.stopped > 0 {
            output::tell(&format!(
                "stopped before their end, and marked so: {} of them",
                output::count(line.stopped as u64)
            ));
        }
        if let Some(first) = line.empty.first() {
            output::tell(&format!(
                "left out, without results yet: {} of the cells, such as {}",
                output::count(line.empty.len() as u64),
                first.display()
            ));
        }
    }
    Ok(Exit::Done)
}
