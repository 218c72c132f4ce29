//! Adapters between PEFT folders and the engine.

use std::collections::BTreeMap;
use std::path::Path;

use engine::adapter::{Adapter, LoraConfig, LoraPair, LoraTensors};
use engine::config::{Linear, ModelConfig};
use families::adapters::{Half, linears_of, pair, target_modules, tensor_name};
use serde_json::Value;
use store::peft::{AdapterTensor, PeftAdapter, PeftConfig, TargetModules};

use crate::error::{Error, Result};
use crate::spec::Tune;

/// The engine's LoRA settings of a plan.
pub(crate) fn lora_config(tune: &Tune, config: &ModelConfig) -> Result<LoraConfig> {
    let targets = linears_of(config, &tune.targets)?;
    Ok(LoraConfig { rank: tune.rank, alpha: tune.alpha, rslora: tune.rslora, dropout: tune.dropout, targets, layers: None })
}

/// Tensors of an adapter's form (the adapter itself, a moment) under their PEFT names.
pub(crate) fn to_named(tensors: &LoraTensors, config: &ModelConfig, rank: usize) -> BTreeMap<String, AdapterTensor> {
    let mut named = BTreeMap::new();
    for (&(layer, linear), LoraPair { a, b }) in tensors {
        let (out, inner) = config.adapter_shape(linear);
        named.insert(tensor_name(config, layer, linear, Half::A), AdapterTensor { shape: vec![rank, inner], values: a.clone() });
        named.insert(tensor_name(config, layer, linear, Half::B), AdapterTensor { shape: vec![out, rank], values: b.clone() });
    }
    named
}

/// The other way round; shapes are checked against the model.
pub(crate) fn from_named(mut named: BTreeMap<String, AdapterTensor>, config: &ModelConfig, rank: usize) -> Result<LoraTensors> {
    let shapes = named.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
    let pairs = pair(config, rank, &shapes)?;
    let mut take = |name: &str| named.remove(name).map(|tensor| tensor.values).unwrap_or_default();
    Ok(pairs.into_iter().map(|found| ((found.layer, found.linear), LoraPair { a: take(&found.a), b: take(&found.b) })).collect())
}

/// An engine adapter as a PEFT folder's content.
pub(crate) fn to_peft(adapter: &Adapter, config: &ModelConfig, base_model: &str, lineage: Option<Value>) -> PeftAdapter {
    let lora = &adapter.config;
    PeftAdapter {
        config: PeftConfig {
            base_model: Some(base_model.to_owned()),
            rank: lora.rank,
            alpha: f64::from(lora.alpha),
            dropout: f64::from(lora.dropout),
            rslora: lora.rslora,
            target_modules: TargetModules::List(target_modules(config, &lora.targets)),
        },
        tensors: to_named(&adapter.tensors, config, lora.rank),
        lineage,
    }
}

/// Reads a PEFT folder, by whomever it was trained, for this model.
pub fn read(folder: &Path, config: &ModelConfig) -> Result<Adapter> {
    from_peft(PeftAdapter::read(folder)?, config).map_err(|error| match error {
        Error::Family(source) => Error::OtherBase { source: source.into(), path: folder.to_owned() },
        error => error,
    })
}

/// A PEFT folder's content as an engine adapter for this model.
pub(crate) fn from_peft(peft: PeftAdapter, config: &ModelConfig) -> Result<Adapter> {
    let rank = peft.config.rank;
    let tensors = from_named(peft.tensors, config, rank)?;
    let mut adapted: Vec<Linear> = tensors.keys().map(|&(_, linear)| linear).collect();
    adapted.sort_unstable();
    adapted.dedup();
    let targets: Vec<Linear> = adapted.iter().flat_map(|&linear| config.fused_with(linear)).copied().collect();
    let mut layers: Vec<usize> = tensors.keys().map(|&(layer, _)| layer).collect();
    layers.dedup();
    let every_pair = adapted.len() * layers.len() == tensors.len();
    if !every_pair {
        return Err(Error::Mismatch {
            what: "the adapter's layers",
            given: format!("{} pairs", tensors.len()),
            expected: format!("the same {} linear layers in each of {} blocks", adapted.len(), layers.len()),
        });
    }
    let lora = LoraConfig {
        rank,
        alpha: peft.config.alpha as f32,
        rslora: peft.config.rslora,
        dropout: peft.config.dropout as f32,
        targets,
        layers: (layers.len() < config.layers).then_some(layers),
    };
    Ok(Adapter { config: lora, tensors })
}
