//! A strategy of your own in one file: FedAdam (Reddi et al. 2021, arXiv:2003.00295, algorithm 2),
//! in the whole program. See `docs/tutorial.md`.
//!
//! With the mean update `D` of a round, element by element:
//! `m = beta1 m + (1 - beta1) D`, `v = beta2 v + (1 - beta2) D^2`, `w += rate m / (sqrt(v) + tau)`.

use std::process::ExitCode;

use fl_core::registry::{ConfigError, KeyInfo, Registered};
use fl_core::strategy::{ModelState, RoundInfo, Stragglers, Strategy, StrategyError, step};
use fl_core::{Aggregate, LocalPlan, Mask, Parameters, Report, Weight};
use serde::{Deserialize, Serialize};

fn main() -> ExitCode {
    fledgling::Plugins::new()
        .strategy::<FedAdam>("fedadam")
        .main()
}

/// The keys of `[strategy] kind = "fedadam"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    rate: f64,
    beta1: f64,
    beta2: f64,
    tau: f64,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            rate: 0.03,
            beta1: 0.9,
            beta2: 0.99,
            tau: 1e-3,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct FedAdam(Keys);

/// Everything that is learned; what a checkpoint keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    global: Parameters,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl ModelState for State {
    fn global(&self) -> &Parameters {
        &self.global
    }

    fn prune(&mut self, mask: &Mask) {
        mask.apply(self.global.values_mut());
        for (index, m) in self.m.iter_mut().enumerate() {
            if mask.contains(index) {
                *m = 0.0;
            }
        }
    }
}

impl Registered for FedAdam {
    type Config = Keys;
    const SUMMARY: &'static str = "Adam on the server (Reddi et al. 2021).";
    const KEYS: &'static [KeyInfo] = &[
        KeyInfo {
            key: "rate",
            expects: "number above 0",
            default: Some("0.03"),
            summary: "The server's learning rate.",
        },
        KeyInfo {
            key: "beta1",
            expects: "number, at least 0 and below 1",
            default: Some("0.9"),
            summary: "Share of the first moment that is kept.",
        },
        KeyInfo {
            key: "beta2",
            expects: "number, at least 0 and below 1",
            default: Some("0.99"),
            summary: "Share of the second moment that is kept.",
        },
        KeyInfo {
            key: "tau",
            expects: "number above 0",
            default: Some("0.001"),
            summary: "How adaptive it is: smaller is more.",
        },
    ];

    fn from_config(keys: Keys) -> Result<Self, ConfigError> {
        for (key, value) in [("rate", keys.rate), ("tau", keys.tau)] {
            let fits = value > 0.0 && value.is_finite();
            ConfigError::unless(fits, key, value, "a finite number above 0")?;
        }
        for (key, value) in [("beta1", keys.beta1), ("beta2", keys.beta2)] {
            let fits = (0.0..1.0).contains(&value);
            ConfigError::unless(fits, key, value, "a number of at least 0 and below 1")?;
        }
        Ok(Self(keys))
    }

    fn examples() -> Vec<Keys> {
        vec![Keys::default()]
    }
}

impl Strategy for FedAdam {
    type State = State;

    fn init(&self, global: Parameters) -> State {
        let zeros = vec![0.0; global.values().len()];
        State {
            global,
            m: zeros.clone(),
            v: zeros,
        }
    }

    fn plan(
        &self,
        _: &State,
        _: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError> {
        Ok(*local)
    }

    fn stragglers(&self) -> Stragglers {
        Stragglers::Drop
    }

    fn weight(&self, report: &Report, _: &RoundInfo) -> Weight {
        Weight(report.examples.0)
    }

    fn apply(
        &self,
        mut state: State,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<State, StrategyError> {
        let Self(keys) = self;
        let State { global, m, v } = &mut state;
        if mean.mean().len() != m.len() {
            return Err(StrategyError::WrongLength {
                expected: m.len(),
                given: mean.mean().len(),
            });
        }
        for ((m, v), &d) in m.iter_mut().zip(&mut *v).zip(mean.mean()) {
            *m = keys.beta1 * *m + (1.0 - keys.beta1) * d;
            *v = keys.beta2 * *v + (1.0 - keys.beta2) * d * d;
        }
        let moved = m.iter().zip(&*v).map(|(m, v)| m / (v.sqrt() + keys.tau));
        step(global, moved, keys.rate, info.round)?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_laws_of_strategies() {
        for keys in FedAdam::examples() {
            fl_core::testing::strategy(&|| FedAdam::from_config(keys.clone()).expect("valid keys"));
        }
    }
}
