//! Batches in parts that stay in the cache.
//!
//! The wide values of an image model's first layers leave the caches when a whole batch passes
//! each layer before the next; its last layers have small values and large weights, which should
//! be read once for many examples. So steps fall into stretches, each with the number of examples
//! that passes it at once, from few to many: a stretch starts when the one before it has run for
//! enough parts. The number changes no bit, and the arena holds only what a part needs.

use alloc::vec;
use alloc::vec::Vec;

use super::Program;
use crate::plan::{Buffer, place_bytes};
use crate::runtime::{Schedule, Stretch};

/// Bytes of values that a part may hold at a step where nobody says another number: about a
/// core's second cache.
pub(super) const PART_BYTES: usize = 1024 * 1024;

/// Rows of each step: as many as have room, at most `rows`, ascending.
fn step_rows(buffers: &[Buffer], steps: usize, rows: usize, cache: usize) -> Vec<usize> {
    let mut each = vec![rows; steps];
    let mut least = rows;
    for (time, to) in each.iter_mut().enumerate().rev() {
        let alive = buffers
            .iter()
            .filter(|buffer| (buffer.first..=buffer.last).contains(&time));
        let bytes: usize = alive.map(|buffer| buffer.row).sum();
        let most = (cache / bytes.max(1)).max(1);
        if most < least {
            // A power of two, so that there are few stretches and whole parts of usual batches.
            least = 1 << most.ilog2();
        }
        *to = least;
    }
    each
}

impl Schedule {
    /// How up to `rows` examples pass a program, and its buffers, sized for that.
    pub(super) fn new(program: &Program, rows: usize, cache: usize) -> (Self, Vec<Buffer>) {
        let buffers = program.planned_buffers();
        let mut stretches: Vec<Stretch> = Vec::new();
        let each = step_rows(&buffers, program.steps.len(), rows, cache);
        for (time, &rows) in each.iter().enumerate() {
            match stretches.last_mut() {
                Some(last) if last.rows == rows => last.steps.end = time + 1,
                _ => stretches.push(Stretch {
                    steps: time..time + 1,
                    rows,
                }),
            }
        }
        if stretches.last().is_none_or(|last| last.rows < rows) {
            let end = program.steps.len();
            stretches.push(Stretch {
                steps: end..end,
                rows,
            });
        }
        let stretch_of = |time: usize| {
            let found = stretches.iter().position(|s| s.steps.contains(&time));
            found.unwrap_or(stretches.len() - 1)
        };
        let home: Vec<usize> = buffers.iter().map(|b| stretch_of(b.last)).collect();
        let sized: Vec<Buffer> = buffers
            .iter()
            .zip(&home)
            .map(|(buffer, &home)| {
                let crosses = stretch_of(buffer.first) < home;
                Buffer {
                    row: 0,
                    fixed: stretches[home].rows * buffer.row + buffer.fixed,
                    // What waits for further parts must outlive all steps that make them.
                    first: if crosses { 0 } else { buffer.first },
                    ..*buffer
                }
            })
            .collect();
        let (mut places, arena) = place_bytes(&sized, 1);
        for (place, buffer) in places.iter_mut().zip(&buffers) {
            (place.row, place.fixed) = (buffer.row, buffer.fixed);
        }
        let schedule = Self {
            stretches,
            home,
            places,
            arena,
        };
        (schedule, sized)
    }
}
