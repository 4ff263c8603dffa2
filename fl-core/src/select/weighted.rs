//! A cohort of fixed size without replacement, clients with more examples more likely: each next
//! client is drawn with probability proportional to its examples among those not yet drawn.
//! Exponential keys give the same distribution in one pass (Efraimidis & Spirakis 2006,
//! "Weighted random sampling with a reservoir", Information Processing Letters 97(5), algorithm
//! A-ES): the clients with the smallest `-ln(u) / examples`. Ties go to the smaller id.
//!
//! Time grows with the number of candidates, memory with the cohort. Clients without examples are
//! never chosen. A predicate of who is eligible is asked about those alone whose key would be kept.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::size::{self, Size};
use super::{Candidates, SelectError, Selection, Selector};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;

/// Keys of `kind = "weighted"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedConfig {
    /// Reports that complete a round, at least 1.
    pub cohort: u64,
    /// So many times the cohort is asked; in `[1, 100]`.
    #[serde(default = "size::one")]
    pub over_select: f64,
}

/// Selection by number of examples, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighted {
    size: Size,
}

impl Registered for Weighted {
    type Config = WeightedConfig;
    const SUMMARY: &'static str =
        "A cohort of fixed size, clients drawn in proportion to their examples.";
    const KEYS: &'static [KeyInfo] = &[size::COHORT, size::OVER_SELECT];

    fn from_config(config: WeightedConfig) -> Result<Self, ConfigError> {
        let size = Size::new(config.cohort, config.over_select)?;
        Ok(Self { size })
    }

    fn examples() -> Vec<WeightedConfig> {
        [(1, 1.0), (10, 1.0), (10, 1.3)]
            .map(|(cohort, over_select)| WeightedConfig {
                cohort,
                over_select,
            })
            .to_vec()
    }
}

impl Selector for Weighted {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let asked = self.size.asked(candidates.len());
        Ok(self.size.cohort_of(draw(asked, candidates, stream)?))
    }

    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        draw(wanted, candidates, stream)
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.size.goal(population)
    }
}

/// The key of an item of positive `weight`: the smallest keys are drawn.
pub(super) fn key(weight: f64, stream: &mut Stream) -> u64 {
    let uniform = 1.0 - stream.uniform();
    // 0.0 - x, so that ln(1) gives +0. Keys are not negative, so their bits are ordered as they are.
    ((0.0 - libm::log(uniform)) / weight).to_bits()
}

/// `wanted` of the candidates that have examples, in proportion to them, or all that there are.
pub(super) fn draw(
    wanted: u64,
    candidates: &Candidates<'_>,
    stream: &mut Stream,
) -> Result<Selection, SelectError> {
    let wanted = wanted.min(candidates.len()) as usize;
    let mut screen = candidates.screen();
    // The largest key that is kept is on top.
    let mut kept: BinaryHeap<(u64, u64)> = BinaryHeap::new();
    for index in 0..candidates.len() {
        let Some(client) = candidates.client(index) else {
            break;
        };
        let examples = candidates
            .examples(client)
            .ok_or(SelectError::NoExamples)?
            .0;
        let entry = (key(examples as f64, stream), index);
        let full = kept.len() >= wanted;
        let better = !full || kept.peek().is_some_and(|largest| entry < *largest);
        if examples == 0 || !better || !screen.admits(client) {
            continue;
        }
        if full {
            kept.pop();
        }
        kept.push(entry);
    }
    let mut indices: Vec<u64> = kept.into_iter().map(|(_, index)| index).collect();
    indices.sort_unstable();
    Ok(Selection {
        goal: indices.len() as u64,
        clients: candidates.at(indices),
        screened: screen.screened(),
    })
}
