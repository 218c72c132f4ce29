//! Blocks to f32, one number at a time, as the formats define them. Every fast way is tested against this.
//!
//! Sources: ggml's block structures and gguf-py's `quants.py`; where both round differently, gguf-py holds.

use super::{Storage, blockwise};
use half::f16;

/// The integers that the codes of IQ4_NL and IQ4_XS stand for.
pub(crate) const IQ4: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

pub(super) fn f16_at(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `out[cols]` = the numbers of one row stored in `bytes`.
pub fn dequantize_row(storage: Storage, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(storage.bytes(1, out.len()), Some(bytes.len()), "{} bytes for {} weights in {}", bytes.len(), out.len(), storage.name());
    let (header, blocks) = bytes.split_at(storage.header_bytes(out.len()));
    let header = |i: usize| *header[4 * i..].first_chunk().expect("the header's words");
    let blocks = blocks.chunks_exact(storage.block_bytes()).zip(out.chunks_exact_mut(storage.block_len()));
    for (index, (block, out)) in blocks.enumerate() {
        dequantize_block(storage, header, index, block, out);
    }
}

/// `y[block]` = the numbers of the row's block `index`, whose bytes are `b`; `header` gives the words of the row's header.
#[inline]
pub(super) fn dequantize_block(storage: Storage, header: impl Fn(usize) -> [u8; 4], index: usize, b: &[u8], y: &mut [f32]) {
    match storage {
        Storage::F32 => y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Storage::F16 => y[0] = f16_at(b),
        Storage::Bf16 => y[0] = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16),
        Storage::Q4_0 => {
            let d = f16_at(b);
            for i in 0..32 {
                y[i] = (f32::from(halves(&b[2..], i)) - 8.0) * d;
            }
        }
        Storage::Q4_1 => {
            let (d, m) = (f16_at(b), f16_at(&b[2..]));
            for i in 0..32 {
                y[i] = f32::from(halves(&b[4..], i)) * d + m;
            }
        }
        Storage::Q5_0 => {
            let d = f16_at(b);
            for i in 0..32 {
                let q = halves(&b[6..], i) | bits(b[2 + i / 8], i % 8, 1) << 4;
                y[i] = (f32::from(q) - 16.0) * d;
            }
        }
        Storage::Q5_1 => {
            let (d, m) = (f16_at(b), f16_at(&b[2..]));
            for i in 0..32 {
                let q = halves(&b[8..], i) | bits(b[4 + i / 8], i % 8, 1) << 4;
                y[i] = f32::from(q) * d + m;
            }
        }
        Storage::Q8_0 => {
            let d = f16_at(b);
            for i in 0..32 {
                y[i] = f32::from(b[2 + i] as i8) * d;
            }
        }
        Storage::Q2K => {
            let (d, e) = (f16_at(&b[80..]), f16_at(&b[82..]));
            for i in 0..256 {
                let s = b[i / 16];
                let q = bits(b[16 + i / 128 * 32 + i % 32], i % 128 / 32 * 2, 2);
                y[i] = d * f32::from(s & 15) * f32::from(q) - e * f32::from(s >> 4);
            }
        }
        Storage::Q3K => {
            let d = f16_at(&b[108..]);
            for i in 0..256 {
                let sub = i / 16;
                let s = bits(b[96 + sub % 8], sub / 8 * 4, 4) | bits(b[104 + sub % 4], sub / 4 * 2, 2) << 4;
                // The third bit is set where 4 is not taken away.
                let q = bits(b[32 + i / 128 * 32 + i % 32], i % 128 / 32 * 2, 2) | bits(b[i % 32], i / 32, 1) << 2;
                y[i] = d * (f32::from(s) - 32.0) * (f32::from(q) - 4.0);
            }
        }
        Storage::Q4K => {
            let (d, e) = (f16_at(b), f16_at(&b[2..]));
            for i in 0..256 {
                let (s, m) = scale_and_minimum(&b[4..16], i / 32);
                let q = bits(b[16 + i / 64 * 32 + i % 32], i % 64 / 32 * 4, 4);
                y[i] = d * f32::from(s) * f32::from(q) - e * f32::from(m);
            }
        }
        Storage::Q5K => {
            let (d, e) = (f16_at(b), f16_at(&b[2..]));
            for i in 0..256 {
                let (s, m) = scale_and_minimum(&b[4..16], i / 32);
                let q = bits(b[48 + i / 64 * 32 + i % 32], i % 64 / 32 * 4, 4) | bits(b[16 + i % 32], i / 32, 1) << 4;
                y[i] = d * f32::from(s) * f32::from(q) - e * f32::from(m);
            }
        }
        Storage::Q6K => {
            let d = f16_at(&b[208..]);
            for i in 0..256 {
                let (half, quarter) = (i / 128, i % 128 / 32);
                let low = bits(b[64 * half + quarter % 2 * 32 + i % 32], quarter / 2 * 4, 4);
                let q = low | bits(b[128 + 32 * half + i % 32], 2 * quarter, 2) << 4;
                y[i] = d * f32::from(b[192 + i / 16] as i8) * (f32::from(q) - 32.0);
            }
        }
        Storage::Iq4Nl => {
            let d = f16_at(b);
            for i in 0..32 {
                y[i] = d * IQ4[usize::from(halves(&b[2..], i))];
            }
        }
        Storage::Iq4Xs => {
            let (d, high) = (f16_at(b), u16::from_le_bytes([b[2], b[3]]));
            for i in 0..256 {
                let sub = i / 32;
                let s = bits(b[4 + sub / 2], sub % 2 * 4, 4) | ((high >> (2 * sub)) as u8 & 3) << 4;
                y[i] = d * (f32::from(s) - 32.0) * IQ4[usize::from(halves(&b[8 + 16 * sub..], i % 32))];
            }
        }
        Storage::Nf4 | Storage::Fp4 => {
            let scale = blockwise::block_scale(header, index, b[0]);
            for i in 0..64 {
                y[i] = blockwise::codes(storage)[usize::from(pairs(&b[1..], i))] * scale;
            }
        }
        Storage::Nf4Plain | Storage::Fp4Plain => {
            let scale = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            for i in 0..64 {
                y[i] = blockwise::codes(storage)[usize::from(pairs(&b[4..], i))] * scale;
            }
        }
        Storage::Int8 => {
            let scale = f32::from_le_bytes(header(0));
            for i in 0..16 {
                y[i] = f32::from(b[i] as i8) * scale * blockwise::INT8_UNIT;
            }
        }
    }
}

/// `count` bits of a byte from bit `from` on.
fn bits(byte: u8, from: usize, count: u32) -> u8 {
    byte >> from & ((1 << count) - 1)
}

/// Nibble i of 32 in ggml's order: the low ones of sixteen bytes, then the high ones.
fn halves(bytes: &[u8], i: usize) -> u8 {
    bits(bytes[i % 16], i / 16 * 4, 4)
}

/// Nibble i in bitsandbytes' order: high, then low, byte by byte.
fn pairs(bytes: &[u8], i: usize) -> u8 {
    bits(bytes[i / 2], 4 - i % 2 * 4, 4)
}

/// The 6-bit scale and minimum of sub-block `sub` in the twelve bytes of Q4_K and Q5_K: the first four of each in the low
/// bits of bytes 0 .. 4 and 4 .. 8; of the others four bits in bytes 8 .. 12 and two in the high bits of the first eight.
fn scale_and_minimum(b: &[u8], sub: usize) -> (u8, u8) {
    match sub {
        0..4 => (b[sub] & 63, b[4 + sub] & 63),
        _ => (b[4 + sub] & 15 | b[sub - 4] >> 6 << 4, b[4 + sub] >> 4 | b[sub] >> 6 << 4),
    }
}
