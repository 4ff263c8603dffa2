//! The edge runtime: what runs on a device.
#![deny(unsafe_code)]

mod arena;
mod error;
mod graph;
#[expect(
    unsafe_code,
    reason = "vector loads and stores, and calls into code compiled for detected instructions"
)]
pub mod kernel;
pub mod layer;
mod model;
mod plan;
mod session;
mod tagged;
mod train;
pub mod zoo;

pub use error::{EdgeError, LayerError};
pub use graph::LayerSummary;
pub use layer::LayerDef;
pub use model::Model;
pub use session::{BadExample, Session, Step};
pub use train::EdgeTrainer;
pub use zoo::{LayersDef, Loss, MODELS, ModelDef};
