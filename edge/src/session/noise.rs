//! Gaussian noise for a private step, **for simulation**.

use fl_core::Stream;
use rand_core::Rng as _;

use crate::kernel::{Kernels, NORMAL_GROUP};

/// Normal numbers in bulk, from a key that is drawn once from a [`Stream`].
///
/// Two numbers come from each 32-bit word of ChaCha8 and the quantile is a polynomial
/// ([`Kernels::add_normals`] says how good it is), which makes them fast enough to be added in
/// every step. They are `f32`: against someone who reads the low bits of a released model use
/// noise made for that. The same bits with all kernels.
#[derive(Clone, Debug)]
pub struct GaussianNoise {
    kernels: &'static Kernels,
    key: [u32; 8],
    /// The next group of numbers.
    group: u64,
}

impl GaussianNoise {
    /// The noise that begins at the next 256 bits of `stream`, with the fastest kernels of this
    /// machine.
    #[must_use]
    pub fn new(stream: &mut Stream) -> Self {
        Self::with_kernels(stream, Kernels::best())
    }

    /// The same with given kernels.
    #[must_use]
    pub fn with_kernels(stream: &mut Stream, kernels: &'static Kernels) -> Self {
        Self {
            kernels,
            key: core::array::from_fn(|_| stream.next_u32()),
            group: 0,
        }
    }

    /// Adds to every value its own normal number of mean zero and standard deviation `|scale|`. A
    /// call begins at a new group of [`NORMAL_GROUP`] numbers, so no number is used twice.
    pub fn add(&mut self, scale: f64, values: &mut [f32]) {
        self.kernels
            .add_normals(&self.key, self.group, scale as f32, values);
        self.group += values.len().div_ceil(NORMAL_GROUP) as u64;
    }
}
