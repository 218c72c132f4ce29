//! Sixteen virtual lanes of f32 at every level of the machine: kernels are written once over [`Simd`] and give
//! the same bits on portable, AVX2, AVX-512 and NEON code.
//!
//! Only operations that IEEE 754 rounds correctly are offered (no reciprocal approximations), Rust never contracts
//! or reassociates, and sums across lanes follow one fixed tree; so a level is a matter of speed alone. (A NaN is a
//! NaN at every level; which NaN is not promised.)
//!
//! A kernel is an operation that implements [`WithSimd`]; [`Level::dispatch`] runs it compiled for that level:
//!
//! ```
//! use kernels::simd::{Level, Simd, WithSimd, LANES};
//! struct Scale<'a> { x: &'a mut [f32], factor: f32 }
//! impl WithSimd for Scale<'_> {
//!     type Output = ();
//!     #[inline(always)] // or the body would not be compiled for the level
//!     fn run<S: Simd>(self, s: S) {
//!         let factor = s.splat(self.factor);
//!         let mut chunks = self.x.chunks_exact_mut(LANES);
//!         for x in &mut chunks { s.store(x, s.mul(s.load(x), factor)); }
//!         let x = chunks.into_remainder();
//!         s.store_partial(x, s.mul(s.load_partial(x, 0.0), factor));
//!     }
//! }
//! let mut x = vec![1.0; 21];
//! Level::detect().dispatch(Scale { x: &mut x, factor: 3.0 });
//! assert_eq!(x, vec![3.0; 21]);
//! ```
//!
//! Threads go around a dispatch, never inside it: closures handed to rayon are compiled without the level.
//!
//! This is the only module of the crate with `unsafe`: intrinsics behind the tokens of their level, the
//! micro-kernel of the matrix product ([`microkernel`]), and the disjoint tiles of one output matrix ([`disjoint`]).

pub mod disjoint;
pub mod dots;
pub mod microkernel;
mod portable;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Lanes of every vector, whatever the level.
pub const LANES: usize = 16;

/// Which instructions the kernels use. The bits they compute do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Plain Rust; the oracle of the others, and slow.
    Portable,
    /// x86-64 with AVX2, FMA and F16C: a vector is two registers.
    Avx2,
    /// x86-64 with AVX-512F: a vector is one register.
    Avx512,
    /// AArch64: a vector is four registers.
    Neon,
}

impl Level {
    /// The fastest level of this machine.
    pub fn detect() -> Level {
        Level::available()[0]
    }

    /// The levels of this machine, fastest first; the last is [`Level::Portable`].
    pub fn available() -> &'static [Level] {
        #[cfg(target_arch = "x86_64")]
        {
            if Avx512::new().is_some() {
                return &[Level::Avx512, Level::Avx2, Level::Portable];
            }
            if Avx2::new().is_some() {
                return &[Level::Avx2, Level::Portable];
            }
        }
        #[cfg(target_arch = "aarch64")]
        return &[Level::Neon, Level::Portable];
        #[allow(unreachable_code)]
        &[Level::Portable]
    }

    /// Runs `op` compiled for this level, which must be one of [`Level::available`].
    #[inline]
    pub fn dispatch<O: WithSimd>(self, op: O) -> O::Output {
        match self {
            Level::Portable => Portable.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::new().expect("this machine has AVX2").vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::new().expect("this machine has AVX-512").vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::new().vectorize(op),
            #[allow(unreachable_patterns)]
            _ => panic!("{self:?} is not a level of this architecture"),
        }
    }
}

/// An operation written once for all levels. `run` must be `#[inline(always)]`, and so must everything generic
/// over [`Simd`] that it calls: code that is not inlined is not compiled for the level.
pub trait WithSimd {
    /// What the operation returns.
    type Output;
    /// The operation's body.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Sixteen lanes of f32 or i32. Values of the implementing types are tokens: they exist only where the machine has
/// the instructions.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sixteen truth values.
    type M: Copy;
    /// The level that this token stands for.
    const LEVEL: Level;

    /// Runs `op` in a function compiled for this level.
    fn vectorize<O: WithSimd>(self, op: O) -> O::Output;

    // ---- memory ------------------------------------------------------------------------------
    /// The first 16 elements of `x`, which has at least that many.
    fn load(self, x: &[f32]) -> Self::F;
    /// Writes the first 16 elements of `x`, which has at least that many.
    fn store(self, x: &mut [f32], v: Self::F);
    /// The first `min(16, x.len())` elements of `x`; `fill` in the lanes after them.
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> Self::F {
        let mut lanes = [fill; LANES];
        let n = x.len().min(LANES);
        lanes[..n].copy_from_slice(&x[..n]);
        self.load(&lanes)
    }
    /// Writes the first `min(16, x.len())` elements of `x`.
    #[inline(always)]
    fn store_partial(self, x: &mut [f32], v: Self::F) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, v);
        let n = x.len().min(LANES);
        x[..n].copy_from_slice(&lanes[..n]);
    }
    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self, v: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, v);
        lanes
    }
    /// The lanes as an array.
    fn to_array_i(self, v: Self::I) -> [i32; LANES];
    /// The first 16 elements of `x`, which has at least that many.
    fn load_i(self, x: &[i32]) -> Self::I;
    /// 16 little-endian i32.
    fn load_words(self, x: &[u8; 4 * LANES]) -> Self::I;
    /// 16 bytes widened without sign.
    fn load_u8(self, x: &[u8; LANES]) -> Self::I;
    /// 16 bytes widened with sign.
    fn load_i8(self, x: &[u8; LANES]) -> Self::I;
    /// 16 little-endian half-precision numbers, exactly.
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F;
    /// 16 little-endian bfloat16 numbers, exactly.
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F;
    /// The little-endian half-precision number `x` in every lane.
    fn splat_f16(self, x: [u8; 2]) -> Self::F;
    /// The first 16 elements at `x`.
    ///
    /// # Safety
    /// `x` must be valid for reads of 16 f32.
    #[expect(unsafe_code, reason = "micro-kernels check their bounds once, at entry")]
    unsafe fn load_ptr(self, x: *const f32) -> Self::F;
    /// Writes 16 elements at `x`.
    ///
    /// # Safety
    /// `x` must be valid for writes of 16 f32.
    #[expect(unsafe_code, reason = "micro-kernels check their bounds once, at entry")]
    unsafe fn store_ptr(self, x: *mut f32, v: Self::F);

    // ---- f32 ---------------------------------------------------------------------------------
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// a + b.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a - b.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// c - a * b, rounded once.
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Sign flipped (of NaN and zero too).
    fn neg(self, a: Self::F) -> Self::F;
    /// Sign cleared.
    fn abs(self, a: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: `b` where either is NaN or both are zero.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: `b` where either is NaN or both are zero.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// ((v0+v8)+(v4+v12)) + … : lanes i and i+8, then i and i+4, i+2, i+1.
    fn reduce_add(self, v: Self::F) -> f32;
    /// Maximum over the lanes by the same tree, with [`Simd::max`].
    fn reduce_max(self, v: Self::F) -> f32;
    /// Row i of the result is column i of `v`.
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES];

    // ---- comparison --------------------------------------------------------------------------
    /// a < b; false with NaN.
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// a <= b; false with NaN.
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    /// a == b; false with NaN, so `eq(a, a)` tells the numbers.
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// a < b, signed.
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M;
    /// `a` where `m`, else `b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    // ---- i32 ---------------------------------------------------------------------------------
    /// `x` in every lane.
    fn splat_i(self, x: i32) -> Self::I;
    /// Wrapping a + b.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping a - b.
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Low 32 bits of a * b.
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// a & b.
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// a | b.
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// a ^ b.
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// a << n, n < 32.
    fn shl_i(self, a: Self::I, n: u32) -> Self::I;
    /// a >> n with zeros shifted in, n < 32.
    fn shr_i(self, a: Self::I, n: u32) -> Self::I;
    /// a >> n with the sign shifted in, n < 32.
    fn sar_i(self, a: Self::I, n: u32) -> Self::I;
    /// The nearest integer, ties to even; the lanes must lie in -2^31 .. 2^31.
    fn to_i(self, a: Self::F) -> Self::I;
    /// The nearest f32, ties to even.
    fn to_f(self, a: Self::I) -> Self::F;
    /// The bits of the lanes.
    fn to_bits(self, a: Self::F) -> Self::I;
    /// Lanes from their bits.
    #[expect(clippy::wrong_self_convention, reason = "the token is no receiver")]
    fn from_bits(self, a: Self::I) -> Self::F;
    /// `table[a & 15]`.
    fn lookup(self, table: &[f32; LANES], a: Self::I) -> Self::F;

    /// The largest tile that the registers of this level hold in the matrix product: rows of `a`.
    const TILE_ROWS: usize;
    /// The same: panels (16 columns each) of `b`.
    const TILE_PANELS: usize;
}
