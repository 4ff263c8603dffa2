//! The vector abstraction: one token type per instruction set, one set of operations.
//!
//! A value of a type that implements [`Simd`] proves that the processor has the instructions, so
//! arithmetic through it is safe; only loads and stores through raw pointers are not. Every
//! operation acts on each element alone and rounds once as IEEE 754 asks, so a kernel written
//! over this trait gives the same bits at every vector width.

pub(crate) mod token;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

#[cfg(feature = "simd")]
use alloc::vec::Vec;

use super::half::{f16_to_f32, f32_to_f16};
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// A processor's vector instructions.
pub(crate) trait Simd: Copy {
    /// A vector of [`Self::N`] numbers.
    type F: Copy;
    /// A mask of [`Self::N`] truth values.
    type M: Copy;
    /// Numbers in a vector, at most [`MAX_WIDTH`].
    const N: usize;

    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// `p` must be valid for reading `N` numbers.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// The first `n <= N` numbers at `p`, and zeros.
    /// # Safety
    /// `p` must be valid for reading `n` numbers.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F;
    /// # Safety
    /// `p` must be valid for writing `N` numbers.
    unsafe fn store(self, p: *mut f32, x: Self::F);
    /// # Safety
    /// `p` must be valid for writing `n` numbers, `n <= N`.
    unsafe fn store_first(self, p: *mut f32, n: usize, x: Self::F);
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a > b`, false for NaN.
    fn greater(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a` where the mask is set, else `b`.
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// Bitwise and with a constant.
    fn and_bits(self, a: Self::F, bits: u32) -> Self::F;
    /// Bitwise and of two vectors.
    fn and(self, a: Self::F, b: Self::F) -> Self::F;
    /// Bitwise or of two vectors.
    fn or(self, a: Self::F, b: Self::F) -> Self::F;
    /// Wrapping integer sum of the bits and a constant.
    fn add_bits(self, a: Self::F, addend: u32) -> Self::F;
    /// The bits shifted left by 23: an integer becomes an exponent.
    fn to_exponent(self, a: Self::F) -> Self::F;
    /// The bits as an integer, shifted right by 23, as a number: the biased exponent of `a >= 0`.
    fn biased_exponent(self, a: Self::F) -> Self::F;
    /// Wrapping integer sum of the bits.
    fn add_integers(self, a: Self::F, b: Self::F) -> Self::F;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::F, b: Self::F) -> Self::F;
    /// The bits rotated left by `K`, from 1 to 31.
    fn rotate_left<const K: i32>(self, a: Self::F) -> Self::F;
    /// The bits shifted right by `K`, from 1 to 31; zeros come in.
    fn shift_right<const K: u32>(self, a: Self::F) -> Self::F;
    /// The bits as a signed integer, as the nearest number.
    fn integer_to_float(self, a: Self::F) -> Self::F;
    /// The elements of `table` at the integers in the low five bits.
    fn lookup(self, table: &[f32; 32], at: Self::F) -> Self::F;

    /// `N` binary16 numbers, widened: [`f16_to_f32`](super::half::f16_to_f32) of each.
    /// # Safety
    /// `p` must be valid for reading `N` numbers.
    unsafe fn load_half(self, p: *const u16) -> Self::F;
    /// `N` numbers narrowed: [`f32_to_f16`](super::half::f32_to_f16) of each.
    /// # Safety
    /// `p` must be valid for writing `N` numbers.
    unsafe fn store_half(self, p: *mut u16, x: Self::F);

    /// Asks for the cache line at `p`, which need not be valid.
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        let _ = p;
    }

    /// `a` where `a > b`, else `b`: also `b` when either is NaN.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.greater(a, b), a, b)
    }

    /// `a` where `a < b`, else `b`: also `b` when either is NaN.
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.greater(b, a), a, b)
    }
}

/// The widest vector of any instruction set.
pub(crate) const MAX_WIDTH: usize = 16;

/// One number at a time: the numeric law itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    type F = f32;
    type M = bool;
    const N: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { p.read() }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> f32 {
        // SAFETY: the caller's promise.
        if n > 0 { unsafe { p.read() } } else { 0.0 }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: f32) {
        // SAFETY: the caller's promise.
        unsafe { p.write(x) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, x: f32) {
        if n > 0 {
            // SAFETY: the caller's promise.
            unsafe { p.write(x) }
        }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> f32 {
        // SAFETY: the caller's promise.
        f16_to_f32(unsafe { p.read() })
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: f32) {
        // SAFETY: the caller's promise.
        unsafe { p.write(f32_to_f16(x)) }
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn sqrt(self, a: f32) -> f32 {
        libm::sqrtf(a)
    }
    #[inline(always)]
    fn greater(self, a: f32, b: f32) -> bool {
        a > b
    }
    #[inline(always)]
    fn select(self, mask: bool, a: f32, b: f32) -> f32 {
        if mask { a } else { b }
    }
    #[inline(always)]
    fn and_bits(self, a: f32, bits: u32) -> f32 {
        f32::from_bits(a.to_bits() & bits)
    }
    #[inline(always)]
    fn and(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits() & b.to_bits())
    }
    #[inline(always)]
    fn or(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits() | b.to_bits())
    }
    #[inline(always)]
    fn add_bits(self, a: f32, addend: u32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_add(addend))
    }
    #[inline(always)]
    fn to_exponent(self, a: f32) -> f32 {
        f32::from_bits(a.to_bits() << 23)
    }
    #[inline(always)]
    fn biased_exponent(self, a: f32) -> f32 {
        (a.to_bits() >> 23) as f32
    }
    #[inline(always)]
    fn add_integers(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_add(b.to_bits()))
    }
    #[inline(always)]
    fn xor(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits() ^ b.to_bits())
    }
    #[inline(always)]
    fn rotate_left<const K: i32>(self, a: f32) -> f32 {
        f32::from_bits(a.to_bits().rotate_left(K.cast_unsigned()))
    }
    #[inline(always)]
    fn shift_right<const K: u32>(self, a: f32) -> f32 {
        f32::from_bits(a.to_bits() >> K)
    }
    #[inline(always)]
    fn integer_to_float(self, a: f32) -> f32 {
        a.to_bits().cast_signed() as f32
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], at: f32) -> f32 {
        table[(at.to_bits() & 31) as usize]
    }
}

/// Eight numbers at a time in plain code, which the compiler turns into whatever vectors the
/// target has (four-wide NEON on aarch64).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable(token::PlainFloats);

impl Portable {
    /// The token.
    ///
    /// # Safety
    /// The build must have plain kernels ([`token::PLAIN_FLOATS`]).
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { token::PLAIN_FLOATS.unwrap_unchecked() })
    }
}

/// Applies a scalar operation to every element.
macro_rules! each {
    ($i:ident => $value:expr) => {{
        let mut out = [0.0f32; 8];
        let mut $i = 0;
        while $i < 8 {
            out[$i] = $value;
            $i += 1;
        }
        out
    }};
}

impl Simd for Portable {
    type F = [f32; 8];
    type M = [bool; 8];
    const N: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise; an array of f32 is aligned like f32.
        unsafe { p.cast::<[f32; 8]>().read() }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> [f32; 8] {
        // SAFETY: the caller's promise.
        each!(i => if i < n { unsafe { p.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: [f32; 8]) {
        // SAFETY: the caller's promise; an array of f32 is aligned like f32.
        unsafe { p.cast::<[f32; 8]>().write(x) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, x: [f32; 8]) {
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { p.add(i).write(x) }
        }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> [f32; 8] {
        // SAFETY: the caller's promise; an array of u16 is aligned like u16.
        let half = unsafe { p.cast::<[u16; 8]>().read() };
        each!(i => f16_to_f32(half[i]))
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: [f32; 8]) {
        // SAFETY: the caller's promise; an array of u16 is aligned like u16.
        unsafe { p.cast::<[u16; 8]>().write(x.map(f32_to_f16)) }
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        each!(i => a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; 8]) -> [f32; 8] {
        each!(i => libm::sqrtf(a[i]))
    }
    #[inline(always)]
    fn greater(self, a: [f32; 8], b: [f32; 8]) -> [bool; 8] {
        core::array::from_fn(|i| a[i] > b[i])
    }
    #[inline(always)]
    fn select(self, mask: [bool; 8], a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => if mask[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn and_bits(self, a: [f32; 8], bits: u32) -> [f32; 8] {
        each!(i => Scalar.and_bits(a[i], bits))
    }
    #[inline(always)]
    fn and(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.and(a[i], b[i]))
    }
    #[inline(always)]
    fn or(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.or(a[i], b[i]))
    }
    #[inline(always)]
    fn add_bits(self, a: [f32; 8], addend: u32) -> [f32; 8] {
        each!(i => Scalar.add_bits(a[i], addend))
    }
    #[inline(always)]
    fn to_exponent(self, a: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.to_exponent(a[i]))
    }
    #[inline(always)]
    fn biased_exponent(self, a: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.biased_exponent(a[i]))
    }
    #[inline(always)]
    fn add_integers(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.add_integers(a[i], b[i]))
    }
    #[inline(always)]
    fn xor(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.xor(a[i], b[i]))
    }
    #[inline(always)]
    fn rotate_left<const K: i32>(self, a: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.rotate_left::<K>(a[i]))
    }
    #[inline(always)]
    fn shift_right<const K: u32>(self, a: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.shift_right::<K>(a[i]))
    }
    #[inline(always)]
    fn integer_to_float(self, a: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.integer_to_float(a[i]))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], at: [f32; 8]) -> [f32; 8] {
        each!(i => Scalar.lookup(table, at[i]))
    }
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isa {
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// Everywhere.
    Portable(Portable),
}

impl Isa {
    /// The only one of a build that leaves no choice.
    #[cfg(not(feature = "simd"))]
    pub(crate) const ONLY: Self = {
        #[cfg(target_arch = "x86_64")]
        let vectors = token::FUSED_256;
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = None::<core::convert::Infallible>;
        match (vectors, token::PLAIN_FLOATS) {
            #[cfg(target_arch = "x86_64")]
            (Some(proof), _) => Self::Avx2(x86::Avx2(proof)),
            (_, Some(proof)) => Self::Portable(Portable(proof)),
            _ => panic!("a build has kernels of one kind or the other"),
        }
    };

    /// Fastest first.
    #[cfg(feature = "simd")]
    pub(crate) fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(x86::Avx512::detect().map(Self::Avx512));
            all.extend(x86::Avx2::detect().map(Self::Avx2));
        }
        all.push(Self::Portable(Portable(token::Built)));
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            Self::Portable(_) => "portable",
        }
    }
}

/// Makes a function over slices that is compiled once for every instruction set.
///
/// `$v` is the token in the body. The first argument of the function made is the [`Isa`].
macro_rules! vectorized {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($v:ident, $($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        pub(super) fn $name(isa: $crate::kernel::simd::Isa, $($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn generic<V: $crate::kernel::simd::Simd>($v: V, $($arg: $ty),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            fn avx512(v: $crate::kernel::simd::x86::Avx512, $($arg: $ty),*) $(-> $out)? {
                generic(v, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2(v: $crate::kernel::simd::x86::Avx2, $($arg: $ty),*) $(-> $out)? {
                generic(v, $($arg),*)
            }
            match isa {
                // SAFETY: the token proves that the processor has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::simd::Isa::Avx512(v) => unsafe { avx512(v, $($arg),*) },
                // SAFETY: the token proves that the processor has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::simd::Isa::Avx2(v) => unsafe { avx2(v, $($arg),*) },
                $crate::kernel::simd::Isa::Portable(v) => generic(v, $($arg),*),
            }
        }
    )*};
}
pub(crate) use vectorized;

/// Element by element: loads vectors from slices, stores the values of `$out` expressions.
///
/// `map!(v, len; a = x, b = y; { statements } x => value, y => value)`: `len` numbers; every
/// slice is checked to be so long. All loads of a vector come before its stores.
macro_rules! map {
    ($v:ident, $len:expr; $($x:ident = $from:expr),*; { $(let $name:ident = $step:expr;)* } $($to:expr => $value:expr),+) => {{
        let len = $len;
        $(assert!($from.len() >= len);)*
        $(assert!($to.len() >= len);)*
        let mut at = 0;
        while at + V::N <= len {
            // SAFETY: `at + N <= len`, and every slice holds `len` numbers.
            $(let $x = unsafe { $v.load($from.as_ptr().add(at)) };)*
            $(let $name = $step;)*
            // SAFETY: as above.
            $(unsafe { $v.store($to.as_mut_ptr().add(at), $value) };)+
            at += V::N;
        }
        let rest = len - at;
        if rest > 0 {
            // SAFETY: `at + rest == len`, and every slice holds `len` numbers.
            $(let $x = unsafe { $v.load_first($from.as_ptr().add(at), rest) };)*
            $(let $name = $step;)*
            // SAFETY: as above.
            $(unsafe { $v.store_first($to.as_mut_ptr().add(at), rest, $value) };)+
        }
    }};
}
pub(crate) use map;
