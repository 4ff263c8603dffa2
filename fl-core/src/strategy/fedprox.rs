//! FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, "Federated Optimization in
//! Heterogeneous Networks", arXiv:1812.06127, algorithm 2.
//!
//! Each client minimises `F_k(w) + mu/2 * norm(w - w_t)^2` inexactly: whatever part of its work a
//! straggler manages counts. The server takes the weighted mean of the local models.
//!
//! The paper's algorithm box samples clients with probability `p_k` and averages them evenly; its
//! experiments sample evenly and weigh by `n_k` (section 5.1). The latter is the default here; the
//! former is the selector `weighted` with `weighting = "uniform"`, up to sampling without
//! replacement.

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

/// Keys of `kind = "fedprox"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedProxConfig {
    /// The proximal coefficient `mu`, at least 0.
    pub mu: f32,
    /// How clients are weighed.
    #[serde(default = "by_examples")]
    pub weighting: Weighting,
    /// What becomes of clients that did only a part of their work.
    #[serde(default = "kept")]
    pub stragglers: Stragglers,
}

fn by_examples() -> Weighting {
    Weighting::Examples
}

fn kept() -> Stragglers {
    Stragglers::Partial
}

impl FedProxConfig {
    /// The paper's algorithm with the given `mu`.
    #[must_use]
    pub fn new(mu: f32) -> Self {
        Self {
            mu,
            weighting: by_examples(),
            stragglers: kept(),
        }
    }
}

/// Averaging of proximal local problems, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FedProx {
    config: FedProxConfig,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FedProxState {
    global: Parameters,
}

impl ModelState for FedProxState {
    fn global(&self) -> &Parameters {
        &self.global
    }

    fn prune(&mut self, mask: &Mask) {
        mask.apply(self.global.values_mut());
    }
}

impl Registered for FedProx {
    type Config = FedProxConfig;
    const SUMMARY: &'static str =
        "Proximal local objectives, partial work of stragglers kept (Li et al. 2020).";
    const KEYS: &'static [KeyInfo] = &[
        KeyInfo {
            key: "mu",
            expects: "number, at least 0",
            default: None,
            summary: "The proximal coefficient; the paper tries 0.001, 0.01, 0.1 and 1.",
        },
        KeyInfo {
            key: "weighting",
            expects: "\"examples\" or \"uniform\"",
            default: Some("\"examples\""),
            summary: "How clients are weighed: by their number of examples, or all the same.",
        },
        KeyInfo {
            key: "stragglers",
            expects: "\"drop\" or \"partial\"",
            default: Some("\"partial\""),
            summary: "Whether clients that did only a part of their work are dropped or kept.",
        },
    ];

    fn from_config(config: FedProxConfig) -> Result<Self, ConfigError> {
        ConfigError::unless(
            config.mu.is_finite() && config.mu >= 0.0,
            "mu",
            config.mu,
            "a finite number of at least 0",
        )?;
        Ok(Self { config })
    }

    fn examples() -> Vec<FedProxConfig> {
        vec![
            FedProxConfig::new(0.0),
            FedProxConfig::new(1.0),
            FedProxConfig {
                weighting: Weighting::Uniform,
                stragglers: Stragglers::Drop,
                ..FedProxConfig::new(0.01)
            },
        ]
    }
}

impl Strategy for FedProx {
    type State = FedProxState;

    fn init(&self, global: Parameters) -> FedProxState {
        FedProxState { global }
    }

    fn plan(
        &self,
        _: &FedProxState,
        _: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError> {
        Ok(LocalPlan {
            proximal_mu: self.config.mu,
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
        mut state: FedProxState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<FedProxState, StrategyError> {
        step(
            &mut state.global,
            mean.mean().iter().copied(),
            1.0,
            info.round,
        )?;
        Ok(state)
    }
}
