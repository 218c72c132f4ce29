//! Every operation of [`CpuDevice`] against the same operation of the f64 reference, all slots in one arena.

use engine::batch::{HeadEntry, Run, RunTable};
use engine::compute::{ComputePath, KvType};
use engine::config::{Gate, Rotary};
use engine::cpu::CpuDevice;
use engine::device::{AdamW, AttentionShape, Device, Limits, Product, Slot, Storage, WeightId};
use testkit::{ReferenceDevice, Tolerance};

const LIMITS: Limits =
    Limits { rows: 32, chain: 32, width: 96, head_rows: 32, vocab: 70, hidden: 32, rotaries: 2, compute: ComputePath::Exact };
const KEYS: AttentionShape =
    AttentionShape { heads: 4, kv_heads: 2, head_dim: 4, window: None, scale: 1.0, softcap: None, kv: KvType::F32 };

/// Uniform in -1 .. 1, from a counter.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    (0..n as u64).map(|i| (mix(seed << 32 | (i + 1)) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Lays slots of these lengths into one arena of each device, filled alike, runs `operation` on both and compares the whole arenas.
fn check<const N: usize>(name: &str, lens: [usize; N], operation: impl Fn(&mut dyn Device, [Slot; N], WeightId)) {
    let weight = noise(99, 70 * 32);
    let bytes: Vec<u8> = weight.iter().flat_map(|x| x.to_le_bytes()).collect();
    let total: usize = lens.iter().map(|len| len + 3).sum();
    let start = noise(name.len() as u64, total);
    let run = |device: &mut dyn Device| {
        device.reserve(&LIMITS).unwrap();
        let w = device.weight("w", Storage::F32, 70, 32, &bytes).unwrap();
        let arena = device.allocate("all", total).unwrap();
        device.upload(arena, &start);
        let mut from = 0;
        let slots = lens.map(|len| {
            from += len + 3;
            arena.part(from - len - 3, len)
        });
        operation(device, slots, w);
        let mut end = vec![0.0; total];
        device.download(arena, &mut end);
        end
    };
    let want = run(&mut ReferenceDevice::new());
    assert!(want != start, "{name} did something");
    for threads in [1, 2] {
        Tolerance::f32().check(name, &run(&mut CpuDevice::new(threads)), &want);
    }
}

#[test]
fn rows() {
    check("zero, copy", [40, 40], |d, [a, b], _| {
        d.zero(a);
        d.copy(a.part(8, 30), b.part(5, 30));
    });
    check("embed", [3 * 32], |d, [y], w| d.embed(y, w, &[69, 0, 7]));
    check("gather", [3 * 8, 5 * 8], |d, [y, x], _| d.gather(y, x, &[4, 0, 4], 8));
    check("store_keys", [5 * 8, 3 * 8], |d, [y, x], _| d.store_keys(y, x, &[4, 0, 2], KEYS));
    check("scatter_add", [5 * 8, 3 * 8], |d, [y, x], _| d.scatter_add(y, x, &[4, 0, 4], 8));
}

#[test]
fn linear() {
    for accumulate in [false, true] {
        for m in [1, 5, 20] {
            check("linear", [m * 70, m * 32], |d, [y, x], w| d.linear(y, x, w, m, accumulate));
            check("linear_backward", [m * 32, m * 70], |d, [dx, dy], w| d.linear_backward(dx, dy, w, m, accumulate));
        }
        for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            let product = Product { m: 7, n: 18, k: 9, a_transposed, b_transposed, alpha: 0.5, accumulate };
            check("matmul", [7 * 18, 7 * 9, 9 * 18], |d, [c, a, b], _| d.matmul(c, a, b, product));
        }
    }
}

#[test]
fn block() {
    let (m, c) = (6, 32);
    check("rms_norm", [m * c, m, m * c, c], |d, [y, rstd, x, gain], _| d.rms_norm(y, rstd, x, gain, m, c, 1e-5));
    check("rms_norm_backward", [m * c, m * c, m * c, c, m], |d, [dx, dy, x, gain, rstd], _| {
        d.rms_norm_backward(dx, dy, x, gain, rstd, m, c)
    });
    for act in [Gate::Silu, Gate::GeluTanh] {
        check("gate", [50, 50, 50], |d, [h, gate, up], _| d.gate(h, gate, up, act));
        check("gate_backward", [50; 5], |d, [dgate, dup, dh, gate, up], _| d.gate_backward(dgate, dup, dh, gate, up, act));
    }
    check("add_rows", [50, 10], |d, [y, bias], _| d.add_rows(y, bias));
    check("softcap", [50], |d, [x], _| d.softcap(x, 0.7));
    check("add", [50, 50], |d, [y, x], _| d.add(y, x));
    for accumulate in [false, true] {
        check("dropout", [50, 50], |d, [y, x], _| d.dropout(y, x, &[3, 4, 3, 5, 6], 2, 0.3, 10, accumulate));
    }
    for transposed in [false, true] {
        check("rotary", [6 * 32, 6 * 16], |d, [q, k], _| {
            let positions = [0, 1, 2, 1, 2, 400];
            let whole = Rotary { inv_freq: vec![1.0, 0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.001], scale: 1.0 };
            let part = Rotary { inv_freq: vec![0.9, 0.2, 0.01], scale: 1.2 };
            d.rotary(q, &positions, 2, 16, &whole, transposed);
            d.rotary(k, &positions, 1, 16, &whole, transposed);
            // Two ways of turning take turns.
            d.rotary(q, &positions, 2, 16, &part, transposed);
            d.rotary(k, &positions, 1, 16, &whole, transposed);
            d.rotary(k, &positions, 1, 16, &part, transposed);
            // Other positions, frequencies and factors are not mistaken for the last ones.
            d.rotary(k.part(0, 32), &[5, 6], 1, 16, &whole, transposed);
            d.rotary(k.part(0, 32), &[5, 6], 1, 16, &Rotary { inv_freq: vec![0.7; 8], scale: 1.0 }, transposed);
            d.rotary(k.part(0, 32), &[5, 6], 1, 16, &Rotary { inv_freq: vec![0.7; 8], scale: 1.1 }, transposed);
        });
    }
}

#[test]
fn attention() {
    let runs = [(0..7, 0..1), (7..9, 1..3), (9..12, 3..5)].map(|(rows, spans)| Run { rows, spans });
    let table = RunTable { runs: runs.to_vec(), spans: vec![0..7, 0..7, 7..9, 0..7, 9..12] };
    for (window, softcap) in [(None, None), (Some(4), None), (Some(4), Some(0.3))] {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 8, window, scale: 0.35, softcap, kv: KvType::F32 };
        let (q, k, l) = (12 * 32, 12 * 16, 12 * 4);
        check("attention and its backward", [q, l, q, k, k, q, k, k, q], |d, [out, lse, q, k, v, dq, dk, dv, dout], _| {
            d.attention(out, lse, q, k, v, &table, shape);
            d.attention_backward(dq, dk, dv, dout, out, lse, q, k, v, &table, shape);
        });
    }
}

#[test]
fn head() {
    let entries = [(0, 69), (2, 0), (2, 33), (4, 7)].map(|(row, target)| HeadEntry { row, target });
    check("head", [4, 5 * 32, 5 * 32, 5 * 32], |d, [log_prob, expected, x, dx], w| {
        d.head(log_prob, Some(expected), None, x, w, &entries, 5, None);
        d.head_backward(dx, expected, None, w, &entries, &[0.5, -1.0, 2.0, 0.25], 5);
    });
    check("head without gradient", [4, 5 * 32], |d, [log_prob, x], w| d.head(log_prob, None, None, x, w, &entries, 5, None));
    check("capped head", [4, 4, 5 * 32, 5 * 32, 5 * 32], |d, [log_prob, slope, expected, x, dx], w| {
        d.head(log_prob, Some(expected), Some(slope), x, w, &entries, 5, Some(2.0));
        d.head_backward(dx, expected, Some(slope), w, &entries, &[0.5, -1.0, 2.0, 0.25], 5);
    });
    check("capped head without gradient", [4, 5 * 32], |d, [log_prob, x], w| d.head(log_prob, None, None, x, w, &entries, 5, Some(2.0)));
}

#[test]
fn optimiser() {
    check("adamw", [40; 4], |d, [p, m, v, g], _| {
        d.scale(v, 0.0);
        for step in 1..4 {
            let factor = 1.0 / d.squared_norm(g).sqrt() as f32;
            let adamw = AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step, gradient_scale: factor };
            d.adamw(p, m, v, g, adamw);
        }
    });
    check("adamw in 8 bits", [600; 2], |d, [p, g], _| {
        let moments = d.moments_8bit("moments", 600).unwrap();
        for step in 1..4 {
            let adamw = AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step, gradient_scale: 0.5 };
            d.adamw_8bit(p, moments, g, adamw);
        }
    });
}
