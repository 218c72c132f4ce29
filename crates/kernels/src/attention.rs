//! Softmax attention over chains of runs, forward and backward.

use std::ops::Range;

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
