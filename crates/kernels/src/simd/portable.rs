//! The level without instructions of its own: plain Rust, and the meaning of all the others.

use super::{LANES, Level, Simd, WithSimd};
use std::array::from_fn;

/// Token of [`Level::Portable`]; always there.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[expect(unsafe_code, reason = "load_ptr and store_ptr")]
impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type M = [bool; LANES];
    const LEVEL: Level = Level::Portable;
    const TILE_ROWS: usize = 4;
    const TILE_PANELS: usize = 1;

    #[inline]
    fn vectorize<O: WithSimd>(self, op: O) -> O::Output {
        op.run(self)
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        x[..LANES].try_into().expect("16 lanes")
    }
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::F) {
        x[..LANES].copy_from_slice(&v);
    }
    #[inline(always)]
    fn to_array_i(self, v: Self::I) -> [i32; LANES] {
        v
    }
    #[inline(always)]
    fn load_i(self, x: &[i32]) -> Self::I {
        x[..LANES].try_into().expect("16 lanes")
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 4 * LANES]) -> Self::I {
        from_fn(|i| i32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I {
        from_fn(|i| i32::from(x[i]))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::I {
        from_fn(|i| i32::from(x[i] as i8))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        from_fn(|i| half::f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        from_fn(|i| f32::from_bits(u32::from(u16::from_le_bytes([x[2 * i], x[2 * i + 1]])) << 16))
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> Self::F {
        [half::f16::from_le_bytes(x).to_f32(); LANES]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> Self::F {
        // SAFETY: the caller promises 16 readable f32; arrays of f32 have the alignment of f32.
        unsafe { *x.cast() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: Self::F) {
        // SAFETY: the caller promises 16 writable f32; arrays of f32 have the alignment of f32.
        unsafe { *x.cast() = v }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        from_fn(|i| -a[i])
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        from_fn(|i| a[i].abs())
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        from_fn(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        from_fn(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        let v: [f32; 8] = from_fn(|i| v[i] + v[i + 8]);
        let v: [f32; 4] = from_fn(|i| v[i] + v[i + 4]);
        (v[0] + v[2]) + (v[1] + v[3])
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let v: [f32; 8] = from_fn(|i| max(v[i], v[i + 8]));
        let v: [f32; 4] = from_fn(|i| max(v[i], v[i + 4]));
        max(max(v[0], v[2]), max(v[1], v[3]))
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        from_fn(|i| from_fn(|j| v[j][i]))
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        from_fn(|i| a[i] <= b[i])
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        from_fn(|i| a[i] == b[i])
    }
    #[inline(always)]
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M {
        from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if m[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn shl_i(self, a: Self::I, n: u32) -> Self::I {
        from_fn(|i| a[i] << n)
    }
    #[inline(always)]
    fn shr_i(self, a: Self::I, n: u32) -> Self::I {
        from_fn(|i| ((a[i] as u32) >> n) as i32)
    }
    #[inline(always)]
    fn sar_i(self, a: Self::I, n: u32) -> Self::I {
        from_fn(|i| a[i] >> n)
    }
    #[inline(always)]
    fn to_i(self, a: Self::F) -> Self::I {
        from_fn(|i| a[i].round_ties_even() as i32)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        from_fn(|i| a[i] as f32)
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        from_fn(|i| a[i].to_bits() as i32)
    }
    #[inline(always)]
    fn from_bits(self, a: Self::I) -> Self::F {
        from_fn(|i| f32::from_bits(a[i] as u32))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; LANES], a: Self::I) -> Self::F {
        from_fn(|i| table[(a[i] & 15) as usize])
    }
}
