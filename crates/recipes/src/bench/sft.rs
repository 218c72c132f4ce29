//! `bench sft`: one epoch of supervised fine-tuning on a table, as TRL does it in its prompt-completion form.
//!
//! Records in file order, `batch` of them per optimiser step. The loss is the mean over the step's loss tokens, which are all
//! tokens that the template adds after the prompt: answer, end of turn, and what follows it. LoRA on all linear layers with alpha = 2 · rank, no
//! dropout; AdamW with betas 0.9 and 0.999 and eps 1e-8 at a constant rate, no decay, clipping at 1. Timed from the first
//! batch to the last optimiser step; reading, rendering and loading are not.

use std::path::Path;

use data::TokenRow;
use data::pack::{self, PackPlan, PackedBatch, TrainRows};
use engine::adapter::Adapter;
use engine::batch::{Batch, PassLimits};
use engine::memory::TrainingUse;
use engine::moments::MomentStorage;
use engine::trainer::Trainer;
use serde::Serialize;
use text::{ChatFormat, LossOn};

use super::train::{self, lora, start_adapter, trainer_config};
use super::{Table, first};
use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::prepare::SHARED_MIN;
use crate::tune::EngineBatch;

/// Rows in memory at a time, at most: behind a long instruction enough for products to be fast, and little more.
const PASS_ROWS: usize = 928;
/// Gradients are clipped to this norm.
const MAX_NORM: f32 = 1.0;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchSftOptions<'a> {
    /// Base model.
    pub model: &'a str,
    /// How its weights are held, as `[model] storage` says; empty: as the files have them.
    pub storage: &'a str,
    /// The records.
    pub table: Table,
    /// How many of them.
    pub records: usize,
    /// Records of an optimiser step.
    pub batch: usize,
    /// LoRA rank.
    pub rank: usize,
    /// Constant learning rate.
    pub learning_rate: f64,
    /// PEFT folder to start from; else a fresh adapter.
    pub adapter_start: Option<&'a Path>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchSft {
    /// Records per second.
    pub examples_per_second: f64,
    /// Optimiser steps.
    pub steps: usize,
    /// Loss of each, before its update.
    pub losses: Vec<f64>,
    /// Tokens of the records, written out one by one.
    pub tokens_rendered: u64,
    /// Tokens that went through the model.
    pub tokens_computed: u64,
    /// Planned memory of the process.
    pub planned_bytes: u64,
    /// Most memory that the process had resident; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// As given.
    pub model: String,
    /// How its weights are stored.
    pub storage: String,
    /// Records trained on.
    pub records: usize,
    /// Records of a step.
    pub batch: usize,
    /// LoRA rank.
    pub rank: usize,
    /// Threads computed with.
    pub threads: usize,
    /// Seconds of all steps.
    pub seconds: f64,
}

/// Trains one epoch and times it.
pub fn sft(context: &Context<'_>, observer: &mut dyn Observer, options: &BenchSftOptions<'_>) -> Result<BenchSft> {
    train::at_least(&[("--batch", options.batch, 1), ("--rank", options.rank, 1)])?;
    if !(options.learning_rate.is_finite() && options.learning_rate > 0.0) {
        let given = options.learning_rate.to_string();
        return Err(Error::Mismatch { what: "--learning-rate", given, expected: "above 0".into() });
    }
    let records = first(options.table.records()?, options.records)?;
    let base = Base::open(context, observer, options.model, "")?.held_as(options.storage)?;
    let config = base.config().clone();
    let chat = base.chat()?;
    let rows: Vec<TokenRow> = records.iter().map(|record| completion_row(chat, record)).collect::<Result<_>>()?;
    let tokens_rendered = rows.iter().map(|row| row.ids.len() as u64).sum();
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(1);
    if longest > config.context {
        return Err(Error::Mismatch {
            what: "tokens of the longest record",
            given: longest.to_string(),
            expected: format!("at most the context of {}", config.context),
        });
    }
    let adapter = match options.adapter_start {
        Some(folder) => start_adapter(folder, options.rank, &config)?,
        None => Adapter::init(&lora(options.rank), &config, train::SEED)?,
    };
    let rows = TrainRows::synthetic(rows);
    let plan =
        PackPlan { seed: train::SEED, records_per_step: options.batch, batch_rows: PASS_ROWS.max(longest), shared_min: Some(SHARED_MIN) };
    let order: Vec<usize> = (0..records.len()).collect();
    let steps = pack::steps_per_epoch(&rows, &plan);
    let packed: Vec<pack::Step> = (0..steps).map(|step| Ok(pack::step(&rows, &order, &plan, 0, step)?)).collect::<Result<_>>()?;
    let batches = || packed.iter().flat_map(|step| &step.batches);
    let pass = PassLimits {
        chain: longest,
        rows: batches().map(PackedBatch::resident_rows).max().unwrap_or(1),
        head_rows: batches().map(|batch| batch.largest_head().1).max().unwrap_or(1),
        entries: batches().map(|batch| batch.largest_head().0).max().unwrap_or(1),
    };
    let several_passes = batches().any(|batch| batch.passes.len() > 1);
    let micro_batches = packed.iter().map(|step| step.batches.len()).max().unwrap_or(1);
    let training = |policy| TrainingUse { pass, policy, several_passes, reduction_leaves: 1, micro_batches, moments: MomentStorage::F32 };
    let (uses, planned_bytes) = train::fitted(context, &base, &adapter.config, training)?;
    let optimizer = trainer_config(steps, options.learning_rate, Some(MAX_NORM));
    let mut trainer = Trainer::new(base.load(context.threads)?, &adapter, optimizer, &uses)?;
    drop(adapter); // the device has its own

    observer.event(Event::Start { what: "training".into(), total: steps as u64, unit: "steps" });
    let (mut losses, mut tokens_computed) = (Vec::with_capacity(steps), 0);
    let started = context.clock.seconds();
    for step in &packed {
        if observer.stopped() {
            return Err(Error::Interrupted);
        }
        let batches: Vec<EngineBatch<'_>> = step.batches.iter().map(EngineBatch::new).collect();
        let borrowed: Vec<Batch<'_>> = batches.iter().map(EngineBatch::borrow).collect();
        let report = trainer.step(&borrowed)?;
        tokens_computed += report.tokens_computed as u64;
        losses.push(report.loss);
        observer.event(Event::Progress { done: losses.len() as u64, loss: Some(report.loss), validation: None });
    }
    let seconds = (context.clock.seconds() - started).max(1e-9);
    observer.event(Event::End);
    Ok(BenchSft {
        examples_per_second: records.len() as f64 / seconds,
        steps,
        losses,
        tokens_rendered,
        tokens_computed,
        planned_bytes,
        peak_rss_bytes: store::disk::peak_rss_bytes().unwrap_or(0),
        model: options.model.to_owned(),
        storage: base.storage_names(),
        records: records.len(),
        batch: options.batch,
        rank: options.rank,
        threads: context.threads,
        seconds,
    })
}

/// A record whose every token after the prompt is a target.
fn completion_row(chat: &ChatFormat, record: &data::Record) -> Result<TokenRow> {
    let ids = chat.render(&record.id, &record.conversation(), LossOn::Last, None)?.ids;
    let prompt = chat.prompt_ids(&record.id, &record.messages)?.len();
    let loss_weights = (0..ids.len()).map(|position| if position < prompt { 0.0 } else { 1.0 }).collect();
    Ok(TokenRow { record_id: record.id.clone(), ids, loss_weights })
}
