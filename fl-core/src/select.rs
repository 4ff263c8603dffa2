//! Which clients take part in a round.
//!
//! A selection is a function of (seed, round, candidates): selectors have no state that matters, so
//! there is nothing to checkpoint. Its cost grows with the cohort, not with the population, except
//! where every client's weight must be looked at.
//!
//! # Who may be chosen
//! Candidates are everyone, a list, or whoever a predicate [admits](Candidates::eligible), e.g.
//! those that charge and are on WiFi now. A predicate is asked lazily, only about clients that are
//! about to be chosen, so that the population need not be listed. How often it was asked and how
//! often it said yes is in the [selection](Selection::screened).

use alloc::vec::Vec;
use core::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::units::{ClientId, ExampleCount};
use crate::{Purpose, RoundId, Seed, Stream};

pub mod cyclic;
pub mod fair;
pub mod history;
pub mod oort;
pub mod poisson;
pub mod power_of_choice;
pub mod separated;
pub mod uniform;
pub mod weighted;

pub use cyclic::{Cyclic, CyclicConfig};
pub use fair::{Fair, FairConfig};
pub use history::{History, Participation, Past};
pub use oort::{Oort, OortConfig};
pub use poisson::{Poisson, PoissonConfig};
pub use power_of_choice::{PowerOfChoice, PowerOfChoiceConfig};
pub use separated::{Separated, SeparatedConfig};
pub use uniform::{Uniform, UniformConfig};
pub use weighted::{Weighted, WeightedConfig};

/// The clients that a round may choose from.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    ids: Ids<'a>,
    eligible: Option<&'a (dyn Fn(ClientId) -> bool + Sync)>,
    /// Who is out of the question, whatever the others say.
    barred: Option<&'a (dyn Fn(ClientId) -> bool + Sync)>,
    examples: Option<&'a (dyn Fn(ClientId) -> ExampleCount + Sync)>,
    history: Option<&'a History>,
    /// Those who took part so often are no candidates; only with a history.
    most_rounds: Option<u64>,
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
            .field("filtered", &self.is_filtered())
            .field("with_examples", &self.examples.is_some())
            .field("with_history", &self.history.is_some())
            .finish()
    }
}

impl<'a> Candidates<'a> {
    fn of(ids: Ids<'a>) -> Self {
        Self {
            ids,
            eligible: None,
            barred: None,
            examples: None,
            history: None,
            most_rounds: None,
        }
    }

    /// All clients `0 .. population`.
    #[must_use]
    pub fn everyone(population: u64) -> Self {
        Self::of(Ids::Everyone(population))
    }

    /// The listed clients, e.g. those that are eligible now.
    ///
    /// # Errors
    /// [`SelectError::Unsorted`] unless the ids ascend strictly.
    pub fn listed(clients: &'a [ClientId]) -> Result<Self, SelectError> {
        if let Some(index) = clients.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(SelectError::Unsorted { index: index + 1 });
        }
        Ok(Self::of(Ids::Listed(clients)))
    }

    /// Those of the clients `0 .. population` that `eligible` says yes to. It must be a function of
    /// the client alone while a selection goes on, and is asked about as few clients as the selector
    /// can do with.
    #[must_use]
    pub fn eligible(population: u64, eligible: &'a (dyn Fn(ClientId) -> bool + Sync)) -> Self {
        Self {
            eligible: Some(eligible),
            ..Self::everyone(population)
        }
    }

    /// These without those that `barred` says yes to, for a selector or a machine that knows who
    /// cannot be meant. The barred are not [counted](Screened) as ineligible.
    pub(crate) fn without<R>(
        &self,
        barred: &(dyn Fn(ClientId) -> bool + Sync),
        then: impl FnOnce(&Candidates<'_>) -> R,
    ) -> R {
        let either = |client| barred(client) || self.barred(client);
        then(&Candidates {
            barred: Some(&either),
            ..*self
        })
    }

    fn barred(&self, client: ClientId) -> bool {
        self.barred.is_some_and(|barred| barred(client))
    }

    /// With the clients' numbers of examples, for selectors that weigh.
    #[must_use]
    pub fn with_examples(self, examples: &'a (dyn Fn(ClientId) -> ExampleCount + Sync)) -> Self {
        Self {
            examples: Some(examples),
            ..self
        }
    }

    /// With what is known of the clients that took part, for selectors that
    /// [learn](Selector::needs_history).
    #[must_use]
    pub fn with_history(self, history: &'a History) -> Self {
        Self {
            history: Some(history),
            ..self
        }
    }

    /// Without the clients whose updates counted in `rounds` rounds or more by the
    /// [history](Self::with_history), without which nobody did.
    #[must_use]
    pub fn at_most_rounds(self, rounds: u64) -> Self {
        Self {
            most_rounds: Some(rounds),
            ..self
        }
    }

    /// How many there are; where a predicate [filters](Self::is_filtered), at most.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self.ids {
            Ids::Everyone(population) => population,
            Ids::Listed(clients) => clients.len() as u64,
        }
    }

    /// Whether there are none, whatever a predicate says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether [`admits`](Self::admits) may say no.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.eligible.is_some() || self.barred.is_some() || self.most_rounds.is_some()
    }

    /// Whether `client`, one of these, may be chosen. A selector counts its questions by
    /// [`screen`](Self::screen).
    #[must_use]
    pub fn admits(&self, client: ClientId) -> bool {
        !self.barred(client) && self.qualifies(client)
    }

    fn qualifies(&self, client: ClientId) -> bool {
        let fresh = self.most_rounds.is_none_or(|most| {
            let past = self.history.and_then(|history| history.past(client));
            past.map_or(0, |past| past.rounds) < most
        });
        fresh && self.eligible.is_none_or(|eligible| eligible(client))
    }

    /// Asks [`admits`](Self::admits) and counts.
    #[must_use]
    pub fn screen(&self) -> Screen<'_> {
        Screen {
            candidates: self,
            screened: Screened::default(),
        }
    }

    /// The client at `index`, in ascending order of ids, [admitted](Self::admits) or not; `None` at
    /// or beyond the end.
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

    /// What is known of the clients that took part.
    #[must_use]
    pub fn history(&self) -> Option<&'a History> {
        self.history
    }

    /// Whether `client` is one of these, admitted or not.
    fn holds(&self, client: ClientId) -> bool {
        match self.ids {
            Ids::Everyone(population) => client.0 < population,
            Ids::Listed(clients) => clients.binary_search(&client).is_ok(),
        }
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

    /// A selection of those of `clients` that are admitted, all of whom are waited for.
    fn admitted(&self, mut clients: Vec<ClientId>) -> Selection {
        let mut screen = self.screen();
        clients.retain(|&client| screen.admits(client));
        Selection {
            goal: clients.len() as u64,
            clients,
            screened: screen.screened,
        }
    }
}

/// How often a predicate was asked, and how often it said yes.
///
/// Uniform selection asks about clients in a random order, so `eligible / asked` estimates the
/// share of the population that is eligible (a little too high, by about `1 / eligible` of it, for
/// it stops at a yes). Other selectors may ask about preferred clients first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screened {
    /// Clients that the predicate was asked about; zero where there is none.
    pub asked: u64,
    /// Those of them that it admitted.
    pub eligible: u64,
}

impl Screened {
    fn and(self, other: Self) -> Self {
        Self {
            asked: self.asked + other.asked,
            eligible: self.eligible + other.eligible,
        }
    }
}

/// Asks candidates' predicate and counts, see [`Candidates::screen`].
#[derive(Debug)]
pub struct Screen<'a> {
    candidates: &'a Candidates<'a>,
    screened: Screened,
}

impl Screen<'_> {
    /// [`Candidates::admits`], counted where there is a predicate. To be asked once of a client.
    pub fn admits(&mut self, client: ClientId) -> bool {
        if !self.candidates.is_filtered() {
            return true;
        }
        if self.candidates.barred(client) {
            return false;
        }
        let admitted = self.candidates.qualifies(client);
        self.screened.asked += 1;
        self.screened.eligible += u64::from(admitted);
        admitted
    }

    /// The counts so far.
    #[must_use]
    pub fn screened(&self) -> Screened {
        self.screened
    }
}

/// The clients that are asked to take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Distinct, in ascending order.
    pub clients: Vec<ClientId>,
    /// The round is complete with so many reports; at most the number of clients.
    pub goal: u64,
    /// What was asked of the candidates' predicate.
    pub screened: Screened,
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
    /// The selector learns from earlier rounds and was not told of them.
    #[error(
        "this selector learns from clients' earlier rounds, which the candidates do not carry; use \
         `Candidates::with_history`"
    )]
    NoHistory,
    /// The selector draws whole cohorts and was asked for single clients.
    #[error(
        "this selector draws whole cohorts, and clients that train at their own pace are replaced \
         one by one; use a selector with a `cohort` and without rests, e.g. `uniform`"
    )]
    WholeCohorts,
}

/// Chooses a cohort. Its suite is `testing::selector` (feature `testing`).
///
/// LAW: the selection is a function of the candidates and the stream's address; its clients are
/// candidates that are [admitted](Candidates::admits), distinct and in ascending order, and `goal`
/// is at most their number.
pub trait Selector: Debug + Send + Sync {
    /// Chooses from `candidates`; `stream` is fresh. Fewer candidates than wanted are all chosen.
    ///
    /// # Errors
    /// [`SelectError::NoExamples`] from selectors that weigh, [`SelectError::NoHistory`] from those
    /// that [learn](Self::needs_history).
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError>;

    /// Chooses `wanted` of `candidates`, all of them when there are fewer, to take free places, see
    /// [`BufferedServer`](crate::BufferedServer); who is preferred is as in [`select`](Self::select).
    ///
    /// # Errors
    /// [`SelectError::WholeCohorts`] from selectors that know only rounds; else as `select`.
    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let _ = (wanted, candidates, stream);
        Err(SelectError::WholeCohorts)
    }

    /// Whether candidates must [carry](Candidates::with_history) what is known of the clients.
    fn needs_history(&self) -> bool {
        false
    }

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
    Oort = "oort",
    PowerOfChoice = "power-of-choice",
    Fair = "fair",
}

impl Selector for AnySelector {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        with_selector!(self, selector => selector.select(candidates, stream))
    }

    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        with_selector!(self, selector => selector.choose(wanted, candidates, stream))
    }

    fn needs_history(&self) -> bool {
        with_selector!(self, selector => selector.needs_history())
    }

    fn largest_goal(&self, population: u64) -> u64 {
        with_selector!(self, selector => selector.largest_goal(population))
    }
}

/// Cohort and over-selection, for selectors of a fixed size.
mod size {
    use super::Selection;
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

        /// The same clients, of whom the cohort's reports complete the round.
        pub(super) fn cohort_of(&self, selection: Selection) -> Selection {
            let goal = self.goal(selection.clients.len() as u64);
            Selection { goal, ..selection }
        }
    }
}

#[cfg(test)]
mod eligible;
#[cfg(test)]
mod tests;
