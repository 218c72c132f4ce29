//! One output matrix cut into disjoint tiles, which the threads of a kernel take one after another.
#![expect(unsafe_code, reason = "tiles of one matrix interleave in memory, so slices cannot split them")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A queue of the tiles of a row-major matrix; each tile is given out once.
pub struct Tiles<'a> {
    base: *mut f32,
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
    next: AtomicUsize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: the matrix is borrowed exclusively for 'a, and `take` gives every element to at most one tile.
unsafe impl Sync for Tiles<'_> {}

impl<'a> Tiles<'a> {
    /// Tiles of `row_step x col_step` (less at the edges) of `c[rows, cols]`.
    pub fn new(c: &'a mut [f32], rows: usize, cols: usize, row_step: usize, col_step: usize) -> Self {
        assert_eq!(c.len(), rows.checked_mul(cols).expect("a matrix that exists"), "elements of a {rows} x {cols} matrix");
        assert!(row_step > 0 && col_step > 0, "tiles of {row_step} x {col_step}");
        Tiles { base: c.as_mut_ptr(), rows, cols, row_step, col_step, next: AtomicUsize::new(0), matrix: PhantomData }
    }

    /// Number of tiles, taken or not.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(self.row_step) * self.cols.div_ceil(self.col_step)
    }

    /// The next tile, down the rows first, or `None` when all are taken.
    pub fn take(&self) -> Option<Tile<'a>> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.count() {
            return None;
        }
        let down = self.rows.div_ceil(self.row_step);
        let (row, col) = (index % down * self.row_step, index / down * self.col_step);
        Some(Tile {
            // SAFETY: row < rows and col < cols, so the offset lies in the matrix.
            base: unsafe { self.base.add(row * self.cols + col) },
            stride: self.cols,
            row,
            col,
            rows: self.row_step.min(self.rows - row),
            cols: self.col_step.min(self.cols - col),
            matrix: PhantomData,
        })
    }
}

/// Some rows and columns of a matrix, exclusively.
pub struct Tile<'a> {
    base: *mut f32,
    stride: usize,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a tile is as good as a `&mut [f32]`.
unsafe impl Send for Tile<'_> {}

impl Tile<'_> {
    /// First row, counted in the matrix.
    pub fn row(&self) -> usize {
        self.row
    }

    /// First column, counted in the matrix.
    pub fn col(&self) -> usize {
        self.col
    }

    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the tile.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `i` of the tile.
    pub fn slice(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: the row lies in the matrix, belongs to this tile alone, and `self` is borrowed with it.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(i * self.stride), self.cols) }
    }

    /// Address of element (0, 0).
    pub(super) fn base(&mut self) -> *mut f32 {
        self.base
    }
}
