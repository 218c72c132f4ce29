//! Train and held-out records: different types, disjoint by group, by input and by near-duplicate.
//!
//! Records that share a group, ask the same (up to case, punctuation and white space) or are near-duplicates form a
//! unit that is never divided. Units are put in an order that depends on the seed and their contents only, never on
//! rows, and dealt to test, validation and training so that each stratum has its share of each.
//!
//! The work is done on a `Table` of small numbers, a few per record, so that it is the same for records in memory
//! ([`Split::new`]) and for records that stay outside it ([`crate::pipeline`]).

use crate::near::{UnionFind, fold, hash_bytes};
use crate::steps::Reason;
use crate::{DataError, Record, Rejected, TokenRow, TrainRows};
use std::collections::{BTreeMap, HashMap, HashSet};

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

/// No class: the record has no group, or its answer is one of too many to tell apart.
pub(crate) const NONE: u32 = u32::MAX;

/// What a split needs to know of records, by row. Classes are numbers: two records of one number share that thing.
#[derive(Default)]
pub(crate) struct Table {
    /// What the record is for; `None`: it is not there any more.
    pub(crate) role: Vec<Option<SourceRole>>,
    /// Records that ask the same, up to white space.
    pub(crate) input: Vec<u32>,
    /// Records that ask the same, up to case, punctuation and white space.
    pub(crate) text: Vec<u32>,
    /// Records that are near-duplicates; NONE everywhere where that was not looked for.
    pub(crate) near: Vec<u32>,
    /// Records of one group, or NONE.
    pub(crate) group: Vec<u32>,
    /// Records of one stratum, as a place in `strata`; NONE: of none.
    pub(crate) stratum: Vec<u32>,
    /// Names of the strata, sorted.
    pub(crate) strata: Vec<String>,
    /// Records with one answer, or NONE.
    pub(crate) answer: Vec<u32>,
    /// Near-duplicates stand on one side.
    pub(crate) near_together: bool,
    /// Training gives up what is nearly the same as a record of a declared held-out source. Otherwise only what is the same: whoever
    /// declares training and test has divided them already, and near-duplicates are theirs to judge.
    pub(crate) near_dropped: bool,
}

/// What the table does not hold: a record's content key and [`naive_key`], for every row in order.
pub(crate) trait Keys {
    fn scan(&mut self, each: &mut dyn FnMut(u32, [u8; 32], u64)) -> Result<(), DataError>;
}

struct RecordKeys<'a> {
    records: &'a [Record],
    seed: u64,
}

impl Keys for RecordKeys<'_> {
    fn scan(&mut self, each: &mut dyn FnMut(u32, [u8; 32], u64)) -> Result<(), DataError> {
        for (row, record) in self.records.iter().enumerate() {
            each(row as u32, record.content_key(), naive_key(self.seed, &record.id));
        }
        Ok(())
    }
}

/// A record that neither trains nor is measured on, because of another.
pub(crate) struct LeftOut {
    pub(crate) row: u32,
    pub(crate) part: Part,
    pub(crate) related: u32,
}

impl LeftOut {
    pub(crate) fn rejected(&self, id: impl Fn(u32) -> String) -> Rejected {
        let reason = Reason::HeldOut { part: self.part.words() };
        Rejected { id: id(self.row), step: "split", reason, related: vec![id(self.related)] }
    }
}

/// Where every row goes.
pub(crate) struct Dealt {
    pub(crate) place: Vec<Option<Part>>,
    pub(crate) left_out: Vec<LeftOut>,
    /// Everything but `left_out`.
    pub(crate) report: SplitReport,
}

/// Records that must stay together, by unit: rows, and the order in which units are dealt.
struct Units {
    starts: Vec<u32>,
    rows: Vec<u32>,
    order: Vec<u32>,
}

impl Units {
    fn rows(&self, unit: u32) -> &[u32] {
        &self.rows[self.starts[unit as usize] as usize..self.starts[unit as usize + 1] as usize]
    }
}

impl Table {
    fn of(records: &[Record], roles: Vec<SourceRole>) -> Self {
        let rows = records.len();
        let mut table = Self { role: roles.into_iter().map(Some).collect(), near: vec![NONE; rows], ..Self::default() };
        let (mut inputs, mut texts, mut groups, mut answers) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let names: BTreeMap<&str, u32> = records.iter().filter_map(|record| Some((record.stratum.as_deref()?, 0))).collect();
        let strata: HashMap<&str, u32> = names.keys().enumerate().map(|(i, name)| (*name, i as u32)).collect();
        for (row, record) in records.iter().enumerate() {
            let row = row as u32;
            table.input.push(*inputs.entry(record.input_key()).or_insert(row));
            table.text.push(match fold(&record.asked()) {
                folded if folded.is_empty() => NONE,
                folded => *texts.entry(folded).or_insert(row),
            });
            table.group.push(record.group.as_deref().map_or(NONE, |group| *groups.entry(group).or_insert(row)));
            table.answer.push(*answers.entry(hash_bytes(record.answer.to_text().as_bytes())).or_insert(row));
            table.stratum.push(record.stratum.as_deref().map_or(NONE, |name| strata[name]));
        }
        table.strata = names.into_keys().map(str::to_owned).collect();
        table
    }

    fn rows(&self, role: SourceRole) -> impl Iterator<Item = u32> + '_ {
        self.role.iter().enumerate().filter(move |(_, other)| **other == Some(role)).map(|(row, _)| row as u32)
    }

    /// Puts every row that is there into a part, or leaves it out for the sake of another.
    pub(crate) fn split(&self, plan: &SplitPlan, keys: &mut dyn Keys) -> Result<Dealt, DataError> {
        self.one_class()?;
        let mut place: Vec<Option<Part>> = self
            .role
            .iter()
            .map(|role| {
                role.and_then(|role| match role {
                    SourceRole::Split => None,
                    SourceRole::Train => Some(Part::Train),
                    SourceRole::Validation => Some(Part::Validation),
                    SourceRole::Test => Some(Part::Test),
                    SourceRole::NearOod => Some(Part::NearOod),
                    SourceRole::FarOod => Some(Part::FarOod),
                })
            })
            .collect();
        let mut report = SplitReport::default();
        self.deal(plan, keys, &mut place, &mut report)?;
        report.overlaps = self.overlaps(&place);
        let mut left_out = Vec::new();
        self.keep_apart(&mut place, &mut left_out);
        if !place.contains(&Some(Part::Train)) {
            let records = place.iter().flatten().filter(|part| matches!(part, Part::Validation | Part::Test)).count();
            return Err(DataError::EmptyPart { part: "training", records, units: records });
        }
        let mut strata = vec![(0, 0, 0); self.strata.len()];
        for (part, stratum) in place.iter().zip(&self.stratum).filter(|(_, stratum)| **stratum != NONE) {
            let counts = &mut strata[*stratum as usize];
            match part {
                Some(Part::Train) => counts.0 += 1,
                Some(Part::Validation) => counts.1 += 1,
                Some(Part::Test) => counts.2 += 1,
                _ => {}
            }
        }
        let named = self.strata.iter().zip(strata).filter(|(_, counts)| *counts != (0, 0, 0));
        report.strata = named.map(|(name, (train, validation, test))| (name.clone(), train, validation, test)).collect();
        let tested = place.iter().filter(|part| **part == Some(Part::Test)).count();
        report.small_strata = small_strata(&report.strata, tested);
        Ok(Dealt { place, left_out, report })
    }

    fn one_class(&self) -> Result<(), DataError> {
        let (mut first, mut count) = (None, 0);
        for row in self.rows(SourceRole::Split).chain(self.rows(SourceRole::Train)) {
            let answer = self.answer[row as usize];
            count += 1;
            if answer == NONE || *first.get_or_insert(answer) != answer {
                return Ok(());
            }
        }
        if count > 1 { Err(DataError::OneClass { records: count }) } else { Ok(()) }
    }

    /// Joins rows that share a group, an input, a text or a near-duplicate.
    fn units(&self, dealt: &[u32], seed: u64, keys: &mut dyn Keys) -> Result<Units, DataError> {
        let mut sets = UnionFind::new(self.role.len());
        let classes = [(&self.input, true), (&self.text, true), (&self.group, true), (&self.near, self.near_together)];
        for class in classes.into_iter().filter_map(|(class, joins)| joins.then_some(class)) {
            // The first row of a class may be one that is not dealt.
            let mut first: HashMap<u32, u32> = HashMap::new();
            for row in dealt.iter().copied().filter(|row| class[*row as usize] != NONE && class[*row as usize] != *row) {
                let of = class[row as usize];
                let with = if self.role[of as usize] == Some(SourceRole::Split) { of } else { *first.entry(of).or_insert(row) };
                sets.join(row, with);
            }
        }
        // Rows by unit, units by their first row.
        let mut rows: Vec<(u32, u32)> = dealt.iter().map(|row| (sets.root(*row), *row)).collect();
        drop(sets);
        rows.sort_unstable();
        let mut starts = vec![];
        let mut unit_of = vec![NONE; self.role.len()];
        for (i, (root, row)) in rows.iter().enumerate() {
            if i == 0 || rows[i - 1].0 != *root {
                starts.push(i as u32);
            }
            unit_of[*row as usize] = starts.len() as u32 - 1;
        }
        starts.push(rows.len() as u32);
        let count = starts.len() - 1;
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        let mut units = Units { starts, rows, order: Vec::new() };
        let mut unit_keys = vec![[0; 16]; count];
        let mut several: HashMap<u32, Vec<[u8; 32]>> = HashMap::new();
        let key = |contents: &[[u8; 32]]| {
            let key = keyed("split", seed, contents.as_flattened());
            let mut short = [0; 16];
            short.copy_from_slice(&key[..16]);
            short
        };
        keys.scan(&mut |row, content, _| {
            let unit = unit_of[row as usize];
            if unit == NONE {
                return;
            }
            let members = units.rows(unit).len();
            if members == 1 {
                unit_keys[unit as usize] = key(&[content]);
                return;
            }
            let contents = several.entry(unit).or_default();
            contents.push(content);
            if contents.len() == members {
                let mut contents = several.remove(&unit).unwrap_or_default();
                contents.sort_unstable();
                unit_keys[unit as usize] = key(&contents);
            }
        })?;
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.sort_by_key(|unit| unit_keys[*unit as usize]);
        units.order = order;
        Ok(units)
    }

    /// Records of each stratum (NONE: of none) among some rows.
    fn strata_of(&self, rows: &[u32]) -> Vec<(u32, usize)> {
        let mut strata: Vec<(u32, usize)> = Vec::with_capacity(1);
        for row in rows {
            let stratum = self.stratum[*row as usize];
            match strata.iter_mut().find(|(other, _)| *other == stratum) {
                Some((_, count)) => *count += 1,
                None => strata.push((stratum, 1)),
            }
        }
        strata
    }

    /// Deals the records that are split.
    fn deal(&self, plan: &SplitPlan, keys: &mut dyn Keys, place: &mut [Option<Part>], report: &mut SplitReport) -> Result<(), DataError> {
        let dealt: Vec<u32> = self.rows(SourceRole::Split).collect();
        let records = dealt.len();
        let (test, validation) = (plan.test.of(records)?, plan.validation.of(records)?);
        if records == 0 {
            return Ok(());
        }
        if test + validation >= records {
            return Err(DataError::Portions { test: test.to_string(), validation: validation.to_string(), records });
        }
        let units = self.units(&dealt, plan.seed, keys)?;
        let count = units.order.len();
        // No stratum comes first, as an empty name would.
        let mut strata = vec![0; self.strata.len() + 1];
        for row in &dealt {
            strata[self.stratum[*row as usize].wrapping_add(1) as usize] += 1;
        }
        for row in &dealt {
            place[*row as usize] = Some(Part::Train);
        }
        let mut rest = units.order.clone();
        for (part, total, name) in [(Part::Test, test, "the test"), (Part::Validation, validation, "validation")] {
            let taken = self.take(&units, &mut rest, quotas(&strata, total), total);
            if total > 0 && taken.is_empty() {
                return Err(DataError::EmptyPart { part: name, records, units: count });
            }
            taken.iter().flat_map(|unit| units.rows(*unit)).for_each(|row| place[*row as usize] = Some(part));
        }
        if rest.is_empty() {
            return Err(DataError::EmptyPart { part: "training", records, units: count });
        }
        drop(units);
        self.naive_leaks(&dealt, test, keys, report)?;
        report.groups = dealt.iter().map(|row| self.group[*row as usize]).filter(|group| *group != NONE).collect::<HashSet<_>>().len();
        Ok(())
    }

    /// Takes units until the quotas are met as nearly as undivided units allow: first those of which everything is
    /// needed, then those of which at least half is, then any that fit, so that the total comes out.
    fn take(&self, units: &Units, rest: &mut Vec<u32>, mut quotas: Vec<usize>, total: usize) -> Vec<u32> {
        let (mut taken, mut count) = (Vec::new(), 0);
        for round in 0..3 {
            rest.retain(|unit| {
                let rows = units.rows(*unit);
                let (size, strata) = (rows.len(), self.strata_of(rows));
                let quota = |stratum: u32| stratum.wrapping_add(1) as usize;
                let needed: usize = strata.iter().map(|(stratum, n)| quotas[quota(*stratum)].min(*n)).sum();
                let wanted = match round {
                    0 => needed == size,
                    1 => 2 * needed >= size,
                    _ => needed > 0,
                };
                if !wanted || (count + size > total && (count > 0 || round < 2)) {
                    return true;
                }
                for (stratum, n) in strata {
                    let quota = &mut quotas[quota(stratum)];
                    *quota = quota.saturating_sub(n);
                }
                count += size;
                taken.push(*unit);
                false
            });
        }
        taken
    }

    /// What a split by single rows would have leaked: the usual way, measured on these records.
    fn naive_leaks(&self, dealt: &[u32], test: usize, keys: &mut dyn Keys, report: &mut SplitReport) -> Result<(), DataError> {
        let mut order: Vec<(u64, u32)> = Vec::with_capacity(dealt.len());
        keys.scan(&mut |row, _, naive| {
            if self.role[row as usize] == Some(SourceRole::Split) {
                order.push((naive, row));
            }
        })?;
        order.sort_unstable();
        let (held, trained) = order.split_at(test.min(order.len()));
        let mut leaked: HashSet<u32> = HashSet::new();
        let mut both = |class: &[u32]| {
            let trained: HashSet<u32> = trained.iter().map(|(_, row)| class[*row as usize]).filter(|of| *of != NONE).collect();
            let found: Vec<u32> = held.iter().map(|(_, row)| *row).filter(|row| trained.contains(&class[*row as usize])).collect();
            leaked.extend(&found);
            found
        };
        report.naive_leaked_groups = both(&self.group).len();
        report.naive_leaked_inputs = both(&self.input).len();
        let texts: HashSet<u32> = both(&self.text).into_iter().collect();
        report.naive_leaked_texts = texts.len();
        report.naive_leaked_near = texts.union(&both(&self.near).into_iter().collect()).count();
        report.naive_leaked = leaked.len();
        Ok(())
    }

    /// What declared held-out parts share with training.
    fn overlaps(&self, place: &[Option<Part>]) -> Vec<Overlap> {
        let roles = [(SourceRole::Validation, Part::Validation), (SourceRole::Test, Part::Test), (SourceRole::NearOod, Part::NearOod)];
        let mut overlaps = Vec::new();
        for (role, part) in roles {
            let held: Vec<u32> = self.rows(role).collect();
            if held.is_empty() {
                continue;
            }
            let of =
                |class: &[u32]| -> HashSet<u32> { held.iter().map(|row| class[*row as usize]).filter(|class| *class != NONE).collect() };
            let (texts, near, groups) = (of(&self.text), of(&self.near), of(&self.group));
            let mut answers: HashMap<u32, HashSet<u32>> = HashMap::new();
            let (mut near_trained, mut groups_trained) = (HashSet::<u32>::new(), HashSet::<u32>::new());
            // What validation takes out of a training source stood in that source all the same.
            let trains = |row: &usize| {
                let drawn = self.role[*row] == Some(SourceRole::Split) && place[*row] == Some(Part::Validation);
                place[*row] == Some(Part::Train) || drawn
            };
            for row in (0..place.len()).filter(trains) {
                if texts.contains(&self.text[row]) {
                    answers.entry(self.text[row]).or_default().insert(self.answer[row]);
                }
                near_trained.extend(near.get(&self.near[row]));
                groups_trained.extend(groups.get(&self.group[row]));
            }
            let mut overlap = Overlap { part, texts: 0, contradictory: 0, near: 0, groups: 0 };
            for row in held.iter().map(|row| *row as usize) {
                if let Some(trained) = answers.get(&self.text[row]) {
                    overlap.texts += 1;
                    overlap.contradictory += usize::from(self.answer[row] != NONE && !trained.contains(&self.answer[row]));
                } else {
                    overlap.near += usize::from(near_trained.contains(&self.near[row]));
                }
                overlap.groups += usize::from(groups_trained.contains(&self.group[row]));
            }
            overlaps.push(overlap);
        }
        overlaps
    }

    /// Where declared sources overlap, the test keeps its records, then validation; training gives way, and so does what
    /// is called out of distribution though it stands in one of them.
    fn keep_apart(&self, place: &mut [Option<Part>], left_out: &mut Vec<LeftOut>) {
        let order: [(Part, &[(Part, bool)]); 4] = [
            (Part::Test, &[(Part::Validation, true), (Part::Train, true), (Part::NearOod, false), (Part::FarOod, false)]),
            (Part::Validation, &[(Part::Train, true), (Part::NearOod, false), (Part::FarOod, false)]),
            (Part::Train, &[(Part::NearOod, false), (Part::FarOod, false)]),
            (Part::NearOod, &[(Part::FarOod, false)]),
        ];
        for (keeps, gives_way) in order {
            let rows = |place: &[Option<Part>], part| (0..place.len()).filter(|row| place[*row] == Some(part)).collect::<Vec<_>>();
            // The part and what gives way to it: in-domain parts keep near-duplicates of each other unless those are to be dropped.
            let joining = |gives_way: Part| {
                let declared = gives_way == Part::Train || gives_way == Part::Validation;
                if self.near_together && (self.near_dropped || !declared) { 4 } else { 3 }
            };
            let others: Vec<(Vec<usize>, bool, usize)> =
                gives_way.iter().map(|(part, groups)| (rows(place, *part), *groups, joining(*part))).collect();
            if others.iter().all(|(rows, ..)| rows.is_empty()) {
                continue;
            }
            let mut classes = [(&self.group, true), (&self.input, false), (&self.text, false), (&self.near, false)]
                .map(|(class, is_group)| (class, is_group, HashMap::<u32, u32>::new()));
            for row in rows(place, keeps) {
                for (class, _, first) in &mut classes {
                    if class[row] != NONE {
                        first.entry(class[row]).or_insert(row as u32);
                    }
                }
            }
            for (rows, groups, joining) in others {
                for row in rows {
                    let shared = classes[..joining].iter().filter(|(_, is_group, _)| groups || !is_group);
                    let related = shared.filter(|(class, ..)| class[row] != NONE).find_map(|(class, _, first)| first.get(&class[row]));
                    if let Some(related) = related {
                        place[row] = None;
                        left_out.push(LeftOut { row: row as u32, part: keeps, related: *related });
                    }
                }
            }
        }
    }
}

/// How many records of each stratum a part of `total` gets: in proportion, largest remainders first.
fn quotas(strata: &[usize], total: usize) -> Vec<usize> {
    let all: usize = strata.iter().sum();
    let shares: Vec<u128> = strata.iter().map(|count| (*count as u128) * (total as u128)).collect();
    let mut quotas: Vec<usize> = shares.iter().map(|share| (share / all.max(1) as u128) as usize).collect();
    let mut remainders: Vec<(u128, usize)> = shares.iter().map(|share| share % all.max(1) as u128).zip(0..).collect();
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let missing = total.saturating_sub(quotas.iter().sum());
    for (_, stratum) in remainders.into_iter().filter(|(_, stratum)| strata[*stratum] > 0).take(missing) {
        quotas[stratum] += 1;
    }
    quotas
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
