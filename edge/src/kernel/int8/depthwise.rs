//! Depthwise convolution: 64 channels at a time.

#[cfg(target_arch = "x86_64")]
mod vnni;

use super::level::{Level, tiered};
use super::pack::{BLOCK, PANEL, depthwise_index};
use super::product::pad;
use super::tile::{Finish, Sums, Tier, ending};
use crate::kernel::geometry::Conv;

/// Pairs of kernel positions whose weights are laid out at once: up to 7 by 7.
const PAIRS: usize = 25;

/// # Safety
/// `end` must be valid for all outputs; the caller has checked the slices.
pub(super) unsafe fn depthwise(
    level: Level,
    c: &Conv,
    rows: usize,
    x: &[u8],
    zero_point: u8,
    packed: &[i8],
    bias: &[i32],
    end: Finish,
    scratch: &mut [u8],
) {
    #[cfg(target_arch = "x86_64")]
    if let Level::Vnni512(t) = level
        && vnni::can(c)
    {
        // SAFETY: the caller's promise; the token proves that the processor has the instructions.
        unsafe { vnni::depthwise(t, c, rows, x, zero_point, packed, bias, &end, level.end()) };
        return;
    }
    for row in 0..rows {
        let image = &x[row * c.input_len()..][..c.input_len()];
        let image = if c.is_padded() {
            pad(c, image, zero_point, scratch);
            &*scratch
        } else {
            image
        };
        one_image(level, c, image, packed, bias, &end, row * c.output_len());
    }
}

/// Weights of two kernel positions and sixteen channels, side by side.
type Pair = [[i16; 2]; PANEL];

tiered! {
    /// One padded image, channels sixteen at a time, kernel positions two at a time; `at` is the
    /// index of its first output.
    fn one_image(
        t, c: &Conv, x: &[u8], packed: &[i8], bias: &[i32], end: &Finish, at: usize,
    ) {
        let s = c.shape;
        let [kh, kw] = s.kernel;
        let positions = kh * kw;
        let line = c.padded_width() * s.channels;
        let offset = |position: usize| position / kw * line + position % kw * s.channels;
        if s.channels < PANEL || positions > 2 * PAIRS {
            plainly(t, c, x, packed, bias, end, at, &offset);
            return;
        }
        // An odd position's partner is the last one, with weights of zero.
        let pairs = positions.div_ceil(2);
        let mut offsets = [0; 2 * PAIRS];
        for (position, to) in offsets.iter_mut().enumerate() {
            *to = offset(position.min(positions - 1));
        }
        let mut weights = [[[[0i16; 2]; PANEL]; PAIRS]; BLOCK / PANEL];
        for block in (0..s.channels).step_by(BLOCK) {
            // The last sixteen channels may overlap the ones before.
            let panels = (block..s.channels.min(block + BLOCK)).step_by(PANEL);
            let panels = panels.map(|first| first.min(s.channels - PANEL));
            for (first, weights) in panels.clone().zip(&mut weights) {
                spread(c, packed, first, &mut weights[..pairs]);
            }
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let corner = oh * s.stride[0] * line + ow * s.stride[1] * s.channels;
                    let to = at + (oh * c.out_width + ow) * s.channels;
                    for (first, weights) in panels.clone().zip(&weights) {
                        let x = x[corner + first..].as_ptr();
                        // SAFETY: the caller checked the slices; the channels and the window's
                        // positions lie inside.
                        unsafe {
                            let mut acc = t.load_i(bias[first..].as_ptr(), PANEL);
                            let twos = offsets.chunks_exact(2);
                            for (weights, two) in weights[..pairs].iter().zip(twos) {
                                acc = t.pair(acc, [x.add(two[0]), x.add(two[1])], weights);
                            }
                            if let Finish::Requantize { multipliers, rounding, y } = *end {
                                let multiplier = multipliers.load(t, first, PANEL);
                                let q = t.rounded(acc, multiplier, &rounding);
                                t.store_u8(y.add(to + first), PANEL, q);
                            } else {
                                let mut sums = [0i32; PANEL];
                                t.store_i(sums.as_mut_ptr(), PANEL, acc);
                                one_end(t, &sums, end, first, to + first);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Few channels, or a very large kernel.
#[inline(always)]
fn plainly<T: Tier>(
    t: T,
    c: &Conv,
    x: &[u8],
    packed: &[i8],
    bias: &[i32],
    end: &Finish,
    at: usize,
    offset: &dyn Fn(usize) -> usize,
) {
    let s = c.shape;
    let [kh, kw] = s.kernel;
    for oh in 0..c.out_height {
        for ow in 0..c.out_width {
            let corner = (oh * s.stride[0] * c.padded_width() + ow * s.stride[1]) * s.channels;
            let to = at + (oh * c.out_width + ow) * s.channels;
            for (channel, bias) in bias.iter().enumerate().take(s.channels) {
                let mut sum = *bias;
                for position in 0..kh * kw {
                    let w = depthwise_index(s.kernel, position / kw, position % kw, channel);
                    let x = i32::from(x[corner + offset(position) + channel]);
                    sum = sum.wrapping_add(x * i32::from(packed[w]));
                }
                // SAFETY: the caller's promise; the channel is one of the outputs'.
                unsafe { one_end(t, &[sum], end, channel, to + channel) };
            }
        }
    }
}

/// Ends the sums of some channels.
///
/// # Safety
/// `end` must be valid for the outputs from `at` on.
#[inline(always)]
unsafe fn one_end<T: Tier>(t: T, sums: &[i32], end: &Finish, column: usize, at: usize) {
    let sums = Sums {
        acc: sums.as_ptr(),
        acc_stride: 0,
        rows: 1,
        columns: sums.len(),
        column,
        at,
        stride: 0,
    };
    // SAFETY: the caller's promise.
    unsafe { ending(t, &sums, end) };
}

/// Lays out the weights of sixteen channels from `first`, two kernel positions side by side; an
/// odd one's partner has zeros.
fn spread(c: &Conv, packed: &[i8], first: usize, pairs: &mut [Pair]) {
    let [kh, kw] = c.shape.kernel;
    for (index, pair) in pairs.iter_mut().enumerate() {
        for (channel, two) in pair.iter_mut().enumerate() {
            for (position, w) in (2 * index..).zip(two) {
                *w = if position < kh * kw {
                    let (row, column) = (position / kw, position % kw);
                    i16::from(packed[depthwise_index([kh, kw], row, column, first + channel)])
                } else {
                    0
                };
            }
        }
    }
}
