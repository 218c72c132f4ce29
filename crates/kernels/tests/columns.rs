//! Vectors along columns, and the norms of DoRA: right against f64, and the same bits at every level and thread count.

mod common;

use common::{Draws, assert_close, bits, with_threads};
use kernels::columns::{Terms, column_sums, scale_columns};
use kernels::dora::{scales, scratch_len, weight_norms};
use kernels::matmul::Weight;
use kernels::quant::{Storage, dequantize_row, quantize_row};
use kernels::simd::Level;

#[test]
fn columns_are_scaled() {
    let mut draws = Draws::new(1);
    for (m, n) in [(1, 1), (3, 17), (700, 48)] {
        let (y, x, factors) = (draws.normal(m * n), draws.normal(m * n), draws.normal(n));
        for accumulate in [false, true] {
            let want = |i: usize| f64::from(x[i]) * f64::from(factors[i % n]) + if accumulate { f64::from(y[i]) } else { 0.0 };
            for &level in Level::available() {
                let mut got = y.clone();
                with_threads(3, || scale_columns(level, &mut got, &x, &factors, accumulate));
                assert_close("y", &got, &(0..m * n).map(want).collect::<Vec<_>>(), 1e-6);
            }
        }
    }
}

#[test]
fn columns_are_summed() {
    let mut draws = Draws::new(2);
    for (m, n) in [(1, 1), (5, 17), (300, 64), (1025, 131)] {
        let (a, b, rows, columns, start) = (draws.normal(m * n), draws.normal(m * n), draws.normal(m), draws.normal(n), draws.normal(n));
        for which in 0..8 {
            let given = |bit: u32| which & (1 << bit) != 0;
            let terms = Terms {
                a: &a,
                b: given(0).then_some(&b[..]),
                rows: given(1).then_some(&rows[..]),
                columns: given(2).then_some(&columns[..]),
            };
            let or_one = |bit: u32, x: f32| if given(bit) { f64::from(x) } else { 1.0 };
            let want: Vec<f64> = (0..n)
                .map(|j| {
                    let term = |i: usize| f64::from(a[i * n + j]) * or_one(0, b[i * n + j]) * or_one(1, rows[i]);
                    f64::from(start[j]) + or_one(2, columns[j]) * (0..m).map(term).sum::<f64>()
                })
                .collect();
            let mut first = None;
            for &level in Level::available() {
                for threads in [1, 2, 7] {
                    let mut got = start.clone();
                    with_threads(threads, || column_sums(level, &mut got, terms));
                    assert_close("out", &got, &want, 2e-5);
                    assert_eq!(first.get_or_insert_with(|| bits(&got)), &bits(&got), "{level:?} with {threads} threads");
                }
            }
        }
    }
}

#[test]
fn norms_are_those_of_w_plus_s_ba() {
    let mut draws = Draws::new(3);
    for (storage, n, k, r) in [(Storage::F32, 1, 3, 1), (Storage::F32, 37, 301, 4), (Storage::Bf16, 50, 70, 3), (Storage::Q4K, 33, 512, 16)]
    {
        let mut bytes = vec![0; storage.bytes(n, k).unwrap()];
        let mut values = vec![0.0; n * k];
        let row_bytes = storage.bytes(1, k).unwrap();
        for (bytes, values) in bytes.chunks_exact_mut(row_bytes).zip(values.chunks_exact_mut(k)) {
            quantize_row(storage, &draws.normal(k), bytes);
            dequantize_row(storage, bytes, values);
        }
        let w = Weight::new(storage, n, k, &bytes).unwrap();
        let (a, b, scale) = (draws.normal(r * k), draws.normal(n * r), 0.5f32);
        let want: Vec<f64> = (0..n)
            .map(|i| {
                let low = |l: usize| (0..r).map(|j| f64::from(b[i * r + j]) * f64::from(a[j * k + l])).sum::<f64>();
                (0..k).map(|l| (f64::from(values[i * k + l]) + f64::from(scale) * low(l)).powi(2)).sum::<f64>().sqrt()
            })
            .collect();
        let mut first = None;
        for &level in Level::available() {
            for threads in [1, 2, 7] {
                let mut norm = vec![f32::NAN; n];
                let mut scratch = vec![f32::NAN; scratch_len(threads)];
                with_threads(threads, || weight_norms(level, &mut norm, &w, &a, &b, scale, &mut scratch));
                assert_close("norm", &norm, &want, 1e-5);
                assert_eq!(first.get_or_insert_with(|| bits(&norm)), &bits(&norm), "{storage:?} {level:?} with {threads} threads");
            }
        }
    }
}

#[test]
fn a_row_of_zeros_has_no_direction() {
    let (mut gain, mut inverse) = ([f32::NAN; 2], [4.0, 0.0]);
    scales(&mut gain, &mut inverse, &[3.0, 3.0]);
    assert_eq!((gain, inverse), ([0.75, 0.0], [0.25, 0.0]));
}
