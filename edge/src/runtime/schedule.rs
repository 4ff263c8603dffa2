//! Which examples pass which steps at once, and where their values lie.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::arena::Place;

/// Steps that run for `rows` examples at once.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) steps: Range<usize>,
    pub(crate) rows: usize,
}

/// How a batch passes a program.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// In the order of the steps; rows ascend, and the last has all of the batch.
    pub(crate) stretches: Vec<Stretch>,
    /// Of each buffer: the stretch that uses it last, for whose rows it has room.
    pub(crate) home: Vec<usize>,
    pub(crate) places: Vec<Place>,
    /// Bytes of the arena.
    pub(crate) arena: usize,
}

impl Schedule {
    /// One stretch of `steps` steps for up to `rows` examples out of the places and the arena of
    /// one: every offset so many times as large, so that what was apart stays apart.
    pub(crate) fn scaled(steps: usize, mut places: Vec<Place>, arena: usize, rows: usize) -> Self {
        for place in &mut places {
            place.offset *= rows;
        }
        Self {
            stretches: vec![Stretch {
                steps: 0..steps,
                rows,
            }],
            home: vec![0; places.len()],
            places,
            arena: arena * rows,
        }
    }
}
