//! How the noise of different rounds is related: independent, or DP-FTRL's.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::error::PrivacyError;
use crate::matrix::{
    BandedToeplitz, Blt, Factorization, Participation, TreeAggregation, TreeEstimator,
};
use crate::sampling::Sampler;

/// What is asked of the noise over the rounds.
///
/// A released model is a sum of rounds. Independent noise adds up in it; correlated noise is partly
/// taken back, so that for the same privacy against one who sees every model the last one has less
/// of it. It needs participations that are few or far apart, in place of secret sampling; see
/// [`matrix`](crate::matrix).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NoiseCorrelation {
    /// None: every round's noise is its own.
    #[default]
    Independent,
    /// By the nodes of binary trees, [`TreeAggregation`].
    Tree {
        /// Rounds of a tree; the power of two with the least [`Factorization::loss`] when not
        /// given.
        restart: Option<u64>,
        /// How prefix sums are made of nodes.
        estimator: TreeEstimator,
    },
    /// By a Toeplitz matrix with few bands, [`BandedToeplitz::optimized`].
    BandedToeplitz {
        /// Bands, each a model in memory; as many as participations are apart, at most
        /// [`Self::MOST_DEFAULT_BANDS`], when not given.
        bands: Option<u64>,
    },
    /// By a Toeplitz matrix of few geometric series, [`Blt::optimized`].
    Blt {
        /// Series, each a model in memory.
        buffers: u64,
    },
}

impl NoiseCorrelation {
    /// Bands are not more when their number is not given.
    pub const MOST_DEFAULT_BANDS: u64 = 32;
    /// Buffers that come close to the best matrix (McMahan et al. 2024, arXiv:2408.08868).
    pub const DEFAULT_BUFFERS: u64 = 4;

    /// The matrix that fits a run of this sampler; none for independent noise.
    ///
    /// # Errors
    /// [`PrivacyError::PrivateAggregation`] for a sampler that does not bound how often and how
    /// close together a member takes part; [`PrivacyError::CountOutOfRange`] for a restart, bands
    /// or buffers out of range.
    pub fn fitted(
        &self,
        sampler: &Sampler,
        rounds: u64,
    ) -> Result<Option<Correlation>, PrivacyError> {
        if *self == Self::Independent {
            return Ok(None);
        }
        let participation = sampler.participation(rounds)?;
        let factorization = match *self {
            Self::Independent => return Ok(None),
            Self::Tree { restart, estimator } => {
                Factorization::Tree(tree(restart, estimator, &participation)?)
            }
            Self::BandedToeplitz { bands } => {
                let apart = participation.min_separation().min(rounds);
                let bands = bands.unwrap_or(apart.min(Self::MOST_DEFAULT_BANDS));
                PrivacyError::unless_count(
                    (1..=rounds.min(BandedToeplitz::MOST_BANDS as u64)).contains(&bands),
                    "the number of bands",
                    bands,
                    "from 1 to the number of rounds, and at most 4096",
                )?;
                Factorization::Banded(BandedToeplitz::optimized(bands as usize, &participation)?)
            }
            Self::Blt { buffers } => {
                PrivacyError::unless_count(
                    (1..=Blt::MOST_BUFFERS as u64).contains(&buffers),
                    "the number of buffers",
                    buffers,
                    "1 to 16",
                )?;
                Factorization::Blt(Blt::optimized(buffers as usize, &participation)?)
            }
        };
        Ok(Some(Correlation {
            factorization,
            participation,
        }))
    }
}

fn tree(
    restart: Option<u64>,
    estimator: TreeEstimator,
    participation: &Participation,
) -> Result<TreeAggregation, PrivacyError> {
    if let Some(restart) = restart {
        return TreeAggregation::new(restart, estimator);
    }
    let mut best = TreeAggregation::new(1, estimator)?;
    let loss = |tree: TreeAggregation| Factorization::Tree(tree).loss(participation);
    let mut least = loss(best);
    for height in 1..=participation.steps().next_power_of_two().ilog2() {
        let tree = TreeAggregation::new(1 << height, estimator)?;
        let found = loss(tree);
        if found < least {
            (best, least) = (tree, found);
        }
    }
    Ok(best)
}

/// A matrix and the participations that it was fitted to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Correlation {
    /// How prefix sums are factorized.
    pub factorization: Factorization,
    /// Who may take part when.
    pub participation: Participation,
}

impl fmt::Display for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.factorization {
            Factorization::Tree(tree) => {
                write!(f, "binary trees of {} rounds", tree.restart())?;
            }
            Factorization::Banded(matrix) => {
                write!(
                    f,
                    "a Toeplitz matrix of {} bands",
                    matrix.coefficients().len()
                )?;
            }
            Factorization::Blt(matrix) => write!(f, "a BLT of {} buffers", matrix.buffers())?,
        }
        write!(
            f,
            ", for at most {} participations that are {} rounds or more apart",
            self.participation.max_participations(),
            self.participation.min_separation()
        )
    }
}
