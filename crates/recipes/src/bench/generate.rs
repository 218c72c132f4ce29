//! `bench generate`: reading a prompt and writing greedily, one text and 32 at a time.
//!
//! Prefill: the first 512 tokens of the peer's text in one pass, with the logits of the last. Generation: 128 tokens
//! after the first 16 of the text, timed from the first of them on, as the peer's script does. The batch: 32 texts that
//! begin at different tokens, 128 tokens each, all of them timed, their 16 tokens of prompt included.

use engine::generate::{Event as Said, Flow, Prompt, Sampling};
use engine::memory::{GenerationUse, Uses};
use serde::Serialize;
use text::Specials;

use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};

/// The peer's text.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog. ";
/// How often.
const SENTENCES: usize = 60;
/// Tokens of the prefill.
const PREFILL: usize = 512;
/// Tokens before what is written.
const PROMPT: usize = 16;
/// Tokens that are written and timed.
const NEW: usize = 128;
/// Texts of the batch.
const BATCH: usize = 32;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchGenerateOptions<'a> {
    /// Base model.
    pub model: &'a str,
    /// How its weights are held, as `[model] storage` says; empty: as the files have them.
    pub storage: &'a str,
    /// The compute path, as `[engine] compute` says; empty: exact.
    pub compute: &'a str,
    /// What the cache holds, as `[engine] kv_cache` says; empty: f32.
    pub kv_cache: &'a str,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchGenerate {
    /// Tokens read per second.
    pub prefill_tokens_per_second: f64,
    /// Tokens written per second, one text.
    pub generate_tokens_per_second: f64,
    /// Tokens written per second, 32 texts together.
    pub batch32_tokens_per_second: f64,
    /// Tokens of the prefill: 512, or what the model's context has room for.
    pub prefill_tokens: usize,
    /// The compute path.
    pub compute_path: &'static str,
    /// What the cache of keys and values held.
    pub kv_cache: &'static str,
    /// As given.
    pub model: String,
    /// How its weights are stored.
    pub storage: String,
    /// Most memory that the process had resident; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// Threads computed with.
    pub threads: usize,
}

/// Reads, writes and times it.
pub fn generate(context: &Context<'_>, observer: &mut dyn Observer, options: &BenchGenerateOptions<'_>) -> Result<BenchGenerate> {
    let base = Base::open(context, observer, options.model, "")?.held_as(options.storage)?;
    let base = base.asked_by(options.compute, options.kv_cache)?;
    let ids = base.tokenizer()?.encode(&SENTENCE.repeat(SENTENCES), Specials::AsText)?;
    let prefill_tokens = PREFILL.min(base.config().context - 1);
    if ids.len() < prefill_tokens || prefill_tokens < PROMPT + NEW {
        let given = ids.len().min(prefill_tokens).to_string();
        return Err(Error::Mismatch {
            what: "tokens of the text that fit the context",
            given,
            expected: format!("at least {}", PROMPT + NEW),
        });
    }
    let mut model = base.load(context.threads)?;
    let generation =
        GenerationUse { rows: prefill_tokens, sequences: BATCH, cache_rows: (BATCH * (PROMPT + NEW + 2)).max(prefill_tokens + 1) };
    model.reserve(&Uses { generation: Some(generation), compute: base.compute(), ..Uses::default() })?;
    let now = || context.clock.seconds();
    let prompt = |tokens, max_new| Prompt { tokens, max_new, stop: &[], draw_key: 0 };
    observer.event(Event::Start { what: "reading and writing".into(), total: 3, unit: "parts" });

    let mut prefill = f64::INFINITY;
    for _ in 0..2 {
        // The first pass also meets memory that was never touched.
        let started = now();
        model.generate(&[prompt(&ids[..prefill_tokens], 1)], &Sampling::GREEDY, |_| Flow::Continue)?;
        prefill = prefill.min(now() - started);
    }
    observer.event(Event::Progress { done: 1, loss: None, validation: None });

    let mut first = None;
    model.generate(&[prompt(&ids[..PROMPT], NEW + 1)], &Sampling::GREEDY, |said| {
        if matches!(said, Said::Token { .. }) && first.is_none() {
            first = Some(now());
        }
        if observer.stopped() { Flow::StopAll } else { Flow::Continue }
    })?;
    let one = now() - first.unwrap_or_else(now);
    observer.event(Event::Progress { done: 2, loss: None, validation: None });

    let prompts: Vec<Prompt<'_>> = (0..BATCH).map(|text| prompt(&ids[text..text + PROMPT], NEW)).collect();
    let started = now();
    model.generate(&prompts, &Sampling::GREEDY, |_| if observer.stopped() { Flow::StopAll } else { Flow::Continue })?;
    let batch = now() - started;
    observer.event(Event::End);
    if observer.stopped() {
        return Err(Error::Interrupted);
    }
    Ok(BenchGenerate {
        prefill_tokens_per_second: prefill_tokens as f64 / prefill.max(1e-9),
        generate_tokens_per_second: NEW as f64 / one.max(1e-9),
        batch32_tokens_per_second: (BATCH * NEW) as f64 / batch.max(1e-9),
        prefill_tokens,
        compute_path: base.compute().path.name(),
        kv_cache: base.compute().kv.name(),
        model: options.model.to_owned(),
        storage: base.storage_names(),
        peak_rss_bytes: store::disk::peak_rss_bytes().unwrap_or(0),
        threads: context.threads,
    })
}
