//! Pooling over NHWC images of u8.

use super::level::tiered;
use super::tile::{Rounding, Tier};
use super::types::Affine;
use crate::kernel::geometry::Pool;

/// Channels whose sums are held at once.
const CHUNK: usize = 64;

tiered! {
    fn max_pool(t, p: &Pool, rows: usize, x: &[u8], y: &mut [u8]) {
        let _ = t;
        let channels = p.channels;
        let mut to = y.chunks_exact_mut(channels);
        for row in 0..rows {
            let image = &x[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, _) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, _) = p.span(1, ow);
                    let Some(best) = to.next() else { return };
                    best.fill(0);
                    for h in high.clone() {
                        for w in wide.clone() {
                            let x = &image[(h * p.width + w) * channels..][..channels];
                            for (best, x) in best.iter_mut().zip(x) {
                                *best = (*best).max(*x);
                            }
                        }
                    }
                }
            }
        }
    }

    fn avg_pool(t, p: &Pool, rows: usize, x: &[u8], from: Affine, to: Affine, y: &mut [u8]) {
        let _ = t;
        let channels = p.channels;
        for row in 0..rows {
            let image = &x[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, _) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, _) = p.span(1, ow);
                    let count = high.len() * wide.len();
                    let at = ((row * p.out_height + oh) * p.out_width + ow) * channels;
                    let y = &mut y[at..][..channels];
                    for (chunk, y) in y.chunks_mut(CHUNK).enumerate() {
                        let mut sums = [0f32; CHUNK];
                        for h in high.clone() {
                            for w in wide.clone() {
                                let at = (h * p.width + w) * channels + chunk * CHUNK;
                                add_numbers(&mut sums, &image[at..][..y.len()], from);
                            }
                        }
                        average_of_numbers(&sums, count, to, y);
                    }
                }
            }
        }
    }

    fn global_avg_pool(
        t, rows: usize, positions: usize, channels: usize, x: &[u8], from: Affine, to: Affine,
        y: &mut [u8],
    ) {
        for row in 0..rows {
            let image = &x[row * positions * channels..][..positions * channels];
            let y = &mut y[row * channels..][..channels];
            for (chunk, y) in y.chunks_mut(CHUNK).enumerate() {
                let mut sums = [0i32; CHUNK];
                for position in 0..positions {
                    let at = position * channels + chunk * CHUNK;
                    add_to(&mut sums, &image[at..][..y.len()]);
                }
                average(t, &sums, positions, from, to, y);
            }
        }
    }
}

#[inline(always)]
fn add_to(sums: &mut [i32; CHUNK], x: &[u8]) {
    if let Ok(x) = <&[u8; CHUNK]>::try_from(x) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = sum.wrapping_add(i32::from(*x));
        }
    } else {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = sum.wrapping_add(i32::from(*x));
        }
    }
}

/// Adds the numbers that `x` stands for.
#[inline(always)]
fn add_numbers(sums: &mut [f32; CHUNK], x: &[u8], from: Affine) {
    let zero = i16::from(from.zero_point);
    let number = |x: u8| from.scale * f32::from(i16::from(x) - zero);
    if let Ok(x) = <&[u8; CHUNK]>::try_from(x) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += number(*x);
        }
    } else {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += number(*x);
        }
    }
}

/// `1.5 * 2^23`: added to a number of a byte's range, it leaves the nearest integer, half to even,
/// in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// `y = clamp(rne(sum / count / scale + zero point))`
#[expect(
    clippy::manual_clamp,
    reason = "this order makes 0 of what is not a number, on every machine"
)]
#[inline(always)]
fn average_of_numbers(sums: &[f32; CHUNK], count: usize, to: Affine, y: &mut [u8]) {
    let (count, zero) = (count as f32, f32::from(to.zero_point));
    for (sum, y) in sums.iter().zip(y) {
        let steps = sum / count / to.scale + zero;
        *y = (steps.max(0.0).min(255.0) + ROUNDER).to_bits() as u8;
    }
}

/// `y = clamp(rne((sum - count * zero point) * (scale / (output scale * count))) + zero point)`
#[inline(always)]
fn average<T: Tier>(
    t: T,
    sums: &[i32; CHUNK],
    count: usize,
    from: Affine,
    to: Affine,
    y: &mut [u8],
) {
    let multiplier = t.splat_f(from.scale / (to.scale * count as f32));
    let zeros = t.splat_i((count as i32).wrapping_mul(-i32::from(from.zero_point)));
    let rounding = Rounding {
        zero_point: i16::from(to.zero_point),
        low: 0,
        high: 255,
        small: false,
    };
    for (sums, y) in sums.chunks_exact(16).zip(y.chunks_mut(16)) {
        // SAFETY: sixteen sums; as many outputs as the chunk has.
        unsafe {
            let sums = t.add_i(t.load_i(sums.as_ptr(), 16), zeros);
            let q = t.rounded(sums, multiplier, &rounding);
            t.store_u8(y.as_mut_ptr(), y.len(), q);
        }
    }
}
