//! Generation with a key/value cache: many prompts, a few slots, what all prompts begin with computed once.
//!
//! A pass takes one token from each sequence that is writing and, in the rows left, tokens of prompts that
//! are still being read. A sequence that ends makes room for the next prompt. Because every operation is
//! row-invariant and every draw is keyed by its prompt, what a sequence says does not depend on which others
//! are written at the same time.

use std::{collections::VecDeque, ops::Range};

use kernels::head::{largest, log_sum_exp};
use kernels::math::scalar::exp;
use kernels::simd::Level;
use rayon::prelude::*;

use crate::{
    batch::{NeededRows, Run, RunTable},
    block::{Keys, Pass},
    choose::shared_beginning,
    config::ModelConfig,
    device::{Device, Slot},
    error::EngineError,
    memory::GenerationUse,
    model::{Kind, Model},
    random::{self, Purpose},
};

/// Probabilities below e^−40 of the largest cannot be seen in the sum of a vocabulary.
const NEGLIGIBLE: f64 = 40.0;

/// What to continue, and until when.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// Longest answer.
    pub max_new: usize,
    /// Tokens that end the answer and are not part of it.
    pub stop: &'a [u32],
    /// Names its draws (a hash of the record's id): equal keys and prompts give equal answers.
    pub draw_key: u64,
}

/// How the next token is drawn from p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0: the most probable token, of equal ones the lowest id.
    pub temperature: f32,
    /// Only the k most probable.
    pub top_k: Option<usize>,
    /// Of those, the fewest whose probabilities reach this share; 1: all.
    pub top_p: f32,
    /// Seed.
    pub seed: u64,
}

impl Sampling {
    /// Always the most probable token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: None, top_p: 1.0, seed: 0 };

    fn validate(&self) -> Result<(), EngineError> {
        let refuse = |what, given, expected| Err(EngineError::Sampling { what, given, expected });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", f64::from(self.temperature), "a number of at least 0");
        }
        if self.top_k == Some(0) {
            return refuse("top_k", 0.0, "at least 1");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", f64::from(self.top_p), "above 0 and at most 1");
        }
        Ok(())
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token, or the observer said that this sequence is complete.
    Stop,
    /// `max_new` tokens are written.
    Length,
    /// The observer stopped everything.
    Cancelled,
}

/// What an observer hears, in order of time. Sequences are numbered as the prompts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A token of the answer. Stop tokens are not told.
    Token {
        /// Which sequence.
        sequence: usize,
        /// The token.
        token: u32,
        /// Its ln p, see [`Completion::log_prob`].
        log_prob: f64,
    },
    /// A sequence ended.
    Finished {
        /// Which sequence.
        sequence: usize,
        /// Why.
        finish: Finish,
    },
}

/// What an observer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// This sequence is complete with this token (a stop string was found).
    StopSequence,
    /// Stop everything.
    StopAll,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Its tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// Σ ln p of its tokens and of the stop token, under the model itself: before temperature and cut-offs.
    pub log_prob: f64,
    /// Why it ended.
    pub finish: Finish,
}

impl Completion {
    fn not_begun(prompt: &Prompt<'_>) -> Completion {
        let finish = if prompt.max_new == 0 { Finish::Length } else { Finish::Cancelled };
        Completion { tokens: Vec::new(), log_prob: 0.0, finish }
    }
}

/// A prompt that is being read or answered.
struct Sequence {
    index: usize,
    /// Its rows of the cache.
    region: Range<usize>,
    /// Prompt after the shared beginning, then the answer so far.
    own: Vec<u32>,
    /// How many of `own` are in the cache.
    fed: usize,
    /// Where the answer begins in `own`.
    answer: usize,
    log_prob: f64,
}

impl<D: Device> Model<D> {
    /// Continues every prompt. Completions come back in the order of the prompts.
    ///
    /// # Errors
    /// An empty prompt, an unknown token, prompt and answer longer than the model's context or than the cache.
    pub fn generate(
        &mut self,
        prompts: &[Prompt<'_>],
        sampling: &Sampling,
        mut observer: impl FnMut(Event) -> Flow,
    ) -> Result<Vec<Completion>, EngineError> {
        let use_ = self.uses().generation.ok_or(EngineError::NotPlanned { what: "generation" })?;
        sampling.validate()?;
        let root = shared_beginning(&prompts.iter().map(|prompt| prompt.tokens).collect::<Vec<_>>());
        for (index, prompt) in prompts.iter().enumerate() {
            prompt.check(index, root, self.config(), &use_)?;
        }
        let mut completions: Vec<Completion> = prompts.iter().map(Completion::not_begun).collect();
        let mut writer = Writer { root, free: Regions::new(root..use_.cache_rows), use_, active: Vec::new(), logits: Vec::new() };
        let threads = self.device.threads();
        let _awake = threads.awake();
        writer.read_root(self, prompts);
        // Where nothing may be written, nothing is read.
        let mut queue: VecDeque<usize> = (0..prompts.len()).filter(|&index| prompts[index].max_new > 0).collect();
        loop {
            while writer.active.len() < use_.sequences {
                let Some(&index) = queue.front() else { break };
                let Some(sequence) = writer.admit(index, &prompts[index]) else { break };
                writer.active.push(sequence);
                queue.pop_front();
            }
            if writer.active.is_empty() {
                return Ok(completions);
            }
            let (ready, drawn) = threads.run(|| {
                let ready = writer.pass(self);
                let drawn = writer.draw(self, &ready, prompts, sampling);
                (ready, drawn)
            });
            let mut ended: Vec<usize> = Vec::new();
            let mut cancelled = false;
            for (&place, (token, log_prob)) in ready.iter().zip(drawn) {
                let sequence = &mut writer.active[place];
                let finish = sequence.write(token, log_prob, &prompts[sequence.index], &mut observer, &mut cancelled);
                if let Some(finish) = finish {
                    let index = sequence.index;
                    completions[index] = sequence.complete(finish);
                    ended.push(place);
                    cancelled |= observer(Event::Finished { sequence: index, finish }) == Flow::StopAll;
                }
                if cancelled {
                    break;
                }
            }
            ended.sort_unstable();
            for &place in ended.iter().rev() {
                let sequence = writer.active.remove(place);
                writer.free.give_back(sequence.region);
            }
            if cancelled {
                for sequence in &mut writer.active {
                    completions[sequence.index] = sequence.complete(Finish::Cancelled);
                }
                return Ok(completions);
            }
        }
    }
}

impl<D: Device> Model<D> {
    /// Logits of every token of `tokens` from `start` on, `[tokens.len() - start, vocab]`, into `logits`. The tokens before
    /// are those that the calls before read, from 0 on: their keys and values are in generation's cache.
    ///
    /// # Errors
    /// More tokens than the cache has rows, more new ones than there are sequences or rows of a pass, an unknown token.
    pub fn read_on(&mut self, tokens: &[u32], start: usize, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let use_ = self.uses().generation.ok_or(EngineError::NotPlanned { what: "generation" })?;
        let vocab = self.config().vocab;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(EngineError::Token { token, what: "text", index: 0, vocab });
        }
        if tokens.len() <= start {
            return Err(EngineError::Empty { what: "text", index: start });
        }
        let new = tokens.len() - start;
        for (what, given, limit) in [
            ("cache rows of a text", tokens.len(), use_.cache_rows.min(self.config().context)),
            ("new tokens of a text", new, use_.rows.min(use_.sequences)),
        ] {
            if given > limit {
                return Err(EngineError::Limit { what, given, limit });
            }
        }
        let positions: Vec<u32> = (start as u32..tokens.len() as u32).collect();
        let runs = RunTable { runs: vec![Run { rows: 0..new, spans: 0..1 }], spans: std::iter::once(0..tokens.len()).collect() };
        let rows: Vec<u32> = (0..new as u32).collect();
        let stream = forward(self, &tokens[start..], &positions, &positions, &runs, &rows);
        self.forward_logits(stream, &rows, logits);
        Ok(())
    }
}

impl Prompt<'_> {
    fn check(&self, index: usize, root: usize, config: &ModelConfig, use_: &GenerationUse) -> Result<(), EngineError> {
        if self.tokens.is_empty() {
            return Err(EngineError::Empty { what: "prompt", index });
        }
        if let Some(&token) = self.tokens.iter().find(|&&token| token as usize >= config.vocab) {
            return Err(EngineError::Token { token, what: "prompt", index, vocab: config.vocab });
        }
        let given = self.tokens.len().saturating_add(self.max_new);
        if given > config.context {
            return Err(EngineError::Limit { what: "tokens of a prompt and its answer", given, limit: config.context });
        }
        debug_assert!(root < self.tokens.len());
        if given > use_.cache_rows {
            return Err(EngineError::Limit { what: "cache rows of a prompt and its answer", given, limit: use_.cache_rows });
        }
        Ok(())
    }
}

impl Sequence {
    /// Adds the next token and tells it; `Some` where the sequence ends with it.
    fn write(
        &mut self,
        token: u32,
        log_prob: f64,
        prompt: &Prompt<'_>,
        observer: &mut impl FnMut(Event) -> Flow,
        cancelled: &mut bool,
    ) -> Option<Finish> {
        self.log_prob += log_prob;
        if prompt.stop.contains(&token) {
            return Some(Finish::Stop);
        }
        self.own.push(token);
        match observer(Event::Token { sequence: self.index, token, log_prob }) {
            Flow::StopSequence => Some(Finish::Stop),
            Flow::StopAll => {
                *cancelled = true;
                None
            }
            Flow::Continue => (self.own.len() - self.answer == prompt.max_new).then_some(Finish::Length),
        }
    }

    fn complete(&mut self, finish: Finish) -> Completion {
        Completion { tokens: self.own.split_off(self.answer), log_prob: self.log_prob, finish }
    }
}

/// The cache and the sequences in it.
struct Writer {
    /// Rows of what all prompts begin with, at the start of the cache.
    root: usize,
    free: Regions,
    use_: GenerationUse,
    active: Vec<Sequence>,
    /// Of the last pass, one row for each sequence that it made ready.
    logits: Vec<f32>,
}

impl Writer {
    /// Gives `prompt` a place; `None` while the cache has no room.
    fn admit(&mut self, index: usize, prompt: &Prompt<'_>) -> Option<Sequence> {
        let own = prompt.tokens[self.root..].to_vec();
        let region = self.free.take(own.len() + prompt.max_new)?;
        Some(Sequence { index, region, answer: own.len(), own, fed: 0, log_prob: 0.0 })
    }

    /// Reads what all prompts begin with.
    fn read_root<D: Device>(&self, model: &mut Model<D>, prompts: &[Prompt<'_>]) {
        for start in (0..self.root).step_by(self.use_.rows) {
            let rows = start..self.root.min(start + self.use_.rows);
            let runs = RunTable { runs: vec![Run { rows: 0..rows.len(), spans: 0..1 }], spans: std::iter::once(0..rows.end).collect() };
            let positions: Vec<u32> = rows.clone().map(|row| row as u32).collect();
            forward(model, &prompts[0].tokens[rows], &positions, &positions, &runs, &[]);
        }
    }

    /// One pass: a token of each sequence that is writing, then as much of the prompts as fits. Returns the
    /// places in `active` of the sequences whose next token can be drawn, in the order of `logits`.
    fn pass<D: Device>(&mut self, model: &mut Model<D>) -> Vec<usize> {
        let (mut tokens, mut positions, mut cache_rows) = (Vec::new(), Vec::new(), Vec::new());
        let (mut runs, mut ready, mut rows) = (RunTable::default(), Vec::new(), Vec::new());
        let pending = |sequence: &Sequence| sequence.own.len() - sequence.fed;
        let mut order: Vec<usize> = (0..self.active.len()).collect();
        order.sort_by_key(|&place| pending(&self.active[place]) > 1);
        for place in order {
            let sequence = &mut self.active[place];
            let count = pending(sequence).min(self.use_.rows - tokens.len());
            if count == 0 {
                continue;
            }
            let (first, fed) = (tokens.len(), sequence.fed);
            tokens.extend_from_slice(&sequence.own[fed..fed + count]);
            positions.extend((fed..fed + count).map(|i| (self.root + i) as u32));
            cache_rows.extend((fed..fed + count).map(|i| (sequence.region.start + i) as u32));
            let spans = runs.spans.len();
            if self.root > 0 {
                runs.spans.push(0..self.root);
            }
            runs.spans.push(sequence.region.start..sequence.region.start + fed + count);
            runs.runs.push(Run { rows: first..tokens.len(), spans: spans..runs.spans.len() });
            sequence.fed += count;
            if pending(sequence) == 0 {
                ready.push(place);
                rows.push(tokens.len() as u32 - 1);
            }
        }
        let stream = forward(model, &tokens, &positions, &cache_rows, &runs, &rows);
        if !rows.is_empty() {
            let places: Vec<u32> = (0..rows.len() as u32).collect();
            model.forward_logits(stream, &places, &mut self.logits);
        }
        ready
    }

    /// The next token of each sequence that the last pass made ready, and its ln p. Rows are independent.
    fn draw<D: Device>(&self, model: &Model<D>, ready: &[usize], prompts: &[Prompt<'_>], sampling: &Sampling) -> Vec<(u32, f64)> {
        let vocab = model.config().vocab;
        let one = |(logits, &place): (&[f32], &usize)| {
            let sequence = &self.active[place];
            let key = random::key(sampling.seed, Purpose::Sampling, &[prompts[sequence.index].draw_key]);
            let token = sample(logits, sampling, || random::uniform_f64(key, (sequence.own.len() - sequence.answer) as u64));
            (token, f64::from(logits[token as usize]) - log_sum_exp(Level::detect(), logits))
        };
        self.logits[..ready.len() * vocab].par_chunks_exact(vocab).zip(ready).map(one).collect()
    }
}

/// New rows through all blocks, their keys and values into the cache; returns where the output of the `asked` ones lies, at most one of
/// a run or all of it.
fn forward<D: Device>(model: &mut Model<D>, tokens: &[u32], positions: &[u32], cache_rows: &[u32], runs: &RunTable, asked: &[u32]) -> Slot {
    let cache = model.workspace(Kind::Generation).expect("checked before").cache.clone();
    let needed = NeededRows::of(runs, positions, &[], asked);
    let fewer = Some(&needed).filter(|needed| needed.rows.len() < tokens.len());
    let pass = Pass { m: tokens.len(), first: 0, positions, runs, dropout: None, keys: Keys::Own, needed: fewer };
    let kv = model.uses().compute.kv;
    let keys = |layer: usize| Keys::Cache { rows: cache_rows, key: cache[layer].0, value: cache[layer].1, kv };
    model.forward_blocks(Kind::Generation, tokens, pass, keys)
}

/// Free rows of the cache; the first that is large enough is taken.
struct Regions(Vec<Range<usize>>);

impl Regions {
    fn new(rows: Range<usize>) -> Regions {
        Regions(vec![rows])
    }

    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let place = self.0.iter().position(|free| free.len() >= len)?;
        let start = self.0[place].start;
        self.0[place].start += len;
        if self.0[place].is_empty() {
            self.0.remove(place);
        }
        Some(start..start + len)
    }

    fn give_back(&mut self, region: Range<usize>) {
        let place = self.0.partition_point(|free| free.start < region.start);
        self.0.insert(place, region);
        self.0.dedup_by(|next, free| {
            let touch = free.end == next.start;
            if touch {
                free.end = next.end;
            }
            touch
        });
    }
}

/// A token drawn from softmax(logits / temperature) among the top k and top p; `draw` gives a number in [0, 1).
fn sample(logits: &[f32], sampling: &Sampling, draw: impl FnOnce() -> f64) -> u32 {
    let larger_first = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
    if sampling.temperature == 0.0 {
        return largest(Level::detect(), logits).map_or(0, |(token, _)| token as u32);
    }
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if let Some(k) = sampling.top_k.filter(|&k| k < ids.len()) {
        ids.select_nth_unstable_by(k - 1, larger_first);
        ids.truncate(k);
    }
    ids.sort_unstable_by(larger_first);
    let (temperature, top) = (f64::from(sampling.temperature), f64::from(logits[ids[0] as usize]));
    let weight = |&id: &u32| {
        let below = (f64::from(logits[id as usize]) - top) / temperature;
        if below > -NEGLIGIBLE { exp(below) } else { 0.0 }
    };
    let weights: Vec<f64> = ids.iter().map(weight).collect();
    let whole: f64 = weights.iter().sum();
    let (mut kept, mut count) = (0.0, 0);
    for &weight in &weights {
        kept += weight;
        count += 1;
        if kept >= f64::from(sampling.top_p) * whole {
            break;
        }
    }
    let (target, mut sum) = (draw() * kept, 0.0);
    for (&id, &weight) in ids.iter().zip(&weights[..count]) {
        sum += weight;
        if target < sum {
            return id;
        }
    }
    ids[count - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_lowest_id_of_equals() {
        assert_eq!(sample(&[1.0, 3.0, 3.0, 2.0], &Sampling::GREEDY, || 0.5), 1);
    }

    #[test]
    fn cut_offs_keep_the_most_probable() {
        let logits = [0.0f32, 2.0, 1.0, 2.0, -1.0];
        let all = |sampling: Sampling| -> Vec<u32> {
            let mut seen: Vec<u32> = (0..1000).map(|i| sample(&logits, &sampling, || f64::from(i) / 1000.0)).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        let base = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        assert_eq!(all(base), [0, 1, 2, 3, 4]);
        assert_eq!(all(Sampling { top_k: Some(1), ..base }), [1]);
        assert_eq!(all(Sampling { top_k: Some(3), ..base }), [1, 2, 3]);
        assert_eq!(all(Sampling { top_p: 0.5, ..base }), [1, 3]);
        assert_eq!(all(Sampling { top_p: 1e-6, ..base }), [1]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0f32, 1.0, -1.0];
        let sampling = Sampling { temperature: 0.5, ..Sampling::GREEDY };
        let n = 10_000;
        let hits = (0..n).filter(|&i| sample(&logits, &sampling, || f64::from(i) / f64::from(n)) == 0).count();
        let expected = 1.0 / (1.0 + 2f64.exp() + (-2f64).exp());
        assert!((hits as f64 / f64::from(n) - expected).abs() < 1e-3);
        assert!((log_sum_exp(Level::detect(), &logits) - (1.0 + 1f64.exp() + (-1f64).exp()).ln()).abs() < 1e-7);
    }

    #[test]
    fn regions_merge_again() {
        let mut regions = Regions::new(3..20);
        let (a, b, c) = (regions.take(5), regions.take(5), regions.take(7));
        assert_eq!((a, b, c, regions.take(1)), (Some(3..8), Some(8..13), Some(13..20), None));
        regions.give_back(3..8);
        regions.give_back(13..20);
        assert_eq!(regions.take(8), None);
        regions.give_back(8..13);
        assert_eq!(regions.take(17), Some(3..20));
    }
}
