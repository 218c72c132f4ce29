//! The device contract, on one page: memory in slots, and the named operations on them.
//!
//! Block, loss and optimiser code only ever talk to this page; a new accelerator is one more
//! implementation of it. No operation returns a slice: numbers leave through [`Device::download`].
//! Every operation is row-invariant: what it writes for a row depends on that row's inputs alone, never
//! on how many rows or threads there are. Operations marked `+=` accumulate.
//!
//! Sizes are agreed before the first step; operations assert and do not fail.

use std::collections::TryReserveError;

use kernels::optimizer::eight_bit;

use crate::batch::{HeadEntry, RunTable};
use crate::compute::{ComputePath, KvType, Threads};
use crate::config::{Gate, Rotary};

/// A place of `len` elements in one of the device's arenas. Copied freely; owns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which allocation it lies in.
    pub arena: u32,
    /// First element, counted in elements.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl Slot {
    /// `len` elements from `start` of this slot.
    pub fn part(self, start: usize, len: usize) -> Slot {
        assert!(start + len <= self.len, "part {start}+{len} of a slot of {}", self.len);
        Slot { arena: self.arena, offset: self.offset + start, len }
    }
}

/// A weight matrix that the device holds in the form it likes best: frozen, or of [`Device::trained_weight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightId(pub u32);

/// Both moments of some parameters, which the device holds in 8 bits, see [`Device::moments_8bit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MomentsId(pub u32);

/// One moment in 8 bits as plain data: numbers are values of codes times their block's scale, see
/// [`kernels::optimizer::eight_bit`].
#[derive(Clone, Debug, PartialEq)]
pub struct Moment8bit {
    /// A code each number.
    pub codes: Vec<u8>,
    /// A scale for every 256 of them.
    pub scales: Vec<f32>,
}

impl Moment8bit {
    /// The first and the second moment of `len` numbers before the first step.
    pub fn zeros(len: usize) -> Result<[Moment8bit; 2], TryReserveError> {
        let zero = |code| -> Result<Moment8bit, TryReserveError> {
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            codes.try_reserve_exact(len)?;
            codes.resize(len, code);
            let blocks = eight_bit::blocks(len);
            scales.try_reserve_exact(blocks)?;
            scales.resize(blocks, 0.0);
            Ok(Moment8bit { codes, scales })
        };
        Ok([zero(eight_bit::first_code(0.0))?, zero(eight_bit::second_code(0.0))?])
    }

    /// Whether it is one of `len` numbers whose scales are sizes.
    pub fn fits(&self, len: usize) -> bool {
        let sizes = self.scales.iter().all(|scale| scale.is_finite() && *scale >= 0.0);
        self.codes.len() == len && self.scales.len() == eight_bit::blocks(len) && sizes
    }

    /// Bytes of both moments of `len` numbers.
    pub const fn bytes_of_both(len: usize) -> usize {
        2 * (len + 4 * eight_bit::blocks(len))
    }
}

/// How the numbers of a weight tensor are stored in its bytes (little endian; GGUF block layouts).
pub use kernels::quant::Storage;

/// A weight's bytes that its source holds as well, such as a mapped file's.
pub use kernels::matmul::SharedBytes;

/// How a source stores a matrix, and whether its bytes stay there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How the numbers are stored.
    pub storage: Storage,
    /// The device may read it where it lies, see [`Device::shared_weight`].
    pub shared: bool,
}

impl From<Storage> for Stored {
    fn from(storage: Storage) -> Stored {
        Stored { storage, shared: false }
    }
}

/// What can go wrong when a device is asked for memory or weights.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The arena would not fit.
    #[error("{name} needs {needed} bytes, more than can be allocated")]
    OutOfMemory {
        /// What the memory was for.
        name: String,
        /// Bytes asked for.
        needed: usize,
    },
    /// A weight's bytes do not have the size that its shape and storage say.
    #[error("weight {name}: {given} bytes given, {expected} expected for {rows} x {cols} in {storage:?}")]
    WeightSize {
        /// Name for the message.
        name: String,
        /// Bytes given.
        given: usize,
        /// Bytes that shape and storage ask for.
        expected: usize,
        /// Output features.
        rows: usize,
        /// Input features.
        cols: usize,
        /// Storage.
        storage: Storage,
    },
}

/// Sizes of a product `c[m,n] = alpha * op(a) op(b)`, with `op(a)` of `m x k` and `op(b)` of `k x n`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Inner size, summed over in ascending order.
    pub k: usize,
    /// `a` is stored `k x m`.
    pub a_transposed: bool,
    /// `b` is stored `n x k`.
    pub b_transposed: bool,
    /// Factor on the product.
    pub alpha: f32,
    /// Add to `c` instead of overwriting it.
    pub accumulate: bool,
}

/// Sizes of attention; all are constant over a model's layers but the window.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// A query sees the last `window` keys of its chain, itself included; `None`: all.
    pub window: Option<usize>,
    /// Factor on q·k before the softmax.
    pub scale: f32,
    /// Scores s become cap · tanh(s / cap).
    pub softcap: Option<f32>,
    /// How keys and values are held; the backward reads f32 alone.
    pub kv: KvType,
}

/// AdamW (Loshchilov & Hutter 2019), as PyTorch computes it.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Step number, from 1, for the bias corrections.
    pub step: u32,
    /// Factor on the gradient (clipping, normalisation).
    pub gradient_scale: f32,
}

/// The largest sizes that a device will be asked to work at; its scratch is laid out from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one forward pass.
    pub rows: usize,
    /// Longest chain of keys that one query reads.
    pub chain: usize,
    /// Widest linear layer, in or out, the head's vocabulary not counted.
    pub width: usize,
    /// Rows with loss entries or logits in one pass.
    pub head_rows: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Residual channels.
    pub hidden: usize,
    /// Ways of turning that a pass takes turns in.
    pub rotaries: usize,
    /// How [`Device::linear`] and [`Device::head`] compute from then on; a device without the other path stays exact.
    pub compute: ComputePath,
}

/// A device: arenas, frozen weights, and the operations of a transformer's forward and backward.
pub trait Device: Send {
    /// Runs `work`, which calls many operations, where they are cheapest to call from: on a thread of the
    /// device's own pool, if it has one.
    fn scope<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> T + Send) -> T
    where
        Self: Sized,
    {
        work(self)
    }

    /// The device's own threads, where it has any.
    fn threads(&self) -> Threads {
        Threads::default()
    }

    // ---- memory ------------------------------------------------------------------------------
    /// A zeroed arena of `len` f32 elements; `name` stands in the error.
    fn allocate(&mut self, name: &str, len: usize) -> Result<Slot, DeviceError>;
    /// Gives an arena back; `slot` must be what `allocate` returned.
    fn release(&mut self, slot: Slot);
    /// Lays out the kernels' scratch for these sizes; called before the first operation and again to grow.
    fn reserve(&mut self, limits: &Limits) -> Result<(), DeviceError>;
    /// Bytes of scratch that `reserve` would hold for these sizes.
    fn scratch_bytes(&self, limits: &Limits) -> usize;
    /// Host → slot; lengths must be equal.
    fn upload(&mut self, slot: Slot, values: &[f32]);
    /// Slot → host; lengths must be equal.
    fn download(&self, slot: Slot, values: &mut [f32]);
    /// One element, in the device's own precision (finite differences need more than f32).
    fn read(&self, slot: Slot, index: usize) -> f64;
    /// Slot → host in the device's own precision; lengths must be equal.
    fn download_exact(&self, slot: Slot, values: &mut [f64]) {
        assert_eq!(slot.len, values.len());
        values.iter_mut().enumerate().for_each(|(index, value)| *value = self.read(slot, index));
    }
    /// slot = 0.
    fn zero(&mut self, slot: Slot);
    /// to = from.
    fn copy(&mut self, to: Slot, from: Slot);
    /// Takes a frozen weight `[rows = out, cols = in]`; the device decides how it holds it.
    fn weight(&mut self, name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<WeightId, DeviceError>;
    /// Bytes that `weight` holds for such a tensor.
    fn weight_bytes(&self, storage: Storage, rows: usize, cols: usize) -> usize;
    /// The same of bytes that stay where they are as long as the device has them: a device that reads its weights as they are
    /// stored need not copy them.
    fn shared_weight(
        &mut self,
        name: &str,
        storage: Storage,
        rows: usize,
        cols: usize,
        bytes: SharedBytes,
    ) -> Result<WeightId, DeviceError> {
        self.weight(name, storage, rows, cols, (*bytes).as_ref())
    }
    /// Bytes that `shared_weight` holds beside those.
    fn shared_weight_bytes(&self, storage: Storage, rows: usize, cols: usize) -> usize {
        self.weight_bytes(storage, rows, cols)
    }

    /// Takes a weight that [`Device::adamw_weight`] will change, from a float storage; held as f32 rows.
    fn trained_weight(&mut self, name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<WeightId, DeviceError>;
    /// Bytes that `trained_weight` holds.
    fn trained_weight_bytes(&self, rows: usize, cols: usize) -> usize;
    /// Row `row` of a weight, as f32.
    fn read_weight_row(&self, w: WeightId, row: usize, values: &mut [f32]);
    /// All rows of a trained weight, one after the other.
    fn write_weight(&mut self, w: WeightId, values: &[f32]);

    // ---- rows --------------------------------------------------------------------------------
    /// `y[m,k]` = rows `ids` of weight `w[n,k]`.
    fn embed(&mut self, y: Slot, w: WeightId, ids: &[u32]);
    /// `y[i] = x[rows[i]]`, rows of `c` elements.
    fn gather(&mut self, y: Slot, x: Slot, rows: &[u32], c: usize);
    /// `y[rows[i]] += x[i]`, in the order of `i`; rows of `c` elements.
    fn scatter_add(&mut self, y: Slot, x: Slot, rows: &[u32], c: usize);
    /// Row `rows[i]` of a cache of keys or values = `x[i, g, d]`, as `shape.kv` holds it; `rows` are distinct.
    fn store_keys(&mut self, cache: Slot, x: Slot, rows: &[u32], shape: AttentionShape);

    // ---- linear ------------------------------------------------------------------------------
    /// `y[m,n]` = `x[m,k]` · wᵀ, or += where `accumulate`.
    fn linear(&mut self, y: Slot, x: Slot, w: WeightId, m: usize, accumulate: bool);
    /// `dx[m,k]` = `dy[m,n]` · w, or += where `accumulate`.
    fn linear_backward(&mut self, dx: Slot, dy: Slot, w: WeightId, m: usize, accumulate: bool);
    /// c = alpha * op(a) op(b), small dense operands (adapters and their gradients).
    fn matmul(&mut self, c: Slot, a: Slot, b: Slot, product: Product);

    // ---- block -------------------------------------------------------------------------------
    /// y = x / rms(x) * gain, per row of `c`; saves `rstd[m]`.
    fn rms_norm(&mut self, y: Slot, rstd: Slot, x: Slot, gain: Slot, m: usize, c: usize, eps: f32);
    /// dx += ∂/∂x of `rms_norm`; gain frozen.
    fn rms_norm_backward(&mut self, dx: Slot, dy: Slot, x: Slot, gain: Slot, rstd: Slot, m: usize, c: usize);
    /// The first 2n elements of each head of `x[m, heads, head_dim]`, n = `rotary.inv_freq.len()`, rotated in place by position
    /// ("rotate half" pairs i, i + n); `transposed` applies the transpose of that (the backward).
    fn rotary(&mut self, x: Slot, positions: &[u32], heads: usize, head_dim: usize, rotary: &Rotary, transposed: bool);
    /// `out[m,h,d]` = softmax(scale · q kᵀ) v over each run's chain; saves `lse[m,h]`. k, v: `[key rows, g, d]`, as
    /// `shape.kv` holds them.
    fn attention(&mut self, out: Slot, lse: Slot, q: Slot, k: Slot, v: Slot, runs: &RunTable, shape: AttentionShape);
    /// dq =, dk +=, dv += : a run's dK and dV are summed over its readers in the table's order.
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
    );
    /// h = act(gate) * up.
    fn gate(&mut self, h: Slot, gate: Slot, up: Slot, act: Gate);
    /// dgate =, dup = ; `dgate`/`dup` may be the slots of nothing else.
    fn gate_backward(&mut self, dgate: Slot, dup: Slot, dh: Slot, gate: Slot, up: Slot, act: Gate);
    /// y += x.
    fn add(&mut self, y: Slot, x: Slot);
    /// `y[m,n]` += `bias[n]`, every row.
    fn add_rows(&mut self, y: Slot, bias: Slot);
    /// `y[m,n]` = `x[m,n]` · `factors[n]` in every row, or += where `accumulate`.
    fn scale_columns(&mut self, y: Slot, x: Slot, factors: Slot, accumulate: bool);
    /// `out[n]` += `columns[n]` · Σ over the rows of `rows[m]` · `a[m,n]` · `b[m,n]`, rows ascending; what is `None` is 1. The gradient
    /// of a bias, a norm's gain or a magnitude.
    fn column_sums(&mut self, out: Slot, a: Slot, b: Option<Slot>, rows: Option<Slot>, columns: Option<Slot>);
    /// `norm[n]` = the norm of each row of w + scale · `b[n,r]` · `a[r,k]`.
    fn weight_norms(&mut self, norm: Slot, w: WeightId, a: Slot, b: Slot, scale: f32);
    /// With the norms in `inverse`: `gain` = `magnitude` / norm and `inverse` = 1 / norm; both 0 where the norm is 0.
    fn dora_scales(&mut self, gain: Slot, inverse: Slot, magnitude: Slot);
    /// x = cap · tanh(x / cap).
    fn softcap(&mut self, x: Slot, cap: f32);
    /// y = x · mask / (1 - p), or += where `accumulate` (the backward is the same mask on dy).
    /// The mask is counter-based: element j of row i is drawn from (`keys[i]`, module, j).
    fn dropout(&mut self, y: Slot, x: Slot, keys: &[u64], module: u32, p: f32, c: usize, accumulate: bool);

    // ---- loss --------------------------------------------------------------------------------
    /// For the head rows `x[m,c]`: `log_prob[e]` = `ln softmax(x[row_e] · wᵀ)[target_e]`; with `expected` also
    /// `expected[m,c]` = Σ_v p_v w_v per row, from which every entry's gradient follows. Walks the
    /// vocabulary in tiles: logits are never materialised. `HeadEntry::row` counts rows of `x`.
    /// With `softcap` logits z become y = cap · tanh(z / cap) of slope g = 1 − (y / cap)²; `expected` is Σ_v p_v g_v w_v, and
    /// `slope[e]` becomes g of the entry's target.
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
    );
    /// `dx[m,c]` = Σ over the row's entries of coefficient_e · (slope_e · `w[target_e]` − `expected[row]`): the gradient of
    /// Σ coefficient_e · `log_prob[e]`. Without `slope` it is 1.
    fn head_backward(
        &mut self,
        dx: Slot,
        expected: Slot,
        slope: Option<Slot>,
        w: WeightId,
        entries: &[HeadEntry],
        coefficients: &[f32],
        m: usize,
    );

    /// `dw[v,c]` += the gradient of Σ coefficient_e · `log_prob[e]` in the head's own weight; `log_prob` and `slope` as `head`
    /// gave them.
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
    );

    // ---- optimiser ---------------------------------------------------------------------------
    /// Σ x², in the fixed tree.
    fn squared_norm(&self, x: Slot) -> f64;
    /// x *= factor.
    fn scale(&mut self, x: Slot, factor: f32);
    /// One AdamW step on parameters p with gradient g and moments m, v.
    fn adamw(&mut self, p: Slot, m: Slot, v: Slot, g: Slot, adamw: AdamW);
    /// The same on a trained weight.
    fn adamw_weight(&mut self, w: WeightId, m: Slot, v: Slot, g: Slot, adamw: AdamW);

    /// Both moments of `len` parameters in 8 bits, all zero; `name` stands in the error. 8-bit AdamW (Dettmers et al. 2022):
    /// codes and rounding are those of [`kernels::optimizer::eight_bit`].
    fn moments_8bit(&mut self, name: &str, len: usize) -> Result<MomentsId, DeviceError>;
    /// Bytes that `moments_8bit` holds.
    fn moments_8bit_bytes(&self, len: usize) -> usize;
    /// Gives them back.
    fn release_moments_8bit(&mut self, moments: MomentsId);
    /// Both moments → host.
    fn read_moments_8bit(&self, moments: MomentsId) -> [Moment8bit; 2];
    /// Host → both moments; sizes must be equal.
    fn write_moments_8bit(&mut self, moments: MomentsId, values: &[Moment8bit; 2]);
    /// One AdamW step on parameters p with gradient g; the parameters move by the moments before these are rounded.
    fn adamw_8bit(&mut self, p: Slot, moments: MomentsId, g: Slot, adamw: AdamW);
    /// The same on a trained weight.
    fn adamw_8bit_weight(&mut self, w: WeightId, moments: MomentsId, g: Slot, adamw: AdamW);
}
