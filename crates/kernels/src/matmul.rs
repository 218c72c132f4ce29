//! Matrix products: frozen weights against activations, and small dense operands among themselves.
//!
//! The contract, tested bit for bit: the inner dimension is cut into blocks of [`BLOCK`]; within a block an
//! element's sum starts at zero and takes one fused multiply-add per inner index, ascending; then the element becomes
//! alpha · sum (first block, not accumulating) or fma(alpha, sum, element). So the bits of a row depend on nothing but
//! that row and the other operand: not on the number of rows, columns, threads or tiles, not on the SIMD level, and
//! not on whether a weight lies in panels or is expanded on the way.
//!
//! How it is fast: the right operand comes in panels of 16 columns, `[k][16]`; the left one is copied once into blocks
//! of contiguous rows, so that every address of the micro-kernel is a constant offset; a tile of the output walks
//! down the rows while at most `TILE_PANELS_MAX` panels of one block stay in the second-level cache; threads take
//! tiles from one queue.

mod file_rows;

use crate::quant::decode::{Decode, with_decode};
use crate::quant::{Storage, dequantize_row, interleave_panel, panel_row};
use crate::simd::disjoint::{Tile, Tiles};
use crate::simd::microkernel::{self, BLOCK, Left, Right};
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;
use std::collections::TryReserveError;
use std::sync::Arc;

/// Panels of one tile at most: 192 columns of a block are 216 KiB.
const TILE_PANELS_MAX: usize = 12;
/// Elements of a thread's scratch: the panels that it expands.
const PANELS_LEN: usize = TILE_PANELS_MAX * BLOCK * LANES;
/// Rows that are packed at a time, at most.
const ROWS_MAX: usize = 1152;
/// Rows are packed in groups of this many.
const PACK_ROWS: usize = 64;
/// Blocks of the inner dimension that are packed at a time, at most.
const PACK_BLOCKS: usize = 4;
/// Below this many multiplications another thread costs more than it brings.
const ALONE: usize = 1 << 17;

/// Bytes that someone else holds too, such as a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A frozen weight w[n = out, k = in], in the form that the products read fastest.
pub struct Weight {
    storage: Storage,
    n: usize,
    k: usize,
    held: Held,
}

/// Panels of sixteen rows (outputs), zero past n; see [`crate::quant::interleave_panel`].
enum Held {
    /// f32: `[ceil(n / 16)][k][16]`, which the micro-kernel reads as it is.
    F32(Vec<f32>),
    /// The storage's own bytes, block by block.
    Stored(Vec<u8>),
    /// f32 rows, `[n][k]`, of a weight that is trained: panels are made of them in every product, which is cheap beside a
    /// training pass's many rows, and saves a second copy of the weight.
    Rows(Vec<f32>),
    /// The storage's own rows where their source has them: panels are made of them in every product.
    Shared(SharedBytes),
}

impl Weight {
    /// Takes the bytes of an `n x k` matrix, `storage.bytes(n, k)` of them. Fails where memory does.
    pub fn new(storage: Storage, n: usize, k: usize, bytes: &[u8]) -> Result<Weight, TryReserveError> {
        assert_eq!(storage.bytes(n, k), Some(bytes.len()), "{} bytes for {n} x {k} in {}", bytes.len(), storage.name());
        let elements = n.next_multiple_of(LANES) * k;
        let held = if storage == Storage::F32 {
            let mut panels = zeros(elements)?;
            panels.par_chunks_mut((k * LANES).max(1)).enumerate().for_each(|(p, panel)| {
                let numbers = &bytes.as_chunks::<4>().0[p * LANES * k..];
                for (lane, row) in numbers.chunks_exact(k).take(LANES).enumerate() {
                    for (to, number) in panel.chunks_exact_mut(LANES).zip(row) {
                        to[lane] = f32::from_le_bytes(*number);
                    }
                }
            });
            Held::F32(panels)
        } else {
            let panel_bytes = LANES * storage.row_bytes(k).expect("whole blocks: the size was asserted");
            let mut panels = zeros(n.div_ceil(LANES) * panel_bytes)?;
            panels.par_chunks_mut(panel_bytes.max(1)).enumerate().for_each(|(p, panel)| {
                interleave_panel(storage, &bytes[p * panel_bytes..], k, panel);
            });
            Held::Stored(panels)
        };
        Ok(Weight { storage, n, k, held })
    }

    /// The same as f32 rows that may change, see [`Weight::rows_mut`].
    pub fn trained(storage: Storage, n: usize, k: usize, bytes: &[u8]) -> Result<Weight, TryReserveError> {
        assert_eq!(storage.bytes(n, k), Some(bytes.len()), "{} bytes for {n} x {k} in {}", bytes.len(), storage.name());
        let row_bytes = storage.row_bytes(k).expect("whole blocks: the size was asserted");
        let mut rows = zeros(n * k)?;
        rows.par_chunks_exact_mut(k.max(1)).zip(bytes.par_chunks_exact(row_bytes.max(1))).for_each(|(row, bytes)| {
            dequantize_row(storage, bytes, row);
        });
        Ok(Weight { storage: Storage::F32, n, k, held: Held::Rows(rows) })
    }

    /// The same bytes where they lie. Nothing is copied: what the products read of them they bring into panels each time.
    ///
    /// # Panics
    /// If the size is another one, or [`Weight::can_share`] says no.
    pub fn shared(storage: Storage, n: usize, k: usize, bytes: SharedBytes) -> Weight {
        let given = (*bytes).as_ref().len();
        assert_eq!(storage.bytes(n, k), Some(given), "{given} bytes for {n} x {k} in {}", storage.name());
        assert!(Weight::can_share(storage, k), "{} has headers", storage.name());
        Weight { storage, n, k, held: Held::Shared(bytes) }
    }

    /// Whether rows of `k` in this storage are read where they lie: all but bitsandbytes' with scales before the codes.
    pub const fn can_share(storage: Storage, k: usize) -> bool {
        storage.header_bytes(k) == 0
    }

    /// The rows, `[n][k]`, of a weight that is trained.
    pub fn rows(&self) -> Option<&[f32]> {
        if let Held::Rows(rows) = &self.held { Some(rows) } else { None }
    }

    /// The same to be changed.
    pub fn rows_mut(&mut self) -> Option<&mut [f32]> {
        if let Held::Rows(rows) = &mut self.held { Some(rows) } else { None }
    }

    /// Bytes that [`Weight::new`] would hold; `None` where the shape does not fit the storage or is too large.
    pub fn bytes_for(storage: Storage, n: usize, k: usize) -> Option<usize> {
        storage.bytes(n.checked_next_multiple_of(LANES)?, k)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.held {
            Held::F32(panels) => 4 * panels.len(),
            Held::Stored(panels) => panels.len(),
            Held::Rows(rows) => 4 * rows.len(),
            Held::Shared(_) => 0,
        }
    }

    /// (n, k): outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// How the source stored it.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// `out[k]` = row i.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n, "row {i} of {}", self.n);
        assert_eq!(out.len(), self.k, "elements of a row");
        match &self.held {
            Held::F32(panels) => {
                let panel = &panels[i / LANES * self.k * LANES..][..self.k * LANES];
                for (y, lanes) in out.iter_mut().zip(panel.chunks_exact(LANES)) {
                    *y = lanes[i % LANES];
                }
            }
            Held::Stored(panels) => {
                let panel_bytes = self.panel_bytes();
                panel_row(self.storage, &panels[i / LANES * panel_bytes..][..panel_bytes], i % LANES, out);
            }
            Held::Rows(rows) => out.copy_from_slice(&rows[i * self.k..][..self.k]),
            Held::Shared(bytes) => {
                let row_bytes = self.row_bytes();
                dequantize_row(self.storage, &(**bytes).as_ref()[i * row_bytes..][..row_bytes], out);
            }
        }
    }

    /// Its panels, for the products and for whoever walks its rows sixteen at a time.
    pub(crate) fn source(&self) -> Source<'_> {
        match &self.held {
            Held::F32(panels) => Source::Panels { panels, k: self.k },
            Held::Stored(panels) => Source::Stored { w: self, panels },
            Held::Rows(rows) => Source::DenseTransposed { b: rows, k: self.k },
            Held::Shared(bytes) => Source::FileRows { w: self, rows: (**bytes).as_ref() },
        }
    }

    /// The panels as they are stored and the bytes of one; `None` where they are f32, or only rows.
    pub(crate) fn stored_panels(&self) -> Option<(&[u8], usize)> {
        match &self.held {
            Held::F32(_) | Held::Rows(_) | Held::Shared(_) => None,
            Held::Stored(panels) => Some((panels, self.panel_bytes())),
        }
    }

    /// Bytes of one panel of what is stored.
    fn panel_bytes(&self) -> usize {
        LANES * self.row_bytes()
    }

    fn row_bytes(&self) -> usize {
        self.storage.row_bytes(self.k).expect("whole blocks")
    }

    /// Rows n0 .. n0 + len of what is shared.
    fn shared_rows<'a>(&self, bytes: &'a SharedBytes, n0: usize, len: usize) -> &'a [u8] {
        &(**bytes).as_ref()[n0 * self.row_bytes()..][..len * self.row_bytes()]
    }
}

/// `len` zeros, where there is memory.
fn zeros<T: Copy + Default>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut v = Vec::new();
    v.try_reserve_exact(len)?;
    v.resize(len, T::default());
    Ok(v)
}

/// Elements of scratch that the products of this file need on `threads` threads for left operands of up to `max_m` rows
/// and `max_width` inner indices (inputs forward, outputs backward).
pub fn scratch_len(threads: usize, max_m: usize, max_width: usize) -> usize {
    packed_len(max_m, max_width) + threads.max(1) * PANELS_LEN
}

/// Elements of the packed left operand.
fn packed_len(m: usize, k: usize) -> usize {
    m.min(ROWS_MAX).next_multiple_of(PACK_ROWS) * k.div_ceil(BLOCK).min(PACK_BLOCKS) * BLOCK
}

/// `y[m,n]` = `x[m,k]` · wᵀ, or += where `accumulate`.
pub fn linear(level: Level, y: &mut [f32], x: &[f32], w: &Weight, m: usize, accumulate: bool, scratch: &mut [f32]) {
    linear_tile(level, y, x, w, m, 0, w.n, accumulate, scratch);
}

/// `y[m,len]` = `x[m,k]` · w[n0 .. n0 + len, :]ᵀ, or += where `accumulate`; `n0` is a multiple of 16.
pub fn linear_tile(
    level: Level,
    y: &mut [f32],
    x: &[f32],
    w: &Weight,
    m: usize,
    n0: usize,
    len: usize,
    accumulate: bool,
    scratch: &mut [f32],
) {
    assert!(n0.is_multiple_of(LANES) && n0 + len <= w.n, "outputs {n0} + {len} of {}", w.n);
    assert_eq!(x.len(), m * w.k, "elements of x: {m} rows of {}", w.k);
    let source = match &w.held {
        Held::F32(panels) => Source::Panels { panels: &panels[n0 * w.k..], k: w.k },
        Held::Stored(panels) => Source::Stored { w, panels: &panels[n0 / LANES * w.panel_bytes()..] },
        Held::Rows(rows) => Source::DenseTransposed { b: &rows[n0 * w.k..][..len * w.k], k: w.k },
        Held::Shared(bytes) => Source::FileRows { w, rows: w.shared_rows(bytes, n0, len) },
    };
    product(level, y, m, len, w.k, Operand::Rows(x), source, 1.0, accumulate, scratch);
}

/// `dx[m,k]` = `dy[m,n]` · w, or += where `accumulate`.
pub fn linear_backward(level: Level, dx: &mut [f32], dy: &[f32], w: &Weight, m: usize, accumulate: bool, scratch: &mut [f32]) {
    linear_backward_tile(level, dx, dy, w, m, 0, w.n, accumulate, scratch);
}

/// `dx[m,k]` = `p[m,len]` · w[n0 .. n0 + len, :], or += where `accumulate`; `n0` is a multiple of 16.
pub fn linear_backward_tile(
    level: Level,
    dx: &mut [f32],
    p: &[f32],
    w: &Weight,
    m: usize,
    n0: usize,
    len: usize,
    accumulate: bool,
    scratch: &mut [f32],
) {
    assert!(n0.is_multiple_of(LANES) && n0 + len <= w.n, "outputs {n0} + {len} of {}", w.n);
    assert_eq!(p.len(), m * len, "elements of p: {m} rows of {len}");
    let source = match &w.held {
        Held::F32(panels) => Source::PanelsTransposed { panels: &panels[n0 * w.k..], k: w.k },
        Held::Stored(panels) => Source::StoredTransposed { w, panels: &panels[n0 / LANES * w.panel_bytes()..] },
        Held::Rows(rows) => Source::Dense { b: &rows[n0 * w.k..][..len * w.k], n: w.k },
        Held::Shared(bytes) => Source::FileRowsTransposed { w, rows: w.shared_rows(bytes, n0, len) },
    };
    product(level, dx, m, w.k, len, Operand::Rows(p), source, 1.0, accumulate, scratch);
}

/// `c[m,n] = alpha · op(a)[m,k] · op(b)[k,n]`, or += where `accumulate`. `a` is stored `[k,m]` where `a_transposed`, `b` is
/// stored `[n,k]` where `b_transposed`. Made for small dense operands: adapters and their gradients.
pub fn matmul(
    level: Level,
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    a_transposed: bool,
    b_transposed: bool,
    alpha: f32,
    accumulate: bool,
    scratch: &mut [f32],
) {
    assert_eq!((a.len(), b.len()), (m * k, k * n), "elements of a and b: {m} x {k} and {k} x {n}");
    let operand = if a_transposed { Operand::Columns(a) } else { Operand::Rows(a) };
    let source = if b_transposed { Source::DenseTransposed { b, k } } else { Source::Dense { b, n } };
    product(level, c, m, n, k, operand, source, alpha, accumulate, scratch);
}

/// The left operand where it lies.
#[derive(Clone, Copy)]
enum Operand<'a> {
    /// `[m][k]`.
    Rows(&'a [f32]),
    /// `[k][m]`.
    Columns(&'a [f32]),
}

/// Where the panels of the right operand, [k, n], come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// They lie ready, `[n / 16][k][16]`.
    Panels { panels: &'a [f32], k: usize },
    /// The same in a weight's own storage.
    Stored { w: &'a Weight, panels: &'a [u8] },
    /// Inner index l is output l of panels `[k / 16][n][16]` (their `k` is this product's n).
    PanelsTransposed { panels: &'a [f32], k: usize },
    /// The same in a weight's own storage.
    StoredTransposed { w: &'a Weight, panels: &'a [u8] },
    /// Rows of a weight's own storage, `[n][k]`, one after the other.
    FileRows { w: &'a Weight, rows: &'a [u8] },
    /// The same where inner index l is row l.
    FileRowsTransposed { w: &'a Weight, rows: &'a [u8] },
    /// Dense `[k][n]`.
    Dense { b: &'a [f32], n: usize },
    /// Dense `[n][k]`.
    DenseTransposed { b: &'a [f32], k: usize },
}

impl<'a> Source<'a> {
    /// A panel of what is stored.
    fn stored_panel(self, w: &Weight, index: usize) -> &'a [u8] {
        match self {
            Source::Stored { panels, .. } | Source::StoredTransposed { panels, .. } => {
                &panels[index * w.panel_bytes()..][..w.panel_bytes()]
            }
            _ => unreachable!("only a stored weight has stored panels"),
        }
    }
}

/// `c[m,n]` (+)= alpha · a · b, the one walk behind all products.
fn product(
    level: Level,
    c: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
    a: Operand<'_>,
    b: Source<'_>,
    alpha: f32,
    accumulate: bool,
    scratch: &mut [f32],
) {
    assert_eq!(c.len(), m * n, "elements of the result: {m} x {n}");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    let threads = if m * n * k < ALONE { 1 } else { rayon::current_num_threads() };
    // Packing pays where every row meets many columns.
    let (enough, most) = match a {
        Operand::Rows(_) => (14, ROWS_MAX),
        // Scratch is laid out for the rows of passes; a gradient's rows are a weight's outputs, as many at a time as it holds.
        Operand::Columns(_) => {
            let room = scratch.len().saturating_sub(threads * PANELS_LEN) / (k.div_ceil(BLOCK).min(PACK_BLOCKS) * BLOCK);
            (64, ROWS_MAX.min(room / PACK_ROWS * PACK_ROWS))
        }
    };
    let pack = m > enough && n > 64 && k > 64 && most > 0;
    // Chunks of rows as even as can be.
    let chunk_rows = if pack { m.div_ceil(m.div_ceil(most)) } else { m };
    let packed_len = if pack { packed_len(chunk_rows, k) } else { 0 };
    assert!(scratch.len() >= packed_len + PANELS_LEN, "scratch of {} elements, {} needed", scratch.len(), packed_len + PANELS_LEN);
    let (packed, panels) = scratch.split_at_mut(packed_len);
    let threads = threads.min(panels.len() / PANELS_LEN);

    for (chunk, c) in c.chunks_mut(chunk_rows * n).enumerate() {
        let (row0, rows) = (chunk * chunk_rows, c.len() / n);
        let super_block = if pack { PACK_BLOCKS * BLOCK } else { k };
        for k0 in (0..k).step_by(super_block) {
            let len = super_block.min(k - k0);
            match a {
                _ if !pack => {}
                Operand::Rows(x) => pack_rows(packed, &x[row0 * k..][..rows * k], k, k0, len, threads),
                Operand::Columns(x) => pack_columns(packed, x, m, row0, rows, k0, len, threads),
            }
            let (row_step, col_step) = tile_steps(rows, n, threads);
            let tiles = Tiles::new(c, rows, n, row_step, col_step);
            let (tiles, packed) = (&tiles, &*packed);
            let work = |expanded: &mut [f32]| {
                while let Some(tile) = tiles.take() {
                    level.dispatch(Walk { tile, a, packed, pack, rows, k, k0, len, b, alpha, accumulate: accumulate || k0 > 0, expanded });
                }
            };
            if threads == 1 {
                work(&mut panels[..PANELS_LEN]);
            } else {
                panels[..threads * PANELS_LEN].par_chunks_exact_mut(PANELS_LEN).for_each(work);
            }
        }
    }
}

/// Rows and columns of a tile such that `threads` threads finish together and expand little twice.
fn tile_steps(rows: usize, n: usize, threads: usize) -> (usize, usize) {
    let panels = n.div_ceil(LANES);
    let (mut best, mut least) = ((rows, TILE_PANELS_MAX), f64::INFINITY);
    for row_splits in 1..=if rows < 32 { 1 } else { 4 * threads } {
        let row_step = rows.div_ceil(row_splits);
        for pairs in 1..=TILE_PANELS_MAX / 2 {
            let width = (2 * pairs).min(panels);
            let tiles = rows.div_ceil(row_step) * panels.div_ceil(width);
            // The longest thread's share: expanding a panel costs as much as about 16 rows.
            let cost = (tiles.div_ceil(threads) * (row_step + 16)) as f64 * (width as f64 + 0.5);
            if cost < least {
                (best, least) = ((row_step, width), cost);
            }
        }
    }
    (best.0, best.1 * LANES)
}

/// `packed[block]`[row][BLOCK] = columns k0 .. k0 + len of `x[rows, k]`.
fn pack_rows(packed: &mut [f32], x: &[f32], k: usize, k0: usize, len: usize, threads: usize) {
    let rows = x.len() / k;
    let groups = rows.div_ceil(PACK_ROWS);
    let pack = |(index, to): (usize, &mut [f32])| {
        let (block, group) = (index / groups, index % groups);
        let start = block * BLOCK;
        let width = BLOCK.min(len - start);
        let from = x[group * PACK_ROWS * k..].chunks_exact(k).take(PACK_ROWS);
        for (to, from) in to.chunks_exact_mut(BLOCK).zip(from) {
            to[..width].copy_from_slice(&from[k0 + start..][..width]);
        }
    };
    let packed = &mut packed[..len.div_ceil(BLOCK) * groups * PACK_ROWS * BLOCK];
    if threads == 1 || rows * len < ALONE {
        packed.chunks_exact_mut(PACK_ROWS * BLOCK).enumerate().for_each(pack);
    } else {
        packed.par_chunks_exact_mut(PACK_ROWS * BLOCK).enumerate().for_each(pack);
    }
}

/// The same of a transposed operand: `packed[block][row][BLOCK]` = inner indices k0 .. k0 + len of columns row0 .. row0 + rows
/// of `x[any, m]`.
fn pack_columns(packed: &mut [f32], x: &[f32], m: usize, row0: usize, rows: usize, k0: usize, len: usize, threads: usize) {
    let groups = rows.div_ceil(PACK_ROWS);
    let pack = |(index, to): (usize, &mut [f32])| {
        let (start, row) = (index / groups * BLOCK, index % groups * PACK_ROWS);
        let (width, height) = (BLOCK.min(len - start), PACK_ROWS.min(rows - row));
        // Squares of a cache line's length: what is read and what is written stay in the first-level cache.
        for l0 in (0..width).step_by(LANES) {
            for i0 in (0..height).step_by(LANES) {
                for l in l0..width.min(l0 + LANES) {
                    let from = &x[(k0 + start + l) * m + row0 + row + i0..][..LANES.min(height - i0)];
                    from.iter().enumerate().for_each(|(i, &x)| to[(i0 + i) * BLOCK + l] = x);
                }
            }
        }
    };
    let packed = &mut packed[..len.div_ceil(BLOCK) * groups * PACK_ROWS * BLOCK];
    if threads == 1 || rows * len < ALONE {
        packed.chunks_exact_mut(PACK_ROWS * BLOCK).enumerate().for_each(pack);
    } else {
        packed.par_chunks_exact_mut(PACK_ROWS * BLOCK).enumerate().for_each(pack);
    }
}

/// One tile of the result over some blocks of the inner dimension.
struct Walk<'a, 'c> {
    tile: Tile<'c>,
    a: Operand<'a>,
    packed: &'a [f32],
    pack: bool,
    /// Rows of the chunk.
    rows: usize,
    k: usize,
    k0: usize,
    len: usize,
    b: Source<'a>,
    alpha: f32,
    accumulate: bool,
    expanded: &'a mut [f32],
}

impl WithSimd for Walk<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (row, rows, col0, all) = (self.tile.row(), self.tile.rows(), self.tile.col(), self.tile.cols());
        if let (Operand::Rows(x), Source::Stored { w, panels }, 1..=4) = (self.a, self.b, rows) {
            let x = &x[row * self.k..][..rows * self.k];
            let panels = &panels[col0 / LANES * w.panel_bytes()..];
            return s.vectorize(Stream { tile: self.tile, x, w, panels, accumulate: self.accumulate });
        }
        // Few rows read each panel once, from end to end; many rows keep the tile's panels of one block in cache.
        let group = if rows > S::TILE_ROWS { all } else { 4 * LANES };
        for col in (0..all).step_by(group) {
            let cols = group.min(all - col);
            for start in (self.k0..self.k0 + self.len).step_by(BLOCK) {
                let inner = BLOCK.min(self.k0 + self.len - start);
                let a = match self.a {
                    _ if self.pack => {
                        let block = (start - self.k0) / BLOCK;
                        Left::Packed(&self.packed[(block * self.rows.next_multiple_of(PACK_ROWS) + row) * BLOCK..][..rows * BLOCK])
                    }
                    Operand::Rows(x) => Left::Rows(&x[row * self.k + start..], self.k),
                    Operand::Columns(x) => Left::Columns(&x[start * (x.len() / self.k) + row..], x.len() / self.k),
                };
                let accumulate = self.accumulate || start > 0;
                let whole = if let Source::Dense { b, n } = self.b {
                    // Whole panels where they are; what is left below goes through scratch, padded.
                    let whole = if col0 + col + cols == n { cols / LANES * LANES } else { cols };
                    if whole > 0 {
                        let b = Right { data: &b[start * n + col0 + col..], inner: n, panel: LANES };
                        microkernel::multiply(s, &mut self.tile, col, whole, inner, a, b, self.alpha, accumulate);
                    }
                    whole
                } else {
                    0
                };
                if whole < cols {
                    let (col, cols) = (col + whole, cols - whole);
                    let b = s.vectorize(Expand { b: self.b, col: col0 + col, cols, start, inner, to: &mut *self.expanded });
                    microkernel::multiply(s, &mut self.tile, col, cols, inner, a, b, self.alpha, accumulate);
                }
            }
        }
    }
}

/// A tile of a few rows against a weight in its own storage (generation): weights are decoded straight into the
/// sums, in the order of operations that [`microkernel`] has.
struct Stream<'a, 'c> {
    tile: Tile<'c>,
    /// `[rows of the tile][k]`.
    x: &'a [f32],
    w: &'a Weight,
    /// From the tile's first column on.
    panels: &'a [u8],
    accumulate: bool,
}

impl WithSimd for Stream<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_decode!(self.w.storage, self.w.k, decode => match self.tile.rows() {
            1 => self.rows::<S, _, 1>(s, decode),
            2 => self.rows::<S, _, 2>(s, decode),
            3 => self.rows::<S, _, 3>(s, decode),
            4 => self.rows::<S, _, 4>(s, decode),
            rows => unreachable!("{rows} rows to stream against"),
        })
    }
}

impl Stream<'_, '_> {
    #[inline(always)]
    fn rows<S: Simd, D: Decode, const ROWS: usize>(mut self, s: S, decode: D) {
        let (k, panel_bytes) = (self.w.k, self.w.panel_bytes());
        for start in (0..k).step_by(BLOCK) {
            let inner = BLOCK.min(k - start);
            let x: [&[f32]; ROWS] = std::array::from_fn(|i| &self.x[i * k + start..][..inner]);
            // Two panels at a time hide the latency of each other's additions.
            for col in (0..self.tile.cols()).step_by(2 * LANES) {
                let left = (self.tile.cols() - col).min(2 * LANES);
                let panel = |p: usize| &self.panels[(col / LANES + p) * panel_bytes..][..panel_bytes];
                let panels = [panel(0), panel(usize::from(left > LANES))];
                let mut sums = [[s.splat(0.0); ROWS]; 2];
                for l in (0..inner).step_by(LANES) {
                    for (panel, sums) in panels.iter().zip(&mut sums) {
                        decode.columns(s, panel, start + l, |i, v| {
                            for (sum, x) in sums.iter_mut().zip(&x) {
                                *sum = s.mul_add(s.splat(x[l + i]), v, *sum);
                            }
                        });
                    }
                }
                for row in 0..ROWS {
                    for (p, y) in self.tile.slice(row)[col..col + left].chunks_mut(LANES).enumerate() {
                        let sum = sums[p][row];
                        let sum = if self.accumulate || start > 0 { s.add(s.load_partial(y, 0.0), sum) } else { sum };
                        s.store_partial(y, sum);
                    }
                }
            }
        }
    }
}

/// Panels of columns col .. col + cols and inner indices start .. start + inner, ready or brought into `to`.
pub(crate) struct Expand<'a, 'e> {
    pub(crate) b: Source<'a>,
    pub(crate) col: usize,
    pub(crate) cols: usize,
    pub(crate) start: usize,
    pub(crate) inner: usize,
    pub(crate) to: &'e mut [f32],
}

impl<'a, 'e: 'a> WithSimd for Expand<'a, 'e> {
    type Output = Right<'a>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Right<'a> {
        let Expand { b, col, cols, start, inner, to } = self;
        let panels = cols.div_ceil(LANES);
        match b {
            Source::Panels { panels, k } => {
                return Right { data: &panels[(col / LANES * k + start) * LANES..], inner: LANES, panel: k * LANES };
            }
            Source::FileRows { w, rows } if w.storage.is_float() => {
                file_rows::panels(s, w, rows, Window { col, panels, start, inner }, to);
            }
            Source::FileRowsTransposed { w, rows } if w.storage.is_float() => {
                file_rows::transposed(s, w, rows, Window { col, panels, start, inner }, to);
            }
            // A decoder is compiled in once for what is held and what is shared.
            Source::Stored { w, .. } | Source::FileRows { w, .. } => {
                let mut side = [0; file_rows::SIDE_BYTES];
                with_decode!(w.storage, w.k, decode => {
                    for p in 0..panels {
                        let (from, first) = match b {
                            Source::FileRows { rows, .. } => {
                                file_rows::interleave(w, rows, col + p * LANES, start, inner, &mut side)
                            }
                            _ => (b.stored_panel(w, col / LANES + p), 0),
                        };
                        let to = &mut to[p * BLOCK * LANES..][..inner * LANES];
                        for (l, to) in (start - first..start - first + inner).step_by(LANES).zip(to.chunks_mut(LANES * LANES)) {
                            decode.columns(s, from, l, |i, v| s.store(&mut to[i * LANES..], v));
                        }
                    }
                });
            }
            Source::StoredTransposed { w, .. } | Source::FileRowsTransposed { w, .. } => {
                let mut side = [0; file_rows::SIDE_BYTES];
                with_decode!(w.storage, w.k, decode => {
                    for l in (0..inner).step_by(LANES) {
                        let (from, first) = match b {
                            Source::FileRowsTransposed { rows, .. } => {
                                file_rows::interleave(w, rows, start + l, col, (panels * LANES).min(w.k - col), &mut side)
                            }
                            _ => (b.stored_panel(w, (start + l) / LANES), 0),
                        };
                        for p in 0..panels {
                            let mut square = [s.splat(0.0); LANES];
                            decode.columns(s, from, col + p * LANES - first, |i, v| square[i] = v);
                            store_square(s, &mut to[(p * BLOCK + l) * LANES..], s.transpose(square));
                        }
                    }
                });
            }
            Source::PanelsTransposed { panels: from, k } => {
                for p in 0..panels {
                    let lanes = LANES.min(k - (col + p * LANES));
                    for l in (0..inner).step_by(LANES) {
                        let from = &from[((start + l) / LANES * k + col + p * LANES) * LANES..][..lanes * LANES];
                        let mut square = [s.splat(0.0); LANES];
                        for (v, from) in square.iter_mut().zip(from.chunks_exact(LANES)) {
                            *v = s.load(from);
                        }
                        store_square(s, &mut to[(p * BLOCK + l) * LANES..], s.transpose(square));
                    }
                }
            }
            Source::Dense { b, n } => {
                for l in 0..inner {
                    for p in 0..panels {
                        let from = &b[(start + l) * n + col + p * LANES..][..LANES.min(cols - p * LANES)];
                        s.store(&mut to[(p * BLOCK + l) * LANES..], s.load_partial(from, 0.0));
                    }
                }
            }
            Source::DenseTransposed { b, k } => {
                for p in 0..panels {
                    let rows = LANES.min(cols - p * LANES);
                    let from = &b[(col + p * LANES) * k..][..rows * k];
                    for l in (0..inner).step_by(LANES) {
                        let mut square = [s.splat(0.0); LANES];
                        for (v, from) in square.iter_mut().zip(from.chunks_exact(k)) {
                            *v = s.load_partial(&from[start + l..], 0.0);
                        }
                        store_square(s, &mut to[(p * BLOCK + l) * LANES..], s.transpose(square));
                    }
                }
            }
        }
        Right { data: to, inner: LANES, panel: BLOCK * LANES }
    }
}

/// Panels from column `col` on, of inner indices start .. start + inner.
#[derive(Clone, Copy)]
struct Window {
    col: usize,
    panels: usize,
    start: usize,
    inner: usize,
}

/// `to[16]`[16] = the rows of a square.
#[inline(always)]
fn store_square<S: Simd>(s: S, to: &mut [f32], square: [S::F; LANES]) {
    for (v, to) in square.into_iter().zip(to[..LANES * LANES].chunks_exact_mut(LANES)) {
        s.store(to, v);
    }
}
