//! What `core` leaves to the standard library, for builds without it: each correctly rounded, so
//! the same bits.

/// Named as the methods that the standard library has.
pub(crate) trait Float: Copy {
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The nearest integer, ties to the even one.
    fn round_ties_even(self) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        libm::fmaf(self, a, b)
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        libm::rintf(self)
    }
}

impl Float for f64 {
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        libm::fma(self, a, b)
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        libm::rint(self)
    }
}
