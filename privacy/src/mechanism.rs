//! Mechanisms: where noise comes from.
//!
//! | mechanism | numbers | for |
//! |---|---|---|
//! | [`Gaussian`], [`Laplace`] | `f32`, in bulk | simulation |
//! | [`DiscreteGaussian`] | integers, from tables | production, and simulating it |
//! | [`Skellam`] | integers, from tables | production; sums of Skellam noise are Skellam noise |
//! | [`ExactDiscreteGaussian`], [`ExactDiscreteLaplace`] | integers, no rounding anywhere | production without hurry; the yardstick of the tables |
//!
//! A mechanism says what the accountant is to be told ([`Gaussian::event`] and its like), so the
//! noise that is drawn and the noise that is accounted are one number. All draw from any generator
//! of `rand_core`: a simulation hands over an addressed [`fl_core::Stream`] (purposes
//! [`CentralNoise`](fl_core::Purpose::CentralNoise), [`LocalNoise`](fl_core::Purpose::LocalNoise)),
//! a production server a cryptographic generator fed by the operating system, whose seed is kept
//! nowhere.
//!
//! Tables are not the exact law, but their distance to it is computed with them
//! ([`IntegerNoise::distance`]) and belongs into delta ([`IntegerNoise::delta_for`]).

mod discrete;
mod dyadic;
mod exact;
pub mod gaussian;
pub mod laplace;
mod skellam;
mod table;
mod uniform;
mod wide;

#[cfg(test)]
mod tests;

use core::fmt::Debug;

use rand_core::Rng;

pub use discrete::{DiscreteGaussian, ExactDiscreteGaussian, ExactDiscreteLaplace};
pub use gaussian::Gaussian;
pub use laplace::Laplace;
pub use skellam::Skellam;

use crate::error::PrivacyError;
use crate::units::Epsilon;

/// Symmetric noise on integers.
pub trait IntegerNoise: Debug + Send + Sync {
    /// Adds independent fresh noise to each value, wrapping around as in `Z_2^64`.
    fn add(&self, rng: &mut dyn Rng, values: &mut [i64]);

    /// The variance of a draw. For the discrete Gaussian, which has slightly less, its parameter
    /// `sigma^2`.
    fn variance(&self) -> f64;

    /// An upper bound of the total variation distance between one draw and the law that the
    /// accountant is told of; 0 for exact samplers.
    fn distance(&self) -> f64;

    /// What the distance of `draws` draws (coordinates times rounds times clients) adds to delta
    /// at `epsilon`: a mechanism at distance `t` of one that is `(epsilon, delta)`-private is
    /// `(epsilon, delta + (1 + e^epsilon) t)`-private.
    fn delta_for(&self, epsilon: Epsilon, draws: u64) -> f64 {
        let distance = self.distance() * draws as f64;
        if distance > 0.0 {
            (1.0 + libm::exp(epsilon.get())) * distance * (1.0 + 1e-12)
        } else {
            0.0
        }
    }
}

fn check_sensitivity(sensitivity: f64) -> Result<(), PrivacyError> {
    PrivacyError::unless(
        sensitivity.is_finite() && sensitivity > 0.0,
        "the sensitivity",
        sensitivity,
        "a finite number above 0",
    )
}
