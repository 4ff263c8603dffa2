//! The memory plan: every operator's buffers at fixed places in one arena.
//!
//! A buffer lives from the first to the last operator that touches it, backward pass included.
//! Buffers are placed largest first, each at the lowest place where it overlaps no buffer that is
//! alive at the same time (greedy by size: Pisarchyk & Lee 2020, arXiv:2001.03288, §5.1). Nothing
//! is allocated or looked up by name afterwards.

mod place;
mod planner;
mod route;
mod step;
mod walk;

use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use crate::arena::Place;
use crate::distill::Lesson;
use crate::model::Model;
use place::place;
use planner::Planner;

pub(crate) use place::{Buffer, Kept, place_bytes};
pub(crate) use planner::{batch_norm, kernel_function};
pub(crate) use route::Route;
pub(crate) use step::{Backward, Forward};
pub(crate) use walk::Walk;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forward and backward.
    Training,
    /// Forward alone, without dropout.
    Evaluation,
    /// Forward and backward, with the norms of each example's gradient, and the parameters'
    /// gradients once more.
    PerExample,
}

/// Index of a buffer in the arena of numbers.
pub(crate) type Slot = usize;

/// A buffer of bytes: so many for each example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    offset: usize,
    pub(crate) row: usize,
}

impl Bytes {
    /// So many bytes for each example from `offset` on.
    pub(crate) fn new(offset: usize, row: usize) -> Self {
        Self { offset, row }
    }

    pub(crate) fn range(self, rows: usize) -> Range<usize> {
        self.offset..self.offset + rows * self.row
    }

    /// The part of one example.
    pub(crate) fn example(self, row: usize) -> Range<usize> {
        self.offset + row * self.row..self.offset + (row + 1) * self.row
    }
}

/// A dropout mask to be drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) keep: Bytes,
    /// A value is dropped when its 32 random bits are below this.
    pub(crate) threshold: u32,
}

/// Running statistics that a training step moves.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Mean, reciprocal deviation and variance of the batch.
    pub(crate) stats: Slot,
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    pub(crate) momentum: f32,
    pub(crate) positions: usize,
}

/// How the norms of each example's gradients of an operator's parameters are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormStep {
    /// The operator's place in the backward pass.
    pub(crate) step: usize,
    /// Its tensors: weight and bias, or scale and shift, or the table.
    pub(crate) weight: usize,
    pub(crate) bias: Option<usize>,
    /// Where each example's gradients are kept, weight before bias, until they are summed. None
    /// where the norm is had without them.
    pub(crate) own: Option<Slot>,
    pub(crate) scratch: Slot,
}

/// A tensor's elements in the flat vector.
pub(crate) type Tensor = Range<usize>;

/// The plan for batches of up to `rows` examples.
#[derive(Debug)]
pub(crate) struct Memory {
    rows: usize,
    places: Vec<Place>,
    /// When each buffer lives: the time of the node at `i` is `i + 1` forward, of the loss that
    /// after the last node, and then nodes count backwards.
    lives: Vec<RangeInclusive<usize>>,
    len: usize,
    bytes: usize,
    pub(crate) forward: Vec<Forward>,
    pub(crate) backward: Vec<Backward>,
    /// Where the inputs go, unless they are tokens.
    pub(crate) input: Slot,
    pub(crate) output: Slot,
    pub(crate) output_gradient: Slot,
    pub(crate) masks: Vec<Mask>,
    /// Running statistics that are moved after a step: examples depend on one another, so a batch
    /// is worked through at once.
    pub(crate) running: Vec<Running>,
    /// For [`Mode::PerExample`]: the norms, in the order of the backward pass, and these
    /// operators again, one for each norm.
    pub(crate) norms: Vec<NormStep>,
    pub(crate) weighted: Vec<Backward>,
    /// Whether some gradients are stored even when the others go straight into the parameters.
    pub(crate) stores_gradients: bool,
    /// What is learned from a teacher's layers, where something is.
    pub(crate) lesson: Option<Lesson>,
}

impl Memory {
    /// The plan of a model.
    pub(crate) fn new(model: &Model, rows: usize, mode: Mode) -> Self {
        Planner::new(model, rows, mode).run()
    }

    /// The memory of a walk that is over. The backward pass is what `own` gives of the walk's: a
    /// plan with operators of its own keeps them beside.
    pub(crate) fn of_walk<B>(
        walk: Walk<'_, B>,
        [input, output, output_gradient]: [Slot; 3],
        own: impl FnOnce(Vec<B>) -> Vec<Backward>,
    ) -> Self {
        let (places, len) = place(&walk.buffers, walk.rows);
        Self {
            rows: walk.rows,
            places,
            lives: walk
                .buffers
                .iter()
                .map(|one| one.first..=one.last)
                .collect(),
            len,
            bytes: walk.bytes,
            forward: Vec::new(),
            backward: own(walk.backward),
            input,
            output,
            output_gradient,
            masks: walk.masks,
            running: walk.running,
            norms: Vec::new(),
            weighted: Vec::new(),
            stores_gradients: walk.stores_gradients,
            lesson: None,
        }
    }

    /// Whether a batch cannot be worked through in parts.
    pub(crate) fn whole_batch(&self) -> bool {
        !self.running.is_empty() || self.lesson.as_ref().is_some_and(Lesson::whole_batch)
    }

    /// Examples in the largest batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in the arena.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Numbers of the arena in use at a time.
    pub(crate) fn live(&self, time: usize) -> usize {
        let alive = self.lives.iter().zip(&self.places);
        let alive = alive.filter(|(lives, _)| lives.contains(&time));
        alive
            .map(|(_, place)| self.rows * place.row + place.fixed)
            .sum()
    }

    /// Bytes in the arena of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A buffer at a batch of `rows`.
    #[inline]
    pub(crate) fn at(&self, slot: Slot, rows: usize) -> Range<usize> {
        let Place { offset, row, fixed } = self.places[slot];
        offset..offset + rows * row + fixed
    }
}
