//! AVX2 (two registers a vector) and AVX-512 (one).
#![expect(unsafe_code, reason = "intrinsics")]

use super::{LANES, Level, Simd, WithSimd};
use std::arch::x86_64::*;

/// An intrinsic of the level whose token is at hand.
macro_rules! call {
    ($e:expr) => {{
        // SAFETY: `self` exists only where the instructions of its level were detected, and memory operands lie in
        // slices or arrays whose length was checked.
        #[allow(unused_unsafe)]
        unsafe {
            $e
        }
    }};
}

/// Token of [`Level::Avx2`].
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, where the machine has AVX2, FMA and F16C.
    #[inline]
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")).then_some(Self(()))
    }
}

/// Token of [`Level::Avx512`].
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The token, where the machine has AVX-512F beside the features of [`Avx2`].
    #[inline]
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && Avx2::new().is_some()).then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<O: WithSimd>(s: Avx2, op: O) -> O::Output {
    op.run(s)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn run_avx512<O: WithSimd>(s: Avx512, op: O) -> O::Output {
    op.run(s)
}

/// Lane-wise operation on both halves.
macro_rules! halves {
    ($f:ident, $($v:ident),+) => { call!([$f($($v[0]),+), $f($($v[1]),+)]) };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type M = [__m256; 2];
    const LEVEL: Level = Level::Avx2;
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;

    #[inline]
    fn vectorize<O: WithSimd>(self, op: O) -> O::Output {
        call!(run_avx2(self, op))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = x[..LANES].as_ptr();
        call!([_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))])
    }
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::F) {
        let x = x[..LANES].as_mut_ptr();
        call!({
            _mm256_storeu_ps(x, v[0]);
            _mm256_storeu_ps(x.add(8), v[1]);
        })
    }
    #[inline(always)]
    fn to_array_i(self, v: Self::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        call!({
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v[0]);
            _mm256_storeu_si256(lanes[8..].as_mut_ptr().cast(), v[1]);
        });
        lanes
    }
    #[inline(always)]
    fn load_i(self, x: &[i32]) -> Self::I {
        let x = x[..LANES].as_ptr();
        call!([_mm256_loadu_si256(x.cast()), _mm256_loadu_si256(x.add(8).cast())])
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 4 * LANES]) -> Self::I {
        let x: *const __m256i = x.as_ptr().cast();
        call!([_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1))])
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I {
        call!({
            let x = _mm_loadu_si128(x.as_ptr().cast());
            [_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(x, x))]
        })
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::I {
        call!({
            let x = _mm_loadu_si128(x.as_ptr().cast());
            [_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x))]
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        let x: *const __m128i = x.as_ptr().cast();
        call!([_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))])
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        let x: *const __m128i = x.as_ptr().cast();
        let i = call!([_mm256_cvtepu16_epi32(_mm_loadu_si128(x)), _mm256_cvtepu16_epi32(_mm_loadu_si128(x.add(1)))]);
        self.from_bits(self.shl_i(i, 16))
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> Self::F {
        let v = call!(_mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(x))));
        [v; 2]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> Self::F {
        // SAFETY: the caller promises 16 readable f32.
        unsafe { [_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))] }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: Self::F) {
        // SAFETY: the caller promises 16 writable f32.
        unsafe {
            _mm256_storeu_ps(x, v[0]);
            _mm256_storeu_ps(x.add(8), v[1]);
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        call!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(_mm256_fnmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        let sign = self.splat(-0.0);
        halves!(_mm256_xor_ps, a, sign)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        let sign = self.splat(-0.0);
        halves!(_mm256_andnot_ps, sign, a)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        halves!(_mm256_sqrt_ps, a)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        call!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        call!({
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        call!({
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps::<1>(v, v)))
        })
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        // Four blocks of 8 x 8: block (r, c) of the result is block (c, r) of `v`, transposed.
        let mut out = [[self.splat(0.0)[0]; 2]; LANES];
        for r in 0..2 {
            for c in 0..2 {
                let block = transpose_8x8(self, std::array::from_fn(|i| v[8 * c + i][r]));
                for i in 0..8 {
                    out[8 * r + i][c] = block[i];
                }
            }
        }
        out
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        call!([_mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])])
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        call!([_mm256_cmp_ps::<_CMP_LE_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LE_OQ>(a[1], b[1])])
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        call!([_mm256_cmp_ps::<_CMP_EQ_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_EQ_OQ>(a[1], b[1])])
    }
    #[inline(always)]
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M {
        self.from_bits(halves!(_mm256_cmpgt_epi32, b, a))
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_blendv_ps, b, a, m)
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        call!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(_mm256_sub_epi32, a, b)
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(_mm256_mullo_epi32, a, b)
    }
    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(_mm256_and_si256, a, b)
    }
    #[inline(always)]
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(_mm256_xor_si256, a, b)
    }
    #[inline(always)]
    fn shl_i(self, a: Self::I, n: u32) -> Self::I {
        let n = self.splat_i(n as i32);
        halves!(_mm256_sllv_epi32, a, n)
    }
    #[inline(always)]
    fn shr_i(self, a: Self::I, n: u32) -> Self::I {
        let n = self.splat_i(n as i32);
        halves!(_mm256_srlv_epi32, a, n)
    }
    #[inline(always)]
    fn sar_i(self, a: Self::I, n: u32) -> Self::I {
        let n = self.splat_i(n as i32);
        halves!(_mm256_srav_epi32, a, n)
    }
    #[inline(always)]
    fn to_i(self, a: Self::F) -> Self::I {
        halves!(_mm256_cvtps_epi32, a)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        halves!(_mm256_cvtepi32_ps, a)
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        halves!(_mm256_castps_si256, a)
    }
    #[inline(always)]
    fn from_bits(self, a: Self::I) -> Self::F {
        halves!(_mm256_castsi256_ps, a)
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; LANES], a: Self::I) -> Self::F {
        // The permutation reads three bits of the index; the fourth, brought to the sign, chooses the half.
        let ([low, high], fourth) = (self.load(table), self.from_bits(self.shl_i(a, 28)));
        let of = |i: usize| call!(_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, a[i]), _mm256_permutevar8x32_ps(high, a[i]), fourth[i]));
        [of(0), of(1)]
    }
}

/// Row i of the result is column i of `v`; the token says that AVX is there.
#[inline(always)]
fn transpose_8x8(_: Avx2, v: [__m256; 8]) -> [__m256; 8] {
    call!({
        let mut pairs = v;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        }
        let mut quads = v;
        for i in 0..2 {
            quads[4 * i] = _mm256_shuffle_ps::<0x44>(pairs[4 * i], pairs[4 * i + 2]);
            quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(pairs[4 * i], pairs[4 * i + 2]);
            quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(pairs[4 * i + 1], pairs[4 * i + 3]);
            quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(pairs[4 * i + 1], pairs[4 * i + 3]);
        }
        let mut out = v;
        for i in 0..4 {
            out[i] = _mm256_permute2f128_ps::<0x20>(quads[i], quads[4 + i]);
            out[4 + i] = _mm256_permute2f128_ps::<0x31>(quads[i], quads[4 + i]);
        }
        out
    })
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;
    const LEVEL: Level = Level::Avx512;
    const TILE_ROWS: usize = 14;
    const TILE_PANELS: usize = 2;

    #[inline]
    fn vectorize<O: WithSimd>(self, op: O) -> O::Output {
        call!(run_avx512(self, op))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        call!(_mm512_loadu_ps(x[..LANES].as_ptr()))
    }
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::F) {
        call!(_mm512_storeu_ps(x[..LANES].as_mut_ptr(), v))
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> Self::F {
        let lanes = partial_mask(x.len());
        call!(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), lanes, x.as_ptr()))
    }
    #[inline(always)]
    fn store_partial(self, x: &mut [f32], v: Self::F) {
        let lanes = partial_mask(x.len());
        call!(_mm512_mask_storeu_ps(x.as_mut_ptr(), lanes, v))
    }
    #[inline(always)]
    fn to_array_i(self, v: Self::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        call!(_mm512_storeu_si512(lanes.as_mut_ptr().cast(), v));
        lanes
    }
    #[inline(always)]
    fn load_i(self, x: &[i32]) -> Self::I {
        call!(_mm512_loadu_si512(x[..LANES].as_ptr().cast()))
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 4 * LANES]) -> Self::I {
        call!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I {
        call!(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::I {
        call!(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        call!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        self.from_bits(self.shl_i(call!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()))), 16))
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> Self::F {
        call!(_mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(x))))
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> Self::F {
        // SAFETY: the caller promises 16 readable f32.
        unsafe { _mm512_loadu_ps(x) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: Self::F) {
        // SAFETY: the caller promises 16 writable f32.
        unsafe { _mm512_storeu_ps(x, v) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        call!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        call!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        call!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        self.from_bits(self.xor_i(self.to_bits(a), self.splat_i(i32::MIN)))
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        self.from_bits(self.and_i(self.to_bits(a), self.splat_i(i32::MAX)))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        call!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        call!(_mm512_roundscale_ps::<NEAREST>(a))
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        self.half_width().reduce_add(halves_of(self, v))
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        self.half_width().reduce_max(halves_of(self, v))
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        call!({
            let mut pairs = v;
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
            }
            let mut quads = v;
            for i in 0..4 {
                quads[4 * i] = _mm512_shuffle_ps::<0x44>(pairs[4 * i], pairs[4 * i + 2]);
                quads[4 * i + 1] = _mm512_shuffle_ps::<0xee>(pairs[4 * i], pairs[4 * i + 2]);
                quads[4 * i + 2] = _mm512_shuffle_ps::<0x44>(pairs[4 * i + 1], pairs[4 * i + 3]);
                quads[4 * i + 3] = _mm512_shuffle_ps::<0xee>(pairs[4 * i + 1], pairs[4 * i + 3]);
            }
            // quads[4 g + j], quarter q: rows 4 g .. 4 g + 4 of column 4 q + j.
            let mut out = v;
            for j in 0..4 {
                let low_even = _mm512_shuffle_f32x4::<0x88>(quads[j], quads[4 + j]);
                let low_odd = _mm512_shuffle_f32x4::<0xdd>(quads[j], quads[4 + j]);
                let high_even = _mm512_shuffle_f32x4::<0x88>(quads[8 + j], quads[12 + j]);
                let high_odd = _mm512_shuffle_f32x4::<0xdd>(quads[8 + j], quads[12 + j]);
                out[j] = _mm512_shuffle_f32x4::<0x88>(low_even, high_even);
                out[4 + j] = _mm512_shuffle_f32x4::<0x88>(low_odd, high_odd);
                out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low_even, high_even);
                out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(low_odd, high_odd);
            }
            out
        })
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        call!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        call!(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b))
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        call!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b))
    }
    #[inline(always)]
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M {
        call!(_mm512_cmplt_epi32_mask(a, b))
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_mask_blend_ps(m, b, a))
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        call!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn shl_i(self, a: Self::I, n: u32) -> Self::I {
        call!(_mm512_sllv_epi32(a, self.splat_i(n as i32)))
    }
    #[inline(always)]
    fn shr_i(self, a: Self::I, n: u32) -> Self::I {
        call!(_mm512_srlv_epi32(a, self.splat_i(n as i32)))
    }
    #[inline(always)]
    fn sar_i(self, a: Self::I, n: u32) -> Self::I {
        call!(_mm512_srav_epi32(a, self.splat_i(n as i32)))
    }
    #[inline(always)]
    fn to_i(self, a: Self::F) -> Self::I {
        call!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        call!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        call!(_mm512_castps_si512(a))
    }
    #[inline(always)]
    fn from_bits(self, a: Self::I) -> Self::F {
        call!(_mm512_castsi512_ps(a))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; LANES], a: Self::I) -> Self::F {
        call!(_mm512_permutexvar_ps(a, self.load(table))) // reads four bits of the index
    }
}

impl Avx512 {
    /// AVX2 is part of this level.
    #[inline(always)]
    fn half_width(self) -> Avx2 {
        Avx2(())
    }
}

/// The first `min(n, 16)` lanes.
#[inline(always)]
fn partial_mask(n: usize) -> __mmask16 {
    ((1u32 << n.min(LANES)) - 1) as __mmask16
}

/// Lanes 0 .. 8 and 8 .. 16; the token says that AVX-512 is there.
#[inline(always)]
fn halves_of(_: Avx512, v: __m512) -> [__m256; 2] {
    call!([_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v))),])
}
