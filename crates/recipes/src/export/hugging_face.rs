//! A merged Hugging Face folder: config.json, safetensors in shards, tokenizer files, a model card.
//!
//! From a Hugging Face base its own files are taken along as they are; from a GGUF file they are made of its metadata.

use families::tensors::Naming;
use serde_json::{Map, Value, json};
use store::atomic::PendingFolder;
use store::model_files::{Description, MAX_TOKENIZER_BYTES};
use store::{Dtype, TensorInfo, safetensors};

use super::merged::{FileTensor, Merged};
use super::proof::Tolerance;
use super::{Export, Written};
use crate::context::{Event, Observer};
use crate::error::{Error, Result};
use crate::storage;

/// Files of the base that say what its text becomes, and how it is licensed: taken along as they are.
const TAKEN_ALONG: [&str; 11] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Writes all of it but the proof.
pub(super) fn write(export: &Export<'_, '_>, pending: &PendingFolder, observer: &mut dyn Observer) -> Result<Written> {
    let dtype = dtype(export)?;
    let storage = storage::of_file(dtype, "the export")?;
    let config = config(export, dtype)?;
    let merged = Merged::new(export, Naming::HuggingFace)?;
    observer.event(Event::Start { what: "writing tensors".into(), total: merged.tensors.len() as u64, unit: "tensors" });
    let shards = shards(&merged.tensors, dtype, export.options.shard_bytes);
    let mut index = Map::new();
    let (mut total, mut done) = (0u64, 0);
    for (number, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let mut infos: Vec<TensorInfo> = shard.iter().map(|tensor| info(tensor, dtype)).collect();
        safetensors::sort(&mut infos);
        let mut out = safetensors::writer(&pending.path().join(&name), &infos, &safetensors::pytorch_metadata())?;
        for info in &infos {
            if observer.stopped() {
                return Err(Error::Interrupted);
            }
            let tensor = shard.iter().find(|tensor| tensor.name == info.name).expect("the shard's own tensor");
            merged.write(tensor, storage, &mut out)?;
            index.insert(info.name.clone(), name.clone().into());
            total += dtype.bytes(&info.shape).unwrap_or(0) as u64;
            done += 1;
            observer.event(Event::Progress { done, loss: None, validation: None });
        }
        out.finish()?.commit()?;
    }
    observer.event(Event::End);
    if shards.len() > 1 {
        let value = json!({ "metadata": { "total_size": total }, "weight_map": index });
        pending.write("model.safetensors.index.json", pretty(&value).as_bytes())?;
    }
    pending.write("config.json", pretty(&config).as_bytes())?;
    pending.write("README.md", card(export).as_bytes())?;
    tokenizer_files(export, pending)?;
    Ok(Written { tensors: merged.tensors.len(), parameters: merged.parameters(), tolerance: Tolerance::of(storage) })
}

fn info(tensor: &FileTensor, dtype: Dtype) -> TensorInfo {
    TensorInfo { name: tensor.name.clone(), dtype, shape: tensor.shape.clone() }
}

/// Tensors in the order of the forward pass, in files of at most `limit` bytes; a larger tensor has a file of its own.
fn shards(tensors: &[FileTensor], dtype: Dtype, limit: u64) -> Vec<Vec<&FileTensor>> {
    let mut shards: Vec<Vec<&FileTensor>> = vec![Vec::new()];
    let mut bytes = 0u64;
    for tensor in tensors {
        let size = dtype.bytes(&tensor.shape).unwrap_or(usize::MAX) as u64;
        if bytes > 0 && bytes.saturating_add(size) > limit {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        shards.last_mut().expect("there is one").push(tensor);
    }
    shards
}

/// As asked; else as the base's linear layers are, and F16 where those are quantised: blocks have f16 scales.
fn dtype(export: &Export<'_, '_>) -> Result<Dtype> {
    Ok(match export.options.dtype.as_str() {
        "f32" => Dtype::F32,
        "bf16" => Dtype::BF16,
        "f16" => Dtype::F16,
        _ => {
            let matrices = export.base.files().tensors().iter().filter(|tensor| tensor.shape.len() == 2);
            let floats: Vec<Dtype> = matrices.map(|tensor| tensor.dtype).collect();
            let all = |dtype| floats.iter().all(|given| *given == dtype);
            [Dtype::F32, Dtype::BF16].into_iter().find(|&dtype| all(dtype)).unwrap_or(Dtype::F16)
        }
    })
}

/// The base's config.json with the new coding, or one made of its GGUF metadata.
fn config(export: &Export<'_, '_>, dtype: Dtype) -> Result<Value> {
    let name = match dtype {
        Dtype::F32 => "float32",
        Dtype::BF16 => "bfloat16",
        _ => "float16",
    };
    let mut config = match export.base.files().description() {
        Description::HuggingFace(config) => config.clone(),
        Description::Gguf(_) => {
            let mut config = families::hugging_face::to_config_json(&export.base.described)?;
            config["bos_token_id"] = json!(export.base.tokenizer()?.bos());
            config["eos_token_id"] = json!(export.base.tokenizer()?.eos());
            config
        }
    };
    if let Value::Object(keys) = &mut config {
        keys.remove("quantization_config");
        keys.remove("_name_or_path");
        // The older name is read by every version; the newer one takes its place where it stands.
        let key = if keys.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        keys.insert(key.to_owned(), name.into());
    }
    Ok(config)
}

fn tokenizer_files(export: &Export<'_, '_>, pending: &PendingFolder) -> Result<()> {
    let base = export.base;
    let template = base.template()?.map(|chat| chat.template().source());
    if !base.is_gguf() {
        for name in TAKEN_ALONG {
            if name == "chat_template.jinja" && !export.source.template.is_empty() {
                continue; // the run's own takes its place
            }
            match store::atomic::read(&base.files().path().join(name), MAX_TOKENIZER_BYTES) {
                Ok(bytes) => pending.write(name, &bytes)?,
                Err(store::StoreError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let (Some(template), false) = (template, export.source.template.is_empty()) {
            pending.write("chat_template.jinja", template.as_bytes())?;
        }
        return Ok(());
    }
    let special = base.files().special_tokens();
    pending.write("tokenizer.json", &base.tokenizer()?.to_json())?;
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": base.config().context,
        "clean_up_tokenization_spaces": false,
        "add_bos_token": !base.tokenizer()?.around_document().0.is_empty(),
    });
    for (key, token) in [("bos_token", &special.bos), ("eos_token", &special.eos), ("pad_token", &special.pad), ("unk_token", &special.unk)]
    {
        if let Some(token) = token {
            config[key] = json!(token);
        }
    }
    pending.write("tokenizer_config.json", pretty(&config).as_bytes())?;
    let generation =
        json!({ "bos_token_id": base.tokenizer()?.bos(), "eos_token_id": base.end_ids, "pad_token_id": base.tokenizer()?.pad() });
    pending.write("generation_config.json", pretty(&generation).as_bytes())?;
    if let Some(template) = template {
        pending.write("chat_template.jinja", template.as_bytes())?;
    }
    Ok(())
}

/// A model card that says what it was made of; the base's licence goes with it.
fn card(export: &Export<'_, '_>) -> String {
    let (base, config) = (export.base, &export.adapter.config);
    let licence = base.licence();
    let front = if licence.is_empty() { String::new() } else { format!("license: {licence}\n") };
    format!(
        "---\n{front}base_model: {name}\nlibrary_name: transformers\ntags:\n- tunesmith\n- merged\n---\n\n\
         {name}, fine-tuned with a LoRA adapter of rank {rank} and alpha {alpha}, merged by Tunesmith.\n\n\
         proof.json says how far its answers are from those of the adapter on its base.\n",
        name = base.name,
        rank = config.rank,
        alpha = config.alpha,
    )
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
