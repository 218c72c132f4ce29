//! Stored numbers against gguf-py (`golden/quant`), and the vectors' way against the plain one.

use kernels::matmul::Weight;
use kernels::quant::{Storage, dequantize_row, quantize_row};

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
    assert_eq!(lines, 40);
}

/// Largest error of a quantised weight, as a share of the block's largest size: half a step, and the scale's own rounding.
const ERROR_BUDGETS: [(Storage, f32); 6] = [
    (Storage::F32, 0.0),
    (Storage::F16, 0.0005),
    (Storage::Bf16, 0.004),
    (Storage::Q4_0, 0.126),
    (Storage::Q4_1, 0.069),
    (Storage::Q8_0, 0.0045),
];

#[test]
fn there_and_back_stays_within_the_budget() {
    for (storage, budget) in ERROR_BUDGETS {
        for seed in 0..200u32 {
            let x: Vec<f32> =
                (0..32u32).map(|i| ((i + 32 * seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect();
            let mut bytes = vec![0; storage.bytes(1, 32).unwrap()];
            let mut back = vec![0.0; 32];
            quantize_row(storage, &x, &mut bytes);
            dequantize_row(storage, &bytes, &mut back);
            let peak = x.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
            for (x, back) in x.iter().zip(&back) {
                assert!((x - back).abs() <= budget * peak, "{}: {x} came back as {back} beside {peak}", storage.name());
            }
        }
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
