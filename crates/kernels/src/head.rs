//! The language-model head: log-probabilities and their gradient without logits in memory.
//!
//! Walks the vocabulary in tiles with a running maximum and sum per row (as in cut cross-entropy, Wijmans et
//! al. 2024). With `p = softmax(x wᵀ)`, the gradient of `ln p_t` in `x` is `w_t - Σ_v p_v w_v`: the one
//! expected row of `w` serves every entry on a row, so that the backward is a sum over entries.
//!
//! Under a soft cap the logits are `y = cap · tanh(x wᵀ / cap)` with the slope `g = 1 - (y / cap)²`, and the gradient
//! is `g_t w_t - Σ_v p_v g_v w_v`: the slopes go into the expected row, and those of the targets are kept for the backward.

use crate::elementwise::{cap_slope, softcap as softcap_in_place, store};
use crate::integer::{self, Rounded};
use crate::math;
use crate::matmul::{self, Weight};
use crate::simd::microkernel::BLOCK;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// An entry after the rows with entries were gathered: `row` counts gathered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadEntry {
    /// Row of the head's input.
    pub row: u32,
    /// Token id.
    pub target: u32,
}

/// Rows that are walked through the vocabulary together.
const ROWS: usize = 512;
/// Vocabulary of a tile: whole blocks of the backward's inner dimension.
const TILE: usize = 4 * BLOCK;
/// Below every logit, and finite, so that differences are no NaN.
const LOWEST: f32 = f32::MIN;
/// Running numbers of a row: 16 sums, the maximum, the factor for what was summed under the last one.
const STATE: usize = LANES + 2;

/// Elements of scratch for up to `m` rows of `c` elements on `threads` threads.
pub fn scratch_len(threads: usize, m: usize, c: usize) -> usize {
    let rows = m.min(ROWS);
    (rows * (TILE + STATE) + matmul::scratch_len(threads, rows, c.max(TILE))).max(threads * c)
}

/// `log_prob[e] = ln softmax(x[row_e] wᵀ)[target_e]`, and where asked for `expected[i] = Σ_v p_v w_v` for every
/// row. A row's numbers do not depend on the other rows. With `softcap` the logits are capped, `expected` is
/// `Σ_v p_v g_v w_v`, and `slopes[e]` becomes `g` of the entry's target, where asked for. With `rounded` the logits are
/// integer products (`expected` is not to be had with them).
///
/// # Shapes
/// `log_prob`, `slopes`: `[entries.len()]`, `expected`, `x`: `[m, c]`, `w`: `[v, c]`; `scratch`: [`scratch_len`].
pub fn head(
    level: Level,
    log_prob: &mut [f32],
    mut expected: Option<&mut [f32]>,
    mut slopes: Option<&mut [f32]>,
    x: &[f32],
    w: &Weight,
    entries: &[HeadEntry],
    m: usize,
    softcap: Option<f32>,
    mut rounded: Option<&mut Rounded>,
    scratch: &mut [f32],
) {
    let (v, c) = w.shape();
    assert!(rounded.is_none() || expected.is_none(), "gradients follow from exact products");
    assert_eq!(log_prob.len(), entries.len());
    assert!(slopes.as_ref().is_none_or(|slopes| slopes.len() == entries.len()));
    assert!(softcap.is_none_or(|cap| cap > 0.0), "a positive cap");
    assert_eq!(x.len(), m * c);
    assert!(expected.as_ref().is_none_or(|expected| expected.len() == m * c));
    assert!(entries.iter().all(|e| (e.row as usize) < m && (e.target as usize) < v), "an entry beyond {m} rows or {v} tokens");
    let (logits, scratch) = scratch.split_at_mut(m.min(ROWS) * TILE);
    let (states, scratch) = scratch.split_at_mut(m.min(ROWS) * STATE);
    for first in (0..m).step_by(ROWS) {
        let rows = (m - first).min(ROWS);
        let x = &x[first * c..][..rows * c];
        let mut expected = expected.as_mut().map(|expected| &mut expected[first * c..][..rows * c]);
        if let Some(rounded) = &mut rounded {
            rounded.round(level, x, rows, c);
        }
        let states = &mut states[..rows * STATE];
        for state in states.chunks_exact_mut(STATE) {
            state.fill(0.0);
            state[LANES] = LOWEST;
        }
        for n0 in (0..v).step_by(TILE) {
            let len = (v - n0).min(TILE);
            let logits = &mut logits[..rows * len];
            match &rounded {
                Some(rounded) => integer::linear_tile(level, logits, rounded, w, n0, len, false),
                None => matmul::linear_tile(level, logits, x, w, rows, n0, len, false, scratch),
            }
            if let Some(cap) = softcap {
                softcap_in_place(level, logits, cap);
            }
            for (log_prob, entry) in log_prob.iter_mut().zip(entries) {
                let place = (entry.row as usize).checked_sub(first).zip((entry.target as usize).checked_sub(n0));
                if let Some((row, token)) = place.filter(|&(row, token)| row < rows && token < len) {
                    *log_prob = logits[row * len + token]; // the logit for now
                }
            }
            logits.par_chunks_exact_mut(len).zip(states.par_chunks_exact_mut(STATE)).with_min_len(8).for_each(|(logits, state)| {
                level.dispatch(Soften { logits, state, softcap });
            });
            if let Some(expected) = &mut expected {
                let before = n0 > 0;
                if before {
                    expected.par_chunks_exact_mut(c).zip(states.par_chunks_exact(STATE)).with_min_len(32).for_each(|(expected, state)| {
                        if state[LANES + 1] != 1.0 {
                            expected.iter_mut().for_each(|x| *x *= state[LANES + 1]);
                        }
                    });
                }
                matmul::linear_backward_tile(level, expected, logits, w, rows, n0, len, before, scratch);
            }
        }
        // The state's first element becomes the sum, its maximum the logarithm of the softmax's denominator.
        for state in states.chunks_exact_mut(STATE) {
            level.dispatch(Finish { state });
        }
        // Still the logits of this part's entries.
        if let (Some(cap), Some(slopes)) = (softcap, slopes.as_deref_mut()) {
            let mine = |entry: &HeadEntry| (entry.row as usize).checked_sub(first).is_some_and(|row| row < rows);
            for ((slope, logit), entry) in slopes.iter_mut().zip(&*log_prob).zip(entries) {
                if mine(entry) {
                    *slope = 1.0 - (logit / cap) * (logit / cap);
                }
            }
        }
        for (log_prob, entry) in log_prob.iter_mut().zip(entries) {
            if let Some(state) = (entry.row as usize).checked_sub(first).and_then(|row| states.chunks_exact(STATE).nth(row)) {
                *log_prob -= state[LANES];
            }
        }
        if let Some(expected) = expected {
            expected.par_chunks_exact_mut(c).zip(states.par_chunks_exact(STATE)).with_min_len(32).for_each(|(expected, state)| {
                expected.iter_mut().for_each(|x| *x /= state[0]);
            });
        }
    }
}

/// Turns a row's logits into weights `exp(logit - top)` under the new maximum, and brings its state up to date. Under a
/// cap the weights are multiplied by their slopes, once they are summed.
struct Soften<'a> {
    logits: &'a mut [f32],
    state: &'a mut [f32],
    softcap: Option<f32>,
}

impl WithSimd for Soften<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (sums, tops) = self.state.split_at_mut(LANES);
        let old = tops[0];
        let mut top = s.splat(old);
        for x in self.logits.chunks(LANES) {
            top = s.max(top, if x.len() == LANES { s.load(x) } else { s.load_partial(x, LOWEST) });
        }
        tops[0] = s.reduce_max(top);
        tops[1] = s.to_array(math::exp(s, s.splat(old - tops[0])))[0];
        let top = s.splat(tops[0]);
        let mut sum = s.splat(0.0);
        for x in self.logits.chunks_mut(LANES) {
            let logit = if x.len() == LANES { s.load(x) } else { s.load_partial(x, f32::NEG_INFINITY) };
            let weight = math::exp(s, s.sub(logit, top));
            sum = s.add(sum, weight);
            store(s, x, self.softcap.map_or(weight, |cap| s.mul(weight, cap_slope(s, logit, cap))));
        }
        s.store(sums, s.mul_add(s.load(sums), s.splat(tops[1]), sum));
    }
}

struct Finish<'a> {
    state: &'a mut [f32],
}

impl WithSimd for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let sum = s.reduce_add(s.load(self.state));
        self.state[0] = sum;
        self.state[LANES] += s.to_array(math::ln(s, s.splat(sum)))[0];
    }
}

/// Logits that are summed in f32 before the sum goes on in f64.
const SUMMED: usize = 64 * LANES;

/// ln Σ exp(logit) of one row: every exponential and 64 additions a lane in f32, the rest in f64, in order.
pub fn log_sum_exp(level: Level, logits: &[f32]) -> f64 {
    let Some((_, top)) = largest(level, logits) else { return f64::NEG_INFINITY };
    let sum: f64 = logits.chunks(SUMMED).map(|logits| f64::from(level.dispatch(SumExp { logits, top }))).sum();
    f64::from(top) + math::scalar::ln(sum)
}

/// Place and value of the largest of `logits`, of equal ones the first; `None` where there is no number above -∞.
pub fn largest(level: Level, logits: &[f32]) -> Option<(usize, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (chunk, logits) in logits.chunks(SUMMED).enumerate() {
        let top = level.dispatch(Largest(logits));
        if top > best.1 {
            best = (chunk, top);
        }
    }
    let (chunk, top) = best;
    let within = logits.iter().skip(chunk * SUMMED).position(|&logit| logit == top);
    within.filter(|_| top > f32::NEG_INFINITY).map(|place| (chunk * SUMMED + place, top))
}

struct SumExp<'a> {
    logits: &'a [f32],
    top: f32,
}

impl WithSimd for SumExp<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (top, mut sum) = (s.splat(self.top), s.splat(0.0));
        for x in self.logits.chunks(LANES) {
            let logit = if x.len() == LANES { s.load(x) } else { s.load_partial(x, f32::NEG_INFINITY) };
            sum = s.add(sum, math::exp(s, s.sub(logit, top)));
        }
        s.reduce_add(sum)
    }
}

struct Largest<'a>(&'a [f32]);

impl WithSimd for Largest<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut top = s.splat(f32::NEG_INFINITY);
        for x in self.0.chunks(LANES) {
            // In this order what is no number is passed over.
            top = s.max(if x.len() == LANES { s.load(x) } else { s.load_partial(x, f32::NEG_INFINITY) }, top);
        }
        s.reduce_max(top)
    }
}

/// `dx[i] = Σ coefficient_e (slope_e w[target_e] - expected[i])` over the entries `e` on row `i`, in their order: the
/// gradient of `Σ coefficient_e · log_prob[e]`. Rows without entries get 0; without `slopes` they are 1.
///
/// # Shapes
/// `dx`, `expected`: `[m, c]`, `w`: `[v, c]`, `coefficients`, `slopes`: `[entries.len()]`; `scratch`: [`scratch_len`].
pub fn head_backward(
    dx: &mut [f32],
    expected: &[f32],
    slopes: Option<&[f32]>,
    w: &Weight,
    entries: &[HeadEntry],
    coefficients: &[f32],
    m: usize,
    scratch: &mut [f32],
) {
    let (v, c) = w.shape();
    assert!(dx.len() == m * c && expected.len() == m * c);
    assert_eq!(coefficients.len(), entries.len());
    assert!(slopes.is_none_or(|slopes| slopes.len() == entries.len()));
    assert!(entries.iter().all(|e| (e.row as usize) < m && (e.target as usize) < v), "an entry beyond {m} rows or {v} tokens");
    let workers = (scratch.len() / c).min(rayon::current_num_threads()).max(1);
    let rows = m.div_ceil(workers).max(1);
    let parts = dx.par_chunks_mut(rows * c).zip(expected.par_chunks(rows * c)).zip(scratch.par_chunks_exact_mut(c));
    parts.enumerate().for_each(|(part, ((dx, expected), target))| {
        dx.fill(0.0);
        let first = part * rows;
        for (e, (entry, &coefficient)) in entries.iter().zip(coefficients).enumerate() {
            let row = (entry.row as usize).wrapping_sub(first);
            if row >= dx.len() / c {
                continue;
            }
            w.row(entry.target as usize, target);
            let (dx, expected) = (&mut dx[row * c..][..c], &expected[row * c..][..c]);
            let slope = slopes.map_or(1.0, |slopes| slopes[e]);
            for ((dx, w), expected) in dx.iter_mut().zip(&*target).zip(expected) {
                *dx += coefficient * (slope * w - expected);
            }
        }
    });
}

/// `dw += ` the gradient of `Σ coefficient_e · log_prob[e]` in the head's own weight: with z the logits, p their softmax and g the
/// slope of the cap (1 without), row `t` gets `Σ_e coefficient_e g_t (δ(t, target_e) - p_t) x[row_e]`. The logits are computed
/// once more, tile by tile; `log_prob` and `slopes` are what [`head`] gave. Rows are added in order.
///
/// # Shapes
/// `dw`: `[v, c]`, `x`: `[m, c]`, `log_prob`, `slopes`, `coefficients`: `[entries.len()]`; `scratch`: [`scratch_len`].
pub fn head_weight_backward(
    level: Level,
    dw: &mut [f32],
    x: &[f32],
    w: &Weight,
    entries: &[HeadEntry],
    log_prob: &[f32],
    slopes: Option<&[f32]>,
    coefficients: &[f32],
    m: usize,
    softcap: Option<f32>,
    scratch: &mut [f32],
) {
    let (v, c) = w.shape();
    assert!(slopes.is_none_or(|slopes| slopes.len() == entries.len()));
    assert!(dw.len() == v * c && x.len() == m * c);
    assert!(coefficients.len() == entries.len() && log_prob.len() == entries.len());
    assert!(softcap.is_none_or(|cap| cap > 0.0), "a positive cap");
    assert!(entries.iter().all(|e| (e.row as usize) < m && (e.target as usize) < v), "an entry beyond {m} rows or {v} tokens");
    let (logits, scratch) = scratch.split_at_mut(m.min(ROWS) * TILE);
    let (states, scratch) = scratch.split_at_mut(m.min(ROWS) * STATE);
    for first in (0..m).step_by(ROWS) {
        let rows = (m - first).min(ROWS);
        let x = &x[first * c..][..rows * c];
        // Of each row: Σ of its coefficients, and the logarithm of the softmax's denominator.
        let states = &mut states[..2 * rows];
        states.as_chunks_mut::<2>().0.fill([0.0, f32::NAN]);
        let mine = |entry: &HeadEntry| (entry.row as usize).checked_sub(first).filter(|row| *row < rows);
        for (e, entry) in entries.iter().enumerate() {
            let Some(row) = mine(entry) else { continue };
            if states[2 * row + 1].is_nan() {
                let target = &mut scratch[..c];
                w.row(entry.target as usize, target);
                let logit = x[row * c..][..c].iter().zip(&*target).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
                let capped = softcap.map_or(logit, |cap| f64::from(cap) * math::scalar::tanh(logit / f64::from(cap)));
                states[2 * row + 1] = (capped - f64::from(log_prob[e])) as f32;
            }
            states[2 * row] += coefficients[e];
        }
        // As many tokens at a time as the scratch has room for as a left operand.
        let tile = TILE.min(2 * rows.next_multiple_of(64));
        for n0 in (0..v).step_by(tile) {
            let len = (v - n0).min(tile);
            let logits = &mut logits[..rows * len];
            matmul::linear_tile(level, logits, x, w, rows, n0, len, false, scratch);
            if let Some(cap) = softcap {
                softcap_in_place(level, logits, cap);
            }
            let of_tile = |entry: &HeadEntry| {
                let token = (entry.target as usize).checked_sub(n0).filter(|token| *token < len);
                mine(entry).zip(token).map(|(row, token)| row * len + token)
            };
            logits.par_chunks_exact_mut(len).zip(states.par_chunks_exact(2)).with_min_len(8).for_each(|(logits, state)| {
                level.dispatch(Probabilities { logits, factor: -state[0], log_sum: state[1], softcap });
            });
            for (e, entry) in entries.iter().enumerate() {
                if let Some(at) = of_tile(entry) {
                    logits[at] += coefficients[e] * slopes.map_or(1.0, |slopes| slopes[e]);
                }
            }
            matmul::matmul(level, &mut dw[n0 * c..][..len * c], logits, x, len, c, rows, true, false, 1.0, true, scratch);
        }
    }
}

/// A row's logits become `factor · p · g`.
struct Probabilities<'a> {
    logits: &'a mut [f32],
    factor: f32,
    log_sum: f32,
    softcap: Option<f32>,
}

impl WithSimd for Probabilities<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Probabilities { logits, factor, log_sum, softcap } = self;
        if factor == 0.0 {
            // Also a row without entries, whose denominator is not known.
            return logits.fill(0.0);
        }
        for x in logits.chunks_mut(LANES) {
            let logit = crate::elementwise::load(s, x);
            let value = s.mul(math::exp(s, s.sub(logit, s.splat(log_sum))), s.splat(factor));
            store(s, x, softcap.map_or(value, |cap| s.mul(value, cap_slope(s, logit, cap))));
        }
    }
}
