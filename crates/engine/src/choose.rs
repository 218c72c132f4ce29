//! Choosing among given continuations of a prompt: Σ ln p of each, for many prompts at once.
//!
//! What all prompts begin with is computed once and kept as keys and values; each prompt's rest is a run;
//! its continuations are a trie below it, so that labels that begin alike share rows. A token that ends a
//! continuation is only ever a target, never a row.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    batch::{LossEntry, MAX_DEPTH, NeededRows, Segment, head_entries, run_table},
    block::{Keys, Pass},
    compute::KvType,
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

/// What was found out about a continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// Σ ln p over the tokens that were computed, a beginning of the continuation.
    pub log_prob: f64,
    /// How many those are; where there are more, `log_prob` is an upper bound of the continuation's Σ ln p.
    pub tokens: usize,
}

/// Continuations whose first token is at most this far from the likeliest are computed first: among them is nearly always the best.
const LEADERS: f64 = 2.0;

impl<D: Device> Model<D> {
    /// Σ ln p(token | prompt, tokens before) of every continuation of every question.
    ///
    /// Continuations that are shown to stay more than `negligible` nats below the best of their question are not computed to
    /// their end: first tokens are weighed, then the leaders among them as a whole, then whatever could
    /// still come near. Because a row's result never depends on its neighbours, what is computed is the same bits as without this; with
    /// infinity everything is computed at once.
    ///
    /// `observer` hears how many questions are done, after each pass that ends some; where it breaks, the answers of the
    /// questions that are done are returned.
    ///
    /// # Errors
    /// An empty prompt or continuation, an unknown token, or a question that does not fit the planned passes
    /// even with one continuation at a time.
    pub fn choose(
        &mut self,
        questions: &[Question<'_>],
        negligible: f64,
        mut observer: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<Weight>>, EngineError> {
        let use_ = self.uses().scoring.ok_or(EngineError::NotPlanned { what: "scoring" })?;
        for (index, question) in questions.iter().enumerate() {
            question.check(index, self.config(), &use_)?;
        }
        let prompts: Vec<&[u32]> = questions.iter().map(|question| question.prompt).collect();
        let prefix = shared_beginning(&prompts).min(use_.prefix);
        if prefix > 0 {
            self.cache_prefix(&prompts[0][..prefix]);
        }
        let mut answers: Vec<Vec<Weight>> = Vec::with_capacity(questions.len());
        while answers.len() < questions.len() {
            let block = block(&questions[answers.len()..], prefix, &use_);
            let first = answers.len();
            answers.extend(block.iter().map(|question| vec![Weight { log_prob: 0.0, tokens: 0 }; question.continuations.len()]));
            loop {
                let mut passes = Passes { model: self, use_, prefix, pass: ChoicePass::default() };
                let mut asked = false;
                for (index, question) in questions.iter().enumerate().take(answers.len()).skip(first) {
                    let picks = next_picks(question, &answers[index], negligible);
                    asked |= !picks.is_empty();
                    passes.weigh(question, index, picks, &mut answers)?;
                }
                passes.compute(&mut answers);
                if !asked {
                    break;
                }
            }
            if observer(answers.len()).is_break() {
                break;
            }
        }
        Ok(answers)
    }

    /// Runs `tokens` once and keeps each layer's keys and values as the prefix of the passes that follow.
    fn cache_prefix(&mut self, tokens: &[u32]) {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let segments = [Segment { rows: 0..tokens.len(), parent: None }];
        let runs = run_table(&segments, 0);
        let none = NeededRows::default();
        let pass =
            Pass { m: tokens.len(), first: 0, positions: &positions, runs: &runs, dropout: None, keys: Keys::Own, needed: Some(&none) };
        let cache = self.workspace(Kind::Scoring).expect("checked before").cache.clone();
        let keys = |layer: usize| Keys::Cache { rows: &positions, key: cache[layer].0, value: cache[layer].1, kv: KvType::F32 };
        self.forward_blocks(Kind::Scoring, tokens, pass, keys);
    }
}

/// The questions whose prompts fit one pass together, at least one.
fn block<'q, 'a>(questions: &'q [Question<'a>], prefix: usize, use_: &ScoringUse) -> &'q [Question<'a>] {
    let mut rows = 0;
    let fitting = questions.iter().take_while(|question| {
        rows += question.prompt.len() - prefix;
        rows <= use_.pass.rows
    });
    &questions[..fitting.count().max(1)]
}

/// A continuation and how many of its tokens are to be weighed.
type Pick = (usize, usize);

/// What to compute next for a question; nothing where the rest is negligible.
fn next_picks(question: &Question<'_>, known: &[Weight], negligible: f64) -> Vec<Pick> {
    let length = |index: usize| question.continuations[index].len();
    let at_once = negligible == f64::INFINITY || known.len() == 1;
    let (whole, open): (Vec<usize>, Vec<usize>) = (0..known.len()).partition(|&index| known[index].tokens == length(index));
    let top = |of: &[usize]| of.iter().map(|&index| known[index].log_prob).fold(f64::NEG_INFINITY, f64::max);
    let near = |least: f64| open.iter().copied().filter(move |&index| known[index].log_prob >= least);
    if at_once {
        open.iter().map(|&index| (index, length(index))).collect()
    } else if open.iter().any(|&index| known[index].tokens == 0) {
        open.iter().map(|&index| (index, 1)).collect()
    } else if whole.is_empty() {
        near(top(&open) - LEADERS).map(|index| (index, length(index))).collect()
    } else {
        near(top(&whole) - negligible).map(|index| (index, length(index))).collect()
    }
}

/// Parts of questions on their way through the model, a full pass at a time.
struct Passes<'m, D: Device> {
    model: &'m mut Model<D>,
    use_: ScoringUse,
    prefix: usize,
    pass: ChoicePass,
}

impl<D: Device> Passes<'_, D> {
    /// Weighs some continuations of a question, now or with the next pass.
    fn weigh(&mut self, question: &Question<'_>, index: usize, picks: Vec<Pick>, answers: &mut [Vec<Weight>]) -> Result<(), EngineError> {
        // What does not fit as a whole is cut into fewer continuations at a time.
        let mut waiting = vec![picks];
        while let Some(mut picks) = waiting.pop() {
            if picks.is_empty() {
                continue;
            }
            let part = Part::of(question, index, &picks, self.prefix);
            if !part.fits(&self.use_) {
                if picks.len() == 1 {
                    return Err(part.too_large(&self.use_));
                }
                let rest = picks.split_off(picks.len() / 2);
                waiting.extend([rest, picks]);
                continue;
            }
            if !self.pass.has_room_for(&part, &self.use_) {
                self.compute(answers);
            }
            self.pass.push(part);
        }
        Ok(())
    }

    /// Computes what has been gathered.
    fn compute(&mut self, answers: &mut [Vec<Weight>]) {
        let ChoicePass { trie, entries, paths, .. } = std::mem::take(&mut self.pass);
        if entries.is_empty() {
            return;
        }
        let (head_rows, head) = head_entries(&entries);
        let runs = run_table(&trie.segments, self.prefix);
        let prepared = Prepared::new(0..trie.tokens.len(), 0, runs, &trie.positions, &[], 0..entries.len(), &head_rows, head);
        let batch = trie.batch(&entries);
        let log_prob = self.model.score(&batch, &prepared, self.prefix);
        for path in paths {
            let log_prob = path.entries.iter().map(|&entry| log_prob[entry]).sum();
            answers[path.question][path.continuation] = Weight { log_prob, tokens: path.entries.len() };
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
    fn of(question: &Question<'_>, index: usize, picks: &[Pick], prefix: usize) -> Part {
        let mut trie = Trie::default();
        let rest = &question.prompt[prefix..];
        // One level of the depth is the prefix.
        let prompt_rows = trie.append(&[rest], None, prefix, 1, MAX_DEPTH - 1);
        let last = *prompt_rows[0].last().expect("a prompt has a token after the prefix");
        let continuations: Vec<&[u32]> =
            picks.iter().map(|&(continuation, tokens)| &question.continuations[continuation][..tokens]).collect();
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
        let path = |(&(continuation, _), (targets_of, rows)): (&Pick, (&&[u32], &Vec<u32>))| Path {
            question: index,
            continuation,
            entries: targets_of.iter().zip(std::iter::once(&last).chain(rows)).map(|(&target, &row)| targets[&(row, target)]).collect(),
        };
        let paths = picks.iter().zip(continuations.iter().zip(&rows)).map(path).collect();
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
        let part = Part::of(&question, 0, &[(0, 3), (1, 3), (2, 2)], 1);
        assert_eq!(part.trie.tokens, [5, 1, 2]);
        assert_eq!(part.trie.positions, [1, 2, 3]);
        let targets: Vec<(u32, u32)> = part.entries.iter().map(|e| (e.row, e.target)).collect();
        assert_eq!(targets, [(0, 1), (1, 2), (1, 9), (2, 3), (2, 4)]);
        assert_eq!(part.paths[1].entries, [0, 1, 4]);
        assert_eq!(part.head_rows, 3);
    }

    #[test]
    fn what_cannot_come_near_is_left() {
        let question = Question { prompt: &[8], continuations: &[&[1, 2], &[3, 4, 5, 6, 7, 8, 9, 10, 11], &[6, 7], &[9, 1]] };
        let weight = |log_prob, tokens| Weight { log_prob, tokens };
        let mut known = [weight(0.0, 0); 4];
        assert_eq!(next_picks(&question, &known, f64::INFINITY), [(0, 2), (1, 9), (2, 2), (3, 2)]);
        assert_eq!(next_picks(&question, &known, 12.0), [(0, 1), (1, 1), (2, 1), (3, 1)]);
        // No whole one yet: the leaders first.
        known = [weight(-1.0, 1), weight(-4.5, 1), weight(-9.0, 1), weight(-30.0, 1)];
        assert_eq!(next_picks(&question, &known, 12.0), [(0, 2)]);
        known[0] = weight(-6.0, 2);
        assert_eq!(next_picks(&question, &known, 12.0), [(1, 9), (2, 2)]);
        (known[1], known[2]) = (weight(-19.0, 9), weight(-40.0, 2));
        assert_eq!(next_picks(&question, &known, 12.0), []);
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
