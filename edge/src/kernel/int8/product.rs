//! Dense layers and convolutions as tiles: the left operand is read where it lies, four inputs at
//! a time.

use super::level::Level;
use super::pack::{Kind, PANEL, Packing};
use super::tile::{Finish, Tile};
use crate::kernel::geometry::{Conv, Dense};
use crate::kernel::product::Band;

/// Inputs of a block of rows that are meant to stay in the second cache while all panels pass.
const BLOCK_BYTES: usize = 128 * 1024;

/// Rows of outputs: `groups` groups of `rows`.
#[derive(Clone, Copy, Debug)]
struct Rows {
    groups: usize,
    /// From group to group, in inputs and in outputs.
    group_stride: usize,
    group_at: usize,
    rows: usize,
}

/// One product over panels. `tile` is a model of all tiles: everything but its place.
///
/// # Safety
/// Every element described must be valid; `columns` are the columns of the packed group.
unsafe fn product(level: Level, rows: Rows, terms: usize, model: &Tile, columns: usize) {
    if rows.rows == 0 || rows.groups == 0 {
        return;
    }
    let shapes = level.tiles();
    let panels = columns.div_ceil(PANEL);
    let total = rows.groups * rows.rows;
    // The widest tiles that still have registers for the rows at hand.
    let widest = shapes
        .iter()
        .rposition(|heights| heights.len() >= total.min(4))
        .map_or(1, |at| at + 1);
    let column_tiles = panels.div_ceil(widest);
    let (wide, wider) = (panels / column_tiles, panels % column_tiles);
    let height = shapes[wide - 1 + usize::from(wider > 0)].len();
    let tiles = rows.rows.div_ceil(height);
    let (high, higher) = (rows.rows / tiles, rows.rows % tiles);
    let per_block = (BLOCK_BYTES / (height * terms).max(1)).max(1);
    let all_tiles = rows.groups * tiles;

    let mut block = 0;
    while block < all_tiles {
        let end = (block + per_block).min(all_tiles);
        let mut panel = 0;
        for column_tile in 0..column_tiles {
            let width = wide + usize::from(column_tile < wider);
            let column = panel * PANEL;
            let (mut group, mut tile) = (block / tiles, block % tiles);
            let heights = shapes[width - 1];
            let mut job = Tile {
                b: model.b.wrapping_add(panel * model.panel_stride),
                column: model.column + column,
                last: (columns - column - (width - 1) * PANEL).min(PANEL),
                ..*model
            };
            for _ in block..end {
                let row = tile * high + tile.min(higher);
                let height = high + usize::from(tile < higher);
                job.a = model
                    .a
                    .wrapping_add(group * rows.group_stride + row * model.row_stride);
                job.at = model.at + group * rows.group_at + row * model.stride + column;
                // SAFETY: the caller's promise; the tile lies inside the product.
                unsafe { heights[height - 1](&job) };
                tile += 1;
                if tile == tiles {
                    tile = 0;
                    group += 1;
                }
            }
            panel += width;
        }
        block = end;
    }
}

/// # Safety
/// `finish` must be valid for `rows * outputs` outputs; the caller has checked the slices.
pub(super) unsafe fn dense(
    level: Level,
    d: &Dense,
    rows: usize,
    x: &[u8],
    packed: &[i8],
    bias: &[i32],
    finish: Finish,
) {
    let packing = Packing::dense(d);
    let model = Tile {
        a: x.as_ptr(),
        row_stride: d.inputs,
        outer: 1,
        outer_stride: 0,
        inner: 1,
        inner_stride: 0,
        run_len: d.inputs,
        b: packed.as_ptr(),
        panel_stride: packing.panel_len(),
        bias: bias.as_ptr(),
        finish,
        end: level.end(),
        column: 0,
        at: 0,
        stride: d.outputs,
        last: 0,
    };
    let rows = Rows {
        groups: 1,
        group_stride: 0,
        group_at: 0,
        rows,
    };
    // SAFETY: the caller's promise.
    unsafe { product(level, rows, d.inputs, &model, d.outputs) };
}

/// Copies an image into `padded`, with `zero` around it.
pub(super) fn pad(c: &Conv, image: &[u8], zero: u8, padded: &mut [u8]) {
    let s = c.shape;
    let from = s.width * s.channels;
    let to = c.padded_width() * s.channels;
    let left = s.padding.left * s.channels;
    let (above, rest) = padded[..c.padded_len()].split_at_mut(s.padding.top * to);
    let (rows, below) = rest.split_at_mut(s.height * to);
    above.fill(zero);
    below.fill(zero);
    for (row, image) in rows.chunks_exact_mut(to).zip(image.chunks_exact(from)) {
        row[..left].fill(zero);
        row[left..left + from].copy_from_slice(image);
        row[left + from..].fill(zero);
    }
}

/// A convolution that is not depthwise, over panels.
///
/// # Safety
/// `finish` must be valid for all outputs; the caller has checked the slices.
pub(super) unsafe fn conv(
    level: Level,
    c: &Conv,
    rows: usize,
    x: &[u8],
    zero_point: u8,
    packed: &[i8],
    bias: &[i32],
    finish: Finish,
    scratch: &mut [u8],
) {
    let s = c.shape;
    let packing = Packing::conv(c);
    let Kind::Panels {
        groups, run_len, ..
    } = packing.kind
    else {
        return;
    };
    let line = c.padded_line();
    let (inner, inner_stride) = match groups {
        1 => (1, 0),
        _ => (s.kernel[1], s.channels),
    };
    let columns = s.filters / groups;
    let group_bytes = columns.div_ceil(PANEL) * packing.panel_len();
    let compute = |from: &[u8], at: usize, over: Rows| {
        for group in 0..groups {
            let model = Tile {
                a: from[group * (s.channels / groups)..].as_ptr(),
                row_stride: s.stride[1] * s.channels,
                outer: s.kernel[0],
                outer_stride: line,
                inner,
                inner_stride,
                run_len,
                b: packed[group * group_bytes..].as_ptr(),
                panel_stride: packing.panel_len(),
                bias: bias.as_ptr(),
                finish,
                end: level.end(),
                column: group * columns,
                at: at + group * columns,
                stride: s.filters,
                last: 0,
            };
            // SAFETY: the caller's promise; `from` holds what so many lines of the output cover.
            unsafe { product(level, over, packing.terms(), &model, columns) };
        }
    };
    let lines = |count: usize| Rows {
        groups: count,
        group_stride: s.stride[0] * line,
        group_at: c.out_width * s.filters,
        rows: c.out_width,
    };
    // Positions side by side in memory, in inputs and in outputs, are rows of one long product.
    if s.kernel == [1, 1] && s.stride == [1, 1] && !c.is_padded() {
        let over = Rows {
            rows: rows * c.out_height * c.out_width,
            ..lines(1)
        };
        return compute(x, 0, over);
    }
    for row in 0..rows {
        let image = &x[row * c.input_len()..][..c.input_len()];
        let at = row * c.output_len();
        if !c.is_padded() {
            compute(image, at, lines(c.out_height));
            continue;
        }
        let mut band = Band::new(c, zero_point, scratch);
        while let Some(part) = band.next(image) {
            let at = at + part.first * c.out_width * s.filters;
            compute(part.covered, at, lines(part.count));
        }
    }
}
