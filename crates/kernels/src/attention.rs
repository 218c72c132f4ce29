//! Softmax attention over chains of runs, forward and backward.
//!
//! For a query at chain position `p` (Vaswani et al. 2017; online softmax of Milakov & Gimelshein 2018, tiled
//! as in FlashAttention, Dao et al. 2022):
//!
//! ```text
//! s_j = scale · q·k_j          over the positions j it sees: p - window < j <= p
//! lse = ln Σ_j exp(s_j)        p_j = exp(s_j - lse)        out = Σ_j p_j v_j
//!
//! delta = dout·out             ds_j = p_j (dout·v_j - delta) scale
//! dq = Σ_j ds_j k_j            dk_j += Σ ds_j q            dv_j += Σ p_j dout
//! ```
//!
//! Under a soft cap (Gemma 2) the scores are `s_j = cap · tanh(scale · q·k_j / cap)`, and `ds_j` has the factor `1 - (s_j / cap)²`.
//!
//! What a query gets is a function of the keys and values along its chain alone, bit for bit: positions are
//! counted along the chain, tiles of [`TILE`] positions start at position 0, a score is summed over `d` in order, the
//! softmax is rescaled at tile borders in order, values are added in order of position, and what a query does
//! not see takes part with weight 0, which changes nothing. How the chain is cut into spans, which rows are computed
//! together and by how many threads is free; training, prefill and decoding agree. (Keys and values must be finite.)
//!
//! Each call makes lists of its tasks, a few dozen bytes per row; all else lies in the scratch.
//!
//! The backward works through the queries in chunks that fit the scratch: first `p`, `ds` and `dq` of the
//! chunk, in parallel over queries; then `dk` and `dv`, in parallel over keys, each summing over its
//! readers in the order of the table.

use crate::cache::{KvType, expand};
use crate::elementwise::{cap_slope, capped, load, store};
use crate::math;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Where queries stand and which keys they read: the index table of attention.
///
/// Run `i` has query rows `runs[i].rows` and reads the key spans `spans[runs[i].spans]`, root first. The
/// last span is its own: it ends with the run's own rows (key of the last query row is the span's last
/// key) and is read causally; the spans before it are read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunTable {
    /// Runs in batch order; their rows tile the query rows.
    pub runs: Vec<Run>,
    /// Spans of key rows.
    pub spans: Vec<Range<usize>>,
}

/// See [`RunTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Query rows.
    pub rows: Range<usize>,
    /// Indices into `RunTable::spans`, root first, own span last.
    pub spans: Range<usize>,
}

impl RunTable {
    /// Keys in the chain of a run.
    fn chain(&self, run: &Run) -> usize {
        self.spans[run.spans.clone()].iter().map(Range::len).sum()
    }

    /// Keys in the longest chain: what [`scratch_len`] asks for.
    pub fn longest_chain(&self) -> usize {
        self.runs.iter().map(|run| self.chain(run)).max().unwrap_or(0)
    }
}

/// Sizes of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`: query head `h` reads key/value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// A query sees the last `window` keys of its chain, itself included; `None`: all.
    pub window: Option<usize>,
    /// Factor on q·k before the softmax.
    pub scale: f32,
    /// Scores are brought within ± this.
    pub softcap: Option<f32>,
    /// How keys and values are held; the backward reads f32 alone.
    pub kv: KvType,
}

impl Shape {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// `head_dim` rounded up to whole vectors.
    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// The first chain position that a query at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window.unwrap_or(usize::MAX))
    }

    /// The factor that is still on the scores once [`Capped`] has been over them.
    fn scale_left(&self) -> f32 {
        if self.softcap.is_some() { 1.0 } else { self.scale }
    }

    fn check(&self) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "{self:?}");
        assert!((1..=MAX_HEAD_DIM).contains(&self.head_dim), "{self:?}: heads of 1 to {MAX_HEAD_DIM}");
        assert!(self.group() <= MAX_GROUP, "{self:?}: one key head is read by {MAX_GROUP} at most");
        assert!(self.group() * self.padded() <= BLOCK, "{self:?}: the queries of one key head are {BLOCK} elements at most");
        assert!(self.window != Some(0), "{self:?}: a query sees itself");
        assert!(self.scale > 0.0, "{self:?}: a positive scale");
        assert!(self.softcap.is_none_or(|cap| cap > 0.0), "{self:?}: a positive cap");
    }
}

/// Positions of a tile of keys.
pub const TILE: usize = 64;
/// Largest head.
pub const MAX_HEAD_DIM: usize = 256;
/// Most query heads that read one key head.
pub const MAX_GROUP: usize = 128;
/// Query elements that one task works on (of one key head).
const BLOCK: usize = 1 << 14;
/// Query rows that go through the inner loops together.
const STRIP: usize = 4;
/// Elements of `p`, `ds`, queries and `dout` that a chunk of the backward keeps for every worker.
const CHUNK: usize = 1 << 19;
/// Below every score, and finite, so that differences are no NaN.
const LOWEST: f32 = f32::MIN;

/// Scratch of one worker: transposed queries twice, results, a tile in three forms, and per row 16 sums, a
/// maximum and a difference.
const WORKER: usize = 2 * (BLOCK + LANES * MAX_HEAD_DIM) + BLOCK + 3 * TILE * MAX_HEAD_DIM + (LANES + 2) * (BLOCK / LANES);

/// Elements of scratch for chains of up to `chain` keys on `threads` threads.
pub fn scratch_len(threads: usize, chain: usize) -> usize {
    threads * WORKER + (threads * CHUNK).max(2 * MAX_GROUP * (chain + TILE + LANES + MAX_HEAD_DIM))
}

/// Consecutive query rows of a run that are worked on together.
#[derive(Clone, Debug)]
struct Block {
    run: usize,
    /// Query rows.
    rows: Range<usize>,
    /// Chain position of the first of them.
    position: usize,
}

impl Block {
    /// Chain positions that its rows see, from a tile's border.
    fn seen(&self, shape: &Shape) -> Range<usize> {
        shape.first_seen(self.position) / TILE * TILE..self.position + self.rows.len()
    }
}

/// Cuts the runs into blocks of at most `positions(chain length)` rows.
fn blocks(table: &RunTable, rows: usize, positions: impl Fn(usize) -> usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut next = 0;
    for (index, run) in table.runs.iter().enumerate() {
        assert_eq!(run.rows.start, next, "runs tile the rows");
        next = run.rows.end;
        let chain = table.chain(run);
        let own = table.spans[run.spans.clone()].last().map_or(0, Range::len);
        assert!(run.rows.len() <= own, "run {index}: its last span has {own} keys, but it has {} rows", run.rows.len());
        let first = chain - run.rows.len();
        let step = positions(chain);
        for start in run.rows.clone().step_by(step) {
            let rows = start..(start + step).min(run.rows.end);
            blocks.push(Block { run: index, position: first + start - run.rows.start, rows });
        }
    }
    assert_eq!(next, rows, "runs tile the rows");
    blocks
}

/// Splits rows of `shape.kv_heads * len` elements among the key heads: `views[g]` has one slice per row.
fn by_head<'a>(rows: &'a mut [f32], kv_heads: usize, len: usize) -> impl Iterator<Item = Vec<&'a mut [f32]>> {
    let mut views: Vec<Vec<&'a mut [f32]>> = (0..kv_heads).map(|_| Vec::with_capacity(rows.len() / (kv_heads * len))).collect();
    for (i, view) in rows.chunks_exact_mut(len).enumerate() {
        views[i % kv_heads].push(view);
    }
    views.into_iter()
}

/// Hands `tasks` out to workers that have a piece of `scratch` each, first come first served.
fn each<T: Send>(scratch: &mut [f32], tasks: impl Iterator<Item = T> + Send, work: impl Fn(&mut [f32], T) + Sync) {
    let tasks = Mutex::new(tasks);
    scratch.par_chunks_exact_mut(WORKER).with_max_len(1).for_each(|scratch| {
        loop {
            let task = tasks.lock().expect("no worker has panicked").next();
            let Some(task) = task else { return };
            work(scratch, task);
        }
    });
}

/// The inputs of a task, all of them read only.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    table: &'a RunTable,
    shape: Shape,
}

impl Inputs<'_> {
    fn check(&self) -> usize {
        self.shape.check();
        let Shape { heads, kv_heads, head_dim: d, kv, .. } = self.shape;
        let rows = self.q.len() / (heads * d);
        assert_eq!(self.q.len(), rows * heads * d);
        assert_eq!(self.k.len(), self.v.len());
        assert_eq!(self.k.len() % kv.row_len(kv_heads, d), 0);
        let keys = self.k.len() / kv.row_len(kv_heads, d);
        assert!(self.table.spans.iter().all(|span| span.end <= keys), "a span beyond {keys} keys");
        rows
    }

    /// Where in `k` and `v` the keys of positions `from..from + TILE` (below `end`) lie.
    #[inline(always)]
    fn tile_keys(&self, run: usize, g: usize, from: usize, end: usize) -> TileKeys {
        let Shape { kv_heads, head_dim, kv, .. } = self.shape;
        let head_len = kv.head_len(head_dim);
        let mut keys = TileKeys { offsets: [0; TILE], count: end.min(from + TILE) - from, one_span: false };
        let end = from + keys.count;
        let mut start = 0; // position of the span's first key
        for span in &self.table.spans[self.table.runs[run].spans.clone()] {
            let positions = start.max(from)..(start + span.len()).min(end);
            keys.one_span |= positions == (from..end);
            for position in positions {
                keys.offsets[position - from] = ((span.start + position - start) * kv_heads + g) * head_len;
            }
            start += span.len();
        }
        keys
    }

    /// Where in `q` (or `dout`, `out`) row `r` of a block's key head lies.
    #[inline(always)]
    fn query_offset(&self, block: &Block, g: usize, r: usize) -> usize {
        let Shape { heads, head_dim: d, .. } = self.shape;
        let group = self.shape.group();
        ((block.rows.start + r / group) * heads + g * group + r % group) * d
    }
}

/// The key rows of a tile.
struct TileKeys {
    /// Of the first element of each.
    offsets: [usize; TILE],
    count: usize,
    /// They follow each other in memory.
    one_span: bool,
}

impl TileKeys {
    fn offsets(&self) -> &[usize] {
        &self.offsets[..self.count]
    }
}

// ---- packing ----------------------------------------------------------------------------------

/// Rows of `d` elements as columns: `out[j * stride + i] = x[offsets[i] + j]`, 16 of them at a time, the missing
/// ones zero. Compiled by itself: within a larger function it is short of registers.
struct PackColumns<'a> {
    out: &'a mut [f32],
    stride: usize,
    x: &'a [f32],
    offsets: &'a [usize],
    d: usize,
}

impl WithSimd for PackColumns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PackColumns { out, stride, x, offsets, d } = self;
        for (group, offsets) in offsets.chunks(LANES).enumerate() {
            let out = &mut out[group * LANES..];
            for from in (0..d).step_by(LANES) {
                let width = (d - from).min(LANES);
                let mut rows = [s.splat(0.0); LANES];
                if let (LANES, Ok(offsets)) = (width, <&[usize; LANES]>::try_from(offsets)) {
                    for i in 0..LANES {
                        rows[i] = s.load(&x[offsets[i] + from..]);
                    }
                } else {
                    for (row, &at) in rows.iter_mut().zip(offsets) {
                        *row = load(s, &x[at + from..][..width]);
                    }
                }
                let columns = s.transpose(rows);
                if width == LANES {
                    let out = &mut out[from * stride..][..(LANES - 1) * stride + LANES];
                    for j in 0..LANES {
                        s.store(&mut out[j * stride..], columns[j]);
                    }
                } else {
                    for j in 0..width {
                        s.store(&mut out[(from + j) * stride..], columns[j]);
                    }
                }
            }
        }
    }
}

/// The keys as rows for `readers` queries, and how far they are apart: packed into `room`, where many read them; else
/// where they lie, if they follow each other and are whole vectors.
#[inline(always)]
fn key_rows<'a, S: Simd>(s: S, room: &'a mut [f32], x: &'a [f32], keys: &TileKeys, shape: &Shape, readers: usize) -> (&'a [f32], usize) {
    let (d, stride) = (shape.head_dim, shape.padded());
    if readers <= 2 * LANES && keys.one_span && d == stride {
        return (&x[keys.offsets[0]..], shape.kv_heads * d);
    }
    for (row, &at) in room.chunks_exact_mut(stride).zip(keys.offsets()) {
        pack_row(s, row, &x[at..][..d]);
    }
    (room, stride)
}

/// The rows of a tile of a cache, one after the other in `room`, each padded with zeros to whole vectors; what is f32
/// already stays where it is. Compiled by itself, as the inner loops are.
struct Expand<'a> {
    room: &'a mut [f32],
    x: &'a [f32],
    keys: &'a TileKeys,
    shape: &'a Shape,
}

impl WithSimd for Expand<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head_len = self.shape.kv.head_len(self.shape.head_dim);
        for (row, &at) in self.room.chunks_exact_mut(self.shape.padded()).zip(self.keys.offsets()) {
            expand(s, &self.x[at..][..head_len], self.shape.kv, row);
        }
    }
}

/// One row of `d` elements padded with zeros to `out`'s length.
#[inline(always)]
fn pack_row<S: Simd>(s: S, out: &mut [f32], x: &[f32]) {
    for (out, x) in out.chunks_exact_mut(LANES).zip(x.chunks(LANES)) {
        s.store(out, load(s, x));
    }
}

/// `rows` rows of `d` elements, `stride` apart, as columns, 16 at a time: `out[r / 16][j][r % 16]`.
#[inline(always)]
fn pack_queries<S: Simd>(s: S, out: &mut [f32], x: &[f32], rows: usize, d: usize, stride: usize) {
    for first in (0..rows).step_by(LANES) {
        let offsets: [usize; LANES] = std::array::from_fn(|i| (first + i) * stride);
        let offsets = &offsets[..(rows - first).min(LANES)];
        s.vectorize(PackColumns { out: &mut out[first * d..][..LANES * d], stride: LANES, x, offsets, d });
    }
}

// ---- inner loops ------------------------------------------------------------------------------

/// e^x for x <= 0, to 2 ulp; 0 below -87, NaN stays NaN. [`math::exp`] without what weights have no use for.
#[inline(always)]
fn weight<S: Simd>(s: S, x: S::F) -> S::F {
    let lowest = s.splat(-87.0);
    let clamped = s.max(lowest, x); // x where it is NaN
    // x = n ln 2 + r with |r| <= ln 2 / 2; e^r by Cephes' polynomial (Moshier 1992).
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.neg_mul_add(n, s.splat(0.693_359_4), clamped);
    let r = s.neg_mul_add(n, s.splat(-2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = s.mul_add(p, r, s.splat(c));
    }
    let p = s.add(s.mul_add(s.mul(r, r), p, r), s.splat(1.0));
    let power = s.from_bits(s.shl_i(s.add_i(s.to_i(n), s.splat_i(127)), 23));
    s.select(s.lt(x, lowest), s.splat(0.0), s.mul(p, power))
}

/// An inner loop for `R` rows and `C` vectors at a time, both known when it is compiled.
trait Inner {
    fn run<S: Simd, const R: usize, const C: usize>(self, s: S);
}

struct Sized<K, const R: usize, const C: usize>(K);

impl<K: Inner, const R: usize, const C: usize> WithSimd for Sized<K, R, C> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run::<S, R, C>(s);
    }
}

/// Vectors that an inner loop keeps per row: what the registers of the level hold for [`STRIP`] rows.
const fn vectors<S: Simd>() -> usize {
    match S::LEVEL {
        Level::Avx512 => 4,
        _ => 1,
    }
}

/// Runs `inner` at its sizes: 1 to [`STRIP`] rows, 1 to [`vectors`] vectors.
#[inline(always)]
fn sized<S: Simd, K: Inner>(s: S, inner: K, rows: usize, columns: usize) {
    macro_rules! rows {
        ($columns:literal) => {
            match rows {
                1 => s.vectorize(Sized::<K, 1, $columns>(inner)),
                2 => s.vectorize(Sized::<K, 2, $columns>(inner)),
                3 => s.vectorize(Sized::<K, 3, $columns>(inner)),
                _ => s.vectorize(Sized::<K, STRIP, $columns>(inner)),
            }
        };
    }
    debug_assert!((1..=STRIP).contains(&rows));
    if vectors::<S>() == 1 {
        return rows!(1);
    }
    match columns {
        1 => rows!(1),
        2 => rows!(2),
        3 => rows!(3),
        _ => rows!(4),
    }
}

/// Rows of a tile of scores, or of weights.
type Strip = [[f32; TILE]; STRIP];

/// `out[r][first..] = Σ_j queries[j][r] keys[j][first..]`, j in order; `keys` is `[d, TILE]`.
struct Dots<'a> {
    out: &'a mut Strip,
    /// `[d, 16]`, the strip's rows from `offset`.
    queries: &'a [f32],
    offset: usize,
    keys: &'a [f32],
    /// First element of the tile's rows.
    first: usize,
}

impl Inner for Dots<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const C: usize>(self, s: S) {
        let mut sums = [[s.splat(0.0); C]; R];
        for (q, k) in self.queries.chunks_exact(LANES).zip(self.keys.chunks_exact(TILE)) {
            let q = &q[self.offset..][..R];
            let k = &k[self.first..][..C * LANES];
            let mut key = [s.splat(0.0); C];
            for c in 0..C {
                key[c] = s.load(&k[c * LANES..]);
            }
            for r in 0..R {
                let q = s.splat(q[r]);
                for c in 0..C {
                    sums[r][c] = s.mul_add(q, key[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let out = &mut self.out[r][self.first..][..C * LANES];
            for c in 0..C {
                s.store(&mut out[c * LANES..], sums[r][c]);
            }
        }
    }
}

/// `out[r] = factors[r] out[r] + Σ_key weights[r][key] values[key]`, keys in order; one column of `C` vectors.
struct Mix<'a> {
    /// From the strip's first row and the column's first element; rows are `stride` apart.
    out: &'a mut [f32],
    stride: usize,
    factors: [f32; STRIP],
    weights: &'a Strip,
    keys: Range<usize>,
    /// From the tile's first key and the column's first element; keys are `apart` from each other.
    values: &'a [f32],
    apart: usize,
}

impl Inner for Mix<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const C: usize>(self, s: S) {
        let mut sums = [[s.splat(0.0); C]; R];
        for r in 0..R {
            let out = &self.out[r * self.stride..][..C * LANES];
            let factor = s.splat(self.factors[r]);
            for c in 0..C {
                sums[r][c] = s.mul(s.load(&out[c * LANES..]), factor);
            }
        }
        for (key, values) in self.keys.clone().zip(self.values[self.keys.start * self.apart..].chunks(self.apart)) {
            let values = &values[..C * LANES];
            let mut value = [s.splat(0.0); C];
            for c in 0..C {
                value[c] = s.load(&values[c * LANES..]);
            }
            for r in 0..R {
                let weight = s.splat(self.weights[r][key]);
                for c in 0..C {
                    sums[r][c] = s.mul_add(weight, value[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let out = &mut self.out[r * self.stride..][..C * LANES];
            for c in 0..C {
                s.store(&mut out[c * LANES..], sums[r][c]);
            }
        }
    }
}

/// `out[r] += Σ_row weights[row][r] values[row]`, rows in order; the columns from `column` on, `C` vectors of them.
struct Gather<'a, 'b> {
    /// `R` rows, the last vector of which may be short.
    out: &'a mut [&'b mut [f32]],
    column: usize,
    /// Rows of 16, from the first of the `R` weights.
    weights: &'a [f32],
    /// Rows `stride` apart, from `column`.
    values: &'a [f32],
    stride: usize,
    rows: usize,
}

impl Inner for Gather<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const C: usize>(self, s: S) {
        let out = &mut self.out[..R];
        let mut sums = [[s.splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = load(s, &out[r][self.column + c * LANES..]);
            }
        }
        let rows = self.weights.chunks(LANES).zip(self.values.chunks(self.stride));
        for (weights, values) in rows.take(self.rows) {
            let weights = &weights[..R];
            let values = &values[..C * LANES];
            let mut value = [s.splat(0.0); C];
            for c in 0..C {
                value[c] = s.load(&values[c * LANES..]);
            }
            for r in 0..R {
                let weight = s.splat(weights[r]);
                for c in 0..C {
                    sums[r][c] = s.mul_add(weight, value[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                store(s, &mut out[r][self.column + c * LANES..], sums[r][c]);
            }
        }
    }
}

/// The part of a tile that some of a strip's rows see.
#[derive(Clone, Copy)]
struct Sight {
    rows: usize,
    /// The keys that some row sees, counted from the tile's first.
    keys: (usize, usize),
    /// The same in whole vectors, as elements.
    vectors: (usize, usize),
    /// Every row sees all of these vectors.
    whole: bool,
}

impl Sight {
    /// What rows `from..from + STRIP` of a block see of the tile at `tile`; `None` if nothing.
    #[inline(always)]
    fn new(shape: &Shape, block: &Block, from: usize, tile: usize) -> Option<Sight> {
        let group = shape.group() as u32;
        let rows = (block.rows.len() * shape.group() - from).min(STRIP);
        let position = |row: usize| block.position + (row as u32 / group) as usize;
        let (top, bottom) = (position(from), position(from + rows - 1));
        let first = shape.first_seen(top).saturating_sub(tile);
        let end = (bottom + 1).saturating_sub(tile).min(TILE);
        let vectors = (first / LANES * LANES, end.next_multiple_of(LANES));
        let whole = tile + vectors.1 <= top + 1 && shape.first_seen(bottom) <= tile + vectors.0;
        (first < end).then_some(Sight { rows, keys: (first, end), vectors, whole })
    }

    /// Gives what the strip's rows, the first of which is row `row` of the block, do not see of this tile the score -inf.
    #[inline(always)]
    fn hide(&self, scores: &mut Strip, shape: &Shape, block: &Block, row: usize, tile: usize) {
        if self.whole {
            return;
        }
        let (from, to) = self.vectors;
        for r in 0..self.rows {
            let position = block.position + (row + r) / shape.group();
            let end = (position + 1).saturating_sub(tile).clamp(from, to);
            let first = shape.first_seen(position).saturating_sub(tile).clamp(from, end);
            scores[r][from..first].fill(f32::NEG_INFINITY);
            scores[r][end..to].fill(f32::NEG_INFINITY);
        }
    }
}

/// `Dots` over the vectors in sight.
#[inline(always)]
fn dots<S: Simd>(s: S, out: &mut Strip, queries: &[f32], row: usize, keys: &[f32], d: usize, sight: Sight) {
    let queries = &queries[row / LANES * LANES * d..][..LANES * d];
    let keys = &keys[..TILE * d];
    let mut first = sight.vectors.0;
    while first < sight.vectors.1 {
        let columns = ((sight.vectors.1 - first) / LANES).min(vectors::<S>());
        sized(s, Dots { out, queries, offset: row % LANES, keys, first }, sight.rows, columns);
        first += columns * LANES;
    }
}

/// Turns dot products into capped scores, in place; nothing where there is no cap.
#[inline(always)]
fn cap<S: Simd>(s: S, scores: &mut Strip, shape: &Shape, sight: Sight) {
    if let Some(cap) = shape.softcap {
        s.vectorize(Capped { scores, cap, factor: shape.scale / cap, sight });
    }
}

/// See [`cap`]. Compiled by itself, as the inner loops are.
struct Capped<'a> {
    scores: &'a mut Strip,
    cap: f32,
    factor: f32,
    sight: Sight,
}

impl WithSimd for Capped<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, to) = self.sight.vectors;
        for row in &mut self.scores[..self.sight.rows] {
            for x in row[from..to].chunks_exact_mut(LANES) {
                let score = capped(s, s.load(x), self.factor, self.cap);
                s.store(x, score);
            }
        }
    }
}

/// `Mix` over all columns.
#[inline(always)]
fn mix<S: Simd>(s: S, out: &mut [f32], factors: [f32; STRIP], weights: &Strip, values: &[f32], apart: usize, stride: usize, sight: Sight) {
    let mut column = 0;
    while column < stride {
        let columns = ((stride - column) / LANES).min(vectors::<S>());
        let (out, values) = (&mut out[column..], &values[column..]);
        sized(s, Mix { out, stride, factors, weights, keys: sight.keys.0..sight.keys.1, values, apart }, sight.rows, columns);
        column += columns * LANES;
    }
}

/// `Gather` over all columns.
#[inline(always)]
fn gather<S: Simd>(s: S, out: &mut [&mut [f32]], weights: &[f32], values: &[f32], stride: usize, rows: usize) {
    let mut column = 0;
    while column < stride {
        let columns = ((stride - column) / LANES).min(vectors::<S>());
        let keys = out.len();
        sized(s, Gather { out: &mut *out, column, weights, values: &values[column..], stride, rows }, keys, columns);
        column += columns * LANES;
    }
}

// ---- forward ----------------------------------------------------------------------------------

/// `out = softmax(scale · q kᵀ) v` over each run's chain; saves `lse`, the logarithm of the softmax's denominator.
///
/// # Shapes
/// `out`, `q`: `[m, heads, d]`, `lse`: `[m, heads]`, `k`, `v`: `[any, kv_heads, d]` as `shape.kv` holds them; `scratch`: at least
/// [`scratch_len`] for one thread (every thread's worth lets one more thread work).
pub fn attention(
    level: Level,
    out: &mut [f32],
    lse: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    table: &RunTable,
    shape: Shape,
    scratch: &mut [f32],
) {
    let inputs = Inputs { q, k, v, table, shape };
    let rows = inputs.check();
    let Shape { heads, kv_heads, head_dim: d, .. } = shape;
    let group = shape.group();
    assert_eq!(out.len(), q.len());
    assert_eq!(lse.len(), rows * heads);
    let blocks = blocks(table, rows, |_| (BLOCK / (group * shape.padded())).max(1));
    let (mut out, mut lse) = (out, lse);
    let mut tasks = Vec::with_capacity(blocks.len() * kv_heads);
    for block in &blocks {
        let (block_out, block_lse);
        (block_out, out) = out.split_at_mut(block.rows.len() * heads * d);
        (block_lse, lse) = lse.split_at_mut(block.rows.len() * heads);
        let views = by_head(block_out, kv_heads, group * d).zip(by_head(block_lse, kv_heads, group));
        tasks.extend(views.enumerate().map(|(g, (out, lse))| (block, g, out, lse)));
    }
    // The last blocks of a run have most to read: they go first.
    each(workers(scratch, tasks.len()), tasks.into_iter().rev(), |scratch, (block, g, out, lse)| {
        level.dispatch(Forward { inputs, block, g, out, lse, scratch });
    });
}

/// The scratch of as many workers as there are threads, tasks and room for.
fn workers(scratch: &mut [f32], tasks: usize) -> &mut [f32] {
    let workers = (scratch.len() / WORKER).min(rayon::current_num_threads()).min(tasks.max(1));
    assert!(workers > 0, "scratch of {} for one worker's {WORKER}", scratch.len());
    &mut scratch[..workers * WORKER]
}

struct Forward<'a> {
    inputs: Inputs<'a>,
    block: &'a Block,
    g: usize,
    /// One slice of `group * d` per row.
    out: Vec<&'a mut [f32]>,
    lse: Vec<&'a mut [f32]>,
    scratch: &'a mut [f32],
}

/// Takes the first `len` elements off `scratch`.
fn take<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (taken, rest) = std::mem::take(scratch).split_at_mut(len);
    *scratch = rest;
    taken
}

impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { inputs, block, g, mut out, mut lse, mut scratch } = self;
        let shape = &inputs.shape;
        let (d, stride, group) = (shape.head_dim, shape.padded(), shape.group());
        let rows = block.rows.len() * group;
        let queries = take(&mut scratch, rows.next_multiple_of(LANES) * d);
        let keys = take(&mut scratch, TILE * d);
        let values = take(&mut scratch, TILE * stride);
        let wide = take(&mut scratch, TILE * stride);
        let result = take(&mut scratch, rows * stride);
        let sums = take(&mut scratch, rows * LANES);
        let tops = take(&mut scratch, rows);
        let wide_offsets: [usize; TILE] = std::array::from_fn(|i| i * stride);
        // Rows first lie together, then become columns: far reads follow each other closely.
        for (r, row) in result.chunks_exact_mut(stride).enumerate() {
            pack_row(s, row, &inputs.q[inputs.query_offset(block, g, r)..][..d]);
        }
        pack_queries(s, queries, result, rows, d, stride);
        result.fill(0.0);
        sums.fill(0.0);
        tops.fill(LOWEST);

        let seen = block.seen(shape);
        let mut strip: Strip = [[0.0; TILE]; STRIP];
        for tile in seen.clone().step_by(TILE) {
            let tile_keys = inputs.tile_keys(block.run, g, tile, seen.end);
            let (values, apart) = if shape.kv == KvType::F32 {
                s.vectorize(PackColumns { out: &mut *keys, stride: TILE, x: inputs.k, offsets: tile_keys.offsets(), d });
                key_rows(s, values, inputs.v, &tile_keys, shape, rows)
            } else {
                s.vectorize(Expand { room: &mut *wide, x: inputs.k, keys: &tile_keys, shape });
                let offsets = &wide_offsets[..tile_keys.count];
                s.vectorize(PackColumns { out: &mut *keys, stride: TILE, x: &*wide, offsets, d });
                s.vectorize(Expand { room: &mut *values, x: inputs.v, keys: &tile_keys, shape });
                (&*values, stride)
            };
            for row in (0..rows).step_by(STRIP) {
                let Some(sight) = Sight::new(shape, block, row, tile) else { continue };
                dots(s, &mut strip, queries, row, keys, d, sight);
                cap(s, &mut strip, shape, sight);
                let (tops, sums) = (&mut tops[row..][..sight.rows], &mut sums[row * LANES..][..sight.rows * LANES]);
                sight.hide(&mut strip, shape, block, row, tile);
                let mut factors = [0.0; STRIP];
                let (from, to) = sight.vectors;
                let soften = Soften { strip: &mut strip, tops, sums, factors: &mut factors, scale: shape.scale_left(), from, to };
                sized(s, soften, sight.rows, (to - from) / LANES);
                mix(s, &mut result[row * stride..], factors, &strip, values, apart, stride, sight);
            }
        }

        for (first, sums) in (0..rows).step_by(LANES).zip(sums.chunks(LANES * LANES)) {
            let mut totals = [1.0; LANES];
            for (total, sums) in totals.iter_mut().zip(sums.chunks_exact(LANES)) {
                *total = s.reduce_add(s.load(sums));
            }
            let logs = s.to_array(math::ln(s, s.load(&totals)));
            let inverses = s.to_array(s.div(s.splat(1.0), s.load(&totals)));
            for r in first..(first + LANES).min(rows) {
                let head = r % group;
                lse[r / group][head] = tops[r] + logs[r - first];
                let inverse = s.splat(inverses[r - first]);
                let out = &mut out[r / group][head * d..][..d];
                for (out, sum) in out.chunks_mut(LANES).zip(result[r * stride..].chunks_exact(LANES)) {
                    // + 0: a sum that vanished is +0, whatever it was multiplied by on the way.
                    let y = s.add(s.mul(s.load(sum), inverse), s.splat(0.0));
                    store(s, out, y);
                }
            }
        }
    }
}

/// Turns a strip's dot products into weights `exp(scale · dot - top)` with the new maximum `top` of each row;
/// adds them to the sums and leaves the factors for what was accumulated under the old maximum.
struct Soften<'a> {
    strip: &'a mut Strip,
    tops: &'a mut [f32],
    sums: &'a mut [f32],
    factors: &'a mut [f32; STRIP],
    scale: f32,
    /// The vectors in sight, as elements.
    from: usize,
    to: usize,
}

impl Inner for Soften<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const C: usize>(self, s: S) {
        let Soften { strip, tops, sums, factors, scale, from, to } = self;
        // Known when compiled where a strip's vectors fit the registers.
        let columns = if vectors::<S>() > 1 { C } else { (to - from) / LANES };
        let (tops, sums) = (&mut tops[..R], &mut sums[..R * LANES]);
        let (mut old, mut new) = ([0.0; LANES], [0.0; LANES]);
        for r in 0..R {
            let row = &strip[r][from..][..columns * LANES];
            let mut top = s.splat(f32::NEG_INFINITY);
            for c in 0..columns {
                top = s.max(s.load(&row[c * LANES..]), top);
            }
            // Rounding keeps the order: the largest score is the scaled largest dot product.
            (old[r], new[r]) = (tops[r], tops[r].max(scale * s.reduce_max(top)));
            tops[r] = new[r];
        }
        let changes = s.to_array(weight(s, s.sub(s.load(&old), s.load(&new))));
        factors.copy_from_slice(&changes[..STRIP]);
        let scale = s.splat(scale);
        for r in 0..R {
            let minus_top = s.splat(-new[r]);
            let row = &mut strip[r][from..][..columns * LANES];
            let mut parts = [s.splat(0.0); TILE / LANES];
            for c in 0..columns {
                let x = &mut row[c * LANES..][..LANES];
                let part = weight(s, s.mul_add(s.load(x), scale, minus_top));
                s.store(x, part);
                // At its place in the tile: what is not in sight adds nothing.
                parts[(from / LANES + c) % (TILE / LANES)] = part;
            }
            let sum = s.add(s.add(parts[0], parts[1]), s.add(parts[2], parts[3]));
            let total = &mut sums[r * LANES..][..LANES];
            s.store(total, s.mul_add(s.load(total), s.splat(changes[r]), sum));
        }
    }
}

// ---- backward ---------------------------------------------------------------------------------

/// What one task of the backward's first half computes, and where it leaves it for the second half.
struct Item<'a> {
    block: &'a Block,
    g: usize,
    /// One slice of `group * d` per row.
    dq: Vec<&'a mut [f32]>,
    /// Where its region starts in the chunk.
    start: usize,
}

/// The layout of an item's region: p and ds `[span / 16, rows, 16]`, queries and dout `[rows, stride]`.
#[derive(Clone, Copy)]
struct Region {
    rows: usize,
    /// Chain position of the first column.
    first: usize,
    /// Columns: positions, in whole vectors.
    span: usize,
    stride: usize,
}

impl Region {
    fn new(block: &Block, shape: &Shape) -> Region {
        let seen = block.seen(shape);
        let (rows, stride) = (block.rows.len() * shape.group(), shape.padded());
        Region { rows, first: seen.start, span: seen.len().next_multiple_of(LANES), stride }
    }

    fn len(&self) -> usize {
        2 * self.rows * (self.span + self.stride)
    }
}

/// The gradients of [`attention`]: `dq` is overwritten, `dk` and `dv` are added to.
///
/// # Shapes
/// `dq`, `dout`, `out`, `q`: `[m, heads, d]`, `lse`: `[m, heads]`, `dk`, `dv`, `k`, `v`: `[any, kv_heads, d]`;
/// `scratch`: [`scratch_len`].
pub fn attention_backward(
    level: Level,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    dout: &[f32],
    out: &[f32],
    lse: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    table: &RunTable,
    shape: Shape,
    scratch: &mut [f32],
) {
    let inputs = Inputs { q, k, v, table, shape };
    let rows = inputs.check();
    assert_eq!(shape.kv, KvType::F32, "keys and values that were rounded have no gradient");
    let Shape { heads, kv_heads, head_dim: d, .. } = shape;
    let group = shape.group();
    assert!(dq.len() == q.len() && dout.len() == q.len() && out.len() == q.len());
    assert!(dk.len() == k.len() && dv.len() == v.len());
    assert_eq!(lse.len(), rows * heads);
    let workers = (scratch.len() / (WORKER + CHUNK)).min(rayon::current_num_threads());
    assert!(workers > 0, "scratch of {} for one worker's {WORKER} + {CHUNK}", scratch.len());
    let (scratch, chunk) = scratch.split_at_mut(workers * WORKER);

    // A block's region is at most a quarter of the chunk for every worker, where a position is not more than that.
    let most = chunk.len() / (2 * workers);
    let blocks = blocks(table, rows, |chain| {
        let position = 2 * group * (chain.next_multiple_of(LANES) + TILE + shape.padded());
        (BLOCK / (group * shape.padded())).min(most / position).max(1)
    });
    let mut items: Vec<Item<'_>> = Vec::with_capacity(blocks.len() * kv_heads);
    let mut dq = dq;
    for block in &blocks {
        let block_dq;
        (block_dq, dq) = dq.split_at_mut(block.rows.len() * heads * d);
        items.extend(by_head(block_dq, kv_heads, group * d).enumerate().map(|(g, dq)| Item { block, g, dq, start: 0 }));
    }
    let mut readers = Vec::with_capacity(k.len() / (TILE * d) + kv_heads);
    for (i, (dk, dv)) in dk.chunks_mut(TILE * kv_heads * d).zip(dv.chunks_mut(TILE * kv_heads * d)).enumerate() {
        let views = by_head(dk, kv_heads, d).zip(by_head(dv, kv_heads, d));
        readers.extend(views.enumerate().map(|(g, (dk, dv))| Keys { first: i * TILE, g, dk, dv }));
    }

    let mut rest = &mut items[..];
    while !rest.is_empty() {
        // As many items as the chunk holds, each with its region.
        let mut regions = Vec::new();
        let mut free = &mut *chunk;
        let capacity = free.len();
        for item in rest.iter_mut() {
            let region = Region::new(item.block, &shape);
            if region.len() > free.len() {
                assert!(!regions.is_empty(), "scratch of {capacity} for a query row's {}", region.len());
                break;
            }
            item.start = capacity - free.len();
            regions.push((region, take(&mut free, region.len())));
        }
        let (now, later) = rest.split_at_mut(regions.len());
        rest = later;
        let tasks = now.iter_mut().zip(regions).rev();
        each(scratch, tasks, |scratch, (item, (region, memory))| {
            level.dispatch(Queries { inputs, dout, out, lse, item, region, memory, scratch });
        });
        let (now, chunk) = (&*now, &*chunk);
        each(scratch, readers.iter_mut(), |_, keys| {
            level.dispatch(KeysOf { inputs, keys, items: now, chunk });
        });
    }
}

/// First half: p, ds and dq of an item.
struct Queries<'a, 'b> {
    inputs: Inputs<'a>,
    dout: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    item: &'b mut Item<'a>,
    region: Region,
    memory: &'b mut [f32],
    scratch: &'b mut [f32],
}

impl WithSimd for Queries<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Queries { inputs, dout, out, lse, item, region, memory, mut scratch } = self;
        let Item { block, g, ref mut dq, .. } = *item;
        let shape = &inputs.shape;
        let (d, stride, group) = (shape.head_dim, shape.padded(), shape.group());
        let Region { rows, span, .. } = region;
        let padded_rows = rows.next_multiple_of(LANES);
        let queries = take(&mut scratch, padded_rows * d);
        let douts = take(&mut scratch, padded_rows * d);
        let keys = take(&mut scratch, TILE * d);
        let values = take(&mut scratch, TILE * d);
        let room = take(&mut scratch, TILE * stride);
        let result = take(&mut scratch, rows * stride);
        let deltas = take(&mut scratch, rows);
        let logs = take(&mut scratch, rows);
        result.fill(0.0);
        let (p, memory) = memory.split_at_mut(rows * span);
        let (ds, memory) = memory.split_at_mut(rows * span);
        let (kept_q, kept_dout) = memory.split_at_mut(rows * stride);
        for r in 0..rows {
            let at = inputs.query_offset(block, g, r);
            pack_row(s, &mut kept_q[r * stride..][..stride], &inputs.q[at..][..d]);
            pack_row(s, &mut kept_dout[r * stride..][..stride], &dout[at..][..d]);
            let mut sum = s.splat(0.0);
            for (dout, out) in dout[at..][..d].chunks(LANES).zip(out[at..][..d].chunks(LANES)) {
                sum = s.mul_add(load(s, dout), load(s, out), sum);
            }
            deltas[r] = s.reduce_add(sum);
            logs[r] = lse[at / d];
        }
        pack_queries(s, queries, kept_q, rows, d, stride);
        pack_queries(s, douts, kept_dout, rows, d, stride);

        let seen = block.seen(shape);
        let mut strip: Strip = [[0.0; TILE]; STRIP];
        let mut dstrip: Strip = [[0.0; TILE]; STRIP];
        for tile in seen.clone().step_by(TILE) {
            let tile_keys = inputs.tile_keys(block.run, g, tile, seen.end);
            s.vectorize(PackColumns { out: &mut *keys, stride: TILE, x: inputs.k, offsets: tile_keys.offsets(), d });
            s.vectorize(PackColumns { out: &mut *values, stride: TILE, x: inputs.v, offsets: tile_keys.offsets(), d });
            let (key_rows, apart) = key_rows(s, room, inputs.k, &tile_keys, shape, rows);
            let vectors = tile_keys.count.div_ceil(LANES);
            let at = (tile - seen.start) * rows;
            let (p, ds) = (&mut p[at..][..vectors * rows * LANES], &mut ds[at..][..vectors * rows * LANES]);
            for row in (0..rows).step_by(STRIP) {
                let sight = Sight::new(shape, block, row, tile);
                let (from, to) = sight.map_or((0, 0), |sight| sight.vectors);
                for vector in (0..vectors).filter(|vector| !(from..to).contains(&(vector * LANES))) {
                    let hidden = (vector * rows + row) * LANES..(vector * rows + (row + STRIP).min(rows)) * LANES;
                    p[hidden.clone()].fill(0.0);
                    ds[hidden].fill(0.0);
                }
                let Some(sight) = sight else { continue };
                dots(s, &mut strip, queries, row, keys, d, sight);
                dots(s, &mut dstrip, douts, row, values, d, sight);
                cap(s, &mut strip, shape, sight);
                sight.hide(&mut strip, shape, block, row, tile);
                let at = from / LANES * rows * LANES + row * LANES;
                let slopes = Slopes {
                    strip: &strip,
                    dstrip: &mut dstrip,
                    p: &mut p[at..],
                    ds: &mut ds[at..],
                    apart: rows * LANES,
                    logs: &logs[row..],
                    deltas: &deltas[row..],
                    scale: shape.scale,
                    scale_left: shape.scale_left(),
                    softcap: shape.softcap,
                    from,
                    to,
                };
                sized(s, slopes, sight.rows, (to - from) / LANES);
                mix(s, &mut result[row * stride..], [1.0; STRIP], &dstrip, key_rows, apart, stride, sight);
            }
        }
        for r in 0..rows {
            let dq = &mut dq[r / group][r % group * d..][..d];
            dq.copy_from_slice(&result[r * stride..][..d]);
        }
    }
}

/// Turns a strip's dot products into weights, and those with `dout` into the gradients of the scores, in place too.
struct Slopes<'a> {
    strip: &'a Strip,
    dstrip: &'a mut Strip,
    /// Vectors of columns `apart` from each other, from the strip's first row.
    p: &'a mut [f32],
    ds: &'a mut [f32],
    apart: usize,
    logs: &'a [f32],
    deltas: &'a [f32],
    scale: f32,
    /// Of `scale`, what is not yet on the strip.
    scale_left: f32,
    softcap: Option<f32>,
    /// The vectors in sight, as elements.
    from: usize,
    to: usize,
}

impl Inner for Slopes<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const C: usize>(self, s: S) {
        let Slopes { strip, dstrip, p, ds, apart, logs, deltas, scale, scale_left, softcap, from, to } = self;
        let columns = if vectors::<S>() > 1 { C } else { (to - from) / LANES };
        let (logs, deltas, scale, scale_left) = (&logs[..R], &deltas[..R], s.splat(scale), s.splat(scale_left));
        for c in 0..columns {
            let p = &mut p[c * apart..][..R * LANES];
            let ds = &mut ds[c * apart..][..R * LANES];
            for r in 0..R {
                let at = from + c * LANES;
                let dx = &mut dstrip[r][at..];
                let score = s.load(&strip[r][at..]);
                let weight = weight(s, s.mul_add(score, scale_left, s.splat(-logs[r])));
                let mut gradient = s.mul(s.mul(weight, s.sub(s.load(dx), s.splat(deltas[r]))), scale);
                if let Some(cap) = softcap {
                    gradient = s.mul(gradient, cap_slope(s, score, cap));
                }
                s.store(&mut p[r * LANES..], weight);
                s.store(&mut ds[r * LANES..], gradient);
                s.store(dx, gradient);
            }
        }
    }
}

/// A tile of key rows of one head and their gradients.
struct Keys<'a> {
    /// First key row.
    first: usize,
    g: usize,
    /// One slice of `d` per key.
    dk: Vec<&'a mut [f32]>,
    dv: Vec<&'a mut [f32]>,
}

/// Second half: dk and dv of a tile of key rows, from all items that read it.
struct KeysOf<'a, 'b> {
    inputs: Inputs<'a>,
    keys: &'b mut Keys<'a>,
    items: &'b [Item<'a>],
    chunk: &'b [f32],
}

impl WithSimd for KeysOf<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let KeysOf { inputs, keys, items, chunk } = self;
        let shape = &inputs.shape;
        let group = shape.group();
        let mine = keys.first..keys.first + keys.dk.len();
        for item in items.iter().filter(|item| item.g == keys.g) {
            let block = item.block;
            let region = Region::new(block, shape);
            let Region { rows, first: base, span: width, stride } = region;
            let memory = &chunk[item.start..][..region.len()];
            let (p, memory) = memory.split_at(rows * width);
            let (ds, memory) = memory.split_at(rows * width);
            let (kept_q, kept_dout) = memory.split_at(rows * stride);
            let mut start = 0; // position of the span's first key
            for span in &inputs.table.spans[inputs.table.runs[block.run].spans.clone()] {
                // Keys that are both mine and the span's, and the positions of those that the block sees.
                let shared = span.start.max(mine.start)..span.end.min(mine.end);
                let position = start + shared.start.saturating_sub(span.start);
                let end = (position + shared.len()).min(block.position + block.rows.len());
                start += span.len();
                let mut at = position.max(base);
                while at < end {
                    // Up to four keys, of one vector of columns.
                    let count = (end - at).min(STRIP - at % STRIP);
                    // A key at position j is seen from positions j .. j + window.
                    let from = at.saturating_sub(block.position);
                    let until = shape.window.map_or(block.rows.len(), |window| {
                        (at + count - 1).saturating_add(window).saturating_sub(block.position).min(block.rows.len())
                    });
                    if from < until {
                        let (from, until) = (from * group, until * group);
                        let weights = ((at - base) / LANES * rows + from) * LANES + (at - base) % LANES;
                        let key = shared.start - mine.start + at - position;
                        let (q, dout) = (&kept_q[from * stride..], &kept_dout[from * stride..]);
                        gather(s, &mut keys.dk[key..key + count], &ds[weights..], q, stride, until - from);
                        gather(s, &mut keys.dv[key..key + count], &p[weights..], dout, stride, until - from);
                    }
                    at += count;
                }
            }
        }
    }
}
