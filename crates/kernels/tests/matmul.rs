//! The contract of the matrix products: right against f64, and the same bits whatever the neighbours, threads,
//! level and form of the weight.

use std::sync::Arc;

use kernels::matmul::{Weight, linear, linear_backward, linear_backward_tile, linear_tile, matmul, scratch_len};
use kernels::quant::{Storage, dequantize_row, quantize_row};
use kernels::simd::Level;

/// Numbers in -1 .. 1, the same for the same seed.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

fn scratch() -> Vec<f32> {
    vec![f32::NAN; scratch_len(7, 1200, 1600)] // NaN: whatever is read before it was written shows
}

fn weight(storage: Storage, n: usize, k: usize, seed: u64) -> (Weight, Vec<f32>) {
    let mut bytes = vec![0; storage.bytes(n, k).unwrap()];
    let row_bytes = storage.bytes(1, k).unwrap();
    let mut values = vec![0.0; n * k];
    for i in 0..n {
        let row = &mut bytes[i * row_bytes..][..row_bytes];
        quantize_row(storage, &numbers(k, seed + i as u64), row);
        dequantize_row(storage, row, &mut values[i * k..][..k]);
    }
    (Weight::new(storage, n, k, &bytes).unwrap(), values)
}

fn f32_weight(values: &[f32], n: usize, k: usize) -> Weight {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Weight::new(Storage::F32, n, k, &bytes).unwrap()
}

/// c[m,n] = alpha op(a) op(b) + c in f64, and the sum of sizes that bounds its rounding error.
fn naive(c: &[f32], a: &[f32], b: &[f32], m: usize, n: usize, k: usize, ta: bool, tb: bool, alpha: f32) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut size) = (0.0, 0.0);
            for l in 0..k {
                let x = f64::from(if ta { a[l * m + i] } else { a[i * k + l] });
                let y = f64::from(if tb { b[j * k + l] } else { b[l * n + j] });
                sum += x * y;
                size += (x * y).abs();
            }
            let old = f64::from(c[i * n + j]);
            out.push((old + f64::from(alpha) * sum, old.abs() + f64::from(alpha.abs()) * size));
        }
    }
    out
}

fn assert_close(got: &[f32], want: &[(f64, f64)], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, &(want, size))) in got.iter().zip(want).enumerate() {
        // A block's chain of fused steps errs by a small multiple of the rounding unit of the sizes summed.
        let error = (f64::from(got) - want).abs();
        assert!(error <= 8.0 * f64::from(f32::EPSILON) * size + 1e-30, "{what}: element {i} is {got}, not {want}");
    }
}

const AWKWARD: [usize; 7] = [1, 15, 17, 33, 287, 289, 577];

/// Calls with a result that has a sentinel on either side, and returns the result.
fn guarded(len: usize, old: &[f32], call: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut memory = vec![1234.5; len + 32];
    memory[16..16 + len].copy_from_slice(old);
    call(&mut memory[16..16 + len]);
    assert!(memory[..16].iter().chain(&memory[16 + len..]).all(|&v| v == 1234.5), "wrote outside the result");
    memory[16..16 + len].to_vec()
}

#[test]
fn linear_agrees_with_f64_on_awkward_sizes() {
    let mut scratch = scratch();
    for level in Level::available().iter().copied() {
        let portable = level == Level::Portable;
        for (i, &n) in AWKWARD.iter().enumerate() {
            for (j, &k) in AWKWARD.iter().enumerate() {
                for m in [1, 3, 15, 33] {
                    if portable && (n * k > 20_000 || m > 15) {
                        continue;
                    }
                    let accumulate = (i + j + m) % 2 == 0;
                    let values = numbers(n * k, 7);
                    let w = f32_weight(&values, n, k);
                    let (x, dy) = (numbers(m * k, 1), numbers(m * n, 2));
                    let old = numbers(m * n, 3);
                    let y = guarded(m * n, &old, |y| linear(level, y, &x, &w, m, accumulate, &mut scratch));
                    let from = if accumulate { old } else { vec![0.0; m * n] };
                    assert_close(&y, &naive(&from, &x, &values, m, n, k, false, true, 1.0), &format!("{level:?} y {m} {n} {k}"));
                    let old = numbers(m * k, 4);
                    let dx = guarded(m * k, &old, |dx| linear_backward(level, dx, &dy, &w, m, accumulate, &mut scratch));
                    let from = if accumulate { old } else { vec![0.0; m * k] };
                    assert_close(&dx, &naive(&from, &dy, &values, m, k, n, false, false, 1.0), &format!("{level:?} dx {m} {n} {k}"));
                }
            }
        }
    }
}

#[test]
fn matmul_agrees_with_f64_in_all_orientations() {
    let mut scratch = scratch();
    let sizes = [
        (1, 1, 1),
        (16, 577, 130),
        (130, 16, 577),
        (33, 8, 401),
        (17, 64, 15),
        (5, 129, 16),
        (129, 200, 70),
        (300, 24, 900),
        (150, 80, 300),
    ];
    for level in Level::available().iter().copied() {
        for (m, n, k) in sizes {
            if level == Level::Portable && m * n * k > 500_000 {
                continue;
            }
            for orientation in 0..8 {
                let (ta, tb, accumulate) = (orientation & 1 > 0, orientation & 2 > 0, orientation & 4 > 0);
                let (a, b, old) = (numbers(m * k, 5), numbers(k * n, 6), numbers(m * n, 7));
                let c = guarded(m * n, &old, |c| matmul(level, c, &a, &b, m, n, k, ta, tb, 0.37, accumulate, &mut scratch));
                let from = if accumulate { old } else { vec![0.0; m * n] };
                assert_close(&c, &naive(&from, &a, &b, m, n, k, ta, tb, 0.37), &format!("{level:?} {m} {n} {k} {orientation}"));
            }
        }
    }
}

/// Every product of this test's sizes, as bits: what threads, levels and neighbours must not change.
fn all_products(level: Level, scratch: &mut [f32]) -> Vec<(String, Vec<u32>)> {
    let mut out = Vec::new();
    for (storage, n, k) in [
        (Storage::F32, 289, 577),
        (Storage::F16, 33, 401),
        (Storage::Bf16, 70, 390),
        (Storage::Q4_0, 50, 416),
        (Storage::Q4_1, 289, 576),
        (Storage::Q8_0, 17, 800),
        (Storage::Q4K, 290, 768),
        (Storage::Q6K, 50, 512),
        (Storage::Nf4, 289, 576),
        (Storage::Int8, 33, 400),
    ] {
        let (w, _) = weight(storage, n, k, 11);
        for m in [1, 5, 40] {
            let (x, dy) = (numbers(m * k, 1), numbers(m * n, 2));
            let (mut y, mut dx) = (numbers(m * n, 3), numbers(m * k, 4));
            linear(level, &mut y, &x, &w, m, true, scratch);
            linear_backward(level, &mut dx, &dy, &w, m, true, scratch);
            out.push((format!("{} {m} {n} {k}", storage.name()), [bits(&y), bits(&dx)].concat()));
        }
    }
    for (m, n, k) in [(100, 16, 400), (400, 16, 390), (16, 410, 100), (200, 90, 310)] {
        for orientation in 0..4 {
            let (a, b) = (numbers(m * k, 5), numbers(k * n, 6));
            let mut c = numbers(m * n, 7);
            matmul(level, &mut c, &a, &b, m, n, k, orientation & 1 > 0, orientation & 2 > 0, 0.37, true, scratch);
            out.push((format!("matmul {m} {n} {k} {orientation}"), bits(&c)));
        }
    }
    out
}

#[test]
fn levels_and_threads_give_the_same_bits() {
    let mut scratch = scratch();
    let want = all_products(Level::Portable, &mut scratch);
    for level in Level::available().iter().copied().filter(|&level| level != Level::Portable) {
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for (want, got) in want.iter().zip(pool.install(|| all_products(level, &mut scratch))) {
                assert!(want.1 == got.1, "{level:?} on {threads} threads: {}", want.0);
            }
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_it_has_among_others() {
    let level = Level::detect();
    let mut scratch = scratch();
    for (storage, n, k) in [(Storage::F32, 577, 289), (Storage::F32, 192, 1536), (Storage::Q4_1, 200, 800), (Storage::Bf16, 130, 401)] {
        let (w, _) = weight(storage, n, k, 3);
        let rows = 1160; // more than are packed at a time
        let (x, dy) = (numbers(rows * k, 1), numbers(rows * n, 2));
        let (mut y, mut dx) = (vec![0.0; rows * n], vec![0.0; rows * k]);
        linear(level, &mut y, &x, &w, rows, false, &mut scratch);
        linear_backward(level, &mut dx, &dy, &w, rows, false, &mut scratch);
        for m in [1, 2, 5, 8, 14, 15, 64, 130] {
            for first in [0, 1, 77, rows - m] {
                let (mut part, mut dpart) = (vec![0.0; m * n], vec![0.0; m * k]);
                linear(level, &mut part, &x[first * k..][..m * k], &w, m, false, &mut scratch);
                linear_backward(level, &mut dpart, &dy[first * n..][..m * n], &w, m, false, &mut scratch);
                assert!(bits(&part) == bits(&y[first * n..][..m * n]), "{} rows {first} + {m}", storage.name());
                assert!(bits(&dpart) == bits(&dx[first * k..][..m * k]), "{} backward, rows {first} + {m}", storage.name());
            }
        }
    }
}

#[test]
fn small_products_do_not_depend_on_their_neighbours() {
    let level = Level::detect();
    let mut scratch = scratch();
    let (m, n, k) = (130, 200, 577);
    let (a, b) = (numbers(m * k, 5), numbers(k * n, 6));
    let mut c = vec![0.0; m * n];
    matmul(level, &mut c, &a, &b, m, n, k, false, true, 0.5, false, &mut scratch);
    for rows in [1, 2, 5, 64] {
        for cols in [1, 16, 40, 64, 200] {
            let mut part = vec![0.0; rows * cols];
            matmul(level, &mut part, &a[3 * k..][..rows * k], &b[..cols * k], rows, cols, k, false, true, 0.5, false, &mut scratch);
            for i in 0..rows {
                assert_eq!(bits(&part[i * cols..][..cols]), bits(&c[(3 + i) * n..][..cols]), "row {i} of {rows} x {cols}");
            }
        }
    }
}

#[test]
fn a_stored_weight_computes_as_its_numbers_in_f32_do() {
    let mut scratch = scratch();
    for level in Level::available().iter().copied() {
        for storage in Storage::ALL.into_iter().filter(|storage| storage.has_writer()) {
            let (n, k) = (65, if storage.block_len() == 256 { 512 } else { 448 });
            let (w, values) = weight(storage, n, k, 9);
            let panels = f32_weight(&values, n, k);
            for m in [1, 4, 20] {
                let (x, dy) = (numbers(m * k, 1), numbers(m * n, 2));
                let products = |w: &Weight, scratch: &mut [f32]| {
                    let (mut y, mut dx) = (vec![0.0; m * n], vec![0.0; m * k]);
                    linear(level, &mut y, &x, w, m, false, scratch);
                    linear_backward(level, &mut dx, &dy, w, m, false, scratch);
                    [bits(&y), bits(&dx)]
                };
                assert!(products(&w, &mut scratch) == products(&panels, &mut scratch), "{level:?} {} m {m}", storage.name());
            }
            for i in [0, 15, 16, 64] {
                let mut row = vec![0.0; k];
                w.row(i, &mut row);
                assert_eq!(bits(&row), bits(&values[i * k..][..k]), "row {i} of {}", storage.name());
            }
            assert_eq!(Some(w.bytes()), Weight::bytes_for(storage, n, k));
            assert_eq!(w.shape(), (n, k));
        }
    }
}

/// A gradient of many outputs is packed in as many pieces as the scratch has room for.
#[test]
fn scratch_never_changes_a_transposed_operands_bits() {
    let level = Level::detect();
    let (m, n, k) = (400, 100, 320);
    let (a, b) = (numbers(m * k, 5), numbers(k * n, 6));
    let product = |len: usize| {
        let mut c = vec![0.0; m * n];
        matmul(level, &mut c, &a, &b, m, n, k, true, false, 1.0, false, &mut vec![f32::NAN; len]);
        bits(&c)
    };
    let want = product(scratch_len(1, 0, 0));
    for rows in [64, 100, 128, 400, 1152] {
        assert!(product(scratch_len(3, rows, k)) == want, "scratch of {rows} rows");
    }
}

#[test]
fn a_trained_weight_computes_as_a_frozen_one_does() {
    let mut scratch = scratch();
    for (storage, n, k) in [(Storage::F32, 577, 289), (Storage::Bf16, 130, 401)] {
        let mut bytes = vec![0; storage.bytes(n, k).unwrap()];
        let values = numbers(n * k, 3);
        bytes
            .chunks_exact_mut(storage.row_bytes(k).unwrap())
            .zip(values.chunks_exact(k))
            .for_each(|(to, row)| quantize_row(storage, row, to));
        let mut trained = Weight::trained(storage, n, k, &bytes).unwrap();
        assert_eq!((trained.shape(), trained.bytes()), ((n, k), 4 * n * k));
        let frozen = f32_weight(trained.rows().unwrap(), n, k);
        for level in Level::available().iter().copied() {
            for m in [1, 5, 40] {
                let (x, dy) = (numbers(m * k, 1), numbers(m * n, 2));
                let products = |w: &Weight, scratch: &mut [f32]| {
                    let (mut y, mut dx) = (vec![0.0; m * n], vec![0.0; m * k]);
                    linear(level, &mut y, &x, w, m, false, scratch);
                    linear_backward(level, &mut dx, &dy, w, m, false, scratch);
                    let mut tile = vec![0.0; m * 32];
                    linear_tile(level, &mut tile, &x, w, m, 64, 32, false, scratch);
                    let p = numbers(m * 32, 8);
                    linear_backward_tile(level, &mut dx, &p, w, m, 64, 32, true, scratch);
                    [bits(&y), bits(&dx), bits(&tile)]
                };
                assert!(products(&trained, &mut scratch) == products(&frozen, &mut scratch), "{level:?} {m} {n} {k}");
            }
        }
        trained.rows_mut().unwrap()[k] = 7.0;
        let mut row = vec![0.0; k];
        trained.row(1, &mut row);
        assert_eq!(row[0], 7.0);
    }
}

/// What lies in a file's rows gives the bits of what was copied into panels, in every product, tile and row.
#[test]
fn a_shared_weight_computes_as_a_held_one_does() {
    let mut scratch = scratch();
    for storage in Storage::ALL {
        let block = storage.block_len();
        for (n, k) in [(65, 3 * block.max(256)), (33, 11 * block), (577, 289)] {
            if !k.is_multiple_of(block) || (n == 577 && !storage.is_float()) || !Weight::can_share(storage, k) {
                continue;
            }
            // Any finite scales: formats without a writer have blocks too.
            let mut bytes: Vec<u8> = numbers(storage.bytes(n, k).unwrap(), 4).iter().map(|x| (x.to_bits() >> 9) as u8).collect();
            if storage.has_writer() {
                let rows = bytes.chunks_exact_mut(storage.row_bytes(k).unwrap());
                rows.zip(numbers(n * k, 3).chunks_exact(k)).for_each(|(to, row)| quantize_row(storage, row, to));
            } else {
                bytes.iter_mut().for_each(|byte| *byte &= 0x3b);
            }
            let held = Weight::new(storage, n, k, &bytes).unwrap();
            let shared = Weight::shared(storage, n, k, Arc::new(bytes));
            assert_eq!((shared.shape(), shared.bytes(), shared.storage()), ((n, k), 0, storage));
            for level in Level::available().iter().copied() {
                for m in [1, 4, 40] {
                    let (x, dy) = (numbers(m * k, 1), numbers(m * n, 2));
                    let products = |w: &Weight, scratch: &mut [f32]| {
                        let (mut y, mut dx, mut row) = (vec![0.0; m * n], vec![0.0; m * k], vec![0.0; k]);
                        linear(level, &mut y, &x, w, m, false, scratch);
                        linear_backward(level, &mut dx, &dy, w, m, false, scratch);
                        let mut tile = vec![0.0; m * 17];
                        linear_tile(level, &mut tile, &x, w, m, 16, 17, false, scratch);
                        let p = numbers(m * 17, 8);
                        linear_backward_tile(level, &mut dx, &p, w, m, 16, 17, true, scratch);
                        w.row(n - 1, &mut row);
                        [bits(&y), bits(&dx), bits(&tile), bits(&row)]
                    };
                    let name = storage.name();
                    assert!(products(&shared, &mut scratch) == products(&held, &mut scratch), "{level:?} {name} {m} {n} {k}");
                }
            }
        }
    }
    assert!(!Weight::can_share(Storage::Nf4, 64) && !Weight::can_share(Storage::Int8, 64));
}

#[test]
fn tiles_of_outputs_add_up_to_the_whole() {
    let level = Level::detect();
    let mut scratch = scratch();
    for storage in [Storage::F32, Storage::Q8_0] {
        let (n, k, m, step) = (1000, 192, 37, 576); // 576: tiles are whole blocks of the backward's inner size
        let (w, _) = weight(storage, n, k, 21);
        let (x, p) = (numbers(m * k, 1), numbers(m * n, 2));
        let (mut y, mut dx) = (vec![0.0; m * n], vec![0.0; m * k]);
        linear(level, &mut y, &x, &w, m, false, &mut scratch);
        linear_backward(level, &mut dx, &p, &w, m, false, &mut scratch);
        let mut sum = vec![0.0; m * k];
        for n0 in (0..n).step_by(step) {
            let len = step.min(n - n0);
            let mut logits = vec![0.0; m * len];
            linear_tile(level, &mut logits, &x, &w, m, n0, len, false, &mut scratch);
            let columns: Vec<f32> = p.chunks_exact(n).flat_map(|p| &p[n0..n0 + len]).copied().collect();
            linear_backward_tile(level, &mut sum, &columns, &w, m, n0, len, n0 > 0, &mut scratch);
            for i in 0..m {
                assert_eq!(bits(&logits[i * len..][..len]), bits(&y[i * n + n0..][..len]));
            }
        }
        assert_eq!(bits(&sum), bits(&dx), "{}", storage.name());
    }
}

#[test]
fn empty_products() {
    let mut scratch = scratch();
    let mut c = [5.0; 6];
    matmul(Level::detect(), &mut c, &[], &[], 2, 3, 0, false, false, 1.0, true, &mut scratch);
    assert_eq!(c, [5.0; 6]);
    matmul(Level::detect(), &mut c, &[], &[], 2, 3, 0, false, false, 1.0, false, &mut scratch);
    assert_eq!(c, [0.0; 6]);
    matmul(Level::detect(), &mut [], &[], &[1.0; 3], 0, 3, 1, false, false, 1.0, false, &mut scratch);
}
