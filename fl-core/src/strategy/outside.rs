//! Strategies from outside this workspace.
//!
//! Whoever writes a [`Strategy`] in a crate of their own wraps it in [`Outside`], and it runs wherever
//! one of the registry does: in rounds, buffered, with noise, with secure aggregation, interrupted
//! and resumed. `testing::strategy` (feature `testing`) is the suite that it should pass first.
//!
//! Its state is kept encoded between rounds, so that a checkpoint can hold it without knowing its
//! type: a round costs one decoding and one encoding more than for a strategy of the registry, and
//! every plan one decoding. Encoding is [postcard](https://docs.rs/postcard), which keeps every bit of
//! a float.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::{ModelState, Reference, RoundInfo, Stragglers, Strategy, StrategyError};
use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::sum::Aggregate;
use crate::units::{ExampleCount, Weight};
use crate::update::Report;

/// A strategy from outside the registry.
#[derive(Clone, Debug, Serialize)]
pub struct Outside {
    kind: &'static str,
    config: String,
    #[serde(skip)]
    strategy: Arc<dyn Erased>,
}

/// The state of a strategy from outside: the global model, and everything encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutsideState {
    global: Parameters,
    /// The strategy's own state, the global model in it.
    encoded: Vec<u8>,
    /// What was pruned since it was encoded, in order.
    masks: Vec<Mask>,
}

impl Outside {
    /// `strategy` under the name `kind`. `config` is what it was made from, in any form that says
    /// all of it: runs whose strategies have the same `kind` and `config` are taken to be the same.
    #[must_use]
    pub fn new<S: Strategy + 'static>(
        kind: &'static str,
        strategy: S,
        config: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            config: config.into(),
            strategy: Arc::new(Plugged { kind, strategy }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What it was made from, as given.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.config
    }
}

impl PartialEq for Outside {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.config) == (other.kind, &other.config)
    }
}

impl ModelState for OutsideState {
    fn global(&self) -> &Parameters {
        &self.global
    }

    fn prune(&mut self, mask: &Mask) {
        mask.apply(self.global.values_mut());
        self.masks.push(mask.clone());
    }
}

/// A [`Strategy`] without its type of state.
trait Erased: Debug + Send + Sync {
    fn init(&self, global: Parameters) -> OutsideState;
    fn plan(
        &self,
        state: &OutsideState,
        info: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError>;
    fn stragglers(&self) -> Stragglers;
    fn relative_to(&self) -> Reference;
    fn weight(&self, report: &Report, info: &RoundInfo) -> Weight;
    fn largest_weight(&self, examples: ExampleCount) -> Weight;
    fn apply(
        &self,
        state: OutsideState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<OutsideState, StrategyError>;
}

#[derive(Debug)]
struct Plugged<S> {
    kind: &'static str,
    strategy: S,
}

impl<S: Strategy> Plugged<S> {
    fn encode(state: &S::State) -> OutsideState {
        OutsideState {
            global: state.global().clone(),
            // A state that cannot be encoded is found to be nobody's when it is used.
            encoded: postcard::to_allocvec(state).unwrap_or_default(),
            masks: Vec::new(),
        }
    }

    fn decode(&self, state: &OutsideState) -> Result<S::State, StrategyError> {
        let decoded = postcard::from_bytes(&state.encoded);
        let mut decoded: S::State = decoded.map_err(|_| StrategyError::WrongState {
            strategy: self.kind,
        })?;
        for mask in &state.masks {
            decoded.prune(mask);
        }
        Ok(decoded)
    }
}

impl<S: Strategy> Erased for Plugged<S> {
    fn init(&self, global: Parameters) -> OutsideState {
        Self::encode(&self.strategy.init(global))
    }

    fn plan(
        &self,
        state: &OutsideState,
        info: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError> {
        self.strategy.plan(&self.decode(state)?, info, local)
    }

    fn stragglers(&self) -> Stragglers {
        self.strategy.stragglers()
    }

    fn relative_to(&self) -> Reference {
        self.strategy.relative_to()
    }

    fn weight(&self, report: &Report, info: &RoundInfo) -> Weight {
        self.strategy.weight(report, info)
    }

    fn largest_weight(&self, examples: ExampleCount) -> Weight {
        self.strategy.largest_weight(examples)
    }

    fn apply(
        &self,
        state: OutsideState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<OutsideState, StrategyError> {
        let state = self.decode(&state)?;
        let next = self.strategy.apply(state, mean, info)?;
        Ok(Self::encode(&next))
    }
}

impl Strategy for Outside {
    type State = OutsideState;

    fn init(&self, global: Parameters) -> OutsideState {
        self.strategy.init(global)
    }

    fn plan(
        &self,
        state: &OutsideState,
        info: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError> {
        self.strategy.plan(state, info, local)
    }

    fn stragglers(&self) -> Stragglers {
        self.strategy.stragglers()
    }

    fn relative_to(&self) -> Reference {
        self.strategy.relative_to()
    }

    fn weight(&self, report: &Report, info: &RoundInfo) -> Weight {
        self.strategy.weight(report, info)
    }

    fn largest_weight(&self, examples: ExampleCount) -> Weight {
        self.strategy.largest_weight(examples)
    }

    fn apply(
        &self,
        state: OutsideState,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<OutsideState, StrategyError> {
        self.strategy.apply(state, mean, info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registered as _;
    use crate::strategy::{FedAvg, FedAvgConfig, FedProx, FedProxConfig};

    fn momentum() -> FedAvg {
        let config = FedAvgConfig {
            server_momentum: 0.9,
            ..FedAvgConfig::default()
        };
        FedAvg::from_config(config).unwrap()
    }

    /// Wrapped strategies keep the laws, those of pruning and of checkpoints among them.
    #[test]
    fn the_suite_holds_from_outside() {
        crate::testing::strategy(&|| Outside::new("mine", momentum(), "0.9"));
        let prox = FedProx::from_config(FedProxConfig::new(0.5)).unwrap();
        crate::testing::strategy(&|| Outside::new("prox", prox, ""));
    }

    #[test]
    fn the_state_of_another_strategy_is_refused() {
        let layout = crate::Layout::new([("a".into(), alloc::vec![2])]).unwrap();
        let model = Parameters::new(Arc::new(layout), alloc::vec![1.0, 2.0]).unwrap();
        let prox = FedProx::from_config(FedProxConfig::new(0.5)).unwrap();
        let mine = Outside::new("mine", momentum(), "");
        let info = RoundInfo {
            round: crate::RoundId(0),
            population: 3,
        };
        let mut state = mine.init(model);
        state.encoded.truncate(3);
        let local = crate::testing::local_plan();
        let refused = mine.plan(&state, &info, &local).unwrap_err();
        assert_eq!(refused, StrategyError::WrongState { strategy: "mine" });
        assert_ne!(mine, Outside::new("mine", prox, "mu 0.5"));
        assert_eq!(mine, Outside::new("mine", momentum(), ""));
    }
}
