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
    assert_eq!((c.norm_eps, c.attention[29].window, c.context, c.tied_embeddings, d.family), (1e-5, None, 8192, true, Family::Llama));
    assert_eq!((c.rotary[0].inv_freq.len(), c.rotary[0].inv_freq[1], c.attention.len()), (32, 0.697_830_56, 30));
    assert_eq!(d.ropes, [Rope { theta: 100_000.0, turned: 64, scaling: RopeScaling::None }]);
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let absent = json!({"num_key_value_heads": "REMOVE", "max_position_embeddings": "REMOVE", "rms_norm_eps": "REMOVE", "rope_theta": "REMOVE", "tie_word_embeddings": "REMOVE", "hidden_act": "REMOVE", "attention_bias": "REMOVE", "mlp_bias": "REMOVE"});
    let c = describe(absent).config;
    assert_eq!((c.kv_heads, c.context, c.norm_eps, c.tied_embeddings), (9, 2048, 1e-6, false));
    assert_eq!(c.rotary, describe(json!({"rope_theta": 10000.0})).config.rotary);
    let mistral = json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"]});
    assert_eq!(describe(mistral).config.attention[0].window, Some(4096));
    assert_eq!(describe(json!({"model_type": "REMOVE"})).family, Family::Llama); // by its architecture
}

#[test]
fn windows_belong_to_mistral() {
    let window = |family: Family, window: Value| {
        describe(json!({"model_type": family.model_type(), "sliding_window": window})).config.attention[0].window
    };
    assert_eq!(window(Family::Mistral, json!(7)), Some(7));
    assert_eq!(window(Family::Mistral, Value::Null), None);
    assert_eq!(window(Family::Llama, json!(7)), None);
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
    assert_eq!(
        old.ropes[0].scaling,
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 }
    );
    assert_eq!(describe(json!({"rope_scaling": {"rope_type": "default"}})), describe(json!({})));
    let linear = describe(json!({"rope_scaling": {"type": "linear", "factor": 4.0}})).config;
    assert_eq!(linear.rotary[0].inv_freq[0], 0.25);
}

#[test]
fn what_is_not_done_is_refused_by_name_and_value() {
    for (changes, expected) in [
        (
            json!({"model_type": "gemma3"}),
            "model_type is \"gemma3\"; supported: llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, smollm3, as causal language models. Gemma 3 from 4B on comes with a picture encoder",
        ),
        (json!({"model_type": 7}), "model_type is 7; supported: llama"),
        (json!({"model_type": "REMOVE", "architectures": ["GPT2LMHeadModel"]}), "architectures is [\"GPT2LMHeadModel\"]; supported: llama"),
        (json!({"model_type": "REMOVE", "architectures": "REMOVE"}), "no model_type"),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "architectures is [\"LlamaForSequenceClassification\"]"),
        (json!({"model_type": "mistral", "attention_bias": true}), "attention_bias is true; supported: false"),
        (json!({"model_type": "qwen2", "mlp_bias": true}), "mlp_bias is true; supported: false"),
        (json!({"model_type": "gemma3_text", "attn_logit_softcapping": 50}), "attn_logit_softcapping is 50; supported: null"),
        (json!({"model_type": "gemma2", "use_bidirectional_attention": true}), "use_bidirectional_attention is true"),
        (json!({"model_type": "gemma2", "layer_types": ["full_attention"]}), "the length of layer_types is 1, but num_hidden_layers is 30"),
        (
            json!({"model_type": "gemma2", "num_hidden_layers": 1, "layer_types": ["chunked_attention"]}),
            "layer_types is \"chunked_attention\"",
        ),
        (json!({"model_type": "smollm3", "no_rope_layers": [1, 0]}), "no_rope_layers is an array; 0 or 1 for each layer expected"),
        (
            json!({"model_type": "phi3", "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}),
            "the length of short_factor is 1, but the number of rotary pairs is 32",
        ),
        (json!({"model_type": "phi3", "rope_scaling": {"type": "longrope", "short_factor": [1.0]}}), "the length of short_factor is 1"),
        (json!({"model_type": "phi3", "partial_rotary_factor": 0.01}), "partial_rotary_factor is 0.01; supported: a share of head_dim"),
        (json!({"mlp_bias": "yes"}), "mlp_bias is a text; true or false expected"),
        (json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\"; supported: silu, gelu_pytorch_tanh"),
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
    let mut keys = gguf::to_metadata(&describe(json!({}))).unwrap().0;
    keys.insert("tokenizer.ggml.tokens".into(), MetaValue::Length(49152));
    keys
}

/// The description that the metadata gives with or without a head.
fn describe_gguf(keys: &BTreeMap<String, MetaValue>, floats: &BTreeMap<String, Vec<f32>>, head: bool) -> families::Result<Described> {
    gguf::describe(keys, &head.then_some("output.weight").into_iter().collect(), floats)
}

fn factors(values: &[f32]) -> BTreeMap<String, Vec<f32>> {
    BTreeMap::from([(gguf::ROPE_FACTORS.to_owned(), values.to_vec())])
}

#[test]
fn a_gguf_description_goes_out_as_it_came_in() {
    let none = BTreeMap::new();
    for changes in [
        json!({}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"model_type": "mistral", "sliding_window": 7, "tie_word_embeddings": false}),
    ] {
        let described = describe(changes);
        let (keys, floats) = gguf::to_metadata(&described).unwrap();
        assert_eq!(floats, none);
        assert_eq!(describe_gguf(&keys, &none, !described.config.tied_embeddings).unwrap(), described);
    }
    let llama3 = describe(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
    );
    let (keys, floats) = gguf::to_metadata(&llama3).unwrap();
    let back = describe_gguf(&keys, &floats, false).unwrap();
    for (a, b) in back.config.rotary[0].inv_freq.iter().zip(&llama3.config.rotary[0].inv_freq) {
        assert!((a / b - 1.0).abs() < 2e-7);
    }
    assert!(hugging_face::to_config_json(&back).unwrap_err().to_string().contains("rope_freqs.weight is a list of factors"));
}

/// The keys of gemma-3-270m's GGUF file, as llama.cpp's converter left them.
fn gemma_gguf() -> BTreeMap<String, MetaValue> {
    let sizes = [
        ("context_length", 32768),
        ("embedding_length", 640),
        ("block_count", 18),
        ("feed_forward_length", 2048),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 256),
        ("attention.value_length", 256),
        ("attention.sliding_window", 512),
    ];
    let mut keys: BTreeMap<String, MetaValue> = sizes.map(|(key, size)| (format!("gemma3.{key}"), MetaValue::Unsigned(size))).into();
    keys.insert("general.architecture".into(), MetaValue::Text("gemma3".into()));
    keys.insert("gemma3.attention.layer_norm_rms_epsilon".into(), MetaValue::Float(9.999_999_974_752_427e-7));
    keys.insert("gemma3.rope.freq_base".into(), MetaValue::Float(1e6));
    keys.insert("tokenizer.ggml.tokens".into(), MetaValue::Length(262_144));
    keys
}

#[test]
fn gemma_3_is_understood_from_both_kinds_of_files() {
    let given = describe_gguf(&gemma_gguf(), &BTreeMap::new(), false).unwrap();
    // config.json of the same model, without what stands for the defaults of transformers.
    let folder = hugging_face::describe(&json!({
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 640, "intermediate_size": 2048, "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 18,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
        "sliding_window": 512, "vocab_size": 262144
    }))
    .unwrap();
    assert_eq!(given, folder);
    let c = &given.config;
    let global: Vec<usize> = (0..18).filter(|&layer| c.attention[layer].window.is_none()).collect();
    assert_eq!(global, [5, 11, 17]);
    assert!(c.attention.iter().all(|layer| layer.rotary == Some(usize::from(layer.window.is_none()))));
    assert_eq!((c.rotary[0].inv_freq[1], c.rotary[1].inv_freq[1]), (0.930_572_03, 0.897_687_14));
    assert_eq!((c.embedding_scale, c.attention_scale, c.attention_softcap, c.logit_softcap), (Some(25.298_222), 0.0625, None, None));
    assert!(c.qk_norms && c.post_norms && c.tied_embeddings);
}

#[test]
fn what_llama_cpp_takes_for_granted_is_known() {
    // The largest Gemmas scale by hidden size over heads.
    let mut keys = gemma_gguf();
    keys.insert("gemma3.block_count".into(), MetaValue::Unsigned(62));
    assert_eq!(describe_gguf(&keys, &BTreeMap::new(), false).unwrap().config.attention_scale, (1.0 / 160f64.sqrt()) as f32);
    let mut odd = describe_gguf(&gemma_gguf(), &BTreeMap::new(), false).unwrap();
    assert_eq!(gguf::to_metadata(&odd).unwrap().0["gemma3.attention.sliding_window"], MetaValue::Unsigned(512));
    odd.config.attention_scale = 0.06;
    assert!(gguf::to_metadata(&odd).unwrap_err().to_string().contains("the attention's scale of this gemma3_text"));
}

#[test]
fn long_rope_ends_at_the_original_context() {
    let phi = |more: Value| {
        let mut config = json!({
            "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096, "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "vocab_size": 100,
            "partial_rotary_factor": 0.25, "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 4.0], "long_factor": [2.0, 3.0, 4.0, 50.0]}
        });
        more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        hugging_face::describe(&config).unwrap().config
    };
    let c = phi(json!({}));
    assert_eq!((c.context, c.rotary[0].inv_freq.len()), (4096, 4));
    assert_eq!(c.rotary[0].inv_freq[0], 1.0);
    // √(1 + ln 32 / ln 4096)
    assert!((c.rotary[0].scale - 1.190_238).abs() < 1e-6, "{}", c.rotary[0].scale);
    assert!((c.rotary[0].inv_freq[3] - 0.001 / 4.0).abs() < 1e-9);
    assert_eq!(phi(json!({"max_position_embeddings": 4096})).rotary[0].scale, 1.0);
}

#[test]
fn bad_gguf_descriptions_are_refused_by_key_and_value() {
    use MetaValue::{Bool, Float, Length, Signed, Text, Unsigned};
    for (key, value, expected) in [
        (
            "general.architecture",
            Some(Text("olmo2".into())),
            "general.architecture is olmo2; supported: llama, qwen2, qwen3, gemma2, gemma3, phi3, smollm3",
        ),
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
        let message = describe_gguf(&keys, &BTreeMap::new(), false).expect_err(key).to_string();
        assert!(message.contains(expected), "{key}: {message}");
    }
    for (values, expected) in [
        (vec![1.0f32; 31], "\"rope_freqs.weight\" has the shape [31]; [32] expected"),
        (vec![f32::NAN; 32], "rope_freqs.weight is NaN"),
        (vec![0.0; 32], "rope_freqs.weight is 0"),
    ] {
        let message = describe_gguf(&smollm_gguf(), &factors(&values), false).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// convert_hf_to_gguf.py: `w.reshape(heads, 2, d / 2, in).swapaxes(1, 2).reshape(w.shape)`.
#[test]
fn the_row_order_undoes_llama_cpps_permutation() {
    let described = describe(json!({}));
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
        let order = gguf::row_order(TensorName::Linear(3, linear), &described).unwrap();
        assert_eq!(order.iter().map(|&i| file_rows[i]).collect::<Vec<_>>(), (0..heads * d).collect::<Vec<_>>());
        let file: Vec<u8> = file_rows.iter().flat_map(|&r| [(r / 256) as u8, (r % 256) as u8, 7]).collect();
        let expected: Vec<u8> = (0..heads * d).flat_map(|r| [(r / 256) as u8, (r % 256) as u8, 7]).collect();
        assert_eq!(gguf::reorder_rows(&file, &order), expected);
    }
    let qwen = describe(json!({"model_type": "qwen2"}));
    assert_eq!(gguf::row_order(TensorName::Linear(3, Linear::Query), &qwen), None, "llama.cpp turns Qwen's halves, as we do");
    for name in [TensorName::Linear(0, Linear::Value), TensorName::Linear(0, Linear::Output), TensorName::Embedding, TensorName::MlpNorm(1)]
    {
        assert_eq!(gguf::row_order(name, &described), None);
    }
}

/// A whole description of each family, as its files have it, with layers enough for every pattern.
fn whole(family: Family) -> Value {
    let mut config = json!({
        "model_type": family.model_type(), "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 12,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 20000.0, "tie_word_embeddings": true
    });
    if matches!(family, Family::Qwen2 | Family::Qwen3) {
        (config["use_sliding_window"], config["sliding_window"], config["max_window_layers"]) = (json!(true), json!(8), json!(6));
    }
    if family == Family::SmolLm3 {
        (config["use_sliding_window"], config["sliding_window"]) = (json!(true), json!(8));
    }
    if family == Family::Phi3 {
        config["rope_scaling"] =
            json!({"type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 2], "long_factor": [1, 1, 1, 1, 1, 1, 1, 4]});
        (config["max_position_embeddings"], config["original_max_position_embeddings"]) = (json!(512), json!(256));
    }
    config
}

/// Every key that is read changes the configuration, or is refused with that value.
#[test]
fn every_key_of_every_family_changes_something() {
    for family in Family::ALL {
        let before = hugging_face::describe(&whole(family)).unwrap();
        let kinds: Vec<&str> = (0..12).map(|layer| if layer == 3 { "sliding_attention" } else { "full_attention" }).collect();
        for &key in hugging_face::keys(family) {
            let value = match key {
                "vocab_size" => json!(1001),
                "hidden_size" => json!(128),
                "intermediate_size" => json!(100),
                "num_hidden_layers" => json!(13),
                "num_attention_heads" => json!(8),
                "num_key_value_heads" => json!(1),
                "head_dim" => json!(32),
                "max_position_embeddings" => json!(1024), // Phi's factor on sine and cosine depends on it
                "original_max_position_embeddings" => json!(128),
                "rms_norm_eps" => json!(1e-6),
                "rope_theta" => json!(30000.0),
                "rope_local_base_freq" => json!(30000.0),
                "rope_scaling" => json!({"rope_type": "linear", "factor": 2.0}),
                "rope_parameters" if family == Family::Gemma3 => json!({"full_attention": {"rope_type": "linear", "factor": 2.0}}),
                // Phi's class asks rope_scaling first.
                "rope_parameters" if family == Family::Phi3 => continue,
                "rope_parameters" => json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}),
                "partial_rotary_factor" => json!(0.5),
                "tie_word_embeddings" => json!(false),
                "quantization_config" => json!({"quant_method": "gptq"}),
                "hidden_act" => json!("gelu_pytorch_tanh"),
                "hidden_activation" => json!("silu"),
                "attention_bias" | "mlp_bias" | "use_bidirectional_attention" => json!(true),
                "use_sliding_window" => json!(false),
                "sliding_window" => json!(5),
                "sliding_window_pattern" => json!(3),
                "max_window_layers" => json!(7),
                "layer_types" => json!(kinds),
                "query_pre_attn_scalar" => json!(100),
                "attn_logit_softcapping" => json!(17.0),
                "final_logit_softcapping" => json!(18.0),
                "no_rope_layers" => json!([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
                "no_rope_layer_interval" => json!(3),
                other => panic!("{other} of {family:?} has no value here"),
            };
            let mut config = whole(family);
            config[key] = value;
            match hugging_face::describe(&config) {
                Ok(after) => assert_ne!(after.config, before.config, "{key} of {family:?}"),
                // Phi's list of factors is as long as half of what turns.
                Err(error) => {
                    assert!(error.to_string().contains(key) || error.to_string().contains("short_factor"), "{key} of {family:?}: {error}")
                }
            }
        }
    }
    let mut phi = whole(Family::Phi3);
    let scaling = phi.as_object_mut().unwrap().remove("rope_scaling").unwrap();
    let without = hugging_face::describe(&phi).unwrap().config;
    phi["rope_parameters"] = scaling;
    assert_ne!(hugging_face::describe(&phi).unwrap().config, without);
}

/// The same of GGUF keys.
#[test]
fn every_gguf_key_of_every_family_changes_something() {
    for family in Family::ALL {
        let mut config = whole(family);
        config["use_sliding_window"] = json!(false);
        if matches!(family, Family::Gemma2 | Family::Gemma3) {
            config["query_pre_attn_scalar"] = json!(16);
        }
        let (mut keys, floats) = gguf::to_metadata(&hugging_face::describe(&config).unwrap()).unwrap();
        let vocabulary = keys.remove(&format!("{}.vocab_size", family.architecture())).unwrap();
        let read = |keys: &BTreeMap<String, MetaValue>| describe_gguf(keys, &floats, false);
        let with = |keys: &BTreeMap<String, MetaValue>, key: &str, value: MetaValue| {
            let mut keys = keys.clone();
            keys.insert(format!("{}.{key}", family.architecture()), value);
            keys
        };
        let before = read(&with(&keys, "vocab_size", vocabulary.clone())).unwrap();
        for &key in gguf::keys(family) {
            let value = match key {
                "attention.causal" => MetaValue::Bool(false),
                "rope.scaling.type" => MetaValue::Text("yarn".into()),
                "attention.head_count_kv" | "attention.sliding_window_pattern" => MetaValue::Unsigned(1),
                "attention.key_length" | "attention.value_length" => MetaValue::Unsigned(32),
                "attention.head_count" => MetaValue::Unsigned(8),
                "attention.sliding_window" => MetaValue::Unsigned(9),
                "rope.dimension_count" => MetaValue::Unsigned(8),
                "expert_count" => MetaValue::Unsigned(4),
                "context_length" | "rope.scaling.original_context_length" => MetaValue::Unsigned(128),
                "vocab_size" => MetaValue::Unsigned(1001),
                "embedding_length" | "block_count" | "feed_forward_length" => MetaValue::Unsigned(14),
                _ => MetaValue::Float(1.5), // factors, caps, bases and scales
            };
            let value = if key == "rope.freq_base" || key == "rope.freq_base_swa" { MetaValue::Float(777.0) } else { value };
            let value = if key == "attention.layer_norm_rms_epsilon" { MetaValue::Float(1e-4) } else { value };
            match read(&with(&with(&keys, "vocab_size", vocabulary.clone()), key, value)) {
                Ok(after) => assert_ne!(after.config, before.config, "{key} of {family:?}"),
                Err(error) => {
                    // Sizes that others follow from are found by those.
                    let names = [key.rsplit('.').next().unwrap(), "rope_factors", "the head's size"];
                    assert!(names.iter().any(|name| error.to_string().contains(name)), "{key} of {family:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn an_unknown_architecture_is_told_what_it_is_near_to() {
    let olmo = json!({
        "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "clip_qkv": null, "attention_bias": false, "use_cache": true, "initializer_range": 0.02
    });
    let message = hugging_face::describe(&olmo).unwrap_err().to_string();
    assert!(message.starts_with("model_type is \"olmo2\"; supported: llama, mistral,"), "{message}");
    assert!(message.ends_with(". Nearest is llama; keys that it does not have: clip_qkv"), "{message}");
    let neox = json!({"model_type": "gpt_neox", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "rotary_pct": 0.25,
        "use_parallel_residual": true, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "intermediate_size": 96, "sliding_window_pattern": 2});
    let message = hugging_face::describe(&neox).unwrap_err().to_string();
    assert!(
        message.ends_with(
            "keys that it does not have: layer_norm_eps, rotary_pct, sliding_window_pattern, use_parallel_residual; missing: vocab_size"
        ),
        "{message}"
    );
    // Nothing in common: nothing to say.
    let message = hugging_face::describe(&json!({"model_type": "vit", "image_size": 224})).unwrap_err().to_string();
    assert!(message.ends_with("as causal language models"), "{message}");

    let mut keys: BTreeMap<String, MetaValue> = smollm_gguf().into_iter().map(|(k, v)| (k.replace("llama.", "olmo2."), v)).collect();
    keys.insert("general.architecture".into(), MetaValue::Text("olmo2".into()));
    keys.insert("olmo2.attention.clamp_kqv".into(), MetaValue::Float(8.0));
    let message = describe_gguf(&keys, &BTreeMap::new(), false).unwrap_err().to_string();
    assert!(message.ends_with(". Nearest is llama; keys that it does not have: attention.clamp_kqv"), "{message}");
}

#[test]
fn messages_do_not_carry_the_files_control_characters() {
    let evil = json!({"model_type": format!("\u{1b}[31m{}", "x".repeat(10_000))});
    let message = hugging_face::describe(&evil).unwrap_err();
    assert!(matches!(message, FamilyError::Architecture { .. }));
    assert!(!message.to_string().contains('\u{1b}') && message.to_string().len() < 400);
}
