//! The inner loops of the matrix product: c (+)= alpha · a · b over one block of the inner dimension.
//!
//! A micro-tile of rows x panels of accumulators stays in registers while the inner index ascends; it starts at
//! zero, takes one fused multiply-add a step, and is then written as alpha · sum, or added as fma(alpha, sum, c).
//! So the bits of an element depend on its row of `a`, its column of `b` and the block, and on nothing else.
#![expect(unsafe_code, reason = "bounds are checked once per block, not once per load")]

use super::disjoint::Tile;
use super::{LANES, Simd, WithSimd};

/// Longest block of the inner dimension, and the row stride of [`Left::Packed`]. A sum of 288 terms has 1.2 times the
/// rounding of MKL's; with 384 a deep model's losses drift further from PyTorch's over ten steps than PyTorch's own do
/// (`cargo xtask parity`), for 1 or 2 % of speed.
pub const BLOCK: usize = 288;

/// The left operand of a block: element (i, l).
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// At `i * BLOCK + l`.
    Packed(&'a [f32]),
    /// At `i * stride + l`: rows where they are.
    Rows(&'a [f32], usize),
    /// At `l * stride + i`: a transposed operand where it is.
    Columns(&'a [f32], usize),
}

/// The right operand of a block, in panels of 16 columns: element (l, 16 p + lane) at `p * panel + l * inner + lane`.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// From one inner index to the next.
    pub inner: usize,
    /// From one panel to the next.
    pub panel: usize,
}

/// c[all rows, col .. col + cols] (+)= alpha · a · b over `k` inner indices; columns are counted in the tile.
#[inline(always)]
pub fn multiply<S: Simd>(
    s: S,
    c: &mut Tile<'_>,
    col: usize,
    cols: usize,
    k: usize,
    a: Left<'_>,
    b: Right<'_>,
    alpha: f32,
    accumulate: bool,
) {
    let rows = c.rows();
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(col + cols <= c.cols(), "columns {col} + {cols} of {}", c.cols());
    assert!(k > 0, "an empty block");
    // The last element that is read of each operand, in arithmetic that cannot wrap.
    let last = |outer: usize, outer_stride: usize, inner_stride: usize| {
        (outer as u128 - 1) * outer_stride as u128 + (k as u128 - 1) * inner_stride as u128
    };
    let (data, row, inner, a_stride) = match a {
        Left::Packed(data) => {
            assert!(k <= BLOCK, "a block of {k}");
            (data, BLOCK, 1, BLOCK)
        }
        Left::Rows(data, stride) => (data, stride, 1, stride),
        Left::Columns(data, stride) => (data, 1, stride, stride),
    };
    assert!(last(rows, row, inner) < data.len() as u128, "left operand of {}", data.len());
    assert!(last(cols.div_ceil(LANES), b.panel, b.inner) + LANES as u128 <= b.data.len() as u128, "right operand of {}", b.data.len());

    // Rows in groups as even as can be: 1024 = 60 x 14 + 14 x 13 where 14 rows fit the registers.
    // Rows a multiple of 4 KiB apart compete for the same few places in the first-level cache: eight of them fit.
    let tallest = if matches!(a, Left::Rows(_, stride) if stride % 1024 == 0) { S::TILE_ROWS.min(8) } else { S::TILE_ROWS };
    let groups = rows.div_ceil(tallest);
    let (height, taller) = (rows / groups, rows % groups);
    let mut first = 0;
    for group in 0..groups {
        let height = height + usize::from(group < taller);
        let sweep = Sweep {
            k,
            // SAFETY: rows first .. first + height exist in `a` and in the tile, and so do the columns (asserted).
            a: unsafe { data.as_ptr().add(first * row) },
            a_stride,
            b: b.data.as_ptr(),
            b_inner: b.inner,
            b_panel: b.panel,
            // SAFETY: as above.
            c: unsafe { c.base().add(first * c.stride() + col) },
            c_stride: c.stride(),
            cols,
            alpha,
            accumulate,
        };
        match a {
            Left::Packed(_) => sweep.rows::<S, PACKED>(s, height),
            Left::Rows(..) => sweep.rows::<S, ROWS>(s, height),
            Left::Columns(..) => sweep.rows::<S, COLUMNS>(s, height),
        }
        first += height;
    }
}

/// The body for each constant index below the limit: arrays indexed by constants alone stay in registers, which
/// a loop that the compiler should unroll does not promise.
macro_rules! unrolled {
    ($i:ident in $($value:literal)*, < $limit:ident => $body:expr) => {
        $({
            const $i: usize = $value;
            if $i < $limit {
                $body;
            }
        })*
    };
}

const PACKED: u8 = 0;
const ROWS: u8 = 1;
const COLUMNS: u8 = 2;

/// One group of rows against all panels.
#[derive(Clone, Copy)]
struct Sweep {
    k: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_inner: usize,
    b_panel: usize,
    c: *mut f32,
    c_stride: usize,
    cols: usize,
    alpha: f32,
    accumulate: bool,
}

/// A [`Sweep`] of a height known to the compiler.
struct Fixed<const FORM: u8, const HEIGHT: usize>(Sweep);

impl Sweep {
    #[inline(always)]
    fn rows<S: Simd, const FORM: u8>(self, s: S, height: usize) {
        macro_rules! heights {
            ($($h:literal)*) => {
                match height {
                    $($h if $h <= S::TILE_ROWS => s.vectorize(Fixed::<FORM, $h>(self)),)*
                    _ => unreachable!("{height} rows in a group"),
                }
            };
        }
        heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }
}

impl<const FORM: u8, const HEIGHT: usize> WithSimd for Fixed<FORM, HEIGHT> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let sweep = self.0;
        let panels = sweep.cols.div_ceil(LANES);
        let mut p = 0;
        // Few rows leave registers for twice the panels, and need them to hide the latency of the additions.
        if 2 * HEIGHT < S::TILE_ROWS && S::TILE_PANELS == 1 {
            p = sweep.panels::<S, FORM, HEIGHT, 2>(s, p, panels);
        }
        if 2 * HEIGHT < S::TILE_ROWS && S::TILE_PANELS == 2 {
            p = sweep.panels::<S, FORM, HEIGHT, 4>(s, p, panels);
        }
        if S::TILE_PANELS == 2 {
            p = sweep.panels::<S, FORM, HEIGHT, 2>(s, p, panels);
        }
        sweep.panels::<S, FORM, HEIGHT, 1>(s, p, panels);
    }
}

impl Sweep {
    /// Panels from `p` on, as many at a time as there are; returns the first that is left.
    #[inline(always)]
    fn panels<S: Simd, const FORM: u8, const HEIGHT: usize, const WIDTH: usize>(&self, s: S, mut p: usize, panels: usize) -> usize {
        while p + WIDTH <= panels {
            // SAFETY: `multiply` asserted that all panels, rows and columns of this sweep exist.
            unsafe { self.tile::<S, FORM, HEIGHT, WIDTH>(s, p) };
            p += WIDTH;
        }
        p
    }

    /// The micro-tile of panels p .. p + WIDTH.
    ///
    /// # Safety
    /// HEIGHT rows of `a` and `c`, and the panels, exist.
    #[inline(always)]
    unsafe fn tile<S: Simd, const FORM: u8, const HEIGHT: usize, const WIDTH: usize>(&self, s: S, p: usize) {
        let (row, inner) = match FORM {
            PACKED => (BLOCK, 1),
            ROWS => (self.a_stride, 1),
            _ => (1, self.a_stride),
        };
        let zero = s.splat(0.0);
        let four = [zero, zero, zero, zero];
        let alpha = s.splat(self.alpha);
        let mut sums = [four, four, four, four, four, four, four, four, four, four, four, four, four, four];
        let mut right = four;
        let mut a = self.a;
        // SAFETY: the caller's promise; every address below is one that `multiply` counted.
        unsafe {
            let mut b = self.b.add(p * self.b_panel);
            for _ in 0..self.k {
                unrolled!(J in 0 1 2 3, < WIDTH => right[J] = s.load_ptr(b.wrapping_add(J * self.b_panel)));
                unrolled!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13, < HEIGHT => {
                    let left = s.splat(*a.wrapping_add(I * row));
                    unrolled!(J in 0 1 2 3, < WIDTH => sums[I][J] = s.mul_add(left, right[J], sums[I][J]));
                });
                a = a.wrapping_add(inner);
                b = b.wrapping_add(self.b_inner);
            }
            let left = self.cols - p * LANES;
            let c = self.c.add(p * LANES);
            unrolled!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13, < HEIGHT => {
                let c = c.wrapping_add(I * self.c_stride);
                unrolled!(J in 0 1 2 3, < WIDTH => {
                    let c = c.wrapping_add(J * LANES);
                    if J + 1 < WIDTH || left >= WIDTH * LANES {
                        let old = if self.accumulate { Some(s.load_ptr(c)) } else { None };
                        s.store_ptr(c, blend(s, alpha, sums[I][J], old));
                    } else {
                        let c = std::slice::from_raw_parts_mut(c, left - J * LANES);
                        let old = if self.accumulate { Some(s.load_partial(c, 0.0)) } else { None };
                        s.store_partial(c, blend(s, alpha, sums[I][J], old));
                    }
                });
            });
        }
    }
}

/// alpha · sum, or fma(alpha, sum, old).
#[inline(always)]
fn blend<S: Simd>(s: S, alpha: S::F, sum: S::F, old: Option<S::F>) -> S::F {
    match old {
        Some(old) => s.mul_add(alpha, sum, old),
        None => s.mul(alpha, sum),
    }
}
