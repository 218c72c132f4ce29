//! How fast integer products are: for a matrix of 3072 x 1536 the weights read per second (10⁹, best of several) at one
//! row (generation), and 10⁹ operations a second (two a product) at 32 and 512 rows; beside them the same in f32.
//! `cargo run --release -p kernels --example integers -- [threads] [level]`
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use kernels::integer::{self, Rounded};
use kernels::matmul::{self, Weight, scratch_len};
use kernels::quant::{Storage, quantize};
use kernels::simd::Level;
use std::time::Instant;

const N: usize = 3072;
const K: usize = 1536;

/// Seconds of the best of `times` runs.
fn best(times: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
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
    println!("{level:?}, {threads} threads, {N} x {K}: 10^9 weights/s at 1 row, 10^9 operations/s at 32 and 512");
    println!("{:<8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "storage", "1 row", "f32", "32 rows", "f32", "512 rows", "f32");
    pool.install(|| {
        for storage in Storage::ALL.into_iter().filter(|storage| storage.has_codes()) {
            bench(level, threads, storage);
        }
    });
}

fn bench(level: Level, threads: usize, storage: Storage) {
    let numbers: Vec<f32> = (0..(N * K) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect();
    // Zero bytes are blocks too, and take as long.
    let bytes = if storage.has_writer() {
        quantize(level, storage, N, K, &numbers).expect("memory")
    } else {
        vec![0; storage.bytes(N, K).expect("whole blocks")]
    };
    let w = Weight::new(storage, N, K, &bytes).expect("memory");
    let (mut scratch, mut rounded) = (vec![0.0; scratch_len(threads, 512, N)], Rounded::default());
    rounded.reserve(512, K).expect("memory");
    let mut line = format!("{:<8}", storage.name());
    for (m, times) in [(1, 60), (32, 20), (512, 6)] {
        let (x, mut y) = (&numbers[..m * K], vec![0.0; m * N]);
        let integers = best(times, || integer::linear(level, &mut y, x, &w, m, false, &mut rounded));
        let floats = best(times, || matmul::linear(level, &mut y, x, &w, m, false, &mut scratch));
        let work = 1e-9 * (N * K) as f64 * if m == 1 { 1.0 } else { 2.0 * m as f64 };
        line += &format!(" {:8.1} {:8.1}", work / integers, work / floats);
    }
    println!("{line}");
}
