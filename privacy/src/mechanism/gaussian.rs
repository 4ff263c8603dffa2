//! Continuous Gaussian noise in `f32`, in bulk, **for simulation**.
//!
//! Box and Muller (1958) in blocks without branches, so that a compiler makes vector code of it on
//! every machine; the arithmetic is IEEE operation by operation (no fused multiply-add, own
//! polynomials, the correctly rounded `sqrt`), so the bits are the same everywhere. One 32-bit
//! word gives one number; radii beyond 5.77 standard deviations draw a second, finer one, so that
//! tails do not end before 10.
//!
//! Numbers in `f32` are not private against someone who reads their low bits (Mironov 2012;
//! Jin et al. 2022, arXiv:2112.05307). Where a real adversary sees the noised values, use the
//! [discrete Gaussian](super::DiscreteGaussian).

use rand_core::Rng;

use super::uniform::{self, BLOCK, HALF, negative_log};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::units::NoiseMultiplier;

/// Gaussian noise of a standard deviation that is the noise multiplier times the L2 sensitivity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gaussian {
    noise_multiplier: NoiseMultiplier,
    sensitivity: f64,
}

impl Gaussian {
    /// Noise of standard deviation `noise_multiplier * sensitivity`, for a vector whose L2
    /// sensitivity is `sensitivity`.
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

    /// The standard deviation of each number.
    #[must_use]
    pub fn std(&self) -> f64 {
        self.noise_multiplier.get() * self.sensitivity
    }

    /// What the accountant is told of one use.
    #[must_use]
    pub fn event(&self) -> DpEvent {
        DpEvent::Gaussian {
            noise_multiplier: self.noise_multiplier,
        }
    }

    /// Adds fresh noise to each value.
    pub fn add<R: Rng + ?Sized>(&self, rng: &mut R, values: &mut [f32]) {
        add(rng, self.std(), values);
    }

    /// Adds fresh noise to each value of a mean in `f64`; the same numbers as [`Self::add`].
    pub fn add_f64<R: Rng + ?Sized>(&self, rng: &mut R, values: &mut [f64]) {
        let std = self.std();
        blocks(rng, values, |value, z| *value += f64::from(z) * std);
    }
}

/// Fills `out` with independent normal numbers of mean 0 and standard deviation `std`. Allocates
/// nothing; the value at a place depends on the generator and the place only.
pub fn fill<R: Rng + ?Sized>(rng: &mut R, std: f64, out: &mut [f32]) {
    let std = std as f32;
    blocks(rng, out, |value, z| *value = z * std);
}

/// Adds the numbers of [`fill`] to `values`.
pub fn add<R: Rng + ?Sized>(rng: &mut R, std: f64, values: &mut [f32]) {
    let std = std as f32;
    blocks(rng, values, |value, z| *value += z * std);
}

/// Hands every value its standard normal number.
fn blocks<R: Rng + ?Sized, T>(rng: &mut R, values: &mut [T], each: impl Fn(&mut T, f32)) {
    for values in values.chunks_mut(BLOCK) {
        let words = uniform::words(rng);
        let mut normals = [0.0; BLOCK];
        normal_block(&words, &mut normals);
        for place in uniform::rare(&words[..HALF]) {
            // One pair in 2^24: the radius again, with 64 more bits.
            let finer = uniform::refined(words[place], rng.next_u64());
            let (x, y) = turn(words[HALF + place]);
            let radius = libm::sqrt(-2.0 * libm::log(finer)) as f32;
            normals[place] = radius * x;
            normals[HALF + place] = radius * y;
        }
        for (value, normal) in values.iter_mut().zip(normals) {
            each(value, normal);
        }
    }
}

/// Pair `i` is made of words `i` and `HALF + i`: a radius and a direction.
#[inline(always)]
fn normal_block(words: &[u32; BLOCK], out: &mut [f32; BLOCK]) {
    let (radii, turns) = words.split_at(HALF);
    let (first, second) = out.split_at_mut(HALF);
    for (((&radius, &direction), first), second) in radii.iter().zip(turns).zip(first).zip(second) {
        // IEEE requires `sqrt` to be correctly rounded, so it has the same bits everywhere.
        let radius = (2.0 * negative_log(uniform::open(radius))).sqrt();
        let (x, y) = turn(direction);
        *first = radius * x;
        *second = radius * y;
    }
}

/// A point of the unit circle: 30 bits say where within a quarter around the first axis, one bit
/// which side, one bit whether the axes are exchanged. Taylor series to the tenth power, whose
/// error on the quarter is below `2^-31`.
#[inline(always)]
pub(super) fn turn(word: u32) -> (f32, f32) {
    const STEP: f32 = core::f32::consts::FRAC_PI_4 / (1u32 << 31) as f32;
    let angle = (word << 2).cast_signed() as f32 * STEP;
    let square = angle * angle;
    let sine = angle
        * (1.0
            + square
                * (-1.0 / 6.0
                    + square
                        * (1.0 / 120.0 + square * (-1.0 / 5040.0 + square * (1.0 / 362_880.0)))));
    let cosine = 1.0
        + square
            * (-0.5
                + square
                    * (1.0 / 24.0
                        + square
                            * (-1.0 / 720.0
                                + square * (1.0 / 40_320.0 + square * (-1.0 / 3_628_800.0)))));
    let cosine = f32::from_bits(cosine.to_bits() ^ (word & 0x8000_0000));
    // All ones when the axes are exchanged.
    let exchange = ((word << 1).cast_signed() >> 31).cast_unsigned();
    let mixed = (sine.to_bits() ^ cosine.to_bits()) & exchange;
    (
        f32::from_bits(cosine.to_bits() ^ mixed),
        f32::from_bits(sine.to_bits() ^ mixed),
    )
}
