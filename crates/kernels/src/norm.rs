//! RMS normalisation, forward and backward.

use crate::elementwise::{load, store};
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 1 << 13;

/// `y = x · rstd · gain` per row, with `rstd = 1 / √(mean(x²) + eps)`, which is saved (Zhang & Sennrich 2019).
///
/// # Shapes
/// `y`, `x`: `[m, c]`, `rstd`: `[m]`, `gain`: `[c]`.
pub fn rms_norm(level: Level, y: &mut [f32], rstd: &mut [f32], x: &[f32], gain: &[f32], m: usize, c: usize, eps: f32) {
    assert!(y.len() == m * c && x.len() == m * c && rstd.len() == m && gain.len() == c);
    let rows = TASK.div_ceil(c);
    let parts = y.par_chunks_mut(rows * c).zip(rstd.par_chunks_mut(rows)).zip(x.par_chunks(rows * c));
    parts.for_each(|((y, rstd), x)| level.dispatch(Forward { y, rstd, x, gain, c, eps }));
}

struct Forward<'a> {
    y: &'a mut [f32],
    rstd: &'a mut [f32],
    x: &'a [f32],
    gain: &'a [f32],
    c: usize,
    eps: f32,
}

impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { y, rstd, x, gain, c, eps } = self;
        for ((y, rstd), x) in y.chunks_exact_mut(c).zip(rstd).zip(x.chunks_exact(c)) {
            let square = dot(s, x, x);
            *rstd = 1.0 / (square / c as f32 + eps).sqrt();
            let factor = s.splat(*rstd);
            for ((y, x), gain) in y.chunks_mut(LANES).zip(x.chunks(LANES)).zip(gain.chunks(LANES)) {
                let value = s.mul(s.mul(load(s, x), factor), load(s, gain));
                store(s, y, value);
            }
        }
    }
}

/// `dx += rstd · (gain · dy - x · rstd² · mean(gain · dy · x))` per row; the gain is frozen.
///
/// # Shapes
/// `dx`, `dy`, `x`: `[m, c]`, `gain`: `[c]`, `rstd`: `[m]`.
pub fn rms_norm_backward(level: Level, dx: &mut [f32], dy: &[f32], x: &[f32], gain: &[f32], rstd: &[f32], m: usize, c: usize) {
    assert!(dx.len() == m * c && dy.len() == m * c && x.len() == m * c && rstd.len() == m && gain.len() == c);
    let rows = TASK.div_ceil(c);
    let parts = dx.par_chunks_mut(rows * c).zip(dy.par_chunks(rows * c)).zip(x.par_chunks(rows * c)).zip(rstd.par_chunks(rows));
    parts.for_each(|(((dx, dy), x), rstd)| level.dispatch(Backward { dx, dy, x, gain, rstd, c }));
}

struct Backward<'a> {
    dx: &'a mut [f32],
    dy: &'a [f32],
    x: &'a [f32],
    gain: &'a [f32],
    rstd: &'a [f32],
    c: usize,
}

impl WithSimd for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { dx, dy, x, gain, rstd, c } = self;
        let rows = dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(x.chunks_exact(c)).zip(rstd);
        for (((dx, dy), x), &rstd) in rows {
            let mut sum = s.splat(0.0);
            for ((dy, x), gain) in dy.chunks(LANES).zip(x.chunks(LANES)).zip(gain.chunks(LANES)) {
                sum = s.mul_add(s.mul(load(s, dy), load(s, gain)), load(s, x), sum);
            }
            let along = s.splat(s.reduce_add(sum) / c as f32 * rstd * rstd);
            let rstd = s.splat(rstd);
            for (((dx, dy), x), gain) in dx.chunks_mut(LANES).zip(dy.chunks(LANES)).zip(x.chunks(LANES)).zip(gain.chunks(LANES)) {
                let across = s.neg_mul_add(load(s, x), along, s.mul(load(s, dy), load(s, gain)));
                let value = s.mul_add(rstd, across, load(s, dx));
                store(s, dx, value);
            }
        }
    }
}

/// Σ a b: 16 lanes in order, then the tree.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        sum = s.mul_add(load(s, a), load(s, b), sum);
    }
    s.reduce_add(sum)
}
