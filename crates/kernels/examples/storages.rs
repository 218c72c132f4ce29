//! How fast weights of each storage are read: for a matrix of 3072 x 1536 the weights decoded per second (10⁹, best of
//! several) at one row (generation) and at 16 rows (where decoding is most of the work), and GFLOP/s at 512 rows, each
//! forward and backward; then how fast f32 is quantised.
//! `cargo run --release -p kernels --example storages -- [threads] [level]`
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use kernels::matmul::{Weight, linear, linear_backward, scratch_len};
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
    println!("{level:?}, {threads} threads, {N} x {K}: 10^9 weights/s at 1 and 16 rows, GFLOP/s at 512 rows");
    println!("{:<10} {:>8} {:>8} {:>9} {:>8} {:>9} {:>9}", "storage", "1 row", "16 rows", "backward", "512 rows", "backward", "quantise");
    pool.install(|| {
        for storage in Storage::ALL {
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
    let mut scratch = vec![0.0; scratch_len(threads, 512, N)];
    let mut line = format!("{:<10}", storage.name());
    for (m, times) in [(1, 40), (16, 30), (512, 8)] {
        let (x, mut y, mut dx) = (numbers[..m * K].to_vec(), vec![0.0; m * N], vec![0.0; m * K]);
        let forward = best(times, || linear(level, &mut y, &x, &w, m, false, &mut scratch));
        let backward = best(times, || linear_backward(level, &mut dx, &y, &w, m, false, &mut scratch));
        let weights = 1e-9 * (N * K) as f64;
        line += &match m {
            1 => format!(" {:8.2}", weights / forward),
            16 => format!(" {:8.2} {:9.2}", weights / forward, weights / backward),
            _ => format!(" {:8.1} {:9.1}", 2.0 * m as f64 * weights / forward, 2.0 * m as f64 * weights / backward),
        };
    }
    if storage.has_writer() {
        let seconds = best(2, || drop(quantize(level, storage, N, K, &numbers).expect("memory")));
        line += &format!(" {:9.3}", 1e-9 * (N * K) as f64 / seconds);
    }
    println!("{line}");
}
