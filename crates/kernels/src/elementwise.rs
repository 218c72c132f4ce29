//! Element by element: the gated activation, sums and factors.

use crate::math;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements of a task.
const TASK: usize = 1 << 14;

/// `h = silu(gate) · up`, with `silu(x) = x · sigmoid(x)` (SwiGLU, Shazeer 2020). All of one length.
pub fn silu_gate(level: Level, h: &mut [f32], gate: &[f32], up: &[f32]) {
    assert!(h.len() == gate.len() && h.len() == up.len());
    let parts = h.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
    parts.for_each(|((h, gate), up)| level.dispatch(SiluGate { h, gate, up }));
}

struct SiluGate<'a> {
    h: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl WithSimd for SiluGate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for ((h, gate), up) in self.h.chunks_mut(LANES).zip(self.gate.chunks(LANES)).zip(self.up.chunks(LANES)) {
            let gate = load(s, gate);
            store(s, h, s.mul(s.mul(gate, math::sigmoid(s, gate)), load(s, up)));
        }
    }
}

/// `dup = dh · silu(gate)` and `dgate = dh · up · σ (1 + gate (1 - σ))` with `σ = sigmoid(gate)`. All of one length.
pub fn silu_gate_backward(level: Level, dgate: &mut [f32], dup: &mut [f32], dh: &[f32], gate: &[f32], up: &[f32]) {
    let n = dgate.len();
    assert!(dup.len() == n && dh.len() == n && gate.len() == n && up.len() == n);
    let outputs = dgate.par_chunks_mut(TASK).zip(dup.par_chunks_mut(TASK));
    let inputs = dh.par_chunks(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
    outputs.zip(inputs).for_each(|((dgate, dup), ((dh, gate), up))| {
        level.dispatch(SiluGateBackward { dgate, dup, dh, gate, up });
    });
}

struct SiluGateBackward<'a> {
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    dh: &'a [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl WithSimd for SiluGateBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SiluGateBackward { dgate, dup, dh, gate, up } = self;
        let outputs = dgate.chunks_mut(LANES).zip(dup.chunks_mut(LANES));
        let inputs = dh.chunks(LANES).zip(gate.chunks(LANES)).zip(up.chunks(LANES));
        for ((dgate, dup), ((dh, gate), up)) in outputs.zip(inputs) {
            let (dh, gate, up) = (load(s, dh), load(s, gate), load(s, up));
            let sigma = math::sigmoid(s, gate);
            let one = s.splat(1.0);
            let slope = s.mul(sigma, s.mul_add(gate, s.sub(one, sigma), one));
            store(s, dgate, s.mul(s.mul(dh, up), slope));
            store(s, dup, s.mul(dh, s.mul(gate, sigma)));
        }
    }
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
