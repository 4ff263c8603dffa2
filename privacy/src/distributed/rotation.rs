//! The randomised Hadamard transform: random signs, then the orthonormal Walsh-Hadamard matrix.
//! It keeps all distances and spreads every vector evenly over its coordinates: each coordinate of
//! the rotated `x` is sub-Gaussian with variance proxy `|x|^2 / d` (Ailon and Chazelle 2009;
//! Kairouz et al. 2021, section 4.2).

use rand_core::Rng;

/// Random signs for vectors whose length is a power of two. One rotation is shared by a cohort;
/// it is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// One bit per coordinate.
    signs: Vec<u64>,
    len: usize,
}

impl Rotation {
    /// Signs for vectors of length `len`, raised to a power of two. A simulation gives a stream of
    /// [`Rotation`](fl_core::Purpose::Rotation).
    #[must_use]
    pub fn new<R: Rng + ?Sized>(rng: &mut R, len: usize) -> Self {
        let len = len.max(1).next_power_of_two();
        let signs = (0..len.div_ceil(64)).map(|_| rng.next_u64()).collect();
        Self { signs, len }
    }

    /// The length of the vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a vector has at least one coordinate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rotates in place. `values` has [`Self::len`] numbers; others are left as they are.
    pub fn forward(&self, values: &mut [f64]) {
        if values.len() == self.len {
            self.flip(values);
            hadamard(values);
        }
    }

    /// Undoes [`Self::forward`].
    pub fn inverse(&self, values: &mut [f64]) {
        if values.len() == self.len {
            hadamard(values);
            self.flip(values);
        }
    }

    fn flip(&self, values: &mut [f64]) {
        for (values, &word) in values.chunks_mut(64).zip(&self.signs) {
            for (bit, value) in values.iter_mut().enumerate() {
                *value = f64::from_bits(value.to_bits() ^ (word >> bit << 63));
            }
        }
    }
}

/// The orthonormal Walsh-Hadamard transform, `H[i][j] = (-1)^popcount(i & j) / sqrt(d)`: its own
/// inverse. Butterflies from the longest to the shortest, halves first, so that what is worked on
/// soon fits into a cache.
fn hadamard(values: &mut [f64]) {
    let factor = 1.0 / libm::sqrt(values.len() as f64);
    butterflies(values);
    for value in values {
        *value *= factor;
    }
}

fn butterflies(values: &mut [f64]) {
    /// Half of a first-level cache.
    const CACHED: usize = 2048;
    if values.len() > CACHED {
        let (left, right) = values.split_at_mut(values.len() / 2);
        butterfly(left, right);
        butterflies(left);
        butterflies(right);
    } else {
        let mut half = values.len() / 2;
        while half > 0 {
            for pair in values.chunks_exact_mut(2 * half) {
                let (left, right) = pair.split_at_mut(half);
                butterfly(left, right);
            }
            half /= 2;
        }
    }
}

#[inline]
fn butterfly(left: &mut [f64], right: &mut [f64]) {
    for (left, right) in left.iter_mut().zip(right) {
        (*left, *right) = (*left + *right, *left - *right);
    }
}
