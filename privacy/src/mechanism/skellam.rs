//! Skellam noise: the difference of two Poisson numbers (Skellam 1946). Agarwal, Kairouz and Liu
//! 2021 (arXiv:2110.04995) analyse it for distributed differential privacy: the sum of what many
//! clients add is again Skellam noise, of the summed variance, so nothing is lost in the sum.

use rand_core::Rng;

use super::IntegerNoise;
use super::dyadic::Dyadic;
use super::table::Table;
use crate::error::PrivacyError;
use crate::event::DpEvent;

/// The largest variance of one table.
const LARGEST_TABLE: f64 = (1u64 << 20) as f64;
/// The most tables' worth of noise in one draw.
const MOST_PARTS: u32 = 64;

/// Symmetric Skellam noise from a table, in a constant number of table steps. Beyond variance
/// `2^20` a draw is the sum of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Skellam {
    part: Dyadic,
    parts: u32,
    table: Table,
}

impl Skellam {
    /// The largest variance.
    pub const LARGEST_VARIANCE: f64 = LARGEST_TABLE * MOST_PARTS as f64;

    /// Noise of this variance, in squared units of the integers; it is rounded upwards to a
    /// fraction of at most 41 bits ([`IntegerNoise::variance`] gives what it became).
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the variance is from `2^-12` to
    /// [`Self::LARGEST_VARIANCE`].
    pub fn new(variance: f64) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            variance <= Self::LARGEST_VARIANCE,
            "the variance of Skellam noise",
            variance,
            "a number between 2^-12 and 2^26; scale the integers down",
        )?;
        let parts = libm::ceil(variance / LARGEST_TABLE).max(1.0);
        let part = Dyadic::at_least("the variance of Skellam noise", variance / parts)?;
        Ok(Self {
            part,
            parts: parts as u32,
            table: Table::skellam(part),
        })
    }

    /// Table steps of one draw; no draw takes more or fewer.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.table.steps() * self.parts
    }

    /// What the accountant is told when `contributors` add this noise to an integer vector with
    /// these sensitivities.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivities are finite and at least 0, and that
    /// in the Euclidean norm at most that in the 1-norm.
    pub fn event(
        &self,
        contributors: u64,
        l1_sensitivity: f64,
        l2_sensitivity: f64,
    ) -> Result<DpEvent, PrivacyError> {
        // Rounded downwards, as less noise is less privacy.
        let variance = self.variance() * contributors as f64 * (1.0 - 2.0 * f64::EPSILON);
        DpEvent::skellam(variance, l1_sensitivity, l2_sensitivity)
    }
}

impl IntegerNoise for Skellam {
    fn add(&self, rng: &mut dyn Rng, values: &mut [i64]) {
        for _ in 0..self.parts {
            self.table.add(rng, 1, values);
        }
    }

    fn variance(&self) -> f64 {
        self.part.value() * f64::from(self.parts)
    }

    fn distance(&self) -> f64 {
        self.table.distance() * f64::from(self.parts)
    }
}
