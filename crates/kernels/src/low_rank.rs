//! What a low-rank adapter adds to a weight, row by row.

use rayon::prelude::*;

/// Columns that are summed side by side: a part of a row of `a` that stays in the first cache.
const COLUMNS: usize = 1024;
/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 16;

/// `w += s b a`.
///
/// The product is summed over `r` in order before it is scaled and added, so that a weight is rounded once.
///
/// # Shapes
/// `w`: `[m, k]`, `b`: `[m, r]`, `a`: `[r, k]`.
pub fn add_low_rank(w: &mut [f32], b: &[f32], a: &[f32], r: usize, k: usize, s: f32) {
    assert!(r > 0 && k > 0, "{r} x {k}");
    assert_eq!(a.len(), r * k);
    assert_eq!(w.len() / k * r, b.len());
    assert_eq!(w.len() % k, 0);
    w.par_chunks_exact_mut(k).zip(b.par_chunks_exact(r)).with_min_len(TASK.div_ceil(r * k)).for_each(|(w, b)| {
        let mut sums = [0.0f32; COLUMNS];
        for (part, w) in w.chunks_mut(COLUMNS).enumerate() {
            let sums = &mut sums[..w.len()];
            sums.fill(0.0);
            for (b, a) in b.iter().zip(a.chunks_exact(k)) {
                let a = &a[part * COLUMNS..][..w.len()];
                sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
            }
            w.iter_mut().zip(sums).for_each(|(w, sum)| *w += s * *sum);
        }
    });
}
