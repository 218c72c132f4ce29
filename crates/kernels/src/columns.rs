//! Vectors along the columns of a matrix: factors on them (DoRA's magnitudes), and sums down them, which are the gradients of
//! such vectors: of biases, of norms' gains and of magnitudes.

use crate::elementwise::{load, store};
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements of a task.
const TASK: usize = 1 << 14;
/// Columns of a task: whole cache lines, few enough that narrow matrices make several tasks.
const COLUMNS: usize = 4 * LANES;
/// Rows of a partial sum, so that the rounding of long sums stays that of short ones.
const ROWS: usize = 256;

/// `y[i][j] = x[i][j] · factors[j]`, or += where `accumulate`.
///
/// # Shapes
/// `y`, `x`: `[m, n]`, `factors`: `[n]`.
pub fn scale_columns(level: Level, y: &mut [f32], x: &[f32], factors: &[f32], accumulate: bool) {
    let n = factors.len();
    assert!(n > 0 && y.len() == x.len() && y.len().is_multiple_of(n));
    let rows = TASK.div_ceil(n);
    y.par_chunks_mut(rows * n).zip(x.par_chunks(rows * n)).for_each(|(y, x)| level.dispatch(Scale { y, x, factors, accumulate }));
}

struct Scale<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    factors: &'a [f32],
    accumulate: bool,
}

impl WithSimd for Scale<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.factors.len();
        for (y, x) in self.y.chunks_exact_mut(n).zip(self.x.chunks_exact(n)) {
            for ((y, x), factor) in y.chunks_mut(LANES).zip(x.chunks(LANES)).zip(self.factors.chunks(LANES)) {
                let (x, factor) = (load(s, x), load(s, factor));
                let value = if self.accumulate { s.mul_add(x, factor, load(s, y)) } else { s.mul(x, factor) };
                store(s, y, value);
            }
        }
    }
}

/// What is summed down the columns of `a[m, n]`; what is `None` is 1.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// `[m, n]`.
    pub a: &'a [f32],
    /// `[m, n]`, multiplied into `a`.
    pub b: Option<&'a [f32]>,
    /// `[m]`, a factor of each row.
    pub rows: Option<&'a [f32]>,
    /// `[n]`, a factor on each sum.
    pub columns: Option<&'a [f32]>,
}

/// `out[j] += columns[j] · Σ_i rows[i] · a[i][j] · b[i][j]`: rows ascending, in partial sums of 256.
///
/// # Shapes
/// `out`: `[n]`.
pub fn column_sums(level: Level, out: &mut [f32], terms: Terms<'_>) {
    let n = out.len();
    assert!(n > 0 && terms.a.len().is_multiple_of(n));
    let m = terms.a.len() / n;
    assert!(terms.b.is_none_or(|b| b.len() == m * n));
    assert!(terms.rows.is_none_or(|rows| rows.len() == m) && terms.columns.is_none_or(|columns| columns.len() == n));
    let sum = |(index, out): (usize, &mut [f32])| level.dispatch(Sums { out, first: index * COLUMNS, n, m, terms });
    if m * n <= TASK {
        out.chunks_mut(COLUMNS).enumerate().for_each(sum);
    } else {
        out.par_chunks_mut(COLUMNS).enumerate().for_each(sum);
    }
}

struct Sums<'a> {
    /// Columns from `first` on.
    out: &'a mut [f32],
    first: usize,
    n: usize,
    m: usize,
    terms: Terms<'a>,
}

impl WithSimd for Sums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sums { out, first, n, m, terms: Terms { a, b, rows, columns } } = self;
        for (index, out) in out.chunks_mut(LANES).enumerate() {
            let (col, width) = (first + index * LANES, out.len());
            let mut total = s.splat(0.0);
            for start in (0..m).step_by(ROWS) {
                let mut sum = s.splat(0.0);
                for i in start..m.min(start + ROWS) {
                    let at = |x: &[f32]| load(s, &x[i * n + col..][..width]);
                    let mut term = at(a);
                    if let Some(rows) = rows {
                        term = s.mul(term, s.splat(rows[i]));
                    }
                    sum = match b {
                        Some(b) => s.mul_add(term, at(b), sum),
                        None => s.add(sum, term),
                    };
                }
                total = s.add(total, sum);
            }
            let old = load(s, out);
            let value = match columns {
                Some(columns) => s.mul_add(total, load(s, &columns[col..][..width]), old),
                None => s.add(old, total),
            };
            store(s, out, value);
        }
    }
}
