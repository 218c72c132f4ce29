//! The integer products: right against f64 within the rounding of their inputs, and the same bits whatever the level,
//! the neighbours, the threads and the tiles.

use kernels::integer::{Rounded, linear, linear_tile, supports};
use kernels::matmul::Weight;
use kernels::quant::{Storage, dequantize_row, quantize_row};
use kernels::simd::Level;

mod common;
use common::{Draws, bits, with_threads};

/// Every storage with integer codes.
fn storages() -> Vec<Storage> {
    Storage::ALL.into_iter().filter(|storage| storage.has_codes()).collect()
}

/// A weight of random blocks and its numbers. Formats without a writer get random bytes under sane scales.
fn weight(storage: Storage, n: usize, k: usize, draws: &mut Draws) -> (Weight, Vec<f32>) {
    let row_bytes = storage.row_bytes(k).unwrap();
    let (mut bytes, mut values) = (vec![0; n * row_bytes], vec![0.0; n * k]);
    for (row, values) in bytes.chunks_exact_mut(row_bytes).zip(values.chunks_exact_mut(k)) {
        if storage.has_writer() {
            quantize_row(storage, &draws.normal(k), row);
        } else {
            row.iter_mut().for_each(|byte| *byte = draws.bits() as u8);
            let scales: &[usize] = match storage {
                Storage::Q2K => &[80, 82],
                _ => &[108],
            };
            for block in row.chunks_exact_mut(storage.block_bytes()) {
                for &at in scales {
                    // f16 of about 0.01.
                    block[at..at + 2].copy_from_slice(&(0x2100 + (draws.bits() & 0xff) as u16).to_le_bytes());
                }
            }
        }
        dequantize_row(storage, row, values);
    }
    (Weight::new(storage, n, k, &bytes).unwrap(), values)
}

fn product(level: Level, x: &[f32], w: &Weight, m: usize, old: Option<&[f32]>) -> Vec<f32> {
    let (n, k) = w.shape();
    let mut rounded = Rounded::default();
    rounded.reserve(m, k).unwrap();
    let mut y = old.map_or(vec![f32::NAN; m * n], <[f32]>::to_vec);
    linear(level, &mut y, x, w, m, old.is_some(), &mut rounded);
    y
}

/// x rounded as the module says, in f64.
fn rounded(x: &[f32]) -> Vec<f64> {
    let of_block = |x: &[f32]| {
        let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let scale = f64::from(largest / 127.0);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        x.iter().map(|&x| f64::from((x * inverse).round_ties_even()) * scale).collect::<Vec<f64>>()
    };
    x.chunks_exact(16).flat_map(of_block).collect()
}

#[test]
fn sums_are_those_of_the_rounded_rows() {
    let mut draws = Draws::new(1);
    for storage in storages() {
        let (n, m) = (37, 3);
        let k = 2 * storage.block_len().max(64);
        let (w, values) = weight(storage, n, k, &mut draws);
        assert!(supports(&w));
        let x = draws.normal(m * k);
        let (exact, old) = (rounded(&x), draws.normal(m * n));
        let y = product(Level::detect(), &x, &w, m, Some(&old));
        for i in 0..m {
            for j in 0..n {
                let terms = || exact[i * k..][..k].iter().zip(&values[j * k..][..k]).map(|(x, w)| x * f64::from(*w));
                let want = f64::from(old[i * n + j]) + terms().sum::<f64>();
                let size: f64 = 1.0 + terms().map(f64::abs).sum::<f64>();
                let got = f64::from(y[i * n + j]);
                assert!((got - want).abs() <= 1e-6 * size, "{storage:?} ({i}, {j}): {got}, not {want}");
            }
        }
    }
}

#[test]
fn rounding_errs_by_half_a_step() {
    let mut draws = Draws::new(2);
    let x = draws.normal(32 * 50);
    let rounded = rounded(&x);
    for (x, rounded) in x.chunks(16).zip(rounded.chunks(16)) {
        let step = x.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 127.0;
        for (x, rounded) in x.iter().zip(rounded) {
            assert!((f64::from(*x) - rounded).abs() <= 0.501 * f64::from(step));
        }
    }
}

#[test]
fn levels_agree_bit_for_bit() {
    let mut draws = Draws::new(3);
    for storage in storages() {
        let (w, _) = weight(storage, 50, 512, &mut draws);
        let mut x = draws.normal(13 * 512);
        x[512..544].fill(0.0);
        x[600] = 1e30;
        x[700] = 1e-42;
        x[2 * 512 + 5] = f32::NAN;
        x[3 * 512 + 7] = f32::INFINITY;
        let want = product(Level::Portable, &x, &w, 13, None);
        assert!(want[50..100].iter().all(|y| y.is_finite()));
        for &level in Level::available() {
            let got = product(level, &x, &w, 13, None);
            for (got, want) in got.iter().zip(&want) {
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{storage:?} {level:?}: {got}, not {want}");
            }
        }
    }
}

/// The largest codes there are, against the largest x: nothing leaves its bits on the way.
#[test]
fn extremes_are_exact() {
    let k = 512;
    for storage in storages() {
        let row_bytes = storage.row_bytes(k).unwrap();
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let mut bytes = vec![byte; 16 * row_bytes];
            let scales: &[usize] = match storage {
                Storage::Q2K => &[80, 82],
                Storage::Q3K => &[108],
                Storage::Q6K => &[208],
                Storage::Q4_1 | Storage::Q5_1 | Storage::Q4K | Storage::Q5K => &[0, 2],
                _ => &[0],
            };
            for block in bytes.chunks_exact_mut(storage.block_bytes()) {
                scales.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes()));
            }
            let w = Weight::new(storage, 16, k, &bytes).unwrap();
            let mut values = vec![0.0; k];
            dequantize_row(storage, &bytes[..row_bytes], &mut values);
            for sign in [1.0, -1.0] {
                let x = vec![127.0 * sign; k];
                let want: f64 = values.iter().map(|&w| f64::from(w) * 127.0 * f64::from(sign)).sum();
                for &level in Level::available() {
                    let got = f64::from(product(level, &x, &w, 1, None)[0]);
                    assert!((got - want).abs() <= 1e-6 * want.abs(), "{storage:?} {level:?} {byte}: {got}, not {want}");
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_threads_or_tiles() {
    let mut draws = Draws::new(4);
    let (n, k, m) = (700, 256, 300);
    for storage in [Storage::Q4_1, Storage::Q8_0, Storage::Q6K] {
        let (w, _) = weight(storage, n, k, &mut draws);
        let x = draws.normal(m * k);
        let all = with_threads(1, || product(Level::detect(), &x, &w, m, None));
        for threads in [2, 3, 7] {
            let again = with_threads(threads, || product(Level::detect(), &x, &w, m, None));
            assert_eq!(bits(&again), bits(&all), "{threads} threads");
        }
        for rows in [1, 2, 3, 5, 9, 31] {
            let some = product(Level::detect(), &x[7 * k..][..rows * k], &w, rows, None);
            assert_eq!(bits(&some), bits(&all[7 * n..][..rows * n]), "{rows} rows");
        }
        let mut x_rounded = Rounded::default();
        x_rounded.reserve(m, k).unwrap();
        x_rounded.round(Level::detect(), &x, m, k);
        for (n0, len) in [(0, 16), (48, 333), (688, 12)] {
            let mut tile = vec![0.0; m * len];
            linear_tile(Level::detect(), &mut tile, &x_rounded, &w, n0, len, false);
            for (tile, all) in tile.chunks(len).zip(all.chunks(n)) {
                assert_eq!(bits(tile), bits(&all[n0..][..len]), "{n0} + {len}");
            }
        }
    }
}

#[test]
fn room_is_counted() {
    let mut rounded = Rounded::default();
    rounded.reserve(5, 96).unwrap();
    assert_eq!(rounded.bytes(), Rounded::bytes_for(5, 96));
    assert_eq!(Rounded::bytes_for(1, 64), 64 + 16 + 16);
}
