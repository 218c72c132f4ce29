//! AdamW with moments in 8 bits: codes against a linear search, steps against the formula in f64 and against bitsandbytes.

mod common;

use common::{Draws, assert_close, bits, wide, with_threads};
use kernels::optimizer::eight_bit::{BLOCK, FIRST, Moment, SECOND, adamw, blocks, first_code, second_code};
use kernels::optimizer::{self, Step};
use kernels::simd::Level;

const STEP: Step = Step { learning_rate: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, gradient_scale: 0.5 };

/// Parameters and both moments, with a sentinel past each end.
#[derive(Clone, PartialEq)]
struct State {
    p: Vec<f32>,
    codes: [Vec<u8>; 2],
    scales: [Vec<f32>; 2],
}

impl State {
    /// At zero moments, which have the codes 127 and 0 but need not: their scales are 0.
    fn new(p: &[f32]) -> State {
        let n = p.len();
        State { p: [p, &[9.0]].concat(), codes: [vec![9; n + 1], vec![9; n + 1]], scales: [0, 1].map(|_| vec![0.0; blocks(n) + 1]) }
    }

    fn step(&mut self, level: Level, g: &[f32], step: Step) {
        let n = g.len();
        let ([first, second], [first_scales, second_scales]) = (&mut self.codes, &mut self.scales);
        let first = Moment { codes: &mut first[..n], scales: &mut first_scales[..blocks(n)] };
        let second = Moment { codes: &mut second[..n], scales: &mut second_scales[..blocks(n)] };
        adamw(level, &mut self.p[..n], first, second, g, step);
        let past = (self.p[n], self.codes[0][n], self.codes[1][n], self.scales[0][blocks(n)], self.scales[1][blocks(n)]);
        assert_eq!(past, (9.0, 9, 9, 0.0, 0.0), "wrote past the end");
    }

    fn moments(&self) -> [Vec<f64>; 2] {
        [(0, &FIRST), (1, &SECOND)].map(|(i, values)| {
            let value = |(j, &code): (usize, &u8)| f64::from(values[usize::from(code)]) * f64::from(self.scales[i][j / BLOCK]);
            self.codes[i][..self.p.len() - 1].iter().enumerate().map(value).collect()
        })
    }
}

fn nearest(values: &[f32; 256], x: f64) -> usize {
    let distance = |i: &usize| (f64::from(values[*i]) - x).abs();
    (0..256).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
}

#[test]
fn maps_are_the_papers() {
    for map in [&FIRST, &SECOND] {
        assert!(map.is_sorted_by(|a, b| a < b));
    }
    assert_eq!((FIRST[127], FIRST[255], SECOND[0], SECOND[255]), (0.0, 1.0, 0.0, 1.0));
    // bitsandbytes.functional.create_dynamic_map(signed=False)[[1, 2, 3, 126, 127, 254]]
    let places = [1, 2, 3, 126, 127, 254].map(|i| SECOND[i]);
    assert_close("second", &places, &[3.25e-7, 7.75e-7, 2.125e-6, 0.099_296_875, 0.103_515_625, 0.996_484_4], 1e-7);
    assert!((f64::from(SECOND[1]) / 3.25e-7 - 1.0).abs() < 1e-6);
}

#[test]
fn codes_are_the_nearest() {
    let check = |x: f32| {
        for (share, code, values) in [(x, first_code(x), &FIRST), (-x, first_code(-x), &FIRST), (x, second_code(x), &SECOND)] {
            let want = nearest(values, f64::from(share));
            let distance = |code: usize| (f64::from(values[code]) - f64::from(share)).abs();
            // Boundaries are rounded to f32.
            let same = distance(code.into()) <= distance(want) + 1.2e-7 * f64::from(x);
            let raised = values[1] > 0.0 && share > 0.0 && want == 0 && code == 1;
            assert!(same || raised, "{share:e}: code {code}, the nearest is {want}");
        }
    };
    [0.0, f32::MIN_POSITIVE, 1e-44, 1.0].into_iter().for_each(check);
    let mut draws = Draws::new(11);
    (0..20_000).for_each(|_| check((10f64.powf(-9.0 * draws.unit())) as f32));
    for values in [&FIRST, &SECOND] {
        for pair in values.windows(2) {
            let middle = ((f64::from(pair[0]) + f64::from(pair[1])) / 2.0) as f32;
            let around = [pair[1], middle, middle.next_up(), middle.next_down()];
            around.into_iter().map(f32::abs).filter(|&x| x <= 1.0).for_each(check);
        }
    }
    assert_eq!((first_code(-1.0), first_code(-0.0), second_code(1e-30), second_code(0.0)), (0, 127, 1, 0));
}

#[test]
fn steps_are_the_formula_s_on_rounded_moments() {
    let mut draws = Draws::new(12);
    let [rate, beta1, beta2, eps, decay, factor] =
        [STEP.learning_rate, STEP.beta1, STEP.beta2, STEP.eps, STEP.weight_decay, STEP.gradient_scale].map(f64::from);
    for n in [1, 16, 255, 256, 257, 1000, 9001] {
        let mut state = State::new(&draws.normal(n));
        for step in 1..=20 {
            let g: Vec<f32> = draws.normal(n).iter().enumerate().map(|(i, g)| g * 10f32.powi(-(i as i32 % 5))).collect();
            let (before, p) = (state.moments(), wide(&state.p[..n]));
            state.step(Level::detect(), &g, Step { step, ..STEP });
            let after = state.moments();
            let (mut m, mut v, mut want) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            for i in 0..n {
                let g = f64::from(g[i]) * factor;
                m[i] = beta1 * before[0][i] + (1.0 - beta1) * g;
                v[i] = beta2 * before[1][i] + (1.0 - beta2) * g * g;
                let (m_hat, v_hat) = (m[i] / (1.0 - beta1.powi(step as i32)), v[i] / (1.0 - beta2.powi(step as i32)));
                want[i] = p[i] * (1.0 - rate * decay) - rate * m_hat / (v_hat.sqrt() + eps);
            }
            assert_close("p", &state.p[..n], &want, 2e-6);
            for (exact, after, values, name) in [(&m, &after[0], &FIRST, "first"), (&v, &after[1], &SECOND, "second")] {
                for (block, (exact, after)) in exact.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate() {
                    let scale = exact.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                    for (&x, &held) in exact.iter().zip(after) {
                        let nearest = f64::from(values[nearest(values, x / scale)]) * scale;
                        let raised = f64::from(values[1]) * scale;
                        // As near as the nearest code, but for f32's rounding before a boundary; or the smallest code.
                        let near = (held - x).abs() <= (nearest - x).abs() + 1e-6 * scale.max(x.abs());
                        assert!(near || (held - raised).abs() < 1e-6 * raised, "{name}, block {block}: {x:e} became {held:e}");
                    }
                }
            }
        }
    }
}

/// Blocks of large and small numbers do not disturb each other, and zeros stay zeros.
#[test]
fn extremes_stay_finite() {
    let n = 3 * BLOCK;
    let mut state = State::new(&vec![1.0; n]);
    let g: Vec<f32> = (0..n).map(|i| [1e30, 1e-30, 0.0][i / BLOCK] * (1.0 + (i % 7) as f32)).collect();
    for step in 1..=3 {
        state.step(Level::detect(), &g, Step { step, weight_decay: 0.0, ..STEP });
    }
    assert!(state.p.iter().chain(state.scales.iter().flatten()).all(|x| x.is_finite()), "{:?}", state.scales);
    assert!(state.p[2 * BLOCK..n].iter().all(|&p| p == 1.0), "no gradient, no change");
    // Second moments beyond f32 stop a number, as they do with moments in f32; in 8 bits they stand at the largest number.
    assert!(state.p[..BLOCK].iter().all(|&p| p <= 1.0) && state.scales[1][0] == f32::MAX);
}

/// A number of small gradients beside one of large ones is not thrown about: its second moment never becomes zero.
#[test]
fn small_neighbours_take_no_large_steps() {
    let (n, step) = (BLOCK, Step { weight_decay: 0.0, gradient_scale: 1.0, ..STEP });
    let (mut state, mut exact) = (State::new(&vec![0.0; n]), (vec![0.0; n], vec![0.0; n], vec![0.0; n]));
    // The square of 1e-4 is a 1e-8 of the block's largest, below half of the smallest code.
    let g: Vec<f32> = (0..n).map(|i| if i == 0 { 1.0 } else { 1e-4 }).collect();
    for t in 1..=50 {
        state.step(Level::detect(), &g, Step { step: t, ..step });
        optimizer::adamw(Level::detect(), &mut exact.0, &mut exact.1, &mut exact.2, &g, Step { step: t, ..step });
    }
    assert!(state.p[1].abs() <= exact.0[1].abs(), "{} of {}", state.p[1], exact.0[1]);
    assert!(state.p[1] < 0.0 && (state.p[0] / exact.0[0] - 1.0).abs() < 0.02, "{} of {}", state.p[0], exact.0[0]);
}

/// Least squares in 600 numbers whose curvatures span four decades: as near to the solution as with moments in f32.
#[test]
fn converges_as_moments_in_f32_do() {
    let mut draws = Draws::new(13);
    let n = 600;
    let (goal, start) = (draws.normal(n), draws.normal(n));
    let curvature: Vec<f32> = (0..n).map(|_| 10f64.powf(-4.0 * draws.unit()) as f32).collect();
    let step = Step { learning_rate: 0.02, weight_decay: 0.0, gradient_scale: 1.0, ..STEP };
    let gradient = |p: &[f32]| -> Vec<f32> { (0..n).map(|i| curvature[i] * (p[i] - goal[i])).collect() };
    let loss = |p: &[f32]| -> f64 { (0..n).map(|i| f64::from(curvature[i] * (p[i] - goal[i]).powi(2))).sum() };
    let (mut state, mut p, mut m, mut v) = (State::new(&start), start.clone(), vec![0.0; n], vec![0.0; n]);
    let begin = loss(&start);
    for t in 1..=200 {
        // As a schedule does: without it both would circle the solution.
        let step = Step { step: t, learning_rate: step.learning_rate * (1.0 - t as f32 / 201.0), ..step };
        let g = gradient(&state.p[..n]);
        state.step(Level::detect(), &g, step);
        let g = gradient(&p);
        optimizer::adamw(Level::detect(), &mut p, &mut m, &mut v, &g, step);
        if t == 50 {
            let (got, want) = (loss(&state.p[..n]) / begin, loss(&p) / begin);
            assert!((got - want).abs() < 0.02 * want, "after 50 steps {got:.5} of the loss is left, with f32 {want:.5}");
        }
    }
    let (got, want) = (loss(&state.p[..n]) / begin, loss(&p) / begin);
    assert!(want < 0.1 && (got - want).abs() < 0.03 * want, "{got:.6} of the loss is left, with f32 {want:.6}");
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let mut draws = Draws::new(14);
    let n = 30_005;
    let start = State::new(&draws.normal(n));
    let gradients: Vec<Vec<f32>> = (0..3).map(|_| draws.normal(n)).collect();
    let run = |level| {
        let mut state = start.clone();
        gradients.iter().enumerate().for_each(|(t, g)| state.step(level, g, Step { step: t as u32 + 1, ..STEP }));
        (bits(&state.p), state.codes, state.scales.map(|x| bits(&x)))
    };
    let first = run(Level::Portable);
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            assert!(with_threads(threads, || run(level)) == first, "{level:?} with {threads} threads");
        }
    }
    assert_eq!(blocks(n), 118);
}
