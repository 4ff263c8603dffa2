//! What comes out of a session.

use crate::error::{BadShare, SessionError};
use crate::params::Params;
use crate::ring::{EXTRA, Ring, Words};

/// The sum of the survivors' inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    ring: Ring,
    elements: Vec<u64>,
    survivors: Vec<u32>,
    weight: u64,
    clipped: u64,
    bad_shares: Vec<BadShare>,
}

impl Aggregate {
    /// The sum without masks, whose last coordinates are those that the protocol added.
    pub(crate) fn open(
        params: &Params,
        sum: &Words,
        survivors: Vec<u32>,
        bad_shares: Vec<BadShare>,
    ) -> Result<Self, SessionError> {
        let ring = params.ring();
        let mut elements = sum.elements(ring);
        let extra = elements.split_off(params.length());
        let [weight, clipped, counted] = <[u64; EXTRA]>::try_from(extra).unwrap_or_default();
        if counted != survivors.len() as u64 {
            return Err(SessionError::Inconsistent {
                counted,
                survivors: survivors.len(),
            });
        }
        Ok(Self {
            ring,
            elements,
            survivors,
            weight,
            clipped,
            bad_shares,
        })
    }

    /// The sum as elements of the ring, reduced.
    #[must_use]
    pub fn elements(&self) -> &[u64] {
        &self.elements
    }

    /// The sum as integers from `-2^(b-1)` to `2^(b-1) - 1`; exact in a bounded ring.
    pub fn integers(&self) -> impl Iterator<Item = i64> + '_ {
        let shift = 64 - self.ring.bits();
        self.elements
            .iter()
            .map(move |&element| (element << shift).cast_signed() >> shift)
    }

    /// Whose inputs are in it, ascending.
    #[must_use]
    pub fn survivors(&self) -> &[u32] {
        &self.survivors
    }

    /// The sum of their weights.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The sum of their counts of clipped coordinates, each at most [`Ring::max_clipped`].
    #[must_use]
    pub fn clipped(&self) -> u64 {
        self.clipped
    }

    /// Shares that did not fit, where some were noticed.
    #[must_use]
    pub fn bad_shares(&self) -> &[BadShare] {
        &self.bad_shares
    }
}
