//! The best settings, and what was tried to find them.
//!
//! A result that was chosen among many is better than the same settings run once more, and a method
//! that was tuned with a larger budget looks better than one with a smaller (Dodge et al. 2019,
//! "Show Your Work", arXiv:1909.03004). So a choice never comes without its budget, and without what
//! it was made on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Analysis, AnalysisError, AxisValue, Figure, Group, Statistics};

/// What settings were chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectedOn {
    /// The test set: the figure is then no estimate of how these settings do on other data.
    TestSet,
    /// Training data, where there is no test set.
    TrainingData,
    /// Not on data: a cost.
    Cost,
}

impl SelectedOn {
    /// In words, for a table's caption.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::TestSet => "selected on the test set",
            Self::TrainingData => "selected on training data",
            Self::Cost => "selected by cost",
        }
    }
}

/// The best of the settings that were tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The values of the axes for each combination of which a choice was made.
    pub by: Vec<AxisValue>,
    /// The chosen group's place in [`Analysis::groups`].
    pub group: usize,
    /// What it was chosen by: the mean over its runs.
    pub figure: Figure,
    /// That figure.
    pub score: Statistics,
    /// The tuning budget: settings that were tried (those of which the figure is known) ...
    pub tried: usize,
    /// ... and the runs that they took.
    pub runs: usize,
    /// On which data.
    pub selected_on: SelectedOn,
}

impl Analysis {
    /// The best group for each combination of values of the axes `by`, by the mean of `figure` over
    /// its runs; of equals the first. Without axes, the best of all.
    ///
    /// # Errors
    /// [`AnalysisError::NoAxis`].
    pub fn best(&self, by: &[String], figure: Figure) -> Result<Vec<Best>, AnalysisError> {
        let axes: Vec<usize> = by
            .iter()
            .map(|key| self.axis(key))
            .collect::<Result<_, _>>()?;
        let mut order: Vec<Vec<AxisValue>> = Vec::new();
        let mut found: BTreeMap<Vec<AxisValue>, Best> = BTreeMap::new();
        for (index, group) in self.groups.iter().enumerate() {
            let Some(score) = self.statistics(group, figure) else {
                continue;
            };
            let values: Vec<AxisValue> = axes
                .iter()
                .filter_map(|&axis| group.values.get(axis).cloned())
                .collect();
            let runs = score.count;
            let Some(best) = found.get_mut(&values) else {
                order.push(values.clone());
                let best = Best {
                    by: values.clone(),
                    group: index,
                    figure,
                    score,
                    tried: 1,
                    runs,
                    selected_on: self.selected_on(group, figure),
                };
                found.insert(values, best);
                continue;
            };
            best.tried += 1;
            best.runs += runs;
            let better = match figure.is_less_better() {
                true => score.mean < best.score.mean,
                false => score.mean > best.score.mean,
            };
            if better {
                best.group = index;
                best.score = score;
                best.selected_on = self.selected_on(group, figure);
            }
        }
        Ok(order
            .iter()
            .filter_map(|values| found.remove(values))
            .collect())
    }

    fn selected_on(&self, group: &Group, figure: Figure) -> SelectedOn {
        let measured = |run: &super::Run| {
            let evaluations = &run.results.evaluations;
            evaluations
                .iter()
                .any(|row| row.test_loss.is_some() || row.test_accuracy.is_some())
        };
        match figure {
            Figure::Epsilon
            | Figure::Rounds
            | Figure::Bytes
            | Figure::VirtualSeconds
            | Figure::Joules => SelectedOn::Cost,
            _ if self.runs_of(group).any(measured) => SelectedOn::TestSet,
            _ => SelectedOn::TrainingData,
        }
    }
}
