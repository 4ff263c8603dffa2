//! Correlated noise over the rounds: DP-FTRL without sampling.
//!
//! A training run releases prefix sums of updates. With `A` the lower-triangular matrix of ones
//! and a factorization `A = B C`, the server releases `B (C x + z)` for updates `x` and
//! independent noise `z`: the sums with noise `B z`. Privacy is that of one Gaussian mechanism on
//! `C x`, whose sensitivity depends on who may take part when ([`Participation`]); no sampling is
//! assumed, so none has to be kept secret (Kairouz et al. 2021, arXiv:2103.00039; Denisov et al.
//! 2022, arXiv:2202.08312).
//!
//! | factorization | memory in models | source |
//! |---|---|---|
//! | [`TreeAggregation`] | `log2 n + 1` | Kairouz et al. 2021; estimator of Honaker 2015 |
//! | [`BandedToeplitz`] | bands - 1 | Choquette-Choo et al. 2023, arXiv:2306.08153; Kalinin and Lampert 2024, arXiv:2405.13763 |
//! | [`Blt`] | buffers | Dvijotham et al. 2024, arXiv:2404.16706; McMahan et al. 2024, arXiv:2408.08868 |
//!
//! To a strategy all are alike: [`CorrelatedNoise::next`] gives what is to be added to a round's
//! sum of updates, in place of independent noise.
//!
//! ```
//! use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
//! use fl_privacy::matrix::{Blt, CorrelatedNoise, Factorization, Participation};
//! use fl_privacy::{NeighboringRelation, NoiseMultiplier};
//!
//! # fn main() -> Result<(), fl_privacy::PrivacyError> {
//! // 200 rounds, in which a client takes part at most four times, 50 rounds apart.
//! let participation = Participation::new(200, 50, 4)?;
//! let matrix = Factorization::Blt(Blt::optimized(3, &participation)?);
//! let multiplier = NoiseMultiplier::new(2.0)?;
//! // Told to the accountant once, for the whole run.
//! let event = matrix.event(multiplier, &participation, NeighboringRelation::ReplaceSpecial)?;
//!
//! let clipping_norm = 0.5;
//! let mut noise = CorrelatedNoise::new(matrix, multiplier.get() * clipping_norm, 1000)?;
//! let mut of_round = vec![0.0; 1000];
//! for round in 0..3 {
//!     let mut stream = Stream::at(Purpose::CentralNoise, Seed(1), RoundId(round), ClientId(0));
//!     noise.next(&mut stream, &mut of_round)?;
//!     // sum += of_round
//! }
//! # let _ = event;
//! # Ok(())
//! # }
//! ```

mod optimize;
mod toeplitz;
mod tree;

#[cfg(test)]
mod tests;

use rand_core::Rng;
use serde::{Deserialize, Serialize};

pub use toeplitz::{BandedToeplitz, Blt};
pub use tree::{TreeAggregation, TreeEstimator};

use crate::clip::changes;
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::mechanism::gaussian;
use crate::relation::NeighboringRelation;
use crate::units::NoiseMultiplier;

/// The most rounds that are planned at once.
const MOST_STEPS: u64 = 1 << 20;

/// Who may take part when: what the sensitivity depends on, to be enforced by whoever selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredParticipation", into = "StoredParticipation")]
pub struct Participation {
    steps: u64,
    min_separation: u64,
    max_participations: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredParticipation {
    steps: u64,
    min_separation: u64,
    max_participations: u64,
}

impl TryFrom<StoredParticipation> for Participation {
    type Error = PrivacyError;

    fn try_from(stored: StoredParticipation) -> Result<Self, PrivacyError> {
        Self::new(
            stored.steps,
            stored.min_separation,
            stored.max_participations,
        )
    }
}

impl From<Participation> for StoredParticipation {
    fn from(participation: Participation) -> Self {
        Self {
            steps: participation.steps,
            min_separation: participation.min_separation,
            max_participations: participation.max_participations,
        }
    }
}

impl Participation {
    /// A run of `steps` rounds in which a member takes part at most `max_participations` times,
    /// in rounds at least `min_separation` apart (1: any rounds).
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless all are at least 1 and there are at most `2^20`
    /// rounds.
    pub fn new(
        steps: u64,
        min_separation: u64,
        max_participations: u64,
    ) -> Result<Self, PrivacyError> {
        let checks = [
            ("the number of rounds", steps, "1 to 2^20"),
            (
                "the least separation of participations",
                min_separation,
                "at least 1",
            ),
            ("the most participations", max_participations, "at least 1"),
        ];
        for (what, value, expected) in checks {
            PrivacyError::unless_count(value > 0, what, value, expected)?;
        }
        PrivacyError::unless_count(steps <= MOST_STEPS, checks[0].0, steps, checks[0].2)?;
        // No more fit into the rounds.
        let fitting = steps.div_ceil(min_separation);
        Ok(Self {
            steps,
            min_separation,
            max_participations: max_participations.min(fitting),
        })
    }

    /// Taking part once.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn once(steps: u64) -> Result<Self, PrivacyError> {
        Self::new(steps, 1, 1)
    }

    /// The rounds.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The least distance of two participations.
    #[must_use]
    pub fn min_separation(&self) -> u64 {
        self.min_separation
    }

    /// The most participations, as many as fit.
    #[must_use]
    pub fn max_participations(&self) -> u64 {
        self.max_participations
    }
}

/// How noise is correlated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Factorization {
    /// Sums over the nodes of binary trees.
    Tree(TreeAggregation),
    /// A banded Toeplitz matrix.
    Banded(BandedToeplitz),
    /// A Toeplitz matrix whose coefficients are a sum of few geometric series.
    Blt(Blt),
}

impl Factorization {
    /// The sensitivity of `C x` when each participation changes one row of `x` by at most 1 in L2
    /// norm: the largest `|sum_i C[:, i] g_i|` over allowed rounds `i` and unit vectors `g_i`.
    /// Exact for Toeplitz matrices, an upper bound for trees.
    #[must_use]
    pub fn sensitivity(&self, participation: &Participation) -> f64 {
        match self {
            Self::Tree(tree) => tree.sensitivity(participation),
            Self::Banded(matrix) => matrix.sensitivity(participation),
            Self::Blt(matrix) => matrix.sensitivity(participation),
        }
    }

    /// The square of [`Self::sensitivity`] for the run that ends after each round of the
    /// participation, rounded upwards; ascending. `C` is lower triangular, so such a run uses its
    /// first rows and columns alone.
    #[must_use]
    pub fn squared_sensitivities(&self, participation: &Participation) -> Vec<f64> {
        match self {
            Self::Tree(tree) => tree.squared_sensitivities(participation),
            Self::Banded(matrix) => matrix.squared_sensitivities(participation),
            Self::Blt(matrix) => matrix.squared_sensitivities(participation),
        }
    }

    /// The standard deviation of the noise on the prefix sum after each of `steps` rounds, for
    /// noise `z` of standard deviation 1: the row norms of `B`.
    #[must_use]
    pub fn errors(&self, steps: u64) -> Vec<f64> {
        match self {
            Self::Tree(tree) => tree.errors(steps),
            Self::Banded(matrix) => matrix.errors(steps),
            Self::Blt(matrix) => matrix.errors(steps),
        }
    }

    /// The largest error of a prefix sum per unit of privacy: the standard deviation of the noise
    /// that noise multiplier 1 *of the whole run* gives, in clipping norms. Less is better.
    #[must_use]
    pub fn loss(&self, participation: &Participation) -> f64 {
        let most = self
            .errors(participation.steps)
            .into_iter()
            .fold(0.0, f64::max);
        most * self.sensitivity(participation)
    }

    /// What the accountant is told of the whole run, for noise `z` of standard deviation
    /// `noise_multiplier` times the clipping norm. Clipped updates count once for each of the
    /// contributions that differ between neighbours.
    ///
    /// # Errors
    /// [`PrivacyError`] for a sensitivity that is not finite.
    pub fn event(
        &self,
        noise_multiplier: NoiseMultiplier,
        participation: &Participation,
        relation: NeighboringRelation,
    ) -> Result<DpEvent, PrivacyError> {
        let sensitivity = changes(relation) * self.sensitivity(participation);
        DpEvent::matrix_factorization(noise_multiplier, sensitivity)
    }

    /// The rounded-up memory of the noise, in vectors of the model's length.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Tree(tree) => tree.most_rows(),
            Self::Banded(matrix) => matrix.coefficients().len() - 1,
            Self::Blt(matrix) => matrix.buffers(),
        }
    }
}

/// A vector, serialised bit by bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row(#[serde(with = "fl_core::bits")] Vec<f32>);

/// A source of correlated noise in the middle of a run: its state is part of a checkpoint.
///
/// The noise of a later round cannot be drawn without the state, and the state tells the noise of
/// earlier rounds: in production it is as secret as a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredNoise", into = "StoredNoise")]
pub struct CorrelatedNoise {
    factorization: Factorization,
    /// The standard deviation of `z`.
    std: f64,
    len: usize,
    step: u64,
    /// What the factorization keeps.
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNoise {
    factorization: Factorization,
    std: f64,
    len: usize,
    step: u64,
    rows: Vec<Row>,
}

impl TryFrom<StoredNoise> for CorrelatedNoise {
    type Error = PrivacyError;

    fn try_from(stored: StoredNoise) -> Result<Self, PrivacyError> {
        let StoredNoise {
            factorization,
            std,
            len,
            step,
            rows,
        } = stored;
        let start = Self::new(factorization, std, len)?;
        let expected = match &start.factorization {
            Factorization::Tree(tree) => tree.rows_at(step),
            Factorization::Banded(_) | Factorization::Blt(_) => start.rows.len(),
        };
        for row in &rows {
            check_length("a row of correlated noise", row.0.len(), len)?;
        }
        check_length("the state of correlated noise", rows.len(), expected)?;
        Ok(Self {
            step,
            rows,
            ..start
        })
    }
}

impl From<CorrelatedNoise> for StoredNoise {
    fn from(noise: CorrelatedNoise) -> Self {
        let CorrelatedNoise {
            factorization,
            std,
            len,
            step,
            rows,
        } = noise;
        Self {
            factorization,
            std,
            len,
            step,
            rows,
        }
    }
}

impl CorrelatedNoise {
    /// The noise of a run on sums of length `len`, before its first round; `std` is the standard
    /// deviation of `z`, noise multiplier times clipping norm.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `std` is finite and at least 0.
    pub fn new(factorization: Factorization, std: f64, len: usize) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            std.is_finite() && std >= 0.0,
            "the standard deviation of correlated noise",
            std,
            "a finite number that is at least 0",
        )?;
        let rows = match &factorization {
            Factorization::Tree(_) => 0,
            Factorization::Banded(_) | Factorization::Blt(_) => factorization.rows(),
        };
        let rows = vec![Row(vec![0.0; len]); rows];
        Ok(Self {
            factorization,
            std,
            len,
            step: 0,
            rows,
        })
    }

    /// Rounds that have their noise.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Writes the noise of the next round to `out`: what is to be added to that round's sum. The
    /// sum of the noise of all rounds so far is the noise `B z` on the prefix sum.
    ///
    /// # Errors
    /// [`PrivacyError::WrongLength`] when `out` has another length than the sums.
    pub fn next<R: Rng + ?Sized>(
        &mut self,
        rng: &mut R,
        out: &mut [f32],
    ) -> Result<(), PrivacyError> {
        check_length("a sum", out.len(), self.len)?;
        self.advance(rng, out);
        Ok(())
    }

    /// The same for an `out` of the right length.
    pub(crate) fn advance<R: Rng + ?Sized>(&mut self, rng: &mut R, out: &mut [f32]) {
        let std = self.std;
        self.next_with(&mut |fresh| gaussian::fill(rng, std, fresh), out);
    }

    /// The same with any source of independent noise.
    fn next_with(&mut self, fresh: &mut dyn FnMut(&mut [f32]), out: &mut [f32]) {
        match &self.factorization {
            Factorization::Tree(tree) => tree.next(self.step, &mut self.rows, fresh, out),
            Factorization::Banded(matrix) => matrix.next(&mut self.rows, fresh, out),
            Factorization::Blt(matrix) => matrix.next(&mut self.rows, fresh, out),
        }
        self.step += 1;
    }
}

fn check_length(what: &'static str, len: usize, expected: usize) -> Result<(), PrivacyError> {
    if len == expected {
        Ok(())
    } else {
        Err(PrivacyError::WrongLength {
            what,
            len,
            expected,
        })
    }
}

/// `out -= factor * row`
fn subtract(out: &mut [f32], factor: f64, row: &[f32]) {
    let factor = factor as f32;
    for (out, value) in out.iter_mut().zip(row) {
        *out -= factor * value;
    }
}
