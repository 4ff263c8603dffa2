//! Differential privacy of a client's examples, as a part of its local plan.

use serde::{Deserialize, Serialize};

/// Differentially private SGD on a client's examples (Abadi et al. 2016, arXiv:1607.00133,
/// algorithm 1).
///
/// What a [`Trainer`](crate::Trainer) does with it, in each step:
/// 1. A batch is drawn by Poisson sampling: each example by itself, with the
///    [sampling rate](crate::BatchSize::sampling_rate) `q` of the plan's batch size, from the
///    client's stream of [`Purpose::ExampleSampling`](crate::Purpose::ExampleSampling) by
///    [`Stream::sample`](crate::Stream::sample). It may be empty, and is a step like any other then.
/// 2. Each example's gradient is clipped and they are added.
/// 3. Gaussian noise of standard deviation `noise_multiplier * max_norm` is added to every value,
///    from the client's stream of [`Purpose::LocalNoise`](crate::Purpose::LocalNoise).
/// 4. The sum is divided by the public expected batch, `q` times the number of examples, and the
///    optimizer steps. Momentum, Adam, weight decay, the proximal term and a bound on the whole
///    gradient only see what is private already.
///
/// It takes [`LocalPlan::steps`](crate::LocalPlan::steps) of them, a public number. A trainer that
/// cannot do so refuses the plan with [`TrainError::Unsupported`](crate::TrainError::Unsupported).
///
/// The number of a client's examples counts as public: neighbouring data sets differ in one example
/// that is there or contributes nothing. What it costs is not known here; the noise multiplier is
/// to come from who keeps the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExamplePrivacy {
    /// How an example's gradient is held to the bound.
    pub clipping: ExampleClipping,
    /// The bound `C` of the L2 norm of an example's gradient; from 1e-20 to 1e20.
    pub max_norm: f64,
    /// Standard deviation of the noise on the sum over `max_norm`; from 0, which is no privacy, to
    /// 1e6.
    pub noise_multiplier: f64,
}

impl ExamplePrivacy {
    /// Flat clipping.
    #[must_use]
    pub const fn flat(max_norm: f64, noise_multiplier: f64) -> Self {
        Self {
            clipping: ExampleClipping::Flat,
            max_norm,
            noise_multiplier,
        }
    }
}

/// How an example's gradient `g` is held to the bound `C`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExampleClipping {
    /// `g min(1, C / |g|)` (Abadi et al. 2016, algorithm 1).
    Flat,
    /// Each layer's part of `g` to `C / sqrt(layers)` (McMahan et al. 2018, arXiv:1710.06963).
    PerLayer,
    /// `g C / (|g| + stability)` (Bu et al. 2023, arXiv:2206.07136, "AUTO-S").
    Automatic {
        /// Above 0; the authors choose 0.01.
        stability: f64,
    },
}
