//! The tier that runs everywhere: plain loops over sixteen columns, which the compiler turns into
//! whatever vectors the target has.

use super::tile::Tier;
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;
use crate::kernel::simd::token::{PLAIN_INTEGERS, PlainIntegers};

/// Plain code.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Portable(pub(super) PlainIntegers);

/// Applies a scalar operation to every element.
macro_rules! each {
    ($i:ident: $type:ty => $value:expr) => {{
        let mut out = [<$type>::default(); 16];
        let mut $i = 0;
        while $i < 16 {
            out[$i] = $value;
            $i += 1;
        }
        out
    }};
}

/// Sixteen columns' weights, term by term.
#[inline(never)]
fn terms(columns: &[[u8; 4]; 16]) -> [[i16; 16]; 4] {
    let mut terms = [[0; 16]; 4];
    for (term, to) in terms.iter_mut().enumerate() {
        for (to, column) in to.iter_mut().zip(columns) {
            let column = u32::from_le_bytes(*column) << (24 - 8 * term);
            *to = (column as i32 >> 24) as i16;
        }
    }
    terms
}

/// `acc += a . b`. A function of its own, so that the compiler sees nothing but a loop over
/// columns, which it turns into vectors.
#[inline(never)]
fn dot(acc: &mut [i32; 16], a: [i16; 4], b: &[[i16; 16]; 4]) {
    for (i, acc) in acc.iter_mut().enumerate() {
        let product = |k: usize| i32::from(a[k]) * i32::from(b[k][i]);
        *acc = acc.wrapping_add(product(0) + product(1) + product(2) + product(3));
    }
}

/// Nearest integer, ties to even, for `|x| < 2^21`: adding 1.5 * 2^23 leaves no bits below one,
/// and the addition rounds to even.
#[inline(always)]
pub(super) fn round_even(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32
}

/// `x` within bounds; the lower one where it is not a number.
#[inline(always)]
pub(super) fn bound(x: f32, low: f32, high: f32) -> f32 {
    x.max(low).min(high)
}

impl Tier for Portable {
    type A = [i16; 4];
    /// The weights of each of the four terms.
    type B = [[i16; 16]; 4];
    type Acc = [i32; 16];
    type I = [i32; 16];
    type F = [f32; 16];

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { PLAIN_INTEGERS.unwrap_unchecked() })
    }
    #[inline(always)]
    fn begin(self, bias: [i32; 16]) -> [i32; 16] {
        bias
    }
    #[inline(always)]
    fn a(self, four: u32) -> [i16; 4] {
        four.to_ne_bytes().map(i16::from)
    }
    #[inline(always)]
    unsafe fn b(self, p: *const i8) -> [[i16; 16]; 4] {
        // SAFETY: the caller's promise; bytes have no alignment.
        terms(unsafe { &*p.cast::<[[u8; 4]; 16]>() })
    }
    #[inline(always)]
    fn dot(self, acc: &mut [i32; 16], a: [i16; 4], b: &[[i16; 16]; 4]) {
        dot(acc, a, b);
    }
    #[inline(always)]
    unsafe fn pair(self, acc: [i32; 16], x: [*const u8; 2], w: &[[i16; 2]; 16]) -> [i32; 16] {
        // SAFETY: the caller's promise; bytes have no alignment.
        let [x, y] = x.map(|x| unsafe { x.cast::<[u8; 16]>().read() });
        each!(i: i32 => acc[i]
            .wrapping_add(i32::from(x[i]) * i32::from(w[i][0]) + i32::from(y[i]) * i32::from(w[i][1])))
    }
    #[inline(always)]
    fn sums(self, acc: [i32; 16], _bias: [i32; 16]) -> [i32; 16] {
        acc
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn add_i(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each!(i: i32 => a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn min_i(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each!(i: i32 => a[i].min(b[i]))
    }
    #[inline(always)]
    fn max_i(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each!(i: i32 => a[i].max(b[i]))
    }
    #[inline(always)]
    fn equal_i(self, a: [i32; 16], b: [i32; 16], bit: i32) -> [i32; 16] {
        each!(i: i32 => if a[i] == b[i] { bit } else { 0 })
    }
    #[inline(always)]
    fn greater_i(self, a: [i32; 16], b: [i32; 16], bit: i32) -> [i32; 16] {
        each!(i: i32 => if a[i] > b[i] { bit } else { 0 })
    }
    #[inline(always)]
    fn to_f(self, a: [i32; 16]) -> [f32; 16] {
        each!(i: f32 => a[i] as f32)
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn mul_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i: f32 => a[i] * b[i])
    }
    #[inline(always)]
    fn fma_f(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        each!(i: f32 => a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn div_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i: f32 => a[i] / b[i])
    }
    #[inline(always)]
    fn min_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i: f32 => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i: f32 => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: [f32; 16]) -> [i32; 16] {
        each!(i: i32 => round_even(a[i]))
    }
    #[inline(always)]
    unsafe fn load_i(self, p: *const i32, n: usize) -> [i32; 16] {
        if n == 16 {
            // SAFETY: the caller's promise; an array is aligned like its elements.
            return unsafe { p.cast::<[i32; 16]>().read() };
        }
        // SAFETY: the caller's promise.
        each!(i: i32 => if i < n { unsafe { p.add(i).read() } } else { 0 })
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32, n: usize) -> [f32; 16] {
        if n == 16 {
            // SAFETY: the caller's promise; an array is aligned like its elements.
            return unsafe { p.cast::<[f32; 16]>().read() };
        }
        // SAFETY: the caller's promise.
        each!(i: f32 => if i < n { unsafe { p.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8, n: usize) -> [i32; 16] {
        if n == 16 {
            // SAFETY: the caller's promise; bytes have no alignment.
            let bytes = unsafe { p.cast::<[u8; 16]>().read() };
            return each!(i: i32 => i32::from(bytes[i]));
        }
        // SAFETY: the caller's promise.
        each!(i: i32 => if i < n { i32::from(unsafe { p.add(i).read() }) } else { 0 })
    }
    #[inline(always)]
    unsafe fn store_i(self, p: *mut i32, n: usize, x: [i32; 16]) {
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { p.add(i).write(x) };
        }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, n: usize, x: [f32; 16]) {
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { p.add(i).write(x) };
        }
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, n: usize, x: [i32; 16]) {
        if n == 16 {
            let bytes = each!(i: u8 => x[i] as u8);
            // SAFETY: the caller's promise; bytes have no alignment.
            return unsafe { p.cast::<[u8; 16]>().write(bytes) };
        }
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { p.add(i).write(x as u8) };
        }
    }
}
