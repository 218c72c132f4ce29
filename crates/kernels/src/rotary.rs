//! Rotary position embedding (Su et al. 2021), in the "rotate half" form of Llama: element `i` of a head is
//! paired with element `i + d/2`.

use crate::elementwise::{load, store};
use crate::math::scalar;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 1 << 13;

/// `table[i] = cos(a) …, sin(a) …` with the angles `a_j = positions[i] · inv_freq[j]`, which are products of two f32
/// as PyTorch computes them; their sine and cosine are computed in f64 and rounded once.
///
/// # Shapes
/// `table`: `[positions.len(), 2, inv_freq.len()]`.
pub fn angles(table: &mut [f32], positions: &[u32], inv_freq: &[f32]) {
    let half = inv_freq.len();
    assert_eq!(table.len(), positions.len() * 2 * half);
    table.par_chunks_exact_mut(2 * half).with_min_len(16).zip(positions).for_each(|(row, &position)| {
        let (cos, sin) = row.split_at_mut(half);
        for ((cos, sin), inv_freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
            let angle = position as f32 * inv_freq;
            let (s, c) = scalar::sin_cos(f64::from(angle));
            (*cos, *sin) = (c as f32, s as f32);
        }
    });
}

/// Turns every pair `(x_j, x_{j + d/2})` of every head by its row's angle `a_j` from [`angles`], in place:
/// `(x cos a - y sin a, y cos a + x sin a)`; by `-a` where `inverse`, which is the backward.
///
/// # Shapes
/// `x`: `[m, heads, head_dim]`, `table`: `[m, head_dim]`.
pub fn rotary(level: Level, x: &mut [f32], table: &[f32], heads: usize, head_dim: usize, inverse: bool) {
    assert!(head_dim.is_multiple_of(2), "head size {head_dim} is odd");
    let c = heads * head_dim;
    assert_eq!(x.len() / c * c, x.len());
    assert_eq!(table.len(), x.len() / heads);
    let rows = TASK.div_ceil(c);
    x.par_chunks_mut(rows * c).zip(table.par_chunks(rows * head_dim)).for_each(|(x, table)| {
        level.dispatch(Rotary { x, table, heads, head_dim, inverse });
    });
}

struct Rotary<'a> {
    x: &'a mut [f32],
    table: &'a [f32],
    heads: usize,
    head_dim: usize,
    inverse: bool,
}

impl WithSimd for Rotary<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.head_dim / 2;
        for (x, angles) in self.x.chunks_exact_mut(self.heads * self.head_dim).zip(self.table.chunks_exact(self.head_dim)) {
            let (cos, sin) = angles.split_at(half);
            for head in x.chunks_exact_mut(self.head_dim) {
                let (low, high) = head.split_at_mut(half);
                for from in (0..half).step_by(LANES) {
                    let to = (from + LANES).min(half);
                    let (low, high) = (&mut low[from..to], &mut high[from..to]);
                    let (cos, sin) = (load(s, &cos[from..to]), load(s, &sin[from..to]));
                    let sin = if self.inverse { s.neg(sin) } else { sin };
                    let (a, b) = (load(s, low), load(s, high));
                    store(s, low, s.neg_mul_add(b, sin, s.mul(a, cos)));
                    store(s, high, s.mul_add(a, sin, s.mul(b, cos)));
                }
            }
        }
    }
}
