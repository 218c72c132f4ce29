//! Token rows to packed batches: records that begin alike share the run of their beginning.
//!
//! A step's records are sorted by their ids, so that those that begin alike stand side by side, and filled into
//! micro-batches. In a micro-batch they form a tree: a beginning that at least two records share, and that is long enough to
//! be worth it, is one segment, and its continuations are the children. What is computed is the tree; what is learned is
//! every entry of every record.
//!
//! Only so many rows are in memory at a time. A tree with more of them comes in several passes: first what many share, whose
//! keys and values stay, then the rest, a part at a time. So a long instruction is computed once in a step, however many
//! records follow it.
//!
//! Which records meet in a step is a function of seed, epoch and record ids; which meet in a micro-batch is a function
//! of that and the plan. Memory, threads and ranks have no say.

use crate::DataError;
use std::ops::Range;

/// Chains of segments are at most this deep, the root included (the engine's limit).
pub const DEPTH_MAX: usize = 16;

/// A record as ids.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow {
    /// Its record.
    pub record_id: String,
    /// Its ids.
    pub ids: Vec<u32>,
    /// For each id the weight with which it counts as a target. The first cannot be one: nothing comes before it.
    pub loss_weights: Vec<f32>,
}

impl TokenRow {
    /// Rows to compute: up to the one that predicts the last target.
    fn computed(&self) -> usize {
        self.loss_weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
    }

    fn check(&self) -> Result<(), DataError> {
        let record = || self.record_id.clone();
        if self.ids.len() != self.loss_weights.len() {
            return Err(DataError::RowLengths { record: record(), ids: self.ids.len(), weights: self.loss_weights.len() });
        }
        match self.loss_weights.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
            None => Ok(()),
            Some(position) => {
                let weight = self.loss_weights[position].to_string();
                Err(DataError::RowWeight { record: record(), weight, position })
            }
        }
    }
}

/// Rows that may be trained on: made by [`crate::TrainSet::rows`].
#[derive(Clone, Debug)]
pub struct TrainRows {
    rows: Vec<TokenRow>,
}

impl TrainRows {
    pub(crate) fn new(rows: Vec<TokenRow>) -> Self {
        Self { rows }
    }

    /// The rows.
    pub fn rows(&self) -> &[TokenRow] {
        &self.rows
    }

    /// Rows that belong to no data set, for benchmarks.
    pub fn synthetic(rows: Vec<TokenRow>) -> Self {
        Self { rows }
    }
}

/// What many records share comes in a pass of its own from this many rows on; shorter ones are as cheap in every micro-batch.
const KEPT_MIN: usize = 64;

/// How rows are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackPlan {
    /// Seed of order and draws.
    pub seed: u64,
    /// Records per optimiser step.
    pub records_per_step: usize,
    /// Most rows in memory at a time: of a micro-batch of one pass, or of the first of several passes and any other.
    pub batch_rows: usize,
    /// Shortest beginning worth sharing, in tokens; None: nothing is shared.
    pub shared_min: Option<usize>,
}

/// A run of rows that continues its parent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSegment {
    /// Its rows.
    pub rows: Range<usize>,
    /// The segment that it continues.
    pub parent: Option<usize>,
}

/// One token whose probability counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedEntry {
    /// Row whose output predicts it.
    pub row: u32,
    /// The token.
    pub target: u32,
    /// Its weight.
    pub weight: f32,
    /// Index in `records`.
    pub sequence: u32,
}

/// A micro-batch.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PackedBatch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its text.
    pub positions: Vec<u32>,
    /// Key of each row's random draws.
    pub draw_keys: Vec<u64>,
    /// Segments, parents first, tiling the rows.
    pub segments: Vec<PackedSegment>,
    /// Rows of each pass, tiling the rows; empty: one pass.
    pub passes: Vec<Range<usize>>,
    /// Entries, ordered by row.
    pub entries: Vec<PackedEntry>,
    /// For each sequence its index in the rows given.
    pub records: Vec<usize>,
    /// Tokens of the sequences written out one by one; `tokens.len()` are computed.
    pub rendered_tokens: usize,
}

impl PackedBatch {
    /// The rows of each pass.
    pub fn pass_rows(&self) -> Vec<Range<usize>> {
        if self.passes.is_empty() { std::iter::once(0..self.tokens.len()).collect() } else { self.passes.clone() }
    }

    /// Rows in memory at a time.
    pub fn resident_rows(&self) -> usize {
        let passes = self.pass_rows();
        passes[0].len() + passes[1..].iter().map(Range::len).max().unwrap_or(0)
    }

    /// Most entries of a pass, and most rows with entries.
    pub fn largest_head(&self) -> (usize, usize) {
        let of_pass = |pass: &Range<usize>| {
            let entries = || self.entries.iter().map(|entry| entry.row as usize).filter(|row| pass.contains(row));
            let mut rows: Vec<usize> = entries().collect();
            rows.dedup();
            (entries().count(), rows.len())
        };
        let heads: Vec<(usize, usize)> = self.pass_rows().iter().map(of_pass).collect();
        let most = |size: fn(&(usize, usize)) -> usize| heads.iter().map(size).max().unwrap_or(0);
        (most(|head| head.0), most(|head| head.1))
    }
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Step {
    /// Its micro-batches.
    pub batches: Vec<PackedBatch>,
    /// Σ of entry weights.
    pub weight: f64,
}

/// The order of an epoch: indices into `rows`, sorted by a hash of seed, epoch and record id.
pub fn order(rows: &TrainRows, seed: u64, epoch: u64) -> Vec<usize> {
    let rows = rows.rows();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_cached_key(|i| (mix(mix(mix(ORDER, seed), epoch), text_key(&rows[*i].record_id)), &rows[*i].record_id, *i));
    order
}

/// Whether a step of `plan` may have a micro-batch of several passes, in some order of the rows.
pub fn several_passes(rows: &TrainRows, plan: &PackPlan) -> bool {
    let Some(shared_min) = plan.shared_min else { return false };
    let mut ids: Vec<&[u32]> = rows.rows.iter().map(|row| &row.ids[..row.computed()]).collect();
    ids.sort_unstable();
    let shared = ids.windows(2).map(|pair| common(pair[0], pair[1])).max().unwrap_or(0);
    ids.sort_by_key(|ids| std::cmp::Reverse(ids.len()));
    let largest_step: usize = ids.iter().take(plan.records_per_step).map(|ids| ids.len()).sum();
    shared >= shared_min.max(1) && largest_step > plan.batch_rows
}

/// Steps in an epoch; the last may have fewer records.
pub fn steps_per_epoch(rows: &TrainRows, plan: &PackPlan) -> usize {
    rows.rows().len().div_ceil(plan.records_per_step.max(1))
}

/// Packs step `step` (from 0) of `epoch` (from 0), given the epoch's [`order`].
pub fn step(rows: &TrainRows, order: &[usize], plan: &PackPlan, epoch: u64, step: usize) -> Result<Step, DataError> {
    if plan.records_per_step == 0 {
        let expected = "at least 1";
        return Err(DataError::Plan { field: "records per step", given: "0".into(), expected });
    }
    let steps = order.len().div_ceil(plan.records_per_step);
    let chosen = order.chunks(plan.records_per_step).nth(step).ok_or(DataError::NoSuchStep { given: step, steps })?;
    let draws = Draws { seed: plan.seed, epoch };
    let batches = pack(rows.rows(), chosen.to_vec(), plan.batch_rows, plan.shared_min, Some(draws))?;
    let weight = batches.iter().flat_map(|batch| &batch.entries).map(|entry| f64::from(entry.weight)).sum();
    Ok(Step { batches, weight })
}

/// Packs rows for scoring (validation loss, labels after one prompt, few-shot): sorted as they share most, draw keys 0.
pub fn pack_for_scoring(rows: &[TokenRow], batch_rows: usize, shared_min: Option<usize>) -> Result<Vec<PackedBatch>, DataError> {
    pack(rows, (0..rows.len()).collect(), batch_rows, shared_min, None)
}

fn pack(
    rows: &[TokenRow],
    mut chosen: Vec<usize>,
    batch_rows: usize,
    shared_min: Option<usize>,
    draws: Option<Draws>,
) -> Result<Vec<PackedBatch>, DataError> {
    for &i in &chosen {
        rows[i].check()?;
        let given = rows[i].computed();
        if given > batch_rows {
            return Err(DataError::RowTooLong { record: rows[i].record_id.clone(), given, limit: batch_rows });
        }
    }
    let key = |i: usize| (&rows[i].ids[..rows[i].computed()], &rows[i].ids, &rows[i].record_id, i);
    chosen.sort_by(|a, b| key(*a).cmp(&key(*b)));
    let shared_min = shared_min.map_or(usize::MAX, |min| min.max(1));
    let (mut batches, mut rest) = (Vec::new(), chosen.as_slice());
    while !rest.is_empty() {
        let tree = |count: usize| Tree::of(rows, &rest[..count], shared_min);
        let in_memory = |count: usize| tree(count).rows <= batch_rows || (draws.is_some() && tree(count).passes(batch_rows).is_some());
        // Rows grow with records: double, then halve the difference.
        let (mut fits, mut above) = (1, 2);
        while above <= rest.len() && in_memory(above) {
            (fits, above) = (above, 2 * above);
        }
        if in_memory(rest.len()) {
            (fits, above) = (rest.len(), rest.len() + 1);
        }
        above = above.min(rest.len() + 1);
        while above - fits > 1 {
            let middle = fits + (above - fits) / 2;
            if in_memory(middle) { fits = middle } else { above = middle }
        }
        batches.push(tree(fits).batch(rows, &rest[..fits], draws.as_ref(), batch_rows));
        rest = &rest[fits..];
    }
    Ok(batches)
}

/// A segment of a tree: tokens `span` of sequence `of`.
struct Node {
    parent: Option<usize>,
    of: usize,
    span: Range<usize>,
    shared: bool,
}

/// Sequences as a tree of segments, parents first.
struct Tree {
    nodes: Vec<Node>,
    /// Each sequence's last segment; none if it has no rows.
    leaves: Vec<Option<usize>>,
    rows: usize,
}

/// Sequences that are alike up to `from`, which stands in the segment `parent` with `depth - 1` others above it.
struct Open {
    group: Range<usize>,
    from: usize,
    parent: Option<usize>,
    depth: usize,
}

impl Tree {
    /// `chosen` is sorted by computed ids, so that sequences that begin alike are neighbours, the shortest first.
    fn of(rows: &[TokenRow], chosen: &[usize], shared_min: usize) -> Self {
        let ids: Vec<&[u32]> = chosen.iter().map(|i| &rows[*i].ids[..rows[*i].computed()]).collect();
        let mut tree = Tree { nodes: Vec::new(), leaves: vec![None; ids.len()], rows: 0 };
        let mut stack = vec![Open { group: 0..ids.len(), from: 0, parent: None, depth: 0 }];
        while let Some(Open { group, from, parent, depth }) = stack.pop() {
            let until = common(ids[group.start], ids[group.end - 1]);
            let shared = group.len() > 1 && until - from >= shared_min && depth + 2 <= DEPTH_MAX;
            let (from, parent, depth) =
                if shared { (until, Some(tree.push(parent, group.start, from..until, true)), depth + 1) } else { (from, parent, depth) };
            let ended = group.start + ids[group.clone()].partition_point(|sequence| sequence.len() == until);
            for i in group.start..ended {
                let own = (until > from).then(|| tree.push(parent, i, from..until, false));
                tree.leaves[i] = own.or(parent);
            }
            // The others part here; taken from the stack in their order.
            let opened = stack.len();
            let mut start = ended;
            while start < group.end {
                let part = ids[start..group.end].partition_point(|sequence| sequence[until] == ids[start][until]);
                stack.push(Open { group: start..start + part, from, parent, depth });
                start += part;
            }
            stack[opened..].reverse();
        }
        tree
    }

    fn push(&mut self, parent: Option<usize>, of: usize, span: Range<usize>, shared: bool) -> usize {
        self.rows += span.len();
        self.nodes.push(Node { parent, of, span, shared });
        self.nodes.len() - 1
    }

    /// The nodes of each pass, so that at most `batch_rows` rows are in memory at a time: first those that are shared by more
    /// than fits beside them, then the others, whole subtrees together. None where that is impossible or saves too little.
    fn passes(&self, batch_rows: usize) -> Option<Vec<Vec<usize>>> {
        let mut below: Vec<usize> = self.nodes.iter().map(|node| node.span.len()).collect();
        for i in (0..self.nodes.len()).rev() {
            if let Some(parent) = self.nodes[i].parent {
                below[parent] += below[i];
            }
        }
        // A subtree that is no larger than this stays together.
        let whole = batch_rows / 8;
        let kept: Vec<usize> = (0..self.nodes.len()).filter(|&i| self.nodes[i].shared && below[i] > whole).collect();
        let kept_rows: usize = kept.iter().map(|&i| self.nodes[i].span.len()).sum();
        let room = batch_rows.checked_sub(kept_rows).filter(|_| kept_rows >= KEPT_MIN)?;
        // Subtrees follow each other in the order of their nodes; each begins below a kept node, or at a root.
        let mut units: Vec<(usize, Vec<usize>)> = Vec::new();
        for (i, node) in self.nodes.iter().enumerate().filter(|(i, _)| kept.binary_search(i).is_err()) {
            if node.parent.is_none_or(|parent| kept.binary_search(&parent).is_ok()) {
                units.push((below[i], Vec::new()));
            }
            units.last_mut()?.1.push(i);
        }
        let largest = units.iter().map(|(rows, _)| *rows).max()?;
        if largest > room {
            return None;
        }
        // As few passes as there must be, and those as equal as can be.
        let count = |room: usize| {
            let (mut passes, mut free) = (0, 0);
            for (rows, _) in &units {
                if free < *rows {
                    (passes, free) = (passes + 1, room);
                }
                free -= rows;
            }
            passes
        };
        let (fewest, mut low, mut high) = (count(room), largest, room);
        while low < high {
            let middle = low + (high - low) / 2;
            if count(middle) == fewest { high = middle } else { low = middle + 1 }
        }
        let (mut passes, mut free) = (vec![kept], 0);
        for (rows, nodes) in units {
            if free < rows {
                passes.push(Vec::new());
                free = high;
            }
            free -= rows;
            passes.last_mut()?.extend(nodes);
        }
        Some(passes)
    }

    fn batch(&self, rows: &[TokenRow], chosen: &[usize], draws: Option<&Draws>, batch_rows: usize) -> PackedBatch {
        let mut batch = PackedBatch { records: chosen.to_vec(), ..PackedBatch::default() };
        let passes = if self.rows > batch_rows { self.passes(batch_rows) } else { None };
        if let Some(passes) = &passes {
            let mut end = 0;
            for pass in passes {
                let start = end;
                end += pass.iter().map(|&i| self.nodes[i].span.len()).sum::<usize>();
                batch.passes.push(start..end);
            }
        }
        let order = passes.map_or_else(|| (0..self.nodes.len()).collect(), |passes| passes.concat());
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &i)| place[i] = at);
        for node in order.iter().map(|&i| &self.nodes[i]) {
            let row = &rows[chosen[node.of]];
            let start = batch.tokens.len();
            batch.tokens.extend(&row.ids[node.span.clone()]);
            batch.positions.extend(node.span.clone().map(|position| position as u32));
            match draws {
                Some(draws) => draws.keys(row, node, &mut batch.draw_keys),
                None => batch.draw_keys.resize(batch.tokens.len(), 0),
            }
            batch.segments.push(PackedSegment { rows: start..batch.tokens.len(), parent: node.parent.map(|parent| place[parent]) });
        }
        for (sequence, (leaf, i)) in self.leaves.iter().zip(chosen).enumerate() {
            let row = &rows[*i];
            batch.rendered_tokens += row.ids.len();
            let mut segment = *leaf;
            while let Some(at) = segment {
                let (span, start) = (self.nodes[at].span.clone(), batch.segments[place[at]].rows.start);
                for position in span.clone().filter(|position| row.loss_weights[position + 1] > 0.0) {
                    batch.entries.push(PackedEntry {
                        row: (start + position - span.start) as u32,
                        target: row.ids[position + 1],
                        weight: row.loss_weights[position + 1],
                        sequence: sequence as u32,
                    });
                }
                segment = self.nodes[at].parent;
            }
        }
        batch.entries.sort_by_key(|entry| (entry.row, entry.sequence));
        batch
    }
}

/// How many tokens two sequences begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

const ORDER: u64 = 0x6f72_6465_7200_0001;
const OWN_ROW: u64 = 0x6f77_6e5f_726f_7701;
const SHARED_ROW: u64 = 0x7368_6172_6564_0001;

/// Names each row's random draws: a record's own rows by record and position, shared ones by what they say up to there,
/// so that they are the same whichever records share them.
struct Draws {
    seed: u64,
    epoch: u64,
}

impl Draws {
    fn keys(&self, row: &TokenRow, node: &Node, keys: &mut Vec<u64>) {
        let purpose = if node.shared { SHARED_ROW } else { OWN_ROW };
        let base = mix(mix(purpose, self.seed), self.epoch);
        if node.shared {
            let mut content = 0;
            for (position, id) in row.ids[..node.span.end].iter().enumerate() {
                content = mix(content, u64::from(*id));
                if position >= node.span.start {
                    keys.push(mix(mix(base, content), position as u64));
                }
            }
        } else {
            let record = mix(base, text_key(&row.record_id));
            keys.extend(node.span.clone().map(|position| mix(record, position as u64)));
        }
    }
}

/// Mixes a number into a key (splitmix64's finaliser).
fn mix(key: u64, number: u64) -> u64 {
    let mut z = key.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_add(number.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A text as a number: the first eight bytes of its BLAKE3 hash.
fn text_key(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
}
