//! Near-duplicates among the records: candidates band by band, each compared shingle by shingle.

use super::stored::{line, read_entry, row_id};
use super::{NearPolicy, Pipeline};
use crate::DataError;
use crate::near::{self, BitLimits, Nearness, SketchBits, UnionFind, fold};
use crate::spill::Sorted;
use crate::split::{NONE, SourceRole};
use crate::steps::Reason;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Bytes of records whose shingles are compared at a time.
const COMPARED_BYTES: usize = 8 << 20;
/// Rows of buckets that are gathered before their pairs are looked at.
const GATHERED_ROWS: usize = 1 << 20;
/// Pairs that turned out not to be near and are remembered, so that the next band does not compare them again.
const REMEMBERED_PAIRS: usize = 1 << 20;

impl<'a, E: From<DataError> + Send> Pipeline<'a, E> {
    /// Near-duplicates: candidates of each band in turn, compared shingle by shingle. Pairs that are known to be of one
    /// cluster already are not compared again.
    pub(super) fn near(&mut self, text: &[u32]) -> Result<Near, DataError> {
        let Some((nearness, policy)) = self.steps.near else { return Ok(Near { class: vec![NONE; text.len()], ..Near::default() }) };
        let rows = self.rows.start.len();
        let mut sets = NearSets::new(rows);
        let bits = std::mem::take(&mut self.rows.bits);
        for sorter in std::mem::take(&mut self.bands) {
            let mut sorted = sorter.sorted()?;
            let mut buckets = Buckets::default();
            // Buckets are gathered, then looked at on all threads, then compared, because comparing reads the records.
            while buckets.gather(&mut sorted, &self.rows.role)? {
                let mut pairs = buckets.pairs(&bits, BitLimits::new(nearness.jaccard), &sets);
                self.compare(&mut pairs, &nearness, &mut sets)?;
            }
        }
        drop(bits);
        let mut report = NearReport { compared: sets.compared, ..NearReport::default() };
        let mut sizes: HashMap<u32, u32> = HashMap::new();
        let mut class = vec![NONE; rows];
        for row in (0..rows as u32).filter(|row| self.rows.role[*row as usize].is_some()) {
            let root = sets.all.root(row);
            class[row as usize] = root;
            *sizes.entry(root).or_default() += 1;
        }
        sizes.retain(|_, size| *size > 1);
        report.clusters = sizes.len() as u64;
        report.records = sizes.values().map(|size| u64::from(*size)).sum();
        report.largest = sizes.values().copied().max().unwrap_or(0).into();
        for class in class.iter_mut().filter(|class| !sizes.contains_key(class)) {
            *class = NONE;
        }
        let mut examples: Vec<(u32, (u32, f64))> = sets.matched.iter().map(|(row, with)| (*row, *with)).collect();
        examples.sort_unstable_by_key(|(row, _)| *row);
        for (row, (other, jaccard)) in examples.iter().take(NEAR_EXAMPLES) {
            let ids = (row_id(&mut self.records, &self.rows, *other)?, row_id(&mut self.records, &self.rows, *row)?);
            report.examples.push((ids.0, ids.1, *jaccard));
        }
        if policy == NearPolicy::Drop {
            for row in 0..rows as u32 {
                let kept = sets.alike.root(row);
                if self.rows.role[row as usize].is_none() || kept == row {
                    continue;
                }
                // Training gives way to what is held out, in the split; here one row of the same use goes for another.
                if self.rows.role[row as usize] != self.rows.role[kept as usize] {
                    continue;
                }
                let (other, jaccard) = sets.matched.get(&row).copied().unwrap_or((kept, 1.0));
                let related = if other == kept { vec![kept] } else { vec![kept, other] };
                self.reject(row, "near_duplicates", Reason::NearDuplicate { thousandths: (1000.0 * jaccard) as u32 }, &related)?;
            }
        }
        Ok(Near { class, report })
    }

    /// Compares pairs and joins those that are near; `pairs` is empty afterwards.
    fn compare(&mut self, pairs: &mut Vec<(u32, u32)>, nearness: &Nearness, sets: &mut NearSets) -> Result<(), DataError> {
        pairs.sort_unstable();
        pairs.dedup();
        pairs.retain(|pair| !sets.apart.contains(pair));
        let mut rest = pairs.as_slice();
        while !rest.is_empty() {
            // As many pairs as their texts fit.
            let (mut count, mut bytes) = (0, 0);
            let mut lines: HashMap<u32, usize> = HashMap::new();
            let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
            for (a, b) in rest {
                if count > 0 && bytes > COMPARED_BYTES {
                    break;
                }
                count += 1;
                for row in [*a, *b] {
                    if let std::collections::hash_map::Entry::Vacant(place) = lines.entry(row) {
                        let line = line(&mut self.records, &self.rows.start, row)?;
                        bytes += line.len();
                        place.insert(entries.len());
                        entries.push((row, line));
                    }
                }
            }
            let (now, later) = rest.split_at(count);
            rest = later;
            let shingled: Vec<(Vec<u64>, Vec<u64>)> = entries
                .par_iter()
                .map(|(_, line)| {
                    let record = read_entry(line)?;
                    let set = |text: &str| nearness.shingles.set(&fold(text));
                    Ok((set(&record.asked()), set(&record.answer.to_text())))
                })
                .collect::<Result<_, DataError>>()?;
            let similar: Vec<(f64, bool)> = now
                .par_iter()
                .map(|(a, b)| {
                    let (a, b) = (&shingled[lines[a]], &shingled[lines[b]]);
                    let alike = a.1 == b.1 || near::jaccard(&a.1, &b.1) >= nearness.jaccard;
                    (near::jaccard(&a.0, &b.0), alike)
                })
                .collect();
            sets.compared += now.len() as u64;
            for ((a, b), (jaccard, alike)) in now.iter().zip(similar) {
                if jaccard < nearness.jaccard || !alike {
                    if sets.apart.len() >= REMEMBERED_PAIRS {
                        sets.apart.clear();
                    }
                    sets.apart.insert((*a, *b));
                }
                if jaccard < nearness.jaccard {
                    continue;
                }
                sets.all.join(*a, *b);
                if alike && sets.alike.join(*a, *b) {
                    sets.matched.entry(*b).or_insert((*a, jaccard));
                }
            }
        }
        pairs.clear();
        Ok(())
    }
}

/// Near-duplicate pairs that are shown as examples.
const NEAR_EXAMPLES: usize = 5;

struct NearSets {
    /// Nearly the same question.
    all: UnionFind,
    /// Nearly the same question and answer.
    alike: UnionFind,
    /// For a row, an earlier one that it is near, and how near.
    matched: HashMap<u32, (u32, f64)>,
    compared: u64,
    /// Pairs that were compared and are not alike.
    apart: HashSet<(u32, u32)>,
}

impl NearSets {
    fn new(rows: usize) -> Self {
        let (all, alike) = (UnionFind::new(rows), UnionFind::new(rows));
        Self { all, alike, matched: HashMap::new(), compared: 0, apart: HashSet::new() }
    }
}

/// Rows that agree on a band, bucket by bucket.
#[derive(Default)]
struct Buckets {
    rows: Vec<u32>,
    /// Where each bucket ends among the rows.
    ends: Vec<usize>,
}

impl Buckets {
    /// Takes the next buckets in place of those it has; false if there are none. `role` says which rows are still there.
    fn gather(&mut self, sorted: &mut Sorted<12>, role: &[Option<SourceRole>]) -> Result<bool, DataError> {
        self.rows.clear();
        self.ends.clear();
        while self.rows.len() < GATHERED_ROWS {
            let begin = self.rows.len();
            if !sorted.next_equal(&mut |row| {
                if role[row as usize].is_some() {
                    self.rows.push(row);
                }
            })? {
                break;
            }
            match self.rows.len() - begin {
                0 | 1 => self.rows.truncate(begin),
                _ => self.ends.push(self.rows.len()),
            }
        }
        Ok(!self.rows.is_empty())
    }

    /// Pairs that may be near by their sketches' bits and are not known to be alike already.
    fn pairs(&self, bits: &[SketchBits], limits: BitLimits, sets: &NearSets) -> Vec<(u32, u32)> {
        let of_bucket = |index: usize| {
            let begin = if index == 0 { 0 } else { self.ends[index - 1] };
            let rows = &self.rows[begin..self.ends[index]];
            let gathered: Vec<(u32, SketchBits)> = rows.iter().map(|row| (sets.alike.find(*row), bits[*row as usize])).collect();
            let maybe = |i: usize, j: usize| gathered[i].0 != gathered[j].0 && limits.may_be_near(&gathered[i].1, &gathered[j].1);
            let mut pairs = Vec::new();
            near::bucket_pairs(rows, maybe, |a, b| pairs.push((a, b)));
            pairs
        };
        (0..self.ends.len()).into_par_iter().with_min_len(64).flat_map_iter(of_bucket).collect()
    }
}

#[derive(Default)]
pub(super) struct Near {
    pub(super) class: Vec<u32>,
    pub(super) report: NearReport,
}

/// What was found about near-duplicates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NearReport {
    /// Clusters of records with nearly the same question.
    pub clusters: u64,
    /// Records in them.
    pub records: u64,
    /// Records of the largest.
    pub largest: u64,
    /// Candidate pairs that were compared.
    pub compared: u64,
    /// A few pairs of ids with their Jaccard similarity.
    pub examples: Vec<(String, String, f64)>,
}
