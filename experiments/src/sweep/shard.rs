//! Cells for several machines.

use std::fmt;
use std::str::FromStr;

use super::CellId;

/// One part of a sweep's cells, written `3/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1 to `of`.
    index: u32,
    of: u32,
}

/// A text that names no shard.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} names no shard; write I/N with I from 1 to N, such as 3/16")]
pub struct NoShard(String);

impl FromStr for Shard {
    type Err = NoShard;

    fn from_str(text: &str) -> Result<Self, NoShard> {
        let parse = || {
            let (index, of) = text.split_once('/')?;
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&index).then_some(Self { index, of })
        };
        parse().ok_or_else(|| NoShard(text.to_owned()))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl Shard {
    /// Which of the cells belong to it, given each one's id and cost.
    ///
    /// Cells go, the most expensive first and of equals by their ids, to the shard that has least so
    /// far, of equals the first (Graham 1969, "Bounds on Multiprocessing Timing Anomalies": the largest
    /// shard is at most 4/3 - 1/(3N) of what is possible). That depends on the cells alone, not on
    /// their order, nor on what has been run.
    #[must_use]
    pub fn choose(self, cells: &[(CellId, u64)]) -> Vec<bool> {
        let mine = self.index as usize - 1;
        assign(cells, self.of as usize)
            .into_iter()
            .map(|shard| shard == mine)
            .collect()
    }
}

fn assign(cells: &[(CellId, u64)], shards: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by(|&a, &b| {
        let ((id_a, cost_a), (id_b, cost_b)) = (&cells[a], &cells[b]);
        cost_b.cmp(cost_a).then_with(|| id_a.cmp(id_b))
    });
    let mut loads = vec![0u128; shards];
    let mut assigned = vec![0; cells.len()];
    for cell in order {
        let least = loads
            .iter()
            .enumerate()
            .min_by_key(|&(place, &load)| (load, place));
        if let Some((place, _)) = least {
            loads[place] += u128::from(cells[cell].1);
            assigned[cell] = place;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(costs: &[u64]) -> Vec<(CellId, u64)> {
        let id = |index: usize| format!("{:012x}", index * 7919 % 1000).parse().unwrap();
        let costs = costs.iter().enumerate();
        costs.map(|(index, &cost)| (id(index), cost)).collect()
    }

    #[test]
    fn a_shard_is_written_with_a_slash() {
        let shard: Shard = "3/16".parse().unwrap();
        assert_eq!(shard.to_string(), "3/16");
        for text in ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_cell_is_in_one_shard_whatever_their_order() {
        let mut all = cells(&[5, 5, 9, 1, 3, 3, 3, 8, 2, 2]);
        let of = |all: &[(CellId, u64)], index| {
            let shard: Shard = format!("{index}/4").parse().unwrap();
            let chosen = shard.choose(all);
            let mut ids: Vec<CellId> = all
                .iter()
                .zip(chosen)
                .filter(|(_, mine)| *mine)
                .map(|((id, _), _)| id.clone())
                .collect();
            ids.sort();
            ids
        };
        let before: Vec<Vec<CellId>> = (1..=4).map(|index| of(&all, index)).collect();
        let mut ids: Vec<CellId> = before.iter().flatten().cloned().collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all.len());
        all.reverse();
        all.swap(2, 7);
        let after: Vec<Vec<CellId>> = (1..=4).map(|index| of(&all, index)).collect();
        assert_eq!(before, after);
    }

    /// The least possible load of the largest shard, by trying everything.
    fn optimum(costs: &[u64], loads: &mut Vec<u64>) -> u64 {
        let Some((&cost, rest)) = costs.split_first() else {
            return loads.iter().copied().max().unwrap_or(0);
        };
        (0..loads.len())
            .map(|place| {
                loads[place] += cost;
                let found = optimum(rest, loads);
                loads[place] -= cost;
                found
            })
            .min()
            .unwrap_or(0)
    }

    #[test]
    fn shards_are_balanced_within_grahams_bound() {
        for costs in [
            &[7, 7, 6, 6, 5, 5, 4, 4, 4][..],
            &[1, 1, 1, 1],
            &[10, 1, 1, 1, 1],
            &[3, 3, 2, 2, 2],
            &[9, 8, 7, 6, 5, 4, 3, 2],
        ] {
            for shards in [2, 3] {
                let mut loads = vec![0; shards];
                for ((_, cost), shard) in cells(costs).iter().zip(assign(&cells(costs), shards)) {
                    loads[shard] += cost;
                }
                let largest = *loads.iter().max().unwrap() as f64;
                let best = optimum(costs, &mut vec![0; shards]) as f64;
                let bound = 4.0 / 3.0 - 1.0 / (3.0 * shards as f64);
                assert!(largest <= bound * best + 1e-9, "{costs:?} {largest} {best}");
            }
        }
    }
}
