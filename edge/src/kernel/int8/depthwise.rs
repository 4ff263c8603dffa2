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
        // An odd position's partner is the last one, with weights of zero.
        let (whole, pairs) = (positions <= 2 * PAIRS, positions.div_ceil(2));
        let mut offsets = [0; 2 * PAIRS];
        for (position, to) in offsets.iter_mut().enumerate() {
            *to = offset(position.min(positions - 1));
        }
        let mut weights = [[[[0i16; 2]; PANEL]; PAIRS]; BLOCK / PANEL];
        for first in (0..s.channels).step_by(BLOCK) {
            let width = BLOCK.min(s.channels - first);
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let corner = oh * s.stride[0] * line + ow * s.stride[1] * s.channels + first;
                    let to = at + (oh * c.out_width + ow) * s.channels + first;
                    // Kernels of more positions lay them out for every output.
                    let fresh = oh == 0 && ow == 0 || positions > 2 * PAIRS;
                    for panel in (0..width).step_by(PANEL) {
                        let n = PANEL.min(width - panel);
                        if whole && n == PANEL {
                            let x = x[corner + panel..].as_ptr();
                            let weights = &mut weights[panel / PANEL];
                            if fresh {
                                spread(c, packed, first + panel, n, 0..positions, weights);
                            }
                            // SAFETY: the caller checked the slices; the channels and the
                            // window's positions lie inside.
                            unsafe {
                                let mut acc = t.load_i(bias[first + panel..].as_ptr(), PANEL);
                                let twos = offsets.chunks_exact(2);
                                for (weights, two) in weights[..pairs].iter().zip(twos) {
                                    let two = [x.add(two[0]), x.add(two[1])];
                                    acc = t.pair(acc, two, weights);
                                }
                                if let Finish::Requantize { multipliers, rounding, y } = *end {
                                    let multiplier = multipliers.load(t, first + panel, PANEL);
                                    let q = t.rounded(acc, multiplier, &rounding);
                                    t.store_u8(y.add(to + panel), PANEL, q);
                                    continue;
                                }
                                let mut sums = [0i32; PANEL];
                                t.store_i(sums.as_mut_ptr(), PANEL, acc);
                                one_end(t, &sums, end, first + panel, to + panel, PANEL);
                            }
                            continue;
                        }
                        // SAFETY: the caller checked the slices; the channels lie inside.
                        let mut acc = unsafe { t.load_i(bias[first + panel..].as_ptr(), n) };
                        for round in (0..positions).step_by(2 * PAIRS) {
                            let last = positions.min(round + 2 * PAIRS);
                            let weights = &mut weights[panel / PANEL];
                            if fresh {
                                spread(c, packed, first + panel, n, round..last, weights);
                            }
                            for (pair, weights) in weights.iter().enumerate() {
                                let position = round + 2 * pair;
                                if position >= last {
                                    break;
                                }
                                let two = [position, (position + 1).min(last - 1)];
                                let two = match round {
                                    0 => two.map(|p| offsets[p]),
                                    _ => two.map(offset),
                                };
                                let two = two.map(|offset| &x[corner + panel + offset..][..n]);
                                let mut some = [[0u8; PANEL]; 2];
                                let two = if n == PANEL {
                                    two.map(<[u8]>::as_ptr)
                                } else {
                                    for (some, two) in some.iter_mut().zip(two) {
                                        some[..n].copy_from_slice(two);
                                    }
                                    [some[0].as_ptr(), some[1].as_ptr()]
                                };
                                // SAFETY: both point to sixteen bytes.
                                acc = unsafe { t.pair(acc, two, weights) };
                            }
                        }
                        let mut sums = [0i32; PANEL];
                        // SAFETY: sixteen sums; the caller's promise.
                        unsafe {
                            t.store_i(sums.as_mut_ptr(), PANEL, acc);
                            one_end(t, &sums, end, first + panel, to + panel, n);
                        }
                    }
                }
            }
        }
    }
}

/// Ends the sums of `n` channels.
///
/// # Safety
/// `end` must be valid for the outputs from `at` on.
#[inline(always)]
unsafe fn one_end<T: Tier>(
    t: T,
    sums: &[i32; PANEL],
    end: &Finish,
    column: usize,
    at: usize,
    n: usize,
) {
    let sums = Sums {
        acc: sums.as_ptr(),
        acc_stride: 0,
        rows: 1,
        columns: n,
        column,
        at,
        stride: 0,
    };
    // SAFETY: the caller's promise.
    unsafe { ending(t, &sums, end) };
}

/// Lays out the weights of `n` channels from `first` and some kernel positions, two positions side
/// by side; an odd one's partner has zeros.
fn spread(
    c: &Conv,
    packed: &[i8],
    first: usize,
    n: usize,
    positions: core::ops::Range<usize>,
    pairs: &mut [Pair; PAIRS],
) {
    let kernel = c.shape.kernel;
    let end = positions.end;
    for (pair, start) in pairs.iter_mut().zip(positions.step_by(2)) {
        *pair = [[0; 2]; PANEL];
        for (channel, two) in pair.iter_mut().enumerate().take(n) {
            for (position, w) in (start..end).zip(two) {
                let (row, column) = (position / kernel[1], position % kernel[1]);
                *w = i16::from(packed[depthwise_index(kernel, row, column, first + channel)]);
            }
        }
    }
}
