//! Panels to f32, sixteen rows at once: what [`super::blocks`] says, for the products.
//!
//! A panel's bytes of sixteen blocks lie field by field (see [`super::interleave_panel`]), so that the field at place p of
//! a block is at 16 p of the group, a lane a row.

use super::{Storage, blocks, blockwise};
use crate::simd::{LANES, Simd};

/// A way to read panels sixteen columns at a time, as [`super::dequantize_row`] reads rows one number at a time.
pub(crate) trait Decode: Copy + Send + Sync {
    /// Hands the sixteen rows' weights of columns l .. l + 16 (fewer at the panel's end) to `column`, as (column - l,
    /// weights), ascending; `l` is a multiple of 16.
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, column: impl FnMut(usize, S::F));
}

/// Hands `$decode`, bound to the [`Decode`] of `$storage` with rows of `$k`, to the expression.
macro_rules! with_decode {
    ($storage:expr, $k:expr, $decode:ident => $e:expr) => {{
        use $crate::quant::{Storage, decode::*};
        macro_rules! with {
            ($d:expr) => {{
                let $decode = $d;
                $e
            }};
        }
        match $storage {
            Storage::F32 => with!(DecodeF32),
            Storage::F16 => with!(DecodeF16),
            Storage::Bf16 => with!(DecodeBf16),
            Storage::Q4_0 => with!(DecodeQ4_0),
            Storage::Q4_1 => with!(DecodeQ4_1),
            Storage::Q5_0 => with!(DecodeQ5_0),
            Storage::Q5_1 => with!(DecodeQ5_1),
            Storage::Q8_0 => with!(DecodeQ8_0),
            Storage::Q2K => with!(DecodeQ2K),
            Storage::Q3K => with!(DecodeQ3K),
            Storage::Q4K => with!(DecodeQ4K),
            Storage::Q5K => with!(DecodeQ5K),
            Storage::Q6K => with!(DecodeQ6K),
            Storage::Iq4Nl => with!(DecodeIq4Nl),
            Storage::Iq4Xs => with!(DecodeIq4Xs),
            Storage::Nf4 | Storage::Fp4 => with!(DecodeDouble::new($storage, $k)),
            Storage::Nf4Plain | Storage::Fp4Plain => with!(DecodePlain::new($storage)),
            Storage::Int8 => with!(DecodeInt8),
        }
    }};
}
pub(crate) use with_decode;

macro_rules! units {
    ($($decode:ident $storage:ident)*) => {$(
        #[doc = concat!("[`Storage::", stringify!($storage), "`].")]
        #[derive(Clone, Copy)]
        pub(crate) struct $decode;
    )*};
}
units! {
    DecodeF32 F32  DecodeF16 F16  DecodeBf16 Bf16
    DecodeQ4_0 Q4_0  DecodeQ4_1 Q4_1  DecodeQ5_0 Q5_0  DecodeQ5_1 Q5_1  DecodeQ8_0 Q8_0
    DecodeQ2K Q2K  DecodeQ3K Q3K  DecodeQ4K Q4K  DecodeQ5K Q5K  DecodeQ6K Q6K
    DecodeIq4Nl Iq4Nl  DecodeIq4Xs Iq4Xs  DecodeInt8 Int8
}

/// [`Storage::Nf4`] and [`Storage::Fp4`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeDouble {
    codes: &'static [f32; 16],
    /// Bytes of the sixteen headers.
    headers: usize,
}

/// [`Storage::Nf4Plain`] and [`Storage::Fp4Plain`].
#[derive(Clone, Copy)]
pub(crate) struct DecodePlain {
    codes: &'static [f32; 16],
}

impl DecodeDouble {
    pub(crate) fn new(storage: Storage, k: usize) -> Self {
        DecodeDouble { codes: blockwise::codes(storage), headers: LANES * storage.header_bytes(k) }
    }
}

impl DecodePlain {
    pub(crate) fn new(storage: Storage) -> Self {
        DecodePlain { codes: blockwise::codes(storage) }
    }
}

/// `N` bytes from `at` on.
#[inline(always)]
fn bytes<const N: usize>(group: &[u8], at: usize) -> &[u8; N] {
    group[at..].first_chunk().expect("whole groups")
}

/// The word at place `at` of sixteen blocks.
#[inline(always)]
pub(super) fn word<S: Simd>(s: S, group: &[u8], at: usize) -> S::I {
    s.load_words(bytes(group, LANES * at))
}

/// The f16 at place `at` of sixteen blocks.
#[inline(always)]
pub(super) fn half<S: Simd>(s: S, group: &[u8], at: usize) -> S::F {
    s.load_f16(bytes(group, LANES * at))
}

/// The group of sixteen blocks of `LEN` weights and `SIZE` bytes that column `l` lies in.
#[inline(always)]
pub(super) fn group<const LEN: usize, const SIZE: usize>(panel: &[u8], l: usize) -> &[u8] {
    &panel[l / LEN * LANES * SIZE..][..LANES * SIZE]
}

/// Sixteen columns, of which `word` gives the codes of four at a time, a byte each without sign: hands each code as f32 to
/// `column`.
#[inline(always)]
fn codes<S: Simd>(s: S, word: impl Fn(usize) -> S::I, mut column: impl FnMut(usize, S::F)) {
    for j in 0..4 {
        let word = word(j);
        for t in 0..4 {
            column(4 * j + t, s.to_f(s.and_i(s.shr_i(word, 8 * t as u32), s.splat_i(255))));
        }
    }
}

/// The low nibbles of a word's bytes, or the high ones.
#[inline(always)]
pub(super) fn nibbles<S: Simd>(s: S, word: S::I, high: bool) -> S::I {
    let word = if high { s.shr_i(word, 4) } else { word };
    s.and_i(word, s.splat_i(0x0f0f_0f0f))
}

/// Byte `t` of a word, as f32 without sign.
#[inline(always)]
fn byte<S: Simd>(s: S, word: S::I, t: usize) -> S::I {
    s.and_i(s.shr_i(word, 8 * t as u32), s.splat_i(255))
}

/// Byte `t` of a word, with its sign.
#[inline(always)]
fn signed_byte<S: Simd>(s: S, word: S::I, t: usize) -> S::I {
    s.sar_i(s.shl_i(word, 24 - 8 * t as u32), 24)
}

impl Decode for DecodeF32 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        for (i, numbers) in panel[l * 64..].as_chunks().0.iter().take(LANES).enumerate() {
            column(i, s.from_bits(s.load_words(numbers)));
        }
    }
}

impl Decode for DecodeF16 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        for (i, numbers) in panel[l * 32..].as_chunks().0.iter().take(LANES).enumerate() {
            column(i, s.load_f16(numbers));
        }
    }
}

impl Decode for DecodeBf16 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        for (i, numbers) in panel[l * 32..].as_chunks().0.iter().take(LANES).enumerate() {
            column(i, s.load_bf16(numbers));
        }
    }
}

impl Decode for DecodeQ4_0 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<32, 18>(panel, l);
        let (d, eight, high) = (half(s, group, 0), s.splat(8.0), l & 16 > 0);
        codes(s, |j| nibbles(s, word(s, group, 2 + 4 * j), high), |i, q| column(i, s.mul(s.sub(q, eight), d)));
    }
}

impl Decode for DecodeQ4_1 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<32, 20>(panel, l);
        let (d, m, high) = (half(s, group, 0), half(s, group, 2), l & 16 > 0);
        codes(s, |j| nibbles(s, word(s, group, 4 + 4 * j), high), |i, q| column(i, s.add(s.mul(q, d), m)));
    }
}

/// The five-bit codes of four columns in a word: nibbles, and bits `4 j ..` of the sixteen fifth bits.
#[inline(always)]
pub(super) fn fifth_bits<S: Simd>(s: S, nibbles: S::I, fifth: S::I, j: usize) -> S::I {
    // Four neighbouring bits go to bit 4 of a byte each.
    let four = s.and_i(s.shr_i(fifth, 4 * j as u32), s.splat_i(15));
    let spread = s.and_i(s.mul_i(four, s.splat_i(0x0020_4081)), s.splat_i(0x0101_0101));
    s.or_i(nibbles, s.shl_i(spread, 4))
}

impl Decode for DecodeQ5_0 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<32, 22>(panel, l);
        let (d, sixteen, high) = (half(s, group, 0), s.splat(16.0), l & 16 > 0);
        let fifth = s.shr_i(word(s, group, 2), (l & 16) as u32);
        let code = |j: usize| fifth_bits(s, nibbles(s, word(s, group, 6 + 4 * j), high), fifth, j);
        codes(s, code, |i, q| column(i, s.mul(s.sub(q, sixteen), d)));
    }
}

impl Decode for DecodeQ5_1 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<32, 24>(panel, l);
        let (d, m, high) = (half(s, group, 0), half(s, group, 2), l & 16 > 0);
        let fifth = s.shr_i(word(s, group, 4), (l & 16) as u32);
        let code = |j: usize| fifth_bits(s, nibbles(s, word(s, group, 8 + 4 * j), high), fifth, j);
        codes(s, code, |i, q| column(i, s.add(s.mul(q, d), m)));
    }
}

impl Decode for DecodeQ8_0 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<32, 34>(panel, l);
        let d = half(s, group, 0);
        for j in 0..4 {
            let word = word(s, group, 2 + (l & 16) + 4 * j);
            for t in 0..4 {
                column(4 * j + t, s.mul(s.to_f(signed_byte(s, word, t)), d));
            }
        }
    }
}

/// Two bits of each byte of a word, from bit 2 `pair` on.
#[inline(always)]
pub(super) fn two_bits<S: Simd>(s: S, word: S::I, pair: usize) -> S::I {
    s.and_i(s.shr_i(word, 2 * pair as u32), s.splat_i(0x0303_0303))
}

/// Bit `bit` of each byte of a word, at bit `to` of the byte.
#[inline(always)]
pub(super) fn one_bit<S: Simd>(s: S, word: S::I, bit: usize, to: u32) -> S::I {
    s.shl_i(s.and_i(s.shr_i(word, bit as u32), s.splat_i(0x0101_0101)), to)
}

impl Decode for DecodeQ2K {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<256, 84>(panel, l);
        let (sub, pair, low) = (l % 256 / 16, l % 128 / 32, 16 + l % 256 / 128 * 32 + l % 32);
        let both = byte(s, word(s, group, sub / 4 * 4), sub % 4);
        let d = s.mul(half(s, group, 80), s.to_f(s.and_i(both, s.splat_i(15))));
        let m = s.mul(half(s, group, 82), s.to_f(s.shr_i(both, 4)));
        codes(s, |j| two_bits(s, word(s, group, low + 4 * j), pair), |i, q| column(i, s.sub(s.mul(q, d), m)));
    }
}

impl Decode for DecodeQ3K {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<256, 110>(panel, l);
        let (sub, pair, low) = (l % 256 / 16, l % 128 / 32, 32 + l % 256 / 128 * 32 + l % 32);
        let four = s.and_i(s.shr_i(byte(s, word(s, group, 96 + sub % 8 / 4 * 4), sub % 4), (sub / 8 * 4) as u32), s.splat_i(15));
        let two = s.and_i(s.shr_i(byte(s, word(s, group, 104), sub % 4), (sub / 4 * 2) as u32), s.splat_i(3));
        let scale = s.to_f(s.sub_i(s.or_i(four, s.shl_i(two, 4)), s.splat_i(32)));
        let (d, bias) = (s.mul(half(s, group, 108), scale), s.splat(4.0));
        let code = |j: usize| {
            let third = one_bit(s, word(s, group, l % 32 + 4 * j), l % 256 / 32, 2);
            s.or_i(two_bits(s, word(s, group, low + 4 * j), pair), third)
        };
        codes(s, code, |i, q| column(i, s.mul(s.sub(q, bias), d)));
    }
}

/// Scale and minimum of sub-block `sub` of Q4_K and Q5_K.
#[inline(always)]
pub(super) fn scale_and_minimum<S: Simd>(s: S, group: &[u8], sub: usize) -> (S::F, S::F) {
    let shift = 8 * (sub % 4) as u32;
    let (scales, minima) = (s.shr_i(word(s, group, 4), shift), s.shr_i(word(s, group, 8), shift));
    let (scale, minimum) = if sub < 4 {
        (s.and_i(scales, s.splat_i(63)), s.and_i(minima, s.splat_i(63)))
    } else {
        let (low, four, two) = (s.shr_i(word(s, group, 12), shift), s.splat_i(15), s.splat_i(48));
        let scale = s.or_i(s.and_i(low, four), s.and_i(s.shr_i(scales, 2), two));
        (scale, s.or_i(s.and_i(s.shr_i(low, 4), four), s.and_i(s.shr_i(minima, 2), two)))
    };
    (s.mul(half(s, group, 0), s.to_f(scale)), s.mul(half(s, group, 2), s.to_f(minimum)))
}

impl Decode for DecodeQ4K {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<256, 144>(panel, l);
        let (sub, low) = (l % 256 / 32, 16 + l % 256 / 64 * 32 + l % 32);
        let (d, m) = scale_and_minimum(s, group, sub);
        codes(s, |j| nibbles(s, word(s, group, low + 4 * j), sub % 2 > 0), |i, q| column(i, s.sub(s.mul(q, d), m)));
    }
}

impl Decode for DecodeQ5K {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<256, 176>(panel, l);
        let (sub, low) = (l % 256 / 32, 48 + l % 256 / 64 * 32 + l % 32);
        let (d, m) = scale_and_minimum(s, group, sub);
        let code = |j: usize| {
            let fifth = one_bit(s, word(s, group, 16 + l % 32 + 4 * j), sub, 4);
            s.or_i(nibbles(s, word(s, group, low + 4 * j), sub % 2 > 0), fifth)
        };
        codes(s, code, |i, q| column(i, s.sub(s.mul(q, d), m)));
    }
}

impl Decode for DecodeQ6K {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group = group::<256, 210>(panel, l);
        let (sub, part, quarter) = (l % 256 / 16, l % 256 / 128, l % 128 / 32);
        let (low, high) = (64 * part + quarter % 2 * 32 + l % 32, 128 + 32 * part + l % 32);
        let scale = s.to_f(signed_byte(s, word(s, group, 192 + sub / 4 * 4), sub % 4));
        let (d, bias) = (s.mul(half(s, group, 208), scale), s.splat(32.0));
        let code = |j: usize| {
            let top = two_bits(s, word(s, group, high + 4 * j), quarter);
            s.or_i(nibbles(s, word(s, group, low + 4 * j), quarter > 1), s.shl_i(top, 4))
        };
        codes(s, code, |i, q| column(i, s.mul(s.sub(q, bias), d)));
    }
}

/// Sixteen columns with codes in the low four bits of bytes, in ggml's order: `table[code] · d`.
#[inline(always)]
fn looked_up<S: Simd>(s: S, group: &[u8], at: usize, high: bool, d: S::F, mut column: impl FnMut(usize, S::F)) {
    for j in 0..4 {
        let word = word(s, group, at + 4 * j);
        let word = if high { s.shr_i(word, 4) } else { word };
        for t in 0..4 {
            column(4 * j + t, s.mul(s.lookup(&blocks::IQ4, s.shr_i(word, 8 * t as u32)), d));
        }
    }
}

impl Decode for DecodeIq4Nl {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, column: impl FnMut(usize, S::F)) {
        let group = group::<32, 18>(panel, l);
        looked_up(s, group, 2, l & 16 > 0, half(s, group, 0), column);
    }
}

impl Decode for DecodeIq4Xs {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, column: impl FnMut(usize, S::F)) {
        let group = group::<256, 136>(panel, l);
        let sub = l % 256 / 32;
        // Sixteen bits are loaded as bfloat16 loads them: into the upper half.
        let two = s.shr_i(s.to_bits(s.load_bf16(bytes(group, LANES * 2))), (16 + 2 * sub) as u32);
        let four = s.shr_i(word(s, group, 4), (sub * 4) as u32);
        let scale = s.or_i(s.and_i(four, s.splat_i(15)), s.shl_i(s.and_i(two, s.splat_i(3)), 4));
        let d = s.mul(half(s, group, 0), s.to_f(s.sub_i(scale, s.splat_i(32))));
        looked_up(s, group, 8 + 16 * sub, l & 16 > 0, d, column);
    }
}

/// Sixteen columns with codes in bitsandbytes' order, eight a word from place `at` on: `table[code] · scale`.
#[inline(always)]
fn paired<S: Simd>(s: S, table: &[f32; 16], group: &[u8], at: usize, scale: S::F, mut column: impl FnMut(usize, S::F)) {
    for j in 0..2 {
        let word = word(s, group, at + 4 * j);
        for t in 0..8 {
            // Of each byte the high nibble comes first.
            column(8 * j + t, s.mul(s.lookup(table, s.shr_i(word, 4 * (t ^ 1) as u32)), scale));
        }
    }
}

impl Decode for DecodePlain {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, column: impl FnMut(usize, S::F)) {
        let group = group::<64, 36>(panel, l);
        let scale = s.from_bits(word(s, group, 0));
        paired(s, self.codes, group, 4 + l % 64 / 2, scale, column);
    }
}

impl Decode for DecodeDouble {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, column: impl FnMut(usize, S::F)) {
        let (headers, groups) = panel.split_at(self.headers);
        let group = group::<64, 33>(groups, l);
        let block = l / blockwise::BLOCK;
        // A row's groups of 256 blocks change at most once within 256 blocks.
        let (place, within) = (block / blockwise::NESTED, block % blockwise::NESTED);
        let before = s.from_bits(word(s, headers, 4 * (2 + place)));
        let after = s.from_bits(word(s, headers, 4 * (3 + place)));
        let nested = s.select(s.lt_i(s.splat_i(within as i32), word(s, headers, 4)), before, after);
        let codes: &[u8; LANES] = bytes(group, 0);
        let scales: [f32; LANES] = std::array::from_fn(|lane| blockwise::DYNAMIC[usize::from(codes[lane])]);
        let scale = s.add(s.mul(s.load(&scales), nested), s.from_bits(word(s, headers, 0)));
        paired(s, self.codes, group, 1 + l % 64 / 2, scale, column);
    }
}

impl Decode for DecodeInt8 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let (scale, unit) = (s.from_bits(word(s, panel, 0)), s.splat(blockwise::INT8_UNIT));
        let group = group::<16, 16>(&panel[4 * LANES..], l);
        for j in 0..4 {
            let word = word(s, group, 4 * j);
            for t in 0..4 {
                column(4 * j + t, s.mul(s.mul(s.to_f(signed_byte(s, word, t)), scale), unit));
            }
        }
    }
}
