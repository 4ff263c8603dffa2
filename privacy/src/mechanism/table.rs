//! Integer noise from a table of cumulative probabilities: fast, and always the same number of
//! table steps, whatever is drawn (timing: Jin et al. 2022, arXiv:2112.05307).
//!
//! The table holds `floor(2^127 P(|X| <= k))`, computed in 512-bit integers; a uniform number of
//! 127 bits is looked up by a binary search without branches, one more bit is the sign. What the
//! rounding and the cut tails change, the total variation distance to the exact law, is computed
//! with the table and is to be added to delta ([`super::IntegerNoise::delta_for`]).
//!
//! The places of memory that a search touches do depend on what is drawn; against an adversary who
//! shares the processor's caches use a machine of your own.

use rand_core::Rng;

use super::dyadic::Dyadic;
use super::wide::Wide;

/// Bits of a threshold.
const PRECISION: u32 = 127;
/// Bits in which thresholds are computed before they are rounded.
const COMPUTED: u32 = 190;
/// Searches that run side by side, so that their memory accesses overlap.
const LANES: usize = 8;
/// The limb of the binary point in weights of Gaussians: 448 bits after it.
const POINT: usize = 7;

/// Cumulative probabilities of the magnitude of a symmetric law on the integers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// Ascending, padded with `2^127` to one less than a power of two.
    thresholds: Vec<u128>,
    steps: u32,
    /// An upper bound of the total variation distance to the exact law.
    distance: f64,
}

impl Table {
    /// The discrete Gaussian with `sigma^2 = square`, at most `2^20`.
    pub(super) fn gaussian(square: Dyadic) -> Self {
        // w_k = exp(-k^2 / (2 sigma^2)); w_{k+1} = w_k r_k and r_{k+1} = r_k exp(-1 / sigma^2).
        // Each product loses at most 2^-448, and there are fewer than 2^15 in a row.
        let (p, q) = (square.numerator, square.denominator());
        let mut ratio = exp_minus(q, 2 * p);
        let step = ratio.times_shifted(&ratio, 448);
        let mut weight = Wide::at_limb(1, POINT);
        let mut weights = vec![weight];
        loop {
            weight = weight.times_shifted(&ratio, 448);
            ratio = ratio.times_shifted(&step, 448);
            // What is left off is less than 2^-190 of the whole: the ratio of neighbours falls,
            // so the tail is at most w / (1 - r) and r < 1 - 2^-22.
            if weight.bits() < 448 - 220 {
                break;
            }
            weights.push(weight);
        }
        Self::from_weights(&weights)
    }

    /// The symmetric Skellam law of variance `square`, at most `2^20`: `P(k)` is proportional to
    /// the modified Bessel function `I_k`, computed by Miller's backward recurrence
    /// `I_{k-1} = (2 k / variance) I_k + I_{k+1}`.
    pub(super) fn skellam(square: Dyadic) -> Self {
        let variance = square.value();
        let mut log2 = 0.0;
        let mut order = 0u64;
        // I_{k+1} / I_k <= x / (k + 1/2 + sqrt(x^2 + (k + 1/2)^2)) (Amos 1974): the orders whose
        // share is below 2^-200 are left off.
        while log2 > -200.0 {
            let middle = order as f64 + 0.5;
            let root = libm::sqrt(variance * variance + middle * middle);
            log2 += libm::log2(variance / (middle + root));
            order += 1;
        }
        let mut above = Wide::ZERO;
        let mut current = Wide::at_limb(1 << 30, 2);
        let mut weights = vec![current];
        while order > 0 {
            let factor = 2 * order * square.denominator();
            let below = current
                .times_small(factor)
                .over_small(square.numerator)
                .plus(&above);
            above = current;
            current = below;
            weights.push(current);
            order -= 1;
        }
        weights.reverse();
        Self::from_weights(&weights)
    }

    /// The law of magnitudes with `weights[0]` for 0 and twice `weights[k]` for `k`, of which at
    /// most `2^-189` is missing.
    fn from_weights(weights: &[Wide]) -> Self {
        let doubled = |place: usize| {
            if place == 0 {
                weights[0]
            } else {
                weights[place].times_small(2)
            }
        };
        let total = (0..weights.len()).fold(Wide::ZERO, |sum, place| sum.plus(&doubled(place)));
        let shift = total.bits() + 220;
        let reciprocal = total.reciprocal(shift);
        let mut thresholds = Vec::new();
        let mut sum = Wide::ZERO;
        let mut distance = 0.0;
        let mut last_error = 0.0;
        for place in 0..weights.len() {
            sum = sum.plus(&doubled(place));
            let cumulative = sum.times_shifted(&reciprocal, shift - COMPUTED);
            let threshold = cumulative
                .times_shifted(&Wide::at_limb(1, 0), COMPUTED - PRECISION)
                .low_u128();
            // The next magnitudes together have less than 2^-127.
            let last = threshold + 1 >= 1 << PRECISION;
            let threshold = if last { 1 << PRECISION } else { threshold };
            let rounded = Wide::at_limb(threshold, 0)
                .times_shifted(&Wide::at_limb(1, 1), 64 - (COMPUTED - PRECISION));
            let error = signed_difference(&cumulative, &rounded);
            distance += (error - last_error).abs();
            last_error = error;
            thresholds.push(threshold);
            if last {
                break;
            }
        }
        // The magnitudes that the table does not have: at most what its last row has too much.
        distance = 0.5 * (distance + last_error.abs());
        let steps = usize::BITS - thresholds.len().leading_zeros();
        thresholds.resize((1 << steps) - 1, 1 << PRECISION);
        Self {
            thresholds,
            steps,
            // Cut weights (2^-189) and the arithmetic of this sum in `f64`.
            distance: distance * (1.0 + 1e-9) + power_of_two(-180),
        }
    }

    /// An upper bound of the total variation distance of one draw to the exact law.
    pub(super) fn distance(&self) -> f64 {
        self.distance
    }

    /// Table steps of a draw: the same for all draws.
    pub(super) fn steps(&self) -> u32 {
        self.steps
    }

    /// Adds `factor` times fresh noise to each of `values` (wrapping).
    pub(super) fn add(&self, rng: &mut dyn Rng, factor: i64, values: &mut [i64]) {
        for values in values.chunks_mut(LANES) {
            let mut bytes = [0; 16 * LANES];
            rng.fill_bytes(&mut bytes);
            let mut words = [0u128; LANES];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<16>().0) {
                *word = u128::from_le_bytes(*bytes);
            }
            let noise = self.look_up(&words);
            for (value, noise) in values.iter_mut().zip(noise) {
                *value = value.wrapping_add(noise.wrapping_mul(factor));
            }
        }
    }

    /// The lowest bit is the sign, the others are compared.
    #[inline]
    fn look_up(&self, words: &[u128; LANES]) -> [i64; LANES] {
        let uniform = words.map(|word| word >> 1);
        let mut places = [0usize; LANES];
        for step in (0..self.steps).rev() {
            let half = 1usize << step;
            for (place, uniform) in places.iter_mut().zip(&uniform) {
                // Both are at most 2^127, so the top bit of the difference says which is larger. A
                // compiler that saw a comparison would make a branch, which nobody can predict.
                let difference = uniform.wrapping_sub(self.thresholds[*place + half - 1]);
                let below = core::hint::black_box((difference >> 64) as u64) >> 63;
                *place += half & (below as usize).wrapping_sub(1);
            }
        }
        let mut noise = [0; LANES];
        for ((noise, place), word) in noise.iter_mut().zip(places).zip(words) {
            let negative = (*word as i64 & 1).wrapping_neg();
            *noise = (place.cast_signed() as i64 ^ negative).wrapping_sub(negative);
        }
        noise
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.thresholds
            .iter()
            .filter(|&&threshold| threshold != 1 << PRECISION)
            .count()
            + 1
    }

    /// The probability of a magnitude as drawn, in units of `2^-127`.
    #[cfg(test)]
    pub(super) fn mass(&self, magnitude: usize) -> u128 {
        let at = |place: usize| self.thresholds[place].min(1 << PRECISION);
        match magnitude {
            0 => at(0),
            _ if magnitude >= self.thresholds.len() => 0,
            _ => at(magnitude) - at(magnitude - 1),
        }
    }
}

/// `exp(-numerator / denominator)` with 448 bits after the point: the argument is halved until
/// its series converges fast, and the result squared as often. Each squaring at most doubles the
/// error, and there are at most 20.
fn exp_minus(numerator: u64, denominator: u64) -> Wide {
    let one = Wide::at_limb(1, POINT);
    let mut argument = one.times_small(numerator).over_small(denominator);
    let mut halvings = 0;
    while argument.bits() > 448 - 8 {
        argument = argument.over_small(2);
        halvings += 1;
    }
    let (mut positive, mut negative) = (one, Wide::ZERO);
    let mut term = one;
    let mut order = 1;
    loop {
        term = term.times_shifted(&argument, 448).over_small(order);
        if term.is_zero() {
            break;
        }
        if order % 2 == 1 {
            negative = negative.plus(&term);
        } else {
            positive = positive.plus(&term);
        }
        order += 1;
    }
    let mut result = positive.minus(&negative);
    for _ in 0..halvings {
        result = result.times_shifted(&result, 448);
    }
    result
}

/// `(a - b) / 2^190` for close numbers.
fn signed_difference(a: &Wide, b: &Wide) -> f64 {
    let (difference, sign) = if a >= b {
        (a.minus(b), 1.0)
    } else {
        (b.minus(a), -1.0)
    };
    sign * difference.low_u128() as f64 * power_of_two(-190)
}

/// `2^exponent`, for exponents of normal numbers.
fn power_of_two(exponent: i32) -> f64 {
    libm::ldexp(1.0, exponent)
}
