//! config.json and GGUF keys: real ones are understood, each key that would change the arithmetic is honoured or refused by name.
use std::collections::BTreeMap;

use engine::config::{Linear, TensorName};
use families::gguf::{self, MetaValue};
use families::rotary::{Rope, RopeScaling};
use families::{Described, Family, FamilyError, hugging_face};
use serde_json::{Value, json};

/// config.json of SmolLM2-135M-Instruct, as transformers 4 wrote it.
fn smollm() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
        "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
        "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152
    })
}

fn with(changes: Value) -> Value {
    let mut config = smollm();
    for (key, value) in changes.as_object().unwrap() {
        if value == "REMOVE" {
            config.as_object_mut().unwrap().remove(key);
        } else {
            config[key] = value.clone();
        }
    }
    config
}

fn describe(changes: Value) -> Described {
    hugging_face::describe(&with(changes.clone())).unwrap_or_else(|e| panic!("{changes}: {e}"))
}

#[test]
fn smollm_is_understood() {
    let d = describe(json!({}));
    let c = &d.config;
    assert_eq!((c.vocab, c.hidden, c.layers, c.heads, c.kv_heads, c.head_dim, c.intermediate), (49152, 576, 30, 9, 3, 64, 1536));
    assert_eq!((c.norm_eps, c.window, c.context, c.tied_embeddings, d.family), (1e-5, None, 8192, true, Family::Llama));
    assert_eq!((c.rotary_inv_freq.len(), c.rotary_inv_freq[1]), (32, 0.697_830_56));
    assert_eq!(d.rope, Rope { theta: 100_000.0, scaling: RopeScaling::None });
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let absent = json!({"num_key_value_heads": "REMOVE", "max_position_embeddings": "REMOVE", "rms_norm_eps": "REMOVE", "rope_theta": "REMOVE", "tie_word_embeddings": "REMOVE", "hidden_act": "REMOVE", "attention_bias": "REMOVE", "mlp_bias": "REMOVE"});
    let c = describe(absent).config;
    assert_eq!((c.kv_heads, c.context, c.norm_eps, c.tied_embeddings), (9, 2048, 1e-6, false));
    assert_eq!(c.rotary_inv_freq, describe(json!({"rope_theta": 10000.0})).config.rotary_inv_freq);
    let mistral = json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"]});
    assert_eq!(describe(mistral).config.window, Some(4096));
    assert_eq!(describe(json!({"model_type": "REMOVE"})).family, Family::Llama); // by its architecture
}

#[test]
fn windows_belong_to_mistral() {
    let window = |family: &str, window: Value| describe(json!({"model_type": family, "sliding_window": window})).config.window;
    assert_eq!(window("mistral", json!(7)), Some(7));
    assert_eq!(window("mistral", Value::Null), None);
    assert_eq!(window("llama", json!(7)), None);
}

#[test]
fn a_head_size_of_its_own_is_honoured() {
    assert_eq!(describe(json!({"head_dim": 128})).config.linear_shape(Linear::Query), (9 * 128, 576));
    assert_eq!(describe(json!({"head_dim": null})).config.head_dim, 64);
}

#[test]
fn rotary_settings_stand_in_two_places_and_three_kinds() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let old = describe(json!({"rope_theta": 500000.0, "rope_scaling": llama3}));
    let mut inner = llama3.clone();
    inner["rope_theta"] = json!(500000.0);
    let new = describe(json!({"rope_theta": "REMOVE", "rope_scaling": "REMOVE", "rope_parameters": inner}));
    assert_eq!(old, new);
    assert_eq!(old.rope.scaling, RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 });
    assert_eq!(describe(json!({"rope_scaling": {"rope_type": "default"}})), describe(json!({})));
    let linear = describe(json!({"rope_scaling": {"type": "linear", "factor": 4.0}})).config;
    assert_eq!(linear.rotary_inv_freq[0], 0.25);
}

#[test]
fn what_is_not_done_is_refused_by_name_and_value() {
    for (changes, expected) in [
        (json!({"model_type": "gemma3_text"}), "model_type is \"gemma3_text\"; supported: llama"),
        (json!({"model_type": 7}), "model_type is 7; supported: llama"),
        (json!({"model_type": "REMOVE", "architectures": ["GPT2LMHeadModel"]}), "architectures is [\"GPT2LMHeadModel\"]; supported: llama"),
        (json!({"model_type": "REMOVE", "architectures": "REMOVE"}), "no model_type"),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "architectures is [\"LlamaForSequenceClassification\"]"),
        (json!({"attention_bias": true}), "attention_bias is true"),
        (json!({"mlp_bias": true}), "mlp_bias is true"),
        (json!({"mlp_bias": "yes"}), "mlp_bias is a text; true or false expected"),
        (json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\"; supported: silu"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5"),
        (json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config is gptq; supported: bitsandbytes"),
        (json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}), "rope_type is yarn; supported: default, linear, llama3"),
        (json!({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}), "rope_type is dynamic"),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "no factor"),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": 0}}), "factor is 0; from 0.001 to 1000000 expected"),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}}),
            "low_freq_factor is 4",
        ),
        (json!({"rope_scaling": [1]}), "rope_scaling is an array"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers is 0; from 1 to 1024 expected"),
        (json!({"num_hidden_layers": 2147483648u64}), "num_hidden_layers is 2147483648"),
        (json!({"num_hidden_layers": -1}), "num_hidden_layers is -1"),
        (json!({"num_hidden_layers": 30.5}), "num_hidden_layers is 30.5"),
        (json!({"num_hidden_layers": "30"}), "num_hidden_layers is a text; a whole number expected"),
        (json!({"num_hidden_layers": [30]}), "num_hidden_layers is an array"),
        (json!({"num_hidden_layers": "REMOVE"}), "no num_hidden_layers"),
        (json!({"hidden_size": 0}), "hidden_size is 0"),
        (json!({"hidden_size": u64::MAX}), "hidden_size is 18446744073709551615"),
        (json!({"hidden_size": 577}), "hidden_size is 577, which num_attention_heads = 9 does not divide"),
        (json!({"num_key_value_heads": 2}), "num_attention_heads is 9, which num_key_value_heads = 2 does not divide"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads is 0"),
        (json!({"head_dim": 63}), "head_dim is 63, which rotary pairs = 2 does not divide"),
        (json!({"vocab_size": 1e30}), "vocab_size is 1e+30"),
        (json!({"vocab_size": 0}), "vocab_size is 0"),
        (json!({"vocab_size": 16777216, "hidden_size": 1048576, "head_dim": 64}), "elements of the largest weight matrix is"),
        (json!({"intermediate_size": 0}), "intermediate_size is 0"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings is 0"),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps is 0"),
        (json!({"rms_norm_eps": -1e-5}), "rms_norm_eps is -0.00001"),
        (json!({"rms_norm_eps": "small"}), "rms_norm_eps is a text; a number expected"),
        (json!({"rope_theta": 0}), "rope_theta is 0"),
        (json!({"rope_theta": 1e300}), "rope_theta is 1"),
        (json!({"rope_theta": null, "rope_parameters": {"rope_theta": -5}}), "rope_theta is -5"),
        (json!({"model_type": "mistral", "sliding_window": 0}), "sliding_window is 0"),
        (json!({"tie_word_embeddings": 1}), "tie_word_embeddings is a number"),
    ] {
        let message = hugging_face::describe(&with(changes.clone())).expect_err(&changes.to_string()).to_string();
        assert!(message.contains(expected), "{changes}: {message}");
    }
    assert!(hugging_face::describe(&json!([])).unwrap_err().to_string().contains("config.json is an array; an object expected"));
}

#[test]
fn a_config_goes_out_as_it_came_in() {
    for changes in [
        json!({}),
        json!({"tie_word_embeddings": false, "head_dim": 32}),
        json!({"model_type": "mistral", "sliding_window": 7}),
        json!({"model_type": "mistral", "sliding_window": null}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
    ] {
        let described = describe(changes);
        let written = hugging_face::to_config_json(&described).unwrap();
        assert_eq!(hugging_face::describe(&written).unwrap(), described, "{written}");
    }
}

fn smollm_gguf() -> BTreeMap<String, MetaValue> {
    let mut keys = gguf::to_metadata(&describe(json!({}))).0;
    keys.insert("tokenizer.ggml.tokens".into(), MetaValue::Length(49152));
    keys
}

#[test]
fn a_gguf_description_goes_out_as_it_came_in() {
    for changes in [
        json!({}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"model_type": "mistral", "sliding_window": 7, "tie_word_embeddings": false}),
    ] {
        let described = describe(changes);
        let (keys, factors) = gguf::to_metadata(&described);
        assert_eq!(factors, None);
        assert_eq!(gguf::describe(&keys, None, !described.config.tied_embeddings).unwrap(), described);
    }
    let llama3 = describe(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
    );
    let (keys, factors) = gguf::to_metadata(&llama3);
    let back = gguf::describe(&keys, factors.as_deref(), false).unwrap();
    for (a, b) in back.config.rotary_inv_freq.iter().zip(&llama3.config.rotary_inv_freq) {
        assert!((a / b - 1.0).abs() < 2e-7);
    }
    assert!(hugging_face::to_config_json(&back).unwrap_err().to_string().contains("rope_freqs.weight is a list of factors"));
}

#[test]
fn bad_gguf_descriptions_are_refused_by_key_and_value() {
    use MetaValue::{Bool, Float, Length, Signed, Text, Unsigned};
    for (key, value, expected) in [
        ("general.architecture", Some(Text("qwen2".into())), "general.architecture is qwen2; supported: llama"),
        ("general.architecture", Some(Unsigned(1)), "general.architecture is 1; a text expected"),
        ("general.architecture", None, "no general.architecture"),
        ("llama.block_count", Some(Unsigned(0)), "llama.block_count is 0; from 1 to 1024 expected"),
        ("llama.block_count", Some(Unsigned(1 << 31)), "llama.block_count is 2147483648"),
        ("llama.block_count", Some(Signed(-3)), "llama.block_count is -3"),
        ("llama.block_count", Some(Float(3.0)), "llama.block_count is 3; a whole number expected"),
        ("llama.block_count", Some(Text("\u{1b}[2J".into())), "llama.block_count is \"·[2J\""),
        ("llama.block_count", None, "no llama.block_count"),
        ("llama.attention.head_count_kv", Some(Length(30)), "llama.attention.head_count_kv is an array of 30"),
        ("llama.attention.head_count_kv", Some(Unsigned(2)), "which llama.attention.head_count_kv = 2 does not divide"),
        ("llama.attention.value_length", Some(Unsigned(32)), "llama.attention.value_length is 32, but the head's size is 64"),
        ("llama.rope.dimension_count", Some(Unsigned(32)), "llama.rope.dimension_count is 32, but the head's size is 64"),
        ("llama.rope.freq_base", Some(Float(f64::NAN)), "llama.rope.freq_base is NaN"),
        ("llama.rope.freq_base", Some(Float(f64::INFINITY)), "llama.rope.freq_base is inf"),
        ("llama.rope.scaling.type", Some(Text("yarn".into())), "llama.rope.scaling.type is yarn"),
        ("llama.rope.scaling.type", Some(Text("linear".into())), "no llama.rope.scaling.factor"),
        ("llama.rope.scaling.factor", Some(Float(0.0)), "llama.rope.scaling.factor is 0"),
        ("llama.attention.layer_norm_rms_epsilon", Some(Float(0.0)), "llama.attention.layer_norm_rms_epsilon is 0"),
        ("llama.attention.layer_norm_rms_epsilon", None, "no llama.attention.layer_norm_rms_epsilon"),
        ("llama.expert_count", Some(Unsigned(8)), "llama.expert_count is 8; supported: 0"),
        ("llama.logit_scale", Some(Float(0.5)), "llama.logit_scale is 0.5; supported: 1"),
        ("llama.attention.causal", Some(Bool(false)), "llama.attention.causal is false"),
        ("llama.attention.sliding_window", Some(Unsigned(0)), "llama.attention.sliding_window is 0"),
        ("tokenizer.ggml.tokens", Some(Length(0)), "tokenizer.ggml.tokens is 0"),
        ("tokenizer.ggml.tokens", Some(Text("x".into())), "tokenizer.ggml.tokens is \"x\"; an array expected"),
    ] {
        let mut keys = smollm_gguf();
        match value {
            Some(value) => keys.insert(key.into(), value),
            None => keys.remove(key),
        };
        let message = gguf::describe(&keys, None, false).expect_err(key).to_string();
        assert!(message.contains(expected), "{key}: {message}");
    }
    for (factors, expected) in [
        (vec![1.0f32; 31], "\"rope_freqs.weight\" has the shape [31]; [32] expected"),
        (vec![f32::NAN; 32], "rope_freqs.weight is NaN"),
        (vec![0.0; 32], "rope_freqs.weight is 0"),
    ] {
        let message = gguf::describe(&smollm_gguf(), Some(&factors), false).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// convert_hf_to_gguf.py: `w.reshape(heads, 2, d / 2, in).swapaxes(1, 2).reshape(w.shape)`.
#[test]
fn the_row_order_undoes_llama_cpps_permutation() {
    let config = describe(json!({})).config;
    for (linear, heads) in [(Linear::Query, 9), (Linear::Key, 3)] {
        let (d, half) = (64, 32);
        let mut file_rows = Vec::new(); // row i of the file is row file_rows[i] of Hugging Face's matrix
        for head in 0..heads {
            for i in 0..half {
                for s in 0..2 {
                    file_rows.push(head * d + s * half + i);
                }
            }
        }
        let order = gguf::row_order(TensorName::Linear(3, linear), &config).unwrap();
        assert_eq!(order.iter().map(|&i| file_rows[i]).collect::<Vec<_>>(), (0..heads * d).collect::<Vec<_>>());
        let file: Vec<u8> = file_rows.iter().flat_map(|&r| [(r / 256) as u8, (r % 256) as u8, 7]).collect();
        let expected: Vec<u8> = (0..heads * d).flat_map(|r| [(r / 256) as u8, (r % 256) as u8, 7]).collect();
        assert_eq!(gguf::reorder_rows(&file, &order), expected);
    }
    for name in [TensorName::Linear(0, Linear::Value), TensorName::Linear(0, Linear::Output), TensorName::Embedding, TensorName::MlpNorm(1)]
    {
        assert_eq!(gguf::row_order(name, &config), None);
    }
}

#[test]
fn the_golden_models_are_understood() {
    for (text, family, window, tied) in [
        (include_str!("../../../golden/models/llama/config.json"), Family::Llama, None, false),
        (include_str!("../../../golden/models/mistral/config.json"), Family::Mistral, Some(7), true),
    ] {
        let d = hugging_face::describe(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(
            (d.family, d.config.window, d.config.tied_embeddings, d.config.vocab, d.config.head_dim),
            (family, window, tied, 128, 8)
        );
    }
}

#[test]
fn messages_do_not_carry_the_files_control_characters() {
    let evil = json!({"model_type": format!("\u{1b}[31m{}", "x".repeat(10_000))});
    let message = hugging_face::describe(&evil).unwrap_err();
    assert!(matches!(message, FamilyError::Architecture { .. }));
    assert!(!message.to_string().contains('\u{1b}') && message.to_string().len() < 400);
}
