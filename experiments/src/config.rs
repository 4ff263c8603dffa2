//! One TOML file, read into one [`Experiment`] in which nothing can be invalid any more.

use std::path::PathBuf;

use fl_core::Seed;

/// An experiment: one or more variants of one run.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The experiment's name; also the name of its results folder. Letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The file that it was read from, where there is one.
    pub path: Option<PathBuf>,
    /// At least one; a file without `[[variant]]` tables has one, named as the experiment.
    pub variants: Vec<Variant>,
}

/// One fully resolved run.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Unique within the experiment; letters, digits, `-`, `_`, `.`: fit for a folder's name.
    pub name: String,
    /// Seed of everything random.
    pub seed: Seed,
    /// Number of rounds.
    pub rounds: u64,
    /// Everything that decides the result, as TOML with all defaults written out and without
    /// `[[variant]]` tables. Reading it again with [`Experiment::from_table`] gives this variant.
    pub config: toml::Table,
}
