//! Exact samplers in integer arithmetic: Canonne, Kamath and Steinke 2020 (arXiv:2004.00010),
//! algorithms 1 to 3. No floating-point number is involved, so the law is exactly the stated one.
//! The time that they take depends on what they draw; the [tables](super::table) do not have that.

use rand_core::Rng;

use super::dyadic::Dyadic;

/// The largest count of a geometric number; reaching it has probability `e^-1024`. Keeps all
/// products within 128 bits.
const LONGEST: u64 = 1024;

/// Single random bits of a generator.
pub(super) struct Bits<'a> {
    rng: &'a mut dyn Rng,
    word: u64,
    left: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(rng: &'a mut dyn Rng) -> Self {
        Self {
            rng,
            word: 0,
            left: 0,
        }
    }

    fn bit(&mut self) -> bool {
        if self.left == 0 {
            self.word = self.rng.next_u64();
            self.left = 64;
        }
        let bit = self.word & 1 == 1;
        self.word >>= 1;
        self.left -= 1;
        bit
    }

    /// Uniform in `0 .. bound`, for a bound of at least 1.
    fn below(&mut self, bound: u64) -> u64 {
        let width = u64::BITS - (bound - 1).leading_zeros();
        loop {
            let number = (0..width).fold(0, |number, _| number << 1 | u64::from(self.bit()));
            if number < bound {
                return number;
            }
        }
    }

    /// True with probability `numerator / denominator <= 1`: a uniform number is compared with
    /// the fraction's binary digits until they differ.
    fn fraction(&mut self, numerator: u128, denominator: u128) -> bool {
        if numerator >= denominator {
            return true;
        }
        let mut rest = numerator;
        loop {
            rest <<= 1;
            let digit = rest >= denominator;
            if digit {
                rest -= denominator;
            }
            let bit = self.bit();
            if bit != digit {
                return digit;
            }
        }
    }

    /// True with probability `exp(-numerator / denominator)` (algorithm 1).
    fn exp_minus(&mut self, mut numerator: u128, denominator: u128) -> bool {
        while numerator > denominator {
            if !self.exp_minus_fraction(1, 1) {
                return false;
            }
            numerator -= denominator;
        }
        self.exp_minus_fraction(numerator, denominator)
    }

    /// The same for `numerator <= denominator`.
    fn exp_minus_fraction(&mut self, numerator: u128, denominator: u128) -> bool {
        let mut count = 1u128;
        while self.fraction(numerator, denominator * count) {
            count += 1;
        }
        count % 2 == 1
    }

    /// Discrete Laplace with `P(x)` proportional to `exp(-|x| / scale)`, `scale = t / s`
    /// (algorithm 2).
    pub(super) fn laplace(&mut self, t: u64, s: u64) -> i64 {
        loop {
            let offset = self.below(t);
            if !self.exp_minus_fraction(u128::from(offset), u128::from(t)) {
                continue;
            }
            let mut whole = 0;
            while whole < LONGEST && self.exp_minus_fraction(1, 1) {
                whole += 1;
            }
            let magnitude = (offset + t * whole) / s;
            let negative = self.bit();
            if negative && magnitude == 0 {
                continue;
            }
            let magnitude = magnitude.cast_signed();
            return if negative { -magnitude } else { magnitude };
        }
    }

    /// Discrete Gaussian with `P(x)` proportional to `exp(-x^2 / (2 sigma^2))`, for
    /// `sigma^2 = p / q` (algorithm 3).
    /// The caller gives `t = floor(sigma) + 1`.
    pub(super) fn gaussian(&mut self, square: Dyadic, t: u64) -> i64 {
        let (p, q) = (
            u128::from(square.numerator),
            u128::from(square.denominator()),
        );
        let wide = u128::from(t);
        loop {
            let candidate = self.laplace(t, 1);
            // (|y| - sigma^2 / t)^2 / (2 sigma^2) = (|y| t q - p)^2 / (2 p q t^2)
            let distance = (u128::from(candidate.unsigned_abs()) * wide * q).abs_diff(p);
            if self.exp_minus(distance * distance, 2 * p * q * wide * wide) {
                return candidate;
            }
        }
    }
}
