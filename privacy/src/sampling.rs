//! Who takes part, and the event that this earns.
//!
//! A [`Sampler`] draws the participants *and* states the [`DpEvent`] of the round, so that what is
//! accounted is what is run; there is no free-standing sampling rate. What a sampler does not
//! randomise secretly earns nothing: a shuffled order of batches is accounted as if it were known
//! (Chua et al. 2024, arXiv:2403.17673; Lebeda et al. 2024, arXiv:2405.20769). Against whoever
//! sees the participants, such as the server of a federated round, no sampler amplifies:
//! [`Sampler::unamplified_event`] is what that observer's guarantee follows from.
//!
//! Members are numbered from 0; a draw is ascending and without repeats. Sums are to be divided by
//! the public [`Sampler::expected_size`], never by the number drawn, which may be 0: such a round
//! still adds its noise and takes its step.

use std::collections::{BTreeSet, VecDeque};

use fl_core::{RoundId, Stream};
use serde::{Deserialize, Serialize};

use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::matrix::Participation;
use crate::relation::NeighboringRelation;

/// How the participants of a round are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    tag = "sampler",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
#[non_exhaustive]
pub enum Sampler {
    /// Everybody, every round.
    #[non_exhaustive]
    Everyone {
        /// Members in all.
        population: u64,
    },
    /// Each member independently with the same probability.
    #[non_exhaustive]
    Poisson {
        /// Members in all.
        population: u64,
        /// The probability.
        sampling_rate: f64,
    },
    /// As Poisson; of a draw larger than the limit a uniformly drawn subset of that size is kept.
    #[non_exhaustive]
    TruncatedPoisson {
        /// Members in all.
        population: u64,
        /// The probability.
        sampling_rate: f64,
        /// Most participants.
        sample_limit: u64,
    },
    /// A uniformly drawn subset of fixed size.
    #[non_exhaustive]
    FixedSize {
        /// Members in all.
        population: u64,
        /// Participants.
        sample: u64,
    },
    /// The members are split by their number into groups that take turns; in its round each
    /// member of the group takes part with the same probability (Choquette-Choo et al. 2023,
    /// arXiv:2306.08153).
    #[non_exhaustive]
    CyclicPoisson {
        /// Members in all.
        population: u64,
        /// Groups, and rounds between two turns of a group.
        period: u64,
        /// The probability within the group.
        sampling_rate: f64,
    },
    /// A uniformly drawn subset of those who have not taken part in the last rounds. Its order is
    /// not accounted as secret: it bounds the number of participations, for correlated noise.
    #[non_exhaustive]
    Separated {
        /// Members in all.
        population: u64,
        /// Participants.
        sample: u64,
        /// Rounds from one participation to the next, at least.
        separation: u64,
    },
    /// Batches of a random order that is drawn anew for each pass over the members; the last
    /// batch of a pass may be smaller. Earns no amplification.
    #[non_exhaustive]
    Shuffled {
        /// Members in all.
        population: u64,
        /// Participants.
        batch: u64,
    },
}

impl Sampler {
    /// Everybody, every round.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] for an empty population, here as in all constructors.
    pub fn everyone(population: u64) -> Result<Self, PrivacyError> {
        Self::Everyone { population }.checked()
    }

    /// Independent draws with this probability.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the rate is above 0 and at most 1.
    pub fn poisson(population: u64, sampling_rate: f64) -> Result<Self, PrivacyError> {
        Self::Poisson {
            population,
            sampling_rate,
        }
        .checked()
    }

    /// Independent draws, cut to a size.
    ///
    /// # Errors
    /// As for [`Self::poisson`], and for a limit of 0.
    pub fn truncated_poisson(
        population: u64,
        sampling_rate: f64,
        sample_limit: u64,
    ) -> Result<Self, PrivacyError> {
        Self::TruncatedPoisson {
            population,
            sampling_rate,
            sample_limit,
        }
        .checked()
    }

    /// A subset of fixed size.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless the sample is from 1 to the population.
    pub fn fixed_size(population: u64, sample: u64) -> Result<Self, PrivacyError> {
        Self::FixedSize { population, sample }.checked()
    }

    /// Groups that take turns.
    ///
    /// # Errors
    /// [`PrivacyError`] unless the period is from 1 to the population and the rate above 0 and at
    /// most 1.
    pub fn cyclic_poisson(
        population: u64,
        period: u64,
        sampling_rate: f64,
    ) -> Result<Self, PrivacyError> {
        Self::CyclicPoisson {
            population,
            period,
            sampling_rate,
        }
        .checked()
    }

    /// A subset of fixed size of those who rested long enough.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless `sample * separation` is from 1 to the population,
    /// so that every round finds enough members.
    pub fn separated(population: u64, sample: u64, separation: u64) -> Result<Self, PrivacyError> {
        Self::Separated {
            population,
            sample,
            separation,
        }
        .checked()
    }

    /// Batches of a random order.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless the batch is from 1 to the population.
    pub fn shuffled(population: u64, batch: u64) -> Result<Self, PrivacyError> {
        Self::Shuffled { population, batch }.checked()
    }

    fn checked(self) -> Result<Self, PrivacyError> {
        let some = |what, value: u64| {
            PrivacyError::unless_count(value > 0, what, value, "a count of at least 1")
        };
        let within = |what, value: u64, most: u64| {
            PrivacyError::unless_count(
                (1..=most).contains(&value),
                what,
                value,
                "from 1 to the population",
            )
        };
        let rate = |value: f64| {
            PrivacyError::unless(
                value > 0.0 && value <= 1.0,
                "sampling_rate",
                value,
                "above 0 and at most 1",
            )
        };
        some("population", self.population())?;
        match self {
            Self::Everyone { .. } => {}
            Self::Poisson { sampling_rate, .. } => rate(sampling_rate)?,
            Self::TruncatedPoisson {
                sampling_rate,
                sample_limit,
                ..
            } => {
                rate(sampling_rate)?;
                some("sample_limit", sample_limit)?;
            }
            Self::FixedSize { population, sample } => within("sample", sample, population)?,
            Self::CyclicPoisson {
                population,
                period,
                sampling_rate,
            } => {
                rate(sampling_rate)?;
                within("period", period, population)?;
            }
            Self::Separated {
                population,
                sample,
                separation,
            } => {
                some("separation", separation)?;
                within(
                    "sample * separation",
                    sample.saturating_mul(separation),
                    population,
                )?;
            }
            Self::Shuffled { population, batch } => within("batch", batch, population)?,
        }
        Ok(self)
    }

    /// Its name, as serialised.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Everyone { .. } => "everyone",
            Self::Poisson { .. } => "poisson",
            Self::TruncatedPoisson { .. } => "truncated-poisson",
            Self::FixedSize { .. } => "fixed-size",
            Self::CyclicPoisson { .. } => "cyclic-poisson",
            Self::Separated { .. } => "separated",
            Self::Shuffled { .. } => "shuffled",
        }
    }

    /// Members in all.
    #[must_use]
    pub fn population(&self) -> u64 {
        match *self {
            Self::Everyone { population }
            | Self::Poisson { population, .. }
            | Self::TruncatedPoisson { population, .. }
            | Self::FixedSize { population, .. }
            | Self::CyclicPoisson { population, .. }
            | Self::Separated { population, .. }
            | Self::Shuffled { population, .. } => population,
        }
    }

    /// The public number to divide a round's sum by: the expected number of participants where
    /// that is random (for truncated draws: before they are cut), the number itself where not.
    #[must_use]
    pub fn expected_size(&self) -> f64 {
        match *self {
            Self::Everyone { population } => population as f64,
            Self::Poisson {
                population,
                sampling_rate,
            }
            | Self::TruncatedPoisson {
                population,
                sampling_rate,
                ..
            } => population as f64 * sampling_rate,
            Self::FixedSize { sample, .. } | Self::Separated { sample, .. } => sample as f64,
            Self::CyclicPoisson {
                population,
                period,
                sampling_rate,
            } => population as f64 / period as f64 * sampling_rate,
            Self::Shuffled { batch, .. } => batch as f64,
        }
    }

    /// The event of a round in which `inner` is released about the participants, numbered from 0.
    /// Composed over rounds 0, 1, .. it bounds what any member loses.
    ///
    /// Where a member takes part in at most every `k`th round, the rounds `0, k, 2k, ..` carry the
    /// event and the others are [`DpEvent::NoOp`]; that is the worst member's case.
    ///
    /// # Errors
    /// [`PrivacyError::SamplerRelation`] under a relation that the sampler has no guarantee for;
    /// [`PrivacyError::Unsupported`] for truncated Poisson sampling of anything but one
    /// [`DpEvent::Gaussian`]; those of the events' constructors.
    pub fn round_event(
        &self,
        round: u64,
        inner: &DpEvent,
        relation: NeighboringRelation,
    ) -> Result<DpEvent, PrivacyError> {
        self.fits(relation)?;
        Ok(match *self {
            Self::Poisson { sampling_rate, .. } => {
                DpEvent::poisson_sampled(sampling_rate, inner.clone())?
            }
            Self::TruncatedPoisson {
                population,
                sampling_rate,
                sample_limit,
            } => match inner {
                DpEvent::Gaussian { noise_multiplier } => DpEvent::truncated_poisson(
                    population,
                    sampling_rate,
                    sample_limit,
                    *noise_multiplier,
                )?,
                _ => {
                    return Err(PrivacyError::Unsupported {
                        accountant: "any",
                        event: format!("truncated-poisson of {}", inner.path()),
                        relation,
                        instead: "truncated Poisson sampling is understood for one Gaussian \
                                  release only",
                    });
                }
            },
            Self::FixedSize { population, sample } => {
                DpEvent::sampled_without_replacement(population, sample, inner.clone())?
            }
            Self::CyclicPoisson {
                period,
                sampling_rate,
                ..
            } if round.is_multiple_of(period) => {
                DpEvent::poisson_sampled(sampling_rate, inner.clone())?
            }
            _ if round.is_multiple_of(self.every()) => inner.clone(),
            _ => DpEvent::NoOp,
        })
    }

    /// The event of the round for an observer who sees who takes part.
    ///
    /// # Errors
    /// [`PrivacyError::SamplerRelation`] as for [`Self::round_event`].
    pub fn unamplified_event(
        &self,
        round: u64,
        inner: &DpEvent,
        relation: NeighboringRelation,
    ) -> Result<DpEvent, PrivacyError> {
        self.fits(relation)?;
        Ok(if round.is_multiple_of(self.every()) {
            inner.clone()
        } else {
            DpEvent::NoOp
        })
    }

    /// How often, and how close together, a member can take part in `rounds` rounds: what
    /// correlated noise is accounted by.
    ///
    /// # Errors
    /// [`PrivacyError::PrivateAggregation`] for samplers that do not bound it below all rounds;
    /// [`PrivacyError::CountOutOfRange`] for 0 rounds or too many.
    pub fn participation(&self, rounds: u64) -> Result<Participation, PrivacyError> {
        match *self {
            Self::Everyone { .. } => Participation::new(rounds, 1, rounds),
            Self::CyclicPoisson { period, .. } => Participation::new(rounds, period, rounds),
            Self::Separated { separation, .. } => Participation::new(rounds, separation, rounds),
            // From one pass to the next the order is new: the last round of one and the first of
            // the next can be the same member's.
            Self::Shuffled { .. } => Participation::new(rounds, 1, rounds.div_ceil(self.every())),
            Self::Poisson { .. } | Self::TruncatedPoisson { .. } | Self::FixedSize { .. } => {
                Err(PrivacyError::PrivateAggregation {
                    what: "correlated noise with participants that are drawn anew in every round",
                    reason: "nothing bounds how often and how close together one of them takes part",
                    instead: "use cyclic or separated selection, or independent noise",
                })
            }
        }
    }

    /// A member takes part at most once in so many rounds.
    pub(crate) fn every(&self) -> u64 {
        match *self {
            Self::CyclicPoisson { period, .. } => period,
            Self::Separated { separation, .. } => separation,
            // From one pass to the next the order is new, so only whole passes count; the smaller
            // last batch belongs to its pass.
            Self::Shuffled { population, batch } => population.div_ceil(batch),
            _ => 1,
        }
    }

    pub(crate) fn fits(&self, relation: NeighboringRelation) -> Result<(), PrivacyError> {
        let refuse = |instead| {
            Err(PrivacyError::SamplerRelation {
                sampler: self.name(),
                relation,
                instead,
            })
        };
        match (self, relation) {
            (Self::FixedSize { .. }, NeighboringRelation::ReplaceOne)
            | (Self::Everyone { .. } | Self::Poisson { .. } | Self::CyclicPoisson { .. }, _) => {
                Ok(())
            }
            (Self::FixedSize { .. }, _) => {
                refuse("a sample of fixed size keeps its size: use `replace-one`")
            }
            (Self::TruncatedPoisson { .. }, NeighboringRelation::ReplaceOne) => {
                refuse("use `add-or-remove-one` or `replace-special`")
            }
            (Self::TruncatedPoisson { .. }, _) => Ok(()),
            (
                Self::Separated { .. } | Self::Shuffled { .. },
                NeighboringRelation::AddOrRemoveOne,
            ) => refuse(
                "one member more changes who else takes part: use `replace-one` or \
                     `replace-special`",
            ),
            (Self::Separated { .. } | Self::Shuffled { .. }, _) => Ok(()),
        }
    }
}

impl Serialize for Sampler {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Sampler {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)?
            .checked()
            .map_err(serde::de::Error::custom)
    }
}

/// Draws the participants of rounds `0, 1, ..` in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draws {
    sampler: Sampler,
    round: u64,
    /// For separated sampling: the participants of the last rounds, oldest first.
    resting: VecDeque<Vec<u64>>,
}

impl Draws {
    /// Before the first round.
    #[must_use]
    pub fn new(sampler: Sampler) -> Self {
        Self {
            sampler,
            round: 0,
            resting: VecDeque::new(),
        }
    }

    /// The sampler.
    #[must_use]
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The round that is drawn next.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The participants of the next round, ascending.
    ///
    /// `stream` gives the stream of a round, always the same one for the same round; shuffled
    /// batches take that of the first round of their pass. The work grows with the number of
    /// participants, for shuffled batches with the population.
    pub fn draw(&mut self, stream: impl Fn(RoundId) -> Stream) -> Vec<u64> {
        let round = self.round;
        self.round += 1;
        let mut own = stream(RoundId(round));
        match self.sampler {
            Sampler::Everyone { population } => (0..population).collect(),
            Sampler::Poisson {
                population,
                sampling_rate,
            } => independent(population, sampling_rate, &mut own),
            Sampler::TruncatedPoisson {
                population,
                sampling_rate,
                sample_limit,
            } => {
                let drawn = independent(population, sampling_rate, &mut own);
                if drawn.len() as u64 <= sample_limit {
                    return drawn;
                }
                let kept = subset(drawn.len() as u64, sample_limit, &mut own);
                kept.into_iter()
                    .filter_map(|index| drawn.get(usize::try_from(index).ok()?).copied())
                    .collect()
            }
            Sampler::FixedSize { population, sample } => {
                subset(population, sample, &mut own).into_iter().collect()
            }
            Sampler::CyclicPoisson {
                population,
                period,
                sampling_rate,
            } => {
                let group = round % period;
                let size = (population - group).div_ceil(period);
                independent(size, sampling_rate, &mut own)
                    .into_iter()
                    .map(|index| group + index * period)
                    .collect()
            }
            Sampler::Separated {
                population,
                sample,
                separation,
            } => {
                let resting: BTreeSet<u64> = self.resting.iter().flatten().copied().collect();
                let awake = population - resting.len() as u64;
                let drawn = skip(&subset(awake, sample, &mut own), &resting);
                self.resting.push_back(drawn.clone());
                if self.resting.len() as u64 >= separation {
                    self.resting.pop_front();
                }
                drawn
            }
            Sampler::Shuffled { population, batch } => {
                let batches = population.div_ceil(batch);
                let within = round % batches;
                let mut order: Vec<u64> = (0..population).collect();
                stream(RoundId(round - within)).shuffle(&mut order);
                let mut drawn: Vec<u64> = order
                    .into_iter()
                    .skip(usize::try_from(within * batch).unwrap_or(usize::MAX))
                    .take(usize::try_from(batch).unwrap_or(usize::MAX))
                    .collect();
                drawn.sort_unstable();
                drawn
            }
        }
    }
}

/// Each of `0 .. population` independently, by the geometric gaps between those drawn.
fn independent(population: u64, rate: f64, stream: &mut Stream) -> Vec<u64> {
    if rate >= 1.0 {
        return (0..population).collect();
    }
    let per_gap = 1.0 / libm::log1p(-rate);
    let mut drawn = Vec::new();
    let mut next = 0_u64;
    loop {
        // 1 - u is in (0, 1]; the number of failures before the next success.
        let gap = libm::floor(libm::log(1.0 - stream.uniform()) * per_gap);
        if gap >= (population - next) as f64 {
            return drawn;
        }
        next += gap as u64;
        if next >= population {
            return drawn;
        }
        drawn.push(next);
        next += 1;
    }
}

/// A uniformly drawn subset of `0 .. population` (Floyd's algorithm; Bentley and Floyd 1987).
fn subset(population: u64, size: u64, stream: &mut Stream) -> BTreeSet<u64> {
    let mut chosen = BTreeSet::new();
    for last in population - size..population {
        let candidate = stream.below(last + 1);
        if !chosen.insert(candidate) {
            chosen.insert(last);
        }
    }
    chosen
}

/// The members with these numbers among those that are not resting.
fn skip(chosen: &BTreeSet<u64>, resting: &BTreeSet<u64>) -> Vec<u64> {
    let mut resting = resting.iter().peekable();
    let mut passed = 0;
    chosen
        .iter()
        .map(|&index| {
            while resting
                .next_if(|&&member| member <= index + passed)
                .is_some()
            {
                passed += 1;
            }
            index + passed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use fl_core::{ClientId, Purpose, Seed};

    use super::*;
    use crate::accountant::{AccountantKind, accountant};
    use crate::units::{Delta, NoiseMultiplier};

    fn stream(seed: u64) -> impl Fn(RoundId) -> Stream {
        move |round| Stream::at(Purpose::Testing, Seed(seed), round, ClientId(0))
    }

    fn all() -> Vec<Sampler> {
        vec![
            Sampler::everyone(20).unwrap(),
            Sampler::poisson(1000, 0.05).unwrap(),
            Sampler::poisson(10, 1.0).unwrap(),
            Sampler::truncated_poisson(1000, 0.05, 40).unwrap(),
            Sampler::fixed_size(1000, 50).unwrap(),
            Sampler::fixed_size(7, 7).unwrap(),
            Sampler::cyclic_poisson(1003, 10, 0.5).unwrap(),
            Sampler::separated(100, 20, 5).unwrap(),
            Sampler::separated(100, 7, 3).unwrap(),
            Sampler::shuffled(103, 10).unwrap(),
        ]
    }

    #[test]
    fn draws_are_ascending_members_and_return_from_their_text() {
        for sampler in all() {
            let text = serde_json::to_string(&sampler).unwrap();
            assert!(text.contains(sampler.name()), "{text}");
            assert_eq!(serde_json::from_str::<Sampler>(&text).unwrap(), sampler);
            let mut draws = Draws::new(sampler.clone());
            for round in 0..60 {
                assert_eq!(draws.round(), round);
                let text = serde_json::to_string(&draws).unwrap();
                let mut again: Draws = serde_json::from_str(&text).unwrap();
                let drawn = draws.draw(stream(1));
                assert_eq!(again.draw(stream(1)), drawn);
                assert_eq!(again, draws);
                assert!(drawn.is_sorted_by(|a, b| a < b), "{sampler:?}: {drawn:?}");
                assert!(drawn.iter().all(|&member| member < sampler.population()));
            }
        }
    }

    /// Every member, and every pair where that is claimed, as often as expected: within five
    /// standard deviations.
    #[test]
    fn members_are_drawn_as_often_as_stated() {
        let cases = [
            (Sampler::poisson(30, 0.2).unwrap(), 0.2, 0.04),
            (Sampler::poisson(30, 0.97).unwrap(), 0.97, 0.97 * 0.97),
            (Sampler::fixed_size(30, 6).unwrap(), 0.2, 0.2 * 5.0 / 29.0),
            (
                Sampler::fixed_size(30, 29).unwrap(),
                29.0 / 30.0,
                28.0 / 30.0,
            ),
            (Sampler::shuffled(30, 6).unwrap(), 0.2, 0.2 * 5.0 / 29.0),
        ];
        for (sampler, single, pair) in cases {
            let rounds = 40_000;
            let mut draws = Draws::new(sampler.clone());
            let (mut singles, mut pairs) = ([0_u32; 30], 0_u32);
            for _ in 0..rounds {
                let drawn = draws.draw(stream(7));
                for &member in &drawn {
                    singles[member as usize] += 1;
                }
                pairs += u32::from(drawn.contains(&3) && drawn.contains(&17));
            }
            let near = |count: u32, share: f64| {
                let n = f64::from(rounds);
                let spread = (n * share * (1.0 - share)).sqrt();
                (f64::from(count) - n * share).abs() <= 5.0 * spread + 1e-9
            };
            assert!(
                singles.iter().all(|&count| near(count, single)),
                "{sampler:?} {singles:?}"
            );
            assert!(near(pairs, pair), "{sampler:?} {pairs}");
        }
    }

    #[test]
    fn limits_turns_and_rests_are_kept() {
        let mut draws = Draws::new(Sampler::truncated_poisson(1000, 0.05, 40).unwrap());
        let sizes: Vec<usize> = (0..200).map(|_| draws.draw(stream(2)).len()).collect();
        assert_eq!(sizes.iter().max(), Some(&40));
        assert!(sizes.iter().any(|&size| size < 40));

        let mut draws = Draws::new(Sampler::cyclic_poisson(23, 5, 1.0).unwrap());
        let mut seen = Vec::new();
        for round in 0..5 {
            let drawn = draws.draw(stream(3));
            assert!(drawn.iter().all(|member| member % 5 == round));
            seen.extend(drawn);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..23).collect::<Vec<_>>());

        for (population, sample, separation) in [(100, 20, 5), (100, 7, 3), (9, 1, 9), (5, 2, 1)] {
            let sampler = Sampler::separated(population, sample, separation).unwrap();
            let mut draws = Draws::new(sampler);
            let mut last = vec![None; population as usize];
            for round in 0..200_u64 {
                let drawn = draws.draw(stream(4));
                assert_eq!(drawn.len() as u64, sample);
                for member in drawn {
                    let before: Option<u64> = last[member as usize].replace(round);
                    assert!(before.is_none_or(|before| round - before >= separation));
                }
            }
        }

        let mut draws = Draws::new(Sampler::shuffled(23, 5).unwrap());
        for _ in 0..3 {
            let mut pass: Vec<u64> = (0..5).flat_map(|_| draws.draw(stream(5))).collect();
            pass.sort_unstable();
            assert_eq!(pass, (0..23).collect::<Vec<_>>());
        }
    }

    /// The rounds' events against a count by hand of what the worst member takes part in.
    #[test]
    fn events_are_those_of_the_worst_member() {
        let inner = DpEvent::gaussian(NoiseMultiplier::new(5.0).unwrap());
        let replace = NeighboringRelation::ReplaceOne;
        let cases = [
            (Sampler::everyone(100).unwrap(), 12),
            (Sampler::cyclic_poisson(100, 5, 1.0).unwrap(), 3),
            (Sampler::separated(100, 10, 4).unwrap(), 3),
            // Three batches a pass, four passes begun.
            (Sampler::shuffled(100, 34).unwrap(), 4),
        ];
        for (sampler, participations) in cases {
            for unamplified in [false, true] {
                let mut sum = accountant(AccountantKind::Gaussian, replace);
                for round in 0..12 {
                    let event = if unamplified {
                        sampler.unamplified_event(round, &inner, replace)
                    } else {
                        sampler.round_event(round, &inner, replace)
                    };
                    sum.compose(&event.unwrap(), 1).unwrap();
                }
                let mut expected = accountant(AccountantKind::Gaussian, replace);
                expected.compose(&inner, participations).unwrap();
                let delta = Delta::new(1e-6).unwrap();
                let (found, expected) = (sum.epsilon(delta), expected.epsilon(delta));
                let (found, expected) = (found.unwrap().upper.get(), expected.unwrap().upper.get());
                assert!(
                    (found / expected - 1.0).abs() < 1e-9,
                    "{sampler:?}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn what_earns_nothing_or_has_no_proof_is_not_credited() {
        use NeighboringRelation::{AddOrRemoveOne, ReplaceOne, ReplaceSpecial};
        let gaussian = DpEvent::gaussian(NoiseMultiplier::new(1.0).unwrap());
        let laplace = DpEvent::laplace(NoiseMultiplier::new(1.0).unwrap());
        let shuffled = Sampler::shuffled(100, 10).unwrap();
        assert_eq!(
            shuffled.round_event(0, &gaussian, ReplaceOne).unwrap(),
            gaussian
        );
        let poisson = Sampler::poisson(100, 0.1).unwrap();
        assert_eq!(
            poisson.round_event(3, &gaussian, AddOrRemoveOne).unwrap(),
            DpEvent::poisson_sampled(0.1, gaussian.clone()).unwrap()
        );
        assert_eq!(
            poisson
                .unamplified_event(3, &gaussian, AddOrRemoveOne)
                .unwrap(),
            gaussian
        );
        let refused = [
            (shuffled, AddOrRemoveOne, &gaussian),
            (
                Sampler::separated(100, 10, 2).unwrap(),
                AddOrRemoveOne,
                &gaussian,
            ),
            (
                Sampler::fixed_size(100, 10).unwrap(),
                AddOrRemoveOne,
                &gaussian,
            ),
            (
                Sampler::fixed_size(100, 10).unwrap(),
                ReplaceSpecial,
                &gaussian,
            ),
            (
                Sampler::truncated_poisson(100, 0.1, 10).unwrap(),
                ReplaceOne,
                &gaussian,
            ),
            (
                Sampler::truncated_poisson(100, 0.1, 10).unwrap(),
                AddOrRemoveOne,
                &laplace,
            ),
        ];
        for (sampler, relation, inner) in refused {
            assert!(
                sampler.round_event(0, inner, relation).is_err(),
                "{sampler:?}"
            );
        }
        let error = Sampler::shuffled(100, 10)
            .unwrap()
            .round_event(0, &gaussian, AddOrRemoveOne)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "shuffled sampling cannot be accounted for under the relation `add-or-remove-one`; \
             one member more changes who else takes part: use `replace-one` or `replace-special`"
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused_at_both_doors() {
        let refused = [
            Sampler::everyone(0),
            Sampler::poisson(10, 0.0),
            Sampler::poisson(10, f64::NAN),
            Sampler::poisson(10, 1.1),
            Sampler::truncated_poisson(10, 0.5, 0),
            Sampler::fixed_size(10, 0),
            Sampler::fixed_size(10, 11),
            Sampler::cyclic_poisson(10, 11, 0.5),
            Sampler::separated(10, 5, 3),
            Sampler::separated(10, 5, 0),
            Sampler::shuffled(10, 0),
        ];
        for made in refused {
            assert!(made.is_err(), "{made:?}");
        }
        let text = r#"{"sampler":"poisson","population":10,"sampling_rate":2}"#;
        assert!(serde_json::from_str::<Sampler>(text).is_err());
        for (sampler, size) in [
            (Sampler::poisson(100, 0.25).unwrap(), 25.0),
            (Sampler::fixed_size(100, 7).unwrap(), 7.0),
            (Sampler::cyclic_poisson(100, 4, 0.5).unwrap(), 12.5),
            (Sampler::shuffled(100, 30).unwrap(), 30.0),
        ] {
            assert!((sampler.expected_size() - size).abs() < 1e-12);
        }
    }
}
