//! A LoRA adapter as a GGUF file, as llama.cpp's `--lora` takes it.
//!
//! `general.type` is "adapter", `adapter.type` "lora"; beside each adapted weight `NAME` stand `NAME.lora_a` `[rank, in]` and
//! `NAME.lora_b` `[out, rank]`, whose factor is `adapter.lora.alpha` / rank. Rows of B are in the order of the weight's rows.
//! Source: llama.cpp's convert_lora_to_gguf.py and src/llama-adapter.cpp.

use std::collections::BTreeMap;
use std::path::Path;

use engine::adapter::{Adapter, LoraTensors};
use engine::config::TensorName;
use engine::storage::dequantize_row;
use families::tensors::{Naming, source_name};
use families::{Described, gguf};
use store::atomic::Pending;
use store::gguf::{GgufFile, GgufValue, writer};
use store::peft::{PeftAdapter, PeftConfig, TargetModules};
use store::{Dtype, TensorInfo};

use crate::adapters;
use crate::base::Base;
use crate::error::{Error, Result};
use crate::storage;

/// Largest rank that is read.
const MAX_RANK: usize = store::peft::MAX_RANK;

/// Writes `adapter` to the temporary place of a file.
pub(crate) fn write(path: &Path, adapter: &Adapter, base: &Base) -> Result<Pending> {
    let (described, config) = (&base.described, base.config());
    if adapter.config.dora {
        return Err(Error::Mismatch {
            what: "--to gguf-lora",
            given: "an adapter with DoRA, whose magnitudes llama.cpp's adapters have no place for".into(),
            expected: "one without, or base and adapter merged: --to gguf-f16".into(),
        });
    }
    let rank = adapter.config.rank;
    let mut tensors: Vec<(TensorInfo, Vec<f32>)> = Vec::new();
    for (&(layer, linear), pair) in &adapter.tensors {
        let (out, inner) = config.adapter_shape(linear);
        let name = TensorName::Linear(layer, linear);
        let weight = source_name(name, config, Naming::Gguf);
        let mut b = pair.b.clone();
        if let Some(order) = gguf::row_order(name, described) {
            for (row, &in_file) in order.iter().enumerate() {
                b[in_file * rank..][..rank].copy_from_slice(&pair.b[row * rank..][..rank]);
            }
        }
        let info =
            |half: &str, shape: [usize; 2]| TensorInfo { name: format!("{weight}.{half}"), dtype: Dtype::F32, shape: shape.to_vec() };
        tensors.push((info("lora_a", [rank, inner]), pair.a.clone()));
        tensors.push((info("lora_b", [out, rank]), b));
    }
    // llama.cpp divides by the rank; rsLoRA divides by its root.
    let alpha = f64::from(adapter.config.scale()) * rank as f64;
    let text = |text: &str| GgufValue::Text(text.to_owned());
    let metadata = BTreeMap::from([
        ("general.architecture".to_owned(), text(described.family.architecture())),
        ("general.type".to_owned(), text("adapter")),
        ("general.name".to_owned(), text(&format!("LoRA adapter for {}", base.name.rsplit('/').next().unwrap_or_default()))),
        ("general.file_type".to_owned(), GgufValue::Unsigned(0)),
        ("adapter.type".to_owned(), text("lora")),
        ("adapter.lora.alpha".to_owned(), GgufValue::Float(alpha)),
    ]);
    let infos: Vec<TensorInfo> = tensors.iter().map(|(info, _)| info.clone()).collect();
    let mut out = writer(path, &metadata, &infos)?;
    for (_, values) in &tensors {
        out.write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(out.finish()?)
}

/// Reads such a file, by whomever it was made, for this model.
pub(crate) fn read(path: &Path, described: &Described) -> Result<Adapter> {
    let file = GgufFile::open(path)?;
    let config = &described.config;
    let wrong = |what, given: String, expected: String| Error::Mismatch { what, given, expected };
    for (key, what, expected) in [
        ("general.type", "general.type of the adapter", "adapter"),
        ("adapter.type", "adapter.type", "lora"),
        ("general.architecture", "general.architecture of the adapter", described.family.architecture()),
    ] {
        match file.metadata().get(key) {
            Some(GgufValue::Text(given)) if given == expected => {}
            Some(GgufValue::Text(given)) => return Err(wrong(what, given.chars().take(40).collect(), expected.to_owned())),
            _ => return Err(wrong(what, "not there".into(), expected.to_owned())),
        }
    }
    let alpha = match file.metadata().get("adapter.lora.alpha") {
        Some(GgufValue::Float(alpha)) if *alpha > 0.0 && *alpha <= store::peft::MAX_ALPHA => *alpha,
        other => {
            let given = other.map_or_else(|| "not there".to_owned(), |value| format!("{value:?}").chars().take(40).collect());
            return Err(wrong("adapter.lora.alpha", given, format!("a number above 0, at most {}", store::peft::MAX_ALPHA)));
        }
    };
    let mut places = BTreeMap::new();
    for layer in 0..config.layers {
        for linear in config.adapter_linears() {
            places.insert(source_name(TensorName::Linear(layer, linear), config, Naming::Gguf), (layer, linear));
        }
    }
    let mut tensors = LoraTensors::new();
    let mut rank = None;
    for info in file.tensors() {
        let found = info.name.strip_suffix(".lora_a").map(|weight| (weight, true));
        let found = found.or_else(|| info.name.strip_suffix(".lora_b").map(|weight| (weight, false)));
        let place = found.and_then(|(weight, first)| Some((*places.get(weight)?, first)));
        let Some(((layer, linear), first)) = place else {
            let expected = "lora_a and lora_b of linear layers of this model's blocks".into();
            return Err(wrong("a tensor of the adapter", info.name.chars().take(80).collect(), expected));
        };
        let (out, inner) = config.adapter_shape(linear);
        let given = match info.shape[..] {
            [rows, cols] if first && cols == inner => rows,
            [rows, cols] if !first && rows == out => cols,
            _ => 0,
        };
        let expected = *rank.get_or_insert(given);
        if given == 0 || given != expected || given > MAX_RANK {
            let shape = if first { format!("[rank, {inner}]") } else { format!("[{out}, rank]") };
            return Err(wrong(
                "the shape of an adapter's tensor",
                format!("{:?}", info.shape),
                format!("{shape}, one rank from 1 to {MAX_RANK}"),
            ));
        }
        let values = floats(&file, info)?;
        let pair = tensors.entry((layer, linear)).or_default();
        match (first, gguf::row_order(TensorName::Linear(layer, linear), described)) {
            (true, _) => pair.a = values,
            (false, None) => pair.b = values,
            (false, Some(order)) => pair.b = order.iter().flat_map(|&row| &values[row * given..][..given]).copied().collect(),
        }
    }
    if tensors.values().any(|pair| pair.a.is_empty() || pair.b.is_empty()) {
        return Err(wrong("an adapter's tensors", "one of a pair".into(), "lora_a and lora_b of each layer".into()));
    }
    let Some(rank) = rank else { return Err(families::FamilyError::AdapterEmpty.into()) };
    let tensors = adapters::to_named(&tensors, config, rank);
    let targets = TargetModules::List(Vec::new()); // what is adapted, the tensors say
    let of_file =
        PeftConfig { base_model: None, rank, alpha, dropout: 0.0, rslora: false, dora: false, target_modules: targets, layers: None };
    adapters::from_peft(PeftAdapter { config: of_file, tensors, lineage: None }, config)
}

fn floats(file: &GgufFile, info: &TensorInfo) -> Result<Vec<f32>> {
    let storage = storage::of_file(info.dtype, &info.name)?;
    if !storage.is_float() {
        let (given, expected) = (info.dtype.name().to_owned(), "F32, F16, BF16".into());
        return Err(Error::Storage { tensor: info.name.clone(), given, expected });
    }
    let mut values = vec![0.0; info.shape.iter().product()];
    dequantize_row(storage, &file.read(&info.name)?, &mut values);
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(Error::Weights { tensor: info.name.clone() }),
    }
}
