//! How the numbers of a weight are stored, and their way to f32 and back: one row of the table per format.
//!
//! Block formats are GGUF's: 32 weights a block, little endian, bit-equal to gguf-py's dequantisation.

use crate::simd::{LANES, Simd};
use half::f16;

/// Storage of a weight's numbers (little endian; GGUF block layouts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 32 weights: f16 scale d, 16 bytes of nibbles q; weight = (q - 8) d. Low nibbles are the first 16.
    Q4_0,
    /// 32 weights: f16 scale d, f16 minimum m, 16 bytes of nibbles q; weight = q d + m, rounded twice.
    Q4_1,
    /// 32 weights: f16 scale d, 32 signed bytes q; weight = q d.
    Q8_0,
}

impl Storage {
    /// Every storage there is.
    pub const ALL: [Storage; 6] = [Storage::F32, Storage::F16, Storage::Bf16, Storage::Q4_0, Storage::Q4_1, Storage::Q8_0];

    /// (name, weights a block, bytes a block, bytes of f16 at its head; the rest is bytes in fours).
    const fn table(self) -> (&'static str, usize, usize, usize) {
        match self {
            Storage::F32 => ("f32", 1, 4, 0),
            Storage::F16 => ("f16", 1, 2, 2),
            Storage::Bf16 => ("bf16", 1, 2, 2),
            Storage::Q4_0 => ("q4_0", 32, 18, 2),
            Storage::Q4_1 => ("q4_1", 32, 20, 4),
            Storage::Q8_0 => ("q8_0", 32, 34, 2),
        }
    }

    /// The block's fields as (place, width): f16s, then words of four bytes.
    fn fields(self) -> impl Iterator<Item = (usize, usize)> {
        let (_, _, size, head) = self.table();
        (0..head).step_by(2).map(|at| (at, 2)).chain((head..size).step_by(4).map(|at| (at, 4)))
    }

    /// Lower-case name, as GGUF file types are written.
    pub const fn name(self) -> &'static str {
        self.table().0
    }

    /// Weights of one block; a row is whole blocks.
    pub const fn block_len(self) -> usize {
        self.table().1
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.table().2
    }

    /// Bytes of a `rows x cols` matrix; `None` where a row is not whole blocks or the size overflows.
    pub fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())?.checked_mul(rows)
    }
}

fn f16_at(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `out[cols]` = the numbers of one row stored in `bytes`.
pub fn dequantize_row(storage: Storage, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(storage.bytes(1, out.len()), Some(bytes.len()), "{} bytes for {} weights in {}", bytes.len(), out.len(), storage.name());
    let blocks = bytes.chunks_exact(storage.block_bytes()).zip(out.chunks_exact_mut(storage.block_len()));
    for (b, y) in blocks {
        match storage {
            Storage::F32 => y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Storage::F16 => y[0] = f16_at(b),
            Storage::Bf16 => y[0] = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16),
            Storage::Q4_0 => {
                let d = f16_at(b);
                for i in 0..16 {
                    y[i] = (f32::from(b[2 + i] & 15) - 8.0) * d;
                    y[16 + i] = (f32::from(b[2 + i] >> 4) - 8.0) * d;
                }
            }
            Storage::Q4_1 => {
                let (d, m) = (f16_at(b), f16_at(&b[2..]));
                for i in 0..16 {
                    y[i] = f32::from(b[4 + i] & 15) * d + m;
                    y[16 + i] = f32::from(b[4 + i] >> 4) * d + m;
                }
            }
            Storage::Q8_0 => {
                let d = f16_at(b);
                for i in 0..32 {
                    y[i] = f32::from(b[2 + i] as i8) * d;
                }
            }
        }
    }
}

/// bytes = one row of `x` in `storage`, rounded as ggml's reference quantisers round.
pub fn quantize_row(storage: Storage, x: &[f32], bytes: &mut [u8]) {
    assert_eq!(storage.bytes(1, x.len()), Some(bytes.len()), "{} bytes for {} weights in {}", bytes.len(), x.len(), storage.name());
    let blocks = x.chunks_exact(storage.block_len()).zip(bytes.chunks_exact_mut(storage.block_bytes()));
    for (x, b) in blocks {
        match storage {
            Storage::F32 => b.copy_from_slice(&x[0].to_le_bytes()),
            Storage::F16 => b.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
            Storage::Bf16 => b.copy_from_slice(&half::bf16::from_f32(x[0]).to_le_bytes()),
            Storage::Q4_0 => {
                // The element of largest size, with its sign, becomes -8.
                let peak = x.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
                let d = peak / -8.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                b[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
                let q = |v: f32| ((v * inverse + 8.5) as u8).min(15);
                for i in 0..16 {
                    b[2 + i] = q(x[i]) | q(x[16 + i]) << 4;
                }
            }
            Storage::Q4_1 => {
                let (min, max) = x.iter().fold((f32::MAX, f32::MIN), |(min, max), &v| (min.min(v), max.max(v)));
                let d = (max - min) / 15.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                b[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
                b[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
                let q = |v: f32| (((v - min) * inverse + 0.5) as u8).min(15);
                for i in 0..16 {
                    b[4 + i] = q(x[i]) | q(x[16 + i]) << 4;
                }
            }
            Storage::Q8_0 => {
                let peak = x.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
                let d = peak / 127.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                b[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
                for i in 0..32 {
                    b[2 + i] = (x[i] * inverse).round() as i8 as u8;
                }
            }
        }
    }
}

/// Panels: how a weight is held for the products. Sixteen rows lie side by side, block by block: of the sixteen blocks
/// at the same place, first every f16 of the head, sixteen at a time, then every 32-bit word of the rest, sixteen at
/// a time. So a vector of sixteen rows loads at once, and not a byte is added but the padding to whole panels.
///
/// `rows[16]`[k] of `storage` → one panel of the same number of bytes; missing rows become zero.
pub(crate) fn interleave_panel(storage: Storage, rows: &[u8], k: usize, panel: &mut [u8]) {
    let (size, row_bytes) = (storage.block_bytes(), k / storage.block_len() * storage.block_bytes());
    if row_bytes == 0 {
        return;
    }
    for (lane, row) in rows.chunks_exact(row_bytes).take(LANES).enumerate() {
        for (block, group) in row.chunks_exact(size).zip(panel.chunks_exact_mut(LANES * size)) {
            for (at, width) in storage.fields() {
                group[LANES * at + lane * width..][..width].copy_from_slice(&block[at..at + width]);
            }
        }
    }
}

/// `out[k]` = the numbers of one row of a panel.
pub(crate) fn panel_row(storage: Storage, panel: &[u8], lane: usize, out: &mut [f32]) {
    let size = storage.block_bytes();
    let mut block = [0; BLOCK_BYTES_MAX];
    for (group, out) in panel.chunks_exact(LANES * size).zip(out.chunks_exact_mut(storage.block_len())) {
        for (at, width) in storage.fields() {
            block[at..at + width].copy_from_slice(&group[LANES * at + lane * width..][..width]);
        }
        dequantize_row(storage, &block[..size], out);
    }
}

/// Bytes of the largest block.
const BLOCK_BYTES_MAX: usize = 34;

/// A way to read panels sixteen columns at a time, as [`dequantize_row`] reads rows one number at a time.
pub(crate) trait Decode: Copy + Send + Sync {
    /// Hands the sixteen rows' weights of columns l .. l + 16 (fewer at the panel's end) to `column`, as (column - l,
    /// weights), ascending; `l` is a multiple of 16.
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, column: impl FnMut(usize, S::F));
}

/// Hands `$decode`, bound to the [`Decode`] of `$storage`, to the expression.
macro_rules! with_decode {
    ($storage:expr, $decode:ident => $e:expr) => {
        match $storage {
            $crate::quant::Storage::F32 => {
                let $decode = $crate::quant::DecodeF32;
                $e
            }
            $crate::quant::Storage::F16 => {
                let $decode = $crate::quant::DecodeF16;
                $e
            }
            $crate::quant::Storage::Bf16 => {
                let $decode = $crate::quant::DecodeBf16;
                $e
            }
            $crate::quant::Storage::Q4_0 => {
                let $decode = $crate::quant::DecodeQ4_0;
                $e
            }
            $crate::quant::Storage::Q4_1 => {
                let $decode = $crate::quant::DecodeQ4_1;
                $e
            }
            $crate::quant::Storage::Q8_0 => {
                let $decode = $crate::quant::DecodeQ8_0;
                $e
            }
        }
    };
}
pub(crate) use with_decode;

/// [`Storage::F32`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeF32;
/// [`Storage::F16`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeF16;
/// [`Storage::Bf16`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeBf16;
/// [`Storage::Q4_0`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeQ4_0;
/// [`Storage::Q4_1`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeQ4_1;
/// [`Storage::Q8_0`].
#[derive(Clone, Copy)]
pub(crate) struct DecodeQ8_0;

/// `N` bytes from `at` on.
#[inline(always)]
fn bytes<const N: usize>(group: &[u8], at: usize) -> &[u8; N] {
    group[at..].first_chunk().expect("whole groups")
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

/// The nibbles of sixteen columns, as f32: of four words, the low nibbles of the bytes or the high ones.
#[inline(always)]
fn nibbles<S: Simd>(s: S, words: &[u8; 256], high: bool, mut column: impl FnMut(usize, S::F)) {
    for j in 0..4 {
        let word = s.load_words(bytes(words, 64 * j));
        let word = if high { s.shr_i(word, 4) } else { word };
        for t in 0..4 {
            column(4 * j + t, s.to_f(s.and_i(s.shr_i(word, 8 * t as u32), s.splat_i(15))));
        }
    }
}

impl Decode for DecodeQ4_0 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group: &[u8; 16 * 18] = bytes(panel, l / 32 * 16 * 18);
        let (d, eight) = (s.load_f16(bytes(group, 0)), s.splat(8.0));
        nibbles(s, bytes(group, 32), l & 16 > 0, |i, q| column(i, s.mul(s.sub(q, eight), d)));
    }
}

impl Decode for DecodeQ4_1 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group: &[u8; 16 * 20] = bytes(panel, l / 32 * 16 * 20);
        let (d, m) = (s.load_f16(bytes(group, 0)), s.load_f16(bytes(group, 32)));
        nibbles(s, bytes(group, 64), l & 16 > 0, |i, q| column(i, s.add(s.mul(q, d), m)));
    }
}

impl Decode for DecodeQ8_0 {
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, panel: &[u8], l: usize, mut column: impl FnMut(usize, S::F)) {
        let group: &[u8; 16 * 34] = bytes(panel, l / 32 * 16 * 34);
        let d = s.load_f16(bytes(group, 0));
        for j in 0..4 {
            let word = s.load_words(bytes(group, 32 + 64 * (j + (l & 16) / 4)));
            for t in 0..4 {
                column(4 * j + t, s.mul(s.to_f(s.sar_i(s.shl_i(word, 24 - 8 * t as u32), 24)), d));
            }
        }
    }
}
