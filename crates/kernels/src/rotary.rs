//! Rotary position embedding (Su et al. 2021), in the "rotate half" form of Llama: element `i` of a head is
//! paired with element `i + n/2`, where the first `n` elements turn (all of them, but for partial rotary embeddings).

use crate::elementwise::{load, store};
use crate::math::scalar;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 1 << 13;

/// `table[i] = cos(a) …, sin(a) …` with the angles `a_j = positions[i] · inv_freq[j]`, which are products of two f32
/// as PyTorch computes them; their sine and cosine are computed in f64 and rounded, then multiplied by `scale` (1 but
/// for LongRoPE, Ding et al. 2024).
///
/// # Shapes
/// `table`: `[positions.len(), 2, inv_freq.len()]`.
pub fn angles(table: &mut [f32], positions: &[u32], inv_freq: &[f32], scale: f32) {
    let half = inv_freq.len();
    assert_eq!(table.len(), positions.len() * 2 * half);
    table.par_chunks_exact_mut(2 * half).with_min_len(16).zip(positions).for_each(|(row, &position)| {
        let (cos, sin) = row.split_at_mut(half);
        for ((cos, sin), inv_freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
            let angle = position as f32 * inv_freq;
            let (s, c) = scalar::sin_cos(f64::from(angle));
            (*cos, *sin) = (c as f32 * scale, s as f32 * scale);
        }
    });
}

/// Turns every pair `(x_j, x_{j + n/2})` of the first `n` elements of every head by its row's angle `a_j` from
/// [`angles`], in place: `(x cos a - y sin a, y cos a + x sin a)`; the transpose of that where `transposed`, which is the
/// backward. The other elements stay as they are.
///
/// # Shapes
/// `x`: `[m, heads, head_dim]`, `table`: `[m, n]`.
pub fn rotary(level: Level, x: &mut [f32], table: &[f32], heads: usize, head_dim: usize, turned: usize, transposed: bool) {
    assert!(turned.is_multiple_of(2) && (2..=head_dim).contains(&turned), "{turned} elements of a head of {head_dim} turn");
    let c = heads * head_dim;
    let m = x.len() / c;
    assert_eq!(m * c, x.len());
    assert_eq!(table.len(), m * turned);
    let rows = TASK.div_ceil(c);
    x.par_chunks_mut(rows * c).zip(table.par_chunks(rows * turned)).for_each(|(x, table)| {
        level.dispatch(Rotary { x, table, heads, head_dim, turned, transposed });
    });
}

struct Rotary<'a> {
    x: &'a mut [f32],
    table: &'a [f32],
    heads: usize,
    head_dim: usize,
    turned: usize,
    transposed: bool,
}

impl WithSimd for Rotary<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.turned / 2;
        for (x, angles) in self.x.chunks_exact_mut(self.heads * self.head_dim).zip(self.table.chunks_exact(self.turned)) {
            let (cos, sin) = angles.split_at(half);
            for head in x.chunks_exact_mut(self.head_dim) {
                let (low, high) = head[..self.turned].split_at_mut(half);
                for from in (0..half).step_by(LANES) {
                    let to = (from + LANES).min(half);
                    let (low, high) = (&mut low[from..to], &mut high[from..to]);
                    let (cos, sin) = (load(s, &cos[from..to]), load(s, &sin[from..to]));
                    let sin = if self.transposed { s.neg(sin) } else { sin };
                    let (a, b) = (load(s, low), load(s, high));
                    store(s, low, s.neg_mul_add(b, sin, s.mul(a, cos)));
                    store(s, high, s.mul_add(a, sin, s.mul(b, cos)));
                }
            }
        }
    }
}
