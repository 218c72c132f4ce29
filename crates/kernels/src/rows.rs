//! Moving whole rows: gather, scatter, and their accumulating form.
//!
//! Rows are `c` elements long. Destinations are split into blocks of rows, so that several sources that
//! meet in one row are added in their own order whatever the number of threads.

use crate::matmul::Weight;
use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 1 << 14;

/// `y[i] =` row `ids[i]` of `w`, expanded to f32.
///
/// # Shapes
/// `y`: `[ids.len(), k]`, `w`: `[n, k]`.
pub fn embed(y: &mut [f32], w: &Weight, ids: &[u32]) {
    let (n, k) = w.shape();
    assert_eq!(y.len(), ids.len() * k);
    assert!(ids.iter().all(|&id| (id as usize) < n), "an id beyond {n}");
    y.par_chunks_exact_mut(k).with_min_len(TASK.div_ceil(k)).zip(ids).for_each(|(y, &id)| w.row(id as usize, y));
}

/// `y[i] = x[rows[i]]`.
///
/// # Shapes
/// `y`: `[rows.len(), c]`, `x`: `[any, c]`.
pub fn gather(y: &mut [f32], x: &[f32], rows: &[u32], c: usize) {
    assert_eq!(y.len(), rows.len() * c);
    assert_eq!(x.len() % c, 0);
    y.par_chunks_exact_mut(c).with_min_len(TASK.div_ceil(c)).zip(rows).for_each(|(y, &row)| {
        y.copy_from_slice(&x[row as usize * c..][..c]);
    });
}

/// `y[rows[i]] = x[i]`; `rows` are distinct. Rows of `y` that are not named keep their values.
///
/// # Shapes
/// `y`: `[any, c]`, `x`: `[rows.len(), c]`.
pub fn scatter(y: &mut [f32], x: &[f32], rows: &[u32], c: usize) {
    into_rows(y, x, rows, c, |y, x| y.copy_from_slice(x));
}

/// `y[rows[i]] += x[i]`, in the order of `i`.
///
/// # Shapes
/// `y`: `[any, c]`, `x`: `[rows.len(), c]`.
pub fn scatter_add(y: &mut [f32], x: &[f32], rows: &[u32], c: usize) {
    into_rows(y, x, rows, c, |y, x| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
}

/// Calls `put(y[rows[i]], x[i])` for every `i`, those of one destination in order.
fn into_rows(y: &mut [f32], x: &[f32], rows: &[u32], c: usize, put: impl Fn(&mut [f32], &[f32]) + Sync) {
    assert_eq!(x.len(), rows.len() * c);
    assert_eq!(y.len() % c, 0);
    let destinations = y.len() / c;
    assert!(rows.iter().all(|&row| (row as usize) < destinations), "a row beyond {destinations}");
    if x.len() <= TASK {
        for (&row, x) in rows.iter().zip(x.chunks_exact(c)) {
            put(&mut y[row as usize * c..][..c], x);
        }
        return;
    }
    // Every block looks through all of `rows`: few blocks, so that this stays small beside the copying.
    let block = destinations.div_ceil(32).max(TASK.div_ceil(c));
    y.par_chunks_mut(block * c).enumerate().for_each(|(index, y)| {
        let first = index * block;
        for (&row, x) in rows.iter().zip(x.chunks_exact(c)) {
            if let Some(y) = (row as usize).checked_sub(first).and_then(|row| y.get_mut(row * c..(row + 1) * c)) {
                put(y, x);
            }
        }
    });
}
