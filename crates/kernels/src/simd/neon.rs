//! NEON: four registers a vector. Every AArch64 machine has it.
#![expect(unsafe_code, reason = "intrinsics")]

use super::{LANES, Level, Simd, WithSimd};
use std::arch::aarch64::*;
use std::array::from_fn;

/// Token of [`Level::Neon`].
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token; NEON is part of the architecture.
    #[inline]
    pub fn new() -> Self {
        Self(())
    }
}

impl Default for Neon {
    fn default() -> Self {
        Self::new()
    }
}

/// An intrinsic of this level.
macro_rules! call {
    ($e:expr) => {{
        // SAFETY: NEON is part of AArch64, and memory operands lie in slices or arrays whose length was checked.
        #[allow(unused_unsafe)]
        unsafe {
            $e
        }
    }};
}

/// Lane-wise operation on the four quarters.
macro_rules! quarters {
    ($f:ident, $($v:ident),+) => { call!([$f($($v[0]),+), $f($($v[1]),+), $f($($v[2]),+), $f($($v[3]),+)]) };
}

impl Simd for Neon {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type M = [uint32x4_t; 4];
    const LEVEL: Level = Level::Neon;
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;

    #[inline]
    fn vectorize<O: WithSimd>(self, op: O) -> O::Output {
        op.run(self)
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = x[..LANES].as_ptr();
        call!(self.load_ptr(x))
    }
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::F) {
        let x = x[..LANES].as_mut_ptr();
        call!(self.store_ptr(x, v))
    }
    #[inline(always)]
    fn to_array_i(self, v: Self::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        for q in 0..4 {
            call!(vst1q_s32(lanes[4 * q..].as_mut_ptr(), v[q]));
        }
        lanes
    }
    #[inline(always)]
    fn load_i(self, x: &[i32]) -> Self::I {
        let x = x[..LANES].as_ptr();
        call!([vld1q_s32(x), vld1q_s32(x.add(4)), vld1q_s32(x.add(8)), vld1q_s32(x.add(12))])
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 4 * LANES]) -> Self::I {
        call!(from_fn(|q| vreinterpretq_s32_u8(vld1q_u8(x.as_ptr().add(16 * q)))))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I {
        call!({
            let bytes = vld1q_u8(x.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            [
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
                vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
                vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high))),
            ]
        })
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::I {
        self.sar_i(self.shl_i(self.load_u8(x), 24), 24)
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        self.load(&from_fn::<f32, LANES, _>(|i| half::f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32()))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        call!({
            let x: *const u16 = x.as_ptr().cast();
            let (low, high) = (vld1q_u16(x), vld1q_u16(x.add(8)));
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(low))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(high))),
            ]
        })
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> Self::F {
        self.splat(half::f16::from_le_bytes(x).to_f32())
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> Self::F {
        // SAFETY: the caller promises 16 readable f32.
        unsafe { [vld1q_f32(x), vld1q_f32(x.add(4)), vld1q_f32(x.add(8)), vld1q_f32(x.add(12))] }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: Self::F) {
        // SAFETY: the caller promises 16 writable f32.
        unsafe {
            vst1q_f32(x, v[0]);
            vst1q_f32(x.add(4), v[1]);
            vst1q_f32(x.add(8), v[2]);
            vst1q_f32(x.add(12), v[3]);
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        call!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vaddq_f32, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vsubq_f32, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vmulq_f32, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vdivq_f32, a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(vfmaq_f32, c, a, b)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(vfmsq_f32, c, a, b)
    }
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        quarters!(vnegq_f32, a)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        quarters!(vabsq_f32, a)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.lt(a, b), a, b) // the instruction treats NaN and zeros otherwise
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.lt(b, a), a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        quarters!(vsqrtq_f32, a)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        quarters!(vrndnq_f32, a)
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        call!({
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        })
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        let lanes = self.to_array(self.max(v, [v[2], v[3], v[2], v[3]]));
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let v: [f32; 4] = from_fn(|i| max(lanes[i], lanes[i + 4]));
        max(max(v[0], v[2]), max(v[1], v[3]))
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        // Sixteen blocks of 4 x 4: block (r, c) of the result is block (c, r) of `v`, transposed.
        let mut out = v;
        for r in 0..4 {
            for c in 0..4 {
                let block = call!({
                    let (a, b) = (v[4 * c][r], v[4 * c + 1][r]);
                    let (d, e) = (v[4 * c + 2][r], v[4 * c + 3][r]);
                    let (ab, ba) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
                    let (de, ed) = (vtrn1q_f32(d, e), vtrn2q_f32(d, e));
                    let pair = |low, high| (vreinterpretq_f64_f32(low), vreinterpretq_f64_f32(high));
                    let ((ab, de), (ba, ed)) = (pair(ab, de), pair(ba, ed));
                    [vtrn1q_f64(ab, de), vtrn1q_f64(ba, ed), vtrn2q_f64(ab, de), vtrn2q_f64(ba, ed)]
                });
                for i in 0..4 {
                    out[4 * r + i][c] = call!(vreinterpretq_f32_f64(block[i]));
                }
            }
        }
        out
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        quarters!(vcltq_f32, a, b)
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        quarters!(vcleq_f32, a, b)
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        quarters!(vceqq_f32, a, b)
    }
    #[inline(always)]
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M {
        quarters!(vcltq_s32, a, b)
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vbslq_f32, m, a, b)
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        call!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(vaddq_s32, a, b)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(vsubq_s32, a, b)
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(vmulq_s32, a, b)
    }
    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(vandq_s32, a, b)
    }
    #[inline(always)]
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(vorrq_s32, a, b)
    }
    #[inline(always)]
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(veorq_s32, a, b)
    }
    #[inline(always)]
    fn shl_i(self, a: Self::I, n: u32) -> Self::I {
        let n = self.splat_i(n as i32);
        quarters!(vshlq_s32, a, n)
    }
    #[inline(always)]
    fn shr_i(self, a: Self::I, n: u32) -> Self::I {
        // Shifts to the right are shifts to the left by a negative number.
        let n = self.splat_i(-(n as i32));
        call!(from_fn(|q| vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[q]), n[q]))))
    }
    #[inline(always)]
    fn sar_i(self, a: Self::I, n: u32) -> Self::I {
        let n = self.splat_i(-(n as i32));
        quarters!(vshlq_s32, a, n)
    }
    #[inline(always)]
    fn to_i(self, a: Self::F) -> Self::I {
        quarters!(vcvtnq_s32_f32, a)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        quarters!(vcvtq_f32_s32, a)
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        quarters!(vreinterpretq_s32_f32, a)
    }
    #[inline(always)]
    fn from_bits(self, a: Self::I) -> Self::F {
        quarters!(vreinterpretq_f32_s32, a)
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; LANES], a: Self::I) -> Self::F {
        // A table of 64 bytes: the four bytes of entry i are at 4 i.
        let table = self.load(table);
        let table = call!(uint8x16x4_t(
            vreinterpretq_u8_f32(table[0]),
            vreinterpretq_u8_f32(table[1]),
            vreinterpretq_u8_f32(table[2]),
            vreinterpretq_u8_f32(table[3])
        ));
        let at = self.mul_i(self.and_i(a, self.splat_i(15)), self.splat_i(0x0404_0404));
        let at = self.add_i(at, self.splat_i(0x0302_0100));
        call!(from_fn(|q| vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_s32(at[q])))))
    }
}
