//! What a split needs to know of records, a few small numbers each, and where it puts them.

use super::{Overlap, Part, SourceRole, SplitPlan, SplitReport, keyed, naive_key, small_strata};
use crate::near::{UnionFind, fold, hash_bytes};
use crate::steps::Reason;
use crate::{DataError, Record, Rejected};
use std::collections::{BTreeMap, HashMap, HashSet};

/// No class: the record has no group, or its answer is one of too many to tell apart.
pub(crate) const NONE: u32 = u32::MAX;

/// Records of each stratum in training, validation and test, by name; without those that have none there. `stratum` has a record's
/// place among `names`, `parts` its part.
pub(crate) fn counted(names: &[String], stratum: &[u32], parts: &[Option<Part>]) -> Vec<(String, usize, usize, usize)> {
    let mut counts = vec![(0, 0, 0); names.len()];
    for (part, stratum) in parts.iter().zip(stratum).filter(|(_, stratum)| **stratum != NONE) {
        let counts = &mut counts[*stratum as usize];
        match part {
            Some(Part::Train) => counts.0 += 1,
            Some(Part::Validation) => counts.1 += 1,
            Some(Part::Test) => counts.2 += 1,
            _ => {}
        }
    }
    let named = names.iter().zip(counts).filter(|(_, counts)| *counts != (0, 0, 0));
    named.map(|(name, (train, validation, test))| (name.clone(), train, validation, test)).collect()
}

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

pub(super) struct RecordKeys<'a> {
    pub(super) records: &'a [Record],
    pub(super) seed: u64,
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
    pub(super) fn of(records: &[Record], roles: Vec<SourceRole>) -> Self {
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
        report.strata = counted(&self.strata, &self.stratum, &place);
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
