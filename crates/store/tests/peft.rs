//! Adapter folders: the bytes `peft` writes, what it wrote read back, and everything that would change the arithmetic refused by name.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::collections::BTreeMap;

use scratch::Scratch;
use serde_json::{Value, json};
use store::peft::{self, AdapterTensor, PeftAdapter, PeftConfig, TargetModules};
use store::safetensors::{self, TensorData};
use store::{Dtype, StoreError};

fn adapter() -> PeftAdapter {
    let tensor = |shape: &[usize]| AdapterTensor {
        shape: shape.to_vec(),
        values: (0..shape.iter().product::<usize>()).map(|i| i as f32 * 0.01).collect(),
    };
    let name = |half: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight");
    PeftAdapter {
        config: PeftConfig {
            base_model: Some("models/größe".into()),
            rank: 4,
            alpha: 8.0,
            dropout: f64::from(0.05f32),
            rslora: false,
            dora: false,
            target_modules: TargetModules::List(vec!["down_proj".into(), "q_proj".into()]),
            layers: None,
        },
        tensors: BTreeMap::from([(name("A"), tensor(&[4, 48])), (name("B"), tensor(&[48, 4]))]),
        lineage: Some(json!({"run": "a/b"})),
    }
}

/// The snapshot was compared with what peft 0.21.2 writes for the same settings: the same lines for these
/// keys; the newer keys that it adds have defaults that mean "not used".
#[test]
fn the_settings_are_pefts_bytes() {
    let written = peft::config_json(&adapter().config);
    assert_eq!(written, include_str!("adapter_config.snapshot.json"));
    assert!(written.is_ascii() && !written.ends_with('\n'));
}

#[test]
fn a_folder_comes_back() {
    let folder = Scratch::new("peft-round");
    let place = folder.path().join("adapter");
    for _ in 0..2 {
        adapter().write(&place, "# An adapter\n").unwrap(); // the second time over the first
    }
    assert_eq!(
        folder.everything(),
        ["adapter/README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/tunesmith.json"]
    );
    let mut read = PeftAdapter::read(&place).unwrap();
    assert_eq!(read.config.dropout as f32, 0.05);
    read.config.dropout = f64::from(0.05f32);
    assert_eq!(read, adapter());
}

/// `peft` takes one number or a list, and finds the list of blocks by itself.
#[test]
fn adapted_blocks_come_back() {
    let scratch = Scratch::new("peft-layers");
    let layers = |changes: &Value| PeftAdapter::read(&folder_with(&scratch, changes)).unwrap().config.layers;
    assert_eq!(layers(&json!({})), None);
    assert_eq!(layers(&json!({"layers_to_transform": 3, "layers_pattern": "layers"})), Some(vec![3]));
    assert_eq!(layers(&json!({"layers_to_transform": [0, 2], "layers_pattern": ["layers"]})), Some(vec![0, 2]));
    let mut some = adapter();
    some.config.layers = Some(vec![0]);
    some.write(&scratch.path().join("some"), "").unwrap();
    assert_eq!(PeftAdapter::read(&scratch.path().join("some")).unwrap().config.layers, Some(vec![0]));
}

/// A folder with these settings over the defaults and one pair of tensors.
fn folder_with(scratch: &Scratch, changes: &Value) -> std::path::PathBuf {
    adapter().write(&scratch.path().join("adapter"), "").unwrap();
    let mut config: Value = serde_json::from_str(&peft::config_json(&adapter().config)).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        if value == "REMOVE" {
            config.as_object_mut().unwrap().remove(key);
        } else {
            config[key] = value.clone();
        }
    }
    scratch.put("adapter/adapter_config.json", config.to_string());
    scratch.path().join("adapter")
}

#[test]
fn what_does_not_change_the_arithmetic_is_tolerated() {
    let scratch = Scratch::new("peft-tolerated");
    for changes in [
        json!({"a_key_of_2030": {"x": 1}, "runtime_config": null}),
        json!({"target_modules": "all-linear"}),
        json!({"target_modules": ".*\\.(q|down)_proj"}),
        json!({"init_lora_weights": "gaussian"}),
        json!({"init_lora_weights": false}),
        json!({"modules_to_save": [], "rank_pattern": null, "bias": "none"}),
        json!({"task_type": null, "revision": "main", "layers_to_transform": [0]}),
        json!({"base_model_name_or_path": null}),
    ] {
        PeftAdapter::read(&folder_with(&scratch, &changes)).unwrap_or_else(|e| panic!("{changes}: {e}"));
    }
    let defaults = json!({"r": "REMOVE", "lora_alpha": "REMOVE", "lora_dropout": "REMOVE", "use_rslora": "REMOVE"});
    let config = PeftAdapter::read(&folder_with(&scratch, &defaults)).unwrap().config;
    assert_eq!((config.rank, config.alpha, config.dropout, config.rslora), (8, 8.0, 0.0, false)); // peft's
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    let scratch = Scratch::new("peft-refused");
    for (changes, expected) in [
        (json!({"peft_type": "IA3"}), "peft_type is \"IA3\"; LORA is read"),
        (json!({"peft_type": "REMOVE"}), "has no peft_type"),
        (json!({"target_modules": null}), "has no target_modules"),
        (json!({"target_modules": 7}), "target_modules is 7"),
        (json!({"target_modules": ["q_proj", 7]}), "target_modules is"),
        (json!({"use_dora": 1}), "use_dora is 1; true or false"),
        (json!({"bias": "lora_only"}), "bias is \"lora_only\""),
        (json!({"bias": "all"}), "bias is \"all\""),
        (json!({"lora_bias": true}), "lora_bias is true"),
        (json!({"modules_to_save": ["lm_head"]}), "modules_to_save is [\"lm_head\"]"),
        (json!({"rank_pattern": {"q_proj": 4}}), "rank_pattern is {\"q_proj\":4}"),
        (json!({"alpha_pattern": {"q_proj": 4}}), "alpha_pattern is"),
        (json!({"fan_in_fan_out": true}), "fan_in_fan_out is true"),
        (json!({"layer_replication": [[0, 2]]}), "layer_replication is"),
        (json!({"trainable_token_indices": [1]}), "trainable_token_indices is"),
        (json!({"alora_invocation_tokens": [1]}), "alora_invocation_tokens is"),
        (json!({"init_lora_weights": "pissa_niter_4"}), "init_lora_weights is \"pissa_niter_4\""),
        (json!({"init_lora_weights": "olora"}), "init_lora_weights is \"olora\""),
        (json!({"task_type": "SEQ_CLS"}), "task_type is \"SEQ_CLS\""),
        (json!({"layers_to_transform": ["0"]}), "layers_to_transform is [\"0\"]"),
        (json!({"layers_to_transform": -1}), "layers_to_transform is -1"),
        (json!({"layers_to_transform": [0], "layers_pattern": "h"}), "layers_pattern is \"h\""),
        (json!({"r": 0}), "r is 0; from 1 to 4096"),
        (json!({"r": 1_000_000}), "r is 1000000; from 1 to 4096"),
        (json!({"r": -4}), "r is -4"),
        (json!({"r": 4.5}), "r is 4.5"),
        (json!({"use_rslora": "yes"}), "use_rslora is \"yes\""),
        (json!({"r": "4"}), "r is \"4\""),
        (json!({"lora_alpha": 0}), "lora_alpha is 0"),
        (json!({"lora_alpha": 1e38}), "lora_alpha is 1e+38; from"),
        (json!({"lora_dropout": 1.5}), "lora_dropout is 1.5; from 0 to 1"),
    ] {
        let message = PeftAdapter::read(&folder_with(&scratch, &changes)).expect_err(&changes.to_string()).to_string();
        assert!(message.contains(expected), "{changes}: {message}");
    }
}

#[test]
fn folders_that_are_no_adapters_are_refused() {
    let scratch = Scratch::new("peft-not");
    let folder = folder_with(&scratch, &json!({}));
    let error = || PeftAdapter::read(&folder).unwrap_err();
    let weights = folder.join("adapter_model.safetensors");
    let nan = safetensors::to_bytes(
        &[TensorData { name: "x", dtype: Dtype::F32, shape: &[1], bytes: &f32::INFINITY.to_le_bytes() }],
        &BTreeMap::new(),
    )
    .unwrap();
    std::fs::write(&weights, nan).unwrap();
    assert!(error().to_string().contains("has inf at element 0"));
    std::fs::write(&weights, safetensors::to_bytes(&[], &BTreeMap::new()).unwrap()).unwrap();
    assert!(error().to_string().contains("holds no tensors"));
    std::fs::remove_file(&weights).unwrap();
    assert!(matches!(error(), StoreError::Missing { .. }));
    std::fs::write(folder.join("adapter_model.bin"), b"\x80\x02").unwrap();
    assert!(error().to_string().contains("a pickle file, which can run code"));
    assert!(error().hint().unwrap().contains("safe_serialization=True"));
    std::fs::write(folder.join("adapter_config.json"), "[1]").unwrap();
    assert!(error().to_string().starts_with("an array where a JSON object is expected"));
    assert!(matches!(PeftAdapter::read(&folder.join("none")).unwrap_err(), StoreError::Missing { .. }));
}

#[test]
fn values_that_do_not_fill_their_shape_are_not_written() {
    let scratch = Scratch::new("peft-misfit");
    let mut bad = adapter();
    bad.tensors.values_mut().next().unwrap().values.pop();
    let message = bad.write(&scratch.path().join("adapter"), "").unwrap_err().to_string();
    assert!(message.contains("191 values for the shape [4, 48]"), "{message}");
    assert!(scratch.everything().is_empty());
}
