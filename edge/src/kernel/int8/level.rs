//! The tiers of instructions: which this machine has, and code compiled for each.

#[cfg(test)]
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
use super::tile::{EndFn, Finish, Sums, Tier, Tile, TileFn, ending, tile};
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Vnni256, Vnni512};
#[cfg(feature = "simd")]
use crate::kernel::simd::Isa;
#[cfg(any(test, not(feature = "simd")))]
use crate::kernel::simd::token;

/// A tier that this machine can run.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) enum Level {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni512(Vnni512),
    /// AVX2 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni256(Vnni256),
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// Plain code.
    Portable(Portable),
}

impl Level {
    /// The best tier among an instruction set's.
    #[cfg(feature = "simd")]
    pub(in crate::kernel) fn of(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = match isa {
                Isa::Avx512(_) => Vnni512::detect().map(Self::Vnni512),
                Isa::Avx2(_) | Isa::Portable(_) => None,
            };
            let narrow = match isa {
                Isa::Avx512(_) | Isa::Avx2(_) => Vnni256::detect()
                    .map(Self::Vnni256)
                    .or_else(|| Avx2::detect().map(Self::Avx2)),
                Isa::Portable(_) => None,
            };
            if let Some(best) = wide.or(narrow) {
                return best;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(neon) = Neon::detect() {
            return Self::Neon(neon);
        }
        let _ = isa;
        Self::Portable(Portable(crate::kernel::simd::token::Built))
    }

    /// The only tier of a build that leaves no choice.
    #[cfg(not(feature = "simd"))]
    pub(in crate::kernel) const ONLY: Self = {
        #[cfg(target_arch = "aarch64")]
        {
            Self::Neon(Neon(()))
        }
        #[cfg(not(target_arch = "aarch64"))]
        {
            #[cfg(target_arch = "x86_64")]
            let vectors = token::FUSED_256;
            #[cfg(not(target_arch = "x86_64"))]
            let vectors = None::<core::convert::Infallible>;
            match (vectors, token::PLAIN_INTEGERS) {
                #[cfg(target_arch = "x86_64")]
                (Some(proof), _) => Self::Avx2(Avx2(proof)),
                (_, Some(proof)) => Self::Portable(Portable(proof)),
                _ => panic!("a build has kernels of one kind or the other"),
            }
        }
    };

    /// Every tier of this machine, fastest first.
    #[cfg(test)]
    pub(in crate::kernel) fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Vnni512::detect().map(Self::Vnni512));
            all.extend(Vnni256::detect().map(Self::Vnni256));
            all.extend(Avx2::detect().map(Self::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::detect().map(Self::Neon));
        all.extend(token::PLAIN_INTEGERS.map(Portable).map(Self::Portable));
        all
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni512(_) => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Vnni256(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            Self::Portable(_) => "portable",
        }
    }

    /// The micro-kernels: `[panels - 1][rows - 1]`, both at most what the registers hold.
    pub(super) fn tiles(self) -> &'static [&'static [TileFn]] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni512(_) => VNNI512,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni256(_) => VNNI256,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => AVX2,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => NEON,
            Self::Portable(_) => PORTABLE,
        }
    }

    /// The tier's [`ending`].
    pub(super) fn end(self) -> EndFn {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni512(_) => end_vnni512,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni256(_) => end_vnni256,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => end_avx2,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => end_neon,
            Self::Portable(_) => end_portable,
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
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
            fn vnni512(t: $crate::kernel::int8::x86::Vnni512, $($arg: $ty),*) {
                generic(t, $($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avxvnni,avx2,fma")]
            fn vnni256(t: $crate::kernel::int8::x86::Vnni256, $($arg: $ty),*) {
                generic(t, $($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2(t: $crate::kernel::int8::x86::Avx2, $($arg: $ty),*) {
                generic(t, $($arg),*);
            }
            match level {
                // SAFETY: the token proves that the processor has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::int8::level::Level::Vnni512(t) => unsafe { vnni512(t, $($arg),*) },
                // SAFETY: the token proves that the processor has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::int8::level::Level::Vnni256(t) => unsafe { vnni256(t, $($arg),*) },
                // SAFETY: the token proves that the processor has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::int8::level::Level::Avx2(t) => unsafe { avx2(t, $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::kernel::int8::level::Level::Neon(t) => generic(t, $($arg),*),
                $crate::kernel::int8::level::Level::Portable(t) => generic(t, $($arg),*),
            }
        }
    )*};
}
pub(super) use tiered;

macro_rules! tiles {
    ($(#[$cfg:meta])* $token:ty, $all:ident, $tile:ident, $end:ident, $(#[$enable:meta])? [$($w:literal: [$($r:literal)*])*]) => {
        /// # Safety
        /// As for [`tile`]; the processor must have the instructions.
        $(#[$cfg])*
        $(#[$enable])?
        unsafe fn $tile<const R: usize, const W: usize>(job: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { tile::<_, R, W>(<$token>::assume(), job) };
        }
        /// # Safety
        /// As for [`ending`]; the processor must have the instructions.
        $(#[$cfg])*
        $(#[$enable])?
        unsafe fn $end(sums: &Sums, finish: &Finish) {
            // SAFETY: the caller's promise.
            unsafe { ending(<$token>::assume(), sums, finish) };
        }
        $(#[$cfg])*
        static $all: &[&[TileFn]] = &[$(&[$($tile::<$r, $w>),*]),*];
    };
}

tiles!(
    #[cfg(target_arch = "x86_64")]
    Vnni512,
    VNNI512,
    tile_vnni512,
    end_vnni512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    [
        1: [1 2 3 4 5 6 7 8 9 10 11 12]
        2: [1 2 3 4 5 6 7 8 9 10 11 12]
        3: [1 2 3 4 5 6 7 8]
        4: [1 2 3 4 5 6]
        5: [1 2]
        6: [1 2]
        7: [1 2]
        8: [1 2]
    ]
);
tiles!(
    #[cfg(target_arch = "x86_64")]
    Vnni256,
    VNNI256,
    tile_vnni256,
    end_vnni256,
    #[target_feature(enable = "avxvnni,avx2,fma")]
    [1: [1 2 3 4 5 6] 2: [1 2 3]]
);
tiles!(
    #[cfg(target_arch = "x86_64")]
    Avx2,
    AVX2,
    tile_avx2,
    end_avx2,
    #[target_feature(enable = "avx2,fma")]
    [1: [1 2 3]]
);
tiles!(
    #[cfg(target_arch = "aarch64")]
    Neon,
    NEON,
    tile_neon,
    end_neon,
    [1: [1 2 3 4]]
);
tiles!(Portable, PORTABLE, tile_portable, end_portable, [1: [1 2 3 4]]);
