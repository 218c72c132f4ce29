//! The gated activations, soft caps, sums and factors against their definitions in f64.

mod common;

use common::{Draws, assert_close, bits, differences, wide, with_threads};
use kernels::elementwise::{Gate, add, add_rows, gate, gate_backward, scale, softcap};
use kernels::simd::Level;

const GATES: [Gate; 2] = [Gate::Silu, Gate::GeluTanh];

fn naive(gate: &[f64], up: &[f64], act: Gate) -> Vec<f64> {
    let act = |x: f64| match act {
        Gate::Silu => x / (1.0 + (-x).exp()),
        Gate::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
    };
    gate.iter().zip(up).map(|(&gate, up)| act(gate) * up).collect()
}

/// (h, dgate, dup).
fn fast(level: Level, gates: &[f32], up: &[f32], dh: &[f32], act: Gate) -> [Vec<f32>; 3] {
    let n = gates.len();
    let [mut h, mut dgate, mut dup] = [0, 1, 2].map(|_| vec![9.0; n + 3]);
    gate(level, &mut h[..n], gates, up, act);
    gate_backward(level, &mut dgate[..n], &mut dup[..n], dh, gates, up, act);
    [h, dgate, dup].map(|mut x| {
        assert!(x[n..] == [9.0; 3], "wrote past the end");
        x.truncate(n);
        x
    })
}

#[test]
fn agrees_with_the_definition_and_its_differences() {
    let mut draws = Draws::new(1);
    for (n, act) in [1, 15, 16, 17, 100].into_iter().flat_map(|n| GATES.map(|act| (n, act))) {
        let [gate, up, dh] = [0, 1, 2].map(|_| draws.normal(n).iter().map(|x| 3.0 * x).collect::<Vec<f32>>());
        let [h, dgate, dup] = fast(Level::detect(), &gate, &up, &dh, act);
        assert_close("h", &h, &naive(&wide(&gate), &wide(&up), act), 1e-6);
        let loss = |gate: &[f64], up: &[f64]| -> f64 { naive(gate, up, act).iter().zip(&dh).map(|(h, &dh)| h * f64::from(dh)).sum() };
        assert_close("dgate", &dgate, &differences(&wide(&gate), |gate| loss(gate, &wide(&up))), 2e-6);
        assert_close("dup", &dup, &differences(&wide(&up), |up| loss(&wide(&gate), up)), 2e-6);
    }
}

#[test]
fn extremes_stay_finite() {
    let gate = [-1e30, -200.0, -0.0, 0.0, 200.0, 1e30];
    for act in GATES {
        let [h, dgate, dup] = fast(Level::detect(), &gate, &[1.0; 6], &[1.0; 6], act);
        assert_eq!(h, [0.0, 0.0, 0.0, 0.0, 200.0, 1e30]);
        assert_eq!(dgate, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]);
        assert_eq!(dup, h);
        assert!(fast(Level::detect(), &[f32::NAN], &[1.0], &[1.0], act).iter().all(|x| x[0].is_nan()));
    }
}

#[test]
fn rows_get_a_bias() {
    let mut draws = Draws::new(5);
    for (m, n) in [(1, 1), (3, 17), (700, 48)] {
        let (mut y, bias) = (draws.normal(m * n), draws.normal(n));
        let want: Vec<f32> = y.iter().enumerate().map(|(i, y)| y + bias[i % n]).collect();
        with_threads(3, || add_rows(&mut y, &bias));
        assert_eq!(y, want);
    }
}

#[test]
fn capped_numbers_stay_within_their_cap() {
    let x: Vec<f32> = Draws::new(6).normal(1001).iter().map(|x| 40.0 * x).chain([0.0, 1e30, -1e30]).collect();
    let want: Vec<f64> = x.iter().map(|&x| 30.0 * (f64::from(x) / 30.0).tanh()).collect();
    for &level in Level::available() {
        let mut y = x.clone();
        softcap(level, &mut y, 30.0);
        assert_close("y", &y, &want, 3e-7);
        assert_eq!(y[1001..], [0.0, 30.0, -30.0]);
        let mut portable = x.clone();
        softcap(Level::Portable, &mut portable, 30.0);
        assert_eq!(bits(&y), bits(&portable), "{level:?}");
    }
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
    for act in GATES {
        let first = fast(Level::Portable, &gate, &up, &dh, act).map(|x| bits(&x));
        for &level in Level::available() {
            for threads in [1, 2, 3, 7] {
                let again = with_threads(threads, || fast(level, &gate, &up, &dh, act)).map(|x| bits(&x));
                assert!(again == first, "{act:?} at {level:?} with {threads} threads");
            }
        }
    }
}
