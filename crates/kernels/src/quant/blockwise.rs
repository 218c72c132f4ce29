//! bitsandbytes' storages: 4-bit codes in blocks of 64 under a largest size ("absmax"), and signed bytes under one a row.
//!
//! A code's value times its block's scale is the weight; NF4's codes are quantiles of the normal distribution, FP4's are
//! floats of four bits (Dettmers et al. 2023, QLoRA). *Double quantisation* holds the scales in 8 bits too: a block's scale
//! is `DYNAMIC[code] · nested + offset`, where `nested` belongs to 256 blocks counted through the whole matrix, row after
//! row, and `offset` to the matrix. All products are rounded to f32, as bitsandbytes does for a compute type of f32; its
//! 16-bit compute types round our value once more.
//!
//! | storage | a row here | bits a weight |
//! |---|---|---|
//! | NF4, FP4 | header: f32 offset; u32 blocks up to the row's first change of `nested`; f32 `nested` of each 256 the row meets. Blocks: scale's code, 32 bytes of codes | 4.125 + 32 · header words / cols |
//! | NF4, FP4 plain | blocks: f32 scale, 32 bytes of codes | 4.5 |
//! | int8 | header: f32 scale. Signed bytes | 8 + 32 / cols |
//!
//! Of two codes in a byte the high one is the first.

use super::Storage;

/// Weights under one scale.
pub const BLOCK: usize = 64;
/// Scales under one nested scale.
pub const NESTED: usize = 256;
/// 1/127 as bitsandbytes writes it (7.874015718698502e-3).
pub const INT8_UNIT: f32 = 1.0 / 127.0;

/// Values of NF4's codes.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Values of FP4's codes: sign, two bits of exponent, one of mantissa, over 12. No code is minus zero.
pub const FP4: [f32; 16] = [
    0.0,
    0.062_5 / 12.0,
    8.0 / 12.0,
    1.0,
    4.0 / 12.0,
    0.5,
    2.0 / 12.0,
    0.25,
    0.0,
    -0.062_5 / 12.0,
    -8.0 / 12.0,
    -1.0,
    -4.0 / 12.0,
    -0.5,
    -2.0 / 12.0,
    -0.25,
];

/// Values of the scales' codes, ascending: the dynamic map of 8 bits (Dettmers et al. 2022), a sign, up to seven bits that
/// count the decade and the rest for the fraction.
///
/// bitsandbytes computes it with PyTorch; these are the numbers that come out on machines with AVX2 (in files made
/// elsewhere some differ in the last bit; such files are read with plain scales).
pub static DYNAMIC: [f32; 256] = dynamic();

const fn dynamic() -> [f32; 256] {
    let mut map = [0.0; 256];
    let mut i = 0;
    while i < 127 {
        map[128 + i] = POSITIVE[i];
        map[126 - i] = -POSITIVE[i];
        i += 1;
    }
    map[255] = 1.0;
    map
}

#[rustfmt::skip]
const POSITIVE: [f32; 127] = [
    5.5000004e-7, 3.2500002e-6, 7.75e-6, 2.1249998e-5, 4.375e-5, 6.625e-5, 8.875e-5, 0.00015625001, 0.00026875004, 0.00038125002,
    0.00049375003, 0.0006062501, 0.00071875006, 0.00083125, 0.0009437501, 0.0012812499, 0.00184375, 0.00240625, 0.00296875, 0.0035312497,
    0.00409375, 0.0046562497, 0.0052187503, 0.00578125, 0.00634375, 0.00690625, 0.00746875, 0.00803125, 0.00859375, 0.009156249,
    0.00971875, 0.01140625, 0.01421875, 0.01703125, 0.019843752, 0.02265625, 0.02546875, 0.028281251, 0.03109375, 0.03390625,
    0.036718752, 0.03953125, 0.042343747, 0.04515625, 0.04796875, 0.05078125, 0.05359375, 0.05640625, 0.059218753, 0.06203125,
    0.06484375, 0.067656256, 0.070468746, 0.07328125, 0.07609375, 0.07890625, 0.08171876, 0.08453125, 0.08734375, 0.09015625,
    0.092968754, 0.09578126, 0.09859375, 0.107031256, 0.12109375, 0.13515624, 0.14921875, 0.16328125, 0.17734376, 0.19140625, 0.20546874,
    0.21953125, 0.23359375, 0.24765624, 0.26171875, 0.27578127, 0.28984374, 0.30390626, 0.31796873, 0.33203125, 0.34609374, 0.36015624,
    0.37421876, 0.38828123, 0.40234375, 0.41640624, 0.43046874, 0.44453126, 0.45859373, 0.47265625, 0.4867187, 0.50078124, 0.5148437,
    0.5289062, 0.54296875, 0.5570313, 0.5710938, 0.58515626, 0.5992187, 0.61328125, 0.6273438, 0.6414063, 0.65546876, 0.6695312,
    0.68359375, 0.6976563, 0.7117188, 0.72578126, 0.7398437, 0.75390625, 0.7679688, 0.78203124, 0.79609376, 0.8101562, 0.82421875,
    0.8382813, 0.85234374, 0.86640626, 0.8804687, 0.89453125, 0.9085938, 0.92265624, 0.93671876, 0.9507812, 0.96484375, 0.9789063,
    0.99296874,
];

/// Values of a storage's codes.
pub(crate) const fn codes(storage: Storage) -> &'static [f32; 16] {
    match storage {
        Storage::Fp4 | Storage::Fp4Plain => &FP4,
        _ => &NF4,
    }
}

/// Words of a row's header under double quantisation: offset, blocks up to the first change, and the nested scales of as
/// many groups as a row of `cols` can meet.
pub(crate) const fn header_words(cols: usize) -> usize {
    4 + (cols / BLOCK).saturating_sub(1) / NESTED
}

/// The scale of a row's block `index` with this code; `header` gives the words of the row's header.
pub(super) fn block_scale(header: impl Fn(usize) -> [u8; 4], index: usize, code: u8) -> f32 {
    let left = u32::from_le_bytes(header(1)) as usize;
    let group = (index + NESTED).saturating_sub(left) / NESTED;
    DYNAMIC[usize::from(code)] * f32::from_le_bytes(header(2 + group)) + f32::from_le_bytes(header(0))
}

/// The header of row `row` of a matrix with `blocks` blocks a row.
pub(super) fn write_header(header: &mut [u8], row: usize, blocks: usize, nested: &[f32], offset: f32) {
    let first = row * blocks;
    header[..4].copy_from_slice(&offset.to_le_bytes());
    header[4..8].copy_from_slice(&((NESTED - first % NESTED) as u32).to_le_bytes());
    for (i, word) in header[8..].chunks_exact_mut(4).enumerate() {
        word.copy_from_slice(&nested.get(first / NESTED + i).copied().unwrap_or(0.0).to_le_bytes());
    }
}

/// `rows x cols` weights with double quantisation as a matrix of [`Storage::Nf4`] or [`Storage::Fp4`].
///
/// # Shapes
/// `packed`: `[rows · cols / 2]`, `scales`: `[rows · cols / 64]` codes, `nested`: one for every 256 of those; `cols` is a
/// multiple of 64.
pub fn double_quantized(rows: usize, cols: usize, packed: &[u8], scales: &[u8], nested: &[f32], offset: f32) -> Vec<u8> {
    let blocks = cols / BLOCK;
    assert!(cols.is_multiple_of(BLOCK), "{cols} weights a row");
    assert_eq!((packed.len(), scales.len()), (rows * cols / 2, rows * blocks), "codes and scales of {rows} x {cols}");
    assert_eq!(nested.len(), scales.len().div_ceil(NESTED), "nested scales of {rows} x {cols}");
    let header_bytes = 4 * header_words(cols);
    let mut bytes = vec![0; rows * (header_bytes + blocks * (1 + BLOCK / 2))];
    let of_rows = packed.chunks_exact((cols / 2).max(1)).zip(scales.chunks_exact(blocks.max(1)));
    for (row, ((packed, scales), bytes)) in of_rows.zip(bytes.chunks_exact_mut(header_bytes + blocks * (1 + BLOCK / 2))).enumerate() {
        let (header, bytes) = bytes.split_at_mut(header_bytes);
        write_header(header, row, blocks, nested, offset);
        for ((block, packed), scale) in bytes.chunks_exact_mut(1 + BLOCK / 2).zip(packed.chunks_exact(BLOCK / 2)).zip(scales) {
            block[0] = *scale;
            block[1..].copy_from_slice(packed);
        }
    }
    bytes
}

/// Weights with f32 scales of blocks of `block` (a multiple of 64), counted through the whole matrix, as a matrix of
/// [`Storage::Nf4Plain`] or [`Storage::Fp4Plain`].
///
/// # Shapes
/// `packed`: half as many bytes as weights, whole blocks of 64; `scales`: one for every `block` weights.
pub fn plain(packed: &[u8], block: usize, scales: &[f32]) -> Vec<u8> {
    assert!(block.is_multiple_of(BLOCK) && packed.len().is_multiple_of(BLOCK / 2), "{} codes in blocks of {block}", 2 * packed.len());
    assert_eq!(scales.len(), (2 * packed.len()).div_ceil(block), "scales of {} codes in blocks of {block}", 2 * packed.len());
    let mut bytes = Vec::with_capacity(packed.len() / (BLOCK / 2) * (4 + BLOCK / 2));
    for (i, packed) in packed.chunks_exact(BLOCK / 2).enumerate() {
        bytes.extend(scales[i * BLOCK / block].to_le_bytes());
        bytes.extend(packed);
    }
    bytes
}

/// The same weights as f32, for matrices whose rows are not whole blocks of 64; of an odd number the last code counts.
pub fn expanded(storage: Storage, weights: usize, packed: &[u8], block: usize, scales: &[f32]) -> Vec<f32> {
    assert!(packed.len() == weights.div_ceil(2) && scales.len() == weights.div_ceil(block), "{weights} weights in blocks of {block}");
    let code = |i: usize| packed[i / 2] >> (4 - i % 2 * 4) & 15;
    (0..weights).map(|i| codes(storage)[usize::from(code(i))] * scales[i / block]).collect()
}

/// Scales of blocks from their codes, nested scales of `nested_block` of them, and offset; `map` are the codes' values.
pub fn scales(codes: &[u8], map: &[f32; 256], nested: &[f32], nested_block: usize, offset: f32) -> Vec<f32> {
    assert_eq!(nested.len(), codes.len().div_ceil(nested_block), "nested scales of {} scales", codes.len());
    codes.iter().enumerate().map(|(i, &code)| map[usize::from(code)] * nested[i / nested_block] + offset).collect()
}

/// Signed bytes `[rows, cols]` and a scale a row as a matrix of [`Storage::Int8`]; `cols` is a multiple of 16.
pub fn int8(cols: usize, codes: &[u8], scales: &[f32]) -> Vec<u8> {
    assert!(cols.is_multiple_of(16) && codes.len() == scales.len() * cols, "{} codes in {} rows of {cols}", codes.len(), scales.len());
    codes
        .chunks_exact(cols.max(1))
        .zip(scales)
        .flat_map(|(codes, scale)| scale.to_le_bytes().into_iter().chain(codes.iter().copied()))
        .collect()
}

/// The same weights as f32, for matrices whose rows are not whole blocks of 16.
pub fn int8_expanded(cols: usize, codes: &[u8], scales: &[f32]) -> Vec<f32> {
    assert_eq!(codes.len(), scales.len() * cols, "codes of {} rows of {cols}", scales.len());
    codes.iter().enumerate().map(|(i, &q)| f32::from(q as i8) * scales[i / cols] * INT8_UNIT).collect()
}

/// Codes in the order of their values, and the borders between neighbours: half way, as bitsandbytes rounds.
struct Borders {
    code: [u8; 16],
    above: [f32; 15],
}

const NF4_BORDERS: Borders = borders(&NF4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
/// Zero has two codes; the first is used, so that the second stands for nothing below it.
const FP4_BORDERS: Borders = borders(&FP4, [11, 10, 13, 12, 15, 14, 9, 0, 0, 1, 6, 7, 4, 5, 2, 3]);

const fn borders(values: &[f32; 16], code: [u8; 16]) -> Borders {
    let mut above = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        above[i] = (values[code[i] as usize] + values[code[i + 1] as usize]) / 2.0;
        i += 1;
    }
    Borders { code, above }
}

/// The largest size of each block of 64.
pub(super) fn block_sizes<'a>(x: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    x.chunks_exact(BLOCK).map(|block| block.iter().fold(0.0f32, |size, v| size.max(v.abs())))
}

/// `packed[32]` = the codes nearest to a block's 64 weights over `scale`.
pub(super) fn pack_codes(storage: Storage, x: &[f32], scale: f32, packed: &mut [u8]) {
    let Borders { code, above } = if codes(storage) == &FP4 { &FP4_BORDERS } else { &NF4_BORDERS };
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let nearest = |v: f32| {
        let v = v * inverse;
        code[above.iter().map(|&border| usize::from(v > border)).sum::<usize>()]
    };
    for (byte, x) in packed.iter_mut().zip(x.as_chunks::<2>().0) {
        *byte = nearest(x[0]) << 4 | nearest(x[1]);
    }
}

/// Points from −1 to 1 at which bitsandbytes looks up the codes of 8 bits on a CPU, less 1.
const GRID: f32 = 65_535.0;

/// The nearest of them. A scale that lies within half a step, 1.5e-5, of the border between two codes may so get the farther
/// one: a loss that no model feels, at which the codes are bitsandbytes' own.
fn on_grid(v: f32) -> f32 {
    let point = ((v + 1.0) * 0.5 * GRID + 0.5).floor();
    point / GRID * 2.0 - 1.0
}

/// Codes of the scales of a matrix, the nested scales and the offset: the scales' mean is taken away, and of every 256 the
/// largest size divides.
pub(super) fn quantize_scales(scales: &[f32]) -> (Vec<u8>, Vec<f32>, f32) {
    let offset = (scales.iter().map(|&s| f64::from(s)).sum::<f64>() / scales.len().max(1) as f64) as f32;
    let nested: Vec<f32> = scales.chunks(NESTED).map(|group| group.iter().fold(0.0f32, |size, s| size.max((s - offset).abs()))).collect();
    let code = |(i, &scale): (usize, &f32)| {
        let size = nested[i / NESTED];
        let v = on_grid(if size == 0.0 { 0.0 } else { (scale - offset) / size });
        let above = DYNAMIC.partition_point(|&value| value < v).min(255);
        let below = above.saturating_sub(1);
        (if (DYNAMIC[above] - v).abs() < (v - DYNAMIC[below]).abs() { above } else { below }) as u8
    };
    (scales.iter().enumerate().map(code).collect(), nested, offset)
}
