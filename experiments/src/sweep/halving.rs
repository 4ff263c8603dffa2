//! Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and
//! Hyperparameter Optimization", arXiv:1502.07943, algorithm "Successive Halving"; with a factor in
//! place of two as in Li et al. 2018, "Hyperband", JMLR 18).
//!
//! A decision looks at nothing that happened after its own round, so it is the same whenever it is
//! made again: after a kill, or when some settings have gone on already.

use super::CellId;
use crate::config::{HalvingMetric, HalvingTable};
use crate::results::VariantResults;

/// The rounds after which settings are dropped, ascending, below `rounds`.
#[must_use]
pub fn rungs(table: &HalvingTable, rounds: u64) -> Vec<u64> {
    let next = |&rung: &u64| rung.checked_mul(table.factor);
    std::iter::successors(Some(table.first), next)
        .take_while(|&rung| rung < rounds)
        .collect()
}

/// What settings are compared by at a rung: the mean of the metric over their seeds, higher is better;
/// nothing where a run was not evaluated by then.
#[must_use]
pub fn score(table: &HalvingTable, rung: u64, runs: &[&VariantResults]) -> Option<f64> {
    let mut sum = 0.0;
    for run in runs {
        let until = run.evaluations.iter().take_while(|row| row.round <= rung);
        let last = until.last()?;
        sum += match table.metric {
            HalvingMetric::Accuracy => last.test_accuracy.or(last.train_accuracy)?,
            HalvingMetric::Loss => -last.test_loss.or(last.train_loss)?,
        };
    }
    (!runs.is_empty()).then(|| sum / runs.len() as f64)
}

/// Which settings go on: one in `factor`, rounded up, those with the highest scores; of equals the one
/// whose smallest id is smaller. Without a score, or with one that is NaN, settings come last.
#[must_use]
pub fn survivors(table: &HalvingTable, settings: &[(CellId, Option<f64>)]) -> Vec<bool> {
    let factor = usize::try_from(table.factor).unwrap_or(usize::MAX);
    let kept = settings.len().div_ceil(factor.max(1));
    let mut order: Vec<usize> = (0..settings.len()).collect();
    let value = |place: usize| settings[place].1.filter(|score| !score.is_nan());
    order.sort_by(|&a, &b| {
        let by_score = match (value(a), value(b)) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        by_score.then_with(|| settings[a].0.cmp(&settings[b].0))
    });
    let mut goes_on = vec![false; settings.len()];
    for place in order.into_iter().take(kept) {
        goes_on[place] = true;
    }
    goes_on
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(first: u64, factor: u64) -> HalvingTable {
        HalvingTable {
            first,
            factor,
            metric: HalvingMetric::Accuracy,
        }
    }

    #[test]
    fn rungs_grow_by_the_factor_to_the_end() {
        let cases: [(u64, u64, u64, &[u64]); 5] = [
            (1, 3, 81, &[1, 3, 9, 27]),
            (10, 2, 80, &[10, 20, 40]),
            (10, 2, 81, &[10, 20, 40, 80]),
            (100, 3, 100, &[]),
            (u64::MAX / 2, 3, u64::MAX, &[u64::MAX / 2]),
        ];
        for (first, factor, rounds, expected) in cases {
            assert_eq!(rungs(&table(first, factor), rounds), expected);
        }
    }

    #[test]
    fn the_best_third_goes_on_and_ties_go_to_the_smaller_id() {
        let id = |n: u32| format!("{n:012x}").parse::<CellId>().unwrap();
        let settings = [
            (id(9), Some(0.5)),
            (id(2), Some(0.8)),
            (id(7), Some(0.8)),
            (id(4), None),
            (id(3), Some(f64::NAN)),
            (id(1), Some(0.7)),
            (id(5), Some(0.1)),
        ];
        let goes_on = survivors(&table(1, 3), &settings);
        // 7 / 3 rounded up is 3: both 0.8 and 0.7.
        assert_eq!(goes_on, [false, true, true, false, false, true, false]);
        // 7 / 7 is 1: of two 0.8 the smaller id.
        let goes_on = survivors(&table(1, 7), &settings);
        assert_eq!(goes_on.iter().position(|&on| on), Some(1));
        // With none of them known the smallest id goes on.
        let unknown = [(id(8), None), (id(6), Some(f64::NAN))];
        assert_eq!(survivors(&table(1, 2), &unknown), [false, true]);
    }
}
