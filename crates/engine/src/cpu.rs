//! The processor as a device: every operation forwards to one function of `kernels`.
//!
//! Arenas are vectors of f32, weights are held as `kernels` likes them, and operations run on a thread pool of the device's
//! own. Whoever calls many small operations (a decoding loop) runs it inside [`CpuDevice::pool`]'s `install`: then none
//! of them changes threads.

use crate::batch::{HeadEntry, RunTable};
use crate::compute::{ComputePath, Threads};
use crate::config::{Gate, Rotary};
use crate::device::{
    AdamW, AttentionShape, Device, DeviceError, Limits, Moment8bit, MomentsId, Product, SharedBytes, Slot, Storage, WeightId,
};
use kernels::attention::MAX_HEAD_DIM;
use kernels::columns::{self, Terms};
use kernels::integer::{self, Rounded};
use kernels::matmul::Weight;
use kernels::{attention, cache, dora, dropout, elementwise, head, matmul, norm, optimizer, rotary, rows};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;

pub use kernels::simd::Level;

/// A CPU with its memory. See the module's documentation.
pub struct CpuDevice {
    level: Level,
    pool: Arc<ThreadPool>,
    arenas: Arenas,
    weights: Vec<Weight>,
    /// Moments in 8 bits by number; the places of released ones are given out again.
    moments: Vec<Option<[Moment8bit; 2]>>,
    /// The largest of all limits that were reserved.
    limits: Limits,
    scratch: Vec<f32>,
    /// The left operand of integer products.
    rounded: Rounded,
    /// One for each way of turning; the one used last stands first.
    angles: Vec<Angles>,
}

/// The sines and cosines of the positions that were turned last: all layers of a pass that turn alike ask for the same.
#[derive(Default)]
struct Angles {
    positions: Vec<u32>,
    inv_freq: Vec<f32>,
    scale: f32,
    table: Vec<f32>,
}

impl CpuDevice {
    /// A device with this many threads, at least one, and the fastest instructions of the machine.
    pub fn new(threads: usize) -> CpuDevice {
        CpuDevice::with_level(threads, Level::detect())
    }

    /// The same with the instructions given; results do not depend on them.
    pub fn with_level(threads: usize, level: Level) -> CpuDevice {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("kernel-{i}"))
            .build()
            .expect("the system starts threads");
        CpuDevice {
            level,
            pool: Arc::new(pool),
            arenas: Arenas::default(),
            weights: Vec::new(),
            moments: Vec::new(),
            limits: Limits { rows: 0, chain: 0, width: 0, head_rows: 0, vocab: 0, hidden: 0, rotaries: 0, compute: ComputePath::Exact },
            scratch: Vec::new(),
            rounded: Rounded::default(),
            angles: Vec::new(),
        }
    }

    /// The threads that the operations run on.
    pub fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.pool)
    }

    /// The instructions that the operations use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Bytes that the device holds at this moment: arenas, weights and scratch.
    pub fn bytes(&self) -> usize {
        let arenas: usize = self.arenas.0.iter().flatten().map(|arena| 4 * arena.len()).sum();
        let weights: usize = self.weights.iter().map(Weight::bytes).sum();
        let angles = self.angles.iter().map(|a| a.table.len() + a.positions.capacity() + a.inv_freq.capacity()).sum::<usize>();
        let moments: usize = self.moments.iter().flatten().map(|[first, _]| Moment8bit::bytes_of_both(first.codes.len())).sum();
        arenas + weights + moments + 4 * (self.scratch.len() + angles) + self.rounded.bytes()
    }

    /// Rows and width of the left operands of integer products.
    fn rounded_size(limits: &Limits) -> (usize, usize) {
        match limits.compute {
            ComputePath::Exact => (0, 0),
            ComputePath::Fast => (limits.rows.max(limits.head_rows), limits.width.max(limits.hidden)),
        }
    }

    fn scratch_len(&self, limits: &Limits) -> usize {
        let threads = self.pool.current_num_threads();
        let products = matmul::scratch_len(threads, limits.rows.max(limits.head_rows), limits.width.max(limits.hidden));
        let attention = attention::scratch_len(threads, limits.chain);
        let head = head::scratch_len(threads, limits.head_rows, limits.hidden);
        products.max(attention).max(head)
    }

    /// Rows' angles of heads as wide as attention takes them.
    fn angles_len(limits: &Limits) -> usize {
        limits.rows * limits.width.min(MAX_HEAD_DIM)
    }

    /// Puts the table for these positions first, computed anew where none of the tables is it.
    fn find_angles(&mut self, positions: &[u32], rotary: &Rotary) {
        let len = positions.len() * 2 * rotary.inv_freq.len();
        let same = |a: &Angles| a.positions == positions && a.inv_freq == rotary.inv_freq && a.scale == rotary.scale;
        let known = self.angles.iter().position(same);
        let place = known.unwrap_or(self.angles.len().saturating_sub(1));
        assert!(place < self.angles.len(), "no room for angles was reserved");
        self.angles[..=place].rotate_right(1);
        if known.is_some() {
            return;
        }
        let angles = &mut self.angles[0];
        assert!(len <= angles.table.len(), "{} rows of angles, room for {} elements", positions.len(), angles.table.len());
        angles.positions.clear();
        angles.positions.extend_from_slice(positions);
        angles.inv_freq.clear();
        angles.inv_freq.extend_from_slice(&rotary.inv_freq);
        angles.scale = rotary.scale;
        self.pool.install(|| rotary::angles(&mut angles.table[..len], positions, &rotary.inv_freq, rotary.scale));
    }
}

/// Makes room for `len` elements in all.
fn reserve<T>(memory: &mut Vec<T>, len: usize, name: &str) -> Result<(), DeviceError> {
    let more = len.saturating_sub(memory.len());
    let needed = len.saturating_mul(size_of::<T>());
    memory.try_reserve_exact(more).map_err(|_| DeviceError::OutOfMemory { name: name.to_owned(), needed })
}

/// Lengthens `memory` with zeros to `len` elements.
fn grow(memory: &mut Vec<f32>, len: usize, name: &str) -> Result<(), DeviceError> {
    reserve(memory, len, name)?;
    memory.resize(len.max(memory.len()), 0.0);
    Ok(())
}

/// The arenas by number; the places of released ones are given out again.
#[derive(Default)]
struct Arenas(Vec<Option<Vec<f32>>>);

const TRAINED: &str = "a weight that is trained";
const RELEASED: &str = "the arena was not released";
const RELEASED_MOMENTS: &str = "the moments were not released";

impl Arenas {
    fn read(&self, slot: Slot) -> &[f32] {
        &self.0[slot.arena as usize].as_ref().expect(RELEASED)[slot.offset..][..slot.len]
    }

    fn write(&mut self, slot: Slot) -> &mut [f32] {
        &mut self.0[slot.arena as usize].as_mut().expect(RELEASED)[slot.offset..][..slot.len]
    }

    /// Borrows `outputs` to write and `inputs` to read. Inputs may overlap each other; what is written overlaps nothing.
    fn split<const O: usize, const I: usize>(&mut self, outputs: [Slot; O], inputs: [Slot; I]) -> ([&mut [f32]; O], [&[f32]; I]) {
        let mut written: [Option<&mut [f32]>; O] = [const { None }; O];
        let mut read: [Option<&[f32]>; I] = [None; I];
        let mut order: [usize; O] = std::array::from_fn(|o| o);
        order.sort_unstable_by_key(|&o| (outputs[o].arena, outputs[o].offset, outputs[o].len));
        for (index, arena) in self.0.iter_mut().enumerate() {
            let Some(arena) = arena else { continue };
            // Cut the outputs out of the arena in order; every input lies in what is left between two of them.
            let mut start = 0;
            let mut rest = &mut arena[..];
            for &o in order.iter().filter(|&&o| outputs[o].arena as usize == index) {
                let slot = outputs[o];
                assert!(slot.offset >= start, "{slot:?} overlaps another output");
                let (gap, tail) = rest.split_at_mut(slot.offset - start);
                find(&mut read, &inputs, index, start, gap);
                let (output, tail) = tail.split_at_mut(slot.len);
                written[o] = Some(output);
                (start, rest) = (slot.offset + slot.len, tail);
            }
            find(&mut read, &inputs, index, start, rest);
        }
        let written = written.map(|slice| slice.expect(RELEASED));
        let mut inputs = inputs.iter();
        let read = read.map(|slice| {
            let slot = inputs.next().expect("as many as were read");
            slice.unwrap_or_else(|| panic!("{slot:?} overlaps an output, leaves its arena or lies in a released one"))
        });
        (written, read)
    }
}

/// Gives those of `inputs` that lie in `gap`, which starts at `start` of arena `index`, their slices.
fn find<'a>(read: &mut [Option<&'a [f32]>], inputs: &[Slot], index: usize, start: usize, gap: &'a [f32]) {
    for (slice, slot) in read.iter_mut().zip(inputs) {
        if slot.arena as usize == index && slot.offset >= start {
            *slice = slice.or(gap.get(slot.offset - start..).and_then(|gap| gap.get(..slot.len)));
        }
    }
}

impl From<AttentionShape> for attention::Shape {
    fn from(shape: AttentionShape) -> attention::Shape {
        let AttentionShape { heads, kv_heads, head_dim, window, scale, softcap, kv } = shape;
        attention::Shape { heads, kv_heads, head_dim, window, scale, softcap, kv }
    }
}

impl From<AdamW> for optimizer::Step {
    fn from(adamw: AdamW) -> optimizer::Step {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay, step, gradient_scale } = adamw;
        optimizer::Step { learning_rate, beta1, beta2, eps, weight_decay, step, gradient_scale }
    }
}

impl<'a> From<&'a mut Moment8bit> for optimizer::eight_bit::Moment<'a> {
    fn from(Moment8bit { codes, scales }: &'a mut Moment8bit) -> optimizer::eight_bit::Moment<'a> {
        optimizer::eight_bit::Moment { codes, scales }
    }
}

/// A weight has elements, and as many bytes as they take.
fn has_size(name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<(), DeviceError> {
    let (expected, given) = (storage.bytes(rows, cols).unwrap_or(0), bytes.len());
    if given == expected && expected > 0 {
        return Ok(());
    }
    Err(DeviceError::WeightSize { name: name.to_owned(), given, expected, rows, cols, storage })
}

impl Device for CpuDevice {
    fn scope<T: Send>(&mut self, work: impl FnOnce(&mut CpuDevice) -> T + Send) -> T {
        let pool = self.pool();
        pool.install(|| work(self))
    }

    fn threads(&self) -> Threads {
        Threads::of(self.pool())
    }

    // ---- memory ------------------------------------------------------------------------------
    fn allocate(&mut self, name: &str, len: usize) -> Result<Slot, DeviceError> {
        let mut arena = Vec::new();
        grow(&mut arena, len, name)?;
        let free = self.arenas.0.iter().position(Option::is_none);
        let index = free.unwrap_or(self.arenas.0.len());
        if free.is_none() {
            self.arenas.0.push(None);
        }
        self.arenas.0[index] = Some(arena);
        Ok(Slot { arena: index as u32, offset: 0, len })
    }

    fn release(&mut self, slot: Slot) {
        let arena = self.arenas.0[slot.arena as usize].take().expect(RELEASED);
        assert!(slot.offset == 0 && slot.len == arena.len(), "{slot:?} is a part of an arena of {}", arena.len());
    }

    fn reserve(&mut self, limits: &Limits) -> Result<(), DeviceError> {
        let held = self.limits;
        let limits = Limits {
            rows: limits.rows.max(held.rows),
            chain: limits.chain.max(held.chain),
            width: limits.width.max(held.width),
            head_rows: limits.head_rows.max(held.head_rows),
            vocab: limits.vocab.max(held.vocab),
            hidden: limits.hidden.max(held.hidden),
            rotaries: limits.rotaries.max(held.rotaries),
            compute: limits.compute,
        };
        let len = self.scratch_len(&limits);
        grow(&mut self.scratch, len, "scratch of the kernels")?;
        let (rows, width) = CpuDevice::rounded_size(&limits);
        if limits.compute == ComputePath::Exact {
            self.rounded = Rounded::default();
        }
        let needed = Rounded::bytes_for(rows, width);
        let room = self.rounded.reserve(rows, width);
        room.map_err(|_| DeviceError::OutOfMemory { name: "rounded rows".to_owned(), needed })?;
        self.angles.resize_with(limits.rotaries, Angles::default);
        for Angles { positions, inv_freq, table, .. } in &mut self.angles {
            grow(table, CpuDevice::angles_len(&limits), "rotary angles")?;
            reserve(positions, limits.rows, "rotary positions")?;
            reserve(inv_freq, MAX_HEAD_DIM / 2, "rotary frequencies")?;
        }
        self.limits = limits;
        Ok(())
    }

    fn scratch_bytes(&self, limits: &Limits) -> usize {
        let (rows, width) = CpuDevice::rounded_size(limits);
        Rounded::bytes_for(rows, width)
            + 4 * (self.scratch_len(limits) + limits.rotaries * (CpuDevice::angles_len(limits) + limits.rows + MAX_HEAD_DIM / 2))
    }

    fn upload(&mut self, slot: Slot, values: &[f32]) {
        self.arenas.write(slot).copy_from_slice(values);
    }

    fn download(&self, slot: Slot, values: &mut [f32]) {
        values.copy_from_slice(self.arenas.read(slot));
    }

    fn read(&self, slot: Slot, index: usize) -> f64 {
        f64::from(self.arenas.read(slot)[index])
    }

    fn zero(&mut self, slot: Slot) {
        self.arenas.write(slot).fill(0.0);
    }

    fn copy(&mut self, to: Slot, from: Slot) {
        let ([to], [from]) = self.arenas.split([to], [from]);
        to.copy_from_slice(from);
    }

    fn weight(&mut self, name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<WeightId, DeviceError> {
        has_size(name, storage, rows, cols, bytes)?;
        let needed = self.weight_bytes(storage, rows, cols);
        let weight = self.pool.install(|| Weight::new(storage, rows, cols, bytes));
        self.weights.push(weight.map_err(|_| DeviceError::OutOfMemory { name: name.to_owned(), needed })?);
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    /// 0 for a shape that [`Device::weight`] would refuse.
    fn weight_bytes(&self, storage: Storage, rows: usize, cols: usize) -> usize {
        Weight::bytes_for(storage, rows, cols).unwrap_or(0)
    }

    fn shared_weight(
        &mut self,
        name: &str,
        storage: Storage,
        rows: usize,
        cols: usize,
        bytes: SharedBytes,
    ) -> Result<WeightId, DeviceError> {
        has_size(name, storage, rows, cols, (*bytes).as_ref())?;
        if !Weight::can_share(storage, cols) {
            return self.weight(name, storage, rows, cols, (*bytes).as_ref());
        }
        self.weights.push(Weight::shared(storage, rows, cols, bytes));
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    fn shared_weight_bytes(&self, storage: Storage, rows: usize, cols: usize) -> usize {
        if Weight::can_share(storage, cols) { 0 } else { self.weight_bytes(storage, rows, cols) }
    }

    fn trained_weight(&mut self, name: &str, storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> Result<WeightId, DeviceError> {
        has_size(name, storage, rows, cols, bytes)?;
        let needed = self.trained_weight_bytes(rows, cols);
        let weight = self.pool.install(|| Weight::trained(storage, rows, cols, bytes));
        self.weights.push(weight.map_err(|_| DeviceError::OutOfMemory { name: name.to_owned(), needed })?);
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    fn trained_weight_bytes(&self, rows: usize, cols: usize) -> usize {
        4 * rows * cols
    }

    fn read_weight_row(&self, w: WeightId, row: usize, values: &mut [f32]) {
        self.weights[w.0 as usize].row(row, values);
    }

    fn write_weight(&mut self, w: WeightId, values: &[f32]) {
        self.weights[w.0 as usize].rows_mut().expect(TRAINED).copy_from_slice(values);
    }

    // ---- rows --------------------------------------------------------------------------------
    fn embed(&mut self, y: Slot, w: WeightId, ids: &[u32]) {
        let (y, w) = (self.arenas.write(y), &self.weights[w.0 as usize]);
        self.pool.install(|| rows::embed(y, w, ids));
    }

    fn gather(&mut self, y: Slot, x: Slot, rows: &[u32], c: usize) {
        let ([y], [x]) = self.arenas.split([y], [x]);
        self.pool.install(|| rows::gather(y, x, rows, c));
    }

    fn scatter_add(&mut self, y: Slot, x: Slot, rows: &[u32], c: usize) {
        let ([y], [x]) = self.arenas.split([y], [x]);
        self.pool.install(|| rows::scatter_add(y, x, rows, c));
    }

    fn store_keys(&mut self, cache: Slot, x: Slot, rows: &[u32], shape: AttentionShape) {
        let ([cache], [x]) = self.arenas.split([cache], [x]);
        self.pool.install(|| cache::store_rows(cache, x, rows, shape.kv, shape.kv_heads, shape.head_dim));
    }

    // ---- linear ------------------------------------------------------------------------------
    fn linear(&mut self, y: Slot, x: Slot, w: WeightId, m: usize, accumulate: bool) {
        let ([y], [x]) = self.arenas.split([y], [x]);
        let (level, w, scratch, rounded) = (self.level, &self.weights[w.0 as usize], &mut self.scratch, &mut self.rounded);
        let fast = self.limits.compute == ComputePath::Fast && integer::supports(w);
        self.pool.install(|| match fast {
            true => integer::linear(level, y, x, w, m, accumulate, rounded),
            false => matmul::linear(level, y, x, w, m, accumulate, scratch),
        });
    }

    fn linear_backward(&mut self, dx: Slot, dy: Slot, w: WeightId, m: usize, accumulate: bool) {
        let ([dx], [dy]) = self.arenas.split([dx], [dy]);
        let (level, w, scratch) = (self.level, &self.weights[w.0 as usize], &mut self.scratch);
        self.pool.install(|| matmul::linear_backward(level, dx, dy, w, m, accumulate, scratch));
    }

    fn matmul(&mut self, c: Slot, a: Slot, b: Slot, product: Product) {
        let ([c], [a, b]) = self.arenas.split([c], [a, b]);
        let Product { m, n, k, a_transposed, b_transposed, alpha, accumulate } = product;
        let (level, scratch) = (self.level, &mut self.scratch);
        self.pool.install(|| matmul::matmul(level, c, a, b, m, n, k, a_transposed, b_transposed, alpha, accumulate, scratch));
    }

    // ---- block -------------------------------------------------------------------------------
    fn rms_norm(&mut self, y: Slot, rstd: Slot, x: Slot, gain: Slot, m: usize, c: usize, eps: f32) {
        let ([y, rstd], [x, gain]) = self.arenas.split([y, rstd], [x, gain]);
        let level = self.level;
        self.pool.install(|| norm::rms_norm(level, y, rstd, x, gain, m, c, eps));
    }

    fn rms_norm_backward(&mut self, dx: Slot, dy: Slot, x: Slot, gain: Slot, rstd: Slot, m: usize, c: usize) {
        let ([dx], [dy, x, gain, rstd]) = self.arenas.split([dx], [dy, x, gain, rstd]);
        let level = self.level;
        self.pool.install(|| norm::rms_norm_backward(level, dx, dy, x, gain, rstd, m, c));
    }

    fn rotary(&mut self, x: Slot, positions: &[u32], heads: usize, head_dim: usize, rotary: &Rotary, transposed: bool) {
        self.find_angles(positions, rotary);
        let turned = 2 * rotary.inv_freq.len();
        let (x, table) = (self.arenas.write(x), &self.angles[0].table[..positions.len() * turned]);
        let level = self.level;
        self.pool.install(|| rotary::rotary(level, x, table, heads, head_dim, turned, transposed));
    }

    fn attention(&mut self, out: Slot, lse: Slot, q: Slot, k: Slot, v: Slot, runs: &RunTable, shape: AttentionShape) {
        let ([out, lse], [q, k, v]) = self.arenas.split([out, lse], [q, k, v]);
        let (level, scratch) = (self.level, &mut self.scratch);
        self.pool.install(|| attention::attention(level, out, lse, q, k, v, runs, shape.into(), scratch));
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
        let ([dq, dk, dv], [dout, out, lse, q, k, v]) = self.arenas.split([dq, dk, dv], [dout, out, lse, q, k, v]);
        let (level, scratch) = (self.level, &mut self.scratch);
        self.pool.install(|| attention::attention_backward(level, dq, dk, dv, dout, out, lse, q, k, v, runs, shape.into(), scratch));
    }

    fn gate(&mut self, h: Slot, gate: Slot, up: Slot, act: Gate) {
        let ([h], [gate, up]) = self.arenas.split([h], [gate, up]);
        let level = self.level;
        self.pool.install(|| elementwise::gate(level, h, gate, up, act));
    }

    fn gate_backward(&mut self, dgate: Slot, dup: Slot, dh: Slot, gate: Slot, up: Slot, act: Gate) {
        let ([dgate, dup], [dh, gate, up]) = self.arenas.split([dgate, dup], [dh, gate, up]);
        let level = self.level;
        self.pool.install(|| elementwise::gate_backward(level, dgate, dup, dh, gate, up, act));
    }

    fn add_rows(&mut self, y: Slot, bias: Slot) {
        let ([y], [bias]) = self.arenas.split([y], [bias]);
        self.pool.install(|| elementwise::add_rows(y, bias));
    }

    fn scale_columns(&mut self, y: Slot, x: Slot, factors: Slot, accumulate: bool) {
        let ([y], [x, factors]) = self.arenas.split([y], [x, factors]);
        let level = self.level;
        self.pool.install(|| columns::scale_columns(level, y, x, factors, accumulate));
    }

    fn column_sums(&mut self, out: Slot, a: Slot, b: Option<Slot>, rows: Option<Slot>, columns: Option<Slot>) {
        // What is not there is read as `a`, and then left alone.
        let others = [b, rows, columns];
        let ([out], [a, b, rows, columns]) =
            self.arenas.split([out], [a, others[0].unwrap_or(a), others[1].unwrap_or(a), others[2].unwrap_or(a)]);
        let given = |index: usize, slice| others[index].map(|_| slice);
        let terms = Terms { a, b: given(0, b), rows: given(1, rows), columns: given(2, columns) };
        let level = self.level;
        self.pool.install(|| columns::column_sums(level, out, terms));
    }

    fn weight_norms(&mut self, norm: Slot, w: WeightId, a: Slot, b: Slot, scale: f32) {
        let ([norm], [a, b]) = self.arenas.split([norm], [a, b]);
        let (level, w, scratch) = (self.level, &self.weights[w.0 as usize], &mut self.scratch);
        self.pool.install(|| dora::weight_norms(level, norm, w, a, b, scale, scratch));
    }

    fn dora_scales(&mut self, gain: Slot, inverse: Slot, magnitude: Slot) {
        let ([gain, inverse], [magnitude]) = self.arenas.split([gain, inverse], [magnitude]);
        dora::scales(gain, inverse, magnitude);
    }

    fn softcap(&mut self, x: Slot, cap: f32) {
        let (level, x) = (self.level, self.arenas.write(x));
        self.pool.install(|| elementwise::softcap(level, x, cap));
    }

    fn add(&mut self, y: Slot, x: Slot) {
        let ([y], [x]) = self.arenas.split([y], [x]);
        self.pool.install(|| elementwise::add(y, x));
    }

    fn dropout(&mut self, y: Slot, x: Slot, keys: &[u64], module: u32, p: f32, c: usize, accumulate: bool) {
        let ([y], [x]) = self.arenas.split([y], [x]);
        let level = self.level;
        self.pool.install(|| dropout::dropout(level, y, x, keys, module, p, c, accumulate));
    }

    // ---- loss --------------------------------------------------------------------------------
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
        // What is not asked for is a slot of nothing, past the end of what is.
        let nothing = |beside: Slot| Slot { offset: beside.offset + beside.len, len: 0, ..beside };
        let [asked_expected, asked_slope] = [expected, slope].map(|slot| slot.unwrap_or_else(|| nothing(log_prob)));
        let ([log_prob, e, g], [x]) = self.arenas.split([log_prob, asked_expected, asked_slope], [x]);
        let (e, g) = (expected.map(|_| e), slope.map(|_| g));
        let (level, w, scratch) = (self.level, &self.weights[w.0 as usize], &mut self.scratch);
        // What a gradient follows from is exact always.
        let fast = self.limits.compute == ComputePath::Fast && integer::supports(w) && e.is_none();
        let rounded = fast.then_some(&mut self.rounded);
        self.pool.install(|| head::head(level, log_prob, e, g, x, w, entries, m, softcap, rounded, scratch));
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
        let ([dx], [expected, g]) = self.arenas.split([dx], [expected, slope.unwrap_or(expected)]);
        let (g, w, scratch) = (slope.map(|_| g), &self.weights[w.0 as usize], &mut self.scratch);
        self.pool.install(|| head::head_backward(dx, expected, g, w, entries, coefficients, m, scratch));
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
        let ([dw], [x, log_prob, g]) = self.arenas.split([dw], [x, log_prob, slope.unwrap_or(log_prob)]);
        let (level, g, w, scratch) = (self.level, slope.map(|_| g), &self.weights[w.0 as usize], &mut self.scratch);
        self.pool.install(|| head::head_weight_backward(level, dw, x, w, entries, log_prob, g, coefficients, m, softcap, scratch));
    }

    // ---- optimiser ---------------------------------------------------------------------------
    fn squared_norm(&self, x: Slot) -> f64 {
        let (level, x) = (self.level, self.arenas.read(x));
        self.pool.install(|| optimizer::squared_norm(level, x))
    }

    fn scale(&mut self, x: Slot, factor: f32) {
        let x = self.arenas.write(x);
        self.pool.install(|| elementwise::scale(x, factor));
    }

    fn adamw(&mut self, p: Slot, m: Slot, v: Slot, g: Slot, adamw: AdamW) {
        let ([p, m, v], [g]) = self.arenas.split([p, m, v], [g]);
        let level = self.level;
        self.pool.install(|| optimizer::adamw(level, p, m, v, g, adamw.into()));
    }

    fn adamw_weight(&mut self, w: WeightId, m: Slot, v: Slot, g: Slot, adamw: AdamW) {
        let ([m, v], [g]) = self.arenas.split([m, v], [g]);
        let (level, p) = (self.level, self.weights[w.0 as usize].rows_mut().expect(TRAINED));
        self.pool.install(|| optimizer::adamw(level, p, m, v, g, adamw.into()));
    }

    fn moments_8bit(&mut self, name: &str, len: usize) -> Result<MomentsId, DeviceError> {
        let needed = self.moments_8bit_bytes(len);
        let zeros = Moment8bit::zeros(len).map_err(|_| DeviceError::OutOfMemory { name: name.to_owned(), needed })?;
        let free = self.moments.iter().position(Option::is_none);
        let index = free.unwrap_or(self.moments.len());
        if free.is_none() {
            self.moments.push(None);
        }
        self.moments[index] = Some(zeros);
        Ok(MomentsId(index as u32))
    }

    fn moments_8bit_bytes(&self, len: usize) -> usize {
        Moment8bit::bytes_of_both(len)
    }

    fn release_moments_8bit(&mut self, moments: MomentsId) {
        self.moments[moments.0 as usize].take().expect(RELEASED_MOMENTS);
    }

    fn read_moments_8bit(&self, moments: MomentsId) -> [Moment8bit; 2] {
        self.moments[moments.0 as usize].clone().expect(RELEASED_MOMENTS)
    }

    fn write_moments_8bit(&mut self, moments: MomentsId, values: &[Moment8bit; 2]) {
        let held = self.moments[moments.0 as usize].as_mut().expect(RELEASED_MOMENTS);
        for (to, from) in held.iter_mut().zip(values) {
            to.codes.copy_from_slice(&from.codes);
            to.scales.copy_from_slice(&from.scales);
        }
    }

    fn adamw_8bit(&mut self, p: Slot, moments: MomentsId, g: Slot, adamw: AdamW) {
        let ([p], [g]) = self.arenas.split([p], [g]);
        let (level, [first, second]) = (self.level, self.moments[moments.0 as usize].as_mut().expect(RELEASED_MOMENTS));
        self.pool.install(|| optimizer::eight_bit::adamw(level, p, first.into(), second.into(), g, adamw.into()));
    }

    fn adamw_8bit_weight(&mut self, w: WeightId, moments: MomentsId, g: Slot, adamw: AdamW) {
        let (level, g) = (self.level, self.arenas.read(g));
        let [first, second] = self.moments[moments.0 as usize].as_mut().expect(RELEASED_MOMENTS);
        let p = self.weights[w.0 as usize].rows_mut().expect(TRAINED);
        self.pool.install(|| optimizer::eight_bit::adamw(level, p, first.into(), second.into(), g, adamw.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(arena: u32, offset: usize, len: usize) -> Slot {
        Slot { arena, offset, len }
    }

    fn arenas() -> Arenas {
        Arenas(vec![Some((0..20).map(|i| i as f32).collect()), None, Some((100..110).map(|i| i as f32).collect())])
    }

    #[test]
    fn slots_of_one_arena_are_split() {
        let mut arenas = arenas();
        let inputs = [slot(0, 0, 4), slot(0, 2, 2), slot(0, 9, 3), slot(2, 3, 7), slot(0, 14, 6), slot(0, 20, 0)];
        let ([a, b, c], read) = arenas.split([slot(0, 12, 2), slot(0, 4, 5), slot(2, 0, 3)], inputs);
        assert_eq!((&*a, &*b, &*c), (&[12.0, 13.0][..], &[4.0, 5.0, 6.0, 7.0, 8.0][..], &[100.0, 101.0, 102.0][..]));
        assert_eq!(read.map(|x| x.first().copied()), [Some(0.0), Some(2.0), Some(9.0), Some(103.0), Some(14.0), None]);
        assert_eq!(read.map(<[f32]>::len), [4, 2, 3, 7, 6, 0]);
    }

    #[test]
    #[should_panic(expected = "overlaps another output")]
    fn outputs_may_not_overlap() {
        arenas().split([slot(0, 3, 3), slot(0, 0, 4)], []);
    }

    #[test]
    #[should_panic(expected = "overlaps an output")]
    fn inputs_may_not_be_written() {
        arenas().split([slot(0, 3, 3)], [slot(0, 5, 2)]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut device = CpuDevice::new(1);
        let error = device.allocate("activations", usize::MAX / 8).unwrap_err();
        assert!(error.to_string().starts_with("activations needs"), "{error}");
        let error = device.weight("w", Storage::F32, 2, 3, &[0; 23]).unwrap_err();
        assert!(matches!(error, DeviceError::WeightSize { given: 23, expected: 24, .. }), "{error}");
        let error = device.weight("w", Storage::Q8_0, 2, 33, &[0; 24]).unwrap_err();
        assert!(matches!(error, DeviceError::WeightSize { .. }), "{error}");
    }

    #[test]
    fn memory_is_counted() {
        let mut device = CpuDevice::new(2);
        let limits =
            Limits { rows: 64, chain: 100, width: 96, head_rows: 10, vocab: 50, hidden: 32, rotaries: 2, compute: ComputePath::Fast };
        let before = device.bytes();
        device.reserve(&limits).unwrap();
        assert_eq!(device.bytes() - before, device.scratch_bytes(&limits));
        let before = device.bytes();
        let slots = [5, 0, 7].map(|n| device.allocate("x", n).unwrap());
        assert_eq!(device.bytes() - before, 48);
        device.release(slots[0]);
        device.release(slots[1]);
        device.upload(slots[2], &[1.0; 7]);
        assert_eq!(device.allocate("y", 3).unwrap().arena, slots[0].arena);
        let before = device.bytes();
        device.weight("w", Storage::F32, 17, 3, &[0; 204]).unwrap();
        assert_eq!(device.bytes() - before, device.weight_bytes(Storage::F32, 17, 3));
    }
}
