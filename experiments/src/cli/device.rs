//! `device`: what a model costs on a class of devices. Modelled, not measured.

mod bench;
mod estimate;
mod show;
mod validate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use fl_edge::Model;
use fl_edge::device::{DeviceProfile, EstimateError, Precision, ProfileError, catalogue, networks};

use super::Exit;
use super::model::{ModelError, Subject};
use crate::config::suggest;
use crate::error::Error;

/// Arguments of `device`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the known classes of devices
    List(show::ListArgs),
    /// Show a device's figures, each with its source
    Show(show::ShowArgs),
    /// Model the time, energy, heat and memory of a network on devices
    Estimate(estimate::Args),
    /// Compare modelled times with published ones, fitted and held out
    Validate(validate::Args),
    /// Measure this machine, on one thread, into a profile, and check what it predicts
    Bench(bench::Args),
}

/// Runs the subcommand.
///
/// # Errors
/// What the subcommands say.
pub fn run(args: &Args) -> Result<Exit, Error> {
    match &args.command {
        Command::List(args) => show::list(args)?,
        Command::Show(args) => show::show(args)?,
        Command::Estimate(args) => estimate::run(args)?,
        Command::Validate(args) => validate::run(args)?,
        Command::Bench(args) => bench::run(args)?,
    }
    Ok(Exit::Done)
}

/// What is wrong with a device, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Neither a file nor a class of the catalogue.
    #[error(
        "`{name}` is neither a profile's file nor a known device; {hint}; `fledgling device list` \
         shows all"
    )]
    Unknown {
        /// What was given.
        name: String,
        /// The nearest name, or all names.
        hint: String,
    },
    /// A profile is not one.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The cost is not known.
    #[error(transparent)]
    Estimate(#[from] EstimateError),
    /// The embedded published times do not read, which the tests rule out.
    #[error("the embedded published times: {0}")]
    Published(String),
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        Self::Device(Box::new(error))
    }
}

/// The device called `name`: a file that ends in `.toml`, or a class of the catalogue.
fn device(name: &str) -> Result<DeviceProfile, Error> {
    let path = Path::new(name);
    if is_file(path) {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            path: PathBuf::from(name),
            source,
            help: "give a profile as `fledgling device bench -o` writes it, or a name from `fledgling device list`",
        })?;
        return Ok(catalogue::parse(&text, name).map_err(DeviceError::from)?);
    }
    match catalogue::named(name) {
        Some(profile) => Ok(profile.map_err(DeviceError::from)?),
        None => {
            let names = catalogue::PROFILES.iter().map(|(name, _)| *name);
            let (name, hint) = (name.to_owned(), suggest(name, names));
            Err(DeviceError::Unknown { name, hint }.into())
        }
    }
}

/// Whether a device of this name is a file.
fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "toml")
}

/// All classes of the catalogue.
fn devices() -> Result<Vec<DeviceProfile>, Error> {
    Ok(catalogue::all().map_err(DeviceError::from)?)
}

/// The network called `name`: one of those that published times are about, else what
/// `fledgling model` takes.
fn network(name: &str) -> Result<Arc<Model>, Error> {
    if let Some(model) = networks::network(name) {
        return Ok(Arc::new(model.map_err(ModelError::from)?));
    }
    match Subject::read(name) {
        Ok(subject) => Ok(subject.into_model()),
        Err(Error::Model(error)) => match *error {
            ModelError::Unknown { name, .. } => {
                let names = networks::NETWORKS.iter().chain(fl_edge::MODELS);
                // A network may be in both lists.
                let names: BTreeSet<&str> = names.map(|(name, _)| *name).collect();
                let hint = suggest(&name, names);
                Err(ModelError::Unknown { name, hint }.into())
            }
            other => Err(other.into()),
        },
        Err(error) => Err(error),
    }
}

fn precision(text: &str) -> Result<Precision, String> {
    let all = Precision::ALL;
    let found = all.into_iter().find(|precision| precision.name() == text);
    found.ok_or_else(|| "expected f32, f16, int8 or int4".to_owned())
}

/// `+3.1 %`
fn percent(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}
