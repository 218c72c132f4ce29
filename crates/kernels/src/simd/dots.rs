//! Dot products of bytes in 32-bit lanes: exact integer sums, so that every level gives the same bits by nature.
//!
//! They have a token of their own beside the level's, because VNNI is not part of every AVX-512: a machine of that
//! level without it runs such kernels at the level below.
#![expect(unsafe_code, reason = "intrinsics")]

use super::{Level, Portable, Simd};

/// Four products of bytes a lane, summed into the lane. Values are tokens, as those of [`Simd`] are.
pub trait Dots<S: Simd>: Copy {
    /// What [`Dots::signed`] adds to each byte of its first operand.
    const BIAS: i32;
    /// Whether the registers hold the words of a block, and sums of eight rows beside them.
    const MANY: bool;

    /// `sum + Σ w x` over the lane's four bytes; those of `w` are 0 to 127, those of `x` signed, -127 to 127.
    fn unsigned(self, s: S, sum: S::I, w: S::I, x: S::I) -> S::I;
    /// `sum + Σ (w + BIAS) x` over the lane's four bytes; those of `w` are signed, those of `x` signed, -127 to 127.
    fn signed(self, s: S, sum: S::I, w: S::I, x: S::I) -> S::I;
}

/// An operation over a level and its dot products; `run` is to be `#[inline(always)]` as in [`super::WithSimd`].
pub trait WithDots {
    /// What the operation returns.
    type Output;
    /// The operation's body.
    fn run<S: Simd, D: Dots<S>>(self, s: S, dots: D) -> Self::Output;
}

impl Level {
    /// Runs `op` compiled for this level and its dot products of bytes; AVX-512 without VNNI counts as AVX2.
    #[inline]
    pub fn dispatch_dots<O: WithDots>(self, op: O) -> O::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => match x86::Vnni::new() {
                Some((s, dots)) => x86::vectorize_vnni(s, dots, op),
                None => Level::Avx2.dispatch_dots(op),
            },
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::vectorize_pairs(super::Avx2::new().expect("this machine has AVX2"), op),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => self.dispatch(ByMultiplying(op)),
            _ => op.run(Portable, Multiplied),
        }
    }
}

/// Products of whole lanes, a byte after the other: for every level, and slow.
#[derive(Clone, Copy, Debug)]
pub struct Multiplied;

impl<S: Simd> Dots<S> for Multiplied {
    const BIAS: i32 = 0;
    const MANY: bool = false;

    #[inline(always)]
    fn unsigned(self, s: S, sum: S::I, w: S::I, x: S::I) -> S::I {
        self.signed(s, sum, w, x)
    }
    #[inline(always)]
    fn signed(self, s: S, mut sum: S::I, w: S::I, x: S::I) -> S::I {
        for byte in 0..4 {
            let (w, x) = (s.shl_i(w, 24 - 8 * byte), s.shl_i(x, 24 - 8 * byte));
            sum = s.add_i(sum, s.mul_i(s.sar_i(w, 24), s.sar_i(x, 24)));
        }
        sum
    }
}

/// Runs with [`Multiplied`] whatever the level is.
#[cfg(target_arch = "aarch64")]
struct ByMultiplying<O>(O);

#[cfg(target_arch = "aarch64")]
impl<O: WithDots> super::WithSimd for ByMultiplying<O> {
    type Output = O::Output;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> O::Output {
        self.0.run(s, Multiplied)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::{Avx2, Avx512};
    use super::{Dots, Simd, WithDots};
    use std::arch::x86_64::*;

    /// Products of bytes in pairs (AVX2).
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Pairs;

    #[target_feature(enable = "avx2,fma,f16c")]
    fn run_pairs<O: WithDots>(s: Avx2, op: O) -> O::Output {
        op.run(s, Pairs)
    }

    #[inline]
    pub(super) fn vectorize_pairs<O: WithDots>(s: Avx2, op: O) -> O::Output {
        // SAFETY: the token exists only where the instructions were detected.
        unsafe { run_pairs(s, op) }
    }

    /// `sum` + the products of `w` without sign and `x` with sign, no pair of which may leave 16 bits.
    #[inline(always)]
    fn in_pairs(_: Avx2, sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token exists only where AVX2 was detected.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1))) }
    }

    impl Dots<Avx2> for Pairs {
        const BIAS: i32 = 0;
        const MANY: bool = false;

        #[inline(always)]
        fn unsigned(self, s: Avx2, sum: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
            // A pair is at most 2 · 127 · 127.
            [in_pairs(s, sum[0], w[0], x[0]), in_pairs(s, sum[1], w[1], x[1])]
        }
        #[inline(always)]
        fn signed(self, s: Avx2, sum: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
            // |w| (x with the sign of w): a pair is at most 2 · 128 · 127.
            // SAFETY: the token exists only where AVX2 was detected.
            unsafe {
                let x = [_mm256_sign_epi8(x[0], w[0]), _mm256_sign_epi8(x[1], w[1])];
                [in_pairs(s, sum[0], _mm256_abs_epi8(w[0]), x[0]), in_pairs(s, sum[1], _mm256_abs_epi8(w[1]), x[1])]
            }
        }
    }

    /// Token of AVX-512 with VNNI.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Vnni(());

    impl Vnni {
        /// The tokens, where the machine has both.
        #[inline]
        pub(super) fn new() -> Option<(Avx512, Vnni)> {
            (is_x86_feature_detected!("avx512vnni")).then(Avx512::new).flatten().map(|s| (s, Vnni(())))
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni,avx2,fma,f16c")]
    fn run_vnni<O: WithDots>(s: Avx512, dots: Vnni, op: O) -> O::Output {
        op.run(s, dots)
    }

    #[inline]
    pub(super) fn vectorize_vnni<O: WithDots>(s: Avx512, dots: Vnni, op: O) -> O::Output {
        // SAFETY: both tokens exist only where the instructions were detected.
        unsafe { run_vnni(s, dots, op) }
    }

    impl Dots<Avx512> for Vnni {
        const BIAS: i32 = 128;
        const MANY: bool = true;

        #[inline(always)]
        fn unsigned(self, _: Avx512, sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
            // SAFETY: `self` exists only where VNNI was detected.
            unsafe { _mm512_dpbusd_epi32(sum, w, x) }
        }
        #[inline(always)]
        fn signed(self, s: Avx512, sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
            // The sign bit flipped, a byte counts 128 more.
            self.unsigned(s, sum, s.xor_i(w, s.splat_i(0x8080_8080_u32 as i32)), x)
        }
    }
}
