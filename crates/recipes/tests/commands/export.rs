//! Exports are what was trained, in every format and family, and are refused where nothing was.

use std::path::{Path, PathBuf};

use recipes::base::Base;
use recipes::context::Silent;
use recipes::error::Error;
use recipes::export::{ExportOptions, Exported, FORMATS, SHARD_BYTES, export, export_peft};
use serde_json::json;
use store::gguf::{GgufFile, GgufValue};
use store::peft::PeftAdapter;
use store::safetensors::{SafetensorsFile, Sharded};

use crate::home::{Home, fresh_adapter};

#[test]
fn an_adapter_comes_out_as_it_went_in() {
    let home = Home::new();
    let adapter = home.golden_adapter("llama");
    let output = home.path("out");
    let exported = export_peft(&adapter, &output).unwrap();
    assert_eq!((exported.rank, exported.alpha, exported.tensors), (4, 8.0, 3 * 7 * 2));
    assert_eq!(PeftAdapter::read(&output).unwrap(), PeftAdapter::read(&adapter).unwrap());
    let again = export_peft(&adapter, &output).unwrap_err();
    assert!(again.to_string().contains("exists already") && again.hint().is_some(), "{again}");
}

#[test]
fn what_was_never_trained_is_refused() {
    let home = Home::new();
    let model = home.tiny_model();
    let fresh = fresh_adapter(&home, Path::new(&model), 2);
    let error = export_peft(&fresh, &home.path("out")).unwrap_err();
    assert!(error.to_string().contains("changes nothing"), "{error}");
    assert!(!home.path("out").exists());
    let error = export_peft(&home.path("no-run"), &home.path("out")).unwrap_err();
    assert!(error.to_string().contains("no adapter yet"), "{error}");
    let error = export(&home.context(), &mut Silent, &options(&fresh, &model, "hf", home.path("out"))).unwrap_err();
    assert!(error.to_string().contains("changes nothing"), "{error}");
}

fn options(adapter: &Path, model: &str, format: &str, output: PathBuf) -> ExportOptions {
    ExportOptions {
        source: adapter.display().to_string(),
        format: format.into(),
        output,
        model: Some(model.into()),
        storage: String::new(),
        dtype: if format == "hf" { "f32".into() } else { String::new() },
        prompts: None,
        shard_bytes: SHARD_BYTES,
    }
}

/// An adapter of the tiny model whose B is as large as after some training.
fn trained_adapter(home: &Home, model: &str, rslora: bool) -> PathBuf {
    let mut adapter = PeftAdapter::read(&fresh_adapter(home, Path::new(model), 4)).unwrap();
    for (name, tensor) in adapter.tensors.iter_mut().filter(|(name, _)| name.contains("lora_B")) {
        tensor.values.iter_mut().enumerate().for_each(|(i, value)| *value = ((i * 37 + name.len() * 11) % 101) as f32 / 500.0 - 0.1);
    }
    adapter.config.rslora = rslora;
    adapter.config.base_model = Some(model.to_owned());
    let folder = home.path(if rslora { "trained-rslora" } else { "trained" });
    adapter.write(&folder, "trained").unwrap();
    folder
}

/// Exports the tiny model's adapter.
fn exported(home: &Home, adapter: &Path, model: &str, format: &str, output: &str) -> (PathBuf, Exported) {
    let output = home.path(output);
    let exported = export(&home.context(), &mut Silent, &options(adapter, model, format, output.clone())).unwrap();
    (output, exported)
}

/// Each format of the tiny model reads back, with its proof beside it, and nothing else is left.
#[test]
fn every_format_is_written_and_proved() {
    let home = Home::new();
    let model = home.tiny_model();
    let adapter = trained_adapter(&home, &model, false);
    for format in FORMATS {
        let place = format!("{format}/out");
        store::atomic::create_folder(&home.path(format)).unwrap();
        let (output, exported) = exported(&home, &adapter, &model, format, &place);
        assert!(exported.proof.failed().is_none() && exported.bytes > 0 && !exported.loads_with.is_empty(), "{format}");
        let proof = store::atomic::read_json(&exported.proof_path, 1 << 16).unwrap();
        assert_eq!(proof["tolerance"]["same_choice_at_least"], exported.proof.tolerance.same_choice_at_least);
        let merged = !matches!(*format, "peft" | "gguf-lora");
        assert_eq!(proof["method"], if merged { "logits" } else { "tensors" });
        if merged {
            assert!(exported.proof.positions > 100 && exported.proof.adapter_effect_mean > 0.05, "{format}: {:?}", exported.proof);
        }
        let files = store::tree::files_below(&home.path(format)).unwrap();
        assert!(files.iter().all(|file| file.starts_with("out")), "{format} left {files:?}");
        if format.starts_with("gguf-") && merged {
            let file = GgufFile::open(&output).unwrap();
            let stored = |name: &str| file.tensors().iter().find(|tensor| tensor.name == name).unwrap().dtype.name();
            // Rows of 32 and 48 numbers hold no block of 256, and those of 48 none of 32 either.
            let (query, down, embedding) = match *format {
                "gguf-f32" => ("F32", "F32", "F32"),
                "gguf-bf16" => ("BF16", "BF16", "BF16"),
                "gguf-f16" => ("F16", "F16", "F16"),
                "gguf-q8_0" => ("Q8_0", "F16", "Q8_0"),
                _ => ("Q5_0", "F16", "Q8_0"),
            };
            assert_eq!(
                (stored("blk.0.attn_q.weight"), stored("blk.1.ffn_down.weight"), stored("token_embd.weight")),
                (query, down, embedding)
            );
            assert_eq!(stored("blk.1.ffn_norm.weight"), "F32");
        }
    }
}

#[test]
fn an_adapter_as_a_gguf_file_is_the_adapter() {
    let home = Home::new();
    let model = home.tiny_model();
    let context = home.context();
    let base = Base::open(&context, &mut Silent, &model, "").unwrap();
    for rslora in [false, true] {
        let folder = trained_adapter(&home, &model, rslora);
        let (output, _) = exported(&home, &folder, &model, "gguf-lora", if rslora { "rs.gguf" } else { "plain.gguf" });
        let expected = recipes::adapters::load(&folder, &base.described).unwrap();
        let given = recipes::adapters::load(&output, &base.described).unwrap();
        assert_eq!(given.tensors, expected.tensors);
        assert!((given.config.scale() / expected.config.scale() - 1.0).abs() < 1e-6 && !given.config.rslora);
        let file = GgufFile::open(&output).unwrap();
        assert_eq!(file.metadata()["general.type"], GgufValue::Text("adapter".into()));
        // Llama's rows of q are interleaved in GGUF files: the second row of a head of 8 is the engine's fifth.
        let b = file.read("blk.0.attn_q.weight.lora_b").unwrap();
        let pair = &expected.tensors[&(0, engine::config::Linear::Query)];
        assert_eq!(b[4 * 4..][..4], pair.b[4 * 4].to_le_bytes(), "rank 4: row 1 begins at the 5th number");
    }
    // Another model's adapter, and a model in an adapter's place.
    let (merged, _) = exported(&home, &trained_adapter(&home, &model, false), &model, "gguf-f16", "merged.gguf");
    let error = recipes::adapters::load(&merged, &base.described).unwrap_err();
    assert!(error.to_string().contains("general.type of the adapter: model, expected adapter"), "{error}");
    let other = Base::open(&context, &mut Silent, &home.golden_model("llama"), "").unwrap();
    let error = recipes::adapters::load(&home.path("plain.gguf"), &other.described).unwrap_err();
    assert!(error.to_string().contains("shape"), "{error}");
}

/// DoRA's rows are scaled when they are merged; llama.cpp's adapters have no place for its magnitudes.
#[test]
fn dora_is_merged_and_refused_as_a_gguf_file() {
    let home = Home::new();
    let model = home.tiny_model();
    let mut adapter = PeftAdapter::read(&trained_adapter(&home, &model, false)).unwrap();
    let of_b: Vec<(String, usize)> =
        adapter.tensors.iter().filter(|(name, _)| name.contains("lora_B")).map(|(name, tensor)| (name.clone(), tensor.shape[0])).collect();
    for (name, rows) in of_b {
        let values = (0..rows).map(|row| 0.8 + (row % 7) as f32 / 10.0).collect();
        let name = name.replace("lora_B.weight", "lora_magnitude_vector");
        adapter.tensors.insert(name, store::peft::AdapterTensor { shape: vec![rows], values });
    }
    adapter.config.dora = true;
    let folder = home.path("dora");
    adapter.write(&folder, "").unwrap();
    for format in ["hf", "gguf-f32"] {
        let (_, exported) = exported(&home, &folder, &model, format, &format!("dora-{format}"));
        assert!(exported.proof.adapter_effect_mean > 0.05, "{format}: {:?}", exported.proof);
    }
    let error = export(&home.context(), &mut Silent, &options(&folder, &model, "gguf-lora", home.path("out"))).unwrap_err();
    assert!(error.to_string().contains("DoRA") && !home.path("out").exists(), "{error}");
}

/// A GGUF base becomes a Hugging Face folder and another GGUF file, with the same tokens and template.
#[test]
fn a_gguf_base_goes_both_ways() {
    let home = Home::new();
    let model = home.tiny_model();
    let adapter = trained_adapter(&home, &model, false);
    let (gguf, _) = exported(&home, &adapter, &model, "gguf-q8_0", "base.gguf");
    let gguf = gguf.display().to_string();
    let (folder, of_folder) = exported(&home, &adapter, &gguf, "hf", "again");
    assert_eq!(of_folder.proof.prompts_with_same_ids, of_folder.proof.prompts);
    let config = store::atomic::read_json(&folder.join("config.json"), 1 << 16).unwrap();
    assert_eq!((&config["model_type"], &config["torch_dtype"], &config["eos_token_id"]), (&json!("llama"), &json!("float32"), &json!(2)));
    let tokenizer = store::atomic::read_json(&folder.join("tokenizer_config.json"), 1 << 16).unwrap();
    assert_eq!((&tokenizer["bos_token"], &tokenizer["eos_token"]), (&json!("<|im_start|>"), &json!("<|im_end|>")));
    assert!(folder.join("chat_template.jinja").exists());
    // What nothing is added to stays as it is: rounded again, it would be another.
    let (file, _) = exported(&home, &adapter, &gguf, "gguf-q4_k_m", "again.gguf");
    let (before, after) = (GgufFile::open(Path::new(&gguf)).unwrap(), GgufFile::open(&file).unwrap());
    assert_eq!(before.read("token_embd.weight").unwrap(), after.read("token_embd.weight").unwrap());
    for (key, value) in before.metadata().iter().filter(|(key, _)| *key != "general.file_type") {
        assert_eq!(after.metadata().get(key), Some(value), "{key}");
    }
    assert_eq!(after.metadata()["general.file_type"], GgufValue::Unsigned(15));
}

#[test]
fn a_folder_has_shards_and_the_base_s_own_files() {
    let home = Home::new();
    let model = home.tiny_model();
    let adapter = trained_adapter(&home, &model, false);
    let mut options = ExportOptions { model: None, ..options(&adapter, &model, "hf", home.path("sharded")) };
    options.shard_bytes = 60_000;
    export(&home.context(), &mut Silent, &options).unwrap();
    let sharded = Sharded::open(&home.path("sharded/model.safetensors.index.json")).unwrap();
    assert!(sharded.shards().len() > 2, "{}", sharded.shards().len());
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let read = |folder: &Path| store::atomic::read(&folder.join(name), 1 << 20).unwrap();
        assert_eq!(read(Path::new(&model)), read(&home.path("sharded")), "{name}");
    }
    (options.output, options.shard_bytes, options.dtype) = (home.path("whole"), SHARD_BYTES, "bf16".into());
    export(&home.context(), &mut Silent, &options).unwrap();
    let whole = SafetensorsFile::open(&home.path("whole/model.safetensors")).unwrap();
    assert!(whole.tensors().iter().all(|tensor| tensor.dtype == store::Dtype::BF16));
    assert_eq!(whole.tensors().len(), sharded.tensors().len());
    let config = store::atomic::read_json(&home.path("whole/config.json"), 1 << 16).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
}

/// Every family, from PyTorch's tiny models: q and k in their order, fused projections, Gemma's gains, biases, tied heads.
#[test]
fn every_family_is_merged() {
    let home = Home::new();
    for name in ["llama", "llama3", "mistral", "mistral_heads", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "smollm3"] {
        let model = home.golden_model(name);
        home.byte_level(name);
        let adapter = home.golden_adapter(name);
        for format in ["hf", "gguf-f32", "gguf-lora"] {
            let given = export(&home.context(), &mut Silent, &options(&adapter, &model, format, home.path(&format!("{name}-{format}"))));
            // Tiny models that llama.cpp would compute otherwise: its files have no key for what is peculiar to them.
            let refusal = match (name, format) {
                ("qwen2", "gguf-f32") => Some("the pattern of layers"),
                ("gemma2", "gguf-f32") => Some("the attention's scale"),
                _ => None,
            };
            match (given, refusal) {
                (Ok(given), None) if format == "gguf-lora" => assert!(given.proof.failed().is_none()),
                (Ok(given), None) => assert!(given.proof.adapter_effect_mean > 0.01, "{name} {format}: {:?}", given.proof),
                (Err(error), Some(reason)) => assert!(error.to_string().contains(reason), "{name} {format}: {error}"),
                (given, refusal) => panic!("{name} {format}: {given:?}, not {refusal:?}"),
            }
        }
    }
}

/// Four bits cannot say a weight that is a thousand times its neighbours and the neighbours too: nothing is handed over.
#[test]
fn what_answers_otherwise_is_withheld() {
    let home = Home::new();
    let model = home.tiny_model();
    let folder = trained_adapter(&home, &model, false);
    let mut adapter = PeftAdapter::read(&folder).unwrap();
    for (_, tensor) in adapter.tensors.iter_mut().filter(|(name, _)| name.contains("lora_A")) {
        let columns = tensor.shape[1];
        tensor.values.iter_mut().enumerate().for_each(|(i, value)| *value *= if i % columns == 5 { 300.0 } else { 1.0 });
    }
    let folder = home.path("outliers");
    adapter.write(&folder, "").unwrap();
    let output = home.path("withheld/out.gguf");
    store::atomic::create_folder(&home.path("withheld")).unwrap();
    let error = export(&home.context(), &mut Silent, &options(&folder, &model, "gguf-q4_k_m", output)).unwrap_err();
    let Error::Withheld { given, limit, .. } = &error else { panic!("{error}") };
    assert!(given > limit && error.to_string().contains("nothing was written") && error.hint().is_some(), "{error}");
    assert_eq!(store::tree::files_below(&home.path("withheld")).unwrap(), Vec::<String>::new());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let home = Home::new();
    let model = home.tiny_model();
    let adapter = trained_adapter(&home, &model, false);
    let refused = |options: ExportOptions, words: &str| {
        let error = export(&home.context(), &mut Silent, &options).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(options.output == home.path("tiny") || !options.output.exists());
    };
    let with = |format: &str| options(&adapter, &model, format, home.path("out"));
    refused(with("gguf"), "expected one of: peft");
    refused(ExportOptions { dtype: "f16".into(), ..with("gguf-f16") }, "--dtype");
    refused(ExportOptions { output: home.path("tiny"), ..with("hf") }, "exists already");
    refused(ExportOptions { model: Some("nowhere".into()), ..with("hf") }, "no base model named \"nowhere\"");
    refused(ExportOptions { source: "20260101".into(), ..with("hf") }, "no run \"20260101\"");
    refused(ExportOptions { prompts: Some(home.path("none.jsonl")), ..with("hf") }, "none.jsonl");
    let empty = home.write("rows.csv", "question\nhello\n");
    refused(ExportOptions { prompts: Some(empty), ..with("hf") }, "");
    let given = home.write("rows.jsonl", "{\"prompt\": \"hello there\", \"completion\": \"good day\"}\n");
    let exported = export(&home.context(), &mut Silent, &ExportOptions { prompts: Some(given), ..with("hf") }).unwrap();
    assert_eq!((exported.proof.prompts_from, exported.proof.prompts), ("given records", 1));
}
