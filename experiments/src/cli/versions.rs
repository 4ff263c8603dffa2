//! `versions`: patches between model versions, and the versions that a device keeps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use fl_edge::SharedBytes;
use fl_sim::distribution::{self, check_model};
use fl_versions::{LocalDisk, Patch, PatchError, Store, StoreError, Version};
use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;
use crate::results;

/// The longest version that a store of this program takes.
const MOST_BYTES: u64 = 1 << 32;

/// Arguments of `versions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print one line of JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the patch that leads from one model file to another
    Patch {
        /// The version that devices have
        old: PathBuf,
        /// The version that they are to have
        new: PathBuf,
        /// The patch to write
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Apply a patch
    Apply {
        /// The version that it leads from
        old: PathBuf,
        /// The patch
        patch: PathBuf,
        /// The version to write
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Install a model file, or a patch of an installed one, in a device's store
    Install {
        /// The store's folder; made where it does not exist
        store: PathBuf,
        /// The model file or the patch
        file: PathBuf,
    },
    /// Show what a store keeps, every byte of it checked
    List {
        /// The store's folder
        store: PathBuf,
    },
    /// Make the version before the current one current again
    RollBack {
        /// The store's folder
        store: PathBuf,
    },
}

/// What is wrong with a version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionsError {
    /// A patch cannot be made, read or applied.
    #[error("{path}: {source}", path = path.display())]
    Patch {
        /// The patch.
        path: PathBuf,
        /// What is wrong with it.
        source: PatchError,
    },
    /// A store's answer.
    #[error("{path}: {source}", path = path.display())]
    Store {
        /// The store.
        path: PathBuf,
        /// What it says.
        source: StoreError,
    },
}

impl From<VersionsError> for Error {
    fn from(error: VersionsError) -> Self {
        Self::Versions(Box::new(error))
    }
}

/// Runs the subcommand.
///
/// # Errors
/// What the subcommands say.
pub fn run(args: &Args) -> Result<Exit, Error> {
    match &args.command {
        Command::Patch { old, new, out } => make(old, new, out, args.json)?,
        Command::Apply { old, patch, out } => apply(old, patch, out, args.json)?,
        Command::Install { store, file } => install(store, file, args.json)?,
        Command::List { store } => list(store, args.json)?,
        Command::RollBack { store } => roll_back(store, args.json)?,
    }
    Ok(Exit::Done)
}

/// A version for the outside.
#[derive(Serialize)]
struct Shown {
    sha256: String,
    bytes: u64,
}

impl From<Version> for Shown {
    fn from(version: Version) -> Self {
        Self {
            sha256: version.digest.to_string(),
            bytes: version.bytes,
        }
    }
}

impl Shown {
    /// Enough of it to tell it from others.
    fn short(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

fn read(path: &Path, help: &'static str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
        help,
    })
}

fn patch_error(path: &Path) -> impl FnOnce(PatchError) -> Error {
    let path = path.to_owned();
    move |source| VersionsError::Patch { path, source }.into()
}

fn store_error(path: &Path) -> impl FnOnce(StoreError) -> Error {
    let path = path.to_owned();
    move |source| VersionsError::Store { path, source }.into()
}

fn open(path: &Path) -> Result<Store<LocalDisk>, Error> {
    Store::open(LocalDisk, path, MOST_BYTES).map_err(store_error(path))
}

/// A store that must be there already.
fn open_existing(path: &Path) -> Result<Store<LocalDisk>, Error> {
    std::fs::read_dir(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
        help: "give a store's folder; `fledgling versions install` makes one",
    })?;
    open(path)
}

#[derive(Serialize)]
struct Made {
    old: Shown,
    new: Shown,
    patch: String,
    patch_bytes: u64,
    /// Of the new version's bytes.
    share: f64,
}

fn make(old: &Path, new: &Path, out: &Path, json: bool) -> Result<(), Error> {
    let help = "give the two versions as files";
    let versions: [SharedBytes; 2] = [Arc::new(read(old, help)?), Arc::new(read(new, help)?)];
    let [old, new] = &versions;
    let patch = distribution::patch(old, new).map_err(patch_error(out))?;
    let opened = Patch::open(&patch).map_err(patch_error(out))?;
    // It is not handed out before it has been tried.
    opened
        .apply((**old).as_ref(), &mut std::io::sink())
        .map_err(patch_error(out))?;
    let [old, new] = [opened.old_version(), opened.new_version()];
    let report = Made {
        old: old.into(),
        new: new.into(),
        patch: out.display().to_string(),
        patch_bytes: results::write_file(out, &patch)?.bytes,
        share: patch.len() as f64 / new.bytes.max(1) as f64,
    };
    match json {
        true => output::json(&report),
        false => output::line(&format!(
            "wrote {}: {} from {} to {}, {:.1} % of the {} that the new version has",
            report.patch,
            output::bytes(report.patch_bytes),
            report.old.short(),
            report.new.short(),
            100.0 * report.share,
            output::bytes(new.bytes),
        )),
    }
}

#[derive(Serialize)]
struct Applied {
    output: String,
    #[serde(flatten)]
    version: Shown,
}

fn apply(old: &Path, path: &Path, out: &Path, json: bool) -> Result<(), Error> {
    let old = read(old, "give the version that the patch leads from as a file")?;
    let patch = read(path, "give a patch as `fledgling versions patch` writes it")?;
    let patch = Patch::open(&patch).map_err(patch_error(path))?;
    let mut new = Vec::new();
    patch.apply(&old, &mut new).map_err(patch_error(path))?;
    results::write_file(out, &new)?;
    let report = Applied {
        output: out.display().to_string(),
        version: patch.new_version().into(),
    };
    match json {
        true => output::json(&report),
        false => output::line(&format!(
            "wrote {}: version {}, {}",
            report.output,
            report.version.short(),
            output::bytes(report.version.bytes)
        )),
    }
}

#[derive(Serialize)]
struct Installed {
    current: Shown,
    previous: Option<Shown>,
    /// Bytes that had to come for it.
    fetched_bytes: u64,
}

fn install(path: &Path, file: &Path, json: bool) -> Result<(), Error> {
    let bytes = read(file, "give a model file, or a patch of an installed one")?;
    let mut store = open(path)?;
    let check = &mut |bytes: &[u8]| check_model(bytes).map_err(Into::into);
    let installed = if Patch::is_one(&bytes) {
        store.install_patch(&bytes, check)
    } else {
        store.install(&bytes, check)
    };
    let report = Installed {
        current: installed.map_err(store_error(path))?.into(),
        previous: store.previous().map(Shown::from),
        fetched_bytes: bytes.len() as u64,
    };
    match json {
        true => output::json(&report),
        false => {
            let before = match &report.previous {
                Some(previous) => format!("; {} is kept", previous.short()),
                None => String::new(),
            };
            output::line(&format!(
                "version {} is current, {} of {}{before}",
                report.current.short(),
                output::bytes(report.fetched_bytes),
                output::bytes(report.current.bytes),
            ))
        }
    }
}

#[derive(Serialize)]
struct Kept {
    role: &'static str,
    #[serde(flatten)]
    version: Shown,
    path: String,
    /// What is wrong with it.
    fault: Option<String>,
}

fn list(path: &Path, json: bool) -> Result<(), Error> {
    let store = open_existing(path)?;
    let kept = |role, version: Option<Version>| {
        let version = version?;
        Some(Kept {
            role,
            version: version.into(),
            path: store.path(version.digest).display().to_string(),
            fault: store.verify(version).err().map(|fault| fault.to_string()),
        })
    };
    let versions: Vec<Kept> = [
        kept("current", store.current()),
        kept("previous", store.previous()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if json {
        return versions.iter().try_for_each(output::json);
    }
    if versions.is_empty() {
        return output::line("no version is installed");
    }
    let row = |kept: &Kept| {
        vec![
            kept.role.to_owned(),
            kept.version.sha256.clone(),
            output::bytes(kept.version.bytes),
            kept.fault.clone().unwrap_or_else(|| "whole".to_owned()),
        ]
    };
    let rows: Vec<_> = versions.iter().map(row).collect();
    output::line(&output::table(&["", "version", "size", "state"], &rows))
}

fn roll_back(path: &Path, json: bool) -> Result<(), Error> {
    let mut store = open_existing(path)?;
    let current = store.roll_back().map_err(store_error(path))?;
    let report = Installed {
        current: current.into(),
        previous: store.previous().map(Shown::from),
        fetched_bytes: 0,
    };
    match json {
        true => output::json(&report),
        false => output::line(&format!(
            "version {} is current again",
            report.current.short()
        )),
    }
}
