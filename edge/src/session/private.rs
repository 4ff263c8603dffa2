//! Differentially private SGD on examples (Abadi et al. 2016, arXiv:1607.00133, algorithm 1).
//!
//! The sum of clipped gradients, plus noise, divided by a public number, moves the parameters.
//! Nothing here knows of budgets, sampling or accounting: who calls draws the batch (by Poisson
//! sampling, if that is what is accounted), gives the noise multiplier that was calibrated, and
//! gives the noise. What a caller can rely on is the sensitivity: one example more or less moves
//! the noised sum by at most `max_norm`, rounding included, and an empty batch is a step like any
//! other.

use core::ops::Range;

use fl_core::{Examples, Optimizer, Stream};

use super::example::{PartSquares, Weighting};
use super::run::Update;
use super::{Clipped, PerExampleError, Session, Step};
use crate::plan::NormStep;

/// Norms are held to this share of the bound, which covers the rounding of norms (1e-5, by the
/// tests that compare with one example alone), factors and sums.
const MARGIN: f64 = 1.0 - 1.0 / (1 << 15) as f64;

/// Values that noise is asked for at a time.
const NOISE_BLOCK: usize = 16_384;

/// How an example's gradient `g` is held to the bound `C`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Clipping {
    /// `g min(1, C / |g|)` (Abadi et al. 2016, algorithm 1).
    Flat,
    /// Every layer's part of `g`, weight and bias together, to `C / sqrt(layers)` (McMahan et al.
    /// 2018, arXiv:1710.06963), so that the whole has at most `C`. The two products of a recurrent
    /// layer count as two layers, and so do those of an attention.
    PerLayer,
    /// `g C / (|g| + stability)`: every gradient is normalised (Bu et al. 2023, arXiv:2206.07136,
    /// "AUTO-S", their `gamma`).
    Automatic {
        /// Above 0; the authors choose 0.01. A gradient much smaller than this stays small.
        stability: f32,
    },
}

/// Why such a step cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DpSgdError {
    /// A number outside its range.
    #[error("{name} of DP-SGD is {value}, but must be {expected}")]
    OutOfRange {
        /// Which number.
        name: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
}

/// A differentially private step: clipping, noise and the public denominator belong together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpSgd {
    clipping: Clipping,
    max_norm: f64,
    noise_multiplier: f64,
    expected_batch: f64,
}

impl DpSgd {
    /// Steps by the mean of clipped gradients with noise: `(sum + noise) / expected_batch`, where
    /// each summand's L2 norm is at most `max_norm` and the noise's standard deviation is
    /// `noise_multiplier * max_norm`.
    ///
    /// `expected_batch` must be public: the sampling rate times a public number of examples, never
    /// the number of examples that were sampled.
    ///
    /// # Errors
    /// [`DpSgdError::OutOfRange`] unless `max_norm` is from 1e-20 to 1e20, `noise_multiplier` from 0 to
    /// 1e6, `expected_batch` from 1e-9 to 1e12 and the stability of automatic clipping from 1e-12
    /// to 1e12.
    pub fn new(
        clipping: Clipping,
        max_norm: f64,
        noise_multiplier: f64,
        expected_batch: f64,
    ) -> Result<Self, DpSgdError> {
        let stability = match clipping {
            Clipping::Automatic { stability } => f64::from(stability),
            Clipping::Flat | Clipping::PerLayer => 1.0,
        };
        for (name, value, range, expected) in [
            ("max_norm", max_norm, 1e-20..=1e20, "from 1e-20 to 1e20"),
            (
                "noise_multiplier",
                noise_multiplier,
                0.0..=1e6,
                "from 0 to 1e6",
            ),
            (
                "expected_batch",
                expected_batch,
                1e-9..=1e12,
                "from 1e-9 to 1e12",
            ),
            ("stability", stability, 1e-12..=1e12, "from 1e-12 to 1e12"),
        ] {
            if !range.contains(&value) {
                return Err(DpSgdError::OutOfRange {
                    name,
                    value,
                    expected,
                });
            }
        }
        Ok(Self {
            clipping,
            max_norm,
            noise_multiplier,
            expected_batch,
        })
    }

    /// How gradients are clipped.
    #[must_use]
    pub fn clipping(&self) -> Clipping {
        self.clipping
    }

    /// The L2 sensitivity of the sum to one example more or less.
    #[must_use]
    pub fn max_norm(&self) -> f64 {
        self.max_norm
    }

    /// The standard deviation of the noise on each value of the step's gradient.
    #[must_use]
    pub fn noise_std(&self) -> f64 {
        self.noise_multiplier * self.max_norm / self.expected_batch
    }

    /// The clip for a model of so many layers with parameters.
    fn clip(&self, layers: usize) -> Clip {
        let share = match self.clipping {
            Clipping::PerLayer => libm::sqrt(layers.max(1) as f64),
            Clipping::Flat | Clipping::Automatic { .. } => 1.0,
        };
        Clip {
            clipping: self.clipping,
            most: self.max_norm * MARGIN / share,
        }
    }
}

/// A clipping with its bound: of the whole, or of each layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clip {
    clipping: Clipping,
    most: f64,
}

impl Clip {
    /// The whole to `most`.
    pub(super) fn flat(most: f64) -> Self {
        Self {
            clipping: Clipping::Flat,
            most,
        }
    }

    /// Whether factors differ from layer to layer.
    pub(super) fn by_layer(&self) -> bool {
        self.clipping == Clipping::PerLayer
    }

    /// What a gradient of this finite norm is multiplied by.
    fn factor(&self, norm: f64) -> f64 {
        match self.clipping {
            Clipping::Flat | Clipping::PerLayer if norm > self.most => self.most / norm,
            Clipping::Flat | Clipping::PerLayer => 1.0,
            Clipping::Automatic { stability } => self.most / (norm + f64::from(stability)),
        }
    }

    /// The examples' factors times `scale`, for the norms of the whole or of a layer; zero where
    /// the norm of the whole is not a finite number.
    pub(super) fn factors(
        &self,
        totals: &[f64],
        norm: impl Fn(usize) -> f64,
        scale: f64,
        factors: &mut [f32],
    ) {
        for (row, (total, factor)) in totals.iter().zip(factors).enumerate() {
            *factor = if total.is_finite() {
                (self.factor(norm(row)) * scale) as f32
            } else {
                0.0
            };
        }
    }

    /// Examples of the part that are scaled down, wholly or a layer of them, or left out.
    pub(super) fn count(
        &self,
        norms: &[NormStep],
        squares: &PartSquares<'_>,
        totals: &[f64],
    ) -> usize {
        let shrinks = |norm: f64| self.factor(norm) < 1.0;
        (0..squares.rows)
            .filter(|&row| {
                !totals[row].is_finite()
                    || match self.clipping {
                        Clipping::PerLayer => {
                            norms.iter().any(|norm| shrinks(squares.layer(norm, row)))
                        }
                        Clipping::Flat | Clipping::Automatic { .. } => shrinks(totals[row]),
                    }
            })
            .count()
    }
}

impl Session {
    /// Starts a client as [`Session::start`] does, with room for [private
    /// steps](Session::private_step) on up to `rows` examples.
    ///
    /// # Errors
    /// [`PerExampleError`] for a model whose examples have no gradients of their own.
    ///
    /// # Panics
    /// When `global` is not one value per parameter.
    pub fn start_privately(
        &mut self,
        global: &[f32],
        optimizer: &Optimizer,
        rows: usize,
    ) -> Result<(), PerExampleError> {
        self.check_examples()?;
        self.gradient.reserve(self.model.parameters());
        self.make_room_for_norms(rows);
        self.start_at(global, optimizer);
        Ok(())
    }

    /// One step of differentially private SGD on the examples at `rows`, which may be none: their
    /// clipped gradients are added, noise is added to the sum, and the optimizer steps by that over
    /// the expected batch. Plain SGD moves the parameters by the clipped gradients first and by the
    /// noise after; the other optimizers, and a step with [`Step::max_norm`] (which then bounds the
    /// noised mean), by both at once.
    ///
    /// `noise(scale, values)` adds to every value `scale` times independent noise of standard
    /// deviation 1. The scale is [`DpSgd::noise_std`] or, where parameters themselves are given
    /// (plain SGD), that times the rate and negative. Blocks of 16,384 values come in the order of the layout,
    /// the last of a stretch of trained parameters smaller; none when the scale is zero.
    /// [`GaussianNoise`](super::GaussianNoise) is one for simulation.
    ///
    /// Dropout masks come from `stream`. An example whose norm is not a finite number counts as
    /// zero. The losses and the count in what is returned are *not* private.
    ///
    /// Allocates nothing once a batch at least as large was worked on.
    ///
    /// # Errors
    /// [`PerExampleError`]; no parameter has moved then.
    pub fn private_step(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
        private: &DpSgd,
        step: &Step<'_>,
        stream: &mut Stream,
        noise: &mut dyn FnMut(f64, &mut [f32]),
    ) -> Result<Clipped, PerExampleError> {
        self.check_examples()?;
        self.make_room_for_norms(rows.len());
        self.gradient.reserve(self.model.parameters());
        let plain = step.plain_sgd();
        let at_once = !rows.is_empty() && rows.len() <= self.norms.part();
        let update = match plain {
            Some(sgd) if at_once => Update::Step {
                step: sgd,
                anchor: step.anchor,
            },
            _ => Update::Store,
        };
        if rows.is_empty() {
            self.gradient.values_mut().fill(0.0);
        }
        let weighting = Weighting {
            clip: private.clip(self.norms.layers()),
            scale: 1.0 / private.expected_batch,
            update,
        };
        let clipped = self.example_passes(data, rows, Some(weighting), stream)?;
        let std = private.noise_std();
        match plain {
            Some(_) => {
                if !at_once {
                    self.apply(step);
                }
                let trained = self.model.trained();
                add_noise(
                    noise,
                    -f64::from(step.rate) * std,
                    trained,
                    self.weights.values_mut(),
                );
                self.keep_held();
            }
            None => {
                let trained = self.model.trained();
                add_noise(noise, std, trained, self.gradient.values_mut());
                self.apply(step);
            }
        }
        Ok(clipped)
    }
}

/// Noise on some parts of `values`.
fn add_noise(
    noise: &mut dyn FnMut(f64, &mut [f32]),
    scale: f64,
    parts: &[Range<usize>],
    values: &mut [f32],
) {
    if scale.abs() > 0.0 {
        for part in parts {
            for block in values[part.clone()].chunks_mut(NOISE_BLOCK) {
                noise(scale, block);
            }
        }
    }
}
