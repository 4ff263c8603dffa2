//! Convolutions as products over padded images.

use super::super::geometry::Conv;
use super::super::simd::{Isa, map, vectorized};
use super::super::types::{Fused, Gradient, Write};
use super::tile::{End, Start, Tiles};
use super::{Left, Right, Walk, cached_terms, depthwise, end_of, places, product, start_of};

pub(in super::super) fn conv(
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
        return depthwise::forward(isa, c, rows, x, weight, bias, fused, y);
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

pub(in super::super) fn conv_dx(
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
        return depthwise::dx(isa, c, rows, dy, weight, dx, write);
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
            Write::Add => super::super::elementwise::add(isa, image, dx),
        }
    }
}

pub(in super::super) fn conv_dw(
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
        return depthwise::dw(isa, c, rows, x, dy, gradient, scratch);
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
pub(in super::super) fn pad_images(
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
}
