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
use super::{Walk, depthwise, four};

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
pub(super) struct Rows {
    pub(super) a: *const f32,
    pub(super) stride: usize,
    pub(super) groups: usize,
    /// From group to group, in `a` and in `c`.
    pub(super) group_stride: usize,
    pub(super) group_c_stride: usize,
    pub(super) rows: usize,
}

/// The columns, the output and what lies like it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns<T> {
    pub(super) b: *const T,
    pub(super) terms: usize,
    pub(super) columns: usize,
    pub(super) bias: *const f32,
    /// Whether the sums start from what is in `c`, and not from the bias.
    pub(super) continues: bool,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    pub(super) residual: *const f32,
    pub(super) first: Fused,
    pub(super) last: Fused,
}

impl<T> Columns<T> {
    /// The same with other weights.
    fn over<U>(&self, b: *const U) -> Columns<U> {
        Columns {
            b,
            terms: self.terms,
            columns: self.columns,
            bias: self.bias,
            continues: self.continues,
            c: self.c,
            c_stride: self.c_stride,
            residual: self.residual,
            first: self.first,
            last: self.last,
        }
    }
}

/// `p` moved by `offset`, where it is not null.
pub(super) fn moved(p: *const f32, offset: usize) -> *const f32 {
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
pub(super) unsafe fn product<T: Stored>(
    tiles: &PackedTiles<T>,
    left: &Rows,
    walk: &Walk,
    right: &Columns<T>,
) {
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
            bias_stride: 0,
            residual: moved(right.residual, column),
            first: right.first,
            last: right.last,
        };
        for group in 0..left.groups {
            let mut row = 0;
            for row_tile in 0..row_tiles {
                let rows = base + usize::from(row_tile < extra);
                let at = group * left.group_c_stride + row * right.c_stride;
                let c = tile.c.wrapping_add(at);
                let (bias, bias_stride) = match right.continues {
                    true => (c.cast_const(), right.c_stride),
                    false => (tile.bias, 0),
                };
                let tile = PackedTile {
                    a: tile
                        .a
                        .wrapping_add(group * left.group_stride + row * left.stride),
                    c,
                    bias,
                    bias_stride,
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

/// A product of contiguous rows in blocks that stay in the cache: a dense layer, or a convolution
/// by single positions.
pub(super) fn row_blocks<T>(
    tiles: &PackedTiles<f32>,
    rows: usize,
    a: *const f32,
    right: &Columns<T>,
    mut each: impl FnMut(&Rows, &Columns<T>),
) {
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
            ..right.over(right.b)
        };
        each(&left, &right);
        row += rows;
    }
}

/// A product of contiguous rows.
///
/// # Safety
/// As for [`product`], for `rows` rows of `terms` and of `columns`.
unsafe fn flat<T: Stored>(
    isa: Isa,
    tiles: &PackedTiles<T>,
    rows: usize,
    a: *const f32,
    right: &Columns<T>,
) {
    row_blocks(PackedTiles::single(isa), rows, a, right, |left, right| {
        // SAFETY: the caller's promise.
        unsafe { product(tiles, left, &Walk::straight(right.terms), right) };
    });
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
    scratch: &mut [f32],
) {
    match weight {
        Weights::Single(weight) if cfg!(feature = "float32") => {
            let right = columns(d.inputs, d.outputs, weight, bias, after, y);
            // SAFETY: `Kernels::served_dense` checked every length.
            unsafe { flat(isa, PackedTiles::single(isa), rows, x.as_ptr(), &right) }
        }
        Weights::Half(weight) if cfg!(feature = "float16") => {
            let right = columns(d.inputs, d.outputs, weight, bias, after, y);
            // SAFETY: as above.
            unsafe { flat(isa, PackedTiles::half(isa), rows, x.as_ptr(), &right) }
        }
        Weights::Four(nibbles) if cfg!(feature = "int4") => {
            four::dense(isa, d, rows, x, nibbles, bias, after, y, scratch);
        }
        _ => unreachable!("weights that this build leaves out"),
    }
}

/// All columns of an output of `columns`.
pub(super) fn columns<T>(
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
        continues: false,
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
        (Weights::Single(weight), Some(x)) if cfg!(feature = "float32") && c.is_depthwise() => {
            depthwise::served(isa, c, rows, x, weight, bias, after, y);
        }
        (Weights::Half(half), Some(x)) if cfg!(feature = "float16") && c.is_depthwise() => {
            let weight = &mut scratch[..c.weight_len()];
            super::super::half::widen(isa, half, weight);
            depthwise::served(isa, c, rows, x, weight, bias, after, y);
        }
        (Weights::Eight(octets), Some(x)) if cfg!(feature = "int4") && c.is_depthwise() => {
            let weight = &mut scratch[..c.weight_len()];
            four::widen(octets, c.shape.filters, weight);
            depthwise::served(isa, c, rows, x, weight, bias, after, y);
        }
        (Weights::Single(weight), _) if cfg!(feature = "float32") => {
            let tiles = PackedTiles::single(isa);
            convolve(isa, tiles, c, rows, x, weight, bias, after, y, scratch);
        }
        (Weights::Half(weight), _) if cfg!(feature = "float16") => {
            let tiles = PackedTiles::half(isa);
            convolve(isa, tiles, c, rows, x, weight, bias, after, y, scratch);
        }
        (Weights::Four(nibbles), _) if cfg!(feature = "int4") => {
            four::conv(isa, c, rows, x, nibbles, bias, after, y, scratch);
        }
        _ => unreachable!("weights that this build leaves out"),
    }
}

fn convolve<T: Stored>(
    isa: Isa,
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
        return unsafe { flat(isa, tiles, positions, x.as_ptr(), &right) };
    }
    let (walk, terms) = walk_of(c);
    let len = packed_len(terms, s.filters / s.groups);
    bands(c, rows, x, y, scratch, |y, row, part| {
        lines(c, row, part, bias, after, y, |group, left, right| {
            let right = right.over(weight[group * len..].as_ptr());
            // SAFETY: `Kernels::served_conv` checked every length, and a part holds what its lines
            // cover.
            unsafe { product(tiles, left, &walk, &right) };
        });
    });
}

/// Every image in bands of lines, with the (padded) lines of the input that they cover.
pub(super) fn bands(
    c: &Conv,
    rows: usize,
    x: Option<&[f32]>,
    y: &mut [f32],
    scratch: &mut [f32],
    mut compute: impl FnMut(&mut [f32], usize, &Part<'_, f32>),
) {
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

/// The walk over the terms of a window within one group of channels, and their number.
pub(super) fn walk_of(c: &Conv) -> (Walk, usize) {
    let s = c.shape;
    let group_in = s.channels / s.groups;
    let [high, wide] = s.kernel;
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
    (walk, high * wide * group_in)
}

/// The lines of a part of image `row`, group of channels by group: the operands of its product,
/// the weights excepted.
pub(super) fn lines(
    c: &Conv,
    row: usize,
    part: &Part<'_, f32>,
    bias: Option<&[f32]>,
    after: After<'_>,
    y: &mut [f32],
    mut each: impl FnMut(usize, &Rows, &Columns<f32>),
) {
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    let line = c.padded_line();
    let (_, terms) = walk_of(c);
    let at = row * c.output_len() + part.first * c.out_width * s.filters;
    let whole = columns(terms, group_out, &[], bias, after, y);
    for group in 0..s.groups {
        let left = Rows {
            a: part.covered[group * group_in..].as_ptr(),
            stride: s.stride[1] * s.channels,
            groups: part.count,
            group_stride: s.stride[0] * line,
            group_c_stride: c.out_width * s.filters,
            rows: c.out_width,
        };
        let at = at + group * group_out;
        let right = Columns {
            c: whole.c.wrapping_add(at),
            c_stride: s.filters,
            bias: moved(whole.bias, group * group_out),
            residual: moved(whole.residual, at),
            ..whole
        };
        each(group, &left, &right);
    }
}
