//! What executes a program: steps over buffers and constants, and nothing else.
//!
//! A [`Step`] names its operands by number; a [`Context`] finds them in an arena and among the
//! [`Numbers`] of a file, and calls a kernel. What the steps were made of, a model and its
//! description, is not known here, so that a library for small devices can leave all of that out:
//! it opens what a compiler wrote before ([`Ready`]).

mod numbers;
mod ready;
mod run;
mod schedule;
mod section;
mod step;

use alloc::sync::Arc;

pub(crate) use numbers::Numbers;
pub use ready::Ready;
#[cfg(feature = "describe")]
pub(crate) use ready::{JOINED, apart};
pub(crate) use run::Context;
pub(crate) use schedule::Schedule;
#[cfg(feature = "describe")]
pub(crate) use schedule::Stretch;
pub use section::StepsError;
#[cfg(feature = "describe")]
pub(crate) use section::{Block, KEY_STEPS, LARGE, arrange, base64, encode};
#[cfg(feature = "describe")]
pub(crate) use step::{
    Constant, Factor, IntEnd, IntResidual, Served, StoredEight, StoredFour, StoredLevels, Weight,
};
pub(crate) use step::{INPUT, Slot, Step};

/// Bytes that somebody keeps for as long as they are used: a memory map.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A batch of inputs, example after example.
#[derive(Clone, Copy, Debug)]
pub enum Inputs<'a> {
    /// Real numbers, `[rows, ...]`.
    Real(&'a [f32]),
    /// Tokens, `[rows, length]`.
    Tokens(&'a [u32]),
}

impl Inputs<'_> {
    /// Numbers or tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Real(values) => values.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn part(self, start: usize, len: usize) -> Self {
        match self {
            Self::Real(values) => Inputs::Real(&values[start..start + len]),
            Self::Tokens(tokens) => Inputs::Tokens(&tokens[start..start + len]),
        }
    }
}
