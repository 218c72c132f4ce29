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
pub use kernels::{
    attention::{Run, RunTable},
    head::HeadEntry,
};

/// Why a batch is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Slices that go together have different lengths.
    #[error("{tokens} tokens but {positions} positions and {keys} draw keys")]
    Lengths {
        /// Tokens.
        tokens: usize,
        /// Positions.
        positions: usize,
        /// Keys.
        keys: usize,
    },
    /// Segments must tile the rows in order.
    #[error("segment {segment} starts at row {start}, expected {expected}")]
    Tiling {
        /// Segment.
        segment: usize,
        /// Where it starts.
        start: usize,
        /// Where the one before ended.
        expected: usize,
    },
    /// A parent must come before its child.
    #[error("segment {segment} names parent {parent}, which does not come before it")]
    Parent {
        /// Segment.
        segment: usize,
        /// Its parent.
        parent: usize,
    },
    /// Chains are limited.
    #[error("segment {segment} is {depth} deep, at most {MAX_DEPTH}")]
    Depth {
        /// Segment.
        segment: usize,
        /// Its depth.
        depth: usize,
    },
    /// A token or target that the vocabulary does not have.
    #[error("token {token} at row {row}, but the vocabulary has {vocab}")]
    Token {
        /// Token.
        token: u32,
        /// Row.
        row: usize,
        /// Vocabulary.
        vocab: usize,
    },
    /// An entry on a row that is not there, or out of order.
    #[error("loss entry {entry} on row {row}: rows are ordered and there are {rows}")]
    Entry {
        /// Entry.
        entry: usize,
        /// Its row.
        row: usize,
        /// Rows in the batch.
        rows: usize,
    },
    /// Longer than the model or the planned memory allows.
    #[error("{given} rows, at most {limit}")]
    Rows {
        /// Rows given.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// More of something than was planned for.
    #[error("{given} {what}, at most {limit} were planned for")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch whose purpose is its entries has none.
    #[error("no loss entries in {rows} rows")]
    NoEntries {
        /// Rows.
        rows: usize,
    },
}

/// The largest batches that a pass is laid out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassLimits {
    /// Rows of one pass.
    pub rows: usize,
    /// Keys that one row may read: the longest chain, itself included.
    pub chain: usize,
    /// Distinct rows with loss entries.
    pub head_rows: usize,
    /// Loss entries.
    pub entries: usize,
}

impl PassLimits {
    /// Limits under which any batch of `rows` rows with at most one entry per row is accepted.
    pub fn dense(rows: usize) -> PassLimits {
        PassLimits { rows, chain: rows, head_rows: rows, entries: rows }
    }
}

impl Batch<'_> {
    /// Checks everything that the engine relies on; the first disagreement is returned.
    ///
    /// `draw_keys` may be empty where nothing is drawn (no dropout).
    pub fn validate(&self, vocab: usize, limits: &PassLimits) -> Result<(), BatchError> {
        let rows = self.tokens.len();
        if self.positions.len() != rows || (self.draw_keys.len() != rows && !self.draw_keys.is_empty()) {
            return Err(BatchError::Lengths { tokens: rows, positions: self.positions.len(), keys: self.draw_keys.len() });
        }
        if rows > limits.rows {
            return Err(BatchError::Rows { given: rows, limit: limits.rows });
        }
        self.validate_segments(limits)?;
        for (row, &token) in self.tokens.iter().enumerate() {
            if token as usize >= vocab {
                return Err(BatchError::Token { token, row, vocab });
            }
        }
        let (mut before, mut head_rows) = (0, 0);
        for (entry, e) in self.entries.iter().enumerate() {
            let row = e.row as usize;
            if row >= rows || row < before {
                return Err(BatchError::Entry { entry, row, rows });
            }
            if e.target as usize >= vocab {
                return Err(BatchError::Token { token: e.target, row, vocab });
            }
            head_rows += usize::from(entry == 0 || row != before);
            before = row;
        }
        if head_rows > limits.head_rows {
            return Err(BatchError::Limit { what: "rows with loss entries", given: head_rows, limit: limits.head_rows });
        }
        if self.entries.len() > limits.entries {
            return Err(BatchError::Limit { what: "loss entries", given: self.entries.len(), limit: limits.entries });
        }
        Ok(())
    }

    /// Segments tile the rows; parents come first; chains are neither too deep nor too long.
    fn validate_segments(&self, limits: &PassLimits) -> Result<(), BatchError> {
        let mut expected = 0;
        let mut chains: Vec<(usize, usize)> = Vec::with_capacity(self.segments.len()); // (depth, keys)
        for (segment, s) in self.segments.iter().enumerate() {
            if s.rows.start != expected || s.rows.end <= s.rows.start {
                return Err(BatchError::Tiling { segment, start: s.rows.start, expected });
            }
            expected = s.rows.end;
            let (depth, keys) = match s.parent {
                None => (0, 0),
                Some(parent) if parent < segment => chains[parent],
                Some(parent) => return Err(BatchError::Parent { segment, parent }),
            };
            if depth + 1 > MAX_DEPTH {
                return Err(BatchError::Depth { segment, depth: depth + 1 });
            }
            let keys = keys + s.rows.len();
            if keys > limits.chain {
                return Err(BatchError::Limit { what: "tokens in one text", given: keys, limit: limits.chain });
            }
            chains.push((depth + 1, keys));
        }
        if expected != self.tokens.len() {
            return Err(BatchError::Tiling { segment: self.segments.len(), start: self.tokens.len(), expected });
        }
        Ok(())
    }

    /// Σ of the entries' weights.
    pub fn loss_weight(&self) -> f64 {
        self.entries.iter().map(|e| f64::from(e.weight)).sum()
    }
}

/// The key spans of every segment: its ancestors' rows, root first, then its own.
///
/// With `prefix` > 0 the key rows begin with that many rows of a cached prefix, which every chain reads
/// first; the batch's own rows follow it.
pub fn run_table(segments: &[Segment], prefix: usize) -> RunTable {
    let mut table = RunTable::default();
    for segment in segments {
        let first = table.spans.len();
        match segment.parent {
            None if prefix > 0 => table.spans.push(0..prefix),
            None => {}
            Some(parent) => {
                let ancestors = table.runs[parent].spans.clone();
                table.spans.extend_from_within(ancestors);
            }
        }
        table.spans.push(segment.rows.start + prefix..segment.rows.end + prefix);
        table.runs.push(Run { rows: segment.rows.clone(), spans: first..table.spans.len() });
    }
    table
}

/// Entries as the head wants them: the distinct rows in order, and each entry by its place among them.
pub fn head_entries(entries: &[LossEntry]) -> (Vec<u32>, Vec<HeadEntry>) {
    let mut rows: Vec<u32> = Vec::with_capacity(entries.len());
    let head = entries
        .iter()
        .map(|e| {
            if rows.last() != Some(&e.row) {
                rows.push(e.row);
            }
            HeadEntry { row: rows.len() as u32 - 1, target: e.target }
        })
        .collect();
    (rows, head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(rows: Range<usize>, parent: Option<usize>) -> Segment {
        Segment { rows, parent }
    }

    fn check(segments: &[Segment], entries: &[LossEntry], limits: PassLimits) -> Result<(), BatchError> {
        let tokens = [1, 2, 3, 4, 5];
        Batch { tokens: &tokens, positions: &[0; 5], draw_keys: &[], segments, entries }.validate(8, &limits)
    }

    #[test]
    fn refusals_name_both_sides() {
        let limits = PassLimits::dense(5);
        let whole = [segment(0..5, None)];
        let entry = |row, target| LossEntry { row, target, weight: 1.0, sequence: 0 };
        assert_eq!(check(&whole, &[entry(0, 1), entry(0, 2), entry(4, 7)], limits), Ok(()));
        assert_eq!(check(&whole, &[entry(1, 1), entry(0, 2)], limits), Err(BatchError::Entry { entry: 1, row: 0, rows: 5 }));
        assert_eq!(check(&whole, &[entry(5, 1)], limits), Err(BatchError::Entry { entry: 0, row: 5, rows: 5 }));
        assert_eq!(check(&whole, &[entry(2, 8)], limits), Err(BatchError::Token { token: 8, row: 2, vocab: 8 }));
        assert_eq!(check(&[segment(0..4, None)], &[], limits), Err(BatchError::Tiling { segment: 1, start: 5, expected: 4 }));
        assert_eq!(
            check(&[segment(0..2, None), segment(3..5, None)], &[], limits),
            Err(BatchError::Tiling { segment: 1, start: 3, expected: 2 })
        );
        assert_eq!(check(&[segment(0..2, Some(0)), segment(2..5, None)], &[], limits), Err(BatchError::Parent { segment: 0, parent: 0 }));
        let short = PassLimits { chain: 4, ..limits };
        assert_eq!(
            check(&[segment(0..2, None), segment(2..5, Some(0))], &[], short),
            Err(BatchError::Limit { what: "tokens in one text", given: 5, limit: 4 })
        );
        assert_eq!(check(&whole, &[], PassLimits::dense(4)), Err(BatchError::Rows { given: 5, limit: 4 }));
    }

    #[test]
    fn chains_are_limited_in_depth() {
        let segments: Vec<Segment> = (0..17).map(|i| segment(i..i + 1, i.checked_sub(1))).collect();
        let tokens = [0; 17];
        let batch = Batch { tokens: &tokens, positions: &[0; 17], draw_keys: &[], segments: &segments, entries: &[] };
        assert_eq!(batch.validate(1, &PassLimits::dense(17)), Err(BatchError::Depth { segment: 16, depth: 17 }));
    }

    #[test]
    fn spans_are_the_ancestors_root_first() {
        let segments = [segment(0..3, None), segment(3..5, Some(0)), segment(5..6, Some(1)), segment(6..9, None)];
        let table = run_table(&segments, 0);
        let spans = |i: usize| table.spans[table.runs[i].spans.clone()].to_vec();
        assert_eq!(spans(2), vec![0..3, 3..5, 5..6]);
        assert_eq!(spans(3), vec![6..9]);
        let table = run_table(&segments, 10);
        assert_eq!(table.spans[table.runs[2].spans.clone()].to_vec(), vec![0..10, 10..13, 13..15, 15..16]);
        assert_eq!(table.runs[3].rows, 6..9);
    }

    #[test]
    fn entries_share_head_rows() {
        let entry = |row, target| LossEntry { row, target, weight: 1.0, sequence: 0 };
        let (rows, head) = head_entries(&[entry(2, 5), entry(2, 6), entry(7, 1)]);
        assert_eq!(rows, vec![2, 7]);
        assert_eq!(head, vec![HeadEntry { row: 0, target: 5 }, HeadEntry { row: 0, target: 6 }, HeadEntry { row: 1, target: 1 }]);
    }
}
