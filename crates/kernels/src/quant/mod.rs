//! How the numbers of a weight are stored, and their way to f32 and back: one row of the table per format.
//!
//! | formats | whose | value of a weight |
//! |---|---|---|
//! | F32, F16, BF16 | IEEE 754, bfloat16 | itself |
//! | Q4_0 … Q8_0, IQ4_NL | ggml, blocks of 32 | one f16 scale a block, perhaps an f16 minimum |
//! | Q2_K … Q6_K, IQ4_XS | ggml, super-blocks of 256 | small integer scales of sub-blocks under f16 scales |
//! | NF4, FP4, int8 | bitsandbytes | a code's value times the largest size of its block or row |
//!
//! All are little endian. A matrix is its rows one after the other, and a row is self-contained: a header (empty but for
//! bitsandbytes' formats), then whole blocks along the row. Decoded values are those of gguf-py and of bitsandbytes in
//! f32, bit for bit (`golden/quant`).
//!
//! | module | for |
//! |---|---|
//! | [`blocks`] | one block to f32, as the formats define it: the oracle |
//! | [`blockwise`] | bitsandbytes' codes, double quantisation, int8 |
//! | [`mod@quantize`] | f32 to blocks |
//! | `decode` | sixteen rows side by side to f32, as the products read them |
//! | `codes` | sixteen rows side by side as integers, as the integer products read them |

pub mod blocks;
pub mod blockwise;
pub(crate) mod codes;
pub(crate) mod decode;
pub mod quantize;

pub use blocks::dequantize_row;
pub use quantize::{quantize, quantize_row};

use crate::simd::LANES;

/// Storage of a weight's numbers (little endian; layouts of ggml and, for the last five, of [`blockwise`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// [`Storage::Q4_0`] with 32 fifth bits before the nibbles; weight = (q - 16) d.
    Q5_0,
    /// [`Storage::Q4_1`] with 32 fifth bits before the nibbles.
    Q5_1,
    /// 32 weights: f16 scale d, 32 signed bytes q; weight = q d.
    Q8_0,
    /// 16 x 16 weights of two bits: 4-bit scales s and minima m, f16 d and e; weight = q (d s) - e m.
    Q2K,
    /// 16 x 16 weights of three bits: 6-bit signed scales s, f16 d; weight = q (d s).
    Q3K,
    /// 8 x 32 weights of four bits: 6-bit scales s and minima m, f16 d and e; weight = q (d s) - e m.
    Q4K,
    /// [`Storage::Q4K`] with five bits a weight.
    Q5K,
    /// 16 x 16 weights of six bits: signed bytes as scales s, f16 d; weight = (q - 32) (d s).
    Q6K,
    /// [`Storage::Q4_0`] with codes for 16 unevenly spaced integers.
    Iq4Nl,
    /// 8 x 32 weights with the codes of [`Storage::Iq4Nl`]: 6-bit signed scales s, f16 d; weight = v (d s).
    Iq4Xs,
    /// 64 weights with codes of the normal distribution's quantiles; scales themselves in 8 bits.
    Nf4,
    /// 64 weights with codes of 4-bit floats; scales themselves in 8 bits.
    Fp4,
    /// [`Storage::Nf4`] with an f32 scale a block.
    Nf4Plain,
    /// [`Storage::Fp4`] with an f32 scale a block.
    Fp4Plain,
    /// Signed bytes q with an f32 scale s a row; weight = (q s) / 127, the reciprocal rounded.
    Int8,
}

impl Storage {
    /// Every storage there is.
    pub const ALL: [Storage; 20] = [
        Storage::F32,
        Storage::F16,
        Storage::Bf16,
        Storage::Q4_0,
        Storage::Q4_1,
        Storage::Q5_0,
        Storage::Q5_1,
        Storage::Q8_0,
        Storage::Q2K,
        Storage::Q3K,
        Storage::Q4K,
        Storage::Q5K,
        Storage::Q6K,
        Storage::Iq4Nl,
        Storage::Iq4Xs,
        Storage::Nf4,
        Storage::Fp4,
        Storage::Nf4Plain,
        Storage::Fp4Plain,
        Storage::Int8,
    ];

    const fn format(self) -> Format {
        const fn format(name: &'static str, len: usize, fields: &'static [Field], scales: &'static [usize]) -> Format {
            Format { name, len, fields, scales }
        }
        match self {
            Storage::F32 => format("f32", 1, &[(0, 4, 1)], &[]),
            Storage::F16 => format("f16", 1, &[(0, 2, 1)], &[0]),
            Storage::Bf16 => format("bf16", 1, &[(0, 2, 1)], &[]),
            Storage::Q4_0 => format("q4_0", 32, &[(0, 2, 1), (2, 4, 4)], &[0]),
            Storage::Q4_1 => format("q4_1", 32, &[(0, 2, 2), (4, 4, 4)], &[0, 2]),
            Storage::Q5_0 => format("q5_0", 32, &[(0, 2, 1), (2, 4, 5)], &[0]),
            Storage::Q5_1 => format("q5_1", 32, &[(0, 2, 2), (4, 4, 5)], &[0, 2]),
            Storage::Q8_0 => format("q8_0", 32, &[(0, 2, 1), (2, 4, 8)], &[0]),
            Storage::Q2K => format("q2_k", 256, &[(0, 4, 20), (80, 2, 2)], &[80, 82]),
            Storage::Q3K => format("q3_k", 256, &[(0, 4, 27), (108, 2, 1)], &[108]),
            Storage::Q4K => format("q4_k", 256, &[(0, 2, 2), (4, 4, 35)], &[0, 2]),
            Storage::Q5K => format("q5_k", 256, &[(0, 2, 2), (4, 4, 43)], &[0, 2]),
            Storage::Q6K => format("q6_k", 256, &[(0, 4, 52), (208, 2, 1)], &[208]),
            Storage::Iq4Nl => format("iq4_nl", 32, &[(0, 2, 1), (2, 4, 4)], &[0]),
            Storage::Iq4Xs => format("iq4_xs", 256, &[(0, 2, 2), (4, 4, 33)], &[0]),
            Storage::Nf4 => format("nf4", 64, &[(0, 1, 1), (1, 4, 8)], &[]),
            Storage::Fp4 => format("fp4", 64, &[(0, 1, 1), (1, 4, 8)], &[]),
            Storage::Nf4Plain => format("nf4_plain", 64, &[(0, 4, 9)], &[]),
            Storage::Fp4Plain => format("fp4_plain", 64, &[(0, 4, 9)], &[]),
            Storage::Int8 => format("int8", 16, &[(0, 4, 4)], &[]),
        }
    }

    /// The block's fields as (place, width in bytes), ascending.
    fn fields(self) -> impl Iterator<Item = (usize, usize)> {
        self.format().fields.iter().flat_map(|&(start, width, count)| (0..count).map(move |i| (start + i * width, width)))
    }

    /// Lower-case name, as GGUF file types are written.
    pub const fn name(self) -> &'static str {
        self.format().name
    }

    /// Weights of one block; a row is whole blocks.
    pub const fn block_len(self) -> usize {
        self.format().len
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        let fields = self.format().fields;
        let (start, width, count) = fields[fields.len() - 1];
        start + width * count
    }

    /// Bytes before the blocks of a row of `cols` weights: words of four bytes.
    pub const fn header_bytes(self, cols: usize) -> usize {
        match self {
            Storage::Nf4 | Storage::Fp4 => 4 * blockwise::header_words(cols),
            Storage::Int8 => 4,
            _ => 0,
        }
    }

    /// Bytes of a row of `cols` weights; `None` where that is not whole blocks or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())?.checked_add(self.header_bytes(cols))
    }

    /// Bytes of a `rows x cols` matrix; `None` where a row is not whole blocks or the size overflows.
    pub fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
        self.row_bytes(cols)?.checked_mul(rows)
    }

    /// Whether [`quantize()`] writes it. The others are read only: llama.cpp's own quantiser makes better ones with an
    /// importance matrix.
    pub const fn has_writer(self) -> bool {
        !matches!(self, Storage::Q2K | Storage::Q3K | Storage::Iq4Nl | Storage::Iq4Xs)
    }

    /// Whether its weights are small integers under scales, which [`crate::integer`] multiplies as integers.
    pub const fn has_codes(self) -> bool {
        codes::has_codes(self)
    }

    /// Whether every number of a weight stands by itself, as a float of 16 or 32 bits.
    pub const fn is_float(self) -> bool {
        matches!(self, Storage::F32 | Storage::F16 | Storage::Bf16)
    }
}

/// (first place in the block, bytes of an element, elements).
type Field = (usize, usize, usize);

/// A row of the table.
struct Format {
    name: &'static str,
    /// Weights of a block.
    len: usize,
    /// Without gaps, up to the block's end.
    fields: &'static [Field],
    /// Places of f16 numbers that multiply.
    scales: &'static [usize],
}

/// Whether all numbers of a matrix with rows of `cols`, and the scales of its blocks, are finite: one that is not spoils
/// every answer.
pub fn finite(storage: Storage, cols: usize, bytes: &[u8]) -> bool {
    let Some(row_bytes) = storage.row_bytes(cols).filter(|&n| n > 0) else { return true };
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let f32_at = |b: &[u8]| word(b) & 0x7f80_0000 != 0x7f80_0000;
    let u16_at = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    match storage {
        Storage::F32 => bytes.chunks_exact(4).all(f32_at),
        Storage::Bf16 => bytes.chunks_exact(2).all(|b| u16_at(b) & 0x7f80 != 0x7f80),
        Storage::Int8 => bytes.chunks_exact(row_bytes).all(f32_at),
        Storage::Nf4Plain | Storage::Fp4Plain => bytes.chunks_exact(storage.block_bytes()).all(f32_at),
        // The second word is a count.
        Storage::Nf4 | Storage::Fp4 => bytes.chunks_exact(row_bytes).all(|row| {
            let words = row.chunks_exact(4).take(blockwise::header_words(cols));
            words.enumerate().all(|(i, b)| i == 1 || f32_at(b))
        }),
        _ => {
            let scales = storage.format().scales;
            bytes.chunks_exact(storage.block_bytes()).all(|block| scales.iter().all(|&at| u16_at(&block[at..]) & 0x7c00 != 0x7c00))
        }
    }
}

/// Panels: how a weight is held for the products. Sixteen rows lie side by side: of the headers each word, sixteen at a
/// time; then block by block, of the sixteen blocks at the same place each field, sixteen at a time. So a vector of
/// sixteen rows loads at once, and not a byte is added but the padding to whole panels.
///
/// `rows[16]`[k] of `storage` → one panel of the same number of bytes; missing rows become zero.
pub(crate) fn interleave_panel(storage: Storage, rows: &[u8], k: usize, panel: &mut [u8]) {
    let (size, header_bytes) = (storage.block_bytes(), storage.header_bytes(k));
    let row_bytes = storage.row_bytes(k).expect("whole blocks");
    if row_bytes == 0 {
        return;
    }
    let (headers, groups) = panel.split_at_mut(LANES * header_bytes);
    for (lane, row) in rows.chunks_exact(row_bytes).take(LANES).enumerate() {
        let (header, blocks) = row.split_at(header_bytes);
        for (i, word) in header.chunks_exact(4).enumerate() {
            headers[4 * (LANES * i + lane)..][..4].copy_from_slice(word);
        }
        for (block, group) in blocks.chunks_exact(size).zip(groups.chunks_exact_mut(LANES * size)) {
            for (at, width) in storage.fields() {
                group[LANES * at + lane * width..][..width].copy_from_slice(&block[at..at + width]);
            }
        }
    }
}

/// Blocks `first .. first + count` of up to sixteen rows of `row_bytes`, as they lie in a file, as a panel of these blocks alone;
/// missing rows become zero. For storages without headers.
pub(crate) fn interleave_blocks(storage: Storage, rows: &[u8], row_bytes: usize, first: usize, count: usize, panel: &mut [u8]) {
    let size = storage.block_bytes();
    if rows.len() < LANES * row_bytes {
        panel[..count * LANES * size].fill(0);
    }
    for (lane, row) in rows.chunks_exact(row_bytes).take(LANES).enumerate() {
        let blocks = row[first * size..][..count * size].chunks_exact(size);
        for (block, group) in blocks.zip(panel.chunks_exact_mut(LANES * size)) {
            for &(start, width, elements) in storage.format().fields {
                // Widths by name, so that each copy is one instruction.
                match width {
                    4 => copy_field::<4>(block, group, lane, start, elements),
                    2 => copy_field::<2>(block, group, lane, start, elements),
                    _ => copy_field::<1>(block, group, lane, start, elements),
                }
            }
        }
    }
}

#[inline(always)]
fn copy_field<const WIDTH: usize>(block: &[u8], group: &mut [u8], lane: usize, start: usize, elements: usize) {
    let from = block[start..start + elements * WIDTH].as_chunks::<WIDTH>().0;
    let to = group[LANES * start..][..LANES * elements * WIDTH].as_chunks_mut::<WIDTH>().0;
    for (from, to) in from.iter().zip(to[lane..].iter_mut().step_by(LANES)) {
        *to = *from;
    }
}

/// `out[k]` = the numbers of one row of a panel.
pub(crate) fn panel_row(storage: Storage, panel: &[u8], lane: usize, out: &mut [f32]) {
    let size = storage.block_bytes();
    let (headers, groups) = panel.split_at(LANES * storage.header_bytes(out.len()));
    let header = |i: usize| *headers[4 * (LANES * i + lane)..].first_chunk().expect("the header's words");
    let mut block = [0; BLOCK_BYTES_MAX];
    for (index, (group, out)) in groups.chunks_exact(LANES * size).zip(out.chunks_exact_mut(storage.block_len())).enumerate() {
        for (at, width) in storage.fields() {
            block[at..at + width].copy_from_slice(&group[LANES * at + lane * width..][..width]);
        }
        blocks::dequantize_block(storage, header, index, &block[..size], out);
    }
}

/// Bytes of the largest block.
const BLOCK_BYTES_MAX: usize = 210;
