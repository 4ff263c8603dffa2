//! Products: dense layers and convolutions, cut into tiles.
//!
//! Every operator here becomes products of a strided left operand, read by broadcast, and a right
//! operand with contiguous rows; nothing is unrolled into a column matrix. Cutting the sum over
//! `k` into blocks stores and reloads the same accumulator, so it changes no bit.

mod band;
mod conv;
mod depthwise;
mod four;
mod packed;
mod packed_tile;
mod tile;
#[cfg(target_arch = "x86_64")]
mod transpose;

pub(super) use band::Band;
pub(super) use conv::{conv, conv_dw, conv_dx, pad_images};
pub(super) use four::{nibbles_len, pack_nibbles, pack_rows, row_bytes, unpack_row, unpacked_len};
pub(super) use packed::{conv as served_conv, dense as served_dense, pack, packed_len};

use super::geometry::Dense;
use super::simd::Isa;
use super::types::{Fused, Gradient, Write};
use tile::{End, Start, Tile, Tiles};

/// Columns of the widest tile of any instruction set.
pub(super) const MAX_TILE_COLUMNS: usize = 32;

/// Terms of a block when the right operand's block shall stay in the first cache: 24 KiB.
const CACHED_BYTES: usize = 24 * 1024;

/// A block of the right operand of at most so many bytes is reread for every row of tiles.
const WHOLE_ROWS_BYTES: usize = 48 * 1024;

/// Terms of a dense layer's block: few, so that a large weight is read almost from front to back.
const DENSE_TERMS: usize = 64;

/// An output of more bytes does not stay in the second cache.
const LARGE_BYTES: usize = 1024 * 1024;

/// How `k` walks over the left operand.
#[derive(Clone, Copy, Debug)]
struct Walk {
    outer: usize,
    outer_stride: usize,
    inner: usize,
    inner_stride: usize,
    run_len: usize,
}

impl Walk {
    /// One run.
    fn straight(run_len: usize) -> Self {
        Self {
            outer: 1,
            outer_stride: 0,
            inner: 1,
            inner_stride: 0,
            run_len,
        }
    }

    /// The largest parts (of outer, inner, run) that hold at most about `terms` terms.
    fn parts(&self, terms: usize) -> (usize, usize, usize) {
        let even = |len: usize, part: usize| len.div_ceil(len.div_ceil(part.max(1)).max(1)).max(1);
        let plane = self.inner * self.run_len;
        if plane <= terms {
            let outer = terms / plane.max(1);
            (even(self.outer, outer), self.inner, self.run_len)
        } else if self.run_len <= terms {
            (1, even(self.inner, terms / self.run_len), self.run_len)
        } else {
            (1, 1, even(self.run_len, terms))
        }
    }
}

/// The left operand and the rows of a product: `groups` groups of `rows` rows.
#[derive(Clone, Copy, Debug)]
struct Left {
    a: *const f32,
    /// Whether `a` is contiguous in `k` (else in rows).
    terms_contiguous: bool,
    /// The stride that is not 1.
    stride: usize,
    groups: usize,
    /// From group to group, in `a` and in `c`.
    group_stride: usize,
    group_c_stride: usize,
    rows: usize,
}

/// The right operand, the columns and the output.
#[derive(Clone, Copy, Debug)]
struct Right {
    b: *const f32,
    b_stride: usize,
    columns: usize,
    c: *mut f32,
    c_stride: usize,
    start: Start,
    end: End,
}

impl End {
    /// The same, `offset` numbers further in every operand that lies like `c`.
    fn offset(self, offset: usize) -> Self {
        match self {
            Self::Step {
                weights,
                anchor,
                step,
            } => Self::Step {
                weights: weights.wrapping_add(offset),
                anchor: anchor.wrapping_add(offset),
                step,
            },
            other => other,
        }
    }
}

/// Computes a product in blocks of about `terms` terms.
///
/// # Safety
/// All operands must be valid for the elements described; `tiles` must be this machine's. With
/// several blocks `c` holds the sums in between, so `end` must then not be [`End::Add`], and `c`
/// not alias the weights of [`End::Step`].
unsafe fn product(tiles: &Tiles, left: &Left, walk: &Walk, right: &Right, terms: usize) {
    let (outer_part, inner_part, run_part) = walk.parts(terms);
    let micro = if left.terms_contiguous {
        tiles.terms_contiguous
    } else {
        tiles.rows_contiguous
    };
    let term_stride = if left.terms_contiguous {
        1
    } else {
        left.stride
    };
    let row_stride = if left.terms_contiguous {
        left.stride
    } else {
        1
    };
    let tile_columns = 2 * tiles.width;
    let row_tiles = left.rows.div_ceil(micro.len()).max(1);
    let (row_base, row_extra) = (left.rows / row_tiles, left.rows % row_tiles);

    let output_bytes = left.groups * left.rows * right.columns * size_of::<f32>();

    let mut outer = 0;
    while outer < walk.outer {
        let outers = outer_part.min(walk.outer - outer);
        let mut inner = 0;
        while inner < walk.inner {
            let inners = inner_part.min(walk.inner - inner);
            let mut run = 0;
            while run < walk.run_len {
                let run_len = run_part.min(walk.run_len - run);
                let first = outer == 0 && inner == 0 && run == 0;
                let last = outer + outers == walk.outer
                    && inner + inners == walk.inner
                    && run + run_len == walk.run_len;
                let block = Tile {
                    a: left.a.wrapping_add(
                        outer * walk.outer_stride + inner * walk.inner_stride + run * term_stride,
                    ),
                    a_stride: left.stride,
                    outer: outers,
                    outer_stride: walk.outer_stride,
                    inner: inners,
                    inner_stride: walk.inner_stride,
                    run_len,
                    b: right.b.wrapping_add(
                        ((outer * walk.inner + inner) * walk.run_len + run) * right.b_stride,
                    ),
                    b_stride: right.b_stride,
                    c: right.c,
                    c_stride: right.c_stride,
                    last: tiles.width,
                    start: if first { right.start } else { Start::C },
                    end: if last { right.end } else { End::Store },
                };
                let one_tile = |group: usize, row_tile: usize, column: usize| {
                    let width = (right.columns - column).min(tile_columns);
                    let vectors = width.div_ceil(tiles.width);
                    let rows = row_base + usize::from(row_tile < row_extra);
                    let row = row_tile * row_base + row_tile.min(row_extra);
                    let at = group * left.group_c_stride + row * right.c_stride + column;
                    let tile = Tile {
                        a: block
                            .a
                            .wrapping_add(group * left.group_stride + row * row_stride),
                        b: block.b.wrapping_add(column),
                        c: block.c.wrapping_add(at),
                        last: width - (vectors - 1) * tiles.width,
                        start: match block.start {
                            Start::Bias(bias) => Start::Bias(bias.wrapping_add(column)),
                            other => other,
                        },
                        end: block.end.offset(at),
                        ..block
                    };
                    // SAFETY: the caller's promise; the tile lies inside the product.
                    unsafe { micro[rows - 1][vectors - 1](&tile) };
                };
                let terms = outers * inners * run_len;
                if left.rows == 0 {
                } else if output_bytes > LARGE_BYTES
                    && terms * right.columns * size_of::<f32>() <= WHOLE_ROWS_BYTES
                {
                    // Along rows: a large output is written from front to back.
                    for group in 0..left.groups {
                        for row_tile in 0..row_tiles {
                            for column in (0..right.columns).step_by(tile_columns) {
                                one_tile(group, row_tile, column);
                            }
                        }
                    }
                } else {
                    // Down a column of tiles: its part of the right operand stays in the cache.
                    for column in (0..right.columns).step_by(tile_columns) {
                        for group in 0..left.groups {
                            for row_tile in 0..row_tiles {
                                one_tile(group, row_tile, column);
                            }
                        }
                    }
                }
                run += run_len;
            }
            inner += inners;
        }
        outer += outers;
    }
}

/// Terms whose block of one tile's columns stays in the first cache.
fn cached_terms(tiles: &Tiles) -> usize {
    CACHED_BYTES / (2 * tiles.width * size_of::<f32>())
}

fn start_of(bias: Option<&[f32]>) -> Start {
    bias.map_or(Start::Zero, |bias| Start::Bias(bias.as_ptr()))
}

fn end_of(fused: Fused) -> End {
    match fused {
        Fused::None => End::Store,
        Fused::Relu => End::Relu,
        Fused::Relu6 => End::Relu6,
    }
}

/// Where a gradient's sums live, start and end; `scratch` holds sums in between.
fn places(gradient: &mut Gradient<'_>, scratch: *mut f32) -> (*mut f32, Start, End) {
    match gradient {
        Gradient::Store(to) => (to.as_mut_ptr(), Start::Zero, End::Store),
        Gradient::Accumulate(to) => (to.as_mut_ptr(), Start::C, End::Store),
        Gradient::Step {
            weights,
            anchor,
            step,
        } => {
            let end = End::Step {
                weights: weights.as_mut_ptr(),
                anchor: anchor.as_ptr(),
                step: *step,
            };
            (scratch, Start::Zero, end)
        }
    }
}

pub(super) fn dense(
    isa: Isa,
    d: &Dense,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    fused: Fused,
    y: &mut [f32],
) {
    let tiles = Tiles::of(isa);
    let left = Left {
        a: x.as_ptr(),
        terms_contiguous: true,
        stride: d.inputs,
        groups: 1,
        group_stride: 0,
        group_c_stride: 0,
        rows,
    };
    let right = Right {
        b: weight.as_ptr(),
        b_stride: d.outputs,
        columns: d.outputs,
        c: y.as_mut_ptr(),
        c_stride: d.outputs,
        start: start_of(bias),
        end: end_of(fused),
    };
    // SAFETY: `Kernels::dense` checked every length; `y` is not the weights of a step.
    unsafe { product(tiles, &left, &Walk::straight(d.inputs), &right, DENSE_TERMS) };
}

pub(super) fn dense_dx(
    isa: Isa,
    d: &Dense,
    rows: usize,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    write: Write,
    scratch: &mut [f32],
) {
    let tiles = Tiles::of(isa);
    let panel = 2 * tiles.width;
    for input in (0..d.inputs).step_by(panel) {
        let columns = panel.min(d.inputs - input);
        let left = Left {
            a: dy.as_ptr(),
            terms_contiguous: true,
            stride: d.outputs,
            groups: 1,
            group_stride: 0,
            group_c_stride: 0,
            rows,
        };
        let right = Right {
            b: scratch.as_ptr(),
            b_stride: panel,
            columns,
            c: dx[input..].as_mut_ptr(),
            c_stride: d.inputs,
            start: Start::Zero,
            end: match write {
                Write::Store => End::Store,
                Write::Add => End::Add,
            },
        };
        // SAFETY: `Kernels::dense_dx` checked every length, the scratch's for a panel of all
        // outputs; there is one block.
        unsafe {
            (tiles.pack_transposed)(
                weight[input * d.outputs..].as_ptr(),
                d.outputs,
                columns,
                d.outputs,
                scratch.as_mut_ptr(),
                panel,
            );
            product(tiles, &left, &Walk::straight(d.outputs), &right, usize::MAX);
        }
    }
}

pub(super) fn dense_dw(
    isa: Isa,
    d: &Dense,
    rows: usize,
    x: &[f32],
    dy: &[f32],
    gradient: Gradient<'_>,
) {
    let tiles = Tiles::of(isa);
    let mut gradient = gradient;
    let (c, start, end) = places(&mut gradient, core::ptr::null_mut());
    let left = Left {
        a: x.as_ptr(),
        terms_contiguous: false,
        stride: d.inputs,
        groups: 1,
        group_stride: 0,
        group_c_stride: 0,
        rows: d.inputs,
    };
    let right = Right {
        b: dy.as_ptr(),
        b_stride: d.outputs,
        columns: d.outputs,
        c,
        c_stride: d.outputs,
        start,
        end,
    };
    // SAFETY: `Kernels::dense_dw` checked every length; there is one block, so a step's `c` is
    // never touched.
    unsafe { product(tiles, &left, &Walk::straight(rows), &right, usize::MAX) };
}

/// [`dense_dw`] for the columns from `at` on of a gradient `[inputs, outputs]`, as many as are
/// given of `dy`, whose rows are `dy_stride` apart.
pub(super) fn columns_dw(
    isa: Isa,
    d: &Dense,
    rows: usize,
    x: &[f32],
    (dy, dy_stride): (&[f32], usize),
    [at, columns]: [usize; 2],
    gradient: Gradient<'_>,
) {
    assert!(at + columns <= d.outputs && columns <= dy_stride);
    if rows > 0 {
        assert!(x.len() >= rows * d.inputs);
        assert!(dy.len() >= (rows - 1) * dy_stride + columns);
    }
    let mut gradient = gradient;
    let (c, start, end) = places(&mut gradient, core::ptr::null_mut());
    let left = Left {
        a: x.as_ptr(),
        terms_contiguous: false,
        stride: d.inputs,
        groups: 1,
        group_stride: 0,
        group_c_stride: 0,
        rows: d.inputs,
    };
    let right = Right {
        b: dy.as_ptr(),
        b_stride: dy_stride,
        columns,
        c: c.wrapping_add(at),
        c_stride: d.outputs,
        start,
        end: end.offset(at),
    };
    // SAFETY: the lengths of `x` and `dy` are checked above, the gradient's by the caller's
    // `need_gradient`; there is one block, so a step's `c` is never touched.
    unsafe {
        product(
            Tiles::of(isa),
            &left,
            &Walk::straight(rows),
            &right,
            usize::MAX,
        )
    };
}

/// A matrix whose rows are `stride` numbers apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strided<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

impl Strided<'_> {
    fn check(&self, rows: usize, columns: usize) {
        assert!(columns <= self.stride || rows <= 1);
        assert!(rows == 0 || self.values.len() >= (rows - 1) * self.stride + columns);
    }
}

/// `c[rows, columns] = a b`, terms ascending, where `a` is `[rows, terms]` or, `transposed`,
/// `[terms, rows]`, and `b` is `[terms, columns]`.
pub(super) fn strided(
    isa: Isa,
    [rows, terms, columns]: [usize; 3],
    a: Strided<'_>,
    transposed: bool,
    b: Strided<'_>,
    c: &mut [f32],
    c_stride: usize,
) {
    match transposed {
        false => a.check(rows, terms),
        true => a.check(terms, rows),
    }
    b.check(terms, columns);
    let to = Strided {
        values: c,
        stride: c_stride,
    };
    to.check(rows, columns);
    let left = Left {
        a: a.values.as_ptr(),
        terms_contiguous: !transposed,
        stride: a.stride,
        groups: 1,
        group_stride: 0,
        group_c_stride: 0,
        rows,
    };
    let right = Right {
        b: b.values.as_ptr(),
        b_stride: b.stride,
        columns,
        c: c.as_mut_ptr(),
        c_stride,
        start: Start::Zero,
        end: End::Store,
    };
    let tiles = Tiles::of(isa);
    // SAFETY: all three operands were checked above.
    unsafe {
        product(
            tiles,
            &left,
            &Walk::straight(terms),
            &right,
            cached_terms(tiles),
        );
    }
}

/// `to[columns, rows] = from[rows, columns]^T`, `from` with a stride.
pub(super) fn transpose_strided(
    isa: Isa,
    rows: usize,
    columns: usize,
    from: Strided<'_>,
    to: &mut [f32],
) {
    from.check(rows, columns);
    assert!(to.len() >= rows * columns);
    // SAFETY: both lengths were checked above.
    unsafe {
        (Tiles::of(isa).pack_transposed)(
            from.values.as_ptr(),
            from.stride,
            rows,
            columns,
            to.as_mut_ptr(),
            rows,
        );
    }
}

/// `y[columns, rows] = x[rows, columns]^T`
pub(super) fn transpose(isa: Isa, rows: usize, columns: usize, x: &[f32], y: &mut [f32]) {
    // SAFETY: `Kernels::transpose` checked both lengths.
    unsafe {
        (Tiles::of(isa).pack_transposed)(x.as_ptr(), columns, rows, columns, y.as_mut_ptr(), rows);
    }
}

/// `to[i][row] = from[row * stride + i]` for `rows` rows of `len`.
pub(super) fn interleave(
    isa: Isa,
    rows: usize,
    from: &[f32],
    stride: usize,
    len: usize,
    to: &mut [f32],
) {
    // SAFETY: `Kernels::lanes_interleave` checked both lengths.
    unsafe {
        (Tiles::of(isa).pack_transposed)(from.as_ptr(), stride, rows, len, to.as_mut_ptr(), rows);
    }
}
