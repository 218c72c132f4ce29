//! `tune`: the training story, with its loop visible.
//!
//! Order and micro-batches of an epoch are a function of the plan; a checkpoint holds adapter, moments, step,
//! position and counters. So a run that was killed goes on from its last checkpoint and ends with the same
//! bytes, and a checkpoint's time changes nothing.

use data::TrainRows;
use data::pack::{self, PackPlan, PackedBatch, TokenRow};
use engine::adapter::{Adapter, LoraConfig};
use engine::batch::{Batch, LossEntry, PassLimits, Segment};
use engine::cpu::CpuDevice;
use engine::memory::{Policy, ScoringUse, TrainingUse, Uses};
use engine::model::Model;
use engine::schedule::{Decay, Schedule as EngineSchedule};
use engine::trainer::{AdapterMoments, Objective, OptimizerConfig, StepReport, Trainer, TrainerConfig, TrainerState};
use eval::arms::Trial;
use eval::{Decode, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::checkpoint::{self, Checkpoint, StateTensors};
use store::{RunFolder, jsonl};

use crate::adapters;
use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::evaluate::{self, answer_tokens};
use crate::moments;
use crate::prepare::{Prepared, SHARED_MIN, train_rows};
use crate::rendering::Rendering;
use crate::report::facts::{LookFacts, StepFacts, TrainingFacts};
use crate::responder::Responder;
use crate::spec::{Keep, RunPlan, Schedule, Tune, defaults};

/// Checkpoints kept beside the best one.
const CHECKPOINTS_KEPT: usize = 1;

/// The optimiser steps of a plan on so many records.
pub(crate) struct Steps {
    /// Of one epoch.
    pub(crate) per_epoch: usize,
    /// Of the whole run.
    pub(crate) total: usize,
    /// Between two looks at validation.
    pub(crate) look: usize,
}

impl Steps {
    pub(crate) fn of(tune: &Tune, records: usize) -> Steps {
        let per_epoch = records.div_ceil(tune.batch).max(1);
        let by_epochs = ((tune.epochs * per_epoch as f64).ceil() as usize).max(1);
        let total = if tune.max_steps == 0 { by_epochs } else { tune.max_steps };
        let look = ((per_epoch as f64 / tune.evaluations_per_epoch).round() as usize).clamp(1, total);
        Steps { per_epoch, total, look }
    }
}

/// What training needs of the prepared data, as tokens.
pub(crate) struct Rows {
    pub(crate) train: TrainRows,
    pub(crate) validation: Vec<TokenRow>,
    pub(crate) plan: PackPlan,
}

impl Rows {
    pub(crate) fn new(plan: &RunPlan, prepared: &Prepared, base: &Base) -> Result<Rows> {
        let rendering = Rendering::of(plan, base)?;
        let train = train_rows(prepared, &rendering)?;
        let validation = prepared.split.held_out.validation.iter().map(|record| rendering.row(record)).collect::<Result<Vec<_>>>()?;
        let longest = train.rows().iter().chain(&validation).map(|row| row.ids.len()).max().unwrap_or(0);
        let batch_rows = plan.tune.micro_batch_tokens.max(longest);
        let pack = PackPlan { seed: plan.project.seed, records_per_step: plan.tune.batch, batch_rows, shared_min: Some(SHARED_MIN) };
        Ok(Rows { train, validation, plan: pack })
    }

    /// Largest pass of training and of scoring.
    fn limits(&self) -> PassLimits {
        let rows = self.plan.batch_rows;
        let chain = self.train.rows().iter().chain(&self.validation).map(|row| row.ids.len()).max().unwrap_or(1);
        PassLimits { rows, chain, head_rows: rows, entries: 4 * rows }
    }

    /// What the engine is to lay out memory for.
    pub(crate) fn uses(&self, tune: &Tune, policy: Policy) -> Uses {
        let several_passes = pack::several_passes(&self.train, &self.plan);
        let training = TrainingUse {
            pass: self.limits(),
            policy,
            several_passes,
            reduction_leaves: tune.reduction_leaves,
            micro_batches: tune.batch,
            moments: moments::storage(tune.optimizer),
        };
        Uses { training: Some(training), scoring: Some(ScoringUse { pass: self.limits(), prefix: 0 }), ..Uses::default() }
    }
}

/// A packed batch in the engine's types; borrows what it can.
pub(crate) struct EngineBatch<'a> {
    packed: &'a PackedBatch,
    segments: Vec<Segment>,
    entries: Vec<LossEntry>,
}

impl<'a> EngineBatch<'a> {
    pub(crate) fn new(packed: &'a PackedBatch) -> EngineBatch<'a> {
        let segments = packed.segments.iter().map(|segment| Segment { rows: segment.rows.clone(), parent: segment.parent }).collect();
        let entry =
            |entry: &pack::PackedEntry| LossEntry { row: entry.row, target: entry.target, weight: entry.weight, sequence: entry.sequence };
        EngineBatch { packed, segments, entries: packed.entries.iter().map(entry).collect() }
    }

    pub(crate) fn borrow(&self) -> Batch<'_> {
        Batch {
            tokens: &self.packed.tokens,
            positions: &self.packed.positions,
            draw_keys: &self.packed.draw_keys,
            segments: &self.segments,
            passes: &self.packed.passes,
            entries: &self.entries,
        }
    }
}

/// What a checkpoint holds beside adapter and moments.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Progress {
    pub(crate) looks: Vec<LookFacts>,
    pub(crate) best_step: u64,
    pub(crate) best_loss: Option<f64>,
    looks_without_gain: usize,
    pub(crate) tokens_computed: u64,
    pub(crate) seconds: f64,
    pub(crate) resumed: u64,
}

/// Trains and leaves the kept adapter attached to the model that it returns. Goes on from the last checkpoint
/// of `run` if there is one. `until` stops after so many steps of the schedule, as if Ctrl-C had been pressed.
pub fn tune(
    context: &Context<'_>,
    plan: &RunPlan,
    base: &Base,
    prepared: &Prepared,
    run: &RunFolder,
    policy: &Policy,
    model: Model<CpuDevice>,
    observer: &mut dyn Observer,
) -> Result<(Model<CpuDevice>, Adapter, TrainingFacts)> {
    let rows = Rows::new(plan, prepared, base)?;
    let steps = Steps::of(&plan.tune, rows.train.rows().len());
    let lora = adapters::lora_config(&plan.tune, base.config())?;
    let mut model = model;
    let start = model.fresh_adapter(&lora, plan.project.seed)?;
    let uses = rows.uses(&plan.tune, policy.clone());
    let mut trainer = Trainer::new(model, &start, trainer_config(&plan.tune, &steps), &uses)?;
    drop(start); // the device has its own

    let mut looker = Looker::new(plan, base, prepared, &rows, uses)?;
    let mut progress = Progress::default();
    if let Some(step) = checkpoint::last(run.path())? {
        let saved = checkpoint::read(&checkpoint::folder(run.path(), step))?;
        progress = restore(&mut trainer, saved, run, &lora)?;
        progress.resumed += 1;
        // Killed between saving the best step and marking it: unmarked, it would be pruned.
        if checkpoint::steps(run.path())?.contains(&progress.best_step) {
            checkpoint::mark_best(run, progress.best_step)?;
        }
        observer.event(Event::Note(format!("going on after step {step} of {}", steps.total)));
    }
    let mut save_now = |trainer: &Trainer<CpuDevice>, progress: &Progress| save(trainer, progress, run, base);
    let ended = training_loop(context, plan, &rows, &steps, &mut trainer, &mut progress, &mut looker, run, &mut save_now, observer)?;
    finish(trainer, plan, &progress, run, ended)
}

/// The loop of every method: from where `trainer` is to the last step, or to where it stops; says why it ended.
pub(crate) fn training_loop(
    context: &Context<'_>,
    plan: &RunPlan,
    rows: &Rows,
    steps: &Steps,
    trainer: &mut Trainer<CpuDevice>,
    progress: &mut Progress,
    looker: &mut Looker<'_>,
    run: &RunFolder,
    save: &mut dyn FnMut(&Trainer<CpuDevice>, &Progress) -> Result<()>,
    observer: &mut dyn Observer,
) -> Result<&'static str> {
    keep_lines_up_to(run, u64::from(trainer.step_count()))?;
    let mut log = run.log("metrics.jsonl")?;

    if progress.looks.is_empty() {
        looker.look(trainer, progress, observer)?;
    }
    observer.event(Event::Start { what: "tuning".into(), total: steps.total as u64, unit: "steps" });
    let mut last_checkpoint = context.clock.seconds();
    let mut ended = "all epochs done";
    let (mut epoch, mut order) = (u64::MAX, Vec::new());
    while (trainer.step_count() as usize) < steps.total {
        let started = context.clock.seconds();
        let done = trainer.step_count() as usize;
        if epoch != (done / steps.per_epoch) as u64 {
            epoch = (done / steps.per_epoch) as u64;
            order = pack::order(&rows.train, plan.project.seed, epoch);
        }
        let packed = pack::step(&rows.train, &order, &rows.plan, epoch, done % steps.per_epoch)?;
        let batches: Vec<EngineBatch<'_>> = packed.batches.iter().map(EngineBatch::new).collect();
        let borrowed: Vec<Batch<'_>> = batches.iter().map(EngineBatch::borrow).collect();
        let report = trainer.step(&borrowed)?;
        progress.tokens_computed += report.tokens_computed as u64;
        progress.seconds += context.clock.seconds() - started;
        log.append(&step_line(&report, steps))?;

        let step = report.step as usize;
        let mut improved = false;
        if step.is_multiple_of(steps.look) || step == steps.total {
            improved = looker.look(trainer, progress, observer)?;
            observer.event(Event::Start { what: "tuning".into(), total: steps.total as u64, unit: "steps" });
        }
        let validation_loss = progress.looks.last().map(|look| look.loss).filter(|loss| loss.is_finite());
        observer.event(Event::Progress { done: step as u64, loss: Some(report.loss), validation: validation_loss });
        let out_of_patience = plan.tune.patience > 0 && plan.tune.keep == Keep::Best && progress.looks_without_gain >= plan.tune.patience;
        let stopped = observer.stopped();
        let due = context.clock.seconds() - last_checkpoint >= plan.tune.checkpoint_seconds || step.is_multiple_of(steps.per_epoch);
        if improved || stopped || due || out_of_patience || step == steps.total {
            save(trainer, progress)?;
            if improved {
                checkpoint::mark_best(run, step as u64)?;
            }
            checkpoint::prune(run, CHECKPOINTS_KEPT)?;
            last_checkpoint = context.clock.seconds();
        }
        if out_of_patience {
            ended = "validation no longer improved";
            break;
        }
        if stopped && step < steps.total {
            observer.event(Event::End);
            let id = run.path().file_name().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(Error::Stopped { id, step: step as u64 });
        }
    }
    observer.event(Event::End);
    if plan.tune.max_steps > 0 && trainer.step_count() as usize == plan.tune.max_steps {
        ended = "max_steps done";
    }
    Ok(ended)
}

pub(crate) fn trainer_config(tune: &Tune, steps: &Steps) -> TrainerConfig {
    let decay = match tune.schedule {
        Schedule::Constant => Decay::Constant,
        Schedule::Linear => Decay::Linear,
        Schedule::Cosine => Decay::Cosine,
    };
    let schedule = EngineSchedule {
        peak: tune.learning_rate,
        warmup_steps: (tune.warmup * steps.total as f64).round() as u32,
        total_steps: steps.total as u32,
        decay,
    };
    let optimizer = OptimizerConfig {
        beta1: defaults::BETA1,
        beta2: defaults::BETA2,
        eps: defaults::EPS,
        weight_decay: tune.weight_decay as f32,
        max_norm: (tune.clip > 0.0).then_some(tune.clip as f32),
        lora_plus_ratio: tune.lora_plus_ratio as f32,
    };
    TrainerConfig { optimizer, schedule, objective: Objective::Sft }
}

/// Validation items whose answers are generated at each look; enough to see the trend, cheap beside an epoch.
const METRIC_ITEMS_MAX: usize = 32;

/// The validation items on which the plan's metric is measured at each look; `None` without validation, and of plain texts, whose
/// loss says it all.
fn metric_trial(plan: &RunPlan, prepared: &Prepared) -> Result<Option<Trial>> {
    if plan.is_text() {
        return Ok(None);
    }
    let items = evaluate::spread(&prepared.split.held_out.validation, METRIC_ITEMS_MAX);
    if items.is_empty() { Ok(None) } else { Ok(Some(evaluate::trial(plan, prepared, &items)?)) }
}

/// What a look at validation needs.
pub(crate) struct Looker<'a> {
    base: &'a Base,
    validation: Vec<PackedBatch>,
    trial: Option<Trial>,
    uses: Uses,
    answer_tokens: usize,
}

impl<'a> Looker<'a> {
    pub(crate) fn new(plan: &RunPlan, base: &'a Base, prepared: &Prepared, rows: &Rows, uses: Uses) -> Result<Looker<'a>> {
        let validation = pack::pack_for_scoring(&rows.validation, rows.plan.batch_rows, rows.plan.shared_min)?;
        let trial = metric_trial(plan, prepared)?;
        Ok(Looker { base, validation, trial, uses, answer_tokens: answer_tokens(plan, base, prepared) })
    }

    /// Validation loss and metric of the adapter as it is now; whether its loss is the best so far.
    fn look(&mut self, trainer: &mut Trainer<CpuDevice>, progress: &mut Progress, observer: &mut dyn Observer) -> Result<bool> {
        if self.validation.is_empty() {
            return Ok(false);
        }
        let batches: Vec<EngineBatch<'_>> = self.validation.iter().map(EngineBatch::new).collect();
        let borrowed: Vec<Batch<'_>> = batches.iter().map(EngineBatch::borrow).collect();
        let loss = trainer.evaluate_loss(&borrowed)?;
        let step = u64::from(trainer.step_count());
        let metric = match &self.trial {
            Some(trial) if step > 0 => self.metric(trial, trainer, observer)?,
            _ => None,
        };
        progress.looks.push(LookFacts { step, loss, metric });
        if step == 0 {
            return Ok(false);
        }
        let before = progress.looks[0].loss;
        if loss >= before || loss.is_nan() {
            let text = format!("validation loss {loss:.3} after step {step}, and {before:.3} before training: is learning_rate too high?");
            observer.event(Event::Warning(text));
        }
        let improved = progress.best_loss.is_none_or(|best| loss < best);
        if improved {
            (progress.best_step, progress.best_loss, progress.looks_without_gain) = (step, Some(loss), 0);
        } else {
            progress.looks_without_gain += 1;
        }
        Ok(improved)
    }

    /// The plan's metric by free generation; `None` if the user interrupts. Answering lays out memory of its own; training's is laid out again after it.
    fn metric(&self, trial: &Trial, trainer: &mut Trainer<CpuDevice>, observer: &mut dyn Observer) -> Result<Option<f64>> {
        let mut responder = Responder::new(self.base, trainer.model(), self.answer_tokens, observer, "validation".into())?;
        let answers = responder.generate(&trial.prompts());
        trainer.model().reserve(&self.uses)?;
        match answers {
            Ok(answers) => Ok(Some(trial.from_answers("tuned", Decode::Free, &answers, None)?.score)),
            // Ctrl-C is heard again after this step, where the state is saved.
            Err(Error::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn step_line(report: &StepReport, steps: &Steps) -> StepFacts {
    StepFacts {
        step: u64::from(report.step),
        epoch: f64::from(report.step) / steps.per_epoch as f64,
        loss: report.loss,
        learning_rate: report.learning_rate,
        grad_norm: report.grad_norm,
    }
}

/// Lines of steps after the checkpoint belong to work that is done again.
fn keep_lines_up_to(run: &RunFolder, step: u64) -> Result<()> {
    let lines = jsonl::read_lines(&run.file("metrics.jsonl"))?;
    let kept: Vec<&String> =
        lines.iter().filter(|line| serde_json::from_str::<StepFacts>(line).is_ok_and(|facts| facts.step <= step)).collect();
    if kept.len() != lines.len() {
        let text: String = kept.iter().map(|line| format!("{line}\n")).collect();
        run.write("metrics.jsonl", text.as_bytes())?;
    }
    Ok(())
}

const FIRST: &str = "first.";
const SECOND: &str = "second.";

fn save(trainer: &Trainer<CpuDevice>, progress: &Progress, run: &RunFolder, base: &Base) -> Result<()> {
    let state = trainer.state();
    let mut optimizer = StateTensors::new();
    for (part, both) in state.moments {
        let (name, shape) = adapters::named_part(base.config(), state.adapter.config.rank, part);
        for (prefix, moment) in [FIRST, SECOND].into_iter().zip(both) {
            moments::insert(&mut optimizer, format!("{prefix}{name}"), shape.clone(), moment);
        }
    }
    let adapter = adapters::to_peft(&state.adapter, base.config(), &base.name, None);
    let state_json = serde_json::to_value(progress).unwrap_or(Value::Null);
    checkpoint::write(run, &Checkpoint { step: u64::from(state.step), adapter, optimizer, state: state_json })?;
    Ok(())
}

fn restore(trainer: &mut Trainer<CpuDevice>, saved: Checkpoint, run: &RunFolder, lora: &LoraConfig) -> Result<Progress> {
    let config = trainer.model().config().clone();
    let folder = checkpoint::folder(run.path(), saved.step);
    let corrupt = |reason: String| Error::Corrupt { what: "the checkpoint", reason, path: folder.clone() };
    let adapter = adapters::from_peft(saved.adapter, &config)?.unfolded(lora);
    let find = |prefix: &str, name: &str| {
        let name = format!("{prefix}{name}");
        moments::find(|name| saved.optimizer.get(name).cloned(), &name).ok_or_else(|| corrupt(format!("it has no moment {name}")))
    };
    let mut both = AdapterMoments::new();
    for part in trainer.adapter_parts() {
        let (name, _) = adapters::named_part(&config, adapter.config.rank, part);
        both.insert(part, [find(FIRST, &name)?, find(SECOND, &name)?]);
    }
    let step = u32::try_from(saved.step).map_err(|error| corrupt(error.to_string()))?;
    trainer.restore(&TrainerState { step, adapter, moments: both })?;
    serde_json::from_value(saved.state).map_err(|error| corrupt(error.to_string()))
}

/// The adapter that is kept, written as a PEFT folder, and the facts.
fn finish(
    mut trainer: Trainer<CpuDevice>,
    plan: &RunPlan,
    progress: &Progress,
    run: &RunFolder,
    ended: &str,
) -> Result<(Model<CpuDevice>, Adapter, TrainingFacts)> {
    let last = u64::from(trainer.step_count());
    let best = if plan.tune.keep == Keep::Best && progress.best_loss.is_some() { progress.best_step } else { last };
    let mut adapter = trainer.adapter();
    let trainable_parameters = adapter.config.parameters(trainer.model().config()) as u64;
    let mut model = trainer.into_model();
    if best != last {
        let saved = checkpoint::read(&checkpoint::folder(run.path(), best))?;
        adapter = adapters::from_peft(saved.adapter, model.config())?;
        model.attach(&adapter)?;
    } else if adapter.config.pissa {
        // What is measured is what is saved.
        adapter = adapter.folded();
        model.attach(&adapter)?;
    }
    let facts = training_facts(progress, run, best, ended, trainable_parameters)?;
    Ok((model, adapter, facts))
}

/// What a training came to.
pub(crate) fn training_facts(
    progress: &Progress,
    run: &RunFolder,
    kept_step: u64,
    ended: &str,
    trainable_parameters: u64,
) -> Result<TrainingFacts> {
    let lines = jsonl::read_lines(&run.file("metrics.jsonl"))?;
    Ok(TrainingFacts {
        steps: lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        looks: progress.looks.clone(),
        kept_step,
        ended: ended.to_owned(),
        trainable_parameters,
        seconds: progress.seconds,
        tokens_per_second: if progress.seconds > 0.0 { progress.tokens_computed as f64 / progress.seconds } else { 0.0 },
        resumed: progress.resumed,
        adapter_hash: String::new(),
    })
}

/// Writes `adapter/` and the facts of the training; gives the blake3 of the weights.
pub fn write_adapter(
    run: &RunFolder,
    base: &Base,
    plan: &RunPlan,
    adapter: &Adapter,
    facts: &mut TrainingFacts,
    lineage: Value,
) -> Result<()> {
    let folder = run.file("adapter");
    let peft = adapters::to_peft(adapter, base.config(), &base.name, Some(lineage));
    let readme = format!(
        "---\nbase_model: {}\nlibrary_name: peft\n---\n\n# {}\n\nLoRA adapter written by Tunesmith. Goal: {}\n\n`tunesmith.json` and the run's `manifest.json` say what it was made from.\n",
        base.name,
        plan.project.name,
        if plan.project.goal.is_empty() { "BLANK" } else { &plan.project.goal }
    );
    if !folder.exists() {
        peft.write(&folder, &readme)?;
    }
    facts.adapter_hash = adapter_hash(&folder)?;
    run.write("training.json", format!("{:#}\n", json!(facts)).as_bytes())?;
    Ok(())
}

/// blake3 of an adapter folder's weights.
pub(crate) fn adapter_hash(folder: &std::path::Path) -> Result<String> {
    let bytes = store::atomic::read(&folder.join("adapter_model.safetensors"), 1 << 34)?;
    Ok(format!("blake3:{}", blake3::hash(&bytes)))
}
