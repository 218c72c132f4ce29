//! Tiny models of transformers, read as their folders describe them, answer element by element as PyTorch does.
//!
//! golden/models/make.py made them, with logits, all gradients and ten optimiser steps of an adapter. Each has what is
//! peculiar to its family in a size that counts: a Mistral with a window of 7 under sequences of 24 has its numbers only
//! where the window is.
use std::borrow::Cow;
use std::collections::BTreeMap;

use engine::config::{Gate, Linear, LinearSet, TensorName};
use engine::cpu::CpuDevice;
use engine::device::{Device, Storage};
use engine::model::{SourceError, TensorView, WeightSource};
use families::adapters::{Half, tensor_name};
use families::gguf::{self, MetaValue};
use families::tensors::{Naming, Placed, place};
use families::{Described, Family, hugging_face};
use testkit::golden::Golden;
use testkit::parity::{answers, full_answers, max_difference, norm_difference};
use testkit::{ReferenceDevice, Tolerance};

/// The bound on logits: largest difference over largest logit.
const LOGITS: f64 = 1e-4;
/// The bound on gradients: norm of the difference over norm.
const GRADIENTS: f64 = 1e-3;
/// The bound on the losses of ten steps, relative.
const LOSSES: f64 = 1e-4;

/// A committed folder.
struct Folder {
    described: Described,
    placed: BTreeMap<TensorName, Placed>,
    /// By the names of a Hugging Face folder, or of a GGUF file.
    weights: Golden,
    golden: Golden,
}

macro_rules! folder {
    ($name:literal) => {
        folder!("models", $name, "golden")
    };
    ($set:literal, $name:literal, $golden:literal) => {
        Folder::parse(
            include_str!(concat!("../../../golden/", $set, "/", $name, "/config.json")),
            include_bytes!(concat!("../../../golden/", $set, "/", $name, "/model.safetensors")),
            include_bytes!(concat!("../../../golden/", $set, "/", $name, "/", $golden, ".safetensors")),
        )
    };
}

impl Folder {
    fn parse(config: &str, weights: &[u8], golden: &[u8]) -> Folder {
        let described = hugging_face::describe(&serde_json::from_str(config).expect("JSON")).expect("a known family");
        Folder::of(described, Naming::HuggingFace, Golden::parse(weights), Golden::parse(golden))
    }

    fn of(described: Described, naming: Naming, weights: Golden, golden: Golden) -> Folder {
        let present = weights.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()));
        let placed = place(&described, naming, present).expect("all tensors, and no others");
        Folder { described, placed: placed.into_iter().map(|placed| (placed.name, placed)).collect(), weights, golden }
    }

    fn answers<D: Device>(&self, device: D) -> BTreeMap<String, Vec<f64>> {
        let config = &self.described.config;
        let names = |layer, linear| [Half::A, Half::B, Half::Magnitude].map(|half| tensor_name(config, layer, linear, half));
        answers(device, config, self, &self.golden, &names).expect("a sound file")
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
        let placed = self.placed.get(&name).ok_or(SourceError::Missing)?;
        let tensor = &self.weights.tensors[&placed.source];
        assert_eq!(tensor.dtype, "F32");
        let cols = *placed.shape.last().expect("no scalars");
        let rows = placed.shape[..placed.shape.len() - 1].iter().product();
        let bytes = Cow::Owned(placed.rows_of(tensor.bytes().to_vec()));
        Ok(TensorView { storage: Storage::F32, rows, cols, bytes, offset: placed.offset })
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

macro_rules! is_pytorchs {
    ($($name:ident: $file:literal, $family:ident;)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn on_the_cpu() {
                    assert_eq!(folder!($file).described.family, Family::$family);
                    folder!($file).check(CpuDevice::new(2));
                }

                #[test]
                fn in_f64() {
                    folder!($file).check(ReferenceDevice::new());
                }

                #[test]
                fn from_gguf() {
                    as_gguf(folder!($file)).check(CpuDevice::new(1));
                }

                #[test]
                fn described_there_and_back() {
                    let described = folder!($file).described;
                    let written = hugging_face::to_config_json(&described).expect("a config.json");
                    assert_eq!(hugging_face::describe(&written).expect("a config.json"), described, "{written}");
                }
            }
        )*
    };
}

is_pytorchs! {
    llama: "llama", Llama;
    mistral: "mistral", Mistral;
    llama3: "llama3", Llama;
    mistral_heads: "mistral_heads", Mistral;
    qwen2: "qwen2", Qwen2;
    qwen3: "qwen3", Qwen3;
    gemma2: "gemma2", Gemma2;
    gemma3: "gemma3", Gemma3;
    phi3: "phi3", Phi3;
    smollm3: "smollm3", SmolLm3;
}

/// The same model as convert_hf_to_gguf.py would leave it: tensors by GGUF's names, the rows of Llama's q and k interleaved,
/// 1 added to Gemma's gains, Phi's matrices as they are.
fn as_gguf(folder: Folder) -> Folder {
    let Folder { described, weights, golden, .. } = folder;
    let config = &described.config;
    let llama = matches!(described.family, Family::Llama | Family::Mistral | Family::SmolLm3);
    let gemma = matches!(described.family, Family::Gemma2 | Family::Gemma3);
    let mlp_norm = if gemma { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
    let mut file = Golden::default();
    for (name, tensor) in &weights.tensors {
        let mut tensor = tensor.clone();
        let (stem, kind) = name.rsplit_once('.').expect("a name has an end");
        let heads = match stem.rsplit('.').next() {
            Some("q_proj") => config.heads,
            Some("k_proj") => config.kv_heads,
            _ => 0,
        };
        if llama && heads > 0 {
            // reshape(heads, 2, d / 2, -1).swapaxes(1, 2)
            let (d, row) = (config.head_dim, tensor.bytes().len() / (heads * config.head_dim));
            let from = |row: usize| (row / d) * d + row % 2 * (d / 2) + row % d / 2;
            let bytes = tensor.bytes().to_vec();
            let rows = (0..heads * d).flat_map(|to| bytes[from(to) * row..][..row].to_vec());
            tensor = tensor.with_bytes(rows.collect());
        }
        if gemma && stem.ends_with("norm") {
            tensor = tensor.with_bytes(tensor.f32().iter().flat_map(|w| (w + 1.0).to_le_bytes()).collect());
        }
        let stem = match stem {
            "model.embed_tokens" => "token_embd".to_owned(),
            "model.norm" => "output_norm".to_owned(),
            "lm_head" => "output".to_owned(),
            inside => {
                let (layer, part) = inside.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')).expect("a block's tensor");
                let part = match part.rsplit('.').next().expect("a name") {
                    "input_layernorm" => "attn_norm",
                    "q_proj" => "attn_q",
                    "k_proj" => "attn_k",
                    "v_proj" => "attn_v",
                    "qkv_proj" => "attn_qkv",
                    "q_norm" => "attn_q_norm",
                    "k_norm" => "attn_k_norm",
                    "o_proj" => "attn_output",
                    norm if norm == mlp_norm => "ffn_norm",
                    "post_attention_layernorm" => "post_attention_norm",
                    "gate_proj" => "ffn_gate",
                    "up_proj" | "gate_up_proj" => "ffn_up",
                    "down_proj" => "ffn_down",
                    "post_feedforward_layernorm" => "post_ffw_norm",
                    other => panic!("{other}"),
                };
                format!("blk.{layer}.{part}")
            }
        };
        file.tensors.insert(format!("{stem}.{kind}"), tensor);
    }
    // What llama.cpp has no key for stays as it takes it for granted, and is put back.
    let mut granted = described.clone();
    granted.config.attention_scale = 1.0 / (config.head_dim as f32).sqrt();
    if described.family == Family::Qwen2 {
        granted.config.attention.iter_mut().for_each(|layer| layer.window = None);
    }
    assert_eq!(gguf::to_metadata(&described).is_ok(), granted == described, "what cannot be said is refused");
    let (mut keys, floats) = gguf::to_metadata(&granted).expect("llama.cpp computes the same");
    keys.insert("tokenizer.ggml.tokens".into(), MetaValue::Length(config.vocab));
    let names = file.tensors.keys().map(String::as_str).collect();
    let mut read = gguf::describe(&keys, &names, &floats).expect("what convert_hf_to_gguf.py writes");
    assert_eq!(ignoring_files(&read), ignoring_files(&granted), "{keys:?}");
    read.config.attention_scale = config.attention_scale;
    read.config.attention.clone_from(&config.attention);
    Folder::of(read, Naming::Gguf, file, golden)
}

/// What both kinds of files say alike: rotary frequencies through GGUF's list of factors are rounded once more.
fn ignoring_files(described: &Described) -> (String, engine::config::ModelConfig) {
    let mut config = described.config.clone();
    config.rotary.iter_mut().for_each(|rotary| rotary.inv_freq.iter_mut().for_each(|x| *x = (*x * 1e6).round()));
    // A llama without a window may be a Mistral.
    (described.family.architecture().to_owned(), config)
}

/// DoRA as `peft` trains it: logits, the gradients of A, B and magnitudes, ten steps.
#[test]
fn dora_is_pefts() {
    for folder in [|| folder!("methods", "tied", "dora"), || folder!("methods", "untied", "dora")] {
        assert!(folder().golden.tensors.keys().any(|name| name.starts_with("adapter.grad.") && name.ends_with("lora_magnitude_vector")));
        folder().check(CpuDevice::new(2));
        folder().check(ReferenceDevice::new());
    }
}

/// Full fine-tuning as transformers' Trainer does it: the gradient of every parameter, ten losses, and what becomes of gains,
/// biases and the embedding, which is the head in one of the models.
fn full_is_transformers<D: Device>(device: D, folder: &Folder) {
    let config = &folder.described.config;
    let answers = full_answers(device, config, folder, &folder.golden).expect("a sound file");
    let mut compared = 0;
    for placed in folder.placed.values() {
        let name = placed.name;
        let gradient = folder.golden.tensor(&format!("grad.{}", placed.source)).f64();
        tolerance("adapter.grad.").check(&placed.source, &answers.gradients[&name], &gradient);
        assert!(norm_difference(&answers.gradients[&name], &gradient) <= GRADIENTS, "{name}");
        if let Some(end) = folder.golden.tensors.get(&format!("end.{}", placed.source)) {
            // The engine holds gains as it multiplies by them.
            let ours: Vec<f64> = answers.end[&name].iter().map(|x| f64::from(*x) - f64::from(placed.offset)).collect();
            tolerance("adapter.end.").check(&placed.source, &ours, &end.f64());
            compared += 1;
        }
    }
    assert_eq!(answers.gradients.len(), folder.placed.len());
    assert_eq!(compared, folder.golden.tensors.keys().filter(|name| name.starts_with("end.")).count());
    let expected = folder.golden.tensor("losses").f64();
    assert!(answers.losses.iter().zip(&expected).all(|(a, e)| (a - e).abs() <= LOSSES * e), "{:?} instead of {expected:?}", answers.losses);
}

#[test]
fn full_fine_tuning_is_transformers_tied() {
    let folder = folder!("methods", "tied", "full");
    assert!(folder.described.config.tied_embeddings && folder.described.config.embedding_scale.is_some());
    full_is_transformers(CpuDevice::new(2), &folder);
    full_is_transformers(ReferenceDevice::new(), &folder);
}

#[test]
fn full_fine_tuning_is_transformers_untied() {
    let folder = folder!("methods", "untied", "full");
    assert!(!folder.described.config.tied_embeddings && folder.described.config.biases != LinearSet::EMPTY);
    full_is_transformers(CpuDevice::new(2), &folder);
    full_is_transformers(ReferenceDevice::new(), &folder);
}

/// What the test would say of an engine that left the magnitudes out.
#[test]
fn without_magnitudes_dora_is_something_else() {
    let mut folder = folder!("methods", "untied", "dora");
    folder.golden.tensors.retain(|name, _| !name.ends_with("lora_magnitude_vector"));
    let answers = folder.answers(CpuDevice::new(1));
    assert!(max_difference(&answers["adapter.logits"], &folder.golden.tensor("adapter.logits").f64()) > 1e3 * LOGITS);
}

/// What the test would say of an engine that looked beyond the window.
#[test]
fn without_its_window_mistral_is_something_else() {
    let mut mistral = folder!("mistral");
    let windows = |folder: &mut Folder, window| folder.described.config.attention.iter_mut().for_each(|layer| layer.window = window);
    assert!(mistral.described.config.attention.iter().all(|layer| layer.window == Some(7)));
    windows(&mut mistral, None);
    let answers = mistral.answers(CpuDevice::new(1));
    let difference = |name: &str| max_difference(&answers[name], &mistral.golden.tensor(name).f64());
    assert!(difference("base.logits") > 1e3 * LOGITS, "{}", difference("base.logits"));
    assert!(difference("losses") > 1e2 * LOSSES, "{}", difference("losses"));

    // A window of another length is no better, and one that reaches over the whole sequence is none.
    windows(&mut mistral, Some(8));
    let wider = mistral.answers(CpuDevice::new(1));
    assert!(max_difference(&wider["base.logits"], &mistral.golden.tensor("base.logits").f64()) > 1e2 * LOGITS);
    windows(&mut mistral, Some(24));
    assert_eq!(mistral.answers(CpuDevice::new(1)), answers);
}

/// What it would say of one that left out anything that is peculiar to a family.
#[test]
fn without_its_peculiarities_a_model_is_something_else() {
    type Change = fn(&mut engine::config::ModelConfig);
    let changes: [(&str, Folder, Change); 14] = [
        ("llama3's frequencies", folder!("llama3"), |c| c.rotary[0].inv_freq[3] *= 8.0),
        ("biases of the MLP", folder!("llama3"), |c| c.biases = LinearSet::of(&Linear::ALL[..4])),
        ("biases of attention", folder!("qwen2"), |c| c.biases = LinearSet::EMPTY),
        ("windows from a layer on", folder!("qwen2"), |c| c.attention[0].window = Some(6)),
        ("norms of queries and keys", folder!("qwen3"), |c| c.qk_norms = false),
        ("soft caps of attention", folder!("gemma2"), |c| c.attention_softcap = None),
        ("soft caps of logits", folder!("gemma2"), |c| c.logit_softcap = None),
        ("norms after attention and MLP", folder!("gemma2"), |c| c.post_norms = false),
        ("scaled embeddings", folder!("gemma3"), |c| c.embedding_scale = None),
        ("the bases of local and global layers", folder!("gemma3"), |c| c.attention[5].rotary = Some(0)),
        ("tanh GELU", folder!("gemma3"), |c| c.gate = Gate::Silu),
        ("the part of a head that turns", folder!("phi3"), |c| c.rotary[0].inv_freq.push(0.001)),
        ("the factor on sine and cosine", folder!("phi3"), |c| c.rotary[0].scale = 1.0),
        ("layers that do not know positions", folder!("smollm3"), |c| c.attention[3].rotary = Some(0)),
    ];
    for (what, mut folder, change) in changes {
        change(&mut folder.described.config);
        let answers = folder.answers(CpuDevice::new(1));
        let difference = max_difference(&answers["base.logits"], &folder.golden.tensor("base.logits").f64());
        assert!(difference > 20.0 * LOGITS, "without {what}: {difference}");
    }
}
