//! The command line. Each subcommand is one module with `Args` (clap) and
//! `run(&Args) -> Result<Exit, Error>`.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::error::Error;

pub mod analyze;
pub mod check;
pub mod compare;
pub mod data;
pub mod device;
mod interrupt;
pub mod lock;
pub mod model;
pub mod new;
mod output;
pub mod plot;
pub mod privacy;
mod progress;
mod reference;
pub mod report;
pub mod run;
pub mod schema;
pub mod secagg;
pub mod sweep;
mod transport;
pub mod verify;
pub mod versions;

/// Federated-learning experiments from one TOML file.
#[derive(Debug, Parser)]
#[command(name = "fledgling", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an experiment; results and plots land in a folder
    Run(run::Args),
    /// Run all cells of an experiment's [sweep]: cached, resumed, in shards, with statistics over seeds
    Sweep(sweep::Args),
    /// Statistics over the seeds of a sweep, or of any results
    Analyze(analyze::Args),
    /// Check an experiment and explain what it will do and cost
    Check(check::Args),
    /// Write a commented experiment to start from
    New(new::Args),
    /// Draw the plots of results again, several results on one plot if wanted
    Plot(Box<plot::Args>),
    /// One HTML page of any number of results, which needs no network
    Report(report::Args),
    /// Run results again and compare them bit for bit
    Verify(verify::Args),
    /// Freeze results: a list of every file, after which nothing writes into their folder
    Lock(lock::Args),
    /// Set two results side by side
    Compare(compare::Args),
    /// List, fetch, import and inspect data sets
    Data(data::Args),
    /// Inspect, quantize, convert and time a model
    Model(model::Args),
    /// What a model costs on a class of devices: time, energy, heat, memory; modelled
    Device(device::Args),
    /// The epsilon of a run, the noise for an epsilon, curves of epsilon, and audits of runs
    Privacy(privacy::Args),
    /// Parameters of secure aggregation, and the real protocol played and timed
    Secagg(secagg::Args),
    /// Patches between model versions, and the versions that a device keeps
    Versions(versions::Args),
    /// Print the JSON schema of an experiment, or the reference of all keys or commands
    Schema(schema::Args),
}

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: done, but the answer is no (`verify` found a difference).
    Differs,
    /// 3: done, and an audit refuted what is reported.
    Refuted,
    /// 130: stopped by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Differs => 1,
            Self::Refuted => 3,
            Self::Interrupted => 130,
        }
    }
}

/// Runs the program with the given arguments (the first is its name) and returns its exit code:
/// 0 done, 1 error or difference, 2 wrong usage or configuration, 3 a guarantee that an audit refuted,
/// 130 interrupted.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, the rest to standard error. When even that
            // cannot be written there is nobody to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Analyze(args) => analyze::run(args),
        Command::Check(args) => check::run(args),
        Command::New(args) => new::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Report(args) => report::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Lock(args) => lock::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Data(args) => data::run(args),
        Command::Model(args) => model::run(args),
        Command::Device(args) => device::run(args),
        Command::Privacy(args) => privacy::run(args),
        Command::Secagg(args) => secagg::run(args),
        Command::Versions(args) => versions::run(args),
        Command::Schema(args) => schema::run(args),
    };
    match outcome {
        Ok(exit) => exit.code(),
        Err(error) => {
            output::complain(&error);
            error.exit_code()
        }
    }
}

/// Says why the program cannot begin; the exit code of wrong usage.
pub(crate) fn refuse(why: &str) -> u8 {
    output::tell(&format!("error: {why}"));
    2
}

/// Arguments that name an experiment and change it.
#[derive(Debug, clap::Args)]
pub struct ExperimentArgs {
    /// The experiment, a TOML file
    pub file: std::path::PathBuf,
    /// Set a key of every variant, e.g. --set strategy.mu=0.1; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    pub sets: Vec<String>,
    /// Only this variant; may be repeated
    #[arg(long = "variant", value_name = "NAME")]
    pub variants: Vec<String>,
}

impl ExperimentArgs {
    /// Reads the experiment and keeps the wanted variants.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Io`] or [`Error::UnknownVariant`].
    pub fn read(&self) -> Result<crate::config::Experiment, Error> {
        let mut experiment = crate::config::Experiment::from_file(&self.file, &self.sets)?;
        for wanted in &self.variants {
            if !experiment.variants.iter().any(|v| v.name == *wanted) {
                let names = experiment.variants.iter().map(|v| v.name.as_str());
                return Err(Error::UnknownVariant {
                    wanted: wanted.clone(),
                    hint: crate::config::suggest(wanted, names),
                });
            }
        }
        if !self.variants.is_empty() {
            experiment
                .variants
                .retain(|variant| self.variants.contains(&variant.name));
        }
        Ok(experiment)
    }
}
