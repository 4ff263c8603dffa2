//! Statistics over seeds: what came of the cells of a sweep, or of any list of results.
//!
//! [`Analysis::load`] reads results folders and finds what their runs differ in: the axes of the
//! sweep, or else the keys of the resolved configurations. Runs that differ in nothing but the seed
//! are one [`Group`]. Of a group there are [`Statistics`] of each [`Figure`] of its runs, curves
//! over rounds, virtual time, bytes or joules ([`Analysis::curve`]), and what it took to reach an
//! accuracy ([`Analysis::to_target`]). [`Analysis::best`] chooses settings and says what was tried
//! for it.
//!
//! Everything here is a function of the results: the same bytes wherever it is computed.

use std::path::PathBuf;

use crate::results::{Status, VariantResults};

mod axes;
mod best;
mod error;
mod figure;
mod load;
mod statistics;
mod target;
mod value;

pub(crate) use axes::EPSILON;
pub use best::{Best, SelectedOn};
pub use error::AnalysisError;
pub use figure::{Figure, Figures, Point, Quantity, trajectory};
pub(crate) use statistics::quantile;
pub use statistics::{Interval, LEVEL, RESAMPLES, Statistics};
pub use target::{ReachedBy, Target, Targets};
pub use value::AxisValue;

/// Runs, what they differ in, and which of them differ in the seed alone.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The experiment, where all runs are of one; else empty.
    pub name: String,
    /// What the runs differ in, apart from the seed: in the order of the sweep, or of the keys.
    pub axes: Vec<Axis>,
    /// The runs, in the order of the sweep, or of the folders and variants.
    pub runs: Vec<Run>,
    /// Runs that differ in the seed alone, in the order of their first run.
    pub groups: Vec<Group>,
}

/// One thing in which runs differ.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Axis {
    /// The dotted key, or `variant`.
    pub key: String,
    /// The values that occur, in their order; [`AxisValue::Absent`] where the key says nothing.
    pub values: Vec<AxisValue>,
}

/// One run and what came of it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The cell's id in a sweep, else `FOLDER/VARIANT`.
    pub id: String,
    /// The results folder.
    pub path: PathBuf,
    /// A value for each of [`Analysis::axes`].
    pub values: Vec<AxisValue>,
    /// Seed of everything random.
    pub seed: u64,
    /// The figures that sum it up.
    pub figures: Figures,
    /// Everything that was recorded.
    pub results: VariantResults,
}

/// Runs that differ in nothing but the seed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Group {
    /// A value for each of [`Analysis::axes`].
    pub values: Vec<AxisValue>,
    /// Places in [`Analysis::runs`], ascending.
    pub runs: Vec<usize>,
}

/// A round of a group's curve.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CurvePoint {
    /// Rounds done.
    pub round: u64,
    /// Over the runs that were evaluated there; fewer than the group where some ended before.
    pub statistics: Statistics,
}

impl Run {
    /// Whether it came to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.results.manifest.status == Status::Finished
    }
}

impl Analysis {
    /// Reads results folders: `results/NAME` of an experiment or of a sweep, one of its cells, or one
    /// variant within results.
    ///
    /// The axes of a single sweep are those of its plan. Else they are the keys in which the resolved
    /// configurations differ; of a table that only some runs have, those that say no more than that it
    /// is there are left out.
    ///
    /// # Errors
    /// [`AnalysisError`] when a folder holds no results, or a file in it is damaged.
    pub fn load(paths: &[PathBuf]) -> Result<Self, AnalysisError> {
        load::load(paths)
    }

    /// What a group is called: its values, without the axes along which all runs are alike.
    #[must_use]
    pub fn label(&self, group: &Group) -> String {
        let parts: Vec<String> = self
            .axes
            .iter()
            .zip(&group.values)
            .filter(|(axis, value)| axis.values.len() > 1 && **value != AxisValue::Absent)
            .map(|(axis, value)| format!("{}={value}", axis.key))
            .collect();
        match parts.as_slice() {
            [] => self.name.clone(),
            parts => parts.join(", "),
        }
    }

    /// The place of an axis.
    ///
    /// # Errors
    /// [`AnalysisError::NoAxis`] with the nearest.
    pub fn axis(&self, key: &str) -> Result<usize, AnalysisError> {
        let found = self.axes.iter().position(|axis| axis.key == key);
        found.ok_or_else(|| AnalysisError::NoAxis {
            key: key.to_owned(),
            hint: crate::config::suggest(key, self.axes.iter().map(|axis| axis.key.as_str())),
        })
    }

    /// Runs of a group.
    pub fn runs_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Run> {
        group.runs.iter().filter_map(|&run| self.runs.get(run))
    }

    /// A figure over the runs of a group that have it; nothing where none has.
    #[must_use]
    pub fn statistics(&self, group: &Group, figure: Figure) -> Option<Statistics> {
        let values: Vec<f64> = self
            .runs_of(group)
            .filter_map(|run| run.figures.get(figure))
            .collect();
        Statistics::of(&values)
    }

    /// A quantity over the rounds at which runs of the group were evaluated: the curve of a metric, or,
    /// of a cost, where on its axis a round lies.
    #[must_use]
    pub fn curve(&self, group: &Group, quantity: Quantity) -> Vec<CurvePoint> {
        let runs: Vec<Vec<Point>> = self
            .runs_of(group)
            .map(|run| trajectory(&run.results))
            .collect();
        let mut rounds: Vec<u64> = runs.iter().flatten().map(|point| point.round).collect();
        rounds.sort_unstable();
        rounds.dedup();
        rounds
            .into_iter()
            .filter_map(|round| {
                let values: Vec<f64> = runs
                    .iter()
                    .filter_map(|run| {
                        let at = run.binary_search_by_key(&round, |point| point.round).ok()?;
                        run.get(at)?.get(quantity)
                    })
                    .collect();
                let statistics = Statistics::of(&values)?;
                Some(CurvePoint { round, statistics })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
