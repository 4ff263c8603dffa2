//! The operators of a backward pass that have no parameters and keep no activation: alike in every
//! plan.

use super::{Bytes, Memory, Slot};
use crate::arena::pick;
use crate::kernel::{Kernels, Pool};

/// Moves gradients.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    MaxPool {
        geometry: Pool,
        argmax: Bytes,
        dy: Slot,
        dx: Slot,
    },
    AvgPool {
        geometry: Pool,
        dy: Slot,
        dx: Slot,
    },
    GlobalAvgPool {
        positions: usize,
        channels: usize,
        dy: Slot,
        dx: Slot,
    },
    Last {
        positions: usize,
        channels: usize,
        dy: Slot,
        dx: Slot,
    },
    Dropout {
        keep: Bytes,
        scale: f32,
        dy: Slot,
    },
    Copy {
        from: Slot,
        to: Slot,
    },
    Add {
        from: Slot,
        to: Slot,
    },
    Double {
        dy: Slot,
    },
}

impl Route {
    /// Runs the operator.
    pub(crate) fn run(
        &self,
        k: &Kernels,
        memory: &Memory,
        arena: &mut [f32],
        bytes: &[u8],
        rows: usize,
    ) {
        let at = |slot| memory.at(slot, rows);
        match self {
            Self::MaxPool {
                geometry,
                argmax,
                dy,
                dx,
            } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.max_pool_dx(geometry, rows, dy, &bytes[argmax.range(rows)], dx);
            }
            Self::AvgPool { geometry, dy, dx } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.avg_pool_dx(geometry, rows, dy, dx);
            }
            Self::GlobalAvgPool {
                positions,
                channels,
                dy,
                dx,
            } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.global_avg_pool_dx(rows, *positions, *channels, dy, dx);
            }
            Self::Last {
                positions,
                channels,
                dy,
                dx,
            } => {
                let [dy, dx] = pick(arena, [at(*dy), at(*dx)]);
                k.last_dx(rows, *positions, *channels, dy, dx);
            }
            Self::Dropout { keep, scale, dy } => {
                k.dropout(&bytes[keep.range(rows)], *scale, &mut arena[at(*dy)]);
            }
            Self::Copy { from, to } => {
                let [from, to] = pick(arena, [at(*from), at(*to)]);
                to.copy_from_slice(from);
            }
            Self::Add { from, to } => {
                let [from, to] = pick(arena, [at(*from), at(*to)]);
                k.add(from, to);
            }
            Self::Double { dy } => k.scale(2.0, &mut arena[at(*dy)]),
        }
    }
}
