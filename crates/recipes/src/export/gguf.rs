//! A merged GGUF file that llama.cpp runs.
//!
//! From a GGUF base its metadata are taken along; from a Hugging Face base they are made of config.json and tokenizer.json.

use std::collections::BTreeMap;

use engine::storage::Storage;
use families::gguf::{FLOATS, Floats, MetaValue};
use families::tensors::Naming;
use store::atomic::Pending;
use store::gguf::{GgufValue, writer};
use store::model_files::{Description, TokenizerFiles};
use store::{Dtype, TensorInfo};
use text::{GgufVocabulary, TokenizerConfig};

use super::merged::{FileTensor, Merged};
use super::mixture::Mixture;
use super::proof::Tolerance;
use super::{Export, Written};
use crate::base::Base;
use crate::context::{Event, Observer};
use crate::error::{Error, Result};
use crate::storage;

/// Keys of a base's file that say how *its* tensors are stored or divided.
const OF_THE_OLD_FILE: [&str; 4] = ["general.alignment", "general.file_type", "quantize.", "split."];

/// `general.quantization_version`: ggml's since its blocks have f16 scales.
const QUANTIZATION_VERSION: u64 = 2;

/// Writes the file to its temporary place.
pub(super) fn write(export: &Export<'_, '_>, observer: &mut dyn Observer) -> Result<(Pending, Written)> {
    let mixture = Mixture::of(&export.options.format).expect("formats are checked before");
    let (mut metadata, floats) = metadata(export.base)?;
    metadata.insert("general.type".into(), text("model"));
    metadata.insert("general.file_type".into(), GgufValue::Unsigned(mixture.file_type()));
    if mixture.is_quantized() {
        metadata.insert("general.quantization_version".into(), GgufValue::Unsigned(QUANTIZATION_VERSION));
    }
    if let Some(chat) = export.base.template()? {
        metadata.insert("tokenizer.chat_template".into(), text(chat.template().source()));
    }
    let merged = Merged::new(export, Naming::Gguf)?;
    let kept = export.base.storages()?;
    let stored = |tensor: &FileTensor| -> Storage {
        if tensor.is_vector() {
            return Storage::F32;
        }
        let (part, cols) = (&tensor.parts[0], tensor.shape[1]);
        let held = kept[&part.name];
        // What is in blocks already and stays as it is, is not rounded again.
        if mixture.is_quantized() && !merged.changes(tensor) && !held.is_float() && storage::to_file(held).is_some() {
            return held;
        }
        mixture.storage(part.name, cols, export.base.described.family, export.base.config())
    };
    let info = |tensor: &FileTensor| TensorInfo {
        name: tensor.name.clone(),
        dtype: storage::to_file(stored(tensor)).expect("what is written stands in GGUF files"),
        shape: tensor.shape.clone(),
    };
    let float = |(name, values): (&String, &Vec<f32>)| TensorInfo { name: name.clone(), dtype: Dtype::F32, shape: vec![values.len()] };
    let infos: Vec<TensorInfo> = floats.iter().map(float).chain(merged.tensors.iter().map(info)).collect();
    let mut out = writer(&export.options.output, &metadata, &infos)?;
    for values in floats.values() {
        out.write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    observer.event(Event::Start { what: "writing tensors".into(), total: merged.tensors.len() as u64, unit: "tensors" });
    for (done, tensor) in merged.tensors.iter().enumerate() {
        if observer.stopped() {
            return Err(Error::Interrupted);
        }
        merged.write(tensor, stored(tensor), &mut out)?;
        observer.event(Event::Progress { done: done as u64 + 1, loss: None, validation: None });
    }
    observer.event(Event::End);
    let tolerance = match mixture {
        Mixture::Plain(storage) => Tolerance::of(storage),
        Mixture::Q4KM => Tolerance::of(Storage::Q4K),
    };
    Ok((out.finish()?, Written { tensors: infos.len(), parameters: merged.parameters(), tolerance }))
}

/// A file's keys.
type Metadata = BTreeMap<String, GgufValue>;

/// What describes model and tokenizer, and the small tensors that go with it.
fn metadata(base: &Base) -> Result<(Metadata, Floats)> {
    if let Description::Gguf(own) = base.files().description() {
        let mut own = own.clone();
        own.retain(|key, _| !OF_THE_OLD_FILE.iter().any(|old| if old.ends_with('.') { key.starts_with(old) } else { key == old }));
        let mut floats = Floats::new();
        for name in FLOATS {
            floats.extend(base.floats(name)?.map(|values| (name.to_owned(), values)));
        }
        return Ok((own, floats));
    }
    let (described, floats) = families::gguf::to_metadata(&base.described)?;
    let mut metadata: Metadata = described.into_iter().filter_map(|(key, value)| Some((key, gguf_value(value)?))).collect();
    let named = base.name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    metadata.insert("general.name".into(), text(named));
    let licence = base.licence();
    if !licence.is_empty() {
        metadata.insert("general.license".into(), text(&licence));
    }
    metadata.extend(tokenizer(base)?);
    Ok((metadata, floats))
}

fn gguf_value(value: MetaValue) -> Option<GgufValue> {
    Some(match value {
        MetaValue::Unsigned(value) => GgufValue::Unsigned(value),
        MetaValue::Signed(value) => GgufValue::Signed(value),
        MetaValue::Float(value) => GgufValue::Float(value),
        MetaValue::Bool(value) => GgufValue::Bool(value),
        MetaValue::Text(value) => GgufValue::Text(value),
        MetaValue::Length(_) => return None,
    })
}

/// `tokenizer.ggml.*` of a Hugging Face folder.
fn tokenizer(base: &Base) -> Result<Vec<(String, GgufValue)>> {
    let files = base.files();
    let TokenizerFiles::HuggingFace { json } = files.tokenizer()? else {
        unreachable!("a folder's tokenizer is Hugging Face's");
    };
    let config = files.tokenizer_config().map(|value| TokenizerConfig::from_json(value.to_string().as_bytes())).transpose()?;
    let vocabulary = GgufVocabulary::from_json(&json, config.as_ref(), base.config().vocab)?;
    let texts = |texts: Vec<String>| GgufValue::Texts(texts.into_iter().collect());
    let mut keys = vec![
        ("model", text(&vocabulary.model)),
        ("pre", text(if vocabulary.pre.is_empty() { "default" } else { &vocabulary.pre })),
        ("tokens", texts(vocabulary.tokens)),
        ("token_type", GgufValue::Integers(vocabulary.token_types)),
    ];
    if vocabulary.scores.is_empty() {
        keys.push(("merges", texts(vocabulary.merges)));
    } else {
        keys.push(("scores", GgufValue::Floats(vocabulary.scores)));
    }
    // Of the tokens that end a text, the files name the tokenizer's own, one that ends a turn and one that ends a message.
    let mut ends = base.end_ids.iter().copied().filter(|id| Some(*id) != vocabulary.eos);
    let turn = base.template()?.map(|chat| chat.end_of_turn()).filter(|id| Some(*id) != vocabulary.eos).or_else(|| ends.next());
    let message = ends.find(|id| Some(*id) != turn);
    for (key, id) in [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("padding_token_id", vocabulary.pad),
        ("unknown_token_id", vocabulary.unk),
        ("eot_token_id", turn),
        ("eom_token_id", message),
    ] {
        keys.extend(id.map(|id| (key, GgufValue::Unsigned(id.into()))));
    }
    for (key, flag) in
        [("add_bos_token", vocabulary.add_bos), ("add_eos_token", vocabulary.add_eos), ("add_space_prefix", vocabulary.add_space_prefix)]
    {
        keys.extend(flag.map(|flag| (key, GgufValue::Bool(flag))));
    }
    Ok(keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

fn text(text: &str) -> GgufValue {
    GgufValue::Text(text.to_owned())
}
