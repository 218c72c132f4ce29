//! Panels to integer codes, sixteen rows at once: the stored form as the integer products of [`crate::integer`] read it.
//!
//! A weight is (code - offset) · scale + minimum, with one scale and minimum for 32 columns, or for 16. What
//! [`super::decode`] makes of a block differs from this by rounding alone.

use super::Storage;
use super::decode::{fifth_bits, group, half, nibbles, one_bit, scale_and_minimum, two_bits, word};
use crate::simd::Simd;

/// A storage with integer codes. `l` is a multiple of 32, but where it is said otherwise.
pub(crate) trait Codes: Copy + Send + Sync {
    /// Codes are signed bytes; else they are 0 to 127.
    const SIGNED: bool = false;
    /// What is taken off each code.
    const OFFSET: i32 = 0;
    /// Scales are those of 16 columns.
    const HALVES: bool = false;
    /// There are minima.
    const MINIMA: bool = false;

    /// Of sixteen rows the codes of columns l .. l + 32, four a word, ascending.
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8];
    /// Scale, and what is added where there are minima, of the columns from `l` on, a multiple of 16.
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F);
}

/// Whether [`with_codes`] knows `storage`.
pub(crate) const fn has_codes(storage: Storage) -> bool {
    use Storage::*;
    matches!(storage, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K)
}

/// Hands `$codes`, bound to the [`Codes`] of `$storage`, to the expression.
macro_rules! with_codes {
    ($storage:expr, $codes:ident => $e:expr) => {{
        use $crate::quant::{Storage, codes::*};
        macro_rules! with {
            ($c:expr) => {{
                let $codes = $c;
                $e
            }};
        }
        match $storage {
            Storage::Q4_0 => with!(CodesQ4_0),
            Storage::Q4_1 => with!(CodesQ4_1),
            Storage::Q5_0 => with!(CodesQ5_0),
            Storage::Q5_1 => with!(CodesQ5_1),
            Storage::Q8_0 => with!(CodesQ8_0),
            Storage::Q2K => with!(CodesQ2K),
            Storage::Q3K => with!(CodesQ3K),
            Storage::Q4K => with!(CodesQ4K),
            Storage::Q5K => with!(CodesQ5K),
            Storage::Q6K => with!(CodesQ6K),
            other => unreachable!("{} has no integer codes", other.name()),
        }
    }};
}
pub(crate) use with_codes;

/// Eight words by their numbers. No closure: what is not inlined is not compiled for the level, see [`crate::simd`].
macro_rules! eight {
    ($j:ident => $word:expr) => {
        eight!(@ $j $word; 0 1 2 3 4 5 6 7)
    };
    (@ $j:ident $word:expr; $($value:literal)*) => {
        [$({
            let $j: usize = $value;
            $word
        }),*]
    };
}

/// Four words whose low nibbles are the first 16 columns and whose high ones the others; byte `at` is the first.
#[inline(always)]
fn two_nibbles<S: Simd>(s: S, group: &[u8], at: usize) -> [S::I; 8] {
    eight!(j => nibbles(s, word(s, group, at + j % 4 * 4), j > 3))
}

/// The same with fifth bits, 32 of them in the word at `fifth`.
#[inline(always)]
fn five_bits<S: Simd>(s: S, group: &[u8], at: usize, fifth: usize) -> [S::I; 8] {
    let fifth = word(s, group, fifth);
    eight!(j => fifth_bits(s, nibbles(s, word(s, group, at + j % 4 * 4), j > 3), fifth, j))
}

macro_rules! units {
    ($($codes:ident $storage:ident)*) => {$(
        #[doc = concat!("[`Storage::", stringify!($storage), "`].")]
        #[derive(Clone, Copy)]
        pub(crate) struct $codes;
    )*};
}
units! {
    CodesQ4_0 Q4_0  CodesQ4_1 Q4_1  CodesQ5_0 Q5_0  CodesQ5_1 Q5_1  CodesQ8_0 Q8_0
    CodesQ2K Q2K  CodesQ3K Q3K  CodesQ4K Q4K  CodesQ5K Q5K  CodesQ6K Q6K
}

impl Codes for CodesQ4_0 {
    const OFFSET: i32 = 8;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        two_nibbles(s, group::<32, 18>(panel, l), 2)
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        (half(s, group::<32, 18>(panel, l), 0), s.splat(0.0))
    }
}

impl Codes for CodesQ4_1 {
    const MINIMA: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        two_nibbles(s, group::<32, 20>(panel, l), 4)
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let group = group::<32, 20>(panel, l);
        (half(s, group, 0), half(s, group, 2))
    }
}

impl Codes for CodesQ5_0 {
    const OFFSET: i32 = 16;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        five_bits(s, group::<32, 22>(panel, l), 6, 2)
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        (half(s, group::<32, 22>(panel, l), 0), s.splat(0.0))
    }
}

impl Codes for CodesQ5_1 {
    const MINIMA: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        five_bits(s, group::<32, 24>(panel, l), 8, 4)
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let group = group::<32, 24>(panel, l);
        (half(s, group, 0), half(s, group, 2))
    }
}

impl Codes for CodesQ8_0 {
    const SIGNED: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        let group = group::<32, 34>(panel, l);
        eight!(j => word(s, group, 2 + 4 * j))
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        (half(s, group::<32, 34>(panel, l), 0), s.splat(0.0))
    }
}

impl Codes for CodesQ2K {
    const HALVES: bool = true;
    const MINIMA: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        let group = group::<256, 84>(panel, l);
        let (pair, low) = (l % 128 / 32, 16 + l % 256 / 128 * 32);
        eight!(j => two_bits(s, word(s, group, low + 4 * j), pair))
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let (group, sub) = (group::<256, 84>(panel, l), l % 256 / 16);
        let both = s.shr_i(word(s, group, sub / 4 * 4), 8 * (sub % 4) as u32);
        let (scale, minimum) = (s.and_i(both, s.splat_i(15)), s.and_i(s.shr_i(both, 4), s.splat_i(15)));
        (s.mul(half(s, group, 80), s.to_f(scale)), s.neg(s.mul(half(s, group, 82), s.to_f(minimum))))
    }
}

impl Codes for CodesQ3K {
    const OFFSET: i32 = 4;
    const HALVES: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        let group = group::<256, 110>(panel, l);
        let (pair, low) = (l % 128 / 32, 32 + l % 256 / 128 * 32);
        eight!(j => {
            let third = one_bit(s, word(s, group, 4 * j), l % 256 / 32, 2);
            s.or_i(two_bits(s, word(s, group, low + 4 * j), pair), third)
        })
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let (group, sub) = (group::<256, 110>(panel, l), l % 256 / 16);
        let (four, two) = (word(s, group, 96 + sub % 8 / 4 * 4), word(s, group, 104));
        let four = s.and_i(s.shr_i(four, (8 * (sub % 4) + sub / 8 * 4) as u32), s.splat_i(15));
        let two = s.and_i(s.shr_i(two, (8 * (sub % 4) + sub / 4 * 2) as u32), s.splat_i(3));
        let scale = s.to_f(s.sub_i(s.or_i(four, s.shl_i(two, 4)), s.splat_i(32)));
        (s.mul(half(s, group, 108), scale), s.splat(0.0))
    }
}

impl Codes for CodesQ4K {
    const MINIMA: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        let group = group::<256, 144>(panel, l);
        let low = 16 + l % 256 / 64 * 32;
        eight!(j => nibbles(s, word(s, group, low + 4 * j), l & 32 > 0))
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let (d, m) = scale_and_minimum(s, group::<256, 144>(panel, l), l % 256 / 32);
        (d, s.neg(m))
    }
}

impl Codes for CodesQ5K {
    const MINIMA: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        let group = group::<256, 176>(panel, l);
        let low = 48 + l % 256 / 64 * 32;
        eight!(j => {
            let fifth = one_bit(s, word(s, group, 16 + 4 * j), l % 256 / 32, 4);
            s.or_i(nibbles(s, word(s, group, low + 4 * j), l & 32 > 0), fifth)
        })
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let (d, m) = scale_and_minimum(s, group::<256, 176>(panel, l), l % 256 / 32);
        (d, s.neg(m))
    }
}

impl Codes for CodesQ6K {
    const OFFSET: i32 = 32;
    const HALVES: bool = true;
    #[inline(always)]
    fn words<S: Simd>(self, s: S, panel: &[u8], l: usize) -> [S::I; 8] {
        let group = group::<256, 210>(panel, l);
        let (part, quarter) = (l % 256 / 128, l % 128 / 32);
        let (low, high) = (64 * part + quarter % 2 * 32, 128 + 32 * part);
        eight!(j => {
            let top = two_bits(s, word(s, group, high + 4 * j), quarter);
            s.or_i(nibbles(s, word(s, group, low + 4 * j), quarter > 1), s.shl_i(top, 4))
        })
    }
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, panel: &[u8], l: usize) -> (S::F, S::F) {
        let (group, sub) = (group::<256, 210>(panel, l), l % 256 / 16);
        let scale = s.sar_i(s.shl_i(word(s, group, 192 + sub / 4 * 4), 24 - 8 * (sub % 4) as u32), 24);
        (s.mul(half(s, group, 208), s.to_f(scale)), s.splat(0.0))
    }
}
