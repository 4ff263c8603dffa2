//! Which clients take part in a round.
//!
//! A selection is a function of (seed, round, candidates): selectors have no state that matters, so
//! there is nothing to checkpoint. Its cost grows with the cohort, not with the population, except
//! where every client's weight must be looked at.

use alloc::vec::Vec;
use core::fmt::Debug;

use crate::units::{ClientId, ExampleCount};
use crate::{Purpose, RoundId, Seed, Stream};

pub mod cyclic;
pub mod poisson;
pub mod separated;
pub mod uniform;
pub mod weighted;

pub use cyclic::{Cyclic, CyclicConfig};
pub use poisson::{Poisson, PoissonConfig};
pub use separated::{Separated, SeparatedConfig};
pub use uniform::{Uniform, UniformConfig};
pub use weighted::{Weighted, WeightedConfig};

/// The clients that a round may choose from.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    ids: Ids<'a>,
    examples: Option<&'a (dyn Fn(ClientId) -> ExampleCount + Sync)>,
}

#[derive(Clone, Copy)]
enum Ids<'a> {
    Everyone(u64),
    Listed(&'a [ClientId]),
}

impl Debug for Candidates<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Candidates")
            .field("len", &self.len())
            .field("with_examples", &self.examples.is_some())
            .finish()
    }
}

impl<'a> Candidates<'a> {
    /// All clients `0 .. population`.
    #[must_use]
    pub fn everyone(population: u64) -> Self {
        Self {
            ids: Ids::Everyone(population),
            examples: None,
        }
    }

    /// The listed clients, e.g. those that are eligible now.
    ///
    /// # Errors
    /// [`SelectError::Unsorted`] unless the ids ascend strictly.
    pub fn listed(clients: &'a [ClientId]) -> Result<Self, SelectError> {
        if let Some(index) = clients.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(SelectError::Unsorted { index: index + 1 });
        }
        Ok(Self {
            ids: Ids::Listed(clients),
            examples: None,
        })
    }

    /// With the clients' numbers of examples, for selectors that weigh.
    #[must_use]
    pub fn with_examples(self, examples: &'a (dyn Fn(ClientId) -> ExampleCount + Sync)) -> Self {
        Self {
            examples: Some(examples),
            ..self
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self.ids {
            Ids::Everyone(population) => population,
            Ids::Listed(clients) => clients.len() as u64,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client at `index`, in ascending order of ids; `None` at or beyond the end.
    #[must_use]
    pub fn client(&self, index: u64) -> Option<ClientId> {
        match self.ids {
            Ids::Everyone(population) => (index < population).then_some(ClientId(index)),
            Ids::Listed(clients) => clients.get(usize::try_from(index).ok()?).copied(),
        }
    }

    /// The number of examples of `client`, where known.
    #[must_use]
    pub fn examples(&self, client: ClientId) -> Option<ExampleCount> {
        self.examples.map(|examples| examples(client))
    }

    /// The clients at ascending `indices` below `len`.
    fn at(&self, indices: Vec<u64>) -> Vec<ClientId> {
        match self.ids {
            Ids::Everyone(_) => indices.into_iter().map(ClientId).collect(),
            Ids::Listed(clients) => indices
                .into_iter()
                .map(|index| clients[index as usize])
                .collect(),
        }
    }
}

/// The clients that are asked to take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Distinct, in ascending order.
    pub clients: Vec<ClientId>,
    /// The round is complete with so many reports; at most the number of clients.
    pub goal: u64,
}

/// Why no clients were selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The list of candidates is not in ascending order.
    #[error("the list of candidates does not ascend at index {index}; sort it and remove repeats")]
    Unsorted {
        /// The first element that is not above its predecessor.
        index: usize,
    },
    /// The selector weighs clients and was not told their examples.
    #[error(
        "this selector weighs clients by examples, which the candidates do not carry; use `Candidates::with_examples`"
    )]
    NoExamples,
}

/// Chooses a cohort. Its suite is `testing::selector` (feature `testing`).
///
/// LAW: the selection is a function of the candidates and the stream's address; its clients are
/// candidates, distinct and in ascending order, and `goal` is at most their number.
pub trait Selector: Debug + Send + Sync {
    /// Chooses from `candidates`; `stream` is fresh. Fewer candidates than wanted are all chosen.
    ///
    /// # Errors
    /// [`SelectError::NoExamples`] from selectors that weigh.
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError>;

    /// The most clients whose updates a round can sum, among `population`; for planning a ring.
    /// Where this is the whole population, the sum of all weights is a tighter bound for
    /// [`WeightBounds::total`](crate::WeightBounds) than the largest weight times this number.
    fn largest_goal(&self, population: u64) -> u64;
}

/// The stream of a round's selection.
#[must_use]
pub fn selection_stream(seed: Seed, round: RoundId) -> Stream {
    Stream::at(Purpose::Selection, seed, round, ClientId(0))
}

macro_rules! selectors {
    ($($Entry:ident = $kind:literal),+ $(,)?) => {
        crate::registry! {
            family "selection";
            /// Any selector of the registry.
            value AnySelector;
            /// The keys of `[selection]`.
            config SelectorConfig;
            dispatch with_selector;
            conformance crate::testing::selector;
            entries { $($Entry = $kind),+ }
        }
    };
}

selectors! {
    Uniform = "uniform",
    Poisson = "poisson",
    Weighted = "weighted",
    Cyclic = "cyclic",
    Separated = "separated",
}

impl Selector for AnySelector {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        with_selector!(self, selector => selector.select(candidates, stream))
    }

    fn largest_goal(&self, population: u64) -> u64 {
        with_selector!(self, selector => selector.largest_goal(population))
    }
}

/// Cohort and over-selection, for selectors of a fixed size.
mod size {
    use crate::registry::{ConfigError, KeyInfo};

    pub(super) const COHORT: KeyInfo = KeyInfo {
        key: "cohort",
        expects: "whole number above 0",
        default: None,
        summary: "Reports that complete a round.",
    };
    pub(super) const OVER_SELECT: KeyInfo = KeyInfo {
        key: "over_select",
        expects: "number, at least 1 and at most 100",
        default: Some("1.0"),
        summary: "So many times the cohort is asked to train, and the first reports count.",
    };

    pub(super) fn one() -> f64 {
        1.0
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct Size {
        cohort: u64,
        over_select: f64,
    }

    impl Size {
        pub(super) fn new(cohort: u64, over_select: f64) -> Result<Self, ConfigError> {
            ConfigError::unless(
                (1..=1 << 40).contains(&cohort),
                "cohort",
                cohort,
                "a whole number of at least 1 and at most 2^40",
            )?;
            ConfigError::unless(
                (1.0..=100.0).contains(&over_select),
                "over_select",
                over_select,
                "a number of at least 1 and at most 100",
            )?;
            Ok(Self {
                cohort,
                over_select,
            })
        }

        /// How many are asked among `available`.
        pub(super) fn asked(&self, available: u64) -> u64 {
            // `1.1` is a little more than 11/10: what only that little would add is left out.
            let wanted = self.cohort as f64 * self.over_select * (1.0 - 4.0 * f64::EPSILON);
            (libm::ceil(wanted) as u64).min(available)
        }

        pub(super) fn goal(&self, available: u64) -> u64 {
            self.cohort.min(available)
        }
    }
}

#[cfg(test)]
mod tests;
