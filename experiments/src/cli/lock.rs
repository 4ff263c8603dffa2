//! Subcommand `lock`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;
use crate::results::{self, Frozen, Results, ResultsError, Status};
use crate::sweep::{CellStatus, Plan};

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of results; one that holds several, such as a sweep's, is locked as a whole
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Take the lock off again
    #[arg(long)]
    release: bool,
    /// Print one line of JSON per folder
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    results: &'a Path,
    locked: bool,
    digest: Option<&'a str>,
    files: usize,
}

/// Locks or releases folders of results.
///
/// # Errors
/// [`Error::Results`] when a folder holds no results, unfinished or damaged ones, or was changed
/// since it was locked.
pub fn run(args: &Args) -> Result<Exit, Error> {
    for folder in &args.results {
        let lock = match args.release {
            true => {
                Frozen::release(folder)?;
                None
            }
            false => Some(lock(folder)?),
        };
        if args.json {
            output::json(&Line {
                results: folder,
                locked: lock.is_some(),
                digest: lock.as_ref().map(|lock| lock.digest.as_str()),
                files: lock.as_ref().map_or(0, |lock| lock.files.len()),
            })?;
            continue;
        }
        let name = folder.display();
        output::line(&match &lock {
            Some(lock) => format!(
                "{name}: {} files locked; sha256 {}",
                output::count(lock.files.len() as u64),
                lock.digest
            ),
            None => format!("{name}: released"),
        })?;
    }
    Ok(Exit::Done)
}

fn lock(folder: &Path) -> Result<Frozen, ResultsError> {
    // Cells that successive halving ended are as far as they will ever come.
    let plan = Plan::read(folder)?;
    let dropped: Vec<&str> = (plan.iter().flat_map(|plan| &plan.cells))
        .filter(|cell| cell.status == CellStatus::Dropped)
        .map(|cell| cell.id.as_str())
        .collect();
    for part in results::find(folder)? {
        // The first of several faults; `verify` tells all.
        if let Some(fault) = results::damage(&part)?.into_iter().next() {
            return Err(fault);
        }
        let loaded = Results::load(&part)?;
        let open = (loaded.manifest.variants.iter())
            .find(|variant| {
                variant.status != Status::Finished && !dropped.contains(&variant.name.as_str())
            })
            .map(|variant| variant.name.clone());
        if let Some(variant) = open {
            return Err(ResultsError::Unfinished {
                path: part,
                variant,
            });
        }
    }
    let lock = Frozen::of(folder)?;
    lock.write(folder)?;
    Ok(lock)
}
