//! Constants where they lie.

use alloc::sync::Arc;
use core::ops::Range;

use bytemuck::AnyBitPattern;

use super::SharedBytes;

/// Ranges of bytes that somebody keeps. A clone shares them.
#[derive(Clone)]
pub(crate) struct Numbers {
    ranges: Arc<[Range<usize>]>,
    bytes: SharedBytes,
}

impl Numbers {
    /// The bytes at these ranges; whoever asks for one that is not there panics.
    pub(crate) fn new(ranges: Arc<[Range<usize>]>, bytes: SharedBytes) -> Self {
        Self { ranges, bytes }
    }

    /// The bytes that they lie in.
    #[cfg(feature = "describe")]
    pub(crate) fn shared(&self) -> SharedBytes {
        Arc::clone(&self.bytes)
    }

    /// The bytes of a constant.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        &(*self.bytes).as_ref()[self.ranges[index].clone()]
    }

    /// The numbers of a constant, little-endian, as are all machines that this crate is built for.
    pub(crate) fn values<T: AnyBitPattern>(&self, index: usize) -> &[T] {
        bytemuck::cast_slice(self.bytes(index))
    }
}
