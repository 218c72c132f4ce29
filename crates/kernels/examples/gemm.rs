//! GFLOP/s (best of 12) of the matrix products on the shapes of SmolLM2-135M, to be read beside the peer's in
//! `gemm.py`: `cargo run --release -p kernels --example gemm -- [threads] [level] [rows]`; with `rows`
//! given, only the weights' products at that many rows.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use kernels::matmul::{Weight, linear, linear_backward, matmul, scratch_len};
use kernels::quant::{Storage, quantize_row};
use kernels::simd::Level;
use std::time::Instant;

/// (inner, outer) of the products that dominate SmolLM2-135M.
const SHAPES: [(usize, usize); 5] = [(576, 576), (576, 192), (576, 1536), (1536, 576), (576, 49152)];

fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn weight(storage: Storage, n: usize, k: usize) -> Weight {
    let mut bytes = vec![0; storage.bytes(n, k).expect("whole blocks")];
    quantize_row(storage, &numbers(n * k), &mut bytes);
    Weight::new(storage, n, k, &bytes).expect("memory")
}

/// GFLOP/s of the best of 13 runs.
fn rate(flops: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..13 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    1e-9 * flops as f64 / best
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |v| v.parse().expect("a number of threads"));
    let level = match args.next().as_deref() {
        Some("avx2") => Level::Avx2,
        Some("portable") => Level::Portable,
        _ => Level::detect(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let rows = args.next().map(|v| v.parse().expect("a number of rows"));
    pool.install(|| bench(level, threads, rows));
}

fn bench(level: Level, threads: usize, rows: Option<usize>) {
    println!("{level:?}, {threads} threads, GFLOP/s");
    let mut scratch = vec![0.0; scratch_len(threads, 1024, 49152)];
    for m in rows.map_or(vec![1024, 32, 8, 1], |m| vec![m]) {
        for storage in [Storage::F32, Storage::Q4_1, Storage::Q8_0, Storage::Bf16] {
            let (mut forward, mut backward) = (Vec::new(), Vec::new());
            for (k, n) in SHAPES {
                let w = weight(storage, n, k);
                let (x, mut y, mut dx) = (numbers(m * k), vec![0.0; m * n], vec![0.0; m * k]);
                forward.push(rate(2 * m * n * k, || linear(level, &mut y, &x, &w, m, false, &mut scratch)));
                backward.push(rate(2 * m * n * k, || linear_backward(level, &mut dx, &y, &w, m, false, &mut scratch)));
            }
            for (what, rates) in [("forward", forward), ("backward", backward)] {
                let mean = rates.iter().sum::<f64>() / rates.len() as f64;
                let list: Vec<String> = rates.iter().map(|r| format!("{r:6.1}")).collect();
                println!("m {m:4} {:5} {what:8} {}  mean {mean:6.1}", storage.name(), list.join(" "));
            }
        }
    }
    if rows.is_some() {
        return;
    }
    println!("adapters at m 1024: u = x Aᵀ, y += u Bᵀ, du = dy B, dB += dyᵀ u, dA += duᵀ x, dx += du A");
    for (r, k, n) in [(8, 576, 576), (16, 576, 576), (16, 576, 1536), (16, 1536, 576), (64, 576, 1536)] {
        let m = 1024;
        let (x, dy, u) = (numbers(m * k), numbers(m * n), numbers(m * r));
        let (a, b) = (numbers(r * k), numbers(n * r));
        let (mut cu, mut y, mut db, mut da, mut dx) = (vec![0.0; m * r], dy.clone(), b.clone(), a.clone(), x.clone());
        let s = &mut scratch[..];
        let rates = [
            rate(2 * m * r * k, || matmul(level, &mut cu, &x, &a, m, r, k, false, true, 1.0, false, s)),
            rate(2 * m * r * n, || matmul(level, &mut y, &u, &b, m, n, r, false, true, 2.0, true, s)),
            rate(2 * m * r * n, || matmul(level, &mut cu, &dy, &b, m, r, n, false, false, 2.0, false, s)),
            rate(2 * m * r * n, || matmul(level, &mut db, &dy, &u, n, r, m, true, false, 2.0, true, s)),
            rate(2 * m * r * k, || matmul(level, &mut da, &u, &x, r, k, m, true, false, 1.0, true, s)),
            rate(2 * m * r * k, || matmul(level, &mut dx, &u, &a, m, k, r, false, false, 1.0, true, s)),
        ];
        let mean = rates.len() as f64 / rates.iter().map(|r| r.recip()).sum::<f64>();
        let list: Vec<String> = rates.iter().map(|r| format!("{r:6.1}")).collect();
        println!("r {r:2} {k:4} -> {n:4}: {}  harmonic mean {mean:6.1}", list.join(" "));
    }
}
