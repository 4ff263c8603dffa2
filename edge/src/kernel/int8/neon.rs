//! The tier of aarch64: NEON, which every such processor has, widening to 16 bits.

use core::arch::aarch64::*;

use super::tile::Tier;

/// NEON.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Neon(pub(super) ());

#[cfg(feature = "simd")]
impl Neon {
    /// The token; NEON is part of the architecture's baseline.
    pub(super) fn detect() -> Option<Self> {
        cfg!(target_feature = "neon").then_some(Self(()))
    }
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

/// Applies an intrinsic to each of the four registers.
macro_rules! each {
    ($f:ident, $a:expr) => {
        proved!([$f($a[0]), $f($a[1]), $f($a[2]), $f($a[3])])
    };
    ($f:ident, $a:expr, $b:expr) => {
        proved!([
            $f($a[0], $b[0]),
            $f($a[1], $b[1]),
            $f($a[2], $b[2]),
            $f($a[3], $b[3]),
        ])
    };
    ($f:ident, $a:expr, $b:expr, $c:expr) => {
        proved!([
            $f($a[0], $b[0], $c[0]),
            $f($a[1], $b[1], $c[1]),
            $f($a[2], $b[2], $c[2]),
            $f($a[3], $b[3], $c[3]),
        ])
    };
}

/// The first elements at a pointer, and zeros.
macro_rules! some {
    ($p:expr, $n:expr, $zero:expr) => {{
        let mut some = [$zero; 16];
        core::ptr::copy_nonoverlapping($p, some.as_mut_ptr(), $n);
        some
    }};
}

impl Tier for Neon {
    /// Four inputs as 16 bits.
    type A = int16x4_t;
    /// The weights of each of the four terms, as 16 bits.
    type B = [int16x8_t; 8];
    type Acc = [int32x4_t; 4];
    type I = [int32x4_t; 4];
    type F = [float32x4_t; 4];

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn begin(self, bias: [int32x4_t; 4]) -> [int32x4_t; 4] {
        bias
    }
    #[inline(always)]
    fn a(self, four: u32) -> int16x4_t {
        proved!({
            let bytes = vcreate_u8(u64::from(four));
            vreinterpret_s16_u16(vget_low_u16(vmovl_u8(bytes)))
        })
    }
    #[inline(always)]
    unsafe fn b(self, p: *const i8) -> [int16x8_t; 8] {
        promised!({
            // Term by term: the load takes the four terms of each column apart.
            let terms = vld4q_s8(p);
            [
                vmovl_s8(vget_low_s8(terms.0)),
                vmovl_high_s8(terms.0),
                vmovl_s8(vget_low_s8(terms.1)),
                vmovl_high_s8(terms.1),
                vmovl_s8(vget_low_s8(terms.2)),
                vmovl_high_s8(terms.2),
                vmovl_s8(vget_low_s8(terms.3)),
                vmovl_high_s8(terms.3),
            ]
        })
    }
    #[inline(always)]
    fn dot(self, acc: &mut [int32x4_t; 4], a: int16x4_t, b: &[int16x8_t; 8]) {
        proved!({
            macro_rules! term {
                ($k:literal) => {
                    acc[0] = vmlal_lane_s16::<$k>(acc[0], vget_low_s16(b[2 * $k]), a);
                    acc[1] = vmlal_high_lane_s16::<$k>(acc[1], b[2 * $k], a);
                    acc[2] = vmlal_lane_s16::<$k>(acc[2], vget_low_s16(b[2 * $k + 1]), a);
                    acc[3] = vmlal_high_lane_s16::<$k>(acc[3], b[2 * $k + 1], a);
                };
            }
            term!(0);
            term!(1);
            term!(2);
            term!(3);
        });
    }
    #[inline(always)]
    unsafe fn pair(
        self,
        mut acc: [int32x4_t; 4],
        x: [*const u8; 2],
        w: &[[i16; 2]; 16],
    ) -> [int32x4_t; 4] {
        promised!({
            let w: *const i16 = w.as_ptr().cast();
            let (low, high) = (vld2q_s16(w), vld2q_s16(w.add(16)));
            macro_rules! position {
                ($x:expr, $low:expr, $high:expr) => {
                    let x = vld1q_u8($x);
                    let first = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
                    let second = vreinterpretq_s16_u16(vmovl_high_u8(x));
                    acc[0] = vmlal_s16(acc[0], vget_low_s16(first), vget_low_s16($low));
                    acc[1] = vmlal_high_s16(acc[1], first, $low);
                    acc[2] = vmlal_s16(acc[2], vget_low_s16(second), vget_low_s16($high));
                    acc[3] = vmlal_high_s16(acc[3], second, $high);
                };
            }
            position!(x[0], low.0, high.0);
            position!(x[1], low.1, high.1);
        });
        acc
    }
    #[inline(always)]
    fn sums(self, acc: [int32x4_t; 4], _bias: [int32x4_t; 4]) -> [int32x4_t; 4] {
        acc
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> [int32x4_t; 4] {
        proved!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn add_i(self, a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
        each!(vaddq_s32, a, b)
    }
    #[inline(always)]
    fn min_i(self, a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
        each!(vminq_s32, a, b)
    }
    #[inline(always)]
    fn max_i(self, a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
        each!(vmaxq_s32, a, b)
    }
    #[inline(always)]
    fn equal_i(self, a: [int32x4_t; 4], b: [int32x4_t; 4], bit: i32) -> [int32x4_t; 4] {
        let same: [uint32x4_t; 4] = each!(vceqq_s32, a, b);
        let same: [int32x4_t; 4] = each!(vreinterpretq_s32_u32, same);
        each!(vandq_s32, same, self.splat_i(bit))
    }
    #[inline(always)]
    fn greater_i(self, a: [int32x4_t; 4], b: [int32x4_t; 4], bit: i32) -> [int32x4_t; 4] {
        let more: [uint32x4_t; 4] = each!(vcgtq_s32, a, b);
        let more: [int32x4_t; 4] = each!(vreinterpretq_s32_u32, more);
        each!(vandq_s32, more, self.splat_i(bit))
    }
    #[inline(always)]
    fn to_f(self, a: [int32x4_t; 4]) -> [float32x4_t; 4] {
        each!(vcvtq_f32_s32, a)
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> [float32x4_t; 4] {
        proved!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn mul_f(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        each!(vmulq_f32, a, b)
    }
    #[inline(always)]
    fn fma_f(
        self,
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        c: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        // The accumulator comes first.
        each!(vfmaq_f32, c, a, b)
    }
    #[inline(always)]
    fn div_f(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        each!(vdivq_f32, a, b)
    }
    #[inline(always)]
    fn min_f(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // Not `vminq`, which keeps NaN.
        let less: [uint32x4_t; 4] = each!(vcltq_f32, a, b);
        each!(vbslq_f32, less, a, b)
    }
    #[inline(always)]
    fn max_f(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        let more: [uint32x4_t; 4] = each!(vcgtq_f32, a, b);
        each!(vbslq_f32, more, a, b)
    }
    #[inline(always)]
    fn round(self, a: [float32x4_t; 4]) -> [int32x4_t; 4] {
        each!(vcvtnq_s32_f32, a)
    }
    #[inline(always)]
    unsafe fn load_i(self, p: *const i32, n: usize) -> [int32x4_t; 4] {
        promised!({
            let some = if n == 16 {
                p.cast::<[i32; 16]>().read()
            } else {
                some!(p, n, 0)
            };
            let p = some.as_ptr();
            [
                vld1q_s32(p),
                vld1q_s32(p.add(4)),
                vld1q_s32(p.add(8)),
                vld1q_s32(p.add(12)),
            ]
        })
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32, n: usize) -> [float32x4_t; 4] {
        promised!({
            let some = if n == 16 {
                p.cast::<[f32; 16]>().read()
            } else {
                some!(p, n, 0.0)
            };
            let p = some.as_ptr();
            [
                vld1q_f32(p),
                vld1q_f32(p.add(4)),
                vld1q_f32(p.add(8)),
                vld1q_f32(p.add(12)),
            ]
        })
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8, n: usize) -> [int32x4_t; 4] {
        let words = promised!({
            let bytes = if n == 16 {
                vld1q_u8(p)
            } else {
                vld1q_u8(some!(p, n, 0).as_ptr())
            };
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ]
        });
        each!(vreinterpretq_s32_u32, words)
    }
    #[inline(always)]
    unsafe fn store_i(self, p: *mut i32, n: usize, x: [int32x4_t; 4]) {
        promised!({
            let mut all = [0i32; 16];
            let to = if n == 16 { p } else { all.as_mut_ptr() };
            vst1q_s32(to, x[0]);
            vst1q_s32(to.add(4), x[1]);
            vst1q_s32(to.add(8), x[2]);
            vst1q_s32(to.add(12), x[3]);
            if n < 16 {
                core::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
            }
        });
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, n: usize, x: [float32x4_t; 4]) {
        promised!({
            let mut all = [0f32; 16];
            let to = if n == 16 { p } else { all.as_mut_ptr() };
            vst1q_f32(to, x[0]);
            vst1q_f32(to.add(4), x[1]);
            vst1q_f32(to.add(8), x[2]);
            vst1q_f32(to.add(12), x[3]);
            if n < 16 {
                core::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
            }
        });
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, n: usize, x: [int32x4_t; 4]) {
        promised!({
            let low = vcombine_u16(vqmovun_s32(x[0]), vqmovun_s32(x[1]));
            let high = vcombine_u16(vqmovun_s32(x[2]), vqmovun_s32(x[3]));
            let bytes = vcombine_u8(vqmovn_u16(low), vqmovn_u16(high));
            if n == 16 {
                vst1q_u8(p, bytes);
            } else {
                let mut all = [0u8; 16];
                vst1q_u8(all.as_mut_ptr(), bytes);
                core::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
            }
        });
    }
}
