//! Masks by the size of weights, at random, and rewinding.

use alloc::vec::Vec;
use core::ops::Range;

use fl_core::Stream;
use serde::{Deserialize, Serialize};

use super::{Mask, PruneError, check_length, check_share, part_of, prunable};
use crate::graph::Op;
use crate::model::Model;

/// Among which weights the smallest are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Among all: layers with smaller weights lose more of them.
    #[default]
    Global,
    /// In each layer's tensors by themselves: all lose the same share.
    Layer,
}

/// What is compared: size, then place. Not-a-number counts as the largest.
fn key(values: &[f32], index: usize) -> (u32, usize) {
    (values[index].abs().to_bits(), index)
}

/// The `sparsity`, in `[0, 1)`, of the [prunable](super::prunable) weights that are smallest in
/// absolute value, to the nearest whole number; of equal ones those of the lower index. What
/// `before` holds is pruned first, so masks of growing sparsity hold one another; where it holds
/// more than that already, it stays as it is.
///
/// # Errors
/// [`PruneError::Share`] or [`PruneError::Length`] (of `values` or of `before`).
///
/// # Source
/// Han et al. 2015 (arXiv:1506.02626), §3, with a share in place of a threshold, as Zhu & Gupta
/// 2017 (arXiv:1710.01878), §3.
pub fn magnitude(
    model: &Model,
    values: &[f32],
    sparsity: f64,
    scope: Scope,
    before: &Mask,
) -> Result<Mask, PruneError> {
    check_share("the sparsity", sparsity)?;
    check_length(model, values.len())?;
    check_length(model, before.parameters())?;
    let tensors = model.layout().tensors();
    let ranges: Vec<Range<usize>> = (prunable(model.graph()).into_iter())
        .map(|id| tensors[id].range())
        .collect();
    let mut mask = before.clone();
    match scope {
        Scope::Global => smallest(values, &ranges, sparsity, &mut mask),
        Scope::Layer => {
            for range in ranges {
                smallest(values, &[range], sparsity, &mut mask);
            }
        }
    }
    Ok(mask)
}

/// Adds the smallest of the values in `ranges` until `sparsity` of them are in the mask.
fn smallest(values: &[f32], ranges: &[Range<usize>], sparsity: f64, mask: &mut Mask) {
    let whole = ranges.iter().map(Range::len).sum();
    let mut left: Vec<(u32, usize)> = (ranges.iter().cloned().flatten())
        .filter(|&index| !mask.contains(index))
        .map(|index| key(values, index))
        .collect();
    let already = whole - left.len();
    let more = part_of(sparsity, whole).saturating_sub(already);
    if let Some(last) = more.checked_sub(1) {
        left.select_nth_unstable(last);
        for &(_, index) in &left[..more] {
            mask.insert(index);
        }
    }
}

/// The two smaller in absolute value of each four consecutive inputs of an output; of equal ones
/// those of the lower index.
///
/// A weight is read as the matrix `[inputs, outputs]` that it multiplies by: of a convolution,
/// `[window * channels, filters]` with the channels fastest. Where the inputs are no multiple of
/// four, the last ones are completed by zeros that count among the pruned: of three one is pruned,
/// of two or one none. Convolutions in groups (depthwise ones, too) are no such products and stay.
///
/// # Errors
/// [`PruneError::Length`]
///
/// # Source
/// Mishra et al. 2021 (arXiv:2104.08378), §3.
pub fn two_of_four(model: &Model, values: &[f32]) -> Result<Mask, PruneError> {
    check_length(model, values.len())?;
    let mut mask = Mask::none(values.len());
    for node in &model.graph().nodes {
        let weight = match &node.op {
            Op::Conv { geometry, .. } if geometry.shape().groups > 1 => continue,
            Op::Dense { weight, .. } | Op::Conv { weight, .. } | Op::Recurrent { weight, .. } => {
                *weight
            }
            _ => continue,
        };
        let tensor = &model.layout().tensors()[weight];
        let outputs = tensor.shape.last().copied().unwrap_or(1).max(1);
        let inputs = tensor.len() / outputs;
        for group in (0..inputs).step_by(4) {
            let rows = group..(group + 4).min(inputs);
            for output in 0..outputs {
                let at = |row: usize| tensor.offset + row * outputs + output;
                let mut four: Vec<_> = rows.clone().map(|row| key(values, at(row))).collect();
                four.sort_unstable();
                for &(_, index) in &four[..rows.len().saturating_sub(2)] {
                    mask.insert(index);
                }
            }
        }
    }
    Ok(mask)
}

/// A mask of as many weights in every tensor as `mask`, chosen uniformly with `stream`: what a
/// found mask is to be compared with.
///
/// # Errors
/// [`PruneError::Length`]
pub fn random_like(model: &Model, mask: &Mask, stream: &mut Stream) -> Result<Mask, PruneError> {
    check_length(model, mask.parameters())?;
    let mut random = Mask::none(mask.parameters());
    for tensor in model.layout().tensors() {
        let mut places: Vec<usize> = tensor.range().collect();
        stream.shuffle(&mut places);
        for &index in &places[..mask.pruned_in(tensor.range())] {
            random.insert(index);
        }
    }
    Ok(random)
}

/// A lottery ticket: the parameters `early`, as they were at the start of training or some steps
/// later, with what `mask` found at its end pruned.
///
/// # Errors
/// [`PruneError::Length`]
///
/// # Source
/// Frankle & Carbin 2019 (arXiv:1803.03635), §1; rewinding to a later step: Frankle et al. 2020
/// (arXiv:1912.05671), §3.
pub fn rewound(model: &Model, early: &[f32], mask: &Mask) -> Result<Vec<f32>, PruneError> {
    check_length(model, early.len())?;
    check_length(model, mask.parameters())?;
    let mut values = early.to_vec();
    mask.apply(&mut values);
    Ok(values)
}
