//! The trainer: resuming, overfitting, LoRA's three identities, refusals that change nothing.

mod common;

use common::*;
use engine::{
    EngineError,
    adapter::{Adapter, LoraConfig},
    batch::{Batch, BatchError},
    config::{Linear, TensorName},
    cpu::CpuDevice,
    device::{Device, Storage, Stored},
    memory::{self, GenerationUse, Policy, Uses},
    merge::Merge,
    model::{Model, SharedTensor, SourceError, TensorView, WeightSource},
    moments::Moment,
    trainer::{Trainer, TrainerConfig, TrainerState},
};
use testkit::{ReferenceDevice, TinyModel, Tolerance};

/// Micro-batches of step `step`.
fn batches(tiny: &TinyModel, step: u64) -> Vec<OwnedBatch> {
    (0..3).map(|i| shared(&records(1000 + 10 * step + i, 4, tiny.config.vocab), 1, 16)).collect()
}

fn steps<D: Device>(trainer: &mut Trainer<D>, tiny: &TinyModel, range: std::ops::Range<u64>) -> Vec<f64> {
    let step = |step| {
        let owned = batches(tiny, step);
        trainer.step(&owned.iter().map(OwnedBatch::borrow).collect::<Vec<_>>()).expect("a sound step").loss
    };
    range.map(step).collect()
}

/// Resuming goes on with the same bits, where the device computes in the state's precision.
fn interrupted_and_resumed_is_uninterrupted<D: Device>(device: impl Fn() -> D, uses: fn(usize, Policy) -> Uses, tolerance: Tolerance) {
    let tiny = TinyModel::llama(1);
    let adapter = Adapter::init(&LoraConfig { dropout: 0.1, ..lora() }, &tiny.config, 9).expect("a sound adapter");
    let trainer = |device, tiny: &TinyModel, adapter: &Adapter, policy| {
        Trainer::new(model(device, tiny), adapter, trainer_config(), &uses(128, policy)).expect("a sound trainer")
    };
    let mut whole = trainer(device(), &tiny, &adapter, Policy::Keep);
    let losses = steps(&mut whole, &tiny, 0..6);
    let mut first = trainer(device(), &tiny, &adapter, Policy::Keep);
    let mut resumed_losses = steps(&mut first, &tiny, 0..3);
    let state: TrainerState = first.state();
    drop(first);
    let mut second = trainer(device(), &tiny, &adapter, Policy::Recompute);
    second.restore(&state).expect("a state of the same adapter");
    for step in 3..6 {
        resumed_losses.extend(steps(&mut second, &tiny, step..step + 1));
        // what is asked in between disturbs nothing, though it works in the same memory
        let validation = shared(&records(900 + step, 4, tiny.config.vocab), 1, 16);
        second.evaluate_loss(&[validation.borrow()]).expect("a sound batch");
    }
    tolerance.check("losses", &resumed_losses, &losses);
    let resumed = second.state();
    for (part, [first, _]) in &whole.state().moments {
        if let (Moment::F32(first), [Moment::F32(resumed), _]) = (first, &resumed.moments[part]) {
            tolerance.check("moments", resumed, first);
        }
    }
    if tolerance == Tolerance::exact() {
        assert_eq!(second.state(), whole.state());
    }
}

fn one_batch_is_learned_by_heart<D: Device>(device: impl Fn() -> D) {
    let tiny = TinyModel::llama(2);
    let adapter = Adapter::init(&LoraConfig { rank: 8, alpha: 16.0, ..lora() }, &tiny.config, 9).expect("a sound adapter");
    let mut config = trainer_config();
    config.schedule.peak = 2e-2;
    let mut trainer = Trainer::new(model(device(), &tiny), &adapter, config, &uses(128, Policy::Keep)).expect("a sound trainer");
    // distinct first tokens: every answer can be told from its beginning
    let records: Vec<Record> = (0..4)
        .map(|r| Record {
            tokens: (0..6).map(|i| ((7 * r + 11 * i * i + i) % 61) as u32).collect(),
            weights: vec![0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        })
        .collect();
    let batch = unshared(&records);
    let first = trainer.step(&[batch.borrow()]).expect("a sound step").loss;
    let mut last = first;
    for _ in 0..80 {
        last = trainer.step(&[batch.borrow()]).expect("a sound step").loss;
    }
    assert!(first > 2.0 && last < 0.05, "from {first} to {last}");
}

/// LoRA+: A moves as it would without, and B so many times as far.
fn lora_plus_moves_b_further<D: Device>(device: impl Fn() -> D) {
    let tiny = TinyModel::fused(12);
    let start = warm_adapter(&lora(), &tiny.config, 9);
    let after = |lora_plus_ratio| {
        let mut config = trainer_config();
        (config.optimizer.lora_plus_ratio, config.optimizer.weight_decay) = (lora_plus_ratio, 0.0);
        let mut trainer = Trainer::new(model(device(), &tiny), &start, config, &uses(128, Policy::Keep)).expect("a sound trainer");
        steps(&mut trainer, &tiny, 0..1);
        trainer.adapter()
    };
    let (plain, plus) = (after(1.0), after(4.0));
    for (place, pair) in &plain.tensors {
        assert_eq!(plus.tensors[place].a, pair.a);
        let moved = |b: &[f32], factor: f64| -> Vec<f64> {
            b.iter().zip(&start.tensors[place].b).map(|(b, start)| factor * (f64::from(*b) - f64::from(*start))).collect()
        };
        Tolerance::f32().check("B", &moved(&plus.tensors[place].b, 1.0), &moved(&pair.b, 4.0));
    }
}

/// B = 0: the adapted model is the base, bit for bit.
fn zero_b_is_exactly_the_base<D: Device>(device: impl Fn() -> D) {
    let tiny = TinyModel::llama(3);
    let batch = shared(&records(40, 5, tiny.config.vocab), 1, 16);
    let mut model = model(device(), &tiny);
    model.reserve(&uses(128, Policy::Keep)).expect("memory");
    let base = model.log_probs_exact(&batch.borrow(), 0).expect("a sound batch");
    model.attach(&Adapter::init(&lora(), &tiny.config, 9).expect("a sound adapter")).expect("the same model");
    assert_eq!(model.log_probs_exact(&batch.borrow(), 0).expect("a sound batch"), base);
    model.attach(&warm_adapter(&lora(), &tiny.config, 9)).expect("the same model");
    assert_ne!(model.log_probs_exact(&batch.borrow(), 0).expect("a sound batch"), base);
    model.detach().expect("memory");
    assert_eq!(model.log_probs_exact(&batch.borrow(), 0).expect("a sound batch"), base);
}

/// After training the base answers as before, bit for bit.
fn frozen_weights_are_unchanged_by_training<D: Device>(device: impl Fn() -> D) {
    let tiny = TinyModel::llama(4);
    let batch = shared(&records(41, 5, tiny.config.vocab), 1, 16);
    let mut base = model(device(), &tiny);
    base.reserve(&uses(128, Policy::Keep)).expect("memory");
    let before = base.log_probs_exact(&batch.borrow(), 0).expect("a sound batch");
    let mut trainer = trainer(device(), &tiny, &warm_adapter(&lora(), &tiny.config, 9), Policy::Keep);
    steps(&mut trainer, &tiny, 0..3);
    let mut after = trainer.into_model();
    after.detach().expect("memory");
    assert_eq!(after.log_probs_exact(&batch.borrow(), 0).expect("a sound batch"), before);
}

/// A source whose linear layers are W + s B A.
struct Merged<'a> {
    tiny: &'a TinyModel,
    adapter: &'a Adapter,
}

impl WeightSource for Merged<'_> {
    fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError> {
        let mut view = self.tiny.tensor(name)?;
        let TensorName::Linear(layer, linear) = name else { return Ok(view) };
        let members = self.tiny.config.fused_with(linear);
        let (pair, rank) = (&self.adapter.tensors[&(layer, members[0])], self.adapter.config.rank);
        let before: usize = members.iter().take_while(|&&m| m != linear).map(|&m| self.tiny.config.linear_shape(m).0).sum();
        let sum = |(i, bytes): (usize, &[u8])| {
            let (row, col) = (before + i / view.cols, i % view.cols);
            let w = f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
            let product: f64 = (0..rank).map(|r| f64::from(pair.b[row * rank + r]) * f64::from(pair.a[r * view.cols + col])).sum();
            f64::from(w) + f64::from(self.adapter.config.scale()) * product
        };
        let mut merged: Vec<f64> = view.bytes.chunks_exact(4).enumerate().map(sum).collect();
        if self.adapter.config.dora {
            for (row, magnitude) in merged.chunks_exact_mut(view.cols).zip(&pair.magnitude[before..]) {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter_mut().for_each(|x| *x *= f64::from(*magnitude) / norm);
            }
        }
        view.bytes = merged.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect::<Vec<u8>>().into();
        Ok(view)
    }
}

fn merged_is_unmerged<D: Device>(device: impl Fn() -> D) {
    for (tiny, (rslora, dora)) in [TinyModel::windowed(5), TinyModel::gemma(5), TinyModel::biased(5), TinyModel::fused(5)]
        .into_iter()
        .flat_map(|tiny| [(false, false), (true, false), (false, true)].map(|methods| (tiny.clone(), methods)))
    {
        let adapter = warm_adapter(&LoraConfig { rslora, dora, ..lora() }, &tiny.config, 9);
        let batch = shared(&records(42, 5, tiny.config.vocab), 1, 16);
        let mut unmerged = model(device(), &tiny);
        unmerged.attach(&adapter).expect("the same model");
        unmerged.reserve(&uses(128, Policy::Keep)).expect("memory");
        let mut merged = Model::load(device(), tiny.config.clone(), &Merged { tiny: &tiny, adapter: &adapter }).expect("a sound model");
        merged.reserve(&uses(128, Policy::Keep)).expect("memory");
        let expected = merged.log_probs(&batch.borrow()).expect("a sound batch");
        // the engine's own merge, some rows at a time and in any order, is that weight
        let source = Merged { tiny: &tiny, adapter: &adapter };
        let merge = Merge::new(&tiny.config, &adapter, 2).expect("the same model");
        for name in tiny.config.tensor_names().into_iter().filter(|&name| merge.changes(name)) {
            let (whole, view) = (source.tensor(name).expect("there"), tiny.tensor(name).expect("there"));
            let rows: Vec<usize> = (0..view.rows).rev().step_by(2).collect();
            let given = merge.rows(name, &view, &rows, Storage::F32).expect("memory");
            let numbers = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>();
            let expected: Vec<f32> = rows.iter().flat_map(|&row| numbers(&whole.bytes[4 * row * view.cols..][..4 * view.cols])).collect();
            Tolerance::f32().check(&name.to_string(), &numbers(&given), &expected);
        }
        assert!(!merge.changes(TensorName::Embedding));
        // merged weights are rounded to f32 once more than the adapter's way
        Tolerance::f32().times(3.0).check("log_prob", &unmerged.log_probs(&batch.borrow()).expect("a sound batch"), &expected);
    }
}

/// PiSSA's pairs and start are a LoRA of twice the rank on the same base, and come back from it bit for bit.
fn folded_is_unfolded<D: Device>(device: impl Fn() -> D) {
    for (tiny, rslora) in [(TinyModel::llama(13), false), (TinyModel::fused(13), true)] {
        let adapter = warm_adapter(&LoraConfig { rslora, pissa: true, ..lora() }, &tiny.config, 9);
        let folded = adapter.folded();
        assert!(folded.validate(&tiny.config).is_ok() && folded.config.rank == 2 * adapter.config.rank);
        assert_eq!(folded.clone().unfolded(&adapter.config), adapter);
        let batch = shared(&records(45, 5, tiny.config.vocab), 1, 16);
        let mut model = model(device(), &tiny);
        model.reserve(&uses(128, Policy::Keep)).expect("memory");
        let log_probs = [&folded, &adapter].map(|adapter| {
            model.attach(adapter).expect("the same model");
            model.log_probs(&batch.borrow()).expect("a sound batch")
        });
        Tolerance::f32().times(3.0).check("log_prob", &log_probs[1], &log_probs[0]);
    }
}

/// DoRA and PiSSA begin at the base.
fn a_fresh_adapter_is_the_base<D: Device>(device: impl Fn() -> D) {
    for (tiny, dora) in [TinyModel::gemma(14), TinyModel::biased(14), TinyModel::fused(14)].iter().flat_map(|t| [(t, true), (t, false)]) {
        let batch = shared(&records(46, 5, tiny.config.vocab), 1, 16);
        let mut model = model(device(), tiny);
        model.reserve(&uses(128, Policy::Keep)).expect("memory");
        let base = model.log_probs(&batch.borrow()).expect("a sound batch");
        let adapter = model.fresh_adapter(&LoraConfig { dora, pissa: !dora, ..lora() }, 9).expect("a sound adapter");
        model.attach(&adapter).expect("the same model");
        Tolerance::f32().times(3.0).check("log_prob", &model.log_probs(&batch.borrow()).expect("a sound batch"), &base);
        assert!(dora || adapter.tensors.values().all(|pair| pair.b.iter().any(|&b| b != 0.0)), "PiSSA starts with B");
    }
}

/// PiSSA's start is as near to the weight as any matrix of its rank can be, up to a few per cent, and depends on no thread.
#[test]
fn pissa_starts_at_the_principal_part() {
    let tiny = TinyModel::fused(15);
    let pissa = LoraConfig { rank: 6, alpha: 3.0, pissa: true, ..lora() };
    let fresh = |threads| model(CpuDevice::new(threads), &tiny).fresh_adapter(&pissa, 9).expect("a sound adapter");
    let adapter = fresh(1);
    assert_eq!(fresh(3), adapter);
    let exact = model(ReferenceDevice::new(), &tiny).fresh_adapter(&pissa, 9).expect("a sound adapter");
    for (&(layer, linear), pair) in &adapter.tensors {
        let (n, k) = tiny.config.adapter_shape(linear);
        let mut w = Vec::new();
        for &member in tiny.config.fused_with(linear) {
            let bytes = tiny.tensor(TensorName::Linear(layer, member)).expect("a tensor").bytes.into_owned();
            w.extend(bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))));
        }
        // What a matrix of this rank must leave: the squares of the singular values after the first six.
        let mut singular = singular_values(&w, n, k);
        singular.sort_by(|a, b| b.total_cmp(a));
        let least: f64 = singular[pissa.rank..].iter().map(|s| s * s).sum();
        let left = |pair: &engine::adapter::LoraPair| -> f64 {
            let (rank, scale) = (pissa.rank, f64::from(pissa.scale()));
            let low = |i: usize| -> f64 { (0..rank).map(|r| f64::from(pair.b[i / k * rank + r]) * f64::from(pair.a[r * k + i % k])).sum() };
            w.iter().enumerate().map(|(i, w)| (w - scale * low(i)).powi(2)).sum()
        };
        for pair in [pair, &exact.tensors[&(layer, linear)]] {
            assert!(left(pair) < 1.02 * least, "layer {layer} {linear}: {} is left, {least} must be", left(pair));
        }
        // A and B share the singular values evenly.
        let norm = |x: f32| f64::from(x).powi(2);
        for r in 0..pissa.rank {
            let of_a: f64 = pair.a[r * k..][..k].iter().map(|&a| norm(a)).sum();
            let of_b: f64 = pair.b.iter().skip(r).step_by(pissa.rank).map(|&b| norm(b)).sum();
            assert!((of_a / of_b - 1.0).abs() < 1e-4 && (of_a * f64::from(pissa.scale()) / singular[r] - 1.0).abs() < 0.03, "{r}");
        }
    }
}

/// Of `w[n, k]`, by one-sided Jacobi rotations of its columns.
fn singular_values(w: &[f64], n: usize, k: usize) -> Vec<f64> {
    let mut columns: Vec<Vec<f64>> = (0..k).map(|l| (0..n).map(|i| w[i * k + l]).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for _ in 0..30 {
        for p in 0..k {
            for q in p + 1..k {
                let (a, b, c) = (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]), dot(&columns[p], &columns[q]));
                let angle = 0.5 * (2.0 * c).atan2(a - b);
                let (sin, cos) = angle.sin_cos();
                for i in 0..n {
                    let (x, y) = (columns[p][i], columns[q][i]);
                    (columns[p][i], columns[q][i]) = (cos * x + sin * y, cos * y - sin * x);
                }
            }
        }
    }
    columns.iter().map(|c| dot(c, c).sqrt()).collect()
}

/// What is not a number stops the step and changes nothing.
fn a_step_that_is_not_finite_changes_nothing<D: Device>(device: impl Fn() -> D) {
    let tiny = TinyModel::llama(6);
    let mut adapter = warm_adapter(&lora(), &tiny.config, 9);
    adapter.tensors.get_mut(&(1, Linear::Up)).expect("all are adapted").b[0] = f32::NAN;
    let mut trainer = trainer(device(), &tiny, &adapter, Policy::Keep);
    let owned = batches(&tiny, 0);
    let error = trainer.step(&owned.iter().map(OwnedBatch::borrow).collect::<Vec<_>>());
    assert!(matches!(error, Err(EngineError::NotFinite { step: 1, what: "loss" })), "{error:?}");
    let state = trainer.state();
    assert_eq!(state.step, 0);
    assert!(state.moments.values().flatten().all(|moment| *moment == Moment::F32(vec![0.0; moment.len()])));
}

on_devices!(reference, ReferenceDevice::new;
    one_batch_is_learned_by_heart, lora_plus_moves_b_further, zero_b_is_exactly_the_base,
    frozen_weights_are_unchanged_by_training, merged_is_unmerged, folded_is_unfolded, a_fresh_adapter_is_the_base, a_step_that_is_not_finite_changes_nothing,
);

on_devices!(cpu, || CpuDevice::new(2);
    one_batch_is_learned_by_heart, lora_plus_moves_b_further, zero_b_is_exactly_the_base,
    frozen_weights_are_unchanged_by_training, merged_is_unmerged, folded_is_unfolded, a_fresh_adapter_is_the_base, a_step_that_is_not_finite_changes_nothing,
);

#[test]
fn interrupted_and_resumed_is_uninterrupted_bit_for_bit() {
    for uses in [uses, uses_8bit] {
        interrupted_and_resumed_is_uninterrupted(|| CpuDevice::new(2), uses, Tolerance::exact());
    }
}

#[test]
fn interrupted_and_resumed_is_uninterrupted_on_the_reference() {
    // the state is f32, the reference computes in f64
    interrupted_and_resumed_is_uninterrupted(ReferenceDevice::new, uses, Tolerance::f32());
}

#[test]
fn moments_and_weights_of_the_reference_are_untouched() {
    let tiny = TinyModel::llama(7);
    let mut trainer = trainer(ReferenceDevice::new(), &tiny, &warm_adapter(&lora(), &tiny.config, 9), Policy::Keep);
    let before = trainer.model().device().weight_values();
    steps(&mut trainer, &tiny, 0..2);
    assert_eq!(trainer.model().device().weight_values(), before);
}

#[test]
fn refusals_name_the_step_and_the_batch() {
    let tiny = TinyModel::llama(8);
    let mut trainer = trainer(ReferenceDevice::new(), &tiny, &warm_adapter(&lora(), &tiny.config, 9), Policy::Keep);
    let mut batch = shared(&records(43, 5, tiny.config.vocab), 1, 16);
    let good = batch.clone();
    batch.entries[0].target = 61;
    let row = batch.entries[0].row as usize;
    let error = trainer.step(&[good.borrow(), batch.borrow()]);
    let expected = BatchError::Token { token: 61, row, vocab: 61 };
    assert!(matches!(error, Err(EngineError::Batch { index: 1, ref source }) if *source == expected), "{error:?}");
    batch.entries.iter_mut().for_each(|e| (e.target, e.weight) = (0, 0.0));
    assert!(matches!(trainer.step(&[batch.borrow()]), Err(EngineError::NoLoss { step: 1, weight: 0.0 })));
    let many: Vec<Batch<'_>> = (0..17).map(|_| good.borrow()).collect();
    assert!(matches!(trainer.step(&many), Err(EngineError::Limit { given: 17, limit: 16, .. })));
    let long = unshared(&records(44, 40, tiny.config.vocab));
    assert!(matches!(trainer.step(&[long.borrow()]), Err(EngineError::Batch { index: 0, source: BatchError::Rows { limit: 128, .. } })));
    let other = warm_adapter(&LoraConfig { rank: 2, ..lora() }, &tiny.config, 9);
    let state = TrainerState { adapter: other, ..trainer.state() };
    assert!(matches!(trainer.restore(&state), Err(EngineError::StateMismatch)));
    assert!(matches!(trainer.evaluate_loss(&[]), Err(EngineError::Empty { .. })));
    let nothing = Uses { generation: Some(GenerationUse { rows: 0, sequences: 1, cache_rows: 1 }), ..Uses::default() };
    assert!(matches!(trainer.model().reserve(&nothing), Err(EngineError::PlannedZero { what: "rows of generation" })));
    let mut config: TrainerConfig = trainer_config();
    config.optimizer.beta2 = 1.0;
    assert!(matches!(config.validate(), Err(EngineError::TrainerConfig { what: "beta2", .. })));
}

#[test]
fn a_source_that_disagrees_is_named() {
    struct Other(TinyModel, TensorName);
    impl WeightSource for Other {
        fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError> {
            let mut view = self.0.tensor(name)?;
            if name == self.1 {
                view.rows += 1;
            }
            Ok(view)
        }
    }
    let tiny = TinyModel::llama(9);
    let name = TensorName::Linear(1, Linear::Gate);
    let error = Model::load(ReferenceDevice::new(), tiny.config.clone(), &Other(tiny.clone(), name)).err().expect("a refusal");
    assert_eq!(error.to_string(), "tensor block 1 gate is 41 x 32, the configuration says 40 x 32");
    let mut config = tiny.config.clone();
    config.kv_heads = 3;
    let error = Model::load(ReferenceDevice::new(), config, &tiny).err().expect("a refusal");
    assert_eq!(error.to_string(), "model configuration: number of key/value heads is 3, must be a divisor of the 4 heads");
}

/// The processor's device holds what was planned for it, to the byte, also after it has worked.
#[test]
fn the_cpu_holds_what_was_planned() {
    let tiny = TinyModel::llama(11);
    for (policy, dora, pissa) in [
        (Policy::Keep, false, false),
        (Policy::Recompute, false, false),
        (Policy::Keep, true, false),
        (Policy::Recompute, true, false),
        (Policy::Keep, false, true),
    ] {
        let adapter = warm_adapter(&LoraConfig { dora, pissa, ..lora() }, &tiny.config, 9);
        let of = if dora { uses_8bit } else { uses };
        let mut uses: Uses = of(128, policy.clone());
        uses.generation = Some(GenerationUse { rows: 32, sequences: 3, cache_rows: 90 });
        let planned = memory::plan(&CpuDevice::new(2), &tiny.config, |_| Storage::F32, Some(&adapter.config), &uses);
        let mut trainer = Trainer::new(model(CpuDevice::new(2), &tiny), &adapter, trainer_config(), &uses).expect("a sound trainer");
        steps(&mut trainer, &tiny, 0..2);
        assert_eq!(trainer.model().memory(), planned);
        assert_eq!(trainer.model().device().bytes() + planned.host_bytes(), planned.total_bytes());
    }
}

/// A state goes back only where moments are held as they were.
#[test]
fn moments_of_another_storage_are_refused() {
    let tiny = TinyModel::llama(7);
    let adapter = warm_adapter(&lora(), &tiny.config, 9);
    let mut exact = trainer(CpuDevice::new(1), &tiny, &adapter, Policy::Keep);
    let mut rounded =
        Trainer::new(model(CpuDevice::new(1), &tiny), &adapter, trainer_config(), &uses_8bit(128, Policy::Keep)).expect("a sound trainer");
    steps(&mut rounded, &tiny, 0..1);
    let before = exact.state();
    assert!(matches!(exact.restore(&rounded.state()), Err(EngineError::StateMismatch)));
    assert!(matches!(rounded.restore(&before), Err(EngineError::StateMismatch)));
    assert_eq!(exact.state(), before);
    let mut damaged = rounded.state();
    let [Moment::EightBit(first), _] = damaged.moments.values_mut().next().expect("an adapter has tensors") else { panic!("8 bits") };
    first.scales[0] = f32::NAN;
    assert!(matches!(rounded.restore(&damaged), Err(EngineError::StateMismatch)));
}

/// The same model, whose matrices stay where the source has them.
struct Mapped<'a>(&'a TinyModel);

impl WeightSource for Mapped<'_> {
    fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError> {
        self.0.tensor(name)
    }

    fn shared(&self, name: TensorName) -> Result<Option<SharedTensor>, SourceError> {
        let TensorView { storage, rows, cols, bytes, .. } = self.0.tensor(name)?;
        Ok(Some(SharedTensor { storage, rows, cols, bytes: std::sync::Arc::new(bytes.into_owned()) }))
    }
}

/// What is read where it lies is computed with as what was copied, and takes no memory of the device's.
#[test]
fn a_shared_base_trains_to_the_same_bits() {
    for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8_0] {
        let mut tiny = TinyModel { storage, ..TinyModel::llama(3) };
        if storage == Storage::Q8_0 {
            tiny.config.intermediate = 64; // whole blocks
        }
        let adapter = warm_adapter(&lora(), &tiny.config, 9);
        let run = |source: &dyn WeightSource| {
            let model = Model::load(CpuDevice::new(2), tiny.config.clone(), source).expect("a sound model");
            let mut trainer = Trainer::new(model, &adapter, trainer_config(), &uses(128, Policy::Keep)).expect("a sound trainer");
            let losses = steps(&mut trainer, &tiny, 0..3);
            let planned = trainer.model().memory();
            assert_eq!(trainer.model().device().bytes(), planned.total_bytes());
            (losses, trainer.state(), planned)
        };
        let ((losses, state, planned), (same_losses, same_state, shared)) = (run(&tiny), run(&Mapped(&tiny)));
        assert_eq!((same_losses, same_state), (losses, state), "{storage:?}");
        let matrices = planned.parameters.iter().zip(&shared.parameters).filter(|(held, shared)| held.bytes != shared.bytes);
        assert_eq!(matrices.map(|(_, shared)| shared.bytes).collect::<Vec<_>>(), vec![0; 1 + 7 * tiny.config.layers], "{storage:?}");
        let uses = uses(128, Policy::Keep);
        let of = |_| Stored { storage, shared: true };
        assert_eq!(memory::plan(&CpuDevice::new(2), &tiny.config, of, Some(&adapter.config), &uses), shared);
    }
}

/// What is held is what was planned, and the plan needs no weights.
#[test]
fn memory_is_as_planned() {
    let tiny = TinyModel::llama(10);
    let adapter = warm_adapter(&lora(), &tiny.config, 9);
    for policy in [Policy::Keep, Policy::Recompute] {
        let uses: Uses = uses(96, policy.clone());
        let planned = memory::plan(&ReferenceDevice::new(), &tiny.config, |_| Storage::F32, Some(&adapter.config), &uses);
        let mut trainer = Trainer::new(model(ReferenceDevice::new(), &tiny), &adapter, trainer_config(), &uses).expect("a sound trainer");
        assert_eq!(trainer.model().memory(), planned);
        let weights: usize = planned.parameters.iter().filter(|e| e.place == memory::Place::Device).map(|e| e.bytes).sum();
        let arenas = planned.total_bytes() - weights - planned.host_bytes() - planned.scratch_bytes;
        assert_eq!(4 * trainer.model().device().allocated_elements(), arenas);
        let mut model = trainer.into_model();
        model.detach().expect("memory");
        model.reserve(&Uses::default()).expect("memory");
        assert_eq!(model.device().allocated_elements(), 7 * 32);
    }
}
