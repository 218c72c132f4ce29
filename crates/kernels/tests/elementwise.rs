//! The gated activation, sums and factors against their definitions in f64.

mod common;

use common::{Draws, assert_close, bits, differences, wide, with_threads};
use kernels::elementwise::{add, scale, silu_gate, silu_gate_backward};
use kernels::simd::Level;

fn naive(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
}

/// (h, dgate, dup).
fn fast(level: Level, gate: &[f32], up: &[f32], dh: &[f32]) -> [Vec<f32>; 3] {
    let n = gate.len();
    let [mut h, mut dgate, mut dup] = [0, 1, 2].map(|_| vec![9.0; n + 3]);
    silu_gate(level, &mut h[..n], gate, up);
    silu_gate_backward(level, &mut dgate[..n], &mut dup[..n], dh, gate, up);
    [h, dgate, dup].map(|mut x| {
        assert!(x[n..] == [9.0; 3], "wrote past the end");
        x.truncate(n);
        x
    })
}

#[test]
fn agrees_with_the_definition_and_its_differences() {
    let mut draws = Draws::new(1);
    for n in [1, 15, 16, 17, 100] {
        let [gate, up, dh] = [0, 1, 2].map(|_| draws.normal(n).iter().map(|x| 3.0 * x).collect::<Vec<f32>>());
        let [h, dgate, dup] = fast(Level::detect(), &gate, &up, &dh);
        assert_close("h", &h, &naive(&wide(&gate), &wide(&up)), 1e-6);
        let loss = |gate: &[f64], up: &[f64]| -> f64 { naive(gate, up).iter().zip(&dh).map(|(h, &dh)| h * f64::from(dh)).sum() };
        assert_close("dgate", &dgate, &differences(&wide(&gate), |gate| loss(gate, &wide(&up))), 2e-6);
        assert_close("dup", &dup, &differences(&wide(&up), |up| loss(&wide(&gate), up)), 2e-6);
    }
}

#[test]
fn extremes_stay_finite() {
    let gate = [-1e30, -200.0, -0.0, 0.0, 200.0, 1e30];
    let [h, dgate, dup] = fast(Level::detect(), &gate, &[1.0; 6], &[1.0; 6]);
    assert_eq!(h, [0.0, 0.0, 0.0, 0.0, 200.0, 1e30]);
    assert_eq!(dgate, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]);
    assert_eq!(dup, h);
}

#[test]
fn sums_and_factors() {
    let mut draws = Draws::new(3);
    let n = 40_001;
    let (mut y, x) = (draws.normal(n), draws.normal(n));
    let want: Vec<f32> = y.iter().zip(&x).map(|(y, x)| (y + x) * 0.3).collect();
    with_threads(3, || {
        add(&mut y, &x);
        scale(&mut y, 0.3);
    });
    assert_eq!(y, want);
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let mut draws = Draws::new(2);
    let [gate, up, dh] = [0, 1, 2].map(|_| draws.normal(50_003));
    let first = fast(Level::Portable, &gate, &up, &dh).map(|x| bits(&x));
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            let again = with_threads(threads, || fast(level, &gate, &up, &dh)).map(|x| bits(&x));
            assert!(again == first, "{level:?} with {threads} threads");
        }
    }
}
