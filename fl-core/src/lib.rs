//! The vocabulary and the rules of a federated-learning round.
//!
//! No clock, no network, no files, no threads: a simulator and a production aggregator drive the
//! same types.
#![forbid(unsafe_code)]

pub mod bits;
pub mod examples;
pub mod params;
pub mod plan;
pub mod registry;
pub mod ring;
pub mod round;
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

pub use examples::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};
pub use params::{Layout, ModelDigest, Parameters, ParametersError, TensorSpec};
pub use plan::{
    BatchSize, LearningRate, LocalPlan, LocalWork, Optimizer, Precision, Schedule, ScheduleUnit,
    WorkLimit,
};
pub use registry::{ConfigError, KeyInfo, KindError, KindInfo, Registered};
pub use ring::{RingError, RingPlan, WeightBounds};
pub use round::{
    Answer, Event, Message, Notice, Outcome, Phase, Refusal, Refusals, RoundError, RoundRecord,
    RoundServer, RoundSettings, RunSetup, Transmit,
};
pub use select::{AnySelector, Candidates, SelectError, Selection, Selector, SelectorConfig};
pub use strategy::{
    AnyState, AnyStrategy, ModelState, RoundInfo, Stragglers, Strategy, StrategyConfig,
    StrategyError, Weighting,
};
pub use stream::{Purpose, Stream, StreamAddress};
pub use sum::{Absorbed, Aggregate, Aggregator, ExactSum, Rejection, Rejections, SumError, Tally};
pub use trainer::{Evaluation, FitTask, LocalResult, TrainError, Trainer};
pub use transform::{ClipNorm, TransformChain, TransformContext, UpdateTransform};
pub use units::{
    Bytes, ClientId, ExampleCount, RoundId, Seed, VirtualDuration, VirtualTime, Weight,
};
pub use update::{ClientUpdate, Cost, Payload, Report, RingVector, WorkDone};
