//! Token sequences that share beginnings, as segments: what is shared is computed once.
//!
//! The sequences are sorted and cut where they part. A shared stretch becomes a segment whose children
//! continue it; what only one sequence has is a segment of its own:
//!
//! ```
//! use engine::trie::Trie;
//! let trie = Trie::build(&[&[1, 2, 3, 4], &[1, 2, 5], &[9]], 1, 16);
//! assert_eq!(trie.tokens, [1, 2, 3, 4, 5, 9]);          // six rows instead of eight
//! assert_eq!(trie.rows[1], [0, 1, 4]);                  // the second sequence's rows
//! assert_eq!(trie.segments[2].parent, Some(0));         // its own token continues the shared two
//! ```

use crate::batch::{Batch, LossEntry, MAX_DEPTH, Segment};

/// Rows and segments of a set of sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trie {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Segments, parents first.
    pub segments: Vec<Segment>,
    /// For every sequence given, the row of each of its tokens.
    pub rows: Vec<Vec<u32>>,
}

impl Trie {
    /// Shares every common beginning that is at least `min_shared` tokens longer than the one before it, in
    /// chains of at most `max_depth` segments. An empty sequence has no rows.
    pub fn build(sequences: &[&[u32]], min_shared: usize, max_depth: usize) -> Trie {
        let mut trie = Trie { rows: vec![Vec::new(); sequences.len()], ..Trie::default() };
        trie.extend(sequences, None, 0, min_shared, max_depth);
        trie
    }

    /// Adds sequences that continue the segment `parent` (or start), whose positions begin at `position`;
    /// returns the rows of each. `max_depth` counts the ancestors.
    pub fn append(
        &mut self,
        sequences: &[&[u32]],
        parent: Option<usize>,
        position: usize,
        min_shared: usize,
        max_depth: usize,
    ) -> Vec<Vec<u32>> {
        let before = std::mem::replace(&mut self.rows, vec![Vec::new(); sequences.len()]);
        self.extend(sequences, parent, position, min_shared, max_depth);
        std::mem::replace(&mut self.rows, before)
    }

    fn extend(&mut self, sequences: &[&[u32]], parent: Option<usize>, position: usize, min_shared: usize, max_depth: usize) {
        assert!((1..=MAX_DEPTH).contains(&max_depth), "depth {max_depth}");
        let mut order: Vec<usize> = (0..sequences.len()).filter(|&i| !sequences[i].is_empty()).collect();
        order.sort_by_key(|&i| sequences[i]);
        let depth = std::iter::successors(parent, |&segment| self.segments[segment].parent).count();
        let shape = Shape { sequences, min_shared: min_shared.max(1), max_depth, position };
        self.place(&shape, &order, 0, parent, depth);
    }

    /// Lays out `group` (sorted) from token `start` on, below `parent`, which is `depth` segments deep.
    fn place(&mut self, shape: &Shape<'_>, group: &[usize], start: usize, parent: Option<usize>, depth: usize) {
        let Some((&first, &last)) = group.first().zip(group.last()) else { return };
        let shared = common(shape.sequences[first], shape.sequences[last]);
        let all_equal = shape.sequences[first].len() == shape.sequences[last].len() && shared == shape.sequences[first].len();
        if all_equal {
            self.segment(shape, group, start..shared, parent);
        } else if shared - start >= shape.min_shared && depth + 1 < shape.max_depth {
            let segment = self.segment(shape, group, start..shared, parent);
            for part in group.chunk_by(|&a, &b| shape.sequences[a].get(shared) == shape.sequences[b].get(shared)) {
                if shape.sequences[part[0]].len() > shared {
                    self.place(shape, part, shared, Some(segment), depth + 1);
                }
            }
        } else {
            // Too little to share, or too deep: each part begins again where this one would have.
            let deepest = depth + 1 >= shape.max_depth;
            let same = |&a: &usize, &b: &usize| {
                let (a, b) = (shape.sequences[a], shape.sequences[b]);
                if deepest { a == b } else { a.get(shared) == b.get(shared) }
            };
            for part in group.chunk_by(same) {
                self.place(shape, part, start, parent, depth);
            }
        }
    }

    /// A segment of the tokens `range` that `group` has in common; nothing where `range` is empty.
    fn segment(&mut self, shape: &Shape<'_>, group: &[usize], range: std::ops::Range<usize>, parent: Option<usize>) -> usize {
        let first = self.tokens.len();
        if range.is_empty() {
            return parent.expect("an empty range continues something");
        }
        self.tokens.extend_from_slice(&shape.sequences[group[0]][range.clone()]);
        self.positions.extend(range.clone().map(|i| (shape.position + i) as u32));
        for &sequence in group {
            self.rows[sequence].extend((first..self.tokens.len()).map(|row| row as u32));
        }
        self.segments.push(Segment { rows: first..self.tokens.len(), parent });
        self.segments.len() - 1
    }

    /// As a batch with these entries and no dropout.
    pub fn batch<'a>(&'a self, entries: &'a [LossEntry]) -> Batch<'a> {
        Batch { tokens: &self.tokens, positions: &self.positions, draw_keys: &[], segments: &self.segments, passes: &[], entries }
    }
}

/// What stays the same on the way down.
struct Shape<'a> {
    sequences: &'a [&'a [u32]],
    min_shared: usize,
    max_depth: usize,
    position: usize,
}

/// How many tokens `a` and `b` begin with in common.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::PassLimits,
        random::{self, Purpose},
    };

    fn check(sequences: &[&[u32]], min_shared: usize, max_depth: usize) -> Trie {
        let trie = Trie::build(sequences, min_shared, max_depth);
        let limits = PassLimits::dense(trie.tokens.len());
        trie.batch(&[]).validate(u32::MAX as usize, &limits).expect("a sound batch");
        let mut depths = Vec::new();
        for segment in &trie.segments {
            depths.push(segment.parent.map_or(1, |parent: usize| depths[parent] + 1));
        }
        assert!(depths.iter().all(|&depth| depth <= max_depth), "{depths:?}");
        for (sequence, rows) in sequences.iter().zip(&trie.rows) {
            let tokens: Vec<u32> = rows.iter().map(|&row| trie.tokens[row as usize]).collect();
            assert_eq!(&tokens, sequence);
            assert!(rows.iter().enumerate().all(|(i, &row)| trie.positions[row as usize] == i as u32));
            // a row's segment chain is exactly the sequence so far
            let mut chain = Vec::new();
            let mut next = rows.last().and_then(|&row| trie.segments.iter().position(|s| s.rows.contains(&(row as usize))));
            while let Some(segment) = next {
                chain.splice(0..0, trie.segments[segment].rows.clone().map(|row| row as u32));
                next = trie.segments[segment].parent;
            }
            chain.truncate(rows.len());
            assert_eq!(&chain, rows);
        }
        trie
    }

    #[test]
    fn shares_what_is_common() {
        assert_eq!(check(&[&[1, 2, 3], &[1, 2, 4], &[1, 5]], 1, 16).tokens.len(), 5);
        assert_eq!(check(&[&[1, 2, 3], &[1, 2, 4], &[1, 5]], 2, 16).tokens.len(), 6);
        assert_eq!(check(&[&[1, 2, 3], &[1, 2, 4], &[1, 5]], 3, 16).tokens.len(), 8);
        assert_eq!(check(&[&[1, 2], &[1, 2], &[1, 2, 3], &[]], 1, 16).tokens, [1, 2, 3]);
        assert_eq!(check(&[], 1, 16), Trie::default());
    }

    #[test]
    fn deep_tries_stay_within_the_depth() {
        let long: Vec<u32> = (0..40).collect();
        let sequences: Vec<&[u32]> = (1..=40).map(|n| &long[..n]).collect();
        assert_eq!(check(&sequences, 1, 16).segments.len(), 15 + 25);
        check(&sequences, 1, 1);
        check(&sequences, 4, 3);
    }

    #[test]
    fn random_sets_keep_their_sequences() {
        for seed in 0..200u64 {
            let key = random::key(seed, Purpose::Test, &[]);
            let draw = |i: u64, below: u64| random::bits(key, i) % below;
            let sequences: Vec<Vec<u32>> =
                (0..draw(0, 12)).map(|s| (0..draw(100 + s, 7)).map(|i| draw(1000 + 10 * s + i, 3) as u32).collect()).collect();
            let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            check(&borrowed, 1 + draw(1, 3) as usize, 1 + draw(2, 5) as usize);
        }
    }
}
