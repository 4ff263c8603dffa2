//! Products: dense layers and convolutions, cut into tiles.
//!
//! Every operator here becomes products of a strided left operand, read by broadcast, and a right
//! operand with contiguous rows; nothing is unrolled into a column matrix. Cutting the sum over
//! `k` into blocks stores and reloads the same accumulator, so it changes no bit.

mod tile;
#[cfg(target_arch = "x86_64")]
mod transpose;

use super::geometry::{Conv, Dense};
use super::simd::{Isa, map, vectorized};
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

pub(super) fn conv(
    isa: Isa,
    c: &Conv,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    fused: Fused,
    y: &mut [f32],
) {
    if c.is_depthwise() {
        return depthwise(isa, c, rows, x, weight, bias, fused, y);
    }
    let s = c.shape;
    let image = Image {
        line: c.padded_width() * s.channels,
        len: c.padded_len(),
        channels: s.channels,
        out_height: c.out_height,
        out_width: c.out_width,
        filters: s.filters,
        kernel: s.kernel,
        stride: s.stride,
        groups: s.groups,
    };
    let tiles = Tiles::of(isa);
    let to = y.as_mut_ptr();
    // SAFETY: `Kernels::conv` checked every length.
    unsafe { convolve(tiles, &image, rows, x, weight, bias, end_of(fused), to) };
}

/// A convolution over images that carry their padding.
#[derive(Clone, Copy, Debug)]
struct Image {
    line: usize,
    len: usize,
    channels: usize,
    out_height: usize,
    out_width: usize,
    filters: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    groups: usize,
}

impl Image {
    /// The walk of a window.
    fn window(&self) -> Walk {
        let [high, wide] = self.kernel;
        if self.groups == 1 {
            Walk {
                outer: 1,
                outer_stride: 0,
                inner: high,
                inner_stride: self.line,
                run_len: wide * self.channels,
            }
        } else {
            Walk {
                outer: high,
                outer_stride: self.line,
                inner: wide,
                inner_stride: self.channels,
                run_len: self.channels / self.groups,
            }
        }
    }
}

/// # Safety
/// `x`, `weight` and `bias` must be as long as `image` says for `rows`, `y` valid likewise.
unsafe fn convolve(
    tiles: &Tiles,
    image: &Image,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    end: End,
    y: *mut f32,
) {
    let (group_in, group_out) = (image.channels / image.groups, image.filters / image.groups);
    let walk = image.window();
    let terms = match end {
        End::Add => usize::MAX,
        _ => cached_terms(tiles),
    };
    for row in 0..rows {
        for group in 0..image.groups {
            let left = Left {
                a: x[row * image.len + group * group_in..].as_ptr(),
                // Where neighbours are one number apart, both ways are contiguous.
                terms_contiguous: image.stride[1] * image.channels > 1,
                stride: image.stride[1] * image.channels,
                groups: image.out_height,
                group_stride: image.stride[0] * image.line,
                group_c_stride: image.out_width * image.filters,
                rows: image.out_width,
            };
            let at = row * image.out_height * image.out_width * image.filters + group * group_out;
            let right = Right {
                b: weight[group * group_out..].as_ptr(),
                b_stride: image.filters,
                columns: group_out,
                c: y.wrapping_add(at),
                c_stride: image.filters,
                start: start_of(bias.map(|bias| &bias[group * group_out..])),
                end,
            };
            // SAFETY: the caller's promise; with `Add` there is one block.
            unsafe { product(tiles, &left, &walk, &right, terms) };
        }
    }
}

pub(super) fn conv_dx(
    isa: Isa,
    c: &Conv,
    rows: usize,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    write: Write,
    scratch: &mut [f32],
) {
    if c.is_depthwise() {
        return depthwise_dx(isa, c, rows, dy, weight, dx, write);
    }
    let tiles = Tiles::of(isa);
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    let [high, wide] = s.kernel;
    let (turned, scratch) = scratch.split_at_mut(c.weight_len());
    if c.has_unit_stride() {
        // The transposed convolution: windows over the padded output gradient, weights turned
        // round and with inputs and outputs exchanged within each group.
        for kh in 0..high {
            for kw in 0..wide {
                for group in 0..s.groups {
                    let from = &weight[(kh * wide + kw) * group_in * s.filters..];
                    let to = (high - 1 - kh) * wide + (wide - 1 - kw);
                    let to = &mut turned[to * group_out * s.channels..];
                    // SAFETY: both hold the window's weights of every group.
                    unsafe {
                        (tiles.pack_transposed)(
                            from[group * group_out..].as_ptr(),
                            s.filters,
                            group_in,
                            group_out,
                            to[group * group_in..].as_mut_ptr(),
                            s.channels,
                        );
                    }
                }
            }
        }
        let border = [high - 1 - s.padding.top, wide - 1 - s.padding.left];
        let size = [c.transposed_height(), c.transposed_width()];
        let from = [c.out_height, c.out_width, s.filters];
        pad_images(rows, from, dy, border, size, scratch);
        let image = Image {
            line: c.transposed_width() * s.filters,
            len: c.transposed_padded_len(),
            channels: s.filters,
            out_height: s.height,
            out_width: s.width,
            filters: s.channels,
            kernel: s.kernel,
            stride: [1, 1],
            groups: s.groups,
        };
        let end = match write {
            Write::Store => End::Store,
            Write::Add => End::Add,
        };
        // SAFETY: the scratch was filled above; `dx` was checked by `Kernels::conv_dx`.
        unsafe {
            convolve(
                tiles,
                &image,
                rows,
                scratch,
                turned,
                None,
                end,
                dx.as_mut_ptr(),
            )
        };
        return;
    }
    // Larger strides: every window's own gradient, then added where the window lies.
    let columns = high * wide * group_in;
    let positions = c.out_height * c.out_width;
    let (windows, image) = scratch.split_at_mut(positions * columns);
    let image = &mut image[..c.input_len()];
    // `turned` is `[group][filter][window]`.
    for group in 0..s.groups {
        // SAFETY: the weights of a group, transposed, fill `columns * group_out`.
        unsafe {
            (tiles.pack_transposed)(
                weight[group * group_out..].as_ptr(),
                s.filters,
                columns,
                group_out,
                turned[group * group_out * columns..].as_mut_ptr(),
                columns,
            );
        }
    }
    for row in 0..rows {
        image.fill(0.0);
        for group in 0..s.groups {
            let left = Left {
                a: dy[row * c.output_len() + group * group_out..].as_ptr(),
                terms_contiguous: true,
                stride: s.filters,
                groups: 1,
                group_stride: 0,
                group_c_stride: 0,
                rows: positions,
            };
            let right = Right {
                b: turned[group * group_out * columns..].as_ptr(),
                b_stride: columns,
                columns,
                c: windows.as_mut_ptr(),
                c_stride: columns,
                start: Start::Zero,
                end: End::Store,
            };
            let walk = Walk::straight(group_out);
            // SAFETY: the scratch holds the windows of one image and group.
            unsafe { product(tiles, &left, &walk, &right, cached_terms(tiles)) };
            scatter(isa, c, group * group_in, windows, image);
        }
        let dx = &mut dx[row * c.input_len()..][..c.input_len()];
        match write {
            Write::Store => dx.copy_from_slice(image),
            Write::Add => super::elementwise::add(isa, image, dx),
        }
    }
}

pub(super) fn conv_dw(
    isa: Isa,
    c: &Conv,
    rows: usize,
    x: &[f32],
    dy: &[f32],
    gradient: Gradient<'_>,
    scratch: &mut [f32],
) {
    let mut gradient = gradient;
    if c.is_depthwise() {
        return depthwise_dw(isa, c, rows, x, dy, gradient, scratch);
    }
    let tiles = Tiles::of(isa);
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    let line = c.padded_width() * s.channels;
    let walk = Walk {
        outer: rows,
        outer_stride: c.padded_len(),
        inner: c.out_height,
        inner_stride: s.stride[0] * line,
        run_len: c.out_width,
    };
    let (to, start, end) = places(&mut gradient, scratch.as_mut_ptr());
    // Contiguous rows of the left operand: a line of the window, or with groups one position.
    let (calls, rows_each, a_step, c_step) = if s.groups == 1 {
        (1, s.kernel[1] * group_in, 0, 0)
    } else {
        let c_step = group_in * s.filters;
        (s.kernel[1], group_in, s.channels, c_step)
    };
    for group in 0..s.groups {
        for call in 0..calls {
            let at = call * c_step + group * group_out;
            let left = Left {
                a: x[group * group_in + call * a_step..].as_ptr(),
                terms_contiguous: false,
                stride: s.stride[1] * s.channels,
                groups: s.kernel[0],
                group_stride: line,
                group_c_stride: s.kernel[1] * group_in * s.filters,
                rows: rows_each,
            };
            let right = Right {
                b: dy[group * group_out..].as_ptr(),
                b_stride: s.filters,
                columns: group_out,
                c: to.wrapping_add(at),
                c_stride: s.filters,
                start,
                end: end.offset(at),
            };
            // SAFETY: `Kernels::conv_dw` checked every length; the sums of a step's blocks lie in
            // the scratch.
            unsafe { product(tiles, &left, &walk, &right, cached_terms(tiles)) };
        }
    }
}

/// Copies images into the middle of zeros.
pub(super) fn pad_images(
    rows: usize,
    image: [usize; 3],
    x: &[f32],
    border: [usize; 2],
    padded_size: [usize; 2],
    padded: &mut [f32],
) {
    let [height, width, channels] = image;
    let line = width * channels;
    let padded_line = padded_size[1] * channels;
    let padded_len = padded_size[0] * padded_line;
    let left = border[1] * channels;
    for row in 0..rows {
        let from = &x[row * height * line..][..height * line];
        let to = &mut padded[row * padded_len..][..padded_len];
        to[..border[0] * padded_line].fill(0.0);
        for h in 0..height {
            let to = &mut to[(border[0] + h) * padded_line..][..padded_line];
            to[..left].fill(0.0);
            to[left..left + line].copy_from_slice(&from[h * line..][..line]);
            to[left + line..].fill(0.0);
        }
        to[(border[0] + height) * padded_line..].fill(0.0);
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

vectorized! {
    /// Adds the gradients of an image's windows to the image, in the order of the outputs.
    fn scatter(v, c: &Conv, first: usize, windows: &[f32], image: &mut [f32]) {
        let s = c.shape;
        let group_in = s.channels / s.groups;
        let [high, wide] = s.kernel;
        for oh in 0..c.out_height {
            for ow in 0..c.out_width {
                let window = &windows[(oh * c.out_width + ow) * high * wide * group_in..];
                for kh in 0..high {
                    for kw in 0..wide {
                        let h = (oh * s.stride[0] + kh).wrapping_sub(s.padding.top);
                        let w = (ow * s.stride[1] + kw).wrapping_sub(s.padding.left);
                        if h < s.height && w < s.width {
                            let from = &window[(kh * wide + kw) * group_in..][..group_in];
                            let at = (h * s.width + w) * s.channels + first;
                            let to = &mut image[at..at + group_in];
                            map!(v, group_in; a = from, b = to; {} to => v.add(b, a));
                        }
                    }
                }
            }
        }
    }

    fn depthwise(
        v,
        c: &Conv,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        fused: Fused,
        y: &mut [f32],
    ) {
        let s = c.shape;
        let n = s.channels;
        for row in 0..rows {
            let image = &x[row * c.padded_len()..][..c.padded_len()];
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let y = &mut y[((row * c.out_height + oh) * c.out_width + ow) * n..][..n];
                    match bias {
                        Some(bias) => y.copy_from_slice(&bias[..n]),
                        None => y.fill(0.0),
                    }
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            let (h, w) = (oh * s.stride[0] + kh, ow * s.stride[1] + kw);
                            let x = &image[(h * c.padded_width() + w) * n..][..n];
                            let weight = &weight[(kh * s.kernel[1] + kw) * n..][..n];
                            map!(v, n; a = x, b = weight, t = y; {} y => v.fma(a, b, t));
                        }
                    }
                    if fused == Fused::Relu {
                        map!(v, n; t = y; {} y => v.max(t, v.splat(0.0)));
                    }
                }
            }
        }
    }

    fn depthwise_dx(
        v,
        c: &Conv,
        rows: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
        write: Write,
    ) {
        let s = c.shape;
        let n = s.channels;
        let [high, wide] = s.kernel;
        for row in 0..rows {
            for h in 0..s.height {
                for w in 0..s.width {
                    let dx = &mut dx[((row * s.height + h) * s.width + w) * n..][..n];
                    let mut first = 0;
                    while first < n {
                        let len = (n - first).min(V::N);
                        let mut acc = v.splat(0.0);
                        for kh in (0..high).rev() {
                            for kw in (0..wide).rev() {
                                let ph = (h + s.padding.top).wrapping_sub(kh);
                                let pw = (w + s.padding.left).wrapping_sub(kw);
                                let (oh, ow) = (ph / s.stride[0], pw / s.stride[1]);
                                if ph.is_multiple_of(s.stride[0])
                                    && pw.is_multiple_of(s.stride[1])
                                    && oh < c.out_height
                                    && ow < c.out_width
                                {
                                    let at = (row * c.out_height + oh) * c.out_width + ow;
                                    let dy = &dy[at * n + first..][..len];
                                    let weight = &weight[(kh * wide + kw) * n + first..][..len];
                                    // SAFETY: both hold `len` numbers.
                                    acc = unsafe {
                                        v.fma(
                                            v.load_first(dy.as_ptr(), len),
                                            v.load_first(weight.as_ptr(), len),
                                            acc,
                                        )
                                    };
                                }
                            }
                        }
                        let to = &mut dx[first..first + len];
                        // SAFETY: `to` holds `len` numbers.
                        unsafe {
                            if write == Write::Add {
                                acc = v.add(v.load_first(to.as_ptr(), len), acc);
                            }
                            v.store_first(to.as_mut_ptr(), len, acc);
                        }
                        first += len;
                    }
                }
            }
        }
    }

    fn depthwise_dw(
        v,
        c: &Conv,
        rows: usize,
        x: &[f32],
        dy: &[f32],
        gradient: Gradient<'_>,
        scratch: &mut [f32],
    ) {
        let s = c.shape;
        let n = s.channels;
        let mut gradient = gradient;
        let sums = &mut scratch[..c.weight_len()];
        match &gradient {
            Gradient::Accumulate(to) => sums.copy_from_slice(&to[..c.weight_len()]),
            Gradient::Store(_) | Gradient::Step { .. } => sums.fill(0.0),
        }
        for row in 0..rows {
            let image = &x[row * c.padded_len()..][..c.padded_len()];
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let dy = &dy[((row * c.out_height + oh) * c.out_width + ow) * n..][..n];
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            let (h, w) = (oh * s.stride[0] + kh, ow * s.stride[1] + kw);
                            let x = &image[(h * c.padded_width() + w) * n..][..n];
                            let sums = &mut sums[(kh * s.kernel[1] + kw) * n..][..n];
                            map!(v, n; a = x, d = dy, t = sums; {} sums => v.fma(a, d, t));
                        }
                    }
                }
            }
        }
        super::elementwise::finish_gradient(v, sums, &mut gradient, 0);
    }
}
