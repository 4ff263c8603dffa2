//! The micro-kernels: one tile of a product, held in registers.

use super::super::elementwise::{apply_gradient, relu6};
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
    /// `c = min(max(acc, 0), 6)`
    Relu6,
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

/// Rows of the right operand that are asked for ahead of their use.
const PREFETCHED_ROWS: usize = 8;

/// Repeats a body for each row `$r` below `R` (at most 14), written out so that the accumulators
/// stay in registers whatever the optimizer thinks of the loop.
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

/// Repeats a body for each vector `$w` below `W` (at most 2), with its number of columns `$n`.
macro_rules! vectors {
    ($w:ident, $n:ident = $last:expr, $body:block) => {{
        if W == 2 {
            let ($w, $n): (usize, usize) = (0, V::N);
            $body
        }
        let ($w, $n): (usize, usize) = (W - 1, $last);
        $body
    }};
}

/// Computes a tile of `R` rows and `W` vectors.
///
/// # Safety
/// Every element that the tile describes must be valid: `a` for `R` rows, `b` and `c` for
/// `(W - 1) * N + last` columns, and what `start` and `end` point to like `c`.
#[inline(always)]
unsafe fn tile<V: Simd, const R: usize, const W: usize, const TERMS: bool>(v: V, t: &Tile) {
    let last = t.last;
    let mut acc = [[v.splat(0.0); W]; R];
    // SAFETY: the caller's promise; every pointer stays inside its operand.
    unsafe {
        match t.start {
            Start::Zero => {}
            Start::Bias(bias) => {
                vectors!(w, n = last, {
                    let bias = v.load_first(bias.add(w * V::N), n);
                    rows!(r, { acc[r][w] = bias });
                });
            }
            Start::C => {
                rows!(r, {
                    let c = t.c.add(r * t.c_stride);
                    vectors!(w, n = last, {
                        acc[r][w] = v.load_first(c.add(w * V::N), n);
                    });
                });
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
                    if W == 2 {
                        columns[0] = v.load(b);
                    }
                    columns[W - 1] = v.load_first(b.add((W - 1) * V::N), last);
                    if TERMS {
                        // The weights of a forward pass may come from memory.
                        let ahead = b.wrapping_add(PREFETCHED_ROWS * t.b_stride);
                        vectors!(w, _n = last, { v.prefetch(ahead.wrapping_add(w * V::N)) });
                    }
                    rows!(r, {
                        let x = v.splat(*a.add(r * row_stride));
                        vectors!(w, _n = last, {
                            acc[r][w] = v.fma(x, columns[w], acc[r][w]);
                        });
                    });
                    a = a.wrapping_add(term_stride);
                    b = b.wrapping_add(t.b_stride);
                }
            }
        }
        match t.end {
            End::Store => rows!(r, {
                let c = t.c.add(r * t.c_stride);
                vectors!(w, n = last, {
                    v.store_first(c.add(w * V::N), n, acc[r][w]);
                });
            }),
            End::Relu => rows!(r, {
                let c = t.c.add(r * t.c_stride);
                vectors!(w, n = last, {
                    v.store_first(c.add(w * V::N), n, v.max(acc[r][w], v.splat(0.0)));
                });
            }),
            End::Relu6 => rows!(r, {
                let c = t.c.add(r * t.c_stride);
                vectors!(w, n = last, {
                    v.store_first(c.add(w * V::N), n, relu6(v, acc[r][w]));
                });
            }),
            End::Add => rows!(r, {
                let c = t.c.add(r * t.c_stride);
                vectors!(w, n = last, {
                    let old = v.load_first(c.add(w * V::N), n);
                    v.store_first(c.add(w * V::N), n, v.add(old, acc[r][w]));
                });
            }),
            End::Step {
                weights,
                anchor,
                step,
            } => {
                rows!(r, {
                    let to = weights.add(r * t.c_stride);
                    // All loads before all stores: a masked store delays loads close behind it.
                    vectors!(w, n = last, {
                        let old = v.load_first(to.add(w * V::N), n);
                        let anchor = if step.proximal_mu > 0.0 {
                            v.load_first(anchor.add(r * t.c_stride + w * V::N), n)
                        } else {
                            old
                        };
                        acc[r][w] = apply_gradient(v, step, acc[r][w], old, anchor);
                    });
                });
                rows!(r, {
                    let to = weights.add(r * t.c_stride);
                    vectors!(w, n = last, {
                        v.store_first(to.add(w * V::N), n, acc[r][w]);
                    });
                });
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
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    super::transpose::pack_avx512
);
tiles!(
    #[cfg(target_arch = "x86_64")]
    Avx2,
    AVX2,
    tile_avx2,
    pack_avx2,
    #[target_feature(enable = "avx2,fma,f16c")]
    [1 2 3 4 5 6],
    super::transpose::pack_avx2
);
// Where the portable code is the last resort, small tiles are enough and much faster to compile.
#[cfg(target_arch = "x86_64")]
tiles!(Portable, PORTABLE, tile_portable, pack_portable, [1 2], pack_transposed);
#[cfg(not(target_arch = "x86_64"))]
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
