//! Memory and time of each way to tune a base on this machine.
//!
//! Memory: the engine's two tables for a step of one text of 512 tokens (or the whole context, if shorter) on all linear
//! layers, and the process around them, as `plan` counts it for a real run; of full fine-tuning all tensors, with their gradients and moments.
//!
//! Time: model FLOPs of a training token (the table of [`crate::bench::train`]) over what the matrix product reaches here now,
//! times the share `EFFICIENCY`. An estimate, where `bench train` measures.

use std::collections::BTreeMap;

use engine::adapter::LoraConfig;
use engine::batch::PassLimits;
use engine::compute::ComputePath;
use engine::config::{Linear, ModelConfig, TensorName};
use engine::cpu::CpuDevice;
use engine::device::{Device, Limits, Storage, Stored};
use engine::full::FullConfig;
use engine::memory::{self, Policy, TrainingUse, Uses};
use engine::moments::MomentStorage;
use engine::random::{self, Purpose};
use serde::Serialize;

use crate::base::Base;
use crate::bench::train::{flops_per_step, full_flops_per_step, lora};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::process_lines;

/// Tokens of the text that is planned for.
const TOKENS: usize = 512;
/// Rank of the adapters.
const RANK: usize = 16;
/// Rows of the measured product.
const ROWS: usize = 512;
/// The product is repeated for so long.
const SECONDS: f64 = 0.3;
/// Share of the product's rate that whole training steps reach; the rest goes to attention, norms and the adapters' thin
/// matrices. `bench train` beside `bench gemm` reached 0.86 with SmolLM2-135M and 0.83 with Gemma 3 270M at 512 tokens, see
/// docs/reference/sizing.md.
const EFFICIENCY: f64 = 0.8;
/// A night, for what can be done in it.
const NIGHT_HOURS: f64 = 12.0;

/// The rate that this machine's matrix product reaches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// 10⁹ operations per second.
    pub gflops: f64,
    /// Threads computed with.
    pub threads: usize,
}

/// One way to tune a base.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Method {
    /// "LoRA" or "DoRA", with a Q before it where the base is held quantised; or "full".
    pub method: &'static str,
    /// What to write as `[model] storage`; empty: nothing.
    pub storage: String,
    /// Parameters that are trained.
    pub trained: u64,
    /// Least memory: everything is computed again in the backward pass.
    pub memory_least: u64,
    /// The same where weights that are held as the files have them are mapped: the system may drop their pages.
    pub memory_mapped: u64,
    /// Memory of the fastest way: everything is kept.
    pub memory_fastest: u64,
    /// Whether the least fits the memory that is available now; nothing where the system does not say.
    pub fits: Option<bool>,
    /// The same of mapped weights.
    pub fits_mapped: Option<bool>,
    /// Estimated tokens a second.
    pub tokens_per_second: f64,
    /// Estimated hours for a million tokens.
    pub hours_per_million: f64,
    /// Millions of tokens in a night of twelve hours.
    pub millions_per_night: f64,
    /// What a million tokens cost at the given price of an hour.
    pub cost_per_million: Option<f64>,
}

/// Multiplies as this model's widest layer does, and times it.
pub(crate) fn measure(context: &Context<'_>, config: &ModelConfig) -> Result<Speed> {
    let failed = |error| Error::Engine(engine::EngineError::Device(error));
    let (out, inner) = config.linear_shape(Linear::Up);
    let (out, inner) = (out.min(4096), inner.min(4096));
    let mut device = CpuDevice::new(context.threads);
    device
        .reserve(&Limits {
            rows: ROWS,
            chain: 1,
            width: inner.max(out),
            head_rows: 1,
            vocab: out,
            hidden: inner,
            rotaries: 0,
            compute: ComputePath::Exact,
        })
        .map_err(failed)?;
    let key = random::key(1, Purpose::Sampling, &[]);
    let drawn = |count: usize| (0..count as u64).map(|i| random::uniform(key, i) - 0.5).collect::<Vec<f32>>();
    let bytes: Vec<u8> = drawn(out * inner).iter().flat_map(|value| value.to_le_bytes()).collect();
    let weight = device.weight("weight", Storage::F32, out, inner, &bytes).map_err(failed)?;
    let (x, y) = (device.allocate("x", ROWS * inner).map_err(failed)?, device.allocate("y", ROWS * out).map_err(failed)?);
    device.upload(x, &drawn(ROWS * inner));
    let begun = context.clock.seconds();
    let mut best = f64::INFINITY;
    for round in 0.. {
        let from = context.clock.seconds();
        device.scope(|device| device.linear(y, x, weight, ROWS, false));
        let now = context.clock.seconds();
        best = best.min(now - from);
        if round >= 2 && now - begun >= SECONDS || round >= 200 {
            break; // a clock that stands still ends too
        }
    }
    Ok(Speed { gflops: 2e-9 * (ROWS * inner * out) as f64 / best.max(1e-6), threads: context.threads })
}

/// Every way to tune this base, as its files hold it and quantised on loading.
pub(crate) fn methods(context: &Context<'_>, base: &Base, speed: &Speed, hourly_cost: Option<f64>) -> Result<Vec<Method>> {
    let mut methods = Vec::new();
    for storage in ["", "bf16", "nf4"] {
        // What is quantised already is not quantised again, and a half float gains nothing as another one.
        let Ok(held) = base.storages_as(storage) else { continue };
        let as_is = base.storages()?;
        if !storage.is_empty() && (held == as_is || linear_bytes(base, &held) >= linear_bytes(base, &as_is)) {
            continue;
        }
        for dora in [false, true] {
            methods.push(method(context, base, speed, Trained::Adapter { dora }, storage, hourly_cost)?);
        }
    }
    // Only where a small step could change a weight.
    if base.trains_in_full().is_ok() {
        methods.push(method(context, base, speed, Trained::All, "", hourly_cost)?);
    }
    Ok(methods)
}

/// What a way trains.
#[derive(Clone, Copy, PartialEq)]
enum Trained {
    /// LoRA, or DoRA.
    Adapter { dora: bool },
    /// Every tensor of the model.
    All,
}

fn linear_bytes(base: &Base, held: &BTreeMap<TensorName, Storage>) -> usize {
    let bytes = |(name, storage): (&TensorName, &Storage)| {
        let (rows, cols) = base.config().tensor_shape(*name);
        rows * storage.row_bytes(cols).unwrap_or(0)
    };
    held.iter().filter(|(name, _)| matches!(name, TensorName::Linear(..))).map(bytes).sum()
}

fn method(context: &Context<'_>, base: &Base, speed: &Speed, trained: Trained, storage: &str, hourly_cost: Option<f64>) -> Result<Method> {
    let config = base.config();
    let adapter = LoraConfig { dora: trained == Trained::Adapter { dora: true }, ..lora(RANK) };
    let full = FullConfig::all();
    let tokens = TOKENS.min(config.context).max(1);
    let device = CpuDevice::new(context.threads);
    let process: u64 = process_lines(context, base).iter().map(|(_, bytes)| bytes).sum();
    let (held, mapped) = (base.storages_as(storage)?, base.mapped_as(storage)?);
    let needed = |policy: Policy, stored: &dyn Fn(TensorName) -> Stored| {
        let pass = PassLimits::dense(tokens);
        let training =
            TrainingUse { pass, policy, several_passes: false, reduction_leaves: 1, micro_batches: 1, moments: MomentStorage::F32 };
        let uses = Uses { training: Some(training), ..Uses::default() };
        let plan = match trained {
            Trained::Adapter { .. } => memory::plan(&device, config, stored, Some(&adapter), &uses),
            Trained::All => memory::plan_full(&device, config, stored, &full, &uses),
        };
        plan.total_bytes() as u64 + process
    };
    let quantised = held.iter().any(|(name, storage)| matches!(name, TensorName::Linear(..)) && !storage.is_float());
    let flops = match trained {
        Trained::Adapter { .. } => flops_per_step(config, &adapter, 1, tokens.max(2)),
        Trained::All => full_flops_per_step(config, 1, tokens.max(2)),
    } / tokens.max(2) as f64;
    let tokens_per_second = EFFICIENCY * speed.gflops * 1e9 / flops;
    let hours_per_million = 1e6 / tokens_per_second / 3600.0;
    let copied = |name| Stored::from(held[&name]);
    let (least, least_mapped) = (needed(Policy::Recompute, &copied), needed(Policy::Recompute, &|name| mapped[&name]));
    let available = store::disk::memory_available_bytes();
    Ok(Method {
        method: match (trained, quantised) {
            (Trained::All, _) => "full",
            (Trained::Adapter { dora: false }, false) => "LoRA",
            (Trained::Adapter { dora: false }, true) => "QLoRA",
            (Trained::Adapter { dora: true }, false) => "DoRA",
            (Trained::Adapter { dora: true }, true) => "QDoRA",
        },
        storage: storage.to_owned(),
        trained: match trained {
            Trained::Adapter { .. } => adapter.parameters(config),
            Trained::All => full.parameters(config),
        } as u64,
        memory_least: least,
        memory_mapped: least_mapped,
        memory_fastest: needed(Policy::Keep, &copied),
        fits: available.map(|available| least <= available),
        fits_mapped: available.map(|available| least_mapped <= available),
        tokens_per_second,
        hours_per_million,
        millions_per_night: NIGHT_HOURS / hours_per_million,
        cost_per_million: hourly_cost.map(|cost| cost * hours_per_million),
    })
}
