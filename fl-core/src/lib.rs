//! The vocabulary and the rules of a federated-learning round.
//!
//! No clock, no network, no files, no threads: a simulator and a production aggregator drive the
//! same types.
//!
//! # A tour
//! - [`units`], [`stream`]: counts, identifiers and times as types; random streams that are
//!   addressed by (purpose, seed, round, client) and never shared.
//! - [`params`], [`examples`], [`plan`], [`trainer`]: a model is one flat `f32` vector with a
//!   [`Layout`]; a client's data are a view; a [`LocalPlan`] says how to train; a [`Trainer`]
//!   does it and leaves `update = local - global`.
//! - [`mask`]: parameters that are zero and stay so.
//! - [`select`]: which clients take part.
//! - [`update`], [`transform`]: what leaves a client, and what happened to it on the way.
//! - [`modular`]: sums of vectors of `Z_2^b`, as secure aggregation gives them.
//! - [`ring`], [`sum`]: updates as integers, so that a sum has the same bits for any order, any
//!   grouping and any number of threads.
//! - [`strategy`]: FedAvg, FedProx, FedBuff, FedAsync and the trait behind them.
//! - [`round`]: the round itself, a state machine that is told what happens and says what to do.
//! - [`buffered`]: its asynchronous twin, where clients train at their own pace.
//! - [`region`]: rounds in two levels: a region sums its own clients.
//! - [`mod@registry`]: a new strategy, selector, partitioner or model is one file and one line.
//! - `testing` (feature `testing`): the laws of the traits as test suites, for plug-ins, too.
//!
//! # A round
//! Two rounds of FedAvg over a thousand clients. In place of training, every client moves one
//! third of the way to its own goal; in place of a network there is a loop.
//!
//! ```
//! use std::sync::Arc;
//!
//! use fl_core::select::{Uniform, UniformConfig};
//! use fl_core::strategy::{FedAvg, FedAvgConfig};
//! use fl_core::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = Arc::new(Layout::new([("w".to_owned(), vec![2])])?);
//! let strategy = FedAvg::from_config(FedAvgConfig::default())?;
//! let state = strategy.init(Parameters::zeros(layout));
//! let config = UniformConfig { cohort: 10, over_select: 1.0 };
//! let setup = RunSetup {
//!     selector: Box::new(Uniform::from_config(config)?),
//!     local: LocalPlan {
//!         work: LocalWork::Epochs(1.try_into()?),
//!         batch: BatchSize::Full,
//!         order: ExampleOrder::Shuffled,
//!         optimizer: Optimizer::SGD,
//!         learning_rate: LearningRate::constant(0.1),
//!         max_gradient_norm: None,
//!         proximal_mu: 0.0,
//!         precision: Precision::F32,
//!         privacy: None,
//!     },
//!     settings: RoundSettings::default(),
//!     chain: TransformChain::default(),
//!     seed: Seed(1),
//!     population: 1000,
//! };
//! // The ring is planned from what is known before any update is seen.
//! let examples = ExampleCount(50);
//! let largest = strategy.largest_weight(examples);
//! let goal = setup.selector.largest_goal(setup.population);
//! let ring = RingPlan::for_weights(WeightBounds::new(largest, goal))?;
//!
//! let mut server = RoundServer::new(strategy, state, RoundId(0), setup);
//! for round in 0..2 {
//!     let now = VirtualTime(round * 1_000_000);
//!     let round = server.round();
//!     server.start(now, &Candidates::everyone(1000), ExactSum::new(ring, 2))?;
//!     // A simulator absorbs into one aggregator per worker; here there is one worker.
//!     let mut worker = ExactSum::new(ring, 2);
//!     let mut absorbed = Vec::new();
//!     while let Some(Transmit { client, message }) = server.poll_transmit() {
//!         match message {
//!             Message::Invite => {
//!                 server.handle(now, Event::Ready(client))?;
//!             }
//!             Message::Train => {
//!                 let update: Vec<f32> =
//!                     server.global().values().iter().map(|w| (3.0 - w) / 3.0).collect();
//!                 let report = Report {
//!                     client,
//!                     round,
//!                     examples,
//!                     steps: 1,
//!                     work: WorkDone::Full,
//!                     cost: Cost::default(),
//!                 };
//!                 // Acceptance comes first, then the sum.
//!                 if let Answer::Accepted { weight } =
//!                     server.handle(now, Event::Reported(report))?
//!                 {
//!                     worker.absorb(&update, weight)?;
//!                     absorbed.push(client);
//!                 }
//!             }
//!             Message::Stop => {}
//!         }
//!     }
//!     server.handle(now, Event::Summed { sum: &mut worker, clients: &absorbed })?;
//!     let ended = std::iter::from_fn(|| server.poll())
//!         .any(|notice| matches!(notice, Notice::Ended(record) if record.tally.clients == 10));
//!     assert!(ended);
//! }
//! for &w in server.global().values() {
//!     assert!((w - 5.0 / 3.0).abs() < 1e-6);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod bits;
#[cfg(feature = "std")]
pub mod buffered;
pub mod examples;
pub mod mask;
pub mod modular;
pub mod norm;
pub mod params;
pub mod plan;
#[cfg(feature = "std")]
pub mod region;
pub mod registry;
pub mod ring;
pub mod robust;
#[cfg(feature = "std")]
pub mod round;
#[cfg(feature = "std")]
pub mod select;
pub mod strategy;
pub mod stream;
pub mod sum;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trainer;
pub mod transform;
pub mod units;
pub mod update;
pub mod wire;

#[cfg(feature = "std")]
pub use buffered::{BufferedRecord, BufferedServer, BufferedSettings, BufferedSetup};
pub use examples::{Examples, InputSpec, InputsMut, NO_TARGET, TargetSpec, TargetsMut};
pub use mask::Mask;
pub use modular::{ModularError, ModularSum};
pub use params::{Layout, ModelDigest, Parameters, ParametersError, TensorSpec};
pub use plan::{
    BatchSize, ExampleClipping, ExampleOrder, ExamplePrivacy, LearningRate, LocalPlan, LocalWork,
    Optimizer, Precision, Schedule, ScheduleUnit, WorkLimit,
};
#[cfg(feature = "std")]
pub use region::{Region, RegionSettings};
pub use registry::{ConfigError, KeyInfo, KindError, KindInfo, Registered};
pub use ring::{RingError, RingPlan, WeightBounds};
pub use robust::GroupMean;
#[cfg(feature = "std")]
pub use round::{
    Answer, Event, Message, Notice, Outcome, Phase, Refusal, Refusals, RoundError, RoundRecord,
    RoundServer, RoundSettings, RunSetup, Transmit,
};
#[cfg(feature = "std")]
pub use select::{
    AnySelector, Candidates, History, Participation, Past, Screened, SelectError, Selection,
    Selector, SelectorConfig,
};
pub use strategy::{
    AnyState, AnyStrategy, ModelState, Reference, RoundInfo, Staleness, Stragglers, Strategy,
    StrategyConfig, StrategyError, Weighting,
};
pub use stream::{Purpose, Stream, StreamAddress};
pub use sum::{Absorbed, Aggregate, Aggregator, ExactSum, Rejection, Rejections, SumError, Tally};
pub use trainer::{Evaluation, FitTask, LocalResult, ServedModel, TrainError, Trainer};
pub use transform::{ClipNorm, TransformChain, TransformContext, UpdateTransform};
pub use units::{
    Bytes, ClientId, ExampleCount, RoundId, Seed, VirtualDuration, VirtualTime, Weight,
};
pub use update::{ClientUpdate, Cost, Payload, Report, RingVector, WorkDone};
