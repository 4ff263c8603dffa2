//! The vector abstraction: one token type per instruction set, one set of operations.
//!
//! A value of a type that implements [`Simd`] proves that the processor has the instructions, so
//! arithmetic through it is safe; only loads and stores through raw pointers are not. Every
//! operation acts on each element alone and rounds once as IEEE 754 asks, so a kernel written
//! over this trait gives the same bits at every vector width.

/// A processor's vector instructions.
pub(crate) trait Simd: Copy {
    /// A vector of [`Self::N`] numbers.
    type F: Copy;
    /// A mask of [`Self::N`] truth values.
    type M: Copy;
    /// Numbers in a vector, at most [`MAX_WIDTH`].
    const N: usize;
    /// Vectors in a product's widest tile.
    const TILE_VECTORS: usize;
    /// Rows in a product's tallest tile of [`Self::TILE_VECTORS`] vectors.
    const TILE_ROWS: usize;

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
    /// Bitwise or of two vectors.
    fn or(self, a: Self::F, b: Self::F) -> Self::F;
    /// Wrapping integer sum of the bits and a constant.
    fn add_bits(self, a: Self::F, addend: u32) -> Self::F;
    /// The bits shifted left by 23: an integer becomes an exponent.
    fn to_exponent(self, a: Self::F) -> Self::F;
    /// The bits as an integer, shifted right by 23, as a number: the biased exponent of `a >= 0`.
    fn biased_exponent(self, a: Self::F) -> Self::F;

    /// `a` where `a > b`, else `b`: also `b` when either is NaN.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.greater(a, b), a, b)
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
    const TILE_VECTORS: usize = 2;
    const TILE_ROWS: usize = 4;

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
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isa {
    /// Everywhere.
    Portable(Scalar),
}

impl Isa {
    /// Fastest first.
    pub(crate) fn available() -> Vec<Self> {
        vec![Self::Portable(Scalar)]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
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
            match isa {
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
