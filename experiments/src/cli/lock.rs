//! Subcommand `lock`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;
use crate::results::{self, Frozen, Results, ResultsError, Status, VariantManifest};
use crate::sweep::{CellStatus, Plan};

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of results; one that holds several, such as a sweep's, is locked as a whole
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Remove the models (and checkpoints), and keep their checksums: for results that are to be
    /// small; `verify` derives the models again
    #[arg(long, conflicts_with = "release")]
    without_models: bool,
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
            false => Some(lock(folder, args.without_models)?),
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
            Some(lock) => {
                let left_out = match lock.left_out.len() {
                    0 => String::new(),
                    count => format!(", {} left out", output::count(count as u64)),
                };
                format!(
                    "{name}: {} files locked{left_out}; sha256 {}",
                    output::count(lock.files.len() as u64),
                    lock.digest
                )
            }
            None => format!("{name}: released"),
        })?;
    }
    Ok(Exit::Done)
}

fn lock(folder: &Path, without_models: bool) -> Result<Frozen, ResultsError> {
    // Cells that successive halving ended are as far as they will ever come.
    let plan = Plan::read(folder)?;
    let dropped: Vec<&str> = (plan.iter().flat_map(|plan| &plan.cells))
        .filter(|cell| cell.status == CellStatus::Dropped)
        .map(|cell| cell.id.as_str())
        .collect();
    let parts = results::find(folder)?;
    let mut models = Vec::new();
    for part in &parts {
        // The first of several faults; `verify` tells all.
        if let Some(fault) = results::damage(part)?.into_iter().next() {
            return Err(fault);
        }
        let loaded = Results::load(part)?;
        let variants = &loaded.manifest.variants;
        let open = variants
            .iter()
            .find(|variant| {
                variant.status != Status::Finished && !dropped.contains(&variant.name.as_str())
            })
            .map(|variant| variant.name.clone());
        if let Some(variant) = open {
            return Err(ResultsError::Unfinished {
                path: part.clone(),
                variant,
            });
        }
        // A student is run again from its teacher's file.
        let teachers: Vec<&str> = variants.iter().filter_map(teacher).collect();
        for variant in variants {
            if !teachers.contains(&variant.name.as_str()) {
                models.push(loaded.model_path(&variant.name));
            }
        }
    }
    let mut lock = match Frozen::read(folder)? {
        Some(lock) => match lock.differences(folder)?.into_iter().next() {
            Some(change) => return Err(change),
            None => lock,
        },
        None => Frozen::of(folder)?,
    };
    if without_models {
        for model in &models {
            lock.leave_out(folder, model);
        }
    }
    lock.write(folder)?;
    if without_models {
        // Only once the lock says so may they be missing.
        lock.remove_left_out(folder)?;
        parts.iter().for_each(|part| results::remove_work(part));
    }
    Ok(lock)
}

/// The variant that teaches this one, if one does.
fn teacher(variant: &VariantManifest) -> Option<&str> {
    let mut found = variant.config.get("local")?;
    for key in ["distillation", "teacher", "variant"] {
        found = found.get(key)?;
    }
    found.as_str()
}
