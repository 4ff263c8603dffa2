//! The numeric law, as plain loops.
//!
//! What every kernel computes is defined here: one accumulator per output element, terms in
//! ascending order, each term one fused multiply-add. The vector kernels do the same work in
//! another order *across* elements, never within one, and so give the same bits; tests compare
//! them with this module. Slices are as long as the checked entry points of
//! [`Kernels`](super::Kernels) make sure.

use super::elementwise::{apply_activation, apply_gradient};
use super::geometry::{Conv, Dense};
use super::simd::Scalar;
use super::types::{Fused, Gradient, Write};
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// Gives the complete gradient element to where it goes. `old` is where the sum starts.
pub(super) fn gradient_start(gradient: &Gradient<'_>, index: usize) -> f32 {
    match gradient {
        Gradient::Accumulate(to) => to[index],
        Gradient::Store(_) | Gradient::Step { .. } => 0.0,
    }
}

pub(super) fn gradient_end(gradient: &mut Gradient<'_>, index: usize, value: f32) {
    match gradient {
        Gradient::Store(to) | Gradient::Accumulate(to) => to[index] = value,
        Gradient::Step {
            weights,
            anchor,
            step,
        } => {
            let anchor = if step.proximal_mu > 0.0 {
                anchor[index]
            } else {
                0.0
            };
            weights[index] = apply_gradient(Scalar, *step, value, weights[index], anchor);
        }
    }
}

fn write(to: &mut f32, value: f32, mode: Write) {
    *to = match mode {
        Write::Store => value,
        Write::Add => *to + value,
    };
}

fn fused(value: f32, fused: Fused) -> f32 {
    match fused.activation() {
        None => value,
        Some(f) => apply_activation(Scalar, f, value),
    }
}

/// See [`Kernels::dense`](super::Kernels::dense).
pub fn dense(
    d: &Dense,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    after: Fused,
    y: &mut [f32],
) {
    for row in 0..rows {
        for o in 0..d.outputs {
            let mut acc = bias.map_or(0.0, |b| b[o]);
            for i in 0..d.inputs {
                acc = x[row * d.inputs + i].mul_add(weight[i * d.outputs + o], acc);
            }
            y[row * d.outputs + o] = fused(acc, after);
        }
    }
}

/// See [`Kernels::dense_dx`](super::Kernels::dense_dx).
pub fn dense_dx(d: &Dense, rows: usize, dy: &[f32], weight: &[f32], dx: &mut [f32], mode: Write) {
    for row in 0..rows {
        for i in 0..d.inputs {
            let mut acc = 0.0f32;
            for o in 0..d.outputs {
                acc = dy[row * d.outputs + o].mul_add(weight[i * d.outputs + o], acc);
            }
            write(&mut dx[row * d.inputs + i], acc, mode);
        }
    }
}

/// See [`Kernels::dense_dw`](super::Kernels::dense_dw).
pub fn dense_dw(d: &Dense, rows: usize, x: &[f32], dy: &[f32], mut gradient: Gradient<'_>) {
    for i in 0..d.inputs {
        for o in 0..d.outputs {
            let index = i * d.outputs + o;
            let mut acc = gradient_start(&gradient, index);
            for row in 0..rows {
                acc = x[row * d.inputs + i].mul_add(dy[row * d.outputs + o], acc);
            }
            gradient_end(&mut gradient, index, acc);
        }
    }
}

/// See [`Kernels::column_sums`](super::Kernels::column_sums).
pub fn column_sums(rows: usize, columns: usize, dy: &[f32], mut gradient: Gradient<'_>) {
    for column in 0..columns {
        let mut acc = gradient_start(&gradient, column);
        for row in 0..rows {
            acc += dy[row * columns + column];
        }
        gradient_end(&mut gradient, column, acc);
    }
}

/// See [`Kernels::conv`](super::Kernels::conv). `x` is padded.
pub fn conv(
    c: &Conv,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    after: Fused,
    y: &mut [f32],
) {
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    let mut at = 0;
    for row in 0..rows {
        let image = &x[row * c.padded_len()..][..c.padded_len()];
        for oh in 0..c.out_height {
            for ow in 0..c.out_width {
                for filter in 0..s.filters {
                    let first = filter / group_out * group_in;
                    let mut acc = bias.map_or(0.0, |b| b[filter]);
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            for ci in 0..group_in {
                                let a = (oh * s.stride[0] + kh) * c.padded_width()
                                    + ow * s.stride[1]
                                    + kw;
                                let b = (kh * s.kernel[1] + kw) * group_in + ci;
                                acc = image[a * s.channels + first + ci]
                                    .mul_add(weight[b * s.filters + filter], acc);
                            }
                        }
                    }
                    y[at] = fused(acc, after);
                    at += 1;
                }
            }
        }
    }
}

/// See [`Kernels::conv_dx`](super::Kernels::conv_dx).
///
/// With unit stride, an element's terms are in the order of the flipped window (rows, columns
/// descending, then filters ascending), and windows outside the output take part as zeros. With
/// a larger stride or one filter per channel, an element is the sum over the windows that hold
/// it, in the order of their outputs, of each window's own sum over filters.
pub fn conv_dx(c: &Conv, rows: usize, dy: &[f32], weight: &[f32], dx: &mut [f32], mode: Write) {
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    let [kernel_h, kernel_w] = s.kernel;
    let weight_at = |kh: usize, kw: usize, ci: usize, filter: usize| {
        weight[((kh * kernel_w + kw) * group_in + ci) * s.filters + filter]
    };
    for row in 0..rows {
        for h in 0..s.height {
            for w in 0..s.width {
                for channel in 0..s.channels {
                    let (group, ci) = (channel / group_in, channel % group_in);
                    let (ph, pw) = (h + s.padding.top, w + s.padding.left);
                    let mut acc = 0.0f32;
                    // Descending window positions are ascending outputs.
                    for kh in (0..kernel_h).rev() {
                        for kw in (0..kernel_w).rev() {
                            let inside = ph >= kh
                                && pw >= kw
                                && (ph - kh).is_multiple_of(s.stride[0])
                                && (pw - kw).is_multiple_of(s.stride[1])
                                && (ph - kh) / s.stride[0] < c.out_height
                                && (pw - kw) / s.stride[1] < c.out_width;
                            let from = |filter: usize| {
                                let (oh, ow) = ((ph - kh) / s.stride[0], (pw - kw) / s.stride[1]);
                                dy[((row * c.out_height + oh) * c.out_width + ow) * s.filters
                                    + filter]
                            };
                            let filters = group * group_out..(group + 1) * group_out;
                            if c.has_unit_stride() && !c.is_depthwise() {
                                for filter in filters {
                                    let a = if inside { from(filter) } else { 0.0 };
                                    acc = a.mul_add(weight_at(kh, kw, ci, filter), acc);
                                }
                            } else if c.is_depthwise() {
                                if inside {
                                    acc =
                                        from(channel).mul_add(weight_at(kh, kw, ci, channel), acc);
                                }
                            } else if inside {
                                let mut window = 0.0f32;
                                for filter in filters {
                                    window =
                                        from(filter).mul_add(weight_at(kh, kw, ci, filter), window);
                                }
                                acc += window;
                            }
                        }
                    }
                    let at = ((row * s.height + h) * s.width + w) * s.channels + channel;
                    write(&mut dx[at], acc, mode);
                }
            }
        }
    }
}

/// See [`Kernels::conv_dw`](super::Kernels::conv_dw). `x` is padded.
pub fn conv_dw(c: &Conv, rows: usize, x: &[f32], dy: &[f32], mut gradient: Gradient<'_>) {
    let s = c.shape;
    let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
    for kh in 0..s.kernel[0] {
        for kw in 0..s.kernel[1] {
            for ci in 0..group_in {
                for filter in 0..s.filters {
                    let channel = filter / group_out * group_in + ci;
                    let index = ((kh * s.kernel[1] + kw) * group_in + ci) * s.filters + filter;
                    let mut acc = gradient_start(&gradient, index);
                    for row in 0..rows {
                        for oh in 0..c.out_height {
                            for ow in 0..c.out_width {
                                let a = (row * c.padded_height() + oh * s.stride[0] + kh)
                                    * c.padded_width()
                                    + ow * s.stride[1]
                                    + kw;
                                let b = (row * c.out_height + oh) * c.out_width + ow;
                                acc = x[a * s.channels + channel]
                                    .mul_add(dy[b * s.filters + filter], acc);
                            }
                        }
                    }
                    gradient_end(&mut gradient, index, acc);
                }
            }
        }
    }
}
