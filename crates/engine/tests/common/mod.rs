//! What the engine's tests share: random records, batches that own themselves, models on any device.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use engine::{
    adapter::{Adapter, LoraConfig},
    batch::{Batch, LossEntry, PassLimits, Segment},
    config::{Linear, ModelConfig},
    device::Device,
    memory::{Policy, ScoringUse, TrainingUse, Uses},
    model::Model,
    moments::MomentStorage,
    random::{self, Purpose},
    schedule::{Decay, Schedule},
    trainer::{Objective, OptimizerConfig, Trainer, TrainerConfig},
    trie::Trie,
};
use testkit::TinyModel;

/// Numbers for tests: draw `i` below `below` under `seed`.
pub fn draw(seed: u64, i: u64, below: u64) -> u64 {
    random::bits(random::key(seed, Purpose::Test, &[77]), i) % below
}

/// A batch that owns its parts.
#[derive(Clone, Debug, Default)]
pub struct OwnedBatch {
    pub tokens: Vec<u32>,
    pub positions: Vec<u32>,
    pub draw_keys: Vec<u64>,
    pub segments: Vec<Segment>,
    pub passes: Vec<std::ops::Range<usize>>,
    pub entries: Vec<LossEntry>,
}

impl OwnedBatch {
    pub fn borrow(&self) -> Batch<'_> {
        Batch {
            tokens: &self.tokens,
            positions: &self.positions,
            draw_keys: &self.draw_keys,
            segments: &self.segments,
            passes: &self.passes,
            entries: &self.entries,
        }
    }

    /// The same rows in several passes: first the segments that others continue, then `segments` leaves at a time.
    pub fn in_passes(&self, leaves: usize) -> OwnedBatch {
        let continued = |i: usize| self.segments.iter().any(|other| other.parent == Some(i));
        let (kept, own): (Vec<usize>, Vec<usize>) = (0..self.segments.len()).partition(|&i| continued(i));
        let (mut rows, mut batch) = (Vec::new(), OwnedBatch::default());
        for pass in std::iter::once(kept.as_slice()).chain(own.chunks(leaves)) {
            let start = rows.len();
            for &i in pass {
                let begin = rows.len();
                rows.extend(self.segments[i].rows.clone());
                let parent = self.segments[i].parent.map(|parent| kept.iter().position(|&k| k == parent).expect("a parent is kept"));
                batch.segments.push(Segment { rows: begin..rows.len(), parent });
            }
            batch.passes.push(start..rows.len());
        }
        for (place, &row) in rows.iter().enumerate() {
            batch.tokens.push(self.tokens[row]);
            batch.positions.push(self.positions[row]);
            batch.draw_keys.push(self.draw_keys[row]);
            let of_row = self.entries.iter().filter(|entry| entry.row as usize == row);
            batch.entries.extend(of_row.map(|entry| LossEntry { row: place as u32, ..*entry }));
        }
        batch
    }
}

/// A record: tokens, and the weight of each as a target (the first is never one).
#[derive(Clone, Debug)]
pub struct Record {
    pub tokens: Vec<u32>,
    pub weights: Vec<f32>,
}

/// Random records that often begin alike; about half of the tokens carry loss, some of it weighted.
pub fn records(seed: u64, count: usize, vocab: usize) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for r in 0..count as u64 {
        let d = |i: u64, below: u64| draw(seed, 1000 * r + i, below);
        let mut tokens = Vec::new();
        if r > 0 && d(0, 4) > 0 {
            let other = &records[d(1, r) as usize].tokens;
            tokens.extend_from_slice(&other[..1 + d(2, other.len() as u64) as usize]);
        }
        let length = tokens.len() as u64 + 1 + u64::from(tokens.is_empty()) + d(3, 7);
        tokens.extend((tokens.len() as u64..length).map(|i| d(10 + i, vocab as u64) as u32));
        let weights =
            (0..length).map(|i| if i > 0 && (d(200 + i, 2) == 0 || i + 1 == length) { 0.5 + d(400 + i, 4) as f32 * 0.25 } else { 0.0 });
        let weights = weights.collect();
        records.push(Record { tokens, weights });
    }
    records
}

/// Each record on its own.
pub fn unshared(records: &[Record]) -> OwnedBatch {
    let mut batch = OwnedBatch::default();
    for (sequence, record) in records.iter().enumerate() {
        let first = batch.tokens.len();
        batch.tokens.extend_from_slice(&record.tokens);
        batch.positions.extend(0..record.tokens.len() as u32);
        batch.draw_keys.extend((0..record.tokens.len()).map(|i| random::draw_key(3, Purpose::Dropout, 0, sequence as u64, i as u32)));
        batch.segments.push(Segment { rows: first..batch.tokens.len(), parent: None });
        for i in (1..record.tokens.len()).filter(|&i| record.weights[i] != 0.0) {
            batch.entries.push(LossEntry {
                row: (first + i - 1) as u32,
                target: record.tokens[i],
                weight: record.weights[i],
                sequence: sequence as u32,
            });
        }
    }
    batch
}

/// The same records with common beginnings computed once.
pub fn shared(records: &[Record], min_shared: usize, max_depth: usize) -> OwnedBatch {
    let sequences: Vec<&[u32]> = records.iter().map(|r| r.tokens.as_slice()).collect();
    let trie = Trie::build(&sequences, min_shared, max_depth);
    let mut entries = Vec::new();
    for (sequence, record) in records.iter().enumerate() {
        for i in (1..record.tokens.len()).filter(|&i| record.weights[i] != 0.0) {
            entries.push(LossEntry {
                row: trie.rows[sequence][i - 1],
                target: record.tokens[i],
                weight: record.weights[i],
                sequence: sequence as u32,
            });
        }
    }
    entries.sort_by_key(|e| e.row);
    let keys = (0..trie.tokens.len()).map(|row| random::draw_key(3, Purpose::Dropout, 0, 99, row as u32)).collect();
    OwnedBatch { tokens: trie.tokens, positions: trie.positions, draw_keys: keys, segments: trie.segments, passes: Vec::new(), entries }
}

/// Rank 3 on everything.
pub fn lora() -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, rslora: false, dropout: 0.0, dora: false, pissa: false, targets: Linear::ALL.to_vec(), layers: None }
}

/// An adapter whose B is not zero, as after some training; magnitudes are anything, and so is where it started.
pub fn warm_adapter(lora: &LoraConfig, config: &ModelConfig, seed: u64) -> Adapter {
    let warm = |seed| {
        let mut adapter = Adapter::init(lora, config, seed).expect("a sound adapter");
        for (i, (&(_, linear), pair)) in adapter.tensors.iter_mut().enumerate() {
            let draw = |purpose, j: usize| random::uniform(random::key(seed, Purpose::Test, &[purpose, i as u64]), j as u64);
            pair.b.iter_mut().enumerate().for_each(|(j, b)| *b = 0.3 * (draw(0, j) - 0.5));
            if lora.dora {
                pair.magnitude = (0..config.adapter_shape(linear).0).map(|j| 0.5 + 2.0 * draw(1, j)).collect();
            }
        }
        adapter
    };
    let mut adapter = warm(seed);
    if lora.pissa {
        adapter.start = warm(seed + 1).tensors;
    }
    adapter
}

/// A learning rate of 1e-2, no warm-up, PyTorch's AdamW.
pub fn trainer_config() -> TrainerConfig {
    TrainerConfig {
        optimizer: OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_norm: Some(1.0), lora_plus_ratio: 1.0 },
        schedule: Schedule { peak: 1e-2, warmup_steps: 0, total_steps: 100, decay: Decay::Constant },
        objective: Objective::Sft,
    }
}

/// Training and scoring of up to `rows` rows.
pub fn uses(rows: usize, policy: Policy) -> Uses {
    let pass = PassLimits { entries: 2 * rows, ..PassLimits::dense(rows) };
    Uses {
        training: Some(TrainingUse {
            pass,
            policy,
            several_passes: false,
            reduction_leaves: 4,
            micro_batches: 16,
            moments: MomentStorage::F32,
        }),
        scoring: Some(ScoringUse { pass, prefix: 0 }),
        ..Uses::default()
    }
}

pub fn model<D: Device>(device: D, tiny: &TinyModel) -> Model<D> {
    Model::load(device, tiny.config.clone(), tiny).expect("a sound model")
}

/// The same with every moment in 8 bits.
pub fn uses_8bit(rows: usize, policy: Policy) -> Uses {
    let mut uses = uses(rows, policy);
    uses.training.as_mut().expect("a use of training").moments = MomentStorage::EightBit { len_min: 1 };
    uses
}

pub fn trainer<D: Device>(device: D, tiny: &TinyModel, adapter: &Adapter, policy: Policy) -> Trainer<D> {
    Trainer::new(model(device, tiny), adapter, trainer_config(), &uses(128, policy)).expect("a sound trainer")
}

/// A test of each function on a device, in a module of its own.
#[macro_export]
macro_rules! on_devices {
    ($device:ident, $new:expr; $($name:ident),* $(,)?) => {
        mod $device {
            use super::*;
            $(#[test] fn $name() { super::$name($new) })*
        }
    };
}
