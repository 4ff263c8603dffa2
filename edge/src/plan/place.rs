//! Buffers and their places in the arena.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::arena::Place;

/// Numbers between the starts of buffers: 64 bytes.
const ALIGNMENT: usize = 16;
/// The same, of an arena of bytes.
const BYTE_ALIGNMENT: usize = 64;

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
    let sizes = sizes(buffers, rows, ALIGNMENT);
    in_order(buffers, &sizes, by_size(buffers, &sizes))
}

/// The same for buffers of bytes. Of several orders in which to place them the one is taken that
/// gives the shortest arena.
pub(crate) fn place_bytes(buffers: &[Buffer], rows: usize) -> (Vec<Place>, usize) {
    let sizes = sizes(buffers, rows, BYTE_ALIGNMENT);
    let least = fullest(buffers, &sizes)
        .first()
        .map_or(0, |&(live, _)| live);
    let [first, others @ ..] = ORDERS;
    let mut best = in_order(buffers, &sizes, first(buffers, &sizes));
    for order in others {
        // No arena is shorter than what is alive at once.
        if best.1 == least {
            break;
        }
        let other = in_order(buffers, &sizes, order(buffers, &sizes));
        if other.1 < best.1 {
            best = other;
        }
    }
    best
}

/// An order in which to place buffers of the given sizes.
type Order = fn(&[Buffer], &[usize]) -> Vec<usize>;

/// The orders that are tried.
const ORDERS: [Order; 3] = [by_size, by_breadth, by_first];

fn sizes(buffers: &[Buffer], rows: usize, alignment: usize) -> Vec<usize> {
    let size = |buffer: &Buffer| (rows * buffer.row + buffer.fixed).next_multiple_of(alignment);
    buffers.iter().map(size).collect()
}

/// The largest first.
fn by_size(buffers: &[Buffer], sizes: &[usize]) -> Vec<usize> {
    let mut order = (0..buffers.len()).collect::<Vec<_>>();
    order.sort_by_key(|&index| (core::cmp::Reverse(sizes[index]), index));
    order
}

/// As they come to life, the largest first.
fn by_first(buffers: &[Buffer], sizes: &[usize]) -> Vec<usize> {
    let mut order = by_size(buffers, sizes);
    order.sort_by_key(|&index| buffers[index].first);
    order
}

/// What is alive together with most bytes first, of that the largest first ("greedy by breadth",
/// Pisarchyk & Lee 2020, arXiv:2001.03288).
fn by_breadth(buffers: &[Buffer], sizes: &[usize]) -> Vec<usize> {
    let largest = by_size(buffers, sizes);
    let mut order = Vec::with_capacity(buffers.len());
    let mut seen = vec![false; buffers.len()];
    for (_, time) in fullest(buffers, sizes) {
        for &index in &largest {
            let alive = (buffers[index].first..=buffers[index].last).contains(&time);
            if alive && !seen[index] {
                seen[index] = true;
                order.push(index);
            }
        }
    }
    order
}

/// Numbers (or bytes) alive at each time at which a buffer comes to life, most first.
fn fullest(buffers: &[Buffer], sizes: &[usize]) -> Vec<(usize, usize)> {
    let mut times = buffers
        .iter()
        .map(|buffer| buffer.first)
        .collect::<Vec<_>>();
    times.sort_unstable();
    times.dedup();
    let mut live = Vec::with_capacity(times.len());
    for time in times {
        let alive = buffers
            .iter()
            .zip(sizes)
            .filter(|(buffer, _)| (buffer.first..=buffer.last).contains(&time));
        live.push((alive.map(|(_, size)| size).sum(), time));
    }
    live.sort_by_key(|&(live, time)| (core::cmp::Reverse(live), time));
    live
}

/// Each buffer in turn at the lowest place that is free while it lives.
fn in_order(buffers: &[Buffer], sizes: &[usize], order: Vec<usize>) -> (Vec<Place>, usize) {
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
            if together && range.start < offset + sizes[index] && offset < range.end {
                offset = range.end;
            }
        }
        places[index].offset = offset;
        let range = offset..offset + sizes[index];
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

    /// Buffers alive at the same time do not overlap; the arena holds all, aligned, and is no
    /// longer than their sum.
    fn check(
        buffers: &[Buffer],
        rows: usize,
        alignment: usize,
        (places, len): &(Vec<Place>, usize),
    ) -> Result<(), TestCaseError> {
        let end = |index: usize| {
            let place: &Place = &places[index];
            place.offset + rows * place.row + place.fixed
        };
        let mut sum = 0;
        for (a, one) in buffers.iter().enumerate() {
            prop_assert_eq!(places[a].offset % alignment, 0);
            prop_assert!(end(a) <= *len);
            sum += (end(a) - places[a].offset).next_multiple_of(alignment);
            for (b, other) in buffers.iter().enumerate().skip(a + 1) {
                let together = one.first <= other.last && other.first <= one.last;
                let apart = end(a) <= places[b].offset || end(b) <= places[a].offset;
                prop_assert!(!together || apart, "{} and {}", a, b);
            }
        }
        prop_assert!(*len <= sum);
        Ok(())
    }

    proptest! {
        #[test]
        fn buffers_alive_together_are_apart(
            shapes in proptest::collection::vec((0usize..50, 0usize..50, 0usize..20, 0usize..8), 1..40),
            rows in 1usize..5,
        ) {
            let buffers = shapes
                .iter()
                .map(|&(row, fixed, first, length)| Buffer {
                    row,
                    fixed,
                    first,
                    last: first + length,
                    kept: Kept::No,
                })
                .collect::<Vec<_>>();
            check(&buffers, rows, ALIGNMENT, &place(&buffers, rows))?;
            let best = place_bytes(&buffers, rows);
            check(&buffers, rows, BYTE_ALIGNMENT, &best)?;
            let sizes = super::sizes(&buffers, rows, BYTE_ALIGNMENT);
            let live = fullest(&buffers, &sizes)[0].0;
            prop_assert!(live <= best.1);
            for order in ORDERS {
                let order = order(&buffers, &sizes);
                let mut each = order.clone();
                each.sort_unstable();
                prop_assert!(each.into_iter().eq(0..buffers.len()));
                prop_assert!(best.1 <= in_order(&buffers, &sizes, order).1);
            }
        }
    }

    /// Where the largest first leaves holes, another order may leave none.
    #[test]
    fn the_shortest_arena_is_taken() {
        // Lines, first and last time of each buffer; by which order nothing is wasted.
        type Case = ([(usize, usize, usize); 4], Order);
        let cases: [Case; 2] = [
            ([(5, 0, 1), (3, 0, 2), (2, 2, 4), (4, 3, 5)], by_first),
            ([(3, 2, 3), (3, 3, 4), (3, 3, 5), (5, 0, 2)], by_breadth),
        ];
        for (buffers, good) in cases {
            let buffers = buffers.map(|(lines, first, last)| Buffer {
                row: 0,
                fixed: BYTE_ALIGNMENT * lines,
                first,
                last,
                kept: Kept::No,
            });
            let sizes = sizes(&buffers, 1, BYTE_ALIGNMENT);
            let live = fullest(&buffers, &sizes)[0].0;
            for order in ORDERS {
                let len = in_order(&buffers, &sizes, order(&buffers, &sizes)).1;
                assert_eq!(
                    len == live,
                    core::ptr::fn_addr_eq(order, good),
                    "{len} of {live}"
                );
            }
            assert_eq!(place_bytes(&buffers, 1).1, live);
        }
    }
}
