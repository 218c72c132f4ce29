//! Rotary embedding against its definition in f64.

mod common;

use common::{Draws, assert_close, bits, wide, with_threads};
use kernels::rotary::{angles, rotary};
use kernels::simd::Level;

fn inv_freq(head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2).map(|j| 10_000f64.powf(-2.0 * j as f64 / head_dim as f64) as f32).collect()
}

fn naive(x: &[f64], positions: &[u32], heads: usize, head_dim: usize, inverse: bool) -> Vec<f64> {
    let (half, inv_freq) = (head_dim / 2, inv_freq(head_dim));
    let mut y = x.to_vec();
    for (i, head) in y.chunks_mut(head_dim).enumerate() {
        for j in 0..half {
            let angle = f64::from(positions[i / heads] as f32 * inv_freq[j]);
            let (sin, cos) = if inverse { (-angle).sin_cos() } else { angle.sin_cos() };
            let (a, b) = (head[j], head[j + half]);
            (head[j], head[j + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    y
}

fn fast(level: Level, x: &[f32], positions: &[u32], heads: usize, head_dim: usize, inverse: bool) -> Vec<f32> {
    let mut table = vec![9.0; positions.len() * head_dim];
    angles(&mut table, positions, &inv_freq(head_dim));
    let mut y = [x, &[9.0; 3]].concat();
    rotary(level, &mut y[..x.len()], &table, heads, head_dim, inverse);
    assert_eq!(y.split_off(x.len()), [9.0; 3], "wrote past the end");
    y
}

#[test]
fn agrees_with_the_definition_and_turns_back() {
    let mut draws = Draws::new(1);
    for (m, heads, head_dim) in [(1, 1, 2), (3, 2, 6), (4, 3, 32), (2, 2, 40), (50, 9, 64), (3, 1, 128)] {
        let positions: Vec<u32> = (0..m).map(|i| if i % 3 == 2 { 100_000 } else { i as u32 * 7 }).collect();
        let x = draws.normal(m * heads * head_dim);
        let y = fast(Level::detect(), &x, &positions, heads, head_dim, false);
        assert_close("y", &y, &naive(&wide(&x), &positions, heads, head_dim, false), 1e-6);
        // A rotation's transpose is its inverse: the backward, and the way back.
        assert_close(
            "inverse",
            &fast(Level::detect(), &x, &positions, heads, head_dim, true),
            &naive(&wide(&x), &positions, heads, head_dim, true),
            1e-6,
        );
        assert_close("there and back", &fast(Level::detect(), &y, &positions, heads, head_dim, true), &wide(&x), 1e-6);
    }
}

#[test]
fn position_zero_turns_nothing() {
    let x = Draws::new(2).normal(64);
    assert_eq!(fast(Level::detect(), &x, &[0, 0], 2, 16, false), x);
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let mut draws = Draws::new(2);
    let positions: Vec<u32> = (0..300).map(|_| draws.below(5000) as u32).collect();
    let x = draws.normal(300 * 3 * 72);
    let first = bits(&fast(Level::Portable, &x, &positions, 3, 72, false));
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            let again = with_threads(threads, || fast(level, &x, &positions, 3, 72, false));
            assert!(bits(&again) == first, "{level:?} with {threads} threads");
        }
    }
}
