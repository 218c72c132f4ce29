//! Choosing among given continuations of a prompt: Σ ln p of each, for many prompts at once.
//!
//! What all prompts begin with is computed once and kept as keys and values; each prompt's rest is a run;
//! its continuations are a trie below it, so that labels that begin alike share rows. A token that ends a
//! continuation is only ever a target, never a row.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    batch::{Batch, LossEntry, MAX_DEPTH, Segment, head_entries, run_table},
    block::{Keys, Pass},
    config::ModelConfig,
    device::Device,
    error::EngineError,
    memory::ScoringUse,
    model::{Kind, Model, Prepared},
    trie::{Trie, common},
};

/// A prompt and what may follow it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Tokens before the answer.
    pub prompt: &'a [u32],
    /// The answers to weigh, each with the token that ends it.
    pub continuations: &'a [&'a [u32]],
}

impl<D: Device> Model<D> {
    /// Σ ln p(token | prompt, tokens before) of every continuation of every question.
    ///
    /// `observer` hears how many questions are done, after each pass; where it breaks, the answers of the
    /// questions that are done are returned.
    ///
    /// # Errors
    /// An empty prompt or continuation, an unknown token, or a question that does not fit the planned passes
    /// even with one continuation at a time.
    pub fn choose(
        &mut self,
        questions: &[Question<'_>],
        mut observer: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<f64>>, EngineError> {
        let use_ = self.uses().scoring.ok_or(EngineError::NotPlanned { what: "scoring" })?;
        for (index, question) in questions.iter().enumerate() {
            question.check(index, self.config(), &use_)?;
        }
        let prompts: Vec<&[u32]> = questions.iter().map(|question| question.prompt).collect();
        let prefix = shared_beginning(&prompts).min(use_.prefix);
        if prefix > 0 {
            self.cache_prefix(&prompts[0][..prefix]);
        }
        let mut answers: Vec<Vec<f64>> = questions.iter().map(|question| vec![0.0; question.continuations.len()]).collect();
        let mut pass = ChoicePass::default();
        for (index, question) in questions.iter().enumerate() {
            // A question that does not fit as a whole is cut into fewer continuations at a time.
            let mut waiting = Vec::from([(0, question.continuations.len())]);
            while let Some((from, to)) = waiting.pop() {
                let part = Part::of(question, index, from..to, prefix);
                if !part.fits(&use_) {
                    if to - from == 1 {
                        return Err(part.too_large(&use_));
                    }
                    let middle = from.midpoint(to);
                    waiting.extend([(middle, to), (from, middle)]);
                    continue;
                }
                if !pass.has_room_for(&part, &use_) {
                    self.choose_pass(&mut pass, prefix, &mut answers);
                    if observer(index).is_break() {
                        answers.truncate(index);
                        return Ok(answers);
                    }
                }
                pass.push(part);
            }
        }
        self.choose_pass(&mut pass, prefix, &mut answers);
        let _ = observer(questions.len()); // nothing is left to stop
        Ok(answers)
    }

    /// Runs `tokens` once and keeps each layer's keys and values as the prefix of the passes that follow.
    fn cache_prefix(&mut self, tokens: &[u32]) {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let segments = [Segment { rows: 0..tokens.len(), parent: None }];
        let runs = run_table(&segments, 0);
        let pass = Pass { m: tokens.len(), positions: &positions, runs: &runs, dropout: None, keys: Keys::Own };
        let cache = self.workspace(Kind::Scoring).expect("checked before").cache.clone();
        let keys = |layer: usize| Keys::Cache { rows: &positions, key: cache[layer].0, value: cache[layer].1 };
        self.forward_blocks(Kind::Scoring, tokens, pass, keys);
    }

    /// Computes what `pass` has gathered and empties it.
    fn choose_pass(&mut self, pass: &mut ChoicePass, prefix: usize, answers: &mut [Vec<f64>]) {
        let ChoicePass { trie, entries, paths, .. } = std::mem::take(pass);
        if entries.is_empty() {
            return;
        }
        let (head_rows, head) = head_entries(&entries);
        let prepared = Prepared { runs: run_table(&trie.segments, prefix), head_rows, entries: head };
        let batch = Batch { tokens: &trie.tokens, positions: &trie.positions, draw_keys: &[], segments: &trie.segments, entries: &entries };
        let log_prob = self.score(&batch, &prepared, prefix);
        for path in paths {
            answers[path.question][path.continuation] = path.entries.iter().map(|&entry| log_prob[entry]).sum();
        }
    }
}

/// The distribution over answers that their log-probabilities come to: softmax, in f64.
pub fn normalized(log_probs: &[f64]) -> Vec<f64> {
    let top = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return vec![1.0 / log_probs.len() as f64; log_probs.len()];
    }
    let weights: Vec<f64> = log_probs.iter().map(|&log_prob| kernels::math::scalar::exp(log_prob - top)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// How many tokens all prompts begin with, leaving each at least one of its own; 0 for a single prompt.
pub(crate) fn shared_beginning(prompts: &[&[u32]]) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    if rest.is_empty() {
        return 0;
    }
    let shared = rest.iter().fold(first.len(), |shared, prompt| shared.min(common(&first[..shared], prompt)));
    let shortest = prompts.iter().map(|prompt| prompt.len()).min().unwrap_or(0);
    shared.min(shortest.saturating_sub(1))
}

impl Question<'_> {
    fn check(&self, index: usize, config: &ModelConfig, use_: &ScoringUse) -> Result<(), EngineError> {
        let empty = |what| Err(EngineError::Empty { what, index });
        if self.prompt.is_empty() {
            return empty("the prompt of question");
        }
        if self.continuations.is_empty() || self.continuations.iter().any(|continuation| continuation.is_empty()) {
            return empty("a continuation of question");
        }
        let mut tokens = self.continuations.iter().copied().flatten().chain(self.prompt);
        if let Some(&token) = tokens.find(|&&token| token as usize >= config.vocab) {
            return Err(EngineError::Token { token, what: "question", index, vocab: config.vocab });
        }
        let longest = self.continuations.iter().map(|continuation| continuation.len()).max().unwrap_or(0);
        let (given, limit) = (self.prompt.len() + longest - 1, use_.pass.chain);
        if given > limit { Err(EngineError::Limit { what: "tokens of a question and an answer", given, limit }) } else { Ok(()) }
    }
}

/// Which entries' log-probabilities add up to a continuation's.
struct Path {
    question: usize,
    continuation: usize,
    entries: Vec<usize>,
}

/// A question, or some of its continuations, as rows that start at 0.
struct Part {
    trie: Trie,
    entries: Vec<LossEntry>,
    paths: Vec<Path>,
    head_rows: usize,
}

impl Part {
    fn of(question: &Question<'_>, index: usize, range: std::ops::Range<usize>, prefix: usize) -> Part {
        let mut trie = Trie::default();
        let rest = &question.prompt[prefix..];
        // One level of the depth is the prefix.
        let prompt_rows = trie.append(&[rest], None, prefix, 1, MAX_DEPTH - 1);
        let last = *prompt_rows[0].last().expect("a prompt has a token after the prefix");
        let continuations = &question.continuations[range.clone()];
        let stems: Vec<&[u32]> = continuations.iter().map(|continuation| &continuation[..continuation.len() - 1]).collect();
        let rows = trie.append(&stems, Some(0), question.prompt.len(), 1, MAX_DEPTH - 1);

        let mut targets: BTreeMap<(u32, u32), usize> = BTreeMap::new(); // (row, target) → entry, in order of rows
        for (continuation, rows) in continuations.iter().zip(&rows) {
            for (&target, &row) in continuation.iter().zip(std::iter::once(&last).chain(rows)) {
                targets.insert((row, target), 0);
            }
        }
        targets.values_mut().enumerate().for_each(|(entry, place)| *place = entry);
        let entries: Vec<LossEntry> =
            targets.keys().map(|&(row, target)| LossEntry { row, target, weight: 1.0, sequence: index as u32 }).collect();
        let path = |(offset, (continuation, rows)): (usize, (&&[u32], &Vec<u32>))| Path {
            question: index,
            continuation: range.start + offset,
            entries: continuation.iter().zip(std::iter::once(&last).chain(rows)).map(|(&target, &row)| targets[&(row, target)]).collect(),
        };
        let paths = continuations.iter().zip(&rows).enumerate().map(path).collect();
        let head_rows = entries.chunk_by(|a, b| a.row == b.row).count();
        Part { trie, entries, paths, head_rows }
    }

    fn fits(&self, use_: &ScoringUse) -> bool {
        ChoicePass::default().has_room_for(self, use_)
    }

    fn too_large(&self, use_: &ScoringUse) -> EngineError {
        let sizes = [
            ("rows of a question and one answer", self.trie.tokens.len(), use_.pass.rows),
            ("answer tokens of a question", self.head_rows, use_.pass.head_rows),
            ("answer tokens of a question", self.entries.len(), use_.pass.entries),
        ];
        let (what, given, limit) = sizes.into_iter().find(|(_, given, limit)| given > limit).expect("it does not fit");
        EngineError::Limit { what, given, limit }
    }
}

/// Parts that are computed together.
#[derive(Default)]
struct ChoicePass {
    trie: Trie,
    entries: Vec<LossEntry>,
    paths: Vec<Path>,
    head_rows: usize,
}

impl ChoicePass {
    fn has_room_for(&self, part: &Part, use_: &ScoringUse) -> bool {
        self.trie.tokens.len() + part.trie.tokens.len() <= use_.pass.rows
            && self.head_rows + part.head_rows <= use_.pass.head_rows
            && self.entries.len() + part.entries.len() <= use_.pass.entries
    }

    fn push(&mut self, part: Part) {
        let (row, segment, entry) = (self.trie.tokens.len(), self.trie.segments.len(), self.entries.len());
        self.trie.tokens.extend(part.trie.tokens);
        self.trie.positions.extend(part.trie.positions);
        self.trie.segments.extend(
            part.trie
                .segments
                .into_iter()
                .map(|s| Segment { rows: s.rows.start + row..s.rows.end + row, parent: s.parent.map(|parent| parent + segment) }),
        );
        self.entries.extend(part.entries.into_iter().map(|e| LossEntry { row: e.row + row as u32, ..e }));
        self.paths.extend(part.paths.into_iter().map(|mut path| {
            path.entries.iter_mut().for_each(|place| *place += entry);
            path
        }));
        self.head_rows += part.head_rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_share_rows_and_entries() {
        // 5 → 1 2 3 | 1 2 4 | 1 9: rows 5, 1, 2; targets 1 after 5, 2 and 9 after 1, 3 and 4 after 2
        let question = Question { prompt: &[8, 5], continuations: &[&[1, 2, 3], &[1, 2, 4], &[1, 9]] };
        let part = Part::of(&question, 0, 0..3, 1);
        assert_eq!(part.trie.tokens, [5, 1, 2]);
        assert_eq!(part.trie.positions, [1, 2, 3]);
        let targets: Vec<(u32, u32)> = part.entries.iter().map(|e| (e.row, e.target)).collect();
        assert_eq!(targets, [(0, 1), (1, 2), (1, 9), (2, 3), (2, 4)]);
        assert_eq!(part.paths[1].entries, [0, 1, 4]);
        assert_eq!(part.head_rows, 3);
    }

    #[test]
    fn every_prompt_keeps_a_token_of_its_own() {
        assert_eq!(shared_beginning(&[&[1, 2, 3], &[1, 2, 4]]), 2);
        assert_eq!(shared_beginning(&[&[1, 2], &[1, 2, 4]]), 1);
        assert_eq!(shared_beginning(&[&[1, 2]]), 0);
        assert_eq!(shared_beginning(&[]), 0);
    }

    #[test]
    fn a_distribution_sums_to_one() {
        let p = normalized(&[-1000.0, -1001.0, f64::NEG_INFINITY]);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p[0] > p[1] && p[2] == 0.0);
    }
}
