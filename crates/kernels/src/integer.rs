//! Products of frozen weights in integers: the `fast` path of scoring and generation.
//!
//! A row x of the left operand is rounded to eight bits, 32 elements under one scale:
//!
//! ```text
//! d = max |x| / 127        q = x / d to the nearest, ties to even        x ≈ q d
//! y = Σ_blocks  d s · Σ (c - offset) q  +  d m · Σ q
//! ```
//!
//! with the codes c, scales s and minima m of the weight as they are stored (one scale for 32 or for 16 columns). The sums
//! of products are exact integers; a block's sum becomes f32 and is added to y by one fused multiply-add, blocks
//! ascending, then the minimum's part by another. So a row's bits depend on that row and the weight alone: not on
//! neighbours, threads or the level. The rounding of x errs by at most half of d an element.
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

/// Elements under one scale.
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
    /// `[m][k / 32]`.
    scales: Vec<f32>,
    /// Of the elements of each half of a block: `[m][k / 16]`.
    sums: Vec<i32>,
    m: usize,
    k: usize,
}

impl Rounded {
    /// Bytes that [`Rounded::reserve`] holds.
    pub fn bytes_for(rows: usize, width: usize) -> usize {
        let elements = rows * width.next_multiple_of(BLOCK);
        4 * (elements / 4 + elements / BLOCK + elements / LANES)
    }

    /// Makes room for `rows` rows of `width` elements.
    pub fn reserve(&mut self, rows: usize, width: usize) -> Result<(), TryReserveError> {
        let elements = rows * width.next_multiple_of(BLOCK);
        grow(&mut self.words, elements / 4)?;
        grow(&mut self.scales, elements / BLOCK)?;
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
            self.scales[..m * k / BLOCK].par_chunks_mut(rows * k / BLOCK).zip(self.sums[..m * k / LANES].par_chunks_mut(rows * k / LANES));
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
        let blocks = self.x.chunks_exact(BLOCK).zip(self.words.chunks_exact_mut(BLOCK / 4));
        for ((x, words), (scale, sums)) in blocks.zip(self.scales.iter_mut().zip(self.sums.chunks_exact_mut(2))) {
            let halves = [s.load(x), s.load(&x[LANES..])];
            let largest = s.reduce_max(s.max(s.abs(halves[0]), s.abs(halves[1])));
            *scale = largest / 127.0;
            // 0 where all are 0, and where the quotient would not be finite: such rows are as good as 0.
            let inverse = 127.0 / largest;
            let inverse = s.splat(if inverse.is_finite() { inverse } else { 0.0 });
            for (half, (words, sum)) in halves.into_iter().zip(words.chunks_exact_mut(4).zip(sums)) {
                // What is no number is brought into range too: its block's scale makes the product no number.
                let q = s.max(s.min(s.mul(half, inverse), s.splat(127.0)), s.splat(-127.0));
                let q = s.to_array_i(s.to_i(q));
                *sum = q.iter().sum();
                for (word, q) in words.iter_mut().zip(q.chunks_exact(4)) {
                    *word = i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8]);
                }
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
        let scales: [&[f32]; ROWS] = std::array::from_fn(|i| &self.x.scales[of_row(i, BLOCK)]);
        let sums: [&[i32]; ROWS] = std::array::from_fn(|i| &self.x.sums[of_row(i, LANES)]);
        let mut y = [s.splat(0.0); ROWS];
        for block in 0..k / BLOCK {
            let w = codes.words(s, panel, block * BLOCK);
            if C::HALVES {
                let of_half = [codes.scale(s, panel, block * BLOCK), codes.scale(s, panel, block * BLOCK + LANES)];
                for i in 0..ROWS {
                    let x = &words[i][block * 8..][..8];
                    let scale = scales[i][block];
                    let sums = &sums[i][block * 2..][..2];
                    for half in 0..2 {
                        let mut sum = s.splat_i(-offset * sums[half]);
                        for j in 0..4 {
                            sum = dot::<S, D, C>(s, dots, sum, w[4 * half + j], x[4 * half + j]);
                        }
                        let (of_weight, minimum) = of_half[half];
                        y[i] = s.mul_add(s.to_f(sum), s.mul(of_weight, s.splat(scale)), y[i]);
                        if C::MINIMA {
                            y[i] = s.mul_add(minimum, s.splat(scale * sums[half] as f32), y[i]);
                        }
                    }
                }
            } else {
                let (of_weight, minimum) = codes.scale(s, panel, block * BLOCK);
                for i in 0..ROWS {
                    let x = &words[i][block * 8..][..8];
                    let scale = scales[i][block];
                    let whole = sums[i][2 * block] + sums[i][2 * block + 1];
                    let mut sum = s.splat_i(-offset * whole);
                    for j in 0..8 {
                        sum = dot::<S, D, C>(s, dots, sum, w[j], x[j]);
                    }
                    y[i] = s.mul_add(s.to_f(sum), s.mul(of_weight, s.splat(scale)), y[i]);
                    if C::MINIMA {
                        y[i] = s.mul_add(minimum, s.splat(scale * whole as f32), y[i]);
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
