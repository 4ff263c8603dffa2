//! Depthwise convolution by AVX-512 VNNI: four rows of 64 channels are interleaved, so that one
//! instruction multiplies and adds a kernel column of sixteen channels; neighbouring outputs share
//! the interleaved columns.

use core::arch::x86_64::*;

use super::super::pack::BLOCK;
use super::super::tile::{Finish, PerColumn, Rounding, Tier, finish};
use super::super::x86::{Vnni512, first_bytes};
use crate::kernel::geometry::Conv;

/// Outputs side by side in one tile.
const OUTPUTS: usize = 4;

/// Four vectors; see [`transposed`] for their two orders.
type Four = [__m512i; 4];

/// One block's constants.
struct Block<'a> {
    weights: &'a [i8],
    /// Rows of the kernel, and their quadruples.
    rows: usize,
    quads: usize,
    /// Distance of input rows and of input columns.
    line: usize,
    step: usize,
    mask: __mmask64,
    bias: Four,
    multipliers: Four,
    rounding: Option<Rounding>,
    /// The first channel, and how many there are.
    first: usize,
    width: usize,
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
    ($i:ident, $n:expr, $body:block) => {{
        if 0 < $n {
            const $i: usize = 0;
            $body
        }
        if 1 < $n {
            const $i: usize = 1;
            $body
        }
        if 2 < $n {
            const $i: usize = 2;
            $body
        }
        if 3 < $n {
            const $i: usize = 3;
            $body
        }
    }};
}

/// `N` outputs side by side, with kernel columns `KW` (0: as many as `columns` says, one output)
/// and stride `S`; `FULL` blocks have 64 channels, `THREE` kernels three rows.
///
/// # Safety
/// `x` must be valid for the windows, `end` for the outputs, `at` the index of the first one,
/// which are `channels` apart.
#[inline(always)]
unsafe fn outputs<
    const N: usize,
    const KW: usize,
    const S: usize,
    const FULL: bool,
    const THREE: bool,
>(
    t: Vnni512,
    b: &Block<'_>,
    columns: usize,
    x: *const u8,
    end: &Finish,
    at: usize,
    channels: usize,
) {
    let kw = if KW == 0 { columns } else { KW };
    let mut sums = [b.bias; N];
    // SAFETY: the caller's promise; rows beyond the kernel are not read.
    unsafe {
        let load = |p: *const u8| {
            if FULL {
                _mm512_loadu_si512(p.cast())
            } else {
                _mm512_maskz_loadu_epi8(b.mask, p.cast())
            }
        };
        let quads = if THREE { 1 } else { b.quads };
        for quad in 0..quads {
            let mut column = 0;
            while column < (N - 1) * S + kw {
                let from = x.add(column * b.step + 4 * quad * b.line);
                let zero = t.splat_i(0);
                let rows = if THREE {
                    [
                        load(from),
                        load(from.add(b.line)),
                        load(from.add(2 * b.line)),
                        zero,
                    ]
                } else {
                    let mut rows = [zero; 4];
                    for (row, to) in rows.iter_mut().enumerate() {
                        if 4 * quad + row < b.rows {
                            *to = load(from.add(row * b.line));
                        }
                    }
                    rows
                };
                let x = interleaved(rows);
                four!(I, N, {
                    // The kernel's column that meets this input column for output `I`.
                    if column >= I * S && column - I * S < kw {
                        let at = ((column - I * S) * quads + quad) * 4 * BLOCK;
                        let weights = b.weights.as_ptr().add(at);
                        four!(J, 4, {
                            sums[I][J] = t.dot(sums[I][J], x[J], t.b(weights.add(J * BLOCK)));
                        });
                    }
                });
                column += 1;
            }
        }
        if let (Some(rounding), Finish::Requantize { y, .. }) = (b.rounding, *end) {
            four!(I, N, {
                let mut steps = sums[I];
                four!(J, 4, {
                    let multiplier = _mm512_castsi512_ps(b.multipliers[J]);
                    steps[J] = t.steps(sums[I][J], multiplier, &rounding);
                });
                let y = y.add(at + I * channels);
                _mm512_mask_storeu_epi8(y.cast(), b.mask, t.pack(steps, &rounding));
            });
        } else {
            four!(I, N, {
                let natural = transposed(sums[I]);
                let at = at + I * channels;
                for (l, sums) in natural.into_iter().enumerate() {
                    if 16 * l < b.width {
                        let last = (b.width - 16 * l).min(16);
                        finish(t, [[sums]], end, b.first + 16 * l, at + 16 * l, 0, last);
                    }
                }
            });
        }
    }
}

/// All outputs of a block in one padded image.
///
/// # Safety
/// As for [`outputs`].
#[inline(always)]
unsafe fn block<const KW: usize, const S: usize, const FULL: bool, const THREE: bool>(
    t: Vnni512,
    c: &Conv,
    b: &Block<'_>,
    x: *const u8,
    end: &Finish,
    at: usize,
) {
    let s = &c.shape;
    for oh in 0..c.out_height {
        let x = x.wrapping_add(oh * s.stride[0] * b.line);
        let at = at + oh * c.out_width * s.channels;
        let mut ow = 0;
        while ow < c.out_width {
            // SAFETY: the caller's promise; all windows lie in the padded image.
            unsafe {
                if KW > 0 && c.out_width >= OUTPUTS {
                    // The last tile may compute some outputs once more.
                    let here = ow.min(c.out_width - OUTPUTS);
                    let x = x.wrapping_add(here * s.stride[1] * b.step);
                    let at = at + here * s.channels;
                    outputs::<OUTPUTS, KW, S, FULL, THREE>(t, b, KW, x, end, at, s.channels);
                    ow += OUTPUTS;
                } else {
                    let x = x.wrapping_add(ow * s.stride[1] * b.step);
                    let at = at + ow * s.channels;
                    outputs::<1, 0, 1, FULL, false>(t, b, s.kernel[1], x, end, at, 0);
                    ow += 1;
                }
            }
        }
    }
}

/// One padded image; `at` is the index of its first output.
///
/// # Safety
/// `end` must be valid for all outputs, the slices as long as the geometry says, and the
/// processor have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn one_image(
    t: Vnni512,
    c: &Conv,
    x: &[u8],
    packed: &[i8],
    bias: &[i32],
    end: &Finish,
    at: usize,
) {
    let s = &c.shape;
    let [rows, columns] = s.kernel;
    let quads = rows.div_ceil(4);
    let per_block = columns * quads * 4 * BLOCK;
    for (index, first) in (0..s.channels).step_by(BLOCK).enumerate() {
        let width = BLOCK.min(s.channels - first);
        // SAFETY: the caller's promise.
        unsafe {
            let part = |l: usize| width.saturating_sub(16 * l).min(16);
            let natural: Four = core::array::from_fn(|l| {
                t.load_i(bias.as_ptr().wrapping_add(first + 16 * l), part(l))
            });
            let (mut multipliers, mut how) = ([t.splat_i(0); 4], None);
            if let Finish::Requantize {
                multipliers: numbers,
                rounding,
                ..
            } = end
            {
                how = Some(*rounding);
                multipliers = transposed(core::array::from_fn(|l| {
                    _mm512_castps_si512(match numbers {
                        PerColumn::One(x) => t.splat_f(*x),
                        PerColumn::Each(p) => t.load_f(p.wrapping_add(first + 16 * l), part(l)),
                    })
                }));
            }
            let b = Block {
                weights: &packed[index * per_block..][..per_block],
                rows,
                quads,
                line: c.padded_width() * s.channels,
                step: s.channels,
                mask: first_bytes(width),
                bias: transposed(natural),
                multipliers,
                rounding: how,
                first,
                width,
            };
            let x = x.as_ptr().wrapping_add(first);
            let at = at + first;
            match (s.kernel, s.stride[1], width == BLOCK) {
                ([3, 3], 1, true) => block::<3, 1, true, true>(t, c, &b, x, end, at),
                ([3, 3], 1, false) => block::<3, 1, false, true>(t, c, &b, x, end, at),
                ([3, 3], 2, true) => block::<3, 2, true, true>(t, c, &b, x, end, at),
                ([3, 3], 2, false) => block::<3, 2, false, true>(t, c, &b, x, end, at),
                ([_, 5], 1, _) => block::<5, 1, false, false>(t, c, &b, x, end, at),
                ([_, 5], 2, _) => block::<5, 2, false, false>(t, c, &b, x, end, at),
                _ => block::<0, 1, false, false>(t, c, &b, x, end, at),
            }
        }
    }
}
