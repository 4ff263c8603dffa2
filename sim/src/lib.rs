//! The simulator: a fleet of clients, the executor that trains a cohort on every core, evaluation
//! and checkpoints.
//!
//! ```text
//! select a cohort ─▶ draw its fates ─▶ play it on the clock ─▶ train on every core ─▶ exact sum ─▶ apply
//!   fl_core::select    [fleet]           [devices]               [executor]            fl_core::sum  Strategy
//! ```
//!
//! [`Simulation::new`] takes a [`SimulationConfig`], a data set and a model, and
//! [`Simulation::run`] plays rounds, reporting to an [`Observer`]; [`Simulation::resume`] takes a
//! run up from its newest whole [checkpoint]. The same configuration gives the same
//! bytes on any number of threads and after any interruption:
//!
//! * every random decision is drawn from a stream addressed by purpose, seed, round and client,
//!   so there is no generator whose state could be lost or shared;
//! * a client's training is sequential and depends on the client alone, sums are sums of
//!   integers, and everything else that is added is added in a fixed order;
//! * a checkpoint is the state after a whole round, and a round that is interrupted leaves no
//!   trace.
//!
//! With [`CentralPrivacy`] a client's update is clipped before it is summed, and what the strategy
//! applies is what a [`fl_privacy::DpPlan`] releases; with [`ClientPrivacy`] the clients add the noise
//! themselves, and [`fl_privacy::ClientPlan`] keeps the ledger; with [`ExampleLevelPrivacy`] they
//! protect their single examples while they train, and a [`fl_privacy::plan::ExamplePlan`] says who
//! may; see [`privacy`].
//!
//! What a private run promises can be [audited](audit): by an attack that is really run, and by a
//! recorder of what its mechanisms are given.
//!
//! Where the fleet has [devices], a virtual clock runs, and rounds have hours, joules and bytes;
//! [schedule] says when they begin and end, and whether clients wait for one another. [Rollouts](rollout)
//! bring the models to a fleet.
//!
//! Nothing is stored per client of the population: a million clients cost nothing until they are
//! selected. This is the only library of the project with threads. It reads the wall clock only
//! to report how long rounds took, and touches files only for checkpoints.
//!
//! The two seams are [`Population`] (where examples come from) and [`Engine`] (what trains);
//! [`fl_datasets::FederatedDataset`] and [`fl_edge::Model`] are what experiments use.
#![forbid(unsafe_code)]

pub mod aggregation;
pub mod audit;
mod calibrate;
pub mod checkpoint;
mod clock;
pub mod config;
pub mod devices;
pub mod distribution;
pub mod error;
mod evaluate;
mod events;
mod executor;
pub mod faults;
pub mod fleet;
mod flow;
mod grouping;
mod play;
pub mod population;
pub mod privacy;
pub mod progress;
pub mod pruning;
pub mod record;
pub mod regions;
pub mod rollout;
pub mod schedule;
pub mod secagg;
pub mod simulation;

pub use aggregation::{AggregationConfig, AggregationError, GroupsRecord, RobustMean};
pub use checkpoint::{CheckpointError, CheckpointFault, CheckpointWarning, Disk, LocalDisk};
pub use config::{
    CalibrationConfig, CalibrationSource, CheckpointConfig, EvaluationConfig, PerClient,
    SimulationConfig,
};
pub use devices::{ClientPart, FleetRecord, RoundEnd, TelemetryConfig};
pub use error::{ObserverError, SimError};
pub use faults::{Fault, FaultAt, FaultsConfig, FaultsRecord};
pub use fleet::{DeviceConfig, FleetConfig, MixConfig};
pub use population::{Engine, Population};
pub use privacy::{
    CentralPrivacy, ClientPrivacy, ExampleLevelPrivacy, Privacy, PrivacyPlan, PrivacyRecord,
};
pub use progress::{Activity, Progress};
pub use pruning::{Pruning, PruningConfig, PruningRecord};
pub use record::{
    ClientEvaluation, ClientSplit, EvaluationRecord, Observer, RecorderPosition, RoundRecord,
    Silent,
};
pub use regions::{RegionsConfig, RegionsRecord};
pub use schedule::{Mode, ScheduleConfig};
pub use secagg::{
    SecAggConfig, SecAggError, SecAggGraph, SecAggMode, SecAggPlan, SecAggRecord, SecAggSuite,
    SecAggThreat,
};
pub use simulation::{Outcome, Simulation};
