//! The integer kernels as plain loops, straight from the definitions: i64 sums over unpacked
//! weights, no folding, no packing. Tests compare every kernel with these. Slices are as long as
//! the geometry says.

use alloc::vec::Vec;

use super::super::geometry::{Conv, Dense, Pool};
use super::types::{Add, Affine, INSIDE, POSITIVE, Requantize, Side};
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// The sums of a dense layer: `acc = bias + sum (x - zero_point) * weight`, weights
/// `[inputs, outputs]`.
#[must_use]
pub fn dense(
    d: &Dense,
    rows: usize,
    x: &[u8],
    zero_point: u8,
    weight: &[i8],
    bias: Option<&[i32]>,
) -> Vec<i64> {
    let mut acc = Vec::with_capacity(rows * d.outputs);
    for row in 0..rows {
        for output in 0..d.outputs {
            let mut sum = bias.map_or(0, |bias| i64::from(bias[output]));
            for input in 0..d.inputs {
                let x = i64::from(x[row * d.inputs + input]) - i64::from(zero_point);
                sum += x * i64::from(weight[input * d.outputs + output]);
            }
            acc.push(sum);
        }
    }
    acc
}

/// The sums of a convolution, grouped or not, with HWIO weights. Outside the image lie zeros,
/// that is zero points.
#[must_use]
pub fn conv(
    c: &Conv,
    rows: usize,
    x: &[u8],
    zero_point: u8,
    weight: &[i8],
    bias: Option<&[i32]>,
) -> Vec<i64> {
    let s = c.shape();
    let (group_channels, group_filters) = (s.channels / s.groups, s.filters / s.groups);
    let mut acc = Vec::with_capacity(rows * c.output_len());
    for row in 0..rows {
        let image = &x[row * c.input_len()..][..c.input_len()];
        for oh in 0..c.out_height() {
            for ow in 0..c.out_width() {
                for filter in 0..s.filters {
                    let mut sum = bias.map_or(0, |bias| i64::from(bias[filter]));
                    let group = filter / group_filters;
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            let h = (oh * s.stride[0] + kh).checked_sub(s.padding.top);
                            let w = (ow * s.stride[1] + kw).checked_sub(s.padding.left);
                            let (Some(h), Some(w)) = (h, w) else { continue };
                            if h >= s.height || w >= s.width {
                                continue;
                            }
                            for channel in 0..group_channels {
                                let at = (h * s.width + w) * s.channels
                                    + group * group_channels
                                    + channel;
                                let weight = weight[((kh * s.kernel[1] + kw) * group_channels
                                    + channel)
                                    * s.filters
                                    + filter];
                                let x = i64::from(image[at]) - i64::from(zero_point);
                                sum += x * i64::from(weight);
                            }
                        }
                    }
                    acc.push(sum);
                }
            }
        }
    }
    acc
}

/// One requantized sum and its mask.
#[must_use]
pub fn requantize(acc: i64, column: usize, r: &Requantize<'_>) -> (u8, u8) {
    let multiplier = match r.multipliers {
        [one] => *one,
        many => many[column],
    };
    // The i32 of the kernels; exact for sums that fit.
    let value = acc as i32 as f32 * multiplier;
    let rounded = libm::rintf(value) + f32::from(r.zero_point);
    let (low, high) = (f32::from(r.low), f32::from(r.high));
    let inside = if (low..=high).contains(&rounded) {
        INSIDE
    } else {
        0
    };
    let positive = if acc as i32 > 0 { POSITIVE } else { 0 };
    (rounded.clamp(low, high) as u8, inside | positive)
}

/// One sum of two tensors.
#[must_use]
pub fn add(first: u8, second: u8, add: &Add) -> u8 {
    let sum = libm::fmaf(f32::from(second), add.second_ratio, add.fixed);
    let sum = libm::fmaf(f32::from(first), add.first_ratio, sum);
    libm::rintf(sum).clamp(f32::from(add.low), f32::from(add.high)) as u8
}

/// One requantized sum, then added.
#[must_use]
pub fn requantize_add(
    acc: i64,
    column: usize,
    r: &Requantize<'_>,
    sum: &Add,
    side: Side,
    other: u8,
) -> u8 {
    let own = requantize(acc, column, r).0;
    match side {
        Side::First => add(own, other, sum),
        Side::Second => add(other, own, sum),
    }
}

/// Maximum pooling; padding never takes part.
#[must_use]
pub fn max_pool(p: &Pool, rows: usize, x: &[u8]) -> Vec<u8> {
    windows(p, rows, x, |window| {
        window.iter().copied().max().unwrap_or(0)
    })
}

/// Average pooling over the inputs in each window, added as the `f32` numbers that they stand for,
/// rows before columns: `clamp(rne(sum / count / output scale + output zero point))`.
#[must_use]
pub fn avg_pool(p: &Pool, rows: usize, x: &[u8], from: Affine, to: Affine) -> Vec<u8> {
    windows(p, rows, x, |window| {
        let zero = f32::from(from.zero_point);
        let numbers = window.iter().map(|&x| from.scale * (f32::from(x) - zero));
        let sum = numbers.fold(0.0f32, |sum, x| sum + x);
        let steps = sum / window.len() as f32 / to.scale + f32::from(to.zero_point);
        steps.round_ties_even().clamp(0.0, 255.0) as u8
    })
}

/// The average of all of a channel's inputs:
/// `clamp(rne(sum (x - zero_point) * (scale / (output scale * count))) + output zero point)`.
#[must_use]
pub fn average(inputs: &[u8], from: Affine, to: Affine) -> u8 {
    let zero = i64::from(from.zero_point);
    let sum: i64 = inputs.iter().map(|&x| i64::from(x) - zero).sum();
    let multiplier = from.scale / (to.scale * inputs.len() as f32);
    requantize(sum, 0, &Requantize::new(&[multiplier], to.zero_point)).0
}

fn windows(p: &Pool, rows: usize, x: &[u8], f: impl Fn(&[u8]) -> u8) -> Vec<u8> {
    let mut y = Vec::with_capacity(rows * p.output_len());
    for row in 0..rows {
        let image = &x[row * p.input_len()..][..p.input_len()];
        for oh in 0..p.out_height() {
            for ow in 0..p.out_width() {
                for channel in 0..p.channels {
                    let mut window = Vec::new();
                    for kh in 0..p.kernel[0] {
                        for kw in 0..p.kernel[1] {
                            let h = (oh * p.stride[0] + kh).checked_sub(p.padding.top);
                            let w = (ow * p.stride[1] + kw).checked_sub(p.padding.left);
                            let (Some(h), Some(w)) = (h, w) else { continue };
                            if h < p.height && w < p.width {
                                window.push(image[(h * p.width + w) * p.channels + channel]);
                            }
                        }
                    }
                    y.push(f(&window));
                }
            }
        }
    }
    y
}
