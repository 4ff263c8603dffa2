//! The seam for data that are generated when a client is opened.

use fl_core::{ClientId, InputSpec, TargetSpec};

/// Buffers that a worker reuses from client to client. Generated clients are written here;
/// stored ones leave it untouched.
#[derive(Clone, Debug, Default)]
pub struct ClientScratch {
    /// Inputs, row-major, `[rows, input.len()]`.
    pub inputs: Vec<f32>,
    /// Classes, `[rows]`.
    pub classes: Vec<u32>,
}

/// A generated client's examples, in a [`ClientScratch`] or in the generator's own memory.
#[derive(Clone, Copy, Debug)]
pub struct GeneratedView<'a> {
    /// Inputs, row-major, `[rows, input.len()]`.
    pub inputs: &'a [f32],
    /// Classes, `[rows]`.
    pub classes: &'a [u32],
}

/// A population whose examples are computed, not stored: real inputs, classes as targets.
///
/// LAW: what a client holds depends on the generator's parameters, its seed and the client
/// alone, never on which clients were opened before.
pub trait Generator: core::fmt::Debug + Send + Sync {
    /// Population.
    fn clients(&self) -> u64;

    /// Shape of an input; real.
    fn input(&self) -> &InputSpec;

    /// Kind of target; classes.
    fn target(&self) -> TargetSpec;

    /// Training examples of `client`; cheap.
    fn train_len(&self, client: ClientId) -> u64;

    /// Held-out examples of `client`; cheap.
    fn test_len(&self, client: ClientId) -> u64;

    /// The client's training examples.
    fn train<'a>(&'a self, client: ClientId, scratch: &'a mut ClientScratch) -> GeneratedView<'a>;

    /// The client's held-out examples.
    fn test<'a>(&'a self, client: ClientId, scratch: &'a mut ClientScratch) -> GeneratedView<'a>;

    /// SHA-256 of everything that determines the examples: name, parameters, seed.
    fn digest(&self) -> [u8; 32];
}
