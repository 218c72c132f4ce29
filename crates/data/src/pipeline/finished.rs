//! The second pass: records, documents and rejects are handed out.

use super::stored::{line, parts, record};
use super::{NearReport, PassageReport, Rejects};
use crate::spill::Log;
use crate::split::{Keys, NONE, Part, SplitReport, counted};
use crate::steps::Reason;
use crate::{DataError, Record, Rejected, wire};
use std::collections::BTreeMap;

/// What the first pass and the decisions gave; records are handed out by the second pass.
pub struct Finished {
    pub(super) keys: Log,
    pub(super) start: Vec<u64>,
    pub(super) place: Vec<Option<Part>>,
    pub(super) stratum: Vec<u32>,
    pub(super) strata: Vec<String>,
    pub(super) lengths: Vec<[u8; 2]>,
    pub(super) weight: Vec<f32>,
    pub(super) records: Log,
    pub(super) documents: Log,
    pub(super) rejects: Rejects,
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
        let counts = counted(&self.strata, &self.stratum, &self.place);
        counts.into_iter().map(|(name, train, validation, test)| (name, train as u64, validation as u64, test as u64)).collect()
    }

    /// Balances training by sampling: of each stratum at most `ratio` times as many records stay as the smallest one has, drawn
    /// by the seed. What is held out stays as it is in life.
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
            let weight = self.weight.get(row).copied().filter(|weight| *weight != 1.0);
            wire::close_record(&mut line, (stratum != NONE).then(|| self.strata[stratum as usize].as_str()), weight);
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
