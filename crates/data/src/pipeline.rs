//! From documents to a split set of records, in two passes, in memory that hardly grows with the input.
//!
//! The first pass ([`Pipeline::source`]) takes documents in order, makes records of them on all threads, and keeps of
//! each about ninety bytes in memory; the record itself, and the hashes by which it is compared with the others, go to
//! scratch files ([`Spill`]). [`Pipeline::finish`] sorts the hashes, so that duplicates, groups and candidates stand
//! side by side, and decides what is dropped and where each record goes. The second pass ([`Finished::records`]) reads
//! the records once more and hands them out.
//!
//! Nothing depends on the number of threads: documents are worked on in chunks of a fixed size, results are taken in
//! their order, and whatever is compared is compared in an order given by content or row.

mod augment;
mod decide;
mod finished;
mod near_duplicates;
mod passages;
mod row;
mod stored;
mod strata;

pub use augment::Augmented;
pub use finished::Finished;
pub use near_duplicates::NearReport;
pub use passages::{Contaminated, PassageReport, Passages};

use crate::clean::{Clean, Outdated, day};
use crate::near::{Nearness, SketchBits};
use crate::record::{ColumnKind, Head};
use crate::spill::{Log, Sorter, Spill};
use crate::split::{NONE, SourceRole, SplitPlan};
use crate::steps::{Policy, Reason};
use crate::{DataError, Document, Item, Record, RecordRecipe, Rejected, Shape, Value, wire};
use rayon::prelude::*;
use row::{Kept, columns_of, entry, next_chunk, process, short};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use stored::row_id;

/// More records than this are refused: rows are numbered with 32 bits.
pub const MAX_RECORDS: usize = (u32::MAX - 1) as usize;
/// More distinct answers than this are free text, not classes.
const ANSWERS_MAX: usize = 1 << 16;
/// Memory of the sorter of each kind of hash, in bytes.
const HASH_BYTES: usize = 24 << 20;
/// Memory of the sorters of all bands together, in bytes.
const BANDS_BYTES: usize = 96 << 20;
/// Reasons that are given in full where no record is left.
const REASONS_SHOWN: usize = 3;

/// What happens to near-duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NearPolicy {
    /// Counted only.
    Report,
    /// All stay, on one side of the split where it is dealt. Between declared sources they are counted.
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
    /// Records whose stratum is too long for the name of a class.
    nameless: u64,
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
    /// Bits of its sketch, where near-duplicates are looked for.
    bits: Vec<SketchBits>,
    /// How much each counts; empty where all count the same, and 1 for those after its end.
    weight: Vec<f32>,
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
            nameless: 0,
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
        if self.steps.near.is_some() {
            self.rows.bits.push(kept.bits);
        }
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
        strata::weigh(&mut self.rows.weight, row as usize, kept.weight);
        Ok(())
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
}
