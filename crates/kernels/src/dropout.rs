//! Dropout whose mask is a function of names, not of a generator's state.
//!
//! Element `j` of a row is kept iff a hash of (row key, module, `j`), read as a number in `[0, 1)`, is below
//! `1 - p`; what is kept is scaled by `1 / (1 - p)` (Srivastava et al. 2014, "inverted"). The mask of the
//! backward is thus the mask of the forward without being stored, and neither batches nor threads move it.

use crate::elementwise::{load, store};
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 1 << 13;

/// The golden ratio in 32 bits: steps of a Weyl sequence.
const STEP: u32 = 0x9e37_79b9;
/// The multipliers of MurmurHash3's 32-bit finaliser (Appleby 2011).
const FIRST: u32 = 0x85eb_ca6b;
/// See [`FIRST`].
const SECOND: u32 = 0xc2b2_ae35;

/// SplitMix64's finaliser (Steele et al. 2014): every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The two words that a row's draws in a module start from.
fn row_state(key: u64, module: u32) -> (u32, u32) {
    let state = mix(key ^ mix(u64::from(module).wrapping_add(0x9e37_79b9_7f4a_7c15)));
    (state as u32, (state >> 32) as u32)
}

/// A draw of 24 bits is kept when it is below this: `(1 - p) · 2²⁴`.
fn threshold(p: f32) -> u32 {
    assert!((0.0..1.0).contains(&p), "dropout of {p}");
    ((1.0 - f64::from(p)) * 16_777_216.0) as u32
}

/// Whether element `j` of the row with `key` survives in `module`: the definition, one element at a time.
pub fn keeps(key: u64, module: u32, j: usize, p: f32) -> bool {
    let (low, high) = row_state(key, module);
    let mut x = low.wrapping_add((j as u32).wrapping_mul(STEP));
    x = (x ^ (x >> 16)).wrapping_mul(FIRST) ^ high;
    x = (x ^ (x >> 13)).wrapping_mul(SECOND);
    x ^= x >> 16;
    x >> 8 < threshold(p)
}

/// `y[i,j] = x[i,j] / (1 - p)` where [`keeps`]`(keys[i], module, j, p)` and 0 elsewhere; `+=` where
/// `accumulate`. The backward is the same call on `dy`.
///
/// # Shapes
/// `y`, `x`: `[keys.len(), c]`.
pub fn dropout(level: Level, y: &mut [f32], x: &[f32], keys: &[u64], module: u32, p: f32, c: usize, accumulate: bool) {
    assert_eq!(y.len(), keys.len() * c);
    assert_eq!(x.len(), y.len());
    let (threshold, scale) = (threshold(p), (1.0 / (1.0 - f64::from(p))) as f32);
    let rows = TASK.div_ceil(c);
    let parts = y.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).zip(keys.par_chunks(rows));
    parts.for_each(|((y, x), keys)| level.dispatch(Dropout { y, x, keys, module, threshold, scale, c, accumulate }));
}

struct Dropout<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    keys: &'a [u64],
    module: u32,
    threshold: u32,
    scale: f32,
    c: usize,
    accumulate: bool,
}

impl WithSimd for Dropout<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let word = |x: u32| s.splat_i(x as i32);
        let mut steps = [0; LANES];
        for (j, step) in steps.iter_mut().enumerate() {
            *step = (j as u32).wrapping_mul(STEP) as i32;
        }
        let (steps, stride) = (s.load_i(&steps), word(STEP.wrapping_mul(LANES as u32)));
        let (threshold, scale) = (word(self.threshold), s.splat(self.scale));
        for ((y, x), &key) in self.y.chunks_exact_mut(self.c).zip(self.x.chunks_exact(self.c)).zip(self.keys) {
            let (low, high) = row_state(key, self.module);
            let (mut counter, high) = (s.add_i(word(low), steps), word(high));
            for (y, x) in y.chunks_mut(LANES).zip(x.chunks(LANES)) {
                let h = s.xor_i(counter, s.shr_i(counter, 16));
                let h = s.xor_i(s.mul_i(h, word(FIRST)), high);
                let h = s.mul_i(s.xor_i(h, s.shr_i(h, 13)), word(SECOND));
                let h = s.xor_i(h, s.shr_i(h, 16));
                let kept = s.lt_i(s.shr_i(h, 8), threshold);
                let masked = s.select(kept, s.mul(load(s, x), scale), s.splat(0.0));
                store(s, y, if self.accumulate { s.add(load(s, y), masked) } else { masked });
                counter = s.add_i(counter, stride);
            }
        }
    }
}
