//! Dropout: the mask is a function of names, keeps the right share, and is one with its definition.

mod common;

use common::{Draws, with_threads};
use kernels::dropout::{dropout, keeps};

#[test]
fn the_mask_is_its_definition_wherever_a_row_stands() {
    let mut draws = Draws::new(1);
    for (m, c) in [(1, 1), (3, 7), (60, 577)] {
        let keys: Vec<u64> = (0..m).map(|_| draws.bits()).collect();
        let x = draws.normal(m * c);
        for p in [0.0, 0.05, 0.5, 0.9] {
            let want: Vec<f32> = (0..m * c)
                .map(|i| if keeps(keys[i / c], 5, i % c, p) { x[i] * (1.0 / (1.0 - f64::from(p))) as f32 } else { 0.0 })
                .collect();
            for threads in [1, 2, 3, 7] {
                let mut y = vec![9.0; m * c + 3];
                with_threads(threads, || dropout(&mut y[..m * c], &x, &keys, 5, p, c, false));
                assert_eq!(y.split_off(m * c), [9.0; 3], "wrote past the end");
                assert_eq!(y, want);
                dropout(&mut y, &x, &keys, 5, p, c, true);
                assert_eq!(y, want.iter().map(|y| y + y).collect::<Vec<_>>());
            }
            if p == 0.0 {
                assert_eq!(want, x);
            }
        }
    }
}

/// Shares within five standard deviations, for rows, columns, modules and pairs of neighbours.
#[test]
fn draws_are_fair_and_independent() {
    let n = 200_000;
    let p = 0.3f32;
    let kept = |draw: &dyn Fn(usize) -> bool| (0..n).filter(|&i| draw(i)).count() as f64 / n as f64;
    let near = |share: f64, want: f64| (share - want).abs() < 5.0 * (want * (1.0 - want) / n as f64).sqrt();
    assert!(near(kept(&|i| keeps(1, 0, i, p)), 0.7), "along a row");
    assert!(near(kept(&|i| keeps(i as u64, 0, 3, p)), 0.7), "along keys");
    assert!(near(kept(&|i| keeps(9, i as u32, 0, p)), 0.7), "along modules");
    assert!(near(kept(&|i| keeps(1, 0, i, p) && keeps(1, 0, i + 1, p)), 0.49), "neighbours in a row");
    assert!(near(kept(&|i| keeps(i as u64, 0, 3, p) && keeps(i as u64 + 1, 0, 3, p)), 0.49), "neighbouring keys");
    assert!(near(kept(&|i| keeps(i as u64, 0, 3, p) && keeps(i as u64, 1, 3, p)), 0.49), "neighbouring modules");
}
