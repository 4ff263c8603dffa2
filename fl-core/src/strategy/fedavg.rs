//! FedAvg: McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, "Communication-Efficient Learning
//! of Deep Networks from Decentralized Data", arXiv:1602.05629, algorithm 1.
//!
//! `w <- w + server_learning_rate * v`, `v <- server_momentum * v + sum_k n_k/m (w_k - w)` with
//! `m = sum_k n_k` over the clients that reported. With the defaults (rate 1, momentum 0) this is
//! the algorithm of the paper; with momentum it is FedAvgM (Hsu, Qi, Brown 2019, arXiv:1909.06335,
//! section 4.3).
//!
//! The paper's clients all finish. Those that do not are dropped by default, as in the comparison
//! of Li et al. 2020 (arXiv:1812.06127, section 5.2); `stragglers = "partial"` keeps their work.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{ModelState, RoundInfo, Stragglers, Strategy, StrategyError, Weighting, step};
use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::sum::Aggregate;
use crate::units::Weight;
use crate::update::Report;

/// Keys of `kind = "fedavg"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FedAvgConfig {
    /// How clients are weighed.
    pub weighting: Weighting,
    /// What becomes of clients that did only a part of their work.
    pub stragglers: Stragglers,
    /// Factor of the mean update, above 0.
    pub server_learning_rate: f64,
    /// Share of the last step that is kept, in `[0, 1)`.
    pub server_momentum: f64,
}

impl Default for FedAvgConfig {
    fn default() -> Self {
        Self {
            weighting: Weighting::Examples,
            stragglers: Stragglers::Drop,
            server_learning_rate: 1.0,
            server_momentum: 0.0,
        }
    }
}

/// Federated averaging, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FedAvg {
    config: FedAvgConfig,
}

/// The model and, with momentum, the velocity `v`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FedAvgState {
    global: Parameters,
    /// Empty without momentum.
    #[serde(with = "crate::bits")]
    velocity: Vec<f32>,
}

impl ModelState for FedAvgState {
    fn global(&self) -> &Parameters {
        &self.global
    }

    fn prune(&mut self, mask: &Mask) {
        mask.apply(self.global.values_mut());
        if !self.velocity.is_empty() {
            mask.apply(&mut self.velocity);
        }
    }
}

impl Registered for FedAvg {
    type Config = FedAvgConfig;
    const SUMMARY: &'static str =
        "Federated averaging (McMahan et al. 2017), optionally with server momentum.";
    const KEYS: &'static [KeyInfo] = &[
        KeyInfo {
            key: "weighting",
            expects: "\"examples\" or \"uniform\"",
            default: Some("\"examples\""),
            summary: "How clients are weighed: by their number of examples, or all the same.",
        },
        KeyInfo {
            key: "stragglers",
            expects: "\"drop\" or \"partial\"",
            default: Some("\"drop\""),
            summary: "Whether clients that did only a part of their work are dropped or kept.",
        },
        KeyInfo {
            key: "server_learning_rate",
            expects: "number above 0",
            default: Some("1.0"),
            summary: "Factor of the mean update.",
        },
        KeyInfo {
            key: "server_momentum",
            expects: "number, at least 0 and below 1",
            default: Some("0.0"),
            summary: "Share of the last step that is kept (FedAvgM).",
        },
    ];

    fn from_config(config: FedAvgConfig) -> Result<Self, ConfigError> {
        let rate = config.server_learning_rate;
        ConfigError::unless(
            rate.is_finite() && rate > 0.0,
            "server_learning_rate",
            rate,
            "a finite number above 0",
        )?;
        ConfigError::unless(
            (0.0..1.0).contains(&config.server_momentum),
            "server_momentum",
            config.server_momentum,
            "a number of at least 0 and below 1",
        )?;
        Ok(Self { config })
    }

    fn examples() -> Vec<FedAvgConfig> {
        let default = FedAvgConfig::default();
        vec![
            default,
            FedAvgConfig {
                weighting: Weighting::Uniform,
                stragglers: Stragglers::Partial,
                ..default
            },
            FedAvgConfig {
                server_momentum: 0.9,
                ..default
            },
        ]
    }
}

impl Strategy for FedAvg {
    type State = FedAvgState;

    fn init(&self, global: Parameters) -> FedAvgState {
        let velocity = if self.config.server_momentum > 0.0 {
            vec![0.0; global.values().len()]
        } else {
            Vec::new()
        };
        FedAvgState { global, velocity }
    }

    fn plan(
        &self,
        _: &FedAvgState,
        _: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError> {
        Ok(LocalPlan {
            proximal_mu: 0.0,
            ..*local
        })
    }

    fn stragglers(&self) -> Stragglers {
        self.config.stragglers
    }

    fn weight(&self, report: &Report, _: &RoundInfo) -> Weight {
        self.config.weighting.weight(report.examples)
    }

    fn apply(
        &self,
        mut state: FedAvgState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<FedAvgState, StrategyError> {
        let FedAvgState { global, velocity } = &mut state;
        let rate = self.config.server_learning_rate;
        let momentum = self.config.server_momentum;
        if momentum > 0.0 {
            velocity.resize(global.values().len(), 0.0);
            for (velocity, mean) in velocity.iter_mut().zip(mean.mean()) {
                *velocity = (momentum * f64::from(*velocity) + mean) as f32;
            }
            if mean.mean().len() != velocity.len() {
                return Err(StrategyError::WrongLength {
                    expected: velocity.len(),
                    given: mean.mean().len(),
                });
            }
            step(
                global,
                velocity.iter().map(|&v| f64::from(v)),
                rate,
                info.round,
            )?;
        } else {
            step(global, mean.mean().iter().copied(), rate, info.round)?;
        }
        Ok(state)
    }
}
