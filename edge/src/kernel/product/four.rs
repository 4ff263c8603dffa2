//! Products over weights of four bits.
//!
//! Codes lie like other packed weights, panel by panel and term by term, two in a byte: the lower
//! halves of a row hold the first half of the panel's columns, the upper ones the second half. The
//! last panel has as many bytes in a row as its columns need. A block of panels and terms at a
//! time is written out in `f32` into scratch that stays in the first cache, and the micro-kernels
//! for `f32` multiply with it: the sums go on from block to block where the output lies, so that
//! each is still one accumulator over ascending terms. The result is, bit for bit, that of the
//! weights written out as a whole.

use super::super::geometry::{Conv, Dense};
use super::super::half::f16_to_f32;
use super::super::simd::{Isa, vectorized};
use super::super::types::{After, Fused, Levels, Nibbles, Octets};
use super::Walk;
use super::packed::{
    Columns, PANEL, Rows, bands, columns, lines, moved, product, row_blocks, walk_of,
};
use super::packed_tile::PackedTiles;

/// Terms that are written out at once, at most.
const TERMS: usize = 64;

/// Panels that are written out at once, at most.
const PANELS: usize = 4;

/// Bytes of the codes of `[terms, columns]` weights.
pub(in super::super) fn nibbles_len(terms: usize, columns: usize) -> usize {
    terms * (columns / PANEL * (PANEL / 2) + (columns % PANEL).div_ceil(2))
}

/// Numbers of scratch for a product of so many terms and columns.
pub(in super::super) fn unpacked_len(terms: usize, columns: usize) -> usize {
    terms.min(TERMS) * columns.next_multiple_of(PANEL).min(PANELS * PANEL)
}

/// Packs `codes[terms, columns]`, a number below sixteen in each byte, with rows `stride` apart.
pub(in super::super) fn pack_nibbles(
    terms: usize,
    columns: usize,
    codes: &[u8],
    stride: usize,
    packed: &mut [u8],
) {
    let mut at = 0;
    for first in (0..columns).step_by(PANEL) {
        let len = PANEL.min(columns - first);
        let half = len.div_ceil(2);
        for term in 0..terms {
            let from = &codes[term * stride + first..][..len];
            for (index, to) in packed[at..at + half].iter_mut().enumerate() {
                let high = from.get(half + index).copied().unwrap_or(0);
                *to = (from[index] & 15) | (high << 4);
            }
            at += half;
        }
    }
}

/// Bytes of a row of `width` codes in a table.
pub(in super::super) fn row_bytes(width: usize) -> usize {
    width.div_ceil(2)
}

/// Packs `codes[width, rows]`, a number below sixteen in each byte, row by row: two neighbours in a
/// byte, the first in its lower half.
pub(in super::super) fn pack_rows(width: usize, rows: usize, codes: &[u8], packed: &mut [u8]) {
    for (row, packed) in packed
        .chunks_exact_mut(row_bytes(width))
        .take(rows)
        .enumerate()
    {
        let code = |at: usize| codes.get(at * rows + row).map_or(0, |code| code & 15);
        for (pair, to) in packed.iter_mut().enumerate() {
            *to = code(2 * pair) | code(2 * pair + 1) << 4;
        }
    }
}

/// Writes numbers of a row of a table out, from number `first` of the row on. The table has as many
/// rows as a group has scales.
pub(in super::super) fn unpack_row(
    table: Nibbles<'_>,
    width: usize,
    row: usize,
    first: usize,
    out: &mut [f32],
) {
    let rows = table.scales.len() / width.div_ceil(table.group);
    let codes = &table.codes[row * row_bytes(width)..][..row_bytes(width)];
    assert!(row < rows, "the table has no row {row}");
    for (at, out) in (first..width).zip(out) {
        let code = codes[at / 2] >> (4 * (at % 2)) & 15;
        let scale = at / table.group * rows + row;
        let level = match table.levels {
            Levels::Middle => f32::from(code) - 8.0,
            Levels::Zeros(zeros) => f32::from(code) - f32::from(zeros[scale]),
            Levels::Table(levels) => levels[usize::from(code)],
        };
        *out = level * f16_to_f32(table.scales[scale]);
    }
}

/// Writes codes of eight bits out, `[terms, columns]`.
pub(in super::super) fn widen(octets: Octets<'_>, columns: usize, out: &mut [f32]) {
    let rows = octets.codes.chunks_exact(columns);
    for (codes, out) in rows.zip(out.chunks_exact_mut(columns)) {
        for ((out, &code), &scale) in out.iter_mut().zip(codes).zip(octets.scales) {
            *out = f32::from(code) * f16_to_f32(scale);
        }
    }
}

vectorized! {
    /// Writes terms `start..end` of a panel of `len` columns out, `[term][PANEL]`. Scales (and zero
    /// points) are those of the panel's first column on, `stride` from group to group; `codes` are
    /// those of the panel.
    fn unpack(
        v,
        codes: &[u8],
        len: usize,
        terms: [usize; 2],
        group: usize,
        scales: &[u16],
        levels: Levels<'_>,
        stride: usize,
        out: &mut [f32],
    ) {
        let _ = v;
        let half = len.div_ceil(2);
        let [mut term, end] = terms;
        let mut codes = codes[term * half..end * half].chunks_exact(half);
        let mut out = out.chunks_exact_mut(PANEL);
        let mut scale = [0f32; PANEL];
        let mut zero = [8f32; PANEL];
        while term < end {
            let at = term / group * stride;
            let stop = end.min((term / group + 1) * group);
            for (to, &from) in scale.iter_mut().zip(&scales[at..at + len]) {
                *to = f16_to_f32(from);
            }
            if let Levels::Zeros(zeros) = levels {
                for (to, &from) in zero.iter_mut().zip(&zeros[at..at + len]) {
                    *to = f32::from(from);
                }
            }
            for (codes, out) in codes.by_ref().zip(out.by_ref()).take(stop - term) {
                let mut whole = [0u8; PANEL];
                if let Ok(codes) = <&[u8; PANEL / 2]>::try_from(codes) {
                    for i in 0..PANEL / 2 {
                        whole[i] = codes[i] & 15;
                        whole[PANEL / 2 + i] = codes[i] >> 4;
                    }
                } else {
                    for (i, &byte) in codes.iter().enumerate() {
                        whole[i] = byte & 15;
                        whole[half + i] = byte >> 4;
                    }
                }
                match levels {
                    Levels::Table(table) => {
                        for i in 0..PANEL {
                            out[i] = table[usize::from(whole[i] & 15)] * scale[i];
                        }
                    }
                    _ => {
                        for i in 0..PANEL {
                            out[i] = (f32::from(whole[i]) - zero[i]) * scale[i];
                        }
                    }
                }
            }
            term = stop;
        }
    }
}

/// Some columns of a weight of four bits.
#[derive(Clone, Copy, Debug)]
struct Stored<'a> {
    nibbles: Nibbles<'a>,
    /// From scales to those of the next group.
    stride: usize,
    /// The first of the columns.
    column: usize,
    /// Where their codes begin.
    at: usize,
}

/// Consecutive terms of a walk: where they begin, how far into a row of the left operand, and the
/// walk over them.
struct Piece {
    terms: [usize; 2],
    offset: usize,
    walk: Walk,
}

/// A walk in pieces of at most [`TERMS`] terms.
fn pieces(walk: &Walk, mut each: impl FnMut(&Piece)) {
    let run = walk.run_len;
    let mut term = 0;
    for outer in 0..walk.outer {
        let mut inner = 0;
        while inner < walk.inner {
            let runs = (TERMS / run).clamp(1, walk.inner - inner);
            let offset = outer * walk.outer_stride + inner * walk.inner_stride;
            for start in (0..run).step_by(TERMS) {
                let len = TERMS.min(run - start);
                each(&Piece {
                    terms: [term, term + runs * len],
                    offset: offset + start,
                    walk: Walk {
                        outer: 1,
                        outer_stride: 0,
                        inner: runs,
                        inner_stride: walk.inner_stride,
                        run_len: len,
                    },
                });
                term += runs * len;
            }
            inner += runs;
        }
    }
}

/// [`product`] over codes.
///
/// # Safety
/// As there; `right.b` is not read. `scratch` holds [`unpacked_len`].
unsafe fn product_of_codes(
    isa: Isa,
    left: &Rows,
    walk: &Walk,
    right: &Columns<f32>,
    stored: &Stored<'_>,
    scratch: &mut [f32],
) {
    let tiles = PackedTiles::single(isa);
    let Nibbles {
        codes,
        scales,
        levels,
        group,
    } = stored.nibbles;
    for first in (0..right.columns).step_by(PANELS * PANEL) {
        let wide = (right.columns - first).min(PANELS * PANEL);
        pieces(walk, |piece| {
            let [start, end] = piece.terms;
            let len = end - start;
            for (index, out) in scratch[..len * wide.next_multiple_of(PANEL)]
                .chunks_exact_mut(len * PANEL)
                .enumerate()
            {
                let column = first + index * PANEL;
                let codes = &codes[stored.at + right.terms * (column / 2)..];
                let from = stored.column + column;
                let levels = match levels {
                    Levels::Zeros(zeros) => Levels::Zeros(&zeros[from..]),
                    other => other,
                };
                let panel = PANEL.min(right.columns - column);
                let scales = &scales[from..];
                let stride = stored.stride;
                unpack(
                    isa,
                    codes,
                    panel,
                    piece.terms,
                    group,
                    scales,
                    levels,
                    stride,
                    out,
                );
            }
            let (begins, ends) = (start == 0, end == right.terms);
            let right = Columns {
                b: scratch.as_ptr(),
                terms: len,
                columns: wide,
                bias: match begins {
                    true => moved(right.bias, first),
                    false => core::ptr::null(),
                },
                continues: !begins,
                c: right.c.wrapping_add(first),
                c_stride: right.c_stride,
                residual: match ends {
                    true => moved(right.residual, first),
                    false => core::ptr::null(),
                },
                first: if ends { right.first } else { Fused::None },
                last: if ends { right.last } else { Fused::None },
            };
            let left = Rows {
                a: left.a.wrapping_add(piece.offset),
                ..*left
            };
            // SAFETY: the caller's promise; a piece lies inside of the walk, and the scratch holds
            // its panels.
            unsafe { product(tiles, &left, &piece.walk, &right) };
        });
    }
}

pub(in super::super) fn dense(
    isa: Isa,
    d: &Dense,
    rows: usize,
    x: &[f32],
    nibbles: Nibbles<'_>,
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let right = columns(d.inputs, d.outputs, &[], bias, after, y);
    // SAFETY: `Kernels::served_dense_four` checked every length.
    unsafe { flat(isa, rows, x.as_ptr(), &right, nibbles, scratch) }
}

/// A product of contiguous rows.
///
/// # Safety
/// As for [`product_of_codes`], for `rows` rows of all terms and columns.
unsafe fn flat(
    isa: Isa,
    rows: usize,
    a: *const f32,
    right: &Columns<f32>,
    nibbles: Nibbles<'_>,
    scratch: &mut [f32],
) {
    let stored = Stored {
        nibbles,
        stride: right.columns,
        column: 0,
        at: 0,
    };
    row_blocks(PackedTiles::single(isa), rows, a, right, |left, right| {
        let walk = Walk::straight(right.terms);
        // SAFETY: the caller's promise.
        unsafe { product_of_codes(isa, left, &walk, right, &stored, scratch) };
    });
}

/// A convolution of `x`, or of what lies in `y` where there is none; not of one filter a channel.
pub(in super::super) fn conv(
    isa: Isa,
    c: &Conv,
    rows: usize,
    x: Option<&[f32]>,
    nibbles: Nibbles<'_>,
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let s = c.shape;
    let (walk, terms) = walk_of(c);
    let group_out = s.filters / s.groups;
    let (unpacked, scratch) = scratch.split_at_mut(unpacked_len(terms, group_out));
    if let Some(x) = x
        && c.is_pointwise()
    {
        let right = columns(s.channels, s.filters, &[], bias, after, y);
        let positions = rows * c.out_height * c.out_width;
        // SAFETY: `Kernels::served_conv` checked every length.
        return unsafe { flat(isa, positions, x.as_ptr(), &right, nibbles, unpacked) };
    }
    bands(c, rows, x, y, scratch, |y, row, part| {
        lines(c, row, part, bias, after, y, |group, left, right| {
            let stored = Stored {
                nibbles,
                stride: s.filters,
                column: group * group_out,
                at: group * nibbles_len(terms, group_out),
            };
            // SAFETY: `Kernels::served_conv` checked every length, and a part holds what its lines
            // cover.
            unsafe { product_of_codes(isa, left, &walk, right, &stored, unpacked) };
        });
    });
}
