//! How an adapter begins where its start depends on the weights: DoRA's magnitudes, and PiSSA's principal singular vectors.
//!
//! Singular vectors come from subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4): products with the weight as the
//! device holds it, quantised or not, and on the host, in f64 and in a fixed order, orthogonal rows and a small symmetric
//! eigenproblem. So the same weights and seed give the same bits at any thread count.

use kernels::math::scalar::sqrt;

use crate::{
    adapter::{Adapter, LoraConfig, LoraPair},
    compute::ComputePath,
    config::{Linear, ModelConfig},
    device::{Device, Limits, Slot},
    error::EngineError,
    model::Model,
    random::{self, Purpose},
};

/// Vectors iterated beside those that are wanted, so that the last wanted one converges too.
const OVERSAMPLING: usize = 10;
/// Iterations with W and Wᵀ; `peft` offers the like as `pissa_niter_[n]`.
const ITERATIONS: usize = 8;
/// Sweeps of Jacobi's method at most; a dozen are enough for any symmetric matrix of this size.
const SWEEPS: usize = 40;

impl<D: Device> Model<D> {
    /// An adapter as training begins with it: [`Adapter::init`], with DoRA's magnitudes at the norms of the weights' rows, or
    /// with A = √Σ Vᵀ and B = U √Σ of the weight's principal singular triplets (PiSSA; Σ divided by the adapter's factor).
    pub fn fresh_adapter(&mut self, lora: &LoraConfig, seed: u64) -> Result<Adapter, EngineError> {
        let mut adapter = Adapter::init(lora, self.config(), seed)?;
        if !lora.dora && !lora.pissa {
            return Ok(adapter);
        }
        let config = self.config().clone();
        let width = config.hidden.max(config.intermediate).max(config.heads * config.head_dim);
        let rows = lora.rank + OVERSAMPLING;
        let (hidden, compute) = (config.hidden, ComputePath::Exact);
        self.device.reserve(&Limits { rows, chain: 0, width, head_rows: 0, vocab: 0, hidden, rotaries: 0, compute })?;
        for (&(layer, linear), pair) in &mut adapter.tensors {
            if lora.dora {
                pair.magnitude = self.row_norms(&config, layer, linear)?;
            }
            if lora.pissa {
                let key = random::key(seed, Purpose::AdapterInit, &[layer as u64, linear as u64, 1]);
                self.principal(&config, layer, linear, pair, lora, key)?;
            }
        }
        if lora.pissa {
            adapter.start = adapter.tensors.clone();
        }
        Ok(adapter)
    }

    /// The norms of the rows of a weight; of fused ones, one after the other.
    fn row_norms(&mut self, config: &ModelConfig, layer: usize, linear: Linear) -> Result<Vec<f32>, EngineError> {
        let mut norms = Vec::new();
        for &member in config.fused_with(linear) {
            let (n, k) = config.linear_shape(member);
            let arena = self.device.allocate("norms of the weights", k + 2 * n)?;
            let [a, b, norm] = [(0, k), (k, n), (k + n, n)].map(|(start, len)| arena.part(start, len));
            let w = self.linear(layer, member);
            self.device.weight_norms(norm, w, a, b, 0.0);
            let mut values = vec![0.0; n];
            self.device.download(norm, &mut values);
            norms.extend(values);
            self.device.release(arena);
        }
        Ok(norms)
    }

    /// Fills `pair` with the principal part of a weight; where the weight has fewer singular vectors than the rank, the rest
    /// stays as plain LoRA begins.
    fn principal(
        &mut self,
        config: &ModelConfig,
        layer: usize,
        linear: Linear,
        pair: &mut LoraPair,
        lora: &LoraConfig,
        key: u64,
    ) -> Result<(), EngineError> {
        let (n, k) = config.adapter_shape(linear);
        let rows = (lora.rank + OVERSAMPLING).min(n).min(k);
        let arena = self.device.allocate("singular vectors", rows * (n + k))?;
        let (x, y) = (arena.part(0, rows * k), arena.part(rows * k, rows * n));
        let mut weight = Weight { model: self, config, layer, linear, rows, x, y };
        let mut right: Vec<f64> = (0..rows * k).map(|i| f64::from(2.0 * random::uniform(key, i as u64) - 1.0)).collect();
        for _ in 0..ITERATIONS {
            orthogonalise(&mut right, k);
            let left = weight.forward(&right);
            right = weight.backward(&left);
        }
        orthogonalise(&mut right, k);
        let mut left = weight.forward(&right);
        orthogonalise(&mut left, n);
        orthogonalise(&mut left, n);
        right = weight.backward(&left);
        self.device.release(arena);
        // W ≈ Qᵀ (Q W): the rows of R (Q W) are orthogonal where R has the eigenvectors of (Q W)(Q W)ᵀ.
        let vectors = eigenvectors(gram(&right, k), rows);
        let (left, right) = (combined(&vectors, &left, n), combined(&vectors, &right, k));
        let rank = lora.rank;
        for (i, (u, v)) in left.chunks_exact(n).zip(right.chunks_exact(k)).enumerate().take(rank) {
            let singular = sqrt(dot(v, v));
            if singular == 0.0 {
                break;
            }
            let root = sqrt(singular / f64::from(lora.scale()));
            pair.a[i * k..][..k].iter_mut().zip(v).for_each(|(a, v)| *a = (root * v / singular) as f32);
            pair.b.iter_mut().skip(i).step_by(rank).zip(u).for_each(|(b, u)| *b = (root * u) as f32);
        }
        Ok(())
    }
}

/// A weight as a linear map of rows, in both directions.
struct Weight<'a, D: Device> {
    model: &'a mut Model<D>,
    config: &'a ModelConfig,
    layer: usize,
    linear: Linear,
    rows: usize,
    x: Slot,
    y: Slot,
}

impl<D: Device> Weight<'_, D> {
    /// `[rows, in]` · Wᵀ.
    fn forward(&mut self, x: &[f64]) -> Vec<f64> {
        self.model.device.upload(self.x, &x.iter().map(|&x| x as f32).collect::<Vec<_>>());
        let n = self.config.adapter_shape(self.linear).0;
        let mut joined = vec![0.0; self.rows * n];
        let mut before = 0;
        for &member in self.config.fused_with(self.linear) {
            let width = self.config.linear_shape(member).0;
            let (y, w) = (self.y.part(0, self.rows * width), self.model.linear(self.layer, member));
            self.model.device.linear(y, self.x, w, self.rows, false);
            let mut values = vec![0.0; y.len];
            self.model.device.download_exact(y, &mut values);
            for (joined, values) in joined.chunks_exact_mut(n).zip(values.chunks_exact(width)) {
                joined[before..before + width].copy_from_slice(values);
            }
            before += width;
        }
        joined
    }

    /// `[rows, out]` · W.
    fn backward(&mut self, y: &[f64]) -> Vec<f64> {
        let n = self.config.adapter_shape(self.linear).0;
        let mut before = 0;
        for &member in self.config.fused_with(self.linear) {
            let width = self.config.linear_shape(member).0;
            let part: Vec<f32> = y.chunks_exact(n).flat_map(|row| row[before..before + width].iter().map(|&y| y as f32)).collect();
            let (slot, w) = (self.y.part(0, part.len()), self.model.linear(self.layer, member));
            self.model.device.upload(slot, &part);
            self.model.device.linear_backward(self.x, slot, w, self.rows, before > 0);
            before += width;
        }
        let mut values = vec![0.0; self.x.len];
        self.model.device.download_exact(self.x, &mut values);
        values
    }
}

/// Σ a b in eight lanes, then in order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a8, b8) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a8.0.iter().zip(b8.0) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter_mut().zip(a8.1.iter().zip(b8.1)).for_each(|(lane, (a, b))| *lane += a * b);
    lanes.iter().sum()
}

/// Makes the rows orthonormal, each against those before it (modified Gram–Schmidt); a row that is a combination of others
/// becomes 0.
fn orthogonalise(rows: &mut [f64], width: usize) {
    for i in 0..rows.len() / width {
        let (before, from) = rows.split_at_mut(i * width);
        let row = &mut from[..width];
        let size = sqrt(dot(row, row));
        for other in before.chunks_exact(width) {
            let along = dot(row, other);
            row.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
        }
        let left = sqrt(dot(row, row));
        let factor = if left > 1e-12 * size { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// X Xᵀ.
fn gram(x: &[f64], width: usize) -> Vec<f64> {
    x.chunks_exact(width).flat_map(|a| x.chunks_exact(width).map(move |b| dot(a, b))).collect()
}

/// `vectors` · x.
fn combined(vectors: &[f64], x: &[f64], width: usize) -> Vec<f64> {
    let n = x.len() / width;
    let mut out = vec![0.0; x.len()];
    for (out, vector) in out.chunks_exact_mut(width).zip(vectors.chunks_exact(n)) {
        for (factor, x) in vector.iter().zip(x.chunks_exact(width)) {
            out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
        }
    }
    out
}

/// Eigenvectors of a symmetric matrix as rows, by Jacobi's cyclic method; those of the largest eigenvalues first.
fn eigenvectors(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let size: f64 = (0..n).map(|i| a[i * n + i].abs()).sum();
    for _ in 0..SWEEPS {
        let off = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].abs()).fold(0.0, f64::max);
        if off <= 1e-15 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                // The smaller of the two rotations that make a[p][q] zero (Golub & Van Loan, 8.5.2).
                let tau = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = (if tau >= 0.0 { 1.0 } else { -1.0 }) / (tau.abs() + sqrt(1.0 + tau * tau));
                let c = 1.0 / sqrt(1.0 + t * t);
                let s = t * c;
                for l in 0..n {
                    let (x, y) = (a[l * n + p], a[l * n + q]);
                    (a[l * n + p], a[l * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for l in 0..n {
                    let (x, y) = (a[p * n + l], a[q * n + l]);
                    (a[p * n + l], a[q * n + l]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (vectors[p * n + l], vectors[q * n + l]);
                    (vectors[p * n + l], vectors[q * n + l]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]).then(i.cmp(&j)));
    order.into_iter().flat_map(|i| vectors[i * n..(i + 1) * n].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_turn_a_matrix_into_a_diagonal_one() {
        let n = 7;
        let x: Vec<f64> = (0..n * 11).map(|i| random::uniform_f64(3, i as u64) - 0.5).collect();
        let a = gram(&x, 11);
        let vectors = eigenvectors(a.clone(), n);
        let turned = combined(&vectors, &a, n);
        for i in 0..n {
            for j in 0..n {
                let value = dot(&turned[i * n..][..n], &vectors[j * n..][..n]);
                assert!(i == j || value.abs() < 1e-12, "{i} {j}: {value}");
                let unit = dot(&vectors[i * n..][..n], &vectors[j * n..][..n]);
                assert!((unit - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn dependent_rows_become_zero() {
        let mut rows = vec![3.0, 4.0, 6.0, 8.0, 0.0, 1.0];
        orthogonalise(&mut rows, 2);
        let want = [0.6, 0.8, 0.0, 0.0, -0.8, 0.6];
        assert!(rows.iter().zip(want).all(|(x, want)| (x - want).abs() < 1e-12), "{rows:?}");
        assert_eq!(rows[2..4], [0.0, 0.0]);
    }
}
