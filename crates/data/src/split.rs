//! Train and held-out records: different types, disjoint by group and by input.
//!
//! Records that share a group, or ask the same up to white space, form a unit that is never divided. Units are put in
//! an order that depends on the seed and their contents only, never on rows, and dealt to test, validation and training
//! so that each stratum has its share of each.

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
    /// Far out of distribution.
    FarOod,
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
    /// Things that the model is not for.
    pub far_ood: Vec<Record>,
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
    /// Splits. Deterministic by seed and content, not by row order.
    pub fn new(records: Vec<(Record, SourceRole)>, plan: &SplitPlan) -> Result<Self, DataError> {
        unique_ids(&records)?;
        let mut report = SplitReport::default();
        let (mut train, mut held_out) = (Vec::new(), HeldOut::default());
        let mut dealt = Vec::new();
        for (record, role) in records {
            match role {
                SourceRole::FarOod => held_out.far_ood.push(record),
                _ if record.answer.is_empty() => left_out(&mut report, record, Reason::EmptyTarget, Vec::new()),
                SourceRole::Split => dealt.push(record),
                SourceRole::Train => train.push(record),
                SourceRole::Validation => held_out.validation.push(record),
                SourceRole::Test => held_out.in_domain.push(record),
            }
        }
        one_class(dealt.iter().chain(&train))?;
        deal(dealt, plan, &mut train, &mut held_out, &mut report)?;
        keep_apart(&mut train, &mut held_out, &mut report);
        if let Some(limit) = plan.train_per_stratum {
            train = draw(train, limit, plan.seed, &mut report);
        }
        if train.is_empty() {
            let records = held_out.validation.len() + held_out.in_domain.len();
            return Err(DataError::EmptyPart { part: "training", records, units: records });
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
        let small = strata.iter().filter(|(_, counts)| counts[2] < SMALL_STRATUM_TEST && !held_out.in_domain.is_empty());
        let groups: HashSet<&str> =
            train.iter().chain(&held_out.validation).chain(&held_out.in_domain).filter_map(|record| record.group.as_deref()).collect();
        let report = SplitReport {
            small_strata: small.map(|(name, counts)| ((*name).to_owned(), counts[2])).collect(),
            groups: groups.len(),
            strata: strata.iter().map(|(name, [train, validation, test])| ((*name).to_owned(), *train, *validation, *test)).collect(),
            ..SplitReport::default()
        };
        Ok(Self { train: TrainSet { records: train }, held_out, report })
    }
}

/// A hash that orders things by a seed and their content.
fn keyed(purpose: &str, seed: u64, content: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose.as_bytes()).update(&[0]).update(&seed.to_le_bytes()).update(content);
    *hasher.finalize().as_bytes()
}

fn left_out(report: &mut SplitReport, record: Record, reason: Reason, related: Vec<String>) {
    report.left_out.push(Rejected { id: record.id, step: "split", reason, related });
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

fn one_class<'a>(records: impl Iterator<Item = &'a Record>) -> Result<(), DataError> {
    let (mut answers, mut count) = (HashSet::new(), 0);
    for record in records {
        answers.insert(record.answer.to_text());
        count += 1;
    }
    if count > 1 && answers.len() == 1 { Err(DataError::OneClass { records: count }) } else { Ok(()) }
}

/// Records that must stay together.
struct Unit {
    records: Vec<usize>,
    key: [u8; 32],
    /// Records of each stratum.
    strata: BTreeMap<String, usize>,
}

/// Joins records that share a group or an input.
fn units(records: &[Record], seed: u64) -> Vec<Unit> {
    let mut parent: Vec<usize> = (0..records.len()).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    let (mut by_group, mut by_input) = (HashMap::new(), HashMap::new());
    for (i, record) in records.iter().enumerate() {
        let same_input = *by_input.entry(record.input_key()).or_insert(i);
        let same_group = record.group.as_deref().map_or(i, |group| *by_group.entry(group).or_insert(i));
        for other in [same_input, same_group] {
            let (a, b) = (root(&mut parent, i), root(&mut parent, other));
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..records.len() {
        members.entry(root(&mut parent, i)).or_default().push(i);
    }
    let mut units: Vec<Unit> = members
        .into_values()
        .map(|indices| {
            let mut contents: Vec<[u8; 32]> = indices.iter().map(|i| records[*i].content_key()).collect();
            contents.sort_unstable();
            let mut strata = BTreeMap::new();
            for i in &indices {
                *strata.entry(records[*i].stratum.clone().unwrap_or_default()).or_insert(0) += 1;
            }
            Unit { key: keyed("split", seed, contents.as_flattened()), records: indices, strata }
        })
        .collect();
    units.sort_by_key(|unit| unit.key);
    units
}

/// How many records of each stratum a part of `total` gets: in proportion, largest remainders first.
fn quotas(strata: &BTreeMap<String, usize>, total: usize) -> BTreeMap<String, usize> {
    let all: usize = strata.values().sum();
    let mut quotas: BTreeMap<String, usize> = BTreeMap::new();
    let mut remainders = Vec::new();
    for (name, count) in strata {
        let share = (*count as u128) * (total as u128);
        let whole = (share / all.max(1) as u128) as usize;
        quotas.insert(name.clone(), whole);
        remainders.push((share % all.max(1) as u128, name));
    }
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let missing = total.saturating_sub(quotas.values().sum());
    for (_, name) in remainders.into_iter().take(missing) {
        *quotas.entry(name.clone()).or_default() += 1;
    }
    quotas
}

/// Deals the records that are split.
fn deal(
    records: Vec<Record>,
    plan: &SplitPlan,
    train: &mut Vec<Record>,
    held_out: &mut HeldOut,
    report: &mut SplitReport,
) -> Result<(), DataError> {
    let (test, validation) = (plan.test.of(records.len())?, plan.validation.of(records.len())?);
    if records.is_empty() {
        return Ok(());
    }
    if test + validation >= records.len() {
        return Err(DataError::Portions { test: test.to_string(), validation: validation.to_string(), records: records.len() });
    }
    let mut rest = units(&records, plan.seed);
    let count = rest.len();
    let mut strata = BTreeMap::new();
    for unit in &rest {
        for (name, records) in &unit.strata {
            *strata.entry(name.clone()).or_insert(0) += records;
        }
    }
    let mut place = vec![SourceRole::Train; records.len()];
    for (role, total, part) in [(SourceRole::Test, test, "the test"), (SourceRole::Validation, validation, "validation")] {
        let taken = take(&mut rest, quotas(&strata, total), total);
        if total > 0 && taken.is_empty() {
            return Err(DataError::EmptyPart { part, records: records.len(), units: count });
        }
        taken.into_iter().flat_map(|unit| unit.records).for_each(|i| place[i] = role);
    }
    if rest.is_empty() {
        return Err(DataError::EmptyPart { part: "training", records: records.len(), units: count });
    }
    naive_leaks(&records, test, plan.seed, report);
    report.groups = records.iter().filter_map(|record| record.group.as_deref()).collect::<HashSet<_>>().len();
    for (record, role) in records.into_iter().zip(place) {
        match role {
            SourceRole::Test => held_out.in_domain.push(record),
            SourceRole::Validation => held_out.validation.push(record),
            _ => train.push(record),
        }
    }
    Ok(())
}

/// Takes units until the quotas are met as nearly as undivided units allow: first those of which everything is needed,
/// then those of which at least half is, then any that fit, so that the total comes out.
fn take(units: &mut Vec<Unit>, mut quotas: BTreeMap<String, usize>, total: usize) -> Vec<Unit> {
    let (mut taken, mut count) = (Vec::new(), 0);
    for round in 0..3 {
        let mut kept = Vec::with_capacity(units.len());
        for unit in units.drain(..) {
            let size = unit.records.len();
            let needed: usize = unit.strata.iter().map(|(name, n)| quotas.get(name).map_or(0, |quota| *quota.min(n))).sum();
            let wanted = match round {
                0 => needed == size,
                1 => 2 * needed >= size,
                _ => needed > 0,
            };
            if wanted && (count + size <= total || (count == 0 && round == 2)) {
                for (name, n) in &unit.strata {
                    if let Some(quota) = quotas.get_mut(name) {
                        *quota = quota.saturating_sub(*n);
                    }
                }
                count += size;
                taken.push(unit);
            } else {
                kept.push(unit);
            }
        }
        *units = kept;
    }
    taken
}

/// What a split by single rows would have leaked: the usual way, measured on these records.
fn naive_leaks(records: &[Record], test: usize, seed: u64, report: &mut SplitReport) {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_cached_key(|i| keyed("naive split", seed, records[*i].id.as_bytes()));
    let (held, trained) = order.split_at(test.min(order.len()));
    let groups: HashSet<&str> = trained.iter().filter_map(|i| records[*i].group.as_deref()).collect();
    let inputs: HashSet<[u8; 32]> = trained.iter().map(|i| records[*i].input_key()).collect();
    let in_groups = |i: &&usize| records[**i].group.as_deref().is_some_and(|group| groups.contains(group));
    report.naive_leaked_groups = held.iter().filter(in_groups).count();
    report.naive_leaked_inputs = held.iter().filter(|i| inputs.contains(&records[**i].input_key())).count();
}

/// Where declared sources overlap, the test keeps its records, then validation; training gives way, and so does what is
/// called far out of distribution though its input is in it.
fn keep_apart(train: &mut Vec<Record>, held_out: &mut HeldOut, report: &mut SplitReport) {
    let mut test = Claimed::default();
    test.claim(&held_out.in_domain);
    held_out.validation = test.without(std::mem::take(&mut held_out.validation), "test", true, report);
    let mut validation = Claimed::default();
    validation.claim(&held_out.validation);
    *train = test.without(std::mem::take(train), "test", true, report);
    *train = validation.without(std::mem::take(train), "validation", true, report);
    let mut trained = Claimed::default();
    trained.claim(train);
    for (claimed, part) in [(&test, "test"), (&validation, "validation"), (&trained, "training")] {
        held_out.far_ood = claimed.without(std::mem::take(&mut held_out.far_ood), part, false, report);
    }
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

    fn without(&self, records: Vec<Record>, part: &'static str, groups: bool, report: &mut SplitReport) -> Vec<Record> {
        let mut kept = Vec::with_capacity(records.len());
        for record in records {
            match self.shared(&record, groups) {
                None => kept.push(record),
                Some((_, id)) => {
                    let related = vec![id.clone()];
                    left_out(report, record, Reason::HeldOut { part }, related);
                }
            }
        }
        kept
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
        if drawn { kept.push(record) } else { left_out(report, record, Reason::NotDrawn, Vec::new()) }
    }
    kept
}

fn prove_disjoint(train: &[Record], held_out: &HeldOut) -> Result<(), DataError> {
    let mut before: Vec<(&'static str, Claimed)> = Vec::new();
    let parts = [
        ("training", train, true),
        ("validation", held_out.validation.as_slice(), true),
        ("the test", held_out.in_domain.as_slice(), true),
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
