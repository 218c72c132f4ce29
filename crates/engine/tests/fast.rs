//! The fast path and the types of the cache: near the exact path, and as indifferent to neighbours and threads.

mod common;

use common::*;
use engine::{
    batch::PassLimits,
    compute::{Compute, ComputePath, KvType},
    cpu::CpuDevice,
    device::{Device, Storage},
    generate::{Completion, Flow, Prompt, Sampling},
    memory::{GenerationUse, Policy, ScoringUse, Uses},
    model::Model,
};
use testkit::{ReferenceDevice, TinyModel};

const FAST: Compute = Compute { path: ComputePath::Fast, kv: KvType::F32 };

/// Whose rows are whole blocks everywhere.
fn tiny(mut tiny: TinyModel, storage: Storage) -> TinyModel {
    tiny.config.intermediate = 64;
    tiny.storage = storage;
    tiny
}

fn asked<D: Device>(device: D, tiny: &TinyModel, compute: Compute) -> Model<D> {
    let mut model = model(device, tiny);
    model.attach(&warm_adapter(&lora(), &tiny.config, 3)).expect("the same model");
    let pass = PassLimits { entries: 256, ..PassLimits::dense(128) };
    let generation = GenerationUse { rows: 32, sequences: 3, cache_rows: 200 };
    model
        .reserve(&Uses { scoring: Some(ScoringUse { pass, prefix: 0 }), generation: Some(generation), compute, ..Uses::default() })
        .expect("memory");
    model
}

fn sequence(seed: u64, length: u64) -> Vec<u32> {
    (0..length).map(|i| draw(seed, i, 61) as u32).collect()
}

fn generate<D: Device>(model: &mut Model<D>, prompts: &[Vec<u32>]) -> Vec<Completion> {
    let prompts: Vec<Prompt<'_>> = prompts.iter().map(|tokens| Prompt { tokens, max_new: 9, stop: &[], draw_key: 0 }).collect();
    model.generate(&prompts, &Sampling::GREEDY, |_| Flow::Continue).expect("sound prompts")
}

/// ln p of each token but the first.
fn scored<D: Device>(model: &mut Model<D>, tokens: &[u32]) -> Vec<f64> {
    let weights = (0..tokens.len()).map(|i| if i > 0 { 1.0 } else { 0.0 }).collect();
    let batch = unshared(&[Record { tokens: tokens.to_vec(), weights }]);
    model.log_probs_exact(&batch.borrow(), 0).expect("a sound batch")
}

fn far(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
}

/// The rows are rounded much as Q8_0 rounds weights, to eight bits, under one scale for 16 elements and not 32: what that moves is of the size of
/// what rounding the weights so moves. (These models' random weights amplify both far more than a trained model's do.)
#[test]
fn fast_is_as_near_exact_as_eight_bits_are_and_not_exact() {
    for model in [TinyModel::llama(5), TinyModel::gemma(6), TinyModel::biased(7)] {
        let tokens = sequence(1, 100);
        let scores = |storage, compute| scored(&mut asked(CpuDevice::new(2), &tiny(model.clone(), storage), compute), &tokens);
        let exact = scores(Storage::Q8_0, Compute::default());
        let of_weights = far(&scores(Storage::F32, Compute::default()), &exact);
        for storage in [Storage::Q8_0, Storage::Q4_1, Storage::Q5_0] {
            let distance = far(&scores(storage, Compute::default()), &scores(storage, FAST));
            assert!(distance > 0.0 && distance < 2.0 * of_weights, "{storage:?}: {distance}, of weights {of_weights}");
        }
    }
}

#[test]
fn answers_on_the_fast_path_depend_on_nothing_but_their_prompt() {
    let tiny = tiny(TinyModel::llama(5), Storage::Q4_0);
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| [sequence(40, 6), sequence(50 + i, 2 + 3 * i)].concat()).collect();
    for kv in KvType::ALL {
        let compute = Compute { kv, ..FAST };
        let together = generate(&mut asked(CpuDevice::new(1), &tiny, compute), &prompts);
        for threads in [2, 3] {
            assert_eq!(generate(&mut asked(CpuDevice::new(threads), &tiny, compute), &prompts), together, "{threads} threads");
        }
        let mut model = asked(CpuDevice::new(2), &tiny, compute);
        for (prompt, want) in prompts.iter().zip(&together) {
            assert_eq!(&generate(&mut model, std::slice::from_ref(prompt))[0], want);
        }
        for &level in engine::cpu::Level::available() {
            assert_eq!(generate(&mut asked(CpuDevice::with_level(2, level), &tiny, compute), &prompts), together, "{level:?}");
        }
    }
}

/// Scoring and generation are one path: what is scored is what was drawn from.
#[test]
fn scores_on_the_fast_path_are_those_of_generation() {
    let tiny = tiny(TinyModel::llama(8), Storage::Q8_0);
    let mut model = asked(CpuDevice::new(2), &tiny, FAST);
    let prompt = sequence(3, 20);
    let said = generate(&mut model, std::slice::from_ref(&prompt)).remove(0);
    let scores = scored(&mut model, &[&prompt[..], &said.tokens].concat());
    let sum: f64 = scores[prompt.len() - 1..].iter().sum();
    assert!((sum - said.log_prob).abs() < 1e-4, "{sum}, not {}", said.log_prob);
}

fn caches_stay_near<D: Device>(device: impl Fn() -> D) {
    for model in [TinyModel::llama(5), TinyModel::gemma(6), TinyModel::windowed(7)] {
        let tiny = tiny(model, Storage::F32);
        let prompts: Vec<Vec<u32>> = (0..4).map(|i| sequence(60 + i, 30)).collect();
        let one_each: Vec<Prompt<'_>> = prompts.iter().map(|tokens| Prompt { tokens, max_new: 1, stop: &[], draw_key: 0 }).collect();
        let mut first = None;
        for kv in KvType::ALL {
            let mut model = asked(device(), &tiny, Compute { kv, ..Compute::default() });
            let said = model.generate(&one_each, &Sampling::GREEDY, |_| Flow::Continue).expect("sound prompts");
            let sums: Vec<f64> = said.iter().map(|said| said.log_prob).collect();
            let want = first.get_or_insert_with(|| sums.clone());
            assert!(far(want, &sums) < 0.05, "{kv:?}: {sums:?}, not {want:?}");
        }
    }
}

#[test]
fn caches_stay_near_on_both_devices() {
    caches_stay_near(|| CpuDevice::new(2));
    caches_stay_near(ReferenceDevice::new);
}

#[test]
fn smaller_types_take_less_memory_and_all_of_it_is_planned() {
    let tiny = tiny(TinyModel::llama(5), Storage::Q8_0);
    let mut sizes = Vec::new();
    for kv in KvType::ALL {
        let model = asked(CpuDevice::new(2), &tiny, Compute { kv, ..FAST });
        let plan = model.memory();
        assert_eq!(model.device().bytes(), plan.total_bytes() - plan.host_bytes());
        let cache: usize =
            plan.activations.iter().filter(|entry| entry.name.starts_with("generation.cache")).map(|entry| entry.bytes).sum();
        sizes.push(cache);
    }
    let rows = 2 * 3 * 200 * 4;
    assert_eq!(sizes, KvType::ALL.map(|kv| rows * kv.row_len(2, 8)));
}

#[test]
fn training_is_exact_whatever_is_asked_for() {
    let tiny = tiny(TinyModel::llama(9), Storage::Q8_0);
    let records: Vec<Record> = (0..3).map(|i| Record { tokens: sequence(20 + i, 12), weights: vec![1.0; 12] }).collect();
    let losses = [Compute::default(), Compute { kv: KvType::Int8, ..FAST }].map(|compute| {
        let start = warm_adapter(&lora(), &tiny.config, 3);
        let uses = Uses { compute, ..uses(128, Policy::Keep) };
        let mut trainer =
            engine::trainer::Trainer::new(model(CpuDevice::new(2), &tiny), &start, trainer_config(), &uses).expect("a sound trainer");
        let batch = unshared(&records);
        let losses: Vec<f64> = (0..3).map(|_| trainer.step(&[batch.borrow()]).expect("a sound batch").loss).collect();
        (losses, trainer.model().adapter().expect("attached").tensors)
    });
    assert!(losses[0] == losses[1]);
}
