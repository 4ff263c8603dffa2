//! Products of a served model: dense layers and convolutions over weights packed beforehand.
//!
//! Weights are packed in panels of [`PANEL`] columns, `[group][panel][term][column]`: the same
//! bytes on every machine, so they can lie in a file and be used where they lie. The columns of
//! the last panel beyond the filters are zeros. The weights of a convolution with one filter per
//! channel stay as they are.

use super::super::geometry::{Conv, Dense};
use super::super::simd::Isa;
use super::super::types::{After, Fused, Weights};
use super::band::{Band, Part};
use super::packed_tile::{PackedFn, PackedTile, PackedTiles, Stored};
use super::{Walk, depthwise};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;

/// Rows are taken in blocks whose inputs and outputs have at most so many bytes: they stay in the
/// second cache while all panels pass.
const BLOCK_BYTES: usize = 512 * 1024;

/// Numbers of `[terms, columns]` packed.
pub(in super::super) fn packed_len(terms: usize, columns: usize) -> usize {
    terms * columns.next_multiple_of(PANEL)
}

/// Packs `weight[terms, columns]`, whose rows are `stride` apart.
pub(in super::super) fn pack(
    terms: usize,
    columns: usize,
    weight: &[f32],
    stride: usize,
    packed: &mut [f32],
) {
    for (index, panel) in packed[..packed_len(terms, columns)]
        .chunks_exact_mut(terms * PANEL)
        .enumerate()
    {
        let first = index * PANEL;
        let len = PANEL.min(columns - first);
        for (term, to) in panel.chunks_exact_mut(PANEL).enumerate() {
            to[..len].copy_from_slice(&weight[term * stride + first..][..len]);
            to[len..].fill(0.0);
        }
    }
}

/// The rows of a product: `groups` groups of `rows` rows.
#[derive(Clone, Copy, Debug)]
struct Rows {
    a: *const f32,
    stride: usize,
    groups: usize,
    /// From group to group, in `a` and in `c`.
    group_stride: usize,
    group_c_stride: usize,
    rows: usize,
}

/// The columns, the output and what lies like it.
#[derive(Clone, Copy, Debug)]
struct Columns<T> {
    b: *const T,
    terms: usize,
    columns: usize,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
    residual: *const f32,
    first: Fused,
    last: Fused,
}

/// `p` moved by `offset`, where it is not null.
fn moved(p: *const f32, offset: usize) -> *const f32 {
    if p.is_null() {
        p
    } else {
        p.wrapping_add(offset)
    }
}

fn pointer(slice: Option<&[f32]>) -> *const f32 {
    slice.map_or(core::ptr::null(), <[f32]>::as_ptr)
}

/// # Safety
/// All operands must be valid for the elements described; `tiles` must be this machine's.
unsafe fn product<T: Stored>(tiles: &PackedTiles<T>, left: &Rows, walk: &Walk, right: &Columns<T>) {
    if left.rows == 0 {
        return;
    }
    let per_panel = PANEL / tiles.width;
    let vectors = right.columns.div_ceil(tiles.width);
    // Few rows take wide tiles, so that enough sums are under way.
    let (kernels, wide): (&[PackedFn<T>], usize) = if left.rows <= tiles.eight.len() && vectors > 4
    {
        (tiles.eight, 8)
    } else if left.rows <= tiles.four.len() && vectors > 2 {
        (tiles.four, 4)
    } else if vectors > 1 {
        (tiles.two, 2)
    } else {
        (tiles.one, 1)
    };
    let row_tiles = left.rows.div_ceil(kernels.len());
    let (base, extra) = (left.rows / row_tiles, left.rows % row_tiles);
    let mut vector = 0;
    while vector < vectors {
        // The last vectors in a narrower tile, as far as panels are whole.
        let mut kernels = kernels;
        let mut width = wide;
        let rest = (vectors - vector).next_multiple_of(per_panel.min(wide));
        while width > rest {
            (kernels, width) = match width {
                8 => (tiles.four, 4),
                4 => (tiles.two, 2),
                _ => (tiles.one, 1),
            };
        }
        let column = vector * tiles.width;
        let tile = PackedTile {
            a: left.a,
            a_stride: left.stride,
            outer: walk.outer,
            outer_stride: walk.outer_stride,
            inner: walk.inner,
            inner_stride: walk.inner_stride,
            run_len: walk.run_len,
            b: right
                .b
                .wrapping_add(vector / per_panel * (right.terms * PANEL) + column % PANEL),
            panel: right.terms * PANEL,
            c: right.c.wrapping_add(column),
            c_stride: right.c_stride,
            columns: (right.columns - column).min(width * tiles.width),
            bias: moved(right.bias, column),
            residual: moved(right.residual, column),
            first: right.first,
            last: right.last,
        };
        for group in 0..left.groups {
            let mut row = 0;
            for row_tile in 0..row_tiles {
                let rows = base + usize::from(row_tile < extra);
                let at = group * left.group_c_stride + row * right.c_stride;
                let tile = PackedTile {
                    a: tile
                        .a
                        .wrapping_add(group * left.group_stride + row * left.stride),
                    c: tile.c.wrapping_add(at),
                    residual: moved(tile.residual, at),
                    ..tile
                };
                // SAFETY: the caller's promise; the tile lies inside the product.
                unsafe { kernels[rows - 1](&tile) };
                row += rows;
            }
        }
        vector += width;
    }
}

/// A product of contiguous rows: a dense layer, or a convolution by single positions.
///
/// # Safety
/// As for [`product`], for `rows` rows of `terms` and of `columns`.
unsafe fn flat<T: Stored>(tiles: &PackedTiles<T>, rows: usize, a: *const f32, right: &Columns<T>) {
    let bytes = (right.terms + right.columns) * size_of::<f32>();
    let most = (BLOCK_BYTES / bytes).max(tiles.two.len());
    let blocks = rows.div_ceil(most);
    let (base, extra) = (rows / blocks.max(1), rows % blocks.max(1));
    let mut row = 0;
    for block in 0..blocks {
        let rows = base + usize::from(block < extra);
        let left = Rows {
            a: a.wrapping_add(row * right.terms),
            stride: right.terms,
            groups: 1,
            group_stride: 0,
            group_c_stride: 0,
            rows,
        };
        let at = row * right.c_stride;
        let right = Columns {
            c: right.c.wrapping_add(at),
            residual: moved(right.residual, at),
            ..*right
        };
        // SAFETY: the caller's promise.
        unsafe { product(tiles, &left, &Walk::straight(right.terms), &right) };
        row += rows;
    }
}

pub(in super::super) fn dense(
    isa: Isa,
    d: &Dense,
    rows: usize,
    x: &[f32],
    weight: Weights<'_>,
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
) {
    match weight {
        Weights::Single(weight) => {
            let right = columns(d.inputs, d.outputs, weight, bias, after, y);
            // SAFETY: `Kernels::served_dense` checked every length.
            unsafe { flat(PackedTiles::single(isa), rows, x.as_ptr(), &right) }
        }
        Weights::Half(weight) => {
            let right = columns(d.inputs, d.outputs, weight, bias, after, y);
            // SAFETY: as above.
            unsafe { flat(PackedTiles::half(isa), rows, x.as_ptr(), &right) }
        }
    }
}

/// All columns of an output of `columns`.
fn columns<T>(
    terms: usize,
    columns: usize,
    weight: &[T],
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
) -> Columns<T> {
    Columns {
        b: weight.as_ptr(),
        terms,
        columns,
        bias: pointer(bias),
        c: y.as_mut_ptr(),
        c_stride: columns,
        residual: pointer(after.residual),
        first: after.first,
        last: after.last,
    }
}

/// A convolution of `x`, or of what lies in `y` where there is none.
pub(in super::super) fn conv(
    isa: Isa,
    c: &Conv,
    rows: usize,
    x: Option<&[f32]>,
    weight: Weights<'_>,
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    match (weight, x) {
        (Weights::Single(weight), Some(x)) if c.is_depthwise() => {
            depthwise::served(isa, c, rows, x, weight, bias, after, y);
        }
        (Weights::Half(half), Some(x)) if c.is_depthwise() => {
            let weight = &mut scratch[..c.weight_len()];
            super::super::half::widen(isa, half, weight);
            depthwise::served(isa, c, rows, x, weight, bias, after, y);
        }
        (Weights::Single(weight), _) => {
            let tiles = PackedTiles::single(isa);
            convolve(tiles, c, rows, x, weight, bias, after, y, scratch);
        }
        (Weights::Half(weight), _) => {
            let tiles = PackedTiles::half(isa);
            convolve(tiles, c, rows, x, weight, bias, after, y, scratch);
        }
    }
}

fn convolve<T: Stored>(
    tiles: &PackedTiles<T>,
    c: &Conv,
    rows: usize,
    x: Option<&[f32]>,
    weight: &[T],
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let s = c.shape;
    if let Some(x) = x
        && c.is_pointwise()
    {
        let right = columns(s.channels, s.filters, weight, bias, after, y);
        let positions = rows * c.out_height * c.out_width;
        // SAFETY: `Kernels::served_conv` checked every length.
        return unsafe { flat(tiles, positions, x.as_ptr(), &right) };
    }
    let compute = |y: &mut [f32], row: usize, part: &Part<'_, f32>| {
        let at = row * c.output_len() + part.first * c.out_width * s.filters;
        let (input, count) = (part.covered, part.count);
        // SAFETY: `Kernels::served_conv` checked every length, and a part holds what its lines
        // cover.
        unsafe { output_lines(tiles, c, input, count, weight, bias, after, at, y) };
    };
    for row in 0..rows {
        if let Some(x) = x
            && !c.is_padded()
        {
            let whole = Part {
                first: 0,
                count: c.out_height,
                covered: &x[row * c.input_len()..][..c.input_len()],
            };
            compute(y, row, &whole);
            continue;
        }
        let mut band = Band::new(c, 0.0, scratch);
        while let Some(part) = band.next(&x.unwrap_or(y)[row * c.input_len()..][..c.input_len()]) {
            compute(y, row, &part);
        }
    }
}

/// `count` lines of a convolution's output, which start at `at` in `y`, out of the (padded) lines
/// of the input that they cover.
///
/// # Safety
/// `input` must hold those lines, `weight` and `bias` what the convolution needs, `y` and the
/// residual `count` lines from `at` on.
unsafe fn output_lines<T: Stored>(
    tiles: &PackedTiles<T>,
    c: &Conv,
    input: &[f32],
    count: usize,
    weight: &[T],
    bias: Option<&[f32]>,
    after: After<'_>,
    at: usize,
    y: &mut [f32],
) {
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    let [high, wide] = s.kernel;
    let terms = high * wide * group_in;
    let line = c.padded_line();
    let walk = if s.groups == 1 {
        Walk {
            outer: 1,
            outer_stride: 0,
            inner: high,
            inner_stride: line,
            run_len: wide * s.channels,
        }
    } else {
        Walk {
            outer: high,
            outer_stride: line,
            inner: wide,
            inner_stride: s.channels,
            run_len: group_in,
        }
    };
    let whole = columns(terms, group_out, weight, bias, after, y);
    for group in 0..s.groups {
        let left = Rows {
            a: input[group * group_in..].as_ptr(),
            stride: s.stride[1] * s.channels,
            groups: count,
            group_stride: s.stride[0] * line,
            group_c_stride: c.out_width * s.filters,
            rows: c.out_width,
        };
        let at = at + group * group_out;
        let right = Columns {
            b: weight[group * packed_len(terms, group_out)..].as_ptr(),
            c: whole.c.wrapping_add(at),
            c_stride: s.filters,
            bias: moved(whole.bias, group * group_out),
            residual: moved(whole.residual, at),
            ..whole
        };
        // SAFETY: the caller's promise.
        unsafe { product(tiles, &left, &walk, &right) };
    }
}
