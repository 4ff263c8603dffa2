//! Why the program stops, and with which exit code.

use std::path::PathBuf;

use crate::config::ConfigErrors;

/// Everything that ends a command early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The experiment is not valid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The files of the data are missing or damaged.
    #[error(transparent)]
    Data(ConfigErrors),
    /// The simulation stopped.
    #[error(transparent)]
    Simulation(#[from] fl_sim::SimError),
    /// Results could not be written or read.
    #[error(transparent)]
    Results(#[from] crate::results::ResultsError),
    /// Data could not be fetched, imported or inspected.
    #[error(transparent)]
    Dataset(#[from] fl_datasets::DatasetError),
    /// A model cannot be read, or not be used so.
    #[error(transparent)]
    Model(Box<crate::cli::model::ModelError>),
    /// A device is not known, or what a model costs on it.
    #[error(transparent)]
    Device(Box<crate::cli::device::DeviceError>),
    /// A model version cannot be patched or kept.
    #[error(transparent)]
    Versions(Box<crate::cli::versions::VersionsError>),
    /// A privacy guarantee cannot be computed.
    #[error(transparent)]
    Privacy(Box<fl_privacy::PrivacyError>),
    /// Options of `privacy` do not fit together.
    #[error(transparent)]
    PrivacyUsage(#[from] crate::cli::privacy::UsageError),
    /// A session of secure aggregation that would be unsafe or impossible.
    #[error(transparent)]
    SecAggParams(#[from] fl_secagg::ParamsError),
    /// Prices of a cost model that cannot be.
    #[error(transparent)]
    SecAggCosts(#[from] fl_secagg::CostError),
    /// A rehearsed session stopped.
    #[error(transparent)]
    Rehearsal(#[from] fl_secagg::rehearsal::RehearsalError),
    /// A rehearsed session failed.
    #[error(transparent)]
    Session(#[from] fl_secagg::SessionError),
    /// Results could not be analysed.
    #[error(transparent)]
    Analysis(#[from] crate::analysis::AnalysisError),
    /// Options of `sweep` do not fit together.
    #[error(transparent)]
    Sweep(#[from] crate::cli::sweep::SweepError),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Plot(#[from] crate::cli::plot::PlotError),
    /// No variant of the experiment has this name.
    #[error("the experiment has no variant `{wanted}`; {hint}")]
    UnknownVariant {
        /// The name given.
        wanted: String,
        /// The nearest name, or all names.
        hint: String,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {source}; {help}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },
    /// The experiment's file could not be read.
    #[error("{path}: {source}; give the path of an experiment, for example experiments/quickstart.toml", path = path.display())]
    NoExperiment {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that cannot be one of an experiment.
    #[error(
        "{name:?} cannot name an experiment; use 1 to 100 letters, digits, `-`, `_` or `.` and begin with a letter or digit"
    )]
    Name {
        /// The name given.
        name: String,
    },
    /// Standard output could not be written.
    #[error("standard output: {0}; check where it goes")]
    Output(std::io::Error),
    /// A file that should be text is not.
    #[error("{path}: byte {byte} is not UTF-8; save the file as UTF-8 text", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is not UTF-8.
        byte: usize,
    },
}

impl Error {
    /// The process's exit code: 2 where the fault is in what was typed, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(error) if error.is_usage() => 2,
            Self::Config(_)
            | Self::NotText { .. }
            | Self::NoExperiment { .. }
            | Self::UnknownVariant { .. }
            | Self::Name { .. }
            | Self::Plot(_)
            | Self::Device(_)
            | Self::Sweep(_)
            | Self::Analysis(crate::analysis::AnalysisError::NoAxis { .. })
            | Self::Privacy(_)
            | Self::PrivacyUsage(_)
            | Self::SecAggParams(_)
            | Self::Simulation(fl_sim::SimError::Audit(_))
            | Self::Dataset(fl_datasets::DatasetError::UnknownName { .. }) => 2,
            Self::Data(_)
            | Self::Simulation(_)
            | Self::Results(_)
            | Self::Analysis(_)
            | Self::Model(_)
            | Self::Versions(_)
            | Self::SecAggCosts(_)
            | Self::Rehearsal(_)
            | Self::Session(_)
            | Self::Dataset(_)
            | Self::Output(_)
            | Self::Io { .. } => 1,
        }
    }
}
