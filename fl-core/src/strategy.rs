//! The algorithm of a federated run: what clients are asked for and what becomes of their mean.
//!
//! A strategy is a value; its state goes in and out. Everything that is learned is in the state,
//! everything random is addressed by (purpose, seed, round, client), so a checkpoint is the
//! state and the number of the round.
//!
//! # Does the trait hold for what comes later?
//! Checked on paper before it was built; notation as in the papers, `N` clients in all.
//!
//! | algorithm | client | server | how it fits |
//! |---|---|---|---|
//! | SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1) | gradient plus `c - c_i`; sends `dy` and `dc`; keeps `c_i` | `x += lr mean(dy)`, `c += S/N mean(dc)` | The update is the vector `[dy, dc]` of twice the length: sums, secure sums and clipping take any length. `c` is in the state. The uniform weight gives both means; `S` is `tally().clients`, `N` is [`RoundInfo::population`]. To add: a linear gradient term in `FitTask`, and a provided method that broadcasts `c` beside the model. `c_i` belongs to the fleet. |
//! | FedDyn (Acar et al. 2021, arXiv:2111.04263, algorithm 1) | gradient of `f_k - <g_k, w> + a/2 norm(w - w_global)^2`; keeps `g_k` | `h -= a/N sum(w_k - w)`, `w = mean(w_k) - h/a` | `h` is in the state; the sum is mean times clients (uniform weight). Proximal term: `LocalPlan::proximal_mu = a`. The linear term is SCAFFOLD's. |
//! | FedBuff (Nguyen et al. 2022, arXiv:2106.06639, algorithm 1) | plain | every `K` updates `w += lr mean(s(t) update)`, `s = 1/sqrt(1 + t)` | Built: [`fedbuff`]. `s` is a weight: an integer multiple of a fixed step, from [`Report::round`], the version that was trained from, and [`RoundInfo::round`]. The machine that starts clients one by one is [`BufferedServer`](crate::BufferedServer). |
//! | Ditto (Li et al. 2021, arXiv:2012.04221, algorithm 1) | the global task as in FedAvg; then the personal model with `lambda/2 norm(v - w)^2` | FedAvg | The server's part *is* FedAvg. The personal step is a second `FitTask` whose global is `w` and whose start is `v`: fleet state. |
//! | DP-FTRL (Kairouz et al. 2021, arXiv:2103.00039, algorithm 1) | clipped, uniform weight | `w = w_0 + lr (sum of all updates + tree noise)` | State: `w_0`, the running sum, the tree's nodes. Noise is correlated over rounds, so it is added where the state is; its address is [`RoundInfo::round`], its amount comes from the privacy plan. A public denominator: [`Aggregate::sum`](crate::Aggregate::sum), not the mean. |
//!
//! Adaptive server optimizers (Reddi et al. 2021, arXiv:2003.00295) keep moments in the state;
//! q-FedAvg's weights are integers after scaling; FedNova divides an update by its
//! [`Report::steps`] in a transform. Nothing needs per-client state in a strategy.

use core::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::mask::Mask;
use crate::params::Parameters;
use crate::plan::LocalPlan;
use crate::sum::Aggregate;
use crate::units::{ClientId, ExampleCount, RoundId, Weight};
use crate::update::{Cost, Report, WorkDone};

pub mod fedasync;
pub mod fedavg;
pub mod fedbuff;
pub mod fedprox;
pub mod outside;
pub mod staleness;

pub use fedasync::{FedAsync, FedAsyncConfig, FedAsyncState};
pub use fedavg::{FedAvg, FedAvgConfig, FedAvgState};
pub use fedbuff::{FedBuff, FedBuffConfig, FedBuffState};
pub use fedprox::{FedProx, FedProxConfig, FedProxState};
pub use outside::{Outside, OutsideState};
pub use staleness::Staleness;

/// What a strategy is told of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundInfo {
    /// The round.
    pub round: RoundId,
    /// Clients in all, taking part or not.
    pub population: u64,
}

/// What becomes of a client that did only a part of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stragglers {
    /// Its update is refused, as in FedAvg.
    Drop,
    /// Its update counts like any other, as in FedProx.
    Partial,
}

/// What a client's update is the difference to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The version that the client was given.
    Given,
    /// The version that the sum of updates will be applied to.
    Current,
}

impl Reference {
    /// Turns `update = local - given` into the difference to this reference, before it is encoded.
    /// Where the client was given the current version nothing changes, not by a bit.
    pub fn rebase(self, update: &mut [f32], given: &[f32], current: &[f32]) {
        if self == Self::Given {
            return;
        }
        for ((update, &given), &current) in update.iter_mut().zip(given).zip(current) {
            if given.to_bits() != current.to_bits() {
                *update = (f64::from(*update) + (f64::from(given) - f64::from(current))) as f32;
            }
        }
    }
}

/// How clients are weighed against one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// By their number of examples `n_k`.
    Examples,
    /// All the same.
    Uniform,
}

impl Weighting {
    /// The weight of a client with so many examples.
    #[must_use]
    pub fn weight(self, examples: ExampleCount) -> Weight {
        match self {
            Self::Examples => Weight(examples.0),
            Self::Uniform => Weight(1),
        }
    }
}

/// Why a strategy cannot go on; the run must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrategyError {
    /// The mean is not one value per parameter.
    #[error("the mean has {given} values where the model has {expected} parameters")]
    WrongLength {
        /// Parameters of the model.
        expected: usize,
        /// Values of the mean.
        given: usize,
    },
    /// The new model would not be finite.
    #[error(
        "round {round} would make parameter {index} infinite or not a number; lower \
         `server_learning_rate` or the local learning rate"
    )]
    Diverged {
        /// The round.
        round: RoundId,
        /// The first such parameter.
        index: usize,
    },
    /// The state is that of another strategy.
    #[error(
        "the strategy is `{strategy}` and the state belongs to another; resume with the strategy that wrote the checkpoint"
    )]
    WrongState {
        /// The strategy's kind.
        strategy: &'static str,
    },
}

/// What every strategy's state holds: the global model.
pub trait ModelState {
    /// The global model.
    fn global(&self) -> &Parameters;

    /// Sets what `mask` prunes to zero, in the model and in whatever is remembered of how it
    /// moved.
    ///
    /// # Panics
    /// When the mask is not of this model's parameters.
    fn prune(&mut self, mask: &Mask);
}

/// A federated algorithm. Its suite is `testing::strategy` (feature `testing`).
pub trait Strategy: Debug + Send + Sync {
    /// All that is learned: the global model, momenta, control variates.
    type State: ModelState + Clone + Debug + PartialEq + Send + Sync + Serialize + DeserializeOwned;

    /// The state before the first round.
    fn init(&self, global: Parameters) -> Self::State;

    /// What the clients of this round are asked to do; `local` is the experiment's plan.
    ///
    /// # Errors
    /// [`StrategyError::WrongState`].
    fn plan(
        &self,
        state: &Self::State,
        info: &RoundInfo,
        local: &LocalPlan,
    ) -> Result<LocalPlan, StrategyError>;

    /// What becomes of clients that did only a part of their work.
    fn stragglers(&self) -> Stragglers;

    /// What updates are relative to when they are summed; whoever sums obeys by
    /// [`Reference::rebase`]. In a synchronous round all references are the same.
    fn relative_to(&self) -> Reference {
        Reference::Given
    }

    /// How much an update counts: an integer, so that sums are exact.
    fn weight(&self, report: &Report, info: &RoundInfo) -> Weight;

    /// The largest weight of a client that has at most `examples` examples, known in advance so
    /// that a ring can be planned. To be overridden where the weight does not grow with the
    /// examples or depends on anything else.
    fn largest_weight(&self, examples: ExampleCount) -> Weight {
        let report = Report {
            client: ClientId(0),
            round: RoundId(0),
            examples,
            steps: 1,
            work: WorkDone::Full,
            cost: Cost::default(),
        };
        let info = RoundInfo {
            round: RoundId(0),
            population: 1,
        };
        self.weight(&report, &info)
    }

    /// The state after a round in which the clients' weighted mean update was `mean`.
    ///
    /// # Errors
    /// [`StrategyError`] when there is no such state.
    fn apply(
        &self,
        state: Self::State,
        mean: &Aggregate,
        info: &RoundInfo,
    ) -> Result<Self::State, StrategyError>;
}

/// `global += rate * mean`, each parameter rounded once from `f64`: the last line of most
/// strategies.
///
/// # Errors
/// [`StrategyError::WrongLength`] when there is not one value per parameter,
/// [`StrategyError::Diverged`] when a parameter would not be finite.
pub fn step(
    global: &mut Parameters,
    mean: impl ExactSizeIterator<Item = f64>,
    rate: f64,
    round: RoundId,
) -> Result<(), StrategyError> {
    let values = global.values_mut();
    if mean.len() != values.len() {
        return Err(StrategyError::WrongLength {
            expected: values.len(),
            given: mean.len(),
        });
    }
    let mut finite = true;
    for (value, mean) in values.iter_mut().zip(mean) {
        let moved = (f64::from(*value) + rate * mean) as f32;
        // Adding +0 would turn a -0 into +0: a zero update changes no bit.
        *value = if mean == 0.0 { *value } else { moved };
        finite &= value.is_finite();
    }
    if finite {
        return Ok(());
    }
    let index = global.values().iter().position(|value| !value.is_finite());
    Err(StrategyError::Diverged {
        round,
        index: index.unwrap_or_default(),
    })
}

/// Writes the registry and makes [`AnyStrategy`] a [`Strategy`].
macro_rules! strategies {
    ($($Entry:ident = $kind:literal),+ $(,)?) => {
        crate::registry! {
            family "strategy";
            /// Any strategy of the registry.
            value AnyStrategy;
            /// The keys of `[strategy]`.
            config StrategyConfig;
            dispatch with_strategy;
            conformance crate::testing::strategy;
            outside Outside;
            entries { $($Entry = $kind),+ }
        }

        /// The state of any strategy of the registry.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum AnyState {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`")]
                #[serde(rename = $kind)]
                $Entry(<$Entry as Strategy>::State),
            )+
            /// Of a strategy from outside the registry.
            Outside(OutsideState),
        }

        impl ModelState for AnyState {
            fn global(&self) -> &Parameters {
                match self {
                    $(Self::$Entry(state) => state.global(),)+
                    Self::Outside(state) => state.global(),
                }
            }

            fn prune(&mut self, mask: &Mask) {
                match self {
                    $(Self::$Entry(state) => state.prune(mask),)+
                    Self::Outside(state) => state.prune(mask),
                }
            }
        }

        impl Strategy for AnyStrategy {
            type State = AnyState;

            fn init(&self, global: Parameters) -> AnyState {
                match self {
                    $(Self::$Entry(strategy) => AnyState::$Entry(strategy.init(global)),)+
                    Self::Outside(strategy) => AnyState::Outside(strategy.init(global)),
                }
            }

            fn plan(
                &self,
                state: &AnyState,
                info: &RoundInfo,
                local: &LocalPlan,
            ) -> Result<LocalPlan, StrategyError> {
                match (self, state) {
                    $((Self::$Entry(strategy), AnyState::$Entry(state)) =>
                        strategy.plan(state, info, local),)+
                    (Self::Outside(strategy), AnyState::Outside(state)) =>
                        strategy.plan(state, info, local),
                    _ => Err(StrategyError::WrongState { strategy: self.kind() }),
                }
            }

            fn stragglers(&self) -> Stragglers {
                with_strategy!(self, strategy => strategy.stragglers())
            }

            fn relative_to(&self) -> Reference {
                with_strategy!(self, strategy => strategy.relative_to())
            }

            fn weight(&self, report: &Report, info: &RoundInfo) -> Weight {
                with_strategy!(self, strategy => strategy.weight(report, info))
            }

            fn largest_weight(&self, examples: ExampleCount) -> Weight {
                with_strategy!(self, strategy => strategy.largest_weight(examples))
            }

            fn apply(
                &self,
                state: AnyState,
                mean: &Aggregate,
                info: &RoundInfo,
            ) -> Result<AnyState, StrategyError> {
                match (self, state) {
                    $((Self::$Entry(strategy), AnyState::$Entry(state)) =>
                        strategy.apply(state, mean, info).map(AnyState::$Entry),)+
                    (Self::Outside(strategy), AnyState::Outside(state)) =>
                        strategy.apply(state, mean, info).map(AnyState::Outside),
                    _ => Err(StrategyError::WrongState { strategy: self.kind() }),
                }
            }
        }
    };
}

strategies! {
    FedAvg = "fedavg",
    FedProx = "fedprox",
    FedBuff = "fedbuff",
    FedAsync = "fedasync",
}

#[cfg(test)]
mod tests;
