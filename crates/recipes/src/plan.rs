//! `plan`: what a run would do, before it does it: data, steps, memory, and what the test set can prove.

use engine::cpu::CpuDevice;
use engine::memory::{self, MemoryPlan, Policy, Uses};
use eval::Task;
use eval::power::{Design, Variation, independent_items, items_needed, minimum_detectable_difference};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::pack;

use crate::adapters;
use crate::base::Base;
use crate::budget;
use crate::context::{Context, Observer};
use crate::error::{Error, Result};
use crate::evaluate::{self, metric_for};
use crate::prepare::{Prepared, prepare};
use crate::report::facts::{MemoryFacts, PowerFacts};
use crate::responder;
use crate::spec::{Init, RunFile, RunPlan};
use crate::tune::{Rows, Steps};

/// Run files and small files of ours, in bytes.
const RUN_FILE_BYTES_MAX: u64 = 1 << 20;
/// Assumed share of items on which exactly one of two arms is right, for planning.
const PLANNED_DISCORDANCE: f64 = 0.25;
/// Assumed standard deviation of per-item differences of a mean over fields, for planning.
const PLANNED_DEVIATION: f64 = 0.35;
/// Assumed standard deviation over texts of what tuning takes off their loss, in nats per token, for planning.
const PLANNED_TEXT_DEVIATION: f64 = 0.1;
/// Assumed correlation of items of one group, for planning.
const PLANNED_CORRELATION: f64 = 0.2;
/// Code, runtime and the pages that reading files leaves in the process, measured on Linux.
const PROGRAM_BYTES: u64 = 14 << 20;
/// Stack and bookkeeping of a thread of the pool that it really touches.
const THREAD_BYTES: u64 = 1 << 20;
/// Bytes per vocabulary entry in tokenizer and template engine: 150 measured with a byte-level BPE of 49,152 entries, 270 with
/// Gemma's of 262,144; from a tokenizer.json.
const TOKENIZER_BYTES_PER_TOKEN: u64 = 270;
/// The same from a GGUF file, whose vocabulary is rebuilt as a tokenizer.json on the way.
const GGUF_TOKENIZER_BYTES_PER_TOKEN: u64 = 600;
/// Of that, what the open file keeps where no tokenizer is made of it.
const GGUF_VOCABULARY_BYTES_PER_TOKEN: u64 = 60;

/// The run file at a path: the file itself, or `tunesmith.toml` in a folder; and the folder.
pub fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let file = if path.is_dir() { path.join("tunesmith.toml") } else { path.to_owned() };
    if !file.is_file() {
        return Err(Error::NoRunFile { path: file });
    }
    let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
    Ok((file, folder))
}

/// Reads and resolves a run file; gives its text, its plan and its folder.
pub fn read(path: &Path) -> Result<(String, RunPlan, PathBuf)> {
    let (file, folder) = locate(path)?;
    let text = store::atomic::read_text(&file, RUN_FILE_BYTES_MAX)?;
    let absolute = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
    let plan = RunFile::parse(&text, &file)?.resolve(&absolute)?;
    Ok((text, plan, folder))
}

/// Everything that `plan` shows.
pub struct Planned {
    /// The plan.
    pub plan: RunPlan,
    /// The plan as (key, value) lines.
    pub lines: Vec<(String, String)>,
    /// The records, prepared in memory.
    pub prepared: Prepared,
    /// Memory by line.
    pub memory: MemoryFacts,
    /// What the test set can prove.
    pub power: PowerFacts,
    /// What training saves of its forward passes.
    pub policy: Policy,
    /// Optimiser steps at most.
    pub steps: u64,
}

/// Plans a run without writing anything.
pub fn plan(context: &Context<'_>, observer: &mut dyn Observer, path: &Path) -> Result<Planned> {
    let (_, plan, folder) = read(path)?;
    let base = Base::of_plan(context, observer, &plan, &folder, false)?;
    let (prepared, _) = prepare(context, &plan, &folder, &base, observer)?;
    let planned = planned(context, &plan, &folder, &base, prepared)?;
    tested(&planned)?;
    Ok(planned)
}

/// A run that is to be measured has something to be measured on.
pub(crate) fn tested(planned: &Planned) -> Result<()> {
    if planned.prepared.split.held_out.in_domain.is_empty() {
        return Err(Error::TooFew { what: "records to test on", given: 0, least: 1 });
    }
    Ok(())
}

/// What a run on these records would do. Whatever can be refused is refused here: before there is a run, and before
/// the first hour of computing.
pub(crate) fn planned(context: &Context<'_>, plan: &RunPlan, folder: &Path, base: &Base, mut prepared: Prepared) -> Result<Planned> {
    let rows = Rows::new(plan, &prepared, base)?;
    count_tokens(&rows, &mut prepared)?;
    let policy = policy(context, plan, base, &prepared, &rows)?;
    let memory = memory_facts(context, plan, base, &prepared, &rows, &policy)?;
    let power = power(plan, &prepared)?;
    evaluate::gate(plan, &prepared.task)?;
    if plan.evaluate.arms.iter().any(|arm| arm == "imported") {
        evaluate::read_imported(&folder.join(&plan.evaluate.answers))?;
    }
    let steps = Steps::of(&plan.tune, rows.train.rows().len());
    let mut lines = lines(plan, base, &prepared, &steps);
    if memory.mapped_bytes > 0 {
        let gigabytes = memory.mapped_bytes as f64 / 1e9;
        let text = format!("{gigabytes:.2} GB read where the files have them; the system may drop them and read them again");
        lines.push(("mapped".into(), text));
    }
    lines.push(("saved".into(), budget::words(&policy, base.config().layers)));
    Ok(Planned { lines, memory, power, policy, steps: steps.total as u64, prepared, plan: plan.clone() })
}

/// Rendered, computed and loss tokens of the first epoch, into the facts.
pub(crate) fn count_tokens(rows: &Rows, prepared: &mut Prepared) -> Result<()> {
    let order = pack::order(&rows.train, rows.plan.seed, 0);
    let facts = &mut prepared.facts;
    (facts.tokens_rendered, facts.tokens_computed, facts.tokens_loss) = (0, 0, 0);
    for index in 0..pack::steps_per_epoch(&rows.train, &rows.plan) {
        for batch in pack::step(&rows.train, &order, &rows.plan, 0, index)?.batches {
            facts.tokens_rendered += batch.rendered_tokens as u64;
            facts.tokens_computed += batch.tokens.len() as u64;
            facts.tokens_loss += batch.entries.len() as u64;
        }
    }
    Ok(())
}

/// The plan as the table that is printed before every run.
pub(crate) fn lines(plan: &RunPlan, base: &Base, prepared: &Prepared, steps: &Steps) -> Vec<(String, String)> {
    let facts = &prepared.facts;
    let blank = |text: &str| if text.is_empty() { "BLANK".to_owned() } else { text.to_owned() };
    let task = match &prepared.task {
        Task::Classification { labels } => format!("one of {} labels", labels.len()),
        Task::Structured { fields } => format!("a JSON object with {}", fields.join(", ")),
        Task::FreeText => "free text".into(),
        Task::Text => "none: plain texts are learned whole".into(),
    };
    let tune = &plan.tune;
    let share = if facts.tokens_rendered > 0 { 100.0 * facts.tokens_computed as f64 / facts.tokens_rendered as f64 } else { 0.0 };
    let gate: Vec<String> = plan
        .gate
        .beats
        .iter()
        .map(|arm| format!("beats {arm}"))
        .chain(plan.gate.at_least.iter().map(|(name, value)| format!("{name} at least {value}")))
        .chain((plan.gate.perplexity_at_most > 0.0).then(|| format!("perplexity at most {}", plan.gate.perplexity_at_most)))
        .chain(plan.gate.declared.then(|| "every source declared".to_owned()))
        .chain((plan.gate.accepted_at_least > 0.0).then(|| format!("a second person accepted at least {}", plan.gate.accepted_at_least)))
        .collect();
    let mut lines = vec![
        ("goal".into(), blank(&plan.project.goal)),
        ("users".into(), blank(&plan.project.users)),
        ("industry".into(), blank(&plan.project.industry)),
        ("intended use".into(), blank(&plan.project.intended_use)),
        ("base".into(), format!("{} ({})", plan.model.base, base.architecture())),
        (
            "weights".into(),
            format!("{:.1} M parameters, {}, licence {}", base.parameters() as f64 / 1e6, base.storage_names(), blank(&base.licence())),
        ),
        ("answers".into(), task),
        ("instruction".into(), if plan.is_text() { "none".into() } else { blank(&prepared.instruction) }),
        (
            "records".into(),
            format!(
                "{} train, {} validation, {} test, {} near and {} far out of distribution",
                facts.train, facts.validation, facts.test, facts.near_ood, facts.far_ood
            ),
        ),
        (
            "tokens of an epoch".into(),
            format!(
                "{} rendered, {} computed ({share:.0} %), {} with loss",
                facts.tokens_rendered, facts.tokens_computed, facts.tokens_loss
            ),
        ),
        (
            "method".into(),
            if tune.method == "full" {
                let frozen = if tune.freeze.is_empty() { "nothing else".to_owned() } else { tune.freeze.join(" ") };
                format!("full {}, on {}, layers {}, frozen: {frozen}", tune.objective, tune.targets.join(" "), tune.layers)
            } else {
                format!(
                    "{} {}, rank {}, alpha {}{}{}{}{}, dropout {}, on {}, layers {}",
                    tune.method,
                    tune.objective,
                    tune.rank,
                    tune.alpha,
                    if tune.rslora { ", rsLoRA" } else { "" },
                    if tune.dora { ", DoRA" } else { "" },
                    if tune.init == Init::Pissa { ", starts as PiSSA" } else { "" },
                    if tune.lora_plus_ratio == 1.0 { String::new() } else { format!(", LoRA+ {}", tune.lora_plus_ratio) },
                    tune.dropout,
                    tune.targets.join(" "),
                    tune.layers
                )
            },
        ),
        (
            "steps".into(),
            format!(
                "at most {} of {} records ({} an epoch, {} epochs), looks at validation every {}",
                steps.total, tune.batch, steps.per_epoch, tune.epochs, steps.look
            ),
        ),
        (
            "learning rate".into(),
            format!(
                "{} {:?}, warm-up {:.0} %, decay {}, clipping at {}{}",
                tune.learning_rate,
                tune.schedule,
                100.0 * tune.warmup,
                tune.weight_decay,
                tune.clip,
                if tune.optimizer.is_default() { "" } else { ", moments in 8 bits" }
            )
            .to_lowercase(),
        ),
        ("micro-batches".into(), format!("at most {} rows, gradient sum of {} leaves", tune.micro_batch_tokens, tune.reduction_leaves)),
        ("kept".into(), format!("{:?} checkpoint, patience {} looks", tune.keep, tune.patience).to_lowercase()),
        ("seed".into(), plan.project.seed.to_string()),
        ("arms".into(), plan.evaluate.arms.join(", ")),
        (
            "metric".into(),
            match prepared.task {
                Task::Text => format!("{}, of each held-out text before and after", plan.evaluate.metric),
                _ => format!("{}, decoding {}", plan.evaluate.metric, format!("{:?}", plan.evaluate.mode).to_lowercase()),
            },
        ),
        ("gate".into(), gate.join("; ")),
    ];
    if !base.licence_asks().is_empty() {
        lines.push(("licence".into(), base.licence_asks()));
    }
    if plan.prepare.shuffle_targets {
        lines.push(("negative control".into(), "training targets dealt out at random".into()));
    }
    lines
}

/// What training saves, so that the run fits the memory that it may use; a refusal names the nearest run that does.
fn policy(context: &Context<'_>, plan: &RunPlan, base: &Base, prepared: &Prepared, rows: &Rows) -> Result<Policy> {
    let bytes = |plan: &RunPlan, rows: &Rows, policy: &Policy| Ok(memory_facts(context, plan, base, prepared, rows, policy)?.planned_bytes);
    let nearest = |budget: u64| {
        if bytes(plan, rows, &Policy::Recompute)? <= budget {
            return Ok("without `--memory keep` it fits, and gives the same result".to_owned());
        }
        let mut smaller = plan.clone();
        while smaller.tune.micro_batch_tokens > 16 {
            smaller.tune.micro_batch_tokens /= 2;
            if bytes(&smaller, &Rows::new(&smaller, prepared, base)?, &Policy::Recompute)? <= budget {
                return Ok(format!("with [tune] micro_batch_tokens = {} it fits", smaller.tune.micro_batch_tokens));
            }
        }
        Ok("a smaller base, a smaller [prepare] max_tokens or fewer arms need less".to_owned())
    };
    let fitting = || budget::policy(context.memory, base.config().layers, |policy| bytes(plan, rows, policy), nearest);
    budget::or_mapped(base, fitting)
}

/// Planned memory of a whole run.
pub(crate) fn memory_facts(
    context: &Context<'_>,
    plan: &RunPlan,
    base: &Base,
    prepared: &Prepared,
    rows: &Rows,
    policy: &Policy,
) -> Result<MemoryFacts> {
    let storages = base.stored()?;
    let full = if plan.tune.method == "full" { Some(base.full_config(plan)?) } else { None };
    let lora = adapters::lora_config(&plan.tune, base.config())?;
    let device = CpuDevice::new(context.threads);
    let storage = |name| storages[&name];
    let table = |uses: &Uses| match &full {
        Some(full) if uses.training.is_some() => memory::plan_full(&device, base.config(), storage, full, uses),
        Some(_) => memory::plan(&device, base.config(), storage, None, uses),
        None => memory::plan(&device, base.config(), storage, Some(&lora), uses),
    };
    let training = table(&rows.uses(&plan.tune, policy.clone()));
    let answering = table(&responder::planned_uses(base, plan, prepared)?);
    let largest = |of: fn(&MemoryPlan) -> usize| of(&training).max(of(&answering)) as u64;
    let trained_bytes = 4 * full.as_ref().map_or_else(|| lora.parameters(base.config()), |full| full.parameters(base.config())) as u64;
    let moments = training.parameters.iter().filter(|entry| entry.name == "moments").map(|entry| entry.bytes as u64).sum::<u64>();
    // An adapter is held on the host while it is made, and written whole with its moments; a model's checkpoint is written a
    // third at a time.
    let (host, writing) = if full.is_some() { (0, trained_bytes) } else { (trained_bytes, trained_bytes + moments) };
    let mut by_name = BTreeMap::new();
    for entry in &training.parameters {
        let name = match entry.name.as_str() {
            "adapter" | "adapter's derived numbers" | "gradient sums" | "moments" => entry.name.clone(),
            _ => "base weights".to_owned(),
        };
        *by_name.entry(name).or_insert(0) += entry.bytes as u64;
    }
    let records = 4 * prepared.facts.tokens_rendered * 8;
    let mut lines: Vec<(String, u64)> = by_name.into_iter().collect();
    lines.extend([
        ("activations".into(), largest(|plan| plan.activation_bytes)),
        ("kernel scratch".into(), largest(|plan| plan.scratch_bytes)),
        ("sampling".into(), answering.host_bytes() as u64),
        ("adapter on the host".into(), host),
        ("checkpoint being written".into(), writing),
        ("records".into(), records),
    ]);
    let running: u64 = lines.iter().map(|(_, bytes)| bytes).sum();
    lines.push(("more while it is loaded".into(), (records + base.loading_bytes(&training)?).saturating_sub(running)));
    lines.extend(process_lines(context, base));
    lines.retain(|(_, bytes)| *bytes > 0);
    let planned_bytes = lines.iter().map(|(_, bytes)| bytes).sum();
    Ok(MemoryFacts { lines, planned_bytes, mapped_bytes: base.mapped_bytes()?, peak_rss_bytes: 0 })
}

/// What the process takes beside the engine's tables, by line.
pub(crate) fn process_lines(context: &Context<'_>, base: &Base) -> [(String, u64); 3] {
    let per_token = match (base.has_text(), base.is_gguf()) {
        (true, true) => GGUF_TOKENIZER_BYTES_PER_TOKEN,
        (true, false) => TOKENIZER_BYTES_PER_TOKEN,
        (false, true) => GGUF_VOCABULARY_BYTES_PER_TOKEN,
        (false, false) => 0,
    };
    [
        ("tokenizer and template".into(), base.config().vocab as u64 * per_token),
        ("threads".into(), context.threads as u64 * THREAD_BYTES),
        ("program".into(), PROGRAM_BYTES),
    ]
}

/// The smallest difference that the test set can prove, and what smaller ones would need.
pub(crate) fn power(plan: &RunPlan, prepared: &Prepared) -> Result<PowerFacts> {
    let items = &prepared.split.held_out.in_domain;
    let mut groups = BTreeMap::<String, usize>::new();
    for record in items {
        *groups.entry(record.group.clone().unwrap_or_else(|| format!("\0{}", record.id))).or_default() += 1;
    }
    let sizes: Vec<usize> = groups.into_values().collect();
    let n = independent_items(&sizes, PLANNED_CORRELATION);
    let variation = if prepared.task == Task::Text {
        Variation::Deviation(PLANNED_TEXT_DEVIATION)
    } else if metric_for(&plan.evaluate.metric, &prepared.task)?.is_rate() {
        Variation::Discordance(PLANNED_DISCORDANCE)
    } else {
        Variation::Deviation(PLANNED_DEVIATION)
    };
    let detectable = minimum_detectable_difference(n, variation, Design::STANDARD)?.unwrap_or(1.0);
    let mut items_for = Vec::new();
    for difference in [0.1, 0.05, 0.03, 0.02] {
        if difference < detectable
            && let Some(needed) = items_needed(difference, variation, Design::STANDARD)?
        {
            let scale = items.len() as f64 / n.max(1.0);
            items_for.push((difference, (needed as f64 * scale).ceil() as u64));
        }
    }
    let of_perplexity = prepared.task == Task::Text;
    Ok(PowerFacts { items: items.len() as u64, detectable_difference: detectable, items_for, of_perplexity })
}
