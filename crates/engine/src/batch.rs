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
    /// The rows of each pass, tiling the batch; empty: one pass over all of it. Of several, keys and values of the first
    /// one stay, and the segments of every other continue segments of the first or of their own pass: what many records
    /// share is computed once, and only one of the others is in memory at a time.
    pub passes: &'a [Range<usize>],
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
    /// Passes must tile the rows in order, and no segment may lie in two.
    #[error(
        "pass {pass} begins at row {start} and ends at row {end}; expected one that begins at row {expected}, where the one before ended, ends by row {rows} and cuts no segment"
    )]
    Pass {
        /// Pass.
        pass: usize,
        /// Where it starts.
        start: usize,
        /// Where it ends.
        end: usize,
        /// Where the one before ended.
        expected: usize,
        /// Rows in the batch.
        rows: usize,
    },
    /// A segment may only continue what is in memory.
    #[error("segment {segment} continues segment {parent}, which is neither in the first pass nor in its own")]
    PassParent {
        /// Segment.
        segment: usize,
        /// Its parent.
        parent: usize,
    },
    /// Several passes where only one is possible.
    #[error("{given} passes, but memory is laid out for batches of one")]
    Passes {
        /// How many.
        given: usize,
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
    #[error("{given} rows in memory at a time, at most {limit}")]
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
    /// Rows in memory at a time: of one pass, or of the first pass of several and the largest of the others.
    pub rows: usize,
    /// Keys that one row may read: the longest chain, itself included.
    pub chain: usize,
    /// Distinct rows with loss entries in a pass.
    pub head_rows: usize,
    /// Loss entries in a pass.
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
        self.validate_segments(limits)?;
        self.validate_passes()?;
        if self.resident_rows() > limits.rows {
            return Err(BatchError::Rows { given: self.resident_rows(), limit: limits.rows });
        }
        for (row, &token) in self.tokens.iter().enumerate() {
            if token as usize >= vocab {
                return Err(BatchError::Token { token, row, vocab });
            }
        }
        let mut before = 0;
        for (entry, e) in self.entries.iter().enumerate() {
            let row = e.row as usize;
            if row >= rows || row < before {
                return Err(BatchError::Entry { entry, row, rows });
            }
            if e.target as usize >= vocab {
                return Err(BatchError::Token { token: e.target, row, vocab });
            }
            before = row;
        }
        for pass in self.pass_rows() {
            let entries = &self.entries[self.entries_of(&pass)];
            let head_rows = entries.chunk_by(|a, b| a.row == b.row).count();
            if head_rows > limits.head_rows {
                return Err(BatchError::Limit { what: "rows with loss entries", given: head_rows, limit: limits.head_rows });
            }
            if entries.len() > limits.entries {
                return Err(BatchError::Limit { what: "loss entries", given: entries.len(), limit: limits.entries });
            }
        }
        Ok(())
    }

    /// The rows of each pass.
    pub fn pass_rows(&self) -> Vec<Range<usize>> {
        if self.passes.is_empty() { std::iter::once(0..self.tokens.len()).collect() } else { self.passes.to_vec() }
    }

    /// Rows in memory at a time, see [`PassLimits::rows`].
    pub fn resident_rows(&self) -> usize {
        let passes = self.pass_rows();
        passes[0].len() + passes[1..].iter().map(Range::len).max().unwrap_or(0)
    }

    /// Which entries stand on the rows of `pass`; entries are ordered by row.
    pub fn entries_of(&self, pass: &Range<usize>) -> Range<usize> {
        let before = |row: usize| self.entries.partition_point(|entry| (entry.row as usize) < row);
        before(pass.start)..before(pass.end)
    }

    /// Passes tile the rows, cut no segment, and read what is in memory.
    fn validate_passes(&self) -> Result<(), BatchError> {
        let (rows, mut expected, mut segment) = (self.tokens.len(), 0, 0);
        let first = self.passes.first().map_or(rows, |pass| pass.end);
        for (pass, &Range { start, end }) in self.passes.iter().enumerate() {
            let own = segment;
            while segment < self.segments.len() && self.segments[segment].rows.end <= end {
                if let Some(parent) =
                    self.segments[segment].parent.filter(|&parent| parent < own && self.segments[parent].rows.start >= first)
                {
                    return Err(BatchError::PassParent { segment, parent });
                }
                segment += 1;
            }
            let cuts = self.segments.get(segment).is_some_and(|next| next.rows.start < end);
            let last = pass + 1 == self.passes.len();
            if start != expected || end <= start || end > rows || cuts || (last && end != rows) {
                return Err(BatchError::Pass { pass, start, end, expected, rows });
            }
            expected = end;
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

/// The key spans of the segments of one of several passes, by the rows' places in memory: those of the first pass begin at
/// 0, those of any other behind the first's. Queries are counted from the beginning of the pass.
pub fn pass_table(segments: &[Segment], pass: &Range<usize>, first: &Range<usize>) -> RunTable {
    let place = |rows: &Range<usize>| {
        let behind = if rows.start < first.end { 0 } else { first.len() };
        let from = if behind == 0 { 0 } else { pass.start };
        rows.start - from + behind..rows.end - from + behind
    };
    let mut table = RunTable::default();
    for segment in segments.iter().filter(|segment| pass.start <= segment.rows.start && segment.rows.end <= pass.end) {
        let begin = table.spans.len();
        let mut at = Some(segment);
        while let Some(ancestor) = at {
            table.spans.push(place(&ancestor.rows));
            at = ancestor.parent.map(|parent| &segments[parent]);
        }
        table.spans[begin..].reverse();
        table.runs.push(Run { rows: segment.rows.start - pass.start..segment.rows.end - pass.start, spans: begin..table.spans.len() });
    }
    table
}

/// The rows of a pass whose output is asked for: in the last block only they go on after keys and values.
///
/// Of each run they are all rows from the first to the last that is asked for, because a run's queries lie side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeededRows {
    /// Their places among the pass's rows, in order.
    pub rows: Vec<u32>,
    /// Their positions.
    pub positions: Vec<u32>,
    /// Their keys of random draws, where the pass has some.
    pub draw_keys: Vec<u64>,
    /// Their chains; queries are counted among the needed rows.
    pub runs: RunTable,
}

impl NeededRows {
    /// What `asked`, rows of a pass in order, needs of the pass with these runs, positions and draw keys.
    pub fn of(runs: &RunTable, positions: &[u32], draw_keys: &[u64], asked: &[u32]) -> NeededRows {
        let mut needed = NeededRows::default();
        for run in &runs.runs {
            let here = |row: u32| asked.partition_point(|&asked| asked < row);
            let asked = &asked[here(run.rows.start as u32)..here(run.rows.end as u32)];
            let (Some(&first), Some(&last)) = (asked.first(), asked.last()) else { continue };
            let (begin, spans) = (needed.rows.len(), needed.runs.spans.len());
            needed.rows.extend(first..=last);
            needed.runs.spans.extend_from_slice(&runs.spans[run.spans.clone()]);
            // The last query's key is the last that the run's own span has.
            let own = needed.runs.spans.last_mut().expect("a run has its own span");
            own.end -= run.rows.end - 1 - last as usize;
            needed.runs.runs.push(Run { rows: begin..needed.rows.len(), spans: spans..needed.runs.spans.len() });
        }
        needed.positions = needed.rows.iter().map(|&row| positions[row as usize]).collect();
        if !draw_keys.is_empty() {
            needed.draw_keys = needed.rows.iter().map(|&row| draw_keys[row as usize]).collect();
        }
        needed
    }

    /// Where each of `asked` lies among the needed rows.
    pub fn places(&self, asked: &[u32]) -> Vec<u32> {
        asked.iter().map(|row| self.rows.partition_point(|needed| needed < row) as u32).collect()
    }
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
        Batch { tokens: &tokens, positions: &[0; 5], draw_keys: &[], segments, passes: &[], entries }.validate(8, &limits)
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
        assert_eq!(check(&whole, &[], PassLimits { rows: 4, ..limits }), Err(BatchError::Rows { given: 5, limit: 4 }));
    }

    #[test]
    fn chains_are_limited_in_depth() {
        let segments: Vec<Segment> = (0..17).map(|i| segment(i..i + 1, i.checked_sub(1))).collect();
        let tokens = [0; 17];
        let batch = Batch { tokens: &tokens, positions: &[0; 17], draw_keys: &[], segments: &segments, passes: &[], entries: &[] };
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
    fn passes_read_the_first_and_their_own() {
        let segments = [segment(0..2, None), segment(2..3, Some(0)), segment(3..4, Some(0)), segment(4..5, Some(2))];
        let check = |passes: &[Range<usize>], rows| {
            let tokens = [1; 5];
            let batch = Batch { tokens: &tokens, positions: &[0; 5], draw_keys: &[], segments: &segments, passes, entries: &[] };
            batch.validate(8, &PassLimits { rows, ..PassLimits::dense(5) })
        };
        assert_eq!(check(&[0..2, 2..3, 3..5], 4), Ok(()));
        assert_eq!(check(&[0..2, 2..3, 3..5], 3), Err(BatchError::Rows { given: 4, limit: 3 }));
        assert_eq!(check(&[0..2, 2..4, 4..5], 5), Err(BatchError::PassParent { segment: 3, parent: 2 }));
        assert_eq!(check(&[0..1, 1..5], 5), Err(BatchError::Pass { pass: 0, start: 0, end: 1, expected: 0, rows: 5 }));
        assert_eq!(check(&[0..2, 3..5], 5), Err(BatchError::Pass { pass: 1, start: 3, end: 5, expected: 2, rows: 5 }));
        assert_eq!(check(&[0..2, 2..4], 5), Err(BatchError::Pass { pass: 1, start: 2, end: 4, expected: 2, rows: 5 }));

        let table = pass_table(&segments, &(3..5), &(0..2));
        let spans = |i: usize| table.spans[table.runs[i].spans.clone()].to_vec();
        assert_eq!((table.runs[0].rows.clone(), spans(0)), (0..1, vec![0..2, 2..3]));
        assert_eq!((table.runs[1].rows.clone(), spans(1)), (1..2, vec![0..2, 2..3, 3..4]));
        assert_eq!(pass_table(&segments, &(0..5), &(0..5)), run_table(&segments, 0));
    }

    #[test]
    fn entries_share_head_rows() {
        let entry = |row, target| LossEntry { row, target, weight: 1.0, sequence: 0 };
        let (rows, head) = head_entries(&[entry(2, 5), entry(2, 6), entry(7, 1)]);
        assert_eq!(rows, vec![2, 7]);
        assert_eq!(head, vec![HeadEntry { row: 0, target: 5 }, HeadEntry { row: 0, target: 6 }, HeadEntry { row: 1, target: 1 }]);
    }

    #[test]
    fn of_each_run_the_rows_between_the_first_and_the_last_asked_for_are_needed() {
        // A root of two rows, a child of three and one of two, behind a prefix of four.
        let runs = run_table(&[segment(0..2, None), segment(2..5, Some(0)), segment(5..7, Some(0))], 4);
        let needed = NeededRows::of(&runs, &[4, 5, 6, 7, 8, 6, 7], &[10, 11, 12, 13, 14, 15, 16], &[2, 3, 6]);
        assert_eq!(needed.rows, [2, 3, 6]);
        assert_eq!((needed.positions, needed.draw_keys), (vec![6, 7, 7], vec![12, 13, 16]));
        let spans = |run: usize| needed.runs.spans[needed.runs.runs[run].spans.clone()].to_vec();
        // The own span ends with the last query; ancestors are read whole.
        assert_eq!((spans(0), spans(1)), (vec![0..4, 4..6, 6..8], vec![0..4, 4..6, 9..11]));
        assert_eq!(needed.runs.runs.iter().map(|run| run.rows.clone()).collect::<Vec<_>>(), [0..2, 2..3]);

        let between = NeededRows::of(&runs, &[0; 7], &[], &[2, 4]);
        assert_eq!((between.rows.clone(), between.places(&[2, 4])), (vec![2, 3, 4], vec![0, 2]));
        assert_eq!(NeededRows::of(&runs, &[0; 7], &[], &[]), NeededRows::default());
    }
}
