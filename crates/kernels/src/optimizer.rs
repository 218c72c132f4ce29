//! The optimiser's arithmetic: AdamW and the norm that gradients are clipped by.

pub mod eight_bit;

use crate::elementwise::{load, store};
use crate::math::scalar;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Elements of a task, and of a leaf of the tree of [`squared_norm`].
const TASK: usize = 1 << 13;

/// The numbers of one AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Step number, from 1.
    pub step: u32,
    /// Factor on the gradient.
    pub gradient_scale: f32,
}

/// One step of AdamW (Loshchilov & Hutter 2019), operation by operation as PyTorch's `torch.optim.AdamW`:
///
/// ```text
/// g' = gradient_scale · g          p -= learning_rate · weight_decay · p
/// m += (1 - beta1)(g' - m)         v = beta2 · v + (1 - beta2) g'²
/// p -= learning_rate / (1 - beta1^step) · m / (√v / √(1 - beta2^step) + eps)
/// ```
///
/// Factors that hold for the whole step are computed in f64. `p`, `m`, `v` and `g` are of one length.
pub fn adamw(level: Level, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: Step) {
    let n = p.len();
    assert!(m.len() == n && v.len() == n && g.len() == n);
    assert!(step.step > 0, "steps count from 1");
    let factors = Factors::new(step);
    let parts = p.par_chunks_mut(TASK).zip(m.par_chunks_mut(TASK)).zip(v.par_chunks_mut(TASK)).zip(g.par_chunks(TASK));
    parts.for_each(|(((p, m), v), g)| level.dispatch(AdamW { p, m, v, g, factors }));
}

/// What is the same for all elements of a step.
#[derive(Clone, Copy)]
struct Factors {
    gradient: f32,
    decay: f32,
    first: f32,
    beta2: f32,
    second: f32,
    root: f32,
    eps: f32,
    size: f32,
}

impl Factors {
    fn new(step: Step) -> Factors {
        let (rate, beta1, beta2) = (f64::from(step.learning_rate), f64::from(step.beta1), f64::from(step.beta2));
        let correction = |beta: f64| 1.0 - scalar::pow(beta, f64::from(step.step));
        Factors {
            gradient: step.gradient_scale,
            decay: (1.0 - rate * f64::from(step.weight_decay)) as f32,
            first: (1.0 - beta1) as f32,
            beta2: step.beta2,
            second: (1.0 - beta2) as f32,
            root: scalar::sqrt(correction(beta2)) as f32,
            eps: step.eps,
            size: (rate / correction(beta1)) as f32,
        }
    }
}

struct AdamW<'a> {
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
    factors: Factors,
}

impl WithSimd for AdamW<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let AdamW { p, m, v, g, factors } = self;
        update(s, p, m, v, g, factors);
    }
}

/// The formula of [`adamw`] on slices of one length.
#[inline(always)]
fn update<S: Simd>(s: S, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], f: Factors) {
    let parts = p.chunks_mut(LANES).zip(m.chunks_mut(LANES)).zip(v.chunks_mut(LANES)).zip(g.chunks(LANES));
    for (((p, m), v), g) in parts {
        let g = s.mul(load(s, g), s.splat(f.gradient));
        let decayed = s.mul(load(s, p), s.splat(f.decay));
        let old = load(s, m);
        let first = s.add(old, s.mul(s.splat(f.first), s.sub(g, old)));
        let second = s.add(s.mul(load(s, v), s.splat(f.beta2)), s.mul(s.mul(s.splat(f.second), g), g));
        let denominator = s.add(s.div(s.sqrt(second), s.splat(f.root)), s.splat(f.eps));
        store(s, p, s.sub(decayed, s.mul(s.splat(f.size), s.div(first, denominator))));
        store(s, m, first);
        store(s, v, second);
    }
}

/// Σ x² in f64: leaves of 8192 elements, summed in 16 lanes, under a tree that depends on the length alone.
pub fn squared_norm(level: Level, x: &[f32]) -> f64 {
    if x.len() <= TASK {
        return level.dispatch(SquaredNorm { x });
    }
    let (low, high) = x.split_at((x.len() / 2).next_multiple_of(TASK));
    let (low, high) = rayon::join(|| squared_norm(level, low), || squared_norm(level, high));
    low + high
}

struct SquaredNorm<'a> {
    x: &'a [f32],
}

impl WithSimd for SquaredNorm<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        // The square of an f32 is exact in f64; the compiler makes vectors of these loops.
        let mut lanes = [0.0f64; LANES];
        let mut chunks = self.x.chunks_exact(LANES);
        for x in &mut chunks {
            for i in 0..LANES {
                lanes[i] += f64::from(x[i]) * f64::from(x[i]);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += f64::from(x) * f64::from(x);
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }
}
