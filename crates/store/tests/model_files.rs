//! Base models: Hugging Face folders in their variants, GGUF files, and everything that is neither.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::collections::BTreeMap;
use std::path::Path;

use scratch::Scratch;
use serde_json::json;
use store::gguf::{self, GgufTensor, GgufValue};
use store::model_files::{BaseModel, Description, GgufVocabulary, TokenizerFiles};
use store::safetensors::{self, TensorData};
use store::{Dtype, StoreError};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(name)
}

fn weights(names: &[&str]) -> Vec<u8> {
    let views: Vec<_> = names.iter().map(|name| TensorData { name, dtype: Dtype::U8, shape: &[1], bytes: &name.as_bytes()[..1] }).collect();
    safetensors::to_bytes(&views, &BTreeMap::new()).unwrap()
}

#[test]
fn a_folder_as_transformers_leaves_it() {
    let model = BaseModel::open(&golden("llama")).unwrap();
    assert!(matches!(model.description(), Description::HuggingFace(config) if config["model_type"] == "llama"));
    assert_eq!(model.tensors().len(), 3 + 3 * 9);
    assert_eq!(model.read("model.norm.weight").unwrap().len(), 48 * 4);
    assert_eq!(model.special_tokens().end_ids, [2]);
    assert_eq!((model.chat_template(), model.licence()), (None, None));
    assert!(matches!(model.tokenizer(), Err(StoreError::NoTokenizer { .. })));
    let mut seen = 0;
    let hashes = model.hashes(&mut |bytes| seen = bytes).unwrap();
    assert_eq!(hashes.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
    assert_eq!(hashes.iter().map(|h| h.bytes).sum::<u64>(), seen);
}

#[test]
fn a_folder_with_shards_tokenizer_and_card() {
    let folder = Scratch::new("model-sharded");
    folder.put("config.json", r#"{"model_type":"llama","eos_token_id":[2,5]}"#);
    folder.put("model-1.safetensors", weights(&["a"]));
    folder.put("model-2.safetensors", weights(&["b", "c"]));
    folder.put(
        "model.safetensors.index.json",
        r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-2.safetensors"}}"#,
    );
    folder.put("tokenizer.json", "{}");
    folder.put("tokenizer_config.json", r#"{"bos_token":"<s>","eos_token":{"content":"</s>"},"add_bos_token":true}"#);
    folder.put("special_tokens_map.json", r#"{"eos_token":"not this one","pad_token":"<pad>"}"#);
    folder.put("generation_config.json", r#"{"eos_token_id":[7,2]}"#);
    folder.put("README.md", "---\nlanguage: en\nlicense: \"apache-2.0\"\n---\n# A model\n");
    folder.put("optimizer.pt", "a pickle that nobody reads");
    let model = BaseModel::open(folder.path()).unwrap();
    assert_eq!(model.tensors().len(), 3);
    assert_eq!(model.read("c").unwrap(), b"c");
    assert!(matches!(model.read("d"), Err(StoreError::NoSuchTensor { .. })));
    let special = model.special_tokens();
    assert_eq!(
        (special.bos.as_deref(), special.eos.as_deref(), special.pad.as_deref(), special.unk.as_deref()),
        (Some("<s>"), Some("</s>"), Some("<pad>"), None)
    );
    assert_eq!((&special.end_ids[..], special.add_bos), (&[2, 5, 7][..], Some(true)));
    assert_eq!(model.licence(), Some("apache-2.0"));
    assert!(matches!(model.tokenizer().unwrap(), TokenizerFiles::HuggingFace { json } if json == b"{}"));
    assert_eq!(model.files().len(), 8);
}

#[test]
fn the_template_is_found_in_every_place() {
    let folder = Scratch::new("model-template");
    folder.put("config.json", "{}");
    folder.put("model.safetensors", weights(&["a"]));
    let template = || BaseModel::open(folder.path()).unwrap().chat_template().map(str::to_owned);
    assert_eq!(template(), None);
    folder.put("tokenizer_config.json", r#"{"chat_template":[{"name":"tool_use","template":"T"},{"name":"default","template":"D"}]}"#);
    assert_eq!(template().as_deref(), Some("D"));
    folder.put("tokenizer_config.json", r#"{"chat_template":"C"}"#);
    assert_eq!(template().as_deref(), Some("C"));
    folder.put("chat_template.json", r#"{"chat_template":"J"}"#);
    assert_eq!(template().as_deref(), Some("J"));
    folder.put("chat_template.jinja", "X");
    assert_eq!(template().as_deref(), Some("X"));
    folder.put("chat_template.jinja", "x".repeat((1 << 20) + 1));
    assert!(BaseModel::open(folder.path()).unwrap_err().to_string().starts_with("1048577 bytes; at most 1048576 are read"));
}

fn vocabulary() -> BTreeMap<String, GgufValue> {
    let texts = |texts: &[&str]| GgufValue::Texts(texts.iter().collect());
    BTreeMap::from([
        ("general.architecture".to_owned(), GgufValue::Text("llama".into())),
        ("general.license".into(), GgufValue::Text("apache-2.0".into())),
        ("tokenizer.chat_template".into(), GgufValue::Text("{{ messages }}".into())),
        ("tokenizer.ggml.model".into(), GgufValue::Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), GgufValue::Text("smollm".into())),
        ("tokenizer.ggml.tokens".into(), texts(&["<|s|>", "a", "b", "ab"])),
        ("tokenizer.ggml.token_type".into(), GgufValue::Integers(vec![3, 1, 1, 1])),
        ("tokenizer.ggml.merges".into(), texts(&["a b"])),
        ("tokenizer.ggml.bos_token_id".into(), GgufValue::Unsigned(0)),
        ("tokenizer.ggml.eos_token_id".into(), GgufValue::Unsigned(3)),
        ("tokenizer.ggml.eot_token_id".into(), GgufValue::Unsigned(2)),
        ("tokenizer.ggml.padding_token_id".into(), GgufValue::Unsigned(99)),
        ("tokenizer.ggml.add_bos_token".into(), GgufValue::Bool(false)),
    ])
}

#[test]
fn a_gguf_file_and_a_folder_with_only_that() {
    let folder = Scratch::new("model-gguf");
    let tensor = GgufTensor { name: "t", dtype: Dtype::F32, shape: &[1], bytes: &[0; 4] };
    let path = folder.put("m.gguf", gguf::to_bytes(&vocabulary(), &[tensor]).unwrap());
    for place in [path.as_path(), folder.path()] {
        let model = BaseModel::open(place).unwrap();
        assert_eq!(model.path(), path);
        assert_eq!((model.chat_template(), model.licence()), (Some("{{ messages }}"), Some("apache-2.0")));
        let special = model.special_tokens();
        assert_eq!((special.bos.as_deref(), special.eos.as_deref(), special.pad.as_deref()), (Some("<|s|>"), Some("ab"), None));
        assert_eq!((&special.end_ids[..], special.add_bos), (&[2, 3][..], Some(false)));
        let TokenizerFiles::Gguf(found) = model.tokenizer().unwrap() else { panic!("a GGUF file has a GGUF vocabulary") };
        let expected = GgufVocabulary {
            model: "gpt2".into(),
            pre: Some("smollm".into()),
            tokens: ["<|s|>", "a", "b", "ab"].map(str::to_owned).into(),
            token_types: vec![3, 1, 1, 1],
            merges: vec!["a b".into()],
            add_bos: Some(false),
            ..GgufVocabulary::default()
        };
        assert_eq!(found, expected);
        assert_eq!(model.hashes(&mut |_| ()).unwrap().len(), 1);
    }
}

#[test]
fn a_vocabulary_of_the_wrong_kind_is_refused_by_key() {
    let folder = Scratch::new("model-vocabulary");
    for (key, value, expected) in [
        ("tokens", GgufValue::Unsigned(1), "\"tokenizer.ggml.tokens\" holds an integer, an array of texts expected"),
        ("tokens", GgufValue::Array(vec![GgufValue::Bool(true)]), "holds a boolean, an array of texts expected"),
        ("tokens", GgufValue::Array(vec![]), "\"tokenizer.ggml.tokens\" holds nothing"),
        ("token_type", GgufValue::Array(vec![GgufValue::Signed(1)]), "another length than the tokens"),
        ("token_type", GgufValue::Array(vec![GgufValue::Float(1.0); 4]), "an array of small integers expected"),
        ("scores", GgufValue::Array(vec![GgufValue::Signed(1); 4]), "an array of floats expected"),
        ("model", GgufValue::Bool(true), "\"tokenizer.ggml.model\" holds a boolean, a text expected"),
        ("add_bos_token", GgufValue::Unsigned(1), "holds an integer, a boolean expected"),
    ] {
        let mut keys = vocabulary();
        keys.insert(format!("tokenizer.ggml.{key}"), value);
        let path = folder.put("m.gguf", gguf::to_bytes(&keys, &[]).unwrap());
        let message = BaseModel::open(&path).unwrap().tokenizer().expect_err(key).to_string();
        assert!(message.contains(expected), "{key}: {message}");
    }
}

#[test]
fn what_is_no_model_is_refused_with_the_way_out() {
    let folder = Scratch::new("model-not");
    let error = |path: &Path| BaseModel::open(path).unwrap_err();
    assert!(matches!(error(&folder.path().join("none")), StoreError::Missing { .. }));
    assert!(error(folder.path()).to_string().starts_with("not a model: config.json, or one GGUF file, expected in"));
    folder.put("config.json", "{}");
    assert!(error(folder.path()).to_string().starts_with("not a model: model.safetensors or"));
    for pickle in ["pytorch_model.bin", "consolidated.00.pth", "model.ckpt", "weights.PKL", "a.pt"] {
        let path = folder.put(pickle, "\u{80}");
        for place in [folder.path(), path.as_path()] {
            let found = error(place);
            assert!(found.to_string().contains(&format!("pickle file ({pickle}), which can run code")), "{found}");
            assert!(found.hint().unwrap().contains("save_pretrained"));
        }
        std::fs::remove_file(path).unwrap();
    }
    folder.put("model.safetensors", "short");
    assert!(matches!(error(folder.path()), StoreError::Safetensors { .. }));
    assert!(error(&folder.path().join("model.safetensors")).to_string().starts_with("not a model: the folder with config.json"));
    assert!(error(&folder.put("a.txt", "some text")).to_string().contains("starts with \"some\", \"GGUF\" expected"));
    for (config, expected) in [
        ("{", "not valid JSON"),
        ("[]", "an array where a JSON object is expected"),
        ("\u{feff}{}", "not valid JSON"),
        ("", "not valid JSON"),
        (&"[".repeat(10_000), "recursion limit"),
    ] {
        folder.put("config.json", config);
        assert!(error(folder.path()).to_string().contains(expected), "{config:.10}: {}", error(folder.path()));
    }
    folder.put("config.json", json!({}).to_string());
    folder.put("model.safetensors", weights(&["a"]));
    folder.put("tokenizer.model", "a SentencePiece file");
    let found = BaseModel::open(folder.path()).unwrap().tokenizer().unwrap_err();
    assert!(
        found.to_string().starts_with("no tokenizer.json (tokenizer.model)") && found.hint().unwrap().contains("AutoTokenizer"),
        "{found}"
    );
}
