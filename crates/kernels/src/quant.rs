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
    pub const ALL: [Storage; 6] =
        [Storage::F32, Storage::F16, Storage::Bf16, Storage::Q4_0, Storage::Q4_1, Storage::Q8_0];

    /// (name, weights a block, bytes a block).
    const fn row(self) -> (&'static str, usize, usize) {
        match self {
            Storage::F32 => ("f32", 1, 4),
            Storage::F16 => ("f16", 1, 2),
            Storage::Bf16 => ("bf16", 1, 2),
            Storage::Q4_0 => ("q4_0", 32, 18),
            Storage::Q4_1 => ("q4_1", 32, 20),
            Storage::Q8_0 => ("q8_0", 32, 34),
        }
    }

    /// Lower-case name, as GGUF file types are written.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// Weights of one block; a row is whole blocks.
    pub const fn block_len(self) -> usize {
        self.row().1
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.row().2
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

/// out[cols] = the numbers of one row stored in `bytes`.
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

/// A way to read a stored row sixteen weights at a time, as [`dequantize_row`] does one by one.
pub(crate) trait Decode: Copy + Send + Sync {
    /// Weights l .. l + 16 of a row of `k`, zero past its end; `l` is a multiple of 16.
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F;
}

/// Hands `$decode`, bound to the [`Decode`] of `$storage`, to the expression.
macro_rules! with_decode {
    ($storage:expr, $decode:ident => $e:expr) => {
        match $storage {
            $crate::quant::Storage::F32 => { let $decode = $crate::quant::DecodeF32; $e }
            $crate::quant::Storage::F16 => { let $decode = $crate::quant::DecodeF16; $e }
            $crate::quant::Storage::Bf16 => { let $decode = $crate::quant::DecodeBf16; $e }
            $crate::quant::Storage::Q4_0 => { let $decode = $crate::quant::DecodeQ4_0; $e }
            $crate::quant::Storage::Q4_1 => { let $decode = $crate::quant::DecodeQ4_1; $e }
            $crate::quant::Storage::Q8_0 => { let $decode = $crate::quant::DecodeQ8_0; $e }
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

/// 16 numbers of `N / 16` bytes from number `l` on, zero past the row's end.
#[inline(always)]
fn numbers<const N: usize>(row: &[u8], l: usize) -> [u8; N] {
    let start = l * (N / LANES);
    match row[start..].first_chunk() {
        Some(bytes) => *bytes,
        None => {
            let mut bytes = [0; N];
            bytes[..row.len() - start].copy_from_slice(&row[start..]);
            bytes
        }
    }
}

impl Decode for DecodeF32 {
    #[inline(always)]
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F {
        let bytes: [u8; 64] = numbers(row, l);
        let (numbers, _) = bytes.as_chunks::<4>();
        s.load(&std::array::from_fn::<f32, LANES, _>(|i| f32::from_le_bytes(numbers[i])))
    }
}

impl Decode for DecodeF16 {
    #[inline(always)]
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F {
        s.load_f16(&numbers(row, l))
    }
}

impl Decode for DecodeBf16 {
    #[inline(always)]
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F {
        s.load_bf16(&numbers(row, l))
    }
}

/// The block of `N` bytes around weight `l` of a format with 32 weights a block, and whether `l` is in its second half.
#[inline(always)]
fn block<const N: usize>(row: &[u8], l: usize) -> (&[u8; N], bool) {
    (row[l / 32 * N..].first_chunk().expect("whole blocks"), l % 32 != 0)
}

/// 16 nibbles: the low ones, or the high ones.
#[inline(always)]
fn nibbles<S: Simd>(s: S, bytes: &[u8; LANES], high: bool) -> S::F {
    let q = s.load_u8(bytes);
    s.to_f(if high { s.shr_i(q, 4) } else { s.and_i(q, s.splat_i(15)) })
}

impl Decode for DecodeQ4_0 {
    #[inline(always)]
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F {
        let (b, high) = block::<18>(row, l);
        let q = nibbles(s, b[2..].first_chunk().expect("nibbles"), high);
        s.mul(s.sub(q, s.splat(8.0)), s.splat_f16([b[0], b[1]]))
    }
}

impl Decode for DecodeQ4_1 {
    #[inline(always)]
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F {
        let (b, high) = block::<20>(row, l);
        let q = nibbles(s, b[4..].first_chunk().expect("nibbles"), high);
        s.add(s.mul(q, s.splat_f16([b[0], b[1]])), s.splat_f16([b[2], b[3]]))
    }
}

impl Decode for DecodeQ8_0 {
    #[inline(always)]
    fn decode<S: Simd>(self, s: S, row: &[u8], l: usize) -> S::F {
        let (b, high) = block::<34>(row, l);
        let (first, second) = b[2..].split_at(LANES);
        let q = s.to_f(s.load_i8(if high { second } else { first }.first_chunk().expect("bytes")));
        s.mul(q, s.splat_f16([b[0], b[1]]))
    }
}
