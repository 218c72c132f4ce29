//! From documents to a split set of records, in two passes, in memory that hardly grows with the input.
//!
//! The first pass ([`Pipeline::source`]) takes documents in order, makes records of them on all threads, and keeps of
//! each about fifty bytes in memory; the record itself, and the hashes by which it is compared with the others, go to
//! scratch files ([`Spill`]). [`Pipeline::finish`] sorts the hashes, so that duplicates, groups and candidates stand
//! side by side, and decides what is dropped and where each record goes. The second pass ([`Finished::records`]) reads
//! the records once more and hands them out.
//!
//! Nothing depends on the number of threads: documents are worked on in chunks of a fixed size, results are taken in
//! their order, and whatever is compared is compared in an order given by content or row.

mod passages;

pub use passages::{Contaminated, PassageReport, Passages};

use crate::clean::{Clean, Findings, Outdated, day};
use crate::near::{self, Nearness, UnionFind, band_keys, fold, hash_bytes};
use crate::record::{ColumnKind, Head, Maker};
use crate::spill::{Log, Sorter, Spill};
use crate::split::{Dealt, Keys, NONE, Part, SourceRole, SplitPlan, SplitReport, Table, naive_key};
use crate::steps::{Conflict, Policy, Reason, asks_nothing};
use crate::{DataError, Document, Item, Record, RecordRecipe, Rejected, Shape, Value, wire};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Rows of a chunk, at most.
const CHUNK_DOCUMENTS: usize = 2048;
/// Bytes of a chunk, about at most.
const CHUNK_BYTES: usize = 4 << 20;
/// More records than this are refused: rows are numbered with 32 bits.
pub const MAX_RECORDS: usize = (u32::MAX - 1) as usize;
/// More distinct answers than this are free text, not classes.
const ANSWERS_MAX: usize = 1 << 16;
/// An answer of more bytes than this is no class.
const ANSWER_BYTES_MAX: usize = 1 << 10;
/// Memory of the sorter of each kind of hash, in bytes.
const HASH_BYTES: usize = 24 << 20;
/// Memory of the sorters of all bands together, in bytes.
const BANDS_BYTES: usize = 96 << 20;
/// Bytes of records whose shingles are compared at a time.
const COMPARED_BYTES: usize = 8 << 20;
/// Reasons that are given in full where no record is left.
const REASONS_SHOWN: usize = 3;
/// Pairs that are compared at a time.
const COMPARED_PAIRS: usize = 1 << 14;

/// What happens to near-duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NearPolicy {
    /// Counted only.
    Report,
    /// All stay, on one side of the split.
    Together,
    /// The first of each cluster stays, of those that are answered nearly alike.
    Drop,
}

/// What is done with each record, and with the records as a set.
#[derive(Clone, Debug)]
pub struct Steps {
    /// Each record alone.
    pub clean: Clean,
    /// Rows that are not valid any more.
    pub outdated: Option<Outdated>,
    /// Only columns of which records are made are kept with the documents.
    pub minimise: bool,
    /// The same question and answer, up to white space.
    pub duplicates: Policy,
    /// The same question with different answers.
    pub conflicts: Policy,
    /// Nearly the same question; `None` is not looked for.
    pub near: Option<(Nearness, NearPolicy)>,
    /// Long passages in several records; `None` is not looked for.
    pub passages: Option<Passages>,
    /// Rows that are held out as near out of distribution.
    pub near_ood: Option<Outside>,
    /// How it is split.
    pub split: SplitPlan,
}

/// Rows of the same task from another time or group, which are measured on and never trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The column that says so.
    pub column: String,
    /// Rows from this day on, as `2026-11-24`.
    pub from: Option<String>,
    /// Rows with one of these values.
    pub values: Vec<String>,
}

impl Outside {
    fn holds(&self, document: &Document) -> bool {
        let Some(text) = document.field(&self.column).map(Value::to_text) else { return false };
        let text = text.trim();
        let late = self.from.as_deref().is_some_and(|from| day(text).is_some_and(|day| day >= from));
        late || self.values.iter().any(|value| value == text)
    }
}

/// Which rows are versions of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions<'a> {
    /// Column that names the thing.
    pub of: &'a str,
    /// Column with the version: numbers (`v1.10`), a date, or letters.
    pub version: &'a str,
}

/// How the records of one source are made and drawn.
#[derive(Clone, Debug)]
pub struct SourcePlan<'a> {
    /// Its name.
    pub source: &'a str,
    /// How documents become records.
    pub recipe: &'a RecordRecipe,
    /// How target columns are typed.
    pub kinds: &'a [(String, ColumnKind)],
    /// Whether values have types.
    pub typed: bool,
    /// What it is for.
    pub role: SourceRole,
    /// At most so many records, drawn by the seed; 0: all.
    pub limit: usize,
    /// At most so many records of each stratum, drawn by the seed; 0: all.
    pub limit_per_class: usize,
    /// Rows that are versions of one thing, of which the last stays.
    pub versions: Option<Versions<'a>>,
}

/// What a source turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// Rows read.
    pub rows: u64,
    /// The shape of its rows.
    pub shape: Shape,
    /// The columns of its first rows.
    pub columns: Vec<String>,
}

/// A reason to reject a record that only the caller knows, such as its length in tokens.
pub type Check<'a, E> = dyn Fn(&Record) -> Result<Option<(&'static str, Reason)>, E> + Sync + 'a;

/// The first pass. See the module's documentation.
pub struct Pipeline<'a, E> {
    steps: Steps,
    check: &'a Check<'a, E>,
    pool: Arc<rayon::ThreadPool>,
    rows: Rows,
    records: Log,
    keys: Log,
    documents: Log,
    rejects: Rejects,
    findings: BTreeMap<(&'static str, String), u64>,
    ids: Sorter<'a, 20>,
    contents: Sorter<'a, 20>,
    inputs: Sorter<'a, 20>,
    texts: Sorter<'a, 20>,
    groups: Sorter<'a, 20>,
    bands: Vec<Sorter<'a, 12>>,
    passages: Sorter<'a, 12>,
    versions: Sorter<'a, 36>,
    answers: HashMap<u64, u32>,
    answer_names: Vec<Option<String>>,
    strata: HashMap<String, u32>,
}

/// What is kept of each record, by row.
#[derive(Default)]
struct Rows {
    /// Where it begins among the records.
    start: Vec<u64>,
    role: Vec<Option<SourceRole>>,
    answer: Vec<u32>,
    stratum: Vec<u32>,
    /// Words of what is asked and of the answer, as [`length_class`]es.
    lengths: Vec<[u8; 2]>,
}

/// A text's length as a power of two: class 0 has no word, class n from 2ⁿ⁻¹ to 2ⁿ − 1 of them.
fn length_class(text: &str) -> u8 {
    let words = text.split_whitespace().count() as u64;
    (u64::BITS - words.leading_zeros()) as u8
}

/// What was rejected: lines, and counts.
struct Rejects {
    lines: Log,
    /// The first few reasons in full.
    reasons: BTreeSet<String>,
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

impl Rejects {
    fn push(&mut self, rejected: &Rejected) -> Result<(), DataError> {
        let mut line = Vec::new();
        wire::write_rejected(&mut line, rejected);
        line.push(b'\n');
        self.lines.push(&line)?;
        *self.counts.entry((rejected.step, rejected.reason.name())).or_default() += 1;
        if self.reasons.len() < REASONS_SHOWN {
            self.reasons.insert(format!("{}: {}", rejected.step, rejected.reason));
        }
        Ok(())
    }
}

/// A document after the first pass.
struct Processed {
    document: Vec<u8>,
    findings: Findings,
    outcome: Result<Box<Kept>, Rejected>,
}

/// A record after the first pass.
struct Kept {
    /// Length of the id in four bytes, the id, the record without its stratum.
    entry: Vec<u8>,
    id: [u8; 16],
    naive: u64,
    draw: u64,
    content: [u8; 32],
    input: [u8; 16],
    text: Option<[u8; 16]>,
    group: Option<[u8; 16]>,
    stratum: Option<String>,
    answer: u64,
    answer_name: Option<String>,
    bands: Vec<u64>,
    passages: Vec<u64>,
    lengths: [u8; 2],
    /// What it is a version of, and which.
    version: Option<([u8; 16], [u8; 16])>,
    /// It is held out as near out of distribution.
    outside: bool,
}

fn short(key: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&key[..16]);
    short
}

fn short_hash(bytes: &[u8]) -> [u8; 16] {
    short(blake3::hash(bytes).as_bytes())
}

fn entry<const K: usize, const N: usize>(key: [u8; K], row: u32) -> [u8; N] {
    let mut entry = [0; N];
    entry[..K].copy_from_slice(&key);
    entry[K..].copy_from_slice(&row.to_be_bytes());
    entry
}

impl<'a, E: From<DataError> + Send> Pipeline<'a, E> {
    /// An empty pipeline. `threads` never changes a result.
    pub fn new(steps: Steps, check: &'a Check<'a, E>, spill: &'a dyn Spill, threads: usize) -> Result<Self, E> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| DataError::Spill { problem: format!("threads do not start: {error}") })?;
        let pool = Arc::new(pool);
        let bands = steps.near.map_or(0, |(nearness, _)| nearness.bands().0);
        let sorter = || Sorter::with_memory(spill, HASH_BYTES);
        Ok(Self {
            steps,
            check,
            pool,
            rows: Rows::default(),
            records: Log::new(spill)?,
            keys: Log::new(spill)?,
            documents: Log::new(spill)?,
            rejects: Rejects { lines: Log::new(spill)?, reasons: BTreeSet::new(), counts: BTreeMap::new() },
            findings: BTreeMap::new(),
            ids: sorter(),
            contents: sorter(),
            inputs: sorter(),
            texts: sorter(),
            groups: sorter(),
            bands: (0..bands).map(|_| Sorter::with_memory(spill, BANDS_BYTES / bands)).collect(),
            passages: Sorter::with_memory(spill, HASH_BYTES),
            versions: Sorter::with_memory(spill, HASH_BYTES),
            answers: HashMap::new(),
            answer_names: Vec::new(),
            strata: HashMap::new(),
        })
    }

    /// Takes all rows of a source. Its shape and columns are those of its first documents.
    pub fn source(&mut self, plan: &SourcePlan<'_>, mut items: impl Iterator<Item = Result<Item, E>> + Send) -> Result<SourceReport, E> {
        let first_row = self.rows.start.len();
        let mut report = SourceReport { rows: 0, shape: Shape::Columns, columns: Vec::new() };
        // What the source is, its first document says; files that make none may stand before it.
        let mut chunk = Vec::new();
        while !chunk.iter().any(|item| matches!(item, Item::Document(_))) {
            let next = next_chunk(&mut items)?;
            if next.is_empty() {
                return Err(DataError::Empty { origin: plan.source.into() }.into());
            }
            chunk.extend(next);
        }
        let columns = columns_of(&chunk);
        report.shape = Shape::of(&columns);
        let head = Head { source: plan.source, shape: report.shape, typed: plan.typed, columns: &columns };
        let maker = plan.recipe.maker(&head, plan.kinds)?;
        let draws = plan.limit > 0 || plan.limit_per_class > 0;
        let mut draw = Vec::new();
        while !chunk.is_empty() {
            report.rows += chunk.iter().filter(|item| matches!(item, Item::Document(_))).count() as u64;
            let (steps, check) = (&self.steps, self.check);
            let (next, processed) = self.pool.install(|| {
                rayon::join(
                    || next_chunk(&mut items),
                    || chunk.par_iter().map(|item| process(item, &maker, plan, steps, check)).collect::<Result<Vec<_>, E>>(),
                )
            });
            for processed in processed? {
                self.documents.push(&processed.document)?;
                for (step, what) in processed.findings {
                    *self.findings.entry((step, what.into_owned())).or_default() += 1;
                }
                match processed.outcome {
                    Err(rejected) => self.rejects.push(&rejected)?,
                    Ok(kept) => {
                        if draws {
                            draw.push((kept.draw, self.rows.start.len() as u32));
                        }
                        let trained = matches!(plan.role, SourceRole::Split | SourceRole::Train);
                        let role = if kept.outside && trained { SourceRole::NearOod } else { plan.role };
                        self.keep(*kept, role)?;
                    }
                }
            }
            chunk = next?;
        }
        if plan.recipe.stratify.is_none() && plan.recipe.target.len() <= 1 {
            self.stratify_by_answer(first_row);
        }
        if draws {
            self.draw(draw, plan)?;
        }
        report.columns = columns;
        Ok(report)
    }

    fn keep(&mut self, kept: Kept, role: SourceRole) -> Result<(), DataError> {
        let row = self.rows.start.len();
        if row >= MAX_RECORDS {
            return Err(DataError::TooLarge {
                origin: "all sources".into(),
                line: None,
                what: "records",
                given: row as u64 + 1,
                limit: MAX_RECORDS as u64,
            });
        }
        let row = row as u32;
        self.rows.start.push(self.records.push(&kept.entry)?);
        self.rows.role.push(Some(role));
        self.rows.lengths.push(kept.lengths);
        self.keys.push(&[kept.content.as_slice(), &kept.naive.to_be_bytes()].concat())?;
        self.ids.push(entry(kept.id, row))?;
        self.contents.push(entry(short(&kept.content), row))?;
        self.inputs.push(entry(kept.input, row))?;
        if let Some(text) = kept.text {
            self.texts.push(entry(text, row))?;
        }
        if let Some(group) = kept.group {
            self.groups.push(entry(group, row))?;
        }
        for (sorter, key) in self.bands.iter_mut().zip(&kept.bands) {
            sorter.push(entry(key.to_be_bytes(), row))?;
        }
        for item in passages::entries(&kept.passages, row) {
            self.passages.push(item)?;
        }
        if let Some((thing, order)) = kept.version {
            let mut item = [0; 36];
            item[..16].copy_from_slice(&thing);
            item[16..32].copy_from_slice(&order);
            item[32..].copy_from_slice(&row.to_be_bytes());
            self.versions.push(item)?;
        }
        let answer = match self.answers.get(&kept.answer) {
            Some(answer) => *answer,
            None if self.answers.len() >= ANSWERS_MAX || kept.answer_name.is_none() => NONE,
            None => {
                let answer = self.answer_names.len() as u32;
                self.answers.insert(kept.answer, answer);
                self.answer_names.push(kept.answer_name);
                answer
            }
        };
        self.rows.answer.push(answer);
        let stratum = kept.stratum.map_or(NONE, |name| self.stratum(name));
        self.rows.stratum.push(stratum);
        Ok(())
    }

    fn stratum(&mut self, name: String) -> u32 {
        let next = self.strata.len() as u32;
        *self.strata.entry(name).or_insert(next)
    }

    /// Without a column to stratify by, answers are the strata if every one stands for at least two records on average.
    fn stratify_by_answer(&mut self, first_row: usize) {
        let answers: HashSet<u32> = self.rows.answer[first_row..].iter().copied().collect();
        if answers.contains(&NONE) || 2 * answers.len() > self.rows.answer.len() - first_row {
            return;
        }
        for row in first_row..self.rows.answer.len() {
            let name = self.answer_names[self.rows.answer[row] as usize].clone().unwrap_or_default();
            if !name.trim().is_empty() {
                self.rows.stratum[row] = self.stratum(name);
            }
        }
    }

    /// The seeded draw of `limit` and `limit_per_class`; what is left out is rejected with that reason.
    fn draw(&mut self, mut order: Vec<(u64, u32)>, plan: &SourcePlan<'_>) -> Result<(), DataError> {
        order.sort_unstable();
        let (mut per_class, mut taken) = (HashMap::<(bool, u32), usize>::new(), 0);
        let mut left = Vec::new();
        for (_, row) in order {
            let (stratum, answer) = (self.rows.stratum[row as usize], self.rows.answer[row as usize]);
            let class = if stratum == NONE { (false, answer) } else { (true, stratum) };
            let seen = per_class.entry(class).or_default();
            let fits = plan.limit_per_class == 0 || class == (false, NONE) || *seen < plan.limit_per_class;
            if fits && (plan.limit == 0 || taken < plan.limit) {
                *seen += 1;
                taken += 1;
            } else {
                left.push(row);
            }
        }
        left.sort_unstable();
        for row in left {
            self.reject(row, "draw", Reason::NotDrawn, &[])?;
        }
        Ok(())
    }

    fn reject(&mut self, row: u32, step: &'static str, reason: Reason, related: &[u32]) -> Result<(), DataError> {
        self.rows.role[row as usize] = None;
        let id = row_id(&mut self.records, &self.rows, row)?;
        let related = related.iter().map(|row| row_id(&mut self.records, &self.rows, *row)).collect::<Result<_, _>>()?;
        self.rejects.push(&Rejected { id, step, reason, related })
    }

    /// If no row became a record so far: the first few reasons.
    pub fn nothing_left(&self) -> Option<String> {
        let none = self.rows.role.iter().all(Option::is_none);
        none.then(|| self.rejects.reasons.iter().cloned().collect::<Vec<_>>().join("; "))
    }

    /// Decides about the records as a set, and splits them.
    pub fn finish(self) -> Result<Finished, E> {
        let pool = Arc::clone(&self.pool);
        Ok(pool.install(|| self.finished())?)
    }

    fn finished(mut self) -> Result<Finished, DataError> {
        self.unique_ids()?;
        self.superseded()?;
        self.duplicates()?;
        let (input, conflicts) = self.inputs_and_conflicts()?;
        let text = self.classes(|pipeline| &mut pipeline.texts, NONE)?;
        let group = self.classes(|pipeline| &mut pipeline.groups, NONE)?;
        let near = self.near(&text)?;
        let passages = self.passages()?;
        let mut names: Vec<(String, u32)> = std::mem::take(&mut self.strata).into_iter().collect();
        names.sort_unstable();
        let mut rank = vec![0; names.len()];
        names.iter().enumerate().for_each(|(place, (_, stratum))| rank[*stratum as usize] = place as u32);
        for stratum in self.rows.stratum.iter_mut().filter(|stratum| **stratum != NONE) {
            *stratum = rank[*stratum as usize];
        }
        let near_report = near.report;
        let table = Table {
            role: std::mem::take(&mut self.rows.role),
            input,
            text,
            near: near.class,
            group,
            stratum: std::mem::take(&mut self.rows.stratum),
            strata: names.into_iter().map(|(name, _)| name).collect(),
            answer: std::mem::take(&mut self.rows.answer),
            near_together: self.steps.near.is_some_and(|(_, policy)| policy != NearPolicy::Report),
        };
        let Dealt { place, left_out, report } = table.split(&self.steps.split, &mut self.keys)?;
        for left in left_out {
            let (row, related) = (row_id(&mut self.records, &self.rows, left.row)?, row_id(&mut self.records, &self.rows, left.related)?);
            self.rejects.push(&left.rejected(|asked| if asked == left.row { row.clone() } else { related.clone() }))?;
        }
        for conflict in &conflicts {
            if self.steps.conflicts == Policy::Keep {
                let mut line = Vec::new();
                wire::write_conflict(&mut line, conflict);
                line.push(b'\n');
                self.rejects.lines.push(&line)?;
            }
        }
        Ok(Finished {
            keys: self.keys,
            start: self.rows.start,
            place,
            stratum: table.stratum,
            strata: table.strata,
            lengths: self.rows.lengths,
            records: self.records,
            documents: self.documents,
            rejects: self.rejects,
            findings: self.findings,
            conflicts: conflicts.len() as u64,
            near: near_report,
            passages,
            report,
        })
    }

    fn unique_ids(&mut self) -> Result<(), DataError> {
        let mut twice = None;
        take(&mut self.ids).sorted()?.equal(|rows| {
            let pair = (rows[0], rows[1]);
            twice = Some(twice.map_or(pair, |first: (u32, u32)| first.min(pair)));
            Ok(())
        })?;
        let Some((first, second)) = twice else { return Ok(()) };
        let (first, second) = (record(&mut self.records, &self.rows.start, first)?, record(&mut self.records, &self.rows.start, second)?);
        let place = |record: &Record| format!("{} row {}", record.lineage.source, record.lineage.row);
        Err(DataError::DuplicateId { id: first.id.clone(), first: place(&first), second: place(&second) })
    }

    /// Of records with the same use, question and answer the first stays.
    fn duplicates(&mut self) -> Result<(), DataError> {
        let sorter = take(&mut self.contents);
        if self.steps.duplicates == Policy::Keep {
            return Ok(());
        }
        let mut found = Vec::new();
        let role = &self.rows.role;
        sorter.sorted()?.equal(|rows| {
            // Of each use the first stays: where train and test share a row it is training that gives way, in the split.
            let mut kept: Vec<(SourceRole, u32)> = Vec::with_capacity(1);
            for row in rows {
                let Some(role) = role[*row as usize] else { continue };
                match kept.iter().find(|(other, _)| *other == role) {
                    Some((_, first)) => found.push((*row, *first)),
                    None => kept.push((role, *row)),
                }
            }
            Ok(())
        })?;
        found.sort_unstable();
        for (row, kept) in found {
            self.reject(row, "duplicates", Reason::Duplicate, &[kept])?;
        }
        Ok(())
    }

    /// Classes of equal inputs; and those with different answers, which are all dropped if that is the policy, because
    /// none is known to be right.
    fn inputs_and_conflicts(&mut self) -> Result<(Vec<u32>, Vec<Conflict>), DataError> {
        let mut class: Vec<u32> = (0..self.rows.start.len() as u32).collect();
        let mut suspects = Vec::new();
        let role = &self.rows.role;
        take(&mut self.inputs).sorted()?.equal(|rows| {
            let there: Vec<u32> = rows.iter().copied().filter(|row| role[*row as usize].is_some()).collect();
            for row in &there {
                class[*row as usize] = there[0];
            }
            if there.len() > 1 {
                suspects.push(there);
            }
            Ok(())
        })?;
        suspects.sort_unstable();
        let mut conflicts = Vec::new();
        for rows in suspects {
            let mut contents = HashSet::new();
            for row in &rows {
                let mut content = [0; 32];
                self.keys.read(u64::from(*row) * KEY_BYTES as u64, &mut content)?;
                contents.insert(content);
            }
            if contents.len() < 2 {
                continue;
            }
            let mut ids = Vec::with_capacity(rows.len());
            let mut answers = Vec::with_capacity(rows.len());
            for row in &rows {
                let record = record(&mut self.records, &self.rows.start, *row)?;
                ids.push(record.id);
                answers.push(record.answer.to_text());
            }
            answers.sort();
            answers.dedup();
            if self.steps.conflicts == Policy::Drop {
                for row in &rows {
                    let others: Vec<u32> = rows.iter().copied().filter(|other| other != row).collect();
                    self.reject(*row, "conflicts", Reason::Conflict, &others)?;
                }
            }
            conflicts.push(Conflict { ids, answers });
        }
        Ok((class, conflicts))
    }

    /// Classes of rows with equal hashes: the first row that is there.
    fn classes(&mut self, sorter: impl Fn(&mut Self) -> &mut Sorter<'a, 20>, alone: u32) -> Result<Vec<u32>, DataError> {
        // A row that shares its hash with nobody is in a class of its own, which no other row can meet: NONE says the same,
        // but a group has to be counted even if it has one record.
        let rows = self.rows.start.len();
        let sorted = take(sorter(self)).sorted()?;
        let mut class = vec![alone; rows];
        let mut current: Option<([u8; 16], u32)> = None;
        for item in sorted {
            let item = item?;
            let row = u32::from_be_bytes([item[16], item[17], item[18], item[19]]);
            if self.rows.role[row as usize].is_none() {
                continue;
            }
            let mut key = [0; 16];
            key.copy_from_slice(&item[..16]);
            let first = match current {
                Some((of, first)) if of == key => first,
                _ => row,
            };
            current = Some((key, first));
            class[row as usize] = first;
        }
        Ok(class)
    }

    /// Near-duplicates: candidates of each band in turn, compared shingle by shingle. Pairs that are known to be of one
    /// cluster already are not compared again.
    fn near(&mut self, text: &[u32]) -> Result<Near, DataError> {
        let Some((nearness, policy)) = self.steps.near else { return Ok(Near { class: vec![NONE; text.len()], ..Near::default() }) };
        let rows = self.rows.start.len();
        let mut sets = NearSets { all: UnionFind::new(rows), alike: UnionFind::new(rows), matched: HashMap::new(), compared: 0 };
        for sorter in std::mem::take(&mut self.bands) {
            let mut pairs: Vec<(u32, u32)> = Vec::new();
            let mut sorted = sorter.sorted()?;
            let mut pending: Vec<Vec<u32>> = Vec::new();
            // Buckets are gathered, then compared, because comparing reads the records.
            let role = &self.rows.role;
            sorted.equal(|bucket| {
                let there: Vec<u32> = bucket.iter().copied().filter(|row| role[*row as usize].is_some()).collect();
                if there.len() > 1 {
                    pending.push(there);
                }
                Ok(())
            })?;
            drop(sorted);
            pending.sort_unstable();
            for bucket in pending {
                near::bucket_pairs(&bucket, |a, b| {
                    if sets.alike.root(a) != sets.alike.root(b) {
                        pairs.push((a, b));
                    }
                    Ok(())
                })?;
                if pairs.len() >= COMPARED_PAIRS {
                    self.compare(&mut pairs, &nearness, &mut sets)?;
                }
            }
            self.compare(&mut pairs, &nearness, &mut sets)?;
        }
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
}

#[derive(Default)]
struct Near {
    class: Vec<u32>,
    report: NearReport,
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

/// A sorter's entries; it is empty afterwards.
fn take<'a, const N: usize>(sorter: &mut Sorter<'a, N>) -> Sorter<'a, N> {
    let empty = sorter.emptied();
    std::mem::replace(sorter, empty)
}

/// Bytes of a row's keys: content key and naive key.
const KEY_BYTES: usize = 40;

impl Keys for Log {
    fn scan(&mut self, each: &mut dyn FnMut(u32, [u8; 32], u64)) -> Result<(), DataError> {
        let rows = (self.len() / KEY_BYTES as u64) as usize;
        self.pieces(std::iter::repeat_n(KEY_BYTES, rows), |row, piece| {
            let (content, naive) = piece.split_at(32);
            let whole = |_| DataError::Spill { problem: "a key was cut".into() };
            each(row as u32, content.try_into().map_err(whole)?, u64::from_be_bytes(naive.try_into().map_err(whole)?));
            Ok::<(), DataError>(())
        })
    }
}

/// A row's entry: length of the id, the id, the record without its stratum.
fn line(records: &mut Log, start: &[u64], row: u32) -> Result<Vec<u8>, DataError> {
    let begin = start[row as usize];
    let end = start.get(row as usize + 1).copied().unwrap_or_else(|| records.len());
    let mut bytes = vec![0; (end - begin) as usize];
    records.read(begin, &mut bytes)?;
    Ok(bytes)
}

fn cut() -> DataError {
    DataError::Spill { problem: "a record was cut".into() }
}

/// An entry's id and its record without the stratum.
fn parts(entry: &[u8]) -> Result<(&str, &[u8]), DataError> {
    let (length, rest) = entry.split_at_checked(4).ok_or_else(cut)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let (id, record) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok((std::str::from_utf8(id).map_err(|_| cut())?, record))
}

fn read_entry(entry: &[u8]) -> Result<Record, DataError> {
    let mut line = parts(entry)?.1.to_vec();
    wire::close_record(&mut line, None);
    wire::read_record(&line).map_err(|problem| DataError::Spill { problem })
}

fn record(records: &mut Log, start: &[u64], row: u32) -> Result<Record, DataError> {
    read_entry(&line(records, start, row)?)
}

fn row_id(records: &mut Log, rows: &Rows, row: u32) -> Result<String, DataError> {
    let mut length = [0; 4];
    let begin = rows.start[row as usize];
    records.read(begin, &mut length)?;
    let mut id = vec![0; u32::from_be_bytes(length) as usize];
    records.read(begin + 4, &mut id)?;
    String::from_utf8(id).map_err(|_| cut())
}

fn next_chunk<E>(items: &mut impl Iterator<Item = Result<Item, E>>) -> Result<Vec<Item>, E> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < CHUNK_DOCUMENTS && bytes < CHUNK_BYTES {
        let Some(item) = items.next() else { break };
        let item = item?;
        if let Item::Document(document) = &item {
            bytes += document.fields.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>();
        }
        chunk.push(item);
    }
    Ok(chunk)
}

/// The columns of some documents, in the order in which they appear.
fn columns_of(items: &[Item]) -> Vec<String> {
    let (mut columns, mut seen) = (Vec::new(), HashSet::new());
    let documents = items.iter().filter_map(|item| match item {
        Item::Document(document) => Some(document),
        Item::Rejected(_) => None,
    });
    for (name, _) in documents.flat_map(|document| &document.fields) {
        if seen.insert(name.as_str()) {
            columns.push(name.clone());
        }
    }
    columns
}

/// Everything that is done with one row alone.
fn process<E: From<DataError>>(
    item: &Item,
    maker: &Maker<'_>,
    plan: &SourcePlan<'_>,
    steps: &Steps,
    check: &Check<'_, E>,
) -> Result<Processed, E> {
    let document = match item {
        Item::Document(document) => document,
        Item::Rejected(rejected) => {
            return Ok(Processed { document: Vec::new(), findings: Vec::new(), outcome: Err(rejected.clone()) });
        }
    };
    let (mut line, mut findings) = (Vec::new(), Findings::new());
    if steps.minimise && document.fields.iter().any(|(name, _)| !maker.uses(name)) {
        let (fields, dropped): (Vec<_>, Vec<_>) = document.fields.iter().cloned().partition(|(name, _)| maker.uses(name));
        findings.extend(dropped.into_iter().map(|(name, _)| ("minimise", name.into())));
        wire::write_document(&mut line, &Document { fields, ..document.clone() });
    } else {
        wire::write_document(&mut line, document);
    }
    line.push(b'\n');
    let outcome = record_of(document, maker, plan, steps, check, &mut findings)?;
    Ok(Processed { document: line, findings, outcome })
}

/// A document's record as it is kept, or why there is none.
fn record_of<E: From<DataError>>(
    document: &Document,
    maker: &Maker<'_>,
    plan: &SourcePlan<'_>,
    steps: &Steps,
    check: &Check<'_, E>,
    findings: &mut Findings,
) -> Result<Result<Box<Kept>, Rejected>, E> {
    let rejected =
        |id: &str, (step, reason): (&'static str, Reason)| Ok(Err(Rejected { id: id.to_owned(), step, reason, related: Vec::new() }));
    if let Some(Err(reason)) = steps.outdated.as_ref().map(|outdated| outdated.apply(document, findings)) {
        return rejected(&document.id, reason);
    }
    let mut record = match maker.record(document) {
        Ok(record) => record,
        Err(reason) => return rejected(&document.id, ("record", reason)),
    };
    if let Err(reason) = steps.clean.apply(&mut record, findings) {
        return rejected(&record.id, reason);
    }
    if !plan.recipe.plain && asks_nothing(&record) {
        return rejected(&record.id, ("empty", Reason::EmptyInput));
    }
    if plan.role != SourceRole::FarOod && record.answer.is_empty() {
        return rejected(&record.id, ("split", Reason::EmptyTarget));
    }
    match check(&record)? {
        Some(reason) => rejected(&record.id, reason),
        None => Ok(Ok(Box::new(kept(document, record, plan, steps)))),
    }
}

fn kept(document: &Document, record: Record, plan: &SourcePlan<'_>, steps: &Steps) -> Kept {
    let (asked, answer) = (record.asked(), record.answer.to_text());
    let folded = fold(&asked);
    let lengths = [length_class(&asked), length_class(&answer)];
    let mut entry = (record.id.len() as u32).to_be_bytes().to_vec();
    entry.extend_from_slice(record.id.as_bytes());
    wire::write_open_record(&mut entry, &record);
    let bands = steps.near.and_then(|(nearness, _)| Some(band_keys(&near::sketch(&nearness.shingles.of(&folded))?, &nearness)));
    let seed = steps.split.seed;
    let draw = blake3::hash(format!("draw {seed} {}", record.id).as_bytes());
    let version = plan.versions.and_then(|versions| {
        let text = |column| document.field(column).map(Value::to_text).unwrap_or_default();
        let (thing, version) = (text(versions.of), text(versions.version));
        (!thing.trim().is_empty()).then(|| (short_hash(thing.trim().as_bytes()), passages::version_order(version.trim())))
    });
    Kept {
        id: short_hash(record.id.as_bytes()),
        naive: naive_key(seed, &record.id),
        draw: u64::from_be_bytes(draw.as_bytes()[..8].try_into().unwrap_or_default()),
        content: record.content_key(),
        input: short(&record.input_key()),
        text: (!folded.is_empty()).then(|| short_hash(folded.as_bytes())),
        group: record.group.as_ref().map(|group| short_hash(group.as_bytes())),
        answer: hash_bytes(answer.as_bytes()),
        answer_name: (answer.len() <= ANSWER_BYTES_MAX).then_some(answer),
        stratum: record.stratum,
        bands: bands.unwrap_or_default(),
        passages: steps.passages.map(|passages| passages::keys(&folded, passages.words)).unwrap_or_default(),
        version,
        lengths,
        outside: steps.near_ood.as_ref().is_some_and(|outside| outside.holds(document)),
        entry,
    }
}

/// What the first pass and the decisions gave; records are handed out by the second pass.
pub struct Finished {
    keys: Log,
    start: Vec<u64>,
    place: Vec<Option<Part>>,
    stratum: Vec<u32>,
    strata: Vec<String>,
    lengths: Vec<[u8; 2]>,
    records: Log,
    documents: Log,
    rejects: Rejects,
    /// What steps found or changed: (step, what) and in how many records.
    pub findings: BTreeMap<(&'static str, String), u64>,
    /// Inputs with different answers.
    pub conflicts: u64,
    /// Near-duplicates.
    pub near: NearReport,
    /// Passages in several records.
    pub passages: PassageReport,
    /// What the split did; what it left out is among the rejects.
    pub report: SplitReport,
}

impl Finished {
    /// Records of each part.
    pub fn count(&self, part: Part) -> u64 {
        self.place.iter().filter(|place| **place == Some(part)).count() as u64
    }

    /// (step, reason, count) of what was rejected.
    pub fn rejected(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.rejects.counts.iter().map(|((step, reason), count)| (*step, *reason, *count))
    }

    /// How long the records' questions and answers are: least and most words, and how many questions and answers have so many.
    pub fn lengths(&self) -> Vec<(u64, u64, u64, u64)> {
        let mut classes: BTreeMap<u8, [u64; 2]> = BTreeMap::new();
        for lengths in self.lengths.iter().zip(&self.place).filter(|(_, place)| place.is_some()).map(|(lengths, _)| lengths) {
            for (which, class) in lengths.iter().enumerate() {
                classes.entry(*class).or_default()[which] += 1;
            }
        }
        let bounds = |class: u8| if class == 0 { (0, 0) } else { (1 << (class - 1), (1u64 << class) - 1) };
        classes.into_iter().map(|(class, [asked, answered])| (bounds(class).0, bounds(class).1, asked, answered)).collect()
    }

    /// The first records of a part.
    pub fn first(&mut self, part: Part, count: usize) -> Result<Vec<Record>, DataError> {
        let rows = self.place.iter().enumerate().filter(|(_, place)| **place == Some(part)).map(|(row, _)| row as u32);
        let rows: Vec<u32> = rows.take(count).collect();
        rows.into_iter().map(|row| record(&mut self.records, &self.start, row)).collect()
    }

    /// The second pass: each record as a line of JSON with its newline, in the order of its document.
    pub fn records<E: From<DataError>>(&mut self, mut each: impl FnMut(Part, &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.rows(|_, part, line| each(part, line))
    }

    /// Records of each stratum in training, validation and test, by name.
    pub fn strata(&self) -> Vec<(String, u64, u64, u64)> {
        let mut counts = vec![(0, 0, 0); self.strata.len()];
        for (place, stratum) in self.place.iter().zip(&self.stratum).filter(|(_, stratum)| **stratum != NONE) {
            let counts = &mut counts[*stratum as usize];
            match place {
                Some(Part::Train) => counts.0 += 1,
                Some(Part::Validation) => counts.1 += 1,
                Some(Part::Test) => counts.2 += 1,
                _ => {}
            }
        }
        let named = self.strata.iter().zip(counts).filter(|(_, counts)| *counts != (0, 0, 0));
        named.map(|(name, (train, validation, test))| (name.clone(), train, validation, test)).collect()
    }

    /// Balances training: of each stratum at most `ratio` times as many records stay as the smallest one has, drawn by the
    /// seed. What is held out stays as it is in life.
    pub fn balance(&mut self, ratio: f64) -> Result<(), DataError> {
        let trained = |(row, place): (usize, &Option<Part>)| (*place == Some(Part::Train) && self.stratum[row] != NONE).then_some(row);
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for row in self.place.iter().enumerate().filter_map(trained) {
            *counts.entry(self.stratum[row]).or_default() += 1;
        }
        let Some(smallest) = counts.values().copied().min() else { return Ok(()) };
        let limit = (ratio * smallest as f64).ceil() as usize;
        let mut order: Vec<(u32, u64, u32)> = Vec::new();
        let (place, stratum) = (&self.place, &self.stratum);
        self.keys.scan(&mut |row, _, key| {
            let of = stratum[row as usize];
            if place[row as usize] == Some(Part::Train) && counts.get(&of).is_some_and(|count| *count > limit) {
                order.push((of, key, row));
            }
        })?;
        order.sort_unstable();
        let mut dropped: Vec<u32> = Vec::new();
        for of in order.chunk_by(|a, b| a.0 == b.0) {
            dropped.extend(of.iter().skip(limit).map(|(_, _, row)| *row));
        }
        dropped.sort_unstable();
        dropped.into_iter().try_for_each(|row| self.reject(row, "balance", Reason::NotDrawn))
    }

    /// Takes a record out that a later look found fault with.
    pub fn reject(&mut self, row: u32, step: &'static str, reason: Reason) -> Result<(), DataError> {
        self.place[row as usize] = None;
        let id = parts(&line(&mut self.records, &self.start, row)?)?.0.to_owned();
        self.rejects.push(&Rejected { id, step, reason, related: Vec::new() })
    }

    /// As [`Finished::records`], each with its row, by which it is known to [`Finished::reject`].
    pub fn rows<E: From<DataError>>(&mut self, mut each: impl FnMut(u32, Part, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let ends = self.start.iter().skip(1).copied().chain([self.records.len()]);
        let lengths: Vec<usize> = self.start.iter().zip(ends).map(|(start, end)| (end - start) as usize).collect();
        let mut line = Vec::new();
        self.records.pieces(lengths.into_iter(), |row, piece| {
            let Some(part) = self.place[row] else { return Ok(()) };
            line.clear();
            line.extend_from_slice(parts(piece)?.1);
            let stratum = self.stratum[row];
            wire::close_record(&mut line, (stratum != NONE).then(|| self.strata[stratum as usize].as_str()));
            line.push(b'\n');
            each(row as u32, part, &line)
        })
    }

    /// All documents as lines of JSON, in pieces.
    pub fn documents<E: From<DataError>>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        whole(&mut self.documents, &mut each)
    }

    /// All rejects as lines of JSON, in pieces.
    pub fn rejects<E: From<DataError>>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        whole(&mut self.rejects.lines, &mut each)
    }
}

fn whole<E: From<DataError>>(log: &mut Log, each: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    const PIECE: u64 = 1 << 20;
    let length = log.len();
    let pieces = (0..length).step_by(PIECE as usize).map(|at| (length - at).min(PIECE) as usize);
    log.pieces(pieces, |_, piece| each(piece))
}
