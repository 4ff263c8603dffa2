//! The micro-kernels: one tile of a product, held in registers.

use super::super::elementwise::apply_gradient;
use super::super::simd::{Isa, Portable, Simd};
use super::super::types::SgdStep;

/// Where a tile's accumulators start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// At zero.
    Zero,
    /// At a row of the tile's columns.
    Bias(*const f32),
    /// At what `c` holds.
    C,
}

/// What becomes of a tile's accumulators.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// `c = acc`
    Store,
    /// `c = max(acc, 0)`
    Relu,
    /// `c = c + acc`
    Add,
    /// An SGD step of the weights, which lie like `c`, with `acc` as their gradient. The anchor
    /// is read only when the step has a proximal term.
    Step {
        weights: *mut f32,
        anchor: *const f32,
        step: SgdStep,
    },
}

/// One tile's operands: `c[r][n] (+)= sum over k of a[r, k] * b[k][n]`.
///
/// `k` runs over `outer * inner` runs of `run_len`; the rows of `b` simply follow one another,
/// `b_stride` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Row 0, first run.
    pub(super) a: *const f32,
    /// Distance between rows when `k` is contiguous, else between terms when rows are.
    pub(super) a_stride: usize,
    pub(super) outer: usize,
    pub(super) outer_stride: usize,
    pub(super) inner: usize,
    pub(super) inner_stride: usize,
    pub(super) run_len: usize,
    pub(super) b: *const f32,
    pub(super) b_stride: usize,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Columns in the last vector, `1 ..= N`.
    pub(super) last: usize,
    pub(super) start: Start,
    pub(super) end: End,
}

/// A micro-kernel.
pub(super) type TileFn = unsafe fn(&Tile);

/// The micro-kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Tiles {
    /// Numbers in a vector.
    pub(super) width: usize,
    /// `[rows - 1][vectors - 1]`, for `a` contiguous in `k`.
    pub(super) terms_contiguous: &'static [[TileFn; 2]],
    /// `[rows - 1][vectors - 1]`, for `a` contiguous in rows.
    pub(super) rows_contiguous: &'static [[TileFn; 2]],
    /// See [`pack_transposed`].
    pub(super) pack_transposed: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
}

/// Computes a tile of `R` rows and `W` vectors.
///
/// # Safety
/// Every element that the tile describes must be valid: `a` for `R` rows, `b` and `c` for
/// `(W - 1) * N + last` columns, and what `start` and `end` point to like `c`.
#[inline(always)]
unsafe fn tile<V: Simd, const R: usize, const W: usize, const TERMS: bool>(v: V, t: &Tile) {
    let last = t.last;
    let full = V::N;
    let mut acc = [[v.splat(0.0); W]; R];
    // SAFETY (all blocks): the caller's promise; every pointer stays inside its operand.
    unsafe {
        match t.start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for w in 0..W {
                    let n = if w + 1 == W { last } else { full };
                    let bias = v.load_first(bias.add(w * full), n);
                    for row in &mut acc {
                        row[w] = bias;
                    }
                }
            }
            Start::C => {
                for (r, row) in acc.iter_mut().enumerate() {
                    let c = t.c.add(r * t.c_stride);
                    for (w, acc) in row.iter_mut().enumerate() {
                        let n = if w + 1 == W { last } else { full };
                        *acc = v.load_first(c.add(w * full), n);
                    }
                }
            }
        }
        let mut b = t.b;
        let (row_stride, term_stride) = if TERMS {
            (t.a_stride, 1)
        } else {
            (1, t.a_stride)
        };
        for outer in 0..t.outer {
            for inner in 0..t.inner {
                let mut a = t.a.add(outer * t.outer_stride + inner * t.inner_stride);
                for _ in 0..t.run_len {
                    let mut columns = [v.splat(0.0); W];
                    for (w, column) in columns.iter_mut().enumerate() {
                        *column = if w + 1 == W {
                            v.load_first(b.add(w * full), last)
                        } else {
                            v.load(b.add(w * full))
                        };
                    }
                    for (r, row) in acc.iter_mut().enumerate() {
                        let x = v.splat(*a.add(r * row_stride));
                        for w in 0..W {
                            row[w] = v.fma(x, columns[w], row[w]);
                        }
                    }
                    a = a.wrapping_add(term_stride);
                    b = b.wrapping_add(t.b_stride);
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            let at = r * t.c_stride;
            for (w, &acc) in row.iter().enumerate() {
                let n = if w + 1 == W { last } else { full };
                let at = at + w * full;
                match t.end {
                    End::Store => v.store_first(t.c.add(at), n, acc),
                    End::Relu => v.store_first(t.c.add(at), n, v.max(acc, v.splat(0.0))),
                    End::Add => {
                        let c = v.load_first(t.c.add(at), n);
                        v.store_first(t.c.add(at), n, v.add(c, acc));
                    }
                    End::Step {
                        weights,
                        anchor,
                        step,
                    } => {
                        let old = v.load_first(weights.add(at), n);
                        let anchor = if step.proximal_mu > 0.0 {
                            v.load_first(anchor.add(at), n)
                        } else {
                            old
                        };
                        let new = apply_gradient(v, step, acc, old, anchor);
                        v.store_first(weights.add(at), n, new);
                    }
                }
            }
        }
    }
}

/// Writes the transpose of `from[rows, terms]` (rows `from_stride` apart) to `to[terms, rows]`
/// (`to_stride` apart).
///
/// # Safety
/// Both must be valid for all their elements.
#[inline(always)]
unsafe fn pack_transposed(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    terms: usize,
    to: *mut f32,
    to_stride: usize,
) {
    for row in 0..rows {
        for term in 0..terms {
            // SAFETY: the caller's promise.
            unsafe { *to.add(term * to_stride + row) = *from.add(row * from_stride + term) };
        }
    }
}

macro_rules! tiles {
    ($(#[$cfg:meta])* $token:ty, $of:ident, $tile:ident, $pack:ident, $(#[$enable:meta])? [$($rows:literal)*], $packer:expr) => {
        /// # Safety
        /// As for [`tile`]; the processor must have the instructions.
        $(#[$cfg])*
        $(#[$enable])?
        unsafe fn $tile<const R: usize, const W: usize, const TERMS: bool>(t: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { tile::<_, R, W, TERMS>(<$token>::assume(), t) };
        }

        /// # Safety
        /// As for [`pack_transposed`]; the processor must have the instructions.
        $(#[$cfg])*
        $(#[$enable])?
        unsafe fn $pack(a: *const f32, b: usize, c: usize, d: usize, e: *mut f32, f: usize) {
            // SAFETY: the caller's promise.
            unsafe { $packer(a, b, c, d, e, f) };
        }

        $(#[$cfg])*
        static $of: Tiles = Tiles {
            width: <$token as Simd>::N,
            terms_contiguous: &[$([$tile::<$rows, 1, true>, $tile::<$rows, 2, true>]),*],
            rows_contiguous: &[$([$tile::<$rows, 1, false>, $tile::<$rows, 2, false>]),*],
            pack_transposed: $pack,
        };
    };
}

#[cfg(target_arch = "x86_64")]
use super::super::simd::x86::{Avx2, Avx512};

tiles!(
    #[cfg(target_arch = "x86_64")]
    Avx512,
    AVX512,
    tile_avx512,
    pack_avx512,
    #[target_feature(enable = "avx512f,avx2,fma")]
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    super::transpose::pack_avx512
);
tiles!(
    #[cfg(target_arch = "x86_64")]
    Avx2,
    AVX2,
    tile_avx2,
    pack_avx2,
    #[target_feature(enable = "avx2,fma")]
    [1 2 3 4 5 6],
    super::transpose::pack_avx2
);
tiles!(Portable, PORTABLE, tile_portable, pack_portable, [1 2 3 4 5 6], pack_transposed);

impl Tiles {
    /// The micro-kernels of `isa`, whose token proves that they can run.
    pub(super) fn of(isa: Isa) -> &'static Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => &AVX2,
            Isa::Portable(_) => &PORTABLE,
        }
    }
}
