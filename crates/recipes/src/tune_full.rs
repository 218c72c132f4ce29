//! Full fine-tuning of a run: the same loop as [`crate::tune`], with checkpoints of the model itself and a model folder as its result.

use std::path::Path;

use engine::cpu::CpuDevice;
use engine::memory::Policy;
use engine::trainer::Trainer;
use serde_json::{Value, json};
use store::RunFolder;
use store::checkpoint::{self, StateTensor, StateTensors};

use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::moments;
use crate::prepare::Prepared;
use crate::report::facts::TrainingFacts;
use crate::spec::{Keep, RunPlan};
use crate::tune::{Looker, Progress, Rows, Steps, trainer_config, training_facts, training_loop};

/// The folder of the trained model in a run.
pub(crate) const MODEL_FOLDER: &str = "model";
/// Its weights.
pub(crate) const MODEL_WEIGHTS: &str = "model/model.safetensors";
/// The files of a checkpoint: the tensors, and both of their moments.
const PARTS: [&str; 3] = [VALUES, "first", "second"];
const VALUES: &str = "model";

/// Trains and writes `model/`. Goes on from the last checkpoint of `run` if there is one.
pub(crate) fn tune(
    context: &Context<'_>,
    plan: &RunPlan,
    base: &Base,
    prepared: &Prepared,
    run: &RunFolder,
    policy: &Policy,
    observer: &mut dyn Observer,
) -> Result<TrainingFacts> {
    let rows = Rows::new(plan, prepared, base)?;
    let steps = Steps::of(&plan.tune, rows.train.rows().len());
    let full = base.full_config(plan)?;
    let trainable = full.parameters(base.config()) as u64;
    let uses = rows.uses(&plan.tune, policy.clone());
    let mut trainer = Trainer::full(base.load_trained(context.threads, &full)?, trainer_config(&plan.tune, &steps), &uses)?;
    let mut looker = Looker::new(plan, base, prepared, &rows, uses)?;
    let mut progress = Progress::default();
    if let Some(step) = checkpoint::last(run.path())? {
        progress = restore(&mut trainer, &checkpoint::folder(run.path(), step))?;
        progress.resumed += 1;
        // Killed between saving the best step and marking it: unmarked, it would be pruned.
        if checkpoint::steps(run.path())?.contains(&progress.best_step) {
            checkpoint::mark_best(run, progress.best_step)?;
        }
        observer.event(Event::Note(format!("going on after step {step} of {}", steps.total)));
    }
    let mut save_now = |trainer: &Trainer<CpuDevice>, progress: &Progress| save(trainer, progress, run);
    let ended = training_loop(context, plan, &rows, &steps, &mut trainer, &mut progress, &mut looker, run, &mut save_now, observer)?;

    let last = u64::from(trainer.step_count());
    let best = if plan.tune.keep == Keep::Best && progress.best_loss.is_some() { progress.best_step } else { last };
    if best != last {
        let kept = checkpoint::read_full(&checkpoint::folder(run.path(), best), &PARTS)?;
        for name in trainer.full_names() {
            trainer.set_full_tensor(name, &kept.tensor(VALUES, &name.to_string())?);
        }
    }
    let goal = if plan.project.goal.is_empty() { "BLANK" } else { &plan.project.goal };
    let readme = format!(
        "---\nbase_model: {}\nlibrary_name: transformers\n---\n\n# {}\n\nModel trained in full by Tunesmith. Goal: {goal}\n\nThe run's `manifest.json` says what it was made from.\n",
        base.name, plan.project.name
    );
    // Moments are given back before the weights are copied out.
    base.write_trained(&trainer.into_model(), &readme, &run.file(MODEL_FOLDER))?;
    let mut facts = training_facts(&progress, run, best, ended, trainable)?;
    facts.adapter_hash = format!("blake3:{}", weights_hash(&run.file(MODEL_WEIGHTS))?);
    run.write("training.json", format!("{:#}\n", json!(facts)).as_bytes())?;
    Ok(facts)
}

/// blake3 of the weights.
fn weights_hash(path: &Path) -> Result<blake3::Hash> {
    Ok(blake3::hash(&store::atomic::read(path, 1 << 40)?))
}

fn save(trainer: &Trainer<CpuDevice>, progress: &Progress, run: &RunFolder) -> Result<()> {
    let state = serde_json::to_value(progress).unwrap_or(Value::Null);
    let names = trainer.full_names();
    let mut tensors = |part: &str| -> StateTensors {
        let mut tensors = StateTensors::new();
        for &name in &names {
            let moment = PARTS[1..].iter().position(|moment| *moment == part);
            match moment {
                None => {
                    let values = trainer.full_tensor(name);
                    tensors.insert(name.to_string(), StateTensor::floats(vec![values.len()], &values));
                }
                Some(index) => {
                    let moment = trainer.full_moments(name).into_iter().nth(index).expect("there are two");
                    moments::insert(&mut tensors, name.to_string(), vec![moment.len()], moment);
                }
            }
        }
        tensors
    };
    checkpoint::write_full(run, u64::from(trainer.step_count()), &state, &PARTS, &mut tensors)?;
    Ok(())
}

fn restore(trainer: &mut Trainer<CpuDevice>, folder: &Path) -> Result<Progress> {
    let corrupt = |reason: String| Error::Corrupt { what: "the checkpoint", reason, path: folder.to_owned() };
    let saved = checkpoint::read_full(folder, &PARTS)?;
    let names = trainer.full_names();
    if saved.names(VALUES).len() != names.len() {
        return Err(corrupt(format!("{} tensors, {} are trained", saved.names(VALUES).len(), names.len())));
    }
    for name in names {
        let values = saved.tensor(VALUES, &name.to_string())?;
        let (rows, cols) = trainer.model().config().tensor_shape(name);
        if values.len() != rows * cols {
            return Err(corrupt(format!("{} numbers of {name}, expected {rows} x {cols}", values.len())));
        }
        trainer.set_full_tensor(name, &values);
        let moment = |part: &str| {
            let found = moments::find(|name| saved.state_tensor(part, name).ok().flatten(), &name.to_string());
            found.ok_or_else(|| corrupt(format!("it has no {part} moment of {name}")))
        };
        trainer.set_full_moments(name, &[moment(PARTS[1])?, moment(PARTS[2])?])?;
    }
    trainer.set_step_count(u32::try_from(saved.step).map_err(|error| corrupt(error.to_string()))?);
    serde_json::from_value(saved.state).map_err(|error| corrupt(error.to_string()))
}
