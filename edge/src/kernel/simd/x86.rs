//! AVX-512F and AVX2, both with FMA and F16C.

use core::arch::x86_64::*;

use super::Simd;
use super::token::{CHOSEN, Chosen, FUSED_256, Fused256};

/// The mask of the first `n <= 16` numbers.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// The mask of the first `n <= 8` numbers.
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

/// AVX-512F: sixteen numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(Chosen);

impl Avx512 {
    /// The token.
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        // SAFETY: the caller's promise: a build without these kernels never gets here.
        Self(unsafe { CHOSEN.unwrap_unchecked() })
    }

    /// The token, where the processor has the instructions.
    #[cfg(feature = "simd")]
    pub(super) fn detect() -> Option<Self> {
        (std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c"))
        .then_some(Self(super::token::Built))
    }
}

impl Simd for Avx512 {
    type F = __m512;
    type M = __mmask16;
    const N: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: __m512) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, x: __m512) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_mask_storeu_ps(p, first(n), x) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn greater(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }
    #[inline(always)]
    fn and_bits(self, a: __m512, bits: u32) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm512_castsi512_ps(_mm512_and_si512(
                _mm512_castps_si512(a),
                _mm512_set1_epi32(bits as i32),
            ))
        }
    }
    #[inline(always)]
    fn and(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm512_castsi512_ps(_mm512_and_si512(
                _mm512_castps_si512(a),
                _mm512_castps_si512(b),
            ))
        }
    }
    #[inline(always)]
    fn or(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm512_castsi512_ps(_mm512_or_si512(
                _mm512_castps_si512(a),
                _mm512_castps_si512(b),
            ))
        }
    }
    #[inline(always)]
    fn add_bits(self, a: __m512, addend: u32) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(a),
                _mm512_set1_epi32(addend as i32),
            ))
        }
    }
    #[inline(always)]
    fn to_exponent(self, a: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a))) }
    }
    #[inline(always)]
    fn biased_exponent(self, a: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_cvtepi32_ps(_mm512_srli_epi32::<23>(_mm512_castps_si512(a))) }
    }
    #[inline(always)]
    fn add_integers(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(a),
                _mm512_castps_si512(b),
            ))
        }
    }
    #[inline(always)]
    fn xor(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm512_castsi512_ps(_mm512_xor_si512(
                _mm512_castps_si512(a),
                _mm512_castps_si512(b),
            ))
        }
    }
    #[inline(always)]
    fn rotate_left<const K: i32>(self, a: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_rol_epi32::<K>(_mm512_castps_si512(a))) }
    }
    #[inline(always)]
    fn shift_right<const K: u32>(self, a: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_srli_epi32::<K>(_mm512_castps_si512(a))) }
    }
    #[inline(always)]
    fn integer_to_float(self, a: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(a)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], at: __m512) -> __m512 {
        // SAFETY: the table holds two vectors, and the token.
        unsafe {
            let low = _mm512_loadu_ps(table.as_ptr());
            let high = _mm512_loadu_ps(table.as_ptr().add(16));
            _mm512_permutex2var_ps(low, _mm512_castps_si512(at), high)
        }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: __m512) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

/// AVX2 with FMA: eight numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(pub(super) Fused256);

impl Avx2 {
    /// The token.
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        // SAFETY: the caller's promise: a build without these kernels never gets here.
        Self(unsafe { FUSED_256.unwrap_unchecked() })
    }

    /// The token, where the processor has the instructions.
    #[cfg(feature = "simd")]
    pub(super) fn detect() -> Option<Self> {
        (std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c"))
        .then_some(Self(super::token::Built))
    }
}

impl Simd for Avx2 {
    type F = __m256;
    type M = __m256;
    const N: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm256_maskload_ps(p, first_256(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: __m256) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, x: __m256) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm256_maskstore_ps(p, first_256(n), x) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn greater(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_blendv_ps(b, a, mask) }
    }
    #[inline(always)]
    fn and_bits(self, a: __m256, bits: u32) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm256_castsi256_ps(_mm256_and_si256(
                _mm256_castps_si256(a),
                _mm256_set1_epi32(bits as i32),
            ))
        }
    }
    #[inline(always)]
    fn and(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm256_castsi256_ps(_mm256_and_si256(
                _mm256_castps_si256(a),
                _mm256_castps_si256(b),
            ))
        }
    }
    #[inline(always)]
    fn or(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm256_castsi256_ps(_mm256_or_si256(
                _mm256_castps_si256(a),
                _mm256_castps_si256(b),
            ))
        }
    }
    #[inline(always)]
    fn add_bits(self, a: __m256, addend: u32) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm256_castsi256_ps(_mm256_add_epi32(
                _mm256_castps_si256(a),
                _mm256_set1_epi32(addend as i32),
            ))
        }
    }
    #[inline(always)]
    fn to_exponent(self, a: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a))) }
    }
    #[inline(always)]
    fn biased_exponent(self, a: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_cvtepi32_ps(_mm256_srli_epi32::<23>(_mm256_castps_si256(a))) }
    }
    #[inline(always)]
    fn add_integers(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm256_castsi256_ps(_mm256_add_epi32(
                _mm256_castps_si256(a),
                _mm256_castps_si256(b),
            ))
        }
    }
    #[inline(always)]
    fn xor(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            _mm256_castsi256_ps(_mm256_xor_si256(
                _mm256_castps_si256(a),
                _mm256_castps_si256(b),
            ))
        }
    }
    #[inline(always)]
    fn rotate_left<const K: i32>(self, a: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            let a = _mm256_castps_si256(a);
            let left = _mm256_sll_epi32(a, _mm_cvtsi32_si128(K));
            let right = _mm256_srl_epi32(a, _mm_cvtsi32_si128(32 - K));
            _mm256_castsi256_ps(_mm256_or_si256(left, right))
        }
    }
    #[inline(always)]
    fn shift_right<const K: u32>(self, a: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe {
            let count = _mm_cvtsi32_si128(K.cast_signed());
            _mm256_castsi256_ps(_mm256_srl_epi32(_mm256_castps_si256(a), count))
        }
    }
    #[inline(always)]
    fn integer_to_float(self, a: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_cvtepi32_ps(_mm256_castps_si256(a)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], at: __m256) -> __m256 {
        // SAFETY: five bits are a place in the table; and the token.
        unsafe {
            let at = _mm256_and_si256(_mm256_castps_si256(at), _mm256_set1_epi32(31));
            _mm256_i32gather_ps::<4>(table.as_ptr(), at)
        }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m256 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: __m256) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: the token proves that the processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
