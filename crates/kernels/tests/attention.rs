//! Attention over chains of runs: against the definition in f64, its gradients against differences, and
//! bit for bit under every way of cutting, batching, vectorising and threading the same chain.

mod common;

use common::{Draws, assert_close, bits, with_threads};
use kernels::attention::{self, Run, RunTable, Shape};
use kernels::cache::{KvType, read_head, store_rows};
use kernels::simd::Level;
use std::ops::Range;

/// Key rows that the chain of run `i` strings together, and the chain index of its first query.
fn chain(table: &RunTable, i: usize) -> (Vec<usize>, usize) {
    let run = &table.runs[i];
    let keys: Vec<usize> = table.spans[run.spans.clone()].iter().cloned().flatten().collect();
    let first = keys.len() - run.rows.len();
    (keys, first)
}

/// The definition: softmax over the visible keys of each query's chain. Returns (out, lse).
fn naive(q: &[f64], k: &[f64], v: &[f64], table: &RunTable, shape: Shape) -> (Vec<f64>, Vec<f64>) {
    let Shape { heads, kv_heads, head_dim: d, window, scale, softcap, .. } = shape;
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; q.len() / d]);
    let cap = |score: f64| softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
    for i in 0..table.runs.len() {
        let (keys, first) = chain(table, i);
        for (place, row) in table.runs[i].rows.clone().enumerate() {
            let last = first + place;
            let seen = (last + 1).saturating_sub(window.unwrap_or(usize::MAX))..last + 1;
            for h in 0..heads {
                let g = h / (heads / kv_heads);
                let q = &q[(row * heads + h) * d..][..d];
                let at = |x: &[f64], key: usize, j: usize| x[(key * kv_heads + g) * d + j];
                let score = |&key: &usize| cap(f64::from(scale) * (0..d).map(|j| q[j] * at(k, key, j)).sum::<f64>());
                let scores: Vec<f64> = keys[seen.clone()].iter().map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                lse[row * heads + h] = top + sum.ln();
                for (s, &key) in scores.iter().zip(&keys[seen.clone()]) {
                    let p = (s - top).exp() / sum;
                    for j in 0..d {
                        out[(row * heads + h) * d + j] += p * at(v, key, j);
                    }
                }
            }
        }
    }
    (out, lse)
}

/// The gradients of Σ dout · out, by the chain rule on the definition. Returns (dq, dk, dv).
fn naive_backward(dout: &[f64], q: &[f64], k: &[f64], v: &[f64], table: &RunTable, shape: Shape) -> [Vec<f64>; 3] {
    let Shape { heads, kv_heads, head_dim: d, window, scale, softcap, .. } = shape;
    let scale = f64::from(scale);
    let (out, lse) = naive(q, k, v, table, shape);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for i in 0..table.runs.len() {
        let (keys, first) = chain(table, i);
        for (place, row) in table.runs[i].rows.clone().enumerate() {
            let last = first + place;
            let seen = (last + 1).saturating_sub(window.unwrap_or(usize::MAX))..last + 1;
            for h in 0..heads {
                let g = h / (heads / kv_heads);
                let at = (row * heads + h) * d;
                let delta: f64 = (0..d).map(|j| dout[at + j] * out[at + j]).sum();
                for &key in &keys[seen.clone()] {
                    let of = (key * kv_heads + g) * d;
                    let dot = |x: &[f64], y: &[f64]| (0..d).map(|j| x[at + j] * y[of + j]).sum::<f64>();
                    let cap = |score: f64| softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
                    let score = cap(scale * dot(q, k));
                    let p = (score - lse[row * heads + h]).exp();
                    let slope = softcap.map_or(1.0, |cap| 1.0 - (score / f64::from(cap)).powi(2));
                    let ds = p * (dot(dout, v) - delta) * scale * slope;
                    for j in 0..d {
                        dq[at + j] += ds * k[of + j];
                        dk[of + j] += ds * q[at + j];
                        dv[of + j] += p * dout[at + j];
                    }
                }
            }
        }
    }
    [dq, dk, dv]
}

/// One problem: a table and random tensors that fit it.
struct Case {
    table: RunTable,
    shape: Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

/// What the kernels say about it.
#[derive(PartialEq, Debug)]
struct Answer {
    out: Vec<f32>,
    lse: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

const SENTINEL: f32 = -77.25;

impl Case {
    fn new(seed: u64, table: RunTable, shape: Shape) -> Case {
        let mut draws = Draws::new(seed);
        let rows = table.runs.iter().map(|run| run.rows.end).max().unwrap();
        let keys = table.spans.iter().map(|span| span.end).max().unwrap();
        let (queries, keys) = (rows * shape.heads * shape.head_dim, keys * shape.kv_heads * shape.head_dim);
        let [q, k, v, dout] = [queries, keys, keys, queries].map(|n| draws.normal(n));
        Case { table, shape, q, k, v, dout }
    }

    fn forward(&self, level: Level, threads: usize) -> (Vec<f32>, Vec<f32>) {
        with_threads(threads, || {
            let (n, s) = (self.q.len(), self.q.len() / self.shape.head_dim);
            let mut out = vec![SENTINEL; n + 9];
            let mut lse = vec![SENTINEL; s + 9];
            let mut scratch = vec![f32::NAN; attention::scratch_len(threads, self.table.longest_chain())];
            attention::attention(level, &mut out[..n], &mut lse[..s], &self.q, &self.k, &self.v, &self.table, self.shape, &mut scratch);
            assert!(out[n..].iter().chain(&lse[s..]).all(|&x| x == SENTINEL), "wrote past the end");
            out.truncate(n);
            lse.truncate(s);
            (out, lse)
        })
    }

    fn run(&self, level: Level, threads: usize) -> Answer {
        let (out, lse) = self.forward(level, threads);
        with_threads(threads, || {
            let (n, s) = (self.q.len(), self.k.len());
            let mut dq = vec![SENTINEL; n + 9];
            let [mut dk, mut dv] = [0, 1].map(|_| [vec![0.0; s], vec![SENTINEL; 9]].concat());
            let mut scratch = vec![f32::NAN; attention::scratch_len(threads, self.table.longest_chain())];
            attention::attention_backward(
                level,
                &mut dq[..n],
                &mut dk[..s],
                &mut dv[..s],
                &self.dout,
                &out,
                &lse,
                &self.q,
                &self.k,
                &self.v,
                &self.table,
                self.shape,
                &mut scratch,
            );
            assert!([&dq[n..], &dk[s..], &dv[s..]].concat().iter().all(|&x| x == SENTINEL), "wrote past the end");
            dq.truncate(n);
            dk.truncate(s);
            dv.truncate(s);
            Answer { out, lse, dq, dk, dv }
        })
    }

    fn check(&self) {
        self.check_within(3e-6);
    }

    fn check_within(&self, tolerance: f64) {
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let answer = self.run(Level::detect(), 2);
        let (out, lse) = naive(&q, &k, &v, &self.table, self.shape);
        let [dq, dk, dv] = naive_backward(&dout, &q, &k, &v, &self.table, self.shape);
        for (name, got, want) in [
            ("out", &answer.out, &out),
            ("lse", &answer.lse, &lse),
            ("dq", &answer.dq, &dq),
            ("dk", &answer.dk, &dk),
            ("dv", &answer.dv, &dv),
        ] {
            assert_close(&format!("{name} of {:?} {:?}", self.shape, self.table.runs.len()), got, want, tolerance);
        }
    }
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> Shape {
    Shape { heads, kv_heads, head_dim, window, scale: 1.0 / (head_dim as f32).sqrt(), softcap: None, kv: KvType::F32 }
}

/// Scores are normal: a cap of 1.5 bends most of them.
fn capped(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> Shape {
    Shape { softcap: Some(1.5), ..shape(heads, kv_heads, head_dim, window) }
}

/// Runs without parents, of these lengths.
fn separate(lengths: &[usize]) -> RunTable {
    let mut table = RunTable::default();
    let mut row = 0;
    for (i, &n) in lengths.iter().enumerate() {
        table.runs.push(Run { rows: row..row + n, spans: i..i + 1 });
        table.spans.push(row..row + n);
        row += n;
    }
    table
}

/// A tree: (parent, rows) per segment.
fn tree(segments: &[(Option<usize>, usize)]) -> RunTable {
    let mut table = RunTable::default();
    let mut chains: Vec<Vec<Range<usize>>> = Vec::new();
    let mut row = 0;
    for &(parent, n) in segments {
        let mut chain = parent.map_or(Vec::new(), |parent| chains[parent].clone());
        chain.push(row..row + n);
        let start = table.spans.len();
        table.spans.extend(chain.iter().cloned());
        table.runs.push(Run { rows: row..row + n, spans: start..table.spans.len() });
        chains.push(chain);
        row += n;
    }
    table
}

/// A small trie of every kind of depth, run lengths around the tile size.
fn bushy() -> RunTable {
    tree(&[
        (None, 70),
        (Some(0), 3),
        (Some(0), 1),
        (Some(1), 66),
        (Some(1), 2),
        (Some(4), 1),
        (None, 1),
        (Some(6), 5),
        (Some(3), 130),
        (Some(0), 4),
    ])
}

#[test]
fn agrees_with_the_definition() {
    for (seed, (heads, kv_heads)) in [(1, 1), (2, 1), (3, 3), (9, 3), (8, 1)].into_iter().enumerate() {
        for head_dim in [2, 6, 16, 30, 64] {
            let seed = (seed * 100 + head_dim) as u64;
            Case::new(seed, separate(&[1, 5, 19, 70]), shape(heads, kv_heads, head_dim, None)).check();
            Case::new(seed, separate(&[1, 40]), shape(heads, kv_heads, head_dim, Some(7))).check();
        }
    }
    Case::new(7, bushy(), shape(4, 2, 32, None)).check();
    Case::new(8, bushy(), shape(3, 1, 80, Some(65))).check();
    Case::new(9, bushy(), shape(2, 2, 10, Some(1))).check();
    Case::new(10, separate(&[200]), shape(3, 1, 128, None)).check();
    Case::new(11, separate(&[130]), shape(1, 1, 256, Some(64))).check();
    for (seed, (heads, kv_heads, head_dim, window)) in
        [(4, 2, 32, None), (3, 1, 80, Some(65)), (2, 2, 10, Some(1)), (4, 1, 256, Some(70))].into_iter().enumerate()
    {
        Case::new(20 + seed as u64, bushy(), capped(heads, kv_heads, head_dim, window)).check();
    }
    // Many query heads on one key head, and scratch for one row of them at a time.
    Case::new(12, separate(&[90]), shape(71, 1, 16, None)).check();
    // A key's gradient is a sum of 90 000 terms in order: their roundings add up.
    Case::new(13, separate(&[700]), shape(128, 1, 2, None)).check_within(3e-5);
}

#[test]
fn gradients_are_the_differences_of_the_definition() {
    differences(shape(4, 2, 4, Some(4)));
    differences(capped(4, 2, 4, Some(4)));
}

fn differences(shape: Shape) {
    let case = Case::new(3, tree(&[(None, 3), (Some(0), 2), (Some(0), 4)]), shape);
    let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
        naive(q, k, v, &case.table, case.shape).0.iter().zip(&dout).map(|(out, dout)| out * dout).sum()
    };
    let difference = |which: usize, i: usize| {
        let eps = 1e-5;
        let at = |step: f64| {
            let mut x = [q.clone(), k.clone(), v.clone()];
            x[which][i] += step;
            loss(&x[0], &x[1], &x[2])
        };
        (at(eps) - at(-eps)) / (2.0 * eps)
    };
    let answer = case.run(Level::detect(), 1);
    for (which, (name, got)) in [("dq", &answer.dq), ("dk", &answer.dk), ("dv", &answer.dv)].into_iter().enumerate() {
        let want: Vec<f64> = (0..got.len()).map(|i| difference(which, i)).collect();
        assert_close(name, got, &want, 3e-6);
    }
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    let shapes =
        [shape(6, 2, 64, None), shape(6, 2, 24, Some(50)), shape(6, 2, 6, None), capped(6, 2, 64, Some(50)), capped(6, 2, 6, None)];
    for (seed, shape) in (1..).zip(shapes) {
        let case = Case::new(seed, bushy(), shape);
        let first = case.run(Level::Portable, 1);
        for &level in Level::available() {
            for threads in [1, 2, 3, 7] {
                assert!(case.run(level, threads) == first, "{level:?} with {threads} threads, {shape:?}");
            }
        }
    }
}

/// The same text once as one run and once cut into a chain of segments at `cuts`.
fn cut(n: usize, cuts: &[usize]) -> RunTable {
    let mut segments = Vec::new();
    let mut from = 0;
    for (i, &to) in cuts.iter().chain([&n]).enumerate() {
        segments.push((i.checked_sub(1), to - from));
        from = to;
    }
    tree(&segments)
}

#[test]
fn cutting_a_chain_changes_no_bit() {
    let shapes =
        [shape(6, 2, 64, None), shape(2, 2, 32, Some(40)), shape(4, 2, 18, Some(100)), capped(6, 2, 64, None), capped(4, 2, 18, Some(40))];
    for shape in shapes {
        let whole = Case::new(5, separate(&[200]), shape);
        let answer = whole.run(Level::detect(), 2);
        for cuts in [&[1][..], &[64], &[63, 65], &[10, 11, 12, 150], &[199], &[7, 100, 101, 164, 190]] {
            let case = Case::new(5, cut(200, cuts), shape);
            let pieces = case.run(Level::detect(), 2);
            for (name, got, want) in [
                ("out", &pieces.out, &answer.out),
                ("lse", &pieces.lse, &answer.lse),
                ("dq", &pieces.dq, &answer.dq),
                ("dk", &pieces.dk, &answer.dk),
                ("dv", &pieces.dv, &answer.dv),
            ] {
                assert_eq!(bits(got), bits(want), "{name} cut at {cuts:?}, {shape:?}");
            }
        }
    }
}

#[test]
fn decoding_row_by_row_is_prefilling() {
    for shape in [shape(6, 2, 64, None), shape(6, 2, 10, Some(30)), capped(6, 2, 64, Some(30))] {
        let head_dim = shape.head_dim;
        let n = 150;
        let whole = Case::new(6, separate(&[n]), shape);
        let (out, lse) = whole.forward(Level::detect(), 1);
        let (row, key) = (6 * head_dim, 2 * head_dim);
        for i in 0..n {
            // The cache may be longer than the chain, and the chain may lie in pieces.
            let cut = if i > 3 { 2 } else { 0 };
            let spans = vec![0..cut, cut..i + 1];
            let table = RunTable { runs: vec![Run { rows: 0..1, spans: 0..spans.len() }], spans };
            let step = Case {
                table,
                shape,
                q: whole.q[i * row..][..row].to_vec(),
                k: whole.k[..(i + 1) * key].to_vec(),
                v: whole.v[..(i + 1) * key].to_vec(),
                dout: Vec::new(),
            };
            let (one, one_lse) = step.forward(Level::detect(), 2);
            assert_eq!(bits(&one), bits(&out[i * row..][..row]), "row {i}");
            assert_eq!(bits(&one_lse), bits(&lse[i * 6..][..6]), "lse of row {i}");
        }
    }
}

#[test]
fn neighbours_change_no_bit() {
    let shape = shape(3, 1, 16, None);
    let many = Case::new(12, separate(&[30, 1, 77, 2]), shape);
    let together = many.run(Level::detect(), 2);
    let alone = Case {
        table: separate(&[77]),
        shape,
        q: many.q[31 * 48..108 * 48].to_vec(),
        k: many.k[31 * 16..108 * 16].to_vec(),
        v: many.v[31 * 16..108 * 16].to_vec(),
        dout: many.dout[31 * 48..108 * 48].to_vec(),
    }
    .run(Level::detect(), 1);
    assert_eq!(bits(&alone.out), bits(&together.out[31 * 48..108 * 48]));
    assert_eq!(bits(&alone.dq), bits(&together.dq[31 * 48..108 * 48]));
    assert_eq!(bits(&alone.dk), bits(&together.dk[31 * 16..108 * 16]));
}

#[test]
fn key_gradients_accumulate() {
    let case = Case::new(4, separate(&[20]), shape(2, 1, 8, None));
    let fresh = case.run(Level::detect(), 1);
    let (out, lse) = case.forward(Level::detect(), 1);
    let mut dq = vec![5.0; case.q.len()];
    let (mut dk, mut dv) = (vec![1.0; case.k.len()], vec![2.0; case.k.len()]);
    let mut scratch = vec![0.0; attention::scratch_len(1, 20)];
    with_threads(1, || {
        attention::attention_backward(
            Level::detect(),
            &mut dq,
            &mut dk,
            &mut dv,
            &case.dout,
            &out,
            &lse,
            &case.q,
            &case.k,
            &case.v,
            &case.table,
            case.shape,
            &mut scratch,
        )
    });
    assert_eq!(bits(&dq), bits(&fresh.dq));
    assert_close("dk", &dk, &fresh.dk.iter().map(|&x| f64::from(x) + 1.0).collect::<Vec<_>>(), 1e-6);
    assert_close("dv", &dv, &fresh.dv.iter().map(|&x| f64::from(x) + 2.0).collect::<Vec<_>>(), 1e-6);
}

/// A cache of every type reads as its numbers do, at every level and thread count; and those are near what was stored.
#[test]
fn caches_of_every_type_are_read_as_they_hold() {
    for (heads, kv_heads, d) in [(6, 3, 64), (4, 2, 40), (2, 1, 256), (4, 4, 8)] {
        let table =
            RunTable { runs: vec![Run { rows: 0..3, spans: 0..2 }, Run { rows: 3..4, spans: 2..3 }], spans: vec![0..70, 80..95, 100..131] };
        let case = Case::new(11, table, shape(heads, kv_heads, d, None));
        let (keys, width) = (case.k.len() / (kv_heads * d), kv_heads * d);
        for kv in KvType::ALL {
            // Rows are put in their places in any order, some of them later.
            let places: Vec<u32> = (0..keys as u32).rev().collect();
            let store = |x: &[f32]| {
                let mut cache = vec![SENTINEL; keys * kv.row_len(kv_heads, d)];
                let reversed: Vec<f32> = x.chunks(width).rev().flatten().copied().collect();
                let (first, last) = reversed.split_at(5 * width);
                store_rows(&mut cache, last, &places[5..], kv, kv_heads, d);
                store_rows(&mut cache, first, &places[..5], kv, kv_heads, d);
                cache
            };
            let (k, v) = (store(&case.k), store(&case.v));
            let read = |cache: &[f32], x: &[f32]| {
                let mut numbers = vec![0.0; x.len()];
                for (head, to) in cache.chunks(kv.head_len(d)).zip(numbers.chunks_mut(d)) {
                    read_head(head, kv, to);
                }
                for (x, number) in x.chunks(d).zip(numbers.chunks(d)).flat_map(|(x, n)| x.chunks(16).zip(n.chunks(16))) {
                    let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                    for (x, number) in x.iter().zip(number) {
                        let bound = match kv {
                            KvType::F32 => 0.0,
                            KvType::Bf16 => x.abs() / 256.0,
                            KvType::Int8 => 0.5001 * largest / 127.0 * (1.0 + 1.0 / 128.0), // the scale, rounded up
                        };
                        assert!((x - number).abs() <= bound, "{kv:?}: {number} for {x}");
                    }
                }
                numbers
            };
            let plain = Case {
                k: read(&k, &case.k),
                v: read(&v, &case.v),
                q: case.q.clone(),
                dout: case.dout.clone(),
                table: case.table.clone(),
                shape: case.shape,
            };
            let want = plain.forward(Level::Portable, 1);
            let cached = Case { k, v, shape: Shape { kv, ..case.shape }, ..plain };
            for &level in Level::available() {
                for threads in [1, 2, 3] {
                    let got = cached.forward(level, threads);
                    assert_eq!(
                        (bits(&got.0), bits(&got.1)),
                        (bits(&want.0), bits(&want.1)),
                        "{kv:?} {level:?} {threads} threads, heads of {d}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_of_a_cache_have_the_size_that_is_planned() {
    assert_eq!(KvType::ALL.map(|kv| kv.row_len(3, 64)), [192, 96, 54]);
    assert_eq!(KvType::ALL.map(|kv| kv.row_len(1, 40)), [40, 32, 18]);
    assert!(KvType::ALL.iter().all(|kv| KvType::from_name(kv.name()) == Some(*kv)));
    // Halfway between two bfloat16 the even one is taken.
    for (x, want) in [(1.003_906_3f32, 1.0f32), (1.011_718_8, 1.015_625), (-1.003_906_3, -1.0), (0.0, 0.0), (-0.0, -0.0)] {
        let (mut cache, mut back) = (vec![0.0; 16], [0.0]);
        store_rows(&mut cache, &[x], &[0], KvType::Bf16, 1, 1);
        read_head(&cache, KvType::Bf16, &mut back);
        assert_eq!(back[0].to_bits(), want.to_bits(), "{x}");
    }
}
