//! RMS normalisation against its definition in f64.

mod common;

use common::{Draws, assert_close, bits, wide, with_threads};
use kernels::norm::{rms_norm, rms_norm_backward};
use kernels::simd::Level;

const EPS: f32 = 1e-5;

fn naive(x: &[f64], gain: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let c = gain.len();
    let rstd: Vec<f64> = x.chunks(c).map(|x| 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / c as f64 + f64::from(EPS)).sqrt()).collect();
    let y = x.iter().enumerate().map(|(i, x)| x * rstd[i / c] * gain[i % c]).collect();
    (y, rstd)
}

/// (y, rstd, dx on top of `start`).
fn fast(level: Level, x: &[f32], gain: &[f32], dy: &[f32], start: f32) -> [Vec<f32>; 3] {
    let (n, c) = (x.len(), gain.len());
    let m = n / c;
    let (mut y, mut rstd, mut dx) = (vec![9.0; n + 5], vec![9.0; m + 5], vec![start; n + 5]);
    rms_norm(level, &mut y[..n], &mut rstd[..m], x, gain, m, c, EPS);
    rms_norm_backward(level, &mut dx[..n], dy, x, gain, &rstd[..m], m, c);
    assert!(y[n..].iter().chain(&rstd[m..]).all(|&x| x == 9.0) && dx[n..].iter().all(|&x| x == start), "wrote past the end");
    y.truncate(n);
    rstd.truncate(m);
    dx.truncate(n);
    [y, rstd, dx]
}

#[test]
fn agrees_with_the_definition_and_its_differences() {
    let mut draws = Draws::new(1);
    for (m, c) in [(1, 1), (3, 7), (2, 16), (5, 33), (40, 576)] {
        let [x, dy] = [0, 1].map(|_| draws.normal(m * c));
        let gain = draws.normal(c);
        let [y, rstd, dx] = fast(Level::detect(), &x, &gain, &dy, 0.5);
        let (want, want_rstd) = naive(&wide(&x), &wide(&gain));
        assert_close("y", &y, &want, 1e-6);
        assert_close("rstd", &rstd, &want_rstd, 1e-6);
        if c < 100 {
            let loss = |x: &[f64]| -> f64 { naive(x, &wide(&gain)).0.iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum() };
            assert_close("dx", &dx, &common::differences(&wide(&x), loss).iter().map(|d| d + 0.5).collect::<Vec<_>>(), 2e-6);
        }
    }
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let mut draws = Draws::new(2);
    let (m, c) = (70, 579);
    let [x, dy] = [0, 1].map(|_| draws.normal(m * c));
    let gain = draws.normal(c);
    let first = fast(Level::Portable, &x, &gain, &dy, 0.0).map(|x| bits(&x));
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            let again = with_threads(threads, || fast(level, &x, &gain, &dy, 0.0)).map(|x| bits(&x));
            assert!(again == first, "{level:?} with {threads} threads");
        }
    }
}
