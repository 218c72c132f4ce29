//! Stored numbers against gguf-py and bitsandbytes (`golden/quant`), and the vectors' way against the plain one.

mod common;

use common::{Draws, bits};
use kernels::matmul::{Weight, linear, linear_backward, scratch_len};
use kernels::quant::{Storage, dequantize_row, finite, quantize, quantize_row};
use kernels::simd::Level;

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn assert_same(got: &[f32], want: &[f32], what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{what}: weight {i} is {got}, not {want}");
    }
}

#[test]
fn blocks_are_gguf_py_s() {
    let golden = include_str!("../../../golden/quant/blocks.txt");
    let mut lines = 0;
    for line in golden.lines() {
        let [name, what, input, output] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let storage = Storage::ALL.into_iter().find(|storage| storage.name() == name).unwrap();
        let (input, output) = (from_hex(input), from_hex(output));
        if what == "quantize" {
            let mut bytes = vec![0; output.len()];
            quantize_row(storage, &to_f32(&input), &mut bytes);
            assert_eq!(bytes, output, "{name}");
        } else {
            let want = to_f32(&output);
            let mut numbers = vec![0.0; want.len()];
            dequantize_row(storage, &input, &mut numbers);
            assert_same(&numbers, &want, name);
        }
        lines += 1;
    }
    assert_eq!(lines, 84);
}

/// Largest error of a quantised weight, as a share of its block's largest size: half a step, and the scale's own rounding.
/// The super-blocks and the unevenly spaced codes are coarser at the ends of their range.
const ERROR_BUDGETS: [(Storage, f32); 16] = [
    (Storage::F32, 0.0),
    (Storage::F16, 0.0005),
    (Storage::Bf16, 0.004),
    (Storage::Q4_0, 0.126),
    (Storage::Q4_1, 0.069),
    (Storage::Q5_0, 0.064),
    (Storage::Q5_1, 0.034),
    (Storage::Q8_0, 0.0045),
    (Storage::Q4K, 0.11),
    (Storage::Q5K, 0.08),
    (Storage::Q6K, 0.04),
    (Storage::Nf4, 0.16),
    (Storage::Fp4, 0.18),
    (Storage::Nf4Plain, 0.153),
    (Storage::Fp4Plain, 0.168),
    (Storage::Int8, 0.004),
];

#[test]
fn there_and_back_stays_within_the_budget() {
    assert!(Storage::ALL.iter().all(|storage| storage.has_writer() == ERROR_BUDGETS.iter().any(|(other, _)| other == storage)));
    for (storage, budget) in ERROR_BUDGETS {
        for seed in 0..200u32 {
            let len = 256;
            let x: Vec<f32> =
                (0..len).map(|i| ((i + len * seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect();
            let mut bytes = vec![0; storage.bytes(1, x.len()).unwrap()];
            let mut back = vec![0.0; x.len()];
            quantize_row(storage, &x, &mut bytes);
            assert!(finite(storage, x.len(), &bytes));
            dequantize_row(storage, &bytes, &mut back);
            let peak = x.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
            for (x, back) in x.iter().zip(&back) {
                assert!((x - back).abs() <= budget * peak, "{}: {x} came back as {back} beside {peak}", storage.name());
            }
        }
    }
}

/// Numbers that a quantiser could stumble over: nothing, one number, one sign, wide and narrow ranges.
#[test]
fn no_row_is_too_odd_to_be_quantized() {
    let mut draws = Draws::new(5);
    let normal = draws.normal(512);
    let spike = |value: f32| (0..512).map(|i| if i == 300 { value } else { 0.0 }).collect::<Vec<f32>>();
    let rows = [
        vec![0.0; 512],
        vec![0.25; 512],
        vec![-0.25; 512],
        spike(3.0),
        spike(-3.0),
        normal.iter().map(|x| x.abs()).collect(),
        normal.iter().map(|x| -x.abs()).collect(),
        normal.iter().map(|x| 1e-30 * x).collect(),
        normal.iter().map(|x| 1e4 * x).collect(),
        normal.iter().enumerate().map(|(i, x)| if i % 32 == 7 { 100.0 * x } else { *x }).collect(),
    ];
    for (storage, _) in ERROR_BUDGETS {
        for (index, x) in rows.iter().enumerate() {
            let mut bytes = vec![0; storage.bytes(1, 512).unwrap()];
            let mut back = vec![0.0; 512];
            quantize_row(storage, x, &mut bytes);
            assert!(finite(storage, 512, &bytes), "{} of row {index}", storage.name());
            dequantize_row(storage, &bytes, &mut back);
            let peak = x.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
            let error = x.iter().zip(&back).fold(0.0f32, |worst, (x, back)| worst.max((x - back).abs()));
            // f16 scales do not reach as far down as f32: very small numbers may become zero.
            let share = if peak < 1e-20 { 1.0 } else { 0.2 };
            assert!(error <= share * peak, "{} of row {index}: off by {error} beside {peak}", storage.name());
        }
    }
}

/// The mean squared error of the searching formats on normal numbers.
#[test]
fn the_search_pays() {
    let x = Draws::new(9).normal(1 << 14);
    for (storage, budget) in [(Storage::Q4K, 0.0062), (Storage::Q5K, 0.0016), (Storage::Q6K, 0.00044), (Storage::Nf4, 0.0088)] {
        let bytes = quantize(Level::detect(), storage, 1, x.len(), &x).unwrap();
        let mut back = vec![0.0; x.len()];
        dequantize_row(storage, &bytes, &mut back);
        let error: f64 = x.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / x.len() as f64;
        assert!(error < budget, "{}: mean squared error {error}", storage.name());
    }
}

#[test]
fn quantizing_has_the_same_bits_at_every_level_and_thread_count() {
    let (rows, cols) = (37, 1280);
    let x = Draws::new(3).normal(rows * cols);
    for (storage, _) in ERROR_BUDGETS {
        let want = common::with_threads(1, || quantize(Level::Portable, storage, rows, cols, &x).unwrap());
        for level in Level::available().iter().copied() {
            for threads in [1, 3] {
                let got = common::with_threads(threads, || quantize(level, storage, rows, cols, &x).unwrap());
                assert!(got == want, "{} at {level:?} on {threads} threads", storage.name());
            }
        }
    }
}

/// Bytes of a `n x k` matrix: quantised, or any where there is no writer (with scales that are ordinary numbers).
fn stored(storage: Storage, n: usize, k: usize) -> Vec<u8> {
    let mut draws = Draws::new(storage as u64 + 1);
    if storage.has_writer() {
        return quantize(Level::detect(), storage, n, k, &draws.normal(n * k)).unwrap();
    }
    let mut bytes: Vec<u8> = (0..storage.bytes(n, k).unwrap()).map(|_| draws.bits() as u8).collect();
    let scales: &[usize] = match storage {
        Storage::Q2K => &[80, 82],
        Storage::Q3K => &[108],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(storage.block_bytes()) {
        for &at in scales {
            block[at + 1] = block[at + 1] & 0x87 | 0x20;
        }
    }
    bytes
}

/// A weight in panels gives, at every level and in every way in which the products read it, the numbers of its rows.
#[test]
fn panels_decode_as_rows_do() {
    // More than 256 blocks of 64 in a row where scales are quantised too, and rows that begin anywhere in such a group.
    for storage in Storage::ALL {
        let sizes: &[(usize, usize)] = match storage {
            Storage::Nf4 | Storage::Fp4 => &[(35, 576), (2, 64 * 600)],
            _ => &[(35, 512), (3, 1792)],
        };
        for &(n, k) in sizes {
            let bytes = stored(storage, n, k);
            assert!(finite(storage, k, &bytes), "{}", storage.name());
            let mut values = vec![0.0; n * k];
            for (row, values) in bytes.chunks_exact(storage.row_bytes(k).unwrap()).zip(values.chunks_exact_mut(k)) {
                dequantize_row(storage, row, values);
            }
            assert!(values.iter().all(|v| v.is_finite()), "{}", storage.name());
            let w = Weight::new(storage, n, k, &bytes).unwrap();
            for (i, values) in values.chunks_exact(k).enumerate() {
                let mut row = vec![0.0; k];
                w.row(i, &mut row);
                assert!(bits(&row) == bits(values), "{} row {i}", storage.name());
            }
            // A product with a row of the identity is a column, and its zeros have lost their signs.
            let plus = |x: &[f32]| x.iter().map(|x| (x + 0.0).to_bits()).collect::<Vec<_>>();
            let mut scratch = vec![f32::NAN; scratch_len(1, k, k)];
            for level in Level::available().iter().copied() {
                let some: Vec<usize> = (0..k).filter(|i| k < 2000 || i % 997 == 0 || *i > k - 5).collect();
                for at_once in [some.len(), 3] {
                    for columns in some.chunks(at_once) {
                        let (m, mut y) = (columns.len(), vec![0.0; columns.len() * n]);
                        let mut x = vec![0.0; m * k];
                        columns.iter().enumerate().for_each(|(row, column)| x[row * k + column] = 1.0);
                        common::with_threads(1, || linear(level, &mut y, &x, &w, m, false, &mut scratch));
                        let want: Vec<f32> = columns.iter().flat_map(|i| values.iter().skip(*i).step_by(k).copied()).collect();
                        assert!(plus(&y) == plus(&want), "{} at {level:?}, {at_once} at once", storage.name());
                        if level == Level::Portable && columns[0] > 64 {
                            break;
                        }
                    }
                }
                let (mut dx, mut dy) = (vec![0.0; n * k], vec![0.0; n * n]);
                (0..n).for_each(|i| dy[i * n + i] = 1.0);
                common::with_threads(1, || linear_backward(level, &mut dx, &dy, &w, n, false, &mut scratch));
                assert!(plus(&dx) == plus(&values), "{} backward at {level:?}", storage.name());
            }
        }
    }
}

#[test]
fn numbers_that_are_none_are_found_in_every_storage() {
    let nan = f32::NAN.to_le_bytes();
    for storage in Storage::ALL {
        let (n, k) = (3, 256);
        let mut bytes = stored(storage, n, k);
        // What is no scale may be any byte.
        let row_bytes = storage.row_bytes(k).unwrap();
        let (in_a_block, place): (usize, &[u8]) = match storage {
            Storage::F32 | Storage::Nf4Plain | Storage::Fp4Plain => (0, &nan),
            Storage::F16 => (0, &[0, 0x7c]),
            Storage::Bf16 => (0, &[0x80, 0xff]),
            Storage::Q4_1 | Storage::Q5_1 | Storage::Q4K | Storage::Q5K => (2, &[1, 0xfe]),
            Storage::Q2K => (82, &[1, 0x7e]),
            Storage::Q3K => (108, &[1, 0x7e]),
            Storage::Q6K => (208, &[1, 0x7e]),
            Storage::Nf4 | Storage::Fp4 => (0, &[]),
            Storage::Int8 => (0, &[]),
            _ => (0, &[1, 0x7e]),
        };
        if place.is_empty() {
            for word in [0, 2].into_iter().take(storage.header_bytes(k) / 4) {
                let mut bytes = bytes.clone();
                bytes[2 * row_bytes + 4 * word..][..4].copy_from_slice(&nan);
                assert!(!finite(storage, k, &bytes), "{} word {word}", storage.name());
            }
            continue;
        }
        let last = bytes.len() - storage.block_bytes();
        bytes[last + in_a_block..][..place.len()].copy_from_slice(place);
        assert!(!finite(storage, k, &bytes), "{}", storage.name());
    }
}

#[test]
fn sizes_are_checked() {
    assert_eq!(Storage::Q4_0.bytes(3, 64), Some(3 * 36));
    assert_eq!(Storage::Q4_0.bytes(3, 63), None);
    assert_eq!(Storage::F32.bytes(usize::MAX, 2), None);
    assert_eq!(Storage::F32.bytes(1, usize::MAX), None);
    assert_eq!(Storage::Bf16.bytes(0, 7), Some(0));
    assert_eq!(Weight::bytes_for(Storage::F32, usize::MAX, 1), None);
}
