//! IEEE 754 binary16, as storage: numbers are widened to f32 before any arithmetic.
//!
//! Narrowing rounds to nearest, ties to even; what is too large becomes an infinity and a NaN
//! stays a quiet NaN with the upper bits of its payload. The processor's own conversions and the
//! plain code here give the same bits for every input.

use super::simd::vectorized;

/// The number that the bits of a binary16 mean; a signalling NaN becomes quiet.
#[must_use]
#[inline(always)]
pub const fn f16_to_f32(half: u16) -> f32 {
    let sign = ((half & 0x8000) as u32) << 16;
    let magnitude = (half & 0x7fff) as u32;
    if magnitude >= 0x7c00 {
        let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
        return f32::from_bits(sign | 0x7f80_0000 | quiet | ((magnitude & 0x03ff) << 13));
    }
    // Exact also for subnormal numbers: the product is a normal f32.
    let number = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(sign | number.to_bits())
}

/// The bits of the nearest binary16, ties to even.
#[must_use]
#[inline(always)]
pub const fn f32_to_f16(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | ((magnitude >> 13) & 0x03ff) as u16;
    }
    if magnitude >= 0x4780_0000 {
        // 2^16 and more, infinity too. What lies between the largest number and it rounds below.
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14 a subnormal number of units of 2^-24: adding 1/2 aligns that unit with the
        // last bit of the sum, which the addition rounds as is wanted.
        let aligned = f32::from_bits(magnitude) + 0.5;
        return sign | (aligned.to_bits() - 0.5f32.to_bits()) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude - (112 << 23) + 0x0fff + odd;
    sign | (rounded >> 13) as u16
}

vectorized! {
    /// `y = x`, widened.
    fn widen(v, x: &[u16], y: &mut [f32]) {
        let (whole, rest) = x.as_chunks::<16>();
        for (x, y) in whole.iter().zip(y.chunks_exact_mut(16)) {
            for at in (0..16).step_by(V::N) {
                // SAFETY: both hold sixteen numbers, a multiple of `N`.
                unsafe { v.store(y.as_mut_ptr().add(at), v.load_half(x.as_ptr().add(at))) };
            }
        }
        for (x, y) in rest.iter().zip(&mut y[whole.len() * 16..]) {
            *y = f16_to_f32(*x);
        }
    }

    /// `y = x`, rounded.
    fn narrow(v, x: &[f32], y: &mut [u16]) {
        let (whole, rest) = x.as_chunks::<16>();
        for (x, y) in whole.iter().zip(y.chunks_exact_mut(16)) {
            for at in (0..16).step_by(V::N) {
                // SAFETY: both hold sixteen numbers, a multiple of `N`.
                unsafe { v.store_half(y.as_mut_ptr().add(at), v.load(x.as_ptr().add(at))) };
            }
        }
        for (x, y) in rest.iter().zip(&mut y[whole.len() * 16..]) {
            *y = f32_to_f16(*x);
        }
    }
}
