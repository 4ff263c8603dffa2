//! The tier that runs everywhere: plain loops over sixteen columns, which the compiler turns into
//! whatever vectors the target has.

use super::tile::Tier;

/// Plain code.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Portable;

macro_rules! each {
    ($i:ident => $value:expr) => {
        core::array::from_fn(
            #[inline(always)]
            |$i| $value,
        )
    };
}

/// Nearest integer, ties to even, for `|x| < 2^21`: adding 1.5 * 2^23 leaves no bits below one,
/// and the addition rounds to even.
#[inline(always)]
pub(super) fn round_even(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32
}

impl Tier for Portable {
    type A = [i16; 4];
    type B = [i8; 64];
    type Acc = [i32; 16];
    type I = [i32; 16];
    type F = [f32; 16];

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self
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
    unsafe fn b(self, p: *const i8) -> [i8; 64] {
        // SAFETY: the caller's promise; bytes have no alignment.
        unsafe { p.cast::<[i8; 64]>().read() }
    }
    #[inline(always)]
    fn dot(self, acc: [i32; 16], a: [i16; 4], b: [i8; 64]) -> [i32; 16] {
        each!(i => {
            let term = |k: usize| i32::from(a[k]) * i32::from(i16::from(b[4 * i + k]));
            acc[i].wrapping_add(term(0) + term(1) + term(2) + term(3))
        })
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
        each!(i => a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn min_i(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each!(i => a[i].min(b[i]))
    }
    #[inline(always)]
    fn max_i(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each!(i => a[i].max(b[i]))
    }
    #[inline(always)]
    fn equal_i(self, a: [i32; 16], b: [i32; 16], bit: i32) -> [i32; 16] {
        each!(i => if a[i] == b[i] { bit } else { 0 })
    }
    #[inline(always)]
    fn greater_i(self, a: [i32; 16], b: [i32; 16], bit: i32) -> [i32; 16] {
        each!(i => if a[i] > b[i] { bit } else { 0 })
    }
    #[inline(always)]
    fn to_f(self, a: [i32; 16]) -> [f32; 16] {
        each!(i => a[i] as f32)
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn mul_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn fma_f(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        each!(i => a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn div_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn min_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max_f(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: [f32; 16]) -> [i32; 16] {
        each!(i => round_even(a[i]))
    }
    #[inline(always)]
    unsafe fn load_i(self, p: *const i32, n: usize) -> [i32; 16] {
        // SAFETY: the caller's promise.
        each!(i => if i < n { unsafe { p.add(i).read() } } else { 0 })
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32, n: usize) -> [f32; 16] {
        // SAFETY: the caller's promise.
        each!(i => if i < n { unsafe { p.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8, n: usize) -> [i32; 16] {
        // SAFETY: the caller's promise.
        each!(i => if i < n { i32::from(unsafe { p.add(i).read() }) } else { 0 })
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
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { p.add(i).write(x as u8) };
        }
    }
}
