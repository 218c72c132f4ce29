//! DoRA (Liu et al. 2024): the length of each row of V = W + s · B A, and what a layer's output is scaled by.
//!
//! y = (magnitude / ‖V‖) · V x, row by row of V. The norms follow every step, and count as constants in the backward
//! (section 4.3 of the paper): the gradient of a magnitude is Σ dy · V x / ‖V‖, see [`crate::columns::column_sums`].

use crate::matmul::{Expand, Weight};
use crate::simd::microkernel::BLOCK;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements of scratch that a thread needs.
const SCRATCH: usize = BLOCK * LANES;

/// Elements of scratch for `threads` threads.
pub const fn scratch_len(threads: usize) -> usize {
    SCRATCH * threads
}

/// `norm[i] = ‖w[i] + scale · Σ_j b[i][j] a[j]‖`: inner indices ascending, in partial sums of [`BLOCK`].
///
/// # Shapes
/// `norm`: `[n]`, `w`: `[n, k]`, `a`: `[r, k]`, `b`: `[n, r]`; `scratch`: [`scratch_len`].
pub fn weight_norms(level: Level, norm: &mut [f32], w: &Weight, a: &[f32], b: &[f32], scale: f32, scratch: &mut [f32]) {
    let (n, k) = w.shape();
    let r = a.len() / k;
    assert!(norm.len() == n && a.len() == r * k && b.len() == n * r);
    assert!(scratch.len() >= SCRATCH, "scratch of {} elements, {SCRATCH} needed", scratch.len());
    // Neighbouring panels to each thread: the bits of a row depend on that row alone.
    let workers = (scratch.len() / SCRATCH).min(rayon::current_num_threads()).max(1);
    let rows = n.div_ceil(LANES).div_ceil(workers) * LANES;
    let parts = norm.par_chunks_mut(rows).zip(scratch.par_chunks_exact_mut(SCRATCH));
    parts.enumerate().for_each(|(part, (norm, scratch))| {
        for (index, norm) in norm.chunks_mut(LANES).enumerate() {
            level.dispatch(Norms { norm, w, row: part * rows + index * LANES, a, b, r, scale, scratch });
        }
    });
}

/// Sixteen rows, a lane each.
struct Norms<'a> {
    norm: &'a mut [f32],
    w: &'a Weight,
    row: usize,
    a: &'a [f32],
    b: &'a [f32],
    r: usize,
    scale: f32,
    scratch: &'a mut [f32],
}

impl WithSimd for Norms<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Norms { norm, w, row, a, b, r, scale, scratch } = self;
        let (_, k) = w.shape();
        let column = |j: usize| {
            let mut lanes = [0.0; LANES];
            lanes.iter_mut().zip(b[row * r..].chunks_exact(r)).take(norm.len()).for_each(|(lane, b)| *lane = scale * b[j]);
            s.load(&lanes)
        };
        let mut total = s.splat(0.0);
        for start in (0..k).step_by(BLOCK) {
            let inner = BLOCK.min(k - start);
            let panel = s.vectorize(Expand { b: w.source(), col: row, cols: norm.len(), start, inner, to: &mut *scratch });
            let mut sum = s.splat(0.0);
            // Sixteen inner indices at a time: each row of `a` is read by the line.
            for l in (0..inner).step_by(LANES) {
                let width = LANES.min(inner - l);
                let mut v = [s.splat(0.0); LANES];
                for (i, v) in v.iter_mut().enumerate().take(width) {
                    *v = s.load(&panel.data[(l + i) * panel.inner..]);
                }
                for j in 0..r {
                    let (b, a) = (column(j), &a[j * k + start + l..][..width]);
                    for (v, &a) in v.iter_mut().zip(a) {
                        *v = s.mul_add(b, s.splat(a), *v);
                    }
                }
                for v in v.iter().take(width) {
                    sum = s.mul_add(*v, *v, sum);
                }
            }
            total = s.add(total, sum);
        }
        s.store_partial(norm, s.sqrt(total));
    }
}

/// `gain[i] = magnitude[i] / norm[i]` and `inverse[i] = 1 / norm[i]`, where `inverse` holds the norm on entry. A row of
/// zeros has no direction: both are 0.
pub fn scales(gain: &mut [f32], inverse: &mut [f32], magnitude: &[f32]) {
    assert!(gain.len() == inverse.len() && gain.len() == magnitude.len());
    for ((gain, inverse), magnitude) in gain.iter_mut().zip(inverse).zip(magnitude) {
        let norm = *inverse;
        (*gain, *inverse) = if norm > 0.0 { (magnitude / norm, 1.0 / norm) } else { (0.0, 0.0) };
    }
}
