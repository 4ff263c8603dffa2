//! Pruning: fewer weights, or fewer channels.
//!
//! **Weights.** A [`Mask`] says which weights are zero and stay so. [`magnitude`] takes the smallest
//! ones, in each layer or of all; [`two_of_four`] the smaller two of each four, which some devices
//! multiply at twice the rate; [`GradualSchedule`] says how many at which time (Zhu & Gupta 2017,
//! arXiv:1710.01878); [`rewound`] puts what is left back to where it was early in training, and
//! [`random_like`] makes the mask to compare with (Frankle & Carbin 2019, arXiv:1803.03635).
//! [`Session::hold`](crate::Session::hold) trains under a mask. The model keeps its shape: without
//! hardware for it, zeros save no time, only bytes of a compressed file.
//!
//! **Filters.** [`prune_filters`] removes whole channels and what their consumers have for them (Li
//! et al. 2017, arXiv:1608.08710): the result is a smaller model of the same kind, that everything
//! here trains, quantizes and serves.
//!
//! What is pruned are the weights of products: dense layers, convolutions, recurrent layers,
//! attention. Biases, normalisations, embeddings and positions are few or shared, and stay.

mod filters;
mod magnitude;
mod schedule;

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::error::EdgeError;
use crate::graph::{Graph, Op, TensorId};
use crate::model::Model;

pub use fl_core::Mask;

pub use filters::{ChannelSet, FilterShares, Filters, FiltersPruned, KeptBecause, prune_filters};
pub use magnitude::{Scope, magnitude, random_like, rewound, two_of_four};
pub use schedule::GradualSchedule;

/// Why a model was not pruned.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// A share outside its range.
    #[error("{what} is {value}; expected a share of at least 0 and below 1")]
    Share {
        /// Which share.
        what: &'static str,
        /// Its value, printed.
        value: String,
    },
    /// Values of another model.
    #[error(
        "{given} values were given for a model of {expected}; pass one value for each parameter"
    )]
    Length {
        /// Values that the model has.
        expected: usize,
        /// Values that were given.
        given: usize,
    },
    /// A schedule that takes weights back, or never moves.
    #[error("the schedule's {key} is {value}; expected {expected}")]
    Schedule {
        /// The key.
        key: &'static str,
        /// Its value, printed.
        value: String,
        /// What it must be, in words.
        expected: &'static str,
    },
    /// No layer has channels that can be removed.
    #[error(
        "no layer of the model has channels that can be removed ({reason}); prune single weights \
         in place of filters"
    )]
    NoFilters {
        /// Why the last of them stays.
        reason: String,
    },
    /// A layer whose channels must stay.
    #[error("the channels of layer `{layer}` cannot be removed: {reason}; leave it out")]
    Kept {
        /// The layer.
        layer: String,
        /// Why.
        reason: KeptBecause,
    },
    /// A layer without channels of its own, or no layer at all.
    #[error("no layer with filters is called `{layer}`; expected one of {known}")]
    UnknownLayer {
        /// What was asked for.
        layer: String,
        /// The layers that can be pruned, printed.
        known: String,
    },
    /// Channels to be kept in multiples of nothing.
    #[error("channels are to be kept in multiples of 0; expected a whole number of at least 1")]
    Multiple,
    /// The smaller model cannot be built.
    #[error("the pruned model: {0}")]
    Model(#[from] EdgeError),
}

/// The tensors whose values may be pruned, ascending: weights of products.
#[must_use]
pub fn prunable(graph: &Graph) -> Vec<TensorId> {
    let mut found: Vec<TensorId> = (graph.nodes.iter())
        .filter_map(|node| match node.op {
            Op::Dense { weight, .. } | Op::Conv { weight, .. } | Op::Recurrent { weight, .. } => {
                Some(weight)
            }
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found
}

/// How many values of a model may be pruned: the whole that a sparsity is a share of.
#[must_use]
pub fn prunable_values(model: &Model) -> usize {
    let tensors = model.layout().tensors();
    let ids = prunable(model.graph());
    ids.iter().map(|&id| tensors[id].len()).sum()
}

/// Zeros among the [prunable](prunable_values) `values` of a model, as a share of them; 0 for a
/// model without any.
///
/// # Errors
/// [`PruneError::Length`]
pub fn sparsity(model: &Model, values: &[f32]) -> Result<f64, PruneError> {
    check_length(model, values.len())?;
    let tensors = model.layout().tensors();
    let (mut all, mut zeros) = (0usize, 0usize);
    for id in prunable(model.graph()) {
        let part = &values[tensors[id].range()];
        all += part.len();
        zeros += part.iter().filter(|&&value| value == 0.0).count();
    }
    Ok(zeros as f64 / all.max(1) as f64)
}

fn check_length(model: &Model, given: usize) -> Result<(), PruneError> {
    match model.parameters() {
        expected if expected == given => Ok(()),
        expected => Err(PruneError::Length { expected, given }),
    }
}

fn check_share(what: &'static str, share: f64) -> Result<(), PruneError> {
    match (0.0..1.0).contains(&share) {
        true => Ok(()),
        false => Err(PruneError::Share {
            what,
            value: share.to_string(),
        }),
    }
}

/// `share * whole` to the nearest whole number, halves up.
fn part_of(share: f64, whole: usize) -> usize {
    (libm::floor(share * whole as f64 + 0.5) as usize).min(whole)
}
