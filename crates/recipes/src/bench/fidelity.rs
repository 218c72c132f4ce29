//! `bench fidelity`: how near the fast path is to the exact one.
//!
//! Both read a text, each token after those before it, through the cache of keys and values, as generation does; the exact
//! path with an f32 cache is what the fast one is compared with, for each thing that the cache can hold. Of every
//! position: KL(exact ‖ fast) = Σ p (ln p − ln q) over the vocabulary in f64, ln p of the token that follows (perplexity is
//! exp of minus its mean), and whether the likeliest token is the same.

use std::path::Path;

use engine::compute::{Compute, ComputePath, KvType};
use engine::cpu::CpuDevice;
use engine::memory::{GenerationUse, Uses};
use engine::model::Model;
use serde::Serialize;
use text::Specials;

use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};

/// Part of the text file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Positions of a pass.
const ROWS: usize = 32;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchFidelityOptions<'a> {
    /// Text file.
    pub file: &'a Path,
    /// How many of its tokens.
    pub tokens: usize,
    /// Base model.
    pub model: &'a str,
    /// How its weights are held, as `[model] storage` says; empty: as the files have them.
    pub storage: &'a str,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchFidelity {
    /// Of the exact path.
    pub perplexity: f64,
    /// The fast path by what the cache holds.
    pub against: Vec<Fidelity>,
    /// Tokens of the text.
    pub tokens: usize,
    /// As given.
    pub model: String,
    /// How its weights are stored.
    pub storage: String,
    /// Threads computed with.
    pub threads: usize,
}

/// One way of computing beside the exact one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fidelity {
    /// The compute path.
    pub compute_path: &'static str,
    /// What the cache held.
    pub kv_cache: &'static str,
    /// Mean KL(exact ‖ this) over the positions, in nats.
    pub mean_kl: f64,
    /// Largest of them.
    pub largest_kl: f64,
    /// Of this way.
    pub perplexity: f64,
    /// Share of the positions at which the likeliest token is the same.
    pub top1_agreement: f64,
}

/// Reads the text both ways.
pub fn fidelity(context: &Context<'_>, observer: &mut dyn Observer, options: &BenchFidelityOptions<'_>) -> Result<BenchFidelity> {
    let bytes = store::atomic::read(options.file, FILE_BYTES_MAX)?;
    let base = Base::open(context, observer, options.model, "")?.held_as(options.storage)?;
    let mut ids = base.tokenizer()?.encode(&String::from_utf8_lossy(&bytes), Specials::AsText)?;
    let limit = ids.len().min(base.config().context);
    if options.tokens < 2 || options.tokens > limit {
        let expected = format!("from 2 to {limit}, what the text and the context have");
        return Err(Error::Mismatch { what: "--tokens", given: options.tokens.to_string(), expected });
    }
    ids.truncate(options.tokens);
    let load = |compute| {
        let mut model = base.load(context.threads)?;
        let generation = GenerationUse { rows: ROWS, sequences: ROWS, cache_rows: ids.len() };
        model.reserve(&Uses { generation: Some(generation), compute, ..Uses::default() })?;
        Ok::<_, Error>(model)
    };
    let mut exact = load(Compute::default())?;
    let total = (KvType::ALL.len() * ids.len()) as u64;
    observer.event(Event::Start { what: "reading both ways".into(), total, unit: "tokens" });
    let (mut against, mut perplexity) = (Vec::new(), 0.0);
    for (index, kv) in KvType::ALL.into_iter().enumerate() {
        let mut other = load(Compute { path: ComputePath::Fast, kv })?;
        let mut read = |done| {
            observer.event(Event::Progress { done: (index * ids.len() + done) as u64, loss: None, validation: None });
            !observer.stopped()
        };
        let sums = both(&mut exact, &mut other, &ids, &mut read)?;
        let count = (ids.len() - 1) as f64;
        perplexity = (-sums.log_prob[0] / count).exp();
        against.push(Fidelity {
            compute_path: ComputePath::Fast.name(),
            kv_cache: kv.name(),
            mean_kl: sums.divergence / ids.len() as f64,
            largest_kl: sums.largest,
            perplexity: (-sums.log_prob[1] / count).exp(),
            top1_agreement: sums.same as f64 / ids.len() as f64,
        });
    }
    observer.event(Event::End);
    let (tokens, model, storage) = (ids.len(), options.model.to_owned(), base.storage_names());
    Ok(BenchFidelity { perplexity, against, tokens, model, storage, threads: context.threads })
}

/// Sums over positions.
#[derive(Clone, Copy, Default)]
struct Sums {
    divergence: f64,
    largest: f64,
    /// Of the tokens that follow: exact, other.
    log_prob: [f64; 2],
    same: usize,
}

impl Sums {
    fn add(&mut self, one: Sums) {
        self.divergence += one.divergence;
        self.largest = self.largest.max(one.largest);
        (0..2).for_each(|i| self.log_prob[i] += one.log_prob[i]);
        self.same += one.same;
    }

    /// One position.
    fn of(logits: [&[f32]; 2], next: Option<u32>) -> Sums {
        let top = logits.map(|logits| (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }));
        let log_sum = [0, 1].map(|i| {
            let highest = f64::from(logits[i][top[i]]);
            highest + logits[i].iter().map(|&logit| (f64::from(logit) - highest).exp()).sum::<f64>().ln()
        });
        let log_prob = |i: usize, token: usize| f64::from(logits[i][token]) - log_sum[i];
        let divergence: f64 = (0..logits[0].len()).map(|token| log_prob(0, token).exp() * (log_prob(0, token) - log_prob(1, token))).sum();
        Sums {
            divergence,
            largest: divergence,
            log_prob: [0, 1].map(|i| next.map_or(0.0, |token| log_prob(i, token as usize))),
            same: usize::from(top[0] == top[1]),
        }
    }
}

/// Reads `ids` with both models, in step; `read` hears how many tokens are read, and says whether to go on.
fn both(exact: &mut Model<CpuDevice>, other: &mut Model<CpuDevice>, ids: &[u32], read: &mut dyn FnMut(usize) -> bool) -> Result<Sums> {
    let vocab = exact.config().vocab;
    let (mut sums, mut logits) = (Sums::default(), [Vec::new(), Vec::new()]);
    for start in (0..ids.len()).step_by(ROWS) {
        let end = ids.len().min(start + ROWS);
        exact.read_on(&ids[..end], start, &mut logits[0])?;
        other.read_on(&ids[..end], start, &mut logits[1])?;
        let rows = logits[0].chunks_exact(vocab).zip(logits[1].chunks_exact(vocab)).enumerate();
        rows.for_each(|(row, (exact, other))| sums.add(Sums::of([exact, other], ids.get(start + row + 1).copied())));
        if !read(end) {
            return Err(Error::Interrupted);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        let same = Sums::of([&[1.0, 2.0, 0.5], &[2.0, 3.0, 1.5]], Some(1));
        assert!(same.divergence.abs() < 1e-7 && same.same == 1);
        assert!((same.log_prob[0] - same.log_prob[1]).abs() < 1e-12);
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - ln 3 / 2.
        let other = Sums::of([&[0.0, 0.0], &[0.0, 3f32.ln()]], None);
        assert!((other.divergence - (2f64.ln() - 0.5 * 3f64.ln())).abs() < 1e-7, "{}", other.divergence);
        assert_eq!((other.log_prob, other.same), ([0.0, 0.0], 0));
    }
}
