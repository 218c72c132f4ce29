//! Dropout whose mask is a function of names, not of a generator's state.
//!
//! Element `j` of a row is kept iff a hash of (row key, module, `j`), read as a number in `[0, 1)`, is below
//! `1 - p`; what is kept is scaled by `1 / (1 - p)` (Srivastava et al. 2014, "inverted"). The mask of the
//! backward is thus the mask of the forward without being stored, and neither batches nor threads move it.

use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 1 << 13;

/// Steele & Vigna's SplitMix64 finaliser: every input bit reaches every output bit.
#[inline(always)]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The state from which a row's draws in a module are hashed.
#[inline(always)]
fn row_state(key: u64, module: u32) -> u64 {
    mix(key ^ mix(u64::from(module).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// The draws of elements `2 * pair` (low half) and `2 * pair + 1` (high half).
#[inline(always)]
fn draw_pair(state: u64, pair: usize) -> u64 {
    mix(state.wrapping_add((pair as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A draw is kept when it is below this: `(1 - p) · 2³²`.
fn threshold(p: f32) -> u64 {
    assert!((0.0..1.0).contains(&p), "dropout of {p}");
    ((1.0 - f64::from(p)) * 4_294_967_296.0) as u64
}

/// Whether element `j` of the row with `key` survives in `module`: the definition, one element at a time.
pub fn keeps(key: u64, module: u32, j: usize, p: f32) -> bool {
    let draw = draw_pair(row_state(key, module), j / 2) >> (32 * (j % 2));
    (draw & 0xffff_ffff) < threshold(p)
}

/// `y[i,j] = x[i,j] / (1 - p)` where [`keeps`]`(keys[i], module, j, p)` and 0 elsewhere; `+=` where
/// `accumulate`. The backward is the same call on `dy`.
///
/// # Shapes
/// `y`, `x`: `[keys.len(), c]`.
pub fn dropout(y: &mut [f32], x: &[f32], keys: &[u64], module: u32, p: f32, c: usize, accumulate: bool) {
    assert_eq!(y.len(), keys.len() * c);
    assert_eq!(x.len(), y.len());
    let (threshold, scale) = (threshold(p), (1.0 / (1.0 - f64::from(p))) as f32);
    let rows = y.par_chunks_exact_mut(c).zip(x.par_chunks_exact(c)).zip(keys);
    rows.with_min_len(TASK.div_ceil(c)).for_each(|((y, x), &key)| {
        let state = row_state(key, module);
        for (pair, (y, x)) in y.chunks_mut(2).zip(x.chunks(2)).enumerate() {
            let draws = draw_pair(state, pair);
            for (half, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                let kept = (draws >> (32 * half)) & 0xffff_ffff < threshold;
                let masked = if kept { x * scale } else { 0.0 };
                *y = if accumulate { *y + masked } else { masked };
            }
        }
    });
}
