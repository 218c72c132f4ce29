//! Products of frozen weights in integers: the `fast` path of scoring and generation.
//!
//! A row x of the left operand is rounded to eight bits, 16 elements under one scale:
//!
//! ```text
//! d = max |x| / 127        q = x / d to the nearest, ties to even        x ≈ q d
//! y = Σ_blocks  s · Σ_halves  d · Σ (c - offset) q  +  m · Σ_halves  d · Σ q
//! ```
//!
//! with the codes c, scales s and minima m of the weight as they are stored: one scale for a block of 32 columns, or for each half of
//! it. The sums of products are exact integers; they become f32 and are added to y by fused multiply-adds, blocks ascending, each
//! with its minimum's part after it. So a row's bits depend on that row and the weight alone: not on neighbours, threads or the level. The rounding
//! of x errs by at most half of d an element; with one d for 32 elements the mean KL of whole models was twice as high.
//!
//! Weights whose numbers are no small integers under scales (floats, codes for uneven values) have no such product;
//! [`supports`] tells.

use crate::matmul::Weight;
use crate::quant::codes::{Codes, with_codes};
use crate::simd::disjoint::{Tile, Tiles};
use crate::simd::dots::{Dots, WithDots};
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;
use std::collections::TryReserveError;

/// Columns of a weight that are decoded together; the elements of x under one scale are [`LANES`], half as many.
const BLOCK: usize = 32;
/// Below this many products another thread costs more than it brings.
const ALONE: usize = 1 << 16;
/// Rows of a tile, at most: their codes stay in the second-level cache.
const TILE_ROWS: usize = 256;
/// Panels of a tile, at least, so that taking it costs little beside it.
const TILE_PANELS: usize = 2;
/// Tiles for each thread, so that threads finish together.
const TILES: usize = 4;
/// Elements that are worth a task of their own when rows are rounded.
const TASK: usize = 1 << 13;

/// Whether there are integer products of `w`: of what is shared with a file there are none.
pub fn supports(w: &Weight) -> bool {
    w.storage().has_codes() && w.stored_panels().is_some()
}

/// Rows rounded to eight bits, and the room for them.
#[derive(Debug, Default)]
pub struct Rounded {
    /// Four elements a word, ascending: `[m][k / 4]`.
    words: Vec<i32>,
    /// `[m][k / 16]`.
    scales: Vec<f32>,
    /// Of the elements under each scale: `[m][k / 16]`.
    sums: Vec<i32>,
    m: usize,
    k: usize,
}

impl Rounded {
    /// Bytes that [`Rounded::reserve`] holds.
    pub fn bytes_for(rows: usize, width: usize) -> usize {
        let elements = rows * width.next_multiple_of(BLOCK);
        4 * (elements / 4 + 2 * elements / LANES)
    }

    /// Makes room for `rows` rows of `width` elements.
    pub fn reserve(&mut self, rows: usize, width: usize) -> Result<(), TryReserveError> {
        let elements = rows * width.next_multiple_of(BLOCK);
        grow(&mut self.words, elements / 4)?;
        grow(&mut self.scales, elements / LANES)?;
        grow(&mut self.sums, elements / LANES)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * (self.words.len() + self.scales.len() + self.sums.len())
    }

    /// Takes `x[m, k]`; k is a multiple of 32, and there is room.
    pub fn round(&mut self, level: Level, x: &[f32], m: usize, k: usize) {
        assert!(k > 0 && k.is_multiple_of(BLOCK), "rows of {k} are not whole blocks of {BLOCK}");
        assert_eq!(x.len(), m * k, "elements of x: {m} rows of {k}");
        assert!(m * k / 4 <= self.words.len(), "{m} rows of {k}, room for {} elements", 4 * self.words.len());
        (self.m, self.k) = (m, k);
        let rows = TASK.div_ceil(k);
        let words = self.words[..m * k / 4].par_chunks_mut(rows * k / 4);
        let others =
            self.scales[..m * k / LANES].par_chunks_mut(rows * k / LANES).zip(self.sums[..m * k / LANES].par_chunks_mut(rows * k / LANES));
        words.zip(others).zip(x.par_chunks(rows * k)).for_each(|((words, (scales, sums)), x)| {
            level.dispatch(Round { words, scales, sums, x });
        });
    }
}

/// Lengthens `memory` with zeros to `len` elements.
fn grow<T: Copy + Default>(memory: &mut Vec<T>, len: usize) -> Result<(), TryReserveError> {
    memory.try_reserve_exact(len.saturating_sub(memory.len()))?;
    memory.resize(len.max(memory.len()), T::default());
    Ok(())
}

struct Round<'a> {
    words: &'a mut [i32],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    x: &'a [f32],
}

impl WithSimd for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let parts = self.x.chunks_exact(LANES).zip(self.words.chunks_exact_mut(LANES / 4));
        for ((x, words), (scale, sum)) in parts.zip(self.scales.iter_mut().zip(self.sums)) {
            let x = s.load(x);
            let largest = s.reduce_max(s.abs(x));
            *scale = largest / 127.0;
            // 0 where all are 0, and where the quotient would not be finite: such rows are as good as 0.
            let inverse = 127.0 / largest;
            let inverse = s.splat(if inverse.is_finite() { inverse } else { 0.0 });
            // What is no number is brought into range too: its scale makes the product no number.
            let q = s.max(s.min(s.mul(x, inverse), s.splat(127.0)), s.splat(-127.0));
            let q = s.to_array_i(s.to_i(q));
            *sum = q.iter().sum();
            for (word, q) in words.iter_mut().zip(q.chunks_exact(4)) {
                *word = i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8]);
            }
        }
    }
}

/// `y[m,n]` = x · wᵀ, or += where `accumulate`, with `x[m,k]` rounded into `rounded`.
pub fn linear(level: Level, y: &mut [f32], x: &[f32], w: &Weight, m: usize, accumulate: bool, rounded: &mut Rounded) {
    let (n, k) = w.shape();
    rounded.round(level, x, m, k);
    linear_tile(level, y, rounded, w, 0, n, accumulate);
}

/// `y[m,len]` = x · w[n0 .. n0 + len, :]ᵀ, or += where `accumulate`; `n0` is a multiple of 16.
pub fn linear_tile(level: Level, y: &mut [f32], x: &Rounded, w: &Weight, n0: usize, len: usize, accumulate: bool) {
    let ((n, k), m) = (w.shape(), x.m);
    let (panels, panel_bytes) = w.stored_panels().expect("a storage with codes");
    assert!(n0.is_multiple_of(LANES) && n0 + len <= n, "outputs {n0} + {len} of {n}");
    assert_eq!(x.k, k, "elements of a row");
    assert_eq!(y.len(), m * len, "elements of the result: {m} x {len}");
    if y.is_empty() {
        return;
    }
    let threads = if m * len * k < ALONE { 1 } else { rayon::current_num_threads() };
    let rows = m.div_ceil(m.div_ceil(TILE_ROWS));
    let shares = (threads * TILES).div_ceil(m.div_ceil(rows));
    let columns = len.div_ceil(LANES).div_ceil(shares).max(TILE_PANELS) * LANES;
    let tiles = Tiles::new(y, m, len, rows, columns);
    let work = |_| {
        while let Some(tile) = tiles.take() {
            let panels = &panels[(n0 + tile.col()) / LANES * panel_bytes..];
            level.dispatch_dots(Walk { tile, x, w, panels, panel_bytes, accumulate });
        }
    };
    if threads == 1 || tiles.count() == 1 {
        work(0);
    } else {
        (0..threads).into_par_iter().with_max_len(1).for_each(work);
    }
}

/// One tile of the result.
struct Walk<'a, 'c> {
    tile: Tile<'c>,
    x: &'a Rounded,
    w: &'a Weight,
    /// From the tile's first column on.
    panels: &'a [u8],
    panel_bytes: usize,
    accumulate: bool,
}

impl WithDots for Walk<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd, D: Dots<S>>(mut self, s: S, dots: D) {
        with_codes!(self.w.storage(), codes => self.walk(s, dots, codes));
    }
}

impl Walk<'_, '_> {
    #[inline(always)]
    fn walk<S: Simd, D: Dots<S>, C: Codes>(&mut self, s: S, dots: D, codes: C) {
        for (col, panel) in (0..self.tile.cols()).step_by(LANES).zip(self.panels.chunks_exact(self.panel_bytes)) {
            let mut row = 0;
            while row < self.tile.rows() {
                // More rows at a time share what is decoded, as far as the registers go.
                row += match self.tile.rows() - row {
                    1..4 => self.rows::<S, D, C, 1>(s, dots, codes, panel, col, row),
                    8.. if D::MANY => self.rows::<S, D, C, 8>(s, dots, codes, panel, col, row),
                    _ => self.rows::<S, D, C, 4>(s, dots, codes, panel, col, row),
                };
            }
        }
    }

    /// `ROWS` rows from `row` on against one panel; returns how many they are.
    #[inline(always)]
    fn rows<S: Simd, D: Dots<S>, C: Codes, const ROWS: usize>(
        &mut self,
        s: S,
        dots: D,
        codes: C,
        panel: &[u8],
        col: usize,
        row: usize,
    ) -> usize {
        let (k, first) = (self.x.k, self.tile.row() + row);
        let offset = C::OFFSET + if C::SIGNED { D::BIAS } else { 0 };
        let of_row = |i: usize, per: usize| (first + i) * (k / per)..(first + i + 1) * (k / per);
        let words: [&[i32]; ROWS] = std::array::from_fn(|i| &self.x.words[of_row(i, 4)]);
        let scales: [&[f32]; ROWS] = std::array::from_fn(|i| &self.x.scales[of_row(i, LANES)]);
        let sums: [&[i32]; ROWS] = std::array::from_fn(|i| &self.x.sums[of_row(i, LANES)]);
        let mut y = [s.splat(0.0); ROWS];
        for block in 0..k / BLOCK {
            let w = codes.words(s, panel, block * BLOCK);
            let first_scale = codes.scale(s, panel, block * BLOCK);
            let of_weight = [first_scale, if C::HALVES { codes.scale(s, panel, block * BLOCK + LANES) } else { first_scale }];
            for i in 0..ROWS {
                let (x, scales) = (&words[i][block * 8..][..8], &scales[i][block * 2..][..2]);
                let sums = &sums[i][block * 2..][..2];
                let mut products = [s.splat(0.0); 2];
                for half in 0..2 {
                    let mut sum = s.splat_i(-offset * sums[half]);
                    for j in 0..4 {
                        sum = dot::<S, D, C>(s, dots, sum, w[4 * half + j], x[4 * half + j]);
                    }
                    products[half] = s.to_f(sum);
                }
                let whole = [scales[0] * sums[0] as f32, scales[1] * sums[1] as f32];
                if C::HALVES {
                    for half in 0..2 {
                        let (scale, minimum) = of_weight[half];
                        y[i] = s.mul_add(products[half], s.mul(scale, s.splat(scales[half])), y[i]);
                        if C::MINIMA {
                            y[i] = s.mul_add(minimum, s.splat(whole[half]), y[i]);
                        }
                    }
                } else {
                    let (scale, minimum) = of_weight[0];
                    let both = s.mul_add(products[1], s.splat(scales[1]), s.mul(products[0], s.splat(scales[0])));
                    y[i] = s.mul_add(both, scale, y[i]);
                    if C::MINIMA {
                        y[i] = s.mul_add(minimum, s.splat(whole[0] + whole[1]), y[i]);
                    }
                }
            }
        }
        let columns = (self.tile.cols() - col).min(LANES);
        for (i, y) in y.into_iter().enumerate() {
            let out = &mut self.tile.slice(row + i)[col..][..columns];
            let y = if self.accumulate { s.add(s.load_partial(out, 0.0), y) } else { y };
            s.store_partial(out, y);
        }
        ROWS
    }
}

/// `sum` + four products a lane of the codes `w` and the word `x`.
#[inline(always)]
fn dot<S: Simd, D: Dots<S>, C: Codes>(s: S, dots: D, sum: S::I, w: S::I, x: i32) -> S::I {
    let x = s.splat_i(x);
    if C::SIGNED { dots.signed(s, sum, w, x) } else { dots.unsigned(s, sum, w, x) }
}
