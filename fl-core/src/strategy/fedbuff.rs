//! FedBuff: Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba 2022, "Federated Learning with
//! Buffered Asynchronous Aggregation", arXiv:2106.06639, algorithm 1.
//!
//! Clients train at their own pace. The server adds `s(staleness) update` for each that arrives; once
//! `K` have, `w <- w + server_learning_rate/K sum_k s_k update_k` and the buffer is empty again. The
//! machine that does it is [`BufferedServer`](crate::BufferedServer), `K` its buffer; this is the
//! weight and the step. Note the denominator: not the weights' sum but `K`, so a buffer of stale
//! updates makes a small step.
//!
//! `K` is the number of updates that are in the sum: one that is rejected, e.g. for not being finite,
//! has neither weight nor place. In a synchronous round this is the plain mean of the cohort.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::staleness::{SCALE, step_by_count};
use super::{ModelState, RoundInfo, Staleness, Stragglers, Strategy, StrategyError};
use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::sum::Aggregate;
use crate::units::{ExampleCount, Weight};
use crate::update::Report;

/// Keys of `kind = "fedbuff"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FedBuffConfig {
    /// How much a stale update counts.
    pub staleness: Staleness,
    /// Factor of the step, above 0.
    pub server_learning_rate: f64,
    /// What becomes of clients that did only a part of their work.
    pub stragglers: Stragglers,
}

impl Default for FedBuffConfig {
    fn default() -> Self {
        Self {
            staleness: Staleness::SQUARE_ROOT,
            server_learning_rate: 1.0,
            stragglers: Stragglers::Drop,
        }
    }
}

/// Buffered asynchronous averaging, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FedBuff {
    config: FedBuffConfig,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FedBuffState {
    global: Parameters,
}

impl ModelState for FedBuffState {
    fn global(&self) -> &Parameters {
        &self.global
    }

    fn prune(&mut self, mask: &Mask) {
        mask.apply(self.global.values_mut());
    }
}

/// The key of both asynchronous strategies.
pub(super) const STALENESS: KeyInfo = KeyInfo {
    key: "staleness",
    expects: "table: kind \"constant\", \"polynomial\" with exponent, or \"hinge\" with slope and grace",
    default: Some(r#"{ kind = "polynomial", exponent = 0.5 }"#),
    summary: "How much an update counts that was trained from an older version: by `t` versions, 1, \
              `(t + 1)^-exponent`, or `1 / (slope (t - grace) + 1)` beyond `grace`.",
};

/// The key of both asynchronous strategies.
pub(super) const STRAGGLERS: KeyInfo = KeyInfo {
    key: "stragglers",
    expects: "\"drop\" or \"partial\"",
    default: Some("\"drop\""),
    summary: "Whether clients that did only a part of their work are dropped or kept.",
};

impl Registered for FedBuff {
    type Config = FedBuffConfig;
    const SUMMARY: &'static str =
        "Buffered asynchronous aggregation, stale updates count less (Nguyen et al. 2022).";
    const KEYS: &'static [KeyInfo] = &[
        STALENESS,
        KeyInfo {
            key: "server_learning_rate",
            expects: "number above 0",
            default: Some("1.0"),
            summary: "Factor of the step; the paper's eta_g.",
        },
        STRAGGLERS,
    ];

    fn from_config(config: FedBuffConfig) -> Result<Self, ConfigError> {
        let rate = config.server_learning_rate;
        ConfigError::unless(
            rate.is_finite() && rate > 0.0,
            "server_learning_rate",
            rate,
            "a finite number above 0",
        )?;
        config.staleness.check()?;
        Ok(Self { config })
    }

    fn examples() -> Vec<FedBuffConfig> {
        let default = FedBuffConfig::default();
        vec![
            default,
            FedBuffConfig {
                staleness: Staleness::Constant {},
                stragglers: Stragglers::Partial,
                ..default
            },
            FedBuffConfig {
                staleness: Staleness::Hinge {
                    slope: 10.0,
                    grace: 4,
                },
                server_learning_rate: 0.3,
                ..default
            },
        ]
    }
}

impl Strategy for FedBuff {
    type State = FedBuffState;

    fn init(&self, global: Parameters) -> FedBuffState {
        FedBuffState { global }
    }

    fn plan(
        &self,
        _: &FedBuffState,
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

    fn weight(&self, report: &Report, info: &RoundInfo) -> Weight {
        self.config.staleness.weight(report, info)
    }

    fn largest_weight(&self, _: ExampleCount) -> Weight {
        Weight(SCALE)
    }

    fn apply(
        &self,
        mut state: FedBuffState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<FedBuffState, StrategyError> {
        let rate = self.config.server_learning_rate;
        step_by_count(&mut state.global, mean, rate, info.round)?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::{info, model};
    use crate::sum::{Aggregator as _, ExactSum};
    use crate::testing::report_from;
    use crate::units::RoundId;

    fn fedbuff(server_learning_rate: f64) -> FedBuff {
        FedBuff::from_config(FedBuffConfig {
            server_learning_rate,
            ..FedBuffConfig::default()
        })
        .unwrap()
    }

    /// The sum of `(version, update)` at version 3.
    fn sum(strategy: &FedBuff, arrived: &[(u64, f32)]) -> ExactSum {
        let mut sum = ExactSum::new(crate::strategy::tests::ring(arrived.len() as u64), 1);
        for &(version, update) in arrived {
            let weight = strategy.weight(&report_from(0, RoundId(version)), &info(3));
            sum.absorb(&[update], weight).unwrap();
        }
        sum
    }

    /// Algorithm 1 by hand. The model is 1 at version 3 and K is 2. One client was given version 3:
    /// s = 1, update 1/2. The other was given version 0: s = 1/sqrt(1 + 3) = 1/2, update -2. With
    /// eta_g = 1/2: 1 + 1/2 * 1/2 * (1 * 1/2 + 1/2 * -2) = 1 - 1/8. (By the weights' sum it would be
    /// 1 + 1/2 * (-1/2) / (3/2) = 5/6.)
    #[test]
    fn two_clients_of_different_staleness_by_hand() {
        let strategy = fedbuff(0.5);
        let mean = sum(&strategy, &[(3, 0.5), (0, -2.0)]).finish().unwrap();
        let state = strategy.init(model(&[1.0]));
        let state = strategy.apply(state, &mean, &info(3)).unwrap();
        assert_eq!(state.global().values(), [0.875]);
    }

    /// Both from version 0: half of the mean update, where a weighted mean would take all of it.
    #[test]
    fn a_buffer_of_stale_updates_makes_a_small_step() {
        let strategy = fedbuff(1.0);
        let mean = sum(&strategy, &[(0, 0.5), (0, -2.0)]).finish().unwrap();
        let state = strategy.apply(strategy.init(model(&[1.0])), &mean, &info(3));
        assert_eq!(state.unwrap().global().values(), [0.625]);
    }

    /// K counts what is in the sum: an update that is not a number leaves the other alone.
    #[test]
    fn a_rejected_update_has_no_place() {
        let strategy = fedbuff(1.0);
        let mean = sum(&strategy, &[(3, 0.5), (3, f32::NAN)]).finish().unwrap();
        let state = strategy.apply(strategy.init(model(&[1.0])), &mean, &info(3));
        assert_eq!(state.unwrap().global().values(), [1.5]);
    }

    #[test]
    fn a_released_mean_is_taken_as_it_is() {
        let strategy = fedbuff(0.5);
        let mean = Aggregate::released(vec![3.0]);
        let state = strategy.apply(strategy.init(model(&[1.0])), &mean, &info(3));
        assert_eq!(state.unwrap().global().values(), [2.5]);
    }
}
