//! The device contract done naively in f64: simple loops, one row at a time, nothing clever to be wrong.

use engine::{
    batch::{HeadEntry, RunTable},
    compute::KvType,
    config::{Gate, Rotary},
    device::{AdamW, AttentionShape, Device, DeviceError, Limits, Moment8bit, MomentsId, Product, Slot, Storage, WeightId},
};
use kernels::optimizer::eight_bit::{BLOCK, FIRST, SECOND};

/// A weight matrix `[rows, cols]` in f64.
struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }
}

/// See the module.
#[derive(Default)]
pub struct ReferenceDevice {
    arenas: Vec<Option<Vec<f64>>>,
    weights: Vec<Matrix>,
    moments: Vec<Option<[Moment8bit; 2]>>,
}

impl ReferenceDevice {
    /// An empty one.
    pub fn new() -> ReferenceDevice {
        ReferenceDevice::default()
    }

    /// Elements in arenas that are alive.
    pub fn allocated_elements(&self) -> usize {
        self.arenas.iter().flatten().map(Vec::len).sum()
    }

    /// Every weight as loaded, for proofs that none changed.
    pub fn weight_values(&self) -> Vec<f64> {
        self.weights.iter().flat_map(|w| w.values.iter().copied()).collect()
    }

    fn get(&self, slot: Slot) -> &[f64] {
        let arena = self.arenas[slot.arena as usize].as_ref().expect("an arena that was released");
        &arena[slot.offset..slot.offset + slot.len]
    }

    fn copied(&self, slot: Slot) -> Vec<f64> {
        self.get(slot).to_vec()
    }

    fn get_mut(&mut self, slot: Slot) -> &mut [f64] {
        let arena = self.arenas[slot.arena as usize].as_mut().expect("an arena that was released");
        &mut arena[slot.offset..slot.offset + slot.len]
    }

    /// Keys or values as numbers, `[rows, kv_heads, head_dim]`.
    fn keys(&self, slot: Slot, shape: AttentionShape) -> Vec<f64> {
        let AttentionShape { head_dim, kv, .. } = shape;
        if kv == KvType::F32 {
            return self.copied(slot);
        }
        let mut values = Vec::new();
        for head in self.get(slot).chunks_exact(kv.head_len(head_dim)) {
            let words: Vec<f32> = head.iter().map(|word| f32::from_bits(word.to_bits() as u32)).collect();
            let mut numbers = vec![0.0; head_dim];
            kernels::cache::read_head(&words, kv, &mut numbers);
            values.extend(numbers.into_iter().map(f64::from));
        }
        values
    }

    /// Keys that query row `i` of run `r` sees: key rows in chain order.
    fn seen(runs: &RunTable, r: usize, i: usize, window: Option<usize>) -> Vec<usize> {
        let run = &runs.runs[r];
        let spans = &runs.spans[run.spans.clone()];
        let (own, ancestors) = spans.split_last().expect("a run has its own span");
        let mut keys: Vec<usize> = ancestors.iter().cloned().flatten().collect();
        let before = own.len() - run.rows.len();
        keys.extend(own.start..own.start + before + (i - run.rows.start) + 1);
        let first = window.map_or(0, |window| keys.len().saturating_sub(window));
        keys.split_off(first)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// (act(x), act'(x)).
fn activation(x: f64, act: Gate) -> (f64, f64) {
    match act {
        Gate::Silu => {
            let s = 1.0 / (1.0 + (-x).exp());
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        Gate::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let t = (root * (x + 0.044_715 * x.powi(3))).tanh();
            let slope = 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044_715 * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + slope)
        }
    }
}

fn capped(x: f64, cap: Option<f32>) -> f64 {
    cap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh())
}

/// The slope of [`capped`] where it gave `y`.
fn cap_slope(y: f64, cap: Option<f32>) -> f64 {
    cap.map_or(1.0, |cap| 1.0 - (y / f64::from(cap)).powi(2))
}

impl Device for ReferenceDevice {
    fn allocate(&mut self, _name: &str, len: usize) -> Result<Slot, DeviceError> {
        self.arenas.push(Some(vec![0.0; len]));
        Ok(Slot { arena: self.arenas.len() as u32 - 1, offset: 0, len })
    }

    fn release(&mut self, slot: Slot) {
        let arena = self.arenas[slot.arena as usize].take().expect("an arena is released once");
        assert_eq!((slot.offset, slot.len), (0, arena.len()), "what allocate returned is released");
    }

    fn reserve(&mut self, _limits: &Limits) -> Result<(), DeviceError> {
        Ok(())
    }

    fn scratch_bytes(&self, _limits: &Limits) -> usize {
        0
    }

    fn upload(&mut self, slot: Slot, values: &[f32]) {
        assert_eq!(slot.len, values.len());
        self.get_mut(slot).iter_mut().zip(values).for_each(|(to, &from)| *to = f64::from(from));
    }

    fn download(&self, slot: Slot, values: &mut [f32]) {
        assert_eq!(slot.len, values.len());
        values.iter_mut().zip(self.get(slot)).for_each(|(to, &from)| *to = from as f32);
    }

    fn read(&self, slot: Slot, index: usize) -> f64 {
        self.get(slot)[index]
    }

    fn zero(&mut self, slot: Slot) {
        self.get_mut(slot).fill(0.0);
    }

    fn copy(&mut self, to: Slot, from: Slot) {
        let from = self.copied(from);
        self.get_mut(to).copy_from_slice(&from);
    }

    fn weight(&mut self, name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<WeightId, DeviceError> {
        let expected = storage.bytes(rows, cols).unwrap_or(usize::MAX);
        if bytes.len() != expected {
            return Err(DeviceError::WeightSize { name: name.into(), given: bytes.len(), expected, rows, cols, storage });
        }
        let mut values = Vec::with_capacity(rows * cols);
        let mut row = vec![0.0f32; cols];
        for bytes in bytes.chunks_exact(expected / rows) {
            kernels::quant::dequantize_row(storage, bytes, &mut row);
            values.extend(row.iter().map(|&x| f64::from(x)));
        }
        self.weights.push(Matrix { rows, cols, values });
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    fn weight_bytes(&self, _storage: Storage, rows: usize, cols: usize) -> usize {
        rows * cols * size_of::<f64>()
    }

    fn trained_weight(&mut self, name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<WeightId, DeviceError> {
        self.weight(name, storage, rows, cols, bytes)
    }

    fn trained_weight_bytes(&self, rows: usize, cols: usize) -> usize {
        rows * cols * size_of::<f64>()
    }

    fn read_weight_row(&self, w: WeightId, row: usize, values: &mut [f32]) {
        values.iter_mut().zip(self.weights[w.0 as usize].row(row)).for_each(|(to, &from)| *to = from as f32);
    }

    fn write_weight(&mut self, w: WeightId, values: &[f32]) {
        let to = &mut self.weights[w.0 as usize].values;
        assert_eq!(to.len(), values.len());
        to.iter_mut().zip(values).for_each(|(to, &from)| *to = f64::from(from));
    }

    fn embed(&mut self, y: Slot, w: WeightId, ids: &[u32]) {
        let rows: Vec<f64> = ids.iter().flat_map(|&id| self.weights[w.0 as usize].row(id as usize).to_vec()).collect();
        self.get_mut(y).copy_from_slice(&rows);
    }

    fn gather(&mut self, y: Slot, x: Slot, rows: &[u32], c: usize) {
        let x = self.copied(x);
        let y = self.get_mut(y);
        assert_eq!(y.len(), rows.len() * c);
        for (y, &row) in y.chunks_exact_mut(c).zip(rows) {
            y.copy_from_slice(&x[row as usize * c..(row as usize + 1) * c]);
        }
    }

    fn scatter_add(&mut self, y: Slot, x: Slot, rows: &[u32], c: usize) {
        let x = self.copied(x);
        assert_eq!(x.len(), rows.len() * c);
        let y = self.get_mut(y);
        for (x, &row) in x.chunks_exact(c).zip(rows) {
            (0..c).for_each(|j| y[row as usize * c + j] += x[j]);
        }
    }

    fn store_keys(&mut self, cache: Slot, x: Slot, rows: &[u32], shape: AttentionShape) {
        let AttentionShape { kv_heads, head_dim, kv, .. } = shape;
        let (x, len) = (self.copied(x), kv.row_len(kv_heads, head_dim));
        assert_eq!(x.len(), rows.len() * kv_heads * head_dim);
        let cache = self.get_mut(cache);
        for (x, &row) in x.chunks_exact(kv_heads * head_dim).zip(rows) {
            let place = &mut cache[row as usize * len..][..len];
            if kv == KvType::F32 {
                place.copy_from_slice(x);
                continue;
            }
            let mut words = vec![0.0; len];
            let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            kernels::cache::store_rows(&mut words, &x, &[0], kv, kv_heads, head_dim);
            place.iter_mut().zip(words).for_each(|(to, word)| *to = f64::from_bits(u64::from(word.to_bits())));
        }
    }

    fn linear(&mut self, y: Slot, x: Slot, w: WeightId, m: usize, accumulate: bool) {
        let x = self.copied(x);
        let (n, k) = (self.weights[w.0 as usize].rows, self.weights[w.0 as usize].cols);
        assert_eq!((x.len(), y.len), (m * k, m * n));
        for i in 0..m {
            for j in 0..n {
                let product = dot(&x[i * k..(i + 1) * k], self.weights[w.0 as usize].row(j));
                let y = &mut self.get_mut(y)[i * n + j];
                *y = if accumulate { *y + product } else { product };
            }
        }
    }

    fn linear_backward(&mut self, dx: Slot, dy: Slot, w: WeightId, m: usize, accumulate: bool) {
        let dy = self.copied(dy);
        let (n, k) = (self.weights[w.0 as usize].rows, self.weights[w.0 as usize].cols);
        assert_eq!((dx.len, dy.len()), (m * k, m * n));
        if !accumulate {
            self.zero(dx);
        }
        for i in 0..m {
            for j in 0..n {
                let row = self.weights[w.0 as usize].row(j).to_vec();
                let dx = &mut self.get_mut(dx)[i * k..(i + 1) * k];
                (0..k).for_each(|l| dx[l] += dy[i * n + j] * row[l]);
            }
        }
    }

    fn matmul(&mut self, c: Slot, a: Slot, b: Slot, product: Product) {
        let Product { m, n, k, a_transposed, b_transposed, alpha, accumulate } = product;
        let (a, b) = (self.copied(a), self.copied(b));
        assert_eq!((a.len(), b.len(), c.len), (m * k, k * n, m * n));
        let c = self.get_mut(c);
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k)
                    .map(|l| {
                        let a = if a_transposed { a[l * m + i] } else { a[i * k + l] };
                        let b = if b_transposed { b[j * k + l] } else { b[l * n + j] };
                        a * b
                    })
                    .sum();
                let value = f64::from(alpha) * sum;
                c[i * n + j] = if accumulate { c[i * n + j] + value } else { value };
            }
        }
    }

    fn rms_norm(&mut self, y: Slot, rstd: Slot, x: Slot, gain: Slot, m: usize, c: usize, eps: f32) {
        let (x, gain) = (self.copied(x), self.copied(gain));
        assert_eq!((x.len(), gain.len(), y.len, rstd.len), (m * c, c, m * c, m));
        for i in 0..m {
            let row = &x[i * c..(i + 1) * c];
            let r = 1.0 / (dot(row, row) / c as f64 + f64::from(eps)).sqrt();
            self.get_mut(rstd)[i] = r;
            let y = &mut self.get_mut(y)[i * c..(i + 1) * c];
            (0..c).for_each(|j| y[j] = row[j] * r * gain[j]);
        }
    }

    fn rms_norm_backward(&mut self, dx: Slot, dy: Slot, x: Slot, gain: Slot, rstd: Slot, m: usize, c: usize) {
        let (dy, x, gain, rstd) = (self.copied(dy), self.copied(x), self.copied(gain), self.copied(rstd));
        assert_eq!((dy.len(), x.len(), gain.len(), rstd.len(), dx.len), (m * c, m * c, c, m, m * c));
        for i in 0..m {
            let (row, r) = (&x[i * c..(i + 1) * c], rstd[i]);
            let g: Vec<f64> = (0..c).map(|j| dy[i * c + j] * gain[j]).collect();
            let mean = dot(&g, row) / c as f64;
            let dx = &mut self.get_mut(dx)[i * c..(i + 1) * c];
            (0..c).for_each(|j| dx[j] += r * (g[j] - row[j] * r * r * mean));
        }
    }

    fn rotary(&mut self, x: Slot, positions: &[u32], heads: usize, head_dim: usize, rotary: &Rotary, transposed: bool) {
        let (half, scale) = (rotary.inv_freq.len(), f64::from(rotary.scale));
        assert_eq!(x.len, positions.len() * heads * head_dim);
        let x = self.get_mut(x);
        for (i, &position) in positions.iter().enumerate() {
            for h in 0..heads {
                let head = &mut x[(i * heads + h) * head_dim..][..2 * half];
                for j in 0..half {
                    let angle = f64::from(position) * f64::from(rotary.inv_freq[j]);
                    let (sin, cos) = if transposed { (-angle).sin_cos() } else { angle.sin_cos() };
                    let (a, b) = (head[j], head[j + half]);
                    head[j] = (a * cos - b * sin) * scale;
                    head[j + half] = (b * cos + a * sin) * scale;
                }
            }
        }
    }

    fn attention(&mut self, out: Slot, lse: Slot, q: Slot, k: Slot, v: Slot, runs: &RunTable, shape: AttentionShape) {
        let AttentionShape { heads, kv_heads, head_dim: d, window, scale, softcap, .. } = shape;
        let (q, k, v) = (self.copied(q), self.keys(k, shape), self.keys(v, shape));
        assert_eq!((q.len(), k.len()), (out.len, v.len()));
        for r in 0..runs.runs.len() {
            for i in runs.runs[r].rows.clone() {
                let keys = ReferenceDevice::seen(runs, r, i, window);
                for h in 0..heads {
                    let g = h / (heads / kv_heads);
                    let query = &q[(i * heads + h) * d..][..d];
                    let score = |&key: &usize| capped(f64::from(scale) * dot(query, &k[(key * kv_heads + g) * d..][..d]), softcap);
                    let scores: Vec<f64> = keys.iter().map(score).collect();
                    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let log_sum = top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln();
                    let mut mixed = vec![0.0; d];
                    for (&key, s) in keys.iter().zip(&scores) {
                        let p = (s - log_sum).exp();
                        (0..d).for_each(|j| mixed[j] += p * v[(key * kv_heads + g) * d + j]);
                    }
                    self.get_mut(lse)[i * heads + h] = log_sum;
                    self.get_mut(out)[(i * heads + h) * d..][..d].copy_from_slice(&mixed);
                }
            }
        }
    }

    fn attention_backward(
        &mut self,
        dq: Slot,
        dk: Slot,
        dv: Slot,
        dout: Slot,
        out: Slot,
        lse: Slot,
        q: Slot,
        k: Slot,
        v: Slot,
        runs: &RunTable,
        shape: AttentionShape,
    ) {
        let AttentionShape { heads, kv_heads, head_dim: d, window, scale, softcap, .. } = shape;
        let scale = f64::from(scale);
        let (dout, out, lse) = (self.copied(dout), self.copied(out), self.copied(lse));
        let (q, k, v) = (self.copied(q), self.copied(k), self.copied(v));
        self.zero(dq);
        for r in 0..runs.runs.len() {
            for i in runs.runs[r].rows.clone() {
                let keys = ReferenceDevice::seen(runs, r, i, window);
                for h in 0..heads {
                    let g = h / (heads / kv_heads);
                    let at = (i * heads + h) * d;
                    let (query, gradient) = (&q[at..at + d], &dout[at..at + d]);
                    let row_dot = dot(gradient, &out[at..at + d]);
                    for &key in &keys {
                        let from = (key * kv_heads + g) * d;
                        let score = capped(scale * dot(query, &k[from..from + d]), softcap);
                        let p = (score - lse[i * heads + h]).exp();
                        let ds = scale * cap_slope(score, softcap) * p * (dot(gradient, &v[from..from + d]) - row_dot);
                        (0..d).for_each(|j| self.get_mut(dv)[from + j] += p * gradient[j]);
                        (0..d).for_each(|j| self.get_mut(dk)[from + j] += ds * query[j]);
                        (0..d).for_each(|j| self.get_mut(dq)[at + j] += ds * k[from + j]);
                    }
                }
            }
        }
    }

    fn gate(&mut self, h: Slot, gate: Slot, up: Slot, act: Gate) {
        let (gate, up) = (self.copied(gate), self.copied(up));
        let h = self.get_mut(h);
        assert_eq!((gate.len(), up.len()), (h.len(), h.len()));
        (0..h.len()).for_each(|i| h[i] = activation(gate[i], act).0 * up[i]);
    }

    fn gate_backward(&mut self, dgate: Slot, dup: Slot, dh: Slot, gate: Slot, up: Slot, act: Gate) {
        let (dh, gate, up) = (self.copied(dh), self.copied(gate), self.copied(up));
        for i in 0..dh.len() {
            let (value, slope) = activation(gate[i], act);
            self.get_mut(dup)[i] = dh[i] * value;
            self.get_mut(dgate)[i] = dh[i] * up[i] * slope;
        }
    }

    fn add_rows(&mut self, y: Slot, bias: Slot) {
        let bias = self.copied(bias);
        self.get_mut(y).chunks_exact_mut(bias.len()).flatten().zip(bias.iter().cycle()).for_each(|(y, b)| *y += b);
    }

    fn scale_columns(&mut self, y: Slot, x: Slot, factors: Slot, accumulate: bool) {
        let (x, factors) = (self.copied(x), self.copied(factors));
        assert_eq!(x.len(), y.len);
        for (i, y) in self.get_mut(y).iter_mut().enumerate() {
            let value = x[i] * factors[i % factors.len()];
            *y = if accumulate { *y + value } else { value };
        }
    }

    fn column_sums(&mut self, out: Slot, a: Slot, b: Option<Slot>, rows: Option<Slot>, columns: Option<Slot>) {
        let (n, a, [b, rows, columns]) = (out.len, self.copied(a), [b, rows, columns].map(|slot| slot.map(|slot| self.copied(slot))));
        let m = a.len() / n;
        assert!(b.as_ref().is_none_or(|b| b.len() == m * n));
        assert!(rows.as_ref().is_none_or(|rows| rows.len() == m) && columns.as_ref().is_none_or(|columns| columns.len() == n));
        let term = |i: usize, j: usize| a[i * n + j] * b.as_ref().map_or(1.0, |b| b[i * n + j]) * rows.as_ref().map_or(1.0, |rows| rows[i]);
        for (j, out) in self.get_mut(out).iter_mut().enumerate() {
            *out += columns.as_ref().map_or(1.0, |columns| columns[j]) * (0..m).map(|i| term(i, j)).sum::<f64>();
        }
    }

    fn weight_norms(&mut self, norm: Slot, w: WeightId, a: Slot, b: Slot, scale: f32) {
        let (a, b) = (self.copied(a), self.copied(b));
        let (n, k) = (self.weights[w.0 as usize].rows, self.weights[w.0 as usize].cols);
        let r = a.len() / k;
        assert_eq!((norm.len, b.len()), (n, n * r));
        for i in 0..n {
            let low = |l: usize| (0..r).map(|j| b[i * r + j] * a[j * k + l]).sum::<f64>();
            let row: Vec<f64> = self.weights[w.0 as usize].row(i).iter().enumerate().map(|(l, w)| w + f64::from(scale) * low(l)).collect();
            self.get_mut(norm)[i] = dot(&row, &row).sqrt();
        }
    }

    fn dora_scales(&mut self, gain: Slot, inverse: Slot, magnitude: Slot) {
        let (norm, magnitude) = (self.copied(inverse), self.copied(magnitude));
        for (i, &norm) in norm.iter().enumerate() {
            let inverted = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            self.get_mut(inverse)[i] = inverted;
            self.get_mut(gain)[i] = magnitude[i] * inverted;
        }
    }

    fn softcap(&mut self, x: Slot, cap: f32) {
        self.get_mut(x).iter_mut().for_each(|x| *x = capped(*x, Some(cap)));
    }

    fn add(&mut self, y: Slot, x: Slot) {
        let x = self.copied(x);
        assert_eq!(x.len(), y.len);
        self.get_mut(y).iter_mut().zip(&x).for_each(|(y, x)| *y += x);
    }

    fn dropout(&mut self, y: Slot, x: Slot, keys: &[u64], module: u32, p: f32, c: usize, accumulate: bool) {
        let x = self.copied(x);
        assert_eq!((x.len(), y.len), (keys.len() * c, keys.len() * c));
        let y = self.get_mut(y);
        for (i, &key) in keys.iter().enumerate() {
            for j in 0..c {
                let kept = kernels::dropout::keeps(key, module, j, p);
                let value = if kept { x[i * c + j] / (1.0 - f64::from(p)) } else { 0.0 };
                y[i * c + j] = if accumulate { y[i * c + j] + value } else { value };
            }
        }
    }

    fn head(
        &mut self,
        log_prob: Slot,
        expected: Option<Slot>,
        slope: Option<Slot>,
        x: Slot,
        w: WeightId,
        entries: &[HeadEntry],
        m: usize,
        softcap: Option<f32>,
    ) {
        let x = self.copied(x);
        let (v, c) = (self.weights[w.0 as usize].rows, self.weights[w.0 as usize].cols);
        assert_eq!((x.len(), log_prob.len), (m * c, entries.len()));
        for i in 0..m {
            let weights = &self.weights[w.0 as usize];
            let logits: Vec<f64> = (0..v).map(|t| capped(dot(&x[i * c..(i + 1) * c], weights.row(t)), softcap)).collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
            let mut mean = vec![0.0; c];
            for (t, &l) in logits.iter().enumerate() {
                let p = (l - log_sum).exp() * cap_slope(l, softcap);
                (0..c).for_each(|j| mean[j] += p * weights.row(t)[j]);
            }
            for (e, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.row as usize == i) {
                self.get_mut(log_prob)[e] = logits[entry.target as usize] - log_sum;
                if let Some(slope) = slope {
                    self.get_mut(slope)[e] = cap_slope(logits[entry.target as usize], softcap);
                }
            }
            if let Some(expected) = expected {
                self.get_mut(expected)[i * c..(i + 1) * c].copy_from_slice(&mean);
            }
        }
    }

    fn head_backward(
        &mut self,
        dx: Slot,
        expected: Slot,
        slope: Option<Slot>,
        w: WeightId,
        entries: &[HeadEntry],
        coefficients: &[f32],
        m: usize,
    ) {
        let (expected, slopes) = (self.copied(expected), slope.map(|slope| self.copied(slope)));
        let c = self.weights[w.0 as usize].cols;
        assert_eq!((expected.len(), dx.len, entries.len()), (m * c, m * c, coefficients.len()));
        self.zero(dx);
        for (e, (entry, &coefficient)) in entries.iter().zip(coefficients).enumerate() {
            let target = self.weights[w.0 as usize].row(entry.target as usize).to_vec();
            let row = entry.row as usize * c;
            let slope = slopes.as_ref().map_or(1.0, |slopes| slopes[e]);
            let dx = &mut self.get_mut(dx)[row..row + c];
            (0..c).for_each(|j| dx[j] += f64::from(coefficient) * (slope * target[j] - expected[row + j]));
        }
    }

    fn head_weight_backward(
        &mut self,
        dw: Slot,
        x: Slot,
        w: WeightId,
        entries: &[HeadEntry],
        log_prob: Slot,
        slope: Option<Slot>,
        coefficients: &[f32],
        m: usize,
        softcap: Option<f32>,
    ) {
        let x = self.copied(x);
        let (v, c) = (self.weights[w.0 as usize].rows, self.weights[w.0 as usize].cols);
        assert_eq!((x.len(), dw.len, log_prob.len), (m * c, v * c, entries.len()));
        assert!(slope.is_none_or(|slope| slope.len == entries.len()));
        for (entry, &coefficient) in entries.iter().zip(coefficients) {
            let x = &x[entry.row as usize * c..][..c];
            let logits: Vec<f64> = (0..v).map(|t| capped(dot(x, self.weights[w.0 as usize].row(t)), softcap)).collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|l| (l - top).exp()).sum();
            for (t, &l) in logits.iter().enumerate() {
                let hit = f64::from(u8::from(t == entry.target as usize));
                let factor = f64::from(coefficient) * cap_slope(l, softcap) * (hit - (l - top).exp() / sum);
                let dw = &mut self.get_mut(dw)[t * c..][..c];
                (0..c).for_each(|j| dw[j] += factor * x[j]);
            }
        }
    }

    fn squared_norm(&self, x: Slot) -> f64 {
        dot(self.get(x), self.get(x))
    }

    fn scale(&mut self, x: Slot, factor: f32) {
        self.get_mut(x).iter_mut().for_each(|x| *x *= f64::from(factor));
    }

    fn adamw(&mut self, p: Slot, m: Slot, v: Slot, g: Slot, adamw: AdamW) {
        let mut values = self.copied(p);
        self.adamw_on(&mut values, m, v, g, adamw);
        self.get_mut(p).copy_from_slice(&values);
    }

    fn adamw_weight(&mut self, w: WeightId, m: Slot, v: Slot, g: Slot, adamw: AdamW) {
        let mut values = std::mem::take(&mut self.weights[w.0 as usize].values);
        self.adamw_on(&mut values, m, v, g, adamw);
        self.weights[w.0 as usize].values = values;
    }

    fn moments_8bit(&mut self, name: &str, len: usize) -> Result<MomentsId, DeviceError> {
        let needed = self.moments_8bit_bytes(len);
        self.moments.push(Some(Moment8bit::zeros(len).map_err(|_| DeviceError::OutOfMemory { name: name.to_owned(), needed })?));
        Ok(MomentsId(self.moments.len() as u32 - 1))
    }

    fn moments_8bit_bytes(&self, len: usize) -> usize {
        Moment8bit::bytes_of_both(len)
    }

    fn release_moments_8bit(&mut self, moments: MomentsId) {
        self.moments[moments.0 as usize].take().expect("moments are released once");
    }

    fn read_moments_8bit(&self, moments: MomentsId) -> [Moment8bit; 2] {
        self.moments[moments.0 as usize].clone().expect("moments that were not released")
    }

    fn write_moments_8bit(&mut self, moments: MomentsId, values: &[Moment8bit; 2]) {
        let held = self.moments[moments.0 as usize].as_mut().expect("moments that were not released");
        assert!(held.iter().zip(values).all(|(held, values)| values.fits(held.codes.len())));
        held.clone_from(values);
    }

    fn adamw_8bit(&mut self, p: Slot, moments: MomentsId, g: Slot, adamw: AdamW) {
        let mut values = self.copied(p);
        self.adamw_8bit_on(&mut values, moments, g, adamw);
        self.get_mut(p).copy_from_slice(&values);
    }

    fn adamw_8bit_weight(&mut self, w: WeightId, moments: MomentsId, g: Slot, adamw: AdamW) {
        let mut values = std::mem::take(&mut self.weights[w.0 as usize].values);
        self.adamw_8bit_on(&mut values, moments, g, adamw);
        self.weights[w.0 as usize].values = values;
    }
}

impl ReferenceDevice {
    fn adamw_on(&mut self, p: &mut [f64], m: Slot, v: Slot, g: Slot, adamw: AdamW) {
        let (g, mut first, mut second) = (self.copied(g), self.copied(m), self.copied(v));
        adamw_in_place(p, &mut first, &mut second, &g, adamw);
        self.get_mut(m).copy_from_slice(&first);
        self.get_mut(v).copy_from_slice(&second);
    }

    fn adamw_8bit_on(&mut self, p: &mut [f64], moments: MomentsId, g: Slot, adamw: AdamW) {
        let (g, held) = (self.copied(g), self.read_moments_8bit(moments));
        let [mut first, mut second] = [(&held[0], &FIRST), (&held[1], &SECOND)].map(|(moment, values)| decoded(moment, values));
        adamw_in_place(p, &mut first, &mut second, &g, adamw);
        let rounded = [encoded(&first, &FIRST, false), encoded(&second, &SECOND, true)];
        self.write_moments_8bit(moments, &rounded);
    }
}

fn decoded(moment: &Moment8bit, values: &[f32; 256]) -> Vec<f64> {
    let blocks = moment.codes.chunks(BLOCK).zip(&moment.scales);
    blocks.flat_map(|(codes, scale)| codes.iter().map(|&code| f64::from(values[usize::from(code)]) * f64::from(*scale))).collect()
}

/// The nearest code of each number; what is `positive` becomes no zero.
fn encoded(moment: &[f64], values: &[f32; 256], positive: bool) -> Moment8bit {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in moment.chunks(BLOCK) {
        let scale = block.iter().fold(0.0f64, |most, x| most.max(x.abs())).min(f64::from(f32::MAX));
        scales.push(scale as f32);
        for &x in block {
            let distance = |code: u8| (f64::from(values[usize::from(code)]) - if scale > 0.0 { x / scale } else { 0.0 }).abs();
            let nearest = (0..=255).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).expect("there are codes");
            codes.push(if positive && x > 0.0 { nearest.max(1) } else { nearest });
        }
    }
    Moment8bit { codes, scales }
}

fn adamw_in_place(p: &mut [f64], m: &mut [f64], v: &mut [f64], g: &[f64], adamw: AdamW) {
    let (beta1, beta2, step) = (f64::from(adamw.beta1), f64::from(adamw.beta2), adamw.step as i32);
    let (lr, eps, decay) = (f64::from(adamw.learning_rate), f64::from(adamw.eps), f64::from(adamw.weight_decay));
    for (i, (p, g)) in p.iter_mut().zip(g).enumerate() {
        let g = g * f64::from(adamw.gradient_scale);
        let first = beta1 * m[i] + (1.0 - beta1) * g;
        let second = beta2 * v[i] + (1.0 - beta2) * g * g;
        (m[i], v[i]) = (first, second);
        let (first, second) = (first / (1.0 - beta1.powi(step)), second / (1.0 - beta2.powi(step)));
        *p = *p * (1.0 - lr * decay) - lr * first / (second.sqrt() + eps);
    }
}
