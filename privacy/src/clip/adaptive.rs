//! A clipping norm that follows a quantile of the updates' norms: Andrew, Thakkar, McMahan and
//! Ramaswamy 2021 (arXiv:1905.03871), algorithm 1 and theorem 1.
//!
//! Each client also contributes a bit: whether its norm was within the bound. Bits count as plus
//! or minus a half, so that one client changes their sum by at most 1/2, and the sum is divided
//! by the **expected** number of clients, which is public. The noise on the bits costs a share of
//! the privacy: with noise of multiplier `z_b` on them and `z_D` on the updates, both together are
//! one Gaussian mechanism of multiplier `z = (z_D^-2 + z_b^-2)^(-1/2)`. So `z_D` is larger than
//! `z`, and the accountant is told of `z` alone. The norm itself only scales updates and noise
//! alike: following it costs nothing more.

use rand_core::Rng;
use serde::{Deserialize, Serialize};

use super::{ClipOutcome, Clipped, Clipper as _, FlatClip, NORMS, changes, check_norm};
use crate::error::PrivacyError;
use crate::mechanism::gaussian;
use crate::relation::NeighboringRelation;
use crate::units::NoiseMultiplier;

/// How a clipping norm adapts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveClipConfig {
    /// The first norm, `C^0`; from 1e-20 to 1e20.
    #[serde(default = "default_initial")]
    pub initial_norm: f64,
    /// The share of updates that is to be within the norm, `gamma`; in `(0, 1)`.
    #[serde(default = "default_quantile")]
    pub quantile: f64,
    /// The step of the logarithm of the norm, `eta_C`; above 0 and at most 10.
    #[serde(default = "default_rate")]
    pub learning_rate: f64,
    /// The expected number of contributing clients; public, at least 1.
    pub expected_clients: f64,
    /// The standard deviation of the noise on the sum of bits that count ±1/2, `sigma_b`, for the
    /// relation of adding or removing one; twice as much is drawn for replacing. Above 0; the
    /// paper takes a twentieth of the expected clients, and
    /// [`default_count_noise`](Self::default_count_noise) no less than few clients need.
    pub count_noise: f64,
}

fn default_initial() -> f64 {
    0.1
}

fn default_quantile() -> f64 {
    0.5
}

fn default_rate() -> f64 {
    0.2
}

impl AdaptiveClipConfig {
    /// The noise on the bits when nothing else is asked for: the paper's `n / 20` (section 3.2),
    /// but at least twice the noise multiplier `z` of bits and updates together. A twentieth of few
    /// clients is less than `z / 2`, which no noise on the updates makes up for, or little more; with
    /// `2 z` the updates' noise is larger by at most 3.3 % for the bits' sake
    /// ([`AdaptiveClip::update_noise`]).
    #[must_use]
    pub fn default_count_noise(expected_clients: f64, total: NoiseMultiplier) -> f64 {
        (expected_clients / 20.0).max(2.0 * total.get())
    }

    /// The paper's values: median, `C^0 = 0.1`, `eta_C = 0.2`, `sigma_b = n / 20`.
    #[must_use]
    pub fn new(expected_clients: f64) -> Self {
        Self {
            initial_norm: default_initial(),
            quantile: default_quantile(),
            learning_rate: default_rate(),
            expected_clients,
            count_noise: expected_clients / 20.0,
        }
    }
}

/// The clipping norm of the round at hand, and how it moves on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct AdaptiveClip {
    config: AdaptiveClipConfig,
    clip: FlatClip,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    config: AdaptiveClipConfig,
    norm: f64,
}

impl TryFrom<Stored> for AdaptiveClip {
    type Error = PrivacyError;

    fn try_from(stored: Stored) -> Result<Self, PrivacyError> {
        let start = Self::new(stored.config)?;
        Ok(Self {
            clip: FlatClip::new(stored.norm)?,
            ..start
        })
    }
}

impl From<AdaptiveClip> for Stored {
    fn from(state: AdaptiveClip) -> Self {
        Self {
            config: state.config,
            norm: state.norm(),
        }
    }
}

impl AdaptiveClip {
    /// The state before the first round.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a value outside its range.
    pub fn new(config: AdaptiveClipConfig) -> Result<Self, PrivacyError> {
        check_norm(config.initial_norm)?;
        let checks = [
            (
                config.quantile > 0.0 && config.quantile < 1.0,
                "the quantile of adaptive clipping",
                config.quantile,
                "a number between 0 and 1",
            ),
            (
                config.learning_rate > 0.0 && config.learning_rate <= 10.0,
                "the learning rate of adaptive clipping",
                config.learning_rate,
                "a number above 0 and at most 10",
            ),
            (
                config.expected_clients >= 1.0 && config.expected_clients.is_finite(),
                "the expected number of clients",
                config.expected_clients,
                "a finite number of at least 1",
            ),
            (
                config.count_noise > 0.0 && config.count_noise.is_finite(),
                "the noise on the count of clipped updates",
                config.count_noise,
                "a finite number above 0; exact counts are private",
            ),
        ];
        for (fits, what, value, expected) in checks {
            PrivacyError::unless(fits, what, value, expected)?;
        }
        Ok(Self {
            config,
            clip: FlatClip::new(config.initial_norm)?,
        })
    }

    /// The clipper of this round.
    #[must_use]
    pub fn clipper(&self) -> FlatClip {
        self.clip
    }

    /// The norm of this round.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.clip.max_norm()
    }

    /// Standard deviation of the noise on the sum of bits, where one contribution changes.
    #[must_use]
    pub fn count_noise(&self) -> f64 {
        self.config.count_noise
    }

    /// The bit of an update, in halves: 1 when it was within the norm, else -1.
    #[must_use]
    pub fn bit(clipped: &Clipped) -> i64 {
        match clipped.outcome {
            ClipOutcome::Within => 1,
            ClipOutcome::Scaled | ClipOutcome::Zeroed => -1,
        }
    }

    /// The multiplier `z_D` of the noise on the updates so that updates and bits together are one
    /// Gaussian mechanism of multiplier `total`: `(z^-2 - (2 sigma_b)^-2)^(-1/2)`, rounded upwards
    /// (theorem 1). No noise in all is none on the updates.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] when the bits alone cost more than `total` allows:
    /// `2 sigma_b <= total`.
    pub fn update_noise(&self, total: NoiseMultiplier) -> Result<NoiseMultiplier, PrivacyError> {
        let (z, bits) = (total.get(), 2.0 * self.config.count_noise);
        PrivacyError::unless(
            z < bits,
            "the noise multiplier",
            z,
            "less than twice the noise on the count of clipped updates; raise `count_noise`",
        )?;
        // z / sqrt(1 - (z / z_b)^2), the difference of squares as a product.
        let rest = (1.0 - z / bits) * (1.0 + z / bits);
        NoiseMultiplier::new(z / libm::sqrt(rest) * (1.0 + 8.0 * f64::EPSILON))
    }

    /// Moves the norm on: `half_bits` is the sum of the clients' [bits](Self::bit), to which the
    /// noise of this relation is added. The paper's `C exp(-eta_C (b - gamma))`. A round without
    /// clients is a round like any other.
    pub fn step<R: Rng + ?Sized>(
        &mut self,
        rng: &mut R,
        half_bits: i64,
        relation: NeighboringRelation,
    ) {
        let mut noise = [0.0f32];
        gaussian::fill(rng, 1.0, &mut noise);
        let noise = f64::from(noise[0]) * changes(relation) * self.config.count_noise;
        let within = (0.5 * half_bits as f64 + noise) / self.config.expected_clients + 0.5;
        let step = -self.config.learning_rate * (within - self.config.quantile);
        let norm = self.norm() * libm::exp(step);
        // Noise without bounds could carry it out of what can be computed with.
        let norm = norm.clamp(*NORMS.start(), *NORMS.end());
        if let Ok(clip) = FlatClip::new(norm) {
            self.clip = clip;
        }
    }
}
