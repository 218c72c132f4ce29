//! Panels made of rows as a file has them, in every product: what is mapped is never copied whole.
//!
//! Floats are read row by row and turned in squares of sixteen; of blocks those that meet the wanted columns are brought side by
//! side, sixteen rows at a time, and decoded as those of a weight that is held. The numbers are the same.

use super::{Weight, Window, store_square};
use crate::quant::{Storage, interleave_blocks};
use crate::simd::microkernel::BLOCK;
use crate::simd::{LANES, Simd};

/// Bytes of sixteen rows' blocks that meet a block of the inner dimension, or the columns of a tile: of the K formats at most three of
/// 210 bytes, of those of 32 weights at most ten of 34.
pub(super) const SIDE_BYTES: usize = LANES * 640;
const _: () = assert!(BLOCK <= 288 && super::TILE_PANELS_MAX * LANES <= 288);

/// Up to sixteen rows from row `first` on.
#[inline(always)]
fn sixteen(rows: &[u8], row_bytes: usize, first: usize) -> &[u8] {
    let rows = &rows[first * row_bytes..];
    &rows[..rows.len().min(LANES * row_bytes)]
}

/// Columns l .. l + 16 of a row of floats; zero past its end.
#[inline(always)]
fn floats<S: Simd>(s: S, storage: Storage, row: &[u8], l: usize) -> S::F {
    let size = storage.block_bytes();
    let rest = row.get(l * size..).unwrap_or_default();
    let mut padded = [0; 4 * LANES];
    let bytes = if rest.len() >= LANES * size {
        rest
    } else {
        padded[..rest.len()].copy_from_slice(rest);
        &padded
    };
    const ENOUGH: &str = "sixteen numbers";
    match storage {
        Storage::F32 => s.from_bits(s.load_words(bytes.first_chunk().expect(ENOUGH))),
        Storage::F16 => s.load_f16(bytes.first_chunk().expect(ENOUGH)),
        _ => s.load_bf16(bytes.first_chunk().expect(ENOUGH)),
    }
}

/// Panels of floats whose columns are rows: output `col` is row `col`, inner index l is column l.
#[inline(always)]
pub(super) fn panels<S: Simd>(s: S, w: &Weight, rows: &[u8], window: Window, to: &mut [f32]) {
    let Window { col, panels, start, inner } = window;
    let (storage, row_bytes) = (w.storage, w.row_bytes());
    for p in 0..panels {
        let rows = sixteen(rows, row_bytes, col + p * LANES);
        for l in (0..inner).step_by(LANES) {
            let mut square = [s.splat(0.0); LANES];
            for (v, row) in square.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                *v = floats(s, storage, row, start + l);
            }
            store_square(s, &mut to[(p * BLOCK + l) * LANES..], s.transpose(square));
        }
    }
}

/// Panels of floats whose columns are columns: inner index l is row l.
#[inline(always)]
pub(super) fn transposed<S: Simd>(s: S, w: &Weight, rows: &[u8], window: Window, to: &mut [f32]) {
    let Window { col, panels, start, inner } = window;
    let (storage, row_bytes) = (w.storage, w.row_bytes());
    for (l, row) in rows[start * row_bytes..].chunks_exact(row_bytes).take(inner).enumerate() {
        for p in 0..panels {
            s.store(&mut to[(p * BLOCK + l) * LANES..], floats(s, storage, row, col + p * LANES));
        }
    }
}

/// Of sixteen rows from `row` on the blocks that columns from .. from + len lie in, side by side in `side`; and the first of their
/// columns.
pub(super) fn interleave<'a>(
    w: &Weight,
    rows: &[u8],
    row: usize,
    from: usize,
    len: usize,
    side: &'a mut [u8; SIDE_BYTES],
) -> (&'a [u8], usize) {
    let (storage, row_bytes) = (w.storage, w.row_bytes());
    let first = from / storage.block_len();
    let count = (from + len).div_ceil(storage.block_len()) - first;
    let side = &mut side[..count * LANES * storage.block_bytes()];
    interleave_blocks(storage, sixteen(rows, row_bytes, row), row_bytes, first, count, side);
    (side, first * storage.block_len())
}
