//! Element by element: sums, tables, and between u8, i32 and f32.

use super::level::tiered;
use super::tile::{Rounding, added};
use super::types::{Add, Affine};

tiered! {
    fn add(t, sum: &Add, first: &[u8], second: &[u8], y: &mut [u8]) {
        for ((first, second), y) in first.chunks(16).zip(second.chunks(16)).zip(y.chunks_mut(16)) {
            let n = y.len().min(first.len()).min(second.len());
            // SAFETY: every chunk holds `n` bytes.
            unsafe {
                let (a, b) = (t.load_u8(first.as_ptr(), n), t.load_u8(second.as_ptr(), n));
                t.store_u8(y.as_mut_ptr(), n, added(t, a, b, sum));
            }
        }
    }

    fn quantize(t, to: Affine, x: &[f32], y: &mut [u8]) {
        let zero = f32::from(to.zero_point);
        let (scale, low, high) = (t.splat_f(to.scale), t.splat_f(-zero), t.splat_f(255.0 - zero));
        let zero = t.splat_i(i32::from(to.zero_point));
        for (x, y) in x.chunks(16).zip(y.chunks_mut(16)) {
            let n = x.len().min(y.len());
            // SAFETY: both chunks hold `n` elements.
            unsafe {
                let steps = t.div_f(t.load_f(x.as_ptr(), n), scale);
                // The maximum first: it turns NaN into its second operand.
                let steps = t.min_f(t.max_f(steps, low), high);
                t.store_u8(y.as_mut_ptr(), n, t.add_i(t.round(steps), zero));
            }
        }
    }

    fn dequantize(t, from: Affine, x: &[u8], y: &mut [f32]) {
        let (scale, zero) = (t.splat_f(from.scale), t.splat_i(-i32::from(from.zero_point)));
        for (x, y) in x.chunks(16).zip(y.chunks_mut(16)) {
            let n = x.len().min(y.len());
            // SAFETY: both chunks hold `n` elements.
            unsafe {
                let steps = t.to_f(t.add_i(t.load_u8(x.as_ptr(), n), zero));
                t.store_f(y.as_mut_ptr(), n, t.mul_f(steps, scale));
            }
        }
    }
}

/// Plain code: the compiler's gathers are slower than loads one by one.
pub(super) fn lut(table: &[u8; 256], x: &[u8], y: &mut [u8]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = table[usize::from(*x)];
    }
}

/// Of the kernels over single sums: bounds as the tiers take them.
pub(super) fn rounding(r: &super::types::Requantize<'_>) -> Rounding {
    Rounding {
        zero_point: i16::from(r.zero_point),
        low: i16::from(r.low),
        high: i16::from(r.high),
        small: r.multipliers.iter().all(|m| m.abs() < 1.0),
    }
}
