//! The vocabulary and the rules of a federated-learning round.
//!
//! No clock, no network, no files, no threads: a simulator and a production aggregator drive the
//! same types.
#![forbid(unsafe_code)]

pub mod examples;
pub mod params;
pub mod plan;
pub mod stream;
pub mod trainer;
pub mod units;

pub use examples::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};
pub use params::{Layout, ModelDigest, Parameters, ParametersError, TensorSpec};
pub use plan::{
    BatchSize, LearningRate, LocalPlan, LocalWork, Optimizer, Precision, Schedule, ScheduleUnit,
    WorkLimit,
};
pub use stream::{Purpose, Stream, StreamAddress};
pub use trainer::{Evaluation, FitTask, LocalResult, TrainError, Trainer};
pub use units::{Bytes, ClientId, ExampleCount, RoundId, Seed, VirtualDuration, Weight};
