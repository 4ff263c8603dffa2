//! Conformance suites for strategies, selectors, aggregators and trainers, for the tests of this
//! workspace and of plug-ins outside of it (feature `testing`).
//!
//! Each suite is a function that takes a factory and panics, with what was found, when a law of
//! the trait is broken. The registry macro calls the suites of its family on every entry.
//!
//! [`reference`] holds a small data set and a trainer without any tricks to test against.

mod aggregator;
pub mod reference;
mod selector;
mod strategy;
mod trainer;

pub use aggregator::aggregator;
pub use selector::selector;
pub use strategy::{averaging, strategy};
pub use trainer::trainer;

use crate::stream::{Purpose, Stream};
use crate::units::{ClientId, RoundId, Seed};

/// A stream for tests.
#[must_use]
pub fn stream(seed: u64, client: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(client))
}

/// `len` normal numbers times `scale`.
#[must_use]
pub fn normals(stream: &mut Stream, len: usize, scale: f64) -> Vec<f32> {
    (0..len).map(|_| (stream.normal() * scale) as f32).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn bits64(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}
