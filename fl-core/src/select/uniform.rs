//! A cohort of fixed size, every subset equally likely: Floyd's algorithm (Bentley & Floyd 1987,
//! "A sample of brilliance", Communications of the ACM 30(9), algorithm F2). Time and memory grow
//! with the cohort.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::size::{self, Size};
use super::{Candidates, SelectError, Selection, Selector};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;

/// Keys of `kind = "uniform"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniformConfig {
    /// Reports that complete a round, at least 1.
    pub cohort: u64,
    /// So many times the cohort is asked; in `[1, 100]`.
    #[serde(default = "size::one")]
    pub over_select: f64,
}

/// Uniform selection without replacement, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform {
    size: Size,
}

impl Registered for Uniform {
    type Config = UniformConfig;
    const SUMMARY: &'static str = "A cohort of fixed size, every client equally likely.";
    const KEYS: &'static [KeyInfo] = &[size::COHORT, size::OVER_SELECT];

    fn from_config(config: UniformConfig) -> Result<Self, ConfigError> {
        let size = Size::new(config.cohort, config.over_select)?;
        Ok(Self { size })
    }

    fn examples() -> Vec<UniformConfig> {
        [(1, 1.0), (10, 1.0), (10, 1.3)]
            .map(|(cohort, over_select)| UniformConfig {
                cohort,
                over_select,
            })
            .to_vec()
    }
}

impl Selector for Uniform {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let available = candidates.len();
        Ok(Selection {
            clients: candidates.at(sample(self.size.asked(available), available, stream)),
            goal: self.size.goal(available),
        })
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.size.goal(population)
    }
}

/// `wanted <= available` distinct numbers below `available`, ascending.
pub(super) fn sample(wanted: u64, available: u64, stream: &mut Stream) -> Vec<u64> {
    if wanted == available {
        return (0..available).collect();
    }
    // The same algorithm over two sets; the flat one is faster while it is not much larger than
    // the sample.
    if available / 16 <= wanted {
        let mut chosen = vec![false; available as usize];
        for last in available - wanted..available {
            let drawn = stream.below(last + 1);
            let repeated = chosen[drawn as usize];
            chosen[if repeated { last } else { drawn } as usize] = true;
        }
        (0..available)
            .filter(|&index| chosen[index as usize])
            .collect()
    } else {
        let mut chosen = BTreeSet::new();
        for last in available - wanted..available {
            if !chosen.insert(stream.below(last + 1)) {
                chosen.insert(last);
            }
        }
        chosen.into_iter().collect()
    }
}
