//! Passages that stand in several records, and what training has in common with texts it must not know.

use super::decide::take;
use super::row::entry;
use super::stored::{line, read_entry, row_id};
use super::{Finished, Pipeline};
use crate::near::{self, fold};
use crate::spill::Sorter;
use crate::split::Part;
use crate::steps::{Policy, Reason};
use crate::windows::{self, WindowSet};
use crate::{DataError, wire};
use std::collections::BTreeMap;

/// Pairs that are shown as examples.
const EXAMPLES: usize = 5;
/// Candidate pairs that are gathered before those met twice are taken out.
const PAIRS_MIN: usize = 1 << 20;

/// Passages of at least so many words in several records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passages {
    /// So many words in a row.
    pub words: usize,
    /// What happens to the later record.
    pub policy: Policy,
}

/// What was found about passages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassageReport {
    /// Records that have a passage in common with an earlier one of the same use.
    pub records: u64,
    /// A few pairs of ids, and how many words they share.
    pub examples: Vec<(String, String, u64)>,
}

/// Training records that have a text in common with something it must not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contaminated {
    /// With what: a held-out part or a benchmark.
    pub with: String,
    /// How many training records.
    pub records: u64,
    /// Ids of a few.
    pub examples: Vec<String>,
}

/// Hashes by which a record's passages are found.
pub(super) fn keys(folded: &str, words: usize) -> Vec<u64> {
    windows::chosen(&windows::words(folded), words)
}

impl<E: From<DataError> + Send> Pipeline<'_, E> {
    /// Records with a passage that an earlier record of the same use has too: candidates share a chosen window, and each
    /// pair is then compared word by word.
    pub(super) fn passages(&mut self) -> Result<PassageReport, DataError> {
        let Some(passages) = self.steps.passages else { return Ok(PassageReport::default()) };
        let (mut pairs, mut limit) = (Vec::<(u32, u32)>::new(), PAIRS_MIN);
        let role = &self.rows.role;
        let sorter: Sorter<'_, 12> = take(&mut self.passages);
        sorter.sorted()?.equal(|bucket| {
            let there: Vec<u32> = bucket.iter().copied().filter(|row| role[*row as usize].is_some()).collect();
            let one_use = |i: usize, j: usize| there[i] != there[j] && role[there[i] as usize] == role[there[j] as usize];
            near::bucket_pairs(&there, one_use, |a, b| pairs.push((b, a)));
            // Two records share many windows.
            if pairs.len() >= limit {
                pairs.sort_unstable();
                pairs.dedup();
                limit = PAIRS_MIN.max(2 * pairs.len());
            }
            Ok(())
        })?;
        // By the later record, so that an earlier one is decided about first.
        pairs.sort_unstable();
        pairs.dedup();
        let mut report = PassageReport::default();
        let mut decided = None;
        let mut current: Option<(u32, Vec<u64>)> = None;
        for (row, earlier) in pairs {
            if decided == Some(row) || self.rows.role[earlier as usize].is_none() {
                continue;
            }
            let mut words_of = |row| {
                let record = read_entry(&line(&mut self.records, &self.rows.start, row)?)?;
                Ok::<_, DataError>(windows::words(&fold(&record.asked())))
            };
            if current.as_ref().is_none_or(|(of, _)| *of != row) {
                current = Some((row, words_of(row)?));
            }
            let other = words_of(earlier)?;
            let shared = current.as_ref().map_or(0, |(_, words)| windows::longest_shared(&other, words, passages.words));
            if shared == 0 {
                continue;
            }
            decided = Some(row);
            report.records += 1;
            if report.examples.len() < EXAMPLES {
                let id = |pipeline: &mut Self, row| row_id(&mut pipeline.records, &pipeline.rows, row);
                report.examples.push((id(self, earlier)?, id(self, row)?, shared as u64));
            }
            if passages.policy == Policy::Drop {
                self.reject(row, "passages", Reason::Passage { words: shared }, &[earlier])?;
            }
        }
        Ok(report)
    }

    /// Of the rows that are versions of one thing the last stays.
    pub(super) fn superseded(&mut self) -> Result<(), DataError> {
        let mut kept: Option<([u8; 16], u32)> = None;
        let mut found = Vec::new();
        // The versions of each thing come in order, of equal ones the later row last.
        for item in take(&mut self.versions).sorted()? {
            let item = item?;
            let mut thing = [0; 16];
            thing.copy_from_slice(&item[..16]);
            let row = u32::from_be_bytes([item[32], item[33], item[34], item[35]]);
            if self.rows.role[row as usize].is_none() {
                continue;
            }
            if let Some((of, older)) = kept
                && of == thing
            {
                found.push((older, row));
            }
            kept = Some((thing, row));
        }
        // Each gives way to the next version; the pairs lead to the one that stays.
        found.sort_unstable();
        found.into_iter().try_for_each(|(row, newest)| self.reject(row, "superseded", Reason::Superseded, &[newest]))
    }
}

/// Keys of a record for the sorter of passages.
pub(super) fn entries(keys: &[u64], row: u32) -> impl Iterator<Item = [u8; 12]> + '_ {
    keys.iter().map(move |key| entry(key.to_be_bytes(), row))
}

/// Versions in their order: up to four numbers of the text (`v1.10.2`, `2026-11-24`), or its first letters where there are
/// none.
pub(super) fn version_order(text: &str) -> [u8; 16] {
    let mut order = [0; 16];
    let numbers = text.split(|character: char| !character.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut any = false;
    for (place, digits) in order.chunks_exact_mut(4).zip(numbers) {
        // A number beyond 32 bits is as great as can be.
        place.copy_from_slice(&digits.parse().unwrap_or(u32::MAX).to_be_bytes());
        any = true;
    }
    if !any {
        let folded = fold(text);
        order.iter_mut().zip(folded.bytes()).for_each(|(place, byte)| *place = byte);
    }
    order
}

impl Finished {
    /// Looks for texts of held-out parts and benchmarks in training, by windows of `words` words; what an input template adds
    /// counts too. Memory is bounded by [`windows::SET_MAX`] windows for each.
    pub fn contamination(
        &mut self,
        benchmarks: Vec<(String, WindowSet)>,
        words: usize,
        policy: Policy,
    ) -> Result<Vec<Contaminated>, DataError> {
        let mut held: BTreeMap<Part, WindowSet> = BTreeMap::new();
        self.rows(|_, part, line| {
            if part != Part::Train {
                let set = held.entry(part).or_insert_with(|| WindowSet::new(words));
                let record = wire::read_record(line).map_err(|problem| DataError::Spill { problem })?;
                set.add(&fold(&record.asked()));
                let answer = windows::words(&fold(&record.answer.to_text())).len();
                // A label is no text.
                if answer >= words {
                    set.add(&fold(&record.answer.to_text()));
                }
            }
            Ok::<(), DataError>(())
        })?;
        let sets: Vec<(String, WindowSet)> =
            held.into_iter().map(|(part, set)| (format!("the {} part", part.name()), set)).chain(benchmarks).collect();
        let mut found: Vec<Contaminated> =
            sets.iter().map(|(with, _)| Contaminated { with: with.clone(), records: 0, examples: Vec::new() }).collect();
        let mut rejected = Vec::new();
        self.rows(|row, part, line| {
            if part != Part::Train {
                return Ok(());
            }
            let record = wire::read_record(line).map_err(|problem| DataError::Spill { problem })?;
            let texts = [fold(&record.asked()), fold(&record.answer.to_text())];
            let mut first = None;
            for ((with, set), found) in sets.iter().zip(&mut found) {
                if texts.iter().any(|text| set.meets(text)) {
                    found.records += 1;
                    if found.examples.len() < EXAMPLES {
                        found.examples.push(record.id.clone());
                    }
                    first = first.or(Some(with.clone()));
                }
            }
            rejected.extend(first.map(|with| (row, with)));
            Ok::<(), DataError>(())
        })?;
        if policy == Policy::Drop {
            rejected.into_iter().try_for_each(|(row, with)| self.reject(row, "contamination", Reason::Contaminated { with }))?;
        }
        Ok(found.into_iter().filter(|found| found.records > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::version_order;

    #[test]
    fn versions_stand_in_their_order() {
        let rising = ["Rev A", "Rev B"];
        assert!(version_order(rising[0]) < version_order(rising[1]));
        for (earlier, later) in
            [("v1.9", "v1.10.2"), ("2025-12-31", "2026-01-01"), ("1", "2"), ("", "1"), ("2026-01-01T09", "2026-01-01T10")]
        {
            assert!(version_order(earlier) < version_order(later), "{earlier} {later}");
        }
    }
}
