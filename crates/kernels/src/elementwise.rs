//! Element by element: the gated activation, soft caps, sums and factors.

use crate::math;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements of a task.
const TASK: usize = 1 << 14;

/// The activation of a gated MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `x · sigmoid(x)` (SwiGLU, Shazeer 2020).
    Silu,
    /// GELU in its tanh form, `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks & Gimpel 2016).
    GeluTanh,
}

/// Inputs beyond this are 0 or `x` itself under [`Gate::GeluTanh`] in f32, and their cubes stay finite.
const GELU_BOUND: f32 = 30.0;
/// 2 √(2/π): `(1 + tanh u) / 2 = sigmoid(2 u)`, which is exact in both tails.
const GELU_FACTOR: f32 = 1.595_769_2;
const GELU_CUBE: f32 = 0.044_715;

impl Gate {
    /// `(act(x), act'(x))`.
    #[inline(always)]
    fn value_and_slope<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        let one = s.splat(1.0);
        match self {
            Gate::Silu => {
                let sigma = math::sigmoid(s, x);
                (s.mul(x, sigma), s.mul(sigma, s.mul_add(x, s.sub(one, sigma), one)))
            }
            Gate::GeluTanh => {
                let bounded = s.max(s.splat(-GELU_BOUND), s.min(s.splat(GELU_BOUND), x));
                let square = s.mul(bounded, bounded);
                let cubic = s.mul_add(square, s.splat(GELU_CUBE), one);
                let sigma = math::sigmoid(s, s.mul(s.mul(bounded, s.splat(GELU_FACTOR)), cubic));
                // d/dx of the sigmoid's argument: 2 √(2/π) (1 + 3 · 0.044715 x²)
                let slope = s.mul(s.mul_add(square, s.splat(3.0 * GELU_CUBE), one), s.splat(GELU_FACTOR));
                let rest = s.mul(s.mul(bounded, slope), s.sub(one, sigma));
                (s.mul(x, sigma), s.mul(sigma, s.add(one, rest)))
            }
        }
    }
}

/// `h = act(gate) · up`. All of one length.
pub fn gate(level: Level, h: &mut [f32], gate: &[f32], up: &[f32], act: Gate) {
    assert!(h.len() == gate.len() && h.len() == up.len());
    let parts = h.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
    parts.for_each(|((h, gate), up)| level.dispatch(Forward { h, gate, up, act }));
}

struct Forward<'a> {
    h: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
    act: Gate,
}

impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for ((h, gate), up) in self.h.chunks_mut(LANES).zip(self.gate.chunks(LANES)).zip(self.up.chunks(LANES)) {
            let (value, _) = self.act.value_and_slope(s, load(s, gate));
            store(s, h, s.mul(value, load(s, up)));
        }
    }
}

/// `dup = dh · act(gate)` and `dgate = dh · up · act'(gate)`. All of one length.
pub fn gate_backward(level: Level, dgate: &mut [f32], dup: &mut [f32], dh: &[f32], gate: &[f32], up: &[f32], act: Gate) {
    let n = dgate.len();
    assert!(dup.len() == n && dh.len() == n && gate.len() == n && up.len() == n);
    let outputs = dgate.par_chunks_mut(TASK).zip(dup.par_chunks_mut(TASK));
    let inputs = dh.par_chunks(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
    outputs.zip(inputs).for_each(|((dgate, dup), ((dh, gate), up))| {
        level.dispatch(Backward { dgate, dup, dh, gate, up, act });
    });
}

struct Backward<'a> {
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    dh: &'a [f32],
    gate: &'a [f32],
    up: &'a [f32],
    act: Gate,
}

impl WithSimd for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { dgate, dup, dh, gate, up, act } = self;
        let outputs = dgate.chunks_mut(LANES).zip(dup.chunks_mut(LANES));
        let inputs = dh.chunks(LANES).zip(gate.chunks(LANES)).zip(up.chunks(LANES));
        for ((dgate, dup), ((dh, gate), up)) in outputs.zip(inputs) {
            let (dh, gate, up) = (load(s, dh), load(s, gate), load(s, up));
            let (value, slope) = act.value_and_slope(s, gate);
            store(s, dgate, s.mul(s.mul(dh, up), slope));
            store(s, dup, s.mul(dh, value));
        }
    }
}

/// `y[i] += bias` for every row `i` of `bias.len()` elements.
pub fn add_rows(y: &mut [f32], bias: &[f32]) {
    let n = bias.len();
    assert!(n > 0 && y.len().is_multiple_of(n));
    let rows = TASK.div_ceil(n);
    y.par_chunks_mut(rows * n).for_each(|y| y.chunks_exact_mut(n).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b)));
}

/// `x = cap · tanh(x / cap)` (soft-capping, Gemma 2): within ±cap, and nearly `x` near 0.
pub fn softcap(level: Level, x: &mut [f32], cap: f32) {
    assert!(cap > 0.0, "a positive cap");
    x.par_chunks_mut(TASK).for_each(|x| level.dispatch(Softcap { x, cap }));
}

struct Softcap<'a> {
    x: &'a mut [f32],
    cap: f32,
}

impl WithSimd for Softcap<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(LANES) {
            store(s, x, capped(s, load(s, x), 1.0 / self.cap, self.cap));
        }
    }
}

/// `cap · tanh(x · factor)`; with the factor scale / cap: the capped score of the dot product `x`.
#[inline(always)]
pub(crate) fn capped<S: Simd>(s: S, x: S::F, factor: f32, cap: f32) -> S::F {
    s.mul(math::tanh(s, s.mul(x, s.splat(factor))), s.splat(cap))
}

/// The slope of soft-capping where it gave `y`: `1 - (y / cap)²`; 0 for -inf, which is what a hidden score is.
#[inline(always)]
pub(crate) fn cap_slope<S: Simd>(s: S, y: S::F, cap: f32) -> S::F {
    let t = s.max(s.splat(-1.0), s.mul(y, s.splat(1.0 / cap)));
    s.neg_mul_add(t, t, s.splat(1.0))
}

/// `y += x`. Both of one length.
pub fn add(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len());
    y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
}

/// `x *= factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    x.par_chunks_mut(TASK).for_each(|x| x.iter_mut().for_each(|x| *x *= factor));
}

/// Up to 16 elements, zeros after them.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, x: &[f32]) -> S::F {
    if x.len() >= LANES { s.load(x) } else { s.load_partial(x, 0.0) }
}

/// Up to 16 elements.
#[inline(always)]
pub(crate) fn store<S: Simd>(s: S, x: &mut [f32], v: S::F) {
    if x.len() >= LANES { s.store(x, v) } else { s.store_partial(x, v) }
}
