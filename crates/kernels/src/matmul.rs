//! Matrix products: frozen weights against activations, and small dense operands among themselves.
//!
//! (Signatures first; the bodies are being written and are correct but naive.)

use crate::quant::Storage;
use crate::simd::Level;
use std::collections::TryReserveError;

/// A frozen weight w[n = out, k = in].
pub struct Weight {
    storage: Storage,
    n: usize,
    k: usize,
    rows: Vec<f32>,
}

impl Weight {
    /// Takes `bytes` of an `n x k` matrix; their number must be `storage.bytes(n, k)`. Fails where memory does.
    pub fn new(storage: Storage, n: usize, k: usize, bytes: &[u8]) -> Result<Weight, TryReserveError> {
        let mut rows = Vec::new();
        rows.try_reserve_exact(n * k)?;
        rows.resize(n * k, 0.0);
        crate::quant::dequantize_row(storage, bytes, &mut rows);
        Ok(Weight { storage, n, k, rows })
    }

    /// Bytes that [`Weight::new`] would hold; `None` where the shape does not fit the storage.
    pub fn bytes_for(storage: Storage, n: usize, k: usize) -> Option<usize> {
        storage.bytes(n, k)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.rows.len()
    }

    /// (n, k): outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// How the source stored it.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// out[k] = row i.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.rows[i * self.k..][..self.k]);
    }
}

/// Elements of scratch that products with up to `max_m` rows (of the activations; inner rows of an
/// adapter's gradient count too) and weights or operands up to `max_width` wide need on `threads` threads.
pub fn scratch_len(threads: usize, max_m: usize, max_width: usize) -> usize {
    let _ = (threads, max_m, max_width);
    0
}

/// y[m,n] = x[m,k] · wᵀ, or += where `accumulate`.
pub fn linear(level: Level, y: &mut [f32], x: &[f32], w: &Weight, m: usize, accumulate: bool, scratch: &mut [f32]) {
    linear_tile(level, y, x, w, m, 0, w.n, accumulate, scratch);
}

/// y[m,len] = x[m,k] · w[n0 .. n0 + len, :]ᵀ, or += where `accumulate`. `n0` is a multiple of 16.
pub fn linear_tile(level: Level, y: &mut [f32], x: &[f32], w: &Weight, m: usize, n0: usize, len: usize, accumulate: bool, scratch: &mut [f32]) {
    matmul(level, y, x, &w.rows[n0 * w.k..][..len * w.k], m, len, w.k, false, true, 1.0, accumulate, scratch);
}

/// dx[m,k] = dy[m,n] · w, or += where `accumulate`.
pub fn linear_backward(level: Level, dx: &mut [f32], dy: &[f32], w: &Weight, m: usize, accumulate: bool, scratch: &mut [f32]) {
    linear_backward_tile(level, dx, dy, w, m, 0, w.n, accumulate, scratch);
}

/// dx[m,k] = p[m,len] · w[n0 .. n0 + len, :], or += where `accumulate`. `n0` is a multiple of 16.
pub fn linear_backward_tile(level: Level, dx: &mut [f32], p: &[f32], w: &Weight, m: usize, n0: usize, len: usize, accumulate: bool, scratch: &mut [f32]) {
    matmul(level, dx, p, &w.rows[n0 * w.k..][..len * w.k], m, w.k, len, false, false, 1.0, accumulate, scratch);
}

/// c[m,n] = alpha · op(a)[m,k] · op(b)[k,n], or += where `accumulate`. `a` is stored `[k,m]` where `a_transposed`,
/// `b` is stored `[n,k]` where `b_transposed`.
pub fn matmul(level: Level, c: &mut [f32], a: &[f32], b: &[f32], m: usize, n: usize, k: usize, a_transposed: bool, b_transposed: bool, alpha: f32, accumulate: bool, scratch: &mut [f32]) {
    let _ = (level, scratch);
    assert_eq!((c.len(), a.len(), b.len()), (m * n, m * k, k * n), "sizes of a matrix product");
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0f32;
            for l in 0..k {
                let x = if a_transposed { a[l * m + i] } else { a[i * k + l] };
                let y = if b_transposed { b[j * k + l] } else { b[l * n + j] };
                sum = x.mul_add(y, sum);
            }
            c[i * n + j] = if accumulate { alpha.mul_add(sum, c[i * n + j]) } else { alpha * sum };
        }
    }
}
