//! FedAsync: Xie, Koyejo, Gupta 2019, "Asynchronous Federated Optimization", arXiv:1903.03934,
//! algorithm 1 and section 5.
//!
//! Whenever a client's *model* `x_new` arrives, trained from version `tau`, the server mixes it in:
//! `x_t = (1 - alpha_t) x_(t-1) + alpha_t x_new` with `alpha_t = mixing s(t - tau)`. Clients minimise
//! `f(x) + mu/2 norm(x - x_tau)^2` (`mu` is the paper's rho).
//!
//! `alpha_t x_new - alpha_t x_(t-1)` is `alpha_t` times the update *relative to the current model*,
//! hence [`Reference::Current`]: what a client sends, `x_new - x_tau`, is moved by `x_tau - x_(t-1)`
//! before it is summed. The paper's server keeps no buffer, `K = 1` of
//! [`BufferedServer`](crate::BufferedServer); with a larger one, or in a synchronous round, the step
//! is the mean of the steps that the clients would make by themselves.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::fedbuff::{STALENESS, STRAGGLERS};
use super::staleness::{SCALE, step_by_count};
use super::{ModelState, Reference, RoundInfo, Staleness, Stragglers, Strategy, StrategyError};
use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::sum::Aggregate;
use crate::units::{ExampleCount, Weight};
use crate::update::Report;

/// Keys of `kind = "fedasync"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FedAsyncConfig {
    /// The paper's alpha, in `(0, 1]`.
    pub mixing: f64,
    /// How much a stale model counts.
    pub staleness: Staleness,
    /// The paper's rho, at least 0.
    pub mu: f32,
    /// What becomes of clients that did only a part of their work.
    pub stragglers: Stragglers,
}

impl Default for FedAsyncConfig {
    fn default() -> Self {
        Self {
            mixing: 0.6,
            staleness: Staleness::SQUARE_ROOT,
            mu: 0.0,
            stragglers: Stragglers::Drop,
        }
    }
}

/// Asynchronous mixing of models, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FedAsync {
    config: FedAsyncConfig,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FedAsyncState {
    global: Parameters,
}

impl ModelState for FedAsyncState {
    fn global(&self) -> &Parameters {
        &self.global
    }

    fn prune(&mut self, mask: &Mask) {
        mask.apply(self.global.values_mut());
    }
}

impl Registered for FedAsync {
    type Config = FedAsyncConfig;
    const SUMMARY: &'static str =
        "Each client's model is mixed into the global one, a stale one less (Xie et al. 2019).";
    const KEYS: &'static [KeyInfo] = &[
        KeyInfo {
            key: "mixing",
            expects: "number above 0, at most 1",
            default: Some("0.6"),
            summary: "How far the model moves towards a client's model that is not stale; the paper's \
                      alpha.",
        },
        STALENESS,
        KeyInfo {
            key: "mu",
            expects: "number, at least 0",
            default: Some("0.0"),
            summary: "The proximal coefficient of clients; the paper's rho.",
        },
        STRAGGLERS,
    ];

    fn from_config(config: FedAsyncConfig) -> Result<Self, ConfigError> {
        ConfigError::unless(
            config.mixing > 0.0 && config.mixing <= 1.0,
            "mixing",
            config.mixing,
            "a number above 0 and at most 1",
        )?;
        config.staleness.check()?;
        ConfigError::unless(
            config.mu.is_finite() && config.mu >= 0.0,
            "mu",
            config.mu,
            "a finite number of at least 0",
        )?;
        Ok(Self { config })
    }

    fn examples() -> Vec<FedAsyncConfig> {
        let default = FedAsyncConfig::default();
        vec![
            default,
            FedAsyncConfig {
                mixing: 1.0,
                staleness: Staleness::Constant {},
                mu: 0.01,
                stragglers: Stragglers::Partial,
            },
        ]
    }
}

impl Strategy for FedAsync {
    type State = FedAsyncState;

    fn init(&self, global: Parameters) -> FedAsyncState {
        FedAsyncState { global }
    }

    fn plan(
        &self,
        _: &FedAsyncState,
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

    fn relative_to(&self) -> Reference {
        Reference::Current
    }

    fn weight(&self, report: &Report, info: &RoundInfo) -> Weight {
        self.config.staleness.weight(report, info)
    }

    fn largest_weight(&self, _: ExampleCount) -> Weight {
        Weight(SCALE)
    }

    fn apply(
        &self,
        mut state: FedAsyncState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<FedAsyncState, StrategyError> {
        step_by_count(&mut state.global, mean, self.config.mixing, info.round)?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::{info, model, ring};
    use crate::sum::{Aggregator as _, ExactSum};
    use crate::testing::report_from;
    use crate::units::RoundId;

    /// Algorithm 1 by hand, one value, alpha = 1/2, s = 1/sqrt(1 + staleness). Versions 0 to 4 are
    /// -1, -1, 0, 1 and what follows.
    /// At version 3 comes the model 2 that was trained from version 3: alpha_t = 1/2 and version 4 is
    /// 1/2 * 1 + 1/2 * 2 = 3/2. Then comes the model 0 that was trained from version 1: its staleness
    /// is 3, alpha_t = 1/4 and version 5 is 3/4 * 3/2 + 1/4 * 0 = 9/8.
    #[test]
    fn two_models_of_different_staleness_by_hand() {
        let strategy = FedAsync::from_config(FedAsyncConfig {
            mixing: 0.5,
            ..FedAsyncConfig::default()
        })
        .unwrap();
        let mut state = strategy.init(model(&[1.0]));
        let arrivals = [(3, 3, 1.0f32, 2.0f32, 1.5), (4, 1, -1.0, 0.0, 1.125)];
        for (version, given, model_given, trained, expected) in arrivals {
            let weight = strategy.weight(&report_from(0, RoundId(given)), &info(version));
            let mut update = [trained - model_given];
            let current = state.global().values();
            strategy
                .relative_to()
                .rebase(&mut update, &[model_given], current);
            let mut sum = ExactSum::new(ring(1), 1);
            sum.absorb(&update, weight).unwrap();
            let mean = sum.finish().unwrap();
            state = strategy.apply(state, &mean, &info(version)).unwrap();
            assert_eq!(state.global().values(), [expected]);
        }
    }

    #[test]
    fn an_update_from_the_current_version_is_not_touched() {
        let (given, current) = ([0.1, f32::MAX, -0.0], [0.1, f32::MAX, -0.0]);
        for reference in [Reference::Given, Reference::Current] {
            let mut update = [1e-30f32, -1.0, -0.0];
            reference.rebase(&mut update, &given, &current);
            assert_eq!(
                update.map(f32::to_bits),
                [1e-30f32, -1.0, -0.0].map(f32::to_bits)
            );
        }
        let mut update = [1.0f32, 1.0];
        Reference::Given.rebase(&mut update, &[5.0, 5.0], &[2.0, 9.0]);
        assert_eq!(update.map(f32::to_bits), [1.0f32, 1.0].map(f32::to_bits));
        Reference::Current.rebase(&mut update, &[5.0, 5.0], &[2.0, 9.0]);
        assert_eq!(update.map(f32::to_bits), [4.0f32, -3.0].map(f32::to_bits));
    }

    #[test]
    fn clients_solve_the_proximal_problem() {
        let config = FedAsyncConfig {
            mu: 0.25,
            ..FedAsyncConfig::default()
        };
        let strategy = FedAsync::from_config(config).unwrap();
        let local = crate::testing::local_plan();
        let plan = strategy.plan(&strategy.init(model(&[0.0])), &info(0), &local);
        let plan = plan.unwrap();
        assert_eq!(
            plan,
            LocalPlan {
                proximal_mu: 0.25,
                ..local
            }
        );
    }
}
