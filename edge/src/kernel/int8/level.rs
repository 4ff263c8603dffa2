//! The tiers of instructions: which this machine has, and code compiled for each.

use super::portable::Portable;
use super::tile::{Tier, Tile, TileFn, tile};
use crate::kernel::simd::Isa;

/// A tier that this machine can run.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) enum Level {
    /// Plain code.
    Portable(Portable),
}

impl Level {
    /// The best tier among an instruction set's.
    pub(in crate::kernel) fn of(isa: Isa) -> Self {
        let _ = isa;
        Self::Portable(Portable)
    }

    /// Every tier of this machine, fastest first.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        vec![Self::Portable(Portable)]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
        }
    }

    /// The micro-kernels: `[panels - 1][rows - 1]`, both at most what the registers hold.
    pub(super) fn tiles(self) -> &'static [&'static [TileFn]] {
        match self {
            Self::Portable(_) => PORTABLE,
        }
    }
}

/// Makes a function that is compiled once for every tier; `$t` is the token in the body. The
/// first argument of the function made is the [`Level`].
macro_rules! tiered {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($t:ident, $($arg:ident: $ty:ty),* $(,)?) $body:block
    )*) => {$(
        $(#[$meta])*
        pub(super) fn $name(level: $crate::kernel::int8::level::Level, $($arg: $ty),*) {
            #[inline(always)]
            fn generic<T: $crate::kernel::int8::tile::Tier>($t: T, $($arg: $ty),*) $body
            match level {
                $crate::kernel::int8::level::Level::Portable(t) => generic(t, $($arg),*),
            }
        }
    )*};
}
pub(super) use tiered;

macro_rules! tiles {
    ($(#[$cfg:meta])* $token:ty, $all:ident, $tile:ident, $(#[$enable:meta])? [$($w:literal: [$($r:literal)*])*]) => {
        /// # Safety
        /// As for [`tile`]; the processor must have the instructions.
        $(#[$cfg])*
        $(#[$enable])?
        unsafe fn $tile<const R: usize, const W: usize>(job: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { tile::<_, R, W>(<$token>::assume(), job) };
        }
        $(#[$cfg])*
        static $all: &[&[TileFn]] = &[$(&[$($tile::<$r, $w>),*]),*];
    };
}

tiles!(Portable, PORTABLE, tile_portable, [1: [1 2 3 4]]);
