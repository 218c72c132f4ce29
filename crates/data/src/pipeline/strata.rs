//! Strata, and how much the records of each count.

use super::{ANSWERS_MAX, Finished, Pipeline};
use crate::DataError;
use crate::record::is_label;
use crate::split::{NONE, Part, SourceRole};
use std::collections::{BTreeMap, HashSet};

/// Notes how much a row counts. Most sources say nothing, and then nothing is kept.
pub(super) fn weigh(weights: &mut Vec<f32>, row: usize, weight: Option<f32>) {
    if let Some(weight) = weight.filter(|weight| *weight != 1.0 || weights.len() > row) {
        weights.resize(weights.len().max(row + 1), 1.0);
        weights[row] = weight;
    }
}

impl<E: From<DataError> + Send> Pipeline<'_, E> {
    /// The number of a stratum; none for a text that names no class, or where there are too many.
    pub(super) fn stratum(&mut self, name: String) -> u32 {
        let next = self.strata.len() as u32;
        if !is_label(&name) || (self.strata.len() >= ANSWERS_MAX && !self.strata.contains_key(&name)) {
            self.nameless += 1;
            return NONE;
        }
        *self.strata.entry(name).or_insert(next)
    }

    /// Without a column to stratify by, answers are the strata if they are labels: short ones, of which every one stands for at
    /// least two records on average.
    pub(super) fn stratify_by_answer(&mut self, first_row: usize) {
        let answers: HashSet<u32> = self.rows.answer[first_row..].iter().copied().collect();
        let name = |answer: &u32| self.answer_names.get(*answer as usize).and_then(Option::as_deref);
        if !answers.iter().all(|answer| name(answer).is_some_and(is_label)) || 2 * answers.len() > self.rows.answer.len() - first_row {
            return;
        }
        for row in first_row..self.rows.answer.len() {
            let name = self.answer_names[self.rows.answer[row] as usize].clone().unwrap_or_default();
            if !name.trim().is_empty() {
                self.rows.stratum[row] = self.stratum(name);
            }
        }
    }

    /// A column whose values are texts, or nearly all different, divides nothing: a stratum of one record has no share that
    /// could stand on each side, and evening such strata out would be left with one record of each.
    pub(super) fn no_free_strata(&mut self) {
        let split = |role: &Option<SourceRole>| matches!(role, Some(SourceRole::Split | SourceRole::Train));
        let there = self.rows.role.iter().zip(&self.rows.stratum).filter(|(role, _)| split(role)).map(|(_, stratum)| *stratum);
        let named: Vec<u32> = there.filter(|stratum| *stratum != NONE).collect();
        let distinct = named.iter().collect::<HashSet<_>>().len() as u64 + self.nameless;
        if 2 * distinct > named.len() as u64 + self.nameless {
            self.rows.stratum.fill(NONE);
            self.strata.clear();
        }
    }
}

impl Finished {
    /// Balances training by weights: all records stay, and count so much that each stratum counts at most `ratio` times as much
    /// as the smallest one. With n records of a stratum and m of the smallest, each counts min(1, ratio · m / n), on a scale on
    /// which a stratified record counts 1 on average, times the weight that it had. What is held out stays as it is.
    pub fn balance_by_weights(&mut self, ratio: f64) {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        let trained: Vec<(usize, u32)> = self
            .place
            .iter()
            .zip(&self.stratum)
            .enumerate()
            .filter(|(_, (place, stratum))| **place == Some(Part::Train) && **stratum != NONE)
            .map(|(row, (_, stratum))| (row, *stratum))
            .collect();
        trained.iter().for_each(|(_, stratum)| *counts.entry(*stratum).or_default() += 1);
        let Some(smallest) = counts.values().copied().min() else { return };
        let share = |count: u64| (ratio * smallest as f64 / count as f64).min(1.0);
        let all: f64 = counts.values().map(|count| *count as f64 * share(*count)).sum();
        let scale = trained.len() as f64 / all;
        for (row, stratum) in trained {
            let weight = scale * share(counts[&stratum]) * f64::from(self.weight.get(row).copied().unwrap_or(1.0));
            weigh(&mut self.weight, row, Some(weight as f32));
        }
    }

    /// Least and most that a training record counts, where they do not all count the same.
    pub fn weights(&self) -> Option<(f32, f32)> {
        let trained = self.place.iter().enumerate().filter(|(_, place)| **place == Some(Part::Train)).map(|(row, _)| row);
        let weights = trained.map(|row| self.weight.get(row).copied().unwrap_or(1.0));
        let (least, most) = weights.fold((f32::INFINITY, 0.0f32), |(least, most), weight| (least.min(weight), most.max(weight)));
        (least < most).then_some((least, most))
    }
}
