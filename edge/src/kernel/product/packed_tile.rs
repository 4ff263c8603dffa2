//! The micro-kernels of served products: one tile over packed weights, held in registers.
//!
//! Beside [`tile`](super::tile) they read weights that [`pack`](super::packed) laid out in panels of
//! sixteen columns, so that no load of a weight is masked and each panel is read from front to
//! back, and they add a residual on the way out. The sums are the same: one accumulator an
//! element, terms ascending, each one fused multiply-add.

use super::super::elementwise::apply_fused;
use super::super::simd::{Isa, Portable, Simd};
use super::super::types::Fused;
use super::packed::PANEL;

/// A number of a packed weight as it is stored.
pub(super) trait Stored: Copy {
    /// # Safety
    /// `p` must be valid for reading as many numbers as a vector has.
    unsafe fn load<V: Simd>(v: V, p: *const Self) -> V::F;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<V: Simd>(v: V, p: *const Self) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { v.load(p) }
    }
}

/// The bits of an IEEE 754 binary16.
impl Stored for u16 {
    #[inline(always)]
    unsafe fn load<V: Simd>(v: V, p: *const Self) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { v.load_half(p) }
    }
}

/// One tile's operands: `c[r][n] = end(sum over k of a[r][k] * b[k][n])`.
///
/// `k` runs over `outer * inner` runs of `run_len` contiguous terms.
#[derive(Debug)]
pub(super) struct PackedTile<T> {
    /// Row 0, first run.
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    pub(super) outer: usize,
    pub(super) outer_stride: usize,
    pub(super) inner: usize,
    pub(super) inner_stride: usize,
    pub(super) run_len: usize,
    /// The first panel, and the distance from panel to panel.
    pub(super) b: *const T,
    pub(super) panel: usize,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Columns, from one to all that the tile's vectors hold.
    pub(super) columns: usize,
    /// Where the accumulators start; null for zero.
    pub(super) bias: *const f32,
    /// From row to row there: 0 for one start for all.
    pub(super) bias_stride: usize,
    /// What is added after `first`, lying like `c`; null for nothing.
    pub(super) residual: *const f32,
    pub(super) first: Fused,
    pub(super) last: Fused,
}

impl<T> Clone for PackedTile<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for PackedTile<T> {}

/// A micro-kernel.
pub(super) type PackedFn<T> = unsafe fn(&PackedTile<T>);

/// The micro-kernels of an instruction set for one way of storing weights, by rows less one; the
/// number of vectors in a tile falls as its rows grow.
#[derive(Debug)]
pub(super) struct PackedTiles<T: 'static> {
    /// Numbers in a vector.
    pub(super) width: usize,
    /// One vector; as many as a tile may have rows.
    pub(super) one: &'static [PackedFn<T>],
    /// Two vectors; as many.
    pub(super) two: &'static [PackedFn<T>],
    /// Four vectors, for few rows.
    pub(super) four: &'static [PackedFn<T>],
    /// Eight vectors, for very few.
    pub(super) eight: &'static [PackedFn<T>],
}

/// Bytes of each panel that are asked for ahead of their use.
const PREFETCHED: usize = 1024;

/// Repeats a body for each row `$r` below `R` (at most 14).
macro_rules! rows {
    ($r:ident, $body:block) => {
        rows!(@ $r, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $r:ident, $body:block, $($row:literal)*) => {{
        $(if $row < R {
            let $r: usize = $row;
            $body
        })*
    }};
}

/// Repeats a body for each vector `$w` below `W` (at most 8).
macro_rules! vectors {
    ($w:ident, $body:block) => {
        vectors!(@ $w, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $w:ident, $body:block, $($vector:literal)*) => {{
        $(if $vector < W {
            let $w: usize = $vector;
            $body
        })*
    }};
}

/// Computes a tile of `R` rows and `W` vectors.
///
/// # Safety
/// Every element that the tile describes must be valid: `a` for `R` rows, `b` for the panels of
/// `W` vectors, `c` and what `residual` points to for `R` rows of `columns`, `bias`
/// for `columns`, in each row where it has a stride.
#[inline(always)]
unsafe fn tile<V: Simd, T: Stored, const R: usize, const W: usize>(v: V, t: &PackedTile<T>) {
    let mut acc = [[v.splat(0.0); W]; R];
    // Columns of each vector; the last ones may have none.
    let in_vector = |w: usize| t.columns.saturating_sub(w * V::N).min(V::N);
    // SAFETY: the caller's promise; every pointer stays inside its operand.
    unsafe {
        if !t.bias.is_null() {
            vectors!(w, {
                rows!(r, {
                    let bias = t.bias.wrapping_add(r * t.bias_stride + w * V::N);
                    acc[r][w] = v.load_first(bias, in_vector(w));
                });
            });
        }
        let mut b = t.b;
        for outer in 0..t.outer {
            for inner in 0..t.inner {
                let mut a = t.a.add(outer * t.outer_stride + inner * t.inner_stride);
                for _ in 0..t.run_len {
                    let mut columns = [v.splat(0.0); W];
                    vectors!(w, {
                        let from = b.add(w * V::N / PANEL * t.panel + w * V::N % PANEL);
                        columns[w] = T::load(v, from);
                        if (w * V::N).is_multiple_of(PANEL) {
                            v.prefetch(from.cast::<u8>().wrapping_add(PREFETCHED).cast());
                        }
                    });
                    rows!(r, {
                        let x = v.splat(*a.add(r * t.a_stride));
                        vectors!(w, { acc[r][w] = v.fma(x, columns[w], acc[r][w]) });
                    });
                    a = a.wrapping_add(1);
                    b = b.wrapping_add(PANEL);
                }
            }
        }
        if t.first != Fused::None {
            rows!(r, {
                vectors!(w, { acc[r][w] = apply_fused(v, t.first, acc[r][w]) });
            });
        }
        if !t.residual.is_null() {
            rows!(r, {
                let residual = t.residual.add(r * t.c_stride);
                vectors!(w, {
                    let other = v.load_first(residual.wrapping_add(w * V::N), in_vector(w));
                    acc[r][w] = apply_fused(v, t.last, v.add(acc[r][w], other));
                });
            });
        }
        rows!(r, {
            let c = t.c.add(r * t.c_stride);
            vectors!(w, {
                v.store_first(c.wrapping_add(w * V::N), in_vector(w), acc[r][w])
            });
        });
    }
}

macro_rules! tiles {
    ($(#[$cfg:meta])* $token:ty, $single:ident, $half:ident, $tile:ident, $(#[$enable:meta])?
        [$($one:literal)*] [$($four:literal)*] [$($eight:literal)*]) => {
        /// # Safety
        /// As for [`tile`]; the processor must have the instructions.
        $(#[$cfg])*
        $(#[$enable])?
        unsafe fn $tile<T: Stored, const R: usize, const W: usize>(t: &PackedTile<T>) {
            // SAFETY: the caller's promise.
            unsafe { tile::<_, T, R, W>(<$token>::assume(), t) };
        }

        tiles!(@ $(#[$cfg])* $token, $single, f32, $tile, [$($one)*] [$($four)*] [$($eight)*]);
        tiles!(@ $(#[$cfg])* $token, $half, u16, $tile, [$($one)*] [$($four)*] [$($eight)*]);
    };
    (@ $(#[$cfg:meta])* $token:ty, $name:ident, $stored:ty, $tile:ident,
        [$($one:literal)*] [$($four:literal)*] [$($eight:literal)*]) => {
        $(#[$cfg])*
        static $name: PackedTiles<$stored> = PackedTiles {
            width: <$token as Simd>::N,
            one: &[$($tile::<$stored, $one, 1>),*],
            two: &[$($tile::<$stored, $one, 2>),*],
            four: &[$($tile::<$stored, $four, 4>),*],
            eight: &[$($tile::<$stored, $eight, 8>),*],
        };
    };
}

#[cfg(target_arch = "x86_64")]
use super::super::simd::x86::{Avx2, Avx512};

tiles!(
    #[cfg(target_arch = "x86_64")]
    Avx512,
    AVX512,
    AVX512_HALF,
    tile_avx512,
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14] [1 2 3 4 5 6 7] [1 2 3]
);
tiles!(
    #[cfg(target_arch = "x86_64")]
    Avx2,
    AVX2,
    AVX2_HALF,
    tile_avx2,
    #[target_feature(enable = "avx2,fma,f16c")]
    [1 2 3 4 5 6] [1 2 3] [1]
);
// Where the portable code is the last resort, small tiles are enough and much faster to compile.
#[cfg(target_arch = "x86_64")]
tiles!(Portable, PORTABLE, PORTABLE_HALF, tile_portable, [1 2] [1] []);
#[cfg(not(target_arch = "x86_64"))]
tiles!(Portable, PORTABLE, PORTABLE_HALF, tile_portable, [1 2 3 4 5 6] [1 2 3] [1]);

impl PackedTiles<f32> {
    /// The micro-kernels of `isa`, whose token proves that they can run.
    pub(super) fn single(isa: Isa) -> &'static Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => &AVX2,
            Isa::Portable(_) => &PORTABLE,
        }
    }
}

impl PackedTiles<u16> {
    /// The micro-kernels of `isa`, whose token proves that they can run.
    pub(super) fn half(isa: Isa) -> &'static Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => &AVX512_HALF,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => &AVX2_HALF,
            Isa::Portable(_) => &PORTABLE_HALF,
        }
    }
}
