//! A weight with its adapter against the sum in f64, at several sizes and thread counts.

mod common;

use common::{Draws, bits, with_threads};
use kernels::low_rank::add_low_rank;

#[test]
fn it_is_the_sum_at_any_thread_count() {
    let mut draws = Draws::new(5);
    for (m, k, r) in [(1, 1, 1), (3, 7, 2), (65, 1025, 4), (40, 2050, 16), (300, 128, 64)] {
        let (w, b, a) = (draws.normal(m * k), draws.normal(m * r), draws.normal(r * k));
        let s = 0.5;
        let mut first = Vec::new();
        for threads in [1, 2, 3, 7] {
            let mut merged = w.clone();
            with_threads(threads, || add_low_rank(&mut merged, &b, &a, r, k, s));
            if first.is_empty() {
                first = bits(&merged);
                for (i, merged) in merged.iter().enumerate() {
                    let (row, col) = (i / k, i % k);
                    let (mut exact, mut size) = (f64::from(w[i]), f64::from(w[i].abs()));
                    for j in 0..r {
                        let term = f64::from(s) * f64::from(b[row * r + j]) * f64::from(a[j * k + col]);
                        exact += term;
                        size += term.abs();
                    }
                    // Each of the r + 2 roundings is half a unit of at most the sum of sizes.
                    let bound = (r + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * size;
                    assert!((f64::from(*merged) - exact).abs() <= bound, "{m} {k} {r}: {merged} {exact}");
                }
            }
            assert_eq!(bits(&merged), first, "{threads} threads");
        }
    }
}
