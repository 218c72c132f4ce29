//! Whole-model gradients: against central differences in f64, and shared against unshared computation.

mod common;

use common::*;
use engine::{
    adapter::{Adapter, LoraConfig},
    block::{Activation, ActivationSet},
    config::{Linear, TensorName},
    cpu::CpuDevice,
    device::{Device, Storage},
    memory::Policy,
    model::{PairOf, WeightSource},
    trainer::{Gradients, Trainer},
};
use kernels::simd::Level;
use testkit::{ReferenceDevice, TinyModel, Tolerance, gradient::gradient_check};

/// DoRA's backward takes the norms ‖V‖ for constants; differences do not. What is missing is dL/d‖V‖ · d‖V‖: the first is
/// −(m / ‖V‖) dm, and ‖V_j‖ changes by s · B_jr V_jl / ‖V_j‖ with A_rl, and by s · A_r · V_j / ‖V_j‖ with B_jr.
fn with_norms_differentiated(tiny: &TinyModel, adapter: &Adapter, place: (usize, Linear), given: &PairOf<f64>) -> PairOf<f64> {
    let mut gradient = given.clone();
    if !adapter.config.dora {
        return gradient;
    }
    let (pair, rank, scale) = (&adapter.tensors[&place], adapter.config.rank, f64::from(adapter.config.scale()));
    let members = tiny.config.fused_with(place.1);
    let k = tiny.config.linear_shape(place.1).1;
    let mut w = Vec::new();
    for &member in members {
        let bytes = tiny.tensor(TensorName::Linear(place.0, member)).expect("a tensor").bytes.into_owned();
        w.extend(bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))));
    }
    for (j, w) in w.chunks_exact(k).enumerate() {
        let b: Vec<f64> = pair.b[j * rank..][..rank].iter().map(|&b| f64::from(b)).collect();
        let a = |r: usize, l: usize| f64::from(pair.a[r * k + l]);
        let v: Vec<f64> = (0..k).map(|l| w[l] + scale * (0..rank).map(|r| b[r] * a(r, l)).sum::<f64>()).collect();
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let of_norm = -f64::from(pair.magnitude[j]) / norm * given.magnitude[j];
        for r in 0..rank {
            (0..k).for_each(|l| gradient.a[r * k + l] += of_norm * scale * b[r] * v[l] / norm);
            gradient.b[j * rank + r] += of_norm * scale * (0..k).map(|l| a(r, l) * v[l]).sum::<f64>() / norm;
        }
    }
    gradient
}

/// Every adapter element of a model against (loss(p + ε) − loss(p − ε)) / 2ε.
fn check_against_differences(tiny: &TinyModel, lora: &LoraConfig, policy: Policy, seed: u64) {
    let mut adapter = warm_adapter(lora, &tiny.config, seed);
    let batch = shared(&records(seed, 3, tiny.config.vocab), 1, 16);
    let mut trainer = trainer(ReferenceDevice::new(), tiny, &adapter, policy);
    let gradients = trainer.gradients(&[batch.borrow()]).expect("a sound batch");
    for (place, gradient) in &gradients.tensors {
        let PairOf { a: da, b: db, magnitude: dm } = &with_norms_differentiated(tiny, &adapter, *place, gradient);
        let pair = adapter.tensors[place].clone();
        for (part, values, gradient) in [("A", &pair.a, da), ("B", &pair.b, db), ("magnitude", &pair.magnitude, dm)] {
            let name = format!("layer {} {} {part}", place.0, place.1);
            gradient_check(&name, values, gradient, 1e-6, |moved| {
                let tensors = adapter.tensors.get_mut(place).expect("the same places");
                let values = match part {
                    "A" => &mut tensors.a,
                    "B" => &mut tensors.b,
                    _ => &mut tensors.magnitude,
                };
                values.copy_from_slice(moved);
                trainer.model().attach(&adapter).expect("the same shapes");
                if lora.dropout > 0.0 {
                    trainer.gradients(&[batch.borrow()]).expect("a sound batch").loss
                } else {
                    trainer.evaluate_loss(&[batch.borrow()]).expect("a sound batch")
                }
            });
            adapter.tensors.insert(*place, pair.clone());
        }
    }
}

fn small(mut tiny: TinyModel, layers: usize) -> TinyModel {
    tiny.config.layers = layers;
    tiny.config.attention.truncate(layers);
    tiny
}

#[test]
fn all_linears_of_all_layers_match_differences() {
    check_against_differences(&small(TinyModel::llama(1), 2), &lora(), Policy::Keep, 11);
}

#[test]
fn windowed_attention_and_untied_heads_match_differences() {
    let lora = LoraConfig { rank: 2, rslora: true, ..lora() };
    check_against_differences(&small(TinyModel::windowed(2), 2), &lora, Policy::Recompute, 12);
}

#[test]
fn norms_caps_and_layer_kinds_match_differences() {
    check_against_differences(&small(TinyModel::gemma(21), 2), &lora(), Policy::Keep, 15);
    let lora = LoraConfig { rank: 1, targets: vec![Linear::Key, Linear::Output], layers: Some(vec![1, 2]), ..lora() };
    check_against_differences(&TinyModel::gemma(22), &lora, Policy::Recompute, 16);
}

#[test]
fn biases_and_layers_without_positions_match_differences() {
    check_against_differences(&small(TinyModel::biased(33), 2), &LoraConfig { rank: 2, ..lora() }, Policy::Keep, 37);
}

#[test]
fn fused_layers_that_share_a_match_differences() {
    let lora = LoraConfig { rank: 2, dropout: 0.2, ..lora() };
    check_against_differences(&small(TinyModel::fused(24), 2), &lora, Policy::Recompute, 18);
}

#[test]
fn dropout_matches_differences() {
    let lora = LoraConfig { rank: 2, dropout: 0.3, targets: vec![Linear::Query, Linear::Value, Linear::Down], ..lora() };
    check_against_differences(&small(TinyModel::llama(3), 2), &lora, Policy::Keep, 13);
}

#[test]
fn dora_matches_differences() {
    let dora = LoraConfig { rank: 2, dora: true, ..lora() };
    check_against_differences(&small(TinyModel::llama(41), 2), &dora, Policy::Keep, 51);
    check_against_differences(&small(TinyModel::gemma(42), 2), &dora, Policy::Recompute, 52);
    check_against_differences(&small(TinyModel::biased(43), 2), &LoraConfig { dropout: 0.3, ..dora.clone() }, Policy::Keep, 53);
    check_against_differences(&small(TinyModel::fused(44), 2), &LoraConfig { dropout: 0.2, ..dora.clone() }, Policy::Recompute, 54);
    let some = LoraConfig { targets: vec![Linear::Value, Linear::Down], layers: Some(vec![1]), ..dora };
    check_against_differences(&small(TinyModel::windowed(45), 2), &some, Policy::Keep, 55);
}

#[test]
fn pissa_matches_differences() {
    let pissa = LoraConfig { rank: 2, pissa: true, ..lora() };
    check_against_differences(&small(TinyModel::gemma(46), 2), &pissa, Policy::Keep, 56);
    check_against_differences(&small(TinyModel::fused(47), 2), &pissa, Policy::Recompute, 57);
}

#[test]
fn subsets_of_linears_and_layers_match_differences() {
    let subsets: [(&[Linear], Option<Vec<usize>>); 7] = [
        (&[Linear::Down], Some(vec![2])),
        (&[Linear::Up], Some(vec![2])),
        (&[Linear::Gate], Some(vec![1])),
        (&[Linear::Output], Some(vec![1])),
        (&[Linear::Key], Some(vec![2])),
        (&[Linear::Query], Some(vec![2])),
        (&[Linear::Value, Linear::Down], Some(vec![0, 2])),
    ];
    for (i, (targets, layers)) in subsets.into_iter().enumerate() {
        let lora = LoraConfig { rank: 1, targets: targets.to_vec(), layers, ..lora() };
        let policy = if i % 2 == 0 { Policy::Keep } else { Policy::Recompute };
        for tiny in [TinyModel::llama(4), TinyModel::gemma(4)] {
            check_against_differences(&tiny, &lora, policy.clone(), 14);
        }
    }
}

fn gradients<D: Device>(device: D, tiny: &TinyModel, lora: &LoraConfig, policy: Policy, batches: &[OwnedBatch]) -> Gradients {
    let adapter = warm_adapter(lora, &tiny.config, 5);
    let mut uses = uses(128, policy);
    let several_passes = batches.iter().any(|batch| !batch.passes.is_empty());
    uses.training.as_mut().expect("training is planned").several_passes = several_passes;
    let mut trainer = Trainer::new(model(device, tiny), &adapter, trainer_config(), &uses).expect("a sound trainer");
    let batches: Vec<_> = batches.iter().map(OwnedBatch::borrow).collect();
    trainer.gradients(&batches).expect("sound batches")
}

fn compare(actual: &Gradients, expected: &Gradients, tolerance: Tolerance) {
    tolerance.check("loss", &[actual.loss], &[expected.loss]);
    for (place, PairOf { a, b, magnitude }) in &expected.tensors {
        tolerance.check(&format!("dA of {place:?}"), &actual.tensors[place].a, a);
        tolerance.check(&format!("dB of {place:?}"), &actual.tensors[place].b, b);
        tolerance.check(&format!("dm of {place:?}"), &actual.tensors[place].magnitude, magnitude);
    }
}

/// Loss and all gradients of random trees of records, shared in several ways, against each record alone.
fn sharing_changes_nothing<D: Device>(device: impl Fn() -> D, tolerance: Tolerance) {
    for seed in 20..26 {
        let kinds = [TinyModel::llama, TinyModel::windowed, TinyModel::gemma, TinyModel::biased, TinyModel::fused];
        // Each seed has its trees; the kinds take turns.
        for tiny in [kinds[seed as usize % 5](seed), kinds[(seed as usize + 2) % 5](seed)] {
            let records = records(seed, 6, tiny.config.vocab);
            let alone = gradients(device(), &tiny, &lora(), Policy::Keep, &[unshared(&records)]);
            for (min_shared, max_depth) in [(1, 16), (2, 3), (1, 2)] {
                let together = shared(&records, min_shared, max_depth);
                assert!(together.tokens.len() < records.iter().map(|r| r.tokens.len()).sum::<usize>());
                compare(&gradients(device(), &tiny, &lora(), Policy::Keep, &[together]), &alone, tolerance);
            }
        }
    }
}

#[test]
fn sharing_changes_nothing_on_the_reference() {
    sharing_changes_nothing(ReferenceDevice::new, Tolerance::f64());
}

#[test]
fn sharing_changes_nothing_on_the_cpu() {
    sharing_changes_nothing(|| CpuDevice::new(2), Tolerance::f32());
}

/// A tree of records in one pass and in several, where keys and values of the first stay: the same gradient, in any set of
/// saved tensors bit for bit the same. Dropout, norms of keys, and adapters on some layers only included.
fn passes_change_nothing<D: Device>(device: impl Fn() -> D, tolerance: Tolerance) {
    let some = LoraConfig { targets: vec![Linear::Query, Linear::Value, Linear::Down], layers: Some(vec![1]), ..lora() };
    let dropping = LoraConfig { dropout: 0.2, ..lora() };
    for (seed, (tiny, lora)) in [
        (TinyModel::llama(12), lora()),
        (TinyModel::windowed(12), dropping.clone()),
        (TinyModel::gemma(12), dropping),
        (TinyModel::gemma(12), some),
        (TinyModel::fused(12), LoraConfig { layers: Some(vec![2]), ..lora() }),
    ]
    .into_iter()
    .enumerate()
    {
        let tree = shared(&records(60 + seed as u64, 8, tiny.config.vocab), 1, 16);
        let whole = gradients(device(), &tiny, &lora, Policy::Keep, std::slice::from_ref(&tree));
        for leaves in [1, 3, 100] {
            let parted = tree.in_passes(leaves);
            assert!(parted.passes.len() > 1);
            let kept = gradients(device(), &tiny, &lora, Policy::Keep, std::slice::from_ref(&parted));
            compare(&kept, &whole, tolerance);
            assert_eq!(gradients(device(), &tiny, &lora, Policy::Recompute, std::slice::from_ref(&parted)), kept);
        }
        // Beside micro-batches of one pass, in the memory of several.
        let both = [tree.in_passes(2), tree];
        compare(&gradients(device(), &tiny, &lora, Policy::Keep, &both), &whole, tolerance.times(2.0));
    }
}

#[test]
fn passes_change_nothing_on_the_reference() {
    passes_change_nothing(ReferenceDevice::new, Tolerance::f64());
}

#[test]
fn passes_change_nothing_on_the_cpu() {
    passes_change_nothing(|| CpuDevice::new(2), Tolerance::f32());
}

/// However the same records are split into micro-batches, the gradient is the same up to rounding.
fn splitting_changes_nothing<D: Device>(device: impl Fn() -> D, tolerance: Tolerance) {
    let tiny = TinyModel::llama(6);
    let records = records(30, 9, tiny.config.vocab);
    let whole = gradients(device(), &tiny, &lora(), Policy::Keep, &[shared(&records, 1, 16)]);
    for size in [1, 2, 4, 5] {
        let batches: Vec<OwnedBatch> = records.chunks(size).map(|records| shared(records, 1, 16)).collect();
        compare(&gradients(device(), &tiny, &lora(), Policy::Keep, &batches), &whole, tolerance);
    }
}

#[test]
fn splitting_changes_nothing_on_the_reference() {
    splitting_changes_nothing(ReferenceDevice::new, Tolerance::f64());
}

#[test]
fn splitting_changes_nothing_on_the_cpu() {
    splitting_changes_nothing(|| CpuDevice::new(2), Tolerance::f32());
}

/// What is saved and what is computed again never changes a bit.
fn policies_are_bit_equal<D: Device>(device: impl Fn() -> D) {
    for (tiny, dropout, dora, pissa) in [
        (TinyModel::llama(7), 0.0, false, false),
        (TinyModel::llama(7), 0.2, false, false),
        (TinyModel::gemma(7), 0.2, false, false),
        (TinyModel::biased(7), 0.0, false, false),
        (TinyModel::fused(7), 0.2, false, false),
        (TinyModel::gemma(7), 0.2, true, false),
        (TinyModel::fused(7), 0.0, true, false),
        (TinyModel::biased(7), 0.0, false, true),
    ] {
        let lora = LoraConfig { dropout, dora, pissa, ..lora() };
        let batch = shared(&records(31, 5, tiny.config.vocab), 1, 16);
        let keep = gradients(device(), &tiny, &lora, Policy::Keep, std::slice::from_ref(&batch));
        assert_eq!(gradients(device(), &tiny, &lora, Policy::Recompute, std::slice::from_ref(&batch)), keep);
        for seed in 0..12 {
            let random_set = |layer: u64| {
                let chosen: Vec<Activation> =
                    Activation::ALL.into_iter().filter(|a| draw(seed, 100 * layer + a.index() as u64, 2) == 0).collect();
                ActivationSet::of(&chosen)
            };
            let policy = Policy::Custom((0..3).map(random_set).collect());
            assert_eq!(gradients(device(), &tiny, &lora, policy, std::slice::from_ref(&batch)), keep, "policy {seed}");
        }
    }
}

#[test]
fn policies_are_bit_equal_on_the_reference() {
    policies_are_bit_equal(ReferenceDevice::new);
}

#[test]
fn policies_are_bit_equal_on_the_cpu() {
    policies_are_bit_equal(|| CpuDevice::new(2));
}

/// Forward and backward of the whole model in f32 against the reference, in every storage of weights.
#[test]
fn the_cpu_agrees_with_the_reference() {
    for storage in Storage::ALL {
        let kinds = [
            (TinyModel::llama(8), 0.0),
            (TinyModel::windowed(9), 0.0),
            (TinyModel::llama(10), 0.25),
            (TinyModel::gemma(8), 0.0),
            (TinyModel::biased(8), 0.0),
            (TinyModel::fused(8), 0.25),
        ];
        for (mut tiny, dropout) in kinds {
            (tiny.storage, tiny.config.intermediate) = (storage, storage.block_len().max(64));
            if storage.block_len() > 32 {
                // Rows of every matrix are whole blocks.
                tiny.config.hidden = storage.block_len();
                tiny.config.heads = tiny.config.hidden / tiny.config.head_dim;
            }
            let batches: Vec<OwnedBatch> = (0..3).map(|i| shared(&records(32 + i, 6, tiny.config.vocab), 1, 16)).collect();
            let lora = LoraConfig { dropout, ..lora() };
            let methods = [lora.clone(), LoraConfig { dora: true, ..lora.clone() }, LoraConfig { dropout: 0.0, pissa: true, ..lora }];
            // the weights are far larger than a trained model's: rounding grows through three sharp layers
            let tolerance = Tolerance::f32().times(if storage.block_len() > 32 { 20.0 } else { 5.0 }); // sums of wide rows are longer
            // Every method on the storages that people train on; of the others what differs is the weights alone.
            let most = if matches!(storage, Storage::F32 | Storage::Bf16 | Storage::Q4K) { 3 } else { 1 };
            for lora in &methods[..most] {
                let expected = gradients(ReferenceDevice::new(), &tiny, lora, Policy::Keep, &batches);
                compare(&gradients(CpuDevice::new(2), &tiny, lora, Policy::Keep, &batches), &expected, tolerance);
            }
        }
    }
}

/// Threads and instruction sets never change a bit, gradients and optimiser included.
#[test]
fn bits_are_equal_at_any_thread_count_and_level() {
    for (tiny, dora) in [
        (TinyModel::windowed(11), false),
        (TinyModel::gemma(11), false),
        (TinyModel::biased(11), false),
        (TinyModel::fused(11), false),
        (TinyModel::gemma(11), true),
        (TinyModel::fused(11), true),
    ] {
        let lora = LoraConfig { dropout: 0.1, dora, ..lora() };
        let adapter = warm_adapter(&lora, &tiny.config, 5);
        let batches: Vec<OwnedBatch> = (0..5).map(|i| shared(&records(50 + i, 8, tiny.config.vocab), 1, 16)).collect();
        let borrowed: Vec<_> = batches.iter().map(OwnedBatch::borrow).collect();
        let states = [(1, Level::detect()), (2, Level::detect()), (7, Level::detect()), (2, Level::Portable)].map(|(threads, level)| {
            let mut trainer = trainer(CpuDevice::with_level(threads, level), &tiny, &adapter, Policy::Keep);
            let reports: Vec<_> = (0..3).map(|_| trainer.step(&borrowed).expect("a sound step")).collect();
            (reports, trainer.state())
        });
        assert!(states.iter().all(|state| *state == states[0]));
    }
}
