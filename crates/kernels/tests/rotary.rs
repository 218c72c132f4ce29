//! Rotary embedding against its definition in f64.

mod common;

use common::{Draws, assert_close, bits, wide, with_threads};
use kernels::rotary::{angles, rotary};
use kernels::simd::Level;

fn inv_freq(turned: usize) -> Vec<f32> {
    (0..turned / 2).map(|j| 10_000f64.powf(-2.0 * j as f64 / turned as f64) as f32).collect()
}

/// Heads of which the first `turned` elements turn, with cos and sin times `scale`.
#[derive(Clone, Copy)]
struct Form {
    heads: usize,
    head_dim: usize,
    turned: usize,
    scale: f32,
}

fn form(heads: usize, head_dim: usize) -> Form {
    Form { heads, head_dim, turned: head_dim, scale: 1.0 }
}

fn naive(x: &[f64], positions: &[u32], form: Form, transposed: bool) -> Vec<f64> {
    let Form { heads, head_dim, turned, scale } = form;
    let (half, inv_freq) = (turned / 2, inv_freq(turned));
    let mut y = x.to_vec();
    for (i, head) in y.chunks_mut(head_dim).enumerate() {
        for j in 0..half {
            let angle = f64::from(positions[i / heads] as f32 * inv_freq[j]);
            let (sin, cos) = if transposed { (-angle).sin_cos() } else { angle.sin_cos() };
            let (sin, cos) = (sin * f64::from(scale), cos * f64::from(scale));
            let (a, b) = (head[j], head[j + half]);
            (head[j], head[j + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    y
}

fn fast(level: Level, x: &[f32], positions: &[u32], form: Form, transposed: bool) -> Vec<f32> {
    let Form { heads, head_dim, turned, scale } = form;
    let mut table = vec![9.0; positions.len() * turned];
    angles(&mut table, positions, &inv_freq(turned), scale);
    let mut y = [x, &[9.0; 3]].concat();
    rotary(level, &mut y[..x.len()], &table, heads, head_dim, turned, transposed);
    assert_eq!(y.split_off(x.len()), [9.0; 3], "wrote past the end");
    y
}

#[test]
fn agrees_with_the_definition_and_turns_back() {
    let mut draws = Draws::new(1);
    for (m, heads, head_dim) in [(1, 1, 2), (3, 2, 6), (4, 3, 32), (2, 2, 40), (50, 9, 64), (3, 1, 128)] {
        let form = form(heads, head_dim);
        let positions: Vec<u32> = (0..m).map(|i| if i % 3 == 2 { 100_000 } else { i as u32 * 7 }).collect();
        let x = draws.normal(m * heads * head_dim);
        let y = fast(Level::detect(), &x, &positions, form, false);
        assert_close("y", &y, &naive(&wide(&x), &positions, form, false), 1e-6);
        // A rotation's transpose is its inverse: the backward, and the way back.
        let back = fast(Level::detect(), &x, &positions, form, true);
        assert_close("transposed", &back, &naive(&wide(&x), &positions, form, true), 1e-6);
        assert_close("there and back", &fast(Level::detect(), &y, &positions, form, true), &wide(&x), 1e-6);
    }
}

#[test]
fn a_part_of_a_head_turns_and_grows() {
    let mut draws = Draws::new(4);
    for (head_dim, turned, scale) in [(8, 2, 1.0), (24, 18, 1.19), (128, 96, 1.5), (96, 96, 1.25)] {
        let form = Form { heads: 3, head_dim, turned, scale };
        let x = draws.normal(5 * 3 * head_dim);
        let positions = [0, 1, 2, 17, 4000];
        for transposed in [false, true] {
            let y = fast(Level::detect(), &x, &positions, form, transposed);
            assert_close("y", &y, &naive(&wide(&x), &positions, form, transposed), 1e-6);
            for (y, x) in y.chunks(head_dim).zip(x.chunks(head_dim)) {
                assert_eq!(y[turned..], x[turned..]);
            }
        }
    }
}

#[test]
fn position_zero_turns_nothing() {
    let x = Draws::new(2).normal(64);
    assert_eq!(fast(Level::detect(), &x, &[0, 0], form(2, 16), false), x);
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let mut draws = Draws::new(2);
    let positions: Vec<u32> = (0..300).map(|_| draws.below(5000) as u32).collect();
    let x = draws.normal(300 * 3 * 72);
    let first = bits(&fast(Level::Portable, &x, &positions, Form { turned: 40, scale: 1.2, ..form(3, 72) }, false));
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            let again = with_threads(threads, || fast(level, &x, &positions, Form { turned: 40, scale: 1.2, ..form(3, 72) }, false));
            assert!(bits(&again) == first, "{level:?} with {threads} threads");
        }
    }
}
