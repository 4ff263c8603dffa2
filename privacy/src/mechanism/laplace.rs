//! Continuous Laplace noise in `f32`, in bulk, **for simulation** (Dwork et al. 2006).
//!
//! An exponential number (the negative logarithm of a uniform one) with a random sign; one 32-bit
//! word each, and a second, finer draw for the one word in `2^24` that lands in the tail. The
//! warning of [`gaussian`](super::gaussian) about low bits holds here, too.

use rand_core::Rng;

use super::uniform::{self, BLOCK, negative_log};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::units::NoiseMultiplier;

/// Laplace noise of a scale that is the noise multiplier times the L1 sensitivity; one use is
/// `1 / noise_multiplier`-differentially private.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Laplace {
    noise_multiplier: NoiseMultiplier,
    sensitivity: f64,
}

impl Laplace {
    /// Noise of scale `b = noise_multiplier * sensitivity` (density `exp(-|x|/b) / 2b`), for a
    /// vector whose L1 sensitivity is `sensitivity`.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivity is above 0, and the noise at most 1e30,
    /// so that it fits into an `f32`.
    pub fn new(noise_multiplier: NoiseMultiplier, sensitivity: f64) -> Result<Self, PrivacyError> {
        super::check_noise(noise_multiplier, sensitivity)?;
        Ok(Self {
            noise_multiplier,
            sensitivity,
        })
    }

    /// The scale `b`; the standard deviation is `b` times the root of 2.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.noise_multiplier.get() * self.sensitivity
    }

    /// What the accountant is told of one use.
    #[must_use]
    pub fn event(&self) -> DpEvent {
        DpEvent::Laplace {
            noise_multiplier: self.noise_multiplier,
        }
    }

    /// Adds fresh noise to each value.
    pub fn add<R: Rng + ?Sized>(&self, rng: &mut R, values: &mut [f32]) {
        let scale = self.scale() as f32;
        blocks(rng, values, |value, noise| *value += noise * scale);
    }
}

/// Fills `out` with independent Laplace numbers of mean 0 and scale `scale`.
pub fn fill<R: Rng + ?Sized>(rng: &mut R, scale: f64, out: &mut [f32]) {
    let scale = scale as f32;
    blocks(rng, out, |value, noise| *value = noise * scale);
}

fn blocks<R: Rng + ?Sized>(rng: &mut R, values: &mut [f32], each: impl Fn(&mut f32, f32)) {
    for values in values.chunks_mut(BLOCK) {
        let words = uniform::words(rng);
        let mut noise = [0.0; BLOCK];
        for (noise, &word) in noise.iter_mut().zip(&words) {
            *noise = signed(negative_log(uniform::open(word)), word);
        }
        for place in uniform::rare(&words) {
            let word = words[place];
            let finer = uniform::refined(word, rng.next_u64());
            noise[place] = signed(-libm::log(finer) as f32, word);
        }
        for (value, noise) in values.iter_mut().zip(noise) {
            each(value, noise);
        }
    }
}

/// The sign is the bit that [`uniform::open`] leaves out.
#[inline(always)]
fn signed(magnitude: f32, word: u32) -> f32 {
    f32::from_bits(magnitude.to_bits() ^ (word << 31))
}
