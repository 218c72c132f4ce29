//! Dropout: the mask is a function of names, keeps the right share, and is one with its definition.

mod common;

use common::{Draws, with_threads};
use kernels::dropout::{dropout, keeps};
use kernels::simd::Level;

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
            for (threads, &level) in [1, 2, 3, 7].into_iter().zip(Level::available().iter().cycle()) {
                let mut y = vec![9.0; m * c + 3];
                with_threads(threads, || dropout(level, &mut y[..m * c], &x, &keys, 5, p, c, false));
                assert_eq!(y.split_off(m * c), [9.0; 3], "wrote past the end");
                assert_eq!(y, want);
                dropout(Level::detect(), &mut y, &x, &keys, 5, p, c, true);
                assert_eq!(y, want.iter().map(|y| y + y).collect::<Vec<_>>());
            }
            if p == 0.0 {
                assert_eq!(want, x);
            }
        }
    }
}

/// Shares within five standard deviations: of kept elements along rows, keys and modules, and of agreements between
/// masks that are neighbours in any of them, at small and typical distances.
#[test]
fn draws_are_fair_and_independent() {
    let n = 50_000;
    let near = |what: &str, share: f64, want: f64| {
        let deviation = (want * (1.0 - want) / n as f64).sqrt();
        assert!((share - want).abs() < 5.0 * deviation, "{what}: {share} instead of {want}");
    };
    for p in [0.05f32, 0.3, 0.5] {
        let q = 1.0 - f64::from(p);
        let share = |draw: &dyn Fn(usize) -> bool| (0..n).filter(|&i| draw(i)).count() as f64 / n as f64;
        near("along a row", share(&|i| keeps(1, 0, i, p)), q);
        near("along keys", share(&|i| keeps(i as u64, 0, 3, p)), q);
        near("along high keys", share(&|i| keeps((i as u64) << 40, 0, 3, p)), q);
        near("along modules", share(&|i| keeps(9, i as u32, 0, p)), q);
        for lag in (1..=16).chain([64, 128, 576, 1536]) {
            near("within a row", share(&|i| keeps(1, 0, i, p) && keeps(1, 0, i + lag, p)), q * q);
            near("between keys", share(&|i| keeps(7, 0, i, p) && keeps(7 + lag as u64, 0, i, p)), q * q);
            near("between modules", share(&|i| keeps(7, 1, i, p) && keeps(7, 1 + lag as u32, i, p)), q * q);
        }
        // Sums of 64 draws are as wide as independent ones: variance 64 p q, measured on 781 of them.
        let sums: Vec<f64> = (0..n / 64).map(|k| (0..64).filter(|j| keeps(3, 2, 64 * k + j, p)).count() as f64 - 64.0 * q).collect();
        let variance = sums.iter().map(|x| x * x).sum::<f64>() / sums.len() as f64;
        assert!((variance / (64.0 * q * (1.0 - q)) - 1.0).abs() < 5.0 * (2.0 / sums.len() as f64).sqrt(), "variance {variance}");
    }
}
