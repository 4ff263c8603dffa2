//! What a token of an instruction set holds: nothing where the build has kernels for it, else what
//! cannot be, so that the compiler leaves those kernels out.
//!
//! With the feature `simd` there are kernels for every instruction set, and the process chooses.
//! Without it there is one, the best that the target is known to have.

/// Kernels are in the build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Built;

macro_rules! built {
    ($(#[$doc:meta])* $type:ident, $(#[$token:meta])* $value:ident, $when:meta) => {
        $(#[$doc])*
        #[cfg($when)]
        pub(crate) type $type = Built;
        $(#[$doc])*
        #[cfg(not($when))]
        pub(crate) type $type = core::convert::Infallible;
        $(#[$token])*
        #[cfg($when)]
        pub(crate) const $value: Option<$type> = Some(Built);
        $(#[$token])*
        #[cfg(not($when))]
        pub(crate) const $value: Option<$type> = None;
    };
}

#[cfg(target_arch = "x86_64")]
built!(
    /// In a token of instructions that only a process can choose.
    Chosen,
    /// For the tokens of AVX-512 and VNNI.
    CHOSEN,
    feature = "simd"
);
#[cfg(target_arch = "x86_64")]
built!(
    /// In a token of AVX2 with FMA and F16C.
    Fused256,
    /// For the tokens of AVX2.
    FUSED_256,
    any(
        feature = "simd",
        all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c")
    )
);
built!(
    /// In the token of plain code in floats.
    PlainFloats,
    /// For the token of plain code in floats.
    PLAIN_FLOATS,
    any(
        feature = "simd",
        not(all(
            target_arch = "x86_64",
            target_feature = "avx2",
            target_feature = "fma",
            target_feature = "f16c"
        ))
    )
);
built!(
    /// In the token of plain code in integers.
    PlainIntegers,
    /// For the token of plain code in integers.
    PLAIN_INTEGERS,
    any(
        feature = "simd",
        not(any(
            target_arch = "aarch64",
            all(
                target_arch = "x86_64",
                target_feature = "avx2",
                target_feature = "fma",
                target_feature = "f16c"
            )
        ))
    )
);
