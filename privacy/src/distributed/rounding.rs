//! Conditional stochastic rounding (Kairouz et al. 2021, section 4.1 and theorem 1).
//!
//! Rounding each coordinate at random to one of its two neighbours, with the right mean, can raise
//! the norm by up to `sqrt(d)`. Repeating until the norm is below what it exceeds with probability
//! at most `beta` keeps the sensitivity low, at the price of a small bias: rounding errors are
//! below 1 in each coordinate, so the mean of the conditioned vector is off by at most
//! `beta / (1 - beta) sqrt(d)` in L2 norm ([`NormBound::bias`]).

use rand_core::Rng;

/// Tries before giving up; each is accepted with probability at least `1 - beta`.
const MOST_ATTEMPTS: u32 = 1000;
/// Words of random bytes drawn at a time.
const BLOCK: usize = 256;

/// The norm below which rounded vectors are accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormBound {
    /// The largest squared L2 norm, an integer, as vectors are.
    square: u128,
    bias: f64,
    dimension: f64,
}

impl NormBound {
    /// The bound for vectors of `dimension` coordinates with L2 norm at most `norm` (scaled):
    /// `min(norm + sqrt(d), sqrt(norm^2 + d / 4 + sqrt(2 ln(1 / beta)) (norm + sqrt(d) / 2)))`;
    /// for `beta = 0` the first, which holds always.
    #[must_use]
    pub fn new(norm: f64, beta: f64, dimension: usize) -> Self {
        let d = dimension as f64;
        let always = (norm + libm::sqrt(d)) * (norm + libm::sqrt(d));
        let mostly = if beta > 0.0 {
            let spread = libm::sqrt(2.0 * libm::log(1.0 / beta));
            norm * norm + d / 4.0 + spread * (norm + 0.5 * libm::sqrt(d))
        } else {
            f64::INFINITY
        };
        // Squares of integers below the bound are below its floor. (Rotating and scaling in
        // floating point may exceed `norm` by a part in 10^15, which no bound here sees.)
        Self {
            square: libm::floor(always.min(mostly)) as u128,
            bias: beta,
            dimension: d,
        }
    }

    /// The largest L2 norm of an accepted vector.
    #[must_use]
    pub fn l2(&self) -> f64 {
        // Rounded upwards.
        libm::sqrt(self.square as f64 * (1.0 + f64::EPSILON)) * (1.0 + f64::EPSILON)
    }

    /// The largest L1 norm: `min(sqrt(d) l2, l2^2)`, the latter because the coordinates are
    /// integers.
    #[must_use]
    pub fn l1(&self) -> f64 {
        let l2 = self.l2();
        l2 * libm::sqrt(self.dimension).min(l2) * (1.0 + 2.0 * f64::EPSILON)
    }

    /// The largest L2 distance between a vector and the mean of what it is rounded to.
    #[must_use]
    pub fn bias(&self) -> f64 {
        self.bias / (1.0 - self.bias) * libm::sqrt(self.dimension)
    }

    /// Rounds `values` into `integers` (slices of one length) and says how often it was tried.
    /// Whatever the values are, the integers are within the bound: should no try be accepted,
    /// the values are rounded towards zero, and a vector that is beyond the bound even so becomes
    /// zero.
    pub fn round(&self, values: &[f64], rng: &mut dyn Rng, integers: &mut [i64]) -> u32 {
        for attempt in 1..=MOST_ATTEMPTS {
            round_once(values, rng, integers);
            if self.holds(integers) {
                return attempt;
            }
        }
        for (integer, value) in integers.iter_mut().zip(values) {
            *integer = libm::trunc(*value) as i64;
        }
        if !self.holds(integers) {
            integers.fill(0);
        }
        MOST_ATTEMPTS
    }

    fn holds(&self, integers: &[i64]) -> bool {
        let square = integers.iter().try_fold(0u128, |sum, &integer| {
            let magnitude = u128::from(integer.unsigned_abs());
            sum.checked_add(magnitude * magnitude)
        });
        square.is_some_and(|square| square <= self.square)
    }
}

/// `floor(x + u)` with `u` uniform on the multiples of `2^-32` in `[0, 1)`.
fn round_once(values: &[f64], rng: &mut dyn Rng, integers: &mut [i64]) {
    for (values, integers) in values.chunks(BLOCK).zip(integers.chunks_mut(BLOCK)) {
        let mut bytes = [0; 4 * BLOCK];
        rng.fill_bytes(&mut bytes);
        for ((value, integer), word) in values.iter().zip(integers).zip(bytes.as_chunks::<4>().0) {
            let uniform = f64::from(u32::from_le_bytes(*word)) * (1.0 / (1u64 << 32) as f64);
            *integer = libm::floor(*value + uniform) as i64;
        }
    }
}
