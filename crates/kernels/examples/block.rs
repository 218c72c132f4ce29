//! Milliseconds (best of several) of everything that is no plain matrix product, on the sizes of SmolLM2-135M, beside the
//! matrix products of one layer: `cargo run --release -p kernels --example block -- [threads] [level] [section]`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]
#![allow(clippy::single_range_in_vec_init, reason = "spans are ranges, some alone")]

use kernels::attention::{self, Run, RunTable, Shape, attention, attention_backward};
use kernels::cache::KvType;
use kernels::elementwise::Gate;
use kernels::head::{self, HeadEntry, head, head_backward};
use kernels::matmul::{self, Weight, linear, linear_backward};
use kernels::quant::Storage;
use kernels::simd::Level;
use kernels::{dropout, elementwise, norm, optimizer, rotary, rows};
use std::time::Instant;

const SHAPE: Shape = Shape { heads: 9, kv_heads: 3, head_dim: 64, window: None, scale: 0.125, softcap: None, kv: KvType::F32 };

fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Milliseconds of the best of `times` runs.
fn best(times: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    1e3 * best
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |v| v.parse().expect("a number of threads"));
    let level = match args.next().as_deref() {
        Some("avx2") => Level::Avx2,
        Some("portable") => Level::Portable,
        _ => Level::detect(),
    };
    let only = args.next();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    println!("{level:?}, {threads} threads, milliseconds");
    pool.install(|| {
        let wanted = |section: &str| only.as_ref().is_none_or(|only| only == section);
        if wanted("attention") {
            attentions(level, threads);
        }
        if wanted("small") {
            small(level);
        }
        if wanted("linear") {
            layer(level, threads);
        }
        if wanted("head") {
            heads(level, threads);
        }
    });
}

/// One run per chain of spans.
fn table(chains: &[(usize, Vec<std::ops::Range<usize>>)]) -> RunTable {
    let mut table = RunTable::default();
    let mut row = 0;
    for (rows, spans) in chains {
        let start = table.spans.len();
        table.spans.extend(spans.iter().cloned());
        table.runs.push(Run { rows: row..row + rows, spans: start..table.spans.len() });
        row += rows;
    }
    table
}

fn attentions(level: Level, threads: usize) {
    let dense = table(&[(512, vec![0..512]), (512, vec![512..1024])]);
    let mut labels = vec![(300, vec![0..300])];
    labels.extend((0..77).map(|i| (4, vec![0..300, 300 + 4 * i..304 + 4 * i])));
    let labels = table(&labels);
    let long = table(&[(2048, vec![0..2048])]);
    let decode = table(&[(1, vec![0..1024])]);
    let many = table(&(0..32).map(|_| (1, vec![0..1024])).collect::<Vec<_>>());
    for (name, table) in [("2 x 512", dense), ("1 x 2048", long), ("300 + 77 x 4", labels), ("1 of 1024", decode), ("32 x 1 of 1024", many)]
    {
        let rows = table.runs.last().expect("runs").rows.end;
        let keys = table.spans.iter().map(|span| span.end).max().expect("spans");
        let Shape { heads, kv_heads, head_dim: d, .. } = SHAPE;
        let (q, k, v, dout) =
            (numbers(rows * heads * d), numbers(keys * kv_heads * d), numbers(keys * kv_heads * d), numbers(rows * heads * d));
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; rows * heads]);
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]);
        let mut scratch = vec![0.0; attention::scratch_len(threads, table.longest_chain())];
        let forward = best(30, || attention(level, &mut out, &mut lse, &q, &k, &v, &table, SHAPE, &mut scratch));
        let backward =
            best(30, || attention_backward(level, &mut dq, &mut dk, &mut dv, &dout, &out, &lse, &q, &k, &v, &table, SHAPE, &mut scratch));
        // Multiplications of the pairs that are seen: 2 products forward, 5 backward.
        let pairs: usize = table
            .runs
            .iter()
            .map(|run| {
                let chain: usize = table.spans[run.spans.clone()].iter().map(|span| span.len()).sum();
                (0..run.rows.len()).map(|i| chain - i).sum::<usize>()
            })
            .sum();
        let flops = (2 * heads * d * pairs) as f64;
        println!(
            "attention {name:15} forward {forward:8.3} ({:4.0} GFLOP/s)  backward {backward:8.3} ({:4.0})",
            2e-6 * flops / forward,
            5e-6 * flops / backward
        );
    }
}

fn small(level: Level) {
    let (m, c, inner) = (1024, 576, 1536);
    let (x, gain, wide, wider) = (numbers(m * c), numbers(c), numbers(m * inner), numbers(m * inner));
    let (mut y, mut z, mut rstd) = (numbers(m * c), numbers(m * c), vec![0.0; m]);
    let (mut h, mut dgate, mut dup) = (numbers(m * inner), numbers(m * inner), numbers(m * inner));
    let positions: Vec<u32> = (0..m as u32).map(|i| i % 512).collect();
    let inv_freq: Vec<f32> = (0..32).map(|i| 0.75f32.powi(i)).collect();
    let mut angles = vec![0.0; m * 64];
    let keys: Vec<u64> = (0..m as u64).collect();
    let order: Vec<u32> = (0..m as u32).rev().collect();
    let say = |name: &str, floats: usize, run: &mut dyn FnMut()| {
        let ms = best(50, run);
        println!("{name:20} {ms:8.3} ({:5.1} GB/s)", 4e-6 * floats as f64 / ms);
    };
    say("copy", 2 * m * c, &mut || y.copy_from_slice(&x));
    say("rms_norm", 2 * m * c, &mut || norm::rms_norm(level, &mut y, &mut rstd, &x, &gain, m, c, 1e-5));
    say("rms_norm_backward", 4 * m * c, &mut || norm::rms_norm_backward(level, &mut z, &y, &x, &gain, &rstd, m, c));
    say("silu_gate", 3 * m * inner, &mut || elementwise::gate(level, &mut h, &wide, &wider, Gate::Silu));
    say("silu_gate_backward", 5 * m * inner, &mut || {
        elementwise::gate_backward(level, &mut dgate, &mut dup, &h, &wide, &wider, Gate::Silu)
    });
    say("gelu_gate", 3 * m * inner, &mut || elementwise::gate(level, &mut h, &wide, &wider, Gate::GeluTanh));
    say("add", 3 * m * c, &mut || elementwise::add(&mut z, &y));
    say("angles", m * 64, &mut || rotary::angles(&mut angles, &positions, &inv_freq, 1.0));
    say("rotary", 2 * m * c, &mut || rotary::rotary(level, &mut z, &angles, 9, 64, 64, false));
    say("dropout", 2 * m * c, &mut || dropout::dropout(level, &mut z, &x, &keys, 3, 0.05, c, false));
    say("gather", 2 * m * c, &mut || rows::gather(&mut z, &x, &order, c));
    say("scatter_add", 3 * m * c, &mut || rows::scatter_add(&mut z, &x, &order, c));
    let step =
        optimizer::Step { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 3, gradient_scale: 1.0 };
    h.fill(0.1);
    say("adamw", 7 * m * inner, &mut || optimizer::adamw(level, &mut dgate, &mut dup, &mut h, &wide, step));
    say("squared_norm", m * inner, &mut || assert!(optimizer::squared_norm(level, &wide) > 0.0));
}

fn weight(n: usize, k: usize) -> Weight {
    let bytes: Vec<u8> = numbers(n * k).iter().flat_map(|x| x.to_le_bytes()).collect();
    Weight::new(Storage::F32, n, k, &bytes).expect("memory")
}

/// The matrix products of one layer, forward and backward, as the measure of the rest.
fn layer(level: Level, threads: usize) {
    let m = 1024;
    let mut scratch = vec![0.0; matmul::scratch_len(threads, m, 1536)];
    let mut sum = [0.0, 0.0];
    for (k, n, count) in [(576, 576, 2), (576, 192, 2), (576, 1536, 2), (1536, 576, 1)] {
        let w = weight(n, k);
        let (x, mut y, mut dx) = (numbers(m * k), vec![0.0; m * n], vec![0.0; m * k]);
        sum[0] += f64::from(count) * best(12, || linear(level, &mut y, &x, &w, m, false, &mut scratch));
        sum[1] += f64::from(count) * best(12, || linear_backward(level, &mut dx, &y, &w, m, false, &mut scratch));
    }
    println!("linear layers        forward {:8.3}  backward {:8.3}", sum[0], sum[1]);
}

fn heads(level: Level, threads: usize) {
    let (m, v, c) = (1024, 49152, 576);
    let w = weight(v, c);
    let x: Vec<f32> = numbers(m * c).iter().map(|x| 0.1 * x).collect();
    let entries: Vec<HeadEntry> = (0..m as u32).map(|row| HeadEntry { row, target: row * 48 }).collect();
    let mut scratch = vec![0.0; head::scratch_len(threads, m, c)];
    let (mut log_prob, mut expected, mut dx) = (vec![0.0; m], vec![0.0; m * c], vec![0.0; m * c]);
    for m in [1024, 64, 8, 1] {
        let (x, entries) = (&x[..m * c], &entries[..m]);
        let (log_prob, expected) = (&mut log_prob[..m], &mut expected[..m * c]);
        let whole = best(4, || head(level, log_prob, Some(expected), None, x, &w, entries, m, None, None, &mut scratch));
        let alone = best(4, || head(level, log_prob, None, None, x, &w, entries, m, None, None, &mut scratch));
        println!(
            "head of {m:4} rows     with expected {whole:8.3} ({:4.0} GFLOP/s)  without {alone:8.3} ({:4.0})",
            4e-6 * (m * v * c) as f64 / whole,
            2e-6 * (m * v * c) as f64 / alone
        );
    }
    let coefficients = vec![1.0; m];
    let ms = best(4, || head_backward(&mut dx, &expected, None, &w, &entries, &coefficients, m, &mut scratch));
    println!("head_backward        {ms:8.3}");
}
