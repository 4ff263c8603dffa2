//! Lower-triangular Toeplitz matrices `C`, given by their first column `c_0, c_1, ...`.
//!
//! All coefficients here are positive and fall, so the columns of `C` have inner products that are
//! at least 0 and the worst that a member can do is to take part in the first round and then as
//! soon and as often as it may, always in the same direction (Kalinin and Lampert 2024, theorem 2).

use serde::{Deserialize, Serialize};

use super::optimize::minimize;
use super::{Participation, Row, subtract};
use crate::error::PrivacyError;

/// A Toeplitz matrix with few bands below its diagonal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredBanded", into = "StoredBanded")]
pub struct BandedToeplitz {
    coefficients: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBanded {
    coefficients: Vec<f64>,
}

impl TryFrom<StoredBanded> for BandedToeplitz {
    type Error = PrivacyError;

    fn try_from(stored: StoredBanded) -> Result<Self, PrivacyError> {
        Self::new(stored.coefficients)
    }
}

impl From<BandedToeplitz> for StoredBanded {
    fn from(matrix: BandedToeplitz) -> Self {
        Self {
            coefficients: matrix.coefficients,
        }
    }
}

impl BandedToeplitz {
    /// The most bands, one of which costs a model's memory each.
    pub const MOST_BANDS: usize = 4096;

    /// The matrix with these coefficients, from the diagonal downwards.
    ///
    /// # Errors
    /// [`PrivacyError`] unless there are 1 to [`Self::MOST_BANDS`], the first is 1, and each is at
    /// most the one before and at least 0.
    pub fn new(coefficients: Vec<f64>) -> Result<Self, PrivacyError> {
        let bands = coefficients.len();
        PrivacyError::unless_count(
            (1..=Self::MOST_BANDS).contains(&bands),
            "the number of bands",
            bands as u64,
            "1 to 4096",
        )?;
        let mut last = 1.0;
        for (place, &coefficient) in coefficients.iter().enumerate() {
            let fits = if place == 0 {
                coefficient.total_cmp(&1.0).is_eq()
            } else {
                (0.0..=last).contains(&coefficient)
            };
            PrivacyError::unless(
                fits,
                "a coefficient of a Toeplitz matrix",
                coefficient,
                "1 for the first, and for the others a number from 0 to the one before",
            )?;
            last = coefficient;
        }
        Ok(Self { coefficients })
    }

    /// The first bands of the square root of `A`, `c_k = binom(2k, k) / 4^k`, whose full matrix is
    /// the best Toeplitz factorization for the largest error of one participation (Fichtenberger,
    /// Henzinger and Upadhyay 2023, arXiv:2202.11205; banded: Kalinin and Lampert 2024). One band
    /// is independent noise.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn square_root(bands: usize) -> Result<Self, PrivacyError> {
        let mut coefficient = 1.0;
        let coefficients = (0..bands.min(Self::MOST_BANDS + 1))
            .map(|k| {
                if k > 0 {
                    coefficient *= (2 * k - 1) as f64 / (2 * k) as f64;
                }
                coefficient
            })
            .collect();
        Self::new(coefficients)
    }

    /// The best bands for the largest error of this participation that gradient descent finds,
    /// starting from [`Self::square_root`]: it minimises `sensitivity * max_t error_t`
    /// (Choquette-Choo et al. 2023, section 5, for Toeplitz matrices). Deterministic; under a
    /// second for a thousand rounds and a hundred bands.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn optimized(bands: usize, participation: &Participation) -> Result<Self, PrivacyError> {
        let start = Self::square_root(bands)?;
        Self::new(descend(&start.coefficients, participation))
    }

    /// From the diagonal downwards.
    #[must_use]
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    pub(super) fn sensitivity(&self, participation: &Participation) -> f64 {
        sensitivity(
            |k| self.coefficients.get(k).copied().unwrap_or(0.0),
            participation,
        )
    }

    pub(super) fn squared_sensitivities(&self, participation: &Participation) -> Vec<f64> {
        running_squares(
            |k| self.coefficients.get(k).copied().unwrap_or(0.0),
            participation,
        )
    }

    pub(super) fn errors(&self, steps: u64) -> Vec<f64> {
        let unit = (0..steps).map(|t| if t == 0 { 1.0 } else { 0.0 });
        row_norms(solve(&self.coefficients, unit))
    }

    /// Solves `C x = z` downwards: `x_t = z_t - sum_k c_k x_(t-k)`. The rows are the last `x`, of
    /// round `t - k` at place `k - 1`.
    pub(super) fn next(
        &self,
        rows: &mut [Row],
        fresh: &mut dyn FnMut(&mut [f32]),
        out: &mut [f32],
    ) {
        fresh(out);
        for (row, &coefficient) in rows.iter().zip(&self.coefficients[1..]) {
            subtract(out, coefficient, &row.0);
        }
        if !rows.is_empty() {
            rows.rotate_right(1);
            rows[0].0.copy_from_slice(out);
        }
    }
}

/// A buffered linear Toeplitz matrix: `c_0 = 1` and `c_k = sum_j omega_j theta_j^(k-1)`, which is
/// inverted with one buffer for each `j`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredBlt", into = "StoredBlt")]
pub struct Blt {
    decays: Vec<f64>,
    scales: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBlt {
    decays: Vec<f64>,
    scales: Vec<f64>,
}

impl TryFrom<StoredBlt> for Blt {
    type Error = PrivacyError;

    fn try_from(stored: StoredBlt) -> Result<Self, PrivacyError> {
        Self::new(stored.decays, stored.scales)
    }
}

impl From<Blt> for StoredBlt {
    fn from(blt: Blt) -> Self {
        Self {
            decays: blt.decays,
            scales: blt.scales,
        }
    }
}

impl Blt {
    /// The most buffers, one of which costs a model's memory each.
    pub const MOST_BUFFERS: usize = 16;

    /// The matrix with these decays `theta` and output scales `omega`.
    ///
    /// # Errors
    /// [`PrivacyError`] unless there are as many of both, 1 to [`Self::MOST_BUFFERS`], the decays
    /// are from 0 to below 1, and the scales are at least 0 with a sum of at most 1 (so that the
    /// coefficients fall).
    pub fn new(decays: Vec<f64>, scales: Vec<f64>) -> Result<Self, PrivacyError> {
        let buffers = decays.len();
        PrivacyError::unless_count(
            (1..=Self::MOST_BUFFERS).contains(&buffers) && scales.len() == buffers,
            "the number of buffers",
            buffers as u64,
            "1 to 16, and as many decays as output scales",
        )?;
        for &decay in &decays {
            PrivacyError::unless(
                (0.0..1.0).contains(&decay),
                "the decay of a buffer",
                decay,
                "a number from 0 to below 1",
            )?;
        }
        let sum: f64 = scales.iter().sum();
        PrivacyError::unless(
            scales.iter().all(|&scale| scale >= 0.0) && sum <= 1.0,
            "the sum of the output scales of buffers",
            sum,
            "at most 1, and no scale below 0",
        )?;
        Ok(Self { decays, scales })
    }

    /// The best matrix for the largest error of this participation that a local search finds:
    /// it minimises `sensitivity * max_t error_t` (McMahan et al. 2024, section 4) from the start
    /// `1 / sqrt(pi k) = (1 / pi) int sqrt(l) e^(-l k) d ln l`, the square root's coefficients as
    /// a sum over decays that are spaced evenly in logarithms. Deterministic; about a second for
    /// ten thousand rounds and four buffers.
    ///
    /// # Errors
    /// [`PrivacyError::CountOutOfRange`] unless there are 1 to [`Self::MOST_BUFFERS`] buffers.
    pub fn optimized(buffers: usize, participation: &Participation) -> Result<Self, PrivacyError> {
        PrivacyError::unless_count(
            (1..=Self::MOST_BUFFERS).contains(&buffers),
            "the number of buffers",
            buffers as u64,
            "1 to 16",
        )?;
        let (slowest, fastest) = (1.0 / participation.steps as f64, 1.0);
        let spacing = libm::log(fastest / slowest) / buffers as f64;
        let mut start = Vec::new();
        for j in 0..buffers {
            let rate = slowest * libm::exp(spacing * (j as f64 + 0.5));
            let decay = libm::exp(-rate);
            start.push(libm::log(decay / (1.0 - decay)));
            let scale = libm::sqrt(rate) * spacing.clamp(0.1, 3.0) * decay;
            start.push(libm::log(scale / core::f64::consts::PI));
        }
        let best = minimize(start, 400 * buffers, &|point| {
            let blt = Self::at(point);
            let last = blt
                .errors(participation.steps)
                .last()
                .copied()
                .unwrap_or(0.0);
            // Errors grow with the rounds, so the last is the largest.
            blt.sensitivity(participation) * last
        });
        let Self { decays, scales } = Self::at(&best);
        Self::new(decays, scales)
    }

    /// From numbers without bounds: logits of decays and logarithms of scales.
    fn at(point: &[f64]) -> Self {
        let pairs = point.as_chunks::<2>().0;
        let decays = pairs
            .iter()
            .map(|[logit, _]| (1.0 / (1.0 + libm::exp(-logit))).min(1.0 - 1e-12))
            .collect();
        let mut scales: Vec<f64> = pairs
            .iter()
            .map(|[_, log]| libm::exp(log.min(50.0)))
            .collect();
        let sum: f64 = scales.iter().sum();
        if sum > 1.0 {
            scales
                .iter_mut()
                .for_each(|scale| *scale *= (1.0 - 1e-12) / sum);
        }
        Self { decays, scales }
    }

    /// The number of buffers.
    #[must_use]
    pub fn buffers(&self) -> usize {
        self.decays.len()
    }

    /// The decays `theta`.
    #[must_use]
    pub fn decays(&self) -> &[f64] {
        &self.decays
    }

    /// The output scales `omega`.
    #[must_use]
    pub fn scales(&self) -> &[f64] {
        &self.scales
    }

    /// The first `count` coefficients of `C`.
    #[must_use]
    pub fn coefficients(&self, count: usize) -> Vec<f64> {
        let mut powers = self.scales.clone();
        (0..count)
            .map(|k| {
                if k == 0 {
                    return 1.0;
                }
                let coefficient = powers.iter().sum();
                powers
                    .iter_mut()
                    .zip(&self.decays)
                    .for_each(|(power, decay)| *power *= decay);
                coefficient
            })
            .collect()
    }

    pub(super) fn sensitivity(&self, participation: &Participation) -> f64 {
        let coefficients = self.coefficients(participation.steps as usize);
        sensitivity(|k| coefficients[k], participation)
    }

    pub(super) fn squared_sensitivities(&self, participation: &Participation) -> Vec<f64> {
        let coefficients = self.coefficients(participation.steps as usize);
        running_squares(|k| coefficients[k], participation)
    }

    pub(super) fn errors(&self, steps: u64) -> Vec<f64> {
        let mut buffers = vec![0.0; self.decays.len()];
        let inverse = (0..steps)
            .map(|t| {
                let read: f64 = buffers
                    .iter()
                    .zip(&self.scales)
                    .map(|(b, scale)| b * scale)
                    .sum();
                let value = if t == 0 { 1.0 } else { 0.0 } - read;
                for (buffer, decay) in buffers.iter_mut().zip(&self.decays) {
                    *buffer = *buffer * decay + value;
                }
                value
            })
            .collect();
        row_norms(inverse)
    }

    /// `x = z - sum_j omega_j s_j`, then `s_j = theta_j s_j + x` (McMahan et al. 2024,
    /// algorithm 3).
    pub(super) fn next(
        &self,
        rows: &mut [Row],
        fresh: &mut dyn FnMut(&mut [f32]),
        out: &mut [f32],
    ) {
        fresh(out);
        for (row, &scale) in rows.iter().zip(&self.scales) {
            subtract(out, scale, &row.0);
        }
        for (row, &decay) in rows.iter_mut().zip(&self.decays) {
            let decay = decay as f32;
            for (buffer, value) in row.0.iter_mut().zip(&*out) {
                *buffer = *buffer * decay + value;
            }
        }
    }
}

/// Solves `C x = y` for the Toeplitz matrix of these coefficients, the first of which is 1.
fn solve(coefficients: &[f64], right: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut solution: Vec<f64> = Vec::new();
    for value in right {
        let below = coefficients.iter().skip(1).zip(solution.iter().rev());
        let known: f64 = below.map(|(c, x)| c * x).sum();
        solution.push(value - known);
    }
    solution
}

/// Steps of the descent.
const DESCENT: usize = 400;

/// Minimises `ln(error of the last round) + ln(sensitivity)` over falling coefficients
/// `c_k = c_(k-1) / (1 + e^-x_k)` by Adam (Kingma and Ba 2015); the best point on the way.
fn descend(start: &[f64], participation: &Participation) -> Vec<f64> {
    let mut point: Vec<f64> = start
        .windows(2)
        .map(|pair| libm::log(pair[1] / (pair[0] - pair[1])))
        .collect();
    let (mut mean, mut square) = (vec![0.0; point.len()], vec![0.0; point.len()]);
    let (mut best, mut least) = (start.to_vec(), f64::INFINITY);
    for step in 1..=DESCENT {
        let ratios: Vec<f64> = point.iter().map(|x| 1.0 / (1.0 + libm::exp(-x))).collect();
        let mut coefficients = vec![1.0];
        for &ratio in &ratios {
            coefficients.push(coefficients.last().copied().unwrap_or(1.0) * ratio);
        }
        let (loss, gradient) = loss(&coefficients, participation);
        if loss < least {
            (best, least) = (coefficients.clone(), loss);
        }
        // A ratio scales its coefficient and all below it.
        let mut below = 0.0;
        let rate = 0.05 * (1.0 - step as f64 / (DESCENT + 1) as f64);
        for k in (0..point.len()).rev() {
            below += gradient[k + 1] * coefficients[k + 1];
            let slope = below * (1.0 - ratios[k]);
            mean[k] = 0.9 * mean[k] + 0.1 * slope;
            square[k] = 0.999 * square[k] + 0.001 * slope * slope;
            let mean = mean[k] / (1.0 - libm::pow(0.9, step as f64));
            let square = square[k] / (1.0 - libm::pow(0.999, step as f64));
            point[k] -= rate * mean / (libm::sqrt(square) + 1e-12);
        }
    }
    best
}

/// `ln(error) + ln(sensitivity)` and its derivatives by the coefficients.
///
/// With generating functions `b = 1 / ((1 - x) c)`, the squared error is `sum_t b_t^2` and
/// `db / dc_k = -x^k b / c`.
fn loss(coefficients: &[f64], participation: &Participation) -> (f64, Vec<f64>) {
    let steps = participation.steps as usize;
    let unit = (0..steps).map(|t| if t == 0 { 1.0 } else { 0.0 });
    let mut total = 0.0;
    let mut prefix = solve(coefficients, unit);
    for value in &mut prefix {
        total += *value;
        *value = total;
    }
    let error: f64 = prefix.iter().map(|b| b * b).sum();
    let divided = solve(coefficients, prefix.iter().copied());
    let coefficient = |k: usize| coefficients.get(k).copied().unwrap_or(0.0);
    let sums = participation_sums(coefficient, participation);
    let squares: f64 = sums.iter().map(|v| v * v).sum();
    let apart = participation.min_separation.min(participation.steps) as usize;
    let gradient = (0..coefficients.len())
        .map(|k| {
            let of_error: f64 = prefix
                .iter()
                .skip(k)
                .zip(&divided)
                .map(|(b, w)| -2.0 * b * w)
                .sum();
            let times = participation.max_participations as usize;
            let rows = sums.iter().skip(k).step_by(apart).take(times);
            let of_squares: f64 = rows.map(|v| 2.0 * v).sum();
            0.5 * (of_error / error + of_squares / squares)
        })
        .collect();
    (0.5 * (libm::log(error) + libm::log(squares)), gradient)
}

/// `|sum_j C[:, j b]|` over the participations `j`, rounded upwards.
fn sensitivity(coefficient: impl Fn(usize) -> f64, participation: &Participation) -> f64 {
    let sums = participation_sums(coefficient, participation);
    let squares: f64 = sums.iter().map(|sum| sum * sum).sum();
    libm::sqrt(squares) * (1.0 + sums.len() as f64 * f64::EPSILON)
}

/// Sums of the squares of the first rows of `sum_j C[:, j b]`, rounded upwards. The worst
/// participations of a shorter run are the first ones of a longer run, so its squared sensitivity
/// is the sum of fewer rows.
fn running_squares(coefficient: impl Fn(usize) -> f64, participation: &Participation) -> Vec<f64> {
    let mut sum = 0.0;
    let sums = participation_sums(coefficient, participation);
    let rounding = 1.0 + (sums.len() + 2) as f64 * f64::EPSILON;
    let squares = sums.into_iter().map(|row| {
        sum += row * row;
        sum * rounding
    });
    squares.collect()
}

/// `sum_j C[:, j b]`: row `t` has `c_t + c_(t-b) + ...`, which is the row `b` earlier with one more
/// coefficient and, once all participations are there, one less.
fn participation_sums(
    coefficient: impl Fn(usize) -> f64,
    participation: &Participation,
) -> Vec<f64> {
    let steps = participation.steps as usize;
    let apart = participation.min_separation.min(participation.steps) as usize;
    let times = participation.max_participations as usize;
    let mut sums: Vec<f64> = Vec::with_capacity(steps);
    for t in 0..steps {
        let earlier = if t >= apart { sums[t - apart] } else { 0.0 };
        let gone = t.checked_sub(times * apart).map_or(0.0, &coefficient);
        sums.push(earlier + coefficient(t) - gone);
    }
    sums
}

/// Row norms of `B = A C^-1` from the coefficients of `C^-1`: prefix sums, then the roots of the
/// sums of their squares.
fn row_norms(inverse: Vec<f64>) -> Vec<f64> {
    let (mut prefix, mut squares) = (0.0, 0.0);
    inverse
        .into_iter()
        .map(|coefficient| {
            prefix += coefficient;
            squares += prefix * prefix;
            libm::sqrt(squares)
        })
        .collect()
}
