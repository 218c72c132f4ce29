//! Two tiny models of transformers, read as their folders describe them, answer element by element as PyTorch does.
//!
//! golden/models/make.py made both, with logits, all gradients and ten optimiser steps of an adapter. The Mistral has
//! a window of 7 under sequences of 24, so its numbers are right only where the window is.
use std::borrow::Cow;
use std::collections::BTreeMap;

use engine::config::{ModelConfig, TensorName};
use engine::cpu::CpuDevice;
use engine::device::{Device, Storage};
use engine::model::{SourceError, TensorView, WeightSource};
use families::adapters::{Half, tensor_name};
use families::hugging_face;
use families::tensors::{Naming, place, source_name};
use testkit::golden::Golden;
use testkit::parity::{answers, max_difference, norm_difference};
use testkit::{ReferenceDevice, Tolerance};

/// The bound on logits: largest difference over largest logit.
const LOGITS: f64 = 1e-4;
/// The bound on gradients: norm of the difference over norm.
const GRADIENTS: f64 = 1e-3;
/// The bound on the losses of ten steps, relative.
const LOSSES: f64 = 1e-4;

/// A committed folder.
struct Folder {
    config: ModelConfig,
    weights: Golden,
    golden: Golden,
}

macro_rules! folder {
    ($name:literal) => {
        Folder::parse(
            include_str!(concat!("../../../golden/models/", $name, "/config.json")),
            include_bytes!(concat!("../../../golden/models/", $name, "/model.safetensors")),
            include_bytes!(concat!("../../../golden/models/", $name, "/golden.safetensors")),
        )
    };
}

impl Folder {
    fn llama() -> Folder {
        folder!("llama")
    }

    fn mistral() -> Folder {
        folder!("mistral")
    }

    fn parse(config: &str, weights: &[u8], golden: &[u8]) -> Folder {
        let config = hugging_face::describe(&serde_json::from_str(config).expect("JSON")).expect("a known family").config;
        let weights = Golden::parse(weights);
        let present = weights.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()));
        place(&config, Naming::HuggingFace, present).expect("all tensors, and no others");
        Folder { config, weights, golden: Golden::parse(golden) }
    }

    fn answers<D: Device>(&self, device: D) -> BTreeMap<String, Vec<f64>> {
        let names = |layer, linear| [Half::A, Half::B].map(|half| tensor_name(layer, linear, half));
        answers(device, &self.config, self, &self.golden, names).expect("a sound file")
    }

    /// Everything that PyTorch answered, element by element and then in the measures.
    fn check<D: Device>(&self, device: D) {
        let answers = self.answers(device);
        let questions = |name: &&String| ["ids", "loss_weights"].contains(&name.as_str()) || name.starts_with("adapter.start.");
        let expected: Vec<&String> = self.golden.tensors.keys().filter(|name| !questions(name)).collect();
        assert_eq!(answers.keys().collect::<Vec<_>>(), expected);
        for (name, answer) in &answers {
            let expected = self.golden.tensor(name).f64();
            tolerance(name).check(name, answer, &expected);
            if name.ends_with("logits") {
                assert!(max_difference(answer, &expected) <= LOGITS, "{name}");
            } else if name.starts_with("adapter.grad.") {
                assert!(norm_difference(answer, &expected) <= GRADIENTS, "{name}");
            } else if name == "losses" {
                assert!(
                    answer.iter().zip(&expected).all(|(a, e)| (a - e).abs() <= LOSSES * e),
                    "{name}: {answer:?} instead of {expected:?}"
                );
            }
        }
    }
}

impl WeightSource for Folder {
    fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError> {
        let tensor = self.weights.tensors.get(&source_name(name, Naming::HuggingFace)).ok_or(SourceError::Missing)?;
        assert_eq!(tensor.dtype, "F32");
        let cols = *tensor.shape.last().expect("no scalars");
        let rows = tensor.shape[..tensor.shape.len() - 1].iter().product();
        Ok(TensorView { storage: Storage::F32, rows, cols, bytes: Cow::Borrowed(tensor.bytes()) })
    }
}

/// How far single elements may be from PyTorch's, which are f32 themselves: f64 is no nearer to them than f32 is.
fn tolerance(name: &str) -> Tolerance {
    if name.starts_with("adapter.grad.") || name.starts_with("adapter.end.") {
        // Twice as many sums as the logits, some of which cancel; and AdamW divides what is left by its own size.
        Tolerance::f32().times(5.0)
    } else {
        Tolerance::f32()
    }
}

#[test]
fn llama_on_the_cpu_is_pytorchs() {
    Folder::llama().check(CpuDevice::new(2));
}

#[test]
fn mistral_on_the_cpu_is_pytorchs() {
    Folder::mistral().check(CpuDevice::new(2));
}

#[test]
fn llama_in_f64_is_pytorchs() {
    Folder::llama().check(ReferenceDevice::new());
}

#[test]
fn mistral_in_f64_is_pytorchs() {
    Folder::mistral().check(ReferenceDevice::new());
}

/// What the test would say of an engine that looked beyond the window.
#[test]
fn without_its_window_mistral_is_something_else() {
    let mut mistral = Folder::mistral();
    assert_eq!(mistral.config.window, Some(7));
    mistral.config.window = None;
    let answers = mistral.answers(CpuDevice::new(1));
    let difference = |name: &str| max_difference(&answers[name], &mistral.golden.tensor(name).f64());
    assert!(difference("base.logits") > 1e3 * LOGITS, "{}", difference("base.logits"));
    assert!(difference("losses") > 1e2 * LOSSES, "{}", difference("losses"));

    // A window of another length is no better, and one that reaches over the whole sequence is none.
    mistral.config.window = Some(8);
    let wider = mistral.answers(CpuDevice::new(1));
    assert!(max_difference(&wider["base.logits"], &mistral.golden.tensor("base.logits").f64()) > 1e2 * LOGITS);
    mistral.config.window = Some(24);
    assert_eq!(mistral.answers(CpuDevice::new(1)), answers);
}
