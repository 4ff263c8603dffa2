//! A cohort of fixed size, every subset equally likely: Floyd's algorithm (Bentley & Floyd 1987,
//! "A sample of brilliance", Communications of the ACM 30(9), algorithm F2). Time and memory grow
//! with the cohort.
//!
//! Where a predicate says who is eligible, places are drawn one by one without replacement and the
//! predicate is asked about each, until enough are found: a random order of the population, of which
//! the first eligible clients are taken, so every subset of the eligible is equally likely. That
//! asks about `cohort / share` clients, `share` being that of the eligible. Once half of the places
//! are drawn most draws would soon be repeats: then the others are gone through in one pass, and the
//! missing clients are drawn from the eligible ones among them, which is the same in law.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::size::{self, Size};
use super::{Candidates, SelectError, Selection, Selector};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;
use crate::units::ClientId;

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
        let asked = self.size.asked(candidates.len());
        Ok(self.size.cohort_of(draw(asked, candidates, stream)))
    }

    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        Ok(draw(wanted, candidates, stream))
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.size.goal(population)
    }
}

/// `wanted` of the candidates, or all that there are, every subset equally likely.
pub(super) fn draw(wanted: u64, candidates: &Candidates<'_>, stream: &mut Stream) -> Selection {
    let available = candidates.len();
    let wanted = wanted.min(available);
    if !candidates.is_filtered() {
        return candidates.admitted(candidates.at(sample(wanted, available, stream)));
    }
    let mut screen = candidates.screen();
    let mut seen = BTreeSet::new();
    let mut clients = Vec::new();
    while (clients.len() as u64) < wanted && 2 * (seen.len() as u64) < available {
        let place = stream.below(available);
        if seen.insert(place)
            && let Some(client) = candidates.client(place)
            && screen.admits(client)
        {
            clients.push(client);
        }
    }
    let missing = wanted - clients.len() as u64;
    if missing > 0 {
        let unseen = (0..available).filter(|place| !seen.contains(place));
        let rest: Vec<ClientId> = unseen
            .filter_map(|place| candidates.client(place))
            .filter(|&client| screen.admits(client))
            .collect();
        let left = rest.len() as u64;
        let places = sample(missing.min(left), left, stream);
        clients.extend(places.into_iter().map(|place| rest[place as usize]));
    }
    clients.sort_unstable();
    Selection {
        goal: clients.len() as u64,
        clients,
        screened: screen.screened(),
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
