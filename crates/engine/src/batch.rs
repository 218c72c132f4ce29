//! What goes into a forward pass: rows, segments that read a chain of ancestors, and loss entries.

use std::ops::Range;

/// Chains are at most this many segments deep, root included.
pub const MAX_DEPTH: usize = 16;

/// A run of consecutive rows that continues its parent's text, or starts one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its rows; segments tile the batch in order, without gaps.
    pub rows: Range<usize>,
    /// Index of the segment that it continues; always a smaller index.
    pub parent: Option<usize>,
}

/// One token whose probability counts: ln p(target | everything up to row).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossEntry {
    /// Row whose output predicts the target; several entries may stand on one row.
    pub row: u32,
    /// Token id that follows.
    pub target: u32,
    /// Weight in the loss.
    pub weight: f32,
    /// Which sequence (record) it belongs to.
    pub sequence: u32,
}

/// A packed batch, borrowed from whoever packed it.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token id of each row.
    pub tokens: &'a [u32],
    /// Position of each row in its text.
    pub positions: &'a [u32],
    /// Key of each row's random draws (record and position; content hash for shared runs).
    pub draw_keys: &'a [u64],
    /// The segments, parents first.
    pub segments: &'a [Segment],
    /// The loss entries, ordered by row.
    pub entries: &'a [LossEntry],
}

/// Which keys each query reads, and an entry of the head: defined beside the arithmetic on them.
pub use kernels::{attention::{Run, RunTable}, head::HeadEntry};

/// Why a batch is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Slices that go together have different lengths.
    #[error("{tokens} tokens but {positions} positions and {keys} draw keys")]
    Lengths { /// Tokens.
        tokens: usize, /// Positions.
        positions: usize, /// Keys.
        keys: usize },
    /// Segments must tile the rows in order.
    #[error("segment {segment} starts at row {start}, expected {expected}")]
    Tiling { /// Segment.
        segment: usize, /// Where it starts.
        start: usize, /// Where the one before ended.
        expected: usize },
    /// A parent must come before its child.
    #[error("segment {segment} names parent {parent}, which does not come before it")]
    Parent { /// Segment.
        segment: usize, /// Its parent.
        parent: usize },
    /// Chains are limited.
    #[error("segment {segment} is {depth} deep, at most {MAX_DEPTH}")]
    Depth { /// Segment.
        segment: usize, /// Its depth.
        depth: usize },
    /// A token or target that the vocabulary does not have.
    #[error("token {token} at row {row}, but the vocabulary has {vocab}")]
    Token { /// Token.
        token: u32, /// Row.
        row: usize, /// Vocabulary.
        vocab: usize },
    /// An entry on a row that is not there, or out of order.
    #[error("loss entry {entry} on row {row}: rows are ordered and there are {rows}")]
    Entry { /// Entry.
        entry: usize, /// Its row.
        row: usize, /// Rows in the batch.
        rows: usize },
    /// Longer than the model or the planned memory allows.
    #[error("{given} rows, at most {limit}")]
    Rows { /// Rows given.
        given: usize, /// The limit.
        limit: usize },
}
