//! What PyTorch computed for a model, computed by the engine: logits, every gradient, ten steps.
//!
//! The question is a file of golden/models/make.py or of peers/parity.py: ids `[sequences, length]`, a loss weight for
//! each, and an adapter of alpha = 2 · rank to start from. The answers have the file's names, so that a test compares
//! what has the same name.

use std::{collections::BTreeMap, error::Error};

use engine::{
    adapter::{Adapter, LoraConfig, LoraPair, LoraTensors},
    batch::{Batch, LossEntry, PassLimits, Segment},
    config::{Linear, ModelConfig, TensorName},
    device::Device,
    full::FullConfig,
    memory::{GenerationUse, Policy, TrainingUse, Uses},
    model::{Model, PairOf, WeightSource},
    moments::MomentStorage,
    schedule::{Decay, Schedule},
    trainer::{Objective, OptimizerConfig, Trainer, TrainerConfig},
};

use crate::golden::{Golden, GoldenTensor};

/// PEFT's names of A, of B and of the magnitudes of a linear layer of a block: `families` knows them.
pub type Names<'a> = &'a dyn Fn(usize, Linear) -> [String; 3];

/// Optimiser steps whose losses the file has.
pub const STEPS: u32 = 10;

/// The engine's answers under the file's names: `base.logits`, `adapter.logits`, `adapter.grad.*` (of the mean
/// weighted loss at the start; with magnitudes where the file's start has them), `losses` (before each of the [`STEPS`]) and `adapter.end.*` (after them).
pub fn answers<D: Device>(
    device: D,
    config: &ModelConfig,
    weights: &dyn WeightSource,
    question: &Golden,
    names: Names<'_>,
) -> Result<BTreeMap<String, Vec<f64>>, Box<dyn Error>> {
    let records = Records::of(question);
    let batch = records.batch();
    let rows = batch.tokens.len();
    let start = start(config, question, names);
    let mut answers = BTreeMap::new();

    let mut model = Model::load(device, config.clone(), weights)?;
    answers.insert("base.logits".into(), logits(&mut model, &batch)?);
    model.attach(&start)?;
    answers.insert("adapter.logits".into(), logits(&mut model, &batch)?);

    let training = TrainingUse {
        pass: PassLimits::dense(rows),
        policy: Policy::Keep,
        several_passes: false,
        reduction_leaves: 1,
        micro_batches: 1,
        moments: MomentStorage::F32,
    };
    let mut trainer = Trainer::new(model, &start, trainer_config(), &Uses { training: Some(training), ..Uses::default() })?;
    let mut add = |kind: &str, (layer, linear), parts: [Vec<f64>; 3]| {
        let named = names(layer, linear).map(|name| format!("adapter.{kind}.{name}")).into_iter().zip(parts);
        answers.extend(named.filter(|(_, values)| !values.is_empty()));
    };
    for (place, PairOf { a, b, magnitude }) in trainer.gradients(&[batch])?.tensors {
        add("grad", place, [a, b, magnitude]);
    }
    let losses = (0..STEPS).map(|_| Ok(trainer.step(&[batch])?.loss)).collect::<Result<_, Box<dyn Error>>>()?;
    for (place, LoraPair { a, b, magnitude }) in trainer.adapter().tensors {
        add("end", place, [a, b, magnitude].map(|values| wide(&values)));
    }
    answers.insert("losses".into(), losses);
    Ok(answers)
}

/// What full fine-tuning of all tensors gives.
pub struct FullAnswers {
    /// The gradient of the mean weighted loss at the start, by tensor.
    pub gradients: BTreeMap<TensorName, Vec<f64>>,
    /// The loss before each of the [`STEPS`], matrices decaying by [`FULL_DECAY`].
    pub losses: Vec<f64>,
    /// Every tensor after them.
    pub end: BTreeMap<TensorName, Vec<f32>>,
}

/// The weight decay of golden/methods/make.py's full fine-tuning.
pub const FULL_DECAY: f32 = 0.1;

/// The engine's answers to a question without an adapter.
pub fn full_answers<D: Device>(
    device: D,
    config: &ModelConfig,
    weights: &dyn WeightSource,
    question: &Golden,
) -> Result<FullAnswers, Box<dyn Error>> {
    let records = Records::of(question);
    let batch = records.batch();
    let pass = PassLimits::dense(batch.tokens.len());
    let training = TrainingUse {
        pass,
        policy: Policy::Keep,
        several_passes: false,
        reduction_leaves: 1,
        micro_batches: 1,
        moments: MomentStorage::F32,
    };
    let model = Model::load_trained(device, config.clone(), weights, &FullConfig::all())?;
    let mut trainer_config = trainer_config();
    trainer_config.optimizer.weight_decay = FULL_DECAY;
    let mut trainer = Trainer::full(model, trainer_config, &Uses { training: Some(training), ..Uses::default() })?;
    let gradients = trainer.full_gradients(&[batch])?.tensors;
    let losses = (0..STEPS).map(|_| Ok(trainer.step(&[batch])?.loss)).collect::<Result<_, Box<dyn Error>>>()?;
    let end = trainer.full_names().into_iter().map(|name| (name, trainer.full_tensor(name))).collect();
    Ok(FullAnswers { gradients, losses, end })
}

/// Logits of the file's ids with some other adapter.
pub fn adapter_logits<D: Device>(
    device: D,
    config: &ModelConfig,
    weights: &dyn WeightSource,
    question: &Golden,
    adapter: &Adapter,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut model = Model::load(device, config.clone(), weights)?;
    model.attach(adapter)?;
    logits(&mut model, &Records::of(question).batch())
}

/// Logits of every row.
fn logits<D: Device>(model: &mut Model<D>, batch: &Batch<'_>) -> Result<Vec<f64>, Box<dyn Error>> {
    let rows = batch.tokens.len();
    let generation = GenerationUse { rows, sequences: rows, cache_rows: rows };
    model.reserve(&Uses { generation: Some(generation), ..Uses::default() })?;
    Ok(wide(&model.logits(batch, &(0..rows as u32).collect::<Vec<_>>())?))
}

/// Largest |actual − expected| over the largest |expected|: how far whole tensors are apart at their worst element.
pub fn max_difference(actual: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len(), "lengths");
    let largest =
        |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |most: f64, x| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) });
    largest(&mut actual.iter().zip(expected).map(|(a, e)| a - e)) / largest(&mut expected.iter().copied())
}

/// Norm of actual − expected over the norm of expected.
pub fn norm_difference(actual: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len(), "lengths");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut actual.iter().zip(expected).map(|(a, e)| a - e)) / norm(&mut expected.iter().copied())
}

/// The file's sequences as a batch that owns its parts, each sequence a segment without a parent.
struct Records {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
    entries: Vec<LossEntry>,
}

impl Records {
    fn of(question: &Golden) -> Records {
        let ids = question.tensor("ids");
        let (sequences, length) = (ids.shape[0], ids.shape[1]);
        let tokens = ids.ids();
        let weights = question.tensors.get("loss_weights").map_or_else(|| vec![0.0; tokens.len()], |weights| weights.f32());
        let counts = |row: &usize| !row.is_multiple_of(length) && weights[*row] != 0.0;
        let entry = |row| LossEntry { row: row as u32 - 1, target: tokens[row], weight: weights[row], sequence: (row / length) as u32 };
        Records {
            positions: (0..tokens.len()).map(|row| (row % length) as u32).collect(),
            segments: (0..sequences).map(|s| Segment { rows: s * length..(s + 1) * length, parent: None }).collect(),
            entries: (0..tokens.len()).filter(counts).map(entry).collect(),
            tokens,
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            tokens: &self.tokens,
            positions: &self.positions,
            draw_keys: &[],
            segments: &self.segments,
            passes: &[],
            entries: &self.entries,
        }
    }
}

/// The adapter that the file starts from, on every linear layer (one on all layers that are fused).
fn start(config: &ModelConfig, question: &Golden, names: Names<'_>) -> Adapter {
    let places = (0..config.layers).flat_map(|layer| config.adapter_linears().into_iter().map(move |linear| (layer, linear)));
    let tensors: LoraTensors = places
        .map(|(layer, linear)| {
            let [a, b, magnitude] = names(layer, linear)
                .map(|name| question.tensors.get(&format!("adapter.start.{name}")).map(GoldenTensor::f32).unwrap_or_default());
            ((layer, linear), LoraPair { a, b, magnitude })
        })
        .collect();
    let rank = tensors[&(0, Linear::Query)].a.len() / config.hidden;
    let dora = !tensors[&(0, Linear::Query)].magnitude.is_empty();
    let lora = LoraConfig {
        rank,
        alpha: 2.0 * rank as f32,
        rslora: false,
        dropout: 0.0,
        dora,
        pissa: false,
        targets: Linear::ALL.to_vec(),
        layers: None,
    };
    Adapter { config: lora, tensors, start: LoraTensors::new() }
}

/// The scripts' optimiser: AdamW at 1e-3, no decay, no clipping.
fn trainer_config() -> TrainerConfig {
    TrainerConfig {
        optimizer: OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, max_norm: None, lora_plus_ratio: 1.0 },
        schedule: Schedule { peak: 1e-3, warmup_steps: 0, total_steps: STEPS, decay: Decay::Constant },
        objective: Objective::Sft,
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
