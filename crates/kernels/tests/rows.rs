//! Moving rows, small and large, at several thread counts.

mod common;

use common::{Draws, bits, with_threads};
use kernels::matmul::Weight;
use kernels::quant::Storage;
use kernels::rows::{embed, gather, scatter, scatter_add};

#[test]
fn rows_go_where_they_are_told() {
    let mut draws = Draws::new(1);
    for (many, few, c) in [(1, 1, 1), (7, 5, 3), (300, 200, 100), (700, 650, 64)] {
        let x = draws.normal(many * c);
        let mut rows: Vec<u32> = (0..many as u32).collect();
        for i in 0..many {
            rows.swap(i, draws.below(many));
        }
        rows.truncate(few);
        for threads in [1, 2, 3, 7] {
            with_threads(threads, || {
                let mut y = vec![9.0; few * c];
                gather(&mut y, &x, &rows, c);
                let want: Vec<f32> = rows.iter().flat_map(|&row| &x[row as usize * c..][..c]).copied().collect();
                assert_eq!(y, want);

                let mut back = vec![9.0; many * c];
                scatter(&mut back, &y, &rows, c);
                for row in 0..many {
                    let want = if rows.contains(&(row as u32)) { &x[row * c..][..c] } else { &vec![9.0; c] };
                    assert_eq!(&back[row * c..][..c], want);
                }
            });
        }
    }
}

#[test]
fn sums_keep_their_order() {
    let mut draws = Draws::new(2);
    let (many, c) = (500, 70);
    let rows: Vec<u32> = (0..many).map(|_| draws.below(90) as u32).collect();
    let x = draws.normal(many * c);
    let start = draws.normal(100 * c);
    let mut want = start.clone();
    for (i, &row) in rows.iter().enumerate() {
        for j in 0..c {
            want[row as usize * c + j] += x[i * c + j];
        }
    }
    for threads in [1, 2, 3, 7] {
        let mut y = start.clone();
        with_threads(threads, || scatter_add(&mut y, &x, &rows, c));
        assert_eq!(bits(&y), bits(&want), "{threads} threads");
    }
}

#[test]
fn embedding_is_the_weights_rows() {
    let mut draws = Draws::new(3);
    let (n, k) = (50, 64);
    let values = draws.normal(n * k);
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let w = Weight::new(Storage::F32, n, k, &bytes).unwrap();
    let ids = [3, 49, 0, 3];
    let mut y = vec![9.0; 4 * k];
    embed(&mut y, &w, &ids);
    for (y, id) in y.chunks(k).zip(ids) {
        assert_eq!(y, &values[id as usize * k..][..k]);
    }
}

#[test]
#[should_panic(expected = "a row beyond")]
fn a_row_beyond_the_end_is_a_bug() {
    scatter_add(&mut [0.0; 4], &[0.0; 2], &[2], 2);
}
