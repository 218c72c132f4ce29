//! Train and held-out records: different types, disjoint by group, by input and by near-duplicate.
//!
//! Records that share a group, ask the same (up to case, punctuation and white space) or are near-duplicates form a
//! unit that is never divided. Units are put in an order that depends on the seed and their contents only, never on
//! rows, and dealt to test, validation and training so that each stratum has its share of each.
//!
//! The work is done on a `Table` of small numbers, a few per record, so that it is the same for records in memory
//! ([`Split::new`]) and for records that stay outside it ([`crate::pipeline`]).

mod table;

pub(crate) use table::{Dealt, Keys, NONE, Table, counted};

use crate::steps::Reason;
use crate::{DataError, Record, Rejected, TokenRow, TrainRows};
use std::collections::{BTreeMap, HashMap, HashSet};
use table::RecordKeys;

/// A stratum with fewer test records than this says little about itself.
const SMALL_STRATUM_TEST: usize = 5;

/// What a source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRole {
    /// To be split.
    Split,
    /// All of it for training.
    Train,
    /// All of it for validation.
    Validation,
    /// All of it for the in-domain test.
    Test,
    /// Near out of distribution: the same task from another source, time or group.
    NearOod,
    /// Far out of distribution.
    FarOod,
}

/// Where a record ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Trained on.
    Train,
    /// For choices during training.
    Validation,
    /// For the verdict.
    Test,
    /// The same task from elsewhere.
    NearOod,
    /// Things that the model is not for.
    FarOod,
}

impl Part {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::Train, Self::Validation, Self::Test, Self::NearOod, Self::FarOod];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::NearOod => "near_ood",
            Self::FarOod => "far_ood",
        }
    }

    /// Its name in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::NearOod => "near out of distribution",
            Self::FarOod => "far out of distribution",
        }
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Portion {
    /// Of the records that are split.
    Fraction(f64),
    /// So many.
    Count(usize),
}

impl Portion {
    fn of(self, records: usize) -> Result<usize, DataError> {
        match self {
            Self::Count(count) => Ok(count),
            Self::Fraction(fraction) if (0.0..1.0).contains(&fraction) => Ok((fraction * records as f64).round() as usize),
            Self::Fraction(fraction) => {
                Err(DataError::Plan { field: "the part held out", given: fraction.to_string(), expected: "a fraction from 0 to below 1" })
            }
        }
    }
}

/// How to split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitPlan {
    /// Seed of the order in which records are dealt.
    pub seed: u64,
    /// For the in-domain test.
    pub test: Portion,
    /// For validation.
    pub validation: Portion,
    /// Most records of a stratum that train; None: all.
    pub train_per_stratum: Option<usize>,
}

/// What may be trained on. Made by a split only, so that a held-out record has no way into training.
#[derive(Clone, Debug)]
pub struct TrainSet {
    records: Vec<Record>,
}

impl TrainSet {
    /// The records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records as ids, for [`crate::pack`].
    pub fn rows<E>(&self, render: impl FnMut(&Record) -> Result<TokenRow, E>) -> Result<TrainRows, E> {
        Ok(TrainRows::new(self.records.iter().map(render).collect::<Result<_, E>>()?))
    }

    /// The same where a record may become several sequences.
    pub fn rows_of_several<E>(&self, mut render: impl FnMut(&Record) -> Result<Vec<TokenRow>, E>) -> Result<TrainRows, E> {
        let mut rows = Vec::with_capacity(self.records.len());
        for record in &self.records {
            rows.extend(render(record)?);
        }
        Ok(TrainRows::new(rows))
    }

    /// Negative control: the same inputs, the answers dealt out anew by `seed`. Nothing true can be learned from it.
    pub fn with_shuffled_answers(&self, seed: u64) -> TrainSet {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_by_cached_key(|i| keyed("shuffled answers", seed, &self.records[*i].content_key()));
        let dealt = self.records.iter().zip(&order).map(|(record, i)| {
            let other = &self.records[*i];
            Record { answer: other.answer.clone(), answer_weight: other.answer_weight, ..record.clone() }
        });
        TrainSet { records: dealt.collect() }
    }
}

/// What may only be measured on.
#[derive(Clone, Debug, Default)]
pub struct HeldOut {
    /// For choices during training.
    pub validation: Vec<Record>,
    /// For the verdict.
    pub in_domain: Vec<Record>,
    /// The same task from another source, time or group.
    pub near_ood: Vec<Record>,
    /// Things that the model is not for.
    pub far_ood: Vec<Record>,
}

/// What a declared held-out part had in common with training before training gave way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The held-out part.
    pub part: Part,
    /// Its records whose text, up to case, punctuation and white space, training has too.
    pub texts: usize,
    /// Of these, how many training answers otherwise.
    pub contradictory: usize,
    /// Its further records that have a near-duplicate in training.
    pub near: usize,
    /// Its records whose group training has too.
    pub groups: usize,
}

/// What the split did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplitReport {
    /// Per stratum: its name, and its records in training, validation and test.
    pub strata: Vec<(String, usize, usize, usize)>,
    /// Groups among the records (0 without a group column).
    pub groups: usize,
    /// Test records whose group a split by single rows would have put into training too.
    pub naive_leaked_groups: usize,
    /// Test records whose exact input a split by single rows would have put into training too.
    pub naive_leaked_inputs: usize,
    /// Test records whose text, up to case, punctuation and white space, it would have put into training too.
    pub naive_leaked_texts: usize,
    /// Test records of which it would have put a near-duplicate or the same text into training.
    pub naive_leaked_near: usize,
    /// Test records for which any of these holds.
    pub naive_leaked: usize,
    /// Where the sources declare what is held out: what that shared with training.
    pub overlaps: Vec<Overlap>,
    /// Strata with too few test records to say anything about them: name, test records.
    pub small_strata: Vec<(String, usize)>,
    /// Records that neither train nor are measured on, and why.
    pub left_out: Vec<Rejected>,
}

/// Train and held-out records.
#[derive(Clone, Debug)]
pub struct Split {
    /// To train on.
    pub train: TrainSet,
    /// To measure on.
    pub held_out: HeldOut,
    /// What was done.
    pub report: SplitReport,
}

impl Split {
    /// Splits records in memory. Deterministic by seed and content, not by row order.
    pub fn new(records: Vec<(Record, SourceRole)>, plan: &SplitPlan) -> Result<Self, DataError> {
        unique_ids(&records)?;
        let mut early = Vec::new();
        let kept = records.into_iter().filter_map(|(record, role)| {
            if role == SourceRole::FarOod || !record.answer.is_empty() {
                return Some((record, role));
            }
            early.push(Rejected { id: record.id, step: "split", reason: Reason::EmptyTarget, related: Vec::new() });
            None
        });
        let (records, roles): (Vec<Record>, Vec<SourceRole>) = kept.unzip();
        let table = Table::of(&records, roles);
        let mut keys = RecordKeys { records: &records, seed: plan.seed };
        let dealt = table.split(plan, &mut keys)?;
        let mut report = dealt.report;
        report.left_out = early;
        report.left_out.extend(dealt.left_out.iter().map(|left| left.rejected(|row| records[row as usize].id.clone())));
        let mut parts = Parts::default();
        for (record, part) in records.into_iter().zip(&dealt.place) {
            if let Some(part) = part {
                parts.push(record, *part);
            }
        }
        let (mut train, held_out) = (parts.train, parts.held_out);
        if let Some(limit) = plan.train_per_stratum {
            train = draw(train, limit, plan.seed, &mut report);
        }
        let split = Self::assemble(train, held_out)?;
        Ok(Self { report: SplitReport { strata: split.report.strata, small_strata: split.report.small_strata, ..report }, ..split })
    }

    /// Puts a saved split together again and proves anew that nothing is on both sides.
    pub fn assemble(train: Vec<Record>, held_out: HeldOut) -> Result<Self, DataError> {
        prove_disjoint(&train, &held_out)?;
        let mut strata: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for (part, records) in [&train, &held_out.validation, &held_out.in_domain].into_iter().enumerate() {
            for stratum in records.iter().filter_map(|record| record.stratum.as_deref()) {
                strata.entry(stratum).or_default()[part] += 1;
            }
        }
        let groups: HashSet<&str> =
            train.iter().chain(&held_out.validation).chain(&held_out.in_domain).filter_map(|record| record.group.as_deref()).collect();
        let strata: Vec<(String, usize, usize, usize)> =
            strata.iter().map(|(name, [train, validation, test])| ((*name).to_owned(), *train, *validation, *test)).collect();
        let report = SplitReport {
            small_strata: small_strata(&strata, held_out.in_domain.len()),
            groups: groups.len(),
            strata,
            ..Default::default()
        };
        Ok(Self { train: TrainSet { records: train }, held_out, report })
    }
}

/// Strata with too few test records to say anything, where there are test records at all.
fn small_strata(strata: &[(String, usize, usize, usize)], test: usize) -> Vec<(String, usize)> {
    let small = strata.iter().filter(|(_, _, _, count)| *count < SMALL_STRATUM_TEST && test > 0);
    small.map(|(name, _, _, count)| (name.clone(), *count)).collect()
}

/// Records by part.
#[derive(Default)]
struct Parts {
    train: Vec<Record>,
    held_out: HeldOut,
}

impl Parts {
    fn push(&mut self, record: Record, part: Part) {
        match part {
            Part::Train => self.train.push(record),
            Part::Validation => self.held_out.validation.push(record),
            Part::Test => self.held_out.in_domain.push(record),
            Part::NearOod => self.held_out.near_ood.push(record),
            Part::FarOod => self.held_out.far_ood.push(record),
        }
    }
}

/// A hash that orders things by a seed and their content.
pub(crate) fn keyed(purpose: &str, seed: u64, content: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose.as_bytes()).update(&[0]).update(&seed.to_le_bytes()).update(content);
    *hasher.finalize().as_bytes()
}

/// Where a record of an id stands in the order of a split by single rows.
pub(crate) fn naive_key(seed: u64, id: &str) -> u64 {
    let key = keyed("naive split", seed, id.as_bytes());
    u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]])
}

fn unique_ids(records: &[(Record, SourceRole)]) -> Result<(), DataError> {
    let mut seen: HashMap<&str, &Record> = HashMap::with_capacity(records.len());
    for (record, _) in records {
        if let Some(first) = seen.insert(&record.id, record) {
            let place = |record: &Record| format!("{} row {}", record.lineage.source, record.lineage.row);
            return Err(DataError::DuplicateId { id: record.id.clone(), first: place(first), second: place(record) });
        }
    }
    Ok(())
}

/// Groups and inputs of a part, with a record that has each.
#[derive(Default)]
struct Claimed {
    groups: HashMap<String, String>,
    inputs: HashMap<[u8; 32], String>,
}

impl Claimed {
    fn claim(&mut self, records: &[Record]) {
        for record in records {
            if let Some(group) = &record.group {
                self.groups.entry(group.clone()).or_insert_with(|| record.id.clone());
            }
            self.inputs.entry(record.input_key()).or_insert_with(|| record.id.clone());
        }
    }

    /// The record here with which a record shares something, and what that is.
    fn shared(&self, record: &Record, groups: bool) -> Option<(&'static str, &String)> {
        let group = record.group.as_ref().filter(|_| groups).and_then(|group| self.groups.get(group));
        group.map(|id| ("group", id)).or_else(|| Some(("input", self.inputs.get(&record.input_key())?)))
    }
}

/// The first `limit` of each stratum in the seed's order.
fn draw(records: Vec<Record>, limit: usize, seed: u64, report: &mut SplitReport) -> Vec<Record> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_cached_key(|i| keyed("draw", seed, &records[*i].content_key()));
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut drawn = vec![false; records.len()];
    for i in order {
        let count = counts.entry(records[i].stratum.as_deref().unwrap_or_default()).or_default();
        *count += 1;
        drawn[i] = *count <= limit;
    }
    let mut kept = Vec::new();
    for (record, drawn) in records.into_iter().zip(drawn) {
        if drawn {
            kept.push(record);
        } else {
            report.left_out.push(Rejected { id: record.id, step: "split", reason: Reason::NotDrawn, related: Vec::new() });
        }
    }
    kept
}

fn prove_disjoint(train: &[Record], held_out: &HeldOut) -> Result<(), DataError> {
    let mut before: Vec<(&'static str, Claimed)> = Vec::new();
    let parts = [
        ("training", train, true),
        ("validation", held_out.validation.as_slice(), true),
        ("the test", held_out.in_domain.as_slice(), true),
        ("near out of distribution", held_out.near_ood.as_slice(), false),
        ("far out of distribution", held_out.far_ood.as_slice(), false),
    ];
    for (part, records, groups) in parts {
        for (first_part, claimed) in &before {
            let found = records.iter().find_map(|record| Some((record, claimed.shared(record, groups)?)));
            if let Some((record, (what, first))) = found {
                let (first, second) = (first.clone(), record.id.clone());
                return Err(DataError::Leak { what, first, first_part, second, second_part: part });
            }
        }
        let mut claimed = Claimed::default();
        claimed.claim(records);
        before.push((part, claimed));
    }
    Ok(())
}
