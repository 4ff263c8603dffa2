//! Buffers and their places in the arena.

use core::ops::Range;

/// Numbers between the starts of buffers: 64 bytes.
const ALIGNMENT: usize = 16;
/// The same, of an arena of bytes.
const BYTE_ALIGNMENT: usize = 64;

/// A buffer's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    /// Numbers (or bytes) for each example.
    pub(crate) row: usize,
    /// Numbers (or bytes) whatever the batch.
    pub(crate) fixed: usize,
}

/// What the backward pass needs of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing.
    No,
    /// Where it is above zero.
    Sign,
    /// Its values.
    Values,
}

/// A buffer before it has a place. It lives from `first` to `last`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) row: usize,
    pub(crate) fixed: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
    pub(crate) kept: Kept,
}

/// Places the buffers; the places and the length of the arena.
pub(super) fn place(buffers: &[Buffer], rows: usize) -> (Vec<Place>, usize) {
    place_aligned(buffers, rows, ALIGNMENT)
}

/// The same for buffers of bytes.
pub(crate) fn place_bytes(buffers: &[Buffer], rows: usize) -> (Vec<Place>, usize) {
    place_aligned(buffers, rows, BYTE_ALIGNMENT)
}

fn place_aligned(buffers: &[Buffer], rows: usize, alignment: usize) -> (Vec<Place>, usize) {
    let size = |buffer: &Buffer| (rows * buffer.row + buffer.fixed).next_multiple_of(alignment);
    let mut order = (0..buffers.len()).collect::<Vec<_>>();
    order.sort_by_key(|&index| (core::cmp::Reverse(size(&buffers[index])), index));
    let mut places = buffers
        .iter()
        .map(|buffer| Place {
            offset: 0,
            row: buffer.row,
            fixed: buffer.fixed,
        })
        .collect::<Vec<_>>();
    let mut placed = Vec::<(Range<usize>, usize)>::new();
    let mut len = 0;
    for index in order {
        let buffer = &buffers[index];
        let mut offset = 0;
        // `placed` is in the order of offsets.
        for (range, other) in &placed {
            let other = &buffers[*other];
            let together = other.first <= buffer.last && buffer.first <= other.last;
            if together && range.start < offset + size(buffer) && offset < range.end {
                offset = range.end;
            }
        }
        places[index].offset = offset;
        let range = offset..offset + size(buffer);
        len = len.max(range.end);
        let at = placed.partition_point(|(other, _)| other.start <= range.start);
        placed.insert(at, (range, index));
    }
    (places, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Buffers alive at the same time do not overlap; the arena holds all, aligned, and is
        /// no longer than their sum.
        #[test]
        fn buffers_alive_together_are_apart(
            sizes in proptest::collection::vec((0usize..50, 0usize..50, 0usize..20, 0usize..8), 1..40),
            rows in 1usize..5,
        ) {
            let buffers = sizes
                .iter()
                .map(|&(row, fixed, first, length)| Buffer {
                    row,
                    fixed,
                    first,
                    last: first + length,
                    kept: Kept::No,
                })
                .collect::<Vec<_>>();
            let (places, len) = place(&buffers, rows);
            let end = |index: usize| {
                places[index].offset + rows * places[index].row + places[index].fixed
            };
            let mut sum = 0;
            for (a, one) in buffers.iter().enumerate() {
                prop_assert_eq!(places[a].offset % ALIGNMENT, 0);
                prop_assert!(end(a) <= len);
                sum += (end(a) - places[a].offset).next_multiple_of(ALIGNMENT);
                for (b, other) in buffers.iter().enumerate().skip(a + 1) {
                    let together = one.first <= other.last && other.first <= one.last;
                    let apart = end(a) <= places[b].offset || end(b) <= places[a].offset;
                    prop_assert!(!together || apart, "{} and {}", a, b);
                }
            }
            prop_assert!(len <= sum);
        }
    }
}
