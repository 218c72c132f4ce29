//! Full fine-tuning: gradients of every tensor against differences, on both devices, tied and untied; freezing; resuming.

mod common;

use std::collections::BTreeMap;

use common::*;
use engine::{
    EngineError,
    block::{Activation, ActivationSet},
    config::{Linear, TensorName},
    cpu::CpuDevice,
    device::{Device, Storage},
    full::FullConfig,
    memory::{self, GenerationUse, Policy, Uses},
    model::Model,
    moments::Moment,
    trainer::{FullGradients, Trainer},
};
use kernels::simd::Level;
use testkit::{ReferenceDevice, TinyModel, Tolerance};

fn full_trainer<D: Device>(device: D, tiny: &TinyModel, full: &FullConfig, policy: Policy) -> Trainer<D> {
    let model = Model::load_trained(device, tiny.config.clone(), tiny, full).expect("a sound model");
    Trainer::full(model, trainer_config(), &uses(128, policy)).expect("a sound trainer")
}

fn gradients<D: Device>(device: D, tiny: &TinyModel, full: &FullConfig, policy: Policy, batches: &[OwnedBatch]) -> FullGradients {
    let batches: Vec<_> = batches.iter().map(OwnedBatch::borrow).collect();
    full_trainer(device, tiny, full, policy).full_gradients(&batches).expect("sound batches")
}

fn small(mut tiny: TinyModel, layers: usize) -> TinyModel {
    tiny.config.layers = layers;
    tiny.config.attention.truncate(layers);
    tiny
}

/// Some elements of every trained tensor against (loss(p + ε) − loss(p − ε)) / 2ε: of the large ones every so many.
fn check_against_differences(tiny: &TinyModel, full: &FullConfig, policy: Policy, seed: u64) {
    const STEP: f32 = 1.0 / 32768.0;
    let batch = shared(&records(seed, 3, tiny.config.vocab), 1, 16);
    let mut trainer = full_trainer(ReferenceDevice::new(), tiny, full, policy);
    let gradients = trainer.full_gradients(&[batch.borrow()]).expect("a sound batch");
    assert_eq!(gradients.tensors.keys().copied().collect::<Vec<_>>(), {
        let mut names = full.names(&tiny.config);
        names.sort_unstable();
        names
    });
    for (&name, gradient) in &gradients.tensors {
        let values = trainer.full_tensor(name);
        assert_eq!(values.len(), gradient.len(), "{name}");
        let bound = 1e-6 * gradient.iter().fold(1e-3, |largest: f64, g| largest.max(g.abs()));
        for i in (0..values.len()).step_by(values.len() / 25 + 1) {
            let mut at = |value: f32| {
                let mut moved = values.clone();
                moved[i] = value;
                trainer.set_full_tensor(name, &moved);
                trainer.evaluate_loss(&[batch.borrow()]).expect("a sound batch")
            };
            let (up, down) = (values[i] + STEP, values[i] - STEP);
            let expected = (at(up) - at(down)) / (f64::from(up) - f64::from(down));
            let g = gradient[i];
            assert!((g - expected).abs() <= bound, "{name}[{i}]: gradient {g}, difference quotient {expected}, {bound:e} allowed");
        }
        trainer.set_full_tensor(name, &values);
    }
}

#[test]
fn a_tied_embedding_gets_its_gradient_from_both_ends() {
    check_against_differences(&small(TinyModel::llama(1), 2), &FullConfig::all(), Policy::Keep, 11);
}

#[test]
fn gains_caps_and_scaled_embeddings_match_differences() {
    check_against_differences(&small(TinyModel::gemma(2), 2), &FullConfig::all(), Policy::Recompute, 12);
}

#[test]
fn biases_and_an_untied_head_match_differences() {
    check_against_differences(&small(TinyModel::biased(3), 2), &FullConfig::all(), Policy::Keep, 13);
}

#[test]
fn fused_layers_and_windows_match_differences() {
    check_against_differences(&small(TinyModel::fused(4), 2), &FullConfig::all(), Policy::Recompute, 14);
    check_against_differences(&small(TinyModel::windowed(5), 2), &FullConfig::all(), Policy::Keep, 15);
}

/// What is left unfrozen.
fn patterns() -> Vec<FullConfig> {
    let none = FullConfig { layers: None, targets: Vec::new(), biases: false, norms: false, embeddings: false };
    vec![
        FullConfig { layers: Some(vec![2]), targets: vec![Linear::Down], ..none.clone() },
        FullConfig { layers: Some(vec![1]), targets: vec![Linear::Value, Linear::Gate], biases: true, ..none.clone() },
        FullConfig { layers: Some(vec![1, 2]), norms: true, ..none.clone() },
        FullConfig { embeddings: true, ..none.clone() },
        FullConfig { layers: Some(vec![0, 2]), embeddings: false, ..FullConfig::all() },
        FullConfig { layers: Some(vec![2]), targets: vec![Linear::Query], ..none.clone() },
        FullConfig { layers: Some(vec![2]), targets: vec![Linear::Key, Linear::Output], norms: true, ..none },
    ]
}

#[test]
fn frozen_parts_match_differences() {
    for (i, full) in patterns().into_iter().enumerate() {
        let policy = if i % 2 == 0 { Policy::Keep } else { Policy::Recompute };
        for tiny in [TinyModel::biased(6), TinyModel::gemma(6)] {
            check_against_differences(&tiny, &full, policy.clone(), 16);
        }
    }
}

fn compare(actual: &FullGradients, expected: &FullGradients, tolerance: Tolerance) {
    tolerance.check("loss", &[actual.loss], &[expected.loss]);
    assert_eq!(actual.tensors.len(), expected.tensors.len());
    for (name, gradient) in &expected.tensors {
        tolerance.check(&format!("gradient of {name}"), &actual.tensors[name], gradient);
    }
}

const KINDS: [fn(u64) -> TinyModel; 5] = [TinyModel::llama, TinyModel::windowed, TinyModel::gemma, TinyModel::biased, TinyModel::fused];

#[test]
fn the_cpu_agrees_with_the_reference() {
    for (storage, kind) in [Storage::F32, Storage::Bf16].into_iter().flat_map(|storage| KINDS.map(|kind| (storage, kind))) {
        let tiny = TinyModel { storage, ..kind(8) };
        let batches: Vec<OwnedBatch> = (0..3).map(|i| shared(&records(32 + i, 6, tiny.config.vocab), 1, 16)).collect();
        let of = |device| gradients(device, &tiny, &FullConfig::all(), Policy::Keep, &batches);
        let expected = gradients(ReferenceDevice::new(), &tiny, &FullConfig::all(), Policy::Keep, &batches);
        // As with adapters: rounding grows through three sharp layers.
        compare(&of(CpuDevice::new(2)), &expected, Tolerance::f32().times(5.0));
    }
}

/// What records share is computed once, with the gradients of computing it for each.
#[test]
fn sharing_and_splitting_change_nothing() {
    for (seed, kind) in (20..).zip(KINDS) {
        let tiny = kind(seed);
        let records = records(seed, 6, tiny.config.vocab);
        let of = |batches: &[OwnedBatch]| gradients(ReferenceDevice::new(), &tiny, &FullConfig::all(), Policy::Keep, batches);
        let alone = of(&[unshared(&records)]);
        compare(&of(&[shared(&records, 1, 16)]), &alone, Tolerance::f64());
        let split: Vec<OwnedBatch> = records.chunks(2).map(unshared).collect();
        compare(&of(&split), &alone, Tolerance::f64());
    }
}

#[test]
fn policies_are_bit_equal() {
    for (full, kind) in patterns().into_iter().chain([FullConfig::all()]).zip(KINDS.into_iter().cycle()) {
        let tiny = kind(7);
        let batch = [shared(&records(31, 5, tiny.config.vocab), 1, 16)];
        let keep = gradients(CpuDevice::new(2), &tiny, &full, Policy::Keep, &batch);
        assert_eq!(gradients(CpuDevice::new(2), &tiny, &full, Policy::Recompute, &batch), keep);
        for seed in 0..4 {
            let random_set = |layer: u64| {
                let chosen: Vec<Activation> =
                    Activation::ALL.into_iter().filter(|a| draw(seed, 100 * layer + a.index() as u64, 2) == 0).collect();
                ActivationSet::of(&chosen)
            };
            let policy = Policy::Custom((0..3).map(random_set).collect());
            assert_eq!(gradients(CpuDevice::new(2), &tiny, &full, policy, &batch), keep, "policy {seed}");
        }
    }
}

/// Values and moments of everything that is trained.
fn state<D: Device>(trainer: &Trainer<D>) -> BTreeMap<TensorName, (Vec<f32>, [Moment; 2])> {
    let of = |&name: &TensorName| (name, (trainer.full_tensor(name), trainer.full_moments(name)));
    trainer.full_names().iter().map(of).collect()
}

fn step<D: Device>(trainer: &mut Trainer<D>, tiny: &TinyModel, step: u64) -> f64 {
    let batches: Vec<OwnedBatch> = (0..3).map(|i| shared(&records(1000 + 10 * step + i, 4, tiny.config.vocab), 1, 16)).collect();
    trainer.step(&batches.iter().map(OwnedBatch::borrow).collect::<Vec<_>>()).expect("a sound step").loss
}

#[test]
fn bits_are_equal_at_any_thread_count_and_level() {
    for kind in KINDS {
        let tiny = kind(11);
        let states = [(1, Level::detect()), (2, Level::detect()), (7, Level::detect()), (2, Level::Portable)].map(|(threads, level)| {
            let mut trainer = full_trainer(CpuDevice::with_level(threads, level), &tiny, &FullConfig::all(), Policy::Keep);
            let losses: Vec<f64> = (0..2).map(|i| step(&mut trainer, &tiny, i)).collect();
            (losses, state(&trainer))
        });
        assert!(states.iter().all(|state| *state == states[0]));
    }
}

#[test]
fn interrupted_and_resumed_is_uninterrupted_bit_for_bit() {
    for uses in [uses, uses_8bit] {
        let tiny = TinyModel::biased(1);
        let full = FullConfig { layers: Some(vec![1, 2]), ..FullConfig::all() };
        let full_trainer = |device, policy| {
            let model = Model::load_trained(device, tiny.config.clone(), &tiny, &full).expect("a sound model");
            Trainer::full(model, trainer_config(), &uses(128, policy)).expect("a sound trainer")
        };
        let mut whole = full_trainer(CpuDevice::new(2), Policy::Keep);
        let losses: Vec<f64> = (0..4).map(|i| step(&mut whole, &tiny, i)).collect();
        let mut first = full_trainer(CpuDevice::new(2), Policy::Keep);
        for i in 0..2 {
            step(&mut first, &tiny, i);
        }
        let kept = state(&first);
        drop(first);
        let mut second = full_trainer(CpuDevice::with_level(1, Level::Portable), Policy::Recompute);
        for (name, (values, moments)) in &kept {
            second.set_full_tensor(*name, values);
            second.set_full_moments(*name, moments).expect("moments of the same tensor");
        }
        second.set_step_count(2);
        assert_eq!((2..4).map(|i| step(&mut second, &tiny, i)).collect::<Vec<_>>(), losses[2..]);
        assert_eq!(state(&second), state(&whole));
    }
}

/// Frozen tensors keep their bits, trained ones move, and the tied head stays the embedding.
#[test]
fn only_what_is_trained_moves() {
    for full in patterns() {
        let tiny = TinyModel::gemma(9);
        let mut trainer = full_trainer(CpuDevice::new(2), &tiny, &full, Policy::Keep);
        let names = tiny.config.tensor_names();
        let all = |trainer: &mut Trainer<CpuDevice>| names.iter().map(|&name| trainer.model().tensor_values(name)).collect::<Vec<_>>();
        let before = all(&mut trainer);
        step(&mut trainer, &tiny, 0);
        for ((name, before), after) in names.iter().zip(before).zip(all(&mut trainer)) {
            assert_eq!(before != after, full.trains(*name), "{name}");
        }
    }
}

/// Gains and biases do not decay, matrices do.
#[test]
fn decay_is_for_matrices() {
    let tiny = TinyModel::biased(10);
    let after = |weight_decay| {
        let model = Model::load_trained(CpuDevice::new(2), tiny.config.clone(), &tiny, &FullConfig::all()).expect("a sound model");
        let mut config = trainer_config();
        config.optimizer.weight_decay = weight_decay;
        let mut trainer = Trainer::full(model, config, &uses(128, Policy::Keep)).expect("a sound trainer");
        step(&mut trainer, &tiny, 0);
        state(&trainer)
    };
    let (without, with) = (after(0.0), after(0.5));
    for (name, (values, _)) in &without {
        assert_eq!(with[name].0 != *values, !name.is_vector(), "{name}");
    }
}

fn one_batch_is_learned_by_heart<D: Device>(device: D) {
    let tiny = small(TinyModel::llama(2), 2);
    let mut trainer = full_trainer(device, &tiny, &FullConfig::all(), Policy::Keep);
    let records: Vec<Record> = (0..4)
        .map(|r| Record {
            tokens: (0..6).map(|i| ((7 * r + 11 * i * i + i) % 61) as u32).collect(),
            weights: vec![0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        })
        .collect();
    let batch = unshared(&records);
    let mut loss = || trainer.step(&[batch.borrow()]).expect("a sound step").loss;
    let first = loss();
    let last = (0..40).map(|_| loss()).last().expect("steps");
    assert!(first > 2.0 && last < 0.1, "from {first} to {last}");
}

#[test]
fn moments_in_8_bits_learn_as_those_in_f32_do() {
    let run = |uses: fn(usize, Policy) -> Uses| {
        let tiny = small(TinyModel::llama(4), 2);
        let model = Model::load_trained(CpuDevice::new(2), tiny.config.clone(), &tiny, &FullConfig::all()).expect("a sound model");
        let mut trainer = Trainer::full(model, trainer_config(), &uses(128, Policy::Keep)).expect("a sound trainer");
        let losses: Vec<f64> = (0..20).map(|i| step(&mut trainer, &tiny, i % 4)).collect();
        let bytes = trainer.model().device().bytes();
        (losses, bytes)
    };
    let ((exact, f32_bytes), (rounded, bytes)) = (run(uses), run(uses_8bit));
    assert_eq!(exact[..2], rounded[..2], "moments are rounded after the step");
    for (step, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        assert!((exact - rounded).abs() < 0.02 * exact, "step {step}: {rounded} against {exact}");
    }
    assert!(exact[19] < 0.7 * exact[0] && bytes < f32_bytes, "{exact:?}, {bytes} of {f32_bytes} bytes");
}

#[test]
fn one_batch_is_learned() {
    one_batch_is_learned_by_heart(CpuDevice::new(2));
    one_batch_is_learned_by_heart(ReferenceDevice::new());
}

/// The processor's device holds what was planned for it, to the byte, also after it has worked.
#[test]
fn the_cpu_holds_what_was_planned() {
    for (full, kind) in patterns().into_iter().chain([FullConfig::all()]).zip(KINDS.into_iter().cycle()) {
        for policy in [Policy::Keep, Policy::Recompute] {
            let tiny = kind(11);
            let of = if full.norms { uses } else { uses_8bit };
            let mut uses: Uses = of(128, policy.clone());
            uses.generation = Some(GenerationUse { rows: 32, sequences: 3, cache_rows: 90 });
            let planned = memory::plan_full(&CpuDevice::new(2), &tiny.config, |_| Storage::F32, &full, &uses);
            let model = Model::load_trained(CpuDevice::new(2), tiny.config.clone(), &tiny, &full).expect("a sound model");
            let mut trainer = Trainer::full(model, trainer_config(), &uses).expect("a sound trainer");
            step(&mut trainer, &tiny, 0);
            assert_eq!(trainer.model().memory(), planned);
            assert_eq!(trainer.model().device().bytes() + planned.host_bytes(), planned.total_bytes());
        }
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let tiny = TinyModel { storage: Storage::Q8_0, ..TinyModel::llama(12) };
    let load = |tiny: &TinyModel, full: &FullConfig| Model::load_trained(ReferenceDevice::new(), tiny.config.clone(), tiny, full).err();
    let error = load(&tiny, &FullConfig::all()).expect("a refusal");
    assert!(matches!(error, EngineError::TrainedStorage { name: TensorName::Embedding, storage: Storage::Q8_0 }), "{error}");
    let tiny = TinyModel::llama(12);
    let error = load(&tiny, &FullConfig { layers: Some(vec![3]), ..FullConfig::all() }).expect("a refusal");
    assert!(matches!(error, EngineError::TrainedLayer { layer: 3, layers: 3 }), "{error}");
    let nothing = FullConfig { layers: Some(vec![0]), targets: Vec::new(), biases: true, norms: false, embeddings: false };
    assert!(matches!(load(&tiny, &nothing), Some(EngineError::NothingTrained)));
    let frozen = model(ReferenceDevice::new(), &tiny);
    let error = Trainer::full(frozen, trainer_config(), &uses(128, Policy::Keep)).err().expect("a refusal");
    assert!(matches!(error, EngineError::NotTrained), "{error}");
    let model = Model::load_trained(ReferenceDevice::new(), tiny.config.clone(), &tiny, &FullConfig::all()).expect("a sound model");
    let error = Trainer::new(model, &warm_adapter(&lora(), &tiny.config, 1), trainer_config(), &uses(128, Policy::Keep)).err();
    assert!(matches!(error, Some(EngineError::TrainedAndAdapted)));
}
