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
//! ```
//! use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
//! use fl_privacy::mechanism::{DiscreteGaussian, Gaussian, IntegerNoise as _};
//! use fl_privacy::{Epsilon, NoiseMultiplier};
//!
//! # fn main() -> Result<(), fl_privacy::PrivacyError> {
//! let mut stream = Stream::at(Purpose::CentralNoise, Seed(1), RoundId(0), ClientId(0));
//! // Clipped to norm 0.5, noise multiplier 1.2.
//! let gaussian = Gaussian::new(NoiseMultiplier::new(1.2)?, 0.5)?;
//! let mut sum = vec![0.0f32; 1000];
//! gaussian.add(&mut stream, &mut sum);
//! let told = gaussian.event();
//!
//! // Integers: the same for a ring sum whose L2 sensitivity is 4096 units.
//! let discrete = DiscreteGaussian::new(1.2 * 4096.0)?;
//! let mut integers = vec![0i64; 1000];
//! discrete.add(&mut stream, &mut integers);
//! let told_too = discrete.vector_event(4096.0)?;
//! let added_to_delta = discrete.delta_for(Epsilon::new(8.0)?, 1000);
//! assert!(added_to_delta < 1e-24);
//! # let _ = (told, told_too);
//! # Ok(())
//! # }
//! ```
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
use crate::units::{Epsilon, NoiseMultiplier};

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

fn check_noise(multiplier: NoiseMultiplier, sensitivity: f64) -> Result<(), PrivacyError> {
    PrivacyError::unless(
        sensitivity.is_finite() && sensitivity > 0.0,
        "the sensitivity",
        sensitivity,
        "a finite number above 0",
    )?;
    let noise = multiplier.get() * sensitivity;
    PrivacyError::unless(
        noise <= 1e30,
        "noise multiplier times sensitivity",
        noise,
        "a number up to 1e30; lower either",
    )
}
