//! Discrete Gaussian and discrete Laplace noise (Canonne, Kamath and Steinke 2020,
//! arXiv:2004.00010).

use rand_core::Rng;

use super::IntegerNoise;
use super::dyadic::{Dyadic, LARGEST};
use super::exact::Bits;
use super::table::Table;
use crate::error::PrivacyError;
use crate::event::DpEvent;

const SMALLEST_SIGMA: f64 = 1.0 / 64.0;
const LARGEST_EXACT: f64 = (1u64 << 20) as f64;
/// Parameters up to this come from one table (of at most 200 kB).
const LARGEST_TABLE: f64 = 1024.0;
/// About the parameter of each of several tables where one does not do.
const PART: f64 = 1000.0;
/// The largest factor between two of them: keeps them smooth enough for each other.
const LARGEST_FACTOR: f64 = 262.0;

/// The discrete Gaussian, `P(x)` proportional to `exp(-x^2 / (2 sigma^2))`, from tables in a
/// constant number of table steps.
///
/// Up to `sigma = 1024` there is one table. Beyond, a draw is `X + k Y` for discrete Gaussians
/// `X` (from a table) and `Y` (a table or, again, such a sum) and an integer `k`. With
/// `sigma^2 = sigma_X^2 + k^2 sigma_Y^2`, the probability of `z` is the wanted one times
/// `sum_j exp(-(j - c_z)^2 / (2 s^2))` with `s = sigma_X sigma_Y / sigma`, and by Poisson's
/// summation formula that sum is the same for all `z` up to a factor within `1 ± e`,
/// `e = 2 sum_m exp(-2 pi^2 s^2 m^2)`. The distance is thus at most `e / (1 - e)`, below `10^-90`
/// for all parameters here (Peikert 2010, Theorem 3.1, has the general case).
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteGaussian {
    /// `sigma^2 = numerator / 2^shift`.
    numerator: u128,
    shift: u32,
    /// `X`, then what `Y` is made of.
    levels: Vec<Level>,
    distance: f64,
}

/// A table and what its draws are multiplied by.
#[derive(Clone, Debug, PartialEq)]
struct Level {
    factor: i64,
    square: Dyadic,
    table: Table,
}

impl DiscreteGaussian {
    /// The largest parameter.
    pub const LARGEST_SIGMA: f64 = (1u64 << 40) as f64;

    /// Noise of parameter `sigma`, in units of the integers. `sigma^2` is rounded upwards to a
    /// fraction of 37 bits or more; [`Self::sigma`] gives what it became.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `sigma` is from `2^-6` to [`Self::LARGEST_SIGMA`].
    pub fn new(sigma: f64) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            (SMALLEST_SIGMA..=Self::LARGEST_SIGMA).contains(&sigma),
            "sigma of a discrete Gaussian",
            sigma,
            "a number between 2^-6 and 2^40; scale the integers",
        )?;
        let square = sigma * sigma;
        let (numerator, shift) = if square <= LARGEST {
            let square = Dyadic::at_least("sigma^2 of a discrete Gaussian", square)?;
            (u128::from(square.numerator), square.shift)
        } else {
            (libm::ceil(square) as u128, 0)
        };
        let mut noise = Self {
            numerator,
            shift,
            levels: Vec::new(),
            distance: 0.0,
        };
        let (mut factor, mut rest, mut shift) = (1i64, numerator, shift);
        loop {
            let value = rest as f64 / (1u64 << shift) as f64;
            if value <= LARGEST_TABLE * LARGEST_TABLE {
                noise.push(
                    factor,
                    Dyadic {
                        numerator: rest as u64,
                        shift,
                    },
                );
                return Ok(noise);
            }
            // sigma_Y^2 is an integer, sigma_X^2 what is left: at least 8 * 10^5 and at most
            // that plus k^2, below 2^20.
            let k = libm::ceil(libm::sqrt(value) / PART).min(LARGEST_FACTOR);
            let coarse = ((rest >> shift) - (0.8 * PART * PART) as u128) / (k as u128 * k as u128);
            let part = rest - ((k as u128 * k as u128 * coarse) << shift);
            noise.push(
                factor,
                Dyadic {
                    numerator: part as u64,
                    shift,
                },
            );
            // e / (1 - e) with room for the terms after the first; 2 pi^2 > 19.7.
            let smoothing = (part as f64 / (1u64 << shift) as f64) * coarse as f64 / value;
            noise.distance += 2.5 * libm::exp(-19.7 * smoothing);
            factor *= k as i64;
            rest = coarse;
            shift = 0;
        }
    }

    fn push(&mut self, factor: i64, square: Dyadic) {
        let table = Table::gaussian(square);
        self.distance += table.distance();
        self.levels.push(Level {
            factor,
            square,
            table,
        });
    }

    /// The parameter: what was asked for, up to the rounding of its square.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        libm::sqrt(self.variance())
    }

    /// Factors and squares of the tables, and the whole square.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (Vec<(i64, Dyadic)>, u128, u32) {
        let parts = self
            .levels
            .iter()
            .map(|level| (level.factor, level.square))
            .collect();
        (parts, self.numerator, self.shift)
    }

    /// Table steps of one draw; no draw takes more or fewer.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.levels.iter().map(|level| level.table.steps()).sum()
    }

    /// What the accountant is told of one use on **one integer** that changes by at most
    /// `sensitivity`. For vectors see [`Self::vector_event`].
    ///
    /// # Errors
    /// None for mechanisms that could be made.
    pub fn event(&self, sensitivity: u64) -> Result<DpEvent, PrivacyError> {
        DpEvent::discrete_gaussian(downwards(self.sigma()), sensitivity)
    }

    /// What the accountant is told of one use on integer vectors of Euclidean sensitivity
    /// `l2_sensitivity`: `rho = l2^2 / (2 sigma^2)` of concentrated differential privacy
    /// (Theorem 4).
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivity is finite and at least 0.
    pub fn vector_event(&self, l2_sensitivity: f64) -> Result<DpEvent, PrivacyError> {
        DpEvent::zcdp(concentrated(l2_sensitivity, self.variance()), 0.0)
    }
}

impl IntegerNoise for DiscreteGaussian {
    fn add(&self, rng: &mut dyn Rng, values: &mut [i64]) {
        for level in &self.levels {
            level.table.add(rng, level.factor, values);
        }
    }

    fn variance(&self) -> f64 {
        downwards(self.numerator as f64) / (1u64 << self.shift) as f64
    }

    fn distance(&self) -> f64 {
        self.distance
    }
}

/// A little less than a positive number: less noise than there is, so that rounding errs on the
/// safe side.
fn downwards(value: f64) -> f64 {
    value * (1.0 - f64::EPSILON)
}

/// `l2^2 / (2 sigma^2)`, rounded upwards.
fn concentrated(l2: f64, square: f64) -> f64 {
    l2 * l2 / (2.0 * square) * (1.0 + 4.0 * f64::EPSILON)
}

/// The discrete Gaussian by exact integer arithmetic. Slower than [`DiscreteGaussian`], and how
/// long a draw takes depends on what it draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExactDiscreteGaussian {
    square: Dyadic,
}

impl ExactDiscreteGaussian {
    /// Noise of parameter `sigma`, in units of the integers; `sigma^2` is rounded upwards to a
    /// fraction of at most 41 bits.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `sigma` is from `2^-6` to `2^20`.
    pub fn new(sigma: f64) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            (SMALLEST_SIGMA..=LARGEST_EXACT).contains(&sigma),
            "sigma of a discrete Gaussian",
            sigma,
            "a number between 2^-6 and 2^20; scale the integers down",
        )?;
        let square = Dyadic::at_least("sigma^2 of a discrete Gaussian", sigma * sigma)?;
        Ok(Self { square })
    }

    /// The parameter, at least the one asked for.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        libm::sqrt(self.square.value())
    }

    /// As [`DiscreteGaussian::event`].
    ///
    /// # Errors
    /// None for mechanisms that could be made.
    pub fn event(&self, sensitivity: u64) -> Result<DpEvent, PrivacyError> {
        DpEvent::discrete_gaussian(downwards(self.sigma()), sensitivity)
    }

    /// As [`DiscreteGaussian::vector_event`].
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivity is finite and at least 0.
    pub fn vector_event(&self, l2_sensitivity: f64) -> Result<DpEvent, PrivacyError> {
        DpEvent::zcdp(concentrated(l2_sensitivity, self.variance()), 0.0)
    }
}

impl IntegerNoise for ExactDiscreteGaussian {
    fn add(&self, rng: &mut dyn Rng, values: &mut [i64]) {
        let mut bits = Bits::new(rng);
        let scale = self.square.floor_sqrt() + 1;
        for value in values {
            *value = value.wrapping_add(bits.gaussian(self.square, scale));
        }
    }

    fn variance(&self) -> f64 {
        self.square.value()
    }

    fn distance(&self) -> f64 {
        0.0
    }
}

/// Discrete Laplace noise, `P(x)` proportional to `exp(-|x| / scale)`, by exact integer
/// arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExactDiscreteLaplace {
    scale: Dyadic,
}

impl ExactDiscreteLaplace {
    /// Noise of this scale, in units of the integers; it is rounded upwards to a fraction of at
    /// most 41 bits.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the scale is from `2^-12` to `2^40`.
    pub fn new(scale: f64) -> Result<Self, PrivacyError> {
        Ok(Self {
            scale: Dyadic::at_least("the scale of a discrete Laplace law", scale)?,
        })
    }

    /// The scale, at least the one asked for.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale.value()
    }

    /// What the accountant is told of one use on integers that change by at most `sensitivity` in
    /// the 1-norm.
    ///
    /// # Errors
    /// None for mechanisms that could be made.
    pub fn event(&self, sensitivity: u64) -> Result<DpEvent, PrivacyError> {
        // Rounded upwards: a larger parameter is less noise.
        DpEvent::discrete_laplace(1.0 / self.scale() * (1.0 + f64::EPSILON), sensitivity)
    }
}

impl IntegerNoise for ExactDiscreteLaplace {
    fn add(&self, rng: &mut dyn Rng, values: &mut [i64]) {
        let mut bits = Bits::new(rng);
        for value in values {
            let noise = bits.laplace(self.scale.numerator, self.scale.denominator());
            *value = value.wrapping_add(noise);
        }
    }

    /// `2 p / (1 - p)^2` with `p = exp(-1 / scale)`.
    fn variance(&self) -> f64 {
        let missing = -libm::expm1(-1.0 / self.scale());
        2.0 * (1.0 - missing) / (missing * missing)
    }

    fn distance(&self) -> f64 {
        0.0
    }
}
