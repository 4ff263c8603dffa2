//! Conformance suites for strategies, selectors, aggregators and trainers, for the tests of this
//! workspace and of plug-ins outside of it (feature `testing`).
//!
//! Each suite is a function that takes a factory and panics, with what was found, when a law of
//! the trait is broken. The registry macro calls the suites of its family on every entry.
//!
//! [`mod@reference`] holds a small data set and a trainer without any tricks to test against.

mod aggregator;
pub mod reference;
mod selector;
mod strategy;
mod trainer;

pub use aggregator::aggregator;
pub use selector::selector;
pub use strategy::{averaging, strategy};
pub use trainer::trainer;

use core::num::NonZeroU32;

use crate::plan::{
    BatchSize, ExampleOrder, LearningRate, LocalPlan, LocalWork, Optimizer, Precision,
};
use crate::stream::{Purpose, Stream};
use crate::units::{ClientId, ExampleCount, RoundId, Seed};
use crate::update::{Cost, Report, WorkDone};

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

/// One epoch of plain SGD in batches of ten at rate 0.1.
#[must_use]
pub fn local_plan() -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::MIN),
        batch: BatchSize::Examples(NonZeroU32::MIN.saturating_add(9)),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    }
}

/// The report of a client with one example that did all of its work, for free.
#[must_use]
pub fn report_from(client: u64, round: RoundId) -> Report {
    Report {
        client: ClientId(client),
        round,
        examples: ExampleCount(1),
        steps: 1,
        work: WorkDone::Full,
        cost: Cost::default(),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn bits64(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Asserts that counts fit expected counts: Pearson's chi-square within 5 standard deviations of
/// its mean (the number of degrees of freedom).
///
/// # Panics
/// When they do not.
pub fn assert_fits(observed: &[u64], expected: &[f64]) {
    let pairs = observed.iter().zip(expected);
    let chi: f64 = pairs
        .map(|(&o, e)| (o as f64 - e) * (o as f64 - e) / e)
        .sum();
    let freedom = (observed.len() - 1) as f64;
    assert!(
        chi < freedom + 5.0 * libm::sqrt(2.0 * freedom),
        "chi-square {chi} at {freedom} degrees of freedom: {observed:?} for {expected:?}"
    );
}
