//! Constants where they lie.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bytemuck::AnyBitPattern;

use super::SharedBytes;
use super::step::Constant;
use crate::arena::AlignedBytes;
use crate::kernel::f16_to_f32;

/// Ranges of bytes that somebody keeps. A clone shares them.
#[derive(Clone)]
pub(crate) struct Numbers {
    ranges: Arc<[Range<usize>]>,
    bytes: SharedBytes,
    /// Constants that were stored in 16 bits and are read as `f32`.
    wide: Option<Arc<Wide>>,
}

/// Numbers that were written out in `f32`.
struct Wide {
    /// Of which constants, ascending, and where they lie.
    places: Vec<(Constant, Range<usize>)>,
    block: AlignedBytes,
}

impl Numbers {
    /// The bytes at these ranges; whoever asks for one that is not there panics.
    pub(crate) fn new(ranges: Arc<[Range<usize>]>, bytes: SharedBytes) -> Self {
        Self {
            ranges,
            bytes,
            wide: None,
        }
    }

    /// The same with constants of binary16, ascending, written out in `f32` into a block of twice
    /// their bytes.
    pub(crate) fn widened(mut self, constants: &[Constant], mut block: AlignedBytes) -> Self {
        let mut places = Vec::with_capacity(constants.len());
        let mut end = 0;
        for &constant in constants {
            let halves: &[u16] = bytemuck::cast_slice(self.bytes(constant));
            let place = end..end + size_of::<f32>() * halves.len();
            let wide = bytemuck::cast_slice_mut::<u8, f32>(&mut block.as_mut()[place.clone()]);
            for (to, &half) in wide.iter_mut().zip(halves) {
                *to = f16_to_f32(half);
            }
            end = place.end;
            places.push((constant, place));
        }
        self.wide = Some(Arc::new(Wide { places, block }));
        self
    }

    /// The bytes that they lie in.
    #[cfg(feature = "describe")]
    pub(crate) fn shared(&self) -> SharedBytes {
        Arc::clone(&self.bytes)
    }

    /// The bytes of a constant, as it is stored.
    pub(crate) fn bytes(&self, index: Constant) -> &[u8] {
        &(*self.bytes).as_ref()[self.ranges[index].clone()]
    }

    /// The numbers of a constant, little-endian, as are all machines that this crate is built for.
    pub(crate) fn values<T: AnyBitPattern>(&self, index: Constant) -> &[T] {
        if cfg!(feature = "int4")
            && let Some(wide) = &self.wide
            && let Ok(found) = wide.places.binary_search_by_key(&index, |place| place.0)
        {
            return bytemuck::cast_slice(&wide.block.as_ref()[wide.places[found].1.clone()]);
        }
        bytemuck::cast_slice(self.bytes(index))
    }
}
