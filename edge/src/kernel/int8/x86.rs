//! The tiers of x86-64.
//!
//! A tier's tokens prove that the processor has its instructions, so arithmetic through them is
//! safe.

use core::arch::x86_64::*;

use super::tile::{Rounding, Tier};
use crate::kernel::simd::token::{CHOSEN, Chosen, FUSED_256, Fused256};

/// AVX-512 with VNNI: sixteen sums in a register, four terms of each in one instruction.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Vnni512(Chosen);

/// AVX2 with VNNI.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Vnni256(Chosen);

/// AVX2 with FMA: widens to 16 bits and multiplies pairs.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Avx2(pub(super) Fused256);

#[cfg(feature = "simd")]
impl Vnni512 {
    pub(super) fn detect() -> Option<Self> {
        (std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vnni")
            && Avx2::detect().is_some())
        .then_some(Self(crate::kernel::simd::token::Built))
    }
}

#[cfg(feature = "simd")]
impl Vnni256 {
    pub(super) fn detect() -> Option<Self> {
        (std::arch::is_x86_feature_detected!("avxvnni") && Avx2::detect().is_some())
            .then_some(Self(crate::kernel::simd::token::Built))
    }
}

#[cfg(feature = "simd")]
impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"))
            .then_some(Self(crate::kernel::simd::token::Built))
    }
}

/// The mask of the first `n <= 16` elements.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// The mask of the first `n <= 64` bytes.
#[inline(always)]
pub(super) fn first_bytes(n: usize) -> __mmask64 {
    if n >= 64 { u64::MAX } else { (1u64 << n) - 1 }
}

/// Wraps intrinsics whose instructions the token in `self` proves.
macro_rules! proved {
    ($($body:tt)*) => {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { $($body)* }
    };
}

/// Wraps loads and stores.
macro_rules! promised {
    ($($body:tt)*) => {
        // SAFETY: the caller's promise, and the token.
        unsafe { $($body)* }
    };
}

impl Tier for Vnni512 {
    type A = __m512i;
    type B = __m512i;
    type Acc = __m512i;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the caller's promise: a build without these kernels never gets here.
        Self(unsafe { CHOSEN.unwrap_unchecked() })
    }
    #[inline(always)]
    fn begin(self, bias: __m512i) -> __m512i {
        bias
    }
    #[inline(always)]
    fn a(self, four: u32) -> __m512i {
        proved!(_mm512_set1_epi32(four as i32))
    }
    #[inline(always)]
    unsafe fn b(self, p: *const i8) -> __m512i {
        promised!(_mm512_loadu_si512(p.cast()))
    }
    #[inline(always)]
    fn dot(self, acc: &mut __m512i, a: __m512i, b: &__m512i) {
        *acc = proved!(_mm512_dpbusd_epi32(*acc, a, *b));
    }
    #[inline(always)]
    unsafe fn pair(self, acc: __m512i, x: [*const u8; 2], w: &[[i16; 2]; 16]) -> __m512i {
        promised!({
            let (x, y) = (_mm_loadu_si128(x[0].cast()), _mm_loadu_si128(x[1].cast()));
            let both = _mm256_set_m128i(_mm_unpackhi_epi8(x, y), _mm_unpacklo_epi8(x, y));
            let w = _mm512_loadu_si512(w.as_ptr().cast());
            _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_cvtepu8_epi16(both), w))
        })
    }
    #[inline(always)]
    fn sums(self, acc: __m512i, _bias: __m512i) -> __m512i {
        acc
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        proved!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn add_i(self, a: __m512i, b: __m512i) -> __m512i {
        proved!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn min_i(self, a: __m512i, b: __m512i) -> __m512i {
        proved!(_mm512_min_epi32(a, b))
    }
    #[inline(always)]
    fn max_i(self, a: __m512i, b: __m512i) -> __m512i {
        proved!(_mm512_max_epi32(a, b))
    }
    #[inline(always)]
    fn equal_i(self, a: __m512i, b: __m512i, bit: i32) -> __m512i {
        proved!(_mm512_maskz_set1_epi32(_mm512_cmpeq_epi32_mask(a, b), bit))
    }
    #[inline(always)]
    fn greater_i(self, a: __m512i, b: __m512i, bit: i32) -> __m512i {
        proved!(_mm512_maskz_set1_epi32(_mm512_cmpgt_epi32_mask(a, b), bit))
    }
    #[inline(always)]
    fn to_f(self, a: __m512i) -> __m512 {
        proved!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> __m512 {
        proved!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn mul_f(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn fma_f(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proved!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn div_f(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn min_f(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max_f(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512i {
        proved!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    unsafe fn load_i(self, p: *const i32, n: usize) -> __m512i {
        promised!(_mm512_maskz_loadu_epi32(first(n), p))
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32, n: usize) -> __m512 {
        promised!(_mm512_maskz_loadu_ps(first(n), p))
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8, n: usize) -> __m512i {
        promised!(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(
            first(n),
            p.cast()
        )))
    }
    #[inline(always)]
    unsafe fn store_i(self, p: *mut i32, n: usize, x: __m512i) {
        promised!(_mm512_mask_storeu_epi32(p, first(n), x))
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, n: usize, x: __m512) {
        promised!(_mm512_mask_storeu_ps(p, first(n), x))
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, n: usize, x: __m512i) {
        promised!(_mm_mask_storeu_epi8(
            p.cast(),
            first(n),
            _mm512_cvtepi32_epi8(x)
        ))
    }

    #[inline(always)]
    unsafe fn requantize<const W: usize>(
        self,
        sums: &[__m512i; W],
        multipliers: &[__m512; W],
        r: &Rounding,
        y: *mut u8,
        last: usize,
    ) {
        let mut at = 0;
        while at < W {
            let mut steps = [self.splat_i(0); 4];
            let here = if W - at < 4 { W - at } else { 4 };
            for i in 0..4 {
                if i < here {
                    steps[i] = self.steps(sums[at + i], multipliers[at + i], r);
                }
            }
            let n = if at + here == W {
                (here - 1) * 16 + last
            } else {
                64
            };
            let bytes = self.pack(steps, r);
            // The packs work in each 128-bit lane: lane `l` holds columns 4l .. 4l + 3 of all.
            // SAFETY: the caller's promise, and the token.
            unsafe {
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let bytes = _mm512_permutexvar_epi32(order, bytes);
                _mm512_mask_storeu_epi8(y.add(at * 16).cast(), first_bytes(n), bytes);
            }
            at += 4;
        }
    }
}

impl Vnni512 {
    /// Rounded products by small multipliers, above the zero point, unbounded.
    #[inline(always)]
    pub(super) fn steps(self, sums: __m512i, multiplier: __m512, r: &Rounding) -> __m512i {
        debug_assert!(r.small);
        self.round(self.mul_f(self.to_f(sums), multiplier))
    }

    /// Adds the zero point, cuts off and packs four vectors to bytes, each 128-bit lane by itself.
    #[inline(always)]
    pub(super) fn pack(self, steps: [__m512i; 4], r: &Rounding) -> __m512i {
        proved!({
            let zero = _mm512_set1_epi16(r.zero_point);
            let low = _mm512_adds_epi16(_mm512_packs_epi32(steps[0], steps[1]), zero);
            let high = _mm512_adds_epi16(_mm512_packs_epi32(steps[2], steps[3]), zero);
            let bytes = _mm512_packus_epi16(low, high);
            let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(r.low as i8));
            _mm512_min_epu8(bytes, _mm512_set1_epi8(r.high as i8))
        })
    }
}

/// The mask of the first `n` of eight 32-bit elements.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn first_256(n: usize) -> __m256i {
    static ONES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let n = n.min(8);
    // SAFETY: eight integers from `8 - n` lie in the table.
    unsafe { _mm256_loadu_si256(ONES.as_ptr().add(8 - n).cast()) }
}

/// What the two tiers of 256 bits share: sixteen elements are two registers.
macro_rules! halves {
    ($proof:expr) => {
        type I = [__m256i; 2];
        type F = [__m256; 2];

        #[inline(always)]
        unsafe fn assume() -> Self {
            // SAFETY: the caller's promise: a build without these kernels never gets here.
            Self(unsafe { $proof.unwrap_unchecked() })
        }
        #[inline(always)]
        unsafe fn pair(
            self,
            acc: [__m256i; 2],
            x: [*const u8; 2],
            w: &[[i16; 2]; 16],
        ) -> [__m256i; 2] {
            promised!({
                let (x, y) = (_mm_loadu_si128(x[0].cast()), _mm_loadu_si128(x[1].cast()));
                let low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(x, y));
                let high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(x, y));
                let w: *const __m256i = w.as_ptr().cast();
                let (first, second) = (_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1)));
                [
                    _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, first)),
                    _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, second)),
                ]
            })
        }
        #[inline(always)]
        fn splat_i(self, x: i32) -> [__m256i; 2] {
            proved!([_mm256_set1_epi32(x); 2])
        }
        #[inline(always)]
        fn add_i(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            proved!([_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
        }
        #[inline(always)]
        fn min_i(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            proved!([_mm256_min_epi32(a[0], b[0]), _mm256_min_epi32(a[1], b[1])])
        }
        #[inline(always)]
        fn max_i(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            proved!([_mm256_max_epi32(a[0], b[0]), _mm256_max_epi32(a[1], b[1])])
        }
        #[inline(always)]
        fn equal_i(self, a: [__m256i; 2], b: [__m256i; 2], bit: i32) -> [__m256i; 2] {
            proved!({
                let bit = _mm256_set1_epi32(bit);
                [
                    _mm256_and_si256(_mm256_cmpeq_epi32(a[0], b[0]), bit),
                    _mm256_and_si256(_mm256_cmpeq_epi32(a[1], b[1]), bit),
                ]
            })
        }
        #[inline(always)]
        fn greater_i(self, a: [__m256i; 2], b: [__m256i; 2], bit: i32) -> [__m256i; 2] {
            proved!({
                let bit = _mm256_set1_epi32(bit);
                [
                    _mm256_and_si256(_mm256_cmpgt_epi32(a[0], b[0]), bit),
                    _mm256_and_si256(_mm256_cmpgt_epi32(a[1], b[1]), bit),
                ]
            })
        }
        #[inline(always)]
        fn to_f(self, a: [__m256i; 2]) -> [__m256; 2] {
            proved!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
        }
        #[inline(always)]
        fn splat_f(self, x: f32) -> [__m256; 2] {
            proved!([_mm256_set1_ps(x); 2])
        }
        #[inline(always)]
        fn mul_f(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            proved!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn fma_f(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            proved!([
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1]),
            ])
        }
        #[inline(always)]
        fn div_f(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            proved!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn min_f(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            proved!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn max_f(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            proved!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn round(self, a: [__m256; 2]) -> [__m256i; 2] {
            proved!([_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1])])
        }
        #[inline(always)]
        unsafe fn load_i(self, p: *const i32, n: usize) -> [__m256i; 2] {
            promised!([
                _mm256_maskload_epi32(p, first_256(n)),
                _mm256_maskload_epi32(p.wrapping_add(8), first_256(n.saturating_sub(8))),
            ])
        }
        #[inline(always)]
        unsafe fn load_f(self, p: *const f32, n: usize) -> [__m256; 2] {
            promised!([
                _mm256_maskload_ps(p, first_256(n)),
                _mm256_maskload_ps(p.wrapping_add(8), first_256(n.saturating_sub(8))),
            ])
        }
        #[inline(always)]
        unsafe fn load_u8(self, p: *const u8, n: usize) -> [__m256i; 2] {
            promised!({
                let bytes = if n == 16 {
                    _mm_loadu_si128(p.cast())
                } else {
                    let mut some = [0u8; 16];
                    core::ptr::copy_nonoverlapping(p, some.as_mut_ptr(), n);
                    _mm_loadu_si128(some.as_ptr().cast())
                };
                [
                    _mm256_cvtepu8_epi32(bytes),
                    _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
                ]
            })
        }
        #[inline(always)]
        unsafe fn store_i(self, p: *mut i32, n: usize, x: [__m256i; 2]) {
            promised!({
                _mm256_maskstore_epi32(p, first_256(n), x[0]);
                _mm256_maskstore_epi32(p.wrapping_add(8), first_256(n.saturating_sub(8)), x[1]);
            })
        }
        #[inline(always)]
        unsafe fn store_f(self, p: *mut f32, n: usize, x: [__m256; 2]) {
            promised!({
                _mm256_maskstore_ps(p, first_256(n), x[0]);
                _mm256_maskstore_ps(p.wrapping_add(8), first_256(n.saturating_sub(8)), x[1]);
            })
        }
        #[inline(always)]
        unsafe fn store_u8(self, p: *mut u8, n: usize, x: [__m256i; 2]) {
            promised!({
                // Lane by lane: 0..4 and 8..12, 4..8 and 12..16.
                let words = _mm256_packus_epi32(x[0], x[1]);
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                let bytes = _mm_packus_epi16(
                    _mm256_castsi256_si128(words),
                    _mm256_extracti128_si256::<1>(words),
                );
                if n == 16 {
                    _mm_storeu_si128(p.cast(), bytes);
                } else {
                    let mut some = [0u8; 16];
                    _mm_storeu_si128(some.as_mut_ptr().cast(), bytes);
                    core::ptr::copy_nonoverlapping(some.as_ptr(), p, n);
                }
            })
        }
    };
}

impl Tier for Vnni256 {
    type A = __m256i;
    type B = [__m256i; 2];
    type Acc = [__m256i; 2];
    halves!(CHOSEN);

    #[inline(always)]
    fn begin(self, bias: [__m256i; 2]) -> [__m256i; 2] {
        bias
    }
    #[inline(always)]
    fn a(self, four: u32) -> __m256i {
        proved!(_mm256_set1_epi32(four as i32))
    }
    #[inline(always)]
    unsafe fn b(self, p: *const i8) -> [__m256i; 2] {
        promised!([
            _mm256_loadu_si256(p.cast()),
            _mm256_loadu_si256(p.add(32).cast()),
        ])
    }
    #[inline(always)]
    fn dot(self, acc: &mut [__m256i; 2], a: __m256i, b: &[__m256i; 2]) {
        *acc = proved!([
            _mm256_dpbusd_avx_epi32(acc[0], a, b[0]),
            _mm256_dpbusd_avx_epi32(acc[1], a, b[1]),
        ]);
    }
    #[inline(always)]
    fn sums(self, acc: [__m256i; 2], _bias: [__m256i; 2]) -> [__m256i; 2] {
        acc
    }
}

impl Tier for Avx2 {
    /// Four inputs as 16 bits, four times.
    type A = __m256i;
    /// Four columns' weights as 16 bits in each.
    type B = [__m256i; 4];
    /// Two sums for each of four columns in each.
    type Acc = [__m256i; 4];
    halves!(FUSED_256);

    #[inline(always)]
    fn begin(self, _bias: [__m256i; 2]) -> [__m256i; 4] {
        proved!([_mm256_setzero_si256(); 4])
    }
    #[inline(always)]
    fn a(self, four: u32) -> __m256i {
        proved!(_mm256_cvtepu8_epi16(_mm_set1_epi32(four as i32)))
    }
    #[inline(always)]
    unsafe fn b(self, p: *const i8) -> [__m256i; 4] {
        promised!([
            _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())),
            _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(16).cast())),
            _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(32).cast())),
            _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(48).cast())),
        ])
    }
    #[inline(always)]
    fn dot(self, acc: &mut [__m256i; 4], a: __m256i, b: &[__m256i; 4]) {
        *acc = proved!([
            _mm256_add_epi32(acc[0], _mm256_madd_epi16(a, b[0])),
            _mm256_add_epi32(acc[1], _mm256_madd_epi16(a, b[1])),
            _mm256_add_epi32(acc[2], _mm256_madd_epi16(a, b[2])),
            _mm256_add_epi32(acc[3], _mm256_madd_epi16(a, b[3])),
        ]);
    }
    #[inline(always)]
    fn sums(self, acc: [__m256i; 4], bias: [__m256i; 2]) -> [__m256i; 2] {
        proved!({
            // Lane by lane: columns 0, 1 and 4, 5; then 2, 3 and 6, 7.
            let low = _mm256_hadd_epi32(acc[0], acc[1]);
            let high = _mm256_hadd_epi32(acc[2], acc[3]);
            [
                _mm256_add_epi32(_mm256_permute4x64_epi64::<0b11_01_10_00>(low), bias[0]),
                _mm256_add_epi32(_mm256_permute4x64_epi64::<0b11_01_10_00>(high), bias[1]),
            ]
        })
    }
}
