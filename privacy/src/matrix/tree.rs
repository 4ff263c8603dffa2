//! Binary-tree aggregation with restarts: Dwork et al. 2010; Kairouz et al. 2021
//! (arXiv:2103.00039), section 3 and appendix B.
//!
//! Rounds are the leaves of a binary tree; every complete subtree has a node with its own noise,
//! so a round is in at most `log2 n + 1` of them and a prefix sum is the sum of at most as many
//! nodes. After `restart` rounds a new tree begins, and what the old one had in noise stays. The
//! restart is best a power of two: then a closed tree is a single node.

use serde::{Deserialize, Serialize};

use super::{Participation, Row};
use crate::error::PrivacyError;

/// How the sum of a complete subtree is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeEstimator {
    /// From its own node.
    Node,
    /// From its own node and, recursively, its two halves, weighted by their variances: the
    /// variance at height `h` is `1 / (2 - 2^-h)` of a node's (Honaker 2015, bottom-up).
    Honaker,
}

/// Noise of prefix sums from trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredTree", into = "StoredTree")]
pub struct TreeAggregation {
    restart: u64,
    estimator: TreeEstimator,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTree {
    restart: u64,
    #[serde(default = "honaker")]
    estimator: TreeEstimator,
}

fn honaker() -> TreeEstimator {
    TreeEstimator::Honaker
}

impl TryFrom<StoredTree> for TreeAggregation {
    type Error = PrivacyError;

    fn try_from(stored: StoredTree) -> Result<Self, PrivacyError> {
        Self::new(stored.restart, stored.estimator)
    }
}

impl From<TreeAggregation> for StoredTree {
    fn from(tree: TreeAggregation) -> Self {
        Self {
            restart: tree.restart,
            estimator: tree.estimator,
        }
    }
}

impl TreeAggregation {
    /// Trees of `restart` leaves each.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless the restart is from 1 to `2^20` rounds.
    pub fn new(restart: u64, estimator: TreeEstimator) -> Result<Self, PrivacyError> {
        PrivacyError::unless_count(
            (1..=super::MOST_STEPS).contains(&restart),
            "the rounds between two restarts",
            restart,
            "1 to 2^20",
        )?;
        Ok(Self { restart, estimator })
    }

    /// Rounds between two restarts.
    #[must_use]
    pub fn restart(&self) -> u64 {
        self.restart
    }

    /// The leaves of each tree of a run, as the event of a member that contributes to one leaf of
    /// each has it.
    #[must_use]
    pub fn step_counts(&self, steps: u64) -> Vec<u64> {
        let whole = steps / self.restart;
        let rest = steps % self.restart;
        let mut counts = vec![self.restart; whole as usize];
        counts.extend((rest > 0).then_some(rest));
        counts
    }

    /// For a complete subtree of `height`: the weight of its own node, and the variance.
    fn estimate(&self, height: u32) -> (f64, f64) {
        match self.estimator {
            TreeEstimator::Node => (1.0, 1.0),
            TreeEstimator::Honaker => {
                let variance = 1.0 / (2.0 - libm::exp2(-f64::from(height)));
                // The node has variance 1, the halves together 2 V_(h-1) = v / (1 - v), so the
                // node's weight is v itself.
                (variance, variance)
            }
        }
    }

    /// An upper bound: at height `h` a node has `2^h` leaves, of which a member has at most
    /// `m = min(k, ceil(2^h / b))`, so its squares there add up to at most `m k`, and no more than
    /// `m^2` for each node. Trees share the `k` participations.
    pub(super) fn sensitivity(&self, participation: &Participation) -> f64 {
        libm::sqrt(self.squares(participation.steps(), participation))
    }

    pub(super) fn squared_sensitivities(&self, participation: &Participation) -> Vec<f64> {
        (1..=participation.steps())
            .map(|steps| self.squares(steps, participation))
            .collect()
    }

    /// Of a run of so many steps.
    fn squares(&self, steps: u64, participation: &Participation) -> f64 {
        let apart = participation.min_separation();
        let k = participation
            .max_participations()
            .min(steps.div_ceil(apart));
        let (whole, rest) = (steps / self.restart, steps % self.restart);
        let longest = self.restart.min(steps);
        let mut squares = 0.0;
        let mut height = 0;
        while longest >> height > 0 {
            let nodes = whole * (self.restart >> height) + (rest >> height);
            let most = (1u64 << height).div_ceil(apart).min(k);
            squares += most as f64 * (k as f64).min(most as f64 * nodes as f64);
            height += 1;
        }
        squares * (1.0 + 1e-14)
    }

    pub(super) fn errors(&self, steps: u64) -> Vec<f64> {
        let within = |leaves: u64| -> f64 {
            (0..64)
                .filter(|height| leaves >> height & 1 == 1)
                .map(|height| self.estimate(height).1)
                .sum()
        };
        let closed = within(self.restart);
        (1..=steps)
            .map(|t| {
                // The round that ends a tree belongs to it.
                let (trees, leaves) = ((t - 1) / self.restart, (t - 1) % self.restart + 1);
                libm::sqrt(trees as f64 * closed + within(leaves))
            })
            .collect()
    }

    /// The most rows at a time: complete subtrees of an open tree, one of each height.
    pub(super) fn most_rows(&self) -> usize {
        1 + self.restart.ilog2() as usize
    }

    /// Rows after `step` rounds: the noise of each complete subtree of the tree that is open.
    pub(super) fn rows_at(&self, step: u64) -> usize {
        (step % self.restart).count_ones() as usize
    }

    /// Complete subtrees are the binary digits of the number of leaves, the smallest last; a
    /// further leaf carries like a counter, and each carry replaces two subtrees by one.
    pub(super) fn next(
        &self,
        step: u64,
        rows: &mut Vec<Row>,
        fresh: &mut dyn FnMut(&mut [f32]),
        out: &mut [f32],
    ) {
        let leaf = step % self.restart;
        fresh(out);
        let mut sum = out.to_vec();
        let mut node = vec![0.0; out.len()];
        for height in 1..=leaf.trailing_ones() {
            let Some(left) = rows.pop() else { break };
            fresh(&mut node);
            let weight = self.estimate(height).0 as f32;
            for (((sum, out), left), node) in sum.iter_mut().zip(&mut *out).zip(&left.0).zip(&node)
            {
                let halves = *left + *sum;
                let whole = weight * node + (1.0 - weight) * halves;
                *out += whole - halves;
                *sum = whole;
            }
        }
        if leaf + 1 < self.restart {
            rows.push(Row(sum));
        } else {
            rows.clear();
        }
    }
}
