//! Decisions about the records as a set: duplicates, conflicts, classes, and the split.

use super::stored::{KEY_BYTES, record, row_id};
use super::{Finished, NearPolicy, Pipeline};
use crate::spill::Sorter;
use crate::split::{Dealt, NONE, SourceRole, Table};
use crate::steps::{Conflict, Policy, Reason};
use crate::{DataError, Record, wire};
use std::collections::HashSet;

impl<'a, E: From<DataError> + Send> Pipeline<'a, E> {
    pub(super) fn finished(mut self) -> Result<Finished, DataError> {
        self.unique_ids()?;
        self.superseded()?;
        self.no_free_strata();
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
            near_dropped: self.steps.near.is_some_and(|(_, policy)| policy == NearPolicy::Drop),
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
            weight: self.rows.weight,
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
}

/// A sorter's entries; it is empty afterwards.
pub(super) fn take<'a, const N: usize>(sorter: &mut Sorter<'a, N>) -> Sorter<'a, N> {
    let empty = sorter.emptied();
    std::mem::replace(sorter, empty)
}
