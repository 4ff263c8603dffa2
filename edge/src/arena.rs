//! Memory that a session owns.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// A buffer's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    /// Numbers (or bytes) for each example.
    pub(crate) row: usize,
    /// Numbers (or bytes) whatever the batch.
    pub(crate) fixed: usize,
}

/// Numbers whose first one lies at the start of a cache line, where the allocator's block allows.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    block: Vec<f32>,
    start: usize,
    len: usize,
}

/// Numbers in a cache line.
const LINE: usize = 16;

impl Aligned {
    /// Makes room for `len` numbers. Values are lost when the room grows.
    pub(crate) fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::default();
            self.block = vec![0.0; len + LINE];
            self.start = self.block.as_ptr().align_offset(4 * LINE).min(LINE);
            self.len = len;
        }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.block[self.start..self.start + self.len]
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.block[self.start..self.start + self.len]
    }
}

/// Makes room for `len` elements.
pub(crate) fn reserve<T: Clone + Default>(block: &mut Vec<T>, len: usize) {
    if block.len() < len {
        block.resize(len, T::default());
    }
}

/// Several buffers of an arena at once. A plan gives disjoint ones.
#[inline]
pub(crate) fn pick<T, const N: usize>(arena: &mut [T], ranges: [Range<usize>; N]) -> [&mut [T]; N] {
    match arena.get_disjoint_mut(ranges) {
        Ok(buffers) => buffers,
        Err(_) => unreachable!("a plan's buffers overlap"),
    }
}

/// Bytes whose first one lies at the start of a cache line.
#[derive(Debug)]
pub(crate) struct AlignedBytes {
    block: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// So many zeros.
    pub(crate) fn new(len: usize) -> Self {
        let block = vec![0; len + 4 * LINE];
        let start = block.as_ptr().align_offset(4 * LINE).min(4 * LINE);
        Self { block, start, len }
    }

    /// The same, where there is memory for them.
    pub(crate) fn try_new(len: usize) -> Option<Self> {
        let mut block = Vec::new();
        block.try_reserve_exact(len.checked_add(4 * LINE)?).ok()?;
        block.resize(len + 4 * LINE, 0);
        let start = block.as_ptr().align_offset(4 * LINE).min(4 * LINE);
        Some(Self { block, start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.block[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.block[self.start..self.start + self.len]
    }
}
