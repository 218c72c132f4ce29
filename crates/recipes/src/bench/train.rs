//! `bench train`: training steps on dense tokens, the same work as a peer's script, timed step by step.
//!
//! Every token carries loss (labels are the ids shifted by one; the loss is the mean over batch · (length − 1)). LoRA
//! on all linear layers with alpha = 2 · rank and no dropout; AdamW at 1e-4 with betas 0.9 and 0.999 and eps 1e-8, no
//! decay, no clipping. The optimiser's step is timed with the rest. Tokens per second and GFLOP/s are medians over
//! the steps after the first.
//!
//! # Model FLOPs of a step
//! A multiplication and an addition count as two. Recomputation does not count, nor what the first block's
//! query, key and value would send to the frozen embedding. With T = batch · length rows, H = batch · (length − 1)
//! rows with loss, rank r, P = batch · Σᵢ min(i + 1, window) pairs of query and key, and for each linear layer of each
//! block its `out` and `in`:
//!
//! | part | forward | backward |
//! |---|---|---|
//! | frozen linear layer | 2 T·out·in | 2 T·out·in (to activations; none to weights) |
//! | LoRA pair (PiSSA's frozen one and DoRA's norms not counted) | 2 T·r·(in + out) | 4 T·r·(in + out) |
//! | attention | 4 P·heads·head_dim | 8 P·heads·head_dim |
//! | head | 2 H·vocab·hidden | 2 H·vocab·hidden |
//!
//! Full fine-tuning has no pairs, and backward twice as many as forward everywhere.

use std::collections::BTreeMap;
use std::path::Path;

use data::TokenRow;
use data::pack;
use engine::adapter::{Adapter, LoraConfig};
use engine::batch::{Batch, PassLimits};
use engine::config::{Linear, ModelConfig, TensorName};
use engine::cpu::CpuDevice;
use engine::device::Stored;
use engine::full::FullConfig;
use engine::memory::{self, MemoryPlan, Policy, TrainingUse, Uses};
use engine::random::{self, Purpose};
use engine::schedule::{Decay, Schedule};
use engine::trainer::{Objective, OptimizerConfig, Trainer, TrainerConfig};
use serde::Serialize;

use super::median;
use crate::adapters;
use crate::base::Base;
use crate::budget;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::moments;
use crate::plan::process_lines;
use crate::spec::{Mapped, Optimizer, defaults};
use crate::tune::EngineBatch;

/// The peer's learning rate.
const LEARNING_RATE: f64 = 1e-4;
/// Rows of a micro-batch: whole sequences up to here. Twice as many were 1 to 5 % faster and took 36 % more memory.
const PASS_ROWS: usize = 512;
/// The same where every pass adds to a gradient as large as the model.
const FULL_PASS_ROWS: usize = 1024;
/// The ids that the peer draws from: below are special tokens, above some vocabularies end.
const IDS: std::ops::Range<usize> = 5..49_000;
/// Seed of ids and adapter where none are given.
pub(super) const SEED: u64 = 0;
/// Largest file of ids.
const IDS_BYTES_MAX: u64 = 1 << 30;

/// What can be measured: LoRA, with magnitudes, or from the principal singular vectors; or the whole model trained itself.
pub const METHODS: &[&str] = &["lora", "dora", "pissa", "full"];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchTrainOptions<'a> {
    /// Base model: catalogue name, folder, GGUF file or `pip:…`.
    pub model: &'a str,
    /// How its weights are held, as `[model] storage` says; empty: as the file has them.
    pub storage: &'a str,
    /// Weights are read where the files have them, as `[model] mapped = "always"` says.
    pub mapped: bool,
    /// Sequences of a step.
    pub batch: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// One of [`METHODS`].
    pub method: &'a str,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA+: B's learning rate over A's.
    pub lora_plus_ratio: f32,
    /// One of [`crate::spec::OPTIMIZERS`].
    pub optimizer: &'a str,
    /// Steps, the first of which warms up.
    pub steps: usize,
    /// JSON file with the ids of each sequence; else they are drawn.
    pub ids: Option<&'a Path>,
    /// PEFT folder to start from; else a fresh adapter.
    pub adapter_start: Option<&'a Path>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchTrain {
    /// Tokens (batch · length) per second, median over the steps after the first, optimiser included.
    pub tokens_per_second: f64,
    /// Loss of each step, before its update.
    pub losses: Vec<f64>,
    /// Model FLOPs per second in 10⁹, median likewise.
    pub gflops: f64,
    /// Planned memory of the process.
    pub planned_bytes: u64,
    /// Most memory that the process had resident; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// As given.
    pub model: String,
    /// How its weights are stored.
    pub storage: String,
    /// Bytes of them that are read where the files have them: not in the plan, and in the peak as far as the system kept them.
    pub mapped_bytes: u64,
    /// As given.
    pub method: String,
    /// As given.
    pub optimizer: String,
    /// LoRA rank.
    pub rank: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Steps done.
    pub steps: usize,
    /// Passes of a step.
    pub micro_batches: usize,
    /// Threads computed with.
    pub threads: usize,
    /// Model FLOPs of a step.
    pub flops_per_step: f64,
    /// What they count; computing again is not counted.
    pub flops_formula: &'static str,
    /// Seconds of each step.
    pub step_seconds: Vec<f64>,
}

/// Trains on dense tokens and times it.
pub fn train(context: &Context<'_>, observer: &mut dyn Observer, options: BenchTrainOptions<'_>) -> Result<BenchTrain> {
    let options = &options;
    at_least(&[
        ("--batch", options.batch, 1),
        ("--length", options.length, 2),
        ("--rank", options.rank, 1),
        ("--steps", options.steps, 2),
    ])?;
    let mapping = if options.mapped { Mapped::Always } else { Mapped::Auto };
    let base = Base::open_weights(context, observer, options.model)?.mapped_when(mapping).held_as(options.storage)?;
    let config = base.config().clone();
    let ids = match options.ids {
        Some(file) => read_ids(file, options, config.vocab)?,
        None => drawn_ids(options, config.vocab),
    };
    let start = options.adapter_start.map(|folder| start_adapter(folder, options.rank, &config)).transpose()?;
    let method = LoraConfig { dora: options.method == "dora", pissa: options.method == "pissa", ..lora(options.rank) };
    let adapter_config = start.as_ref().map_or(method, |start| start.config.clone());
    let full = (options.method == "full").then(FullConfig::all);
    if full.is_some() && start.is_some() {
        let (what, given) = ("--adapter-start", "with --method full".into());
        return Err(Error::Mismatch { what, given, expected: "no adapter: the model itself is trained".into() });
    }

    let rows: Vec<TokenRow> = ids.into_iter().enumerate().map(dense_row).collect();
    let pass_rows = if full.is_some() { FULL_PASS_ROWS } else { PASS_ROWS }.max(options.length);
    let packed = pack::pack_for_scoring(&rows, pass_rows, None)?;
    let batches: Vec<EngineBatch<'_>> = packed.iter().map(EngineBatch::new).collect();
    let borrowed: Vec<Batch<'_>> = batches.iter().map(EngineBatch::borrow).collect();
    let pass =
        PassLimits { chain: options.length, ..PassLimits::dense(borrowed.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0)) };
    let moments = moments::storage(Optimizer::parse("--optimizer", Some(options.optimizer.to_owned()))?);
    let training =
        |policy| TrainingUse { pass, policy, several_passes: false, reduction_leaves: 1, micro_batches: borrowed.len(), moments };
    let mut optimizer = trainer_config(options.steps, LEARNING_RATE, None);
    optimizer.optimizer.lora_plus_ratio = options.lora_plus_ratio;
    let (mut trainer, flops_per_step, flops_formula, planned_bytes) = if let Some(full) = full {
        let (uses, planned_bytes) = fitted_full(context, &base, &full, training)?;
        let trainer = Trainer::full(base.load_trained(context.threads, &full)?, optimizer, &uses)?;
        (trainer, full_flops_per_step(&config, options.batch, options.length), FULL_FORMULA, planned_bytes)
    } else {
        let (uses, planned_bytes) = fitted(context, &base, &adapter_config, training)?;
        let mut model = base.load(context.threads)?;
        let adapter = start.map_or_else(|| model.fresh_adapter(&adapter_config, SEED), Ok)?;
        let trainer = Trainer::new(model, &adapter, optimizer, &uses)?;
        (trainer, flops_per_step(&config, &adapter_config, options.batch, options.length), LORA_FORMULA, planned_bytes)
    };

    observer.event(Event::Start { what: "training".into(), total: options.steps as u64, unit: "steps" });
    let (mut losses, mut step_seconds) = (Vec::new(), Vec::new());
    for step in 0..options.steps {
        if observer.stopped() {
            return Err(Error::Interrupted);
        }
        let started = context.clock.seconds();
        let report = trainer.step(&borrowed)?;
        step_seconds.push(context.clock.seconds() - started);
        losses.push(report.loss);
        observer.event(Event::Progress { done: step as u64 + 1, loss: Some(report.loss), validation: None });
    }
    observer.event(Event::End);

    let seconds = median(&step_seconds[1..]).max(1e-9);
    Ok(BenchTrain {
        tokens_per_second: (options.batch * options.length) as f64 / seconds,
        losses,
        gflops: flops_per_step / seconds / 1e9,
        planned_bytes,
        peak_rss_bytes: store::disk::peak_rss_bytes().unwrap_or(0),
        model: options.model.to_owned(),
        storage: base.storage_names(),
        mapped_bytes: base.mapped_bytes()?,
        method: options.method.to_owned(),
        optimizer: options.optimizer.to_owned(),
        rank: options.rank,
        batch: options.batch,
        length: options.length,
        steps: options.steps,
        micro_batches: borrowed.len(),
        threads: context.threads,
        flops_per_step,
        flops_formula,
        step_seconds,
    })
}

/// Refuses the first option that is smaller than it may be.
pub(super) fn at_least(least: &[(&'static str, usize, usize)]) -> Result<()> {
    match least.iter().find(|(_, given, least)| given < least) {
        Some((what, given, least)) => Err(Error::Mismatch { what, given: given.to_string(), expected: format!("at least {least}") }),
        None => Ok(()),
    }
}

/// A PEFT adapter to start from; its rank must be `rank`.
pub(super) fn start_adapter(folder: &Path, rank: usize, config: &ModelConfig) -> Result<Adapter> {
    let adapter = adapters::read(folder, config)?;
    if adapter.config.rank != rank {
        return Err(Error::Mismatch {
            what: "rank of the adapter to start from",
            given: adapter.config.rank.to_string(),
            expected: rank.to_string(),
        });
    }
    Ok(adapter)
}

/// Training as large as the memory allows, and the bytes that the process is planned to take.
pub(super) fn fitted(
    context: &Context<'_>,
    base: &Base,
    lora: &LoraConfig,
    training: impl Fn(Policy) -> TrainingUse,
) -> Result<(Uses, u64)> {
    // Made on the host and freed, but in pieces that the allocator keeps.
    let host = 4 * lora.parameters(base.config()) as u64;
    let plan =
        |device: &CpuDevice, stored: &Storages, uses: &Uses| memory::plan(device, base.config(), |name| stored[&name], Some(lora), uses);
    fitted_with(context, base, host, plan, training)
}

/// The same of full fine-tuning.
fn fitted_full(context: &Context<'_>, base: &Base, full: &FullConfig, training: impl Fn(Policy) -> TrainingUse) -> Result<(Uses, u64)> {
    let plan =
        |device: &CpuDevice, stored: &Storages, uses: &Uses| memory::plan_full(device, base.config(), |name| stored[&name], full, uses);
    fitted_with(context, base, 0, plan, training)
}

type Storages = BTreeMap<TensorName, Stored>;

fn fitted_with(
    context: &Context<'_>,
    base: &Base,
    host: u64,
    plan: impl Fn(&CpuDevice, &Storages, &Uses) -> MemoryPlan,
    training: impl Fn(Policy) -> TrainingUse,
) -> Result<(Uses, u64)> {
    let device = CpuDevice::new(context.threads);
    let process: u64 = process_lines(context, base).iter().map(|(_, bytes)| bytes).sum::<u64>() + host;
    let uses = |policy: &Policy| Uses { training: Some(training(policy.clone())), ..Uses::default() };
    let nearest = |_| Ok("fewer or shorter sequences, or a smaller base, need less".to_owned());
    budget::or_mapped(base, || {
        let stored = base.stored()?;
        let planned = |policy: &Policy| {
            let table = plan(&device, &stored, &uses(policy));
            Ok(process + (table.total_bytes() as u64).max(base.loading_bytes(&table)?))
        };
        let policy = budget::policy(context.memory, base.config().layers, planned, nearest)?;
        Ok((uses(&policy), planned(&policy)?))
    })
}

/// LoRA on all linear layers.
pub(crate) fn lora(rank: usize) -> LoraConfig {
    LoraConfig {
        rank,
        alpha: defaults::ALPHA_PER_RANK * rank as f32,
        rslora: false,
        dropout: 0.0,
        dora: false,
        pissa: false,
        targets: Linear::ALL.to_vec(),
        layers: None,
    }
}

/// AdamW at a constant rate without decay.
pub(super) fn trainer_config(steps: usize, learning_rate: f64, max_norm: Option<f32>) -> TrainerConfig {
    let optimizer = OptimizerConfig {
        beta1: defaults::BETA1,
        beta2: defaults::BETA2,
        eps: defaults::EPS,
        weight_decay: 0.0,
        max_norm,
        lora_plus_ratio: 1.0,
    };
    let schedule = Schedule { peak: learning_rate, warmup_steps: 0, total_steps: steps as u32, decay: Decay::Constant };
    TrainerConfig { optimizer, schedule, objective: Objective::Sft }
}

/// A sequence in which every token but the first is a target.
fn dense_row((index, ids): (usize, Vec<u32>)) -> TokenRow {
    let loss_weights = (0..ids.len()).map(|position| if position == 0 { 0.0 } else { 1.0 }).collect();
    TokenRow { record_id: format!("sequence {index}"), ids, loss_weights }
}

fn drawn_ids(options: &BenchTrainOptions<'_>, vocab: usize) -> Vec<Vec<u32>> {
    let end = IDS.end.min(vocab);
    let (start, end) = (IDS.start.min(end - 1), end);
    let key = random::key(SEED, Purpose::Sampling, &[]);
    let draw = |index: usize| (start + (random::uniform(key, index as u64) * (end - start) as f32) as usize).min(end - 1) as u32;
    (0..options.batch).map(|sequence| (0..options.length).map(|position| draw(sequence * options.length + position)).collect()).collect()
}

fn read_ids(file: &Path, options: &BenchTrainOptions<'_>, vocab: usize) -> Result<Vec<Vec<u32>>> {
    let value = store::atomic::read_json(file, IDS_BYTES_MAX)?;
    let lists: Vec<Vec<u32>> = serde_json::from_value(value).map_err(|error| Error::Corrupt {
        what: "the file of ids",
        reason: format!("a list of lists of token ids expected: {error}"),
        path: file.to_owned(),
    })?;
    let expected = || format!("--batch {} lists of --length {} ids", options.batch, options.length);
    if lists.len() != options.batch {
        return Err(Error::Mismatch { what: "the file of ids", given: format!("{} lists", lists.len()), expected: expected() });
    }
    if let Some((index, list)) = lists.iter().enumerate().find(|(_, list)| list.len() != options.length) {
        return Err(Error::Mismatch {
            what: "the file of ids",
            given: format!("{} ids in list {index}", list.len()),
            expected: expected(),
        });
    }
    if let Some(id) = lists.iter().flatten().find(|&&id| id as usize >= vocab) {
        return Err(Error::Mismatch { what: "a token id", given: id.to_string(), expected: format!("below the vocabulary of {vocab}") });
    }
    Ok(lists)
}

/// What [`flops_per_step`] counts.
const LORA_FORMULA: &str = "sum over layers of (sum over linears of (4 T out in + 6 T rank (in + out)) + 12 P heads head_dim) \
+ 4 H vocab hidden - sum over the first layer's query, key and value of 2 T in (out + rank); \
T: tokens, H: tokens with loss, P: pairs of a query and a key it sees";
/// What [`full_flops_per_step`] counts.
const FULL_FORMULA: &str = "sum over layers of (sum over linears of 6 T out in + 12 P heads head_dim) + 6 H vocab hidden; \
T: tokens, H: tokens with loss, P: pairs of a query and a key it sees";

/// Model FLOPs of a step; see the module's table.
pub fn flops_per_step(config: &ModelConfig, lora: &LoraConfig, batch: usize, length: usize) -> f64 {
    let (rows, head_rows) = ((batch * length) as f64, (batch * (length - 1)) as f64);
    let places = lora.places(config);
    let mut flops = 0.0;
    for layer in 0..config.layers {
        for linear in Linear::ALL {
            let (out, inner) = config.linear_shape(linear);
            let (out, inner) = (out as f64, inner as f64);
            let to_input = if layer == 0 && matches!(linear, Linear::Query | Linear::Key | Linear::Value) { 0.0 } else { 1.0 };
            flops += 2.0 * rows * out * inner * (1.0 + to_input);
            if places.contains(&(layer, linear)) {
                let (rank, out) = (lora.rank as f64, config.adapter_shape(linear).0 as f64);
                flops += 2.0 * rows * rank * (inner + out) + 2.0 * rows * rank * (2.0 * out + inner * (1.0 + to_input));
            }
        }
    }
    for layer in &config.attention {
        flops += attention_flops(config, layer.window, batch, length);
    }
    flops + 4.0 * head_rows * (config.vocab * config.hidden) as f64
}

/// Model FLOPs of a step that trains every tensor: of each matrix product forward twice as many backward, to activations and to
/// weights.
pub fn full_flops_per_step(config: &ModelConfig, batch: usize, length: usize) -> f64 {
    let (rows, head_rows) = ((batch * length) as f64, (batch * (length - 1)) as f64);
    let weights: usize = Linear::ALL.iter().map(|&linear| config.linear_shape(linear)).map(|(out, inner)| out * inner).sum();
    let attention = config.attention.iter().map(|layer| attention_flops(config, layer.window, batch, length)).sum::<f64>();
    6.0 * rows * (config.layers * weights) as f64 + attention + 6.0 * head_rows * (config.vocab * config.hidden) as f64
}

/// Attention of one layer, forward and backward.
fn attention_flops(config: &ModelConfig, window: Option<usize>, batch: usize, length: usize) -> f64 {
    let window = window.unwrap_or(usize::MAX);
    let pairs = (batch * (0..length).map(|query| (query + 1).min(window)).sum::<usize>()) as f64;
    12.0 * pairs * (config.heads * config.head_dim) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::config::{Gate, LayerAttention, LinearSet, Rotary};

    fn config() -> ModelConfig {
        ModelConfig {
            vocab: 10,
            hidden: 4,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 2,
            intermediate: 6,
            norm_eps: 1e-5,
            gate: Gate::Silu,
            biases: LinearSet::EMPTY,
            qk_norms: false,
            post_norms: false,
            embedding_scale: None,
            attention_scale: 0.7,
            attention_softcap: None,
            logit_softcap: None,
            rotary: vec![Rotary { inv_freq: vec![1.0], scale: 1.0 }],
            attention: vec![LayerAttention { window: None, rotary: Some(0) }; 2],
            fused_qkv: false,
            fused_gate_up: false,
            context: 16,
            tied_embeddings: true,
        }
    }

    #[test]
    fn flops_by_hand() {
        // weights of a block: q 16, k 8, v 8, o 16, gate 24, up 24, down 24 = 120; in + out: 8 + 6 + 6 + 8 + 10 + 10 + 10 = 58
        let (rows, pairs, head_rows, rank) = (6.0, 12.0, 4.0, 3.0); // two sequences of three
        let frozen = 2.0 * rows * (2.0 * 2.0 * 120.0 - 32.0);
        let pairs_of_rank = 6.0 * rows * rank * 2.0 * 58.0 - 2.0 * rows * rank * 12.0;
        let attention = 12.0 * pairs * 4.0 * 2.0;
        let head = 4.0 * head_rows * 40.0;
        assert_eq!(flops_per_step(&config(), &lora(3), 2, 3), frozen + pairs_of_rank + attention + head);
        let window = LayerAttention { window: Some(1), rotary: Some(0) };
        let windowed = ModelConfig { attention: vec![window; 2], ..config() };
        assert_eq!(flops_per_step(&windowed, &lora(3), 2, 3), frozen + pairs_of_rank + attention / 2.0 + head);
        assert_eq!(full_flops_per_step(&config(), 2, 3), 6.0 * rows * 2.0 * 120.0 + attention + 6.0 * head_rows * 40.0);
    }
}
