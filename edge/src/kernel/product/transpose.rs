//! Transposition in registers, for the gradient of a dense layer's inputs.

use core::arch::x86_64::*;

use super::super::simd::Simd;
use super::super::simd::x86::{Avx2, Avx512};

/// Transposes block by block.
macro_rules! blocks {
    ($block:ident, $n:literal, $from:ident, $from_stride:ident, $rows:ident, $terms:ident, $to:ident, $to_stride:ident) => {
        let mut row = 0;
        while row < $rows {
            let height = ($rows - row).min($n);
            let mut term = 0;
            while term < $terms {
                let width = ($terms - term).min($n);
                // SAFETY: the caller's promise; the block lies inside both.
                unsafe {
                    let from = $from.add(row * $from_stride + term);
                    let to = $to.add(term * $to_stride + row);
                    if height == $n && width == $n {
                        $block::<false>(from, $from_stride, $n, $n, to, $to_stride);
                    } else {
                        $block::<true>(from, $from_stride, height, width, to, $to_stride);
                    }
                }
                term += width;
            }
            row += height;
        }
    };
}

/// # Safety
/// `from` must be valid for `height` rows of `width`, `to` for the transpose; 8 of each without
/// `EDGE`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn block_8<const EDGE: bool>(
    from: *const f32,
    from_stride: usize,
    height: usize,
    width: usize,
    to: *mut f32,
    to_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let v = Avx2::assume();
        let mut r = [_mm256_setzero_ps(); 8];
        for (i, r) in r.iter_mut().enumerate() {
            if !EDGE || i < height {
                *r = v.load_first(from.add(i * from_stride), if EDGE { width } else { 8 });
            }
        }
        let write = |i: usize, x: __m256| {
            if !EDGE || i < width {
                v.store_first(to.add(i * to_stride), if EDGE { height } else { 8 }, x);
            }
        };
        let mut s = r;
        for i in 0..4 {
            s[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = s;
        for i in 0..2 {
            u[4 * i] = _mm256_shuffle_ps::<0x44>(s[4 * i], s[4 * i + 2]);
            u[4 * i + 1] = _mm256_shuffle_ps::<0xee>(s[4 * i], s[4 * i + 2]);
            u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(s[4 * i + 1], s[4 * i + 3]);
            u[4 * i + 3] = _mm256_shuffle_ps::<0xee>(s[4 * i + 1], s[4 * i + 3]);
        }
        for i in 0..4 {
            let low = _mm256_permute2f128_ps::<0x20>(u[i], u[i + 4]);
            let high = _mm256_permute2f128_ps::<0x31>(u[i], u[i + 4]);
            write(i, low);
            write(i + 4, high);
        }
    }
}

/// # Safety
/// `from` must be valid for `height` rows of `width`, `to` for the transpose; 16 of each without
/// `EDGE`.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn block_16<const EDGE: bool>(
    from: *const f32,
    from_stride: usize,
    height: usize,
    width: usize,
    to: *mut f32,
    to_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let v = Avx512::assume();
        let mut r = [_mm512_setzero_ps(); 16];
        for (i, r) in r.iter_mut().enumerate() {
            if !EDGE || i < height {
                *r = v.load_first(from.add(i * from_stride), if EDGE { width } else { 16 });
            }
        }
        let write = |i: usize, x: __m512| {
            if !EDGE || i < width {
                v.store_first(to.add(i * to_stride), if EDGE { height } else { 16 }, x);
            }
        };
        let mut s = r;
        for i in 0..8 {
            s[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        // u[4 i + j] holds column 4 l + j of rows 4 i .. 4 i + 4 in its quarter l.
        let mut u = s;
        for i in 0..4 {
            u[4 * i] = _mm512_shuffle_ps::<0x44>(s[4 * i], s[4 * i + 2]);
            u[4 * i + 1] = _mm512_shuffle_ps::<0xee>(s[4 * i], s[4 * i + 2]);
            u[4 * i + 2] = _mm512_shuffle_ps::<0x44>(s[4 * i + 1], s[4 * i + 3]);
            u[4 * i + 3] = _mm512_shuffle_ps::<0xee>(s[4 * i + 1], s[4 * i + 3]);
        }
        for j in 0..4 {
            let a = _mm512_shuffle_f32x4::<0x88>(u[j], u[j + 4]);
            let b = _mm512_shuffle_f32x4::<0xdd>(u[j], u[j + 4]);
            let c = _mm512_shuffle_f32x4::<0x88>(u[j + 8], u[j + 12]);
            let d = _mm512_shuffle_f32x4::<0xdd>(u[j + 8], u[j + 12]);
            // a: quarters 0 and 2 of rows 0..8; b: quarters 1 and 3; c, d: rows 8..16.
            write(j, _mm512_shuffle_f32x4::<0x88>(a, c));
            write(j + 4, _mm512_shuffle_f32x4::<0x88>(b, d));
            write(j + 8, _mm512_shuffle_f32x4::<0xdd>(a, c));
            write(j + 12, _mm512_shuffle_f32x4::<0xdd>(b, d));
        }
    }
}

/// See [`super::tile::Tiles::pack_transposed`].
///
/// # Safety
/// `from` must be valid for `rows` rows of `terms`, `to` for `terms` rows of `rows`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn pack_avx2(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    terms: usize,
    to: *mut f32,
    to_stride: usize,
) {
    blocks!(block_8, 8, from, from_stride, rows, terms, to, to_stride);
}

/// See [`super::tile::Tiles::pack_transposed`].
///
/// # Safety
/// `from` must be valid for `rows` rows of `terms`, `to` for `terms` rows of `rows`.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn pack_avx512(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    terms: usize,
    to: *mut f32,
    to_stride: usize,
) {
    blocks!(block_16, 16, from, from_stride, rows, terms, to, to_stride);
}
