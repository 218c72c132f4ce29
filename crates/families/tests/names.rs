//! Names of tensors and of adapter tensors, there and back; what is missing or too much is named.
use std::collections::BTreeMap;

use engine::config::{Linear, ModelConfig, TensorName};
use families::adapters::{self, Half};
use families::tensors::{self, Naming};
use families::{Described, Family, FamilyError, hugging_face};
use serde_json::json;

/// A description of 12 layers.
fn described(family: Family, tied_embeddings: bool) -> Described {
    hugging_face::describe(&json!({
        "model_type": family.model_type(), "vocab_size": 128, "hidden_size": 48, "num_hidden_layers": 12, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 80, "max_position_embeddings": 256, "tie_word_embeddings": tied_embeddings
    }))
    .unwrap()
}

fn config(tied_embeddings: bool) -> ModelConfig {
    described(Family::Llama, tied_embeddings).config
}

#[test]
fn every_tensor_has_a_name_of_its_own() {
    for family in Family::ALL {
        for naming in [Naming::HuggingFace, Naming::Gguf] {
            let described = described(family, false);
            let expected = tensors::expected(&described, naming);
            let names: std::collections::BTreeSet<&str> = expected.iter().map(|p| p.source.as_str()).collect();
            let fused = if family == Family::Phi3 { 12 * 3 } else { 0 };
            assert_eq!(names.len() + fused, expected.len(), "{family:?} {naming:?}");
            assert_eq!(expected.iter().map(|p| p.name).collect::<Vec<_>>(), described.config.tensor_names());
        }
    }
    assert!(!tensors::expected(&described(Family::Llama, true), Naming::Gguf).iter().any(|p| p.name == TensorName::Head));
}

#[test]
fn names_are_those_of_the_files() {
    use TensorName::{Bias, Head, KeyNorm, MlpNorm, PostAttentionNorm, PostMlpNorm, QueryNorm};
    let weight = |linear| TensorName::Linear(11, linear);
    for (family, name, hugging_face, gguf) in [
        (Family::Llama, weight(Linear::Output), "model.layers.11.self_attn.o_proj.weight", "blk.11.attn_output.weight"),
        (Family::Llama, Head, "lm_head.weight", "output.weight"),
        (Family::Llama, MlpNorm(3), "model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
        (Family::Qwen2, Bias(3, Linear::Key), "model.layers.3.self_attn.k_proj.bias", "blk.3.attn_k.bias"),
        (Family::Qwen3, QueryNorm(0), "model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
        (Family::Gemma3, KeyNorm(0), "model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"),
        (Family::Gemma2, MlpNorm(3), "model.layers.3.pre_feedforward_layernorm.weight", "blk.3.ffn_norm.weight"),
        (Family::Gemma2, PostAttentionNorm(3), "model.layers.3.post_attention_layernorm.weight", "blk.3.post_attention_norm.weight"),
        (Family::Gemma2, PostMlpNorm(3), "model.layers.3.post_feedforward_layernorm.weight", "blk.3.post_ffw_norm.weight"),
        (Family::Phi3, weight(Linear::Value), "model.layers.11.self_attn.qkv_proj.weight", "blk.11.attn_qkv.weight"),
        (Family::Phi3, weight(Linear::Up), "model.layers.11.mlp.gate_up_proj.weight", "blk.11.ffn_up.weight"),
    ] {
        let config = described(family, false).config;
        assert_eq!(tensors::source_name(name, &config, Naming::HuggingFace), hugging_face);
        assert_eq!(tensors::source_name(name, &config, Naming::Gguf), gguf);
    }
}

#[test]
fn fused_matrices_are_taken_apart() {
    let phi = described(Family::Phi3, false);
    let placed = tensors::expected(&phi, Naming::HuggingFace);
    let of = |linear| placed.iter().find(|p| p.name == TensorName::Linear(2, linear)).unwrap();
    let rows = [Linear::Query, Linear::Key, Linear::Value].map(|linear| (of(linear).first_row, of(linear).shape[0]));
    assert_eq!(rows, [(0, 48), (48, 16), (64, 16)]);
    assert_eq!(of(Linear::Key).source_shape, [80, 48]);
    assert_eq!(
        (of(Linear::Up).first_row, of(Linear::Up).shape.as_slice(), of(Linear::Up).source_shape.as_slice()),
        (80, &[80, 48][..], &[160, 48][..])
    );
    // 3 bytes a row.
    let bytes: Vec<u8> = (0..80 * 3).map(|i| i as u8).collect();
    assert_eq!(of(Linear::Value).rows_of(bytes), (64 * 3..80 * 3).map(|i| i as u8).collect::<Vec<_>>());
    // Only Gemma's Hugging Face files hold what is added to 1.
    for family in Family::ALL {
        for naming in [Naming::HuggingFace, Naming::Gguf] {
            let offsets = tensors::expected(&described(family, true), naming);
            let gemma = matches!(family, Family::Gemma2 | Family::Gemma3) && naming == Naming::HuggingFace;
            assert!(offsets.iter().all(|p| p.offset == if gemma && p.name.is_vector() { 1.0 } else { 0.0 }), "{family:?}");
        }
    }
}

/// The tensors of a model as a file would list them, with some changes.
fn place(tied: bool, naming: Naming, change: impl FnOnce(&mut BTreeMap<String, Vec<usize>>)) -> families::Result<usize> {
    let described = described(Family::Llama, tied);
    let expected = tensors::expected(&described, naming);
    let mut present: BTreeMap<String, Vec<usize>> = expected.into_iter().map(|p| (p.source, p.source_shape)).collect();
    change(&mut present);
    tensors::place(&described, naming, present.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))).map(|placed| placed.len())
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_named() {
    for naming in [Naming::HuggingFace, Naming::Gguf] {
        assert_eq!(place(false, naming, |_| ()).unwrap(), 111);
        assert_eq!(place(true, naming, |_| ()).unwrap(), 110);
    }
    let hf = Naming::HuggingFace;
    assert_eq!(
        place(true, hf, |p| {
            p.insert("lm_head.weight".into(), vec![128, 48]);
        })
        .unwrap(),
        110,
        "a head beside a tied embedding"
    );
    assert_eq!(
        place(false, hf, |p| {
            p.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![4]);
        })
        .unwrap(),
        111
    );
    assert_eq!(
        place(false, Naming::Gguf, |p| {
            p.insert("rope_freqs.weight".into(), vec![4]);
        })
        .unwrap(),
        111
    );
    let error = |change: fn(&mut BTreeMap<String, Vec<usize>>)| place(false, hf, change).unwrap_err().to_string();
    assert_eq!(
        error(|p| drop(p.remove("lm_head.weight"))),
        "of 111 tensors of the model, missing: lm_head.weight; in the file but not of the model: none"
    );
    let both = error(|p| {
        p.remove("model.norm.weight");
        p.insert("model.layers.12.mlp.up_proj.weight".into(), vec![80, 48]);
    });
    assert_eq!(
        both,
        "of 111 tensors of the model, missing: model.norm.weight; in the file but not of the model: model.layers.12.mlp.up_proj.weight"
    );
    assert!(error(|p| p.clear()).contains("missing: model.embed_tokens.weight, model.layers.0.input_layernorm.weight, model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight, model.layers.0.self_attn.v_proj.weight and 106 more"));
    assert_eq!(
        error(|p| {
            p.insert("model.norm.weight".into(), vec![47]);
        }),
        "tensor \"model.norm.weight\" has the shape [47]; [48] expected from the description"
    );
    assert!(
        error(|p| {
            p.insert("model.layers.3.self_attn.k_proj.weight".into(), vec![48, 16]);
        })
        .contains("has the shape [48, 16]; [16, 48] expected")
    );
    assert!(
        error(|p| {
            p.insert("model.layers.0.self_attn.q_proj.bias".into(), vec![48]);
        })
        .contains("not of the model: model.layers.0.self_attn.q_proj.bias")
    );
}

#[test]
fn adapter_names_go_there_and_back() {
    for family in [Family::Llama, Family::Phi3] {
        let config = described(family, true).config;
        for (layer, linear) in [0, 3, 11, 120].into_iter().flat_map(|layer| config.adapter_linears().into_iter().map(move |l| (layer, l))) {
            assert_eq!(adapters::linear_of(&config, adapters::module_name(&config, linear)), Some(linear));
            for half in [Half::A, Half::B, Half::Magnitude] {
                let name = adapters::tensor_name(&config, layer, linear, half);
                assert_eq!(adapters::parse_tensor_name(&config, &name).unwrap(), (layer, linear, half));
            }
        }
    }
    let (llama, phi) = (config(true), described(Family::Phi3, true).config);
    let name = adapters::tensor_name(&llama, 3, Linear::Query, Half::A);
    assert_eq!(name, "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight");
    assert!(adapters::parse_tensor_name(&phi, &name).is_err());
    let name = adapters::tensor_name(&phi, 3, Linear::Gate, Half::B);
    assert_eq!(name, "base_model.model.model.layers.3.mlp.gate_up_proj.lora_B.weight");
    assert!(adapters::parse_tensor_name(&llama, &name).is_err());
    for bad in [
        "base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.3.self_attn.q_proj.lora_magnitude_vector.weight",
        "base_model.model.model.layers.3.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.3.self_attn.q_proj.base_layer.bias",
        "base_model.model.model.layers.3.mlp.q_proj.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.weight",
        "model.layers.3.self_attn.q_proj.lora_a",
    ] {
        assert_eq!(adapters::parse_tensor_name(&llama, bad), Err(FamilyError::AdapterTensor { name: bad.into() }));
    }
}

#[test]
fn targets_are_named_in_several_ways() {
    let config = config(true);
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let linears = |names: &[&str]| adapters::linears_of(&config, &owned(names));
    assert_eq!(linears(&["all-linear"]).unwrap(), Linear::ALL);
    assert_eq!(linears(&["attention"]).unwrap(), Linear::ALL[..4]);
    assert_eq!(linears(&["mlp", "v_proj", "v_proj"]).unwrap(), [Linear::Value, Linear::Gate, Linear::Up, Linear::Down]);
    assert_eq!(linears(&["model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"]).unwrap(), [Linear::Output]);
    assert!(linears(&["q_porj"]).unwrap_err().to_string().starts_with("\"q_porj\" is no linear layer of this model; known: down_proj"));
    assert!(linears(&["lm_head"]).unwrap_err().to_string().contains("q_proj, up_proj, v_proj, and all-linear"));
    assert!(linears(&["qkv_proj"]).unwrap_err().to_string().contains("is no linear layer of this model"));
    assert!(linears(&["q_proj.bias"]).unwrap_err().to_string().starts_with("\"q_proj.bias\" is a bias: biases stay frozen"));
    assert!(linears(&[]).unwrap_err().to_string().starts_with("no linear layer named"));
    assert_eq!(adapters::target_modules(&config, &[Linear::Up, Linear::Query, Linear::Up]), ["q_proj", "up_proj"]);

    let phi = described(Family::Phi3, true).config;
    let linears = |names: &[&str]| adapters::linears_of(&phi, &owned(names));
    assert_eq!(linears(&["all-linear"]).unwrap(), Linear::ALL);
    assert_eq!(linears(&["qkv_proj", "o_proj"]).unwrap(), Linear::ALL[..4]);
    assert_eq!(linears(&["model.layers.0.mlp.gate_up_proj"]).unwrap(), Linear::ALL[4..6]);
    assert_eq!(linears(&["k_proj", "v_proj", "q_proj"]).unwrap(), Linear::ALL[..3], "all of its parts are the whole");
    let error = linears(&["k_proj"]).unwrap_err().to_string();
    assert_eq!(error, "\"k_proj\" is a part of \"qkv_proj\" in this model, which has one adapter: name \"qkv_proj\"");
    assert_eq!(adapters::target_modules(&phi, &Linear::ALL), ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]);
}

#[test]
fn pairs_are_checked_against_the_model() {
    let config = config(true);
    let whole = || -> BTreeMap<String, Vec<usize>> {
        [(11, Linear::Key), (2, Linear::Down), (2, Linear::Query)]
            .into_iter()
            .flat_map(|(layer, linear)| {
                let (out, inner) = config.linear_shape(linear);
                [
                    (adapters::tensor_name(&config, layer, linear, Half::A), vec![4, inner]),
                    (adapters::tensor_name(&config, layer, linear, Half::B), vec![out, 4]),
                ]
            })
            .collect()
    };
    let pairs = adapters::pair(&config, 4, &whole()).unwrap();
    assert_eq!(pairs.iter().map(|p| (p.layer, p.linear)).collect::<Vec<_>>(), [(2, Linear::Query), (2, Linear::Down), (11, Linear::Key)]);
    assert_eq!(pairs[0].b, adapters::tensor_name(&config, 2, Linear::Query, Half::B));
    type Shapes = BTreeMap<String, Vec<usize>>;
    let error = |change: &dyn Fn(&mut Shapes)| {
        let mut tensors = whole();
        change(&mut tensors);
        adapters::pair(&config, 4, &tensors).unwrap_err().to_string()
    };
    let (a, b) = (adapters::tensor_name(&config, 2, Linear::Query, Half::A), adapters::tensor_name(&config, 2, Linear::Query, Half::B));
    assert_eq!(error(&|t| drop(t.remove(&a))), format!("adapter tensor {b:?} stands alone; {a:?} expected beside it"));
    assert!(error(&|t| drop(t.insert(a.clone(), vec![8, 48]))).contains("has the shape [8, 48]; [4, 48] expected"));
    assert!(error(&|t| drop(t.insert(b.clone(), vec![40, 4]))).contains("has the shape [40, 4]; [48, 4] expected"));
    assert!(
        error(&|t| drop(t.insert(adapters::tensor_name(&config, 12, Linear::Query, Half::A), vec![4, 48])))
            .contains("is for layer 12; the model has layers 0 to 11")
    );
    // With DoRA each pair has its magnitudes.
    let magnitude = adapters::tensor_name(&config, 2, Linear::Query, Half::Magnitude);
    assert!(error(&|t| drop(t.insert(magnitude.clone(), vec![48]))).contains("lora_magnitude_vector\" expected beside it"));
    let alone = |t: &mut Shapes| t.retain(|name, _| *name == a || *name == b);
    let wrong = |t: &mut Shapes| drop(t.insert(magnitude.clone(), vec![48, 1]));
    let error_of_one = error(&|t| {
        alone(t);
        wrong(t);
    });
    assert!(error_of_one.contains("has the shape [48, 1]; [48] expected"));
    assert!(
        error(&|t| drop(t.insert("base_model.model.lm_head.weight".into(), vec![128, 48])))
            .contains("is not a LoRA weight of a block's linear layer")
    );
    assert_eq!(error(&|t| t.clear()), "the adapter has no tensors");
}
