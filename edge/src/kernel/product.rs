//! Products: dense layers and convolutions.

use super::geometry::{Conv, Dense};
use super::simd::Isa;
use super::types::{Fused, Gradient, Write};
use super::reference;

/// Numbers in the transposed panel of a dense layer's input gradient.
pub(super) const DX_PANEL_LEN: usize = 256 * 64;

pub(super) fn dense(_isa: Isa, d: &Dense, rows: usize, x: &[f32], weight: &[f32], bias: Option<&[f32]>, fused: Fused, y: &mut [f32]) {
    reference::dense(d, rows, x, weight, bias, fused, y);
}
pub(super) fn dense_dx(_isa: Isa, d: &Dense, rows: usize, dy: &[f32], weight: &[f32], dx: &mut [f32], write: Write, _scratch: &mut [f32]) {
    reference::dense_dx(d, rows, dy, weight, dx, write);
}
pub(super) fn dense_dw(_isa: Isa, d: &Dense, rows: usize, x: &[f32], dy: &[f32], gradient: Gradient<'_>) {
    reference::dense_dw(d, rows, x, dy, gradient);
}
pub(super) fn conv(_isa: Isa, c: &Conv, rows: usize, x: &[f32], weight: &[f32], bias: Option<&[f32]>, fused: Fused, y: &mut [f32]) {
    reference::conv(c, rows, x, weight, bias, fused, y);
}
pub(super) fn conv_dx(_isa: Isa, c: &Conv, rows: usize, dy: &[f32], weight: &[f32], dx: &mut [f32], write: Write, _scratch: &mut [f32]) {
    reference::conv_dx(c, rows, dy, weight, dx, write);
}
pub(super) fn conv_dw(_isa: Isa, c: &Conv, rows: usize, x: &[f32], dy: &[f32], gradient: Gradient<'_>, _scratch: &mut [f32]) {
    reference::conv_dw(c, rows, x, dy, gradient);
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
pub(super) fn transpose(rows: usize, columns: usize, x: &[f32], y: &mut [f32]) {
    for row in 0..rows {
        for column in 0..columns {
            y[column * rows + row] = x[row * columns + column];
        }
    }
}
