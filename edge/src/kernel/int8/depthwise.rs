//! Depthwise convolution: 64 channels at a time.

#[cfg(target_arch = "x86_64")]
mod vnni;

use super::level::{Level, tiered};
use super::pack::{BLOCK, PANEL, depthwise_index};
use super::product::pad;
use super::tile::{Finish, finish};
use crate::kernel::geometry::Conv;

/// Kernel positions whose weights are laid out anew for each block.
const POSITIONS: usize = 49;

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
    for row in 0..rows {
        let image = &x[row * c.input_len()..][..c.input_len()];
        let image = if c.is_padded() {
            pad(c, image, zero_point, scratch);
            &*scratch
        } else {
            image
        };
        let at = row * c.output_len();
        match level {
            // SAFETY: the caller's promise; the token proves that the processor has the
            // instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Vnni512(t) => unsafe {
                vnni::one_image(t, c, image, packed, bias, &end, at);
            },
            other => one_image(other, c, image, packed, bias, &end, at),
        }
    }
}

tiered! {
    /// One padded image; `at` is the index of its first output.
    fn one_image(
        t, c: &Conv, x: &[u8], packed: &[i8], bias: &[i32], end: &Finish, at: usize,
    ) {
        let s = c.shape;
        let [kh, kw] = s.kernel;
        let line = c.padded_width() * s.channels;
        let mut weights = [[0i16; BLOCK]; POSITIONS];
        let few = kh * kw <= POSITIONS;
        for first in (0..s.channels).step_by(BLOCK) {
            let width = BLOCK.min(s.channels - first);
            let weight = |position: usize, channel: usize| {
                packed[depthwise_index(s.kernel, position / kw, position % kw, first + channel)]
            };
            if few {
                for (position, to) in weights.iter_mut().enumerate().take(kh * kw) {
                    for (channel, to) in to.iter_mut().enumerate() {
                        *to = i16::from(weight(position, channel));
                    }
                }
            }
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let mut sums = [0i32; BLOCK];
                    let corner = oh * s.stride[0] * line + ow * s.stride[1] * s.channels + first;
                    for position in 0..kh * kw {
                        let from = corner + position / kw * line + position % kw * s.channels;
                        let x = &x[from..][..width];
                        if few {
                            let weights = &weights[position];
                            for ((sum, x), w) in sums.iter_mut().zip(x).zip(weights) {
                                *sum = sum.wrapping_add(i32::from(*x) * i32::from(*w));
                            }
                        } else {
                            for (channel, (sum, x)) in sums.iter_mut().zip(x).enumerate() {
                                let w = i32::from(weight(position, channel));
                                *sum = sum.wrapping_add(i32::from(*x) * w);
                            }
                        }
                    }
                    let to = at + (oh * c.out_width + ow) * s.channels + first;
                    for panel in (0..width).step_by(PANEL) {
                        let last = PANEL.min(width - panel);
                        // SAFETY: the caller checked the slices; the channels lie inside.
                        unsafe {
                            let column = first + panel;
                            let sums = t.load_i(sums[panel..].as_ptr(), last);
                            let sums = t.add_i(sums, t.load_i(bias[column..].as_ptr(), last));
                            finish(t, [[sums]], end, column, to + panel, 0, last);
                        }
                    }
                }
            }
        }
    }
}
