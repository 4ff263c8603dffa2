//! Discrete Gaussian and discrete Laplace noise (Canonne, Kamath and Steinke 2020,
//! arXiv:2004.00010).

use rand_core::Rng;

use super::IntegerNoise;
use super::dyadic::Dyadic;
use super::exact::Bits;
use super::table::Table;
use crate::error::PrivacyError;
use crate::event::DpEvent;

const SMALLEST_SIGMA: f64 = 1.0 / 64.0;
const LARGEST_EXACT: f64 = (1u64 << 20) as f64;
/// Parameters up to this come from one table (of at most 200 kB).
const LARGEST_TABLE: f64 = 1024.0;
/// The parameter of each of two tables where one does not do.
const PART: f64 = 1000.0;

/// The discrete Gaussian, `P(x)` proportional to `exp(-x^2 / (2 sigma^2))`, from tables in a
/// constant number of table steps.
///
/// Up to `sigma = 1024` there is one table. Beyond, a draw is `X + k Y` for discrete Gaussians
/// `X` and `Y` and an integer `k`: with `sigma^2 = sigma_X^2 + k^2 sigma_Y^2`, the probability of
/// `z` is the wanted one times `sum_j exp(-(j - c_z)^2 / (2 s^2))` with
/// `s = sigma_X sigma_Y / sigma`, and by Poisson's summation formula that sum is the same for all
/// `z` up to a factor within `1 ± e`, `e = 2 sum_m exp(-2 pi^2 s^2 m^2)`. The distance is thus at
/// most `e / (1 - e)`, below `10^-90` for all parameters here (Peikert 2010, Theorem 3.1, has the
/// general case).
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteGaussian {
    square: Dyadic,
    /// `sigma_X^2`.
    part: Dyadic,
    fine: Table,
    /// The factor `k` and the table of `Y`.
    coarse: Option<(i64, Table)>,
    distance: f64,
}

impl DiscreteGaussian {
    /// The largest parameter.
    pub const LARGEST_SIGMA: f64 = (1u64 << 18) as f64;

    /// Noise of parameter `sigma`, in units of the integers. `sigma^2` is rounded upwards to a
    /// fraction of at most 41 bits; [`Self::sigma`] gives what it became.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `sigma` is from `2^-6` to [`Self::LARGEST_SIGMA`].
    pub fn new(sigma: f64) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            (SMALLEST_SIGMA..=Self::LARGEST_SIGMA).contains(&sigma),
            "sigma of a discrete Gaussian",
            sigma,
            "a number between 2^-6 and 2^18; scale the integers down",
        )?;
        let square = Dyadic::at_least("sigma^2 of a discrete Gaussian", sigma * sigma)?;
        if sigma <= LARGEST_TABLE {
            let fine = Table::gaussian(square);
            let distance = fine.distance();
            return Ok(Self {
                square,
                part: square,
                fine,
                coarse: None,
                distance,
            });
        }
        // Both parts near 1000: sigma_Y^2 is an integer, sigma_X^2 what is left, at most
        // 10^6 - 2 * 10^5 + k^2 < 2^20.
        let factor = libm::ceil(sigma / PART);
        let coarse = libm::floor((square.value() - 0.8 * PART * PART) / (factor * factor));
        let (factor, coarse) = (factor as u64, coarse as u64);
        let part = Dyadic {
            numerator: square.numerator - ((factor * factor * coarse) << square.shift),
            shift: square.shift,
        };
        let smoothing = part.value() * coarse as f64 / square.value();
        // e / (1 - e), with room for the terms after the first.
        let joint = 2.5 * libm::exp(-19.7 * smoothing);
        let coarse = Table::gaussian(Dyadic {
            numerator: coarse,
            shift: 0,
        });
        let fine = Table::gaussian(part);
        let distance = fine.distance() + coarse.distance() + joint;
        let coarse = Some((factor.cast_signed(), coarse));
        Ok(Self {
            square,
            part,
            fine,
            coarse,
            distance,
        })
    }

    /// The parameter, at least the one asked for.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        libm::sqrt(self.square.value())
    }

    #[cfg(test)]
    pub(super) fn fine_square(&self) -> f64 {
        self.part.value()
    }

    /// The factor and `sigma_Y^2`.
    #[cfg(test)]
    pub(super) fn coarse_part(&self) -> Option<(i64, f64)> {
        let (factor, _) = self.coarse.as_ref()?;
        let square = (self.square.value() - self.fine_square()) / (factor * factor) as f64;
        Some((*factor, square))
    }

    /// Table steps of one draw; no draw takes more or fewer.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.fine.steps() + self.coarse.as_ref().map_or(0, |(_, table)| table.steps())
    }

    /// What the accountant is told of one use on **one integer** that changes by at most
    /// `sensitivity`. For vectors see [`Self::vector_event`].
    ///
    /// # Errors
    /// None for mechanisms that could be made.
    pub fn event(&self, sensitivity: u64) -> Result<DpEvent, PrivacyError> {
        DpEvent::discrete_gaussian(self.sigma(), sensitivity)
    }

    /// What the accountant is told of one use on integer vectors of Euclidean sensitivity
    /// `l2_sensitivity`: `rho = l2^2 / (2 sigma^2)` of concentrated differential privacy
    /// (Theorem 4).
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivity is finite and at least 0.
    pub fn vector_event(&self, l2_sensitivity: f64) -> Result<DpEvent, PrivacyError> {
        DpEvent::zcdp(concentrated(l2_sensitivity, self.square), 0.0)
    }
}

impl IntegerNoise for DiscreteGaussian {
    fn add(&self, rng: &mut dyn Rng, values: &mut [i64]) {
        self.fine.add(rng, 1, values);
        if let Some((factor, table)) = &self.coarse {
            table.add(rng, *factor, values);
        }
    }

    fn variance(&self) -> f64 {
        self.square.value()
    }

    fn distance(&self) -> f64 {
        self.distance
    }
}

/// `l2^2 / (2 sigma^2)`, rounded upwards.
fn concentrated(l2: f64, square: Dyadic) -> f64 {
    l2 * l2 / (2.0 * square.value()) * (1.0 + 4.0 * f64::EPSILON)
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
        DpEvent::discrete_gaussian(self.sigma(), sensitivity)
    }

    /// As [`DiscreteGaussian::vector_event`].
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless the sensitivity is finite and at least 0.
    pub fn vector_event(&self, l2_sensitivity: f64) -> Result<DpEvent, PrivacyError> {
        DpEvent::zcdp(concentrated(l2_sensitivity, self.square), 0.0)
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
