//! f32 to blocks: what is quantised when a model is loaded or exported.
//!
//! Blocks of 32 round as ggml's reference quantisers do, bit for bit. The super-blocks of 256 search: of several trial
//! scales, each gives codes by rounding, the codes give the best scale (and minimum) by weighted least squares, and the
//! trial whose squared error is least wins; large weights count more. That is the idea of llama.cpp's quantiser, without
//! its importance matrix; sixteen sub-blocks are searched side by side, one a lane, so the bits are the same at every level.

use super::blockwise::{self, BLOCK};
use super::{Storage, dequantize_row};
use crate::simd::{LANES, Level, Simd, WithSimd};
use half::f16;
use rayon::prelude::*;
use std::collections::TryReserveError;

/// Rows that are worth a task of their own have so many weights.
const TASK: usize = 1 << 14;

/// A `rows x cols` matrix of `from` in storage `to`, which has a writer. Fails where memory does.
pub fn convert(level: Level, from: Storage, to: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<Vec<u8>, TryReserveError> {
    assert_eq!(from.bytes(rows, cols), Some(bytes.len()), "{} bytes for {rows} x {cols} in {}", bytes.len(), from.name());
    let mut out = Vec::new();
    let len = to.bytes(rows, cols).unwrap_or_else(|| panic!("{cols} weights a row are not whole blocks of {}", to.name()));
    out.try_reserve_exact(len)?;
    out.resize(len, 0);
    if len == 0 {
        return Ok(out);
    }
    let (from_bytes, to_bytes) = (bytes.len() / rows, len / rows);
    let at_once = TASK.div_ceil(cols);
    let row = |x: &mut Vec<f32>, bytes: &[u8]| {
        x.resize(cols, 0.0);
        dequantize_row(from, bytes, x);
    };
    if !matches!(to, Storage::Nf4 | Storage::Fp4) {
        out.par_chunks_exact_mut(to_bytes).zip(bytes.par_chunks_exact(from_bytes)).with_min_len(at_once).for_each_init(
            Vec::new,
            |x, (to_row, from_row)| {
                row(x, from_row);
                quantize_row_at(level, to, x, to_row);
            },
        );
        return Ok(out);
    }
    // Double quantisation: the scales of the whole matrix come first.
    let blocks = cols / BLOCK;
    let mut scales = Vec::new();
    scales.try_reserve_exact(rows * blocks)?;
    scales.resize(rows * blocks, 0.0f32);
    scales.par_chunks_exact_mut(blocks).zip(bytes.par_chunks_exact(from_bytes)).with_min_len(at_once).for_each_init(
        Vec::new,
        |x, (scales, bytes)| {
            row(x, bytes);
            scales.iter_mut().zip(blockwise::block_sizes(x)).for_each(|(to, size)| *to = size);
        },
    );
    let (codes, nested, offset) = blockwise::quantize_scales(&scales);
    out.par_chunks_exact_mut(to_bytes).zip(bytes.par_chunks_exact(from_bytes)).enumerate().with_min_len(at_once).for_each_init(
        Vec::new,
        |x, (i, (to_row, from_row))| {
            row(x, from_row);
            double_quantized_row(to, x, i, &scales, &codes, &nested, offset, to_row);
        },
    );
    Ok(out)
}

/// bytes = the matrix `x[rows, cols]` in `storage`, which has a writer. Fails where memory does.
pub fn quantize(level: Level, storage: Storage, rows: usize, cols: usize, x: &[f32]) -> Result<Vec<u8>, TryReserveError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(4 * x.len())?;
    bytes.extend(x.iter().flat_map(|v| v.to_le_bytes()));
    convert(level, Storage::F32, storage, rows, cols, &bytes)
}

/// bytes = one row of `x` in `storage`, which has a writer. Under double quantisation the row is a matrix by itself.
pub fn quantize_row(storage: Storage, x: &[f32], bytes: &mut [u8]) {
    quantize_row_at(Level::detect(), storage, x, bytes);
}

fn quantize_row_at(level: Level, storage: Storage, x: &[f32], bytes: &mut [u8]) {
    assert_eq!(storage.bytes(1, x.len()), Some(bytes.len()), "{} bytes for {} weights in {}", bytes.len(), x.len(), storage.name());
    match storage {
        Storage::Q4K | Storage::Q5K | Storage::Q6K => level.dispatch(SuperBlocks { storage, x, bytes }),
        Storage::Nf4 | Storage::Fp4 => {
            let scales: Vec<f32> = blockwise::block_sizes(x).collect();
            let (codes, nested, offset) = blockwise::quantize_scales(&scales);
            double_quantized_row(storage, x, 0, &scales, &codes, &nested, offset, bytes);
        }
        Storage::Int8 => {
            let (header, bytes) = bytes.split_at_mut(4);
            let scale = x.iter().fold(0.0f32, |size, v| size.max(v.abs()));
            let steps = if scale == 0.0 { 0.0 } else { 127.0 / scale };
            header.copy_from_slice(&scale.to_le_bytes());
            bytes.iter_mut().zip(x).for_each(|(q, v)| *q = (v * steps).round_ties_even() as i8 as u8);
        }
        _ => {
            let blocks = x.chunks_exact(storage.block_len()).zip(bytes.chunks_exact_mut(storage.block_bytes()));
            blocks.for_each(|(x, b)| quantize_block(storage, x, b));
        }
    }
}

/// Row `row` of a matrix under double quantisation, given the scales of all its blocks, their codes, nested scales and offset.
fn double_quantized_row(
    storage: Storage,
    x: &[f32],
    row: usize,
    scales: &[f32],
    codes: &[u8],
    nested: &[f32],
    offset: f32,
    bytes: &mut [u8],
) {
    let blocks = x.len() / BLOCK;
    let (header, bytes) = bytes.split_at_mut(4 * blockwise::header_words(x.len()));
    blockwise::write_header(header, row, blocks, nested, offset);
    for (i, (block, x)) in bytes.chunks_exact_mut(1 + BLOCK / 2).zip(x.chunks_exact(BLOCK)).enumerate() {
        block[0] = codes[row * blocks + i];
        // The codes are those of the scale as it was: as bitsandbytes does.
        blockwise::pack_codes(storage, x, scales[row * blocks + i], &mut block[1..]);
    }
}

/// One block, rounded as ggml's reference quantisers round.
fn quantize_block(storage: Storage, x: &[f32], b: &mut [u8]) {
    let put = |b: &mut [u8], at: usize, v: f32| b[at..at + 2].copy_from_slice(&f16::from_f32(v).to_le_bytes());
    let inverse = |d: f32| if d == 0.0 { 0.0 } else { 1.0 / d };
    // The element of largest size, with its sign.
    let peak = || x.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
    let range = || x.iter().fold((f32::MAX, f32::MIN), |(min, max), &v| (min.min(v), max.max(v)));
    match storage {
        Storage::F32 => b.copy_from_slice(&x[0].to_le_bytes()),
        Storage::F16 => put(b, 0, x[0]),
        Storage::Bf16 => b.copy_from_slice(&half::bf16::from_f32(x[0]).to_le_bytes()),
        Storage::Q4_0 => {
            let d = peak() / -8.0;
            let inverse = inverse(d);
            put(b, 0, d);
            let q = |v: f32| ((v * inverse + 8.5) as u8).min(15);
            for i in 0..16 {
                b[2 + i] = q(x[i]) | q(x[16 + i]) << 4;
            }
        }
        Storage::Q4_1 => {
            let (min, max) = range();
            let d = (max - min) / 15.0;
            let inverse = inverse(d);
            put(b, 0, d);
            put(b, 2, min);
            let q = |v: f32| (((v - min) * inverse + 0.5) as u8).min(15);
            for i in 0..16 {
                b[4 + i] = q(x[i]) | q(x[16 + i]) << 4;
            }
        }
        Storage::Q5_0 => {
            let d = peak() / -16.0;
            let inverse = inverse(d);
            put(b, 0, d);
            five_bits(&mut b[2..], |i| ((x[i] * inverse + 16.5) as u8).min(31));
        }
        Storage::Q5_1 => {
            let (min, max) = range();
            let d = (max - min) / 31.0;
            let inverse = inverse(d);
            put(b, 0, d);
            put(b, 2, min);
            five_bits(&mut b[4..], |i| (((x[i] - min) * inverse + 0.5) as u8).min(31));
        }
        Storage::Q8_0 => {
            let d = x.iter().fold(0.0f32, |peak, v| peak.max(v.abs())) / 127.0;
            let inverse = inverse(d);
            put(b, 0, d);
            for i in 0..32 {
                b[2 + i] = (x[i] * inverse).round() as i8 as u8;
            }
        }
        Storage::Nf4Plain | Storage::Fp4Plain => {
            let scale = blockwise::block_sizes(x).next().unwrap_or(0.0);
            b[..4].copy_from_slice(&scale.to_le_bytes());
            blockwise::pack_codes(storage, x, scale, &mut b[4..]);
        }
        _ => panic!("{} is not written block by block", storage.name()),
    }
}

/// 32 codes of five bits: the fifth bits, then the nibbles.
fn five_bits(b: &mut [u8], q: impl Fn(usize) -> u8) {
    b[..4].fill(0);
    for i in 0..16 {
        b[4 + i] = q(i) & 15 | (q(16 + i) & 15) << 4;
    }
    for i in 0..32 {
        b[i / 8] |= q(i) >> 4 << (i % 8);
    }
}

/// A row in Q4_K, Q5_K or Q6_K.
struct SuperBlocks<'a> {
    storage: Storage,
    x: &'a [f32],
    bytes: &'a mut [u8],
}

impl WithSimd for SuperBlocks<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SuperBlocks { storage, x, bytes } = self;
        let size = storage.block_bytes();
        if storage == Storage::Q6K {
            for (x, b) in x.chunks_exact(256).zip(bytes.chunks_exact_mut(size)) {
                let scales = s.to_array(symmetric_scales::<S>(s, x));
                six_bits(x, &scales, b);
            }
            return;
        }
        // Two super-blocks have sixteen sub-blocks of 32.
        for (x, b) in x.chunks(512).zip(bytes.chunks_mut(2 * size)) {
            let (scales, minima) =
                if storage == Storage::Q4K { affine_scales::<S>(s, x, 15.0, -1.0, 20) } else { affine_scales::<S>(s, x, 31.0, -0.5, 15) };
            let (scales, minima) = (s.to_array(scales), s.to_array(minima));
            for (half, (x, b)) in x.chunks_exact(256).zip(b.chunks_exact_mut(size)).enumerate() {
                four_or_five_bits(storage, x, &scales[8 * half..][..8], &minima[8 * half..][..8], b);
            }
        }
    }
}

/// `[i]`: element i of each of sixteen runs of `N` weights; missing runs are zero.
#[inline(always)]
fn side_by_side<S: Simd, const N: usize>(s: S, x: &[f32]) -> [S::F; N] {
    std::array::from_fn(|i| {
        let lanes: [f32; LANES] = std::array::from_fn(|lane| x.get(lane * N + i).copied().unwrap_or(0.0));
        s.load(&lanes)
    })
}

/// Scale a and minimum m >= 0 such that x ≈ a q - m with q in 0 ..= most, of sixteen sub-blocks of 32.
///
/// Trial t takes (most + lowest + t / 10) steps over the range of x.
#[inline(always)]
fn affine_scales<S: Simd>(s: S, x: &[f32], most: f32, lowest: f32, trials: usize) -> (S::F, S::F) {
    let x = side_by_side::<S, 32>(s, x);
    let zero = s.splat(0.0);
    let (mut min, mut max, mut squares) = (zero, x[0], zero); // a minimum above zero would not be stored
    for x in x {
        min = s.min(x, min);
        max = s.max(x, max);
        squares = s.add(squares, s.mul(x, x));
    }
    // Weights of the squared errors: the sub-block's root mean square, and the number's own size.
    let base = s.sqrt(s.mul(squares, s.splat(1.0 / 32.0)));
    let weight = |x: S::F| s.add(base, s.abs(x));
    let (mut sum_w, mut sum_x) = (zero, zero);
    for x in x {
        sum_w = s.add(sum_w, weight(x));
        sum_x = s.add(sum_x, s.mul(weight(x), x));
    }
    let range = s.sub(max, min);
    let flat = s.le(range, zero);
    let range = s.select(flat, s.splat(1.0), range);
    let most = s.splat(most);
    let (mut scale, mut minimum) = (s.div(range, most), min);
    let mut best = s.splat(f32::NEG_INFINITY);
    for trial in 0..=trials {
        let steps = s.div(s.add(most, s.splat(lowest + 0.1 * trial as f32)), range);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (zero, zero, zero);
        for x in x {
            let q = s.round(s.mul(steps, s.sub(x, min)));
            let q = s.max(s.min(q, most), zero);
            let wq = s.mul(weight(x), q);
            sum_q = s.add(sum_q, wq);
            sum_qq = s.add(sum_qq, s.mul(wq, q));
            sum_xq = s.add(sum_xq, s.mul(wq, x));
        }
        // Normal equations of scale and minimum; where the minimum would be above zero, of the scale alone.
        let determinant = s.sub(s.mul(sum_w, sum_qq), s.mul(sum_q, sum_q));
        let a = s.div(s.sub(s.mul(sum_w, sum_xq), s.mul(sum_x, sum_q)), determinant);
        let m = s.div(s.sub(s.mul(sum_qq, sum_x), s.mul(sum_q, sum_xq)), determinant);
        let above = s.lt(zero, m);
        let a = s.select(above, s.div(sum_xq, sum_qq), a);
        let m = s.select(above, zero, m);
        // What the squared error loses against that of all zeros.
        let of_scale = s.mul(a, s.sub(s.mul(s.splat(2.0), s.sub(sum_xq, s.mul(m, sum_q))), s.mul(a, sum_qq)));
        let gain = s.add(of_scale, s.mul(m, s.sub(s.mul(s.splat(2.0), sum_x), s.mul(m, sum_w))));
        let better = s.lt(best, gain); // false where there was no solution: NaN
        best = s.select(better, gain, best);
        scale = s.select(better, a, scale);
        minimum = s.select(better, m, minimum);
    }
    (s.select(flat, zero, scale), s.neg(s.select(flat, min, minimum)))
}

/// Scale a, of either sign, such that x ≈ a q with q in -32 .. 32, of sixteen sub-blocks of 16; errors weigh as x².
#[inline(always)]
fn symmetric_scales<S: Simd>(s: S, x: &[f32]) -> S::F {
    let x = side_by_side::<S, 16>(s, x);
    let zero = s.splat(0.0);
    let mut peak = zero;
    for x in x {
        peak = s.select(s.lt(s.abs(peak), s.abs(x)), x, peak);
    }
    let flat = s.le(s.abs(peak), s.splat(TINY));
    let peak = s.select(flat, s.splat(1.0), peak);
    let (mut scale, mut best) = (zero, zero);
    for trial in -9..=9 {
        // The peak goes to -32 or thereabouts: the range has one more step there.
        let steps = s.div(s.splat(-(32.0 + 0.1 * trial as f32)), peak);
        let (mut sum_qq, mut sum_xq) = (zero, zero);
        for x in x {
            let q = s.round(s.mul(steps, x));
            let q = s.max(s.min(q, s.splat(31.0)), s.splat(-32.0));
            let wq = s.mul(s.mul(x, x), q);
            sum_qq = s.add(sum_qq, s.mul(wq, q));
            sum_xq = s.add(sum_xq, s.mul(wq, x));
        }
        let a = s.div(sum_xq, sum_qq);
        let gain = s.mul(a, sum_xq);
        let better = s.lt(best, gain);
        best = s.select(better, gain, best);
        scale = s.select(better, a, scale);
    }
    s.select(flat, zero, scale)
}

/// Weights below this size are zero to Q6_K: their squares would vanish in f32.
const TINY: f32 = 1e-15;

/// A super-block of Q4_K or Q5_K from the scales and minima of its eight sub-blocks.
fn four_or_five_bits(storage: Storage, x: &[f32], scales: &[f32], minima: &[f32], b: &mut [u8]) {
    let (most, low) = if storage == Storage::Q4K { (15.0, 16) } else { (31.0, 48) };
    b.fill(0);
    let largest = |of: &[f32]| of.iter().fold(0.0f32, |largest, &v| largest.max(v));
    // Scales and minima are 0 ..= 63 times an f16.
    let unit = |at: usize, largest: f32, b: &mut [u8]| {
        let unit = f16::from_f32(largest / 63.0);
        b[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        let steps = if largest > 0.0 { 63.0 / largest } else { 0.0 };
        (unit.to_f32(), steps)
    };
    let ((d, scale_steps), (e, minimum_steps)) = (unit(0, largest(scales), b), unit(2, largest(minima), b));
    for sub in 0..8 {
        let code = |v: f32, steps: f32| (v * steps).round_ties_even().clamp(0.0, 63.0) as u8;
        let (s, m) = (code(scales[sub], scale_steps), code(minima[sub], minimum_steps));
        if sub < 4 {
            b[4 + sub] |= s;
            b[8 + sub] |= m;
        } else {
            b[8 + sub] = s & 15 | (m & 15) << 4;
            b[sub] |= s >> 4 << 6;
            b[4 + sub] |= m >> 4 << 6;
        }
        let (scale, minimum) = (d * f32::from(s), e * f32::from(m));
        let steps = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for i in 0..32 {
            let q = ((x[32 * sub + i] + minimum) * steps).round_ties_even().clamp(0.0, most) as u8;
            b[low + sub / 2 * 32 + i] |= (q & 15) << (sub % 2 * 4);
            if storage == Storage::Q5K {
                b[16 + i] |= q >> 4 << sub;
            }
        }
    }
}

/// A super-block of Q6_K from the scales of its sixteen sub-blocks.
fn six_bits(x: &[f32], scales: &[f32; 16], b: &mut [u8]) {
    b.fill(0);
    let peak = scales.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
    let unit = f16::from_f32(peak / -128.0);
    b[208..210].copy_from_slice(&unit.to_le_bytes());
    let steps = if peak == 0.0 { 0.0 } else { -128.0 / peak };
    for sub in 0..16 {
        let s = (scales[sub] * steps).round_ties_even().clamp(-128.0, 127.0);
        b[192 + sub] = s as i8 as u8;
        let scale = unit.to_f32() * s;
        let steps = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for i in 16 * sub..16 * sub + 16 {
            let q = ((x[i] * steps).round_ties_even().clamp(-32.0, 31.0) + 32.0) as u8;
            let (half, quarter) = (i / 128, i % 128 / 32);
            b[64 * half + quarter % 2 * 32 + i % 32] |= (q & 15) << (quarter / 2 * 4);
            b[128 + 32 * half + i % 32] |= q >> 4 << (2 * quarter);
        }
    }
}
