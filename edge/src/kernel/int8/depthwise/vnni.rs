//! Depthwise convolution by AVX-512 VNNI: four rows of 64 channels are interleaved, so that one
//! instruction multiplies and adds a kernel column of sixteen channels; neighbouring outputs share
//! the interleaved columns. At most 32 channels leave room for a second row of outputs in the upper
//! half of every vector. Windows inside the image are read where they lie, only those at its
//! border are copied together.

use core::arch::x86_64::*;

use super::super::pack::BLOCK;
use super::super::tile::{EndFn, Finish, PerColumn, Rounding, Sums, Tier};
use super::super::x86::{Vnni512, first_bytes};
use crate::kernel::geometry::Conv;

/// Outputs side by side in one tile.
const OUTPUTS: usize = 4;
/// Rows and columns of the largest kernel.
const LARGEST: usize = 8;
/// Input columns of the widest tile: four windows of 5 at a stride of 2, or one of 8.
const COLUMNS: usize = 11;

/// Whether these kernels can compute `c`.
pub(super) fn can(c: &Conv) -> bool {
    c.shape.kernel.iter().all(|&size| size <= LARGEST)
}

/// Four vectors; see [`transposed`] for their two orders.
type Four = [__m512i; 4];

/// One block's constants.
struct Block<'a> {
    weights: &'a [i8],
    /// Rows and columns of the kernel, quadruples of rows.
    rows: usize,
    columns: usize,
    quads: usize,
    mask: __mmask64,
    bias: Four,
    /// The end, where it is to requantize by small multipliers.
    requantize: Option<(Four, Rounding, *mut u8)>,
    end: &'a Finish,
    ending: EndFn,
    /// The first channel, and how many there are.
    first: usize,
    width: usize,
    /// Distance of outputs, and of their rows.
    channels: usize,
    out_line: usize,
}

/// A window's rows, and the distance of its columns; the second window is the one a row of
/// outputs below, where two are computed at once.
#[derive(Clone, Copy)]
struct Window {
    rows: [[*const u8; LARGEST]; 2],
    step: usize,
}

/// Between the natural order, vector `l` holding channels `16 l ..`, and the interleaved one,
/// vector `j` holding channels `16 l + 4 j ..` in lane `l`: lanes transposed. Its own inverse.
#[inline(always)]
fn transposed(v: Four) -> Four {
    // SAFETY: only called by code compiled for AVX-512, on values that a token made.
    unsafe {
        let a = _mm512_shuffle_i32x4::<0b01_00_01_00>(v[0], v[1]);
        let b = _mm512_shuffle_i32x4::<0b11_10_11_10>(v[0], v[1]);
        let c = _mm512_shuffle_i32x4::<0b01_00_01_00>(v[2], v[3]);
        let d = _mm512_shuffle_i32x4::<0b11_10_11_10>(v[2], v[3]);
        [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, c),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, c),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(b, d),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(b, d),
        ]
    }
}

/// Four rows' bytes of each channel side by side, in the interleaved order.
#[inline(always)]
fn interleaved(rows: Four) -> Four {
    // SAFETY: as for `transposed`.
    unsafe {
        let low01 = _mm512_unpacklo_epi8(rows[0], rows[1]);
        let high01 = _mm512_unpackhi_epi8(rows[0], rows[1]);
        let low23 = _mm512_unpacklo_epi8(rows[2], rows[3]);
        let high23 = _mm512_unpackhi_epi8(rows[2], rows[3]);
        [
            _mm512_unpacklo_epi16(low01, low23),
            _mm512_unpackhi_epi16(low01, low23),
            _mm512_unpacklo_epi16(high01, high23),
            _mm512_unpackhi_epi16(high01, high23),
        ]
    }
}

/// Written out, so that sums stay in registers.
macro_rules! four {
    ($i:ident, $n:expr, $body:block) => {
        four!(@ $i, $n, $body, 0 1 2 3)
    };
    (@ $i:ident, $n:expr, $body:block, $($value:literal)*) => {{
        $(if $value < $n {
            const $i: usize = $value;
            $body
        })*
    }};
}

/// `N` outputs side by side, with kernel columns `KW` (0: any, one output) and stride `S`;
/// `THREE` kernels have three rows. `TWO` rows of outputs fill both halves of the vectors. `at` is
/// the index of the first output.
///
/// # Safety
/// The window must be valid for 64 bytes, or the block's channels, in each row and column, and
/// the ends for the outputs.
#[inline(always)]
unsafe fn outputs<
    const N: usize,
    const KW: usize,
    const S: usize,
    const THREE: bool,
    const TWO: bool,
>(
    t: Vnni512,
    b: &Block<'_>,
    window: &Window,
    at: usize,
) {
    let kw = if KW == 0 { b.columns } else { KW };
    let mut sums = [b.bias; N];
    // SAFETY: the caller's promise.
    unsafe {
        let quads = if THREE { 1 } else { b.quads };
        for quad in 0..quads {
            let mut column = 0;
            while column < (N - 1) * S + kw {
                let load = |row: usize| {
                    let from = window.rows[0][row].add(column * window.step);
                    if TWO {
                        let below = window.rows[1][row].add(column * window.step);
                        let mask = b.mask as __mmask32;
                        let low = _mm256_maskz_loadu_epi8(mask, from.cast());
                        let high = _mm256_maskz_loadu_epi8(mask, below.cast());
                        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                    } else {
                        _mm512_maskz_loadu_epi8(b.mask, from.cast())
                    }
                };
                let zero = t.splat_i(0);
                let rows = if THREE {
                    [load(0), load(1), load(2), zero]
                } else {
                    let mut rows = [zero; 4];
                    four!(I, 4, {
                        if 4 * quad + I < b.rows {
                            rows[I] = load(4 * quad + I);
                        }
                    });
                    rows
                };
                let x = interleaved(rows);
                four!(I, N, {
                    // The kernel's column that meets this input column for output `I`.
                    if column >= I * S && column - I * S < kw {
                        let at = ((column - I * S) * quads + quad) * 4 * BLOCK;
                        let weights = b.weights.as_ptr().add(at);
                        four!(J, 4, {
                            t.dot(&mut sums[I][J], x[J], &t.b(weights.add(J * BLOCK)));
                        });
                    }
                });
                column += 1;
            }
        }
        if let Some((multipliers, rounding, y)) = &b.requantize {
            four!(I, N, {
                let mut steps = sums[I];
                four!(J, 4, {
                    let multiplier = _mm512_castsi512_ps(multipliers[J]);
                    steps[J] = t.steps(sums[I][J], multiplier, rounding);
                });
                let y = y.add(at + I * b.channels);
                let bytes = t.pack(steps, rounding);
                if TWO {
                    let mask = b.mask as __mmask32;
                    _mm256_mask_storeu_epi8(y.cast(), mask, _mm512_castsi512_si256(bytes));
                    let high = _mm512_extracti64x4_epi64::<1>(bytes);
                    _mm256_mask_storeu_epi8(y.add(b.out_line).cast(), mask, high);
                } else {
                    _mm512_mask_storeu_epi8(y.cast(), b.mask, bytes);
                }
            });
        } else {
            let mut acc = [[0i32; BLOCK]; N];
            four!(I, N, {
                let natural = transposed(sums[I]);
                four!(J, 4, {
                    t.store_i(acc[I].as_mut_ptr().add(16 * J), 16, natural[J])
                });
            });
            for row in 0..1 + usize::from(TWO) {
                let sums = Sums {
                    acc: acc.as_ptr().cast::<i32>().add(row * BLOCK / 2),
                    acc_stride: BLOCK,
                    rows: N,
                    columns: b.width,
                    column: b.first,
                    at: at + row * b.out_line,
                    stride: b.channels,
                };
                (b.ending)(&sums, b.end);
            }
        }
    }
}

/// All outputs of a block in one image; `x` starts at the block's first channel, `at` is the
/// index of its first output.
///
/// # Safety
/// As for [`outputs`].
#[inline(always)]
unsafe fn block<const KW: usize, const S: usize, const THREE: bool, const TWO: bool>(
    t: Vnni512,
    c: &Conv,
    b: &Block<'_>,
    x: &[u8],
    zero_point: u8,
    at: usize,
) {
    let s = &c.shape;
    let tiled = KW > 0 && c.out_width >= OUTPUTS;
    let (side, columns) = match tiled {
        true => (OUTPUTS, (OUTPUTS - 1) * S + KW),
        false => (1, b.columns),
    };
    // SAFETY: the token proves that the processor has the instruction.
    let zeros = unsafe { _mm512_set1_epi8(zero_point as i8) };
    let mut border = [[zero_point; LARGEST * COLUMNS * BLOCK]; 2];
    let height = 1 + usize::from(TWO);
    for oh in (0..c.out_height).step_by(height) {
        // The last rows and tiles may compute some outputs once more.
        let oh = oh.min(c.out_height - height);
        let top = |row: usize| ((oh + row) * s.stride[0]).wrapping_sub(s.padding.top);
        let rows_inside = (0..height).all(|row| {
            let top = top(row);
            top < s.height && top + b.rows <= s.height
        });
        let mut ow = 0;
        while ow < c.out_width {
            let here = ow.min(c.out_width - side);
            let left = (here * s.stride[1]).wrapping_sub(s.padding.left);
            let inside = rows_inside && left < s.width && left + columns <= s.width;
            let mut window = Window {
                rows: [[core::ptr::null(); LARGEST]; 2],
                step: if inside { s.channels } else { BLOCK },
            };
            for ((half, rows), border) in window.rows.iter_mut().enumerate().zip(&mut border) {
                if half == height {
                    break;
                }
                let top = top(half);
                for (row, to) in rows.iter_mut().enumerate().take(b.rows) {
                    if inside {
                        *to = x[((top + row) * s.width + left) * s.channels..].as_ptr();
                        continue;
                    }
                    let h = top.wrapping_add(row);
                    let line = &mut border[row * COLUMNS * BLOCK..][..COLUMNS * BLOCK];
                    for (column, to) in line.chunks_exact_mut(BLOCK).enumerate().take(columns) {
                        let w = left.wrapping_add(column);
                        let channels = if h < s.height && w < s.width {
                            let from = &x[(h * s.width + w) * s.channels..][..b.width];
                            // SAFETY: the block's channels lie in `from`.
                            unsafe { _mm512_maskz_loadu_epi8(b.mask, from.as_ptr().cast()) }
                        } else {
                            zeros
                        };
                        // SAFETY: `to` has 64 bytes.
                        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), channels) };
                    }
                    *to = line.as_ptr();
                }
            }
            let at = at + (oh * c.out_width + here) * s.channels;
            // SAFETY: the windows lie in the image, or in the borders' copies.
            unsafe {
                if tiled {
                    outputs::<OUTPUTS, KW, S, THREE, TWO>(t, b, &window, at);
                } else {
                    outputs::<1, 0, 1, false, TWO>(t, b, &window, at);
                }
            }
            ow += side;
        }
    }
}

/// A depthwise convolution that these kernels [`can`] compute.
///
/// # Safety
/// `end` must be valid for all outputs, the slices as long as the geometry says, and the
/// processor have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn depthwise(
    t: Vnni512,
    c: &Conv,
    images: usize,
    x: &[u8],
    zero_point: u8,
    packed: &[i8],
    bias: &[i32],
    end: &Finish,
    ending: EndFn,
) {
    let s = &c.shape;
    let [rows, columns] = s.kernel;
    let quads = rows.div_ceil(4);
    let per_block = columns * quads * 4 * BLOCK;
    let mut repeated = [0i8; LARGEST * LARGEST.div_ceil(4) * 4 * BLOCK];
    for (index, first) in (0..s.channels).step_by(BLOCK).enumerate() {
        let width = BLOCK.min(s.channels - first);
        let part = |l: usize| width.saturating_sub(16 * l).min(16);
        // The upper half of the vectors repeats the lower one for a second row of outputs.
        let two = width <= BLOCK / 2 && c.out_height > 1;
        let part = |l: usize| part(if two { l % 2 } else { l });
        let from = |l: usize| first + 16 * if two { l % 2 } else { l };
        // SAFETY: the caller's promise; parts beyond the channels are empty.
        let natural: Four = core::array::from_fn(|l| unsafe {
            t.load_i(bias.as_ptr().wrapping_add(from(l)), part(l))
        });
        let mut weights = &packed[index * per_block..][..per_block];
        if two {
            let repeated = &mut repeated[..per_block];
            for (to, from) in repeated.chunks_exact_mut(64).zip(weights.chunks_exact(64)) {
                to[..32].copy_from_slice(&from[..32]);
                to[32..].copy_from_slice(&from[..32]);
            }
            weights = repeated;
        }
        let requantize = match *end {
            Finish::Requantize {
                multipliers,
                rounding,
                y,
            } if rounding.small => {
                // SAFETY: as above.
                let numbers: Four = core::array::from_fn(|l| unsafe {
                    _mm512_castps_si512(match multipliers {
                        PerColumn::One(x) => t.splat_f(x),
                        PerColumn::Each(p) => t.load_f(p.wrapping_add(from(l)), part(l)),
                    })
                });
                Some((transposed(numbers), rounding, y))
            }
            _ => None,
        };
        let b = Block {
            weights,
            rows,
            columns,
            quads,
            mask: first_bytes(width),
            bias: transposed(natural),
            requantize,
            end,
            ending,
            first,
            width,
            channels: s.channels,
            out_line: c.out_width * s.channels,
        };
        for image in 0..images {
            let x = &x[image * c.input_len() + first..];
            let at = image * c.output_len() + first;
            // SAFETY: the caller's promise.
            unsafe {
                match (s.kernel, s.stride[1], two) {
                    ([3, 3], 1, false) => block::<3, 1, true, false>(t, c, &b, x, zero_point, at),
                    ([3, 3], 2, false) => block::<3, 2, true, false>(t, c, &b, x, zero_point, at),
                    ([_, 5], 1, false) => block::<5, 1, false, false>(t, c, &b, x, zero_point, at),
                    ([_, 5], 2, false) => block::<5, 2, false, false>(t, c, &b, x, zero_point, at),
                    (_, _, false) => block::<0, 1, false, false>(t, c, &b, x, zero_point, at),
                    ([3, 3], 1, true) => block::<3, 1, true, true>(t, c, &b, x, zero_point, at),
                    ([3, 3], 2, true) => block::<3, 2, true, true>(t, c, &b, x, zero_point, at),
                    ([_, 5], 1, true) => block::<5, 1, false, true>(t, c, &b, x, zero_point, at),
                    ([_, 5], 2, true) => block::<5, 2, false, true>(t, c, &b, x, zero_point, at),
                    (_, _, true) => block::<0, 1, false, true>(t, c, &b, x, zero_point, at),
                }
            }
        }
    }
}
