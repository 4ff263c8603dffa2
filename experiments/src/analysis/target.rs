//! What it took to reach an accuracy.

use serde::Serialize;

use super::{Analysis, Group, Point, Quantity, Statistics, trajectory};
use crate::results::VariantResults;

/// What a run had spent at the first evaluation that reached the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// The first evaluation with at least the target; a run that is evaluated every few rounds is
    /// found to have reached it up to that many rounds late.
    pub at: Point,
}

/// What the runs of a group had spent when they reached the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Targets {
    /// The accuracy, a share from 0 to 1.
    pub accuracy: f64,
    /// Runs that reached it. The statistics are over them alone: where others did not, they are better
    /// than the group.
    pub reached: usize,
    /// Runs of the group.
    pub of: usize,
    /// Statistics of what they had spent.
    pub by: ReachedBy,
}

/// Statistics of what was spent; nothing where it is not known, or no run reached the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReachedBy {
    /// Rounds.
    pub rounds: Option<Statistics>,
    /// Seconds of the virtual clock.
    pub virtual_seconds: Option<Statistics>,
    /// Bytes sent to clients and received from them.
    pub bytes: Option<Statistics>,
    /// Joules of training.
    pub joules: Option<Statistics>,
    /// Epsilon.
    pub epsilon: Option<Statistics>,
}

impl Target {
    /// Where a run first had at least this accuracy; nothing where it never had.
    #[must_use]
    pub fn of(results: &VariantResults, accuracy: f64) -> Option<Self> {
        let mut points = trajectory(results).into_iter();
        let at = points.find(|point| point.accuracy.is_some_and(|found| found >= accuracy))?;
        Some(Self { at })
    }
}

impl Analysis {
    /// What the runs of a group had spent when they first had at least this accuracy, a share from 0
    /// to 1.
    #[must_use]
    pub fn to_target(&self, group: &Group, accuracy: f64) -> Targets {
        let found: Vec<Target> = self
            .runs_of(group)
            .filter_map(|run| Target::of(&run.results, accuracy))
            .collect();
        let statistics = |quantity| {
            let values: Vec<f64> = found
                .iter()
                .filter_map(|target| target.at.get(quantity))
                .collect();
            Statistics::of(&values)
        };
        Targets {
            accuracy,
            reached: found.len(),
            of: group.runs.len(),
            by: ReachedBy {
                rounds: statistics(Quantity::Rounds),
                virtual_seconds: statistics(Quantity::VirtualSeconds),
                bytes: statistics(Quantity::Bytes),
                joules: statistics(Quantity::Joules),
                epsilon: statistics(Quantity::Epsilon),
            },
        }
    }
}
