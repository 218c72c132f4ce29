//! The head against softmax over whole logits in f64, and its gradient against differences.

mod common;

use common::{Draws, assert_close, bits, differences, wide, with_threads};
use kernels::head::{HeadEntry, head, head_backward, head_weight_backward, largest, log_sum_exp, scratch_len};
use kernels::integer::{self, Rounded};
use kernels::matmul::Weight;
use kernels::quant::Storage;
use kernels::simd::Level;

struct Case {
    x: Vec<f32>,
    w: Vec<f32>,
    weight: Weight,
    entries: Vec<HeadEntry>,
    coefficients: Vec<f32>,
    m: usize,
    v: usize,
    c: usize,
    softcap: Option<f32>,
}

impl Case {
    fn new(seed: u64, m: usize, v: usize, c: usize, entries: usize) -> Case {
        let mut draws = Draws::new(seed);
        let x = draws.normal(m * c);
        let w = draws.normal(v * c);
        let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
        let weight = Weight::new(Storage::F32, v, c, &bytes).unwrap();
        let mut entries: Vec<HeadEntry> =
            (0..entries).map(|_| HeadEntry { row: draws.below(m) as u32, target: draws.below(v) as u32 }).collect();
        entries.sort_by_key(|e| e.row);
        let coefficients = draws.normal(entries.len());
        Case { x, w, weight, entries, coefficients, m, v, c, softcap: None }
    }

    fn capped(seed: u64, m: usize, v: usize, c: usize, entries: usize, cap: f32) -> Case {
        Case { softcap: Some(cap), ..Case::new(seed, m, v, c, entries) }
    }

    /// (log_prob per entry, expected per row) by whole logits.
    fn naive(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (c, w) = (self.c, wide(&self.w));
        let mut expected = Vec::new();
        let mut logs = Vec::new();
        for x in x.chunks(c) {
            let logit = |w: &[f64]| -> f64 { w.iter().zip(x).map(|(w, x)| w * x).sum() };
            let cap = |z: f64| self.softcap.map_or(z, |cap| f64::from(cap) * (z / f64::from(cap)).tanh());
            let slope = |y: f64| self.softcap.map_or(1.0, |cap| 1.0 - (y / f64::from(cap)).powi(2));
            let logits: Vec<f64> = w.chunks(c).map(|w| cap(logit(w))).collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
            for j in 0..c {
                expected.push(logits.iter().zip(w.chunks(c)).map(|(&x, w)| (x - lse).exp() * slope(x) * w[j]).sum());
            }
            logs.push(logits.iter().map(|x| x - lse).collect::<Vec<f64>>());
        }
        (self.entries.iter().map(|e| logs[e.row as usize][e.target as usize]).collect(), expected)
    }

    /// The gradient in the weight by whole logits.
    fn naive_weight_gradient(&self) -> Vec<f64> {
        let (c, w, x) = (self.c, wide(&self.w), wide(&self.x));
        let mut dw = vec![0.0; w.len()];
        for (entry, &coefficient) in self.entries.iter().zip(&self.coefficients) {
            let x = &x[entry.row as usize * c..][..c];
            let cap = |z: f64| self.softcap.map_or(z, |cap| f64::from(cap) * (z / f64::from(cap)).tanh());
            let slope = |y: f64| self.softcap.map_or(1.0, |cap| 1.0 - (y / f64::from(cap)).powi(2));
            let logits: Vec<f64> = w.chunks(c).map(|w| cap(w.iter().zip(x).map(|(w, x)| w * x).sum())).collect();
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            for (t, &z) in logits.iter().enumerate() {
                let hit = f64::from(u8::from(t == entry.target as usize));
                let factor = f64::from(coefficient) * slope(z) * (hit - z.exp() / sum);
                (0..c).for_each(|j| dw[t * c + j] += factor * x[j]);
            }
        }
        dw
    }

    /// (log_prob, expected, dx, dw).
    fn fast(&self, level: Level, threads: usize) -> [Vec<f32>; 4] {
        with_threads(threads, || {
            let n = self.m * self.c;
            let mut log_prob = vec![9.0; self.entries.len() + 2];
            let [mut expected, mut dx] = [0, 1].map(|_| vec![9.0; n + 2]);
            let mut scratch = vec![f32::NAN; scratch_len(threads, self.m, self.c)];
            let e = self.entries.len();
            let (x, w, entries, m, cap) = (&self.x, &self.weight, &self.entries, self.m, self.softcap);
            let mut slopes = cap.map(|_| vec![9.0; e + 2]);
            let kept = slopes.as_mut().map(|slopes| &mut slopes[..e]);
            head(level, &mut log_prob[..e], Some(&mut expected[..n]), kept, x, w, entries, m, cap, None, &mut scratch);
            assert!(slopes.as_ref().is_none_or(|slopes| slopes[e..] == [9.0; 2]), "wrote past the end");
            let slopes = slopes.as_ref().map(|slopes| &slopes[..e]);
            head_backward(&mut dx[..n], &expected[..n], slopes, w, entries, &self.coefficients, m, &mut scratch);
            let mut dw = vec![0.0; self.w.len()];
            dw.extend([9.0; 2]);
            let (into, probs) = (&mut dw[..self.w.len()], &log_prob[..e]);
            head_weight_backward(level, into, x, w, entries, probs, slopes, &self.coefficients, m, cap, &mut scratch);
            let mut alone = vec![0.0; e];
            head(level, &mut alone, None, None, x, w, entries, m, cap, None, &mut scratch);
            assert_eq!(bits(&alone), bits(&log_prob[..e]), "without `expected`");
            [(log_prob, e), (expected, n), (dx, n), (dw, self.w.len())].map(|(mut x, n)| {
                assert_eq!(x.split_off(n), [9.0; 2], "wrote past the end");
                x
            })
        })
    }
}

#[test]
fn agrees_with_whole_logits_and_their_differences() {
    let sizes = [(1, 1, 5, 3, 1), (2, 3, 16, 8, 7), (3, 9, 1025, 6, 20), (4, 2, 2500, 17, 4), (5, 7, 33, 24, 0)];
    let plain = sizes.map(|(seed, m, v, c, entries)| Case::new(seed, m, v, c, entries));
    // Logits reach about three times the root of c: these caps bend them a little and a lot.
    let capped = sizes.map(|(seed, m, v, c, entries)| Case::capped(seed, m, v, c, entries, 2.0 + seed as f32));
    for case in plain.into_iter().chain(capped) {
        let [log_prob, expected, dx, dw] = case.fast(Level::detect(), 2);
        let (want, want_expected) = case.naive(&wide(&case.x));
        assert_close("log_prob", &log_prob, &want, 2e-6);
        assert_close("expected", &expected, &want_expected, 2e-6);
        let loss = |x: &[f64]| -> f64 { case.naive(x).0.iter().zip(&case.coefficients).map(|(l, &a)| l * f64::from(a)).sum() };
        assert_close("dw", &dw, &case.naive_weight_gradient(), 5e-6);
        assert_close("dx", &dx, &differences(&wide(&case.x), loss), 3e-6);
    }
}

#[test]
fn the_weights_gradient_of_many_rows_and_tiles() {
    let case = Case::capped(8, 700, 2500, 8, 900, 3.0);
    let [.., dw] = case.fast(Level::detect(), 2);
    assert_close("dw", &dw, &case.naive_weight_gradient(), 1e-5);
}

#[test]
fn a_row_does_not_see_the_others() {
    rows_are_alone(Case::new(6, 600, 1500, 20, 700));
    rows_are_alone(Case::capped(6, 600, 1500, 20, 700, 4.0));
}

fn rows_are_alone(many: Case) {
    let together = many.fast(Level::detect(), 2);
    for row in [0, 1, 511, 512, 599] {
        let mut one = Case { softcap: many.softcap, ..Case::new(6, 600, 1500, 20, 700) };
        one.x = many.x[row * 20..][..20].to_vec();
        one.m = 1;
        let mine: Vec<usize> = (0..700).filter(|&e| many.entries[e].row == row as u32).collect();
        one.entries = mine.iter().map(|&e| HeadEntry { row: 0, ..many.entries[e] }).collect();
        one.coefficients = mine.iter().map(|&e| many.coefficients[e]).collect();
        let alone = one.fast(Level::detect(), 1);
        assert_eq!(bits(&alone[0]), mine.iter().map(|&e| together[0][e].to_bits()).collect::<Vec<_>>());
        assert_eq!(bits(&alone[1]), bits(&together[1][row * 20..][..20]));
        assert_eq!(bits(&alone[2]), bits(&together[2][row * 20..][..20]));
    }
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    the_same_bits(&Case::new(7, 40, 2100, 33, 50));
    the_same_bits(&Case::capped(7, 40, 2100, 33, 50, 5.0));
}

fn the_same_bits(case: &Case) {
    assert_eq!(case.v, 2100);
    let first = case.fast(Level::Portable, 1).map(|x| bits(&x));
    for &level in Level::available() {
        for threads in [1, 2, 3, 7] {
            assert!(case.fast(level, threads).map(|x| bits(&x)) == first, "{level:?} with {threads} threads");
        }
    }
}

/// Sums of a vocabulary and its largest: against f64, the same bits at every level, numbers that are none passed over.
#[test]
fn log_sums_and_the_largest_of_a_vocabulary() {
    let mut draws = Draws::new(9);
    for len in [1, 15, 16, 17, 1023, 1025, 49_152] {
        let logits: Vec<f32> = draws.normal(len).iter().map(|x| 8.0 * x).collect();
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let want = f64::from(top) + logits.iter().map(|&x| f64::from(x - top).exp()).sum::<f64>().ln();
        let first = logits.iter().position(|&x| x == top).unwrap();
        let portable = log_sum_exp(Level::Portable, &logits);
        for &level in Level::available() {
            let got = log_sum_exp(level, &logits);
            assert!((got - want).abs() <= 3e-7 * want.abs().max(1.0), "{level:?} {len}: {got}, not {want}");
            assert_eq!(got.to_bits(), portable.to_bits());
            assert_eq!(largest(level, &logits), Some((first, top)));
        }
    }
    let mut logits = vec![1.0f32; 3000];
    (logits[0], logits[1500], logits[2000], logits[2500]) = (f32::NAN, 2.0, f32::NEG_INFINITY, 2.0);
    for &level in Level::available() {
        assert_eq!(largest(level, &logits), Some((1500, 2.0)));
        assert_eq!(largest(level, &[f32::NAN; 40]), None);
        assert_eq!(largest(level, &[f32::NEG_INFINITY; 40]), None);
        assert_eq!(largest(level, &[]), None);
    }
}

/// With rounded rows the log-probabilities are those of the integer products' logits.
#[test]
fn integer_logits_give_the_same_log_probabilities() {
    let mut draws = Draws::new(12);
    let (m, v, c) = (5, 2500, 64);
    let x = draws.normal(m * c);
    let rows: Vec<f32> = draws.normal(v * c);
    let mut bytes = vec![0; Storage::Q8_0.bytes(v, c).unwrap()];
    for (row, bytes) in rows.chunks(c).zip(bytes.chunks_mut(Storage::Q8_0.row_bytes(c).unwrap())) {
        kernels::quant::quantize_row(Storage::Q8_0, row, bytes);
    }
    let w = Weight::new(Storage::Q8_0, v, c, &bytes).unwrap();
    let entries: Vec<HeadEntry> = (0..40).map(|i| HeadEntry { row: i % 5, target: draws.below(v) as u32 }).collect();
    let mut rounded = Rounded::default();
    rounded.reserve(m, c).unwrap();
    let mut logits = vec![0.0; m * v];
    integer::linear(Level::detect(), &mut logits, &x, &w, m, false, &mut rounded);
    for softcap in [None, Some(9.0f32)] {
        let mut log_probs = vec![0.0; entries.len()];
        let mut scratch = vec![f32::NAN; scratch_len(2, m, c)];
        head(Level::detect(), &mut log_probs, None, None, &x, &w, &entries, m, softcap, Some(&mut rounded), &mut scratch);
        for (entry, got) in entries.iter().zip(&log_probs) {
            let cap = |z: f32| softcap.map_or(f64::from(z), |cap| f64::from(cap) * (f64::from(z) / f64::from(cap)).tanh());
            let logits: Vec<f64> = logits[entry.row as usize * v..][..v].iter().map(|&z| cap(z)).collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let want = logits[entry.target as usize] - top - logits.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
            assert!((f64::from(*got) - want).abs() < 2e-5 * want.abs().max(1.0), "{softcap:?}: {got}, not {want}");
        }
    }
}
