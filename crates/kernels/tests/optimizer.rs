//! AdamW against PyTorch's formula in f64, and the norm against its definition.

mod common;

use common::{Draws, assert_close, bits, wide, with_threads};
use kernels::optimizer::{Step, adamw, squared_norm};
use kernels::simd::Level;

const STEP: Step = Step { learning_rate: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, gradient_scale: 0.5 };

/// Several steps of the formula in `torch.optim.AdamW`'s documentation. Returns (p, m, v).
fn naive(p: &[f64], gradients: &[Vec<f64>]) -> [Vec<f64>; 3] {
    let [rate, beta1, beta2, eps, decay, factor] =
        [STEP.learning_rate, STEP.beta1, STEP.beta2, STEP.eps, STEP.weight_decay, STEP.gradient_scale].map(f64::from);
    let (mut p, mut m, mut v) = (p.to_vec(), vec![0.0; p.len()], vec![0.0; p.len()]);
    for (t, gradient) in gradients.iter().enumerate() {
        let t = t as i32 + 1;
        for i in 0..p.len() {
            let g = gradient[i] * factor;
            p[i] -= rate * decay * p[i];
            m[i] = beta1 * m[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (m[i] / (1.0 - beta1.powi(t)), v[i] / (1.0 - beta2.powi(t)));
            p[i] -= rate * m_hat / (v_hat.sqrt() + eps);
        }
    }
    [p, m, v]
}

fn fast(level: Level, p: &[f32], gradients: &[Vec<f32>]) -> [Vec<f32>; 3] {
    let n = p.len();
    let (mut p, mut m, mut v) = ([p, &[9.0]].concat(), vec![0.0; n + 1], vec![0.0; n + 1]);
    for (t, g) in gradients.iter().enumerate() {
        adamw(level, &mut p[..n], &mut m[..n], &mut v[..n], g, Step { step: t as u32 + 1, ..STEP });
    }
    assert_eq!((p.pop(), m.pop(), v.pop()), (Some(9.0), Some(0.0), Some(0.0)), "wrote past the end");
    [p, m, v]
}

#[test]
fn agrees_with_pytorchs_formula() {
    let mut draws = Draws::new(1);
    for n in [1, 16, 19, 500] {
        let p = draws.normal(n);
        let gradients: Vec<Vec<f32>> = (0..100).map(|_| draws.normal(n)).collect();
        let got = fast(Level::detect(), &p, &gradients);
        let want = naive(&wide(&p), &gradients.iter().map(|g| wide(g)).collect::<Vec<_>>());
        for ((name, got), want) in ["p", "m", "v"].into_iter().zip(&got).zip(&want) {
            // A hundred times the rounding of the decay's factor, as in PyTorch: 100 · 2⁻²⁵ and the steps' own.
            assert_close(name, got, want, 6e-6);
        }
    }
}

/// `p = torch.tensor([1.0, -2.0, 0.5]); opt = torch.optim.AdamW([p], lr=0.1, weight_decay=0.01)`, one step with the gradient
/// [0.1, -0.2, 0.0]: the first step moves by the learning rate against the sign, after the decay.
#[test]
fn the_first_step_is_the_learning_rate() {
    let step = Step { learning_rate: 0.1, weight_decay: 0.01, gradient_scale: 1.0, ..STEP };
    let (mut p, mut m, mut v) = ([1.0, -2.0, 0.5], [0.0; 3], [0.0; 3]);
    adamw(Level::detect(), &mut p, &mut m, &mut v, &[0.1, -0.2, 0.0], step);
    assert_close("p", &p, &[0.899, -1.898, 0.4995], 1e-6);
}

#[test]
fn norm_is_exact_and_its_tree_is_fixed() {
    let mut draws = Draws::new(2);
    for n in [0, 1, 17, 8192, 8193, 100_003] {
        let x = draws.normal(n);
        let want: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let got = squared_norm(Level::Portable, &x);
        assert!((got - want).abs() <= 1e-12 * want, "{n}: got {got}, want {want}");
        for &level in Level::available() {
            for threads in [1, 2, 3, 7] {
                assert_eq!(with_threads(threads, || squared_norm(level, &x)).to_bits(), got.to_bits(), "{n} at {level:?} with {threads}");
            }
        }
    }
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let mut draws = Draws::new(3);
    let p = draws.normal(30_005);
    let gradients: Vec<Vec<f32>> = (0..3).map(|_| draws.normal(30_005)).collect();
    let first = fast(Level::Portable, &p, &gradients).map(|x| bits(&x));
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            let again = with_threads(threads, || fast(level, &p, &gradients)).map(|x| bits(&x));
            assert!(again == first, "{level:?} with {threads} threads");
        }
    }
}
